// `ledger state export`: who is bound to what, in k3s' own forms where the ledger holds what they need.

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "replay/state_export.h"
#include "tools/commands.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "secrets      Secrets as k3s v1.20 and later (and RKE2) keep them, for `kubectl apply -f`. Needs k3s' hash of the\n"
    "             bound password: imported ones are kept; `ledger serve --keep-k3s-hash` makes the others, one at\n"
    "             each node's next registration. They can be attacked offline: keep the file to yourself.\n"
    "node-passwd  k3s v1.17 to v1.19 keep clear-text passwords. The ledger has only fingerprints, which do not give\n"
    "             passwords back: this prints no line, and names every bound node on standard error. A k3s server\n"
    "             of these releases binds each name anew at its agent's next registration.\n"
    "json         every node's state; no hashes.\n\n"
    "Examples:\n"
    "  ledger state export --format json\n"
    "  ledger state export --format secrets --output node-passwords.json && kubectl apply -f node-passwords.json\n"
    "  ledger state export --format secrets --flavour rke2 --output node-passwords.json\n\n"
    "Exit status: 0 every bound node is in it, 1 some are not (standard error names them) or it failed, 2 wrong\n"
    "usage.\n";

constexpr std::size_t kNamed = 100;

struct Arguments {
  std::string data_dir = kDefaultDataDir, format = "json", flavour = "k3s", output;
};

Result<replay::StateReport> write_state(const Arguments& arguments, std::FILE* out) {
  const std::filesystem::path dir = arguments.data_dir;
  const auto log = EventLog::follow({.dir = dir / "events"});
  if (!log) return log.error();
  const Result<HashStore> hashes = HashStore::open(dir);
  if (!hashes) return hashes.error();
  const replay::StateFormat format = arguments.format == "secrets"       ? replay::StateFormat::secrets
                                     : arguments.format == "node-passwd" ? replay::StateFormat::node_passwd
                                                                         : replay::StateFormat::json;
  return replay::export_state(**log, *hashes, format, arguments.flavour, [&](std::string_view text) {
    return std::fwrite(text.data(), 1, text.size(), out) == text.size();
  });
}

// Under another name until it is complete; the process' umask makes it 0600.
Result<replay::StateReport> write_file_of_state(const Arguments& arguments) {
  const std::string partial = arguments.output + ".part";
  std::remove(partial.c_str());
  std::FILE* out = std::fopen(partial.c_str(), "wbex");
  const auto failed = [&] {
    const Error error{Errc::io, "cannot write " + printable(partial, 200) + ": " + std::strerror(errno)};
    std::remove(partial.c_str());
    return error;
  };
  if (out == nullptr) return failed();
  Result<replay::StateReport> report = write_state(arguments, out);
  const bool flushed = std::fflush(out) == 0 && fsync(fileno(out)) == 0;
  if (std::fclose(out) != 0 || !flushed) return failed();
  if (!report) std::remove(partial.c_str());
  if (report && std::rename(partial.c_str(), arguments.output.c_str()) != 0) return failed();
  return report;
}

void name_left_out(const Arguments& arguments, const replay::StateReport& report) {
  const char* why = arguments.format == "secrets"
                        ? "no hash of k3s is kept for their passwords; `ledger serve --keep-k3s-hash` makes one at "
                          "each node's next registration"
                        : "this form needs clear-text passwords, and fingerprints do not give them back";
  fmt::print(stderr, "ledger: {} bound node(s) are not in the export: {}\n", report.left_out.size(), why);
  for (std::size_t i = 0; i < report.left_out.size() && i < kNamed; ++i)
    fmt::print(stderr, "  {}\n", printable(report.left_out[i], 253));
  if (report.left_out.size() > kNamed) fmt::print(stderr, "  and {} more\n", report.left_out.size() - kNamed);
}

int run(const Arguments& arguments) {
  const bool to_file = !arguments.output.empty() && arguments.output != "-";
  const Result<replay::StateReport> report = to_file ? write_file_of_state(arguments) : write_state(arguments, stdout);
  if (!report) return fail(report.error());
  if (report->left_out.empty()) return 0;
  name_left_out(arguments, *report);
  return 1;
}

}  // namespace

void add_state(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("state", "Which name is bound to what, for other programs and for k3s");
  command->require_subcommand(1);
  CLI::App* what = command->add_subcommand("export", "Write the state of every node");
  what->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  what->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  what->add_option("--format", arguments->format, "Form of the export")
      ->check(CLI::IsMember({"node-passwd", "secrets", "json"}))
      ->capture_default_str();
  what->add_option("--flavour", arguments->flavour, "Whose Secrets: k3s or rke2")
      ->check(CLI::IsMember({"k3s", "rke2"}))
      ->capture_default_str();
  what->add_option("--output", arguments->output, "File to write, mode 0600 (default: standard output)");
  what->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
