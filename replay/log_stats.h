// What a log holds and what it costs: records by kind, how it grows, what its store takes. Beside a running server.
// Any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ledger/event_log.h"
#include "replay/history.h"

namespace ledger::replay {

struct LogStats {
  std::string ledger;
  Seq head = 0;
  Time first, last;  // of records
  bool scanned = false;  // false: `kinds`, `index_entries` and `unreadable` were not looked for

  struct Kinds {
    std::uint64_t records = 0;
    std::uint64_t outcomes = 0;  // what the records stand for (docs/EVENTS.md, "Storms")
    std::uint64_t bytes = 0;     // of the records as stored, not compressed
  };
  std::map<std::string, Kinds> kinds;
  std::uint64_t record_bytes = 0;  // of all of them
  std::uint64_t unreadable = 0;
  std::map<std::string, std::uint64_t> index_entries;  // by index

  // By the records of the days before `now`, or since the log began where that is later.
  struct Growth {
    double days = 0;
    double records_per_day = 0;
    double disk_bytes_per_day = 0;  // by what a record takes on the disk on average, indexes and tree included
  };
  Growth week, month;
  std::optional<std::uint64_t> free_bytes;
  std::optional<double> days_until_full;  // at the rate of the week; nullopt: cannot be told

  std::uint64_t disk_bytes = 0;  // of the files of the log
  std::vector<EventLog::FamilySize> families;
  std::map<std::string, std::uint64_t> nodes;   // by state
  std::map<std::string, std::uint64_t> tokens;  // by status
  std::uint64_t checkpoints = 0;
  std::uint64_t archives = 0, archive_bytes = 0;
};

// `quick`: reads no records but the few that growth is told from.
Result<LogStats> log_stats(const EventLog& log, const std::filesystem::path& data_dir, Time now, bool quick,
                           const Progress& progress = {});

}  // namespace ledger::replay
