// A small synchronous HTTPS client, for the commands that talk to a server, for the played agent (agent.h) and
// for load drivers. By default one fresh connection per request with `Connection: close`, as k3s agents do.
//
// Hides HTTP's syntax and Beast; errors are those of tls_link.h, and "malformed HTTP response: ...".
// Threads: one object, one thread at a time; different objects are independent.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/tls_link.h"

namespace ledger::api {

struct HttpsOptions : TlsOptions {
  std::chrono::milliseconds timeout{10'000};  // of a whole request; 0: none
  std::size_t body_limit = 16 << 20;
  // Keeps the connection between requests. For load tests; agents never do.
  bool keep_alive = false;
};

struct HttpsRequest {
  std::string method = "GET";
  std::string target{};
  std::vector<std::pair<std::string, std::string>> headers{};
  Secret authorization{};  // value of the Authorization header; empty: none
  std::string body{};
};

struct HttpsResponse {
  int status = 0;  // 0: there was none
  std::string reason;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;

  // Value of the first header of that name, in any spelling; empty when there is none.
  std::string_view header(std::string_view name) const;
  // "403 Forbidden", as Go prints a status.
  std::string status_line() const { return std::to_string(status) + " " + reason; }
};

class HttpsClient {
 public:
  // Fails when the PEM texts do not hold what they should.
  static Result<HttpsClient> open(HttpsOptions options);
  HttpsClient(HttpsClient&&) noexcept;
  HttpsClient& operator=(HttpsClient&&) noexcept;
  ~HttpsClient();

  // Any status is a response; only what keeps one from arriving is an error.
  Result<HttpsResponse> send(const HttpsRequest& request);

  // For an answer without an end (a Kubernetes watch): the body of a 200 goes to `on_body` as it arrives, in pieces
  // of any size, and is not kept; every other answer is read whole, as send() does. While nothing arrives `on_body`
  // is called with an empty piece about every 200 ms. Ends when the server ends the body, when `on_body` returns
  // false (then that is no error either), or after `silence` without a byte. The timeout holds until the headers
  // are there. Always on a connection of its own.
  using OnBody = std::function<bool(std::string_view piece)>;
  Result<HttpsResponse> stream(const HttpsRequest& request, std::chrono::milliseconds silence, const OnBody& on_body);

  // Our own "address:port" in the last connection that came about; empty before.
  const std::string& local_address() const;

 private:
  struct State;
  explicit HttpsClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// One request and its response on an open link: what HttpsClient and WebsocketClient share. Bytes that came
// after the response stay in `in`; `*reusable` says whether the connection may carry another request.
Result<HttpsResponse> exchange(TlsLink& link, const HttpsOptions& options, const HttpsRequest& request,
                               std::string& in, bool* reusable);

}  // namespace ledger::api
