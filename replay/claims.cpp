#include "replay/claims.h"

#include "ledger/disagreement.h"

namespace ledger::replay {

// What an accepted certificate says is the principal; of one that is not accepted it is "(unknown)".
NameIs name_is(const Record& record) {
  if (record.node.empty()) return NameIs::nobodys;
  switch (record.kind()) {
    case Kind::password_stored:
    case Kind::password_verified:
    case Kind::certificate_issued:
    case Kind::tunnel_opened:
    case Kind::tunnel_closed: return NameIs::proven;
    case Kind::token_accepted:
    case Kind::password_rejected:
    case Kind::request_rejected: {
      const bool certified =
          record.auth.method == "certificate" && record.auth.principal == "system:node:" + record.node;
      // That is said to a valid certificate alone.
      const auto* rejected = as<RequestRejected>(record);
      const bool released = rejected != nullptr && rejected->reason == "node_unknown";
      return certified || released ? NameIs::proven : NameIs::claimed;
    }
    case Kind::token_rejected:
    case Kind::tls_failed: return NameIs::claimed;
    default: return NameIs::nobodys;
  }
}

std::string_view name_of(NameIs name) {
  switch (name) {
    case NameIs::nobodys: return "";
    case NameIs::claimed: return "claimed";
    case NameIs::proven: return "proven";
  }
  return "";
}

bool is_bare_claim(const Record& record) {
  if (name_is(record) != NameIs::claimed) return false;
  const Kind kind = record.kind();
  // An upstream refused it, and here it is valid.
  if (kind == Kind::token_rejected && disagreement_of(record) == Disagreement::upstream_refused) return false;
  return kind == Kind::token_rejected || kind == Kind::tls_failed ||
         (kind == Kind::request_rejected && record.auth.token.empty() && record.auth.serial.empty());
}

}  // namespace ledger::replay
