// Every step of the doctor, failing for real: real sockets, real TLS, a real ledger, a listener that plays a k3s
// server where it must lie.
#include "api/doctor.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <boost/json.hpp>
#include <set>

#include "api/agent_config.h"
#include "api/http_date.h"
#include "tests/support/bare_listener.h"
#include "tests/support/local_listener.h"
#include "tests/support/paths.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

using test::basic;
using test::put_file;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using Outcome = DoctorStep::Outcome;

const DoctorStep& step_of(const Diagnosis& diagnosis, std::string_view name) {
  for (const DoctorStep& step : diagnosis.steps)
    if (step.name == name) return step;
  ADD_FAILURE() << "no step " << name;
  return diagnosis.steps.front();
}

std::string text_of(const Diagnosis& diagnosis) {
  std::string out;
  for (const DoctorStep& step : diagnosis.steps) {
    out += std::string(name_of(step.outcome)) + " " + step.name + ": " + step.detail + "\n";
    for (const Remedy& remedy : step.remedies) out += "   " + remedy.action + " | " + remedy.command + "\n";
  }
  return out;
}

// The step that fails first, its sentence, and that one of its remedies says so.
void expect_failure(const Diagnosis& diagnosis, std::string_view step, const std::string& sentence,
                    const std::string& remedy) {
  const DoctorStep* first = diagnosis.first_failure();
  ASSERT_NE(first, nullptr) << text_of(diagnosis);
  EXPECT_EQ(first->name, step) << text_of(diagnosis);
  EXPECT_THAT(first->detail, HasSubstr(sentence));
  std::string remedies;
  for (const Remedy& entry : first->remedies) remedies += entry.action + " | " + entry.command + "\n";
  EXPECT_THAT(remedies, HasSubstr(remedy));
}

// A machine of its own: password file and agent directory.
class Machine {
 public:
  DoctorOptions options(const std::string& server, const std::string& token) const {
    DoctorOptions out;
    out.server = server;
    out.token = Secret(token);
    out.node_name = "web-1";
    out.password_file = password_file();
    out.agent_dir = dir_ / "agent";
    out.balancer_port = 1;  // nobody listens there
    out.deadline = std::chrono::seconds(30);
    return out;
  }
  std::filesystem::path password_file() const { return dir_ / "password"; }
  std::filesystem::path agent_dir() const {
    std::filesystem::create_directory(dir_ / "agent");
    return dir_ / "agent";
  }
  void set_password(const std::string& password, unsigned mode = 0600) const {
    put_file(password_file(), password);
    ::chmod(password_file().c_str(), mode);
  }

 private:
  test::TempDir dir_;
};

std::string url_of(std::uint16_t port) { return "https://127.0.0.1:" + std::to_string(port); }

// ---- Before any server -------------------------------------------------------------------------------------

TEST(DoctorAlone, TheUrlIsTheFirstThing) {
  const Machine machine;
  for (const char* url : {"10.0.0.1:6443", "", "https://", "not a url"})
    expect_failure(examine(machine.options(url, "secret")), "url", "is not a URL with a host",
                   "https://<server>:6443");
  expect_failure(examine(machine.options("http://10.0.0.1:6443", "secret")), "url", "does not begin with https://",
                 "k3s-agent.service.env");
}

TEST(DoctorAlone, AfterAFailureOnlyThisMachineIsLookedAt) {
  const Machine machine;
  machine.set_password("");
  const Diagnosis diagnosis = examine(machine.options("", "secret"));
  EXPECT_EQ(step_of(diagnosis, "tcp").outcome, Outcome::skipped);
  EXPECT_EQ(step_of(diagnosis, "binding").outcome, Outcome::skipped);
  EXPECT_EQ(step_of(diagnosis, "name").outcome, Outcome::ok);
  EXPECT_EQ(step_of(diagnosis, "password").outcome, Outcome::failure);
}

TEST(DoctorAlone, ATokenThatCannotBeRead) {
  const Machine machine;
  const auto with_token = [&](const std::string& token) {
    return examine(machine.options("https://[::1]:1", token));
  };
  expect_failure(with_token(""), "token", "token must not be empty", "ledger token show");
  expect_failure(with_token("K10abc::node:secret-word"), "token", "invalid token CA hash length",
                 "ledger token show");
  expect_failure(with_token("K10::nodesecret-word"), "token", "invalid token format", "ledger token show");
  expect_failure(with_token("secret-word other"), "token", "blank or a control character", "ledger token show");
  DoctorOptions old = machine.options("https://[::1]:1", "abcdef.0123456789abcdef");
  old.generation = Generation::G5;
  expect_failure(examine(old), "token", "bootstrap token", "ledger token show");
  EXPECT_EQ(step_of(with_token("abcdef.0123456789abcdef"), "token").outcome, Outcome::warning);
  EXPECT_EQ(step_of(with_token("K10" + std::string(64, 'a') + "::abcdef.0123456789abcdef"), "token").outcome,
            Outcome::ok);
}

TEST(DoctorAlone, ANameThatIsNotInDns) {
  const Machine machine;
  expect_failure(examine(machine.options("https://no-such-host.invalid:6443", "secret")), "dns",
                 "no-such-host.invalid", "getent ahosts no-such-host.invalid");
}

TEST(DoctorAlone, AClosedPort) {
  const Machine machine;
  expect_failure(examine(machine.options("https://127.0.0.1:1", "secret")), "tcp",
                 "127.0.0.1:1: refused: the machine is there, but nothing listens", "sport = :1");
}

// A listener whose queue is full drops what comes next, as a firewall does.
TEST(DoctorAlone, ABlackHole) {
  const test::LocalListener listener(0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(listener.port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::vector<int> fillers;
  for (int i = 0; i < 4; ++i) {
    fillers.push_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    (void)!::connect(fillers.back(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  const Machine machine;
  DoctorOptions options = machine.options(url_of(listener.port()), "secret");
  options.deadline = std::chrono::milliseconds(300);
  expect_failure(examine(options), "tcp", "a firewall drops the packets", "traceroute");
  for (const int fd : fillers) ::close(fd);
}

// ---- A server that is not what it should be ----------------------------------------------------------------

// Plays a k3s server: no Ledger-Request-Id, answers as the test wants.
class K3sDouble {
 public:
  K3sDouble() : listener_({}, [this](auto request, auto reply) { serve(*request, reply); }) {
    ca = listener_.https_options().bundle_pem;
    config = AgentConfig::make({}, "127.0.0.1", listener_.port(), std::string(96, 'a'))->document();
  }
  std::string url() const { return url_of(listener_.port()); }
  std::string token() const { return "K10" + sha256_hex(ca) + "::node:secret-word"; }
  // A certificate that was made at another time: the CA's day and a year of validity.
  void use_certificate_of(Time day) {
    const Issuer issuer = std::move(*Issuer::open(old_ / "ca", day, false));
    const auto issued = issuer.issue_listener({}, "", day);
    ASSERT_TRUE(issued) << issued.error().message;
    ASSERT_TRUE(listener_.listener().set_certificate(issued->leaf_pem + issued->ca_pem, issued->key_pem));
    ca = issuer.server_ca_pem();
  }
  test::BareListener& listener() { return listener_; }
  std::vector<std::string> paths() const {
    std::vector<std::string> out;
    for (const auto& request : listener_.requests()) out.push_back(request->path);
    return out;
  }

  std::string ca, config, date;
  int cacerts_status = 200, config_status = 200, kubelet_status = 200;
  std::string refusal = R"({"kind":"Status","message":"not authorized"})";

 private:
  void serve(const Request& request, const Reply& reply) {
    Response response;
    if (!date.empty()) response.headers.emplace_back("Date", date);
    const auto answer = [&](int status, const std::string& body) {
      response.status = status;
      response.body = status == 200 ? body : refusal;
    };
    if (request.path == "/cacerts")
      answer(cacerts_status, ca);
    else if (request.path.ends_with("/config"))
      answer(request.header("authorization") == basic("node", "secret-word") ? config_status : 401, config);
    else if (request.path.ends_with("/serving-kubelet.crt"))
      answer(kubelet_status, "certificates");
    else
      answer(404, "");
    reply(std::move(response));
  }

  test::TempDir old_;
  test::BareListener listener_;
};

class DoctorAtK3s : public testing::Test {
 protected:
  DoctorAtK3s() { machine_.set_password("0123456789abcdef0123456789abcdef\n"); }
  DoctorOptions options() const { return machine_.options(server_.url(), server_.token()); }
  Diagnosis look() const { return examine(options()); }

  Machine machine_;
  K3sDouble server_;
};

TEST_F(DoctorAtK3s, AllIsFine) {
  server_.date = http_date(Time::now());
  const Diagnosis diagnosis = look();
  EXPECT_EQ(diagnosis.first_failure(), nullptr) << text_of(diagnosis);
  for (const DoctorStep& step : diagnosis.steps) {
    EXPECT_EQ(step.outcome, step.name == "binding" ? Outcome::skipped : Outcome::ok) << step.name << step.detail;
  }
  // Asking a k3s server would bind the name.
  EXPECT_EQ(step_of(diagnosis, "binding").outcome, Outcome::skipped);
  EXPECT_THAT(step_of(diagnosis, "binding").detail, HasSubstr("--really-register"));
  EXPECT_THAT(server_.paths(), Not(Contains("/v1-k3s/serving-kubelet.crt")));
  EXPECT_THAT(server_.listener().tls_failures(), IsEmpty());
}

TEST_F(DoctorAtK3s, RegistersOnlyWhenToldTo) {
  DoctorOptions insistent = options();
  insistent.really_register = true;
  EXPECT_EQ(step_of(examine(insistent), "binding").outcome, Outcome::ok);
  EXPECT_EQ(server_.listener().requests().back()->header("k3s-node-password"), "0123456789abcdef0123456789abcdef");
  server_.kubelet_status = 403;
  server_.refusal = R"({"message":"unable to verify password for node web-1: hash does not match"})";
  expect_failure(examine(insistent), "binding", "bound to another password",
                 "kubectl -n kube-system delete secret web-1.node-password.k3s");
  // A password that nobody keeps must not be bound.
  std::filesystem::remove(machine_.password_file());
  const std::size_t before = server_.listener().requests().size();
  EXPECT_EQ(step_of(examine(insistent), "binding").outcome, Outcome::skipped);
  for (std::size_t i = before; i < server_.paths().size(); ++i)
    EXPECT_NE(server_.paths()[i], "/v1-k3s/serving-kubelet.crt");
}

TEST_F(DoctorAtK3s, Rke2HasPathsAndHeadersOfItsOwn) {
  DoctorOptions rke2 = options();
  rke2.rke2 = rke2.really_register = true;
  const Diagnosis diagnosis = examine(rke2);
  EXPECT_EQ(diagnosis.first_failure(), nullptr) << text_of(diagnosis);
  EXPECT_EQ(server_.listener().requests().back()->path, "/v1-rke2/serving-kubelet.crt");
  EXPECT_EQ(server_.listener().requests().back()->header("rke2-node-name"), "web-1");
  server_.config_status = 401;
  expect_failure(examine(rke2), "credentials", "not authorized", "/etc/rancher/rke2/config.yaml");
}

TEST_F(DoctorAtK3s, TheClockIsNamedWhenTheServersDateShowsIt) {
  const Time now = Time::now(), long_ago = now.plus_seconds(-2 * 365 * 86'400);
  server_.use_certificate_of(long_ago);
  server_.date = http_date(long_ago.plus_seconds(86'400));
  expect_failure(look(), "clock", "729 days ahead", "timedatectl set-ntp true");
  EXPECT_EQ(step_of(look(), "certificate").outcome, Outcome::skipped);
}

TEST_F(DoctorAtK3s, AClockThatIsBehind) {
  const Time later = Time::now().plus_seconds(10 * 86'400);
  server_.use_certificate_of(later);
  server_.date = http_date(later.plus_seconds(3'600));
  expect_failure(look(), "clock", "10 days behind", "timedatectl");
}

TEST_F(DoctorAtK3s, ASmallSkewIsAWarning) {
  for (const int skew_s : {-30, 30}) {
    server_.date = http_date(Time::now().plus_seconds(skew_s));
    EXPECT_EQ(step_of(look(), "clock").outcome, Outcome::ok) << skew_s;
  }
  for (const int skew_s : {-200, 200}) {
    server_.date = http_date(Time::now().plus_seconds(skew_s));
    const Diagnosis diagnosis = look();
    EXPECT_EQ(diagnosis.first_failure(), nullptr) << text_of(diagnosis);
    EXPECT_EQ(step_of(diagnosis, "clock").outcome, Outcome::warning);
    EXPECT_THAT(step_of(diagnosis, "clock").detail, HasSubstr(skew_s < 0 ? "ahead" : "behind"));
  }
}

TEST_F(DoctorAtK3s, AnExpiredCertificateIsNotTheClocksFault) {
  server_.use_certificate_of(Time::now().plus_seconds(-2 * 365 * 86'400));
  server_.date = http_date(Time::now());
  expect_failure(look(), "certificate", "has expired", "restart it");
  EXPECT_THAT(look().first_failure()->detail, HasSubstr("the server's own clock agrees"));
  server_.date.clear();
  expect_failure(look(), "certificate", "has expired", "date -u");
}

TEST_F(DoctorAtK3s, ACertificateThatIsNotValidYet) {
  server_.use_certificate_of(Time::now().plus_seconds(5 * 86'400));
  expect_failure(look(), "certificate", "is not valid yet", "date -u");
}

// Made by the openssl command line, as a proxy's certificate is.
TEST_F(DoctorAtK3s, ACertificateWithoutTheLoopbackAddress) {
  test::TempDir dir;
  const auto made = test::run_command("cd " + dir.path().string() +
                                      " && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
                                      "-keyout key.pem -out cert.pem -days 30 -subj /CN=proxy "
                                      "-addext subjectAltName=DNS:proxy.example,IP:10.9.8.7");
  ASSERT_EQ(made.status, 0) << made.output;
  const std::string certificate = test::file_bytes(dir / "cert.pem");
  ASSERT_TRUE(
      server_.listener().listener().set_certificate(certificate, Secret(test::file_bytes(dir / "key.pem"))));
  server_.ca = certificate;
  expect_failure(look(), "certificate", "does not name 127.0.0.1", "openssl s_client");
  EXPECT_THAT(look().first_failure()->detail, HasSubstr("proxy.example, 10.9.8.7"));
}

TEST_F(DoctorAtK3s, ACertificateOfAnotherAuthority) {
  test::TempDir dir;
  server_.ca = Issuer::open(dir.path(), Time::now(), false)->server_ca_pem();
  expect_failure(look(), "ca", "x509: certificate signed by unknown authority", "TCP mode, no proxy");
  EXPECT_THAT(server_.listener().tls_failures(), IsEmpty()) << "the server noticed";
}

TEST_F(DoctorAtK3s, ATokenOfAnotherClusterIsNotSent) {
  DoctorOptions foreign = options();
  foreign.token = Secret("K10" + std::string(64, '0') + "::node:secret-word");
  expect_failure(examine(foreign), "ca", "the token belongs to another CA: it names 000000000000...",
                 "ledger token show");
  EXPECT_THAT(server_.paths(), Each(testing::StrEq("/cacerts")));
}

TEST_F(DoctorAtK3s, ABundleHasTwoHashes) {
  // The first certificate is the CA itself; the second makes it a bundle.
  test::TempDir dir;
  server_.ca += server_.ca;
  const std::string of_bytes = sha256_hex(server_.ca);
  DoctorOptions bytes = options();
  bytes.token = Secret("K10" + of_bytes + "::node:secret-word");
  const Diagnosis diagnosis = examine(bytes);
  EXPECT_EQ(step_of(diagnosis, "ca").outcome, Outcome::warning) << text_of(diagnosis);
  EXPECT_THAT(step_of(diagnosis, "ca").detail, HasSubstr("agents before v1.26.2 only"));
  bytes.generation = Generation::G5;
  EXPECT_EQ(step_of(examine(bytes), "ca").outcome, Outcome::ok);
  put_file(dir / "ca.pem", server_.ca);
  const auto root = test::run_command("openssl x509 -in " + (dir / "ca.pem").string() +
                                      " -outform DER | sha256sum | cut -d' ' -f1");
  DoctorOptions later = options();
  later.token = Secret("K10" + std::string(trim(root.output)) + "::node:secret-word");
  EXPECT_THAT(step_of(examine(later), "ca").detail, HasSubstr("agents from v1.26.2 on only"));
  later.generation = Generation::G5;
  expect_failure(examine(later), "ca", "agents from v1.26.2 on only", "ledger token show");
}

TEST_F(DoctorAtK3s, AServerThatIsNotReadyOrNoneOfOurs) {
  server_.cacerts_status = 503;
  server_.refusal = "starting\n";
  expect_failure(look(), "ca", "503 Service Unavailable: starting", "journalctl");
  server_.cacerts_status = 404;
  expect_failure(look(), "ca", "not a server agents can join", "correct the agent's URL");
  server_.cacerts_status = 200;
  const DoctorOptions kept = options();
  server_.ca = "<html>";
  expect_failure(examine(kept), "ca", "something else answers", "curl -sk");
}

TEST_F(DoctorAtK3s, EveryRefusalOfACredentialHasItsOwnMeaning) {
  DoctorOptions wrong = options();
  wrong.token = Secret("K10" + sha256_hex(server_.ca) + "::node:another-word");
  expect_failure(examine(wrong), "credentials", "does not accept this token: 401 Unauthorized: not authorized",
                 "ledger token show");
  server_.config_status = 403;
  server_.refusal = R"({"message":"forbidden"})";
  expect_failure(look(), "credentials", "not one for agents: 403 Forbidden: forbidden", "node-token");
  server_.config_status = 500;
  server_.refusal = "";
  expect_failure(look(), "credentials", "does not accept this token (k3s before v1.20.4", "node-token");
  server_.config_status = 503;
  expect_failure(look(), "credentials", "cannot record or is not ready", "journalctl");
  server_.config_status = 429;
  expect_failure(look(), "credentials", "too busy", "wait");
  server_.config_status = 404;
  expect_failure(look(), "credentials", "has no /v1-k3s/ API", "URL");
}

TEST_F(DoctorAtK3s, WhatTheServerSaysBackIsNotRepeated) {
  server_.config_status = 401;
  server_.refusal = R"({"message":"secret-word is wrong"})";
  EXPECT_THAT(text_of(look()), Not(HasSubstr("secret-word")));
}

TEST_F(DoctorAtK3s, AConfigDocumentThatAgentsCannotUse) {
  server_.config = "{\"ClusterDNS\":7}";
  expect_failure(look(), "config", "json: cannot unmarshal number", "cidr");
  server_.config =
      AgentConfig::make(
          {.cluster_cidr = "fd00:42::/56", .service_cidr = "fd00:43::/112", .cluster_dns = "fd00:43::a"},
          "127.0.0.1", 6443, std::string(96, 'a'))
          ->document();
  expect_failure(look(), "config", "must share the same IP version", "node-ip");
}

TEST_F(DoctorAtK3s, SomethingThatDoesNotSpeakTls) {
  const test::LocalListener listener;
  // The TCP step's connection first, then the handshake's.
  std::thread server([&listener] {
    for (int i = 0; i < 2; ++i) {
      const int fd = listener.accept();
      (void)!::write(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
      char byte;
      while (::read(fd, &byte, 1) == 1) {
      }
      ::close(fd);
    }
  });
  expect_failure(examine(machine_.options(url_of(listener.port()), "secret-word")), "tls", "does not speak TLS",
                 "openssl s_client");
  server.join();
}

// ---- This machine ------------------------------------------------------------------------------------------

TEST_F(DoctorAtK3s, ANodeNameThatKubernetesRefuses) {
  DoctorOptions bad = options();
  bad.node_name = "web_1";
  expect_failure(examine(bad), "name", "is not an RFC 1123 name", "--node-name");
  bad.node_name = "WEB-1";
  EXPECT_THAT(step_of(examine(bad), "name").detail, StartsWith("web-1 (agents write it in lower case)"));
}

TEST_F(DoctorAtK3s, ThePasswordFile) {
  machine_.set_password(" \n");
  expect_failure(look(), "password", "is empty: the agent sends no password", "sudo rm ");
  machine_.set_password("half\nhalf");
  expect_failure(look(), "password", "control characters in its middle", "wc -c");
  machine_.set_password("0123456789abcdef0123456789abcdef", 0644);
  EXPECT_EQ(step_of(look(), "password").outcome, Outcome::warning);
  EXPECT_THAT(step_of(look(), "password").detail, HasSubstr("mode 0644"));
  std::filesystem::remove(machine_.password_file());
  EXPECT_EQ(step_of(look(), "password").outcome, Outcome::ok);
  std::filesystem::create_directory(machine_.password_file());
  expect_failure(look(), "password", "is not a file", "ls -ld");
}

TEST_F(DoctorAtK3s, SomebodyElseHoldsTheBalancersPort) {
  test::BareListener other;
  DoctorOptions taken = options();
  taken.balancer_port = other.port();
  expect_failure(examine(taken), "port", "(pid " + std::to_string(::getpid()) + ")", "lb-server-port");
}

TEST_F(DoctorAtK3s, CertificatesOfAnEarlierLife) {
  const Time long_ago = Time::now().plus_seconds(-2 * 365 * 86'400);
  test::TempDir dir;
  const Issuer issuer = std::move(*Issuer::open(dir.path(), long_ago, false));
  const auto old = issuer.issue(Purpose::client_kubelet, *NodeName::parse("web-1"), {}, long_ago);
  const auto foreign = issuer.issue(Purpose::serving_kubelet, *NodeName::parse("web-1"), {}, Time::now());
  put_file(machine_.agent_dir() / "client-kubelet.crt", old->leaf_pem + old->ca_pem);
  put_file(machine_.agent_dir() / "serving-kubelet.crt", foreign->leaf_pem + foreign->ca_pem);
  put_file(machine_.agent_dir() / "client-kube-proxy.crt", "not PEM");
  const Diagnosis diagnosis = look();
  const DoctorStep& step = step_of(diagnosis, "certificates");
  EXPECT_EQ(step.outcome, Outcome::warning);
  EXPECT_THAT(step.detail, HasSubstr("client-kubelet.crt expired on "));
  EXPECT_THAT(step.detail, HasSubstr("serving-kubelet.crt is signed by another CA"));
  EXPECT_THAT(step.detail, HasSubstr("client-kube-proxy.crt cannot be read"));
}

// ---- At a ledger -------------------------------------------------------------------------------------------

class DoctorAtLedger : public testing::Test {
 protected:
  DoctorOptions options() const {
    return machine_.options(url_of(server_.port()),
                            std::string(trim(test::file_bytes(server_.data_dir() / "agent-token"))));
  }
  Diagnosis look() const { return examine(options()); }
  void act(const std::string& verb) {
    test::RunningServer& server = server_;
    HttpsRequest request = test::request_of("POST", "/ledger/v1/nodes/web-1/" + verb, server.operator_bearer());
    request.body = R"({"actor":"me","reason":"test"})";
    const HttpsResponse response = server.send(request);
    ASSERT_EQ(response.status, 200) << response.body;
  }

  Machine machine_;
  test::RunningServer server_;
};

TEST_F(DoctorAtLedger, AFreeNameThenABoundOneThenAnotherPassword) {
  machine_.set_password("password-of-web-1");
  EXPECT_THAT(step_of(look(), "binding").detail, StartsWith("web-1 is free"));
  ASSERT_EQ(server_.join("web-1", "password-of-web-1").status, 200);
  const Diagnosis bound = look();
  EXPECT_EQ(bound.first_failure(), nullptr) << text_of(bound);
  EXPECT_THAT(step_of(bound, "binding").detail,
              StartsWith("web-1 is bound to this machine's password since record"));

  machine_.set_password("password-after-rebuild");
  expect_failure(look(), "binding", "web-1 is bound to another password", "ledger replay --node web-1");
  std::filesystem::remove(machine_.password_file());
  expect_failure(look(), "binding", "this machine has none", "node-password.backup");
  // Nothing of this bound anything.
  EXPECT_EQ(server_.join("web-1", "password-of-web-1").status, 200);
}

TEST_F(DoctorAtLedger, AHeldNameAndAReleasedOne) {
  machine_.set_password("password-of-web-1");
  ASSERT_EQ(server_.join("web-1", "another-password").status, 200);
  act("release");
  EXPECT_THAT(step_of(look(), "binding").detail, StartsWith("web-1 is free"));
  act("hold");
  expect_failure(look(), "binding", "web-1 is held by an operator", "ledger node release web-1 --reason");
}

TEST_F(DoctorAtLedger, AWrongTokenAndTheReason) {
  DoctorOptions wrong = options();
  wrong.token = Secret("K10" + sha256_hex(server_.ca()) + "::node:not-the-word");
  expect_failure(examine(wrong), "credentials", "invalid username/password combination", "ledger token show");
}

TEST(DoctorAtLedgers, TheServersTokenIsNoAgentsToken) {
  const test::RunningServer server([](ServerOptions& options) { options.agent_token = Secret("agents-word"); });
  const Machine machine;
  const std::string token(trim(test::file_bytes(server.data_dir() / "token")));
  ASSERT_THAT(token, HasSubstr("::server:"));
  expect_failure(examine(machine.options(url_of(server.port()), token)), "credentials",
                 "does not accept this token", "ledger token show");
}

TEST(DoctorAtLedgers, AReplacedTokenIsCalledReplaced) {
  std::string word = "first-word";
  test::RunningServer server([&word](ServerOptions& options) { options.token = Secret(word); });
  const Machine machine;
  const DoctorOptions options = machine.options(
      url_of(server.port()), std::string(trim(test::file_bytes(server.data_dir() / "agent-token"))));
  EXPECT_EQ(examine(options).first_failure(), nullptr);
  word = "second-word";
  server.restart();
  expect_failure(examine(options), "credentials", "this token was replaced", "ledger token show");
}

// Every step with RKE2's names: at a ledger that serves RKE2, and at nothing else.
TEST(DoctorAtLedgers, AnRke2MachineAtALedgerOfRke2) {
  const test::RunningServer server([](ServerOptions& options) {
    options.program = &kRke2;
    options.supervisor_port = 0;  // 9345 may be taken here
  });
  const Machine machine;
  machine.set_password("password-of-web-1");
  DoctorOptions rke2 = machine.options(url_of(server.port()),
                                       std::string(trim(test::file_bytes(server.data_dir() / "agent-token"))));
  rke2.rke2 = true;
  const Diagnosis free = examine(rke2);
  EXPECT_EQ(free.first_failure(), nullptr) << text_of(free);
  EXPECT_THAT(step_of(free, "binding").detail, StartsWith("web-1 is free"));

  HttpsRequest join = test::request_of("GET", "/v1-rke2/serving-kubelet.crt", server.agent());
  join.headers = {{"Rke2-Node-Name", "web-1"}, {"Rke2-Node-Password", "password-of-web-1"}};
  ASSERT_EQ(server.send(join).status, 200);
  EXPECT_THAT(step_of(examine(rke2), "binding").detail, StartsWith("web-1 is bound to this machine's password"));
  machine.set_password("password-after-rebuild");
  const Diagnosis rebuilt = examine(rke2);
  expect_failure(rebuilt, "binding", "web-1 is bound to another password", "sudo systemctl restart rke2-agent");
  EXPECT_THAT(text_of(rebuilt), Not(HasSubstr("k3s")));

  rke2.rke2 = false;
  const Diagnosis as_k3s = examine(rke2);
  expect_failure(as_k3s, "credentials", "has no /v1-k3s/ API", "correct the agent's URL");
  EXPECT_THAT(as_k3s.first_failure()->detail, HasSubstr("--rke2 for RKE2"));
}

std::vector<std::pair<std::string, NodeState>> projection_of(const test::RunningServer& server) {
  std::vector<std::pair<std::string, NodeState>> out;
  EXPECT_TRUE(server.log()->each_node([&](std::string_view name, const Result<NodeState>& state) {
    out.emplace_back(name, *state);
    return true;
  }));
  return out;
}

TEST_F(DoctorAtLedger, LeavesNothingButTokenRecords) {
  ASSERT_EQ(server_.join("web-1", "password-of-web-1").status, 200);
  const auto before = projection_of(server_);
  const Seq head = server_.log()->head();
  for (const char* password : {"password-of-web-1", "something-else"}) {
    machine_.set_password(password);
    look();
    for (const char* node : {"web-2", "bad_name"}) {
      DoctorOptions other = options();
      other.node_name = node;
      examine(other);
    }
    DoctorOptions wrong = options();
    wrong.token = Secret("wrong-word");
    examine(wrong);
  }
  std::filesystem::remove(machine_.password_file());
  look();
  server_.stop();  // counts and held-back handshakes are written now
  EXPECT_EQ(projection_of(server_), before);
  std::set<std::string> kinds;
  std::string notes;
  for (const Record& record : server_.records()) {
    if (record.seq <= head) continue;
    kinds.emplace(name_of(record.kind()));
    notes += record.note + "\n";
  }
  EXPECT_THAT(kinds, testing::ElementsAre("server_stopped", "token_accepted", "token_rejected"));
  EXPECT_THAT(notes, HasSubstr("asked without registering: mismatch"));
}

TEST_F(DoctorAtLedger, CheckNodeAsksForTheSameAsARegistration) {
  const auto check = [&](const std::string& authorization,
                         std::vector<std::pair<std::string, std::string>> headers) {
    HttpsRequest request = test::request_of("GET", "/ledger/v1/check-node", authorization);
    request.headers = std::move(headers);
    return server_.send(request);
  };
  EXPECT_EQ(check("", {{"K3s-Node-Name", "web-1"}, {"K3s-Node-Password", "p"}}).status, 401);
  EXPECT_EQ(check(server_.operator_bearer(), {{"K3s-Node-Name", "web-1"}, {"K3s-Node-Password", "p"}}).status, 401);
  EXPECT_EQ(check(server_.agent(), {{"K3s-Node-Password", "p"}}).status, 400);
  EXPECT_EQ(check(server_.agent(), {{"K3s-Node-Name", "web-1"}}).status, 400);
  const HttpsResponse answer = check(server_.agent(), {{"K3s-Node-Name", "Web-1"}, {"K3s-Node-Password", "p"}});
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(boost::json::parse(answer.body),
            boost::json::value({{"node", "web-1"}, {"verdict", "free"}, {"since", 0}}));
  EXPECT_EQ(server_.send(test::request_of("POST", "/ledger/v1/check-node", server_.agent())).status, 405);
}

// ---- The command -------------------------------------------------------------------------------------------

TEST_F(DoctorAtLedger, TheCommandInTextAndJson) {
  machine_.set_password("password-of-web-1");
  put_file(machine_.agent_dir() / "token", test::file_bytes(server_.data_dir() / "agent-token"));
  const std::string command = std::string(test::ledger_binary()) + " doctor --server " + url_of(server_.port()) +
                              " --token-file " + (machine_.agent_dir() / "token").string() +
                              " --node-name web-1 --lb-server-port 1 --password-file " +
                              machine_.password_file().string() + " --agent-dir " + machine_.agent_dir().string();
  const auto fine = test::run_command(command);
  EXPECT_EQ(fine.status, 0) << fine.output;
  EXPECT_THAT(fine.output, HasSubstr("nothing fails"));

  ASSERT_EQ(server_.join("web-1", "another-password").status, 200);
  const auto refused = test::run_command(command);
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.output, HasSubstr("\nfirst failing step: node password: web-1 is bound to another password"));
  EXPECT_THAT(refused.output, HasSubstr("what to do:\n  - put the old password file back"));
  EXPECT_THAT(refused.output, Not(HasSubstr(server_.token())));
  EXPECT_THAT(refused.output, Not(HasSubstr("password-of-web-1")));
  EXPECT_THAT(refused.output, Not(HasSubstr("\033"))) << "colour only on a terminal";
  std::istringstream lines(refused.output);
  for (std::string line; std::getline(lines, line);) {
    const bool is_command = line.starts_with("      ");  // commands stay whole
    EXPECT_TRUE(is_command || line.size() <= 100) << line;
  }

  const auto json = test::run_command(command + " --format json");
  EXPECT_EQ(json.status, 1);
  const boost::json::object value = boost::json::parse(json.output).as_object();
  EXPECT_EQ(value.at("first_failing_step"), "binding");
  EXPECT_EQ(value.at("fine"), false);
  EXPECT_EQ(value.at("steps").as_array().size(), 15u);
  EXPECT_EQ(test::run_command(command + " --generation G7").status, 1);
  EXPECT_EQ(test::run_command(command + " --generation G99").status, 2);
  EXPECT_EQ(test::run_command(std::string(test::ledger_binary()) + " doctor").status, 2);
}

}  // namespace
}  // namespace ledger::api
