// Refusals that were answered while nothing could be recorded (the queue was full, the disk nearly): counted when
// they happen, made records when there is room. Which nodes asked is kept, by name and address, for the first 256 of
// them between two take(); of the rest only how many there were. The names are claims: nobody looked at who asked.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "ledger/event.h"

namespace ledger {

class Unrecorded {
 public:
  Unrecorded(std::int64_t status, std::string reason) : status_(status), reason_(std::move(reason)) {}

  // The request that would have made these records was refused at `now`.
  void count(const std::vector<Record>& records, Time now);
  // What was counted since the last call, as request_rejected without seq.
  std::vector<Record> take();

 private:
  struct Count {
    std::int64_t refusals = 0;
    Time first, last;
  };

  const std::int64_t status_;
  const std::string reason_;
  std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, Count> counts_;  // by node and address; both empty: not known
};

}  // namespace ledger
