#include <filesystem>
#include <fstream>

#include "tools/commands.h"
#include "tools/man_page.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  ledger man replay | man -l -               read one now\n"
    "  ledger man --dir /usr/local/share/man/man1 install them all, then: man ledger-replay\n\n"
    "Exit status: 0 done, 1 a file could not be written, 2 no such command.\n";

Result<void> write_page(const std::filesystem::path& path, const std::string& page) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << page;
  out.close();
  if (!out) return Error{Errc::io, "cannot write '" + path.string() + "'; check that the directory exists and is yours"};
  return {};
}

int write_all(const CLI::App& app, const std::filesystem::path& dir) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  const auto write = [&](const std::string& name, const CLI::App* command) {
    return write_page(dir / (name + ".1"), man_page(app, command));
  };
  if (const auto done = write(app.get_name(), nullptr); !done) return fail(done.error());
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    if (const auto done = write(app.get_name() + "-" + sub->get_name(), sub); !done) return fail(done.error());
  return 0;
}

int print_one(const CLI::App& app, const std::string& name) {
  const auto found = app.get_subcommands([&](const CLI::App* sub) { return sub->get_name() == name; });
  const CLI::App* command = name.empty() || found.empty() ? nullptr : found.front();
  if (!name.empty() && command == nullptr) {
    fail(Error{Errc::invalid, "there is no command '" + name + "'; `ledger --help` lists them"});
    return 2;
  }
  std::fputs(man_page(app, command).c_str(), stdout);
  return 0;
}

}  // namespace

void add_man(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("man", "Print a manual page, or install them all");
  command->footer(kFooter);
  struct Arguments {
    std::string name, dir;
  };
  auto arguments = std::make_shared<Arguments>();
  command->add_option("command", arguments->name, "A command; none: the program itself");
  command->add_option("--dir", arguments->dir, "Write every page below this directory instead");
  command->callback([arguments, &app, &exit_code] {
    exit_code = arguments->dir.empty() ? print_one(app, arguments->name) : write_all(app, arguments->dir);
  });
}

}  // namespace ledger::tools
