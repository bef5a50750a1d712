// What stands between watching and deciding.
#include "replay/readiness.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::int64_t kStart_us = 1'800'000'000'000'000, kSecond_us = 1'000'000;

class Watching {
 public:
  // An outcome that k3s decided.
  void k3s(Event event, const std::string& node, const std::string& would_have, std::int64_t answered) {
    Record record = base(std::move(event), node);
    record.authority = kUpstreamAuthority;
    record.upstream = "10.0.0.1:6443";
    record.endpoint = "serving-kubelet.crt";
    record.answered = answered;
    record.would_have = would_have;
    log_.append({std::move(record)});
  }
  void ours(Event event, const std::string& node) { log_.append({base(std::move(event), node)}); }
  Readiness readiness(Seq since = 1) const {
    const auto found = find_readiness(log_.log(), Time{kStart_us + static_cast<std::int64_t>(since) * kSecond_us});
    EXPECT_TRUE(found) << found.error().message;
    return found ? *found : Readiness();
  }
  Seq head() const { return seq_; }

 private:
  Record base(Event event, const std::string& node) {
    Record record;
    record.seq = ++seq_;
    record.time = Time{kStart_us + static_cast<std::int64_t>(seq_) * kSecond_us};
    record.node = node;
    record.event = std::move(event);
    return record;
  }
  test::MemoryLog log_;
  Seq seq_ = 0;
};

const Fingerprint kA{std::string(32, 'a')}, kB{std::string(32, 'b')};

TEST(Readiness, NodesThatBothAdmitAreNoHindrance) {
  Watching log;
  log.k3s(PasswordStored{.fingerprint = kA}, "web-1", "admit_first", 200);
  log.k3s(PasswordVerified{.fingerprint = kA}, "web-1", "admit_known", 200);
  log.ours(TunnelOpened{.session = "s1"}, "web-1");
  const Readiness found = log.readiness();
  EXPECT_EQ(found.bound, 1U);
  EXPECT_EQ(found.compared.requests, 2U);
  EXPECT_THAT(found.compared.entries, IsEmpty());
  EXPECT_THAT(found.strangers, IsEmpty());
  EXPECT_FALSE(found.would_refuse());
}

TEST(Readiness, AHeldNameThatK3sGivesAwayIsOne) {
  Watching log;
  log.ours(BindingHeld{.actor = "op"}, "web-1");
  log.k3s(PasswordStored{.fingerprint = kA}, "web-1", "refuse_held", 200);
  const Readiness found = log.readiness();
  ASSERT_EQ(found.compared.entries.size(), 1U);
  EXPECT_EQ(found.compared.entries[0].node, "web-1");
  EXPECT_THAT(found.held, ElementsAre("web-1"));
  EXPECT_TRUE(found.would_refuse());
  // A while ago: not looked at.
  EXPECT_FALSE(log.readiness(log.head() + 1).would_refuse());
}

TEST(Readiness, AReleaseBehindUsSettlesItself) {
  Watching log;
  log.k3s(PasswordStored{.fingerprint = kA}, "web-1", "admit_first", 200);
  log.k3s(BindingChanged{.actor = {}, .by = "outside", .from = kA, .to = kB}, "web-1", "refuse_mismatch", 200);
  log.k3s(PasswordVerified{.fingerprint = kB}, "web-1", "refuse_mismatch", 200);
  const Readiness found = log.readiness();
  EXPECT_THAT(found.compared.entries, IsEmpty());
  EXPECT_EQ(found.settled, 1U);
  EXPECT_FALSE(found.would_refuse());
}

TEST(Readiness, WhomK3sRefusesAndWeWouldAdmitIsToldAndStopsNothing) {
  Watching log;
  log.k3s(PasswordRejected{.fingerprint = kA, .bound = {}, .status = 403}, "web-1", "admit_first", 403);
  const Readiness found = log.readiness();
  ASSERT_EQ(found.compared.entries.size(), 1U);
  EXPECT_EQ(found.compared.entries[0].which, Disagreement::upstream_refused);
  EXPECT_FALSE(found.would_refuse());
}

TEST(Readiness, MachinesThatLiveButNeverRegisteredHere) {
  Watching log;
  log.ours(TunnelOpened{.session = "s1"}, "web-1");
  log.ours(NodeObjectCreated{.actor = "kubelet"}, "web-2");
  log.ours(NodeObjectCreated{.actor = "kubelet"}, "web-3");
  log.ours(NodeObjectDeleted{.actor = "kubectl"}, "web-3");
  EXPECT_THAT(log.readiness().strangers, ElementsAre("web-1", "web-2"));
}

}  // namespace
}  // namespace ledger::replay
