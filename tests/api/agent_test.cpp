// The played agent against a real server: each generation's requests in their order, and its words when refused.
#include "api/agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <boost/json.hpp>

#include "api/problem.h"
#include "tests/support/bare_listener.h"
#include "tests/support/agent_csr.h"
#include "tests/support/paths.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

using testing::ElementsAreArray;
using testing::EndsWith;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::StartsWith;
using Verdict = AgentOutcome::Verdict;

class AgentTest : public testing::Test {
 protected:
  AgentOptions options(Generation generation, const std::string& node = "web-1") const {
    AgentOptions out;
    out.server = "https://127.0.0.1:" + std::to_string(server_.port());
    out.token = Secret(trim(test::file_bytes(server_.data_dir() / "node-token")));
    out.node_name = node;
    out.generation = generation;
    out.password_file = state_ / node / "password";
    return out;
  }

  static std::vector<std::string> paths(const AgentOutcome& outcome) {
    std::vector<std::string> out;
    for (const AgentRequest& request : outcome.requests) out.push_back(request.path);
    return out;
  }

  test::RunningServer server_;
  test::TempDir state_;
};

const std::vector<std::string> kTrust = {"/cacerts", "/cacerts", "/cacerts"};
const std::vector<std::string> kJoin = {"/v1-k3s/config",
                                        "/v1-k3s/client-ca.crt",
                                        "/v1-k3s/server-ca.crt",
                                        "/v1-k3s/serving-kubelet.crt",
                                        "/v1-k3s/client-kubelet.crt",
                                        "/v1-k3s/client-kube-proxy.crt",
                                        "/v1-k3s/client-k3s-controller.crt"};
const std::vector<std::string> kKubeEndpoints = {"/api/v1/namespaces/default/endpoints/kubernetes"};

std::vector<std::string> sequence(std::initializer_list<std::vector<std::string>> parts) {
  std::vector<std::string> out;
  for (const auto& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

TEST_F(AgentTest, EveryGenerationSendsItsSequenceAndGetsIn) {
  const std::vector<std::string> apis = {"/apis"}, apiservers = {"/v1-k3s/apiservers"};
  const std::vector<std::string> ready = sequence({kTrust, {"/v1-k3s/readyz", "/v1-k3s/config"}});
  const std::vector<std::pair<Generation, std::vector<std::string>>> expected = {
      {Generation::G1, sequence({kTrust, apis, kTrust, apis, kJoin, kKubeEndpoints})},
      {Generation::G2, sequence({kTrust, kTrust, kJoin, kKubeEndpoints})},
      {Generation::G3, sequence({kTrust, kTrust, kJoin, kKubeEndpoints})},
      {Generation::G4, sequence({kTrust, kTrust, kJoin, ready, kKubeEndpoints})},
      {Generation::G5, sequence({kTrust, kTrust, kJoin, ready, kTrust, apiservers})},
      {Generation::G6, sequence({kTrust, kTrust, kJoin, ready, kTrust, apiservers})},
      {Generation::G7, sequence({kTrust, kTrust, kJoin, ready, kTrust, apiservers})},
  };
  for (const auto& [generation, requests] : expected) {
    const AgentOutcome outcome = run_agent(options(generation, "node-" + std::string(name_of(generation))));
    EXPECT_EQ(outcome.verdict, Verdict::joined) << name_of(generation) << ": " << outcome.sentence << outcome.cause;
    EXPECT_THAT(paths(outcome), ElementsAreArray(requests)) << name_of(generation);
    EXPECT_EQ(outcome.requests.front().error, "x509: certificate signed by unknown authority");
    for (const AgentRequest& request : outcome.requests) {
      const bool posts = generation == Generation::G7 && request.path.ends_with(".crt") &&
                         !request.path.ends_with("-ca.crt");
      EXPECT_EQ(request.method, posts ? "POST" : "GET") << request.path;
    }
  }
}

TEST_F(AgentTest, TheServerLearnsTheNodesAddressesAsTheGenerationTellsThem) {
  const auto claimed = [this](Generation generation) {
    AgentOptions agent = options(generation, "ip-" + std::string(name_of(generation)));
    agent.node_ips = {"10.0.0.7", "10.0.0.8"};
    EXPECT_EQ(run_agent(agent).verdict, Verdict::joined);
    return server_.records_of<PasswordStored>().back().claimed;
  };
  EXPECT_THAT(claimed(Generation::G1), testing::IsEmpty());
  EXPECT_THAT(claimed(Generation::G3), testing::ElementsAre("10.0.0.7"));
  EXPECT_THAT(claimed(Generation::G5), testing::ElementsAre("10.0.0.7", "10.0.0.8"));
}

TEST_F(AgentTest, KeepsItsPasswordAndComesBack) {
  EXPECT_EQ(run_agent(options(Generation::G5)).verdict, Verdict::joined);
  const auto file = options(Generation::G5).password_file;
  EXPECT_THAT(test::file_bytes(file), MatchesRegex("[0-9a-f]+\n"));
  EXPECT_EQ(test::file_bytes(file).size(), 33U);
  struct stat status {};
  ASSERT_EQ(::stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  ASSERT_EQ(::stat(file.parent_path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0755U);
  EXPECT_EQ(run_agent(options(Generation::G5)).verdict, Verdict::joined);
}

TEST_F(AgentTest, ARebuiltMachineIsRefusedInTheWordsOfEachGeneration) {
  ASSERT_EQ(run_agent(options(Generation::G5)).verdict, Verdict::joined);
  std::filesystem::remove(options(Generation::G5).password_file);
  const std::vector<std::pair<Generation, std::string>> prefixes = {
      {Generation::G1, "Node password rejected"},
      {Generation::G2, "Failed to retrieve agent config: Node password rejected"},
      {Generation::G3, "Failed to retrieve agent config: Node password rejected"},
      {Generation::G4, "Waiting to retrieve agent configuration; server is not ready: Node password rejected"},
      {Generation::G5, "Waiting to retrieve agent configuration; server is not ready: Node password rejected"},
      {Generation::G6, "Waiting to retrieve agent configuration; server is not ready: Node password rejected"},
      {Generation::G7, "Waiting to retrieve agent configuration; server is not ready: /"},
  };
  for (const auto& [generation, prefix] : prefixes) {
    const AgentOutcome outcome = run_agent(options(generation));
    EXPECT_EQ(outcome.verdict, Verdict::refused);
    EXPECT_THAT(outcome.sentence, StartsWith(prefix));
    EXPECT_THAT(outcome.sentence, EndsWith("try enabling a unique node name with the --with-node-id flag"));
    EXPECT_EQ(outcome.requests.back().status, 403);
    EXPECT_EQ(outcome.requests.back().path, "/v1-k3s/serving-kubelet.crt");
    EXPECT_FALSE(outcome.requests.back().seq.empty());
    EXPECT_FALSE(outcome.requests.back().request_id.empty());
  }
}

TEST_F(AgentTest, ANodeIdMakesAnotherName) {
  AgentOptions agent = options(Generation::G5, "Web-1");
  agent.with_node_id = true;
  const AgentOutcome first = run_agent(agent);
  EXPECT_EQ(first.verdict, Verdict::joined);
  EXPECT_THAT(first.node, MatchesRegex("web-1-[0-9a-f]+"));
  EXPECT_EQ(first.node.size(), std::string("web-1-").size() + 8);
  EXPECT_EQ(run_agent(agent).node, first.node);
  EXPECT_EQ(server_.records_of<PasswordStored>().back().node, first.node);
}

TEST_F(AgentTest, AWrongTokenIsNoticedWhereItsGenerationNoticesIt) {
  const auto refused_at = [this](Generation generation) {
    AgentOptions agent = options(generation);
    agent.token = Secret("wrong");
    const AgentOutcome outcome = run_agent(agent);
    EXPECT_EQ(outcome.verdict, Verdict::refused);
    return outcome.requests.back().phase + " " + outcome.requests.back().path + " " +
           std::to_string(outcome.requests.back().status);
  };
  EXPECT_EQ(refused_at(Generation::G1), "trust /apis 401");
  EXPECT_EQ(refused_at(Generation::G2), "join /v1-k3s/config 401");
  EXPECT_EQ(refused_at(Generation::G5), "join /v1-k3s/config 401");
  EXPECT_EQ(refused_at(Generation::G7), "join /v1-k3s/config 401");
}

TEST_F(AgentTest, ATokenForAnotherClusterIsNotSent) {
  AgentOptions agent = options(Generation::G5);
  agent.token = Secret("K10" + std::string(64, '0') + "::node:pw");
  const AgentOutcome outcome = run_agent(agent);
  EXPECT_EQ(outcome.verdict, Verdict::failed);
  EXPECT_THAT(outcome.sentence, StartsWith("token CA hash does not match the Cluster CA certificate hash: 0000"));
  EXPECT_THAT(paths(outcome), ElementsAreArray(kTrust));
}

TEST_F(AgentTest, WithoutAHashItWarnsAndJoins) {
  AgentOptions agent = options(Generation::G5);
  agent.token = Secret(server_.token());
  const AgentOutcome outcome = run_agent(agent);
  EXPECT_EQ(outcome.verdict, Verdict::joined);
  ASSERT_GE(outcome.lines.size(), 2U);
  EXPECT_EQ(outcome.lines[1].level, AgentLine::Level::warning);
  EXPECT_THAT(outcome.lines[1].message, HasSubstr("the token does not include a CA hash"));
}

TEST_F(AgentTest, HoldsATunnelWithPings) {
  for (const Generation generation : {Generation::G1, Generation::G3, Generation::G5, Generation::G7}) {
    AgentOptions agent = options(generation, "tunnel-" + std::string(name_of(generation)));
    agent.tunnel = true;
    agent.tunnel_for = std::chrono::milliseconds(200);
    agent.ping_every = std::chrono::milliseconds(20);
    const AgentOutcome outcome = run_agent(agent);
    EXPECT_EQ(outcome.verdict, Verdict::joined) << outcome.sentence;
    EXPECT_EQ(outcome.tunnels.size(), 1U);
    EXPECT_GE(outcome.pongs, 1U);
    EXPECT_EQ(outcome.requests.back().status, 101);
    EXPECT_EQ(server_.records_of<TunnelOpened>().back().node, outcome.node);
  }
}

TEST_F(AgentTest, KeepsTryingWhenToldTo) {
  AgentOptions agent = options(Generation::G5);
  agent.token = Secret("wrong");
  agent.attempts = 3;
  agent.pause = std::chrono::milliseconds(1);
  const AgentOutcome outcome = run_agent(agent);
  const auto tries = std::count_if(outcome.requests.begin(), outcome.requests.end(),
                                   [](const AgentRequest& request) { return request.status == 401; });
  EXPECT_EQ(tries, 3);
}

TEST_F(AgentTest, BehindItsBalancerItSeesOnlyTheEnd) {
  AgentOptions agent = options(Generation::G5);
  server_.stop();
  const AgentOutcome outcome = run_agent(agent);
  EXPECT_EQ(outcome.verdict, Verdict::failed);
  EXPECT_EQ(outcome.sentence, "failed to get CA certs: Get \"https://127.0.0.1:6444/cacerts\": EOF");
  EXPECT_THAT(outcome.cause, EndsWith("connect: connection refused"));
  agent.generation = Generation::G1;
  EXPECT_EQ(run_agent(agent).sentence,
            "failed to get CA certs at https://127.0.0.1:6444/cacerts: Get https://127.0.0.1:6444/cacerts: EOF");
}

// ---- bootstrap tokens ------------------------------------------------------------------------------------

class BootstrapAgent : public AgentTest {
 protected:
  struct Made {
    std::string id, secret, join;  // join: K10<hash>::<id>.<secret>
  };
  // What `ledger token create` prints.
  Made create(const std::string& ttl) const {
    const auto made = test::run_command(test::ledger_binary() + " token create --class bootstrap --format json --reason test --ttl " +
                                        ttl + " --data-dir " + server_.data_dir().string());
    EXPECT_EQ(made.status, 0) << made.output;
    boost::json::error_code error;
    const boost::json::value value = boost::json::parse(made.output, error);
    if (error || !value.is_object()) return {};
    const auto text = [&](const char* key) { return std::string(value.at(key).as_string()); };
    return {text("id"), text("secret"), text("join")};
  }
  AgentOutcome join(Generation generation, const std::string& node, const std::string& token) const {
    AgentOptions agent = options(generation, node);
    agent.token = Secret(token);
    return run_agent(agent);
  }
  // The last refusal of a new machine, which must be for this reason and name the token.
  void expect_refused(const Made& made, const std::string& node, const std::string& reason) const {
    for (const Generation generation : {Generation::G6, Generation::G7}) {
      const AgentOutcome outcome = join(generation, node + "-" + std::string(name_of(generation)), made.join);
      EXPECT_EQ(outcome.verdict, Verdict::refused) << outcome.sentence;
      ASSERT_FALSE(outcome.requests.empty());
      EXPECT_EQ(outcome.requests.back().status, 401);
      ASSERT_FALSE(outcome.requests.back().seq.empty());
      const Result<Record> record = server_.log()->read(std::stoull(outcome.requests.back().seq));
      ASSERT_TRUE(record);
      const auto* rejected = as<TokenRejected>(*record);
      ASSERT_NE(rejected, nullptr) << name_of(record->kind());
      EXPECT_EQ(rejected->reason, reason);
      EXPECT_EQ(rejected->token, made.id);
      EXPECT_EQ(record->auth.method, "bearer");
      EXPECT_EQ(record->auth.principal, "system:bootstrap:" + made.id);
      EXPECT_EQ(record->auth.token, "") << "nothing was accepted";
    }
  }
};

TEST_F(BootstrapAgent, JoinsWithItsTokenUntilThatIsRevoked) {
  const Made made = create("1h");
  ASSERT_THAT(made.secret, MatchesRegex("[a-z0-9]+\\.[a-z0-9]+"));
  for (const Generation generation : {Generation::G6, Generation::G7})
    for (const std::string& token : {made.join, made.secret}) {
      const std::string node = std::string(name_of(generation)) + (token == made.secret ? "-bare" : "-pinned");
      const AgentOutcome outcome = join(generation, node, token);
      EXPECT_EQ(outcome.verdict, Verdict::joined) << node << ": " << outcome.sentence << outcome.cause;
      const Record stored = server_.records_of<PasswordStored>().back();
      EXPECT_EQ(stored.node, to_lower(node));
      EXPECT_EQ(stored.auth.method, "bearer");
      EXPECT_EQ(stored.auth.token, made.id);
      EXPECT_THAT(stored.generation, testing::AnyOf("G6", "G7"));
    }
  // Agents before v1.26.2 take it for a password, as k3s' own do.
  EXPECT_EQ(join(Generation::G5, "old-agent", made.secret).verdict, Verdict::refused);

  const auto revoked = test::run_command(test::ledger_binary() + " token revoke " + made.id + " --reason test --data-dir " +
                                         server_.data_dir().string());
  ASSERT_EQ(revoked.status, 0) << revoked.output;
  expect_refused(made, "late", "revoked");
  // Who is in has its certificate, and stays in.
  EXPECT_EQ(join(Generation::G7, "G7-pinned", made.join).verdict, Verdict::joined);
}

TEST_F(BootstrapAgent, IsRefusedOnceItsTokenHasExpired) {
  // A slow machine gets another chance with a longer life.
  Made made;
  bool joined = false;
  for (int ttl_s = 2; ttl_s <= 64 && !joined; ttl_s *= 2) {
    made = create(std::to_string(ttl_s) + "s");
    joined = join(Generation::G7, "in-time-" + std::to_string(ttl_s), made.join).verdict == Verdict::joined;
  }
  ASSERT_TRUE(joined);
  // Each time another machine: one that got in has a certificate and stays in.
  int tries = 0;
  ASSERT_TRUE(test::eventually(
      [&] { return join(Generation::G6, "waiting-" + std::to_string(++tries), made.join).verdict == Verdict::refused; },
      std::chrono::seconds(120)));
  expect_refused(made, "late", "expired");
}

TEST_F(AgentTest, PasswordsNeverShowInWhatItSays) {
  AgentOptions agent = options(Generation::G5);
  agent.node_password = Secret("0123456789abcdef0123456789abcdef");
  ASSERT_EQ(run_agent(agent).verdict, Verdict::joined);
  EXPECT_FALSE(std::filesystem::exists(agent.password_file));
  agent.node_password = Secret("fedcba9876543210fedcba9876543210");
  const AgentOutcome outcome = run_agent(agent);
  ASSERT_EQ(outcome.verdict, Verdict::refused);
  for (const AgentLine& line : outcome.lines) {
    EXPECT_THAT(line.to_string(), testing::Not(HasSubstr("fedcba98")));
    EXPECT_THAT(line.to_string(), testing::Not(HasSubstr(server_.token())));
  }
}

// ---- G6 and G7: what an earlier start left behind --------------------------------------------------------

TEST_F(AgentTest, KeepsWhatItWasGivenAsTheAgentDoes) {
  for (const Generation generation : {Generation::G1, Generation::G6, Generation::G7}) {
    const std::string node = "files-" + to_lower(name_of(generation));
    ASSERT_EQ(run_agent(options(generation, node)).verdict, Verdict::joined);
    const auto directory = state_ / node / "agent";
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      found.push_back(entry.path().filename().string());
      struct stat status {};
      ASSERT_EQ(::stat(entry.path().c_str(), &status), 0);
      EXPECT_EQ(status.st_mode & 0777, 0600U) << entry.path();
    }
    EXPECT_THAT(found, testing::UnorderedElementsAre(
                           "client-ca.crt", "server-ca.crt", "serving-kubelet.crt", "serving-kubelet.key",
                           "client-kubelet.crt", "client-kubelet.key", "client-kube-proxy.crt", "client-kube-proxy.key",
                           "client-k3s-controller.crt", "client-k3s-controller.key"));
    EXPECT_EQ(test::file_bytes(directory / "server-ca.crt"), server_.ca());
    for (const char* pair : {"serving-kubelet", "client-kubelet", "client-kube-proxy", "client-k3s-controller"})
      EXPECT_TRUE(check_key_pair(test::file_bytes(directory / (std::string(pair) + ".crt")),
                                 Secret(test::file_bytes(directory / (std::string(pair) + ".key")))));
  }
}

TEST_F(AgentTest, ARestartOfG6PresentsItsCertificate) {
  const auto generations = [this](Generation generation, const std::string& node) {
    EXPECT_EQ(run_agent(options(generation, node)).verdict, Verdict::joined);
    std::vector<std::string> out;
    for (const Record& record : server_.records_of<PasswordVerified>())
      if (record.node == node) out.push_back(record.generation);
    return out;
  };
  const auto first = generations(Generation::G6, "web-6");
  EXPECT_THAT(first, testing::Each(testing::Ne("G6"))) << "there was none yet";
  const auto second = generations(Generation::G6, "web-6");
  ASSERT_EQ(second.size(), first.size() + 2);
  EXPECT_EQ(second.back(), "G6");
  // An agent that is upgraded finds what the older one left.
  generations(Generation::G5, "web-5");
  EXPECT_EQ(generations(Generation::G6, "web-5").back(), "G6");
  // A pair that does not load is not presented, and gets replaced.
  test::put_file(state_ / "web-5" / "agent" / "client-kubelet.key", "rubbish\n");
  EXPECT_NE(generations(Generation::G6, "web-5").back(), "G6");
  EXPECT_EQ(generations(Generation::G6, "web-5").back(), "G6");
}

// A server that stands before the real one, and answers some requests itself.
class AgentAtAFront : public AgentTest {
 protected:
  using Override = std::function<std::optional<Response>(const Request&)>;

  AgentAtAFront() {
    front_.emplace(Listener::Limits{}, [this](std::shared_ptr<const Request> request, Reply reply) {
      if (request->path == "/cacerts") {
        Response response;
        response.body = front_->https_options().bundle_pem;
        return reply(std::move(response));
      }
      std::optional<Response> own = override_ ? override_(*request) : std::nullopt;
      reply(own ? std::move(*own) : forward(*request));
    });
  }
  ~AgentAtAFront() override { front_.reset(); }

  Response forward(const Request& request) const {
    HttpsRequest onward = test::request_of(request.method, request.path, server_.agent());
    onward.body = request.body;
    const auto replaced = [](std::string text, const std::string& from, const std::string& to) {
      for (auto at = text.find(from); at != std::string::npos; at = text.find(from)) text.replace(at, from.size(), to);
      return text;
    };
    onward.target = replaced(onward.target, "rke2", "k3s");
    for (const auto& [name, value] : request.headers)
      if (name.find("-node-") != std::string::npos) onward.headers.emplace_back(replaced(name, "rke2", "k3s"), value);
    const HttpsResponse answer = server_.send(onward);
    Response response;
    response.status = answer.status;
    response.body = answer.body;
    return response;
  }
  AgentOptions front_options(Generation generation) const {
    AgentOptions out = options(generation);
    out.server = "https://127.0.0.1:" + std::to_string(front_->port());
    out.token = Secret(server_.token());
    return out;
  }
  std::vector<std::shared_ptr<const Request>> heard(const std::string& path) const {
    std::vector<std::shared_ptr<const Request>> out;
    for (const auto& request : front_->requests())
      if (request->path == path) out.push_back(request);
    return out;
  }
  static Response status_body(int status, const std::string& message) {
    return to_response(Problem{status, message});
  }

  Override override_;
  std::optional<test::BareListener> front_;
};

TEST_F(AgentAtAFront, TheCertificateIsOnEveryRequestAfterTheCaRound) {
  for (const Generation generation : {Generation::G6, Generation::G7}) {
    AgentOptions agent = front_options(generation);
    agent.password_file = state_ / std::string(name_of(generation)) / "password";
    agent.node_name = name_of(generation);
    const auto presented = [&] {
      const std::size_t before = front_->requests().size();
      EXPECT_EQ(run_agent(agent).verdict, Verdict::joined);
      std::vector<std::string> with;
      const auto all = front_->requests();
      for (std::size_t i = before; i < all.size(); ++i) {
        EXPECT_EQ(all[i]->header("authorization"), all[i]->path == "/cacerts" ? "" : server_.agent());
        if (!all[i]->certificate.empty()) with.push_back(all[i]->path);
      }
      return with;
    };
    const std::vector<std::string> later = {"/v1-k3s/readyz", "/v1-k3s/config", "/v1-k3s/apiservers"};
    EXPECT_THAT(presented(), ElementsAreArray(later)) << "none before it has one";
    EXPECT_THAT(presented(), ElementsAreArray(sequence({kJoin, later})));
  }
}

// The node was deleted, its certificate is not: the agent tries the same request without.
TEST_F(AgentAtAFront, A401WithACertificateIsRetriedWithout) {
  ASSERT_EQ(run_agent(front_options(Generation::G6)).verdict, Verdict::joined);
  override_ = [](const Request& request) -> std::optional<Response> {
    if (!request.path.ends_with("-kubelet.crt") || request.certificate.empty()) return std::nullopt;
    return status_body(401, "node unknown");
  };
  const AgentOutcome outcome = run_agent(front_options(Generation::G6));
  EXPECT_EQ(outcome.verdict, Verdict::joined) << outcome.sentence;
  for (const char* path : {"/v1-k3s/serving-kubelet.crt", "/v1-k3s/client-kubelet.crt"}) {
    const auto requests = heard(path);
    ASSERT_EQ(requests.size(), 3U);
    EXPECT_FALSE(requests[1]->certificate.empty());
    EXPECT_TRUE(requests[2]->certificate.empty());
    EXPECT_EQ(requests[2]->header("k3s-node-password"), requests[1]->header("k3s-node-password"));
    EXPECT_NE(requests[2]->header("k3s-node-password"), "");
  }
  EXPECT_EQ(std::count_if(outcome.lines.begin(), outcome.lines.end(),
                          [](const AgentLine& line) {
                            return line.level == AgentLine::Level::info &&
                                   line.message ==
                                       "Node authorization rejected, retrying without client certificate authentication";
                          }),
            2);
}

// Agents of G7 cannot: the body of the request object is used up, and the next loop presents the certificate again.
TEST_F(AgentAtAFront, TheRetryOfG7NeverLeavesTheMachine) {
  ASSERT_EQ(run_agent(front_options(Generation::G7)).verdict, Verdict::joined);
  override_ = [](const Request& request) -> std::optional<Response> {
    if (!request.path.ends_with("-kubelet.crt") || request.certificate.empty()) return std::nullopt;
    return status_body(401, "node unknown");
  };
  AgentOptions agent = front_options(Generation::G7);
  agent.attempts = 2;
  agent.pause = std::chrono::milliseconds(1);
  const AgentOutcome outcome = run_agent(agent);
  EXPECT_EQ(outcome.verdict, Verdict::refused);
  const auto requests = heard("/v1-k3s/serving-kubelet.crt");
  ASSERT_EQ(requests.size(), 3U) << "one of the first start, one of each attempt";
  EXPECT_FALSE(requests[2]->certificate.empty());
  EXPECT_EQ(outcome.sentence,
            "Waiting to retrieve agent configuration; server is not ready: " +
                (state_ / "web-1" / "agent" / "serving-kubelet.crt").string() +
                ": Post \"https://127.0.0.1:6444/v1-k3s/serving-kubelet.crt\": http: ContentLength=" +
                std::to_string(requests[2]->body.size()) + " with Body length 0");
  // Without a certificate a 401 is a 401.
  std::filesystem::remove(state_ / "web-1" / "agent" / "client-kubelet.crt");
  override_ = [](const Request& request) -> std::optional<Response> {
    if (!request.path.ends_with("-kubelet.crt")) return std::nullopt;
    return status_body(401, "node unknown");
  };
  EXPECT_THAT(run_agent(front_options(Generation::G7)).sentence,
              EndsWith("https://127.0.0.1:6444/v1-k3s/serving-kubelet.crt: 401 Unauthorized"));
}

TEST_F(AgentAtAFront, ACsrIsBareAndItsKeyStaysWhereItIs) {
  // Signs what is asked for with a key of its own: only the agent has the private key.
  override_ = [](const Request& request) -> std::optional<Response> {
    if (request.method != "POST") return std::nullopt;
    Response response;
    response.body = test::sign_csr(request.body);
    if (!request.path.ends_with("kubelet.crt")) response.status = 201;
    return response;
  };
  ASSERT_EQ(run_agent(front_options(Generation::G7)).verdict, Verdict::joined);
  const auto key_file = state_ / "web-1" / "agent" / "serving-kubelet.key";
  const std::string key = test::file_bytes(key_file);
  EXPECT_THAT(key, StartsWith("-----BEGIN EC PRIVATE KEY-----\n"));
  ASSERT_EQ(run_agent(front_options(Generation::G7)).verdict, Verdict::joined);
  EXPECT_EQ(test::file_bytes(key_file), key) << "a key that is there is used again";
  const auto requests = heard("/v1-k3s/serving-kubelet.crt");
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[0]->header_count("content-type"), 0U);
  EXPECT_EQ(requests[0]->header("content-length"), std::to_string(requests[0]->body.size()));
  EXPECT_EQ(test::public_key_of_csr(requests[0]->body), test::public_key_of_csr(requests[1]->body));
  EXPECT_NE(test::public_key_of_csr(requests[0]->body),
            test::public_key_of_csr(heard("/v1-k3s/client-kubelet.crt")[0]->body));

  // Exactly 200 where the node is named, any 2xx elsewhere.
  const auto inner = override_;
  override_ = [inner](const Request& request) {
    std::optional<Response> response = inner(request);
    if (response) response->status = 201;
    return response;
  };
  EXPECT_THAT(run_agent(front_options(Generation::G7)).sentence, EndsWith("serving-kubelet.crt: 201 Created"));
}

TEST_F(AgentAtAFront, ABootstrapTokenIsABearer) {
  const std::string token = "abcdef.0123456789abcdef";
  const auto sent = [&](Generation generation, const std::string& text) {
    AgentOptions agent = front_options(generation);
    agent.node_name = name_of(generation);
    agent.node_password = Secret("pw");
    agent.token = Secret(text);
    EXPECT_EQ(run_agent(agent).verdict, Verdict::joined);
    return std::string(front_->requests().back()->header("authorization"));
  };
  EXPECT_EQ(sent(Generation::G6, token), "Bearer " + token);
  EXPECT_EQ(sent(Generation::G7, "K10" + sha256_hex(front_->https_options().bundle_pem) + "::" + token), "Bearer " + token);
  EXPECT_EQ(sent(Generation::G5, token), test::basic("node", token)) << "G5 knows no such tokens";
}

TEST_F(AgentAtAFront, G7SaysWhatTheServerSaidAndWhere) {
  override_ = [](const Request& request) -> std::optional<Response> {
    if (request.path == "/v1-k3s/config") return status_body(503, "starting");
    return std::nullopt;
  };
  const std::string waiting = "Waiting to retrieve agent configuration; server is not ready: ";
  const std::string config = waiting + "failed to retrieve configuration from server: ";
  EXPECT_EQ(run_agent(front_options(Generation::G6)).sentence,
            config + "https://127.0.0.1:6444/v1-k3s/config: 503 Service Unavailable");
  EXPECT_EQ(run_agent(front_options(Generation::G7)).sentence, config + "starting");
  override_ = [](const Request& request) -> std::optional<Response> {
    if (request.path == "/v1-k3s/client-kube-proxy.crt") return status_body(429, "too many");
    return std::nullopt;
  };
  EXPECT_EQ(run_agent(front_options(Generation::G7)).sentence,
            waiting + (state_ / "web-1" / "agent" / "client-kube-proxy.crt").string() + ": too many");
  AgentOptions lost = front_options(Generation::G7);
  lost.token = Secret("K10" + std::string(64, '0') + "::node:pw");
  EXPECT_THAT(run_agent(lost).sentence,
              StartsWith("Failed to validate connection to cluster at " + lost.server + ": token CA hash does not"));
}

TEST_F(AgentAtAFront, AnRke2AgentHasItsOwnPathsAndHeaders) {
  AgentOptions agent = front_options(Generation::G6);
  agent.rke2 = true;
  const AgentOutcome outcome = run_agent(agent);
  ASSERT_EQ(outcome.verdict, Verdict::joined) << outcome.sentence;
  std::vector<std::string> expected = sequence({kTrust, kTrust, kJoin, kTrust});
  std::vector<std::string> got = paths(outcome);
  got.resize(expected.size());
  for (std::string& path : expected)
    for (auto at = path.find("k3s"); at != std::string::npos; at = path.find("k3s")) path.replace(at, 3, "rke2");
  EXPECT_THAT(got, ElementsAreArray(expected));
  const auto request = heard("/v1-rke2/serving-kubelet.crt").at(0);
  EXPECT_EQ(request->header("rke2-node-name"), "web-1");
  EXPECT_NE(request->header("rke2-node-password"), "");
  EXPECT_NE(request->header("rke2-node-ip"), "");
  EXPECT_EQ(request->header_count("k3s-node-name"), 0U);
  EXPECT_THAT(outcome.lines[0].message, StartsWith("Starting rke2 agent v1.28.15+rke2r1"));
  EXPECT_TRUE(std::filesystem::exists(state_ / "web-1" / "agent" / "client-rke2-controller.key"));
  agent.generation = Generation::G1;
  EXPECT_THAT(run_agent(agent).sentence, HasSubstr("there is no RKE2 agent of generation G1"));
}

TEST_F(AgentAtAFront, TheRegistryAsksForPeers) {
  override_ = [this](const Request& request) -> std::optional<Response> {
    if (request.path != "/v1-k3s/config") return std::nullopt;
    Response response = forward(request);
    const auto at = response.body.find("\"EmbeddedRegistry\":false");
    EXPECT_NE(at, std::string::npos);
    response.body.replace(at, 24, "\"EmbeddedRegistry\":true ");
    return response;
  };
  EXPECT_EQ(run_agent(front_options(Generation::G6)).requests.back().path, "/v1-k3s/apiservers");
  EXPECT_EQ(run_agent(front_options(Generation::G7)).requests.back().path, "/v1-k3s/p2p");
}

TEST(AgentLine, IsLogrusText) {
  const AgentLine line{Time{1'581'000'000'000'001}, AgentLine::Level::error, "say \"no\"", "error", "EOF"};
  EXPECT_EQ(line.to_string(),
            "time=\"2020-02-06T14:40:00.000001Z\" level=error msg=\"say \\\"no\\\"\" error=\"EOF\"");
}

TEST(AgentOptionsTest, BadUrlsAndTokensAreLocalFailures) {
  const auto sentence = [](const std::string& server, const std::string& token) {
    AgentOptions agent;
    agent.server = server;
    agent.token = Secret(token);
    agent.node_name = "web-1";
    agent.node_password = Secret("pw");
    const AgentOutcome outcome = run_agent(agent);
    EXPECT_EQ(outcome.verdict, Verdict::failed);
    EXPECT_TRUE(outcome.requests.empty());
    return outcome.sentence;
  };
  EXPECT_EQ(sentence("http://10.0.0.1:6443", "pw"),
            "only https:// URLs are supported, invalid scheme: http://10.0.0.1:6443");
  EXPECT_THAT(sentence("10.0.0.1", "pw"), StartsWith("Invalid server url, failed to parse: "));
  EXPECT_EQ(sentence("https://10.0.0.1:6443", ""), "token must not be empty");
}

}  // namespace
}  // namespace ledger::api
