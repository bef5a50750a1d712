#include "api/delivery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

#include "api/webhook.h"
#include "tests/replay/replay_support.h"

namespace ledger::api {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using Outcome = Attempt::Outcome;

std::vector<Record> some_records(Seq from, Seq to) {
  std::vector<Record> records;
  for (Seq seq = from; seq <= to; ++seq) {
    Record record;
    record.seq = seq;
    record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(seq));
    record.node = "n" + std::to_string(seq % 3);
    record.event = PasswordVerified{{record.node}};
    records.push_back(std::move(record));
  }
  return records;
}

// A consumer that does as it is told, and remembers what arrived.
class Consumer : public Destination {
 public:
  std::string name() const override { return "consumer"; }
  bool acknowledges() const override { return acknowledging; }
  Departure gone() override { return std::exchange(departure, {}); }
  Attempt deliver(const Batch& batch) override {
    ids.push_back(webhook_body(batch, replay::AuditFormat::jsonl).id);
    const Attempt attempt = answers.empty() ? Attempt{} : answers.front();
    if (!answers.empty()) answers.pop_front();
    if (attempt.outcome == Outcome::taken || arrives_anyway)
      for (const replay::TailLine& line : batch.lines) seqs.push_back(line.seq);
    return attempt;
  }
  bool acknowledging = true, arrives_anyway = false;
  Departure departure;
  std::deque<Attempt> answers;
  std::vector<Seq> seqs;
  std::vector<std::string> ids;
};

class DeliveryTest : public testing::Test {
 protected:
  DeliveryOptions options(DeliveryMark from = {}) {
    DeliveryOptions out;
    out.from = from;
    out.batch.records = 4;
    out.resend = 3;
    out.jitter = [] { return 1.0; };
    out.keep = [this](const DeliveryMark& mark) {
      kept.push_back(mark);
      return Result<void>();
    };
    out.tell = [this](const std::string& line) { told.push_back(line); };
    return out;
  }
  // Until nothing is left to do, at most `steps`; the waits on the way.
  std::vector<std::chrono::milliseconds> run(Delivery& delivery, int steps = 100) {
    std::vector<std::chrono::milliseconds> waits;
    for (int i = 0; i < steps; ++i) {
      const auto step = delivery.step(log.log());
      EXPECT_TRUE(step) << step.error().message;
      if (!step || step->idle) break;
      if (step->wait.count() > 0) waits.push_back(step->wait);
    }
    return waits;
  }
  replay::test::MemoryLog log;
  Consumer consumer;
  std::vector<DeliveryMark> kept;
  std::vector<std::string> told;
};

TEST_F(DeliveryTest, BatchesAreNotedBeforeAndAfterTheyAreSent) {
  log.append(some_records(1, 6));
  Delivery delivery(consumer, options());
  run(delivery);
  EXPECT_THAT(consumer.seqs, ElementsAre(1, 2, 3, 4, 5, 6));
  ASSERT_EQ(kept.size(), 4u);
  EXPECT_EQ(kept[0].taken, 0u);
  EXPECT_EQ(kept[0].sending, 4u);
  EXPECT_EQ(kept[1].taken, 4u);
  EXPECT_EQ(kept[1].sending, 0u);
  EXPECT_EQ(kept[3].taken, 6u);
  EXPECT_EQ(told, std::vector<std::string>());
}

TEST_F(DeliveryTest, ABatchThatWasBegunIsMadeAgainAsItWas) {
  log.append(some_records(1, 3));
  consumer.answers = {{Outcome::lost, "dead"}};
  Delivery before(consumer, options());
  run(before, 1);
  log.append(some_records(4, 9));  // meanwhile there is more
  Delivery after(consumer, options(kept.back()));
  run(after);
  ASSERT_GE(consumer.ids.size(), 3u);
  EXPECT_EQ(consumer.ids[0], consumer.ids[1]);
  EXPECT_NE(consumer.ids[1], consumer.ids[2]);
  EXPECT_THAT(consumer.seqs, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST_F(DeliveryTest, PausesGrowAndTheConsumersWishIsHeard) {
  log.append(some_records(1, 1));
  for (int i = 0; i < 9; ++i) consumer.answers.push_back({Outcome::lost, "away"});
  consumer.answers.push_back({Outcome::lost, "busy", 120s});
  consumer.answers.push_back({Outcome::refused, "401"});
  Delivery delivery(consumer, options());
  EXPECT_THAT(run(delivery), ElementsAre(500ms, 1s, 2s, 4s, 8s, 16s, 32s, 60s, 60s, 120s, 60s));
  EXPECT_THAT(consumer.seqs, ElementsAre(1));
  ASSERT_EQ(told.size(), 4u) << "each reason once, and that it is over";
  EXPECT_EQ(told[0], "consumer is lost: away; 1 record behind, nothing is skipped, next try in 1 s");
  EXPECT_THAT(told[2], HasSubstr("does not take the records: 401"));
  EXPECT_EQ(told[3], "consumer is back, nothing to catch up with");
  EXPECT_EQ(delivery.failures(), 0);
}

TEST_F(DeliveryTest, JitterTakesUpToHalf) {
  log.append(some_records(1, 1));
  consumer.answers = {{Outcome::lost, "away"}};
  DeliveryOptions least = options();
  least.jitter = [] { return 0.0; };
  Delivery delivery(consumer, least);
  EXPECT_THAT(run(delivery), ElementsAre(250ms));
}

TEST_F(DeliveryTest, WhatMayNotHaveBeenReadIsSentAgain) {
  log.append(some_records(1, 8));
  consumer.acknowledging = false;
  Delivery delivery(consumer, options());
  run(delivery);
  EXPECT_THAT(consumer.seqs, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  consumer.seqs.clear();
  consumer.departure = {"reset", false};
  run(delivery);
  EXPECT_THAT(consumer.seqs, ElementsAre(6, 7, 8)) << "the last three";
  EXPECT_EQ(kept[kept.size() - 2].taken, 7u) << "and a process that dies on the way goes on from there";
  EXPECT_THAT(told[0], HasSubstr("consumer is lost: reset; 3 records behind"));
  consumer.seqs.clear();
  consumer.departure = {"it closed the connection", true};
  run(delivery);
  EXPECT_TRUE(consumer.seqs.empty()) << "who leaves in order has read everything";
  consumer.departure = {"reset", false};
  run(delivery);
  EXPECT_TRUE(consumer.seqs.empty()) << "and what was read is not in doubt any more";
}

TEST_F(DeliveryTest, TooLargeIsHalvedDownToOneRecord) {
  log.append(some_records(1, 4));
  for (int i = 0; i < 3; ++i) consumer.answers.push_back({Outcome::too_large, "413"});
  Delivery delivery(consumer, options());
  EXPECT_THAT(run(delivery), ElementsAre(60s)) << "of 4, of 2, and then 1 is refused";
  EXPECT_THAT(consumer.seqs, ElementsAre(1, 2, 3, 4));
}

TEST_F(DeliveryTest, AMarkThatCannotBeKeptIsTheEnd) {
  log.append(some_records(1, 4));
  DeliveryOptions full = options();
  full.keep = [](const DeliveryMark&) { return Result<void>(Error{Errc::io, "disk full"}); };
  Delivery delivery(consumer, full);
  const auto step = delivery.step(log.log());
  ASSERT_FALSE(step);
  EXPECT_EQ(step.error().message, "disk full");
  EXPECT_TRUE(consumer.seqs.empty()) << "nothing is sent that could not be noted";
}

TEST_F(DeliveryTest, ADestinationThatEndsIsTheEnd) {
  log.append(some_records(1, 4));
  consumer.answers = {{Outcome::ended, "the disk is full"}};
  Delivery delivery(consumer, options());
  const auto step = delivery.step(log.log());
  ASSERT_FALSE(step);
  EXPECT_EQ(step.error().message, "the disk is full");
}

// Whatever a consumer does and whenever the process is killed: nothing is skipped, each batch is in order, and a consumer
// who drops doubles by id has every record once.
RC_GTEST_PROP(Delivery, NothingIsSkippedWhateverHappens, ()) {
  replay::test::MemoryLog log;
  Consumer consumer;
  consumer.acknowledging = *rc::gen::arbitrary<bool>();
  consumer.arrives_anyway = true;  // an answer that is lost says nothing about the records
  DeliveryMark disk;
  DeliveryOptions options;
  options.batch.records = *rc::gen::inRange<std::size_t>(1, 6);
  options.batch.looked_at = *rc::gen::inRange<Seq>(1, 6);
  options.resend = *rc::gen::inRange<std::size_t>(0, 5);
  if (*rc::gen::arbitrary<bool>()) options.records.nodes = {"n1"};
  options.keep = [&disk](const DeliveryMark& mark) {
    disk = mark;
    return Result<void>();
  };
  Seq head = 0;
  std::map<std::string, std::vector<Seq>> by_id;
  auto delivery = std::make_unique<Delivery>(consumer, options);
  const auto step = [&] {
    const std::size_t before = consumer.seqs.size();
    const auto done = delivery->step(log.log());
    RC_ASSERT(done.has_value());
    const std::vector<Seq> batch(consumer.seqs.begin() + static_cast<std::ptrdiff_t>(before), consumer.seqs.end());
    RC_ASSERT(std::is_sorted(batch.begin(), batch.end()));
    if (!batch.empty()) RC_ASSERT(by_id.try_emplace(consumer.ids.back(), batch).first->second == batch);
    return done->idle;
  };
  for (const int what : *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 7))) {
    if (what == 0) {
      log.append(some_records(head + 1, head + 4));
      head += 4;
    } else if (what == 1) {
      options.from = disk;  // killed
      delivery = std::make_unique<Delivery>(consumer, options);
    } else if (what == 2) {
      consumer.departure = {"gone", false};
    } else {
      if (what == 3) consumer.answers.push_back({Outcome::lost, "lost"});
      if (what == 4) consumer.answers.push_back({Outcome::too_large, "large"});
      step();
    }
  }
  while (!step()) {
  }
  std::set<Seq> wanted;
  for (Seq seq = 1; seq <= head; ++seq)
    if (options.records.nodes.empty() || seq % 3 == 1) wanted.insert(seq);
  RC_ASSERT(std::set<Seq>(consumer.seqs.begin(), consumer.seqs.end()) == wanted);
  if (!consumer.acknowledging) return;
  // Only what was halved after it had arrived comes under two ids.
  std::size_t total = 0;
  for (const auto& [id, seqs] : by_id) total += seqs.size();
  const bool halved = std::any_of(by_id.begin(), by_id.end(), [&](const auto& one) {
    return std::any_of(by_id.begin(), by_id.end(), [&](const auto& other) {
      return one.first != other.first && one.second.front() == other.second.front();
    });
  });
  RC_ASSERT(halved || total == wanted.size());
}

}  // namespace
}  // namespace ledger::api
