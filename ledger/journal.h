// Lines of journals: whatever wrapped them (systemd, Docker, syslog, a terminal), who said what and when. What the
// readers of servers' logs (import_log.h) and of agents' logs (replay/agent_log.h) have in common.
//
// Understood: `journalctl` in its forms short, short-iso, short-unix, cat and json; Docker's JSON lines; logrus text
// (`time="..." level=... msg="..."`) and its form for terminals (`ERRO[2024-...] ...`), bare or inside one of those. A
// prefix without a year or a zone ("Jun 11 07:02:40") tells no time: the message's own counts. Any thread.
#pragma once

#include <cstdint>
#include <istream>
#include <optional>
#include <string>
#include <string_view>

#include "ledger/types.h"

namespace ledger {

// A line taken apart, before anybody asks what it means.
struct LogLine {
  std::string host;  // empty: not known
  std::string unit;  // the program that wrote it; empty: not known
  std::optional<Time> time;
  std::string message;
  std::string error;  // logrus' field `error` or `err`
};
// Errc::invalid: it looks like JSON and is none.
Result<LogLine> parse_log_line(std::string_view line);

// Lines of a stream with a bound on what one of them may cost.
class LineReader {
 public:
  static constexpr std::size_t kMaxBytes = 1 << 20;

  explicit LineReader(std::istream& in) : in_(*in.rdbuf()) {}
  // False at the end. Of a line that is too long only the first kMaxBytes and one are kept: enough to refuse it.
  bool next(std::string& line);
  std::uint64_t number() const { return number_; }  // of the last line, from 1
  std::uint64_t bytes() const { return bytes_; }    // read so far

 private:
  std::streambuf& in_;
  std::uint64_t number_ = 0, bytes_ = 0;
};

// The part of `text` between `before` and `after`, or nullopt.
std::optional<std::string_view> between(std::string_view text, std::string_view before, std::string_view after);
// Takes `prefix` off the front; false where it is not there.
bool take_prefix(std::string_view& text, std::string_view prefix);

}  // namespace ledger
