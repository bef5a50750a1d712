#include "api/doctor.h"

#include <sys/stat.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <cstring>

#include "api/agent_checks.h"
#include "api/agent_keys.h"
#include "api/http_date.h"
#include "api/https_client.h"
#include "api/port_owner.h"
#include "api/reachability.h"
#include "ledger/credentials.h"
#include "ledger/program.h"
#include "replay/remedies.h"

namespace ledger::api {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

using Clock = std::chrono::steady_clock;
using Outcome = DoctorStep::Outcome;
using replay::shell_word;

// Past this, a clock is worth a word although nothing has failed yet.
constexpr double kClockWarning_s = 60;
// The first generation that takes bootstrap tokens and hashes the root of a bundle (k3s v1.26.2).
constexpr int kRootHashGeneration = 6;

// ---- Words -------------------------------------------------------------------------------------------------

std::string join(const std::vector<std::string>& items, std::string_view separator = ", ") {
  std::string out;
  for (const std::string& item : items) out.append(out.empty() ? "" : separator).append(item);
  return out;
}

// "3 h 5 min", for a difference of clocks.
std::string duration_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds < 0 ? -seconds : seconds);
  const auto text = [](std::int64_t count, const char* unit) { return std::to_string(count) + " " + unit; };
  if (whole < 120) return text(whole, "s");
  if (whole < 7'200) return text(whole / 60, "min");
  if (whole < 172'800) return text(whole / 3'600, "h") + " " + text(whole % 3'600 / 60, "min");
  return text(whole / 86'400, "days");
}

std::string system_error(int error) {
  char buffer[128];
  return strerror_r(error, buffer, sizeof buffer);
}

// What a refusal says: the message of a Kubernetes Status, or the body itself.
std::string message_of(const HttpsResponse& response) {
  json::error_code error;
  const json::value value = json::parse(response.body, error);
  const json::object* status = error ? nullptr : value.if_object();
  const json::value* message = status != nullptr ? status->if_contains("message") : nullptr;
  std::string text(trim(response.body));
  if (message != nullptr && message->is_string()) text = message->get_string();
  return response.status_line() + (text.empty() ? "" : ": " + printable(text, 300));
}

bool is_bootstrap_token(std::string_view text) {
  const auto all = [](std::string_view part) {
    return part.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") == std::string_view::npos;
  };
  return text.size() == 23 && text[6] == '.' && all(text.substr(0, 6)) && all(text.substr(7));
}

// ---- One examination ---------------------------------------------------------------------------------------

class Examination {
 public:
  explicit Examination(const DoctorOptions& options)
      : options_(options), program_(options.rke2 ? kRke2 : kK3s), node_(to_lower(options.node_name)) {}

  Diagnosis run(const std::function<void(const DoctorStep&)>& on_step);

 private:
  struct Plan {
    const char* name;
    const char* title;
    bool needs_server;  // makes no sense after a failure on the way to the server
    DoctorStep (Examination::*look)();
  };
  static const Plan kPlan[];

  DoctorStep server_url();
  DoctorStep token_text();
  DoctorStep dns();
  DoctorStep tcp();
  DoctorStep tls();
  DoctorStep clock();
  DoctorStep certificate();
  DoctorStep cluster_ca();
  DoctorStep credentials();
  DoctorStep config();
  DoctorStep node_name();
  DoctorStep password_file();
  DoctorStep binding();
  DoctorStep balancer_port();
  DoctorStep agent_certificates();

  static DoctorStep ok(std::string detail) { return {"", "", Outcome::ok, std::move(detail), {}}; }
  static DoctorStep skip(std::string why) { return {"", "", Outcome::skipped, std::move(why), {}}; }
  static DoctorStep warn(std::string detail, std::vector<Remedy> remedies = {}) {
    return {"", "", Outcome::warning, std::move(detail), std::move(remedies)};
  }
  static DoctorStep fail(std::string detail, std::vector<Remedy> remedies) {
    return {"", "", Outcome::failure, std::move(detail), std::move(remedies)};
  }

  HttpsOptions https_options(HttpsTrust trust) const;
  using Headers = std::vector<std::pair<std::string, std::string>>;
  Headers node_headers(const Secret& password) const {
    return {{std::string(program_.node_name_header), node_},
            {std::string(program_.node_password_header), std::string(password.reveal())}};
  }
  Result<HttpsResponse> get(const std::string& path, Headers headers = {});
  DoctorStep check_hash();
  DoctorStep refused(const HttpsResponse& response) const;
  DoctorStep ask_ledger(const Secret& password);
  DoctorStep judge_verdict(const json::object& answer) const;
  DoctorStep register_for_good();
  DoctorStep mismatch(const std::string& bound) const;
  std::string judge_certificate(const fs::path& file, const std::string& pem) const;
  void scrub(DoctorStep& step) const;

  // What several steps advise.
  std::string restart() const { return "sudo systemctl restart " + std::string(program_.agent_service); }
  std::string path(std::string_view name) const { return std::string(program_.path_prefix).append(name); }
  std::string server_host() const { return shell_word(authority_.host); }
  Remedy edit_settings(std::string action) const {
    return {std::move(action), "sudoedit " + std::string(program_.token_file) + " && " + restart()};
  }
  std::vector<Remedy> fresh_token() const;
  std::string on_server(const std::string& verb, const std::string& rest) const {
    return "ledger node " + verb + " " + shell_word(node_) + " " + rest;
  }

  const DoctorOptions& options_;
  const Program& program_;
  std::string node_;

  HostPort authority_;  // of the URL
  std::vector<std::string> addresses_;
  HostPort reached_;  // the address that answered
  AgentToken token_;
  Secret authorization_;
  bool bootstrap_token_ = false;
  std::string chain_;  // the server's certificates, PEM
  std::vector<CertificateFacts> shown_;
  Result<HttpsResponse> cacerts_ = Error{Errc::unavailable, "not asked"};
  std::string bundle_;  // empty: trusted by the operating system
  std::optional<Time> server_time_, local_time_;
  std::optional<HttpsClient> client_;
  std::string config_;
  std::string client_ca_;
  bool is_ledger_ = false;
  bool no_password_file_ = false;
  bool authenticated_ = false;
  std::optional<Secret> password_;  // what the agent would send
};

const Examination::Plan Examination::kPlan[] = {
    {"url", "server URL", true, &Examination::server_url},
    {"token", "token text", true, &Examination::token_text},
    {"dns", "name lookup", true, &Examination::dns},
    {"tcp", "TCP connection", true, &Examination::tcp},
    {"tls", "TLS handshake", true, &Examination::tls},
    {"clock", "clock", true, &Examination::clock},
    {"certificate", "server certificate", true, &Examination::certificate},
    {"ca", "cluster CA", true, &Examination::cluster_ca},
    {"credentials", "credentials", true, &Examination::credentials},
    {"config", "config document", true, &Examination::config},
    {"name", "node name", false, &Examination::node_name},
    {"password", "password file", false, &Examination::password_file},
    {"binding", "node password", true, &Examination::binding},
    {"port", "local port", false, &Examination::balancer_port},
    {"certificates", "agent certificates", false, &Examination::agent_certificates},
};

Diagnosis Examination::run(const std::function<void(const DoctorStep&)>& on_step) {
  Diagnosis diagnosis;
  bool failed = false;
  for (const Plan& plan : kPlan) {
    const bool possible = !plan.needs_server || !failed;
    DoctorStep step = possible ? (this->*plan.look)() : skip("not tried: a step above failed");
    step.name = plan.name;
    step.title = plan.title;
    scrub(step);
    failed = failed || step.outcome == Outcome::failure;
    if (on_step) on_step(step);
    diagnosis.steps.push_back(std::move(step));
  }
  return diagnosis;
}

// Servers choose what they say, and one could say a secret back.
void Examination::scrub(DoctorStep& step) const {
  const auto hide = [&step](std::string_view secret) {
    if (secret.size() < 4) return;
    const auto clean = [&](std::string& text) {
      for (auto at = text.find(secret); at != std::string::npos; at = text.find(secret))
        text.replace(at, secret.size(), "***");
    };
    clean(step.detail);
    for (Remedy& remedy : step.remedies) {
      clean(remedy.action);
      clean(remedy.command);
    }
  };
  hide(options_.token.reveal());
  hide(token_.password.reveal());
  if (password_) hide(password_->reveal());
}

// ---- The way to the server ---------------------------------------------------------------------------------

DoctorStep Examination::server_url() {
  const std::string shown = "'" + printable(options_.server, 120) + "'";
  const std::string example = std::string("https://<server>:") + std::to_string(program_.usual_port);
  const std::vector<Remedy> remedies = {edit_settings("give the agent the server as " + example)};
  const auto parsed = boost::urls::parse_uri(options_.server);
  if (!parsed || parsed->host().empty())
    return fail(shown + " is not a URL with a host: agents end at once", remedies);
  if (parsed->scheme() != "https")
    return fail(shown + " does not begin with https://: agents take nothing else", remedies);
  if (parsed->has_port() && parsed->port_number() == 0) return fail(shown + " has no usable port", remedies);
  authority_ = {std::string(parsed->host_address()),
                parsed->has_port() ? parsed->port_number() : std::uint16_t{443}};
  const std::string where = authority_.host + ", port " + std::to_string(authority_.port);
  if (!parsed->has_port())
    return warn(
        where + ": without a port agents take 443; a server's own is " + std::to_string(program_.usual_port),
        remedies);
  return ok(where);
}

std::vector<Remedy> Examination::fresh_token() const {
  return {{"take the current agent token on the server (a ledger, or a " + std::string(program_.name) + " server)",
           "sudo ledger token show --data-dir /var/lib/ledger || sudo cat " + std::string(program_.server_dir) +
               "/node-token"},
          edit_settings("give it to the agent (" + std::string(program_.name) + " reads it at its start)")};
}

DoctorStep Examination::token_text() {
  std::string_view text = options_.token.reveal();
  const std::string_view body =
      text.substr(text.starts_with("K10") && text.find("::") != text.npos ? text.find("::") + 2 : 0);
  bootstrap_token_ = is_bootstrap_token(body);
  const int generation = options_.generation ? static_cast<int>(*options_.generation) : 0;
  if (bootstrap_token_ && generation > 0 && generation < kRootHashGeneration)
    return fail("this is a bootstrap token (id.secret), which agents before v1.26.2 do not know", fresh_token());
  std::string plain;
  plain.reserve(text.size() + 8);
  plain.append(text.substr(0, text.size() - body.size())).append(bootstrap_token_ ? "node:" : "").append(body);
  const Secret readable(bootstrap_token_ && body.size() == text.size() ? text : std::string_view(plain));
  explicit_bzero(plain.data(), plain.size());
  Result<AgentToken> token = parse_agent_token(readable, options_.generation.value_or(Generation::G5));
  if (!token) return fail("the token cannot be read: " + token.error().message, fresh_token());
  token_ = std::move(*token);
  for (const char c : token_.password.reveal())
    if (static_cast<unsigned char>(c) <= ' ' || c == 0x7f)
      return fail("the token holds a blank or a control character: it was cut or joined when it was copied",
                  fresh_token());
  std::string header = bootstrap_token_ ? std::string(token_.password.reveal())
                                        : base64("node:" + std::string(token_.password.reveal()));
  header.insert(0, bootstrap_token_ ? "Bearer " : "Basic ");
  authorization_ = Secret(header);
  explicit_bzero(header.data(), header.size());
  const std::string kind = bootstrap_token_ ? "a bootstrap token" : "well-formed";
  if (token_.ca_hash.empty())
    return warn(kind + ", without a CA hash: the agent would trust any server that answers", fresh_token());
  return ok(kind + ", with a CA hash");
}

DoctorStep Examination::dns() {
  const Result<std::vector<std::string>> found = resolve(authority_.host, options_.deadline);
  const std::vector<Remedy> remedies = {
      {"ask the resolver as the agent does, and look at which one is asked",
       "getent ahosts " + server_host() + "; cat /etc/resolv.conf"},
      {"without DNS: write the server's address into /etc/hosts, or use it in the URL", "sudoedit /etc/hosts"}};
  if (!found && found.error().code == Errc::not_found)
    return fail("there is no host " + printable(authority_.host, 100) + " in DNS or /etc/hosts", remedies);
  if (!found)
    return fail("the name " + printable(authority_.host, 100) + " cannot be looked up: " + found.error().message,
                remedies);
  addresses_ = *found;
  if (addresses_.size() == 1 && addresses_.front() == authority_.host)
    return ok("not needed: the URL has an address");
  return ok(join(addresses_));
}

namespace {

// What a failed connection means.
std::string meaning_of(int error, double seconds) {
  switch (error) {
    case ECONNREFUSED:
      return "refused: the machine is there, but nothing listens on this port, or a firewall rejects";
    case ETIMEDOUT:
      return "no answer within " + duration_text(seconds) +
             ": a firewall drops the packets, or no machine has this address";
    case EHOSTUNREACH:
    case ENETUNREACH: return "no route from this machine (" + to_lower(system_error(error)) + ")";
    default: return system_error(error);
  }
}

}  // namespace

DoctorStep Examination::tcp() {
  const std::vector<ConnectAttempt> attempts = try_connect(addresses_, authority_.port, options_.deadline);
  std::vector<std::string> good, bad;
  int error = 0;
  for (const ConnectAttempt& attempt : attempts) {
    const std::string place = HostPort{attempt.address, authority_.port}.to_string();
    if (attempt.error == 0) {
      if (good.empty()) reached_ = {attempt.address, authority_.port};
      good.push_back(place);
      continue;
    }
    const double deadline_s = static_cast<double>(options_.deadline.count()) / 1e3;
    bad.push_back(place + ": " + meaning_of(attempt.error, deadline_s));
    error = error == 0 ? attempt.error : error;
  }
  const std::string port = std::to_string(authority_.port);
  std::vector<Remedy> remedies;
  if (error == ECONNREFUSED)
    remedies = {
        {"on the server: see that it runs and listens on this port", "sudo ss -ltnp 'sport = :" + port + "'"},
        edit_settings("if it listens on another port, correct the agent's URL")};
  else if (error == ENETUNREACH || error == EHOSTUNREACH)
    remedies = {{"find the way to the server", "ip route get " + shell_word(addresses_.front()) + "; ip addr"}};
  else if (error != 0)
    remedies = {{"let TCP port " + port + " through, on the server and on what lies between",
                 "sudo nft list ruleset; sudo iptables -S"},
                {"see how far packets get", "traceroute -T -p " + port + " " + shell_word(addresses_.front())}};
  if (good.empty()) return fail(join(bad, "; "), remedies);
  if (!bad.empty()) return warn(join(good) + " answers, but " + join(bad, "; "), remedies);
  return ok(join(good));
}

HttpsOptions Examination::https_options(HttpsTrust trust) const {
  HttpsOptions options;
  options.connect_to = reached_;
  // An agent comes through a load balancer of its own and verifies that one's address.
  options.authority = {"127.0.0.1", options_.balancer_port};
  options.trust = trust;
  options.bundle_pem = trust == HttpsTrust::bundle ? bundle_ : "";
  options.timeout = options_.deadline;
  return options;
}

// The handshake, and on the same connection what the next steps look at: /cacerts and the time it was sent.
DoctorStep Examination::tls() {
  const HttpsOptions options = https_options(HttpsTrust::anyone);
  const Result<TlsContext> context = TlsContext::make(options);
  if (!context) return fail(context.error().message, {});
  TlsLink link;
  link.set_deadline(Clock::now() + options_.deadline);
  const std::string place = shell_word(authority_.to_string());
  const std::vector<Remedy> remedies = {
      {"see who answers there: a proxy, a balancer without a server behind it, or another program",
       "openssl s_client -connect " + place + " </dev/null"},
      {"let TLS through unbroken on everything between agent and server (TCP mode, no proxy)", ""}};
  if (const Result<void> opened = link.open(options, *context); !opened) {
    const std::string said = opened.error().message;
    if (said == "EOF") return fail("the server hangs up during the TLS handshake", remedies);
    if (said.find("first record") != said.npos)
      return fail("what answers on port " + std::to_string(authority_.port) + " does not speak TLS", remedies);
    return fail("the TLS handshake fails: " + said, remedies);
  }
  chain_ = link.peer_certificates();
  shown_ = read_certificates(chain_);
  if (shown_.empty()) return fail("the server shows no certificate that can be read", remedies);
  HttpsRequest request;
  request.target = "/cacerts";
  std::string rest;
  bool reusable = false;
  const Time before = Time::now();
  cacerts_ = exchange(link, options, request, rest, &reusable);
  link.hang_up();
  if (cacerts_) {
    local_time_ = Time{before.micros + (Time::now().micros - before.micros) / 2};
    if (const auto date = parse_http_date(cacerts_->header("Date"))) server_time_ = *date;
    is_ledger_ = !cacerts_->header("Ledger-Request-Id").empty();
  }
  return ok("the server shows " + shown_.front().subject + ", issued by " + shown_.front().issuer);
}

// ---- Clock and certificate ---------------------------------------------------------------------------------

DoctorStep Examination::clock() {
  if (!server_time_) return skip("the server sends no Date to compare with");
  const Time now = *local_time_;
  const CertificateFacts& leaf = shown_.front();
  const double ahead_s = seconds_between(*server_time_, now);
  // A Date has whole seconds.
  if (ahead_s > -kClockWarning_s && ahead_s < kClockWarning_s + 1)
    return ok("this machine and the server agree within " +
              duration_text(ahead_s < 0 ? -ahead_s + 1 : ahead_s + 1));
  const std::string difference =
      "this machine's clock says " + Time{now.micros / 1'000'000 * 1'000'000}.to_string() + ", the server's " +
      server_time_->to_string() + ": " + duration_text(ahead_s) + (ahead_s > 0 ? " ahead" : " behind");
  const std::vector<Remedy> remedies = {
      {"set this machine's clock, and let it be kept", "sudo timedatectl set-ntp true && timedatectl"},
      {"see that the server's clock is not the wrong one", "date -u"}};
  const auto valid = [&leaf](Time time) { return leaf.not_before <= time && time <= leaf.not_after; };
  if (!valid(now) && valid(*server_time_))
    return fail(difference + ", which is outside the time for which the server's certificate is valid", remedies);
  return warn(difference, remedies);
}

DoctorStep Examination::certificate() {
  const CertificateFacts& leaf = shown_.front();
  const Time now = Time::now();
  const std::string dates = leaf.not_before.to_string() + " to " + leaf.not_after.to_string();
  if (now < leaf.not_before || leaf.not_after < now) {
    const std::string word = now < leaf.not_before ? "is not valid yet" : "has expired";
    return fail("the server's certificate " + word + " (valid " + dates + ")" +
                    (server_time_ ? ", and the server's own clock agrees" : ", by this machine's clock"),
                {{"on the server: restart it, it then makes a new certificate",
                  "sudo systemctl restart " + std::string(is_ledger_ ? "ledger" : program_.server_service)},
                 {"compare the clocks of the two machines", "date -u"}});
  }
  const std::string config_file(program_.config_file);
  const std::vector<Remedy> add_name = {
      {"on the server: add the name to its certificate (" +
           (is_ledger_ ? "--tls-san" : "tls-san in " + config_file) + "), restart it",
       is_ledger_ ? "ledger serve --tls-san " + server_host() : "sudoedit " + config_file}};
  if (!certificate_names(chain_, "127.0.0.1"))
    return fail(
        "the server's certificate does not name 127.0.0.1, which agents verify because they come through a "
        "load balancer of their own; it names " +
            join(leaf.names),
        {{"let TLS through unbroken between agent and server: whatever answers here is not " +
              std::string(program_.name) + "'s own certificate",
          "openssl s_client -connect " + shell_word(authority_.to_string()) + " </dev/null"}});
  if (!certificate_names(chain_, authority_.host))
    return warn("the server's certificate does not name " + printable(authority_.host, 100) +
                    ": agents join, but tunnels to this name fail; it names " + join(leaf.names),
                add_name);
  return ok("names " + (authority_.host == "127.0.0.1" ? "" : authority_.host + " and ") + "127.0.0.1, valid " +
            dates);
}

// ---- Trust and credentials ---------------------------------------------------------------------------------

DoctorStep Examination::cluster_ca() {
  const std::vector<Remedy> wrong_server = {
      {"see who answers there", "curl -sk " + shell_word("https://" + authority_.to_string() + "/cacerts")},
      edit_settings("correct the agent's URL if that is not the cluster's server")};
  if (!cacerts_) return fail("the server does not answer GET /cacerts: " + cacerts_.error().message, wrong_server);
  if (cacerts_->status == 503 || cacerts_->status == 429)
    return fail("the server is not ready: GET /cacerts: " + message_of(*cacerts_),
                {{"wait, agents try again by themselves; on the server, see what it waits for",
                  "sudo journalctl -n 50 -u ledger -u k3s -u rke2-server"}});
  if (cacerts_->status != 200)
    return fail("this is not a server agents can join: GET /cacerts: " + message_of(*cacerts_), wrong_server);
  HttpsOptions by_os = https_options(HttpsTrust::os_roots);
  if (verify_chain(chain_, by_os, "127.0.0.1")) {
    client_.emplace(std::move(*HttpsClient::open(std::move(by_os))));
    return ok("trusted by the operating system; the token's CA hash does not count then");
  }
  bundle_ = cacerts_->body;
  if (read_certificates(bundle_).empty())
    return fail("GET /cacerts does not answer with a certificate: something else answers", wrong_server);
  HttpsOptions pinned = https_options(HttpsTrust::bundle);
  if (const Result<void> trusted = verify_chain(chain_, pinned, "127.0.0.1"); !trusted)
    return fail("the server's certificate does not come from the CA that the server hands out: " +
                    trusted.error().message + " (TLS is broken up on the way, or two servers answer)",
                {{"let TLS through unbroken between agent and server (TCP mode, no proxy)",
                  "openssl s_client -connect " + shell_word(authority_.to_string()) + " </dev/null"}});
  Result<HttpsClient> client = HttpsClient::open(std::move(pinned));
  if (!client) return fail(client.error().message, wrong_server);
  client_.emplace(std::move(*client));
  return check_hash();
}

// protocol: agents before v1.26.2 hash the bytes, later ones the root of a bundle of several certificates.
DoctorStep Examination::check_hash() {
  const std::string of_bytes = sha256_hex(bundle_), of_root = bundle_hash(bundle_);
  const std::string authority = read_certificates(bundle_).front().subject;
  if (token_.ca_hash.empty()) return warn("the token names no CA, so " + authority + " is believed", fresh_token());
  const bool old_fits = token_.ca_hash == of_bytes, new_fits = token_.ca_hash == of_root;
  const auto brief = [](const std::string& hash) { return printable(hash, 12) + "..."; };
  if (!old_fits && !new_fits)
    return fail("the token belongs to another CA: it names " + brief(token_.ca_hash) + ", this server's is " +
                    brief(of_bytes) + " (" + authority + "): another cluster, or a server that was set up anew",
                fresh_token());
  if (old_fits && new_fits) return ok("the token's hash fits " + authority);
  const std::string who = old_fits ? "agents before v1.26.2" : "agents from v1.26.2 on";
  const std::string said = "the token's hash fits the CA bundle for " + who + " only";
  const bool later = options_.generation && static_cast<int>(*options_.generation) >= kRootHashGeneration;
  if (options_.generation && later != new_fits) return fail(said, fresh_token());
  return options_.generation ? ok(said) : warn(said, fresh_token());
}

Result<HttpsResponse> Examination::get(const std::string& path, Headers headers) {
  HttpsRequest request;
  request.target = path;
  request.headers = std::move(headers);
  request.authorization = authorization_.clone();
  Result<HttpsResponse> response = client_->send(request);
  for (auto& [name, value] : request.headers)
    if (name == program_.node_password_header) explicit_bzero(value.data(), value.size());
  if (response && !response->header("Ledger-Request-Id").empty()) is_ledger_ = true;
  return response;
}

// Any answer but 200, in words.
DoctorStep Examination::refused(const HttpsResponse& response) const {
  const std::string said = message_of(response);
  const std::vector<Remedy> wait = {{"wait: agents try again by themselves every few seconds", ""},
                                    {"on the server, if it lasts: see why",
                                     "sudo journalctl -n 50 -u ledger -u k3s -u rke2-server; df -h /var/lib"}};
  switch (response.status) {
    case 401: return fail("the server does not accept this token: " + said, fresh_token());
    case 403: return fail("the token is not one for agents: " + said, fresh_token());
    case 404:
      return fail("the server has no " + path("") + " API: " + said +
                      (options_.rke2 ? " (without --rke2 for k3s)" : " (--rke2 for RKE2)"),
                  {edit_settings("correct the agent's URL")});
    case 429: return fail("the server is too busy: " + said, wait);
    case 500:
      if (trim(response.body).empty())
        return fail("the server does not accept this token (k3s before v1.20.4 says so with an empty 500)",
                    fresh_token());
      return fail("the server has trouble of its own: " + said, wait);
    case 503: return fail("the server cannot record or is not ready: " + said, wait);
    default: return fail("the server answers " + said, wait);
  }
}

DoctorStep Examination::credentials() {
  Result<HttpsResponse> response = get(path("config"));
  if (!response)
    return fail("the server does not answer: " + response.error().message,
                {{"see whether it answers at all",
                  "curl -vk " + shell_word("https://" + authority_.to_string() + "/ping")}});
  if (response->status != 200) return refused(*response);
  config_ = std::move(response->body);
  authenticated_ = true;
  if (const auto authority = get(path("client-ca.crt")); authority && authority->status == 200)
    client_ca_ = authority->body;
  return ok(std::string("accepted by ") +
            (is_ledger_ ? "a ledger" : "a " + std::string(program_.name) + " server"));
}

DoctorStep Examination::config() {
  std::vector<std::string> ips = options_.node_ips;
  if (ips.empty()) ips.emplace_back(host_of(client_->local_address()));
  const Generation generation = options_.generation.value_or(Generation::G5);
  const auto document = read_cluster_document(config_, generation, ips);
  explicit_bzero(config_.data(), config_.size());  // old servers leak tokens there
  if (!document)
    return fail("an agent cannot use the config document: " + document.error().message,
                {{"correct the node's addresses, or the cluster's ranges on the server",
                  "ip -brief addr; sudo grep -n 'node-ip\\|cidr' " + std::string(program_.config_file)}});
  return ok("readable, and its address families fit this machine's " + join(ips));
}

// ---- This machine ------------------------------------------------------------------------------------------

DoctorStep Examination::node_name() {
  const std::vector<Remedy> remedies = {edit_settings("give the agent a good name: --node-name, or node-name: in " +
                                                      std::string(program_.config_file))};
  const Result<NodeName> name = NodeName::parse(options_.node_name);
  if (!name) return fail("the node name cannot be used: " + name.error().message, remedies);
  node_ = name->str();
  const std::string written = node_ == options_.node_name ? "" : " (agents write it in lower case)";
  const Result<std::string> id = read_file(options_.password_file.parent_path() / "id", 64);
  const std::string suffix = id ? "-" + printable(trim(*id), 20) : "";
  if (!suffix.empty() && !node_.ends_with(suffix))
    return ok(node_ + written + "; with --with-node-id the agent is " + node_ + suffix + ": look at that one too");
  return ok(node_ + written);
}

DoctorStep Examination::password_file() {
  const std::string path = options_.password_file.string();
  const std::string word = shell_word(path);
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) {
    if (errno == EACCES)
      return warn(path + " may not be seen by this user", {{"run this again as root (sudo)", ""}});
    no_password_file_ = true;
    return ok("there is no " + path + ": the agent makes one at its next start");
  }
  const std::vector<Remedy> look = {{"look at it: it must be a file of root's, mode 0600, of 32 hex digits",
                                     "sudo ls -ld " + word + "; sudo wc -c " + word}};
  if (!S_ISREG(info.st_mode)) return fail(path + " is not a file: the agent cannot read its password", look);
  Result<std::string> text = read_file(path, 64 << 10);
  if (!text && ::geteuid() != 0)
    return warn(path + " may not be read by this user", {{"run this again as root (sudo)", ""}});
  if (!text) return fail("the agent cannot read its password: " + text.error().message, look);
  password_ = Secret(trim(*text));
  explicit_bzero(text->data(), text->size());
  const std::string_view password = password_->reveal();
  if (password.empty())
    return fail(path + " is empty: the agent sends no password, and is told so for ever",
                {{"put the password back from a backup, if there is one",
                  "sudo install -m 0600 -o root node-password.backup " + word + " && " + restart()},
                 {"or remove the empty file; the agent makes a new one (if the name is bound on the server, the "
                  "server's operator must accept that one)",
                  "sudo rm " + word + " && " + restart()}});
  const auto printable_byte = [](char c) { return static_cast<unsigned char>(c) > ' ' && c != 0x7f; };
  if (!std::all_of(password.begin(), password.end(), printable_byte))
    return fail(path + " holds blanks, line ends or control characters in its middle: no agent can send it", look);
  const bool hex = password.size() == 32 && password.find_first_not_of("0123456789abcdef") == password.npos;
  const std::string form =
      hex ? "32 hex digits" : std::to_string(password.size()) + " characters, not an agent's own";
  char mode[8];
  std::snprintf(mode, sizeof mode, "%04o", static_cast<unsigned>(info.st_mode & 07777));
  if ((info.st_mode & 077) != 0)
    return warn(path + ", " + form + ", mode " + mode + ": others on this machine may read it",
                {{"let only root read it", "sudo chmod 0600 " + word}});
  return ok(path + ", " + form + ", mode " + mode);
}

// ---- Is it the password the name is bound to? ---------------------------------------------------------------

DoctorStep Examination::binding() {
  if (!authenticated_) return skip("not tried: a step above failed");
  if (!password_ && !no_password_file_) return skip("not asked: the password file could not be read");
  if (is_ledger_) {
    // Without a file the agent would make a password: any fresh one gets the same answer.
    const Secret fresh(random_hex(16));
    return ask_ledger(password_ ? *password_ : fresh);
  }
  if (!options_.really_register)
    return skip("not asked: a " + std::string(program_.name) +
                " server cannot say without binding the name to this "
                "password; --really-register asks as the agent would");
  if (no_password_file_)
    return skip("not asked: without a password file the name would be bound to a password that nobody keeps");
  return register_for_good();
}

DoctorStep Examination::ask_ledger(const Secret& password) {
  Result<HttpsResponse> response = get("/ledger/v1/check-node", node_headers(password));
  if (!response)
    return fail(
        "the server does not answer: " + response.error().message,
        {{"try again; on the server, see what it says", "sudo journalctl -n 50 -u ledger -u k3s -u rke2-server"}});
  if (response->status == 404) return skip("not asked: this ledger is too old to be asked without registering");
  if (response->status == 400)
    return fail("the server would refuse the node's headers: " + message_of(*response),
                {edit_settings("correct the node's name or addresses")});
  if (response->status != 200) return refused(*response);
  json::error_code error;
  const json::value answer = json::parse(response->body, error);
  if (error || !answer.is_object()) return skip("not known: the server's answer cannot be read");
  return judge_verdict(answer.get_object());
}

DoctorStep Examination::judge_verdict(const json::object& answer) const {
  const json::value* said = answer.if_contains("verdict");
  const json::value* since = answer.if_contains("since");
  const std::string verdict(said != nullptr && said->is_string() ? std::string_view(said->get_string()) : "");
  std::string record;
  if (since != nullptr && since->is_int64() && since->get_int64() > 0)
    record = " since record " + std::to_string(since->get_int64());
  if (verdict == "bound") return ok(node_ + " is bound to this machine's password" + record);
  if (verdict == "free")
    return ok(node_ + " is free: the first password that is presented is bound to it" +
              (no_password_file_ ? "" : ", this machine's if it is first"));
  if (verdict == "hashed")
    return warn(node_ + " is bound to a password taken over from k3s, which only a registration compares");
  if (verdict == "held")
    return fail(node_ + " is held by an operator: nobody may bind it",
                {{"on the server: see who holds it and why", "ledger replay --node " + shell_word(node_)},
                 {"on the server: end the hold, when this machine may have the name",
                  on_server("release", "--reason \"this machine may have the name\"")}});
  if (verdict == "mismatch") return mismatch(record);
  return skip("not known: the server answers '" + printable(verdict, 40) + "'");
}

DoctorStep Examination::mismatch(const std::string& bound) const {
  const std::string why = no_password_file_ ? " is bound to a password" + bound +
                                                  ", and this machine has none: it was rebuilt, or its "
                                                  "file did not survive a restart"
                                            : " is bound to another password" + bound + " than the one in " +
                                                  options_.password_file.string();
  const std::string file = shell_word(options_.password_file.string());
  std::vector<Remedy> remedies = {
      {"put the old password file back, from a backup of " + options_.password_file.parent_path().string(),
       "sudo install -m 0600 -o root node-password.backup " + file + " && " + restart()},
      {"or give this machine another name (" + node_ + " plus a fixed id)",
       "echo 'with-node-id: true' | sudo tee -a " + std::string(program_.config_file) + " && " + restart()}};
  if (is_ledger_) {
    remedies.push_back({"or, on the server: find out who has the name, then let in the password that was refused",
                        "ledger replay --node " + shell_word(node_)});
  } else {
    remedies.push_back(
        {"or, on the server, once the old machine is gone for good: delete its Node and its password",
         "kubectl delete node " + shell_word(node_) + "; kubectl -n kube-system delete secret " +
             shell_word(node_ + ".node-password." + std::string(program_.name))});
  }
  return fail(node_ + why, std::move(remedies));
}

DoctorStep Examination::register_for_good() {
  std::vector<std::string> ips = options_.node_ips;
  if (ips.empty()) ips.emplace_back(host_of(client_->local_address()));
  Headers headers = node_headers(*password_);
  headers.emplace_back(program_.node_ip_header, join(ips, ","));
  Result<HttpsResponse> response = get(path("serving-kubelet.crt"), std::move(headers));
  if (!response)
    return fail(
        "the server does not answer: " + response.error().message,
        {{"try again; on the server, see what it says", "sudo journalctl -n 50 -u ledger -u k3s -u rke2-server"}});
  if (response->status == 403) return mismatch("");
  if (response->status != 200) return refused(*response);
  explicit_bzero(response->body.data(), response->body.size());  // it holds a private key
  return ok("the server accepts it: " + node_ + " is bound to this machine's password (it is now, if it was not)");
}

// ---- Left behind on this machine ---------------------------------------------------------------------------

DoctorStep Examination::balancer_port() {
  const std::string port = std::to_string(options_.balancer_port);
  const std::optional<PortOwner> owner = find_port_owner(options_.balancer_port);
  if (!owner) return ok(port + " is free for the agent's load balancer");
  if (owner->pid == 0)
    return warn(port + " is in use; by whom, only root may see",
                {{"look again as root", "sudo ss -ltnp 'sport = :" + port + "'"}});
  const std::string who = owner->command + " (pid " + std::to_string(owner->pid) + ")";
  if (owner->command.starts_with("k3s") || owner->command.starts_with("rke2"))
    return ok(port + " is held by " + who + ", the agent itself");
  return fail(port + " on 127.0.0.1 is held by " + who + ": an agent needs it for its load balancer",
              {{"see what it is, and stop it or move it", "ps -fp " + std::to_string(owner->pid)},
               {"or give the agent another port", "echo 'lb-server-port: 6544' | sudo tee -a " +
                                                      std::string(program_.config_file) + " && " + restart()}});
}

// Empty: nothing to say against it.
std::string Examination::judge_certificate(const fs::path& file, const std::string& pem) const {
  const std::string name = file.filename().string();
  const std::vector<CertificateFacts> facts = read_certificates(pem);
  if (facts.empty()) return name + " cannot be read";
  const CertificateFacts& leaf = facts.front();
  if (leaf.not_after < Time::now()) return name + " expired on " + leaf.not_after.to_string();
  const std::string& authority = name.starts_with("serving-") ? bundle_ : client_ca_;
  if (!authority.empty() && !is_signed_by(pem, authority))
    return name + " is signed by another CA (" + leaf.issuer + ")";
  const bool kubelets = name == "client-kubelet.crt";
  if (kubelets && leaf.common_name != "system:node:" + node_) return name + " belongs to " + leaf.common_name;
  return "";
}

DoctorStep Examination::agent_certificates() {
  const fs::path dir = options_.agent_dir.empty() ? fs::path(program_.agent_dir) : options_.agent_dir;
  std::vector<std::string> good, bad;
  for (const std::string& name :
       {std::string("client-kubelet.crt"), std::string("serving-kubelet.crt"), std::string("client-kube-proxy.crt"),
        std::string(program_.controller_stem) + ".crt"}) {
    const Result<std::string> pem = read_file(dir / name);
    if (!pem && pem.error().code == Errc::not_found) continue;
    const std::string complaint = pem ? judge_certificate(name, *pem) : name + " may not be read by this user";
    if (complaint.empty())
      good.push_back(name);
    else
      bad.push_back(complaint);
  }
  if (!bad.empty())
    return warn(join(bad, "; ") +
                    ": agents ask for new ones at every start, but those from v1.26.2 on show the old "
                    "one as well",
                {{"remove what an earlier life left behind; the agent gets new ones with its token",
                  "sudo systemctl stop " + std::string(program_.agent_service) + " && sudo rm -f " +
                      shell_word((dir / "client-kubelet.crt").string()) + " " +
                      shell_word((dir / "client-kubelet.key").string()) + " && sudo systemctl start " +
                      std::string(program_.agent_service)}});
  if (good.empty()) return ok("none in " + dir.string() + ": this machine has not joined before");
  return ok(join(good) + (client_ca_.empty() ? ": not expired" : ": not expired, and signed by this cluster"));
}

}  // namespace

std::string_view name_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::ok: return "ok";
    case Outcome::warning: return "warn";
    case Outcome::failure: return "FAIL";
    case Outcome::skipped: return "skip";
  }
  fatal("an outcome without a name");
}

const DoctorStep* Diagnosis::first_failure() const {
  for (const DoctorStep& step : steps)
    if (step.outcome == Outcome::failure) return &step;
  return nullptr;
}

Diagnosis examine(const DoctorOptions& options, const std::function<void(const DoctorStep&)>& on_step) {
  return Examination(options).run(on_step);
}

}  // namespace ledger::api
