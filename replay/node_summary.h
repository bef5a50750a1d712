// One node, or all of them, as the projection has them now: what `ledger node list|show` and the operators' API
// print. Reads the stored projection only; histories are history.h's. Any thread.
#pragma once

#include <boost/json.hpp>
#include <string>

#include "ledger/event_log.h"

namespace ledger::replay {

// {"node","state","bound":{"fingerprint","since_seq"},"held","rejections","registered":{"seq","time","source",
// "fingerprint"},"rejected":{...}}: what is not known is left out.
boost::json::object summary_of(std::string_view node, const NodeState& state);

// Every node in name order.
Result<boost::json::array> list_nodes(const EventLog& log);
// The same of one node, with "weakness" (low_entropy) and "also_bound_to" (other names bound to the same password now,
// of the latest 64 records that name it) where there is something. Errc::not_found when the ledger has never seen the name.
Result<boost::json::object> describe_node(const EventLog& log, const std::string& node);

}  // namespace ledger::replay
