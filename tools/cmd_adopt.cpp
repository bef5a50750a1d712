// `ledger adopt`: takes over the identity of a k3s or RKE2 server.

#include <fmt/format.h>

#include <boost/json.hpp>
#include <cstdio>

#include "ledger/adopt.h"
#include "tools/commands.h"

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
    "Run it again when the k3s server's listener has got names meanwhile (agents were pointed at another name of\n"
    "it): those are added to what was adopted.\n\n"
    "Exit status: 0 adopted, adopted before, or fit to be (--check); 1 refused or failed; 2 wrong usage. After an\n"
    "interruption run it again: until it is through, `ledger serve` refuses to start on the directory.\n";

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
};

int run(const Arguments& arguments) {
  const Result<AdoptReport> report = adopt({.server_dir = arguments.server_dir,
                                            .data_dir = arguments.data_dir,
                                            .check = arguments.check,
                                            .now = Time::now()});
  if (!report) return fail(report.error());
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(to_json(*report, arguments.data_dir)));
  else if (report->outcome == AdoptOutcome::refused)
    print_refusal(*report);
  else
    print_taken(*report, arguments.data_dir, arguments.check);
  return report->outcome == AdoptOutcome::refused ? 1 : 0;
}

}  // namespace

void add_adopt(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("adopt", "Take over the identity of a k3s or RKE2 server");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  command
      ->add_option("--k3s-server-dir", arguments->server_dir,
                   "Its server directory, live or a copy; or the one above")
      ->required();
  command->add_option("--data-dir", arguments->data_dir, "Where to, a fresh data directory (created, mode 0700)")
      ->capture_default_str();
  command->add_flag("--check", arguments->check, "Only look: report what does not fit, write nothing");
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
