// Keys and requests of agents that keep their keys, and the CA hash of later agents; bundles made by `openssl`.
#include "api/agent_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/tls_link.h"
#include "ledger/credentials.h"
#include "tests/support/agent_csr.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger::api {
namespace {

TEST(AgentKeys, ACsrIsOfTheKeyAndNothingElse) {
  const Secret key = fresh_key_pem();
  EXPECT_THAT(std::string(key.reveal()), testing::StartsWith("-----BEGIN EC PRIVATE KEY-----\n"));
  const auto first = make_csr(key), second = make_csr(key), other = make_csr(fresh_key_pem());
  ASSERT_TRUE(first && second && other);
  EXPECT_EQ(test::public_key_of_csr(*first), test::public_key_of_csr(*second));
  EXPECT_NE(test::public_key_of_csr(*first), test::public_key_of_csr(*other));
  EXPECT_LT(first->size(), 200U) << "Go's have 189 bytes or so";
  EXPECT_TRUE(check_key_pair(test::sign_csr(*first), key));
}

TEST(AgentKeys, WhatIsNoKeyMakesNoCsr) {
  EXPECT_FALSE(make_csr(Secret("")));
  EXPECT_FALSE(make_csr(Secret("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n")));
}

class BundleHash : public testing::Test {
 protected:
  void openssl(const std::string& arguments) const {
    const auto result = test::run_command("cd " + dir_.path().string() + " && openssl " + arguments);
    ASSERT_EQ(result.status, 0) << result.output;
  }
  // A CA signed by another one; by itself when `signer` is empty.
  std::string ca(const std::string& name, const std::string& signer) const {
    const std::string by = signer.empty() ? "" : " -CA " + signer + ".crt -CAkey " + signer + ".key";
    openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 10 -subj /CN=" + name + " -keyout " + name +
            ".key -out " + name + ".crt" + by);
    return test::file_bytes(dir_.path() / (name + ".crt"));
  }
  std::string der_hash(const std::string& name) const {
    openssl("x509 -in " + name + ".crt -outform DER -out " + name + ".der");
    return sha256_hex(test::file_bytes(dir_.path() / (name + ".der")));
  }
  test::TempDir dir_;
};

TEST_F(BundleHash, IsOfTheBytesOrOfTheRoot) {
  const std::string root = ca("root", ""), middle = ca("middle", "root"), leaf = ca("leaf", "middle");
  EXPECT_EQ(bundle_hash(root), sha256_hex(root));
  EXPECT_EQ(bundle_hash(root + "\n"), sha256_hex(root + "\n")) << "one certificate: every byte counts";
  EXPECT_EQ(bundle_hash(middle + root), der_hash("root"));
  EXPECT_EQ(bundle_hash(leaf + middle + root), der_hash("root"));
  EXPECT_EQ(bundle_hash(leaf + root + middle), der_hash("root")) << "in whatever order";
  EXPECT_EQ(bundle_hash("# our CA\n" + middle + root), der_hash("root")) << "text around does not matter";
  // Without a way from the first to a root: the bytes.
  const std::string stranger = ca("stranger", "");
  EXPECT_EQ(bundle_hash(leaf + root), sha256_hex(leaf + root)) << "the middle one is missing";
  EXPECT_EQ(bundle_hash(root + middle), sha256_hex(root + middle)) << "the root comes first: it is no root to itself";
  EXPECT_EQ(bundle_hash(middle + stranger), sha256_hex(middle + stranger));
  EXPECT_EQ(bundle_hash(""), "");
  EXPECT_EQ(bundle_hash("-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n"), "");
}

}  // namespace
}  // namespace ledger::api
