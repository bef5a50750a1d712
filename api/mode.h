// Who decides: this server alone, the upstream k3s server while this one watches, or this one in front of it. And the
// change from one to the other while agents register.
//
// A registration is begun and ended in one mode. A change waits for those under way; who comes meanwhile waits for the
// change. So no name is bound by two servers that do not know of each other: what the upstream decided is in our log
// before we decide, and what we decided is settled before it does.
//
// The mode is a fold of the log: the newest mode_changed. Threads: every call from any thread; change() blocks.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "ledger/types.h"

namespace ledger::api {

enum class Mode { alone, observe, enforce };
std::string_view name_of(Mode mode);
std::optional<Mode> mode_named(std::string_view name);

class ModeSwitch {
 public:
  explicit ModeSwitch(Mode mode) : mode_(mode) {}

  Mode mode() const;

  // Held until the reply to a registration has been handed over.
  using Ticket = std::shared_ptr<void>;
  // Calls `work` at once; during a change, when it is over, on that thread. False: too many wait, it is not called.
  using Work = std::function<void(Mode, Ticket)>;
  bool enter(Work work);

  // From now on `to`, if `record` succeeds, which is called when nothing is under way. Errc::overloaded: what is under
  // way did not end within `patience`, and nothing has changed; Errc::conflict: another change is under way.
  // Returns how long it took.
  Result<std::chrono::milliseconds> change(Mode to, const std::function<Result<void>()>& record,
                                           std::chrono::milliseconds patience);

 private:
  Ticket ticket();
  void leave();

  mutable std::mutex mutex_;
  std::condition_variable ended_;
  // Guarded by mutex_.
  Mode mode_;
  bool changing_ = false;
  std::size_t under_way_ = 0;
  std::deque<Work> waiting_;
};

}  // namespace ledger::api
