// The two programs whose agents can register: k3s and RKE2. They speak one protocol and differ in the names below,
// and nowhere else: whoever needs such a name takes it from here. A server serves one of them.
//
// Sources: k3s' version.Program (which replaced the literal "k3s" in v1.19) and RKE2's defaults.
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
};

// "k3s" or "rke2", else Errc::invalid.
Result<const Program*> find_program(std::string_view name);

// Whose supervisor API this path belongs to ("/v1-rke2/config"); null: nobody's.
const Program* program_of_path(std::string_view path);

// Which program made the CA with this common name ("rke2-client-ca@1700000000"); null: neither.
const Program* program_of_authority(std::string_view common_name);

}  // namespace ledger
