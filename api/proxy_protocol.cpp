#include "api/proxy_protocol.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include "ledger/types.h"

namespace ledger::api {
namespace {

using Address = std::array<std::uint8_t, 16>;  // IPv4 as ::ffff:a.b.c.d

constexpr Address kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0};
constexpr unsigned kMappedBits = 96;

bool is_v4(const Address& address) { return std::equal(kMapped.begin(), kMapped.begin() + 12, address.begin()); }

Address address_of(const char* v4) {
  Address address = kMapped;
  std::memcpy(address.data() + 12, v4, 4);
  return address;
}

// inet_pton is as strict as the protocol asks: no leading zeros, no blanks, no zones.
std::optional<Address> parse_address(int family, std::string_view text) {
  char copy[INET6_ADDRSTRLEN] = {};
  if (text.size() >= sizeof copy || text.find('\0') != std::string_view::npos) return std::nullopt;
  text.copy(copy, sizeof copy - 1);
  Address address = kMapped;
  if (inet_pton(family, copy, family == AF_INET ? address.data() + 12 : address.data()) != 1) return std::nullopt;
  return address;
}

std::optional<Address> parse_address(std::string_view text) {
  return parse_address(text.find(':') == std::string_view::npos ? AF_INET : AF_INET6, text);
}

std::string text_of(const Address& address) {
  char text[INET6_ADDRSTRLEN] = {};
  const bool v4 = is_v4(address);
  inet_ntop(v4 ? AF_INET : AF_INET6, address.data() + (v4 ? 12 : 0), text, sizeof text);
  return text;
}

std::string text_of(const Address& address, unsigned port) {
  const std::string host = text_of(address);
  return (is_v4(address) ? host : "[" + host + "]") + ":" + std::to_string(port);
}

// Decimal, without sign or leading zeros, at most `largest`.
std::optional<unsigned> parse_number(std::string_view text, unsigned largest) {
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number > largest) return std::nullopt;
  if (text.size() > 1 && text.front() == '0') return std::nullopt;
  return number;
}

bool bit_of(const Address& address, unsigned bit) { return ((address[bit / 8] >> (7 - bit % 8)) & 1) != 0; }

}  // namespace

// ---- whose word is taken ---------------------------------------------------------------------------------

Result<TrustedProxies> TrustedProxies::parse(const std::vector<std::string>& networks) {
  TrustedProxies trusted;
  for (const std::string& text : networks) {
    const auto slash = text.find('/');
    const auto wrong = [&](const std::string& why) {
      return Error{Errc::invalid, "--trusted-proxy " + printable(text, 60) + " " + why};
    };
    const std::optional<Address> address = parse_address(std::string_view(text).substr(0, slash));
    if (!address) return wrong("is no network; write an address or a CIDR like 10.0.0.0/8 or fd00::/8");
    const bool written_v4 = text.find(':') == std::string::npos;
    const unsigned widest = written_v4 ? 32 : 128;
    std::optional<unsigned> bits = widest;
    if (slash != std::string::npos) bits = parse_number(std::string_view(text).substr(slash + 1), widest);
    if (!bits) return wrong("has no prefix length from 0 to " + std::to_string(widest) + " after its '/'");
    Network network{*address, *bits + (written_v4 ? kMappedBits : 0), false};
    network.v4 = is_v4(*address) && network.bits >= kMappedBits;
    Address base = network.address;
    for (unsigned bit = network.bits; bit < 128; ++bit)
      base[bit / 8] = static_cast<std::uint8_t>(base[bit / 8] & ~(1U << (7 - bit % 8)));
    if (base != network.address)
      return wrong("is an address inside a network; write " + text_of(base) + "/" + std::to_string(*bits) +
                   " for the network, or " + text_of(*address) + " for the one machine");
    trusted.networks_.push_back(network);
  }
  return trusted;
}

bool TrustedProxies::trusts(std::string_view host) const {
  if (networks_.empty()) return false;
  const std::optional<Address> address = parse_address(host);
  if (!address) return false;
  return std::any_of(networks_.begin(), networks_.end(), [&](const Network& network) {
    if (network.v4 != is_v4(*address)) return false;
    for (unsigned bit = 0; bit < network.bits; ++bit)
      if (bit_of(network.address, bit) != bit_of(*address, bit)) return false;
    return true;
  });
}

bool TrustedProxies::trusts_everybody() const {
  return std::any_of(networks_.begin(), networks_.end(),
                     [](const Network& network) { return network.bits == (network.v4 ? kMappedBits : 0); });
}

// ---- the PROXY protocol ----------------------------------------------------------------------------------

namespace {

constexpr std::string_view kLineBegin = "PROXY ";
constexpr std::size_t kMaxLine = 107;  // with its CR LF
constexpr std::string_view kSignature("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr std::size_t kFixed = 16;  // signature, version and command, family, length

// Is `bytes` the beginning of `signature`, or `signature` the beginning of `bytes`?
bool agrees(std::string_view bytes, std::string_view signature) {
  const std::size_t common = std::min(bytes.size(), signature.size());
  return bytes.substr(0, common) == signature.substr(0, common);
}

ProxyHeader answer(ProxyHeader::Kind kind) {
  ProxyHeader header;
  header.kind = kind;
  return header;
}

ProxyHeader malformed(const char* problem) {
  ProxyHeader header = answer(ProxyHeader::Kind::malformed);
  header.problem = problem;
  return header;
}

ProxyHeader present(std::size_t size, std::string source = {}) {
  ProxyHeader header = answer(ProxyHeader::Kind::present);
  header.size = size;
  header.source = std::move(source);
  return header;
}

// "PROXY TCP4 10.0.0.5 10.0.0.1 41234 6443\r\n", single blanks; after UNKNOWN anything.
ProxyHeader parse_line(std::string_view bytes) {
  const std::size_t end = bytes.substr(0, kMaxLine).find("\r\n");
  if (end == std::string_view::npos)
    return bytes.size() < kMaxLine ? answer(ProxyHeader::Kind::incomplete)
                                   : malformed("the line does not end within 107 bytes");
  std::string_view line = bytes.substr(kLineBegin.size(), end - kLineBegin.size());
  std::array<std::string_view, 5> words;
  std::size_t count = 0;
  for (bool more = true; more; ++count) {
    const std::size_t blank = line.find(' ');
    more = blank != std::string_view::npos;
    if (count < words.size()) words[count] = line.substr(0, blank);
    if (count == 0 && words[0] == "UNKNOWN") return present(end + 2);
    if (more) line.remove_prefix(blank + 1);
  }
  if (words[0] != "TCP4" && words[0] != "TCP6") return malformed("the protocol is not TCP4, TCP6 or UNKNOWN");
  if (count != words.size()) return malformed("the line has not two addresses and two ports");
  const int family = words[0] == "TCP4" ? AF_INET : AF_INET6;
  const std::optional<Address> from = parse_address(family, words[1]);
  if (!from || !parse_address(family, words[2])) return malformed("an address cannot be read");
  const std::optional<unsigned> port = parse_number(words[3], 65535);
  if (!port || !parse_number(words[4], 65535)) return malformed("a port cannot be read");
  return present(end + 2, text_of(*from, *port));
}

ProxyHeader parse_binary(std::string_view bytes) {
  if (bytes.size() < kFixed) return answer(ProxyHeader::Kind::incomplete);
  const auto byte = [&](std::size_t at) { return static_cast<unsigned>(static_cast<unsigned char>(bytes[at])); };
  const unsigned version = byte(12) >> 4, command = byte(12) & 15, family = byte(13) >> 4, transport = byte(13) & 15;
  const std::size_t length = byte(14) << 8 | byte(15);
  if (version != 2) return malformed("the version is not 2");
  if (command > 1) return malformed("the command is not LOCAL or PROXY");
  // LOCAL: whatever stands in the rest means nothing.
  if (command == 1 && (family > 3 || transport > 2)) return malformed("the address family is not known");
  if (kFixed + length > kMaxProxyHeader) return malformed("it is longer than 512 bytes");
  const bool conveys = command == 1 && transport == 1 && (family == 1 || family == 2);
  const std::size_t addresses = family == 1 ? 12 : 36;
  if (conveys && length < addresses) return malformed("the addresses are cut off");
  if (bytes.size() < kFixed + length) return answer(ProxyHeader::Kind::incomplete);
  if (!conveys) return present(kFixed + length);
  Address from{};
  if (family == 1)
    from = address_of(bytes.data() + kFixed);
  else
    std::memcpy(from.data(), bytes.data() + kFixed, from.size());
  const std::size_t port = kFixed + (family == 1 ? 8 : 32);
  return present(kFixed + length, text_of(from, byte(port) << 8 | byte(port + 1)));
}

}  // namespace

ProxyHeader parse_proxy_header(std::string_view bytes) {
  if (agrees(bytes, kLineBegin))
    return bytes.size() < kLineBegin.size() ? answer(ProxyHeader::Kind::incomplete) : parse_line(bytes);
  if (agrees(bytes, kSignature))
    return bytes.size() < kSignature.size() ? answer(ProxyHeader::Kind::incomplete) : parse_binary(bytes);
  return answer(ProxyHeader::Kind::absent);
}

// ---- X-Forwarded-For -------------------------------------------------------------------------------------

std::string forwarded_source(std::string_view peer, std::string_view forwarded_for, const TrustedProxies& trusted) {
  std::string source(peer);
  if (!trusted.trusts(host_of(peer))) return source;
  while (!forwarded_for.empty()) {
    const std::size_t comma = forwarded_for.rfind(',');
    std::string_view entry = trim(forwarded_for.substr(comma == std::string_view::npos ? 0 : comma + 1));
    forwarded_for = forwarded_for.substr(0, comma == std::string_view::npos ? 0 : comma);
    const std::optional<Address> address = parse_address(host_of(entry));  // some proxies write a port
    if (!address) break;
    source = text_of(*address);
    if (!trusted.trusts(source)) break;
  }
  return source;
}

}  // namespace ledger::api
