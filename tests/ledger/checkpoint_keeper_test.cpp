#include "ledger/checkpoint_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <sstream>
#include <thread>

#include "ledger/credentials.h"
#include "tests/support/ledger_fixture.h"
#include "tests/support/run_command.h"

namespace ledger {
namespace {

namespace fs = std::filesystem;
using test::file_bytes;
using test::mode_of;
using test::put_file;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class CheckpointKeeperTest : public test::LedgerTest {
 protected:
  void keep() {
    keeping_.data_dir = dir_.path();
    keeping_.log = [this](bool is_problem, const std::string& line) {
      const std::lock_guard lock(told_mutex_);
      told_.push_back((is_problem ? "! " : "") + line);
    };
    Result<std::unique_ptr<CheckpointKeeper>> opened = CheckpointKeeper::open(keeping_, *ledger_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    keeper_ = std::move(*opened);
  }
  bool notices() {
    const Result<bool> noticed = keeper_->notice_past();
    EXPECT_TRUE(noticed.has_value()) << noticed.error().message;
    return noticed && *noticed;
  }
  void sign(bool record = true) {
    const Result<void> done = keeper_->sign(record);
    ASSERT_TRUE(done.has_value()) << done.error().message;
  }
  void TearDown() override {
    keeper_.reset();
    LedgerTest::TearDown();
  }
  // Stops, as the server does; what is there is what a restart finds.
  void stop() {
    EXPECT_TRUE(keeper_->finish().has_value());
    keeper_.reset();
    close();
  }
  void start() {
    open();
    keep();
  }
  void copy_log(const fs::path& to) { fs::copy(dir_ / "events", to, fs::copy_options::recursive); }
  void put_log_back(const fs::path& from) {
    fs::remove_all(dir_ / "events");
    fs::copy(from, dir_ / "events", fs::copy_options::recursive);
  }
  NoteVerifier key() const { return *read_checkpoint_key(checkpoint_public_file(dir_.path())); }
  std::vector<Checkpoint> kept() const { return *read_checkpoints(all_checkpoints_file(dir_.path()), key()); }

  CheckpointKeeper::Options keeping_;
  std::mutex told_mutex_;
  std::vector<std::string> told_;
  std::unique_ptr<CheckpointKeeper> keeper_;
};

TEST_F(CheckpointKeeperTest, SignsWhatIsThereAndRecordsIt) {
  start();
  EXPECT_FALSE(notices());
  EXPECT_EQ(keeper_->latest(), "");
  registers("web-1", "aa");
  const TreeHead head = *ledger_->log().tree();
  sign();
  const auto checkpoint = open_checkpoint(keeper_->latest(), key());
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_EQ(checkpoint->head, head);
  EXPECT_EQ(checkpoint->origin, "ledger/" + ledger_->log().id());
  EXPECT_EQ(checkpoint->note.text.substr(0, checkpoint->note.text.rfind('\n', checkpoint->note.text.size() - 2)),
            "ledger/" + ledger_->log().id() + "\n1");
  EXPECT_EQ(file_bytes(latest_checkpoint_file(dir_.path())), keeper_->latest());
  EXPECT_EQ(file_bytes(all_checkpoints_file(dir_.path())), keeper_->latest());
  EXPECT_THAT(kinds(), ElementsAre("password_stored", "checkpoint_signed"));
  const Record last = records().back();
  EXPECT_EQ(as<CheckpointSigned>(last)->size, 1);
  EXPECT_EQ(as<CheckpointSigned>(last)->root, to_hex(view_of(head.root)));
  EXPECT_EQ(as<CheckpointSigned>(last)->key, key().key_id());
  EXPECT_EQ(mode_of(checkpoint_key_file(dir_.path())), 0600);
  EXPECT_EQ(mode_of(checkpoint_public_file(dir_.path())), 0644);
  EXPECT_EQ(mode_of(latest_checkpoint_file(dir_.path())), 0644);
}

TEST_F(CheckpointKeeperTest, ItsOwnRecordMakesNoOtherCheckpointDue) {
  start();
  registers("web-1", "aa");
  sign();
  sign();
  sign();
  EXPECT_THAT(kinds(), SizeIs(2)) << "a log that rests is at rest";
  registers("web-2", "bb");
  sign();
  EXPECT_THAT(kept(), SizeIs(2));
}

TEST_F(CheckpointKeeperTest, TheLastOneCoversEverythingAndIsNotRecorded) {
  start();
  registers("web-1", "aa");
  stop();
  open();
  EXPECT_THAT(kinds(), ElementsAre("password_stored"));
  EXPECT_EQ(kept().back().head, *ledger_->log().tree());
}

TEST_F(CheckpointKeeperTest, SignsByItselfAfterSoManyRecords) {
  keeping_.every_records = 5;
  keeping_.every_seconds = 1'000'000;
  start();
  keeper_->start();
  for (int i = 0; i < 5; ++i) registers("web-" + std::to_string(i), "aa");
  while (keeper_->latest().empty()) std::this_thread::yield();
  keeper_->stop();
  EXPECT_EQ(open_checkpoint(keeper_->latest(), key())->head.size, 5U);
}

TEST_F(CheckpointKeeperTest, SignsByItselfAfterSoLong) {
  keeping_.every_records = 1'000'000;
  keeping_.every_seconds = 1;
  start();
  keeper_->start();
  registers("web-1", "aa");
  while (keeper_->latest().empty()) std::this_thread::yield();
  keeper_->stop();
  EXPECT_EQ(open_checkpoint(keeper_->latest(), key())->head.size, 1U);
}

TEST_F(CheckpointKeeperTest, ARestartIsNoLoss) {
  start();
  registers("web-1", "aa");
  sign();
  stop();
  const std::string key_before = key().str();
  start();
  EXPECT_FALSE(notices());
  EXPECT_EQ(key().str(), key_before);
  EXPECT_EQ(open_checkpoint(keeper_->latest(), key())->head.size, 2U) << "known before anything new is signed";
  EXPECT_THAT(told_, IsEmpty());
}

// The log was put back to an older copy: it is told, recorded, and the checkpoints that it cannot keep are kept
// apart.
TEST_F(CheckpointKeeperTest, AnOlderCopyIsNoticed) {
  start();
  registers("web-1", "aa");
  sign();
  stop();
  test::TempDir backup{test::memory_directory()};
  copy_log(backup / "events");
  start();
  registers("web-2", "bb");
  append_ok(TokenRevoked{});
  sign();
  stop();  // 5 records: 2 before, 2, checkpoint_signed
  put_log_back(backup / "events");

  start();
  EXPECT_TRUE(notices());
  ASSERT_THAT(told_, SizeIs(1));
  EXPECT_THAT(told_[0], HasSubstr("! this log went back: it has 2 records, and the checkpoint in"));
  EXPECT_THAT(told_[0], HasSubstr("saw 5; records 3 to 5 are lost"));
  EXPECT_THAT(told_[0], HasSubstr("tokens revoked then are valid"));
  const Record last = records().back();
  const auto* epoch = as<EpochStarted>(last);
  ASSERT_NE(epoch, nullptr);
  EXPECT_EQ(epoch->cause, "restored");
  EXPECT_EQ(epoch->head_before, 5);
  EXPECT_EQ(epoch->head_after, 2);
  EXPECT_THAT(last.note, HasSubstr("records 3 to 5 are lost"));
  EXPECT_EQ(ledger_->epoch(), 2);
  EXPECT_THAT(*read_checkpoints(lost_checkpoints_file(dir_.path()), key()), SizeIs(2));
  sign();
  for (const Checkpoint& checkpoint : kept())
    EXPECT_EQ(*root_at(checkpoint.head.size, ledger_->log().tree_nodes()), checkpoint.head.root);
  stop();

  told_.clear();
  start();
  EXPECT_FALSE(notices()) << "said once";
  EXPECT_THAT(told_, IsEmpty());
}

// The whole data directory was put back: only a copy elsewhere knows better.
TEST_F(CheckpointKeeperTest, ACopyElsewhereKnowsBetterThanTheDataDirectory) {
  test::TempDir elsewhere{test::memory_directory()};
  keeping_.places = {file_place(elsewhere / "checkpoint")};
  start();
  registers("web-1", "aa");
  sign();
  stop();
  test::TempDir backup{test::memory_directory()};
  fs::copy(dir_.path(), backup / "all", fs::copy_options::recursive);
  start();
  EXPECT_FALSE(notices());
  for (int i = 0; i < 10; ++i) registers("new-" + std::to_string(i), "bb");
  stop();
  for (const auto& entry : fs::directory_iterator(dir_.path())) fs::remove_all(entry.path());
  fs::copy(backup / "all", dir_.path(), fs::copy_options::recursive);

  start();
  EXPECT_TRUE(notices());
  ASSERT_THAT(told_, SizeIs(1));
  EXPECT_THAT(told_[0], HasSubstr("the checkpoint in " + (elsewhere / "checkpoint").string() + " saw 12"));
  EXPECT_EQ(as<EpochStarted>(records().back())->head_after, 2);
  EXPECT_THAT(*read_checkpoints(lost_checkpoints_file(dir_.path()), key()), SizeIs(1))
      << "kept here before it is replaced";
  sign();
  EXPECT_EQ(open_checkpoint(file_bytes(elsewhere / "checkpoint"), key())->head.size, 3U);
  stop();
  told_.clear();
  start();
  EXPECT_FALSE(notices());
}

// As many records as the checkpoint saw, or more, but others: a copy that went on by itself, or a rewritten log.
TEST_F(CheckpointKeeperTest, ALogThatGrewDifferentlyIsNoticed) {
  start();
  registers("web-1", "aa");
  stop();
  test::TempDir backup{test::memory_directory()};
  copy_log(backup / "events");
  start();
  registers("web-2", "bb");
  sign(false);
  stop();
  put_log_back(backup / "events");
  open();
  registers("web-3", "cc");
  registers("web-4", "dd");
  keep();
  EXPECT_TRUE(notices());
  EXPECT_THAT(told_[0], HasSubstr("this log is not the one that the checkpoint in"));
  EXPECT_THAT(told_[0], HasSubstr("among its first 2 records are others than those that were signed"));
  EXPECT_EQ(as<EpochStarted>(records().back())->head_before, 2);
}

TEST_F(CheckpointKeeperTest, AnotherLogInThePlaceOfThisOneIsNoticed) {
  start();
  registers("web-1", "aa");
  const std::string old_origin = key().name();
  const std::string old_id = key().key_id();
  stop();
  fs::remove_all(dir_ / "events");
  start();
  EXPECT_NE(key().name(), old_origin);
  EXPECT_TRUE(notices());
  ASSERT_THAT(told_, SizeIs(2));
  EXPECT_THAT(told_[0], HasSubstr("a new one was made"));
  EXPECT_THAT(told_[1], HasSubstr("this is another log: the checkpoint in"));
  EXPECT_THAT(told_[1], HasSubstr("is of " + old_origin + " with 1 records"));
  EXPECT_EQ(as<EpochStarted>(records().back())->cause, "datastore_changed");
  EXPECT_TRUE(fs::exists(checkpoint_public_file(dir_.path()).string() + "." + old_id));
  EXPECT_TRUE(fs::exists(all_checkpoints_file(dir_.path()).string() + "." + old_id));
  sign();
  stop();
  told_.clear();
  start();
  EXPECT_FALSE(notices());
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(CheckpointKeeperTest, ALostPublicKeyIsWrittenAgain) {
  start();
  const std::string before = key().str();
  stop();
  fs::remove(checkpoint_public_file(dir_.path()));
  start();
  EXPECT_EQ(key().str(), before);
}

TEST_F(CheckpointKeeperTest, ADamagedKeyIsAnError) {
  start();
  stop();
  put_file(checkpoint_key_file(dir_.path()), "PRIVATE+KEY+what\n");
  open();
  keeping_.data_dir = dir_.path();
  const auto opened = CheckpointKeeper::open(keeping_, *ledger_);
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, Errc::corrupt);
  EXPECT_THAT(opened.error().message, HasSubstr("checkpoint.key"));
}

TEST_F(CheckpointKeeperTest, APlaceThatFailsIsToldOfOnceAndTriedAgain) {
  bool broken = true;
  std::vector<std::string> arrived;
  CheckpointPlace place;
  place.name = "the moon";
  place.put = [&](const std::string& note) -> Result<void> {
    if (broken) return Error{Errc::io, "no route"};
    arrived.push_back(note);
    return {};
  };
  place.get = []() -> Result<std::string> { return Error{Errc::not_found, "nothing"}; };
  keeping_.places = {place};
  start();
  EXPECT_FALSE(notices());
  for (int i = 0; i < 3; ++i) {
    registers("web-" + std::to_string(i), "aa");
    sign();
  }
  EXPECT_THAT(told_, ElementsAre(HasSubstr("! no checkpoint can be sent to the moon: no route")));
  broken = false;
  registers("web-9", "aa");
  sign();
  EXPECT_THAT(told_, Contains(HasSubstr("checkpoints arrive at the moon again")));
  EXPECT_THAT(arrived, ElementsAre(keeper_->latest()));
}

// A witness by the letter of tlog-witness: it remembers the size, checks the proof, and only then cosigns.
class Witness {
 public:
  CheckpointWitness::Answer add(const std::string& body, const NoteVerifier& log_key) {
    const std::size_t blank = body.find("\n\n");
    const std::string head = body.substr(0, blank + 1);
    const Checkpoint checkpoint = *open_checkpoint(body.substr(blank + 2), log_key);
    const auto old = static_cast<std::uint64_t>(std::stoull(head.substr(4)));
    if (old != seen_.size) return {409, std::to_string(seen_.size) + "\n"};
    TreeProof proof;
    std::istringstream lines(head.substr(head.find('\n') + 1));
    for (std::string line; std::getline(lines, line);) {
      const auto bytes = open_base64(line);
      proof.push_back(*tree_hash_from(bytes));
    }
    if (old > 0 && !shows_consistency(proof, seen_, checkpoint.head)) return {422, ""};
    seen_ = checkpoint.head;
    return {200, stranger_.sign(checkpoint.note.text, Time::now()).line() +
                     signer_.sign(checkpoint.note.text, Time::now()).line()};
  }
  static std::string open_base64(const std::string& text) {
    std::string bytes;
    unsigned bits = 0;
    int have = 0;
    constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (const char c : text) {
      if (c == '=') break;
      bits = bits << 6 | static_cast<unsigned>(kDigits.find(c));
      if ((have += 6) >= 8) bytes.push_back(static_cast<char>(bits >> (have -= 8) & 0xFF));
    }
    return bytes;
  }
  NoteSigner signer_ = std::move(*NoteSigner::make("example.org/w1", NoteSigner::Type::witness));
  NoteSigner stranger_ = std::move(*NoteSigner::make("example.org/w2", NoteSigner::Type::witness));
  TreeHead seen_;
};

TEST_F(CheckpointKeeperTest, CosignaturesOfAWitnessAreKept) {
  Witness witness;
  int asked = 0;
  keeping_.witnesses.push_back({witness.signer_.verifier(), [&](const std::string& body) {
                                  ++asked;
                                  return Result<CheckpointWitness::Answer>(witness.add(body, key()));
                                }});
  start();
  registers("web-1", "aa");
  sign();
  EXPECT_EQ(asked, 1);
  for (int i = 0; i < 5; ++i) {
    registers("web-" + std::to_string(i), "aa");
    sign();
  }
  EXPECT_EQ(asked, 6) << "it is told of what it saw last";
  stop();
  start();
  registers("web-9", "aa");
  asked = 0;
  sign();
  EXPECT_EQ(asked, 2) << "after a restart the witness says where it is";
  const Checkpoint latest = *open_checkpoint(keeper_->latest(), key());
  EXPECT_THAT(latest.note.signatures, SizeIs(2)) << "ours and the witness's; the stranger's is not";
  EXPECT_TRUE(check_note(latest.note, witness.signer_.verifier()).has_value());
  EXPECT_EQ(file_bytes(latest_checkpoint_file(dir_.path())), keeper_->latest());
  EXPECT_EQ(kept().back().note.str(), keeper_->latest());
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(CheckpointKeeperTest, AWitnessThatSawMoreSaysSo) {
  Witness witness;
  keeping_.witnesses.push_back({witness.signer_.verifier(), [&](const std::string& body) {
                                  return Result<CheckpointWitness::Answer>(witness.add(body, key()));
                                }});
  start();
  witness.seen_.size = 1000;
  registers("web-1", "aa");
  sign();
  EXPECT_THAT(told_,
              ElementsAre(HasSubstr("! the witness example.org/w1 does not cosign: it has seen 1000 records")));
  EXPECT_THAT(open_checkpoint(keeper_->latest(), key())->note.signatures, SizeIs(1));
}

// A crash while a checkpoint is added leaves a part of it: the next start takes it away, and nothing else.
TEST_F(CheckpointKeeperTest, ATornCheckpointIsNoticedAndTakenAway) {
  start();
  registers("web-1", "aa");
  sign();
  registers("web-2", "aa");
  sign();
  const fs::path file = all_checkpoints_file(dir_.path());
  const std::string whole = file_bytes(file);
  const std::string last = keeper_->latest();
  for (std::size_t length = 1; length < last.size(); ++length) {
    put_file(file, whole + last.substr(0, length));
    EXPECT_FALSE(read_checkpoints(file, key()).has_value()) << length;
    const auto settled = settle_last_checkpoint(file, key());
    ASSERT_TRUE(settled.has_value()) << length << ": " << settled.error().message;
    EXPECT_EQ(settled->note.str(), last);
    EXPECT_EQ(file_bytes(file), whole) << length;
  }
  put_file(file, whole + last);
  EXPECT_THAT(*read_checkpoints(file, key()), SizeIs(3));
  put_file(file, last.substr(0, 40));
  EXPECT_FALSE(settle_last_checkpoint(file, key()).has_value());
  fs::remove(file);
  EXPECT_EQ(settle_last_checkpoint(file, key()).error().code, Errc::not_found);
}

}  // namespace
}  // namespace ledger
