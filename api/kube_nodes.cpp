#include "api/kube_nodes.h"

#include <boost/json.hpp>

#include "ledger/types.h"

namespace ledger::api {

namespace json = boost::json;

namespace {

using Type = KubeNodeEvent::Type;

Error bad(std::string what) { return {Errc::invalid, std::move(what)}; }

std::string text_at(const json::object& object, std::string_view key) {
  const json::value* found = object.if_contains(json::string_view(key.data(), key.size()));
  return found != nullptr && found->is_string() ? std::string(found->get_string()) : std::string();
}

const json::object* object_at(const json::object& object, std::string_view key) {
  const json::value* found = object.if_contains(json::string_view(key.data(), key.size()));
  return found != nullptr ? found->if_object() : nullptr;
}

json::value parse(std::string_view text, json::error_code& error) {
  return json::parse(json::string_view(text.data(), text.size()), error);
}

}  // namespace

Result<KubeNodePage> read_node_page(std::string_view body) {
  json::error_code error;
  const json::value value = parse(body, error);
  if (error || !value.is_object()) return bad("the list of nodes is not JSON");
  const json::object& page = value.get_object();
  const std::string kind = text_at(page, "kind");
  if (kind != "NodeList" && kind != "PartialObjectMetadataList")
    return bad("the answer is a '" + printable(kind, 60) + "', not a list of nodes");
  const json::object* metadata = object_at(page, "metadata");
  const json::value* items = page.if_contains("items");
  if (metadata == nullptr || text_at(*metadata, "resourceVersion").empty())
    return bad("the list of nodes has no resourceVersion");
  // Go writes an empty list as null.
  if (items == nullptr || (!items->is_array() && !items->is_null())) return bad("the list of nodes has no items");
  KubeNodePage read{
      .nodes = {}, .version = text_at(*metadata, "resourceVersion"), .next = text_at(*metadata, "continue")};
  if (items->is_null()) return read;
  for (const json::value& item : items->get_array()) {
    const json::object* about = item.is_object() ? object_at(item.get_object(), "metadata") : nullptr;
    KubeNode node;
    if (about != nullptr) node = {text_at(*about, "name"), text_at(*about, "uid")};
    if (node.name.empty() || node.uid.empty()) return bad("an item of the list of nodes has no name or uid");
    read.nodes.push_back(std::move(node));
  }
  return read;
}

Result<KubeNodeEvent> read_node_event(std::string_view line) {
  json::error_code error;
  const json::value value = parse(line, error);
  const json::object* event = error ? nullptr : value.if_object();
  const json::object* object = event != nullptr ? object_at(*event, "object") : nullptr;
  if (object == nullptr) return bad("a watch event cannot be read");
  const std::string type = text_at(*event, "type");
  KubeNodeEvent read;
  if (type == "ERROR") {
    read.type = Type::ended;
    read.message = printable(text_at(*object, "message"), 300);
    return read;
  }
  const json::object* metadata = object_at(*object, "metadata");
  if (metadata != nullptr) read.version = text_at(*metadata, "resourceVersion");
  if (read.version.empty()) return bad("a watch event has no resourceVersion");
  if (type == "BOOKMARK") return read;
  read.type = type == "DELETED" ? Type::deleted : Type::exists;
  read.node = {text_at(*metadata, "name"), text_at(*metadata, "uid")};
  const bool is_known = type == "DELETED" || type == "ADDED" || type == "MODIFIED";
  if (!is_known || read.node.name.empty() || read.node.uid.empty())
    return bad("a watch event of type '" + printable(type, 40) + "' has no name or uid, or is not known");
  return read;
}

}  // namespace ledger::api
