#include <fmt/format.h>
#include <pwd.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "api/operator_client.h"
#include "ledger/operator.h"
#include "replay/node_summary.h"
#include "tools/commands.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;

constexpr const char* kFooter =
    "Examples:\n"
    "  ledger node list                                  every node and its state\n"
    "  ledger node show web-1                            one of them\n"
    "  ledger node accept web-1 --fingerprint 77e0c1 --reason \"VM rebuilt\"\n"
    "                                                    the next password web-1 may use is exactly this one\n"
    "  ledger node release web-1 --reason \"decommissioned\"\n"
    "                                                    the next password that is presented is bound\n"
    "  ledger node hold web-1 --reason \"under investigation\"\n"
    "                                                    nobody binds web-1 until an operator says so\n\n"
    "They talk to the running server of --data-dir over HTTPS with <data-dir>/cred/operator-token, or open the\n"
    "log themselves when no server runs.\n\n"
    "Exit status: 0 done, 1 refused or failed, 2 wrong usage.\n";

struct Arguments {
  std::string data_dir = kDefaultDataDir;
  std::string format = "text";
  std::string node, fingerprint, reason, actor;
  bool force = false;
};

std::string text_at(const json::object& object, std::initializer_list<const char*> path) {
  const json::object* at = &object;
  const json::value* found = nullptr;
  for (const char* key : path) {
    found = at == nullptr ? nullptr : at->if_contains(key);
    if (found == nullptr) return "-";
    at = found->is_object() ? &found->get_object() : nullptr;
  }
  if (found->is_string()) return printable(std::string_view(found->get_string()), 200);
  return json::serialize(*found);
}

std::string short_fingerprint(const json::object& node, std::initializer_list<const char*> path) {
  const std::string text = text_at(node, path);
  return text == "-" ? text : "#" + text.substr(0, 8);
}

void print_list(const json::array& nodes) {
  fmt::print("{:<32} {:<10} {:<10} {:>8} {:<20} {}\n", "NODE", "STATE", "BOUND TO", "REFUSED", "LAST REGISTERED",
             "FROM");
  for (const json::value& value : nodes) {
    const json::object& node = value.get_object();
    fmt::print("{:<32} {:<10} {:<10} {:>8} {:<20} {}\n", text_at(node, {"node"}), text_at(node, {"state"}),
               short_fingerprint(node, {"bound", "fingerprint"}), text_at(node, {"rejections"}),
               text_at(node, {"registered", "time"}).substr(0, 19), text_at(node, {"registered", "source"}));
  }
}

void print_moment(const char* label, const json::object& node, const char* key) {
  if (!node.contains(key)) return;
  fmt::print("  {:<16} {} from {} with {} (record {})\n", label, text_at(node, {key, "time"}),
             text_at(node, {key, "source"}), short_fingerprint(node, {key, "fingerprint"}), text_at(node, {key, "seq"}));
}

void print_node(const json::object& node) {
  const std::string name = text_at(node, {"node"});
  fmt::print("node {}: {}\n", name, text_at(node, {"state"}));
  if (node.contains("bound"))
    fmt::print("  {:<16} {} since record {}\n", "bound to", short_fingerprint(node, {"bound", "fingerprint"}),
               text_at(node, {"bound", "since_seq"}));
  print_moment("last registered", node, "registered");
  print_moment("last refused", node, "rejected");
  fmt::print("  {:<16} {}\n", "refused since", text_at(node, {"rejections"}));
  fmt::print("  why: ledger replay --node {}\n", name);
}

Result<std::unique_ptr<EventLog>> follow(const Arguments& arguments) {
  return EventLog::follow({.dir = std::filesystem::path(arguments.data_dir) / "events"});
}

int list(const Arguments& arguments) {
  const auto log = follow(arguments);
  if (!log) return fail(log.error());
  const Result<json::array> nodes = replay::list_nodes(**log);
  if (!nodes) return fail(nodes.error());
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(*nodes));
  else
    print_list(*nodes);
  return 0;
}

int show(const Arguments& arguments) {
  const auto log = follow(arguments);
  if (!log) return fail(log.error());
  const Result<json::object> node = replay::describe_node(**log, to_lower(arguments.node));
  if (!node) return fail(node.error());
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(*node));
  else
    print_node(*node);
  return 0;
}

Result<Seq> act_on_log(Ledger& ledger, const NodeName& node, const std::string& verb, const Arguments& arguments) {
  const OperatorAction action{.actor = arguments.actor,
                              .reason = arguments.reason,
                              .force = arguments.force,
                              .request_id = {},
                              .source = {}};
  Result<Committed> done = verb == "accept"    ? accept_fingerprint(ledger, node, arguments.fingerprint, action)
                           : verb == "release" ? release_binding(ledger, node, action)
                                               : hold_name(ledger, node, action);
  if (!done) return done.error();
  if (const Result<void> closed = ledger.close(); !closed) return closed.error();
  return done->last();
}

Result<Seq> act_on_server(const NodeName& node, const std::string& verb, const Arguments& arguments) {
  Result<api::OperatorClient> client =
      api::OperatorClient::open({.url = {}, .data_dir = arguments.data_dir, .token_file = {}, .ca_file = {}});
  if (!client) return client.error();
  json::object body = {{"actor", arguments.actor}, {"reason", arguments.reason}, {"force", arguments.force}};
  if (verb == "accept") body["fingerprint"] = arguments.fingerprint;
  const Result<std::string> answer = client->post("/ledger/v1/nodes/" + node.str() + "/" + verb, json::serialize(body));
  if (!answer) return answer.error();
  json::error_code error;
  const json::value value = json::parse(*answer, error);
  const json::value* seq = !error && value.is_object() ? value.get_object().if_contains("seq") : nullptr;
  if (seq == nullptr || !seq->is_int64()) return Error{Errc::io, "the server's answer cannot be read"};
  return static_cast<Seq>(seq->get_int64());
}

int act(const std::string& verb, Arguments& arguments) {
  const Result<NodeName> node = NodeName::parse(arguments.node);
  if (!node) return fail(node.error());
  if (arguments.actor.empty()) arguments.actor = default_actor();
  Ledger::Options options;
  options.log.dir = std::filesystem::path(arguments.data_dir) / "events";
  options.log.create = false;
  options.server_name = "command-line";
  Result<std::unique_ptr<Ledger>> ledger = Ledger::open(std::move(options));
  const bool served = !ledger && ledger.error().code == Errc::locked;
  if (!ledger && !served) return fail(ledger.error());
  const Result<Seq> seq =
      served ? act_on_server(*node, verb, arguments) : act_on_log(**ledger, *node, verb, arguments);
  if (!seq) return fail(seq.error());
  if (arguments.format == "json") {
    fmt::print("{}\n", json::serialize(json::object{{"node", node->str()}, {"action", verb}, {"seq", *seq}}));
  } else {
    const char* then = verb == "accept"    ? "its machine joins at its next try"
                       : verb == "release" ? "the next password presented for it is bound"
                                           : "nobody binds it until `ledger node release` or `accept`";
    fmt::print("{} {}: record {}; {}\n", verb == "hold" ? "held" : verb == "accept" ? "accepted" : "released", node->str(), *seq, then);
  }
  return 0;
}

void add_action(CLI::App& parent, const std::string& verb, const char* help, int& exit_code) {
  CLI::App* command = parent.add_subcommand(verb, help);
  auto arguments = std::make_shared<Arguments>();
  command->add_option("node", arguments->node, "Node name")->required();
  if (verb == "accept")
    command->add_option("--fingerprint", arguments->fingerprint,
                        "Of the rejected password, whole or its first digits (ledger replay shows it)")
        ->required();
  command->add_option("--reason", arguments->reason, "Why; becomes part of the node's history")->required();
  command->add_option("--actor", arguments->actor, "Who (default: you@this-host)");
  if (verb != "hold") command->add_flag("--force", arguments->force, "Although the holder seems to be alive");
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--format", arguments->format)->check(CLI::IsMember({"text", "json"}))->capture_default_str();
  command->callback([arguments, verb, &exit_code] { exit_code = act(verb, *arguments); });
}

}  // namespace

std::string default_actor() {
  const char* user = std::getenv("SUDO_USER");
  if (user == nullptr || *user == '\0') {
    const passwd* entry = getpwuid(getuid());
    user = entry != nullptr ? entry->pw_name : "unknown";
  }
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  return std::string(user) + "@" + host;
}

Result<std::string> fetch_node_history(const std::string& server_url, const std::string& data_dir,
                                       const std::string& node) {
  Result<api::OperatorClient> client =
      api::OperatorClient::open({.url = server_url, .data_dir = data_dir, .token_file = {}, .ca_file = {}});
  if (!client) return client.error();
  return client->get("/ledger/v1/nodes/" + node + "/history");
}

void add_node(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("node", "List nodes; accept, release or hold a name");
  command->footer(kFooter);
  command->require_subcommand(1);

  auto arguments = std::make_shared<Arguments>();
  const auto add_reading = [&](CLI::App* reading) {
    reading->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
    reading->add_option("--format", arguments->format)->check(CLI::IsMember({"text", "json"}))->capture_default_str();
  };
  CLI::App* list_command = command->add_subcommand("list", "Every node the ledger knows");
  add_reading(list_command);
  list_command->callback([arguments, &exit_code] { exit_code = list(*arguments); });
  CLI::App* show_command = command->add_subcommand("show", "One node");
  show_command->add_option("node", arguments->node, "Node name")->required();
  add_reading(show_command);
  show_command->callback([arguments, &exit_code] { exit_code = show(*arguments); });

  add_action(*command, "accept", "Bind a name to one password that was rejected for it", exit_code);
  add_action(*command, "release", "Free a name: the next password presented is bound", exit_code);
  add_action(*command, "hold", "Let nobody bind a name until an operator says so", exit_code);
}

}  // namespace ledger::tools
