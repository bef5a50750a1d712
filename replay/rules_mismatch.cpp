#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "replay/names.h"
#include "replay/rules.h"
#include "replay/thresholds.h"

namespace ledger::replay::rules {

// ---- mismatches ------------------------------------------------------------------------------------------

// No cause of a failure: an operator's will. Which is why it is UNKNOWN with a plain sentence.
Found held(const Facts& facts) {
  if (!is_mismatch(facts) || !facts.refusals.last().step->held_before) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* hold = facts.last_between<BindingHeld>(0, r.last().seq());
  Finding finding;
  finding.summary = fmt::format(
      "refused because an operator holds the name ({}): it is free, but nobody may have it "
      "without the operator's word",
      hold != nullptr ? on_record(*hold) : "see the timeline");
  if (hold != nullptr) cite(finding, *hold, "held by " + printable(as<BindingHeld>(*hold)->actor, 80));
  cite_refusals(finding, facts);
  if (const Record* former = former_use(facts); former != nullptr) {
    cite(finding, *former, named(facts, r.presented) + " was the name's own before the hold");
    finding.alternatives.push_back(maybe(Cause::kZombie, "the machine that asks to be the one that was to go"));
  } else {
    finding.alternatives.push_back(maybe(Cause::kRebuilt));
    finding.alternatives.push_back(maybe(Cause::kDupName));
    finding.takeover_possible = true;
  }
  return finding;
}

namespace {

// The wrong line was edited: the value belongs to another node.
void cite_stored_value(Finding& finding, const Facts& facts, const Fingerprint& stored) {
  if (const Record* other = facts.known_elsewhere(stored))
    cite(finding, *other, "the value now stored is the password of " + printable(other->node, 80));
}

}  // namespace

// A recorded change took the binding from this password.
Found binding_edited(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* good = former_use(facts);
  const Record* change = facts.last_between<BindingChanged>(0, r.last().seq());
  if (good == nullptr || change == nullptr) return std::nullopt;
  const auto& event = *as<BindingChanged>(*change);
  const bool took_it = event.from == r.presented || (!event.from.known() && good->seq <= change->seq);
  const Record* rebound =
      facts.last_between<PasswordStored, BindingImported, BindingReleased>(change->seq, r.last().seq());
  if (!took_it || event.to == r.presented || rebound != nullptr) return std::nullopt;
  // Given to another machine, and that one lives: then two machines share the name, and that is the cause.
  const Liveness& alive = r.alive;
  const bool unseen = is_unseen_change(*change);
  if ((event.by != "outside" || unseen) && (alive.seen() || alive.before != nullptr || alive.after != nullptr))
    return std::nullopt;
  Finding finding;
  finding.cause = Cause::kAdminEdit;
  finding.confidence = event.by == "operator_accept" || unseen ? Confidence::kMedium : Confidence::kHigh;
  finding.summary = fmt::format(
      "the stored password of {} was changed by {} ({}), and the one that was good until then "
      "is refused",
      who(facts),
      unseen                    ? "somebody behind the ledger, or set free and bound anew there"
      : event.by == "outside" ? "somebody outside the protocol"
                                : printable(event.by, 40),
      on_record(*change));
  cite(finding, *change,
       fmt::format("binding changed from {} to {}{}", named(facts, r.presented), named(facts, event.to),
                   event.actor.empty() ? "" : " by " + printable(event.actor, 80)));
  if (good->seq != change->seq) cite(finding, *good, named(facts, r.presented) + " was the node's own until then");
  cite_refusals(finding, facts);
  cite_stored_value(finding, facts, event.to);
  finding.alternatives = {maybe(Cause::kDupName), maybe(Cause::kRestored)};
  if (unseen)
    finding.alternatives.push_back(maybe(Cause::kZombie, "that the name was set free for another machine on purpose"));
  return finding;
}

// No record changed it, and yet the refusal names another binding.
Found binding_differs(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* good = former_use(facts);
  const Fingerprint& bound = r.last().bound;
  if (good == nullptr || r.last().step->bound_before != r.presented) return std::nullopt;
  if (!bound.known() || bound == r.presented) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kAdminEdit;
  finding.confidence = facts.hole_since(good->seq) != nullptr ? Confidence::kLow : Confidence::kMedium;
  finding.summary = fmt::format(
      "the stored password of {} is no longer the one it registered with, and no record says "
      "who changed it",
      who(facts));
  cite(finding, *good, named(facts, r.presented) + " was the node's own");
  cite(finding, *r.last().record, fmt::format("refused: now bound to {}", named(facts, bound)));
  cite_stored_value(finding, facts, bound);
  finding.alternatives = {maybe(Cause::kRestored), maybe(Cause::kSrvSplit)};
  return finding;
}

namespace {

void complete_zombie(Finding& finding, const Facts& facts, const Record& release) {
  cite(finding, release, release_text(release));
  cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kStaleBind, "no success with the old password after the release"),
                          maybe(Cause::kDupName)};
  finding.takeover_possible = true;
}

}  // namespace

Found old_password_returned(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* release = release_before(facts, r.last().seq());
  if (release == nullptr || !r.holder.known() || r.presented == r.holder) return std::nullopt;
  const Record* back = nullptr;   // the first success of the old password after it
  const Record* again = nullptr;  // the last
  for (const Step* step : facts.own) {
    const Record& record = *step->record;
    if (record.seq <= release->seq || record.seq >= r.last().seq() || !is_success_with(record, r.holder)) continue;
    if (back == nullptr) back = &record;
    again = &record;
  }
  if (back == nullptr || facts.known_good_before(r.holder, release->seq + 1) == nullptr) return std::nullopt;
  const Record* last_sign = r.alive.last_sign;
  if (last_sign == nullptr || last_sign->seq < again->seq) last_sign = again;
  const std::optional<double> life = seconds_from(back->time, last_sign->time);
  if (life && *life > kZombieLifeAtMost_s) return std::nullopt;  // it was meant to stay
  Finding finding;
  finding.cause = Cause::kZombie;
  finding.confidence = life && *life <= kZombieLife_s ? Confidence::kHigh : Confidence::kMedium;
  const auto delay = seconds_from(release->time, back->time);
  finding.summary = fmt::format(
      "the old machine took the name back after its release: {} was released ({}), {} came back "
      "with its old password{}, and the newcomer is refused since",
      who(facts), on_record(*release), on_record(*back), delay ? " " + duration_text(*delay) + " later" : "");
  cite(finding, *back,
       fmt::format("success with the old {}{} after the release", named(facts, r.holder), from_where(*back)));
  complete_zombie(finding, facts, *release);
  return finding;
}

// The ghost of a Node: no password was seen, but its object came back.
Found old_node_returned(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* release = release_before(facts, r.last().seq());
  if (release == nullptr || as<NodeObjectDeleted>(*release) == nullptr || r.presented == r.holder)
    return std::nullopt;
  const Record* ghost = facts.last_between<NodeObjectCreated>(release->seq, r.first().seq());
  const Record* success = facts.last_between<PasswordStored, PasswordVerified>(release->seq, r.last().seq());
  if (ghost == nullptr || success != nullptr) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kZombie;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format(
      "the Node of {} came back after it was deleted ({}): the old agent was still running and "
      "keeps the name",
      who(facts), on_record(*ghost));
  cite(finding, *ghost, "a Node object appeared again after the deletion");
  complete_zombie(finding, facts, *release);
  return finding;
}

namespace {

// Two refused passwords that take turns belong to two machines.
const Attempt* takes_turns(const Facts& facts) {
  std::set<Fingerprint> left;
  const Attempt* previous = nullptr;
  for (const Attempt& attempt : facts.refusals.attempts) {
    if (!attempt.presented.known()) continue;
    if (previous != nullptr && previous->presented != attempt.presented) {
      left.insert(previous->presented);
      const auto gap = seconds_from(previous->to(), attempt.from());
      if (gap && *gap < 0) return &attempt;  // they overlap
      if (left.count(attempt.presented) > 0) return &attempt;
    }
    previous = &attempt;
  }
  return nullptr;
}

// What shows the holder alive, best first, and how much it weighs where the addresses differ.
struct Sign {
  const Record* record = nullptr;
  std::string fact;
  Confidence confidence = Confidence::kMedium;
  bool positive = false;  // an answer to this holder, not an open connection
};

std::optional<Sign> best_sign(const Facts& facts) {
  const Refusals& r = facts.refusals;
  const Liveness& alive = r.alive;
  if (alive.inside != nullptr)
    return Sign{alive.inside, "the holder succeeded" + from_where(*alive.inside) + " while the refusals ran",
                alive.inside_near || r.where == Where::different ? Confidence::kHigh : Confidence::kMedium,
                alive.inside_near || r.where == Where::different};
  if (alive.before != nullptr && alive.after != nullptr)
    return Sign{alive.after,
                "the holder succeeded" + from_where(*alive.after) + " just before and just after the refusals",
                Confidence::kHigh, true};
  if (alive.covering != nullptr) {
    const auto age = seconds_from(alive.covering->time, r.first().from());
    // A server's own log records the end of tunnels; a hand-written history may leave it out.
    const bool own_log = !alive.covering->server.empty() || alive.tunnel_tells_closing;
    const bool fresh = own_log || (age && *age <= kLongSilence_s);
    return Sign{alive.covering,
                "the holder's tunnel" + from_where(*alive.covering) + " was open while the refusals ran",
                fresh ? Confidence::kHigh : Confidence::kMedium, false};
  }
  if (alive.call != nullptr)
    return Sign{alive.call, "an authenticated request came from the holder's address while the refusals ran",
                Confidence::kMedium, false};
  if (alive.after != nullptr)
    return Sign{alive.after, "the holder succeeded" + from_where(*alive.after) + " just after the refusals",
                Confidence::kMedium, true};
  if (alive.gone != nullptr) return std::nullopt;
  if (alive.before != nullptr)
    return Sign{alive.before, "the holder succeeded" + from_where(*alive.before) + " just before the refusals",
                Confidence::kMedium, false};
  if (alive.touching != nullptr)
    return Sign{alive.touching,
                "the holder's tunnel" + from_where(*alive.touching) + " was open when the refusals began",
                Confidence::kMedium, false};
  return std::nullopt;
}

Finding duplicate(const Facts& facts, Confidence confidence) {
  const Refusals& r = facts.refusals;
  Finding finding;
  finding.cause = Cause::kDupName;
  finding.confidence = confidence;
  finding.summary = fmt::format("two machines use the name {}: one holds it{}, another{} is refused", who(facts),
                                r.where == Where::different ? " at " + r.holder_place.to_string() : "",
                                r.where == Where::different ? " at " + r.newcomer.to_string() : "");
  cite_refusals(finding, facts);
  if (const Record* other = facts.known_elsewhere(r.presented))
    cite(finding, *other, fmt::format("the refused password is that of {}", printable(other->node, 80)));
  if (const Record* former = former_use(facts))
    cite(finding, *former, "the refused password held this name before");
  if (is_default_hostname(facts.history.node))
    cite(finding, *r.first().record, who(facts) + " is a distribution's default host name");
  finding.takeover_possible = !shows_continuity(facts) && former_use(facts) == nullptr;
  return finding;
}

// An open refusal of a password that is not the holder's own.
bool is_strangers(const Facts& facts) {
  const Refusals& r = facts.refusals;
  return is_mismatch(facts) && !(r.presented.known() && r.presented == r.holder);
}

}  // namespace

// Whatever became of the holder: those who are refused are several.
Found several_refused(const Facts& facts) {
  if (!is_strangers(facts)) return std::nullopt;
  const Attempt* turn = takes_turns(facts);
  if (turn == nullptr) return std::nullopt;
  Place one, other;
  for (const Attempt& attempt : facts.refusals.attempts)
    (attempt.presented == turn->presented ? one : other).add(*attempt.record);
  const Where apart = facts.compare(one, other);
  if (apart == Where::same) return std::nullopt;  // one address, passwords that come back: not decided here
  Finding finding = duplicate(facts, apart == Where::different ? Confidence::kHigh : Confidence::kMedium);
  finding.summary = fmt::format("several machines use the name {}: refused passwords take turns", who(facts));
  cite(finding, *turn->record,
       fmt::format("{} comes back after another was refused: two machines keep asking",
                   named(facts, turn->presented)));
  finding.alternatives = {maybe(Cause::kEphemeral, "passwords that follow each other and never come back")};
  return finding;
}

// The holder was heard from while the newcomer was refused.
Found two_machines(const Facts& facts) {
  if (!is_strangers(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const std::optional<Sign> sign = best_sign(facts);
  if (!sign) return std::nullopt;
  const std::string& fact = sign->fact;
  if (r.where == Where::different) {
    Finding finding = duplicate(facts, sign->confidence);
    cite(finding, *sign->record, fact);
    finding.alternatives = {maybe(Cause::kRebuilt, "the holder silent while the refusals ran"),
                            maybe(Cause::kZombie)};
    return finding;
  }
  // Behind one NAT, or with nothing to compare: only an answer given to the holder meanwhile can tell, or a tunnel
  // that nothing contradicts.
  const bool told = sign->positive && r.where != Where::same;
  const bool connected = r.where == Where::unknown && sign->record == r.alive.covering;
  if (!told && !connected) return std::nullopt;
  Finding finding = duplicate(facts, Confidence::kMedium);
  cite(finding, *sign->record, fact);
  finding.alternatives = {told ? maybe(Cause::kEphemeral, "one machine with two password files (A/B system slots)")
                               : maybe(Cause::kRebuilt, "the holder silent while the refusals ran")};
  return finding;
}

// The holder registers by loopback: it is the server itself, which has just answered.
Found name_of_the_server(const Facts& facts) {
  if (!is_strangers(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  if (r.where != Where::different || !only_loopback(r.holder_place) || only_loopback(r.newcomer))
    return std::nullopt;
  Finding finding = duplicate(facts, Confidence::kMedium);
  finding.summary = fmt::format(
      "{} is the server's own node (it registers by loopback), and another machine at {} asks "
      "for the same name",
      who(facts), r.newcomer.to_string());
  if (r.alive.last_sign != nullptr) cite(finding, *r.alive.last_sign, "the holder is the server's own node");
  finding.alternatives = {maybe(Cause::kRebuilt)};
  return finding;
}

// Two addresses and a name that every image has. Nothing else speaks for it, hence low.
Found default_name_twice(const Facts& facts) {
  if (!is_strangers(facts) || !is_default_hostname(facts.history.node)) return std::nullopt;
  const Refusals& r = facts.refusals;
  if (r.where != Where::different || r.alive.gone != nullptr || r.holder_since == 0) return std::nullopt;
  if (release_before(facts, r.last().seq()) != nullptr) return std::nullopt;
  Finding finding = duplicate(facts, Confidence::kLow);
  cite_holder(finding, facts);
  finding.warnings.push_back(
      "missing: the holder heard from while the refusals ran; that its name is a default one is "
      "all that speaks for two machines");
  finding.alternatives = {maybe(Cause::kRebuilt, "the holder known to be gone"), maybe(Cause::kPoolReuse)};
  return finding;
}

Found release_without_effect(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  if (r.presented.known() && (r.presented == r.holder)) return std::nullopt;
  const Record* release = release_before(facts, r.last().seq());
  if (release == nullptr) return std::nullopt;
  if (facts.last_between<PasswordStored, PasswordVerified, BindingChanged, BindingImported>(
          release->seq, r.last().seq()) != nullptr)
    return std::nullopt;
  const Attempt* still = nullptr;  // the first refusal after it
  for (const Attempt& attempt : r.attempts)
    if (attempt.seq() > release->seq && still == nullptr) still = &attempt;
  if (still == nullptr || former_use(facts) != nullptr) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kStaleBind;
  finding.confidence = facts.hole_since(release->seq) != nullptr ? Confidence::kMedium : Confidence::kHigh;
  const auto lag = seconds_from(release->time, r.last().to());
  finding.summary = fmt::format("{} ({}), but the old binding is still enforced{}", release_text(*release),
                                on_record(*release), lag ? " " + duration_text(*lag) + " later" : "");
  cite(finding, *release, release_text(*release));
  cite(finding, *still->record, fmt::format("{} refused after that", named(facts, still->presented)));
  if (r.last().seq() != still->seq()) cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kZombie), maybe(Cause::kSrvSplit)};
  finding.takeover_possible = !shows_continuity(facts);
  return finding;
}

}  // namespace ledger::replay::rules
