#include "replay/redaction.h"

#include "ledger/credentials.h"

namespace ledger::replay {
namespace {

constexpr std::string_view kNodePrincipal = "system:node:";
constexpr std::size_t kDigits = 16;

bool is_host_name(std::string_view upstream) {
  const std::string_view host = host_of(upstream);
  return host.find(':') == std::string_view::npos && host.find_first_not_of("0123456789.") != std::string_view::npos;
}

}  // namespace

// The fields of events in which a name or free text stands.
struct Redaction::Fields {
  const Redaction& redaction;

  void name(std::string_view prefix, std::string& text) const {
    if (redaction.names_) text = redaction.name(prefix, text);
  }
  // "system:node:web-1", "CN=system:node:web-1,O=system:nodes"; others name no node.
  void principal(std::string& text) const {
    const auto at = text.find(kNodePrincipal);
    if (!redaction.names_ || at == std::string::npos) return;
    const auto begin = at + kNodePrincipal.size();
    const auto end = std::min(text.find_first_of(",/+ ", begin), text.size());
    text.replace(begin, end - begin, redaction.name("node", text.substr(begin, end - begin)));
  }

  template <class Event>
  void operator()(Event& event) const {
    if constexpr (requires { event.actor; }) name("person", event.actor);
    if constexpr (requires { event.description; }) event.description.clear();
    if constexpr (requires { event.also_bound_to; }) name("node", event.also_bound_to);
    if constexpr (requires { event.subject; }) principal(event.subject);
  }
  void operator()(TunnelClosed& event) const { event.cause.clear(); }
  void operator()(UpstreamLost& event) const { event.cause.clear(); }
  void operator()(ModeChanged& event) const {
    name("person", event.actor);
    if (redaction.addresses_ || redaction.names_) event.upstreams.clear();
  }
};

std::string Redaction::name(std::string_view prefix, const std::string& text) const {
  if (text.empty()) return text;
  return std::string(prefix) + "-" + hmac_sha256_hex(key_, std::string(prefix) + " " + text).substr(0, kDigits);
}

std::string Redaction::address(const std::string& source) const {
  if (source.empty()) return source;
  const std::string_view host = host_of(source);
  const std::string digits = hmac_sha256_hex(key_, "address " + std::string(host));
  std::string out = "2001:db8";
  for (std::size_t group = 0; group < 6; ++group) out += ":" + digits.substr(4 * group, 4);
  const auto colon = source.rfind(':');
  const bool has_port = source.size() > host.size() && colon != std::string::npos && source.back() != ']';
  return has_port ? "[" + out + "]" + source.substr(colon) : out;
}

void Redaction::apply(Record& record) const {
  const Fields fields{*this};
  record.note.clear();
  std::visit(fields, record.event);
  if (addresses_) {
    record.source = address(record.source);
    record.via = address(record.via);
    if (!is_host_name(record.upstream)) record.upstream = address(record.upstream);
    for (std::string& claimed : record.claimed) claimed = address(claimed);
  }
  fields.name("node", record.node);
  fields.name("server", record.server);
  if (is_host_name(record.upstream)) fields.name("server", record.upstream);
  fields.principal(record.auth.principal);
}

}  // namespace ledger::replay
