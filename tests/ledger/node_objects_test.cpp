// Node objects as records: each once, whoever reports it and however often; releases only where they are due.
#include "ledger/node_objects.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/support/ledger_fixture.h"

namespace ledger {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class NodeObjectsTest : public test::LedgerTest {
 protected:
  NodeObjectsTest() { open(); }
  NodeObjects::Outcome report(std::vector<NodeObjects::Change> changes, bool release = false) {
    NodeObjects fresh(*ledger_);  // as after a restart
    return report_to(fresh, std::move(changes), release);
  }
  NodeObjects::Outcome report_to(NodeObjects& objects, std::vector<NodeObjects::Change> changes,
                                 bool release = false) {
    const auto done = objects.record({"tester", release, std::move(changes), "r", "10.0.0.1"});
    EXPECT_TRUE(done) << done.error().message;
    return done ? *done : NodeObjects::Outcome{};
  }
  std::vector<std::string> story() const {
    std::vector<std::string> out;
    for (const Record& record : records()) {
      if (const auto* created = as<NodeObjectCreated>(record))
        out.push_back("+" + record.node + "/" + created->uid);
      if (const auto* deleted = as<NodeObjectDeleted>(record))
        out.push_back("-" + record.node + "/" + deleted->uid);
      if (as<BindingReleased>(record) != nullptr) out.push_back("released " + record.node);
    }
    return out;
  }
  static NodeObjects::Change came(const std::string& node, const std::string& uid) {
    return {node, uid, false, ""};
  }
  static NodeObjects::Change went(const std::string& node, const std::string& uid) { return {node, uid, true, ""}; }
};

TEST_F(NodeObjectsTest, EachOnceWhoeverReportsIt) {
  for (int i = 0; i < 3; ++i) report({came("a", "1"), came("b", "2")});
  EXPECT_THAT(story(), ElementsAre("+a/1", "+b/2"));
  for (int i = 0; i < 3; ++i) report({went("a", "1")});
  EXPECT_THAT(story(), ElementsAre("+a/1", "+b/2", "-a/1"));
  // One that lags cannot bring it back.
  EXPECT_EQ(report({came("a", "1")}).known, 1u);
  EXPECT_EQ(report({went("never-seen", "9")}).known, 1u);
  EXPECT_THAT(story(), ElementsAre("+a/1", "+b/2", "-a/1"));
}

TEST_F(NodeObjectsTest, WhatOthersWroteCounts) {
  NodeObjects objects(*ledger_);
  report_to(objects, {came("a", "1")});
  append_ok(NodeObjectCreated{.actor = "import", .uid = "", .file = "f"}, "b");  // an import knows no uid
  append_ok(NodeObjectDeleted{.actor = "import", .uid = "1", .file = "f"}, "a");
  report_to(objects, {came("b", "2"), went("a", "1")});
  EXPECT_THAT(story(), ElementsAre("+a/1", "+b/", "-a/1"));
  EXPECT_EQ(objects.existing()->size(), 1u);
  report_to(objects, {went("b", "2")});
  EXPECT_THAT(story(), ElementsAre("+a/1", "+b/", "-a/1", "-b/2"));
}

TEST_F(NodeObjectsTest, ANewObjectOfANameSaysThatTheOldOneWent) {
  registers("a", "f1");
  report({came("a", "1")});
  report({came("a", "2")}, true);
  EXPECT_THAT(story(), ElementsAre("+a/1", "-a/1", "+a/2"));
  EXPECT_TRUE(ledger_->find("a").is_bound()) << "its machine has come back";
  report({went("a", "1")}, true);  // too late: it is another object's name
  EXPECT_TRUE(ledger_->find("a").is_bound());
  EXPECT_THAT(story(), ElementsAre("+a/1", "-a/1", "+a/2"));
}

TEST_F(NodeObjectsTest, ReleasesABoundNameInTheSameBatch) {
  registers("a", "f1");
  report({came("a", "1"), came("b", "2")});
  const NodeObjects::Outcome outcome = report({went("a", "1"), went("b", "2")}, true);
  EXPECT_EQ(outcome.released, 1u) << "b was never bound";
  EXPECT_THAT(story(), ElementsAre("+a/1", "+b/2", "-a/1", "released a", "-b/2"));
  EXPECT_FALSE(ledger_->find("a").is_bound());
  const std::vector<Record> all = records();
  const auto released = std::find_if(all.begin(), all.end(),
                                     [](const Record& record) { return as<BindingReleased>(record) != nullptr; });
  EXPECT_EQ(as<BindingReleased>(*released)->by, "node_deleted");
  EXPECT_EQ(as<BindingReleased>(*released)->fingerprint.text, "f1");
  EXPECT_EQ(released->time, std::prev(released)->time);
}

TEST_F(NodeObjectsTest, ANameThatIsGoneAndBackInOneReportIsNotReleased) {
  registers("a", "f1");
  report({came("a", "1")});
  report({went("a", "1"), came("a", "2")}, true);
  EXPECT_TRUE(ledger_->find("a").is_bound());
  // But one that came and went is.
  report({went("a", "2"), came("a", "3"), went("a", "3")}, true);
  EXPECT_FALSE(ledger_->find("a").is_bound());
}

TEST_F(NodeObjectsTest, AFailureIsSaidAndTheRestComesLater) {
  NodeObjects objects(*ledger_);
  report_to(objects, {came("a", "1")});
  disk_.fs->fail(test::WritePoint::wal_sync, test::Face::torn);
  EXPECT_FALSE(objects.record({"tester", false, {came("b", "2")}, "", ""}));
  ledger_.reset();  // a server that cannot record stops; the next one recovers
  open();
  NodeObjects again(*ledger_);
  report_to(again, {came("a", "1"), came("b", "2")});
  const std::vector<std::string> told = story();
  EXPECT_EQ(std::count(told.begin(), told.end(), "+b/2"), 1);
}

// Whatever is reported in whatever order, with restarts in between: no uid appears or goes twice, and what exists
// is what the records say.
RC_GTEST_FIXTURE_PROP(NodeObjectsTest, NothingTwice, ()) {
  const int rounds = *rc::gen::inRange(1, 8);
  for (int round = 0; round < rounds; ++round) {
    std::vector<NodeObjects::Change> changes;
    const int count = *rc::gen::inRange(0, 12);
    for (int i = 0; i < count; ++i) {
      const std::string name(1, static_cast<char>('a' + *rc::gen::inRange(0, 3)));
      changes.push_back({name, name + std::to_string(*rc::gen::inRange(0, 4)), *rc::gen::arbitrary<bool>(), ""});
    }
    report(changes, *rc::gen::arbitrary<bool>());
  }
  std::map<std::string, std::string> live;
  std::set<std::string> seen;
  for (const std::string& line : story()) {
    if (line.starts_with("released")) continue;
    const std::string node = line.substr(1, 1), uid = line.substr(3);
    RC_ASSERT(seen.insert(line).second);
    if (line[0] == '+') {
      RC_ASSERT(!live.contains(node));
      live[node] = uid;
    } else {
      RC_ASSERT(live[node] == uid);
      live.erase(node);
    }
  }
  NodeObjects objects(*ledger_);
  const auto existing = objects.existing();
  RC_ASSERT((std::map<std::string, std::string>(existing->begin(), existing->end())) == live);
}

}  // namespace
}  // namespace ledger
