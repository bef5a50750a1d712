#include "replay/log_stats.h"

#include <gtest/gtest.h>

#include "ledger/event_codec.h"
#include "tests/replay/replay_support.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger::replay {
namespace {

constexpr std::int64_t kDay_s = 86400;

class LogStatsTest : public ::testing::Test {
 protected:
  // `days` days with `each` records a day, the last one now; every fifth stands for ten outcomes.
  void fill(int days, int each) {
    std::vector<Record> records;
    const int total = days * each;
    for (int i = 1; i <= total; ++i) {
      Record record;
      record.seq = static_cast<Seq>(i);
      record.time = now_.plus_seconds((i - total) * kDay_s / each);
      record.node = "n" + std::to_string(i % 3);
      record.event = PasswordStored{{"aa"}};
      if (i % 5 == 0) {
        record.event = PasswordRejected{.fingerprint = {"bb"}, .bound = {"aa"}, .status = 403};
        record.count = 10;
      }
      bytes_ += encode(record).size();
      records.push_back(std::move(record));
    }
    log_.append(records);
  }
  LogStats stats(bool quick) const {
    const Result<LogStats> counted = log_stats(log_.log(), dir_.path(), now_, quick);
    EXPECT_TRUE(counted) << counted.error().message;
    return counted ? *counted : LogStats();
  }

  ledger::test::TempDir dir_;
  test::MemoryLog log_;
  std::uint64_t bytes_ = 0;
  const Time now_ = *Time::parse("2024-06-11T12:00:00Z");
};

TEST_F(LogStatsTest, CountsEveryRecordByKind) {
  fill(10, 10);
  const LogStats all = stats(false);
  EXPECT_TRUE(all.scanned);
  EXPECT_EQ(all.head, 100U);
  EXPECT_EQ(all.record_bytes, bytes_);
  ASSERT_EQ(all.kinds.size(), 2U);
  EXPECT_EQ(all.kinds.at("password_stored").records, 80U);
  EXPECT_EQ(all.kinds.at("password_rejected").records, 20U);
  EXPECT_EQ(all.kinds.at("password_rejected").outcomes, 200U);
  EXPECT_EQ(all.kinds.at("password_stored").bytes + all.kinds.at("password_rejected").bytes, bytes_);
  EXPECT_EQ(all.index_entries.at("node"), 100U);
  EXPECT_EQ(all.unreadable, 0U);
  std::uint64_t nodes = 0;
  for (const auto& [state, count] : all.nodes) nodes += count;
  EXPECT_EQ(nodes, 3U);
}

TEST_F(LogStatsTest, GrowthIsOfTheDaysThatThereWere) {
  fill(20, 24);
  ledger::test::put_file(dir_ / "token", "");
  std::filesystem::create_directories(dir_ / "events");
  ledger::test::put_file(dir_ / "events" / "000001.sst", std::string(480 * 100, 'x'));  // 100 bytes a record
  for (const bool quick : {false, true}) {
    const LogStats all = stats(quick);
    EXPECT_EQ(all.scanned, !quick);
    EXPECT_NEAR(all.week.days, 7, 0.01);
    EXPECT_NEAR(all.week.records_per_day, 24, 0.5);
    EXPECT_NEAR(all.week.disk_bytes_per_day, 2400, 50);
    EXPECT_NEAR(all.month.days, 20, 0.1) << "since the log began";
    EXPECT_NEAR(all.month.records_per_day, 24, 0.5);
    EXPECT_EQ(all.disk_bytes, 48'000U);
  }
}

TEST_F(LogStatsTest, AnEmptyLogAndAYoungOneForetellNothing) {
  EXPECT_EQ(stats(false).head, 0U);
  EXPECT_FALSE(stats(true).days_until_full.has_value());
  fill(1, 1);
  EXPECT_EQ(stats(false).week.records_per_day, 0);
  EXPECT_FALSE(stats(false).days_until_full.has_value());
}

TEST_F(LogStatsTest, WhatCannotBeReadIsCountedAsThat) {
  fill(1, 10);
  log_.spoil([](rocksdb::DB& db, const std::vector<rocksdb::ColumnFamilyHandle*>& handles) {
    ASSERT_TRUE(db.Put({}, handles[1], std::string("\0\0\0\0\0\0\0\4", 8), "rot").ok());
  });
  EXPECT_EQ(stats(false).unreadable, 1U);
}

}  // namespace
}  // namespace ledger::replay
