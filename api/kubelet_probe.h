// Is there a kubelet behind an agent's tunnel? Dials tcp/127.0.0.1:10250 through the agent's newest tunnel, speaks
// TLS there (presenting nothing), looks at the certificate, and asks GET /healthz: any HTTP status is an answer (a
// kubelet that wants to know who asks says 401).
//
// Hides TLS over a connection that is no socket (OpenSSL's memory BIOs). What comes through is a stranger's: every
// buffer has a bound and the whole probe a deadline.
//
// Threads: start() from any thread, never blocks; `done` comes from a thread of its own. The destructor waits for
// the probes under way.
#pragma once

#include <atomic>
#include <boost/json/object.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "api/tunnel.h"

namespace ledger::api {

struct ProbeResult {
  enum class Outcome {
    answers,       // HTTP over TLS: a kubelet, if its certificate is trusted
    no_tunnel,     // none is open
    refused,       // the agent's machine says that nobody listens there
    no_kubelet,    // somebody took the connection, but spoke no TLS or no HTTP, or hung up
    tunnel_ended,  // the tunnel went down meanwhile
    timed_out,
    passed_on,  // the tunnel ends at an upstream, which can ask its kubelet; we only carry it
  };
  struct Certificate {
    std::string subject, serial;  // serial as certificate_issued has it
    Time not_after;
    std::string distrust;  // empty: the server CA signed it for this node, and it is valid
  };

  Outcome outcome = Outcome::no_tunnel;
  std::string detail;  // what the agent, TLS or HTTP said, for a person
  std::optional<OpenTunnel> tunnel;
  std::optional<Certificate> certificate;
  int status = 0;  // of /healthz
  std::chrono::milliseconds took{0};
};

std::string_view name_of(ProbeResult::Outcome outcome);
// {"outcome","detail","tunnel":{"session","since","source"},"certificate":{"subject","serial","not_after",
// "trusted","distrust"},"status","took_ms"}: what is not known is left out.
boost::json::object to_json(const ProbeResult& result);
boost::json::object to_json(const OpenTunnel& tunnel);

class KubeletProbe {
 public:
  // `server_ca_pem`: who must have signed the kubelet's certificate. The tunnels must outlive the probe.
  KubeletProbe(Tunnels& tunnels, std::string server_ca_pem, std::chrono::milliseconds at_most = std::chrono::seconds(10));
  ~KubeletProbe();

  // False: as many probes as may run at once are running; `done` will not be called.
  bool start(const std::string& node, std::function<void(const ProbeResult&)> done);

 private:
  struct Pool;
  Tunnels& tunnels_;
  const std::string server_ca_pem_;
  const std::chrono::milliseconds at_most_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace ledger::api
