// Which nodes need somebody: every name that is refused now, or that looks suspicious although it is not, with the
// cause of each. What `ledger triage` prints. Reads the stored projection and the histories of the nodes concerned;
// the cost grows with their number, and with the records since `since`, not with the log. Any thread.
#pragma once

#include <boost/json/object.hpp>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "replay/explain.h"
#include "replay/history.h"
#include "replay/render.h"

namespace ledger::replay {

struct TriageEntry {
  std::string node;
  std::string state;  // Explanation::state
  Cause cause = Cause::kUnknown;
  Confidence confidence = Confidence::kLow;
  std::string summary;
  bool refused = false;        // else it only looks suspicious
  std::uint64_t refusals = 0;  // of the password, since the last registration
  Time last;                   // when the name was last refused; not known for one that is not
  bool takeover_possible = false;
  bool only_claimed = false;  // Explanation::only_claimed
  // What happened to the server that the explanation rests on: "snapshot went back to seq 8812". seq 0: nothing did.
  Fact event;
};

struct Triage {
  Seq as_of_seq = 0;
  Time as_of_time;
  // The refused ones first, then the suspicious ones; in each the cause that concerns most nodes first; within a cause
  // by name.
  std::vector<TriageEntry> entries;
  std::map<Cause, std::size_t> counts;  // of both
  std::size_t refused = 0;
  std::size_t left_out = 0;  // past the limit
  std::vector<std::string> warnings;
};

struct TriageOptions {
  // Only names refused at or after this; nothing set: whenever it was.
  std::optional<Time> since;
  std::size_t limit = 10'000;  // names explained
};

// What --since says: a span back from `now` (30m, 24h, 7d), a time, or "ever".
Result<std::optional<Time>> parse_since(std::string_view text, Time now);

// Names with an open refusal, names of refusals since `since` that were never bound, and names that share their
// password with another one; of those whose binding somebody changed since then the ones that look as if it was wrong.
// Names that strangers merely claimed come last, those that the ledger never heard of after all: whoever invents names
// by the thousand cannot push the real ones past the limit.
Result<Triage> triage(const EventLog& log, const TriageOptions& options, const Progress& progress = {});

// {"as_of":{"seq","time"},"refused","suspicious","counts":{"REBUILT":2},"groups":[{"cause","refused","nodes","event":
// {"seq","what"}/null}],"nodes":[{"node","state","cause","confidence","summary","refused","refusals","last",
// "takeover_possible","only_claimed"}],"left_out","warnings"}. `event` of a group is what all of its explanations rest on.
boost::json::object to_json(const Triage& triage);
// A headline and one line per node with the command that shows more; `options` are added to that command.
std::string to_text(const Triage& triage, const TextStyle& style = {}, const std::string& options = {});

}  // namespace ledger::replay
