#include "api/mode.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace ledger::api {
namespace {

using std::chrono::milliseconds;

Result<void> recorded() { return {}; }

TEST(Mode, NamesAreThoseOfTheCommandLine) {
  for (const Mode mode : {Mode::alone, Mode::observe, Mode::enforce}) EXPECT_EQ(mode_named(name_of(mode)), mode);
  EXPECT_EQ(mode_named("Observe"), std::nullopt);
  EXPECT_EQ(mode_named(""), std::nullopt);
}

TEST(ModeSwitch, ChangesAtOnceWhenNothingIsUnderWay) {
  ModeSwitch modes(Mode::observe);
  ASSERT_TRUE(modes.change(Mode::enforce, recorded, milliseconds(0)));
  EXPECT_EQ(modes.mode(), Mode::enforce);
}

TEST(ModeSwitch, WhatIsUnderWayEndsInItsModeAndWhatComesMeanwhileWaits) {
  ModeSwitch modes(Mode::observe);
  ModeSwitch::Ticket held;
  ASSERT_TRUE(modes.enter([&](Mode mode, ModeSwitch::Ticket ticket) {
    EXPECT_EQ(mode, Mode::observe);
    held = std::move(ticket);
  }));
  std::atomic<bool> was_recorded{false};
  std::thread operator_thread([&] {
    const auto changed = modes.change(
        Mode::enforce,
        [&]() -> Result<void> {
          was_recorded = true;
          return {};
        },
        milliseconds(60'000));
    EXPECT_TRUE(changed);
  });
  // Until one has to wait the change has not begun.
  std::atomic<int> old_mode{0}, new_mode{0};
  while (true) {
    const int before = old_mode + new_mode;
    ASSERT_TRUE(modes.enter([&](Mode mode, const ModeSwitch::Ticket&) { ++(mode == Mode::observe ? old_mode : new_mode); }));
    if (old_mode + new_mode == before) break;
  }
  EXPECT_FALSE(was_recorded);
  EXPECT_EQ(new_mode, 0);
  held.reset();
  operator_thread.join();
  EXPECT_TRUE(was_recorded);
  EXPECT_EQ(new_mode, 1);
  EXPECT_EQ(modes.mode(), Mode::enforce);
}

TEST(ModeSwitch, GivesUpWhenWhatIsUnderWayDoesNotEnd) {
  ModeSwitch modes(Mode::observe);
  ModeSwitch::Ticket held;
  ASSERT_TRUE(modes.enter([&](Mode, ModeSwitch::Ticket ticket) { held = std::move(ticket); }));
  const auto refused = modes.change(Mode::enforce, recorded, milliseconds(1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::overloaded);
  EXPECT_EQ(modes.mode(), Mode::observe);
  held.reset();
  EXPECT_TRUE(modes.change(Mode::enforce, recorded, milliseconds(1)));
}

TEST(ModeSwitch, WhatCannotBeRecordedChangesNothing) {
  ModeSwitch modes(Mode::observe);
  const auto failed = modes.change(
      Mode::enforce, []() -> Result<void> { return Error{Errc::unavailable, "the disk is full"}; }, milliseconds(0));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::unavailable);
  EXPECT_EQ(modes.mode(), Mode::observe);
  Mode seen = Mode::alone;
  ASSERT_TRUE(modes.enter([&](Mode mode, const ModeSwitch::Ticket&) { seen = mode; }));
  EXPECT_EQ(seen, Mode::observe);
}

// Whoever registers writes down in which mode; no two of different modes overlap.
TEST(ModeSwitch, ModesNeverOverlap) {
  ModeSwitch modes(Mode::observe);
  std::atomic<bool> over{false};
  std::atomic<int> observing{0}, enforcing{0}, overlaps{0};
  std::atomic<std::uint64_t> entered{0};
  std::vector<std::thread> agents;
  for (int i = 0; i < 4; ++i)
    agents.emplace_back([&] {
      while (!over)
        modes.enter([&](Mode mode, ModeSwitch::Ticket ticket) {
          auto& mine = mode == Mode::observe ? observing : enforcing;
          auto& other = mode == Mode::observe ? enforcing : observing;
          ++mine;
          if (other > 0) ++overlaps;
          ++entered;
          --mine;
          ticket.reset();
        });
    });
  for (int i = 0; i < 200 || entered < 10'000; ++i)
    ASSERT_TRUE(modes.change(i % 2 == 0 ? Mode::enforce : Mode::observe, recorded, milliseconds(60'000)));
  over = true;
  for (std::thread& agent : agents) agent.join();
  EXPECT_EQ(overlaps, 0);
}

}  // namespace
}  // namespace ledger::api
