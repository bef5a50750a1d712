#include "ledger/event_json.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <boost/json.hpp>
#include <limits>

#include "tests/support/generators.h"

namespace ledger {
namespace {

// What is wrong with a line; empty when nothing is.
std::string problem_with(std::string_view line) {
  const Result<Record> record = record_from_json(line);
  if (record) return "";
  EXPECT_EQ(record.error().code, Errc::invalid);
  return record.error().message;
}

Record read(std::string_view line) {
  Result<Record> record = record_from_json(line);
  if (!record) {
    ADD_FAILURE() << line << ": " << record.error().message;
    return {};
  }
  return *record;
}

// ---- there and back --------------------------------------------------------------------------------------

RC_GTEST_PROP(EventJson, WhatIsWrittenIsRead, ()) {
  const Record record = *test::written_record();
  const Result<Record> again = record_from_json(to_json_line(record));
  RC_ASSERT(again.has_value());
  RC_ASSERT(*again == record);
}

RC_GTEST_PROP(EventJson, AnObjectIsReadLikeItsText, ()) {
  const Record record = *test::written_record();
  const Result<Record> again = record_from_json(to_json(record));
  RC_ASSERT(again.has_value());
  RC_ASSERT(*again == record);
}

RC_GTEST_PROP(EventJson, ALineIsOneLine, ()) {
  const std::string line = to_json_line(*test::arbitrary_record());
  RC_ASSERT(line.find('\n') == std::string::npos);
}

RC_GTEST_PROP(EventJson, NoTextCrashes, (const std::string& text)) { (void)record_from_json(text); }

RC_GTEST_PROP(EventJson, NoDamagedLineCrashes, ()) {
  std::string line = to_json_line(*test::written_record());
  const auto at = *rc::gen::inRange<std::size_t>(0, line.size());
  line[at] = *rc::gen::arbitrary<char>();
  const Result<Record> record = record_from_json(line);
  if (record) RC_ASSERT(record_from_json(to_json_line(*record)).has_value());
}

TEST(EventJson, EveryKindIsReadByItsName) {
  for (const Kind kind : test::all_kinds()) {
    const Record record = read(R"({"seq":1,"kind":")" + std::string(name_of(kind)) + R"("})");
    EXPECT_EQ(record.kind(), kind);
    EXPECT_EQ(kind_from_name(name_of(kind)), kind);
  }
  EXPECT_EQ(test::all_kinds().size(), std::variant_size_v<Event>);
}

TEST(EventJson, KeyOrderIsFixed) {
  Record record = read(R"({"bound":"b","status":403,"fingerprint":"f","note":"x","first_time":"2024-06-11T07:00:00Z",
    "count":3,"generation":"G2","claimed":["10.0.0.5","fd00::1"],"node":"WEB-1",
    "auth":{"serial":"5f","token":"ab","principal":"node","method":"basic"},"endpoint":"/v1-k3s/serving-kubelet.crt",
    "source":"10.0.0.5:41234","request_id":"r1","epoch":2,"server":"s1","kind":"password_rejected",
    "time":"2024-06-11T07:02:40.25Z","seq":41})");
  EXPECT_EQ(to_json_line(record),
            R"({"seq":41,"time":"2024-06-11T07:02:40.250000Z","kind":"password_rejected","server":"s1","epoch":2,)"
            R"("request_id":"r1","source":"10.0.0.5:41234","endpoint":"/v1-k3s/serving-kubelet.crt",)"
            R"("auth":{"method":"basic","principal":"node","token":"ab","serial":"5f"},"node":"web-1",)"
            R"("claimed":["10.0.0.5","fd00::1"],"generation":"G2","count":3,)"
            R"("first_time":"2024-06-11T07:00:00Z","note":"x","fingerprint":"f","bound":"b","status":403})");
}

TEST(EventJson, WhatIsNotKnownIsLeftOut) {
  Record record;
  record.seq = 1;
  record.event = PasswordRejected{};
  EXPECT_EQ(to_json_line(record), R"({"seq":1,"kind":"password_rejected"})");
}

TEST(EventJson, NullIsAbsent) {
  const Record record = read(
      R"({"seq":7,"kind":"tls_failed","time":null,"server":null,"epoch":null,"auth":null,"node":null,"claimed":null,
          "count":null,"first_time":null,"alert":null,"trust_probe":null})");
  EXPECT_EQ(to_json_line(record), R"({"seq":7,"kind":"tls_failed"})");
  EXPECT_EQ(record.count, 1);
  EXPECT_FALSE(as<TlsFailed>(record)->trust_probe.has_value());
  EXPECT_EQ(problem_with(R"({"seq":7,"kind":"server_started","clean":false})"), "");
  EXPECT_EQ(as<ServerStarted>(read(R"({"seq":7,"kind":"server_started","clean":false})"))->clean, false);
}

TEST(EventJson, FieldsItDoesNotKnowArePassedOver) {
  const Record record = read(
      R"({"future":{"deep":[1,2,{"x":null}]},"seq":1,"kind":"binding_held","actor":"ops","state_before":"held"})");
  EXPECT_EQ(to_json_line(record), R"({"seq":1,"kind":"binding_held","actor":"ops"})");
}

// Windows and copy-and-paste leave blanks at the ends.
TEST(EventJson, BlanksAtTheEndsAreAllowed) { EXPECT_EQ(problem_with(" {\"seq\":1,\"kind\":\"token_accepted\"}\r"), ""); }

TEST(EventJson, NodeNamesAreLowerCase) {
  EXPECT_EQ(read(R"({"seq":1,"kind":"token_accepted","node":"Web-1"})").node, "web-1");
}

// ---- lines that cannot be read ---------------------------------------------------------------------------

TEST(EventJson, WrongTypesAreNamed) {
  const std::pair<const char*, const char*> rows[] = {
      {R"({"seq":"1","kind":"token_accepted"})", "field 'seq' is not an integer"},
      {R"({"seq":1.5,"kind":"token_accepted"})", "field 'seq' is not an integer"},
      {R"({"seq":true,"kind":"token_accepted"})", "field 'seq' is not an integer"},
      {R"({"seq":1,"kind":7})", "field 'kind' is not a string"},
      {R"({"seq":1,"kind":"token_accepted","time":17180})", "field 'time' is not a string"},
      {R"({"seq":1,"kind":"token_accepted","time":"yesterday"})", "field 'time' is not an RFC 3339 time"},
      {R"({"seq":1,"kind":"token_accepted","node":{}})", "field 'node' is not a string"},
      {R"({"seq":1,"kind":"token_accepted","claimed":"10.0.0.5"})", "field 'claimed' is not a list of strings"},
      {R"({"seq":1,"kind":"token_accepted","claimed":[1]})", "field 'claimed' is not a string"},
      {R"({"seq":1,"kind":"token_accepted","auth":"basic"})", "field 'auth' is not an object"},
      {R"({"seq":1,"kind":"token_accepted","auth":{"token":1}})", "field 'auth.token' is not a string"},
      {R"({"seq":1,"kind":"token_accepted","count":"3"})", "field 'count' is not an integer"},
      {R"({"seq":1,"kind":"server_started","clean":"yes"})", "field 'clean' is not true or false"},
      {R"({"seq":1,"kind":"clock_stepped","by_seconds":"5"})", "field 'by_seconds' is not a number"},
      {R"({"seq":1,"kind":"certificate_issued","not_after":5})", "field 'not_after' is not a string"},
      {R"({"seq":1,"kind":"password_stored","fingerprint":["aa"]})", "field 'fingerprint' is not a string"}};
  for (const auto& [line, problem] : rows) EXPECT_EQ(problem_with(line), problem) << line;
}

TEST(EventJson, MissingAndUnknown) {
  EXPECT_EQ(problem_with(R"({"seq":1})"), "field 'kind' is missing");
  EXPECT_EQ(problem_with(R"({"seq":1,"kind":null})"), "field 'kind' is missing");
  EXPECT_EQ(problem_with(R"({"kind":"token_accepted"})"), "field 'seq' is missing or not positive");
  EXPECT_EQ(problem_with(R"({"seq":0,"kind":"token_accepted"})"), "field 'seq' is missing or not positive");
  EXPECT_EQ(problem_with(R"({"seq":-3,"kind":"token_accepted"})"), "field 'seq' is missing or not positive");
  EXPECT_EQ(problem_with(R"({"seq":1,"kind":"node_exploded"})"), "kind 'node_exploded' is not one of docs/EVENTS.md");
  EXPECT_EQ(problem_with(R"({"seq":1,"kind":"Token_Accepted"})"), "kind 'Token_Accepted' is not one of docs/EVENTS.md");
  EXPECT_EQ(problem_with(R"({"seq":1,"kind":"token_accepted","count":0})"), "field 'count' is not positive");
  EXPECT_EQ(problem_with(R"({"seq":1,"kind":"token_accepted","count":-5})"), "field 'count' is not positive");
}

TEST(EventJson, NotARecordAtAll) {
  for (const char* line : {"", " ", "null", "[]", "\"text\"", "17", "{", "{}}", R"({"seq":1,"kind":"token_accepted"} x)",
                           R"({'seq':1})", R"({"seq":1,"kind":"token_accepted",})", "\xef\xbb\xbf{}"})
    EXPECT_NE(problem_with(line), "") << line;
}

TEST(EventJson, NumbersOutOfRange) {
  const auto seq = [](const std::string& number) { return R"({"kind":"token_accepted","seq":)" + number + "}"; };
  EXPECT_EQ(problem_with(seq("9223372036854775807")), "");
  EXPECT_EQ(problem_with(seq("9223372036854775808")), "field 'seq' is not an integer");
  EXPECT_EQ(problem_with(seq("18446744073709551616")), "field 'seq' is not an integer");
  EXPECT_EQ(problem_with(seq("1e3")), "field 'seq' is not an integer");
  EXPECT_NE(problem_with(seq("1e999999999999")), "");
  EXPECT_NE(problem_with(R"({"seq":1,"kind":"clock_stepped","by_seconds":1e999})"), "");
  EXPECT_NE(problem_with(R"({"seq":1,"kind":"clock_stepped","by_seconds":NaN})"), "");
  EXPECT_EQ(as<ClockStepped>(read(R"({"seq":1,"kind":"clock_stepped","by_seconds":-7})"))->by_seconds, -7.0);
}

// To the last bit, or an export read back would not be the log.
TEST(EventJson, SecondsAreExactToTheMicrosecond) {
  Record record;
  record.seq = 1;
  for (std::int64_t micros = 1; micros < 400'000'000'000; micros = micros * 3 + 7)
    for (const double sign : {1.0, -1.0}) {
      record.event = ClockStepped{sign * static_cast<double>(micros) / 1e6};
      EXPECT_EQ(as<ClockStepped>(read(to_json_line(record)))->by_seconds, as<ClockStepped>(record)->by_seconds);
    }
}

TEST(EventJson, InfinityIsNotJson) {
  Record record;
  record.seq = 1;
  for (const double value : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    record.event = ClockStepped{value};
    EXPECT_EQ(to_json_line(record), R"({"seq":1,"kind":"clock_stepped"})");
    record.event = TunnelClosed{"s", "c", value};
    EXPECT_EQ(to_json_line(record), R"({"seq":1,"kind":"tunnel_closed","session":"s","cause":"c"})");
  }
}

TEST(EventJson, DeepNestingIsRefused) {
  const auto nested = [](std::size_t depth) {
    return R"({"seq":1,"kind":"token_accepted","x":)" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_EQ(problem_with(nested(20)), "");
  EXPECT_NE(problem_with(nested(40)), "");
  EXPECT_NE(problem_with(nested(400'000)), "");
  EXPECT_NE(problem_with(std::string(400'000, '[')), "");
}

TEST(EventJson, LongLinesAreRefused) {
  const auto padded = [](std::size_t bytes) {
    return R"({"seq":1,"kind":"token_accepted","x":")" + std::string(bytes, 'x') + "\"}";
  };
  EXPECT_EQ(problem_with(padded(1'000'000)), "");
  EXPECT_EQ(problem_with(padded(1 << 20)), "the line is longer than 1 MiB");
}

TEST(EventJson, LongTextsAndListsAreRefused) {
  const std::string head = R"({"seq":1,"kind":"token_accepted",)";
  EXPECT_EQ(problem_with(head + "\"note\":\"" + std::string(16384, 'x') + "\"}"), "");
  EXPECT_EQ(problem_with(head + "\"note\":\"" + std::string(16385, 'x') + "\"}"), "field 'note' is not a string");
  std::string list = "\"a\"";
  for (int i = 1; i < 256; ++i) list += ",\"a\"";
  EXPECT_EQ(problem_with(head + "\"claimed\":[" + list + "]}"), "");
  EXPECT_EQ(problem_with(head + "\"claimed\":[" + list + ",\"a\"]}"), "field 'claimed' is not a list of strings");
}

TEST(EventJson, InvalidUtf8IsRefused) {
  EXPECT_NE(problem_with("{\"seq\":1,\"kind\":\"token_accepted\",\"note\":\"a\xff\"}"), "");
  EXPECT_NE(problem_with("{\"seq\":1,\"kind\":\"token_accepted\",\"note\":\"\xed\xa0\x80\"}"), "");
  EXPECT_NE(problem_with(R"({"seq":1,"kind":"token_accepted","note":"\ud800"})"), "");
  EXPECT_EQ(read(R"({"seq":1,"kind":"token_accepted","note":"\u20ac \ud83d\ude00"})").note, "€ 😀");
}

// A file from elsewhere must not steer the terminal of whoever replays it, nor break the index with a NUL.
TEST(EventJson, ControlCharactersBecomeQuestionMarks) {
  const Record record =
      read(R"({"seq":1,"kind":"password_stored","node":"a\u0000b","note":"\u001b[2J\u202e","fingerprint":"a\nb"})");
  EXPECT_EQ(record.node, "a?b");
  EXPECT_EQ(record.note, "?[2J?");
  EXPECT_EQ(as<PasswordStored>(record)->fingerprint.text, "a?b");
}

TEST(EventJson, ErrorsShowNothingATerminalWouldObey) {
  EXPECT_EQ(problem_with(R"({"seq":1,"kind":"\u001b[2J"})").find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace ledger
