// The agents' tunnel: who may open it, how it stays open, and that its end is always told.
#include "api/tunnel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "api/tunnel_frame.h"
#include "api/websocket_client.h"
#include "tests/support/bare_listener.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

using namespace std::chrono_literals;
using test::BareListener;
using test::eventually;
using test::Identity;
using test::RawTls;
using test::RunningServer;
using testing::AnyOf;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;
using testing::SizeIs;
using testing::StartsWith;

std::string upgrade_request(const std::string& more = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n") {
  return "GET /v1-k3s/connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + more + "\r\n";
}

// A client's frame with a mask of zeros; `size` overrides what the header says.
std::string frame(unsigned opcode, std::string_view payload, std::optional<std::uint64_t> size = {}) {
  const std::uint64_t said = size.value_or(payload.size());
  std::string out(1, static_cast<char>(0x80 | opcode));
  // Masked; the length in the fewest bytes (RFC 6455 section 5.2), other forms are a protocol error.
  const int length_bytes = said < 126 ? 0 : said < 65536 ? 2 : 8;
  out += static_cast<char>(0x80 | (length_bytes == 0 ? said : length_bytes == 2 ? 126 : 127));
  for (int shift = 8 * (length_bytes - 1); shift >= 0; shift -= 8) out += static_cast<char>(said >> shift);
  return out + std::string(4, '\0') + std::string(payload);
}

class Tunnel : public testing::Test {
 protected:
  Tunnel() { web_1_ = server_.identity_of("web-1", "pw"); }

  Result<WebsocketClient> open(const Identity& identity, HttpsResponse* answer = nullptr) {
    WebsocketClient::Options options;
    options.https = server_.https_options(identity);
    options.target = "/v1-k3s/connect";
    options.ping_every = 50ms;
    options.silence_limit = 30s;
    return WebsocketClient::connect(std::move(options), answer);
  }
  WebsocketClient open_ok(HttpsResponse* answer = nullptr) {
    auto tunnel = open(web_1_, answer);
    EXPECT_TRUE(tunnel) << tunnel.error().message;
    return std::move(*tunnel);
  }
  // A tunnel spoken by hand.
  std::unique_ptr<RawTls> open_raw() {
    auto link = std::make_unique<RawTls>(server_.https_options(web_1_));
    link->say(upgrade_request());
    EXPECT_THAT(link->hear_until("\r\n\r\n"), StartsWith("HTTP/1.1 101"));
    return link;
  }
  // The causes of the tunnels that have ended, once there are `count` of them.
  std::vector<std::string> causes(std::size_t count) {
    EXPECT_TRUE(eventually([&] { return server_.records_of<TunnelClosed>().size() >= count; }));
    std::vector<std::string> found;
    for (const Record& record : server_.records_of<TunnelClosed>()) found.push_back(as<TunnelClosed>(record)->cause);
    return found;
  }

  RunningServer server_;
  Identity web_1_;
};

TEST_F(Tunnel, OpensWithAKubeletCertificateAndAnswersPings) {
  HttpsResponse answer;
  WebsocketClient tunnel = open_ok(&answer);
  EXPECT_EQ(answer.status, 101);
  EXPECT_EQ(answer.header("Connection"), "upgrade") << "agents compare the whole value";
  EXPECT_EQ(answer.header("Upgrade"), "websocket");
  EXPECT_EQ(answer.header("Sec-WebSocket-Extensions"), "");
  EXPECT_EQ(answer.header("Ledger-Request-Id").size(), 16U);
  // The record was durable before the 101.
  const Record opened = server_.record_of(answer);
  ASSERT_NE(as<TunnelOpened>(opened), nullptr);
  EXPECT_EQ(opened.node, "web-1");
  EXPECT_EQ(opened.endpoint, "/v1-k3s/connect");
  EXPECT_EQ(opened.auth.method, "certificate");
  EXPECT_EQ(opened.auth.principal, "system:node:web-1");
  EXPECT_EQ(as<TunnelOpened>(opened)->session, opened.request_id);
  EXPECT_EQ(opened.request_id, answer.header("Ledger-Request-Id"));

  // What agents say: SyncConnections, errors, data for nobody. None of it needs an answer.
  for (const TunnelFrame& said : {TunnelFrame{1, 0, TunnelFrame::kSyncConnections, 0, ""},
                                  TunnelFrame{2, 0, TunnelFrame::kSyncConnections, 0, std::string(16, '\1')},
                                  TunnelFrame{3, 7, TunnelFrame::kError, 0, "EOF"},
                                  TunnelFrame{4, 7, TunnelFrame::kData, 15000, "bytes"}, TunnelFrame{5, 7, 99, 0, "future"}})
    ASSERT_TRUE(tunnel.send(said.encode()));
  while (tunnel.pongs() < 3) ASSERT_FALSE(tunnel.receive(100ms)->has_value());
  EXPECT_THAT(server_.records_of<TunnelClosed>(), IsEmpty());
  tunnel.close();
  EXPECT_THAT(causes(1), ElementsAre("websocket: close 1000"));
  const Record closed = server_.records_of<TunnelClosed>()[0];
  EXPECT_EQ(as<TunnelClosed>(closed)->session, opened.request_id);
  EXPECT_EQ(closed.node, "web-1");
  EXPECT_EQ(closed.source, opened.source);
  EXPECT_EQ(closed.auth, opened.auth);
  EXPECT_GE(as<TunnelClosed>(closed)->seconds.value_or(-1), 0.1);
  EXPECT_LT(as<TunnelClosed>(closed)->seconds.value_or(1e9), 600);
}

TEST_F(Tunnel, EveryWayToEndIsTold) {
  {
    auto text = open_raw();
    text->say(frame(1, "hello"));
    EXPECT_THAT(text->hear_all(), StartsWith("\x88\x02\x03\xea")) << "close 1002";
    EXPECT_TRUE(text->closed());
  }
  EXPECT_THAT(causes(1), ElementsAre("wrong websocket message type: text"));
  {
    auto bad = open_raw();
    bad->say(frame(2, "\x80"));  // a varint that does not end
    EXPECT_THAT(bad->hear_all(), StartsWith("\x88\x02\x03\xea"));
  }
  EXPECT_THAT(causes(2)[1], StartsWith("bad frame: tunnel frame: id is cut short"));
  {
    auto empty = open_raw();
    empty->say(frame(2, ""));
    empty->hear_all();
  }
  EXPECT_THAT(causes(3)[2], StartsWith("bad frame: "));
  {
    auto large = open_raw();
    large->say(frame(2, "abc", (1 << 20) + 1));
    EXPECT_THAT(large->hear_all(), StartsWith("\x88\x02\x03\xf1")) << "close 1009";
  }
  // Beast closes by itself; which error it reports depends on who hangs up first.
  EXPECT_THAT(causes(4)[3], AnyOf(HasSubstr("exceeds configured limit"), HasSubstr("connection lost")));
  {
    auto unmasked = open_raw();
    unmasked->say(std::string("\x82\x01x"));
    unmasked->hear_all();
  }
  EXPECT_THAT(causes(5), SizeIs(5));
  {
    auto gone = open_raw();
    gone->hang_up();
  }
  EXPECT_THAT(causes(6), SizeIs(6));
  for (const std::string& cause : causes(6)) EXPECT_NE(cause, "");
  // All of them have their beginning in the log, and the server is as before.
  EXPECT_THAT(server_.records_of<TunnelOpened>(), SizeIs(6));
  EXPECT_EQ(server_.join("web-2", "pw").status, 200);
}

// The machine's plug is pulled: a reset, and not a word of TLS.
TEST_F(Tunnel, AMachineThatVanishes) {
  test::TcpBridge bridge(server_.port());
  HttpsOptions options = server_.https_options(web_1_);
  options.connect_to.port = bridge.port();
  RawTls link(options);
  ASSERT_TRUE(link.opened()) << link.opened().error().message;
  link.say(upgrade_request());
  EXPECT_THAT(link.hear_until("\r\n\r\n"), StartsWith("HTTP/1.1 101"));
  bridge.cut();
  EXPECT_THAT(causes(1), ElementsAre(HasSubstr("reset by peer")));
}

TEST_F(Tunnel, SeveralSessionsOfOneNodeCoexist) {
  HttpsResponse first_answer, second_answer;
  WebsocketClient first = open_ok(&first_answer), second = open_ok(&second_answer);
  EXPECT_NE(first_answer.header("Ledger-Request-Id"), second_answer.header("Ledger-Request-Id"));
  first.close();
  EXPECT_THAT(causes(1), SizeIs(1));
  const auto pongs = second.pongs();
  while (second.pongs() < pongs + 2) ASSERT_FALSE(second.receive(100ms)->has_value()) << "the other lives on";
  second.close();
  EXPECT_THAT(causes(2), SizeIs(2));
  EXPECT_EQ(as<TunnelClosed>(server_.records_of<TunnelClosed>()[0])->session, first_answer.header("Ledger-Request-Id"));
  EXPECT_EQ(as<TunnelClosed>(server_.records_of<TunnelClosed>()[1])->session, second_answer.header("Ledger-Request-Id"));
}

TEST_F(Tunnel, StopClosesThemAndTellsBothSides) {
  auto raw = open_raw();
  WebsocketClient tunnel = open_ok();
  std::thread agent([&] {
    Result<std::optional<std::string>> heard = std::optional<std::string>();
    while (heard && !*heard) heard = tunnel.receive(100ms);
    EXPECT_THAT(heard ? "a message" : heard.error().message, StartsWith("websocket: close 1001 (going away)"));
  });
  const auto began = std::chrono::steady_clock::now();
  EXPECT_TRUE(server_.stop());  // the raw one never answers the close
  EXPECT_LT(std::chrono::steady_clock::now() - began, 9s) << "one agent that does not answer must not hold up the stop";
  agent.join();
  EXPECT_THAT(raw->hear_all(), StartsWith("\x88\x02\x03\xe9"));
  const std::vector<Record> all = server_.records();
  EXPECT_THAT(causes(2), ElementsAre("server stopped", "server stopped"));
  EXPECT_NE(as<ServerStopped>(all.back()), nullptr) << "the last record; tunnels end before it";
}

TEST_F(Tunnel, WhoMayNotOpenIt) {
  HttpsResponse answer;
  EXPECT_FALSE(open({}, &answer));
  EXPECT_EQ(answer.status, 401);
  const Record refused = server_.record_of(answer);
  ASSERT_NE(as<TokenRejected>(refused), nullptr);
  EXPECT_EQ(as<TokenRejected>(refused)->reason, "missing");

  HttpsRequest with_token = test::request_of("GET", "/v1-k3s/client-kube-proxy.crt", server_.agent());
  PemParts parts = split_pem(server_.send(with_token).body);
  EXPECT_FALSE(open({parts.certificates, std::string(parts.key.reveal())}, &answer)) << "a valid certificate, not a kubelet's";
  EXPECT_EQ(answer.status, 401);
  EXPECT_EQ(as<TokenRejected>(server_.record_of(answer))->reason, "wrong_class");

  HttpsRequest release = test::request_of("POST", "/ledger/v1/nodes/web-1/release", server_.operator_bearer());
  release.body = R"({"actor":"t","reason":"test"})";
  ASSERT_EQ(server_.send(release).status, 200);
  EXPECT_FALSE(open(web_1_, &answer));
  EXPECT_EQ(answer.status, 401);
  EXPECT_EQ(as<RequestRejected>(server_.record_of(answer))->reason, "node_unknown");
  EXPECT_THAT(server_.records_of<TunnelOpened>(), IsEmpty());
}

// A request that cannot become a websocket is a refusal, not a tunnel that is open for ever in the log.
TEST_F(Tunnel, UpgradesThatAreNone) {
  const std::string kNone[] = {
      "GET /v1-k3s/connect HTTP/1.1\r\nHost: x\r\n\r\n",
      "GET /v1-k3s/connect HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
      "GET /v1-k3s/connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
      "GET /v1-k3s/connect HTTP/1.0\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
      "HEAD /v1-k3s/connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
      upgrade_request("Sec-WebSocket-Version: 13\r\n"),
      upgrade_request("Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n"),
      upgrade_request("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
      upgrade_request("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n"),
  };
  for (const std::string& none : kNone) {
    RawTls link(server_.https_options(web_1_));
    link.say(none);
    const std::string answer = link.hear_until("\r\n\r\n");
    EXPECT_EQ(test::status_of(answer), 400) << none << answer;
    EXPECT_THAT(answer, HasSubstr("Ledger-Seq: ")) << none;
  }
  ASSERT_TRUE(server_.stop());
  EXPECT_THAT(server_.records_of<TunnelOpened>(), IsEmpty());
  EXPECT_EQ(server_.records_of<TunnelClosed>().size(), 0U);
}

// On any other path an upgrade is a plain request.
TEST_F(Tunnel, UpgradeElsewhereIsIgnored) {
  RawTls link(server_.https_options(web_1_));
  std::string request = upgrade_request();
  request.replace(request.find("/v1-k3s/connect"), 15, "/ping");
  link.say(request);
  EXPECT_THAT(link.hear_response(), testing::AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("pong")));
}

// ---- the socket's side, with limits of our own -----------------------------------------------------------

class BareTunnel : public testing::Test {
 protected:
  BareTunnel() {
    Listener::Limits limits;
    limits.tunnel_silence = 500ms;
    limits.tunnel_message_bytes = 1000;
    server_.emplace(limits, [this](std::shared_ptr<const Request>, Reply reply) {
      Response response;
      response.status = 101;
      response.tunnel = session_;
      reply(std::move(response));
    });
  }
  std::unique_ptr<RawTls> open_raw() {
    auto link = std::make_unique<RawTls>(server_->https_options());
    link->say(upgrade_request());
    EXPECT_THAT(link->hear_until("\r\n\r\n"), StartsWith("HTTP/1.1 101"));
    return link;
  }
  // on_close came exactly once.
  std::string cause() {
    EXPECT_TRUE(eventually([&] { return session_->closed > 0; }));
    EXPECT_TRUE(eventually([&] { return server_->listener().connections() == 0; }));
    EXPECT_EQ(session_->closed, 1);
    return session_->cause_now();
  }
  std::shared_ptr<test::RememberingTunnel> session_ = std::make_shared<test::RememberingTunnel>();
  std::optional<BareListener> server_;
};

TEST_F(BareTunnel, SilenceEndsIt) {
  auto link = open_raw();
  link->hear_all();
  EXPECT_TRUE(link->closed());
  EXPECT_THAT(cause(), MatchesRegex("no ping for .* s"));
}

TEST_F(BareTunnel, PingsKeepItOpen) {
  auto link = open_raw();
  for (int i = 0; i < 15; ++i) {
    std::this_thread::sleep_for(100ms);  // three times the limit altogether
    link->say(frame(9, "p"));
    EXPECT_THAT(link->hear_until("\x8a\x01p"), EndsWith("\x8a\x01p")) << i;  // a ping of ours may come first
  }
  EXPECT_EQ(session_->closed, 0);
  link->say(frame(8, ""));
  EXPECT_THAT(cause(), StartsWith("websocket: close "));
}

TEST_F(BareTunnel, FragmentsAreOneMessage) {
  auto link = open_raw();
  std::string first = frame(2, "ab"), last = frame(0, "cd");
  first[0] = 2;  // not final
  link->say(first + frame(9, "x") + last);
  EXPECT_EQ(link->hear_until("\x8a\x01x"), "\x8a\x01x");
  EXPECT_TRUE(eventually([&] { return session_->messages == 1; }));
  link->say(frame(2, "bad"));
  EXPECT_EQ(cause(), "bad frame: not a frame");
}

TEST_F(BareTunnel, FragmentsHaveALimitTogether) {
  auto link = open_raw();
  std::string first = frame(2, std::string(900, 'x'));
  first[0] = 2;
  std::string more = frame(0, std::string(900, 'x'));
  more[0] = 0;
  link->say(first + more);
  link->hear_all();
  EXPECT_THAT(cause(), AnyOf(HasSubstr("limit"), HasSubstr("connection lost")));
  EXPECT_EQ(session_->messages, 0);
}

// An agent that leaves while its 101 is on the way.
TEST_F(BareTunnel, GoneBeforeItIsOpen) {
  {
    RawTls link(server_->https_options());
    link.say(upgrade_request());
  }
  cause();
}

// Several threads at once, beside pings: every message comes whole, each thread's in its order.
TEST_F(BareTunnel, SaysWhatItsSessionSays) {
  WebsocketClient::Options options;
  options.https = server_->https_options();
  options.target = "/";
  options.ping_every = 20ms;
  HttpsResponse answer;
  auto agent = WebsocketClient::connect(std::move(options), &answer);
  ASSERT_TRUE(agent) << agent.error().message;
  ASSERT_TRUE(eventually([&] { return session_->say("first"); }));
  std::vector<std::thread> threads;
  for (char name : {'a', 'b', 'c'})
    threads.emplace_back([&, name] {
      for (int i = 0; i < 200; ++i) EXPECT_TRUE(session_->say(std::string(100, name) + std::to_string(i)));
    });
  std::map<char, int> heard;
  while (heard['a'] + heard['b'] + heard['c'] < 600) {
    const auto message = agent->receive(10s);
    ASSERT_TRUE(message && *message);
    if (**message == "first") continue;
    const char name = (**message)[0];
    EXPECT_EQ(**message, std::string(100, name) + std::to_string(heard[name]++));
  }
  for (std::thread& thread : threads) thread.join();
  agent->close();
  cause();
  EXPECT_FALSE(session_->say("too late"));
}

// An agent that reads nothing: what waits for it is bounded, nobody blocks, and it can still be cut off.
TEST_F(BareTunnel, WhatWaitsToBeSentIsBounded) {
  auto link = open_raw();
  ASSERT_TRUE(eventually([&] { return session_->say("x"); }));
  const std::string message(64 << 10, 'x');
  std::size_t taken = 0;  // by the kernel's buffers, and then by our queue
  // The kernel's buffers grow while they fill: full is what has taken nothing for a while.
  for (int refused = 0; refused < 50 && taken < 1000;) {
    if (session_->say(message)) {
      ++taken;
      refused = 0;
    } else {
      ++refused;
      std::this_thread::sleep_for(10ms);
    }
  }
  EXPECT_LT(taken, 1000U);
  link->hang_up();
  cause();
}

TEST_F(BareTunnel, StopAtAnyMoment) {
  auto link = open_raw();
  link->say(frame(1, "text"));  // our close is under way when the stop comes
  server_->listener().stop();
  cause();
}

}  // namespace
}  // namespace ledger::api
