// The only map from a reason to a status code and a body. Everything that is not a success is answered here,
// so the client, the log and the audit cannot disagree. Pure; any thread.
//
// Codes (docs/HTTP_API.md): 400 headers or request, 401 credentials, 403 node password and nothing else,
// 404, 405, 409 (operators' API), 429 too busy, 503 cannot record. Bodies are Kubernetes `Status` objects.
#pragma once

#include <string>

#include "api/http.h"
#include "ledger/decision.h"
#include "ledger/program.h"

namespace ledger::api {

struct Problem {
  int status = 500;
  std::string message;        // the real reason, for a person; no secrets
  int retry_after_s = 0;      // 0: no Retry-After header
};

Problem problem_of(TokenResult result);
Problem problem_of(HeaderResult result, const std::string& detail);
// For refuse_mismatch and refuse_held.
Problem problem_of(Ruling ruling, const std::string& node, const NodeState& state);
// A failure of ours, on the registration API: what cannot be recorded is 503, what is too much is 429.
Problem problem_of(const Error& error);
Problem not_found(const std::string& path, const Program& served = kK3s);
// Agents with an embedded registry ask for peers; there are none here.
Problem no_peers();
Problem method_not_allowed(const std::string& allowed);

Response to_response(const Problem& problem);

}  // namespace ledger::api
