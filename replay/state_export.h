// The projection in k3s' own forms, as far as the ledger holds what a form needs: the way back to k3s.
//
//   secrets      a List of Secrets `<node>.node-password.<k3s|rke2>`, from the kept hashes (ledger/hash_store.h); a
//                node whose binding has no hash of its own is left out, never given a hash of a former binding
//   node-passwd  k3s' CSV of clear-text passwords: the ledger has none, so every bound node is left out
//   json         every node's state; no hashes
// What of it k3s needs, and what stands in its way: way_back.h.
//
// Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/event_log.h"
#include "ledger/hash_store.h"
#include "replay/export.h"

namespace ledger::replay {

enum class StateFormat { node_passwd, secrets, json };

struct StateReport {
  std::uint64_t written = 0;
  std::vector<std::string> left_out;  // bound nodes that the form cannot say
};

// `flavour`: k3s or rke2, the end of a Secret's name. `wanted`: only these nodes are looked at; not set: all.
Result<StateReport> export_state(const EventLog& log, const HashStore& hashes, StateFormat format,
                                 const std::string& flavour, const LineSink& sink,
                                 const std::function<bool(std::string_view node)>& wanted = {});

}  // namespace ledger::replay
