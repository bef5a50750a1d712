// The rules: each cause is one small pure function over the facts that returns what it found, or nothing.
//
// kRules is the order in which they are asked; the first that answers is the cause. The order is the order in
// which a request is judged, turned around where one observation explains another away:
//   - what hits many names at once (the server's state, its memory, its CA) explains single refusals, so first;
//   - what fails before the password is read says nothing about passwords, so before the mismatches;
//   - among mismatches the ones with a decisive positive record come first (somebody changed the binding, the
//     old password came back after a release, two machines heard at once), then those that rest on a release
//     without an effect, then those that count passwords; REBUILT rests mostly on absence and comes last;
//   - whatever is left of a mismatch is UNKNOWN, with the causes that remain possible.
// ZOMBIE stands before DUPNAME: after a release both machines may be alive, and the release is the story.
//
// Any thread.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "replay/explain.h"
#include "replay/facts.h"

namespace ledger::replay {

struct Finding {
  Cause cause = Cause::kUnknown;
  Confidence confidence = Confidence::kLow;
  std::string summary;
  std::vector<Fact> evidence;
  std::vector<Alternative> alternatives;
  std::vector<std::string> warnings;
  std::optional<Cause> suspected;  // nothing is refused, and yet this seems to be coming
  // Somebody with the join token could have made the same records.
  bool takeover_possible = false;
};

struct Rule {
  const char* name;
  std::optional<Finding> (*find)(const Facts& facts);
  const char* why_here;
};
extern const std::span<const Rule> kRules;

// The first rule that answers; the last one always does.
Finding judge(const Facts& facts);

// What is missing in general for this to be the cause.
std::string_view would_need(Cause cause);

// "3m20s", "101 days".
std::string duration_text(double seconds);

}  // namespace ledger::replay
