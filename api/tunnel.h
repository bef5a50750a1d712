// The server's end of an agent's websocket tunnel (docs/HTTP_API.md, "Tunnel"): passive, it keeps the agent
// connected and the ledger informed. Frames are checked (tunnel_frame.h); one that cannot be read ends the
// session, as in k3s. When the session ends, tunnel_closed is recorded with cause and duration.
#pragma once

#include <memory>
#include <string>

#include "api/http.h"
#include "ledger/ledger.h"

namespace ledger::api {

// `closed` is the tunnel_closed record to be, with everything but session, cause and seconds filled in; its
// request id is the session. The ledger must outlive the session.
std::shared_ptr<TunnelSession> open_tunnel(Ledger& ledger, Record closed, const std::string& node);

}  // namespace ledger::api
