// A synchronous websocket client (RFC 6455) for the agents' tunnel. Written out, not Beast's: a single thread
// that waits for "a message, or time for a ping" needs to see its own buffer, and tests want frames that a
// well-behaved library refuses to send.
//
// Answers pings, and sends its own while receive() waits; nothing happens between calls.
// Threads: one object, one thread at a time.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "api/https_client.h"

namespace ledger::api {

class WebsocketClient {
 public:
  struct Options {
    HttpsOptions https;  // timeout: of connecting, up to the 101; body_limit: of a message
    std::string target;
    std::chrono::milliseconds ping_every{5'000};
    // The session counts as dead when neither pong nor ping came for so long.
    std::chrono::milliseconds silence_limit{10'000};
  };

  // `answer`: what the server said to the upgrade, when it said anything (also when it refused, which is the
  // error "websocket: bad handshake").
  static Result<WebsocketClient> connect(Options options, HttpsResponse* answer);
  WebsocketClient(WebsocketClient&&) noexcept;
  WebsocketClient& operator=(WebsocketClient&&) noexcept;
  ~WebsocketClient();

  // The next binary message, or nullopt when none came within `wait`. A text message is an error, as in
  // remotedialer. After an error the session is over; its message is gorilla/websocket's, such as
  // "websocket: close 1006 (abnormal closure): unexpected EOF".
  Result<std::optional<std::string>> receive(std::chrono::milliseconds wait);
  Result<void> send(std::string_view binary_message);
  // Sends a close frame and waits up to a second for the server's.
  void close();

  std::uint64_t pongs() const;

 private:
  struct State;
  explicit WebsocketClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ledger::api
