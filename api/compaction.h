// A compaction of the log at an operator's request: in a thread of its own, one at a time.
// Threads: every call from one thread.
#pragma once

#include <atomic>
#include <boost/json/object.hpp>
#include <mutex>
#include <thread>

#include "ledger/ledger.h"

namespace ledger::api {

class Compaction {
 public:
  explicit Compaction(Ledger& ledger) : ledger_(ledger) {}
  Compaction(const Compaction&) = delete;
  Compaction& operator=(const Compaction&) = delete;
  ~Compaction();  // ends one that runs early

  // Starts one, unless one runs. What state() says then.
  boost::json::object start();
  // {"running","before","after","error"}: of the one that runs or ran last; `before` and `after` are bytes.
  boost::json::object state() const;

 private:
  void run();

  Ledger& ledger_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
  mutable std::mutex mutex_;  // guards what follows
  bool running_ = false;
  std::uint64_t before_ = 0, after_ = 0;
  std::string error_;
};

}  // namespace ledger::api
