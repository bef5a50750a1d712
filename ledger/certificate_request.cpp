#include "ledger/certificate_request.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>

#include "ledger/openssl_handles.h"
#include "ledger/types.h"

namespace ledger {
namespace {

using RequestPtr = std::unique_ptr<X509_REQ, FreeWith<X509_REQ_free>>;
using NumberPtr = std::unique_ptr<BIGNUM, FreeWith<BN_free>>;

constexpr std::size_t kMaxRequest = 16 << 10;
constexpr int kMinRsaBits = 2048, kMaxRsaBits = 4096, kMaxRsaExponentBits = 31;
constexpr std::size_t kEd25519Bytes = 32;
constexpr const char* kWanted = "use EC P-256 or P-384, RSA of 2048 to 4096 bits, or Ed25519";

Error refused(std::string why) { return {Errc::invalid, "certificate request " + std::move(why)}; }

std::string name_of(const ASN1_OBJECT* object) {
  char text[80] = {};
  OBJ_obj2txt(text, sizeof text, object, 0);
  return printable(text, sizeof text);
}

Result<RequestPtr> decode(std::string_view der) {
  if (der.empty()) return refused("is missing: the body is empty, PKCS#10 in DER is expected");
  if (der.size() > kMaxRequest)
    return refused("is larger than 16 KiB (" + std::to_string(der.size()) + " bytes)");
  if (trim(der).starts_with("-----BEGIN")) return refused("is PEM; send DER (openssl req ... -outform DER)");
  const unsigned char* at = bytes_of(der);
  long length = 0;
  int tag = 0, tag_class = 0;
  const int form = ASN1_get_object(&at, &length, &tag, &tag_class, static_cast<long>(der.size()));
  constexpr int kConstructed = 0x20, kIndefiniteOrBroken = 0x81;
  if ((form & kIndefiniteOrBroken) != 0 || (form & kConstructed) == 0 || tag != V_ASN1_SEQUENCE)
    return refused("is not PKCS#10 in DER, or is cut short");
  const auto total = static_cast<std::size_t>(at - bytes_of(der)) + static_cast<std::size_t>(length);
  if (total < der.size())
    return refused("is followed by " + std::to_string(der.size() - total) + " bytes that do not belong to it");
  at = bytes_of(der);
  RequestPtr request(d2i_X509_REQ(nullptr, &at, static_cast<long>(der.size())));
  if (request == nullptr) return refused("is not PKCS#10 in DER: " + openssl_reason());
  return request;
}

Result<PublicKey> read_ec(std::string_view bits, int parameter_type, const void* parameter) {
  if (parameter_type != V_ASN1_OBJECT)
    return refused("has an EC key without a named curve; use P-256 or P-384, by name");
  const auto* curve = static_cast<const ASN1_OBJECT*>(parameter);
  const int nid = OBJ_obj2nid(curve);
  if (nid != NID_X9_62_prime256v1 && nid != NID_secp384r1)
    return refused("has a key on the curve " + name_of(curve) + "; " + kWanted);
  const std::size_t coordinate = nid == NID_X9_62_prime256v1 ? 32 : 48;
  if (bits.size() != 2 * coordinate + 1 || bits[0] != POINT_CONVERSION_UNCOMPRESSED)
    return refused("has an EC key that is not an uncompressed point of its curve");
  return PublicKey{NID_X9_62_id_ecPublicKey, nid, std::string(bits)};
}

Result<PublicKey> read_rsa(const EVP_PKEY* key) {
  const int bits = EVP_PKEY_get_bits(key);
  if (bits < kMinRsaBits || bits > kMaxRsaBits)
    return refused("has an RSA key of " + std::to_string(bits) + " bits; " + kWanted);
  BIGNUM* number = nullptr;
  must(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &number) == 1, "reading an RSA key");
  const NumberPtr exponent(number);
  if (BN_num_bits(number) > kMaxRsaExponentBits || BN_is_one(number) || !BN_is_odd(number))
    return refused("has an RSA key whose exponent is not an odd number from 3 to 2^31");
  // Encoded anew, so that what was written in another way than DER's does not get into a certificate.
  return PublicKey{NID_rsaEncryption, 0, der_of<i2d_PublicKey>(key)};
}

// Kind and size of the key are looked at before anything is computed with it.
Result<PublicKey> read_key(const X509_REQ* request, const EVP_PKEY* key) {
  ASN1_OBJECT* algorithm = nullptr;
  const unsigned char* bytes = nullptr;
  int length = 0;
  X509_ALGOR* description = nullptr;
  must(X509_PUBKEY_get0_param(&algorithm, &bytes, &length, &description,
                              X509_REQ_get_X509_PUBKEY(const_cast<X509_REQ*>(request))) == 1,
       "reading a public key");
  const std::string_view bits(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
  int parameter_type = V_ASN1_UNDEF;
  const void* parameter = nullptr;
  X509_ALGOR_get0(nullptr, &parameter_type, &parameter, description);
  const int nid = OBJ_obj2nid(algorithm);
  if (nid != NID_X9_62_id_ecPublicKey && nid != NID_rsaEncryption && nid != NID_ED25519)
    return refused("has a key of the kind " + name_of(algorithm) + "; " + kWanted);
  if (nid == NID_X9_62_id_ecPublicKey) {
    Result<PublicKey> read = read_ec(bits, parameter_type, parameter);
    if (!read || key != nullptr) return read;
  }
  if (key == nullptr) return refused("has a public key that cannot be read");
  if (nid == NID_rsaEncryption) return read_rsa(key);
  if (bits.size() != kEd25519Bytes) return refused("has a public key that cannot be read");
  return PublicKey{NID_ED25519, 0, std::string(bits)};
}

}  // namespace

Result<PublicKey> read_certificate_request(std::string_view der) {
  const ErrorScope errors;
  const Result<RequestPtr> request = decode(der);
  if (!request) return request.error();
  EVP_PKEY* const key = X509_REQ_get0_pubkey(request->get());
  Result<PublicKey> read = read_key(request->get(), key);
  if (!read) return read;
  // Whoever asks must hold the key: k3s does not look.
  if (X509_REQ_verify(request->get(), key) != 1)
    return refused("is not signed with its own key: the signature does not fit");
  return read;
}

}  // namespace ledger
