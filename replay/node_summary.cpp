#include "replay/node_summary.h"

#include <set>

namespace ledger::replay {

namespace json = boost::json;

namespace {

json::object moment_object(const Moment& moment) {
  json::object object;
  object["seq"] = moment.seq;
  if (moment.time.known()) object["time"] = moment.time.to_string();
  if (!moment.source.empty()) object["source"] = moment.source;
  if (moment.fingerprint.known()) object["fingerprint"] = moment.fingerprint.text;
  return object;
}

// What is odd about the password that the name is bound to: noticed when it was bound, or seen in the log now.
Result<void> add_oddities(const EventLog& log, std::string_view node, const NodeState& state, json::object& out) {
  constexpr std::size_t kLookedAt = 64;
  if (!state.bound.known()) return {};
  if (const Result<Record> binding = log.read(state.since)) {
    const auto* stored = as<PasswordStored>(*binding);
    if (stored != nullptr && !stored->weakness.empty()) out["weakness"] = stored->weakness;
  }
  const auto uses = log.find(Index::fingerprint, state.bound.text, 1, UINT64_MAX, kLookedAt);
  if (!uses) return uses.error();
  std::set<std::string> others;
  for (const Seq seq : *uses) {
    const Result<Record> use = log.read(seq);
    if (!use || use->node.empty() || use->node == node || others.contains(use->node)) continue;
    const auto other = log.node(use->node);
    if (other && *other && (*other)->bound == state.bound) others.insert(use->node);
  }
  if (!others.empty()) out["also_bound_to"] = json::array(others.begin(), others.end());
  return {};
}

}  // namespace

json::object summary_of(std::string_view node, const NodeState& state) {
  json::object object;
  object["node"] = node;
  object["state"] = state_name(state);
  if (state.is_bound()) {
    json::object bound;
    if (state.bound.known()) bound["fingerprint"] = state.bound.text;
    bound["since_seq"] = state.since;
    object["bound"] = std::move(bound);
  }
  object["held"] = state.held;
  object["rejections"] = state.rejections;
  if (state.registered.seq != 0) object["registered"] = moment_object(state.registered);
  if (state.rejected.seq != 0) object["rejected"] = moment_object(state.rejected);
  return object;
}

Result<json::array> list_nodes(const EventLog& log) {
  json::array nodes;
  const Result<void> read = log.each_node([&](std::string_view name, const Result<NodeState>& state) {
    if (state)
      nodes.push_back(summary_of(name, *state));
    else
      nodes.push_back({{"node", name}, {"state", "unreadable"}, {"problem", state.error().message}});
    return true;
  });
  if (!read) return read.error();
  return nodes;
}

Result<json::object> describe_node(const EventLog& log, const std::string& node) {
  const Result<std::optional<NodeState>> state = log.node(node);
  if (!state) return state.error();
  if (!state->has_value())
    return Error{Errc::not_found, "the ledger has never seen a node " + printable(node, 80) +
                                      "; `ledger node list` shows those it knows"};
  json::object summary = summary_of(node, **state);
  if (const Result<void> added = add_oddities(log, node, **state, summary); !added) return added.error();
  return summary;
}

}  // namespace ledger::replay
