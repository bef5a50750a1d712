// Evidence bundles: a part of the log in a directory or a tar, with all that somebody needs who has neither the log nor
// trust in who keeps it. What stands where:
//
//   README.txt         for an auditor who has never heard of us
//   SHA256SUMS         for sha256sum --check; of every file of data
//   checkpoint         the signed note of the log's size and root (checkpoint.h); covers the last record
//   checkpoint.pub     the key that signed it; worth nothing unless it is known from elsewhere, too
//   consistency.proof  the log of the last bundle's checkpoint is the beginning of this one's (proof_file.h)
//   manifest.json      what the bundle is and holds, with the SHA-256 of every file but the next
//   manifest.note      a signed note over the manifest's SHA-256
//   records.bin        the records as they are stored, the bytes that the tree is made of
//   records.proof      that these are entries of the checkpoint's tree (merkle.h, subset_proof)
//   records.jsonl      the same records for people and programs
//   records.<format>   and in the format that was asked for, if another
//
// A redacted bundle has neither records.bin nor records.proof: what it says is vouched for by manifest.note alone.
//
//   records.bin    "ledger/records@v1\n", then per record: seq (8 bytes, big-endian), length (4, big-endian), bytes
//   records.proof  "ledger/records-proof@v1\n", "size <of the tree>\n", then one hash in base64 per line
//
// The manifest has one form: parse_manifest() refuses what manifest_text() would not have written. Values; any thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/checkpoint.h"
#include "ledger/event.h"

namespace ledger::replay {

inline constexpr std::string_view kBundleReadme = "README.txt";
inline constexpr std::string_view kBundleSums = "SHA256SUMS";
inline constexpr std::string_view kBundleCheckpoint = "checkpoint";
inline constexpr std::string_view kBundleKey = "checkpoint.pub";
inline constexpr std::string_view kBundleConsistency = "consistency.proof";
inline constexpr std::string_view kBundleManifest = "manifest.json";
inline constexpr std::string_view kBundleManifestNote = "manifest.note";
inline constexpr std::string_view kBundleRecords = "records.bin";
inline constexpr std::string_view kBundleProof = "records.proof";
inline constexpr std::string_view kBundleLines = "records.jsonl";
inline constexpr std::string_view kRecordsMagic = "ledger/records@v1\n";
inline constexpr std::string_view kProofMagic = "ledger/records-proof@v1\n";
// No record is longer.
inline constexpr std::size_t kMaxRecordBytes = 16 << 20;
// No file of a bundle is longer that does not grow with the records.
inline constexpr std::size_t kMaxSmallFile = 1 << 20;

// Whether a file of that name grows with the records; nullopt: no file of a bundle has it.
std::optional<bool> is_large_bundle_file(std::string_view name);
std::string extra_file_of(std::string_view format);  // "records.csv"

struct BundleFile {
  std::string name;
  std::uint64_t size = 0;
  std::string sha256;  // hex
  bool operator==(const BundleFile&) const = default;
};

struct Manifest {
  std::string ledger;   // id of the log
  std::string made_by;  // who; empty where names are redacted
  std::string program;  // "ledger 0.1.0"
  Seq from = 0, to = 0;  // the range that was asked for
  Time first_time, last_time;  // of the records
  std::uint64_t records = 0;
  std::map<std::string, std::uint64_t> kinds;  // how many of each
  std::string filter;                          // what was left out of the range, in words; empty: nothing
  std::vector<std::string> redacted;           // names, addresses
  TreeHead checkpoint;
  std::optional<TreeHead> previous;  // of consistency.proof
  bool is_signed = false;            // there is a manifest.note
  std::vector<BundleFile> files;     // every other one, by name

  // Every record from..to is there.
  bool complete() const { return filter.empty(); }
  // Its records can be proved against the checkpoint.
  bool proves() const { return redacted.empty(); }
  const BundleFile* find(std::string_view name) const;
};

std::string manifest_text(const Manifest& manifest);
// Errc::invalid, with what is wrong.
Result<Manifest> parse_manifest(std::string_view text);

std::string sums_text(const Manifest& manifest);
// What is signed; it begins like no checkpoint.
std::string manifest_note_text(const Manifest& manifest, std::string_view sha256);
std::string readme_text(const Manifest& manifest);

// Of records.bin: what stands before a record's bytes.
struct RecordFrame {
  static constexpr std::size_t kSize = 12;
  Seq seq = 0;
  std::uint32_t length = 0;
};
std::string frame_of(Seq seq, std::string_view record);
RecordFrame parse_frame(std::string_view bytes);  // kSize of them

}  // namespace ledger::replay
