// `ledger diff` and `ledger whatif` as people run them: the real program on a real log, a file and a pipe.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/replay/replay_support.h"
#include "tests/replay/ruled_history.h"
#include "tests/support/paths.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger::replay {
namespace {

using ::ledger::test::CommandResult;
using ::ledger::test::put_file;
using ::ledger::test::run_command;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class CompareCommandsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    test::RuledLog history;
    history.ask("db-1", "aaaa", "10.0.0.1");  // 1
    history.tunnel_opened("db-1", "s1");      // 2
    history.wait(3600);
    history.ask("db-1", "bbbb", "10.0.0.1");  // 3
    history.wait(3600);
    history.ask("web-1", "cccc", "10.0.0.2");  // 4
    const auto log = EventLog::open({.dir = dir_ / "events"});
    ASSERT_TRUE(log) << log.error().message;
    NodeTable table;
    std::vector<EventLog::NodeEntry> nodes;
    for (const Record& record : history.records)
      if (const NodeState* state = table.apply(record)) nodes.emplace_back(record.node, *state);
    ASSERT_TRUE((*log)->append(history.records, nodes));
    put_file(file(), test::lines_of(history.records));
  }
  std::string file() const { return (dir_ / "log.jsonl").string(); }
  // `ledger <arguments>`, DATA and FILE standing for the data directory and its export.
  CommandResult ledger(std::string arguments) const {
    for (const auto& [name, path] : {std::pair{"DATA", dir_.path().string()}, std::pair{"FILE", file()}})
      for (std::size_t at; (at = arguments.find(name)) != std::string::npos;) arguments.replace(at, 4, path);
    return run_command(ledger::test::ledger_binary() + " " + arguments);
  }

  ledger::test::TempDir dir_;
};

TEST_F(CompareCommandsTest, DiffGivesOneAnswerFromLogFileAndPipe) {
  const CommandResult of_log = ledger("diff --from 2 --data-dir DATA --format json");
  EXPECT_EQ(of_log.status, 0) << of_log.output;
  EXPECT_THAT(of_log.output, HasSubstr("\"node\":\"db-1\",\"net\":[\"refused\"]"));
  EXPECT_EQ(ledger("diff --from 2 --input FILE --format json").output, of_log.output);
  EXPECT_EQ(ledger("export --data-dir DATA | " + ledger::test::ledger_binary() +
                   " diff --from 2 --file - --format json").output,
            of_log.output);
  const CommandResult text = ledger("diff --from 2 --to 3 --data-dir DATA");
  EXPECT_THAT(text.output, StartsWith("after record 2 "));
  EXPECT_THAT(text.output, HasSubstr("node db-1   refused"));
  EXPECT_THAT(text.output, Not(HasSubstr("web-1")));
}

TEST_F(CompareCommandsTest, DiffOfAMomentThatIsNone) {
  const CommandResult wrong = ledger("diff --from yesterday --data-dir DATA");
  EXPECT_EQ(wrong.status, 2);
  EXPECT_THAT(wrong.output, HasSubstr("--from: 'yesterday' is no record number"));
  EXPECT_EQ(ledger("diff --data-dir DATA").status, 2) << "--from is required";
  EXPECT_EQ(ledger("diff --from 4 --to 1 --data-dir DATA").status, 1);
  EXPECT_THAT(ledger("diff --from 1h --data-dir DATA").output, HasSubstr("no node changed"));
}

TEST_F(CompareCommandsTest, WhatIfGivesOneAnswerFromLogFileAndPipe) {
  const CommandResult of_log = ledger("whatif --accept-same-address --data-dir DATA --format json");
  EXPECT_EQ(of_log.status, 0) << of_log.output;
  EXPECT_THAT(of_log.output, HasSubstr("\"takeovers\":1"));
  EXPECT_EQ(ledger("whatif --accept-same-address --input FILE --format json").output, of_log.output);
  EXPECT_EQ(ledger("export --data-dir DATA | " + ledger::test::ledger_binary() +
                   " whatif --accept-same-address --input - --format json").output,
            of_log.output);
  const CommandResult text = ledger("whatif --accept-same-address --data-dir DATA --node DB-1");
  EXPECT_THAT(text.output, StartsWith("Under --accept-same-address 1 of 1 refusal would have been admissions for db-1"));
  EXPECT_THAT(text.output, HasSubstr("TAKEOVER"));
}

TEST_F(CompareCommandsTest, WhatIfNeedsARuleAndSpans) {
  const CommandResult none = ledger("whatif --data-dir DATA");
  EXPECT_EQ(none.status, 2);
  EXPECT_THAT(none.output, HasSubstr("name the rule to judge"));
  const CommandResult wrong = ledger("whatif --token-grace 1w --data-dir DATA");
  EXPECT_EQ(wrong.status, 2);
  EXPECT_THAT(wrong.output, HasSubstr("--token-grace: '1w' is no span"));
  EXPECT_EQ(ledger("whatif --token-grace 1h --since 4 --until 2 --data-dir DATA").status, 1);
}

}  // namespace
}  // namespace ledger::replay
