// PKCS#10 requests as a server sees them, with libcrypto and none of our own code.
#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

namespace ledger::test {

inline std::shared_ptr<X509_REQ> parse_csr(const std::string& der) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(der.data());
  const auto* end = bytes + der.size();
  std::shared_ptr<X509_REQ> request(d2i_X509_REQ(nullptr, &bytes, static_cast<long>(der.size())), X509_REQ_free);
  EXPECT_NE(request, nullptr);
  EXPECT_EQ(bytes, end) << "bytes after the request";
  return request;
}

// DER of the key, after a look at everything that a k3s agent's request has, or has not.
inline std::string public_key_of_csr(const std::string& der) {
  const auto request = parse_csr(der);
  if (request == nullptr) return "";
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  EXPECT_EQ(X509_REQ_verify(request.get(), key), 1);
  EXPECT_EQ(X509_NAME_entry_count(X509_REQ_get_subject_name(request.get())), 0);
  EXPECT_EQ(X509_REQ_get_attr_count(request.get()), 0);
  EXPECT_EQ(X509_REQ_get_signature_nid(request.get()), NID_ecdsa_with_SHA256);
  char group[40] = "";
  EVP_PKEY_get_group_name(key, group, sizeof group, nullptr);
  EXPECT_STREQ(group, "prime256v1");
  unsigned char* bytes = nullptr;
  const int size = i2d_PUBKEY(key, &bytes);
  std::string out(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(size > 0 ? size : 0));
  OPENSSL_free(bytes);
  return out;
}

// A certificate for the key of the request, PEM, signed by nobody in particular.
inline std::string sign_csr(const std::string& der) {
  const auto request = parse_csr(der);
  if (request == nullptr) return "";
  const std::shared_ptr<EVP_PKEY> signer(EVP_EC_gen("P-256"), EVP_PKEY_free);
  const std::shared_ptr<X509> certificate(X509_new(), X509_free);
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  X509_set_pubkey(certificate.get(), X509_REQ_get0_pubkey(request.get()));
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate.get()), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("test"), -1, -1, 0);
  X509_sign(certificate.get(), signer.get(), EVP_sha256());
  const std::shared_ptr<BIO> out(BIO_new(BIO_s_mem()), BIO_free_all);
  PEM_write_bio_X509(out.get(), certificate.get());
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return {text, static_cast<std::size_t>(size)};
}

}  // namespace ledger::test
