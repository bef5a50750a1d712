#include "ledger/unrecorded.h"

namespace ledger {
namespace {

constexpr std::size_t kMaxNames = 256;

// The node that asked, and from where; nobody where it was no request of an agent's.
std::pair<std::string, std::string> asker_of(const std::vector<Record>& records) {
  if (records.empty()) return {};
  const Kind first = records.front().kind();
  if (first != Kind::token_accepted && !is_refusal(first)) return {};
  for (const Record& record : records)
    if (!record.node.empty()) return {record.node, std::string(host_of(record.source))};
  return {};
}

}  // namespace

void Unrecorded::count(const std::vector<Record>& records, Time now) {
  std::pair<std::string, std::string> asker = asker_of(records);
  const std::lock_guard lock(mutex_);
  if (counts_.size() >= kMaxNames && !counts_.contains(asker)) asker = {};
  Count& count = counts_[std::move(asker)];
  if (count.refusals++ == 0) count.first = now;
  count.last = now;
}

std::vector<Record> Unrecorded::take() {
  std::map<std::pair<std::string, std::string>, Count> counts;
  {
    const std::lock_guard lock(mutex_);
    counts.swap(counts_);
  }
  std::vector<Record> records;
  for (const auto& [asker, count] : counts) {
    Record record;
    record.event = RequestRejected{.status = status_, .reason = reason_};
    record.node = asker.first;
    record.source = asker.second;
    record.count = count.refusals;
    record.time = count.last;
    if (count.refusals > 1) record.first_time = count.first;
    record.note = "counted while they could not be recorded one by one";
    if (!record.node.empty()) record.note += "; the name is claimed, nobody looked at who asked";
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace ledger
