#include "api/tunnel.h"

#include <chrono>

#include "api/tunnel_frame.h"

namespace ledger::api {
namespace {

using std::chrono::steady_clock;

class AgentTunnel : public TunnelSession {
 public:
  AgentTunnel(Ledger& ledger, Record closed) : ledger_(ledger), closed_(std::move(closed)) {}

  // Nothing is asked of the agent, so nothing it says needs an answer: pongs are the socket's business,
  // SyncConnections lists connections that we never made.
  Result<void> on_message(std::string_view bytes) override {
    const Result<TunnelFrame> frame = TunnelFrame::decode(bytes);
    if (!frame) return frame.error();
    return {};
  }

  void on_close(std::string_view cause) override {
    const std::chrono::duration<double> open = steady_clock::now() - opened_;
    closed_.event = TunnelClosed{.session = closed_.request_id,
                                 .cause = printable(cause, 200),
                                 .seconds = static_cast<double>(static_cast<std::int64_t>(open.count() * 1000)) / 1000};
    Proposal proposal;
    proposal.records.push_back(std::move(closed_));
    ledger_.append(std::move(proposal), [](const Result<Committed>&) {});
  }

 private:
  Ledger& ledger_;
  Record closed_;
  const steady_clock::time_point opened_ = steady_clock::now();
};

}  // namespace

std::shared_ptr<TunnelSession> open_tunnel(Ledger& ledger, Record closed, const std::string& node) {
  closed.node = node;
  return std::make_shared<AgentTunnel>(ledger, std::move(closed));
}

}  // namespace ledger::api
