// Proves that a log holds together: every seq there once, every record readable and stamped no earlier than the
// one before, every index entry there and none too many, and the stored projection equal to a fresh fold.
//
// Reads everything, changes nothing. Streams over the records; memory grows with the number of nodes (the fresh
// projection) and of damaged records only. Beside a running server it judges what was durable when the log was
// opened. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

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
};
std::string_view name_of(Damage damage);  // "index_missing"

struct DamageFound {
  Damage damage = Damage::kGap;
  Seq seq = 0;       // 0: not about one record
  std::string text;  // a sentence
};

struct VerifyReport {
  std::string ledger;
  Seq head = 0;
  std::uint64_t records = 0, index_entries = 0, nodes = 0;
  std::vector<DamageFound> damage;  // the first 20 of each sort
  std::uint64_t counts[7] = {};     // of each sort, by Damage
  std::uint64_t count(Damage sort) const { return counts[static_cast<std::size_t>(sort)]; }
  bool sound() const;
};

// Errc::io when the store itself cannot be read.
Result<VerifyReport> verify(const EventLog& log, const Progress& progress = {});

}  // namespace ledger::replay
