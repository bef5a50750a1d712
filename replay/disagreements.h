// Where the server behind this one decided otherwise than we would have: what `ledger triage --disagreements` prints,
// and what has to be understood before `ledger mode enforce`. Reads the records since `since`, once; memory grows with the
// names that differ, up to `limit`. Any thread.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ledger/disagreement.h"
#include "ledger/event_log.h"
#include "replay/history.h"
#include "replay/render.h"

namespace ledger::replay {

// Requests in one name, of one sort, on which the two differ in the same words.
struct DisagreementEntry {
  std::string node;      // empty: they name none
  std::string about;     // password, document, tunnel
  Disagreement which = Disagreement::none;
  std::int64_t answered = 0;   // by the upstream
  std::string would_have;      // by us
  std::string upstream;        // of the last one
  std::uint64_t requests = 0;
  Seq first = 0, last = 0;     // records
  Time first_time, last_time;
  std::string request_id;      // of the last one; empty where it stands for several
  Seq agree_since = 0;         // the first verdict after it, on the same in the same name, on which they agree; 0: none
};

struct Disagreements {
  Seq as_of_seq = 0;
  Time as_of_time;
  std::uint64_t requests = 0;    // that the upstream gave a verdict on, and so did we
  std::uint64_t differ = 0;      // of these
  std::uint64_t no_verdict = 0;  // no answer of the upstream, or one that says nothing about the caller
  std::uint64_t not_judged = 0;  // by us: the name is bound by a hash, and nobody compared
  std::vector<DisagreementEntry> entries;  // those on which they do not agree since first; the newest first
  std::uint64_t left_out = 0;              // requests in names past the limit
};

struct DisagreementOptions {
  std::optional<Time> since;  // nothing set: the whole log
  std::size_t limit = 10'000;
};

Result<Disagreements> disagreements(const EventLog& log, const DisagreementOptions& options,
                                    const Progress& progress = {});

// {"as_of":{"seq","time"},"requests","differ","no_verdict","not_judged","entries":[{"node","about","upstream_did","answered",
// "would_have","upstream","requests","first":{"seq","time"},"last":{"seq","time","request_id"},"agree_since"}],"left_out"}
boost::json::object to_json(const Disagreements& found);
// A headline and two lines for each entry; `options` are added to the commands in them.
std::string to_text(const Disagreements& found, const TextStyle& style = {}, const std::string& options = {});

}  // namespace ledger::replay
