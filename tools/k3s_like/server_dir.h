// A server directory as k3s lays it out, and the certificates that a test needs besides:
//   tls/{client-ca,server-ca,request-header-ca}.{crt,key}, service.key, serving-kube-apiserver.crt,
//   dynamic-cert.json tls/client-admin.{crt,key} (O=system:masters), client-auth-proxy.{crt,key} (signed by the
//   request-header CA) cred/passwd, cred/ipsec.psk, token, node-token, agent-token
// Threads: one call at a time per directory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ledger/result.h"
#include "ledger/types.h"

namespace ledger::k3s_like {

struct DirOptions {
  std::filesystem::path dir;
  Secret token, agent_token;       // passwords; empty: a fresh one, and the same
  std::vector<std::string> names;  // more names of the listener
};
// The directory must hold no tls/ yet.
Result<void> make_server_dir(const DirOptions& options);

struct LeafOptions {
  std::filesystem::path dir;
  std::string authority = "client-ca";  // whose stem in tls/; "stranger": a CA that nobody knows, made for this
  std::string common_name;
  std::vector<std::string> organizations;
  std::int64_t valid_from = 0, valid_for = 365 * 86400;  // seconds from now; and from then
};
// Writes <out>.crt and <out>.key, for clientAuth.
Result<void> issue_client(const LeafOptions& options, const std::filesystem::path& out);

}  // namespace ledger::k3s_like
