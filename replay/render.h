// An explanation as JSON for programs (docs/EVENTS.md, "The explanation"), as text and as a page for people. All
// say the same; text and page fold what repeats and shortens fingerprints to prefixes that are unique in this
// history. Text is safe for a terminal: whatever a stranger wrote has its control characters replaced. Any thread.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "replay/explain.h"

namespace ledger::replay {

boost::json::object to_json(const Explanation& explanation);

struct TextStyle {
  std::size_t width = 100;  // commands are never broken, however long
  bool color = false;       // ANSI
};
std::string to_text(const Explanation& explanation, const TextStyle& style = {});

// Breaks a text at blanks into lines of at most `width` columns; a word that is longer is left whole.
std::vector<std::string> wrap_text(std::string_view text, std::size_t width);

// A page of its own for a browser: the judgement, a drawn timeline (drawing.h) and the records. One file without
// scripts that loads nothing and, whatever strangers wrote, cannot: everything they wrote is escaped, and a content
// security policy forbids the rest. Well-formed as XML too. Its size is bounded; what is left out is said.
std::string to_html(const Explanation& explanation);

}  // namespace ledger::replay
