// ledger-sim: plays incidents in virtual time and either writes one of them with its truth, or asks the explanation
// engine about thousands and prints how often it was right; or asks it about the written scenarios. The rulings in the
// played histories are those of the server. tools/accuracy runs all of it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "replay/history.h"
#include "tools/sim/incidents.h"

namespace ledger::sim {
namespace {

using replay::Cause;
using replay::Confidence;

constexpr const char* kFooter =
    "Examples:\n"
    "  ledger-sim show --cause DUPNAME --seed 7 > dup.jsonl       one history, its truth on standard error\n"
    "  ledger replay --node raspberrypi --input dup.jsonl         what the engine makes of it\n"
    "  ledger-sim judge --incidents 10000 --seed 1000000          confusion matrix, accuracy, calibration\n"
    "  ledger-sim judge --incidents 2000 --misses 20              the same, and 20 wrong answers to look at\n"
    "  ledger-sim --loss tunnels judge --incidents 2000           of histories that lack tunnels and certificates\n"
    "  ledger-sim corpus tests/scenarios                          the written cases instead of played ones\n\n"
    "Seeds below 1000000 are for tuning rules, those from there on for judging them; a run cannot have both. What an\n"
    "answer has to be to count as right: docs/FORENSICS.md.\n\n"
    "Exit status: 0 done (judge: right >= 98 %, `high` right >= 99.5 %, no harmful first remedy; corpus: all as\n"
    "expected), 1 below that, 2 wrong usage.\n";

struct Judgement {
  Cause cause = Cause::kUnknown;
  Confidence confidence = Confidence::kLow;
  std::string first_rank;
};

Result<Judgement> ask(std::istream& lines, const std::string& node) {
  const Result<replay::History> history = replay::history_from_stream(lines, node);
  if (!history) return history.error();
  const replay::Explanation explanation = replay::explain(*history);
  Judgement out{explanation.cause, explanation.confidence, ""};
  for (const replay::Remedy& remedy : explanation.remedies)
    if (!remedy.rank.empty()) {
      out.first_rank = remedy.rank;
      break;
    }
  return out;
}

Result<Judgement> ask(const Incident& incident) {
  std::istringstream lines(incident.lines());
  return ask(lines, incident.node);
}

struct Tally {
  std::map<std::pair<Cause, Cause>, int> matrix;            // truth, answer
  std::map<Confidence, std::pair<int, int>> calibration;    // right, all; of answers that name a cause
  int asked = 0, right = 0, undecided = 0, harmful = 0;
};

int show(const std::string& cause_name, std::uint64_t seed, Loss loss) {
  for (const Cause cause : played_causes()) {
    if (replay::name_of(cause) != cause_name) continue;
    Incident incident = play(cause, seed);
    lose(incident, loss, seed);
    std::fputs(incident.lines().c_str(), stdout);
    fmt::print(stderr, "truth: {} of node {}: {}\n", cause_name, incident.node, incident.story);
    return 0;
  }
  fmt::print(stderr, "ledger-sim: no cause '{}' is played\n", cause_name);
  return 2;
}

void count(Tally& tally, const Incident& incident, const Judgement& answer) {
  ++tally.asked;
  ++tally.matrix[{incident.truth, answer.cause}];
  const bool named = answer.cause != Cause::kUnknown;
  const bool right = answer.cause == incident.truth || incident.also_right.count(answer.cause) != 0;
  const bool fairly_undecided = !named && incident.undecided_is_right;
  tally.right += right || fairly_undecided;
  tally.undecided += fairly_undecided;
  tally.harmful += incident.harmful_first.count(answer.first_rank) != 0;
  if (named) {
    auto& [good, all] = tally.calibration[answer.confidence];
    good += right;
    ++all;
  }
}

double percent(int part, int whole) { return whole == 0 ? 100.0 : 100.0 * part / whole; }

void print_calibration(const Tally& tally) {
  for (const auto& [confidence, counts] : tally.calibration)
    fmt::print("{:<7} right {:.2f} % of {}\n", replay::name_of(confidence), percent(counts.first, counts.second),
               counts.second);
}

void print(const Tally& tally) {
  fmt::print("truth        answers\n");
  for (const Cause truth : played_causes()) {
    std::string line;
    for (const auto& [pair, n] : tally.matrix)
      if (pair.first == truth) line += fmt::format("  {} {}", replay::name_of(pair.second), n);
    fmt::print("{:<12}{}\n", replay::name_of(truth), line);
  }
  fmt::print("\nincidents {}   right {:.2f} %   (of these {:.2f} % fairly undecided)   harmful first remedies {}\n",
             tally.asked, percent(tally.right, tally.asked), percent(tally.undecided, tally.asked), tally.harmful);
  print_calibration(tally);
}

bool is_good(const Tally& tally) {
  const auto high = tally.calibration.find(Confidence::kHigh);
  const bool calibrated = high == tally.calibration.end() || percent(high->second.first, high->second.second) >= 99.5;
  return percent(tally.right, tally.asked) >= 98 && calibrated && tally.harmful == 0;
}

int judge(std::uint64_t seed, int incidents, int misses, Loss loss) {
  const std::uint64_t end = seed + static_cast<std::uint64_t>(incidents);
  if (seed < kFirstJudgingSeed && end > kFirstJudgingSeed) {
    fmt::print(stderr, "ledger-sim: seeds {} to {} are partly for tuning and partly for judging (from {} on)\n", seed,
               end - 1, kFirstJudgingSeed);
    return 2;
  }
  Tally tally;
  const auto causes = played_causes();
  for (int i = 0; i < incidents; ++i) {
    const Cause cause = causes[static_cast<std::size_t>(i) % causes.size()];
    const std::uint64_t own_seed = seed + static_cast<std::uint64_t>(i);
    Incident incident = play(cause, own_seed);
    lose(incident, loss, own_seed);
    const Result<Judgement> answer = ask(incident);
    if (!answer) {
      fmt::print(stderr, "ledger-sim: {}\n", answer.error().message);
      return 1;
    }
    const int right = tally.right, harmful = tally.harmful;
    count(tally, incident, *answer);
    if ((tally.right != right && tally.harmful == harmful) || misses-- <= 0) continue;
    fmt::print("miss: ledger-sim show --cause {} --seed {}   {} ({}): {} {} {}\n", replay::name_of(cause), own_seed,
               incident.node, incident.story, replay::name_of(answer->cause), replay::name_of(answer->confidence),
               answer->first_rank);
  }
  fmt::print("lost: {}; seeds {} to {}, for {}\n", name_of(loss), seed, end - 1,
             seed < kFirstJudgingSeed ? "tuning" : "judging");
  print(tally);
  return is_good(tally) ? 0 : 1;
}

// ---- the corpus --------------------------------------------------------------------------------------------

bool lists(const boost::json::object& expected, const char* key, std::string_view wanted) {
  const boost::json::value* list = expected.if_contains(key);
  return list != nullptr && list->is_array() &&
         std::any_of(list->as_array().begin(), list->as_array().end(), [&](const boost::json::value& item) {
           return item.is_string() && item.get_string() == wanted;
         });
}

// An expectation: tests/replay/scenario_test.cpp, which asks for more than the three things that are counted here.
Result<Tally> ask_corpus(const std::filesystem::path& directory) {
  Tally tally;
  std::error_code failed;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory, failed))
    if (entry.path().extension() == ".jsonl") files.push_back(entry.path());
  if (failed || files.empty())
    return Error{Errc::not_found, "no scenarios (*.jsonl) in " + printable(directory.string(), 200)};
  std::sort(files.begin(), files.end());
  for (const std::filesystem::path& file : files) {
    std::ostringstream text;
    text << std::ifstream(std::filesystem::path(file).replace_extension(".expect.json")).rdbuf();
    boost::system::error_code broken;
    const boost::json::value parsed = boost::json::parse(text.str(), broken);
    const boost::json::object* expected = broken ? nullptr : parsed.if_object();
    const boost::json::value* node = expected != nullptr ? expected->if_contains("node") : nullptr;
    if (node == nullptr || !node->is_string())
      return Error{Errc::invalid, "cannot read what is expected of " + printable(file.string(), 200)};
    std::ifstream lines(file, std::ios::binary);
    const Result<Judgement> answer = ask(lines, std::string(node->get_string()));
    if (!answer) return answer.error();
    const std::string_view cause = replay::name_of(answer->cause);
    const boost::json::value* one = expected->if_contains("cause");
    const bool right = lists(*expected, "any_cause", cause) ||
                       (one != nullptr && one->is_string() && one->get_string() == cause);
    const bool bounded = lists(*expected, "confidence", replay::name_of(answer->confidence));
    const bool harmful = lists(*expected, "forbidden_remedy_ranks", answer->first_rank);
    ++tally.asked, tally.right += right && bounded, tally.harmful += harmful;
    if (answer->cause != Cause::kUnknown) {
      auto& [good, all] = tally.calibration[answer->confidence];
      good += right, ++all;
    }
    if (!right || !bounded || harmful)
      fmt::print("off: {}: {} {} {}\n", file.stem().string(), cause, replay::name_of(answer->confidence),
                 answer->first_rank);
  }
  return tally;
}

int corpus(const std::string& directory) {
  const Result<Tally> tally = ask_corpus(directory);
  if (!tally) {
    fmt::print(stderr, "ledger-sim: {}\n", tally.error().message);
    return 2;
  }
  fmt::print("scenarios {}   as expected {:.2f} %   harmful first remedies {}\n", tally->asked,
             percent(tally->right, tally->asked), tally->harmful);
  print_calibration(*tally);
  return tally->right == tally->asked && tally->harmful == 0 ? 0 : 1;
}

}  // namespace
}  // namespace ledger::sim

int main(int argc, char** argv) {
  CLI::App app{"Plays what happens to fleets, with the truth, and judges the explanation engine by it.", "ledger-sim"};
  app.footer(ledger::sim::kFooter);
  app.require_subcommand(1);
  std::uint64_t seed = 1;
  int incidents = 2100, misses = 0, exit_code = 0;
  std::string cause, directory;
  ledger::sim::Loss loss = ledger::sim::Loss::none;
  const std::map<std::string, ledger::sim::Loss> losses = {{"none", ledger::sim::Loss::none},
                                                           {"fields", ledger::sim::Loss::most_fields},
                                                           {"tunnels", ledger::sim::Loss::tunnels},
                                                           {"addresses", ledger::sim::Loss::addresses},
                                                           {"beginning", ledger::sim::Loss::beginning},
                                                           {"records", ledger::sim::Loss::records}};
  app.add_option("--loss", loss, "What of the history is lost: none, fields, tunnels, addresses, beginning, records")
      ->transform(CLI::CheckedTransformer(losses))
      ->option_text("TEXT");
  CLI::App* show = app.add_subcommand("show", "Write one history as JSON Lines");
  show->add_option("--cause", cause, "Which kind of incident, e.g. REBUILT")->required();
  show->add_option("--seed", seed, "Which one of that kind")->capture_default_str();
  show->callback([&] { exit_code = ledger::sim::show(cause, seed, loss); });
  CLI::App* judge = app.add_subcommand("judge", "Ask about many and count right answers");
  judge->add_option("--incidents", incidents, "How many, of all kinds in turn")->capture_default_str();
  judge->add_option("--seed", seed, "Of the first; the next has the next")->capture_default_str();
  judge->add_option("--misses", misses, "Print so many wrong answers")->capture_default_str();
  judge->callback([&] { exit_code = ledger::sim::judge(seed, incidents, misses, loss); });
  CLI::App* corpus = app.add_subcommand("corpus", "Ask about written scenarios and compare with what they expect");
  corpus->add_option("DIRECTORY", directory, "Of *.jsonl and *.expect.json")->required();
  corpus->callback([&] { exit_code = ledger::sim::corpus(directory); });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return exit_code;
}
