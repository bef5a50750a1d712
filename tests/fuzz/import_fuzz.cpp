// Files of another server's memory, whatever stands in them: an end with entries, lines left out or an error; records
// that the log can hold; no password of the file in anything that is said.
//
// Input: the first byte chooses the kind, the rest is the file. The last kind is the text of a scrypt hash.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ledger/event_codec.h"
#include "ledger/import_read.h"
#include "ledger/node_hash.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

void require_printable(const std::string& text) { require(ledger::printable(text, text.size()) == text); }

void fuzz_file(ledger::ImportKind kind, std::string_view text) {
  ledger::ImportInput input = ledger::ImportInput::of_text(text);
  ledger::ImportSink sink;
  sink.entries = [](std::vector<ledger::ImportEntry>) { return ledger::Result<void>(); };
  sink.left_out = [](const ledger::LeftOut& left) { require_printable(left.why); };
  const auto fingerprint = [](const ledger::Secret&) { return ledger::Fingerprint{"f"}; };
  const auto read = ledger::read_import(kind, input, fingerprint, sink);
  if (!read) require_printable(read.error().message);
}

void fuzz_hash(std::string_view text) {
  const auto hash = ledger::NodeHash::parse(text);
  if (!hash) require_printable(hash.error().message);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0: fuzz_file(ledger::ImportKind::node_passwd, text); break;
    case 1: fuzz_file(ledger::ImportKind::secrets, text); break;
    case 2: fuzz_file(ledger::ImportKind::nodes, text); break;
    case 3: fuzz_file(ledger::ImportKind::log, text); break;
    default: fuzz_hash(text);
  }
  return 0;
}
