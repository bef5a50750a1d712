// What a request for a certificate says, and what the log keeps of a request: for those who decide (registration.h) and
// those who write down what another server decided (observation.h). Neither may take a request for another than the
// other does. Any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/caller.h"
#include "api/http.h"
#include "ledger/certificate_request.h"
#include "ledger/decision.h"
#include "ledger/issuer.h"
#include "ledger/ledger.h"

namespace ledger::api {

// The certificate of "client-kubelet.crt" and the three like it: what follows the program's prefix in a path.
std::optional<Purpose> purpose_of(std::string_view endpoint, const Program& program);

// What the request says about its node, taken apart once.
struct NodeHeaders {
  HeaderResult result = HeaderResult::complete;
  std::string detail;  // for the person, where the result needs one
  NodeName name;
  std::vector<std::string> addresses;  // claimed, canonical
  Secret password;

  // The first that is wrong counts.
  void fail(HeaderResult why, std::string said = {});
};
NodeHeaders parse_headers(const Request& request, const Caller& caller, const Program& program);

// The node that a request says it is from, proven by nothing. A name that is none is not kept.
std::string claimed_in_header(const Request& request, const Program& program);

// The key that the certificate is for, where the caller brings one: agents from v1.32.1 on POST a request for it.
struct BroughtKey {
  std::optional<PublicKey> key;
  std::string fault;  // not empty: the request cannot be signed

  explicit BroughtKey(const Request& request);
  const PublicKey* get() const { return key ? &*key : nullptr; }
};

// A record of this request by this caller, with everything common filled in.
Record record_of(const Request& request, const Caller& caller, Event event);

// token_rejected's `reason`. A certificate of ours that only its time speaks against is told apart: its machine needs a
// clock or a token.
std::string refusal_reason(const Caller& caller);
// The record of a caller who is refused: what he claims to be, and what is wrong with his certificate. `node`: what the
// request names; may be empty.
Record refused_token(const Request& request, const Caller& caller, int status, const std::string& node,
                     const Program& program);

// What is odd about a password is noticed when it is bound, while its text is there. Reads the log.
PasswordStored first_binding(const Ledger& ledger, const NodeHeaders& headers, const Fingerprint& presented);

CertificateIssued issued_event(const IssuedCertificate& certificate, Purpose purpose, const Program& program);

}  // namespace ledger::api
