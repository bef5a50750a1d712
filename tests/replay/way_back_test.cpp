// What k3s has to be told: every way in which its memory and ours can differ, and those in which they cannot.
#include "replay/way_back.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "replay/state_export.h"
#include "tests/replay/replay_support.h"
#include "tests/support/temp_dir.h"

namespace ledger::replay {
namespace {

using ledger::test::TempDir;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

Fingerprint password(char digit) { return {std::string(32, digit)}; }

// A log that is written as it happens.
class Story {
 public:
  Story() { std::filesystem::create_directories(dir_ / "cred"); }

  Seq mode(const std::string& mode) {
    return add(ModeChanged{.mode = mode, .from = {}, .upstreams = {}, .actor = "op"}, "");
  }
  Seq ours(Event event, const std::string& node) { return add(std::move(event), node); }
  Seq k3s(Event event, const std::string& node, std::int64_t answered = 200) {
    return add(std::move(event), node, [&](Record& record) {
      record.authority = kUpstreamAuthority;
      record.upstream = "10.0.0.1:6443";
      record.answered = answered;
    });
  }
  const EventLog& log() const { return log_.log(); }

  WayBack way() const {
    const Result<HashStore> hashes = HashStore::open(dir_.path());
    EXPECT_TRUE(hashes);
    const Result<WayBack> way = find_way_back(log(), *hashes);
    EXPECT_TRUE(way) << way.error().message;
    return way ? *way : WayBack();
  }
  BackVerdict verdict(const std::string& name) const {
    const WayBack way = this->way();
    for (const BackNode& node : way.nodes)
      if (node.node == name) return node.verdict;
    return BackVerdict::known;
  }
  void keep_hash(const std::string& node, const Fingerprint& binding) const {
    Result<HashStore> hashes = HashStore::open(dir_.path());
    ASSERT_TRUE(hashes);
    const HashStore::Entry entry{node, binding, Secret("$1:00:15:8:1:" + std::string(86, 'A'))};
    ASSERT_TRUE(hashes->put({&entry, 1}));
  }
  std::string secrets_of(const std::function<bool(std::string_view)>& wanted) const {
    const Result<HashStore> hashes = HashStore::open(dir_.path());
    std::string text;
    const auto report = export_state(
        log(), *hashes, StateFormat::secrets, "k3s",
        [&text](std::string_view piece) {
          text += piece;
          return true;
        },
        wanted);
    EXPECT_TRUE(report);
    return text;
  }

 private:
  Seq add(Event event, const std::string& node, const std::function<void(Record&)>& more = {}) {
    Record record;
    record.seq = ++seq_;
    record.time = Time{1'800'000'000'000'000 + static_cast<std::int64_t>(seq_) * 1'000'000};
    record.server = "test";
    record.node = node;
    record.event = std::move(event);
    if (more) more(record);
    log_.append({record});
    return seq_;
  }

  TempDir dir_;
  test::MemoryLog log_;
  Seq seq_ = 0;
};

TEST(WayBack, WhatK3sDecidedNeedsNothing) {
  Story story;
  story.mode("observe");
  story.k3s(PasswordStored{.fingerprint = password('a')}, "web-1");
  story.k3s(PasswordVerified{.fingerprint = password('b')}, "web-2");
  const WayBack way = story.way();
  EXPECT_EQ(way.known, 2U);
  EXPECT_THAT(way.nodes, IsEmpty());
  EXPECT_THAT(render_text(way, "k3s"), HasSubstr("nothing has to be done"));
  EXPECT_THAT(render_text(way, "k3s"), HasSubstr("It never decided"));
}

TEST(WayBack, WhatWeVerifiedMeanwhileIsStillK3sOwn) {
  Story story;
  story.mode("observe");
  story.k3s(PasswordStored{.fingerprint = password('a')}, "web-1");
  story.mode("enforce");
  story.ours(PasswordVerified{.fingerprint = password('a')}, "web-1");
  EXPECT_EQ(story.verdict("web-1"), BackVerdict::known);
}

TEST(WayBack, ANameThatIsNewHereIsBoundAtFirstUse) {
  Story story;
  story.mode("enforce");
  story.ours(PasswordStored{.fingerprint = password('a')}, "web-1");
  EXPECT_EQ(story.verdict("web-1"), BackVerdict::first_use);
  EXPECT_THAT(render_text(story.way(), "k3s"), Not(HasSubstr("kubectl -n kube-system delete")));
}

TEST(WayBack, AnAcceptedPasswordIsNotWhatK3sHas) {
  Story story;
  story.mode("observe");
  story.k3s(PasswordStored{.fingerprint = password('a')}, "web-1");
  story.k3s(PasswordStored{.fingerprint = password('d')}, "web-2");
  story.mode("enforce");
  story.ours(BindingChanged{.actor = "op", .by = "operator_accept", .from = password('a'), .to = password('b')},
             "web-1");
  const WayBack way = story.way();
  ASSERT_EQ(way.nodes.size(), 1U);
  EXPECT_EQ(way.nodes[0].verdict, BackVerdict::conflict);
  EXPECT_EQ(way.nodes[0].k3s_bound, password('a'));
  EXPECT_EQ(way.nodes[0].bound, password('b'));
  const std::string text = render_text(way, "rke2");
  EXPECT_THAT(text, HasSubstr("kubectl -n kube-system delete secret web-1.node-password.rke2\n"));
  EXPECT_THAT(text, Not(HasSubstr("web-2")));
}

TEST(WayBack, AReleaseHereIsNoneThere) {
  Story story;
  story.mode("observe");
  story.k3s(PasswordStored{.fingerprint = password('a')}, "web-1");
  story.k3s(PasswordStored{.fingerprint = password('b')}, "web-2");
  story.mode("enforce");
  story.ours(BindingReleased{.actor = "op", .by = "operator", .fingerprint = password('a')}, "web-1");
  story.ours(BindingReleased{.actor = "op", .by = "operator", .fingerprint = password('b')}, "web-2");
  story.ours(PasswordStored{.fingerprint = password('c')}, "web-2");
  EXPECT_EQ(story.verdict("web-1"), BackVerdict::released);
  EXPECT_EQ(story.verdict("web-2"), BackVerdict::conflict);
}

TEST(WayBack, TheSamePasswordAfterAReleaseIsNoConflict) {
  Story story;
  story.k3s(PasswordStored{.fingerprint = password('a')}, "web-1");
  story.ours(BindingReleased{.actor = "op", .by = "operator", .fingerprint = password('a')}, "web-1");
  story.ours(PasswordStored{.fingerprint = password('a')}, "web-1");
  EXPECT_EQ(story.verdict("web-1"), BackVerdict::known);
}

TEST(WayBack, K3sForgetsWithTheNode) {
  Story story;
  story.k3s(PasswordStored{.fingerprint = password('a')}, "web-1");
  story.ours(NodeObjectDeleted{.actor = "kubectl"}, "web-1");
  story.ours(BindingReleased{.actor = "op", .by = "operator", .fingerprint = password('a')}, "web-1");
  story.ours(PasswordStored{.fingerprint = password('b')}, "web-1");
  EXPECT_EQ(story.verdict("web-1"), BackVerdict::first_use);
}

TEST(WayBack, ImportedBindingsAreK3sOwn) {
  Story story;
  story.ours(BindingImported{.fingerprint = password('a'), .origin = "node-passwd"}, "web-1");
  story.ours(BindingImported{.fingerprint = {}, .origin = "secret"}, "web-2");  // a hash, never verified
  story.ours(BindingImported{.fingerprint = {}, .origin = "secret"}, "web-3");
  story.ours(PasswordVerified{.fingerprint = password('c')}, "web-3");
  story.ours(BindingImported{.fingerprint = {}, .origin = "secret"}, "web-4");
  story.ours(BindingChanged{.actor = "op", .by = "operator_accept", .from = {}, .to = password('d')}, "web-4");
  EXPECT_EQ(story.verdict("web-1"), BackVerdict::known);
  EXPECT_EQ(story.verdict("web-2"), BackVerdict::known);
  EXPECT_EQ(story.verdict("web-3"), BackVerdict::known);
  EXPECT_EQ(story.verdict("web-4"), BackVerdict::conflict);
}

TEST(WayBack, ARefusalByK3sOfWhatIsBoundHereShowsThatItHasAnother) {
  Story story;
  story.mode("observe");
  story.k3s(PasswordStored{.fingerprint = password('a')}, "web-1");
  story.k3s(PasswordRejected{.fingerprint = password('a'), .bound = password('a'), .status = 403}, "web-1", 403);
  EXPECT_EQ(story.verdict("web-1"), BackVerdict::conflict);
  story.k3s(BindingChanged{.actor = {}, .by = "outside", .from = password('a'), .to = password('b')}, "web-1");
  EXPECT_EQ(story.verdict("web-1"), BackVerdict::known);
}

TEST(WayBack, AHoldIsToldAlthoughTheBindingIsTheSame) {
  Story story;
  story.k3s(PasswordStored{.fingerprint = password('a')}, "web-1");
  story.ours(BindingHeld{.actor = "op"}, "web-1");
  const WayBack way = story.way();
  ASSERT_EQ(way.nodes.size(), 1U);
  EXPECT_EQ(way.nodes[0].verdict, BackVerdict::known);
  EXPECT_THAT(render_text(way, "k3s"), HasSubstr("k3s knows no holds"));
}

TEST(WayBack, SpansSayWhenWeDecided) {
  Story story;
  story.mode("observe");
  const Seq first = story.mode("enforce");
  const Seq back = story.mode("observe");
  const Seq again = story.mode("enforce");
  const WayBack way = story.way();
  EXPECT_EQ(way.mode, "enforce");
  ASSERT_EQ(way.spans.size(), 2U);
  EXPECT_EQ(way.spans[0].from, first);
  EXPECT_EQ(way.spans[0].to, back);
  EXPECT_EQ(way.spans[1].from, again);
  EXPECT_EQ(way.spans[1].to, 0U);
  EXPECT_THAT(render_text(way, "k3s"), HasSubstr("It still does"));
}

TEST(WayBack, AKeptHashIsOfferedAndOnlyThatOfAMissingNode) {
  Story story;
  story.k3s(PasswordStored{.fingerprint = password('a')}, "web-1");
  story.ours(PasswordStored{.fingerprint = password('b')}, "web-2");
  story.keep_hash("web-1", password('a'));
  story.keep_hash("web-2", password('b'));
  const WayBack way = story.way();
  ASSERT_EQ(way.nodes.size(), 1U);
  EXPECT_TRUE(way.nodes[0].has_hash);
  EXPECT_THAT(render_text(way, "k3s"), HasSubstr("--only-missing"));
  const std::string secrets = story.secrets_of([](std::string_view node) { return node == "web-2"; });
  EXPECT_THAT(secrets, HasSubstr("web-2.node-password.k3s"));
  EXPECT_THAT(secrets, Not(HasSubstr("web-1")));
}

TEST(WayBack, JsonHasTheCommandAndNoHash) {
  Story story;
  story.mode("observe");
  story.k3s(PasswordStored{.fingerprint = password('a')}, "web-1");
  story.mode("enforce");
  story.ours(BindingChanged{.actor = "op", .by = "operator_accept", .from = password('a'), .to = password('b')},
             "web-1");
  story.keep_hash("web-1", password('b'));
  const std::string text = render_json(story.way(), "k3s");
  const boost::json::object way = boost::json::parse(text).as_object();
  EXPECT_EQ(way.at("mode"), "enforce");
  const boost::json::object& node = way.at("nodes").at(0).as_object();
  EXPECT_EQ(node.at("verdict"), "conflict");
  EXPECT_EQ(node.at("k3s_hash"), true);
  EXPECT_EQ(node.at("command"), "kubectl -n kube-system delete secret web-1.node-password.k3s");
  EXPECT_THAT(text, Not(HasSubstr("$1:")));
}

}  // namespace
}  // namespace ledger::replay
