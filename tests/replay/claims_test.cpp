#include "replay/claims.h"

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include <boost/json.hpp>

#include "replay/triage.h"
#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using test::history_of;
using test::lines_of;
using test::related_history;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;

Record record_of(Event event, const std::string& node = "web-1") {
  Record record;
  record.event = std::move(event);
  record.node = node;
  return record;
}

TEST(NameIs, WhatWasShownForIt) {
  EXPECT_EQ(name_is(record_of(PasswordStored{})), NameIs::proven);
  EXPECT_EQ(name_is(record_of(PasswordVerified{})), NameIs::proven);
  EXPECT_EQ(name_is(record_of(CertificateIssued{})), NameIs::proven);
  EXPECT_EQ(name_is(record_of(TunnelOpened{})), NameIs::proven);
  EXPECT_EQ(name_is(record_of(PasswordRejected{})), NameIs::claimed);
  EXPECT_EQ(name_is(record_of(TokenAccepted{})), NameIs::claimed) << "a token is everybody's";
  EXPECT_EQ(name_is(record_of(BindingReleased{})), NameIs::nobodys) << "an operator's word is no claim";
  EXPECT_EQ(name_is(record_of(NodeObjectDeleted{})), NameIs::nobodys);
  EXPECT_EQ(name_is(record_of(TokenRejected{}, "")), NameIs::nobodys);

  Record refused = record_of(TokenRejected{.status = 401, .reason = "unknown_principal", .token = {}});
  refused.auth = {.method = "certificate", .principal = "system:node:web-1", .token = {}, .serial = "0f"};
  EXPECT_EQ(name_is(refused), NameIs::claimed) << "a refused certificate proves nothing, whatever it says";
  EXPECT_TRUE(is_bare_claim(refused));

  Record bad_csr = record_of(RequestRejected{.status = 400, .reason = "bad_csr"});
  bad_csr.auth = {.method = "basic", .principal = "node", .token = "t1", .serial = {}};
  EXPECT_EQ(name_is(bad_csr), NameIs::claimed);
  EXPECT_FALSE(is_bare_claim(bad_csr)) << "the join token was good";
  bad_csr.auth = {.method = "certificate", .principal = "system:node:web-1", .token = {}, .serial = "0f"};
  EXPECT_EQ(name_is(bad_csr), NameIs::proven);
  bad_csr.auth.principal = "system:node:web-2";
  EXPECT_EQ(name_is(bad_csr), NameIs::claimed) << "a certificate speaks for its own node";
  EXPECT_TRUE(is_bare_claim(record_of(RequestRejected{.status = 429, .reason = "overloaded"})));
}

// ---- what an explanation makes of them -------------------------------------------------------------------

const std::string kHealthy =
    R"({"seq":1,"time":"2024-03-02T10:15:08Z","kind":"password_stored","node":"web-1","source":"10.0.0.5:1","fingerprint":"a41c"})"
    "\n"
    R"({"seq":2,"time":"2024-03-02T10:15:09Z","kind":"password_verified","node":"web-1","source":"10.0.0.5:2","fingerprint":"a41c"})"
    "\n"
    R"({"seq":3,"time":"2024-03-02T10:15:10Z","kind":"tunnel_opened","node":"web-1","source":"10.0.0.5:3","session":"t1"})"
    "\n";
std::string claim(int seq, const char* time, const char* source, const char* more = R"("reason":"missing")") {
  return R"({"seq":)" + std::to_string(seq) + R"(,"time":"2024-03-03T)" + time +
         R"(Z","kind":"token_rejected","node":"web-1","status":401,"source":")" + source + R"(",)" + more + "}\n";
}

Explanation explained(const std::string& lines, History& history) {
  history = history_of(lines, "web-1");
  return explain(history);
}

TEST(Claims, OfAConnectedNodeAreSomebodyElses) {
  History history;
  // From elsewhere, at once; from its own address (a NAT) once the tunnel has outlived it.
  for (const std::string& claims : {claim(4, "10:00:00", "203.0.113.9"),
                                    claim(4, "10:00:00", "10.0.0.5") + claim(5, "10:03:01", "203.0.113.9")}) {
    const Explanation e = explained(kHealthy + claims, history);
    EXPECT_EQ(e.cause, Cause::kNone) << e.summary;
    EXPECT_EQ(e.state, "registered");
    EXPECT_FALSE(e.only_claimed) << "nothing that was claimed is judged";
    EXPECT_TRUE(e.remedies.empty());
    EXPECT_THAT(e.warnings, Contains(HasSubstr("somebody claimed to be web-1")));
    EXPECT_THAT(to_text(e), HasSubstr("REFUSED 401 token missing (claimed)"));
  }
}

TEST(Claims, OfANodeThatIsSilentAreSaidToBeClaims) {
  History history;
  const std::string silent = kHealthy + R"({"seq":4,"time":"2024-03-02T12:00:00Z","kind":"tunnel_closed","node":"web-1","session":"t1"})" "\n";
  const Explanation elsewhere = explained(silent + claim(5, "10:00:00", "203.0.113.9"), history);
  EXPECT_EQ(elsewhere.cause, Cause::kEndpoint) << "no agent asks without a credential";
  EXPECT_EQ(elsewhere.confidence, Confidence::kLow) << "another address than the node was ever seen at";
  EXPECT_TRUE(elsewhere.only_claimed);
  EXPECT_THAT(elsewhere.warnings, Contains(HasSubstr("only claimed")));
  bool may_be_well = false;
  for (const Alternative& other : elsewhere.alternatives) may_be_well = may_be_well || other.cause == Cause::kNone;
  EXPECT_TRUE(may_be_well);

  const Explanation here = explained(silent + claim(5, "10:00:00", "10.0.0.5"), history);
  EXPECT_EQ(here.cause, Cause::kToken);
  EXPECT_TRUE(here.only_claimed);
  EXPECT_THAT(here.warnings, Contains(HasSubstr("only claimed")));
}

// An agent that has just lost its machine: its tunnel still looks open when it asks again.
TEST(Claims, FromTheNodesOwnAddressAMomentAgoMayBeTheNode) {
  History history;
  const Explanation e = explained(kHealthy + claim(4, "10:00:00", "10.0.0.5"), history);
  EXPECT_EQ(e.cause, Cause::kToken);
  EXPECT_TRUE(e.only_claimed);
  EXPECT_THAT(e.warnings, Contains(HasSubstr("only claimed")));
  const Explanation closed = explained(
      kHealthy + claim(4, "10:00:00", "10.0.0.5") +
          R"({"seq":5,"time":"2024-03-03T10:01:00Z","kind":"tunnel_closed","node":"web-1","session":"t1"})" "\n",
      history);
  EXPECT_EQ(closed.cause, Cause::kToken) << "the tunnel died a minute after: it was its machine that restarted";
}

TEST(Claims, CertificatesThatAreNotAccepted) {
  History history;
  const auto refused = [&](const std::string& reason) {
    const std::string more = "\"auth\":{\"method\":\"certificate\",\"principal\":\"(unknown)\"},\"reason\":\"" + reason + "\"";
    const std::string joined = kHealthy.substr(0, kHealthy.find(R"({"seq":3)"));
    return explained(joined + claim(3, "10:00:00", "10.0.0.5", more.c_str()), history);
  };
  const Explanation expired = refused("certificate_expired");
  EXPECT_EQ(expired.cause, Cause::kStaleCert) << expired.summary;
  EXPECT_THAT(expired.summary, HasSubstr("expired"));
  EXPECT_TRUE(expired.only_claimed);
  EXPECT_THAT(expired.warnings, Contains(HasSubstr("only claimed")));
  const Explanation early = refused("certificate_not_yet_valid");
  EXPECT_EQ(early.cause, Cause::kUnknown);
  EXPECT_EQ(early.alternatives.front().cause, Cause::kClock);
  EXPECT_THAT(early.warnings, Contains(HasSubstr("only claimed")));
  const Explanation foreign = refused("unknown_principal");
  EXPECT_EQ(foreign.cause, Cause::kUnknown);
  EXPECT_THAT(foreign.summary, HasSubstr("did not sign"));
  EXPECT_THAT(foreign.warnings, Contains(HasSubstr("only claimed")));
}

TEST(Claims, AnOverloadedServersNamesAreClaims) {
  History history;
  const std::string busy = R"({"seq":9,"time":"2024-03-03T10:00:00Z","kind":"request_rejected","node":"web-1","source":"10.0.0.5","status":429,"reason":"overloaded","count":40})" "\n";
  const Explanation first_join = explained(busy, history);
  EXPECT_EQ(first_join.cause, Cause::kOverload);
  EXPECT_THAT(first_join.warnings, Contains(HasSubstr("only claimed")));
  const Explanation healthy = explained(kHealthy + busy + R"({"seq":10,"time":"2024-03-03T11:00:00Z","kind":"tunnel_closed","node":"web-1","session":"t1"})" "\n", history);
  EXPECT_EQ(healthy.cause, Cause::kNone);
}

TEST(Claims, APastClaimIsToldAsOne) {
  History history;
  const Explanation e = explained(
      claim(1, "10:00:00", "203.0.113.9") +
          R"({"seq":2,"time":"2024-03-03T11:00:00Z","kind":"password_stored","node":"web-1","source":"10.0.0.5:1","fingerprint":"a41c"})" "\n",
      history);
  EXPECT_EQ(e.cause, Cause::kNone);
  EXPECT_THAT(e.summary, HasSubstr("somebody who claimed its name was refused until record 1"));
}

// Whatever strangers write from an address of their own: a node that is well stays well, or the doubt is said; and the
// state of its name is as it was.
RC_GTEST_PROP(ClaimsProperty, StrangersDoNotMakeAWellNodeLookRefused, ()) {
  std::vector<Record> records = *related_history();
  for (Record& record : records) record.seq *= 2;
  std::vector<Record> mixed = records;
  for (const Record& record : records) {
    if (*rc::gen::inRange(0, 3) != 0) continue;
    Record stranger;
    stranger.seq = record.seq + 1;
    stranger.time = record.time;
    stranger.node = "x";
    stranger.source = "192.0.2.7:1";
    stranger.count = *rc::gen::inRange<std::int64_t>(1, 500);
    stranger.auth.method = *rc::gen::element<std::string>("none", "basic", "certificate");
    const auto reason = *rc::gen::element<std::string>("missing", "wrong_secret", "unknown_principal");
    if (*rc::gen::inRange(0, 3) == 0)
      stranger.event = RequestRejected{.status = 429, .reason = "overloaded"};
    else
      stranger.event = TokenRejected{.status = 401, .reason = reason, .token = {}};
    mixed.push_back(std::move(stranger));
  }
  std::sort(mixed.begin(), mixed.end(), [](const Record& a, const Record& b) { return a.seq < b.seq; });
  const History without = history_of(lines_of(records), "x"), with = history_of(lines_of(mixed), "x");
  const Explanation before = explain(without), after = explain(with);
  RC_ASSERT(before.state == after.state);
  RC_CLASSIFY(before.cause == Cause::kNone, "a node that is well");
  if (before.cause != Cause::kNone) return;
  bool doubted = after.cause == Cause::kNone;
  for (const std::string& warning : after.warnings) doubted = doubted || warning.find("only claimed") != std::string::npos;
  RC_ASSERT(doubted);
}

// ---- triage ----------------------------------------------------------------------------------------------

TEST(Claims, InventedNamesDoNotPushTheRealOnesOut) {
  test::MemoryLog log;
  std::vector<Record> records;
  const auto add = [&](Event event, const std::string& node, const char* source) {
    Record record = record_of(std::move(event), node);
    record.seq = records.size() + 1;
    record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(records.size()));
    record.source = source;
    records.push_back(std::move(record));
  };
  const TokenRejected missing{.status = 401, .reason = "missing", .token = {}};
  add(PasswordStored{Fingerprint{"a41c"}}, "web-1", "10.0.0.5");
  add(PasswordRejected{.fingerprint = {"77e0"}, .bound = {"a41c"}, .status = 403}, "web-1", "10.0.0.5");
  add(PasswordStored{Fingerprint{"b3f4"}}, "web-2", "10.0.0.6");
  for (int i = 0; i < 50; ++i) add(missing, "aaa-" + std::to_string(i), "203.0.113.9");
  add(missing, "web-2", "10.0.0.6");
  log.append(records);
  const Result<Triage> few = triage(log.log(), {.since = {}, .limit = 2});
  ASSERT_TRUE(few) << few.error().message;
  ASSERT_EQ(few->entries.size(), 2u);
  EXPECT_EQ(few->left_out, 50u);
  for (const TriageEntry& entry : few->entries) {
    EXPECT_THAT(entry.node, AnyOf("web-1", "web-2"));
    EXPECT_EQ(entry.only_claimed, entry.node == "web-2");
  }
  const Result<Triage> all = triage(log.log(), {});
  ASSERT_TRUE(all);
  EXPECT_EQ(all->entries.size(), 52u);
  EXPECT_THAT(to_text(*all), HasSubstr("--node aaa-0  (name only claimed)"));
  EXPECT_THAT(to_text(*all), Not(HasSubstr("--node web-1  (name only claimed)")));
}

}  // namespace
}  // namespace ledger::replay
