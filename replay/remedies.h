// What may be done about a finding, safest first, for this history. Ranks:
//   S1  the old password file back on the agent: no change here, and proof that it is the same machine
//   S2  another name for one of the machines: no binding is touched
//   S3  stop the old agent, delete its Node, release the name: whoever asks first gets it
//   S4  admit exactly one password that was refused
//   S5  put back a stored value that somebody overwrote
//   (S6, one password for all, and S7, a new server, are never advice.) None: the binding is not touched.
// Where an upstream decides now, S3 to S5 are those that change its memory: the ledger's own commands do not.
// What would harm here is left out; in particular nothing frees or moves a name while its holder may be alive.
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
