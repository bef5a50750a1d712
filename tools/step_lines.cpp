#include "tools/step_lines.h"

#include <unistd.h>

#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>

namespace ledger::tools {

namespace json = boost::json;

namespace {

using Outcome = api::DoctorStep::Outcome;

constexpr std::size_t kWidth = 100;
constexpr std::size_t kTitle = 20;

const char* color_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::ok: return "\033[32m";
    case Outcome::warning: return "\033[33m";
    case Outcome::failure: return "\033[1;31m";
    case Outcome::skipped: return "\033[2m";
  }
  return "";
}

}  // namespace

void print_wrapped(std::string_view text, std::size_t column) {
  const std::size_t room = kWidth - column;
  for (bool first = true; first || !text.empty(); first = false) {
    std::size_t length = text.size();
    if (length > room) {
      length = text.rfind(' ', room);
      if (length == std::string_view::npos || length == 0) length = std::min(text.find(' '), text.size());
    }
    if (!first) std::printf("%*s", static_cast<int>(column), "");
    std::printf("%.*s\n", static_cast<int>(length), text.data());
    text.remove_prefix(std::min(length + 1, text.size()));
  }
}

void print_step(const api::DoctorStep& step) {
  static const bool colored = ::isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
  const std::string outcome(name_of(step.outcome));
  std::printf("  %s%-4s%s  %-*s", colored ? color_of(step.outcome) : "", outcome.c_str(), colored ? "\033[0m" : "",
              static_cast<int>(kTitle), step.title.c_str());
  print_wrapped(step.detail, 8 + kTitle);
  std::fflush(stdout);
}

void print_remedies(const api::DoctorStep& step) {
  for (const api::Remedy& remedy : step.remedies) {
    std::printf("  - ");
    print_wrapped(remedy.action, 4);
    if (!remedy.command.empty()) std::printf("      %s\n", remedy.command.c_str());  // whole: it is pasted
  }
}

json::array json_of(const std::vector<api::Remedy>& remedies) {
  json::array out;
  for (const api::Remedy& remedy : remedies) {
    json::object entry{{"action", remedy.action}};
    if (!remedy.command.empty()) entry["command"] = remedy.command;
    out.push_back(std::move(entry));
  }
  return out;
}

}  // namespace ledger::tools
