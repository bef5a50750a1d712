#include "api/agent_keys.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <vector>

#include "ledger/credentials.h"
#include "ledger/openssl_handles.h"

namespace ledger::api {

namespace {

using BioPtr = std::unique_ptr<BIO, FreeWith<BIO_free_all>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using RequestPtr = std::unique_ptr<X509_REQ, FreeWith<X509_REQ_free>>;
using CertificatePtr = std::unique_ptr<X509, FreeWith<X509_free>>;
using StorePtr = std::unique_ptr<X509_STORE, FreeWith<X509_STORE_free>>;
using StoreContextPtr = std::unique_ptr<X509_STORE_CTX, FreeWith<X509_STORE_CTX_free>>;
using Stack = STACK_OF(X509);
using StackPtr = std::unique_ptr<Stack, FreeWith<[](Stack* stack) { sk_X509_free(stack); }>>;

std::vector<CertificatePtr> parse_certificates(const std::string& pem) {
  const ErrorScope errors;  // the end of the text is an error to OpenSSL
  std::vector<CertificatePtr> out;
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) out.emplace_back(certificate);
  return out;
}

bool counts_as_root(X509* certificate) {
  const ASN1_OCTET_STRING* authority = X509_get0_authority_key_id(certificate);
  const ASN1_OCTET_STRING* own = X509_get0_subject_key_id(certificate);
  return authority == nullptr || (own != nullptr && ASN1_OCTET_STRING_cmp(authority, own) == 0);
}

// DER of the root of the first certificate, or empty.
std::string root_of(const std::vector<CertificatePtr>& bundle) {
  const ErrorScope errors;
  const StorePtr roots(X509_STORE_new());
  const StackPtr between(sk_X509_new_null());
  for (std::size_t i = 1; i < bundle.size(); ++i) {
    if (counts_as_root(bundle[i].get()))
      X509_STORE_add_cert(roots.get(), bundle[i].get());
    else
      sk_X509_push(between.get(), bundle[i].get());
  }
  // To Go every certificate of the pool is an anchor, self-signed or not.
  X509_STORE_set_flags(roots.get(), X509_V_FLAG_PARTIAL_CHAIN);
  const StoreContextPtr context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), roots.get(), bundle[0].get(), between.get());
  if (X509_verify_cert(context.get()) != 1) return "";
  Stack* chain = X509_STORE_CTX_get0_chain(context.get());
  return der_of<i2d_X509>(sk_X509_value(chain, sk_X509_num(chain) - 1));
}

}  // namespace

Secret fresh_key_pem() {
  const KeyPtr key(EVP_EC_gen("P-256"));
  const BioPtr out(BIO_new(BIO_s_secmem()));
  if (!key || PEM_write_bio_PrivateKey_traditional(out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1)
    fatal("OpenSSL cannot make a P-256 key");
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return Secret({text, static_cast<std::size_t>(size)});
}

Result<std::string> make_csr(const Secret& key_pem) {
  const ErrorScope errors;
  const BioPtr in(BIO_new_mem_buf(key_pem.reveal().data(), static_cast<int>(key_pem.reveal().size())));
  const auto no_passphrase = [](char*, int, int, void*) { return -1; };
  const KeyPtr key(PEM_read_bio_PrivateKey(in.get(), nullptr, no_passphrase, nullptr));
  if (!key) return Error{Errc::invalid, "data does not contain a valid RSA or ECDSA private key"};
  const RequestPtr request(X509_REQ_new());
  if (!request || X509_REQ_set_pubkey(request.get(), key.get()) != 1 ||
      X509_REQ_sign(request.get(), key.get(), EVP_sha256()) <= 0)
    return Error{Errc::invalid, "x509: only RSA and ECDSA keys supported"};
  return der_of<i2d_X509_REQ>(request.get());
}

std::string bundle_hash(const std::string& bundle_pem) {
  const std::vector<CertificatePtr> bundle = parse_certificates(bundle_pem);
  if (bundle.empty()) return "";
  const std::string root = bundle.size() > 1 ? root_of(bundle) : "";
  return sha256_hex(root.empty() ? bundle_pem : root);
}

}  // namespace ledger::api
