// What operators may do, over HTTPS and on the command line, beside a running server and on a stopped log.
#include "api/admin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/support/http_script.h"
#include "tests/support/paths.h"
#include "tests/support/running_server.h"
#include "tests/support/verify_log.h"

namespace ledger::api {
namespace {

using test::RunningServer;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(HttpScript, Operators) {
  RunningServer server;
  test::HttpScript script(server);
  EXPECT_GT(script.run(std::filesystem::path(test::source_dir()) / "tests" / "api" / "operators.http.txt"), 45);
  EXPECT_TRUE(server.stop());
  EXPECT_EQ(test::broken_promises(*server.log()), std::vector<std::string>());
}

class Operators : public testing::Test {
 protected:
  HttpsResponse act(const std::string& verb, const std::string& node, const std::string& more = "") {
    HttpsRequest request = test::request_of("POST", "/ledger/v1/nodes/" + node + "/" + verb, server_.operator_bearer());
    request.body = R"({"actor":"ops@srv","reason":"test")" + more + "}";
    return server_.send(request);
  }
  HttpsResponse accept(const std::string& node, const std::string& fingerprint, const std::string& more = "") {
    return act("accept", node, R"(,"fingerprint":")" + fingerprint + "\"" + more);
  }
  // The fingerprint that a refusal recorded.
  std::string refused_fingerprint(const std::string& node, const std::string& password) {
    const HttpsResponse refused = server_.join(node, password);
    EXPECT_EQ(refused.status, 403) << refused.body;
    const Record record = server_.record_of(refused);
    const auto* rejected = as<PasswordRejected>(record);
    return rejected == nullptr ? "" : rejected->fingerprint.text;
  }
  RunningServer server_;
};

TEST_F(Operators, AcceptBindsExactlyTheRefusedPassword) {
  ASSERT_EQ(server_.join("web-1", "old").status, 200);
  const std::string fingerprint = refused_fingerprint("web-1", "new");
  const std::string other = refused_fingerprint("web-1", "intruder");
  const HttpsResponse accepted = accept("web-1", fingerprint.substr(0, 12));
  ASSERT_EQ(accepted.status, 200) << accepted.body;
  const Record record = server_.record_of(accepted);
  ASSERT_NE(as<BindingChanged>(record), nullptr);
  EXPECT_EQ(as<BindingChanged>(record)->to.text, fingerprint);
  EXPECT_EQ(as<BindingChanged>(record)->by, "operator_accept");
  EXPECT_EQ(record.request_id, accepted.header("Ledger-Request-Id"));
  EXPECT_EQ(server_.join("web-1", "new").status, 200);
  EXPECT_EQ(server_.join("web-1", "old").status, 403);
  EXPECT_EQ(server_.join("web-1", "intruder").status, 403);
  EXPECT_EQ(accept("web-1", fingerprint).status, 409) << "bound to it already";
}

TEST_F(Operators, APrefixMustBeUnambiguous) {
  ASSERT_EQ(server_.join("web-1", "old").status, 200);
  // Among many refused passwords two share their first four digits sooner or later; find such a pair.
  std::map<std::string, std::string> by_prefix;
  std::string shared, one;
  auto https = server_.client({}, true);
  for (int i = 0; i < 3000 && shared.empty(); ++i) {
    const auto refused = https.send(server_.kubelet_request("web-1", "p" + std::to_string(i)));
    ASSERT_TRUE(refused && refused->status == 403);
    if (i % 100 != 99) continue;
    by_prefix.clear();
    for (const Record& record : server_.records_of<PasswordRejected>()) {
      const std::string text = as<PasswordRejected>(record)->fingerprint.text;
      auto [found, fresh] = by_prefix.emplace(text.substr(0, 4), text);
      if (!fresh && found->second != text) shared = text.substr(0, 4), one = text;
    }
  }
  ASSERT_FALSE(shared.empty());
  const HttpsResponse ambiguous = accept("web-1", shared);
  EXPECT_EQ(ambiguous.status, 400);
  EXPECT_THAT(ambiguous.body, HasSubstr("fits more than one rejected password"));
  EXPECT_EQ(accept("web-1", one).status, 200);
}

TEST_F(Operators, ALivingHolderIsNotCutOffByAccident) {
  ASSERT_EQ(server_.join("web-1", "rightful").status, 200);
  const std::string newcomer = refused_fingerprint("web-1", "newcomer");
  ASSERT_EQ(server_.join("web-1", "rightful").status, 200) << "the holder is heard from after the refusal";
  for (const auto& refused : {accept("web-1", newcomer), act("release", "web-1")}) {
    EXPECT_EQ(refused.status, 409);
    EXPECT_THAT(refused.body, AllOf(HasSubstr("two machines seem to use this name"), HasSubstr("--force")));
  }
  EXPECT_EQ(server_.join("web-1", "rightful").status, 200);
  EXPECT_EQ(accept("web-1", newcomer, R"(,"force":true)").status, 200);
  EXPECT_EQ(server_.join("web-1", "newcomer").status, 200);
  EXPECT_EQ(server_.join("web-1", "rightful").status, 403);
}

// A flood of strangers on the operators' paths must not keep the operator out, now of all times.
TEST_F(Operators, StrangersDoNotFillTheQueue) {
  std::atomic<bool> done{false};
  std::atomic<int> refused{0}, other{0};
  std::vector<std::thread> strangers;
  for (int i = 0; i < 64; ++i)
    strangers.emplace_back([&] {
      auto https = server_.client({}, true);
      do {
        const auto response = https.send(test::request_of("GET", "/ledger/v1/nodes", "Bearer guess"));
        ++(response && response->status == 401 ? refused : other);
      } while (!done);
    });
  for (int i = 0; i < 20; ++i) {
    const HttpsResponse response = server_.get("/ledger/v1/status", server_.operator_bearer());
    EXPECT_EQ(response.status, 200) << response.body;
  }
  done = true;
  for (std::thread& stranger : strangers) stranger.join();
  EXPECT_GE(refused, 64);
  EXPECT_EQ(other, 0) << "a stranger is told 401, whatever the load";
}

// Operators themselves have a short queue: past it 429, and every request is answered.
TEST_F(Operators, ManyAtOnceAreAllAnswered) {
  std::atomic<int> good{0}, busy{0}, other{0};
  std::vector<std::thread> operators;
  for (int i = 0; i < 48; ++i)
    operators.emplace_back([&] {
      auto https = server_.client({}, true);
      for (int n = 0; n < 10; ++n) {
        const auto response = https.send(test::request_of("GET", "/ledger/v1/nodes", server_.operator_bearer()));
        const int status = response ? response->status : 0;
        EXPECT_TRUE(status != 429 || response->header("Retry-After") == "1");
        ++(status == 200 ? good : status == 429 ? busy : other);
      }
    });
  for (std::thread& one : operators) one.join();
  EXPECT_GT(good, 0);
  EXPECT_EQ(good + busy, 480);
  EXPECT_EQ(other, 0);
}

// ---- the command line ------------------------------------------------------------------------------------

// The same verbs beside a running server and on its stopped log.
class CommandLine : public Operators, public testing::WithParamInterface<bool> {
 protected:
  void settle() {
    if (!GetParam()) server_.stop();
  }
  void serve_again() {
    if (!GetParam()) server_.start();
  }
  test::CommandResult ledger(const std::string& words) {
    return test::run_command(test::ledger_binary() + " node " + words + " --data-dir " + server_.data_dir().string());
  }
};
INSTANTIATE_TEST_SUITE_P(Server, CommandLine, testing::Values(true, false),
                         [](const auto& instance) { return instance.param ? "Running" : "Stopped"; });

TEST_P(CommandLine, ReleaseThenTheNextPasswordIsBound) {
  ASSERT_EQ(server_.join("web-1", "old").status, 200);
  settle();
  const auto released = ledger("release web-1 --reason 'machine gone' --actor alice");
  EXPECT_EQ(released.status, 0) << released.output;
  EXPECT_THAT(released.output, HasSubstr("released web-1: record "));
  const auto again = ledger("release web-1 --reason 'machine gone'");
  EXPECT_EQ(again.status, 1);
  EXPECT_THAT(again.output, HasSubstr("ledger: web-1 is not bound"));
  const auto unknown = ledger("release web-9 --reason x");
  EXPECT_EQ(unknown.status, 1);
  EXPECT_THAT(unknown.output, HasSubstr("never seen a node web-9"));
  serve_again();
  EXPECT_EQ(server_.join("web-1", "new").status, 200);
  const auto records = server_.records_of<BindingReleased>();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(as<BindingReleased>(records[0])->actor, "alice");
  EXPECT_EQ(records[0].note, "machine gone");
}

TEST_P(CommandLine, AcceptAndHold) {
  ASSERT_EQ(server_.join("web-1", "old").status, 200);
  const std::string fingerprint = refused_fingerprint("web-1", "new");
  settle();
  EXPECT_THAT(ledger("accept web-1 --fingerprint 0000ffff0000ffff --reason x").output, HasSubstr("was ever rejected"));
  const auto accepted = ledger("accept web-1 --fingerprint " + fingerprint.substr(0, 8) + " --reason 'VM rebuilt'");
  EXPECT_EQ(accepted.status, 0) << accepted.output;
  const auto held = ledger("hold web-2 --reason 'watch this' --format json");
  EXPECT_EQ(held.status, 0) << held.output;
  EXPECT_THAT(held.output, HasSubstr(R"("action":"hold")"));
  serve_again();
  EXPECT_EQ(server_.join("web-1", "new").status, 200);
  EXPECT_EQ(server_.join("web-2", "any").status, 403);
}

// Noticed when it is bound, told by `node show`, and never in the way of a join.
TEST_P(CommandLine, PasswordsThatOthersHaveOrCouldGuessAreShown) {
  ASSERT_EQ(server_.join("web-1", "vendor").status, 200);
  ASSERT_EQ(server_.join("web-2", "vendor").status, 200);
  ASSERT_EQ(server_.join("web-3", random_hex(16)).status, 200);
  const auto stored = server_.records_of<PasswordStored>();
  ASSERT_EQ(stored.size(), 3U);
  EXPECT_EQ(as<PasswordStored>(stored[0])->weakness, "low_entropy");
  EXPECT_EQ(as<PasswordStored>(stored[0])->also_bound_to, "");
  EXPECT_EQ(as<PasswordStored>(stored[1])->also_bound_to, "web-1");
  EXPECT_EQ(as<PasswordStored>(stored[2])->weakness, "");
  EXPECT_EQ(as<PasswordStored>(stored[2])->also_bound_to, "");
  settle();
  EXPECT_THAT(ledger("show web-1").output, HasSubstr("can be guessed"));
  EXPECT_THAT(ledger("show web-1").output, HasSubstr("used by web-2"));
  EXPECT_THAT(ledger("show web-2 --format json").output, HasSubstr(R"("also_bound_to":["web-1"])"));
  EXPECT_THAT(ledger("show web-3").output, testing::Not(HasSubstr("beware")));
}

TEST_P(CommandLine, MistakesAreOneLineAndStatusOne) {
  ASSERT_EQ(server_.join("web-1", "old").status, 200);
  settle();
  for (const char* words : {"release web_1 --reason x", "accept web-1 --fingerprint ab --reason x",
                            "release web-1 --reason ' '", "release web-1 --reason x --data-dir /nonexistent"}) {
    const auto mistake = test::run_command(test::ledger_binary() + " node " + words +
                                           (std::string_view(words).find("--data-dir") == std::string_view::npos
                                                ? " --data-dir " + server_.data_dir().string()
                                                : ""));
    EXPECT_EQ(mistake.status, 1) << words << mistake.output;
    EXPECT_THAT(mistake.output, testing::StartsWith("ledger: ")) << words;
    EXPECT_EQ(std::count(mistake.output.begin(), mistake.output.end(), '\n'), 1) << words << "\n" << mistake.output;
  }
  EXPECT_EQ(ledger("release web-1").status, 2) << "no reason given: wrong usage";
}

// The operator's hand on a stopped log is not an unclean stop.
TEST(CommandLineLog, StaysCleanAfterwards) {
  RunningServer server;
  ASSERT_EQ(server.join("web-1", "old").status, 200);
  ASSERT_TRUE(server.stop());
  const auto released = test::run_command(test::ledger_binary() + " node release web-1 --reason x --data-dir " +
                                          server.data_dir().string());
  ASSERT_EQ(released.status, 0) << released.output;
  server.start();
  const auto starts = server.records_of<ServerStarted>();
  ASSERT_EQ(starts.size(), 2U);
  EXPECT_EQ(as<ServerStarted>(starts[1])->clean, std::optional<bool>(true));
}

}  // namespace
}  // namespace ledger::api
