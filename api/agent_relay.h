// The agent's end of its tunnel: the server asks for connections to the kubelet of this machine, and bytes go to and
// fro between the two, as rancher/remotedialer carries them.
//
// Targets: tcp/127.0.0.1:10250 and 10010 (and [::1]), as agents allow; any other ends the session.
//
// Threads: one object, one thread at a time, the session's.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "api/tunnel_frame.h"
#include "api/websocket_client.h"

namespace ledger::api {

class AgentRelay {
 public:
  // `kubelet_port`: where the kubelet that the server calls port 10250 listens. `sync_every` 0: never.
  AgentRelay(std::uint16_t kubelet_port, std::chrono::seconds sync_every);
  ~AgentRelay();
  AgentRelay(AgentRelay&&) noexcept = default;

  // A message of the server's. An error ends the session.
  Result<void> take(WebsocketClient& session, std::string_view message);
  // Sends what the kubelet has said since; call often while busy(). Never waits for the kubelet.
  Result<void> carry(WebsocketClient& session);
  bool busy() const { return !connections_.empty(); }

 private:
  struct Connection {
    int fd = -1;
    std::string to_kubelet;      // not yet taken by it
    bool paused_by_us = false;   // we asked the server to wait
    bool paused_by_peer = false;
  };
  Result<void> dial(WebsocketClient& session, const TunnelFrame& connect);
  Result<void> data(WebsocketClient& session, const TunnelFrame& frame);
  // Both sides hear that it is over; an empty text: the server knows.
  Result<void> end(WebsocketClient& session, std::int64_t number, const std::string& text);
  Result<void> say(WebsocketClient& session, std::int64_t connection, std::int64_t type, std::string payload = {});
  // An error text when the connection is over.
  std::string write_some(Connection& connection);
  std::string read_some(Connection& connection, std::string* bytes);

  std::uint16_t kubelet_port_;
  std::chrono::seconds sync_every_;
  std::chrono::steady_clock::time_point next_sync_;
  std::int64_t next_id_;
  std::map<std::int64_t, Connection> connections_;
};

}  // namespace ledger::api
