#include "ledger/proof_file.h"

#include <charconv>

#include "ledger/credentials.h"
#include "ledger/event_codec.h"
#include "ledger/node_hash.h"

namespace ledger {
namespace {

constexpr std::string_view kInclusion = "c2sp.org/tlog-proof@v1\n";
constexpr std::string_view kConsistency = "ledger/consistency-proof@v1\n";
constexpr std::string_view kExtra = "extra ";
constexpr std::string_view kIndex = "index ";
constexpr std::size_t kMaxHashes = 128;

Error invalid(std::string message) { return {Errc::invalid, std::move(message)}; }

std::string hash_lines(const TreeProof& proof) {
  std::string lines;
  for (const TreeHash& hash : proof) lines += base64(view_of(hash)) + "\n";
  return lines + "\n";
}

std::string_view take_line(std::string_view& rest) {
  const std::size_t end = rest.find('\n');
  const std::string_view line = rest.substr(0, end);
  rest = end == rest.npos ? std::string_view() : rest.substr(end + 1);
  return line;
}

// Up to the empty line, which is taken too.
Result<TreeProof> take_hashes(std::string_view& rest) {
  TreeProof proof;
  for (;;) {
    if (rest.empty()) return invalid("the proof ends before its checkpoint");
    const std::string_view line = take_line(rest);
    if (line.empty()) return proof;
    const Result<Secret> bytes = decode_base64_text(line);
    const Result<TreeHash> hash = tree_hash_from(bytes ? bytes->reveal() : std::string_view());
    if (!hash) return invalid("a line of the proof is not a hash: " + printable(line, 80));
    if (proof.size() == kMaxHashes) return invalid("the proof has too many hashes");
    proof.push_back(*hash);
  }
}

Result<Proven> check_inclusion(std::string_view rest, const NoteVerifier& key) {
  std::string_view line = take_line(rest);
  if (!line.starts_with(kExtra))
    return invalid("the proof does not hold the record (extra ...): proofs made by `ledger prove` do");
  const Result<Secret> record = decode_base64_text(line.substr(kExtra.size()));
  if (!record) return invalid("the record in the proof is not base64");
  line = take_line(rest);
  std::uint64_t index = 0;
  const std::string_view number = line.starts_with(kIndex) ? line.substr(kIndex.size()) : std::string_view();
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), index);
  if (number.empty() || error != std::errc() || end != number.data() + number.size() ||
      (number.size() > 1 && number[0] == '0'))
    return invalid("the proof has no index");
  const Result<TreeProof> proof = take_hashes(rest);
  if (!proof) return proof.error();
  Result<Checkpoint> checkpoint = open_checkpoint(rest, key);
  if (!checkpoint) return checkpoint.error();
  if (!shows_inclusion(*proof, index, leaf_hash(record->reveal()), checkpoint->head))
    return invalid("the proof does not hold: this record is not number " + std::to_string(index + 1) +
                   " of the log that the checkpoint saw");
  Proven proven{std::move(*checkpoint), {}, index + 1, {}};
  if (const Result<Record> decoded = decode_record(record->reveal())) proven.record = *decoded;
  return proven;
}

Result<Proven> check_consistency(std::string_view rest, const NoteVerifier& key) {
  const Result<TreeProof> proof = take_hashes(rest);
  if (!proof) return proof.error();
  Result<std::vector<Checkpoint>> both = open_checkpoints(rest, key);
  if (!both) return both.error();
  if (both->size() != 2) return invalid("a consistency proof holds two checkpoints");
  if (!shows_consistency(*proof, (*both)[0].head, (*both)[1].head))
    return invalid("the proof does not hold: the log of " + std::to_string((*both)[0].head.size) +
                   " records is not shown to be the beginning of that of " + std::to_string((*both)[1].head.size));
  return Proven{std::move((*both)[1]), std::move((*both)[0]), 0, {}};
}

}  // namespace

std::string inclusion_file(std::string_view record, std::uint64_t index, const TreeProof& proof,
                           const Checkpoint& checkpoint) {
  return std::string(kInclusion) + std::string(kExtra) + base64(record) + "\n" + std::string(kIndex) +
         std::to_string(index) + "\n" + hash_lines(proof) + checkpoint.note.str();
}

std::string consistency_file(const TreeProof& proof, const Checkpoint& older, const Checkpoint& newer) {
  return std::string(kConsistency) + hash_lines(proof) + older.note.str() + newer.note.str();
}

Result<Proven> check_proof(std::string_view file, const NoteVerifier& key) {
  if (file.starts_with(kInclusion)) return check_inclusion(file.substr(kInclusion.size()), key);
  if (file.starts_with(kConsistency)) return check_consistency(file.substr(kConsistency.size()), key);
  return invalid("not a proof: it begins neither with c2sp.org/tlog-proof@v1 nor with ledger/consistency-proof@v1");
}

}  // namespace ledger
