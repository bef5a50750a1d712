// Which failed handshake is an agent's first step and which is not. Time passes here by calling settle().
#include "api/trust_probes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/ledger_fixture.h"

namespace ledger::api {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

class TrustProbesTest : public test::LedgerTest {
 protected:
  TrustProbesTest() { open(); }
  // source and trust_probe of what is recorded, in order.
  std::vector<std::pair<std::string, bool>> recorded() {
    EXPECT_TRUE(ledger_->flush_counts());
    std::vector<std::pair<std::string, bool>> found;
    for (const Record& record : records())
      if (const auto* failed = as<TlsFailed>(record)) found.emplace_back(record.source, *failed->trust_probe);
    return found;
  }
};

TEST_F(TrustProbesTest, CacertsFromTheSameHostExplainsOneFailure) {
  TrustProbes probes(*ledger_);
  probes.handshake_failed({"10.0.0.5:1001", ""}, "bad_certificate");
  probes.settle(false);
  EXPECT_THAT(recorded(), IsEmpty()) << "held back: what follows decides";
  probes.cacerts_asked("10.0.0.6:2000");
  EXPECT_THAT(recorded(), IsEmpty()) << "somebody else's";
  probes.cacerts_asked("10.0.0.5:1002");
  EXPECT_THAT(recorded(), ElementsAre(Pair("10.0.0.5:1001", true)));
  probes.cacerts_asked("10.0.0.5:1003");
  probes.settle(true);
  EXPECT_EQ(recorded().size(), 1U) << "told once";
}

TEST_F(TrustProbesTest, EachCacertsExplainsOneOfSeveral) {
  TrustProbes probes(*ledger_);
  probes.handshake_failed({"10.0.0.5:1", ""}, "bad_certificate");
  probes.handshake_failed({"10.0.0.5:2", ""}, "unknown_ca");
  probes.handshake_failed({"[fd00::5]:3", ""}, "certificate_unknown");
  probes.cacerts_asked("10.0.0.5:9");
  probes.cacerts_asked("[fd00::5]:9");
  EXPECT_THAT(recorded(), ElementsAre(Pair("10.0.0.5:1", true), Pair("[fd00::5]:3", true))) << "the oldest first";
  probes.settle(true);
  EXPECT_THAT(recorded().back(), Pair("10.0.0.5:2", false));
}

TEST_F(TrustProbesTest, OtherFailuresAreToldAtOnce) {
  TrustProbes probes(*ledger_);
  for (const char* alert : {"http_request", "wrong_version_number", "timed_out", "connection_closed_by_the_peer"})
    probes.handshake_failed({"10.0.0.5:1", ""}, alert);
  EXPECT_EQ(recorded().size(), 4U);
  probes.cacerts_asked("10.0.0.5:2");
  EXPECT_EQ(recorded().size(), 4U);
}

// A flood of them must not fill the memory: past the bound they are recorded at once, and the log counts them.
TEST_F(TrustProbesTest, WhatWaitsIsBounded) {
  TrustProbes probes(*ledger_);
  for (int i = 0; i < 5000; ++i) probes.handshake_failed({"10.0.0.5:" + std::to_string(i), ""}, "bad_certificate");
  std::int64_t told = 0;
  ASSERT_TRUE(ledger_->flush_counts());
  for (const Record& record : records()) told += as<TlsFailed>(record) != nullptr ? record.count : 0;
  EXPECT_EQ(told, 5000 - 4096);
  probes.settle(true);
  ASSERT_TRUE(ledger_->flush_counts());
  told = 0;
  for (const Record& record : records()) told += as<TlsFailed>(record) != nullptr ? record.count : 0;
  EXPECT_EQ(told, 5000);
}

}  // namespace
}  // namespace ledger::api
