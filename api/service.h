// The API on one screen: which path is whose and who may call it. Sees requests and replies, never sockets.
//
// Threads: every call from any thread, none blocks. What the constructor is given must outlive the service.
#pragma once

#include <functional>
#include <string>

#include "api/admin.h"
#include "api/agent_config.h"
#include "api/cluster_config.h"
#include "api/http.h"
#include "api/mode.h"
#include "api/observation.h"
#include "api/proxy_protocol.h"
#include "api/registration.h"
#include "api/trust_probes.h"
#include "api/tunnel.h"
#include "api/upstream.h"

namespace ledger::api {

// What a listener gives access to. With one port that is everything; where the API of the supervisor and that of the
// kube-apiserver have ports of their own (RKE2), each has its paths only.
enum class Door { everything, supervisor, kubernetes };

class Service {
 public:
  // `hashes` (may be missing): where hashes of k3s' node passwords are kept and verified.
  // `proxies`: whose X-Forwarded-For is believed on the operators' API; on the agents' paths nobody's is.
  Service(Ledger& ledger, const Credentials& credentials, const Issuer& issuer, const AgentConfig& config,
          HashChecker* hashes = nullptr, TrustedProxies proxies = {});

  // Where the newest checkpoint comes from, for the files of the tree (tree_files.h). Before the first request.
  void serve_checkpoints(std::function<std::string()> latest) { latest_checkpoint_ = std::move(latest); }

  // Who seals and drops old records. Before the first request.
  void keep_archives(Archivist* archivist) { admin_.keep_archives(archivist); }

  // Stands in front of these, in this mode, which is not alone. Before the first request.
  void stand_in_front(Upstreams& upstreams, const ClusterConfig& cluster, Mode mode);

  // With an upstream: how a request whose head is there is passed on without being read; nullptr: handle() answers it.
  std::shared_ptr<Passage> route(const RequestPtr& head, Door door = Door::everything);

  void handle(RequestPtr request, Reply reply, Door door = Door::everything);

  // A TLS handshake that failed.
  void tls_failed(const Peer& peer, const std::string& alert) { probes_.handshake_failed(peer, alert); }
  // HTTP that could not be parsed or was over a limit; answered with this status already.
  void bad_request(const Peer& peer, int status, const std::string& request_id);
  // Call about once a second, and with `last` before the ledger closes.
  void tick(bool last) { probes_.settle(last); }

 private:
  bool is_registration(const Request& request, Door door) const;
  void register_agent(RequestPtr request, Reply reply, Door door);
  void decide(RequestPtr request, Reply reply, Door door);
  // `endpoint`: what follows the program's prefix in the path.
  void supervise(std::string_view endpoint, const RequestPtr& request, const Reply& reply);
  void endpoints(RequestPtr request, Reply reply);

  Ledger& ledger_;
  const Credentials& credentials_;
  const Issuer& issuer_;
  const AgentConfig& config_;
  const TrustedProxies proxies_;
  TrustProbes probes_;
  Tunnels tunnels_;
  Generations generations_;
  Registration registration_;
  Admin admin_;
  std::function<std::string()> latest_checkpoint_;
  // With an upstream.
  Upstreams* upstreams_ = nullptr;
  const ClusterConfig* cluster_ = nullptr;
  std::unique_ptr<ModeSwitch> modes_;
  std::unique_ptr<Observation> observation_;
};

}  // namespace ledger::api
