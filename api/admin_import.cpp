// POST /ledger/v1/import/<what>: entries that `ledger import` has read from a file, a part of them at a time.
// JSON Lines: first {"actor","file","overwrite"}, and with the last part {"finish":true,"used","left_out"} in it;
// then one entry per line (ledger/import.h). docs/HTTP_API.md, "For operators".

#include <boost/json.hpp>

#include "api/admin.h"
#include "api/problem.h"
#include "ledger/hex.h"
#include "ledger/import.h"

namespace ledger::api {

namespace json = boost::json;

namespace {

struct Header {
  std::string actor, file;
  bool overwrite = false, finish = false;
  std::int64_t used = 0, left_out = 0;
};

bool is_count(const json::value& value) { return value.is_int64() && value.get_int64() >= 0; }

Result<Header> parse_header(std::string_view line) {
  json::error_code error;
  const json::value value = json::parse(json::string_view(line.data(), line.size()), error);
  const json::object* object = error ? nullptr : value.if_object();
  if (object == nullptr) return Error{Errc::invalid, "the first line must be a JSON object with actor and file"};
  Header header;
  for (const auto& [key, item] : *object) {
    if (key == "actor" && item.is_string())
      header.actor = printable(std::string_view(item.get_string()), 200);
    else if (key == "file" && item.is_string())
      header.file = item.get_string();
    else if (key == "overwrite" && item.is_bool())
      header.overwrite = item.get_bool();
    else if (key == "finish" && item.is_bool())
      header.finish = item.get_bool();
    else if (key == "used" && is_count(item))
      header.used = item.get_int64();
    else if (key == "left_out" && is_count(item))
      header.left_out = item.get_int64();
    else
      return Error{Errc::invalid, "field '" + printable(std::string_view(key.data(), key.size()), 60) +
                                      "' of the first line is unknown or of the wrong type"};
  }
  if (header.actor.empty() || !is_hex(header.file, 64))
    return Error{Errc::invalid, "the first line must say actor, and file (a SHA-256 in hex)"};
  return header;
}

std::string_view take_line(std::string_view& text) {
  const auto end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

json::object to_json(const ImportOutcome& outcome) {
  json::array left_out;
  for (const LeftOut& one : outcome.left_out)
    left_out.push_back(json::object{{"line", one.line}, {"node", one.node}, {"why", one.why}});
  return {{"used", outcome.used}, {"known", outcome.known}, {"left_out", std::move(left_out)}};
}

}  // namespace

Response Admin::import_entries(const Request& request, std::string_view what) {
  if (request.method != "POST") return to_response(method_not_allowed("POST"));
  const std::optional<ImportKind> kind = import_kind_from(what);
  if (!kind) return to_response(not_found(request.path));
  if (hashes_ == nullptr) return to_response(problem_of(Error{Errc::unavailable, "this server cannot import"}));
  std::string_view body = request.body;
  const Result<Header> header = parse_header(take_line(body));
  if (!header) return to_response(problem_of(header.error()));
  std::vector<ImportEntry> entries;
  for (std::size_t number = 2; !body.empty(); ++number) {
    const std::string_view line = take_line(body);
    if (line.empty()) continue;
    Result<ImportEntry> entry = import_entry_from_json(*kind, line);
    if (!entry)  // nothing of the part is written
      return to_response(problem_of(
          Error{entry.error().code, "line " + std::to_string(number) + " of the body: " + entry.error().message}));
    entries.push_back(std::move(*entry));
  }
  // Kept from part to part: what it has looked up of the log is worth keeping.
  const bool goes_on = importer_ != nullptr && importer_->options().kind == *kind &&
                       importer_->options().file == header->file && importer_->options().actor == header->actor &&
                       importer_->options().overwrite == header->overwrite;
  if (!goes_on)
    importer_ = std::make_unique<Importer>(ledger_, hashes_->store(),
                                           Importer::Options{.kind = *kind,
                                                             .file = header->file,
                                                             .actor = header->actor,
                                                             .overwrite = header->overwrite,
                                                             .request_id = request.id,
                                                             .source = request.source});
  const Result<ImportOutcome> outcome = importer_->add(entries);
  if (!outcome) return to_response(problem_of(outcome.error()));
  json::object answer = to_json(*outcome);
  if (header->finish) {
    const auto left_out = static_cast<std::int64_t>(outcome->left_out.size());
    const Result<Committed> finished = importer_->finish(header->used + outcome->used + outcome->known,
                                                         header->left_out + left_out);
    importer_.reset();
    if (!finished) return to_response(problem_of(finished.error()));
    answer["seq"] = finished->last();
  }
  Response response;
  response.content_type = "application/json";
  response.body = json::serialize(answer) + "\n";
  return response;
}

}  // namespace ledger::api
