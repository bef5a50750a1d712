#include "replay/explain.h"

#include "replay/causes.h"
#include "replay/remedies.h"
#include "replay/thresholds.h"

namespace ledger::replay {

std::string_view name_of(Cause cause) {
  switch (cause) {
    case Cause::kNone: return "NONE";
    case Cause::kUnknown: return "UNKNOWN";
    case Cause::kRebuilt: return "REBUILT";
    case Cause::kStaleBind: return "STALEBIND";
    case Cause::kZombie: return "ZOMBIE";
    case Cause::kOrphanBind: return "ORPHANBIND";
    case Cause::kPoolReuse: return "POOLREUSE";
    case Cause::kEphemeral: return "EPHEMERAL";
    case Cause::kDupName: return "DUPNAME";
    case Cause::kCloned: return "CLONED";
    case Cause::kNameDrift: return "NAMEDRIFT";
    case Cause::kRestored: return "RESTORED";
    case Cause::kSrvSplit: return "SRVSPLIT";
    case Cause::kAdminEdit: return "ADMINEDIT";
    case Cause::kCredFile: return "CREDFILE";
    case Cause::kToken: return "TOKEN";
    case Cause::kStaleCert: return "STALECERT";
    case Cause::kCa: return "CA";
    case Cause::kClock: return "CLOCK";
    case Cause::kEndpoint: return "ENDPOINT";
    case Cause::kSrvState: return "SRVSTATE";
    case Cause::kOverload: return "OVERLOAD";
    case Cause::kLostReply: return "LOSTREPLY";
  }
  fatal("a cause without a name");
}

std::string_view name_of(Confidence confidence) {
  switch (confidence) {
    case Confidence::kLow: return "low";
    case Confidence::kMedium: return "medium";
    case Confidence::kHigh: return "high";
  }
  fatal("a confidence without a name");
}

namespace {

// What the agent's log shows meanwhile (the agent knows no more than this).
std::string agent_sentence(const Facts& facts) {
  switch (facts.family) {
    case Family::password:
      return "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match "
             "server node-passwd entry, try enabling a unique node name with the --with-node-id flag";
    case Family::token: return "token is not valid: ... 401 Unauthorized, or: not authorized";
    case Family::request: {
      const auto* rejected = as<RequestRejected>(*facts.failures.back());
      if (rejected == nullptr || rejected->status == 0) return "";
      return "https://127.0.0.1:6444" + std::string(facts.program->path_prefix) +
             "serving-kubelet.crt: " + std::to_string(rejected->status) + " ...";
    }
    case Family::handshake: return "failed to get CA certs, or: CA cert validation failed";
    case Family::none: return "";
  }
  return "";
}

void warn_of_holes(const History& history, std::vector<std::string>& warnings) {
  constexpr std::size_t kShown = 5;
  for (std::size_t i = 0; i < history.holes.size() && i < kShown; ++i) {
    const Hole& hole = history.holes[i];
    if (hole.to != 0) {
      warnings.push_back(printable(hole.reason, 1000) + "; this account lacks " +
                         (hole.own ? "what they say of this node" : "what they say of its passwords and addresses"));
      continue;
    }
    const std::string where =
        hole.line != 0 ? "line " + std::to_string(hole.line) : "record " + std::to_string(hole.seq);
    warnings.push_back(where + " cannot be read and is missing from this account: " + printable(hole.reason, 200));
  }
  const std::uint64_t more = history.holes.size() + history.holes_left_out;
  if (more > kShown) warnings.push_back(std::to_string(more - kShown) + " more cannot be read");
}

// The clock went back, or jumped, between the records that were judged.
void warn_of_clock(const Facts& facts, std::vector<std::string>& warnings) {
  for (const Record* record : facts.server_wide)
    if (as<ClockStepped>(*record) != nullptr && !facts.own.empty() &&
        record->seq > facts.own.front()->record->seq) {
      warnings.push_back("the server's clock was stepped (record " + std::to_string(record->seq) +
                         "): durations across it may be wrong; the order of records is not");
      return;
    }
}

void warn_of_outdated(const Facts& facts, std::vector<std::string>& warnings) {
  std::int64_t refusals = 0;
  const Record* last = nullptr;
  for (const Record* record : facts.outdated)
    if (is_refusal(record->kind())) refusals += record->count, last = record;
  if (last == nullptr) return;
  warnings.push_back(std::to_string(refusals) + " refusal(s) in an imported log (the last is record " +
                     std::to_string(last->seq) + ", of " + printable(last->server, 80) +
                     ") are older than what this server knows of the node: history, and not judged");
}

// What the last refusal looked like just before it was settled.
void recall_past(const Facts& facts, Finding& finding) {
  if (finding.cause != Cause::kNone) return;
  const Attempt* refused = nullptr;
  for (const Attempt& attempt : facts.attempts)
    if (!attempt.accepted) refused = &attempt;
  if (refused == nullptr) return;
  History before;
  before.node = facts.history.node;
  before.holes = facts.history.holes;
  for (const Record& record : facts.history.records) {
    before.records.push_back(record);
    if (&record == refused->record) break;
  }
  const Timeline timeline = fold(before);
  const Finding past = judge(Facts(before, timeline));
  if (past.cause == Cause::kNone) return;
  finding.summary += past.cause == Cause::kUnknown
                         ? " (at that time the evidence did not decide)"
                         : " (at that time it looked like " + std::string(name_of(past.cause)) + ", " +
                               std::string(name_of(past.confidence)) + ")";
}

}  // namespace

Explanation explain(const History& history) {
  Explanation explanation;
  explanation.node = history.node;
  explanation.timeline = fold(history);
  const NodeState& state = explanation.timeline.state;
  if (!history.records.empty()) {
    explanation.as_of_seq = history.records.back().seq;
    explanation.as_of_time = history.records.back().time;
  }
  explanation.state = state_name(state);
  explanation.is_bound = state.is_bound();
  explanation.bound = state.bound;
  explanation.bound_since = state.since;

  const Facts facts(history, explanation.timeline);
  Finding finding = judge(facts);
  recall_past(facts, finding);
  explanation.cause = finding.cause;
  explanation.confidence = finding.confidence;
  explanation.suspected = finding.suspected;
  explanation.summary = std::move(finding.summary);
  explanation.remedies = remedies_for(finding, facts);
  explanation.evidence = std::move(finding.evidence);
  explanation.alternatives = std::move(finding.alternatives);
  if (finding.takeover_possible) explanation.warnings.emplace_back(kTakeoverWarning);
  for (std::string& warning : finding.warnings) explanation.warnings.push_back(std::move(warning));
  for (const std::string& warning : history.warnings) explanation.warnings.push_back(warning);
  warn_of_holes(history, explanation.warnings);
  warn_of_clock(facts, explanation.warnings);
  warn_of_outdated(facts, explanation.warnings);
  const Record* claim = facts.judged_claim();
  explanation.only_claimed = claim != nullptr && is_bare_claim(*claim);
  explanation.agent_prints = agent_sentence(facts);
  if (facts.family == Family::password)
    explanation.refusal = facts.refusals.last().record;
  else if (facts.family != Family::none)
    explanation.refusal = facts.failures.back();
  return explanation;
}

void tell_since(const Cut& since, Explanation& e) {
  if (!since.seq && !since.time) return;
  const auto is_before = [&](const Record& record) {
    return (since.seq && record.seq < *since.seq) || (since.time && record.time < *since.time);
  };
  e.told_from = e.as_of_seq + 1;
  for (auto step = e.timeline.steps.rbegin(); step != e.timeline.steps.rend() && !is_before(*step->record); ++step)
    e.told_from = step->record->seq;
  if (e.cause == Cause::kNone || e.refusal == nullptr || !is_before(*e.refusal)) return;
  const Record& last = *e.refusal;
  e.summary = e.node + " was not refused since " +
              (since.seq ? "record " + std::to_string(*since.seq)
                         : Time{since.time->micros / 1'000'000 * 1'000'000}.to_string()) +
              "; its last refusal before that is record " + std::to_string(last.seq) + ", which looks like " +
              std::string(name_of(e.cause)) + " (" + std::string(name_of(e.confidence)) + ")";
  e.cause = Cause::kNone;
  e.confidence = Confidence::kHigh;
  e.evidence = {{last.seq, "the last refusal"}};
  e.alternatives.clear();
  e.remedies.clear();
  std::erase(e.warnings, std::string(kTakeoverWarning));
  e.agent_prints.clear();
  e.refusal = nullptr;
  e.only_claimed = false;
}

}  // namespace ledger::replay
