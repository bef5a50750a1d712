// What agents are told: exact keys, exact JSON types. An agent refuses the whole document for one wrong type.
#include "api/agent_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "api/agent_checks.h"

namespace ledger::api {
namespace {

namespace json = boost::json;
using testing::HasSubstr;

const std::string kPsk(96, 'a');

AgentConfig made(const ClusterOptions& options = {}, const std::string& advertise = "10.0.0.1") {
  Result<AgentConfig> config = AgentConfig::make(options, advertise, 6443, kPsk);
  EXPECT_TRUE(config) << config.error().message;
  return config ? *config : AgentConfig();
}

std::string refusal(const ClusterOptions& options) {
  const Result<AgentConfig> config = AgentConfig::make(options, "10.0.0.1", 6443, kPsk);
  return config ? "accepted" : config.error().message;
}

TEST(AgentConfig, DefaultDocumentIsTheOneEveryGenerationAccepts) {
  // The document of the protocol's reference, with our port; compared as values, so as types too.
  const json::value expected = json::parse(R"({
    "ClusterDNS":"10.43.0.10","ClusterDNSs":["10.43.0.10"],"ClusterDomain":"cluster.local",
    "ClusterIPRange":{"IP":"10.42.0.0","Mask":"//8AAA=="},"ClusterIPRanges":[{"IP":"10.42.0.0","Mask":"//8AAA=="}],
    "ServiceIPRange":{"IP":"10.43.0.0","Mask":"//8AAA=="},"ServiceIPRanges":[{"IP":"10.43.0.0","Mask":"//8AAA=="}],
    "ServiceNodePortRange":{"Base":30000,"Size":2768},"FlannelBackend":"vxlan","FlannelIPv6Masq":false,
    "FlannelExternalIP":false,"EgressSelectorMode":"agent","IPSECPSK":")" + kPsk + R"(","DisableCCM":false,
    "DisableNPC":false,"DisableKubeProxy":false,"EmbeddedRegistry":false,"SupervisorMetrics":false,
    "HTTPSPort":6443,"SupervisorPort":6443,"SystemDefaultRegistry":"","MinTLSVersion":"","CipherSuites":null})");
  const std::string document = made().document();
  EXPECT_EQ(json::parse(document), expected) << document;
  EXPECT_TRUE(document.ends_with("}\n")) << "Go's encoder ends with a line end";
}

TEST(AgentConfig, EveryGenerationReadsIt) {
  for (int number = 1; number <= 5; ++number) {
    const auto generation = static_cast<Generation>(number);
    const auto read = read_cluster_document(made().document(), generation, {"10.0.0.7"});
    ASSERT_TRUE(read) << name_of(generation) << ": " << read.error().message;
    EXPECT_EQ(read->https_port, 6443);
    EXPECT_EQ(read->supervisor_port, 6443);
  }
}

TEST(AgentConfig, SplitPortsAreBothNamed) {
  const auto config = AgentConfig::make({}, "10.0.0.1", {6443, 9345}, kPsk, kRke2);
  ASSERT_TRUE(config) << config.error().message;
  const json::object document = json::parse(config->document()).as_object();
  EXPECT_EQ(document.at("HTTPSPort"), json::value(6443));
  EXPECT_EQ(document.at("SupervisorPort"), json::value(9345));
  // Agents replace this port by the supervisor's where the two differ.
  EXPECT_EQ(config->apiservers(), "[\"10.0.0.1:6443\"]\n");
  EXPECT_THAT(config->endpoints(), HasSubstr(R"("port":6443)"));
}

TEST(AgentConfig, ProgramsHaveDefaultsOfTheirOwn) {
  const auto flannel_and_npc = [](const ClusterOptions& options, const Program& program) {
    const auto config = AgentConfig::make(options, "10.0.0.1", 6443, kPsk, program);
    const json::object document = json::parse(config->document()).as_object();
    return json::serialize(document.at("FlannelBackend")) + json::serialize(document.at("DisableNPC"));
  };
  EXPECT_EQ(flannel_and_npc({}, kK3s), R"("vxlan"false)");
  EXPECT_EQ(flannel_and_npc({}, kRke2), R"("none"true)");
  ClusterOptions options;
  options.flannel_backend = "host-gw";
  EXPECT_EQ(flannel_and_npc(options, kK3s), R"("host-gw"false)");
  EXPECT_EQ(flannel_and_npc(options, kRke2), R"("host-gw"true)");
}

TEST(AgentConfig, DualStackListsBothAndNamesTheFirstAsPrimary) {
  ClusterOptions options;
  options.cluster_cidr = "10.42.0.0/16, fd42::/56";
  options.service_cidr = "10.43.0.0/16,fd43::/112";
  options.cluster_dns = "10.43.0.10,fd43::a";
  const json::object document = json::parse(made(options).document()).as_object();
  EXPECT_EQ(document.at("ClusterIPRange"), json::parse(R"({"IP":"10.42.0.0","Mask":"//8AAA=="})"));
  EXPECT_EQ(document.at("ClusterIPRanges"),
            json::parse(R"([{"IP":"10.42.0.0","Mask":"//8AAA=="},{"IP":"fd42::","Mask":"/////////wAAAAAAAAAAAA=="}])"));
  EXPECT_EQ(document.at("ServiceIPRanges"),
            json::parse(R"([{"IP":"10.43.0.0","Mask":"//8AAA=="},{"IP":"fd43::","Mask":"//////////////////8AAA=="}])"));
  EXPECT_EQ(document.at("ClusterDNSs"), json::parse(R"(["10.43.0.10","fd43::a"])"));
  EXPECT_EQ(document.at("ClusterDNS"), json::value("10.43.0.10"));
}

// Go's net.ParseCIDR, which k3s reads the option with, keeps the network and drops the host's bits.
TEST(AgentConfig, HostBitsOfANetworkAreDropped) {
  ClusterOptions options;
  options.cluster_cidr = "10.42.17.9/20";
  options.service_cidr = "10.43.255.255/8";
  const json::object document = json::parse(made(options).document()).as_object();
  EXPECT_EQ(document.at("ClusterIPRange"), json::parse(R"({"IP":"10.42.16.0","Mask":"///wAA=="})"));
  EXPECT_EQ(document.at("ServiceIPRange"), json::parse(R"({"IP":"10.0.0.0","Mask":"/wAAAA=="})"));
}

TEST(AgentConfig, BadOptionsAreNamed) {
  const auto with = [](std::string ClusterOptions::*field, const char* value) {
    ClusterOptions options;
    options.*field = value;
    return refusal(options);
  };
  for (const char* bad : {"", "10.42.0.0", "10.42.0.0/33", "10.42.0.0/-1", "10.42.0.0/", "10.42.0.0/16x", "x/16",
                          "fd42::/129", "10.42.0.0/16,,fd42::/56"})
    EXPECT_THAT(with(&ClusterOptions::cluster_cidr, bad), HasSubstr("--cluster-cidr")) << bad;
  EXPECT_THAT(with(&ClusterOptions::service_cidr, "nonsense"), HasSubstr("--service-cidr nonsense"));
  for (const char* bad : {"", "10.43.0.10.1", "10.43.0.10,", "kube-dns"})
    EXPECT_THAT(with(&ClusterOptions::cluster_dns, bad), HasSubstr("--cluster-dns")) << bad;
  for (const char* bad : {"", "30000", "30000-", "-32767", "32767-30000", "0-5", "30000-65536", "30000-32767x"})
    EXPECT_THAT(with(&ClusterOptions::service_node_port_range, bad), HasSubstr("--service-node-port-range")) << bad;
}

// Agents exit on a mix of address families, after they have joined.
TEST(AgentConfig, AddressFamiliesMustAgree) {
  const auto families = [](const char* cluster, const char* service) {
    ClusterOptions options;
    options.cluster_cidr = cluster;
    options.service_cidr = service;
    return refusal(options);
  };
  EXPECT_THAT(families("10.42.0.0/16", "fd43::/112"), HasSubstr("must share the same IP version"));
  EXPECT_THAT(families("10.42.0.0/16,fd42::/56", "10.43.0.0/16"), HasSubstr("must share the same IP version"));
  EXPECT_THAT(families("10.42.0.0/16,fd42::/56", "fd43::/112,10.43.0.0/16"),
              HasSubstr("must share the same IP version"));
  EXPECT_THAT(families("10.42.0.0/16,fd42::/56", "10.43.0.0/16,10.44.0.0/16"),
              HasSubstr("must share the same IP version"));
  EXPECT_EQ(families("fd42::/56,10.42.0.0/16", "fd43::/112,10.43.0.0/16"), "accepted");
}

TEST(AgentConfig, ListsNameThisServerOnly) {
  const AgentConfig v4 = made();
  EXPECT_EQ(v4.apiservers(), "[\"10.0.0.1:6443\"]\n");
  EXPECT_EQ(*read_apiservers(v4.apiservers()), std::vector<std::string>{"10.0.0.1:6443"});
  EXPECT_EQ(*read_endpoints(v4.endpoints()), std::vector<std::string>{"10.0.0.1:6443"});
  const AgentConfig v6 = made({}, "fd00::1");
  EXPECT_EQ(v6.apiservers(), "[\"[fd00::1]:6443\"]\n");

  const json::object list = json::parse(v4.endpoints_list()).as_object();
  EXPECT_EQ(list.at("kind"), json::value("EndpointsList"));
  EXPECT_EQ(list.at("items"), json::array{json::parse(v4.endpoints())});
  const std::string event = v4.endpoints_watch_event();
  EXPECT_EQ(json::parse(event), json::value({{"type", "ADDED"}, {"object", json::parse(v4.endpoints())}}));
  EXPECT_TRUE(event.ends_with("}\n")) << "a watch is one object a line";
  EXPECT_EQ(json::parse(v4.api_groups()), json::parse(R"({"kind":"APIGroupList","apiVersion":"v1","groups":[]})"));
}

}  // namespace
}  // namespace ledger::api
