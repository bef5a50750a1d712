#include "tools/follow_refusals.h"

#include <poll.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <memory>
#include <string_view>
#include <system_error>

#include "replay/follow.h"
#include "tools/commands.h"

namespace ledger::tools {
namespace {

constexpr timespec kEvery{0, 500'000'000};
// Catching up with a running server can fail once when it has just put a file away; opening anew sees the new ones.
constexpr int kOpenAgain = 5;

volatile std::sig_atomic_t stop_asked = 0;

// Signals arrive while ppoll() waits and at no other time, so none is missed.
class Waiter {
 public:
  Waiter() {
    sigset_t ours;
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ours, &while_waiting_);
    struct sigaction action {};
    action.sa_handler = [](int) { stop_asked = 1; };
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    sigdelset(&while_waiting_, SIGINT);
    sigdelset(&while_waiting_, SIGTERM);
  }
  // False: it is time to end.
  bool wait() const {
    pollfd out{STDOUT_FILENO, 0, 0};
    ppoll(&out, 1, &kEvery, &while_waiting_);
    return stop_asked == 0 && (out.revents & (POLLERR | POLLHUP | POLLNVAL)) == 0;
  }

 private:
  sigset_t while_waiting_;
};

Result<std::unique_ptr<EventLog>> open_log(const FollowArguments& arguments) {
  return EventLog::follow({.dir = std::filesystem::path(arguments.data_dir) / "events"});
}

Result<Seq> first_seq(const EventLog& log, const std::string& since) {
  if (since.empty()) return log.head() + 1;
  const Result<replay::Cut> cut = replay::Cut::parse(since, Time::now());
  if (!cut) return Error{Errc::invalid, "--since: " + cut.error().message};
  if (cut->seq) return *cut->seq;
  const Result<Seq> before = replay::last_seq_until(log, Time{cut->time->micros - 1});
  if (!before) return before.error();
  return *before + 1;
}

// Brings the log up to date; where that fails, opens it anew.
Result<void> catch_up(std::unique_ptr<EventLog>& log, const FollowArguments& arguments, int& failures) {
  const Result<void> caught_up = log->catch_up();
  if (caught_up) {
    failures = 0;
    return {};
  }
  if (++failures > kOpenAgain) return caught_up.error();
  Result<std::unique_ptr<EventLog>> again = open_log(arguments);
  if (again) log = std::move(*again);
  return {};
}

// Past stdio, which would try again at the end of the program what a closed pipe did not take.
bool write_out(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

int follow_refusals(const FollowArguments& arguments) {
  Waiter waiter;
  Result<std::unique_ptr<EventLog>> log = open_log(arguments);
  if (!log) return fail(log.error());
  const Result<Seq> from = first_seq(**log, arguments.since);
  if (!from) return fail(from.error()), from.error().code == Errc::invalid ? 2 : 1;
  replay::Follower follower({.node = arguments.node, .from = *from});
  const replay::TextStyle style = style_of_terminal();
  bool read_by_nobody = false;
  int reason = 0;
  const auto print = [&](const replay::Told& told) {
    const std::string text = arguments.format == "json" ? boost::json::serialize(replay::to_json(told)) + "\n"
                                                        : replay::to_text(told, style);
    read_by_nobody = !write_out(text);
    reason = errno;
    return !read_by_nobody;
  };
  std::fprintf(stderr, "ledger: following refusals after record %llu; stop with Ctrl-C\n",
               static_cast<unsigned long long>(*from - 1));
  int failures = 0;
  do {
    if (const Result<void> ready = catch_up(*log, arguments, failures); !ready) return fail(ready.error());
    const Result<void> told = follower.step(**log, print);
    if (read_by_nobody && reason != EPIPE)
      return fail({Errc::io, "what there is to say could not be written to standard output: " +
                                 std::generic_category().message(reason)});
    if (!told) return fail(told.error());
  } while (!read_by_nobody && waiter.wait());
  return 0;
}

}  // namespace ledger::tools
