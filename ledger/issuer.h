// Certificate authorities, the certificates they sign, and the check of certificates that clients present.
// The rules are k3s': docs/HTTP_API.md "Certificates" (subjects, SANs, usages, validity, PEM order).
//
// Files below the data directory, k3s' names and modes (directories 0700, certificates 0644, keys 0600):
//   tls/client-ca.crt, tls/client-ca.key, tls/server-ca.crt, tls/server-ca.key
// Created at the first start: ECDSA P-256, self-signed, serial 0, CN `<program>-client-ca@<unix time>` /
// `<program>-server-ca@<unix time>`, 10 years. Afterwards read byte for byte: the CA hash in every token is the hash
// of server-ca.crt's bytes and must never change. CAs of the operator's own may lie there instead: PEM, an EC or
// RSA key without a passphrase, in the .crt the signer first and then, if wanted, more CA certificates. Keys that
// others may read are set back to 0600.
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
  // SHA-256 of server_ca_pem(): the <hash> of K10<hash>::...
  const std::string& ca_hash() const;
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

  // Checks that the client CA (any certificate of its file, as kube-apiserver does) signed this DER certificate,
  // that it is valid at `now` and good for clientAuth, and that its subject is printable text with exactly one CN.
  // A refusal is Errc::invalid with OpenSSL's reason. Whether the peer holds the key is the TLS layer's to prove.
  Result<ClientIdentity> authenticate(std::string_view der, Time now) const;

 private:
  struct State;
  explicit Issuer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ledger
