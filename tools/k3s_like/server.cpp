#include "tools/k3s_like/server.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstring>
#include <thread>

#include "ledger/credentials.h"
#include "ledger/csv.h"

namespace ledger::k3s_like {
namespace {

namespace json = boost::json;

// Chains are looked at per request, as k3s does, never by TLS.
int accept_any_certificate(int, X509_STORE_CTX*) { return 1; }

bool fail_io(const std::string& what, Result<void>* result) {
  *result = Error{Errc::io, what + ": " + std::strerror(errno)};
  return false;
}

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    if (comma > at) out.emplace_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return out;
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of("\",\r\n") == std::string::npos && !text.starts_with(' ')) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

std::uint16_t bound_port(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET ? reinterpret_cast<sockaddr_in&>(address).sin_port
                                            : reinterpret_cast<sockaddr_in6&>(address).sin6_port);
}

int listen_on(const std::string& host, unsigned short port, Result<void>* result) {
  sockaddr_in v4{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {}, .sin_zero = {}};
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  const bool is_v4 = ::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1;
  if (!is_v4 && ::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) != 1)
    return *result = Error{Errc::invalid, "--listen: '" + host + "' is no address"}, -1;
  const int fd = ::socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const auto* address = is_v4 ? reinterpret_cast<const sockaddr*>(&v4) : reinterpret_cast<const sockaddr*>(&v6);
  if (::bind(fd, address, is_v4 ? sizeof v4 : sizeof v6) != 0 || ::listen(fd, 4096) != 0) {
    fail_io("cannot listen on " + host + ":" + std::to_string(port), result);
    ::close(fd);
    return -1;
  }
  return fd;
}

}  // namespace

bool Caller::is_in(std::string_view group) const {
  return std::find(groups.begin(), groups.end(), group) != groups.end();
}

Headers json_headers() { return {{"Content-Type", "application/json"}}; }

std::string status_body(int code, std::string_view reason, std::string_view message) {
  json::object status{
      {"kind", "Status"}, {"apiVersion", "v1"}, {"metadata", json::object()}, {"status", "Failure"}};
  status["message"] = message;
  status["reason"] = reason;
  status["code"] = code;
  return json::serialize(status) + "\n";
}

// ---- start -----------------------------------------------------------------------------------------------

Result<std::unique_ptr<Server>> Server::open(const ServerOptions& options) {
  auto issuer = Issuer::open(options.dir, Time::now(), true);
  if (!issuer) return issuer.error();
  std::unique_ptr<Server> server(new Server(std::move(*issuer)));
  server->options_ = options;
  if (const auto read = server->read_users(); !read) return read.error();
  const auto front = read_file(options.dir / "tls/request-header-ca.crt");
  if (!front) return front.error();
  const std::unique_ptr<BIO, FreeWith<BIO_free_all>> bio(
      BIO_new_mem_buf(front->data(), static_cast<int>(front->size())));
  const std::unique_ptr<X509, FreeWith<X509_free>> authority(
      PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  server->front_proxy_ca_.reset(X509_STORE_new());
  if (!authority || X509_STORE_add_cert(server->front_proxy_ca_.get(), authority.get()) != 1)
    return Error{Errc::invalid, "tls/request-header-ca.crt is no certificate"};
  if (!options.log.empty() && (server->log_ = std::fopen(options.log.c_str(), "ae")) == nullptr)
    return Error{Errc::io, "cannot write '" + options.log + "'"};
  if (const auto made = server->make_tls(); !made) return made.error();
  return server;
}

Result<void> Server::read_users() {
  for (const auto& [name, users] : {std::pair{"cred/passwd", &users_}, std::pair{"cred/bearer", &bearers_}}) {
    const auto text = read_foreign_secret(options_.dir / name);
    if (!text && text.error().code == Errc::not_found && users == &bearers_) continue;
    if (!text) return text.error();
    CsvReader reader(text->reveal());
    for (CsvRecord record;;) {
      const auto more = reader.read(&record);
      if (!more) return more.error();
      if (!*more) break;
      if (record.columns.size() < 3)
        return Error{Errc::invalid, std::string(name) + ": a line has fewer than 3 columns"};
      const auto column = [&record](std::size_t i) { return std::string(record.columns[i].reveal()); };
      users->push_back({column(0), column(1), split(record.columns.size() > 3 ? column(3) : "")});
    }
  }
  return {};
}

Result<void> Server::make_tls() {
  std::vector<std::string> names;
  if (const auto pem = read_file(options_.dir / "tls/serving-kube-apiserver.crt"))
    names = names_in_certificate(*pem);
  const auto certificate = issuer_.issue_listener(names, "cluster.local", Time::now());
  if (!certificate) return certificate.error();
  tls_.reset(SSL_CTX_new(TLS_server_method()));
  must(tls_ != nullptr && SSL_CTX_set_min_proto_version(tls_.get(), TLS1_2_VERSION) == 1, "SSL_CTX");
  const auto bio_of = [](std::string_view text) {
    return std::unique_ptr<BIO, FreeWith<BIO_free_all>>(
        BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  };
  const auto leaf_bio = bio_of(certificate->leaf_pem), key_bio = bio_of(certificate->key_pem.reveal());
  const std::unique_ptr<X509, FreeWith<X509_free>> leaf(
      PEM_read_bio_X509(leaf_bio.get(), nullptr, nullptr, nullptr));
  const std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>> key(
      PEM_read_bio_PrivateKey(key_bio.get(), nullptr, nullptr, nullptr));
  must(SSL_CTX_use_certificate(tls_.get(), leaf.get()) == 1 && SSL_CTX_use_PrivateKey(tls_.get(), key.get()) == 1,
       "SSL_CTX");
  SSL_CTX_set_verify(tls_.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_cert_verify_callback(
      tls_.get(), [](X509_STORE_CTX* store, void*) { return accept_any_certificate(1, store); }, nullptr);
  SSL_CTX_set_session_cache_mode(tls_.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(tls_.get(), SSL_OP_NO_TICKET);
  SSL_CTX_set_num_tickets(tls_.get(), 0);
  SSL_CTX_set_mode(tls_.get(), SSL_MODE_AUTO_RETRY);
  return {};
}

Result<void> Server::run() {
  sigset_t stop;
  sigemptyset(&stop);
  for (const int number : {SIGTERM, SIGINT}) sigaddset(&stop, number);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  Result<void> failed;
  const int listener = listen_on(options_.listen, options_.port, &failed);
  if (listener < 0) return failed;
  options_.port = bound_port(listener);
  std::printf("ready %u\n", unsigned{options_.port});
  std::fflush(stdout);
  std::thread([this, listener] {
    for (std::uint64_t number = 1;; ++number) {
      const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd >= 0)
        std::thread(&Server::serve, this, fd, number).detach();
      else
        std::this_thread::sleep_for(std::chrono::milliseconds(10));  // no descriptors left
    }
  }).detach();
  int got = 0;
  sigwait(&stop, &got);
  log({{"event", "stopped"}});
  std::_Exit(0);  // every connection is closed by the system
}

std::string Server::advertised() const {
  return options_.advertise.empty() ? options_.listen + ":" + std::to_string(options_.port) : options_.advertise;
}

// ---- connections -----------------------------------------------------------------------------------------

void Server::serve(int fd, std::uint64_t number) {
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (control().contains("refuse")) {
    ::close(fd);
    return;
  }
  Connection connection(fd, tls_.get());
  if (!connection.handshake()) return;
  while (serve_one(connection, number)) {
  }
}

bool Server::serve_one(Connection& connection, std::uint64_t number) {
  Exchange exchange(connection);
  if (!exchange.read_head()) {
    if (exchange.status() != 0) log({{"event", "refused"}, {"connection", number}, {"status", exchange.status()}});
    return false;
  }
  const Request& request = exchange.request();
  const auto event = [&](std::string_view what) {
    return json::object{
        {"event", what}, {"connection", number}, {"method", request.method}, {"target", request.target}};
  };
  json::object arrived = event("request");
  if (const std::string node = request.header("k3s-node-name"); !node.empty()) arrived["node"] = node;
  log(arrived);
  const json::object spoil = control();
  const auto* only = spoil.if_contains("only");
  const bool spoilt =
      only == nullptr || (only->is_string() && request.path.starts_with(std::string_view(only->as_string())));
  const auto has = [&](std::string_view key) { return spoilt && spoil.contains(key); };
  const auto* delay = spoil.if_contains("delay_ms");
  std::this_thread::sleep_for(
      options_.delay + std::chrono::milliseconds(spoilt && delay && delay->is_int64() ? delay->as_int64() : 0));
  const std::string certificate = connection.peer_certificate();
  Visit visit{*this, exchange, certificate, number};
  if (has("hang")) {
    for (int i = 0; i < 6000 && control().contains("hang"); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return false;
  }
  if (has("drop")) return false;
  if (has("garbage")) return exchange.raw().write("\x01\x02 this is no HTTP\r\n\r\n"), false;
  if (const auto* status = spoil.if_contains("status"); spoilt && status != nullptr && status->is_int64()) {
    const int code = static_cast<int>(status->as_int64());
    exchange.answer(code, json_headers(), status_body(code, "InternalError", "spoilt on purpose"));
  } else if (!serve_supervisor(visit)) {
    serve_kube(visit);
  }
  json::object answered = event("answer");
  answered["status"] = exchange.status();
  log(answered);
  return exchange.finish();
}

json::object Server::control() const {
  const auto text = read_file(options_.dir / "control.json");
  if (!text) return {};
  boost::system::error_code failed;
  const json::value value = json::parse(*text, failed);
  return !failed && value.is_object() ? value.as_object() : json::object();
}

void Server::log(const json::object& event) {
  if (log_ == nullptr) return;
  const std::string line = json::serialize(event) + "\n";
  const std::lock_guard lock(log_mutex_);
  std::fwrite(line.data(), 1, line.size(), log_);
  std::fflush(log_);
}

// ---- who asks --------------------------------------------------------------------------------------------

Caller Server::by_basic(const Request& request) const {
  Caller caller;
  const std::string value = request.header("authorization");
  if (!same_name(value.substr(0, 6), "Basic ")) return caller;
  caller.refused = true;
  caller.why = "invalid username/password combination";
  const auto credential = BasicCredential::parse(value);
  if (!credential) return caller;
  for (const User& user : users_)
    if (user.name == credential->user && equal_in_constant_time(user.password, credential->password.reveal()))
      return {.user = user.name, .groups = user.groups, .extra = {}, .how = "basic", .refused = false, .why = ""};
  return caller;
}

Caller Server::by_certificate(const std::string& certificate) const {
  Caller caller;
  if (certificate.empty()) return caller;
  const auto identity = issuer_.authenticate(certificate, Time::now());
  if (identity)
    return {.user = identity->common_name,
            .groups = identity->organizations,
            .extra = {},
            .how = "x509",
            .refused = false,
            .why = ""};
  caller.refused = true;
  caller.why = "x509: " + identity.error().message;
  return caller;
}

Caller Server::supervisor_caller(const Request& request, const std::string& certificate) const {
  Caller basic = by_basic(request);
  if (basic.how.empty() || basic.refused) {
    Caller shown = by_certificate(certificate);
    if (!shown.how.empty() || shown.refused) basic = std::move(shown);
  }
  if (basic.how.empty() && !basic.refused) basic.how = "anonymous";
  return basic;
}

bool Server::front_proxy_verifies(const std::string& der) const {
  const ErrorScope scope;
  const unsigned char* bytes = bytes_of(der);
  const std::unique_ptr<X509, FreeWith<X509_free>> certificate(
      d2i_X509(nullptr, &bytes, static_cast<long>(der.size())));
  const std::unique_ptr<X509_STORE_CTX, FreeWith<X509_STORE_CTX_free>> context(X509_STORE_CTX_new());
  if (!certificate || X509_STORE_CTX_init(context.get(), front_proxy_ca_.get(), certificate.get(), nullptr) != 1)
    return false;
  X509_STORE_CTX_set_purpose(context.get(), X509_PURPOSE_SSL_CLIENT);
  if (X509_verify_cert(context.get()) != 1) return false;
  char name[128] = "";
  X509_NAME_get_text_by_NID(X509_get_subject_name(certificate.get()), NID_commonName, name, sizeof name);
  return std::string_view(name) == "system:auth-proxy";  // --requestheader-allowed-names
}

Caller Server::kube_caller(const Request& request, const std::string& certificate) const {
  const std::string claimed = request.header("x-remote-user");
  if (!certificate.empty() && !claimed.empty() && front_proxy_verifies(certificate)) {
    Caller caller{.user = claimed,
                  .groups = request.all("x-remote-group"),
                  .extra = {},
                  .how = "front_proxy",
                  .refused = false,
                  .why = ""};
    for (const auto& [name, value] : request.headers)
      if (to_lower(name).starts_with("x-remote-extra-")) caller.extra.emplace_back(to_lower(name), value);
    caller.groups.push_back("system:authenticated");
    return caller;
  }
  Caller caller = by_certificate(certificate);
  const std::string authorization = request.header("authorization");
  if (caller.how.empty() && same_name(authorization.substr(0, 7), "Bearer ")) {
    caller.refused = true;
    for (const User& user : bearers_)
      if (equal_in_constant_time(user.password, trim(authorization.substr(7))))
        caller = {
            .user = user.name, .groups = user.groups, .extra = {}, .how = "bearer", .refused = false, .why = ""};
  }
  if (caller.how.empty()) {
    Caller basic = by_basic(request);
    if (!basic.how.empty() || basic.refused) caller = std::move(basic);
  }
  if (caller.refused) return caller;
  if (caller.how.empty())
    return {.user = "system:anonymous",
            .groups = {"system:unauthenticated"},
            .extra = {},
            .how = "anonymous",
            .refused = false,
            .why = ""};
  caller.groups.push_back("system:authenticated");
  return caller;
}

// ---- node passwords --------------------------------------------------------------------------------------

std::vector<std::pair<std::string, std::string>> Server::read_node_passwords() const {
  std::vector<std::pair<std::string, std::string>> entries;
  const auto text = read_foreign_secret(options_.dir / "cred/node-passwd", 64 << 20);
  if (!text) return entries;
  CsvReader reader(text->reveal());
  for (CsvRecord record;;) {
    const auto more = reader.read(&record);
    if (!more || !*more) return entries;
    if (record.columns.size() >= 2) entries.emplace_back(record.columns[1].reveal(), record.columns[0].reveal());
  }
}

bool Server::write_node_passwords(const std::vector<std::pair<std::string, std::string>>& entries) const {
  std::string text;
  for (const auto& [node, password] : entries) text += csv_field(password) + "," + node + "," + node + ",\n";
  const std::string path = (options_.dir / "cred/node-passwd").string(), fresh = path + ".tmp";
  std::FILE* file = std::fopen(fresh.c_str(), "we");
  if (file == nullptr) return false;
  ::fchmod(::fileno(file), 0600);
  const bool whole = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  return std::fclose(file) == 0 && whole && std::rename(fresh.c_str(), path.c_str()) == 0;
}

Server::Verdict Server::ensure_node_password(const std::string& node, const std::string& password) {
  const std::lock_guard lock(passwords_mutex_);
  auto entries = read_node_passwords();
  for (const auto& [name, stored] : entries)
    if (name == node) return equal_in_constant_time(stored, password) ? Verdict::verified : Verdict::mismatch;
  entries.emplace_back(node, password);
  return write_node_passwords(entries) ? Verdict::stored : Verdict::failed;
}

std::vector<std::string> Server::nodes() {
  const std::lock_guard lock(passwords_mutex_);
  std::vector<std::string> names;
  for (const auto& entry : read_node_passwords()) names.push_back(entry.first);
  return names;
}

bool Server::forget_node(const std::string& node) {
  const std::lock_guard lock(passwords_mutex_);
  auto entries = read_node_passwords();
  if (std::erase_if(entries, [&](const auto& entry) { return entry.first == node; }) == 0) return false;
  return write_node_passwords(entries);
}

}  // namespace ledger::k3s_like
