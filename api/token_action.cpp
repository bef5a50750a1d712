#include "api/token_action.h"

#include <algorithm>

namespace ledger::api {

namespace json = boost::json;

namespace {

// Reads fields, and remembers the first that is of the wrong type.
class Body {
 public:
  explicit Body(const json::object& object) : object_(object) {}

  std::string text(const char* key) {
    const json::value* value = object_.if_contains(key);
    if (value == nullptr || value->is_null()) return "";
    if (value->is_string()) return std::string(value->get_string());
    wrong(key);
    return "";
  }
  bool flag(const char* key) {
    const json::value* value = object_.if_contains(key);
    if (value == nullptr || value->is_null()) return false;
    if (value->is_bool()) return value->get_bool();
    wrong(key);
    return false;
  }
  // What nobody reads is a misspelling.
  Result<void> check(std::initializer_list<std::string_view> known) {
    for (const auto& [key, value] : object_)
      if (std::find(known.begin(), known.end(), std::string_view(key.data(), key.size())) == known.end()) wrong(key);
    if (!wrong_.empty()) return Error{Errc::invalid, "field '" + wrong_ + "' is unknown here or of the wrong type"};
    return {};
  }

 private:
  void wrong(std::string_view key) {
    if (wrong_.empty()) wrong_ = printable(key, 60);
  }
  const json::object& object_;
  std::string wrong_;
};

json::object made_object(const MadeToken& made) {
  json::object object = {{"id", made.id}, {"class", made.token_class}, {"seq", made.seq}};
  object["secret"] = made.secret.reveal();
  object["join"] = made.join.reveal();
  if (made.expires) object["expires"] = made.expires->to_string();
  if (!made.replaces.empty()) object["replaces"] = made.replaces;
  if (made.grace_ends) object["grace_ends"] = made.grace_ends->to_string();
  object["file"] = made.in_files;
  if (made.for_both) object["both"] = true;
  return object;
}

Result<json::object> create(Ledger& ledger, const Credentials& credentials, Body& body, const TokenAction& action) {
  NewToken wanted;
  wanted.token_class = body.text("class");
  wanted.description = body.text("description");
  wanted.role = body.text("role");
  wanted.secret = Secret(body.text("secret"));
  std::string ttl = body.text("ttl");
  if (ttl.empty()) ttl = wanted.token_class == "bootstrap" ? "24h" : "never";
  if (const Result<void> read = body.check({"actor", "reason", "class", "ttl", "description", "role", "secret"}); !read)
    return read.error();
  const Result<Lifetime> lifetime = parse_lifetime(ttl);
  if (!lifetime) return lifetime.error();
  wanted.lifetime = *lifetime;
  const Result<MadeToken> made = create_token(ledger, credentials, wanted, action);
  if (!made) return made.error();
  return made_object(*made);
}

Result<json::object> rotate(Ledger& ledger, const Credentials& credentials, std::string_view which, Body& body,
                            const TokenAction& action) {
  Rotation rotation;
  rotation.which = which;
  rotation.secret = Secret(body.text("secret"));
  const std::string grace = body.text("grace"), ttl = body.text("ttl");
  if (const Result<void> read = body.check({"actor", "reason", "grace", "ttl", "secret"}); !read) return read.error();
  if (!grace.empty()) {
    const Result<Lifetime> parsed = parse_lifetime(grace);
    if (!parsed) return parsed.error();
    if (!*parsed) return Error{Errc::invalid, "the grace period must end: a time like 24h"};
    rotation.grace_s = **parsed;
  }
  if (!ttl.empty()) {
    const Result<Lifetime> parsed = parse_lifetime(ttl);
    if (!parsed) return parsed.error();
    rotation.lifetime = *parsed;
  }
  const Result<MadeToken> made = rotate_token(ledger, credentials, rotation, action);
  if (!made) return made.error();
  return made_object(*made);
}

Result<json::object> revoke(Ledger& ledger, std::string_view which, Body& body, const TokenAction& action) {
  const bool force = body.flag("force");
  if (const Result<void> read = body.check({"actor", "reason", "force"}); !read) return read.error();
  const Result<Revoked> revoked = revoke_token(ledger, which, force, action);
  if (!revoked) return revoked.error();
  return json::object{{"id", revoked->id},
                      {"classes", json::array(revoked->classes.begin(), revoked->classes.end())},
                      {"seq", revoked->seq},
                      {"file", revoked->in_files}};
}

}  // namespace

Result<json::object> token_action(Ledger& ledger, const Credentials& credentials, std::string_view verb,
                                  std::string_view which, const json::object& object, const std::string& request_id,
                                  const std::string& source) {
  Body body(object);
  const TokenAction action{
      .actor = body.text("actor"), .reason = body.text("reason"), .request_id = request_id, .source = source};
  if (action.actor.empty()) return Error{Errc::invalid, "field 'actor' is missing: who does this"};
  if (verb == "create") return create(ledger, credentials, body, action);
  if (verb == "rotate") return rotate(ledger, credentials, which, body, action);
  if (verb == "revoke") return revoke(ledger, which, body, action);
  return Error{Errc::not_found, "no such action: rotate and revoke are known"};
}

}  // namespace ledger::api
