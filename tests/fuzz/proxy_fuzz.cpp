// Whatever the first bytes of a connection are, the parser answers within its bound, looks at nothing behind the
// header, and never takes back what it said of a prefix.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "api/proxy_protocol.h"

using ledger::api::parse_proxy_header;
using ledger::api::ProxyHeader;
using Kind = ProxyHeader::Kind;

namespace {

// A copy of exactly this size, so that AddressSanitizer sees a read behind it.
ProxyHeader parse_exact(std::string_view bytes) {
  const auto copy = std::make_unique<char[]>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), copy.get());
  return parse_proxy_header({copy.get(), bytes.size()});
}

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const ProxyHeader whole = parse_exact(bytes);
  require(size < ledger::api::kMaxProxyHeader || whole.kind != Kind::incomplete);
  require((whole.kind == Kind::malformed) == (*whole.problem != '\0'));
  if (whole.kind == Kind::present) {
    require(whole.size > 0 && whole.size <= size && whole.size <= ledger::api::kMaxProxyHeader);
    const ProxyHeader alone = parse_exact(bytes.substr(0, whole.size));
    require(alone.kind == Kind::present && alone.size == whole.size && alone.source == whole.source);
    require(parse_exact(bytes.substr(0, whole.size - 1)).kind == Kind::incomplete);
  } else {
    require(whole.size == 0 && whole.source.empty());
  }
  const ProxyHeader half = parse_exact(bytes.substr(0, size / 2));
  require(half.kind == Kind::incomplete || (half.kind == whole.kind && half.source == whole.source));
  // The other two parsers of this module, on the same bytes.
  const auto trusted = ledger::api::TrustedProxies::parse({std::string(bytes.substr(0, 60))});
  require(trusted || !trusted.error().message.empty());
  static const auto balancers = *ledger::api::TrustedProxies::parse({"10.0.0.0/8"});
  const std::string source = ledger::api::forwarded_source("10.0.0.2:5000", bytes, balancers);
  require(source == "10.0.0.2:5000" || source.find_first_not_of("0123456789abcdef.:") == std::string::npos);
  return 0;
}
