// Who is asking: the credential of a request, checked. Pure apart from reading the ledger; any thread.
#pragma once

#include <string>

#include "api/http.h"
#include "api/upstream.h"
#include "ledger/credentials.h"
#include "ledger/decision.h"
#include "ledger/event.h"
#include "ledger/issuer.h"
#include "ledger/ledger.h"

namespace ledger::api {

enum class Role {
  none,
  agent,       // user `node`, <program>:agent; or a bootstrap token
  server,      // user `server`, <program>:server
  node,        // certificate system:node:<name>, O=system:nodes
  controller,  // certificate system:<program>-controller: the agents' own reader of endpoints
};

struct Caller {
  TokenResult result = TokenResult::missing;
  Role role = Role::none;
  Auth auth;              // for the record: never a secret
  bool superseded = false;  // accepted with a replaced token, in its grace period
  std::string node;       // role node: the name in the certificate
  std::string old_token;  // id of a presented secret that was valid once, or is for something else
  // Of a certificate that is not accepted: why, and the node that it names. A claim, never `node`.
  std::string certificate_fault{}, claimed_node{};
};

// Authorization first, then the certificate: one that is valid decides (k3s tries Basic first; agents with an
// old certificate beside a good token must get in). `allowed` says which roles may call; a valid identity
// with another role is wrong_class.
Caller identify(const Request& request, const Credentials& credentials, const Issuer& issuer, const Ledger& ledger,
                std::initializer_list<Role> allowed);

// Who asks on the operators' API: Bearer with an operator token. `auth` names the token where it is one.
struct OperatorCaller {
  TokenResult result = TokenResult::missing;
  bool may_change = false;  // role operate; read may only look
  Auth auth;
  std::string old_token;
};
OperatorCaller identify_operator(const Request& request, const Credentials& credentials, const Ledger& ledger);

// As whom this request goes to an upstream: what its client certificate proved, where Issuer::authenticate() takes it;
// else as nobody. What it shows in headers goes along by itself (docs/decisions/0008-upstream-identity.md).
UpstreamIdentity identity_for(const Request& request, const Issuer& issuer, Plane plane);

}  // namespace ledger::api
