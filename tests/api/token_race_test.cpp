// Tokens that end while machines join with them, many at once and over real TLS. There is one point of the log at
// which a token ends; what stands behind it was not accepted with it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/json.hpp>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "ledger/event_json.h"
#include "tests/support/running_server.h"
#include "tests/support/verify_log.h"

namespace ledger::api {
namespace {

namespace json = boost::json;
using test::RunningServer;
using testing::HasSubstr;

constexpr std::size_t kThreads = 16;

std::string text_of(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

// One attempt to join, as its agent saw it.
struct Attempt {
  std::string authorization;
  int status = 0;
  Seq seq = 0;    // of the last record; accepted ones only
  int phase = 0;  // of the test, when it began
  std::string body;
};

// Threads that join, each time as another node on a connection of its own, until they are stopped.
class Joiners {
 public:
  using Choose = std::function<std::string(std::size_t thread, int phase)>;  // the Authorization of an attempt

  Joiners(const RunningServer& server, std::string name, std::size_t count, Choose choose)
      : server_(server), name_(std::move(name)), choose_(std::move(choose)), done_(count) {
    for (std::size_t i = 0; i < count; ++i) threads_.emplace_back([this, i] { run(i); });
  }
  Joiners(const Joiners&) = delete;
  Joiners& operator=(const Joiners&) = delete;
  ~Joiners() { stop(); }

  // What begins from now on belongs to the next phase.
  void next_phase() { ++phase_; }
  // Until every thread has ended `more` further attempts.
  void wait_for(int more) {
    std::vector<int> goal;
    for (const auto& done : done_) goal.push_back(done + more);
    EXPECT_TRUE(test::eventually(
        [&] {
          for (std::size_t i = 0; i < goal.size(); ++i)
            if (done_[i] < goal[i]) return false;
          return true;
        },
        std::chrono::seconds(120)));
  }
  const std::vector<Attempt>& stop() {
    stopping_ = true;
    for (std::thread& thread : threads_)
      if (thread.joinable()) thread.join();
    return attempts_;
  }

 private:
  void run(std::size_t thread) {
    for (int i = 0; !stopping_; ++i) {
      Attempt attempt;
      attempt.phase = phase_;
      attempt.authorization = choose_(thread, attempt.phase);
      const std::string node = name_ + "-" + std::to_string(thread) + "-" + std::to_string(i);
      HttpsRequest request = server_.kubelet_request(node, "password-of-" + node);
      request.authorization = Secret(attempt.authorization);
      const HttpsResponse response = server_.send(request);
      attempt.status = response.status;
      if (response.status == 200) attempt.seq = std::stoull("0" + std::string(response.header("Ledger-Seq")));
      if (response.status != 200) attempt.body = response.body;
      {
        const std::lock_guard lock(mutex_);
        attempts_.push_back(std::move(attempt));
      }
      ++done_[thread];
    }
  }

  const RunningServer& server_;
  std::string name_;
  Choose choose_;
  std::atomic<int> phase_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::atomic<int>> done_;
  std::mutex mutex_;
  std::vector<Attempt> attempts_;  // guarded by mutex_ while the threads run
  std::vector<std::thread> threads_;
};

class TokenRace : public testing::Test {
 protected:
  HttpsResponse post(const std::string& path, json::object body, const std::string& authorization) {
    HttpsRequest request = test::request_of("POST", "/ledger/v1/" + path, authorization);
    body["actor"] = "ops@srv";
    body["reason"] = "a test";
    request.body = json::serialize(body);
    return server_.send(request);
  }
  json::object act(const std::string& path, json::object body) {
    const HttpsResponse response = post(path, std::move(body), operator_);
    EXPECT_EQ(response.status, 200) << path << " " << response.body;
    json::error_code error;
    json::value value = json::parse(response.body, error);
    return value.is_object() ? value.get_object() : json::object();
  }
  json::object create(json::object body) {
    json::object made = act("tokens", std::move(body));
    EXPECT_GE(text_of(made, "secret").size(), 16U);
    secrets_.push_back(text_of(made, "secret"));
    return made;
  }
  static Seq seq_of(const json::object& made) { return made.at("seq").to_number<Seq>(); }

  HttpsResponse join(const std::string& node, const std::string& authorization) {
    HttpsRequest request = server_.kubelet_request(node, "password-of-" + node);
    request.authorization = Secret(authorization);
    return server_.send(request);
  }

  // The end of every test: the log keeps its promises, and no file of the server holds one of the secrets.
  void check_all() {
    ASSERT_TRUE(server_.stop());
    EXPECT_EQ(test::broken_promises(*server_.log()), std::vector<std::string>());
    for (std::string& secret : secrets_)  // the first half of a bootstrap token is its name
      if (is_bootstrap_token(secret)) secret.erase(0, secret.find('.') + 1);
    const auto search = [&](const std::string& text, const std::string& where) {
      for (const std::string& secret : secrets_)
        EXPECT_EQ(text.find(secret), std::string::npos) << "a secret is in " << where;
    };
    std::size_t files = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(server_.data_dir())) {
      if (!entry.is_regular_file()) continue;
      ++files;
      search(test::file_bytes(entry.path()), entry.path().string());
    }
    EXPECT_GT(files, 10U);
    for (const Record& record : server_.records())  // blocks of the log may be compressed
      search(to_json_line(record), "record " + std::to_string(record.seq));
  }

  RunningServer server_;
  const std::string operator_ = server_.operator_bearer();
  std::vector<std::string> secrets_;  // that must be nowhere
};

TEST_F(TokenRace, RotationWithGraceRefusesNobody) {
  const std::string old_secret = server_.token(), old_agent = test::basic("node", old_secret);
  std::string new_agent;  // written before phase 1 begins
  Joiners joiners(server_, "rotate", kThreads, [&](std::size_t thread, int phase) {
    return phase == 0 || thread % 2 == 0 ? old_agent : new_agent;
  });
  joiners.wait_for(3);
  const json::object rotated = act("tokens/agent/rotate", {{"grace", "1h"}});
  new_agent = test::basic("node", text_of(rotated, "secret"));
  joiners.next_phase();
  joiners.wait_for(4);
  const std::vector<Attempt>& attempts = joiners.stop();

  std::map<Seq, Record> accepted;
  for (const Record& record : server_.records_of<TokenAccepted>()) accepted.emplace(record.seq, record);
  const std::string old_id = text_of(rotated, "replaces"), new_id = text_of(rotated, "id");
  ASSERT_NE(old_id, new_id);
  int before = 0, superseded = 0, renewed = 0;
  for (const Attempt& attempt : attempts) {
    ASSERT_EQ(attempt.status, 200) << attempt.body;
    const auto record = accepted.find(attempt.seq - 2);  // then the password's, then the certificate's
    ASSERT_NE(record, accepted.end()) << attempt.seq;
    const bool is_old = attempt.authorization == old_agent;
    EXPECT_EQ(record->second.auth.token, is_old ? old_id : new_id);
    const std::string& reason = as<TokenAccepted>(record->second)->reason;
    if (attempt.phase == 1 && is_old) {
      EXPECT_EQ(reason, "superseded") << attempt.seq;
    }
    if (attempt.seq < seq_of(rotated) || !is_old) {
      EXPECT_EQ(reason, "") << attempt.seq;
    }
    before += attempt.seq < seq_of(rotated) ? 1 : 0;
    superseded += reason == "superseded" ? 1 : 0;
    renewed += is_old ? 0 : 1;
  }
  EXPECT_GE(before, 3 * static_cast<int>(kThreads));
  EXPECT_GE(superseded, 3 * static_cast<int>(kThreads) / 2);
  EXPECT_GE(renewed, 3 * static_cast<int>(kThreads) / 2);
  EXPECT_TRUE(server_.records_of<TokenRejected>().empty());
  EXPECT_EQ(server_.token(), text_of(rotated, "secret")) << "the files hold the new one";
  secrets_.push_back(old_secret);  // and nothing holds the old one
  check_all();
}

TEST_F(TokenRace, NothingIsAcceptedBehindARevocation) {
  const json::object made = create({{"class", "agent"}});
  const std::string doomed = test::basic("node", text_of(made, "secret")), good = server_.agent();
  Joiners joiners(server_, "doomed", kThreads, [&](std::size_t, int) { return doomed; });
  Joiners others(server_, "good", 4, [&](std::size_t, int) { return good; });
  joiners.wait_for(3);
  const json::object revoked = act("tokens/" + text_of(made, "id") + "/revoke", {});
  joiners.next_phase();
  joiners.wait_for(4);
  others.wait_for(2);

  std::int64_t refused = 0;
  int accepted = 0;
  for (const Attempt& attempt : joiners.stop()) {
    if (attempt.phase == 1) {
      EXPECT_EQ(attempt.status, 401) << "begun after the answer to the revocation";
    }
    if (attempt.status == 200) {
      ++accepted;
      EXPECT_LT(attempt.seq, seq_of(revoked));
    } else {
      ++refused;
      EXPECT_EQ(attempt.status, 401) << attempt.body;
      EXPECT_THAT(attempt.body, HasSubstr("revoked"));
    }
  }
  for (const Attempt& attempt : others.stop()) EXPECT_EQ(attempt.status, 200) << attempt.body;
  EXPECT_GE(accepted, 3 * static_cast<int>(kThreads));
  EXPECT_GE(refused, 3 * static_cast<int>(kThreads));

  ASSERT_TRUE(server_.stop());  // what was counted is recorded
  const std::string id = text_of(made, "id");
  for (const Record& record : server_.records()) {
    if (record.auth.token == id) {
      EXPECT_LT(record.seq, seq_of(revoked)) << name_of(record.kind());
    }
    const auto* rejected = as<TokenRejected>(record);
    if (rejected == nullptr) continue;
    EXPECT_GT(record.seq, seq_of(revoked));
    EXPECT_EQ(rejected->reason, "revoked");
    EXPECT_EQ(rejected->token, id);
    refused -= record.count;
  }
  EXPECT_EQ(refused, 0) << "every refusal is recorded, once";
  check_all();
}

TEST_F(TokenRace, ABootstrapTokenEndsOnTimeAndOnce) {
  // A machine that takes a second for one request gets another chance.
  std::string bearer, id;
  std::vector<std::string> ids;
  for (int i = 0; i < 20 && id.empty(); ++i) {
    const json::object made = create({{"class", "bootstrap"}, {"ttl", "1s"}});
    bearer = "Bearer " + text_of(made, "secret");
    ids.push_back(text_of(made, "id"));
    if (join("first-" + std::to_string(i), bearer).status == 200) id = ids.back();
  }
  ASSERT_FALSE(id.empty()) << "never accepted";
  Joiners joiners(server_, "boot", kThreads, [&](std::size_t, int) { return bearer; });
  ASSERT_TRUE(test::eventually([&] { return join("late", bearer).status == 401; }));
  joiners.next_phase();
  joiners.wait_for(2);
  for (const Attempt& attempt : joiners.stop()) {
    if (attempt.phase == 1) {
      EXPECT_EQ(attempt.status, 401);
    }
    if (attempt.status != 200) {
      EXPECT_THAT(attempt.body, HasSubstr("expired")) << attempt.status;
    }
  }
  const auto expired = [&](const std::string& token) {
    int count = 0;
    for (const Record& record : server_.records_of<TokenExpired>())
      count += as<TokenExpired>(record)->token == token ? 1 : 0;
    return count;
  };
  for (const std::string& each : ids) EXPECT_TRUE(test::eventually([&] { return expired(each) > 0; }));
  server_.restart();
  const HttpsResponse after = join("late", bearer);
  EXPECT_EQ(after.status, 401);
  EXPECT_THAT(after.body, HasSubstr("expired"));
  // Once another one is noted, whoever notes them has looked at ours again.
  const std::string marker = text_of(create({{"class", "bootstrap"}, {"ttl", "1s"}}), "id");
  EXPECT_TRUE(test::eventually([&] { return expired(marker) > 0; }));
  for (const std::string& each : ids) EXPECT_EQ(expired(each), 1) << each;

  std::optional<Time> ends;
  for (const Record& record : server_.records_of<TokenCreated>())
    if (as<TokenCreated>(record)->token == id) ends = as<TokenCreated>(record)->expires;
  ASSERT_TRUE(ends);
  int accepted = 0;
  for (const Record& record : server_.records_of<TokenAccepted>()) {
    if (record.auth.token != id) continue;
    ++accepted;
    EXPECT_LT(record.time, *ends) << record.seq;
  }
  EXPECT_GE(accepted, 1);
  for (const Record& record : server_.records_of<TokenRejected>())
    EXPECT_EQ(as<TokenRejected>(record)->reason, "expired");
  check_all();
}

TEST_F(TokenRace, WhoMayOnlyLookChangesNothing) {
  ASSERT_EQ(join("web-1", server_.agent()).status, 200);
  const json::object made = create({{"class", "operator"}, {"role", "read"}});
  const json::object agent = create({{"class", "agent"}});
  const std::string reader = "Bearer " + text_of(made, "secret");
  for (const char* path : {"nodes", "tokens", "status", "nodes/web-1"})
    EXPECT_EQ(server_.get(std::string("/ledger/v1/") + path, reader).status, 200) << path;
  const std::size_t before = server_.records_of<TokenCreated>().size();
  for (const std::string& path : {std::string("tokens"), "tokens/" + text_of(agent, "id") + "/revoke",
                                  std::string("tokens/agent/rotate"), std::string("nodes/web-1/release"),
                                  std::string("nodes/web-1/probe"), std::string("node-objects")}) {
    const json::object body = path == "tokens" ? json::object{{"class", "agent"}} : json::object{};
    const HttpsResponse refused = post(path, body, reader);
    EXPECT_EQ(refused.status, 403) << path << " " << refused.body;
    EXPECT_THAT(refused.body, HasSubstr("read")) << path;
  }
  EXPECT_EQ(join("web-2", test::basic("node", text_of(agent, "secret"))).status, 200) << "it was not revoked";
  EXPECT_EQ(join("web-1", server_.agent()).status, 200);
  HttpsRequest other = server_.kubelet_request("web-1", "another");
  EXPECT_EQ(server_.send(other).status, 403) << "still bound";
  EXPECT_EQ(server_.records_of<TokenCreated>().size(), before);
  EXPECT_TRUE(server_.records_of<TokenRevoked>().empty());
  EXPECT_TRUE(server_.records_of<TokenRotated>().empty());
  check_all();
}

}  // namespace
}  // namespace ledger::api
