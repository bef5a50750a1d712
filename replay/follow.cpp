#include "replay/follow.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <map>

#include "replay/rows.h"

namespace ledger::replay {

namespace json = boost::json;

namespace {

constexpr std::size_t kMaxTold = 100'000;    // names whose last answer is remembered
constexpr std::size_t kMaxNameless = 1'000;  // of one step

// What makes an answer a new one. Counts and times are left out: they grow with every retry.
std::string gist_of(const Explanation& e) {
  std::string gist = fmt::format("{} {} {} {}", name_of(e.cause), name_of(e.confidence), e.state, e.bound.text);
  if (e.refusal == nullptr) return gist;
  gist += " " + std::string(name_of(e.refusal->kind()));
  if (const auto* rejected = as<PasswordRejected>(*e.refusal)) gist += " " + rejected->fingerprint.text;
  if (const auto* rejected = as<TokenRejected>(*e.refusal)) gist += " " + rejected->reason;
  if (const auto* rejected = as<RequestRejected>(*e.refusal)) gist += " " + rejected->reason;
  return gist;
}

std::string gist_of(const Record& record) {
  std::string gist = fmt::format("{} {}", name_of(record.kind()), host_of(record.source));
  if (const auto* rejected = as<TokenRejected>(record)) gist += " " + rejected->reason;
  if (const auto* rejected = as<RequestRejected>(record)) gist += " " + rejected->reason;
  if (const auto* failed = as<TlsFailed>(record)) gist += " " + failed->alert;
  return gist;
}

bool is_expected(const Record& record) {
  const auto* failed = as<TlsFailed>(record);
  return failed != nullptr && failed->trust_probe.value_or(false);
}

// May settle what was refused.
bool settles(const Record& record) {
  return as<PasswordStored>(record) != nullptr || as<PasswordVerified>(record) != nullptr ||
         as<BindingChanged>(record) != nullptr || as<BindingReleased>(record) != nullptr ||
         as<BindingHeld>(record) != nullptr || as<BindingImported>(record) != nullptr;
}

}  // namespace

struct Follower::Sweep {
  std::map<std::string, News> nodes;
  struct Nameless {
    Seq seq = 0;
    std::int64_t more = 0;
  };
  std::map<std::string, Nameless> nameless;  // by gist
};

Follower::Follower(Options options) : options_(std::move(options)), next_(std::max<Seq>(options_.from, 1)) {
  options_.node = to_lower(options_.node);
}

Result<Follower::Sweep> Follower::sweep(const EventLog& log, Seq head) {
  Sweep sweep;
  const Result<void> scanned = log.scan(next_, head, [&](Seq seq, const Result<Record>& record) {
    if (!record || is_imported(*record)) return true;
    const bool refused = is_refusal(record->kind()) && !is_expected(*record);
    if (record->node.empty()) {
      if (!refused) return true;
      // With one node in question, its history says whether this bears on it.
      if (!options_.node.empty()) {
        News& news = sweep.nodes[options_.node];
        news.changed = true;
        if (news.first == 0) news.first = seq;
        news.last = seq;
        return true;
      }
      if (sweep.nameless.size() < kMaxNameless || sweep.nameless.count(gist_of(*record)) != 0) {
        Sweep::Nameless& nameless = sweep.nameless[gist_of(*record)];
        if (nameless.seq == 0) nameless.seq = seq;
        nameless.more += record->count;
      }
      return true;
    }
    if (!options_.node.empty() && record->node != options_.node) return true;
    const bool settled = settles(*record) && told_.count(record->node) != 0;
    if (!refused && !settled) return true;
    News& news = sweep.nodes[record->node];
    news.refused = news.refused || refused;
    news.changed = news.changed || settled;
    if (refused) news.more += record->count;
    if (news.first == 0) news.first = seq;
    news.last = seq;
    return true;
  });
  if (!scanned) return scanned.error();
  return sweep;
}

Result<bool> Follower::tell_node(const EventLog& log, const std::string& node, const News& news, Seq head,
                                 const Sink& sink) {
  Result<History> history = history_from_log(log, node, Cut{.seq = head, .time = {}});
  if (!history) return history.error();
  Told told;
  told.history = std::make_unique<History>(std::move(*history));
  told.explanation = explain(*told.history);
  told.more = news.more;
  told.first = news.first, told.last = news.last;
  const std::string gist = gist_of(told.explanation);
  const auto before = told_.find(node);
  const bool known = before != told_.end();
  told.repeated = known && before->second == gist;
  // Records that may bear on it and do not change the answer are no news.
  if (!news.refused && (told.repeated || (!known && told.explanation.refusal == nullptr))) return true;
  if (!news.refused && !known && told.explanation.refusal->seq < news.first) return true;
  if (known) told.explanation.told_from = news.first;
  if (told.explanation.cause == Cause::kNone) {
    told_.erase(node);
  } else {
    if (told_.size() >= kMaxTold) told_.clear();  // they are told anew
    told_[node] = gist;
  }
  return sink(std::move(told));
}

Result<bool> Follower::tell_nameless(const EventLog& log, const Sweep& sweep, const Sink& sink) {
  std::map<Seq, std::int64_t> in_order;
  for (const auto& [gist, nameless] : sweep.nameless) in_order[nameless.seq] = nameless.more;
  for (const auto& [seq, more] : in_order) {
    Result<LookedUp> found = look_up(log, Lookup{.seq = seq, .request_id = {}});
    if (!found) return found.error();
    Told told;
    told.nameless = std::move(*found);
    told.more = more;
    told.first = told.last = seq;
    if (!sink(std::move(told))) return false;
  }
  return true;
}

Result<void> Follower::step(const EventLog& log, const Sink& sink) {
  const Seq head = log.head();
  if (head < next_) return {};
  const Result<Sweep> found = sweep(log, head);
  if (!found) return found.error();
  next_ = head + 1;
  std::vector<std::pair<std::string, News>> nodes(found->nodes.begin(), found->nodes.end());
  std::sort(nodes.begin(), nodes.end(), [](const auto& a, const auto& b) { return a.second.first < b.second.first; });
  for (const auto& [node, news] : nodes) {
    const Result<bool> go_on = tell_node(log, node, news, head, sink);
    if (!go_on) return go_on.error();
    if (!*go_on) return {};
  }
  const Result<bool> told = tell_nameless(log, *found, sink);
  if (!told) return told.error();
  return {};
}

json::object to_json(const Told& told) {
  json::object out = told.history != nullptr ? to_json(told.explanation) : to_json(told.nameless);
  if (told.history != nullptr) out["repeated"] = told.repeated;
  out["more"] = told.more;
  return out;
}

std::string to_text(const Told& told, const TextStyle& style) {
  if (told.history == nullptr) return to_text(told.nameless);
  const Explanation& e = told.explanation;
  if (!told.repeated) return to_text(e, style) + "\n";
  const std::string records = told.first == told.last ? fmt::format("record {}", told.first)
                                                      : fmt::format("records {}..{}", told.first, told.last);
  return fmt::format("{}  node {} is still refused: {} ({}), {} more, {}\n", clock_text(e.as_of_time), printable(e.node, 80),
                     name_of(e.cause), name_of(e.confidence), told.more, records);
}

}  // namespace ledger::replay
