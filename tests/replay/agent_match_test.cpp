// Agents' lines beside the records that their requests left.
#include "replay/agent_match.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using ::testing::HasSubstr;

constexpr const char* kSentence = "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' "
                                  "may not match server node-passwd entry";
const Time kStart = *Time::parse("2024-06-11T07:00:00Z");

// An agent that is refused every 5 s, by its own clock, which is `behind` seconds behind the ledger's.
class Story {
 public:
  explicit Story(double behind) : behind_(behind) {}

  // A record of the ledger; count > 1: it began `span` seconds before.
  Record& record(double at, Event event, std::int64_t count = 1, double span = 0) {
    Record record;
    record.seq = ++seq_;
    record.time = after(at);
    record.event = std::move(event);
    record.node = "web-1";
    record.source = "10.0.0.5:41000";
    record.count = count;
    if (count > 1) record.first_time = after(at - span);
    history_.node = "web-1";
    history_.records.push_back(std::move(record));
    return history_.records.back();
  }
  // A line of the agent about what happened at this moment of the ledger's clock.
  void line(double at, const std::string& message) {
    text_ += "time=\"" + after(at - behind_).to_string() + "\" level=info msg=\"" + message + "\"\n";
  }
  AgentMatch matched(const std::vector<Record>& nameless = {}) {
    std::istringstream in(text_);
    log_ = read_agent_log(in);
    return match(log_, history_, nameless);
  }
  // 41 refusals: the first is a record, the others are counted; and the lines about them.
  void storm() {
    record(0, PasswordRejected{.fingerprint = {"77e0"}, .bound = {"a2eb"}, .status = 403});
    record(30, PasswordRejected{.fingerprint = {"77e0"}, .bound = {"a2eb"}, .status = 403}, 6, 25);
    record(200, PasswordRejected{.fingerprint = {"77e0"}, .bound = {"a2eb"}, .status = 403}, 34, 165);
    for (int i = 0; i < 41; ++i) line(5 * i + 0.2, kSentence);
  }
  static Time after(double seconds) { return Time{kStart.micros + static_cast<std::int64_t>(seconds * 1e6)}; }

  History history_;

 private:
  double behind_;
  Seq seq_ = 8990;
  std::string text_;
  AgentLog log_;
};

TEST(AgentMatch, AStormOfLinesIsTheRecordsThatCountedIt) {
  Story story(0);
  story.storm();
  const AgentMatch match = story.matched();
  EXPECT_EQ(match.matched, 41U);
  EXPECT_EQ(match.without_record, 0U);
  ASSERT_EQ(match.runs.size(), 1U);
  EXPECT_EQ(match.runs[0].lines, 41U);
  EXPECT_EQ(match.runs[0].records.size(), 3U);
  EXPECT_EQ(match.runs[0].verdict, "records 8991..8993: password_rejected #77e0 from 10.0.0.5");
  ASSERT_TRUE(match.offset_s);
  EXPECT_NEAR(*match.offset_s, 0, 0.5);
  EXPECT_THAT(to_text(match), HasSubstr("the agent's clock agrees with the ledger's"));
  EXPECT_TRUE(match.unheard.empty());
}

class AgentClock : public testing::TestWithParam<double> {};

// Whatever the agent's clock says: an hour's zone, a dead battery, seconds.
TEST_P(AgentClock, IsFoundOut) {
  Story story(GetParam());
  story.storm();
  const AgentMatch match = story.matched();
  ASSERT_TRUE(match.offset_s);
  EXPECT_NEAR(*match.offset_s, GetParam(), 1.0);
  EXPECT_EQ(match.matched, 41U);
}
INSTANTIATE_TEST_SUITE_P(Offsets, AgentClock, testing::Values(-12.0, 40.0, 3600.0, -7200.0, 1.6e9));

TEST(AgentMatch, ASingleLineIsNoWitnessAgainstAClock) {
  Story story(0);
  story.record(0, PasswordRejected{.fingerprint = {"77e0"}, .bound = {"a2eb"}, .status = 403});
  story.line(86'400, kSentence);
  const AgentMatch match = story.matched();
  EXPECT_EQ(match.matched, 0U);
  EXPECT_EQ(match.without_record, 1U);
  EXPECT_FALSE(match.offset_s);
  EXPECT_THAT(to_text(match), HasSubstr("how far the agent's clock is off cannot be told"));
}

TEST(AgentMatch, AnAnswerWithoutARecordWasAnothersAndSilenceIsNone) {
  Story story(0);
  story.storm();
  story.record(2000, PasswordVerified{{"a2eb"}});
  story.line(1000, "https://127.0.0.1:6444/v1-k3s/serving-kubelet.crt: 503 Service Unavailable");
  story.line(1005, "token CA hash does not match the Cluster CA certificate hash: a != b");
  story.line(1010, "Waiting to retrieve agent configuration; server is not ready: Get \\\"https://127.0.0.1:6444/v1-k3s/"
                   "config\\\": context deadline exceeded");
  story.line(2001, "Waiting to retrieve agent configuration; server is not ready: Get \\\"https://127.0.0.1:6444/v1-k3s/"
                   "serving-kubelet.crt\\\": context deadline exceeded");
  const AgentMatch match = story.matched();
  EXPECT_EQ(match.matched, 41U);
  EXPECT_EQ(match.without_record, 1U);
  ASSERT_EQ(match.runs.size(), 5U);
  EXPECT_THAT(match.runs[1].verdict, HasSubstr("did it reach another server?"));
  EXPECT_THAT(match.runs[2].verdict, HasSubstr("its token is of another cluster"));
  EXPECT_THAT(match.runs[3].verdict, HasSubstr("the reply was lost on its way"));
  EXPECT_THAT(match.runs[4].verdict, HasSubstr("record 8994: password_verified from 10.0.0.5: it was let in, and the "
                                               "reply was lost"));
}

TEST(AgentMatch, WhatIsStillBeingCountedIsNotCalledMissing) {
  Story story(0);
  story.storm();
  story.line(260, kSentence);
  const AgentMatch match = story.matched();
  ASSERT_EQ(match.runs.size(), 2U);
  EXPECT_THAT(match.runs[1].verdict, HasSubstr("counted for up to 2 minutes"));
}

TEST(AgentMatch, RefusalsThatTheLogDoesNotShowAreAnotherMachines) {
  Story story(0);
  story.storm();
  story.record(100, PasswordRejected{.fingerprint = {"d00d"}, .bound = {"a2eb"}, .status = 403}).source = "10.0.0.9:1";
  story.history_.records.back().event = RequestRejected{.status = 400, .reason = "bad_csr"};
  const AgentMatch match = story.matched();
  ASSERT_EQ(match.unheard.size(), 1U);
  EXPECT_THAT(to_text(match), HasSubstr("and came from 10.0.0.9: another"));
}

TEST(AgentMatch, RefusalsWithoutANameAreFoundByTimeAndAddress) {
  Story story(0);
  std::vector<Record> nameless;
  const auto refused = [&](double at, const char* source) {
    Record record;
    record.seq = nameless.size() + 1;
    record.time = Story::after(at);
    record.event = TokenRejected{.status = 401, .reason = "wrong_secret", .token = {}};
    record.source = source;
    nameless.push_back(record);
  };
  for (int i = 0; i < 10; ++i) {
    refused(7 * i, "10.0.0.5:4000");
    if (i % 3 == 0) refused(7 * i + 3.5, "10.0.0.8:4000");
    story.line(7 * i + 0.1, "Waiting to retrieve agent configuration; server is not ready: failed to retrieve "
                            "configuration from server: not authorized");
  }
  story.history_.node = "web-1";
  const AgentMatch match = story.matched(nameless);
  EXPECT_EQ(match.matched, 10U);
  ASSERT_EQ(match.runs.size(), 1U);
  EXPECT_TRUE(match.runs[0].by_time_alone);
  EXPECT_THAT(match.runs[0].verdict, HasSubstr("token_rejected wrong_secret from 10.0.0.5 (names no node"));
}

TEST(AgentMatch, TextFitsItsColumnsAndJsonSaysTheSame) {
  Story story(-30);
  story.storm();
  story.line(1000, std::string("failed to get CA certs: ") + std::string(60, 'x') + " " + std::string(300, 'y'));
  const AgentMatch match = story.matched();
  std::istringstream text(to_text(match));
  for (std::string line; std::getline(text, line);)
    EXPECT_TRUE(line.size() <= 100 || line.find("yyyy") != std::string::npos) << line;
  const boost::json::object json = to_json(match);
  EXPECT_EQ(json.at("matched").as_uint64(), 41U);
  EXPECT_NEAR(json.at("clock_offset_seconds").as_double(), -30, 1);
  EXPECT_EQ(json.at("runs").as_array().size(), 2U);
  EXPECT_EQ(json.at("runs").as_array()[0].as_object().at("records").as_array().size(), 3U);
}

// Whatever there is, a run's records are such that its sentence can come of them, and every line is accounted for.
TEST(AgentMatch, NothingIsInventedAndNothingIsLost) {
  const bool held = rc::check("random histories against random journals", [] {
    History history;
    history.node = "x";
    history.records = *test::related_history();
    std::string text;
    const int lines = *rc::gen::inRange(0, 30);
    for (int i = 0; i < lines; ++i) {
      const Time at{kStart.micros + std::int64_t{*rc::gen::inRange(-100'000, 100'000)} * 1'000'000};
      text += "time=\"" + at.to_string() + "\" msg=\"" +
              *rc::gen::elementOf(std::vector<std::string>{
                  kSentence, "https://127.0.0.1:6444/v1-k3s/config: 401 Unauthorized", "Connected to proxy",
                  "token must not be empty", "Module overlay was already loaded"}) +
              "\"\n";
    }
    std::istringstream in(text);
    const AgentLog log = read_agent_log(in);
    const AgentMatch match = ledger::replay::match(log, history);
    std::size_t told = 0;
    for (const AgentRun& run : match.runs) {
      told += run.lines;
      RC_ASSERT(!run.verdict.empty());
      for (const Record* record : run.records) {
        RC_ASSERT(record >= history.records.data() && record < history.records.data() + history.records.size());
        const Saying saying = run.first->saying;
        RC_ASSERT(saying != Saying::token_unusable);
        RC_ASSERT(saying != Saying::password_rejected || as<PasswordRejected>(*record) != nullptr ||
                  as<RequestRejected>(*record) != nullptr);
        RC_ASSERT(saying != Saying::tunnel_opened || as<TunnelOpened>(*record) != nullptr);
      }
    }
    RC_ASSERT(told == log.lines.size());
    RC_ASSERT(log.lines.size() + log.passed_over == log.read);
    RC_ASSERT(to_text(match).find("agent log") == 0);
  });
  EXPECT_TRUE(held);
}

}  // namespace
}  // namespace ledger::replay
