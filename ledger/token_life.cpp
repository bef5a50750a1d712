#include "ledger/token_life.h"

#include <algorithm>
#include <charconv>

namespace ledger {
namespace {

using Status = TokenState::Status;

constexpr std::size_t kMinPrefix = 4;
constexpr std::size_t kMinSecret = 8;
constexpr std::size_t kMaxText = 1000;
constexpr std::size_t kMaxTokens = 10'000;  // every one of them is in memory for ever
constexpr std::int64_t kMaxLifetime_s = 10LL * 365 * 86400;

bool is_class(std::string_view text) {
  return text == "agent" || text == "server" || text == "bootstrap" || text == "operator";
}

std::string id_of(const Credentials& credentials, std::string_view token_class, const Secret& secret) {
  // The first half of a bootstrap token is its name.
  return token_class == "bootstrap" ? std::string(secret.reveal().substr(0, 6)) : credentials.known_by(secret).id;
}

template <class Event>
Record record_of(Event event, const TokenAction& action) {
  Record record;
  event.actor = printable(action.actor, 200);
  record.event = std::move(event);
  record.note = printable(action.reason, kMaxText);
  record.request_id = action.request_id;
  record.source = action.source;
  return record;
}

Result<Seq> append(Ledger& ledger, std::vector<Record> records) {
  Proposal proposal;
  proposal.records = std::move(records);
  const Result<Committed> committed = ledger.append_and_wait(std::move(proposal));
  if (!committed) return committed.error();
  return committed->last();
}

// Why an operator's own secret cannot be one of this class.
Result<void> check_secret(std::string_view token_class, std::string_view secret) {
  if (token_class == "bootstrap" && !is_bootstrap_token(secret))
    return Error{Errc::invalid, "a bootstrap token is <id>.<secret> of 6 and 16 small letters and digits, like "
                                "abcdef.0123456789abcdef"};
  if (const char* fault = password_fault(secret))
    return Error{Errc::invalid, std::string("the file with the secret ") + fault};
  if (secret.size() < kMinSecret)
    return Error{Errc::invalid, "the secret is shorter than 8 bytes: too easy to guess for what admits machines"};
  if (secret.starts_with("K10") && secret.find("::") != std::string_view::npos)
    return Error{Errc::invalid, "the file holds a whole token (K10...); it must hold the secret alone"};
  return {};
}

Secret random_token(std::string_view token_class) {
  if (token_class == "bootstrap") return random_bootstrap_token();
  return random_secret(token_class == "operator" ? 32 : 16);  // k3s' length, and that of cred/operator-token
}

// A secret that no token has or had.
Result<Secret> new_secret(const Ledger& ledger, const Credentials& credentials, std::string_view token_class,
                          const Secret& chosen) {
  const std::vector<TokenState> known = ledger.tokens();
  if (known.size() >= kMaxTokens)
    return Error{Errc::overloaded, "the log knows 10,000 tokens already; it keeps every one of them for ever"};
  const auto taken = [&](const Secret& secret) -> const TokenState* {
    const std::string id = id_of(credentials, token_class, secret);
    for (const TokenState& token : known)
      if (token.id == id) return &token;
    return nullptr;
  };
  if (!chosen.empty()) {
    if (const Result<void> usable = check_secret(token_class, chosen.reveal()); !usable) return usable.error();
    if (const TokenState* token = taken(chosen))
      return Error{Errc::conflict, "this " + std::string(token_class == "bootstrap" ? "id" : "secret") +
                                       " is or was a token already (" + token->token_class + " " + token->id +
                                       "); choose another, or leave it to the server"};
    return chosen.clone();
  }
  for (;;) {
    Secret secret = random_token(token_class);
    const std::string id = id_of(credentials, token_class, secret);
    if (taken(secret) == nullptr && !is_class(id)) return secret;
  }
}

// The hash of the cluster's CA as the server wrote it into its own token.
Result<std::string> ca_hash_of(const std::filesystem::path& data_dir) {
  const Result<Secret> text = read_secret_file(data_dir / "token");
  if (!text)
    return Error{text.error().code, "cannot read " + (data_dir / "token").string() + " (" + text.error().message +
                                        "), which names the cluster's CA; start the server once"};
  Result<JoinToken> token = JoinToken::parse(trim(text->reveal()));
  if (!token) return Error{Errc::invalid, (data_dir / "token").string() + ": " + token.error().message};
  return token->ca_hash;
}

Result<Secret> join_text(const std::filesystem::path& data_dir, std::string_view token_class, const Secret& secret) {
  if (token_class == "operator") return secret.clone();
  const Result<std::string> hash = ca_hash_of(data_dir);
  if (!hash) return hash.error();
  std::string text;
  text.reserve(secret.reveal().size() + 128);
  text.append("K10").append(*hash).append("::");
  if (token_class == "agent") text.append("node:");
  if (token_class == "server") text.append("server:");
  text.append(secret.reveal());
  Secret join(text);
  std::fill(text.begin(), text.end(), '\0');
  return join;
}

Error no_such_token(std::string_view which) {
  return {Errc::not_found,
          "there is no token '" + printable(which, 64) + "'; `ledger token list --all` shows those there are"};
}

// Every token with this id (one per class), or with the only id that begins so.
Result<std::vector<TokenState>> find_tokens(const Ledger& ledger, std::string_view which) {
  std::vector<TokenState> exact, begun;
  for (TokenState& token : ledger.tokens()) {
    if (token.id == which) exact.push_back(token);
    if (token.id.starts_with(which)) begun.push_back(std::move(token));
  }
  if (!exact.empty()) return exact;
  if (which.size() < kMinPrefix || begun.empty()) return no_such_token(which);
  for (const TokenState& token : begun)
    if (token.id != begun.front().id)
      return Error{Errc::invalid, "more than one token begins with '" + printable(which, 64) + "'; give more of its id"};
  return begun;
}

bool in_files(const Ledger& ledger, const TokenState& token) {
  return ledger.file_token(token.token_class) == token.id;
}

// What is to be replaced: one entry, or the agents' and the servers' of one secret.
Result<std::vector<TokenState>> to_rotate(const Ledger& ledger, std::string_view which) {
  std::string id(which);
  if (which == "bootstrap") return Error{Errc::invalid, "bootstrap tokens are rotated one by one: give an id"};
  if (is_class(which)) {
    id = ledger.file_token(which);
    if (id.empty() && which == "agent") id = ledger.file_token("server");
    if (id.empty()) return Error{Errc::not_found, "the server has no " + std::string(which) + " token yet; start it once"};
  }
  Result<std::vector<TokenState>> found = find_tokens(ledger, id);
  if (!found) return found.error();
  const bool of_files = std::any_of(found->begin(), found->end(),
                                    [&](const TokenState& token) { return in_files(ledger, token); });
  // A file must hold something: its token is replaced whatever has become of it.
  std::erase_if(*found, [&](const TokenState& token) {
    return of_files ? !in_files(ledger, token) : token.status_at(Time::now()) != Status::valid;
  });
  if (found->empty())
    return Error{Errc::conflict, "token " + printable(id, 64) + " is not valid any more; make a new one with "
                                     "`ledger token create`"};
  return found;
}

// Rewrites k3s' files from cred/passwd: token, node-token, agent-token.
Result<void> refresh_files(const Ledger& ledger, const std::filesystem::path& data_dir) {
  if (const Result<void> settled = settle_rotations(ledger, data_dir); !settled) return settled.error();
  const Result<std::string> hash = ca_hash_of(data_dir);
  if (!hash) return hash.error();
  const Result<Credentials> now =
      Credentials::open({.data_dir = data_dir, .token = {}, .agent_token = {}, .log_exists = true});
  if (!now) return now.error();
  return now->write_token_files(*hash);
}

std::optional<Time> end_of(const Lifetime& lifetime, Time now) {
  if (!lifetime) return std::nullopt;
  return now.plus_seconds(*lifetime);
}

// As long as the one before it.
Lifetime lifetime_like(const TokenState& token) {
  if (!token.expires) return std::nullopt;
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(seconds_between(token.created.time, *token.expires)));
}

}  // namespace

Result<Lifetime> parse_lifetime(std::string_view text) {
  if (text == "never") return Lifetime();
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const std::int64_t seconds = unit == "s" ? 1 : unit == "m" ? 60 : unit == "h" ? 3600 : unit == "d" ? 86400 : 0;
  if (error != std::errc() || seconds == 0 || number < 1 || number > kMaxLifetime_s / seconds)
    return Error{Errc::invalid, "'" + printable(text, 40) +
                                    "' is no time like 90s, 30m, 24h, 7d or never (at most 10 years)"};
  return Lifetime(number * seconds);
}

// ---- create ----------------------------------------------------------------------------------------------

Result<MadeToken> create_token(Ledger& ledger, const Credentials& credentials, const NewToken& wanted,
                               const TokenAction& action) {
  if (!is_class(wanted.token_class))
    return Error{Errc::invalid, "'" + printable(wanted.token_class, 40) +
                                    "' is no class of tokens; there are agent, server, bootstrap and operator"};
  const bool is_operator = wanted.token_class == "operator";
  if (is_operator && wanted.role != "read" && wanted.role != "operate")
    return Error{Errc::invalid, "an operator token needs a role: read (may look) or operate (may change)"};
  if (!is_operator && !wanted.role.empty()) return Error{Errc::invalid, "only operator tokens have a role"};
  if (wanted.description.size() > kMaxText) return Error{Errc::invalid, "the description is longer than 1000 bytes"};
  Result<Secret> secret = new_secret(ledger, credentials, wanted.token_class, wanted.secret);
  if (!secret) return secret.error();
  Result<Secret> join = join_text(credentials.data_dir(), wanted.token_class, *secret);
  if (!join) return join.error();

  MadeToken made;
  made.id = id_of(credentials, wanted.token_class, *secret);
  made.token_class = wanted.token_class;
  made.expires = end_of(wanted.lifetime, Time::now());
  const Result<Seq> seq = append(ledger, {record_of(TokenCreated{.token = made.id,
                                                                 .token_class = made.token_class,
                                                                 .expires = made.expires,
                                                                 .actor = {},
                                                                 .fingerprint = credentials.known_by(*secret).fingerprint,
                                                                 .role = wanted.role,
                                                                 .description = printable(wanted.description, kMaxText)},
                                                    action)});
  if (!seq) return seq.error();
  made.seq = *seq;
  made.secret = std::move(*secret);
  made.join = std::move(*join);
  return made;
}

// ---- rotate ----------------------------------------------------------------------------------------------

Result<MadeToken> rotate_token(Ledger& ledger, const Credentials& credentials, const Rotation& rotation,
                               const TokenAction& action) {
  if (rotation.grace_s < 0 || rotation.grace_s > kMaxLifetime_s)
    return Error{Errc::invalid, "the grace period must be between 0 and 10 years"};
  const Result<std::vector<TokenState>> old = to_rotate(ledger, rotation.which);
  if (!old) return old.error();
  const TokenState& first = old->front();
  const std::filesystem::path& data_dir = credentials.data_dir();
  const std::string agents = ledger.file_token("agent");

  MadeToken made;
  made.token_class = first.token_class;
  made.replaces = first.id;
  made.in_files = in_files(ledger, first);
  made.for_both = made.in_files && first.token_class != "operator" &&
                  (agents.empty() || agents == ledger.file_token("server"));
  if (made.in_files && rotation.lifetime)
    return Error{Errc::invalid, "the token of the server's own files cannot expire; make one that does with "
                                "`ledger token create`"};
  Result<Secret> secret = new_secret(ledger, credentials, first.token_class, rotation.secret);
  if (!secret) return secret.error();
  Result<Secret> join = join_text(data_dir, made.for_both ? "agent" : first.token_class, *secret);
  if (!join) return join.error();
  made.id = id_of(credentials, first.token_class, *secret);
  const Time now = Time::now();
  made.expires = end_of(rotation.lifetime ? rotation.lifetime : lifetime_like(first), now);
  if (rotation.grace_s > 0) made.grace_ends = now.plus_seconds(rotation.grace_s);

  if (made.in_files)
    if (const Result<void> staged = stage_file_token(data_dir, first.token_class, *secret, made.id); !staged)
      return staged.error();
  std::vector<Record> records;
  for (const TokenState& token : *old)
    records.push_back(record_of(TokenRotated{.token = made.id,
                                             .token_class = token.token_class,
                                             .expires = made.expires,
                                             .actor = {},
                                             .fingerprint = credentials.known_by(*secret).fingerprint,
                                             .role = token.role,
                                             .description = token.description,
                                             .replaces = token.id,
                                             .grace_ends = made.grace_ends,
                                             .origin = made.in_files ? "file" : ""},
                                action));
  const Result<Seq> seq = append(ledger, std::move(records));
  // Refused, it has not happened; failed, nobody knows: then the next start asks the log.
  if (!seq && seq.error().code != Errc::unavailable) (void)settle_rotations(ledger, data_dir);
  if (!seq) return seq.error();
  if (made.in_files)
    if (const Result<void> written = refresh_files(ledger, data_dir); !written)
      return Error{written.error().code, "the token was rotated (record " + std::to_string(*seq) +
                                             "), but its files could not be rewritten: " + written.error().message +
                                             ". Restart the server: it finishes that; then `ledger token show`"};
  made.seq = *seq;
  made.secret = std::move(*secret);
  made.join = std::move(*join);
  return made;
}

// ---- revoke ----------------------------------------------------------------------------------------------

Result<Revoked> revoke_token(Ledger& ledger, std::string_view which, bool force, const TokenAction& action) {
  if (is_class(which) && ledger.find_token("bootstrap", which) == std::nullopt)
    return Error{Errc::invalid, "give the id of a token, not a class; `ledger token list` shows the ids"};
  Result<std::vector<TokenState>> found = find_tokens(ledger, which);
  if (!found) return found.error();
  std::erase_if(*found, [](const TokenState& token) { return token.status == Status::revoked; });
  if (found->empty()) return Error{Errc::conflict, "token " + printable(which, 64) + " is revoked already"};
  const Time now = Time::now();
  const auto rules = [&](const TokenState& token) {
    return token.token_class == "operator" && token.role != "read" && token.status_at(now) == Status::valid;
  };
  const std::vector<TokenState> all = ledger.tokens();
  if (!force && rules(found->front()) && std::count_if(all.begin(), all.end(), rules) == 1)
    return Error{Errc::conflict,
                 "this is the only operator token that may change something: without it no command could reach the "
                 "running server; `ledger token rotate operator` replaces it, --force revokes it all the same"};
  Revoked revoked;
  revoked.id = found->front().id;
  std::vector<Record> records;
  for (const TokenState& token : *found) {
    revoked.classes.push_back(token.token_class);
    revoked.in_files = revoked.in_files || in_files(ledger, token);
    records.push_back(record_of(TokenRevoked{.token = token.id,
                                             .token_class = token.token_class,
                                             .expires = token.expires,
                                             .actor = {},
                                             .fingerprint = token.fingerprint},
                                action));
  }
  const Result<Seq> seq = append(ledger, std::move(records));
  if (!seq) return seq.error();
  revoked.seq = *seq;
  return revoked;
}

// ---- the server's own ------------------------------------------------------------------------------------

Result<void> settle_rotations(const Ledger& ledger, const std::filesystem::path& data_dir) {
  return settle_staged(data_dir, [&](const std::string& id) {
    return id == ledger.file_token("server") || id == ledger.file_token("agent") || id == ledger.file_token("operator");
  });
}

Result<std::vector<std::string>> note_file_tokens(Ledger& ledger, const Credentials& credentials,
                                                  const std::string& actor) {
  std::vector<Record> records;
  std::vector<std::string> warnings;
  TokenAction action{.actor = actor, .reason = {}, .request_id = {}, .source = {}};
  const auto note = [&](const Credentials::Known& held, const std::string& token_class) {
    const std::string before = ledger.file_token(token_class);
    const std::optional<TokenState> known = ledger.find_token(token_class, held.id);
    if (known && known->status == Status::revoked)
      warnings.push_back("the " + token_class + " token in cred/ (" + held.id + ") was revoked by " +
                         printable(known->ended.actor, 200) + " (record " + std::to_string(known->ended.seq) +
                         ") and admits nobody; `ledger token rotate " + token_class + "` makes a new one");
    const bool ended = known && known->status != Status::valid && known->status != Status::revoked;
    if (before == held.id && known && !ended && known->fingerprint.known()) return;
    if (ended)
      warnings.push_back("the " + token_class + " token in cred/ (" + held.id + ") was replaced before and is in " +
                         "force again, because the file or an option says so; revoke it if it has leaked");
    const bool upgraded = before == held.id && known && !ended;
    action.reason = upgraded ? "from now on recognised by its fingerprint" : "";
    const auto put = [&](auto event) {
      event.token = held.id;
      event.token_class = token_class;
      event.fingerprint = held.fingerprint;
      event.origin = "file";
      if (token_class == "operator") event.role = "operate";
      if (known && !ended) event.expires = known->expires, event.description = known->description;
      records.push_back(record_of(std::move(event), action));
    };
    TokenRotated rotated{};
    rotated.replaces = before;
    if (before.empty() || before == held.id)
      put(TokenCreated{});
    else
      put(std::move(rotated));
  };
  note(credentials.server(), "server");
  const bool separate = credentials.agent().id != credentials.server().id;
  // Agents who had a token of their own and share the servers' now are told so in the log, too.
  if (separate || !ledger.file_token("agent").empty()) note(credentials.agent(), "agent");
  note(credentials.operator_token(), "operator");
  if (!records.empty())
    if (const Result<Seq> noted = append(ledger, std::move(records)); !noted) return noted.error();
  return warnings;
}

void TokenSweep::run(Ledger& ledger, Time now) {
  if (under_way_->load()) return;
  const std::vector<TokenState> overdue = ledger.overdue_tokens(now);
  if (overdue.empty()) return;
  Proposal proposal;
  proposal.use_reserve = true;  // one record per token, ever
  for (const TokenState& token : overdue)
    proposal.records.push_back(record_of(TokenExpired{.token = token.id,
                                                      .token_class = token.token_class,
                                                      .expires = token.expires,
                                                      .actor = {},
                                                      .fingerprint = token.fingerprint},
                                         {.actor = "ledger serve", .reason = {}, .request_id = {}, .source = {}}));
  under_way_->store(true);
  ledger.append(std::move(proposal),
                [under_way = under_way_](const Result<Committed>&) { under_way->store(false); });
}

}  // namespace ledger
