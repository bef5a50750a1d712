// Who is really calling, where a load balancer stands in between: the PROXY protocol, versions 1 and 2
// (HAProxy's proxy-protocol.txt), the networks whose word is taken for it, and X-Forwarded-For. Everything here is
// a pure function of its arguments; any thread.
//
// Nothing that an untrusted peer sends is believed: to the listener a PROXY header from one is a TLS handshake that
// failed, like any other bytes that are no TLS. A trusted peer may send a header and need not: a balancer that only
// passes bytes on works too, and then it is the source.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/result.h"

namespace ledger::api {

// The networks of --trusted-proxy. Empty: nobody is trusted.
class TrustedProxies {
 public:
  // Each "10.0.0.0/8", "fd00::/8" or a single address. An error names the text and says what to write.
  static Result<TrustedProxies> parse(const std::vector<std::string>& networks);

  // `host` is an address without a port; text that is none is not trusted. IPv4 in IPv6 (::ffff:10.0.0.5) is IPv4.
  bool trusts(std::string_view host) const;
  bool empty() const { return networks_.empty(); }
  // A network with everybody in it: whoever connects may then claim any address.
  bool trusts_everybody() const;

 private:
  struct Network {
    std::array<std::uint8_t, 16> address{};  // IPv4 as ::ffff:a.b.c.d
    unsigned bits = 0;                       // of the 128
    bool v4 = false;
  };
  std::vector<Network> networks_;
};

// What the first bytes of a connection are.
struct ProxyHeader {
  enum class Kind {
    incomplete,  // may become a header: ask again with more bytes
    absent,      // no header: the bytes are the connection's own
    present,     // a header of `size` bytes; what follows is the connection's own
    malformed,   // began as a header and is none: `problem`
  };
  Kind kind = Kind::incomplete;
  std::size_t size = 0;
  // "10.0.0.5:41234" or "[fd00::1]:41234". Empty: the header conveys no address (LOCAL, UNKNOWN, a UNIX socket,
  // a datagram), the connection is the proxy's own.
  std::string source;
  const char* problem = "";  // one of a few fixed texts
};

// No header is longer: a line of 107 bytes (version 1), 16 bytes and up to 512 more (version 2; TLVs are passed
// over). So with kMaxProxyHeader bytes the answer is never `incomplete`.
constexpr std::size_t kMaxProxyHeader = 16 + 512;
ProxyHeader parse_proxy_header(std::string_view bytes);

// Who sent a request that trusted HTTP proxies passed on: the rightmost address of X-Forwarded-For (all values,
// joined with commas, in order) that is not a trusted proxy's, or the leftmost when all are. What stands left of an
// entry that is no address is not believed. `peer` is who sent us the request; it is returned (with its port) when it
// is not trusted or the header says nothing that is believed. Else the address alone: the header has no ports.
std::string forwarded_source(std::string_view peer, std::string_view forwarded_for, const TrustedProxies& trusted);

}  // namespace ledger::api
