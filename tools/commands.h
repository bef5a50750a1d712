// The commands of the `ledger` program. Each adds its subcommand, with help and examples, and sets `exit_code`
// when it ran: 0 done, 1 refused or failed, 2 wrong usage (CLI11's own errors end as 2 too). What it prints on
// standard output need not be flushed, nor looked after: main() does, and what could not be written is status 1.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "ledger/result.h"
#include "ledger/types.h"
#include "replay/render.h"

namespace ledger::tools {

inline constexpr const char* kDefaultDataDir = "/var/lib/ledger";
// Of --archives, where a command reads old records.
inline constexpr const char* kArchivesHelp = "Where the archives are (default: <data-dir>/archives)";

void add_serve(CLI::App& app, int& exit_code);
void add_adopt(CLI::App& app, int& exit_code);
void add_replay(CLI::App& app, int& exit_code);
void add_triage(CLI::App& app, int& exit_code);
void add_diff(CLI::App& app, int& exit_code);
void add_whatif(CLI::App& app, int& exit_code);
void add_node(CLI::App& app, int& exit_code);
void add_export(CLI::App& app, int& exit_code);
void add_verify(CLI::App& app, int& exit_code);
void add_prove(CLI::App& app, int& exit_code);
void add_verify_proof(CLI::App& app, int& exit_code);
void add_archive(CLI::App& app, int& exit_code);
void add_verify_bundle(CLI::App& app, int& exit_code);
void add_token(CLI::App& app, int& exit_code);
void add_agent(CLI::App& app, int& exit_code);
void add_import(CLI::App& app, int& exit_code);
void add_state(CLI::App& app, int& exit_code);
void add_man(CLI::App& app, int& exit_code);
void add_doctor(CLI::App& app, int& exit_code);
void add_watch_nodes(CLI::App& app, int& exit_code);
void add_backup(CLI::App& app, int& exit_code);
void add_restore(CLI::App& app, int& exit_code);
void add_compact(CLI::App& app, int& exit_code);
void add_stats(CLI::App& app, int& exit_code);
void add_mode(CLI::App& app, int& exit_code);

// Colour when standard output is a terminal and NO_COLOR is not set.
replay::TextStyle style_of_terminal();

// Prints "ledger: <message>" to standard error and returns 1.
int fail(const Error& error);

// A secret as people give one: the text itself, or a file that holds it; neither: empty. Without the white space
// around it. Errors name `file_option`.
Result<Secret> given_secret(const std::string& text, const std::string& file, const char* file_option);

// Who calls, for the history: "alice@srv-1", through sudo the one who called it.
std::string default_actor();

// The records that bear on a node, as JSON Lines, from a server's operators' API. Empty `server_url`: the
// running server of `data_dir`, where the operator token and the CA are read in any case.
Result<std::string> fetch_node_history(const std::string& server_url, const std::string& data_dir,
                                       const std::string& node);

}  // namespace ledger::tools
