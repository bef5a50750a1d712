// Incidents: what happens to fleets, with the truth about it. Each is one seeded history with one node to ask about.
//
// The truth is what really happened, whether or not the records show it. `undecided_is_right` is set where the
// decisive evidence is not in the records by construction (a machine with a new lease cannot be told from
// another machine): there UNKNOWN is a right answer, and so are the causes in `also_right`.
#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

#include "ledger/event.h"
#include "replay/explain.h"

namespace ledger::sim {

struct Incident {
  std::string story;  // the variant, for people who read a miss
  std::string node;
  replay::Cause truth = replay::Cause::kUnknown;
  std::set<replay::Cause> also_right;
  bool undecided_is_right = false;
  // Ranks that must not be the first remedy: they would do harm here.
  std::set<std::string> harmful_first;
  std::vector<Record> log;
  std::set<Seq> torn;  // records of which only half a line is left

  // The history as JSON Lines.
  std::string lines() const;
};

// Rules are tuned on incidents with seeds below the first number, and judged by those from it on; never the other way
// round. A run that has seeds of both kinds says nothing.
inline constexpr std::uint64_t kFirstJudgingSeed = 1'000'000;

// The causes that are played.
std::span<const replay::Cause> played_causes();

// Equal arguments give equal incidents, byte for byte.
Incident play(replay::Cause cause, std::uint64_t seed);

// The same history as others have kept it. What is lost may be what decides: UNKNOWN is a right answer then, and a
// wrong cause is still wrong.
enum class Loss {
  none,
  most_fields,  // seq, time, kind, node, source and fingerprint are left
  tunnels,      // of k3s' own logs: no tunnels, no certificates, nothing about the server's start
  addresses,    // everybody comes through one balancer, and agents claim no addresses
  beginning,    // an extract
  records,      // one line of ten is torn: visible holes
};
std::string_view name_of(Loss loss);
void lose(Incident& incident, Loss loss, std::uint64_t seed);

}  // namespace ledger::sim
