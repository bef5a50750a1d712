// GET /ledger/v1/events: the log as it grows, as server-sent events (the HTML standard's text/event-stream).
//
//   id: <seq>
//   event: <kind>
//   data: <the record, as in docs/EVENTS.md>
//
// A stream is pulled: its consumer's connection asks for the next piece when the last one is sent. So a consumer that
// reads slowly, or not at all, holds one piece in memory, and neither the writer nor other consumers wait for it; what it
// has not read is in the log. Pieces are read on one thread of their own, one bounded step of the log each, in turn.
//
// While there is nothing to say, every 15 s a comment, with the number of the last record looked at as an id of its
// own: a consumer with a filter goes on from there, and need not have the same records looked at again.
//
// Threads: open() and BodySource::next() from any; neither blocks.
#pragma once

#include <functional>
#include <memory>

#include "api/http.h"
#include "ledger/ledger.h"

namespace ledger::api {

class EventStreams {
 public:
  static constexpr int kMaxStreams = 32;  // past it 429

  explicit EventStreams(const Ledger& ledger);
  ~EventStreams();  // finishes what is being read; no source of a stream is asked any more

  // Answers one GET: where to begin by the header Last-Event-ID or by ?after=N (default: now), which records by
  // ?node=NAME and ?kind=A,B. `allowed` is asked again every few seconds: a stream ends when its token does.
  Response open(const Request& request, std::function<bool()> allowed);

 private:
  class Source;
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace ledger::api
