// The projection of the tokens' life cycle: which secrets there have ever been, by fingerprint, and what became of
// them; and the one rule of who may come in with which. Made by folding token_created, token_rotated,
// token_revoked and token_expired in order.
//
// A token is named by its class and its id. One secret may be a token of two classes (agents and servers of a k3s
// server share one): then both have the same id, and each has a life of its own. Once revoked a token stays
// revoked, whatever is recorded later.
//
// Expiry and the end of a grace period follow from the time that is given, not from the event that notes them.
//
// Threads: not locked; its owner says who may touch it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ledger/decision.h"
#include "ledger/event.h"

namespace ledger {

// Who or what did something to a token, and when.
struct TokenMoment {
  Seq seq = 0;  // 0: it has not happened
  Time time;
  std::string actor;
};

struct TokenState {
  enum class Status { valid, superseded, revoked, expired };
  std::string id;
  std::string token_class;  // agent, server, bootstrap, operator
  Status status = Status::valid;  // as the records say; status_at() is what holds at a moment
  std::optional<Time> expires;
  Fingerprint fingerprint;  // not known in logs of format version 1: such a token is recognised by its id
  std::string role;         // of an operator: read, operate (or empty, which is operate)
  std::string description;
  std::string replaced_by;  // superseded: id of the one that came instead
  std::optional<Time> grace_ends;
  TokenMoment created, ended;

  Status status_at(Time now) const;
  // Superseded, and still accepted at `now`.
  bool in_grace(Time now) const { return status_at(now) == Status::superseded && grace_ends && now < *grace_ends; }
};
std::string_view name_of(TokenState::Status status);

// What a caller calls itself, and so which classes its secret may be of.
enum class TokenUser {
  node,       // Basic `node`: agent; server as well while agents have no token of their own
  server,     // Basic `server`: server
  bootstrap,  // Bearer <id>.<secret>: bootstrap
  operators,  // Bearer on the operators' API: operator
};

struct TokenCheck {
  TokenResult result = TokenResult::wrong_secret;
  bool superseded = false;  // accepted, in the grace period of a rotation
  std::string token;        // id of the token that the secret is or once was; empty: it never was one
  std::string role;         // accepted operators: read, operate
};

class TokenTable {
 public:
  void apply(const Record& record);

  // Judges a secret by its id and fingerprint. One lookup, whatever the number of tokens; compares in constant time.
  TokenCheck check(TokenUser user, std::string_view id, const Fingerprint& presented, Time now) const;
  // Whether what token_accepted says in Record::auth still holds. True for what was never a token of ours.
  bool still_accepts(const Auth& auth, Time now) const;

  // nullptr: there never was one.
  const TokenState* find(std::string_view token_class, std::string_view id) const;
  // Of every class, by age.
  std::vector<TokenState> all() const;
  // Id of the token of this class that the server's files hold, whatever has become of it; empty: none.
  const std::string& file_token(std::string_view token_class) const;
  // Valid by the records, but past their time.
  std::vector<TokenState> overdue(Time now) const;

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  template <class Changed>
  void put(const Changed& event, const Record& record);
  template <class Visit>
  void each(const Visit& visit);
  bool stands_for(const TokenState& token, TokenUser user) const;

  // By id; one entry per class that the secret is a token of.
  std::unordered_map<std::string, std::vector<TokenState>, Hash, std::equal_to<>> tokens_;
  std::unordered_map<std::string, std::string, Hash, std::equal_to<>> file_tokens_;  // class -> id
};

}  // namespace ledger
