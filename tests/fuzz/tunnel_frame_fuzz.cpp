// Whatever a peer sends, decode() answers; and what it accepts has one spelling only.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "api/tunnel_frame.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view message(reinterpret_cast<const char*>(data), size);
  const auto frame = ledger::api::TunnelFrame::decode(message);
  if (frame && frame->encode() != message) std::abort();
  if (!frame && frame.error().message.empty()) std::abort();
  return 0;
}
