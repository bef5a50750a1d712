// The agents' API on the wire: every endpoint, the scripts of tests/api/*.http.txt, certificates as openssl sees
// them, and the watch.
#include "api/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "tests/support/http_script.h"
#include "tests/support/paths.h"
#include "tests/support/raw_link.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

namespace json = boost::json;
using test::RunningServer;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::filesystem::path script(const char* name) {
  return std::filesystem::path(test::source_dir()) / "tests" / "api" / name;
}

TEST(HttpScript, Surface) {
  RunningServer server;
  EXPECT_GT(test::HttpScript(server).run(script("surface.http.txt")), 40);
}

class KubeletScript : public testing::TestWithParam<const char*> {};

TEST_P(KubeletScript, EveryAnswerAndItsRecord) {
  RunningServer server;
  const std::string stem = GetParam();
  const std::string label(63, 'n');
  const std::string longest = label + "." + label + "." + label + "." + label.substr(2);
  test::HttpScript kubelet(server, {{"endpoint", "/v1-k3s/" + stem + ".crt"},
                                    {"purpose", stem},
                                    {"longest", longest},
                                    {"long", longest + "n"},
                                    {"long_password", std::string(1025, 'p')}});
  EXPECT_GT(kubelet.run(script("kubelet.http.txt")), 45);
}
INSTANTIATE_TEST_SUITE_P(Both, KubeletScript, testing::Values("serving-kubelet", "client-kubelet"),
                         [](const auto& instance) {
                           return instance.param[0] == 's' ? std::string("Serving") : std::string("Client");
                         });

// The hash in every token is the hash of these bytes: one byte changed locks out every agent.
TEST(Service, CacertsIsByteStable) {
  RunningServer server;
  const HttpsResponse first = server.get("/cacerts");
  ASSERT_EQ(first.status, 200);
  EXPECT_EQ(first.body, server.ca());
  EXPECT_EQ(first.body, server.get("/v1-k3s/server-ca.crt", server.agent()).body);
  const std::string token = test::file_bytes(server.data_dir() / "token");
  EXPECT_THAT(token, StartsWith("K10" + sha256_hex(first.body) + "::server:"));
  for (int start = 0; start < 2; ++start) {
    server.restart();
    EXPECT_EQ(server.get("/cacerts").body, first.body);
    EXPECT_EQ(test::file_bytes(server.data_dir() / "token"), token);
    EXPECT_EQ(server.get("/apis", server.agent()).status, 200);
  }
  // Three starts: one set of tokens in the log, told once.
  EXPECT_EQ(server.records_of<ServerStarted>().size(), 3U);
  EXPECT_EQ(server.records_of<TokenCreated>().size(), 2U) << "server and operator";
  EXPECT_EQ(server.records_of<TokenRotated>().size(), 0U);
}

TEST(Service, ConfigNamesThisServer) {
  RunningServer server;
  const HttpsResponse config = server.get("/v1-k3s/config", server.agent());
  const json::object document = json::parse(config.body).as_object();
  EXPECT_EQ(document.size(), 23U) << "exactly the keys agents read";
  EXPECT_EQ(document.at("HTTPSPort").to_number<int>(), server.port());
  EXPECT_EQ(document.at("SupervisorPort").to_number<int>(), server.port());
  EXPECT_EQ(document.at("IPSECPSK").as_string(),
            trim(test::file_bytes(server.data_dir() / "cred" / "ipsec.psk")));
  EXPECT_EQ(document.at("IPSECPSK").as_string().size(), 96U);
  server.restart();
  EXPECT_EQ(server.get("/v1-k3s/config", server.agent()).body, config.body);
}

// ---- certificates, as openssl sees them ------------------------------------------------------------------

class Certificates : public testing::Test {
 protected:
  // The PEM blocks of a body in order, each from BEGIN to END.
  static std::vector<std::string> blocks_of(const std::string& body) {
    std::vector<std::string> blocks;
    std::istringstream in(body);
    for (std::string line; std::getline(in, line);) {
      if (line.starts_with("-----BEGIN ")) blocks.emplace_back();
      if (!blocks.empty()) blocks.back() += line + "\n";
    }
    return blocks;
  }

  // Asks for a certificate and leaves leaf.pem, ca.pem, key.pem in the directory.
  void fetch(const char* stem) {
    HttpsRequest request = server_.kubelet_request("web-1", "pw-1");
    request.target = std::string("/v1-k3s/") + stem + ".crt";
    request.headers.back().second = "10.0.0.7,fd00::7";
    const HttpsResponse response = server_.send(request);
    ASSERT_EQ(response.status, 200) << response.body;
    const std::vector<std::string> blocks = blocks_of(response.body);
    ASSERT_EQ(blocks.size(), 3U) << "leaf, CA, key";
    EXPECT_THAT(blocks[0], StartsWith("-----BEGIN CERTIFICATE-----\n"));
    EXPECT_THAT(blocks[1], StartsWith("-----BEGIN CERTIFICATE-----\n"));
    EXPECT_THAT(blocks[2], StartsWith("-----BEGIN EC PRIVATE KEY-----\n"));
    EXPECT_EQ(blocks[0] + blocks[1] + blocks[2], response.body) << "nothing between the blocks";
    for (int i = 0; i < 3; ++i) test::put_file(dir_ / std::array{"leaf.pem", "ca.pem", "key.pem"}[std::size_t(i)], blocks[std::size_t(i)]);
    record_ = server_.record_of(response);
  }

  std::string openssl(const std::string& arguments) {
    const auto result = test::run_command("cd " + dir_.path().string() + " && openssl " + arguments);
    EXPECT_EQ(result.status, 0) << arguments << "\n" << result.output;
    return result.output;
  }
  std::string leaf_text() { return openssl("x509 -in leaf.pem -noout -text -nameopt RFC2253"); }

  void expect_sound(const char* ca_file, const char* purpose) {
    EXPECT_EQ(test::file_bytes(dir_ / "ca.pem"), test::file_bytes(server_.data_dir() / "tls" / ca_file));
    EXPECT_THAT(openssl(std::string("verify -x509_strict -purpose ") + purpose + " -CAfile ca.pem leaf.pem"), HasSubstr("OK"));
    const std::string key = openssl("ec -in key.pem -pubout 2>/dev/null");
    EXPECT_EQ(openssl("x509 -in leaf.pem -noout -pubkey"), key) << "the key is the certificate's";
    const std::string text = leaf_text();
    EXPECT_THAT(text, HasSubstr("prime256v1"));
    EXPECT_THAT(text, HasSubstr("ecdsa-with-SHA256"));
    EXPECT_THAT(text, HasSubstr("Digital Signature, Key Encipherment"));
    EXPECT_THAT(text, Not(HasSubstr("CA:TRUE")));
    // The record is about this very certificate.
    const auto* issued = as<CertificateIssued>(record_);
    ASSERT_NE(issued, nullptr);
    EXPECT_EQ("sha256 Fingerprint=" + with_colons(issued->sha256) + "\n",
              openssl("x509 -in leaf.pem -noout -fingerprint -sha256"));
    EXPECT_EQ(to_lower(openssl("x509 -in leaf.pem -noout -serial")), "serial=" + issued->serial + "\n");
    EXPECT_EQ(issued->subject + "\n", openssl("x509 -in leaf.pem -noout -subject -nameopt RFC2253 | sed 's/^subject=//'"));
    EXPECT_EQ(issued->key, "generated");
  }

  static std::string with_colons(const std::string& hex) {
    std::string out;
    for (std::size_t i = 0; i < hex.size(); ++i) {
      if (i > 0 && i % 2 == 0) out += ':';
      out += hex[i] >= 'a' ? static_cast<char>(hex[i] - 'a' + 'A') : hex[i];
    }
    return out;
  }

  RunningServer server_;
  test::TempDir dir_;
  Record record_;
};

TEST_F(Certificates, ServingKubelet) {
  ASSERT_NO_FATAL_FAILURE(fetch("serving-kubelet"));
  expect_sound("server-ca.crt", "sslserver");
  const std::string text = leaf_text();
  EXPECT_THAT(text, HasSubstr("Subject: CN=web-1\n"));
  EXPECT_THAT(text, HasSubstr("TLS Web Server Authentication"));
  EXPECT_THAT(text, Not(HasSubstr("TLS Web Client Authentication")));
  for (const char* name : {"DNS:web-1", "DNS:localhost", "IP Address:127.0.0.1", "IP Address:10.0.0.7",
                           "IP Address:FD00:0:0:0:0:0:0:7", "IP Address:0:0:0:0:0:0:0:1"})
    EXPECT_THAT(text, HasSubstr(name));
}

TEST_F(Certificates, ClientKubelet) {
  ASSERT_NO_FATAL_FAILURE(fetch("client-kubelet"));
  expect_sound("client-ca.crt", "sslclient");
  const std::string text = leaf_text();
  EXPECT_THAT(text, ContainsRegex("Subject: (O=system:nodes,CN=system:node:web-1|CN=system:node:web-1,O=system:nodes)\n"));
  EXPECT_THAT(text, HasSubstr("TLS Web Client Authentication"));
  EXPECT_THAT(text, Not(HasSubstr("TLS Web Server Authentication")));
  EXPECT_THAT(text, Not(HasSubstr("Subject Alternative Name")));
}

TEST_F(Certificates, SharedOnes) {
  ASSERT_NO_FATAL_FAILURE(fetch("client-kube-proxy"));
  expect_sound("client-ca.crt", "sslclient");
  EXPECT_THAT(leaf_text(), HasSubstr("Subject: CN=system:kube-proxy\n"));
  const std::string first_key = test::file_bytes(dir_ / "key.pem");
  ASSERT_NO_FATAL_FAILURE(fetch("client-kube-proxy"));
  EXPECT_NE(test::file_bytes(dir_ / "key.pem"), first_key) << "no two machines share a key";
  ASSERT_NO_FATAL_FAILURE(fetch("client-k3s-controller"));
  expect_sound("client-ca.crt", "sslclient");
  EXPECT_THAT(leaf_text(), HasSubstr("Subject: CN=system:k3s-controller\n"));
  EXPECT_TRUE(record_.node.empty()) << "no node is named";
}

// An agent verifies the name 127.0.0.1, whatever the server's address is: its own load balancer's.
TEST_F(Certificates, Listener) {
  const std::string said = test::run_command("openssl s_client -connect 127.0.0.1:" + std::to_string(server_.port()) +
                                             " -CAfile " + (server_.data_dir() / "tls" / "server-ca.crt").string() +
                                             " -verify_ip 127.0.0.1 -verify_return_error -showcerts </dev/null")
                               .output;
  EXPECT_THAT(said, HasSubstr("Verify return code: 0 (ok)"));
  EXPECT_THAT(said, HasSubstr("No client certificate CA names sent")) << "Go sends its certificate only then";
  test::put_file(dir_ / "leaf.pem", said.substr(said.find("-----BEGIN CERTIFICATE")));
  const std::string text = leaf_text();
  EXPECT_THAT(text, ContainsRegex("Subject: (O=k3s,CN=k3s|CN=k3s,O=k3s)\n"));
  for (const char* name : {"IP Address:127.0.0.1", "IP Address:0:0:0:0:0:0:0:1", "DNS:localhost", "DNS:kubernetes",
                           "DNS:kubernetes.default.svc.cluster.local"})
    EXPECT_THAT(text, HasSubstr(name));
  for (const char* old : {"-tls1", "-tls1_1"})
    EXPECT_NE(test::run_command("openssl s_client -cipher DEFAULT@SECLEVEL=0 " + std::string(old) + " -connect 127.0.0.1:" +
                                std::to_string(server_.port()) + " </dev/null")
                  .status,
              0)
        << old;
}

// ---- the watch -------------------------------------------------------------------------------------------

class Watch : public testing::Test {
 protected:
  std::string ask(const std::string& target, const std::string& version = "HTTP/1.1") {
    return "GET " + target + " " + version + "\r\nHost: x\r\nAuthorization: " + server_.agent() + "\r\n\r\n";
  }
  RunningServer server_;
};

TEST_F(Watch, OneEventThenAnOrderlyEnd) {
  for (const char* target : {"/api/v1/namespaces/default/endpoints?watch=true&timeoutSeconds=1",
                             "/api/v1/namespaces/default/endpoints?timeoutSeconds=1&watch=1&resourceVersion=0",
                             "/api/v1/watch/namespaces/default/endpoints/kubernetes?timeoutSeconds=1"}) {
    test::RawTls link(server_.https_options());
    ASSERT_TRUE(link.opened());
    link.say(ask(target));
    const std::string answer = link.hear_all();
    EXPECT_TRUE(link.closed()) << "the watch ends when its time is over";
    EXPECT_EQ(test::status_of(answer), 200) << answer;
    EXPECT_THAT(to_lower(answer), HasSubstr("transfer-encoding: chunked\r\n"));
    EXPECT_THAT(answer, HasSubstr(R"({"type":"ADDED","object":{"kind":"Endpoints")"));
    EXPECT_TRUE(answer.ends_with("\r\n0\r\n\r\n")) << "a chunked body without its last chunk is a cut connection";
  }
}

TEST_F(Watch, StopEndsIt) {
  test::RawTls link(server_.https_options());
  link.say(ask("/api/v1/namespaces/default/endpoints?watch=true"));
  EXPECT_THAT(link.hear_until("]}}\n"), HasSubstr("ADDED"));
  EXPECT_TRUE(server_.stop());
  EXPECT_TRUE((link.hear_all(), link.closed()));
}

TEST_F(Watch, PeerThatLeavesIsNoTrouble) {
  {
    test::RawTls link(server_.https_options());
    link.say(ask("/api/v1/namespaces/default/endpoints?watch=true"));
    link.hear_until("]}}\n");
  }
  {
    // Talking into a watch ends it.
    test::RawTls link(server_.https_options());
    link.say(ask("/api/v1/namespaces/default/endpoints?watch=true"));
    link.hear_until("]}}\n");
    link.say("GET /ping HTTP/1.1\r\n\r\n");
    link.hear_all();
    EXPECT_TRUE(link.closed());
  }
  EXPECT_EQ(server_.join("web-1", "pw").status, 200);
}

// HTTP/1.0 knows no chunks.
TEST_F(Watch, OldHttpGetsNoChunks) {
  test::RawTls link(server_.https_options());
  link.say(ask("/api/v1/namespaces/default/endpoints?watch=true&timeoutSeconds=1", "HTTP/1.0"));
  const std::string answer = link.hear_all();
  EXPECT_TRUE(link.closed());
  EXPECT_EQ(test::status_of(answer), 200);
  EXPECT_THAT(to_lower(answer), Not(HasSubstr("chunked")));
  EXPECT_THAT(answer, HasSubstr("ADDED"));
}

TEST_F(Watch, HeadIsNotAWatch) {
  test::RawTls link(server_.https_options());
  link.say("HEAD /api/v1/namespaces/default/endpoints?watch=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: " +
           server_.agent() + "\r\n\r\n");
  const std::string answer = link.hear_all();
  EXPECT_TRUE(link.closed());
  EXPECT_EQ(test::status_of(answer), 200);
  EXPECT_TRUE(answer.ends_with("\r\n\r\n")) << answer;
}

// What cannot be understood in the query is passed over: an agent's watch must not fail for it.
TEST_F(Watch, OddQueriesAreAnswered) {
  for (const char* query : {"?timeoutSeconds=999999999999999999999", "?watch=%zz", "?=&&=", "?watch", "?%",
                            "?timeoutSeconds=-5&watch=false"})
    EXPECT_EQ(server_.get("/api/v1/namespaces/default/endpoints" + std::string(query), server_.agent()).status, 200) << query;
}

}  // namespace
}  // namespace ledger::api
