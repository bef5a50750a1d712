#include <boost/json.hpp>

#include "ledger/event_json.h"
#include "replay/claims.h"
#include "replay/render.h"

namespace ledger::replay {

namespace json = boost::json;

namespace {

json::value text_or_null(std::string_view text) {
  return text.empty() ? json::value(nullptr) : json::value(json::string(text.data(), text.size()));
}
json::string string_of(std::string_view text) { return json::string(text.data(), text.size()); }

json::object as_of(const Explanation& explanation) {
  json::object out;
  out["seq"] = explanation.as_of_seq;
  out["time"] = explanation.as_of_time.known() ? json::value(string_of(explanation.as_of_time.to_string()))
                                               : json::value(nullptr);
  return out;
}

json::value bound(const Explanation& explanation) {
  if (!explanation.is_bound) return nullptr;
  json::object out;
  out["fingerprint"] = text_or_null(explanation.bound.text);
  out["since_seq"] = explanation.bound_since != 0 ? json::value(explanation.bound_since) : json::value(nullptr);
  return out;
}

json::object moment(const Step& step) {
  json::object out = ledger::to_json(*step.record);
  out["state_before"] = string_of(step.before);
  out["state_after"] = string_of(step.after);
  if (const NameIs name = name_is(*step.record); name != NameIs::nobodys) out["node_is"] = string_of(name_of(name));
  return out;
}

}  // namespace

json::object to_json(const Explanation& explanation) {
  json::object out;
  out["node"] = explanation.node;
  out["as_of"] = as_of(explanation);
  if (explanation.told_from != 0) out["told_from"] = explanation.told_from;
  out["state"] = explanation.state;
  out["bound"] = bound(explanation);
  out["cause"] = string_of(name_of(explanation.cause));
  out["confidence"] = string_of(name_of(explanation.confidence));
  out["summary"] = explanation.summary;
  json::array& evidence = out["evidence"].emplace_array();
  for (const Fact& fact : explanation.evidence)
    evidence.push_back(json::object{{"seq", fact.seq}, {"fact", fact.fact}});
  json::array& alternatives = out["alternatives"].emplace_array();
  for (const Alternative& other : explanation.alternatives)
    alternatives.push_back(
        json::object{{"cause", string_of(name_of(other.cause))}, {"would_need", other.would_need}});
  json::array& remedies = out["remedies"].emplace_array();
  for (const Remedy& remedy : explanation.remedies)
    remedies.push_back(json::object{{"rank", text_or_null(remedy.rank)},
                                    {"action", remedy.action},
                                    {"command", text_or_null(remedy.command)},
                                    {"harm", remedy.harm}});
  out["warnings"] = json::array(explanation.warnings.begin(), explanation.warnings.end());
  if (explanation.only_claimed) out["only_claimed"] = true;
  if (!explanation.agent_prints.empty()) out["agent_prints"] = explanation.agent_prints;
  json::array& timeline = out["timeline"].emplace_array();
  for (const Step& step : explanation.timeline.steps)
    if (step.record->seq >= explanation.told_from) timeline.push_back(moment(step));
  return out;
}

}  // namespace ledger::replay
