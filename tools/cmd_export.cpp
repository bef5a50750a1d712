// `ledger export`: the log, or a part of it, in the form that somebody else's tools read; what cannot be read is
// reported, never skipped in silence.

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>

#include "ledger/credentials.h"
#include "replay/export.h"
#include "replay/redaction.h"
#include "replay/triage.h"
#include "tools/bundle_command.h"
#include "tools/commands.h"
#include "tools/export_file.h"
#include "tools/export_live.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "Formats (docs/EXPORTS.md has the mapping, kind by kind):\n"
    "  jsonl        every field of every record (docs/EVENTS.md); `ledger replay --input` reads it\n"
    "  csv          for a spreadsheet; cells that would be formulas begin with '\n"
    "  cloudevents, ocsf, ecs, k8s-audit, cef, syslog\n\n"
    "No secrets are in it: passwords and tokens appear as fingerprints only. With --node, the export is everything\n"
    "that bears on that node, and replaying it gives the same answer as replaying the log.\n\n"
    "With --cursor FILE an export goes on where the last one ended. In a file (--output) every record is exactly\n"
    "once, whatever was killed when; on standard output a record may come twice after a crash, and none is lost.\n\n"
    "--redact replaces names or addresses by pseudonyms, the same for the same value within an export; with the same\n"
    "--redact-key also in the next one. Notes are left out.\n\n"
    "With --bundle the records come with what proves them to somebody who has neither the log nor trust in who keeps\n"
    "it: the signed checkpoint, proofs, sums and a README; `ledger verify-bundle` checks it anywhere. That it was made is\n"
    "recorded in the log (export_created). Plain exports are recorded with --record only.\n\n"
    "--follow goes on with new records until it is stopped (Ctrl-C, SIGTERM), beside a server that runs, stops or starts.\n"
    "--send-to brings them to a consumer, with or without --follow, and tries again until they are taken:\n"
    "  tcp://host:601 tls://host:6514   syslog in octet-counted frames; every other format as lines. TCP has no answers:\n"
    "                                   after a lost connection its last --resend records are sent again\n"
    "  https://host/path                a POST per batch, signed as Standard Webhooks with --sign-key (a file with\n"
    "                                   whsec_<base64>, a key a line). webhook-id stays the same however often it is sent\n"
    "A consumer that is slow or gone never slows the server down and misses nothing: the log keeps its place. --node is\n"
    "then records that have this name; what bears on a node from elsewhere is known only when all is over.\n\n"
    "Examples:\n"
    "  ledger export > all.jsonl\n"
    "  ledger export --follow --kind password_rejected | jq .node\n"
    "  ledger export --follow --cursor c --output /var/log/ledger.jsonl\n"
    "  ledger export --follow --format syslog --cursor siem.cursor --send-to tls://siem.example:6514 --send-ca siem-ca.pem\n"
    "  ledger export --follow --format cloudevents --cursor hook.cursor --send-to https://hook.example/in --sign-key hook.key\n"
    "  ledger export --from 2024-06-01T00:00:00Z --to 2024-06-30T23:59:59Z --zstd --output june.jsonl.zst\n"
    "  ledger export --format ocsf --cursor siem.cursor --output siem.ocsf.jsonl     every hour, from cron\n"
    "  ledger export --kind password_rejected,token_rejected --format csv --output refused.csv\n"
    "  ledger export --cause REBUILT > rebuilt.jsonl           records of the nodes whose explanation says so now\n"
    "  ledger export --input june.jsonl --format csv --output june.csv     an export in another form, anywhere\n"
    "  ledger export --node web-1 --output web-1.jsonl && ledger replay --node web-1 --input web-1.jsonl\n"
    "  ledger export --bundle june.tar.zst --from 2024-06-01T00:00:00Z --to 2024-06-30T23:59:59Z\n"
    "  ledger export --bundle july --since-bundle june.tar.zst        what came since\n\n"
    "Exit status: 0 complete, or stopped by a signal; 1 failed or some records could not be read; 2 wrong usage.\n";

struct Arguments {
  std::string data_dir = kDefaultDataDir, format = "jsonl", from, to, node, cause, input, output, cursor, redact_key, archives;
  std::vector<std::string> kinds, redact;
  std::optional<Seq> after_seq;
  bool zstd = false;
  BundleArguments bundle;
  LiveExport live;  // --follow, --send-to and what belongs to it

  bool is_live() const { return live.follow || !live.destination.url.empty(); }
};

BundleRequest bundle_request(const Arguments& arguments, const replay::ExportOptions& options) {
  BundleRequest request{.data_dir = arguments.data_dir,
                        .what = options,
                        .node = arguments.node,
                        .cause = arguments.cause,
                        .redacted = arguments.redact,
                        .arguments = arguments.bundle};
  if (request.arguments.actor.empty()) request.arguments.actor = default_actor();
  return request;
}

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
  if (arguments.after_seq) range.from.seq = *arguments.after_seq + 1;
  return range;
}

Result<std::vector<Kind>> kinds_of(const Arguments& arguments) {
  std::vector<Kind> kinds;
  for (const std::string& name : arguments.kinds) {
    const std::optional<Kind> kind = kind_from_name(name);
    if (!kind) return Error{Errc::invalid, "--kind: '" + printable(name, 60) + "' is no kind of record (docs/EVENTS.md)"};
    kinds.push_back(*kind);
  }
  return kinds;
}

Result<Secret> redaction_key(const Arguments& arguments) {
  if (arguments.redact_key.empty()) return random_secret(32);
  Result<Secret> key = read_secret_file(arguments.redact_key, 4096);
  if (!key) return Error{key.error().code, "--redact-key " + printable(arguments.redact_key, 200) + ": " + key.error().message};
  if (key->reveal().size() < 16)
    return Error{Errc::invalid, "--redact-key: fewer than 16 bytes; make one with `openssl rand -hex 32`"};
  return key;
}

// What of the options does not need the log.
Result<replay::ExportOptions> options_of(const Arguments& arguments) {
  replay::ExportOptions options;
  Result<replay::ExportRange> range = range_of(arguments);
  if (!range) return range.error();
  options.range = *range;
  Result<std::vector<Kind>> kinds = kinds_of(arguments);
  if (!kinds) return kinds.error();
  options.kinds = std::move(*kinds);
  options.format = *replay::audit_format_from_name(arguments.format);
  options.source.version = LEDGER_VERSION;
  if (arguments.redact.empty()) return options;
  Result<Secret> key = redaction_key(arguments);
  if (!key) return key.error();
  const auto wants = [&](const char* what) {
    return std::find(arguments.redact.begin(), arguments.redact.end(), what) != arguments.redact.end();
  };
  const auto redaction = std::make_shared<replay::Redaction>(std::move(*key), wants("names"), wants("addresses"));
  options.change = [redaction](Record& record) { redaction->apply(record); };
  return options;
}

// The nodes whose explanation names this cause now.
Result<std::vector<std::string>> nodes_of_cause(const EventLog& log, const std::string& cause) {
  const Result<replay::Triage> triage = replay::triage(log, {});
  if (!triage) return triage.error();
  std::vector<std::string> nodes;
  for (const replay::TriageEntry& entry : triage->entries)
    if (name_of(entry.cause) == cause) nodes.push_back(entry.node);
  if (nodes.empty()) return Error{Errc::not_found, "no node's explanation is " + printable(cause, 40) + " now; `ledger triage` lists them"};
  return nodes;
}

Result<replay::ExportReport> write_records(const EventLog& log, const Arguments& arguments,
                                           const replay::ExportOptions& options, ExportFile& out) {
  const auto sink = [&](std::string_view line) { return out.write(line); };
  if (!arguments.node.empty()) return replay::export_node(log, arguments.node, options, sink);
  ProgressLine progress("exporting");
  return replay::export_log(log, options, sink, std::ref(progress));
}

int tell_report(const replay::ExportReport& report, const Arguments& arguments, bool to_file) {
  for (const replay::Hole& hole : report.holes)
    if (hole.to != 0)
      std::fprintf(stderr, "ledger: records %llu to %llu are not all in the export: %s\n",
                   static_cast<unsigned long long>(hole.seq), static_cast<unsigned long long>(hole.to),
                   printable(hole.reason, 1000).c_str());
    else
      std::fprintf(stderr, "ledger: %s %llu is not in the export: %s\n", hole.line != 0 ? "line" : "record",
                   static_cast<unsigned long long>(hole.line != 0 ? hole.line : hole.seq),
                   printable(hole.reason, 300).c_str());
  if (report.hole_count > 0)
    return fail({Errc::corrupt, std::to_string(report.hole_count) +
                                    " record(s) could not be read" +
                                    (arguments.input.empty() ? "; `ledger verify` says what is damaged" : "")});
  if (to_file)
    std::fprintf(stderr, "ledger: %llu records, %llu to %llu, in %s\n",
                 static_cast<unsigned long long>(report.records), static_cast<unsigned long long>(report.first),
                 static_cast<unsigned long long>(report.last), printable(arguments.output, 200).c_str());
  return 0;
}

int run_from_file(const Arguments& arguments, const replay::ExportOptions& options) {
  std::ifstream file;
  if (arguments.input != "-") {
    file.open(arguments.input, std::ios::binary);
    if (!file) return fail({Errc::io, "cannot read " + printable(arguments.input, 200) + ": " + std::strerror(errno)});
  }
  Result<ExportFile> out = ExportFile::create(arguments.output, arguments.zstd);
  if (!out) return fail(out.error());
  const auto report = replay::export_stream(arguments.input == "-" ? std::cin : file, options,
                                            [&](std::string_view line) { return out->write(line); });
  if (!report) return fail(report.error());
  if (const Result<std::uint64_t> written = out->finish(); !written) return fail(written.error());
  return tell_report(*report, arguments, !out->is_stdout());
}

// What CLI11 cannot say about options that go together.
Result<void> check_live(const Arguments& arguments) {
  const LiveExport& live = arguments.live;
  const auto wrong = [](const char* why) { return Error{Errc::invalid, why}; };
  if (!arguments.is_live() && !arguments.node.empty() && !arguments.cursor.empty())
    return wrong("--cursor does not go with --node, unless with --follow or --send-to");
  if (live.destination.url.empty() &&
      (!live.ca_file.empty() || !live.cert_file.empty() || !live.key_file.empty() || !live.sign_key_file.empty()))
    return wrong("--send-ca, --send-cert, --send-key and --sign-key need --send-to");
  if (live.cert_file.empty() != live.key_file.empty()) return wrong("--send-cert and --send-key go together");
  if (live.follow && !arguments.redact.empty() && arguments.redact_key.empty())
    return wrong("--redact with --follow needs --redact-key: with a key of its own, every start would make other pseudonyms");
  const bool into_file = !arguments.output.empty() && arguments.output != "-";
  if (live.follow && arguments.zstd && !into_file) return wrong("--zstd with --follow needs --output");
  return {};
}

int run_live(Arguments& arguments, replay::ExportOptions options) {
  LiveExport& live = arguments.live;
  live.data_dir = arguments.data_dir;
  live.format = arguments.format;
  live.output = arguments.output;
  live.cursor = arguments.cursor;
  live.zstd = arguments.zstd;
  live.destination.format = options.format;
  if (!arguments.node.empty()) options.nodes = {to_lower(arguments.node)};
  live.records = std::move(options);
  return export_live(std::move(live));
}

int run(Arguments& arguments) {
  if (const Result<void> fits = check_live(arguments); !fits) return fail(fits.error()), 2;
  Result<replay::ExportOptions> options = options_of(arguments);
  if (!options) return fail(options.error()), 2;
  if (arguments.is_live()) return run_live(arguments, std::move(*options));
  if (!arguments.input.empty()) return run_from_file(arguments, *options);
  const auto log = EventLog::follow(
      {.dir = std::filesystem::path(arguments.data_dir) / "events", .archives = arguments.archives});
  if (!log) return fail(log.error());
  options->source.log = (*log)->id();
  if (!arguments.cause.empty()) {
    Result<std::vector<std::string>> nodes = nodes_of_cause(**log, arguments.cause);
    if (!nodes) return fail(nodes.error());
    options->nodes = std::move(*nodes);
  }
  const BundleRequest request = bundle_request(arguments, *options);
  if (!arguments.bundle.path.empty()) return make_bundle(**log, request);
  std::optional<ExportCursor> cursor;
  if (!arguments.cursor.empty()) {
    Result<ExportCursor> read = ExportCursor::resume(arguments.cursor, **log, arguments.format);
    if (!read) return fail(read.error());
    cursor = std::move(*read);
    options->range.from.seq = cursor->seq + 1;
    options->with_header = cursor->seq == 0;
  }
  Result<ExportFile> out = cursor ? ExportFile::append(arguments.output, cursor->bytes, arguments.zstd)
                                  : ExportFile::create(arguments.output, arguments.zstd);
  if (!out) return fail(out.error());
  const Result<replay::ExportReport> report = write_records(**log, arguments, *options, *out);
  if (!report) return fail(report.error());
  const Result<std::uint64_t> bytes = out->finish();
  if (!bytes) return fail(bytes.error());
  if (cursor) {
    cursor->seq = std::max(cursor->seq, report->seen);
    cursor->bytes = *bytes;
    if (const Result<void> kept = cursor->write(arguments.cursor); !kept) return fail(kept.error());
  }
  const int told = tell_report(*report, arguments, !out->is_stdout());
  if (told != 0 || !arguments.bundle.record) return told;
  return record_file(arguments.data_dir, *report, arguments.format, arguments.output, filter_in_words(request, false),
                     request.arguments.actor);
}

}  // namespace

void add_export(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("export", "The log, or a part of it, for archives and audit tools");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--archives", arguments->archives, kArchivesHelp);
  command->add_option("--format", arguments->format, "Of the export")
      ->check(CLI::IsMember(replay::audit_format_names()))
      ->capture_default_str();
  auto* input = command->add_option("--input", arguments->input, "A JSON Lines export instead of the log, - for standard input");
  auto* from = command->add_option("--from", arguments->from, "First record: a time (RFC 3339) or a record number");
  auto* to = command->add_option("--to", arguments->to, "Last record, likewise");
  auto* after = command->add_option("--after-seq", arguments->after_seq, "Records behind this number only")->excludes(from);
  auto* node = command->add_option("--node", arguments->node, "Only what bears on this node");
  command->add_option("--kind", arguments->kinds, "Only records of these kinds, separated by commas")->delimiter(',');
  auto* cause = command->add_option("--cause", arguments->cause, "Only records of nodes whose explanation names this cause")
                    ->excludes(node)
                    ->excludes(input);
  command->add_option("--redact", arguments->redact, "names, addresses, or both")
      ->delimiter(',')
      ->check(CLI::IsMember({"names", "addresses"}));
  command->add_option("--redact-key", arguments->redact_key, "File with a key, so that pseudonyms stay over exports");
  auto* output = command->add_option("--output", arguments->output, "File to write (default: standard output)");
  auto* zstd = command->add_flag("--zstd", arguments->zstd, "Compress with Zstandard");
  command->add_option("--cursor", arguments->cursor, "File that remembers where the export ended")
      ->excludes(from)
      ->excludes(after)
      ->excludes(input);
  node->excludes(input);
  LiveExport& live = arguments->live;
  command->add_flag("--follow", live.follow, "Go on with new records as they come")
      ->excludes(input)
      ->excludes(to)
      ->excludes(cause);
  command->add_option("--send-to", live.destination.url, "Bring the records to tcp://, tls:// or https:// instead")
      ->excludes(input)
      ->excludes(cause)
      ->excludes(output)
      ->excludes(zstd);
  command->add_option("--send-ca", live.ca_file, "Its CA, PEM (default: what the operating system trusts)");
  command->add_option("--send-cert", live.cert_file, "Client certificate for it, PEM");
  command->add_option("--send-key", live.key_file, "Key of the client certificate, PEM");
  command->add_option("--sign-key", live.sign_key_file, "File with the keys that sign a webhook's bodies");
  command->add_option("--resend", live.resend, "Records of a lost tcp or tls connection that are sent again")
      ->capture_default_str();
  command->add_option("--max-pause", live.longest_pause_s, "Longest time between two attempts, in seconds")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  add_bundle_options(*command, arguments->bundle);
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
