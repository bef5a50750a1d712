// Comma separated values by the rules of Go's encoding/csv, which k3s reads and writes cred/passwd and
// cred/node-passwd with: quotes only around a whole field, "" for a quote inside, empty lines passed over, a
// quoted field may span lines, CR LF counts as LF, any number of columns.
//
// Made for files of secrets: columns are Secret, and what is read in between is wiped. One object, one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/types.h"

namespace ledger {

// `raw` is the record's bytes, line end included; `line` is where it starts.
struct CsvRecord {
  std::size_t line = 1;
  std::string_view raw;
  std::vector<Secret> columns;
};

class CsvReader {
 public:
  // `text` must outlive the reader. A record of more than `max_record` bytes is an error. A reader of the next
  // part of a file goes on where the one before it stood: with its line().
  explicit CsvReader(std::string_view text, std::size_t max_record = SIZE_MAX, std::size_t line = 1);

  // False at the end of the text. Errors say what is wrong, never what stands there; where is record->line.
  Result<bool> read(CsvRecord* record);
  // After an error: goes on with the line after the one where the bad record starts.
  void skip_line();

  std::size_t consumed() const { return at_; }
  std::size_t line() const { return line_; }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\n'; }
  bool take(std::string_view what);
  bool take_line_end();
  bool at_line_end() const;
  Result<void> keep(char c);
  Result<void> read_plain();
  Result<void> read_quoted();

  std::string_view text_;
  std::size_t max_record_;
  std::size_t at_ = 0, line_;
  std::size_t start_ = 0, start_line_;  // of the record being read
  WipedText field_;
};

}  // namespace ledger
