#include "replay/diff.h"

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
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

Cut at(Seq seq) { return {.seq = seq, .time = {}}; }

Diff between(const std::vector<Record>& records, const Cut& from, const Cut& to) {
  std::istringstream lines(test::lines_of(records));
  RecordSource source(lines);
  Result<Diff> found = diff(source, from, to);
  if (!found) fatal(found.error().message);
  return std::move(*found);
}
Diff between(const RuledLog& log, Seq from, Seq to) { return between(log.records, at(from), at(to)); }

std::string json_of(const Diff& found) { return boost::json::serialize(to_json(found)); }

NodeTable folded(const std::vector<Record>& records, Seq until) {
  NodeTable table;
  for (const Record& record : records)
    if (record.seq <= until) table.apply(record);
  return table;
}

TEST(Diff, ARebindingIsToldWithItsStepsAndWhoDidIt) {
  RuledLog log;
  log.ask("web-1", "aaaa", "10.0.0.1");          // 1
  log.wait(60);
  log.ask("web-1", "bbbb", "10.0.0.5");          // 2
  log.ask("web-1", "bbbb", "10.0.0.5", 30, 50);  // 3
  log.accept("web-1", "bbbb");                   // 4
  log.ask("web-1", "bbbb", "10.0.0.5");          // 5
  const Diff found = between(log, 1, 5);
  ASSERT_THAT(found.nodes, SizeIs(1));
  const NodeChange& change = found.nodes[0];
  EXPECT_EQ(change.node, "web-1");
  EXPECT_THAT(change.net, ElementsAre(NetEffect::rebound));
  EXPECT_EQ(change.before.bound.text, "aaaa");
  EXPECT_EQ(change.after.bound.text, "bbbb");
  EXPECT_EQ(change.refusals, 31u);
  EXPECT_EQ(change.registrations, 1u);
  ASSERT_THAT(change.steps, SizeIs(3));
  EXPECT_EQ(change.steps[0].first, 2u);
  EXPECT_EQ(change.steps[0].last, 3u);
  EXPECT_EQ(change.steps[0].count, 31u);
  EXPECT_EQ(change.steps[0].who, "10.0.0.5");
  EXPECT_EQ(change.steps[1].first, 4u);
  EXPECT_EQ(change.steps[1].who, "alice@srv");
  EXPECT_TRUE(change.steps[1].by_operator);
  const std::string text = to_text(found);
  EXPECT_THAT(text, HasSubstr("node web-1   bound to another password"));
  EXPECT_THAT(text, HasSubstr("accepted #bbbb by alice@srv"));
  EXPECT_THAT(text, HasSubstr("2..3"));
}

struct NetRow {
  const char* name;
  std::function<void(RuledLog&)> before, between;
  std::vector<NetEffect> net;
};

TEST(Diff, TheNetEffectOfWhatHappened) {
  const auto nothing = [](RuledLog&) {};
  const auto bound = [](RuledLog& log) { log.ask("x", "a", "10.0.0.1"); };
  const auto refused = [&](RuledLog& log) { bound(log), log.ask("x", "b", "10.0.0.2"); };
  const std::vector<NetRow> rows = {
      {"first", nothing, bound, {NetEffect::bound}},
      {"again", bound, bound, {NetEffect::registered}},
      {"released", bound, [](RuledLog& log) { log.release("x"); }, {NetEffect::released}},
      {"released_and_taken", bound,
       [](RuledLog& log) { log.release("x"), log.ask("x", "b", "10.0.0.2"); }, {NetEffect::rebound}},
      {"released_and_back", bound,
       [](RuledLog& log) { log.release("x"), log.ask("x", "a", "10.0.0.1"); }, {NetEffect::bound_anew}},
      {"bound_and_released", nothing,
       [](RuledLog& log) { log.ask("x", "a", "10.0.0.1"), log.release("x"); }, {NetEffect::none}},
      {"held", bound, [](RuledLog& log) { log.hold("x"); }, {NetEffect::held}},
      {"hold_ended", [](RuledLog& log) { log.hold("x"); }, [](RuledLog& log) { log.release("x"); },
       {NetEffect::hold_ended}},
      {"held_and_ended", nothing, [](RuledLog& log) { log.hold("x"), log.release("x"); }, {NetEffect::none}},
      {"refused", bound, [](RuledLog& log) { log.ask("x", "b", "10.0.0.2"); }, {NetEffect::refused}},
      {"more_refused", refused, [](RuledLog& log) { log.ask("x", "b", "10.0.0.2"); }, {NetEffect::refused}},
      {"refused_and_over", bound,
       [](RuledLog& log) { log.ask("x", "b", "10.0.0.2"), log.ask("x", "a", "10.0.0.1"); }, {NetEffect::registered}},
      {"admitted_after_all", refused, bound, {NetEffect::admitted}},
      {"hash", nothing, [](RuledLog& log) { log.import_hash("x"); }, {NetEffect::bound}},
      {"hash_seen", [](RuledLog& log) { log.import_hash("x"); },
       [](RuledLog& log) { log.ask("x", "h", "10.0.0.1"); }, {NetEffect::fingerprint_known}},
      {"hash_replaced", [](RuledLog& log) { log.import_hash("x"); },
       [](RuledLog& log) { log.accept("x", "c"); }, {NetEffect::rebound}},
      {"accepted_and_refused", bound,
       [](RuledLog& log) { log.accept("x", "b"), log.ask("x", "a", "10.0.0.1"); },
       {NetEffect::rebound, NetEffect::refused}},
  };
  for (const NetRow& row : rows) {
    RuledLog log;
    row.before(log);
    const Seq middle = log.seq();
    row.between(log);
    const Diff found = between(log, middle, log.seq());
    ASSERT_THAT(found.nodes, SizeIs(1)) << row.name;
    EXPECT_EQ(found.nodes[0].net, row.net) << row.name << " " << json_of(found);
  }
}

TEST(Diff, NodesThatOnlyRegisteredAgainAreCountedNotListed) {
  RuledLog log;
  for (const char* node : {"x", "y", "z"}) log.ask(node, "a", "10.0.0.1");
  for (const char* node : {"x", "y"}) log.ask(node, "a", "10.0.0.1");
  log.ask("z", "b", "10.0.0.1");
  const Diff found = between(log, 3, 6);
  EXPECT_THAT(found.nodes, SizeIs(3));
  const std::string text = to_text(found);
  EXPECT_THAT(text, HasSubstr("1 node changed"));
  EXPECT_THAT(text, HasSubstr("2 nodes registered again"));
  EXPECT_THAT(text, Not(HasSubstr("node x")));
  EXPECT_THAT(to_text(found, {}, true), HasSubstr("node x"));
}

TEST(Diff, TokensByClassAndWhatEndedThem) {
  RuledLog log;
  log.event(TokenCreated{.token = "t1", .token_class = "agent", .expires = {}, .actor = "setup"});             // 1
  log.event(TokenCreated{.token = "b1", .token_class = "bootstrap", .expires = {}, .actor = "bob"});           // 2
  log.wait(60);
  log.event(TokenRotated{.token = "t2", .token_class = "agent", .expires = {}, .actor = "alice"});             // 3
  log.event(TokenRevoked{.token = "b1", .token_class = "bootstrap", .expires = {}, .actor = "alice"});         // 4
  log.event(TokenCreated{.token = "b2", .token_class = "bootstrap", .expires = log.now().plus_seconds(60), .actor = "bob"});  // 5
  const Diff found = between(log, 2, 5);
  ASSERT_THAT(found.tokens, SizeIs(4));
  const auto told = [&](std::size_t i) {
    const TokenChange& change = found.tokens[i];
    return change.token + ":" + change.before + ">" + change.after + "@" + std::to_string(change.steps.at(0).first);
  };
  EXPECT_EQ(told(0), "t1:valid>superseded@3");
  EXPECT_EQ(told(1), "t2:>valid@3");
  EXPECT_EQ(told(2), "b1:valid>revoked@4");
  EXPECT_EQ(told(3), "b2:>valid@5");
  EXPECT_THAT(to_text(found), HasSubstr("revoked by alice"));
  // Time alone ends a token.
  const Diff later = between(log.records, at(5), {.seq = {}, .time = log.now().plus_seconds(3600)});
  ASSERT_THAT(later.tokens, SizeIs(1));
  EXPECT_EQ(later.tokens[0].after, "expired");
  EXPECT_THAT(later.tokens[0].steps, IsEmpty());
}

TEST(Diff, MomentsAreTimesToo) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  log.wait(3600);
  log.ask("y", "a", "10.0.0.1");
  const Time middle = log.now().plus_seconds(-60);
  const Diff found = between(log.records, {.seq = {}, .time = middle}, {});
  EXPECT_EQ(found.from.seq, 1u);
  EXPECT_EQ(found.to.seq, 2u);
  ASSERT_THAT(found.nodes, SizeIs(1));
  EXPECT_EQ(found.nodes[0].node, "y");
  std::istringstream lines(test::lines_of(log.records));
  RecordSource source(lines);
  const auto backwards = diff(source, at(2), at(1));
  ASSERT_FALSE(backwards);
  EXPECT_EQ(backwards.error().code, Errc::invalid);
}

TEST(Diff, StepsOfOneNodeAreBounded) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  for (int i = 0; i < 500; ++i) log.ask("x", i % 2 == 0 ? "b" : "c", "10.0.0.2");
  const Diff found = between(log, 1, log.seq());
  ASSERT_THAT(found.nodes, SizeIs(1));
  EXPECT_EQ(found.nodes[0].refusals, 500u);
  EXPECT_THAT(found.nodes[0].steps, SizeIs(40));
  EXPECT_EQ(found.nodes[0].steps_left_out, 460u);
  EXPECT_EQ(found.nodes[0].steps.back().first, 501u);
  EXPECT_THAT(to_text(found), HasSubstr("460 steps left out"));
}

TEST(Diff, WhatCannotBeReadIsSaid) {
  RuledLog log;
  log.ask("x", "a", "10.0.0.1");
  std::istringstream lines(test::lines_of(log.records) + "{nonsense\n");
  RecordSource source(lines);
  const auto found = diff(source, at(0), {});
  ASSERT_TRUE(found);
  EXPECT_THAT(found->warnings, ElementsAre(HasSubstr("1 record(s) cannot be read, the first after record 1")));
}

TEST(Diff, TextKeepsToItsWidthAndToPrintableCharacters) {
  RuledLog log;
  log.ask("a-node-with-a-long-name.example.org", "a", "10.0.0.1");
  log.accept("a-node-with-a-long-name.example.org", "b");
  log.records.back().note = "rebuilt after the disk died, ticket 4711, with a note that is longer than a line\x1b[31m";
  const std::string text = to_text(between(log, 0, 2));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

// ---- properties ------------------------------------------------------------------------------------------

RC_GTEST_PROP(DiffProperty, BetweenAMomentAndItselfIsNothing, ()) {
  const std::vector<Record> records = *test::related_history();
  const Seq moment = *rc::gen::inRange<Seq>(0, records.size() + 2);
  const Diff found = between(records, at(moment), at(moment));
  RC_ASSERT(found.nodes.empty());
  RC_ASSERT(found.tokens.empty());
}

RC_GTEST_PROP(DiffProperty, AppliedToTheEarlierStateItIsTheLaterOne, ()) {
  const std::vector<Record> records = *test::related_history();
  const Seq from = *rc::gen::inRange<Seq>(0, records.size() + 1);
  const Seq to = from + *rc::gen::inRange<Seq>(0, records.size() + 1 - from);
  NodeTable earlier = folded(records, from);
  const NodeTable later = folded(records, to);
  for (const NodeChange& change : between(records, at(from), at(to)).nodes) {
    const NodeState* was = earlier.find(change.node);
    RC_ASSERT((was == nullptr ? NodeState{} : *was) == change.before);
    earlier.put(change.node, change.after);
  }
  RC_ASSERT(earlier.size() == later.size());
  for (const auto& [node, state] : later) RC_ASSERT(*earlier.find(node) == state);
}

RC_GTEST_PROP(DiffProperty, TwoInARowComeToOne, ()) {
  const std::vector<Record> records = *test::ruled_history();
  const Seq head = records.size();
  const Seq middle = *rc::gen::inRange<Seq>(0, head + 1);
  std::map<std::string, std::pair<NodeState, NodeState>> composed;
  for (const auto& [from, to] : {std::pair<Seq, Seq>{0, middle}, {middle, head}})
    for (const NodeChange& change : between(records, at(from), at(to)).nodes)
      composed.try_emplace(change.node, change.before, NodeState{}).first->second.second = change.after;
  const Diff whole = between(records, at(0), at(head));
  RC_ASSERT(whole.nodes.size() == composed.size());
  for (const NodeChange& change : whole.nodes) {
    RC_ASSERT(composed.at(change.node).first == change.before);
    RC_ASSERT(composed.at(change.node).second == change.after);
  }
}

RC_GTEST_PROP(DiffProperty, LogAndExportGiveOneAnswer, ()) {
  const std::vector<Record> records = *test::ruled_history();
  RC_PRE(!records.empty());
  test::MemoryLog log;
  log.append(records);
  const Seq from = *rc::gen::inRange<Seq>(0, records.size() + 1);
  RecordSource source(log.log());
  const auto of_log = diff(source, at(from), {});
  RC_ASSERT(of_log.has_value());
  RC_ASSERT(json_of(*of_log) == json_of(between(records, at(from), {})));
  RC_ASSERT(to_text(*of_log) == to_text(between(records, at(from), {})));
}

}  // namespace
}  // namespace ledger::replay
