// ledger-sim: plays incidents in virtual time and either writes one of them with its truth, or asks the explanation
// engine about thousands and prints how often it was right. The rulings in the histories are those of the server.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <sstream>

#include "ledger/event_json.h"
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
    "  ledger-sim judge --incidents 2000 --misses 20              the same, and 20 wrong answers to look at\n\n"
    "Exit status: 0 done (judge: at or above the limits), 1 below them, 2 wrong usage.\n";

std::string jsonl(const std::vector<Record>& log) {
  std::string out;
  for (const Record& record : log) out += to_json_line(record) + "\n";
  return out;
}

struct Judgement {
  Cause cause = Cause::kUnknown;
  Confidence confidence = Confidence::kLow;
  std::string first_rank;
};

Result<Judgement> ask(const Incident& incident) {
  std::istringstream lines(jsonl(incident.log));
  const Result<replay::History> history = replay::history_from_stream(lines, incident.node);
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
    std::fputs(jsonl(incident.log).c_str(), stdout);
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
  for (const auto& [confidence, counts] : tally.calibration)
    fmt::print("{:<7} right {:.2f} % of {}\n", replay::name_of(confidence), percent(counts.first, counts.second),
               counts.second);
}

int judge(std::uint64_t seed, int incidents, int misses, Loss loss) {
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
  print(tally);
  const auto& [good, all] = tally.calibration[Confidence::kHigh];
  return percent(tally.right, tally.asked) >= 98 && percent(good, all) >= 99.5 && tally.harmful == 0 ? 0 : 1;
}

}  // namespace
}  // namespace ledger::sim

int main(int argc, char** argv) {
  CLI::App app{"Plays what happens to fleets, with the truth, and judges the explanation engine by it.", "ledger-sim"};
  app.footer(ledger::sim::kFooter);
  app.require_subcommand(1);
  std::uint64_t seed = 1;
  int incidents = 2100, misses = 0, exit_code = 0;
  std::string cause;
  ledger::sim::Loss loss = ledger::sim::Loss::none;
  const std::map<std::string, ledger::sim::Loss> losses = {{"none", ledger::sim::Loss::none},
                                                           {"fields", ledger::sim::Loss::most_fields},
                                                           {"tunnels", ledger::sim::Loss::tunnels},
                                                           {"addresses", ledger::sim::Loss::addresses},
                                                           {"beginning", ledger::sim::Loss::beginning}};
  app.add_option("--loss", loss, "What of the history is lost: none, fields, tunnels, addresses, beginning")
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
  CLI11_PARSE(app, argc, argv);
  return exit_code;
}
