#include "api/listener.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <boost/asio.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/beast/websocket.hpp>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <deque>
#include <mutex>
#include <optional>
#include <unordered_set>
#include <vector>

#include "api/forward.h"
#include "api/problem.h"
#include "api/tls_stream.h"
#include "ledger/credentials.h"

namespace ledger::api {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace ssl = asio::ssl;
namespace websocket = beast::websocket;
using asio::ip::tcp;
using error_code = boost::system::error_code;

namespace {

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::seconds kLinger{2};  // for a peer to take our last words
constexpr std::size_t kReadAhead = 4096;
constexpr std::chrono::milliseconds kSettle{100};
constexpr std::chrono::seconds kTellEvery{60};
constexpr std::size_t kRoomShare = 64;  // of the connections, one in so many is closed at once
constexpr std::chrono::milliseconds kAskAgain{250};  // for a stream's next piece, when there was none

using std::chrono::steady_clock;

std::string text_of(const tcp::endpoint& endpoint) {
  asio::ip::address address = endpoint.address();
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    address = asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
  const std::string host = address.to_string();
  const std::string port = ":" + std::to_string(endpoint.port());
  return address.is_v6() ? "[" + host + "]" + port : host + port;
}

// "bad_certificate" for an alert of the peer, else OpenSSL's reason, else the system's.
std::string alert_name(const error_code& error) {
  std::string name;
  if (error.category() == asio::error::get_ssl_category()) {
    const int reason = ERR_GET_REASON(static_cast<unsigned long>(error.value()));
    const char* text = reason >= SSL_AD_REASON_OFFSET ? SSL_alert_desc_string_long(reason - SSL_AD_REASON_OFFSET)
                                                      : ERR_reason_error_string(static_cast<unsigned long>(error.value()));
    name = text != nullptr ? text : "unknown";
  } else if (error == beast::error::timeout) {
    name = "timed out";
  } else if (error == ssl::error::stream_truncated || error == asio::error::eof ||
             error == asio::error::connection_reset) {
    name = "connection closed by the peer";
  } else {
    name = error.message();
  }
  name = to_lower(printable(name, 80));
  for (char& c : name)
    if (c == ' ') c = '_';
  return name;
}

std::string der_of(X509* certificate) {
  if (certificate == nullptr) return "";
  const int size = i2d_X509(certificate, nullptr);
  if (size <= 0) return "";
  std::string der(static_cast<std::size_t>(size), '\0');
  auto* out = reinterpret_cast<unsigned char*>(der.data());
  i2d_X509(certificate, &out);
  return der;
}

std::string http_date() {
  thread_local std::time_t made_at = 0;
  thread_local std::string text;
  const std::time_t now = std::time(nullptr);
  if (now != made_at) {
    std::tm utc{};
    gmtime_r(&now, &utc);
    char buffer[40];
    text.assign(buffer, std::strftime(buffer, sizeof buffer, "%a, %d %b %Y %H:%M:%S GMT", &utc));
    made_at = now;
  }
  return text;
}

using HttpRequest = http::request<http::string_body>;
using HttpResponse = http::response<http::string_body>;

// What websocket::stream::async_accept will take; it answers the rest itself, past the service.
bool is_websocket(const http::request_header<>& request) {
  return websocket::is_upgrade(request) && request.count(http::field::host) > 0 &&
         request[http::field::sec_websocket_key].size() == 24 && request[http::field::sec_websocket_version] == "13";
}

// A transfer coding that we do not speak leaves the end of the body to guesswork, and what follows could pass for
// a request of its own. Beast reads such a message as one without a body.
bool has_unknown_length(const http::request_header<>& request) {
  const auto codings = request.count(http::field::transfer_encoding);
  return codings > 1 || (codings == 1 && !beast::iequals(request[http::field::transfer_encoding], "chunked"));
}

// What Go's servers refuse too, and another parser could read otherwise.
bool may_be_passed_on(const http::request_header<>& request) {
  return request.target().starts_with('/') && request.count(http::field::host) == 1 &&
         request.method() != http::verb::connect;
}

// Without its body.
std::shared_ptr<Request> to_request(const http::request_header<>& in, const Peer& peer, const std::string& certificate) {
  auto request = std::make_shared<Request>();
  request->websocket = is_websocket(in);
  request->id = random_hex(8);
  request->version = in.version();
  request->method = std::string(in.method_string());
  const std::string_view target(in.target().data(), in.target().size());
  const auto question = target.find('?');
  request->path = target.substr(0, question);
  if (question != std::string_view::npos) request->query = target.substr(question + 1);
  for (const auto& field : in)
    request->headers.emplace_back(to_lower({field.name_string().data(), field.name_string().size()}),
                                  std::string(field.value().data(), field.value().size()));
  request->source = peer.source;
  request->via = peer.via;
  request->certificate = certificate;
  return request;
}

HttpResponse to_http(Response&& response, unsigned version, bool keep_alive) {
  HttpResponse out{static_cast<http::status>(response.status), version};
  out.set(http::field::server, "ledger");
  out.set(http::field::date, http_date());
  out.set(http::field::content_type, response.content_type);
  for (const auto& [name, value] : response.headers) out.set(name, value);
  out.keep_alive(keep_alive);
  out.body() = std::move(response.body);
  out.prepare_payload();
  return out;
}

// Of an answer whose body comes in chunks.
http::response<http::empty_body> stream_head(const Response& response) {
  http::response<http::empty_body> head{http::status::ok, 11};
  head.set(http::field::server, "ledger");
  head.set(http::field::date, http_date());
  head.set(http::field::content_type, response.content_type);
  for (const auto& [name, value] : response.headers) head.set(name, value);
  head.chunked(true);
  head.keep_alive(false);
  return head;
}

}  // namespace

// ---- shared state ----------------------------------------------------------------------------------------

namespace {
class Connection;
}  // namespace

struct Listener::State : std::enable_shared_from_this<Listener::State> {
  State(asio::io_context& context, Limits limits_in, Callbacks callbacks_in, TrustedProxies proxies_in)
      : io(context),
        limits(limits_in),
        callbacks(std::move(callbacks_in)),
        proxies(std::move(proxies_in)),
        acceptor(asio::make_strand(context)) {}

  asio::io_context& io;
  const Limits limits;
  const Callbacks callbacks;
  const TrustedProxies proxies;
  tcp::acceptor acceptor;
  std::atomic<bool> stopping{false};
  std::atomic<std::size_t> open_connections{0};

  // Guarded by mutex.
  std::mutex mutex;
  std::shared_ptr<ssl::context> tls;
  std::unordered_set<Connection*> connections;

  std::shared_ptr<ssl::context> current_tls() {
    const std::lock_guard lock(mutex);
    return tls;
  }
  asio::awaitable<void> accept_loop();
  void make_room();
  // On standard error, at most once a minute: a flood must not fill the journal.
  void tell(const std::string& line) {
    const auto now = steady_clock::now();
    if (told && now - *told < kTellEvery) return;
    told = now;
    spdlog::warn("{}", line);
  }
  std::optional<steady_clock::time_point> told;  // of the accept loop
};

namespace {

using HeadParser = http::request_parser<http::empty_body>;
using Websocket = websocket::stream<TlsStream, false>;  // agents never ask for permessage-deflate

// ---- what a tunnel's session says ------------------------------------------------------------------------

// Writes queued messages one after the other; Beast takes care that a ping or a close does not fall between the
// bytes of one. send() from any thread, the rest on the connection's strand. The websocket must not go before
// idle() is true.
class TunnelWriter : public std::enable_shared_from_this<TunnelWriter> {
 public:
  TunnelWriter(Websocket& websocket, TlsStream::executor_type executor) : websocket_(&websocket), executor_(executor) {}

  bool send(std::string message) {
    const std::size_t size = message.size();
    if (closed_) return false;
    if (waiting_.fetch_add(size) + size > kMaxWaiting) {
      waiting_ -= size;
      return false;
    }
    asio::post(executor_, [self = shared_from_this(), text = std::move(message)]() mutable {
      self->queue_.push_back(std::move(text));
      if (self->queue_.size() == 1) self->write_next();
    });
    return true;
  }
  void close() {
    closed_ = true;
    websocket_ = nullptr;
  }
  bool idle() const { return !writing_; }

 private:
  static constexpr std::size_t kMaxWaiting = 256 << 10;

  void write_next() {
    if (queue_.empty() || websocket_ == nullptr) return;
    writing_ = true;
    websocket_->async_write(asio::buffer(queue_.front()), [self = shared_from_this()](error_code error, std::size_t) {
      self->writing_ = false;
      self->waiting_ -= self->queue_.front().size();
      self->queue_.pop_front();
      if (error) return self->close();  // the reading side sees it too, and ends the tunnel
      self->write_next();
    });
  }

  Websocket* websocket_;  // nullptr: closed
  const TlsStream::executor_type executor_;
  std::atomic<bool> closed_{false};
  std::atomic<std::size_t> waiting_{0};  // bytes
  std::deque<std::string> queue_;        // the front is being written
  bool writing_ = false;
};

// ---- one connection --------------------------------------------------------------------------------------

// Lives on its strand from accept to close; the coroutine run() holds it alive.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Listener::State> server, tcp::socket socket, std::shared_ptr<ssl::context> tls)
      : server_(std::move(server)),
        tls_(std::move(tls)),
        stream_(std::move(socket), *tls_),
        executor_(stream_.get_executor()),
        buffer_(server_->limits.header_bytes + kReadAhead) {
    ++server_->open_connections;
    const std::lock_guard lock(server_->mutex);
    server_->connections.insert(this);
  }
  ~Connection() {
    {
      const std::lock_guard lock(server_->mutex);
      server_->connections.erase(this);
    }
    --server_->open_connections;
  }

  void start() {
    asio::co_spawn(executor_, run(shared_from_this()), asio::detached);
  }

  // From any thread, under the server's mutex: the connection is alive while it is in the set.
  void stop() {
    asio::post(executor_, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->stop_now();
    });
  }
  // Likewise. Since when the peer has let us wait: for its handshake, its request, or to take our reply.
  steady_clock::time_point waits_since() const { return waits_since_; }
  // Likewise. Closes, if it is still the peer whom we wait for.
  void give_up(steady_clock::time_point since) {
    asio::post(executor_, [weak = weak_from_this(), since] {
      const auto self = weak.lock();
      if (self == nullptr || self->waits_since() != since) return;
      self->given_up_ = true;
      self->socket().cancel();
    });
  }

 private:
  enum class Phase { handshake, idle, busy, tunnel };

  asio::awaitable<void> run(std::shared_ptr<Connection> self);
  asio::awaitable<bool> read_proxy_header();
  asio::awaitable<bool> serve_one();
  asio::awaitable<Response> ask(std::shared_ptr<const Request> request);
  asio::awaitable<void> refuse(error_code error);
  asio::awaitable<void> serve_stream(Response response);
  asio::awaitable<void> serve_source(Response response);
  asio::awaitable<BodySource::Piece> piece_of(std::shared_ptr<BodySource> source);
  void watch_for_leaving(std::shared_ptr<asio::steady_timer> pause, std::shared_ptr<bool> left);
  asio::awaitable<void> serve_tunnel(Response response, HttpRequest upgrade);
  asio::awaitable<bool> pass_on(HeadParser& head_parser, std::shared_ptr<const Request> request,
                                std::shared_ptr<Passage> passage);
  asio::awaitable<void> say_goodbye();
  void drop();

  void stop_now() {
    if (stop_passing_) return stop_passing_();
    if (phase_ == Phase::tunnel && websocket_ != nullptr) {
      // The read in serve_tunnel ends when the agent's close arrives, or a handshake's time is over.
      if (std::exchange(tunnel_stopped_, true)) return;
      websocket_->async_close(websocket::close_code::going_away, [self = shared_from_this()](error_code) {});
    } else if (phase_ == Phase::idle || phase_ == Phase::handshake) {
      beast::get_lowest_layer(stream_).cancel();
    }
  }
  beast::tcp_stream& socket() { return beast::get_lowest_layer(stream_); }

  const std::shared_ptr<Listener::State> server_;
  const std::shared_ptr<ssl::context> tls_;  // outlives the stream made from it
  TlsStream stream_;  // moved into the websocket of a tunnel
  const TlsStream::executor_type executor_;
  // What is read and not yet parsed. Beast's own limits leave out chunk extensions and trailers.
  beast::flat_buffer buffer_;
  Peer peer_;
  std::string certificate_;
  std::string early_;  // read in search of a PROXY header, and not part of one: the handshake's first bytes
  Phase phase_ = Phase::handshake;
  std::atomic<steady_clock::time_point> waits_since_{steady_clock::now()};  // max(): it does not
  bool given_up_ = false;
  Websocket* websocket_ = nullptr;  // while in serve_tunnel
  std::function<void()> stop_passing_;  // while in pass_on
  bool tunnel_stopped_ = false;
};

asio::awaitable<void> Connection::run([[maybe_unused]] std::shared_ptr<Connection> self) {
  if (server_->stopping) co_return;  // accepted while stop() went through the others
  error_code error;
  const tcp::endpoint peer = socket().socket().remote_endpoint(error);
  if (error) co_return;
  peer_.source = text_of(peer);
  socket().socket().set_option(tcp::no_delay(true), error);
  socket().expires_after(server_->limits.handshake);
  if (server_->proxies.trusts(host_of(peer_.source))) {
    const bool go_on = co_await read_proxy_header();
    if (!go_on) co_return;
  }
  const auto early = asio::buffer(early_);
  std::size_t used = 0;
  std::tie(error, used) = co_await stream_.async_handshake(ssl::stream_base::server, early, kAwait);
  if (error) {
    // A peer that never sent a byte checked the port, not us.
    const bool said_something = BIO_number_read(SSL_get_rbio(stream_.native_handle())) > 0;
    if (said_something && !server_->stopping)
      server_->callbacks.on_tls_failed(peer_, given_up_ ? "closed_to_make_room" : alert_name(error));
    co_return;
  }
  X509* certificate = SSL_get1_peer_certificate(stream_.native_handle());
  certificate_ = der_of(certificate);
  X509_free(certificate);
  bool more = true;
  socket().expires_after(server_->limits.request);
  while (more) {
    more = co_await serve_one();
    if (more) socket().expires_after(server_->limits.idle);  // else the stream may have become a tunnel's
  }
}

// A trusted peer's first bytes: a PROXY header, or already its handshake. False: neither will come.
asio::awaitable<bool> Connection::read_proxy_header() {
  char bytes[kMaxProxyHeader];
  std::size_t size = 0;
  ProxyHeader header;
  error_code error;
  while (!error && header.kind == ProxyHeader::Kind::incomplete) {
    const auto into = asio::buffer(bytes + size, sizeof bytes - size);
    std::size_t got = 0;
    std::tie(error, got) = co_await socket().async_read_some(into, kAwait);
    size += got;
    header = parse_proxy_header({bytes, size});
  }
  if (error || header.kind == ProxyHeader::Kind::malformed) {
    const char* problem = error == beast::error::timeout ? "it was not complete in time"
                          : error                        ? "the connection ended within it"
                                                         : header.problem;
    // As with handshakes: who never sent a byte checked the port.
    if (size > 0 && !server_->stopping)
      server_->callbacks.on_tls_failed(peer_, std::string("malformed PROXY header: ") + problem);
    co_return false;
  }
  if (!header.source.empty()) {
    peer_.via = std::move(peer_.source);
    peer_.source = std::move(header.source);
  }
  early_.assign(bytes + header.size, size - header.size);
  co_return true;
}

// One request and its reply. True: the connection may carry another.
asio::awaitable<bool> Connection::serve_one() {
  phase_ = Phase::idle;
  waits_since_ = steady_clock::now();
  if (server_->stopping || given_up_) co_return false;
  error_code error;
  std::size_t bytes = 0;
  // The first byte may take its time; from then on the whole request has one deadline.
  if (buffer_.size() == 0) {
    const auto space = buffer_.prepare(4096);
    std::tie(error, bytes) = co_await stream_.async_read_some(space, kAwait);
    if (error) co_return false;
    buffer_.commit(bytes);
  }
  socket().expires_after(server_->limits.request);
  HeadParser head_parser;
  head_parser.header_limit(static_cast<std::uint32_t>(server_->limits.header_bytes));
  head_parser.body_limit(boost::none);
  std::tie(error, bytes) = co_await http::async_read_header(stream_, buffer_, head_parser, kAwait);
  if (!error && has_unknown_length(head_parser.get())) error = http::error::bad_transfer_encoding;
  std::shared_ptr<Request> request;
  if (!error) {
    request = to_request(head_parser.get(), peer_, certificate_);
    std::shared_ptr<Passage> passage;
    if (server_->callbacks.on_head) passage = server_->callbacks.on_head(request);
    if (passage != nullptr && may_be_passed_on(head_parser.get())) {
      const bool more = co_await pass_on(head_parser, std::move(request), std::move(passage));
      co_return more;
    }
    if (passage != nullptr) error = http::error::bad_target;
    if (head_parser.content_length().value_or(0) > server_->limits.body_bytes) error = http::error::body_limit;
  }
  http::request_parser<http::string_body> parser(std::move(head_parser));
  parser.body_limit(server_->limits.body_bytes);
  if (!error && !parser.is_done()) std::tie(error, bytes) = co_await http::async_read(stream_, buffer_, parser, kAwait);
  if (error) {
    co_await refuse(error);
    co_return false;
  }
  phase_ = Phase::busy;
  waits_since_ = steady_clock::time_point::max();
  HttpRequest message = parser.release();
  const unsigned version = message.version();
  const bool head = message.method() == http::verb::head;
  bool keep_alive = message.keep_alive();
  HttpRequest upgrade;
  if (is_websocket(message)) upgrade = message;
  request->body = std::move(message.body());
  socket().expires_never();  // the ledger bounds how long it takes
  Response response = co_await ask(std::move(request));
  if (response.tunnel != nullptr) {
    co_await serve_tunnel(std::move(response), std::move(upgrade));
    co_return false;
  }
  // HTTP/1.0 knows no chunks: it gets the first event and an end.
  if (response.stream_seconds > 0 && !head && version >= 11) {
    co_await serve_stream(std::move(response));
    co_return false;
  }
  if (response.source != nullptr && !head) {
    if (version >= 11) {
      co_await serve_source(std::move(response));
      co_return false;
    }
    response = to_response(Problem{505, "this answer has no end, and so needs HTTP/1.1"});
  }
  if (response.drop) {
    drop();
    co_return false;
  }
  keep_alive = keep_alive && !server_->stopping && response.keep_alive;
  socket().expires_after(server_->limits.reply);
  waits_since_ = steady_clock::now();
  if (!response.raw.empty()) {
    const auto raw = asio::buffer(response.raw);
    std::tie(error, bytes) = co_await asio::async_write(stream_, raw, kAwait);
  } else {
    HttpResponse out = to_http(std::move(response), version, keep_alive);
    if (head) out.body().clear();  // Content-Length stays what a GET would say
    std::tie(error, bytes) = co_await http::async_write(stream_, out, kAwait);
  }
  if (error) co_return false;
  if (!keep_alive) co_await say_goodbye();
  co_return keep_alive;
}

// On to an upstream, as it comes. True: the connection may carry another request.
asio::awaitable<bool> Connection::pass_on(HeadParser& head_parser, std::shared_ptr<const Request> request,
                                          std::shared_ptr<Passage> passage) {
  phase_ = Phase::busy;
  waits_since_ = steady_clock::time_point::max();
  socket().expires_never();
  PieceParser parser(std::move(head_parser));
  const bool is_head = parser.get().method() == http::verb::head;
  const unsigned version = parser.get().version();
  auto waits = [this](bool begins) {
    waits_since_ = begins ? steady_clock::now() : steady_clock::time_point::max();
  };
  ClientSide side{stream_, buffer_, parser, waits, stop_passing_};
  const auto upstreams = server_->callbacks.upstreams->state();
  ForwardEnd end = co_await forward(upstreams, std::move(side), std::move(request), std::move(passage));
  stop_passing_ = nullptr;
  if (end.kind == ForwardEnd::Kind::drop) {
    drop();
    co_return false;
  }
  const bool keep_alive = end.kind == ForwardEnd::Kind::keep && !server_->stopping && parser.get().keep_alive();
  if (end.instead) {
    HttpResponse out = to_http(std::move(*end.instead), version, keep_alive);
    if (is_head) out.body().clear();
    socket().expires_after(server_->limits.reply);
    error_code error;
    std::size_t bytes = 0;
    std::tie(error, bytes) = co_await http::async_write(stream_, out, kAwait);
    if (error) co_return false;
  }
  if (!keep_alive) co_await say_goodbye();
  co_return keep_alive;
}

// The peer hears of nothing but the end of the connection.
void Connection::drop() {
  error_code ignored;
  socket().socket().set_option(asio::socket_base::linger(true, 0), ignored);
  socket().socket().close(ignored);
}

// The handler's reply, awaited; it may come from another thread.
asio::awaitable<Response> Connection::ask(std::shared_ptr<const Request> request) {
  const auto executor = co_await asio::this_coro::executor;
  auto initiate = [this, executor](auto handler, std::shared_ptr<const Request> asked) {
    auto waiting = std::make_shared<decltype(handler)>(std::move(handler));
    server_->callbacks.on_request(std::move(asked), [waiting, executor](Response response) {
      auto answer = std::make_shared<Response>(std::move(response));
      asio::post(executor, [waiting, answer] { std::move (*waiting)(std::move(*answer)); });
    });
  };
  auto token = asio::use_awaitable;
  Response response =
      co_await asio::async_initiate<decltype(token), void(Response)>(initiate, token, std::move(request));
  co_return response;
}

// A request that cannot be read: says why, then lets the peer finish talking so that it hears the answer.
asio::awaitable<void> Connection::refuse(error_code error) {
  int status = 400;
  if (error == http::error::header_limit || error == http::error::buffer_overflow) status = 431;
  if (error == http::error::body_limit) status = 413;
  const bool gone = error == http::error::end_of_stream || error == asio::error::eof ||
                    error == asio::error::connection_reset || error == asio::error::operation_aborted ||
                    error == ssl::error::stream_truncated;
  if (gone || server_->stopping) co_return;
  const std::string id = random_hex(8);
  if (error == beast::error::timeout) {
    server_->callbacks.on_bad_request(peer_, 408, id);
    co_return;
  }
  server_->callbacks.on_bad_request(peer_, status, id);
  Response response = to_response(Problem{status, "the request cannot be read: " + error.message()});
  response.headers.emplace_back("Ledger-Request-Id", id);
  HttpResponse out = to_http(std::move(response), 11, false);
  socket().expires_after(kLinger);
  std::size_t bytes = 0;
  std::tie(error, bytes) = co_await http::async_write(stream_, out, kAwait);
  if (error) co_return;
  socket().socket().shutdown(tcp::socket::shutdown_send, error);
  char sink[4096];
  const auto into = asio::buffer(sink);
  for (int chunks = 0; !error && chunks < 256; ++chunks)
    std::tie(error, bytes) = co_await socket().async_read_some(into, kAwait);
}

// close_notify, and a moment for the peer's. Errors do not matter any more.
asio::awaitable<void> Connection::say_goodbye() {
  socket().expires_after(kLinger);
  error_code error;
  std::tie(error) = co_await stream_.async_shutdown(kAwait);
}

// A Kubernetes watch: one event, then silence until the time is over, the peer leaves or the server stops.
asio::awaitable<void> Connection::serve_stream(Response response) {
  http::response<http::empty_body> head = stream_head(response);
  http::response_serializer<http::empty_body> serializer{head};
  socket().expires_after(server_->limits.reply);
  error_code error;
  std::size_t bytes = 0;
  std::tie(error, bytes) = co_await http::async_write_header(stream_, serializer, kAwait);
  if (error) co_return;
  const auto chunk = http::make_chunk(asio::const_buffer(response.body.data(), response.body.size()));
  std::tie(error, bytes) = co_await asio::async_write(stream_, chunk, kAwait);
  if (error) co_return;
  phase_ = Phase::idle;
  if (server_->stopping) co_return;
  // Waiting is reading: the peer has nothing to say, so what comes is its leaving, our stop or the end of the
  // time. That end is a cancelled read, not a deadline, which would close the socket before the last chunk.
  socket().expires_never();
  asio::steady_timer over(executor_, std::chrono::seconds(response.stream_seconds));
  over.async_wait([self = shared_from_this()](error_code cancelled) {
    if (!cancelled) self->socket().cancel();
  });
  char unexpected[64];
  const auto into = asio::buffer(unexpected);
  std::tie(error, bytes) = co_await stream_.async_read_some(into, kAwait);
  over.cancel();
  if (error != asio::error::operation_aborted) co_return;
  phase_ = Phase::busy;
  const auto last = http::make_chunk_last();
  socket().expires_after(server_->limits.reply);
  std::tie(error, bytes) = co_await asio::async_write(stream_, last, kAwait);
  if (!error) co_await say_goodbye();
}

// Piece by piece. The peer has nothing to say meanwhile: when its side of the socket becomes readable it has left, and
// our stop cancels the wait for that; either ends the stream.
asio::awaitable<void> Connection::serve_source(Response response) {
  http::response<http::empty_body> head = stream_head(response);
  http::response_serializer<http::empty_body> serializer{head};
  socket().expires_after(server_->limits.reply);
  error_code error;
  std::size_t bytes = 0;
  std::tie(error, bytes) = co_await http::async_write_header(stream_, serializer, kAwait);
  if (error) co_return;
  phase_ = Phase::idle;  // a stop need not wait for a peer that does not read
  const auto pause = std::make_shared<asio::steady_timer>(executor_);
  const auto left = std::make_shared<bool>(false);
  watch_for_leaving(pause, left);
  bool over = false;
  while (!error && !over && !*left && !server_->stopping) {
    const BodySource::Piece piece = co_await piece_of(response.source);
    over = piece.last;
    if (!piece.bytes.empty()) {
      const auto chunk = http::make_chunk(asio::const_buffer(piece.bytes.data(), piece.bytes.size()));
      socket().expires_after(server_->limits.reply);
      std::tie(error, bytes) = co_await asio::async_write(stream_, chunk, kAwait);
    }
    if (error || over || piece.ready || *left || server_->stopping) continue;
    error_code woken;
    pause->expires_after(kAskAgain);
    std::tie(woken) = co_await pause->async_wait(kAwait);
  }
  if (!error && (over || server_->stopping)) {
    const auto last = http::make_chunk_last();
    socket().expires_after(kLinger);
    std::tie(error, bytes) = co_await asio::async_write(stream_, last, kAwait);
    if (!error) co_await say_goodbye();
  }
  socket().cancel();  // the wait for the peer's leaving, which holds this connection
}

void Connection::watch_for_leaving(std::shared_ptr<asio::steady_timer> pause, std::shared_ptr<bool> left) {
  auto& peer = socket().socket();
  peer.async_wait(tcp::socket::wait_read, [self = shared_from_this(), pause, left](error_code error) {
    // The reactor may still tell of bytes that were read meanwhile.
    char byte;
    const int fd = self->socket().socket().native_handle();
    const bool silent = !error && ::recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
    if (silent) return self->watch_for_leaving(pause, left);
    *left = true;
    pause->cancel();
  });
}

// The next piece, awaited; it may come from another thread.
asio::awaitable<BodySource::Piece> Connection::piece_of(std::shared_ptr<BodySource> source) {
  const auto executor = co_await asio::this_coro::executor;
  auto initiate = [executor](auto handler, std::shared_ptr<BodySource> asked) {
    auto waiting = std::make_shared<decltype(handler)>(std::move(handler));
    asked->next([waiting, executor](BodySource::Piece piece) {
      auto answer = std::make_shared<BodySource::Piece>(std::move(piece));
      asio::post(executor, [waiting, answer] { std::move (*waiting)(std::move(*answer)); });
    });
  };
  auto token = asio::use_awaitable;
  BodySource::Piece piece =
      co_await asio::async_initiate<decltype(token), void(BodySource::Piece)>(initiate, token, std::move(source));
  co_return piece;
}

asio::awaitable<void> Connection::serve_tunnel(Response response, HttpRequest upgrade) {
  Websocket ws(std::move(stream_));
  phase_ = Phase::tunnel;
  beast::get_lowest_layer(ws).expires_never();
  websocket::stream_base::timeout timeouts{};
  timeouts.handshake_timeout = server_->limits.handshake;
  // Whatever arrives counts as a sign of life only with pings of our own switched on; without them Beast's timeout
  // waits for whole messages, and an agent may send nothing but pings for days. Agents answer a ping like a pong.
  timeouts.idle_timeout = server_->limits.tunnel_silence;
  timeouts.keep_alive_pings = true;
  ws.set_option(timeouts);
  bool peer_closed = false;
  auto note_close = [&peer_closed](websocket::frame_type type, beast::string_view) {
    peer_closed = peer_closed || type == websocket::frame_type::close;
  };
  ws.control_callback(note_close);
  ws.read_message_max(server_->limits.tunnel_message_bytes);
  const auto headers = response.headers;
  auto decorate = [headers](websocket::response_type& reply) {
    reply.set(http::field::server, "ledger");
    for (const auto& [name, value] : headers) reply.set(name, value);
  };
  ws.set_option(websocket::stream_base::decorator(decorate));
  error_code error;
  std::size_t bytes = 0;
  std::tie(error) = co_await ws.async_accept(upgrade, kAwait);
  timeouts.handshake_timeout = kLinger;  // from here on: for the closing handshake
  ws.set_option(timeouts);
  const auto writer = std::make_shared<TunnelWriter>(ws, executor_);
  if (!error) {
    websocket_ = &ws;
    ws.binary(true);
    // A session may be kept for longer than this connection, and than the executor.
    response.tunnel->attach([weak = std::weak_ptr(writer)](std::string text) {
      const auto alive = weak.lock();
      return alive != nullptr && alive->send(std::move(text));
    });
  }
  std::string cause;
  beast::flat_buffer message;
  while (!error && cause.empty() && !server_->stopping) {
    message.clear();
    std::tie(error, bytes) = co_await ws.async_read(message, kAwait);
    if (error) break;
    const auto data = message.data();
    const std::string_view text(static_cast<const char*>(data.data()), data.size());
    if (ws.got_text()) {
      cause = "wrong websocket message type: text";
    } else if (const Result<void> read = response.tunnel->on_message(text); !read) {
      cause = "bad frame: " + read.error().message;
    }
  }
  if (cause.empty() && server_->stopping) cause = "server stopped";
  const bool close = !cause.empty() && !error && !std::exchange(tunnel_stopped_, true);
  if (cause.empty()) {
    if (peer_closed) {
      cause = "websocket: close " + std::to_string(ws.reason().code);
    } else if (error == beast::error::timeout) {
      cause = "no ping for " + std::to_string(server_->limits.tunnel_silence.count() / 1000) + " s";
    } else if (error.category() == make_error_code(websocket::error::closed).category()) {
      cause = error.message();  // what was wrong with the frames
    } else {
      cause = "connection lost: " + error.message();
    }
  }
  if (close) {
    const websocket::close_reason reason(server_->stopping ? websocket::close_code::going_away
                                                     : websocket::close_code::protocol_error);
    std::tie(error) = co_await ws.async_close(reason, kAwait);
  }
  websocket_ = nullptr;
  writer->close();
  response.tunnel->on_close(cause);
  // A message, ping or close of ours may be under way still; it ends with the socket, and must end before the
  // stream does.
  beast::get_lowest_layer(ws).close();
  asio::steady_timer settled(executor_, kSettle);
  std::tie(error) = co_await settled.async_wait(kAwait);
  while (!writer->idle()) {
    settled.expires_after(kSettle);
    std::tie(error) = co_await settled.async_wait(kAwait);
  }
}

}  // namespace

// ---- the listener ----------------------------------------------------------------------------------------

asio::awaitable<void> Listener::State::accept_loop() {
  const auto self = shared_from_this();
  asio::steady_timer pause(acceptor.get_executor());
  error_code error;
  while (!stopping) {
    if (open_connections >= limits.max_connections) {
      tell("the limit of " + std::to_string(limits.max_connections) +
           " connections is reached: those that say nothing are closed, longest silence first (--max-connections)");
      make_room();
      pause.expires_after(std::chrono::milliseconds(20));
      std::tie(error) = co_await pause.async_wait(kAwait);
      continue;
    }
    tcp::socket socket(asio::make_strand(io));
    std::tie(error) = co_await acceptor.async_accept(socket, kAwait);
    if (stopping) break;
    if (error) {
      tell("cannot accept a connection: " + error.message() +
           "; trying again, and closing those that say nothing, longest silence first");
      make_room();
      pause.expires_after(std::chrono::milliseconds(200));
      std::tie(error) = co_await pause.async_wait(kAwait);
      continue;
    }
    const auto connection = std::make_shared<Connection>(self, std::move(socket), current_tls());
    connection->start();
  }
}

// Who wants to keep agents out must open connections faster than they are given up.
void Listener::State::make_room() {
  const auto patience_began = steady_clock::now() - limits.patience;
  const std::lock_guard lock(mutex);
  std::vector<std::pair<steady_clock::time_point, Connection*>> waiting;
  for (Connection* connection : connections)
    if (const auto since = connection->waits_since(); since <= patience_began) waiting.emplace_back(since, connection);
  const std::size_t enough = std::min(waiting.size(), limits.max_connections / kRoomShare + 1);
  std::partial_sort(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(enough), waiting.end());
  for (std::size_t i = 0; i < enough; ++i) waiting[i].second->give_up(waiting[i].first);
}

Listener::Listener(std::shared_ptr<State> state) : state_(std::move(state)) {}

Listener::~Listener() {
  if (state_ != nullptr) stop();
}

Result<std::unique_ptr<Listener>> Listener::open(asio::io_context& io, const std::string& address, std::uint16_t port,
                                                 Limits limits, Callbacks callbacks, TrustedProxies proxies) {
  error_code error;
  const auto ip = asio::ip::make_address(address, error);
  if (error) return Error{Errc::invalid, "--listen " + printable(address, 60) + " is not an IP address"};
  auto state = std::make_shared<State>(io, limits, std::move(callbacks), std::move(proxies));
  const tcp::endpoint endpoint(ip, port);
  tcp::acceptor& acceptor = state->acceptor;
  const auto failed = [&](const std::string& hint, Errc code = Errc::io) {
    return Error{code, "cannot listen on " + text_of(endpoint) + ": " + error.message() + hint};
  };
  acceptor.open(endpoint.protocol(), error);
  if (error) return failed("");
  acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (ip.is_v6() && ip.is_unspecified()) acceptor.set_option(asio::ip::v6_only(false), error);
  acceptor.bind(endpoint, error);
  if (error == asio::error::address_in_use)
    return failed("; stop the program that uses the port, or choose another one", Errc::conflict);
  if (error == asio::error::access_denied) return failed("; ports below 1024 need root");
  if (error) return failed("; --listen must be an address of this machine");
  acceptor.listen(4096, error);
  if (error) return failed("");
  return std::unique_ptr<Listener>(new Listener(std::move(state)));
}

Result<void> Listener::set_certificate(const std::string& chain_pem, const Secret& key_pem) {
  auto tls = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX* native = tls->native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(native, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                  SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(native, 0);
  // Asked for, not required, not judged: first-time agents have no certificate, and ours is judged per request.
  SSL_CTX_set_verify(native, SSL_VERIFY_PEER, [](int, X509_STORE_CTX*) { return 1; });
  error_code error;
  tls->use_certificate_chain(asio::buffer(chain_pem), error);
  if (!error) tls->use_private_key(asio::buffer(key_pem.reveal()), ssl::context::pem, error);
  if (error) return Error{Errc::invalid, "the listener's certificate: " + error.message()};
  const std::lock_guard lock(state_->mutex);
  state_->tls = std::move(tls);
  return {};
}

void Listener::start() {
  asio::co_spawn(state_->acceptor.get_executor(), state_->accept_loop(), asio::detached);
}

void Listener::stop() {
  if (state_->stopping.exchange(true)) return;
  asio::post(state_->acceptor.get_executor(), [state = state_] {
    error_code ignored;
    state->acceptor.close(ignored);
  });
  const std::lock_guard lock(state_->mutex);
  for (Connection* connection : state_->connections) connection->stop();
}

std::uint16_t Listener::port() const {
  error_code ignored;
  return state_->acceptor.local_endpoint(ignored).port();
}

std::size_t Listener::connections() const { return state_->open_connections; }

}  // namespace ledger::api
