// Everything that is a socket on the server's side: accept, TLS, HTTP/1.1, websockets, limits and deadlines.
// Sees Beast and libssl, with forward.cpp and upstream.cpp; everyone else sees http.h.
//
// Limits (all in Limits): a connection has so long for its handshake, for a whole request (slow clients are cut
// off, however steadily they drip), for taking the reply, and between requests; a header and a body have a size.
// At max_connections accepting pauses: the kernel's backlog holds the rest.
//
// A peer inside TrustedProxies may begin with a PROXY header (proxy_protocol.h), within the deadline of the handshake;
// what it conveys is the source of everything that follows.
//
// TLS 1.2 and 1.3, no tickets, no renegotiation, no compression. A client certificate is asked for and never
// verified here (agents without one must get in): its DER goes into the request, identity is caller.cpp's.
//
// Threads: constructed before, and destroyed after, the threads that run the io_context. set_certificate() and
// stop() from any thread. Callbacks come from the io_context's threads.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "api/http.h"
#include "api/proxy_protocol.h"
#include "api/upstream.h"

namespace boost::asio {
class io_context;
}

namespace ledger::api {

class Listener {
 public:
  struct Limits {
    std::size_t max_connections = 16384;
    // At that limit, and when descriptors run out, those whom we have waited for longest are closed, if it was this
    // long: whoever only holds connections must not keep agents out.
    std::chrono::milliseconds patience{1'000};
    std::size_t header_bytes = 16 << 10;
    std::size_t body_bytes = 64 << 10;
    std::chrono::milliseconds handshake{10'000};
    std::chrono::milliseconds request{10'000};  // from its first byte, or the handshake, to its last
    std::chrono::milliseconds idle{60'000};     // between two requests of a connection
    std::chrono::milliseconds reply{30'000};
    // An agent pings every 5 s; without a word for this long its tunnel is dead (k3s: 10 s, later 60 s).
    std::chrono::milliseconds tunnel_silence{75'000};
    std::size_t tunnel_message_bytes = 1 << 20;
  };
  struct Callbacks {
    std::function<void(std::shared_ptr<const Request>, Reply)> on_request;
    // Asked when the head of a request is there, where it is set: how it is to be passed on to an upstream. nullptr: not,
    // it is read whole, for on_request.
    std::function<std::shared_ptr<Passage>(const std::shared_ptr<const Request>& head)> on_head;
    Upstreams* upstreams = nullptr;  // set with on_head
    std::function<void(const Peer& peer, const std::string& alert)> on_tls_failed;
    std::function<void(const Peer& peer, int status, const std::string& request_id)> on_bad_request;
  };

  // Binds and listens; port 0 takes a free one. An IPv6 wildcard address also takes IPv4. Errc::conflict: another
  // program has the port.
  static Result<std::unique_ptr<Listener>> open(boost::asio::io_context& io, const std::string& address,
                                                std::uint16_t port, Limits limits, Callbacks callbacks,
                                                TrustedProxies proxies = {});
  ~Listener();

  // The certificate (leaf and CA) and key of new connections; may be replaced while serving.
  Result<void> set_certificate(const std::string& chain_pem, const Secret& key_pem);
  // Starts accepting; a certificate must be set.
  void start();
  // Stops accepting, closes idle connections and tunnels; those with a request finish it.
  void stop();

  std::uint16_t port() const;
  std::size_t connections() const;

  struct State;  // listener.cpp's own

 private:
  explicit Listener(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace ledger::api
