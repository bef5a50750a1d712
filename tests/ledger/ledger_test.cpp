#include "ledger/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <rocksdb/env.h>

#include <atomic>
#include <barrier>
#include <future>
#include <map>
#include <set>
#include <thread>

#include "ledger/event_codec.h"
#include "tests/support/generators.h"
#include "tests/support/ledger_fixture.h"

namespace ledger {
namespace {

using test::all_records;
using test::broken_promises;
using test::Face;
using test::LedgerTest;
using test::outcomes;
using test::proposal_of;
using test::record_of;
using test::register_node;
using test::WritePoint;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Event rejected(const std::string& fingerprint = "bb", const std::string& bound = "aa") {
  return PasswordRejected{.fingerprint = {fingerprint}, .bound = {bound}, .status = 403};
}

// Runs `work` on `count` threads that start together.
void in_parallel(int count, const std::function<void(int)>& work) {
  std::barrier start(count);
  std::vector<std::jthread> threads;
  for (int i = 0; i < count; ++i)
    threads.emplace_back([&, i] {
      start.arrive_and_wait();
      work(i);
    });
}

// Holds the writer inside a callback, so that what a test appends meanwhile waits in the queue.
class WriterHeld {
 public:
  explicit WriterHeld(Ledger& ledger) {
    std::promise<void> entered;
    ledger.append(proposal_of({record_of(TunnelOpened{"hold"})}),
                  [&entered, released = std::make_shared<std::future<void>>(release_.get_future())](
                      const Result<Committed>&) {
                    entered.set_value();
                    released->wait();
                  });
    entered.get_future().wait();
  }
  ~WriterHeld() { release_.set_value(); }

 private:
  std::promise<void> release_;
};

// ---- a registration's life -------------------------------------------------------------------------------

TEST_F(LedgerTest, FirstRegistrationWins) {
  open();
  EXPECT_EQ(registers("web-1", "aa"), Ruling::admit_first);
  EXPECT_EQ(registers("web-1", "aa"), Ruling::admit_known);
  EXPECT_EQ(registers("web-1", "bb"), Ruling::refuse_mismatch);
  EXPECT_EQ(registers("web-2", "bb"), Ruling::admit_first);
  append_ok(BindingReleased{.actor = "ops", .by = "operator", .fingerprint = {"aa"}}, "web-1");
  EXPECT_EQ(registers("web-1", "bb"), Ruling::admit_first);
  append_ok(BindingHeld{"ops"}, "web-3");
  EXPECT_EQ(registers("web-3", "cc"), Ruling::refuse_held);
  EXPECT_EQ(registers("web-3", "cc"), Ruling::refuse_held);
}

TEST_F(LedgerTest, RecordsAreFilledByTheWriter) {
  open();
  Record record = record_of(TunnelOpened{"s"}, "n1");
  record.seq = 77;
  record.time = *Time::parse("2099-01-01T00:00:00Z");
  const Result<Committed> outcome = ledger_->append_and_wait(proposal_of({record, record}));
  ASSERT_TRUE(outcome.has_value());
  EXPECT_THAT(outcome->seqs, ElementsAre(1, 2));
  EXPECT_EQ(outcome->last(), 2U);
  const Record written = *ledger_->log().read(1);
  EXPECT_EQ(written.seq, 1U);
  EXPECT_EQ(written.time, clock_.now());
  EXPECT_EQ(written.epoch, 1);
  EXPECT_EQ(written.server, ledger_->server_id());
  EXPECT_EQ(written.server, "srv-" + ledger_->log().id().substr(0, 4));
}

TEST_F(LedgerTest, AnUnseenNameIsADefaultState) {
  open();
  EXPECT_TRUE(ledger_->find("nobody") == NodeState{});
  EXPECT_FALSE(ledger_->find_token("agent", "t").has_value());
  EXPECT_TRUE(ledger_->tokens().empty());
}

TEST_F(LedgerTest, ToBeToldIsToBeSafe) {
  open();
  for (int i = 1; i <= 50; ++i) {
    const Seq seq = append_ok(TunnelOpened{"s" + std::to_string(i)}, "n");
    EXPECT_EQ(seq, static_cast<Seq>(i));
    EXPECT_TRUE(ledger_->log().read(seq).has_value());
  }
}

TEST_F(LedgerTest, ProposalsThatProposeNothingSucceed) {
  open();
  const Result<Committed> outcome = ledger_->append_and_wait({});
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->last(), 0U);
  EXPECT_EQ(ledger_->log().head(), 0U);
}

// ---- versions --------------------------------------------------------------------------------------------

TEST_F(LedgerTest, AStaleViewIsAConflictAndWritesNothing) {
  open();
  registers("n1", "aa");
  Proposal stale = proposal_of({record_of(TokenAccepted{}, "n1"), record_of(PasswordStored{{"bb"}}, "n1")});
  stale.expect = Proposal::Expect{"n1", 0};
  const Result<Committed> outcome = ledger_->append_and_wait(std::move(stale));
  ASSERT_FALSE(outcome.has_value());
  EXPECT_EQ(outcome.error().code, Errc::conflict);
  EXPECT_EQ(ledger_->log().head(), 1U);
  EXPECT_EQ(ledger_->stats().conflicts, 1U);
  EXPECT_EQ(ledger_->find("n1").bound.text, "aa");
}

// Two proposals of one batch: the second must see what the first will do.
TEST_F(LedgerTest, VersionsAreCheckedWithinABatch) {
  open();
  std::promise<Result<Committed>> first, second;
  {
    WriterHeld held(*ledger_);
    for (auto* promise : {&first, &second}) {
      Proposal proposal = proposal_of({record_of(PasswordStored{{promise == &first ? "aa" : "bb"}}, "n1")});
      proposal.expect = Proposal::Expect{"n1", 0};
      ledger_->append(std::move(proposal), [promise](Result<Committed> outcome) { promise->set_value(std::move(outcome)); });
    }
  }
  EXPECT_TRUE(first.get_future().get().has_value());
  const Result<Committed> outcome = second.get_future().get();
  ASSERT_FALSE(outcome.has_value());
  EXPECT_EQ(outcome.error().code, Errc::conflict);
  EXPECT_EQ(ledger_->find("n1").bound.text, "aa");
}

TEST_F(LedgerTest, ManyRaceForOneFreeNameAndOneWins) {
  open();
  constexpr int kThreads = 16;
  for (int round = 0; round < 10; ++round) {
    const std::string node = "n" + std::to_string(round);
    std::atomic<int> first{0}, refused{0};
    std::mutex mutex;
    std::string winner;
    in_parallel(kThreads, [&](int i) {
      const std::string fingerprint = "f" + std::to_string(i);
      const test::Registered registered = register_node(*ledger_, node, fingerprint);
      EXPECT_TRUE(registered.outcome.has_value());
      if (registered.ruling == Ruling::admit_first) {
        ++first;
        const std::lock_guard lock(mutex);
        winner = fingerprint;
      }
      if (registered.ruling == Ruling::refuse_mismatch) ++refused;
    });
    EXPECT_EQ(first, 1);
    EXPECT_EQ(refused, kThreads - 1);
    EXPECT_EQ(ledger_->find(node).bound.text, winner);
  }
  EXPECT_EQ(outcomes(ledger_->log(), Kind::password_stored), 10);
  ASSERT_TRUE(ledger_->close().has_value());
  EXPECT_EQ(outcomes(ledger_->log(), Kind::password_rejected), 10 * (kThreads - 1));
}

// ---- group commit ----------------------------------------------------------------------------------------

TEST_F(LedgerTest, ManyClientsShareASync) {
  open();
  constexpr int kThreads = 8, kEach = 150;
  std::mutex mutex;
  std::set<Seq> seqs;
  in_parallel(kThreads, [&](int thread) {
    Seq last = 0;
    for (int i = 0; i < kEach; ++i) {
      const Result<Committed> outcome = ledger_->append_and_wait(
          proposal_of({record_of(TunnelOpened{std::to_string(thread)}, "n"), record_of(TunnelClosed{}, "n")}));
      ASSERT_TRUE(outcome.has_value());
      ASSERT_EQ(outcome->seqs.size(), 2U);
      EXPECT_EQ(outcome->seqs[1], outcome->seqs[0] + 1) << "one proposal stands together";
      EXPECT_GT(outcome->seqs[0], last) << "one client's appends keep their order";
      last = outcome->seqs[1];
      const std::lock_guard lock(mutex);
      seqs.insert(outcome->seqs.begin(), outcome->seqs.end());
    }
  });
  EXPECT_EQ(seqs.size(), 2U * kThreads * kEach);
  EXPECT_EQ(*seqs.rbegin(), 2U * kThreads * kEach) << "gapless";
  EXPECT_EQ(ledger_->stats().records, seqs.size());
  EXPECT_LE(ledger_->stats().batches, seqs.size() / 2);
}

TEST_F(LedgerTest, WhatWaitsBecomesOneBatch) {
  open();
  std::atomic<int> done{0};
  std::promise<void> last;
  {
    WriterHeld held(*ledger_);
    for (int i = 0; i < 100; ++i)
      ledger_->append(proposal_of({record_of(TunnelOpened{"s"}, "n")}), [&](const Result<Committed>& outcome) {
        EXPECT_TRUE(outcome.has_value());
        if (++done == 100) last.set_value();
      });
  }
  last.get_future().wait();
  EXPECT_EQ(ledger_->stats().batches, 2U);
}

TEST_F(LedgerTest, ACallbackMayAppend) {
  open();
  std::promise<Seq> second;
  ledger_->append(proposal_of({record_of(TunnelOpened{"s"}, "n")}), [&](const Result<Committed>&) {
    ledger_->append(proposal_of({record_of(TunnelClosed{}, "n")}),
                    [&](const Result<Committed>& outcome) { second.set_value(outcome->last()); });
  });
  EXPECT_EQ(second.get_future().get(), 2U);
}

// Who decides anew on a state that others keep changing would else lose to newcomers again and again.
TEST_F(LedgerTest, WhoDecidesAnewGoesFirst) {
  open();
  const auto binding = [](const char* fingerprint, Seq version) {
    Proposal proposal = proposal_of({record_of(BindingImported{.fingerprint = {fingerprint}, .origin = "node-passwd"}, "n1")});
    proposal.expect = Proposal::Expect{"n1", version};
    return proposal;
  };
  std::promise<void> decided, newcomer_waits;
  std::promise<Result<Committed>> again;
  std::promise<Result<Committed>> newcomer;
  {
    WriterHeld held(*ledger_);
    ledger_->append(binding("aa", 0), [&](const Result<Committed>&) {
      decided.set_value();
      newcomer_waits.get_future().wait();
    });
    ledger_->append(binding("bb", 0), [&](const Result<Committed>& outcome) {
      ASSERT_FALSE(outcome);
      ledger_->append(binding("bb", ledger_->find("n1").version),
                      [&](const Result<Committed>& second) { again.set_value(second); });
    });
  }
  decided.get_future().wait();
  ledger_->append(binding("cc", ledger_->find("n1").version),
                  [&](const Result<Committed>& outcome) { newcomer.set_value(outcome); });
  newcomer_waits.set_value();
  EXPECT_TRUE(again.get_future().get().has_value());
  EXPECT_FALSE(newcomer.get_future().get().has_value());
  EXPECT_EQ(ledger_->find("n1").bound.text, "bb");
}

// What a callback holds on to (a connection) must go when it has been called, not with the next request.
TEST_F(LedgerTest, CallbacksAreLetGo) {
  open();
  const auto gone = std::make_shared<std::promise<void>>();
  const auto close_connection = [gone](const int* connection) {
    delete connection;
    gone->set_value();
  };
  ledger_->append(proposal_of({record_of(TunnelOpened{"s"}, "n")}),
                  [connection = std::shared_ptr<const int>(new int(1), close_connection)](const Result<Committed>&) {});
  EXPECT_EQ(gone->get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
}

TEST_F(LedgerTest, ReadersSeeWholeProposalsWhileOthersWrite) {
  open();
  std::atomic<bool> stop{false};
  std::jthread reader([&] {
    while (!stop) {
      const NodeState state = ledger_->find("n1");
      EXPECT_TRUE(state.version == 0 || ledger_->log().read(state.version).has_value());
      (void)ledger_->tokens();
      (void)ledger_->stats();
    }
  });
  for (int i = 0; i < 100; ++i) {
    append_ok(PasswordStored{{"f" + std::to_string(i)}}, "n1");
    append_ok(TokenRotated{"t" + std::to_string(i), "agent", {}, "ops"});
  }
  stop = true;
}

// ---- the clock -------------------------------------------------------------------------------------------

TEST_F(LedgerTest, TimeNeverGoesBackAndAStepIsAnEvent) {
  open();
  append_ok(TunnelOpened{"s"}, "n");
  clock_.advance(3600);
  append_ok(TunnelOpened{"s"}, "n");
  clock_.advance(-7200);
  append_ok(TunnelOpened{"s"}, "n");
  clock_.advance(1);  // less than 5 s: nothing
  append_ok(TunnelOpened{"s"}, "n");
  EXPECT_THAT(kinds(), ElementsAre("tunnel_opened", "clock_stepped", "tunnel_opened", "clock_stepped",
                                   "tunnel_opened", "tunnel_opened"));
  const std::vector<Record> all = records();
  EXPECT_NEAR(as<ClockStepped>(all[1])->by_seconds, 3600, 60);
  EXPECT_NEAR(as<ClockStepped>(all[3])->by_seconds, -7200, 60);
  EXPECT_EQ(all[4].time, all[2].time) << "held back until the clock catches up";
}

TEST_F(LedgerTest, AClockBehindTheLogIsNoticedAfterAReopening) {
  open();
  append_ok(TunnelOpened{"s"}, "n");
  close();
  clock_.advance(-86400);
  open();
  append_ok(TunnelOpened{"s"}, "n");
  EXPECT_THAT(kinds(), ElementsAre("tunnel_opened", "clock_stepped", "tunnel_opened"));
  EXPECT_NEAR(as<ClockStepped>(records()[1])->by_seconds, -86400, 60);
}

TEST_F(LedgerTest, TimePassedWhileItWasDownIsNoStep) {
  open();
  append_ok(TunnelOpened{"s"}, "n");
  close();
  clock_.advance(86400);
  open();
  append_ok(TunnelOpened{"s"}, "n");
  EXPECT_THAT(kinds(), ElementsAre("tunnel_opened", "tunnel_opened"));
}

// ---- storms ----------------------------------------------------------------------------------------------

TEST_F(LedgerTest, RepeatsAreCountedAndTheCountIsExact) {
  open();
  registers("n1", "aa");
  const Seq first = append_ok(rejected(), "n1");
  for (int i = 0; i < 39; ++i) EXPECT_EQ(append_ok(rejected(), "n1"), first) << "the record that stands for it";
  EXPECT_EQ(ledger_->log().head(), 2U);
  EXPECT_EQ(ledger_->stats().counted, 39U);
  ASSERT_TRUE(ledger_->flush_counts().has_value());
  EXPECT_EQ(ledger_->log().head(), 3U);
  EXPECT_EQ(ledger_->log().read(3)->count, 39);
  EXPECT_EQ(ledger_->find("n1").rejections, 40U);
  EXPECT_EQ(state_name(ledger_->find("n1")), "refused");
  ASSERT_TRUE(ledger_->flush_counts().has_value());
  EXPECT_EQ(ledger_->log().head(), 3U) << "nothing more to write";
}

TEST_F(LedgerTest, CountsStandBeforeWhatEndsThem) {
  open();
  registers("n1", "aa");
  for (int i = 0; i < 3; ++i) append_ok(rejected(), "n1");
  append_ok(BindingChanged{.actor = "ops", .by = "operator_accept", .from = {"aa"}, .to = {"bb"}}, "n1");
  for (int i = 0; i < 3; ++i) append_ok(rejected("cc", "bb"), "n1");
  EXPECT_EQ(registers("n1", "bb"), Ruling::admit_known);
  EXPECT_THAT(kinds(), ElementsAre("password_stored", "password_rejected", "password_rejected", "binding_changed",
                                   "password_rejected", "password_rejected", "password_verified"));
  EXPECT_EQ(records()[2].count, 2);
  EXPECT_EQ(records()[5].count, 2);
  EXPECT_EQ(ledger_->find("n1").rejections, 0U);
}

TEST_F(LedgerTest, AnOrderlyStopIsTheLastRecord) {
  open();
  registers("n1", "aa");
  for (int i = 0; i < 5; ++i) append_ok(rejected(), "n1");
  append_ok(ServerStopped{"SIGTERM"});
  close();
  open();
  EXPECT_TRUE(ledger_->was_clean());
  EXPECT_THAT(kinds(), ElementsAre("password_stored", "password_rejected", "password_rejected", "server_stopped"));
}

TEST_F(LedgerTest, CountsOfAnEpochStandBeforeTheNext) {
  open();
  registers("n1", "aa");
  for (int i = 0; i < 5; ++i) append_ok(rejected(), "n1");
  append_ok(EpochStarted{.cause = "restored", .head_before = 0, .head_after = 0});
  EXPECT_THAT(kinds(), ElementsAre("password_stored", "password_rejected", "password_rejected", "epoch_started"));
  EXPECT_EQ(records()[2].epoch, 1);
}

// Whoever was told "recorded" is counted, however the appends and the stop interleave.
TEST_F(LedgerTest, CountsAreExactWhenItIsClosedUnderLoad) {
  for (int round = 0; round < 8; ++round) {
    if (ledger_ == nullptr) open();
    std::atomic<std::int64_t> acknowledged{0};
    {
      std::vector<std::jthread> clients;
      std::promise<void> warm;
      std::once_flag once;
      for (int thread = 0; thread < 4; ++thread)
        clients.emplace_back([&] {
          for (;;) {
            const Result<Committed> outcome = append(rejected(), "n1");
            if (!outcome) return;
            if (++acknowledged > 20) std::call_once(once, [&] { warm.set_value(); });
          }
        });
      warm.get_future().wait();
      ASSERT_TRUE(ledger_->close().has_value());
    }
    EXPECT_EQ(outcomes(ledger_->log(), Kind::password_rejected), acknowledged);
    ledger_.reset();
    std::filesystem::remove_all(options_.log.dir);
  }
}

// ---- limits ----------------------------------------------------------------------------------------------

TEST_F(LedgerTest, AFullQueueKeepsTheNamesOfWhoAsked) {
  constexpr int kRounds = 50;
  options_.queue_limit = 1;
  open();
  const auto request = [](const std::string& node) {
    Record accepted = record_of(TokenAccepted{}, node), verified = record_of(PasswordVerified{{"aa"}}, node);
    accepted.source = verified.source = "10.0.0.5:41000";
    return proposal_of({accepted, verified});
  };
  for (int round = 0; round < kRounds; ++round) {
    {
      WriterHeld held(*ledger_);
      ledger_->append(request("web-0"), [](const Result<Committed>&) {});
      for (const char* node : {"web-1", "web-2", "web-2"})
        ledger_->append(request(node), [](const Result<Committed>& outcome) {
          ASSERT_FALSE(outcome);
          EXPECT_EQ(outcome.error().code, Errc::overloaded);
        });
    }
    Proposal after = proposal_of({record_of(TunnelClosed{}, "n")});
    after.use_reserve = true;  // the queue may still be full
    ASSERT_TRUE(ledger_->append_and_wait(std::move(after)));
  }
  reopen();  // what was counted is written
  std::map<std::string, std::int64_t> asked;
  std::size_t written = 0;
  for (const Record& record : records()) {
    if (as<RequestRejected>(record) == nullptr) continue;
    ++written;
    asked[record.node] += record.count;
    EXPECT_EQ(record.source, "10.0.0.5");
    EXPECT_EQ(as<RequestRejected>(record)->reason, "overloaded");
  }
  EXPECT_EQ(asked, (std::map<std::string, std::int64_t>{{"web-1", kRounds}, {"web-2", 2 * kRounds}}));
  EXPECT_LT(written, 2U * kRounds) << "an overload that goes on is a storm";
  EXPECT_FALSE(ledger_->log().node("web-1")->has_value()) << "a claim makes no node";
}

TEST_F(LedgerTest, AFullQueueRefusesAtOnceAndTellsLater) {
  options_.queue_limit = 4;
  open();
  std::atomic<int> recorded{0}, refused{0};
  std::promise<void> stopped;
  {
    WriterHeld held(*ledger_);
    for (int i = 0; i < 10; ++i)
      ledger_->append(proposal_of({record_of(TunnelOpened{"s"}, "n")}), [&](const Result<Committed>& outcome) {
        if (outcome) {
          ++recorded;
        } else {
          EXPECT_EQ(outcome.error().code, Errc::overloaded);
          ++refused;
        }
      });
    EXPECT_EQ(refused, 6) << "told at once, on this thread";
    EXPECT_EQ(recorded, 0);
    Proposal reserved = proposal_of({record_of(ServerStopped{"test"})});
    reserved.use_reserve = true;
    ledger_->append(std::move(reserved), [&](const Result<Committed>& outcome) {
      recorded += outcome ? 1 : 0;
      stopped.set_value();
    });
  }
  stopped.get_future().wait();
  append_ok(TunnelClosed{}, "n");
  EXPECT_EQ(recorded, 5);
  EXPECT_EQ(ledger_->stats().overloaded, 6U);
  EXPECT_EQ(outcomes(ledger_->log(), Kind::request_rejected), 6) << "refusals that could not be recorded are counted";
  for (const Record& record : records())
    if (const auto* request = as<RequestRejected>(record)) {
      EXPECT_EQ(request->reason, "overloaded");
    }
}

TEST_F(LedgerTest, ADiskThatIsNearlyFullRefusesUntilThereIsRoom) {
  options_.min_free_bytes = 64 << 20;
  disk_.fs->set_free_bytes(63 << 20);
  bool failed = false;
  options_.on_failure = [&](const Error&) { failed = true; };
  open();
  const Result<Committed> refused = append(TunnelOpened{"s"}, "n");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::unavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("nearly full (63 MiB left)"));
  EXPECT_EQ(ledger_->log().head(), 0U);
  Proposal stop = proposal_of({record_of(ServerStopped{"test"})});
  stop.use_reserve = true;
  EXPECT_TRUE(ledger_->append_and_wait(std::move(stop)).has_value()) << "the server's own stop";
  // Room again: noticed within a second, without a restart.
  disk_.fs->set_free_bytes(65 << 20);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  Result<Committed> outcome = append(TunnelOpened{"s"}, "n");
  std::int64_t refusals = 1;
  while (!outcome && std::chrono::steady_clock::now() < deadline) {
    ++refusals;
    outcome = append(TunnelOpened{"s"}, "n");
  }
  ASSERT_TRUE(outcome.has_value());
  EXPECT_FALSE(failed) << "a full disk is not a failure";
  EXPECT_EQ(outcomes(ledger_->log(), Kind::request_rejected), refusals) << "all of them are told";
}

// ---- failure ---------------------------------------------------------------------------------------------

class LedgerFailure : public LedgerTest, public ::testing::WithParamInterface<std::pair<const char*, Face>> {};

TEST_P(LedgerFailure, TheFirstFailedWriteRefusesEverythingAfterIt) {
  std::vector<std::string> told;
  options_.on_failure = [&](const Error& error) { told.push_back(error.message); };
  open();
  append_ok(PasswordStored{{"aa"}}, "n1");
  append_ok(rejected(), "n1");
  append_ok(rejected(), "n1");  // counted: its window is open
  std::vector<std::promise<Result<Committed>>> waiters(10);
  {
    WriterHeld held(*ledger_);
    for (std::size_t i = 0; i < waiters.size(); ++i)
      ledger_->append(proposal_of({record_of(PasswordStored{{"bb"}}, "m" + std::to_string(i))}),
                      [&waiters, i](Result<Committed> outcome) { waiters[i].set_value(std::move(outcome)); });
    disk_.fs->fail(WritePoint::wal_sync, GetParam().second);
  }
  for (auto& waiter : waiters) {
    const Result<Committed> outcome = waiter.get_future().get();
    ASSERT_FALSE(outcome.has_value());
    EXPECT_EQ(outcome.error().code, Errc::unavailable);
    EXPECT_THAT(outcome.error().message, HasSubstr("cannot record"));
  }
  EXPECT_TRUE(ledger_->find("m0") == NodeState{}) << "what is not durable is not seen";
  for (int i = 0; i < 3; ++i) EXPECT_EQ(append(TunnelOpened{"s"}, "n").error().code, Errc::unavailable);
  EXPECT_EQ(ledger_->flush_counts().error().code, Errc::unavailable);
  EXPECT_EQ(ledger_->close().error().code, Errc::unavailable);
  EXPECT_EQ(told.size(), 1U) << "the owner is told once";

  // The process ends, perhaps the machine too; what was acknowledged is there, what was not may be, whole.
  if (GetParam().second == Face::absent) disk_.fs->cut_power();
  ledger_.reset();
  if (GetParam().second == Face::absent) disk_.fs->restore_power();
  open();
  EXPECT_EQ(ledger_->log().head(), GetParam().second == Face::absent ? 3U : 13U);
  EXPECT_EQ(ledger_->find("n1").bound.text, "aa");
  EXPECT_EQ(ledger_->find("m9").is_bound(), GetParam().second == Face::present);
  append_ok(TunnelOpened{"s"}, "n");
}

INSTANTIATE_TEST_SUITE_P(Faces, LedgerFailure,
                         ::testing::Values(std::pair("failed_and_absent", Face::absent),
                                           std::pair("failed_and_present", Face::present)),
                         [](const auto& row) { return std::string(row.param.first); });

// Power is cut at any moment under load; every registration that was acknowledged is still there.
TEST_F(LedgerTest, PowerLossUnderLoadLosesNothingAcknowledged) {
  std::map<std::string, std::string> acknowledged;
  for (int round = 0; round < 6; ++round) {
    open();
    std::mutex mutex;
    std::promise<void> warm;
    std::once_flag once;
    std::vector<std::jthread> clients;
    for (int thread = 0; thread < 4; ++thread)
      clients.emplace_back([&, thread] {
        for (int i = 0;; ++i) {
          const std::string node = "n" + std::to_string(round) + "-" + std::to_string(thread) + "-" + std::to_string(i);
          if (!append(PasswordStored{{"f" + node}}, node)) return;
          const std::lock_guard lock(mutex);
          acknowledged[node] = "f" + node;
          if (i == 10 + round * 7) std::call_once(once, [&] { warm.set_value(); });
        }
      });
    warm.get_future().wait();
    disk_.fs->cut_power();
    clients.clear();
    ledger_.reset();
    disk_.fs->restore_power();
    open();
    for (const auto& [node, fingerprint] : acknowledged) EXPECT_EQ(ledger_->find(node).bound.text, fingerprint) << node;
    EXPECT_EQ(broken_promises(ledger_->log()), std::vector<std::string>());
    close();
  }
}

// ---- opening again ---------------------------------------------------------------------------------------

TEST_F(LedgerTest, EverythingIsAsItWasAfterReopening) {
  options_.log.env = nullptr;  // on the real file system
  open();
  EXPECT_TRUE(ledger_->was_clean()) << "an empty log";
  EXPECT_EQ(ledger_->epoch(), 1);
  const std::string server = ledger_->server_id();
  append_ok(ServerStarted{});
  registers("n1", "aa");
  registers("n1", "bb");
  registers("n2", "cc");
  append_ok(BindingHeld{"ops"}, "n3");
  append_ok(TokenCreated{"t1", "agent", {}, "ops"});
  append_ok(TokenRotated{"t2", "agent", {}, "ops"});
  append_ok(EpochStarted{.cause = "ca_changed", .head_before = 0, .head_after = 0});
  EXPECT_EQ(ledger_->epoch(), 2);
  const std::vector<NodeState> before = {ledger_->find("n1"), ledger_->find("n2"), ledger_->find("n3")};
  reopen();
  EXPECT_FALSE(ledger_->was_clean());
  EXPECT_EQ(ledger_->epoch(), 2);
  EXPECT_EQ(ledger_->server_id(), server);
  EXPECT_EQ((std::vector<NodeState>{ledger_->find("n1"), ledger_->find("n2"), ledger_->find("n3")}), before);
  EXPECT_EQ(ledger_->find_token("agent", "t1")->status, TokenState::Status::superseded);
  EXPECT_EQ(ledger_->find_token("agent", "t2")->status, TokenState::Status::valid);
  EXPECT_EQ(ledger_->tokens().size(), 2U);
  append_ok(TunnelOpened{"s"}, "n1");
  EXPECT_EQ(records().back().epoch, 2);
  EXPECT_EQ(as<EpochStarted>(records()[records().size() - 2])->cause, "ca_changed");
  append_ok(ServerStopped{"SIGTERM"});
  reopen();
  EXPECT_TRUE(ledger_->was_clean());
}

TEST_F(LedgerTest, TheSecondOpenerIsRefused) {
  open();
  const auto second = Ledger::open(options_);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, Errc::locked);
}

TEST_F(LedgerTest, AppendsAfterTheCloseAreRefused) {
  open();
  append_ok(TunnelOpened{"s"}, "n");
  ASSERT_TRUE(ledger_->close().has_value());
  EXPECT_EQ(append(TunnelOpened{"s"}, "n").error().code, Errc::unavailable);
  EXPECT_EQ(ledger_->flush_counts().error().code, Errc::unavailable);
  EXPECT_TRUE(ledger_->close().has_value()) << "closing twice is closing";
  EXPECT_EQ(ledger_->log().head(), 1U);
}

// ---- random histories ------------------------------------------------------------------------------------

// What a ledger is, said in the simplest way: who holds a name, and is it held.
struct Model {
  struct Node {
    std::string bound;
    bool held = false;
  };
  std::map<std::string, Node> nodes;

  Ruling registers(const std::string& name, const std::string& fingerprint) {
    Node& node = nodes[name];
    if (node.bound == fingerprint) return Ruling::admit_known;
    if (!node.bound.empty()) return Ruling::refuse_mismatch;
    if (node.held) return Ruling::refuse_held;
    node.bound = fingerprint;
    return Ruling::admit_first;
  }
};

RC_GTEST_PROP(LedgerHistories, AreWhatTheModelSays, ()) {
  const std::unique_ptr<rocksdb::Env> memory(rocksdb::NewMemEnv(rocksdb::Env::Default()));
  Ledger::Options options;
  options.log.dir = "/ledger-in-memory";
  options.log.env = memory.get();
  options.server_name = "srv";
  options.min_free_bytes = 0;
  const auto open = [&] {
    auto opened = Ledger::open(options);
    RC_ASSERT(opened.has_value());
    return std::move(*opened);
  };
  std::unique_ptr<Ledger> ledger = open();
  Model model;
  std::int64_t refused = 0;
  const auto steps = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 10'000));
  for (const int step : steps) {
    const std::string name = "n" + std::to_string(step / 16 % 3);
    const std::string fingerprint = "f" + std::to_string(step / 48 % 3);
    const auto append = [&](Event event) {
      RC_ASSERT(ledger->append_and_wait(proposal_of({record_of(std::move(event), name)})).has_value());
    };
    switch (step % 16) {
      case 0:
        append(BindingReleased{.actor = "ops", .by = "operator", .fingerprint = {}});
        model.nodes[name] = {};
        break;
      case 1:
        append(BindingReleased{.actor = "", .by = "node_deleted", .fingerprint = {}});
        model.nodes[name].bound.clear();
        break;
      case 2:
        append(BindingHeld{"ops"});
        model.nodes[name].held = true;
        break;
      case 3:
        append(BindingChanged{.actor = "ops", .by = "operator_accept", .from = {}, .to = {fingerprint}});
        model.nodes[name] = {fingerprint, false};
        break;
      case 4: RC_ASSERT(ledger->flush_counts().has_value()); break;
      case 5:
        if (step / 144 % 4 != 0) break;
        RC_ASSERT(ledger->close().has_value());
        ledger.reset();
        ledger = open();
        break;
      default: {
        const Ruling expected = model.registers(name, fingerprint);
        refused += admitted(expected) ? 0 : 1;
        RC_ASSERT(register_node(*ledger, name, fingerprint).ruling == expected);
      }
    }
    for (const auto& [node, said] : model.nodes) {
      RC_ASSERT(ledger->find(node).bound.text == said.bound);
      RC_ASSERT(ledger->find(node).held == said.held);
    }
  }
  RC_ASSERT(ledger->close().has_value());
  RC_ASSERT(outcomes(ledger->log(), Kind::password_rejected) == refused);
  RC_ASSERT(broken_promises(ledger->log()) == std::vector<std::string>());
}

}  // namespace
}  // namespace ledger
