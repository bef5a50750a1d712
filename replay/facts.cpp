#include "replay/facts.h"

#include <algorithm>
#include <map>

#include "replay/text.h"
#include "replay/thresholds.h"

namespace ledger::replay {

std::optional<double> seconds_from(Time from, Time to) {
  if (!from.known() || !to.known()) return std::nullopt;
  return seconds_between(from, to);
}

const std::string& decided_by(const Record& record) { return is_upstreams(record) ? record.upstream : record.server; }

bool is_upstream_failure(const Record& record) {
  const auto* rejected = as<RequestRejected>(record);
  return rejected != nullptr && (rejected->reason == kUpstreamUnavailable || rejected->reason == kUpstreamError);
}

bool is_unseen_change(const Record& record) {
  const auto* changed = as<BindingChanged>(record);
  return changed != nullptr && changed->by == "outside" && is_upstreams(record);
}

bool is_success(const Record& record) {
  return as<PasswordStored>(record) != nullptr || as<PasswordVerified>(record) != nullptr;
}

Fingerprint accepted_password(const Record& record) {
  if (const auto* stored = as<PasswordStored>(record)) return stored->fingerprint;
  if (const auto* verified = as<PasswordVerified>(record)) return verified->fingerprint;
  return {};
}

namespace {

// The password that a record makes the name's own; nullopt: it does not bind.
std::optional<Fingerprint> binding_made(const Record& record) {
  if (const auto* stored = as<PasswordStored>(record)) return stored->fingerprint;
  if (const auto* changed = as<BindingChanged>(record)) return changed->to;
  if (const auto* imported = as<BindingImported>(record)) return imported->fingerprint;
  return std::nullopt;
}

bool settles(const Record& record) {
  return binding_made(record).has_value() || as<BindingReleased>(record) != nullptr;
}

// "::ffff:10.0.0.5" and "fe80::1%eth0" as people write them.
std::string plain_host(std::string_view address) {
  std::string host = to_lower(host_of(address));
  if (host.starts_with("::ffff:") && host.find('.') != std::string::npos) host.erase(0, 7);
  return host.substr(0, host.find('%'));
}

bool is_ipv6(std::string_view host) { return host.find(':') != std::string_view::npos; }

bool intersect(const std::set<std::string, std::less<>>& a, const std::set<std::string, std::less<>>& b) {
  return std::any_of(a.begin(), a.end(), [&](const std::string& item) { return b.count(item) > 0; });
}

// Two attempts' distance in time; 0 where they overlap, nullopt where it cannot be told.
std::optional<double> distance(const Attempt& attempt, Time moment) {
  if (!moment.known() || !attempt.to().known()) return std::nullopt;
  if (moment < attempt.from()) return seconds_between(moment, attempt.from());
  if (moment > attempt.to()) return seconds_between(attempt.to(), moment);
  return 0;
}

}  // namespace

bool is_success_with(const Record& record, const Fingerprint& password) {
  return is_success(record) && accepted_password(record) == password;
}

bool is_loopback(std::string_view host) { return host.starts_with("127.") || host == "::1"; }

// ---- places ----------------------------------------------------------------------------------------------

void Place::add(const Record& record) {
  if (!record.source.empty()) sources.insert(plain_host(record.source));
  for (const std::string& address : record.claimed) claimed.insert(plain_host(address));
}

std::string Place::to_string() const {
  const auto& best = claimed.empty() ? sources : claimed;
  if (best.empty()) return "an unknown address";
  std::string text = printable(*best.begin(), 60);
  if (best.size() > 1) text += " and " + std::to_string(best.size() - 1) + " more";
  return text;
}

Where Facts::compare(const Place& a, const Place& b) const {
  if (!a.claimed.empty() && !b.claimed.empty())
    return intersect(a.claimed, b.claimed) ? Where::same : Where::different;
  const auto usable = [&](const Place& place) {
    std::set<std::string, std::less<>> sources;
    for (const std::string& source : place.sources)
      if (mixed_sources_.count(source) == 0) sources.insert(source);
    return sources;
  };
  const auto from_a = usable(a), from_b = usable(b);
  if (from_a.empty() || from_b.empty()) return Where::unknown;
  if (intersect(from_a, from_b)) return Where::same_source;
  // One machine may come by IPv4 and by IPv6.
  const auto v6 = [](const std::string& host) { return is_ipv6(host) && !is_loopback(host); };
  const bool a6 = std::all_of(from_a.begin(), from_a.end(), v6), b6 = std::all_of(from_b.begin(), from_b.end(), v6);
  return a6 == b6 ? Where::different : Where::unknown;
}

bool Facts::is_shared(const Place& place) const { return intersect(place.sources, mixed_sources_); }

// ---- sorting what there is -------------------------------------------------------------------------------

Facts::Facts(const History& of, const Timeline& folded) : history(of), timeline(folded) {
  find_outdated();
  sort_records();
  find_program();
  find_tunnels();
  find_mixed_sources();
  find_refusals();
  if (!refusals.attempts.empty()) describe_refusals();
  find_family();
}

// The log of another server is imported when it is at hand: its records stand behind ours, and happened when they
// happened. What our own records say of a later time stands above it; without a time nobody knows, and ours do.
void Facts::find_outdated() {
  const Record* decided = nullptr;  // our own last word on the name, by when it happened
  for (const Step& step : timeline.steps) {
    const Record& record = *step.record;
    if (!is_imported(record)) {
      const bool decides = settles(record) || is_success(record) || as<PasswordRejected>(record) != nullptr ||
                           as<BindingHeld>(record) != nullptr || as<CertificateIssued>(record) != nullptr ||
                           as<TunnelOpened>(record) != nullptr;
      if (step.own && decides) decided = &record;
    } else if (!is_server_wide(record.kind()) && decided != nullptr &&
               (!record.first_time || *record.first_time <= decided->time || !decided->time.known())) {
      outdated.push_back(&record);
      outdated_.insert(&record);
    }
  }
}

bool Facts::is_outdated(const Record& record) const { return outdated_.contains(&record); }

void Facts::sort_records() {
  for (const Step& step : timeline.steps) {
    const Record& record = *step.record;
    for (const std::string_view fingerprint : fingerprints_of(record)) fingerprints_.push_back(fingerprint);
    if (is_server_wide(record.kind())) server_wide.push_back(&record);
    if (as<ModeChanged>(record) != nullptr) mode = &record;
    if (is_outdated(record)) continue;
    if (!step.own) {
      if (!fingerprints_of(record).empty()) elsewhere.push_back(&record);
      if (as<PasswordRejected>(record) != nullptr && !record.node.empty()) others_refused.push_back(&record);
      // The operators' API is no agent's business, wherever the operator sits.
      if (record.node.empty() && is_refusal(record.kind()) && !record.endpoint.starts_with("/ledger/"))
        nameless.push_back(&record);
      continue;
    }
    own.push_back(&step);
    Attempt attempt{.record = &record, .step = &step, .accepted = is_success(record), .presented = {}, .bound = {}};
    if (attempt.accepted) {
      attempt.presented = accepted_password(record);
    } else if (const auto* rejected = as<PasswordRejected>(record)) {
      attempt.presented = rejected->fingerprint;
      attempt.bound = rejected->bound;
    } else {
      continue;
    }
    attempts.push_back(std::move(attempt));
  }
  std::sort(fingerprints_.begin(), fingerprints_.end());
  fingerprints_.erase(std::unique(fingerprints_.begin(), fingerprints_.end()), fingerprints_.end());
}

// Refusals from its addresses count only where none of its own requests says.
void Facts::find_program() {
  const Program *by_name = nullptr, *by_address = nullptr;
  for (const Step* step : own)
    if (const Program* said = program_of_path(step->record->endpoint)) by_name = said;
  for (const Record* record : nameless)
    if (const Program* said = program_of_path(record->endpoint)) by_address = said;
  if (by_name != nullptr)
    program = by_name;
  else if (by_address != nullptr)
    program = by_address;
}

void Facts::find_tunnels() {
  const auto same_server = [](const Record& a, const Record& b) {
    return a.server.empty() || b.server.empty() || a.server == b.server;
  };
  for (const Step& step : timeline.steps) {
    const Record& record = *step.record;
    if (is_outdated(record)) continue;
    if (const auto* opened = as<TunnelOpened>(record); opened != nullptr && step.own)
      tunnels.push_back({.opened = &record, .closed = nullptr});
    if (const auto* closed = as<TunnelClosed>(record); closed != nullptr && step.own) {
      // The one with this session, else the oldest: agents reconnect before the old connection dies.
      Tunnel* best = nullptr;
      for (Tunnel& tunnel : tunnels) {
        const std::string& session = as<TunnelOpened>(*tunnel.opened)->session;
        const bool named = !session.empty() && session == closed->session;
        if (tunnel.closed != nullptr || (!named && !same_server(*tunnel.opened, record))) continue;
        if (named || best == nullptr) best = &tunnel;
        if (named) break;
      }
      if (best != nullptr) best->closed = &record;
    }
    if (as<ServerStarted>(record) == nullptr) continue;
    for (Tunnel& tunnel : tunnels)  // no connection outlives the server's process
      if (tunnel.closed == nullptr && same_server(*tunnel.opened, record)) tunnel.closed = &record;
  }
}

// A source address is no identity where it was seen to serve several machines (NAT, load balancer), or where
// one machine's requests hop between addresses.
void Facts::find_mixed_sources() {
  std::map<std::string, std::vector<std::set<std::string, std::less<>>>> claims;
  std::map<Fingerprint, std::vector<std::string>> hops;
  std::map<Fingerprint, int> hops_within_start;
  std::map<Fingerprint, Time> last_seen;
  std::map<std::string, std::vector<Time>> successes;
  for (const Attempt& attempt : attempts) {
    Place place;
    place.add(*attempt.record);
    if (place.sources.empty()) continue;
    const std::string& source = *place.sources.begin();
    if (attempt.accepted && attempt.to().known()) successes[source].push_back(attempt.to());
    auto& seen = claims[source];
    if (!place.claimed.empty()) {
      const bool other = std::any_of(seen.begin(), seen.end(),
                                     [&](const auto& claimed) { return !intersect(claimed, place.claimed); });
      if (other) mixed_sources_.insert(source);
      if (seen.size() < 16) seen.push_back(place.claimed);
    }
    if (!attempt.presented.known() || !place.claimed.empty()) continue;
    auto& path = hops[attempt.presented];
    const auto since = seconds_from(last_seen[attempt.presented], attempt.from());
    if (!path.empty() && path.back() != source && since && *since <= kOneStart_s)
      ++hops_within_start[attempt.presented];
    if (path.empty() || path.back() != source) path.push_back(source);
    last_seen[attempt.presented] = attempt.to();
  }
  for (auto& [source, times] : successes) std::sort(times.begin(), times.end());
  find_neighbours();
  for (const Record* record : elsewhere) {
    const std::string host = plain_host(record->source);
    const auto here = successes.find(host);
    if (!is_success(*record) || here == successes.end() || is_loopback(host)) continue;
    // Another name from the same address at another time may be the same machine renamed (NAMEDRIFT); only both
    // at once tell of two machines.
    const auto near = std::lower_bound(here->second.begin(), here->second.end(),
                                       record->time.plus_seconds(-static_cast<std::int64_t>(kAliveWindow_s)));
    if (near != here->second.end() && seconds_between(record->time, *near) <= kAliveWindow_s)
      mixed_sources_.insert(host);
  }
  // A balancer spreads the requests of one start over its addresses, or has many of them. Two copies of a machine
  // change places only from one start to the next.
  for (const auto& [password, path] : hops) {
    const std::set<std::string> places(path.begin(), path.end());
    if (hops_within_start[password] >= 2 || (path.size() >= 5 && places.size() >= 3))
      mixed_sources_.insert(places.begin(), places.end());
  }
  names_mixed = !mixed_sources_.empty();
}

// Another machine, by name and by password, got in from an address between two records of this node from there.
void Facts::find_neighbours() {
  std::map<std::string, std::pair<Seq, Seq>, std::less<>> spans;
  std::set<Fingerprint> ours;
  for (const Attempt& attempt : attempts) ours.insert(attempt.presented);
  for (const Step* step : own) {
    const Record& record = *step->record;
    if (record.source.empty()) continue;
    const auto [span, added] = spans.try_emplace(plain_host(record.source), record.seq, record.seq);
    if (!added) span->second.second = record.seq;
  }
  for (const Record* record : elsewhere) {
    if (!is_success(*record) || record->node.empty() || ours.count(accepted_password(*record)) != 0) continue;
    const std::string host = plain_host(record->source);
    const auto span = spans.find(host);
    if (span == spans.end() || is_loopback(host)) continue;
    if (span->second.first < record->seq && record->seq < span->second.second) mixed_sources_.insert(host);
  }
}

// ---- what is refused and not settled ---------------------------------------------------------------------

void Facts::find_refusals() {
  Seq base = 0, success = 0;
  for (const Step* step : own) {
    if (settles(*step->record)) base = step->record->seq;
    if (is_success(*step->record)) success = step->record->seq;
  }
  std::vector<Attempt> open;
  for (const Attempt& attempt : attempts)
    if (!attempt.accepted && attempt.seq() > base) open.push_back(attempt);
  if (open.empty()) return;
  if (success > open.back().seq()) {
    if (!still_tried(open, success)) return;
    refusals.success_followed = true;
    success = base;  // the holder's successes do not settle what somebody else asks
  }
  // Everything since the last success, and earlier refusals of the same passwords: those of a machine that kept
  // on while the holder succeeded.
  std::set<Fingerprint> passwords;
  for (const Attempt& attempt : open)
    if (attempt.seq() > success) passwords.insert(attempt.presented);
  for (const Attempt& attempt : open)
    if (attempt.seq() > success || (attempt.presented.known() && passwords.count(attempt.presented) > 0))
      refusals.attempts.push_back(attempt);
}

// The name's last attempt succeeded; is somebody else still being refused? Only where that success cannot be
// the end of it: another machine's, and the refused one was there a moment ago.
bool Facts::still_tried(const std::vector<Attempt>& open, Seq success) const {
  const Attempt& last = open.back();
  const Record* winner = nullptr;  // the first success after it
  for (const Attempt& attempt : attempts)
    if (attempt.accepted && attempt.seq() > last.seq() && attempt.seq() <= success && winner == nullptr)
      winner = attempt.record;
  const std::optional<double> quiet = seconds_from(last.to(), end_time());
  if (winner == nullptr || !quiet || *quiet > kGaveUp_s) return false;
  for (const Record* record : elsewhere)  // the newcomer took another name: that settles it
    if (record->seq > last.seq() && is_success_with(*record, last.presented)) return false;
  const bool contradiction = is_success_with(*winner, last.presented);
  int flips = 0;  // between success and refusal
  bool interleaved = false;
  const Attempt* previous = nullptr;
  for (const Attempt& attempt : attempts) {
    const bool counts = attempt.accepted
                            ? attempt.seq() > open.front().seq() || contradiction
                            : attempt.presented == last.presented && attempt.seq() >= open.front().seq();
    if (!counts) continue;
    if (previous != nullptr && previous->accepted != attempt.accepted) {
      ++flips;
      const auto apart = distance(attempt, previous->accepted ? previous->to() : previous->from());
      if (attempt.seq() < last.seq() + 1 && apart && *apart <= kAliveWindow_s) interleaved = true;
    }
    previous = &attempt;
  }
  if (contradiction) return flips >= 3;
  Place loser, of_winner;
  for (const Attempt& attempt : open)
    if (attempt.presented == last.presented) loser.add(*attempt.record);
  of_winner.add(*winner);
  const Where where = compare(loser, of_winner);
  return where == Where::different || (where != Where::same && flips >= 2 && interleaved);
}

void Facts::describe_refusals() {
  Refusals& r = refusals;
  r.presented = r.last().presented;
  for (const Attempt& attempt : r.attempts) {
    r.count += attempt.record->count;
    const bool seen = std::find(r.passwords.begin(), r.passwords.end(), attempt.presented) != r.passwords.end();
    if (attempt.presented.known() && !seen) r.passwords.push_back(attempt.presented);
    if (attempt.presented == r.presented) r.newcomer.add(*attempt.record);
    if (attempt.bound.known()) r.holder = attempt.bound;
  }
  find_holder();
  find_signs_of_life();
}

// Who has the name, since when, and where from.
void Facts::find_holder() {
  Refusals& r = refusals;
  const Seq first = r.first().seq();
  if (!r.holder.known()) r.holder = r.first().step->bound_before;
  if (const Record* success = last_success_before(first); success != nullptr && !r.holder.known())
    r.holder = accepted_password(*success);
  Fingerprint current;
  bool bound = false;
  for (const Step* step : own) {
    const Record& record = *step->record;
    if (record.seq >= first) break;
    if (as<BindingReleased>(record) != nullptr) bound = false, current = {}, r.holder_since = 0;
    std::optional<Fingerprint> made = binding_made(record);
    if (!made && is_success(record) && (!bound || (accepted_password(record).known() && current.known())))
      made = accepted_password(record);
    if (!made || (bound && *made == current)) continue;
    bound = true, current = *made, r.holder_since = record.seq;
  }
  // A k3s hash was bound, and the refusal says what to: the same binding.
  if (r.holder.known() && current.known() && current != r.holder) r.holder_since = 0;

  // Where it was at its last start; addresses of longer ago may be others' by now.
  const Record* last = nullptr;
  for (auto attempt = attempts.rbegin(); attempt != attempts.rend(); ++attempt) {
    if (!attempt->accepted || attempt->seq() < r.holder_since || attempt->presented != r.holder) continue;
    const auto before = last != nullptr ? seconds_from(attempt->to(), last->time) : 0.0;
    if (!before || *before > kAliveWindow_s) break;
    if (last == nullptr) last = attempt->record;
    r.holder_place.add(*attempt->record);
  }
  if (last == nullptr)
    for (const Tunnel& tunnel : tunnels) r.holder_place.add(*tunnel.opened);
  r.where = compare(r.newcomer, r.holder_place);
}

namespace {

// Where a record stands to the refusals: by seq, and by time, since a count of many is written after them.
struct Span {
  const Refusals& r;
  Time begin, end;
  explicit Span(const Refusals& refusals)
      : r(refusals), begin(refusals.first().from()), end(refusals.last().to()) {}

  bool before(const Record& record) const {
    if (record.time.known() && begin.known()) return record.time <= begin && record.seq < r.last().seq();
    return record.seq < r.first().seq();
  }
  bool inside(const Record& record) const {
    return (record.seq > r.first().seq() && record.seq < r.last().seq()) ||
           (record.time.known() && begin.known() && record.time > begin && record.time < end);
  }
  // Within the window of one of the refusals: of the last before it or of the first two after it (a count of many
  // is written after what happened meanwhile).
  bool near(const Record& record) const {
    const auto after = std::lower_bound(r.attempts.begin(), r.attempts.end(), record.seq,
                                        [](const Attempt& attempt, Seq seq) { return attempt.seq() < seq; });
    const auto from = after == r.attempts.begin() ? after : std::prev(after);
    const auto to = r.attempts.end() - after > 2 ? after + 2 : r.attempts.end();
    return std::any_of(from, to, [&](const Attempt& attempt) {
      const auto apart = distance(attempt, record.time);
      return apart && *apart <= kAliveWindow_s;
    });
  }
};

void hear(const Record& record, const Span& span, Liveness& alive) {
  if (span.before(record) && (alive.last_sign == nullptr || alive.last_sign->seq < record.seq))
    alive.last_sign = &record;
}

}  // namespace

void Facts::find_signs_of_life() {
  Refusals& r = refusals;
  hear_requests();
  hear_tunnels();
  Liveness& alive = r.alive;
  if (alive.last_sign != nullptr) alive.silence_s = seconds_from(alive.last_sign->time, r.first().from());
  const bool heard_since = alive.seen() || alive.after != nullptr || alive.touching != nullptr;
  if (alive.gone != nullptr &&
      (heard_since || (alive.last_sign != nullptr && alive.last_sign->seq > alive.gone->seq)))
    alive.gone = nullptr;
}

// Its own successes, and authenticated requests from its address and not the newcomer's.
void Facts::hear_requests() {
  Refusals& r = refusals;
  Liveness& alive = r.alive;
  const Span span(r);
  for (const Step* step : own) {
    const Record& record = *step->record;
    if (record.seq < r.holder_since) continue;
    if (as<TokenAccepted>(record) != nullptr && span.inside(record)) {
      Place place;
      place.add(record);
      const Where to_holder = compare(place, r.holder_place);
      const bool holders = to_holder == Where::same || to_holder == Where::same_source;
      if (holders && compare(place, r.newcomer) == Where::different) alive.call = &record;
    }
    if (!is_success(record) || accepted_password(record) != r.holder) continue;
    hear(record, span, alive);
    const bool near = span.near(record);
    if (span.inside(record)) {
      if (alive.inside == nullptr || (near && !alive.inside_near)) alive.inside = &record;
      alive.inside_near = alive.inside_near || near;
    } else if (near || (r.success_followed && record.seq > r.last().seq())) {
      (record.seq < r.first().seq() ? alive.before : alive.after) = &record;
    }
  }
}

void Facts::hear_tunnels() {
  Refusals& r = refusals;
  Liveness& alive = r.alive;
  const Span span(r);
  for (const Tunnel& tunnel : tunnels) {
    if (tunnel.opened->seq < r.holder_since) continue;
    const bool by_server = tunnel.closed != nullptr && as<TunnelClosed>(*tunnel.closed) == nullptr;
    if (tunnel.closed != nullptr && !by_server) alive.tunnel_tells_closing = true;
    hear(*tunnel.opened, span, alive);
    if (tunnel.closed != nullptr && span.before(*tunnel.closed)) {
      hear(*tunnel.closed, span, alive);
      if (!by_server) alive.gone = tunnel.closed;
      continue;
    }
    if (tunnel.closed == nullptr && hole_between(tunnel.opened->seq, r.first().seq())) continue;  // its end, perhaps
    const Time until = tunnel.closed != nullptr ? tunnel.closed->time : end_time();
    const auto overlap = seconds_from(std::max(span.begin, tunnel.opened->time), until);
    const bool opened_before = span.before(*tunnel.opened);
    if (span.inside(*tunnel.opened) || (opened_before && overlap && *overlap >= kAliveWindow_s))
      alive.covering = tunnel.opened;
    else if (opened_before && tunnel.closed == nullptr)
      alive.touching = tunnel.opened;
    else if (opened_before && !by_server)
      alive.gone = tunnel.closed;  // the server noticed the loss while the newcomer was asking already
  }
}

// ---- which failure it is ---------------------------------------------------------------------------------

namespace {

std::int64_t count_after(const std::vector<const Record*>& records, Seq seq) {
  std::int64_t count = 0;
  for (const Record* record : records)
    if (record->seq > seq) count += record->count;
  return count;
}

// A refusal that says nothing about the node: the server could not decide just then.
bool is_passing(const Record& record) {
  const auto* rejected = as<RequestRejected>(record);
  return rejected != nullptr && (rejected->reason == "overloaded" || rejected->reason == "store_unavailable" ||
                                 is_upstream_failure(record));
}

// Requests without a name that an agent with a broken name or password file makes.
bool is_agents_own(const Record& record) {
  const auto* rejected = as<RequestRejected>(record);
  return rejected == nullptr || rejected->reason == "node_name_missing" ||
         rejected->reason == "node_name_invalid" || rejected->reason == "node_password_missing";
}

}  // namespace

// The failures of one sort that are not settled: in order, the node's own and those tied to it by address alone.
struct Facts::OpenFailures {
  std::vector<const Record*> token, request, handshake, probe;
  bool token_named = false, request_named = false;
};

// The node lived on through it, or was connected from elsewhere: who was refused there is not the node. An agent that
// starts anew has lost its tunnel, which the server notices within kAliveWindow_s.
bool Facts::is_somebody_elses(const Record& record) const {
  if (name_is(record) != NameIs::claimed) return false;
  Place asker;
  asker.add(record);
  return std::any_of(tunnels.begin(), tunnels.end(), [&](const Tunnel& tunnel) {
    const bool open = tunnel.opened->seq < record.seq && (tunnel.closed == nullptr || tunnel.closed->seq > record.seq);
    if (!open) return false;
    Place holder;
    holder.add(*tunnel.opened);
    if (compare(asker, holder) == Where::different) return true;
    const auto lasted = seconds_from(record.time, tunnel.closed != nullptr ? tunnel.closed->time : end_time());
    return is_bare_claim(record) && lasted && *lasted >= kAliveWindow_s;
  });
}

Facts::OpenFailures Facts::open_failures() {
  Seq admitted = 0, authenticated = 0;
  Time admitted_at;
  for (const Step* step : own) {
    const Record& record = *step->record;
    if (is_success(record) || as<CertificateIssued>(record) != nullptr || as<TunnelOpened>(record) != nullptr)
      admitted = authenticated = record.seq, admitted_at = record.time;
    if (as<TokenAccepted>(record) != nullptr || as<PasswordRejected>(record) != nullptr) authenticated = record.seq;
  }
  OpenFailures open;
  const auto sort_in = [&](const Record& record) {
    if (as<TokenRejected>(record) != nullptr && record.seq > authenticated) open.token.push_back(&record);
    if (as<RequestRejected>(record) != nullptr && record.seq > admitted) open.request.push_back(&record);
    const auto* tls = as<TlsFailed>(record);
    const bool expected = tls != nullptr && tls->trust_probe.value_or(false);
    if (tls != nullptr && record.seq > admitted && !expected) open.handshake.push_back(&record);
    if (tls != nullptr && record.seq > authenticated && expected) open.probe.push_back(&record);
  };
  for (const Step* step : own) {
    const Record& record = *step->record;
    const bool before_password = as<TokenRejected>(record) != nullptr || as<RequestRejected>(record) != nullptr;
    if (before_password && is_somebody_elses(record))
      strangers.push_back(&record);
    else
      sort_in(record);
  }
  open.token_named = !open.token.empty(), open.request_named = !open.request.empty();
  // Without a name they are the node's own only by its address, and not while its tunnel is up.
  // A count of many is written some time after the last of them: it belongs where it began.
  for (const Record* record : nameless) {
    const bool began_before = record->first_time && admitted_at.known() && *record->first_time <= admitted_at;
    if (!tunnel_open_at(*record) && is_agents_own(*record) && !began_before) sort_in(*record);
  }
  const auto by_seq = [](const Record* a, const Record* b) { return a->seq < b->seq; };
  for (auto* records : {&open.token, &open.request, &open.handshake, &open.probe})
    std::sort(records->begin(), records->end(), by_seq);
  return open;
}

// Whether these stand in the node's way now, though its password was refused as well: then the machine must have
// stopped getting as far as that.
bool Facts::stand_first(const std::vector<const Record*>& failures_of_sort, bool are_named) const {
  if (failures_of_sort.empty()) return false;
  if (refusals.attempts.empty()) return true;
  const Seq last = refusals.last().seq();
  const std::int64_t since = count_after(failures_of_sort, last);
  const std::optional<double> gap = seconds_from(refusals.last().to(), failures_of_sort.back()->time);
  if (since == 0) return false;
  if (!are_named || is_passing(*failures_of_sort.back())) return gap && *gap > kGaveUp_s && since >= 2;
  const bool rotated = std::any_of(server_wide.begin(), server_wide.end(), [&](const Record* record) {
    return as<TokenRotated>(*record) != nullptr && record->seq > last;
  });
  return since >= 2 || rotated || (gap && *gap > kSameRetries_s);
}

void Facts::find_family() {
  OpenFailures open = open_failures();
  const bool by_token = stand_first(open.token, open.token_named);
  const bool by_request = stand_first(open.request, open.request_named);
  if (by_token && (!by_request || open.token.back()->seq > open.request.back()->seq)) {
    family = Family::token;
    failures = std::move(open.token);
  } else if (by_request) {
    family = Family::request;
    failures = std::move(open.request);
  } else if (!refusals.attempts.empty()) {
    family = Family::password;
  } else if (count_after(open.handshake, 0) >= 3) {  // one or two are somebody's browser
    family = Family::handshake;
    failures = std::move(open.handshake);
  } else if (count_after(open.probe, 0) >= kProbesInVain && !names_mixed) {
    const auto quiet = seconds_from(open.probe.back()->time, end_time());
    if (!quiet || *quiet > kGaveUp_s) return;
    family = Family::handshake;
    failures = std::move(open.probe);
    only_probes = true;
  }
}

// ---- questions -------------------------------------------------------------------------------------------

std::string Facts::short_name(const Fingerprint& fingerprint) const { return short_name(fingerprint.text); }

std::string Facts::short_name(std::string_view fingerprint) const {
  const auto [here, next] = std::equal_range(fingerprints_.begin(), fingerprints_.end(), fingerprint);
  return replay::short_name(fingerprint, here == fingerprints_.begin() ? "" : *std::prev(here),
                            next == fingerprints_.end() ? "" : *next);
}

const Record* Facts::known_good_before(const Fingerprint& password, Seq seq) const {
  const Record* found = nullptr;
  if (!password.known()) return nullptr;
  for (const Step* step : own) {
    const Record& record = *step->record;
    if (record.seq >= seq) break;
    const std::optional<Fingerprint> made = binding_made(record);
    const auto* released = as<BindingReleased>(record);
    const auto* changed = as<BindingChanged>(record);
    if ((made && *made == password) || is_success_with(record, password) ||
        (released != nullptr && released->fingerprint == password) ||
        (changed != nullptr && changed->from == password))
      found = &record;
  }
  return found;
}

const Record* Facts::known_elsewhere(const Fingerprint& password) const {
  const Record* found = nullptr;
  if (!password.known()) return nullptr;
  for (const Record* record : elsewhere)
    if (!record->node.empty() && is_success_with(*record, password)) found = record;
  return found;
}

const Record* Facts::judged_claim() const {
  const bool requests = family == Family::token || family == Family::request;
  const bool claimed = requests && !failures.empty() && name_is(*failures.back()) == NameIs::claimed;
  return claimed ? failures.back() : nullptr;
}

bool Facts::tunnel_open_at(const Record& record) const {
  return std::any_of(tunnels.begin(), tunnels.end(), [&](const Tunnel& tunnel) {
    if (tunnel.opened->seq > record.seq || (tunnel.closed != nullptr && tunnel.closed->seq < record.seq)) return false;
    // Its end may be what could not be read.
    return tunnel.closed != nullptr || !hole_between(tunnel.opened->seq, record.seq);
  });
}

const Record* Facts::last_success_before(Seq seq) const {
  return last_between<PasswordStored, PasswordVerified>(0, seq);
}

bool Facts::upstream_decides_now() const {
  if (mode != nullptr) return as<ModeChanged>(*mode)->mode == "observe";
  if (!refusals.attempts.empty()) return is_upstreams(*refusals.last().record);
  return !failures.empty() && is_upstreams(*failures.back());
}

Facts::MemoryChange Facts::memory_change(Seq after, Seq before) const {
  MemoryChange found;
  const bool upstreams = !refusals.attempts.empty() && is_upstreams(*refusals.last().record);
  std::map<std::string_view, std::string_view> ledgers;  // by server
  for (const Record* record : server_wide) {
    if (record->seq >= before) break;
    if (const auto* epoch = as<EpochStarted>(*record); epoch != nullptr && record->seq > after)
      if ((epoch->cause == "restored" || epoch->cause == "datastore_changed") && is_upstreams(*record) == upstreams)
        found = {record, epoch->cause};
    const auto* started = as<ServerStarted>(*record);
    if (started == nullptr || started->ledger.empty() || upstreams) continue;
    std::string_view& known = ledgers[record->server];
    if (!known.empty() && known != started->ledger && record->seq > after) found = {record, "datastore_changed"};
    known = started->ledger;
  }
  return found;
}

const Record* Facts::ca_change(Seq after, Seq before) const {
  const Record* found = nullptr;
  std::map<std::string_view, std::string> cas;  // by server
  for (const Record* record : server_wide) {
    if (record->seq >= before) break;
    if (const auto* epoch = as<EpochStarted>(*record); epoch != nullptr && record->seq > after)
      if (epoch->cause == "ca_changed") found = record;
    const auto* started = as<ServerStarted>(*record);
    if (started == nullptr || (started->client_ca.empty() && started->server_ca.empty())) continue;
    const std::string now = started->client_ca + " " + started->server_ca;
    std::string& known = cas[record->server];
    if (!known.empty() && known != now && record->seq > after) found = record;
    known = now;
  }
  return found;
}

bool Facts::hole_between(Seq after, Seq before) const {
  return std::any_of(history.holes.begin(), history.holes.end(),
                     [&](const Hole& hole) { return hole.after >= after && hole.after < before; });
}

const Hole* Facts::hole_since(Seq after) const {
  for (const Hole& hole : history.holes)
    if (hole.after >= after) return &hole;
  return nullptr;
}

}  // namespace ledger::replay
