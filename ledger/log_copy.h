// One log copied into another, and what a copy must be to go on from: for backups and restores.
//
// Records go over as they are stored, so the copy's tree is the source's. Before a record is written it is compared with
// the source's tree and decoded: what rot or a hand has changed in the source does not get into the copy. Indexes and
// node states are made from the records, by the same rules as in a server.
//
// Threads: one per copy.
#pragma once

#include <cstdint>
#include <functional>

#include "ledger/event_log.h"

namespace ledger {

using CopyProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

struct LogCopied {
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;  // of these records
};

// Records to.head() + 1 .. last of `from`. Errc::corrupt when one is missing, cannot be read or is not the one that
// the tree of `from` was made of: those before it have been copied.
Result<LogCopied> copy_records(const EventLog& from, EventLog& to, Seq last, const CopyProgress& progress = {});

// Root over the first `size` records: of the tree, or where an old log has none yet, of the records.
Result<TreeHash> root_over(const EventLog& log, std::uint64_t size);

// Whether `older` is a beginning of `newer`, by their trees. No: it has other records, or more.
Result<bool> is_beginning_of(const EventLog& older, const EventLog& newer);

// Reads from..last of `log` from its files: each record decodes and is the one that the tree was made of. Answers the
// tree's head at `last`.
Result<TreeHead> read_back(const EventLog& log, Seq from, Seq last, const CopyProgress& progress = {});

}  // namespace ledger
