#include "api/adopt_check.h"

#include <sys/stat.h>

#include <algorithm>
#include <boost/json.hpp>
#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <cstring>
#include <set>

#include "api/agent_checks.h"
#include "api/http_date.h"
#include "api/https_client.h"
#include "api/port_owner.h"
#include "api/reachability.h"
#include "ledger/credentials.h"
#include "ledger/event_log.h"
#include "ledger/import_read.h"
#include "ledger/issuer.h"
#include "replay/remedies.h"

namespace ledger::api {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

using Clock = std::chrono::steady_clock;
using Outcome = DoctorStep::Outcome;
using replay::shell_word;
using Headers = std::vector<std::pair<std::string, std::string>>;

constexpr const char* kProxyUser = "system:ledger-check";
constexpr const char* kNodeUser = "system:node:ledger-check";
// To be read by nodes (this one is 404) and administrators; to everybody else forbidden by name. Changes nothing.
constexpr const char* kForbiddenPath = "/api/v1/nodes/ledger-check";
constexpr std::uint16_t kKubeApiPort = 6443;
// Our certificates for the way to an upstream are good for a day.
constexpr double kClockWarning_s = 60, kClockFailure_s = 12 * 3600;
constexpr int kOldestMinor = 17, kNewestMinor = 36, kSecretsSinceMinor = 20;

DoctorStep ok(std::string detail) { return {"", "", Outcome::ok, std::move(detail), {}}; }
DoctorStep skip(std::string why) { return {"", "", Outcome::skipped, std::move(why), {}}; }
DoctorStep warn(std::string detail, std::vector<Remedy> remedies = {}) {
  return {"", "", Outcome::warning, std::move(detail), std::move(remedies)};
}
DoctorStep fail(std::string detail, std::vector<Remedy> remedies = {}) {
  return {"", "", Outcome::failure, std::move(detail), std::move(remedies)};
}

std::string join(const std::vector<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out.append(out.empty() ? "" : ", ").append(item);
  return out;
}

// "403 Forbidden: <message of the Status, or body>"
std::string said(const HttpsResponse& response) {
  std::string text = status_message(response.body);
  if (text.empty()) text = std::string(trim(response.body));
  return response.status_line() + (text.empty() ? "" : ": " + printable(text, 200));
}

// ---- What is here --------------------------------------------------------------------------------------------

// The directory, read once, and what about it is judged without a server.
class Here {
 public:
  explicit Here(const AdoptCheckOptions& options) : options_(options), program_(*options.program) {}

  DoctorStep permissions();
  DoctorStep signing();
  DoctorStep passwords() const;
  DoctorStep port() const;

  const Issuer* issuer() const { return issuer_ ? &*issuer_ : nullptr; }
  bool has_front_proxy() const { return has_front_proxy_; }
  const Secret& node_password() const { return node_password_; }

 private:
  struct Known {
    bool has_log = false;
    std::set<std::string, std::less<>> bound;
    bool secrets_imported = false;
  };
  Result<Known> known_names() const;
  Result<std::vector<std::string>> names_in_node_passwd() const;

  const AdoptCheckOptions& options_;
  const Program& program_;
  bool readable_ = true;  // without setting modes back
  std::optional<Issuer> issuer_;
  bool has_front_proxy_ = false;
  Secret node_password_;
};

DoctorStep Here::permissions() {
  std::vector<std::string> open, missing;
  for (const char* name : {"tls/client-ca.key", "tls/server-ca.key", "tls/request-header-ca.key", "cred/passwd"}) {
    const fs::path path = options_.directory / name;
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) {
      if (errno != ENOENT) missing.push_back(path.string() + " (" + std::strerror(errno) + ")");
      continue;
    }
    if ((info.st_mode & 0077) != 0) open.push_back(path.string());
  }
  if (!missing.empty()) {
    readable_ = false;
    return fail("cannot look at " + join(missing), {{"run this again as root (sudo)", ""}});
  }
  if (!open.empty()) {
    readable_ = false;
    std::string words;
    for (const std::string& path : open) words += " " + shell_word(path);
    return fail(
        "others on this machine may read " + join(open) + ": whoever has these can be anybody in the cluster",
        {{"let only their owner read them, then run this again", "sudo chmod 0600" + words}});
  }
  struct stat info;
  if (::stat(options_.data_dir.c_str(), &info) == 0 && (info.st_mode & 0077) != 0)
    return warn(options_.data_dir.string() + " can be entered by others; `ledger serve` sets it back to 0700");
  return ok("keys and passwords can be read by their owner only");
}

DoctorStep Here::signing() {
  if (!readable_) return skip("not tried: a step above failed");
  Result<Issuer> issuer = Issuer::open(options_.directory, Time::now(), true, program_);
  if (!issuer)
    return fail("the certificate authorities cannot be used: " + issuer.error().message,
                {{"take the whole directory from a server, as root",
                  "sudo ls -l " + shell_word((options_.directory / "tls").string())}});
  issuer_.emplace(std::move(*issuer));
  const Result<Secret> passwd = read_foreign_secret(options_.directory / "cred/passwd");
  Result<JoinPasswords> passwords = passwd ? read_join_passwords(*passwd, options_.directory / "cred/passwd")
                                           : Result<JoinPasswords>(passwd.error());
  if (!passwords) return fail("the join passwords cannot be read: " + passwords.error().message);
  node_password_ = std::move(passwords->node);
  const Result<IssuedCertificate> proxy = issuer_->issue_front_proxy(Time::now());
  has_front_proxy_ = proxy.has_value();
  if (!proxy)
    return fail("client certificates could not be passed on to the kube-apiserver: " + proxy.error().message,
                {{"put both files beside the other CAs",
                  "sudo cp " + std::string(program_.server_dir) + "/tls/request-header-ca.{crt,key} " +
                      shell_word((options_.directory / "tls").string()) + "/"}});
  return ok("client CA, server CA and request-header CA have their keys");
}

Result<Here::Known> Here::known_names() const {
  Known known;
  std::error_code ignored;
  if (!fs::exists(options_.data_dir / "events" / "CURRENT", ignored)) return known;
  const auto log = EventLog::follow({.dir = options_.data_dir / "events"});
  if (!log) return log.error();
  known.has_log = true;
  const Result<void> read = (*log)->each_node([&known](std::string_view name, const Result<NodeState>& state) {
    if (state && state->is_bound()) known.bound.emplace(name);
    return true;
  });
  if (!read) return read.error();
  const Result<void> imports =
      (*log)->scan(Index::server_wide, "", 1, UINT64_MAX, [&known](Seq, const Result<Record>& record) {
        const auto* finished = record ? as<ImportFinished>(*record) : nullptr;
        if (finished != nullptr && finished->origin == "secrets") known.secrets_imported = true;
        return true;
      });
  if (!imports) return imports.error();
  return known;
}

// Errc::not_found: the server keeps them elsewhere.
Result<std::vector<std::string>> Here::names_in_node_passwd() const {
  const fs::path file = options_.directory / "cred/node-passwd";
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return Error{Errc::not_found, "there is no cred/node-passwd"};
  Result<ImportInput> input = ImportInput::open(file);
  if (!input) return input.error();
  std::vector<std::string> names;
  ImportSink sink;
  sink.entries = [&names](std::vector<ImportEntry> entries) -> Result<void> {
    for (ImportEntry& entry : entries) names.push_back(std::move(entry.node));
    return {};
  };
  sink.left_out = [](LeftOut) {};
  const auto no_fingerprint = [](const Secret&) { return Fingerprint(); };
  if (const auto read = read_import(ImportKind::node_passwd, *input, no_fingerprint, sink); !read)
    return read.error();
  return names;
}

DoctorStep Here::passwords() const {
  const std::string data = " --data-dir " + shell_word(options_.data_dir.string());
  const Result<Known> known = known_names();
  if (!known) return warn("what the ledger knows cannot be read: " + known.error().message);
  const Result<std::vector<std::string>> names = names_in_node_passwd();
  if (!names && names.error().code != Errc::not_found)
    return warn("cred/node-passwd cannot be read: " + names.error().message);
  if (names) {
    const auto unknown = static_cast<std::size_t>(std::count_if(
        names->begin(), names->end(), [&](const std::string& name) { return !known->bound.contains(name); }));
    if (unknown == 0)
      return ok("all " + std::to_string(names->size()) + " names of cred/node-passwd are bound here too");
    return warn(std::to_string(unknown) + " of " + std::to_string(names->size()) +
                    " names of cred/node-passwd are not bound in the ledger: in observe mode that shows only in "
                    "would_have; in enforce mode whoever comes first gets such a name",
                {{"take them over after `ledger adopt`, before enforce mode",
                  "sudo ledger import node-passwd " +
                      shell_word((options_.directory / "cred/node-passwd").string()) + data}});
  }
  const std::string bound = std::to_string(known->bound.size()) + " names are bound in the ledger";
  if (known->secrets_imported) return ok("the cluster's Secrets were imported; " + bound);
  return warn(
      "there is no cred/node-passwd, so the nodes' passwords are in the cluster's Secrets (v1.20 and later), and "
      "none were imported; " +
          bound + ": in enforce mode whoever comes first gets a name that is not",
      {{"take them over after `ledger adopt`, before enforce mode",
        "kubectl -n kube-system get secrets -o json | sudo ledger import secrets -" + data}});
}

DoctorStep Here::port() const {
  const std::uint16_t wanted = options_.listen_port != 0 ? options_.listen_port : program_.usual_port;
  const std::string port = std::to_string(wanted);
  const std::optional<PortOwner> owner = find_port_owner(wanted);
  if (!owner) return ok(port + " is free on this machine");
  const std::string who = owner->pid == 0 ? std::string("another program (root sees which)")
                                          : printable(owner->command, 40) + ", pid " + std::to_string(owner->pid);
  if (owner->command == "ledger") return ok(port + " is held by " + who);
  return warn(
      port + " is held here by " + who +
          ": the ledger cannot have it until that is moved; if it will run on "
          "another machine, this does not matter",
      {{"see who has it", "sudo ss -ltnp 'sport = :" + port + "'"},
       {"or let the ledger take another port, and give that to agents", "ledger serve --https-port 7443 ..."}});
}

// ---- One upstream ----------------------------------------------------------------------------------------------

class There {
 public:
  There(const AdoptCheckOptions& options, const Here& here, std::string url)
      : options_(options), program_(*options.program), here_(here), url_(std::move(url)) {}

  void run(const std::function<void(DoctorStep)>& take);

 private:
  struct Plan {
    const char* name;
    const char* title;
    DoctorStep (There::*look)();
  };
  static const Plan kPlan[];

  DoctorStep connection();
  DoctorStep certificate();
  DoctorStep cluster_ca();
  DoctorStep clock();
  DoctorStep token();
  DoctorStep client_ca();
  DoctorStep node_certificate();
  DoctorStep front_proxy();
  DoctorStep version();
  DoctorStep addresses();
  DoctorStep names();

  // After this failure nothing else makes sense.
  DoctorStep give_up(std::string detail, std::vector<Remedy> remedies = {}) {
    possible_ = false;
    return fail(std::move(detail), std::move(remedies));
  }

  struct Ask {
    std::string path;
    bool kubernetes = false;
    bool with_token = false;
    std::string as_user = {};  // by way of the front proxy
    const IssuedCertificate* certificate = nullptr;
  };
  Result<HttpsResponse> get(const Ask& ask) const;
  Result<HttpsResponse> get_as(const std::string& path, const std::string& user) const;
  std::string path(std::string_view name) const { return std::string(program_.path_prefix).append(name); }
  std::uint16_t kube_port() const;
  bool is_own(const std::string& address) const;
  Result<std::vector<std::string>> told_addresses() const;
  std::vector<Remedy> advertise() const;
  std::string logs() const { return "sudo journalctl -n 50 -u " + std::string(program_.server_service); }

  const AdoptCheckOptions& options_;
  const Program& program_;
  const Here& here_;
  std::string url_;
  bool possible_ = true;
  HostPort authority_;
  std::vector<std::string> addresses_;
  HostPort reached_;
  std::string chain_;
  bool names_host_ = false;
  std::optional<HttpsResponse> cacerts_;
  Time asked_;
};

const There::Plan There::kPlan[] = {
    {"connection", "connection", &There::connection},
    {"certificate", "its certificate", &There::certificate},
    {"ca", "cluster CA", &There::cluster_ca},
    {"clock", "clock", &There::clock},
    {"token", "join token", &There::token},
    {"client-ca", "client CA", &There::client_ca},
    {"node-certificate", "node certificates", &There::node_certificate},
    {"front-proxy", "front proxy", &There::front_proxy},
    {"version", "version", &There::version},
    {"addresses", "agents' addresses", &There::addresses},
    {"names", "names", &There::names},
};

void There::run(const std::function<void(DoctorStep)>& take) {
  possible_ = here_.issuer() != nullptr;
  for (const Plan& plan : kPlan) {
    DoctorStep step = possible_ ? (this->*plan.look)() : skip("not tried: a step above failed");
    step.name = plan.name;
    step.title = plan.title;
    take(std::move(step));
  }
}

std::uint16_t There::kube_port() const {
  if (options_.upstream_kube_port != 0) return options_.upstream_kube_port;
  return program_.supervisor_port != 0 ? kKubeApiPort : authority_.port;
}

DoctorStep There::connection() {
  const auto url = boost::urls::parse_uri(url_);
  const std::vector<Remedy> example = {
      {"name it as --upstream https://10.0.0.1:6443 (rke2: its supervisor's port, 9345)", ""}};
  if (!url || url->scheme() != "https" || url->host().empty() || url->has_userinfo() || url->has_query() ||
      !(url->encoded_path().empty() || url->encoded_path() == "/"))
    return give_up("this is no address of a server", example);
  authority_ = {std::string(url->host_address()), url->has_port() ? url->port_number() : kKubeApiPort};  // as serve
  const Result<std::vector<std::string>> found = resolve(authority_.host, options_.deadline);
  if (!found)
    return give_up("the host cannot be looked up: " + found.error().message,
                   {{"ask the resolver as the ledger does", "getent ahosts " + shell_word(authority_.host)}});
  addresses_ = *found;
  std::string trouble;
  for (const ConnectAttempt& attempt : try_connect(addresses_, authority_.port, options_.deadline)) {
    if (attempt.error == 0 && reached_.port == 0) reached_ = {attempt.address, authority_.port};
    if (attempt.error != 0)
      trouble += (trouble.empty() ? "" : "; ") + attempt.address + ": " + to_lower(std::strerror(attempt.error));
  }
  if (reached_.port != 0)
    return trouble.empty() ? ok(reached_.to_string()) : warn(reached_.to_string() + " answers, but " + trouble);
  return give_up(trouble, {{"see that it runs and listens on this port",
                            "sudo ss -ltnp 'sport = :" + std::to_string(authority_.port) + "'; " + logs()}});
}

DoctorStep There::certificate() {
  HttpsOptions options;
  options.connect_to = reached_;
  options.authority = authority_;
  options.trust = HttpsTrust::anyone;
  const Result<TlsContext> context = TlsContext::make(options);
  if (!context) return give_up(context.error().message);
  TlsLink link;
  link.set_deadline(Clock::now() + options_.deadline);
  if (const Result<void> opened = link.open(options, *context); !opened)
    return give_up("the TLS handshake fails: " + opened.error().message, {{"see who answers there", logs()}});
  const std::string chain = link.peer_certificates();
  link.hang_up();
  options.trust = HttpsTrust::bundle;
  options.bundle_pem = here_.issuer()->server_ca_pem();
  const std::vector<CertificateFacts> shown = read_certificates(chain);
  if (shown.empty()) return give_up("it shows no certificate that can be read");
  names_host_ = certificate_names(chain, authority_.host);
  // Agents verify this address, because they come through a load balancer of their own: it is always there.
  const std::string name = names_host_ ? authority_.host : "127.0.0.1";
  if (const Result<void> trusted = verify_chain(chain, options, name); !trusted)
    return give_up("its certificate is not one of the directory's server CA (" + trusted.error().message +
                       "); it was issued by " + shown.front().issuer +
                       ": another cluster, or TLS is broken up on the way",
                   {{"adopt the directory of a server of this cluster", ""},
                    {"see who answers there",
                     "openssl s_client -connect " + shell_word(authority_.to_string()) + " </dev/null"}});
  chain_ = chain;
  // That keeps the ledger out, but not us.
  if (!names_host_)
    return fail("its certificate does not name " + printable(authority_.host, 100) +
                    ", so the ledger would not trust it; "
                    "it names " +
                    join(shown.front().names),
                {{"use one of these names in --upstream, or add this one on the server (tls-san), and restart it",
                  "sudoedit " + std::string(program_.config_file)}});
  return ok("signed by the directory's server CA, names " + authority_.host + ", until " +
            shown.front().not_after.to_string().substr(0, 10));
}

Result<HttpsResponse> There::get(const Ask& ask) const {
  HttpsOptions options;
  options.connect_to = {reached_.host, ask.kubernetes ? kube_port() : authority_.port};
  options.authority = {names_host_ ? authority_.host : "127.0.0.1", options.connect_to.port};
  options.trust = HttpsTrust::bundle;
  options.bundle_pem = here_.issuer()->server_ca_pem();
  options.timeout = options_.deadline;
  if (ask.certificate != nullptr) {
    options.cert_pem = ask.certificate->leaf_pem;
    options.key_pem = ask.certificate->key_pem.clone();
  }
  Result<HttpsClient> client = HttpsClient::open(std::move(options));
  if (!client) return client.error();
  HttpsRequest request;
  request.target = ask.path;
  if (!ask.as_user.empty()) request.headers.emplace_back("X-Remote-User", ask.as_user);
  if (ask.with_token) {
    std::string header = "Basic " + base64("node:" + std::string(here_.node_password().reveal()));
    request.authorization = Secret(header);
    explicit_bzero(header.data(), header.size());
  }
  return client->send(request);
}

Result<HttpsResponse> There::get_as(const std::string& path, const std::string& user) const {
  const Result<IssuedCertificate> proxy = here_.issuer()->issue_front_proxy(Time::now());
  if (!proxy) return proxy.error();
  return get({.path = path, .kubernetes = true, .as_user = user, .certificate = &*proxy});
}

DoctorStep There::cluster_ca() {
  asked_ = Time::now();
  Result<HttpsResponse> response = get({.path = "/cacerts"});
  if (!response)
    return give_up("GET /cacerts is not answered: " + response.error().message, {{"see what it says", logs()}});
  if (!response->header("Ledger-Request-Id").empty())
    return give_up("this is a ledger, not a " + std::string(program_.name) +
                       " server: a ledger in front of itself, or of another",
                   {{"name the k3s server's own address, that of its new port where it was moved", ""}});
  if (response->status != 200)
    return give_up("GET /cacerts: " + said(*response) + ": no server that agents can join",
                   {{"see what it says", logs()}});
  cacerts_ = std::move(*response);
  if (cacerts_->body != here_.issuer()->server_ca_pem())
    return fail(
        "the CA that it hands out is not byte for byte that of the directory: the hash in agents' tokens would not "
        "fit what the ledger hands out",
        {{"compare the two", "curl -sk " + shell_word("https://" + authority_.to_string() + "/cacerts") +
                                 " | diff - " + shell_word((options_.directory / "tls/server-ca.crt").string())},
         {"adopt the directory as it is now, from a server of this cluster", ""}});
  const Result<HttpsResponse> ping = get({.path = "/ping"});
  if (!ping || ping->status != 200)
    return fail("GET /ping, by which the ledger sees whether it answers: " +
                (ping ? said(*ping) : ping.error().message));
  return ok("/cacerts is byte for byte the directory's tls/server-ca.crt; /ping answers");
}

DoctorStep There::clock() {
  if (!cacerts_) return skip("not asked");
  const Result<Time> date = parse_http_date(cacerts_->header("Date"));
  if (!date) return skip("it sends no Date to compare with");
  const double behind_s = seconds_between(asked_, *date), apart_s = behind_s < 0 ? -behind_s : behind_s;
  const std::string text = "its clock says " + date->to_string() + ", " +
                           std::to_string(static_cast<std::int64_t>(apart_s)) + " s " +
                           (behind_s < 0 ? "behind" : "ahead of") + " this machine's";
  const std::vector<Remedy> remedies = {
      {"let both clocks be kept", "sudo timedatectl set-ntp true && timedatectl"}};
  // A Date has whole seconds.
  if (apart_s <= kClockWarning_s + 1)
    return ok("agrees with this machine's within " + std::to_string(static_cast<std::int64_t>(apart_s) + 1) + " s");
  if (apart_s > kClockFailure_s)
    return fail(text + ": certificates made here for a day may not be valid there", remedies);
  return warn(text + ": records and its log will not agree in time", remedies);
}

DoctorStep There::token() {
  const Result<HttpsResponse> response = get({.path = path("config"), .with_token = true});
  if (!response)
    return fail("the config document is not answered: " + response.error().message, {{"see what it says", logs()}});
  if (response->status == 401 || response->status == 403)
    return fail("it refuses the password of user `node` in the directory's cred/passwd (" + said(*response) +
                    "): agents' tokens are not what the directory has",
                {{"take cred/passwd as it is now from a server of this cluster: adopt that", ""}});
  if (response->status == 503)
    return fail("it is not ready: " + said(*response), {{"wait, and look again", logs()}});
  if (response->status != 200) return fail("the config document: " + said(*response));
  const auto document = read_cluster_document(response->body, Generation::G5, {});
  if (!document)
    return fail("the config document cannot be read: " + document.error().message +
                "; without it agents could not be told the cluster's networks in enforce mode");
  return ok("user `node` is accepted, and the config document can be read");
}

DoctorStep There::client_ca() {
  const Result<HttpsResponse> response = get({.path = path("client-ca.crt"), .with_token = true});
  if (!response) return fail(response.error().message);
  if (response->status != 200) return skip("not shown: " + said(*response));
  if (response->body != here_.issuer()->client_ca_pem())
    return fail(
        "it has another client CA than the directory: what the ledger signs is worth nothing in this cluster",
        {{"adopt the directory as it is now, from a server of this cluster", ""}});
  return ok("byte for byte the directory's tls/client-ca.crt");
}

// The kube-apiserver says whom it takes us for; the supervisor takes certificates instead of the token since
// v1.26.2.
DoctorStep There::node_certificate() {
  const Result<IssuedCertificate> made = here_.issuer()->issue_client(kNodeUser, {"system:nodes"}, Time::now());
  if (!made) return fail("no certificate can be signed: " + made.error().message);
  const Result<HttpsResponse> supervisor = get({.path = path("config"), .certificate = &*made});
  if (supervisor && supervisor->status == 200) return ok("a certificate signed here is accepted by its supervisor");
  const Result<HttpsResponse> kube = get({.path = kForbiddenPath, .kubernetes = true, .certificate = &*made});
  if (kube && (kube->status == 404 || (kube->status == 403 && kube->body.find(kNodeUser) != std::string::npos)))
    return ok(
        "a certificate signed here is accepted by its kube-apiserver; its supervisor asks for the token too, as "
        "those before v1.26.2 do");
  const std::string heard = !kube ? kube.error().message : said(*kube);
  const std::vector<Remedy> remedies = {{"see what it says about it", logs()}};
  if (!kube || kube->status >= 500)
    return warn("cannot be told: the supervisor answers " +
                    (supervisor ? said(*supervisor) : supervisor.error().message) +
                    ", the kube-apiserver: " + heard,
                remedies);
  return fail("a certificate signed with the directory's client CA is not accepted (" + heard +
                  "): tunnels, and agents from v1.26.2 on, would be refused",
              remedies);
}

DoctorStep There::front_proxy() {
  if (!here_.has_front_proxy()) return skip("not tried: there is no request-header CA");
  const Result<HttpsResponse> response = get_as(kForbiddenPath, kProxyUser);
  const std::vector<Remedy> remedies = {
      {"see that its kube-apiserver has --requestheader-client-ca-file with this CA (k3s' own "
       "tls/request-header-ca.crt)",
       logs()}};
  if (!response || response->status >= 500)
    return warn(
        "cannot be told: the kube-apiserver answers " + (response ? said(*response) : response.error().message),
        remedies);
  if (response->status == 403 && response->body.find(kProxyUser) != std::string::npos)
    return ok("its kube-apiserver believes who we say is asking");
  if (response->status == 401 || response->status == 403)
    return fail(
        "its kube-apiserver does not believe X-Remote-User from a certificate of the directory's request-header CA "
        "(" +
            said(*response) +
            "): in enforce mode, and for everything that is not registration, nodes would be "
            "nobody there",
        remedies);
  return warn("cannot be told: a user without rights may read " + std::string(kForbiddenPath) + " (" +
              response->status_line() + ")");
}

DoctorStep There::version() {
  Result<HttpsResponse> response = get_as("/version", kProxyUser);
  if (!response || response->status != 200) response = get({.path = "/version", .kubernetes = true});
  if (!response) return skip("not known: " + response.error().message);
  if (response->status != 200) return skip("not shown: " + said(*response));
  json::error_code error;
  const json::value value = json::parse(response->body, error);
  const json::value* text = !error && value.is_object() ? value.get_object().if_contains("gitVersion") : nullptr;
  if (text == nullptr || !text->is_string()) return skip("not known: /version cannot be read");
  const std::string version = printable(std::string_view(text->get_string()), 60);
  int minor = 0;
  if (std::sscanf(version.c_str(), "v1.%d.", &minor) != 1)
    return warn(version + " is no version of k3s that is known here");
  const bool is_rke2 = version.find("+rke2") != std::string::npos, rke2_agents = program_.supervisor_port != 0;
  if (is_rke2 != rke2_agents && version.find('+') != std::string::npos)
    return fail(version + ", but the directory is " + std::string(program_.name) + "'s",
                {{"adopt the directory of a server of this cluster", ""}});
  if (minor < kOldestMinor || minor > kNewestMinor)
    return warn(version + ": the ledger was made for v1." + std::to_string(kOldestMinor) + " to v1." +
                std::to_string(kNewestMinor));
  return ok(version + (minor < kSecretsSinceMinor ? ": node passwords are in cred/node-passwd"
                                                  : ": node passwords are in Secrets of kube-system"));
}

// What agents do: the supervisor's list; before v1.23.6 the kube-apiserver's endpoints, as the controller's user.
Result<std::vector<std::string>> There::told_addresses() const {
  const Result<HttpsResponse> list = get({.path = path("apiservers"), .with_token = true});
  if (list && list->status == 200) {
    const Result<std::vector<std::string>> read = read_apiservers(list->body);
    if (read && !read->empty()) return *read;
  }
  const Result<HttpsResponse> endpoints =
      get_as("/api/v1/namespaces/default/endpoints/kubernetes", std::string(program_.controller_user));
  if (!endpoints) return endpoints.error();
  if (endpoints->status != 200) return Error{Errc::unavailable, said(*endpoints)};
  return read_endpoints(endpoints->body);
}

bool There::is_own(const std::string& address) const {
  if (address == authority_.to_string()) return true;
  return std::any_of(addresses_.begin(), addresses_.end(), [&](const std::string& own) {
    return HostPort{own, authority_.port}.to_string() == address ||
           HostPort{own, kube_port()}.to_string() == address;
  });
}

std::vector<Remedy> There::advertise() const {
  const std::string file(program_.config_file);
  const std::string address =
      options_.agents_use.empty() ? "<the ledger's IP address>" : options_.agents_use.front();
  if (program_.supervisor_port != 0)
    return {{"advertise the ledger's address on every server: advertise-address in " + file + " (" + address +
                 "), and tls-san",
             "sudoedit " + file + " && sudo systemctl restart " + std::string(program_.server_service)}};
  return {{"advertise the ledger's address on every server: advertise-address, advertise-port and tls-san in " +
               file + " (" + address +
               "); where both are on one machine, https-listen-port moves k3s out of the way",
           "sudoedit " + file + " && sudo systemctl restart " + std::string(program_.server_service)}};
}

DoctorStep There::addresses() {
  const Result<std::vector<std::string>> told = told_addresses();
  if (!told)
    return warn("which addresses agents are told cannot be seen (" + told.error().message +
                "): if they are not the ledger's, agents leave it after their first contact");
  std::set<std::string> ours;
  for (const std::string& text : options_.agents_use) {
    const Result<HostPort> place = HostPort::parse(text, program_.usual_port);
    if (!place) return fail("--agents-use " + printable(text, 80) + ": " + place.error().message);
    ours.insert(place->to_string());
    if (const auto found = resolve(place->host, options_.deadline))
      for (const std::string& address : *found) {
        ours.insert(HostPort{address, place->port}.to_string());
        ours.insert(HostPort{address, kKubeApiPort}.to_string());
      }
  }
  std::vector<std::string> others, own;
  for (const std::string& address : *told) {
    if (!ours.contains(address)) others.push_back(printable(address, 80));
    if (is_own(address)) own.push_back(printable(address, 80));
  }
  const std::string list = "agents are told " + join(*told);
  const std::string leave =
      " after their first contact, past the ledger, and come back to it only when nothing answers "
      "there: it would see few registrations and no tunnels (in enforce mode it tells its own address)";
  if (ours.empty() && own.empty())
    return warn(list + ": let the ledger be what answers there (say where agents find it with --agents-use)",
                advertise());
  if (ours.empty()) return warn(list + ", this server's own: there they go" + leave, advertise());
  if (others.empty()) return ok(list + ": the ledger");
  return fail(list + "; not the ledger's: " + join(others) + ". There they go" + leave, advertise());
}

// The ledger has the adopted names and takes those of its upstreams' certificates over while it runs.
DoctorStep There::names() {
  std::set<std::string, std::less<>> known(options_.listener_names.begin(), options_.listener_names.end());
  for (const CertificateFacts& facts : read_certificates(chain_)) {
    known.insert(facts.names.begin(), facts.names.end());
    break;  // the leaf
  }
  std::vector<std::string> unnamed;
  std::string options;
  for (const std::string& text : options_.agents_use) {
    const Result<HostPort> place = HostPort::parse(text, program_.usual_port);
    if (!place || known.contains(place->host)) continue;
    unnamed.push_back(printable(place->host, 253));
    options += " --tls-san " + shell_word(place->host);
  }
  if (unnamed.empty())
    return ok("the ledger's certificate will have the adopted names and those of this server's: " +
              std::to_string(known.size()));
  return warn(
      "agents that verify " + join(unnamed) +
          " would not trust the ledger's certificate, which has the adopted names and those of this server's, "
          "unless it is told (its --advertise-address is named by itself)",
      {{"name it", "ledger serve" + options + " ..."}});
}

// ---- All of it -----------------------------------------------------------------------------------------------

// Servers choose what they say, and one could say a secret back.
void scrub(DoctorStep& step, const Secret& secret) {
  const std::string_view text = secret.reveal();
  if (text.size() < 4) return;
  for (auto at = step.detail.find(text); at != std::string::npos; at = step.detail.find(text))
    step.detail.replace(at, text.size(), "***");
}

}  // namespace

std::size_t AdoptCheckReport::count(Outcome outcome) const {
  return static_cast<std::size_t>(std::count_if(
      items.begin(), items.end(), [outcome](const auto& item) { return item.step.outcome == outcome; }));
}

AdoptCheckReport examine_adoption(const AdoptCheckOptions& options,
                                  const std::function<void(const AdoptCheckItem&)>& on_item) {
  AdoptCheckReport report;
  Here here(options);
  const auto take = [&](const std::string& upstream, DoctorStep step) {
    scrub(step, here.node_password());
    report.items.push_back({upstream, std::move(step)});
    if (on_item) on_item(report.items.back());
  };
  const auto local = [&](const char* name, const char* title, DoctorStep step) {
    step.name = name;
    step.title = title;
    take("", std::move(step));
  };
  local("permissions", "permissions", here.permissions());
  local("signing", "signing keys", here.signing());
  local("passwords", "node passwords", here.passwords());
  local("port", "local port", here.port());
  for (const std::string& url : options.upstreams)
    There(options, here, url).run([&](DoctorStep step) { take(printable(url, 200), std::move(step)); });
  return report;
}

}  // namespace ledger::api
