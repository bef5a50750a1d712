// Stored bytes <-> records and node states. The only place that knows the binary format (docs/EVENTS.md,
// "Stored form"): one byte format version, two bytes tag (little-endian Kind), then as little-endian cereal
// portable binary (its byte-order mark, 1, first) the record's and the event's `fields`, then version after version up to
// its own what that version brought: the record's and the event's `added_fields` (2), `fields_since_3` (3). A record is
// written in the oldest version that can hold it, so it has one form: bytes that decode encode to themselves. A variant's
// index is never stored. Any thread.
//
// Old versions decode for ever (tests/golden). To change the format: add a version with a list of its own (event.h,
// each_field_of), and change none.
#pragma once

#include <string>
#include <string_view>

#include "ledger/event.h"
#include "ledger/node_table.h"

namespace ledger {

inline constexpr std::uint8_t kRecordFormatVersion = kNewestFields;

std::string encode(const Record& record);
// Errc::corrupt for bytes that are not exactly one record of a known version and kind. Every length is
// checked before memory is taken for it, so hostile bytes cost at most their own size.
Result<Record> decode_record(std::string_view bytes);

std::string encode(const NodeState& state);
Result<NodeState> decode_node_state(std::string_view bytes);

}  // namespace ledger
