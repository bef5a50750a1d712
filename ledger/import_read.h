// Readers of the files that an import may come from: bytes in, entries out (import.h). Whatever stands in a file, a
// reader ends with entries, with lines left out and why, or with an error that says what the file is not; it never
// repeats what may be a secret. Formats and limits: docs/EVENTS.md, "Imports".
//
//   node-passwd  CSV password,node,...; streamed, a record of at most 16 KiB
//   secrets      kubectl get secrets -n kube-system -o json: a List or one Secret; whole, at most 256 MiB
//   nodes        kubectl get nodes -o json; likewise
//   log          journalctl -o json, Docker's JSON lines, or plain text; streamed, a line of at most 1 MiB
//
// Clear-text passwords become fingerprints here. Buffers that held secrets are wiped. One object, one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ledger/import.h"

namespace ledger {

// The bytes of a file, in parts, as often as wanted. What can be read only once (standard input, a pipe) is kept in
// memory, at most 256 MiB of it.
class ImportInput {
 public:
  // "-" is standard input. Reads it to its end once, for the SHA-256.
  static Result<ImportInput> open(const std::filesystem::path& path);
  static ImportInput of_text(std::string_view text);  // for tests
  ImportInput(ImportInput&&) noexcept;
  ImportInput& operator=(ImportInput&&) noexcept;
  ~ImportInput();

  const std::string& sha256() const;
  std::uint64_t size() const;

  // The next part, at most 64 KiB, valid until the next call; empty at the end. The end is an error when the file
  // was not the same as in the first reading.
  Result<std::string_view> next();

 private:
  struct State;
  explicit ImportInput(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct ImportSink {
  // Some hundreds of entries, in the order of the file. An error ends the reading with it.
  std::function<Result<void>(std::vector<ImportEntry>)> entries;
  std::function<void(LeftOut)> left_out;
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // bytes; may be empty
};

// How a clear-text password becomes what the log may hold.
using Fingerprinter = std::function<Fingerprint(const Secret&)>;

// Reads the input to its end. `fingerprint` is asked for node-passwd only.
Result<void> read_import(ImportKind kind, ImportInput& input, const Fingerprinter& fingerprint, const ImportSink& sink);

}  // namespace ledger
