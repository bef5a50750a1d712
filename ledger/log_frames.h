// Looks for the one kind of damage in RocksDB's write-ahead logs and manifests that RocksDB takes for the file's
// end.
//
// Such a file is blocks of 32 KiB that hold frames: checksum (4 bytes), length (2), type (1), payload. A crash
// leaves a frame that is not whole at the end, and readers rightly stop there. But they stop, and say nothing, in
// two more cases: at a length that leads beyond the end of the file, and at the type of a recycled file (which we
// never write). One flipped bit makes either, and then all frames behind it, acknowledged records, would be gone
// without a word. The checksum covers type and payload: where it is right for the frame with one bit changed back,
// this is no crash.
//
// Whatever else is wrong with a frame RocksDB finds itself. Values; any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace ledger {

class LogFrames {
 public:
  static constexpr std::size_t kBlock = 32 << 10;

  // The next block: kBlock bytes, fewer for the last one only.
  void check(std::string_view block);
  // What is wrong, in a sentence without a subject, or nullopt.
  const std::optional<std::string>& damage() const { return damage_; }

 private:
  std::size_t before_ = 0;  // bytes of the blocks before
  std::optional<std::string> damage_;
};

}  // namespace ledger
