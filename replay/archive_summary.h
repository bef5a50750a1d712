// Archives and legal holds as they are now: what `ledger archive list` and the operators' API print. Any thread.
#pragma once

#include <boost/json.hpp>

#include "ledger/archivist.h"

namespace ledger::replay {

// {"archives":[{"file","from","to","state","here","problem","first_time","last_time","bytes","unpacked","sha256","sealed",
// "removed","removed_by","holds"}],"holds":[{"id","covers","node","from","to","since","until","actor","reason","placed",
// "time"}],"stored_bytes"}: what is not known is left out. `state`: sealed, dropped, removed.
Result<boost::json::object> list_archives(const EventLog& log);

// {"file","from","to","sha256","bytes","unpacked","seq","holds"}
boost::json::object to_json(const Archivist::Sealed& sealed);

}  // namespace ledger::replay
