// What a k3s agent demands of the texts it is given: the join token, the config document, PEM bodies, the list
// of endpoints. Pure functions; any thread. Errors are the agent's own sentences.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/agent.h"

namespace ledger::api {

struct AgentToken {
  std::string ca_hash, user;
  Secret password;         // of a bootstrap token: the whole `<id>.<secret>`
  bool bootstrap = false;  // `<id>.<secret>`, which agents of G6 and later send as Bearer
};
Result<AgentToken> parse_agent_token(const Secret& text, Generation generation);

// What the agent does with the config document once it has accepted it.
struct ClusterDocument {
  std::int64_t https_port = 0, supervisor_port = 0;
  bool embedded_registry = false;
};
// Go's decoder refuses the whole document for one wrong type; after that come the agent's cross checks.
Result<ClusterDocument> read_cluster_document(std::string_view json, Generation generation,
                                              const std::vector<std::string>& node_ips);

// A certificate response taken apart as the agent does: `PRIVATE KEY` blocks go to the key file, all other PEM
// blocks to the certificate file, text between blocks is dropped.
struct PemParts {
  std::string certificates;
  Secret key;
};
PemParts split_pem(std::string_view body);

// `message` of a Kubernetes Status body; empty when it is none.
std::string status_message(std::string_view body);

// "address:port" of a Kubernetes Endpoints object, or of the JSON array of /v1-k3s/apiservers.
Result<std::vector<std::string>> read_endpoints(std::string_view json);
Result<std::vector<std::string>> read_apiservers(std::string_view json);

}  // namespace ledger::api
