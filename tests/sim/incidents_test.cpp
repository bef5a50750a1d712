#include "tools/sim/incidents.h"

#include <gtest/gtest.h>

#include <map>

#include "ledger/node_table.h"

namespace ledger::sim {
namespace {

using replay::Cause;

TEST(Incidents, EqualSeedsGiveEqualBytes) {
  for (const Cause cause : played_causes()) {
    for (const std::uint64_t seed : {3u, 4u, 5u}) {
      SCOPED_TRACE(std::string(replay::name_of(cause)) + " " + std::to_string(seed));
      const Incident one = play(cause, seed), again = play(cause, seed);
      EXPECT_EQ(one.lines(), again.lines());
      EXPECT_EQ(one.node, again.node);
      EXPECT_NE(one.lines(), play(cause, seed + 1000).lines());
    }
  }
}

TEST(Incidents, LossesAreReproducibleToo) {
  for (const Loss loss : {Loss::most_fields, Loss::tunnels, Loss::addresses, Loss::beginning, Loss::records}) {
    Incident one = play(Cause::kZombie, 11), again = play(Cause::kZombie, 11);
    lose(one, loss, 5), lose(again, loss, 5);
    EXPECT_EQ(one.lines(), again.lines()) << name_of(loss);
    EXPECT_NE(one.lines(), play(Cause::kZombie, 11).lines()) << name_of(loss) << " loses something";
  }
}

// A log as a server writes it: gapless, its times never go back, and no password is accepted that is not bound.
TEST(Incidents, AreLogsThatAServerCouldHaveWritten) {
  for (const Cause cause : played_causes()) {
    for (std::uint64_t seed = 20; seed < 24; ++seed) {
      SCOPED_TRACE(std::string(replay::name_of(cause)) + " " + std::to_string(seed));
      const Incident incident = play(cause, seed);
      Time last;
      Seq seq = 0;
      for (const Record& record : incident.log) {
        EXPECT_EQ(record.seq, ++seq);
        EXPECT_LE(last, record.time);
        last = record.time;
      }
      EXPECT_GT(seq, 0u);
      EXPECT_FALSE(incident.node.empty());
    }
  }
}

// What a refused agent does: it comes back every 5 s, or every 5 to 10 s since v1.28.5; counts add up to that.
TEST(Incidents, RefusedAgentsKeepTheirCadence) {
  for (std::uint64_t seed = 40; seed < 60; ++seed) {
    const Incident incident = play(Cause::kRebuilt, seed);
    std::int64_t refusals = 0;
    Time first, last;
    for (const Record& record : incident.log) {
      if (record.node != incident.node || as<PasswordRejected>(record) == nullptr) continue;
      if (refusals == 0) first = record.first_time.value_or(record.time);
      refusals += record.count;
      last = record.time;
    }
    ASSERT_GT(refusals, 1) << seed;
    const double pace = seconds_between(first, last) / static_cast<double>(refusals - 1);
    EXPECT_GE(pace, 4.9) << seed;
    EXPECT_LE(pace, 40) << seed;  // a count may be written up to an interval after the last of its outcomes
  }
}

TEST(Incidents, SeedsForJudgingAreNotThoseForTuning) {
  EXPECT_EQ(kFirstJudgingSeed, 1'000'000u);
  EXPECT_NE(play(Cause::kDupName, kFirstJudgingSeed - 1).lines(), play(Cause::kDupName, kFirstJudgingSeed).lines());
}

}  // namespace
}  // namespace ledger::sim
