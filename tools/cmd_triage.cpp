// `ledger triage`: every node that is refused or suspicious now, grouped by cause.

#include <boost/json.hpp>

#include "replay/disagreements.h"
#include "replay/remedies.h"
#include "replay/triage.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "Explains every name that was refused since --since and still is, then every name that looks suspicious although\n"
    "it is not refused: it shares its password with another one, or somebody changed its binding and what came after\n"
    "looks wrong. The cause that concerns most nodes comes first: many at once is a matter of the server, not of the\n"
    "nodes, and the headline names what happened to it. Names that strangers only claimed are in it, too.\n"
    "The same over HTTPS: GET /ledger/v1/triage?since=24h.\n\n"
    "--disagreements: in front of another server (ledger serve --upstream --mode observe), the names and requests\n"
    "on which that server decided otherwise than the ledger would have, the newest first; `agree since` are those on\n"
    "which they agree by now. What is in it when the ledger takes over (ledger mode enforce) is who will notice.\n\n"
    "Examples:\n"
    "  ledger triage                                 the last 24 hours\n"
    "  ledger triage --since 7d                      a week; also 30m, 12h, a time (RFC 3339), or `ever`\n"
    "  ledger triage --format json | jq .counts\n"
    "  ledger triage --disagreements --since 7d      before the ledger decides itself\n\n"
    "Exit status: 0 done, whatever was found, 1 the log could not be read, 2 wrong usage.\n";

struct Arguments {
  std::string data_dir = kDefaultDataDir, since = "24h", format = "text";
  bool disagreements = false;
};

template <class Found>
int print(const Found& found, const Arguments& arguments) {
  const bool elsewhere = arguments.data_dir != kDefaultDataDir;
  const std::string where = elsewhere ? " --data-dir " + replay::shell_word(arguments.data_dir) : "";
  const std::string text = arguments.format == "json" ? boost::json::serialize(replay::to_json(found)) + "\n"
                                                      : replay::to_text(found, style_of_terminal(), where);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

int run(const Arguments& arguments) {
  const auto since = replay::parse_since(arguments.since, Time::now());
  if (!since) return fail({Errc::invalid, "--since: " + since.error().message}), 2;
  const auto log = EventLog::follow({.dir = std::filesystem::path(arguments.data_dir) / "events"});
  if (!log) return fail(log.error());
  if (arguments.disagreements) {
    ProgressLine progress("comparing");
    const auto found = replay::disagreements(**log, {.since = *since}, std::ref(progress));
    return found ? print(*found, arguments) : fail(found.error());
  }
  replay::TriageOptions options;
  options.since = *since;
  ProgressLine progress("explaining");
  const Result<replay::Triage> found = replay::triage(**log, options, std::ref(progress));
  if (!found) return fail(found.error());
  return print(*found, arguments);
}

}  // namespace

void add_triage(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("triage", "Which nodes are refused now, grouped by cause");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--since", arguments->since, "Leave out names last refused before")->capture_default_str();
  command->add_flag("--disagreements", arguments->disagreements,
                    "Only where an upstream decided otherwise than the ledger would have");
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
