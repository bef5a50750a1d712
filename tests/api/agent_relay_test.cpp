// The agent's end of the tunnel, against a real websocket and a real kubelet's socket: what it dials, what it does
// not, and that bytes arrive whole in both directions however the other side behaves.
#include "api/agent_relay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <thread>

#include "tests/support/bare_listener.h"
#include "tests/support/local_listener.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using testing::StartsWith;

// The server's side: keeps the frames.
class Heard : public TunnelSession {
 public:
  Result<void> on_message(std::string_view bytes) override {
    const std::lock_guard lock(mutex_);
    frames_.push_back(*TunnelFrame::decode(bytes));
    return {};
  }
  void on_close(std::string_view) override {}
  std::optional<TunnelFrame> next() {
    const std::lock_guard lock(mutex_);
    if (frames_.empty()) return std::nullopt;
    TunnelFrame frame = frames_.front();
    frames_.pop_front();
    return frame;
  }

 private:
  std::mutex mutex_;
  std::deque<TunnelFrame> frames_;
};

// The kubelet: one connection, by hand.
class Socket {
 public:
  ~Socket() { hang_up(); }
  std::uint16_t port() const { return listener_.port(); }
  void accept() { peer_ = listener_.accept(); }
  void say(std::string_view text) { EXPECT_EQ(::send(peer_, text.data(), text.size(), 0), static_cast<ssize_t>(text.size())); }
  // What has arrived; empty: the other side hung up.
  std::string hear() {
    std::string bytes(1 << 20, '\0');
    const ssize_t got = ::recv(peer_, bytes.data(), bytes.size(), 0);
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  }
  void hang_up() {
    if (peer_ >= 0) ::close(std::exchange(peer_, -1));
  }

 private:
  test::LocalListener listener_;
  int peer_ = -1;
};

class Relay : public testing::Test {
 protected:
  Relay() {
    server_.emplace(Listener::Limits{}, [this](std::shared_ptr<const Request>, Reply reply) {
      Response response;
      response.status = 101;
      response.tunnel = heard_;
      reply(std::move(response));
    });
    WebsocketClient::Options options;
    options.https = server_->https_options();
    options.target = "/";
    session_.emplace(*WebsocketClient::connect(std::move(options), nullptr));
  }
  Result<void> take(std::int64_t type, const std::string& payload = "", std::int64_t connection = 2) {
    return relay_.take(*session_, TunnelFrame{1, connection, type, 15'000, payload}.encode());
  }
  // The next frame that the server hears, while the relay works.
  TunnelFrame heard() {
    std::optional<TunnelFrame> frame;
    EXPECT_TRUE(eventually([&] {
      EXPECT_TRUE(relay_.carry(*session_));
      frame = heard_->next();
      return frame.has_value();
    }));
    return frame.value_or(TunnelFrame{});
  }

  Socket kubelet_;
  std::shared_ptr<Heard> heard_ = std::make_shared<Heard>();
  std::optional<test::BareListener> server_;
  std::optional<WebsocketClient> session_;
  AgentRelay relay_{kubelet_.port(), 0s};
};

TEST_F(Relay, CarriesBothWaysUntilTheKubeletHangsUp) {
  ASSERT_TRUE(take(TunnelFrame::kConnect, "tcp/127.0.0.1:10250"));
  kubelet_.accept();
  EXPECT_TRUE(relay_.busy());
  ASSERT_TRUE(take(TunnelFrame::kData, "to the kubelet"));
  EXPECT_EQ(kubelet_.hear(), "to the kubelet");
  kubelet_.say("from the kubelet");
  const TunnelFrame said = heard();
  EXPECT_EQ(said.type, TunnelFrame::kData);
  EXPECT_EQ(said.connection, 2);
  EXPECT_EQ(said.payload, "from the kubelet");
  kubelet_.hang_up();
  const TunnelFrame over = heard();
  EXPECT_EQ(over.type, TunnelFrame::kError);
  EXPECT_EQ(over.payload, "EOF");
  EXPECT_FALSE(relay_.busy());
  ASSERT_TRUE(take(TunnelFrame::kData, "too late"));
  EXPECT_THAT(heard().payload, StartsWith("connection not found"));
}

TEST_F(Relay, TheServerHangsUp) {
  ASSERT_TRUE(take(TunnelFrame::kConnect, "tcp/127.0.0.1:10250"));
  kubelet_.accept();
  ASSERT_TRUE(take(TunnelFrame::kError, "EOF"));
  EXPECT_FALSE(relay_.busy());
  EXPECT_EQ(kubelet_.hear(), "");
}

TEST_F(Relay, OtherTargetsEndTheSession) {
  for (const char* target : {"tcp/127.0.0.1:22", "tcp/10.0.0.1:10250", "udp/127.0.0.1:10250", "tcp/127.0.0.1:102500",
                             "unix//run/k3s/containerd/containerd.sock", ""}) {
    const Result<void> refused = take(TunnelFrame::kConnect, target);
    ASSERT_FALSE(refused) << target;
    EXPECT_EQ(refused.error().message, "connect not allowed");
  }
  EXPECT_FALSE(relay_.take(*session_, "\x80"));
  EXPECT_TRUE(take(99, "the future"));
  EXPECT_TRUE(take(TunnelFrame::kPause, "", 7)) << "of a connection that is none";
}

TEST_F(Relay, NobodyListens) {
  std::uint16_t closed_port = Socket().port();
  AgentRelay relay(closed_port, 0s);
  ASSERT_TRUE(relay.take(*session_, TunnelFrame{1, 2, TunnelFrame::kConnect, 0, "tcp/127.0.0.1:10250"}.encode()));
  EXPECT_EQ(heard().payload, "dial tcp 127.0.0.1:10250: connect: connection refused");
  EXPECT_FALSE(relay.busy());
}

// The kubelet does not read: the server is asked to wait, and nothing is lost.
TEST_F(Relay, PausesTheServerAndIsPausedByIt) {
  ASSERT_TRUE(take(TunnelFrame::kConnect, "tcp/127.0.0.1:10250"));
  kubelet_.accept();
  std::optional<TunnelFrame> pause;
  std::size_t sent = 0;
  for (; !pause && sent < (64U << 20); sent += 1 << 20) {
    ASSERT_TRUE(take(TunnelFrame::kData, std::string(1 << 20, 'x')));
    eventually([&] { return (pause = heard_->next()).has_value(); }, 0s);
  }
  if (!pause) pause = heard();
  EXPECT_EQ(pause->type, TunnelFrame::kPause);
  std::atomic<std::size_t> received{0};
  std::thread reader([&] {
    while (received < sent) received += kubelet_.hear().size();
  });
  EXPECT_EQ(heard().type, TunnelFrame::kResume);
  EXPECT_TRUE(eventually([&] {
    EXPECT_TRUE(relay_.carry(*session_));
    return received == sent;
  }));
  reader.join();

  ASSERT_TRUE(take(TunnelFrame::kPause));
  kubelet_.say("wait");
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(relay_.carry(*session_));
  EXPECT_FALSE(heard_->next());
  ASSERT_TRUE(take(TunnelFrame::kResume));
  EXPECT_EQ(heard().payload, "wait");
}

}  // namespace
}  // namespace ledger::api
