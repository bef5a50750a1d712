#include "ledger/types.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstdlib>
#include <new>
#include <optional>
#include <string>
#include <type_traits>

#include "tests/support/generators.h"

// Array memory goes through here, so that a test can see what a Secret leaves in the memory it gives back.
namespace {
const void* watched = nullptr;
std::string seen_at_release;

void release(void* memory) noexcept {
  if (memory != nullptr && memory == watched) {
    seen_at_release.assign(static_cast<const char*>(memory), seen_at_release.size());
    watched = nullptr;
  }
  std::free(memory);  // NOLINT: the pair of operator new[] below
}
}  // namespace

void* operator new[](std::size_t size) {
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;  // NOLINT
  throw std::bad_alloc();
}
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }

namespace ledger {
namespace {

// ---- Time ------------------------------------------------------------------------------------------------

struct TimeRow {
  const char* text;
  const char* printed;  // nullptr: refused
};

class TimeTable : public ::testing::TestWithParam<TimeRow> {};

TEST_P(TimeTable, ParsesAndPrints) {
  const TimeRow& row = GetParam();
  const Result<Time> time = Time::parse(row.text);
  ASSERT_EQ(time.has_value(), row.printed != nullptr) << row.text;
  if (time) {
    EXPECT_EQ(time->to_string(), row.printed) << row.text;
  } else {
    EXPECT_EQ(time.error().code, Errc::invalid);
    EXPECT_NE(time.error().message.find("RFC 3339"), std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Table, TimeTable,
    ::testing::Values(
        TimeRow{"1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"},          // the first there is
        TimeRow{"1970-01-01T00:00:01Z", "1970-01-01T00:00:01Z"},          //
        TimeRow{"2024-06-11T07:02:40Z", "2024-06-11T07:02:40Z"},          //
        TimeRow{"2024-06-11t07:02:40z", "2024-06-11T07:02:40Z"},          // RFC 3339 allows small letters
        TimeRow{"2024-06-11 07:02:40Z", "2024-06-11T07:02:40Z"},          // and a blank
        TimeRow{"2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"},          // leap year
        TimeRow{"2000-02-29T12:00:00Z", "2000-02-29T12:00:00Z"},          // divisible by 400
        TimeRow{"2023-02-29T12:00:00Z", nullptr},                         // not a leap year
        TimeRow{"2100-02-29T12:00:00Z", nullptr},                         // divisible by 100
        TimeRow{"2024-04-31T12:00:00Z", nullptr},                         //
        TimeRow{"2024-06-11T07:02:40.5Z", "2024-06-11T07:02:40.500000Z"},  //
        TimeRow{"2024-06-11T07:02:40.000001Z", "2024-06-11T07:02:40.000001Z"},
        TimeRow{"2024-06-11T07:02:40.123456789Z", "2024-06-11T07:02:40.123456Z"},  // kept to 6
        TimeRow{"2024-06-11T07:02:40.0000009Z", "2024-06-11T07:02:40Z"},
        TimeRow{"2024-06-11T07:02:40.1234567890Z", nullptr},              // ten digits
        TimeRow{"2024-06-11T07:02:40.Z", nullptr},                        // no digit
        TimeRow{"2024-06-11T07:02:40+02:00", "2024-06-11T05:02:40Z"},     //
        TimeRow{"2024-06-11T07:02:40-05:30", "2024-06-11T12:32:40Z"},     //
        TimeRow{"2024-01-01T00:00:00+00:01", "2023-12-31T23:59:00Z"},     // into the year before
        TimeRow{"2024-06-11T07:02:40+2:00", nullptr},                     //
        TimeRow{"2024-06-11T07:02:40+0200", nullptr},                     //
        TimeRow{"2024-06-11T07:02:40+24:00", nullptr},                    //
        TimeRow{"2024-06-11T07:02:40+02:60", nullptr},                    //
        TimeRow{"2024-06-11T07:02:40", nullptr},                          // no zone
        TimeRow{"2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"},          // a leap second is the next one
        TimeRow{"2016-12-31T23:59:61Z", nullptr},                         //
        TimeRow{"2024-06-11T24:00:00Z", nullptr},                         //
        TimeRow{"2024-06-11T07:60:00Z", nullptr},                         //
        TimeRow{"2024-13-11T07:02:40Z", nullptr},                         //
        TimeRow{"2024-00-11T07:02:40Z", nullptr},                         //
        TimeRow{"2024-06-00T07:02:40Z", nullptr},                         //
        TimeRow{"1969-12-31T23:59:59Z", nullptr},                         //
        TimeRow{"1970-01-01T00:30:00+01:00", nullptr},                    // 1969 by its offset
        TimeRow{"9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"},  // the last there is
        TimeRow{"9999-12-31T23:30:00-01:00", nullptr},                    // 10000 by its offset
        TimeRow{"9999-12-31T23:59:60Z", nullptr},                         //
        TimeRow{"10000-01-01T00:00:00Z", nullptr},                        //
        TimeRow{"2024-6-11T07:02:40Z", nullptr},                          //
        TimeRow{"2024-06-11T07:02:40Zjunk", nullptr},                     //
        TimeRow{" 2024-06-11T07:02:40Z", nullptr},                        //
        TimeRow{"+024-06-11T07:02:40Z", nullptr},                         //
        TimeRow{"2024-06-11", nullptr},                                   //
        TimeRow{"1718089360", nullptr},                                   //
        TimeRow{"", nullptr},                                             //
        TimeRow{"yesterday", nullptr}));

RC_GTEST_PROP(Time, WhatIsPrintedIsRead, ()) {
  const Time time = *test::time_in_range();
  const Result<Time> read = Time::parse(time.to_string());
  RC_ASSERT(read.has_value());
  RC_ASSERT(*read == time);
}

RC_GTEST_PROP(Time, TextOrderIsTimeOrder, ()) {
  const Time a{(*test::time_in_range()).micros / 1'000'000 * 1'000'000};
  const Time b{(*test::time_in_range()).micros / 1'000'000 * 1'000'000};
  RC_ASSERT((a < b) == (a.to_string() < b.to_string()));
}

RC_GTEST_PROP(Time, NoTextCrashes, (const std::string& text)) {
  const Result<Time> time = Time::parse(text);
  RC_ASSERT(time.has_value() || time.error().code == Errc::invalid);
}

TEST(Time, OutsideItsYearsTheNearerEndIsPrinted) {
  for (const std::int64_t micros : {INT64_MIN, INT64_MIN + 1, std::int64_t{-1}})
    EXPECT_EQ(Time{micros}.to_string(), "1970-01-01T00:00:00Z");
  EXPECT_EQ(Time{INT64_MAX}.to_string(), "9999-12-31T23:59:59.999999Z");
}

TEST(Time, NowIsAfterThisWasWritten) { EXPECT_GT(Time::now(), *Time::parse("2024-01-01T00:00:00Z")); }

TEST(Time, SecondsBetweenHasASign) {
  const Time early{1'000'000}, late{3'500'000};
  EXPECT_DOUBLE_EQ(seconds_between(early, late), 2.5);
  EXPECT_DOUBLE_EQ(seconds_between(late, early), -2.5);
  EXPECT_EQ(early.plus_seconds(2), Time{3'000'000});
}

// ---- NodeName --------------------------------------------------------------------------------------------

struct NameRow {
  std::string text;
  const char* name;  // nullptr: refused
};

class NodeNameTable : public ::testing::TestWithParam<NameRow> {};

TEST_P(NodeNameTable, ParsesOrRefuses) {
  const NameRow& row = GetParam();
  const Result<NodeName> name = NodeName::parse(row.text);
  ASSERT_EQ(name.has_value(), row.name != nullptr) << row.text;
  if (name)
    EXPECT_EQ(name->str(), row.name);
  else
    EXPECT_EQ(name.error().code, Errc::invalid);
}

const std::string k253 = std::string(251, 'a') + ".b";

INSTANTIATE_TEST_SUITE_P(
    Table, NodeNameTable,
    ::testing::Values(NameRow{"web-1", "web-1"}, NameRow{"WEB-1", "web-1"}, NameRow{"a", "a"}, NameRow{"7", "7"},
                      NameRow{"10.0.0.5", "10.0.0.5"}, NameRow{"a.b-c.d", "a.b-c.d"}, NameRow{"a--b", "a--b"},
                      NameRow{k253, k253.c_str()}, NameRow{k253 + "c", nullptr}, NameRow{"", nullptr},
                      NameRow{"-a", nullptr}, NameRow{"a-", nullptr}, NameRow{".a", nullptr}, NameRow{"a.", nullptr},
                      NameRow{"a..b", nullptr}, NameRow{"a.-b", nullptr}, NameRow{"a-.b", nullptr},
                      NameRow{"a_b", nullptr}, NameRow{"a b", nullptr}, NameRow{" a", nullptr}, NameRow{"a\n", nullptr},
                      NameRow{"wéb", nullptr}, NameRow{std::string("a\0b", 3), nullptr}, NameRow{"a/b", nullptr},
                      NameRow{"a:b", nullptr}, NameRow{"..", nullptr}));

TEST(NodeName, ErrorsShowNothingATerminalWouldObey) {
  const Result<NodeName> name = NodeName::parse("evil\x1b[2Jname");
  ASSERT_FALSE(name.has_value());
  EXPECT_EQ(name.error().message.find('\x1b'), std::string::npos);
  EXPECT_NE(name.error().message.find("evil?[2Jname"), std::string::npos);
}

RC_GTEST_PROP(NodeName, AParsedNameParsesToItself, ()) {
  const auto text = *rc::gen::container<std::string>(rc::gen::elementOf(std::string("aZ0-.")));
  const Result<NodeName> name = NodeName::parse(text);
  if (!name) return;
  const Result<NodeName> again = NodeName::parse(name->str());
  RC_ASSERT(again.has_value());
  RC_ASSERT(again->str() == to_lower(text));
}

// ---- host_of ---------------------------------------------------------------------------------------------

TEST(HostOf, Table) {
  const std::pair<const char*, const char*> rows[] = {
      {"10.0.0.5:41234", "10.0.0.5"}, {"10.0.0.5", "10.0.0.5"}, {"[fd00::1]:443", "fd00::1"},
      {"[fd00::1]", "fd00::1"},       {"fd00::1", "fd00::1"},   {"::1", "::1"},
      {"[fd00::1", "[fd00::1"},       {"host:1", "host"},       {"", ""},
      {"[]:1", ""},                   {":1", ""},               {"::ffff:10.0.0.5", "::ffff:10.0.0.5"},
      {"[fe80::1%eth0]:9", "fe80::1%eth0"}};
  for (const auto& [source, host] : rows) EXPECT_EQ(host_of(source), host) << source;
}

RC_GTEST_PROP(HostOf, NeverFails, (const std::string& text)) { RC_ASSERT(host_of(text).size() <= text.size()); }

// ---- printable -------------------------------------------------------------------------------------------

struct PrintableRow {
  const char* what;
  std::string text;
  std::string printed;
};

class PrintableTable : public ::testing::TestWithParam<PrintableRow> {};

TEST_P(PrintableTable, Prints) { EXPECT_EQ(printable(GetParam().text, 100), GetParam().printed) << GetParam().what; }

INSTANTIATE_TEST_SUITE_P(
    Table, PrintableTable,
    ::testing::Values(PrintableRow{"plain", "web-1", "web-1"}, PrintableRow{"umlaut", "Müller €😀", "Müller €😀"},
                      PrintableRow{"ANSI escape", "\x1b[31mred", "?[31mred"},
                      PrintableRow{"newlines", "a\r\nb\tc", "a??b?c"},
                      PrintableRow{"NUL", std::string("a\0b", 3), "a?b"}, PrintableRow{"DEL", "a\x7f", "a?"},
                      PrintableRow{"C1 as UTF-8", "a\xc2\x9b\x33m", "a?3m"},
                      PrintableRow{"C1 as a byte", "a\x9b", "a?"},
                      PrintableRow{"no-break space is no control", "a\xc2\xa0", "a\xc2\xa0"},
                      PrintableRow{"right-to-left override", "a\u202eb", "a?b"},
                      PrintableRow{"isolates", "\u2066a\u2069", "?a?"},
                      PrintableRow{"marks", "\u200ea\u200fb\u061c", "?a?b?"},
                      PrintableRow{"line separator", "a\u2028b", "a?b"},
                      PrintableRow{"truncated, 2 bytes", "a\xc3", "a?"},
                      PrintableRow{"truncated, 3 bytes", "a\xe2\x82", "a??"},
                      PrintableRow{"truncated, 4 bytes", "a\xf0\x9f\x98", "a???"},
                      PrintableRow{"truncated, then more", "\xe2\x82z", "??z"},
                      PrintableRow{"overlong slash", "\xc0\xaf", "??"},
                      PrintableRow{"overlong, 3 bytes", "\xe0\x80\xaf", "???"},
                      PrintableRow{"surrogate", "\xed\xa0\x80", "???"},
                      PrintableRow{"beyond Unicode", "\xf4\x90\x80\x80", "????"},
                      PrintableRow{"stray tail", "\x80\xbf", "??"}, PrintableRow{"FE FF", "\xfe\xff", "??"},
                      PrintableRow{"empty", "", ""}));

TEST(Printable, NeverCutsACharacterInTwo) {
  EXPECT_EQ(printable("ab€", 4), "ab");
  EXPECT_EQ(printable("ab€", 5), "ab€");
  EXPECT_EQ(printable("abc", 2), "ab");
  EXPECT_EQ(printable("abc", 0), "");
}

RC_GTEST_PROP(Printable, IsSafeShortAndStable, (const std::string& text)) {
  const auto limit = *rc::gen::inRange<std::size_t>(0, 64);
  const std::string once = printable(text, limit);
  RC_ASSERT(once.size() <= limit);
  for (const char c : once) RC_ASSERT(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
  RC_ASSERT(printable(once, limit) == once);
}

RC_GTEST_PROP(Printable, LeavesPrintableTextAlone, ()) {
  const std::string text = *test::printable_text();
  RC_ASSERT(printable(text, text.size()) == text);
}

// ---- text ------------------------------------------------------------------------------------------------

TEST(Text, TrimAndLower) {
  EXPECT_EQ(trim(" \t a b\r\n"), "a b");
  EXPECT_EQ(trim(" \r\n"), "");
  EXPECT_EQ(trim(""), "");
  EXPECT_EQ(to_lower("AbC-Ä"), "abc-Ä");  // ASCII only
}

// ---- Secret ----------------------------------------------------------------------------------------------

static_assert(!std::is_copy_constructible_v<Secret> && !std::is_copy_assignable_v<Secret>);
static_assert(std::is_nothrow_move_constructible_v<Secret>);

TEST(Secret, MovesAndLeavesNothingBehind) {
  Secret first("hunter2");
  Secret second(std::move(first));
  EXPECT_TRUE(first.empty());  // NOLINT: what is left after a move is the point
  EXPECT_EQ(second.reveal(), "hunter2");
  Secret third;
  EXPECT_TRUE(third.empty());
  third = std::move(second);
  EXPECT_EQ(third.reveal(), "hunter2");
  EXPECT_TRUE(second.empty());  // NOLINT
  EXPECT_EQ(third.clone().reveal(), "hunter2");
  EXPECT_EQ(third.reveal(), "hunter2");
}

TEST(Secret, IsWipedWhenLetGo) {
  std::optional<Secret> secret(std::in_place, "correct horse battery staple");
  seen_at_release = std::string(secret->reveal());
  watched = secret->reveal().data();
  secret.reset();
  EXPECT_EQ(watched, nullptr) << "the memory was not given back";
  EXPECT_EQ(seen_at_release, std::string(seen_at_release.size(), '\0'));
}

TEST(Secret, HoldsAnyBytes) {
  const std::string bytes("a\0b\xff", 4);
  EXPECT_EQ(Secret(bytes).reveal(), bytes);
  EXPECT_TRUE(Secret("").empty());
}

}  // namespace
}  // namespace ledger
