// The records behind a number, now and later, as lines of an export: in pieces of bounded size, each record once and in
// order. What everybody who follows a log reads with (`ledger export --follow`, /ledger/v1/events): the one thing to
// remember between two pieces is TailPiece::seen.
//
// A piece depends on the log, `after`, the options and the limits alone: asked for again, it is the same bytes. So who
// has noted its end (`until`) before sending it can send the very same piece after a crash.
//
// Any thread. Reads the disk.
#pragma once

#include <string>
#include <vector>

#include "replay/export.h"

namespace ledger::replay {

struct TailLimits {
  std::size_t records = 512;       // lines in a piece
  std::size_t bytes = 256 << 10;   // the line that reaches this is the last
  Seq looked_at = 8192;            // records that are looked at, also where a filter passes none of them
  Seq until = UINT64_MAX;          // the last record
};

struct TailLine {
  Seq seq = 0;
  Kind kind{};
  std::string text;  // as export_log() gives it: one line and its end
};

struct TailPiece {
  std::vector<TailLine> lines;
  std::vector<Hole> holes;  // records that cannot be read, and numbers that the log does not hold (any more)
  Seq seen = 0;             // what is behind this one is the next piece's; `after` when there was nothing
  bool more = false;        // the log has, or had just now, records behind `seen`
};

// options.range and with_header are passed over: where to begin is `after`.
Result<TailPiece> read_tail(const EventLog& log, Seq after, const ExportOptions& options, const TailLimits& limits = {});

}  // namespace ledger::replay
