#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "replay/names.h"
#include "replay/rules.h"
#include "replay/thresholds.h"

namespace ledger::replay::rules {

// ---- nothing is refused ----------------------------------------------------------------------------------

namespace {

// The password that was accepted last, where nothing is refused; not known: there is none.
Fingerprint accepted_now(const Facts& facts) {
  if (facts.family != Family::none || facts.attempts.empty() || !facts.attempts.back().accepted) return {};
  return facts.attempts.back().presented;
}

}  // namespace

// Another name used the same password between two uses here: both machines live.
Found password_of_two_names(const Facts& facts) {
  const Fingerprint password = accepted_now(facts);
  if (!password.known()) return std::nullopt;
  const Record* first = nullptr;
  const Record* last = nullptr;
  Place here;
  for (const Attempt& attempt : facts.attempts) {
    if (!attempt.accepted || attempt.presented != password) continue;
    if (first == nullptr) first = attempt.record;
    last = attempt.record;
    here.add(*attempt.record);
  }
  for (const Record* record : facts.elsewhere) {
    if (record->node.empty() || !is_success_with(*record, password)) continue;
    if (record->seq < first->seq || record->seq > last->seq) continue;
    Place there;
    there.add(*record);
    const Where where = facts.compare(here, there);
    if (where == Where::same) continue;  // one machine that changes its name back and forth
    const std::string other = printable(record->node, 80);
    Finding finding;
    finding.cause = Cause::kCloned;
    finding.confidence = where == Where::different ? Confidence::kHigh : Confidence::kMedium;
    finding.summary = fmt::format(
        "{} and {} are two machines with one password: one was copied from the other, or both "
        "from one image",
        who(facts), other);
    cite(finding, *record, fmt::format("{} accepted for {}{}", named(facts, password), other, from_where(*record)));
    cite(finding, *last, fmt::format("the same password accepted for {} after that", who(facts)));
    finding.alternatives = {maybe(Cause::kNameDrift, "the other name silent since")};
    return finding;
  }
  return std::nullopt;
}

// A machine has one name at a time: with two other names, or with one that came within the window from another address,
// the password was copied, though nobody has come back yet.
Found password_of_many_names(const Facts& facts) {
  const Fingerprint password = accepted_now(facts);
  if (!password.known()) return std::nullopt;
  Place here;
  for (const Attempt& attempt : facts.attempts)
    if (attempt.accepted && attempt.presented == password) here.add(*attempt.record);
  std::set<std::string> names;
  const Record* close = nullptr;
  const Record* latest = nullptr;
  for (const Record* record : facts.elsewhere) {
    if (record->node.empty() || !is_success_with(*record, password)) continue;
    Place there;
    there.add(*record);
    const Where where = facts.compare(here, there);
    if (where == Where::same || where == Where::same_source) continue;
    names.insert(record->node);
    latest = record;
    const bool near = std::any_of(facts.attempts.begin(), facts.attempts.end(), [&](const Attempt& attempt) {
      const auto apart = seconds_from(attempt.to(), record->time);
      return attempt.accepted && attempt.presented == password && apart && std::abs(*apart) <= kAliveWindow_s;
    });
    if (near && where == Where::different) close = record;
  }
  if (names.size() < 2 && close == nullptr) return std::nullopt;
  const Record& other = close != nullptr ? *close : *latest;
  Finding finding;
  finding.cause = Cause::kCloned;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format(
      "the password of {} is in use under {} other name{} as well, {} among them: one image, or one constant", who(facts),
      names.size(), names.size() == 1 ? "" : "s", printable(other.node, 80));
  cite(finding, *facts.attempts.back().record, fmt::format("{} accepted for {}", named(facts, password), who(facts)));
  cite(finding, other, fmt::format("the same password accepted for {}{}", printable(other.node, 80), from_where(other)));
  finding.alternatives = {maybe(Cause::kNameDrift, "every other name silent since")};
  return finding;
}

// There and back again, quicker than a machine moves: A, B, A within the window, or time after time.
Found password_of_two_places(const Facts& facts) {
  const Fingerprint password = accepted_now(facts);
  if (!password.known()) return std::nullopt;
  std::vector<std::pair<Place, const Record*>> hops;
  for (const Attempt& attempt : facts.attempts) {
    if (!attempt.accepted || attempt.presented != password) continue;
    Place place;
    place.add(*attempt.record);
    if (hops.empty() || facts.compare(hops.back().first, place) == Where::different)
      hops.emplace_back(std::move(place), attempt.record);
  }
  bool quick = false;
  for (std::size_t i = 2; i < hops.size(); ++i) {
    const auto round = seconds_from(hops[i - 2].second->time, hops[i].second->time);
    const Where where = facts.compare(hops[i - 2].first, hops[i].first);
    quick = quick || ((where == Where::same || where == Where::same_source) && round && *round <= kRoundTrip_s);
  }
  if (!quick && hops.size() < 4) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kCloned;
  const bool claimed =
      std::all_of(hops.begin(), hops.end(), [](const auto& hop) { return !hop.first.claimed.empty(); });
  finding.confidence = claimed ? Confidence::kMedium : Confidence::kLow;
  finding.summary = fmt::format(
      "two machines share the name {} and its password: it is accepted by turns from {} and "
      "from {}",
      who(facts), hops[0].first.to_string(), hops[1].first.to_string());
  for (const auto& [place, record] : {hops[hops.size() - 2], hops.back()})
    cite(finding, *record, "accepted from " + place.to_string());
  finding.alternatives = {
      maybe(Cause::kNone, "one machine with several addresses, or that moves between networks")};
  return finding;
}

namespace {

// Complete registrations with one password from one place that follow each other too fast for restarts, since the
// node was last seen to go on (a tunnel, or a longer pause).
std::vector<const Record*> hasty_rounds(const Facts& facts) {
  std::vector<const Record*> rounds;
  const Attempt* previous = nullptr;
  for (const Attempt& attempt : facts.attempts) {
    const auto pause = previous != nullptr ? seconds_from(previous->to(), attempt.from()) : std::nullopt;
    const bool goes_on = attempt.accepted && previous != nullptr && pause && *pause <= kAgentTimeout_s &&
                         attempt.presented == previous->presented && attempt.record->count == 1 &&
                         host_of(attempt.record->source) == host_of(previous->record->source);
    if (!goes_on) rounds.clear();
    // The two requests of one start are seconds apart at most.
    if (attempt.accepted && (rounds.empty() || *pause > kOneStart_s)) rounds.push_back(attempt.record);
    previous = &attempt;
  }
  if (!rounds.empty() && facts.last_between<TunnelOpened>(rounds.front()->seq, UINT64_MAX) != nullptr) rounds.clear();
  return rounds;
}

}  // namespace

// The server signs again and again what the agent never gets.
Found reply_lost(const Facts& facts) {
  if (facts.family != Family::none) return std::nullopt;
  std::vector<const Record*> repeated;
  for (const Step* step : facts.own) {
    const auto* issued = as<CertificateIssued>(*step->record);
    if (issued != nullptr && issued->purpose == "serving-kubelet") repeated.push_back(step->record);
    if ((issued != nullptr && issued->purpose == "client-kubelet") || as<TunnelOpened>(*step->record) != nullptr)
      repeated.clear();
  }
  const bool first_only = repeated.size() >= 3;
  if (!first_only) repeated = hasty_rounds(facts);
  if (repeated.size() < (first_only ? 3 : kLostRounds)) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kLostReply;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format("{} is admitted, but does not seem to get the replies: it asked {} times {}", who(facts),
                                repeated.size(),
                                first_only ? "for its first certificate and never for the second"
                                           : "within a retry period of each other, and never went on");
  cite(finding, *repeated.front(), "admitted");
  cite(finding, *repeated.back(), "admitted once more, with nothing after it");
  finding.alternatives = {maybe(Cause::kOverload, "many nodes doing the same at that time"), maybe(Cause::kEndpoint)};
  return finding;
}

namespace {

struct Naming {
  const Record* first = nullptr;
  const Record* last = nullptr;
  void add(const Record& record) {
    if (first == nullptr) first = &record;
    last = &record;
  }
};

}  // namespace

// Nobody is refused, but the machine goes by another name: one password, first under one name and then under another,
// and never under the first again. The name that it left is bound and keeps out whoever gets it next.
Found goes_by_another_name(const Facts& facts) {
  const Fingerprint password = accepted_now(facts);
  if (!password.known() || facts.timeline.state.bound != password) return std::nullopt;
  Naming here, there;
  Place place_here, place_there;
  for (const Attempt& attempt : facts.attempts)
    if (attempt.accepted && attempt.presented == password) here.add(*attempt.record), place_here.add(*attempt.record);
  const Record* elsewhere = facts.known_elsewhere(password);
  if (elsewhere == nullptr || here.first == nullptr) return std::nullopt;
  for (const Record* record : facts.elsewhere) {
    if (record->node.empty() || !is_success_with(*record, password)) continue;
    if (record->node != elsewhere->node) return std::nullopt;  // three names are no rename
    there.add(*record), place_there.add(*record);
  }
  const bool left = here.last->seq < there.first->seq, arrived = there.last->seq < here.first->seq;
  if (!left && !arrived) return std::nullopt;
  // The tunnel under the old name tells of a machine that still goes by it.
  if (left && facts.tunnel_open_at(*there.last)) return std::nullopt;
  const Where where = facts.compare(place_here, place_there);
  const std::string other = printable(elsewhere->node, 80);
  Finding finding;
  finding.cause = Cause::kNameDrift;
  finding.confidence = where == Where::same || where == Where::same_source ? Confidence::kHigh : Confidence::kLow;
  if (left)
    finding.summary = fmt::format(
        "nothing is refused, but the machine that was {} goes by the name {} now ({}): {} stays bound to it and would "
        "refuse another machine",
        who(facts), other, on_record(*there.first), who(facts));
  else
    finding.summary = fmt::format(
        "nothing is refused: {} is the machine that was {} before ({}); that name is still bound to the same password",
        who(facts), other, on_record(*there.last));
  cite(finding, *(left ? here.last : there.last), fmt::format("{} in use as {}", named(facts, password), left ? who(facts) : other));
  cite(finding, *(left ? there.first : here.first), fmt::format("the same password in use as {}", left ? other : who(facts)));
  finding.alternatives = {maybe(Cause::kCloned, "both names in use at the same time"),
                          maybe(Cause::kNone, "the new name to be wanted and the old one to be given up")};
  return finding;
}

// Nobody is refused: a deletion freed the name, and the machine that was to go took it back with its old password.
// After a release that was to end refusals the old password is what was hoped for; so only where nothing was refused.
Found returned_unwanted(const Facts& facts) {
  if (facts.family != Family::none || facts.own.empty()) return std::nullopt;
  const Record* release = release_before(facts, UINT64_MAX);
  if (release == nullptr) return std::nullopt;
  // The deletion of the Node and what it released belong together; the story begins with the first of them.
  const Record* deleted = facts.last_between<NodeObjectDeleted>(0, UINT64_MAX);
  const auto* released = as<BindingReleased>(*release);
  if (deleted == nullptr && (released == nullptr || (released->by != "node_deleted" && released->by != "sweep")))
    return std::nullopt;
  if (deleted != nullptr && deleted->seq < release->seq) {
    const auto apart = seconds_from(deleted->time, release->time);
    if (!apart || *apart > kUnfinishedJoin_s) deleted = nullptr;
  }
  const Record* origin = deleted != nullptr && deleted->seq < release->seq ? deleted : release;
  if (facts.last_between<PasswordRejected, BindingChanged>(0, UINT64_MAX) != nullptr) return std::nullopt;
  const Record* back = nullptr;
  const Record* last_sign = nullptr;
  for (const Step* step : facts.own) {
    const Record& record = *step->record;
    if (record.seq < origin->seq) continue;
    const bool created = as<NodeObjectCreated>(record) != nullptr;
    if (is_success(record) || created) {
      if (is_success(record) && facts.known_good_before(accepted_password(record), origin->seq) == nullptr)
        return std::nullopt;  // another machine has it now
      if (back == nullptr) back = &record;
      last_sign = &record;
    }
    if (as<TunnelOpened>(record) != nullptr) last_sign = &record;
  }
  if (back == nullptr) return std::nullopt;
  const auto life = seconds_from(back->time, last_sign->time);
  if (life && *life > kZombieLifeAtMost_s) return std::nullopt;  // it was meant to stay
  Finding finding;
  finding.cause = Cause::kZombie;
  finding.confidence = Confidence::kMedium;
  const auto delay = seconds_from(origin->time, back->time);
  finding.summary = fmt::format(
      "nothing is refused, but {} came back after {} ({}){}: if that machine was to go, it is still running and has "
      "taken its name back",
      who(facts), as<NodeObjectDeleted>(*origin) != nullptr ? "its Node was deleted" : "the name was set free",
      on_record(*back), delay ? ", " + duration_text(*delay) + " later" : "");
  cite(finding, *origin, release_text(*origin));
  cite(finding, *back, is_success(*back) ? "the old password again" + from_where(*back) : "a Node object appeared again");
  finding.alternatives = {maybe(Cause::kNone, "the deletion to have been a mistake, or a way to register anew: ask who did it")};
  return finding;
}

namespace {

// Handshakes that failed just before the node got in: a clock that was set right, a CA that was mended.
void tell_past_of_handshakes(Finding& finding, const Facts& facts) {
  if (facts.attempts.empty() || !facts.attempts.back().accepted) return;
  const Record* failed = nullptr;
  const Record* success = nullptr;
  std::int64_t count = 0;
  for (const Record* record : facts.nameless) {
    const auto* tls = as<TlsFailed>(*record);
    if (tls == nullptr || tls->trust_probe.value_or(false) || facts.tunnel_open_at(*record)) continue;
    const Record* next = nullptr;
    for (const Attempt& attempt : facts.attempts)
      if (attempt.accepted && attempt.seq() > record->seq && next == nullptr) next = attempt.record;
    if (next == nullptr) continue;
    if (next != success) count = 0;
    failed = record, success = next, count += record->count;
  }
  const auto gap = failed != nullptr ? seconds_from(failed->time, success->time) : std::nullopt;
  if (count < 3 || !gap || *gap > kZombieLife_s) return;
  finding.summary += fmt::format(
      "; before that {} handshakes from its address failed (until record {}) and ended by themselves, as where a clock "
      "is set right after boot",
      count, failed->seq);
  cite(finding, *failed, "the last handshake that failed");
}

// A token or a request that was refused, and what came after it.
void tell_past_of_requests(Finding& finding, const Facts& facts) {
  const Record* last = facts.last_between<TokenRejected, RequestRejected>(0, UINT64_MAX);
  if (last == nullptr) return tell_past_of_handshakes(finding, facts);
  for (const Attempt& attempt : facts.attempts) {
    if (!attempt.accepted || attempt.seq() < last->seq) continue;
    finding.summary += fmt::format("; {} refused until record {} ({}), resolved at record {}",
                                   name_is(*last) == NameIs::claimed ? "somebody who claimed its name was" : "it was",
                                   last->seq, name_of(last->kind()), attempt.seq());
    cite(finding, *last, "refused last");
    cite(finding, *attempt.record, "succeeded after that");
    return;
  }
}

// How the last refusal was settled, if there was one.
void tell_past(Finding& finding, const Facts& facts) {
  const Attempt* last = nullptr;
  for (const Attempt& attempt : facts.attempts)
    if (!attempt.accepted) last = &attempt;
  if (last == nullptr) return tell_past_of_requests(finding, facts);
  const Record* settled = nullptr;
  for (const Step* step : facts.own) {
    const Record& record = *step->record;
    const bool settles = is_success(record) || as<BindingChanged>(record) != nullptr ||
                         as<BindingReleased>(record) != nullptr || as<BindingImported>(record) != nullptr;
    if (record.seq > last->seq() && settles && settled == nullptr) settled = &record;
  }
  if (settled == nullptr) return;
  std::string how = "the name was bound anew";
  if (is_success_with(*settled, last->presented)) {
    how = named(facts, last->presented) + " was accepted";
    const Record* release = release_before(facts, settled->seq);
    const auto lag = release != nullptr && release->seq < last->seq() ? seconds_from(release->time, settled->time)
                                                                      : std::nullopt;
    if (lag)
      how += fmt::format(" {} after the release of record {} (release lag)", duration_text(*lag), release->seq);
  } else if (const Record* renamed = facts.known_elsewhere(last->presented);
             is_success(*settled) && renamed != nullptr) {
    how =
        fmt::format("the refused machine registered as {} (record {})", printable(renamed->node, 80), renamed->seq);
  } else if (is_success(*settled)) {
    Place there, here;
    there.add(*last->record), here.add(*settled);
    how = facts.compare(there, here) == Where::different
              ? "the holder went on, and the other machine stopped asking"
              : "the bound password was presented again";
  } else if (const auto* changed = as<BindingChanged>(*settled)) {
    how = fmt::format("{} was bound by {}{}", named(facts, changed->to), printable(changed->by, 40),
                      changed->actor.empty() ? "" : " (" + printable(changed->actor, 80) + ")");
  } else if (const auto* released = as<BindingReleased>(*settled)) {
    how = fmt::format("the name was released{}",
                      released->actor.empty() ? "" : " by " + printable(released->actor, 80));
  }
  finding.summary +=
      fmt::format("; it was refused until record {}, resolved at record {}: {}", last->seq(), settled->seq, how);
  cite(finding, *last->record, "refused last");
  cite(finding, *settled, how);
}

void warn_of_what_is_coming(Finding& finding, const Facts& facts) {
  const std::vector<Use> run = changing_passwords(facts);
  if (run.size() >= 2 && !run.back().survived_restart) {
    finding.warnings.push_back(
        fmt::format("its last {} passwords followed each other and none came back: the next "
                    "restart may be refused again (EPHEMERAL)",
                    run.size()));
    finding.suspected = Cause::kEphemeral;
  }
  if (facts.attempts.empty() || !facts.attempts.back().accepted) return;
  const Attempt& last = facts.attempts.back();
  if (const Record* other = facts.known_elsewhere(last.presented))
    finding.warnings.push_back(
        fmt::format("its password is in use under the name {} as well (record {}): a renamed or a "
                    "copied machine",
                    printable(other->node, 80), other->seq));
  const Record* release = release_before(facts, last.seq());
  if (release != nullptr && facts.known_good_before(last.presented, release->seq) != nullptr &&
      facts.last_between<BindingChanged>(release->seq, last.seq()) == nullptr) {
    finding.warnings.push_back(
        fmt::format("the name was released at record {} and the same password took it back at "
                    "record {}: if that machine was meant to go, it is still running (ZOMBIE)",
                    release->seq, last.seq()));
    finding.suspected = Cause::kZombie;
  }
}

}  // namespace

Found nothing_wrong(const Facts& facts) {
  if (facts.family != Family::none) return std::nullopt;
  const NodeState& state = facts.timeline.state;
  const bool ever_bound = state.is_bound() || state.released || state.held;
  const bool admitted = !facts.attempts.empty() || !facts.tunnels.empty() ||
                        facts.last_between<CertificateIssued>(0, UINT64_MAX) != nullptr;
  if (!ever_bound && !admitted) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kNone;
  finding.confidence = Confidence::kHigh;
  const Step& last = *facts.own.back();
  if (!facts.attempts.empty() && facts.attempts.back().accepted && state.is_bound()) {
    const Attempt& success = facts.attempts.back();
    finding.summary = fmt::format("nothing is wrong: {} is registered and its last attempt succeeded ({})",
                                  who(facts), on_record(*success.record));
    cite(finding, *success.record, named(facts, success.presented) + " accepted" + from_where(*success.record));
    // No refusal, but no sign of life either: what keeps a machine from asking is not seen here.
    if (!facts.tunnels.empty() && facts.tunnels.back().closed == last.record) {
      finding.confidence = Confidence::kMedium;
      finding.summary = fmt::format(
          "nothing is refused: {} is registered ({}); its tunnel closed ({}), and it has not been heard from since",
          who(facts), on_record(*success.record), on_record(*last.record));
      cite(finding, *last.record, "its tunnel closed; the last record of this name");
      finding.alternatives = {maybe(Cause::kEndpoint, "the machine to be running: then `ledger doctor` on it")};
    }
  } else if (state.held) {
    finding.confidence = Confidence::kMedium;
    finding.summary =
        fmt::format("nothing is refused: an operator holds the name {}, and nobody has asked since", who(facts));
    cite(finding, *last.record, "last record of this name");
  } else if (state.released) {
    finding.confidence = Confidence::kMedium;
    finding.summary =
        fmt::format("nothing is refused: the name {} is free, the next password presented is bound", who(facts));
    cite(finding, *last.record, "last record of this name");
  } else {
    finding.confidence = Confidence::kMedium;
    finding.summary = fmt::format("nothing is refused: {} is bound, and nobody has asked since", who(facts));
    cite(finding, *last.record, "last record of this name");
  }
  tell_past(finding, facts);
  warn_of_what_is_coming(finding, facts);
  return finding;
}

Found nothing_decides(const Facts& facts) {
  Finding finding;
  finding.summary = fmt::format("{} is mentioned, but there is no attempt of it to judge", who(facts));
  if (!facts.own.empty()) cite(finding, *facts.own.back()->record, "last record of this name");
  finding.alternatives = {maybe(Cause::kEndpoint), maybe(Cause::kToken), maybe(Cause::kCa), maybe(Cause::kClock)};
  return finding;
}

}  // namespace ledger::replay::rules
