// Why a node is refused: one judgement over its history, with its evidence, its doubts and what to do.
//
// Promises: an explanation is made of records and nothing else (no clock, no disk): equal histories give equal
// explanations. Every fact cites the record it rests on. A cause is named only where the evidence decides;
// where it does not, the answer is UNKNOWN with what is missing. Nothing here changes a ledger.
//
// How a cause is chosen: causes.h. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "replay/timeline.h"

namespace ledger::replay {

// What a refusal comes from; the short text of each is in docs/RUNBOOK.md.
enum class Cause : std::uint8_t {
  kNone,
  kUnknown,
  kRebuilt,
  kStaleBind,
  kZombie,
  kOrphanBind,
  kPoolReuse,
  kEphemeral,
  kDupName,
  kCloned,
  kNameDrift,
  kRestored,
  kSrvSplit,
  kAdminEdit,
  kCredFile,
  kToken,
  kStaleCert,
  kCa,
  kClock,
  kEndpoint,
  kSrvState,
  kOverload,
  kLostReply,
};
std::string_view name_of(Cause cause);  // "REBUILT"

enum class Confidence : std::uint8_t { kLow, kMedium, kHigh };
std::string_view name_of(Confidence confidence);

struct Fact {
  Seq seq = 0;
  std::string fact;
};

struct Alternative {
  Cause cause = Cause::kUnknown;
  std::string would_need;  // what would have to be known for this to be the cause
};

struct Remedy {
  std::string rank;     // S1..S7 where it touches the binding of a name, else empty
  std::string action;   // a sentence
  std::string command;  // to be pasted into a shell as it is; empty where there is none
  std::string harm;     // what it may cost; "none"
};

struct Explanation {
  std::string node;
  Seq as_of_seq = 0;  // the last record considered; 0: there is none
  Time as_of_time;
  std::string state;  // registered, refused, released, held, unknown
  bool is_bound = false;
  Fingerprint bound;  // not known: bound by a hash of k3s
  Seq bound_since = 0;
  Cause cause = Cause::kUnknown;
  Confidence confidence = Confidence::kLow;
  std::string summary;
  std::vector<Fact> evidence;
  std::vector<Alternative> alternatives;
  std::vector<Remedy> remedies;  // safest first; harmful ones are not in it
  std::vector<std::string> warnings;
  // The refusals that it judges are in a name that was only claimed (claims.h), by somebody without a valid credential.
  bool only_claimed = false;
  std::string agent_prints;  // what the agent's own log shows meanwhile; empty where nothing is refused
  Timeline timeline;         // points into the History that was explained
  // The last refusal that the cause speaks of; nullptr: none is open. Points into the History, too.
  const Record* refusal = nullptr;
  std::optional<Cause> suspected;  // with kNone: what seems to be coming; a warning says why
  Seq told_from = 0;  // the timeline is told from here on (tell_since); 0: all of it
};

inline constexpr std::string_view kTakeoverWarning =
    "cannot be told apart from a takeover attempt by server-side evidence";

// `history` must outlive what is returned.
Explanation explain(const History& history);

// Limits what is told to what happened at `since` or later (nothing set: no limit): the timeline, and whether a refusal
// is explained at all. Everything before has been folded and stays in the judgement and its evidence.
void tell_since(const Cut& since, Explanation& explanation);

}  // namespace ledger::replay
