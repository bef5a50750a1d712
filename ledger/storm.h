// Counts outcomes that repeat, so that a stuck agent or a flood costs memory and not the disk.
//
// The rule (docs/EVENTS.md, "Storms"): two outcomes are identical when their records are, apart from time,
// request id, the time an upstream took and the peer's port. The first opens a window and is written at once. The following are counted;
// the count is written as one record (`count`, `first_time`) when the window's interval ends: 30 s, then 60 s,
// then every 120 s while the outcome keeps coming. An interval without any closes the window. Windows of a node
// are settled before a record that changes or confirms its binding, so that counts never stand after what ended them.
//
// Refusals of callers that proved nothing (no valid token) may open at most `burst` windows at once and
// `per_second` after that; what is over is counted by kind, reason, status and auth method alone. So an
// unauthenticated flood writes at most about per_second + a few records per second, whatever it varies.
// `max_windows` bounds the memory: past it, outcomes of proven callers are written one by one.
//
// Threads: owned by the writer.
#pragma once

#include <chrono>
#include <list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ledger/event.h"

namespace ledger {

// One moment on both clocks: the stamp that records get, and the one that measures intervals even while the
// wall clock is being set.
struct Instant {
  Time stamp;
  std::chrono::steady_clock::time_point steady;
};

class StormCounter {
 public:
  struct Limits {
    double burst = 2000;
    double per_second = 2;
    std::size_t max_windows = 16384;
  };
  StormCounter() : StormCounter(Limits{}) {}
  explicit StormCounter(Limits limits) : limits_(limits), budget_(limits.burst) {}

  // token_accepted, the refusals and failed handshakes may be counted; everything else is always written.
  static bool countable(Kind kind);

  // Offers an outcome, or the `count` outcomes that `record` stands for. 0: write `record` (it may have been made
  // anonymous: over the budget) and report its seq with written(); else: it is counted, and this seq stands for it.
  Seq offer(Record& record, Instant now);
  // The record just offered was given this seq.
  void written(Seq seq);

  // Counts whose interval has ended, as records without seq; idle windows are closed.
  std::vector<Record> due(Instant now);
  // The windows that this record ends are closed, and their counts are to be written before it: the node's, where
  // it changes or confirms a binding; all, where it ends a span of the log (a stop, an epoch, a token's end); else
  // none. Asked before the record is offered.
  std::vector<Record> ended_by(const Record& record);
  // Counts of a node's refusals so far, to be written before this new refusal of it, or the old ones would seem to
  // go on after it; their windows stay open. Nothing where the record is none. Asked after it was offered.
  std::vector<Record> refusals_so_far(const Record& record);
  // Counts of this node's windows, which are closed.
  std::vector<Record> settle(std::string_view node);
  // Every count; all windows are closed.
  std::vector<Record> settle_all();

  // When due() will have something to do; nullopt when there is no window.
  std::optional<std::chrono::steady_clock::time_point> next_due() const;

 private:
  struct Window {
    std::string key;
    Record record;     // what is counted
    Seq stands_for = 0;  // seq of the record that opened the window
    std::int64_t pending = 0;
    Time first, last;  // of the pending ones
    std::chrono::steady_clock::time_point due;
    std::chrono::seconds interval{};
  };
  using Windows = std::list<Window>;

  Windows::iterator open_window(std::string key, const Record& record, Instant now);
  void close_window(Windows::iterator window);
  bool within_budget(Instant now);
  Record take_count(Window& window);

  Limits limits_;
  double budget_;
  std::optional<std::chrono::steady_clock::time_point> refilled_;
  Windows windows_;
  std::unordered_map<std::string_view, Windows::iterator> by_key_;  // views into Window::key
  std::unordered_multimap<std::string_view, Windows::iterator> by_node_;
  std::set<std::pair<std::chrono::steady_clock::time_point, Window*>> by_due_;
  std::set<std::pair<std::string_view, Window*>> counting_;  // by node: windows of refusals with a pending count
  Windows::iterator offered_ = windows_.end();  // waiting for written()
};

}  // namespace ledger
