#include "ledger/node_table.h"

namespace ledger {
namespace {

void bind(NodeState& state, const Record& record, const Fingerprint& fingerprint) {
  state.bound = fingerprint;
  state.bound_by_hash = false;
  state.released = false;
  // A hold is a word of our operators: a server that knows nothing of it cannot end it.
  state.held = state.held && is_upstreams(record);
  state.since = record.seq;
  state.version = record.seq;
  state.rejections = 0;
}

void unbind(NodeState& state, const Record& record) {
  state.bound = {};
  state.bound_by_hash = false;
  state.since = record.seq;
  state.version = record.seq;
  state.rejections = 0;
}

Moment moment_of(const Record& record, const Fingerprint& fingerprint) {
  return {record.seq, record.time, record.source, fingerprint};
}

struct Fold {
  const Record& record;
  NodeState& state;

  bool operator()(const PasswordStored& event) const {
    bind(state, record, event.fingerprint);
    state.registered = moment_of(record, event.fingerprint);
    return true;
  }
  bool operator()(const PasswordVerified& event) const {
    // The first match of an imported hash tells its fingerprint. An extract may begin after the binding was
    // made: then a verified password is the first we hear of it.
    if (event.fingerprint.known() && !state.bound.known()) {
      const bool held = state.held;
      bind(state, record, event.fingerprint);
      state.held = held;
    }
    state.registered = moment_of(record, event.fingerprint);
    state.rejections = 0;
    return true;
  }
  bool operator()(const PasswordRejected& event) const {
    if (event.bound.known() && !state.is_bound() && state.version == 0) {
      state.bound = event.bound;  // an extract that begins with the refusal: this much it does tell
      state.version = record.seq;
    }
    state.rejected = moment_of(record, event.fingerprint);
    state.rejections += static_cast<std::uint64_t>(record.count);
    return true;
  }
  bool operator()(const BindingReleased& event) const {
    unbind(state, record);
    state.released = true;
    // Only people end a hold: a name that is held stays held when the cluster forgets its node.
    if (event.by != "node_deleted" && event.by != "sweep" && event.by != "k3s") state.held = false;
    return true;
  }
  bool operator()(const BindingChanged& event) const {
    bind(state, record, event.to);
    return true;
  }
  bool operator()(const BindingHeld&) const {
    state.held = true;
    state.version = record.seq;
    return true;
  }
  bool operator()(const BindingImported& event) const {
    bind(state, record, event.fingerprint);
    state.bound_by_hash = !event.fingerprint.known();
    return true;
  }
  bool operator()(const auto&) const { return false; }
};

}  // namespace

std::string_view state_name(const NodeState& state) {
  if (state.held) return "held";
  if (state.is_bound()) return state.rejections > 0 ? "refused" : "registered";
  return state.released ? "released" : "unknown";
}

bool apply(const Record& record, NodeState& state) {
  return !is_imported(record) && std::visit(Fold{record, state}, record.event);
}

const NodeState* NodeTable::find(std::string_view node) const {
  const auto found = nodes_.find(node);
  return found == nodes_.end() ? nullptr : &found->second;
}

const NodeState* NodeTable::apply(const Record& record) {
  if (record.node.empty()) return nullptr;
  const auto found = nodes_.find(record.node);
  if (found != nodes_.end()) return ledger::apply(record, found->second) ? &found->second : nullptr;
  NodeState fresh;
  if (!ledger::apply(record, fresh)) return nullptr;
  return &nodes_.emplace(record.node, std::move(fresh)).first->second;
}

}  // namespace ledger
