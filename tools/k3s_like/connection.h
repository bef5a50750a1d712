// One TLS connection of a client, and HTTP/1.1 on it as Go's net/http reads and writes it: k3s is written in Go,
// and what a server in front of it lets through matters as Go understands it. So where Go is lenient (line ends
// without CR, folded lines, Content-Length beside chunked, white space in chunk sizes), this is; where Go refuses,
// this refuses with its status.
//
// Blocking; one thread per connection. A connection that fails once fails from then on: callers may look at the end
// only.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ledger::k3s_like {

using Headers = std::vector<std::pair<std::string, std::string>>;

class Connection {
 public:
  // Takes the socket over.
  Connection(int fd, SSL_CTX* context);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  bool handshake();
  std::string peer_certificate() const;  // DER; empty: none shown

  // What is there, at least one byte; empty at the end (`ended_in_order()`: with close_notify) or after a failure.
  std::string_view read_some();
  bool ended_in_order() const { return ended_in_order_; }
  // What was read and not used is read again.
  void unread(std::string_view bytes) { left_over_.insert(0, bytes); }
  bool write(std::string_view bytes);
  // Says close_notify; reading goes on.
  void end_writing();
  bool failed() const { return failed_; }

  // One line without its end (LF or CR LF); nullopt: end, failure, or longer than `most`.
  std::optional<std::string> read_line(std::size_t most);
  // At most `most` bytes, at least one; empty at the end.
  std::string read_at_most(std::uint64_t most);

 private:
  int fd_;
  SSL* ssl_;
  bool ended_in_order_ = false, failed_ = false;
  std::string left_over_;
  std::string_view current_;
  std::vector<char> buffer_;
};

struct Request {
  std::string method, target, path, query;
  int minor = 1;    // HTTP/1.<minor>
  Headers headers;  // as received: spelling, order, duplicates; only folded lines are joined
  bool chunked = false;
  std::uint64_t length = 0;
  bool keep_alive = true;
  bool expects_continue = false;

  // The first value; empty: none.
  std::string header(std::string_view name) const;
  std::vector<std::string> all(std::string_view name) const;
  // Of the query, decoded; `otherwise` where it is not there.
  std::string parameter(std::string_view name, std::string_view otherwise = "") const;
  std::uint64_t number(std::string_view name, std::uint64_t otherwise) const;
};

// One request and its answer.
class Exchange {
 public:
  explicit Exchange(Connection& connection) : connection_(connection) {}

  // False: there is none (the connection ended), or it was no HTTP and has been answered; the connection is done.
  bool read_head();
  const Request& request() const { return request_; }

  // The body in pieces, with 100 Continue before it where that is awaited. False: it broke off or was no valid
  // body.
  bool read_body(const std::function<void(std::string_view)>& take);
  const Headers& trailers() const { return trailers_; }

  // The whole answer. Content-Length and Date are added; no body goes with 204, 304 or to HEAD.
  void answer(int status, const Headers& headers, std::string_view body);
  // An answer in pieces: of a known length, or chunked (to HTTP/1.0: until the end of the connection).
  void begin(int status, const Headers& headers, std::optional<std::uint64_t> length = {});
  bool piece(std::string_view bytes);
  void end(const Headers& trailers = {});
  // 103, before the answer.
  void hint(const Headers& headers);
  // 101; the connection is the caller's from here on.
  Connection& switch_protocols(const Headers& headers);
  Connection& raw() {
    keep_alive_ = false;
    return connection_;
  }

  // After the answer: takes what is left of the body. True: another request may come.
  bool finish();
  int status() const { return status_; }

 private:
  bool refuse(int status, std::string_view why);
  bool read_headers(Headers* headers, std::string* why);
  bool judge_framing();
  bool read_chunks(const std::function<void(std::string_view)>& take);
  std::string head_of(int status, const Headers& headers);

  Connection& connection_;
  Request request_;
  Headers trailers_;
  bool body_read_ = false, keep_alive_ = true, piecewise_chunked_ = false, head_only_ = false;
  int status_ = 0;
};

bool same_name(std::string_view a, std::string_view b);
// Whether a comma list (Connection, Upgrade) has the word.
bool has_word(const std::vector<std::string>& values, std::string_view word);
std::string_view text_of_status(int status);

}  // namespace ledger::k3s_like
