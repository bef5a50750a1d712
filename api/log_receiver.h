// A receiver of log lines over TCP or TLS: the destination of tcp:// and tls:// (destination.h).
#pragma once

#include "api/destination.h"
#include "api/tls_link.h"

namespace ledger::api {

// "<length> <message>" (RFC 6587, 3.4.1): the line without its end, and how many bytes it has.
std::string octet_counted(std::string_view line);

Result<std::unique_ptr<Destination>> open_log_receiver(const DestinationOptions& options, TlsOptions link, bool tls);

}  // namespace ledger::api
