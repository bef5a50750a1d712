// Client certificates that no server of ours would sign: of another CA, or of ours for a time that is not now.
// Made with libcrypto and none of our own code.
#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <filesystem>
#include <memory>
#include <string>

#include "tests/support/run_command.h"
#include "tests/support/running_server.h"

namespace ledger::test {

struct CertificateWish {
  std::string common_name;
  long from_s = -3600, to_s = 3600;  // validity, seconds from now
  std::filesystem::path ca_dir;      // with client-ca.crt and client-ca.key; empty: it signs itself
};

inline Identity make_client_certificate(const CertificateWish& wish) {
  const auto bio_of = [](const std::string& text) {
    return std::shared_ptr<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), BIO_free_all);
  };
  const std::shared_ptr<EVP_PKEY> key(EVP_EC_gen("P-256"), EVP_PKEY_free);
  const std::shared_ptr<X509> made(X509_new(), X509_free);
  std::shared_ptr<X509> ca = made;
  std::shared_ptr<EVP_PKEY> signer = key;
  if (!wish.ca_dir.empty()) {
    const std::string certificate = file_bytes(wish.ca_dir / "client-ca.crt"), secret = file_bytes(wish.ca_dir / "client-ca.key");
    ca.reset(PEM_read_bio_X509(bio_of(certificate).get(), nullptr, nullptr, nullptr), X509_free);
    signer.reset(PEM_read_bio_PrivateKey(bio_of(secret).get(), nullptr, nullptr, nullptr), EVP_PKEY_free);
    EXPECT_TRUE(ca != nullptr && signer != nullptr) << wish.ca_dir;
  }
  X509_set_version(made.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(made.get()), 4711);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), wish.from_s);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), wish.to_s);
  X509_set_pubkey(made.get(), key.get());
  const auto add = [&](const char* field, const std::string& value) {
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made.get()), field, MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(value.data()), static_cast<int>(value.size()), -1, 0);
  };
  add("O", "system:nodes");
  add("CN", wish.common_name);
  X509_set_issuer_name(made.get(), X509_get_subject_name(ca.get()));
  const std::shared_ptr<X509_EXTENSION> usage(
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_ext_key_usage, "clientAuth"), X509_EXTENSION_free);
  X509_add_ext(made.get(), usage.get(), -1);
  EXPECT_GT(X509_sign(made.get(), signer.get(), EVP_sha256()), 0);
  const std::shared_ptr<BIO> out(BIO_new(BIO_s_mem()), BIO_free_all), out_key(BIO_new(BIO_s_mem()), BIO_free_all);
  PEM_write_bio_X509(out.get(), made.get());
  PEM_write_bio_PrivateKey(out_key.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  const auto text_of = [](BIO* bio) {
    char* text = nullptr;
    const long size = BIO_get_mem_data(bio, &text);
    return std::string(text, static_cast<std::size_t>(size));
  };
  return {text_of(out.get()), text_of(out_key.get())};
}

}  // namespace ledger::test
