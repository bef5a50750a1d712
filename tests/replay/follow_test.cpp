// What is told of a log that grows.
#include "replay/follow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class FollowTest : public ::testing::Test {
 protected:
  void add(Event event, const std::string& node, std::int64_t count = 1, const std::string& source = "10.0.0.5:1") {
    Record record;
    record.seq = ++seq_;
    record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(10 * seq_));
    record.event = std::move(event);
    record.node = node;
    record.source = source;
    record.count = count;
    log_.append({record});
  }
  // Each name has an address of its own: a shared one would identify nobody.
  static std::string home_of(const std::string& node) { return node == "web-2" ? "10.0.0.6:1" : "10.0.0.5:1"; }
  void stored(const std::string& node, const char* password) { add(PasswordStored{{password}}, node, 1, home_of(node)); }
  void refused(const std::string& node, const char* password, std::int64_t count = 1) {
    add(PasswordRejected{.fingerprint = {password}, .bound = {"a41c"}, .status = 403}, node, count,
        home_of(node));
  }
  // One step, as "node CAUSE" ("again" where it repeats) or "record N" of what names no node.
  std::vector<std::string> step(Follower& follower) {
    std::vector<std::string> out;
    const Result<void> done = follower.step(log_.log(), [&](Told told) {
      last_json_ = boost::json::serialize(to_json(told));
      last_text_ = to_text(told);
      out.push_back(told.history == nullptr
                        ? "record " + std::to_string(told.first)
                        : told.explanation.node + " " + std::string(name_of(told.explanation.cause)) +
                              (told.repeated ? " again" : ""));
      return true;
    });
    EXPECT_TRUE(done);
    return out;
  }

  test::MemoryLog log_;
  Seq seq_ = 0;
  std::string last_json_, last_text_;
};

TEST_F(FollowTest, ARefusalIsToldOnceThenAsARepetitionThenWhenItIsOver) {
  Follower follower({.node = {}, .from = 1});
  stored("web-1", "a41c");
  stored("web-2", "b0b0");
  EXPECT_THAT(step(follower), IsEmpty()) << "nothing is refused";
  EXPECT_THAT(step(follower), IsEmpty()) << "nothing is new";
  refused("web-1", "77e0");
  EXPECT_THAT(step(follower), ElementsAre("web-1 REBUILT"));
  EXPECT_THAT(last_text_, StartsWith("node web-1 "));
  EXPECT_THAT(last_json_, HasSubstr(R"("repeated":false)"));
  EXPECT_THAT(last_json_, HasSubstr(R"("kind":"password_stored")")) << "the first time all of the timeline";
  refused("web-1", "77e0", 6);
  EXPECT_THAT(step(follower), ElementsAre("web-1 REBUILT again"));
  EXPECT_THAT(last_text_, HasSubstr("node web-1 is still refused: REBUILT (low), 6 more, record 4\n"));
  EXPECT_THAT(last_json_, HasSubstr(R"("told_from":4)"));
  add(PasswordVerified{{"b0b0"}}, "web-2", 1, home_of("web-2"));
  EXPECT_THAT(step(follower), IsEmpty());
  add(BindingChanged{.actor = "ops", .by = "operator_accept", .from = {"a41c"}, .to = {"77e0"}}, "web-1");
  add(PasswordVerified{{"77e0"}}, "web-1");
  EXPECT_THAT(step(follower), ElementsAre("web-1 NONE"));
  add(PasswordVerified{{"77e0"}}, "web-1");
  EXPECT_THAT(step(follower), IsEmpty()) << "it is over and was told";
}

TEST_F(FollowTest, AnotherPasswordIsAnotherStory) {
  Follower follower({.node = {}, .from = 1});
  stored("web-1", "a41c");
  refused("web-1", "77e0");
  EXPECT_EQ(step(follower).size(), 1U);
  refused("web-1", "d00d");
  const std::vector<std::string> told = step(follower);
  ASSERT_EQ(told.size(), 1U);
  EXPECT_THAT(told[0], Not(HasSubstr("again")));
}

TEST_F(FollowTest, OneNodeOnlyAndFromWhereItIsAsked) {
  stored("web-1", "a41c");
  refused("web-1", "77e0");
  refused("web-2", "77e0");
  Follower late({.node = {}, .from = 4});
  EXPECT_THAT(step(late), IsEmpty());
  Follower one({.node = "WEB-1", .from = 1});
  EXPECT_THAT(step(one), ElementsAre("web-1 REBUILT"));
  Follower all({.node = {}, .from = 1});
  EXPECT_EQ(step(all).size(), 2U);
}

TEST_F(FollowTest, ARefusalWithoutANameIsARecordAndEqualOnesAreOne) {
  Follower follower({.node = {}, .from = 1});
  stored("web-1", "a41c");
  add(TlsFailed{.alert = "unknown_ca", .trust_probe = true}, "");
  EXPECT_THAT(step(follower), IsEmpty()) << "the expected first step of every agent";
  for (int i = 0; i < 3; ++i) add(TokenRejected{.status = 401, .reason = "wrong_secret", .token = {}}, "");
  add(TokenRejected{.status = 401, .reason = "missing", .token = {}}, "", 1, "10.9.9.9:1");
  EXPECT_THAT(step(follower), ElementsAre("record 3", "record 6"));
  Follower one({.node = "web-1", .from = 1});
  EXPECT_THAT(step(one), ElementsAre("web-1 TOKEN")) << "it came from the node's address";
}

TEST_F(FollowTest, WhoeverListensMayStopIt) {
  for (const char* node : {"a", "b", "c"}) refused(node, "77e0");
  Follower follower({.node = {}, .from = 1});
  int told = 0;
  ASSERT_TRUE(follower.step(log_.log(), [&](const Told&) { return ++told < 2; }));
  EXPECT_EQ(told, 2);
}

}  // namespace
}  // namespace ledger::replay
