#include "api/tunnel_frame.h"

namespace ledger::api {

namespace {

constexpr int kMaxVarintBytes = 10;

void put_varint(std::int64_t value, std::string* out) {
  // Zig-zag: the sign goes to the lowest bit, so that small numbers of either sign are short.
  std::uint64_t rest = (static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63);
  while (rest >= 0x80) {
    out->push_back(static_cast<char>((rest & 0x7F) | 0x80));
    rest >>= 7;
  }
  out->push_back(static_cast<char>(rest));
}

class VarintReader {
 public:
  explicit VarintReader(std::string_view text) : rest_(text) {}

  Result<std::int64_t> next(std::string_view field) {
    const auto bad = [&](std::string_view why) {
      return Error{Errc::invalid, "tunnel frame: " + std::string(field) + " " + std::string(why)};
    };
    std::uint64_t value = 0;
    for (int i = 0; i < kMaxVarintBytes; ++i) {
      if (rest_.empty()) return bad("is cut short");
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      if (i == kMaxVarintBytes - 1 && byte > 1) return bad("does not fit in 64 bits");
      value |= static_cast<std::uint64_t>(byte & 0x7F) << (7 * i);
      if (byte >= 0x80) continue;
      if (byte == 0 && i > 0) return bad("is not in its shortest form");
      const std::uint64_t sign = value & 1 ? ~std::uint64_t{0} : 0;
      return static_cast<std::int64_t>((value >> 1) ^ sign);
    }
    fatal("a varint without an end");
  }

  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

}  // namespace

std::string TunnelFrame::encode() const {
  std::string out;
  out.reserve(4 * kMaxVarintBytes + payload.size());
  put_varint(id, &out);
  put_varint(connection, &out);
  put_varint(type, &out);
  if (has_deadline()) put_varint(deadline_ms, &out);
  out += payload;
  return out;
}

Result<TunnelFrame> TunnelFrame::decode(std::string_view message) {
  VarintReader in(message);
  TunnelFrame frame;
  const auto read = [&in](std::string_view field, std::int64_t* into) -> Result<void> {
    const Result<std::int64_t> value = in.next(field);
    if (!value) return value.error();
    *into = *value;
    return {};
  };
  if (const auto ok = read("id", &frame.id); !ok) return ok.error();
  if (const auto ok = read("connection", &frame.connection); !ok) return ok.error();
  if (const auto ok = read("type", &frame.type); !ok) return ok.error();
  if (frame.has_deadline())
    if (const auto ok = read("deadline", &frame.deadline_ms); !ok) return ok.error();
  frame.payload = in.rest();
  return frame;
}

}  // namespace ledger::api
