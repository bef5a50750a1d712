// `ledger diff`: what changed between two moments, and by whom.

#include <boost/json.hpp>
#include <fstream>

#include "replay/diff.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "Compares what the log says about every node and token at two moments, and cites the records that made the\n"
    "difference: who did it and when. A node that was changed back and forth is listed with its steps and the net\n"
    "effect. Nodes that only registered again with the bound password are counted; --all lists them. A moment is a\n"
    "record number, a time (RFC 3339), or a span before now; what the record at the moment did is before it.\n\n"
    "Examples:\n"
    "  ledger diff --from 24h                                      what changed since yesterday\n"
    "  ledger diff --from 2024-06-11T07:00:00Z --to 2024-06-11T08:00:00Z\n"
    "  ledger diff --from 8991 --to 9042 --format json | jq '.nodes[].net'\n"
    "  ledger diff --from 0 --input log.jsonl                      everything an export holds\n"
    "  ledger export | ledger diff --from 8991 --input -\n\n"
    "Exit status: 0 done, whatever changed, 1 the history could not be read, 2 wrong usage.\n";

struct Arguments {
  std::string data_dir = kDefaultDataDir, input, from, to, format = "text";
  bool all = false;
};

Result<replay::Cut> moment_of(const char* option, const std::string& text) {
  if (text.empty()) return replay::Cut{};
  const Result<replay::Cut> cut = replay::Cut::parse(text, Time::now());
  if (!cut) return Error{Errc::invalid, std::string(option) + ": " + cut.error().message};
  return *cut;
}

Result<replay::Diff> read_diff(const Arguments& arguments, const replay::Cut& from, const replay::Cut& to) {
  ProgressLine progress("comparing");
  if (!arguments.input.empty()) {
    Result<std::ifstream> lines = replay::open_jsonl(arguments.input);
    if (!lines) return lines.error();
    replay::RecordSource source(*lines);
    return replay::diff(source, from, to, std::ref(progress));
  }
  const auto log = EventLog::follow({.dir = std::filesystem::path(arguments.data_dir) / "events"});
  if (!log) return log.error();
  replay::RecordSource source(**log);
  return replay::diff(source, from, to, std::ref(progress));
}

int run(const Arguments& arguments) {
  const Result<replay::Cut> from = moment_of("--from", arguments.from), to = moment_of("--to", arguments.to);
  if (!from) return fail(from.error()), 2;
  if (!to) return fail(to.error()), 2;
  const Result<replay::Diff> diff = read_diff(arguments, *from, *to);
  if (!diff) return fail(diff.error());
  const std::string text = arguments.format == "json" ? boost::json::serialize(replay::to_json(*diff)) + "\n"
                                                      : replay::to_text(*diff, style_of_terminal(), arguments.all);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace

void add_diff(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("diff", "What changed between two moments, and by whom");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--from", arguments->from, "The earlier moment: a record number, a time or a span before now")
      ->required();
  command->add_option("--to", arguments->to, "The later moment, likewise (default: the end)");
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--input,--file", arguments->input, "A JSON Lines file instead, - for standard input");
  command->add_flag("--all", arguments->all, "List nodes that only registered again, too");
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
