#include <fmt/format.h>

#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "api/operator_client.h"
#include "api/token_action.h"
#include "ledger/credentials.h"
#include "replay/token_summary.h"
#include "tools/commands.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;

constexpr const char* kFooter =
    "Examples:\n"
    "  ledger token show                      the token for agents, as k3s writes it: K10<ca hash>::node:<password>\n"
    "  ledger token list                      every token that lets somebody in, and who made it\n"
    "  ledger token create --class bootstrap --ttl 24h --description \"rack 7\"\n"
    "                                         for a batch of machines; agents from k3s v1.26.2 take it as --token\n"
    "  ledger token rotate agent --grace 24h  a new join token; the old one is good for another day\n"
    "  ledger token revoke 3f9a1c             ends one at once and for good\n\n"
    "They talk to the running server of --data-dir over HTTPS with <data-dir>/cred/operator-token, or open the\n"
    "log themselves when no server runs. `ledger <verb> --help` has more.\n";

constexpr const char* kShowFooter =
    "Examples:\n"
    "  ledger token show                      the token for agents, as k3s writes it: K10<ca hash>::node:<password>\n"
    "  ledger token show --class server       the token for servers\n"
    "  k3s agent --server https://10.0.0.1:6443 --token-file <(ledger token show)\n\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

constexpr const char* kCreateFooter =
    "Classes:\n"
    "  agent       joins agents, beside the token of the server's files (ledger token show)\n"
    "  server      the same for servers; agents may use it while they have no token of their own\n"
    "  bootstrap   <id>.<secret>, kubeadm's form, for agents of k3s v1.26.2 and later; 24h unless --ttl says else\n"
    "  operator    for this machine's API, /ledger/v1: --role read may look, operate may change\n\n"
    "The secret is printed once and stored nowhere: the log keeps its fingerprint.\n"
    "  ledger token create --class bootstrap --ttl 2h --format json | jq -r .join > join-token\n"
    "  ledger token create --class operator --role read --ttl 90d --description \"monitoring\"\n\n"
    "Exit status: 0 created, 1 refused or failed, 2 wrong usage.\n";

constexpr const char* kListFooter =
    "A token whose grace period runs is shown with who still uses it: those machines have the old secret. `file`\n"
    "stands by the tokens of the server's own files (cred/passwd with token, node-token and agent-token;\n"
    "cred/operator-token). A revoked one of them admits nobody, whatever the file says.\n"
    "For every use of one token: ledger export | grep '\"token\":\"<id>\"'\n";

constexpr const char* kRotateFooter =
    "  ledger token rotate agent --grace 24h --reason \"yearly\"\n"
    "                               agents keep joining with the old secret for a day; `token list` names them\n"
    "  ledger token rotate server   servers; agents as well while they share one token\n"
    "  ledger token rotate operator cred/operator-token\n"
    "  ledger token rotate 3f9a1c   one that was created\n\n"
    "A class means the token of the server's files, which are rewritten (token, node-token, agent-token,\n"
    "cred/passwd; cred/operator-token). A server that was started with --token or --token-file takes the secret from\n"
    "there again at its next start: change that, too. A leaked token: rotate, hand out, revoke the old one.\n\n"
    "Exit status: 0 rotated, 1 refused or failed, 2 wrong usage.\n";

constexpr const char* kRevokeFooter =
    "  ledger token revoke 3f9a1c4b2d5e --reason \"leaked in a build log\"\n\n"
    "When the command says `revoked`, no request with that secret is accepted any more, in a grace period or not, and\n"
    "no start, option or restored file brings it back. Nodes that have joined keep their certificates.\n\n"
    "Exit status: 0 revoked, 1 refused or failed, 2 wrong usage.\n";

struct Arguments {
  std::string data_dir = kDefaultDataDir;
  std::string format = "text";
  std::string token_class, which, ttl, grace, description, role, reason, actor, secret_file;
  bool force = false, all = false;
};

int show(const std::string& data_dir, const std::string& token_class) {
  const std::filesystem::path file =
      std::filesystem::path(data_dir) / (token_class == "server" ? "token" : "agent-token");
  const Result<std::string> text = read_file(file, 8192);
  if (!text)
    return fail({text.error().code, "cannot read " + file.string() + " (" + text.error().message +
                                        "); start the server once, or run as the owner of --data-dir"});
  std::string token(trim(*text));
  // Without a token of their own agents use the server's, under their own user.
  if (token_class == "agent")
    if (const auto user = token.find("::server:"); user != std::string::npos) token.replace(user, 9, "::node:");
  std::printf("%s\n", token.c_str());
  return 0;
}

// ---- list ------------------------------------------------------------------------------------------------

std::string text_at(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr) return "";
  return value->is_string() ? printable(std::string_view(value->get_string()), 200) : json::serialize(*value);
}

bool is_set(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_bool() && value->get_bool();
}

// "2026-11-23 07:40Z" of an RFC 3339 time.
std::string minute_of(const std::string& time) {
  return time.size() < 16 ? time : time.substr(0, 10) + " " + time.substr(11, 5) + "Z";
}

std::string end_of(const json::object& token) {
  if (const json::value* grace = token.if_contains("grace_ends"); grace != nullptr && is_set(token, "accepted"))
    return minute_of(std::string(grace->as_string()));
  if (const json::value* ended = token.if_contains("ended"); ended != nullptr && !is_set(token, "accepted"))
    return minute_of(text_at(ended->as_object(), "time"));
  const std::string expires = text_at(token, "expires");
  return expires.empty() ? "never" : minute_of(expires);
}

void print_users(const json::object& used) {
  std::string from;
  for (const json::value& who : used.at("from").as_array())
    from += (from.empty() ? "" : ", ") + std::string(std::string_view(who.as_string()));
  fmt::print("  still used {} times{}{}{}\n", text_at(used, "count"),
             used.contains("last") ? ", last " + minute_of(text_at(used, "last")) : "",
             from.empty() ? "" : ", by: " + from,
             used.contains("looked_from") ? " (since record " + text_at(used, "looked_from") + ")" : "");
}

void print_list(const json::array& tokens, bool all) {
  fmt::print("{:<13} {:<17} {:<11} {:<18} {:<4} {:<18} {}\n", "TOKEN", "CLASS", "STATE", "ENDS", "IN", "CREATED", "BY");
  for (const json::value& value : tokens) {
    const json::object& token = value.get_object();
    if (!all && !is_set(token, "accepted") && !is_set(token, "file")) continue;
    const json::object& created = token.at("created").as_object();
    const std::string role = text_at(token, "role");
    fmt::print("{:<13} {:<17} {:<11} {:<18} {:<4} {:<18} {}\n", text_at(token, "id"),
               text_at(token, "class") + (role.empty() ? "" : ":" + role), text_at(token, "status"), end_of(token),
               is_set(token, "file") ? "file" : "log", minute_of(text_at(created, "time")), text_at(created, "actor"));
    if (token.contains("description")) fmt::print("  {}\n", text_at(token, "description"));
    if (const json::value* ended = token.if_contains("ended"); ended != nullptr && !is_set(token, "accepted"))
      fmt::print("  {} by {} (record {}){}\n", text_at(token, "status"), text_at(ended->as_object(), "actor"),
                 text_at(ended->as_object(), "seq"),
                 is_set(token, "file") ? "; the file still holds it, and it admits nobody" : "");
    if (token.contains("replaced_by") && is_set(token, "accepted"))
      fmt::print("  replaced by {}; accepted until its grace period ends\n", text_at(token, "replaced_by"));
    if (const json::value* used = token.if_contains("used")) print_users(used->as_object());
  }
}

int list(const Arguments& arguments) {
  const auto log = EventLog::follow({.dir = std::filesystem::path(arguments.data_dir) / "events"});
  if (!log) return fail(log.error());
  const Result<json::array> tokens = replay::list_tokens(**log, Time::now());
  if (!tokens) return fail(tokens.error());
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(*tokens));
  else
    print_list(*tokens, arguments.all);
  return 0;
}

// ---- create, rotate, revoke ------------------------------------------------------------------------------

Result<json::object> body_of(const std::string& verb, const Arguments& arguments) {
  json::object body = {{"actor", arguments.actor.empty() ? default_actor() : arguments.actor},
                       {"reason", arguments.reason}};
  const auto give = [&](const char* key, const std::string& text) {
    if (!text.empty()) body[key] = text;
  };
  if (verb == "revoke") {
    body["force"] = arguments.force;
    return body;
  }
  give("ttl", arguments.ttl);
  give("grace", arguments.grace);
  give("class", arguments.token_class);
  give("description", arguments.description);
  give("role", arguments.role);
  if (arguments.secret_file.empty()) return body;
  const Result<std::string> secret = read_file(arguments.secret_file, 8192);
  if (!secret) return secret.error();
  if (trim(*secret).empty()) return Error{Errc::invalid, "--secret-file " + arguments.secret_file + " is empty"};
  body["secret"] = trim(*secret);
  return body;
}

Result<json::object> act_on_log(Ledger& ledger, const std::string& verb, const Arguments& arguments,
                                const json::object& body) {
  if (const Result<void> settled = settle_rotations(ledger, arguments.data_dir); !settled) return settled.error();
  const Result<Credentials> credentials =
      Credentials::open({.data_dir = arguments.data_dir, .token = {}, .agent_token = {}, .log_exists = true});
  if (!credentials) return credentials.error();
  const auto warnings = note_file_tokens(ledger, *credentials, "ledger token");
  if (!warnings) return warnings.error();
  for (const std::string& warning : *warnings) fmt::print(stderr, "ledger: {}\n", warning);
  Result<json::object> done = api::token_action(ledger, *credentials, verb, arguments.which, body, "", "");
  if (!done) return done;
  if (const Result<void> closed = ledger.close(); !closed) return closed.error();
  return done;
}

Result<json::object> act_on_server(const std::string& verb, const Arguments& arguments, const json::object& body) {
  Result<api::OperatorClient> client =
      api::OperatorClient::open({.url = {}, .data_dir = arguments.data_dir, .token_file = {}, .ca_file = {}});
  if (!client) return client.error();
  const std::string path =
      verb == "create" ? "/ledger/v1/tokens" : "/ledger/v1/tokens/" + printable(arguments.which, 64) + "/" + verb;
  return api::object_in(client->post(path, json::serialize(body)));
}

void print_made(const json::object& made) {
  const std::string what = is_set(made, "both") ? "agents' and servers'" : text_at(made, "class");
  const std::string expires = text_at(made, "expires");
  fmt::print("{} token {}{}, record {}, {}\n", what, text_at(made, "id"),
             made.contains("replaces") ? " instead of " + text_at(made, "replaces") : "", text_at(made, "seq"),
             expires.empty() ? "does not expire" : "good until " + minute_of(expires));
  if (made.contains("grace_ends"))
    fmt::print("the old one is accepted until {}; `ledger token list` shows who still uses it\n",
               minute_of(text_at(made, "grace_ends")));
  else if (made.contains("replaces"))
    fmt::print("the old one is refused from now on\n");
  if (is_set(made, "file")) fmt::print("the server's files hold the new one\n");
  fmt::print("shown once:\n{}\n", std::string(made.at("join").as_string()));
}

void print_revoked(const json::object& revoked) {
  fmt::print("revoked {}: record {}; nothing is accepted with its secret any more\n", text_at(revoked, "id"),
             text_at(revoked, "seq"));
  if (!is_set(revoked, "file")) return;
  const std::string token_class(revoked.at("classes").as_array().front().as_string());
  fmt::print("the server's files still hold it; `ledger token rotate {}` makes a new one\n", token_class);
}

int act(const std::string& verb, const Arguments& arguments) {
  const Result<json::object> body = body_of(verb, arguments);
  if (!body) return fail(body.error());
  Ledger::Options options;
  options.log.dir = std::filesystem::path(arguments.data_dir) / "events";
  options.log.create = false;
  options.server_name = "command-line";
  Result<std::unique_ptr<Ledger>> ledger = Ledger::open(std::move(options));
  const bool served = !ledger && ledger.error().code == Errc::locked;
  if (!ledger && !served) return fail(ledger.error());
  const Result<json::object> done =
      served ? act_on_server(verb, arguments, *body) : act_on_log(**ledger, verb, arguments, *body);
  if (!done) return fail(done.error());
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(*done));
  else if (verb == "revoke")
    print_revoked(*done);
  else
    print_made(*done);
  return 0;
}

// ---- options ---------------------------------------------------------------------------------------------

CLI::App* add_action(CLI::App& parent, const std::string& verb, const char* help, const char* footer, int& exit_code,
                     const std::shared_ptr<Arguments>& arguments) {
  CLI::App* command = parent.add_subcommand(verb, help);
  command->footer(footer);
  command->add_option("--reason", arguments->reason, "Why; becomes part of the history");
  command->add_option("--actor", arguments->actor, "Who (default: you@this-host)");
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--format", arguments->format)->check(CLI::IsMember({"text", "json"}))->capture_default_str();
  command->callback([arguments, verb, &exit_code] { exit_code = act(verb, *arguments); });
  return command;
}

void add_create(CLI::App& parent, int& exit_code) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = add_action(parent, "create", "Make a token", kCreateFooter, exit_code, arguments);
  command->add_option("--class", arguments->token_class, "Who comes in with it")
      ->check(CLI::IsMember({"agent", "server", "bootstrap", "operator"}))
      ->required();
  command->add_option("--ttl", arguments->ttl, "How long it lives: 90s, 30m, 24h, 7d, never");
  command->add_option("--description", arguments->description, "What it is for");
  command->add_option("--role", arguments->role, "Of an operator")->check(CLI::IsMember({"read", "operate"}));
  command->add_option("--secret-file", arguments->secret_file, "Your own secret, from a file (default: a random one)");
}

void add_rotate(CLI::App& parent, int& exit_code) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = add_action(parent, "rotate", "Replace a token by a new one", kRotateFooter, exit_code, arguments);
  command->add_option("token", arguments->which, "Id (or its first digits), or a class: agent, server, operator")
      ->required();
  command->add_option("--grace", arguments->grace, "How long the old one is still accepted (default: not at all)");
  command->add_option("--ttl", arguments->ttl, "How long the new one lives (default: as long as the old one's)");
  command->add_option("--secret-file", arguments->secret_file, "Your own secret, from a file (default: a random one)");
}

void add_revoke(CLI::App& parent, int& exit_code) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      add_action(parent, "revoke", "End a token at once and for good", kRevokeFooter, exit_code, arguments);
  command->add_option("token", arguments->which, "Id, or its first digits (4 or more)")->required();
  command->add_flag("--force", arguments->force, "Although it is the last operator token that may change something");
}

void add_show(CLI::App& parent, int& exit_code) {
  CLI::App* command = parent.add_subcommand("show", "Print a token (a secret: mind your terminal's history)");
  command->footer(kShowFooter);
  auto data_dir = std::make_shared<std::string>(kDefaultDataDir);
  auto token_class = std::make_shared<std::string>("agent");
  command->add_option("--data-dir", *data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--class", *token_class, "Whose token")
      ->check(CLI::IsMember({"agent", "server"}))
      ->capture_default_str();
  command->callback([data_dir, token_class, &exit_code] { exit_code = show(*data_dir, *token_class); });
}

void add_list(CLI::App& parent, int& exit_code) {
  CLI::App* command = parent.add_subcommand("list", "Every token that lets somebody in; never a secret");
  command->footer(kListFooter);
  auto arguments = std::make_shared<Arguments>();
  command->add_flag("--all", arguments->all, "Those that have ended, too");
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--format", arguments->format, "json lists all of them")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = list(*arguments); });
}

}  // namespace

void add_token(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("token", "The tokens that agents, servers and operators come in with");
  command->footer(kFooter);
  command->require_subcommand(1);
  add_show(*command, exit_code);
  add_list(*command, exit_code);
  add_create(*command, exit_code);
  add_rotate(*command, exit_code);
  add_revoke(*command, exit_code);
}

}  // namespace ledger::tools
