// A record as one JSON object, field names as in docs/EVENTS.md: what exports hold and `--input` reads.
// Any thread.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>

#include "ledger/event.h"

namespace ledger {

// Fields that are not known are left out. Key order is fixed, so equal records give equal text.
boost::json::object to_json(const Record& record);
// The same on one line, without the newline.
std::string to_json_line(const Record& record);

// Reads one line. Unknown fields are passed over; an unknown kind, a field of the wrong type, or a missing
// `seq` or `kind` is Errc::invalid with the field named. Lines over 1 MiB and nesting over 32 are refused.
// Control characters in texts become '?' (types.h, printable): the file may come from anywhere.
Result<Record> record_from_json(std::string_view line);
// The same from a value that is already parsed.
Result<Record> record_from_json(const boost::json::object& object);

}  // namespace ledger
