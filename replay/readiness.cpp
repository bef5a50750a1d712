#include "replay/readiness.h"

#include <algorithm>
#include <map>
#include <set>

#include "replay/export.h"

namespace ledger::replay {
namespace {

class Review {
 public:
  void look_at(const Record& record) {
    if (is_imported(record)) return;
    const bool lives = as<TunnelOpened>(record) != nullptr || as<NodeObjectCreated>(record) != nullptr;
    if (lives && !record.node.empty()) seen_.insert(record.node);
    if (as<NodeObjectDeleted>(record) != nullptr) seen_.erase(record.node);
    if (!is_upstreams(record) || record.would_have.empty()) return;
    ++upstream_records_;
    const Disagreement what = disagreement_of(record);
    // It has another password now, and so have we: the next request is judged alike.
    const bool settles = as<BindingChanged>(record) != nullptr;
    if (what != Disagreement::none) {
      if (settles) settled_.insert(record.node);
      if (settles) open_.erase(record.node);
      if (!settles) open_[record.node] = {record.node, what, record.would_have, record.answered, record.seq};
    } else if (record.answered != 0 && !record.node.empty() && open_.erase(record.node) > 0) {
      settled_.insert(record.node);
    }
  }

  void finish(const std::set<std::string, std::less<>>& bound, Readiness* readiness) const {
    readiness->upstream_records = upstream_records_;
    for (const auto& [node, disagreement] : open_) readiness->open.push_back(disagreement);
    readiness->settled = static_cast<std::uint64_t>(
        std::count_if(settled_.begin(), settled_.end(), [this](const auto& node) { return !open_.contains(node); }));
    for (const std::string& node : seen_)
      if (!bound.contains(node)) readiness->strangers.push_back(node);
  }

 private:
  std::map<std::string, OpenDisagreement, std::less<>> open_;  // by node
  std::set<std::string, std::less<>> settled_, seen_;
  std::uint64_t upstream_records_ = 0;
};

}  // namespace

bool Readiness::would_refuse() const {
  return std::any_of(open.begin(), open.end(), [](const OpenDisagreement& one) {
    return one.what == Disagreement::upstream_admitted;
  });
}

Result<Readiness> find_readiness(const EventLog& log, Time since) {
  Readiness readiness;
  readiness.since = since;
  std::set<std::string, std::less<>> bound;
  const Result<void> nodes = log.each_node([&](std::string_view name, const Result<NodeState>& state) {
    if (state && state->is_bound()) bound.emplace(name);
    if (state && state->held) readiness.held.emplace_back(name);
    return true;
  });
  if (!nodes) return nodes.error();
  readiness.bound = bound.size();
  ExportRange range;
  range.from.time = since;
  const Result<Seqs> seqs = seqs_of(log, range);
  if (!seqs) return seqs.error();
  Review review;
  const Result<void> read = log.scan(seqs->from, seqs->to, [&](Seq, const Result<Record>& record) {
    if (record)
      review.look_at(*record);
    else
      ++readiness.unreadable;
    return true;
  });
  if (!read) return read.error();
  review.finish(bound, &readiness);
  return readiness;
}

}  // namespace ledger::replay
