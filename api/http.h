// Our own small request and response, so that handlers never see a socket, TLS or Beast, and tests need none.
// Value types; any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ledger/types.h"

namespace ledger::api {

// The other end of a connection.
struct Peer {
  std::string source;  // "10.0.0.5:41234"
  std::string via;     // the trusted proxy that conveyed `source`, "10.0.0.1:50022"; empty: nobody did
};

struct Request {
  std::string id;      // 16 hex digits, also the client's Ledger-Request-Id
  std::string method;  // "GET"
  std::string path;    // up to the '?', as sent
  std::string query;   // after the '?'
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case, in order
  std::string body;
  std::string source;       // "10.0.0.5:41234"
  std::string via{};        // as in Peer
  std::string certificate;  // DER of the client's certificate, not yet verified; empty: none
  unsigned version = 11;    // of HTTP: 10 or 11
  bool websocket = false;   // a whole websocket upgrade (RFC 6455): a 101 with a tunnel can follow

  // Value of the first header of this (lower-case) name, or empty.
  std::string_view header(std::string_view name) const {
    for (const auto& [key, value] : headers)
      if (key == name) return value;
    return {};
  }
  std::size_t header_count(std::string_view name) const {
    std::size_t count = 0;
    for (const auto& [key, value] : headers) count += key == name;
    return count;
  }
};

// Queues one binary message for the peer of a websocket. From any thread, never blocks. False: not queued, because
// the websocket is gone or 256 KiB wait already.
using TunnelSend = std::function<bool(std::string message)>;

// What happens on a connection after a 101: the messages of one websocket, in order, from one thread at a time.
class TunnelSession {
 public:
  virtual ~TunnelSession() = default;
  // Called once, first, when the websocket is up; not at all when it never came about.
  virtual void attach(TunnelSend) {}
  // One binary message. An error ends the session with its message as the cause.
  virtual Result<void> on_message(std::string_view bytes) = 0;
  // Called once, last.
  virtual void on_close(std::string_view cause) = 0;
};

// The body of an answer without an end, made as the peer takes it: the listener asks for a piece, sends it, and asks for
// the next. So a slow peer costs one piece of memory, and whoever makes pieces never waits for a peer.
class BodySource {
 public:
  struct Piece {
    std::string bytes;   // empty: nothing now
    bool ready = false;  // there is more at once; else the listener asks again after a moment
    bool last = false;   // the body ends with this piece
  };
  using Take = std::function<void(Piece)>;
  virtual ~BodySource() = default;
  // Calls `take` exactly once, from any thread. Never blocks. Not called again before it has.
  virtual void next(Take take) = 0;
};

struct Response {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  // Set with status 101: the connection becomes this websocket.
  std::shared_ptr<TunnelSession> tunnel;
  // Not 0: `body` is the first chunk of a stream that stays open this long (a Kubernetes watch).
  int stream_seconds = 0;
  // Set: the body comes from here, chunk by chunk, until it ends, the peer leaves or the server stops.
  std::shared_ptr<BodySource> source;
  // Not empty: a whole HTTP message, which is sent as it is; of the other fields only `keep_alive` matters then.
  std::string raw;
  bool keep_alive = true;  // of the connection, after `raw`
  bool drop = false;       // no answer: the connection is reset
};

// Answers one request. Called exactly once, from any thread; must be let go before the listener's io_context.
using Reply = std::function<void(Response)>;

}  // namespace ledger::api
