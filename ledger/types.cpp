#include "ledger/types.h"

#include <strings.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ledger {

void fatal(std::string_view what) {
  std::fprintf(stderr, "ledger: internal error: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

void throw_exception_from_error(const Error& error, const boost::source_location& where) {
  fatal(std::string(where.file_name()) + ": unchecked Result: " + error.message);
}

// ---- Time ------------------------------------------------------------------------------------------------

namespace {

namespace chrono = std::chrono;

constexpr std::int64_t kLastSecond = Time::kMaxMicros / 1'000'000;

// Reads exactly `digits` decimal digits at `*at` and moves past them.
bool read_number(std::string_view text, std::size_t* at, int digits, int* out) {
  if (*at + static_cast<std::size_t>(digits) > text.size()) return false;
  int value = 0;
  for (int i = 0; i < digits; ++i) {
    const char c = text[*at + static_cast<std::size_t>(i)];
    if (c < '0' || c > '9') return false;
    value = value * 10 + (c - '0');
  }
  *at += static_cast<std::size_t>(digits);
  *out = value;
  return true;
}

bool read_char(std::string_view text, std::size_t* at, std::string_view allowed) {
  if (*at >= text.size() || allowed.find(text[*at]) == std::string_view::npos) return false;
  ++*at;
  return true;
}

// Fraction of a second in microseconds; digits past the sixth are dropped.
bool read_fraction(std::string_view text, std::size_t* at, int* micros) {
  *micros = 0;
  if (*at >= text.size() || text[*at] != '.') return true;
  ++*at;
  int digits = 0;
  while (*at < text.size() && text[*at] >= '0' && text[*at] <= '9') {
    if (digits < 6) *micros = *micros * 10 + (text[*at] - '0');
    ++digits;
    ++*at;
  }
  for (int i = digits; i < 6; ++i) *micros *= 10;
  return digits >= 1 && digits <= 9;
}

bool read_offset(std::string_view text, std::size_t* at, int* offset_minutes) {
  *offset_minutes = 0;
  if (read_char(text, at, "Zz")) return true;
  if (*at >= text.size()) return false;
  const char sign = text[*at];
  if (!read_char(text, at, "+-")) return false;
  int hours = 0, minutes = 0;
  if (!read_number(text, at, 2, &hours) || !read_char(text, at, ":") || !read_number(text, at, 2, &minutes) ||
      hours > 23 || minutes > 59)
    return false;
  *offset_minutes = (sign == '-' ? -1 : 1) * (hours * 60 + minutes);
  return true;
}

}  // namespace

Time Time::now() {
  const auto since_epoch = chrono::system_clock::now().time_since_epoch();
  return {chrono::duration_cast<chrono::microseconds>(since_epoch).count()};
}

Result<Time> Time::parse(std::string_view text) {
  const auto bad = [&] {
    return Error{Errc::invalid, "not an RFC 3339 time like 2024-06-11T07:02:40Z: '" + printable(text, 40) + "'"};
  };
  std::size_t at = 0;
  int year, month, day, hour, minute, second, micros, offset;
  if (!read_number(text, &at, 4, &year) || !read_char(text, &at, "-") || !read_number(text, &at, 2, &month) ||
      !read_char(text, &at, "-") || !read_number(text, &at, 2, &day) || !read_char(text, &at, "Tt ") ||
      !read_number(text, &at, 2, &hour) || !read_char(text, &at, ":") || !read_number(text, &at, 2, &minute) ||
      !read_char(text, &at, ":") || !read_number(text, &at, 2, &second) || !read_fraction(text, &at, &micros) ||
      !read_offset(text, &at, &offset) || at != text.size())
    return bad();
  const chrono::year_month_day date{chrono::year{year}, chrono::month{static_cast<unsigned>(month)},
                                    chrono::day{static_cast<unsigned>(day)}};
  if (year < 1970 || !date.ok() || hour > 23 || minute > 59 || second > 60) return bad();
  const std::int64_t days = chrono::sys_days{date}.time_since_epoch().count();
  const std::int64_t seconds = days * 86400 + hour * 3600 + minute * 60 + second - offset * 60;
  if (seconds < 0 || seconds > kLastSecond) return bad();  // an offset or a leap second left 1970..9999
  return Time{seconds * 1'000'000 + micros};
}

std::string Time::to_string() const {
  const chrono::microseconds since_epoch{std::clamp<std::int64_t>(micros, 0, kMaxMicros)};
  const chrono::sys_time<chrono::microseconds> instant{since_epoch};
  const auto day = chrono::floor<chrono::days>(instant);
  const chrono::year_month_day date{day};
  const chrono::hh_mm_ss clock{instant - day};
  char text[48];
  std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02d", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                static_cast<int>(clock.seconds().count()));
  std::string out = text;
  if (const auto fraction = clock.subseconds().count(); fraction != 0) {
    std::snprintf(text, sizeof text, ".%06d", static_cast<int>(fraction));
    out += text;
  }
  return out + "Z";
}

// ---- NodeName --------------------------------------------------------------------------------------------

Result<NodeName> NodeName::parse(std::string_view text) {
  const auto bad = [&](const std::string& why) {
    return Error{Errc::invalid, "node name '" + printable(text, 80) + "' " + why +
                                    "; use lower-case letters, digits, '-' and '.', at most 253 characters"};
  };
  if (text.empty()) return Error{Errc::invalid, "node name is empty"};
  if (text.size() > 253) return bad("is longer than 253 characters");
  std::string name = to_lower(text);
  // RFC 1123 subdomain, as Kubernetes demands of a Node's name: labels joined by dots, each starting and
  // ending with a letter or digit.
  const auto alphanumeric = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  char before = '.';
  for (const char c : name) {
    const bool ok = alphanumeric(c) || (c == '-' && before != '.') || (c == '.' && alphanumeric(before));
    if (!ok) return bad("is not an RFC 1123 name");
    before = c;
  }
  if (!alphanumeric(before)) return bad("is not an RFC 1123 name");
  return NodeName(std::move(name));
}

// ---- Secret ----------------------------------------------------------------------------------------------

Secret::Secret(std::string_view text) {
  if (text.empty()) return;
  bytes_ = new char[text.size()];
  size_ = text.size();
  std::memcpy(bytes_, text.data(), text.size());
}

Secret::~Secret() {
  if (bytes_ != nullptr) explicit_bzero(bytes_, size_);
  delete[] bytes_;
}

WipedText::~WipedText() { explicit_bzero(text.data(), text.capacity()); }

// ---- Text ------------------------------------------------------------------------------------------------

std::string_view host_of(std::string_view source) {
  if (source.starts_with('[')) {
    const auto end = source.find(']');
    return end == std::string_view::npos ? source : source.substr(1, end - 1);
  }
  const auto colon = source.find(':');
  if (colon == std::string_view::npos || source.find(':', colon + 1) != std::string_view::npos) return source;
  return source.substr(0, colon);
}

namespace {

// Length of the well-formed UTF-8 sequence at the start of `text` (RFC 3629), or 0.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto tail = [&](std::size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return tail(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (!tail(1) || !tail(2)) return 0;
    if ((first == 0xE0 && byte(1) < 0xA0) || (first == 0xED && byte(1) > 0x9F)) return 0;
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (!tail(1) || !tail(2) || !tail(3)) return 0;
    if ((first == 0xF0 && byte(1) < 0x90) || (first == 0xF4 && byte(1) > 0x8F)) return 0;
    return 4;
  }
  return 0;
}

// C0, DEL, C1, line separators and everything that turns the direction of text: all of it can lie on a terminal.
bool is_control(std::string_view sequence) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(sequence[i]); };
  if (sequence.size() == 1) return byte(0) < 0x20 || byte(0) == 0x7F;
  if (sequence.size() == 2) return (byte(0) == 0xC2 && byte(1) < 0xA0) || sequence == "\xD8\x9C";  // U+061C
  if (sequence.size() == 3 && byte(0) == 0xE2)  // U+200E..200F, U+2028..202E, U+2066..206F
    return (byte(1) == 0x80 && ((byte(2) >= 0xA8 && byte(2) <= 0xAE) || byte(2) == 0x8E || byte(2) == 0x8F)) ||
           (byte(1) == 0x81 && byte(2) >= 0xA6 && byte(2) <= 0xAF);
  return false;
}

}  // namespace

std::string printable(std::string_view text, std::size_t max_bytes) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const bool keep = length > 0 && !is_control(text.substr(0, length));
    const std::string_view piece = keep ? text.substr(0, length) : std::string_view("?");
    if (out.size() + piece.size() > max_bytes) break;
    out += piece;
    text.remove_prefix(length > 0 ? length : 1);
  }
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const auto first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

}  // namespace ledger
