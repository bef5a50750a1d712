#include "ledger/log_frames.h"

#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "tests/support/fault_fs.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger {
namespace {

constexpr std::size_t kHeader = 7;

std::optional<std::string> damage_of(const std::string& bytes) {
  LogFrames frames;
  for (std::size_t at = 0; at < bytes.size(); at += LogFrames::kBlock)
    frames.check(std::string_view(bytes).substr(at, LogFrames::kBlock));
  return frames.damage();
}

// A write-ahead log that RocksDB wrote: frames of many sizes, some over the border of a block.
class LogFramesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const test::TempDir dir(test::memory_directory());
    rocksdb::Options options;
    options.create_if_missing = true;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(options, dir.path().string(), &db).ok());
    std::mt19937 random(1);
    for (int i = 0; i < 60; ++i)
      ASSERT_TRUE(db->Put({}, std::to_string(i), std::string(random() % 3000, 'v')).ok());
    for (const auto& entry : std::filesystem::directory_iterator(dir.path()))
      if (entry.path().extension() == ".log") bytes_ = test::file_bytes(entry.path());
    delete db;
    ASSERT_GT(bytes_.size(), 2 * LogFrames::kBlock);
    for (std::size_t at = 0; at + kHeader <= bytes_.size();) {
      if (LogFrames::kBlock - at % LogFrames::kBlock < kHeader) at += LogFrames::kBlock - at % LogFrames::kBlock;
      starts_.push_back(at);
      at +=
          kHeader + static_cast<unsigned char>(bytes_[at + 4]) + 256U * static_cast<unsigned char>(bytes_[at + 5]);
    }
    ASSERT_GT(starts_.size(), 60U) << "some records are in two frames";
  }
  std::string flipped(std::size_t bit) const {
    std::string bytes = bytes_;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    return bytes;
  }
  std::string bytes_;
  std::vector<std::size_t> starts_;
};

TEST_F(LogFramesTest, AWholeFileAndEveryOneCutShortAreNoDamage) {
  EXPECT_EQ(damage_of(bytes_), std::nullopt);
  EXPECT_EQ(damage_of(""), std::nullopt);
  for (std::size_t size = bytes_.size(); size > bytes_.size() - 6000; --size)
    ASSERT_EQ(damage_of(bytes_.substr(0, size)), std::nullopt) << size;
  EXPECT_EQ(damage_of(bytes_ + std::string(5000, '\0')), std::nullopt) << "room that was never written";
}

TEST_F(LogFramesTest, ALengthThatLeadsBeyondTheEndIsDamage) {
  for (const std::size_t start : starts_)
    for (std::size_t bit = 0; bit < 16; ++bit) {
      const std::string bytes = flipped((start + 4) * 8 + bit);
      const std::size_t length =
          static_cast<unsigned char>(bytes[start + 4]) + 256U * static_cast<unsigned char>(bytes[start + 5]);
      const std::size_t block_ends = (start / LogFrames::kBlock + 1) * LogFrames::kBlock;
      const bool leads_beyond = start + kHeader + length > std::min(block_ends, bytes.size());
      // Else the checksum is wrong, and RocksDB says so.
      if (leads_beyond) {
        ASSERT_TRUE(damage_of(bytes)) << "frame at " << start << " bit " << bit;
      }
    }
}

TEST_F(LogFramesTest, TheTypeOfARecycledFileIsDamageAndToldWhere) {
  const std::size_t start = starts_[starts_.size() / 2];
  const auto damage = damage_of(flipped((start + 6) * 8 + 2));
  ASSERT_TRUE(damage);
  EXPECT_NE(damage->find("the type of the frame at byte " + std::to_string(start) + " changed"), std::string::npos)
      << *damage;
}

// Bytes of anybody: no crash, whatever they say.
TEST_F(LogFramesTest, GarbageIsRead) {
  std::mt19937 random(2);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes(random() % 100, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random() % (i % 2 == 0 ? 256 : 9));
    (void)damage_of(bytes);
  }
}

}  // namespace
}  // namespace ledger
