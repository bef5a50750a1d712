#include "replay/html.h"

#include "ledger/types.h"

namespace ledger::replay {

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : printable(text, 16'384)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  for (const std::string_view none : {"\xEF\xBF\xBE", "\xEF\xBF\xBF"})  // U+FFFE, U+FFFF
    for (std::size_t at; (at = out.find(none)) != std::string::npos;) out.replace(at, none.size(), "?");
  return out;
}

std::string isolated(std::string_view text) { return "<bdi dir=\"ltr\">" + escaped(text) + "</bdi>"; }

std::string with_commas(std::int64_t number) {
  std::string text = std::to_string(number);
  for (std::size_t at = text.size(); at > 3; at -= 3)
    if (text[at - 4] != '-') text.insert(at - 3, ",");
  return text;
}

}  // namespace ledger::replay
