#include "replay/tail.h"

#include <algorithm>

namespace ledger::replay {
namespace {

Hole gap(Seq from, Seq to) {
  const std::string which = from == to ? "it is" : "the records up to " + std::to_string(to) + " are";
  return {.seq = from, .line = 0, .after = from - 1, .reason = which + " not in the log (any more)"};
}

}  // namespace

Result<TailPiece> read_tail(const EventLog& log, Seq after, const ExportOptions& options, const TailLimits& limits) {
  TailPiece piece;
  piece.seen = after;
  const Seq head = std::min(log.head(), limits.until);
  if (head <= after) return piece;
  const Seq last = std::min(head, after + std::max<Seq>(limits.looked_at, 1));
  std::size_t bytes = 0;
  const Result<void> scanned = log.scan(after + 1, last, [&](Seq seq, const Result<Record>& record) {
    if (seq > piece.seen + 1) piece.holes.push_back(gap(piece.seen + 1, seq - 1));
    piece.seen = seq;
    if (!record) {
      piece.holes.push_back({.seq = seq, .line = 0, .after = seq - 1, .reason = record.error().message});
      return true;
    }
    std::optional<std::string> line = export_line(*record, options);
    if (!line) return true;
    bytes += line->size();
    piece.lines.push_back({seq, record->kind(), std::move(*line)});
    return piece.lines.size() < limits.records && bytes < limits.bytes;
  });
  if (!scanned) return scanned.error();
  const bool full = piece.lines.size() >= limits.records || bytes >= limits.bytes;
  if (!full && piece.seen < last) {
    piece.holes.push_back(gap(piece.seen + 1, last));
    piece.seen = last;
  }
  piece.more = piece.seen < head;
  return piece;
}

}  // namespace ledger::replay
