// History under another rule of admission: which refusals would have been admissions, which of these would have given
// a name away while its holder lived, and what the evidence cannot decide. What `ledger whatif` prints.
//
// How it is judged. Every record is folded twice: into the state as it was, and into the state as it would have been.
// Each registration is put to decide_under() (policy.h) in the latter. What people did (release, accept, hold,
// import) is taken as it was done. Where the outcome cannot be told, the record is followed and the case counted as
// undecided; so is a record that does not follow from the state before it (a gap, a history by hand). A record that
// stands for many outcomes counts for all of them.
//
// What the judgement cannot know: that a machine let in at once would not have asked again (its later refusals are
// counted as the admissions they would have been), and what a name's new holder would have done after that: its
// silence is never taken as proven.
//
// Reads the records once, in order. Memory grows with the number of names, not with the records. Any thread.
#pragma once

#include <boost/json/object.hpp>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "replay/policy.h"
#include "replay/record_source.h"
#include "replay/render.h"

namespace ledger::replay {

struct WhatIfOptions {
  Policy policy;
  std::string node;  // only this name; empty: all
  // The policy is in force from here to there, both included. Records before are history that it meets, records
  // after are hindsight.
  Cut since, until;
};

// Was the holder of the name alive when another password was let in?
enum class Verdict : std::uint8_t { harmless, takeover, undecided };
std::string_view name_of(Verdict verdict);

// So many outcomes, in records first..last.
struct Outcomes {
  std::uint64_t count = 0;
  Seq first = 0, last = 0;
  void add(std::uint64_t more, Seq seq);
};

// One password that the policy would have let in instead of the holder's.
struct Displacement {
  Fingerprint newcomer, holder;  // holder not known: bound by a hash of k3s
  std::string source;            // host that it first came from
  Rules rules;
  bool address_shared = false;  // other names registered from that host, too: behind it are several machines
  Outcomes refusals;        // those that would have been admissions
  std::uint64_t times = 0;  // how often the name would have gone over to it
  Verdict verdict = Verdict::undecided;
  std::string because;  // a sentence that cites records
};

struct NodeJudgement {
  std::string node;  // empty: requests that named no node
  std::vector<Displacement> displacements;      // the first 32
  std::uint64_t displacements_left_out = 0;     // further pairs of passwords; counted as undecided
  Outcomes by_token;    // refusals of a token that would have been accepted
  Outcomes locked_out;  // admissions that would have been refusals
  Outcomes needless;    // accepts by an operator of what would have been let in already
  // Outcomes that cannot be told, by what is missing.
  std::map<std::string, Outcomes, std::less<>> undecided;
};

struct WhatIf {
  Policy policy;
  std::string node;               // the only one asked about
  RecordSource::Moment from, to;  // first and last record under the policy
  RecordSource::Moment end;       // of the history
  std::uint64_t refusals = 0;     // of passwords, tokens and requests
  std::uint64_t admitted = 0;     // of these, would have been admissions
  std::uint64_t undecided = 0;    // ... or may have been
  std::uint64_t stay_password = 0, stay_token = 0, stay_request = 0;
  std::uint64_t admissions = 0;   // registrations as they were
  std::uint64_t locked_out = 0, admissions_undecided = 0;
  std::vector<NodeJudgement> nodes;  // those with anything to tell, by name
  std::vector<std::string> warnings;

  // Passwords that would have been let in, by what became of the name.
  std::uint64_t count(Verdict verdict) const;
};

Result<WhatIf> whatif(RecordSource& source, const WhatIfOptions& options, const Progress& progress = {});

// {"rules","from","to","refusals","admitted","undecided","stay":{"password","token","request"},"admissions",
// "locked_out","admissions_undecided","takeovers","harmless","takeovers_undecided","nodes":[...],"warnings"}
boost::json::object to_json(const WhatIf& judgement);
std::string to_text(const WhatIf& judgement, const TextStyle& style = {});

}  // namespace ledger::replay
