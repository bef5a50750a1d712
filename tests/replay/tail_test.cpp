#include "replay/tail.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <rocksdb/db.h>

#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using ::testing::ElementsAre;

Record record_at(Seq seq, const std::string& node) {
  Record record;
  record.seq = seq;
  record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(seq));
  record.node = node;
  record.event = PasswordVerified{{node}};
  return record;
}

std::vector<Record> nodes(Seq from, Seq to) {
  std::vector<Record> records;
  for (Seq seq = from; seq <= to; ++seq) records.push_back(record_at(seq, "n" + std::to_string(seq % 3)));
  return records;
}

std::vector<Seq> seqs_of(const TailPiece& piece) {
  std::vector<Seq> seqs;
  for (const TailLine& line : piece.lines) seqs.push_back(line.seq);
  return seqs;
}

TEST(Tail, GivesWhatIsThereAndThenWhatCame) {
  test::MemoryLog log;
  log.append(nodes(1, 5));
  const auto first = read_tail(log.log(), 2, {});
  ASSERT_TRUE(first);
  EXPECT_THAT(seqs_of(*first), ElementsAre(3, 4, 5));
  EXPECT_EQ(first->seen, 5u);
  EXPECT_FALSE(first->more);
  EXPECT_EQ(first->lines[0].kind, Kind::password_verified);
  EXPECT_EQ(first->lines[0].text, audit_line(AuditFormat::jsonl, nodes(3, 3)[0], {}));
  const auto nothing = read_tail(log.log(), first->seen, {});
  ASSERT_TRUE(nothing);
  EXPECT_TRUE(nothing->lines.empty());
  EXPECT_EQ(nothing->seen, 5u);
  log.append(nodes(6, 7));
  EXPECT_THAT(seqs_of(*read_tail(log.log(), nothing->seen, {})), ElementsAre(6, 7));
  EXPECT_EQ(read_tail(log.log(), 99, {})->seen, 99u) << "behind the end there is nothing, and no way back";
}

TEST(Tail, EveryLimitEndsAPieceAndSaysSo) {
  test::MemoryLog log;
  log.append(nodes(1, 9));
  const auto by_records = read_tail(log.log(), 0, {}, {.records = 4});
  EXPECT_THAT(seqs_of(*by_records), ElementsAre(1, 2, 3, 4));
  EXPECT_TRUE(by_records->more);
  EXPECT_THAT(seqs_of(*read_tail(log.log(), 0, {}, {.bytes = 1})), ElementsAre(1));
  const auto by_end = read_tail(log.log(), 0, {}, {.until = 3});
  EXPECT_THAT(seqs_of(*by_end), ElementsAre(1, 2, 3));
  EXPECT_FALSE(by_end->more);
  // A filter that passes nothing still moves on, in bounded steps.
  ExportOptions nobody;
  nobody.nodes = {"other"};
  const auto looked = read_tail(log.log(), 0, nobody, {.looked_at = 4});
  EXPECT_TRUE(looked->lines.empty());
  EXPECT_EQ(looked->seen, 4u);
  EXPECT_TRUE(looked->more);
}

TEST(Tail, WhatCannotBeReadOrIsNotThereIsTold) {
  test::MemoryLog log;
  log.append(nodes(1, 6));
  const auto key_of = [](Seq seq) { return std::string(7, '\0') + static_cast<char>(seq); };
  log.spoil([&](rocksdb::DB& db, const auto& families) {
    ASSERT_TRUE(db.Put({}, families[1], key_of(2), "garbage").ok());
    ASSERT_TRUE(db.Delete({}, families[1], key_of(4)).ok());
    ASSERT_TRUE(db.Delete({}, families[1], key_of(5)).ok());
  });
  const auto piece = read_tail(log.log(), 0, {});
  ASSERT_TRUE(piece);
  EXPECT_THAT(seqs_of(*piece), ElementsAre(1, 3, 6));
  ASSERT_EQ(piece->holes.size(), 2u);
  EXPECT_EQ(piece->holes[0].seq, 2u);
  EXPECT_EQ(piece->holes[1].seq, 4u);
  EXPECT_THAT(piece->holes[1].reason, ::testing::HasSubstr("up to 5"));
  EXPECT_EQ(piece->seen, 6u);
  EXPECT_EQ(read_tail(log.log(), 3, {}, {.looked_at = 2})->seen, 5u) << "a gap is no end";
}

RC_GTEST_PROP(Tail, PiecesOfAnySizeMakeTheExport, ()) {
  test::MemoryLog log;
  const auto count = *rc::gen::inRange<Seq>(1, 40);
  log.append(nodes(1, count));
  ExportOptions options;
  if (*rc::gen::arbitrary<bool>()) options.nodes = {"n1"};
  const TailLimits limits{.records = *rc::gen::inRange<std::size_t>(1, 9),
                          .bytes = *rc::gen::inRange<std::size_t>(1, 2000),
                          .looked_at = *rc::gen::inRange<Seq>(1, 9)};
  std::string whole, pieces;
  RC_ASSERT(export_log(log.log(), options, [&](std::string_view line) { return whole += line, true; }).has_value());
  TailPiece piece;
  do {
    const Seq before = piece.seen;
    piece = *read_tail(log.log(), before, options, limits);
    RC_ASSERT(piece.seen > before);
    for (const TailLine& line : piece.lines) pieces += line.text;
    // Asked for again with its end noted, it is the same piece.
    TailLimits until = limits;
    until.until = piece.seen;
    RC_ASSERT(seqs_of(*read_tail(log.log(), before, options, until)) == seqs_of(piece));
  } while (piece.more);
  RC_ASSERT(pieces == whole);
}

}  // namespace
}  // namespace ledger::replay
