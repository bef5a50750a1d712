// Other rules of admission than the one that ran, as pure functions over evidence: what `ledger whatif` asks about
// history. No clock, no disk; any thread.
//
// A policy never rules by itself. It changes the evidence as a server with that rule would have changed it (a token
// in its grace period is accepted, a name is released) and asks the real decide() (ledger/decision.h) again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ledger/decision.h"

namespace ledger::replay {

struct Policy {
  // Another password is bound in place of the old one when it comes from the host that the holder last registered
  // from. The observed address counts, never the one that an agent claims.
  bool accept_same_address = false;
  // A name is free once nothing was heard of its holder for so many seconds: no registration, no open tunnel, no
  // request with its certificate.
  std::optional<std::int64_t> release_after_silence;
  // A token is accepted for so many seconds after it was replaced, revoked or expired.
  std::optional<std::int64_t> token_grace;

  bool any() const { return accept_same_address || release_after_silence || token_grace; }
  bool operator==(const Policy&) const = default;
};
// A held name is never touched by these rules: a hold is a person's word.

// As on the command line: "--accept-same-address --token-grace 1h".
std::string to_string(const Policy& policy);

// A set of rules; those of a ruling are the ones without which it would have been another.
struct Rules {
  bool same_address = false, silence = false, token_grace = false;
  bool any() const { return same_address || silence || token_grace; }
  bool operator==(const Rules&) const = default;
};

// What a server would have known when the request came.
struct PolicyEvidence {
  Evidence evidence;        // what decide() is asked about
  Time now;                 // not known: no rule that counts time can be judged
  std::string_view source;  // of the request: Record::source
  // The last sign of the holder's life, and whether there may have been later ones that nobody recorded.
  Time heard;
  bool heard_maybe_later = false;
  bool tunnel_open = false;       // the holder is connected now
  bool binding_not_shown = false;  // the history begins after the binding was made
  Time token_ended;               // Evidence::token is superseded, revoked or expired: since when
};

struct PolicyRuling {
  Ruling ruling = Ruling::refuse_token;
  Rules rules;               // what made it so; none: decide() says the same without a policy
  std::string_view unknown;  // not empty: whether the policy admits cannot be told, and this is missing

  bool decided() const { return unknown.empty(); }
  bool admits() const { return decided() && admitted(ruling); }
};

// With an empty policy: decide(), always decided but for a name that is bound to nobody knows what.
PolicyRuling decide_under(const Policy& policy, const PolicyEvidence& evidence);

// As people write a span: 3600 is "1h", 5400 "90m".
std::string span_text(std::int64_t seconds);

}  // namespace ledger::replay
