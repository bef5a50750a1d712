#include "api/tls_link.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <ctime>
#include <vector>

#include "ledger/openssl_handles.h"

namespace ledger::api {

namespace {

using Clock = std::chrono::steady_clock;

using BioPtr = std::unique_ptr<BIO, FreeWith<BIO_free_all>>;
using X509Ptr = std::unique_ptr<X509, FreeWith<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, FreeWith<GENERAL_NAMES_free>>;
using AddressesPtr = std::unique_ptr<addrinfo, FreeWith<freeaddrinfo>>;
using SslPtr = std::unique_ptr<SSL, FreeWith<SSL_free>>;

bool is_ip_address(const std::string& host) {
  unsigned char bytes[sizeof(in6_addr)];
  return inet_pton(AF_INET, host.c_str(), bytes) == 1 || inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

// ---- PEM -------------------------------------------------------------------------------------------------

BioPtr read_only_bio(std::string_view text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::string contents_of(BIO* memory) {
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(memory, &bytes);
  return {bytes, static_cast<std::size_t>(size)};
}

std::vector<X509Ptr> parse_certificates(std::string_view pem) {
  const ErrorScope errors;  // the end of the text is an error to OpenSSL
  std::vector<X509Ptr> out;
  const BioPtr bio = read_only_bio(pem);
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) out.emplace_back(certificate);
  return out;
}

KeyPtr parse_key(const Secret& pem) {
  const ErrorScope errors;
  const BioPtr bio = read_only_bio(pem.reveal());
  // A key that asks for a passphrase is refused instead of asking the terminal.
  const auto no_passphrase = [](char*, int, int, void*) { return -1; };
  return KeyPtr(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr));
}

// ---- What Go would say about a certificate ---------------------------------------------------------------

Time time_of(const ASN1_TIME* value) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(value, &parts) != 1) return {};
  return Time{}.plus_seconds(timegm(&parts));
}

std::string join(const std::vector<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out += (out.empty() ? "" : ", ") + item;
  return out;
}

// The DNS names or the IP addresses a certificate carries.
std::vector<std::string> alternative_names(X509* certificate, int type) {
  std::vector<std::string> out;
  const NamesPtr names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != type) continue;
    const unsigned char* bytes = ASN1_STRING_get0_data(name->d.ia5);
    const auto size = static_cast<std::size_t>(ASN1_STRING_length(name->d.ia5));
    if (type == GEN_DNS) {
      out.push_back(printable({reinterpret_cast<const char*>(bytes), size}, 253));
    } else if (size == 4 || size == 16) {
      char text[INET6_ADDRSTRLEN] = "";
      inet_ntop(size == 4 ? AF_INET : AF_INET6, bytes, text, sizeof text);
      out.emplace_back(text);
    }
  }
  return out;
}

bool names_host(X509* leaf, const std::string& host) {
  if (is_ip_address(host)) return X509_check_ip_asc(leaf, host.c_str(), 0) == 1;
  return X509_check_host(leaf, host.c_str(), host.size(), X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, nullptr) == 1;
}

// Go looks at the leaf's dates and names before it builds a chain; OpenSSL does it the other way round.
std::string x509_error(X509_STORE_CTX* store, const std::string& host) {
  X509* leaf = X509_STORE_CTX_get0_cert(store);
  const Time now = Time{Time::now().micros / 1'000'000 * 1'000'000};
  const Time not_before = time_of(X509_get0_notBefore(leaf));
  const Time not_after = time_of(X509_get0_notAfter(leaf));
  if (now < not_before || not_after < now)
    return "x509: certificate has expired or is not yet valid: current time " + now.to_string() + " is " +
           (now < not_before ? "before " + not_before.to_string() : "after " + not_after.to_string());
  if (!names_host(leaf, host)) {
    const bool ip = is_ip_address(host);
    const std::vector<std::string> names = alternative_names(leaf, ip ? GEN_IPADD : GEN_DNS);
    if (!names.empty()) return "x509: certificate is valid for " + join(names) + ", not " + host;
    if (ip) return "x509: cannot validate certificate for " + host + " because it doesn't contain any IP SANs";
    return "x509: certificate is not valid for any names, but wanted to match " + host;
  }
  const int error = X509_STORE_CTX_get_error(store);
  switch (error) {
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE: return "x509: certificate signed by unknown authority";
    case X509_V_ERR_INVALID_PURPOSE: return "x509: certificate specifies an incompatible key usage";
    default: return std::string("x509: ") + X509_verify_cert_error_string(error);
  }
}

// ---- TLS contexts ----------------------------------------------------------------------------------------

// SSL_CTX counts its users, but a shared_ptr keeps OpenSSL's types out of the header.
using Context = std::shared_ptr<SSL_CTX>;

Context fresh_context() {
  Context context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  if (!context) fatal("OpenSSL cannot make a TLS context");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  // Go takes a connection's end between two records for an end, with or without close_notify.
  SSL_CTX_set_options(context.get(), SSL_OP_IGNORE_UNEXPECTED_EOF);
  return context;
}

Context os_context() {
  const ErrorScope errors;
  Context context = fresh_context();
  SSL_CTX_set_default_verify_paths(context.get());  // a system without roots trusts nobody, as it should
  return context;
}

Result<void> trust_bundle(SSL_CTX* context, const std::string& pem) {
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  // Go trusts every certificate of its pool, not only self-signed ones.
  X509_VERIFY_PARAM_set_flags(X509_STORE_get0_param(store), X509_V_FLAG_PARTIAL_CHAIN);
  const std::vector<X509Ptr> certificates = parse_certificates(pem);
  for (const X509Ptr& certificate : certificates) X509_STORE_add_cert(store, certificate.get());
  if (certificates.empty())
    return Error{Errc::invalid,
                 "x509: certificate signed by unknown authority: the bundle to trust holds no certificate"};
  return {};
}

Result<void> use_client_certificate(SSL_CTX* context, const TlsOptions& options) {
  if (const Result<void> matching = check_key_pair(options.cert_pem, options.key_pem); !matching)
    return matching.error();
  const std::vector<X509Ptr> chain = parse_certificates(options.cert_pem);
  const KeyPtr key = parse_key(options.key_pem);
  const ErrorScope errors;
  bool ok =
      SSL_CTX_use_certificate(context, chain.front().get()) == 1 && SSL_CTX_use_PrivateKey(context, key.get()) == 1;
  for (std::size_t i = 1; ok && i < chain.size(); ++i) ok = SSL_CTX_add1_chain_cert(context, chain[i].get()) == 1;
  if (!ok) return Error{Errc::invalid, "tls: OpenSSL refuses the client certificate"};
  return {};
}

Result<Context> make_context(const TlsOptions& options) {
  const bool shared = options.cert_pem.empty();
  // Loading the system's roots takes milliseconds; a load driver makes thousands of clients.
  static const Context os = os_context();
  static const Context anyone = fresh_context();
  if (shared && options.trust == HttpsTrust::os_roots) return os;
  if (shared && options.trust == HttpsTrust::anyone) return anyone;
  Context context = options.trust == HttpsTrust::os_roots ? os_context() : fresh_context();
  if (options.trust == HttpsTrust::bundle)
    if (const auto ok = trust_bundle(context.get(), options.bundle_pem); !ok) return ok.error();
  if (!options.cert_pem.empty())
    if (const auto ok = use_client_certificate(context.get(), options); !ok) return ok.error();
  return context;
}

// ---- One connection --------------------------------------------------------------------------------------

std::string endpoint_text(const sockaddr* address, socklen_t size) {
  char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "";
  getnameinfo(address, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  return (address->sa_family == AF_INET6 ? "[" + std::string(host) + "]" : std::string(host)) + ":" + port;
}

// Go's texts of system errors are the C library's with a small first letter.
std::string system_error(int error) {
  char buffer[128];
  std::string text = strerror_r(error, buffer, sizeof buffer);
  return to_lower(text.substr(0, 1)) + text.substr(1);
}

// Names of crypto/tls for alert numbers.
std::string alert_text(int alert) {
  switch (alert) {
    case 10: return "unexpected message";
    case 20: return "bad record MAC";
    case 40: return "handshake failure";
    case 42: return "bad certificate";
    case 43: return "unsupported certificate";
    case 44: return "revoked certificate";
    case 45: return "expired certificate";
    case 46: return "unknown certificate";
    case 47: return "illegal parameter";
    case 48: return "unknown certificate authority";
    case 49: return "access denied";
    case 50: return "error decoding message";
    case 51: return "error decrypting message";
    case 70: return "protocol version not supported";
    case 71: return "insufficient security level";
    case 80: return "internal error";
    case 112: return "unrecognized name";
    case 116: return "certificate required";
    case 120: return "no application protocol";
    default: return "alert(" + std::to_string(alert) + ")";
  }
}

}  // namespace

// OpenSSL reads and writes through a BIO of ours, so that waiting, deadlines and SIGPIPE are in one place.
struct TlsLink::State {
  // What became of an operation that did not succeed.
  enum class Trouble { none, timeout, ended, system, tls, certificate };

  ~State() {
    if (fd >= 0) ::close(fd);
  }

  Result<void> dial(const TlsOptions& options);
  Result<void> open(const TlsOptions& options, Context tls);
  Error error() const;
  void hang_up();
  // Finds out what a failed SSL_* call met.
  void judge(int ssl_result);

  bool wait_for(short events);
  bool connect_to(const addrinfo& address);
  void prepare_verification(HttpsTrust trust);
  int on_verify(X509_STORE_CTX* store);
  static BIO_METHOD* bio_method();
  ssize_t carry(bool reading, char* bytes, std::size_t size);
  int transfer(BIO* bio, bool reading, char* bytes, int size);

  Context context;
  SslPtr ssl;
  int fd = -1;
  std::optional<TimePoint> deadline;
  const std::atomic<bool>* interrupt = nullptr;
  Stage stage = Stage::dialing;
  Trouble trouble = Trouble::none;
  int errno_of_trouble = 0;
  bool writing = false;
  std::string host;
  std::string tls_error, certificate_error;
  std::string local, remote;
};

// False at the deadline.
bool TlsLink::State::wait_for(short events) {
  constexpr int kLookAround_ms = 100;
  for (;;) {
    int timeout_ms = -1;
    if (deadline) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now()).count();
      timeout_ms = static_cast<int>(std::clamp<std::int64_t>(left, 0, 1'000'000'000));
    }
    const bool in_steps = interrupt != nullptr && (timeout_ms < 0 || timeout_ms > kLookAround_ms);
    if (interrupt != nullptr && *interrupt) return false;
    pollfd entry{fd, events, 0};
    const int ready = ::poll(&entry, 1, in_steps ? kLookAround_ms : timeout_ms);
    if (ready > 0) return true;
    if (ready == 0 && !in_steps) return false;
    if (ready < 0 && errno != EINTR) return true;  // whatever is wrong, the operation itself will say it
  }
}

bool TlsLink::State::connect_to(const addrinfo& address) {
  remote = endpoint_text(address.ai_addr, address.ai_addrlen);
  if (fd >= 0) ::close(fd);
  fd = ::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  trouble = Trouble::system;
  errno_of_trouble = errno;
  if (fd < 0) return false;
  if (::connect(fd, address.ai_addr, address.ai_addrlen) != 0) {
    errno_of_trouble = errno;
    if (errno != EINPROGRESS) return false;
    if (!wait_for(POLLOUT)) {
      trouble = Trouble::timeout;
      return false;
    }
    socklen_t size = sizeof errno_of_trouble;
    ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &errno_of_trouble, &size);
    if (errno_of_trouble != 0) return false;
  }
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  sockaddr_storage own{};
  socklen_t size = sizeof own;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size);
  local = endpoint_text(reinterpret_cast<sockaddr*>(&own), size);
  trouble = Trouble::none;
  return true;
}

Result<void> TlsLink::State::dial(const TlsOptions& options) {
  interrupt = options.interrupt;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const HostPort& to = options.connect_to;
  const int problem = getaddrinfo(to.host.c_str(), std::to_string(to.port).c_str(), &hints, &found);
  const AddressesPtr addresses(found);
  if (problem != 0)
    return Error{Errc::unavailable, "dial tcp: lookup " + to.host + ": " +
                                        (problem == EAI_NONAME ? "no such host" : gai_strerror(problem))};
  const addrinfo* next = found;
  while (next != nullptr && !connect_to(*next) && trouble != Trouble::timeout) next = next->ai_next;
  if (trouble != Trouble::none) return error();
  return {};
}

Result<void> TlsLink::State::open(const TlsOptions& options, Context tls) {
  if (const Result<void> dialed = dial(options); !dialed) return dialed;
  stage = Stage::handshaking;
  context = std::move(tls);
  ssl.reset(SSL_new(context.get()));
  BIO* bio = BIO_new(bio_method());
  if (!ssl || bio == nullptr) fatal("OpenSSL cannot make a TLS connection");
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl.get(), bio, bio);
  host = options.url_host().host;
  prepare_verification(options.trust);
  ERR_clear_error();
  const int result = SSL_connect(ssl.get());
  if (result == 1) return {};
  judge(result);
  return error();
}

void TlsLink::State::prepare_verification(HttpsTrust trust) {
  // RFC 6066: no server name for an address.
  if (!is_ip_address(host)) SSL_set_tlsext_host_name(ssl.get(), host.c_str());
  if (trust == HttpsTrust::anyone) {
    SSL_set_verify(ssl.get(), SSL_VERIFY_NONE, nullptr);
    return;
  }
  X509_VERIFY_PARAM* param = SSL_get0_param(ssl.get());
  X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  if (is_ip_address(host))
    X509_VERIFY_PARAM_set1_ip_asc(param, host.c_str());
  else
    X509_VERIFY_PARAM_set1_host(param, host.c_str(), host.size());
  SSL_set_app_data(ssl.get(), this);
  SSL_set_verify(ssl.get(), SSL_VERIFY_PEER, [](int ok, X509_STORE_CTX* store) {
    if (ok == 1) return 1;
    void* connection = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    return static_cast<State*>(SSL_get_app_data(static_cast<SSL*>(connection)))->on_verify(store);
  });
}

int TlsLink::State::on_verify(X509_STORE_CTX* store) {
  certificate_error = x509_error(store, host);
  // OpenSSL would choose among unknown_ca, certificate_expired, ...; Go sends bad_certificate (42) for all.
  X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
  return 0;
}

BIO_METHOD* TlsLink::State::bio_method() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ledger link");
    BIO_meth_set_read(made, [](BIO* bio, char* into, int size) {
      return static_cast<State*>(BIO_get_data(bio))->transfer(bio, true, into, size);
    });
    BIO_meth_set_write(made, [](BIO* bio, const char* from, int size) {
      return static_cast<State*>(BIO_get_data(bio))->transfer(bio, false, const_cast<char*>(from), size);
    });
    BIO_meth_set_ctrl(made,
                      [](BIO*, int command, long, void*) -> long { return command == BIO_CTRL_FLUSH ? 1 : 0; });
    return made;
  }();
  return method;
}

// -1: `trouble` says why.
ssize_t TlsLink::State::carry(bool reading, char* bytes, std::size_t size) {
  writing = !reading;
  for (;;) {
    const ssize_t done = reading ? ::recv(fd, bytes, size, 0) : ::send(fd, bytes, size, MSG_NOSIGNAL);
    if (done >= 0) return done;
    if (errno == EINTR) continue;
    if (errno != EAGAIN) {
      trouble = Trouble::system;
      errno_of_trouble = errno;
      return -1;
    }
    if (wait_for(reading ? POLLIN : POLLOUT)) continue;
    trouble = Trouble::timeout;
    return -1;
  }
}

int TlsLink::State::transfer(BIO* bio, bool reading, char* bytes, int size) {
  BIO_clear_retry_flags(bio);
  const ssize_t done = carry(reading, bytes, static_cast<std::size_t>(size));
  // To OpenSSL a timeout is "not now": the session stays whole, and a read may be tried again later.
  if (done < 0 && trouble == Trouble::timeout) {
    if (reading)
      BIO_set_retry_read(bio);
    else
      BIO_set_retry_write(bio);
  }
  return static_cast<int>(done);
}

void TlsLink::State::judge(int ssl_result) {
  if (!certificate_error.empty()) trouble = Trouble::certificate;
  const int kind = SSL_get_error(ssl.get(), ssl_result);
  const unsigned long error = ERR_peek_error();
  ERR_clear_error();
  if (trouble != Trouble::none) return;
  if (kind == SSL_ERROR_ZERO_RETURN || (kind == SSL_ERROR_SYSCALL && error == 0)) {
    trouble = Trouble::ended;
    return;
  }
  const int reason = ERR_GET_REASON(error);
  const char* text = ERR_reason_error_string(error);
  trouble = reason == SSL_R_UNEXPECTED_EOF_WHILE_READING ? Trouble::ended : Trouble::tls;
  if (reason > SSL_AD_REASON_OFFSET)
    tls_error = "remote error: tls: " + alert_text(reason - SSL_AD_REASON_OFFSET);
  else if (reason == SSL_R_WRONG_VERSION_NUMBER)
    tls_error = "tls: first record does not look like a TLS handshake";
  else
    tls_error = std::string("tls: ") + (text != nullptr ? text : "unknown error");
}

Error TlsLink::State::error() const {
  const Errc code = stage == Stage::dialing ? Errc::unavailable : Errc::io;
  switch (trouble) {
    case Trouble::none: fatal("an error of a connection without trouble");
    case Trouble::certificate: return Error{Errc::invalid, certificate_error};
    case Trouble::tls: return Error{code, tls_error};
    case Trouble::ended: return Error{code, stage == Stage::reading_body ? "unexpected EOF" : "EOF"};
    case Trouble::timeout:
      return Error{code,
                   stage == Stage::reading_body
                       ? "context deadline exceeded (Client.Timeout or context cancellation while reading body)"
                       : "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"};
    case Trouble::system: break;
  }
  if (stage == Stage::dialing)
    return Error{code, "dial tcp " + remote + ": connect: " + system_error(errno_of_trouble)};
  const std::string verb = writing ? "write" : "read";
  return Error{code, verb + " tcp " + local + "->" + remote + ": " + verb + ": " + system_error(errno_of_trouble)};
}

void TlsLink::State::hang_up() {
  if (fd < 0) return;
  deadline = Clock::now();
  // After a fatal error TLS has said its last word already.
  const bool healthy = trouble == Trouble::none || trouble == Trouble::timeout || trouble == Trouble::ended;
  if (ssl && SSL_is_init_finished(ssl.get()) && healthy) SSL_shutdown(ssl.get());
  ERR_clear_error();
  ::close(fd);
  fd = -1;
}

// ---- TlsLink ---------------------------------------------------------------------------------------------

Result<TlsContext> TlsContext::make(const TlsOptions& options) {
  const Result<Context> context = make_context(options);
  if (!context) return context.error();
  return TlsContext(*context);
}

TlsLink::TlsLink() : state_(std::make_unique<State>()) {}
TlsLink::TlsLink(TlsLink&&) noexcept = default;
TlsLink& TlsLink::operator=(TlsLink&&) noexcept = default;
TlsLink::~TlsLink() = default;

void TlsLink::set_deadline(std::optional<TimePoint> deadline) { state_->deadline = deadline; }
void TlsLink::set_stage(Stage stage) { state_->stage = stage; }
bool TlsLink::ended() const { return state_->trouble == State::Trouble::ended; }
bool TlsLink::timed_out() const { return state_->trouble == State::Trouble::timeout; }
Error TlsLink::error() const { return state_->error(); }
void TlsLink::hang_up() { state_->hang_up(); }
void TlsLink::end_writing() {
  state_->trouble = State::Trouble::none;
  if (state_->ssl) SSL_shutdown(state_->ssl.get());
  ERR_clear_error();
  ::shutdown(state_->fd, SHUT_WR);
}
const std::string& TlsLink::local() const { return state_->local; }
const std::string& TlsLink::remote() const { return state_->remote; }

std::string TlsLink::peer_certificates() const {
  if (!state_->ssl) return {};
  const BioPtr out(BIO_new(BIO_s_mem()));
  const STACK_OF(X509)* chain = SSL_get_peer_cert_chain(state_->ssl.get());
  for (int i = 0; i < sk_X509_num(chain); ++i) PEM_write_bio_X509(out.get(), sk_X509_value(chain, i));
  return contents_of(out.get());
}

Result<void> TlsLink::open(const TlsOptions& options, const TlsContext& context) {
  return state_->open(options, std::static_pointer_cast<SSL_CTX>(context.native_));
}

Result<void> TlsLink::open_plain(const TlsOptions& options) {
  const Result<void> dialed = state_->dial(options);
  state_->stage = Stage::awaiting_headers;
  return dialed;
}

std::size_t TlsLink::unacknowledged() const {
  int bytes = 0;
  return state_->fd >= 0 && ::ioctl(state_->fd, SIOCOUTQ, &bytes) == 0 ? static_cast<std::size_t>(bytes) : 0;
}

std::size_t TlsLink::read(char* into, std::size_t size) {
  state_->trouble = State::Trouble::none;
  if (!state_->ssl) {
    const ssize_t got = state_->carry(true, into, size);
    if (got == 0) state_->trouble = State::Trouble::ended;
    return got > 0 ? static_cast<std::size_t>(got) : 0;
  }
  std::size_t done = 0;
  const int result = SSL_read_ex(state_->ssl.get(), into, size, &done);
  if (result != 1) state_->judge(result);
  return result == 1 ? done : 0;
}

bool TlsLink::write(std::string_view bytes) {
  state_->trouble = State::Trouble::none;
  while (!state_->ssl && !bytes.empty()) {
    const ssize_t sent = state_->carry(false, const_cast<char*>(bytes.data()), bytes.size());
    if (sent < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  if (!state_->ssl) return true;
  std::size_t done = 0;
  const int result = SSL_write_ex(state_->ssl.get(), bytes.data(), bytes.size(), &done);
  if (result != 1) state_->judge(result);
  return result == 1;
}

// ---- HostPort --------------------------------------------------------------------------------------------

Result<HostPort> HostPort::parse(std::string_view text, std::uint16_t default_port) {
  const auto bad = [&] {
    return Error{Errc::invalid,
                 "'" + printable(text, 100) + "' is not host:port (an IPv6 address goes in brackets)"};
  };
  HostPort out{"", default_port};
  std::string_view port;
  if (text.starts_with('[')) {
    const auto end = text.find(']');
    if (end == std::string_view::npos) return bad();
    out.host = text.substr(1, end - 1);
    port = text.substr(end + 1);
  } else {
    const auto colon = text.find(':');
    out.host = text.substr(0, colon);
    if (colon != std::string_view::npos) port = text.substr(colon);
  }
  if (out.host.empty()) return bad();
  if (port.empty()) return out;
  const char* end = port.data() + port.size();
  const auto [rest, problem] = std::from_chars(port.data() + 1, end, out.port);
  if (port[0] != ':' || problem != std::errc() || rest != end || out.port == 0) return bad();
  return out;
}

std::string HostPort::to_string() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

// ---- Key pairs -------------------------------------------------------------------------------------------

Result<void> check_key_pair(std::string_view cert_pem, const Secret& key_pem) {
  const auto bad = [](std::string_view why) { return Error{Errc::invalid, "tls: " + std::string(why)}; };
  if (cert_pem.find("-----BEGIN CERTIFICATE-----") == std::string_view::npos)
    return bad("failed to find any PEM data in certificate input");
  if (key_pem.reveal().find("PRIVATE KEY-----") == std::string_view::npos)
    return bad("failed to find any PEM data in key input");
  const std::vector<X509Ptr> chain = parse_certificates(cert_pem);
  if (chain.empty()) return bad("failed to parse certificate");
  const KeyPtr key = parse_key(key_pem);
  if (!key) return bad("failed to parse private key");
  const ErrorScope errors;
  if (X509_check_private_key(chain.front().get(), key.get()) != 1)
    return bad("private key does not match public key");
  return {};
}

// ---- Looking at certificates -----------------------------------------------------------------------------

namespace {

using StoreContextPtr = std::unique_ptr<X509_STORE_CTX, FreeWith<X509_STORE_CTX_free>>;
using StackPtr = std::unique_ptr<STACK_OF(X509), FreeWith<[](STACK_OF(X509) * stack) { sk_X509_free(stack); }>>;

std::string name_text(const X509_NAME* name) {
  const BioPtr out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253 & ~static_cast<unsigned long>(ASN1_STRFLGS_ESC_MSB));
  return printable(contents_of(out.get()), 300);
}

std::string common_name_of(const X509* certificate) {
  char text[256] = "";
  X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, text, sizeof text);
  return printable(text, 255);
}

CertificateFacts facts_of(X509* certificate) {
  CertificateFacts facts{.subject = name_text(X509_get_subject_name(certificate)),
                         .issuer = name_text(X509_get_issuer_name(certificate)),
                         .common_name = common_name_of(certificate),
                         .not_before = time_of(X509_get0_notBefore(certificate)),
                         .not_after = time_of(X509_get0_notAfter(certificate)),
                         .names = alternative_names(certificate, GEN_DNS)};
  for (std::string& address : alternative_names(certificate, GEN_IPADD)) facts.names.push_back(std::move(address));
  return facts;
}

// The certificates from `first` on, without owning them.
StackPtr stack_of(const std::vector<X509Ptr>& certificates, std::size_t first) {
  StackPtr stack(sk_X509_new_null());
  for (std::size_t i = first; i < certificates.size(); ++i) sk_X509_push(stack.get(), certificates[i].get());
  return stack;
}

}  // namespace

std::vector<CertificateFacts> read_certificates(std::string_view pem) {
  const ErrorScope errors;
  std::vector<CertificateFacts> out;
  for (const X509Ptr& certificate : parse_certificates(pem)) out.push_back(facts_of(certificate.get()));
  return out;
}

Result<void> verify_chain(std::string_view chain_pem, const TlsOptions& trust, const std::string& host) {
  const Result<Context> context = make_context(trust);
  if (!context) return context.error();
  const std::vector<X509Ptr> chain = parse_certificates(chain_pem);
  if (chain.empty()) return Error{Errc::invalid, "tls: failed to parse certificate"};
  const StackPtr rest = stack_of(chain, 1);
  const StoreContextPtr check(X509_STORE_CTX_new());
  X509_STORE_CTX_init(check.get(), SSL_CTX_get_cert_store(context->get()), chain.front().get(), rest.get());
  X509_STORE_CTX_set_default(check.get(), "ssl_server");
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(check.get());
  X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  if (is_ip_address(host))
    X509_VERIFY_PARAM_set1_ip_asc(param, host.c_str());
  else
    X509_VERIFY_PARAM_set1_host(param, host.c_str(), host.size());
  const ErrorScope errors;
  if (X509_verify_cert(check.get()) != 1) return Error{Errc::invalid, x509_error(check.get(), host)};
  return {};
}

bool certificate_names(std::string_view pem, const std::string& host) {
  const std::vector<X509Ptr> chain = parse_certificates(pem);
  return !chain.empty() && names_host(chain.front().get(), host);
}

bool is_signed_by(std::string_view pem, std::string_view bundle_pem) {
  const ErrorScope errors;
  const std::vector<X509Ptr> chain = parse_certificates(pem);
  bool found = false;
  for (const X509Ptr& authority : parse_certificates(bundle_pem))
    found = found || (!chain.empty() && X509_verify(chain.front().get(), X509_get0_pubkey(authority.get())) == 1);
  return found;
}

// ---- Small change ----------------------------------------------------------------------------------------

std::string random_bytes(std::size_t size) {
  std::string out(size, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(out.data()), static_cast<int>(size)) != 1)
    fatal("the random generator failed");
  return out;
}

std::string sha1(std::string_view bytes) {
  std::string digest(EVP_MAX_MD_SIZE, '\0');
  unsigned size = 0;
  EVP_Digest(bytes.data(), bytes.size(), reinterpret_cast<unsigned char*>(digest.data()), &size, EVP_sha1(),
             nullptr);
  digest.resize(size);
  return digest;
}

}  // namespace ledger::api
