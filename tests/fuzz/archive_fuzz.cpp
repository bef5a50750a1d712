// An archive comes back from wherever it was kept: no crash, no run-away memory, and nothing unsigned is believed.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ledger/archive_file.h"
#include "ledger/event_codec.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

const ledger::NoteSigner& signer() {
  static const auto kSigner = ledger::NoteSigner::make("ledger/0123456789abcdef");
  return *kSigner;
}

// A header that is what its digest says, whatever the fuzzer made of it: else it would only ever test SHA-256.
std::string with_digest(std::string bytes, std::size_t header) {
  constexpr std::size_t kHash = sizeof(ledger::TreeHash);
  if (header < kHash + 16 || header > bytes.size()) return bytes;
  for (std::size_t i = 0; i < 4; ++i) bytes[12 + i] = static_cast<char>(header >> (8 * i) & 0xFF);
  const ledger::TreeHash digest = ledger::sha256_of(std::string_view(bytes).substr(0, header - kHash));
  return bytes.replace(header - kHash, kHash, ledger::view_of(digest));
}

void read_all(std::string bytes) {
  const auto file = ledger::ArchiveFile::of_bytes(std::move(bytes), "fuzz");
  if (!file) return;
  for (ledger::Seq seq = (*file)->from(); seq <= (*file)->to(); seq = (*file)->span_of(seq).second + 1)
    if (const auto block = (*file)->block_of(seq)) require((*block)->holds(seq));
  require(!ledger::check_archive(**file, &signer().verifier()).sound());
}

// Records of the fuzzer's, in an archive that is in order: what goes in comes out.
void there_and_back(std::string_view text) {
  ledger::ArchiveBuilder builder("0123456789abcdef", ledger::TreeEdge());
  std::vector<std::string> records;
  for (std::string_view rest = text; !rest.empty() && records.size() < 100;) {
    const std::size_t size = static_cast<unsigned char>(rest[0]);
    records.emplace_back(rest.substr(1, size));
    rest.remove_prefix(std::min(rest.size(), size + 1));
    require(builder.add(records.back(), ledger::Time{1}).has_value());
  }
  if (records.empty()) return;
  const auto file = ledger::ArchiveFile::of_bytes(builder.finish("").bytes, "fuzz");
  require(file.has_value());
  for (std::size_t i = 0; i < records.size(); ++i) {
    const auto block = (*file)->block_of(i + 1);
    require(block && (*block)->records[i + 1 - (*block)->first] == records[i]);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 2, size - 2);
  read_all(text);
  read_all(with_digest("LEDGARCH" + std::string("\1\0\0\0", 4) + text, static_cast<std::size_t>(data[0] | data[1] << 8)));
  there_and_back(text);
  return 0;
}
