// The config document of the cluster that we stand in front of: what its own servers tell agents (pod and service
// networks, DNS, flannel, ...), which no option of ours may contradict. Learned from the upstream while it answers, kept in
// <data-dir>/cluster-config.json (0600: it has the IPSEC key) for when it does not. Only the two ports in it become ours.
//
// Threads: document() from any thread; learn() from one at a time.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "api/agent_config.h"

namespace ledger::api {

class ClusterConfig {
 public:
  // Reads what was kept; nothing kept is no error.
  static Result<std::unique_ptr<ClusterConfig>> open(const std::filesystem::path& data_dir, Ports ours);

  // The newest that was learned; nullptr: none ever was.
  std::shared_ptr<const std::string> document() const;

  // A document of the upstream. True: it is another one than before, and kept now. Errc::invalid: it is none.
  Result<bool> learn(std::string_view body);

 private:
  ClusterConfig(std::filesystem::path file, Ports ours) : file_(std::move(file)), ours_(ours) {}
  Result<std::string> with_our_ports(std::string_view body) const;

  const std::filesystem::path file_;
  const Ports ours_;
  mutable std::mutex mutex_;
  std::shared_ptr<const std::string> document_;  // guarded by mutex_
};

}  // namespace ledger::api
