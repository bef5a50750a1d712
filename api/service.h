// The API on one screen: which path is whose and who may call it. Sees requests and replies, never sockets.
//
// Threads: every call from any thread, none blocks. What the constructor is given must outlive the service.
#pragma once

#include "api/admin.h"
#include "api/agent_config.h"
#include "api/http.h"
#include "api/registration.h"
#include "api/trust_probes.h"
#include "api/tunnel.h"

namespace ledger::api {

class Service {
 public:
  Service(Ledger& ledger, const Credentials& credentials, const Issuer& issuer, const AgentConfig& config);

  void handle(RequestPtr request, Reply reply);

  // A TLS handshake that failed.
  void tls_failed(const std::string& source, const std::string& alert) { probes_.handshake_failed(source, alert); }
  // HTTP that could not be parsed or was over a limit; answered with this status already.
  void bad_request(const std::string& source, int status, const std::string& request_id);
  // Call about once a second, and with `last` before the ledger closes.
  void tick(bool last) { probes_.settle(last); }

 private:
  void endpoints(RequestPtr request, Reply reply);

  Ledger& ledger_;
  const Issuer& issuer_;
  const AgentConfig& config_;
  TrustProbes probes_;
  Tunnels tunnels_;
  Registration registration_;
  Admin admin_;
};

}  // namespace ledger::api
