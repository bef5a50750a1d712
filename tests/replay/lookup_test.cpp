// From a reply's headers to the records of its request.
#include "replay/lookup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Record record_of(Seq seq, Event event, std::string node, std::string source, std::string request) {
  Record record;
  record.seq = seq;
  record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(seq));
  record.event = std::move(event);
  record.node = std::move(node);
  record.source = std::move(source);
  record.request_id = std::move(request);
  return record;
}

std::vector<Record> some_records() {
  return {record_of(1, PasswordStored{{"a41c"}}, "web-1", "10.0.0.5:1", "aa"),
          record_of(2, TokenAccepted{}, "web-2", "10.0.0.5:2", "bb"),
          record_of(3, PasswordRejected{.fingerprint = {"77e0"}, .bound = {"a41c"}, .status = 403}, "web-2",
                    "10.0.0.5:2", "bb"),
          record_of(4, TokenRejected{.status = 401, .reason = "wrong_secret", .token = {}}, "", "10.0.0.5:3", "cc"),
          record_of(5, ServerStopped{"done"}, "", "", "")};
}

// The same questions to a log and to its lines.
class Lookups : public testing::TestWithParam<bool> {
 protected:
  Lookups() { log_.append(some_records()); }
  Result<LookedUp> ask(const Lookup& asked) {
    if (GetParam()) return look_up(log_.log(), asked);
    std::istringstream lines(test::lines_of(some_records()));
    return look_up(lines, asked);
  }
  static std::vector<Seq> seqs(const LookedUp& found) {
    std::vector<Seq> out;
    for (const Record& record : found.records) out.push_back(record.seq);
    return out;
  }
  test::MemoryLog log_;
};

TEST_P(Lookups, ASeqOrAnIdLeadsToAllRecordsOfItsRequest) {
  for (const Lookup& asked : {Lookup{.seq = 3, .request_id = {}}, Lookup{.seq = 2, .request_id = {}},
                              Lookup{.seq = {}, .request_id = "bb"}}) {
    const Result<LookedUp> found = ask(asked);
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_THAT(seqs(*found), ElementsAre(2, 3));
    EXPECT_THAT(found->nodes, ElementsAre("web-2"));
    EXPECT_TRUE(found->named);
  }
}

TEST_P(Lookups, WhereNoNodeIsNamedTheAddressNamesSome) {
  const Result<LookedUp> found = ask({.seq = 4, .request_id = {}});
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->named);
  EXPECT_THAT(found->nodes, ElementsAre("web-2", "web-1")) << "the latest first";
  EXPECT_THAT(to_text(*found), HasSubstr("no node is named; from the same address came: web-2 web-1"));
  const Result<LookedUp> server = ask({.seq = 5, .request_id = {}});
  ASSERT_TRUE(server);
  EXPECT_TRUE(server->nodes.empty());
  EXPECT_THAT(to_text(*server), HasSubstr("none came from the same address"));
}

TEST_P(Lookups, WhatIsNotThereIsSaidWithWhatToDo) {
  const Result<LookedUp> seq = ask({.seq = 99, .request_id = {}});
  ASSERT_FALSE(seq);
  EXPECT_EQ(seq.error().code, Errc::not_found);
  const Result<LookedUp> id = ask({.seq = {}, .request_id = "dd"});
  ASSERT_FALSE(id);
  EXPECT_EQ(id.error().code, Errc::not_found);
  EXPECT_THAT(id.error().message, HasSubstr("--seq"));
}
INSTANTIATE_TEST_SUITE_P(LogAndLines, Lookups, testing::Bool());

TEST(LookedUp, SurvivesTheWayOverTheNetwork) {
  test::MemoryLog log;
  log.append(some_records());
  const Result<LookedUp> found = look_up(log.log(), {.seq = 3, .request_id = {}});
  ASSERT_TRUE(found);
  const Result<LookedUp> again = looked_up_from_json(boost::json::serialize(to_json(*found)));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(to_json(*again), to_json(*found));
  for (const char* bad : {"", "[]", "{}", R"({"records":[],"nodes":[]})", R"({"records":[1],"nodes":[]})"})
    EXPECT_FALSE(looked_up_from_json(bad)) << bad;
}

}  // namespace
}  // namespace ledger::replay
