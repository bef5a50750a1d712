#include "replay/timeline.h"

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using ::testing::ElementsAre;

// One record each, all of node x.
History history_with(std::vector<Event> events) {
  History history;
  history.node = "x";
  for (Event& event : events) {
    Record record;
    record.seq = history.records.size() + 1;
    record.node = "x";
    record.event = std::move(event);
    history.records.push_back(std::move(record));
  }
  return history;
}

std::vector<std::uint32_t> lives_of(const History& history) {
  std::vector<std::uint32_t> lives;
  for (const Step& step : fold(history).steps) lives.push_back(step.life);
  return lives;
}

TEST(Timeline, ShowsWhatEachRecordMadeOfTheNode) {
  const History history =
      history_with({PasswordStored{{"aa"}}, PasswordRejected{.fingerprint = {"bb"}, .bound = {"aa"}},
                    BindingReleased{}, BindingHeld{}});
  std::vector<std::string> states;
  const Timeline timeline = fold(history);
  for (const Step& step : timeline.steps)
    states.push_back(std::string(step.before) + ">" + std::string(step.after));
  EXPECT_THAT(states, ElementsAre("unknown>registered", "registered>refused", "refused>released", "released>held"));
  EXPECT_EQ(timeline.steps[1].bound_before.text, "aa");
  EXPECT_FALSE(timeline.steps[3].held_before);
}

TEST(Timeline, OtherNamesLeaveTheStateAlone) {
  History history = history_with({PasswordStored{{"aa"}}, PasswordStored{{"bb"}}});
  history.records[1].node = "y";
  const Timeline timeline = fold(history);
  EXPECT_FALSE(timeline.steps[1].own);
  EXPECT_EQ(timeline.state.bound.text, "aa");
  EXPECT_EQ(timeline.lives, 1u);
}

TEST(Timeline, ALifeIsTheTimeUnderOneBinding) {
  EXPECT_THAT(lives_of(history_with({PasswordStored{{"aa"}}, PasswordVerified{{"aa"}}})), ElementsAre(1, 1));
  EXPECT_THAT(lives_of(history_with({PasswordStored{{"aa"}},
                                     BindingChanged{.actor = {}, .by = {}, .from = {"aa"}, .to = {"bb"}},
                                     PasswordVerified{{"bb"}}})),
              ElementsAre(1, 2, 2));
  // The same password after a release is a new life: somebody came back.
  EXPECT_THAT(lives_of(history_with({PasswordStored{{"aa"}}, BindingReleased{}, PasswordStored{{"aa"}}})),
              ElementsAre(1, 1, 2));
  // An imported hash is the same binding once its fingerprint is known.
  EXPECT_THAT(lives_of(history_with({BindingImported{}, PasswordVerified{{"aa"}}, PasswordVerified{{"aa"}}})),
              ElementsAre(1, 1, 1));
  // An extract that lacks the change still shows it.
  EXPECT_THAT(lives_of(history_with({PasswordStored{{"aa"}}, PasswordVerified{{"bb"}}})), ElementsAre(1, 2));
}

// The fold is the server's own: the end is what its projection says.
RC_GTEST_PROP(TimelineProperty, EndsWhereTheProjectionDoes, ()) {
  const auto records = *test::related_history();
  NodeTable table;
  for (const Record& record : records) table.apply(record);
  const Timeline timeline = fold(test::history_of(test::lines_of(records), "x"));
  const NodeState* state = table.find("x");
  RC_ASSERT(timeline.state == (state != nullptr ? *state : NodeState{}));
  for (std::size_t i = 1; i < timeline.steps.size(); ++i) {
    RC_ASSERT(timeline.steps[i].before == timeline.steps[i - 1].after);
    RC_ASSERT(timeline.steps[i].life >= timeline.steps[i - 1].life);
  }
}

}  // namespace
}  // namespace ledger::replay
