#include "ledger/token_table.h"

namespace ledger {

std::string_view name_of(TokenState::Status status) {
  switch (status) {
    case TokenState::Status::valid: return "valid";
    case TokenState::Status::superseded: return "superseded";
    case TokenState::Status::revoked: return "revoked";
    case TokenState::Status::expired: return "expired";
  }
  fatal("a token status without a name");
}

const TokenState* TokenTable::find(std::string_view id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : &found->second;
}

void TokenTable::apply(const Record& record) {
  const auto create = [&](const auto& event) {
    tokens_[event.token] = {event.token, event.token_class, TokenState::Status::valid, event.expires, record.seq, 0};
  };
  const auto end = [&](const std::string& id, TokenState::Status status) {
    const auto found = tokens_.find(id);
    if (found == tokens_.end()) return;
    found->second.status = status;
    found->second.ended = record.seq;
  };
  if (const auto* created = as<TokenCreated>(record)) {
    create(*created);
  } else if (const auto* rotated = as<TokenRotated>(record)) {
    for (const auto& [id, token] : tokens_)
      if (token.token_class == rotated->token_class && token.status == TokenState::Status::valid)
        end(id, TokenState::Status::superseded);
    create(*rotated);
  } else if (const auto* revoked = as<TokenRevoked>(record)) {
    end(revoked->token, TokenState::Status::revoked);
  } else if (const auto* expired = as<TokenExpired>(record)) {
    end(expired->token, TokenState::Status::expired);
  }
}

}  // namespace ledger
