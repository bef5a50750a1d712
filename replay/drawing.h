// A history as a picture, before anybody draws it: which lanes there are, what stands on them, and where. Positions
// are shares of the width, 0 at the left end to 1; a renderer (render_html.cpp) gives them colours and pixels.
//
// Promises:
//   - Order is kept: what happened later stands further right, if only a little. The distance between two moments
//     grows with the logarithm of the time between them, so that seconds and years fit into one picture; what a
//     silence really lasted is in `silences`.
//   - It stays small, whatever the history: outcomes that repeat are one mark with their number, as long as nothing
//     else that matters happened in between (an alternation is never folded away); of more marks than kMostMarks
//     the first and the latest are kept; lanes beyond kMostLanes of a sort share one. What was left out is counted.
//   - Equal histories give equal pictures.
//
// Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "replay/rows.h"

namespace ledger::replay {

inline constexpr std::size_t kMostMarks = 48;
inline constexpr std::size_t kMostLanes = 8;  // per sort

// What a mark stands for; each looks different without colour.
enum class Shape : std::uint8_t {
  kBound,        // the name was bound to a password at its first use, or by an import
  kAccepted,     // a password was verified
  kCertificate,  // issued, or a tunnel opened or closed: a sign of life without a password
  kRefused,      // another password than the bound one
  kTurnedAway,   // refused before or without a look at the password
  kHandshake,    // no TLS connection came about
  kChanged,      // an operator, or somebody outside, bound the name to another password
  kReleased,
  kHeld,
  kNodeCreated,
  kNodeDeleted,
  kRestart,
  kEpoch,
  kClock,
  kToken,  // made, replaced, withdrawn or at its end
  kOther,
};
Shape shape_of(Kind kind);

struct Drawing {
  enum class Sort : std::uint8_t { kServer, kNode, kOtherNode, kPassword, kAddress };
  struct Lane {
    Sort sort = Sort::kServer;
    std::string label;           // "#a41c", "10.0.0.5"; empty: what is not recorded
    std::size_t stands_for = 1;  // more than 1: the lane that all others of its sort share
  };
  // One record, or a run of records that say the same. Stands on each of its lanes.
  struct Mark {
    Shape shape = Shape::kOther;
    std::vector<std::size_t> lanes;  // ascending, never empty
    double from = 0, to = 0;
    Seq first = 0, last = 0;
    std::int64_t count = 1;  // of outcomes
    Time since, until;
    std::string words;    // "REFUSED 403 password differs #77e0 from 10.0.4.17"
    std::string label;    // a word or two for what happens seldom: "released"; else empty
    bool guides = false;  // what was before it and what is after it are not the same
  };
  // The name was bound to the password of this lane; a tunnel from the address of this lane was open.
  struct Span {
    std::size_t lane = 0;
    double from = 0, to = 0;
    bool goes_on = false;  // to the end of the history
  };
  struct Silence {
    double from = 0, to = 0;
    double seconds = 0;
  };
  struct Moment {
    double at = 0;
    Time time;
  };

  std::vector<Lane> lanes;  // from the top; sorts in the order above, of one sort by first appearance
  std::vector<Mark> marks;  // by the first of their records
  std::vector<Span> bindings, tunnels;
  std::vector<Silence> silences;  // nothing happened; from the longest
  std::vector<Moment> moments;    // of marks whose time is known, from the left
  std::size_t columns = 0;        // distinct positions: how wide it must be to be legible
  std::size_t left_out = 0;       // marks in the middle...
  std::optional<double> cut;      // ...which would stand here
};

Drawing draw(const Retold& retold);

}  // namespace ledger::replay
