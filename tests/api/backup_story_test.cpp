// Backup and restore, stats and compact: the real program beside a real server under load.
// LEDGER_KILL_ROUNDS sets how often the backup is killed (default 4).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <atomic>
#include <boost/json.hpp>
#include <cstdlib>
#include <random>
#include <thread>

#include "ledger/checkpoint.h"
#include "ledger/event_log.h"
#include "tests/support/overwrite_record.h"
#include "tests/support/server_process.h"
#include "tests/support/verify_log.h"

namespace ledger {
namespace {

namespace fs = std::filesystem;
using test::CommandResult;
using test::file_bytes;
using test::kubelet_request;
using test::run_command;
using test::ServerProcess;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class BackupStory : public ::testing::Test {
 protected:
  CommandResult ledger(const std::string& arguments) const {
    return run_command(test::ledger_binary() + " " + arguments);
  }
  CommandResult backup(const std::string& more = "") const {
    return ledger("backup --data-dir " + data_.string() + " --to " + to_.string() + " " + more);
  }
  CommandResult restore(const std::string& more = "") const {
    return ledger("restore --from " + to_.string() + " --data-dir " + fresh_.string() + " " + more);
  }
  static int join(ServerProcess& server, const std::string& node, const std::string& password) {
    auto client = server.client();
    const auto answer = client.send(kubelet_request(server, node, password));
    return answer ? answer->status : -1;
  }
  // Registers fresh names until `stop`.
  void load(ServerProcess& server, const std::string& prefix, std::atomic<bool>& stop, std::atomic<int>& joined) {
    auto client = server.client(true);
    while (!stop) {
      const int i = joined++;
      const auto answer = client.send(kubelet_request(server, prefix + std::to_string(i), "password-0123456789"));
      ASSERT_TRUE(answer && answer->status == 200) << (answer ? answer->body : answer.error().message);
    }
  }
  static std::vector<std::string> broken(const fs::path& data_dir) {
    const auto log = EventLog::follow({.dir = data_dir / "events"});
    return log ? test::broken_promises(**log) : std::vector<std::string>{log.error().message};
  }
  static Seq head_of(const fs::path& data_dir) {
    const auto log = EventLog::follow({.dir = data_dir / "events"});
    return log ? (*log)->head() : 0;
  }

  test::TempDir dir_;
  const fs::path data_ = dir_ / "data", to_ = dir_ / "backup", fresh_ = dir_ / "fresh";
};

TEST_F(BackupStory, BesideAServerUnderLoadAndKilledAtRandomMoments) {
  ServerProcess server(data_, {"--checkpoint-every-records", "50"});
  ASSERT_TRUE(server.start()) << server.errors();
  std::atomic<bool> stop{false};
  std::atomic<int> joined{0};
  std::thread clients([&] { load(server, "n-", stop, joined); });
  const char* text = std::getenv("LEDGER_KILL_ROUNDS");
  const int rounds = text == nullptr ? 4 : std::atoi(text);
  std::mt19937 random(20261123);
  Seq before = 0;
  for (int round = 0; round < rounds; ++round) {
    char seconds[16];
    std::snprintf(seconds, sizeof seconds, "0.%03d", static_cast<int>(20 + random() % 500));
    run_command("timeout -s KILL " + std::string(seconds) + " " + test::ledger_binary() + " backup --data-dir " +
                data_.string() + " --to " + to_.string() + " >/dev/null 2>&1");
    const CommandResult whole = backup("--format json");
    ASSERT_EQ(whole.status, 0) << whole.output;
    const auto said = boost::json::parse(whole.output);
    const Seq head = said.at("head").to_number<Seq>();
    EXPECT_GT(head, before);
    before = head;
    EXPECT_EQ(head_of(to_), head);
    EXPECT_THAT(broken(to_), IsEmpty()) << "round " << round;
  }
  stop = true;
  clients.join();
  EXPECT_GT(joined, 0);
  const CommandResult last = backup();
  EXPECT_EQ(last.status, 0) << last.output;
  EXPECT_THAT(last.output, HasSubstr("what is new was read back; the root is that of the checkpoint of"));
  EXPECT_THAT(last.output, Not(HasSubstr(std::string(trim(file_bytes(data_ / "cred" / "operator-token"))))));
  const CommandResult verified = ledger("verify --data-dir " + to_.string());
  EXPECT_EQ(verified.status, 0) << verified.output;
  EXPECT_EQ(server.stop(), 0) << server.errors();

  // The machine is lost; the backup is put in its place, and agents come back.
  ASSERT_EQ(backup().status, 0);
  fs::remove_all(data_);
  for (int round = 0; round < rounds; ++round) {
    fs::remove_all(fresh_);
    char seconds[16];
    std::snprintf(seconds, sizeof seconds, "0.%03d", static_cast<int>(20 + random() % 300));
    run_command("timeout -s KILL " + std::string(seconds) + " " + test::ledger_binary() + " restore --from " +
                to_.string() + " --data-dir " + fresh_.string() + " >/dev/null 2>&1");
    const CommandResult whole = restore();
    if (whole.status != 0) {
      EXPECT_THAT(whole.output, HasSubstr("it is a data directory")) << "the killed one was through";
    }
    EXPECT_EQ(head_of(fresh_), head_of(to_) + 1);
    EXPECT_THAT(broken(fresh_), IsEmpty()) << "round " << round;
  }
  ServerProcess again(fresh_);
  ASSERT_TRUE(again.start()) << again.errors();
  EXPECT_THAT(again.errors(), Not(HasSubstr("went back")));
  EXPECT_EQ(join(again, "n-0", "password-0123456789"), 200);
  EXPECT_EQ(join(again, "n-0", "another"), 403);
  EXPECT_EQ(join(again, "fresh", "password-0123456789"), 200);
  EXPECT_EQ(again.stop(), 0);
  EXPECT_THAT(broken(fresh_), IsEmpty());
  const CommandResult sound = ledger("verify --data-dir " + fresh_.string());
  EXPECT_EQ(sound.status, 0) << sound.output;
}

// web-1 is rebuilt and let in after the backup; the backup is restored; web-1 is refused, and it is said why.
TEST_F(BackupStory, ARefusalAfterARestoreIsExplained) {
  ServerProcess server(data_);
  ASSERT_TRUE(server.start()) << server.errors();
  ASSERT_EQ(join(server, "web-1", "first-password"), 200);
  ASSERT_EQ(join(server, "web-2", "stays"), 200);
  ASSERT_EQ(backup().status, 0);
  ASSERT_EQ(join(server, "web-1", "rebuilt-password"), 403);
  ASSERT_EQ(ledger("node release web-1 --force --reason rebuilt --data-dir " + data_.string()).status, 0);
  ASSERT_EQ(join(server, "web-1", "rebuilt-password"), 200);
  ASSERT_EQ(join(server, "web-3", "joined-later"), 200);
  ASSERT_EQ(server.stop(), 0);

  const CommandResult restored = restore("--against " + (data_ / "checkpoints" / "latest").string());
  ASSERT_EQ(restored.status, 0) << restored.output;
  EXPECT_THAT(restored.output, AllOf(HasSubstr("epoch_started (restored)"), HasSubstr("RESTORED"),
                                     HasSubstr("hold and revoke")));
  const Seq kept = head_of(to_), was = head_of(data_);
  EXPECT_THAT(restored.output, HasSubstr("records " + std::to_string(kept + 1) + " to " + std::to_string(was)));

  ServerProcess again(fresh_);
  ASSERT_TRUE(again.start()) << again.errors();
  EXPECT_EQ(join(again, "web-3", "joined-later"), 200) << "unknown, so it registers anew";
  EXPECT_EQ(join(again, "web-2", "stays"), 200);
  EXPECT_EQ(join(again, "web-1", "rebuilt-password"), 403);
  const CommandResult why = ledger("replay --node web-1 --data-dir " + fresh_.string());
  EXPECT_THAT(why.output, HasSubstr("RESTORED")) << why.output;
  EXPECT_THAT(why.output, HasSubstr("snapshot")) << why.output;
  const std::string fingerprint = [&] {
    const auto state = (*EventLog::follow({.dir = fresh_ / "events"}))->node("web-1");
    return (*state)->rejected.fingerprint.text;
  }();
  ASSERT_EQ(ledger("node accept web-1 --force --fingerprint " + fingerprint + " --reason restored --data-dir " +
                   fresh_.string())
                .status,
            0);
  EXPECT_EQ(join(again, "web-1", "rebuilt-password"), 200);
  EXPECT_EQ(again.stop(), 0);
}

TEST_F(BackupStory, WhatIsRefused) {
  {
    ServerProcess server(data_);
    ASSERT_TRUE(server.start()) << server.errors();
    ASSERT_EQ(join(server, "web-1", "first-password"), 200);
    ASSERT_EQ(backup("--without-secrets").status, 0);
    const CommandResult running =
        ledger("restore --from " + to_.string() + " --data-dir " + data_.string());
    EXPECT_EQ(running.status, 1);
    EXPECT_THAT(running.output, HasSubstr("a server runs on it"));
    EXPECT_EQ(server.stop(), 0);
  }
  EXPECT_EQ(ledger("restore --from " + to_.string()).status, 2);
  EXPECT_EQ(ledger("backup --data-dir " + data_.string()).status, 2);
  EXPECT_EQ(ledger("backup --data-dir /nonexistent --to " + to_.string()).status, 1);
  ServerProcess on_backup(to_);
  EXPECT_FALSE(on_backup.start());
  EXPECT_EQ(on_backup.wait(), 1);
  EXPECT_THAT(on_backup.errors(), HasSubstr("is a backup, which only `ledger backup` writes to"));
  // Reading commands read it.
  EXPECT_EQ(ledger("replay --node web-1 --data-dir " + to_.string()).status, 0);
  EXPECT_EQ(ledger("export --data-dir " + to_.string() + " >/dev/null").status, 0);
  EXPECT_EQ(ledger("verify --data-dir " + to_.string()).status, 0);

  const CommandResult restored = restore();
  EXPECT_EQ(restored.status, 0) << restored.output;
  EXPECT_THAT(restored.output, HasSubstr("MISSING"));
  ServerProcess without(fresh_);
  EXPECT_FALSE(without.start());
  EXPECT_EQ(without.wait(), 1);
  EXPECT_THAT(without.errors(), HasSubstr("fingerprint.key"));
  for (const char* name : {"cred", "tls"}) {
    fs::remove_all(fresh_ / name);
    fs::copy(data_ / name, fresh_ / name, fs::copy_options::recursive);
  }
  for (const char* name : {"token", "node-token", "agent-token"})
    fs::copy(data_ / name, fresh_ / name, fs::copy_options::copy_symlinks);
  ASSERT_TRUE(without.start()) << without.errors();
  EXPECT_EQ(join(without, "web-1", "first-password"), 200);
  EXPECT_EQ(without.stop(), 0);
}

TEST_F(BackupStory, ListAndCheckSayWhatABackupHolds) {
  ServerProcess server(data_);
  ASSERT_TRUE(server.start()) << server.errors();
  ASSERT_EQ(join(server, "web-1", "first-password"), 200);
  ASSERT_EQ(server.stop(), 0);
  ASSERT_EQ(backup().status, 0);
  const auto json = boost::json::parse(
      ledger("restore --from " + to_.string() + " --check --format json --against " +
             (data_ / "checkpoints" / "latest").string())
          .output);
  EXPECT_EQ(json.at("head").to_number<Seq>(), head_of(data_));
  EXPECT_EQ(json.at("nodes").to_number<int>(), 1);
  EXPECT_EQ(json.at("problems").as_array().size(), 0U);
  EXPECT_GE(json.at("checkpoints").to_number<int>(), 1);
  std::string bytes = *(*EventLog::follow({.dir = to_ / "events"}))->read_bytes(4);
  bytes[25] = static_cast<char>(bytes[25] ^ 1);
  test::overwrite_record(to_ / "events", 4, bytes);
  EXPECT_EQ(ledger("restore --from " + to_.string() + " --list").status, 0) << "quick, and says so little";
  const CommandResult damaged = ledger("restore --from " + to_.string() + " --check");
  EXPECT_EQ(damaged.status, 1);
  EXPECT_THAT(damaged.output, AllOf(HasSubstr("record 4 was changed"), HasSubstr("DAMAGED")));
}

TEST_F(BackupStory, StatsAndCompactBesideAServerThatGoesOn) {
  ServerProcess server(data_);
  ASSERT_TRUE(server.start()) << server.errors();
  std::atomic<bool> stop{false};
  std::atomic<int> joined{0};
  std::thread clients([&] { load(server, "n-", stop, joined); });
  const CommandResult compacted = ledger("compact --data-dir " + data_.string() + " --format json");
  stop = true;
  clients.join();
  ASSERT_EQ(compacted.status, 0) << compacted.output;
  const auto merged = boost::json::parse(compacted.output);
  EXPECT_TRUE(merged.at("by_server").as_bool());
  EXPECT_GT(merged.at("before").to_number<Seq>(), 0U);
  const CommandResult stats = ledger("stats --data-dir " + data_.string() + " --format json");
  ASSERT_EQ(stats.status, 0) << stats.output;
  const auto json = boost::json::parse(stats.output);
  const Seq head = head_of(data_);
  EXPECT_EQ(json.at("head").to_number<Seq>(), head);
  Seq records = 0, bytes = 0;
  for (const auto& [name, kind] : json.at("kinds").as_object()) {
    records += kind.at("records").to_number<Seq>();
    bytes += kind.at("bytes").to_number<Seq>();
  }
  EXPECT_EQ(records, head);
  EXPECT_EQ(bytes, json.at("record_bytes").to_number<Seq>());
  EXPECT_EQ(json.at("kinds").at("password_stored").at("records").to_number<int>(), joined);
  EXPECT_EQ(json.at("nodes").at("registered").to_number<int>(), joined);
  const CommandResult quick = ledger("stats --quick --data-dir " + data_.string());
  EXPECT_EQ(quick.status, 0);
  EXPECT_THAT(quick.output, AllOf(HasSubstr("registered"), Not(HasSubstr("records by kind"))));
  EXPECT_EQ(server.stop(), 0);
  const CommandResult stopped = ledger("compact --data-dir " + data_.string());
  EXPECT_EQ(stopped.status, 0) << stopped.output;
  EXPECT_THAT(broken(data_), IsEmpty());
  EXPECT_EQ(ledger("stats --data-dir " + (dir_ / "none").string()).status, 1);
}

TEST_F(BackupStory, AFullDiskEndsTheBackupWithASentence) {
  fs::create_directory(to_);
  if (::mount("none", to_.c_str(), "tmpfs", 0, "size=4m") != 0) GTEST_SKIP() << "only root may mount a small disk";
  struct Unmount {
    fs::path place;
    ~Unmount() { ::umount2(place.c_str(), MNT_DETACH); }
  } unmount{to_};
  ServerProcess server(data_);
  ASSERT_TRUE(server.start()) << server.errors();
  ASSERT_EQ(join(server, "web-1", "first-password"), 200);
  ASSERT_EQ(server.stop(), 0);
  fs::create_directory(data_ / "archives");
  test::put_file(data_ / "archives" / "big.archive", std::string(8 << 20, 'x'));
  const CommandResult full = backup();
  EXPECT_EQ(full.status, 1) << full.output;
  EXPECT_THAT(full.output, AllOf(HasSubstr("No space left"), Not(HasSubstr("Assertion"))));
  EXPECT_FALSE(fs::exists(to_ / "archives" / "big.archive.tmp"));
  fs::remove(data_ / "archives" / "big.archive");
  const CommandResult fits = backup();
  EXPECT_EQ(fits.status, 0) << fits.output;
  EXPECT_EQ(ledger("restore --check --from " + to_.string()).status, 0);

  // And where there is no room for the log itself.
  test::put_file(to_ / "hog", std::string(8 << 20, 'h'));
  const CommandResult no_room = backup();
  EXPECT_EQ(no_room.status, 1);
  EXPECT_THAT(no_room.output, AllOf(HasSubstr("no space left for the log"), Not(HasSubstr("Assertion"))));
  fs::remove(to_ / "hog");
  EXPECT_EQ(backup().status, 0);
}

}  // namespace
}  // namespace ledger
