// kill -9 under load, by clients that remember every reply: what was acknowledged must be in the log afterwards.
// LEDGER_KILL_ROUNDS sets the number of rounds (default 4; 30 before a release).
//
// kill -9 does not test fsync (the page cache survives it); tests/ledger/event_log_test.cpp does, on a file
// system that forgets what was not synced.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "ledger/event_log.h"
#include "replay/verify.h"
#include "tests/support/server_process.h"
#include "tests/support/temp_dir.h"

namespace ledger {
namespace {

// What a client was told.
struct Acknowledged {
  std::string node, password;
  Seq seq = 0;
  bool admitted = false;  // 200: the name is bound to the password, and a certificate left
};

int rounds() {
  const char* text = std::getenv("LEDGER_KILL_ROUNDS");
  return text == nullptr ? 4 : std::atoi(text);
}

class KillTest : public testing::Test {
 protected:
  KillTest() : server_(dir_ / "data") {}

  // Clients join until the server dies: fresh names, and now and then a wrong password for a known one.
  void load_until_killed(unsigned seed, int kill_after_ms) {
    std::vector<std::thread> clients;
    for (unsigned c = 0; c < 8; ++c) clients.emplace_back([=, this] { client(seed * 100 + c); });
    std::this_thread::sleep_for(std::chrono::milliseconds(kill_after_ms));
    server_.kill_now();
    for (std::thread& thread : clients) thread.join();
  }

  void client(unsigned id) {
    auto https = server_.client();
    for (int i = 0;; ++i) {
      const bool intruder = i % 5 == 4;
      const std::string node = "n-" + std::to_string(id) + "-" + std::to_string(intruder ? i - 1 : i);
      const std::string password = (intruder ? "wrong-" : "right-") + node;
      const auto response = https.send(test::kubelet_request(server_, node, password, i % 2 == 0));
      if (!response) return;  // the server is gone; this one was never acknowledged
      const std::string seq(response->header("Ledger-Seq"));
      const std::lock_guard lock(mutex_);
      if (response->status == 200 || response->status == 403)
        acknowledged_.push_back({node, password, std::stoull(seq), response->status == 200});
      else
        ADD_FAILURE() << "unexpected " << response->status << " " << response->body;
    }
  }

  // Every reply against the log.
  void check_log() {
    const auto log = EventLog::follow({.dir = dir_ / "data" / "events"});
    ASSERT_TRUE(log) << log.error().message;
    for (const Acknowledged& reply : acknowledged_) {
      const Result<Record> record = (*log)->read(reply.seq);
      ASSERT_TRUE(record) << "acknowledged and lost: " << reply.node << " " << record.error().message;
      ASSERT_EQ(record->node, reply.node);
      if (!reply.admitted) {
        ASSERT_NE(as<PasswordRejected>(*record), nullptr);
        continue;
      }
      ASSERT_NE(as<CertificateIssued>(*record), nullptr);
      const auto state = (*log)->node(reply.node);
      ASSERT_TRUE(state && state->has_value());
      ASSERT_TRUE((*state)->is_bound());
      auto [bound, first] = bound_.emplace(reply.node, (*state)->bound);
      ASSERT_EQ(bound->second, (*state)->bound) << "the binding of " << reply.node << " changed over a crash";
    }
    const auto report = replay::verify(**log);
    ASSERT_TRUE(report) << report.error().message;
    ASSERT_TRUE(report->sound()) << report->damage.front().text;
  }

  test::TempDir dir_;
  test::ServerProcess server_;
  std::mutex mutex_;
  std::vector<Acknowledged> acknowledged_;
  std::map<std::string, Fingerprint> bound_;
};

TEST_F(KillTest, NothingAcknowledgedIsLost) {
  std::mt19937 random(20240611);
  std::size_t before = 0;
  for (int round = 0; round < rounds(); ++round) {
    ASSERT_TRUE(server_.start()) << server_.errors();
    load_until_killed(static_cast<unsigned>(round), 100 + static_cast<int>(random() % 900));
    ASSERT_GT(acknowledged_.size(), before) << "round " << round << " tested nothing";
    before = acknowledged_.size();
    ASSERT_NO_FATAL_FAILURE(check_log()) << "round " << round;
  }
  ASSERT_TRUE(server_.start()) << "not usable after the last kill: " << server_.errors();
  // An acknowledged password is still the right one, and only that one.
  auto https = server_.client();
  for (const Acknowledged& reply : acknowledged_) {
    if (!reply.admitted) continue;
    const auto again = https.send(test::kubelet_request(server_, reply.node, reply.password));
    ASSERT_TRUE(again) << again.error().message;
    ASSERT_EQ(again->status, 200) << reply.node;
    if (&reply - acknowledged_.data() > 50) break;
  }
  EXPECT_EQ(server_.stop(), 0) << server_.errors();
  ASSERT_NO_FATAL_FAILURE(check_log());
  RecordProperty("acknowledged", static_cast<int>(acknowledged_.size()));
  std::printf("%d rounds, %zu acknowledged replies, all in the log\n", rounds(), acknowledged_.size());
}

// What `ledger token show` prints admits, at whatever moment a rotation was killed; and what a rotation told last is
// that, or was replaced by one that nobody was told of.
TEST_F(KillTest, ARotationIsDoneOrNot) {
  std::mt19937 random(20240612);
  const auto secret_shown = [&] {
    const std::string token(trim(test::file_bytes(dir_ / "data" / "token")));
    return token.substr(token.rfind(':') + 1);
  };
  int told = 0;
  for (int round = 0; round < rounds(); ++round) {
    ASSERT_TRUE(server_.start()) << server_.errors();
    std::string last;
    std::thread operators([&] {
      auto https = server_.client();
      for (;;) {
        api::HttpsRequest request;
        request.method = "POST";
        request.target = "/ledger/v1/tokens/agent/rotate";
        request.authorization = Secret("Bearer " + std::string(trim(test::file_bytes(dir_ / "data/cred/operator-token"))));
        request.body = R"({"actor":"test","grace":"1h"})";
        const auto response = https.send(request);
        if (!response) return;
        ASSERT_EQ(response->status, 200) << response->body;
        const auto at = response->body.find("\"secret\":\"") + 10;
        last = response->body.substr(at, response->body.find('"', at) - at);
        ++told;
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(100 + static_cast<int>(random() % 400)));
    server_.kill_now();
    operators.join();
    ASSERT_TRUE(server_.start()) << "after the kill of round " << round << ": " << server_.errors();
    auto https = server_.client();
    // kubelet_request() takes what the file shows.
    const auto shown = https.send(test::kubelet_request(server_, "n-" + std::to_string(round), "pw"));
    ASSERT_TRUE(shown && shown->status == 200) << (shown ? shown->body : shown.error().message);
    if (!last.empty() && last != secret_shown()) {
      api::HttpsRequest request = test::kubelet_request(server_, "m-" + std::to_string(round), "pw");
      request.authorization = Secret("Basic " + base64("node:" + last));
      const auto replaced = https.send(request);
      ASSERT_TRUE(replaced && replaced->status == 200) << "not even in its grace period";
    }
    EXPECT_EQ(server_.stop(), 0) << server_.errors();
  }
  EXPECT_GT(told, rounds()) << "nothing was tested";
}

}  // namespace
}  // namespace ledger
