// Certificate authorities, the certificates they sign, and the check of certificates that clients present.
// The rules are k3s': docs/HTTP_API.md "Certificates" (subjects, SANs, usages, validity, PEM order).
//
// Files below the data directory, k3s' names and modes (directories 0700, certificates 0644, keys 0600):
//   tls/client-ca.crt, tls/client-ca.key, tls/server-ca.crt, tls/server-ca.key
// Created at the first start: ECDSA P-256, self-signed, serial 0, CN `<program>-client-ca@<unix time>` /
// `<program>-server-ca@<unix time>`, 10 years. Afterwards read byte for byte: the CA hash in every token follows from
// server-ca.crt and must never change. CAs of the operator's own, or of an adopted server, may lie there instead:
// PEM, an EC key (P-224 to P-521) or RSA key (2048 bits or more) without a passphrase, in the .crt the signer first
// and then, if wanted, more CA certificates in any order, with whatever text or line ends between them. Keys that
// others may read are set back to 0600.
//
// The CA hash, the <hash> of K10<hash>::<user>:<password>, by which an agent judges what /cacerts gave it:
//   one certificate in the file     SHA-256 of the file's bytes, for every agent
//   more, agents before v1.26.2     SHA-256 of the file's bytes                                    raw_ca_hash()
//   more, agents since v1.26.2      SHA-256 of the DER of the root that the first certificate chains to through the
//                                   others; where it chains to none (the root is not in the file, or not valid
//                                   now), SHA-256 of the file's bytes                                  ca_hash()
// So with more than one certificate no single hash suits both; K10::<user>:<password> suits them, without pinning.
// (Source: k3s pkg/clientaccess/token.go, hashCA. What follows the first certificate is a root when it has no
// authority key id, or its own subject key id; Go's rules of validity and usage apply.)
//
// Threads: constant after open(); every member may be called from any thread.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/certificate_request.h"
#include "ledger/program.h"
#include "ledger/types.h"

namespace ledger {

enum class Purpose { serving_kubelet, client_kubelet, client_kube_proxy, client_program_controller };
// "serving-kubelet": the `purpose` of certificate_issued and the stem of the endpoint's name.
std::string_view name_of(Purpose purpose, const Program& program = kK3s);

struct IssuedCertificate {
  // What the agent receives: leaf PEM, CA PEM (the whole file), then the private key PEM (`EC PRIVATE KEY`, no
  // EC PARAMETERS; none where the key is the agent's own). Each ends with a line end.
  std::string leaf_pem, ca_pem;
  Secret key_pem;
  // What the log keeps.
  std::string subject;     // RFC 2253 order as k3s logs it: "CN=system:node:web-1,O=system:nodes"
  std::string serial;      // lower-case hex, two digits a byte, no leading zero bytes
  std::string sha256;      // of the DER
  std::string public_key;  // SHA-256 of the SubjectPublicKeyInfo
  Time not_before, not_after;
};

// Who a client certificate says its bearer is.
struct ClientIdentity {
  std::string common_name;                 // "system:node:web-1"
  std::vector<std::string> organizations;  // "system:nodes"
  std::string serial;                      // hex
};

// What a certificate that is not accepted says of itself. Whoever made it may have written anything: a claim.
struct CertificateClaim {
  std::string fault;        // for people: unknown CA, expired, not valid yet, unusable
  std::string common_name;  // empty: it has none, or none that is printable text
};

class Issuer {
 public:
  // `log_exists`: a log is there already, so missing CA files are an error, not a first start.
  // Errors name the file and what to do: unreadable, not PEM, only one of the two there, a private key in the .crt,
  // key encrypted or not the certificate's, not a CA, expired.
  static Result<Issuer> open(const std::filesystem::path& data_dir, Time now, bool log_exists,
                             const Program& program = kK3s);

  Issuer(Issuer&&) noexcept;
  Issuer& operator=(Issuer&&) noexcept;
  ~Issuer();

  // Whose agents the certificates are for.
  const Program& program() const;
  // Which program's server made the CAs, by their names; null: they do not say.
  const Program* made_by() const;

  // The bytes of the files, for /cacerts, <prefix>server-ca.crt and <prefix>client-ca.crt.
  const std::string& server_ca_pem() const;
  const std::string& client_ca_pem() const;
  // The <hash> of K10<hash>::... as the newest k3s makes it of server_ca_pem(), judged at open()'s `now`.
  const std::string& ca_hash() const;
  // The same for agents before v1.26.2: SHA-256 of server_ca_pem().
  const std::string& raw_ca_hash() const;
  // SHA-256 of the DER certificates, for server_started.
  const std::string& server_ca_sha256() const;
  const std::string& client_ca_sha256() const;

  // A certificate for `key` (certificate_request.h); without one, for a fresh P-256 key that goes with it, never used
  // for another certificate. `node` and `addresses` matter to the kubelet purposes only;
  // addresses (text IPs) go into the serving certificate's SANs with 127.0.0.1, ::1, localhost and the name.
  // not_before is the CA's (k3s until v1.35.2: tolerant of agents whose clock is behind), not_after is
  // now + 365 days, never later than the CA's own. About 0.1 ms. Errc::invalid: a kubelet purpose without a node
  // name, an address that is none, more than 64 addresses, a clock outside the CA's validity.
  Result<IssuedCertificate> issue(Purpose purpose, const NodeName& node, const std::vector<std::string>& addresses,
                                  Time now, const PublicKey* key = nullptr) const;

  // The listener's own certificate: CN and O the program's name, serverAuth, signed by the server CA. `names` are DNS names
  // or IP addresses; 127.0.0.1, ::1, localhost and kubernetes[.default[.svc[.<domain>]]] are always added.
  Result<IssuedCertificate> issue_listener(const std::vector<std::string>& names, const std::string& cluster_domain,
                                           Time now) const;

  // A client certificate of this subject for the way to an upstream server, with a key of its own, valid for a day.
  Result<IssuedCertificate> issue_client(const std::string& common_name, const std::vector<std::string>& organizations,
                                         Time now) const;
  // The certificate, of the request-header CA, whose X-Remote-User a kube-apiserver believes (k3s' client-auth-proxy).
  // Errc::not_found without tls/request-header-ca.crt; Errc::invalid when that CA cannot be used.
  Result<IssuedCertificate> issue_front_proxy(Time now) const;

  // Checks that the client CA (any certificate of its file, as kube-apiserver does) signed this DER certificate,
  // that it is valid at `now` and good for clientAuth, and that its subject is printable text with exactly one CN.
  // A refusal is Errc::invalid with OpenSSL's reason, and fills `refused` where it is given. Whether the peer holds the
  // key is the TLS layer's to prove.
  Result<ClientIdentity> authenticate(std::string_view der, Time now, CertificateClaim* refused = nullptr) const;

 private:
  struct State;
  explicit Issuer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// What a pair of CA files is, judged by the rules of Issuer::open() but without stopping at the first fault.
struct AuthorityReport {
  std::vector<std::string> faults;  // each names the file and what to do; none: Issuer::open() takes the pair
  // Empty and zero when there is not even a first certificate.
  std::string common_name, sha256;  // of the signer
  std::string key;                  // "EC P-256", "RSA 2048"
  std::size_t certificates = 0;     // in the file
  Time not_before, not_after;
  std::string ca_hash, raw_ca_hash;  // what Issuer's would be
};
// `certificate` is for messages; the key's file is called the same with .key. Without a key only the certificates
// are judged. Touches no file.
AuthorityReport inspect_authority(const std::filesystem::path& certificate, std::string pem, const Secret* key_pem,
                                  Time now);

// The DNS names and IP addresses that the first certificate is for; none when it cannot be read.
std::vector<std::string> names_in_certificate(std::string_view pem);

// What the log keeps of a certificate that another server issued: the first in the text. Its texts stay empty, and the
// subject is cut to 512 printable bytes. Errc::invalid: there is none that can be read.
Result<IssuedCertificate> read_issued(std::string_view pem);

// Whether issue_listener() takes it.
bool is_listener_name(const std::string& name);

}  // namespace ledger
