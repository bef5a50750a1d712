#include "ledger/unrecorded.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace ledger {
namespace {

const Time kStart = *Time::parse("2024-06-11T07:00:00Z");

std::vector<Record> request_of(const std::string& node, const std::string& source = "10.0.0.5:4000") {
  Record accepted;
  accepted.event = TokenAccepted{};
  accepted.node = node;
  accepted.source = source;
  accepted.auth = {.method = "basic", .principal = "node", .token = "t1", .serial = {}};
  Record verified = accepted;
  verified.event = PasswordVerified{Fingerprint{"a41c"}};
  return {accepted, verified};
}

TEST(Unrecorded, CountsByNodeAndAddress) {
  Unrecorded overloaded(429, "overloaded");
  EXPECT_TRUE(overloaded.take().empty());
  overloaded.count(request_of("web-1"), kStart);
  overloaded.count(request_of("web-1", "10.0.0.5:4001"), kStart.plus_seconds(5));  // the port is not the address
  overloaded.count(request_of("web-1", "10.0.0.6:1"), kStart.plus_seconds(6));
  overloaded.count(request_of("web-2"), kStart.plus_seconds(7));
  const std::vector<Record> records = overloaded.take();
  ASSERT_EQ(records.size(), 3u);
  const Record& first = records.front();
  EXPECT_EQ(first.node, "web-1");
  EXPECT_EQ(first.source, "10.0.0.5");
  EXPECT_EQ(first.count, 2);
  EXPECT_EQ(first.first_time, kStart);
  EXPECT_EQ(first.time, kStart.plus_seconds(5));
  ASSERT_NE(as<RequestRejected>(first), nullptr);
  EXPECT_EQ(as<RequestRejected>(first)->status, 429);
  EXPECT_EQ(as<RequestRejected>(first)->reason, "overloaded");
  EXPECT_EQ(first.auth, Auth{}) << "nobody looked at who asked";
  EXPECT_THAT(first.note, testing::HasSubstr("claimed"));
  EXPECT_FALSE(records[1].first_time) << "one stands for itself";
  EXPECT_TRUE(overloaded.take().empty()) << "each is told once";
}

TEST(Unrecorded, WhatNoAgentAskedHasNoName) {
  Unrecorded full(503, "store_unavailable");
  Record released;
  released.event = BindingReleased{.actor = "ops", .by = "operator", .fingerprint = {}};
  released.node = "web-1";
  full.count({released}, kStart);
  full.count({}, kStart);
  const std::vector<Record> records = full.take();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records.front().node, "");
  EXPECT_EQ(records.front().count, 2);
}

TEST(Unrecorded, KeepsSoManyNamesAndCountsTheRest) {
  Unrecorded overloaded(429, "overloaded");
  for (int round = 0; round < 2; ++round)
    for (int i = 0; i < 1000; ++i) overloaded.count(request_of("web-" + std::to_string(i)), kStart);
  std::int64_t named = 0, nameless = 0;
  std::set<std::string> names;
  for (const Record& record : overloaded.take()) {
    (record.node.empty() ? nameless : named) += record.count;
    names.insert(record.node);
  }
  EXPECT_EQ(names.size(), 257u);
  EXPECT_EQ(named, 512);
  EXPECT_EQ(nameless, 2000 - 512);
}

}  // namespace
}  // namespace ledger
