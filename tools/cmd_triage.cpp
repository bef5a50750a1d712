// `ledger triage`: every node that is refused or suspicious now, grouped by cause.

#include <unistd.h>

#include <boost/json.hpp>
#include <charconv>
#include <cstdlib>

#include "replay/triage.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "Explains every name that is refused now, every name that was turned away since --since, and every name that\n"
    "shares its password with another one. The cause that concerns most nodes comes first: many at once is a\n"
    "matter of the server, not of the nodes. Names that strangers only claimed are in it, too.\n\n"
    "Examples:\n"
    "  ledger triage                                 the last 24 hours\n"
    "  ledger triage --since 7d                      a week; also 30m, 12h, a time (RFC 3339), or `ever`\n"
    "  ledger triage --format json | jq .counts\n\n"
    "Exit status: 0 done, whatever was found, 1 the log could not be read, 2 wrong usage.\n";

struct Arguments {
  std::string data_dir = kDefaultDataDir, since = "24h", format = "text";
};

// "30m", "24h", "7d", a time, or "ever".
Result<std::optional<Time>> parse_since(const std::string& text) {
  if (text == "ever") return std::optional<Time>();
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const std::int64_t seconds = unit == "m" ? 60 : unit == "h" ? 3600 : unit == "d" ? 86400 : 0;
  if (error == std::errc() && seconds != 0 && count > 0 && count <= 36'500)
    return std::optional<Time>(Time::now().plus_seconds(-count * seconds));
  const Result<Time> time = Time::parse(text);
  if (time) return std::optional<Time>(*time);
  return Error{Errc::invalid, "--since '" + printable(text, 40) +
                                  "' is not a span like 30m, 24h or 7d, not a time (RFC 3339), and not `ever`"};
}

int run(const Arguments& arguments) {
  const auto since = parse_since(arguments.since);
  if (!since) return fail(since.error()), 2;
  const auto log = EventLog::follow({.dir = std::filesystem::path(arguments.data_dir) / "events"});
  if (!log) return fail(log.error());
  replay::TriageOptions options;
  options.since = *since;
  ProgressLine progress("explaining");
  const Result<replay::Triage> found = replay::triage(**log, options, std::ref(progress));
  if (!found) return fail(found.error());
  const std::string text = arguments.format == "json" ? boost::json::serialize(replay::to_json(*found)) + "\n"
                                                      : replay::to_text(*found, style_of_terminal());
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace

void add_triage(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("triage", "Which nodes are refused now, grouped by cause");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--since", arguments->since, "Leave out names last refused before")->capture_default_str();
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
