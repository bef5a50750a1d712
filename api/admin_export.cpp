// POST /ledger/v1/exports: a part of the log has left the house, made by `ledger export --bundle` or `--record` beside
// this server. {"actor","reason","from","to","format","sha256"}; docs/HTTP_API.md, "For operators".

#include <boost/json.hpp>

#include "api/admin.h"
#include "api/problem.h"
#include "ledger/operator.h"

namespace ledger::api {

namespace json = boost::json;

namespace {

struct ExportBody {
  ExportCreated exported;
  OperatorAction action;
};

Result<ExportBody> parse_export(const Request& request) {
  json::error_code error;
  const json::value value = json::parse(request.body, error);
  if (error || !value.is_object())
    return Error{Errc::invalid, "the body must be a JSON object with actor, from, to, format, sha256"};
  ExportBody body;
  for (const auto& [key, item] : value.get_object()) {
    if (key == "actor" && item.is_string())
      body.action.actor = item.get_string();
    else if (key == "reason" && item.is_string())
      body.action.reason = item.get_string();
    else if (key == "from" && item.is_int64())
      body.exported.from = item.get_int64();
    else if (key == "to" && item.is_int64())
      body.exported.to = item.get_int64();
    else if (key == "format" && item.is_string())
      body.exported.format = item.get_string();
    else if (key == "sha256" && item.is_string())
      body.exported.sha256 = item.get_string();
    else
      return Error{Errc::invalid, "field '" + printable(std::string_view(key.data(), key.size()), 60) +
                                      "' is unknown or of the wrong type"};
  }
  body.action.request_id = request.id;
  body.action.source = request.source;
  body.action.via = request.via;
  return body;
}

}  // namespace

Response Admin::record_export(const Request& request) {
  if (request.method != "POST") return to_response(method_not_allowed("POST"));
  Result<ExportBody> body = parse_export(request);
  if (!body) return to_response(problem_of(body.error()));
  const Result<Committed> done = ledger::record_export(ledger_, std::move(body->exported), body->action);
  if (!done) return to_response(problem_of(done.error()));
  Response response;
  response.content_type = "application/json";
  response.body = json::serialize(json::object{{"seq", done->last()}}) + "\n";
  response.headers.emplace_back("Ledger-Seq", std::to_string(done->last()));
  return response;
}

}  // namespace ledger::api
