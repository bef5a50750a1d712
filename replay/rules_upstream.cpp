// In observe mode a server behind this one decides, and has a memory of its own: what became of it is seen from here
// only in its answers.
#include <fmt/format.h>

#include "ledger/decision.h"
#include "ledger/disagreement.h"
#include "replay/rules.h"
#include "replay/thresholds.h"

namespace ledger::replay::rules {

namespace {

// The last upstream_lost (or, with `found`, the first upstream_found after it) around a record, of its upstream.
const Record* lost_before(const Facts& facts, const Record& record) {
  const Record* lost = nullptr;
  for (const Record* other : facts.server_wide) {
    if (other->seq > record.seq) break;
    const bool same = other->upstream == record.upstream || record.upstream.empty();
    if (same && as<UpstreamLost>(*other) != nullptr) lost = other;
    if (same && as<UpstreamFound>(*other) != nullptr) lost = nullptr;
  }
  return lost;
}

// The record that is judged: of the node's password, or of what comes before it; nullptr: nothing is refused.
const Record* judged(const Facts& facts) {
  if (facts.family == Family::password) return facts.refusals.last().record;
  return facts.failures.empty() ? nullptr : facts.failures.back();
}

std::string words(const Record& record) { return printable(record.would_have, 40); }

}  // namespace

Found upstream_not_able(const Facts& facts) {
  if (facts.family != Family::request || !is_upstream_failure(*facts.failures.back())) return std::nullopt;
  const Record& last = *facts.failures.back();
  const bool no_answer = as<RequestRejected>(last)->reason == kUpstreamUnavailable;
  const Record* lost = lost_before(facts, last);
  Finding finding;
  finding.cause = Cause::kSrvState;
  finding.confidence = no_answer ? Confidence::kHigh : Confidence::kMedium;
  finding.summary = fmt::format(
      "{} {} ({}), so nobody decided; nothing is wrong with {}, its agent tries again by itself", upstream_of(last),
      no_answer              ? "gave no answer"
      : last.answered != 0 ? fmt::format("answered {}, which says nothing about who asked", last.answered)
                             : "answered nothing that can be used",
      on_record(last), who(facts));
  cite(finding, last, no_answer ? "forwarded, and no answer came" : "forwarded, and the answer was no verdict");
  if (lost != nullptr) cite(finding, *lost, "it was lost before that: " + printable(as<UpstreamLost>(*lost)->cause, 100));
  finding.alternatives = {maybe(Cause::kOverload)};
  return finding;
}

// The upstream refuses a credential that the ledger accepts.
Found upstream_token_differs(const Facts& facts) {
  if (facts.family != Family::token) return std::nullopt;
  const Record& last = *facts.failures.back();
  const auto* rejected = as<TokenRejected>(last);
  if (rejected == nullptr || disagreement_of(last) != Disagreement::upstream_refused) return std::nullopt;
  const Record* success = facts.last_success_before(last.seq);
  std::int64_t count = 0;
  for (const Record* record : facts.failures) count += record->count;
  Finding finding;
  finding.cause = Cause::kToken;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format(
      "{} refuses a credential that the ledger accepts (refused {}, {}): its tokens, or its CA, are other ones than those "
      "that were adopted; most likely the token was changed there since",
      upstream_of(last), times(count), on_record(last));
  cite(finding, last, fmt::format("401 from {}{}; the ledger would have said {}", upstream_of(last), from_where(last),
                                  words(last)));
  if (success != nullptr) cite(finding, *success, "last success" + from_where(*success));
  finding.alternatives = {maybe(Cause::kCa, "the client certificate that was shown, checked with the upstream's client CA"),
                          maybe(Cause::kSrvSplit, "the same token accepted by another upstream")};
  return finding;
}

// The password that it admitted itself, or that was imported from it, with nothing in between that we saw.
Found upstream_refuses_its_own(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record& last = *r.last().record;
  const Record* former = former_use(facts);
  if (!is_upstreams(last) || former == nullptr || r.last().step->bound_before != r.presented) return std::nullopt;
  Finding finding;
  finding.summary = fmt::format(
      "{}: {} wants another one for {}, although this is the last that it is known to have had ({}). Its memory was "
      "changed where nobody watched, and which password it has now is not known here",
      refused_text(facts), upstream_of(last), who(facts), on_record(*former));
  cite(finding, *former, named(facts, r.presented) + " was good here");
  cite_refusals(finding, facts);
  const Record* back = nullptr;
  for (const Record* record : facts.server_wide)
    if (record->seq > former->seq && record->seq < last.seq && as<UpstreamFound>(*record) != nullptr) back = record;
  if (back != nullptr) cite(finding, *back, "it was away meanwhile, and may have come back with another memory");
  finding.warnings.push_back("missing: what the upstream has stored for this name, and since when");
  finding.alternatives = {maybe(Cause::kRestored, "the upstream's datastore restored or replaced since that record"),
                          maybe(Cause::kAdminEdit, "its stored password edited"),
                          maybe(Cause::kZombie, "the name set free there, and taken by another machine past the ledger"),
                          maybe(Cause::kSrvSplit, "another upstream that still accepts it")};
  return finding;
}

// Bound before the ledger watched.
Found upstream_binding_unknown(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record& last = *r.last().record;
  if (!is_upstreams(last) || r.holder.known() || r.holder_since != 0) return std::nullopt;
  Finding finding;
  finding.summary = fmt::format(
      "{}: {} has another password for {}, from before the ledger watched; which, whose and since when is not known here",
      refused_text(facts), upstream_of(last), who(facts));
  cite_refusals(finding, facts);
  if (new_to_the_ledger(facts)) cite_new_password(finding, facts);
  finding.takeover_possible = !shows_continuity(facts);
  finding.warnings.push_back(
      "missing: what the upstream has stored for this name: `ledger import` takes it over (its node-passwd file, or its "
      "Secrets), and a refusal after that can be explained");
  for (const Cause cause : {Cause::kRebuilt, Cause::kDupName, Cause::kEphemeral, Cause::kPoolReuse, Cause::kStaleBind})
    finding.alternatives.push_back(maybe(cause));
  return finding;
}

namespace {

// What nobody standing in front of a server can see of it.
void warn_of_unseen(Finding& finding, const Facts& facts, const Record& record) {
  const bool watched = facts.last_between<NodeObjectCreated, NodeObjectDeleted>(0, UINT64_MAX) != nullptr;
  finding.warnings.push_back(fmt::format(
      "decided by {}: its own restarts, a change of its datastore and a name set free there are not seen from here{}",
      upstream_of(record), watched ? ", but for deleted Nodes" : "; `ledger watch-nodes` would show deleted Nodes"));
}

// Nothing is refused, but the binding is another one, and nothing that we saw explains it.
void suspect_unseen_change(Finding& finding, const Facts& facts) {
  const Record* change = nullptr;
  for (const Step* step : facts.own)
    if (is_unseen_change(*step->record)) change = step->record;
  if (change == nullptr) return;
  const Record* freed = release_before(facts, change->seq);
  const Record* bound = facts.last_between<PasswordStored, BindingChanged, BindingImported>(0, change->seq);
  if (freed != nullptr && (bound == nullptr || freed->seq > bound->seq)) return;  // that is why
  finding.warnings.push_back(fmt::format(
      "{} admitted another password than the one the name was bound to ({}): the name was set free there (kubectl delete "
      "secret, or the Node deleted), its datastore was restored, or the binding was edited; nobody saw which",
      upstream_of(*change), on_record(*change)));
  if (finding.cause == Cause::kNone && !finding.suspected) finding.suspected = Cause::kAdminEdit;
}

}  // namespace

void speak_of_upstream(Finding& finding, const Facts& facts) {
  const Record* record = judged(facts);
  if (record == nullptr) {
    if (finding.cause == Cause::kNone) suspect_unseen_change(finding, facts);
    return;
  }
  if (is_upstreams(*record) && !is_upstream_failure(*record)) {
    warn_of_unseen(finding, facts, *record);
    if (disagreement_of(*record) == Disagreement::upstream_refused)
      finding.warnings.push_back(fmt::format(
          "the ledger itself would have let it in ({}, {}): the two know different things; see `ledger triage "
          "--disagreements`",
          words(*record), on_record(*record)));
  }
  if (facts.mode == nullptr || facts.mode->seq < record->seq || is_upstreams(*record) == facts.upstream_decides_now())
    return;
  finding.warnings.push_back(fmt::format("who decides has changed since ({}): now {} does", on_record(*facts.mode),
                                         facts.upstream_decides_now() ? "the upstream" : "the ledger"));
}

}  // namespace ledger::replay::rules
