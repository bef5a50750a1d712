#include "ledger/node_objects.h"

namespace ledger {
namespace {

constexpr int kMaxAttempts = 8;  // each lost race means that somebody else's record about the node went through

template <class Event>
Record record_of(const NodeObjects::Report& report, const NodeObjects::Change& change) {
  Record record;
  record.event = Event{.actor = report.actor, .uid = change.uid};
  record.node = change.node;
  record.note = change.note;
  record.request_id = report.request_id;
  record.source = report.source;
  return record;
}

}  // namespace

void NodeObjects::fold(const Record& record) {
  if (as<NodeObjectCreated>(record) != nullptr) {
    live_[record.node] = as<NodeObjectCreated>(record)->uid;
    return;
  }
  const auto* deleted = as<NodeObjectDeleted>(record);
  if (deleted == nullptr) return;
  const auto found = live_.find(record.node);
  // The deletion of an older object of the name says nothing about the one that exists.
  const bool same =
      found != live_.end() && (found->second == deleted->uid || found->second.empty() || deleted->uid.empty());
  if (same) live_.erase(found);
  if (deleted->uid.empty() || !gone_.insert(deleted->uid).second) return;
  gone_order_.push_back(deleted->uid);
  if (gone_order_.size() <= kRemembered) return;
  gone_.erase(gone_order_.front());
  gone_order_.pop_front();
}

Result<void> NodeObjects::catch_up() {
  const EventLog& log = ledger_.log();
  const Seq head = log.head();
  const Result<void> read = log.scan(folded_ + 1, head, [this](Seq, const Result<Record>& record) {
    if (record) fold(*record);
    return true;
  });
  if (!read) return read.error();
  folded_ = head;
  return {};
}

// After a failure nobody knows what is in the log; the next call looks.
void NodeObjects::forget() {
  folded_ = 0;
  live_.clear();
  gone_.clear();
  gone_order_.clear();
  staged_.clear();
}

Result<std::vector<std::pair<std::string, std::string>>> NodeObjects::existing() {
  const std::lock_guard lock(mutex_);
  if (const Result<void> ready = catch_up(); !ready) return ready.error();
  return std::vector<std::pair<std::string, std::string>>(live_.begin(), live_.end());
}

void NodeObjects::stage(Record record) {
  fold(record);
  staged_.push_back(std::move(record));
}

Result<void> NodeObjects::flush(Outcome& outcome) {
  if (staged_.empty()) return {};
  Proposal proposal;
  proposal.records = std::move(staged_);
  staged_.clear();
  const Result<Committed> committed = ledger_.append_and_wait(std::move(proposal));
  if (!committed) return committed.error();
  outcome.last = committed->last();
  return {};
}

void NodeObjects::stage_creation(const Report& report, const Change& change, Outcome& outcome) {
  // Two objects of one name cannot exist: this one says that the other has gone.
  if (const auto other = live_.find(change.node); other != live_.end()) {
    stage(record_of<NodeObjectDeleted>(
        report, {change.node, other->second, true, "another object of this name has taken its place"}));
    ++outcome.deleted;
  }
  stage(record_of<NodeObjectCreated>(report, change));
  ++outcome.created;
}

// The deletion, and with it the release where that is wished for and the name is bound.
Result<void> NodeObjects::record_deletion(const Report& report, const Change& change, bool release,
                                          Outcome& outcome) {
  const Record deleted = record_of<NodeObjectDeleted>(report, change);
  ++outcome.deleted;
  for (int attempt = 0; release && attempt < kMaxAttempts; ++attempt) {
    // What is staged may be about this name.
    if (const Result<void> flushed = flush(outcome); !flushed) return flushed.error();
    const NodeState state = ledger_.find(change.node);
    if (!state.is_bound()) break;
    Record released = deleted;
    released.event = BindingReleased{.actor = report.actor, .by = "node_deleted", .fingerprint = state.bound};
    Proposal proposal;
    proposal.records = {deleted, std::move(released)};
    proposal.expect = Proposal::Expect{change.node, state.version};
    const Result<Committed> committed = ledger_.append_and_wait(std::move(proposal));
    if (!committed && committed.error().code == Errc::conflict) continue;
    if (!committed) return committed.error();
    fold(deleted);
    outcome.last = committed->last();
    ++outcome.released;
    return {};
  }
  stage(deleted);
  return {};
}

Result<NodeObjects::Outcome> NodeObjects::record(const Report& report) {
  const std::lock_guard lock(mutex_);
  if (const Result<void> ready = catch_up(); !ready) return ready.error();
  // A name whose next object is in the same report is not free: its machine has come back already.
  std::map<std::string, std::size_t> last_created;
  for (std::size_t i = 0; i < report.changes.size(); ++i)
    if (!report.changes[i].deleted) last_created[report.changes[i].node] = i;

  Outcome outcome;
  const auto take = [&](std::size_t i) -> Result<void> {
    const Change& change = report.changes[i];
    const auto found = live_.find(change.node);
    const bool is_live = found != live_.end() && (found->second == change.uid || found->second.empty());
    const bool news = change.deleted ? is_live : !is_live && !gone_.contains(change.uid);
    if (!news) {
      ++outcome.known;
      return {};
    }
    if (change.deleted) {
      const auto next = last_created.find(change.node);
      const bool comes_back = next != last_created.end() && next->second > i;
      return record_deletion(report, change, report.release_on_delete && !comes_back, outcome);
    }
    stage_creation(report, change, outcome);
    return {};
  };
  Result<void> done;
  for (std::size_t i = 0; done && i < report.changes.size(); ++i) done = take(i);
  if (done) done = flush(outcome);
  if (done) return outcome;
  forget();
  return done.error();
}

}  // namespace ledger
