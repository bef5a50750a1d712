#include "tools/followed_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace ledger::tools {
namespace {

// Catching up with a running server can fail once when it has just put a file away; opening anew sees the new ones.
constexpr int kOpenAgain = 5;

Error cannot_sync(const std::filesystem::path& path) {
  return {Errc::io, "cannot make sure that " + path.string() + " is on the disk: " + std::generic_category().message(errno)};
}

// The number of the error, 0: done or nothing to do.
int sync_file(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? 0 : errno;  // put away meanwhile, so its records are in synced tables
  const int error = ::fdatasync(fd) == 0 ? 0 : errno;
  ::close(fd);
  return error == EINVAL || error == EROFS ? 0 : error;  // file systems that have nothing to sync
}

}  // namespace

FollowedLog::FollowedLog(std::filesystem::path dir, std::unique_ptr<EventLog> log)
    : dir_(std::move(dir)), id_(log->id()), log_(std::move(log)) {}

Result<FollowedLog> FollowedLog::open(const std::string& data_dir) {
  const std::filesystem::path dir = std::filesystem::path(data_dir) / "events";
  Result<std::unique_ptr<EventLog>> log = EventLog::follow({.dir = dir});
  if (!log) return log.error();
  return FollowedLog(dir, std::move(*log));
}

Result<void> FollowedLog::catch_up() {
  const Result<void> caught_up = log_->catch_up();
  if (caught_up) {
    failures_ = 0;
    return {};
  }
  if (++failures_ > kOpenAgain) return caught_up.error();
  Result<std::unique_ptr<EventLog>> again = EventLog::follow({.dir = dir_});
  if (again && (*again)->id() != id_)
    return Error{Errc::conflict, "there is another log in " + dir_.string() + " now: " + (*again)->id() + ", not " + id_};
  if (again) log_ = std::move(*again);
  return {};
}

// RocksDB's write-ahead logs are <number>.log; what is not in them any more is in tables, which it syncs itself.
Result<void> FollowedLog::sync() const {
  std::error_code error;
  for (auto it = std::filesystem::directory_iterator(dir_, error); !error && it != std::filesystem::directory_iterator();
       it.increment(error)) {
    if (it->path().extension() != ".log") continue;
    if (const int failed = sync_file(it->path()); failed != 0) {
      errno = failed;
      return cannot_sync(it->path());
    }
  }
  return {};
}

}  // namespace ledger::tools
