// One client-side TCP connection with TLS on it, every operation of which ends at a deadline.
//
// Hides sockets, OpenSSL, and the trouble of telling what went wrong: an Error's message is the cause as Go's
// net/http and crypto/tls word it (our clients stand in for k3s agents, and operators search for these texts):
//   EOF | dial tcp 127.0.0.1:1: connect: connection refused | x509: certificate signed by unknown authority |
//   context deadline exceeded (Client.Timeout exceeded while awaiting headers) | remote error: tls: ...
// Its code says how far it got: unavailable = no TCP connection, invalid = the server's certificate was refused
// or our own options are wrong, io = everything later.
//
// On the wire like Go: no SNI for an IP address, alert 42 (bad_certificate) for every refused certificate,
// no session resumption, close_notify sent but not waited for.
//
// Threads: one object, one thread at a time; different objects are independent, contexts may be shared.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/types.h"

namespace ledger::api {

struct HostPort {
  std::string host;  // without the brackets of an IPv6 address
  std::uint16_t port = 0;

  // "10.0.0.1:6443", "[fd00::1]:6443", "server" (then the default port).
  static Result<HostPort> parse(std::string_view text, std::uint16_t default_port);
  std::string to_string() const;
};

enum class HttpsTrust {
  os_roots,  // the certificates the operating system trusts
  anyone,    // no verification at all
  bundle,    // exactly TlsOptions::bundle_pem; host name or IP address are verified too
};

struct TlsOptions {
  HostPort connect_to;
  // Host and port of the URL: SNI, the name the certificate must carry, the Host header. Empty: connect_to.
  HostPort authority;
  HttpsTrust trust = HttpsTrust::os_roots;
  std::string bundle_pem;
  // Client certificate, leaf first. Empty: none.
  std::string cert_pem;
  Secret key_pem;
  // While it is true everything that waits ends within 100 ms, as if its deadline were over. May be nullptr.
  const std::atomic<bool>* interrupt = nullptr;

  const HostPort& url_host() const { return authority.host.empty() ? connect_to : authority; }
};

// What can be shared by connections with equal trust and client certificate.
class TlsContext {
 public:
  // Fails when the PEM texts do not hold what they should.
  static Result<TlsContext> make(const TlsOptions& options);

 private:
  friend class TlsLink;
  explicit TlsContext(std::shared_ptr<void> native) : native_(std::move(native)) {}
  std::shared_ptr<void> native_;
};

class TlsLink {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  // Go words an end or a timeout differently once a response has begun.
  enum class Stage { dialing, handshaking, awaiting_headers, reading_body };

  TlsLink();
  TlsLink(TlsLink&&) noexcept;
  TlsLink& operator=(TlsLink&&) noexcept;
  ~TlsLink();

  // nullopt: wait for ever. Resolving a name is the one thing that no deadline bounds.
  void set_deadline(std::optional<TimePoint> deadline);
  void set_stage(Stage stage);

  Result<void> open(const TlsOptions& options, const TlsContext& context);
  // The connection alone, without TLS; only connect_to and interrupt of the options matter.
  Result<void> open_plain(const TlsOptions& options);
  // At least one byte, else 0: then the reason is one of ended(), timed_out() or error() alone. After a
  // timeout reading may go on.
  std::size_t read(char* into, std::size_t size);
  bool write(std::string_view bytes);
  // Says that nothing more will be written; what the peer still has to say, and its end, can be read.
  void end_writing();
  void hang_up();

  // About the last operation, when it did not succeed.
  bool ended() const;
  bool timed_out() const;
  Error error() const;

  // Bytes that the other machine's kernel has not acknowledged; 0 says nothing about the program there.
  std::size_t unacknowledged() const;

  // "127.0.0.1:41234"; empty before there was a connection.
  const std::string& local() const;
  const std::string& remote() const;
  // What the server showed of itself, PEM, leaf first, verified or not; empty before a handshake.
  std::string peer_certificates() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Whether the first certificate of `cert_pem` parses and belongs to the key. The error is Go's
// (tls.X509KeyPair): "tls: private key does not match public key", ...
Result<void> check_key_pair(std::string_view cert_pem, const Secret& key_pem);

// What a certificate says of itself, safe to print.
struct CertificateFacts {
  std::string subject, issuer;  // RFC 2253
  std::string common_name;
  Time not_before, not_after;
  std::vector<std::string> names;  // DNS names, then IP addresses
};
// Every certificate of a PEM text, in order; empty when there is none that parses.
std::vector<CertificateFacts> read_certificates(std::string_view pem);

// What a client with this trust would say about a chain (PEM, leaf first) for this host, now, without a connection:
// the server notices nothing. The errors are TlsLink's.
Result<void> verify_chain(std::string_view chain_pem, const TlsOptions& trust, const std::string& host);
// Whether the first certificate carries this DNS name or IP address.
bool certificate_names(std::string_view pem, const std::string& host);
// Whether a certificate of the bundle signed the first certificate of `pem`.
bool is_signed_by(std::string_view pem, std::string_view bundle_pem);

// The small change of libcrypto that websockets need.
std::string sha1(std::string_view bytes);
std::string random_bytes(std::size_t size);

}  // namespace ledger::api
