// `ledger replay`, `export` and `verify` as people run them: the real program on a real log.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "tests/replay/replay_support.h"
#include "tests/support/paths.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger::replay {
namespace {

using ::ledger::test::CommandResult;
using ::ledger::test::file_bytes;
using ::ledger::test::put_file;
using ::ledger::test::run_command;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class CommandsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const History history = scenario("rebuilt-reimaged", "rpi-07");
    const auto log = EventLog::open({.dir = dir_ / "events"});
    ASSERT_TRUE(log) << log.error().message;
    NodeTable table;
    std::vector<EventLog::NodeEntry> nodes;
    for (const Record& record : history.records)
      if (const NodeState* state = table.apply(record)) nodes.emplace_back(record.node, *state);
    ASSERT_TRUE((*log)->append(history.records, nodes));
  }

  static std::string scenario_file(const std::string& name) {
    return ledger::test::source_dir() + "/tests/scenarios/" + name + ".jsonl";
  }
  static History scenario(const std::string& name, const std::string& node) {
    const Result<History> history = history_from_jsonl(scenario_file(name), node);
    if (!history) fatal(history.error().message);
    return *history;
  }
  // `ledger <arguments>`, DATA standing for the data directory.
  CommandResult ledger(std::string arguments) const {
    for (std::size_t at; (at = arguments.find("DATA")) != std::string::npos;)
      arguments.replace(at, 4, dir_.path().string());
    return run_command(ledger::test::ledger_binary() + " " + arguments);
  }

  ledger::test::TempDir dir_;
};

TEST_F(CommandsTest, ReplayGivesOneAnswerFromLogFileAndPipe) {
  const CommandResult of_log = ledger("replay --data-dir DATA --node RPI-07 --format json");
  EXPECT_EQ(of_log.status, 0) << of_log.output;
  EXPECT_THAT(of_log.output, HasSubstr("\"cause\":\"REBUILT\""));
  const CommandResult of_file =
      ledger("replay --node rpi-07 --format json --input " + scenario_file("rebuilt-reimaged"));
  EXPECT_EQ(of_file.output, of_log.output);
  const CommandResult of_pipe = ledger("export --data-dir DATA --node rpi-07 | " + ledger::test::ledger_binary() +
                                       " replay --node rpi-07 --format json --input -");
  EXPECT_EQ(of_pipe.output, of_log.output);
}

TEST_F(CommandsTest, ReplayIsTextWithoutColourWhenNobodyWatches) {
  const CommandResult text = ledger("replay --data-dir DATA --node rpi-07");
  EXPECT_EQ(text.status, 0);
  EXPECT_THAT(text.output, StartsWith("node rpi-07 "));
  EXPECT_THAT(text.output, Not(HasSubstr("\x1b")));
}

TEST_F(CommandsTest, ReplayWritesAPage) {
  const CommandResult page = ledger("replay --data-dir DATA --node rpi-07 --format html");
  EXPECT_EQ(page.status, 0);
  EXPECT_THAT(page.output, StartsWith("<!DOCTYPE html>\n"));
  EXPECT_THAT(page.output, HasSubstr("REBUILT"));
  EXPECT_THAT(page.output, ::testing::EndsWith("</html>\n"));
  const CommandResult unknown = ledger("replay --data-dir DATA --node rpi-07 --format pdf");
  EXPECT_EQ(unknown.status, 2);
  EXPECT_THAT(unknown.output, HasSubstr("html"));
}

TEST_F(CommandsTest, ReplayLooksAtThePastWhenAsked) {
  for (const char* at : {"4", "2024-05-01T00:00:00Z"}) {
    const CommandResult past = ledger("replay --data-dir DATA --node rpi-07 --format json --at " + std::string(at));
    EXPECT_EQ(past.status, 0);
    EXPECT_THAT(past.output, HasSubstr("\"cause\":\"NONE\""));
    EXPECT_THAT(past.output, HasSubstr("\"as_of\":{\"seq\":4,"));
  }
}

TEST_F(CommandsTest, ANodeThatIsNotThereIsAnAnswerToo) {
  const CommandResult answer = ledger("replay --data-dir DATA --node nobody --format json");
  EXPECT_EQ(answer.status, 0);
  EXPECT_THAT(answer.output, HasSubstr("\"cause\":\"UNKNOWN\""));
}

TEST_F(CommandsTest, FailuresAreOneSentenceAndWrongUsageIsTold) {
  const CommandResult no_log = ledger("replay --data-dir DATA/nowhere --node x");
  EXPECT_EQ(no_log.status, 1);
  EXPECT_THAT(no_log.output, StartsWith("ledger: there is no log in "));
  const CommandResult no_file = ledger("replay --input DATA/nowhere --node x");
  EXPECT_EQ(no_file.status, 1);
  EXPECT_THAT(no_file.output, StartsWith("ledger: cannot read "));
  EXPECT_EQ(ledger("replay --node x --at yesterday --data-dir DATA").status, 2);
  EXPECT_EQ(ledger("replay").status, 2);
  EXPECT_EQ(ledger("replay --node x --input - --server https://a:1").status, 2);
  EXPECT_EQ(ledger("export --data-dir DATA --from never").status, 2);
  EXPECT_EQ(ledger("replay --data-dir DATA --node rpi-07 > /dev/full").status, 1);
}

TEST_F(CommandsTest, ExportGoesToAFileCompleteOrNotAtAll) {
  const std::string file = dir_ / "out.jsonl";
  const CommandResult done = ledger("export --data-dir DATA --from 2 --to 3 --output " + file);
  EXPECT_EQ(done.status, 0);
  EXPECT_THAT(done.output, HasSubstr("2 records, 2 to 3"));
  const std::string lines = file_bytes(file);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 2);
  EXPECT_EQ(ledger("export --data-dir DATA --output " + (dir_ / "no/such/dir.jsonl").string()).status, 1);
  EXPECT_EQ(ledger("export --data-dir DATA > /dev/full").status, 1);
  EXPECT_EQ(ledger("export --data-dir DATA/nowhere --output " + (dir_ / "none.jsonl").string()).status, 1);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "none.jsonl"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "none.jsonl.part"));
}

TEST_F(CommandsTest, VerifyWorksBesideAnOwner) {
  const auto owner = EventLog::open({.dir = dir_ / "events"});
  ASSERT_TRUE(owner);
  const CommandResult text = ledger("verify --data-dir DATA");
  EXPECT_EQ(text.status, 0) << text.output;
  EXPECT_THAT(text.output, HasSubstr(": 6 records, "));
  EXPECT_THAT(text.output, HasSubstr("sound\n"));
  const CommandResult json = ledger("verify --data-dir DATA --format json");
  EXPECT_THAT(json.output, HasSubstr("\"sound\":true"));
}

TEST_F(CommandsTest, TriageListsWhoIsRefusedByCause) {
  const CommandResult all = ledger("triage --data-dir DATA --since ever");
  EXPECT_EQ(all.status, 0);
  EXPECT_THAT(all.output, StartsWith("1 node to look at: 1 REBUILT"));
  EXPECT_THAT(all.output, HasSubstr("ledger replay --node rpi-07"));
  const CommandResult json = ledger("triage --data-dir DATA --since 2000-01-01T00:00:00Z --format json");
  EXPECT_THAT(json.output, HasSubstr(R"("counts":{"REBUILT":1})"));
  EXPECT_THAT(json.output, HasSubstr(R"("node":"rpi-07")"));
  // The history ended long ago.
  EXPECT_THAT(ledger("triage --data-dir DATA").output, StartsWith("nothing is refused"));
  EXPECT_EQ(ledger("triage --data-dir DATA --since yesterday").status, 2);
  EXPECT_EQ(ledger("triage --data-dir /nonexistent").status, 1);
}

// One page for the program and one for each command it lists; all of them with examples and their exit status.
TEST_F(CommandsTest, EveryCommandHasAManualPage) {
  ASSERT_EQ(ledger("man --dir DATA/man1").status, 0);
  std::istringstream help(ledger("--help").output);
  std::string line;
  int commands = 0;
  while (std::getline(help, line) && line != "Subcommands:") continue;
  while (std::getline(help, line) && line.starts_with("  ")) {
    const auto page = dir_ / "man1" / ("ledger-" + line.substr(2, line.find(' ', 2) - 2) + ".1");
    EXPECT_THAT(file_bytes(page), HasSubstr(".SH EXAMPLES\n")) << page;
    EXPECT_THAT(file_bytes(page), HasSubstr(".SH EXIT STATUS\n")) << page;
    ++commands;
  }
  EXPECT_GT(commands, 7);
  const CommandResult groff = run_command("cat " + (dir_ / "man1").string() + "/*.1 | groff -man -Tutf8 -ww -z");
  EXPECT_EQ(groff.status, 0);
  EXPECT_EQ(groff.output, "");
  EXPECT_EQ(ledger("man nonsense").status, 2);
  EXPECT_EQ(ledger("man --dir /proc/nowhere").status, 1);
}

}  // namespace
}  // namespace ledger::replay
