// The messages inside the websocket tunnel `/v1-k3s/connect` (rancher/remotedialer), one per binary websocket
// message: varint fields as Go's binary.PutVarint writes them (zig-zag LEB128), then the payload to the end.
//
//   id | connection | type | deadline_ms (types data and connect only) | payload
//
// Hides the byte layout. Pure values; any thread. Payloads are not looked at: what a Connect names or a
// SyncConnections lists is the caller's business.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ledger/result.h"

namespace ledger::api {

struct TunnelFrame {
  // Numbers from the wire; others are kept as they are, for peers ignore what they do not know.
  static constexpr std::int64_t kData = 1;
  static constexpr std::int64_t kConnect = 2;  // payload "tcp/127.0.0.1:10250"
  static constexpr std::int64_t kError = 3;    // payload is the text; "EOF" is an orderly end of the connection
  static constexpr std::int64_t kAddClient = 4;
  static constexpr std::int64_t kRemoveClient = 5;
  static constexpr std::int64_t kPause = 6;
  static constexpr std::int64_t kResume = 7;
  static constexpr std::int64_t kSyncConnections = 8;  // payload: 8 bytes little-endian per live connection

  std::int64_t id = 0;          // the sender's counter; informational
  std::int64_t connection = 0;  // chosen by the side that dials
  std::int64_t type = 0;
  std::int64_t deadline_ms = 0;  // on the wire only where has_deadline()
  std::string payload;

  bool has_deadline() const { return type == kData || type == kConnect; }

  std::string encode() const;

  // Accepts exactly what encode() makes: encode(decode(x)) == x. Errors name the field: cut short, longer than
  // 10 bytes, more than 64 bits, or not the shortest form (Go never sends one).
  static Result<TunnelFrame> decode(std::string_view message);

  bool operator==(const TunnelFrame&) const = default;
};

}  // namespace ledger::api
