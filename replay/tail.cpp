#include "replay/tail.h"

#include <algorithm>

namespace ledger::replay {
namespace {

Hole gap(Seq from, Seq to) {
  return {.seq = from, .line = 0, .after = from - 1, .reason = "not in the log", .to = to};
}

// Why a record is not in the piece. All that was removed with one archive is one hole.
class Missing {
 public:
  Missing(const EventLog& log, TailPiece& piece) : log_(log), piece_(piece) {}

  // False: it may come back, so the piece ends before it.
  bool pass_over(Seq seq, const Error& error) {
    const bool removed = error.code == Errc::archived && is_removed(seq);
    if (error.code == Errc::archived && !removed) {
      piece_.absent = error.message;
      return false;
    }
    Hole* last = piece_.holes.empty() ? nullptr : &piece_.holes.back();
    if (removed && last != nullptr && last->to + 1 == seq && last->reason == error.message) {
      last->to = seq;
    } else {
      piece_.holes.push_back(
          {.seq = seq, .line = 0, .after = seq - 1, .reason = error.message, .to = removed ? seq : 0});
    }
    return true;
  }

 private:
  bool is_removed(Seq seq) {
    if (range_ && range_->holds(seq)) return range_->is_removed();
    range_.reset();
    for (const ArchivedRange& range : log_.archived())
      if (range.holds(seq)) range_ = range;
    return range_ && range_->is_removed();
  }

  const EventLog& log_;
  TailPiece& piece_;
  std::optional<ArchivedRange> range_;  // of the last one
};

}  // namespace

Result<TailPiece> read_tail(const EventLog& log, Seq after, const ExportOptions& options,
                            const TailLimits& limits) {
  TailPiece piece;
  piece.seen = after;
  const Seq head = std::min(log.head(), limits.until);
  if (head <= after) return piece;
  const Seq last = std::min(head, after + std::max<Seq>(limits.looked_at, 1));
  std::size_t bytes = 0;
  Missing missing(log, piece);
  const Result<void> scanned = log.scan(after + 1, last, [&](Seq seq, const Result<Record>& record) {
    if (seq > piece.seen + 1) piece.holes.push_back(gap(piece.seen + 1, seq - 1));
    piece.seen = seq - 1;
    if (!record && !missing.pass_over(seq, record.error())) return false;
    piece.seen = seq;
    if (!record) return true;
    std::optional<std::string> line = export_line(*record, options);
    if (!line) return true;
    bytes += line->size();
    piece.lines.push_back({seq, record->kind(), std::move(*line)});
    return piece.lines.size() < limits.records && bytes < limits.bytes;
  });
  if (!scanned) return scanned.error();
  const bool full = piece.lines.size() >= limits.records || bytes >= limits.bytes;
  if (!full && piece.absent.empty() && piece.seen < last) {
    piece.holes.push_back(gap(piece.seen + 1, last));
    piece.seen = last;
  }
  piece.more = piece.seen < head;
  return piece;
}

}  // namespace ledger::replay
