#include <cstdio>
#include <filesystem>

#include "ledger/credentials.h"
#include "tools/commands.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  ledger token show                      the token for agents, as k3s writes it: K10<ca hash>::node:<password>\n"
    "  ledger token show --class server       the token for servers\n"
    "  k3s agent --server https://10.0.0.1:6443 --token-file <(ledger token show)\n\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

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

}  // namespace

void add_token(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("token", "The tokens agents and servers join with");
  command->require_subcommand(1);
  CLI::App* show_command = command->add_subcommand("show", "Print a token (a secret: mind your terminal's history)");
  show_command->footer(kFooter);
  auto data_dir = std::make_shared<std::string>(kDefaultDataDir);
  auto token_class = std::make_shared<std::string>("agent");
  show_command->add_option("--data-dir", *data_dir, "The server's data directory")->capture_default_str();
  show_command->add_option("--class", *token_class, "Whose token")
      ->check(CLI::IsMember({"agent", "server"}))
      ->capture_default_str();
  show_command->callback([data_dir, token_class, &exit_code] { exit_code = show(*data_dir, *token_class); });
}

}  // namespace ledger::tools
