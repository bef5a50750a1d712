#include "replay/readiness.h"

#include <algorithm>
#include <set>

#include "ledger/decision.h"
#include "replay/export.h"

namespace ledger::replay {
namespace {

using Names = std::set<std::string, std::less<>>;

// Names that a tunnel or a Node object shows to be alive.
Result<Names> find_alive(const EventLog& log, Time since) {
  ExportRange range;
  range.from.time = since;
  const Result<Seqs> seqs = seqs_of(log, range);
  if (!seqs) return seqs.error();
  Names alive;
  const Result<void> read = log.scan(seqs->from, seqs->to, [&alive](Seq, const Result<Record>& record) {
    if (!record || is_imported(*record) || record->node.empty()) return true;
    if (as<TunnelOpened>(*record) != nullptr || as<NodeObjectCreated>(*record) != nullptr)
      alive.insert(record->node);
    if (as<NodeObjectDeleted>(*record) != nullptr) alive.erase(record->node);
    return true;
  });
  if (!read) return read.error();
  return alive;
}

// By a later request; or by itself, where the name is bound here now to what k3s admitted: we follow it.
Result<bool> is_settled(const EventLog& log, const DisagreementEntry& entry) {
  if (entry.agree_since != 0) return true;
  if (entry.which != Disagreement::upstream_admitted || entry.would_have != name_of(Ruling::refuse_mismatch))
    return false;
  const Result<Record> last = log.read(entry.last);
  if (!last) return last.error();
  const auto* verified = as<PasswordVerified>(*last);
  const auto* stored = as<PasswordStored>(*last);
  const Fingerprint shown = verified != nullptr ? verified->fingerprint
                            : stored != nullptr ? stored->fingerprint
                                                : Fingerprint();
  const Result<std::optional<NodeState>> state = log.node(entry.node);
  if (!state) return state.error();
  return shown.known() && *state && (*state)->bound == shown;
}

}  // namespace

bool Readiness::would_refuse() const {
  return std::any_of(compared.entries.begin(), compared.entries.end(),
                     [](const DisagreementEntry& entry) { return entry.which == Disagreement::upstream_admitted; });
}

Result<Readiness> find_readiness(const EventLog& log, Time since) {
  Readiness readiness;
  readiness.since = since;
  Names bound;
  const Result<void> nodes = log.each_node([&](std::string_view name, const Result<NodeState>& state) {
    if (state && state->is_bound()) bound.emplace(name);
    if (state && state->held) readiness.held.emplace_back(name);
    return true;
  });
  if (!nodes) return nodes.error();
  readiness.bound = bound.size();
  Result<Disagreements> compared = disagreements(log, {.since = since});
  if (!compared) return compared.error();
  readiness.compared = std::move(*compared);
  std::vector<DisagreementEntry> open;
  for (DisagreementEntry& entry : readiness.compared.entries) {
    const Result<bool> settled = is_settled(log, entry);
    if (!settled) return settled.error();
    if (*settled)
      ++readiness.settled;
    else
      open.push_back(std::move(entry));
  }
  readiness.compared.entries = std::move(open);
  const Result<Names> alive = find_alive(log, since);
  if (!alive) return alive.error();
  std::set_difference(alive->begin(), alive->end(), bound.begin(), bound.end(),
                      std::back_inserter(readiness.strangers));
  return readiness;
}

}  // namespace ledger::replay
