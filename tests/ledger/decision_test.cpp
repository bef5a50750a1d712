// The truth table of admission. A row is the documentation of a case.
#include "ledger/decision.h"

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

namespace ledger {
namespace {

const Fingerprint kOurs{"aaaa"};    // what the request presents
const Fingerprint kTheirs{"bbbb"};  // somebody else's

NodeState free_name() { return {}; }
NodeState released() {
  NodeState node;
  node.released = true, node.since = node.version = 9;
  return node;
}
NodeState held(NodeState node) {
  node.held = true, node.version = 10;
  return node;
}
NodeState bound(const Fingerprint& to) {
  NodeState node;
  node.bound = to, node.since = node.version = 3;
  return node;
}
NodeState bound_by_hash() {
  NodeState node;
  node.bound_by_hash = true, node.since = node.version = 3;
  return node;
}
NodeState refused_before(NodeState node) {
  node.rejections = 40, node.rejected.seq = 8;
  return node;
}

struct NodeRow {
  const char* name;
  NodeState node;
  Fingerprint presented;
  Ruling ruling;
  std::optional<bool> hash_match{};
};

// With a valid token and complete headers, the state of the name and the password decide.
const std::vector<NodeRow> kNodeRows = {
    {"a_free_name_goes_to_the_first_who_asks", free_name(), kOurs, Ruling::admit_first},
    {"a_released_name_is_free", released(), kOurs, Ruling::admit_first},
    {"the_holder_is_known_by_its_password", bound(kOurs), kOurs, Ruling::admit_known},
    {"the_holder_is_known_however_often_others_were_refused", refused_before(bound(kOurs)), kOurs, Ruling::admit_known},
    {"another_password_is_refused", bound(kTheirs), kOurs, Ruling::refuse_mismatch},
    {"another_password_is_refused_every_time", refused_before(bound(kTheirs)), kOurs, Ruling::refuse_mismatch},
    {"a_held_name_that_is_free_needs_an_operator", held(free_name()), kOurs, Ruling::refuse_held},
    {"a_held_name_that_was_released_needs_an_operator", held(released()), kOurs, Ruling::refuse_held},
    {"a_held_name_stays_with_its_holder", held(bound(kOurs)), kOurs, Ruling::admit_known},
    {"a_held_name_that_is_bound_refuses_others", held(bound(kTheirs)), kOurs, Ruling::refuse_mismatch},
    {"a_name_bound_by_hash_goes_to_the_password_of_the_hash", bound_by_hash(), kOurs, Ruling::admit_known, true},
    {"a_name_bound_by_hash_refuses_others", bound_by_hash(), kOurs, Ruling::refuse_mismatch, false},
    {"what_could_not_be_compared_with_the_hash_is_no_mismatch", bound_by_hash(), kOurs, Ruling::refuse_unverified},
    {"a_held_name_bound_by_hash_stays_with_its_holder", held(bound_by_hash()), kOurs, Ruling::admit_known, true},
    {"a_held_name_bound_by_hash_refuses_others", held(bound_by_hash()), kOurs, Ruling::refuse_mismatch, false},
    {"a_held_name_bound_by_hash_that_could_not_be_compared", held(bound_by_hash()), kOurs, Ruling::refuse_unverified},
    {"no_fingerprint_is_not_admitted_by_a_hash", bound_by_hash(), Fingerprint{}, Ruling::refuse_mismatch, true},
    {"not_known_is_not_equal_to_not_known", bound_by_hash(), Fingerprint{}, Ruling::refuse_unverified},
    {"a_hash_says_nothing_about_a_known_binding", bound(kTheirs), kOurs, Ruling::refuse_mismatch, true},
    {"a_mismatched_hash_says_nothing_about_a_known_binding", bound(kOurs), kOurs, Ruling::admit_known, false},
    {"a_hash_says_nothing_about_a_free_name", free_name(), kOurs, Ruling::admit_first, false},
    {"a_hash_does_not_free_a_held_name", held(free_name()), kOurs, Ruling::refuse_held, true},
    {"no_fingerprint_is_not_the_bound_one", bound(kTheirs), Fingerprint{}, Ruling::refuse_mismatch},
    {"a_longer_fingerprint_is_another", bound(Fingerprint{"aaaa0"}), kOurs, Ruling::refuse_mismatch},
};

const std::vector<TokenResult> kTokenResults = {
    TokenResult::accepted, TokenResult::missing, TokenResult::malformed,  TokenResult::unknown_principal, TokenResult::wrong_secret,
    TokenResult::expired,  TokenResult::revoked, TokenResult::superseded, TokenResult::wrong_class};
const std::vector<HeaderResult> kHeaderResults = {
    HeaderResult::complete,           HeaderResult::node_name_missing, HeaderResult::node_name_invalid, HeaderResult::node_password_missing,
    HeaderResult::node_name_mismatch, HeaderResult::node_unknown,      HeaderResult::bad_request};

// ---- one test per row ------------------------------------------------------------------------------------

class NodeAndPassword : public ::testing::TestWithParam<NodeRow> {};

TEST_P(NodeAndPassword, Decide) {
  const NodeRow& row = GetParam();
  EXPECT_EQ(decide({TokenResult::accepted, HeaderResult::complete, row.node, row.presented, row.hash_match}), row.ruling);
}

INSTANTIATE_TEST_SUITE_P(Decision, NodeAndPassword, ::testing::ValuesIn(kNodeRows),
                         [](const auto& row) { return std::string(row.param.name); });

// Nobody without a valid token learns anything about a name: whatever else is wrong, the ruling is the same.
class TokenNotAccepted : public ::testing::TestWithParam<TokenResult> {};

TEST_P(TokenNotAccepted, DecidesAlone) {
  for (const HeaderResult headers : kHeaderResults)
    for (const NodeRow& row : kNodeRows)
      EXPECT_EQ(decide({GetParam(), headers, row.node, row.presented, row.hash_match}), Ruling::refuse_token) << row.name;
}

INSTANTIATE_TEST_SUITE_P(Decision, TokenNotAccepted,
                         ::testing::ValuesIn(kTokenResults.begin() + 1, kTokenResults.end()),
                         [](const auto& row) { return std::string(reason_name(row.param)); });

// With a valid token, headers that are wrong decide before the password is looked at.
class HeadersNotComplete : public ::testing::TestWithParam<HeaderResult> {};

TEST_P(HeadersNotComplete, DecideBeforeThePassword) {
  for (const NodeRow& row : kNodeRows)
    EXPECT_EQ(decide({TokenResult::accepted, GetParam(), row.node, row.presented, row.hash_match}), Ruling::refuse_headers) << row.name;
}

INSTANTIATE_TEST_SUITE_P(Decision, HeadersNotComplete,
                         ::testing::ValuesIn(kHeaderResults.begin() + 1, kHeaderResults.end()),
                         [](const auto& row) { return std::string(reason_name(row.param)); });

// ---- what the table is about -----------------------------------------------------------------------------

TEST(Decision, OnlyTwoRulingsAdmit) {
  EXPECT_TRUE(admitted(Ruling::admit_first));
  EXPECT_TRUE(admitted(Ruling::admit_known));
  for (const Ruling ruling :
       {Ruling::refuse_token, Ruling::refuse_headers, Ruling::refuse_mismatch, Ruling::refuse_held,
        Ruling::refuse_unverified})
    EXPECT_FALSE(admitted(ruling));
}

TEST(Decision, EvidenceOfNothingIsRefused) { EXPECT_EQ(decide(Evidence{}), Ruling::refuse_token); }

// So are these: would_have.
TEST(Decision, RulingNamesGoThereAndBack) {
  std::set<std::string_view> names;
  for (const Ruling ruling :
       {Ruling::admit_first, Ruling::admit_known, Ruling::refuse_token, Ruling::refuse_headers,
        Ruling::refuse_mismatch, Ruling::refuse_held, Ruling::refuse_unverified}) {
    names.insert(name_of(ruling));
    EXPECT_EQ(ruling_from_name(name_of(ruling)), ruling);
  }
  EXPECT_EQ(names, (std::set<std::string_view>{"admit_first", "admit_known", "refuse_token", "refuse_headers",
                                               "refuse_mismatch", "refuse_held", "refuse_unverified"}));
  for (const std::string_view other : {"", "serve", "admit", "Admit_first"}) EXPECT_FALSE(ruling_from_name(other)) << other;
}

// The reasons are field values of docs/EVENTS.md: part of the contract.
TEST(Decision, ReasonNames) {
  std::set<std::string_view> names;
  for (const TokenResult result : kTokenResults) names.insert(reason_name(result));
  EXPECT_EQ(names, (std::set<std::string_view>{"accepted", "missing", "malformed", "unknown_principal", "wrong_secret",
                                               "expired", "revoked", "superseded", "wrong_class"}));
  names.clear();
  for (const HeaderResult result : kHeaderResults) names.insert(reason_name(result));
  EXPECT_EQ(names, (std::set<std::string_view>{"complete", "node_name_missing", "node_name_invalid",
                                               "node_password_missing", "node_name_mismatch", "node_unknown",
                                               "bad_request"}));
}

}  // namespace
}  // namespace ledger
