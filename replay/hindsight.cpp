#include "replay/hindsight.h"

#include <fmt/format.h>

#include <algorithm>

#include "replay/causes.h"
#include "replay/thresholds.h"

namespace ledger::replay {
namespace {

std::set<std::string, std::less<>> claims_of(const Record& record) {
  return {record.claimed.begin(), record.claimed.end()};
}

bool disjoint(const std::set<std::string, std::less<>>& a, const std::set<std::string, std::less<>>& b) {
  return !a.empty() && !b.empty() &&
         std::none_of(a.begin(), a.end(), [&](const std::string& item) { return b.contains(item); });
}

bool is_own_certificate(const Record& record) {
  return record.auth.method == "certificate" && record.auth.principal == "system:node:" + record.node;
}

}  // namespace

Hindsight::Hindsight(const Record& first, Displacement what, HolderBefore before)
    : displacement(std::move(what)),
      entered_(first.first_time.value_or(first.time)),
      claimed_(claims_of(first)),
      before_(std::move(before)),
      own_certificate_(is_own_certificate(first)) {}

void Hindsight::hear_password(const Record& record, const Fingerprint& presented, bool admitted) {
  if (!presented.known()) return;
  // A hash of k3s shows its password when its holder comes.
  if (!displacement.holder.known() && admitted && presented != displacement.newcomer) displacement.holder = presented;
  if (presented == displacement.newcomer) {
    if (holder_again_ != 0 && newcomer_after_ == 0) newcomer_after_ = record.seq;
    if (admitted && accepted_ == 0) accepted_ = record.seq;
  } else if (presented == displacement.holder) {
    if (newcomer_after_ == 0) holder_again_ = record.seq;
    const bool other_host = !record.source.empty() && host_of(record.source) != displacement.source;
    holder_elsewhere_ = holder_elsewhere_ || other_host || disjoint(claimed_, claims_of(record));
  }
  if (admitted) registered_after_ = record.seq;
}

void Hindsight::hear_accept(Seq seq, const Fingerprint& to) {
  if (to == displacement.newcomer && accepted_ == 0) accepted_ = seq;
}

void Hindsight::hear_tunnel_opened(const Record& record) {
  // Whoever registered anew opens one; a machine that opens one without is the one that was there before.
  if (registered_after_ == 0 && accepted_ == 0 && reopened_ == 0) reopened_ = record.seq;
}

void Hindsight::hear_tunnel_closed(Time when, const std::string& session, bool by_server) {
  const auto found = before_.tunnels.find(session);
  if (found == before_.tunnels.end()) return;
  const double lived = entered_.known() && when.known() ? seconds_between(entered_, when) : 0;
  if (lived >= kAliveWindow_s && lived > long_tunnel_s_) long_tunnel_ = found->second, long_tunnel_s_ = lived;
  cut_by_server_ = cut_by_server_ || by_server;
  before_.tunnels.erase(found);
}

std::string Hindsight::alive_sign(Time end) const {
  if (newcomer_after_ != 0)
    return fmt::format("two machines: the old password was shown again ({}), and after that the new one ({})",
                       holder_again_, newcomer_after_);
  if (before_.newcomer_refused != 0 && before_.newcomer_refused < before_.registered)
    return fmt::format("two machines: the new password was refused before ({}), then the holder registered ({})",
                       before_.newcomer_refused, before_.registered);
  if (long_tunnel_ != 0)
    return fmt::format("the holder's tunnel ({}) was open for {} after that", long_tunnel_,
                       duration_text(long_tunnel_s_));
  const bool watched = entered_.known() && end.known() && seconds_between(entered_, end) >= kAliveWindow_s;
  if (!before_.tunnels.empty() && watched)
    return fmt::format("the holder's tunnel ({}) was open and stayed so", before_.tunnels.begin()->second);
  if (reopened_ != 0)
    return fmt::format("the holder opened a tunnel after that ({}) without registering anew", reopened_);
  if (holder_again_ != 0 && holder_elsewhere_)
    return fmt::format("the old password was shown again ({}), by a machine with another address", holder_again_);
  return "";
}

std::string Hindsight::innocent_sign(Time end) const {
  if (accepted_ != 0) return fmt::format("the same password was let in later ({})", accepted_);
  if (!before_.had_tunnel || !before_.tunnels.empty() || cut_by_server_) return "";
  if (!entered_.known() || !end.known() || seconds_between(entered_, end) < kAliveWindow_s) return "";
  return "the holder's tunnel had closed, and it was never heard again";
}

std::string Hindsight::missing() const {
  if (holder_again_ != 0)
    return fmt::format("the old password came back ({}) from the same address, and the new one was not seen again: "
                       "somebody put the file back, or the holder had lived on",
                       holder_again_);
  if (!before_.had_tunnel) return "nothing shows whether the holder lived: no tunnel of it is on record";
  if (cut_by_server_) return "the server cut the holder's tunnel, and nothing was heard of it since";
  return "the history ends too soon after that to show whether the holder lived";
}

Displacement Hindsight::judge(Time end) const {
  Displacement out = displacement;
  const auto say = [&](Verdict verdict, std::string because) {
    out.verdict = verdict, out.because = std::move(because);
    return out;
  };
  if (own_certificate_)
    return say(Verdict::harmless, fmt::format("it came with the node's own certificate ({})", out.refusals.first));
  if (std::string sign = alive_sign(end); !sign.empty()) return say(Verdict::takeover, std::move(sign));
  if (holder_again_ == 0)
    if (std::string sign = innocent_sign(end); !sign.empty()) return say(Verdict::harmless, std::move(sign));
  return say(Verdict::undecided, missing());
}

}  // namespace ledger::replay
