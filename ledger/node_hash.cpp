#include "ledger/node_hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <array>
#include <charconv>
#include <vector>

#include "ledger/credentials.h"

namespace ledger {
namespace {

// What k3s writes (pkg/authenticator/hash/scrypt.go).
constexpr unsigned kLogN = 15, kR = 8, kP = 1;
constexpr std::size_t kSaltBytes = 8, kKeyBytes = 64;
// What we are willing to read. Work is N*r*p, memory N*r.
constexpr std::uint64_t kMaxWork = 2 * (std::uint64_t{1} << kLogN) * kR * kP;
constexpr unsigned kMaxLogN = 20, kMaxR = 64, kMaxP = 64;  // the product decides
constexpr std::size_t kMaxSaltBytes = 64, kMinKeyBytes = 16, kMaxKeyBytes = 128;
// OpenSSL refuses to use more than it is told: 128*N*r bytes and some for the blocks.
constexpr std::uint64_t kMemoryLimit = 128 * kMaxWork + (1 << 20);

const unsigned char* bytes_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

Result<Secret> derive(const Secret& password, std::string_view salt, unsigned log_n, unsigned r, unsigned p,
                      std::size_t size) {
  WipedText key(size);
  key.text.resize(size);
  const std::string_view secret = password.reveal();
  if (EVP_PBE_scrypt(secret.data(), secret.size(), bytes_of(salt), salt.size(), std::uint64_t{1} << log_n, r, p,
                     kMemoryLimit, reinterpret_cast<unsigned char*>(key.text.data()), size) != 1)
    return Error{Errc::unavailable, "scrypt failed: there may be too little memory for a check (32 MiB)"};
  return Secret(key.text);
}

// A decimal number as k3s prints it: no sign, no leading zero, at most `max`.
bool read_number(std::string_view text, unsigned max, unsigned* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size() && text.size() <= 3 && text[0] != '0' &&
         *out <= max;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool read_hex(std::string_view text, Secret* out) {
  if (text.empty() || text.size() % 2 != 0 || text.size() > 2 * kMaxSaltBytes) return false;
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = hex_value(text[i]), low = hex_value(text[i + 1]);
    if (high < 0 || low < 0) return false;
    bytes += static_cast<char>(high * 16 + low);
  }
  *out = Secret(bytes);
  return true;
}

}  // namespace

Result<Secret> decode_base64_text(std::string_view text) {
  const Error bad{Errc::invalid, "is not base64"};
  const std::size_t given = text.size();
  while (text.ends_with('=') && given - text.size() < 2) text.remove_suffix(1);
  const std::size_t padding = given - text.size();
  if (text.size() % 4 == 1 || (padding != 0 && given % 4 != 0)) return bad;
  WipedText out(text.size());
  unsigned left_over = 0;
  if (!append_base64_bytes(text, &out.text, &left_over) || left_over != 0) return bad;
  return Secret(out.text);
}

Result<NodeHash> NodeHash::parse(std::string_view text) {
  const auto bad = [](const char* why) { return Error{Errc::invalid, std::string("the hash ") + why}; };
  if (text.size() > 1024) return bad("is longer than 1024 bytes");
  std::vector<std::string_view> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const auto colon = std::min(text.find(':', at), text.size());
    parts.push_back(text.substr(at, colon - at));
    at = colon + 1;
  }
  if (parts.size() != 6 || !parts[0].starts_with('$'))
    return bad("is not of the form $1:<salt>:15:8:1:<base64>, which k3s writes");
  if (parts[0] != "$1") return bad("has a format version that is not 1");
  NodeHash hash;
  if (!read_hex(parts[1], &hash.salt_)) return bad("has a salt that is not 1 to 64 bytes in lower-case hex");
  if (!read_number(parts[2], kMaxLogN, &hash.log_n_) || !read_number(parts[3], kMaxR, &hash.r_) ||
      !read_number(parts[4], kMaxP, &hash.p_) ||
      (std::uint64_t{1} << hash.log_n_) * hash.r_ * hash.p_ > kMaxWork)
    return bad("has scrypt parameters that are none, or cost more than twice what k3s' do (15:8:1)");
  if (parts[5].ends_with('=')) return bad("has a key with base64 padding, which k3s does not write");
  Result<Secret> key = decode_base64_text(parts[5]);
  if (!key) return bad("has a key that is not base64");
  if (key->reveal().size() < kMinKeyBytes || key->reveal().size() > kMaxKeyBytes)
    return bad("has a key that is not 16 to 128 bytes long (k3s: 64)");
  hash.key_ = std::move(*key);
  return hash;
}

Result<bool> NodeHash::matches(const Secret& password) const {
  const std::string_view key = key_.reveal();
  const Result<Secret> derived = derive(password, salt_.reveal(), log_n_, r_, p_, key.size());
  if (!derived) return derived.error();
  return CRYPTO_memcmp(derived->reveal().data(), key.data(), key.size()) == 0;
}

Result<Secret> make_node_hash(const Secret& password, std::string_view salt) {
  const Result<Secret> key = derive(password, salt, kLogN, kR, kP, kKeyBytes);
  if (!key) return key.error();
  std::string encoded = base64(key->reveal());
  while (encoded.ends_with('=')) encoded.pop_back();
  return Secret("$1:" + to_hex(salt) + ":" + std::to_string(kLogN) + ":" + std::to_string(kR) + ":" +
                std::to_string(kP) + ":" + encoded);
}

Result<Secret> make_node_hash(const Secret& password) {
  const std::string hex = random_hex(kSaltBytes);
  Secret salt;
  read_hex(hex, &salt);
  return make_node_hash(password, salt.reveal());
}

Sha256::Sha256() {
  EVP_MD_CTX* const context = EVP_MD_CTX_new();
  if (context == nullptr || EVP_DigestInit_ex(context, EVP_sha256(), nullptr) != 1) fatal("SHA-256 failed");
  context_ = context;
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void Sha256::add(std::string_view bytes) {
  if (EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), bytes.data(), bytes.size()) != 1) fatal("SHA-256 failed");
}

std::string Sha256::hex() {
  std::array<unsigned char, 32> digest;
  if (EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), nullptr) != 1) fatal("SHA-256 failed");
  return to_hex({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

}  // namespace ledger
