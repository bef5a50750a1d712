#include "replay/token_summary.h"

#include <algorithm>
#include <map>
#include <set>

namespace ledger::replay {

namespace json = boost::json;

namespace {

constexpr Seq kLookedThrough = 500'000;
constexpr std::size_t kUsersNamed = 20;

json::object moment_object(const TokenMoment& moment) {
  json::object object;
  object["seq"] = moment.seq;
  if (moment.time.known()) object["time"] = moment.time.to_string();
  if (!moment.actor.empty()) object["actor"] = printable(moment.actor, 200);
  return object;
}

struct Use {
  std::int64_t count = 0;
  Time last;
  std::set<std::string> from;
};

json::object use_object(const Use& use) {
  json::object object;
  object["count"] = use.count;
  if (use.last.known()) object["last"] = use.last.to_string();
  object["from"] = json::array(use.from.begin(), use.from.end());
  return object;
}

// Who was let in by a replaced token from this record on, by the token's id.
Result<std::map<std::string, Use>> uses_since(const EventLog& log, Seq from) {
  std::map<std::string, Use> uses;
  const Result<void> read = log.scan(from, UINT64_MAX, [&](Seq, const Result<Record>& record) {
    const auto* accepted = record ? as<TokenAccepted>(*record) : nullptr;
    if (accepted == nullptr || accepted->reason != "superseded") return true;
    Use& use = uses[record->auth.token];
    use.count += record->count;
    use.last = record->time;
    const std::string who(record->node.empty() ? host_of(record->source) : record->node);
    if (use.from.size() < kUsersNamed && !who.empty()) use.from.insert(printable(who, 260));
    return true;
  });
  if (!read) return read.error();
  return uses;
}

}  // namespace

json::object summary_of(const TokenState& token, bool in_files, Time now) {
  json::object object;
  const TokenState::Status status = token.status_at(now);
  object["id"] = token.id;
  object["class"] = token.token_class;
  if (token.token_class == "operator") object["role"] = token.role.empty() ? "operate" : token.role;
  object["status"] = name_of(status);
  object["accepted"] = status == TokenState::Status::valid || token.in_grace(now);
  object["file"] = in_files;
  if (!token.description.empty()) object["description"] = printable(token.description, 1000);
  if (token.expires) object["expires"] = token.expires->to_string();
  object["created"] = moment_object(token.created);
  if (token.ended.seq != 0) object["ended"] = moment_object(token.ended);
  if (!token.replaced_by.empty()) object["replaced_by"] = token.replaced_by;
  if (token.grace_ends) object["grace_ends"] = token.grace_ends->to_string();
  return object;
}

Result<json::array> list_tokens(const EventLog& log, Time now) {
  TokenTable table;
  Result<void> problem;
  const Result<void> read = log.scan(Index::server_wide, "", 1, UINT64_MAX, [&](Seq, const Result<Record>& record) {
    if (record)
      table.apply(*record);
    else
      problem = record.error();
    return problem.has_value();
  });
  if (!read) return read.error();
  if (!problem) return problem.error();

  const std::vector<TokenState> all = table.all();
  Seq first = UINT64_MAX;
  for (const TokenState& token : all)
    if (token.in_grace(now)) first = std::min(first, token.ended.seq + 1);
  std::map<std::string, Use> uses;
  const Seq oldest = log.head() > kLookedThrough ? log.head() - kLookedThrough : 1;
  if (first != UINT64_MAX) {
    Result<std::map<std::string, Use>> found = uses_since(log, std::max(first, oldest));
    if (!found) return found.error();
    uses = std::move(*found);
  }
  json::array tokens;
  for (const TokenState& token : all) {
    json::object object = summary_of(token, table.file_token(token.token_class) == token.id, now);
    if (token.in_grace(now)) {
      json::object used = use_object(uses[token.id]);
      if (token.ended.seq + 1 < oldest) used["looked_from"] = oldest;
      object["used"] = std::move(used);
    }
    tokens.push_back(std::move(object));
  }
  return tokens;
}

}  // namespace ledger::replay
