#include "tools/k3s_like/server_dir.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <memory>

#include "ledger/credentials.h"
#include "ledger/issuer.h"
#include "ledger/openssl_handles.h"

namespace ledger::k3s_like {
namespace {

namespace fs = std::filesystem;

using KeyPtr = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using CertificatePtr = std::unique_ptr<X509, FreeWith<X509_free>>;

struct Pair {
  KeyPtr key;
  CertificatePtr certificate;
};

std::string pem_of(X509* certificate) {
  const std::unique_ptr<BIO, FreeWith<BIO_free_all>> bio(BIO_new(BIO_s_mem()));
  must(PEM_write_bio_X509(bio.get(), certificate) == 1, "PEM");
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &bytes);
  return {bytes, static_cast<std::size_t>(size)};
}

std::string pem_of(EVP_PKEY* key) {
  const std::unique_ptr<BIO, FreeWith<BIO_free_all>> bio(BIO_new(BIO_s_mem()));
  must(PEM_write_bio_PrivateKey_traditional(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1, "PEM");
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &bytes);
  return {bytes, static_cast<std::size_t>(size)};
}

void add_name(X509_NAME* name, const char* field, const std::string& value) {
  must(X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, bytes_of(value), static_cast<int>(value.size()), -1,
                                  0) == 1,
       "X509_NAME");
}

void add_extension(X509* certificate, X509* authority, int id, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, authority, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str());
  must(extension != nullptr && X509_add_ext(certificate, extension, -1) == 1, "X509_add_ext");
  X509_EXTENSION_free(extension);
}

// Without `authority`: its own.
Pair make(const std::string& common_name, const std::vector<std::string>& organizations, std::int64_t from,
          std::int64_t seconds, const Pair* authority, const std::string& alternative_names = "") {
  Pair made{KeyPtr(EVP_EC_gen("P-256")), CertificatePtr(X509_new())};
  X509* certificate = made.certificate.get();
  must(made.key && certificate != nullptr && X509_set_version(certificate, X509_VERSION_3) == 1, "X509_new");
  const std::uint64_t serial = authority == nullptr ? 0 : std::stoull(random_hex(7), nullptr, 16);
  must(ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), serial) == 1, "serial");
  X509_gmtime_adj(X509_getm_notBefore(certificate), static_cast<long>(from));
  X509_gmtime_adj(X509_getm_notAfter(certificate), static_cast<long>(from + seconds));
  X509_NAME* subject = X509_get_subject_name(certificate);
  for (const std::string& organization : organizations) add_name(subject, "O", organization);
  add_name(subject, "CN", common_name);
  X509* issuer = authority == nullptr ? certificate : authority->certificate.get();
  must(X509_set_issuer_name(certificate, X509_get_subject_name(issuer)) == 1, "issuer");
  must(X509_set_pubkey(certificate, made.key.get()) == 1, "public key");
  if (authority == nullptr) {
    add_extension(certificate, issuer, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(certificate, issuer, NID_key_usage, "critical,digitalSignature,keyEncipherment,keyCertSign");
    add_extension(certificate, issuer, NID_subject_key_identifier, "hash");
  } else {
    add_extension(certificate, issuer, NID_key_usage, "critical,digitalSignature,keyEncipherment");
    add_extension(certificate, issuer, NID_ext_key_usage, alternative_names.empty() ? "clientAuth" : "serverAuth");
    add_extension(certificate, issuer, NID_authority_key_identifier, "keyid");
    if (!alternative_names.empty()) add_extension(certificate, issuer, NID_subject_alt_name, alternative_names);
  }
  EVP_PKEY* signer = authority == nullptr ? made.key.get() : authority->key.get();
  must(X509_sign(certificate, signer, EVP_sha256()) > 0, "X509_sign");
  return made;
}

Result<void> write_pair(const fs::path& stem, const Pair& pair) {
  if (const auto done = write_file(stem.string() + ".crt", pem_of(pair.certificate.get()), 0644); !done)
    return done;
  return write_file(stem.string() + ".key", pem_of(pair.key.get()), 0600);
}

Result<Pair> read_pair(const fs::path& stem) {
  const auto certificate = read_file(stem.string() + ".crt");
  if (!certificate) return certificate.error();
  const auto key = read_secret_file(stem.string() + ".key");
  if (!key) return key.error();
  const std::unique_ptr<BIO, FreeWith<BIO_free_all>> certificate_bio(
      BIO_new_mem_buf(certificate->data(), static_cast<int>(certificate->size())));
  const std::unique_ptr<BIO, FreeWith<BIO_free_all>> key_bio(
      BIO_new_mem_buf(key->reveal().data(), static_cast<int>(key->reveal().size())));
  Pair pair{KeyPtr(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, nullptr, nullptr)),
            CertificatePtr(PEM_read_bio_X509(certificate_bio.get(), nullptr, nullptr, nullptr))};
  if (!pair.key || !pair.certificate)
    return Error{Errc::invalid, "'" + stem.string() + "' is no certificate and key"};
  return pair;
}

// What k3s keeps of its listener certificate; its key is made anew at each start here.
std::string dynamic_cert(const std::vector<std::string>& names) {
  std::string annotations;
  for (const std::string& name : names) annotations += "\"listener.cattle.io/cn-" + name + "\":\"" + name + "\",";
  return "{\"metadata\":{\"creationTimestamp\":null,\"annotations\":{" + annotations +
         "\"listener.cattle.io/fingerprint\":\"SHA1=00FF\"}},\"data\":{\"tls.crt\":\"\",\"tls.key\":\"\"},"
         "\"type\":\"kubernetes.io/tls\"}\n";
}

std::string alternative_names(const std::vector<std::string>& names) {
  std::string out =
      "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1,IP:::1";
  for (const std::string& name : names) {
    const bool address =
        name.find_first_not_of("0123456789.") == std::string::npos || name.find(':') != std::string::npos;
    out += (address ? ",IP:" : ",DNS:") + name;
  }
  return out;
}

Result<void> write_credentials(const DirOptions& options, const std::string& ca_hash) {
  const fs::path& dir = options.dir;
  const Secret server = options.token.empty() ? random_secret(16) : options.token.clone();
  const Secret node = options.agent_token.empty() ? server.clone() : options.agent_token.clone();
  const auto line = [](const Secret& password, std::string_view rest) {
    return std::string(password.reveal()) + "," + std::string(rest) + "\n";
  };
  std::error_code ignored;
  fs::create_directories(dir / "cred", ignored);
  for (const auto& [name, bytes] :
       {std::pair{"cred/passwd", line(server, "server,server,k3s:server") + line(node, "node,node,k3s:agent")},
        std::pair{"cred/ipsec.psk", random_hex(48) + "\n"},
        std::pair{"token", "K10" + ca_hash + "::server:" + std::string(server.reveal()) + "\n"}})
    if (const auto done = write_file(dir / name, bytes, 0600); !done) return done;
  for (const char* link : {"node-token", "agent-token"}) fs::remove(dir / link, ignored);
  std::error_code failed;
  fs::create_symlink("token", dir / "node-token", failed);
  if (options.agent_token.empty() && !failed) fs::create_symlink("token", dir / "agent-token", failed);
  if (failed) return Error{Errc::io, "cannot link the tokens in '" + dir.string() + "': " + failed.message()};
  if (options.agent_token.empty()) return {};
  return write_file(dir / "agent-token", "K10" + ca_hash + "::node:" + std::string(node.reveal()) + "\n", 0600);
}

}  // namespace

Result<void> make_server_dir(const DirOptions& options) {
  const fs::path tls = options.dir / "tls";
  std::error_code ignored;
  if (fs::exists(tls, ignored)) return Error{Errc::conflict, "'" + tls.string() + "' is there already"};
  fs::create_directories(tls, ignored);
  const auto issuer = Issuer::open(options.dir, Time::now(), false);  // makes the client CA and the server CA
  if (!issuer) return issuer.error();
  const Pair front =
      make("k3s-request-header-ca@" + std::to_string(std::time(nullptr)), {}, 0, 3650LL * 86400, nullptr);
  const auto server_ca = read_pair(tls / "server-ca"), client_ca = read_pair(tls / "client-ca");
  if (!server_ca) return server_ca.error();
  if (!client_ca) return client_ca.error();
  const std::int64_t year = 365 * 86400;
  const Pair proxy = make("system:auth-proxy", {}, -60, year, &front);
  const Pair admin = make("system:admin", {"system:masters"}, -60, year, &*client_ca);
  const Pair serving = make("kube-apiserver", {}, -60, year, &*server_ca, alternative_names(options.names));
  const Pair service = make("service", {}, 0, year, nullptr);
  for (const auto& [stem, pair] :
       {std::pair{"request-header-ca", &front}, std::pair{"client-auth-proxy", &proxy},
        std::pair{"client-admin", &admin}, std::pair{"serving-kube-apiserver", &serving}})
    if (const auto done = write_pair(tls / stem, *pair); !done) return done;
  if (const auto done = write_file(tls / "service.key", pem_of(service.key.get()), 0600); !done) return done;
  if (const auto done = write_file(tls / "dynamic-cert.json", dynamic_cert(options.names), 0600); !done)
    return done;
  return write_credentials(options, issuer->ca_hash());
}

Result<void> issue_client(const LeafOptions& options, const fs::path& out) {
  Result<Pair> authority = options.authority == "stranger"
                               ? Result<Pair>(make("stranger-ca", {}, -86400 * 30, 3650LL * 86400, nullptr))
                               : read_pair(options.dir / "tls" / options.authority);
  if (!authority) return authority.error();
  return write_pair(
      out, make(options.common_name, options.organizations, options.valid_from, options.valid_for, &*authority));
}

}  // namespace ledger::k3s_like
