// The rule of admission: one pure function from evidence to a ruling. No clock, no disk, no network, no
// secrets; any thread. The server asks it before it answers, `ledger replay` asks it again over history.
//
// The truth table is tests/ledger/decision_test.cpp; a row there is the documentation of a case.
// What each ruling says to a client (status, body) is api/problem.cpp's business alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "ledger/node_table.h"
#include "ledger/types.h"

namespace ledger {

// What became of the credential a request carried. Numbers are fixed; names are token_rejected's `reason`.
enum class TokenResult : std::uint8_t {
  accepted = 0,
  missing = 1,            // no credential at all
  malformed = 2,          // an Authorization header we cannot read
  unknown_principal = 3,  // a user we do not have, or a certificate our client CA did not sign
  wrong_secret = 4,
  expired = 5,
  revoked = 6,
  superseded = 7,   // was valid until a rotation
  wrong_class = 8,  // valid, but not for this endpoint (k3s: a server token's user on an agent path)
};
std::string_view reason_name(TokenResult result);

// What the request says about the node it speaks for. Names are request_rejected's `reason`.
enum class HeaderResult : std::uint8_t {
  complete = 0,
  node_name_missing = 1,
  node_name_invalid = 2,
  node_password_missing = 3,
  node_name_mismatch = 4,  // the client certificate names another node
  node_unknown = 5,        // the client certificate names a node that was released
  bad_request = 6,         // a header given twice, or an address list that is none
  bad_csr = 7,             // a certificate request that cannot be signed (certificate_request.h)
};
std::string_view reason_name(HeaderResult result);

struct Evidence {
  TokenResult token = TokenResult::missing;
  HeaderResult headers = HeaderResult::complete;
  NodeState node;         // the name as the log has it
  Fingerprint presented;  // of the node password in the request
  // Where the name is bound by a hash of k3s: whether the password is that of the hash. nullopt: it could not be
  // compared (no hash is kept, too many are waiting, no memory).
  std::optional<bool> hash_match{};
};

// Numbers are fixed and never reused.
enum class Ruling : std::uint8_t {
  admit_first = 1,      // the name was free: bind it to this password
  admit_known = 2,      // the password is the bound one
  refuse_token = 3,     // Evidence::token says why
  refuse_headers = 4,   // Evidence::headers says why
  refuse_mismatch = 5,  // bound to another password
  refuse_held = 6,      // free, but an operator must say who may have it
  refuse_unverified = 7,  // bound by a hash that the password could not be compared with: no verdict on the password
};

// Record::would_have, and back.
std::string_view name_of(Ruling ruling);
std::optional<Ruling> ruling_from_name(std::string_view name);
// Beside a ruling's name Record::would_have can be this: a document that any valid credential gets.
inline constexpr std::string_view kWouldServe = "serve";

inline bool admitted(Ruling ruling) { return ruling == Ruling::admit_first || ruling == Ruling::admit_known; }

// The first thing that is wrong decides, in the order token, headers, password: nobody without a valid token
// learns anything about a name. First registration wins (k3s, protocol: trust on first use).
Ruling decide(const Evidence& evidence);

}  // namespace ledger
