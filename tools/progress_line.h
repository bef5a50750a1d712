// One line on a terminal's standard error for work that takes longer than two seconds; silent everywhere else.
// Single thread.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace ledger::tools {

class ProgressLine {
 public:
  explicit ProgressLine(std::string what) : what_(std::move(what)), terminal_(isatty(STDERR_FILENO) == 1) {}
  ~ProgressLine() {
    if (shown_) std::fprintf(stderr, "\r\x1b[K");
  }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void operator()(std::uint64_t done, std::uint64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (!terminal_ || now - started_ < std::chrono::seconds(2) || now - last_ < std::chrono::milliseconds(200))
      return;
    last_ = now;
    shown_ = true;
    if (total > 0 && done <= total)
      std::fprintf(stderr, "\r\x1b[Kledger: %s, %d%%", what_.c_str(),
                   static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total)));
    else
      std::fprintf(stderr, "\r\x1b[Kledger: %s", what_.c_str());
  }

 private:
  std::string what_;
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now(), last_;
};

}  // namespace ledger::tools
