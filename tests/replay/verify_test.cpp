#include "replay/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <rocksdb/db.h>

#include "ledger/credentials.h"
#include "ledger/event_codec.h"
#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using test::stored_key;
using test::StoredFamily;
using enum test::StoredFamily;
using ::testing::HasSubstr;

// A log with a past, and a way to reach below EventLog and spoil it.
class VerifyTest : public ::testing::Test {
 protected:
  using Family = StoredFamily;

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

  static std::string index_key(char index, const std::string& value, Seq seq) {
    return std::string(1, index) + value + std::string(1, '\0') + stored_key(seq);
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
  put(kEvents, stored_key(12), "?");
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
  put(kEvents, stored_key(5), encode(record));
  const Result<VerifyReport> report = verify(log_.log());
  ASSERT_TRUE(report);
  EXPECT_EQ(report->count(Damage::kUndecodable), 1u);
  EXPECT_THAT(report->damage[0].text, HasSubstr("says it is seq 77"));
}

TEST_F(VerifyTest, AGap) {
  remove(kEvents, stored_key(7));
  const Result<VerifyReport> report = verify(log_.log());
  ASSERT_TRUE(report);
  EXPECT_EQ(report->count(Damage::kGap), 1u);
  EXPECT_EQ(report->damage[0].seq, 7u);
  EXPECT_EQ(report->count(Damage::kIndexToNothing), 4u);
}

TEST_F(VerifyTest, TimeThatGoesBack) {
  Record record = *log_.log().read(6);
  record.time = record.time.plus_seconds(-30);
  put(kEvents, stored_key(6), encode(record));
  const Result<VerifyReport> report = verify(log_.log());
  ASSERT_TRUE(report);
  EXPECT_EQ(report->count(Damage::kTimeWentBack), 1u);
  EXPECT_EQ(report->damage[0].seq, 6u);
  EXPECT_THAT(report->damage[0].text, HasSubstr("earlier than the record before it"));
  EXPECT_EQ(report->count(Damage::kRecordChanged), 1u);
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

// ---- somebody changed the log ----------------------------------------------------------------------------

// A log of 40 records, checkpoints of the first 10, 25 and 40, and an attacker.
class TamperTest : public ::testing::Test {
 protected:
  static constexpr Seq kRecords = 40;

  static Record record(Seq seq) {
    Record made;
    made.seq = seq;
    made.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(seq) * 7);
    made.node = "n" + std::to_string(seq % 3);
    made.source = "10.0.0." + std::to_string(seq) + ":4000";
    made.request_id = "r" + std::to_string(seq);
    made.event = PasswordVerified{{"aa"}};
    return made;
  }
  static std::vector<Record> history(Seq count) {
    std::vector<Record> records;
    for (Seq seq = 1; seq <= count; ++seq) records.push_back(record(seq));
    return records;
  }

  void SetUp() override {
    log_.append(history(kRecords));
    signer_.emplace(std::move(*NoteSigner::make(origin_of(log_.log().id()))));
    for (const std::uint64_t size : {10, 25, 40}) options_.checkpoints.push_back(checkpoint(log_.log(), size));
  }
  KnownCheckpoint checkpoint(const EventLog& log, std::uint64_t size) {
    Checkpoint made{signer_->verifier().name(), {size, *root_at(size, log.tree_nodes())}, {}};
    made.note.text = checkpoint_text(made.origin, made.head);
    made.note.signatures.push_back(signer_->sign(made.note.text));
    return {"checkpoint-" + std::to_string(size), made};
  }

  using Change = std::function<void(rocksdb::DB&, const std::vector<rocksdb::ColumnFamilyHandle*>&)>;
  void below(const Change& how) { log_.spoil(how, false); }
  void put(Seq seq, const std::string& bytes) {
    below([&](rocksdb::DB& db, const auto& handles) { ASSERT_TRUE(db.Put({}, handles[kEvents], stored_key(seq), bytes).ok()); });
  }
  void put(const std::vector<Record>& records) {
    below([&](rocksdb::DB& db, const auto& handles) {
      for (const Record& one : records) ASSERT_TRUE(db.Put({}, handles[kEvents], stored_key(one.seq), encode(one)).ok());
    });
  }

  // Rewrites everything that is not signed: records, indexes, projection, tree; the log keeps its id.
  void rewrite(const std::vector<Record>& records) {
    const std::string id = log_.log().id();
    other_.append(records);
    other_.spoil([&](rocksdb::DB& db, const auto& handles) { ASSERT_TRUE(db.Put({}, handles[kMeta], "id", id).ok()); },
                 false);
    rewritten_ = true;
  }

  VerifyReport report() {
    test::MemoryLog& log = rewritten_ ? other_ : log_;
    const auto follower = EventLog::follow({.dir = "/ledger", .env = log.env()});
    if (!follower) fatal(follower.error().message);
    Result<VerifyReport> made = verify(**follower, {}, options_);
    if (!made) fatal(made.error().message);
    EXPECT_FALSE(made->sound());
    return std::move(*made);
  }
  // The first damage of this sort; "" when there is none.
  static std::string text_of(const VerifyReport& report, Damage sort, Seq seq) {
    for (const DamageFound& found : report.damage)
      if (found.damage == sort && found.seq == seq) return found.text;
    return "";
  }

  test::MemoryLog log_, other_;
  bool rewritten_ = false;
  std::optional<NoteSigner> signer_;
  VerifyOptions options_;
};

TEST_F(TamperTest, NobodyDid) {
  for (const unsigned threads : {1u, 2u, 5u}) {
    options_.threads = threads;
    const Result<VerifyReport> report = verify(log_.log(), {}, options_);
    ASSERT_TRUE(report);
    EXPECT_TRUE(report->sound()) << (report->damage.empty() ? "" : report->damage[0].text);
    EXPECT_EQ(report->checkpoints, 3u);
    EXPECT_EQ(report->covered, 40u);
    EXPECT_EQ(report->tree, *log_.log().tree());
  }
}

TEST_F(TamperTest, AFlippedBitIsNamed) {
  std::string bytes = encode(record(17));
  bytes[9] = static_cast<char>(bytes[9] ^ 8);
  put(17, bytes);
  const VerifyReport found = report();
  EXPECT_EQ(text_of(found, Damage::kBitFlipped, 17), "one bit of record 17 is flipped: bit 3 of byte 9");
  EXPECT_EQ(found.count(Damage::kRecordChanged) + found.count(Damage::kTreeDiffers) + found.count(Damage::kCheckpointDiffers), 0u)
      << "the tree and the checkpoints know what was there";
}

TEST_F(TamperTest, ARewrittenRecordIsNamed) {
  Record other = record(17);
  other.source = "10.9.9.9:1";
  put({other});
  const VerifyReport found = report();
  EXPECT_THAT(text_of(found, Damage::kRecordChanged, 17), HasSubstr("record 17 was rewritten"));
  EXPECT_EQ(found.count(Damage::kRecordChanged), 1u);
}

TEST_F(TamperTest, ARemovedRecordIsNamed) {
  below([&](rocksdb::DB& db, const auto& handles) { ASSERT_TRUE(db.Delete({}, handles[kEvents], stored_key(17)).ok()); });
  const VerifyReport found = report();
  EXPECT_EQ(text_of(found, Damage::kGap, 17), "records 17 to 17 are missing");
  EXPECT_EQ(found.count(Damage::kRecordChanged) + found.count(Damage::kTreeDiffers), 0u);
}

TEST_F(TamperTest, ARecordTakenOutAndTheRestNumberedAnew) {
  std::vector<Record> moved;
  for (Seq seq = 17; seq < kRecords; ++seq) {
    moved.push_back(record(seq + 1));
    moved.back().seq = seq;
  }
  put(moved);
  below([&](rocksdb::DB& db, const auto& handles) {
    ASSERT_TRUE(db.Delete({}, handles[kEvents], stored_key(kRecords)).ok());
  });
  const VerifyReport found = report();
  EXPECT_THAT(text_of(found, Damage::kRecordRemoved, 17), HasSubstr("record 17 was removed"));
  EXPECT_EQ(found.count(Damage::kRecordRemoved), 1u);
  EXPECT_EQ(found.count(Damage::kRecordChanged) + found.count(Damage::kRecordMoved) + found.count(Damage::kTailCut), 1u)
      << "a checkpoint of 40 finds 39, nothing else";
}

TEST_F(TamperTest, ARecordPutInAndTheRestNumberedAnew) {
  std::vector<Record> moved = {record(99)};
  moved.back().seq = 17;
  for (Seq seq = 18; seq <= kRecords + 1; ++seq) {
    moved.push_back(record(seq - 1));
    moved.back().seq = seq;
  }
  put(moved);
  const VerifyReport found = report();
  EXPECT_THAT(text_of(found, Damage::kRecordInserted, 17), HasSubstr("record 17 was inserted"));
  EXPECT_EQ(found.count(Damage::kRecordInserted), 1u);
  EXPECT_EQ(found.count(Damage::kRecordChanged) + found.count(Damage::kRecordMoved) + found.count(Damage::kTreeDiffers), 0u);
}

TEST_F(TamperTest, RecordsInAnotherOrder) {
  std::vector<Record> moved = {record(30), record(12)};
  moved[0].seq = 12;
  moved[1].seq = 30;
  put(moved);
  VerifyReport found = report();
  EXPECT_THAT(text_of(found, Damage::kRecordMoved, 12), HasSubstr("record 12 is the tree's record 30"));
  EXPECT_THAT(text_of(found, Damage::kRecordMoved, 30), HasSubstr("record 30 is the tree's record 12"));
  EXPECT_EQ(found.count(Damage::kRecordChanged), 0u);
}

TEST_F(TamperTest, NeighboursInAnotherOrder) {
  std::vector<Record> moved = {record(13), record(12)};
  moved[0].seq = 12;
  moved[1].seq = 13;
  put(moved);
  const VerifyReport found = report();
  EXPECT_EQ(found.count(Damage::kRecordMoved), 2u);
  EXPECT_EQ(found.count(Damage::kRecordRemoved) + found.count(Damage::kRecordInserted) + found.count(Damage::kRecordChanged), 0u);
}

TEST_F(TamperTest, StoredBytesInAnotherOrder) {
  below([&](rocksdb::DB& db, const auto& handles) {
    ASSERT_TRUE(db.Put({}, handles[kEvents], stored_key(12), encode(record(30))).ok());
    ASSERT_TRUE(db.Put({}, handles[kEvents], stored_key(30), encode(record(12))).ok());
  });
  const VerifyReport found = report();
  EXPECT_EQ(found.count(Damage::kRecordMoved), 2u);
  EXPECT_EQ(found.count(Damage::kUndecodable), 2u) << "each says another number";
}

TEST_F(TamperTest, ATailThatWasCutOffLeavesTraces) {
  below([&](rocksdb::DB& db, const auto& handles) {
    for (Seq seq = 36; seq <= kRecords; ++seq) ASSERT_TRUE(db.Delete({}, handles[kEvents], stored_key(seq)).ok());
  });
  const VerifyReport found = report();
  EXPECT_THAT(text_of(found, Damage::kTailCut, 36), HasSubstr("the tree has 40 entries, the last record is 35"));
  EXPECT_EQ(found.count(Damage::kTailCut), 2u) << "the tree says so, and the checkpoint of 40";
  EXPECT_EQ(found.count(Damage::kRolledBack), 0u);
}

TEST_F(TamperTest, AnOlderCopyHoldsTogetherAndACheckpointSawMore) {
  rewrite(history(30));
  const VerifyReport found = report();
  EXPECT_THAT(text_of(found, Damage::kRolledBack, 31), HasSubstr("checkpoint-40 saw 40 records, and there are 30: an older copy"));
  EXPECT_EQ(found.count(Damage::kRolledBack), 1u);
  EXPECT_EQ(found.checkpoints, 2u);
  for (const DamageFound& one : found.damage) EXPECT_EQ(one.damage, Damage::kRolledBack) << one.text;
}

// Who rewrites everything but what was signed is found between two checkpoints.
TEST_F(TamperTest, ARewrittenLogIsLocatedBetweenCheckpoints) {
  std::vector<Record> records = history(kRecords);
  records[16].source = "10.9.9.9:1";
  rewrite(records);
  const VerifyReport found = report();
  EXPECT_THAT(text_of(found, Damage::kCheckpointDiffers, 11),
              HasSubstr("checkpoint-25 saw another log: records 11 to 25 are not what was signed, those before are"));
  EXPECT_EQ(found.count(Damage::kCheckpointDiffers), 2u);
  for (const DamageFound& one : found.damage) EXPECT_EQ(one.damage, Damage::kCheckpointDiffers) << one.text;
}

TEST_F(TamperTest, AnotherLogIsNamed) {
  other_.append(history(kRecords));
  rewritten_ = true;
  const VerifyReport found = report();
  EXPECT_EQ(found.count(Damage::kOtherLog), 3u);
  EXPECT_THAT(found.damage[0].text, HasSubstr("the log was replaced, or this is another one"));
}

TEST_F(TamperTest, ATreeThatContradictsItselfIsFound) {
  std::string hashes;
  below([&](rocksdb::DB& db, const auto& handles) {
    ASSERT_TRUE(db.Get({}, handles[kTree], stored_key(16), &hashes).ok());
    ASSERT_EQ(hashes.size(), 5 * sizeof(TreeHash));
    hashes[4 * sizeof(TreeHash)] = static_cast<char>(hashes[4 * sizeof(TreeHash)] ^ 1);
    ASSERT_TRUE(db.Put({}, handles[kTree], stored_key(16), hashes).ok());
  });
  const VerifyReport found = report();
  EXPECT_THAT(text_of(found, Damage::kTreeDiffers, 16), HasSubstr("the tree at entry 16 contradicts itself"));
  EXPECT_EQ(found.count(Damage::kRecordChanged), 0u);
}

TEST_F(TamperTest, AFalseCheckpointRecordIsFound) {
  std::vector<Record> records = history(kRecords);
  records[30].event = CheckpointSigned{.size = 20, .root = std::string(64, 'a'), .key = "1f2e3d4c"};
  records[31].event = CheckpointSigned{.size = 20, .root = to_hex(view_of(*root_at(20, log_.log().tree_nodes()))), .key = "1f2e3d4c"};
  rewrite(records);
  options_.checkpoints.clear();
  const VerifyReport found = report();
  EXPECT_EQ(found.count(Damage::kCheckpointDiffers), 1u);
  EXPECT_THAT(found.damage[0].text, HasSubstr("record 31 (checkpoint_signed) saw another log"));
  EXPECT_EQ(found.checkpoints, 1u);
}

// Chunks are 1024 records: what is above and between them is checked too.
TEST(VerifyTree, LogsOfManyChunks) {
  test::MemoryLog log;
  std::vector<Record> records;
  for (Seq seq = 1; seq <= 5000; ++seq) {
    Record record;
    record.seq = seq;
    record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(seq));
    record.node = "n" + std::to_string(seq % 50);
    record.request_id = "r" + std::to_string(seq);
    record.event = PasswordVerified{{"aa"}};
    records.push_back(std::move(record));
  }
  log.append(records);
  for (const unsigned threads : {1u, 3u}) {
    VerifyOptions options;
    options.threads = threads;
    std::uint64_t done = 0;
    const Result<VerifyReport> report = verify(log.log(), [&](std::uint64_t now, std::uint64_t) { done = now; }, options);
    ASSERT_TRUE(report);
    EXPECT_TRUE(report->sound()) << (report->damage.empty() ? "" : report->damage[0].text);
    EXPECT_EQ(report->records, 5000u);
    EXPECT_GT(done, 4000u);
  }
  // Node 11/0 is the first above two chunks.
  log.spoil([](rocksdb::DB& db, const auto& handles) {
    const std::string key("\0\0\0\0\0\0\x8\0", 8);
    std::string hashes;
    ASSERT_TRUE(db.Get({}, handles[4], key, &hashes).ok());
    ASSERT_EQ(hashes.size(), 12 * sizeof(TreeHash));
    hashes.back() = static_cast<char>(hashes.back() ^ 1);
    ASSERT_TRUE(db.Put({}, handles[4], key, hashes).ok());
  });
  const Result<VerifyReport> report = verify(log.log());
  ASSERT_TRUE(report);
  EXPECT_EQ(report->count(Damage::kTreeDiffers), 1u);
  EXPECT_THAT(report->damage[0].text, HasSubstr("the tree at entry 2048 contradicts itself"));
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
