// The two programs whose agents can register: k3s and RKE2. They speak one protocol and differ in the names below,
// and nowhere else: whoever needs such a name takes it from here. A server serves one of them.
//
// Sources: k3s' version.Program (which replaced the literal "k3s" in v1.19), RKE2's defaults, and what the two
// programs' installers write on a machine.
// Constant; any thread.
#pragma once

#include <cstdint>
#include <string_view>

#include "ledger/result.h"

namespace ledger {

struct Program {
  std::string_view name;         // "k3s": of `<name> agent`, in CN and O of the listener, in CNs of the CAs
  std::string_view path_prefix;  // "/v1-k3s/"
  std::string_view node_name_header, node_password_header, node_ip_header;  // in lower case
  std::string_view controller_user;  // CN of the certificate with which agents read endpoints
  std::string_view controller_stem;  // "client-k3s-controller": its endpoint's stem and its `purpose` in the log
  std::string_view agent_group, server_group;  // of the users `node` and `server` in cred/passwd
  // The config document where the operator says nothing else.
  std::string_view flannel_backend;
  bool disable_network_policy;
  // Where agents are pointed at; 0: the port of the kube API.
  std::uint16_t supervisor_port;

  // On machines as they are installed. The node password is at the same place in both: /etc/rancher/node/password.
  std::uint16_t usual_port;                        // in the agents' URL
  std::string_view agent_service, server_service;  // of systemd
  std::string_view config_file;                    // of agents and of servers; read from v1.19 on
  std::string_view token_file;                     // where the agent's service finds its token, and its server
  std::string_view token_setting;                  // what it is called there
  std::string_view agent_dir;                      // certificates and keys of an agent
  std::string_view server_dir;                     // CAs and tokens of a server
};

inline constexpr Program kK3s{
    .name = "k3s",
    .path_prefix = "/v1-k3s/",
    .node_name_header = "k3s-node-name",
    .node_password_header = "k3s-node-password",
    .node_ip_header = "k3s-node-ip",
    .controller_user = "system:k3s-controller",
    .controller_stem = "client-k3s-controller",
    .agent_group = "k3s:agent",
    .server_group = "k3s:server",
    .flannel_backend = "vxlan",
    .disable_network_policy = false,
    .supervisor_port = 0,
    .usual_port = 6443,
    .agent_service = "k3s-agent",
    .server_service = "k3s",
    .config_file = "/etc/rancher/k3s/config.yaml",
    .token_file = "/etc/systemd/system/k3s-agent.service.env",
    .token_setting = "K3S_TOKEN",
    .agent_dir = "/var/lib/rancher/k3s/agent",
    .server_dir = "/var/lib/rancher/k3s/server",
};

inline constexpr Program kRke2{
    .name = "rke2",
    .path_prefix = "/v1-rke2/",
    .node_name_header = "rke2-node-name",
    .node_password_header = "rke2-node-password",
    .node_ip_header = "rke2-node-ip",
    .controller_user = "system:rke2-controller",
    .controller_stem = "client-rke2-controller",
    .agent_group = "rke2:agent",
    .server_group = "rke2:server",
    .flannel_backend = "none",
    .disable_network_policy = true,
    .supervisor_port = 9345,
    .usual_port = 9345,
    .agent_service = "rke2-agent",
    .server_service = "rke2-server",
    .config_file = "/etc/rancher/rke2/config.yaml",
    .token_file = "/etc/rancher/rke2/config.yaml",
    .token_setting = "token:",
    .agent_dir = "/var/lib/rancher/rke2/agent",
    .server_dir = "/var/lib/rancher/rke2/server",
};

// "k3s" or "rke2", else Errc::invalid.
Result<const Program*> find_program(std::string_view name);

// Whose supervisor API this path belongs to ("/v1-rke2/config"); null: nobody's.
const Program* program_of_path(std::string_view path);

// Which program made the CA with this common name ("rke2-client-ca@1700000000"); null: neither.
const Program* program_of_authority(std::string_view common_name);

}  // namespace ledger
