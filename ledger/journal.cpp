#include "ledger/journal.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>

namespace ledger {

namespace json = boost::json;

std::optional<std::string_view> between(std::string_view text, std::string_view before, std::string_view after) {
  const auto start = text.find(before);
  if (start == std::string_view::npos) return std::nullopt;
  text.remove_prefix(start + before.size());
  const auto end = text.find(after);
  if (end == std::string_view::npos) return std::nullopt;
  return text.substr(0, end);
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

bool LineReader::next(std::string& line) {
  line.clear();
  bool any = false;
  for (int c = in_.sbumpc(); c != std::char_traits<char>::eof(); c = in_.sbumpc()) {
    any = true;
    ++bytes_;
    if (c == '\n') break;
    if (line.size() <= kMaxBytes) line.push_back(static_cast<char>(c));
  }
  if (++number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);  // a byte order mark
  return any;
}

namespace {

// Colours and the like, as terminals are sent them.
std::string without_escapes(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\x1b') {
      out += text[i];
      continue;
    }
    if (i + 1 < text.size() && text[i + 1] == '[')
      for (i += 2; i < text.size() && !(text[i] >= '@' && text[i] <= '~'); ++i) {
      }
  }
  return out;
}

// The value of logrus' `<key>=`, a bare word or quoted as Go quotes; `line` then starts behind it.
std::optional<std::string> take_logrus_value(std::string_view& line, std::string_view key) {
  const std::string field = std::string(key) + "=";
  std::size_t at = 0;
  if (!line.starts_with(field)) {
    at = line.find(" " + field);
    if (at == std::string_view::npos) return std::nullopt;
  }
  line.remove_prefix(line.find('=', at) + 1);
  std::string out;
  if (!line.starts_with('"')) {
    out = line.substr(0, line.find(' '));
    line.remove_prefix(out.size());
    return out;
  }
  for (at = 1; at < line.size() && line[at] != '"'; ++at) {
    if (line[at] == '\\' && at + 1 < line.size()) {
      ++at;
      out += line[at] == 'n' || line[at] == 't' ? ' ' : line[at];
    } else {
      out += line[at];
    }
  }
  line.remove_prefix(std::min(at + 1, line.size()));
  return out;
}

// logrus writes a message's fields behind it: `msg="Failed to connect to proxy" error="websocket: bad handshake"`.
std::string logrus_error(std::string_view line) {
  for (const std::string_view key : {"error", "err"})
    if (std::optional<std::string> value = take_logrus_value(line, key)) return std::move(*value);
  return {};
}

// "time="2020-02-04T10:00:00.318797817Z"", else the bracket of "ERRO[2020-02-04T10:00:00Z] ...".
std::optional<Time> logrus_time(std::string_view line) {
  auto text = between(line, "time=\"", "\"");
  if (!text) text = between(line, "[", "]");
  if (!text) return std::nullopt;
  const Result<Time> time = Time::parse(*text);
  return time ? std::optional<Time>(*time) : std::nullopt;
}

// "2024-01-02T10:00:00+0000" (short-iso, with or without a colon in the zone) or "1704189600.123456" (short-unix).
std::optional<Time> prefix_time(std::string_view text) {
  if (const Result<Time> time = Time::parse(text)) return *time;
  if (text.size() > 19 && (text[text.size() - 5] == '+' || text[text.size() - 5] == '-')) {
    std::string iso(text);
    iso.insert(iso.size() - 2, ":");
    if (const Result<Time> time = Time::parse(iso)) return *time;
  }
  const auto point = text.find('.');
  std::int64_t seconds = 0;
  if (point == std::string_view::npos || text.size() != point + 7) return std::nullopt;
  const auto [end, bad] = std::from_chars(text.data(), text.data() + point, seconds);
  if (bad != std::errc() || end != text.data() + point || seconds <= 0 || seconds >= Time::kMaxMicros / 1'000'000)
    return std::nullopt;
  std::int64_t micros = 0;
  const auto [stop, wrong] = std::from_chars(end + 1, text.data() + text.size(), micros);
  if (wrong != std::errc() || stop != text.data() + text.size() || micros < 0) return std::nullopt;
  return Time{seconds * 1'000'000 + micros};
}

// "Nov 23 10:00:00 host k3s[812]: message" or with an ISO time in front: the host, the program and the message.
void take_syslog_prefix(std::string_view& line, LogLine& out) {
  const auto bracket = line.find("]: ");
  if (bracket == std::string_view::npos || bracket > 200) return;
  const std::string_view head = line.substr(0, bracket);
  const auto open = head.rfind('[');
  if (open == std::string_view::npos || open + 1 == head.size() ||
      head.substr(open + 1).find_first_not_of("0123456789") != std::string_view::npos)
    return;
  const auto unit_start = head.substr(0, open).rfind(' ');
  if (unit_start == std::string_view::npos) return;
  const std::string_view before = head.substr(0, unit_start);
  const auto host_start = before.rfind(' ');
  out.unit = printable(head.substr(unit_start + 1, open - unit_start - 1), 60);
  out.host = printable(host_start == std::string_view::npos ? before : before.substr(host_start + 1), 100);
  out.time = prefix_time(before.substr(0, before.find(' ')));
  line.remove_prefix(bracket + 3);
}

void read_text(std::string_view text, LogLine& out) {
  const std::string plain = without_escapes(text);
  std::string_view line = trim(plain);
  take_syslog_prefix(line, out);
  if (const std::optional<Time> time = logrus_time(line)) out.time = time;
  if (std::optional<std::string> message = take_logrus_value(line, "msg")) {
    out.message = std::move(*message);
    out.error = logrus_error(line);
    return;
  }
  // "ERRO[0012] message": the number is seconds since the start, which tells no time.
  const auto bracket = line.find("] ");
  if (bracket != std::string_view::npos && bracket < 48 && line.size() > 5 && line[4] == '[') line.remove_prefix(bracket + 2);
  out.message = trim(line);
}

std::string_view text_of(const json::object& object, const char* key) {
  const json::value* found = object.if_contains(key);
  if (found == nullptr || !found->is_string()) return {};
  return {found->get_string().data(), found->get_string().size()};
}

// The journal writes a message with control characters as an array of bytes.
std::string journal_message(const json::object& object) {
  const json::value* found = object.if_contains("MESSAGE");
  if (found == nullptr || !found->is_array()) return std::string(text_of(object, "MESSAGE"));
  std::string out;
  for (const json::value& byte : found->get_array())
    if (byte.is_int64()) out += static_cast<char>(byte.get_int64());
  return out;
}

}  // namespace

Result<LogLine> parse_log_line(std::string_view line) {
  LogLine out;
  line = trim(line);
  if (!line.starts_with('{')) {
    read_text(line, out);
    return out;
  }
  json::error_code error;
  const json::value value = json::parse(json::string_view(line.data(), line.size()), error);
  if (error || !value.is_object())
    return Error{Errc::invalid, "begins like JSON and cannot be read (" +
                                    (error ? error.message() : std::string("no object")) + ")"};
  const json::object& object = value.get_object();
  out.host = printable(text_of(object, "_HOSTNAME"), 100);
  out.unit = printable(text_of(object, "SYSLOG_IDENTIFIER"), 60);
  const std::string_view stamp = text_of(object, "__REALTIME_TIMESTAMP");
  std::int64_t micros = 0;
  if (const auto [end, bad] = std::from_chars(stamp.data(), stamp.data() + stamp.size(), micros);
      bad == std::errc() && end == stamp.data() + stamp.size() && micros > 0 && micros <= Time::kMaxMicros)
    out.time = Time{micros};
  if (const Result<Time> time = Time::parse(text_of(object, "time"))) out.time = *time;  // Docker's
  const std::string message = object.contains("MESSAGE") ? journal_message(object) : std::string(text_of(object, "log"));
  const std::optional<Time> outer = out.time;
  read_text(message, out);
  if (!out.time) out.time = outer;
  return out;
}

}  // namespace ledger
