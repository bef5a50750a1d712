#include "tools/stop_signal.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <limits.h>

namespace ledger::tools {
namespace {

// What a signal handler may touch: it sets the flag and wakes whoever polls.
std::atomic<bool> stop_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free);
int wake_fd = -1;

void on_signal(int) {
  const int before = errno;
  stop_asked = true;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_fd, &one, sizeof one);
  errno = before;
}

}  // namespace

StopSignal::StopSignal() {
  if (wake_fd < 0) wake_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

const std::atomic<bool>& StopSignal::asked() const { return stop_asked; }

bool StopSignal::wait(std::chrono::milliseconds time, bool watch_stdout) const {
  // Without events poll() tells of errors alone.
  pollfd entries[] = {{wake_fd, POLLIN, 0}, {STDOUT_FILENO, 0, 0}};
  ::poll(entries, watch_stdout ? 2 : 1, static_cast<int>(std::min<std::int64_t>(time.count(), INT_MAX)));
  return !stop_asked && (entries[1].revents & (POLLERR | POLLHUP | POLLNVAL)) == 0;
}

bool StopSignal::write_stdout(std::string_view text) const {
  while (!text.empty()) {
    // A pipe that is writable takes this much without blocking, so that a reader who does not read cannot hold us.
    pollfd entries[] = {{wake_fd, POLLIN, 0}, {STDOUT_FILENO, POLLOUT, 0}};
    if (::poll(entries, 2, -1) < 0 && errno != EINTR) return false;
    if (stop_asked) return false;
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), std::min<std::size_t>(text.size(), PIPE_BUF));
    if (written < 0 && errno != EINTR && errno != EAGAIN) return false;
    if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace ledger::tools
