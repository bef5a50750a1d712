// JSON Lines that somebody gave us: read line by line with a bound on what one of them may cost, and again from the
// start where that is needed. Single thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <istream>
#include <string>

#include "ledger/result.h"

namespace ledger::replay {

class LineReader {
 public:
  explicit LineReader(std::istream& in) : in_(*in.rdbuf()) {}

  // False at the end. Of a line that is too long only the first 1 MiB and a byte is kept, enough to refuse it.
  bool next(std::string& line);
  std::uint64_t number() const { return number_; }  // of the line read last, from 1
  std::uint64_t bytes() const { return bytes_; }

 private:
  std::streambuf& in_;
  std::uint64_t number_ = 0, bytes_ = 0;
};

// Back to the start; Errc::io where the stream cannot.
Result<void> rewind(std::istream& in);

// A file that can be read as often as needed. "-" is standard input; it and other things that cannot be read twice
// are copied to an unlinked file in the temporary directory first.
Result<std::ifstream> open_lines(const std::filesystem::path& path);

}  // namespace ledger::replay
