// Everything that bears on one node, in order, from a log or from a JSON Lines file.
//
// Both sources select by the same rule, so that the same history gives the same explanation:
//   1. records of the node itself: its first 1,000 and its latest 50,000;
//   2. other names' use of the node's passwords: for each of the 128 fingerprints that those records named last,
//      the latest 200 records of other nodes (or of none) that name it;
//   3. records about the server as a whole (is_server_wide): the latest 10,000;
//   4. refusals that name no node (token_rejected, request_rejected, tls_failed) from the 32 addresses that the
//      node's records came from last: of the latest 20,000 records listed under each address, and of all these
//      the latest 10,000;
//   5. after the latest restore or replacement of the datastore: the first refused password of each of 16 other
//      names, in the 1,000 records that follow it. A memory that went back refuses many names at once;
//   6. of the records that 4. walks over, for each address: the latest success of another machine (another name and
//      password) between two records of the node from there. Such an address is a NAT's or a balancer's.
// Nothing else is in: a record that bears on nobody here never changes an answer. What a bound left out is said
// in `warnings`; what cannot be read is a hole, never an end.
//
// Threads: no shared state; any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/event.h"
#include "ledger/event_log.h"

namespace ledger::replay {

// Where the past ends: `--at TIME|SEQ`. Nothing set: the end.
struct Cut {
  std::optional<Seq> seq;
  std::optional<Time> time;

  // A seq, or an RFC 3339 time.
  static Result<Cut> parse(std::string_view text);
  // Also a span back from `now`: 30m, 24h, 7d.
  static Result<Cut> parse(std::string_view text, Time now);
  // A record without a time cannot be after one.
  bool admits(const Record& record) const {
    return (!seq || record.seq <= *seq) && (!time || record.time <= *time);
  }
};

// "30m", "24h", "7d" in seconds; at most 36,500 of them.
std::optional<std::int64_t> seconds_of_span(std::string_view text);

// A record or a line that cannot be read.
struct Hole {
  Seq seq = 0;             // 0: not known
  std::uint64_t line = 0;  // 0: not from a file
  Seq after = 0;           // the last record that was read before it; 0: none
  std::string reason;
  // Of records in an archive that is not here: it stands for seq..to, and `own` says that the node's are among them.
  Seq to = 0;
  bool own = false;
};

struct History {
  std::string node;
  std::vector<Record> records;  // in the order in which they are to be believed: by seq
  std::vector<Hole> holes;      // the first 1,000
  std::uint64_t holes_left_out = 0;
  std::vector<std::string> warnings;  // what was odd about the input
};

// Told every now and then how much of the input is done, in bytes or records; total 0: not known.
using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// Through the indexes: the cost grows with what bears on the node, not with the log.
Result<History> history_from_log(const EventLog& log, std::string_view node, const Cut& at = {});

// Reads the file twice and never holds it in memory. "-" is standard input; it and other things that cannot be
// read twice are copied to an unlinked file in the temporary directory first.
Result<History> history_from_jsonl(const std::filesystem::path& path, std::string_view node, const Cut& at = {},
                                   const Progress& progress = {});
// The file, or a copy of what cannot be read twice: a stream that can seek to its start.
Result<std::ifstream> open_jsonl(const std::filesystem::path& path);
// The same as history_from_jsonl() from such a stream.
Result<History> history_from_stream(std::istream& lines, std::string_view node, const Cut& at = {},
                                    const Progress& progress = {});

// The last record of the log with a time up to `at`; 0 when there is none. Relies on times that never go back. Where that
// is in an archive that is not here, the last before it that can be told.
Result<Seq> last_seq_until(const EventLog& log, Time at);

}  // namespace ledger::replay
