// The server's end of the agents' websocket tunnels (docs/HTTP_API.md, "Tunnel"): which are open now, and a way
// through one of them to the kubelet on the agent's machine. Frames are checked (tunnel_frame.h); one that cannot
// be read ends the session, as in k3s. When a session ends, tunnel_closed is recorded with cause and duration.
//
// Hides remotedialer's messages: connection numbers, deadlines, Pause and Resume. Never asks an agent for anything
// but tcp/127.0.0.1:10250: an agent that does not allow a target tears its whole session down.
//
// What an agent sends is held only for connections that somebody reads, and at most 256 KiB of it; past that the
// connection is over. Of one node the newest 64 sessions are known.
//
// Threads: everything from any thread. Only TunnelConnection's read() and write() block.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/http.h"
#include "ledger/ledger.h"

namespace ledger::api {

class AgentTunnel;  // tunnel.cpp's own

// A tunnel that is open now.
struct OpenTunnel {
  std::string session;  // request id of its tunnel_opened
  std::string source;   // where the agent calls from
  Time since;
  std::string upstream{};  // that it was passed on to; empty: it ends here
};

// One connection to the kubelet, through a tunnel. For one thread; letting it go tells the agent to hang up.
class TunnelConnection {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  enum class End {
    none,       // not over
    by_agent,   // `why` is what the agent says: "EOF", "dial tcp 127.0.0.1:10250: connect: connection refused"
    tunnel,     // the session ended; `why` is its cause
    too_much,   // the agent sent more than we hold
    timed_out,  // the deadline came
  };
  struct Chunk {
    std::string bytes;  // at least one, or `end` says why there is none
    End end = End::none;
    std::string why;
  };

  TunnelConnection(const TunnelConnection&) = delete;
  TunnelConnection& operator=(const TunnelConnection&) = delete;
  ~TunnelConnection();

  Chunk read(TimePoint deadline);
  // Waits while the agent has paused us. End::none: queued.
  End write(std::string_view bytes, TimePoint deadline);

 private:
  friend class Tunnels;
  TunnelConnection(std::shared_ptr<AgentTunnel> session, std::int64_t number);
  const std::shared_ptr<AgentTunnel> session_;
  const std::int64_t number_;
};

class Tunnels {
 public:
  // The ledger must outlive every session.
  explicit Tunnels(Ledger& ledger);

  // `closed` is the tunnel_closed record to be, with everything but session, cause and seconds filled in; its
  // request id is the session. The session counts as open from its attach() to its on_close().
  std::shared_ptr<TunnelSession> open(Record closed, const std::string& node);

  // The open tunnels of a node, newest first.
  std::vector<OpenTunnel> of(const std::string& node) const;

  // Asks the newest session of the node for a connection to its kubelet; `*through` says which one that was. Whether
  // it comes about shows in the first read(). nullptr: no tunnel is open, or it takes no more messages.
  std::unique_ptr<TunnelConnection> dial_kubelet(const std::string& node, std::optional<OpenTunnel>* through);

  struct Table;  // tunnel.cpp's own

 private:
  Ledger& ledger_;
  std::shared_ptr<Table> table_;
};

}  // namespace ledger::api
