#include "api/websocket_client.h"

#include <algorithm>
#include <vector>

#include "ledger/credentials.h"

namespace ledger::api {

namespace {

using Clock = std::chrono::steady_clock;

enum Opcode : unsigned { kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPing = 9, kPong = 10 };

std::string accept_for(const std::string& key) {
  return base64(sha1(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
}

// A client's frame: always final, always masked.
std::string masked_frame(Opcode opcode, std::string_view payload) {
  std::string out(1, static_cast<char>(0x80 | opcode));
  const std::size_t size = payload.size();
  const int length_bytes = size < 126 ? 0 : size < 65536 ? 2 : 8;
  out.push_back(static_cast<char>(0x80 | (length_bytes == 0 ? size : length_bytes == 2 ? 126 : 127)));
  for (int i = length_bytes - 1; i >= 0; --i) out.push_back(static_cast<char>(size >> (8 * i)));
  const std::string mask = random_bytes(4);
  out += mask;
  for (std::size_t i = 0; i < size; ++i) out.push_back(static_cast<char>(payload[i] ^ mask[i % 4]));
  return out;
}

struct ServerFrame {
  Opcode opcode = kContinuation;
  bool final = false;
  std::string payload;
};

// Takes one whole frame from the front of `in`; nullopt when there is not one yet.
Result<std::optional<ServerFrame>> take_frame(std::string& in, std::size_t limit) {
  const auto bad = [](std::string_view why) { return Error{Errc::io, "websocket: " + std::string(why)}; };
  const auto byte = [&in](std::size_t i) { return static_cast<unsigned char>(in[i]); };
  if (in.size() < 2) return std::optional<ServerFrame>();
  ServerFrame frame;
  frame.final = (byte(0) & 0x80) != 0;
  frame.opcode = static_cast<Opcode>(byte(0) & 0x0F);
  if ((byte(0) & 0x70) != 0) return bad("unexpected reserved bits");
  if ((byte(1) & 0x80) != 0) return bad("bad MASK");
  std::uint64_t size = byte(1);
  const std::size_t length_bytes = size == 126 ? 2 : size == 127 ? 8 : 0;
  if (in.size() < 2 + length_bytes) return std::optional<ServerFrame>();
  if (length_bytes > 0) size = 0;
  for (std::size_t i = 0; i < length_bytes; ++i) size = size << 8 | byte(2 + i);
  if (frame.opcode >= kClose && (size > 125 || !frame.final)) return bad("invalid control frame");
  if (size > limit) return bad("read limit exceeded");
  if (in.size() - 2 - length_bytes < size) return std::optional<ServerFrame>();
  frame.payload = in.substr(2 + length_bytes, size);
  in.erase(0, 2 + length_bytes + size);
  return std::optional<ServerFrame>(std::move(frame));
}

// gorilla/websocket's words for a close frame: a code in network order, then a reason.
std::string close_text(std::string_view payload) {
  if (payload.size() < 2) return "websocket: close 1005 (no status)";
  const int code = static_cast<unsigned char>(payload[0]) << 8 | static_cast<unsigned char>(payload[1]);
  const auto name = [code]() -> std::string_view {
    switch (code) {
      case 1000: return " (normal)";
      case 1001: return " (going away)";
      case 1002: return " (protocol error)";
      case 1003: return " (unsupported data)";
      case 1008: return " (policy violation)";
      case 1009: return " (message too big)";
      case 1011: return " (internal server error)";
      default: return "";
    }
  };
  std::string out = "websocket: close " + std::to_string(code) + std::string(name());
  if (payload.size() > 2) out += ": " + printable(payload.substr(2), 123);
  return out;
}

}  // namespace

struct WebsocketClient::State {
  explicit State(Options given) : options(std::move(given)) {}
  ~State() { link.hang_up(); }

  Result<void> connect(HttpsResponse* answer);
  Result<void> write(Opcode opcode, std::string_view payload);
  // Acts on one frame; a whole message is left in `message` with `complete` set.
  Result<void> take(ServerFrame frame);

  Options options;
  TlsLink link;
  std::string in;       // bytes not yet taken apart
  std::string message;  // of the fragments so far
  bool fragmented = false, complete = false, closing = false;
  Clock::time_point next_ping, last_heard;
  std::uint64_t pongs = 0;
};

Result<void> WebsocketClient::State::connect(HttpsResponse* answer) {
  const Result<TlsContext> context = TlsContext::make(options.https);
  if (!context) return context.error();
  if (options.https.timeout.count() > 0) link.set_deadline(Clock::now() + options.https.timeout);
  if (const Result<void> opened = link.open(options.https, *context); !opened) return opened.error();

  const std::string key = base64(random_bytes(16));
  HttpsRequest upgrade;
  upgrade.target = options.target;
  upgrade.headers = {{"User-Agent", "Go-http-client/1.1"},
                     {"Connection", "Upgrade"},
                     {"Sec-WebSocket-Key", key},
                     {"Sec-WebSocket-Version", "13"},
                     {"Upgrade", "websocket"}};
  bool reusable = false;
  Result<HttpsResponse> response = exchange(link, options.https, upgrade, in, &reusable);
  if (!response) return response.error();
  const bool accepted = response->status == 101 && to_lower(response->header("Upgrade")) == "websocket" &&
                        to_lower(response->header("Connection")) == "upgrade" &&
                        response->header("Sec-WebSocket-Accept") == accept_for(key);
  if (answer != nullptr) *answer = std::move(*response);
  if (!accepted) return Error{Errc::io, "websocket: bad handshake"};
  last_heard = Clock::now();
  next_ping = last_heard + options.ping_every;
  return {};
}

Result<void> WebsocketClient::State::write(Opcode opcode, std::string_view payload) {
  link.set_deadline(Clock::now() + options.silence_limit);
  if (!link.write(masked_frame(opcode, payload))) return link.error();
  return {};
}

Result<void> WebsocketClient::State::take(ServerFrame frame) {
  switch (frame.opcode) {
    case kPing: last_heard = Clock::now(); return write(kPong, frame.payload);
    case kPong:
      last_heard = Clock::now();
      ++pongs;
      return {};
    case kClose: {
      // Whoever asked first is answered; the answer to our own close ends the session.
      const Error closed{Errc::io, close_text(frame.payload)};
      if (!closing) (void)write(kClose, std::string_view(frame.payload).substr(0, 2));
      return closed;
    }
    case kText: return Error{Errc::io, "wrong websocket message type"};
    case kBinary:
    case kContinuation: break;
  }
  if (frame.opcode != kBinary && frame.opcode != kContinuation)
    return Error{Errc::io, "websocket: unknown opcode " + std::to_string(frame.opcode)};
  if (fragmented != (frame.opcode == kContinuation)) return Error{Errc::io, "websocket: fragments out of order"};
  if (message.size() + frame.payload.size() > options.https.body_limit)
    return Error{Errc::io, "websocket: read limit exceeded"};
  message += frame.payload;
  fragmented = !frame.final;
  complete = frame.final;
  return {};
}

Result<WebsocketClient> WebsocketClient::connect(Options options, HttpsResponse* answer) {
  auto state = std::make_unique<State>(std::move(options));
  if (const Result<void> connected = state->connect(answer); !connected) return connected.error();
  return WebsocketClient(std::move(state));
}

WebsocketClient::WebsocketClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
WebsocketClient::WebsocketClient(WebsocketClient&&) noexcept = default;
WebsocketClient& WebsocketClient::operator=(WebsocketClient&&) noexcept = default;
WebsocketClient::~WebsocketClient() = default;

Result<std::optional<std::string>> WebsocketClient::receive(std::chrono::milliseconds wait) {
  State& s = *state_;
  const Clock::time_point until = Clock::now() + wait;
  std::vector<char> chunk(16 << 10);
  for (;;) {
    Result<std::optional<ServerFrame>> frame = take_frame(s.in, s.options.https.body_limit);
    if (!frame) return frame.error();
    if (*frame) {
      if (const Result<void> taken = s.take(std::move(**frame)); !taken) return taken.error();
      if (!s.complete) continue;
      s.complete = false;
      return std::optional<std::string>(std::exchange(s.message, {}));
    }
    const Clock::time_point now = Clock::now();
    const Clock::time_point dead = s.last_heard + s.options.silence_limit;
    if (now >= dead)
      return Error{Errc::io, "read tcp " + s.link.local() + "->" + s.link.remote() + ": i/o timeout"};
    if (now >= s.next_ping) {
      s.next_ping = now + s.options.ping_every;
      if (const Result<void> pinged = s.write(kPing, {}); !pinged) return pinged.error();
    }
    s.link.set_deadline(std::min({until, dead, s.next_ping}));
    const std::size_t size = s.link.read(chunk.data(), chunk.size());
    s.in.append(chunk.data(), size);
    if (size > 0) continue;
    if (s.link.ended()) return Error{Errc::io, "websocket: close 1006 (abnormal closure): unexpected EOF"};
    if (!s.link.timed_out()) return s.link.error();
    if (Clock::now() >= until) return std::optional<std::string>();
  }
}

Result<void> WebsocketClient::send(std::string_view binary_message) {
  return state_->write(kBinary, binary_message);
}

void WebsocketClient::close() {
  State& s = *state_;
  if (!s.write(kClose, "\x03\xe8")) return;
  s.closing = true;
  s.next_ping = Clock::time_point::max();
  const Clock::time_point until = Clock::now() + std::chrono::seconds(1);
  // What still arrives is dropped; the server's close frame, or anything wrong, ends it.
  for (auto now = Clock::now(); now < until; now = Clock::now()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - now);
    if (const auto message = receive(left); !message) break;
  }
  // The server hangs up first (RFC 6455, 7.1.1), else it would see a broken connection instead of a close.
  s.link.set_deadline(until);
  char sink[512];
  while (s.link.read(sink, sizeof sink) > 0) {
  }
  s.link.hang_up();
}

std::uint64_t WebsocketClient::pongs() const { return state_->pongs; }

}  // namespace ledger::api
