// The Date header: what is written is read back, and what is no date is refused.
#include "api/http_date.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace ledger::api {
namespace {

TEST(HttpDate, IsTheFormOfRfc9110) {
  const Time time = *Time::parse("1994-11-06T08:49:37Z");
  EXPECT_EQ(http_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(*parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), time);
}

TEST(HttpDate, RefusesWhatIsNoDate) {
  for (const char* text :
       {"", "GMT", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 06 Nox 1994 08:49:37 GMT",
        "Sun, 31 Feb 2024 08:49:37 GMT", "Sun, 06 Nov 1994 25:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 GMT and more"})
    EXPECT_FALSE(parse_http_date(text)) << text;
}

RC_GTEST_PROP(HttpDate, ReadsWhatItWrites, ()) {
  const auto seconds = *rc::gen::inRange<std::int64_t>(1, Time::kMaxMicros / 1'000'000);
  const Time time = Time{}.plus_seconds(seconds);
  const auto read = parse_http_date(http_date(time));
  RC_ASSERT(read.has_value());
  RC_ASSERT(*read == time);
}

}  // namespace
}  // namespace ledger::api
