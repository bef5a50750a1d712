// The server as a process: how it starts, how it refuses to start, how it stops, and what it does when the disk
// does not take any more.
#include "api/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <future>
#include <thread>

#include "api/service.h"
#include "api/websocket_client.h"
#include "ledger/token_life.h"
#include "tests/support/fault_fs.h"
#include "tests/support/paths.h"
#include "tests/support/raw_link.h"
#include "tests/support/running_server.h"
#include "tests/support/server_process.h"
#include "tests/support/verify_log.h"

namespace ledger::api {
namespace {

using namespace std::chrono_literals;
using test::file_bytes;
using test::put_file;
using test::run_command;
using test::RunningServer;
using test::ServerProcess;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::vector<Record> records_in(const std::filesystem::path& data_dir) {
  const auto log = EventLog::follow({.dir = data_dir / "events"});
  EXPECT_TRUE(log) << log.error().message;
  if (!log) return {};
  EXPECT_EQ(test::broken_promises(**log), std::vector<std::string>());
  return test::all_records(**log);
}

// ---- starts that fail ------------------------------------------------------------------------------------

class StartErrors : public testing::Test {
 protected:
  // What `ledger serve` says when it does not start: one line, status 1.
  std::string refusal(const std::string& options, const std::string& prefix = "",
                      const std::string& program = test::ledger_binary()) {
    const auto run = run_command(prefix + "timeout 60 " + program + " serve --log-level error --min-free-bytes 0 " + options);
    EXPECT_EQ(run.status, 1) << options << "\n" << run.output;
    EXPECT_THAT(run.output, StartsWith("ledger: ")) << options;
    EXPECT_EQ(std::count(run.output.begin(), run.output.end(), '\n'), 1) << run.output;
    return run.output;
  }
  std::string data() { return "--data-dir " + (dir_ / "data").string() + " --listen 127.0.0.1 --https-port 0 "; }
  test::TempDir dir_;
};

TEST_F(StartErrors, AnotherServerHasTheDirectory) {
  RunningServer server;
  EXPECT_THAT(refusal("--listen 127.0.0.1 --https-port 0 --data-dir " + server.data_dir().string()),
              AllOf(HasSubstr("another ledger process uses"), HasSubstr("stop it first")));
  EXPECT_EQ(server.join("web-1", "pw").status, 200) << "the first one is not disturbed";
}

TEST_F(StartErrors, ThePortIsTaken) {
  RunningServer server;
  const std::string taken = std::to_string(server.port()),
                    listen = "--listen 127.0.0.1 --data-dir " + (dir_ / "data").string();
  const std::string cannot = "cannot listen on 127.0.0.1:" + taken + ": Address already in use; ";
  EXPECT_THAT(refusal(listen + " --https-port " + taken),
              AllOf(HasSubstr(cannot), HasSubstr("another one with --https-port")));
  EXPECT_THAT(refusal(listen + " --https-port 0 --supervisor-port " + taken),
              AllOf(HasSubstr(cannot), HasSubstr("another one with --supervisor-port")));
  EXPECT_THAT(refusal(listen + " --supervisor-port 0 --https-port " + taken),
              AllOf(HasSubstr(cannot), HasSubstr("another one with --https-port"),
                    HasSubstr("leave the port to it with --external-kube-api")));
  EXPECT_THAT(refusal("--listen 192.0.2.1 --https-port 0 --data-dir " + (dir_ / "data").string()),
              HasSubstr("--listen must be an address of this machine"));
}

TEST_F(StartErrors, TheDirectoryCannotBeUsed) {
  put_file(dir_ / "file", "x");
  EXPECT_THAT(refusal("--data-dir " + (dir_ / "file").string() + "/data"), HasSubstr("cannot use the data directory"));
  if (::geteuid() != 0) GTEST_SKIP() << "not root: cannot become nobody";
  // Reachable, not writable.
  std::filesystem::permissions(dir_.path(), std::filesystem::perms(0755));
  std::filesystem::create_directory(dir_ / "roots");
  // The program where nobody can reach it: the checkout may lie in a directory that is root's alone.
  const std::filesystem::path program = dir_ / "ledger";
  std::filesystem::copy_file(test::ledger_binary(), program);
  std::filesystem::permissions(program, std::filesystem::perms(0755));
  const std::string nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups ";
  for (const char* name : {"/roots", "/roots/data"}) {
    EXPECT_THAT(refusal("--data-dir " + dir_.path().string() + name, nobody, program.string()),
                AllOf(HasSubstr("cannot use the data directory"), HasSubstr("Permission denied"), HasSubstr("--data-dir")));
  }
}

TEST_F(StartErrors, BadOptionsAreNamed) {
  const std::pair<const char*, const char*> kBad[] = {
      {"--listen nonsense", "--listen nonsense is not an IP address"},
      {"--advertise-address example.org", "--advertise-address example.org is not an IP address"},
      {"--tls-san 'no name'", "'no name'"},
      {"--cluster-cidr 10.42.0.0", "--cluster-cidr 10.42.0.0"},
      {"--service-cidr fd43::/112", "must share the same IP version"},
      {"--cluster-dns x", "--cluster-dns x"},
      {"--cluster-domain 'a b'", "a b"},
      {"--service-node-port-range 5", "--service-node-port-range 5"},
      {"--external-kube-api", "name it with --supervisor-port"},
      {"--token K10abc", "--token: "},
      {"--agent-token K10::node:", "--agent-token: "},
      {"--token-file /nonexistent", "/nonexistent"},
  };
  for (const auto& [option, wanted] : kBad) {
    const std::string said = refusal("--data-dir " + (dir_ / "data").string() + " --https-port 0 " + option +
                                     (std::string_view(option).starts_with("--listen") ? "" : " --listen 127.0.0.1"));
    EXPECT_THAT(said, HasSubstr(wanted));
  }
  EXPECT_EQ(run_command(test::ledger_binary() + " serve --https-port 65536 --data-dir " + (dir_ / "data").string()).status, 2);
  EXPECT_EQ(run_command(test::ledger_binary() + " serve --frobnicate").status, 2);
  // None of them has left anything that stands in the way of a good start.
  ServerProcess server(dir_ / "data", {"--min-free-bytes", "0"});
  EXPECT_TRUE(server.start()) << server.errors();
  EXPECT_EQ(server.stop(), 0);
}

TEST_F(StartErrors, WhatIsLostOrBrokenIsNamed) {
  {
    ServerProcess server(dir_ / "data", {"--min-free-bytes", "0"});
    ASSERT_TRUE(server.start()) << server.errors();
    ASSERT_EQ(server.stop(), 0);
  }
  const auto broken = [&](const std::string& file, const std::optional<std::string>& bytes) {
    const std::filesystem::path path = dir_ / "data" / file;
    const std::string before = file_bytes(path);
    bytes ? put_file(path, *bytes) : void(std::filesystem::remove(path));
    const std::string said = refusal(data());
    put_file(path, before);
    EXPECT_THAT(said, HasSubstr(file));
    return said;
  };
  broken("tls/server-ca.crt", "nonsense");
  broken("tls/server-ca.crt", std::nullopt);
  broken("tls/client-ca.key", "");
  broken("cred/fingerprint.key", std::nullopt);  // never silently replaced: every binding would be unreadable
  broken("cred/fingerprint.key", "abc");
  broken("cred/passwd", "\"unclosed");
  EXPECT_THAT(broken("cred/operator-token", "short"), Not(HasSubstr("short")));
  // The CA of one beside the key of the other.
  const std::string other = file_bytes(dir_ / "data" / "tls" / "client-ca.key");
  broken("tls/server-ca.key", other);
  ServerProcess server(dir_ / "data", {"--min-free-bytes", "0"});
  EXPECT_TRUE(server.start()) << server.errors();
}

// The pre-shared key of every agent's tunnels: what is not one must not be handed out.
TEST_F(StartErrors, ABrokenPskIsNotHandedOut) {
  {
    RunningServer server([&](ServerOptions& options) { options.data_dir = dir_ / "data"; });
  }
  put_file(dir_ / "data" / "cred" / "ipsec.psk", "\n");
  EXPECT_THAT(refusal(data()), HasSubstr("ipsec.psk"));
}

// ---- stops -----------------------------------------------------------------------------------------------

TEST(Stop, SigtermIsOrderly) {
  test::TempDir dir;
  ServerProcess server(dir / "data", {"--min-free-bytes", "0"});
  ASSERT_TRUE(server.start()) << server.errors();
  EXPECT_EQ(test::mode_of(dir / "data"), 0700);
  EXPECT_EQ(test::mode_of(dir / "data" / "events"), 0700);
  EXPECT_EQ(*running_server_url(dir / "data"), server.url());
  auto idle = server.client(true);
  ASSERT_EQ(idle.send(test::kubelet_request(server, "web-1", "pw"))->status, 200);
  ASSERT_EQ(server.stop(), 0) << server.errors();
  EXPECT_FALSE(running_server_url(dir / "data")) << "nobody is to be found there any more";
  const std::vector<Record> records = records_in(dir / "data");
  ASSERT_NE(as<ServerStarted>(records.front()), nullptr);
  EXPECT_EQ(as<ServerStarted>(records.front())->clean, std::optional<bool>(true));
  ASSERT_NE(as<ServerStopped>(records.back()), nullptr);
  EXPECT_EQ(as<ServerStopped>(records.back())->reason, "signal");
  ASSERT_TRUE(server.start());
  server.kill_now();
  ASSERT_TRUE(server.start());
  ASSERT_EQ(server.stop(), 0);
  std::vector<bool> clean;
  for (const Record& record : records_in(dir / "data"))
    if (const auto* started = as<ServerStarted>(record)) clean.push_back(started->clean.value_or(false));
  EXPECT_EQ(clean, (std::vector<bool>{true, true, false}));
}

// Clients that never pause: every request that was sent whole is answered, or its connection was never taken.
TEST(Stop, RequestsUnderWayAreAnswered) {
  RunningServer server;
  std::atomic<bool> stopped{false};
  std::atomic<int> admitted{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 8; ++c)
    clients.emplace_back([&, c] {
      auto https = server.client({}, true);
      for (int i = 0; !stopped; ++i) {
        const auto response = https.send(server.kubelet_request("n-" + std::to_string(c) + "-" + std::to_string(i), "pw"));
        if (!response) return;
        EXPECT_EQ(response->status, 200) << response->body;
        admitted += response->status == 200;
      }
    });
  ASSERT_TRUE(test::eventually([&] { return admitted > 40; }));
  EXPECT_TRUE(server.stop());
  stopped = true;
  for (std::thread& client : clients) client.join();
  const auto log = server.log();
  EXPECT_GE(test::outcomes(*log, Kind::password_stored), admitted);
  EXPECT_EQ(test::all_records(*log).back().kind(), Kind::server_stopped);
}

TEST(Stop, StopWithoutRunIsHarmless) {
  test::TempDir dir;
  ServerOptions options;
  options.data_dir = dir / "data";
  options.listen = "127.0.0.1";
  options.https_port = 0;
  options.min_free_bytes = 0;
  auto server = Server::start(std::move(options));
  ASSERT_TRUE(server) << server.error().message;
  (*server)->stop();
  server->reset();
  EXPECT_NE(as<ServerStarted>(records_in(dir / "data").front()), nullptr);
}

// Nothing that it was told in confidence is on standard error, at any level.
TEST(Stop, StandardErrorHoldsNoSecret) {
  test::TempDir dir;
  ServerProcess server(dir / "data", {"--min-free-bytes", "0", "--log-level", "trace", "--token", "join-secret-1234"});
  ASSERT_TRUE(server.start()) << server.errors();
  auto https = server.client();
  for (const char* password : {"node-secret-1", "node-secret-2"}) {
    auto request = test::kubelet_request(server, "web-1", password);
    ASSERT_TRUE(https.send(request));
    request.authorization = Secret(test::basic("join-secret-1234", "node-secret-1"));
    ASSERT_TRUE(https.send(request));
  }
  const std::string operator_token(trim(file_bytes(dir / "data" / "cred" / "operator-token")));
  auto status = test::request_of("GET", "/ledger/v1/status", "Bearer " + operator_token);
  ASSERT_EQ(https.send(status)->status, 200);
  ASSERT_EQ(server.stop(), 0);
  for (const std::string& secret : {std::string("join-secret-1234"), std::string("node-secret"), operator_token})
    EXPECT_THAT(server.errors(), Not(HasSubstr(secret)));
}

// ---- storage ---------------------------------------------------------------------------------------------

// Joins until the answer is not 200; how many were acknowledged, and the answer that was not.
struct Filled {
  int joined = 0;
  Result<HttpsResponse> last = Error{};
};

Filled fill(const ServerProcess& server, int at_most) {
  Filled filled;
  auto https = server.client(true);
  for (int i = 0; i < at_most; ++i) {
    filled.last = https.send(test::kubelet_request(server, "node-" + std::to_string(i), "pw-" + std::to_string(i)));
    if (!filled.last || filled.last->status != 200) break;
    ++filled.joined;
  }
  return filled;
}

void expect_nothing_missing(const ServerProcess& server, int joined) {
  auto https = server.client(true);
  for (int i = 0; i < joined; i += std::max(1, joined / 50)) {
    const auto right = https.send(test::kubelet_request(server, "node-" + std::to_string(i), "pw-" + std::to_string(i)));
    ASSERT_TRUE(right) << right.error().message;
    EXPECT_EQ(right->status, 200) << "node-" << i << " was acknowledged and is not bound";
  }
  const auto last = https.send(test::kubelet_request(server, "node-" + std::to_string(joined - 1), "another"));
  EXPECT_EQ(last->status, 403);
}

// A write that fails, as a file that may not grow: 503, the process ends with status 1, and a start with room
// again finds everything that was acknowledged.
TEST(Storage, AFailedWriteEndsTheProcess) {
  test::TempDir dir;
  const std::filesystem::path wrapper = dir / "limited";
  put_file(wrapper, "#!/bin/bash\ntrap '' XFSZ\nulimit -f 600\nexec " + test::ledger_binary() + " \"$@\"\n");
  std::filesystem::permissions(wrapper, std::filesystem::perms(0755));
  int joined = 0;
  {
    ServerProcess server(dir / "data", {"--min-free-bytes", "0"}, wrapper.string());
    ASSERT_TRUE(server.start()) << server.errors();
    const Filled filled = fill(server, 100'000);
    joined = filled.joined;
    ASSERT_TRUE(filled.last) << "the refusal must still be answered: " << filled.last.error().message;
    EXPECT_EQ(filled.last->status, 503) << filled.last->body;
    EXPECT_THAT(filled.last->body, HasSubstr("cannot record"));
    EXPECT_FALSE(filled.last->header("Retry-After").empty());
    EXPECT_THAT(filled.last->body, Not(HasSubstr("PRIVATE KEY")));
    EXPECT_EQ(server.wait(), 1);
    EXPECT_THAT(server.errors(), HasSubstr("ledger: cannot record: "));
  }
  EXPECT_GT(joined, 10);
  ServerProcess server(dir / "data", {"--min-free-bytes", "0"});
  ASSERT_TRUE(server.start()) << server.errors();
  expect_nothing_missing(server, joined);
  EXPECT_EQ(server.stop(), 0);
  const std::vector<Record> records = records_in(dir / "data");
  int starts = 0;
  for (const Record& record : records) {
    const auto* started = as<ServerStarted>(record);
    if (started == nullptr) continue;
    EXPECT_EQ(started->clean, std::optional<bool>(starts++ == 0)) << "the second start knows";
  }
  EXPECT_EQ(starts, 2);
}

class SmallDisk : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(dir_ / "disk");
    if (::mount("none", (dir_ / "disk").c_str(), "tmpfs", 0, "size=24m") != 0)
      GTEST_SKIP() << "mounting a small disk is not permitted here (" << std::strerror(errno) << ")";
    mounted_ = true;
  }
  ~SmallDisk() override {
    if (mounted_) ::umount2((dir_ / "disk").c_str(), MNT_DETACH);
  }
  std::filesystem::path data() const { return dir_ / "disk" / "data"; }
  // Leaves `bytes` free at most.
  void hog(std::uintmax_t bytes) {
    std::ofstream file(dir_ / "disk" / "hog", std::ios::binary | std::ios::app);
    const std::string block(64 << 10, 'h');
    while (std::filesystem::space(dir_ / "disk").available > bytes && file) file.write(block.data(), static_cast<std::streamsize>(block.size())).flush();
  }
  void make_room() { std::filesystem::remove(dir_ / "disk" / "hog"); }

  test::TempDir dir_;
  bool mounted_ = false;
};

TEST_F(SmallDisk, AFullDiskStopsTheServerAndRoomBringsItBack) {
  ServerProcess server(data(), {"--min-free-bytes", "0"});
  ASSERT_TRUE(server.start()) << server.errors();
  hog(128 << 10);
  const Filled filled = fill(server, 100'000);
  ASSERT_TRUE(filled.last) << filled.last.error().message;
  EXPECT_EQ(filled.last->status, 503) << filled.last->body;
  EXPECT_EQ(server.wait(), 1) << server.errors();
  EXPECT_GT(filled.joined, 0);
  // Still full: it says so, and does not harm the log.
  hog(0);
  EXPECT_FALSE(server.start());
  EXPECT_EQ(server.wait(), 1);
  make_room();
  ASSERT_TRUE(server.start()) << server.errors();
  expect_nothing_missing(server, filled.joined);
  EXPECT_EQ(server.stop(), 0);
  records_in(data());
}

TEST_F(SmallDisk, NearlyFullIs503UntilThereIsRoom) {
  ServerProcess server(data(), {"--min-free-bytes", std::to_string(8 << 20)});
  ASSERT_TRUE(server.start()) << server.errors();
  auto https = server.client();
  EXPECT_EQ(https.send(test::kubelet_request(server, "web-1", "pw"))->status, 200);
  hog(6 << 20);
  const auto asked = [&](const std::string& password) { return https.send(test::kubelet_request(server, "web-1", password))->status; };
  ASSERT_TRUE(test::eventually([&] { return asked("pw") == 503; }));
  EXPECT_EQ(asked("wrong"), 503) << "what cannot be recorded is never 403";
  EXPECT_EQ(https.send(test::request_of("GET", "/cacerts"))->status, 200);
  make_room();
  ASSERT_TRUE(test::eventually([&] { return asked("pw") == 200; })) << "it recovers by itself";
  EXPECT_EQ(asked("wrong"), 403);
  hog(6 << 20);
  ASSERT_TRUE(test::eventually([&] { return asked("pw") == 503; }));
  EXPECT_EQ(server.stop(), 0) << "its own stop still fits: " << server.errors();
  make_room();
  std::int64_t unrecorded = 0;
  const std::vector<Record> records = records_in(data());
  for (const Record& record : records)
    if (const auto* rejected = as<RequestRejected>(record); rejected != nullptr && rejected->reason == "store_unavailable")
      unrecorded += record.count;
  EXPECT_GE(unrecorded, 2) << "they are counted when there is room again";
  EXPECT_EQ(records.back().kind(), Kind::server_stopped);
}

// The same on every machine: the service on a disk that says it is full.
class FullDiskService : public testing::Test {
 protected:
  FullDiskService() {
    Ledger::Options options;
    options.log = {.dir = dir_ / "events", .env = disk_.env.get()};
    options.server_name = "srv";
    options.min_free_bytes = 1000;
    ledger_ = std::move(*Ledger::open(std::move(options)));
    credentials_ = *Credentials::open({.data_dir = dir_.path(), .token = Secret("pw"), .agent_token = {}, .log_exists = false});
    EXPECT_TRUE(note_file_tokens(*ledger_, *credentials_, "test"));
    issuer_.emplace(*Issuer::open(dir_.path(), Time::now(), false));
    config_ = *AgentConfig::make({}, "10.0.0.1", 6443, std::string(96, 'a'));
    service_ = std::make_unique<Service>(*ledger_, *credentials_, *issuer_, *config_);
  }
  Response ask(const std::string& path, const std::string& password = "") {
    auto request = std::make_shared<Request>();
    request->id = "0123456789abcdef";
    request->method = "GET";
    request->path = path;
    request->source = "10.0.0.5:1";
    request->headers = {{"authorization", test::basic("node", "pw")}, {"k3s-node-name", "web-1"}, {"k3s-node-password", password}};
    std::promise<Response> promise;
    service_->handle(request, [&](Response response) { promise.set_value(std::move(response)); });
    return promise.get_future().get();
  }
  test::TempDir dir_;
  test::FaultEnv disk_;
  std::unique_ptr<Ledger> ledger_;
  std::optional<Credentials> credentials_;
  std::optional<Issuer> issuer_;
  std::optional<AgentConfig> config_;
  std::unique_ptr<Service> service_;
};

TEST_F(FullDiskService, Is503AndNothingElse) {
  disk_.fs->set_free_bytes(1 << 20);
  EXPECT_EQ(ask("/v1-k3s/client-kubelet.crt", "right").status, 200);
  disk_.fs->set_free_bytes(999);
  ASSERT_TRUE(test::eventually([&] { return ask("/v1-k3s/config").status == 503; }));  // asked once a second
  for (const char* path : {"/v1-k3s/client-kubelet.crt", "/v1-k3s/serving-kubelet.crt", "/v1-k3s/client-kube-proxy.crt",
                           "/v1-k3s/config", "/apis"}) {
    const Response response = ask(path, "wrong");
    EXPECT_EQ(response.status, 503) << path;
    EXPECT_THAT(response.body, AllOf(HasSubstr("nearly full"), HasSubstr(R"("kind":"Status")"), Not(HasSubstr("BEGIN")))) << path;
  }
  EXPECT_EQ(ask("/cacerts").status, 200);
  disk_.fs->set_free_bytes(1 << 20);
  ASSERT_TRUE(test::eventually([&] { return ask("/v1-k3s/config").status == 200; }));
  EXPECT_EQ(ask("/v1-k3s/client-kubelet.crt", "wrong").status, 403);
  EXPECT_EQ(ask("/v1-k3s/client-kubelet.crt", "right").status, 200);
}

TEST_F(FullDiskService, AFailedSyncIs503ForEver) {
  disk_.fs->set_free_bytes(1 << 20);
  EXPECT_EQ(ask("/v1-k3s/client-kubelet.crt", "right").status, 200);
  disk_.fs->fail(test::WritePoint::wal_sync, test::Face::present);
  EXPECT_EQ(ask("/v1-k3s/client-kubelet.crt", "wrong").status, 503) << "not 403: nobody knows whether it is recorded";
  EXPECT_EQ(ask("/v1-k3s/client-kubelet.crt", "right").status, 503);
  EXPECT_EQ(ask("/v1-k3s/config").status, 503);
  EXPECT_EQ(ask("/ping").status, 200);
}

}  // namespace
}  // namespace ledger::api
