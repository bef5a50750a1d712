#include "replay/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <rocksdb/db.h>

#include "ledger/event_codec.h"
#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using ::testing::HasSubstr;

// A log with a past, and a way to reach below EventLog and spoil it.
class VerifyTest : public ::testing::Test {
 protected:
  enum Family { kMeta, kEvents, kIndex, kNodes };

  void SetUp() override {
    std::vector<Record> records;
    for (int i = 1; i <= 12; ++i) {
      Record record;
      record.seq = static_cast<Seq>(i);
      record.time = Time{1'700'000'000'000'000}.plus_seconds(i);
      record.node = "n" + std::to_string(i % 2);
      record.source = "10.0.0.1:4000";
      record.request_id = "r" + std::to_string(i);
      record.event = PasswordVerified{{"aa"}};
      records.push_back(std::move(record));
    }
    log_.append(records);
  }

  static std::string key_of(Seq seq) {
    std::string key;
    for (int shift = 56; shift >= 0; shift -= 8) key.push_back(static_cast<char>((seq >> shift) & 0xFF));
    return key;
  }
  static std::string index_key(char index, const std::string& value, Seq seq) {
    return std::string(1, index) + value + std::string(1, '\0') + key_of(seq);
  }

  void put(Family family, const std::string& key, const std::string& value) {
    log_.spoil(
        [&](rocksdb::DB& db, const auto& handles) { ASSERT_TRUE(db.Put({}, handles[family], key, value).ok()); });
  }
  void remove(Family family, const std::string& key) {
    log_.spoil(
        [&](rocksdb::DB& db, const auto& handles) { ASSERT_TRUE(db.Delete({}, handles[family], key).ok()); });
  }

  // Verifies, and expects exactly this sort of damage, told in a sentence with this in it.
  void expect_only(Damage damage, Seq seq, const std::string& text, std::uint64_t count = 1) {
    const Result<VerifyReport> report = verify(log_.log());
    ASSERT_TRUE(report);
    EXPECT_FALSE(report->sound());
    EXPECT_EQ(report->count(damage), count);
    for (const DamageFound& found : report->damage) EXPECT_EQ(found.damage, damage) << found.text;
    ASSERT_FALSE(report->damage.empty());
    EXPECT_EQ(report->damage[0].seq, seq);
    EXPECT_THAT(report->damage[0].text, HasSubstr(text));
  }

  test::MemoryLog log_;
};

TEST_F(VerifyTest, ASoundLogIsSound) {
  const Result<VerifyReport> report = verify(log_.log());
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->sound());
  EXPECT_EQ(report->records, 12u);
  EXPECT_EQ(report->nodes, 2u);
  EXPECT_EQ(report->index_entries, 12u * 4u);
}

TEST_F(VerifyTest, ARecordThatCannotBeRead) {
  put(kEvents, key_of(12), "?");
  const Result<VerifyReport> report = verify(log_.log());
  ASSERT_TRUE(report);
  EXPECT_EQ(report->count(Damage::kUndecodable), 1u);
  EXPECT_EQ(report->count(Damage::kIndexSurplus), 0u) << "what an unreadable record was listed for is not known";
  EXPECT_EQ(report->count(Damage::kProjectionDiffers), 1u) << "the fold lacks it";
}

TEST_F(VerifyTest, ARecordUnderAnotherSeq) {
  Record record;
  record.seq = 77;
  record.event = TokenAccepted{};
  put(kEvents, key_of(5), encode(record));
  const Result<VerifyReport> report = verify(log_.log());
  ASSERT_TRUE(report);
  EXPECT_EQ(report->count(Damage::kUndecodable), 1u);
  EXPECT_THAT(report->damage[0].text, HasSubstr("says it is seq 77"));
}

TEST_F(VerifyTest, AGap) {
  remove(kEvents, key_of(7));
  const Result<VerifyReport> report = verify(log_.log());
  ASSERT_TRUE(report);
  EXPECT_EQ(report->count(Damage::kGap), 1u);
  EXPECT_EQ(report->damage[0].seq, 7u);
  EXPECT_EQ(report->count(Damage::kIndexToNothing), 4u);
}

TEST_F(VerifyTest, TimeThatGoesBack) {
  Record record = *log_.log().read(6);
  record.time = record.time.plus_seconds(-30);
  put(kEvents, key_of(6), encode(record));
  expect_only(Damage::kTimeWentBack, 6, "earlier than the record before it");
}

TEST_F(VerifyTest, AnIndexEntryThatIsMissing) {
  remove(kIndex, index_key('n', "n1", 3));
  expect_only(Damage::kIndexMissing, 3, "not in the node index under 'n1'");
}

TEST_F(VerifyTest, AnIndexEntryTooMany) {
  put(kIndex, index_key('f', "zz", 3), "");
  expect_only(Damage::kIndexSurplus, 3, "fingerprint index under 'zz'");
}

TEST_F(VerifyTest, AnIndexEntryForNothing) {
  put(kIndex, index_key('n', "n1", 99), "");
  expect_only(Damage::kIndexToNothing, 99, "does not exist");
}

TEST_F(VerifyTest, AMissingEntryDoesNotHideOneTooMany) {
  remove(kIndex, index_key('n', "n1", 3));
  put(kIndex, index_key('n', "n0", 3), "");
  const Result<VerifyReport> report = verify(log_.log());
  ASSERT_TRUE(report);
  EXPECT_EQ(report->count(Damage::kIndexMissing), 1u);
  EXPECT_EQ(report->count(Damage::kIndexSurplus), 1u);
}

TEST_F(VerifyTest, AStoredStateThatDiffers) {
  NodeState state = **log_.log().node("n1");
  state.rejections = 5;
  put(kNodes, "n1", encode(state));
  expect_only(Damage::kProjectionDiffers, 0, "node n1 is not what its records make of it");
}

TEST_F(VerifyTest, AStoredStateThatIsMissingOrTooMany) {
  remove(kNodes, "n1");
  expect_only(Damage::kProjectionDiffers, 0, "node n1 is missing");
}

TEST_F(VerifyTest, AStoredStateOfNobody) {
  put(kNodes, "ghost", encode(NodeState{}));
  expect_only(Damage::kProjectionDiffers, 0, "no record speaks of that node");
}

RC_GTEST_PROP(VerifyProperty, WhatTheLogWritesIsSound, ()) {
  const auto records = *test::related_history();
  test::MemoryLog log;
  if (!records.empty()) log.append(records);
  const Result<VerifyReport> report = verify(log.log());
  RC_ASSERT(report.has_value());
  RC_ASSERT(report->sound());
  RC_ASSERT(report->records == records.size());
}

}  // namespace
}  // namespace ledger::replay
