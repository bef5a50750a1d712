#include "api/agent.h"

#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <random>
#include <thread>

#include "api/agent_checks.h"
#include "api/agent_files.h"
#include "api/agent_keys.h"
#include "api/agent_profile.h"
#include "api/agent_relay.h"
#include "api/websocket_client.h"
#include "ledger/credentials.h"

namespace ledger::api {

namespace {

using Clock = std::chrono::steady_clock;
using Level = AgentLine::Level;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : printable(text, 4096)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::filesystem::path directory_of(const AgentOptions& options) {
  if (!options.agent_directory.empty() || !options.node_password.empty()) return options.agent_directory;
  return options.password_file.parent_path() / "agent";
}

// ---- One run ---------------------------------------------------------------------------------------------

class Run {
 public:
  explicit Run(const AgentOptions& options)
      : options_(options),
        profile_(profile_of(options.generation)),
        program_(program_of(options.rke2)),
        attempts_left_(options.attempts),
        files_(directory_of(options)) {}

  AgentOutcome play();

 private:
  // Preparation, which no retry mends.
  Result<void> prepare();

  // The phases. Each prints its own complaint through complain().
  Result<void> phase_trust();
  Result<void> phase_join();
  Result<void> phase_ready();
  Result<std::vector<std::string>> phase_endpoints();
  Result<void> phase_tunnel(const std::vector<std::string>& addresses);

  // Repeats a phase as long as there are attempts.
  template <class Phase>
  bool repeat(milliseconds pause, milliseconds jitter, Phase phase);

  // The three steps to the CA bundle; leaves clients that trust it in `supervisor_` and `bare_`.
  Result<void> trust_round(std::string_view phase);
  Result<void> check_hash(const std::string& bundle);
  Result<void> present_certificate();
  Result<void> check_apis(std::string_view phase, std::string_view user);
  Result<std::string> fetch_file(const std::string& name);
  Result<PemParts> fetch_pair(const std::string& name, bool with_node_headers);
  Result<PemParts> fetch_pair_anew(const std::string& name, bool with_node_headers);
  Result<HttpsRequest> pair_request(const std::string& name, bool with_node_headers);
  Result<HttpsResponse> retry_without_certificate(HttpsRequest request);
  Result<std::vector<std::string>> kube_endpoints();
  Result<WebsocketClient> dial_tunnel(const std::string& address);
  bool hold_tunnels(std::vector<WebsocketClient>& sessions, Clock::time_point until);

  HttpsOptions https_options(HttpsTrust trust) const;
  HttpsRequest agent_request(const std::string& path, std::string_view user) const;
  // Sends, and notes what came of it. `request` may be sent once more.
  Result<HttpsResponse> exchange(HttpsClient& client, std::string_view phase, HttpsRequest& request);
  // GET; an empty `user`: without credentials.
  Result<HttpsResponse> get(HttpsClient& client, std::string_view phase, const std::string& path,
                            std::string_view user = {});
  Result<HttpsResponse> get_ok(HttpsClient& client, std::string_view phase, const std::string& path,
                               std::string_view user = {});
  bool is_success(int status) const { return profile_.takes_any_2xx ? status / 100 == 2 : status == 200; }
  // What the agent says about an answer that it does not like.
  std::string complaint(const std::string& path, const HttpsResponse& response) const;
  std::string failed_send(const HttpsRequest& request) const;
  Secret authorization(std::string_view user) const;
  std::string url(const std::string& path) const { return "https://" + balancer().to_string() + path; }
  HostPort balancer() const { return {"127.0.0.1", options_.balancer_port}; }
  std::string node_ip_header() const;

  void say(Level level, std::string message, std::string field = {}, std::string value = {});
  // Says it and remembers it as the reason why the agent is not in.
  Error complain(Level level, const std::string& message, std::string field = {}, std::string value = {});
  bool stopped() const { return options_.stop != nullptr && options_.stop->load(); }
  void pause_for(milliseconds time) const;

  const AgentOptions& options_;
  const Profile& profile_;
  const Program& program_;
  int attempts_left_;
  AgentFiles files_;
  AgentOutcome outcome_;

  HostPort server_;
  AgentToken token_;
  Secret node_password_;
  std::vector<std::string> node_ips_;
  // Without and, where there is one to present, with the kubelet's client certificate.
  std::optional<HttpsClient> bare_, supervisor_;
  bool presents_ = false;
  std::string bundle_;  // empty: the server is trusted by the operating system
  ClusterDocument cluster_;
  std::string server_ca_;
  PemParts kubelet_, controller_;
};

void Run::say(Level level, std::string message, std::string field, std::string value) {
  outcome_.lines.push_back({Time::now(), level, std::move(message), std::move(field), std::move(value)});
  if (options_.log) options_.log(outcome_.lines.back());
}

Error Run::complain(Level level, const std::string& message, std::string field, std::string value) {
  outcome_.sentence = message + (value.empty() ? "" : ": " + value);
  say(level, message, std::move(field), std::move(value));
  return Error{Errc::unavailable, message};
}

void Run::pause_for(milliseconds time) const {
  const auto until = Clock::now() + time;
  while (!stopped() && Clock::now() < until)
    std::this_thread::sleep_for(std::min<Clock::duration>(milliseconds(100), until - Clock::now()));
}

template <class Phase>
bool Run::repeat(milliseconds pause, milliseconds jitter, Phase phase) {
  std::uniform_int_distribution<std::int64_t> extra(0, jitter.count());
  std::random_device random;
  for (;;) {
    const auto done = phase();
    if (done) return true;
    // attempts 0 counts down from zero and never comes to 1.
    if (attempts_left_ == 1 || stopped()) return false;
    if (attempts_left_ > 1) --attempts_left_;
    pause_for(options_.pause.count() > 0 ? options_.pause : pause + milliseconds(extra(random)));
    if (stopped()) return false;
  }
}

// ---- Requests --------------------------------------------------------------------------------------------

HttpsOptions Run::https_options(HttpsTrust trust) const {
  HttpsOptions options;
  options.connect_to = server_;
  options.authority = balancer();
  options.trust = trust;
  options.timeout = profile_.timeout;
  return options;
}

Secret Run::authorization(std::string_view user) const {
  std::string value;
  value.reserve(128 + 2 * token_.password.reveal().size());  // growing would leave copies of the secret behind
  if (token_.bootstrap) {
    value.append("Bearer ").append(token_.password.reveal());
  } else {
    std::string pair;
    pair.reserve(user.size() + 1 + token_.password.reveal().size());
    pair.append(user).append(":").append(token_.password.reveal());
    std::string encoded = base64(pair);
    value.append("Basic ").append(encoded);
    explicit_bzero(pair.data(), pair.size());
    explicit_bzero(encoded.data(), encoded.size());
  }
  Secret out(value);
  explicit_bzero(value.data(), value.size());
  return out;
}

HttpsRequest Run::agent_request(const std::string& path, std::string_view user) const {
  HttpsRequest request;
  request.target = path;
  request.headers = {{"User-Agent", "Go-http-client/1.1"}, {"Accept-Encoding", "gzip"}};
  if (!user.empty()) request.authorization = authorization(user);
  return request;
}

Result<HttpsResponse> Run::exchange(HttpsClient& client, std::string_view phase, HttpsRequest& request) {
  const auto begin = Clock::now();
  Result<HttpsResponse> response = client.send(request);

  AgentRequest entry;
  entry.phase = phase;
  entry.method = request.method;
  entry.path = request.target;
  entry.took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin);
  if (response) {
    entry.status = response->status;
    entry.request_id = response->header("Ledger-Request-Id");
    entry.seq = response->header("Ledger-Seq");
  } else {
    entry.error = response.error().message;
  }
  outcome_.requests.push_back(std::move(entry));
  if (response && response->header("Content-Encoding") == "gzip")
    return Error{Errc::invalid, "gzip: the played agent cannot read compressed answers"};
  if (response) return response;
  // Behind its load balancer the agent sees the connection end, not why.
  const bool hidden = response.error().code == Errc::unavailable;
  return Error{response.error().code,
               failed_send(request) + (hidden ? std::string("EOF") : response.error().message)};
}

// How Go begins the error of a request that got no answer.
std::string Run::failed_send(const HttpsRequest& request) const {
  const std::string verb = request.method == "POST" ? "Post " : "Get ";
  return verb + (profile_.quotes_urls ? "\"" + url(request.target) + "\"" : url(request.target)) + ": ";
}

std::string Run::complaint(const std::string& path, const HttpsResponse& response) const {
  const std::string message = profile_.reads_status ? status_message(response.body) : "";
  return message.empty() ? url(path) + ": " + response.status_line() : message;
}

Result<HttpsResponse> Run::get(HttpsClient& client, std::string_view phase, const std::string& path,
                               std::string_view user) {
  HttpsRequest request = agent_request(path, user);
  return exchange(client, phase, request);
}

Result<HttpsResponse> Run::get_ok(HttpsClient& client, std::string_view phase, const std::string& path,
                                  std::string_view user) {
  Result<HttpsResponse> response = get(client, phase, path, user);
  if (response && !is_success(response->status)) return Error{Errc::invalid, complaint(path, *response)};
  return response;
}

// ---- Trust -----------------------------------------------------------------------------------------------

Result<void> Run::trust_round(std::string_view phase) {
  const bool first = profile_.generation == Generation::G1;
  Result<HttpsClient> by_os = HttpsClient::open(https_options(HttpsTrust::os_roots));
  if (!by_os) return by_os.error();
  // Expected to fail: only a server with a publicly trusted certificate passes.
  if (get_ok(*by_os, phase, "/cacerts")) {
    bundle_.clear();
    presents_ = false;
    supervisor_ = std::move(*by_os);
    return check_hash(bundle_);
  }
  Result<HttpsClient> blind = HttpsClient::open(https_options(HttpsTrust::anyone));
  if (!blind) return blind.error();
  Result<HttpsResponse> bundle = get_ok(*blind, phase, "/cacerts");
  if (node_ips_.empty() && !blind->local_address().empty()) {
    const std::string own(host_of(blind->local_address()));
    node_ips_ = options_.node_ips.empty() ? std::vector<std::string>{own} : options_.node_ips;
  }
  if (!bundle)
    return Error{bundle.error().code,
                 (first ? "failed to get CA certs at " + url("/cacerts") : "failed to get CA certs") + ": " +
                     bundle.error().message};
  HttpsOptions pinned = https_options(HttpsTrust::bundle);
  pinned.bundle_pem = bundle->body;
  const std::string untrusted =
      first ? "server " + url("/cacerts") + " is not trusted: " : "CA cert validation failed: ";
  Result<HttpsClient> client = HttpsClient::open(std::move(pinned));
  if (!client) return Error{Errc::invalid, untrusted + client.error().message};
  if (const auto check = get_ok(*client, phase, "/cacerts"); !check)
    return Error{check.error().code, untrusted + check.error().message};
  bundle_ = std::move(bundle->body);
  bare_ = std::move(*client);
  if (const auto checked = check_hash(bundle_); !checked) return checked.error();
  return present_certificate();
}

// From here on every request shows the certificate of an earlier start, if there is a pair that loads.
Result<void> Run::present_certificate() {
  HttpsOptions options = https_options(HttpsTrust::bundle);
  options.bundle_pem = bundle_;
  presents_ = false;
  if (profile_.presents_certificate) {
    const Result<Secret> certificate = files_.get("client-kubelet.crt");
    Result<Secret> key = files_.get("client-kubelet.key");
    if (certificate && key && check_key_pair(certificate->reveal(), *key)) {
      options.cert_pem = certificate->reveal();
      options.key_pem = std::move(*key);
      presents_ = true;
    }
  }
  Result<HttpsClient> client = HttpsClient::open(std::move(options));
  if (!client) return client.error();
  supervisor_ = std::move(*client);
  return {};
}

Result<void> Run::check_hash(const std::string& bundle) {
  const bool pinned = !token_.ca_hash.empty();
  const Generation generation = profile_.generation;
  if (generation >= Generation::G4 && pinned && bundle.empty())
    say(Level::warning,
        "Cluster CA certificate is trusted by the host CA bundle. Token CA hash will not be validated.");
  if (generation >= Generation::G4 && !pinned && !bundle.empty())
    say(Level::warning,
        "Cluster CA certificate is not trusted by the host CA bundle, but the token does not include a CA hash. "
        "Use "
        "the full token from the server's node-token file to enable Cluster CA validation.");
  const bool compares = !bundle.empty() || generation == Generation::G2 || generation == Generation::G3;
  const std::string hash = generation >= Generation::G6 ? bundle_hash(bundle) : sha256_hex(bundle);
  if (!pinned || !compares || hash == token_.ca_hash) return {};
  const char* text = generation == Generation::G1 ? "token does not match the server "
                     : generation < Generation::G4
                         ? "token CA hash does not match the server CA hash: "
                         : "token CA hash does not match the Cluster CA certificate hash: ";
  return Error{Errc::invalid, text + token_.ca_hash + " != " + hash};
}

Result<void> Run::check_apis(std::string_view phase, std::string_view user) {
  const Result<HttpsResponse> answer = get_ok(*supervisor_, phase, "/apis", user);
  if (!answer) return Error{answer.error().code, "token is not valid: " + answer.error().message};
  return {};
}

Result<void> Run::phase_trust() {
  Result<void> done = trust_round("trust");
  // The only place where the user of the token is used.
  if (done && profile_.asks_apis) done = check_apis("trust", token_.user.empty() ? "node" : token_.user);
  if (done) return {};
  const std::string where =
      profile_.names_server ? "Failed to validate connection to cluster at " + options_.server + ": " : "";
  return complain(Level::error, where + done.error().message);
}

// ---- Join ------------------------------------------------------------------------------------------------

std::string Run::node_ip_header() const {
  std::string out;
  for (const std::string& ip : node_ips_) {
    if (!out.empty() && !profile_.sends_ip_list) break;
    out += (out.empty() ? "" : ",") + ip;
  }
  return out;
}

Result<HttpsRequest> Run::pair_request(const std::string& name, bool with_node_headers) {
  HttpsRequest request = agent_request(program_.path("/" + name + ".crt"), "node");
  if (profile_.sends_csr) {
    Result<Secret> key = files_.get(name + ".key");
    if (!key && key.error().code != Errc::not_found) return key.error();
    if (!key) {
      key = fresh_key_pem();
      if (const auto kept = files_.put(name + ".key", key->reveal()); !kept) return kept.error();
    }
    Result<std::string> csr = make_csr(*key);
    if (!csr) return csr.error();
    request.method = "POST";
    request.body = std::move(*csr);
  }
  if (!with_node_headers) return request;
  request.headers.emplace_back(program_.header("Node-Name"), outcome_.node);
  request.headers.emplace_back(program_.header("Node-Password"), node_password_.reveal());
  if (profile_.sends_ip) request.headers.emplace_back(program_.header("Node-Ip"), node_ip_header());
  return request;
}

// The certificate may be of a node that the server does not know any more. Agents of G7 send the same request
// object again, whose body the first time has consumed: it fails before it leaves the machine.
Result<HttpsResponse> Run::retry_without_certificate(HttpsRequest request) {
  say(Level::info, "Node authorization rejected, retrying without client certificate authentication");
  if (profile_.sends_csr)
    return Error{Errc::io, failed_send(request) + "http: ContentLength=" + std::to_string(request.body.size()) +
                               " with Body length 0"};
  return exchange(*bare_, "join", request);
}

Result<PemParts> Run::fetch_pair_anew(const std::string& name, bool with_node_headers) {
  Result<HttpsRequest> request = pair_request(name, with_node_headers);
  if (!request) return request.error();
  Result<HttpsResponse> response = exchange(*supervisor_, "join", *request);
  if (response && response->status == 401 && with_node_headers && presents_)
    response = retry_without_certificate(std::move(*request));
  for (auto& [header, value] : request->headers)
    if (header.ends_with("-Node-Password")) explicit_bzero(value.data(), value.size());
  if (!response) return response.error();
  if (with_node_headers && response->status == 403)
    return Error{Errc::invalid,
                 "Node password rejected, duplicate hostname or contents of '" + options_.password_file.string() +
                     "' may not match server node-passwd entry, try enabling a unique node name with "
                     "the --with-node-id flag"};
  const std::string path = program_.path("/" + name + ".crt");
  // These two never show a Status, and want exactly 200.
  if (with_node_headers && response->status != 200)
    return Error{Errc::invalid, url(path) + ": " + response->status_line()};
  if (!is_success(response->status)) return Error{Errc::invalid, complaint(path, *response)};
  PemParts parts = split_pem(response->body);
  explicit_bzero(response->body.data(), response->body.size());
  return parts;
}

// Fetches, and keeps what came; a key in the answer takes the place of the agent's own.
Result<PemParts> Run::fetch_pair(const std::string& name, bool with_node_headers) {
  const auto fetch = [&]() -> Result<PemParts> {
    Result<PemParts> parts = fetch_pair_anew(name, with_node_headers);
    if (!parts) return parts;
    const bool own_key = profile_.sends_csr && parts->key.empty();
    if (own_key) {
      Result<Secret> key = files_.get(name + ".key");
      if (!key) return key.error();
      parts->key = std::move(*key);
    }
    if (const auto matching = check_key_pair(parts->certificates, parts->key); !matching) return matching.error();
    if (const auto kept = files_.put(name + ".crt", parts->certificates); !kept) return kept.error();
    if (own_key) return parts;
    if (const auto kept = files_.put(name + ".key", parts->key.reveal()); !kept) return kept.error();
    return parts;
  };
  Result<PemParts> parts = fetch();
  if (!parts && profile_.names_file)
    return Error{parts.error().code, files_.path_of(name + ".crt") + ": " + parts.error().message};
  return parts;
}

// client-ca.crt, server-ca.crt: kept as they come.
Result<std::string> Run::fetch_file(const std::string& name) {
  const Result<HttpsResponse> answer = get_ok(*supervisor_, "join", program_.path("/" + name), "node");
  if (!answer) return answer.error();
  if (const auto kept = files_.put(name, answer->body); !kept) return kept.error();
  return answer->body;
}

Result<void> Run::phase_join() {
  const auto join = [this]() -> Result<void> {
    if (const auto trusted = trust_round("join"); !trusted) return trusted.error();
    if (profile_.asks_apis)
      if (const auto known = check_apis("join", "node"); !known) return known.error();
    const Result<HttpsResponse> config = get_ok(*supervisor_, "join", program_.path("/config"), "node");
    if (!config) return Error{config.error().code, profile_.config_prefix + config.error().message};
    const auto document = read_cluster_document(config->body, profile_.generation, node_ips_);
    if (!document) return document.error();
    cluster_ = *document;
    if (const auto client_ca = fetch_file("client-ca.crt"); !client_ca) return client_ca.error();
    Result<std::string> server_ca = fetch_file("server-ca.crt");
    if (!server_ca) return server_ca.error();
    server_ca_ = std::move(*server_ca);
    if (const auto serving = fetch_pair("serving-kubelet", true); !serving) return serving.error();
    Result<PemParts> kubelet = fetch_pair("client-kubelet", true);
    if (!kubelet) return kubelet.error();
    kubelet_ = std::move(*kubelet);
    if (const auto proxy = fetch_pair("client-kube-proxy", false); !proxy) return proxy.error();
    Result<PemParts> controller = fetch_pair("client-" + std::string(program_.name) + "-controller", false);
    if (!controller) return controller.error();
    controller_ = std::move(*controller);
    return {};
  };
  const Result<void> done = join();
  if (!done) return complain(profile_.join_level, profile_.join_prefix + done.error().message);
  return {};
}

// ---- Ready -----------------------------------------------------------------------------------------------

Result<void> Run::phase_ready() {
  const auto ready = [this]() -> Result<void> {
    if (const auto trusted = trust_round("ready"); !trusted) return trusted.error();
    const Result<HttpsResponse> readyz = get(*supervisor_, "ready", program_.path("/readyz"), "node");
    // Anything else is taken for a server too old to have it.
    if (readyz && readyz->status == 500)
      return Error{Errc::unavailable, complaint(program_.path("/readyz"), *readyz)};
    const Result<HttpsResponse> config = get_ok(*supervisor_, "ready", program_.path("/config"), "node");
    if (!config) return Error{config.error().code, profile_.config_prefix + config.error().message};
    return {};
  };
  const Result<void> done = ready();
  if (!done)
    return complain(Level::info,
                    "Waiting to retrieve kube-proxy configuration; server is not ready: " + done.error().message);
  return {};
}

// ---- Endpoints -------------------------------------------------------------------------------------------

Result<std::vector<std::string>> Run::kube_endpoints() {
  const bool split = profile_.generation >= Generation::G2 && cluster_.https_port != cluster_.supervisor_port &&
                     cluster_.https_port > 0 && cluster_.https_port < 65536;
  HttpsOptions options = https_options(HttpsTrust::bundle);
  if (split) {
    // A second load balancer, one port below, leads to the API server's port.
    options.connect_to.port = static_cast<std::uint16_t>(cluster_.https_port);
    options.authority.port = static_cast<std::uint16_t>(options_.balancer_port - 1);
  }
  options.bundle_pem = server_ca_;
  options.cert_pem = controller_.certificates;
  options.key_pem = controller_.key.clone();
  Result<HttpsClient> client = HttpsClient::open(std::move(options));
  if (!client) return client.error();
  const Result<HttpsResponse> answer =
      get_ok(*client, "endpoints", "/api/v1/namespaces/default/endpoints/kubernetes");
  if (!answer) return answer.error();
  return read_endpoints(answer->body);
}

// The addresses to open tunnels to. With G1 there may be none, which keeps nobody out.
Result<std::vector<std::string>> Run::phase_endpoints() {
  if (profile_.asks_apiservers) {
    const Result<void> trusted = trust_round("endpoints");
    if (!trusted)
      return complain(Level::warning,
                      "Failed to retrieve list of apiservers from server: " + trusted.error().message);
    const Result<HttpsResponse> answer = get_ok(*supervisor_, "endpoints", program_.path("/apiservers"), "node");
    auto list = answer ? read_apiservers(answer->body) : Result<std::vector<std::string>>(answer.error());
    if (list && list->empty()) return complain(Level::info, "Waiting for apiserver addresses");
    if (list) {
      if (cluster_.https_port == cluster_.supervisor_port) return list;
      for (std::string& address : *list)
        if (auto parsed = HostPort::parse(address, server_.port))
          address = HostPort{parsed->host, server_.port}.to_string();
      return list;
    }
    say(Level::warning, "Failed to retrieve list of apiservers from server: " + list.error().message);
  }
  const auto list = kube_endpoints();
  if (list && !list->empty()) return list;
  if (profile_.falls_back_to_url) return std::vector<std::string>{server_.to_string()};
  return std::vector<std::string>{};
}

// ---- Tunnel ----------------------------------------------------------------------------------------------

Result<WebsocketClient> Run::dial_tunnel(const std::string& address) {
  const Result<HostPort> to = HostPort::parse(address, 443);
  if (!to) return to.error();
  const std::string tunnel_url = "wss://" + to->to_string() + program_.path("/connect");
  say(Level::info, "Connecting to proxy", "url", tunnel_url);
  WebsocketClient::Options options;
  options.https.connect_to = *to;  // not through the load balancer
  options.https.trust = HttpsTrust::bundle;
  options.https.bundle_pem = server_ca_;
  options.https.cert_pem = kubelet_.certificates;
  options.https.key_pem = kubelet_.key.clone();
  options.https.timeout = profile_.timeout;
  options.target = program_.path("/connect");
  options.ping_every = options_.ping_every;
  options.silence_limit = profile_.silence_limit;
  HttpsResponse answer;
  const auto begin = Clock::now();
  Result<WebsocketClient> session = WebsocketClient::connect(std::move(options), &answer);
  AgentRequest entry{"tunnel",
                     "GET",
                     program_.path("/connect"),
                     answer.status,
                     session ? "" : session.error().message,
                     std::string(answer.header("Ledger-Request-Id")),
                     std::string(answer.header("Ledger-Seq")),
                     std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin)};
  outcome_.requests.push_back(std::move(entry));
  if (session) {
    outcome_.tunnels.push_back(tunnel_url);
    if (profile_.words_of_v130) say(Level::info, "Remotedialer connected to proxy", "url", tunnel_url);
    return session;
  }
  if (profile_.generation < Generation::G5)
    return complain(Level::error, "Failed to connect to proxy", "error", session.error().message);
  if (answer.status == 0)
    return complain(Level::error, "Failed to connect to proxy. Empty dialer response", "error",
                    session.error().message);
  return complain(Level::error,
                  "Failed to connect to proxy. Response status: " + std::to_string(answer.status) + " - " +
                      answer.status_line() + ". Response body: " + printable(trim(answer.body), 500),
                  "error", session.error().message);
}

// False when a session ended before its time.
bool Run::hold_tunnels(std::vector<WebsocketClient>& sessions, Clock::time_point until) {
  // A socket of the kubelet's wakes nobody: while there is one, the wait for the server is short.
  constexpr milliseconds kIdleSlice(100), kBusySlice(5);
  std::vector<AgentRelay> relays;
  for (std::size_t i = 0; i < sessions.size(); ++i) relays.emplace_back(options_.kubelet_port, profile_.sync_every);
  while (!stopped() && Clock::now() < until) {
    for (std::size_t i = 0; i < sessions.size(); ++i) {
      const auto left = std::chrono::ceil<milliseconds>(until - Clock::now());
      auto message = sessions[i].receive(std::clamp(left, milliseconds(0), relays[i].busy() ? kBusySlice : kIdleSlice));
      Result<void> fine = message ? Result<void>() : Result<void>(message.error());
      if (message && *message) fine = relays[i].take(sessions[i], **message);
      if (fine) fine = relays[i].carry(sessions[i]);
      if (fine) continue;
      complain(Level::error, profile_.words_of_v130 ? "Remotedialer proxy error; reconnecting..." : "Remotedialer proxy error",
               "error", fine.error().message);
      return false;
    }
  }
  return true;
}

Result<void> Run::phase_tunnel(const std::vector<std::string>& addresses) {
  std::vector<WebsocketClient> sessions;
  for (const std::string& address : addresses) {
    Result<WebsocketClient> session = dial_tunnel(address);
    if (!session) return session.error();
    sessions.push_back(std::move(*session));
  }
  outcome_.verdict = AgentOutcome::Verdict::joined;
  const bool limited = options_.tunnel_for.count() > 0;
  const bool held = sessions.empty() ||
                    hold_tunnels(sessions, limited ? Clock::now() + options_.tunnel_for : Clock::time_point::max());
  for (WebsocketClient& session : sessions) {
    session.close();
    outcome_.pongs += session.pongs();
  }
  if (!held) return Error{Errc::unavailable, outcome_.sentence};
  return {};
}

// ---- The whole -------------------------------------------------------------------------------------------

Result<void> Run::prepare() {
  const auto parsed = boost::urls::parse_uri(options_.server);
  if (!parsed || parsed->host().empty())
    return Error{Errc::invalid, "Invalid server url, failed to parse: " + printable(options_.server, 200)};
  if (parsed->scheme() != "https")
    return Error{Errc::invalid,
                 "only https:// URLs are supported, invalid scheme: " + printable(options_.server, 200)};
  server_ = {std::string(parsed->host_address()), parsed->has_port() ? parsed->port_number() : program_.default_port};
  if (options_.rke2 && profile_.generation == Generation::G1)
    return Error{Errc::invalid, "there is no RKE2 agent of generation G1: RKE2 began with G2"};
  Result<AgentToken> token = parse_agent_token(options_.token, profile_.generation);
  if (!token) return token.error();
  token_ = std::move(*token);
  outcome_.node = to_lower(options_.node_name);
  if (options_.with_node_id) {
    const Result<Secret> id = ensure_random_file(options_.password_file.parent_path() / "id", 4, 0644);
    if (!id) return id.error();
    outcome_.node += "-" + std::string(id->reveal());
  }
  if (!options_.node_password.empty()) {
    node_password_ = options_.node_password.clone();
    return {};
  }
  Result<Secret> password = ensure_random_file(options_.password_file, 16, 0600);
  if (!password) return password.error();
  node_password_ = std::move(*password);
  return {};
}

AgentOutcome Run::play() {
  node_ips_ = options_.node_ips;
  say(Level::info,
      std::string("Starting ") + program_.name + " agent " + profile_.version + program_.build +
          " (played by ledger " LEDGER_VERSION ")");
  const auto whole = [this] {
    if (const Result<void> ready = prepare(); !ready) {
      complain(Level::error, ready.error().message);
      return false;
    }
    constexpr milliseconds kTrustPause(2'000), kPause(5'000), kNone(0);
    if (!repeat(kTrustPause, kNone, [this] { return phase_trust(); })) return false;
    const milliseconds jitter = profile_.jitters_join ? kPause : kNone;
    if (!repeat(kPause, jitter, [this] { return phase_join(); })) return false;
    if (profile_.asks_readyz && !repeat(kPause, kNone, [this] { return phase_ready(); })) return false;
    std::vector<std::string> addresses;
    const auto find_addresses = [&] {
      auto found = phase_endpoints();
      if (found) addresses = *found;
      return found;
    };
    if (!repeat(kPause, kNone, find_addresses)) return false;
    // Where peers are found; an agent comes up without.
    if (cluster_.embedded_registry) (void)get(*supervisor_, "endpoints", program_.path("/p2p"), "node");
    if (options_.tunnel) return repeat(profile_.tunnel_pause, kNone, [&] { return phase_tunnel(addresses); });
    return true;
  };
  const bool in = whole();
  const AgentRequest* last = outcome_.requests.empty() ? nullptr : &outcome_.requests.back();
  if (in) {
    outcome_.verdict = AgentOutcome::Verdict::joined;
    outcome_.sentence.clear();
  } else if (outcome_.verdict != AgentOutcome::Verdict::joined && last != nullptr) {
    outcome_.cause = last->error;
    if (last->status >= 400 && last->status < 500) outcome_.verdict = AgentOutcome::Verdict::refused;
  }
  return std::move(outcome_);
}

}  // namespace

std::string AgentLine::to_string() const {
  const char* name = level == Level::info ? "info" : level == Level::warning ? "warning" : "error";
  std::string out = "time=" + quote(time.to_string()) + " level=" + name + " msg=" + quote(message);
  if (!field.empty()) out += " " + field + "=" + quote(value);
  return out;
}

AgentOutcome run_agent(const AgentOptions& options) { return Run(options).play(); }

}  // namespace ledger::api
