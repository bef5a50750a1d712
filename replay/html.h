// Text of others inside a page. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ledger::replay {

// For text and for attribute values in quotes. Nothing a stranger wrote can end an element or a quote, turn the
// direction of the line, or be a character that XML does not know. At most 16 KiB are kept.
std::string escaped(std::string_view text);

// The same as an element whose letters, should they be written from right to left, turn nothing around outside of
// it.
std::string isolated(std::string_view text);

// "100,000"
std::string with_commas(std::int64_t number);

}  // namespace ledger::replay
