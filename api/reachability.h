// Whether a server can be reached at all: its addresses, and a TCP connection to each. For `ledger doctor`, which
// must tell a refused connection from a lost one; everybody else dials with TlsLink.
//
// Both calls end at their deadline. Any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "ledger/types.h"

namespace ledger::api {

// The addresses of a host, in the system's order, each once. Errc::not_found: there is no such name;
// Errc::unavailable: the resolver did not say.
Result<std::vector<std::string>> resolve(const std::string& host, std::chrono::milliseconds deadline);

struct ConnectAttempt {
  std::string address;
  int error = 0;  // errno; 0: connected; ETIMEDOUT: no answer before the deadline
};
// Tries all addresses at the same time and closes again what it opened.
std::vector<ConnectAttempt> try_connect(const std::vector<std::string>& addresses, std::uint16_t port,
                                        std::chrono::milliseconds deadline);

}  // namespace ledger::api
