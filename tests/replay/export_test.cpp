#include "replay/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using ::testing::ElementsAre;

std::vector<Record> three_nodes(int count) {
  std::vector<Record> records;
  for (int i = 1; i <= count; ++i) {
    Record record;
    record.seq = static_cast<Seq>(i);
    record.time = Time{1'700'000'000'000'000}.plus_seconds(i);
    record.node = "n" + std::to_string(i % 3);
    record.source = "10.0.0." + std::to_string(i % 3);
    record.event = PasswordVerified{{record.node}};
    records.push_back(std::move(record));
  }
  return records;
}

// Collects lines, and checks that each is one.
class Sheet {
 public:
  LineSink sink() {
    return [this](std::string_view line) {
      EXPECT_TRUE(line.ends_with('\n'));
      EXPECT_EQ(line.find('\n'), line.size() - 1);
      const Result<Record> record = record_from_json(line);
      EXPECT_TRUE(record.has_value());
      seqs.push_back(record->seq);
      return true;
    };
  }
  std::vector<Seq> seqs;
};

TEST(Export, KeepsSeqsAndHonoursTheRange) {
  test::MemoryLog log;
  log.append(three_nodes(10));
  Sheet all, some, timed;
  const auto report = export_log(log.log(), {}, all.sink());
  ASSERT_TRUE(report);
  EXPECT_EQ(report->records, 10u);
  EXPECT_EQ(all.seqs.size(), 10u);
  ASSERT_TRUE(export_log(log.log(), {.range = {.from = {.seq = 3, .time = {}}, .to = {.seq = 5, .time = {}}}}, some.sink()));
  EXPECT_THAT(some.seqs, ElementsAre(3, 4, 5));
  const Time base{1'700'000'000'000'000};
  ASSERT_TRUE(export_log(
      log.log(),
      {.range = {.from = {.seq = {}, .time = base.plus_seconds(8)}, .to = {.seq = {}, .time = base.plus_seconds(9)}}},
      timed.sink()));
  EXPECT_THAT(timed.seqs, ElementsAre(8, 9));
}

TEST(Export, OneNodeIsWhatBearsOnIt) {
  test::MemoryLog log;
  log.append(three_nodes(10));
  Sheet own, part;
  ASSERT_TRUE(export_node(log.log(), "N1", {}, own.sink()));
  EXPECT_THAT(own.seqs, ElementsAre(1, 4, 7, 10));
  ASSERT_TRUE(
      export_node(log.log(), "n1", {.range = {.from = {.seq = 4, .time = {}}, .to = {.seq = 9, .time = {}}}}, part.sink()));
  EXPECT_THAT(part.seqs, ElementsAre(4, 7));
}

TEST(Export, StopsAndSaysSoWhenItCannotWrite) {
  test::MemoryLog log;
  log.append(three_nodes(10));
  int taken = 0;
  const auto report = export_log(log.log(), {}, [&](std::string_view) { return ++taken < 4; });
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Errc::io);
  EXPECT_EQ(taken, 4);
}

// Overwrites what is stored under a seq.
void damage(test::MemoryLog& log, Seq seq, const std::string& bytes) {
  std::string key;
  for (int shift = 56; shift >= 0; shift -= 8) key.push_back(static_cast<char>((seq >> shift) & 0xFF));
  log.spoil([&](rocksdb::DB& db, const auto& families) { ASSERT_TRUE(db.Put({}, families[1], key, bytes).ok()); });
}

TEST(Export, ARecordThatCannotBeReadIsAHoleAndTheRestGoesOn) {
  test::MemoryLog log;
  log.append(three_nodes(10));
  damage(log, 4, "garbage");
  Sheet all, own;
  const auto report = export_log(log.log(), {}, all.sink());
  ASSERT_TRUE(report);
  EXPECT_EQ(report->records, 9u);
  EXPECT_EQ(report->hole_count, 1u);
  EXPECT_EQ(report->holes[0].seq, 4u);
  const auto of_node = export_node(log.log(), "n1", {}, own.sink());
  ASSERT_TRUE(of_node);
  EXPECT_THAT(own.seqs, ElementsAre(1, 7, 10));
  EXPECT_EQ(of_node->hole_count, 1u);
  const Result<History> history = history_from_log(log.log(), "n1");
  ASSERT_TRUE(history);
  const Explanation explanation = explain(*history);
  EXPECT_THAT(explanation.warnings, ::testing::Contains(::testing::HasSubstr("record 4 cannot be read")));
}

}  // namespace
}  // namespace ledger::replay
