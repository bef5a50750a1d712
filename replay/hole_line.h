// What is missing from a history, as a line between its records: so that who reads JSON Lines knows what their writer
// could not read. {"missing":{"seq":1,"to":100000,"own":true,"reason":"..."}}; `to` and `own` as in Hole. Any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "replay/history.h"

namespace ledger::replay {

std::string hole_line(const Hole& hole);  // with its newline
// nullopt: the line is something else.
std::optional<Hole> hole_from_line(std::string_view line);

}  // namespace ledger::replay
