// What an agent keeps on its machine: the node password, the node id, and the directory `agent` with the certificates
// and keys that it was given or made (mode 0600, the names of k3s: client-kubelet.crt, client-kubelet.key, ...).
//
// Threads: one object, one thread at a time; two agents must not share a directory.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "ledger/types.h"

namespace ledger::api {

// The trimmed content of a file of random hex digits, which is written when there is none yet. A file that is
// there but empty stays as it is: the agent does not mend it either.
Result<Secret> ensure_random_file(const std::filesystem::path& path, std::size_t random_size, unsigned mode);

class AgentFiles {
 public:
  // Empty: everything is kept in memory.
  explicit AgentFiles(std::filesystem::path directory) : directory_(std::move(directory)) {}

  Result<void> put(const std::string& name, std::string_view bytes);
  // Errc::not_found when there is none.
  Result<Secret> get(const std::string& name) const;
  // Where it lies, as the agent's sentences name it.
  std::string path_of(const std::string& name) const { return (directory_ / name).string(); }

 private:
  const std::filesystem::path directory_;
  std::map<std::string, Secret> kept_;
};

}  // namespace ledger::api
