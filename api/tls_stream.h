// The listener's side of a TLS connection, as the files that see Beast share it (listener.cpp, forward.cpp).
#pragma once

#include <boost/beast/core.hpp>
#include <boost/beast/ssl.hpp>

namespace ledger::api {

using TlsStream = boost::beast::ssl_stream<boost::beast::tcp_stream>;

}  // namespace ledger::api
