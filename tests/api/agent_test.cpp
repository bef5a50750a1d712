// The played agent against a real server: each generation's requests in their order, and its words when refused.
#include "api/agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

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
  };
  for (const auto& [generation, requests] : expected) {
    const AgentOutcome outcome = run_agent(options(generation, "node-" + std::string(name_of(generation))));
    EXPECT_EQ(outcome.verdict, Verdict::joined) << name_of(generation) << ": " << outcome.sentence << outcome.cause;
    EXPECT_THAT(paths(outcome), ElementsAreArray(requests)) << name_of(generation);
    EXPECT_EQ(outcome.requests.front().error, "x509: certificate signed by unknown authority");
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
  for (const Generation generation : {Generation::G1, Generation::G3, Generation::G5}) {
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
