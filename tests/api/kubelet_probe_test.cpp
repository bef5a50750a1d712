// Asking through an agent's tunnel for its kubelet: with a played agent and a real TLS listener as the kubelet, and
// with agents that lie, flood, stall and vanish.
#include "api/kubelet_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <future>

#include "api/agent.h"
#include "api/tunnel_frame.h"
#include "api/websocket_client.h"
#include "tests/support/bare_listener.h"
#include "tests/support/ledger_fixture.h"
#include "tests/support/paths.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

using namespace std::chrono_literals;
using test::BareListener;
using test::eventually;
using test::RunningServer;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;
using testing::StartsWith;
using Outcome = ProbeResult::Outcome;

// ---- a played agent in front of a real server ------------------------------------------------------------

class KubeletBehindAnAgent : public testing::Test {
 protected:
  ~KubeletBehindAnAgent() override { leave(); }

  void arrive(std::uint16_t kubelet_port, Generation generation = Generation::G7) {
    AgentOptions options;
    options.server = "https://127.0.0.1:" + std::to_string(server_.port());
    options.token = Secret(trim(test::file_bytes(server_.data_dir() / "node-token")));
    options.node_name = "web-1";
    options.generation = generation;
    options.password_file = vm_ / "etc" / "password";
    options.tunnel = true;
    options.kubelet_port = kubelet_port;
    options.stop = &stop_;
    agent_ = std::thread([this, options = std::move(options)] { outcome_ = run_agent(options); });
    ASSERT_TRUE(eventually([this] { return alive().at("now").as_bool(); }));
  }
  void leave() {
    stop_ = true;
    if (agent_.joinable()) agent_.join();
    stop_ = false;
  }
  boost::json::object ask(const std::string& method, const std::string& target) const {
    const HttpsResponse response = server_.send(test::request_of(method, target, server_.operator_bearer()));
    EXPECT_EQ(response.status, 200) << response.body;
    return response.status == 200 ? boost::json::parse(response.body).as_object() : boost::json::object{};
  }
  boost::json::object alive() const {
    const HttpsResponse response =
        server_.send(test::request_of("GET", "/ledger/v1/nodes/web-1", server_.operator_bearer()));
    if (response.status != 200) return {{"now", false}};
    return boost::json::parse(response.body).as_object().at("alive").as_object();
  }
  boost::json::object probe() const { return ask("POST", "/ledger/v1/nodes/web-1/probe"); }
  test::CommandResult ledger(const std::string& arguments) const {
    return test::run_command(test::ledger_binary() + " " + arguments + " --data-dir " + server_.data_dir().string());
  }
  std::string agent_file(const std::string& name) const { return test::file_bytes(vm_ / "etc" / "agent" / name); }

  RunningServer server_;
  test::TempDir vm_;
  std::atomic<bool> stop_{false};
  std::thread agent_;
  AgentOutcome outcome_;
};

// The kubelet serves with the certificate that the agent received, and wants to know who asks.
TEST_F(KubeletBehindAnAgent, AnswersWithTheCertificateThatWeIssued) {
  BareListener kubelet({}, [](std::shared_ptr<const Request> request, Reply reply) {
    EXPECT_EQ(request->method + " " + request->path, "GET /healthz");
    EXPECT_TRUE(request->certificate.empty());
    Response response;
    response.status = 401;
    reply(std::move(response));
  });
  for (const Generation generation : {Generation::G1, Generation::G5, Generation::G7}) {
    arrive(kubelet.port(), generation);
    ASSERT_TRUE(kubelet.listener().set_certificate(agent_file("serving-kubelet.crt"),
                                                   Secret(agent_file("serving-kubelet.key"))));
    for (int i = 0; i < 3; ++i) {
      const auto found = probe();
      EXPECT_EQ(found.at("outcome"), "answers") << found;
      EXPECT_EQ(found.at("status"), 401);
      const auto& certificate = found.at("certificate").as_object();
      EXPECT_EQ(certificate.at("subject"), "CN=web-1");
      EXPECT_EQ(certificate.at("trusted"), true) << found;
      std::string serial;
      for (const Record& record : server_.records_of<CertificateIssued>())
        if (as<CertificateIssued>(record)->purpose == "serving-kubelet") serial = as<CertificateIssued>(record)->serial;
      EXPECT_EQ(std::string(certificate.at("serial").as_string()), serial);
      EXPECT_EQ(std::string(found.at("tunnel").at("session").as_string()),
                server_.records_of<TunnelOpened>().back().request_id);
    }
    leave();
    EXPECT_EQ(outcome_.verdict, AgentOutcome::Verdict::joined) << outcome_.sentence;
    ASSERT_TRUE(eventually([this] { return !alive().at("now").as_bool(); }));
  }
}

TEST_F(KubeletBehindAnAgent, TheCommandsSayIt) {
  BareListener kubelet;
  EXPECT_EQ(server_.join("web-1", "pw").status, 200);
  const auto gone = ledger("node probe web-1");
  EXPECT_EQ(gone.status, 1);
  EXPECT_THAT(gone.output, StartsWith("web-1: no tunnel is open"));
  EXPECT_THAT(ledger("node show web-1").output, HasSubstr("no tunnel is open now"));

  std::filesystem::create_directories(vm_ / "etc");
  test::put_file(vm_ / "etc" / "password", "pw\n");
  arrive(kubelet.port());
  ASSERT_TRUE(kubelet.listener().set_certificate(agent_file("serving-kubelet.crt"),
                                                 Secret(agent_file("serving-kubelet.key"))));
  const auto there = ledger("node probe web-1");
  EXPECT_EQ(there.status, 0) << there.output;
  EXPECT_THAT(there.output, AllOf(StartsWith("web-1: a kubelet answers (HTTP 200"), HasSubstr("CN=web-1"),
                                  HasSubstr("signed by this server's CA for this node")));
  const auto shown = ledger("node show web-1");
  EXPECT_THAT(shown.output, AllOf(HasSubstr("yes: a tunnel is open now"), HasSubstr("open since 20")));
  const auto json = boost::json::parse(ledger("node show web-1 --format json").output).as_object();
  EXPECT_EQ(json.at("alive").at("now"), true);
  EXPECT_EQ(json.at("alive").at("tunnels").as_array().size(), 1U);

  leave();
  server_.stop();
  const auto stopped = ledger("node show web-1");
  EXPECT_EQ(stopped.status, 0);
  EXPECT_THAT(stopped.output, HasSubstr("not known: only a running server knows"));
  EXPECT_EQ(ledger("node probe web-1").status, 1);
}

TEST_F(KubeletBehindAnAgent, NobodyListensThere) {
  std::uint16_t closed_port = 0;
  {
    BareListener gone;
    closed_port = gone.port();
  }
  arrive(closed_port);
  const auto found = probe();
  EXPECT_EQ(found.at("outcome"), "refused");
  EXPECT_EQ(found.at("detail"), "dial tcp 127.0.0.1:10250: connect: connection refused");
  EXPECT_TRUE(alive().at("now").as_bool()) << "asking must not cost the agent its tunnel";
}

TEST_F(KubeletBehindAnAgent, SomebodyElsesCertificateIsNamed) {
  BareListener other;  // a CA of its own
  arrive(other.port());
  const auto found = probe();
  EXPECT_EQ(found.at("outcome"), "answers");
  EXPECT_EQ(found.at("certificate").at("trusted"), false);
  EXPECT_TRUE(found.at("certificate").as_object().contains("distrust"));
  const auto said = ledger("node probe web-1");
  EXPECT_EQ(said.status, 0);
  EXPECT_THAT(said.output, HasSubstr("NOT one that this server issued for this node"));
}

// The certificate of another node of the same cluster is not this one's.
TEST_F(KubeletBehindAnAgent, AnotherNodesCertificateIsNamed) {
  HttpsRequest request = server_.kubelet_request("web-2", "pw", true);
  const PemParts parts = split_pem(server_.send(request).body);
  BareListener kubelet;
  ASSERT_TRUE(kubelet.listener().set_certificate(parts.certificates, parts.key));
  arrive(kubelet.port());
  EXPECT_EQ(probe().at("certificate").at("trusted"), false);
  EXPECT_EQ(probe().at("certificate").at("subject"), "CN=web-2");
}

TEST_F(KubeletBehindAnAgent, WhoMayAskAndForWhom) {
  EXPECT_EQ(server_.send(test::request_of("POST", "/ledger/v1/nodes/web-1/probe", server_.agent())).status, 401);
  const auto unknown =
      server_.send(test::request_of("POST", "/ledger/v1/nodes/web-1/probe", server_.operator_bearer()));
  EXPECT_EQ(unknown.status, 404);
  EXPECT_THAT(unknown.body, HasSubstr("never seen a node web-1"));
  EXPECT_EQ(server_.send(test::request_of("POST", "/ledger/v1/nodes/-x-/probe", server_.operator_bearer())).status, 400);
  EXPECT_EQ(server_.join("web-1", "pw").status, 200);
  EXPECT_EQ(probe().at("outcome"), "no_tunnel");
}

// An agent that takes the connection and says nothing: the stop of the server does not wait for it.
TEST_F(KubeletBehindAnAgent, AStoppingServerEndsTheProbe) {
  const test::Identity identity = server_.identity_of("web-1", "pw");
  WebsocketClient::Options options;
  options.https = server_.https_options(identity);
  options.target = "/v1-k3s/connect";
  auto agent = WebsocketClient::connect(std::move(options), nullptr);
  ASSERT_TRUE(agent);
  ASSERT_TRUE(eventually([this] { return alive().at("now").as_bool(); }));
  auto asking = std::async(std::launch::async, [this] { return probe(); });
  const auto connect = agent->receive(10s);
  ASSERT_TRUE(connect && *connect);
  EXPECT_EQ(TunnelFrame::decode(**connect)->payload, "tcp/127.0.0.1:10250");
  const auto began = std::chrono::steady_clock::now();
  ASSERT_TRUE(server_.stop());
  EXPECT_LT(std::chrono::steady_clock::now() - began, 8s);
  EXPECT_EQ(asking.get().at("outcome"), "tunnel_ended");
}

// ---- agents by hand --------------------------------------------------------------------------------------

// A session as the listener drives it; what the server says is remembered, or answered at once.
class Scripted {
 public:
  using Answer = std::function<std::vector<TunnelFrame>(const TunnelFrame&)>;

  Scripted(Tunnels& tunnels, const std::string& session, Answer answer = {}) : answer_(std::move(answer)) {
    Record closed;
    closed.request_id = session;
    closed.source = "10.0.0.5:41000";
    session_ = tunnels.open(std::move(closed), "web-1");
    session_->attach([this](std::string message) {
      if (deaf_) return false;
      const TunnelFrame frame = *TunnelFrame::decode(message);
      const std::lock_guard lock(mutex_);
      heard_.push_back(frame);
      // As on the wire: the answer comes later, from another thread.
      if (answer_) replies_.push_back(std::async(std::launch::async, [this, frame] {
        for (const TunnelFrame& reply : answer_(frame)) (void)session_->on_message(reply.encode());
      }));
      return true;
    });
  }
  ~Scripted() { close(); }

  void close() {
    if (std::exchange(closed_, true)) return;
    session_->on_close("websocket: close 1000");
    const std::lock_guard lock(mutex_);
    replies_.clear();  // waits
  }
  void stop_listening() { deaf_ = true; }
  std::vector<TunnelFrame> heard() {
    const std::lock_guard lock(mutex_);
    return heard_;
  }
  Result<void> say(const TunnelFrame& frame) { return session_->on_message(frame.encode()); }

 private:
  std::shared_ptr<TunnelSession> session_;
  const Answer answer_;
  std::atomic<bool> deaf_{false};
  bool closed_ = false;
  std::mutex mutex_;
  std::vector<TunnelFrame> heard_;
  std::vector<std::future<void>> replies_;
};

Scripted::Answer on_connect(std::int64_t type, const std::string& payload, int times = 1) {
  return [=](const TunnelFrame& said) {
    std::vector<TunnelFrame> replies;
    for (int i = 0; said.type == TunnelFrame::kConnect && i < times; ++i)
      replies.push_back({i, said.connection, type, 15'000, payload});
    return replies;
  };
}

class HostileAgent : public test::LedgerTest {
 protected:
  ProbeResult ask(KubeletProbe& probe) {
    std::promise<ProbeResult> answer;
    EXPECT_TRUE(probe.start("web-1", [&](const ProbeResult& result) { answer.set_value(result); }));
    return answer.get_future().get();
  }
  ProbeResult ask(std::chrono::milliseconds at_most = 10s) {
    KubeletProbe probe(*tunnels_, "", at_most);
    return ask(probe);
  }
  void SetUp() override {
    open();
    tunnels_.emplace(*ledger_);
  }
  std::optional<Tunnels> tunnels_;
};

TEST_F(HostileAgent, RefusalsAndHangUpsAreToldApart) {
  const auto outcome = [&](std::int64_t type, const std::string& payload) {
    Scripted agent(*tunnels_, "s", on_connect(type, payload));
    return ask();
  };
  EXPECT_EQ(outcome(TunnelFrame::kError, "dial tcp 127.0.0.1:10250: i/o timeout").outcome, Outcome::refused);
  EXPECT_EQ(outcome(TunnelFrame::kError, "EOF").outcome, Outcome::no_kubelet);
  const ProbeResult evil = outcome(TunnelFrame::kError, "\x1b[31mred\n" + std::string(5000, 'x'));
  EXPECT_EQ(evil.outcome, Outcome::refused);
  EXPECT_EQ(evil.detail.size(), 200U);
  EXPECT_THAT(evil.detail, StartsWith("?[31mred?"));
  EXPECT_EQ(outcome(TunnelFrame::kData, "SSH-2.0-OpenSSH_9.2\r\n").outcome, Outcome::no_kubelet);
  EXPECT_EQ(outcome(TunnelFrame::kData, std::string("\x15\x03\x03\x00\x02\x02\x28", 7)).outcome, Outcome::no_kubelet)
      << "a TLS alert";
  EXPECT_EQ(ask().outcome, Outcome::no_tunnel);
}

TEST_F(HostileAgent, AFloodEndsTheProbeAndNothingElse) {
  // A record header that promises 16 KiB, then zeros without end.
  const std::string data = std::string("\x16\x03\x03\x40\x00", 5) + std::string(60'000, '\0');
  Scripted agent(*tunnels_, "s", on_connect(TunnelFrame::kData, data, 100));
  const ProbeResult flooded = ask();
  EXPECT_EQ(flooded.outcome, Outcome::no_kubelet) << flooded.detail;
  EXPECT_LT(flooded.took, 5s);
  EXPECT_THAT(tunnels_->of("web-1"), SizeIs(1));
  // One message larger than everything that is held.
  Scripted large(*tunnels_, "t", on_connect(TunnelFrame::kData, std::string(300 << 10, 'x')));
  EXPECT_THAT(ask().detail, HasSubstr("more data than a kubelet sends"));
  // For connections that nobody made nothing is kept.
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(agent.say({i, i, TunnelFrame::kData, 0, std::string(1 << 20, 'x')}));
}

TEST_F(HostileAgent, SilenceHasADeadline) {
  Scripted silent(*tunnels_, "s");
  const ProbeResult nothing = ask(100ms);
  EXPECT_EQ(nothing.outcome, Outcome::timed_out);
  EXPECT_EQ(nothing.detail, "no answer in the TLS handshake");
  EXPECT_GE(nothing.took, 100ms);
  const auto heard = silent.heard();
  ASSERT_GE(heard.size(), 3U);
  EXPECT_EQ(heard[0].type, TunnelFrame::kConnect);
  EXPECT_EQ(heard[0].connection, 2);
  EXPECT_EQ(heard[0].payload, "tcp/127.0.0.1:10250");
  EXPECT_EQ(heard[1].type, TunnelFrame::kData);
  EXPECT_THAT(heard[1].payload, StartsWith("\x16\x03\x01")) << "a ClientHello";
  EXPECT_EQ(heard.back().type, TunnelFrame::kError);
  EXPECT_EQ(heard.back().payload, "EOF");
  ask(1ms);
  EXPECT_EQ(silent.heard()[heard.size()].connection, 3);
}

TEST_F(HostileAgent, PauseIsObeyedAndHasADeadline) {
  {
    Scripted pausing(*tunnels_, "s");
    KubeletProbe probe(*tunnels_, "", 10s);
    std::optional<OpenTunnel> through;
    const auto connection = tunnels_->dial_kubelet("web-1", &through);
    ASSERT_NE(connection, nullptr);
    ASSERT_TRUE(pausing.say({1, 2, TunnelFrame::kPause, 0, ""}));
    const auto now = std::chrono::steady_clock::now();
    EXPECT_EQ(connection->write("x", now + 50ms), TunnelConnection::End::timed_out);
    EXPECT_THAT(pausing.heard(), SizeIs(1)) << "only the Connect";
    ASSERT_TRUE(pausing.say({1, 2, TunnelFrame::kResume, 0, ""}));
    EXPECT_EQ(connection->write(std::string(40'000, 'x'), now + 10s), TunnelConnection::End::none);
    EXPECT_THAT(pausing.heard(), SizeIs(4)) << "in frames of 16 KiB";
  }
  Scripted gone(*tunnels_, "t");
  gone.stop_listening();
  EXPECT_EQ(ask(100ms).outcome, Outcome::timed_out);
}

TEST_F(HostileAgent, TheNewestSessionIsAskedAndItsEndIsNoticed) {
  Scripted old(*tunnels_, "old");
  std::promise<ProbeResult> answer;
  KubeletProbe probe(*tunnels_, "", 10s);
  {
    Scripted young(*tunnels_, "young");
    const auto open = tunnels_->of("web-1");
    ASSERT_THAT(open, SizeIs(2));
    EXPECT_EQ(open[0].session, "young");
    ASSERT_TRUE(probe.start("web-1", [&](const ProbeResult& result) { answer.set_value(result); }));
    ASSERT_TRUE(eventually([&] { return !young.heard().empty(); }));
  }
  const ProbeResult ended = answer.get_future().get();
  EXPECT_EQ(ended.outcome, Outcome::tunnel_ended);
  EXPECT_EQ(ended.detail, "websocket: close 1000");
  EXPECT_EQ(ended.tunnel->session, "young");
  EXPECT_TRUE(old.heard().empty());
  EXPECT_EQ(tunnels_->of("web-1")[0].session, "old");
  EXPECT_THAT(tunnels_->of("web-2"), SizeIs(0));
}

TEST_F(HostileAgent, AtMostFourProbesAtOnce) {
  Scripted silent(*tunnels_, "s");
  KubeletProbe probe(*tunnels_, "", 10s);
  std::atomic<int> done{0};
  const auto count = [&](const ProbeResult&) { ++done; };
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(probe.start("web-1", count));
  EXPECT_FALSE(probe.start("web-1", count));
  silent.close();
  EXPECT_TRUE(eventually([&] { return done == 4; }));
  EXPECT_TRUE(probe.start("web-1", count));
}

TEST_F(HostileAgent, AThousandSessionsOfOneNodeAreNotRemembered) {
  std::vector<std::unique_ptr<Scripted>> many;
  for (int i = 0; i < 100; ++i) many.push_back(std::make_unique<Scripted>(*tunnels_, "s" + std::to_string(i)));
  EXPECT_THAT(tunnels_->of("web-1"), SizeIs(64));
  EXPECT_EQ(tunnels_->of("web-1")[0].session, "s99");
  many.clear();
  EXPECT_THAT(tunnels_->of("web-1"), SizeIs(0));
}

}  // namespace
}  // namespace ledger::api
