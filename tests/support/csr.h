// Certificate requests made by the openssl command, as agents (and others) make them.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/support/run_command.h"

namespace ledger::test {

// How `openssl genpkey` makes a key of each kind that can be certified.
inline constexpr const char* kP256 = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
inline constexpr const char* kP384 = "-algorithm EC -pkeyopt ec_paramgen_curve:P-384";
inline constexpr const char* kRsa2048 = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
inline constexpr const char* kEd25519 = "-algorithm ED25519";

// The DER of a request for the key that is in `<dir>/own.key`; `more` are options of `openssl req`.
inline std::string csr_of_key(const std::filesystem::path& dir, const std::string& more = "-subj /") {
  const auto made =
      run_command("cd '" + dir.string() + "' && openssl req -new -key own.key -outform DER -out own.csr " + more);
  EXPECT_EQ(made.status, 0) << made.output;
  return file_bytes(dir / "own.csr");
}

// The same for a fresh key.
inline std::string fresh_csr(const std::filesystem::path& dir, const std::string& key = kP256,
                             const std::string& more = "-subj /") {
  const auto made = run_command("cd '" + dir.string() + "' && openssl genpkey " + key + " -out own.key");
  EXPECT_EQ(made.status, 0) << made.output;
  return csr_of_key(dir, more);
}

}  // namespace ledger::test
