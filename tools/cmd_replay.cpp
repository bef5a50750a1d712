// `ledger replay`: never modifies anything, shows what it could not read, says when it does not know.

#include <algorithm>
#include <boost/json.hpp>
#include <cctype>
#include <fstream>
#include <iostream>

#include "replay/agent_match.h"
#include "replay/explain.h"
#include "replay/render.h"
#include "tools/commands.h"
#include "tools/follow_refusals.h"
#include "tools/history_source.h"

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
    "  ledger replay --node web-1 --since 24h                      the last day only\n"
    "  ledger replay --seq 8991                                    from Ledger-Seq in an agent's or a proxy's log\n"
    "  ledger replay --request-id 3f5c0a91d2e84b76                 the same from Ledger-Request-Id\n"
    "  journalctl -u k3s-agent -o short-iso | ledger replay --agent-log -\n"
    "                                                              what the agent's lines stand for, and why\n"
    "  ledger replay --follow                                      every new refusal explained as it comes\n"
    "  ledger replay --follow --node web-1 --format json           one node's, one document per line\n"
    "  ledger replay --node web-1 --input history.jsonl            from an export, or written by hand "
    "(docs/EVENTS.md)\n"
    "  ledger export --node web-1 | ledger replay --node web-1 --input -\n"
    "  ledger replay --node web-1 --server https://10.0.0.1:6443   from a running server\n"
    "  ledger replay --node web-1 --format json | jq .cause\n"
    "  ledger replay --node web-1 --format html > web-1.html       the same with a drawn timeline, for a browser; "
    "one\n"
    "                                                              file, no scripts, loads nothing\n\n"
    "--since and --until limit what is told: the timeline, and which refusals are explained. Everything before --since\n"
    "is still folded, so that the state, the cause and its evidence stay right; after --until (or --at, the same) nothing\n"
    "is looked at.\n"
    "--seq and --request-id answer as of the records of that request; with --node, for that node.\n"
    "--agent-log takes the journal of k3s and RKE2 agents of every generation as journalctl prints it (also -o short-iso,\n"
    "-o json, Docker's JSON lines, bare logrus text). Its lines are matched to records by time, node and sentence, and the\n"
    "distance between the two clocks is estimated and told. Without --node the log has to tell the node's name. What no\n"
    "record stands behind is said, and what the ledger refused meanwhile without a line, too.\n"
    "--follow works beside a running server and on a stopped one, and ends with SIGINT, or when nobody reads any more. A\n"
    "refusal that repeats is a line. It begins with what comes now, or with --since.\n\n"
    "Exit status: 0 there is an answer (UNKNOWN is one), 1 the history could not be read, 2 wrong usage.\n";

struct Arguments {
  HistorySource::Options from{.data_dir = kDefaultDataDir, .input = {}, .server = {}};
  std::string node, at, since, until, request_id, agent_log, format = "text";
  Seq seq = 0;
  bool follow = false;
};

struct Cuts {
  replay::Cut at, since;
};

// What is wrong with the arguments together; nullopt: nothing.
std::optional<std::string> misuse(const Arguments& arguments) {
  const bool looks_up = arguments.seq != 0 || !arguments.request_id.empty();
  if (arguments.node.empty() && !looks_up && arguments.agent_log.empty() && !arguments.follow)
    return "say what to explain: --node, --seq, --request-id, --agent-log or --follow";
  const bool from_elsewhere = !arguments.from.input.empty() || !arguments.from.server.empty();
  if (arguments.follow && (from_elsewhere || looks_up || !arguments.agent_log.empty() || !arguments.at.empty() ||
                           !arguments.until.empty()))
    return "--follow goes with --data-dir, --node, --since and --format only";
  if (looks_up && !arguments.agent_log.empty()) return "--agent-log does not go with --seq or --request-id";
  if (arguments.agent_log == "-" && arguments.from.input == "-")
    return "standard input can be the agent's log or the history, not both";
  if (arguments.format != "text" && arguments.format != "json" && (arguments.follow || !arguments.agent_log.empty()))
    return "--follow and --agent-log print text or json";
  return std::nullopt;
}

Result<Cuts> cuts_of(const Arguments& arguments) {
  Cuts cuts;
  for (const auto& [option, text, cut] : {std::tuple("--at", &arguments.at, &cuts.at),
                                          std::tuple("--until", &arguments.until, &cuts.at),
                                          std::tuple("--since", &arguments.since, &cuts.since)}) {
    if (text->empty()) continue;
    const Result<replay::Cut> parsed = replay::Cut::parse(*text, Time::now());
    if (!parsed) return Error{Errc::invalid, std::string(option) + ": " + parsed.error().message};
    *cut = *parsed;
  }
  return cuts;
}

Result<replay::AgentLog> read_journal(const std::string& path) {
  if (path == "-") return replay::read_agent_log(std::cin);
  std::error_code error;
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path, error))
    return Error{Errc::not_found, "cannot read the agent's log " + printable(path, 200) +
                                      "; check the name and the permissions of the file"};
  return replay::read_agent_log(file);
}

// What is asked, as far as it has to be found out: the node, and what stands before its explanation.
struct Question {
  std::string node;
  replay::Cut at;
  std::optional<replay::LookedUp> looked_up;
  std::optional<replay::AgentLog> journal;
};

Result<void> ask_for_request(const Arguments& arguments, HistorySource& source, Question& question) {
  replay::Lookup asked;
  if (arguments.seq != 0) asked.seq = arguments.seq;
  asked.request_id = arguments.request_id;
  Result<replay::LookedUp> found = source.look_up(asked);
  if (!found) return found.error();
  if (found->named && !question.node.empty() && to_lower(question.node) != found->nodes.front())
    return Error{Errc::invalid, "that request was about " + printable(found->nodes.front(), 253) + ", not about " +
                                    printable(question.node, 253)};
  if (question.node.empty() && found->nodes.size() == 1) question.node = found->nodes.front();
  if (!question.at.seq && !question.at.time) question.at.seq = found->records.back().seq;
  question.looked_up = std::move(*found);
  return {};
}

Result<void> ask_for_journal(const Arguments& arguments, Question& question) {
  Result<replay::AgentLog> journal = read_journal(arguments.agent_log);
  if (!journal) return journal.error();
  if (journal->read == 0) return Error{Errc::invalid, "the agent's log is empty"};
  if (question.node.empty()) question.node = journal->node;
  if (question.node.empty())
    return Error{Errc::invalid, "the agent's log does not tell the node's name; name it with --node"};
  question.journal = std::move(*journal);
  return {};
}

// A name that only the journal's host tells may lack what --with-node-id adds.
void hint_at_names(const Question& question, const HistorySource& source, const replay::Explanation& explanation) {
  if (!question.journal || explanation.as_of_seq != 0 || explanation.timeline.lives != 0) return;
  const std::vector<std::string> names = source.names_like(to_lower(question.node));
  for (const std::string& name : names)
    std::fprintf(stderr, "ledger: the log does not know %s, but %s; is it that one? (--node)\n",
                 printable(question.node, 253).c_str(), printable(name, 253).c_str());
}

std::string rendered(const replay::Explanation& explanation, const std::string& format) {
  if (format == "json") return boost::json::serialize(replay::to_json(explanation)) + "\n";
  if (format == "html") return replay::to_html(explanation);
  return replay::to_text(explanation, style_of_terminal());
}

int print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

// A request that leads to no node, or to several.
int print_request(const Arguments& arguments, const replay::LookedUp& found) {
  if (arguments.format == "json") return print(boost::json::serialize(replay::to_json(found)) + "\n");
  return print(replay::to_text(found) + (found.nodes.empty() ? "" : "explain one of them with --node\n"));
}

int answer(const Arguments& arguments, const Question& question, const Cuts& cuts, HistorySource& source) {
  const Result<replay::History> history = source.history(question.node, question.at);
  if (!history) return fail(history.error());
  replay::Explanation explanation = replay::explain(*history);
  replay::tell_since(cuts.since, explanation);
  hint_at_names(question, source, explanation);
  if (!question.looked_up && !question.journal) return print(rendered(explanation, arguments.format));

  std::optional<replay::AgentMatch> matched;
  std::vector<Record> nameless;
  if (question.journal) {
    Result<std::vector<Record>> read = source.nameless(*question.journal);
    if (!read) return fail(read.error());
    nameless = std::move(*read);
    matched = replay::match(*question.journal, *history, nameless);
  }
  if (arguments.format == "json") {
    boost::json::object out = replay::to_json(explanation);
    if (question.looked_up) out["asked"] = replay::to_json(*question.looked_up);
    if (matched) out["agent_log"] = replay::to_json(*matched);
    return print(boost::json::serialize(out) + "\n");
  }
  const std::string before = arguments.format != "text"  ? ""
                             : question.looked_up        ? replay::to_text(*question.looked_up) + "\n"
                                                         : replay::to_text(*matched, style_of_terminal());
  return print(before + rendered(explanation, arguments.format));
}

int run(const Arguments& arguments) {
  if (const auto wrong = misuse(arguments)) return fail({Errc::invalid, *wrong}), 2;
  if (arguments.follow)
    return follow_refusals({arguments.from.data_dir, arguments.node, arguments.since, arguments.format});
  const Result<Cuts> cuts = cuts_of(arguments);
  if (!cuts) return fail(cuts.error()), 2;
  Result<HistorySource> source = HistorySource::open(arguments.from);
  if (!source) return fail(source.error());
  Question question{.node = arguments.node, .at = cuts->at, .looked_up = {}, .journal = {}};
  if (arguments.seq != 0 || !arguments.request_id.empty())
    if (const Result<void> asked = ask_for_request(arguments, *source, question); !asked) return fail(asked.error());
  if (!arguments.agent_log.empty())
    if (const Result<void> asked = ask_for_journal(arguments, question); !asked) return fail(asked.error());
  if (question.node.empty()) return print_request(arguments, *question.looked_up);
  return answer(arguments, question, *cuts, *source);
}

}  // namespace

void add_replay(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("replay", "Why is a node refused (or not), and what to do about it");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--node", arguments->node, "Node name");
  command->add_option("--data-dir", arguments->from.data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--archives", arguments->from.archives, kArchivesHelp);
  CLI::Option* input =
      command->add_option("--input", arguments->from.input, "A JSON Lines file instead, - for standard input");
  command->add_option("--server", arguments->from.server, "Ask a running server instead, https://host:port")
      ->excludes(input);
  CLI::Option* at = command->add_option(
      "--at", arguments->at, "Look no further than this time (RFC 3339), record number, or 30m, 24h, 7d ago");
  command->add_option("--until", arguments->until, "The same as --at")->excludes(at);
  command->add_option("--since", arguments->since, "Tell nothing that was before this (likewise)");
  CLI::Option* seq = command->add_option("--seq", arguments->seq, "The request of this record (Ledger-Seq of a reply)")
                         ->check(CLI::PositiveNumber);
  command->add_option("--request-id", arguments->request_id, "The request with this Ledger-Request-Id")
      ->check(CLI::Validator([](const std::string& text) {
        const bool fits = !text.empty() && text.size() <= 64 &&
                          std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) || c == '-'; });
        return fits ? std::string() : std::string("a request id is made of letters, digits and '-'");
      }, ""))
      ->excludes(seq);
  command->add_option("--agent-log", arguments->agent_log, "An agent's journal, - for standard input");
  command->add_flag("--follow", arguments->follow, "Explain new refusals as they come, until stopped");
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json", "html"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
