#include "replay/whatif.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <boost/json.hpp>
#include <sstream>

#include "tests/replay/replay_support.h"
#include "tests/replay/ruled_history.h"
#include "tests/support/generators.h"

namespace ledger::replay {
namespace {

using test::RuledLog;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr std::int64_t kHour = 3600, kDay = 86400;
const Policy kAddress{.accept_same_address = true, .release_after_silence = {}, .token_grace = {}};
const Policy kSilence{.accept_same_address = false, .release_after_silence = 30 * kDay, .token_grace = {}};
const Policy kGrace{.accept_same_address = false, .release_after_silence = {}, .token_grace = kHour};

WhatIf judged(const std::vector<Record>& records, const WhatIfOptions& options) {
  std::istringstream lines(test::lines_of(records));
  RecordSource source(lines);
  Result<WhatIf> found = whatif(source, options);
  if (!found) fatal(found.error().message);
  return std::move(*found);
}
WhatIf judged(const RuledLog& log, const Policy& policy) {
  WhatIfOptions options;
  options.policy = policy;
  return judged(log.records, options);
}
Displacement only_displacement(const WhatIf& found) {
  if (found.nodes.size() != 1 || found.nodes[0].displacements.size() != 1) fatal("not one displacement");
  return found.nodes[0].displacements[0];
}

// x is bound to "a" from 10.0.0.1 with an open tunnel.
RuledLog registered() {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");            // 1
  log.tunnel_opened("x", "s1");             // 2
  log.wait(kHour);
  return log;
}

// ---- another password from the same address --------------------------------------------------------------

TEST(WhatIf, ARebuiltMachineIsLetInAndNobodyIsHarmed) {
  RuledLog log = registered();
  log.tunnel_closed("x", "s1");             // 3
  log.wait(300);
  log.ask("x", "b", "10.0.0.1");            // 4: refused
  log.wait(600);
  log.ask("x", "b", "10.0.0.1", 40, 590);   // 5: 40 more
  log.accept("x", "b");                     // 6
  log.ask("x", "b", "10.0.0.1");            // 7
  const WhatIf found = judged(log, kAddress);
  EXPECT_EQ(found.refusals, 41u);
  EXPECT_EQ(found.admitted, 41u);
  EXPECT_EQ(found.admissions, 2u);
  EXPECT_EQ(found.locked_out, 0u);
  const Displacement displaced = only_displacement(found);
  EXPECT_EQ(displaced.verdict, Verdict::harmless);
  EXPECT_THAT(displaced.because, HasSubstr("(6)"));
  EXPECT_EQ(displaced.refusals.count, 41u);
  EXPECT_EQ(displaced.refusals.first, 4u);
  EXPECT_EQ(displaced.refusals.last, 5u);
  EXPECT_EQ(displaced.times, 1u);
  EXPECT_EQ(found.nodes[0].needless.count, 1u);
}

TEST(WhatIf, AHolderThatIsNeverHeardAgainIsGone) {
  RuledLog log = registered();
  log.tunnel_closed("x", "s1");
  log.ask("x", "b", "10.0.0.1");
  log.wait(kHour);
  log.ask("y", "c", "10.0.0.3");  // the history goes on
  const Displacement displaced = only_displacement(judged(log, kAddress));
  EXPECT_EQ(displaced.verdict, Verdict::harmless) << displaced.because;
}

TEST(WhatIf, AnOpenTunnelOfTheHolderMakesItATakeover) {
  RuledLog log = registered();
  log.ask("x", "b", "10.0.0.1");  // 3
  log.wait(kHour);
  log.tunnel_closed("x", "s1");
  const Displacement displaced = only_displacement(judged(log, kAddress));
  EXPECT_EQ(displaced.verdict, Verdict::takeover);
  EXPECT_THAT(displaced.because, HasSubstr("tunnel (2)"));
}

TEST(WhatIf, ATunnelThatStaysOpenToTheEndCountsToo) {
  RuledLog log = registered();
  log.ask("x", "b", "10.0.0.1");
  log.wait(kHour);
  log.ask("y", "c", "10.0.0.3");
  EXPECT_EQ(only_displacement(judged(log, kAddress)).verdict, Verdict::takeover);
}

TEST(WhatIf, ATunnelThatDiesWithinTheWindowIsALostMachine) {
  RuledLog log = registered();
  log.ask("x", "b", "10.0.0.1");
  log.wait(60);  // the server notices
  log.tunnel_closed("x", "s1");
  log.wait(kHour);
  log.ask("y", "c", "10.0.0.3");
  EXPECT_EQ(only_displacement(judged(log, kAddress)).verdict, Verdict::harmless);
}

TEST(WhatIf, BothPasswordsInTurnAreTwoMachines) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");  // 1
  log.ask("x", "b", "10.0.0.1");  // 2
  log.wait(60);
  log.ask("x", "a", "10.0.0.1");  // 3
  log.wait(60);
  log.ask("x", "b", "10.0.0.1");  // 4
  const WhatIf found = judged(log, kAddress);
  const Displacement displaced = only_displacement(found);
  EXPECT_EQ(displaced.verdict, Verdict::takeover);
  EXPECT_THAT(displaced.because, HasSubstr("(3)"));
  EXPECT_THAT(displaced.because, HasSubstr("(4)"));
  EXPECT_EQ(displaced.times, 2u) << "the holder gets the name back by the same rule, and loses it again";
  EXPECT_EQ(found.admitted, 2u);
}

TEST(WhatIf, TheOldPasswordAloneAfterThatIsUndecided) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  log.wait(60);
  log.ask("x", "b", "10.0.0.1");
  log.wait(kHour);
  log.ask("x", "a", "10.0.0.1");  // the file put back, or the holder lived on?
  const WhatIf found = judged(log, kAddress);
  EXPECT_EQ(only_displacement(found).verdict, Verdict::undecided);
  EXPECT_EQ(found.count(Verdict::undecided), 1u);
  EXPECT_EQ(found.count(Verdict::takeover), 0u);
}

TEST(WhatIf, WithoutTunnelsNothingShowsWhetherTheHolderLived) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  log.ask("x", "b", "10.0.0.1");
  log.wait(kDay);
  log.ask("y", "c", "10.0.0.3");
  const Displacement displaced = only_displacement(judged(log, kAddress));
  EXPECT_EQ(displaced.verdict, Verdict::undecided);
  EXPECT_THAT(displaced.because, HasSubstr("no tunnel"));
}

TEST(WhatIf, AServerThatStoppedSaysNothingAboutTheMachine) {
  RuledLog log = registered();
  log.event(ServerStarted{.version = "1", .client_ca = {}, .server_ca = {}, .ledger = {}, .clean = true});
  log.ask("x", "b", "10.0.0.1");
  log.wait(30);
  log.tunnel_opened("x", "s2");  // the holder is back at once, as agents are
  log.wait(kHour);
  log.ask("y", "c", "10.0.0.3");
  const Displacement displaced = only_displacement(judged(log, kAddress));
  EXPECT_EQ(displaced.verdict, Verdict::takeover);
  EXPECT_THAT(displaced.because, HasSubstr("without registering anew"));
}

TEST(WhatIf, TheNodesOwnCertificateIsTheNode) {
  RuledLog log = registered();
  log.ask("x", "b", "10.0.0.1");
  log.records.back().auth = {.method = "certificate", .principal = "system:node:x", .token = {}, .serial = "01"};
  log.wait(kHour);
  log.tunnel_closed("x", "s1");
  EXPECT_EQ(only_displacement(judged(log, kAddress)).verdict, Verdict::harmless);
}

TEST(WhatIf, AnotherAddressStaysRefused) {
  RuledLog log = registered();
  log.ask("x", "b", "10.0.0.2");
  const WhatIf found = judged(log, kAddress);
  EXPECT_EQ(found.refusals, 1u);
  EXPECT_EQ(found.admitted, 0u);
  EXPECT_EQ(found.stay_password, 1u);
  EXPECT_THAT(found.nodes, IsEmpty());
}

TEST(WhatIf, WhoeverLostTheNameIsLockedOutElsewhere) {
  RuledLog log = registered();
  log.ask("x", "b", "10.0.0.1");  // 3: takes the name
  log.wait(60);
  log.ask("x", "a", "10.0.0.7");  // 4: the holder, which has moved
  const WhatIf found = judged(log, kAddress);
  EXPECT_EQ(found.locked_out, 1u);
  EXPECT_EQ(found.nodes[0].locked_out.first, 4u);
  EXPECT_EQ(only_displacement(found).verdict, Verdict::takeover) << "the old password, from elsewhere";
}

TEST(WhatIf, TheNewHoldersAddressIsWhatCountsAfterThat) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  log.ask("x", "b", "10.0.0.1");
  log.ask("x", "b", "10.0.0.2");  // the new holder moves: its own password
  log.ask("x", "c", "10.0.0.1");  // not the new holder's address any more
  log.ask("x", "c", "10.0.0.2");
  const WhatIf found = judged(log, kAddress);
  EXPECT_EQ(found.admitted, 3u);
  EXPECT_EQ(found.stay_password, 1u);
  ASSERT_THAT(found.nodes, SizeIs(1));
  ASSERT_THAT(found.nodes[0].displacements, SizeIs(2));
  EXPECT_EQ(found.nodes[0].displacements[1].holder.text, "b") << "in the state as it would have been";
}

TEST(WhatIf, AnAddressOfSeveralNamesIsSaidToBeOne) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  log.ask("x", "b", "10.0.0.1");
  EXPECT_FALSE(only_displacement(judged(log, kAddress)).address_shared);
  log.ask("y", "c", "10.0.0.1");
  EXPECT_TRUE(only_displacement(judged(log, kAddress)).address_shared);
  WhatIfOptions options;
  options.policy = kAddress;
  options.node = "x";
  EXPECT_TRUE(only_displacement(judged(log.records, options)).address_shared) << "whoever is asked about";
}

TEST(WhatIf, AHoldIsRespected) {
  RuledLog log = registered();
  log.hold("x");
  log.ask("x", "b", "10.0.0.1");
  const WhatIf found = judged(log, kAddress);
  EXPECT_EQ(found.admitted, 0u);
}

TEST(WhatIf, AnImportedHashThatNeverCameHasNoAddress) {
  RuledLog log;
  log.import_hash("x");
  log.ask("x", "b", "10.0.0.1");
  EXPECT_EQ(judged(log, kAddress).admitted, 0u);
  log.ask("x", "h", "10.0.0.1");  // its holder comes
  log.ask("x", "b", "10.0.0.1");
  const WhatIf found = judged(log, kAddress);
  EXPECT_EQ(found.admitted, 1u);
  EXPECT_THAT(found.warnings, IsEmpty());
}

// ---- silence ---------------------------------------------------------------------------------------------

TEST(WhatIf, ANameIsFreeAfterLongSilence) {
  RuledLog log = registered();
  log.tunnel_closed("x", "s1");    // 3
  log.wait(29 * kDay);
  log.ask("x", "b", "10.0.0.2");   // 4: too early
  log.wait(2 * kDay);
  log.ask("x", "b", "10.0.0.2");   // 5
  log.wait(kHour);
  log.ask("y", "c", "10.0.0.3");
  const WhatIf found = judged(log, kSilence);
  EXPECT_EQ(found.admitted, 1u);
  EXPECT_EQ(found.stay_password, 1u);
  const Displacement displaced = only_displacement(found);
  EXPECT_TRUE(displaced.rules.silence);
  EXPECT_EQ(displaced.refusals.first, 5u);
  EXPECT_EQ(displaced.verdict, Verdict::harmless) << displaced.because;
}

TEST(WhatIf, AnOpenTunnelIsNoSilence) {
  RuledLog log = registered();
  log.wait(90 * kDay);
  log.ask("x", "b", "10.0.0.2");
  EXPECT_EQ(judged(log, kSilence).admitted, 0u);
}

TEST(WhatIf, ACertificateIsASignOfLife) {
  RuledLog log = registered();
  log.tunnel_closed("x", "s1");
  log.wait(29 * kDay);
  log.event(TokenAccepted{});
  log.records.back().auth = {.method = "certificate", .principal = "system:node:x", .token = {}, .serial = "01"};
  log.wait(2 * kDay);
  log.ask("x", "b", "10.0.0.2");
  EXPECT_EQ(judged(log, kSilence).admitted, 0u);
}

TEST(WhatIf, AHolderThatComesBackFromElsewhereWasTakenOver) {
  RuledLog log = registered();
  log.tunnel_closed("x", "s1");
  log.wait(31 * kDay);
  log.ask("x", "b", "10.0.0.2");
  log.wait(kDay);
  log.ask("x", "a", "10.0.0.1");
  const WhatIf found = judged(log, kSilence);
  EXPECT_EQ(only_displacement(found).verdict, Verdict::takeover);
  EXPECT_EQ(found.locked_out, 1u);
}

TEST(WhatIf, SilenceCannotBeMeasuredWhereNoTunnelIsRecorded) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  log.wait(31 * kDay);
  log.ask("x", "b", "10.0.0.2");
  const WhatIf found = judged(log, kSilence);
  EXPECT_EQ(found.admitted, 0u);
  EXPECT_EQ(found.undecided, 1u);
  ASSERT_THAT(found.nodes, SizeIs(1));
  EXPECT_THAT(found.nodes[0].undecided, SizeIs(1));
}

TEST(WhatIf, AStormThatPassesTheLimitIsSplit) {
  RuledLog log = registered();
  log.tunnel_closed("x", "s1");
  log.wait(30 * kDay);
  log.wait(10);
  log.ask("x", "b", "10.0.0.2", 20, 100);  // began 90 s before the limit
  const WhatIf found = judged(log, kSilence);
  EXPECT_EQ(found.refusals, 20u);
  EXPECT_EQ(found.admitted, 1u);
  EXPECT_EQ(found.stay_password, 1u);
  EXPECT_EQ(found.undecided, 18u);
}

TEST(WhatIf, TheSilenceOfAHolderThatNeverWasCannotBeTold) {
  RuledLog log = registered();
  log.tunnel_closed("x", "s1");
  log.wait(31 * kDay);
  log.ask("x", "b", "10.0.0.2");  // would have been let in, and its tunnel would have been on record
  log.wait(31 * kDay);
  log.ask("x", "c", "10.0.0.3");
  const WhatIf found = judged(log, kSilence);
  EXPECT_EQ(found.admitted, 1u);
  EXPECT_EQ(found.undecided, 1u);
}

// ---- tokens ----------------------------------------------------------------------------------------------

RuledLog rotated() {
  RuledLog log;
  log.event(TokenCreated{.token = "t1", .token_class = "agent", .expires = {}, .actor = "alice@srv"});  // 1
  log.wait(kDay);
  log.event(TokenRotated{.token = "t2", .token_class = "agent", .expires = {}, .actor = "alice@srv"});  // 2
  return log;
}

TEST(WhatIf, ATokenIsAcceptedForItsGrace) {
  RuledLog log = rotated();
  log.wait(kHour);
  log.reject_token("t1", "superseded", "/v1-k3s/config");  // 3
  log.wait(1);
  log.reject_token("t1", "superseded", "/v1-k3s/config");  // 4
  const WhatIf found = judged(log, kGrace);
  EXPECT_EQ(found.refusals, 2u);
  EXPECT_EQ(found.admitted, 1u);
  EXPECT_EQ(found.stay_token, 1u);
  ASSERT_THAT(found.nodes, SizeIs(1));
  EXPECT_EQ(found.nodes[0].node, "");
  EXPECT_EQ(found.nodes[0].by_token.first, 3u);
}

TEST(WhatIf, ExpiryCountsFromTheTimeThatWasSet) {
  RuledLog log;
  log.event(TokenCreated{
      .token = "t1", .token_class = "bootstrap", .expires = log.now().plus_seconds(kDay), .actor = "alice@srv"});
  log.wait(kDay + kHour);
  log.event(TokenExpired{.token = "t1", .token_class = "bootstrap", .expires = {}, .actor = {}});
  log.reject_token("t1", "expired", "/v1-k3s/config");
  log.wait(1);
  log.reject_token("t1", "expired", "/v1-k3s/config");
  EXPECT_EQ(judged(log, kGrace).admitted, 1u);
}

TEST(WhatIf, BehindARefusedTokenNobodyKnowsThePassword) {
  RuledLog log = rotated();
  log.ask("x", "a", "10.0.0.1");
  log.reject_token("t1", "superseded", "/v1-k3s/serving-kubelet.crt", "x");
  WhatIf found = judged(log, kGrace);
  EXPECT_EQ(found.admitted, 0u);
  EXPECT_EQ(found.undecided, 1u);
  log = rotated();
  log.reject_token("t1", "superseded", "/v1-k3s/serving-kubelet.crt", "x");  // free: any password would do
  log.ask("x", "a", "10.0.0.1");  // ... but was it this one?
  found = judged(log, kGrace);
  EXPECT_EQ(found.admitted, 1u);
  EXPECT_EQ(found.admissions_undecided, 1u);
  log = rotated();
  log.hold("x");
  log.reject_token("t1", "superseded", "/v1-k3s/serving-kubelet.crt", "x");
  EXPECT_EQ(judged(log, kGrace).stay_token, 1u) << "a held name is refused with any password";
}

TEST(WhatIf, AWrongSecretStaysWrong) {
  RuledLog log = rotated();
  log.reject_token("", "wrong_secret", "/v1-k3s/config");
  log.reject_token("", "superseded", "/v1-k3s/config");  // over the limit of storms: counted without its token
  const WhatIf found = judged(log, kGrace);
  EXPECT_EQ(found.stay_token, 1u);
  EXPECT_EQ(found.undecided, 1u);
}

// ---- filters, histories of others ------------------------------------------------------------------------

TEST(WhatIf, ThePolicyIsInForceBetweenTwoMoments) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");  // 1
  log.ask("x", "b", "10.0.0.1");  // 2: before
  log.wait(60);
  log.ask("x", "b", "10.0.0.1");  // 3
  log.wait(60);
  log.ask("x", "b", "10.0.0.1");  // 4: after
  WhatIfOptions options;
  options.policy = kAddress;
  options.since.seq = 3, options.until.seq = 3;
  const WhatIf found = judged(log.records, options);
  EXPECT_EQ(found.refusals, 1u);
  EXPECT_EQ(found.admitted, 1u);
  EXPECT_EQ(found.from.seq, 3u);
  EXPECT_EQ(found.to.seq, 3u);
  options.since.seq.reset(), options.until.seq.reset();
  options.since.time = log.records[2].time;
  EXPECT_EQ(judged(log.records, options).refusals, 2u);
  options.until.time = log.records[0].time.plus_seconds(-1);
  std::istringstream lines(test::lines_of(log.records));
  RecordSource source(lines);
  EXPECT_FALSE(whatif(source, options));
}

TEST(WhatIf, HindsightAndEarlierRefusalsCount) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");  // 1
  log.ask("x", "b", "10.0.0.1");  // 2: before the rule
  log.wait(60);
  log.ask("x", "a", "10.0.0.1");  // 3
  log.wait(60);
  log.ask("x", "b", "10.0.0.1");  // 4
  WhatIfOptions options;
  options.policy = kAddress;
  options.since.seq = 4;
  const Displacement displaced = only_displacement(judged(log.records, options));
  EXPECT_EQ(displaced.verdict, Verdict::takeover);
  EXPECT_THAT(displaced.because, HasSubstr("before (2)"));
}

TEST(WhatIf, OneNodeAlone) {
  RuledLog log;
  for (const char* node : {"x", "y"}) log.ask(node, "a", "10.0.0.1"), log.ask(node, "b", "10.0.0.1");
  WhatIfOptions options;
  options.policy = kAddress;
  options.node = "y";
  const WhatIf found = judged(log.records, options);
  EXPECT_EQ(found.refusals, 1u);
  ASSERT_THAT(found.nodes, SizeIs(1));
  EXPECT_EQ(found.nodes[0].node, "y");
}

TEST(WhatIf, WhatDoesNotFollowIsTakenAsRecorded) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  log.event(PasswordVerified{Fingerprint{"z"}}, "x");  // bound to "a": no server would have
  const WhatIf found = judged(log, kAddress);
  EXPECT_EQ(found.admissions_undecided, 1u);
  EXPECT_THAT(found.warnings, SizeIs(1));
}

TEST(WhatIf, AnExtractThatBeginsWithRefusalsCannotTellTheAddress) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  log.ask("x", "b", "10.0.0.1");
  log.records.erase(log.records.begin());
  const WhatIf found = judged(log, kAddress);
  EXPECT_EQ(found.refusals, 1u);
  EXPECT_EQ(found.undecided, 1u);
}

TEST(WhatIf, ImportedHistoryIsNotJudged) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  log.ask("x", "b", "10.0.0.1");
  for (Record& record : log.records) record.server = "imported:k3s-1";
  const WhatIf found = judged(log, kAddress);
  EXPECT_EQ(found.refusals, 0u);
  EXPECT_THAT(found.warnings, SizeIs(1));
}

TEST(WhatIf, ManyPasswordsAreBounded) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  for (int i = 0; i < 100; ++i) log.ask("x", "p" + std::to_string(i), "10.0.0.1");
  const WhatIf found = judged(log, kAddress);
  EXPECT_EQ(found.admitted, 100u);
  ASSERT_THAT(found.nodes, SizeIs(1));
  EXPECT_THAT(found.nodes[0].displacements, SizeIs(32));
  EXPECT_EQ(found.nodes[0].displacements_left_out, 68u);
  EXPECT_EQ(found.count(Verdict::undecided) + found.count(Verdict::takeover), 100u);
}

// ---- properties ------------------------------------------------------------------------------------------

RC_GTEST_PROP(WhatIfProperty, WithoutARuleNothingChanges, ()) {
  const WhatIf found = judged(*test::ruled_history(), {});
  RC_ASSERT(found.admitted == 0u);
  RC_ASSERT(found.undecided == 0u);
  RC_ASSERT(found.locked_out == 0u);
  RC_ASSERT(found.admissions_undecided == 0u);
  RC_ASSERT(found.nodes.empty());
  RC_ASSERT(found.warnings.empty());  // every recorded outcome is what decide() says
}

rc::Gen<Policy> any_policy() {
  return rc::gen::exec([] {
    Policy policy;
    policy.accept_same_address = *rc::gen::arbitrary<bool>();
    if (*rc::gen::arbitrary<bool>()) policy.release_after_silence = *rc::gen::element(60, 7200, 2'592'000);
    if (*rc::gen::arbitrary<bool>()) policy.token_grace = *rc::gen::element(60, 7200, 2'592'000);
    return policy;
  });
}

RC_GTEST_PROP(WhatIfProperty, EveryOutcomeIsCountedOnce, ()) {
  const std::vector<Record> records = *test::ruled_history();
  WhatIfOptions options;
  options.policy = *any_policy();
  const WhatIf found = judged(records, options);
  std::uint64_t refusals = 0, admissions = 0, displaced = 0;
  for (const Record& record : records) {
    if (is_refusal(record.kind())) refusals += static_cast<std::uint64_t>(record.count);
    admissions += as<PasswordStored>(record) != nullptr || as<PasswordVerified>(record) != nullptr;
  }
  RC_ASSERT(found.refusals == refusals);
  RC_ASSERT(found.refusals ==
            found.admitted + found.undecided + found.stay_password + found.stay_token + found.stay_request);
  RC_ASSERT(found.admissions == admissions);
  RC_ASSERT(found.locked_out + found.admissions_undecided <= found.admissions);
  for (const NodeJudgement& node : found.nodes)
    for (const Displacement& each : node.displacements) displaced += each.refusals.count;
  RC_ASSERT(displaced <= found.admitted);
}

RC_GTEST_PROP(WhatIfProperty, OneNodeIsJudgedTheSameAloneAndAmongOthers, ()) {
  const std::vector<Record> records = *test::ruled_history();
  WhatIfOptions options;
  options.policy = *any_policy();
  const WhatIf all = judged(records, options);
  options.node = "x";
  const WhatIf alone = judged(records, options);
  const auto of_x = [](const WhatIf& found) {
    boost::json::value told;
    const boost::json::object told_of_all = to_json(found);
    for (const auto& node : told_of_all.at("nodes").as_array())
      if (node.at("node") == "x") told = node;
    return boost::json::serialize(told);
  };
  RC_ASSERT(of_x(all) == of_x(alone));
}

RC_GTEST_PROP(WhatIfProperty, AnyHistoryIsJudgedAndPrinted, ()) {
  std::vector<Record> records = *test::related_history();
  WhatIfOptions options;
  options.policy = *any_policy();
  const WhatIf found = judged(records, options);
  RC_ASSERT(!to_text(found).empty());
  RC_ASSERT(found.refusals ==
            found.admitted + found.undecided + found.stay_password + found.stay_token + found.stay_request);
}

// ---- the text --------------------------------------------------------------------------------------------

TEST(WhatIfText, HeadlineThenNamesThenDoubts) {
  RuledLog log = registered();
  log.ask("x", "b", "10.0.0.1");
  log.wait(kHour);
  log.ask("y", "c", "10.0.0.3");
  log.ask("y", "d", "10.0.0.3");
  const std::string text = to_text(judged(log, kAddress));
  EXPECT_THAT(text, HasSubstr("Under --accept-same-address 2 of 2 refusals would have been admissions, among them 1 "
                              "takeover (x)"));
  EXPECT_LT(text.find("TAKEOVER"), text.find("what the evidence cannot decide"));
  EXPECT_THAT(text, HasSubstr("1 refusal (3) of #b"));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

TEST(WhatIfText, NoControlCharactersOfStrangers) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  log.ask("x", "b\x1b[31m", "10.0.0.1");
  WhatIf found = judged(log, kAddress);
  found.nodes[0].displacements[0].newcomer.text = "b\x1b[31m";
  EXPECT_THAT(to_text(found), Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace ledger::replay
