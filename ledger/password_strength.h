// Whether a node password could be guessed. Agents make 32 random hex digits; vendors have shipped constants, and people
// write their own. Noticed and recorded, never a reason to refuse. Pure; any thread.
#pragma once

#include "ledger/types.h"

namespace ledger {

// True for fewer than 16 bytes, fewer than 6 different ones, one that makes up more than half, or a shorter piece
// that is repeated. Of random 32 hex digits one in more than 10^12 is called so.
bool is_low_entropy(const Secret& password);

}  // namespace ledger
