#include "tools/man_page.h"

#include <algorithm>
#include <cctype>
#include <sstream>
#include <utility>

namespace ledger::tools {
namespace {

// Text that roff must take literally.
std::string escaped(std::string_view text) {
  std::string out;
  bool at_line_start = true;
  for (const char c : text) {
    if (at_line_start && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else if (c == '`')
      out += "\\(ga";
    else
      out += c;
    at_line_start = c == '\n';
  }
  return out;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::toupper(c); });
  return text;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

bool is_indented(const std::string& line) { return line.starts_with("  "); }

struct Footer {
  std::string prose;     // belongs to the description
  std::string sections;  // examples, exit status
};

// Takes apart prose, headings with literal lines below them, and the exit status, as our footers are written.
Footer parse_footer(const std::string& footer) {
  constexpr std::string_view kExitStatus = "Exit status:";
  const std::vector<std::string> lines = lines_of(footer);
  Footer out;
  std::string* to = &out.prose;
  bool literal = false;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string& line = lines[i];
    if (std::exchange(literal, is_indented(line)) != literal) *to += literal ? ".nf\n" : ".fi\n";
    if (literal) {
      *to += escaped(line.substr(2)) + "\n";
    } else if (line.ends_with(':') && i + 1 < lines.size() && is_indented(lines[i + 1])) {
      to = &out.sections;
      *to += ".SH " + upper(escaped(line.substr(0, line.size() - 1))) + "\n";
    } else if (line.starts_with(kExitStatus)) {
      to = &out.sections;
      *to += ".SH EXIT STATUS\n" + escaped(line.substr(kExitStatus.size() + 1)) + "\n";
    } else if (line.empty()) {
      if (!to->empty()) *to += ".PP\n";
      to = &out.prose;
    } else {
      *to += escaped(line) + "\n";
    }
  }
  if (literal) *to += ".fi\n";
  return out;
}

std::string option_entry(const CLI::Option& option) {
  std::string out = ".TP\n.B " + escaped(option.get_positional() ? option.get_name(true) : option.get_name(false, true));
  if (option.get_type_size() != 0) out += " " + escaped(option.get_type_name());
  std::string text = option.get_description();
  if (!option.get_default_str().empty()) text += " (default: " + option.get_default_str() + ")";
  if (!option.get_envname().empty()) text += " (environment: " + option.get_envname() + ")";
  if (option.get_required()) text += " (required)";
  return out + "\n" + escaped(text.starts_with(' ') ? text.substr(1) : text) + "\n";
}

// --help is told once, not again for every group and sub-command.
bool is_command_of_program(const CLI::App& app) {
  return !app.get_name().empty() && (app.get_parent() == nullptr || app.get_parent()->get_parent() == nullptr);
}

// The options of an app and of its option groups, which CLI11 keeps as subcommands without a name.
std::string option_entries(const CLI::App& app) {
  std::string out;
  for (const CLI::Option* option : app.get_options())
    if (is_command_of_program(app) || option != app.get_help_ptr()) out += option_entry(*option);
  for (const CLI::App* group : app.get_subcommands([](const CLI::App* sub) { return sub->get_name().empty(); })) {
    out += ".SS " + escaped(group->get_group()) + "\n" + escaped(group->get_description()) + "\n";
    out += option_entries(*group);
  }
  return out;
}

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  std::vector<const CLI::App*> out;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App* each) { return !each->get_name().empty(); }))
    out.push_back(sub);
  return out;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

std::string man_page(const CLI::App& program, const CLI::App* command) {
  const CLI::App& app = command != nullptr ? *command : program;
  const std::string words = program.get_name() + (command != nullptr ? " " + command->get_name() : "");
  std::string page_name = words;
  std::replace(page_name.begin(), page_name.end(), ' ', '-');
  const std::vector<const CLI::App*> commands = commands_of(app);

  std::string out = ".TH " + upper(page_name) + " 1 \"\" \"ledger " LEDGER_VERSION "\" \"User Commands\"\n";
  out += ".SH NAME\n" + escaped(page_name) + " \\- " + escaped(first_line(app.get_description())) + "\n";
  out += ".SH SYNOPSIS\n.B " + escaped(words) + "\n[options]" + (commands.empty() ? "" : " command [options]") + "\n";
  Footer footer = parse_footer(app.get_footer());
  std::string sub_entries;
  for (const CLI::App* sub : commands) {
    sub_entries += ".SS " + escaped(sub->get_name()) + "\n" + escaped(sub->get_description()) + "\n";
    if (command == nullptr) continue;
    // CLI11 hands a footer down to commands that have none of their own.
    const Footer own = sub->get_footer() != app.get_footer() ? parse_footer(sub->get_footer()) : Footer{};
    sub_entries += ".PP\n" + own.prose + option_entries(*sub);
    footer.sections += own.sections;
  }
  out += ".SH DESCRIPTION\n" + escaped(app.get_description()) + "\n.PP\n" + footer.prose;
  out += ".SH OPTIONS\n" + option_entries(app);
  if (!commands.empty()) out += ".SH COMMANDS\n" + sub_entries;
  out += footer.sections;
  out += ".SH SEE ALSO\n";
  if (command != nullptr) return out + ".BR " + program.get_name() + " (1)\n";
  for (const CLI::App* sub : commands)
    out += ".BR " + program.get_name() + "\\-" + sub->get_name() + " (1)" + (sub == commands.back() ? "\n" : ",\n");
  return out;
}

}  // namespace ledger::tools
