// Backups and restores of a data directory whose ledger goes on meanwhile; the commands: tests/api/backup_story_test.cpp.
#include "ledger/backup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <set>

#include "ledger/archivist.h"
#include "ledger/checkpoint_keeper.h"
#include "ledger/credentials.h"
#include "tests/support/ledger_fixture.h"
#include "tests/support/overwrite_record.h"
#include "tests/support/run_command.h"

namespace ledger {
namespace {

namespace fs = std::filesystem;
using test::broken_promises;
using test::file_bytes;
using test::mode_of;
using test::put_file;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

std::vector<std::string> stored_bytes(const fs::path& data_dir) {
  std::vector<std::string> all;
  const auto log = EventLog::follow({.dir = data_dir / "events"});
  EXPECT_TRUE(log) << log.error().message;
  if (!log) return all;
  const Result<void> read = (*log)->scan_bytes(1, UINT64_MAX, [&](Seq, std::string_view bytes) {
    all.emplace_back(bytes);
    return true;
  });
  EXPECT_TRUE(read);
  return all;
}

// A data directory with the files that a server has in it.
class Server {
 public:
  explicit Server(fs::path data_dir) : dir_(std::move(data_dir)) {}

  void start() {
    ASSERT_TRUE(ensure_private_directory(dir_));
    const bool existed = fs::exists(dir_ / "events");
    Ledger::Options options;
    options.log.dir = dir_ / "events";
    options.server_name = "srv";
    options.min_free_bytes = 0;
    auto opened = Ledger::open(std::move(options));
    ASSERT_TRUE(opened) << opened.error().message;
    ledger_ = std::move(*opened);
    auto credentials = Credentials::open({.data_dir = dir_, .token = {}, .agent_token = {}, .log_exists = existed});
    ASSERT_TRUE(credentials) << credentials.error().message;
    ASSERT_TRUE(credentials->write_token_files(std::string(64, 'a')));
    auto keeper = CheckpointKeeper::open({.data_dir = dir_}, *ledger_);
    ASSERT_TRUE(keeper) << keeper.error().message;
    keeper_ = std::move(*keeper);
    if (existed) return;
    ASSERT_TRUE(ensure_private_directory(dir_ / "tls"));
    ASSERT_TRUE(write_file(dir_ / "tls" / "server-ca.crt", "certificate", 0644));
    ASSERT_TRUE(write_file(dir_ / "tls" / "server-ca.key", "private key", 0600));
    ASSERT_TRUE(write_file(dir_ / "tls" / "listener-names", "a.example.org\n", 0644));
    ASSERT_TRUE(write_file(dir_ / "server.json", "{}", 0644));
  }
  void stop() {
    keeper_.reset();
    if (ledger_ == nullptr) return;
    EXPECT_TRUE(ledger_->close());
    ledger_.reset();
  }
  void join(int count, const std::string& fingerprint = "aa") {
    for (int i = 0; i < count; ++i) {
      const auto joined = test::register_node(*ledger_, "n" + std::to_string(i), fingerprint);
      ASSERT_TRUE(joined.outcome) << joined.outcome.error().message;
    }
  }
  void sign() { ASSERT_TRUE(keeper_->sign(true)); }
  Seq head() const { return ledger_->log().head(); }
  Ledger& ledger() { return *ledger_; }
  CheckpointKeeper& keeper() { return *keeper_; }

 private:
  fs::path dir_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<CheckpointKeeper> keeper_;
};

class BackupTest : public ::testing::Test {
 protected:
  void SetUp() override { server_.start(); }

  Result<BackupReport> try_backup(bool with_secrets = true, const fs::path& to = {}) {
    return backup({.data_dir = data_, .to = to.empty() ? to_ : to, .with_secrets = with_secrets, .now = now_});
  }
  BackupReport back_up(bool with_secrets = true) {
    Result<BackupReport> report = try_backup(with_secrets);
    EXPECT_TRUE(report) << report.error().message;
    if (!report) return {};
    EXPECT_EQ(sound(to_), "");
    return *std::move(report);
  }
  // What is wrong with a data directory's log.
  static std::string sound(const fs::path& data_dir) {
    const auto log = EventLog::follow({.dir = data_dir / "events"});
    if (!log) return log.error().message;
    const auto broken = broken_promises(**log);
    return broken.empty() ? "" : broken.front();
  }
  Result<RestoreReport> try_restore(std::optional<Seq> to_seq = {}, std::vector<fs::path> against = {}) {
    RestoreOptions options;
    options.backup.from = to_;
    options.backup.against = std::move(against);
    options.data_dir = fresh_;
    options.to_seq = to_seq;
    options.now = now_;
    return restore(options);
  }
  std::string refusal(std::optional<Seq> to_seq = {}) {
    const Result<RestoreReport> report = try_restore(to_seq);
    return report ? "restored" : report.error().message;
  }
  std::vector<std::string> problems() const {
    const Result<BackupCheck> check = check_backup({.from = to_});
    return check ? check->problems : std::vector<std::string>{check.error().message};
  }

  test::TempDir dir_{test::memory_directory()};
  const fs::path data_ = dir_ / "data", to_ = dir_ / "backup", fresh_ = dir_ / "fresh";
  const Time now_ = *Time::parse("2124-06-11T12:00:00Z");
  Server server_{data_};
};

// ---- backup ----------------------------------------------------------------------------------------------

TEST_F(BackupTest, CopiesTheLogBesideItsOwnerAndLaterOnlyWhatIsNew) {
  server_.join(50);
  server_.sign();
  const BackupReport first = back_up();
  EXPECT_TRUE(first.is_first);
  EXPECT_EQ(first.copied.records, server_.head());
  EXPECT_EQ(first.checkpoint, 50U);
  EXPECT_EQ(stored_bytes(to_), stored_bytes(data_));
  EXPECT_EQ(first.head, *server_.ledger().log().tree());

  server_.join(10, "bb");
  const BackupReport second = back_up();
  EXPECT_FALSE(second.is_first);
  EXPECT_EQ(second.copied.records, 10U);
  EXPECT_EQ(second.files_written, 0U);
  EXPECT_EQ(stored_bytes(to_), stored_bytes(data_));
  EXPECT_EQ(back_up().copied.records, 0U);
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(BackupTest, AnEmptyLogIsAPrefixToo) {
  EXPECT_EQ(back_up().head.size, 0U);
  server_.join(3);
  EXPECT_EQ(back_up().copied.records, 3U);
}

TEST_F(BackupTest, FilesKeepTheirModesAndLinksAndWhatIsOfTheProcessStaysBehind) {
  server_.join(1);
  server_.sign();
  fs::create_directories(data_ / "archives" / "2026");
  put_file(data_ / "archives" / "a.archive", std::string(3 << 20, 'x'));
  put_file(data_ / "archives" / "2026" / "b.archive", "b");
  put_file(data_ / "token.tmp", "half");
  const BackupReport report = back_up();
  EXPECT_EQ(report.archives, 2U);
  for (const char* name : {"cred/passwd", "cred/fingerprint.key", "cred/operator-token", "cred/checkpoint.key", "token",
                           "tls/server-ca.key"}) {
    EXPECT_EQ(mode_of(to_ / name), 0600) << name;
    EXPECT_EQ(file_bytes(to_ / name), file_bytes(data_ / name)) << name;
  }
  EXPECT_EQ(mode_of(to_ / "tls/server-ca.crt"), 0644);
  EXPECT_EQ(mode_of(to_ / "checkpoints/all"), 0644);
  EXPECT_EQ(mode_of(to_ / "backup.json"), 0600);
  for (const char* name : {"", "cred", "tls", "events", "archives"}) EXPECT_EQ(mode_of(to_ / name), 0700) << name;
  EXPECT_EQ(fs::read_symlink(to_ / "node-token"), "token");
  EXPECT_EQ(file_bytes(to_ / "archives/2026/b.archive"), "b");
  EXPECT_FALSE(fs::exists(to_ / "server.json"));
  EXPECT_FALSE(fs::exists(to_ / "token.tmp"));

  // An archive that is there is not read again; one that was changed is.
  put_file(to_ / "archives" / "a.archive", std::string(3 << 20, 'y'));
  fs::last_write_time(to_ / "archives" / "a.archive", fs::last_write_time(data_ / "archives" / "a.archive"));
  EXPECT_EQ(back_up().files_written, 0U);
  EXPECT_THAT(problems(), ElementsAre(HasSubstr("a.archive' is not what was backed up: its bytes are others")));
  put_file(data_ / "archives" / "a.archive", std::string(3 << 20, 'z'));
  EXPECT_EQ(back_up().files_written, 1U);
  EXPECT_THAT(problems(), IsEmpty());
}

// What was sealed and dropped is read from its archive; what was removed later is removed again after a restore, because
// the log says so.
TEST_F(BackupTest, ArchivesAreFollowedAndWhatWasForgottenIsForgottenAgain) {
  server_.join(30);
  server_.sign();
  Archivist archivist({.data_dir = data_}, server_.ledger());
  const auto sealed = archivist.seal_next({.to = 20});
  ASSERT_TRUE(sealed) << sealed.error().message;
  ASSERT_EQ(server_.ledger().log().archived().size(), 1U);
  EXPECT_EQ(back_up().archives, 1U);
  const auto all = stored_bytes(to_);
  EXPECT_EQ(all.size(), server_.head()) << "dropped records are read from the archive";
  const auto removed = archivist.remove(1, {.actor = "ops", .reason = "test", .force = true, .request_id = {}, .source = {}});
  ASSERT_TRUE(removed) << removed.error().message;
  back_up();
  EXPECT_THAT(problems(), IsEmpty());
  const Error late = try_backup(true, dir_ / "late").error();
  EXPECT_EQ(late.code, Errc::archived);
  EXPECT_THAT(late.message, HasSubstr("A backup needs every record once"));

  server_.stop();
  ASSERT_TRUE(try_restore());
  Server after(fresh_);
  after.start();
  Archivist again({.data_dir = fresh_}, after.ledger());
  for (int look = 0; look < 2; ++look) ASSERT_TRUE(again.seal_next({.to = 20})) << "what was left to do is done first";
  EXPECT_EQ(after.ledger().log().read(5).error().code, Errc::archived);
  EXPECT_FALSE(fs::exists(fresh_ / "archives" / archive_name(1, 20)));
  after.stop();
}

TEST_F(BackupTest, FilesThatAreGoneGoButArchivesStay) {
  put_file(data_ / "cred" / "passwd.next-0123", "staged");
  fs::create_directory(data_ / "archives");
  put_file(data_ / "archives" / "a", "a");
  back_up();
  EXPECT_TRUE(fs::exists(to_ / "cred" / "passwd.next-0123"));
  fs::remove(data_ / "cred" / "passwd.next-0123");
  fs::remove(data_ / "archives" / "a");
  back_up();
  EXPECT_FALSE(fs::exists(to_ / "cred" / "passwd.next-0123"));
  EXPECT_TRUE(fs::exists(to_ / "archives" / "a"));
}

TEST_F(BackupTest, WithoutSecretsThereIsNoneAnywhere) {
  server_.join(2);
  server_.sign();
  const BackupReport report = back_up(false);
  EXPECT_THAT(report.left_out, Contains("cred/fingerprint.key"));
  EXPECT_THAT(report.left_out, Contains("tls/server-ca.key"));
  EXPECT_THAT(report.left_out, Contains("token"));
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(to_))
    if (!entry.is_directory()) names.insert(entry.path().lexically_relative(to_).generic_string());
  std::erase_if(names, [](const std::string& name) { return name.starts_with("events/"); });
  EXPECT_THAT(names, UnorderedElementsAre("backup.json", "cred/checkpoint.pub", "checkpoints/all", "checkpoints/latest",
                                          "tls/server-ca.crt", "tls/listener-names"));
  EXPECT_THAT(problems(), IsEmpty());

  const Result<RestoreReport> restored = try_restore();
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_THAT(restored->missing, Contains("cred"));
  // A backup with secrets is not made one without by leaving them there.
  ASSERT_TRUE(try_backup(true, dir_ / "with"));
  EXPECT_THAT(try_backup(false, dir_ / "with").error().message, HasSubstr("holds secrets already"));
}

TEST_F(BackupTest, OnlyABackupOfThisLogOrNothingIsWrittenTo) {
  server_.join(1);
  put_file(dir_ / "file", "");
  fs::create_directory(dir_ / "used");
  put_file(dir_ / "used" / "letters", "");
  EXPECT_THAT(try_backup(true, dir_ / "used").error().message, HasSubstr("is not empty, and no backup"));
  EXPECT_THAT(try_backup(true, data_ / "backup").error().message, HasSubstr("inside of the other"));
  EXPECT_THAT(try_backup(true, data_).error().message, HasSubstr("inside of the other"));
  EXPECT_FALSE(try_backup(true, dir_ / "file"));
  Server other(dir_ / "other");
  other.start();
  other.join(1);
  ASSERT_TRUE(backup({.data_dir = dir_ / "other", .to = to_, .now = now_}));
  EXPECT_THAT(try_backup().error().message, HasSubstr("a copy of ledger"));
  other.stop();
  // A data directory is not one either.
  EXPECT_THAT(try_backup(true, dir_ / "other").error().message, HasSubstr("nothing is copied into it"));
  EXPECT_EQ(sound(dir_ / "other"), "");
}

TEST_F(BackupTest, ALogThatWentBackIsNotWrittenOverItsEvidence) {
  server_.join(5);
  server_.stop();
  fs::copy(data_, dir_ / "snapshot", fs::copy_options::recursive);
  server_.start();
  server_.join(5, "bb");
  back_up();
  const auto evidence = stored_bytes(to_);
  server_.stop();
  fs::remove_all(data_);
  fs::rename(dir_ / "snapshot", data_);
  server_.start();
  const Error fewer = try_backup().error();
  EXPECT_EQ(fewer.code, Errc::conflict);
  EXPECT_THAT(fewer.message, HasSubstr("it holds 10, the log 5. The log went back"));
  server_.join(9, "cc");
  const Error others = try_backup().error();
  EXPECT_EQ(others.code, Errc::conflict);
  EXPECT_THAT(others.message, HasSubstr("among the first 10 are others"));
  EXPECT_EQ(stored_bytes(to_), evidence);
  EXPECT_THAT(problems(), IsEmpty()) << "it can still be restored";
}

TEST_F(BackupTest, ALogBehindItsCheckpointIsNoticedBeforeAnythingIsCopied) {
  server_.join(5);
  server_.stop();
  fs::copy(data_ / "events", dir_ / "snapshot", fs::copy_options::recursive);
  server_.start();
  server_.join(5, "bb");
  server_.sign();
  server_.stop();
  fs::remove_all(data_ / "events");
  fs::rename(dir_ / "snapshot", data_ / "events");
  const Error error = try_backup().error();
  EXPECT_EQ(error.code, Errc::conflict);
  EXPECT_THAT(error.message, HasSubstr("saw 10 records, and the log has 5: it went back"));
  server_.start();
  ASSERT_TRUE(*server_.keeper().notice_past());
  EXPECT_EQ(back_up().head.size, 6U) << "the server has said what happened";
}

TEST_F(BackupTest, DamageInTheLogDoesNotGetIntoTheBackup) {
  server_.join(20);
  back_up();
  server_.join(20, "bb");
  server_.stop();
  std::string bytes = *(*EventLog::follow({.dir = data_ / "events"}))->read_bytes(33);
  bytes[30] = static_cast<char>(bytes[30] ^ 4);
  test::overwrite_record(data_ / "events", 33, bytes);
  const Error error = try_backup().error();
  EXPECT_EQ(error.code, Errc::corrupt);
  EXPECT_THAT(error.message, HasSubstr("record 33 was changed"));
  EXPECT_THAT(error.message, HasSubstr("holds the 32 records before it"));
  EXPECT_EQ(sound(to_), "");
  EXPECT_EQ(stored_bytes(to_).size(), 32U);
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_EQ(try_restore()->restored, 32U);
}

TEST_F(BackupTest, ARecordThatIsMissingOrMadeUpIsNotCopied) {
  server_.join(5);
  server_.stop();
  test::overwrite_record(data_ / "events", 3, "no record");
  EXPECT_THAT(try_backup().error().message, HasSubstr("record 3 was changed"));
}

TEST_F(BackupTest, AForgedCheckpointIsToldOf) {
  server_.join(5);
  server_.sign();
  const std::string note = file_bytes(data_ / "checkpoints" / "latest");
  std::string forged = note;
  forged.replace(forged.find("\n5\n"), 3, "\n4\n");
  put_file(data_ / "checkpoints" / "latest", forged);
  EXPECT_THAT(try_backup().error().message, HasSubstr("checkpoints/latest"));
  put_file(data_ / "checkpoints" / "latest", note);
  back_up();
}

TEST_F(BackupTest, NobodyAppendsToABackup) {
  server_.join(1);
  back_up();
  Ledger::Options options;
  options.log.dir = to_ / "events";
  EXPECT_THAT(Ledger::open(std::move(options)).error().message, HasSubstr("is a backup"));
}

// ---- restore ---------------------------------------------------------------------------------------------

TEST_F(BackupTest, ARestoredLogGoesOnInANewEpoch) {
  server_.join(7);
  server_.sign();
  back_up();
  server_.join(3, "lost");
  server_.stop();
  const Result<RestoreReport> report = try_restore();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->restored, 8U);
  EXPECT_EQ(report->record, 9U);
  EXPECT_EQ(sound(fresh_), "");
  for (const char* name : {"cred/fingerprint.key", "cred/passwd", "token", "tls/server-ca.key"}) {
    EXPECT_EQ(file_bytes(fresh_ / name), file_bytes(data_ / name)) << name;
    EXPECT_EQ(mode_of(fresh_ / name), 0600) << name;
  }
  EXPECT_FALSE(fs::exists(fresh_ / "backup.json"));
  Server after(fresh_);
  after.start();
  const Result<Record> epoch = after.ledger().log().read(9);
  ASSERT_TRUE(epoch);
  const auto* started = as<EpochStarted>(*epoch);
  ASSERT_NE(started, nullptr);
  EXPECT_EQ(started->cause, "restored");
  EXPECT_EQ(started->head_before, 8);
  EXPECT_EQ(started->head_after, 8);
  EXPECT_EQ(epoch->epoch, 2);
  EXPECT_EQ(after.ledger().epoch(), 2);
  EXPECT_THAT(epoch->note, HasSubstr("restored from the backup in " + to_.string() + ", made 2124-06-11T12:00:00Z"));
  EXPECT_FALSE(*after.keeper().notice_past());
  EXPECT_EQ(test::register_node(after.ledger(), "n1", "aa").ruling, Ruling::admit_known);
  EXPECT_EQ(test::register_node(after.ledger(), "n1", "lost").ruling, Ruling::refuse_mismatch);
  after.stop();
  EXPECT_EQ(sound(fresh_), "");
  // The same backup goes on with the restored log.
  EXPECT_TRUE(backup({.data_dir = fresh_, .to = to_, .now = now_}));
}

TEST_F(BackupTest, WhatACheckpointElsewhereSawIsLostOnceAndNotFoundAgain) {
  server_.join(4);
  server_.sign();
  back_up();
  server_.join(4, "bb");
  server_.sign();
  const fs::path elsewhere = dir_ / "audit";
  fs::copy(data_ / "checkpoints" / "latest", elsewhere);
  server_.stop();
  const Result<RestoreReport> report = try_restore({}, {elsewhere});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->head_before, 9U);
  EXPECT_EQ(report->restored, 5U);
  Ledger::Options options;
  options.log.dir = fresh_ / "events";
  const auto ledger = Ledger::open(std::move(options));
  ASSERT_TRUE(ledger);
  const auto keeper = CheckpointKeeper::open({.data_dir = fresh_, .places = {file_place(elsewhere)}}, **ledger);
  ASSERT_TRUE(keeper);
  EXPECT_FALSE(*(*keeper)->notice_past()) << "the restore has recorded it";
  EXPECT_EQ((*ledger)->log().head(), 6U);
  EXPECT_EQ(as<EpochStarted>(*(*ledger)->log().read(6))->head_before, 9);
}

TEST_F(BackupTest, RestoresToAnyRecord) {
  for (int i = 0; i < 6; ++i) {
    server_.join(1, "f" + std::to_string(i));
    server_.sign();
  }
  back_up();
  const auto all = stored_bytes(to_);
  for (Seq seq = 1; seq <= all.size(); seq += seq < 3 ? 1 : 3) {
    fs::remove_all(fresh_);
    const Result<RestoreReport> report = try_restore(seq);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->head_before, all.size());
    const auto restored = stored_bytes(fresh_);
    ASSERT_EQ(restored.size(), seq + 1);
    EXPECT_TRUE(std::equal(restored.begin(), restored.end() - 1, all.begin()));
    EXPECT_EQ(sound(fresh_), "");
    Server after(fresh_);
    after.start();
    EXPECT_FALSE(*after.keeper().notice_past()) << "at " << seq;
    after.stop();
  }
  fs::remove_all(fresh_);
  EXPECT_THAT(refusal(all.size() + 1), HasSubstr("holds records 1 to 12, there is no record 13"));
}

TEST_F(BackupTest, NothingIsOverwritten) {
  server_.join(2);
  back_up();
  put_file(dir_ / "fresh", "a file");
  EXPECT_THAT(refusal(), HasSubstr("is not empty"));
  fs::remove(fresh_);
  fs::create_directory(fresh_);
  put_file(fresh_ / "letters", "");
  EXPECT_THAT(refusal(), HasSubstr("is not empty"));
  fs::remove(fresh_ / "letters");
  ASSERT_TRUE(try_restore()) << "an empty one will do";
  EXPECT_THAT(refusal(), HasSubstr("is not empty: it is a data directory"));
  RestoreOptions options;
  options.backup.from = to_;
  options.now = now_;
  for (const fs::path& place : {to_, to_ / "new", data_}) {
    options.data_dir = place;
    EXPECT_FALSE(restore(options)) << place;
  }
  EXPECT_EQ(sound(to_), "");
  EXPECT_EQ(sound(data_), "");
}

TEST_F(BackupTest, AnInterruptedRestoreCannotBeStartedAndGoesOn) {
  server_.join(9);
  back_up();
  const auto half = [&](Seq last) {
    EventLog::Options copy;
    copy.dir = fresh_ / "events";
    copy.copy_of = EventLog::Options::CopyOf{server_.ledger().log().id(), CopyPurpose::restore};
    ASSERT_TRUE(ensure_private_directory(copy.dir));
    const auto log = EventLog::open(copy);
    ASSERT_TRUE(log) << log.error().message;
    ASSERT_TRUE(copy_records(server_.ledger().log(), **log, last));
  };
  half(4);
  Ledger::Options options;
  options.log.dir = fresh_ / "events";
  EXPECT_THAT(Ledger::open(std::move(options)).error().message, HasSubstr("run `ledger restore` again"));
  EXPECT_THAT(refusal(3), HasSubstr("another restore was begun"));
  EXPECT_EQ(backup({.data_dir = fresh_, .to = dir_ / "other", .now = now_}).error().code, Errc::invalid);
  const Result<RestoreReport> report = try_restore();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->restored, 9U);
  EXPECT_EQ(sound(fresh_), "");
}

TEST_F(BackupTest, ABackupThatIsNotWholeIsNotRestored) {
  server_.join(9);
  server_.sign();
  back_up();
  const auto spoiled = [&](const fs::path& name, const std::string& bytes) {
    const std::string was = file_bytes(to_ / name);
    put_file(to_ / name, bytes);
    std::string said = refusal();
    put_file(to_ / name, was);
    return said;
  };
  EXPECT_THAT(spoiled("cred/passwd", "other"), HasSubstr("cred/passwd' is not what was backed up"));
  EXPECT_THAT(spoiled("checkpoints/all", "other"), HasSubstr("checkpoints/all"));
  EXPECT_THAT(spoiled("backup.json", "{}"), HasSubstr("is not what `ledger backup` writes"));
  EXPECT_THAT(spoiled("backup.json", R"({"format":7,"version":"3.1"})"),
              HasSubstr("has backup format 7, written by ledger 3.1; this is ledger"));
  for (const char* name : {"../../etc/passwd", "/etc/passwd", "events/CURRENT", "cred/../../x", ""}) {
    std::string json = file_bytes(to_ / "backup.json");
    json.replace(json.find("cred/passwd"), 11, name);
    EXPECT_THAT(spoiled("backup.json", json), HasSubstr("is not what `ledger backup` writes")) << name;
  }
  fs::rename(to_ / "cred", dir_ / "cred");
  fs::create_symlink(dir_ / "cred", to_ / "cred");
  EXPECT_THAT(refusal(), HasSubstr("is a link, which is not followed"));
  fs::remove(to_ / "cred");
  fs::rename(dir_ / "cred", to_ / "cred");
  fs::permissions(to_ / "token", fs::perms::owner_all);
  EXPECT_THAT(refusal(), HasSubstr("its mode is another"));
  fs::permissions(to_ / "token", fs::perms::owner_read | fs::perms::owner_write);
  EXPECT_FALSE(fs::exists(fresh_)) << "nothing was begun";

  std::string bytes = *(*EventLog::follow({.dir = to_ / "events"}))->read_bytes(5);
  bytes[30] = static_cast<char>(bytes[30] ^ 4);
  test::overwrite_record(to_ / "events", 5, bytes);
  EXPECT_THAT(refusal(), HasSubstr("record 5 was changed"));
  EXPECT_FALSE(fs::exists(fresh_));
}

TEST_F(BackupTest, WhatIsNoBackupIsSaidToBeNone) {
  EXPECT_THAT(refusal(), HasSubstr("there is no backup in"));
  server_.join(1);
  back_up();
  fs::remove(to_ / "backup.json");
  EXPECT_THAT(refusal(), HasSubstr("holds no finished backup"));
  back_up();
  EXPECT_EQ(try_restore()->restored, 1U);
}

TEST_F(BackupTest, AStoreThatWasInterruptedWhileItWasMadeIsNotInTheWay) {
  server_.join(2);
  for (const fs::path& place : {to_, fresh_}) {
    fs::create_directories(place / "events");
    put_file(place / "events" / "MANIFEST-000001", "");
    put_file(place / "events" / "LOCK", "");
  }
  back_up();
  EXPECT_EQ(try_restore()->restored, 2U);
  EXPECT_EQ(sound(fresh_), "");
}

// The run after the first is interrupted while it replaces files: each is the old or the new one.
TEST_F(BackupTest, AnInterruptedBackupCanStillBeRestored) {
  server_.join(3);
  back_up();
  const std::string before = file_bytes(to_ / "backup.json");
  const std::string old_passwd = file_bytes(to_ / "cred" / "passwd");
  server_.join(3, "bb");
  put_file(data_ / "cred" / "passwd", old_passwd + "\n");
  put_file(data_ / "tls" / "listener-names", "b.example.org\n");
  back_up();
  fs::rename(to_ / "backup.json", to_ / "backup.json.next");
  put_file(to_ / "backup.json", before);
  fs::permissions(to_ / "backup.json", fs::perms::owner_read | fs::perms::owner_write);
  put_file(to_ / "tls" / "listener-names", "a.example.org\n");
  EXPECT_THAT(problems(), IsEmpty());
  const Result<RestoreReport> report = try_restore();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->restored, 6U) << "the whole log";
  EXPECT_EQ(file_bytes(fresh_ / "cred" / "passwd"), old_passwd + "\n");
  EXPECT_EQ(back_up().copied.records, 0U);
  EXPECT_FALSE(fs::exists(to_ / "backup.json.next"));
}

// Whatever happens between backups, a backup is a prefix, and its restore is the fold of it. LEDGER_BACKUP_ROUNDS sets
// the number of histories.
TEST(BackupProperty, ABackupIsAlwaysAPrefixAndComesBack) {
  const char* text = std::getenv("LEDGER_BACKUP_ROUNDS");
  const int rounds = text == nullptr ? 3 : std::atoi(text);
  const Time now = *Time::parse("2124-06-11T12:00:00Z");
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    std::mt19937 random(static_cast<unsigned>(round));
    const auto below = [&](unsigned bound) { return static_cast<int>(random() % bound); };
    const test::TempDir dir(test::memory_directory());
    const fs::path data = dir / "data", to = dir / "backup";
    Server server(data);
    server.start();
    Seq backed = 0;
    for (int step = 0; step < 8 || backed == 0; ++step) {
      const int what = below(6);
      if (what == 0 || step == 7) {
        server.join(1);
        const auto report = backup({.data_dir = data, .to = to, .now = now});
        ASSERT_TRUE(report) << report.error().message;
        ASSERT_EQ(report->copied.records, server.head() - backed);
        backed = server.head();
      } else if (what == 1) {
        server.sign();
      } else if (what == 2) {
        server.stop();
        server.start();
      } else {
        server.join(1 + below(40), "f" + std::to_string(below(3)));
      }
    }
    RestoreOptions options;
    options.backup.from = to;
    options.data_dir = dir / "fresh";
    options.to_seq = 1 + random() % backed;
    options.now = now;
    const auto report = restore(options);
    ASSERT_TRUE(report) << report.error().message;
    const auto all = stored_bytes(data), restored = stored_bytes(dir / "fresh");
    ASSERT_EQ(restored.size(), *options.to_seq + 1);
    ASSERT_TRUE(std::equal(restored.begin(), restored.end() - 1, all.begin()));
    const auto log = EventLog::follow({.dir = dir / "fresh" / "events"});
    ASSERT_TRUE(log);
    ASSERT_THAT(broken_promises(**log), IsEmpty());
  }
}

}  // namespace
}  // namespace ledger
