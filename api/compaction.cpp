#include "api/compaction.h"

namespace ledger::api {

Compaction::~Compaction() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

boost::json::object Compaction::start() {
  {
    const std::lock_guard lock(mutex_);
    if (!running_) {
      if (thread_.joinable()) thread_.join();  // has nothing left to do
      running_ = true;
      before_ = ledger_.log().disk_bytes();
      after_ = 0;
      error_.clear();
      thread_ = std::thread([this] { run(); });
    }
  }
  return state();
}

void Compaction::run() {
  const Result<void> done = ledger_.compact(stop_);
  const std::uint64_t after = ledger_.log().disk_bytes();
  const std::lock_guard lock(mutex_);
  running_ = false;
  after_ = after;
  if (!done) error_ = done.error().message;
}

boost::json::object Compaction::state() const {
  const std::lock_guard lock(mutex_);
  boost::json::object state{{"running", running_}, {"before", before_}, {"after", after_}};
  if (!error_.empty()) state["error"] = error_;
  return state;
}

}  // namespace ledger::api
