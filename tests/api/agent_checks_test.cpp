#include "api/agent_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "api/agent_config.h"

namespace ledger::api {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

constexpr Generation kAll[] = {Generation::G1, Generation::G2, Generation::G3, Generation::G4, Generation::G5, Generation::G6, Generation::G7};
const std::string kHash(64, 'a');

// ---- token -----------------------------------------------------------------------------------------------

std::string parsed(const std::string& text, Generation generation) {
  const auto token = parse_agent_token(Secret(text), generation);
  if (!token) return token.error().message;
  return token->ca_hash + "|" + token->user + "|" + std::string(token->password.reveal());
}

TEST(AgentToken, ReadsEveryForm) {
  for (const Generation generation : kAll) {
    EXPECT_EQ(parsed("K10" + kHash + "::server:pw", generation), kHash + "|server|pw");
    EXPECT_EQ(parsed("K10::node:p:w", generation), "|node|p:w");
    EXPECT_EQ(parsed("just-a-password", generation), "||just-a-password");
  }
}

TEST(AgentToken, ComplainsInTheWordsOfItsGeneration) {
  EXPECT_EQ(parsed("", Generation::G1), "--token is required");
  EXPECT_EQ(parsed("", Generation::G5), "token must not be empty");
  EXPECT_EQ(parsed("K10" + kHash + "::nocolon", Generation::G1), "token credentials are the wrong format");
  EXPECT_EQ(parsed("K10" + kHash + "::nocolon", Generation::G5), "invalid token format");
  EXPECT_EQ(parsed("K10" + kHash + "::node:", Generation::G4), "invalid token format");
  EXPECT_EQ(parsed("K10abc::node:pw", Generation::G4), "invalid token CA hash length");
  EXPECT_EQ(parsed("K10abc::node:pw", Generation::G3), "abc|node|pw");
}

TEST(AgentToken, BootstrapTokensAreKnownFromG6On) {
  const std::string bootstrap = "abc123.0123456789abcdef";
  const auto is_bootstrap = [](const std::string& text, Generation generation) {
    const auto token = parse_agent_token(Secret(text), generation);
    return token && token->bootstrap;
  };
  for (const std::string& text : {bootstrap, "K10::" + bootstrap, "K10" + kHash + "::" + bootstrap}) {
    EXPECT_TRUE(is_bootstrap(text, Generation::G6)) << text;
    EXPECT_TRUE(is_bootstrap(text, Generation::G7)) << text;
    EXPECT_FALSE(is_bootstrap(text, Generation::G5)) << text;
  }
  EXPECT_EQ(parsed("K10" + kHash + "::" + bootstrap, Generation::G7), kHash + "||" + bootstrap);
  EXPECT_EQ(parsed("K10" + kHash + "::" + bootstrap, Generation::G5), "invalid token format");
  for (const char* other : {"abc123.0123456789abcde", "abc123.0123456789abcdefg", "ABC123.0123456789abcdef",
                            "abc123-0123456789abcdef", "abc123.0123456789abcde!"})
    EXPECT_FALSE(is_bootstrap(other, Generation::G7)) << other;
}

// ---- config document -------------------------------------------------------------------------------------

boost::json::object good_document() {
  const auto config = AgentConfig::make({}, "10.0.0.1", 6443, std::string(96, '0'));
  return boost::json::parse(config->document()).as_object();
}

std::string verdict(const boost::json::object& document, Generation generation,
                    const std::vector<std::string>& node_ips = {"10.0.0.7"}) {
  const auto read = read_cluster_document(boost::json::serialize(document), generation, node_ips);
  return read ? "accepted" : read.error().message;
}

TEST(ClusterDocument, OursIsGoodForEveryGeneration) {
  for (const Generation generation : kAll) EXPECT_EQ(verdict(good_document(), generation), "accepted");
  const auto read = read_cluster_document(boost::json::serialize(good_document()), Generation::G5, {"10.0.0.7"});
  EXPECT_EQ(read->https_port, 6443);
  EXPECT_EQ(read->supervisor_port, 6443);
}

TEST(ClusterDocument, OneWrongTypeSpoilsItAll) {
  boost::json::object document = good_document();
  document["HTTPSPort"] = "6443";
  EXPECT_EQ(verdict(document, Generation::G5),
            "json: cannot unmarshal string into Go struct field Control.HTTPSPort of type int");
  document = good_document();
  document["ClusterIPRange"] = "10.42.0.0/16";
  EXPECT_THAT(verdict(document, Generation::G1), HasSubstr("Control.ClusterIPRange of type net.IPNet"));
}

TEST(ClusterDocument, AGenerationReadsOnlyTheKeysItKnows) {
  boost::json::object document = good_document();
  document["EgressSelectorMode"] = 7;
  EXPECT_EQ(verdict(document, Generation::G4), "accepted");
  EXPECT_THAT(verdict(document, Generation::G5), StartsWith("json: cannot unmarshal number"));
}

TEST(ClusterDocument, ServiceRangesAreNeededUnlessThePolicyControllerIsOff) {
  boost::json::object document = good_document();
  document.erase("ServiceNodePortRange");
  EXPECT_EQ(verdict(document, Generation::G3), "accepted");
  EXPECT_THAT(verdict(document, Generation::G4), StartsWith("incompatible down-level server detected"));
  document["DisableNPC"] = true;
  EXPECT_EQ(verdict(document, Generation::G4), "accepted");
}

TEST(ClusterDocument, AddressFamiliesMustAgree) {
  EXPECT_THAT(verdict(good_document(), Generation::G5, {"fd00::7"}),
              HasSubstr("node-ip: [fd00::7], must share the same IP version"));
  EXPECT_EQ(verdict(good_document(), Generation::G5, {"10.0.0.7", "fd00::7"}), "accepted");
  boost::json::object document = good_document();
  document["ServiceIPRanges"] = {{{"IP", "fd00::"}, {"Mask", "/////////wAAAAAAAAAAAA=="}}};
  EXPECT_THAT(verdict(document, Generation::G5), HasSubstr("and service-cidr: [fd00::], must share"));
  EXPECT_EQ(verdict(document, Generation::G3), "accepted");
}

TEST(ClusterDocument, MissingBasicsAreNamed) {
  boost::json::object document = good_document();
  document.erase("ClusterDNS");
  EXPECT_THAT(verdict(document, Generation::G1), HasSubstr("has no ClusterDNS"));
  EXPECT_FALSE(read_cluster_document("", Generation::G1, {}));
  EXPECT_FALSE(read_cluster_document("[]", Generation::G1, {}));
}

// ---- PEM -------------------------------------------------------------------------------------------------

std::string block(const std::string& type) {
  return "-----BEGIN " + type + "-----\nAAAA\n-----END " + type + "-----\n";
}

TEST(SplitPem, KeysGoOneWayEverythingElseTheOther) {
  const PemParts parts =
      split_pem("leaf\n" + block("CERTIFICATE") + block("EC PRIVATE KEY") + "noise\n" + block("CERTIFICATE"));
  EXPECT_EQ(parts.certificates, block("CERTIFICATE") + block("CERTIFICATE"));
  EXPECT_EQ(parts.key.reveal(), block("EC PRIVATE KEY"));
}

TEST(SplitPem, HalfABlockIsNone) {
  EXPECT_EQ(split_pem("-----BEGIN CERTIFICATE-----\nAAAA\n").certificates, "");
  EXPECT_EQ(split_pem("-----BEGIN CERTIFICATE").certificates, "");
  EXPECT_EQ(split_pem("").certificates, "");
}

// ---- addresses -------------------------------------------------------------------------------------------

TEST(Endpoints, FirstPortOfEachSubset) {
  const auto list = read_endpoints(
      R"({"subsets":[{"addresses":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}],"ports":[{"port":6443},{"port":1}]},)"
      R"({"addresses":[{"ip":"10.0.0.2"}]},{}]})");
  ASSERT_TRUE(list);
  EXPECT_THAT(*list, ElementsAre("10.0.0.1:6443", "[fd00::1]:6443", "10.0.0.2:443"));
  EXPECT_THAT(*read_endpoints("{}"), IsEmpty());
  EXPECT_FALSE(read_endpoints("404 page not found"));
}

TEST(Endpoints, OurOwnAnswersAreRead) {
  const auto config = AgentConfig::make({}, "10.0.0.1", 6443, std::string(96, '0'));
  EXPECT_THAT(*read_endpoints(config->endpoints()), ElementsAre("10.0.0.1:6443"));
  EXPECT_THAT(*read_apiservers(config->apiservers()), ElementsAre("10.0.0.1:6443"));
}

TEST(Apiservers, NullIsAnEmptyList) {
  EXPECT_THAT(*read_apiservers("null\n"), IsEmpty());
  EXPECT_THAT(read_apiservers("{}").error().message, HasSubstr("into Go value of type []string"));
  EXPECT_THAT(read_apiservers("[1]").error().message, StartsWith("json: cannot unmarshal"));
}

TEST(ClusterDocument, KeysOfNewReleasesAreCheckedWhereTheyAreRead) {
  auto document = good_document();
  document["EmbeddedRegistry"] = "yes";
  EXPECT_EQ(verdict(document, Generation::G6), "accepted");
  EXPECT_EQ(verdict(document, Generation::G7),
            "json: cannot unmarshal string into Go struct field Control.EmbeddedRegistry of type bool");
  document["EmbeddedRegistry"] = true;
  EXPECT_TRUE(read_cluster_document(boost::json::serialize(document), Generation::G7, {"10.0.0.7"})->embedded_registry);
}

TEST(StatusMessage, IsThatOfAStatusAndOfNothingElse) {
  EXPECT_EQ(status_message(R"({"kind":"Status","message":"not authorized","code":401})"), "not authorized");
  EXPECT_EQ(status_message("{\"kind\":\"Status\",\"message\":\"a\\nb\"}"), "a?b");
  for (const char* other : {"", "starting", "{}", "[]", R"({"kind":"Pod","message":"x"})", R"({"kind":"Status"})",
                            R"({"kind":"Status","message":7})"})
    EXPECT_EQ(status_message(other), "") << other;
}

}  // namespace
}  // namespace ledger::api
