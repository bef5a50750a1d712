// The operators' API, /ledger/v1/...: nodes, their history and explanation, and the three remedies. Needs the
// operator token (Bearer). docs/HTTP_API.md lists it.
//
// Threads: handle() from any thread, never blocks: the work runs on one thread of its own, because it reads
// histories and waits for the disk; a short queue before it answers 429 when it is full. Probes, which wait for
// agents, run beside it.
#pragma once

#include <memory>

#include "api/kubelet_probe.h"
#include "api/registration.h"
#include "api/tunnel.h"
#include "ledger/credentials.h"
#include "ledger/ledger.h"

namespace ledger::api {

class Admin {
 public:
  Admin(Ledger& ledger, const Credentials& credentials, Tunnels& tunnels, const Issuer& issuer);
  ~Admin();  // finishes what is queued

  void handle(RequestPtr request, Reply reply);

 private:
  void refuse(const Request& request, TokenResult result, Reply reply);
  Response answer(const Request& request);
  void probe(const NodeName& node, Reply reply);
  boost::json::object alive(const NodeName& node) const;
  Response node_action(const Request& request, const NodeName& node, std::string_view action);

  Ledger& ledger_;
  const Credentials& credentials_;
  Tunnels& tunnels_;
  KubeletProbe probe_;
  class Lane;
  std::unique_ptr<Lane> lane_;
};

}  // namespace ledger::api
