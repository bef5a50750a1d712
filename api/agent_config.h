// What agents are told about the cluster: the config document every k3s generation accepts (docs/HTTP_API.md),
// the list of API servers, and the two kube-apiserver answers a k3s v1.17/v1.18 agent asks for.
// Constant after parse; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ledger/program.h"
#include "ledger/types.h"

namespace ledger::api {

// Texts as the operator gave them; defaults are k3s'.
struct ClusterOptions {
  std::string cluster_cidr = "10.42.0.0/16";
  std::string service_cidr = "10.43.0.0/16";
  std::string cluster_dns = "10.43.0.10";
  std::string cluster_domain = "cluster.local";
  std::string flannel_backend{};  // empty: the program's default
  std::string service_node_port_range = "30000-32767";
};

// Where agents find the two APIs; the same port unless they are split.
struct Ports {
  std::uint16_t https, supervisor;
  Ports(std::uint16_t both) : https(both), supervisor(both) {}
  Ports(std::uint16_t https_port, std::uint16_t supervisor_port) : https(https_port), supervisor(supervisor_port) {}
};

class AgentConfig {
 public:
  // Checks the options (address families must agree: agents exit on a mix). Lists are comma-separated, IPv4 and
  // IPv6; the first is the primary one. `ipsec_psk` is 96 hex digits. `advertise` is an IP address.
  static Result<AgentConfig> make(const ClusterOptions& options, const std::string& advertise, Ports ports,
                                  const std::string& ipsec_psk, const Program& program = kK3s);

  const std::string& document() const { return document_; }      // GET <prefix>config
  const std::string& apiservers() const { return apiservers_; }  // GET <prefix>apiservers
  const std::string& api_groups() const { return api_groups_; }  // GET /apis
  const std::string& endpoints() const { return endpoints_; }    // .../default/endpoints/kubernetes
  std::string endpoints_list() const;                            // ... as a list
  std::string endpoints_watch_event() const;                     // ... as the first event of a watch

 private:
  std::string document_, apiservers_, api_groups_, endpoints_;
};

}  // namespace ledger::api
