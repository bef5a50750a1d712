// What an operator should know before a ledger that has only watched begins to decide: requests that k3s admits and
// it would refuse, machines that live in the cluster without ever having registered through it, and names that are
// held here.
//
// Reads the projection, and the records of a recent while twice. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "replay/disagreements.h"

namespace ledger::replay {

struct Readiness {
  Time since;                          // from when on records were looked at
  Disagreements compared;              // with those entries only on which the two differ still
  std::uint64_t settled = 0;           // entries on which they agree by now
  std::uint64_t bound = 0;             // names that are bound here
  std::vector<std::string> strangers;  // a tunnel or a Node object shows that they live; their names are free here
  std::vector<std::string> held;

  // Something that k3s admits would be refused.
  bool would_refuse() const;
};

Result<Readiness> find_readiness(const EventLog& log, Time since);

}  // namespace ledger::replay
