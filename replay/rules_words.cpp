#include <fmt/format.h>

#include <algorithm>

#include "replay/rules.h"

namespace ledger::replay::rules {

Alternative maybe(Cause cause) { return {cause, std::string(would_need(cause))}; }
Alternative maybe(Cause cause, std::string needs) { return {cause, std::move(needs)}; }

std::string who(const Facts& facts) { return printable(facts.history.node, 80); }
std::string upstream_of(const Record& record) {
  return record.upstream.empty() ? "the upstream" : "the upstream " + printable(record.upstream, 60);
}
std::string on_record(const Record& record) { return fmt::format("record {}", record.seq); }
std::string named(const Facts& facts, const Fingerprint& fingerprint) {
  return fingerprint.known() ? "password " + facts.short_name(fingerprint)
                             : "a password whose fingerprint is not recorded";
}
std::string from_where(const Record& record) {
  return record.source.empty() ? "" : " from " + printable(host_of(record.source), 60);
}
std::string times(std::int64_t count) { return count == 1 ? "once" : fmt::format("{} times", count); }

std::string refused_text(const Facts& facts) {
  const Refusals& r = facts.refusals;
  return fmt::format("{} was refused {} (records {} to {})", named(facts, r.presented), times(r.count),
                     r.first().seq(), r.last().seq());
}

void cite(Finding& finding, const Record& record, std::string fact) {
  finding.evidence.push_back({record.seq, std::move(fact)});
}

void cite_refusals(Finding& finding, const Facts& facts) {
  const Refusals& r = facts.refusals;
  std::string fact = fmt::format("{} refused {}", named(facts, r.presented), times(r.count));
  fact += r.newcomer.sources.empty() && r.newcomer.claimed.empty() ? "" : " from " + r.newcomer.to_string();
  cite(finding, *r.last().record, std::move(fact));
}

bool new_to_the_ledger(const Facts& facts) {
  const Refusals& r = facts.refusals;
  return r.presented.known() && facts.known_good_before(r.presented, UINT64_MAX) == nullptr &&
         facts.known_elsewhere(r.presented) == nullptr && r.presented != r.holder;
}

void cite_new_password(Finding& finding, const Facts& facts) {
  if (!new_to_the_ledger(facts)) return;
  for (const Attempt& attempt : facts.refusals.attempts) {
    if (attempt.presented != facts.refusals.presented) continue;
    cite(finding, *attempt.record, facts.short_name(attempt.presented) + " was never accepted before");
    return;
  }
}

bool shows_continuity(const Facts& facts) {
  const auto& auth = facts.refusals.last().record->auth;
  return auth.method == "certificate" && auth.principal == "system:node:" + facts.history.node;
}

void cite_holder(Finding& finding, const Facts& facts) {
  const Refusals& r = facts.refusals;
  const Record* success = r.alive.last_sign;
  if (success == nullptr) return;
  std::string fact = is_success(*success) ? "last success of the holder" : "last sign of the holder";
  fact += from_where(*success);
  if (r.alive.silence_s) fact += fmt::format(", {} before the first refusal", duration_text(*r.alive.silence_s));
  cite(finding, *success, std::move(fact));
}

Confidence lower(Confidence confidence) {
  return confidence == Confidence::kHigh ? Confidence::kMedium : Confidence::kLow;
}

namespace {

std::int64_t count_of(const std::vector<const Record*>& records) {
  std::int64_t count = 0;
  for (const Record* record : records) count += record->count;
  return count;
}

// "record 7", "records 7 to 9"
std::string on_records(const std::vector<const Record*>& records) {
  return records.size() == 1 ? on_record(*records.front())
                             : fmt::format("records {} to {}", records.front()->seq, records.back()->seq);
}

// Refused requests decide the answer, and nobody proved that the node sent them.
void doubt_judged_claim(Finding& finding, const Facts& facts, const Record& claim) {
  finding.warnings.push_back(
      is_bare_claim(claim)
          ? fmt::format("the name is only claimed: no valid credential of who was refused is on record, and anybody can "
                        "write the name {}",
                        who(facts))
          : fmt::format("the name is only claimed: who was refused showed the join token and nothing that only {} has",
                        who(facts)));
  const Record* proven = facts.last_between<PasswordStored, PasswordVerified, TunnelOpened>(0, UINT64_MAX);
  if (proven == nullptr) return;
  Place asker, holder;
  asker.add(claim), holder.add(*proven);
  if (facts.compare(asker, holder) != Where::different) return;
  finding.confidence = Confidence::kLow;
  cite(finding, *proven, fmt::format("{} itself was there last, at another address than who is refused now{}",
                                     who(facts), from_where(*proven)));
  if (finding.cause != Cause::kNone)
    finding.alternatives.push_back(
        maybe(Cause::kNone, "the node itself to be well (its tunnel open): then somebody else writes its name"));
}

}  // namespace

void doubt_claims(Finding& finding, const Facts& facts) {
  if (const Record* claim = facts.judged_claim()) doubt_judged_claim(finding, facts, *claim);
  if (facts.strangers.empty()) return;
  finding.warnings.push_back(fmt::format(
      "somebody claimed to be {} and was refused {}{} ({}): that proves nothing about it, the node itself was connected "
      "meanwhile",
      who(facts), times(count_of(facts.strangers)), from_where(*facts.strangers.back()), on_records(facts.strangers)));
}

std::string where_text(Where where) {
  switch (where) {
    case Where::same: return "the same address as the holder";
    case Where::same_source: return "the same observed address as the holder";
    case Where::different: return "another address than the holder's";
    case Where::unknown: return "addresses that cannot be compared";
  }
  return "";
}

std::string release_text(const Record& release) {
  return as<BindingReleased>(release) != nullptr ? "the name was released" : "the Node was deleted";
}

bool only_loopback(const Place& place) {
  return !place.sources.empty() && std::all_of(place.sources.begin(), place.sources.end(),
                                               [](const std::string& source) { return is_loopback(source); });
}

bool is_mismatch(const Facts& facts) { return facts.family == Family::password; }

const Record* former_use(const Facts& facts) {
  const Refusals& r = facts.refusals;
  return facts.known_good_before(r.presented, r.last().seq());
}

const Record* release_before(const Facts& facts, Seq seq) {
  return facts.last_between<BindingReleased, NodeObjectDeleted>(0, seq);
}

}  // namespace ledger::replay::rules
