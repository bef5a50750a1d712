// Reads the log of a k3s (or RKE2) server of any generation: what its lines prove, as records.
//
// Lines in any form that journal.h takes apart. Most lines of a server say nothing about nodes; they are passed over.
// What a line proves keeps its doubt: the record's note says which line it was, when it happened, and what the log does
// not tell (which password was presented, for one).
//
// The records name the server as "imported:<host>" (event.h, is_imported), `first_time` is when it happened. Refusals
// that are identical but for time and port within a window of 120 s become one record with a count, as in a storm.
// One object, one thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ledger/import.h"

namespace ledger {

// What a message proves.
struct LogFinding {
  std::optional<Record> record;  // event, node, source
  std::string doubt;             // what the log does not tell
  std::string left_out;          // not empty: it speaks of a node, and nothing can be made of it
};
LogFinding read_message(std::string_view message, std::string_view unit = {});

class LogHistory {
 public:
  explicit LogHistory(std::string_view file_sha256) : file_(file_sha256.substr(0, 12)) {}

  // Why the line was left out; empty: it was used, or says nothing that concerns us.
  std::string add(std::size_t number, std::string_view line);
  // Time to take(): windows end there.
  bool full() const { return held_.size() >= 512; }
  std::vector<ImportEntry> take();

 private:
  struct Held {
    ImportEntry entry;
    std::string doubt;
    std::optional<Time> last;
  };
  std::string file_;
  std::vector<Held> held_;
  // node -> identity -> position in held_, of refusals that may be counted on
  std::unordered_map<std::string, std::unordered_map<std::string, std::size_t>> open_;
};

}  // namespace ledger
