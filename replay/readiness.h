// What an operator should know before a ledger that has only watched begins to decide: nodes that it would refuse though k3s
// admits them, machines that live in the cluster without ever having registered through it, and names that are held here.
//
// Reads the projection and the records of a recent while. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ledger/disagreement.h"
#include "ledger/event_log.h"

namespace ledger::replay {

// The two judgements of one node's latest request that both judged, where they differ.
struct OpenDisagreement {
  std::string node;  // empty: of callers that named none
  Disagreement what = Disagreement::none;
  std::string would_have;  // our ruling
  std::int64_t answered = 0;
  Seq seq = 0;  // the latest such record
};

struct Readiness {
  Time since;                      // of the first record that was looked at
  std::uint64_t upstream_records = 0;  // outcomes that k3s decided, in that while
  std::uint64_t bound = 0;         // names that are bound here
  std::vector<OpenDisagreement> open;
  std::uint64_t settled = 0;       // nodes whose judgements differed once and agree now
  std::vector<std::string> strangers;  // a tunnel or a Node object shows that they live; their names are free here
  std::vector<std::string> held;
  std::uint64_t unreadable = 0;    // records

  // Some machine that k3s admits would be refused.
  bool would_refuse() const;
};

Result<Readiness> find_readiness(const EventLog& log, Time since);

}  // namespace ledger::replay
