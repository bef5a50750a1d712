// The requests of every generation in their order, and what is known of it at each.
#include "api/generations.h"

#include <gtest/gtest.h>

namespace ledger::api {
namespace {

struct Agent {
  std::string authorization = "Basic eA==", certificate, method = "GET", source = "10.0.0.5:1";
  bool node_ip = true;

  Request request(std::string path) const {
    Request request;
    request.method = path.ends_with(".crt") ? method : "GET";
    request.path = std::move(path);
    request.source = source;
    request.certificate = certificate;
    request.headers = {{"authorization", authorization}, {"k3s-node-name", "n"}};
    if (node_ip) request.headers.emplace_back("k3s-node-ip", "10.0.0.5");
    return request;
  }
};

const std::string kServing = "/v1-k3s/serving-kubelet.crt", kClient = "/v1-k3s/client-kubelet.crt";

// Both kubelet certificates; the generation said for each must be one.
std::string registers(Generations& known, const Agent& agent, const std::string& node = "web-1",
                      const std::string& password = "aa") {
  std::string said[2];
  for (int i = 0; i < 2; ++i) {
    const Request request = agent.request(i == 0 ? kServing : kClient);
    said[i] = known.of_registration(request, node, Fingerprint{password});
    known.admitted(request, node, Fingerprint{password});
  }
  EXPECT_EQ(said[0], said[1]);
  return said[0];
}

TEST(GenerationsTest, ShownByTheRequestItself) {
  Generations known;
  Agent first;
  first.node_ip = false;
  EXPECT_EQ(registers(known, first, "g1"), "G1");
  EXPECT_EQ(Generations::of_request(first.request("/apis")), "G1");
  Agent sixth;
  sixth.certificate = "der";
  EXPECT_EQ(registers(known, sixth, "g6"), "G6");
  sixth.certificate.clear();
  sixth.authorization = "Bearer abcdef.0123456789abcdef";
  EXPECT_EQ(registers(known, sixth, "g6b"), "G6");
  sixth.method = "POST";
  EXPECT_EQ(registers(known, sixth, "g7"), "G7");
}

TEST(GenerationsTest, TheLastLifeTellsFourAndFive) {
  Generations known;
  const Agent agent;
  EXPECT_EQ(registers(known, agent), "") << "a first join";
  known.served(agent.request("/v1-k3s/readyz"), "");
  known.served(agent.request("/v1-k3s/apiservers"), "");
  known.tunnel_opened(agent.request("/v1-k3s/connect"), "web-1");
  EXPECT_EQ(registers(known, agent), "G5");
  EXPECT_EQ(registers(known, agent), "G5") << "a life that ended early says nothing new";
  EXPECT_EQ(registers(known, agent, "web-1", "bb"), "") << "another machine of this name";

  Generations other;
  registers(other, agent);
  other.served(agent.request("/v1-k3s/readyz"), "");
  EXPECT_EQ(registers(other, agent), "") << "ended before it could ask for apiservers";
  other.served(agent.request("/v1-k3s/readyz"), "");
  other.tunnel_opened(agent.request("/v1-k3s/connect"), "web-1");
  EXPECT_EQ(registers(other, agent), "G4");
  other.tunnel_opened(agent.request("/v1-k3s/connect"), "web-1");
  EXPECT_EQ(registers(other, agent), "") << "without readyz: G2, G3 or an early G4";
}

TEST(GenerationsTest, ASixthIsNotAFifth) {
  Generations known;
  Agent agent;
  registers(known, agent);
  known.served(agent.request("/v1-k3s/apiservers"), "");
  agent.certificate = "der";
  EXPECT_EQ(registers(known, agent), "G6") << "shows at its second start what it got at its first";
  known.served(agent.request("/v1-k3s/apiservers"), "web-1");
  agent.certificate.clear();
  EXPECT_EQ(registers(known, agent), "") << "its life is no fifth's";
}

TEST(GenerationsTest, NothingIsConcludedBehindOneAddress) {
  Generations known;
  const Agent agent;
  registers(known, agent, "web-1", "aa");
  registers(known, agent, "web-2", "bb");
  known.served(agent.request("/v1-k3s/apiservers"), "");
  EXPECT_EQ(registers(known, agent, "web-1", "aa"), "");
  EXPECT_EQ(registers(known, agent, "web-2", "bb"), "");
}

TEST(GenerationsTest, MemoryIsBounded) {
  Generations known(2);
  const Agent agent;
  registers(known, agent, "old");
  known.served(agent.request("/v1-k3s/apiservers"), "");
  for (const char* node : {"a", "b", "c"}) {
    Agent another;
    another.source = std::string("10.1.0.") + node + ":1";
    registers(known, another, node);
  }
  EXPECT_EQ(registers(known, agent, "old"), "") << "forgotten";
}

}  // namespace
}  // namespace ledger::api
