#include "api/https_client.h"

#include <string.h>

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

namespace ledger::api {

namespace {

namespace http = boost::beast::http;
using Clock = std::chrono::steady_clock;
using boost::system::error_code;

std::string host_header(const HostPort& authority) {
  if (authority.port != 443) return authority.to_string();
  return authority.host.find(':') == std::string::npos ? authority.host : "[" + authority.host + "]";
}

bool has_line_end(std::string_view text) { return text.find_first_of("\r\n") != std::string_view::npos; }

// The request as bytes. It may hold a secret: wiped by whoever gets it.
Result<std::string> request_text(const HttpsOptions& options, const HttpsRequest& request) {
  std::string out;
  out.reserve((8 << 10) + request.body.size());  // growing would leave copies of the secret behind
  out.append(request.method).append(" ").append(request.target).append(" HTTP/1.1\r\n");
  const auto add = [&out](std::string_view name, std::string_view value) {
    out.append(name).append(": ").append(value).append("\r\n");
  };
  add("Host", host_header(options.url_host()));
  bool names_agent = false, names_connection = false, unsafe = has_line_end(request.target);
  for (const auto& [name, value] : request.headers) {
    add(name, value);
    names_agent = names_agent || to_lower(name) == "user-agent";
    names_connection = names_connection || to_lower(name) == "connection";
    unsafe = unsafe || has_line_end(name) || has_line_end(value);
  }
  if (!names_agent) add("User-Agent", "ledger/" LEDGER_VERSION);
  if (!names_connection && !options.keep_alive) add("Connection", "close");
  if (!request.authorization.empty()) {
    add("Authorization", request.authorization.reveal());
    unsafe = unsafe || has_line_end(request.authorization.reveal());
  }
  const bool sends_body = !request.body.empty() || request.method == "POST" || request.method == "PUT";
  if (sends_body) add("Content-Length", std::to_string(request.body.size()));
  if (unsafe) return Error{Errc::invalid, "net/http: a header value or the path contains a line end"};
  out.append("\r\n").append(request.body);
  return out;
}

// Sends the request and leaves no copy of it.
Result<void> send_request(TlsLink& link, const HttpsOptions& options, const HttpsRequest& request) {
  link.set_stage(TlsLink::Stage::awaiting_headers);
  Result<std::string> text = request_text(options, request);
  if (!text) return text.error();
  const bool sent = link.write(*text);
  explicit_bzero(text->data(), text->size());
  if (!sent) return link.error();
  return {};
}

using Parser = http::response_parser<http::string_body>;

HttpsResponse take_response(Parser& parser) {
  HttpsResponse response;
  response.status = static_cast<int>(parser.get().result_int());
  response.reason = parser.get().reason();
  for (const auto& field : parser.get()) response.headers.emplace_back(field.name_string(), field.value());
  response.body = std::move(parser.get().body());
  return response;
}

}  // namespace

Result<HttpsResponse> exchange(TlsLink& link, const HttpsOptions& options, const HttpsRequest& request,
                               std::string& in, bool* reusable) {
  if (const Result<void> sent = send_request(link, options, request); !sent) return sent.error();
  Parser parser;
  parser.eager(true);
  parser.body_limit(options.body_limit);
  parser.header_limit(64 << 10);
  if (request.method == "HEAD") parser.skip(true);
  std::vector<char> chunk(16 << 10);
  while (!parser.is_done()) {
    const std::size_t size = link.read(chunk.data(), chunk.size());
    error_code ec;
    if (size > 0) {
      in.append(chunk.data(), size);
      in.erase(0, parser.put(boost::asio::const_buffer(in.data(), in.size()), ec));
      if (ec == http::error::need_more) ec = {};
      if (parser.is_header_done()) link.set_stage(TlsLink::Stage::reading_body);
    } else if (link.ended() && parser.is_header_done() && parser.need_eof()) {
      parser.put_eof(ec);  // a body without a length ends with the connection
    } else {
      return link.error();
    }
    if (ec == http::error::body_limit)
      return Error{Errc::io, "http: response body is larger than this client takes"};
    if (ec) return Error{Errc::io, "malformed HTTP response: " + ec.message()};
  }
  *reusable = options.keep_alive && parser.keep_alive();
  return take_response(parser);
}

std::string_view HttpsResponse::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (to_lower(key) == to_lower(name)) return value;
  return {};
}

// ---- HttpsClient -----------------------------------------------------------------------------------------

struct HttpsClient::State {
  State(HttpsOptions given, TlsContext tls) : options(std::move(given)), context(std::move(tls)) {}
  ~State() { drop(); }

  void drop() {
    if (link) link->hang_up();
    link.reset();
    in.clear();
  }

  HttpsOptions options;
  TlsContext context;
  std::optional<TlsLink> link;  // an open connection, between requests only with keep_alive
  std::string in;
  std::string local_address;
};

Result<HttpsClient> HttpsClient::open(HttpsOptions options) {
  const Result<TlsContext> context = TlsContext::make(options);
  if (!context) return context.error();
  return HttpsClient(std::make_unique<State>(std::move(options), *context));
}

HttpsClient::HttpsClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
HttpsClient::HttpsClient(HttpsClient&&) noexcept = default;
HttpsClient& HttpsClient::operator=(HttpsClient&&) noexcept = default;
HttpsClient::~HttpsClient() = default;

Result<HttpsResponse> HttpsClient::send(const HttpsRequest& request) {
  State& s = *state_;
  std::optional<TlsLink::TimePoint> deadline;
  if (s.options.timeout.count() > 0) deadline = Clock::now() + s.options.timeout;
  bool reusable = false;
  if (s.link) {
    s.link->set_deadline(deadline);
    Result<HttpsResponse> response = exchange(*s.link, s.options, request, s.in, &reusable);
    // The server may have closed a kept connection meanwhile; a fresh one mends that.
    const bool stale = !response && request.method == "GET" && !s.link->timed_out();
    if (!reusable || !response) s.drop();
    if (!stale) return response;
  }
  s.link.emplace();
  s.link->set_deadline(deadline);
  const Result<void> opened = s.link->open(s.options, s.context);
  if (!s.link->local().empty()) s.local_address = s.link->local();
  if (!opened) {
    s.link.reset();
    return opened.error();
  }
  Result<HttpsResponse> response = exchange(*s.link, s.options, request, s.in, &reusable);
  if (!reusable || !response) s.drop();
  return response;
}

namespace {

// One piece of a streamed answer: what arrived goes through the parser, and a 200's body on to `on_body`. False:
// the answer is over, or `on_body` has had enough.
Result<bool> pass_on(Parser& parser, std::string& in, std::size_t limit, const HttpsClient::OnBody& on_body) {
  error_code ec;
  in.erase(0, parser.put(boost::asio::const_buffer(in.data(), in.size()), ec));
  if (ec && ec != http::error::need_more) return Error{Errc::io, "malformed HTTP response: " + ec.message()};
  if (parser.is_header_done() && parser.get().result_int() == 200) {
    std::string piece = std::move(parser.get().body());
    parser.get().body().clear();
    if (!piece.empty() && !on_body(piece)) return false;
  } else if (parser.is_header_done() && parser.get().body().size() > limit) {
    return Error{Errc::io, "http: response body is larger than this client takes"};
  }
  return !parser.is_done();
}

}  // namespace

Result<HttpsResponse> HttpsClient::stream(const HttpsRequest& request, std::chrono::milliseconds silence,
                                          const OnBody& on_body) {
  constexpr std::chrono::milliseconds kSlice(200);
  State& s = *state_;
  s.drop();
  TlsLink link;
  if (s.options.timeout.count() > 0) link.set_deadline(Clock::now() + s.options.timeout);
  if (const Result<void> opened = link.open(s.options, s.context); !opened) return opened.error();
  s.local_address = link.local();
  if (const Result<void> sent = send_request(link, s.options, request); !sent) return sent.error();
  Parser parser;
  parser.eager(true);
  parser.body_limit(boost::none);
  parser.header_limit(64 << 10);
  std::string in;
  std::vector<char> chunk(16 << 10);
  auto last_byte = Clock::now();
  for (bool more = true; more;) {
    const bool in_body = parser.is_header_done();
    if (in_body) {
      link.set_stage(TlsLink::Stage::reading_body);
      link.set_deadline(Clock::now() + kSlice);
    }
    const std::size_t size = link.read(chunk.data(), chunk.size());
    if (size == 0 && in_body && link.timed_out() && Clock::now() - last_byte < silence) {
      more = on_body({});
      continue;
    }
    if (size == 0 && in_body && link.ended() && parser.need_eof()) break;  // a body without a length ends like this
    if (size == 0) return link.error();
    last_byte = Clock::now();
    in.append(chunk.data(), size);
    const Result<bool> passed = pass_on(parser, in, s.options.body_limit, on_body);
    if (!passed) return passed.error();
    more = *passed;
  }
  link.hang_up();
  return take_response(parser);
}

const std::string& HttpsClient::local_address() const { return state_->local_address; }

}  // namespace ledger::api
