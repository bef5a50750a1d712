// Preloaded into a real server (LD_PRELOAD): clocks that jump and disks that fail, told by the file that
// LEDGER_FAULTS names, which is read again whenever it has changed:
//
//   clock <seconds>     added to the wall clock; the monotonic one goes on
//   errno <number>      of every write, sync, new file and rename from here on; 0: none
//
// Stands below everything in the process, so nothing of the server is replaced by a stand-in.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace {

std::atomic<long> offset_s{0};
std::atomic<int> failing{0};
std::atomic<long> changed_ns{-1};

template <class F>
F next(const char* name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

void look() {
  const char* path = getenv("LEDGER_FAULTS");
  struct stat info;
  if (path == nullptr || stat(path, &info) != 0) return;
  const long at = info.st_mtim.tv_sec * 1'000'000'000L + info.st_mtim.tv_nsec;
  if (changed_ns.exchange(at) == at) return;
  static const auto real_open = next<int (*)(const char*, int, ...)>("open");
  const int fd = real_open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  char text[128] = {};
  const ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  if (got <= 0) return;
  if (const char* at_clock = strstr(text, "clock ")) offset_s = atol(at_clock + 6);
  if (const char* at_errno = strstr(text, "errno ")) failing = atoi(at_errno + 6);
}

// Only regular files fail: a socket has no disk.
bool fails(int fd) {
  look();
  struct stat info;
  if (failing == 0 || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return false;
  // Standard error goes to another disk, as a journal does.
  if (fd <= 2) return false;
  errno = failing;
  return true;
}

bool fails_to_make(int flags) {
  look();
  if (failing == 0 || (flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR)) == 0) return false;
  errno = failing;
  return true;
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* out) noexcept {
  static const auto real = next<int (*)(clockid_t, timespec*)>("clock_gettime");
  const int result = real(clock, out);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    look();
    out->tv_sec += offset_s;
  }
  return result;
}

time_t time(time_t* out) noexcept {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(timeval* out, void*) noexcept {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  out->tv_sec = now.tv_sec, out->tv_usec = now.tv_nsec / 1000;
  return 0;
}

ssize_t write(int fd, const void* bytes, size_t size) {
  static const auto real = next<ssize_t (*)(int, const void*, size_t)>("write");
  return fails(fd) ? -1 : real(fd, bytes, size);
}

ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t at) {
  static const auto real = next<ssize_t (*)(int, const void*, size_t, off64_t)>("pwrite64");
  return fails(fd) ? -1 : real(fd, bytes, size, at);
}

int fsync(int fd) {
  static const auto real = next<int (*)(int)>("fsync");
  return fails(fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
  static const auto real = next<int (*)(int)>("fdatasync");
  return fails(fd) ? -1 : real(fd);
}

int open(const char* path, int flags, ...) {
  static const auto real = next<int (*)(const char*, int, ...)>("open");
  va_list more;
  va_start(more, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
  va_end(more);
  return fails_to_make(flags) ? -1 : real(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  static const auto real = next<int (*)(const char*, int, ...)>("open64");
  va_list more;
  va_start(more, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
  va_end(more);
  return fails_to_make(flags) ? -1 : real(path, flags, mode);
}

int rename(const char* from, const char* to) noexcept {
  static const auto real = next<int (*)(const char*, const char*)>("rename");
  look();
  if (failing == 0) return real(from, to);
  errno = failing;
  return -1;
}

}  // extern "C"
