// Who listens on a TCP port of this machine, from /proc. Linux only; any thread; changes nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace ledger::api {

struct PortOwner {
  int pid = 0;          // 0: somebody listens, but this user may not see who
  std::string command;  // as `ps -o comm` prints it
};

// The listener that a connection to 127.0.0.1:<port> reaches; nullopt when there is none.
std::optional<PortOwner> find_port_owner(std::uint16_t port);

}  // namespace ledger::api
