// Many at once: races for one name, a thousand new nodes, stuck agents and floods. And what must never be written
// down. The table of single answers is kubelet.http.txt (service_test.cpp).
#include "api/registration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <thread>

#include "ledger/event_json.h"
#include "tests/support/raw_link.h"
#include "tests/support/running_server.h"
#include "tests/support/verify_log.h"

namespace ledger::api {
namespace {

using test::RunningServer;
using testing::HasSubstr;
using testing::Not;

std::string numbered(const char* stem, int number) { return stem + std::to_string(number); }

// `work` on `count` threads at once.
void in_parallel(int count, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

TEST(Registration, OneOfManyWinsAName) {
  constexpr int kClients = 200;
  RunningServer server;
  std::barrier start(kClients);
  std::atomic<int> admitted{0}, refused{0}, other{0}, winner{-1};
  in_parallel(kClients, [&](int i) {
    auto https = server.client({}, true);
    const auto ping = https.send(test::request_of("GET", "/ping"));  // the handshake is not part of the race
    start.arrive_and_wait();
    const auto response = https.send(server.kubelet_request("web-1", numbered("password-", i), i % 2 == 0));
    const int status = ping && response ? response->status : 0;
    if (status == 200) winner = i;
    ++(status == 200 ? admitted : status == 403 ? refused : other);
  });
  EXPECT_EQ(admitted, 1);
  EXPECT_EQ(refused, kClients - 1);
  EXPECT_EQ(other, 0);
  // The winner is the one who stays bound.
  EXPECT_EQ(server.join("web-1", numbered("password-", winner)).status, 200);
  EXPECT_EQ(server.join("web-1", numbered("password-", (winner + 1) % kClients)).status, 403);
  ASSERT_TRUE(server.stop());
  const auto log = server.log();
  EXPECT_EQ(test::outcomes(*log, Kind::password_stored), 1);
  EXPECT_EQ(test::outcomes(*log, Kind::password_verified), 1);
  EXPECT_EQ(test::outcomes(*log, Kind::password_rejected), kClients);
  EXPECT_EQ(test::outcomes(*log, Kind::certificate_issued), 2);
  EXPECT_EQ(test::outcomes(*log, Kind::token_accepted), kClients + 2);
  EXPECT_EQ(test::broken_promises(*log), std::vector<std::string>());
  std::set<std::string> presented;
  for (const Record& record : test::all_records(*log))
    if (const auto* rejected = as<PasswordRejected>(record)) {
      presented.insert(rejected->fingerprint.text);
      EXPECT_NE(rejected->fingerprint, rejected->bound);
    }
  EXPECT_EQ(presented.size(), static_cast<std::size_t>(kClients - 1)) << "every stranger's password can be told apart";
}

TEST(Registration, AThousandNewNodes) {
  constexpr int kConnections = 16, kNodes = 1000;
  RunningServer server;
  std::atomic<int> next{0}, admitted{0};
  const auto began = std::chrono::steady_clock::now();
  in_parallel(kConnections, [&](int) {
    auto https = server.client({}, true);
    for (int node; (node = next++) < kNodes;) {
      const auto response = https.send(server.kubelet_request(numbered("node-", node), numbered("pw-", node)));
      if (response && response->status == 200)
        ++admitted;
      else
        ADD_FAILURE() << node << ": " << (response ? response->body : response.error().message);
    }
  });
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::printf("%d new nodes on %d connections in %.2f s\n", kNodes, kConnections, took.count());
  EXPECT_EQ(admitted, kNodes);
  ASSERT_TRUE(server.stop());
  const auto log = server.log();
  EXPECT_EQ(test::outcomes(*log, Kind::password_stored), kNodes);
  EXPECT_EQ(test::outcomes(*log, Kind::certificate_issued), kNodes);
  EXPECT_EQ(test::outcomes(*log, Kind::password_rejected), 0);
  EXPECT_EQ(test::outcomes(*log, Kind::request_rejected), 0);
  EXPECT_EQ(test::broken_promises(*log), std::vector<std::string>());
}

// While operators release and bind a name, and machines ask for it, nobody sees anything but 200 and 403.
TEST(Registration, ChangesOfABindingDoNotLeakIntoAnswers) {
  RunningServer server;
  ASSERT_EQ(server.join("web-1", "a").status, 200);
  std::atomic<bool> done{false};
  std::thread operators([&] {
    auto https = server.client({}, true);
    for (int i = 0; i < 20; ++i) {
      HttpsRequest release = test::request_of("POST", "/ledger/v1/nodes/web-1/release", server.operator_bearer());
      release.body = R"({"actor":"t","reason":"race","force":true})";
      const auto response = https.send(release);
      EXPECT_TRUE(response && (response->status == 200 || response->status == 409)) << response->body;
    }
    done = true;
  });
  in_parallel(4, [&](int i) {
    auto https = server.client({}, true);
    while (!done) {
      const auto response = https.send(server.kubelet_request("web-1", i % 2 == 0 ? "a" : "b"));
      EXPECT_TRUE(response && (response->status == 200 || response->status == 403))
          << (response ? response->body : response.error().message);
    }
  });
  operators.join();
  ASSERT_TRUE(server.stop());
  EXPECT_EQ(test::broken_promises(*server.log()), std::vector<std::string>());
}

// ---- storms ----------------------------------------------------------------------------------------------

TEST(Storm, AStuckAgentCostsFewRecordsAndIsCountedExactly) {
  constexpr int kTries = 500;
  RunningServer server;
  ASSERT_EQ(server.join("web-1", "right").status, 200);
  const Seq before = server.log()->head();
  auto https = server.client({}, true);
  std::string seq;
  for (int i = 0; i < kTries; ++i) {
    const auto response = https.send(server.kubelet_request("web-1", "wrong"));
    ASSERT_TRUE(response) << response.error().message;
    ASSERT_EQ(response->status, 403);
    const std::string stands_for(response->header("Ledger-Seq"));
    ASSERT_EQ(server.log()->read(std::stoull(stands_for))->kind(), Kind::password_rejected);
    if (i == 0) seq = stands_for;
    EXPECT_TRUE(i >= 10 || stands_for == seq) << "counted under the first";
  }
  // Two kinds of record, one window of 30 s each; a slow machine may need a few windows.
  EXPECT_LT(server.log()->head(), before + 20);
  ASSERT_TRUE(server.stop());
  const auto log = server.log();
  EXPECT_EQ(test::outcomes(*log, Kind::password_rejected), kTries);
  EXPECT_EQ(test::outcomes(*log, Kind::token_accepted), kTries + 1);
  EXPECT_EQ((*log->node("web-1"))->rejections, static_cast<std::uint64_t>(kTries));
  EXPECT_EQ(test::broken_promises(*log), std::vector<std::string>());
}

TEST(Storm, AFloodOfStrangersIsBounded) {
  constexpr int kThreads = 4, kEach = 700;
  constexpr int kBurst = 2000, kPerSecond = 2;  // docs/EVENTS.md, "Storms", 7
  RunningServer server;
  const auto began = std::chrono::steady_clock::now();
  in_parallel(kThreads, [&](int thread) {
    auto https = server.client({}, true);
    for (int i = 0; i < kEach; ++i) {
      const std::string unique = std::to_string(thread) + "-" + std::to_string(i);
      HttpsRequest request = server.kubelet_request("node-" + unique, "pw", i % 2 == 0);
      request.authorization = Secret(i % 3 == 0   ? ""
                                     : i % 3 == 1 ? test::basic("user-" + unique, "x")
                                                  : test::basic("node", "guess-" + unique));
      if (i % 5 == 0) request.target = "/v1-k3s/" + unique;  // unknown paths: answered, not recorded
      const auto response = https.send(request);
      ASSERT_TRUE(response) << response.error().message;
      ASSERT_EQ(response->status, i % 5 == 0 ? 404 : 401);
    }
  });
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  ASSERT_TRUE(server.stop());
  const auto log = server.log();
  EXPECT_EQ(test::outcomes(*log, Kind::token_rejected), kThreads * kEach * 4 / 5);
  EXPECT_LT(server.records_of<TokenRejected>().size(), static_cast<std::size_t>(kBurst + kPerSecond * took.count()) + 50);
  EXPECT_EQ(test::broken_promises(*log), std::vector<std::string>());
}

// ---- secrets ---------------------------------------------------------------------------------------------

std::string every_byte_below(const std::filesystem::path& dir) {
  std::string all;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(dir))
    if (entry.is_regular_file()) all += test::file_bytes(entry.path());
  return all;
}

// In the right places and in every wrong one that a person might choose.
TEST(Secrets, NeverReachTheLogOrABody) {
  RunningServer server([](ServerOptions& options) {
    options.token = Secret("server-token-secret-4711");
    options.agent_token = Secret("agent-token-secret-4712");
  });
  std::string operator_token = server.operator_bearer().substr(7);
  const std::string password = "node-password-secret-4713", other = "node-password-secret-4714";
  std::vector<std::string> secrets = {"server-token-secret-4711", "agent-token-secret-4712", operator_token, password, other,
                                      base64("node:agent-token-secret-4712").substr(0, 30)};
  std::vector<std::string> bodies;
  const auto ask = [&](const HttpsRequest& request) { bodies.push_back(server.send(request).body); };

  const HttpsResponse joined = server.send(server.kubelet_request("web-1", password));
  ASSERT_EQ(joined.status, 200);
  std::istringstream key(joined.body.substr(joined.body.find("-----BEGIN EC PRIVATE KEY-----\n") + 31));
  std::string key_line;
  std::getline(key, key_line);
  secrets.push_back(key_line);
  EXPECT_EQ(server.join("web-1", other).status, 403);
  ask(server.kubelet_request("web-1", other));
  for (const std::string& authorization :
       {test::basic("agent-token-secret-4712", ""), test::basic("K10::node:agent-token-secret-4712", "x"),
        test::basic("node", operator_token), test::basic("server", "agent-token-secret-4712"),
        std::string("Bearer agent-token-secret-4712"), std::string("agent-token-secret-4712"),
        std::string("Basic agent-token-secret-4712"), test::basic("node", password)}) {
    HttpsRequest request = server.kubelet_request("web-1", password);
    request.authorization = Secret(authorization);
    ask(request);
    request.target = "/ledger/v1/nodes";
    ask(request);
    request.target = "/v1-k3s/config?token=agent-token-secret-4712&password=" + password;
    ask(request);
  }
  HttpsRequest wrong_order = server.kubelet_request("web-1", password);
  wrong_order.headers[2].second = other;  // an address list that is none: the answer quotes it to its sender only
  server.send(wrong_order);
  wrong_order.headers[0].second = "_" + other;  // a name that is none: the same
  server.send(wrong_order);
  HttpsRequest twice = server.kubelet_request("web-1", password);
  twice.headers.emplace_back("K3s-Node-Password", other);
  ask(twice);
  HttpsRequest in_body = test::request_of("POST", "/v1-k3s/client-kube-proxy.crt", server.agent());
  in_body.body = password;
  server.send(in_body);
  for (const char* path : {"/v1-k3s/", "/", "/ledger/v1/"}) server.get(path + password, server.agent());
  {
    test::RawTls bad(server.https_options());
    bad.say("GET /" + password + " HTTP/9.9\r\nAuthorization: " + server.agent() + "\r\n\r\n");
    bodies.push_back(bad.hear_all());
  }
  ASSERT_TRUE(server.stop());

  const std::string stored = every_byte_below(server.data_dir() / "events");
  std::string told;  // tables may be compressed: records as they decode
  for (const Record& record : server.records()) told += to_json_line(record) + "\n";
  for (const std::string& body : bodies) told += body;
  ASSERT_THAT(stored, HasSubstr("web-1"));
  for (const std::string& secret : secrets) {
    EXPECT_EQ(stored.find(secret), std::string::npos) << "the log holds " << secret;
    EXPECT_EQ(told.find(secret), std::string::npos) << "a record or an answer holds " << secret;
  }
}

// A secret that was right once is recognised by its id.
TEST(Secrets, AReplacedTokenIsSuperseded) {
  std::string token = "first-secret";
  RunningServer server([&](ServerOptions& options) { options.token = Secret(token); });
  const std::string before = server.agent();
  ASSERT_EQ(server.get("/v1-k3s/config", before).status, 200);
  token = "second-secret";
  server.restart();
  const HttpsResponse refused = server.get("/v1-k3s/config", before);
  EXPECT_EQ(refused.status, 401);
  EXPECT_THAT(refused.body, HasSubstr("this token was replaced"));
  const Record record = server.record_of(refused);
  ASSERT_NE(as<TokenRejected>(record), nullptr);
  EXPECT_EQ(as<TokenRejected>(record)->reason, "superseded");
  EXPECT_EQ(as<TokenRejected>(record)->token, as<TokenCreated>(server.records_of<TokenCreated>()[0])->token);
  EXPECT_TRUE(record.auth.token.empty()) << "a refused secret proves nothing";
  EXPECT_EQ(server.get("/v1-k3s/config", server.agent()).status, 200);
  EXPECT_EQ(server.records_of<TokenRotated>().size(), 1U);
  // And back again: the old one is in force, the new one is the superseded one.
  token = "first-secret";
  server.restart();
  EXPECT_EQ(server.get("/v1-k3s/config", before).status, 200);
  const HttpsResponse newer = server.get("/v1-k3s/config", test::basic("node", "second-secret"));
  EXPECT_EQ(as<TokenRejected>(server.record_of(newer))->reason, "superseded");
}

TEST(Secrets, TheAgentTokenIsAClassOfItsOwn) {
  RunningServer server([](ServerOptions& options) {
    options.token = Secret("for-servers");
    options.agent_token = Secret("for-agents");
  });
  EXPECT_EQ(server.get("/v1-k3s/config", test::basic("node", "for-agents")).status, 200);
  EXPECT_EQ(server.get("/v1-k3s/config", test::basic("server", "for-servers")).status, 401);
  const HttpsResponse refused = server.get("/v1-k3s/config", test::basic("node", "for-servers"));
  EXPECT_EQ(refused.status, 401);
  const Record record = server.record_of(refused);
  EXPECT_EQ(as<TokenRejected>(record)->reason, "wrong_secret") << "right secret, wrong user";
  EXPECT_FALSE(as<TokenRejected>(record)->token.empty()) << "but the log knows whose it is";
  EXPECT_EQ(server.get("/apis", test::basic("server", "for-servers")).status, 200);
}

}  // namespace
}  // namespace ledger::api
