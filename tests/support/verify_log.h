// What must be true of every log, whatever happened to it. Ledger tests end with it.
#pragma once

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "ledger/event_log.h"
#include "ledger/node_table.h"

namespace ledger::test {

// All records in order; a hole is reported to `problems`.
inline std::vector<Record> all_records(const EventLog& log, std::vector<std::string>* problems = nullptr) {
  std::vector<Record> records;
  const auto read = log.scan(1, UINT64_MAX, [&](Seq seq, const Result<Record>& record) {
    if (record)
      records.push_back(*record);
    else if (problems != nullptr)
      problems->push_back("record " + std::to_string(seq) + ": " + record.error().message);
    return true;
  });
  if (!read && problems != nullptr) problems->push_back(read.error().message);
  return records;
}

// The broken promises of a log; empty when all hold: seqs 1..head without a gap, times that never go back, the
// stored projection is the fold of the records, the index lists exactly what the records say, the tree is theirs.
inline std::vector<std::string> broken_promises(const EventLog& log) {
  std::vector<std::string> problems;
  NodeTable folded;
  std::set<std::tuple<char, std::string, Seq>> expected, indexed;
  Seq previous = 0;
  Time last;
  for (const Record& record : all_records(log, &problems)) {
    const std::string name = "record " + std::to_string(record.seq);
    if (record.seq != previous + 1) problems.push_back(name + " follows record " + std::to_string(previous));
    if (record.time < last) problems.push_back(name + " is earlier than the one before it");
    if (!record.time.known()) problems.push_back(name + " has no time");
    previous = record.seq;
    last = record.time;
    folded.apply(record);
    for (const auto& [index, value] : index_terms(record))
      expected.emplace(static_cast<char>(index), value, record.seq);
  }
  if (previous != log.head())
    problems.push_back("head is " + std::to_string(log.head()) + ", last record " + std::to_string(previous));

  TreeEdge tree;
  std::vector<TreeHash> completed;
  const auto bytes = log.scan_bytes(1, UINT64_MAX, [&](Seq seq, std::string_view record) {
    completed.clear();
    tree.append(leaf_hash(record), &completed);
    std::uint64_t index = seq - 1;
    for (unsigned level = 0; level < completed.size(); ++level, index >>= 1)
      if (const auto node = log.tree_nodes()(level, index); !node || *node != completed[level])
        problems.push_back("node " + std::to_string(level) + "/" + std::to_string(index) + " of the tree is wrong");
    return true;
  });
  if (!bytes) problems.push_back(bytes.error().message);
  if (const auto head = log.tree(); !head || !(*head == tree.head()) || log.tree_size() != tree.size())
    problems.push_back("the tree is not that of the records");

  std::size_t stored = 0;
  const auto nodes = log.each_node([&](std::string_view name, const Result<NodeState>& state) {
    ++stored;
    const NodeState* made = folded.find(name);
    if (!state || made == nullptr || !(*made == *state))
      problems.push_back("the stored state of " + std::string(name) + " is not the fold of its records");
    return true;
  });
  if (!nodes) problems.push_back(nodes.error().message);
  if (stored != folded.size()) problems.push_back("the stored projection lacks nodes");

  const auto entries = log.each_index_entry([&](Index index, std::string_view value, Seq seq) {
    indexed.emplace(static_cast<char>(index), std::string(value), seq);
    return true;
  });
  if (!entries) problems.push_back(entries.error().message);
  if (indexed != expected)
    problems.push_back("the index has " + std::to_string(indexed.size()) + " entries, the records make " +
                       std::to_string(expected.size()) + " or others");
  return problems;
}

// How many outcomes of `kind` the log speaks of: records and what they stand for.
inline std::int64_t outcomes(const EventLog& log, Kind kind) {
  std::int64_t total = 0;
  for (const Record& record : all_records(log))
    if (record.kind() == kind) total += record.count;
  return total;
}

}  // namespace ledger::test
