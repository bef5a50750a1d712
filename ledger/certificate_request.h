// Reads the certificate request (CSR) that agents of k3s v1.32.1 and later POST: their key stays on their machine.
// Only the public key is taken from it. Subject and extensions are whatever they are (k3s sends none) and are
// passed over: what a certificate says is decided by who asks, never by what is asked for.
//
// Pure; any thread.
#pragma once

#include <string>
#include <string_view>

#include "ledger/result.h"

namespace ledger {

// A public key as a certificate carries it (SubjectPublicKeyInfo).
struct PublicKey {
  int algorithm = 0;  // OpenSSL's number of the algorithm
  int curve = 0;      // and of the curve, of an EC key; else 0
  std::string bits;   // the subjectPublicKey bit string
};

// `der` must be one PKCS#10 request in DER of at most 16 KiB with nothing behind it, signed with its own key, which
// is EC P-256 or P-384 (uncompressed, the curve by name), RSA of 2048 to 4096 bits (exponent below 2^31: Go
// refuses larger ones) or Ed25519. Errc::invalid says what was wrong; it repeats names of algorithms and
// nothing else of the request. About 0.15 ms for P-256.
Result<PublicKey> read_certificate_request(std::string_view der);

}  // namespace ledger
