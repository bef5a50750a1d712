// Archives and legal holds: /ledger/v1/archives... and /ledger/v1/holds... (docs/HTTP_API.md, "For operators").

#include <boost/json.hpp>

#include "api/admin.h"
#include "api/problem.h"
#include "ledger/archivist.h"
#include "replay/archive_summary.h"

namespace ledger::api {

namespace json = boost::json;

namespace {

// The fields of all of these.
struct Body {
  OperatorAction action;
  Archivist::HoldRequest hold;
  Archivist::Goal goal;
};

Result<Time> time_of(std::string_view key, const json::value& value) {
  const Result<Time> time = Time::parse(std::string_view(value.get_string()));
  if (time) return time;
  return Error{Errc::invalid, "field '" + std::string(key) + "': " + time.error().message};
}

// False: there is no such field.
Result<bool> take(Body& body, std::string_view key, const json::value& value) {
  const bool text = value.is_string();
  if (text && key == "actor") return body.action.actor = printable(std::string_view(value.get_string()), 200), true;
  if (text && key == "reason") return body.action.reason = value.get_string(), true;
  if (text && key == "node") return body.hold.node = value.get_string(), true;
  if (text && (key == "since" || key == "until" || key == "before")) {
    const Result<Time> time = time_of(key, value);
    if (!time) return time.error();
    if (key == "before") return body.goal.before = *time, true;
    return (key == "since" ? body.hold.since : body.hold.until) = *time, true;
  }
  if (!value.is_int64() || value.get_int64() < 1) return false;
  const Seq seq = static_cast<Seq>(value.get_int64());
  if (key == "from") return body.hold.from = seq, true;
  if (key == "to") return body.hold.to = body.goal.to = seq, true;
  return false;
}

Result<Body> parse(const Request& request) {
  json::error_code error;
  const json::value value = json::parse(request.body, error);
  if (error || !value.is_object())
    return Error{Errc::invalid, "the body must be a JSON object with actor and reason"};
  Body body;
  for (const auto& [key, item] : value.get_object()) {
    const std::string_view name(key.data(), key.size());
    const Result<bool> taken = take(body, name, item);
    if (!taken) return taken.error();
    if (!*taken)
      return Error{Errc::invalid, "field '" + printable(name, 60) + "' is unknown or of the wrong type"};
  }
  if (body.action.actor.empty()) return Error{Errc::invalid, "field 'actor' is missing"};
  body.action.request_id = request.id;
  body.action.source = request.source;
  body.action.via = request.via;
  return body;
}

Response answer_of(const json::object& object, Seq seq) {
  Response response;
  response.content_type = "application/json";
  response.body = json::serialize(object) + "\n";
  if (seq != 0) response.headers.emplace_back("Ledger-Seq", std::to_string(seq));
  return response;
}

Response answer_of(const Result<Archivist::Done>& done) {
  if (!done) return to_response(problem_of(done.error()));
  json::object out{{"seq", done->record}};
  if (!done->hold.empty()) out["hold"] = done->hold;
  return answer_of(out, done->record);
}

}  // namespace

// GET archives; POST archives/seal, archives/remove, holds, holds/<id>/lift. One archive is sealed by one request: that
// is what fits the time of a reply.
Response Admin::archives(const Request& request, const std::vector<std::string_view>& path) {
  const bool holds = path[0] == "holds";
  const bool list = !holds && path.size() == 1;
  const bool known = list || (holds && path.size() == 1) || (holds && path.size() == 3 && path[2] == "lift") ||
                     (!holds && path.size() == 2 && (path[1] == "seal" || path[1] == "remove"));
  if (!known) return to_response(not_found(request.path));
  if (request.method != (list ? "GET" : "POST")) return to_response(method_not_allowed(list ? "GET" : "POST"));
  if (list) {
    const Result<json::object> listed = replay::list_archives(ledger_.log());
    return listed ? answer_of(*listed, 0) : to_response(problem_of(listed.error()));
  }
  if (archivist_ == nullptr) return to_response({503, "this server keeps no archives"});
  const Result<Body> body = parse(request);
  if (!body) return to_response(problem_of(body.error()));
  if (holds)
    return answer_of(path.size() == 1 ? archivist_->hold(body->hold, body->action) : archivist_->lift(path[1], body->action));
  if (path[1] == "remove") return answer_of(archivist_->remove(body->hold.from, body->action));
  const Result<std::optional<Archivist::Sealed>> sealed = archivist_->seal_next(body->goal);
  if (!sealed) return to_response(problem_of(sealed.error()));
  return answer_of({{"sealed", *sealed ? json::value(replay::to_json(**sealed)) : json::value(nullptr)}},
                   *sealed ? (*sealed)->record : 0);
}

}  // namespace ledger::api
