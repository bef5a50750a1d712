// The truth table of the rules that `ledger whatif` judges. A row is the documentation of a case.
#include "replay/policy.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <vector>

#include "replay/history.h"

namespace ledger::replay {
namespace {

constexpr Time kNow{1'700'000'000'000'000};
const Fingerprint kHolder{"aaaa"}, kOther{"bbbb"};

NodeState bound() {
  NodeState node;
  node.bound = kHolder, node.since = node.version = 3;
  node.registered = {.seq = 5, .time = kNow.plus_seconds(-7200), .source = "10.0.0.1:4000", .fingerprint = kHolder};
  return node;
}
NodeState held(NodeState node) {
  node.held = true;
  return node;
}
NodeState accepted_since() {  // an operator bound it to a password that has not come yet
  NodeState node = bound();
  node.since = node.version = 9;
  return node;
}

// Another password comes from the holder's host, two hours after the holder was last heard.
PolicyEvidence newcomer(NodeState node = bound()) {
  PolicyEvidence e;
  e.evidence = {TokenResult::accepted, HeaderResult::complete, std::move(node), kOther};
  e.now = kNow;
  e.source = "10.0.0.1:55555";
  e.heard = kNow.plus_seconds(-7200);
  return e;
}
template <class Change>
PolicyEvidence with(PolicyEvidence e, Change&& change) {
  change(e);
  return e;
}
PolicyEvidence with_token(TokenResult token, std::int64_t ended_ago) {
  return with(newcomer(NodeState{}), [&](PolicyEvidence& e) {
    e.evidence.token = token;
    e.token_ended = kNow.plus_seconds(-ended_ago);
  });
}

const Policy kNone{};
const Policy kAddress{.accept_same_address = true, .release_after_silence = {}, .token_grace = {}};
const Policy kSilence{.accept_same_address = false, .release_after_silence = 3600, .token_grace = {}};
const Policy kGrace{.accept_same_address = false, .release_after_silence = {}, .token_grace = 3600};
const Policy kAll{.accept_same_address = true, .release_after_silence = 3600, .token_grace = 3600};

enum class Says { admits, refuses, cannot_tell };
struct Row {
  const char* name;
  Policy policy;
  PolicyEvidence evidence;
  Says says;
};

const std::vector<Row> kRows = {
    {"no_rule_refuses_another_password", kNone, newcomer(), Says::refuses},
    {"the_holders_host_is_enough", kAddress, newcomer(), Says::admits},
    {"another_host_is_not", kAddress, with(newcomer(), [](auto& e) { e.source = "10.0.0.2:1"; }), Says::refuses},
    {"an_address_in_its_ipv6_form_is_the_same", kAddress,
     with(newcomer(), [](auto& e) { e.source = "[::ffff:10.0.0.1]:1"; }), Says::admits},
    {"a_request_without_an_address", kAddress, with(newcomer(), [](auto& e) { e.source = ""; }), Says::cannot_tell},
    {"whoever_was_accepted_has_no_address_until_it_comes", kAddress, newcomer(accepted_since()), Says::refuses},
    {"a_history_that_begins_later_does_not_show_the_address", kAddress,
     with(newcomer(), [](auto& e) { e.evidence.node.registered = {}, e.binding_not_shown = true; }), Says::cannot_tell},
    {"a_hold_is_a_persons_word", kAll, newcomer(held(bound())), Says::refuses},
    {"a_held_free_name_stays_held", kAll, newcomer(held(NodeState{})), Says::refuses},
    {"a_password_that_was_not_recorded", kAddress, with(newcomer(), [](auto& e) { e.evidence.presented = {}; }),
     Says::cannot_tell},
    {"a_silent_holder_loses_the_name", kSilence, with(newcomer(), [](auto& e) { e.source = "10.0.0.2:1"; }),
     Says::admits},
    {"silence_at_the_limit_is_silence", kSilence,
     with(newcomer(), [](auto& e) { e.heard = kNow.plus_seconds(-3600); }), Says::admits},
    {"silence_short_of_it_is_none", kSilence, with(newcomer(), [](auto& e) { e.heard = kNow.plus_seconds(-3599); }),
     Says::refuses},
    {"an_open_tunnel_is_no_silence", kSilence, with(newcomer(), [](auto& e) { e.tunnel_open = true; }), Says::refuses},
    {"who_may_have_been_heard_since_may_not_be_silent", kSilence,
     with(newcomer(), [](auto& e) { e.heard_maybe_later = true; }), Says::cannot_tell},
    {"who_was_heard_just_now_is_not_silent_in_any_case", kSilence,
     with(newcomer(), [](auto& e) { e.heard_maybe_later = true, e.heard = kNow; }), Says::refuses},
    {"a_holder_that_was_never_heard", kSilence, with(newcomer(), [](auto& e) { e.heard = {}; }), Says::cannot_tell},
    {"a_record_without_a_time", kSilence, with(newcomer(), [](auto& e) { e.now = {}; }), Says::cannot_tell},
    {"one_rule_that_says_yes_is_enough", kAll, with(newcomer(), [](auto& e) { e.heard = {}; }), Says::admits},
    {"the_holder_needs_no_rule", kNone, with(newcomer(), [](auto& e) { e.evidence.presented = kHolder; }),
     Says::admits},
    {"a_token_in_its_grace", kGrace, with_token(TokenResult::superseded, 3600), Says::admits},
    {"a_token_past_its_grace", kGrace, with_token(TokenResult::superseded, 3601), Says::refuses},
    {"a_revoked_token_in_its_grace", kGrace, with_token(TokenResult::revoked, 1), Says::admits},
    {"an_expired_token_in_its_grace", kGrace, with_token(TokenResult::expired, 1), Says::admits},
    {"a_wrong_secret_never_was_a_token", kGrace, with_token(TokenResult::wrong_secret, 1), Says::refuses},
    {"no_token_at_all", kGrace, with_token(TokenResult::missing, 1), Says::refuses},
    {"nobody_knows_when_the_token_ended", kGrace,
     with(with_token(TokenResult::superseded, 1), [](auto& e) { e.token_ended = {}; }), Says::cannot_tell},
    {"no_grace_without_the_rule", kAddress, with_token(TokenResult::superseded, 1), Says::refuses},
    {"grace_opens_the_token_not_the_name", kGrace,
     with(newcomer(), [](auto& e) { e.evidence.token = TokenResult::superseded, e.token_ended = kNow; }), Says::refuses},
    {"grace_and_address_together", kAll,
     with(newcomer(), [](auto& e) { e.evidence.token = TokenResult::superseded, e.token_ended = kNow; }), Says::admits},
    {"grace_does_not_mend_headers", kAll,
     with(with_token(TokenResult::superseded, 1),
          [](auto& e) { e.evidence.headers = HeaderResult::node_name_missing; }),
     Says::refuses},
    {"a_hash_that_does_not_match_is_another_password", kAddress, with(newcomer(), [](auto& e) {
       e.evidence.node.bound = {}, e.evidence.node.bound_by_hash = true, e.evidence.hash_match = false;
     }), Says::admits},
    {"a_hash_that_could_not_be_compared", kAll, with(newcomer(), [](auto& e) {
       e.evidence.node.bound = {}, e.evidence.node.bound_by_hash = true;
     }), Says::cannot_tell},
};

TEST(Policy, TruthTable) {
  for (const Row& row : kRows) {
    const PolicyRuling ruling = decide_under(row.policy, row.evidence);
    const Says says = !ruling.decided() ? Says::cannot_tell : ruling.admits() ? Says::admits : Says::refuses;
    EXPECT_EQ(says, row.says) << row.name << ": " << ruling.unknown;
  }
}

TEST(Policy, NamesTheRuleThatMadeTheDifference) {
  EXPECT_TRUE(decide_under(kAll, newcomer()).rules.same_address);
  EXPECT_FALSE(decide_under(kAll, newcomer()).rules.silence) << "the narrower rule is enough";
  const PolicyEvidence elsewhere = with(newcomer(), [](auto& e) { e.source = "10.0.0.2:1"; });
  EXPECT_TRUE(decide_under(kAll, elsewhere).rules.silence);
  EXPECT_FALSE(decide_under(kAll, with(newcomer(), [](auto& e) { e.evidence.presented = kHolder; })).rules.any());
}

rc::Gen<PolicyEvidence> any_evidence() {
  return rc::gen::exec([] {
    PolicyEvidence e;
    e.evidence.token = static_cast<TokenResult>(*rc::gen::inRange(0, 9));
    e.evidence.headers = static_cast<HeaderResult>(*rc::gen::inRange(0, 8));
    e.evidence.node = *rc::gen::element(NodeState{}, bound(), held(bound()), held(NodeState{}), accepted_since());
    e.evidence.presented = *rc::gen::element(kHolder, kOther, Fingerprint{});
    e.now = *rc::gen::element(Time{}, kNow);
    e.source = *rc::gen::element("", "10.0.0.1:1", "10.0.0.2:1");
    e.heard = *rc::gen::element(Time{}, kNow, kNow.plus_seconds(-90'000));
    e.heard_maybe_later = *rc::gen::arbitrary<bool>();
    e.tunnel_open = *rc::gen::arbitrary<bool>();
    e.token_ended = *rc::gen::element(Time{}, kNow, kNow.plus_seconds(-90'000));
    return e;
  });
}

RC_GTEST_PROP(Policy, WithoutARuleItIsDecide, ()) {
  const PolicyEvidence e = *any_evidence();
  const PolicyRuling ruling = decide_under({}, e);
  RC_ASSERT(ruling.ruling == decide(e.evidence));
  RC_ASSERT(!ruling.rules.any());
  RC_ASSERT(ruling.decided() == (ruling.ruling != Ruling::refuse_unverified));
}

RC_GTEST_PROP(Policy, NoRuleEverTurnsAnybodyAway, ()) {
  PolicyEvidence e = *any_evidence();
  e.evidence.token = TokenResult::accepted, e.evidence.headers = HeaderResult::complete;
  if (!admitted(decide(e.evidence))) e.evidence.node = NodeState{};
  RC_ASSERT(admitted(decide(e.evidence)));
  RC_ASSERT(decide_under(kAll, e).admits());
}

RC_GTEST_PROP(Policy, MoreRulesAdmitNoLess, ()) {
  const PolicyEvidence e = *any_evidence();
  for (const Policy& one : {kAddress, kSilence, kGrace})
    if (decide_under(one, e).admits()) RC_ASSERT(decide_under(kAll, e).admits());
}

TEST(Policy, IsWrittenAsOnTheCommandLine) {
  EXPECT_EQ(to_string(kAll), "--accept-same-address --release-after-silence 1h --token-grace 1h");
  EXPECT_EQ(to_string(kNone), "");
  EXPECT_EQ(span_text(5400), "90m");
  EXPECT_EQ(span_text(30 * 86400), "30d");
  EXPECT_EQ(span_text(61), "61s");
}

RC_GTEST_PROP(Policy, SpansAreReadAsTheyAreWritten, ()) {
  const std::int64_t seconds = 60 * *rc::gen::inRange<std::int64_t>(1, 36'500);
  RC_ASSERT(seconds_of_span(span_text(seconds)) == seconds);
}

}  // namespace
}  // namespace ledger::replay
