#include "api/service.h"

#include <algorithm>
#include <boost/url/parse_query.hpp>
#include <charconv>
#include <optional>

#include "api/http_date.h"
#include "api/node_headers.h"
#include "api/problem.h"
#include "api/tree_files.h"

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

// "config" of "/v1-k3s/config"; empty: not a path of this program's supervisor.
std::string_view endpoint_of(std::string_view path, const Program& program) {
  return path.starts_with(program.path_prefix) ? path.substr(program.path_prefix.size()) : std::string_view();
}

// The request as its sender's, where trusted HTTP proxies passed it on.
RequestPtr with_forwarded_source(RequestPtr request, const TrustedProxies& proxies) {
  std::string forwarded_for;
  for (const auto& [name, value] : request->headers)
    if (name == "x-forwarded-for") forwarded_for += (forwarded_for.empty() ? "" : ",") + value;
  std::string source = forwarded_source(request->source, forwarded_for, proxies);
  if (source == request->source) return request;
  auto forwarded = std::make_shared<Request>(*request);
  forwarded->via = request->source;
  forwarded->source = std::move(source);
  return forwarded;
}

}  // namespace

Service::Service(Ledger& ledger, const Credentials& credentials, const Issuer& issuer, const AgentConfig& config,
                 HashChecker* hashes, TrustedProxies proxies)
    : ledger_(ledger),
      credentials_(credentials),
      issuer_(issuer),
      config_(config),
      proxies_(std::move(proxies)),
      probes_(ledger),
      tunnels_(ledger),
      registration_(ledger, credentials, issuer, tunnels_, generations_, hashes),
      admin_(ledger, credentials, tunnels_, issuer, hashes) {}

// ---- with an upstream --------------------------------------------------------------------------------------

void Service::stand_in_front(Upstreams& upstreams, const ClusterConfig& cluster, Mode mode) {
  upstreams_ = &upstreams;
  cluster_ = &cluster;
  modes_ = std::make_unique<ModeSwitch>(mode);
  observation_ = std::make_unique<Observation>(ledger_, credentials_, issuer_, upstreams, tunnels_, generations_, probes_);
  admin_.stand_in_front(modes_.get(), &upstreams, &cluster);
}

namespace {

// What agents ask of a supervisor while they join.
constexpr std::string_view kAgentEndpoints[] = {"config", "client-ca.crt", "server-ca.crt", "readyz",
                                                "apiservers", "connect", "p2p"};

bool has_basic_credentials(const Request& request) {
  return to_lower(request.header("authorization").substr(0, 6)) == "basic ";
}

// The supervisor's among the paths of a port that has both APIs.
Plane plane_of(std::string_view path, Door door) {
  if (door == Door::supervisor) return Plane::supervisor;
  if (door == Door::kubernetes) return Plane::kubernetes;
  for (const std::string_view prefix : {"/v1-", "/db/", "/v2/", "/static/"})
    if (path.starts_with(prefix)) return Plane::supervisor;
  return Plane::kubernetes;
}

}  // namespace

bool Service::is_registration(const Request& request, Door door) const {
  if (door == Door::kubernetes) return false;
  if (request.path == "/cacerts" || request.path == "/ping") return true;
  // What the oldest agents begin with. No kube-apiserver since v1.19 takes Basic credentials from anybody.
  if (request.path == "/apis") return has_basic_credentials(request);
  const std::string_view endpoint = endpoint_of(request.path, issuer_.program());
  return purpose_of(endpoint, issuer_.program()).has_value() ||
         std::find(std::begin(kAgentEndpoints), std::end(kAgentEndpoints), endpoint) != std::end(kAgentEndpoints);
}

std::shared_ptr<Passage> Service::route(const RequestPtr& head, Door door) {
  if (upstreams_ == nullptr || head->path.starts_with("/ledger/")) return nullptr;
  const Mode mode = modes_->mode();
  if (is_registration(*head, door)) {
    const bool is_tunnel = endpoint_of(head->path, issuer_.program()) == "connect";
    return is_tunnel ? observation_->tunnel(head, mode == Mode::enforce) : nullptr;
  }
  auto passage = std::make_shared<Passage>();
  passage->plane = plane_of(head->path, door);
  passage->as = identity_for(*head, issuer_, passage->plane);
  passage->drop_on_failure = mode == Mode::observe;
  // A kube-apiserver takes a certificate that it does not know for an error, not for nobody.
  const bool is_refused = passage->plane == Plane::kubernetes && !head->certificate.empty() &&
                          passage->as.user.empty() && head->header_count("authorization") == 0;
  return is_refused ? nullptr : passage;
}

void Service::register_agent(RequestPtr request, Reply answer, Door door) {
  const bool entered = modes_->enter([this, request, answer, door](Mode mode, ModeSwitch::Ticket ticket) {
    Reply reply = [ticket = std::move(ticket), answer](Response response) { answer(std::move(response)); };
    if (mode == Mode::observe) return observation_->observe(request, std::move(reply));
    decide(request, std::move(reply), door);
  });
  if (!entered) answer(to_response({429, "the mode is being changed, and too many wait for it", 1}));
}

void Service::handle(RequestPtr request, Reply answer, Door door) {
  if (upstreams_ == nullptr || request->path.starts_with("/ledger/")) return decide(std::move(request), std::move(answer), door);
  if (is_registration(*request, door)) return register_agent(std::move(request), std::move(answer), door);
  answer(to_response({401, "the client certificate is not one that this cluster's client CA signed, or has expired"}));
}

// ---- which path is whose -----------------------------------------------------------------------------------

void Service::decide(RequestPtr request, Reply answer, Door door) {
  // Every answer says which request it belongs to, whether or not there is a record.
  Reply reply = [id = request->id, answer = std::move(answer)](Response response) {
    response.headers.emplace_back("Ledger-Request-Id", id);
    response.headers.emplace_back("Date", http_date(Time::now()));  // by which a machine checks its own clock
    answer(std::move(response));
  };
  const std::string& path = request->path;
  const bool supervisor = door != Door::kubernetes;
  if (supervisor && path == "/ledger/v1/check-node")
    return registration_.check_node(std::move(request), std::move(reply));
  if (supervisor && is_tree_file(path)) {
    if (request->method != "GET" && request->method != "HEAD") return reply(to_response(method_not_allowed("GET")));
    return reply(tree_file(ledger_.log(), latest_checkpoint_ ? latest_checkpoint_() : "", path));
  }
  if (supervisor && path.starts_with("/ledger/v1/"))
    return admin_.handle(with_forwarded_source(std::move(request), proxies_), std::move(reply));

  const std::string_view endpoint = supervisor ? endpoint_of(path, issuer_.program()) : std::string_view();
  const bool get = request->method == "GET" || request->method == "HEAD";
  // Agents from v1.32.1 on POST a certificate request.
  if (!get && !(request->method == "POST" && purpose_of(endpoint, issuer_.program())))
    return reply(to_response(method_not_allowed("GET")));
  if (!endpoint.empty()) return supervise(endpoint, request, reply);
  // Open to everyone.
  if (supervisor && path == "/cacerts") {
    probes_.cacerts_asked(request->source);
    return reply(ok(kText, issuer_.server_ca_pem()));
  }
  if (supervisor && path == "/ping") return reply(ok(kPlainText, "pong"));
  // What k3s v1.17 and v1.18 agents ask of the kube-apiserver before they open their tunnel.
  const bool kubernetes = door != Door::supervisor;
  if (kubernetes && path == "/apis")
    return registration_.document(request, reply, {Role::agent, Role::server, Role::node, Role::controller},
                                  ok(kJson, config_.api_groups()));
  if (kubernetes && path.starts_with("/api/v1/")) return endpoints(std::move(request), std::move(reply));
  reply(to_response(not_found(path, issuer_.program())));
}

void Service::supervise(std::string_view endpoint, const RequestPtr& request, const Reply& reply) {
  const auto agent_document = [&](const char* type, std::string body) {
    registration_.document(request, reply, {Role::agent, Role::node}, ok(type, std::move(body)));
  };
  if (const std::optional<Purpose> purpose = purpose_of(endpoint, issuer_.program())) {
    const bool of_kubelet = *purpose == Purpose::serving_kubelet || *purpose == Purpose::client_kubelet;
    return of_kubelet ? registration_.kubelet_certificate(request, reply, *purpose)
                      : registration_.shared_certificate(request, reply, *purpose);
  }
  if (endpoint == "config") {
    const auto clusters_own = cluster_ != nullptr ? cluster_->document() : nullptr;
    return agent_document(kJson, clusters_own != nullptr ? *clusters_own : config_.document());
  }
  if (endpoint == "client-ca.crt") return agent_document(kText, issuer_.client_ca_pem());
  if (endpoint == "server-ca.crt") return agent_document(kText, issuer_.server_ca_pem());
  if (endpoint == "readyz") return agent_document(kPlainText, "ok");
  if (endpoint == "apiservers") return agent_document(kJson, config_.apiservers());
  if (endpoint == "connect") return registration_.connect(request, reply);
  if (endpoint == "p2p")
    return registration_.document(request, reply, {Role::agent, Role::node, Role::controller},
                                  to_response(no_peers()));
  reply(to_response(not_found(request->path, issuer_.program())));
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
  if (!one && path != kList) return reply(to_response(not_found(request->path, issuer_.program())));
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

void Service::bad_request(const Peer& peer, int status, const std::string& request_id) {
  Record record;
  record.event = RequestRejected{.status = status, .reason = std::string(reason_name(HeaderResult::bad_request))};
  record.request_id = request_id;
  record.source = peer.source;
  record.via = peer.via;
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  ledger_.append(std::move(proposal), [](const Result<Committed>&) {});
}

}  // namespace ledger::api
