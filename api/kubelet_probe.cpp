#include "api/kubelet_probe.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <ctime>

#include "ledger/credentials.h"
#include "ledger/openssl_handles.h"

namespace ledger::api {

namespace json = boost::json;

namespace {

using Clock = std::chrono::steady_clock;
using End = TunnelConnection::End;
using Outcome = ProbeResult::Outcome;

constexpr int kMaxAtOnce = 4;
constexpr std::size_t kMaxStatusLine = 1024;
constexpr std::size_t kMaxTlsBytes = 1 << 20;  // of one probe, received

using ContextPtr = std::unique_ptr<SSL_CTX, FreeWith<SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, FreeWith<SSL_free>>;
using X509Ptr = std::unique_ptr<X509, FreeWith<X509_free>>;
using BioPtr = std::unique_ptr<BIO, FreeWith<BIO_free_all>>;
using BignumPtr = std::unique_ptr<BIGNUM, FreeWith<BN_free>>;

// ---- the certificate -------------------------------------------------------------------------------------

std::string name_text(const X509_NAME* name) {
  const BioPtr out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253 & ~static_cast<unsigned long>(ASN1_STRFLGS_ESC_MSB));
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return printable({text, static_cast<std::size_t>(size)}, 300);
}

std::string serial_text(const X509* certificate) {
  const BignumPtr number(ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr));
  if (!number) return "";
  std::string bytes(static_cast<std::size_t>(BN_num_bytes(number.get())), '\0');
  BN_bn2bin(number.get(), reinterpret_cast<unsigned char*>(bytes.data()));
  return to_hex(bytes);
}

ProbeResult::Certificate describe(const X509* certificate, long verify_result) {
  ProbeResult::Certificate out;
  out.subject = name_text(X509_get_subject_name(certificate));
  out.serial = serial_text(certificate);
  std::tm parts{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &parts) == 1)
    out.not_after = Time{}.plus_seconds(timegm(&parts));
  if (verify_result != X509_V_OK) out.distrust = X509_verify_cert_error_string(verify_result);
  return out;
}

// ---- one probe -------------------------------------------------------------------------------------------

class Probe {
 public:
  Probe(TunnelConnection& connection, Clock::time_point deadline, ProbeResult& result)
      : connection_(connection), deadline_(deadline), result_(result) {}

  void run(const std::string& server_ca_pem, const std::string& node);

 private:
  void prepare(const std::string& server_ca_pem, const std::string& node);
  bool handshake();
  bool ask();
  // Carries bytes until `step` can go on; false: the probe is over and `result_` says how.
  bool carry(int ssl_result, std::string_view doing);
  bool flush();
  bool fill(std::string_view doing);
  bool over(Outcome outcome, std::string detail);

  TunnelConnection& connection_;
  const Clock::time_point deadline_;
  ProbeResult& result_;
  ContextPtr context_;
  SslPtr ssl_;
  std::size_t received_ = 0;
};

bool Probe::over(Outcome outcome, std::string detail) {
  result_.outcome = outcome;
  result_.detail = std::move(detail);
  return false;
}

void Probe::prepare(const std::string& server_ca_pem, const std::string& node) {
  context_.reset(SSL_CTX_new(TLS_client_method()));
  if (context_ == nullptr) fatal("OpenSSL cannot make a TLS context");
  SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION);
  // The verdict on the certificate is part of the answer, not its end: it is looked at after the handshake.
  SSL_CTX_set_verify(context_.get(), SSL_VERIFY_NONE, nullptr);
  X509_STORE* store = SSL_CTX_get_cert_store(context_.get());
  X509_VERIFY_PARAM_set_flags(X509_STORE_get0_param(store), X509_V_FLAG_PARTIAL_CHAIN);
  const ErrorScope errors;  // the end of the text is an error to OpenSSL
  const BioPtr pem(BIO_new_mem_buf(server_ca_pem.data(), static_cast<int>(server_ca_pem.size())));
  while (const X509Ptr ca{PEM_read_bio_X509(pem.get(), nullptr, nullptr, nullptr)})
    X509_STORE_add_cert(store, ca.get());
  ssl_.reset(SSL_new(context_.get()));
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  if (ssl_ == nullptr || in == nullptr || out == nullptr) fatal("OpenSSL cannot make a TLS connection");
  BIO_set_mem_eof_return(in, -1);  // no bytes: not yet, instead of an end
  SSL_set_bio(ssl_.get(), in, out);
  SSL_set_connect_state(ssl_.get());
  SSL_set_tlsext_host_name(ssl_.get(), node.c_str());
  X509_VERIFY_PARAM* param = SSL_get0_param(ssl_.get());
  X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  X509_VERIFY_PARAM_set1_host(param, node.c_str(), node.size());
}

// What OpenSSL wants said goes to the agent.
bool Probe::flush() {
  char* bytes = nullptr;
  BIO* out = SSL_get_wbio(ssl_.get());
  const long size = BIO_get_mem_data(out, &bytes);
  if (size <= 0) return true;
  const End end = connection_.write({bytes, static_cast<std::size_t>(size)}, deadline_);
  BIO_reset(out);
  // Why the connection is over shows when it is read.
  return end != End::timed_out || over(Outcome::timed_out, "the agent takes no data");
}

bool Probe::fill(std::string_view doing) {
  const TunnelConnection::Chunk chunk = connection_.read(deadline_);
  const std::string while_doing = " " + std::string(doing);
  switch (chunk.end) {
    case End::none: break;
    case End::timed_out: return over(Outcome::timed_out, "no answer" + while_doing);
    case End::too_much: return over(Outcome::no_kubelet, "more data than a kubelet sends" + while_doing);
    case End::tunnel: return over(Outcome::tunnel_ended, chunk.why);
    case End::by_agent:
      // remotedialer reports a dial that failed and a connection that ended in the same way.
      if (received_ == 0 && chunk.why != "EOF") return over(Outcome::refused, chunk.why);
      return over(Outcome::no_kubelet, "the connection was closed" + while_doing + ": " + chunk.why);
  }
  received_ += chunk.bytes.size();
  if (received_ > kMaxTlsBytes) return over(Outcome::no_kubelet, "more data than a kubelet sends" + while_doing);
  BIO_write(SSL_get_rbio(ssl_.get()), chunk.bytes.data(), static_cast<int>(chunk.bytes.size()));
  return true;
}

bool Probe::carry(int ssl_result, std::string_view doing) {
  const int kind = SSL_get_error(ssl_.get(), ssl_result);
  const char* reason = ERR_reason_error_string(ERR_peek_error());
  const std::string said = reason != nullptr ? reason : "connection closed";
  ERR_clear_error();
  if (!flush()) return false;
  if (kind == SSL_ERROR_WANT_READ) return fill(doing);
  if (kind == SSL_ERROR_WANT_WRITE) return true;
  return over(Outcome::no_kubelet, "TLS failed " + std::string(doing) + ": " + said);
}

bool Probe::handshake() {
  constexpr std::string_view kDoing = "in the TLS handshake";
  for (;;) {
    ERR_clear_error();
    const int done = SSL_do_handshake(ssl_.get());
    if (done == 1) break;
    if (!carry(done, kDoing)) return false;
  }
  const X509Ptr certificate(SSL_get1_peer_certificate(ssl_.get()));
  if (certificate == nullptr) return over(Outcome::no_kubelet, "TLS without a certificate");
  result_.certificate = describe(certificate.get(), SSL_get_verify_result(ssl_.get()));
  return flush();
}

bool Probe::ask() {
  constexpr std::string_view kDoing = "to GET /healthz";
  constexpr std::string_view kRequest =
      "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:10250\r\nUser-Agent: ledger/" LEDGER_VERSION
      "\r\nConnection: close\r\n\r\n";
  for (;;) {
    ERR_clear_error();
    const int sent = SSL_write(ssl_.get(), kRequest.data(), static_cast<int>(kRequest.size()));
    if (sent > 0) break;
    if (!carry(sent, kDoing)) return false;
  }
  if (!flush()) return false;
  std::string line;
  while (line.find('\n') == std::string::npos) {
    char bytes[kMaxStatusLine];
    ERR_clear_error();
    const int got = SSL_read(ssl_.get(), bytes, sizeof bytes);
    if (got > 0) line.append(bytes, static_cast<std::size_t>(got));
    if (line.size() > kMaxStatusLine && line.find('\n') == std::string::npos)
      return over(Outcome::no_kubelet, "an answer to GET /healthz that is not HTTP");
    if (got <= 0 && !carry(got, kDoing)) return false;
  }
  line.resize(line.find('\n'));
  const bool http = line.starts_with("HTTP/1.") && line.size() >= 12 && line[8] == ' ';
  const int status = http ? std::atoi(line.substr(9, 3).c_str()) : 0;
  if (status < 100 || status > 999) return over(Outcome::no_kubelet, "an answer to GET /healthz that is not HTTP");
  result_.status = status;
  return true;
}

void Probe::run(const std::string& server_ca_pem, const std::string& node) {
  prepare(server_ca_pem, node);
  if (!handshake() || !ask()) return;
  result_.outcome = Outcome::answers;
  result_.detail.clear();
}

}  // namespace

// ---- several probes --------------------------------------------------------------------------------------

struct KubeletProbe::Pool {
  std::atomic<int> running{0};
  boost::asio::thread_pool threads{kMaxAtOnce};
};

KubeletProbe::KubeletProbe(Tunnels& tunnels, std::string server_ca_pem, std::chrono::milliseconds at_most)
    : tunnels_(tunnels), server_ca_pem_(std::move(server_ca_pem)), at_most_(at_most), pool_(std::make_unique<Pool>()) {}

KubeletProbe::~KubeletProbe() { pool_->threads.join(); }

bool KubeletProbe::start(const std::string& node, std::function<void(const ProbeResult&)> done) {
  if (pool_->running.fetch_add(1) >= kMaxAtOnce) {
    --pool_->running;
    return false;
  }
  boost::asio::post(pool_->threads, [this, node, done = std::move(done)] {
    const auto began = Clock::now();
    ProbeResult result;
    if (const auto connection = tunnels_.dial_kubelet(node, &result.tunnel)) {
      Probe(*connection, began + at_most_, result).run(server_ca_pem_, node);
    } else if (result.tunnel && !result.tunnel->upstream.empty()) {
      result.outcome = Outcome::passed_on;
      result.detail = "the tunnel ends at the upstream " + result.tunnel->upstream +
                      ", which can ask: kubectl get --raw /api/v1/nodes/" + node + "/proxy/healthz";
    } else if (result.tunnel) {
      result.outcome = Outcome::timed_out;
      result.detail = "the agent takes no messages";
    }
    result.took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began);
    --pool_->running;
    done(result);
  });
  return true;
}

// ---- in words --------------------------------------------------------------------------------------------

std::string_view name_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::answers: return "answers";
    case Outcome::no_tunnel: return "no_tunnel";
    case Outcome::refused: return "refused";
    case Outcome::no_kubelet: return "no_kubelet";
    case Outcome::tunnel_ended: return "tunnel_ended";
    case Outcome::timed_out: return "timed_out";
    case Outcome::passed_on: return "passed_on";
  }
  fatal("an Outcome without a name");
}

json::object to_json(const OpenTunnel& tunnel) {
  json::object out{{"session", tunnel.session}, {"since", tunnel.since.to_string()}, {"source", tunnel.source}};
  if (!tunnel.upstream.empty()) out["upstream"] = tunnel.upstream;
  return out;
}

json::object to_json(const ProbeResult& result) {
  json::object out{{"outcome", name_of(result.outcome)}};
  if (!result.detail.empty()) out["detail"] = result.detail;
  if (result.tunnel) out["tunnel"] = to_json(*result.tunnel);
  if (const auto& certificate = result.certificate) {
    json::object described{{"subject", certificate->subject},
                           {"serial", certificate->serial},
                           {"not_after", certificate->not_after.to_string()},
                           {"trusted", certificate->distrust.empty()}};
    if (!certificate->distrust.empty()) described["distrust"] = certificate->distrust;
    out["certificate"] = std::move(described);
  }
  if (result.status != 0) out["status"] = result.status;
  out["took_ms"] = result.took.count();
  return out;
}

}  // namespace ledger::api
