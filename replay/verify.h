// Proves that a log holds together: every seq there once, every record readable and stamped no earlier than the
// one before, every index entry there and none too many, the stored projection equal to a fresh fold, every record the
// one that the tree was made of, and the tree the one that every checkpoint saw.
//
// What it can tell of a changed log depends on what the attacker could not change. The tree tells which record it was
// and what was done to it; who rewrites the tree too is found by the checkpoints, between two of them; who can sign
// checkpoints too is found by one that was kept elsewhere.
//
// Reads everything, changes nothing, uses `threads` threads. Streams over the records; memory grows with the number of
// nodes (the fresh projection) and of damaged records only. Beside a running server it judges what was durable when
// the log was opened. Any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/checkpoint.h"
#include "ledger/event_log.h"
#include "replay/history.h"

namespace ledger::replay {

enum class Damage : std::uint8_t {
  kGap,                // a seq without a record
  kUndecodable,        // a record that cannot be read, or says another seq than it is stored under
  kTimeWentBack,       // stamped earlier than the record before
  kIndexMissing,       // an index does not list the record
  kIndexToNothing,     // an index lists a seq that has no record
  kIndexSurplus,       // an index lists a record that does not say that
  kProjectionDiffers,  // the stored state of a node is not what its records make of it
  kBitFlipped,         // one bit of a record is not what it was
  kRecordChanged,      // a record is not the one that the tree was made of
  kRecordMoved,        // a record stands under another seq than it had
  kRecordInserted,     // a record was put between others, which were numbered anew
  kRecordRemoved,      // a record was taken out, and those after it were numbered anew
  kTreeDiffers,        // the tree contradicts itself, or does not reach as far as the records
  kTailCut,            // the newest records are gone, and left traces
  kRolledBack,         // a checkpoint saw more records; what is there holds together
  kCheckpointDiffers,  // a checkpoint saw other records
  kOtherLog,           // a checkpoint is of another log
  kCheckpointBad,      // a checkpoint, or the key, cannot be read, or its signature is not right
  kArchiveDamaged,     // an archive is not what was sealed
};
inline constexpr std::size_t kDamages = 19;
std::string_view name_of(Damage damage);  // "index_missing"

struct DamageFound {
  Damage damage = Damage::kGap;
  Seq seq = 0;       // 0: not about one record
  std::string text;  // a sentence
};

// Records in an archive that is not here, or was removed: of these only the tree was checked.
struct Unchecked {
  Seq from = 0, to = 0;
  bool removed = false;
  std::string text;  // why, a sentence
};

struct VerifyReport {
  std::string ledger;
  Seq head = 0;
  std::uint64_t records = 0, index_entries = 0, nodes = 0;
  bool has_tree = false;           // false: a log from before there was one
  TreeHead tree;                   // where there is a sound one
  std::uint64_t checkpoints = 0;   // that agree: signed notes and checkpoint_signed records
  Seq covered = 0;                 // the size of the largest of them
  std::uint64_t lost = 0;          // checkpoints of records that the server knows it has lost (epoch_started)
  std::uint64_t archives = 0;       // that are here and are what was sealed
  std::vector<Unchecked> unchecked;
  std::uint64_t unchecked_nodes = 0;  // whose stored state follows from records that are not here
  std::vector<DamageFound> damage;  // the first 20 of each sort
  std::uint64_t counts[kDamages] = {};  // of each sort, by Damage
  std::uint64_t count(Damage sort) const { return counts[static_cast<std::size_t>(sort)]; }
  bool sound() const;
  // Everything was looked at but what was removed on purpose.
  bool complete() const;
};

// A checkpoint to compare with.
struct KnownCheckpoint {
  std::string where;  // for people: the file
  Checkpoint checkpoint;
};

struct VerifyOptions {
  unsigned threads = 0;  // 0: one per core
  std::vector<KnownCheckpoint> checkpoints{};
  std::vector<DamageFound> found{};  // what went wrong with checkpoints before
  std::uint64_t lost = 0;
};

// The checkpoints of a data directory; what is wrong with them becomes part of the report.
VerifyOptions checkpoints_of(const std::filesystem::path& data_dir);
// Adds one or more that were kept elsewhere. They must be signed by `key`; without one by the data directory's own,
// which proves less: who can write there can sign. Errc::invalid or Errc::not_found when the file is no checkpoint.
Result<void> add_checkpoints(VerifyOptions& options, const std::filesystem::path& data_dir,
                             const std::filesystem::path& file, const std::optional<NoteVerifier>& key);

// Errc::io when the store itself cannot be read.
Result<VerifyReport> verify(const EventLog& log, const Progress& progress = {}, const VerifyOptions& options = {});

}  // namespace ledger::replay
