#include "replay/disagreements.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "ledger/decision.h"
#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class DisagreementsTest : public ::testing::Test {
 protected:
  struct Said {
    std::int64_t answered = 200;
    std::string would_have = "admit_known";
    std::string endpoint = "/v1-k3s/serving-kubelet.crt";
    std::int64_t count = 1;
  };
  void add(Event event, const std::string& node, Said said) {
    Record record;
    record.seq = ++seq_;
    record.time = Time{1'718'000'000'000'000 + static_cast<std::int64_t>(seq_) * 60'000'000};
    record.event = std::move(event);
    record.node = node;
    record.endpoint = said.endpoint;
    record.request_id = "r" + std::to_string(seq_);
    record.count = said.count;
    record.authority = kUpstreamAuthority, record.upstream = "10.0.0.1:6443";
    record.answered = said.answered, record.would_have = said.would_have;
    log_.append({record});
  }
  // All records that one admission of a password makes.
  void admitted(const std::string& node, const std::string& would_have) {
    add(TokenAccepted{}, node, {.would_have = would_have});
    add(PasswordVerified{{"bb"}}, node, {.would_have = would_have});
    add(CertificateIssued{}, node, {.would_have = would_have});
  }
  void refused(const std::string& node, const std::string& would_have, std::int64_t count = 1) {
    add(PasswordRejected{.fingerprint = {"bb"}, .bound = {}, .status = 403}, node,
        {.answered = 403, .would_have = would_have, .count = count});
  }
  Disagreements ask(DisagreementOptions options = {}) {
    Result<Disagreements> found = disagreements(log_.log(), options);
    if (!found) fatal(found.error().message);
    return std::move(*found);
  }

  test::MemoryLog log_;
  Seq seq_ = 0;
};

TEST_F(DisagreementsTest, NothingToCompare) {
  EXPECT_THAT(to_text(ask()), HasSubstr("nothing to compare"));
  Record own;
  own.seq = ++seq_, own.event = PasswordStored{{"aa"}}, own.node = "web-1";
  log_.append({own});
  EXPECT_EQ(ask().requests, 0U) << "what we decided ourselves";
}

TEST_F(DisagreementsTest, ARequestIsCountedOnceWhateverItWrote) {
  admitted("web-1", "admit_known");
  admitted("web-2", "refuse_mismatch");
  const Disagreements found = ask();
  EXPECT_EQ(found.requests, 2U);
  EXPECT_EQ(found.differ, 1U);
  ASSERT_EQ(found.entries.size(), 1U);
  EXPECT_EQ(found.entries[0].node, "web-2");
  EXPECT_EQ(found.entries[0].about, "password");
  EXPECT_EQ(found.entries[0].which, Disagreement::upstream_admitted);
  EXPECT_EQ(found.entries[0].would_have, "refuse_mismatch");
  EXPECT_EQ(found.entries[0].last, 5U);
  EXPECT_EQ(found.entries[0].request_id, "r5");
}

TEST_F(DisagreementsTest, ARefusedDocumentAndATunnelAreCountedOnceToo) {
  const Said stale{.answered = 401, .would_have = "serve", .endpoint = "/v1-k3s/config"};
  add(TokenAccepted{}, "web-1", stale);
  add(RequestRejected{.status = 401, .reason = "node_unknown"}, "web-1", stale);
  const Said tunnel{.answered = 101, .would_have = "refuse_headers", .endpoint = "/v1-k3s/connect"};
  add(TokenAccepted{}, "web-2", tunnel);
  add(TunnelOpened{"s1"}, "web-2", tunnel);
  const Disagreements found = ask();
  EXPECT_EQ(found.requests, 2U);
  ASSERT_EQ(found.entries.size(), 2U);
  EXPECT_EQ(found.entries[0].about, "tunnel");
  EXPECT_EQ(found.entries[1].about, "document");
}

TEST_F(DisagreementsTest, CountsStandForManyAndTheNewestComesFirst) {
  refused("web-1", "admit_first");
  refused("web-1", "admit_first", 40);
  refused("web-2", "admit_known");
  add(TokenRejected{.status = 401, .reason = {}, .token = {}}, "web-3", {.answered = 401, .would_have = "serve", .endpoint = "/v1-k3s/config"});
  const Disagreements found = ask();
  EXPECT_EQ(found.differ, 43U);
  ASSERT_EQ(found.entries.size(), 3U);
  EXPECT_EQ(found.entries[0].node + " " + found.entries[0].about, "web-3 document");
  EXPECT_EQ(found.entries[1].node, "web-2");
  EXPECT_EQ(found.entries[2].requests, 41U);
  EXPECT_EQ(found.entries[2].first, 1U);
  EXPECT_EQ(found.entries[2].last, 2U);
  EXPECT_EQ(found.entries[2].request_id, "") << "it stands for forty";
}

TEST_F(DisagreementsTest, WhereTheyAgreeByNowIsTheEndOfTheList) {
  refused("web-1", "admit_first");
  refused("web-2", "admit_first");
  admitted("web-2", "admit_known");
  add(TokenAccepted{}, "web-1", {.would_have = "serve", .endpoint = "/v1-k3s/config"});  // about something else
  Disagreements found = ask();
  ASSERT_EQ(found.entries.size(), 2U);
  EXPECT_EQ(found.entries[0].node, "web-1");
  EXPECT_EQ(found.entries[0].agree_since, 0U);
  EXPECT_EQ(found.entries[1].node, "web-2");
  EXPECT_EQ(found.entries[1].agree_since, 4U);
  refused("web-2", "admit_known");
  refused("web-2", "admit_first");
  found = ask();
  EXPECT_EQ(found.entries[0].agree_since, 0U) << "they differ again";
}

TEST_F(DisagreementsTest, WhatIsNoVerdictIsCountedApart) {
  add(RequestRejected{.status = 500, .reason = std::string(kUpstreamError)}, "web-1", {.answered = 500});
  add(RequestRejected{.status = 0, .reason = std::string(kUpstreamUnavailable)}, "web-1", {.answered = 0, .count = 7});
  const Disagreements found = ask();
  EXPECT_EQ(found.requests, 0U);
  EXPECT_EQ(found.no_verdict, 8U);
  admitted("web-1", "");
  EXPECT_EQ(ask().not_judged, 1U) << "bound by a hash: nobody compared";
  EXPECT_EQ(ask().requests, 0U);
}

TEST_F(DisagreementsTest, OnlySinceThenAndOnlySoMany) {
  refused("web-1", "admit_first");
  refused("web-2", "admit_first");
  refused("web-3", "admit_first", 5);
  const Disagreements late = ask({.since = Time{1'718'000'000'000'000 + 120'000'000}});
  EXPECT_EQ(late.differ, 6U);
  const Disagreements few = ask({.since = {}, .limit = 2});
  EXPECT_EQ(few.entries.size(), 2U);
  EXPECT_EQ(few.left_out, 5U);
  EXPECT_THAT(to_text(few), HasSubstr("5 more requests"));
}

TEST_F(DisagreementsTest, SaysBothSidesWordsInTextAndJson) {
  refused("web-1", "admit_known");
  admitted("web-2", "refuse_held");
  const std::string text = to_text(ask(), {}, " --data-dir /tmp/x");
  EXPECT_THAT(text, HasSubstr("differ on 2 of 2 requests"));
  EXPECT_THAT(text, HasSubstr("upstream refused (403), we admit_known"));
  EXPECT_THAT(text, HasSubstr("upstream admitted (200), we refuse_held"));
  EXPECT_THAT(text, HasSubstr("ledger replay --node web-1 --data-dir /tmp/x"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  const std::string json = boost::json::serialize(to_json(ask()));
  EXPECT_THAT(json, HasSubstr(R"("requests":2,"differ":2,"no_verdict":0,"not_judged":0)"));
  EXPECT_THAT(json, HasSubstr(R"("node":"web-1","about":"password","upstream_did":"refused","answered":403,)"
                              R"("would_have":"admit_known","upstream":"10.0.0.1:6443","requests":1)"));
}

}  // namespace
}  // namespace ledger::replay
