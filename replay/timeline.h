// A history folded step by step with the server's own rule book (ledger/node_table.h): what each record made of
// the node, and the lives it led. A life is the time under one binding: it starts when the name is bound to
// another password, or is bound again after a release.
//
// A Timeline points into the History it was made from, which must outlive it. Any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "ledger/node_table.h"
#include "replay/history.h"

namespace ledger::replay {

struct Step {
  const Record* record = nullptr;
  bool own = false;                // about the node itself; other records leave its state alone
  std::string_view before, after;  // state_name()
  Fingerprint bound_before;        // the binding this record met
  bool held_before = false;        // ...and whether the name was held and free
  std::uint32_t life = 0;          // from 1; 0 before the first
};

struct Timeline {
  std::vector<Step> steps;  // one per record, in order
  NodeState state;          // at the end
  std::uint32_t lives = 0;
};

Timeline fold(const History& history);

// The time from the first to the last of the outcomes that a record stands for.
inline Time first_time_of(const Record& record) { return record.first_time.value_or(record.time); }

}  // namespace ledger::replay
