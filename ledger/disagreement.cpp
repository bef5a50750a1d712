#include "ledger/disagreement.h"

#include "ledger/decision.h"

namespace ledger {
namespace {

enum class Verdict : std::uint8_t { none, admitted, refused };

Verdict upstream_verdict(const Record& record) {
  if (const auto* rejected = as<RequestRejected>(record))
    if (rejected->reason == kUpstreamUnavailable || rejected->reason == kUpstreamError) return Verdict::none;
  if (record.answered == 101 || (record.answered >= 200 && record.answered < 300)) return Verdict::admitted;
  if (record.answered == 400 || record.answered == 401 || record.answered == 403) return Verdict::refused;
  return Verdict::none;
}

Verdict our_verdict(const Record& record) {
  if (record.would_have == kWouldServe) return Verdict::admitted;
  const std::optional<Ruling> ruling = ruling_from_name(record.would_have);
  if (!ruling) return Verdict::none;
  return admitted(*ruling) ? Verdict::admitted : Verdict::refused;
}

}  // namespace

Disagreement disagreement_of(const Record& record) {
  if (!is_upstreams(record)) return Disagreement::none;
  const Verdict theirs = upstream_verdict(record), ours = our_verdict(record);
  if (theirs == Verdict::none || ours == Verdict::none || theirs == ours) return Disagreement::none;
  return theirs == Verdict::admitted ? Disagreement::upstream_admitted : Disagreement::upstream_refused;
}

}  // namespace ledger
