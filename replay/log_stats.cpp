#include "replay/log_stats.h"

#include <algorithm>
#include <system_error>

#include "ledger/checkpoint.h"
#include "ledger/credentials.h"
#include "ledger/event_codec.h"
#include "ledger/token_table.h"

namespace ledger::replay {
namespace {

namespace fs = std::filesystem;

constexpr double kDay_s = 86400;
constexpr double kTooYoung_days = 1.0 / 24;  // nothing is foretold from less than an hour
constexpr Seq kTellEvery = 8192;

const char* name_of_index(Index index) {
  switch (index) {
    case Index::node: return "node";
    case Index::fingerprint: return "fingerprint";
    case Index::address: return "address";
    case Index::serial: return "serial";
    case Index::request: return "request";
    case Index::server_wide: return "server_wide";
  }
  return "other";
}

// Bytes of the files below a directory; those that go meanwhile count nothing.
std::uint64_t bytes_below(const fs::path& directory, std::uint64_t* files) {
  std::uint64_t total = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    std::error_code gone;
    if (!at->is_regular_file(gone)) continue;
    const std::uint64_t size = at->file_size(gone);
    if (gone) continue;
    total += size;
    ++*files;
  }
  return total;
}

class Counter {
 public:
  Counter(const EventLog& log, const fs::path& data_dir, Time now, const Progress& progress)
      : log_(log), data_dir_(data_dir), now_(now), progress_(progress) {
    stats_.ledger = log.id();
    stats_.head = log.head();
  }

  Result<LogStats> run(bool quick) {
    stats_.scanned = !quick;
    if (!quick)
      for (const auto& step : {&Counter::count_records, &Counter::count_index})
        if (const Result<void> done = (this->*step)(); !done) return done.error();
    measure_store();
    for (const auto& step : {&Counter::measure_growth, &Counter::count_nodes, &Counter::count_tokens})
      if (const Result<void> done = (this->*step)(); !done) return done.error();
    count_files();
    return std::move(stats_);
  }

 private:
  Result<void> count_records() {
    return log_.scan_bytes(1, stats_.head, [&](Seq seq, std::string_view bytes) {
      stats_.record_bytes += bytes.size();
      const Result<Record> record = decode_record(bytes);
      if (record) {
        LogStats::Kinds& kind = stats_.kinds[std::string(name_of(record->kind()))];
        ++kind.records;
        kind.outcomes += static_cast<std::uint64_t>(std::max<std::int64_t>(1, record->count));
        kind.bytes += bytes.size();
      } else {
        ++stats_.unreadable;
      }
      if (progress_ && seq % kTellEvery == 0) progress_(seq, stats_.head * 4);
      return true;
    });
  }

  Result<void> count_index() {
    std::uint64_t done = stats_.head;
    return log_.each_index_entry([&](Index index, std::string_view, Seq) {
      ++stats_.index_entries[name_of_index(index)];
      if (progress_ && ++done % kTellEvery == 0) progress_(done, stats_.head * 4);
      return true;
    });
  }

  void measure_store() {
    std::uint64_t ignored = 0;
    stats_.disk_bytes = bytes_below(data_dir_ / "events", &ignored);
    stats_.families = log_.sizes();
    stats_.free_bytes = log_.free_bytes();
  }

  Result<Time> time_of(Seq seq) const {
    const Result<Record> record = log_.read(seq);
    if (!record) return record.error();
    return record->time;
  }

  // The first record stamped at `from` or later; records are in the order of their stamps.
  Result<Seq> first_since(Time from) const {
    Seq low = 1, high = stats_.head + 1;
    while (low < high) {
      const Seq middle = low + (high - low) / 2;
      const Result<Time> time = time_of(middle);
      if (!time) return time.error();
      if (*time < from)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }

  Result<void> measure_growth() {
    if (stats_.head == 0) return {};
    const Result<Time> first = time_of(1), last = time_of(stats_.head);
    if (!first) return first.error();
    if (!last) return last.error();
    stats_.first = *first;
    stats_.last = *last;
    const double each = static_cast<double>(stats_.disk_bytes) / static_cast<double>(stats_.head);
    const auto grown = [&](int days) -> Result<LogStats::Growth> {
      const Time from = std::max(stats_.first, now_.plus_seconds(-days * static_cast<std::int64_t>(kDay_s)));
      const Result<Seq> begin = first_since(from);
      if (!begin) return begin.error();
      LogStats::Growth growth;
      growth.days = seconds_between(from, now_) / kDay_s;
      if (growth.days < kTooYoung_days) return growth;
      growth.records_per_day = static_cast<double>(stats_.head + 1 - *begin) / growth.days;
      growth.disk_bytes_per_day = growth.records_per_day * each;
      return growth;
    };
    const Result<LogStats::Growth> week = grown(7), month = grown(30);
    if (!week) return week.error();
    if (!month) return month.error();
    stats_.week = *week;
    stats_.month = *month;
    if (stats_.free_bytes && week->disk_bytes_per_day > 0)
      stats_.days_until_full = static_cast<double>(*stats_.free_bytes) / week->disk_bytes_per_day;
    return {};
  }

  Result<void> count_nodes() {
    return log_.each_node([&](std::string_view, const Result<NodeState>& node) {
      ++stats_.nodes[node ? std::string(state_name(*node)) : "unreadable"];
      return true;
    });
  }

  Result<void> count_tokens() {
    TokenTable tokens;
    const Result<void> read =
        log_.scan(Index::server_wide, "", 1, stats_.head, [&](Seq, const Result<Record>& record) {
          if (record && !is_imported(*record)) tokens.apply(*record);
          return true;
        });
    if (!read) return read;
    for (const TokenState& token : tokens.all()) ++stats_.tokens[std::string(ledger::name_of(token.status_at(now_)))];
    return {};
  }

  void count_files() {
    if (const auto key = read_checkpoint_key(checkpoint_public_file(data_dir_)))
      if (const auto all = read_checkpoints(all_checkpoints_file(data_dir_), *key)) stats_.checkpoints = all->size();
    stats_.archive_bytes = bytes_below(data_dir_ / "archives", &stats_.archives);
  }

  const EventLog& log_;
  const fs::path& data_dir_;
  const Time now_;
  const Progress& progress_;
  LogStats stats_;
};

}  // namespace

Result<LogStats> log_stats(const EventLog& log, const fs::path& data_dir, Time now, bool quick,
                           const Progress& progress) {
  return Counter(log, data_dir, now, progress).run(quick);
}

}  // namespace ledger::replay
