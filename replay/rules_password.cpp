#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "replay/names.h"
#include "replay/rules.h"
#include "replay/thresholds.h"

namespace ledger::replay::rules {

// ---- passwords in sequence -------------------------------------------------------------------------------

namespace {

std::vector<Use> uses_of(const Facts& facts) {
  std::vector<Use> uses;
  for (const Attempt& attempt : facts.attempts) {
    if (!attempt.presented.known()) continue;
    if (uses.empty() || uses.back().password != attempt.presented) {
      Use use;
      use.password = attempt.presented;
      use.first = &attempt;
      uses.push_back(std::move(use));
    }
    Use& use = uses.back();
    if (attempt.accepted && use.accepted) {
      const auto gap = seconds_from(use.last->to(), attempt.from());
      use.survived_restart = use.survived_restart || (gap && *gap > kAliveWindow_s);
    }
    use.accepted = use.accepted || attempt.accepted;
    use.last = &attempt;
    use.place.add(*attempt.record);
  }
  return uses;
}

}  // namespace

// The run of passwords that ends with the last one, each new, each of one start, none ever back.
std::vector<Use> changing_passwords(const Facts& facts) {
  const std::vector<Use> uses = uses_of(facts);
  std::vector<Use> run;
  if (uses.empty()) return run;
  std::map<Fingerprint, int> times_used;
  for (const Use& use : uses) ++times_used[use.password];
  // The password that the name began with is not a change, even where it is put back again and again.
  Fingerprint original = facts.refusals.holder;
  for (const Use& use : uses) {
    if (!use.accepted) continue;
    original = use.password;
    // An extract may begin with what took the name from an earlier one.
    const Record* taken = facts.last_between<BindingChanged, BindingReleased>(0, use.first->seq());
    const auto* changed = taken != nullptr ? as<BindingChanged>(*taken) : nullptr;
    const auto* released = taken != nullptr ? as<BindingReleased>(*taken) : nullptr;
    const Fingerprint before = changed != nullptr ? changed->from : released != nullptr ? released->fingerprint : Fingerprint{};
    if (before.known() && before != use.password && times_used[before] == 0) original = before;
    break;
  }
  for (auto use = uses.rbegin(); use != uses.rend(); ++use) {
    if (use->password == original) continue;
    if (times_used[use->password] > 1) break;  // it comes back
    if (!run.empty()) {
      if (use->survived_restart) break;  // that one was kept well: what follows is a story of its own
      if (facts.compare(use->place, run.back().place) == Where::different) break;
      const auto pace = seconds_from(use->first->from(), run.back().first->from());
      if (use->accepted && pace && *pace > kRestartsWithin_s) break;
      const auto gap = seconds_from(use->last->to(), run.back().first->from());
      if (gap && *gap < 0) break;
    }
    run.push_back(*use);
  }
  std::reverse(run.begin(), run.end());
  return run;
}

Found password_of_one_start(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const std::vector<Use> run = changing_passwords(facts);
  if (run.size() < 2 || run.back().password != r.presented || former_use(facts) != nullptr) return std::nullopt;
  // Another machine would have to be ruled out first.
  const bool moved =
      r.where == Where::different && facts.compare(run.front().place, r.holder_place) == Where::different;
  if (moved && r.alive.gone == nullptr) return std::nullopt;
  bool same_place = !moved;
  for (std::size_t i = 1; i < run.size(); ++i) {
    const Where where = facts.compare(run[i - 1].place, run[i].place);
    same_place = same_place && (where == Where::same || where == Where::same_source);
  }
  Finding finding;
  finding.cause = Cause::kEphemeral;
  const auto pace = seconds_from(run[run.size() - 2].last->to(), run.back().first->from());
  finding.confidence = same_place && (run.size() > 2 || !pace || *pace <= kRestartsWithin_s) ? Confidence::kHigh
                                                                                             : Confidence::kMedium;
  finding.summary = fmt::format(
      "the password of {} does not survive a restart: {} new passwords one after the other, "
      "none of which ever came back",
      who(facts), run.size());
  const std::size_t shown = std::min<std::size_t>(run.size(), 6);
  for (std::size_t i = run.size() - shown; i < run.size(); ++i)
    cite(finding, *run[i].first->record,
         fmt::format("new {} {}{}", named(facts, run[i].password), run[i].accepted ? "accepted" : "refused",
                     from_where(*run[i].first->record)));
  cite_holder(finding, facts);
  finding.alternatives = {
      maybe(Cause::kRebuilt, "somebody who reinstalled the machine each time"),
      maybe(Cause::kDupName, "passwords that take turns instead of following each other"),
  };
  finding.takeover_possible = !shows_continuity(facts);
  return finding;
}

// ---- a new password, once --------------------------------------------------------------------------------

// The holder goes by another name now, and somebody wants the one it left.
Found name_left_behind(const Facts& facts) {
  if (!is_mismatch(facts) || !new_to_the_ledger(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* moved_on = facts.known_elsewhere(r.holder);
  if (moved_on == nullptr || r.alive.last_sign == nullptr || moved_on->seq < r.alive.last_sign->seq)
    return std::nullopt;
  const std::string new_name = printable(moved_on->node, 80);
  Finding finding;
  finding.cause = Cause::kNameDrift;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format(
      "the machine that held {} calls itself {} now ({}); the name it left is still bound to "
      "it, and another password asks for it",
      who(facts), new_name, on_record(*moved_on));
  cite(finding, *moved_on, fmt::format("the holder's {} is in use as {}", named(facts, r.holder), new_name));
  cite_holder(finding, facts);
  cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kCloned), maybe(Cause::kDupName), maybe(Cause::kRebuilt)};
  finding.takeover_possible = true;
  return finding;
}

// A machine that had another name asks for one that is taken.
Found renamed_machine(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* other = facts.known_elsewhere(r.presented);
  if (other == nullptr || former_use(facts) != nullptr || other->seq > r.first().seq()) return std::nullopt;
  Place place;
  place.add(*other);
  const Where where = facts.compare(place, r.newcomer);
  if (where != Where::same && where != Where::same_source) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kNameDrift;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format("the machine known as {} now asks as {}, a name that belongs to another password",
                                printable(other->node, 80), who(facts));
  cite(finding, *other,
       fmt::format("{} is the password of {}{}", named(facts, r.presented), printable(other->node, 80),
                   from_where(*other)));
  cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kCloned), maybe(Cause::kDupName)};
  return finding;
}

// Whether a new password is a pool's next machine or the same machine rebuilt cannot be seen from one name: pools hand
// out addresses again as they do names, and a rebuilt machine may get another. Only a name that pools give out, and a
// long silence, make it worth saying; and then at low.
Found name_handed_out_again(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  if (!new_to_the_ledger(facts) || r.holder_since == 0 || r.alive.seen()) return std::nullopt;
  if (!is_pool_name(facts.history.node) || shows_continuity(facts) || r.passwords.size() != 1) return std::nullopt;
  const bool elsewhere = r.where == Where::different;
  const double enough = elsewhere && r.alive.gone != nullptr ? kPoolSilence_s : kLongSilence_s;
  if (!r.alive.silence_s || *r.alive.silence_s < enough) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kPoolReuse;
  finding.confidence = Confidence::kLow;
  const bool by_address = !elsewhere && is_address_name(facts.history.node);
  finding.summary = fmt::format(
      "{} looks like a name that {} gave to another machine: a new password from {} after {} of silence", who(facts),
      by_address ? "a pool of addresses" : "a pool", r.newcomer.to_string(), duration_text(*r.alive.silence_s));
  cite_new_password(finding, facts);
  cite_holder(finding, facts);
  cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kRebuilt, elsewhere ? "the same machine with another address"
                                                           : "somebody who rebuilt this very machine"),
                          maybe(Cause::kDupName)};
  finding.warnings.push_back("missing: " + std::string(would_need(Cause::kPoolReuse)));
  finding.takeover_possible = true;
  return finding;
}

// The name was bound by a join that got its certificates and no further: no tunnel, no Node, one start. Absence counts
// only in a log that would have shown them: a server of ours says which log it writes, and it records every tunnel.
Found first_join_unfinished(const Facts& facts) {
  if (!is_mismatch(facts) || !new_to_the_ledger(facts) || shows_continuity(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  if (r.passwords.size() != 1 || r.holder_since == 0 || r.alive.last_sign == nullptr || r.alive.seen())
    return std::nullopt;
  if (facts.hole_since(r.holder_since) != nullptr) return std::nullopt;
  if (!r.alive.silence_s || *r.alive.silence_s < kUnfinishedJoin_s) return std::nullopt;
  const Seq refused = r.first().seq();
  const auto is_ours = [&](const Record* record) {
    const auto* started = as<ServerStarted>(*record);
    return started != nullptr && !started->ledger.empty() && record->seq < r.holder_since;
  };
  if (std::none_of(facts.server_wide.begin(), facts.server_wide.end(), is_ours)) return std::nullopt;
  const Record* certificate = facts.last_between<CertificateIssued>(r.holder_since, refused);
  const Record* bound = facts.last_between<PasswordStored, BindingChanged, BindingImported>(0, refused);
  if (certificate == nullptr || bound == nullptr || bound->seq != r.holder_since) return std::nullopt;
  if (facts.last_between<TunnelOpened, NodeObjectCreated>(0, refused) != nullptr) return std::nullopt;
  const auto lasted = seconds_from(bound->time, r.alive.last_sign->time);
  if (as<PasswordStored>(*bound) == nullptr || !lasted || *lasted > kUnfinishedJoin_s) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kOrphanBind;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format(
      "{} is bound by a first join that was never finished: certificates were issued, and then no tunnel and no Node "
      "ever; whoever has the machine now made a new password",
      who(facts));
  cite(finding, *bound, "the name was bound" + from_where(*bound));
  cite(finding, *certificate, "the last certificate of that join; no tunnel after it");
  cite_new_password(finding, facts);
  cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kRebuilt, "that join to have been a node for a while, seen by other means"),
                          maybe(Cause::kPoolReuse)};
  finding.takeover_possible = true;
  return finding;
}

// The memory went back, and what asks is newer than it: machines that were made anew with the restore, or passwords of
// which the snapshot knew nothing. Other names refused at the same time make the difference to a rebuilt machine.
Found machines_newer_than_memory(const Facts& facts) {
  if (!is_mismatch(facts) || !new_to_the_ledger(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  if (r.alive.last_sign == nullptr || r.alive.seen() || r.alive.after != nullptr) return std::nullopt;
  const auto memory = facts.memory_change(r.alive.last_sign->seq, r.first().seq());
  if (memory.record == nullptr) return std::nullopt;
  const auto since = seconds_from(memory.record->time, r.first().from());
  if (!since || *since > kAfterRestore_s || shows_continuity(facts)) return std::nullopt;
  const bool locked_out = only_loopback(r.newcomer) && only_loopback(r.holder_place);
  const Record* other = nullptr;
  for (const Record* record : facts.others_refused)
    if (record->seq > memory.record->seq && other == nullptr) other = record;
  if (r.where == Where::different && other == nullptr) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kRestored;
  finding.confidence = other != nullptr || locked_out ? Confidence::kMedium : Confidence::kLow;
  finding.summary = fmt::format(
      "the datastore was {} ({}), and {} later {} is refused with a password that it does not know{}: {}",
      memory.cause == "restored" ? "restored" : "replaced", on_record(*memory.record), duration_text(*since), who(facts),
      other != nullptr ? fmt::format(", as is {}", printable(other->node, 80)) : "",
      locked_out ? "the server locks its own node out, whose machine is newer than the snapshot"
                 : "the machine, or its password, is newer than what was restored");
  cite(finding, *memory.record, "the server's memory is another one since");
  cite_holder(finding, facts);
  cite_refusals(finding, facts);
  if (other != nullptr) cite(finding, *other, printable(other->node, 80) + " refused after the same restore");
  if (finding.confidence == Confidence::kLow)
    finding.warnings.push_back("missing: whether other names are refused since, and whether this machine was made anew");
  finding.alternatives = {maybe(Cause::kRebuilt, "the machine rebuilt for a reason of its own"), maybe(Cause::kDupName)};
  finding.takeover_possible = true;
  return finding;
}

// The server's own node asks by loopback with a new password after the server started with its store intact: not all of
// that machine is new, so /etc alone was lost. One such start may still be somebody's doing, hence low.
Found lost_by_the_servers_node(const Facts& facts) {
  if (!is_mismatch(facts) || !new_to_the_ledger(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  if (r.passwords.size() != 1 || r.alive.last_sign == nullptr || r.alive.seen()) return std::nullopt;
  if (!only_loopback(r.newcomer) || !only_loopback(r.holder_place)) return std::nullopt;
  const Record* started = nullptr;
  for (const Record* record : facts.server_wide)
    if (as<ServerStarted>(*record) != nullptr && record->seq > r.alive.last_sign->seq && record->seq < r.first().seq())
      started = record;
  const auto up = started != nullptr ? seconds_from(started->time, r.first().from()) : std::nullopt;
  if (!up || *up > kServerWarmup_s || facts.memory_change(r.alive.last_sign->seq, r.last().seq()).record != nullptr)
    return std::nullopt;
  Finding finding;
  finding.cause = Cause::kEphemeral;
  finding.confidence = Confidence::kLow;
  finding.summary = fmt::format(
      "the server's own node {} lost its password at a restart ({}) that the server's store survived: /etc/rancher/node "
      "does not seem to be kept",
      who(facts), on_record(*started));
  cite(finding, *started, "the server started, with its memory intact");
  cite_new_password(finding, facts);
  cite_holder(finding, facts);
  cite_refusals(finding, facts);
  finding.warnings.push_back("missing: " + std::string(would_need(Cause::kEphemeral)));
  finding.alternatives = {maybe(Cause::kRebuilt, "somebody who removed the file, or installed anew and kept the store"),
                          maybe(Cause::kRestored)};
  finding.takeover_possible = true;
  return finding;
}

// REBUILT rests on absence, so it asks for all of: one new password, nothing released, a holder that is known
// and silent, a place that is the holder's. Where the place differs it needs a holder that was seen to go.
Found rebuilt(const Facts& facts) {
  if (!is_mismatch(facts) || !new_to_the_ledger(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const bool certified = shows_continuity(facts);
  if (r.passwords.size() != 1 || r.holder_since == 0 || r.alive.last_sign == nullptr) return std::nullopt;
  if (r.alive.seen() || r.alive.after != nullptr || r.alive.touching != nullptr) return std::nullopt;
  if (facts.memory_change(r.alive.last_sign->seq, r.last().seq()).record != nullptr) return std::nullopt;
  if (facts.last_between<BindingChanged>(r.alive.last_sign->seq, r.last().seq()) != nullptr) return std::nullopt;
  const bool here = r.where == Where::same || r.where == Where::same_source || certified;
  const bool seen_to_go = r.alive.gone != nullptr;
  const bool took_long = r.alive.silence_s && *r.alive.silence_s >= kRebuildTakes_s;
  // Without addresses of its own (agents before v1.19 claim none) a machine is known by its source alone; then at
  // least the silence must be known, and the answer stays `low`.
  if (here && !seen_to_go && r.where != Where::same && !certified && !r.alive.silence_s) return std::nullopt;
  // Another address: a pool, a new lease or a stranger. A numbered name is as likely handed on as kept.
  if (!here && !(seen_to_go && took_long && !is_pool_name(facts.history.node) && !is_numbered(facts.history.node)))
    return std::nullopt;

  Finding finding;
  finding.cause = Cause::kRebuilt;
  const bool quick = !took_long;
  finding.confidence = here && !quick && r.count >= 2 ? Confidence::kMedium : Confidence::kLow;
  if (facts.hole_since(r.alive.last_sign->seq) != nullptr) finding.confidence = Confidence::kLow;
  // How the present holder got the name is not shown: earlier changes of passwords would be another story.
  const Record* since = facts.last_between<PasswordStored, BindingChanged, BindingImported>(0, r.first().seq());
  if (since == nullptr) {
    finding.confidence = Confidence::kLow;
    finding.warnings.push_back("missing: how the holder got the name; the history begins after that");
  }
  finding.summary = fmt::format("the machine {} was rebuilt{} and lost its password file: a new password from {}",
                                who(facts), quick ? " or restarted from a fixed image" : "", where_text(r.where));
  cite_new_password(finding, facts);
  cite_holder(finding, facts);
  if (r.alive.gone != nullptr)
    cite(finding, *r.alive.gone, "the holder's tunnel closed, and nothing was heard since");
  if (r.where != Where::unknown) cite(finding, *r.last().record, where_text(r.where));
  if (certified) cite(finding, *r.last().record, "it shows this node's own client certificate");
  cite(finding, *r.first().record, "no release of the name since it was bound");
  finding.alternatives = {maybe(Cause::kEphemeral), maybe(Cause::kDupName)};
  if (!here || is_pool_name(facts.history.node)) finding.alternatives.push_back(maybe(Cause::kPoolReuse));
  if (facts.tunnels.empty() && facts.last_between<CertificateIssued>(0, r.first().seq()) != nullptr)
    finding.alternatives.push_back(maybe(Cause::kOrphanBind));
  finding.takeover_possible = !certified;
  return finding;
}

namespace {

void add_missing(Finding& finding, const Facts& facts) {
  const Refusals& r = facts.refusals;
  if (r.holder_since == 0)
    finding.warnings.push_back(
        "missing: when, from where and to what the name was bound; the history begins after that");
  if (r.newcomer.sources.empty() && r.newcomer.claimed.empty())
    finding.warnings.push_back("missing: the address that the refused requests came from");
  if (!r.presented.known())
    finding.warnings.push_back(
        "missing: the fingerprint of the refused password; without it nobody can tell whether "
        "it is new, old or another node's");
  if (facts.tunnels.empty() && r.holder_since != 0)
    finding.warnings.push_back(
        "missing: whether the holder is alive; agents show their password only when they start, "
        "and no tunnel of this node is recorded");
}

// A mismatch that no rule decides: what there is to say about it in any case.
Finding undecided(const Facts& facts) {
  Finding finding;
  cite_refusals(finding, facts);
  cite_new_password(finding, facts);
  cite_holder(finding, facts);
  finding.takeover_possible = !shows_continuity(facts);
  add_missing(finding, facts);
  return finding;
}

Seq last_sign_of(const Facts& facts) {
  const Record* last = facts.refusals.alive.last_sign;
  return last != nullptr ? last->seq : 0;
}

}  // namespace

// The name's own password, former or present, is refused.
Found own_password_undecided(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* former = former_use(facts);
  if (former == nullptr && !(r.presented.known() && r.presented == r.holder)) return std::nullopt;
  Finding finding = undecided(facts);
  finding.takeover_possible = false;
  const Record* release =
      former != nullptr ? facts.last_between<BindingReleased>(former->seq, r.last().seq()) : nullptr;
  finding.summary = fmt::format("{}, although it was this name's own before; ", refused_text(facts));
  if (former != nullptr) cite(finding, *former, named(facts, r.presented) + " was good here");
  if (release != nullptr) {
    finding.summary += fmt::format(
        "the name was released ({}) and went to another password, and whether the machine that "
        "asks is the old one or the new one with its old file is not decided",
        on_record(*release));
    cite(finding, *release, "the name was released");
  } else {
    finding.summary += "what took it away is not in the records";
  }
  finding.alternatives = {maybe(Cause::kSrvSplit), maybe(Cause::kAdminEdit), maybe(Cause::kRestored),
                          maybe(Cause::kSrvState)};
  if (r.presented != r.holder) {
    finding.alternatives.push_back(
        maybe(Cause::kRebuilt, "the machine restored from a copy that is older than its present password"));
    finding.alternatives.push_back(maybe(Cause::kDupName));
  }
  for (const Record* record : facts.server_wide) {
    const auto up = seconds_from(record->time, r.last().to());
    if (as<ServerStarted>(*record) != nullptr && up && *up >= 0 && *up <= kServerWarmup_s &&
        record->seq < r.last().seq())
      cite(finding, *record, fmt::format("the server had started {} before", duration_text(*up)));
  }
  return finding;
}

// Forgotten by the server, or new: after a restore one name cannot tell.
Found after_restore_undecided(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const auto memory = facts.memory_change(last_sign_of(facts), facts.refusals.last().seq());
  if (memory.record == nullptr) return std::nullopt;
  Finding finding = undecided(facts);
  finding.summary = fmt::format(
      "{}: the datastore was replaced before that ({}), and the records cannot tell whether the "
      "password is new or the server forgot it",
      refused_text(facts), on_record(*memory.record));
  cite(finding, *memory.record, "the server's memory is another one since");
  finding.alternatives = {maybe(Cause::kRestored, "other names refused at the same time"), maybe(Cause::kRebuilt)};
  return finding;
}

// Another name's password.
Found known_elsewhere_undecided(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Record* other = facts.known_elsewhere(facts.refusals.presented);
  if (other == nullptr) return std::nullopt;
  Finding finding = undecided(facts);
  finding.summary = fmt::format(
      "{}: it is the password of {}, and whether that machine was renamed or copied is not "
      "decided",
      refused_text(facts), printable(other->node, 80));
  cite(finding, *other, "the password of " + printable(other->node, 80) + from_where(*other));
  finding.alternatives = {maybe(Cause::kNameDrift), maybe(Cause::kCloned), maybe(Cause::kDupName)};
  return finding;
}

namespace {

std::string why_undecided(const Facts& facts) {
  const Refusals& r = facts.refusals;
  if (r.alive.seen() && (r.where == Where::same || r.where == Where::same_source))
    return "the holder seems alive at the very address that asks with another password; a connection that died "
           "unnoticed, or two machines behind one address";
  if (r.holder_since == 0) return "the history does not show who held the name before";
  if (r.where == Where::different)
    return "a new password from another address; a rebuilt or replaced machine and a second machine look the same "
           "here";
  return "the evidence does not decide between a rebuilt machine and another one";
}

}  // namespace

// What remains possible for any other mismatch.
Found mismatch_undecided(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  Finding finding = undecided(facts);
  finding.summary = refused_text(facts) + ": " + why_undecided(facts);
  if (const Fingerprint& met = r.last().step->bound_before; met.known() && r.holder.known() && met != r.holder) {
    cite(finding, *r.last().record,
         fmt::format("bound to {} here, where the records before say {}", named(facts, r.holder),
                     named(facts, met)));
    finding.alternatives.push_back(maybe(Cause::kAdminEdit));
  } else if (const Record* edit = facts.last_between<BindingChanged>(last_sign_of(facts), r.last().seq())) {
    cite(finding, *edit, "the binding was changed before that, and nobody has used it since");
    finding.alternatives.push_back(
        maybe(Cause::kAdminEdit, "the refused password to be the right one for this machine"));
  }
  for (const Cause cause : {Cause::kDupName, Cause::kRebuilt, Cause::kPoolReuse, Cause::kEphemeral})
    finding.alternatives.push_back(maybe(cause));
  // What was watched from start to end can be ruled out; a deletion before the history cannot.
  if (r.holder_since == 0) finding.alternatives.push_back(maybe(Cause::kStaleBind));
  return finding;
}

}  // namespace ledger::replay::rules
