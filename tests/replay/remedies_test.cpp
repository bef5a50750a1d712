#include "replay/remedies.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <cstdio>

#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

// What a real shell makes of the word.
std::string echoed(const std::string& word) {
  const std::string command = "printf %s " + word;
  std::FILE* pipe = popen(command.c_str(), "r");
  std::string out;
  std::array<char, 4096> bytes{};
  for (std::size_t n = 0; (n = std::fread(bytes.data(), 1, bytes.size(), pipe)) > 0;) out.append(bytes.data(), n);
  EXPECT_EQ(pclose(pipe), 0) << command;
  return out;
}

TEST(ShellWord, PlainWordsStayPlain) {
  EXPECT_EQ(shell_word("web-1.example"), "web-1.example");
  EXPECT_EQ(shell_word("a41c09d2"), "a41c09d2");
}

TEST(ShellWord, StandsForTheTextAndNothingElse) {
  for (const std::string text : {"", "a b", "$(reboot)", "`id`", "it's", "'; rm -rf /; '", "\"x\" && y", "*",
                                 "~root", "#x", "a\\b", "!!", "%s%n"})
    EXPECT_EQ(echoed(shell_word(text)), text);
  EXPECT_EQ(echoed(shell_word("-n")), "-n");
  EXPECT_EQ(shell_word("a\nreboot\x1b[2J"), "'a?reboot?[2J'");
}

RC_GTEST_PROP(ShellWordProperty, IsOneWord, ()) {
  const auto text = printable(*rc::gen::arbitrary<std::string>(), 500);
  RC_PRE(text.find('\0') == std::string::npos);
  const std::string word = shell_word(text);
  // Outside of single quotes there is nothing but plain letters and escaped quotes.
  bool quoted = false;
  for (std::size_t i = 0; i < word.size(); ++i) {
    if (word[i] == '\'') {
      quoted = !quoted;
    } else if (!quoted && word[i] == '\\') {
      RC_ASSERT(word[++i] == '\'');
    } else if (!quoted) {
      RC_ASSERT(std::isalnum(static_cast<unsigned char>(word[i])) ||
                std::string_view("._-:/").find(word[i]) != std::string_view::npos);
    }
  }
  RC_ASSERT(!quoted);
}

Explanation explain_lines(const std::string& lines, const std::string& node, History& history) {
  history = test::history_of(lines, node);
  return explain(history);
}

std::string record(int seq, const std::string& time, const std::string& kind, const std::string& node,
                   const std::string& fingerprint) {
  boost::json::object object = {{"seq", seq},   {"time", time},         {"kind", kind},
                                {"node", node}, {"source", "10.0.0.1"}, {"fingerprint", fingerprint}};
  return boost::json::serialize(object) + "\n";
}

// The attacker names the node and makes up the "fingerprint" of a hand-written history.
TEST(Remedies, HostileValuesStayArguments) {
  const std::string node = "x';touch /tmp/pwned;'$(id)", fingerprint = "f`id`\"; reboot #";
  History history;
  const Explanation explanation =
      explain_lines(record(1, "2024-01-01T00:00:00Z", "password_stored", node, "aaaa") +
                        record(2, "2024-02-01T00:00:00Z", "password_rejected", node, fingerprint) +
                        record(3, "2024-02-01T00:00:05Z", "password_rejected", node, fingerprint),
                    node, history);
  ASSERT_EQ(explanation.cause, Cause::kRebuilt);
  bool seen = false;
  for (const Remedy& remedy : explanation.remedies) {
    if (remedy.command.find("ledger node accept") != 0) continue;
    seen = true;
    EXPECT_EQ(remedy.command, "ledger node accept " + shell_word(node) + " --fingerprint " +
                                  shell_word(fingerprint) + " --reason \"machine rebuilt\"");
    EXPECT_EQ(echoed(shell_word(node)), node);
    EXPECT_EQ(echoed(shell_word(fingerprint)), fingerprint);
  }
  EXPECT_TRUE(seen);
}

TEST(Remedies, ANameThatLooksLikeAnOptionGetsNoCommand) {
  History history;
  const Explanation explanation =
      explain_lines(record(1, "2024-01-01T00:00:00Z", "password_stored", "--force", "aaaa") +
                        record(2, "2024-02-01T00:00:00Z", "password_rejected", "--force", "-bbbb"),
                    "--force", history);
  for (const Remedy& remedy : explanation.remedies)
    EXPECT_EQ(remedy.command.find("ledger node"), std::string::npos) << remedy.command;
}

}  // namespace
}  // namespace ledger::replay
