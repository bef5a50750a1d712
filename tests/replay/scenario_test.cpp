// Runs every history of tests/scenarios against the explanation that its .expect.json asks for. A scenario is
// documentation: its `takeaway` says what it teaches. Fields of an expectation:
//   cause, confidence (any of), state      any_cause: instead of `cause`, any of these
//   evidence_seqs                          seqs that the evidence must cite
//   alternatives                           causes that must not be ruled out
//   forbidden_remedy_ranks, remedy_ranks   that must not, and must, be offered; remedy_ranks_null: none has a rank
//   no_remedies                            nothing to do
//   takeover                               the warning of impersonation is there, or is not
//   warns, summary_has                     texts to be found in a warning, in the summary
//   commands_have, commands_lack           texts that are, and are not, in some remedy's command
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "ledger/event_json.h"
#include "replay/explain.h"
#include "replay/render.h"
#include "tests/support/paths.h"

namespace ledger::replay {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

std::string contents(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<std::string> strings(const json::object& object, const char* key) {
  std::vector<std::string> found;
  if (const json::value* list = object.if_contains(key))
    for (const json::value& item : list->as_array()) found.emplace_back(item.as_string());
  return found;
}

bool contains(const std::vector<std::string>& list, std::string_view wanted) {
  return std::find(list.begin(), list.end(), wanted) != list.end();
}

struct Scenario {
  fs::path file;
  std::string name;
};
std::ostream& operator<<(std::ostream& out, const Scenario& scenario) { return out << scenario.name; }

std::vector<Scenario> all_scenarios() {
  std::vector<Scenario> found;
  for (const auto& entry : fs::directory_iterator(fs::path(ledger::test::source_dir()) / "tests" / "scenarios"))
    if (entry.path().extension() == ".jsonl") found.push_back({entry.path(), entry.path().stem().string()});
  std::sort(found.begin(), found.end(), [](const Scenario& a, const Scenario& b) { return a.name < b.name; });
  return found;
}

class ScenarioTest : public testing::TestWithParam<Scenario> {
 protected:
  void check_judgement(const Explanation& e, const json::object& expect) {
    std::vector<std::string> causes = strings(expect, "any_cause");
    if (causes.empty()) causes.emplace_back(expect.at("cause").as_string());
    EXPECT_TRUE(contains(causes, name_of(e.cause)));
    EXPECT_TRUE(contains(strings(expect, "confidence"), name_of(e.confidence)));
    EXPECT_EQ(expect.at("state").as_string(), e.state);
    for (const json::value& seq : expect.at("evidence_seqs").as_array())
      EXPECT_TRUE(std::any_of(e.evidence.begin(), e.evidence.end(),
                              [&](const Fact& fact) { return fact.seq == seq.to_number<Seq>(); }))
          << "record " << seq << " is not cited";
    for (const std::string& cause : strings(expect, "alternatives"))
      EXPECT_TRUE(std::any_of(e.alternatives.begin(), e.alternatives.end(),
                              [&](const Alternative& other) { return name_of(other.cause) == cause; }))
          << cause << " is ruled out";
    for (const std::string& text : strings(expect, "summary_has"))
      EXPECT_NE(e.summary.find(text), std::string::npos) << text;
    for (const std::string& text : strings(expect, "warns"))
      EXPECT_TRUE(std::any_of(e.warnings.begin(), e.warnings.end(),
                              [&](const std::string& warning) { return warning.find(text) != std::string::npos; }))
          << "no warning says: " << text;
    if (const json::value* takeover = expect.if_contains("takeover")) {
      EXPECT_EQ(takeover->as_bool(), contains(e.warnings, kTakeoverWarning));
    }
  }

  void check_remedies(const Explanation& e, const json::object& expect) {
    std::vector<std::string> ranks;
    for (const Remedy& remedy : e.remedies) ranks.push_back(remedy.rank);
    for (const std::string& rank : strings(expect, "forbidden_remedy_ranks"))
      EXPECT_FALSE(contains(ranks, rank)) << rank;
    for (const std::string& rank : strings(expect, "remedy_ranks")) EXPECT_TRUE(contains(ranks, rank)) << rank;
    const auto commanded = [&](const std::string& text) {
      return std::any_of(e.remedies.begin(), e.remedies.end(),
                         [&](const Remedy& remedy) { return remedy.command.find(text) != std::string::npos; });
    };
    for (const std::string& text : strings(expect, "commands_have")) EXPECT_TRUE(commanded(text)) << text;
    for (const std::string& text : strings(expect, "commands_lack")) EXPECT_FALSE(commanded(text)) << text;
    if (expect.contains("no_remedies")) {
      EXPECT_TRUE(ranks.empty());
    }
    if (expect.contains("remedy_ranks_null")) {
      EXPECT_TRUE(std::all_of(ranks.begin(), ranks.end(), [](const std::string& rank) { return rank.empty(); }));
    }
    EXPECT_EQ(ranks.empty(), e.cause == Cause::kNone) << "advice exactly where something is wrong";
  }

  // What holds for every explanation.
  void check_form(const Explanation& e, const History& history) {
    for (const Fact& fact : e.evidence)
      EXPECT_TRUE(std::any_of(history.records.begin(), history.records.end(),
                              [&](const Record& record) { return record.seq == fact.seq; }))
          << "evidence cites record " << fact.seq << ", which is not in the history";
    for (const Alternative& other : e.alternatives) EXPECT_NE(other.cause, e.cause);
    EXPECT_FALSE(e.cause == Cause::kUnknown && e.confidence != Confidence::kLow);
    EXPECT_FALSE(e.cause == Cause::kUnknown && e.alternatives.empty());
    for (const char c : to_text(e)) EXPECT_TRUE(c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7F));
    for (const Remedy& remedy : e.remedies)
      EXPECT_EQ(remedy.command.find('\n'), std::string::npos) << "a command is one line";
    std::vector<std::string> keys;
    for (const auto& [key, value] : to_json(e)) keys.emplace_back(key);
    std::erase(keys, "agent_prints"), std::erase(keys, "only_claimed");
    EXPECT_EQ(keys, (std::vector<std::string>{"node", "as_of", "state", "bound", "cause", "confidence", "summary",
                                              "evidence", "alternatives", "remedies", "warnings", "timeline"}));
  }
};

TEST_P(ScenarioTest, IsExplainedAsExpected) {
  const Scenario& scenario = GetParam();
  const json::object expect =
      json::parse(contents(fs::path(scenario.file).replace_extension(".expect.json"))).as_object();
  const std::string node(expect.at("node").as_string());
  const Result<History> history = history_from_jsonl(scenario.file, node);
  ASSERT_TRUE(history) << history.error().message;
  const Explanation explanation = explain(*history);
  SCOPED_TRACE(std::string(expect.at("takeaway").as_string()) + "\n" + to_text(explanation));
  check_judgement(explanation, expect);
  check_remedies(explanation, expect);
  check_form(explanation, *history);
}

INSTANTIATE_TEST_SUITE_P(Scenarios, ScenarioTest, testing::ValuesIn(all_scenarios()), [](const auto& which) {
  std::string name = which.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(Scenarios, AreThere) { EXPECT_GE(all_scenarios().size(), 60u); }

}  // namespace
}  // namespace ledger::replay
