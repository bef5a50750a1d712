// An explanation as JSON for programs (docs/EVENTS.md, "The explanation") and as text for people. Both say the
// same; the text folds what repeats and shortens fingerprints to prefixes that are unique in this history.
// Text is safe for a terminal: whatever a stranger wrote has its control characters replaced. Any thread.
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

}  // namespace ledger::replay
