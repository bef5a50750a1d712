#include "ledger/log_copy.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "ledger/event_codec.h"

namespace ledger {
namespace {

constexpr std::size_t kBatchRecords = 4096;
constexpr std::size_t kBatchBytes = 8 << 20;
constexpr std::size_t kNodesKept = 200'000;

// The leaves that the tree has for from..to, where there is a tree.
using Leaves = std::map<Seq, TreeHash>;

Result<Leaves> leaves_of(const EventLog& log, Seq from, Seq to) {
  Leaves leaves;
  Result<void> bad;
  const Result<void> scanned = log.scan_tree(from, to, [&](Seq seq, std::string_view hashes) {
    const Result<TreeHash> leaf = tree_hash_from(hashes.substr(0, sizeof(TreeHash)));
    if (!leaf) return false;  // a leaf that is missing is found by who looks for it
    leaves.emplace_hint(leaves.end(), seq, *leaf);
    return true;
  });
  if (!scanned) return scanned.error();
  return leaves;
}

Error damaged(Seq seq, const std::string& what) {
  return {Errc::corrupt, "record " + std::to_string(seq) + " " + what};
}

// The records from..to of a log in order, each judged. What is wrong with the first that is not good comes last.
struct Run {
  std::vector<EventLog::Copied> records;
  std::size_t bytes = 0;
  std::optional<Error> damage;
};

Result<Run> read_run(const EventLog& log, Seq from, Seq to) {
  Run run;
  Seq end = to;  // of what fits
  const Result<void> scanned = log.scan_bytes(from, to, [&](Seq seq, std::string_view bytes) {
    const Seq expected = from + run.records.size();
    if (seq != expected) {
      run.damage = damaged(expected, "is missing");
      return false;
    }
    if (!run.records.empty() && run.bytes + bytes.size() > kBatchBytes) {
      end = seq - 1;
      return false;
    }
    run.bytes += bytes.size();
    run.records.push_back({{}, std::string(bytes)});
    return true;
  });
  if (!scanned && scanned.error().code != Errc::corrupt) return scanned.error();
  if (!scanned) run.damage = damaged(from + run.records.size(), "cannot be read: " + scanned.error().message);
  if (!run.damage && from + run.records.size() <= end)
    run.damage = damaged(from + run.records.size(), "is missing");

  const bool has_tree = log.tree_size() > 0;
  Result<Leaves> leaves = has_tree ? leaves_of(log, from, end) : Leaves();
  if (!leaves) return leaves.error();
  for (std::size_t i = 0; i < run.records.size(); ++i) {
    const Seq seq = from + i;
    std::optional<Error> wrong;
    if (const auto leaf = leaves->find(seq); has_tree && leaf == leaves->end())
      wrong = damaged(seq, "is not in the tree");
    else if (has_tree && leaf_hash(run.records[i].bytes) != leaf->second)
      wrong = damaged(seq, "was changed: it is not the one that the tree was made of");
    Result<Record> record = decode_record(run.records[i].bytes);
    if (!wrong && !record) wrong = damaged(seq, "cannot be read: " + record.error().message);
    if (!wrong && record->seq != seq) wrong = damaged(seq, "says that it is record " + std::to_string(record->seq));
    if (wrong) {
      run.damage = std::move(wrong);
      run.records.resize(i);
      break;
    }
    run.records[i].record = *std::move(record);
  }
  return run;
}

// The projection of the copy, read from it where it is needed.
class Fold {
 public:
  explicit Fold(const EventLog& log) : log_(log) {}

  Result<void> apply(const Record& record) {
    if (record.node.empty()) return {};
    auto known = nodes_.find(record.node);
    if (known == nodes_.end()) {
      const Result<std::optional<NodeState>> stored = log_.node(record.node);
      if (!stored) return stored.error();
      known = nodes_.emplace(record.node, stored->value_or(NodeState())).first;
    }
    if (ledger::apply(record, known->second)) changed_.insert_or_assign(record.node, known->second);
    return {};
  }

  // Those that changed since this was last asked.
  std::vector<EventLog::NodeEntry> take() {
    std::vector<EventLog::NodeEntry> entries(changed_.begin(), changed_.end());
    changed_.clear();
    return entries;
  }
  // What was taken is stored now.
  void trim() {
    if (nodes_.size() > kNodesKept) nodes_.clear();
  }

 private:
  const EventLog& log_;
  std::unordered_map<std::string, NodeState> nodes_;
  std::map<std::string, NodeState> changed_;
};

}  // namespace

Result<LogCopied> copy_records(const EventLog& from, EventLog& to, Seq last, const CopyProgress& progress) {
  LogCopied copied;
  Fold fold(to);
  const Seq first = to.head() + 1;
  while (to.head() < last) {
    const Seq begin = to.head() + 1;
    const Result<Run> run = read_run(from, begin, std::min(last, begin + kBatchRecords - 1));
    if (!run) return run.error();
    for (const EventLog::Copied& record : run->records)
      if (const Result<void> applied = fold.apply(record.record); !applied) return applied.error();
    if (!run->records.empty()) {
      if (const Result<void> done = to.append_copies(run->records, fold.take()); !done) return done.error();
      fold.trim();
      copied.records += run->records.size();
      copied.bytes += run->bytes;
    }
    if (run->damage) return *run->damage;
    if (progress) progress(to.head() - first + 1, last - first + 1);
  }
  return copied;
}

Result<TreeHash> root_over(const EventLog& log, std::uint64_t size) {
  if (size > log.head())
    return Error{Errc::invalid, "the log has " + std::to_string(log.head()) + " records, not " + std::to_string(size)};
  if (log.tree_size() > 0 || size == 0) return root_at(size, log.tree_nodes());
  TreeEdge edge;
  const Result<void> scanned = log.scan_bytes(1, size, [&](Seq seq, std::string_view bytes) {
    if (seq != edge.size() + 1) return false;
    edge.append(leaf_hash(bytes));
    return true;
  });
  if (!scanned) return scanned.error();
  if (edge.size() != size) return damaged(edge.size() + 1, "is missing");
  return edge.root();
}

Result<bool> is_beginning_of(const EventLog& older, const EventLog& newer) {
  const Seq size = older.head();
  if (size > newer.head()) return false;
  const Result<TreeHash> there = root_over(newer, size);
  if (!there) return there.error();
  const Result<TreeHash> here = root_over(older, size);
  if (!here) return here.error();
  return *there == *here;
}

Result<TreeHead> read_back(const EventLog& log, Seq from, Seq last, const CopyProgress& progress) {
  Result<TreeEdge> edge = TreeEdge::load(from - 1, log.tree_nodes());
  if (!edge) return edge.error();
  while (edge->size() < last) {
    const Seq begin = edge->size() + 1;
    const Result<Run> run = read_run(log, begin, std::min(last, begin + kBatchRecords - 1));
    if (!run) return run.error();
    for (const EventLog::Copied& record : run->records) edge->append(leaf_hash(record.bytes));
    if (run->damage) return *run->damage;
    if (progress) progress(edge->size() - from + 1, last - from + 1);
  }
  const Result<TreeHash> root = root_over(log, last);
  if (!root) return root.error();
  if (*root != edge->root())
    return Error{Errc::corrupt, "the tree over the first " + std::to_string(last) + " records is not that of the records"};
  return edge->head();
}

}  // namespace ledger
