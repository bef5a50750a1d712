#include "replay/export.h"

#include <algorithm>
#include <istream>

#include "ledger/event_json.h"
#include "replay/hole_line.h"

namespace ledger::replay {
namespace {

constexpr std::size_t kHoles = 1000;

Error not_written(Seq seq) {
  return {Errc::io, "the export could not be written further than record " + std::to_string(seq) +
                        "; check the room on the disk it goes to"};
}

template <class List, class Value>
bool admits(const List& list, const Value& value) {
  return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
}

bool write_header(const ExportOptions& options, const LineSink& sink) {
  const std::string header = options.with_header ? audit_header(options.format) : "";
  return header.empty() || sink(header);
}

// False: it could not be written.
bool write(Record record, const ExportOptions& options, const LineSink& sink, ExportReport& report) {
  const Seq seq = record.seq;
  const std::optional<std::string> line = export_line(std::move(record), options);
  if (!line) return true;
  if (!sink(*line)) return false;
  ++report.records;
  if (report.first == 0) report.first = seq;
  report.last = seq;
  return true;
}

void add_hole(ExportReport& report, Hole hole) {
  ++report.hole_count;
  // All that is in one archive which is not here is one hole.
  if (hole.to != 0 && !report.holes.empty() && report.holes.back().to != 0 && report.holes.back().reason == hole.reason) {
    report.holes.back().to = hole.to;
    return;
  }
  if (report.holes.size() < kHoles) report.holes.push_back(std::move(hole));
}

}  // namespace

Result<Seqs> seqs_of(const EventLog& log, const ExportRange& range) {
  Seqs seqs{.from = range.from.seq.value_or(1), .to = std::min(log.head(), range.to.seq.value_or(UINT64_MAX))};
  if (range.from.time) {
    const Result<Seq> before = last_seq_until(log, Time{range.from.time->micros - 1});
    if (!before) return before.error();
    seqs.from = *before + 1;
  }
  if (range.to.time) {
    const Result<Seq> last = last_seq_until(log, *range.to.time);
    if (!last) return last.error();
    seqs.to = std::min(seqs.to, *last);
  }
  return seqs;
}

std::optional<std::string> export_line(Record record, const ExportOptions& options) {
  if (!admits(options.kinds, record.kind()) || !admits(options.nodes, record.node)) return std::nullopt;
  if (options.change) options.change(record);
  return audit_line(options.format, record, options.source);
}

Result<ExportReport> export_log(const EventLog& log, const ExportOptions& options, const LineSink& sink,
                                const Progress& progress) {
  const Result<Seqs> seqs = seqs_of(log, options.range);
  if (!seqs) return seqs.error();
  ExportReport report;
  bool written = write_header(options, sink);
  if (!written) return not_written(0);
  Seq last = 0;
  const Result<void> scanned = log.scan(seqs->from, seqs->to, [&](Seq seq, const Result<Record>& record) {
    if (progress && seq % 4096 == 0) progress(seq - seqs->from, seqs->to - seqs->from + 1);
    if (record)
      written = write(*record, options, sink, report);
    else
      add_hole(report, {.seq = seq,
                        .line = 0,
                        .after = last,
                        .reason = record.error().message,
                        .to = record.error().code == Errc::archived ? seq : 0});
    last = seq;
    return written;
  });
  if (!scanned) return scanned.error();
  if (!written) return not_written(last);
  report.seen = std::max(last, seqs->to);
  return report;
}

Result<ExportReport> export_stream(std::istream& lines, const ExportOptions& options, const LineSink& sink) {
  ExportReport report;
  if (!write_header(options, sink)) return not_written(0);
  const auto is_inside = [&](const Record& record) {
    const Cut& from = options.range.from;
    const bool before = (from.seq && record.seq < *from.seq) || (from.time && record.time.known() && record.time < *from.time);
    return !before && options.range.to.admits(record);
  };
  std::string line;
  for (std::uint64_t number = 1; std::getline(lines, line); ++number) {
    if (trim(line).empty()) continue;
    Result<Record> record = record_from_json(line);
    if (!record) {
      add_hole(report, {.seq = 0, .line = number, .after = report.seen, .reason = record.error().message});
      continue;
    }
    report.seen = record->seq;
    if (is_inside(*record) && !write(std::move(*record), options, sink, report)) return not_written(report.last);
  }
  if (lines.bad()) return Error{Errc::io, "the input could not be read to its end"};
  return report;
}

Result<ExportReport> export_node(const EventLog& log, std::string_view node, const ExportOptions& options,
                                 const LineSink& sink) {
  const Result<Seqs> seqs = seqs_of(log, options.range);
  if (!seqs) return seqs.error();
  Result<History> history = history_from_log(log, node, Cut{.seq = seqs->to, .time = {}});
  if (!history) return history.error();
  ExportReport report;
  if (!write_header(options, sink)) return not_written(0);
  for (Record& record : history->records) {
    if (record.seq < seqs->from) continue;
    if (!write(std::move(record), options, sink, report)) return not_written(report.last);
  }
  report.seen = seqs->to;
  for (Hole& hole : history->holes) add_hole(report, std::move(hole));
  report.hole_count += history->holes_left_out;
  return report;
}

Result<void> export_node_history(const EventLog& log, std::string_view node, const LineSink& sink) {
  const Result<ExportReport> report = export_node(log, node, {}, sink);
  if (!report) return report.error();
  for (const Hole& hole : report->holes)
    if (!sink(hole_line(hole))) return not_written(hole.seq);
  return {};
}

}  // namespace ledger::replay
