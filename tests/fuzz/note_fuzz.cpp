// Checkpoints, keys and proofs come from elsewhere: no crash, and what is read is written the same way.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ledger/proof_file.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

const ledger::NoteVerifier& key() {
  static const auto kKey =
      ledger::NoteVerifier::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
  return *kKey;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto note = ledger::parse_note(text)) {
    const auto again = ledger::parse_note(note->str());
    require(again.has_value() && again->text == note->text && again->signatures.size() == note->signatures.size());
    require(!ledger::check_note(*note, key()).has_value() || note->text.find("cryptography") != std::string::npos);
  }
  if (const auto verifier = ledger::NoteVerifier::parse(text))
    require(ledger::NoteVerifier::parse(verifier->str())->str() == verifier->str());
  (void)ledger::parse_checkpoint(text);
  (void)ledger::open_checkpoints(text, key());
  (void)ledger::NoteSigner::parse(ledger::Secret(text));
  for (const char* head : {"", "c2sp.org/tlog-proof@v1\n", "ledger/consistency-proof@v1\n"})
    require(!ledger::check_proof(head + std::string(text), key()).has_value());
  return 0;
}
