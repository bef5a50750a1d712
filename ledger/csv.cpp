#include "ledger/csv.h"

#include <algorithm>

namespace ledger {

CsvReader::CsvReader(std::string_view text, std::size_t max_record, std::size_t line)
    : text_(text), max_record_(max_record), line_(line), start_line_(line), field_(std::min(text.size(), max_record)) {}

bool CsvReader::take(std::string_view what) {
  if (text_.substr(at_, what.size()) != what) return false;
  at_ += what.size();
  return true;
}

// LF, CR LF, or a CR that is the last byte of the text: Go drops it.
bool CsvReader::take_line_end() {
  if (!take("\n") && !take("\r\n")) return at_ + 1 == text_.size() && take("\r");
  ++line_;
  return true;
}

bool CsvReader::at_line_end() const {
  const std::string_view rest = text_.substr(at_);
  return rest.empty() || rest[0] == '\n' || rest.starts_with("\r\n") || rest == "\r";
}

Result<bool> CsvReader::read(CsvRecord* record) {
  while (take_line_end()) {
  }
  start_ = at_, start_line_ = line_;
  record->line = line_;
  record->columns.clear();
  if (at_ == text_.size()) return false;
  do {
    const Result<void> column = peek() == '"' ? read_quoted() : read_plain();
    if (!column) return column.error();
    record->columns.emplace_back(Secret(field_.text));
  } while (take(","));
  take_line_end();
  record->raw = text_.substr(start_, at_ - start_);
  return true;
}

void CsvReader::skip_line() {
  const auto end = text_.find('\n', start_);
  at_ = end == std::string_view::npos ? text_.size() : end + 1;
  line_ = start_line_ + 1;
}

Result<void> CsvReader::keep(char c) {
  if (at_ - start_ >= max_record_)
    return Error{Errc::invalid, "is longer than " + std::to_string(max_record_) + " bytes, or has a quote that is "
                                "never closed"};
  field_.text += c;
  ++at_;
  return {};
}

Result<void> CsvReader::read_plain() {
  field_.text.clear();
  while (!at_line_end() && peek() != ',') {
    if (peek() == '"') return Error{Errc::invalid, "has a quote inside a field that does not start with one"};
    if (const Result<void> kept = keep(peek()); !kept) return kept;
  }
  return {};
}

Result<void> CsvReader::read_quoted() {
  field_.text.clear();
  for (++at_; at_ < text_.size();) {
    if (take("\"\"")) {
      --at_;
      if (const Result<void> kept = keep('"'); !kept) return kept;
    } else if (take("\"")) {
      if (peek() == ',' || at_line_end()) return {};
      return Error{Errc::invalid, "has something between a closing quote and the next comma"};
    } else {
      if (text_.substr(at_).starts_with("\r\n")) ++at_;  // Go reads a line end inside quotes as LF
      if (peek() == '\n') ++line_;
      if (const Result<void> kept = keep(peek()); !kept) return kept;
    }
  }
  return Error{Errc::invalid, "has a quote that is never closed"};
}

}  // namespace ledger
