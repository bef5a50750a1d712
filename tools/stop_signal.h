// SIGINT and SIGTERM for commands that go on until they are told to stop. One per process; the thread that made it waits.
#pragma once

#include <atomic>
#include <chrono>
#include <string_view>

namespace ledger::tools {

class StopSignal {
 public:
  StopSignal();  // the two signals mean this from now on, for the rest of the process
  // True from the first signal on. For what looks at it while it waits by itself.
  const std::atomic<bool>& asked() const;
  // Waits; ends at once on a signal. With `watch_stdout` also when nobody reads standard output any more, and then, as
  // after a signal, it is false: time to end.
  bool wait(std::chrono::milliseconds time, bool watch_stdout = false) const;
  // Writes all of it to standard output, past stdio. False: a signal came before its reader took it, or errno says why.
  bool write_stdout(std::string_view text) const;
};

}  // namespace ledger::tools
