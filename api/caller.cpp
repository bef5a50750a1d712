#include "api/caller.h"

#include <algorithm>

namespace ledger::api {
namespace {

constexpr std::string_view kNodePrefix = "system:node:";

bool has_scheme(std::string_view header, std::string_view scheme) {
  return header.size() > scheme.size() && to_lower(header.substr(0, scheme.size())) == scheme &&
         header[scheme.size()] == ' ';
}

// A secret that is wrong now may have been right once: the token table remembers.
TokenResult judge_past(const std::optional<TokenState>& past) {
  if (!past) return TokenResult::wrong_secret;
  switch (past->status) {
    case TokenState::Status::superseded: return TokenResult::superseded;
    case TokenState::Status::revoked: return TokenResult::revoked;
    case TokenState::Status::expired: return TokenResult::expired;
    case TokenState::Status::valid: return TokenResult::wrong_secret;  // valid for another user
  }
  fatal("a token status that is none");
}

Caller identify_basic(std::string_view header, const Credentials& credentials, const Ledger& ledger) {
  Caller caller;
  caller.auth.method = "basic";
  const Result<BasicCredential> credential = BasicCredential::parse(header);
  if (!credential) {
    caller.result = TokenResult::malformed;
    return caller;
  }
  const Credentials::Verdict verdict = credentials.check(*credential);
  caller.result = verdict.result;
  const bool known_user = verdict.result != TokenResult::unknown_principal;
  caller.auth.principal = known_user ? credential->user : "(unknown)";
  if (verdict.result == TokenResult::accepted) {
    caller.auth.token = verdict.token_id;
    caller.role = credential->user == "node" ? Role::agent : Role::server;
  } else if (verdict.result == TokenResult::wrong_secret) {
    const std::optional<TokenState> past = ledger.find_token(verdict.token_id);
    caller.result = judge_past(past);
    if (past) caller.old_token = past->id;
  }
  return caller;
}

Caller identify_certificate(const Request& request, const Issuer& issuer) {
  Caller caller;
  caller.auth.method = "certificate";
  const Result<ClientIdentity> identity = issuer.authenticate(request.certificate, Time::now());
  if (!identity) {
    caller.result = TokenResult::unknown_principal;
    caller.auth.principal = "(unknown)";
    return caller;
  }
  caller.result = TokenResult::accepted;
  caller.auth.principal = printable(identity->common_name, 280);
  caller.auth.serial = identity->serial;
  const auto& groups = identity->organizations;
  const bool in_nodes = std::find(groups.begin(), groups.end(), "system:nodes") != groups.end();
  if (in_nodes && identity->common_name.starts_with(kNodePrefix)) {
    caller.role = Role::node;
    caller.node = to_lower(std::string_view(identity->common_name).substr(kNodePrefix.size()));
  } else if (identity->common_name == issuer.program().controller_user) {
    caller.role = Role::controller;
  }
  return caller;
}

}  // namespace

Caller identify(const Request& request, const Credentials& credentials, const Issuer& issuer, const Ledger& ledger,
                std::initializer_list<Role> allowed) {
  const std::string_view header = request.header("authorization");
  Caller caller;
  caller.auth.method = "none";
  if (has_scheme(header, "basic")) {
    caller = identify_basic(header, credentials, ledger);
  } else if (has_scheme(header, "bearer")) {
    caller.auth = {.method = "bearer", .principal = "(unknown)", .token = {}, .serial = {}};
    caller.result = TokenResult::unknown_principal;
  } else if (!header.empty()) {
    caller.result = TokenResult::malformed;
  }
  const auto permitted = [&](const Caller& who) {
    return who.result == TokenResult::accepted &&
           std::find(allowed.begin(), allowed.end(), who.role) != allowed.end();
  };
  if (permitted(caller)) return caller;
  if (!request.certificate.empty()) {
    Caller certified = identify_certificate(request, issuer);
    if (permitted(certified) || header.empty()) caller = std::move(certified);
  }
  if (caller.result == TokenResult::accepted && !permitted(caller)) caller.result = TokenResult::wrong_class;
  return caller;
}

}  // namespace ledger::api
