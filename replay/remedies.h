// What may be done about a finding, safest first (S1..S7 of docs/RUNBOOK.md), for this history: what would harm
// here is left out. In particular nothing that frees or moves a name while its holder may be alive.
//
// Commands are safe to paste whatever the records hold: every value a stranger chose is quoted for a POSIX
// shell, and none ever holds a secret. Any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "replay/causes.h"

namespace ledger::replay {

std::vector<Remedy> remedies_for(const Finding& finding, const Facts& facts);

// One word of a POSIX shell that stands for exactly `text` (control characters become '?').
std::string shell_word(std::string_view text);

}  // namespace ledger::replay
