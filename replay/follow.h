// Refusals explained as they come: looks at what a log (of a running server, or of a stopped one) has gained and says
// which names have something new to tell. What `ledger replay --follow` prints.
//
// A name is told when it is refused, again when the answer changes (another cause, another password, let in at last), and
// as a repetition when the same goes on. A refusal that names no node is told as a record, with the names that came from
// the same address. The expected first step of an agent's handshakes is none. One object, one thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "replay/explain.h"
#include "replay/lookup.h"
#include "replay/render.h"

namespace ledger::replay {

struct Told {
  // About a node: the explanation as of `head`, and the history that it points into. Else nullptr.
  std::unique_ptr<History> history;
  Explanation explanation;
  bool repeated = false;      // says what was said before; `more` outcomes in the records first..last
  std::int64_t more = 0;
  Seq first = 0, last = 0;
  LookedUp nameless;          // where history is nullptr: one refusal of `more` equal ones
};

// One JSON document: the explanation of docs/EVENTS.md, with "repeated" and "more"; of a node that was told before, with
// the new part of its timeline alone. Without a node: as to_json(LookedUp).
boost::json::object to_json(const Told& told);
// The whole answer, or a line where it repeats.
std::string to_text(const Told& told, const TextStyle& style = {});

class Follower {
 public:
  struct Options {
    std::string node;  // empty: every node
    Seq from = 1;      // the first record that may be told
  };
  explicit Follower(Options options);

  // What is new in the log up to its head, in order of the records. Names are handed over one by one, so that memory does
  // not grow with their number; `sink` returns false to stop.
  using Sink = std::function<bool(Told told)>;
  Result<void> step(const EventLog& log, const Sink& sink);

 private:
  struct News {
    bool refused = false, changed = false;
    std::int64_t more = 0;
    Seq first = 0, last = 0;
  };
  struct Sweep;
  Result<Sweep> sweep(const EventLog& log, Seq head);
  Result<bool> tell_node(const EventLog& log, const std::string& node, const News& news, Seq head, const Sink& sink);
  Result<bool> tell_nameless(const EventLog& log, const Sweep& sweep, const Sink& sink);

  Options options_;
  Seq next_;
  std::unordered_map<std::string, std::string> told_;  // node -> the gist of what was said last, while it is refused
};

}  // namespace ledger::replay
