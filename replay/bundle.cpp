#include "replay/bundle.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <set>

#include "ledger/credentials.h"
#include "ledger/hex.h"
#include "replay/audit_format.h"

namespace ledger::replay {
namespace {

namespace json = boost::json;

constexpr std::string_view kFormat = "ledger/bundle@v1";
constexpr std::size_t kMaxFiles = 32;
constexpr std::size_t kHexHash = 64;

Error wrong(const std::string& what) { return {Errc::invalid, what}; }

json::value value_of(std::string_view text) { return json::value(json::string_view(text.data(), text.size())); }

json::object to_json(const TreeHead& head) { return {{"size", head.size}, {"root", to_hex(view_of(head.root))}}; }

json::object to_json(const BundleFile& file) {
  return {{"name", file.name}, {"size", file.size}, {"sha256", file.sha256}};
}

// Takes the fields of an object one after the other; the first that is wrong is told.
class Fields {
 public:
  explicit Fields(const json::value& value) : object_(value.if_object()) {
    if (object_ == nullptr) fault_ = "is no object";
  }

  std::string text(const char* key) {
    const json::value* found = find(key);
    if (found != nullptr && found->is_string()) return std::string(found->get_string());
    return blame(key), "";
  }
  std::uint64_t number(const char* key) {
    const json::value* found = find(key);
    if (found != nullptr && found->is_int64() && found->get_int64() >= 0)
      return static_cast<std::uint64_t>(found->get_int64());
    return blame(key), 0;
  }
  bool boolean(const char* key) {
    const json::value* found = find(key);
    if (found != nullptr && found->is_bool()) return found->get_bool();
    return blame(key), false;
  }
  const json::value* any(const char* key) {
    const json::value* found = find(key);
    if (found == nullptr) blame(key);
    return found;
  }
  const json::value* find(const char* key) const {
    return object_ == nullptr ? nullptr : object_->if_contains(key);
  }
  void blame(const std::string& key) {
    if (fault_.empty()) fault_ = "has no " + key + ", or not of the right type";
  }
  const std::string& fault() const { return fault_; }

 private:
  const json::object* object_;
  std::string fault_;
};

std::optional<std::string> bytes_of_hex(std::string_view hex) {
  if (!is_hex(hex, kHexHash)) return std::nullopt;
  return from_hex(hex);
}

std::optional<TreeHead> head_of(const json::value& value) {
  Fields fields(value);
  TreeHead head;
  head.size = fields.number("size");
  const std::optional<std::string> root = bytes_of_hex(fields.text("root"));
  if (!fields.fault().empty() || !root) return std::nullopt;
  head.root = *tree_hash_from(*root);
  return head;
}

Time time_of(Fields& fields, const char* key) {
  const std::string text = fields.text(key);
  if (text.empty()) return {};
  const Result<Time> time = Time::parse(text);
  if (!time) fields.blame(key);
  return time ? *time : Time{};
}

bool read_files(const json::value* value, std::vector<BundleFile>& files) {
  const json::array* list = value == nullptr ? nullptr : value->if_array();
  if (list == nullptr || list->size() > kMaxFiles) return false;
  for (const json::value& item : *list) {
    Fields fields(item);
    BundleFile file{fields.text("name"), fields.number("size"), fields.text("sha256")};
    const bool known = is_large_bundle_file(file.name).has_value() && file.name != kBundleManifest &&
                       file.name != kBundleManifestNote;
    if (!fields.fault().empty() || !known || !bytes_of_hex(file.sha256)) return false;
    if (!files.empty() && files.back().name >= file.name) return false;
    files.push_back(std::move(file));
  }
  return true;
}

bool read_kinds(const json::value* value, std::map<std::string, std::uint64_t>& kinds) {
  const json::object* object = value == nullptr ? nullptr : value->if_object();
  if (object == nullptr) return false;
  for (const auto& [key, count] : *object) {
    if (!count.is_int64() || count.get_int64() < 1) return false;
    kinds.emplace(std::string(key), static_cast<std::uint64_t>(count.get_int64()));
  }
  return true;
}

bool read_redacted(const json::value* value, std::vector<std::string>& redacted) {
  const json::array* list = value == nullptr ? nullptr : value->if_array();
  if (list == nullptr || list->size() > 2) return false;
  for (const json::value& item : *list) {
    if (!item.is_string()) return false;
    redacted.emplace_back(item.get_string());
    if (redacted.back() != "names" && redacted.back() != "addresses") return false;
  }
  return true;
}

// What a manifest must say to make sense.
std::string fault_of(const Manifest& manifest) {
  if (manifest.from == 0 || manifest.to < manifest.from) return "its range is none";
  if (manifest.checkpoint.size < manifest.to) return "its checkpoint does not cover its last record";
  if (manifest.records == 0) return "it has no records";
  if (manifest.complete() && manifest.records != manifest.to - manifest.from + 1)
    return "its range has " + std::to_string(manifest.to - manifest.from + 1) + " records, it says " +
           std::to_string(manifest.records);
  std::vector<std::string_view> needed = {kBundleReadme, kBundleSums, kBundleCheckpoint, kBundleKey, kBundleLines};
  if (manifest.proves()) needed.insert(needed.end(), {kBundleRecords, kBundleProof});
  if (manifest.previous) needed.push_back(kBundleConsistency);
  for (const std::string_view name : needed)
    if (manifest.find(name) == nullptr) return "it does not list " + std::string(name);
  const auto extra = std::count_if(manifest.files.begin(), manifest.files.end(), [](const BundleFile& file) {
    return is_large_bundle_file(file.name) == true && file.name != kBundleRecords && file.name != kBundleProof &&
           file.name != kBundleLines;
  });
  if (extra > 1) return "it lists more than one further format";
  if (!manifest.proves() && (manifest.find(kBundleRecords) != nullptr || manifest.find(kBundleProof) != nullptr))
    return "it is redacted and lists stored records";
  if (!manifest.proves() && !manifest.is_signed) return "it is redacted and not signed";
  if (!manifest.previous && manifest.find(kBundleConsistency) != nullptr)
    return "it lists consistency.proof and names no earlier checkpoint";
  return "";
}

}  // namespace

std::optional<bool> is_large_bundle_file(std::string_view name) {
  static const std::set<std::string, std::less<>> kSmall = {
      std::string(kBundleReadme),      std::string(kBundleSums),     std::string(kBundleCheckpoint),
      std::string(kBundleKey),         std::string(kBundleManifest), std::string(kBundleManifestNote),
      std::string(kBundleConsistency),
  };
  if (kSmall.contains(name)) return false;
  if (name == kBundleRecords || name == kBundleProof || name == kBundleLines) return true;
  for (const std::string& format : audit_format_names())
    if (name == extra_file_of(format)) return true;
  return std::nullopt;
}

std::string extra_file_of(std::string_view format) { return "records." + std::string(format); }

const BundleFile* Manifest::find(std::string_view name) const {
  const auto found =
      std::find_if(files.begin(), files.end(), [&](const BundleFile& file) { return file.name == name; });
  return found == files.end() ? nullptr : &*found;
}

// One field per line, in this order: for people, and for those who compare two.
std::string manifest_text(const Manifest& manifest) {
  json::object kinds;
  for (const auto& [kind, count] : manifest.kinds) kinds[kind] = count;
  json::array redacted;
  for (const std::string& what : manifest.redacted) redacted.push_back(json::value(what));
  std::string text = "{\n";
  const auto say = [&text](const char* key, const json::value& value) {
    text += fmt::format("  \"{}\": {},\n", key, json::serialize(value));
  };
  say("format", value_of(kFormat));
  say("ledger", value_of(manifest.ledger));
  say("made_by", value_of(manifest.made_by));
  say("program", value_of(manifest.program));
  say("from", manifest.from);
  say("to", manifest.to);
  say("first_time", value_of(manifest.first_time.known() ? manifest.first_time.to_string() : ""));
  say("last_time", value_of(manifest.last_time.known() ? manifest.last_time.to_string() : ""));
  say("records", manifest.records);
  say("kinds", kinds);
  say("complete", manifest.complete());
  say("filter", value_of(manifest.filter));
  say("redacted", redacted);
  say("checkpoint", to_json(manifest.checkpoint));
  say("previous", manifest.previous ? json::value(to_json(*manifest.previous)) : json::value(nullptr));
  say("signed", manifest.is_signed);
  text += "  \"files\": [\n";
  for (std::size_t i = 0; i < manifest.files.size(); ++i)
    text += "    " + json::serialize(to_json(manifest.files[i])) + (i + 1 < manifest.files.size() ? ",\n" : "\n");
  return text + "  ]\n}\n";
}

Result<Manifest> parse_manifest(std::string_view text) {
  if (text.size() > kMaxSmallFile) return wrong("it is longer than 1 MiB");
  json::error_code error;
  const json::value value = json::parse(json::string_view(text.data(), text.size()), error);
  if (error) return wrong("it is no JSON: " + error.message());
  Fields fields(value);
  if (const std::string format = fields.text("format"); fields.fault().empty() && format != kFormat)
    return wrong("its format is " + printable(format, 40) + "; this program knows " + std::string(kFormat));
  Manifest manifest;
  manifest.ledger = fields.text("ledger");
  manifest.made_by = fields.text("made_by");
  manifest.program = fields.text("program");
  manifest.from = fields.number("from");
  manifest.to = fields.number("to");
  manifest.first_time = time_of(fields, "first_time");
  manifest.last_time = time_of(fields, "last_time");
  manifest.records = fields.number("records");
  manifest.filter = fields.text("filter");
  manifest.is_signed = fields.boolean("signed");
  if (!read_kinds(fields.any("kinds"), manifest.kinds)) fields.blame("kinds");
  if (!read_redacted(fields.any("redacted"), manifest.redacted)) fields.blame("redacted");
  if (!read_files(fields.any("files"), manifest.files)) fields.blame("files");
  const json::value* checkpoint = fields.any("checkpoint");
  const std::optional<TreeHead> head = checkpoint != nullptr ? head_of(*checkpoint) : std::nullopt;
  if (!head) fields.blame("checkpoint");
  manifest.checkpoint = head.value_or(TreeHead{});
  if (const json::value* previous = fields.any("previous"); previous != nullptr && !previous->is_null()) {
    manifest.previous = head_of(*previous);
    if (!manifest.previous) fields.blame("previous");
  }
  if (!fields.fault().empty()) return wrong("it " + fields.fault());
  if (const std::string fault = fault_of(manifest); !fault.empty()) return wrong(fault);
  if (manifest_text(manifest) != text) return wrong("it is not written as `ledger export --bundle` writes it");
  return manifest;
}

std::string sums_text(const Manifest& manifest) {
  std::string text;
  for (const BundleFile& file : manifest.files)
    if (file.name != kBundleSums) text += file.sha256 + "  " + file.name + "\n";
  return text;
}

std::string manifest_note_text(const Manifest& manifest, std::string_view sha256) {
  return fmt::format("ledger/bundle-manifest@v1\n{}\nsha256 {}\n", origin_of(manifest.ledger), sha256);
}

std::string frame_of(Seq seq, std::string_view record) {
  std::string bytes;
  for (int shift = 56; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(seq >> shift & 0xff));
  for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(record.size() >> shift & 0xff));
  return bytes.append(record);
}

RecordFrame parse_frame(std::string_view bytes) {
  RecordFrame frame;
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(bytes[i]); };
  for (std::size_t i = 0; i < 8; ++i) frame.seq = frame.seq << 8 | byte(i);
  for (std::size_t i = 8; i < RecordFrame::kSize; ++i) frame.length = frame.length << 8 | byte(i);
  return frame;
}

}  // namespace ledger::replay
