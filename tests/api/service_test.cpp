// The agents' API on the wire: every endpoint, the scripts of tests/api/*.http.txt, certificates as openssl sees
// them, and the watch.
#include "api/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "tests/support/csr.h"
#include "tests/support/http_script.h"
#include "tests/support/paths.h"
#include "tests/support/raw_link.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

namespace json = boost::json;
using test::Identity;
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

// ---- agents that bring their own key, of both programs ---------------------------------------------------

class AgentsOf : public testing::TestWithParam<const Program*> {
 protected:
  AgentsOf()
      : server_([](ServerOptions& options) {
          options.program = GetParam();
          if (GetParam() == &kRke2) options.supervisor_port = 0;  // 9345 may be taken here
        }) {}

  std::string name() const { return std::string(GetParam()->name); }
  std::string path(const std::string& endpoint) const { return "/v1-" + name() + "/" + endpoint; }

  // As an agent sends it: Rke2-Node-Name and so on.
  HttpsRequest request(const std::string& method, const std::string& endpoint) const {
    HttpsRequest made = test::request_of(method, path(endpoint), server_.agent());
    std::string prefix = name() + "-Node-";
    prefix[0] = static_cast<char>(std::toupper(prefix[0]));
    made.headers = {{prefix + "Name", "web-1"}, {prefix + "Password", "pw-1"}, {prefix + "Ip", "10.0.0.7,fd00::7"}};
    return made;
  }
  HttpsResponse post(const std::string& endpoint, const std::string& csr, const Identity& identity = {}) const {
    HttpsRequest made = request("POST", endpoint);
    made.body = csr;
    return server_.send(made, identity);
  }
  std::string openssl(const std::string& arguments) {
    const auto result = test::run_command("cd " + dir_.path().string() + " && openssl " + arguments);
    EXPECT_EQ(result.status, 0) << arguments << "\n" << result.output;
    return result.output;
  }
  std::uint16_t https_port() const {
    const json::object document = json::parse(server_.get(path("config"), server_.agent()).body).as_object();
    return document.at("HTTPSPort").to_number<std::uint16_t>();
  }
  // The same server through the other port.
  HttpsResponse get_at(std::uint16_t port, const std::string& target) const {
    HttpsOptions options = server_.https_options();
    options.connect_to.port = port;
    auto https = HttpsClient::open(std::move(options));
    const auto response = https->send(test::request_of("GET", target, server_.agent()));
    EXPECT_TRUE(response) << response.error().message;
    return response ? *response : HttpsResponse();
  }

  RunningServer server_;
  test::TempDir dir_;
};
INSTANTIATE_TEST_SUITE_P(Programs, AgentsOf, testing::Values(&kK3s, &kRke2),
                         [](const auto& instance) { return std::string(instance.param->name); });

TEST_P(AgentsOf, ARequestedCertificateIsForTheAgentsKey) {
  struct Wanted {
    std::string stem, ca, purpose, subject;
  };
  const std::string csr = test::fresh_csr(dir_.path());
  for (const Wanted& wanted :
       {Wanted{"serving-kubelet", "server-ca", "sslserver", "CN=web-1"},
        Wanted{"client-kubelet", "client-ca", "sslclient", "CN=system:node:web-1,O=system:nodes"},
        Wanted{"client-kube-proxy", "client-ca", "sslclient", "CN=system:kube-proxy"},
        Wanted{"client-" + name() + "-controller", "client-ca", "sslclient", "CN=system:" + name() + "-controller"}}) {
    SCOPED_TRACE(wanted.stem);
    const HttpsResponse response = post(wanted.stem + ".crt", csr);
    ASSERT_EQ(response.status, 200) << response.body;
    EXPECT_THAT(response.body, Not(HasSubstr("PRIVATE KEY")));
    const std::string ca = test::file_bytes(server_.data_dir() / "tls" / (wanted.ca + ".crt"));
    ASSERT_TRUE(response.body.ends_with(ca)) << "leaf, then the CA, and nothing else";
    test::put_file(dir_ / "ca.pem", ca);
    test::put_file(dir_ / "leaf.pem", response.body.substr(0, response.body.size() - ca.size()));
    EXPECT_THAT(openssl("verify -x509_strict -purpose " + wanted.purpose + " -CAfile ca.pem leaf.pem"), HasSubstr("OK"));
    EXPECT_EQ(openssl("x509 -in leaf.pem -noout -pubkey"), openssl("pkey -in own.key -pubout"));
    EXPECT_EQ(openssl("x509 -in leaf.pem -noout -subject -nameopt RFC2253"), "subject=" + wanted.subject + "\n");
    const std::string names = openssl("x509 -in leaf.pem -noout -ext subjectAltName 2>/dev/null");
    for (const char* alternative : {"DNS:web-1", "IP Address:127.0.0.1", "IP Address:10.0.0.7"})
      EXPECT_EQ(names.find(alternative) != std::string::npos, wanted.stem == "serving-kubelet") << alternative;
    const Record record = server_.record_of(response);
    const auto* issued = as<CertificateIssued>(record);
    ASSERT_NE(issued, nullptr);
    EXPECT_EQ(issued->purpose, wanted.stem);
    EXPECT_EQ(issued->key, "csr");
    EXPECT_EQ(record.generation, "G7");
    openssl("pkey -in own.key -pubout -outform DER -out own.pub");
    EXPECT_EQ(issued->public_key, sha256_hex(test::file_bytes(dir_ / "own.pub")));
  }
  // Asked without a request: a key of its own comes along, never the same twice.
  std::set<std::string> keys{sha256_hex(test::file_bytes(dir_ / "own.pub"))};
  for (int i = 0; i < 2; ++i) {
    const HttpsResponse response = server_.send(request("GET", "client-kubelet.crt"));
    ASSERT_EQ(response.status, 200) << response.body;
    EXPECT_THAT(response.body, HasSubstr("-----BEGIN EC PRIVATE KEY-----"));
    const Record record = server_.record_of(response);
    EXPECT_EQ(as<CertificateIssued>(record)->key, "generated");
    EXPECT_TRUE(keys.insert(as<CertificateIssued>(record)->public_key).second);
  }
}

TEST_P(AgentsOf, EveryKindOfKeyRegisters) {
  for (const char* kind : {test::kP384, test::kRsa2048, test::kEd25519}) {
    const HttpsResponse response = post("client-kubelet.crt", test::fresh_csr(dir_.path(), kind));
    ASSERT_EQ(response.status, 200) << kind << " " << response.body;
    // The certificate works with the key that never left: it opens the door by itself.
    const Identity identity{api::split_pem(response.body).certificates, test::file_bytes(dir_ / "own.key")};
    EXPECT_EQ(server_.get(path("config"), "", identity).status, 200) << kind;
  }
}

// 400 with the reason, recorded, and the name stays free; 403 is for passwords.
TEST_P(AgentsOf, ABadRequestIs400AndBindsNothing) {
  const std::string good = test::fresh_csr(dir_.path());
  std::string stranger = good;
  stranger.back() = static_cast<char>(stranger.back() ^ 1);
  const std::string small = test::fresh_csr(dir_.path(), "-algorithm RSA -pkeyopt rsa_keygen_bits:1024");
  const std::string huge = std::string("\x30\x82\x50\x00", 4) + std::string(0x5000, '\0');
  for (const auto& [csr, why] : std::vector<std::pair<std::string, std::string>>{
           {"", "the body is empty"}, {good.substr(0, 100), "cut short"}, {good + "x", "is followed by 1 bytes"},
           {stranger, "not signed with its own key"}, {small, "RSA key of 1024 bits"}, {huge, "larger than 16 KiB"}})
    for (const std::string stem :
         {"serving-kubelet", "client-kubelet", "client-kube-proxy", GetParam()->controller_stem.data()}) {
      const HttpsResponse response = post(stem + ".crt", csr);
      ASSERT_EQ(response.status, 400) << stem << ": " << response.body;
      EXPECT_THAT(response.body, HasSubstr(why));
      const Record record = server_.record_of(response);
      const auto* rejected = as<RequestRejected>(record);
      ASSERT_NE(rejected, nullptr);
      EXPECT_EQ(rejected->reason, "bad_csr");
      EXPECT_EQ(rejected->status, 400);
    }
  EXPECT_EQ(server_.records_of<PasswordStored>().size(), 0U);
  EXPECT_EQ(server_.records_of<CertificateIssued>().size(), 0U);
}

TEST_P(AgentsOf, ConfigAndNamesAreTheProgramsOwn) {
  const bool split = GetParam() == &kRke2;
  const HttpsResponse config = server_.get(path("config"), server_.agent());
  ASSERT_EQ(config.status, 200);
  const json::object document = json::parse(config.body).as_object();
  EXPECT_EQ(document.at("SupervisorPort").to_number<int>(), server_.port());
  EXPECT_EQ(document.at("HTTPSPort").to_number<int>() != server_.port(), split);
  EXPECT_EQ(document.at("FlannelBackend").as_string(), split ? "none" : "vxlan");
  EXPECT_EQ(document.at("DisableNPC").as_bool(), split);
  EXPECT_EQ(server_.get(path("apiservers"), server_.agent()).body,
            "[\"127.0.0.1:" + std::to_string(https_port()) + "\"]\n");
  EXPECT_THAT(test::file_bytes(server_.data_dir() / "cred" / "passwd"), HasSubstr(",node,node," + name() + ":agent\n"));
  test::put_file(dir_ / "ca.pem", server_.ca());
  EXPECT_THAT(openssl("x509 -in ca.pem -noout -subject"), HasSubstr("CN = " + name() + "-server-ca@"));
  const std::string said = openssl("s_client -connect 127.0.0.1:" + std::to_string(server_.port()) +
                                   " -CAfile ca.pem -verify_ip 127.0.0.1 -verify_return_error </dev/null 2>&1");
  EXPECT_THAT(said, HasSubstr("subject=O = " + name() + ", CN = " + name() + "\n"));
  // The other program's paths and headers are nobody's here.
  const std::string other(split ? "k3s" : "rke2");
  const HttpsResponse wrong = server_.get("/v1-" + other + "/config", server_.agent());
  EXPECT_EQ(wrong.status, 404);
  EXPECT_THAT(wrong.body, HasSubstr("--program " + other));
  HttpsRequest nameless = request("GET", "client-kubelet.crt");
  nameless.headers = {{other + "-Node-Name", "web-1"}, {other + "-Node-Password", "pw"}};
  EXPECT_THAT(server_.send(nameless).body, HasSubstr("node name not set"));
}

TEST_P(AgentsOf, EachPortHasItsOwnPaths) {
  const std::uint16_t https = https_port();
  const bool split = GetParam() == &kRke2;
  for (const std::string& target : {std::string("/cacerts"), std::string("/ping"), path("config"), path("readyz")}) {
    EXPECT_EQ(server_.get(target, server_.agent()).status, 200) << target;
    EXPECT_EQ(get_at(https, target).status, split ? 404 : 200) << target;
  }
  for (const std::string target : {"/apis", "/api/v1/namespaces/default/endpoints/kubernetes"}) {
    EXPECT_EQ(get_at(https, target).status, 200) << target;
    EXPECT_EQ(server_.get(target, server_.agent()).status, split ? 404 : 200) << target;
  }
  EXPECT_EQ(server_.get("/ledger/v1/status", server_.operator_bearer()).status, 200);
  EXPECT_EQ(get_at(https, "/ledger/v1/status").status, split ? 404 : 401) << "an agent's token is no operator's";
  // The kube port belongs to the same server: what is asked there is recorded with the rest.
  const HttpsResponse asked = get_at(https, "/apis");
  EXPECT_EQ(server_.record_of(asked).endpoint, "/apis");
  EXPECT_THAT(get_at(https, "/api/v1/namespaces/default/endpoints/kubernetes").body,
              HasSubstr("\"port\":" + std::to_string(https)));
}

// A port of its own works for k3s as well, and stopping closes both.
TEST(Service, PortsCanBeSplitForK3s) {
  RunningServer server([](ServerOptions& options) { options.supervisor_port = 0; });
  const json::object document = json::parse(server.get("/v1-k3s/config", server.agent()).body).as_object();
  EXPECT_EQ(document.at("SupervisorPort").to_number<int>(), server.port());
  const auto https = document.at("HTTPSPort").to_number<std::uint16_t>();
  ASSERT_NE(https, server.port());
  EXPECT_EQ(server.get("/apis", server.agent()).status, 404);
  HttpsOptions options = server.https_options();
  options.connect_to.port = https;
  options.keep_alive = true;
  auto client = HttpsClient::open(std::move(options));
  EXPECT_EQ(client->send(test::request_of("GET", "/apis", server.agent()))->status, 200);
  EXPECT_TRUE(server.stop());
  EXPECT_FALSE(client->send(test::request_of("GET", "/apis")));
}

// A kube-apiserver on the same machine has the port already: agents are sent there, and it is not touched.
TEST(Service, TheKubeApiMayBeAnotherPrograms) {
  const RunningServer kube;
  for (const Program* program : {&kK3s, &kRke2}) {
    const RunningServer server([&](ServerOptions& options) {
      options.program = program;
      options.supervisor_port = 0;
      options.https_port = kube.port();
      options.external_kube_api = true;
    });
    ASSERT_NE(server.port(), kube.port());
    const std::string prefix(program->path_prefix), port = std::to_string(kube.port());
    const json::object document = json::parse(server.get(prefix + "config", server.agent()).body).as_object();
    EXPECT_EQ(document.at("HTTPSPort").to_number<int>(), kube.port());
    EXPECT_EQ(document.at("SupervisorPort").to_number<int>(), server.port());
    EXPECT_EQ(server.get(prefix + "apiservers", server.agent()).body, "[\"127.0.0.1:" + port + "\"]\n");
    EXPECT_EQ(server.get("/apis", server.agent()).status, 404);
    EXPECT_EQ(kube.get("/ping").status, 200);
  }
}

// ---- certificates that outlived their node ---------------------------------------------------------------

// A G6 agent presents its certificate with every request, and drops it for one more try after a 401.
TEST_P(AgentsOf, AReleasedNodesCertificateOpensNothingUntilTheTokenIsShown) {
  const HttpsResponse joined = post("client-kubelet.crt", test::fresh_csr(dir_.path()));
  ASSERT_EQ(joined.status, 200) << joined.body;
  const Identity identity{api::split_pem(joined.body).certificates, test::file_bytes(dir_ / "own.key")};
  const std::vector<std::string> endpoints = {"config",
                                              "client-ca.crt",
                                              "server-ca.crt",
                                              "readyz",
                                              "apiservers",
                                              "p2p",
                                              "connect",
                                              "serving-kubelet.crt",
                                              "client-kubelet.crt",
                                              "client-kube-proxy.crt",
                                              std::string(GetParam()->controller_stem) + ".crt"};
  const auto ask = [&](const std::string& endpoint, bool with_token, bool with_certificate, const char* method = "GET") {
    HttpsRequest made = request(method, endpoint);
    if (method == std::string("POST")) made.body = test::csr_of_key(dir_.path());
    if (!with_token) made.authorization = Secret();
    return server_.send(made, with_certificate ? identity : Identity());
  };
  const auto expected = [](const std::string& endpoint) { return endpoint == "p2p" ? 503 : endpoint == "connect" ? 400 : 200; };
  for (const std::string& endpoint : endpoints)
    EXPECT_EQ(ask(endpoint, false, true).status, expected(endpoint)) << endpoint << " while the node is bound";

  HttpsRequest release = test::request_of("POST", "/ledger/v1/nodes/web-1/release", server_.operator_bearer());
  release.body = R"({"actor":"t","reason":"rebuilt","force":true})";
  ASSERT_EQ(server_.send(release).status, 200);

  const auto expect_unknown = [&](const HttpsResponse& response) {
    EXPECT_EQ(response.status, 401) << response.body;
    EXPECT_THAT(response.body, HasSubstr("unable to verify node identity: node web-1 is not registered"));
    const Record record = server_.record_of(response);
    const auto* rejected = as<RequestRejected>(record);
    ASSERT_NE(rejected, nullptr);
    EXPECT_EQ(rejected->reason, "node_unknown");
    EXPECT_EQ(record.node, "web-1");
    EXPECT_EQ(record.auth.method, "certificate");
  };
  for (const std::string& endpoint : endpoints) {
    SCOPED_TRACE(endpoint);
    expect_unknown(ask(endpoint, false, true));
  }
  for (const std::string& endpoint : endpoints)
    if (endpoint.ends_with("kubelet.crt")) expect_unknown(ask(endpoint, false, true, "POST"));
  // Beside a good token the old certificate does no harm, and without it the agent is as new.
  for (const std::string& endpoint : endpoints)
    if (endpoint != "connect" && !endpoint.ends_with("kubelet.crt")) {
      EXPECT_EQ(ask(endpoint, true, true).status, expected(endpoint)) << endpoint;
    }
  const HttpsResponse again = ask("serving-kubelet.crt", true, true);
  EXPECT_EQ(again.status, 200) << again.body;
  EXPECT_EQ(server_.record_of(again).auth.method, "basic");
  EXPECT_EQ(server_.record_of(again).generation, "G6");
  EXPECT_EQ(ask("client-kubelet.crt", true, false, "POST").status, 200);
  EXPECT_EQ(server_.records_of<PasswordStored>().size(), 2U) << "the name was free: bound anew, once";
  // The name is bound again, so the certificate is good again.
  EXPECT_EQ(ask("config", false, true).status, 200);
}

// The token says who may join; a certificate of another node beside it changes nothing.
TEST_P(AgentsOf, AValidTokenIsPreferredOverACertificate) {
  const HttpsResponse joined = post("client-kubelet.crt", test::fresh_csr(dir_.path()));
  const Identity identity{api::split_pem(joined.body).certificates, test::file_bytes(dir_ / "own.key")};
  HttpsRequest other = request("GET", "client-kubelet.crt");
  other.headers[0].second = "web-2";
  EXPECT_EQ(server_.send(other, identity).status, 200);
  other.authorization = Secret();
  const HttpsResponse refused = server_.send(other, identity);
  EXPECT_EQ(refused.status, 400);
  EXPECT_THAT(refused.body, HasSubstr("header node name does not match auth node name: the header says 'web-2', the "
                                      "client certificate is of 'web-1'"));
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
