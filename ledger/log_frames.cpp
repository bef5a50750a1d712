#include "ledger/log_frames.h"

#include <boost/crc.hpp>
#include <cstdint>

namespace ledger {
namespace {

// db/log_format.h of RocksDB.
constexpr std::size_t kHeader = 7;
constexpr std::size_t kTypeAt = 6;
constexpr unsigned char kFirstRecycled = 5, kLastRecycled = 8;
constexpr unsigned kLengthBits = 15;  // a frame never leaves its block

std::uint32_t number_at(std::string_view bytes, std::size_t at, std::size_t size) {
  std::uint32_t number = 0;
  for (std::size_t i = size; i-- > 0;) number = number << 8 | static_cast<unsigned char>(bytes[at + i]);
  return number;
}

// CRC-32C of type and payload, masked as util/crc32c.h of RocksDB does.
bool checksum_fits(std::string_view frame, std::size_t length) {
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
  crc.process_bytes(frame.data() + kTypeAt, 1 + length);
  const auto sum = static_cast<std::uint32_t>(crc.checksum());
  return ((sum >> 15 | sum << 17) + 0xA282EAD8U) == number_at(frame, 0, 4);
}

// The length is wrong in one bit, and not the frame cut short.
bool has_wrong_length(std::string_view frame, std::size_t length) {
  for (unsigned bit = 0; bit <= kLengthBits; ++bit) {
    const std::size_t other = length ^ (std::size_t{1} << bit);
    if (kHeader + other <= frame.size() && checksum_fits(frame, other)) return true;
  }
  return false;
}

}  // namespace

void LogFrames::check(std::string_view block) {
  std::size_t at = 0;
  while (!damage_ && at + kHeader <= block.size()) {
    const std::string_view frame = block.substr(at);
    const std::size_t length = number_at(frame, 4, 2);
    const auto type = static_cast<unsigned char>(frame[kTypeAt]);
    if (type == 0 && length == 0) break;  // room that was never written
    const char* wrong = nullptr;
    if (type >= kFirstRecycled && type <= kLastRecycled) wrong = "the type";
    if (kHeader + length > frame.size() && has_wrong_length(frame, length)) wrong = "the length";
    if (wrong != nullptr)
      damage_ = std::string("has ") + wrong + " of the frame at byte " + std::to_string(before_ + at) +
                " changed: what follows would pass for never written";
    at += kHeader + length;
  }
  before_ += block.size();
}

}  // namespace ledger
