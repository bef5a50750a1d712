#include "api/admin.h"

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/json.hpp>
#include <boost/url/encode.hpp>
#include <boost/url/pct_string_view.hpp>

#include "api/problem.h"
#include "api/token_action.h"
#include "api/tree_files.h"
#include "ledger/event_json.h"
#include "ledger/operator.h"
#include "replay/export.h"
#include "replay/node_summary.h"
#include "replay/token_summary.h"

namespace ledger::api {

namespace json = boost::json;

namespace {

constexpr std::string_view kPrefix = "/ledger/v1/";
constexpr int kMaxQueued = 32;

Response json_response(const json::value& value) {
  Response response;
  response.content_type = "application/json";
  response.body = json::serialize(value) + "\n";
  return response;
}

std::vector<std::string_view> segments_of(std::string_view path) {
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    const auto slash = path.find('/');
    segments.push_back(path.substr(0, slash));
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
  }
  return segments;
}

Result<NodeName> node_of(std::string_view segment) {
  const auto encoded = boost::urls::make_pct_string_view(boost::urls::string_view(segment.data(), segment.size()));
  if (!encoded) return Error{Errc::invalid, "the path is not percent-encoded as it should be"};
  return NodeName::parse(encoded->decode());
}

// The node of POST /ledger/v1/nodes/X/probe; nullopt: another request.
std::optional<Result<NodeName>> probed_node(const Request& request) {
  const auto path = segments_of(std::string_view(request.path).substr(kPrefix.size()));
  if (request.method != "POST" || path.size() != 3 || path[0] != "nodes" || path[2] != "probe") return std::nullopt;
  return node_of(path[1]);
}

// {"actor":"...","reason":"...","fingerprint":"...","force":false}
struct ActionBody {
  OperatorAction action;
  std::string fingerprint;
};

Result<ActionBody> parse_action(const Request& request) {
  json::error_code error;
  const json::value value = json::parse(request.body, error);
  if (error || !value.is_object())
    return Error{Errc::invalid, "the body must be a JSON object with actor, reason, fingerprint, force"};
  ActionBody body;
  for (const auto& [key, item] : value.get_object()) {
    if (key == "actor" && item.is_string()) {
      body.action.actor = item.get_string();
    } else if (key == "reason" && item.is_string()) {
      body.action.reason = item.get_string();
    } else if (key == "fingerprint" && item.is_string()) {
      body.fingerprint = item.get_string();
    } else if (key == "force" && item.is_bool()) {
      body.action.force = item.get_bool();
    } else {
      return Error{Errc::invalid, "field '" + printable(std::string_view(key.data(), key.size()), 60) +
                                      "' is unknown or of the wrong type"};
    }
  }
  body.action.request_id = request.id;
  body.action.source = request.source;
  body.action.via = request.via;
  if (body.action.actor.empty()) return Error{Errc::invalid, "field 'actor' is missing"};
  return body;
}

constexpr std::size_t kMaxUid = 128;

// {"node":"web-1","uid":"...","change":"created|deleted","note":"..."}
Result<NodeObjects::Change> parse_change(const json::value& value) {
  const json::object* object = value.if_object();
  const auto text = [object](const char* key) {
    const json::value* found = object != nullptr ? object->if_contains(key) : nullptr;
    return found != nullptr && found->is_string() ? std::string(found->get_string()) : std::string();
  };
  const Result<NodeName> node = NodeName::parse(text("node"));
  if (!node) return node.error();
  const std::string change = text("change"), uid = text("uid");
  if (change != "created" && change != "deleted")
    return Error{Errc::invalid, "field 'change' of " + node->str() + " must be created or deleted"};
  if (uid.size() > kMaxUid || uid != printable(uid, kMaxUid) || (uid.empty() && change == "created"))
    return Error{Errc::invalid, "field 'uid' of " + node->str() + " is missing or no uid"};
  return NodeObjects::Change{node->str(), uid, change == "deleted", printable(text("note"), 200)};
}

// {"actor":"...","release":false,"changes":[...]}
Result<NodeObjects::Report> parse_report(const Request& request) {
  json::error_code error;
  const json::value value = json::parse(request.body, error);
  const json::object* body = error ? nullptr : value.if_object();
  const json::value* actor = body != nullptr ? body->if_contains("actor") : nullptr;
  const json::value* release = body != nullptr ? body->if_contains("release") : nullptr;
  const json::value* changes = body != nullptr ? body->if_contains("changes") : nullptr;
  if (actor == nullptr || !actor->is_string() || actor->get_string().empty() || changes == nullptr ||
      !changes->is_array() || (release != nullptr && !release->is_bool()))
    return Error{Errc::invalid, "the body must be a JSON object with actor, release and changes"};
  NodeObjects::Report report;
  report.actor = printable(std::string_view(actor->get_string()), 200);
  report.release_on_delete = release != nullptr && release->get_bool();
  report.request_id = request.id;
  report.source = request.source;
  for (const json::value& item : changes->get_array()) {
    Result<NodeObjects::Change> change = parse_change(item);
    if (!change) return change.error();
    report.changes.push_back(std::move(*change));
  }
  return report;
}

}  // namespace

// One worker thread behind a counted queue.
class Admin::Lane {
 public:
  bool try_post(std::function<void()> work) {
    if (queued_.fetch_add(1) >= kMaxQueued) {
      --queued_;
      return false;
    }
    boost::asio::post(pool_, [this, work = std::move(work)] {
      work();
      --queued_;
    });
    return true;
  }
  void finish() { pool_.join(); }

 private:
  std::atomic<int> queued_{0};
  boost::asio::thread_pool pool_{1};
};

Admin::Admin(Ledger& ledger, const Credentials& credentials, Tunnels& tunnels, const Issuer& issuer, HashChecker* hashes)
    : ledger_(ledger),
      credentials_(credentials),
      tunnels_(tunnels),
      probe_(tunnels, issuer.server_ca_pem()),
      hashes_(hashes),
      objects_(ledger),
      compaction_(ledger),
      events_(ledger),
      lane_(std::make_unique<Lane>()) {}

Admin::~Admin() { lane_->finish(); }

namespace {

// One that may only look is refused what would change something.
OperatorCaller judge(const Request& request, const Credentials& credentials, const Ledger& ledger) {
  OperatorCaller caller = identify_operator(request, credentials, ledger);
  if (caller.result == TokenResult::accepted && request.method != "GET" && !caller.may_change)
    caller.result = TokenResult::wrong_class;
  return caller;
}

Problem refusal_of(const OperatorCaller& caller) {
  if (!caller.auth.token.empty())
    return {403, "this operator token may only look (role read); changing something takes one with the role operate"};
  switch (caller.result) {
    case TokenResult::expired:
    case TokenResult::revoked:
    case TokenResult::superseded: return problem_of(caller.result);
    default:
      return {401, "the operators' API needs the operator token: Authorization: Bearer <contents of "
                   "cred/operator-token>"};
  }
}

}  // namespace

// Checked before it is queued: a stranger must not keep operators out by filling their queue. And again when its turn
// comes: what was queued before it may have revoked its token.
void Admin::handle(RequestPtr request, Reply reply) {
  const OperatorCaller caller = judge(*request, credentials_, ledger_);
  if (caller.result != TokenResult::accepted) return refuse(*request, caller, std::move(reply));
  if (const auto node = probed_node(*request))
    return *node ? probe(**node, std::move(reply)) : reply(to_response(problem_of(node->error())));
  if (request->path == "/ledger/v1/events") {
    if (request->method != "GET") return reply(to_response(method_not_allowed("GET")));
    return reply(events_.open(*request, [this, request] {
      return judge(*request, credentials_, ledger_).result == TokenResult::accepted;
    }));
  }
  const bool queued = lane_->try_post([this, request, reply] {
    const OperatorCaller now = judge(*request, credentials_, ledger_);
    if (now.result != TokenResult::accepted) return refuse(*request, now, reply);
    reply(answer(*request));
  });
  if (!queued) reply(to_response({429, "too many operators' requests at once", 1}));
}

void Admin::refuse(const Request& request, const OperatorCaller& operator_caller, Reply reply) {
  const Problem problem = refusal_of(operator_caller);
  Caller caller;
  caller.auth = operator_caller.auth;
  const std::string& token = caller.auth.token.empty() ? operator_caller.old_token : caller.auth.token;
  Record record = record_of(request, caller,
                            TokenRejected{.status = problem.status,
                                          .reason = std::string(reason_name(operator_caller.result)),
                                          .token = token});
  record.endpoint = kPrefix;  // the rest of the path is the caller's invention
  record.generation.clear();
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  ledger_.append(std::move(proposal), [problem, reply = std::move(reply)](const Result<Committed>& recorded) {
    if (!recorded) return reply(to_response(problem_of(recorded.error())));
    Response response = to_response(problem);
    response.headers.emplace_back("Ledger-Seq", std::to_string(recorded->last()));
    reply(std::move(response));
  });
}

Response Admin::answer(const Request& request) {
  const std::vector<std::string_view> path = segments_of(std::string_view(request.path).substr(kPrefix.size()));
  const bool get = request.method == "GET";
  if (!path.empty() && path[0] == "tokens") return tokens(request, path);
  if (!path.empty() && (path[0] == "archives" || path[0] == "holds")) return archives(request, path);
  if (path.size() > 1 && path[0] == "tile" && get) return tree_file(ledger_.log(), "", request.path);
  if (path.size() == 2 && path[0] == "import") return import_entries(request, path[1]);
  if (path.size() == 1 && path[0] == "node-objects") {
    if (get) return list_objects();
    return request.method == "POST" ? record_objects(request) : to_response(method_not_allowed("GET or POST"));
  }
  if (path.size() == 1 && path[0] == "compact") {
    if (get) return json_response(compaction_.state());
    return request.method == "POST" ? json_response(compaction_.start()) : to_response(method_not_allowed("GET or POST"));
  }
  if (path.size() == 1 && path[0] == "mode") {
    if (get) return describe_mode();
    return request.method == "POST" ? change_mode(request) : to_response(method_not_allowed("GET or POST"));
  }
  if (path.size() == 1 && path[0] == "exports") return record_export(request);
  if (!get && path.size() < 3) return to_response(method_not_allowed("GET"));
  if (path.size() == 1 && path[0] == "status") {
    const Ledger::Stats stats = ledger_.stats();
    return json_response({{"ledger", ledger_.log().id()},
                          {"server", ledger_.server_id()},
                          {"epoch", ledger_.epoch()},
                          {"head", ledger_.log().head()},
                          {"version", LEDGER_VERSION},
                          {"batches", stats.batches},
                          {"records", stats.records},
                          {"counted", stats.counted},
                          {"conflicts", stats.conflicts},
                          {"overloaded", stats.overloaded}});
  }
  if (path.size() == 1 && (path[0] == "triage" || path[0] == "records")) {
    if (const Result<void> flushed = ledger_.flush_counts(); !flushed) return to_response(problem_of(flushed.error()));
    return path[0] == "triage" ? triage_nodes(request) : look_up_record(request);
  }
  if (path.empty() || path[0] != "nodes" || path.size() > 3) return to_response(not_found(request.path));
  if (path.size() == 1) {
    const Result<json::array> nodes = replay::list_nodes(ledger_.log());
    return nodes ? json_response(*nodes) : to_response(problem_of(nodes.error()));
  }
  const Result<NodeName> node = node_of(path[1]);
  if (!node) return to_response(problem_of(node.error()));
  if (path.size() == 3 && !get) return node_action(request, *node, path[2]);
  // What is still being counted belongs to the answer.
  if (const Result<void> flushed = ledger_.flush_counts(); !flushed) return to_response(problem_of(flushed.error()));
  if (path.size() == 2) {
    const Result<json::object> summary = replay::describe_node(ledger_.log(), node->str());
    if (!summary) return to_response(problem_of(summary.error()));
    json::object described = *summary;
    described["alive"] = alive(*node);
    return json_response(described);
  }
  if (path[2] == "explanation") return explain_node(request, *node);
  if (path[2] != "history") return to_response(not_found(request.path));
  Response response;
  response.content_type = "application/jsonl";
  const Result<void> exported = replay::export_node_history(ledger_.log(), node->str(), [&](std::string_view line) {
    response.body += line;
    return true;
  });
  return exported ? response : to_response(problem_of(exported.error()));
}

// GET tokens; POST tokens, tokens/<id>/rotate, tokens/<id>/revoke.
Response Admin::tokens(const Request& request, const std::vector<std::string_view>& path) {
  const bool known = path.size() == 1 || (path.size() == 3 && (path[2] == "rotate" || path[2] == "revoke"));
  if (!known) return to_response(not_found(request.path));
  if (path.size() == 1 && request.method == "GET") {
    if (const Result<void> flushed = ledger_.flush_counts(); !flushed) return to_response(problem_of(flushed.error()));
    const Result<json::array> list = replay::list_tokens(ledger_.log(), Time::now());
    return list ? json_response(*list) : to_response(problem_of(list.error()));
  }
  if (request.method != "POST") return to_response(method_not_allowed(path.size() == 1 ? "GET or POST" : "POST"));
  json::error_code error;
  const json::value body = json::parse(request.body, error);
  if (error || !body.is_object())
    return to_response(problem_of(Error{Errc::invalid, "the body must be a JSON object with actor and reason"}));
  const bool create = path.size() == 1;
  const Result<json::object> done = token_action(ledger_, credentials_, create ? "create" : path[2],
                                                 create ? "" : path[1], body.get_object(), request.id, request.source);
  if (!done) return to_response(problem_of(done.error()));
  Response response = json_response(*done);
  response.headers.emplace_back("Ledger-Seq", std::to_string(done->at("seq").to_number<Seq>()));
  response.headers.emplace_back("Cache-Control", "no-store");
  return response;
}

Response Admin::list_objects() {
  const auto existing = objects_.existing();
  if (!existing) return to_response(problem_of(existing.error()));
  json::array list;
  for (const auto& [node, uid] : *existing) list.push_back({{"node", node}, {"uid", uid}});
  return json_response(list);
}

Response Admin::record_objects(const Request& request) {
  const Result<NodeObjects::Report> report = parse_report(request);
  if (!report) return to_response(problem_of(report.error()));
  const Result<NodeObjects::Outcome> done = objects_.record(*report);
  if (!done) return to_response(problem_of(done.error()));
  Response response = json_response({{"created", done->created},
                                     {"deleted", done->deleted},
                                     {"released", done->released},
                                     {"known", done->known},
                                     {"seq", done->last}});
  if (done->last > 0) response.headers.emplace_back("Ledger-Seq", std::to_string(done->last));
  return response;
}

// Whether the holder of a name is alive now: what a running server knows and no log can.
json::object Admin::alive(const NodeName& node) const {
  json::array tunnels;
  for (const OpenTunnel& tunnel : tunnels_.of(node.str())) tunnels.push_back(to_json(tunnel));
  const bool now = !tunnels.empty();
  json::object out{{"now", now}, {"tunnels", std::move(tunnels)}};
  const Moment registered = ledger_.find(node.str()).registered;
  if (registered.seq != 0) out["verified"] = {{"seq", registered.seq}, {"time", registered.time.to_string()}};
  return out;
}

void Admin::probe(const NodeName& node, Reply reply) {
  if (ledger_.find(node.str()).version == 0 && tunnels_.of(node.str()).empty())
    return reply(to_response({404, "the ledger has never seen a node " + node.str() +
                                       "; `ledger node list` shows those it knows"}));
  const bool started = probe_.start(node.str(), [node = node.str(), reply](const ProbeResult& result) {
    json::object answer{{"node", node}};
    for (auto& [key, value] : to_json(result)) answer.insert_or_assign(key, value);
    reply(json_response(answer));
  });
  if (!started) reply(to_response({429, "too many probes at once", 1}));
}

Response Admin::node_action(const Request& request, const NodeName& node, std::string_view action) {
  if (request.method != "POST") return to_response(method_not_allowed("POST"));
  const Result<ActionBody> body = parse_action(request);
  if (!body) return to_response(problem_of(body.error()));
  Result<Committed> done = Error{Errc::not_found, "no such action: accept, release and hold are known"};
  if (action == "accept") done = accept_fingerprint(ledger_, node, body->fingerprint, body->action);
  if (action == "release") done = release_binding(ledger_, node, body->action);
  if (action == "hold") done = hold_name(ledger_, node, body->action);
  if (!done) return to_response(problem_of(done.error()));
  Response response = json_response({{"seq", done->last()}});
  response.headers.emplace_back("Ledger-Seq", std::to_string(done->last()));
  return response;
}

}  // namespace ledger::api
