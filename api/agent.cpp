#include "api/agent.h"

#include <sys/stat.h>

#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <thread>

#include "api/agent_checks.h"
#include "api/tunnel_frame.h"
#include "api/websocket_client.h"
#include "ledger/credentials.h"

namespace ledger::api {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;
using Level = AgentLine::Level;
using std::chrono::milliseconds;
using std::chrono::seconds;

// ---- Generations -----------------------------------------------------------------------------------------

// What differs between generations, besides words.
struct Profile {
  Generation generation;
  const char* name;
  const char* version;  // the release whose texts are used
  bool quotes_urls;     // Go 1.14 and later: Get "https://...": EOF
  bool asks_apis;       // checks its token with GET /apis
  bool sends_ip;        // K3s-Node-Ip
  bool sends_ip_list;
  bool asks_readyz;
  bool asks_apiservers;
  bool falls_back_to_url;  // tunnel to the configured server when no endpoint is known
  seconds timeout;
  seconds silence_limit;  // of the tunnel
  Level join_level;
  const char* join_prefix;
  const char* config_prefix;
};

constexpr Profile kProfiles[] = {
    {Generation::G1, "G1", "v1.17.2+k3s1", false, true, false, false, false, false, false, seconds(60), seconds(10),
     Level::error, "", ""},
    {Generation::G2, "G2", "v1.19.8+k3s1", true, false, true, false, false, false, true, seconds(20), seconds(10),
     Level::error, "Failed to retrieve agent config: ", ""},
    {Generation::G3, "G3", "v1.20.2+k3s1", true, false, true, false, false, false, true, seconds(20), seconds(10),
     Level::error, "Failed to retrieve agent config: ", ""},
    {Generation::G4, "G4", "v1.22.8+k3s1", true, false, true, true, true, false, true, seconds(10), seconds(10),
     Level::info, "Waiting to retrieve agent configuration; server is not ready: ",
     "failed to retrieve configuration from server: "},
    {Generation::G5, "G5", "v1.25.6+k3s1", true, false, true, true, true, true, true, seconds(10), seconds(60),
     Level::info, "Waiting to retrieve agent configuration; server is not ready: ",
     "failed to retrieve configuration from server: "},
};

const Profile& profile_of(Generation generation) {
  for (const Profile& profile : kProfiles)
    if (profile.generation == generation) return profile;
  fatal("a Generation without a profile");
}

// ---- Files -----------------------------------------------------------------------------------------------

// 0755 whatever the umask, as the agent makes /etc/rancher/node.
Result<void> make_directories(const fs::path& directory) {
  std::error_code error;
  if (directory.empty() || fs::exists(directory, error)) return {};
  if (const Result<void> parent = make_directories(directory.parent_path()); !parent) return parent.error();
  if (::mkdir(directory.c_str(), 0755) != 0 || ::chmod(directory.c_str(), 0755) != 0)
    return Error{Errc::io, "failed to create " + directory.string()};
  return {};
}

// The trimmed content of a file of random hex digits, which is written when there is none yet. A file that is
// there but empty stays as it is: the agent does not mend it either.
Result<Secret> ensure_random_file(const fs::path& path, std::size_t random_size, unsigned mode) {
  Result<std::string> text = read_file(path, 4096);
  if (text) {
    Secret found(trim(*text));
    explicit_bzero(text->data(), text->size());
    return found;
  }
  if (text.error().code != Errc::not_found) return text.error();
  if (const Result<void> made = make_directories(path.parent_path()); !made) return made.error();
  const Secret fresh(random_hex(random_size));
  if (const Result<void> written = write_file(path, std::string(fresh.reveal()) + "\n", mode); !written)
    return written.error();
  return fresh.clone();
}

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : printable(text, 4096)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

// ---- One run ---------------------------------------------------------------------------------------------

class Run {
 public:
  explicit Run(const AgentOptions& options)
      : options_(options), profile_(profile_of(options.generation)), attempts_left_(options.attempts) {}

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
  bool repeat(seconds pause, Phase phase);

  // The three steps to the CA bundle; leaves a client that trusts it in `supervisor_`.
  Result<void> trust_round(std::string_view phase);
  Result<void> check_hash(const std::string& bundle);
  Result<void> check_apis(std::string_view phase, std::string_view user);
  Result<std::string> fetch_pem(const std::string& path);
  Result<PemParts> fetch_pair(const std::string& name, bool with_node_headers);
  Result<std::vector<std::string>> kube_endpoints();
  Result<WebsocketClient> dial_tunnel(const std::string& address);
  bool hold_tunnels(std::vector<WebsocketClient>& sessions, Clock::time_point until);

  HttpsOptions https_options(HttpsTrust trust) const;
  Result<HttpsResponse> get(HttpsClient& client, std::string_view phase, const std::string& path,
                            std::string_view user = {},
                            std::vector<std::pair<std::string, std::string>> headers = {});
  Result<HttpsResponse> get_ok(HttpsClient& client, std::string_view phase, const std::string& path,
                               std::string_view user = {});
  Secret basic(std::string_view user) const;
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
  int attempts_left_;
  AgentOutcome outcome_;

  HostPort server_;
  AgentToken token_;
  Secret node_password_;
  std::vector<std::string> node_ips_;
  std::optional<HttpsClient> supervisor_;
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
bool Run::repeat(seconds pause, Phase phase) {
  for (;;) {
    const auto done = phase();
    if (done) return true;
    // attempts 0 counts down from zero and never comes to 1.
    if (attempts_left_ == 1 || stopped()) return false;
    if (attempts_left_ > 1) --attempts_left_;
    pause_for(options_.pause.count() > 0 ? options_.pause : milliseconds(pause));
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

Secret Run::basic(std::string_view user) const {
  std::string pair;
  pair.reserve(user.size() + 1 + token_.password.reveal().size());
  pair.append(user).append(":").append(token_.password.reveal());
  std::string encoded = base64(pair);
  explicit_bzero(pair.data(), pair.size());
  std::string value;
  value.reserve(6 + encoded.size());
  value.append("Basic ").append(encoded);
  Secret out(value);
  explicit_bzero(encoded.data(), encoded.size());
  explicit_bzero(value.data(), value.size());
  return out;
}

Result<HttpsResponse> Run::get(HttpsClient& client, std::string_view phase, const std::string& path,
                               std::string_view user, std::vector<std::pair<std::string, std::string>> headers) {
  HttpsRequest request;
  request.target = path;
  request.headers = std::move(headers);
  request.headers.emplace_back("User-Agent", "Go-http-client/1.1");
  request.headers.emplace_back("Accept-Encoding", "gzip");
  if (!user.empty()) request.authorization = basic(user);
  const auto begin = Clock::now();
  Result<HttpsResponse> response = client.send(request);
  for (auto& [name, value] : request.headers)
    if (name == "K3s-Node-Password") explicit_bzero(value.data(), value.size());

  AgentRequest entry;
  entry.phase = phase;
  entry.method = request.method;
  entry.path = path;
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
  const std::string verb = profile_.quotes_urls ? "Get \"" + url(path) + "\": " : "Get " + url(path) + ": ";
  return Error{response.error().code, verb + (hidden ? "EOF" : response.error().message)};
}

Result<HttpsResponse> Run::get_ok(HttpsClient& client, std::string_view phase, const std::string& path,
                                  std::string_view user) {
  Result<HttpsResponse> response = get(client, phase, path, user);
  if (response && response->status != 200) return Error{Errc::invalid, url(path) + ": " + response->status_line()};
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
    supervisor_ = std::move(*by_os);
    return {};
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
  supervisor_ = std::move(*client);
  return check_hash(bundle_);
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
  const std::string hash = sha256_hex(bundle);
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
  if (!done) return complain(Level::error, done.error().message);
  return {};
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

Result<PemParts> Run::fetch_pair(const std::string& name, bool with_node_headers) {
  const std::string path = "/v1-k3s/" + name + ".crt";
  std::vector<std::pair<std::string, std::string>> headers;
  if (with_node_headers) {
    headers.emplace_back("K3s-Node-Name", outcome_.node);
    headers.emplace_back("K3s-Node-Password", node_password_.reveal());
    if (profile_.sends_ip) headers.emplace_back("K3s-Node-Ip", node_ip_header());
  }
  Result<HttpsResponse> response = get(*supervisor_, "join", path, "node", std::move(headers));
  if (!response) return response.error();
  if (response->status == 403 && with_node_headers)
    return Error{Errc::invalid,
                 "Node password rejected, duplicate hostname or contents of '" + options_.password_file.string() +
                     "' may not match server node-passwd entry, try enabling a unique node name with "
                     "the --with-node-id flag"};
  if (response->status != 200) return Error{Errc::invalid, url(path) + ": " + response->status_line()};
  PemParts parts = split_pem(response->body);
  explicit_bzero(response->body.data(), response->body.size());
  if (const Result<void> matching = check_key_pair(parts.certificates, parts.key); !matching)
    return matching.error();
  return parts;
}

Result<void> Run::phase_join() {
  const auto join = [this]() -> Result<void> {
    if (const auto trusted = trust_round("join"); !trusted) return trusted.error();
    if (profile_.asks_apis)
      if (const auto known = check_apis("join", "node"); !known) return known.error();
    const Result<HttpsResponse> config = get_ok(*supervisor_, "join", "/v1-k3s/config", "node");
    if (!config) return Error{config.error().code, profile_.config_prefix + config.error().message};
    const auto document = read_cluster_document(config->body, profile_.generation, node_ips_);
    if (!document) return document.error();
    cluster_ = *document;
    const Result<HttpsResponse> client_ca = get_ok(*supervisor_, "join", "/v1-k3s/client-ca.crt", "node");
    if (!client_ca) return client_ca.error();
    const Result<HttpsResponse> server_ca = get_ok(*supervisor_, "join", "/v1-k3s/server-ca.crt", "node");
    if (!server_ca) return server_ca.error();
    server_ca_ = server_ca->body;
    if (const auto serving = fetch_pair("serving-kubelet", true); !serving) return serving.error();
    Result<PemParts> kubelet = fetch_pair("client-kubelet", true);
    if (!kubelet) return kubelet.error();
    kubelet_ = std::move(*kubelet);
    if (const auto proxy = fetch_pair("client-kube-proxy", false); !proxy) return proxy.error();
    Result<PemParts> controller = fetch_pair("client-k3s-controller", false);
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
    const Result<HttpsResponse> readyz = get(*supervisor_, "ready", "/v1-k3s/readyz", "node");
    // Anything else is taken for a server too old to have it.
    if (readyz && readyz->status == 500)
      return Error{Errc::unavailable, url("/v1-k3s/readyz") + ": " + readyz->status_line()};
    const Result<HttpsResponse> config = get_ok(*supervisor_, "ready", "/v1-k3s/config", "node");
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
    const Result<HttpsResponse> answer = get_ok(*supervisor_, "endpoints", "/v1-k3s/apiservers", "node");
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
  const std::string tunnel_url = "wss://" + to->to_string() + "/v1-k3s/connect";
  say(Level::info, "Connecting to proxy", "url", tunnel_url);
  WebsocketClient::Options options;
  options.https.connect_to = *to;  // not through the load balancer
  options.https.trust = HttpsTrust::bundle;
  options.https.bundle_pem = server_ca_;
  options.https.cert_pem = kubelet_.certificates;
  options.https.key_pem = kubelet_.key.clone();
  options.https.timeout = profile_.timeout;
  options.target = "/v1-k3s/connect";
  options.ping_every = options_.ping_every;
  options.silence_limit = profile_.silence_limit;
  HttpsResponse answer;
  const auto begin = Clock::now();
  Result<WebsocketClient> session = WebsocketClient::connect(std::move(options), &answer);
  AgentRequest entry{"tunnel",
                     "GET",
                     "/v1-k3s/connect",
                     answer.status,
                     session ? "" : session.error().message,
                     std::string(answer.header("Ledger-Request-Id")),
                     std::string(answer.header("Ledger-Seq")),
                     std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin)};
  outcome_.requests.push_back(std::move(entry));
  if (session) {
    outcome_.tunnels.push_back(tunnel_url);
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

// The server dials the kubelet through the tunnel; there is none here, and other ports an agent does not allow.
Result<void> answer_frame(WebsocketClient& session, std::string_view message) {
  const Result<TunnelFrame> frame = TunnelFrame::decode(message);
  if (!frame) return frame.error();
  if (frame->type != TunnelFrame::kConnect) return {};
  const bool allowed = frame->payload == "tcp/127.0.0.1:10250" || frame->payload == "tcp/127.0.0.1:10010";
  if (!allowed) return Error{Errc::invalid, "connect not allowed"};
  const std::string address = frame->payload.substr(4);
  return session.send(TunnelFrame{frame->id, frame->connection, TunnelFrame::kError, 0,
                                  "dial tcp " + address + ": connect: connection refused"}
                          .encode());
}

// False when a session ended before its time.
bool Run::hold_tunnels(std::vector<WebsocketClient>& sessions, Clock::time_point until) {
  constexpr milliseconds kSlice(100);
  while (!stopped() && Clock::now() < until) {
    for (WebsocketClient& session : sessions) {
      const auto left = std::chrono::ceil<milliseconds>(until - Clock::now());
      auto message = session.receive(std::clamp(left, milliseconds(0), kSlice));
      Result<void> fine = message ? Result<void>() : Result<void>(message.error());
      if (message && *message) fine = answer_frame(session, **message);
      if (fine) continue;
      complain(Level::error, "Remotedialer proxy error", "error", fine.error().message);
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
  server_ = {std::string(parsed->host_address()), parsed->has_port() ? parsed->port_number() : std::uint16_t{443}};
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
      std::string("Starting k3s agent ") + profile_.version + " (played by ledger " LEDGER_VERSION ")");
  const auto whole = [this] {
    if (const Result<void> ready = prepare(); !ready) {
      complain(Level::error, ready.error().message);
      return false;
    }
    if (!repeat(seconds(2), [this] { return phase_trust(); })) return false;
    if (!repeat(seconds(5), [this] { return phase_join(); })) return false;
    if (profile_.asks_readyz && !repeat(seconds(5), [this] { return phase_ready(); })) return false;
    std::vector<std::string> addresses;
    const auto find_addresses = [&] {
      auto found = phase_endpoints();
      if (found) addresses = *found;
      return found;
    };
    if (!repeat(seconds(5), find_addresses)) return false;
    if (options_.tunnel) return repeat(seconds(5), [&] { return phase_tunnel(addresses); });
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

Result<Generation> parse_generation(std::string_view text) {
  for (const Profile& profile : kProfiles)
    if (to_lower(text) == to_lower(profile.name)) return profile.generation;
  return Error{Errc::invalid, "'" + printable(text, 20) +
                                  "' is not a generation of agents that can be played; use G1, "
                                  "G2, G3, G4 or G5"};
}

std::string_view name_of(Generation generation) { return profile_of(generation).name; }

std::string AgentLine::to_string() const {
  const char* name = level == Level::info ? "info" : level == Level::warning ? "warning" : "error";
  std::string out = "time=" + quote(time.to_string()) + " level=" + name + " msg=" + quote(message);
  if (!field.empty()) out += " " + field + "=" + quote(value);
  return out;
}

AgentOutcome run_agent(const AgentOptions& options) { return Run(options).play(); }

}  // namespace ledger::api
