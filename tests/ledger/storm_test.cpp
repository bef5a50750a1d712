// The rule of ledger/storm.h, on clocks of the test's own: nothing here waits.
#include "ledger/storm.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

#include "ledger/event_codec.h"
#include "tests/support/generators.h"

namespace ledger {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

const Time kStart = *Time::parse("2024-06-11T07:00:00Z");

Instant at(double since_start_s) {
  return {Time{kStart.micros + static_cast<std::int64_t>(since_start_s * 1e6)},
          steady_clock::time_point{} + milliseconds(static_cast<std::int64_t>(since_start_s * 1000))};
}

Record rejected_password(const std::string& node = "web-1", const std::string& fingerprint = "bb") {
  Record record;
  record.event = PasswordRejected{.fingerprint = {fingerprint}, .bound = {"aa"}, .status = 403};
  record.node = node;
  record.source = "10.0.0.5:41000";
  record.request_id = "r1";
  record.auth = {"basic", "node", "t1", ""};
  return record;
}

Record rejected_token(int stranger) {
  Record record;
  record.event = TokenRejected{.status = 401, .reason = "wrong_secret", .token = ""};
  record.source = "203.0.113." + std::to_string(stranger) + ":1000";
  record.auth.method = "basic";
  return record;
}

// A writer as small as can be: numbers what is to be written and remembers it.
class Storm {
 public:
  explicit Storm(StormCounter::Limits limits = {}) : counter(limits) {}

  // Returns the seq that stands for the outcome.
  Seq offer(Record record, Instant now) {
    ++offered;
    if (const Seq counted = counter.offer(record, now); counted != 0) return counted;
    write(counter.refusals_so_far(record));
    record.time = now.stamp;
    record.seq = ++head;
    counter.written(head);
    written.push_back(std::move(record));
    return head;
  }
  // Writes counts; returns how many records they were.
  std::size_t write(std::vector<Record> counts) {
    for (Record& count : counts) {
      count.seq = ++head;
      written.push_back(std::move(count));
    }
    return counts.size();
  }
  std::size_t due(double now_s) { return write(counter.due(at(now_s))); }
  std::int64_t outcomes_written() const {
    std::int64_t sum = 0;
    for (const Record& record : written) sum += record.count;
    return sum;
  }

  StormCounter counter;
  Seq head = 0;
  std::int64_t offered = 0;
  std::vector<Record> written;
};

double next_due_s(const StormCounter& counter) {
  const auto due = counter.next_due();
  return due ? std::chrono::duration<double>(*due - steady_clock::time_point{}).count() : -1;
}

// ---- what is counted -------------------------------------------------------------------------------------

TEST(Storm, OnlyRepeatableOutcomesAreCounted) {
  const std::set<Kind> countable = {Kind::token_accepted, Kind::token_rejected, Kind::password_rejected,
                                    Kind::request_rejected, Kind::tls_failed};
  for (const Kind kind : test::all_kinds())
    EXPECT_EQ(StormCounter::countable(kind), countable.contains(kind)) << name_of(kind);
}

TEST(Storm, TheFirstIsWrittenTheRestAreCounted) {
  Storm storm;
  EXPECT_EQ(storm.offer(rejected_password(), at(0)), 1U);
  for (int i = 1; i <= 39; ++i) EXPECT_EQ(storm.offer(rejected_password(), at(i * 0.5)), 1U);
  EXPECT_EQ(storm.written.size(), 1U);
  EXPECT_EQ(storm.due(29.9), 0U);
  ASSERT_EQ(storm.due(30), 1U);
  const Record& count = storm.written.back();
  EXPECT_EQ(count.count, 39);
  EXPECT_EQ(count.first_time, at(0.5).stamp);
  EXPECT_EQ(count.time, at(19.5).stamp);
  EXPECT_EQ(count.kind(), Kind::password_rejected);
  EXPECT_EQ(count.node, "web-1");
  EXPECT_EQ(count.source, "10.0.0.5") << "the port is not part of what repeats";
  EXPECT_EQ(count.request_id, "");
  EXPECT_EQ(as<PasswordRejected>(count)->bound.text, "aa");
}

TEST(Storm, PortRequestAndTimeDoNotTellOutcomesApart) {
  Storm storm;
  Record other = rejected_password();
  other.source = "10.0.0.5:59999";
  other.request_id = "r2";
  storm.offer(rejected_password(), at(0));
  EXPECT_EQ(storm.offer(other, at(1)), 1U);
}

TEST(Storm, WhatAnUpstreamTookDoesNotTellOutcomesApart) {
  Storm storm;
  Record refused = rejected_password();
  refused.authority = kUpstreamAuthority, refused.upstream = "10.0.0.1:6443", refused.answered = 403;
  refused.would_have = "refuse_mismatch", refused.took_ms = 3;
  storm.offer(refused, at(0));
  refused.took_ms = 250;
  EXPECT_EQ(storm.offer(refused, at(1)), 1U);
  ASSERT_EQ(storm.due(30), 1U);
  EXPECT_EQ(storm.written[0].took_ms, 3) << "the first is its own record";
  EXPECT_FALSE(storm.written[1].took_ms.has_value()) << "several have no one time";
  EXPECT_EQ(storm.written[1].would_have, "refuse_mismatch");
  EXPECT_EQ(storm.written[1].answered, 403);
}

TEST(Storm, EverythingElseTellsThemApart) {
  Storm storm;
  storm.offer(rejected_password(), at(0));
  std::vector<Record> others(12, rejected_password());
  others[0].node = "web-2";
  others[1].source = "10.0.0.6:41000";
  others[2].endpoint = "/v1-k3s/client-kubelet.crt";
  others[3].auth.token = "t2";
  others[4].claimed = {"10.0.0.5"};
  others[5].generation = "G2";
  others[6] = rejected_password("web-1", "cc");
  others[7].event = TokenAccepted{};
  others[8].authority = kUpstreamAuthority;
  others[9].upstream = "10.0.0.1:6443";
  others[10].answered = 403;
  others[11].would_have = "admit_known";
  for (std::size_t i = 0; i < others.size(); ++i)
    EXPECT_EQ(storm.offer(others[i], at(1)), i + 2) << "outcome " << i << " was taken for another";
}

// ---- intervals -------------------------------------------------------------------------------------------

TEST(Storm, IntervalsGrowTo120SecondsWhileItLasts) {
  Storm storm;
  EXPECT_EQ(next_due_s(storm.counter), -1);
  std::vector<double> written_at;
  for (int s = 0; s <= 700; ++s) {
    if (storm.due(s) > 0) written_at.push_back(s);
    storm.offer(rejected_password(), at(s));
  }
  EXPECT_EQ(written_at, (std::vector<double>{30, 90, 210, 330, 450, 570, 690}));
}

TEST(Storm, NextDueIsWhenThereIsSomethingToDo) {
  Storm storm;
  storm.offer(rejected_password("a"), at(0));
  storm.offer(rejected_password("b"), at(10));
  EXPECT_EQ(next_due_s(storm.counter), 30);
  storm.offer(rejected_password("a"), at(20));
  EXPECT_EQ(storm.due(30), 1U);
  EXPECT_EQ(next_due_s(storm.counter), 40);
  EXPECT_EQ(storm.due(40), 0U);  // "b" was idle: closed
  EXPECT_EQ(next_due_s(storm.counter), 90);
}

TEST(Storm, AnIdleIntervalClosesTheWindow) {
  Storm storm;
  storm.offer(rejected_password(), at(0));
  EXPECT_EQ(storm.due(30), 0U);
  EXPECT_EQ(next_due_s(storm.counter), -1);
  EXPECT_EQ(storm.offer(rejected_password(), at(31)), 2U) << "a new window begins with a record";
  EXPECT_EQ(next_due_s(storm.counter), 61) << "and with the first interval";
}

TEST(Storm, TheIntervalIsMeasuredOnTheSteadyClock) {
  Storm storm;
  storm.offer(rejected_password(), at(0));
  Instant later = at(10);
  later.stamp = at(86400).stamp;  // somebody set the wall clock
  storm.offer(rejected_password(), later);
  later = at(29);
  later.stamp = at(86401).stamp;
  EXPECT_TRUE(storm.counter.due(later).empty());
  EXPECT_EQ(storm.due(30), 1U);
}

// ---- settling --------------------------------------------------------------------------------------------

// A machine that came back with another password does not go on using the old one: its count must stand before.
TEST(Storm, ANewRefusalIsWrittenAfterWhatWasCountedBefore) {
  Storm storm;
  for (int i = 0; i < 10; ++i) storm.offer(rejected_password("web-1", "bb"), at(5 * i));
  storm.offer(rejected_password("web-2", "bb"), at(50));
  storm.offer(rejected_password("web-2", "bb"), at(51));
  storm.offer(rejected_password("web-1", "cc"), at(60));
  ASSERT_EQ(storm.written.size(), 4U);
  EXPECT_EQ(storm.written[2].count, 9);
  EXPECT_EQ(as<PasswordRejected>(storm.written[2])->fingerprint.text, "bb");
  EXPECT_EQ(storm.written[2].time, at(45).stamp);
  EXPECT_EQ(as<PasswordRejected>(storm.written[3])->fingerprint.text, "cc");
  EXPECT_EQ(storm.offer(rejected_password("web-1", "bb"), at(61)), 1U) << "the window of the old one is still open";
  Record accepted = rejected_password("web-1");
  accepted.event = TokenAccepted{};
  EXPECT_EQ(storm.write(storm.counter.refusals_so_far(accepted)), 0U) << "only a refusal ends them";
  EXPECT_EQ(storm.write(storm.counter.refusals_so_far(rejected_password("web-1"))), 1U);
  EXPECT_EQ(storm.write(storm.counter.refusals_so_far(rejected_password("web-1"))), 0U);
  EXPECT_EQ(storm.write(storm.counter.settle_all()), 1U) << "the one of web-2";
  EXPECT_EQ(storm.outcomes_written(), storm.offered);
}

TEST(Storm, SettlingANodeWritesItsCountsAndNoOthers) {
  Storm storm;
  for (int i = 0; i < 5; ++i) {
    storm.offer(rejected_password("a", "bb"), at(i));
    storm.offer(rejected_password("a", "cc"), at(i));
    storm.offer(rejected_password("b"), at(i));
  }
  EXPECT_EQ(storm.write(storm.counter.settle("a")), 2U);
  EXPECT_EQ(storm.outcomes_written(), 3 + 4 + 4);
  EXPECT_EQ(storm.write(storm.counter.settle("a")), 0U) << "its windows are closed";
  EXPECT_EQ(storm.offer(rejected_password("a", "bb"), at(6)), storm.head) << "and begin anew";
  EXPECT_EQ(storm.write(storm.counter.settle("nobody")), 0U);
  EXPECT_EQ(storm.write(storm.counter.settle("")), 0U);
  EXPECT_EQ(storm.write(storm.counter.settle_all()), 1U);
  EXPECT_EQ(storm.outcomes_written(), storm.offered);
}

// Which records end which windows, over the whole vocabulary.
TEST(Storm, ARecordEndsTheWindowsThatMustStandBeforeIt) {
  const std::set<Kind> of_all = {Kind::server_stopped, Kind::epoch_started, Kind::token_rotated,
                                 Kind::token_revoked, Kind::token_expired};
  const std::set<Kind> of_node = {Kind::password_stored, Kind::password_verified, Kind::binding_released,
                                  Kind::binding_changed, Kind::binding_held,      Kind::binding_imported};
  for (const Kind kind : test::all_kinds()) {
    Storm storm;
    for (int i = 0; i < 3; ++i) {
      storm.offer(rejected_password("a"), at(i));
      storm.offer(rejected_password("b"), at(i));
    }
    Record record;
    record.event = *make_event(static_cast<std::uint16_t>(kind));
    record.node = "a";
    const std::size_t ended = of_all.contains(kind) ? 2 : of_node.contains(kind) ? 1 : 0;
    EXPECT_EQ(storm.write(storm.counter.ended_by(record)), ended) << name_of(kind);
    EXPECT_EQ(storm.write(storm.counter.settle_all()), 2 - ended) << name_of(kind);
  }
}

TEST(Storm, SettlingAllLeavesNothing) {
  Storm storm;
  for (int i = 0; i < 10; ++i) storm.offer(rejected_token(i % 3), at(i));
  EXPECT_EQ(storm.write(storm.counter.settle_all()), 3U);
  EXPECT_EQ(storm.outcomes_written(), 10);
  EXPECT_EQ(next_due_s(storm.counter), -1);
  EXPECT_EQ(storm.write(storm.counter.settle_all()), 0U);
  EXPECT_EQ(storm.offer(rejected_token(1), at(20)), storm.head) << "everything begins anew";
}

// ---- limits ----------------------------------------------------------------------------------------------

TEST(Storm, StrangersShareABudget) {
  Storm storm({.burst = 5, .per_second = 2, .max_windows = 100});
  for (int stranger = 0; stranger < 200; ++stranger) storm.offer(rejected_token(stranger), at(0));
  ASSERT_EQ(storm.written.size(), 6U) << "five of them by name, then one for all";
  const Record& anonymous = storm.written.back();
  EXPECT_EQ(anonymous.source, "");
  EXPECT_NE(anonymous.note, "");
  EXPECT_EQ(as<TokenRejected>(anonymous)->reason, "wrong_secret");
  // Two more names a second; those who are known already cost nothing.
  for (int stranger = 0; stranger < 200; ++stranger) storm.offer(rejected_token(stranger), at(3));
  EXPECT_EQ(storm.written.size(), 6U + 5U);
  EXPECT_EQ(storm.write(storm.counter.settle_all()), 1U + 5U) << "one count for all, one for each of the first five";
  EXPECT_EQ(storm.outcomes_written(), 400);
}

// Refusals that were counted before they came here are no fewer here.
TEST(Storm, CountsManyAtOnce) {
  Storm storm;
  Record many = rejected_token(1);
  many.count = 40;
  many.first_time = kStart.plus_seconds(-10);
  EXPECT_EQ(storm.offer(many, at(0)), 1U);
  EXPECT_EQ(storm.written.front().count, 40) << "the first is written as it is";
  many.count = 7;
  many.first_time = kStart.plus_seconds(1);
  EXPECT_EQ(storm.offer(many, at(2)), 1U);
  EXPECT_EQ(storm.offer(rejected_token(1), at(3)), 1U) << "one alone is the same outcome";
  ASSERT_EQ(storm.due(31), 1U);
  EXPECT_EQ(storm.written.back().count, 8);
  EXPECT_EQ(storm.written.back().first_time, kStart.plus_seconds(1));
  EXPECT_EQ(storm.outcomes_written(), 48);
}

// Whatever an unauthenticated flood varies, past the budget it is one outcome.
TEST(Storm, AFloodCannotVaryItsWayPastTheBudget) {
  Storm storm({.burst = 5, .per_second = 2, .max_windows = 100});
  for (int i = 0; i < 1000; ++i) {
    const std::string text = std::to_string(i);
    Record record = rejected_token(i);
    record.endpoint = "/" + text;
    record.node = "n" + text;
    record.claimed = {text};
    record.generation = "G" + text;
    record.auth = {"basic", "p" + text, "t" + text, "s" + text};
    record.event = TokenRejected{.status = 401, .reason = "wrong_secret", .token = "old" + text};
    record.request_id = "r" + text;
    record.note = "note" + text;
    storm.offer(record, at(0));
  }
  EXPECT_EQ(storm.written.size(), 6U);
  storm.write(storm.counter.settle_all());
  EXPECT_EQ(storm.written.size(), 7U);
  EXPECT_EQ(storm.outcomes_written(), 1000);
}

TEST(Storm, FailedHandshakesAndBadRequestsAreStrangersToo) {
  Storm storm({.burst = 1, .per_second = 0, .max_windows = 100});
  for (int i = 0; i < 50; ++i) {
    Record tls;
    tls.event = TlsFailed{"unknown_ca", {}};
    tls.source = "203.0.113." + std::to_string(i);
    storm.offer(tls, at(0));
    tls.event = RequestRejected{.status = 400, .reason = "bad_request"};
    storm.offer(tls, at(0));
  }
  EXPECT_EQ(storm.written.size(), 1U + 2U);
}

TEST(Storm, ProvenCallersHaveNoBudget) {
  Storm storm({.burst = 0, .per_second = 0, .max_windows = 100});
  for (int i = 0; i < 20; ++i) storm.offer(rejected_password("n" + std::to_string(i)), at(0));
  EXPECT_EQ(storm.written.size(), 20U);
  Record request = rejected_password();
  request.event = RequestRejected{.status = 400, .reason = "node_name_invalid"};  // with a valid token
  storm.offer(request, at(0));
  EXPECT_EQ(storm.written.back().source, request.source);
}

TEST(Storm, TheBudgetFillsUpToTheBurstAndNoFurther) {
  Storm storm({.burst = 3, .per_second = 2, .max_windows = 100});
  for (int i = 0; i < 10; ++i) storm.offer(rejected_token(i), at(0));
  for (int i = 100; i < 110; ++i) storm.offer(rejected_token(i), at(20));
  std::size_t named = 0;
  for (const Record& record : storm.written) named += record.source.empty() ? 0 : 1;
  EXPECT_EQ(named, 6U);
}

TEST(Storm, PastTheWindowLimitEverythingIsWritten) {
  Storm storm({.burst = 10, .per_second = 2, .max_windows = 4});
  for (int round = 0; round < 3; ++round)
    for (int i = 0; i < 8; ++i) storm.offer(rejected_password("n" + std::to_string(i)), at(round));
  EXPECT_EQ(storm.written.size(), 4U + 3 * 4U) << "four have windows, four are written each time";
  storm.write(storm.counter.settle_all());
  EXPECT_EQ(storm.outcomes_written(), storm.offered);
}

// A fleet that fills the windows must not open the door to a flood.
TEST(Storm, AFloodIsCountedEvenWhenTheWindowsAreFull) {
  Storm storm({.burst = 0, .per_second = 0, .max_windows = 4});
  for (int i = 0; i < 4; ++i) storm.offer(rejected_password("n" + std::to_string(i)), at(0));
  for (int i = 0; i < 500; ++i) storm.offer(rejected_token(i), at(0));
  EXPECT_EQ(storm.written.size(), 4U + 1U);
}

// ---- nothing is lost, nothing is made up -----------------------------------------------------------------

// What identity two records share once time, request and port are gone (and source, when they went over a limit).
std::string identity(Record record) {
  record.seq = 0, record.time = {}, record.request_id.clear(), record.count = 1, record.first_time.reset();
  record.source = host_of(record.source);
  return encode(record);
}

RC_GTEST_PROP(Storm, CountsAreExact, ()) {
  const auto steps = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 1000));
  const auto max_windows = *rc::gen::inRange<std::size_t>(1, 12);
  const auto burst = *rc::gen::inRange(0, 10);
  Storm storm({.burst = static_cast<double>(burst), .per_second = 0.1, .max_windows = max_windows});
  std::map<std::string, std::int64_t> proven;  // offered, by identity
  double now = 0;
  for (const int step : steps) {
    now += (step % 7) * 3.5;
    storm.due(now);
    const int who = step % 5;
    switch (step % 11) {
      case 0: storm.write(storm.counter.settle("n" + std::to_string(who))); break;
      case 1: storm.write(storm.counter.settle_all()); break;
      case 2:
      case 3:
      case 4: storm.offer(rejected_token(who), at(now)); break;
      default: {
        const Record record = rejected_password("n" + std::to_string(who), step % 2 == 0 ? "bb" : "cc");
        ++proven[identity(record)];
        storm.offer(record, at(now));
      }
    }
  }
  storm.write(storm.counter.settle_all());
  RC_ASSERT(storm.outcomes_written() == storm.offered);
  std::map<std::string, std::int64_t> told;
  for (const Record& record : storm.written) {
    if (record.kind() == Kind::password_rejected) told[identity(record)] += record.count;
    RC_ASSERT(record.count >= 1);
    if (record.first_time) RC_ASSERT(*record.first_time <= record.time);
  }
  RC_ASSERT(told == proven);
}

// Every outcome gets a seq that is written already and speaks of the same thing.
RC_GTEST_PROP(Storm, TheSeqThatStandsForAnOutcomeSpeaksOfIt, ()) {
  const auto nodes = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 4));
  Storm storm;
  double now = 0;
  for (const int node : nodes) {
    now += node * 11;
    storm.due(now);
    const Record record = rejected_password("n" + std::to_string(node));
    const Seq seq = storm.offer(record, at(now));
    RC_ASSERT(seq >= 1U);
    RC_ASSERT(seq <= storm.head);
    RC_ASSERT(identity(storm.written[seq - 1]) == identity(record));
  }
}

}  // namespace
}  // namespace ledger
