#include "replay/remedies.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <cstdio>

#include "ledger/program.h"
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

// Histories that together are given every remedy that names a service, a directory or a port of the machine.
std::vector<std::string> ailing_histories(const std::string& endpoint) {
  const auto line = [&](int seq, const std::string& time, const std::string& kind, boost::json::object more) {
    boost::json::object object = {{"seq", seq},      {"time", "2024-" + time + "Z"}, {"kind", kind},
                                  {"node", "web-1"}, {"source", "10.0.0.1"},         {"endpoint", endpoint}};
    for (const auto& [key, value] : more) object.insert_or_assign(key, value);
    return boost::json::serialize(object) + "\n";
  };
  const std::string stored = line(1, "01-01T00:00:00", "password_stored", {{"fingerprint", "aaaa"}});
  const auto refused = [&](int seq, const std::string& time, boost::json::object more = {}) {
    more.emplace("fingerprint", "bbbb");
    return line(seq, time, "password_rejected", std::move(more));
  };
  const auto request = [&](const char* reason) {
    return stored + line(2, "02-01T00:00:00", "request_rejected", {{"status", 401}, {"reason", reason}});
  };
  return {
      stored + refused(2, "02-01T00:00:00") + refused(3, "02-01T00:00:05"),  // rebuilt
      stored + line(2, "02-01T00:00:00", "token_rejected", {{"status", 401}, {"reason", "missing"}}),
      request("node_unknown"),           // an old certificate
      request("node_password_missing"),  // the password file
      request("node_name_mismatch"),     // the name
      stored +
          line(2, "02-01T00:00:00", "password_verified",  // copied
               {{"node", "web-2"}, {"source", "10.0.0.2"}, {"fingerprint", "aaaa"}}) +
          line(3, "02-01T00:00:01", "password_verified", {{"fingerprint", "aaaa"}}),
  };
}

TEST(Remedies, AreInTheWordsOfWhatRunsOnTheMachine) {
  for (const auto& [program, other] : {std::pair(&kK3s, &kRke2), std::pair(&kRke2, &kK3s)}) {
    std::string commands, all;
    for (const std::string& lines : ailing_histories(std::string(program->path_prefix) + "serving-kubelet.crt")) {
      const History history = test::history_of(lines, "web-1");
      const Explanation explanation = explain(history);
      for (const Remedy& remedy : explanation.remedies) {
        commands += remedy.command + "\n";
        all += remedy.action + "\n" + remedy.command + "\n";
      }
      all += explanation.agent_prints + "\n" + explanation.summary + "\n";
    }
    const auto has = [](const std::string& text, std::string_view part) { return text.find(part) != text.npos; };
    for (const std::string_view name :
         {program->agent_service, program->config_file, program->token_file, program->agent_dir})
      EXPECT_TRUE(has(commands, name)) << name << "\n" << commands;
    EXPECT_TRUE(has(commands, "https://SERVER:" + std::to_string(program->usual_port))) << commands;
    EXPECT_TRUE(has(all, std::string(program->path_prefix) + "serving-kubelet.crt: 401")) << all;
    EXPECT_TRUE(has(commands, "/etc/rancher/node/password")) << commands;
    EXPECT_FALSE(has(all, other->name)) << all;
  }
}

// An import is no request: what the machine runs is known by its own words, the last ones where it was moved.
TEST(Remedies, TheLastRequestSaysWhatTheMachineRuns) {
  const std::string histories[] = {"", "/v1-k3s/serving-kubelet.crt", "/v1-rke2/serving-kubelet.crt"};
  for (const std::string& first : histories) {
    boost::json::object stored =
        boost::json::parse(record(1, "2024-01-01T00:00:00Z", "password_stored", "web-1", "aaaa")).as_object();
    stored["endpoint"] = first;
    boost::json::object refused =
        boost::json::parse(record(2, "2024-02-01T00:00:00Z", "password_rejected", "web-1", "bbbb")).as_object();
    refused["endpoint"] = "/v1-rke2/client-kubelet.crt";
    History history;
    const Explanation explanation = explain_lines(
        boost::json::serialize(stored) + "\n" + boost::json::serialize(refused) + "\n", "web-1", history);
    ASSERT_FALSE(explanation.remedies.empty());
    EXPECT_NE(explanation.remedies.front().command.find("restart rke2-agent"), std::string::npos) << first;
  }
}

}  // namespace
}  // namespace ledger::replay
