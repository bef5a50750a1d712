#include "replay/whatif.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "ledger/token_table.h"
#include "replay/hindsight.h"

namespace ledger::replay {

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::harmless: return "harmless";
    case Verdict::takeover: return "takeover";
    case Verdict::undecided: return "undecided";
  }
  fatal("a verdict without a name");
}

void Outcomes::add(std::uint64_t more, Seq seq) {
  if (more == 0) return;
  if (count == 0) first = seq;
  count += more;
  last = seq;
}

std::uint64_t WhatIf::count(Verdict verdict) const {
  std::uint64_t found = 0;
  for (const NodeJudgement& each : nodes) {
    for (const Displacement& displacement : each.displacements) found += displacement.verdict == verdict;
    if (verdict == Verdict::undecided) found += each.displacements_left_out;
  }
  return found;
}

namespace {

constexpr std::size_t kDisplacements = 32;  // watched per name
constexpr std::size_t kTunnels = 64;        // open at once per name
constexpr std::size_t kRefusedPasswords = 64;
constexpr std::string_view kSeveral = "*";  // no node's name
constexpr std::string_view kNodePrincipal = "system:node:";
constexpr std::string_view kPasswordPath = "-kubelet.crt";  // the two documents that ask for a node password

TokenResult token_result_of(std::string_view reason) {
  for (const TokenResult result : {TokenResult::missing, TokenResult::malformed, TokenResult::unknown_principal,
                                   TokenResult::wrong_secret, TokenResult::expired, TokenResult::revoked,
                                   TokenResult::superseded, TokenResult::wrong_class})
    if (reason_name(result) == reason) return result;
  return TokenResult::wrong_secret;
}

std::uint64_t count_of(const Record& record) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(record.count, 1));
}

// A registration as the records have it.
struct Attempt {
  Fingerprint presented;
  bool admitted = false;
  Ruling ruling = Ruling::refuse_mismatch;  // what the record says came of it
};

std::optional<Attempt> attempt_of(const Record& record) {
  if (const auto* stored = as<PasswordStored>(record)) return Attempt{stored->fingerprint, true, Ruling::admit_first};
  if (const auto* verified = as<PasswordVerified>(record))
    return Attempt{verified->fingerprint, true, Ruling::admit_known};
  if (const auto* rejected = as<PasswordRejected>(record))
    return Attempt{rejected->fingerprint, false, Ruling::refuse_mismatch};
  return std::nullopt;
}

// When each token id ceased to be accepted, however that came.
class TokenEnds {
 public:
  void apply(const Record& record) {
    table_.apply(record);
    if (const auto* created = as<TokenCreated>(record)) note_expiry(*created);
    if (const auto* revoked = as<TokenRevoked>(record)) ended_.insert_or_assign(revoked->token, record.time);
    if (const auto* expired = as<TokenExpired>(record)) ended_.insert_or_assign(expired->token, record.time);
    if (const auto* rotated = as<TokenRotated>(record)) {
      note_expiry(*rotated);
      for (const TokenState& token : table_.all())
        if (token.ended.seq == record.seq) ended_.insert_or_assign(token.id, record.time);
    }
  }
  // Not known: the history does not show it.
  Time ended(const std::string& token, TokenResult how) const {
    const auto expires = expires_.find(token);
    if (how == TokenResult::expired && expires != expires_.end()) return expires->second;
    const auto found = ended_.find(token);
    return found == ended_.end() ? Time{} : found->second;
  }

 private:
  void note_expiry(const auto& event) {
    if (event.expires) expires_.insert_or_assign(event.token, *event.expires);
  }

  TokenTable table_;
  std::map<std::string, Time, std::less<>> ended_, expires_;
};

// A name as it was and as it would have been.
struct Track {
  NodeState recorded;
  std::optional<NodeState> supposed;  // set while it differs from what is recorded
  // Of the recorded holder.
  Time heard;
  OpenTunnels tunnels;
  std::map<std::string, std::string, std::less<>> tunnel_servers;  // session -> server
  bool had_tunnel = false;
  std::map<Fingerprint, Seq> refused;  // under this binding: when each password was first refused
  std::vector<Hindsight> displaced;
  NodeJudgement told;

  const NodeState& now() const { return supposed ? *supposed : recorded; }
};

bool same_binding(const NodeState& a, const NodeState& b) {
  return a.bound == b.bound && a.bound_by_hash == b.bound_by_hash && a.held == b.held && a.released == b.released;
}

// Equal in all that decide_under() looks at.
bool equivalent(const NodeState& a, const NodeState& b) {
  const bool a_came = a.registered.seq >= a.since, b_came = b.registered.seq >= b.since;
  return same_binding(a, b) && a_came == b_came && host_of(a.registered.source) == host_of(b.registered.source);
}

class Judge {
 public:
  // The policy is in force for records after `after`, up to `until`.
  Judge(const WhatIfOptions& options, Seq after, Seq until) : options_(options), after_(after), until_(until) {
    out_.policy = options.policy;
    out_.node = options.node;
  }

  void take(const Record& record);
  WhatIf finish();

 private:
  // How many of a record's outcomes would have been what.
  struct Split {
    std::uint64_t admitted = 0, refused = 0, unknown = 0;
    std::string_view missing{};
  };
  template <class Ask>
  static Split split(const Record& record, Ask&& ask);
  void tally(const Record& record, bool was_admitted, const Split& outcome, NodeJudgement* told);

  bool in_force(const Record& record) const { return record.seq > after_ && record.seq <= until_; }
  bool wanted(std::string_view node) const { return options_.node.empty() || node == options_.node; }
  Track* track_of(const Record& record);
  void fold(const Record& record, Track& track);

  void note_host(const Record& record);
  void hear_life(const Record& record, Track& track);
  void open_tunnel(const Record& record, Track& track, const std::string& session);
  void close_tunnel(Time when, Track& track, std::string session, bool by_server);
  void end_tunnels(const Record& started);

  void act(const Record& record, Track& track);
  void attempt(const Record& record, Track& track, const Attempt& made);
  bool follows(const Record& record, const NodeState& before, const Attempt& made) const;
  void judge(const Record& record, Track& track, const Attempt& made, const NodeState& before);
  void displace(const Record& record, Track& track, const Attempt& made, const PolicyRuling& ruling,
                std::uint64_t admitted);
  void go_on(const Record& record, Track& track, const Attempt& made, const PolicyRuling& ruling);
  void contradict(const Record& record, Track& track, const Attempt& made);

  void reject_token(const Record& record, const TokenRejected& event);
  PolicyRuling ask_about_token(const Record& record, const TokenRejected& event, Time now) const;

  const WhatIfOptions& options_;
  Seq after_, until_;
  WhatIf out_;
  TokenEnds tokens_;
  std::unordered_map<std::string, Track> tracks_;
  NodeJudgement nameless_;
  std::uint64_t imported_ = 0, contradictions_ = 0;
  Seq first_contradiction_ = 0;
  bool tunnels_recorded_ = false;  // of whichever name, so far
  std::unordered_map<std::string, std::string> host_names_;  // host -> the name that registered from it, or kSeveral
};

// ---- counting --------------------------------------------------------------------------------------------

template <class Ask>
Judge::Split Judge::split(const Record& record, Ask&& ask) {
  Split out;
  const auto put = [&](const PolicyRuling& ruling, std::uint64_t count) {
    if (!ruling.decided())
      out.unknown += count, out.missing = ruling.unknown;
    else
      (ruling.admits() ? out.admitted : out.refused) += count;
  };
  const std::uint64_t count = count_of(record);
  const PolicyRuling last = ask(record.time);
  const PolicyRuling first = count > 1 && record.first_time ? ask(*record.first_time) : last;
  if (first.admits() == last.admits() && first.decided() == last.decided()) {
    put(last, count);
    return out;
  }
  put(first, 1), put(last, 1);  // a limit of the policy was passed somewhere between the first and the last of them
  out.unknown += count - 2;
  if (out.missing.empty()) out.missing = "when a limit was passed among outcomes that were counted together";
  return out;
}

void Judge::tally(const Record& record, bool was_admitted, const Split& outcome, NodeJudgement* told) {
  const std::uint64_t all = outcome.admitted + outcome.refused + outcome.unknown;
  if (outcome.unknown > 0 && told != nullptr)
    told->undecided[std::string(outcome.missing)].add(outcome.unknown, record.seq);
  if (was_admitted) {
    out_.admissions += all;
    out_.locked_out += outcome.refused;
    out_.admissions_undecided += outcome.unknown;
    if (told != nullptr) told->locked_out.add(outcome.refused, record.seq);
    return;
  }
  out_.refusals += all;
  out_.admitted += outcome.admitted;
  out_.undecided += outcome.unknown;
  const Kind kind = record.kind();
  (kind == Kind::password_rejected ? out_.stay_password
   : kind == Kind::token_rejected  ? out_.stay_token
                                   : out_.stay_request) += outcome.refused;
}

// ---- signs of life ---------------------------------------------------------------------------------------

void Judge::open_tunnel(const Record& record, Track& track, const std::string& session) {
  track.had_tunnel = true;
  if (track.tunnels.size() < kTunnels) {
    track.tunnels.insert_or_assign(session, record.seq);
    track.tunnel_servers.insert_or_assign(session, record.server);
  }
  for (Hindsight& each : track.displaced) each.hear_tunnel_opened(record);
}

void Judge::close_tunnel(Time when, Track& track, std::string session, bool by_server) {
  if (!track.tunnels.contains(session) && !track.tunnels.empty()) {
    // A history that does not name the session: the oldest, since agents reconnect before the old one dies.
    const auto oldest = std::min_element(track.tunnels.begin(), track.tunnels.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
    session = oldest->first;
  }
  track.tunnels.erase(session);
  track.tunnel_servers.erase(session);
  for (Hindsight& each : track.displaced) each.hear_tunnel_closed(when, session, by_server);
}

// No connection outlives the server's process.
void Judge::end_tunnels(const Record& started) {
  for (auto& [node, track] : tracks_) {
    std::vector<std::string> ended;
    for (const auto& [session, server] : track.tunnel_servers)
      if (server.empty() || started.server.empty() || server == started.server) ended.push_back(session);
    if (!ended.empty()) track.heard = started.time;  // it may have lived until then
    for (const std::string& session : ended) close_tunnel(started.time, track, session, true);
  }
}

void Judge::note_host(const Record& record) {
  if (record.source.empty()) return;
  const auto [known, is_new] = host_names_.try_emplace(std::string(host_of(record.source)), record.node);
  if (!is_new && known->second != record.node) known->second = kSeveral;
}

void Judge::hear_life(const Record& record, Track& track) {
  if (const auto* opened = as<TunnelOpened>(record)) {
    open_tunnel(record, track, opened->session);
  } else if (const auto* closed = as<TunnelClosed>(record)) {
    close_tunnel(record.time, track, closed->session, false);
  } else if (as<TokenAccepted>(record) == nullptr || record.auth.method != "certificate") {
    return;
  }
  track.heard = record.time;
}

// ---- what people do --------------------------------------------------------------------------------------

// One step of the real fold, with what follows from a new binding.
void Judge::fold(const Record& record, Track& track) {
  const Seq since = track.recorded.since;
  if (!apply(record, track.recorded)) return;
  if (as<PasswordRejected>(record) == nullptr && as<BindingHeld>(record) == nullptr) track.heard = record.time;
  if (track.recorded.since == since) return;
  track.refused.clear();
  // An imported hash that shows its password is the same binding; everything else is a new holder.
  if (as<PasswordVerified>(record) == nullptr) track.had_tunnel = !track.tunnels.empty();
}

// Both worlds are told of it: people would have done it there too, as far as anybody knows.
void Judge::act(const Record& record, Track& track) {
  if (const auto* changed = as<BindingChanged>(record)) {
    const bool same = track.supposed && track.supposed->bound == changed->to;
    if (in_force(record) && same && changed->by == "operator_accept") track.told.needless.add(1, record.seq);
    for (Hindsight& each : track.displaced) each.hear_accept(record.seq, changed->to);
  }
  fold(record, track);
  if (track.supposed) apply(record, *track.supposed);
}

// ---- registrations ---------------------------------------------------------------------------------------

// Whether the rule that ran says what the record says.
bool Judge::follows(const Record& record, const NodeState& before, const Attempt& made) const {
  Evidence evidence{TokenResult::accepted, HeaderResult::complete, before, made.presented};
  if (before.is_bound() && !before.bound.known()) evidence.hash_match = made.admitted;
  const Ruling ruling = decide(evidence);
  const auto* rejected = as<PasswordRejected>(record);
  if (rejected == nullptr) return ruling == made.ruling;
  const bool other_binding = rejected->bound.known() && before.bound.known() && rejected->bound != before.bound;
  return !other_binding && (ruling == Ruling::refuse_mismatch || ruling == Ruling::refuse_held);
}

void Judge::attempt(const Record& record, Track& track, const Attempt& made) {
  for (Hindsight& each : track.displaced) each.hear_password(record, made.presented, made.admitted);
  NodeState before = track.recorded;
  // An extract: the record itself says what was there before it.
  if (before.version == 0 && made.ruling != Ruling::admit_first) apply(record, before);
  if (!in_force(record))
    fold(record, track);
  else if (follows(record, before, made))
    judge(record, track, made, before);
  else
    contradict(record, track, made);
  if (!made.admitted && made.presented.known() && track.refused.size() < kRefusedPasswords)
    track.refused.emplace(made.presented, record.seq);
}

void Judge::contradict(const Record& record, Track& track, const Attempt& made) {
  if (contradictions_++ == 0) first_contradiction_ = record.seq;
  Split outcome;
  outcome.unknown = count_of(record);
  outcome.missing = "the record does not follow from the history before it";
  tally(record, made.admitted, outcome, &track.told);
  track.supposed.reset();
  fold(record, track);
}

void Judge::judge(const Record& record, Track& track, const Attempt& made, const NodeState& before) {
  const NodeState supposed = track.supposed ? *track.supposed : before;
  const bool as_recorded = !track.supposed || (same_binding(supposed, before) && supposed.since == before.since);
  PolicyEvidence evidence;
  evidence.evidence = {TokenResult::accepted, HeaderResult::complete, supposed, made.presented};
  if (as_recorded && before.is_bound() && !before.bound.known()) evidence.evidence.hash_match = made.admitted;
  evidence.source = record.source;
  evidence.heard = as_recorded ? track.heard : supposed.registered.time;
  evidence.heard_maybe_later = !as_recorded || !tunnels_recorded_;
  evidence.tunnel_open = as_recorded && !track.tunnels.empty();
  evidence.binding_not_shown = supposed.is_bound() && supposed.since == 0;
  const auto ask = [&](Time now) {
    evidence.now = now;
    return decide_under(options_.policy, evidence);
  };
  const Split outcome = split(record, ask);
  tally(record, made.admitted, outcome, &track.told);
  const PolicyRuling last = ask(record.time);
  if (!made.admitted && last.admits()) displace(record, track, made, last, outcome.admitted);
  go_on(record, track, made, last);
}

// The name goes over to another password, or has done so and this is one more request of the new holder.
void Judge::displace(const Record& record, Track& track, const Attempt& made, const PolicyRuling& ruling,
                     std::uint64_t admitted) {
  const NodeState& state = track.now();
  const bool goes_over = ruling.rules.same_address || ruling.rules.silence;
  for (Hindsight& each : track.displaced) {
    Displacement& known = each.displacement;
    if (known.newcomer != made.presented || (goes_over && known.holder != state.bound)) continue;
    known.refusals.add(admitted, record.seq);
    known.times += goes_over;
    return;
  }
  if (!goes_over) return;
  if (track.displaced.size() >= kDisplacements) {
    ++track.told.displacements_left_out;
    return;
  }
  Displacement fresh;
  fresh.newcomer = made.presented, fresh.holder = state.bound;
  fresh.source = host_of(record.source);
  fresh.rules = ruling.rules;
  fresh.refusals.add(admitted, record.seq);
  fresh.times = 1;
  const auto refused = track.refused.find(made.presented);
  HolderBefore before;
  before.registered = track.recorded.registered.seq;
  before.newcomer_refused = refused == track.refused.end() ? 0 : refused->second;
  before.tunnels = track.tunnels;
  before.had_tunnel = track.had_tunnel;
  track.displaced.emplace_back(record, std::move(fresh), std::move(before));
}

// Both states move on. Where the outcome cannot be told the record is followed.
void Judge::go_on(const Record& record, Track& track, const Attempt& made, const PolicyRuling& ruling) {
  if (!ruling.decided()) {
    track.supposed.reset();
    return fold(record, track);
  }
  if (!track.supposed && ruling.admits() == made.admitted) return fold(record, track);
  NodeState supposed = track.now();
  Record instead = record;
  if (ruling.ruling == Ruling::admit_first)
    instead.event = PasswordStored{made.presented};
  else if (ruling.ruling == Ruling::admit_known)
    instead.event = PasswordVerified{made.presented};
  else
    instead.event = PasswordRejected{.fingerprint = made.presented, .bound = supposed.bound, .status = 403};
  apply(instead, supposed);
  fold(record, track);
  if (equivalent(supposed, track.recorded))
    track.supposed.reset();
  else
    track.supposed = std::move(supposed);
}

// ---- tokens ----------------------------------------------------------------------------------------------

// What the request would have come to with the token accepted.
PolicyRuling Judge::ask_about_token(const Record& record, const TokenRejected& event, Time now) const {
  PolicyEvidence evidence;
  evidence.evidence.token = token_result_of(event.reason);
  evidence.now = now;
  evidence.token_ended = tokens_.ended(event.token, evidence.evidence.token);
  // Documents ask for no password, and a free name takes any.
  if (record.endpoint.ends_with(kPasswordPath)) {
    if (record.node.empty()) evidence.evidence.headers = HeaderResult::node_name_missing;
    const auto found = tracks_.find(record.node);
    if (found != tracks_.end()) evidence.evidence.node = found->second.now();
  }
  Policy token_only;
  token_only.token_grace = options_.policy.token_grace;
  PolicyRuling ruling = decide_under(token_only, evidence);
  if (ruling.decided() && ruling.rules.token_grace) {
    if (record.endpoint.empty()) ruling.unknown = "what was asked for: the record of a refused token does not say";
    if (ruling.ruling == Ruling::refuse_mismatch)
      ruling.unknown = "the password: where the token is refused it is never looked at";
  }
  return ruling;
}

void Judge::reject_token(const Record& record, const TokenRejected& event) {
  if (!in_force(record) || !wanted(record.node)) return;
  const auto ask = [&](Time now) { return ask_about_token(record, event, now); };
  const Split outcome = split(record, ask);
  if (outcome.admitted + outcome.unknown == 0) return tally(record, false, outcome, nullptr);
  NodeJudgement& told = record.node.empty() ? nameless_ : tracks_[record.node].told;
  tally(record, false, outcome, &told);
  told.by_token.add(outcome.admitted, record.seq);
  if (outcome.admitted == 0 || !record.endpoint.ends_with(kPasswordPath)) return;
  // The name was free: now it would be bound, and nobody knows to which password.
  Track& track = tracks_[record.node];
  NodeState supposed = track.now();
  Record bound = record;
  bound.event = BindingImported{.fingerprint = {}, .origin = "log"};
  apply(bound, supposed);
  track.supposed = std::move(supposed);
}

// ---- the walk --------------------------------------------------------------------------------------------

Track* Judge::track_of(const Record& record) {
  std::string node = record.node;
  if (node.empty() && record.auth.principal.starts_with(kNodePrincipal))
    node = to_lower(std::string_view(record.auth.principal).substr(kNodePrincipal.size()));
  if (node.empty() || !wanted(node)) return nullptr;
  NodeState any;
  const Kind kind = record.kind();
  if (apply(record, any) || kind == Kind::tunnel_opened || kind == Kind::tunnel_closed) return &tracks_[node];
  const auto found = tracks_.find(node);
  return found == tracks_.end() ? nullptr : &found->second;
}

void Judge::take(const Record& record) {
  out_.end = {.seq = record.seq, .time = record.time};
  if (in_force(record)) {
    out_.to = out_.end;
    if (out_.from.seq == 0) out_.from = out_.end;
  }
  if (is_imported(record)) {
    imported_ += wanted(record.node);
    return;
  }
  if (is_server_wide(record.kind())) tokens_.apply(record);
  if (as<ServerStarted>(record) != nullptr) end_tunnels(record);
  tunnels_recorded_ = tunnels_recorded_ || as<TunnelOpened>(record) != nullptr;
  if (const auto* rejected = as<TokenRejected>(record)) return reject_token(record, *rejected);
  if (as<RequestRejected>(record) != nullptr) {
    if (!in_force(record) || !wanted(record.node)) return;
    Split stays;  // no rule speaks of these
    stays.refused = count_of(record);
    return tally(record, false, stays, nullptr);
  }
  if (as<PasswordStored>(record) != nullptr || as<PasswordVerified>(record) != nullptr) note_host(record);
  Track* track = track_of(record);
  if (track == nullptr) return;
  if (const std::optional<Attempt> made = attempt_of(record)) return attempt(record, *track, *made);
  hear_life(record, *track);
  act(record, *track);
}

WhatIf Judge::finish() {
  const auto add = [&](NodeJudgement& told) {
    const bool anything = !told.displacements.empty() || told.displacements_left_out > 0 || told.by_token.count > 0 ||
                          told.locked_out.count > 0 || told.needless.count > 0 || !told.undecided.empty();
    if (anything) out_.nodes.push_back(std::move(told));
  };
  for (auto& [node, track] : tracks_) {
    track.told.node = node;
    for (const Hindsight& each : track.displaced) {
      Displacement displacement = each.judge(out_.end.time);
      const auto host = host_names_.find(displacement.source);
      displacement.address_shared = host != host_names_.end() && host->second == kSeveral;
      track.told.displacements.push_back(std::move(displacement));
    }
    add(track.told);
  }
  std::sort(out_.nodes.begin(), out_.nodes.end(),
            [](const NodeJudgement& a, const NodeJudgement& b) { return a.node < b.node; });
  add(nameless_);
  if (imported_ > 0)
    out_.warnings.push_back(fmt::format("{} imported record(s) tell of another server's decisions and were not judged",
                                        imported_));
  if (contradictions_ > 0)
    out_.warnings.push_back(fmt::format("{} record(s), the first at {}, do not follow from the history before them (an "
                                        "extract, or another program's log): they were taken as recorded",
                                        contradictions_, first_contradiction_));
  return std::move(out_);
}

// The cut that ends right before this one begins.
Cut just_before(const Cut& cut) {
  Cut before;
  if (cut.seq) before.seq = *cut.seq == 0 ? 0 : *cut.seq - 1;
  if (cut.time) before.time = Time{cut.time->micros - 1};
  return before;
}

bool is_set(const Cut& cut) { return cut.seq || cut.time; }

}  // namespace

Result<WhatIf> whatif(RecordSource& source, const WhatIfOptions& options, const Progress& progress) {
  Seq after = 0, until = UINT64_MAX;
  if (is_set(options.since) || is_set(options.until)) {
    const Cut cuts[] = {is_set(options.since) ? just_before(options.since) : Cut{.seq = 0, .time = {}}, options.until};
    const auto found = source.find(cuts, progress);
    if (!found) return found.error();
    after = (*found)[0].seq;
    if (is_set(options.until)) until = (*found)[1].seq;
    if (after > until) return Error{Errc::invalid, "--since is later than --until: there is nothing between them"};
  }
  Judge judge(options, after, until);
  const Result<void> read = source.each(0, UINT64_MAX, [&](const Record& record) { judge.take(record); }, progress);
  if (!read) return read.error();
  WhatIf out = judge.finish();
  if (source.unreadable() > 0)
    out.warnings.push_back(fmt::format("{} record(s) cannot be read, the first after record {}: what follows may be "
                                       "judged from a wrong state",
                                       source.unreadable(), source.first_unreadable()->after));
  return out;
}

}  // namespace ledger::replay
