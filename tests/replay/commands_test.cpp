// `ledger replay`, `export` and `verify` as people run them: the real program on a real log.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sstream>
#include <utility>

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

// Short answers, which stdio keeps until the end, and long ones: it is noticed in both, and never ends as a crash.
TEST_F(CommandsTest, WhatCouldNotBeSaidIsAFailure) {
  for (const char* command :
       {"replay --data-dir DATA --node rpi-07", "replay --data-dir DATA --node rpi-07 --format json",
        "export --data-dir DATA", "verify --data-dir DATA", "verify --data-dir DATA --format json",
        "triage --data-dir DATA --since ever", "state export --data-dir DATA", "man", "--help"}) {
    const CommandResult result = ledger(std::string(command) + " > /dev/full");
    EXPECT_EQ(result.status, 1) << command;
    EXPECT_THAT(result.output, HasSubstr("could not be written")) << command;
  }
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
  EXPECT_THAT(all.output, StartsWith("1 node refused: 1 REBUILT"));
  EXPECT_THAT(all.output, HasSubstr("ledger replay --node rpi-07"));
  const CommandResult json = ledger("triage --data-dir DATA --since 2000-01-01T00:00:00Z --format json");
  EXPECT_THAT(json.output, HasSubstr(R"("counts":{"REBUILT":1})"));
  EXPECT_THAT(json.output, HasSubstr(R"("node":"rpi-07")"));
  // The history ended long ago.
  EXPECT_THAT(ledger("triage --data-dir DATA").output, StartsWith("nothing is refused"));
  EXPECT_EQ(ledger("triage --data-dir DATA --since yesterday").status, 2);
  EXPECT_EQ(ledger("triage --data-dir /nonexistent").status, 1);
}

TEST_F(CommandsTest, TriageComparesWithAnUpstream) {
  const CommandResult none = ledger("triage --data-dir DATA --since ever --disagreements");
  EXPECT_EQ(none.status, 0);
  EXPECT_THAT(none.output, StartsWith("no request was decided by an upstream"));
  EXPECT_THAT(ledger("triage --data-dir DATA --since ever --disagreements --format json").output,
              HasSubstr(R"("requests":0,"differ":0,"no_verdict":0,"not_judged":0,"entries":[],"left_out":0})"));
  EXPECT_EQ(ledger("triage --data-dir DATA --disagreements > /dev/full").status, 1);
  EXPECT_THAT(ledger("triage --help").output, HasSubstr("--disagreements"));
}

TEST_F(CommandsTest, ReplayTellsAWindowAndJudgesByEverything) {
  const CommandResult all = ledger("replay --data-dir DATA --node rpi-07 --format json");
  const CommandResult late = ledger("replay --data-dir DATA --node rpi-07 --format json --since 5");
  EXPECT_THAT(late.output, HasSubstr("\"told_from\":5"));
  EXPECT_THAT(late.output, HasSubstr("\"cause\":\"REBUILT\""));
  EXPECT_THAT(late.output, Not(HasSubstr("\"kind\":\"password_stored\"")));
  EXPECT_THAT(all.output, HasSubstr("\"kind\":\"password_stored\""));
  EXPECT_THAT(ledger("replay --data-dir DATA --node rpi-07 --since 5").output,
              HasSubstr("earlier records not told; registered then"));
  const CommandResult after = ledger("replay --data-dir DATA --node rpi-07 --format json --since 1h");
  EXPECT_THAT(after.output, HasSubstr("\"cause\":\"NONE\""));
  EXPECT_THAT(after.output, HasSubstr("was not refused since"));
  EXPECT_THAT(after.output, HasSubstr("which looks like REBUILT"));
  EXPECT_EQ(ledger("replay --data-dir DATA --node rpi-07 --until 4 --format json").output,
            ledger("replay --data-dir DATA --node rpi-07 --at 4 --format json").output);
  EXPECT_EQ(ledger("replay --data-dir DATA --node rpi-07 --at 4 --until 4").status, 2);
  EXPECT_EQ(ledger("replay --data-dir DATA --node rpi-07 --since soon").status, 2);
}

TEST_F(CommandsTest, ReplayStartsFromARecordToo) {
  const CommandResult text = ledger("replay --data-dir DATA --seq 5");
  EXPECT_EQ(text.status, 0) << text.output;
  EXPECT_THAT(text.output, StartsWith("record 5 "));
  EXPECT_THAT(text.output, HasSubstr("\nnode rpi-07 "));
  EXPECT_EQ(ledger("replay --input " + scenario_file("rebuilt-reimaged") + " --seq 5").output, text.output);
  EXPECT_EQ(ledger("replay --data-dir DATA --seq 999").status, 1);
  EXPECT_EQ(ledger("replay --data-dir DATA --seq 5 --node another").status, 1);
  EXPECT_EQ(ledger("replay --data-dir DATA --request-id ff").status, 1);
  for (const char* wrong : {"--seq 0", "--seq x", "--request-id 'a b'", "--seq 1 --request-id a", "--follow --at 3",
                            "--follow --input x", "--agent-log - --input -", "--agent-log x --seq 5", ""})
    EXPECT_EQ(ledger("replay --data-dir DATA " + std::string(wrong)).status, 2) << wrong;
}

TEST_F(CommandsTest, AnAgentsLogIsMatchedAndExplained) {
  const History history = scenario("rebuilt-reimaged", "rpi-07");
  std::string journal;
  for (const Record& record : history.records)
    if (as<PasswordRejected>(record) != nullptr)  // its clock is a minute behind
      journal += record.time.plus_seconds(-60).to_string() +
                 " rpi-07 k3s[812]: level=info msg=\"Waiting to retrieve agent configuration; server is not ready: Node "
                 "password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match\"\n";
  ASSERT_FALSE(journal.empty());
  put_file(dir_ / "agent.log", journal + "something else\n");
  const CommandResult text = ledger("replay --data-dir DATA --agent-log DATA/agent.log");
  EXPECT_EQ(text.status, 0) << text.output;
  EXPECT_THAT(text.output, StartsWith("agent log   "));
  EXPECT_THAT(text.output, HasSubstr("the agent's clock is 1m behind the ledger's"));
  EXPECT_THAT(text.output, HasSubstr("password_rejected #"));
  EXPECT_THAT(text.output, HasSubstr("   cause     REBUILT"));
  const CommandResult piped = run_command("cat " + (dir_ / "agent.log").string() + " | " + ledger::test::ledger_binary() +
                                          " replay --agent-log - --format json --input " +
                                          scenario_file("rebuilt-reimaged"));
  EXPECT_THAT(piped.output, HasSubstr("\"cause\":\"REBUILT\""));
  EXPECT_THAT(piped.output, HasSubstr("\"node_from\":\"the journal's host\""));
  put_file(dir_ / "nameless.log", "msg=x\n");
  EXPECT_THAT(ledger("replay --data-dir DATA --agent-log DATA/nameless.log").output, HasSubstr("name it with --node"));
  EXPECT_EQ(ledger("replay --data-dir DATA --agent-log DATA/none.log").status, 1);
  EXPECT_EQ(ledger("replay --data-dir DATA --agent-log DATA").status, 1);
}

// `ledger replay --follow` in a process of its own.
class Following {
 public:
  explicit Following(std::vector<std::string> arguments) {
    int out[2];
    if (::pipe(out) != 0) fatal("no pipe");
    arguments.insert(arguments.begin(), {ledger::test::ledger_binary(), "replay", "--follow"});
    std::vector<char*> argv;
    for (std::string& word : arguments) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(out[1], 1);
      ::close(out[0]);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(out[1]);
    out_ = out[0];
  }
  ~Following() { end(SIGKILL); }
  // The next line; what there is of it when nothing comes for half a minute.
  std::string line() {
    std::string line;
    for (;;) {
      pollfd ready{out_, POLLIN, 0};
      char byte = 0;
      if (::poll(&ready, 1, 30'000) != 1 || ::read(out_, &byte, 1) != 1 || byte == '\n') return line;
      line += byte;
    }
  }
  void stop_reading() { ::close(std::exchange(out_, -1)); }
  // Exit status; 0 as signal only waits.
  int end(int signal) {
    if (pid_ <= 0) return -1;
    if (signal != 0) ::kill(pid_, signal);
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    if (out_ >= 0) stop_reading();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  int out_ = -1;
};

TEST_F(CommandsTest, FollowTellsWhatComesBesideAnOwnerAndEndsWhenAsked) {
  const auto owner = EventLog::open({.dir = dir_ / "events"});
  ASSERT_TRUE(owner);
  Following all({"--data-dir", dir_.path().string(), "--since", "1", "--format", "json"});
  const std::string first = all.line();
  EXPECT_THAT(first, HasSubstr("\"node\":\"rpi-07\""));
  EXPECT_THAT(first, HasSubstr("\"cause\":\"REBUILT\""));
  Record record;
  record.seq = (*owner)->head() + 1;
  record.time = Time::now();
  record.node = "web-9";
  record.event = RequestRejected{.status = 400, .reason = "node_password_missing"};
  ASSERT_TRUE((*owner)->append(std::vector<Record>{record}, {}));
  const std::string second = all.line();
  EXPECT_THAT(second, HasSubstr("\"node\":\"web-9\""));
  EXPECT_THAT(second, HasSubstr("\"cause\":\"CREDFILE\""));
  EXPECT_EQ(all.end(SIGINT), 0);
  Following term({"--data-dir", dir_.path().string(), "--since", "1", "--format", "json"});
  EXPECT_THAT(term.line(), HasSubstr("rpi-07"));
  EXPECT_EQ(term.end(SIGTERM), 0);
}

TEST_F(CommandsTest, FollowEndsWhenNobodyReads) {
  Following one({"--data-dir", dir_.path().string(), "--node", "rpi-07", "--since", "1"});
  EXPECT_THAT(one.line(), StartsWith("node rpi-07 "));
  one.stop_reading();
  EXPECT_EQ(one.end(0), 0) << "although it has nothing to say";
  EXPECT_EQ(ledger("replay --follow --data-dir DATA/nowhere").status, 1);
  EXPECT_EQ(ledger("replay --follow --data-dir DATA --since soon").status, 2);
  EXPECT_EQ(ledger("replay --follow --data-dir DATA --since 1 > /dev/full").status, 1);
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

// ---- an export that goes on ------------------------------------------------------------------------------

TEST_F(CommandsTest, ACursorPutsEveryRecordIntoTheFileOnce) {
  const std::string command = "export --data-dir DATA --cursor DATA/c --output DATA/out.jsonl";
  const auto whole = ledger("export --data-dir DATA");
  ASSERT_EQ(whole.status, 0) << whole.output;
  ASSERT_EQ(ledger(command + " --to 3").status, 0);
  const std::string half = file_bytes(dir_ / "out.jsonl");
  // What an export that was killed had begun is behind the place that the cursor knows.
  put_file(dir_ / "out.jsonl", half + R"({"seq":4,"kind":"half a rec)");
  ASSERT_EQ(ledger(command).status, 0);
  const std::string complete = file_bytes(dir_ / "out.jsonl");
  ASSERT_EQ(ledger(command).status, 0);
  EXPECT_EQ(file_bytes(dir_ / "out.jsonl"), complete) << "nothing new, nothing written";
  EXPECT_EQ(complete, file_bytes(dir_ / "out.jsonl"));
  EXPECT_THAT(whole.output, HasSubstr(complete));
  EXPECT_THAT(complete, StartsWith(half));
  EXPECT_GT(complete.size(), half.size());

  put_file(dir_ / "out.jsonl", half.substr(1));
  const CommandResult shorter = ledger(command);
  EXPECT_EQ(shorter.status, 1);
  EXPECT_THAT(shorter.output, HasSubstr("shorter"));
  const CommandResult other = ledger(command + " --format csv");
  EXPECT_EQ(other.status, 1);
  EXPECT_THAT(other.output, HasSubstr("of an export as jsonl"));
  put_file(dir_ / "c", R"({"log":"another","format":"jsonl","seq":1,"bytes":0})");
  EXPECT_THAT(ledger(command).output, HasSubstr("of another log"));
  put_file(dir_ / "c", "{}");
  EXPECT_THAT(ledger(command).output, HasSubstr("is no cursor"));
}

TEST_F(CommandsTest, CsvGoesOnWithoutASecondHeader) {
  const std::string command = "export --data-dir DATA --format csv --cursor DATA/c --output DATA/out.csv";
  ASSERT_EQ(ledger(command + " --to 3").status, 0);
  ASSERT_EQ(ledger(command).status, 0);
  const std::string csv = file_bytes(dir_ / "out.csv");
  EXPECT_THAT(csv, StartsWith("seq,"));
  EXPECT_EQ(csv.find("seq,", 1), std::string::npos);
}

TEST_F(CommandsTest, OfTheNodesWithACause) {
  const CommandResult rebuilt = ledger("export --data-dir DATA --cause REBUILT");
  EXPECT_EQ(rebuilt.status, 0);
  EXPECT_THAT(rebuilt.output, HasSubstr("rpi-07"));
  const CommandResult none = ledger("export --data-dir DATA --cause CLOCK");
  EXPECT_EQ(none.status, 1);
  EXPECT_THAT(none.output, HasSubstr("no node's explanation is CLOCK"));
}

}  // namespace
}  // namespace ledger::replay
