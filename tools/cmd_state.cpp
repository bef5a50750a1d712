// `ledger state export`: who is bound to what, in k3s' own forms where the ledger holds what they need, and what
// k3s has to be told before it decides again.

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <set>

#include "replay/state_export.h"
#include "replay/way_back.h"
#include "tools/commands.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "secrets      Secrets as k3s v1.20 and later (and RKE2) keep them, for `kubectl apply -f`. Needs k3s' hash of "
    "the\n"
    "             bound password: imported ones are kept; `ledger serve --keep-k3s-hash` makes the others, one at\n"
    "             each node's next registration. They can be attacked offline: keep the file to yourself.\n"
    "node-passwd  k3s v1.17 to v1.19 keep clear-text passwords. The ledger has only fingerprints, which do not "
    "give\n"
    "             passwords back: this prints no line, and names every bound node on standard error. A k3s server\n"
    "             of these releases binds each name anew at its agent's next registration.\n"
    "json         every node's state; no hashes.\n"
    "way-back     what has to be done before a k3s server behind this one decides again: names that it has bound "
    "to\n"
    "             another password (it would refuse them), those it does not know, and the commands.\n"
    "             way-back-json: the same for programs.\n\n"
    "Examples:\n"
    "  ledger state export --format json\n"
    "  ledger state export --format secrets --output node-passwords.json && kubectl apply -f node-passwords.json\n"
    "  ledger state export --format secrets --flavour rke2 --output node-passwords.json\n"
    "  ledger state export --format way-back                 before `ledger mode observe` (docs/ADOPTION.md)\n"
    "  ledger state export --format secrets --only-missing   what k3s does not have, by the log\n\n"
    "Exit status: 0 every bound node is in it, 1 some are not (standard error names them) or it failed, 2 wrong\n"
    "usage. way-back: 0 k3s would admit every node that is bound here, 1 it would not, or cannot be told.\n";

constexpr std::size_t kNamed = 100;

struct Arguments {
  std::string data_dir = kDefaultDataDir, archives, format = "json", flavour = "k3s", output;
  bool only_missing = false;

  bool is_way_back() const { return format.starts_with("way-back"); }
};

// What is read: a log, and the hashes that are kept beside it.
struct Sources {
  std::unique_ptr<EventLog> log;
  HashStore hashes;
};

Result<Sources> open_sources(const Arguments& arguments) {
  const std::filesystem::path dir = arguments.data_dir;
  auto log = EventLog::follow({.dir = dir / "events", .archives = arguments.archives});
  if (!log) return log.error();
  Result<HashStore> hashes = HashStore::open(dir);
  if (!hashes) return hashes.error();
  return Sources{std::move(*log), std::move(*hashes)};
}

bool k3s_needs(replay::BackVerdict verdict) {
  return verdict == replay::BackVerdict::conflict || verdict == replay::BackVerdict::first_use;
}

bool put(std::string_view text, std::FILE* out) {
  return std::fwrite(text.data(), 1, text.size(), out) == text.size();
}

Result<replay::StateReport> write_way_back(const Arguments& arguments, const replay::WayBack& way, std::FILE* out) {
  const std::string text = arguments.format == "way-back" ? replay::render_text(way, arguments.flavour)
                                                          : replay::render_json(way, arguments.flavour);
  if (!put(text, out)) return Error{Errc::io, "the export could not be written"};
  replay::StateReport report;
  for (const replay::BackNode& node : way.nodes)
    if (node.verdict != replay::BackVerdict::known && node.verdict != replay::BackVerdict::first_use)
      report.left_out.push_back(node.node);
  return report;
}

Result<replay::StateReport> write_state(const Arguments& arguments, std::FILE* out) {
  const Result<Sources> sources = open_sources(arguments);
  if (!sources) return sources.error();
  std::set<std::string, std::less<>> missing;
  if (arguments.is_way_back() || arguments.only_missing) {
    const Result<replay::WayBack> way = replay::find_way_back(*sources->log, sources->hashes);
    if (!way) return way.error();
    if (arguments.is_way_back()) return write_way_back(arguments, *way, out);
    for (const replay::BackNode& node : way->nodes)
      if (k3s_needs(node.verdict)) missing.insert(node.node);
  }
  const replay::StateFormat format = arguments.format == "secrets"       ? replay::StateFormat::secrets
                                     : arguments.format == "node-passwd" ? replay::StateFormat::node_passwd
                                                                         : replay::StateFormat::json;
  std::function<bool(std::string_view)> wanted;
  if (arguments.only_missing) wanted = [&missing](std::string_view node) { return missing.contains(node); };
  return replay::export_state(
      *sources->log, sources->hashes, format, arguments.flavour,
      [out](std::string_view text) { return put(text, out); }, wanted);
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
  const Result<replay::StateReport> report =
      to_file ? write_file_of_state(arguments) : write_state(arguments, stdout);
  if (!report) return fail(report.error());
  if (report->left_out.empty()) return 0;
  if (arguments.is_way_back()) return 1;  // it has said why
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
      ->check(CLI::IsMember({"node-passwd", "secrets", "json", "way-back", "way-back-json"}))
      ->capture_default_str();
  what->add_option("--flavour", arguments->flavour, "Whose Secrets: k3s or rke2")
      ->check(CLI::IsMember({"k3s", "rke2"}))
      ->capture_default_str();
  what->add_flag("--only-missing", arguments->only_missing,
                 "Only nodes that the k3s server behind this one does not know so");
  what->add_option("--archives", arguments->archives, kArchivesHelp);
  what->add_option("--output", arguments->output, "File to write, mode 0600 (default: standard output)");
  what->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
