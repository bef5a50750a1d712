// The nouns of the domain, each of which parses and checks itself. Value types; any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "ledger/result.h"

namespace ledger {

// Position of a record in the log; the first is 1, 0 means "none". Order is the Seq, never the clock.
using Seq = std::uint64_t;

// An instant, microseconds since 1970-01-01T00:00:00Z. 0 means "not known".
struct Time {
  std::int64_t micros = 0;
  static constexpr std::int64_t kMaxMicros = 253'402'300'799'999'999;  // the end of year 9999

  static Time now();
  // RFC 3339 with `Z` or a numeric offset, up to 9 fractional digits (kept to 6), years 1970..9999.
  static Result<Time> parse(std::string_view text);
  // RFC 3339 UTC; a fraction is printed, with 6 digits, only where there is one. Outside 1970..9999, which no
  // parse() and no decode_record() returns: the nearer end.
  std::string to_string() const;

  bool known() const { return micros != 0; }
  Time plus_seconds(std::int64_t seconds) const { return {micros + seconds * 1'000'000}; }
  auto operator<=>(const Time&) const = default;
};

// Seconds from `from` to `to`; negative when `to` is earlier.
inline double seconds_between(Time from, Time to) {
  return static_cast<double>(to.micros - from.micros) / 1e6;
}

// A node's name: an RFC 1123 subdomain of 1..253 bytes, lower case (k3s lower-cases what it receives,
// and so do we). Names that Kubernetes would refuse are refused here with the reason.
class NodeName {
 public:
  NodeName() = default;
  static Result<NodeName> parse(std::string_view text);
  const std::string& str() const { return text_; }
  auto operator<=>(const NodeName&) const = default;

 private:
  explicit NodeName(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

// Stands for a secret without giving it away: equal secrets have equal fingerprints, nothing else can be
// learned. Ours are 32 hex digits (credentials.h); in hand-written histories any string serves.
// Empty means "not known".
struct Fingerprint {
  std::string text;

  bool known() const { return !text.empty(); }
  auto operator<=>(const Fingerprint&) const = default;
};

// Bytes that must not be seen: cannot be copied or printed, and are wiped when let go.
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string_view text);
  Secret(Secret&& other) noexcept { swap(other); }
  Secret& operator=(Secret&& other) noexcept {
    swap(other);
    return *this;
  }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret();

  bool empty() const { return size_ == 0; }
  // The one way to the bytes. Whoever calls it must not log, store or send them.
  std::string_view reveal() const { return {bytes_, size_}; }
  Secret clone() const { return Secret(reveal()); }

 private:
  void swap(Secret& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(size_, other.size_);
  }
  char* bytes_ = nullptr;
  std::size_t size_ = 0;
};

// A string under construction that holds a secret; wiped when let go. Reserve enough: growing leaves a copy behind.
struct WipedText {
  std::string text;
  explicit WipedText(std::size_t capacity = 0) { text.reserve(capacity); }
  WipedText(const WipedText&) = delete;
  WipedText& operator=(const WipedText&) = delete;
  ~WipedText();
};

// The host part of an observed peer: "10.0.0.5:41234" -> "10.0.0.5", "[fd00::1]:443" -> "fd00::1".
// A bare address is returned as it is. Never fails: what cannot be taken apart is its own host.
std::string_view host_of(std::string_view source);

// Text that is safe to store and print: invalid UTF-8, control characters (newlines, escapes, NUL) become
// '?', and at most `max_bytes` are kept. For every string that a stranger chose.
std::string printable(std::string_view text, std::size_t max_bytes);

std::string to_lower(std::string_view text);

// ASCII blanks, tabs, CR and LF removed at both ends.
std::string_view trim(std::string_view text);

}  // namespace ledger

template <>
struct std::hash<ledger::NodeName> {
  std::size_t operator()(const ledger::NodeName& name) const noexcept {
    return std::hash<std::string>{}(name.str());
  }
};
