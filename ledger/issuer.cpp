#include "ledger/issuer.h"

#include <arpa/inet.h>
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <optional>
#include <utility>

#include "ledger/credentials.h"
#include "ledger/openssl_handles.h"

namespace ledger {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kDay = 86400;
constexpr std::int64_t kLeafSeconds = 365 * kDay;
constexpr std::int64_t kForwardingSeconds = kDay;
constexpr std::int64_t kAuthoritySeconds = 10 * 365 * kDay;
constexpr std::size_t kMaxClientCertificate = 16 << 10;
constexpr std::size_t kMaxAddresses = 64;
constexpr int kLeastRsaBits = 2048;  // OpenSSL's security level 2, Debian's default
constexpr std::size_t kScalarBytes = 32, kPointBytes = 65;

using X509Ptr = std::unique_ptr<X509, FreeWith<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using KeyContextPtr = std::unique_ptr<EVP_PKEY_CTX, FreeWith<EVP_PKEY_CTX_free>>;
using BioPtr = std::unique_ptr<BIO, FreeWith<BIO_free_all>>;
using NumberPtr = std::unique_ptr<BIGNUM, FreeWith<BN_clear_free>>;
using BitsPtr = std::unique_ptr<ASN1_BIT_STRING, FreeWith<ASN1_BIT_STRING_free>>;
using OctetsPtr = std::unique_ptr<ASN1_OCTET_STRING, FreeWith<ASN1_OCTET_STRING_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, FreeWith<GENERAL_NAMES_free>>;
using UsagesPtr = std::unique_ptr<EXTENDED_KEY_USAGE, FreeWith<EXTENDED_KEY_USAGE_free>>;
using KeyIdPtr = std::unique_ptr<AUTHORITY_KEYID, FreeWith<AUTHORITY_KEYID_free>>;
using ConstraintsPtr = std::unique_ptr<BASIC_CONSTRAINTS, FreeWith<BASIC_CONSTRAINTS_free>>;
using StorePtr = std::unique_ptr<X509_STORE, FreeWith<X509_STORE_free>>;
void free_list(STACK_OF(X509) * certificates) { sk_X509_free(certificates); }
using CertificatesPtr = std::unique_ptr<STACK_OF(X509), FreeWith<free_list>>;
using StoreContextPtr = std::unique_ptr<X509_STORE_CTX, FreeWith<X509_STORE_CTX_free>>;

Error invalid(std::string message) { return {Errc::invalid, std::move(message)}; }

std::string_view view_of(const ASN1_STRING* string) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(string)),
          static_cast<std::size_t>(ASN1_STRING_length(string))};
}

Time time_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return {};
  return Time{}.plus_seconds(::timegm(&parts));
}

std::time_t seconds_of(Time time) { return static_cast<std::time_t>(time.micros / 1'000'000); }

std::string serial_of(const X509* certificate) {
  const ASN1_INTEGER* serial = X509_get0_serialNumber(certificate);
  const std::string digits = to_hex(view_of(serial));
  return (ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER ? "-" : "") + (digits.empty() ? "00" : digits);
}

// ---- Keys ------------------------------------------------------------------------------------------------

// A P-256 key pair. The private scalar is wiped with it.
struct KeyPair {
  KeyPtr key;
  std::array<unsigned char, kPointBytes> point;  // public, uncompressed
};

KeyPair generate_key() {
  // Copying the parameters from an existing key is twice as fast as looking the curve up again.
  static const KeyPtr pattern(EVP_EC_gen("P-256"));
  const KeyContextPtr context(EVP_PKEY_CTX_new(pattern.get(), nullptr));
  EVP_PKEY* key = nullptr;
  must(context != nullptr && EVP_PKEY_keygen_init(context.get()) == 1 && EVP_PKEY_keygen(context.get(), &key) == 1,
       "P-256 key generation");
  KeyPair pair{KeyPtr(key), {}};
  std::size_t length = 0;
  must(EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, pair.point.data(), pair.point.size(),
                                       &length) == 1 &&
           length == pair.point.size() && pair.point[0] == POINT_CONVERSION_UNCOMPRESSED,
       "reading a public key");
  return pair;
}

// RFC 5915 ECPrivateKey for a named P-256 key, between whose pieces the scalar and the point go. Written out
// because OpenSSL's encoders cost more than making the key, and leave copies of it in memory.
constexpr std::string_view kKeyHead{"\x30\x77\x02\x01\x01\x04\x20", 7};
constexpr std::string_view kKeyMiddle{"\xA0\x0A\x06\x08\x2A\x86\x48\xCE\x3D\x03\x01\x07\xA1\x44\x03\x42\x00", 17};
constexpr std::size_t kKeyDer = kKeyHead.size() + kScalarBytes + kKeyMiddle.size() + kPointBytes;
static_assert(kKeyDer == 121);

// PEM text of a private key, type `EC PRIVATE KEY`.
Secret private_key_pem(const KeyPair& pair) {
  BIGNUM* number = nullptr;
  must(EVP_PKEY_get_bn_param(pair.key.get(), OSSL_PKEY_PARAM_PRIV_KEY, &number) == 1, "reading a private key");
  const NumberPtr scalar(number);
  std::array<unsigned char, kKeyDer> der;
  unsigned char* at = std::copy(kKeyHead.begin(), kKeyHead.end(), der.data());
  must(BN_bn2binpad(scalar.get(), at, kScalarBytes) == kScalarBytes, "reading a private key");
  at = std::copy(kKeyMiddle.begin(), kKeyMiddle.end(), at + kScalarBytes);
  std::copy(pair.point.begin(), pair.point.end(), at);

  constexpr std::string_view kBegin = "-----BEGIN EC PRIVATE KEY-----\n", kEnd = "-----END EC PRIVATE KEY-----\n";
  constexpr std::size_t kLine = 48;  // bytes in a line of 64 letters
  std::array<char, 256> pem;
  char* out = std::copy(kBegin.begin(), kBegin.end(), pem.data());
  for (std::size_t done = 0; done < der.size(); done += kLine) {
    const std::size_t piece = std::min(kLine, der.size() - done);
    out += EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out), der.data() + done, static_cast<int>(piece));
    *out++ = '\n';
  }
  out = std::copy(kEnd.begin(), kEnd.end(), out);
  Secret text(std::string_view(pem.data(), static_cast<std::size_t>(out - pem.data())));
  OPENSSL_cleanse(der.data(), der.size());
  OPENSSL_cleanse(pem.data(), pem.size());
  return text;
}

PublicKey public_key_of(const KeyPair& pair) {
  return {NID_X9_62_id_ecPublicKey, NID_X9_62_prime256v1,
          std::string(reinterpret_cast<const char*>(pair.point.data()), pair.point.size())};
}

// An EC key's parameter is its curve, RSA's is NULL, and Ed25519 has none (RFC 5480, 3279, 8410).
void set_public_key(X509* certificate, const PublicKey& key) {
  auto* bits = static_cast<unsigned char*>(OPENSSL_memdup(key.bits.data(), key.bits.size()));
  const int parameter_type = key.curve != 0                       ? V_ASN1_OBJECT
                             : key.algorithm == NID_rsaEncryption ? V_ASN1_NULL
                                                                  : V_ASN1_UNDEF;
  must(bits != nullptr && X509_PUBKEY_set0_param(X509_get_X509_PUBKEY(certificate), OBJ_nid2obj(key.algorithm),
                                                 parameter_type, key.curve != 0 ? OBJ_nid2obj(key.curve) : nullptr,
                                                 bits, static_cast<int>(key.bits.size())) == 1,
       "setting a public key");
}

// ---- Pieces of a certificate -----------------------------------------------------------------------------

void add_extension(X509* certificate, int nid, bool critical, void* value) {
  must(value != nullptr && X509_add1_ext_i2d(certificate, nid, value, critical ? 1 : 0, X509V3_ADD_APPEND) == 1,
       "adding an extension");
}

void add_key_usage(X509* certificate, bool authority) {
  const BitsPtr bits(ASN1_BIT_STRING_new());
  must(bits != nullptr && ASN1_BIT_STRING_set_bit(bits.get(), 0, 1) == 1 &&  // digitalSignature
           ASN1_BIT_STRING_set_bit(bits.get(), 2, 1) == 1 &&                 // keyEncipherment
           (!authority || ASN1_BIT_STRING_set_bit(bits.get(), 5, 1) == 1),   // keyCertSign
       "key usage");
  add_extension(certificate, NID_key_usage, true, bits.get());
}

void add_subject_key_id(X509* certificate) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned length = 0;
  const OctetsPtr id(ASN1_OCTET_STRING_new());
  must(id != nullptr && X509_pubkey_digest(certificate, EVP_sha1(), digest.data(), &length) == 1 &&
           ASN1_OCTET_STRING_set(id.get(), digest.data(), static_cast<int>(length)) == 1,
       "subject key identifier");
  add_extension(certificate, NID_subject_key_identifier, false, id.get());
}

// The string type is given outright: by way of OpenSSL's table a CN may have 64 bytes, and node names have 253.
void add_name_entry(X509_NAME* name, int nid, std::string_view value) {
  must(X509_NAME_add_entry_by_NID(name, nid, V_ASN1_UTF8STRING, bytes_of(value), static_cast<int>(value.size()), -1,
                                  0) == 1,
       "adding to a name");
}

// Names of a certificate's bearer, in order, each once.
struct AlternativeNames {
  std::vector<std::string> dns;
  std::vector<std::string> addresses;  // 4 or 16 bytes

  static void add_once(std::vector<std::string>* list, std::string value) {
    if (std::find(list->begin(), list->end(), value) == list->end()) list->push_back(std::move(value));
  }
  void add_dns(std::string name) { add_once(&dns, std::move(name)); }
  // False when the text is no address. IPv4 in IPv6 becomes IPv4, as in Go.
  bool add_address(const std::string& text) {
    if (text.find('\0') != std::string::npos) return false;  // inet_pton would stop there
    std::array<char, 16> bytes;
    if (::inet_pton(AF_INET, text.c_str(), bytes.data()) == 1) {
      add_once(&addresses, {bytes.data(), 4});
      return true;
    }
    if (::inet_pton(AF_INET6, text.c_str(), bytes.data()) != 1) return false;
    constexpr std::string_view kMapped{"\0\0\0\0\0\0\0\0\0\0\xFF\xFF", 12};
    const std::string_view all(bytes.data(), bytes.size());
    add_once(&addresses, std::string(all.starts_with(kMapped) ? all.substr(12) : all));
    return true;
  }
};

void push_name(GENERAL_NAMES* names, int type, int string_type, std::string_view value) {
  GENERAL_NAME* name = GENERAL_NAME_new();
  ASN1_STRING* string = ASN1_STRING_type_new(string_type);
  must(name != nullptr && string != nullptr &&
           ASN1_STRING_set(string, value.data(), static_cast<int>(value.size())) == 1 &&
           sk_GENERAL_NAME_push(names, name) > 0,
       "alternative names");
  GENERAL_NAME_set0_value(name, type, string);
}

void add_alternative_names(X509* certificate, const AlternativeNames& alternatives) {
  if (alternatives.dns.empty() && alternatives.addresses.empty()) return;
  const NamesPtr names(GENERAL_NAMES_new());
  must(names != nullptr, "alternative names");
  for (const auto& dns : alternatives.dns) push_name(names.get(), GEN_DNS, V_ASN1_IA5STRING, dns);
  for (const auto& address : alternatives.addresses)
    push_name(names.get(), GEN_IPADD, V_ASN1_OCTET_STRING, address);
  add_extension(certificate, NID_subject_alt_name, false, names.get());
}

// A certificate with version, serial, validity and public key; the rest is for the caller to add.
X509Ptr start_certificate(std::int64_t serial, std::time_t not_before, std::time_t not_after, const PublicKey& key) {
  X509Ptr certificate(X509_new());
  must(certificate != nullptr && X509_set_version(certificate.get(), X509_VERSION_3) == 1 &&
           ASN1_INTEGER_set_int64(X509_get_serialNumber(certificate.get()), serial) == 1 &&
           ASN1_TIME_set(X509_getm_notBefore(certificate.get()), not_before) != nullptr &&
           ASN1_TIME_set(X509_getm_notAfter(certificate.get()), not_after) != nullptr,
       "starting a certificate");
  set_public_key(certificate.get(), key);
  return certificate;
}

// Uniform in [1, 2^63-1).
std::int64_t random_serial() {
  for (;;) {
    std::uint64_t bits = 0;
    must(RAND_bytes(reinterpret_cast<unsigned char*>(&bits), sizeof bits) == 1, "random serial number");
    bits >>= 1;
    if (bits != 0 && bits != UINT64_MAX >> 1) return static_cast<std::int64_t>(bits);
  }
}

std::string certificate_pem(const X509* certificate) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  char* text = nullptr;
  must(bio != nullptr && PEM_write_bio_X509(bio.get(), certificate) == 1, "PEM encoding");
  const long length = BIO_get_mem_data(bio.get(), &text);
  return {text, static_cast<std::size_t>(length)};
}

// ---- Authorities -----------------------------------------------------------------------------------------

struct Authority {
  X509Ptr certificate;          // the signer
  std::vector<X509Ptr> bundle;  // what else the file holds
  KeyPtr key;
  std::string pem;     // the file's bytes
  std::string sha256;  // of the signer
  Time not_before, not_after;
};

// No passphrase, and never a prompt on the terminal.
int no_passphrase(char*, int, int, void* asked) {
  if (asked != nullptr) *static_cast<bool*>(asked) = true;
  return -1;
}

// "P-256", "other" where Go's x509 (so every agent) does not know the curve; empty for a key that has none.
std::string_view curve_of(const EVP_PKEY* key) {
  if (EVP_PKEY_is_a(key, "EC") != 1) return "";
  std::array<char, 80> name{};
  if (EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, name.data(), name.size(), nullptr) != 1)
    return "other";
  const std::string_view group(name.data());
  if (group == "prime256v1") return "P-256";
  if (group == "secp384r1") return "P-384";
  if (group == "secp521r1") return "P-521";
  return group == "secp224r1" ? "P-224" : "other";
}

class AuthorityFiles {
 public:
  AuthorityFiles(const fs::path& directory, const std::string& stem, const Program& program)
      : certificate_(directory / (stem + ".crt")), key_(directory / (stem + ".key")), stem_(stem), program_(program) {}

  Result<Authority> open(Time now, bool log_exists) const {
    const ErrorScope errors;
    Result<std::string> pem = read_file(certificate_);
    if (!pem && pem.error().code != Errc::not_found) return pem.error();
    Result<Secret> key_pem = read_secret_file(key_);
    if (!key_pem && key_pem.error().code != Errc::not_found) return key_pem.error();
    if (!pem && !key_pem) {
      if (log_exists) return missing_both();
      if (const auto created = create(now); !created) return created.error();
      pem = read_file(certificate_);
      key_pem = read_secret_file(key_);
    }
    if (!pem) return missing(certificate_, key_);
    if (!key_pem) return missing(key_, certificate_);
    return load(std::move(*pem), *key_pem, now);
  }

 private:
  Error bad(const fs::path& path, const std::string& why) const {
    return invalid("'" + path.string() + "' " + why);
  }
  Error missing(const fs::path& gone, const fs::path& there) const {
    return {Errc::not_found, "'" + gone.string() + "' is missing, but '" + there.string() +
                                 "' is there: restore both from a backup, or, if this server has never run, remove "
                                 "the one that is left and start again"};
  }
  Error missing_both() const {
    return {Errc::not_found,
            "'" + certificate_.string() +
                "' and its key are missing, but there is a log: agents "
                "trust only the old CA; restore tls/ from a backup. Without one, start with a new data "
                "directory and give every agent the new token"};
  }

  Result<void> create(Time now) const {
    const std::time_t start = seconds_of(now);
    const KeyPair pair = generate_key();
    const X509Ptr certificate = start_certificate(0, start, start + kAuthoritySeconds, public_key_of(pair));
    X509* const x509 = certificate.get();
    add_name_entry(X509_get_subject_name(x509), NID_commonName,
                   std::string(program_.name) + "-" + stem_ + "@" + std::to_string(start));
    must(X509_set_issuer_name(x509, X509_get_subject_name(x509)) == 1, "setting the issuer");
    add_key_usage(x509, true);
    const ConstraintsPtr constraints(BASIC_CONSTRAINTS_new());
    must(constraints != nullptr, "basic constraints");
    constraints->ca = 0xFF;
    add_extension(x509, NID_basic_constraints, true, constraints.get());
    add_subject_key_id(x509);
    must(X509_sign(x509, pair.key.get(), EVP_sha256()) > 0, "signing a CA certificate");
    // The certificate comes last: whoever finds it finds the key.
    if (const auto done = write_file(key_, private_key_pem(pair).reveal(), 0600); !done) return done.error();
    return write_file(certificate_, certificate_pem(x509), 0644);
  }

  Result<Authority> load(std::string pem, const Secret& key_pem, Time now) const {
    Authority authority;
    const std::vector<std::string> faults = judge(std::move(pem), &key_pem, now, &authority);
    if (!faults.empty()) return invalid(faults.front());
    return authority;
  }

 public:
  // Everything that is wrong with the two; none: `authority` is complete. Without a key only the certificates are
  // looked at.
  std::vector<std::string> judge(std::string pem, const Secret* key_pem, Time now, Authority* authority) const {
    std::vector<std::string> faults;
    if (const auto read = read_bundle(pem, authority); !read) faults.push_back(read.error().message);
    const X509* const x509 = authority->certificate.get();
    authority->pem = std::move(pem);
    if (x509 != nullptr) {
      authority->not_before = time_of(X509_get0_notBefore(x509));
      authority->not_after = time_of(X509_get0_notAfter(x509));
      authority->sha256 = sha256_hex(der_of<i2d_X509>(x509));
      if (authority->not_after < now)
        faults.push_back(bad(certificate_, "expired at " + authority->not_after.to_string() +
                                               "; put a valid CA in its place, or correct this machine's clock (now " +
                                               now.to_string() + ")")
                             .message);
    }
    if (key_pem == nullptr) return faults;
    Result<KeyPtr> key = read_key(*key_pem);
    if (!key) {
      faults.push_back(key.error().message);
      return faults;
    }
    authority->key = std::move(*key);
    if (x509 != nullptr && X509_check_private_key(x509, authority->key.get()) != 1)
      faults.push_back(bad(key_, "is not the key of '" + certificate_.string() +
                                     "' (of its first certificate, the signer); restore both from the same backup")
                           .message);
    return faults;
  }

 private:

  // A file cut down to nothing (a full disk does that) is no PEM, not a null pointer.
  static BioPtr reading(std::string_view pem) {
    BioPtr bio(BIO_new_mem_buf(pem.empty() ? "" : pem.data(), static_cast<int>(pem.size())));
    must(bio != nullptr, "reading PEM");
    return bio;
  }

  Result<void> read_bundle(const std::string& pem, Authority* authority) const {
    if (pem.find("PRIVATE KEY-----") != std::string::npos)
      return bad(certificate_, "holds a private key, and everybody may read it; move the key to '" + key_.string() +
                                   "' and keep only certificates here");
    const BioPtr bio = reading(pem);
    for (int number = 1;; ++number) {
      X509Ptr x509(PEM_read_bio_X509(bio.get(), nullptr, no_passphrase, nullptr));
      if (x509 == nullptr) {
        const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
        if (at_end && authority->certificate != nullptr) return {};
        return bad(certificate_, at_end
                                     ? "holds no PEM certificate; restore it from a backup"
                                     : "has a certificate that cannot be read, number " + std::to_string(number) +
                                           " (" + openssl_reason() + "); restore the file from a backup");
      }
      const bool may_sign = X509_check_ca(x509.get()) == 1;
      if (authority->certificate == nullptr)
        authority->certificate = std::move(x509);
      else
        authority->bundle.push_back(std::move(x509));
      if (!may_sign)
        return bad(certificate_, "is not a CA certificate, number " + std::to_string(number) +
                                     " in the file: it needs basicConstraints CA:TRUE and the key usage "
                                     "keyCertSign; put a CA in its place");
    }
  }

  Result<KeyPtr> read_key(const Secret& pem) const {
    const BioPtr bio = reading(pem.reveal());
    bool encrypted = false;
    KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, &encrypted));
    if (encrypted) return bad(key_, "is encrypted; store the key without a passphrase");
    if (key == nullptr) return bad(key_, "holds no PEM private key that can be read; restore it from a backup");
    if (EVP_PKEY_is_a(key.get(), "EC") != 1 && EVP_PKEY_is_a(key.get(), "RSA") != 1)
      return bad(key_, "is neither an EC nor an RSA key; use a CA with one of these");
    if (curve_of(key.get()) == "other")
      return bad(key_, "is an EC key on a curve that agents cannot use; use a CA with P-256, P-384 or P-521");
    if (EVP_PKEY_is_a(key.get(), "RSA") == 1 && EVP_PKEY_get_bits(key.get()) < kLeastRsaBits)
      return bad(key_, "is an RSA key of fewer than 2048 bits, which TLS refuses; use a CA with a longer one");
    return key;
  }

  fs::path certificate_, key_;
  std::string stem_;
  const Program& program_;
};

// ---- The CA hash of tokens -------------------------------------------------------------------------------

// Go's rule for a chain that shall serve TLS: a certificate that lists usages must list this one.
bool may_serve(X509* certificate) {
  return (X509_get_extension_flags(certificate) & EXFLAG_XKUSAGE) == 0 ||
         (X509_get_extended_key_usage(certificate) & (XKU_SSL_SERVER | XKU_ANYEKU)) != 0;
}

// k3s takes what follows the first certificate for a root when it has no authority key id, or its own.
bool counts_as_root(X509* certificate) {
  const ASN1_OCTET_STRING* const issuer = X509_get0_authority_key_id(certificate);
  const ASN1_OCTET_STRING* const own = X509_get0_subject_key_id(certificate);
  return issuer == nullptr || ASN1_STRING_length(issuer) == 0 ||
         (own != nullptr && ASN1_OCTET_STRING_cmp(issuer, own) == 0);
}

// The DER of the root that the first certificate chains to through the others of its file, as Go's
// x509.Certificate.Verify finds it; empty where it chains to none.
std::string root_of(const Authority& authority, Time now) {
  const StorePtr roots(X509_STORE_new());
  const CertificatesPtr between(sk_X509_new_null());
  must(roots != nullptr && between != nullptr, "making a store");
  for (const X509Ptr& extra : authority.bundle)
    must(counts_as_root(extra.get()) ? X509_STORE_add_cert(roots.get(), extra.get()) == 1
                                     : sk_X509_push(between.get(), extra.get()) > 0,
         "making a store");
  const StoreContextPtr context(X509_STORE_CTX_new());
  must(context != nullptr && X509_STORE_CTX_init(context.get(), roots.get(), authority.certificate.get(),
                                                 between.get()) == 1,
       "verifying");
  X509_VERIFY_PARAM* const rules = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_time(rules, seconds_of(now));
  // Go trusts a root for being listed, self-signed or not, and takes no SHA-1 signature for one.
  X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_PARTIAL_CHAIN);
  X509_VERIFY_PARAM_set_auth_level(rules, 1);
  if (X509_verify_cert(context.get()) != 1) return {};
  STACK_OF(X509)* const chain = X509_STORE_CTX_get0_chain(context.get());
  const int length = sk_X509_num(chain);
  for (int i = 0; i < length; ++i)
    if (!may_serve(sk_X509_value(chain, i))) return {};
  return der_of<i2d_X509>(sk_X509_value(chain, length - 1));
}

// k3s' hashCA since v1.26.2 (pkg/clientaccess/token.go).
std::string ca_hash_of(const Authority& authority, Time now) {
  const ErrorScope errors;
  const std::string root = authority.bundle.empty() ? "" : root_of(authority, now);
  return sha256_hex(root.empty() ? authority.pem : root);
}

// ---- Leaves ----------------------------------------------------------------------------------------------

struct Leaf {
  std::vector<std::string> organizations;
  std::string common_name;
  AlternativeNames alternatives;
  bool serves = false;  // serverAuth, else clientAuth
  std::int64_t seconds = kLeafSeconds;
};

void add_usage(X509* certificate, bool serves) {
  const UsagesPtr usages(EXTENDED_KEY_USAGE_new());
  must(usages != nullptr &&
           sk_ASN1_OBJECT_push(usages.get(), OBJ_nid2obj(serves ? NID_server_auth : NID_client_auth)) > 0,
       "extended key usage");
  add_extension(certificate, NID_ext_key_usage, false, usages.get());
}

void add_authority_key_id(X509* certificate, const Authority& authority) {
  const ASN1_OCTET_STRING* id = X509_get0_subject_key_id(authority.certificate.get());
  if (id == nullptr) return;
  const KeyIdPtr key_id(AUTHORITY_KEYID_new());
  must(key_id != nullptr && (key_id->keyid = ASN1_OCTET_STRING_dup(id)) != nullptr, "authority key identifier");
  add_extension(certificate, NID_authority_key_identifier, false, key_id.get());
}

// `key`: whose key it is for; null: a fresh one, which is handed out with the certificate.
Result<IssuedCertificate> sign(const Authority& authority, const Leaf& leaf, const PublicKey* key, Time now) {
  const ErrorScope errors;
  if (now > authority.not_after)
    return invalid("the CA certificate expired at " + authority.not_after.to_string() +
                   "; put a valid CA in its place or correct this machine's clock");
  const Time not_after = std::min(now.plus_seconds(leaf.seconds), authority.not_after);
  if (not_after <= authority.not_before)
    return invalid("the CA certificate is valid only from " + authority.not_before.to_string() +
                   "; correct this machine's clock");
  std::optional<KeyPair> pair;
  if (key == nullptr) pair = generate_key();
  const X509Ptr certificate =
      start_certificate(random_serial(), seconds_of(authority.not_before), seconds_of(not_after),
                        pair ? public_key_of(*pair) : *key);
  X509* const x509 = certificate.get();
  X509_NAME* const subject = X509_get_subject_name(x509);
  for (const std::string& name : leaf.organizations) add_name_entry(subject, NID_organizationName, name);
  add_name_entry(subject, NID_commonName, leaf.common_name);
  must(X509_set_issuer_name(x509, X509_get_subject_name(authority.certificate.get())) == 1, "setting the issuer");
  add_key_usage(x509, false);
  add_usage(x509, leaf.serves);
  add_authority_key_id(x509, authority);
  add_alternative_names(x509, leaf.alternatives);
  if (X509_sign(x509, authority.key.get(), EVP_sha256()) <= 0)
    return invalid("the CA's key cannot sign: " + openssl_reason() + "; check the CA's files");

  IssuedCertificate issued;
  issued.leaf_pem = certificate_pem(x509);
  issued.ca_pem = authority.pem.ends_with('\n') ? authority.pem : authority.pem + "\n";
  if (pair) issued.key_pem = private_key_pem(*pair);
  issued.subject = "CN=" + leaf.common_name;
  for (const std::string& name : leaf.organizations) issued.subject += ",O=" + name;
  issued.serial = serial_of(x509);
  issued.sha256 = sha256_hex(der_of<i2d_X509>(x509));
  issued.public_key = sha256_hex(der_of<i2d_X509_PUBKEY>(X509_get_X509_PUBKEY(x509)));
  issued.not_before = authority.not_before;
  issued.not_after = time_of(X509_get0_notAfter(x509));
  return issued;
}

// A DNS name as it may stand in a certificate: labels of letters, digits, '-' and '_', the first may be '*'.
bool is_dns_name(std::string_view name) {
  if (name.empty() || name.size() > 253) return false;
  if (name.starts_with("*.")) name.remove_prefix(2);
  std::size_t label = 0;
  for (const char c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter && c != '-' && c != '_' && (c != '.' || label == 0)) return false;
    label = c == '.' ? 0 : label + 1;
    if (label > 63) return false;
  }
  return label > 0;
}

void add_loopback(AlternativeNames* names) {
  names->add_dns("localhost");
  names->add_address("127.0.0.1");
  names->add_address("::1");
}

// ---- Client certificates ---------------------------------------------------------------------------------

// Every certificate of the client CA's file is trusted, as k3s and kube-apiserver do with it.
StorePtr make_store(const Authority& authority) {
  StorePtr store(X509_STORE_new());
  must(store != nullptr && X509_STORE_add_cert(store.get(), authority.certificate.get()) == 1, "making a store");
  for (const X509Ptr& extra : authority.bundle)
    must(X509_STORE_add_cert(store.get(), extra.get()) == 1, "making a store");
  // An intermediate CA in the file is trusted without its root.
  must(X509_STORE_set_flags(store.get(), X509_V_FLAG_PARTIAL_CHAIN) == 1 &&
           X509_STORE_set_purpose(store.get(), X509_PURPOSE_SSL_CLIENT) == 1,
       "setting up a store");
  return store;
}

Error refused(std::string why) { return invalid("client certificate " + std::move(why)); }

// The attributes of this type in the subject. Text that could be taken for another (a NUL, a line end, broken
// UTF-8) is an error.
Result<std::vector<std::string>> subject_values(const X509* certificate, int nid) {
  std::vector<std::string> values;
  const X509_NAME* const subject = X509_get_subject_name(certificate);
  for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, nid, at)) >= 0;) {
    unsigned char* utf8 = nullptr;
    const int length = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (length < 0) return refused("has a subject that is not text");
    std::string value(reinterpret_cast<char*>(utf8), static_cast<std::size_t>(length));
    OPENSSL_free(utf8);
    if (printable(value, value.size()) != value) return refused("has unprintable characters in its subject");
    values.push_back(std::move(value));
  }
  return values;
}

// OpenSSL looks for the issuer first, then at the signature, then at the clock: what has expired was once ours.
const char* fault_of(int error, int depth) {
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED: return depth == 0 ? "expired" : "unusable";
    case X509_V_ERR_CERT_NOT_YET_VALID: return depth == 0 ? "not valid yet" : "unusable";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE: return "unknown CA";
    default: return "unusable";
  }
}

Result<void> verify(X509_STORE* store, X509* certificate, Time now, std::string& fault) {
  const StoreContextPtr context(X509_STORE_CTX_new());
  must(context != nullptr && X509_STORE_CTX_init(context.get(), store, certificate, nullptr) == 1, "verifying");
  X509_VERIFY_PARAM* const rules = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_time(rules, seconds_of(now));
  if (X509_verify_cert(context.get()) == 1) return {};
  const int error = X509_STORE_CTX_get_error(context.get());
  fault = fault_of(error, X509_STORE_CTX_get_error_depth(context.get()));
  return refused(std::string("refused: ") + X509_verify_cert_error_string(error));
}

std::string sole_common_name(const X509* certificate) {
  const auto names = subject_values(certificate, NID_commonName);
  return names && names->size() == 1 ? names->front() : std::string();
}

}  // namespace

// ---- Files of another server -----------------------------------------------------------------------------

AuthorityReport inspect_authority(const fs::path& certificate, std::string pem, const Secret* key_pem, Time now) {
  const ErrorScope errors;
  AuthorityReport report;
  Authority authority;
  const std::string stem = certificate.stem().string();
  report.faults = AuthorityFiles(certificate.parent_path(), stem, kK3s).judge(std::move(pem), key_pem, now, &authority);
  X509* const x509 = authority.certificate.get();
  if (x509 == nullptr) return report;
  if (const auto names = subject_values(x509, NID_commonName); names && !names->empty())
    report.common_name = names->front();
  if (const EVP_PKEY* key = X509_get0_pubkey(x509); key != nullptr) {
    report.key = std::string(EVP_PKEY_get0_type_name(key)) + " ";
    const std::string_view curve = curve_of(key);
    report.key += curve.empty() ? std::to_string(EVP_PKEY_get_bits(key)) : std::string(curve);
  }
  report.certificates = 1 + authority.bundle.size();
  report.sha256 = authority.sha256;
  report.not_before = authority.not_before;
  report.not_after = authority.not_after;
  report.ca_hash = ca_hash_of(authority, now);
  report.raw_ca_hash = sha256_hex(authority.pem);
  return report;
}

std::vector<std::string> names_in_certificate(std::string_view pem) {
  const ErrorScope errors;
  std::vector<std::string> names;
  const BioPtr bio(BIO_new_mem_buf(pem.empty() ? "" : pem.data(), static_cast<int>(pem.size())));
  must(bio != nullptr, "reading PEM");
  const X509Ptr x509(PEM_read_bio_X509(bio.get(), nullptr, no_passphrase, nullptr));
  if (x509 == nullptr) return names;
  const NamesPtr found(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(x509.get(), NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; found != nullptr && i < sk_GENERAL_NAME_num(found.get()); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(found.get(), i);
    if (name->type == GEN_DNS) names.emplace_back(view_of(name->d.dNSName));
    if (name->type != GEN_IPADD) continue;
    const std::string_view bytes = view_of(name->d.iPAddress);
    std::array<char, INET6_ADDRSTRLEN> text{};
    const int family = bytes.size() == 4 ? AF_INET : AF_INET6;
    if ((bytes.size() == 4 || bytes.size() == 16) &&
        ::inet_ntop(family, bytes.data(), text.data(), text.size()) != nullptr)
      names.emplace_back(text.data());
  }
  return names;
}

Result<IssuedCertificate> read_issued(std::string_view pem) {
  constexpr std::size_t kMaxSubject = 512;
  const ErrorScope errors;
  const BioPtr bio(BIO_new_mem_buf(pem.empty() ? "" : pem.data(), static_cast<int>(pem.size())));
  const BioPtr subject(BIO_new(BIO_s_mem()));
  must(bio != nullptr && subject != nullptr, "reading PEM");
  const X509Ptr x509(PEM_read_bio_X509(bio.get(), nullptr, no_passphrase, nullptr));
  if (x509 == nullptr) return invalid("there is no certificate that can be read: " + openssl_reason());
  const unsigned long form = XN_FLAG_RFC2253 & ~static_cast<unsigned long>(ASN1_STRFLGS_ESC_MSB);
  must(X509_NAME_print_ex(subject.get(), X509_get_subject_name(x509.get()), 0, form) >= 0, "printing a subject");
  char* text = nullptr;
  const long length = BIO_get_mem_data(subject.get(), &text);
  IssuedCertificate read;
  read.subject = printable({text, static_cast<std::size_t>(length)}, kMaxSubject);
  read.serial = serial_of(x509.get());
  read.sha256 = sha256_hex(der_of<i2d_X509>(x509.get()));
  read.public_key = sha256_hex(der_of<i2d_X509_PUBKEY>(X509_get_X509_PUBKEY(x509.get())));
  read.not_before = time_of(X509_get0_notBefore(x509.get()));
  read.not_after = time_of(X509_get0_notAfter(x509.get()));
  return read;
}

bool is_listener_name(const std::string& name) {
  AlternativeNames names;
  return names.add_address(name) || is_dns_name(name);
}

// ---- Issuer ----------------------------------------------------------------------------------------------

std::string_view name_of(Purpose purpose, const Program& program) {
  switch (purpose) {
    case Purpose::serving_kubelet: return "serving-kubelet";
    case Purpose::client_kubelet: return "client-kubelet";
    case Purpose::client_kube_proxy: return "client-kube-proxy";
    case Purpose::client_program_controller: return program.controller_stem;
  }
  fatal("a Purpose without a name");
}

namespace {
constexpr const char* kRequestHeaderCa = "request-header-ca";
}

struct Issuer::State {
  const Program* program = nullptr;
  Authority client, server;
  std::optional<Result<Authority>> request_header;  // where tls/ has one
  std::string ca_hash, raw_ca_hash;
  StorePtr clients;
};

Issuer::Issuer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Issuer::Issuer(Issuer&&) noexcept = default;
Issuer& Issuer::operator=(Issuer&&) noexcept = default;
Issuer::~Issuer() = default;

Result<Issuer> Issuer::open(const fs::path& data_dir, Time now, bool log_exists, const Program& program) {
  const fs::path directory = data_dir / "tls";
  if (const auto made = ensure_private_directory(directory); !made) return made.error();
  Result<Authority> client = AuthorityFiles(directory, "client-ca", program).open(now, log_exists);
  if (!client) return client.error();
  Result<Authority> server = AuthorityFiles(directory, "server-ca", program).open(now, log_exists);
  if (!server) return server.error();
  auto state = std::make_unique<State>();
  state->program = &program;
  std::error_code unreadable;
  if (fs::exists(directory / (std::string(kRequestHeaderCa) + ".crt"), unreadable))
    state->request_header.emplace(AuthorityFiles(directory, kRequestHeaderCa, program).open(now, true));
  state->client = std::move(*client);
  state->server = std::move(*server);
  state->ca_hash = ca_hash_of(state->server, now);
  state->raw_ca_hash = sha256_hex(state->server.pem);
  state->clients = make_store(state->client);
  return Issuer(std::move(state));
}

const Program& Issuer::program() const { return *state_->program; }
const Program* Issuer::made_by() const {
  for (const Authority* authority : {&state_->client, &state_->server})
    if (const auto names = subject_values(authority->certificate.get(), NID_commonName); names && !names->empty())
      if (const Program* program = program_of_authority(names->front())) return program;
  return nullptr;
}
const std::string& Issuer::server_ca_pem() const { return state_->server.pem; }
const std::string& Issuer::client_ca_pem() const { return state_->client.pem; }
const std::string& Issuer::ca_hash() const { return state_->ca_hash; }
const std::string& Issuer::raw_ca_hash() const { return state_->raw_ca_hash; }
const std::string& Issuer::server_ca_sha256() const { return state_->server.sha256; }
const std::string& Issuer::client_ca_sha256() const { return state_->client.sha256; }

Result<IssuedCertificate> Issuer::issue(Purpose purpose, const NodeName& node,
                                        const std::vector<std::string>& addresses, Time now,
                                        const PublicKey* key) const {
  const bool for_kubelet = purpose == Purpose::serving_kubelet || purpose == Purpose::client_kubelet;
  if (for_kubelet && node.str().empty()) return invalid("a kubelet's certificate needs a node name");
  Leaf leaf;
  switch (purpose) {
    case Purpose::serving_kubelet:
      leaf.common_name = node.str();
      leaf.serves = true;
      leaf.alternatives.add_dns(node.str());
      add_loopback(&leaf.alternatives);
      if (addresses.size() > kMaxAddresses)
        return invalid("more than " + std::to_string(kMaxAddresses) + " node addresses; send fewer");
      for (const std::string& address : addresses)
        if (!leaf.alternatives.add_address(address))
          return invalid("node address '" + printable(address, 64) + "' is not an IP address");
      break;
    case Purpose::client_kubelet:
      leaf.common_name = "system:node:" + node.str();
      leaf.organizations = {"system:nodes"};
      break;
    case Purpose::client_kube_proxy: leaf.common_name = "system:kube-proxy"; break;
    case Purpose::client_program_controller: leaf.common_name = state_->program->controller_user; break;
  }
  return sign(leaf.serves ? state_->server : state_->client, leaf, key, now);
}

Result<IssuedCertificate> Issuer::issue_listener(const std::vector<std::string>& names,
                                                 const std::string& cluster_domain, Time now) const {
  Leaf leaf;
  leaf.common_name = state_->program->name;
  leaf.organizations = {leaf.common_name};
  leaf.serves = true;
  add_loopback(&leaf.alternatives);
  for (const char* name : {"kubernetes", "kubernetes.default", "kubernetes.default.svc"})
    leaf.alternatives.add_dns(name);
  if (!cluster_domain.empty()) {
    const std::string service = "kubernetes.default.svc." + cluster_domain;
    if (!is_dns_name(service))
      return invalid("cluster domain '" + printable(cluster_domain, 80) + "' is not a DNS name like cluster.local");
    leaf.alternatives.add_dns(service);
  }
  for (const std::string& name : names) {
    if (leaf.alternatives.add_address(name)) continue;
    if (!is_dns_name(name))
      return invalid("name '" + printable(name, 80) +
                     "' for the server's certificate is neither a DNS name nor an "
                     "IP address");
    leaf.alternatives.add_dns(to_lower(name));
  }
  return sign(state_->server, leaf, nullptr, now);
}

Result<IssuedCertificate> Issuer::issue_client(const std::string& common_name,
                                               const std::vector<std::string>& organizations, Time now) const {
  Leaf leaf;
  leaf.common_name = common_name;
  leaf.organizations = organizations;
  leaf.seconds = kForwardingSeconds;
  return sign(state_->client, leaf, nullptr, now);
}

Result<IssuedCertificate> Issuer::issue_front_proxy(Time now) const {
  if (!state_->request_header)
    return Error{Errc::not_found,
                 "tls/request-header-ca.crt is not in the data directory: only with it and its key does a kube-apiserver "
                 "believe who we say is asking; adopt the k3s server's directory (ledger adopt), or copy both files from its "
                 "server/tls"};
  if (!*state_->request_header) return state_->request_header->error();
  Leaf leaf;
  leaf.common_name = "system:auth-proxy";
  leaf.seconds = kForwardingSeconds;
  return sign(**state_->request_header, leaf, nullptr, now);
}

Result<ClientIdentity> Issuer::authenticate(std::string_view der, Time now, CertificateClaim* refusal) const {
  const ErrorScope errors;
  CertificateClaim unused;
  CertificateClaim& claim = refusal != nullptr ? *refusal : unused;
  claim = {.fault = "unusable", .common_name = {}};
  if (der.size() > kMaxClientCertificate) return refused("is larger than 16 KiB");
  const unsigned char* at = bytes_of(der);
  const X509Ptr certificate(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  if (certificate == nullptr) return refused("is not readable: " + openssl_reason());
  if (at != bytes_of(der) + der.size()) return refused("is followed by other bytes");
  claim.common_name = sole_common_name(certificate.get());
  if (const auto verified = verify(state_->clients.get(), certificate.get(), now, claim.fault); !verified)
    return verified.error();
  // Trusted as itself, not because somebody vouches for its bearer.
  if ((X509_get_extension_flags(certificate.get()) & EXFLAG_CA) != 0) return refused("is a CA's, not a client's");

  const auto common_names = subject_values(certificate.get(), NID_commonName);
  if (!common_names) return common_names.error();
  if (common_names->size() != 1 || common_names->front().empty()) return refused("must have exactly one CN");
  auto organizations = subject_values(certificate.get(), NID_organizationName);
  if (!organizations) return organizations.error();
  return ClientIdentity{common_names->front(), std::move(*organizations), serial_of(certificate.get())};
}

}  // namespace ledger
