// Many nodes at once: who is refused, who only looks wrong, and what they have in common.
#include "replay/triage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class TriageTest : public ::testing::Test {
 protected:
  void add(Event event, const std::string& node = "", std::int64_t seconds_later = 60) {
    Record record;
    record.seq = ++seq_;
    now_ = now_.plus_seconds(seconds_later);
    record.time = now_;
    record.event = std::move(event);
    record.node = node;
    record.source = node.empty() ? "" : "10.0.0." + std::to_string(node.size()) + ":1";
    log_.append({record});
  }
  Triage ask(std::optional<Time> since = {}) {
    TriageOptions options;
    options.since = since;
    Result<Triage> found = triage(log_.log(), options);
    if (!found) fatal(found.error().message);
    return std::move(*found);
  }
  static std::vector<std::string> names(const Triage& found) {
    std::vector<std::string> out;
    for (const TriageEntry& entry : found.entries)
      out.push_back(entry.node + " " + std::string(name_of(entry.cause)) + (entry.refused ? "" : "?"));
    return out;
  }
  // Three nodes whose accepted passwords a restored snapshot does not know, and one that was rebuilt.
  void an_incident() {
    for (const char* node : {"a", "bb", "ccc"}) {
      add(PasswordStored{{std::string("old-") + node}}, node);
      add(BindingChanged{.actor = "ops", .by = "operator_accept", .from = {std::string("old-") + node},
                         .to = {std::string("new-") + node}},
          node);
      add(PasswordVerified{{std::string("new-") + node}}, node);
    }
    add(PasswordStored{{"first-dddd"}}, "dddd");
    add(EpochStarted{.cause = "restored", .head_before = 20, .head_after = 12});
    for (const char* node : {"a", "bb", "ccc"}) {
      add(PasswordRejected{.fingerprint = {std::string("new-") + node}, .bound = {std::string("old-") + node},
                           .status = 403},
          node);
    }
    add(PasswordStored{{"first-eeeee"}}, "eeeee");
    add(PasswordRejected{.fingerprint = {"second"}, .bound = {"first-eeeee"}, .status = 403}, "eeeee", 86'400);
  }

  test::MemoryLog log_;
  Seq seq_ = 0;
  Time now_{1'700'000'000'000'000};
};

TEST_F(TriageTest, ManyAtOnceStandFirstWithWhatHappenedToTheServer) {
  an_incident();
  const Triage found = ask();
  EXPECT_THAT(names(found), ElementsAre("a RESTORED", "bb RESTORED", "ccc RESTORED", "eeeee REBUILT"));
  EXPECT_EQ(found.refused, 4U);
  const std::string text = to_text(found);
  EXPECT_THAT(text, StartsWith("4 nodes refused: 3 RESTORED (snapshot went back to seq 12), 1 REBUILT\n"));
  EXPECT_THAT(text, HasSubstr("1x  ledger replay --node ccc\n"));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << line;
  const boost::json::object json = to_json(found);
  const auto& group = json.at("groups").as_array().at(0).as_object();
  EXPECT_EQ(group.at("nodes").as_uint64(), 3U);
  EXPECT_EQ(group.at("event").as_object().at("what").as_string(), "snapshot went back to seq 12");
  EXPECT_TRUE(json.at("groups").as_array().at(1).as_object().at("event").is_null());
  EXPECT_THAT(to_text(found, {}, " --data-dir /x"), HasSubstr("ledger replay --node a --data-dir /x\n"));
}

TEST_F(TriageTest, SinceLeavesOutWhatWasRefusedBefore) {
  an_incident();
  EXPECT_THAT(names(ask(now_.plus_seconds(-3600))), ElementsAre("eeeee REBUILT"));
  EXPECT_TRUE(ask(now_.plus_seconds(1)).entries.empty());
  EXPECT_THAT(to_text(ask(now_.plus_seconds(1))), StartsWith("nothing is refused"));
}

TEST_F(TriageTest, SuspiciousNodesComeAfterTheRefused) {
  add(PasswordStored{{"p1"}}, "old");
  add(PasswordVerified{{"p1"}}, "old");
  add(TunnelOpened{"s"}, "old");
  add(BindingReleased{.actor = "ops", .by = "operator", .fingerprint = {"p1"}}, "old");
  add(PasswordStored{{"p1"}}, "old");  // the machine that was to go is still there
  add(PasswordStored{{"p2"}}, "fine");
  add(BindingReleased{.actor = "ops", .by = "operator", .fingerprint = {"p2"}}, "fine");
  add(PasswordStored{{"p3"}}, "fine");
  add(PasswordStored{{"p4"}}, "refused");
  add(PasswordRejected{.fingerprint = {"p5"}, .bound = {"p4"}, .status = 403}, "refused");
  const Triage found = ask();
  EXPECT_THAT(names(found), ElementsAre("refused REBUILT", "old ZOMBIE?"));
  const std::string text = to_text(found);
  EXPECT_THAT(text, HasSubstr("1 node refused: 1 REBUILT\n"));
  EXPECT_THAT(text, HasSubstr("1 node suspicious: 1 ZOMBIE\n"));
}

TEST(TriageSince, IsASpanATimeOrEver) {
  const Time now = *Time::parse("2024-06-11T07:00:00Z");
  EXPECT_EQ((*parse_since("24h", now))->to_string(), "2024-06-10T07:00:00Z");
  EXPECT_EQ((*parse_since("30m", now))->to_string(), "2024-06-11T06:30:00Z");
  EXPECT_EQ((*parse_since("2024-01-01T00:00:00Z", now))->to_string(), "2024-01-01T00:00:00Z");
  EXPECT_FALSE(*parse_since("ever", now));
  for (const char* wrong : {"", "24", "h", "-1h", "0m", "99999d", "24h ", "yesterday"}) EXPECT_FALSE(parse_since(wrong, now)) << wrong;
}

}  // namespace
}  // namespace ledger::replay
