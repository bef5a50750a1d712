// `ledger replay`: never modifies anything, shows what it could not read, says when it does not know.

#include <boost/json.hpp>
#include <sstream>

#include "replay/explain.h"
#include "replay/render.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "Reads the history of one node (its own records, other nodes' use of its passwords, refusals from its\n"
    "addresses, what happened to the server) and says what state it is in, why, what speaks for that, what cannot\n"
    "be ruled out, and what to do, safest first. It never changes anything. Where the evidence does not decide,\n"
    "it says UNKNOWN and what is missing.\n\n"
    "Examples:\n"
    "  ledger replay --node web-1                                  from the log in /var/lib/ledger, server running "
    "or not\n"
    "  ledger replay --node web-1 --at 2024-06-11T07:05:00Z        what it would have said then\n"
    "  ledger replay --node web-1 --at 8991                        ... after record 8991\n"
    "  ledger replay --node web-1 --input history.jsonl            from an export, or written by hand "
    "(docs/EVENTS.md)\n"
    "  ledger export --node web-1 | ledger replay --node web-1 --input -\n"
    "  ledger replay --node web-1 --server https://10.0.0.1:6443   from a running server\n"
    "  ledger replay --node web-1 --format json | jq .cause\n"
    "  ledger replay --node web-1 --format html > web-1.html       the same with a drawn timeline, for a browser; "
    "one\n"
    "                                                              file, no scripts, loads nothing\n\n"
    "Exit status: 0 there is an answer (UNKNOWN is one), 1 the history could not be read, 2 wrong usage.\n";

struct Arguments {
  std::string node, data_dir = kDefaultDataDir, input, server, at, format = "text";
};

Result<replay::History> read_history(const Arguments& arguments, const replay::Cut& at) {
  if (!arguments.input.empty()) {
    ProgressLine progress("reading " + printable(arguments.input, 60));
    return replay::history_from_jsonl(arguments.input, arguments.node, at, std::ref(progress));
  }
  if (!arguments.server.empty()) {
    const Result<NodeName> node = NodeName::parse(arguments.node);
    if (!node) return node.error();
    const Result<std::string> lines = fetch_node_history(arguments.server, arguments.data_dir, node->str());
    if (!lines) return lines.error();
    std::istringstream stream(*lines);
    return replay::history_from_stream(stream, node->str(), at);
  }
  const auto log = EventLog::follow({.dir = std::filesystem::path(arguments.data_dir) / "events"});
  if (!log) return log.error();
  return replay::history_from_log(**log, arguments.node, at);
}

std::string rendered(const replay::Explanation& explanation, const std::string& format) {
  if (format == "json") return boost::json::serialize(replay::to_json(explanation)) + "\n";
  if (format == "html") return replay::to_html(explanation);
  return replay::to_text(explanation, style_of_terminal());
}

int run(const Arguments& arguments) {
  replay::Cut at;
  if (!arguments.at.empty()) {
    const Result<replay::Cut> parsed = replay::Cut::parse(arguments.at);
    if (!parsed) return fail({Errc::invalid, "--at: " + parsed.error().message}), 2;
    at = *parsed;
  }
  const Result<replay::History> history = read_history(arguments, at);
  if (!history) return fail(history.error());
  const replay::Explanation explanation = replay::explain(*history);
  const std::string text = rendered(explanation, arguments.format);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace

void add_replay(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("replay", "Why is a node refused (or not), and what to do about it");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--node", arguments->node, "Node name")->required();
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  CLI::Option* input =
      command->add_option("--input", arguments->input, "A JSON Lines file instead, - for standard input");
  command->add_option("--server", arguments->server, "Ask a running server instead, https://host:port")
      ->excludes(input);
  command->add_option("--at", arguments->at, "Look no further than this time (RFC 3339) or record number");
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json", "html"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
