// `ledger export`: the log as JSON Lines; what cannot be read is reported, never skipped in silence.

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "replay/export.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "Every line is one record as docs/EVENTS.md describes it. No secrets are in it: passwords and tokens appear "
    "as\n"
    "fingerprints only. With --node, the export is everything that bears on that node, and replaying it gives the\n"
    "same answer as replaying the log.\n\n"
    "Examples:\n"
    "  ledger export > all.jsonl\n"
    "  ledger export --from 2024-06-01T00:00:00Z --to 2024-06-30T23:59:59Z --output june.jsonl\n"
    "  ledger export --from 8991 --to 9042\n"
    "  ledger export --node web-1 --output web-1.jsonl && ledger replay --node web-1 --input web-1.jsonl\n\n"
    "Exit status: 0 complete, 1 failed or some records could not be read, 2 wrong usage.\n";

struct Arguments {
  std::string data_dir = kDefaultDataDir, format = "jsonl", from, to, node, output;
};

Result<replay::ExportRange> range_of(const Arguments& arguments) {
  replay::ExportRange range;
  const auto read = [](const char* option, const std::string& text, replay::Cut& cut) -> Result<void> {
    if (text.empty()) return {};
    const Result<replay::Cut> parsed = replay::Cut::parse(text);
    if (!parsed) return Error{Errc::invalid, std::string(option) + ": " + parsed.error().message};
    cut = *parsed;
    return {};
  };
  if (const Result<void> from = read("--from", arguments.from, range.from); !from) return from.error();
  if (const Result<void> to = read("--to", arguments.to, range.to); !to) return to.error();
  return range;
}

Result<replay::ExportReport> write_export(const Arguments& arguments, const replay::ExportRange& range,
                                          std::FILE* out) {
  const auto log = EventLog::follow({.dir = std::filesystem::path(arguments.data_dir) / "events"});
  if (!log) return log.error();
  const auto sink = [&](std::string_view line) {
    return std::fwrite(line.data(), 1, line.size(), out) == line.size();
  };
  if (!arguments.node.empty()) return replay::export_node(**log, arguments.node, range, sink);
  ProgressLine progress("exporting");
  return replay::export_jsonl(**log, range, sink, std::ref(progress));
}

// To a file: under another name until it is complete, so that half an export never looks like one.
Result<replay::ExportReport> export_to_file(const Arguments& arguments, const replay::ExportRange& range) {
  const std::string partial = arguments.output + ".part";
  std::FILE* out = std::fopen(partial.c_str(), "wbe");
  const auto failed = [&] {
    const Error error{Errc::io, "cannot write " + printable(partial, 200) + ": " + std::strerror(errno)};
    std::remove(partial.c_str());
    return error;
  };
  if (out == nullptr) return failed();
  Result<replay::ExportReport> report = write_export(arguments, range, out);
  const bool flushed = std::fflush(out) == 0 && fsync(fileno(out)) == 0;
  if (std::fclose(out) != 0 || !flushed) return failed();
  if (!report) {
    std::remove(partial.c_str());
    return report;
  }
  if (std::rename(partial.c_str(), arguments.output.c_str()) != 0) return failed();
  return report;
}

int run(const Arguments& arguments) {
  const Result<replay::ExportRange> range = range_of(arguments);
  if (!range) return fail(range.error()), 2;
  const bool to_file = !arguments.output.empty() && arguments.output != "-";
  const Result<replay::ExportReport> report =
      to_file ? export_to_file(arguments, *range) : write_export(arguments, *range, stdout);
  if (!report) return fail(report.error());
  for (const replay::Hole& hole : report->holes)
    std::fprintf(stderr, "ledger: record %llu is not in the export: %s\n",
                 static_cast<unsigned long long>(hole.seq), printable(hole.reason, 300).c_str());
  if (report->hole_count > 0)
    return fail({Errc::corrupt, std::to_string(report->hole_count) +
                                    " record(s) could not be read; `ledger verify` says "
                                    "what is damaged"});
  if (to_file)
    std::fprintf(stderr, "ledger: %llu records, %llu to %llu, in %s\n",
                 static_cast<unsigned long long>(report->records), static_cast<unsigned long long>(report->first),
                 static_cast<unsigned long long>(report->last), printable(arguments.output, 200).c_str());
  return 0;
}

}  // namespace

void add_export(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("export", "The log, or one node's part of it, as JSON Lines");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--format", arguments->format, "Of the export")
      ->check(CLI::IsMember({"jsonl"}))
      ->capture_default_str();
  command->add_option("--from", arguments->from, "First record: a time (RFC 3339) or a record number");
  command->add_option("--to", arguments->to, "Last record, likewise");
  command->add_option("--node", arguments->node, "Only what bears on this node");
  command->add_option("--output", arguments->output, "File to write (default: standard output)");
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
