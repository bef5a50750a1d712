// From a reply to its record: an agent's, a proxy's or a load balancer's log has `Ledger-Seq` and `Ledger-Request-Id` of a
// reply, and these lead to the records of the request and to the node it was about. Any thread.
#pragma once

#include <boost/json/object.hpp>
#include <istream>
#include <optional>
#include <string>
#include <vector>

#include "replay/history.h"

namespace ledger::replay {

struct Lookup {  // one of the two
  std::optional<Seq> seq;
  std::string request_id;
};

struct LookedUp {
  std::vector<Record> records;  // of the request, by seq; never empty, at most the latest 100
  // The node that they name. Where they name none: those that came from the same address, the latest first, at most 16.
  std::vector<std::string> nodes;
  bool named = false;
};

// Errc::not_found, with what may be the reason. Of a request whose outcome was counted (docs/EVENTS.md, "Storms") no id is
// kept: the seq of its reply is that of the record that stands for it.
Result<LookedUp> look_up(const EventLog& log, const Lookup& asked);
// From JSON Lines; reads the stream twice.
Result<LookedUp> look_up(std::istream& lines, const Lookup& asked);

// {"records":[...],"nodes":[...],"named":true}
boost::json::object to_json(const LookedUp& found);
Result<LookedUp> looked_up_from_json(std::string_view text);

// A line for each record: "record 9042  2024-06-11 07:02:40Z  password_rejected  web-1 from 10.0.0.5  request 3f..".
std::string to_text(const LookedUp& found);

}  // namespace ledger::replay
