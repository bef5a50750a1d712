// The Date header of HTTP (RFC 9110, section 5.6.7): "Mon, 23 Nov 2026 09:22:05 GMT". Whole seconds. Any thread.
#pragma once

#include <string>
#include <string_view>

#include "ledger/types.h"

namespace ledger::api {

std::string http_date(Time time);
// The one form that servers send today; the two forms before 1994 are refused.
Result<Time> parse_http_date(std::string_view text);

}  // namespace ledger::api
