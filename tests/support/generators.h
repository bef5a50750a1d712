// Random records for properties (rapidcheck). Two sorts:
//
//   arbitrary_record()  any bytes in texts, any number: for the stored form.
//   written_record()    what a ledger writes: printable text, known times, lower-case names. For JSON, where
//                       "not known" and "absent" are the same thing.
#pragma once

#include <rapidcheck.h>

#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "ledger/event.h"
#include "ledger/event_codec.h"
#include "ledger/event_json.h"

namespace ledger {

// How a failing property prints a record.
inline void showValue(const Record& record, std::ostream& out) { out << to_json_line(record); }

// Two records are equal when they are stored as the same bytes.
inline bool operator==(const Record& a, const Record& b) { return encode(a) == encode(b); }

namespace test {

// Every kind there is.
inline std::vector<Kind> all_kinds() {
  std::vector<Kind> kinds;
  for (std::uint32_t tag = 0; tag <= std::numeric_limits<std::uint16_t>::max(); ++tag)
    if (make_event(static_cast<std::uint16_t>(tag))) kinds.push_back(static_cast<Kind>(tag));
  return kinds;
}

inline rc::Gen<std::string> printable_text() {
  static const std::vector<std::string> kPieces = {"a", "Z", "0", "-", ".", ":", "/",  " ",  "\"", "\\",
                                                   "{", "'", "ä", "ß", "€", "漢", "😀", "\u00a0", "w", "7"};
  return rc::gen::map(rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(kPieces)),
                      [](const std::vector<std::string>& pieces) {
                        std::string text;
                        for (const std::string& piece : pieces) text += piece;
                        return text;
                      });
}

inline rc::Gen<Time> time_in_range() {
  return rc::gen::map(rc::gen::inRange<std::int64_t>(1, 253'402'300'799'999'999), [](std::int64_t micros) {
    return Time{micros};
  });
}

namespace detail {

// Fills the fields of a struct; see Record::fields.
struct Fill {
  bool written;  // what a ledger writes, or anything

  void operator()(const char* key, std::string& value) const {
    value = written ? *printable_text() : *rc::gen::arbitrary<std::string>();
    if (written && std::string_view(key) == "node") value = to_lower(value);
  }
  void operator()(const char*, Fingerprint& value) const { (*this)("", value.text); }
  void operator()(const char* key, std::int64_t& value) const {
    value = *rc::gen::arbitrary<std::int64_t>();
    if (written && std::string_view(key) == "count") value = *rc::gen::inRange<std::int64_t>(1, INT64_MAX);
  }
  void operator()(const char*, double& value) const {
    value = written ? static_cast<double>(*rc::gen::inRange<std::int64_t>(-1'000'000'000'000, 1'000'000'000'000)) / 1e3
                    : *rc::gen::arbitrary<double>();
  }
  void operator()(const char*, Time& value) const {
    value = *time_in_range();
  }
  void operator()(const char*, bool& value) const { value = *rc::gen::arbitrary<bool>(); }
  template <class T>
  void operator()(const char* key, std::optional<T>& value) const {
    value.reset();
    if (*rc::gen::arbitrary<bool>()) (*this)(key, value.emplace());
  }
  void operator()(const char*, std::vector<std::string>& value) const {
    value.resize(*rc::gen::inRange<std::size_t>(0, 5));
    for (std::string& item : value) (*this)("", item);
  }
  void operator()(const char*, Auth& value) const { Auth::fields(value, *this); }
};

}  // namespace detail

// A record of `kind` with every field drawn afresh.
inline rc::Gen<Record> record_of_kind(Kind kind, bool written) {
  return rc::gen::exec([kind, written] {
    const detail::Fill fill{written};
    Record record;
    record.event = *make_event(static_cast<std::uint16_t>(kind));
    if (written) {
      record.seq = static_cast<Seq>(*rc::gen::inRange<std::int64_t>(1, INT64_MAX));
    } else {
      record.seq = *rc::gen::arbitrary<Seq>();
    }
    fill("time", record.time);
    each_field(record, fill);
    std::visit([&](auto& event) { each_field(event, fill); }, record.event);
    return record;
  });
}

inline rc::Gen<Record> arbitrary_record() {
  return rc::gen::mapcat(rc::gen::elementOf(all_kinds()), [](Kind kind) { return record_of_kind(kind, false); });
}

inline rc::Gen<Record> written_record() {
  return rc::gen::mapcat(rc::gen::elementOf(all_kinds()), [](Kind kind) { return record_of_kind(kind, true); });
}

// A history of few names and few passwords, so that they meet; seqs run from 1 and times never go back. Only
// kinds that a node's state depends on, and one that it does not.
inline rc::Gen<Record> node_record() {
  return rc::gen::exec([] {
    const auto fingerprint = [] { return Fingerprint{*rc::gen::elementOf(std::vector<std::string>{"", "aa", "bb", "cc"})}; };
    Record record;
    record.node = *rc::gen::elementOf(std::vector<std::string>{"n1", "n2", "n3"});
    record.source = *rc::gen::elementOf(std::vector<std::string>{"10.0.0.1:4000", "10.0.0.2:5000", "[fd00::1]:9"});
    switch (*rc::gen::inRange(0, 8)) {
      case 0: record.event = PasswordStored{fingerprint()}; break;
      case 1: record.event = PasswordVerified{fingerprint()}; break;
      case 2:
        record.event = PasswordRejected{.fingerprint = fingerprint(), .bound = fingerprint(), .status = 403};
        record.count = *rc::gen::inRange<std::int64_t>(1, 50);
        break;
      case 3:
        record.event = BindingReleased{
            .actor = "ops",
            .by = *rc::gen::elementOf(std::vector<std::string>{"operator", "node_deleted", "sweep", "k3s", ""}),
            .fingerprint = fingerprint()};
        break;
      case 4: record.event = BindingChanged{.actor = "ops", .by = "operator_set", .from = {}, .to = fingerprint()}; break;
      case 5: record.event = BindingHeld{"ops"}; break;
      case 6: record.event = BindingImported{.fingerprint = fingerprint(), .origin = "secret"}; break;
      default: record.event = TunnelOpened{"s1"}; break;
    }
    return record;
  });
}

inline rc::Gen<std::vector<Record>> node_history() {
  return rc::gen::map(rc::gen::container<std::vector<Record>>(node_record()), [](std::vector<Record> records) {
    Seq seq = 0;
    for (Record& record : records) {
      record.seq = ++seq;
      record.time = Time{1'700'000'000'000'000 + static_cast<std::int64_t>(seq) * 1'000'000};
    }
    return records;
  });
}

}  // namespace test
}  // namespace ledger
