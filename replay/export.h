// The log, or a part of it, for archives and other programs: JSON Lines, which `ledger replay --input` reads back, or
// one of the audit formats. Seqs are kept. A record that does not decode is reported as a hole, never passed over in
// silence. Streams: memory does not grow with the log, except for one node's history. Any thread.
#pragma once

#include <functional>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "replay/audit_format.h"
#include "replay/history.h"

namespace ledger::replay {

// Gets one record per call, as a line that ends in a newline; false: it could not be written, stop.
using LineSink = std::function<bool(std::string_view line)>;

struct ExportRange {
  Cut from, to;  // inclusive; nothing set: from the first, to the last
};

// What a range means for this log: nothing when `to` is smaller than `from`.
struct Seqs {
  Seq from = 1, to = 0;
};
Result<Seqs> seqs_of(const EventLog& log, const ExportRange& range);

struct ExportOptions {
  ExportRange range{};
  std::vector<Kind> kinds{};        // empty: all
  std::vector<std::string> nodes{};  // empty: all; else records with one of these names
  AuditFormat format = AuditFormat::jsonl;
  AuditSource source{};
  bool with_header = true;
  std::function<void(Record&)> change{};  // what is done to each record before it is written (redaction.h)
};

struct ExportReport {
  std::uint64_t records = 0;
  Seq first = 0, last = 0;  // that were written
  Seq seen = 0;             // the last that was looked at: what comes next begins behind it
  std::vector<Hole> holes;  // the first 1,000
  std::uint64_t hole_count = 0;
};

// The line of one record; nullopt: it is not among those that `options` ask for. The range is not looked at.
std::optional<std::string> export_line(Record record, const ExportOptions& options);

Result<ExportReport> export_log(const EventLog& log, const ExportOptions& options, const LineSink& sink,
                                const Progress& progress = {});

// The same from JSON Lines: an export in another form, with no log at hand. A line that cannot be read is a hole. The
// range is by seq only where a record's time is not known.
Result<ExportReport> export_stream(std::istream& lines, const ExportOptions& options, const LineSink& sink);

// Everything that bears on one node, by the rule of history.h: replaying the export gives the same explanation
// as replaying the log.
Result<ExportReport> export_node(const EventLog& log, std::string_view node, const ExportOptions& options,
                                 const LineSink& sink);

// The same over the whole log, for those who only want the lines.
Result<void> export_node_history(const EventLog& log, std::string_view node, const LineSink& sink);

}  // namespace ledger::replay
