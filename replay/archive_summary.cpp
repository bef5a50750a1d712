#include "replay/archive_summary.h"

namespace ledger::replay {

namespace json = boost::json;

namespace {

json::object archive_object(const ArchiveStatus& status) {
  const ArchiveTable::Archive& archive = status.archive;
  const std::string_view state = name_of(status.where);
  json::object out{{"file", archive_name(archive.from, archive.to)},
                   {"from", archive.from},
                   {"to", archive.to},
                   {"state", json::string_view(state.data(), state.size())},
                   {"here", status.is_here}};
  if (!status.is_here) out["problem"] = status.problem;
  if (status.first_time.known()) out["first_time"] = status.first_time.to_string();
  if (status.last_time.known()) out["last_time"] = status.last_time.to_string();
  if (status.is_here) out["bytes"] = status.file_bytes, out["unpacked"] = status.raw_bytes;
  out["sha256"] = archive.sha256;
  out["sealed"] = {{"seq", archive.sealed}, {"time", archive.sealed_at.to_string()}};
  if (archive.removed != 0) out["removed"] = {{"seq", archive.removed}, {"actor", archive.removed_by}};
  out["holds"] = json::array(status.holds.begin(), status.holds.end());
  return out;
}

json::object hold_object(const LegalHold& hold) {
  json::object out{{"id", hold.id}, {"covers", hold.covers()}};
  if (!hold.node.empty()) out["node"] = hold.node;
  if (hold.from != 0) out["from"] = hold.from;
  if (hold.to != 0) out["to"] = hold.to;
  if (hold.since) out["since"] = hold.since->to_string();
  if (hold.until) out["until"] = hold.until->to_string();
  out["actor"] = hold.actor;
  out["reason"] = hold.reason;
  out["placed"] = {{"seq", hold.placed}, {"time", hold.time.to_string()}};
  return out;
}

}  // namespace

Result<json::object> list_archives(const EventLog& log) {
  const Result<ArchiveTable> table = ArchiveTable::read(log);
  if (!table) return table.error();
  const Result<std::vector<ArchiveStatus>> list = ledger::list_archives(log, *table);
  if (!list) return list.error();
  json::object out;
  json::array& archives = out["archives"].emplace_array();
  for (const ArchiveStatus& status : *list) archives.push_back(archive_object(status));
  json::array& holds = out["holds"].emplace_array();
  for (const auto& [id, hold] : table->holds) holds.push_back(hold_object(hold));
  out["stored_bytes"] = log.stored_bytes();
  return out;
}

json::object to_json(const Archivist::Sealed& sealed) {
  return {{"file", sealed.file},
          {"from", sealed.from},
          {"to", sealed.to},
          {"sha256", sealed.sha256},
          {"bytes", sealed.file_bytes},
          {"unpacked", sealed.raw_bytes},
          {"seq", sealed.record},
          {"holds", json::array(sealed.holds.begin(), sealed.holds.end())}};
}

}  // namespace ledger::replay
