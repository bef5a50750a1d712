// Requests as the openssl command makes them, and every way to spoil one. That the certificate is for the key asked
// for is in issuer_test.cpp.
#include "ledger/certificate_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/obj_mac.h>

#include <functional>

#include "tests/support/csr.h"
#include "tests/support/temp_dir.h"

namespace ledger {
namespace {

using test::csr_of_key;
using test::fresh_csr;
using test::put_file;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string said_of(std::string_view der) {
  const auto read = read_certificate_request(der);
  EXPECT_EQ(ERR_peek_error(), 0UL) << "libssl would take it for its own";
  return read ? "accepted" : read.error().message;
}

class CertificateRequest : public testing::Test {
 protected:
  std::string run(const std::string& command) {
    const auto result = test::run_command("cd '" + dir_.path().string() + "' && " + command);
    EXPECT_EQ(result.status, 0) << command << "\n" << result.output;
    return result.output;
  }
  test::TempDir dir_;
};

TEST_F(CertificateRequest, KeysThatAreTaken) {
  struct Kind {
    std::string key;
    int algorithm, curve;
  };
  for (const Kind& kind : {Kind{test::kP256, NID_X9_62_id_ecPublicKey, NID_X9_62_prime256v1},
                           Kind{test::kP384, NID_X9_62_id_ecPublicKey, NID_secp384r1},
                           Kind{test::kRsa2048, NID_rsaEncryption, 0},
                           Kind{std::string(test::kRsa2048) + " -pkeyopt rsa_keygen_pubexp:3", NID_rsaEncryption, 0},
                           Kind{"-algorithm RSA -pkeyopt rsa_keygen_bits:4096", NID_rsaEncryption, 0},
                           Kind{test::kEd25519, NID_ED25519, 0}}) {
    const auto read = read_certificate_request(fresh_csr(dir_.path(), kind.key));
    ASSERT_TRUE(read) << kind.key << ": " << read.error().message;
    EXPECT_EQ(read->algorithm, kind.algorithm) << kind.key;
    EXPECT_EQ(read->curve, kind.curve) << kind.key;
    // The end of a SubjectPublicKeyInfo is the bit string.
    run("openssl pkey -in own.key -pubout -outform DER -out own.pub");
    EXPECT_TRUE(test::file_bytes(dir_ / "own.pub").ends_with(read->bits)) << kind.key;
    EXPECT_GE(read->bits.size(), 32U);
  }
}

TEST_F(CertificateRequest, KeysThatAreRefusedByName) {
  const auto said_of_key = [&](const std::string& key) { return said_of(fresh_csr(dir_.path(), key)); };
  EXPECT_THAT(said_of_key("-algorithm RSA -pkeyopt rsa_keygen_bits:1024"),
              HasSubstr("has an RSA key of 1024 bits; use EC P-256 or P-384, RSA of 2048 to 4096 bits, or Ed25519"));
  EXPECT_THAT(said_of_key("-algorithm RSA -pkeyopt rsa_keygen_bits:4104"), HasSubstr("an RSA key of 4104 bits"));
  EXPECT_THAT(said_of_key(std::string(test::kRsa2048) + " -pkeyopt rsa_keygen_pubexp:4294967297"),
              HasSubstr("exponent"));
  EXPECT_THAT(said_of_key("-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048"), HasSubstr("of the kind rsassaPss"));
  EXPECT_THAT(said_of_key("-algorithm ED448"), HasSubstr("of the kind ED448"));
  for (const char* curve : {"secp521r1", "secp256k1", "brainpoolP256r1", "prime192v1"})
    EXPECT_THAT(said_of_key(std::string("-algorithm EC -pkeyopt ec_paramgen_curve:") + curve),
                HasSubstr(std::string("has a key on the curve ") + curve));
  // The right curve, spelt out instead of named: the way to curves of an attacker's making.
  run("openssl ecparam -name prime256v1 -genkey -noout -param_enc explicit -out own.key");
  EXPECT_THAT(said_of(csr_of_key(dir_.path())), HasSubstr("without a named curve"));
  run("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 | openssl ec -conv_form compressed -out own.key");
  EXPECT_THAT(said_of(csr_of_key(dir_.path())), HasSubstr("not an uncompressed point"));
}

// What a request asks for beside the key is not even looked at.
TEST_F(CertificateRequest, SubjectAndExtensionsArePassedOver) {
  const std::string plain = fresh_csr(dir_.path());
  const auto bits = read_certificate_request(plain)->bits;
  put_file(dir_ / "csr.cnf",
           "[req]\ndistinguished_name=dn\nreq_extensions=ext\nprompt=no\n[dn]\nCN=system:node:other\nO=system:masters\n"
           "[ext]\nbasicConstraints=critical,CA:TRUE\nsubjectAltName=DNS:kubernetes\nextendedKeyUsage=serverAuth\n");
  const auto greedy = read_certificate_request(csr_of_key(dir_.path(), "-config csr.cnf"));
  ASSERT_TRUE(greedy) << greedy.error().message;
  EXPECT_EQ(greedy->bits, bits);

  const auto with_comment = [&](std::size_t size) {
    put_file(dir_ / "csr.cnf", "[req]\ndistinguished_name=dn\nreq_extensions=ext\nprompt=no\n[dn]\nCN=x\n[ext]\n"
                               "1.2.3.4=ASN1:UTF8:" + std::string(size, 'x') + "\n");
    return csr_of_key(dir_.path(), "-config csr.cnf");
  };
  const auto large = with_comment(15'000);
  ASSERT_GT(large.size(), 15'000U);
  EXPECT_EQ(said_of(large), "accepted") << "within the limit";
  EXPECT_THAT(said_of(with_comment(17'000)), HasSubstr("is larger than 16 KiB ("));
}

TEST_F(CertificateRequest, OnlyOneWholeRequestInDer) {
  const std::string good = fresh_csr(dir_.path());
  ASSERT_EQ(said_of(good), "accepted");
  EXPECT_LT(good.size(), 256U) << "what a k3s agent sends";
  EXPECT_THAT(said_of(""), HasSubstr("the body is empty"));
  for (std::size_t length = 1; length < good.size(); ++length)
    EXPECT_THAT(said_of(good.substr(0, length)), StartsWith("certificate request is not PKCS#10 in DER")) << length;
  EXPECT_THAT(said_of(good + "\n"), HasSubstr("is followed by 1 bytes"));
  EXPECT_THAT(said_of(good + good), HasSubstr("is followed by " + std::to_string(good.size()) + " bytes"));
  EXPECT_THAT(said_of("\n" + good), HasSubstr("is not PKCS#10"));
  EXPECT_THAT(said_of(std::string(16 << 10, '\x31')), HasSubstr("is not PKCS#10"));
  EXPECT_THAT(said_of(std::string((16 << 10) + 1, '\x31')), HasSubstr("is larger than 16 KiB (16385 bytes)"));
  // A length that is not given outright is BER, not DER.
  ASSERT_EQ(good[1], '\x81');
  EXPECT_THAT(said_of(std::string("\x30\x80", 2) + good.substr(3) + std::string(2, '\0')), HasSubstr("is not PKCS#10"));
  run("openssl req -in own.csr -inform DER -out own.pem");
  EXPECT_THAT(said_of(test::file_bytes(dir_ / "own.pem")), HasSubstr("is PEM; send DER"));
  // Other things that a key can be in.
  run("openssl x509 -req -in own.pem -signkey own.key -outform DER -out own.crt");
  EXPECT_THAT(said_of(test::file_bytes(dir_ / "own.crt")), StartsWith("certificate request "));
  run("openssl pkey -in own.key -outform DER -out key.der");
  EXPECT_THAT(said_of(test::file_bytes(dir_ / "key.der")), HasSubstr("is not PKCS#10"));
}

TEST_F(CertificateRequest, EveryChangedBitIsNoticed) {
  const std::string good = fresh_csr(dir_.path());
  for (std::size_t at = 0; at < good.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = good;
      changed[at] = static_cast<char>(changed[at] ^ (1 << bit));
      EXPECT_THAT(said_of(changed), StartsWith("certificate request ")) << "byte " << at << ", bit " << bit;
    }
}

// Nobody gets a certificate for a key that is not his.
TEST_F(CertificateRequest, TheKeyMustBeTheSigners) {
  const std::string other = fresh_csr(dir_.path());
  const auto other_key = read_certificate_request(other);
  const std::string own = fresh_csr(dir_.path());
  const auto own_key = read_certificate_request(own);
  ASSERT_TRUE(other_key && own_key);
  std::string stolen = own;
  stolen.replace(stolen.find(own_key->bits), own_key->bits.size(), other_key->bits);
  EXPECT_THAT(said_of(stolen), HasSubstr("is not signed with its own key"));
  // A point that is not on the curve is no key at all.
  std::string off_curve = own;
  off_curve.replace(off_curve.find(own_key->bits) + 1, 64, std::string(64, '\x01'));
  EXPECT_THAT(said_of(off_curve), HasSubstr("has a public key that cannot be read"));
}

}  // namespace
}  // namespace ledger
