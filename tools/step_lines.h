// Steps of a check (api/doctor.h) for people, 100 columns wide, and their remedies as JSON. On standard output.
#pragma once

#include <boost/json/array.hpp>
#include <string_view>
#include <vector>

#include "api/doctor.h"

namespace ledger::tools {

// `text` in lines of at most 100 columns: the first begins where `column` already is, the others there too.
void print_wrapped(std::string_view text, std::size_t column);
// "  ok    title               detail", coloured on a terminal.
void print_step(const api::DoctorStep& step);
// One item each; its command whole, because it is pasted.
void print_remedies(const api::DoctorStep& step);

boost::json::array json_of(const std::vector<api::Remedy>& remedies);

}  // namespace ledger::tools
