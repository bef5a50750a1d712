// The `ledger` program: parses arguments and calls the command. No logic worth testing lives in tools/.

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>

#include "ledger/credentials.h"
#include "tools/commands.h"

namespace ledger::tools {

replay::TextStyle style_of_terminal() {
  replay::TextStyle style;
  if (isatty(STDOUT_FILENO) != 1) return style;
  const char* no_color = std::getenv("NO_COLOR");
  style.color = no_color == nullptr || *no_color == '\0';
  return style;
}

int fail(const Error& error) {
  std::fflush(stdout);
  std::fprintf(stderr, "ledger: %s\n", error.message.c_str());
  return 1;
}

Result<Secret> given_secret(const std::string& text, const std::string& file, const char* file_option) {
  if (!text.empty() || file.empty()) return Secret(trim(text));
  Result<std::string> read = read_file(file, 8192);
  if (!read) return Error{read.error().code, std::string(file_option) + ": " + read.error().message};
  Secret secret(trim(*read));
  explicit_bzero(read->data(), read->size());
  return secret;
}

}  // namespace ledger::tools

namespace {

void protect_process() {
  umask(077);               // what we write is ours; files that others may read are opened up one by one
  signal(SIGPIPE, SIG_IGN);  // a peer that leaves is an error code, not our end
#if !defined(__SANITIZE_ADDRESS__)
  prctl(PR_SET_DUMPABLE, 0);  // no core file with passwords in it, no ptrace by other users
#endif
}

constexpr const char* kDescription =
    "ledger admits machines to k3s clusters and can always say why one was refused.\n\n"
    "Unmodified k3s agents register against `ledger serve`; every token check, node password, certificate and\n"
    "refusal is in an event log before the answer leaves, so `ledger replay --node X` explains any 403.\n";

constexpr const char* kFooter =
    "Start here:\n"
    "  ledger serve --data-dir ./data            run a server\n"
    "  ledger token show --data-dir ./data       the token agents join with\n"
    "  ledger replay --node web-1                why was web-1 refused, and what to do\n"
    "  ledger <command> --help                   options and examples\n\n"
    "Exit status: 0 done, 1 refused or failed (a line on standard error says why), 2 wrong usage.\n";

}  // namespace

int main(int argc, char** argv) {
  protect_process();
  spdlog::set_default_logger(spdlog::stderr_color_mt("ledger"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %^%l%$ %v", spdlog::pattern_time_type::utc);

  CLI::App app{kDescription, "ledger"};
  app.footer(kFooter);
  app.set_version_flag("--version", LEDGER_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  int exit_code = 0;
  ledger::tools::add_serve(app, exit_code);
  ledger::tools::add_adopt(app, exit_code);
  ledger::tools::add_replay(app, exit_code);
  ledger::tools::add_triage(app, exit_code);
  ledger::tools::add_diff(app, exit_code);
  ledger::tools::add_whatif(app, exit_code);
  ledger::tools::add_node(app, exit_code);
  ledger::tools::add_export(app, exit_code);
  ledger::tools::add_verify(app, exit_code);
  ledger::tools::add_prove(app, exit_code);
  ledger::tools::add_verify_proof(app, exit_code);
  ledger::tools::add_archive(app, exit_code);
  ledger::tools::add_verify_bundle(app, exit_code);
  ledger::tools::add_token(app, exit_code);
  ledger::tools::add_agent(app, exit_code);
  ledger::tools::add_import(app, exit_code);
  ledger::tools::add_state(app, exit_code);
  ledger::tools::add_man(app, exit_code);
  ledger::tools::add_doctor(app, exit_code);
  ledger::tools::add_watch_nodes(app, exit_code);
  ledger::tools::add_backup(app, exit_code);
  ledger::tools::add_restore(app, exit_code);
  ledger::tools::add_compact(app, exit_code);
  ledger::tools::add_stats(app, exit_code);
  ledger::tools::add_mode(app, exit_code);
  std::string not_written;
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    exit_code = app.exit(error) == 0 ? 0 : 2;
  } catch (const std::system_error& error) {  // fmt::print, where the disk is full or the reader is gone
    not_written = error.what();
  }
  if (std::fflush(stdout) != 0) not_written = std::strerror(errno);
  const bool written = not_written.empty() && std::ferror(stdout) == 0;
  if (written || exit_code != 0) return exit_code;
  return ledger::tools::fail({ledger::Errc::io, "what this command says could not be written to standard output" +
                                                    (not_written.empty() ? "" : ": " + not_written)});
}
