// What befalls a process, done to the real server while clients work: it is stopped and continued, its disk becomes
// read-only or full or broken, its descriptors run out, its clock jumps. Each time: nothing that was acknowledged
// is lost, nothing that could not be recorded is answered with success, and standard error says in words what is
// wrong.
//
// A file system cannot be remounted read-only while the server writes to it (EBUSY; the kernel does it itself,
// after an error of the disk), so what the server sees then comes from support/fault_shim.cpp, as the clock's jumps
// do. Disks that are really full: tests/api/server_test.cpp, SmallDisk. kill -9: kill_test.cpp.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <cerrno>
#include <map>
#include <mutex>
#include <thread>

#include "ledger/event_log.h"
#include "replay/verify.h"
#include "tests/support/paths.h"
#include "tests/support/raw_link.h"
#include "tests/support/server_process.h"
#include "tests/support/verify_log.h"

namespace ledger {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

constexpr int kClients = 6;

// The server under the shim: a script that becomes it.
class ProcessFaults : public testing::Test {
 protected:
  ProcessFaults() {
    test::put_file(dir_ / "faults", "clock 0\n");
    test::put_file(dir_ / "shimmed",
                   "#!/bin/sh\n"
                   "export LEDGER_FAULTS='" +
                       (dir_ / "faults").string() +
                       "'\n"
                       "export LD_PRELOAD='" LEDGER_FAULT_SHIM
                       "'\n"
                       "export ASAN_OPTIONS=\"verify_asan_link_order=0:$ASAN_OPTIONS\"\n"
                       "exec '" +
                       test::ledger_binary() + "' \"$@\"\n");
    std::filesystem::permissions(dir_ / "shimmed", std::filesystem::perms(0755));
  }

  void start(std::vector<std::string> options = {}) {
    server_ = std::make_unique<test::ServerProcess>(dir_ / "data", std::move(options), (dir_ / "shimmed").string());
    ASSERT_TRUE(server_->start()) << server_->errors();
  }
  void fault(const std::string& what) {
    test::put_file(dir_ / "faults.new", what + "\n");
    std::filesystem::rename(dir_ / "faults.new", dir_ / "faults");
  }

  struct Told {
    std::string node, password;
    int status = 0;
    Seq seq = 0;
  };

  // Clients join, and try wrong passwords, until told to end or the server is gone for good.
  void begin_load(std::chrono::milliseconds patience) {
    ending_ = false;
    for (int c = 0; c < kClients; ++c)
      clients_.emplace_back([this, c, patience] {
        for (int i = 0; !ending_; ++i) {
          const std::string node =
              "n-" + std::to_string(c) + "-" + std::to_string(i / 3) + "-" + std::to_string(life_);
          ask(node, i % 3 == 2 ? "wrong" : "right-" + node, patience);
        }
      });
  }
  void end_load() {
    ending_ = true;
    for (std::thread& client : clients_) client.join();
    clients_.clear();
    ++life_;
  }

  // 0: no answer.
  int ask(const std::string& node, const std::string& password, std::chrono::milliseconds patience = 20s) {
    api::HttpsOptions options;
    options.connect_to = {"127.0.0.1", static_cast<std::uint16_t>(server_->port())};
    options.trust = api::HttpsTrust::bundle;
    options.bundle_pem = server_->ca();
    options.timeout = patience;
    auto https = api::HttpsClient::open(std::move(options));
    const auto response = https->send(test::kubelet_request(*server_, node, password));
    Told told{node, password, response ? response->status : 0, 0};
    if (response && (told.status == 200 || told.status == 403))
      told.seq = std::stoull("0" + std::string(response->header("Ledger-Seq")));
    const std::lock_guard lock(mutex_);
    ++counts_[told.status];
    told_.push_back(std::move(told));
    return told_.back().status;
  }
  int count(int status) {
    const std::lock_guard lock(mutex_);
    return counts_[status];
  }
  bool reached(int status, int number) {
    for (int i = 0; i < 3000 && count(status) < number; ++i) std::this_thread::sleep_for(10ms);
    return count(status) >= number;
  }

  // Every reply against the log, which is closed.
  void check() {
    const auto log = EventLog::follow({.dir = dir_ / "data" / "events"});
    ASSERT_TRUE(log) << log.error().message;
    std::int64_t refused = 0, unheard = 0;
    for (const Told& told : told_) {
      ASSERT_THAT(told.status, AnyOf(0, 200, 403, 503)) << told.node;
      refused += told.status == 403 ? 1 : 0;
      unheard += told.status == 0 || told.status == 503 ? 1 : 0;
      if (told.seq == 0) {
        ASSERT_THAT(told.status, AnyOf(0, 503)) << "success without a record";
        continue;
      }
      const Result<Record> record = (*log)->read(told.seq);
      ASSERT_TRUE(record) << "acknowledged and lost: " << told.node << ": " << record.error().message;
      EXPECT_EQ(record->node, told.node);
      EXPECT_EQ(record->kind(), told.status == 200 ? Kind::certificate_issued : Kind::password_rejected);
    }
    const std::int64_t recorded = test::outcomes(**log, Kind::password_rejected);
    EXPECT_GE(recorded, refused) << "a refusal that was answered is not in the log";
    EXPECT_LE(recorded, refused + unheard) << "a refusal is in the log that nobody asked for";
    std::map<std::string, int> first;
    for (const Record& record : test::all_records(**log))
      if (as<PasswordStored>(record) != nullptr) {
        EXPECT_EQ(++first[record.node], 1) << record.node << " has a second first binding";
      }
    const auto report = replay::verify(**log, {}, replay::checkpoints_of(dir_ / "data"));
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(report->sound()) << report->damage.front().text;
  }

  // A write fails in the middle of load: 503 and nothing else, an end with words, and a start that finds
  // everything.
  void expect_a_storage_failure(int error, const std::string& words) {
    start();
    begin_load(5s);
    ASSERT_TRUE(reached(200, 30)) << server_->errors();
    fault("errno " + std::to_string(error));
    EXPECT_EQ(server_->wait(), 1) << server_->errors();
    end_load();
    EXPECT_THAT(server_->errors(), HasSubstr("cannot record: "));
    EXPECT_THAT(server_->errors(), HasSubstr(words));
    EXPECT_FALSE(server_->start()) << "the disk is as it was";
    EXPECT_EQ(server_->wait(), 1);
    fault("errno 0");
    ASSERT_TRUE(server_->start()) << server_->errors();
    EXPECT_EQ(ask("afterwards", "pw"), 200);
    for (const Told& told : std::vector<Told>(told_.begin(), told_.begin() + 20))
      EXPECT_EQ(ask(told.node, told.password), told.status);
    EXPECT_EQ(server_->stop(), 0) << server_->errors();
    check();
  }

  test::TempDir dir_;
  std::unique_ptr<test::ServerProcess> server_;
  std::vector<std::thread> clients_;
  std::atomic<bool> ending_{false};
  int life_ = 0;
  std::mutex mutex_;  // guards:
  std::vector<Told> told_;
  std::map<int, int> counts_;
};

TEST_F(ProcessFaults, StoppedAndContinuedItLosesNothing) {
  start();
  begin_load(700ms);
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(reached(200, 20 * (round + 1))) << server_->errors();
    const int unheard = count(0);
    ::kill(server_->pid(), SIGSTOP);
    ASSERT_TRUE(reached(0, unheard + kClients)) << "everybody must run into the stop";
    const int before = count(200);
    ::kill(server_->pid(), SIGCONT);
    ASSERT_TRUE(reached(200, before + 10)) << "it does not go on: " << server_->errors();
  }
  end_load();
  // Who heard nothing asks again, with the same password, and is admitted.
  int again = 0;
  for (const Told& told : std::vector<Told>(told_)) {
    if (told.status != 0 || told.password == "wrong" || ++again > 20) continue;
    EXPECT_EQ(ask(told.node, told.password), 200) << told.node;
  }
  EXPECT_GT(again, 0);
  EXPECT_EQ(server_->stop(), 0) << server_->errors();
  check();
  const auto log = EventLog::follow({.dir = dir_ / "data" / "events"});
  EXPECT_EQ(test::outcomes(**log, Kind::clock_stepped), 0) << "both clocks went on meanwhile";
}

TEST_F(ProcessFaults, AFileSystemThatBecomesReadOnlyIs503AndSaysSo) {
  expect_a_storage_failure(EROFS, "is read-only");
}

TEST_F(ProcessFaults, AFullDiskIs503AndSaysSo) { expect_a_storage_failure(ENOSPC, "no space left for"); }

TEST_F(ProcessFaults, ABrokenDiskIs503AndSaysSo) { expect_a_storage_failure(EIO, "Input/output error"); }

// Idle connections take all descriptors: those are given up, agents join, and the journal says it once.
TEST_F(ProcessFaults, DescriptorsThatRunOutKeepNobodyOut) {
  // Has it warn of something at the start: UBSan checks the type of the logger once, needs a pipe for that, and takes
  // the lack of descriptors for a bad pointer.
  std::filesystem::create_directory(dir_ / "data");
  std::filesystem::permissions(dir_ / "data", std::filesystem::perms(0777));
  start();
  ASSERT_THAT(server_->errors(), HasSubstr("can be written by others"));
  ASSERT_EQ(ask("before", "pw"), 200);
  const auto used = static_cast<rlim_t>(
      std::distance(std::filesystem::directory_iterator("/proc/" + std::to_string(server_->pid()) + "/fd"), {}));
  rlimit limit{};
  ASSERT_EQ(::prlimit(server_->pid(), RLIMIT_NOFILE, nullptr, &limit), 0);
  const rlimit scarce{used + 8, limit.rlim_max};
  ASSERT_EQ(::prlimit(server_->pid(), RLIMIT_NOFILE, &scarce, nullptr), 0);
  std::vector<std::unique_ptr<test::RawTcp>> idle;
  for (int i = 0; i < 40; ++i)
    idle.push_back(std::make_unique<test::RawTcp>(static_cast<std::uint16_t>(server_->port())));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask("during-" + std::to_string(i), "pw", 30s), 200);
  EXPECT_THAT(server_->errors(), HasSubstr("cannot accept a connection: Too many open files"));
  const std::string said = server_->errors();
  EXPECT_EQ(said.find("cannot accept"), said.rfind("cannot accept")) << "once a minute is enough";
  idle.clear();
  ASSERT_EQ(::prlimit(server_->pid(), RLIMIT_NOFILE, &limit, nullptr), 0);
  EXPECT_EQ(ask("after", "pw"), 200);
  EXPECT_EQ(server_->stop(), 0) << server_->errors();
  check();
}

// Forward a day, back two: both are recorded, time in the log goes on, and what ended stays ended.
TEST_F(ProcessFaults, AClockThatJumpsIsRecordedAndChangesNothing) {
  start();
  begin_load(20s);
  ASSERT_TRUE(reached(200, 10));
  api::HttpsRequest create;
  create.method = "POST";
  create.target = "/ledger/v1/tokens";
  create.authorization = Secret("Bearer " + std::string(trim(test::file_bytes(dir_ / "data/cred/operator-token"))));
  create.body = R"({"actor":"test","class":"agent","ttl":"1h"})";
  auto https = server_->client();
  const auto created = https.send(create);
  ASSERT_TRUE(created && created->status == 200) << (created ? created->body : created.error().message);
  const auto at = created->body.find("\"secret\":\"") + 10;
  const std::string secret = created->body.substr(at, created->body.find('"', at) - at);
  const auto with_it = [&] {
    api::HttpsRequest request = test::kubelet_request(*server_, "short-lived", "pw");
    request.authorization = Secret("Basic " + base64("node:" + secret));
    const auto response = https.send(request);
    return response ? response->status : 0;
  };
  EXPECT_EQ(with_it(), 200);
  fault("clock 86400");
  ASSERT_TRUE(reached(200, count(200) + 20)) << server_->errors();
  bool ended = false;
  for (int i = 0; i < 1000 && !ended; ++i) ended = with_it() == 401;
  EXPECT_TRUE(ended) << "it was valid for an hour";
  std::this_thread::sleep_for(2500ms);  // the sweep that records the end of tokens runs every second
  fault("clock -86400");
  ASSERT_TRUE(reached(200, count(200) + 20)) << server_->errors();
  EXPECT_EQ(with_it(), 401) << "the clock went back; the token's end is in the log";
  end_load();
  EXPECT_EQ(server_->stop(), 0) << server_->errors();
  check();
  std::vector<double> steps;
  const auto log = EventLog::follow({.dir = dir_ / "data" / "events"});
  for (const Record& record : test::all_records(**log))
    if (const auto* step = as<ClockStepped>(record)) steps.push_back(step->by_seconds);
  ASSERT_EQ(steps.size(), 2U);
  EXPECT_NEAR(steps[0], 86400, 5);
  EXPECT_NEAR(steps[1], -2 * 86400, 5);
}

}  // namespace
}  // namespace ledger
