// The keys of agents that keep them to themselves (generation G7), and the hash of a CA bundle as agents of G6 and
// later take it. Hides libcrypto. Pure apart from the random generator; any thread.
#pragma once

#include <string>
#include <string_view>

#include "ledger/types.h"

namespace ledger::api {

// A fresh ECDSA P-256 key, PEM `EC PRIVATE KEY`.
Secret fresh_key_pem();

// A PKCS#10 request, DER: empty subject, no extensions, signed with the key and SHA-256. The error is the agent's.
Result<std::string> make_csr(const Secret& key_pem);

// The CA hash in a token, lower-case hex. One certificate: SHA-256 of the bytes. Several: SHA-256 of the DER of the
// root that the first one leads to (those after it without an authority key id, or with their own as such, are
// roots; the others may lie between), of the bytes when it leads to none. No certificate: empty.
std::string bundle_hash(const std::string& bundle_pem);

}  // namespace ledger::api
