#include "replay/record_source.h"

#include <algorithm>

#include "ledger/event_json.h"
#include "ledger/journal.h"

namespace ledger::replay {
namespace {

// Through an index every record is a read of its own, some ten times the price of the next one in a scan.
constexpr std::size_t kNodesByIndex = 200;

Error out_of_order(std::uint64_t line, Seq seq, Seq before) {
  return {Errc::invalid, "line " + std::to_string(line) + ": record " + std::to_string(seq) + " stands after record " +
                             std::to_string(before) + "; this command needs the records of one log in order: "
                             "jq -sc 'sort_by(.seq)[]' FILE"};
}

}  // namespace

void RecordSource::pass_over(Walk& walk, Hole hole) const {
  if (walk.unreadable++ == 0) walk.first = std::move(hole);
}

void RecordSource::finish(const Walk& walk) {
  if (walk.unreadable <= unreadable_) return;
  unreadable_ = walk.unreadable;
  first_unreadable_ = walk.first;
}

Result<RecordSource::Moment> RecordSource::find_in_log(const Cut& cut) const {
  Moment moment{.seq = std::min(log_->head(), cut.seq.value_or(UINT64_MAX)), .time = {}};
  if (cut.time) {
    const Result<Seq> last = last_seq_until(*log_, *cut.time);
    if (!last) return last.error();
    moment.seq = std::min(moment.seq, *last);
  }
  if (moment.seq == 0) return moment;
  const Result<Record> record = log_->read(moment.seq);
  if (!record && record.error().code == Errc::io) return record.error();
  if (record) moment.time = record->time;
  return moment;
}

Result<std::vector<RecordSource::Moment>> RecordSource::find(std::span<const Cut> cuts, const Progress& progress) {
  std::vector<Moment> moments(cuts.size());
  if (log_ != nullptr) {
    for (std::size_t i = 0; i < cuts.size(); ++i) {
      const Result<Moment> moment = find_in_log(cuts[i]);
      if (!moment) return moment.error();
      moments[i] = *moment;
    }
    return moments;
  }
  std::vector<bool> ended(cuts.size(), false);  // times do not go back inside a log: once past, always past
  const Result<void> walked = each_line(
      UINT64_MAX,
      [&](const Record& record) {
        for (std::size_t i = 0; i < cuts.size(); ++i) {
          ended[i] = ended[i] || !cuts[i].admits(record);
          if (!ended[i]) moments[i] = {.seq = record.seq, .time = record.time};
        }
      },
      progress);
  if (!walked) return walked.error();
  return moments;
}

Result<void> RecordSource::each(Seq after, Seq until, const Visit& visit, const Progress& progress) {
  if (log_ != nullptr) return each_in_log(after, until, visit, progress);
  return each_line(
      until, [&](const Record& record) {
        if (record.seq > after) visit(record);
      },
      progress);
}

Result<void> RecordSource::each_in_log(Seq after, Seq until, const Visit& visit, const Progress& progress) {
  Walk walk;
  Seq last = after;
  const Seq end = std::min(until, log_->head());
  const Result<void> scanned = log_->scan(after + 1, end, [&](Seq seq, const Result<Record>& record) {
    if (progress && seq % 4096 == 0) progress(seq - after, end - after);
    if (record)
      visit(*record);
    else
      pass_over(walk, {.seq = seq, .line = 0, .after = last, .reason = record.error().message});
    last = seq;
    return true;
  });
  if (!scanned) return scanned.error();
  finish(walk);
  return {};
}

Result<void> RecordSource::each_of(const std::set<std::string>& nodes, Seq until, const Visit& visit,
                                   const Progress& progress) {
  if (log_ == nullptr || nodes.size() > kNodesByIndex)
    return each(
        0, until,
        [&](const Record& record) {
          if (is_server_wide(record.kind()) || nodes.contains(record.node)) visit(record);
        },
        progress);
  Walk walk;
  const auto take = [&](Seq seq, const Result<Record>& record) {
    if (record)
      visit(*record);
    else
      pass_over(walk, {.seq = seq, .line = 0, .after = seq - 1, .reason = record.error().message});
    return true;
  };
  if (const Result<void> wide = log_->scan(Index::server_wide, "", 1, until, take); !wide) return wide.error();
  std::uint64_t done = 0;
  for (const std::string& node : nodes) {
    if (progress) progress(done++, nodes.size());
    const auto once = [&](Seq seq, const Result<Record>& record) {  // server-wide ones were visited above
      return record && is_server_wide(record->kind()) ? true : take(seq, record);
    };
    if (const Result<void> own = log_->scan(Index::node, node, 1, until, once); !own) return own.error();
  }
  finish(walk);
  return {};
}

Result<void> RecordSource::each_line(Seq until, const Visit& visit, const Progress& progress) {
  lines_->clear();
  const std::streamoff size = lines_->rdbuf()->pubseekoff(0, std::ios::end);
  if (lines_->rdbuf()->pubseekpos(0) == std::streampos(std::streamoff(-1)))
    return Error{Errc::io, "the input cannot be read from its start again"};
  LineReader reader(*lines_);
  Walk walk;
  std::string line, last_line;
  Seq last = 0;
  while (reader.next(line)) {
    if (progress && reader.number() % 4096 == 0) progress(reader.bytes(), size > 0 ? static_cast<std::uint64_t>(size) : 0);
    if (trim(line).empty()) continue;
    const Result<Record> record = record_from_json(line);
    if (!record) {
      pass_over(walk, {.seq = 0, .line = reader.number(), .after = last, .reason = record.error().message});
      continue;
    }
    if (record->seq < last || (record->seq == last && line != last_line))
      return out_of_order(reader.number(), record->seq, last);
    if (record->seq == last) continue;
    last = record->seq;
    std::swap(line, last_line);
    if (record->seq > until) break;
    visit(*record);
  }
  finish(walk);
  return {};
}

}  // namespace ledger::replay
