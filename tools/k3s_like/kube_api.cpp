// Everything that is not k3s' own: a kube-apiserver in miniature, with the shapes of traffic that matter to whoever
// stands in front of it.
//   /version /healthz /livez /readyz           open
//   /whoami                                    who the caller is taken for, and every header as it came
//   /apis /api                                 any authenticated caller
//   /api/v1/nodes[?watch=1] [/NAME]            list, watch (timeoutSeconds, interval_ms), get, DELETE (masters)
//   /api/v1/namespaces/default/endpoints[/kubernetes]
//   POST/PUT /sink                             how long the body was, its SHA-256, how it was framed, its trailers
//   GET /source?bytes=N[&chunked=1]            N bytes of a pattern (byte i is i mod 251)
//   /api/v1/namespaces/X/pods/Y/exec           Upgrade: SPDY/3.1 (raw echo; "bye" after the client's end; with
//                                              ?close_after=N we end first) or websocket (echo of messages)
//   /slow?ms=N /garbage /truncate?bytes=N /cut /trailers /hints /odd /empty /not-modified /early
#include <boost/json.hpp>
#include <chrono>
#include <thread>

#include "ledger/node_hash.h"
#include "tools/k3s_like/server.h"

namespace ledger::k3s_like {
namespace {

namespace json = boost::json;

const Headers kText{{"Content-Type", "text/plain; charset=utf-8"}};

void answer_json(Visit& visit, int status, const json::value& value) {
  visit.exchange.answer(status, json_headers(), json::serialize(value) + "\n");
}

json::array pairs(const Headers& headers) {
  json::array out;
  for (const auto& [name, value] : headers) out.push_back(json::array{name, value});
  return out;
}

void serve_whoami(Visit& visit, const Caller& caller) {
  std::uint64_t bytes = 0;
  if (!visit.exchange.read_body([&bytes](std::string_view some) { bytes += some.size(); })) return;
  const Request& request = visit.exchange.request();
  answer_json(visit, 200,
              {{"user", caller.user},
               {"groups", json::array(caller.groups.begin(), caller.groups.end())},
               {"extra", pairs(caller.extra)},
               {"how", caller.how},
               {"method", request.method},
               {"target", request.target},
               {"headers", pairs(request.headers)},
               {"body_bytes", bytes},
               {"trailers", pairs(visit.exchange.trailers())}});
}

json::object node_object(const std::string& name) {
  return {{"kind", "Node"},
          {"apiVersion", "v1"},
          {"metadata",
           {{"name", name},
            {"uid", "00000000-0000-4000-8000-" + std::string(12, '0')},
            {"resourceVersion", "1"},
            {"creationTimestamp", "2026-01-01T00:00:00Z"}}},
          {"status", {{"conditions", json::array{{{"type", "Ready"}, {"status", "True"}}}}}}};
}

json::object endpoints_object(const Server& server) {
  const std::string where = server.advertised();
  const std::size_t colon = where.rfind(':');
  return {{"kind", "Endpoints"},
          {"apiVersion", "v1"},
          {"metadata", {{"name", "kubernetes"}, {"namespace", "default"}, {"resourceVersion", "1"}}},
          {"subsets", json::array{{{"addresses", json::array{{{"ip", where.substr(0, colon)}}}},
                                   {"ports", json::array{{{"name", "https"},
                                                          {"port", std::atoi(where.c_str() + colon + 1)},
                                                          {"protocol", "TCP"}}}}}}}};
}

// The objects as ADDED, then a BOOKMARK at every interval.
void serve_watch(Visit& visit, const std::string& kind, const json::array& objects) {
  const Request& request = visit.exchange.request();
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(request.number("timeoutSeconds", 30));
  const std::chrono::milliseconds interval(request.number("interval_ms", 1000));
  visit.exchange.begin(200, json_headers());
  bool going = true;
  for (const json::value& object : objects)
    going =
        going && visit.exchange.piece(json::serialize(json::object{{"type", "ADDED"}, {"object", object}}) + "\n");
  for (int version = 2; going; ++version) {
    const auto next = std::chrono::steady_clock::now() + interval;
    std::this_thread::sleep_until(std::min(next, until));
    if (std::chrono::steady_clock::now() >= until) break;
    const json::object bookmark{
        {"kind", kind}, {"apiVersion", "v1"}, {"metadata", {{"resourceVersion", std::to_string(version)}}}};
    going = visit.exchange.piece(json::serialize(json::object{{"type", "BOOKMARK"}, {"object", bookmark}}) + "\n");
  }
  visit.exchange.end();
}

bool is_watch(const Request& request) {
  const std::string watch = request.parameter("watch", "0");
  return watch == "1" || watch == "true";
}

void serve_collection(Visit& visit, const std::string& kind, json::array objects) {
  if (is_watch(visit.exchange.request())) return serve_watch(visit, kind, objects);
  answer_json(visit, 200,
              {{"kind", kind + "List"},
               {"apiVersion", "v1"},
               {"metadata", {{"resourceVersion", "1"}}},
               {"items", std::move(objects)}});
}

void serve_nodes(Visit& visit, const Caller& caller, const std::string& name) {
  json::array objects;
  for (const std::string& node : visit.server.nodes())
    if (name.empty() || node == name) objects.push_back(node_object(node));
  if (name.empty()) return serve_collection(visit, "Node", std::move(objects));
  if (!caller.is_in("system:nodes") && !caller.is_in("system:masters"))
    return visit.exchange.answer(403, json_headers(),
                                 status_body(403, "Forbidden",
                                             "nodes \"" + name + "\" is forbidden: User \"" + caller.user +
                                                 "\" cannot get resource \"nodes\" in API group \"\" at the cluster scope"));
  if (objects.empty())
    return visit.exchange.answer(404, json_headers(),
                                 status_body(404, "NotFound", "nodes \"" + name + "\" not found"));
  if (visit.exchange.request().method == "GET") return answer_json(visit, 200, objects[0]);
  if (visit.exchange.request().method != "DELETE" || !caller.is_in("system:masters"))
    return visit.exchange.answer(403, json_headers(),
                                 status_body(403, "Forbidden", "nodes \"" + name + "\" is forbidden"));
  visit.server.forget_node(name);
  answer_json(visit, 200, {{"kind", "Status"}, {"apiVersion", "v1"}, {"status", "Success"}});
}

void serve_sink(Visit& visit) {
  Sha256 digest;
  std::uint64_t bytes = 0;
  const bool whole = visit.exchange.read_body([&](std::string_view some) {
    bytes += some.size();
    digest.add(some);
  });
  visit.server.log({{"event", "sink"}, {"connection", visit.connection}, {"bytes", bytes}, {"whole", whole}});
  if (!whole) return;
  answer_json(visit, 200,
              {{"bytes", bytes},
               {"sha256", digest.hex()},
               {"framing", visit.exchange.request().chunked ? "chunked" : "length"},
               {"trailers", pairs(visit.exchange.trailers())}});
}

void serve_source(Visit& visit) {
  static const std::string pattern = [] {
    std::string bytes(251 * 256, 0);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i % 251);
    return bytes;
  }();
  const std::uint64_t bytes = visit.exchange.request().number("bytes", 1024);
  const bool chunked = visit.exchange.request().number("chunked", 0) != 0;
  visit.exchange.begin(200, {{"Content-Type", "application/octet-stream"}},
                       chunked ? std::nullopt : std::optional<std::uint64_t>(bytes));
  std::uint64_t left = bytes;
  while (left > 0) {
    const std::size_t size = static_cast<std::size_t>(std::min<std::uint64_t>(left, pattern.size()));
    if (!visit.exchange.piece(std::string_view(pattern).substr(0, size))) break;
    left -= size;
  }
  visit.server.log({{"event", "source"}, {"connection", visit.connection}, {"left", left}});
  visit.exchange.end();
}

void serve_exec(Visit& visit) {
  const Request& request = visit.exchange.request();
  const std::string upgrade = request.header("upgrade");
  if (same_name(upgrade, "websocket")) {
    Connection* connection = accept_websocket(visit);
    const std::string why = connection != nullptr ? serve_frames(*connection, true) : "refused";
    return visit.server.log({{"event", "exec_closed"}, {"connection", visit.connection}, {"why", why}});
  }
  if (!same_name(upgrade, "SPDY/3.1") || !has_word(request.all("connection"), "upgrade"))
    return visit.exchange.answer(400, json_headers(), status_body(400, "BadRequest", "Upgrade request required"));
  Connection& connection = visit.exchange.switch_protocols(
      {{"Connection", "Upgrade"}, {"Upgrade", "SPDY/3.1"}, {"X-Stream-Protocol-Version", "v4.channel.k8s.io"}});
  const std::uint64_t close_after = request.number("close_after", UINT64_MAX);
  std::uint64_t got = 0;
  bool ended = false;
  for (std::string_view some = connection.read_some(); !some.empty(); some = connection.read_some()) {
    got += some.size();
    if (!ended) connection.write(some);
    if (!ended && got >= close_after) {
      connection.end_writing();
      ended = true;
    }
  }
  visit.server.log({{"event", "exec_closed"},
                    {"connection", visit.connection},
                    {"bytes", got},
                    {"why", connection.ended_in_order() ? "end of stream" : "broken off"}});
  if (connection.ended_in_order() && !ended) connection.write("bye");
}

// Answers that a proxy must not mend, hold back or choke on.
bool serve_oddity(Visit& visit) {
  Exchange& exchange = visit.exchange;
  const std::string& path = exchange.request().path;
  if (path == "/slow") {
    std::this_thread::sleep_for(std::chrono::milliseconds(exchange.request().number("ms", 100)));
    exchange.answer(200, kText, "slow");
  } else if (path == "/garbage") {
    exchange.raw().write("\x01\x02 this is no HTTP\r\n\r\n");
  } else if (path == "/truncate") {
    const std::uint64_t bytes = exchange.request().number("bytes", 100);
    exchange.begin(200, kText, 2 * bytes);
    exchange.piece(std::string(bytes, 't'));
    exchange.raw();
  } else if (path == "/cut") {  // chunked, without its end
    exchange.begin(200, kText);
    exchange.piece("half of it");
    exchange.raw();
  } else if (path == "/trailers") {
    exchange.begin(200, {{"Content-Type", "text/plain"}, {"Trailer", "X-Checksum"}});
    exchange.piece("with ");
    exchange.piece("trailers");
    exchange.end({{"X-Checksum", "42"}});
  } else if (path == "/hints") {
    exchange.hint({{"Link", "</style.css>"}});
    exchange.answer(200, kText, "after hints");
  } else if (path == "/odd") {
    exchange.answer(200,
                    {{"x-lower", "1"},
                     {"Set-Cookie", "a=1"},
                     {"X-UPPER", ""},
                     {"Set-Cookie", "b=2"},
                     {"Warning", "299 - \"odd, but allowed\""},
                     {"Content-Type", "text/odd"}},
                    "odd\n");
  } else if (path == "/empty") {
    exchange.answer(204, {{"X-Empty", "yes"}}, "");
  } else if (path == "/not-modified") {
    exchange.answer(304, {{"ETag", "\"1\""}}, "");
  } else if (path == "/early") {  // without waiting for the body
    exchange.answer(413, {{"Connection", "close"}, {"Content-Type", "text/plain"}}, "too large");
  } else {
    return false;
  }
  return true;
}

}  // namespace

void serve_kube(Visit& visit) {
  const Request& request = visit.exchange.request();
  const std::string& path = request.path;
  const Caller caller = visit.server.kube_caller(request, visit.certificate);
  if (caller.refused)
    return visit.exchange.answer(401, json_headers(), status_body(401, "Unauthorized", "Unauthorized"));
  if (path == "/version")
    return answer_json(visit, 200, {{"major", "1"}, {"minor", "32"}, {"gitVersion", "v1.32.1+k3s-like"}});
  if (path == "/healthz" || path == "/livez" || path == "/readyz") return visit.exchange.answer(200, kText, "ok");
  if (path == "/whoami") return serve_whoami(visit, caller);
  if (caller.how == "anonymous")
    return visit.exchange.answer(
        403, json_headers(),
        status_body(403, "Forbidden", "forbidden: User \"system:anonymous\" cannot get path \"" + path + "\""));
  if (path == "/apis" || path == "/api")
    return answer_json(visit, 200, {{"kind", "APIGroupList"}, {"apiVersion", "v1"}, {"groups", json::array()}});
  if (path == "/api/v1/nodes") return serve_nodes(visit, caller, "");
  if (path.starts_with("/api/v1/nodes/")) return serve_nodes(visit, caller, path.substr(14));
  const std::string endpoints = "/api/v1/namespaces/default/endpoints";
  if (path == endpoints) return serve_collection(visit, "Endpoints", json::array{endpoints_object(visit.server)});
  if (path == endpoints + "/kubernetes") return answer_json(visit, 200, endpoints_object(visit.server));
  if (path == "/sink") return serve_sink(visit);
  if (path == "/source") return serve_source(visit);
  if (path.starts_with("/api/v1/namespaces/") && path.ends_with("/exec")) return serve_exec(visit);
  if (serve_oddity(visit)) return;
  visit.exchange.answer(404, kText, "404 page not found\n");
}

}  // namespace ledger::k3s_like
