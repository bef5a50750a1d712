// Records that were archived are read as before; whatever stops the sealing, nothing is lost; holds hold.
// LEDGER_ARCHIVE_ROUNDS: how many random lives of a log are tried (default 12).
#include "ledger/archivist.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <random>
#include <thread>

#include "ledger/checkpoint_keeper.h"
#include "ledger/credentials.h"
#include "ledger/event_codec.h"
#include "tests/support/ledger_fixture.h"
#include "tests/support/run_command.h"

namespace ledger {
namespace {

namespace fs = std::filesystem;
using test::broken_promises;
using test::file_bytes;
using test::put_file;
using test::record_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

const OperatorAction kOps{.actor = "ops", .reason = "because", .request_id = {}, .source = {}};

class ArchivistTest : public test::LedgerTest {
 protected:
  void start() {
    open();
    ASSERT_NE(ledger_, nullptr);
    keeper_ = *CheckpointKeeper::open({.data_dir = dir_.path()}, *ledger_);
    Archivist::Options options;
    options.data_dir = dir_.path();
    options.max_records = max_records_;
    options.may = [this](std::string_view step) {
      steps_.emplace_back(step);
      return steps_left_ < 0 || steps_left_-- > 0;
    };
    options.log = [this](bool is_problem, const std::string& line) {
      if (is_problem) problems_.push_back(line);
    };
    archivist_ = std::make_unique<Archivist>(std::move(options), *ledger_);
  }
  void stop() {
    archivist_.reset();
    keeper_.reset();
    close();
  }
  void restart() {
    stop();
    start();
  }
  // The same when the log cannot keep its promises, because a file is not there.
  void restart_without_looking() {
    archivist_.reset(), keeper_.reset();
    ASSERT_TRUE(ledger_->close().has_value());
    ledger_.reset();
    start();
  }
  void TearDown() override {
    archivist_.reset();
    keeper_.reset();
    LedgerTest::TearDown();
  }
  void sign() { ASSERT_TRUE(keeper_->sign(true).has_value()); }

  // Twenty records of four nodes and a token.
  void live(int rounds = 1) {
    for (int round = 0; round < rounds; ++round) {
      append_ok(TokenCreated{.token = "t" + std::to_string(ledger_->log().head()), .token_class = "bootstrap", .expires = {}, .actor = "ops"});
      for (int i = 0; i < 19; ++i) {
        registers("n" + std::to_string(i % 4), i % 7 == 6 ? "wrong" : "p" + std::to_string(i % 4));
        clock_.advance(4);  // more would be recorded as a step of the clock
      }
    }
  }
  // Seals up to `to`, in as many archives as it takes.
  std::vector<Archivist::Sealed> seal(Seq to = UINT64_MAX) {
    std::vector<Archivist::Sealed> all;
    for (;;) {
      const auto sealed = archivist_->seal_next({.to = to});
      if (!sealed) ADD_FAILURE() << sealed.error().message;
      if (!sealed || !*sealed) return all;
      all.push_back(**sealed);
    }
  }
  const EventLog& log() const { return ledger_->log(); }
  fs::path archives() const { return dir_ / "archives"; }
  std::vector<std::string> archive_files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(archives())) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  bool stored(Seq seq) const { return *log().is_stored(seq); }

  // Everything that a log can be asked about the records up to `head`, as text.
  std::map<Seq, std::string> bytes_up_to(Seq head) const {
    std::map<Seq, std::string> all;
    for (Seq seq = 1; seq <= head; ++seq)
      if (const auto bytes = log().read_bytes(seq)) all.emplace(seq, *bytes);
    return all;
  }

  std::uint64_t max_records_ = 8;
  int steps_left_ = -1;
  std::vector<std::string> steps_, problems_;
  std::unique_ptr<CheckpointKeeper> keeper_;
  std::unique_ptr<Archivist> archivist_;
};

TEST_F(ArchivistTest, ArchivedRecordsAreReadAsBefore) {
  start();
  live(2);
  sign();
  const auto before = bytes_up_to(log().head());
  const auto by_node = *log().find(Index::node, "n1");
  const TreeHead tree = *log().tree();
  const auto sealed = seal();
  ASSERT_THAT(sealed, SizeIs(5));
  EXPECT_EQ(sealed[0].from, 1u);
  EXPECT_EQ(sealed[0].to, 8u);
  EXPECT_THAT(archive_files(), ElementsAre("000000000001-000000000008.archive", "000000000009-000000000016.archive",
                                           "000000000017-000000000024.archive", "000000000025-000000000032.archive",
                                           "000000000033-000000000040.archive"));
  EXPECT_EQ(test::mode_of(archives() / sealed[0].file), 0600u);
  EXPECT_TRUE(stored(1)) << "a token's record stays in the store";
  EXPECT_FALSE(stored(2));
  EXPECT_FALSE(stored(40));

  EXPECT_EQ(bytes_up_to(before.rbegin()->first), before);
  EXPECT_EQ(*log().find(Index::node, "n1"), by_node);
  std::vector<Seq> seen;
  ASSERT_TRUE(log().scan(Index::node, "n1", 1, UINT64_MAX, [&](Seq seq, const Result<Record>& record) {
    EXPECT_TRUE(record && record->node == "n1" && record->seq == seq);
    seen.push_back(seq);
    return true;
  }));
  EXPECT_EQ(seen, by_node);
  EXPECT_EQ(*root_at(tree.size, log().tree_nodes()), tree.root);
  const auto proof = inclusion_proof(4, tree.size, log().tree_nodes());
  ASSERT_TRUE(proof);
  EXPECT_TRUE(shows_inclusion(*proof, 4, leaf_hash(before.at(5)), tree));
  EXPECT_THAT(broken_promises(log()), IsEmpty());

  // Of a running owner, by somebody else.
  auto follower = EventLog::follow(options_.log);
  ASSERT_TRUE(follower) << follower.error().message;
  EXPECT_THAT(broken_promises(**follower), IsEmpty());
  live();
  sign();
  EXPECT_THAT(seal(), SizeIs(4)) << "five records about archives, one about a checkpoint, and twenty";
  ASSERT_TRUE((*follower)->catch_up());
  EXPECT_THAT(broken_promises(**follower), IsEmpty());
}

TEST_F(ArchivistTest, AnArchiveProvesItselfWithThePublicKeyAlone) {
  start();
  live();
  sign();
  const auto sealed = seal();
  const auto key = *read_checkpoint_key(checkpoint_public_file(dir_.path()));
  std::optional<TreeHead> before;
  for (const auto& one : sealed) {
    EXPECT_EQ(sha256_hex(file_bytes(archives() / one.file)), one.sha256);
    const auto file = ArchiveFile::open(archives() / one.file);
    ASSERT_TRUE(file) << file.error().message;
    const ArchiveReport report = check_archive(**file, &key);
    EXPECT_THAT(report.damage, IsEmpty());
    EXPECT_EQ(report.key_id, key.key_id());
    EXPECT_EQ(report.records, one.to - one.from + 1);
    if (before) {
      EXPECT_EQ(report.before, *before) << "adjacent archives chain";
    }
    before = report.after;
    EXPECT_EQ(*root_at(one.to, log().tree_nodes()), report.after.root);
  }
  const NoteSigner other = *NoteSigner::make(origin_of(log().id()));
  EXPECT_FALSE(check_archive(**ArchiveFile::open(archives() / sealed[0].file), &other.verifier()).sound());
}

// Every step of sealing, dropping and removing, stopped before it: afterwards all is as if it had not been.
TEST_F(ArchivistTest, ACallThatIsStoppedAnywhereIsFinishedByTheNext) {
  start();
  live();
  sign();
  int at = 0;
  for (;; ++at) {
    const auto before = bytes_up_to(log().head());
    steps_left_ = at;
    const auto sealed = archivist_->seal_next({});
    steps_left_ = -1;
    if (sealed) break;
    restart();
    EXPECT_EQ(bytes_up_to(before.rbegin()->first), before) << "stopped before " << steps_.back();
    EXPECT_THAT(broken_promises(log()), IsEmpty()) << "stopped before " << steps_.back();
  }
  EXPECT_GE(at, 5) << "write, read back, record, drop, reclaim";
  seal();
  EXPECT_THAT(problems_, IsEmpty());
  EXPECT_FALSE(stored(2)) << "what was recorded and not dropped is dropped";
  const auto left = archive_files();
  const auto table = *ArchiveTable::read(log());
  EXPECT_EQ(left.size(), table.archives.size()) << "no file without a record";

  for (at = 0;; ++at) {
    steps_left_ = at;
    const auto removed = archivist_->remove(1, kOps);
    steps_left_ = -1;
    if (removed || removed.error().code == Errc::conflict) break;
    verify_at_end_ = false;
    restart_without_looking();
    if (ArchiveTable::read(log())->archives.at(1).removed != 0) seal();  // goes on with what is recorded
  }
  EXPECT_FALSE(fs::exists(archives() / archive_name(1, 8)));
  EXPECT_EQ(log().archived().front().stage, ArchivedRange::Stage::removed);
  EXPECT_EQ(log().read(2).error().code, Errc::archived);
  EXPECT_THAT(*log().find(Index::node, "n1", 1, 8), IsEmpty());
  EXPECT_TRUE(log().read(1)) << "the token's record stays";
  verify_at_end_ = false;
}

// A log is lived, sealed, stopped anywhere, and started again at random: it is always the log that it would have been.
TEST_F(ArchivistTest, ARandomLifeReadsAsIfNothingHadBeenArchived) {
  const char* text = std::getenv("LEDGER_ARCHIVE_ROUNDS");
  const int rounds = text == nullptr ? 12 : std::atoi(text);
  start();
  std::mt19937 random(20261123);
  std::map<Seq, std::string> model;
  const auto remember = [&] {
    for (Seq seq = model.empty() ? 1 : model.rbegin()->first + 1; seq <= log().head(); ++seq)
      model.emplace(seq, *log().read_bytes(seq));
  };
  for (int round = 0; round < rounds; ++round) {
    for (unsigned i = 0; i < random() % 40; ++i) {
      const std::string node = "n" + std::to_string(random() % 5);
      switch (random() % 6) {
        case 0: append_ok(BindingReleased{.actor = "ops", .by = "operator", .fingerprint = {}}, node); break;
        case 1: append_ok(NodeObjectCreated{.actor = "w", .uid = "u" + std::to_string(random())}, node); break;
        case 2: append_ok(TokenRevoked{.token = "t1", .token_class = "bootstrap", .expires = {}, .actor = "ops"}); break;
        default: registers(node, "p" + std::to_string(random() % 3));
      }
    }
    remember();
    if (random() % 2 == 0) sign();
    steps_left_ = random() % 3 == 0 ? -1 : static_cast<int>(random() % 12);
    for (int i = 0; i < 3; ++i) {
      const auto sealed = archivist_->seal_next({.to = 1 + random() % log().head()});
      if (!sealed) {
        ASSERT_THAT(sealed.error().code, ::testing::AnyOf(Errc::unavailable, Errc::not_found)) << sealed.error().message;
        break;
      }
    }
    steps_left_ = -1;
    remember();
    if (random() % 2 == 0) restart();
    ASSERT_THAT(broken_promises(log()), IsEmpty()) << "round " << round;
    ASSERT_EQ(bytes_up_to(model.rbegin()->first), model) << "round " << round;
    for (int i = 0; i < 5; ++i) {
      const Seq from = 1 + random() % log().head(), to = from + random() % 20;
      std::map<Seq, std::string> part;
      ASSERT_TRUE(log().scan_bytes(from, to, [&](Seq seq, std::string_view bytes) {
        part.emplace(seq, bytes);
        return true;
      }));
      ASSERT_EQ(part, (std::map<Seq, std::string>(model.lower_bound(from), model.upper_bound(to))));
    }
  }
  EXPECT_GT(log().archived().size(), 3u) << "something was archived";
}

TEST_F(ArchivistTest, TheLedgerStartsAndServesWithAllArchivesGone) {
  start();
  append_ok(TokenCreated{.token = "t0", .token_class = "bootstrap", .expires = {}, .actor = "ops", .fingerprint = {"f0"}});
  append_ok(TokenRevoked{.token = "t0", .token_class = "bootstrap", .expires = {}, .actor = "ops"});
  live(2);
  sign();
  seal();
  const NodeState known = ledger_->find("n1");
  stop();
  fs::remove_all(archives());
  start();
  EXPECT_EQ(ledger_->find("n1"), known);
  EXPECT_EQ(ledger_->find_token("bootstrap", "t0")->status, TokenState::Status::revoked);
  EXPECT_EQ(registers("n1", "p1"), Ruling::admit_known);
  EXPECT_EQ(registers("n1", "other"), Ruling::refuse_mismatch);
  EXPECT_TRUE(log().tree()) << "proofs need no archive";

  const auto gone = log().read(5);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, Errc::archived);
  EXPECT_THAT(gone.error().message, HasSubstr("records 1 to 8 are in the archive 000000000001-000000000008.archive, "
                                              "which is not in " + archives().string()));
  // Nothing is passed over silently: one record after the other says that it is not here.
  std::set<Seq> missing, there;
  ASSERT_TRUE(log().scan(1, UINT64_MAX, [&](Seq seq, const Result<Record>& record) {
    (record ? there : missing).insert(seq);
    if (!record) {
      EXPECT_EQ(record.error().code, Errc::archived);
    }
    return true;
  }));
  EXPECT_EQ(missing.size() + there.size(), log().head());
  EXPECT_TRUE(there.contains(1) && there.contains(2)) << "tokens";
  EXPECT_TRUE(missing.contains(5));
  EXPECT_EQ(log().scan_bytes(1, 9, [](Seq, std::string_view) { return true; }).error().code, Errc::archived);
  verify_at_end_ = false;
}

TEST_F(ArchivistTest, AFileThatIsPutBackIsReadAgain) {
  start();
  live();
  sign();
  seal();
  const fs::path file = archives() / archive_name(1, 8);
  fs::rename(file, dir_ / "away");
  restart_without_looking();
  EXPECT_FALSE(log().read(3));
  fs::rename(dir_ / "away", file);
  EXPECT_TRUE(log().read(3));
  // Another archive under its name is not believed, whoever signed it.
  fs::copy_file(archives() / archive_name(9, 16), file, fs::copy_options::overwrite_existing);
  restart_without_looking();
  EXPECT_EQ(log().read(3).error().code, Errc::corrupt);
  EXPECT_THAT(log().read(3).error().message, HasSubstr("is not the one that records 1 to 8 were sealed into"));
  verify_at_end_ = false;
}

// Each byte of a small archive, flipped; and every length it can be cut to.
TEST_F(ArchivistTest, EveryFlippedByteAndEveryCutIsNoticed) {
  start();
  live();
  sign();
  const auto sealed = seal(8);
  const auto key = *read_checkpoint_key(checkpoint_public_file(dir_.path()));
  const std::string good = file_bytes(archives() / sealed[0].file);
  const auto verdict = [&](std::string bytes) {
    const auto file = ArchiveFile::of_bytes(std::move(bytes), "x");
    return file && check_archive(**file, &key).sound();
  };
  ASSERT_TRUE(verdict(good));
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    EXPECT_FALSE(verdict(bad)) << "byte " << i;
    EXPECT_FALSE(verdict(good.substr(0, i))) << "cut to " << i;
  }
  EXPECT_FALSE(verdict(good + "x"));
}

// Who writes other records, and makes all digests right, has no signature for them.
TEST_F(ArchivistTest, AForgedArchiveIsNotSigned) {
  start();
  live();
  sign();
  const auto sealed = seal(8);
  const auto key = *read_checkpoint_key(checkpoint_public_file(dir_.path()));
  const auto file = *ArchiveFile::open(archives() / sealed[0].file);
  ArchiveBuilder forged(log().id(), TreeEdge());
  for (Seq seq = 1; seq <= 8; ++seq) {
    Record record = *log().read(seq);
    if (seq == 3) record.source = "10.9.9.9:1";
    ASSERT_TRUE(forged.add(encode(record), record.time));
  }
  const auto report = check_archive(**ArchiveFile::of_bytes(forged.finish(file->note()).bytes, "forged"), &key);
  ASSERT_THAT(report.damage, SizeIs(1));
  EXPECT_THAT(report.damage[0], HasSubstr("not those that were signed"));
}

TEST_F(ArchivistTest, OnlyWhatACheckpointCoversIsSealed) {
  start();
  live();
  EXPECT_EQ(archivist_->seal_next({}).error().code, Errc::not_found);
  sign();
  const Seq covered = log().head() - 1;
  live();
  const auto sealed = seal();
  EXPECT_EQ(sealed.back().to, covered);
  // A log that went back: the checkpoint saw what is not there.
  Checkpoint other{.origin = origin_of(log().id()), .head = {.size = log().head() + 5, .root = {}}, .note = {}};
  const NoteSigner signer = *read_checkpoint_signer(dir_.path());
  other.note.text = checkpoint_text(other.origin, other.head);
  other.note.signatures.push_back(signer.sign(other.note.text));
  put_file(latest_checkpoint_file(dir_.path()), other.note.str());
  EXPECT_EQ(archivist_->seal_next({}).error().code, Errc::corrupt);
}

TEST_F(ArchivistTest, AHoldStopsDroppingAndRemoving) {
  start();
  live(2);
  sign();
  const auto node = archivist_->hold({.node = "n3"}, kOps);
  ASSERT_TRUE(node) << node.error().message;
  ASSERT_TRUE(archivist_->hold({.from = 9, .to = 10}, kOps));
  append_ok(PasswordVerified{{"p"}}, "other");
  auto sealed = seal(16);
  ASSERT_THAT(sealed, SizeIs(2));
  EXPECT_THAT(sealed[0].holds, ElementsAre(node->hold));
  EXPECT_THAT(sealed[1].holds, SizeIs(2));
  EXPECT_TRUE(stored(2) && stored(9));
  EXPECT_EQ(archivist_->remove(1, kOps).error().code, Errc::conflict);
  EXPECT_THAT(archivist_->remove(1, kOps).error().message, HasSubstr("under the legal hold " + node->hold));
  restart();
  seal(16);
  EXPECT_TRUE(stored(2)) << "a restart forgets no hold";
  ASSERT_TRUE(archivist_->lift(node->hold, kOps));
  EXPECT_EQ(archivist_->lift(node->hold, kOps).error().code, Errc::not_found);
  seal(16);
  EXPECT_FALSE(stored(2)) << "it is dropped as soon as nothing holds it";
  EXPECT_TRUE(stored(9)) << "the other hold stands";
  const auto status = *list_archives(log(), *ArchiveTable::read(log()));
  ASSERT_THAT(status, SizeIs(2));
  EXPECT_EQ(status[0].where, ArchiveStatus::Where::dropped);
  EXPECT_EQ(status[1].where, ArchiveStatus::Where::sealed);
  EXPECT_THAT(status[1].holds, SizeIs(1));
  EXPECT_TRUE(archivist_->remove(1, kOps));
  verify_at_end_ = false;
}

TEST_F(ArchivistTest, AHoldOnATimeHoldsWhatWasWrittenThen) {
  start();
  const Time start_time = clock_.now();
  live(2);
  sign();
  ASSERT_TRUE(archivist_->hold({.since = start_time.plus_seconds(40), .until = start_time.plus_seconds(44)}, kOps));
  const auto sealed = seal();
  EXPECT_THAT(sealed[0].holds, IsEmpty());
  EXPECT_THAT(sealed[1].holds, SizeIs(1));
  EXPECT_THAT(sealed[2].holds, IsEmpty());
}

TEST_F(ArchivistTest, WhatAHoldMustSay) {
  start();
  const auto refused = [&](const Archivist::HoldRequest& request, const OperatorAction& action) {
    const auto done = archivist_->hold(request, action);
    return done ? "accepted" : done.error().message;
  };
  EXPECT_THAT(refused({}, kOps), HasSubstr("name one of them"));
  EXPECT_THAT(refused({.node = "n1", .from = 3}, kOps), HasSubstr("name one of them"));
  EXPECT_THAT(refused({.from = 9, .to = 3}, kOps), HasSubstr("ends before it begins"));
  EXPECT_THAT(refused({.node = "n1"}, {.actor = "ops", .reason = " ", .request_id = {}, .source = {}}), HasSubstr("say why"));
  EXPECT_EQ(refused({.to = 3}, kOps), "accepted");
  EXPECT_EQ(ArchiveTable::read(log())->holds.begin()->second.from, 1u);
}

// The writer goes on while archives are made: all who register are answered.
TEST_F(ArchivistTest, RegistrationsGoOnMeanwhile) {
  max_records_ = 50;
  start();
  live(5);
  sign();
  std::atomic<bool> stop{false};
  std::atomic<int> answered{0}, wrong{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 2; ++c)
    clients.emplace_back([&, c] {
      for (int i = 0; !stop; ++i) {
        const auto done = test::register_node(*ledger_, "c" + std::to_string(c) + "-" + std::to_string(i % 50), "p");
        (done.outcome ? answered : wrong)++;
        // Old records are read all the time, too.
        const Seq seq = 1 + static_cast<Seq>(i) % 100;
        if (const auto record = log().read(seq); !record || record->seq != seq) ++wrong;
      }
    });
  int archives_made = 0;
  for (int i = 0; i < 4; ++i) {
    const Seq at_least = log().head() + 20;
    while (log().head() < at_least) std::this_thread::yield();
    for (int j = 0; j < 3; ++j) {
      const auto sealed = archivist_->seal_next({});
      if (!sealed) ADD_FAILURE() << sealed.error().message;
      archives_made += sealed && *sealed ? 1 : 0;
    }
    sign();
  }
  stop = true;
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(answered, 100);
  EXPECT_GT(archives_made, 5);
}

TEST_F(ArchivistTest, ThePolicySealsByAgeAndBySize) {
  start();
  live(2);
  sign();
  const auto keep = [&](const Archivist::Policy& policy) {
    std::vector<Seq> to;
    for (;;) {
      const auto done = archivist_->keep(policy, clock_.now());
      EXPECT_TRUE(done) << done.error().message;
      if (!done || !*done) return to;
      to.push_back((*done)->to);
    }
  };
  EXPECT_THAT(keep({}), IsEmpty());
  EXPECT_THAT(keep({.age_s = 90 * 86400, .bytes = {}}), IsEmpty());
  // Four seconds between registrations: those older than 80 of them, in whole archives.
  EXPECT_THAT(keep({.age_s = 80, .bytes = {}}), ElementsAre(8, 16, 19)) << "and what is a tenth older";
  // A rest that is much older does not wait for its archive to be full.
  clock_.advance(3 * 86400);
  EXPECT_THAT(keep({.age_s = 86400, .bytes = {}}), ElementsAre(27, 35, 40));
  EXPECT_THAT(keep({.age_s = {}, .bytes = 1 << 30}), IsEmpty());
  live(5);
  sign();
  EXPECT_THAT(keep({.age_s = {}, .bytes = 1}), SizeIs(::testing::Ge(10)));
}

TEST_F(ArchivistTest, FilesWithoutARecordAreThrownAwayAndThoseOfOthersAreNot) {
  start();
  live();
  sign();
  fs::create_directory(archives());
  put_file(archives() / archive_name(1, 5), "half of one");
  seal(8);
  EXPECT_THAT(archive_files(), ElementsAre(archive_name(1, 8)));
  ArchiveBuilder foreign("ffffffffffffffff", TreeEdge::load(8, log().tree_nodes()).value());
  ASSERT_TRUE(foreign.add("x", clock_.now()));
  put_file(archives() / archive_name(9, 9), foreign.finish("").bytes);
  const auto refused = archivist_->seal_next({});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("archive of another log; move it away"));
}

TEST(ArchiveName, IsReadAsItIsWritten) {
  EXPECT_EQ(archive_name(1, 100'000), "000000000001-000000100000.archive");
  EXPECT_EQ(parse_archive_name("000000000001-000000100000.archive"), (std::pair<Seq, Seq>(1, 100'000)));
  EXPECT_EQ(parse_archive_name(archive_name(1, UINT64_MAX)), (std::pair<Seq, Seq>(1, UINT64_MAX)));
  for (const char* bad : {"", ".archive", "1-2.archive", "000000000002-000000000001.archive", "000000000000-000000000001.archive",
                          "000000000001-000000000002.archive.tmp", "00000000000a-000000000002.archive"})
    EXPECT_FALSE(parse_archive_name(bad)) << bad;
}

}  // namespace
}  // namespace ledger
