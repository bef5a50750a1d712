// The log of a data directory as it grows, for commands that follow it beside a running server, a stopped one, or one
// that is started anew meanwhile. One thread.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "ledger/event_log.h"

namespace ledger::tools {

class FollowedLog {
 public:
  static Result<FollowedLog> open(const std::string& data_dir);

  // Brings the log up to date. Fails when that has failed several times, or when there is another log in the directory.
  Result<void> catch_up();
  // What can be seen of the log now is on the disk when this returns. For who acts on records beyond recall: those of
  // the latest batch may be visible a moment before their writer has synced them.
  Result<void> sync() const;

  const EventLog& log() const { return *log_; }

 private:
  FollowedLog(std::filesystem::path dir, std::unique_ptr<EventLog> log);
  std::filesystem::path dir_;
  std::string id_;
  std::unique_ptr<EventLog> log_;
  int failures_ = 0;
};

}  // namespace ledger::tools
