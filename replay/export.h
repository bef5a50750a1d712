// The log as JSON Lines (docs/EVENTS.md), for archives, other programs and `ledger replay --input`. Seqs are
// kept. A record that does not decode is reported as a hole, never passed over in silence. Streams: memory does
// not grow with the log, except for one node's history. Any thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "replay/history.h"

namespace ledger::replay {

// Gets one record per call, as a line that ends in a newline; false: it could not be written, stop.
using LineSink = std::function<bool(std::string_view line)>;

struct ExportRange {
  Cut from, to;  // inclusive; nothing set: from the first, to the last
};

struct ExportReport {
  std::uint64_t records = 0;
  Seq first = 0, last = 0;
  std::vector<Hole> holes;  // the first 1,000
  std::uint64_t hole_count = 0;
};

Result<ExportReport> export_jsonl(const EventLog& log, const ExportRange& range, const LineSink& sink,
                                  const Progress& progress = {});

// Everything that bears on one node, by the rule of history.h: replaying the export gives the same explanation
// as replaying the log.
Result<ExportReport> export_node(const EventLog& log, std::string_view node, const ExportRange& range,
                                 const LineSink& sink);

// The same over the whole log, for those who only want the lines.
Result<void> export_node_history(const EventLog& log, std::string_view node, const LineSink& sink);

}  // namespace ledger::replay
