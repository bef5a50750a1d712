#include "api/mode.h"

namespace ledger::api {

namespace {

constexpr std::size_t kMostWaiting = 8192;

}  // namespace

std::string_view name_of(Mode mode) {
  switch (mode) {
    case Mode::alone: return "alone";
    case Mode::observe: return "observe";
    case Mode::enforce: return "enforce";
  }
  fatal("a Mode without a name");
}

std::optional<Mode> mode_named(std::string_view name) {
  for (const Mode mode : {Mode::alone, Mode::observe, Mode::enforce})
    if (name == name_of(mode)) return mode;
  return std::nullopt;
}

Mode ModeSwitch::mode() const {
  const std::lock_guard lock(mutex_);
  return mode_;
}

// Under the mutex.
ModeSwitch::Ticket ModeSwitch::ticket() {
  ++under_way_;
  return Ticket(this, [](ModeSwitch* self) { self->leave(); });
}

void ModeSwitch::leave() {
  const std::lock_guard lock(mutex_);
  --under_way_;
  if (under_way_ == 0) ended_.notify_all();
}

bool ModeSwitch::enter(Work work) {
  Ticket held;
  Mode now;
  {
    const std::lock_guard lock(mutex_);
    if (changing_) {
      if (waiting_.size() >= kMostWaiting) return false;
      waiting_.push_back(std::move(work));
      return true;
    }
    now = mode_;
    held = ticket();
  }
  work(now, std::move(held));
  return true;
}

Result<std::chrono::milliseconds> ModeSwitch::change(Mode to, const std::function<Result<void>()>& record,
                                                     std::chrono::milliseconds patience) {
  const auto began = std::chrono::steady_clock::now();
  Result<void> changed;
  std::deque<std::pair<Work, Ticket>> released;
  Mode now;
  {
    std::unique_lock lock(mutex_);
    if (changing_) return Error{Errc::conflict, "another change of the mode is under way"};
    changing_ = true;
    if (!ended_.wait_for(lock, patience, [this] { return under_way_ == 0; })) {
      changed = Error{Errc::overloaded, "registrations that began in the mode " + std::string(name_of(mode_)) +
                                            " are still under way (" + std::to_string(under_way_) +
                                            "): the upstream is slow to answer them; nothing was changed, try again"};
    } else {
      lock.unlock();
      changed = record();
      lock.lock();
      if (changed) mode_ = to;
    }
    changing_ = false;
    now = mode_;
    for (Work& work : waiting_) released.emplace_back(std::move(work), ticket());
    waiting_.clear();
  }
  for (auto& [work, held] : released) work(now, std::move(held));
  if (!changed) return changed.error();
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began);
}

}  // namespace ledger::api
