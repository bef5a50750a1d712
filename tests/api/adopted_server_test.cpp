// `ledger adopt` and then `ledger serve`, as processes, on server directories of every sort that the openssl
// command line makes: old tokens validate, certificates chain to the old CA, old certificates authenticate, no file
// changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "api/agent_checks.h"
#include "ledger/event_log.h"
#include "tests/support/k3s_server_dir.h"
#include "tests/support/server_process.h"
#include "tests/support/temp_dir.h"

namespace ledger::api {
namespace {

namespace fs = std::filesystem;
using test::file_bytes;
using test::K3sServerDir;
using test::put_file;
using test::run_command;
using test::ServerProcess;
using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

test::CommandResult ledger(const std::string& arguments) {
  return run_command("'" + test::ledger_binary() + "' " + arguments);
}

test::CommandResult adopt(const fs::path& source, const fs::path& data_dir, const std::string& more = "") {
  return ledger("adopt --k3s-server-dir '" + source.string() + "' --data-dir '" + data_dir.string() + "' " + more);
}

// What must be the same after every start; the key of the checkpoints is made at the first.
std::string files_of(const fs::path& data_dir) {
  const std::string others = " ! -path 'cred/checkpoint.*'";
  return run_command("cd '" + data_dir.string() + "' && find tls cred token node-token agent-token" + others +
                     " -printf '%p %M %l\\n' | sort && find tls cred token agent-token" + others +
                     " \\( -type f -o -type l \\) | sort | xargs cksum")
      .output;
}

struct Sort {
  const char* name;
  K3sServerDir::Options options;
};

class AdoptedServer : public testing::TestWithParam<Sort> {
 protected:
  AdoptedServer()
      : source_(dir_ / "server", GetParam().options), process_(dir_ / "data"), options_(GetParam().options) {}

  HttpsResponse send(HttpsRequest request, const std::string& client = "") const {
    HttpsOptions https;
    https.connect_to = {"127.0.0.1", static_cast<std::uint16_t>(process_.port())};
    https.trust = HttpsTrust::bundle;
    https.bundle_pem = file_bytes(source_ / source_.root("server-ca"));
    https.timeout = std::chrono::seconds(60);
    if (!client.empty()) {
      https.cert_pem = file_bytes(source_ / ("made/" + client + ".crt"));
      https.key_pem = Secret(file_bytes(source_ / ("made/" + client + ".key")));
    }
    auto opened = HttpsClient::open(std::move(https));
    EXPECT_TRUE(opened) << opened.error().message;
    auto response = opened->send(request);
    EXPECT_TRUE(response) << response.error().message;
    return response ? std::move(*response) : HttpsResponse{};
  }
  HttpsResponse get(const std::string& target, const std::string& user = "", const std::string& password = "",
                    const std::string& client = "") const {
    HttpsRequest request;
    request.target = target;
    if (!user.empty()) request.authorization = Secret("Basic " + base64(user + ":" + password));
    return send(std::move(request), client);
  }
  HttpsResponse join(const std::string& node, bool serving) const {
    HttpsRequest request = test::kubelet_request(process_, node, "node-password", serving);
    request.authorization = Secret("Basic " + base64("node:" + source_.agent_password()));
    return send(std::move(request));
  }
  std::string openssl(const std::string& arguments) const { return source_.run("openssl " + arguments + " 2>&1"); }

  void expect_tokens_validate();
  void expect_certificates_chain();
  void expect_old_certificates_authenticate();
  void expect_log_tells();

  TempDir dir_;
  K3sServerDir source_;
  ServerProcess process_;
  K3sServerDir::Options options_;
};

// An agent of the old rule hashes the body of /cacerts; one of the new rule the DER of a bundle's root.
void AdoptedServer::expect_tokens_validate() {
  const HttpsResponse cacerts = get("/cacerts");
  EXPECT_EQ(cacerts.status, 200);
  EXPECT_EQ(cacerts.body, file_bytes(source_ / "tls/server-ca.crt"));
  put_file(dir_ / "cacerts", cacerts.body);
  const std::string heard = run_command("sha256sum < '" + (dir_ / "cacerts").string() + "'").output.substr(0, 64);
  EXPECT_EQ(heard, source_.raw_hash());
  const std::string expected = options_.raw_hash ? heard : source_.root_hash();
  for (const std::string file : {"token", "node-token", "agent-token"}) {
    EXPECT_EQ(file_bytes(dir_ / ("data/" + file)), file_bytes(source_ / file)) << file;
    EXPECT_THAT(file_bytes(dir_ / ("data/" + file)), StartsWith("K10" + expected + "::"));
  }
  EXPECT_EQ(get("/v1-k3s/config", "node", source_.agent_password()).status, 200);
  EXPECT_EQ(get("/v1-k3s/config", "node", "wrong").status, 401);
  EXPECT_EQ(get("/v1-k3s/server-ca.crt", "node", source_.agent_password()).body, cacerts.body);
  EXPECT_EQ(get("/v1-k3s/client-ca.crt", "node", source_.agent_password()).body,
            file_bytes(source_ / "tls/client-ca.crt"));
  // The played agent has the old rule.
  for (const std::string generation : {"G1", "G5"}) {
    const std::string text = "K10" + heard + "::node:" + source_.agent_password();
    put_file(dir_ / "agents-token", text + "\n");
    const auto joined =
        ledger("agent --server " + process_.url() + " --token-file '" + (dir_ / "agents-token").string() +
               "' --node-name played-" + generation + " --generation " + generation + " --state-dir '" +
               (dir_ / "vm").string() + generation + "'");
    EXPECT_EQ(joined.status, 0) << joined.output;
  }
}

// Judged by openssl with the root alone as trusted: everything between must be in the response.
void AdoptedServer::expect_certificates_chain() {
  for (const bool serving : {true, false}) {
    const std::string stem = serving ? "server-ca" : "client-ca";
    const HttpsResponse response = join("web-1", serving);
    ASSERT_EQ(response.status, 200) << response.body;
    const std::string ca = file_bytes(source_ / ("tls/" + stem + ".crt"));
    EXPECT_THAT(response.body, HasSubstr(ca)) << "the whole file follows the leaf";
    const PemParts parts = split_pem(response.body);
    put_file(source_ / "made/issued.crt", parts.certificates);
    put_file(source_ / "made/issued.key", parts.key.reveal());
    EXPECT_THAT(openssl("verify -purpose " + std::string(serving ? "sslserver" : "sslclient") + " -CAfile " +
                        source_.root(stem) + " -untrusted made/issued.crt made/issued.crt"),
                HasSubstr("made/issued.crt: OK"));
    EXPECT_THAT(openssl("x509 -noout -subject -in made/issued.crt"), HasSubstr("web-1"));
    EXPECT_EQ(openssl("x509 -noout -pubkey -in made/issued.crt"), openssl("pkey -pubout -in made/issued.key"));
  }
  // The listener's own, by names that only the old server had.
  for (const std::string name : {"-verify_hostname old.example.org", "-verify_hostname api.example.org",
                                 "-verify_ip 10.9.8.7", "-verify_ip 10.0.0.5", "-verify_ip fd00::7"})
    EXPECT_THAT(openssl("s_client -connect 127.0.0.1:" + std::to_string(process_.port()) +
                        " -verify_return_error " + name + " -CAfile " + source_.root("server-ca") + " </dev/null"),
                HasSubstr("Verification: OK"))
        << name;
}

void AdoptedServer::expect_old_certificates_authenticate() {
  source_.make_client("old-node", "/O=system:nodes/CN=system:node:web-1");
  source_.make_client("old-controller", "/CN=system:k3s-controller");
  source_.make_client("unknown-node", "/O=system:nodes/CN=system:node:never-seen");
  const std::string endpoints = "/api/v1/namespaces/default/endpoints/kubernetes";
  EXPECT_EQ(get(endpoints, "", "", "old-controller").status, 200);
  EXPECT_EQ(get("/v1-k3s/config", "", "", "old-node").status, 200);
  HttpsRequest renewal = test::kubelet_request(process_, "web-1", "node-password", false);
  renewal.authorization = Secret();
  EXPECT_EQ(send(std::move(renewal), "old-node").status, 200);
  EXPECT_EQ(get("/v1-k3s/config").status, 401);
  // Signed by another CA of the same name.
  const K3sServerDir stranger(dir_ / "stranger");
  stranger.make_client("stranger", "/O=system:nodes/CN=system:node:web-1");
  source_.run("cp ../stranger/made/stranger.* made/");
  EXPECT_EQ(get("/v1-k3s/config", "", "", "stranger").status, 401);
}

void AdoptedServer::expect_log_tells() {
  const auto log = EventLog::follow({.dir = dir_ / "data/events"});
  ASSERT_TRUE(log);
  const auto first = (*log)->read(1), second = (*log)->read(2);
  ASSERT_TRUE(first && second);
  ASSERT_NE(as<EpochStarted>(*first), nullptr);
  EXPECT_EQ(as<EpochStarted>(*first)->cause, "imported");
  EXPECT_THAT(first->note,
              AllOf(HasSubstr("the " + options_.program + " server directory " + source_.path().string())));
  const ServerStarted* started = as<ServerStarted>(*second);
  ASSERT_NE(started, nullptr);
  EXPECT_THAT(first->note, AllOf(HasSubstr(started->server_ca), HasSubstr(started->client_ca)));
  EXPECT_EQ(second->epoch, first->epoch);
}

TEST_P(AdoptedServer, ServesWhatWasHandedOutBefore) {
  const std::string source_before = source_.listing();
  const auto adopted = adopt(source_.path(), dir_ / "data");
  ASSERT_EQ(adopted.status, 0) << adopted.output;
  EXPECT_EQ(source_.listing(), source_before);
  EXPECT_THAT(adopted.output, AllOf(HasSubstr("adopted the " + options_.program + " server"),
                                    HasSubstr("ledger import"), Not(HasSubstr(options_.password))));
  const std::string before = files_of(dir_ / "data");
  ASSERT_TRUE(process_.start()) << process_.errors();
  EXPECT_EQ(files_of(dir_ / "data"), before);
  for (const std::string name : {"tls/client-ca.crt", "tls/client-ca.key", "tls/server-ca.crt", "tls/server-ca.key",
                                 "tls/service.key", "cred/passwd", "cred/ipsec.psk"})
    EXPECT_EQ(file_bytes(dir_ / ("data/" + name)), file_bytes(source_ / name)) << name;
  expect_tokens_validate();
  expect_certificates_chain();
  expect_old_certificates_authenticate();
  expect_log_tells();
  EXPECT_EQ(process_.stop(), 0);
  ASSERT_TRUE(process_.start()) << process_.errors();
  EXPECT_EQ(files_of(dir_ / "data"), before);
  EXPECT_EQ(join("web-1", true).status, 200);
  EXPECT_EQ(process_.stop(), 0);
  EXPECT_EQ(ledger("verify --data-dir '" + (dir_ / "data").string() + "'").status, 0);
  const auto again = adopt(source_.path(), dir_ / "data");
  EXPECT_EQ(again.status, 0);
  EXPECT_THAT(again.output, StartsWith("nothing to do"));
}

K3sServerDir::Options with(void (*change)(K3sServerDir::Options&)) {
  K3sServerDir::Options options;
  change(options);
  return options;
}

INSTANTIATE_TEST_SUITE_P(
    Sorts, AdoptedServer,
    testing::Values(Sort{"ec_p256", with([](auto& o) { o.absolute_link = true; })},
                    Sort{"ec_p384", with([](auto& o) { o.key = "EC P-384"; })},
                    Sort{"rsa_2048", with([](auto& o) { o.key = "RSA 2048"; })},
                    Sort{"rsa_4096", with([](auto& o) { o.key = "RSA 4096"; })},
                    Sort{"bundle", with([](auto& o) { o.bundle = true; })},
                    Sort{"bundle_rsa", with([](auto& o) { o.bundle = true, o.key = "RSA 2048"; })},
                    Sort{"bundle_with_old_tokens", with([](auto& o) { o.bundle = true, o.raw_hash = true; })},
                    Sort{"no_last_newline", with([](auto& o) { o.last_newline = false; })},
                    Sort{"crlf", with([](auto& o) { o.crlf = true; })},
                    Sort{"comments", with([](auto& o) { o.comments = true; })},
                    Sort{"bundle_crlf_comments_no_last_newline",
                         with([](auto& o) { o.bundle = o.crlf = o.comments = true, o.last_newline = false; })},
                    Sort{"agent_token", with([](auto& o) { o.agent_password = "0a1b2c3d4e5f"; })},
                    Sort{"rke2", with([](auto& o) { o.program = "rke2", o.agent_password = "agents-own"; })}),
    [](const auto& row) { return row.param.name; });

// ---- the command -----------------------------------------------------------------------------------------

TEST(AdoptCommand, ListsEveryProblemAndWritesNothing) {
  const TempDir dir;
  const K3sServerDir source(dir / "server");
  source.run("rm tls/server-ca.key; echo hunter2,node > cred/passwd");
  for (const std::string check : {"", "--check"}) {
    const auto refused = adopt(source.path(), dir / "data", check);
    EXPECT_EQ(refused.status, 1);
    EXPECT_THAT(refused.output,
                AllOf(StartsWith("ledger: nothing was adopted: 2 problems\n  1. "), HasSubstr("\n  2. "),
                      HasSubstr("server-ca.key"), HasSubstr("passwd"), Not(HasSubstr("hunter2"))));
    EXPECT_FALSE(fs::exists(dir / "data"));
  }
  const auto as_json = adopt(source.path(), dir / "data", "--format json");
  EXPECT_EQ(as_json.status, 1);
  boost::json::error_code error;
  const boost::json::value value = boost::json::parse(as_json.output, error);
  ASSERT_FALSE(error) << as_json.output;
  EXPECT_EQ(value.at("outcome").as_string(), "refused");
  EXPECT_EQ(value.at("problems").as_array().size(), 2u);
  EXPECT_TRUE(value.at("record").is_null());
  EXPECT_EQ(ledger("adopt").status, 2);
}

TEST(AdoptCommand, JsonTellsWhatWasTaken) {
  const TempDir dir;
  K3sServerDir::Options options;
  options.bundle = true;
  const K3sServerDir source(dir / "server", options);
  put_file(source / "cred/node-passwd", "3fe1,web-1,web-1,\n");
  const auto adopted = adopt(dir.path(), dir / "data", "--format json");
  ASSERT_EQ(adopted.status, 0) << adopted.output;
  const boost::json::value value = boost::json::parse(adopted.output);
  EXPECT_EQ(value.at("outcome").as_string(), "adopted");
  EXPECT_EQ(value.at("server_dir").as_string(), source.path().string());
  EXPECT_EQ(value.at("server_ca").at("certificates").as_int64(), 3);
  EXPECT_EQ(value.at("server_ca").at("ca_hash").as_string(), source.root_hash());
  EXPECT_EQ(value.at("server_ca").at("raw_ca_hash").as_string(), source.raw_hash());
  EXPECT_EQ(value.at("record").to_number<int>(), 1);
  EXPECT_TRUE(value.at("node_passwd").as_bool());
  EXPECT_FALSE(fs::exists(dir / "data/cred/node-passwd")) << "clear text passwords are not taken";
}

TEST(AdoptCommand, NoLineOfTheReportIsWiderThanATerminal) {
  const TempDir dir;
  const K3sServerDir source(dir / "server");
  const auto adopted = adopt(source.path(), dir / "data");
  std::istringstream lines(adopted.output);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

// Killed at any point, the directory is one that no server starts on, or one that was adopted.
TEST(AdoptCommand, KilledAnywhereItCanBeRepeated) {
  const TempDir dir;
  const K3sServerDir source(dir / "server");
  int killed = 0;
  for (int ms = 20; ms <= 400; ms += 20) {
    const fs::path data_dir = dir / ("data" + std::to_string(ms));
    const auto first = run_command("timeout -s KILL 0." + std::to_string(1000 + ms).substr(1) + " '" +
                                   test::ledger_binary() + "' adopt --k3s-server-dir '" + source.path().string() +
                                   "' --data-dir '" + data_dir.string() + "'");
    killed += first.status == 0 ? 0 : 1;
    if (fs::exists(data_dir / "adoption-unfinished")) {
      const auto serve = ledger("serve --listen 127.0.0.1 --https-port 0 --data-dir '" + data_dir.string() + "'");
      EXPECT_EQ(serve.status, 1);
      EXPECT_THAT(serve.output, HasSubstr("run `ledger adopt` again"));
    }
    const auto second = adopt(source.path(), data_dir);
    EXPECT_EQ(second.status, 0) << ms << " ms: " << second.output;
    EXPECT_FALSE(fs::exists(data_dir / "adoption-unfinished"));
    EXPECT_EQ(file_bytes(data_dir / "token"), file_bytes(source / "token"));
    const auto log = EventLog::follow({.dir = data_dir / "events"});
    ASSERT_TRUE(log);
    EXPECT_EQ((*log)->head(), 1u);
  }
  EXPECT_GT(killed, 0);
}

// The other command that writes to a stopped directory: what `ledger serve` does not start on, it does not touch.
TEST(AdoptCommand, NothingIsImportedIntoAnUnfinishedAdoption) {
  const TempDir dir;
  const K3sServerDir source(dir / "server");
  ASSERT_EQ(adopt(source.path(), dir / "data").status, 0);
  put_file(dir / "passwd", "3fe1,web-1,web-1,\n");
  const std::string import =
      "import node-passwd '" + (dir / "passwd").string() + "' --data-dir '" + (dir / "data").string() + "'";
  put_file(dir / "data" / "adoption-unfinished", "");
  const auto refused = ledger(import);
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.output, HasSubstr("run `ledger adopt` again"));
  const auto head = [&] { return (*EventLog::follow({.dir = dir / "data/events"}))->head(); };
  EXPECT_EQ(head(), 1u);
  fs::remove(dir / "data" / "adoption-unfinished");
  const auto imported = ledger(import);
  EXPECT_EQ(imported.status, 0) << imported.output;
  EXPECT_EQ(head(), 3u) << "the binding, and the end of the import";
}

}  // namespace
}  // namespace ledger::api
