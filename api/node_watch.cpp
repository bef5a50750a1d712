#include "api/node_watch.h"

#include <algorithm>
#include <boost/json.hpp>
#include <boost/url/encode.hpp>
#include <boost/url/rfc/unreserved_chars.hpp>
#include <iterator>
#include <map>
#include <set>
#include <thread>

namespace ledger::api {

namespace json = boost::json;

namespace {

// So that a body stays well below what the operators' API takes (64 KiB): names have at most 253 bytes.
constexpr std::size_t kChangesPerReport = 100;
constexpr std::size_t kMaxPage = 64 << 20;
constexpr std::size_t kMaxLine = 16 << 20;

constexpr const char* kListTypes =
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";
constexpr const char* kWatchTypes = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";

Error bad(std::string what) { return {Errc::invalid, std::move(what)}; }

std::string encode(std::string_view text) {
  return boost::urls::encode(boost::urls::string_view(text.data(), text.size()), boost::urls::unreserved_chars);
}

std::string text_at(const json::object& object, std::string_view key) {
  const json::value* found = object.if_contains(json::string_view(key.data(), key.size()));
  return found != nullptr && found->is_string() ? std::string(found->get_string()) : std::string();
}

json::object change_of(const std::string& node, const std::string& uid, bool deleted, const char* note) {
  json::object change{{"node", node}, {"uid", uid}, {"change", deleted ? "deleted" : "created"}};
  if (note != nullptr) change["note"] = note;
  return change;
}

std::string status_text(const HttpsResponse& response) {
  json::error_code error;
  const json::value body = json::parse(response.body, error);
  const std::string message = !error && body.is_object() ? text_at(body.get_object(), "message") : std::string();
  return response.status_line() + (message.empty() ? "" : ": " + printable(message, 300));
}

}  // namespace

Result<NodeWatch> NodeWatch::open(NodeWatchOptions options) {
  const Result<KubeAccess> access = read_kubeconfig(options.kube);
  if (!access) return access.error();
  return NodeWatch(std::move(options));
}

// The kubeconfig is read anew each time: what it names may have been replaced (certificates are, every year).
Result<HttpsClient> NodeWatch::connect(HttpsRequest& request) {
  Result<KubeAccess> access = read_kubeconfig(options_.kube);
  if (!access) return access.error();
  Result<Secret> authorization = access->authorization();
  if (!authorization) return authorization.error();
  request.authorization = std::move(*authorization);
  request.target = access->prefix + request.target;
  access->https.body_limit = kMaxPage;
  access->https.timeout = std::chrono::seconds(10);
  return HttpsClient::open(std::move(access->https));
}

// ---- The list ----------------------------------------------------------------------------------------------

Result<NodeWatch::List> NodeWatch::list() {
  List list;
  std::string next;
  do {
    HttpsRequest request;
    request.target = "/api/v1/nodes?limit=" + std::to_string(options_.page);
    if (!next.empty()) request.target += "&continue=" + encode(next);
    request.headers = {{"Accept", kListTypes}};
    Result<HttpsClient> client = connect(request);
    if (!client) return client.error();
    const Result<HttpsResponse> response = client->send(request);
    if (!response) return response.error();
    // 410 among them: the pages before belong to a list that cannot be finished.
    if (response->status != 200) return bad("GET /api/v1/nodes: " + status_text(*response));
    Result<KubeNodePage> page = read_node_page(response->body);
    if (!page) return page.error();
    std::move(page->nodes.begin(), page->nodes.end(), std::back_inserter(list.objects));
    list.version = std::move(page->version);
    next = std::move(page->next);
  } while (!next.empty() && !stopped());
  if (!next.empty()) return bad("stopped in the middle of a list");
  return list;
}

Result<void> NodeWatch::report(const std::string& changes, bool release) {
  Result<OperatorClient> ledger = OperatorClient::open(options_.ledger);
  if (!ledger) return ledger.error();
  const std::string body = R"({"actor":)" + json::serialize(json::value(options_.actor)) + R"(,"release":)" +
                           (release ? "true" : "false") + R"(,"changes":)" + changes + "}";
  const Result<std::string> done = ledger->post("/ledger/v1/node-objects", body);
  if (!done) return done.error();
  json::error_code error;
  const json::value answer = json::parse(*done, error);
  if (error || !answer.is_object()) return {};
  const auto count = [&](const char* key) {
    const json::value* found = answer.get_object().if_contains(key);
    return found != nullptr && found->is_number() ? found->to_number<std::int64_t>() : 0;
  };
  if (count("created") + count("deleted") > 0)
    say(false, std::to_string(count("created")) + " node objects appeared, " + std::to_string(count("deleted")) +
                   " were deleted, " + std::to_string(count("released")) + " names released");
  return {};
}

Result<std::vector<KubeNode>> NodeWatch::known() {
  Result<OperatorClient> ledger = OperatorClient::open(options_.ledger);
  if (!ledger) return ledger.error();
  const Result<std::string> body = ledger->get("/ledger/v1/node-objects");
  if (!body) return body.error();
  json::error_code error;
  const json::value items = json::parse(*body, error);
  if (error || !items.is_array()) return bad("the ledger's answer cannot be read");
  std::vector<KubeNode> objects;
  for (const json::value& item : items.get_array()) {
    if (!item.is_object()) return bad("the ledger's answer cannot be read");
    objects.push_back({text_at(item.get_object(), "node"), text_at(item.get_object(), "uid")});
  }
  return objects;
}

Result<void> NodeWatch::reconcile(const std::vector<KubeNode>& known, const List& list) {
  std::map<std::string, std::string> listed;
  for (const KubeNode& object : list.objects) listed[object.name] = object.uid;
  json::array changes;
  bool any_known = false;
  for (const auto& [node, uid] : known) {
    const auto found = listed.find(node);
    const bool exists = found != listed.end() && (uid.empty() || found->second == uid);
    any_known = any_known || exists;
    if (!exists)
      changes.push_back(change_of(node, uid, true, "deleted while nobody watched: a whole list lacks it"));
  }
  if (list.objects.empty() && !changes.empty())
    return bad("the server says that there are no nodes at all, while " + std::to_string(changes.size()) +
               " are known: that is not believed; nothing is recorded");
  const bool strange = !any_known && !changes.empty();
  if (strange && options_.release_on_delete)
    say(true,
        "none of the nodes known so far is in the list: another cluster? Deletions are recorded, no name is "
        "released");
  for (const KubeNode& object : list.objects) changes.push_back(change_of(object.name, object.uid, false, nullptr));
  // A deletion and what took its place stay in one report: then the name is not released in between.
  std::stable_sort(changes.begin(), changes.end(), [](const json::value& one, const json::value& other) {
    return text_at(one.get_object(), "node") < text_at(other.get_object(), "node");
  });
  for (std::size_t at = 0; at < changes.size();) {
    json::array part;
    const auto node_at = [&](std::size_t i) { return text_at(changes[i].get_object(), "node"); };
    while (at < changes.size() &&
           (part.size() < kChangesPerReport || node_at(at) == text_at(part.back().get_object(), "node")))
      part.push_back(std::move(changes[at++]));
    const Result<void> reported = report(json::serialize(part), options_.release_on_delete && !strange);
    if (!reported) return reported.error();
  }
  return {};
}

Result<void> NodeWatch::list_once() {
  // In this order: what was known before the list was made, and is not in it, was deleted. The other way round, an
  // object that another watcher reported meanwhile would look deleted.
  const Result<std::vector<KubeNode>> before = known();
  if (!before) return before.error();
  const Result<List> whole = list();
  if (!whole) return whole.error();
  if (const Result<void> done = reconcile(*before, *whole); !done) return done.error();
  seen_.clear();
  for (const KubeNode& object : whole->objects) seen_.insert(object.uid);
  version_ = whole->version;
  return {};
}

// ---- The watch ---------------------------------------------------------------------------------------------

Result<void> NodeWatch::take_event(std::string_view line) {
  using Type = KubeNodeEvent::Type;
  const Result<KubeNodeEvent> event = read_node_event(line);
  if (!event) return event.error();
  if (event->type == Type::ended) {
    // Whatever it is, the way back is a new list.
    version_.clear();
    return bad("the watch ended: " + event->message);
  }
  if (event->type != Type::bookmark) {
    const auto& [name, uid] = event->node;
    const bool deleted = event->type == Type::deleted;
    // A Node is modified every few seconds; only what the ledger may not know goes there.
    if (deleted || !seen_.contains(uid)) {
      const json::array changes = {change_of(name, uid, deleted, nullptr)};
      if (const Result<void> done = report(json::serialize(changes), options_.release_on_delete); !done)
        return done.error();
    }
    if (deleted)
      seen_.erase(uid);
    else
      seen_.insert(uid);
  }
  version_ = event->version;
  return {};
}

Result<void> NodeWatch::watch() {
  HttpsRequest request;
  request.target = "/api/v1/nodes?watch=1&allowWatchBookmarks=true&resourceVersion=" + encode(version_) +
                   "&timeoutSeconds=" + std::to_string(options_.watch_s);
  request.headers = {{"Accept", kWatchTypes}};
  Result<HttpsClient> client = connect(request);
  if (!client) return client.error();
  std::string line;
  Result<void> trouble;
  const auto on_body = [&](std::string_view piece) {
    while (trouble && !piece.empty()) {
      const auto end = piece.find('\n');
      line.append(piece.substr(0, end));
      if (line.size() > kMaxLine) trouble = bad("a watch event is longer than 16 MiB");
      if (end == std::string_view::npos) break;
      piece.remove_prefix(end + 1);
      if (trouble && !trim(line).empty()) trouble = take_event(line);
      line.clear();
    }
    return trouble.has_value() && !stopped();
  };
  const Result<HttpsResponse> response = client->stream(request, options_.silence, on_body);
  if (!trouble) return trouble.error();
  if (!response) return response.error();
  if (response->status == 200) return {};
  if (response->status == 410) version_.clear();
  return bad("GET /api/v1/nodes?watch=1: " + status_text(*response));
}

void NodeWatch::run() {
  auto pause = options_.shortest_pause;
  int failures = 0;
  while (!stopped()) {
    const auto begin = std::chrono::steady_clock::now();
    const bool lists = version_.empty();
    const std::string version = version_;
    const Result<void> done = lists ? list_once() : watch();
    const bool lasted = std::chrono::steady_clock::now() - begin > options_.longest_pause;
    // A watch that brought something before it broke is as good as one that ended.
    if (done || lasted || (!version_.empty() && version_ != version)) {
      if (failures > 0 && done) say(false, "it works again");
      pause = options_.shortest_pause;
      failures = 0;
    }
    if (done && lists) say(false, "all nodes are listed; watching");
    if (done && (lists || lasted)) continue;
    if (!done && !stopped()) {
      // Where the watch cannot be had back, a list tells more.
      if (++failures >= 3) version_.clear();
      say(true, done.error().message + (version_.empty() ? "; listing again" : "; watching again"));
    }
    const auto until = std::chrono::steady_clock::now() + pause;
    while (!stopped() && std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(std::min(pause, std::chrono::milliseconds(50)));
    if (!done) pause = std::min(pause * 2, options_.longest_pause);
  }
}

}  // namespace ledger::api
