// What is told and what is proven of a log whose old records are in archives: the same as before; and where an
// archive is not here, that.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <sstream>

#include "ledger/archivist.h"
#include "ledger/checkpoint_keeper.h"
#include "replay/explain.h"
#include "replay/export.h"
#include "replay/lookup.h"
#include "replay/record_source.h"
#include "replay/render.h"
#include "replay/tail.h"
#include "replay/triage.h"
#include "replay/verify.h"
#include "tests/support/ledger_fixture.h"
#include "tests/support/run_command.h"

namespace ledger::replay {
namespace {

namespace fs = std::filesystem;
using test::file_bytes;
using test::put_file;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

const OperatorAction kOps{.actor = "ops", .reason = "because", .request_id = {}, .source = {}};

class ArchivedLog : public test::LedgerTest {
 protected:
  // web-1 lives and is rebuilt; then comes the life of others. All of it is covered by a checkpoint.
  void SetUp() override {
    verify_at_end_ = false;
    start();
    append_ok(ServerStarted{.version = "1", .client_ca = "c", .server_ca = "s", .ledger = "l", .clean = true});
    comes("web-1", "aaaa");
    for (int i = 0; i < 10; ++i) {
      clock_.advance(3600);
      comes("web-1", "aaaa");
      comes("web-2", "cccc");
    }
    clock_.advance(86400);
    for (int i = 0; i < 5; ++i) {
      clock_.advance(200);
      comes("web-1", "bbbb");
    }
    for (int i = 0; i < 10; ++i) comes("web-3", "dddd");
    ASSERT_TRUE(keeper_->sign(true));
    head_ = ledger_->log().head();
  }
  // Each from an address of its own.
  void comes(const std::string& node, const std::string& password) {
    EXPECT_TRUE(test::register_node(*ledger_, node, password, "10.0.0." + node.substr(4) + ":41000").outcome);
  }
  void start() {
    open();
    keeper_ = *CheckpointKeeper::open({.data_dir = dir_.path()}, *ledger_);
    archivist_ =
        std::make_unique<Archivist>(Archivist::Options{.data_dir = dir_.path(), .max_records = 10}, *ledger_);
  }
  void restart() {
    archivist_.reset(), keeper_.reset(), ledger_.reset();
    start();
  }
  void TearDown() override { archivist_.reset(), keeper_.reset(), ledger_.reset(); }
  void seal(Seq to = UINT64_MAX) {
    for (;;) {
      const auto sealed = archivist_->seal_next({.to = to});
      ASSERT_TRUE(sealed) << sealed.error().message;
      if (!*sealed) return;
    }
  }
  const EventLog& log() const { return ledger_->log(); }
  fs::path archive(Seq from, Seq to) const { return dir_ / "archives" / archive_name(from, to); }
  // Without the timeline, whose records go with the history.
  Explanation explain_at(const std::string& node, Seq seq) const {
    const Result<History> history = history_from_log(log(), node, Cut{.seq = seq, .time = {}});
    EXPECT_TRUE(history) << history.error().message;
    Explanation explanation = explain(*history);
    explanation.timeline = {};
    explanation.refusal = nullptr;
    return explanation;
  }
  std::string told(const std::string& node, Seq seq) const {
    const Result<History> history = history_from_log(log(), node, Cut{.seq = seq, .time = {}});
    return boost::json::serialize(to_json(explain(*history)));
  }
  VerifyReport verified() const {
    const auto report = verify(log(), {}, checkpoints_of(dir_.path()));
    EXPECT_TRUE(report) << report.error().message;
    return report ? *report : VerifyReport{};
  }
  std::string exported() const {
    std::string lines;
    const auto report =
        export_log(log(), {.range = {.from = {}, .to = {.seq = head_, .time = {}}}}, [&](std::string_view line) {
          lines += line;
          return true;
        });
    EXPECT_TRUE(report);
    return lines;
  }

  Seq head_ = 0;
  std::unique_ptr<CheckpointKeeper> keeper_;
  std::unique_ptr<Archivist> archivist_;
};

TEST_F(ArchivedLog, IsToldAndProvenAsBefore) {
  std::map<std::pair<std::string, Seq>, std::string> before;
  for (const char* node : {"web-1", "web-2", "web-3"})
    for (Seq seq = 1; seq <= head_; ++seq) before[{node, seq}] = told(node, seq);
  const std::string all = exported();
  const Time middle = log().read(15)->time;
  const Seq until = *last_seq_until(log(), middle);
  seal();
  ASSERT_FALSE(log().archived().empty());
  for (const auto& [asked, answer] : before) EXPECT_EQ(told(asked.first, asked.second), answer) << asked.first;
  EXPECT_EQ(exported(), all);
  EXPECT_EQ(*last_seq_until(log(), middle), until);
  const VerifyReport report = verified();
  EXPECT_TRUE(report.sound()) << report.damage.front().text;
  EXPECT_TRUE(report.complete());
  EXPECT_EQ(report.archives, log().archived().size());
  EXPECT_EQ(report.records, log().head());
  EXPECT_GT(report.checkpoints, 0u);
}

TEST_F(ArchivedLog, WithoutItsArchivesItSaysWhatItDoesNotKnow) {
  const Explanation known = explain_at("web-1", head_);
  EXPECT_EQ(known.cause, Cause::kRebuilt);
  seal(20);  // the first life of web-1
  fs::rename(dir_ / "archives", dir_ / "cold");
  restart();
  const Explanation judged = explain_at("web-1", head_);
  EXPECT_NE(judged.confidence, Confidence::kHigh);
  EXPECT_THAT(judged.warnings, Contains(HasSubstr("records 1 to 10 are in the archive")));
  EXPECT_THAT(judged.warnings, Contains(HasSubstr("records 11 to 20 are in the archive")));
  EXPECT_THAT(judged.warnings, Contains(HasSubstr("this account lacks what they say of this node")));
  // Of web-3 nothing is there: its account is what it was.
  EXPECT_THAT(explain_at("web-3", head_).warnings, IsEmpty());
  // At a time whose records are away, the evidence that is here does not decide.
  const Explanation then = explain_at("web-1", 18);
  EXPECT_EQ(then.cause, Cause::kUnknown);
  EXPECT_EQ(then.confidence, Confidence::kLow);
  EXPECT_THAT(then.warnings, Each(HasSubstr("which is not in")));
  EXPECT_THAT(then.summary, HasSubstr("the latest records of web-1 are in an archive that is not here"));
  const auto by_time =
      history_from_log(log(), "web-1", Cut{.seq = {}, .time = clock_.now().plus_seconds(-2 * 86400)});
  ASSERT_TRUE(by_time) << by_time.error().message;

  // Who asks the server for the history is told the same.
  std::stringstream lines;
  ASSERT_TRUE(export_node_history(log(), "web-1", [&](std::string_view line) {
    lines << line;
    return true;
  }));
  const auto sent = history_from_stream(lines, "web-1");
  ASSERT_TRUE(sent) << sent.error().message;
  const Explanation received = explain(*sent);
  EXPECT_EQ(received.cause, judged.cause);
  EXPECT_EQ(received.confidence, judged.confidence);
  EXPECT_THAT(received.warnings, ::testing::IsSupersetOf(judged.warnings));

  const VerifyReport report = verified();
  EXPECT_TRUE(report.sound()) << report.damage.front().text;
  EXPECT_FALSE(report.complete());
  ASSERT_THAT(report.unchecked, SizeIs(2));
  EXPECT_EQ(report.unchecked_nodes, 2u) << "web-1 and web-2; what is here of web-3 is all there is";
  RecordSource source(log());
  std::uint64_t seen = 0;
  ASSERT_TRUE(source.each(0, head_, [&](const Record&) { ++seen; }));
  EXPECT_EQ(source.unreadable() + seen, head_);
  EXPECT_EQ(look_up(log(), {.seq = 5, .request_id = {}}).error().code, Errc::archived);
  EXPECT_TRUE(triage(log(), {}));

  fs::rename(dir_ / "cold", dir_ / "archives");
  EXPECT_EQ(explain_at("web-1", head_).confidence, known.confidence) << "put back, it is read again";
  EXPECT_TRUE(verified().complete());
}

TEST_F(ArchivedLog, AnotherDirectoryCanBeNamed) {
  seal();
  fs::rename(dir_ / "archives", dir_ / "cold");
  EventLog::Options options = options_.log;
  EXPECT_FALSE(verify(**EventLog::follow(options))->complete());
  options.archives = dir_ / "cold";
  EXPECT_TRUE(verify(**EventLog::follow(options))->complete());
}

TEST_F(ArchivedLog, VerifyFindsADamagedArchiveAndSaysWhere) {
  seal();
  const fs::path file = archive(11, 20);
  const std::string good = file_bytes(file);
  const auto damage_with = [&](const std::string& bytes) {
    put_file(file, bytes);
    restart();
    VerifyReport report = verified();
    EXPECT_FALSE(report.sound());
    EXPECT_GT(report.count(Damage::kArchiveDamaged), 0u);
    std::string all;
    for (const DamageFound& found : report.damage) all += found.text + "\n";
    return all;
  };
  std::string flipped = good;
  flipped[good.size() - 5] = static_cast<char>(flipped[good.size() - 5] ^ 1);
  EXPECT_THAT(damage_with(flipped),
              HasSubstr(file.string() + " is damaged: records 11 to 20 are not what was sealed"));
  flipped = good;
  flipped[40] = static_cast<char>(flipped[40] ^ 1);
  EXPECT_THAT(damage_with(flipped), HasSubstr("its header is not what its digest says"));
  EXPECT_THAT(damage_with(good.substr(0, good.size() / 2)), HasSubstr("is damaged"));
  EXPECT_THAT(damage_with(""), HasSubstr("is damaged"));
  EXPECT_THAT(damage_with(file_bytes(archive(1, 10))),
              HasSubstr("is not the one that records 11 to 20 were sealed into"));
  // It harms nobody else: the others are read, and web-1 is explained with what is there.
  EXPECT_FALSE(explain_at("web-1", head_).warnings.empty());
  put_file(file, good);
  restart();
  EXPECT_TRUE(verified().sound());
}

TEST_F(ArchivedLog, WhatWasRemovedIsSaidAndTheRestStillProves) {
  const TreeHead tree = *log().tree();
  seal();
  ASSERT_TRUE(archivist_->remove(1, kOps));
  ASSERT_TRUE(archivist_->remove(11, kOps));
  const VerifyReport report = verified();
  EXPECT_TRUE(report.sound()) << report.damage.front().text;
  EXPECT_TRUE(report.complete()) << "it was removed on purpose";
  EXPECT_THAT(report.unchecked, SizeIs(2));
  EXPECT_THAT(explain_at("web-1", head_).warnings,
              Contains(HasSubstr("records 1 to 20 were removed with their archive (archive_removed)")));
  const auto bytes = log().read_bytes(25);
  ASSERT_TRUE(bytes);
  const auto proof = inclusion_proof(24, tree.size, log().tree_nodes());
  ASSERT_TRUE(proof);
  EXPECT_TRUE(shows_inclusion(*proof, 24, leaf_hash(*bytes), tree));
  // Nothing of it is left in the index.
  for (const char* node : {"web-1", "web-2"}) EXPECT_THAT(*log().find(Index::node, node, 1, 20), IsEmpty());
  EXPECT_TRUE(log().read(1)) << "the server's start stays";
  EXPECT_EQ(registers("web-1", "aaaa"), Ruling::admit_known) << "the projection does not depend on it";
  // A removed archive whose hole in the index is filled again by hand is not believed.
  EXPECT_EQ(log().read(5).error().code, Errc::archived);
}

// Who follows the log gets what archives hold, stops before one that may come back, and hears of one that will not.
TEST_F(ArchivedLog, ItsTailPassesOverNothingThatMayComeBack) {
  const std::string all = exported();
  seal();
  // Opened each time: who has an archive open goes on reading it, wherever the file is moved.
  const auto tail = [&](Seq after) {
    const auto follower = EventLog::follow(options_.log);
    if (!follower) fatal(follower.error().message);
    std::string lines;
    const auto piece = read_tail(**follower, after, {}, {.until = head_});
    EXPECT_TRUE(piece) << piece.error().message;
    for (const TailLine& line : piece->lines) lines += line.text;
    return std::pair(*piece, lines);
  };
  EXPECT_EQ(tail(0).second, all);
  const fs::path away = dir_ / "away";
  fs::rename(archive(11, 20), away);
  const TailPiece stopped = tail(0).first;
  EXPECT_THAT(stopped.absent, HasSubstr("which is not in"));
  EXPECT_THAT(stopped.holes, IsEmpty());
  EXPECT_GE(stopped.seen, 10u);
  EXPECT_EQ(stopped.lines.size(), stopped.seen);
  const TailPiece still = tail(stopped.seen).first;
  EXPECT_EQ(still.seen, stopped.seen);
  EXPECT_FALSE(still.absent.empty());
  fs::rename(away, archive(11, 20));
  EXPECT_EQ(tail(0).second, all) << "as if nothing had been";
  ASSERT_TRUE(archivist_->remove(1, kOps));
  ASSERT_TRUE(archivist_->remove(11, kOps));
  const TailPiece rest = tail(0).first;
  EXPECT_EQ(rest.absent, "");
  EXPECT_EQ(rest.seen, head_);
  ASSERT_FALSE(rest.holes.empty());
  EXPECT_THAT(rest.holes.back().reason, HasSubstr("removed"));
  EXPECT_EQ(rest.holes.back().to, 20u);
  const auto kept = std::count_if(rest.lines.begin(), rest.lines.end(), [](const TailLine& line) { return line.seq <= 20; });
  EXPECT_LE(rest.holes.size(), static_cast<std::size_t>(kept) + 2) << "one for each run, not for each record";
}

TEST_F(ArchivedLog, TheHoldIsPartOfTheNodesHistory) {
  ASSERT_TRUE(archivist_->hold({.node = "Web-1"}, kOps));
  const Result<History> history = history_from_log(log(), "web-1");
  ASSERT_TRUE(history) << history.error().message;
  const Explanation told_of = explain(*history);
  const auto& steps = told_of.timeline.steps;
  ASSERT_FALSE(steps.empty());
  EXPECT_EQ(steps.back().record->kind(), Kind::legal_hold_placed);
  EXPECT_EQ(told_of.cause, Cause::kRebuilt) << "and changes nothing else";
}

}  // namespace
}  // namespace ledger::replay
