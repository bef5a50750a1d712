#include "tools/k3s_like/connection.h"

#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <ctime>

#include "ledger/openssl_handles.h"
#include "ledger/types.h"

namespace ledger::k3s_like {
namespace {

constexpr std::size_t kMaxHead = 1 << 20;  // Go's default
constexpr std::size_t kMaxLine = 64 << 10;
constexpr std::uint64_t kMaxLeftBody = 256 << 10;  // more is not waited for: the connection ends

bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
  });
}

bool is_value(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
  });
}

template <class T>
std::optional<T> parse_number(std::string_view text, int base = 10) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return {};
  return value;
}

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[64];
  return {text, std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts)};
}

bool has_no_body(int status) { return status == 204 || status == 304 || status < 200; }

std::string decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = text[i] == '%' && i + 2 < text.size() + 0 ? parse_number<unsigned>(text.substr(i + 1, 2), 16)
                                                                : std::optional<unsigned>();
    out += byte ? static_cast<char>(*byte) : text[i] == '+' ? ' ' : text[i];
    if (byte) i += 2;
  }
  return out;
}

}  // namespace

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && to_lower(a) == to_lower(b);
}

bool has_word(const std::vector<std::string>& values, std::string_view word) {
  for (std::string_view rest : values)
    while (!rest.empty()) {
      const std::size_t comma = std::min(rest.find(','), rest.size());
      if (same_name(trim(rest.substr(0, comma)), word)) return true;
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  return false;
}

std::string_view text_of_status(int status) {
  switch (status) {
    case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 103: return "Early Hints";
    case 200: return "OK";
    case 201: return "Created";
    case 204: return "No Content";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 413: return "Request Entity Too Large";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Unknown";
  }
}

// ---- the connection --------------------------------------------------------------------------------------

Connection::Connection(int fd, SSL_CTX* context) : fd_(fd), ssl_(SSL_new(context)), buffer_(64 << 10) {
  must(ssl_ != nullptr && SSL_set_fd(ssl_, fd) == 1, "SSL_new");
}

Connection::~Connection() {
  if (!failed_) SSL_shutdown(ssl_);
  SSL_free(ssl_);
  ERR_clear_error();
  // What the client still sends must not turn the end of the answer into a reset.
  ::shutdown(fd_, SHUT_WR);
  timeval wait{.tv_sec = 0, .tv_usec = 200'000};
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  for (int i = 0; i < 16 && !failed_ && ::recv(fd_, buffer_.data(), buffer_.size(), 0) > 0; ++i) {
  }
  ::close(fd_);
}

bool Connection::handshake() {
  ERR_clear_error();
  failed_ = SSL_accept(ssl_) != 1;
  return !failed_;
}

std::string Connection::peer_certificate() const {
  X509* certificate = SSL_get0_peer_certificate(ssl_);
  return certificate != nullptr ? der_of<i2d_X509>(certificate) : "";
}

std::string_view Connection::read_some() {
  if (!left_over_.empty()) {
    const std::size_t size = std::min(left_over_.size(), buffer_.size());
    std::copy_n(left_over_.begin(), size, buffer_.begin());
    left_over_.erase(0, size);
    return {buffer_.data(), size};
  }
  if (failed_ || ended_in_order_) return {};
  ERR_clear_error();
  const int got = SSL_read(ssl_, buffer_.data(), static_cast<int>(buffer_.size()));
  if (got > 0) return {buffer_.data(), static_cast<std::size_t>(got)};
  ended_in_order_ = SSL_get_error(ssl_, got) == SSL_ERROR_ZERO_RETURN;
  failed_ = !ended_in_order_;
  return {};
}

bool Connection::write(std::string_view bytes) {
  while (!bytes.empty() && !failed_) {
    ERR_clear_error();
    const int sent = SSL_write(ssl_, bytes.data(), static_cast<int>(std::min<std::size_t>(bytes.size(), 1 << 20)));
    if (sent <= 0)
      failed_ = true;
    else
      bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return !failed_;
}

void Connection::end_writing() {
  if (!failed_) SSL_shutdown(ssl_);
  ERR_clear_error();
}

std::optional<std::string> Connection::read_line(std::size_t most) {
  std::string line;
  while (true) {
    const std::string_view some = read_some();
    if (some.empty()) return {};
    const std::size_t end = some.find('\n');
    line += some.substr(0, end);
    if (end != std::string_view::npos) {
      unread(some.substr(end + 1));
      if (line.ends_with('\r')) line.pop_back();
      return line;
    }
    if (line.size() > most) return {};
  }
}

std::string Connection::read_at_most(std::uint64_t most) {
  const std::string_view some = read_some();
  const std::size_t taken = static_cast<std::size_t>(std::min<std::uint64_t>(most, some.size()));
  std::string bytes(some.substr(0, taken));
  if (taken < some.size()) unread(some.substr(taken));
  return bytes;
}

// ---- requests --------------------------------------------------------------------------------------------

std::string Request::header(std::string_view name) const {
  const auto values = all(name);
  return values.empty() ? "" : values[0];
}

std::vector<std::string> Request::all(std::string_view name) const {
  std::vector<std::string> values;
  for (const auto& [key, value] : headers)
    if (same_name(key, name)) values.push_back(value);
  return values;
}

std::string Request::parameter(std::string_view name, std::string_view otherwise) const {
  std::string_view rest = query;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('&'), rest.size());
    const std::string_view pair = rest.substr(0, end);
    const std::size_t equals = std::min(pair.find('='), pair.size());
    if (pair.substr(0, equals) == name) return decoded(pair.substr(std::min(equals + 1, pair.size())));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return std::string(otherwise);
}

std::uint64_t Request::number(std::string_view name, std::uint64_t otherwise) const {
  return parse_number<std::uint64_t>(parameter(name)).value_or(otherwise);
}

bool Exchange::refuse(int status, std::string_view why) {
  status_ = status;
  keep_alive_ = false;
  std::string body = std::to_string(status) + " " + std::string(text_of_status(status));
  if (!why.empty()) body += ": " + std::string(why);
  connection_.write("HTTP/1.1 " + std::to_string(status) + " " + std::string(text_of_status(status)) +
                    "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" + body);
  return false;
}

bool Exchange::read_headers(Headers* headers, std::string* why) {
  std::size_t total = 0;
  while (true) {
    const auto line = connection_.read_line(kMaxLine);
    if (!line) return false;
    if (line->empty()) return true;
    if ((total += line->size()) > kMaxHead) return *why = "header too large", false;
    if (line->front() == ' ' || line->front() == '\t') {
      if (headers->empty()) return *why = "malformed MIME header initial line", false;
      headers->back().second += " " + std::string(trim(*line));
      continue;
    }
    const std::size_t colon = line->find(':');
    const std::string_view name = std::string_view(*line).substr(0, std::min(colon, line->size()));
    if (colon == std::string::npos || !is_token(name)) return *why = "malformed MIME header line", false;
    const std::string_view value = trim(std::string_view(*line).substr(colon + 1));
    if (!is_value(value)) return *why = "invalid header value", false;
    headers->emplace_back(name, value);
  }
}

bool Exchange::read_head() {
  auto line = connection_.read_line(kMaxLine);
  if (line && line->empty()) line = connection_.read_line(kMaxLine);  // after a POST of an old browser
  if (!line) return keep_alive_ = false;
  const std::size_t first = line->find(' '), last = line->rfind(' ');
  if (first == std::string::npos || first == last) return refuse(400, "malformed HTTP request");
  request_.method = line->substr(0, first);
  request_.target = line->substr(first + 1, last - first - 1);
  const std::string version = line->substr(last + 1);
  if (!is_token(request_.method)) return refuse(400, "invalid method");
  if (version != "HTTP/1.1" && version != "HTTP/1.0")
    return refuse(version.starts_with("HTTP/") ? 505 : 400, version);
  request_.minor = version.back() - '0';
  if (request_.target.find_first_of(" \t") != std::string::npos || !is_value(request_.target))
    return refuse(400, "malformed target");
  std::string_view local = request_.target;
  if (local.starts_with("http://") || local.starts_with("https://")) {
    local.remove_prefix(local.find("//") + 2);
    local.remove_prefix(std::min(local.find('/'), local.size()));
  }
  const std::size_t question = std::min(local.find('?'), local.size());
  request_.path = local.substr(0, question);
  request_.query = local.substr(std::min(question + 1, local.size()));
  std::string why;
  if (!read_headers(&request_.headers, &why)) return why.empty() ? (keep_alive_ = false) : refuse(400, why);
  return judge_framing();
}

bool Exchange::judge_framing() {
  const auto hosts = request_.all("host");
  if (request_.minor == 1 && hosts.empty()) return refuse(400, "missing required Host header");
  if (hosts.size() > 1) return refuse(400, "too many Host headers");
  const auto codings = request_.all("transfer-encoding");
  if (!codings.empty() && request_.minor == 1) {
    if (codings.size() > 1 || !same_name(codings[0], "chunked"))
      return refuse(501, "Unsupported transfer encoding");
    request_.chunked = true;
  }
  const auto lengths = request_.all("content-length");
  for (const std::string& text : lengths)
    if (text != lengths[0]) return refuse(400, "");
  if (!lengths.empty() && !request_.chunked) {
    const auto length = parse_number<std::uint64_t>(lengths[0]);
    if (!length) return refuse(400, "");
    request_.length = *length;
  }
  const auto connection = request_.all("connection");
  request_.keep_alive = request_.minor == 1 ? !has_word(connection, "close") : has_word(connection, "keep-alive");
  request_.expects_continue = same_name(request_.header("expect"), "100-continue") && request_.minor == 1;
  keep_alive_ = request_.keep_alive;
  head_only_ = request_.method == "HEAD";
  return true;
}

bool Exchange::read_body(const std::function<void(std::string_view)>& take) {
  if (body_read_) return true;
  body_read_ = true;
  if (!request_.chunked && request_.length == 0) return true;
  if (request_.expects_continue && status_ == 0) connection_.write("HTTP/1.1 100 Continue\r\n\r\n");
  bool whole = true;
  if (request_.chunked) {
    whole = read_chunks(take);
  } else {
    for (std::uint64_t left = request_.length; left > 0 && whole;) {
      const std::string piece = connection_.read_at_most(left);
      take(piece);
      left -= piece.size();
      whole = !piece.empty();
    }
  }
  if (!whole) keep_alive_ = false;
  return whole;
}

bool Exchange::read_chunks(const std::function<void(std::string_view)>& take) {
  while (true) {
    const auto line = connection_.read_line(4096);
    if (!line) return false;
    const std::string_view digits = trim(std::string_view(*line).substr(0, line->find(';')));
    const auto size = digits.size() <= 16 ? parse_number<std::uint64_t>(digits, 16) : std::nullopt;
    if (!size) return false;
    if (*size == 0) break;
    for (std::uint64_t left = *size; left > 0;) {
      const std::string piece = connection_.read_at_most(left);
      if (piece.empty()) return false;
      take(piece);
      left -= piece.size();
    }
    std::string end;
    while (end.size() < 2) {
      const std::string some = connection_.read_at_most(2 - end.size());
      if (some.empty()) return false;
      end += some;
    }
    if (end != "\r\n") return false;
  }
  std::string why;
  return read_headers(&trailers_, &why);
}

// ---- answers ---------------------------------------------------------------------------------------------

std::string Exchange::head_of(int status, const Headers& headers) {
  status_ = status;
  std::string head = "HTTP/1." + std::to_string(request_.minor) + " " + std::to_string(status) + " " +
                     std::string(text_of_status(status)) + "\r\n";
  for (const auto& [name, value] : headers) {
    head += name + ": " + value + "\r\n";
    if (same_name(name, "connection") && has_word({value}, "close")) keep_alive_ = false;
  }
  return head + "Date: " + http_date() + "\r\n";
}

void Exchange::answer(int status, const Headers& headers, std::string_view body) {
  std::string message = head_of(status, headers);
  if (!has_no_body(status)) message += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  if (request_.minor == 0 && keep_alive_) message += "Connection: keep-alive\r\n";
  if (request_.minor == 1 && !request_.keep_alive && message.find("\r\nConnection: ") == std::string::npos)
    message += "Connection: close\r\n";
  message += "\r\n";
  if (!has_no_body(status) && !head_only_) message += body;
  connection_.write(message);
}

void Exchange::begin(int status, const Headers& headers, std::optional<std::uint64_t> length) {
  std::string message = head_of(status, headers);
  piecewise_chunked_ = !length && request_.minor == 1;
  if (length) message += "Content-Length: " + std::to_string(*length) + "\r\n";
  if (piecewise_chunked_) message += "Transfer-Encoding: chunked\r\n";
  if (!length && !piecewise_chunked_) keep_alive_ = false;
  connection_.write(message + "\r\n");
}

bool Exchange::piece(std::string_view bytes) {
  if (head_only_ || bytes.empty()) return !connection_.failed();
  if (!piecewise_chunked_) return connection_.write(bytes);
  char size[20];
  const auto end = std::to_chars(size, size + sizeof size, bytes.size(), 16).ptr;
  std::string chunk(size, end);
  chunk += "\r\n";
  chunk += bytes;
  chunk += "\r\n";
  return connection_.write(chunk);
}

void Exchange::end(const Headers& trailers) {
  if (!piecewise_chunked_ || head_only_) return;
  std::string last = "0\r\n";
  for (const auto& [name, value] : trailers) last += name + ": " + value + "\r\n";
  connection_.write(last + "\r\n");
}

void Exchange::hint(const Headers& headers) {
  std::string head = "HTTP/1.1 103 Early Hints\r\n";
  for (const auto& [name, value] : headers) head += name + ": " + value + "\r\n";
  connection_.write(head + "\r\n");
}

Connection& Exchange::switch_protocols(const Headers& headers) {
  status_ = 101;
  std::string head = "HTTP/1.1 101 Switching Protocols\r\n";
  for (const auto& [name, value] : headers) head += name + ": " + value + "\r\n";
  connection_.write(head + "\r\n");
  return raw();
}

bool Exchange::finish() {
  if (connection_.failed() || !keep_alive_) return false;
  if (request_.expects_continue && !body_read_) return false;  // the client may or may not send it
  std::uint64_t left = 0;
  if (!request_.chunked && request_.length > kMaxLeftBody && !body_read_) return false;
  return read_body([&left](std::string_view bytes) { left += bytes.size(); }) && left <= kMaxLeftBody &&
         keep_alive_;
}

}  // namespace ledger::k3s_like
