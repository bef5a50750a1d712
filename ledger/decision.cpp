#include "ledger/decision.h"

namespace ledger {

std::string_view reason_name(TokenResult result) {
  switch (result) {
    case TokenResult::accepted: return "accepted";
    case TokenResult::missing: return "missing";
    case TokenResult::malformed: return "malformed";
    case TokenResult::unknown_principal: return "unknown_principal";
    case TokenResult::wrong_secret: return "wrong_secret";
    case TokenResult::expired: return "expired";
    case TokenResult::revoked: return "revoked";
    case TokenResult::superseded: return "superseded";
    case TokenResult::wrong_class: return "wrong_class";
  }
  fatal("a TokenResult without a name");
}

std::string_view reason_name(HeaderResult result) {
  switch (result) {
    case HeaderResult::complete: return "complete";
    case HeaderResult::node_name_missing: return "node_name_missing";
    case HeaderResult::node_name_invalid: return "node_name_invalid";
    case HeaderResult::node_password_missing: return "node_password_missing";
    case HeaderResult::node_name_mismatch: return "node_name_mismatch";
    case HeaderResult::node_unknown: return "node_unknown";
    case HeaderResult::bad_request: return "bad_request";
    case HeaderResult::bad_csr: return "bad_csr";
  }
  fatal("a HeaderResult without a name");
}

std::string_view name_of(Ruling ruling) {
  switch (ruling) {
    case Ruling::admit_first: return "admit_first";
    case Ruling::admit_known: return "admit_known";
    case Ruling::refuse_token: return "refuse_token";
    case Ruling::refuse_headers: return "refuse_headers";
    case Ruling::refuse_mismatch: return "refuse_mismatch";
    case Ruling::refuse_held: return "refuse_held";
    case Ruling::refuse_unverified: return "refuse_unverified";
  }
  fatal("a Ruling without a name");
}

std::optional<Ruling> ruling_from_name(std::string_view name) {
  for (const Ruling ruling :
       {Ruling::admit_first, Ruling::admit_known, Ruling::refuse_token, Ruling::refuse_headers,
        Ruling::refuse_mismatch, Ruling::refuse_held, Ruling::refuse_unverified})
    if (name_of(ruling) == name) return ruling;
  return std::nullopt;
}

Ruling decide(const Evidence& evidence) {
  if (evidence.token != TokenResult::accepted) return Ruling::refuse_token;
  if (evidence.headers != HeaderResult::complete) return Ruling::refuse_headers;
  const NodeState& node = evidence.node;
  if (node.is_bound() && !node.bound.known()) {
    if (!evidence.hash_match) return Ruling::refuse_unverified;
    return *evidence.hash_match && evidence.presented.known() ? Ruling::admit_known : Ruling::refuse_mismatch;
  }
  // Not knowing what is bound and not knowing what was presented are not "the same password".
  const bool same = node.bound.known() && node.bound == evidence.presented;
  if (node.is_bound()) return same ? Ruling::admit_known : Ruling::refuse_mismatch;
  return node.held ? Ruling::refuse_held : Ruling::admit_first;
}

}  // namespace ledger
