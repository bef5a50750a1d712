#include "api/http_date.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>

namespace ledger::api {
namespace {

// strftime() and strptime() would use the locale's words.
constexpr std::array<std::string_view, 7> kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

}  // namespace

std::string http_date(Time time) {
  const std::time_t seconds = std::clamp<std::int64_t>(time.micros, 0, Time::kMaxMicros) / 1'000'000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  const std::string_view day = kDays[static_cast<std::size_t>(parts.tm_wday)];
  const std::string_view month = kMonths[static_cast<std::size_t>(parts.tm_mon)];
  char text[64];
  std::snprintf(text, sizeof text, "%s, %02d %s %04d %02d:%02d:%02d GMT", day.data(), parts.tm_mday, month.data(),
                parts.tm_year + 1900, parts.tm_hour, parts.tm_min, parts.tm_sec);
  return text;
}

Result<Time> parse_http_date(std::string_view text) {
  const std::string copy(text);
  char day[4] = "", month[4] = "", rest = '\0';
  std::tm parts{};
  const int read = std::sscanf(copy.c_str(), "%3s, %2d %3s %4d %2d:%2d:%2d GMT%c", day, &parts.tm_mday, month,
                               &parts.tm_year, &parts.tm_hour, &parts.tm_min, &parts.tm_sec, &rest);
  const auto named = std::find(kMonths.begin(), kMonths.end(), std::string_view(month));
  parts.tm_mon = static_cast<int>(named - kMonths.begin());
  parts.tm_year -= 1900;
  // What is not a date at all, or one that timegm() would silently make another date of.
  const std::tm said = parts;
  const std::time_t seconds = timegm(&parts);
  const bool same = parts.tm_mday == said.tm_mday && parts.tm_mon == said.tm_mon && parts.tm_hour == said.tm_hour &&
                    parts.tm_min == said.tm_min;
  if (read != 7 || !copy.ends_with("GMT") || named == kMonths.end() || !same || seconds <= 0)
    return Error{Errc::invalid, "'" + printable(text, 60) + "' is not a date of HTTP"};
  return Time{}.plus_seconds(seconds);
}

}  // namespace ledger::api
