#include "replay/diff.h"

#include <fmt/format.h>

#include <deque>
#include <map>
#include <set>

namespace ledger::replay {

std::string_view name_of(NetEffect effect) {
  switch (effect) {
    case NetEffect::none: return "none";
    case NetEffect::bound: return "bound";
    case NetEffect::rebound: return "rebound";
    case NetEffect::bound_anew: return "bound_anew";
    case NetEffect::fingerprint_known: return "fingerprint_known";
    case NetEffect::released: return "released";
    case NetEffect::held: return "held";
    case NetEffect::hold_ended: return "hold_ended";
    case NetEffect::refused: return "refused";
    case NetEffect::admitted: return "admitted";
    case NetEffect::registered: return "registered";
  }
  fatal("a net effect without a name");
}

namespace {

std::optional<NetEffect> effect_on_binding(const NodeState& before, const NodeState& after, Kind made_by) {
  if (before.is_bound() != after.is_bound()) return after.is_bound() ? NetEffect::bound : NetEffect::released;
  if (!after.is_bound() || before.since == after.since) return std::nullopt;
  const bool was_hash = !before.bound.known(), is_hash = !after.bound.known();
  if (was_hash && !is_hash && made_by == Kind::password_verified) return NetEffect::fingerprint_known;
  return before.bound == after.bound && was_hash == is_hash ? NetEffect::bound_anew : NetEffect::rebound;
}

}  // namespace

std::vector<NetEffect> net_effects(const NodeState& before, const NodeState& after, Kind made_by) {
  std::vector<NetEffect> effects;
  if (const auto binding = effect_on_binding(before, after, made_by)) effects.push_back(*binding);
  if (before.held != after.held) effects.push_back(after.held ? NetEffect::held : NetEffect::hold_ended);
  const bool again = after.registered.seq != before.registered.seq;
  if (after.rejections > 0 && after.rejected.seq != before.rejected.seq) effects.push_back(NetEffect::refused);
  if (before.rejections > 0 && after.rejections == 0 && again && after.registered.seq > before.rejected.seq)
    effects.push_back(NetEffect::admitted);
  if (effects.empty()) effects.push_back(again && after.is_bound() ? NetEffect::registered : NetEffect::none);
  return effects;
}

namespace {

constexpr std::size_t kStepsKept = 20;  // at either end

// Who made a record, as a step tells it.
struct Author {
  ChangeStep& step;

  void person(const std::string& actor, const std::string& by) const {
    step.by_operator = true;
    if (!actor.empty()) step.who = actor;
    step.by = by;
  }
  void operator()(const PasswordStored& e) const { step.fingerprint = e.fingerprint; }
  void operator()(const PasswordVerified& e) const { step.fingerprint = e.fingerprint; }
  void operator()(const PasswordRejected& e) const { step.fingerprint = e.fingerprint; }
  void operator()(const BindingReleased& e) const { person(e.actor, e.by), step.fingerprint = e.fingerprint; }
  void operator()(const BindingChanged& e) const { person(e.actor, e.by), step.fingerprint = e.to; }
  void operator()(const BindingHeld& e) const { person(e.actor, "operator"); }
  void operator()(const BindingImported& e) const { person("", "import"), step.fingerprint = e.fingerprint; }
  template <Kind K>
  void operator()(const TokenChanged<K>& e) const {
    person(e.actor, "");
  }
  void operator()(const auto&) const {}
};

ChangeStep step_of(const Record& record) {
  ChangeStep step;
  step.first = step.last = record.seq;
  step.from = record.first_time.value_or(record.time), step.to = record.time;
  step.kind = record.kind();
  step.count = static_cast<std::uint64_t>(record.count);
  step.note = record.note;
  step.who = host_of(record.source);
  std::visit(Author{step}, record.event);
  return step;
}

bool repeats(const ChangeStep& before, const ChangeStep& step) {
  return !step.by_operator && before.kind == step.kind && before.fingerprint == step.fingerprint &&
         before.who == step.who && before.note == step.note;
}

// The steps of one node in bounded room.
class Steps {
 public:
  void add(ChangeStep step) {
    ChangeStep* last = !latest_.empty() ? &latest_.back() : !first_.empty() ? &first_.back() : nullptr;
    if (last != nullptr && repeats(*last, step)) {
      last->last = step.last, last->to = step.to, last->count += step.count;
      return;
    }
    if (first_.size() < kStepsKept) return first_.push_back(std::move(step));
    latest_.push_back(std::move(step));
    if (latest_.size() > kStepsKept) latest_.pop_front(), ++left_out_;
  }
  void move_to(NodeChange& change) {
    change.steps = std::move(first_);
    change.steps.insert(change.steps.end(), std::make_move_iterator(latest_.begin()),
                        std::make_move_iterator(latest_.end()));
    change.steps_left_out = left_out_;
  }

 private:
  std::vector<ChangeStep> first_;
  std::deque<ChangeStep> latest_;
  std::uint64_t left_out_ = 0;
};

// One name between two moments.
class NodeFold {
 public:
  void before(const Record& record) {
    apply(record, change_.before);
    change_.after = change_.before;
  }
  void between(const Record& record) {
    if (!apply(record, change_.after)) return;
    if (change_.after.since == record.seq) made_by_ = record.kind();
    const auto count = static_cast<std::uint64_t>(record.count);
    const bool verified = as<PasswordVerified>(record) != nullptr;
    if (as<PasswordRejected>(record) != nullptr) change_.refusals += count;
    if (verified || as<PasswordStored>(record) != nullptr) change_.registrations += count;
    change_.is_routine = change_.is_routine && verified && change_.after.since != record.seq;
    steps_.add(step_of(record));
  }
  NodeChange finish(const std::string& node) {
    change_.node = node;
    change_.net = net_effects(change_.before, change_.after, made_by_);
    steps_.move_to(change_);
    return std::move(change_);
  }

 private:
  NodeChange change_;
  Steps steps_;
  Kind made_by_ = Kind::password_stored;
};

// ---- tokens ----------------------------------------------------------------------------------------------

using TokenKey = std::pair<std::string, std::string>;  // class, id

std::map<TokenKey, TokenState> states_of(const TokenTable& table) {
  std::map<TokenKey, TokenState> states;
  for (TokenState& token : table.all()) states.emplace(TokenKey{token.token_class, token.id}, std::move(token));
  return states;
}

std::string status_at(const TokenState& token, Time now) { return std::string(name_of(token.status_at(now))); }

// The tokens at two moments, and every record between that tells of one.
class TokenFold {
 public:
  void before(const Record& record) { before_.apply(record), after_.apply(record); }
  void between(const Record& record) {
    after_.apply(record);
    std::visit([&](const auto& event) { keep(record, event); }, record.event);
  }

  std::vector<TokenChange> finish(Time from, Time to) const {
    const auto old_states = states_of(before_), states = states_of(after_);
    std::vector<TokenChange> changes;
    for (const auto& [key, token] : states) {
      TokenChange change;
      change.token = token.id, change.token_class = token.token_class;
      change.after = status_at(token, to);
      change.expires = token.expires;
      if (token.in_grace(to)) change.grace_ends = token.grace_ends;
      const auto old = old_states.find(key);
      if (old != old_states.end()) change.before = status_at(old->second, from);
      std::set<Seq> seqs = told_of(key);
      for (const Seq seq : {token.created.seq, token.ended.seq})
        if (steps_.contains(seq)) seqs.insert(seq);
      for (const Seq seq : seqs) change.steps.push_back(steps_.at(seq));
      if (!change.steps.empty() || change.before != change.after) changes.push_back(std::move(change));
    }
    // An extract: tokens that were made before it begins, and ended in it.
    for (const auto& [key, seqs] : told_) {
      if (states.contains(key) || key.first.empty()) continue;
      TokenChange change;
      change.token = key.second, change.token_class = key.first;
      for (const Seq seq : seqs) change.steps.push_back(steps_.at(seq));
      change.after = change.steps.back().kind == Kind::token_revoked ? "revoked" : "expired";
      changes.push_back(std::move(change));
    }
    return changes;
  }

 private:
  template <Kind K>
  void keep(const Record& record, const TokenChanged<K>& event) {
    steps_.emplace(record.seq, step_of(record));
    told_[{event.token_class, event.token}].insert(record.seq);
  }
  void keep(const Record&, const auto&) {}

  std::set<Seq> told_of(const TokenKey& key) const {
    const auto found = told_.find(key);
    return found == told_.end() ? std::set<Seq>() : found->second;
  }

  TokenTable before_, after_;
  std::map<Seq, ChangeStep> steps_;
  std::map<TokenKey, std::set<Seq>> told_;
};

Progress part_of(const Progress& progress, std::uint64_t part, std::uint64_t parts) {
  if (!progress) return {};
  return [=](std::uint64_t done, std::uint64_t total) { progress(part * total + done, parts * total); };
}

// Time itself makes tokens expire, also after the last record before a moment.
Time time_of(const Cut& cut, const RecordSource::Moment& moment) {
  return cut.time ? std::max(*cut.time, moment.time) : moment.time;
}

}  // namespace

Result<Diff> diff(RecordSource& source, const Cut& from, const Cut& to, const Progress& progress) {
  const Cut cuts[] = {from, to};
  const auto moments = source.find(cuts, part_of(progress, 0, 3));
  if (!moments) return moments.error();
  Diff out;
  out.from = (*moments)[0], out.to = (*moments)[1];
  if (out.from.seq > out.to.seq)
    return Error{Errc::invalid, fmt::format("the later moment comes first: record {} and then record {}",
                                            out.from.seq, out.to.seq)};
  std::map<std::string, NodeFold> folds;
  std::set<std::string> changed;
  const auto note_change = [&](const Record& record) {
    NodeState any;
    if (!record.node.empty() && apply(record, any)) changed.insert(record.node);
  };
  if (const auto read = source.each(out.from.seq, out.to.seq, note_change, part_of(progress, 1, 3)); !read)
    return read.error();
  TokenFold tokens;
  const auto fold_in = [&](const Record& record) {
    const bool between = record.seq > out.from.seq;
    if (between)
      tokens.between(record);
    else
      tokens.before(record);
    if (!changed.contains(record.node)) return;
    NodeFold& fold = folds[record.node];
    if (between)
      fold.between(record);
    else
      fold.before(record);
  };
  if (const auto read = source.each_of(changed, out.to.seq, fold_in, part_of(progress, 2, 3)); !read)
    return read.error();
  for (auto& [node, fold] : folds) out.nodes.push_back(fold.finish(node));
  out.tokens = tokens.finish(time_of(from, out.from), time_of(to, out.to));
  if (source.unreadable() > 0)
    out.warnings.push_back(fmt::format("{} record(s) cannot be read, the first after record {}: what they changed is "
                                       "not in this answer",
                                       source.unreadable(), source.first_unreadable()->after));
  return out;
}

}  // namespace ledger::replay
