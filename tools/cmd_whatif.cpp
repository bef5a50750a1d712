// `ledger whatif`: a rule of admission judged on what happened.

#include <boost/json.hpp>
#include <fstream>

#include "replay/whatif.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "Plays the log again as if a laxer rule had been in force, and says which refusals would have been admissions and\n"
    "which of these would have given a name away while its holder lived (a takeover): its tunnel was open, or both\n"
    "passwords were used in turn. What the records cannot decide is counted apart and never guessed. Nothing is\n"
    "changed. Rules can be combined; what people did (accept, release, hold) is taken as it was done.\n\n"
    "The server has none of these rules. The answer says what one would have done here, before anybody adopts it.\n\n"
    "Rules:\n"
    "  --accept-same-address        another password is bound when it comes from the host that the holder last\n"
    "                               registered from; observed addresses, behind a NAT all are one\n"
    "  --release-after-silence 30d  a name is free when its holder was not heard for so long: no registration, no\n"
    "                               open tunnel, no request with its certificate\n"
    "  --token-grace 1h             a token is accepted for so long after it was replaced, revoked or expired\n"
    "A name that an operator holds is never given away.\n\n"
    "Examples:\n"
    "  ledger whatif --accept-same-address                          the whole log\n"
    "  ledger whatif --accept-same-address --since 30d --node db-1  only the last month, only this name\n"
    "  ledger whatif --release-after-silence 30d --token-grace 1h --format json | jq '.takeovers'\n"
    "  ledger export | ledger whatif --token-grace 1h --input -\n\n"
    "Exit status: 0 judged, whatever came of it, 1 the history could not be read, 2 wrong usage.\n";

struct Arguments {
  std::string data_dir = kDefaultDataDir, input, node, since, until, silence, grace, format = "text";
  bool same_address = false;
};

Result<void> read_moment(const char* option, const std::string& text, replay::Cut& out) {
  if (text.empty()) return {};
  const Result<replay::Cut> cut = replay::Cut::parse(text, Time::now());
  if (!cut) return Error{Errc::invalid, std::string(option) + ": " + cut.error().message};
  out = *cut;
  return {};
}

Result<void> read_span(const char* option, const std::string& text, std::optional<std::int64_t>& out) {
  if (text.empty()) return {};
  out = replay::seconds_of_span(text);
  if (!out)
    return Error{Errc::invalid, std::string(option) + ": '" + printable(text, 40) + "' is no span like 30m, 12h or 30d"};
  return {};
}

Result<replay::WhatIfOptions> options_of(const Arguments& arguments) {
  replay::WhatIfOptions options;
  options.policy.accept_same_address = arguments.same_address;
  for (const Result<void>& read :
       {read_span("--release-after-silence", arguments.silence, options.policy.release_after_silence),
        read_span("--token-grace", arguments.grace, options.policy.token_grace),
        read_moment("--since", arguments.since, options.since), read_moment("--until", arguments.until, options.until)})
    if (!read) return read.error();
  if (!options.policy.any())
    return Error{Errc::invalid, "name the rule to judge: --accept-same-address, --release-after-silence SPAN or "
                                "--token-grace SPAN (ledger whatif --help)"};
  options.node = to_lower(arguments.node);
  return options;
}

Result<replay::WhatIf> judge(const Arguments& arguments, const replay::WhatIfOptions& options) {
  ProgressLine progress("judging");
  if (!arguments.input.empty()) {
    Result<std::ifstream> lines = replay::open_jsonl(arguments.input);
    if (!lines) return lines.error();
    replay::RecordSource source(*lines);
    return replay::whatif(source, options, std::ref(progress));
  }
  const auto log = EventLog::follow({.dir = std::filesystem::path(arguments.data_dir) / "events"});
  if (!log) return log.error();
  replay::RecordSource source(**log);
  return replay::whatif(source, options, std::ref(progress));
}

int run(const Arguments& arguments) {
  const Result<replay::WhatIfOptions> options = options_of(arguments);
  if (!options) return fail(options.error()), 2;
  const Result<replay::WhatIf> judgement = judge(arguments, *options);
  if (!judgement) return fail(judgement.error());
  const std::string text = arguments.format == "json" ? boost::json::serialize(replay::to_json(*judgement)) + "\n"
                                                      : replay::to_text(*judgement, style_of_terminal());
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace

void add_whatif(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("whatif", "Judge a laxer rule of admission on what happened");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  command->add_flag("--accept-same-address", arguments->same_address,
                    "Rule: let another password in from the holder's address");
  command->add_option("--release-after-silence", arguments->silence, "Rule: a name is free after so long (30d)");
  command->add_option("--token-grace", arguments->grace, "Rule: tokens work for so long after their end (1h)");
  command->add_option("--node", arguments->node, "Only this name");
  command->add_option("--since", arguments->since,
                      "The rule is in force from here: a record number, a time (RFC 3339) or a span before now");
  command->add_option("--until", arguments->until, "... to here, likewise (default: the end)");
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--input,--file", arguments->input, "A JSON Lines file instead, - for standard input");
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
