#include "api/trust_probes.h"

#include <vector>

namespace ledger::api {
namespace {

constexpr double kWait_s = 3;
constexpr std::size_t kMaxWaiting = 4096;

// How a client says that it does not trust our certificate: Go sends bad_certificate, others the rest.
bool is_distrust(const std::string& alert) {
  return alert == "bad_certificate" || alert == "unknown_ca" || alert == "certificate_unknown";
}

}  // namespace

void TrustProbes::handshake_failed(const Peer& peer, const std::string& alert) {
  const Failure failure{peer, alert, Time::now()};
  if (is_distrust(alert)) {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() < kMaxWaiting) {
      waiting_.emplace(host_of(peer.source), failure);
      return;
    }
  }
  record(failure, false);
}

void TrustProbes::cacerts_asked(const std::string& source) {
  Failure failure;
  {
    const std::lock_guard lock(mutex_);
    const auto found = waiting_.find(host_of(source));
    if (found == waiting_.end()) return;
    failure = std::move(found->second);
    waiting_.erase(found);
  }
  record(failure, true);
}

void TrustProbes::settle(bool all) {
  std::vector<Failure> unexplained;
  {
    const std::lock_guard lock(mutex_);
    const Time now = Time::now();
    std::erase_if(waiting_, [&](auto& entry) {
      const bool over = all || seconds_between(entry.second.time, now) >= kWait_s;
      if (over) unexplained.push_back(std::move(entry.second));
      return over;
    });
  }
  for (const Failure& failure : unexplained) record(failure, false);
}

void TrustProbes::record(const Failure& failure, bool trust_probe) {
  Record record;
  record.event = TlsFailed{.alert = failure.alert, .trust_probe = trust_probe};
  record.source = failure.peer.source;
  record.via = failure.peer.via;
  // Nobody waits for this record: when it cannot be written, the ledger counts it.
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  ledger_.append(std::move(proposal), [](const Result<Committed>&) {});
}

}  // namespace ledger::api
