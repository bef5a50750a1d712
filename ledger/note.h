// Signed notes: a text, and who signed it (C2SP signed-note, tlog-cosignature; https://c2sp.org/).
//
//   <text, ends in a newline>
//   <empty line>
//   — <name> <base64 of 4 bytes key id and the signature>        one line per signature
//
// Ed25519 only: type 1 signs the text; type 4, a witness, signs the text and the time it saw it at. Values; any
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/types.h"

namespace ledger {

struct NoteSignature {
  std::string name;
  std::string key_id;        // 8 hex digits
  std::string bytes;         // of type 4: 8 bytes time, big-endian, and the signature
  std::string line() const;  // "— ...", with its newline
};

struct SignedNote {
  std::string text;
  std::vector<NoteSignature> signatures;
  std::string str() const;
};
// Errc::invalid for what is no note; at most 64 KiB and 64 signatures.
Result<SignedNote> parse_note(std::string_view bytes);
// Signature lines alone, as a witness answers.
Result<std::vector<NoteSignature>> parse_signatures(std::string_view lines);

// A public key: "<name>+<key id>+<base64 of type and key>", what others call a vkey.
class NoteVerifier {
 public:
  static Result<NoteVerifier> parse(std::string_view vkey);
  const std::string& name() const { return name_; }
  const std::string& key_id() const { return key_id_; }
  bool is_witness() const;
  std::string str() const;

  // The signature is this key's, by its name and id.
  bool made(const NoteSignature& signature) const { return signature.name == name_ && signature.key_id == key_id_; }
  bool verifies(std::string_view text, const NoteSignature& signature) const;

 private:
  friend class NoteSigner;
  NoteVerifier(std::string name, std::string key);
  std::string name_, key_, key_id_;  // key_: type and 32 bytes
};

// Errc::invalid unless `key` has signed the note; then why, in a sentence without a subject.
Result<void> check_note(const SignedNote& note, const NoteVerifier& key);

// A private key: "PRIVATE+KEY+<name>+<key id>+<base64 of type and seed>", as Go's sumdb/note writes it.
class NoteSigner {
 public:
  enum class Type : char { log = 1, witness = 4 };
  static Result<NoteSigner> make(std::string_view name, Type type = Type::log);
  static Result<NoteSigner> parse(const Secret& text);
  Secret text() const;
  const NoteVerifier& verifier() const { return verifier_; }
  // `at` is what a witness says; a log does not.
  NoteSignature sign(std::string_view text, Time at = {}) const;

 private:
  NoteSigner(NoteVerifier verifier, Secret seed) : verifier_(std::move(verifier)), seed_(std::move(seed)) {}
  static Result<NoteSigner> from_seed(std::string_view name, Type type, Secret seed);
  NoteVerifier verifier_;
  Secret seed_;
};

}  // namespace ledger
