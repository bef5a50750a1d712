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
    "  ledger node show web-1                            one of them, and whether its machine is alive now\n"
    "  ledger node probe web-1                           does a kubelet answer on its machine? (through its tunnel)\n"
    "  ledger node accept web-1 --fingerprint 77e0c1 --reason \"VM rebuilt\"\n"
    "                                                    the next password web-1 may use is exactly this one\n"
    "  ledger node release web-1 --reason \"decommissioned\"\n"
    "                                                    the next password that is presented is bound\n"
    "  ledger node hold web-1 --reason \"under investigation\"\n"
    "                                                    nobody binds web-1 until an operator says so\n\n"
    "They talk to the running server of --data-dir over HTTPS with <data-dir>/cred/operator-token, or open the\n"
    "log themselves when no server runs (but whether a machine is alive only a running server knows).\n\n"
    "Exit status: 0 done, 1 refused or failed, or `probe` found no kubelet that answers; 2 wrong usage.\n";

constexpr const char* kProbeFooter =
    "The running server connects to 127.0.0.1:10250 on the agent's machine, through the tunnel that the agent keeps\n"
    "open; never to another port, and within 10 s. It presents no credential: any HTTP answer, 401 too, means that a\n"
    "kubelet is there, and its certificate says whether it is the one this server registered.\n\n"
    "Exit status: 0 it answers; 1 it does not, or no tunnel is open, or no server runs; 2 wrong usage.\n";

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

void print_tunnel(const char* label, const json::object& tunnel) {
  fmt::print("  {:<16} open since {} from {} (session {})\n", label, text_at(tunnel, {"since"}),
             text_at(tunnel, {"source"}), text_at(tunnel, {"session"}));
}

void print_alive(const json::object& node) {
  const json::object& alive = node.at("alive").get_object();
  const json::value* tunnels = alive.if_contains("tunnels");
  if (tunnels == nullptr || !tunnels->is_array()) {
    fmt::print("  {:<16} not known: {}\n", "alive", text_at(alive, {"why"}));
    return;
  }
  const std::size_t count = tunnels->get_array().size();
  if (count == 0) {
    fmt::print("  {:<16} no tunnel is open now: its agent does not run, or cannot reach this server;\n", "alive");
    fmt::print("  {:<16} its password was last verified {}\n", "", text_at(alive, {"verified", "time"}));
    return;
  }
  fmt::print("  {:<16} yes: {} open now\n", "alive", count == 1 ? "a tunnel is" : std::to_string(count) + " tunnels are");
  for (const json::value& tunnel : tunnels->get_array())
    if (tunnel.is_object()) print_tunnel("tunnel", tunnel.get_object());
}

void print_oddities(const json::object& node) {
  if (node.contains("weakness"))
    fmt::print("  {:<16} its password can be guessed; have the machine make a new one: remove\n"
               "  {:<16} /etc/rancher/node/password there, restart its agent, then `ledger node accept`\n",
               "beware", "");
  const json::value* others = node.if_contains("also_bound_to");
  if (others == nullptr || !others->is_array()) return;
  std::string names;
  for (const json::value& name : others->get_array())
    if (name.is_string()) names += (names.empty() ? "" : ", ") + std::string(name.get_string());
  fmt::print("  {:<16} the same password is used by {}: a copied disk, or a vendor's constant;\n"
             "  {:<16} give every machine its own\n",
             "beware", names, "");
}

void print_node(const json::object& node) {
  const std::string name = text_at(node, {"node"});
  fmt::print("node {}: {}\n", name, text_at(node, {"state"}));
  if (node.contains("bound"))
    fmt::print("  {:<16} {} since record {}\n", "bound to", short_fingerprint(node, {"bound", "fingerprint"}),
               text_at(node, {"bound", "since_seq"}));
  print_oddities(node);
  print_moment("last registered", node, "registered");
  print_moment("last refused", node, "rejected");
  fmt::print("  {:<16} {}\n", "refused since", text_at(node, {"rejections"}));
  print_alive(node);
  fmt::print("  why: ledger replay --node {}\n", name);
}

// What only the running server knows: {"now":true|false,"tunnels":[...]}, or {"now":null,"why":"..."}.
json::object ask_alive(const Arguments& arguments, const std::string& node) {
  const auto unknown = [](const std::string& why) { return json::object{{"now", nullptr}, {"why", why}}; };
  Result<api::OperatorClient> client =
      api::OperatorClient::open({.url = {}, .data_dir = arguments.data_dir, .token_file = {}, .ca_file = {}});
  if (!client) return unknown("only a running server knows: " + client.error().message);
  const Result<std::string> answer = client->get("/ledger/v1/nodes/" + node);
  if (!answer) return unknown("only a running server knows: " + answer.error().message);
  json::error_code error;
  const json::value value = json::parse(*answer, error);
  const json::value* alive = !error && value.is_object() ? value.get_object().if_contains("alive") : nullptr;
  if (alive == nullptr || !alive->is_object()) return unknown("the running server does not say");
  return alive->get_object();
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
  Result<json::object> node = replay::describe_node(**log, to_lower(arguments.node));
  if (!node) return fail(node.error());
  (*node)["alive"] = ask_alive(arguments, to_lower(arguments.node));
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(*node));
  else
    print_node(*node);
  return 0;
}

// What each outcome means, in a line or two.
std::string probe_meaning(const std::string& outcome, const std::string& detail) {
  if (outcome == "no_tunnel")
    return "no tunnel is open: its agent does not run, or cannot reach this server;\n"
           "  whether a kubelet runs there cannot be told from here";
  if (outcome == "refused")
    return "its agent is alive, but no kubelet listens on port 10250 there\n  the agent says: " + detail;
  if (outcome == "no_kubelet") return "its agent is alive; what listens on port 10250 is no kubelet\n  " + detail;
  if (outcome == "tunnel_ended")
    return "the tunnel ended while it was asked: " + detail +
           "\n  an agent that does not allow port 10250 ends it (a kubelet on another port?)";
  if (outcome == "passed_on") return "its agent is alive; " + detail;
  return "the tunnel is open, but nothing came back: " + detail +
         "\n  the agent hangs, or its machine vanished a moment ago; ask again in a minute";
}

void print_probe(const json::object& answer) {
  const std::string node = text_at(answer, {"node"}), outcome = text_at(answer, {"outcome"});
  if (outcome == "answers") {
    const bool trusted = text_at(answer, {"certificate", "trusted"}) == "true";
    fmt::print("{}: {} answers (HTTP {} to GET /healthz, {} ms)\n", node,
               trusted ? "a kubelet" : "something that may be a kubelet", text_at(answer, {"status"}),
               text_at(answer, {"took_ms"}));
  } else {
    fmt::print("{}: {}\n", node, probe_meaning(outcome, text_at(answer, {"detail"})));
  }
  if (const auto* tunnel = answer.if_contains("tunnel"); tunnel != nullptr && tunnel->is_object())
    print_tunnel("tunnel", tunnel->get_object());
  if (answer.contains("certificate")) {
    fmt::print("  {:<16} {}, serial {}, until {}\n", "certificate", text_at(answer, {"certificate", "subject"}),
               text_at(answer, {"certificate", "serial"}), text_at(answer, {"certificate", "not_after"}));
    const std::string distrust = text_at(answer, {"certificate", "distrust"});
    fmt::print("  {:<16} {}\n", "", distrust == "-" ? "signed by this server's CA for this node"
                                                    : "NOT one that this server issued for this node: " + distrust);
  }
}

int probe(const Arguments& arguments) {
  const Result<NodeName> node = NodeName::parse(arguments.node);
  if (!node) return fail(node.error());
  Result<api::OperatorClient> client =
      api::OperatorClient::open({.url = {}, .data_dir = arguments.data_dir, .token_file = {}, .ca_file = {}});
  if (!client)
    return fail({client.error().code, "only a running server holds the tunnel: " + client.error().message});
  const Result<json::object> answer =
      api::object_in(client->post("/ledger/v1/nodes/" + node->str() + "/probe", "{}"));
  if (!answer) return fail(answer.error());
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(*answer));
  else
    print_probe(*answer);
  return text_at(*answer, {"outcome"}) == "answers" ? 0 : 1;
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
  return api::seq_in(client->post("/ledger/v1/nodes/" + node.str() + "/" + verb, json::serialize(body)));
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
  CLI::App* probe_command =
      command->add_subcommand("probe", "Ask through a node's tunnel whether a kubelet answers on its machine");
  probe_command->footer(kProbeFooter);
  probe_command->add_option("node", arguments->node, "Node name")->required();
  add_reading(probe_command);
  probe_command->callback([arguments, &exit_code] { exit_code = probe(*arguments); });

  add_action(*command, "accept", "Bind a name to one password that was rejected for it", exit_code);
  add_action(*command, "release", "Free a name: the next password presented is bound", exit_code);
  add_action(*command, "hold", "Let nobody bind a name until an operator says so", exit_code);
}

}  // namespace ledger::tools
