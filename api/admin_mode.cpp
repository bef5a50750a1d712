// The mode: GET and POST /ledger/v1/mode (docs/HTTP_API.md, "For operators").

#include <boost/json.hpp>

#include "api/admin.h"
#include "api/cluster_config.h"
#include "api/mode.h"
#include "api/problem.h"
#include "api/upstream.h"

namespace ledger::api {

namespace json = boost::json;

namespace {

// A change waits so long for registrations under way; who comes meanwhile waits with it, less than agents do (10 s).
constexpr std::chrono::seconds kPatience{5};

struct Body {
  Mode mode = Mode::alone;
  std::string actor, reason;
};

Result<Body> parse(const Request& request) {
  json::error_code error;
  const json::value value = json::parse(request.body, error);
  if (error || !value.is_object())
    return Error{Errc::invalid, "the body must be a JSON object with mode, actor and reason"};
  Body body;
  for (const auto& [key, item] : value.get_object()) {
    if (!item.is_string()) return Error{Errc::invalid, "field '" + printable(std::string_view(key.data(), key.size()), 60) + "' must be text"};
    const std::string text(item.get_string());
    if (key == "mode") {
      const std::optional<Mode> mode = mode_named(text);
      if (!mode || *mode == Mode::alone)
        return Error{Errc::invalid, "field 'mode' must be observe or enforce; alone is a server that is started without --upstream"};
      body.mode = *mode;
    } else if (key == "actor") {
      body.actor = printable(text, 200);
    } else if (key == "reason") {
      body.reason = printable(text, 500);
    } else {
      return Error{Errc::invalid, "field '" + printable(std::string_view(key.data(), key.size()), 60) + "' is unknown"};
    }
  }
  if (body.mode == Mode::alone) return Error{Errc::invalid, "field 'mode' is missing"};
  if (body.actor.empty()) return Error{Errc::invalid, "field 'actor' is missing"};
  return body;
}

Response answer_of(const json::object& object, Seq seq = 0) {
  Response response;
  response.content_type = "application/json";
  response.body = json::serialize(object) + "\n";
  if (seq != 0) response.headers.emplace_back("Ledger-Seq", std::to_string(seq));
  return response;
}

std::string urls_of(const std::vector<UpstreamStatus>& upstreams) {
  std::string urls;
  for (const UpstreamStatus& one : upstreams) urls += (urls.empty() ? "" : ",") + one.url;
  return urls;
}

}  // namespace

Response Admin::describe_mode() {
  const Mode mode = modes_ != nullptr ? modes_->mode() : Mode::alone;
  json::object out{{"mode", json::string_view(name_of(mode).data(), name_of(mode).size())}};
  const Result<std::optional<Record>> newest = ledger_.log().newest(Kind::mode_changed);
  if (!newest) return to_response(problem_of(newest.error()));
  if (*newest) {
    out["since"] = (*newest)->time.to_string();
    out["since_seq"] = (*newest)->seq;
    if (const auto* changed = as<ModeChanged>(**newest)) out["actor"] = changed->actor;
  }
  json::array all;
  if (upstreams_ != nullptr)
    for (const UpstreamStatus& one : upstreams_->status())
      all.push_back({{"url", one.url}, {"answers", one.answers}, {"cause", one.cause}, {"since", one.since.to_string()}});
  out["upstreams"] = std::move(all);
  return answer_of(out);
}

Response Admin::change_mode(const Request& request) {
  if (modes_ == nullptr)
    return to_response({409, "this server has no upstream: its mode is alone; start it with --upstream https://HOST:6443"});
  const Result<Body> body = parse(request);
  if (!body) return to_response(problem_of(body.error()));
  if (body->mode == Mode::enforce && cluster_->document() == nullptr)
    return to_response({409, "the upstream's config document was never learned (does it answer, with this token?): agents would "
                             "be told other networks than the cluster has"});
  const Mode from = modes_->mode();
  if (from == body->mode)
    return answer_of({{"mode", json::string_view(name_of(from).data(), name_of(from).size())}, {"from", nullptr}, {"seq", nullptr}});
  Seq seq = 0;
  const auto record = [&]() -> Result<void> {
    Record changed;
    changed.event = ModeChanged{.mode = std::string(name_of(body->mode)),
                                .from = std::string(name_of(from)),
                                .upstreams = urls_of(upstreams_->status()),
                                .actor = body->actor};
    changed.request_id = request.id;
    changed.source = request.source;
    changed.via = request.via;
    changed.note = body->reason;
    Proposal proposal;
    proposal.records.push_back(std::move(changed));
    const Result<Committed> done = ledger_.append_and_wait(std::move(proposal));
    if (!done) return done.error();
    seq = done->last();
    return {};
  };
  const Result<std::chrono::milliseconds> took = modes_->change(body->mode, record, kPatience);
  if (!took) return to_response(problem_of(took.error()));
  return answer_of({{"mode", json::string_view(name_of(body->mode).data(), name_of(body->mode).size())},
                    {"from", json::string_view(name_of(from).data(), name_of(from).size())},
                    {"seq", seq},
                    {"waited_ms", took->count()}},
                   seq);
}

}  // namespace ledger::api
