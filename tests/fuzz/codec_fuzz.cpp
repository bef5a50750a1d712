// Whatever the disk gives back: no crash, no memory beyond a small multiple of the input, and bytes that decode are
// the one form of what they decode to. The first byte chooses record or node state.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ledger/event_codec.h"
#include "ledger/event_json.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

void fuzz_record(std::string_view bytes) {
  const ledger::Result<ledger::Record> record = ledger::decode_record(bytes);
  if (!record) return require(record.error().code == ledger::Errc::corrupt && !record.error().message.empty());
  require(ledger::encode(*record) == bytes);
  // What decodes can be shown, indexed and folded.
  require(ledger::to_json_line(*record).find('\n') == std::string::npos);
  ledger::NodeState state;
  (void)ledger::apply(*record, state);
  const ledger::Result<ledger::NodeState> stored = ledger::decode_node_state(ledger::encode(state));
  require(stored.has_value() && *stored == state);
}

void fuzz_state(std::string_view bytes) {
  const ledger::Result<ledger::NodeState> state = ledger::decode_node_state(bytes);
  if (!state) return require(state.error().code == ledger::Errc::corrupt);
  require(ledger::encode(*state) == bytes);
  require(!ledger::state_name(*state).empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 8 == 0)
    fuzz_state(bytes);
  else
    fuzz_record(bytes);
  return 0;
}
