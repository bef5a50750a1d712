#include "replay/lookup.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <map>

#include "ledger/event_json.h"
#include "ledger/journal.h"
#include "replay/rows.h"

namespace ledger::replay {

namespace json = boost::json;

namespace {

constexpr std::size_t kRecords = 100;
constexpr std::size_t kNodes = 16;
constexpr std::size_t kNeighbours = 2000;  // records of the address that are looked at

Error not_there(const Lookup& asked) {
  if (asked.seq) return {Errc::not_found, "there is no record " + std::to_string(*asked.seq)};
  return {Errc::not_found, "no record has the request id '" + printable(asked.request_id, 60) +
                               "'; outcomes that repeat are counted and keep no id of their own: ask with the Ledger-Seq "
                               "of the same reply (--seq), or for the node (--node)"};
}

void name_nodes(LookedUp& found) {
  for (const Record& record : found.records)
    if (!record.node.empty() && found.nodes.empty()) found.nodes.push_back(record.node);
  found.named = !found.nodes.empty();
}

std::string address_of(const LookedUp& found) {
  for (const Record& record : found.records)
    if (!record.source.empty()) return std::string(host_of(record.source));
  return {};
}

// The last seq of each name, as names in the order of the latest.
std::vector<std::string> latest_first(const std::map<std::string, Seq>& last) {
  std::vector<std::pair<Seq, std::string>> order;
  for (const auto& [name, seq] : last) order.emplace_back(seq, name);
  std::sort(order.rbegin(), order.rend());
  std::vector<std::string> names;
  for (const auto& [seq, name] : order)
    if (names.size() < kNodes) names.push_back(name);
  return names;
}

}  // namespace

Result<LookedUp> look_up(const EventLog& log, const Lookup& asked) {
  LookedUp found;
  std::string request_id = asked.request_id;
  if (asked.seq) {
    Result<Record> record = log.read(*asked.seq);
    if (!record) return record.error();
    request_id = record->request_id;
    if (request_id.empty()) found.records.push_back(std::move(*record));
  }
  if (!request_id.empty()) {
    const Result<std::vector<Seq>> seqs = log.find(Index::request, request_id, 1, UINT64_MAX, kRecords);
    if (!seqs) return seqs.error();
    for (const Seq seq : *seqs) {
      Result<Record> record = log.read(seq);
      if (record) found.records.push_back(std::move(*record));
      else if (record.error().code == Errc::io || record.error().code == Errc::archived) return record.error();
    }
  }
  if (found.records.empty()) return not_there(asked);
  name_nodes(found);
  const std::string address = address_of(found);
  if (found.named || address.empty()) return found;
  std::map<std::string, Seq> last;
  const Result<std::vector<Seq>> near = log.find(Index::address, address, 1, UINT64_MAX, kNeighbours);
  if (!near) return near.error();
  for (const Seq seq : *near)
    if (const Result<Record> record = log.read(seq); record && !record->node.empty()) last[record->node] = seq;
  found.nodes = latest_first(last);
  return found;
}

namespace {

template <class Visit>
void each_record(std::istream& in, Visit&& visit) {
  in.clear();
  in.rdbuf()->pubseekpos(0);
  LineReader lines(in);
  for (std::string line; lines.next(line);) {
    if (trim(line).empty()) continue;
    Result<Record> record = record_from_json(line);
    if (record) visit(std::move(*record));
  }
}

}  // namespace

Result<LookedUp> look_up(std::istream& lines, const Lookup& asked) {
  LookedUp found;
  std::string request_id = asked.request_id;
  if (asked.seq) {
    each_record(lines, [&](Record record) {
      if (record.seq != *asked.seq || !found.records.empty()) return;
      request_id = record.request_id;
      found.records.push_back(std::move(record));
    });
    if (found.records.empty()) return not_there(asked);
    if (!request_id.empty()) found.records.clear();
  }
  std::map<std::string, std::map<std::string, Seq>, std::less<>> by_address;
  each_record(lines, [&](Record record) {
    if (!record.node.empty() && !record.source.empty())
      by_address[std::string(host_of(record.source))][record.node] = record.seq;
    if (!request_id.empty() && record.request_id == request_id && found.records.size() < kRecords)
      found.records.push_back(std::move(record));
  });
  if (found.records.empty()) return not_there(asked);
  std::stable_sort(found.records.begin(), found.records.end(),
                   [](const Record& a, const Record& b) { return a.seq < b.seq; });
  name_nodes(found);
  if (!found.named) found.nodes = latest_first(by_address[address_of(found)]);
  return found;
}

json::object to_json(const LookedUp& found) {
  json::object out;
  json::array& records = out["records"].emplace_array();
  for (const Record& record : found.records) records.push_back(ledger::to_json(record));
  out["nodes"] = json::array(found.nodes.begin(), found.nodes.end());
  out["named"] = found.named;
  return out;
}

Result<LookedUp> looked_up_from_json(std::string_view text) {
  const Error bad{Errc::invalid, "the server's answer about the request cannot be read; is it of another version?"};
  json::error_code error;
  const json::value value = json::parse(json::string_view(text.data(), text.size()), error);
  const json::object* object = error ? nullptr : value.if_object();
  const json::value* records = object != nullptr ? object->if_contains("records") : nullptr;
  const json::value* nodes = object != nullptr ? object->if_contains("nodes") : nullptr;
  if (records == nullptr || !records->is_array() || nodes == nullptr || !nodes->is_array()) return bad;
  LookedUp found;
  for (const json::value& item : records->get_array()) {
    Result<Record> record = record_from_json(json::serialize(item));
    if (!record) return record.error();
    found.records.push_back(std::move(*record));
  }
  for (const json::value& name : nodes->get_array())
    if (name.is_string()) found.nodes.emplace_back(name.get_string());
  const json::value* named = object->if_contains("named");
  found.named = named != nullptr && named->is_bool() && named->get_bool();
  if (found.records.empty()) return bad;
  return found;
}

namespace {

std::string why_of(const Record& record) {
  if (const auto* e = as<TokenRejected>(record)) return printable(e->reason, 40);
  if (const auto* e = as<RequestRejected>(record)) return printable(e->reason, 40);
  if (const auto* e = as<TlsFailed>(record)) return printable(e->alert, 40);
  return {};
}

}  // namespace

std::string to_text(const LookedUp& found) {
  std::string out;
  for (const Record& record : found.records) {
    out += fmt::format("record {:<7}  {:<20}  {:<18}", record.seq, clock_text(record.time), name_of(record.kind()));
    if (!record.node.empty()) out += "  " + printable(record.node, 80);
    if (const std::string why = why_of(record); !why.empty()) out += "  " + why;
    if (!record.source.empty()) out += "  from " + printable(host_of(record.source), 45);
    if (record.count > 1) out += fmt::format("  stands for {}", record.count);
    out += "\n";
  }
  if (found.named) return out;
  out += "no node is named";
  if (found.nodes.empty()) return out + ", and none came from the same address\n";
  out += "; from the same address came:";
  for (const std::string& name : found.nodes) out += " " + printable(name, 80);
  return out + "\n";
}

}  // namespace ledger::replay
