#include "ledger/note.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>

#include "ledger/credentials.h"
#include "ledger/hex.h"
#include "ledger/node_hash.h"
#include "ledger/openssl_handles.h"

namespace ledger {
namespace {

constexpr std::string_view kDash = "\xE2\x80\x94 ";  // em dash, space
constexpr std::size_t kMaxNoteBytes = 64 << 10;
constexpr std::size_t kMaxSignatures = 64;
constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kSignatureBytes = 64;
constexpr std::size_t kTimeBytes = 8;
constexpr std::size_t kKeyIdBytes = 4;
constexpr std::string_view kPrivate = "PRIVATE+KEY+";
constexpr char kWitness = static_cast<char>(NoteSigner::Type::witness);
constexpr char kLog = static_cast<char>(NoteSigner::Type::log);

using KeyPtr = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using DigestPtr = std::unique_ptr<EVP_MD_CTX, FreeWith<EVP_MD_CTX_free>>;

Error invalid(std::string message) { return {Errc::invalid, std::move(message)}; }

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= 256 &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c != '+' && c != '\x7f'; });
}

Result<std::string> decode(std::string_view text) {
  const Result<Secret> bytes = decode_base64_text(text);
  if (!bytes) return bytes.error();
  return std::string(bytes->reveal());
}

std::string big_endian(std::uint64_t value) {
  std::string out;
  for (int shift = 56; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift & 0xFF));
  return out;
}

// What a key of this type signs.
std::string message_of(char type, std::string_view text, std::uint64_t seconds) {
  if (type != kWitness) return std::string(text);
  return "cosignature/v1\ntime " + std::to_string(seconds) + "\n" + std::string(text);
}

// Takes the first of the parts that `separator` makes of `rest`.
std::string_view take(std::string_view& rest, char separator) {
  const std::size_t end = rest.find(separator);
  const std::string_view part = rest.substr(0, end);
  rest = end == rest.npos ? std::string_view() : rest.substr(end + 1);
  return part;
}

Result<NoteSignature> parse_line(std::string_view line) {
  if (!line.starts_with(kDash)) return invalid("a signature line does not begin with an em dash and a space");
  std::string_view rest = line.substr(kDash.size());
  const std::string_view name = take(rest, ' ');
  const Result<std::string> bytes = decode(rest);
  if (!is_name(name) || !bytes || bytes->size() <= kKeyIdBytes)
    return invalid("a signature line is not: em dash, name, base64");
  return NoteSignature{std::string(name), to_hex(bytes->substr(0, kKeyIdBytes)), bytes->substr(kKeyIdBytes)};
}

}  // namespace

// ---- notes -----------------------------------------------------------------------------------------------

std::string NoteSignature::line() const {
  return std::string(kDash) + name + " " + base64(from_hex(key_id) + bytes) + "\n";
}

std::string SignedNote::str() const {
  std::string out = text + "\n";
  for (const NoteSignature& signature : signatures) out += signature.line();
  return out;
}

Result<std::vector<NoteSignature>> parse_signatures(std::string_view lines) {
  std::vector<NoteSignature> signatures;
  if (lines.size() > kMaxNoteBytes) return invalid("too long");
  while (!lines.empty()) {
    if (lines.find('\n') == lines.npos) return invalid("the last signature line has no end");
    const Result<NoteSignature> signature = parse_line(take(lines, '\n'));
    if (!signature) return signature.error();
    if (signatures.size() == kMaxSignatures) return invalid("too many signatures");
    signatures.push_back(*signature);
  }
  return signatures;
}

Result<SignedNote> parse_note(std::string_view bytes) {
  if (bytes.size() > kMaxNoteBytes) return invalid("a note of more than 64 KiB");
  const std::size_t blank = bytes.rfind("\n\n");
  if (blank == bytes.npos) return invalid("there is no empty line before signatures: not a signed note");
  for (const char c : bytes)
    if (static_cast<unsigned char>(c) < 0x20 && c != '\n') return invalid("a control character: not a signed note");
  Result<std::vector<NoteSignature>> signatures = parse_signatures(bytes.substr(blank + 2));
  if (!signatures) return signatures.error();
  if (signatures->empty()) return invalid("nobody signed it");
  return SignedNote{std::string(bytes.substr(0, blank + 1)), std::move(*signatures)};
}

Result<void> check_note(const SignedNote& note, const NoteVerifier& key) {
  bool found = false;
  for (const NoteSignature& signature : note.signatures) {
    if (!key.made(signature)) continue;
    if (!key.verifies(note.text, signature))
      return invalid("the signature of " + key.name() + " (key " + key.key_id() + ") does not fit the text");
    found = true;
  }
  if (!found) return invalid("is not signed by " + key.name() + " (key " + key.key_id() + ")");
  return {};
}

// ---- public keys -----------------------------------------------------------------------------------------

NoteVerifier::NoteVerifier(std::string name, std::string key) : name_(std::move(name)), key_(std::move(key)) {
  key_id_ = sha256_hex(name_ + "\n" + key_).substr(0, 2 * kKeyIdBytes);
}

bool NoteVerifier::is_witness() const { return key_[0] == kWitness; }

std::string NoteVerifier::str() const { return name_ + "+" + key_id_ + "+" + base64(key_); }

Result<NoteVerifier> NoteVerifier::parse(std::string_view vkey) {
  std::string_view rest = trim(vkey);
  const std::string_view name = take(rest, '+');
  const std::string_view id = take(rest, '+');
  const Result<std::string> key = decode(rest);
  if (!is_name(name) || !key || key->empty())
    return invalid("not a public key of the form <name>+<8 hex digits>+<base64>");
  if (key->size() != 1 + kKeyBytes || ((*key)[0] != kLog && (*key)[0] != kWitness))
    return invalid("not an Ed25519 key (types 1 and 4 are known)");
  NoteVerifier verifier{std::string(name), *key};
  if (verifier.key_id_ != id)
    return invalid("the key's id should be " + verifier.key_id_ + ": it was cut or changed on its way");
  return verifier;
}

bool NoteVerifier::verifies(std::string_view text, const NoteSignature& signature) const {
  const ErrorScope scope;
  std::string_view bytes = signature.bytes;
  std::uint64_t seconds = 0;
  if (is_witness()) {
    if (bytes.size() != kTimeBytes + kSignatureBytes) return false;
    for (const char c : bytes.substr(0, kTimeBytes)) seconds = seconds << 8 | static_cast<unsigned char>(c);
    bytes.remove_prefix(kTimeBytes);
  }
  if (bytes.size() != kSignatureBytes || seconds > INT64_MAX) return false;
  const std::string message = message_of(key_[0], text, seconds);
  const KeyPtr key(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, bytes_of(key_) + 1, kKeyBytes));
  const DigestPtr context(EVP_MD_CTX_new());
  must(context != nullptr, "Ed25519");
  return key != nullptr && EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
         EVP_DigestVerify(context.get(), bytes_of(bytes), bytes.size(), bytes_of(message), message.size()) == 1;
}

// ---- private keys ----------------------------------------------------------------------------------------

Result<NoteSigner> NoteSigner::from_seed(std::string_view name, Type type, Secret seed) {
  const ErrorScope scope;
  const KeyPtr key(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, bytes_of(seed.reveal()), kKeyBytes));
  must(key != nullptr, "Ed25519");
  std::string public_key(1 + kKeyBytes, static_cast<char>(type));
  std::size_t length = kKeyBytes;
  must(
      EVP_PKEY_get_raw_public_key(key.get(), reinterpret_cast<unsigned char*>(public_key.data()) + 1, &length) == 1,
      "Ed25519");
  return NoteSigner(NoteVerifier(std::string(name), std::move(public_key)), std::move(seed));
}

Result<NoteSigner> NoteSigner::make(std::string_view name, Type type) {
  if (!is_name(name)) return invalid("a key's name has no blanks and no plus signs");
  const Secret hex = random_secret(kKeyBytes);
  std::string bytes = from_hex(hex.reveal());
  Secret seed{bytes};
  OPENSSL_cleanse(bytes.data(), bytes.size());
  return from_seed(name, type, std::move(seed));
}

Result<NoteSigner> NoteSigner::parse(const Secret& text) {
  std::string_view rest = trim(text.reveal());
  if (!rest.starts_with(kPrivate)) return invalid("not a private key: it begins with " + std::string(kPrivate));
  rest.remove_prefix(kPrivate.size());
  const std::string_view name = take(rest, '+');
  const std::string_view id = take(rest, '+');
  const Result<Secret> key = decode_base64_text(rest);
  if (!is_name(name) || !key || key->reveal().size() != 1 + kKeyBytes ||
      (key->reveal()[0] != kLog && key->reveal()[0] != kWitness))
    return invalid("not a private key of the form PRIVATE+KEY+<name>+<8 hex digits>+<base64>");
  Result<NoteSigner> signer = from_seed(name, static_cast<Type>(key->reveal()[0]), Secret(key->reveal().substr(1)));
  if (signer && signer->verifier_.key_id_ != id)
    return invalid("the private key's id does not fit it: it was changed");
  return signer;
}

Secret NoteSigner::text() const {
  std::string key(1, verifier_.key_[0]);
  key.reserve(1 + kKeyBytes);
  key += seed_.reveal();
  std::string encoded = base64(key);
  std::string line;
  line.reserve(512);
  line.append(kPrivate).append(verifier_.name_).append("+").append(verifier_.key_id_).append("+").append(encoded);
  Secret secret{line};
  for (std::string* part : {&key, &encoded, &line}) OPENSSL_cleanse(part->data(), part->size());
  return secret;
}

NoteSignature NoteSigner::sign(std::string_view text, Time at) const {
  const ErrorScope scope;
  const char type = verifier_.key_[0];
  const auto seconds = static_cast<std::uint64_t>(at.micros / 1'000'000);
  const std::string message = message_of(type, text, seconds);
  const KeyPtr key(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, bytes_of(seed_.reveal()), kKeyBytes));
  const DigestPtr context(EVP_MD_CTX_new());
  std::array<unsigned char, kSignatureBytes> bytes{};
  std::size_t length = bytes.size();
  must(key != nullptr && context != nullptr &&
           EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
           EVP_DigestSign(context.get(), bytes.data(), &length, bytes_of(message), message.size()) == 1,
       "Ed25519");
  std::string signature(reinterpret_cast<const char*>(bytes.data()), length);
  return {verifier_.name_, verifier_.key_id_, type == kWitness ? big_endian(seconds) + signature : signature};
}

}  // namespace ledger
