// Keeps k3s' hash texts of node passwords (node_hash.h), outside the log and its exports, because whoever has them
// can try passwords without asking the server.
//
// File: <data-dir>/cred/node-password-hashes, mode 0600. One line per node, the last line of a name counts:
//   <node> <fingerprint | -> <hash text> LF
// The second word says which binding the hash belongs to: the fingerprint of the bound password, or `-` for a name
// that is bound by this hash alone, whose fingerprint nobody knows yet. A hash whose binding is no longer the
// node's is stale: never used, never exported. Lines are appended in one synced write; what a crash tore off at
// the end is dropped at the next open; compact() rewrites the file (through a temporary one, renamed).
//
// One process at a time writes: the owner of the log. Threads: every call from any thread; put() waits for the disk.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "ledger/node_table.h"
#include "ledger/types.h"

namespace ledger {

class HashStore {
 public:
  struct Entry {
    std::string node;
    Fingerprint binding;  // not known: the name is bound by this hash
    Secret hash;
  };

  // Reads the file; none is an empty store. A line that cannot be read is an error that names it.
  static Result<HashStore> open(const std::filesystem::path& data_dir);
  HashStore(HashStore&& other) noexcept;
  ~HashStore();

  // Durable when it returns.
  Result<void> put(std::span<const Entry> entries);

  // The hash of the node where it belongs to the binding that `state` has; empty: there is none.
  Secret find(std::string_view node, const NodeState& state) const;
  bool has(std::string_view node, const NodeState& state) const;
  // Whether this very text is kept for the node, whatever binding it belongs to.
  bool holds(std::string_view node, const Secret& hash) const;

  // The hash that the name was bound by turned out to be that of this password.
  Result<void> belongs_to(std::string_view node, const Fingerprint& fingerprint);

  // Rewrites the file with what `state_of` says is still in use.
  Result<void> compact(const std::function<NodeState(std::string_view)>& state_of);

  std::size_t size() const;

 private:
  struct Kept {
    Fingerprint binding;
    Secret hash;
  };
  explicit HashStore(std::filesystem::path file) : file_(std::move(file)) {}
  Result<void> load(std::string_view text);
  Result<void> append(std::string_view lines);
  const Kept* valid(std::string_view node, const NodeState& state) const;

  std::filesystem::path file_;
  mutable std::mutex mutex_;
  std::map<std::string, Kept, std::less<>> kept_;
  std::size_t lines_ = 0;  // in the file: more than kept_ where some are superseded
};

}  // namespace ledger
