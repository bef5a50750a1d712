#include "replay/explain.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <set>

#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using test::history_of;
using test::json_of;
using test::lines_of;
using test::related_history;

// What must hold whatever the history says.
void require_sound(const Explanation& e, const History& history) {
  std::set<Seq> seqs;
  for (const Record& record : history.records) seqs.insert(record.seq);
  for (const Fact& fact : e.evidence) RC_ASSERT(seqs.count(fact.seq) == 1);
  for (const Alternative& other : e.alternatives) {
    RC_ASSERT(other.cause != e.cause);
    RC_ASSERT(!other.would_need.empty());
  }
  RC_ASSERT(!e.summary.empty());
  RC_ASSERT(e.remedies.empty() == (e.cause == Cause::kNone));
  if (e.cause == Cause::kUnknown) RC_ASSERT(e.confidence == Confidence::kLow);
  std::string rank;
  for (const Remedy& remedy : e.remedies) {
    RC_ASSERT(!remedy.action.empty() && !remedy.harm.empty());
    RC_ASSERT(remedy.rank.empty() || remedy.rank >= rank);  // the safest first
    if (!remedy.rank.empty()) rank = remedy.rank;
    const bool frees_the_name = remedy.rank == "S3" || remedy.rank == "S4" || remedy.rank == "S5";
    if (e.cause == Cause::kDupName || e.cause == Cause::kUnknown) RC_ASSERT(!frees_the_name);
  }
}

RC_GTEST_PROP(ExplainProperty, AnyHistoryIsExplained, ()) {
  const auto records = *related_history();
  const History history = history_of(lines_of(records), "x");
  const Explanation explanation = explain(history);
  require_sound(explanation, history);
  RC_ASSERT(!to_text(explanation).empty());
  RC_CLASSIFY(explanation.cause != Cause::kUnknown && explanation.cause != Cause::kNone, "a cause is named");
}

// Records of other names, passwords and addresses never change an answer.
RC_GTEST_PROP(ExplainProperty, UnrelatedRecordsChangeNothing, ()) {
  std::vector<Record> records = *related_history();
  for (Record& record : records) record.seq *= 2;
  std::vector<Record> mixed = records;
  for (const Record& record : records) {
    if (*rc::gen::inRange(0, 2) == 0) continue;
    Record stranger = *test::related_record();
    // Refused passwords after a restore bear on all names: a memory that went back refuses many.
    if (is_server_wide(stranger.kind()) || stranger.kind() == Kind::password_rejected) continue;
    stranger.seq = record.seq + 1;
    stranger.time = record.time;
    stranger.node = "stranger";
    stranger.source = "192.0.2.7:1";
    std::visit(
        [](auto& event) {
          each_field(event, [](const char*, auto& value) {
            if constexpr (std::is_same_v<std::decay_t<decltype(value)>, Fingerprint>) value.text = "5555";
          });
        },
        stranger.event);
    mixed.push_back(std::move(stranger));
  }
  std::sort(mixed.begin(), mixed.end(), [](const Record& a, const Record& b) { return a.seq < b.seq; });
  RC_ASSERT(json_of(history_of(lines_of(records), "x")) == json_of(history_of(lines_of(mixed), "x")));
}

// The past does not depend on the future.
RC_GTEST_PROP(ExplainProperty, ACutIsTheSameAsAShorterFile, ()) {
  const auto records = *related_history();
  RC_PRE(!records.empty());
  const auto length = *rc::gen::inRange<std::size_t>(0, records.size() + 1);
  const std::vector<Record> shorter(records.begin(), records.begin() + static_cast<std::ptrdiff_t>(length));
  RC_ASSERT(json_of(history_of(lines_of(records), "x", Cut{.seq = length, .time = {}})) ==
            json_of(history_of(lines_of(shorter), "x")));
}

RC_GTEST_PROP(ExplainProperty, BrokenInputIsStillExplained, ()) {
  std::string lines = lines_of(*related_history());
  for (int i = *rc::gen::inRange(0, 6); i > 0 && !lines.empty(); --i) {
    const auto at = *rc::gen::inRange<std::size_t>(0, lines.size());
    if (*rc::gen::inRange(0, 2) == 0)
      lines[at] = *rc::gen::arbitrary<char>();
    else
      lines.erase(at, *rc::gen::inRange<std::size_t>(0, 40));
  }
  const History history = history_of(lines, "x");
  require_sound(explain(history), history);
}

std::string binding(const char* seconds) {
  return std::string(
             R"({"seq":1,"time":"2024-01-01T00:00:00Z","kind":"password_stored","node":"web-1","source":"10.0.0.1","fingerprint":"a41c"})") +
         "\n" + R"({"seq":2,"time":"2024-01-01T)" + seconds +
         R"(Z","kind":"password_rejected","node":"web-1","source":"10.0.0.2","fingerprint":"77e0"})";
}

TEST(Explain, TheHolderIsAliveForTwoMinutesAfterItsLastSuccess) {
  // Two addresses and no tunnel: within the window it is a second machine, past it nobody knows.
  const History near = history_of(binding("00:01:59"), "web-1");
  EXPECT_EQ(explain(near).cause, Cause::kDupName);
  const History far = history_of(binding("00:02:01"), "web-1");
  EXPECT_EQ(explain(far).cause, Cause::kUnknown);
}

std::string story_line(int seq, const char* rest) {
  return "{\"seq\":" + std::to_string(seq) + "," + rest + "}\n";
}

TEST(Explain, OtherNamesRefusedAfterARestoreAreHeard) {
  const std::string own =
      story_line(1, R"("time":"2024-01-01T00:00:00Z","kind":"password_stored","node":"w-1","source":"10.0.0.1","fingerprint":"a41c")") +
      story_line(2, R"("time":"2024-01-02T00:00:00Z","kind":"epoch_started","cause":"restored")") +
      story_line(3, R"("time":"2024-01-02T00:05:00Z","kind":"password_rejected","node":"w-1","source":"10.0.0.1","fingerprint":"77e0")");
  EXPECT_EQ(explain(history_of(own, "w-1")).confidence, Confidence::kLow);
  const std::string other = story_line(
      4, R"("time":"2024-01-02T00:05:01Z","kind":"password_rejected","node":"w-2","source":"10.0.0.2","fingerprint":"d00d")");
  const History history = history_of(own + other, "w-1");
  const Explanation explanation = explain(history);
  EXPECT_EQ(explanation.cause, Cause::kRestored);
  EXPECT_EQ(explanation.confidence, Confidence::kMedium);
  EXPECT_EQ(explanation.evidence.back().seq, 4u);
}

// One address, another machine on it in between: a NAT. It does not make two machines one.
TEST(Explain, AnAddressThatOthersUseIsNobodys) {
  const std::string before =
      story_line(1, R"("time":"2024-01-01T00:00:00Z","kind":"password_stored","node":"w-1","source":"10.0.0.1","fingerprint":"a41c")");
  const std::string neighbour =
      story_line(2, R"("time":"2024-01-01T03:00:00Z","kind":"password_stored","node":"w-2","source":"10.0.0.1","fingerprint":"d00d")");
  const std::string after =
      story_line(3, R"("time":"2024-01-02T00:00:00Z","kind":"password_rejected","node":"w-1","source":"10.0.0.1","fingerprint":"77e0")");
  EXPECT_EQ(explain(history_of(before + after, "w-1")).cause, Cause::kRebuilt);
  EXPECT_EQ(explain(history_of(before + neighbour + after, "w-1")).cause, Cause::kUnknown);
  test::MemoryLog log;
  std::vector<Record> records;
  for (const std::string& line : {before, neighbour, after}) {
    Result<Record> record = record_from_json(line);
    ASSERT_TRUE(record);
    records.push_back(std::move(*record));
  }
  log.append(records);
  const Result<History> history = history_from_log(log.log(), "w-1");
  ASSERT_TRUE(history);
  EXPECT_EQ(test::seqs_of(*history), (std::vector<Seq>{1, 2, 3}));
  EXPECT_EQ(json_of(*history), json_of(history_of(before + neighbour + after, "w-1")));
}

TEST(Explain, NamesTheNodeInLowerCaseWhateverItWasAskedBy) {
  const History history = history_of(binding("00:05:00"), "WEB-1");
  EXPECT_EQ(explain(history).node, "web-1");
  EXPECT_EQ(explain(history).timeline.steps.size(), 2u);
}

TEST(Explain, AHistoryWithoutTheNodeSaysSo) {
  const History history = history_of(binding("00:05:00"), "web-2");
  const Explanation explanation = explain(history);
  EXPECT_EQ(explanation.cause, Cause::kUnknown);
  EXPECT_EQ(explanation.state, "unknown");
  EXPECT_EQ(explanation.as_of_seq, 0u);
  EXPECT_NE(explanation.summary.find("never reached this ledger"), std::string::npos);
}

// ---- what other servers' logs tell -----------------------------------------------------------------------

std::string ours(int seq, const char* time, const char* kind, const char* fingerprint) {
  return R"({"seq":)" + std::to_string(seq) + R"(,"time":"2024-03-02T)" + time + R"(Z","kind":")" + kind +
         R"(","node":"web-1","source":"10.0.0.1","fingerprint":")" + fingerprint + "\"}\n";
}
// Imported at noon.
std::string theirs(int seq, const std::string& happened, const char* kind) {
  return R"({"seq":)" + std::to_string(seq) + R"(,"time":"2024-03-02T12:00:00Z","kind":")" + kind +
         R"(","node":"web-1","source":"10.0.0.1","server":"imported:m1")" +
         (happened.empty() ? "" : R"(,"first_time":")" + happened + "\"") + "}\n";
}

TEST(Imported, ARefusalThatIsOlderThanTheRegistrationIsHistory) {
  for (const char* kind : {"password_rejected", "token_rejected", "request_rejected"})
    for (const char* happened : {"2024-01-20T04:00:00Z", "2024-03-02T09:59:59Z", ""}) {
      const History history = history_of(ours(1, "10:00:00", "password_stored", "a41c") + theirs(2, happened, kind), "web-1");
      const Explanation e = explain(history);
      EXPECT_EQ(e.cause, Cause::kNone) << kind << " " << happened << ": " << e.summary;
      EXPECT_EQ(e.state, "registered");
      ASSERT_EQ(e.warnings.size(), 1u);
      EXPECT_NE(e.warnings.front().find("record 2, of imported:m1"), std::string::npos) << e.warnings.front();
      EXPECT_EQ(e.timeline.steps.size(), 2u) << "it is shown all the same";
    }
}

TEST(Imported, ANameThatWasTakenOverIsNotRefusedByItsOldServersLog) {
  const std::string binding =
      R"({"seq":1,"time":"2024-03-02T11:00:00Z","kind":"binding_imported","node":"web-1","origin":"secret"})" "\n";
  const History history = history_of(binding + theirs(2, "2024-01-20T04:00:00Z", "password_rejected"), "web-1");
  EXPECT_EQ(explain(history).cause, Cause::kNone) << explain(history).summary;
}

// The other way round: what the old server let in once does not end what is refused here now.
TEST(Imported, AnOldSuccessDoesNotEndARefusalOfOurs) {
  const std::string here = ours(1, "10:00:00", "password_stored", "a41c") + ours(2, "11:00:00", "password_rejected", "77e0") +
                           ours(3, "11:00:05", "password_rejected", "77e0");
  const History without = history_of(here, "web-1");
  const History with = history_of(here + theirs(4, "2024-01-20T04:00:00Z", "tunnel_opened") +
                                      theirs(5, "2024-01-20T04:00:00Z", "password_verified"),
                                  "web-1");
  ASSERT_NE(explain(without).cause, Cause::kNone);
  EXPECT_EQ(explain(with).cause, explain(without).cause);
  EXPECT_EQ(explain(with).state, "refused");
}

// What another server refuses while we serve is judged: the machine asks there.
TEST(Imported, ARefusalAfterOurLastWordIsOpen) {
  const History history = history_of(
      ours(1, "10:00:00", "password_stored", "a41c") + theirs(2, "2024-03-02T11:30:00Z", "password_rejected"), "web-1");
  EXPECT_NE(explain(history).cause, Cause::kNone);
}

// A log alone, without a server of ours: what it tells is what there is.
TEST(Imported, ALogAloneIsExplained) {
  const History history = history_of(theirs(1, "2024-01-20T04:00:00Z", "tunnel_opened") +
                                         theirs(2, "2024-01-21T04:00:00Z", "password_rejected"),
                                     "web-1");
  EXPECT_NE(explain(history).cause, Cause::kNone);
  EXPECT_FALSE(explain(history).evidence.empty());
}

// Whenever a log is imported, what it tells of the time before a node's last registration changes no answer.
RC_GTEST_PROP(ImportedProperty, OldHistoryChangesNoAnswer, ()) {
  std::vector<Record> records = *related_history();
  Record last;
  last.event = PasswordVerified{Fingerprint{"a41c"}};
  last.node = "x";
  last.seq = records.size() + 1;
  last.time = records.empty() ? Time{1'700'000'000'000'000} : records.back().time.plus_seconds(700);
  records.push_back(last);
  const History without = history_of(lines_of(records), "x");
  std::vector<Record> old = *rc::gen::container<std::vector<Record>>(*rc::gen::inRange(1, 6), test::related_record());
  for (Record& record : old) {
    if (is_server_wide(record.kind())) record.event = PasswordRejected{.fingerprint = {}, .bound = {}, .status = 403};
    record.node = "x";
    record.server = "imported:m1";
    record.seq = records.size() + 1;
    record.first_time = last.time.plus_seconds(-*rc::gen::inRange(0, 100'000));
    record.time = last.time;
    std::visit(
        [](auto& event) {
          each_field(event, [](const char*, auto& value) {
            if constexpr (std::is_same_v<std::decay_t<decltype(value)>, Fingerprint>) value.text.clear();
          });
        },
        record.event);
    records.push_back(record);
  }
  const History with = history_of(lines_of(records), "x");
  const Explanation a = explain(without), b = explain(with);
  RC_ASSERT(a.cause == b.cause);
  RC_ASSERT(a.confidence == b.confidence);
  RC_ASSERT(a.state == b.state);
  RC_ASSERT(a.summary == b.summary);
}

}  // namespace
}  // namespace ledger::replay
