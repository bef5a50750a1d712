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
  std::uint64_t refusals = 0;  // of the password, since the last registration
  Time last;                   // when the name was last refused; not known for one that is not
  bool takeover_possible = false;
  bool only_claimed = false;  // Explanation::only_claimed
};

struct Triage {
  Seq as_of_seq = 0;
  Time as_of_time;
  // The cause that concerns most nodes first; within a cause by name.
  std::vector<TriageEntry> entries;
  std::map<Cause, std::size_t> counts;
  std::size_t left_out = 0;          // past the limit
  std::vector<std::string> warnings;
};

struct TriageOptions {
  // Only names refused at or after this; nothing set: whenever it was.
  std::optional<Time> since;
  std::size_t limit = 10'000;  // names explained
};

// Names with an open refusal, names of refusals since `since` that were never bound, and names that share their
// password with another one. Names that strangers merely claimed come last, those that the ledger never heard of after
// all: whoever invents names by the thousand cannot push the real ones past the limit.
Result<Triage> triage(const EventLog& log, const TriageOptions& options, const Progress& progress = {});

// {"as_of":{"seq","time"},"counts":{"REBUILT":2},"nodes":[{"node","state","cause","confidence","summary","refusals",
// "last","takeover_possible","only_claimed"}],"left_out","warnings"}
boost::json::object to_json(const Triage& triage);
// A headline and one line per node with the command that shows more.
std::string to_text(const Triage& triage, const TextStyle& style = {});

}  // namespace ledger::replay
