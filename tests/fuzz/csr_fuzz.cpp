// Whatever is POSTed as a certificate request: an answer, never a crash; what is refused says why, in text that can be
// printed; what is taken is a key of a kind and size that was promised.
#include <openssl/err.h>
#include <openssl/obj_mac.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "ledger/certificate_request.h"
#include "ledger/types.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view der(reinterpret_cast<const char*>(data), size);
  const auto key = ledger::read_certificate_request(der);
  if (ERR_peek_error() != 0) std::abort();
  if (!key) {
    const std::string& why = key.error().message;
    if (why.empty() || ledger::printable(why, why.size()) != why) std::abort();
    return 0;
  }
  const std::size_t length = key->bits.size();
  const bool ec = key->algorithm == NID_X9_62_id_ecPublicKey &&
                  length == (key->curve == NID_X9_62_prime256v1 ? 65U : 97U);
  const bool rsa = key->algorithm == NID_rsaEncryption && length >= 256 && length < 600;
  const bool ed25519 = key->algorithm == NID_ED25519 && length == 32;
  if (!ec && !rsa && !ed25519) std::abort();
  return 0;
}
