#include "ledger/event_codec.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <boost/json.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "ledger/credentials.h"
#include "ledger/event_json.h"
#include "tests/support/generators.h"
#include "tests/support/paths.h"

namespace ledger {
namespace {

std::string error_of(std::string_view bytes) {
  const Result<Record> record = decode_record(bytes);
  if (record) return "";
  EXPECT_EQ(record.error().code, Errc::corrupt);
  EXPECT_FALSE(record.error().message.empty());
  return record.error().message;
}

// A small record whose bytes are known.
Record small_record() {
  Record record;
  record.seq = 2;
  record.time = Time{3};
  record.event = PasswordStored{{"ab"}};
  record.node = "n1";
  return record;
}

NodeState some_state() {
  return {.bound = {"aa"},
          .bound_by_hash = true,
          .held = true,
          .released = false,
          .since = 4,
          .version = 5,
          .registered = {5, Time{6}, "10.0.0.5:1", {"aa"}},
          .rejected = {7, Time{8}, "[fd00::1]:2", {"bb"}},
          .rejections = 9};
}

// ---- there and back --------------------------------------------------------------------------------------

RC_GTEST_PROP(EventCodec, EveryRecordDecodesToItself, ()) {
  const Record record = *test::arbitrary_record();
  const std::string bytes = encode(record);
  const Result<Record> again = decode_record(bytes);
  RC_ASSERT(again.has_value());
  RC_ASSERT(encode(*again) == bytes);
  RC_ASSERT(again->kind() == record.kind());
  RC_ASSERT(again->seq == record.seq);
  RC_ASSERT(again->time == record.time);
  RC_ASSERT(to_json_line(*again) == to_json_line(record));
}

TEST(EventCodec, EveryKindRoundTripsWithEveryField) {
  for (const Kind kind : test::all_kinds())
    EXPECT_TRUE(rc::check(std::string(name_of(kind)), [kind] {
      const Record record = *test::record_of_kind(kind, false);
      const Result<Record> again = decode_record(encode(record));
      RC_ASSERT(again.has_value());
      RC_ASSERT(to_json_line(*again) == to_json_line(record));
    }));
}

TEST(EventCodec, NodeStatesRoundTrip) {
  const Result<NodeState> again = decode_node_state(encode(some_state()));
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_TRUE(*again == some_state());
  ASSERT_TRUE(decode_node_state(encode(NodeState{})).has_value());
  EXPECT_TRUE(*decode_node_state(encode(NodeState{})) == NodeState{});
}

// ---- damage ----------------------------------------------------------------------------------------------

TEST(EventCodec, EveryTruncationIsCorrupt) {
  for (const Kind kind : test::all_kinds()) {
    Record record = small_record();
    record.event = *make_event(static_cast<std::uint16_t>(kind));
    record.claimed = {"10.0.0.5", "fd00::1"};
    record.first_time = Time{2};
    const std::string bytes = encode(record);
    for (std::size_t size = 0; size < bytes.size(); ++size)
      EXPECT_NE(error_of(bytes.substr(0, size)), "") << name_of(kind) << " cut to " << size;
    EXPECT_EQ(error_of(bytes), "");
  }
  const std::string state = encode(some_state());
  for (std::size_t size = 0; size < state.size(); ++size)
    EXPECT_FALSE(decode_node_state(state.substr(0, size)).has_value());
}

TEST(EventCodec, EveryBytePastTheEndIsCorrupt) {
  EXPECT_EQ(error_of(encode(small_record()) + '\0'), "1 bytes too many at the end");
  EXPECT_NE(error_of(encode(small_record()) + encode(small_record())), "");
  EXPECT_FALSE(decode_node_state(encode(some_state()) + "x").has_value());
}

// A flipped bit may make another record, but never a crash, and never two forms of one record.
TEST(EventCodec, FlippedBitsNeverCrash) {
  Record record = small_record();
  record.claimed = {"10.0.0.5"};
  record.event = CertificateIssued{"p", "s", "1f", "ab", Time{1}, Time{2}, "csr", "cd"};
  const std::string bytes = encode(record);
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const Result<Record> read = decode_record(flipped);
    if (read) {
      EXPECT_EQ(encode(*read), flipped) << "bit " << bit;
    } else {
      EXPECT_EQ(read.error().code, Errc::corrupt);
    }
  }
}

RC_GTEST_PROP(EventCodec, WhatDecodesHasOneForm, (const std::string& tail)) {
  const auto kind = *rc::gen::elementOf(test::all_kinds());
  std::string bytes = encode(small_record());
  bytes[1] = static_cast<char>(kind);
  const auto keep = *rc::gen::inRange<std::size_t>(3, bytes.size());
  bytes = bytes.substr(0, keep) + tail;
  if (const Result<Record> read = decode_record(bytes)) RC_ASSERT(encode(*read) == bytes);
}

TEST(EventCodec, UnknownVersionsAndKindsAreNamed) {
  std::string bytes = encode(small_record());
  bytes[0] = 4;
  EXPECT_EQ(error_of(bytes), "record format version 4, this program reads versions up to 3");
  bytes = encode(small_record());
  bytes[1] = 99;
  EXPECT_EQ(error_of(bytes), "kind number 99 is not known to this program");
  bytes[1] = static_cast<char>(0xFF), bytes[2] = static_cast<char>(0xFF);
  EXPECT_EQ(error_of(bytes), "kind number 65535 is not known to this program");
  EXPECT_EQ(error_of(""), "shorter than the head of a record");
  EXPECT_FALSE(decode_node_state("").has_value());
  EXPECT_FALSE(decode_node_state("\x02").has_value());
}

// cereal would read big-endian numbers; a record has one form only.
TEST(EventCodec, BigEndianIsRefused) {
  std::string bytes = encode(small_record());
  for (const int mark : {0, 2, 255}) {
    bytes[3] = static_cast<char>(mark);
    EXPECT_EQ(error_of(bytes), "the fields are not little-endian");
  }
  std::string state = encode(NodeState{});
  state[1] = 0;
  EXPECT_FALSE(decode_node_state(state).has_value());
}

// The length of the first text stands behind version, tag, byte order, seq and time.
TEST(EventCodec, HugeLengthsAreRefusedBeforeMemoryIsTaken) {
  constexpr std::size_t kServerLength = 3 + 1 + 8 + 8;
  for (const int top : {0x01, 0x7F, 0xFF}) {
    std::string bytes = encode(small_record());
    ASSERT_EQ(bytes.substr(kServerLength, 4), std::string(4, '\0'));
    bytes[kServerLength + 3] = static_cast<char>(top);
    EXPECT_NE(error_of(bytes).find("a text longer than what is left"), std::string::npos);
  }
  // The list of claimed addresses: 0 items here, then 4 billion.
  Record record = small_record();
  record.node = "LIST";
  std::string bytes = encode(record);
  const std::size_t list = bytes.find("LIST") + 4;
  ASSERT_EQ(bytes.substr(list, 4), std::string(4, '\0'));
  bytes.replace(list, 4, "\xff\xff\xff\xff");
  EXPECT_NE(error_of(bytes).find("a list longer than what is left"), std::string::npos);
}

TEST(EventCodec, TimesAreInTheirYears) {
  constexpr std::size_t kTime = 3 + 1 + 8;
  std::string bytes = encode(small_record());
  ASSERT_EQ(bytes[kTime], 3);
  bytes[kTime + 7] = static_cast<char>(0x80);  // negative
  EXPECT_NE(error_of(bytes).find("a time outside"), std::string::npos);
  bytes[kTime + 7] = 0x7F;
  EXPECT_NE(error_of(bytes).find("a time outside"), std::string::npos);
}

TEST(EventCodec, FlagsAreZeroOrOne) {
  Record record = small_record();
  record.event = TlsFailed{"x", true};
  std::string bytes = encode(record);
  ASSERT_EQ(bytes.substr(bytes.size() - 2), "\x01\x01");
  bytes.back() = 2;
  EXPECT_NE(error_of(bytes).find("neither 0 nor 1"), std::string::npos);
}

// What could not be read back must not be written: too much is cut off, and the record is no hole.
TEST(EventCodec, WhatIsWrittenCanBeRead) {
  Record record = small_record();
  record.note = std::string(100'000, 'x');
  record.claimed.assign(5000, "10.0.0.5");
  const Result<Record> again = decode_record(encode(record));
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ(again->note, std::string(65536, 'x'));
  EXPECT_EQ(again->claimed.size(), 1024U);
}

// ---- golden bytes: tests/golden/README.md ----------------------------------------------------------------

namespace fs = std::filesystem;

fs::path golden_dir(int version) { return fs::path(test::source_dir()) / "tests/golden" / ("v" + std::to_string(version)); }

std::string text_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return std::string(trim(out.str()));
}

std::string from_hex(std::string_view text) {
  std::string bytes;
  int high = -1;
  for (const char c : text) {
    if (c == '\n') continue;
    const int digit = c <= '9' ? c - '0' : c - 'a' + 10;
    if (high < 0) {
      high = digit;
    } else {
      bytes.push_back(static_cast<char>(high << 4 | digit));
      high = -1;
    }
  }
  return bytes;
}

std::string hex_lines(const std::string& bytes) {
  std::string hex = to_hex(bytes), lines;
  for (std::size_t at = 0; at < hex.size(); at += 64) lines += hex.substr(at, 64) + "\n";
  return lines;
}

class Golden : public ::testing::TestWithParam<std::tuple<int, Kind>> {
 protected:
  int version() const { return std::get<0>(GetParam()); }
  Kind kind() const { return std::get<1>(GetParam()); }
  fs::path file(const char* extension) const {
    return golden_dir(version()) / (std::string(name_of(kind())) + extension);
  }
};

TEST_P(Golden, DecodesForEver) {
  const std::string json = text_of(file(".json"));
  ASSERT_FALSE(json.empty()) << file(".json") << " is missing: tests/golden/README.md";
  if (!fs::exists(file(".hex")) && std::getenv("LEDGER_WRITE_GOLDEN") != nullptr) {
    const Result<Record> record = record_from_json(json);
    ASSERT_TRUE(record.has_value()) << record.error().message;
    std::ofstream(file(".hex")) << hex_lines(encode(*record));
  }
  const std::string bytes = from_hex(text_of(file(".hex")));
  ASSERT_FALSE(bytes.empty()) << file(".hex") << " is missing: tests/golden/README.md";
  EXPECT_EQ(bytes[0], version());

  const Result<Record> decoded = decode_record(bytes);
  ASSERT_TRUE(decoded.has_value()) << decoded.error().message;
  EXPECT_EQ(decoded->kind(), kind());
  EXPECT_EQ(to_json_line(*decoded), json);
  EXPECT_EQ(hex_lines(encode(*decoded)), hex_lines(bytes));
}

// Every field of every kind is in its golden file: what is not there could change unnoticed.
TEST_P(Golden, FillsEveryField) {
  const Result<Record> record = record_from_json(text_of(file(".json")));
  ASSERT_TRUE(record.has_value()) << record.error().message;
  const boost::json::object object = to_json(*record);
  const auto has = [&](const char* key, const auto&) { EXPECT_TRUE(object.contains(key)) << key; };
  const auto check = [&](const auto& part) {
    each_field_of<1>(part, has);
    if (version() >= 2) each_field_of<2>(part, has);
    if (version() >= 3) each_field_of<3>(part, has);
  };
  check(*record);
  std::visit(check, record->event);
}

INSTANTIATE_TEST_SUITE_P(EveryKind, Golden,
                         ::testing::Combine(::testing::Values(1, 2, 3), ::testing::ValuesIn(test::all_kinds())),
                         [](const auto& row) {
                           return "v" + std::to_string(std::get<0>(row.param)) + "_" +
                                  std::string(name_of(std::get<1>(row.param)));
                         });

// A newer version than the record needs is a second form of the same record, which there must not be.
TEST(EventCodec, ARecordIsWrittenInTheOldestVersionThatHoldsIt) {
  Record record;
  record.seq = 1;
  record.event = PasswordStored{{"a2eb"}};
  EXPECT_EQ(encode(record)[0], 1);
  record.via = "10.0.0.1:50022";
  const std::string newer = encode(record);
  EXPECT_EQ(newer[0], 2);
  record.via.clear();
  std::string padded = encode(record);
  padded[0] = 2;
  padded.append(3 * 4, '\0');  // three empty texts: via, weakness, also_bound_to
  EXPECT_EQ(error_of(padded), "a newer format version than the record needs");
}

TEST(EventCodec, WhatAnUpstreamDecidedIsVersion3) {
  const auto version_with = [](auto&& change) {
    Record record;
    record.seq = 1;
    record.event = PasswordStored{{"a2eb"}};
    change(record);
    const std::string bytes = encode(record);
    EXPECT_EQ(error_of(bytes), "");
    return int{bytes[0]};
  };
  EXPECT_EQ(version_with([](Record& r) { r.authority = kUpstreamAuthority; }), 3);
  EXPECT_EQ(version_with([](Record& r) { r.upstream = "10.0.0.1:6443"; }), 3);
  EXPECT_EQ(version_with([](Record& r) { r.answered = 200; }), 3);
  EXPECT_EQ(version_with([](Record& r) { r.took_ms = 0; }), 3) << "at once is not `not known`";
  EXPECT_EQ(version_with([](Record& r) { r.would_have = "admit_known"; }), 3);
  EXPECT_EQ(version_with([](Record& r) { r.via = "10.0.0.1:1"; }), 2);
  Record record;
  record.seq = 1;
  record.event = ModeChanged{.mode = "observe", .from = {}, .upstreams = "https://10.0.0.1:6443", .actor = {}};
  EXPECT_EQ(encode(record)[0], 1) << "a new kind is no new format";
}

// Version 3 with nothing of version 3 in it, whatever there is of version 2.
TEST(EventCodec, AVersion3ThatNeedsNoneIsRefused) {
  for (const char* via : {"", "10.0.0.1:1"}) {
    Record record;
    record.seq = 1;
    record.event = ModeChanged{};
    record.via = via;
    std::string bytes = encode(record);
    if (bytes[0] == 1) bytes.append(4, '\0');  // via
    bytes[0] = 3;
    bytes.append(3 * 4 + 8 + 1, '\0');  // authority, upstream, would_have; answered; took_ms
    EXPECT_EQ(error_of(bytes), "a newer format version than the record needs") << via;
  }
}

// The JSON form has the fields of the record and of its event side by side.
TEST(EventCodec, NoEventHasAFieldOfTheRecords) {
  std::set<std::string> names = {"seq", "time", "kind"};
  const Record record;
  each_field(record, [&](const char* name, const auto&) { EXPECT_TRUE(names.insert(name).second) << name; });
  for (const Kind kind : test::all_kinds()) {
    std::set<std::string> all = names;
    std::visit(
        [&](const auto& event) {
          each_field(event, [&](const char* name, const auto&) {
            EXPECT_TRUE(all.insert(name).second) << name_of(kind) << " " << name;
          });
        },
        *make_event(static_cast<std::uint16_t>(kind)));
  }
}

TEST(GoldenNodeState, Version1DecodesForEver) {
  const fs::path file = golden_dir(1) / "node_state.hex";
  if (!fs::exists(file) && std::getenv("LEDGER_WRITE_GOLDEN") != nullptr)
    std::ofstream(file) << hex_lines(encode(some_state()));
  const std::string bytes = from_hex(text_of(file));
  const Result<NodeState> state = decode_node_state(bytes);
  ASSERT_TRUE(state.has_value()) << state.error().message;
  EXPECT_TRUE(*state == some_state());
  EXPECT_EQ(hex_lines(encode(*state)), hex_lines(bytes));
}

}  // namespace
}  // namespace ledger
