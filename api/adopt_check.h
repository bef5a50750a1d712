// `ledger adopt --check --upstream`: what would go wrong if a ledger with the identity in this directory stood in
// front of these k3s servers, found out beforehand, with harmless GET requests to them.
//
// It writes nothing, here or there. The servers' own logs get the requests, made as nobody, with the join token of
// the directory, and as two users that do not exist and have no rights: `system:ledger-check` by way of the front
// proxy, and `system:node:ledger-check` by a certificate that lives in memory only. Neither the token nor a
// certificate is shown to a server whose own is not signed by the directory's server CA.
//
// Hides: how a step is carried out, deadlines, the order, which steps make no sense after a failure. No text holds
// a secret. Threads: examine_adoption() blocks, at most some deadlines for each server; any number may run at once.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "api/doctor.h"
#include "ledger/program.h"

namespace ledger::api {

struct AdoptCheckOptions {
  std::filesystem::path directory;  // .../k3s/server, or a data directory that was adopted from one
  std::filesystem::path data_dir;   // of the ledger; need not exist
  const Program* program = &kK3s;
  std::vector<std::string> listener_names;    // that the ledger's own certificate will have
  std::vector<std::string> upstreams;         // https://HOST:PORT
  std::uint16_t upstream_kube_port = 0;       // of their kube-apiservers; 0: of the URL (rke2: 6443)
  std::vector<std::string> agents_use;        // HOST[:PORT] where agents will find the ledger; none: not known
  std::uint16_t listen_port = 0;              // that the ledger will take here; 0: the program's usual one
  std::chrono::milliseconds deadline{5'000};  // of each request
};

// A step (doctor.h) and whom it is about: empty, this machine; else the upstream's URL.
struct AdoptCheckItem {
  std::string upstream;
  DoctorStep step;
};

struct AdoptCheckReport {
  std::vector<AdoptCheckItem> items;
  std::size_t count(DoctorStep::Outcome outcome) const;
};

// `on_item` is called with each item as it ends.
AdoptCheckReport examine_adoption(const AdoptCheckOptions& options,
                                  const std::function<void(const AdoptCheckItem&)>& on_item = {});

}  // namespace ledger::api
