#include "api/problem.h"

#include <boost/json.hpp>

namespace ledger::api {
namespace {

// The `reason` Kubernetes gives a status code (apimachinery StatusReason).
const char* status_reason(int status) {
  switch (status) {
    case 400:
    case 431: return "BadRequest";  // Kubernetes has no word for 431
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "NotFound";
    case 405: return "MethodNotAllowed";
    case 409: return "Conflict";
    case 413: return "RequestEntityTooLarge";
    case 429: return "TooManyRequests";
    case 410: return "Gone";
    case 503: return "ServiceUnavailable";
    default: return "InternalError";
  }
}

}  // namespace

Problem problem_of(TokenResult result) {
  switch (result) {
    case TokenResult::missing:
      return {401, "no credentials: present the join token (Authorization: Basic, user node)"};
    case TokenResult::malformed:
      return {401, "not authorized: the Authorization header cannot be read"};
    case TokenResult::unknown_principal:
      return {401, "not authorized: no such user, or a certificate this cluster's client CA did not sign"};
    case TokenResult::wrong_secret:
      return {401, "not authorized: invalid username/password combination"};
    case TokenResult::expired:
      return {401, "not authorized: this token has expired; ask for a new one"};
    case TokenResult::revoked:
      return {401, "not authorized: this token was revoked; ask for a new one"};
    case TokenResult::superseded:
      return {401, "not authorized: this token was replaced; use the current one (ledger token show)"};
    case TokenResult::wrong_class:
      return {401, "not authorized: this identity is not allowed here; agents use the agent token (user node)"};
    case TokenResult::accepted:
      break;
  }
  fatal("an accepted token is not a problem");
}

Problem problem_of(HeaderResult result, const std::string& detail) {
  switch (result) {
    case HeaderResult::node_name_missing: return {400, "node name not set"};
    case HeaderResult::node_password_missing:
      return {400, "node password not set: is /etc/rancher/node/password on the agent empty?"};
    case HeaderResult::node_name_mismatch:
      return {400, "header node name does not match auth node name" + (detail.empty() ? "" : ": " + detail)};
    case HeaderResult::node_unknown: return {401, "unable to verify node identity: " + detail};
    case HeaderResult::node_name_invalid:
    case HeaderResult::bad_request:
    case HeaderResult::bad_csr: return {400, detail};
    case HeaderResult::complete: break;
  }
  fatal("complete headers are not a problem");
}

Problem problem_of(Ruling ruling, const std::string& node, const NodeState& state) {
  const std::string look = "; an operator can see why with: ledger replay --node " + node;
  if (ruling == Ruling::refuse_mismatch)
    return {403, "unable to verify password for node " + node + ": hash does not match (bound by record " +
                     std::to_string(state.since) + ")" + look};
  if (ruling == Ruling::refuse_held)
    return {403, "unable to verify password for node " + node + ": the name is held by an operator" + look};
  fatal("only a refused password is a problem here");
}

Problem problem_of(const Error& error) {
  switch (error.code) {
    case Errc::invalid: return {400, error.message};
    case Errc::not_found: return {404, error.message};
    case Errc::conflict: return {409, error.message};
    case Errc::archived: return {410, error.message};
    case Errc::overloaded: return {429, error.message, 1};
    default: return {503, error.message, 5};
  }
}

Problem not_found(const std::string& path, const Program& served) {
  if (const Program* asked = program_of_path(path); asked != nullptr && asked != &served)
    return {404, "no such path: " + printable(path, 200) + " (this server serves agents of " +
                     std::string(served.name) + "; those of " + std::string(asked->name) +
                     " need a server started with --program " + std::string(asked->name) + ")"};
  return {404, "no such path: " + printable(path, 200) + " (this is a registration service, not a kube-apiserver)"};
}

Problem no_peers() { return {503, "no peer addresses available"}; }

Problem method_not_allowed(const std::string& allowed) {
  return {405, "method not allowed here; use " + allowed};
}

Response to_response(const Problem& problem) {
  boost::json::object status;
  status["kind"] = "Status";
  status["apiVersion"] = "v1";
  status["metadata"] = boost::json::object();
  status["status"] = "Failure";
  status["message"] = problem.message;
  status["reason"] = status_reason(problem.status);
  status["code"] = problem.status;
  Response response;
  response.status = problem.status;
  response.content_type = "application/json";
  response.body = boost::json::serialize(status) + "\n";
  if (problem.retry_after_s > 0) response.headers.emplace_back("Retry-After", std::to_string(problem.retry_after_s));
  return response;
}

}  // namespace ledger::api
