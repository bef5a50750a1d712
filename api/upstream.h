// The k3s servers behind this one: which of them answer, and how a request gets to one of them, as whom.
//
// As whom (docs/decisions/0008-upstream-identity.md). What a caller shows in headers (Basic, Bearer) goes along. What
// he proved with a client certificate cannot: TLS ends here. So the connection to the upstream proves it anew:
//   to a kube-apiserver   with the request-header client certificate (client-auth-proxy) and X-Remote-User/-Group
//   to the supervisor     which does not know those headers (k3s pkg/authenticator: basic and x509 only), with a
//                         short-lived certificate of the caller's own subject, signed by the adopted client CA
//   anonymous             without any: a front-proxy certificate without X-Remote-User is no anonymous caller
// X-Remote-* from outside never goes along, in whatever spelling.
//
// Which: the first that answers, in the order given; the others are reserves. Each is asked for /ping every few
// seconds; one that does not answer, or cannot be connected to, is passed over until it does, and for 2 s at least: longer
// (up to 5 min) where it comes and goes. Where none answers the first is tried all the same.
//
// Hides Beast, connections kept between requests, TLS towards the upstream (its certificate must be signed by the
// server CA and carry the URL's host). Threads: every call from any thread, none blocks.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/http.h"
#include "ledger/issuer.h"

namespace boost::asio {
class io_context;
}

namespace ledger::api {

// Whose paths they are: those of k3s' supervisor, or of the kube-apiserver (with RKE2 behind another port).
enum class Plane { supervisor, kubernetes };

// As whom a request goes to an upstream.
struct UpstreamIdentity {
  enum class Kind { anonymous, certificate, front_proxy };
  Kind kind = Kind::anonymous;
  std::string user;                 // the certificate's CN; empty: anonymous
  std::vector<std::string> groups;  // its O
};

// What an upstream answered to a request that was read whole.
struct UpstreamAnswer {
  std::string upstream;  // "10.0.0.1:6443"
  std::string raw;       // the message as it came, head and body
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;         // without its transfer coding
  bool keep_alive = false;  // as the upstream says
  std::chrono::milliseconds took{0};
};

// One that came or went.
struct UpstreamChange {
  std::string upstream;
  bool answers = false;
  std::string cause;                // why not; empty where it answers
  std::chrono::seconds lasted{0};   // how long it had been the other way; 0 at the start
};

struct UpstreamStatus {
  std::string url;
  bool answers = false;
  std::string cause;
  Time since;
};

// A request that the listener passes on as it comes, without holding its body or that of the answer.
struct Passage {
  struct Head {
    std::string upstream;
    int status = 0;
    std::chrono::milliseconds took{0};
  };
  // What to do with the answer: nullopt: it is passed on; else this is said instead.
  using GoOn = std::function<void(std::optional<Response>)>;

  Plane plane = Plane::kubernetes;
  UpstreamIdentity as;
  bool drop_on_failure = false;  // no answer from the upstream: reset the connection; else 502, 503 or 504
  // Called once, when the head of the answer is there (not for 1xx but 101) or there will be none (status 0). Not set:
  // pass it on. `go_on` is to be called exactly once, from any thread.
  std::function<void(const Head& head, GoOn go_on)> on_answer;
  // Called once, after a 101 that was passed on: why the connection ended.
  std::function<void(std::string_view cause)> on_end;
};

class Upstreams {
 public:
  struct Options {
    std::vector<std::string> urls;      // https://HOST:PORT of supervisors
    std::uint16_t kubernetes_port = 0;  // of their kube-apiservers, where that is another one (RKE2)
    std::chrono::milliseconds connect{5'000};  // TCP and TLS
    std::chrono::milliseconds answer{60'000};  // until the head of the answer is there
    std::chrono::milliseconds check_every{3'000};
    std::size_t answer_bytes = 16 << 20;       // of what exchange() reads
    std::function<void(const UpstreamChange&)> on_change;
    // The names and addresses in an upstream's certificate, when it shows another one than before.
    std::function<void(const std::vector<std::string>& names)> on_names;
  };
  // Errc::invalid: a URL that is none, or what the identities need is not in the data directory.
  static Result<std::unique_ptr<Upstreams>> open(boost::asio::io_context& io, Options options, const Issuer& issuer);
  ~Upstreams();

  // Begins to ask whether they answer.
  void start();
  // Lets go of every connection; what waits ends with Errc::unavailable.
  void stop();

  // Sends a request that was read whole, headers in their order, and reads the whole answer. An error's code says
  // what the client of an enforcing server is to hear: unavailable 503 (none answers), io 502 (it broke off, or
  // answered what is no HTTP), overloaded 504 (no answer in time).
  using Take = std::function<void(Result<UpstreamAnswer>)>;
  void exchange(std::shared_ptr<const Request> request, UpstreamIdentity as, Take take);

  std::vector<UpstreamStatus> status() const;
  bool any_answers() const;

  struct State;  // upstream.cpp's own
  const std::shared_ptr<State>& state() const { return state_; }  // for the listener

 private:
  explicit Upstreams(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// Whether a header name from outside could be read as one of a front proxy: x-remote-user, -group, -uid, -extra-*, with
// '_' or '-' between the words, in any case.
bool is_front_proxy_header(std::string_view name);

// The head of a request as it goes to an upstream: `head` without what is between it and us alone (Connection and what
// it names, Transfer-Encoding, Content-Length, X-Remote-*), and with who asks. `framing`: lines that say how long the body
// is and what becomes of the connection.
std::string upstream_head(const Request& head, const UpstreamIdentity& as, const std::string& framing,
                          bool add_forwarded_for);

}  // namespace ledger::api
