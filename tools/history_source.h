// Where a question about a node is answered from: the log of a data directory, a JSON Lines file, or a running server.
// One thread.
#pragma once

#include <fstream>
#include <memory>
#include <string>

#include "ledger/event_log.h"
#include "replay/agent_log.h"
#include "replay/history.h"
#include "replay/lookup.h"

namespace ledger::tools {

class HistorySource {
 public:
  struct Options {
    std::string data_dir;
    std::string input;   // not empty: this file, "-" for standard input
    std::string server;  // not empty: this server
    std::string archives{};  // of data_dir; empty: beside its log
  };
  static Result<HistorySource> open(const Options& options);

  Result<replay::LookedUp> look_up(const replay::Lookup& asked);
  Result<replay::History> history(const std::string& node, const replay::Cut& at);
  // Refusals without a name in the time of an agent's log; none where the source cannot be searched for them.
  Result<std::vector<Record>> nameless(const replay::AgentLog& log) const;
  // Names of the log that begin with `name` and a '-', as --with-node-id makes them; at most 5.
  std::vector<std::string> names_like(const std::string& name) const;

 private:
  Options options_;
  std::unique_ptr<EventLog> log_;
  std::ifstream file_;
};

}  // namespace ledger::tools
