// Checks an evidence bundle (bundle.h) with nothing but the bundle and what the checker knows from elsewhere: no log, no
// server. Everything that is wrong is told with the file and the place in it.
//
// What is checked: every file is plain, listed and has its size and SHA-256; manifest and checkpoint are signed; every
// record decodes, is one line of records.jsonl and one row of records.<format>, and is an entry of the checkpoint's
// tree; range, counts and times are those of the manifest; the earlier log is the beginning of this one.
//
// The bundle may be hostile: memory is bounded, nothing is unpacked or followed. The time is that of reading what the
// manifest says is there; a tar that hides more is not read further. Any thread.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "replay/bundle.h"
#include "replay/history.h"

namespace ledger::replay {

struct BundleFinding {
  std::string file;   // of the bundle; empty: the whole
  std::string where;  // "line 12", "record 118", "byte 4096"; or empty
  std::string text;   // a sentence
};

struct BundleReport {
  std::optional<Manifest> manifest;  // where it can be read
  std::string key_id;                // of the key that was used; empty: none could be read
  bool is_key_trusted = false;       // it came from elsewhere
  std::uint64_t records = 0;         // that were looked at
  bool is_proved = false;            // they are entries of the checkpoint's tree
  bool has_grown = false;            // an earlier log is shown to be the beginning
  std::vector<BundleFinding> findings;  // the first 100
  std::uint64_t finding_count = 0;
  std::vector<std::string> warnings;  // what the reader must know although nothing is wrong
  bool holds() const { return finding_count == 0; }
};

// What an auditor has from before: the last bundle, or a checkpoint.
struct EarlierBundle {
  std::string where;  // for people
  Checkpoint checkpoint;
  std::optional<Seq> to;  // the last record of that bundle
};
// A bundle or a file with a checkpoint; its signature is not looked at yet.
Result<EarlierBundle> read_earlier(const std::filesystem::path& path);

struct BundleCheckOptions {
  std::optional<NoteVerifier> key{};       // the log's, known from elsewhere
  std::optional<EarlierBundle> earlier{};
  std::string version{};                   // of this program: rows of another one are not compared
};

// Errc::not_found, Errc::io or Errc::invalid when there is no bundle to look at.
Result<BundleReport> check_bundle(const std::filesystem::path& bundle, const BundleCheckOptions& options,
                                  const Progress& progress = {});

}  // namespace ledger::replay
