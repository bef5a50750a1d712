// The operators' questions: why a node is refused, which ones are, and which record a reply had. The answers are those of
// `ledger replay --format json` and `ledger triage --format json` on the same log, byte for byte.
#include <boost/json.hpp>
#include <boost/url/parse_query.hpp>
#include <map>

#include "api/admin.h"
#include "api/problem.h"
#include "replay/disagreements.h"
#include "replay/explain.h"
#include "replay/lookup.h"
#include "replay/render.h"
#include "replay/triage.h"

namespace ledger::api {
namespace {

using Parameters = std::map<std::string, std::string, std::less<>>;

// Each of `known` at most once, and nothing else.
Result<Parameters> parameters_of(const Request& request, std::initializer_list<std::string_view> known) {
  Parameters out;
  const auto query = boost::urls::parse_query(request.query);
  if (!query) return Error{Errc::invalid, "the query cannot be read"};
  for (const auto& parameter : *query) {
    const std::string key(parameter.key), value(parameter.value);
    if (std::find(known.begin(), known.end(), key) == known.end())
      return Error{Errc::invalid, "no such parameter here: '" + printable(key, 40) + "'"};
    if (!out.emplace(key, value).second) return Error{Errc::invalid, "parameter '" + key + "' is there twice"};
  }
  return out;
}

Result<replay::Cut> cut_of(const Parameters& parameters, std::string_view name) {
  const auto found = parameters.find(name);
  if (found == parameters.end()) return replay::Cut{};
  const Result<replay::Cut> cut = replay::Cut::parse(found->second, Time::now());
  if (!cut) return Error{Errc::invalid, std::string(name) + ": " + cut.error().message};
  return *cut;
}

Response json_line(const boost::json::object& object) {
  Response response;
  response.content_type = "application/json";
  response.body = boost::json::serialize(object) + "\n";
  return response;
}

}  // namespace

Response Admin::explain_node(const Request& request, const NodeName& node) const {
  const Result<Parameters> parameters = parameters_of(request, {"at", "since", "until"});
  if (!parameters) return to_response(problem_of(parameters.error()));
  if (parameters->count("at") != 0 && parameters->count("until") != 0)
    return to_response({400, "at and until are the same; give one of them"});
  const Result<replay::Cut> at = cut_of(*parameters, parameters->count("until") != 0 ? "until" : "at");
  const Result<replay::Cut> since = cut_of(*parameters, "since");
  if (!at || !since) return to_response(problem_of(at ? since.error() : at.error()));
  const Result<replay::History> history = replay::history_from_log(ledger_.log(), node.str(), *at);
  if (!history) return to_response(problem_of(history.error()));
  replay::Explanation explanation = replay::explain(*history);
  replay::tell_since(*since, explanation);
  return json_line(replay::to_json(explanation));
}

Response Admin::triage_nodes(const Request& request) const {
  const Result<Parameters> parameters = parameters_of(request, {"since", "disagreements"});
  if (!parameters) return to_response(problem_of(parameters.error()));
  const auto asked = parameters->find("since");
  const auto since = replay::parse_since(asked == parameters->end() ? "24h" : asked->second, Time::now());
  if (!since) return to_response(problem_of(since.error()));
  if (const auto only = parameters->find("disagreements"); only != parameters->end()) {
    if (only->second != "true") return to_response({400, "disagreements is `true`, or left out"});
    const auto found = replay::disagreements(ledger_.log(), {.since = *since});
    return found ? json_line(replay::to_json(*found)) : to_response(problem_of(found.error()));
  }
  replay::TriageOptions options;
  options.since = *since;
  const Result<replay::Triage> found = replay::triage(ledger_.log(), options);
  if (!found) return to_response(problem_of(found.error()));
  return json_line(replay::to_json(*found));
}

Response Admin::look_up_record(const Request& request) const {
  const Result<Parameters> parameters = parameters_of(request, {"seq", "request_id"});
  if (!parameters) return to_response(problem_of(parameters.error()));
  if (parameters->size() != 1) return to_response({400, "give seq or request_id"});
  const auto& [name, value] = *parameters->begin();
  replay::Lookup asked;
  if (name == "seq") {
    const Result<replay::Cut> seq = replay::Cut::parse(value);
    if (!seq || !seq->seq) return to_response({400, "seq is a record number"});
    asked.seq = seq->seq;
  } else {
    asked.request_id = value;
  }
  const Result<replay::LookedUp> found = replay::look_up(ledger_.log(), asked);
  return found ? json_line(replay::to_json(*found)) : to_response(problem_of(found.error()));
}

}  // namespace ledger::api
