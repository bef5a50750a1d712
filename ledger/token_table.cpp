#include "ledger/token_table.h"

#include <algorithm>
#include <tuple>

#include "ledger/credentials.h"

namespace ledger {
namespace {

using Status = TokenState::Status;

constexpr const char* kAgent = "agent";
constexpr const char* kServer = "server";

TokenMoment moment_of(const Record& record, const std::string& actor) { return {record.seq, record.time, actor}; }

// Whether this secret is the token. Before fingerprints were stored the id is all there is; the id of a bootstrap
// token is public and says nothing about its secret.
bool is_same_secret(const TokenState& token, const Fingerprint& presented) {
  if (token.fingerprint.known()) return equal_in_constant_time(token.fingerprint.text, presented.text);
  return token.token_class != "bootstrap";
}

TokenResult judge(const TokenState& token, Time now) {
  switch (token.status_at(now)) {
    case Status::valid: return TokenResult::accepted;
    case Status::superseded: return token.in_grace(now) ? TokenResult::accepted : TokenResult::superseded;
    case Status::revoked: return TokenResult::revoked;
    case Status::expired: return TokenResult::expired;
  }
  fatal("a token status that is none");
}

}  // namespace

std::string_view name_of(TokenState::Status status) {
  switch (status) {
    case Status::valid: return "valid";
    case Status::superseded: return "superseded";
    case Status::revoked: return "revoked";
    case Status::expired: return "expired";
  }
  fatal("a token status without a name");
}

TokenState::Status TokenState::status_at(Time now) const {
  const bool past = expires && *expires <= now;
  if (status == Status::valid && past) return Status::expired;
  // In its grace period a replaced token lives no longer than it would have.
  if (status == Status::superseded && grace_ends && now < *grace_ends && past) return Status::expired;
  return status;
}

// ---- judging ---------------------------------------------------------------------------------------------

// k3s compares a server token with the `node` line of its password file; while there is no agent token, that line
// holds the server's password.
bool TokenTable::stands_for(const TokenState& token, TokenUser user) const {
  switch (user) {
    case TokenUser::server: return token.token_class == kServer;
    case TokenUser::bootstrap: return token.token_class == "bootstrap";
    case TokenUser::operators: return token.token_class == "operator";
    case TokenUser::node: break;
  }
  if (token.token_class == kAgent) return true;
  const std::string& agents = file_token(kAgent);
  return token.token_class == kServer && (agents.empty() || agents == file_token(kServer));
}

TokenCheck TokenTable::check(TokenUser user, std::string_view id, const Fingerprint& presented, Time now) const {
  TokenCheck check;
  const auto found = tokens_.find(id);
  if (found == tokens_.end()) return check;
  bool own_class = false;
  for (const TokenState& token : found->second) {
    if (!is_same_secret(token, presented)) continue;
    check.token = token.id;
    const TokenResult result = judge(token, now);
    if (!stands_for(token, user)) {
      // Good for another user it is wrong here; what has ended has ended for everybody.
      if (!own_class && result != TokenResult::accepted) check.result = result;
      continue;
    }
    // An id alone proves nothing: files of version 1 logs get their fingerprint at the server's start.
    if (result == TokenResult::accepted && token.fingerprint.known())
      return {result, token.status == Status::superseded, token.id, token.role.empty() ? "operate" : token.role};
    if (!own_class) check.result = result == TokenResult::accepted ? TokenResult::wrong_secret : result;
    own_class = true;
  }
  return check;
}

bool TokenTable::still_accepts(const Auth& auth, Time now) const {
  const auto found = auth.token.empty() ? tokens_.end() : tokens_.find(auth.token);
  if (found == tokens_.end()) return true;
  const TokenUser user = auth.principal == "node"                             ? TokenUser::node
                         : auth.principal == "server"                         ? TokenUser::server
                         : auth.principal.starts_with("system:bootstrap:") ? TokenUser::bootstrap
                                                                              : TokenUser::operators;
  return std::any_of(found->second.begin(), found->second.end(), [&](const TokenState& token) {
    return stands_for(token, user) && judge(token, now) == TokenResult::accepted;
  });
}

const TokenState* TokenTable::find(std::string_view token_class, std::string_view id) const {
  const auto found = tokens_.find(id);
  if (found == tokens_.end()) return nullptr;
  for (const TokenState& token : found->second)
    if (token.token_class == token_class) return &token;
  return nullptr;
}

std::vector<TokenState> TokenTable::all() const {
  std::vector<TokenState> all;
  for (const auto& [id, tokens] : tokens_) all.insert(all.end(), tokens.begin(), tokens.end());
  std::sort(all.begin(), all.end(), [](const TokenState& a, const TokenState& b) {
    return std::tie(a.created.seq, a.token_class, a.id) < std::tie(b.created.seq, b.token_class, b.id);
  });
  return all;
}

const std::string& TokenTable::file_token(std::string_view token_class) const {
  static const std::string none;
  const auto found = file_tokens_.find(token_class);
  return found == file_tokens_.end() ? none : found->second;
}

std::vector<TokenState> TokenTable::overdue(Time now) const {
  std::vector<TokenState> overdue;
  for (const auto& [id, tokens] : tokens_)
    for (const TokenState& token : tokens)
      if (token.status == Status::valid && token.status_at(now) == Status::expired) overdue.push_back(token);
  return overdue;
}

// ---- folding ---------------------------------------------------------------------------------------------

// Told again, a valid token keeps its age and learns what is new about it; one that had ended begins anew.
template <class Changed>
void TokenTable::put(const Changed& event, const Record& record) {
  // Before version 2 every token was one of the files.
  if (event.origin == "file" || !event.fingerprint.known()) file_tokens_[event.token_class] = event.token;
  std::vector<TokenState>& tokens = tokens_[event.token];
  auto token = std::find_if(tokens.begin(), tokens.end(),
                            [&](const TokenState& one) { return one.token_class == event.token_class; });
  if (token == tokens.end()) token = tokens.emplace(tokens.end());
  if (token->status == Status::revoked) return;
  const bool is_new = token->created.seq == 0 || token->status != Status::valid;
  TokenState before = std::exchange(*token, TokenState{});
  token->id = event.token;
  token->token_class = event.token_class;
  token->expires = event.expires;
  token->fingerprint = event.fingerprint.known() ? event.fingerprint : before.fingerprint;
  token->role = event.role;
  token->description = event.description;
  token->created = is_new ? moment_of(record, event.actor) : std::move(before.created);
}

template <class Visit>
void TokenTable::each(const Visit& visit) {
  for (auto& [id, tokens] : tokens_)
    for (TokenState& token : tokens) visit(token);
}

void TokenTable::apply(const Record& record) {
  // The class may be missing in a record that somebody wrote by hand: then it is the secret that has ended.
  const auto end = [&](const auto& event, Status status, const auto& may_end) {
    const auto found = tokens_.find(event.token);
    if (found == tokens_.end()) return;
    for (TokenState& token : found->second) {
      if (!event.token_class.empty() && token.token_class != event.token_class) continue;
      if (!may_end(token)) continue;
      token.status = status;
      token.ended = moment_of(record, event.actor);
    }
  };
  if (const auto* created = as<TokenCreated>(record)) {
    put(*created, record);
  } else if (const auto* rotated = as<TokenRotated>(record)) {
    const auto supersede = [&](TokenState& token) {
      const bool meant = rotated->replaces.empty() || token.id == rotated->replaces;
      if (!meant || token.token_class != rotated->token_class || token.status != Status::valid) return;
      if (token.id == rotated->token) return;
      token.status = Status::superseded;
      token.replaced_by = rotated->token;
      token.grace_ends = rotated->grace_ends;
      token.ended = moment_of(record, rotated->actor);
    };
    each(supersede);
    put(*rotated, record);
  } else if (const auto* revoked = as<TokenRevoked>(record)) {
    end(*revoked, Status::revoked, [](const TokenState& token) { return token.status != Status::revoked; });
  } else if (const auto* expired = as<TokenExpired>(record)) {
    end(*expired, Status::expired, [](const TokenState& token) { return token.status == Status::valid; });
  }
}

}  // namespace ledger
