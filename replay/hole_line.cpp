#include "replay/hole_line.h"

#include <boost/json.hpp>

namespace ledger::replay {

namespace json = boost::json;

namespace {

constexpr std::string_view kBegin = "{\"missing\":";
constexpr std::size_t kMaxReason = 1000;

Seq seq_at(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_int64() && value->get_int64() > 0 ? static_cast<Seq>(value->get_int64()) : 0;
}

}  // namespace

std::string hole_line(const Hole& hole) {
  json::object missing{{"seq", hole.seq}};
  if (hole.to != 0) missing["to"] = hole.to, missing["own"] = hole.own;
  missing["reason"] = printable(hole.reason, kMaxReason);
  return json::serialize(json::object{{"missing", std::move(missing)}}) + "\n";
}

std::optional<Hole> hole_from_line(std::string_view line) {
  if (!line.starts_with(kBegin)) return std::nullopt;
  json::error_code error;
  const json::value value = json::parse(json::string_view(line.data(), line.size()), error);
  const json::value* missing = !error && value.is_object() ? value.get_object().if_contains("missing") : nullptr;
  if (missing == nullptr || !missing->is_object()) return std::nullopt;
  const json::object& object = missing->get_object();
  const json::value* own = object.if_contains("own");
  const json::value* reason = object.if_contains("reason");
  Hole hole;
  hole.seq = seq_at(object, "seq"), hole.to = seq_at(object, "to");
  if (hole.seq == 0 || (hole.to != 0 && hole.to < hole.seq)) return std::nullopt;
  hole.after = hole.seq - 1;
  hole.own = own != nullptr && own->is_bool() && own->get_bool();
  if (reason != nullptr && reason->is_string()) hole.reason = printable(std::string_view(reason->get_string()), kMaxReason);
  return hole;
}

}  // namespace ledger::replay
