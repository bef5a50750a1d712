#include "replay/history.h"

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include <fstream>

#include "replay/export.h"
#include "tests/replay/replay_support.h"
#include "tests/support/temp_dir.h"

namespace ledger::replay {
namespace {

using test::history_of;
using test::json_of;
using test::lines_of;
using test::MemoryLog;
using test::related_history;
using test::seqs_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A log written by hand: each verb adds one record, five seconds after the one before.
class Pen {
 public:
  Record& add(Event event, std::string node = "", std::string source = "") {
    Record record;
    record.event = std::move(event);
    record.seq = records_.size() + 1;
    record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(record.seq) * 5);
    record.node = std::move(node);
    record.source = std::move(source);
    records_.push_back(std::move(record));
    return records_.back();
  }
  const std::vector<Record>& records() const { return records_; }
  std::string lines() const { return lines_of(records_); }

 private:
  std::vector<Record> records_;
};

History from_log(const std::vector<Record>& records, const std::string& node, const Cut& at = {}) {
  MemoryLog log;
  log.append(records);
  Result<History> history = history_from_log(log.log(), node, at);
  if (!history) fatal(history.error().message);
  return std::move(*history);
}

TEST(History, HoldsWhatBearsOnTheNodeAndNothingElse) {
  Pen pen;
  pen.add(ServerStarted{});                                                            // 1 the server
  pen.add(PasswordStored{{"aa"}}, "x", "10.0.0.1:5");                                  // 2 its own
  pen.add(PasswordStored{{"bb"}}, "y", "10.0.0.2");                                    // 3 nobody's business
  pen.add(PasswordRejected{.fingerprint = {"bb"}, .bound = {"aa"}}, "x", "10.0.0.2");  // 4 makes 3 bear on it
  pen.add(TokenRejected{}, "", "10.0.0.1:77");         // 5 from its address, nameless
  pen.add(TokenRejected{}, "", "10.0.0.3");            // 6 from somewhere else
  pen.add(TokenRejected{}, "y", "10.0.0.1");           // 7 another name's
  pen.add(TunnelOpened{"s"}, "y", "10.0.0.1");         // 8 another name's
  pen.add(PasswordVerified{{"cc"}}, "z", "10.0.0.1");  // 9 another name's, another password
  pen.add(TokenRotated{}, "", "");                     // 10 the server's tokens
  EXPECT_THAT(seqs_of(history_of(pen.lines(), "x")), ElementsAre(1, 2, 3, 4, 5, 10));
  EXPECT_THAT(seqs_of(from_log(pen.records(), "X")), ElementsAre(1, 2, 3, 4, 5, 10));
}

RC_GTEST_PROP(HistoryProperty, LogAndFileAndNodeExportGiveTheSameAnswer, ()) {
  const auto records = *related_history();
  MemoryLog log;
  if (!records.empty()) log.append(records);
  const Result<History> of_log = history_from_log(log.log(), "x");
  RC_ASSERT(of_log.has_value());
  std::string all, own;
  RC_ASSERT(export_log(log.log(), {}, [&](std::string_view line) { return all += line, true; }).has_value());
  RC_ASSERT(export_node(log.log(), "x", {}, [&](std::string_view line) { return own += line, true; }).has_value());
  const std::string answer = json_of(*of_log);
  RC_ASSERT(answer == json_of(history_of(all, "x")));
  RC_ASSERT(answer == json_of(history_of(own, "x")));
  RC_ASSERT(own.size() <= all.size());
}

RC_GTEST_PROP(HistoryProperty, CutsMeanTheSameInLogAndFile, ()) {
  const auto records = *related_history();
  RC_PRE(!records.empty());
  MemoryLog log;
  log.append(records);
  Cut cut;
  if (*rc::gen::inRange(0, 2) == 0)
    cut.seq = *rc::gen::inRange<Seq>(0, records.size() + 2);
  else
    cut.time = (*rc::gen::elementOf(records)).time.plus_seconds(*rc::gen::inRange(-1, 2));
  const Result<History> of_log = history_from_log(log.log(), "x", cut);
  RC_ASSERT(of_log.has_value());
  RC_ASSERT(json_of(*of_log) == json_of(history_of(lines_of(records), "x", cut)));
}

RC_GTEST_PROP(HistoryProperty, TheOrderOfLinesDoesNotMatter, ()) {
  std::vector<Record> records = *related_history();
  const History straight = history_of(lines_of(records), "x");
  for (std::size_t i = records.size(); i > 1; --i)
    std::swap(records[i - 1], records[*rc::gen::inRange<std::size_t>(0, i)]);
  History shuffled = history_of(lines_of(records), "x");
  shuffled.warnings.clear();  // it says that it sorted
  RC_ASSERT(json_of(straight) == json_of(shuffled));
}

TEST(History, KeepsTheBeginningAndTheEndOfALongHistory) {
  Pen pen;
  pen.add(PasswordStored{{"aa"}}, "x", "10.0.0.1");
  for (int i = 0; i < 52'000; ++i)
    pen.add(PasswordRejected{.fingerprint = {"bb"}, .bound = {"aa"}}, "x", "10.0.0.1");
  const History file = history_of(pen.lines(), "x");
  const History log = from_log(pen.records(), "x");
  EXPECT_EQ(file.records.size(), 51'000u);
  EXPECT_EQ(file.records.front().seq, 1u);
  EXPECT_EQ(file.records[999].seq, 1000u);
  EXPECT_EQ(file.records[1000].seq, 2002u);
  EXPECT_EQ(file.records.back().seq, 52'001u);
  EXPECT_EQ(seqs_of(file), seqs_of(log));
  EXPECT_EQ(file.warnings, log.warnings);
  ASSERT_EQ(file.warnings.size(), 1u);
  EXPECT_THAT(file.warnings[0], HasSubstr("more records than are looked at"));
}

TEST(History, BoundsWhatOthersContribute) {
  Pen pen;
  pen.add(PasswordStored{{"aa"}}, "x", "10.0.0.1");
  for (int i = 0; i < 300; ++i) pen.add(PasswordVerified{{"aa"}}, "y", "10.0.0.2");
  for (int i = 0; i < 10'050; ++i) pen.add(TokenRejected{}, "", "10.0.0.1");
  const History file = history_of(pen.lines(), "x");
  EXPECT_EQ(file.records.size(), 1u + 200u + 10'000u);
  EXPECT_EQ(file.records[1].seq, 102u) << "the latest 200 uses of the password";
  EXPECT_EQ(seqs_of(file), seqs_of(from_log(pen.records(), "x")));
}

// Behind a balancer every record has one address; only the latest of them are looked through.
TEST(History, ASharedAddressIsSearchedOnlySoFar) {
  Pen pen;
  pen.add(PasswordStored{{"aa"}}, "x", "10.0.0.1");
  pen.add(TokenRejected{}, "", "10.0.0.1");
  for (int i = 0; i < 20'001; ++i) pen.add(TunnelOpened{"s"}, "y", "10.0.0.1");
  pen.add(TokenRejected{}, "", "10.0.0.1");
  EXPECT_THAT(seqs_of(history_of(pen.lines(), "x")), ElementsAre(1, 20'004));
  EXPECT_THAT(seqs_of(from_log(pen.records(), "x")), ElementsAre(1, 20'004));
}

TEST(History, ALineThatCannotBeReadIsAHole) {
  const History history = history_of(
      "\xEF\xBB\xBF{\"seq\":1,\"kind\":\"binding_held\",\"node\":\"x\"}\r\n"
      "\n"
      "nonsense\n"
      "{\"seq\":2,\"kind\":\"binding_held\",\"node\":\"x\",\"time\":7}\n" +
          std::string(2 << 20, 'x') + "\n" + "{\"seq\":3,\"kind\":\"binding_held\",\"node\":\"x\"}",
      "x");
  EXPECT_THAT(seqs_of(history), ElementsAre(1, 3));
  ASSERT_EQ(history.holes.size(), 3u);
  EXPECT_EQ(history.holes[0].line, 3u);
  EXPECT_EQ(history.holes[0].after, 1u);
  EXPECT_THAT(history.holes[1].reason, HasSubstr("time"));
  EXPECT_THAT(history.holes[2].reason, HasSubstr("longer than 1 MiB"));
}

TEST(History, CountsHolesPastItsBound) {
  std::string lines;
  for (int i = 0; i < 1200; ++i) lines += "?\n";
  const History history = history_of(lines, "x");
  EXPECT_EQ(history.holes.size(), 1000u);
  EXPECT_EQ(history.holes_left_out, 200u);
}

TEST(History, RepeatedRecordsCountOnce) {
  Pen pen;
  pen.add(PasswordStored{{"aa"}}, "x");
  pen.add(PasswordVerified{{"aa"}}, "x");
  const History history = history_of(pen.lines() + pen.lines(), "x");
  EXPECT_THAT(seqs_of(history), ElementsAre(1, 2));
  EXPECT_THAT(history.warnings, ElementsAre(HasSubstr("not in order"), HasSubstr("2 repeated")));
}

TEST(History, OneSeqWithTwoContentsIsToldAndBothAreUsed) {
  Pen pen, other;
  pen.add(PasswordStored{{"aa"}}, "x");
  other.add(PasswordStored{{"bb"}}, "x");
  const History history = history_of(pen.lines() + other.lines(), "x");
  EXPECT_THAT(seqs_of(history), ElementsAre(1, 1));
  EXPECT_THAT(history.warnings, ElementsAre(HasSubstr("seq 1 is there twice")));
}

TEST(History, LogsOfSeveralServersAreOrderedByTime) {
  Pen one, two;
  one.add(PasswordStored{{"aa"}}, "x").server = "s1";
  one.add(PasswordVerified{{"aa"}}, "x").server = "s1";
  Record& late = two.add(PasswordRejected{.fingerprint = {"aa"}, .bound = {"bb"}}, "x");
  late.server = "s2";
  late.time = late.time.plus_seconds(3600);
  const History history = history_of(two.lines() + one.lines(), "x");
  EXPECT_THAT(seqs_of(history), ElementsAre(1, 2, 3)) << "numbered anew, so that a seq names one record";
  EXPECT_EQ(history.records.back().server, "s2");
}

TEST(History, AFileThatIsNotThereIsSaidToBe) {
  const Result<History> history = history_from_jsonl("/nonexistent/history.jsonl", "x");
  ASSERT_FALSE(history);
  EXPECT_EQ(history.error().code, Errc::not_found);
  EXPECT_THAT(history.error().message, HasSubstr("/nonexistent/history.jsonl"));
  ledger::test::TempDir dir;
  EXPECT_EQ(history_from_jsonl(dir.path(), "x").error().code, Errc::invalid);
}

// A pipe can be read once; the history needs two passes.
TEST(History, ReadsFromAPipe) {
  Pen pen;
  pen.add(PasswordStored{{"aa"}}, "x", "10.0.0.1");
  pen.add(TokenRejected{}, "", "10.0.0.1");
  ledger::test::TempDir dir;
  const std::string fifo = dir / "fifo";
  ASSERT_EQ(std::system(("mkfifo " + fifo).c_str()), 0);
  std::ofstream(dir / "lines") << pen.lines();
  ASSERT_EQ(std::system(("cat " + (dir / "lines").string() + " > " + fifo + " &").c_str()), 0);
  const Result<History> history = history_from_jsonl(fifo, "x");
  ASSERT_TRUE(history) << history.error().message;
  EXPECT_THAT(seqs_of(*history), ElementsAre(1, 2));
}

TEST(History, CutIsASeqOrATime) {
  EXPECT_EQ(Cut::parse("8991")->seq, 8991u);
  EXPECT_TRUE(Cut::parse("2024-06-11T07:02:40Z")->time.has_value());
  for (const char* bad : {"", "-1", "12x", "yesterday", "99999999999999999999"})
    EXPECT_FALSE(Cut::parse(bad)) << bad;
}

TEST(History, LastSeqUntilATimeIsFoundBySearch) {
  Pen pen;
  for (int i = 0; i < 100; ++i) pen.add(TokenAccepted{});
  MemoryLog log;
  log.append(pen.records());
  const Time first = pen.records().front().time;
  EXPECT_EQ(*last_seq_until(log.log(), first.plus_seconds(-1)), 0u);
  EXPECT_EQ(*last_seq_until(log.log(), first), 1u);
  EXPECT_EQ(*last_seq_until(log.log(), first.plus_seconds(7)), 2u);
  EXPECT_EQ(*last_seq_until(log.log(), first.plus_seconds(100'000)), 100u);
}

}  // namespace
}  // namespace ledger::replay
