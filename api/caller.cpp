#include "api/caller.h"

#include <algorithm>

namespace ledger::api {
namespace {

constexpr std::string_view kNodePrefix = "system:node:";

bool has_scheme(std::string_view header, std::string_view scheme) {
  return header.size() > scheme.size() && to_lower(header.substr(0, scheme.size())) == scheme &&
         header[scheme.size()] == ' ';
}

TokenCheck check_secret(TokenUser user, const Secret& secret, const Credentials& credentials, const Ledger& ledger) {
  const Credentials::Known known = credentials.known_by(secret);
  return ledger.check_token(user, known.id, known.fingerprint, Time::now());
}

// What the token table said of the secret of an agent or a server.
void take(const TokenCheck& check, Role role, Caller& caller) {
  if (check.result == TokenResult::accepted) {
    caller.auth.token = check.token;
    caller.role = role;
    caller.superseded = check.superseded;
  } else {
    caller.old_token = check.token;
  }
}

Caller identify_basic(std::string_view header, const Credentials& credentials, const Ledger& ledger) {
  Caller caller;
  caller.auth.method = "basic";
  const Result<BasicCredential> credential = BasicCredential::parse(header);
  if (!credential) {
    caller.result = TokenResult::malformed;
    return caller;
  }
  const bool is_node = credential->user == "node";
  if (!is_node && credential->user != "server") {
    caller.result = TokenResult::unknown_principal;
    caller.auth.principal = "(unknown)";
    return caller;
  }
  caller.auth.principal = credential->user;
  const TokenCheck check =
      check_secret(is_node ? TokenUser::node : TokenUser::server, credential->password, credentials, ledger);
  caller.result = check.result;
  take(check, is_node ? Role::agent : Role::server, caller);
  return caller;
}

// A bootstrap token, as kubeadm's: its first half is public and finds it, the whole is the secret.
Caller identify_bootstrap(const Secret& text, const Credentials& credentials, const Ledger& ledger) {
  Caller caller;
  caller.auth = {.method = "bearer", .principal = "(unknown)", .token = {}, .serial = {}};
  const std::string id(text.reveal().substr(0, text.reveal().find('.')));
  const TokenCheck check =
      ledger.check_token(TokenUser::bootstrap, id, credentials.known_by(text).fingerprint, Time::now());
  const bool known = !check.token.empty() || ledger.find_token("bootstrap", id);
  caller.result = known ? check.result : TokenResult::unknown_principal;
  if (known) caller.auth.principal = "system:bootstrap:" + id;
  take(check, Role::agent, caller);
  return caller;
}

Caller identify_bearer(std::string_view header, const Credentials& credentials, const Ledger& ledger) {
  Caller caller;
  caller.auth = {.method = "bearer", .principal = "(unknown)", .token = {}, .serial = {}};
  const Result<Secret> text = parse_bearer(header);
  if (!text) {
    caller.result = TokenResult::malformed;
    return caller;
  }
  if (is_bootstrap_token(text->reveal())) return identify_bootstrap(*text, credentials, ledger);
  // An operator's token, or one that agents present by Basic: good, but not here and not so.
  const TokenCheck check = check_secret(TokenUser::operators, *text, credentials, ledger);
  caller.old_token = check.token;
  caller.result = check.token.empty() ? TokenResult::unknown_principal : check.result;
  const bool still_good = check.result == TokenResult::accepted || check.result == TokenResult::wrong_secret;
  if (!check.token.empty() && still_good) caller.result = TokenResult::wrong_class;
  return caller;
}

Caller identify_certificate(const Request& request, const Issuer& issuer) {
  Caller caller;
  caller.auth.method = "certificate";
  CertificateClaim claim;
  const Result<ClientIdentity> identity = issuer.authenticate(request.certificate, Time::now(), &claim);
  if (!identity) {
    caller.result = TokenResult::unknown_principal;
    caller.auth.principal = "(unknown)";
    caller.certificate_fault = claim.fault;
    if (claim.common_name.starts_with(kNodePrefix))
      if (const auto node = NodeName::parse(std::string_view(claim.common_name).substr(kNodePrefix.size())))
        caller.claimed_node = node->str();
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
    caller = identify_bearer(header, credentials, ledger);
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
    if (permitted(certified) || header.empty()) {
      caller = std::move(certified);
    } else {
      caller.certificate_fault = std::move(certified.certificate_fault);
      caller.claimed_node = std::move(certified.claimed_node);
    }
  }
  if (caller.result == TokenResult::accepted && !permitted(caller)) caller.result = TokenResult::wrong_class;
  return caller;
}

OperatorCaller identify_operator(const Request& request, const Credentials& credentials, const Ledger& ledger) {
  OperatorCaller caller;
  const std::string_view header = request.header("authorization");
  caller.auth.method = header.empty() ? "none" : "bearer";
  const Result<Secret> text = parse_bearer(header);
  if (!text) {
    caller.result = text.error().code == Errc::not_found ? TokenResult::missing : TokenResult::malformed;
    return caller;
  }
  const TokenCheck check = check_secret(TokenUser::operators, *text, credentials, ledger);
  caller.result = check.result;
  caller.old_token = check.token;
  if (check.result == TokenResult::accepted) {
    caller.auth.token = check.token;
    caller.may_change = check.role == "operate";
  } else if (check.result == TokenResult::wrong_secret && !check.token.empty()) {
    caller.result = TokenResult::wrong_class;
  }
  return caller;
}

UpstreamIdentity identity_for(const Request& request, const Issuer& issuer, Plane plane) {
  if (request.certificate.empty()) return {};
  Result<ClientIdentity> identity = issuer.authenticate(request.certificate, Time::now());
  if (!identity) return {};
  const auto kind = plane == Plane::kubernetes ? UpstreamIdentity::Kind::front_proxy
                                               : UpstreamIdentity::Kind::certificate;
  return {.kind = kind, .user = std::move(identity->common_name), .groups = std::move(identity->organizations)};
}

}  // namespace ledger::api
