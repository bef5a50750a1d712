#include "ledger/password_strength.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "ledger/credentials.h"

namespace ledger {
namespace {

TEST(PasswordStrength, WhatPeopleAndVendorsWriteIsNoticed) {
  for (const char* weak : {"", "secret", "fifteen-bytes-x", "00000000000000000000000000000000", "0123012301230123",
                           "abcdefabcdefabcdef", "aaaaaaaaaaaaaaaaaaaabcdef", "passwordpassword"})
    EXPECT_TRUE(is_low_entropy(Secret(weak))) << weak;
}

TEST(PasswordStrength, WhatAgentsMakeIsNot) {
  for (const char* good : {"3f1c9a7be20d5486f1e2d3c4b5a69788", "0123456789abcdef", "correct horse battery staple"})
    EXPECT_FALSE(is_low_entropy(Secret(good))) << good;
}

RC_GTEST_PROP(PasswordStrength, RandomHexIsNeverCalledWeak, ()) {
  RC_ASSERT(!is_low_entropy(Secret(random_hex(16))));
}

}  // namespace
}  // namespace ledger
