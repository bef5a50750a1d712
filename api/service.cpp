#include "api/service.h"

#include <boost/url/parse_query.hpp>
#include <charconv>

#include "api/problem.h"

namespace ledger::api {
namespace {

constexpr const char* kJson = "application/json";
constexpr const char* kText = "text/plain";
constexpr const char* kPlainText = "text/plain; charset=utf-8";

// A watch is kept open at most this long; agents start it anew every few seconds anyway.
constexpr int kMaxWatch_s = 600;

Response ok(const char* content_type, std::string body) {
  Response response;
  response.content_type = content_type;
  response.body = std::move(body);
  return response;
}

std::string query_parameter(const Request& request, std::string_view name) {
  const auto query = boost::urls::parse_query(request.query);
  if (!query) return "";
  for (const auto& parameter : *query)
    if (parameter.key == boost::urls::string_view(name.data(), name.size())) return std::string(parameter.value);
  return "";
}

// Is this path below a program's prefix, e.g. "/v1-k3s/config"?
bool is_certificate_path(std::string_view path) { return path.starts_with("/v1-k3s/") && path.ends_with(".crt"); }

}  // namespace

Service::Service(Ledger& ledger, const Credentials& credentials, const Issuer& issuer, const AgentConfig& config)
    : ledger_(ledger),
      issuer_(issuer),
      config_(config),
      probes_(ledger),
      tunnels_(ledger),
      registration_(ledger, credentials, issuer, tunnels_),
      admin_(ledger, credentials, tunnels_, issuer) {}

void Service::handle(RequestPtr request, Reply answer) {
  // Every answer says which request it belongs to, whether or not there is a record.
  Reply reply = [id = request->id, answer = std::move(answer)](Response response) {
    response.headers.emplace_back("Ledger-Request-Id", id);
    answer(std::move(response));
  };
  const std::string& path = request->path;
  if (path.starts_with("/ledger/v1/")) return admin_.handle(std::move(request), std::move(reply));

  // G7 agents POST a CSR to the certificate endpoints and take a key as well when the answer holds one.
  const bool get = request->method == "GET" || request->method == "HEAD";
  if (!get && !(request->method == "POST" && is_certificate_path(path)))
    return reply(to_response(method_not_allowed("GET")));

  const auto agent_document = [&](const char* type, std::string body) {
    registration_.document(request, reply, {Role::agent, Role::node}, ok(type, std::move(body)));
  };
  // Open to everyone.
  if (path == "/cacerts") {
    probes_.cacerts_asked(request->source);
    return reply(ok(kText, issuer_.server_ca_pem()));
  }
  if (path == "/ping") return reply(ok(kPlainText, "pong"));
  // For agents.
  if (path == "/v1-k3s/config") return agent_document(kJson, config_.document());
  if (path == "/v1-k3s/client-ca.crt") return agent_document(kText, issuer_.client_ca_pem());
  if (path == "/v1-k3s/server-ca.crt") return agent_document(kText, issuer_.server_ca_pem());
  if (path == "/v1-k3s/readyz") return agent_document(kPlainText, "ok");
  if (path == "/v1-k3s/apiservers") return agent_document(kJson, config_.apiservers());
  if (path == "/v1-k3s/serving-kubelet.crt")
    return registration_.kubelet_certificate(request, reply, Purpose::serving_kubelet);
  if (path == "/v1-k3s/client-kubelet.crt")
    return registration_.kubelet_certificate(request, reply, Purpose::client_kubelet);
  if (path == "/v1-k3s/client-kube-proxy.crt")
    return registration_.shared_certificate(request, reply, Purpose::client_kube_proxy);
  if (path == "/v1-k3s/client-k3s-controller.crt")
    return registration_.shared_certificate(request, reply, Purpose::client_k3s_controller);
  if (path == "/v1-k3s/connect") return registration_.connect(request, reply);
  // What k3s v1.17 and v1.18 agents ask of the kube-apiserver before they open their tunnel.
  if (path == "/apis")
    return registration_.document(request, reply, {Role::agent, Role::server, Role::node, Role::controller},
                                  ok(kJson, config_.api_groups()));
  if (path.starts_with("/api/v1/")) return endpoints(std::move(request), std::move(reply));
  reply(to_response(not_found(path)));
}

void Service::endpoints(RequestPtr request, Reply reply) {
  constexpr std::string_view kList = "/namespaces/default/endpoints";
  std::string_view path = request->path;
  path.remove_prefix(std::string_view("/api/v1").size());
  bool watch = query_parameter(*request, "watch") == "true" || query_parameter(*request, "watch") == "1";
  if (path.starts_with("/watch/")) {
    path.remove_prefix(std::string_view("/watch").size());
    watch = true;
  }
  const bool one = path == std::string(kList) + "/kubernetes";
  if (!one && path != kList) return reply(to_response(not_found(request->path)));
  Response response = ok(kJson, one ? config_.endpoints() : config_.endpoints_list());
  if (watch) {
    int seconds = kMaxWatch_s;
    const std::string asked = query_parameter(*request, "timeoutSeconds");
    std::from_chars(asked.data(), asked.data() + asked.size(), seconds);
    response.body = config_.endpoints_watch_event();
    response.stream_seconds = std::clamp(seconds, 1, kMaxWatch_s);
  }
  registration_.document(std::move(request), std::move(reply), {Role::controller, Role::node, Role::agent},
                         std::move(response));
}

void Service::bad_request(const std::string& source, int status, const std::string& request_id) {
  Record record;
  record.event = RequestRejected{.status = status, .reason = std::string(reason_name(HeaderResult::bad_request))};
  record.request_id = request_id;
  record.source = source;
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  ledger_.append(std::move(proposal), [](const Result<Committed>&) {});
}

}  // namespace ledger::api
