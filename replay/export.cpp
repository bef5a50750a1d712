#include "replay/export.h"

#include <algorithm>

#include "ledger/event_json.h"

namespace ledger::replay {
namespace {

constexpr std::size_t kHoles = 1000;

struct Seqs {
  Seq from = 1, to = 0;
};

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

Error not_written(Seq seq) {
  return {Errc::io, "the export could not be written further than record " + std::to_string(seq) +
                        "; check the room on the disk it goes to"};
}

bool write(const Record& record, const LineSink& sink, ExportReport& report) {
  if (!sink(to_json_line(record) + "\n")) return false;
  ++report.records;
  if (report.first == 0) report.first = record.seq;
  report.last = record.seq;
  return true;
}

void add_hole(ExportReport& report, Hole hole) {
  ++report.hole_count;
  if (report.holes.size() < kHoles) report.holes.push_back(std::move(hole));
}

}  // namespace

Result<ExportReport> export_jsonl(const EventLog& log, const ExportRange& range, const LineSink& sink,
                                  const Progress& progress) {
  const Result<Seqs> seqs = seqs_of(log, range);
  if (!seqs) return seqs.error();
  ExportReport report;
  bool written = true;
  Seq last = 0;
  const Result<void> scanned = log.scan(seqs->from, seqs->to, [&](Seq seq, const Result<Record>& record) {
    if (progress && seq % 4096 == 0) progress(seq - seqs->from, seqs->to - seqs->from + 1);
    if (record)
      written = write(*record, sink, report);
    else
      add_hole(report, {.seq = seq, .line = 0, .after = last, .reason = record.error().message});
    last = seq;
    return written;
  });
  if (!scanned) return scanned.error();
  if (!written) return not_written(last);
  return report;
}

Result<ExportReport> export_node(const EventLog& log, std::string_view node, const ExportRange& range,
                                 const LineSink& sink) {
  const Result<Seqs> seqs = seqs_of(log, range);
  if (!seqs) return seqs.error();
  Result<History> history = history_from_log(log, node, Cut{.seq = seqs->to, .time = {}});
  if (!history) return history.error();
  ExportReport report;
  for (const Record& record : history->records) {
    if (record.seq < seqs->from) continue;
    if (!write(record, sink, report)) return not_written(report.last);
  }
  for (Hole& hole : history->holes) add_hole(report, std::move(hole));
  report.hole_count += history->holes_left_out;
  return report;
}

Result<void> export_node_history(const EventLog& log, std::string_view node, const LineSink& sink) {
  const Result<ExportReport> report = export_node(log, node, {}, sink);
  if (!report) return report.error();
  return {};
}

}  // namespace ledger::replay
