// `ledger mode`: who decides, a k3s server behind this one or this one, and the change from one to the other.

#include <fmt/format.h>

#include <boost/json.hpp>

#include "api/operator_client.h"
#include "replay/readiness.h"
#include "replay/text.h"
#include "tools/commands.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;

constexpr const char* kFooter =
    "  observe   the k3s server behind this one decides; what it answers goes back byte for byte and is recorded\n"
    "  enforce   this server decides and signs; whatever is not registration is forwarded to k3s\n\n"
    "Without a word it says which one it is, since when, and which upstreams answer. A change is recorded\n"
    "(mode_changed) and needs no restart: registrations under way are finished as they were begun, those that "
    "come\n"
    "meanwhile wait, at most 5 s. docs/ADOPTION.md has the whole way in and back.\n\n"
    "Before enforce it looks at the records of the last days (--days): nodes that k3s admits and this server "
    "would\n"
    "refuse stop the change, unless --force; everything else is told.\n\n"
    "Examples:\n"
    "  ledger mode\n"
    "  ledger mode enforce --check                       only look: what would be different\n"
    "  ledger mode enforce --reason \"a week without disagreements\"\n"
    "  ledger mode observe --reason \"back to k3s\"         before it: ledger state export --format way-back\n\n"
    "Exit status: 0 done, or fit to be (--check); 1 refused or failed; 2 wrong usage.\n";

constexpr std::size_t kNamed = 20;
constexpr std::int64_t kDay_s = 86'400;

struct Arguments {
  std::string wanted, reason, actor, server, data_dir = kDefaultDataDir, format = "text";
  int days = 7;
  bool force = false, check = false;

  bool is_json() const { return format == "json"; }
};

std::string text_at(const json::object& object, const char* key) {
  const json::value* found = object.if_contains(key);
  if (found == nullptr || found->is_null()) return "";
  if (found->is_string()) return printable(std::string_view(found->get_string()), 400);
  return json::serialize(*found);
}

Result<api::OperatorClient> connect(const Arguments& arguments) {
  return api::OperatorClient::open(
      {.url = arguments.server, .data_dir = arguments.data_dir, .token_file = {}, .ca_file = {}});
}

Result<std::unique_ptr<EventLog>> follow(const Arguments& arguments) {
  return EventLog::follow({.dir = std::filesystem::path(arguments.data_dir) / "events"});
}

// ---- Which one it is -----------------------------------------------------------------------------------------

// Where no server runs: what the log says it will be.
Result<json::object> mode_in_log(const Arguments& arguments, const Error& no_server) {
  const auto log = follow(arguments);
  if (!log) return no_server;
  const Result<std::optional<Record>> newest = (*log)->newest(Kind::mode_changed);
  if (!newest) return newest.error();
  json::object mode{{"mode", "alone"}, {"upstreams", json::array()}, {"running", false}};
  if (!*newest) return mode;
  const auto* changed = as<ModeChanged>(**newest);
  mode["mode"] = changed->mode;
  mode["since"] = (*newest)->time.to_string();
  mode["since_seq"] = (*newest)->seq;
  mode["actor"] = changed->actor;
  return mode;
}

Result<json::object> present_mode(const Arguments& arguments) {
  Result<api::OperatorClient> client = connect(arguments);
  if (!client) return arguments.server.empty() ? mode_in_log(arguments, client.error()) : client.error();
  Result<json::object> mode = api::object_in(client->get("/ledger/v1/mode"));
  if (!mode && mode.error().code == Errc::unavailable && arguments.server.empty())
    return mode_in_log(arguments, mode.error());
  return mode;
}

const char* meaning_of(const std::string& mode) {
  if (mode == "observe") return "the k3s server behind this one decides, and it is written down";
  if (mode == "enforce") return "this server decides; what is not registration goes to k3s";
  return "no k3s server is behind this one; it decides";
}

void print_mode(const json::object& mode) {
  const std::string name = text_at(mode, "mode"), since = text_at(mode, "since"), actor = text_at(mode, "actor");
  fmt::print("mode {}: {}\n", name, meaning_of(name));
  if (!since.empty())
    fmt::print("  since      {} (record {}){}\n", since, text_at(mode, "since_seq"),
               actor.empty() ? "" : ", by " + actor);
  if (text_at(mode, "running") == "false")
    fmt::print("  no server runs on this data directory: this is what the log says\n");
  const json::value* upstreams = mode.if_contains("upstreams");
  if (upstreams == nullptr || !upstreams->is_array()) return;
  for (const json::value& value : upstreams->get_array()) {
    if (!value.is_object()) continue;
    const json::object& one = value.get_object();
    const bool answers = text_at(one, "answers") == "true";
    const std::string at = text_at(one, "since"), cause = text_at(one, "cause");
    fmt::print("  upstream   {}   {}{}{}\n", text_at(one, "url"), answers ? "answers" : "does NOT answer",
               at.empty() ? "" : " since " + at, cause.empty() ? "" : ": " + cause);
  }
}

int show(const Arguments& arguments) {
  const Result<json::object> mode = present_mode(arguments);
  if (!mode) return fail(mode.error());
  if (arguments.is_json())
    fmt::print("{}\n", json::serialize(*mode));
  else
    print_mode(*mode);
  return 0;
}

// ---- Before it decides ---------------------------------------------------------------------------------------

std::string named(const std::vector<std::string>& nodes) {
  std::string text;
  for (std::size_t i = 0; i < nodes.size() && i < kNamed; ++i)
    text += (i == 0 ? "" : ", ") + printable(nodes[i], 253);
  return text + (nodes.size() > kNamed ? fmt::format(" and {} more", nodes.size() - kNamed) : "");
}

json::object to_json(const replay::Readiness& readiness) {
  return {{"since", readiness.since.to_string()},
          {"bound", readiness.bound},
          {"disagreements", replay::to_json(readiness.compared)},
          {"settled", readiness.settled},
          {"strangers", json::value_from(readiness.strangers)},
          {"held", json::value_from(readiness.held)}};
}

void print_disagreements(const replay::Readiness& readiness, Disagreement which, const char* heading) {
  std::size_t count = 0;
  for (const replay::DisagreementEntry& one : readiness.compared.entries) {
    if (one.which != which || ++count > kNamed) continue;
    if (count == 1) fmt::print("{}\n", heading);
    fmt::print("  {:<32} {}: k3s {}, we {}; {} request(s), last in record {}\n",
               one.node.empty() ? "(no node)" : printable(one.node, 253), one.about, one.answered,
               printable(one.would_have, 40), one.requests, one.last);
  }
  if (count > kNamed) fmt::print("  and {} more: ledger triage --disagreements\n", count - kNamed);
}

void print_review(const replay::Readiness& readiness) {
  fmt::print(
      "looked at: records since {}; {} requests were judged by k3s and by this server; {} names are bound here\n",
      readiness.since.to_string(), readiness.compared.requests, readiness.bound);
  if (readiness.compared.requests == 0)
    fmt::print("nothing was compared: let it observe through some restarts of agents first\n");
  print_disagreements(readiness, Disagreement::upstream_admitted, "k3s admits, we would REFUSE:");
  print_disagreements(readiness, Disagreement::upstream_refused, "k3s refuses, we would admit:");
  if (readiness.settled > 0) fmt::print("{} difference(s) are settled\n", readiness.settled);
  if (!readiness.strangers.empty())
    fmt::print(
        "these live in the cluster, but never registered through here; whoever shows a password first gets\n"
        "the name, unless k3s' are taken over before (ledger import --help):\n  {}\n",
        named(readiness.strangers));
  if (!readiness.held.empty())
    fmt::print("held here: only the bound password gets in, no other: {}\n", named(readiness.held));
}

Result<replay::Readiness> review(const Arguments& arguments) {
  const auto log = follow(arguments);
  if (!log) return log.error();
  return replay::find_readiness(**log, Time::now().plus_seconds(-arguments.days * kDay_s));
}

// ---- The change ----------------------------------------------------------------------------------------------

Result<json::object> change(const Arguments& arguments) {
  Result<api::OperatorClient> client = connect(arguments);
  if (!client)
    return Error{client.error().code, client.error().message +
                                          "; a server is started in a mode with `ledger serve "
                                          "--upstream URL --mode " +
                                          arguments.wanted + "`"};
  const json::object body{{"mode", arguments.wanted}, {"reason", arguments.reason}, {"actor", arguments.actor}};
  return api::object_in(client->post("/ledger/v1/mode", json::serialize(body)));
}

void print_change(const json::object& done, const std::string& wanted) {
  const std::string seq = text_at(done, "seq");
  if (seq.empty()) return fmt::print("nothing to do: the mode is {}\n", wanted);
  fmt::print("{} -> {}: record {}, registrations waited {} ms\n", text_at(done, "from"), wanted, seq,
             text_at(done, "waited_ms"));
  if (wanted == "enforce")
    fmt::print(
        "back, at any time:\n"
        "  ledger state export --format way-back      what k3s must be told first\n"
        "  ledger mode observe --reason \"...\"\n");
  else
    fmt::print(
        "what k3s does not know of the time when this server decided: ledger state export --format way-back\n");
}

int switch_to(Arguments& arguments) {
  if (arguments.actor.empty()) arguments.actor = default_actor();
  json::object out;
  bool stop = false;
  if (arguments.wanted == "enforce" && arguments.server.empty()) {
    const Result<replay::Readiness> readiness = review(arguments);
    if (!readiness) return fail(readiness.error());
    if (!arguments.is_json()) print_review(*readiness);
    out["review"] = to_json(*readiness);
    stop = readiness->would_refuse() && !arguments.force;
  } else if (arguments.wanted == "enforce" && !arguments.is_json()) {
    fmt::print(
        "the records were not looked at: they are on the server's machine (there: ledger mode enforce --check)\n");
  }
  int status = stop ? 1 : 0;
  if (!stop && !arguments.check) {
    const Result<json::object> done = change(arguments);
    if (!done) return fail(done.error());
    if (!arguments.is_json()) print_change(*done, arguments.wanted);
    for (const auto& entry : *done) out[entry.key()] = entry.value();
  }
  if (arguments.is_json()) fmt::print("{}\n", json::serialize(out));
  if (stop && !arguments.is_json())
    return fail({Errc::conflict,
                 std::string(arguments.check ? "enforce would refuse" : "not changed: enforce would refuse") +
                     " nodes that k3s admits; ledger replay --node <name> says why, --force changes "
                     "the mode all the same"});
  return status;
}

}  // namespace

void add_mode(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("mode", "In front of a k3s server: who decides, it or this one");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  command->add_option("mode", arguments->wanted, "observe or enforce (default: say which one it is)")
      ->check(CLI::IsMember({"observe", "enforce"}));
  command->add_option("--reason", arguments->reason, "Why; becomes part of the record");
  command->add_option("--actor", arguments->actor, "Who (default: you@this-host)");
  command->add_flag("--check", arguments->check, "Only look at what enforce would do differently");
  command->add_flag("--force", arguments->force, "Although nodes that k3s admits would be refused");
  command->add_option("--days", arguments->days, "How many days of records are looked at")
      ->check(CLI::Range(1, 3650))
      ->capture_default_str();
  command->add_option("--server", arguments->server,
                      "Operators' API of a server elsewhere (token and CA: in --data-dir)");
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] {
    exit_code = arguments->wanted.empty() ? show(*arguments) : switch_to(*arguments);
  });
}

}  // namespace ledger::tools
