#include "replay/policy.h"

#include <array>

namespace ledger::replay {
namespace {

struct Unit {
  char letter;
  std::int64_t seconds;
};
constexpr std::array kUnits = {Unit{'d', 86400}, Unit{'h', 3600}, Unit{'m', 60}, Unit{'s', 1}};

// "::ffff:10.0.0.5" is 10.0.0.5.
std::string plain_host(std::string_view source) {
  std::string host = to_lower(host_of(source));
  if (host.starts_with("::ffff:") && host.find('.') != std::string::npos) host.erase(0, 7);
  return host;
}

bool was_valid_once(TokenResult token) {
  return token == TokenResult::superseded || token == TokenResult::revoked || token == TokenResult::expired;
}

// Where a rule stands on a name that is bound to another password.
enum class Says { yes, no, unknown };
struct Opinion {
  Says says = Says::no;
  std::string_view missing{};
};

Opinion same_address(const PolicyEvidence& e) {
  const NodeState& node = e.evidence.node;
  // Whoever was accepted or imported and has not come since has no address yet.
  const bool registered = node.registered.seq != 0 && node.registered.seq >= node.since;
  if (!registered && e.binding_not_shown)
    return {Says::unknown, "the history does not show where the holder registered from"};
  if (!registered) return {};
  if (e.source.empty() || node.registered.source.empty())
    return {Says::unknown, "a record without an address"};
  return {plain_host(e.source) == plain_host(node.registered.source) ? Says::yes : Says::no};
}

Opinion silent(const PolicyEvidence& e, std::int64_t seconds) {
  if (e.tunnel_open) return {};
  if (!e.now.known()) return {Says::unknown, "a record without a time"};
  if (!e.heard.known()) return {Says::unknown, "the history does not show when the holder was last heard"};
  if (seconds_between(e.heard, e.now) < static_cast<double>(seconds)) return {};
  if (e.heard_maybe_later || e.binding_not_shown)
    return {Says::unknown, "the holder may have been heard after its last record"};
  return {Says::yes};
}

// The ruling on the same request if the name had been released before it came.
Ruling decide_released(Evidence evidence) {
  Record release;
  release.event = BindingReleased{.actor = {}, .by = "sweep", .fingerprint = evidence.node.bound};
  release.seq = evidence.node.version + 1;
  apply(release, evidence.node);
  return decide(evidence);
}

PolicyRuling ask_about_binding(const Policy& policy, const PolicyEvidence& e, PolicyRuling out) {
  if (e.evidence.node.held) return out;
  const Opinion address = policy.accept_same_address ? same_address(e) : Opinion{};
  const Opinion silence = policy.release_after_silence ? silent(e, *policy.release_after_silence) : Opinion{};
  if (address.says == Says::yes || silence.says == Says::yes) {
    if (!e.evidence.presented.known()) {
      out.unknown = "a record without the password's fingerprint";
      return out;
    }
    out.ruling = decide_released(e.evidence);
    // Where both rules say yes, either alone would do; the narrower one is named.
    (address.says == Says::yes ? out.rules.same_address : out.rules.silence) = true;
    return out;
  }
  if (address.says == Says::unknown) out.unknown = address.missing;
  else if (silence.says == Says::unknown) out.unknown = silence.missing;
  return out;
}

}  // namespace

std::string to_string(const Policy& policy) {
  std::string out;
  const auto add = [&](std::string_view text) { out += (out.empty() ? "" : " ") + std::string(text); };
  if (policy.accept_same_address) add("--accept-same-address");
  if (policy.release_after_silence) add("--release-after-silence " + span_text(*policy.release_after_silence));
  if (policy.token_grace) add("--token-grace " + span_text(*policy.token_grace));
  return out;
}

PolicyRuling decide_under(const Policy& policy, const PolicyEvidence& e) {
  PolicyEvidence seen = e;
  PolicyRuling out;
  if (policy.token_grace && was_valid_once(e.evidence.token)) {
    if (!e.token_ended.known() || !e.now.known()) {
      out.ruling = decide(e.evidence);
      out.unknown = e.now.known() ? "the history does not show when the token ended" : "a record without a time";
      return out;
    }
    if (seconds_between(e.token_ended, e.now) <= static_cast<double>(*policy.token_grace)) {
      seen.evidence.token = TokenResult::accepted;
      out.rules.token_grace = true;
    }
  }
  out.ruling = decide(seen.evidence);
  if (out.ruling == Ruling::refuse_mismatch) return ask_about_binding(policy, seen, out);
  if (out.ruling == Ruling::refuse_unverified) out.unknown = "nobody knows which password the name is bound to";
  return out;
}

std::string span_text(std::int64_t seconds) {
  for (const Unit& unit : kUnits)
    if (seconds % unit.seconds == 0) return std::to_string(seconds / unit.seconds) + unit.letter;
  return std::to_string(seconds) + "s";
}

}  // namespace ledger::replay
