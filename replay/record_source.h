// The records of a log or of JSON Lines, one after the other, as often as asked: for questions about all nodes at
// once (diff.h, whatif.h). Never holds more than one record, whatever the length of the input.
//
// A log is read as it was when it was opened. JSON Lines must be in order of seq, as `ledger export` writes them
// (what is not is Errc::invalid with the line named); a record given twice is visited once. What cannot be read is
// passed over and counted in unreadable(), never silently.
//
// Single thread; `log` and `lines` must outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <istream>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "ledger/event_log.h"
#include "replay/history.h"

namespace ledger::replay {

class RecordSource {
 public:
  explicit RecordSource(const EventLog& log) : log_(&log) {}
  // A stream that can seek to its start (open_jsonl() makes one).
  explicit RecordSource(std::istream& lines) : lines_(&lines) {}

  // The last record of a part of the history; seq 0: there is none.
  struct Moment {
    Seq seq = 0;
    Time time;
  };
  // For each cut, where it ends. Files are read once for all of them.
  Result<std::vector<Moment>> find(std::span<const Cut> cuts, const Progress& progress = {});

  using Visit = std::function<void(const Record&)>;
  // Records after `after`, up to and including `until`, in order.
  Result<void> each(Seq after, Seq until, const Visit& visit, const Progress& progress = {});
  // Records up to `until` of these nodes, and those about the server as a whole. The order holds within one node,
  // and within what is about the server; a log is read through its indexes where that is less work.
  Result<void> each_of(const std::set<std::string>& nodes, Seq until, const Visit& visit,
                       const Progress& progress = {});

  // The most that one walk could not read, and the first of them.
  std::uint64_t unreadable() const { return unreadable_; }
  const std::optional<Hole>& first_unreadable() const { return first_unreadable_; }

 private:
  // One walk's own counts.
  struct Walk {
    std::uint64_t unreadable = 0;
    std::optional<Hole> first;
  };
  void pass_over(Walk& walk, Hole hole) const;
  void finish(const Walk& walk);
  Result<Moment> find_in_log(const Cut& cut) const;
  Result<void> each_in_log(Seq after, Seq until, const Visit& visit, const Progress& progress);
  Result<void> each_line(Seq until, const Visit& visit, const Progress& progress);

  const EventLog* log_ = nullptr;
  std::istream* lines_ = nullptr;
  std::uint64_t unreadable_ = 0;
  std::optional<Hole> first_unreadable_;
};

}  // namespace ledger::replay
