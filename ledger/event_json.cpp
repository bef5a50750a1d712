#include "ledger/event_json.h"

#include <boost/json.hpp>
#include <cmath>

namespace ledger {

namespace json = boost::json;

namespace {

// Seconds to the microsecond: what a text tells. Boost.JSON 1.81 reads numbers to the last bit but one; rounding to
// what was written makes the reading exact.
double to_microseconds(double seconds) {
  return std::abs(seconds) < 1e9 ? std::round(seconds * 1e6) / 1e6 : seconds;
}

// ---- writing ---------------------------------------------------------------------------------------------

class JsonWriter {
 public:
  explicit JsonWriter(json::object& out) : out_(out) {}

  void operator()(const char* key, const std::string& value) {
    if (!value.empty()) out_[key] = value;
  }
  void operator()(const char* key, const Fingerprint& value) { (*this)(key, value.text); }
  void operator()(const char* key, std::int64_t value) {
    if (value != 0 && !(value == 1 && std::string_view(key) == "count")) out_[key] = value;
  }
  void operator()(const char* key, double value) {
    if (std::isfinite(value)) out_[key] = to_microseconds(value);  // JSON has no infinity
  }
  void operator()(const char* key, const std::optional<double>& value) {
    if (value) (*this)(key, *value);
  }
  void operator()(const char* key, const std::optional<bool>& value) {
    if (value) out_[key] = *value;
  }
  void operator()(const char* key, const std::optional<std::int64_t>& value) {
    if (value) out_[key] = *value;
  }
  void operator()(const char* key, const std::optional<Time>& value) {
    if (value) out_[key] = value->to_string();
  }
  void operator()(const char* key, const std::vector<std::string>& value) {
    if (!value.empty()) out_[key] = json::array(value.begin(), value.end());
  }
  void operator()(const char* key, const Auth& value) {
    json::object inner;
    Auth::fields(value, JsonWriter(inner));
    if (!inner.empty()) out_[key] = std::move(inner);
  }

 private:
  json::object& out_;
};

// ---- reading ---------------------------------------------------------------------------------------------

constexpr std::size_t kMaxLineBytes = 1 << 20;
constexpr std::size_t kMaxTextBytes = 16 << 10;
constexpr std::size_t kMaxListItems = 256;

// Takes the fields it is asked for out of an object and remembers the first one that does not fit.
class JsonReader {
 public:
  JsonReader(const json::object& in, std::string prefix, std::string* problem)
      : in_(in), prefix_(std::move(prefix)), problem_(problem) {}

  void operator()(const char* key, std::string& value) {
    if (const json::value* found = find(key)) read_text(key, *found, value);
  }
  void operator()(const char* key, Fingerprint& value) { (*this)(key, value.text); }
  void operator()(const char* key, std::int64_t& value) {
    if (const json::value* found = find(key)) read_integer(key, *found, value);
  }
  void operator()(const char* key, std::optional<std::int64_t>& value) {
    if (const json::value* found = find(key)) read_integer(key, *found, value.emplace());
  }
  void operator()(const char* key, double& value) {
    std::optional<double> read;
    (*this)(key, read);
    if (read) value = *read;
  }
  void operator()(const char* key, std::optional<double>& value) {
    const json::value* found = find(key);
    if (found == nullptr) return;
    if (found->is_number() && std::isfinite(found->to_number<double>()))
      value = to_microseconds(found->to_number<double>());
    else
      wrong(key, "a number");
  }
  void operator()(const char* key, std::optional<bool>& value) {
    const json::value* found = find(key);
    if (found == nullptr) return;
    if (found->is_bool())
      value = found->get_bool();
    else
      wrong(key, "true or false");
  }
  void operator()(const char* key, std::optional<Time>& value) {
    std::string text;
    (*this)(key, text);
    if (text.empty()) return;
    const Result<Time> time = Time::parse(text);
    if (time)
      value = *time;
    else
      wrong(key, "an RFC 3339 time");
  }
  void operator()(const char* key, std::vector<std::string>& value) {
    const json::value* found = find(key);
    if (found == nullptr) return;
    if (!found->is_array() || found->get_array().size() > kMaxListItems) return wrong(key, "a list of strings");
    for (const json::value& item : found->get_array()) {
      std::string text;
      read_text(key, item, text);
      value.push_back(std::move(text));
    }
  }
  void operator()(const char* key, Auth& value) {
    const json::value* found = find(key);
    if (found == nullptr) return;
    if (!found->is_object()) return wrong(key, "an object");
    Auth::fields(value, JsonReader(found->get_object(), prefix_ + key + ".", problem_));
  }

 private:
  const json::value* find(const char* key) const {
    const json::value* found = in_.if_contains(key);
    return found != nullptr && !found->is_null() ? found : nullptr;
  }
  void read_integer(const char* key, const json::value& in, std::int64_t& out) {
    // A value that was made, not parsed, may hold a positive number as unsigned.
    if (in.is_int64())
      out = in.get_int64();
    else if (in.is_uint64() && in.get_uint64() <= INT64_MAX)
      out = static_cast<std::int64_t>(in.get_uint64());
    else
      wrong(key, "an integer");
  }
  void read_text(const char* key, const json::value& in, std::string& out) {
    if (!in.is_string() || in.get_string().size() > kMaxTextBytes) return wrong(key, "a string");
    out = printable(in.get_string(), kMaxTextBytes);
  }
  void wrong(const char* key, const char* wanted) {
    if (problem_->empty()) *problem_ = "field '" + prefix_ + key + "' is not " + wanted;
  }

  const json::object& in_;
  std::string prefix_;
  std::string* problem_;
};

Error invalid(std::string message) { return {Errc::invalid, std::move(message)}; }

}  // namespace

json::object to_json(const Record& record) {
  json::object out;
  out["seq"] = record.seq;
  if (record.time.known()) out["time"] = record.time.to_string();
  out["kind"] = name_of(record.kind());
  each_field(record, JsonWriter(out));
  std::visit([&](const auto& event) { each_field(event, JsonWriter(out)); }, record.event);
  return out;
}

std::string to_json_line(const Record& record) { return json::serialize(to_json(record)); }

Result<Record> record_from_json(std::string_view line) {
  if (line.size() > kMaxLineBytes) return invalid("the line is longer than 1 MiB");
  json::parse_options options;
  options.max_depth = 32;
  json::error_code error;
  const json::value value = json::parse(line, error, {}, options);
  if (error) return invalid("not JSON: " + error.message());
  if (!value.is_object()) return invalid("not a JSON object");
  return record_from_json(value.get_object());
}

Result<Record> record_from_json(const json::object& object) {
  std::string problem;
  JsonReader reader(object, "", &problem);

  std::string kind_name;
  reader("kind", kind_name);
  if (kind_name.empty() && problem.empty()) problem = "field 'kind' is missing";
  if (!problem.empty()) return invalid(problem);
  const std::optional<Kind> kind = kind_from_name(kind_name);
  if (!kind) return invalid("kind '" + printable(kind_name, 60) + "' is not one of docs/EVENTS.md");

  Record record;
  record.event = *make_event(static_cast<std::uint16_t>(*kind));
  std::int64_t seq = 0;
  reader("seq", seq);
  if (problem.empty() && seq < 1) problem = "field 'seq' is missing or not positive";
  record.seq = static_cast<Seq>(seq);

  std::optional<Time> time;
  reader("time", time);
  record.time = time.value_or(Time{});
  each_field(record, reader);
  std::visit([&](auto& event) { each_field(event, reader); }, record.event);
  if (!problem.empty()) return invalid(problem);
  if (record.count < 1) return invalid("field 'count' is not positive");
  record.node = to_lower(record.node);
  return record;
}

}  // namespace ledger
