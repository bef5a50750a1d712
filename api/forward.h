// One request passed on to an upstream as it comes, and its answer back, byte for byte: neither body is held, and who is
// slow slows the other. After a 101 the connection carries whatever both sides say, each until it says its end.
//
// The request is written anew from what was parsed, so that what two parsers could read in two ways never gets through;
// the answer's bytes are passed on as they came. Seen by listener.cpp only.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "api/http.h"
#include "api/tls_stream.h"
#include "api/upstream.h"

namespace ledger::api {

// A body that is taken piece by piece: whoever reads takes `value_type` away before the next piece is read.
struct PieceBody {
  using value_type = std::string;
  class reader {
   public:
    template <bool isRequest, class Fields>
    reader(boost::beast::http::header<isRequest, Fields>&, value_type& piece) : piece_(piece) {}
    void init(const boost::optional<std::uint64_t>&, boost::system::error_code& error) { error = {}; }
    template <class Buffers>
    std::size_t put(const Buffers& bytes, boost::system::error_code& error) {
      error = {};
      for (const auto one : boost::beast::buffers_range_ref(bytes))
        piece_.append(static_cast<const char*>(one.data()), one.size());
      return boost::asio::buffer_size(bytes);
    }
    void finish(boost::system::error_code& error) { error = {}; }

   private:
    value_type& piece_;
  };
};
using PieceParser = boost::beast::http::request_parser<PieceBody>;

// The listener's side of it.
struct ClientSide {
  TlsStream& stream;
  boost::beast::flat_buffer& buffer;  // read and not parsed
  PieceParser& parser;                // the head is read
  std::function<void(bool)> waits;    // for the peer to take what we say; and not any more
  std::function<void()>& stop;        // set while it can be asked to end soon; on the connection's strand
};

struct ForwardEnd {
  enum class Kind {
    keep,   // the connection may carry another request
    close,  // in order
    drop,   // reset: there is no other way to say that the answer is not whole
  };
  Kind kind = Kind::drop;
  std::optional<Response> instead;  // nothing was said yet: say this (keep or close)
};

boost::asio::awaitable<ForwardEnd> forward(std::shared_ptr<Upstreams::State> upstreams, ClientSide client,
                                           std::shared_ptr<const Request> head, std::shared_ptr<Passage> passage);

}  // namespace ledger::api
