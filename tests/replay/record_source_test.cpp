#include "replay/record_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <sstream>

#include "tests/replay/replay_support.h"
#include "tests/replay/ruled_history.h"
#include "tests/support/generators.h"

namespace ledger::replay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<Seq> walked(RecordSource& source, Seq after = 0, Seq until = UINT64_MAX) {
  std::vector<Seq> seqs;
  const auto read = source.each(after, until, [&](const Record& record) { seqs.push_back(record.seq); });
  if (!read) fatal(read.error().message);
  return seqs;
}

const std::string kThree =
    R"({"seq":1,"kind":"tunnel_opened","node":"x","time":"2024-01-01T00:00:01Z"})"
    "\n"
    R"({"seq":2,"kind":"tunnel_opened","node":"y","time":"2024-01-01T00:00:02Z"})"
    "\n"
    R"({"seq":4,"kind":"server_stopped","time":"2024-01-01T00:00:04Z"})"
    "\n";

TEST(RecordSource, WalksAFileAsOftenAsAsked) {
  std::istringstream lines(kThree);
  RecordSource source(lines);
  EXPECT_THAT(walked(source), ElementsAre(1, 2, 4));
  EXPECT_THAT(walked(source, 1, 3), ElementsAre(2));
  EXPECT_THAT(walked(source), ElementsAre(1, 2, 4));
}

TEST(RecordSource, FindsWhereCutsEnd) {
  std::istringstream lines(kThree);
  RecordSource source(lines);
  const std::vector<Cut> cuts = {Cut{}, Cut{.seq = 3, .time = {}}, Cut{.seq = 0, .time = {}},
                                 Cut{.seq = {}, .time = *Time::parse("2024-01-01T00:00:01Z")}};
  const auto moments = source.find(cuts);
  ASSERT_TRUE(moments);
  EXPECT_EQ((*moments)[0].seq, 4u);
  EXPECT_EQ((*moments)[1].seq, 2u);
  EXPECT_EQ((*moments)[2].seq, 0u);
  EXPECT_EQ((*moments)[3].seq, 1u);
}

TEST(RecordSource, RecordsOutOfOrderAreRefusedWithTheLine) {
  std::istringstream lines(R"({"seq":5,"kind":"server_stopped"})"
                           "\n\n"
                           R"({"seq":3,"kind":"server_stopped"})");
  RecordSource source(lines);
  const auto read = source.each(0, UINT64_MAX, [](const Record&) {});
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Errc::invalid);
  EXPECT_THAT(read.error().message, HasSubstr("line 3: record 3 stands after record 5"));
}

TEST(RecordSource, ARecordGivenTwiceIsVisitedOnceAndTwoOfOneNumberAreRefused) {
  const std::string one = R"({"seq":5,"kind":"server_stopped"})";
  std::istringstream twice(one + "\n" + one + "\n");
  RecordSource source(twice);
  EXPECT_THAT(walked(source), ElementsAre(5));
  std::istringstream other(one + "\n" + R"({"seq":5,"kind":"server_started"})");
  RecordSource contradiction(other);
  EXPECT_FALSE(contradiction.each(0, UINT64_MAX, [](const Record&) {}));
}

TEST(RecordSource, CountsWhatCannotBeReadOnce) {
  std::istringstream lines("nonsense\n" + kThree + "{}\n");
  RecordSource source(lines);
  walked(source), walked(source);
  EXPECT_EQ(source.unreadable(), 2u);
  ASSERT_TRUE(source.first_unreadable());
  EXPECT_EQ(source.first_unreadable()->line, 1u);
}

RC_GTEST_PROP(RecordSourceProperty, RecordsOfNodesAreThoseOfTheWholeWalk, ()) {
  const std::vector<Record> records = *test::ruled_history();
  RC_PRE(!records.empty());
  test::MemoryLog log;
  log.append(records);
  const std::set<std::string> nodes = {"x", "z"};
  const Seq until = *rc::gen::inRange<Seq>(0, records.size() + 1);
  std::multiset<Seq> expected;
  for (const Record& record : records)
    if (record.seq <= until && (nodes.contains(record.node) || is_server_wide(record.kind()))) expected.insert(record.seq);
  const auto of = [&](RecordSource& source) {
    std::multiset<Seq> seqs;
    const auto read = source.each_of(nodes, until, [&](const Record& record) { seqs.insert(record.seq); });
    RC_ASSERT(read.has_value());
    return seqs;
  };
  RecordSource from_log(log.log());
  RC_ASSERT(of(from_log) == expected);
  std::istringstream lines(test::lines_of(records));
  RecordSource from_lines(lines);
  RC_ASSERT(of(from_lines) == expected);
}

}  // namespace
}  // namespace ledger::replay
