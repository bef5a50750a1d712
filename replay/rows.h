// What a history looks like to a person, line by line: which records are worth a line, each in a few words, and
// what repeats folded into its first. Text, page and drawing use the same words, so they cannot disagree.
//
// Everything in a row is safe to print (printable()); a page still escapes it. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "replay/explain.h"
#include "replay/facts.h"

namespace ledger::replay {

enum class Tone { plain, good, bad, faint, strong };

// One record in words.
struct Row {
  Seq first = 0, last = 0;  // of the records in it
  std::uint32_t life = 0;
  Time time;
  std::string what;      // "REFUSED 403 password differs"
  std::string password;  // "#77e0"; of a record about a token its id
  std::string place;     // "from 10.0.4.17"
  Tone tone = Tone::plain;
  const Record* record = nullptr;
  // For folding: how many outcomes, and since when.
  std::int64_t count = 1;
  Time from, to;
};
Row row_of(const Step& step, const Facts& facts);
std::string in_one_line(const Row& row);  // "REFUSED 403 password differs #77e0 from 10.0.4.17"

struct Printed {
  Row row;                // the first
  std::int64_t more = 0;  // and how many like it
  Seq more_first = 0, more_last = 0;
  Time since, until;  // of those
};

// An explanation with its facts, which are asked again: how short a fingerprint may be depends on all of them.
struct Retold {
  explicit Retold(const Explanation& told);
  Retold(const Retold&) = delete;
  Retold& operator=(const Retold&) = delete;

  const History history;
  const Timeline timeline;
  const Facts facts;
  Explanation explanation;  // its timeline is the one above

 private:
  static History history_of(const Explanation& told);
};

// The records that the judgement cites.
std::set<Seq> cited_by(const Explanation& explanation);

// brief: the node's own records, what the judgement cites, and what shook the server; wide: also every start of
// the server, and other names' use of the node's passwords. Of both only what tell_since() left.
enum class Scope { brief, wide };
std::vector<const Step*> steps_of(const Retold& retold, Scope scope);
std::vector<Printed> rows_of(const Retold& retold, Scope scope);

// What a limit on the telling (tell_since) hides, and the state it led to; empty: nothing.
std::string told_before(const Retold& retold);

// "the same, 40 times in 3m15s, every 5.0 s"
std::string repetition(const Printed& printed);

// What the name is bound to as far as the last word on it goes: the binding that an open refusal names comes before
// what the records made of it. nullopt: not bound, or to a hash whose fingerprint is not known.
std::optional<Fingerprint> bound_now(const Retold& retold);
// "refused, bound to #a41c since 1"
std::string state_text(const Retold& retold);

// "2024-06-11 07:02:40Z"; empty: not known.
std::string clock_text(Time time);

}  // namespace ledger::replay
