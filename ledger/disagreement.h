// Where a server behind this one decided otherwise than we would have: what has to be understood before the decision is
// taken over from it. Pure; any thread.
#pragma once

#include <cstdint>

#include "ledger/event.h"

namespace ledger {

enum class Disagreement : std::uint8_t {
  none,                // or nobody can tell
  upstream_admitted,   // we would have refused
  upstream_refused,    // we would have admitted, or served the document
};

// Judged by the status that the upstream answered with, which every record of a request carries: two that both refuse,
// whatever their reasons, agree. No answer, 5xx and whatever else says nothing about the caller are no verdict to
// disagree with.
Disagreement disagreement_of(const Record& record);

}  // namespace ledger
