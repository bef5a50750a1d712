#include "ledger/node_table.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <sstream>

#include "ledger/event_codec.h"
#include "tests/support/generators.h"

namespace ledger {
namespace {

// One line that says all of a state's binding: "bound aa since 3 version 3 +2 rejected", "released held ...".
std::string describe(const NodeState& state) {
  std::ostringstream out;
  out << (state.bound.known() ? "bound " + state.bound.text : state.bound_by_hash ? "by-hash" : "free");
  if (state.held) out << " held";
  if (state.released) out << " released";
  out << " since " << state.since << " version " << state.version;
  if (state.rejections > 0) out << " +" << state.rejections;
  return out.str();
}

const Fingerprint kA{"aa"}, kB{"bb"};
const Event kStoredA = PasswordStored{kA};
const Event kVerifiedA = PasswordVerified{kA};
const Event kVerifiedB = PasswordVerified{kB};
const Event kRejectedB = PasswordRejected{.fingerprint = kB, .bound = kA, .status = 403};
const Event kRejectedHeld = PasswordRejected{.fingerprint = kB, .bound = {}, .status = 403};
const Event kReleased = BindingReleased{.actor = "ops", .by = "operator", .fingerprint = kA};
const Event kNodeDeleted = BindingReleased{.actor = "", .by = "node_deleted", .fingerprint = kA};
const Event kSwept = BindingReleased{.actor = "", .by = "sweep", .fingerprint = kA};
const Event kChangedToB = BindingChanged{.actor = "ops", .by = "operator_accept", .from = kA, .to = kB};
const Event kHeld = BindingHeld{"ops"};
const Event kImportedA = BindingImported{.fingerprint = kA, .origin = "node-passwd"};
const Event kImportedHash = BindingImported{.fingerprint = {}, .origin = "secret"};

struct Row {
  const char* name;
  std::vector<Event> events;  // seq 1, 2, 3...
  const char* after;
  const char* state;
};

// The same fold where each event is what an upstream decided; a hold is our own, whoever else decides.
NodeState fold_upstreams(const std::vector<Event>& events) {
  NodeState state;
  Seq seq = 0;
  for (const Event& event : events) {
    Record record;
    record.seq = ++seq;
    record.event = event;
    if (record.kind() != Kind::binding_held) record.authority = kUpstreamAuthority;
    apply(record, state);
  }
  return state;
}

TEST(UpstreamOutcomes, FoldLikeOurOwn) {
  const Event changed = BindingChanged{.actor = {}, .by = "outside", .from = kA, .to = kB};
  const Event refused_unknown = PasswordRejected{.fingerprint = kA, .bound = {}, .status = 403};
  EXPECT_EQ(describe(fold_upstreams({kStoredA})), "bound aa since 1 version 1");
  EXPECT_EQ(describe(fold_upstreams({kStoredA, kVerifiedA})), "bound aa since 1 version 1");
  EXPECT_EQ(describe(fold_upstreams({kVerifiedA})), "bound aa since 1 version 1") << "it was bound before we watched";
  EXPECT_EQ(describe(fold_upstreams({kStoredA, kRejectedB})), "bound aa since 1 version 1 +1");
  EXPECT_EQ(describe(fold_upstreams({kStoredA, refused_unknown})), "bound aa since 1 version 1 +1")
      << "it refuses what it admitted; which password it wants is not known";
  EXPECT_EQ(describe(fold_upstreams({refused_unknown})), "free since 0 version 0 +1") << "a binding we do not know";
  EXPECT_EQ(describe(fold_upstreams({kStoredA, kRejectedB, changed, kVerifiedB})), "bound bb since 3 version 3");
}

TEST(UpstreamOutcomes, DoNotEndAHold) {
  const Event changed = BindingChanged{.actor = {}, .by = "outside", .from = kA, .to = kB};
  EXPECT_EQ(describe(fold_upstreams({kHeld, kStoredA})), "bound aa held since 2 version 2");
  EXPECT_EQ(describe(fold_upstreams({kStoredA, kHeld, changed, kVerifiedB})), "bound bb held since 3 version 3");
  EXPECT_EQ(state_name(fold_upstreams({kHeld, kStoredA})), "held");
}

class Transitions : public ::testing::TestWithParam<Row> {};

TEST_P(Transitions, Fold) {
  NodeState state;
  Seq seq = 0;
  for (const Event& event : GetParam().events) {
    Record record;
    record.seq = ++seq;
    record.event = event;
    apply(record, state);
  }
  EXPECT_EQ(describe(state), GetParam().after);
  EXPECT_EQ(state_name(state), GetParam().state);
}

INSTANTIATE_TEST_SUITE_P(
    NodeTable, Transitions,
    ::testing::Values(
        Row{"never_seen", {}, "free since 0 version 0", "unknown"},
        Row{"first_registration", {kStoredA}, "bound aa since 1 version 1", "registered"},
        Row{"known_again", {kStoredA, kVerifiedA}, "bound aa since 1 version 1", "registered"},
        Row{"refused", {kStoredA, kRejectedB}, "bound aa since 1 version 1 +1", "refused"},
        Row{"refused_twice", {kStoredA, kRejectedB, kRejectedB}, "bound aa since 1 version 1 +2", "refused"},
        Row{"holder_returns", {kStoredA, kRejectedB, kVerifiedA}, "bound aa since 1 version 1", "registered"},
        Row{"released", {kStoredA, kReleased}, "free released since 2 version 2", "released"},
        Row{"refused_then_released", {kStoredA, kRejectedB, kReleased}, "free released since 3 version 3", "released"},
        Row{"bound_anew", {kStoredA, kReleased, PasswordStored{kB}}, "bound bb since 3 version 3", "registered"},
        Row{"accepted_by_operator", {kStoredA, kRejectedB, kChangedToB}, "bound bb since 3 version 3", "registered"},
        Row{"held_while_bound", {kStoredA, kHeld}, "bound aa held since 1 version 2", "held"},
        Row{"held_while_free", {kHeld}, "free held since 0 version 1", "held"},
        Row{"held_refuses", {kHeld, kRejectedHeld}, "free held since 0 version 1 +1", "held"},
        Row{"an_operators_release_ends_a_hold", {kHeld, kReleased}, "free released since 2 version 2", "released"},
        Row{"an_operators_accept_ends_a_hold", {kHeld, kRejectedHeld, kChangedToB}, "bound bb since 3 version 3",
            "registered"},
        Row{"a_deleted_node_stays_held", {kStoredA, kHeld, kNodeDeleted}, "free held released since 3 version 3",
            "held"},
        Row{"a_swept_node_stays_held", {kStoredA, kHeld, kSwept}, "free held released since 3 version 3", "held"},
        Row{"a_deleted_node_is_free", {kStoredA, kNodeDeleted}, "free released since 2 version 2", "released"},
        Row{"held_holder_is_verified", {kStoredA, kHeld, kVerifiedA}, "bound aa held since 1 version 2", "held"},
        Row{"imported", {kImportedA}, "bound aa since 1 version 1", "registered"},
        Row{"imported_hash", {kImportedHash}, "by-hash since 1 version 1", "registered"},
        Row{"imported_hash_refuses", {kImportedHash, kRejectedHeld}, "by-hash since 1 version 1 +1", "refused"},
        Row{"first_match_of_a_hash_tells_its_fingerprint", {kImportedHash, kVerifiedA}, "bound aa since 2 version 2",
            "registered"},
        Row{"held_hash_stays_held", {kImportedHash, kHeld, kVerifiedA}, "bound aa held since 3 version 3", "held"},
        Row{"released_hash", {kImportedHash, kReleased}, "free released since 2 version 2", "released"},
        // Extracts: the first we hear of a name is not its beginning.
        Row{"an_extract_begins_with_a_verified_password", {kVerifiedA}, "bound aa since 1 version 1", "registered"},
        Row{"an_extract_begins_with_a_refusal", {kRejectedB}, "bound aa since 0 version 1 +1", "refused"},
        Row{"an_extract_begins_with_a_release", {kReleased}, "free released since 1 version 1", "released"},
        Row{"a_late_refusal_does_not_bind_a_released_name", {kStoredA, kReleased, kRejectedB},
            "free released since 2 version 2 +1", "released"},
        Row{"another_verified_password_does_not_rebind", {kStoredA, kVerifiedB}, "bound aa since 1 version 1",
            "registered"},
        Row{"tunnels_and_certificates_say_nothing", {kStoredA, TunnelOpened{"s"}, CertificateIssued{}, TokenAccepted{}},
            "bound aa since 1 version 1", "registered"}),
    [](const auto& row) { return std::string(row.param.name); });

TEST(NodeTable, CountsAddUpAndMomentsAreTheLast) {
  NodeState state;
  Record record;
  record.seq = 1, record.time = Time{10}, record.source = "10.0.0.1:5", record.event = kStoredA;
  EXPECT_TRUE(apply(record, state));
  EXPECT_EQ(state.registered, (Moment{1, Time{10}, "10.0.0.1:5", kA}));
  record.seq = 2, record.time = Time{20}, record.source = "10.0.0.2", record.event = kRejectedB, record.count = 40;
  EXPECT_TRUE(apply(record, state));
  record.seq = 3, record.time = Time{30}, record.count = 2;
  EXPECT_TRUE(apply(record, state));
  EXPECT_EQ(state.rejections, 42U);
  EXPECT_EQ(state.rejected, (Moment{3, Time{30}, "10.0.0.2", kB}));
  EXPECT_EQ(state.registered.seq, 1U);
}

TEST(NodeTable, ARecordThatSaysNothingMakesNoNode) {
  NodeTable table;
  Record record;
  record.seq = 1, record.node = "n1", record.event = TunnelOpened{"s"};
  EXPECT_EQ(table.apply(record), nullptr);
  EXPECT_EQ(table.find("n1"), nullptr);
  EXPECT_EQ(table.size(), 0U);
  record.node = "", record.event = kStoredA;
  EXPECT_EQ(table.apply(record), nullptr) << "a binding of no name";
  record.node = "n1";
  const NodeState* changed = table.apply(record);
  ASSERT_NE(changed, nullptr);
  EXPECT_EQ(changed, table.find("n1"));
}

// ---- the projection is disposable ------------------------------------------------------------------------

std::map<std::string, std::string> bytes_of(const NodeTable& table) {
  std::map<std::string, std::string> bytes;
  for (const auto& [name, state] : table) bytes[name] = encode(state);
  return bytes;
}

// Fold all, or stop anywhere, store the states, load them and go on: the same bytes.
RC_GTEST_PROP(NodeTable, FoldingInPiecesIsFoldingAll, ()) {
  const std::vector<Record> history = *test::node_history();
  const auto cuts = *rc::gen::container<std::set<std::size_t>>(rc::gen::inRange<std::size_t>(0, history.size() + 1));
  NodeTable whole, pieces;
  for (std::size_t at = 0; at < history.size(); ++at) {
    if (cuts.contains(at)) {
      NodeTable loaded;
      for (const auto& [name, state] : pieces) {
        const Result<NodeState> decoded = decode_node_state(encode(state));
        RC_ASSERT(decoded.has_value());
        loaded.put(name, *decoded);
      }
      pieces = std::move(loaded);
    }
    whole.apply(history[at]);
    pieces.apply(history[at]);
  }
  RC_ASSERT(bytes_of(whole) == bytes_of(pieces));
}

// A decision holds as long as the version does: whatever could change one changes the version.
RC_GTEST_PROP(NodeTable, WhatDecidesNeverChangesUnderOneVersion, ()) {
  NodeTable table;
  for (const Record& record : *test::node_history()) {
    const NodeState before = table.find(record.node) == nullptr ? NodeState{} : *table.find(record.node);
    table.apply(record);
    const NodeState after = table.find(record.node) == nullptr ? NodeState{} : *table.find(record.node);
    RC_ASSERT(after.version >= before.version);
    if (after.version != before.version) {
      RC_ASSERT(after.version == record.seq);
      continue;
    }
    RC_ASSERT(after.bound == before.bound);
    RC_ASSERT(after.bound_by_hash == before.bound_by_hash);
    RC_ASSERT(after.held == before.held);
    RC_ASSERT(after.released == before.released);
    RC_ASSERT(after.since == before.since);
  }
}

RC_GTEST_PROP(NodeTable, OneNodesRecordsAreItsOwn, ()) {
  const std::vector<Record> history = *test::node_history();
  NodeTable all, alone;
  for (const Record& record : history) {
    all.apply(record);
    if (record.node == "n1") alone.apply(record);
  }
  const NodeState* one = all.find("n1");
  const NodeState* other = alone.find("n1");
  RC_ASSERT((one == nullptr) == (other == nullptr));
  if (one != nullptr) RC_ASSERT(*one == *other);
}

}  // namespace
}  // namespace ledger
