// The tokens as a log has them: what `ledger token list` and the operators' API print. Never a secret. Any thread.
#pragma once

#include <boost/json.hpp>

#include "ledger/event_log.h"
#include "ledger/token_table.h"

namespace ledger::replay {

// {"id","class","role","status","accepted","file","description","expires","created":{"seq","time","actor"},
// "ended":{...},"replaced_by","grace_ends"}: what is not known is left out. `status` and `accepted` hold at `now`;
// `file`: the server's own files hold it.
boost::json::object summary_of(const TokenState& token, bool in_files, Time now);

// Every token there ever was, by age. Those in the grace period of a rotation have "used" as well, which says who
// must still be changed: {"count","last","from":[nodes and addresses, at most 20]}, and "looked_from" (a seq) where
// the log since the rotation is longer than what is looked through (its last 500,000 records).
Result<boost::json::array> list_tokens(const EventLog& log, Time now);

}  // namespace ledger::replay
