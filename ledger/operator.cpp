#include "ledger/operator.h"

#include <algorithm>
#include <map>

#include "ledger/hex.h"

namespace ledger {
namespace {

constexpr std::size_t kMinPrefix = 4;
constexpr std::size_t kMaxReason = 1000;
// A holder verified this soon after a rejection shares its name with somebody who is still trying.
constexpr double kBothAlive_s = 600;

struct Rejected {
  Seq first = 0, last = 0;
};

// Every fingerprint that was rejected for the node, with where it stands in the log. A record that cannot be read, because
// its archive is not here, may be the first rejection of each of them.
Result<std::map<std::string, Rejected>> rejected_fingerprints(const EventLog& log, const NodeName& node) {
  std::map<std::string, Rejected> found;
  Seq unread = 0;
  const Result<void> read =
      log.scan(Index::node, node.str(), 1, UINT64_MAX, [&](Seq seq, const Result<Record>& record) {
        if (!record && unread == 0) unread = seq;
        const auto* rejected = record ? as<PasswordRejected>(*record) : nullptr;
        if (rejected == nullptr || !rejected->fingerprint.known()) return true;
        Rejected& entry = found[rejected->fingerprint.text];
        if (entry.first == 0) entry.first = seq;
        entry.last = seq;
        return true;
      });
  if (!read) return read.error();
  for (auto& [fingerprint, places] : found)
    if (unread != 0) places.first = std::min(places.first, unread);
  if (found.empty() && unread != 0)
    return Error{Errc::archived, "no rejected password of " + node.str() + " can be read, and record " +
                                     std::to_string(unread) + " and maybe others of it are in an archive that is not " +
                                     "here: put it back (ledger archive list)"};
  return found;
}

Result<std::pair<std::string, Rejected>> choose(const std::map<std::string, Rejected>& rejected,
                                                std::string_view prefix, const NodeName& node) {
  const std::string asked = printable(prefix, 64);
  if (prefix.size() < kMinPrefix)
    return Error{Errc::invalid, "fingerprint '" + asked + "' is too short; give at least 4 digits of it"};
  auto match = rejected.end();
  for (auto it = rejected.lower_bound(std::string(prefix)); it != rejected.end(); ++it) {
    if (!it->first.starts_with(prefix)) break;
    if (match != rejected.end())
      return Error{Errc::invalid, "fingerprint '" + asked + "' fits more than one rejected password of " + node.str() +
                                      "; give more digits of it"};
    match = it;
  }
  if (match == rejected.end())
    return Error{Errc::not_found, "no password with fingerprint '" + asked + "' was ever rejected for " + node.str() +
                                      "; `ledger replay --node " + node.str() + "` lists those that were"};
  return *match;
}

Result<void> check_reason(const OperatorAction& action) {
  if (trim(action.reason).empty())
    return Error{Errc::invalid, "say why: --reason \"...\" becomes part of the node's history"};
  if (action.reason.size() > kMaxReason) return Error{Errc::invalid, "the reason is longer than 1000 bytes"};
  return {};
}

Error holder_alive(const NodeName& node, const NodeState& state) {
  return {Errc::conflict, "the holder of " + node.str() + " was verified after that, at record " +
                              std::to_string(state.registered.seq) + " from " + state.registered.source +
                              ": two machines seem to use this name, and this would cut off the rightful one; "
                              "rename the newcomer, or insist with --force"};
}

Record record_of(Event event, const OperatorAction& action) {
  Record record;
  record.event = std::move(event);
  record.note = printable(action.reason, kMaxReason);
  record.request_id = action.request_id;
  record.source = action.source;
  record.via = action.via;
  return record;
}

Result<Committed> append_action(Ledger& ledger, const NodeName& node, Seq version, Event event,
                                const OperatorAction& action) {
  Record record = record_of(std::move(event), action);
  record.node = node.str();
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  proposal.expect = Proposal::Expect{node.str(), version};
  Result<Committed> committed = ledger.append_and_wait(std::move(proposal));
  if (!committed && committed.error().code == Errc::conflict)
    return Error{Errc::conflict, "the binding of " + node.str() + " changed meanwhile; look again, then repeat"};
  return committed;
}

}  // namespace

Result<Committed> accept_fingerprint(Ledger& ledger, const NodeName& node, std::string_view fingerprint,
                                     const OperatorAction& action) {
  if (const Result<void> reason = check_reason(action); !reason) return reason.error();
  if (const Result<void> flushed = ledger.flush_counts(); !flushed) return flushed.error();
  const NodeState state = ledger.find(node.str());
  const auto rejected = rejected_fingerprints(ledger.log(), node);
  if (!rejected) return rejected.error();
  const auto chosen = choose(*rejected, fingerprint, node);
  if (!chosen) return chosen.error();
  const auto& [chosen_fingerprint, places] = *chosen;
  if (state.bound.text == chosen_fingerprint)
    return Error{Errc::conflict, node.str() + " is bound to this password already, since record " +
                                     std::to_string(state.since)};
  if (!action.force && state.is_bound() && state.registered.seq > places.first && state.since < places.last)
    return holder_alive(node, state);
  return append_action(ledger, node, state.version,
                       BindingChanged{.actor = printable(action.actor, 200), .by = "operator_accept",
                                      .from = state.bound, .to = Fingerprint{chosen_fingerprint}},
                       action);
}

Result<Committed> release_binding(Ledger& ledger, const NodeName& node, const OperatorAction& action) {
  if (const Result<void> reason = check_reason(action); !reason) return reason.error();
  const NodeState state = ledger.find(node.str());
  if (state.version == 0) return Error{Errc::not_found, "the ledger has never seen a node " + node.str()};
  if (!state.is_bound() && !state.held)
    return Error{Errc::conflict, node.str() + " is not bound: there is nothing to release"};
  const bool both_alive = state.is_bound() && state.since < state.rejected.seq &&
                          state.rejected.seq < state.registered.seq &&
                          seconds_between(state.rejected.time, state.registered.time) < kBothAlive_s;
  if (!action.force && both_alive) return holder_alive(node, state);
  return append_action(ledger, node, state.version,
                       BindingReleased{.actor = printable(action.actor, 200), .by = "operator",
                                       .fingerprint = state.bound},
                       action);
}

Result<Committed> hold_name(Ledger& ledger, const NodeName& node, const OperatorAction& action) {
  if (const Result<void> reason = check_reason(action); !reason) return reason.error();
  const NodeState state = ledger.find(node.str());
  if (state.held) return Error{Errc::conflict, node.str() + " is held already"};
  return append_action(ledger, node, state.version, BindingHeld{.actor = printable(action.actor, 200)}, action);
}

Result<Committed> record_export(Ledger& ledger, ExportCreated exported, const OperatorAction& action) {
  const auto head = static_cast<std::int64_t>(ledger.log().head());
  if (exported.from < 1 || exported.to < exported.from || exported.to > head)
    return Error{Errc::invalid, "the log has no records " + std::to_string(exported.from) + " to " +
                                    std::to_string(exported.to) + "; it ends with " + std::to_string(head)};
  if (!is_hex(exported.sha256, 64))
    return Error{Errc::invalid, "sha256 must be a SHA-256, 64 digits in lower-case hex"};
  if (exported.format.empty() || exported.format != printable(exported.format, 40))
    return Error{Errc::invalid, "format is missing or too long"};
  if (action.actor.empty()) return Error{Errc::invalid, "field 'actor' is missing"};
  exported.actor = printable(action.actor, 200);
  Proposal proposal;
  proposal.records.push_back(record_of(std::move(exported), action));
  return ledger.append_and_wait(std::move(proposal));
}

}  // namespace ledger
