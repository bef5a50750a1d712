// Writes an evidence bundle (bundle.h) into a directory. One pass over the records, memory does not grow with them but
// for eight bytes each where records are chosen. The log must have its tree. Any thread.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "replay/bundle.h"
#include "replay/export.h"

namespace ledger::replay {

struct BundleOptions {
  ExportOptions what{};             // `range` in seqs; `format`: besides JSON Lines; `change`: redaction, with `redacted`
  std::string node{};               // only what bears on it, as export_node()
  std::string filter{};             // `what` and `node` in words, for the manifest; empty: nothing is left out
  std::vector<std::string> redacted{};
  std::string made_by{};
  Checkpoint checkpoint{};          // of this log, not older than the last record
  std::string key{};                // checkpoint.pub, its line
  const NoteSigner* signer = nullptr;  // nullptr: the manifest is not signed
  std::optional<Checkpoint> previous{};  // of this log, not newer than `checkpoint`
};

struct WrittenBundle {
  Manifest manifest;
  std::string sha256;              // of manifest.json
  std::vector<std::string> files;  // in the order in which a tar should have them
};

// `directory` is made and must not be there; what is in it after an error is the caller's to remove. On the disk when
// this returns. Errc::not_found when no record is in the range; Errc::corrupt when one cannot be read.
Result<WrittenBundle> write_bundle(const EventLog& log, const BundleOptions& options,
                                   const std::filesystem::path& directory, const Progress& progress = {});

}  // namespace ledger::replay
