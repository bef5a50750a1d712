// `ledger adopt`: takes over the identity of a k3s or RKE2 server; --check --upstream: and asks a running one
// whether a ledger with it can stand in front of it.

#include <fmt/format.h>

#include <boost/json.hpp>
#include <cstdio>

#include "api/adopt_check.h"
#include "ledger/adopt.h"
#include "ledger/credentials.h"
#include "tools/commands.h"
#include "tools/step_lines.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;

constexpr const char* kFooter =
    "Takes the certificate authorities, the tokens' passwords and the listener's names out of a server directory,\n"
    "or a copy of one, into a fresh data directory. Every token and certificate that was handed out stays valid,\n"
    "and no agent is touched. The source is only read; the server there may be running. Not taken: the nodes'\n"
    "passwords. They come with `ledger import`, before the first agent does.\n\n"
    "What does not fit is reported all at once: CA keys that are missing, encrypted or of another certificate, "
    "CAs\n"
    "that are expired or not CAs, a passwd without its lines, tokens with another CA hash or password.\n\n"
    "Examples:\n"
    "  ledger adopt --k3s-server-dir /var/lib/rancher/k3s/server --check     look, write nothing\n"
    "  ledger adopt --k3s-server-dir /var/lib/rancher/k3s/server\n"
    "  ledger adopt --k3s-server-dir ./copy/rke2/server --data-dir ./data --format json\n\n"
    "To stand in front of a running server (docs/ADOPTION.md), ask it with --check whether that would work: CAs,\n"
    "token, certificates signed here, front proxy, the addresses that agents are told, names, clock.\n"
    "  ledger adopt --check --k3s-server-dir DIR --upstream https://10.0.0.1:6443 --agents-use 10.0.0.9:6443\n"
    "  ledger adopt --check --data-dir D --upstream https://10.0.0.1:16443        what was adopted before\n\n"
    "Run it again when the k3s server's listener has got names meanwhile (agents were pointed at another name of\n"
    "it): those are added to what was adopted.\n\n"
    "Exit status: 0 adopted, adopted before, or fit to be (--check; warnings do not count); 1 refused or failed,\n"
    "or something would fail (--check); 2 wrong usage. After an interruption run it again: until it is through,\n"
    "`ledger serve` refuses to start on the directory.\n";

constexpr std::size_t kColumns = 100;

// Words filled into lines of at most kColumns; the first begins with `head`, the others are indented as far.
std::string filled(const std::string& head, std::string_view text) {
  std::string out = head;
  std::size_t column = head.size();
  bool first = true;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (!first && column + 1 + end > kColumns) {
      out += "\n" + std::string(head.size(), ' ');
      column = head.size();
    } else if (!first) {
      out += ' ';
      ++column;
    }
    out += text.substr(0, end);
    column += end;
    first = false;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out + "\n";
}

json::object to_json(const AuthorityReport& authority) {
  const auto time = [](Time at) { return at.known() ? json::value(at.to_string()) : json::value(nullptr); };
  return {{"common_name", authority.common_name},     {"key", authority.key},
          {"certificates", authority.certificates},   {"sha256", authority.sha256},
          {"not_before", time(authority.not_before)}, {"not_after", time(authority.not_after)}};
}

json::object to_json(const AdoptReport& report, const std::string& data_dir) {
  json::object server_ca = to_json(report.server_ca);
  server_ca["ca_hash"] = report.server_ca.ca_hash;
  server_ca["raw_ca_hash"] = report.server_ca.raw_ca_hash;
  const std::string_view outcome = name_of(report.outcome);
  return {{"outcome", json::string_view(outcome.data(), outcome.size())},
          {"problems", json::value_from(report.problems)},
          {"notes", json::value_from(report.notes)},
          {"server_dir", printable(report.server_dir.string(), 4096)},
          {"data_dir", data_dir},
          {"program", report.program.empty() ? json::value(nullptr) : json::value(report.program)},
          {"client_ca", to_json(report.client_ca)},
          {"server_ca", std::move(server_ca)},
          {"token_hash", report.token_hash},
          {"separate_agent_token", report.separate_agent_token},
          {"node_passwd", report.has_node_passwd},
          {"listener_names", json::value_from(report.names)},
          {"new_listener_names", json::value_from(report.new_names)},
          {"files", json::value_from(report.files)},
          {"record", report.record != 0 ? json::value(report.record) : json::value(nullptr)}};
}

std::string describe(const AuthorityReport& ca) {
  return fmt::format("{}, {}{}, until {}, SHA-256 {}", printable(ca.common_name, 100), ca.key,
                     ca.certificates > 1 ? fmt::format(", first of {} certificates", ca.certificates) : "",
                     ca.not_after.to_string().substr(0, 10), ca.sha256);
}

std::string describe(const std::vector<std::string>& words) { return fmt::format("{}", fmt::join(words, ", ")); }

void print_taken(const AdoptReport& report, const std::string& data_dir, bool check) {
  const std::string program = report.program.empty() ? "k3s or RKE2" : report.program;
  const std::string from = printable(report.server_dir.string(), 400);
  const char* did = report.outcome != AdoptOutcome::already
                        ? report.outcome == AdoptOutcome::adopted ? "adopted" : "nothing is in the way of adopting"
                    : report.new_names.empty() ? "nothing to do: adopted before,"
                                               : "adopted before:";
  fmt::print("{} the {} server in {}\n", did, program, from);
  std::string out =
      filled("  server CA  ", describe(report.server_ca)) + filled("  client CA  ", describe(report.client_ca));
  out += filled("  tokens     ", fmt::format("K10{}...: {}", report.token_hash.substr(0, 12),
                                             report.separate_agent_token ? "one for servers, one for agents"
                                                                         : "one for servers and agents"));
  if (!report.names.empty()) out += filled("  names      ", describe(report.names));
  if (!report.new_names.empty())
    out +=
        filled("  new names  ", describe(report.new_names) +
                                    (check ? " (not added: only looked)"
                                           : " (added; a running `ledger serve` takes them when it is restarted)"));
  out += filled("  files      ", describe(report.files));
  if (report.record != 0) out += fmt::format("  record     {} epoch_started (imported)\n", report.record);
  fmt::print("{}", out);
  for (const std::string& note : report.notes) fmt::print("{}", filled("  note       ", note));
  if (report.outcome == AdoptOutcome::ready) return;
  fmt::print("next, before an agent comes:\n");
  if (report.has_node_passwd)
    fmt::print("  ledger import node-passwd   the nodes' passwords, from {}/cred/node-passwd\n", from);
  else
    fmt::print(
        "  ledger import               the nodes' passwords; without cred/node-passwd, as a G1 or G2 server\n"
        "                              has it, they are in the cluster's Secrets (ledger import --help)\n");
  fmt::print("  ledger serve --data-dir {}\n", data_dir);
}

void print_refusal(const AdoptReport& report) {
  std::fflush(stdout);
  const std::size_t count = report.problems.size();
  fmt::print(stderr, "ledger: nothing was adopted: {} problem{}\n", count, count == 1 ? "" : "s");
  for (std::size_t i = 0; i < count; ++i)
    fmt::print(stderr, "{}", filled(fmt::format("{:3}. ", i + 1), report.problems[i]));
}

struct Arguments {
  std::string server_dir, data_dir = kDefaultDataDir, format = "text";
  bool check = false;
  api::AdoptCheckOptions live;

  bool is_json() const { return format == "json"; }
};

// ---- With a live upstream ------------------------------------------------------------------------------------

json::object to_json(const api::AdoptCheckItem& item) {
  const api::DoctorStep& step = item.step;
  json::object entry{{"upstream", item.upstream.empty() ? json::value(nullptr) : json::value(item.upstream)},
                     {"step", step.name},
                     {"result", to_lower(api::name_of(step.outcome))},
                     {"detail", step.detail}};
  if (!step.remedies.empty()) entry["remedies"] = json_of(step.remedies);
  return entry;
}

void print_what_to_do(const api::AdoptCheckReport& report, api::DoctorStep::Outcome outcome, const char* heading) {
  for (const api::AdoptCheckItem& item : report.items) {
    if (item.step.outcome != outcome || item.step.remedies.empty()) continue;
    fmt::print("\n{}: {}{}\n", heading, item.step.title, item.upstream.empty() ? "" : " (" + item.upstream + ")");
    std::fflush(stdout);
    print_remedies(item.step);
  }
}

// Whether nothing fails.
bool ask_upstreams(Arguments& arguments, json::object* out) {
  std::string about;
  const auto print = [&about](const api::AdoptCheckItem& item) {
    if (item.upstream != about) fmt::print("\nthe upstream {}\n", item.upstream);
    about = item.upstream;
    std::fflush(stdout);
    print_step(item.step);
  };
  if (!arguments.is_json()) fmt::print("\nthis machine\n");
  const api::AdoptCheckReport report = api::examine_adoption(
      arguments.live, arguments.is_json() ? std::function<void(const api::AdoptCheckItem&)>() : print);
  const std::size_t failures = report.count(api::DoctorStep::Outcome::failure);
  const std::size_t warnings = report.count(api::DoctorStep::Outcome::warning);
  json::array checks;
  for (const api::AdoptCheckItem& item : report.items) checks.push_back(to_json(item));
  (*out)["checks"] = std::move(checks);
  (*out)["failures"] = failures;
  (*out)["warnings"] = warnings;
  if (arguments.is_json()) return failures == 0;
  print_what_to_do(report, api::DoctorStep::Outcome::failure, "fails");
  print_what_to_do(report, api::DoctorStep::Outcome::warning, "about the warning");
  if (failures > 0)
    fmt::print("\n{} step(s) fail, {} warning(s): not yet\n", failures, warnings);
  else
    fmt::print("\nnothing fails, {} warning(s)\n", warnings);
  return failures == 0;
}

// What was adopted before, alone: the data directory is the one that is looked at.
Result<void> look_at_data_dir(Arguments& arguments) {
  if (const Result<void> whole = check_adoption(arguments.data_dir); !whole) return whole.error();
  Result<std::vector<std::string>> names = adopted_listener_names(arguments.data_dir);
  if (!names) return names.error();
  arguments.live.directory = arguments.data_dir;
  arguments.live.listener_names = std::move(*names);
  const Result<Secret> passwd = read_foreign_secret(std::filesystem::path(arguments.data_dir) / "cred/passwd");
  if (!passwd)
    return Error{
        passwd.error().code,
        passwd.error().message + ": nothing was adopted there; name the server's directory with --k3s-server-dir"};
  if (passwd->reveal().find("rke2:") != std::string::npos) arguments.live.program = &kRke2;
  return {};
}

int run(Arguments& arguments) {
  json::object out;
  bool refused = false;
  arguments.live.data_dir = arguments.data_dir;
  if (arguments.server_dir.empty()) {
    if (const Result<void> looked = look_at_data_dir(arguments); !looked) return fail(looked.error());
  } else {
    const Result<AdoptReport> report = adopt({.server_dir = arguments.server_dir,
                                              .data_dir = arguments.data_dir,
                                              .check = arguments.check,
                                              .now = Time::now()});
    if (!report) return fail(report.error());
    refused = report->outcome == AdoptOutcome::refused;
    if (arguments.is_json())
      out = to_json(*report, arguments.data_dir);
    else if (refused)
      print_refusal(*report);
    else
      print_taken(*report, arguments.data_dir, arguments.check);
    arguments.live.directory = arguments.server_dir;
    if (!report->server_dir.empty()) arguments.live.directory = report->server_dir;
    arguments.live.listener_names = report->names;
    if (report->program == kRke2.name) arguments.live.program = &kRke2;
  }
  if (!arguments.live.upstreams.empty() && !ask_upstreams(arguments, &out)) refused = true;
  if (arguments.is_json()) fmt::print("{}\n", json::serialize(out));
  return refused ? 1 : 0;
}

}  // namespace

void add_adopt(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("adopt", "Take over the identity of a k3s or RKE2 server");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  auto* server_dir = command->add_option("--k3s-server-dir", arguments->server_dir,
                                         "Its server directory, live or a copy; or the one above");
  command->add_option("--data-dir", arguments->data_dir, "Where to, a fresh data directory (created, mode 0700)")
      ->capture_default_str();
  auto* check =
      command->add_flag("--check", arguments->check, "Only look: report what does not fit, write nothing");
  api::AdoptCheckOptions& live = arguments->live;
  auto* upstream =
      command
          ->add_option("--upstream", live.upstreams, "Also ask this running server, https://HOST:PORT (repeatable)")
          ->needs(check);
  command
      ->add_option("--upstream-kube-port", live.upstream_kube_port,
                   "Port of its kube-apiserver, where it is another one (rke2: 6443)")
      ->needs(upstream);
  command
      ->add_option("--agents-use", live.agents_use, "HOST[:PORT] at which agents will find the ledger (repeatable)")
      ->needs(upstream);
  command->add_option("--https-port", live.listen_port, "Port that the ledger will take on this machine")
      ->needs(upstream);
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, server_dir, upstream, &exit_code] {
    const bool can_run = server_dir->count() > 0 || upstream->count() > 0;
    if (!can_run) fail({Errc::invalid, "--k3s-server-dir is required (or, with --check, --upstream)"});
    exit_code = can_run ? run(*arguments) : 2;
  });
}

}  // namespace ledger::tools
