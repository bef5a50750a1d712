// The server: who asks, and what every handler shares. One thread per connection, blocking.
//
// <dir>/control.json, read again with every request, spoils it on purpose; every key may be absent:
//   {"only": "/v1-k3s/",        for paths that begin so; else for all
//    "delay_ms": 300,           waits before it answers
//    "status": 500,             answers this with a Status body
//    "hang": true,              takes the request and never answers (until the client goes, or 10 minutes)
//    "drop": true,              takes the request and closes the connection
//    "refuse": true,            closes connections before TLS (whatever `only` says)
//    "garbage": true,           answers something that is no HTTP
//    "gone": ["web-1"]}         nodes whose Node object is gone: what G7 says to their certificates
//
// The log (one JSON object a line, written before the answer leaves):
// {"event":"request","connection":7,"method":.., "target":..,"user":..,"how":..,"node":..} ;
// {"event":"answer",..,"status":..}; {"event":"tunnel_opened"|"tunnel_closed",..}.
#pragma once

#include <openssl/ssl.h>

#include <boost/json/object.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ledger/issuer.h"
#include "ledger/openssl_handles.h"
#include "tools/k3s_like/connection.h"

namespace ledger::k3s_like {

enum class Generation { g3, g5, g7 };  // of the server: k3s v1.20.0, v1.24.0, v1.32.1

// Who asks. `refused`: credentials were shown and none of them holds.
struct Caller {
  std::string user;
  std::vector<std::string> groups;
  Headers extra;
  std::string how;  // basic, bearer, x509, front_proxy; anonymous
  bool refused = false;
  std::string why;

  bool is_in(std::string_view group) const;
};

struct ServerOptions {
  std::filesystem::path dir;
  std::string listen = "127.0.0.1";
  unsigned short port = 0;
  std::string advertise;  // host:port in `apiservers` and the endpoints; empty: where it listens
  Generation generation = Generation::g7;
  std::chrono::milliseconds delay{0};
  std::string log;  // file; empty: none
};

class Server {
 public:
  static Result<std::unique_ptr<Server>> open(const ServerOptions& options);

  // Listens, says "ready PORT" on standard output, and serves until SIGTERM or SIGINT.
  Result<void> run();

  const ServerOptions& options() const { return options_; }
  Generation generation() const { return options_.generation; }
  const Issuer& issuer() const { return issuer_; }
  std::string advertised() const;

  // As k3s' own authenticators on its own paths see the caller: Basic, then a certificate of the client CA.
  Caller supervisor_caller(const Request& request, const std::string& certificate) const;
  // As kube-apiserver: front proxy, certificate, Bearer (<dir>/cred/bearer: token,user,uid,"group,group"), Basic.
  Caller kube_caller(const Request& request, const std::string& certificate) const;

  boost::json::object control() const;
  void log(const boost::json::object& event);

  // The node passwords, cred/node-passwd, in clear text as k3s had them until v1.20.
  enum class Verdict { stored, verified, mismatch, failed };
  Verdict ensure_node_password(const std::string& node, const std::string& password);
  std::vector<std::string> nodes();
  bool forget_node(const std::string& node);

 private:
  struct User {
    std::string password, name;
    std::vector<std::string> groups;
  };
  explicit Server(Issuer issuer) : issuer_(std::move(issuer)) {}
  Result<void> read_users();
  Result<void> make_tls();
  void serve(int fd, std::uint64_t number);
  bool serve_one(Connection& connection, std::uint64_t number);
  bool front_proxy_verifies(const std::string& certificate) const;
  Caller by_basic(const Request& request) const;
  Caller by_certificate(const std::string& certificate) const;
  std::vector<std::pair<std::string, std::string>> read_node_passwords() const;
  bool write_node_passwords(const std::vector<std::pair<std::string, std::string>>& entries) const;

  ServerOptions options_;
  Issuer issuer_;
  std::vector<User> users_, bearers_;
  std::unique_ptr<SSL_CTX, FreeWith<SSL_CTX_free>> tls_;
  std::unique_ptr<X509_STORE, FreeWith<X509_STORE_free>> front_proxy_ca_;
  std::mutex passwords_mutex_;  // guards cred/node-passwd
  std::mutex log_mutex_;        // guards log_
  std::FILE* log_ = nullptr;
};

// Where a request came in, for the handlers.
struct Visit {
  Server& server;
  Exchange& exchange;
  const std::string& certificate;  // DER of the client's; empty: none
  std::uint64_t connection = 0;
};

// True: it was theirs, and has been answered.
bool serve_supervisor(Visit& visit);
void serve_kube(Visit& visit);

// Answers 101; null: it was no websocket, and has been answered.
Connection* accept_websocket(Visit& visit);
// Answers pings, sends data back where `echo`; why it ended.
std::string serve_frames(Connection& connection, bool echo);

// A Kubernetes Status, with its line end.
std::string status_body(int code, std::string_view reason, std::string_view message);
Headers json_headers();

}  // namespace ledger::k3s_like
