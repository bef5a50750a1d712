#include "tools/follow_refusals.h"

#include <boost/json.hpp>
#include <cerrno>
#include <string_view>
#include <system_error>

#include "replay/follow.h"
#include "tools/commands.h"
#include "tools/followed_log.h"
#include "tools/stop_signal.h"

namespace ledger::tools {
namespace {

constexpr std::chrono::milliseconds kEvery{500};

Result<Seq> first_seq(const EventLog& log, const std::string& since) {
  if (since.empty()) return log.head() + 1;
  const Result<replay::Cut> cut = replay::Cut::parse(since, Time::now());
  if (!cut) return Error{Errc::invalid, "--since: " + cut.error().message};
  if (cut->seq) return *cut->seq;
  const Result<Seq> before = replay::last_seq_until(log, Time{cut->time->micros - 1});
  if (!before) return before.error();
  return *before + 1;
}

}  // namespace

int follow_refusals(const FollowArguments& arguments) {
  const StopSignal stop;
  Result<FollowedLog> followed = FollowedLog::open(arguments.data_dir);
  if (!followed) return fail(followed.error());
  const Result<Seq> from = first_seq(followed->log(), arguments.since);
  if (!from) return fail(from.error()), from.error().code == Errc::invalid ? 2 : 1;
  replay::Follower follower({.node = arguments.node, .from = *from});
  const replay::TextStyle style = style_of_terminal();
  bool read_by_nobody = false;
  int reason = 0;
  const auto print = [&](const replay::Told& told) {
    const std::string text = arguments.format == "json" ? boost::json::serialize(replay::to_json(told)) + "\n"
                                                        : replay::to_text(told, style);
    read_by_nobody = !stop.write_stdout(text);
    reason = stop.asked() ? EPIPE : errno;
    return !read_by_nobody;
  };
  std::fprintf(stderr, "ledger: following refusals after record %llu; stop with Ctrl-C\n",
               static_cast<unsigned long long>(*from - 1));
  do {
    if (const Result<void> ready = followed->catch_up(); !ready) return fail(ready.error());
    const Result<void> told = follower.step(followed->log(), print);
    if (read_by_nobody && reason != EPIPE)
      return fail({Errc::io, "what there is to say could not be written to standard output: " +
                                 std::generic_category().message(reason)});
    if (!told) return fail(told.error());
  } while (!read_by_nobody && stop.wait(kEvery, true));
  return 0;
}

}  // namespace ledger::tools
