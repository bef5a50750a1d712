// The projection of the tokens' life cycle: which token ids there have ever been, and what became of them.
// Made by folding token_created, token_rotated, token_revoked and token_expired in order.
// Threads: not locked; its owner says who may touch it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "ledger/event.h"

namespace ledger {

struct TokenState {
  enum class Status { valid, superseded, revoked, expired };
  std::string id;
  std::string token_class;  // agent, server, bootstrap, operator
  Status status = Status::valid;
  std::optional<Time> expires;
  Seq created = 0, ended = 0;
};
std::string_view name_of(TokenState::Status status);

class TokenTable {
 public:
  const TokenState* find(std::string_view id) const;
  void apply(const Record& record);
  auto begin() const { return tokens_.begin(); }
  auto end() const { return tokens_.end(); }

 private:
  std::map<std::string, TokenState, std::less<>> tokens_;
};

}  // namespace ledger
