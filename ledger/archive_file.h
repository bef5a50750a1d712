// Archive files: a run of records out of the log, compressed, with what it takes to prove them.
//
//   8   "LEDGARCH"
//   4   format, 1                              all numbers little-endian
//   4   length of the header: from the first byte to the digest's last
//   8 8 from, to: seqs
//   8 8 time of the first and of the last record, microseconds
//   2+n id of the log
//   1+n the right edge of the tree over the from - 1 records before, the largest subtree first: n times 32 bytes
//   4+n checkpoint of exactly `to` records (checkpoint.h), signed
//   4   number of blocks, and for each: 4 records, 4 bytes as stored, 4 bytes unpacked, 32 SHA-256 as stored
//   32  SHA-256 of all before: the digest
//   ... the blocks, one after the other to the end of the file; each a zstd frame of records in order of seq, 4 bytes
//       length and the bytes as they were stored in the log
//
// So a file proves itself with nothing but the log's public key: its records, appended to the edge that it names,
// give the root that was signed. Archives that follow each other chain: the edge of the second is what the records of
// the first lead to. Who knows the digest needs no tree: the digest covers every block, so one record is proven by
// reading one block.
//
// Everything here treats the file as written by an enemy. Zstandard is seen by archive_file.cpp only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/checkpoint.h"
#include "ledger/types.h"

namespace ledger {

// Only a name: "000000000001-000000100000.archive".
std::string archive_name(Seq from, Seq to);
// What such a name says; nullopt for another.
std::optional<std::pair<Seq, Seq>> parse_archive_name(std::string_view name);
// <data-dir>/archives
std::filesystem::path archive_directory(const std::filesystem::path& data_dir);

// Makes one in memory. Single thread.
class ArchiveBuilder {
 public:
  // `edge`: of the tree over the records before `from`.
  ArchiveBuilder(std::string ledger_id, TreeEdge edge);
  ~ArchiveBuilder();
  // The next record. Errc::invalid for one that is too long for an archive (64 MiB).
  Result<void> add(std::string_view bytes, Time time);
  std::uint64_t records() const { return records_; }
  std::uint64_t bytes() const { return bytes_; }  // of the records, unpacked
  Seq from() const { return from_; }
  Seq to() const { return from_ + records_ - 1; }
  Time first_time() const { return first_time_; }
  Time last_time() const { return last_time_; }
  // The tree with these records: what must be signed.
  TreeHead head() const { return edge_.head(); }
  // The whole file, and its digest. At least one record; `note` is of head().
  struct Made {
    std::string bytes;
    TreeHash digest{};
  };
  Made finish(std::string_view note);

 private:
  struct Block {
    std::uint32_t records = 0, stored = 0, raw = 0;
    TreeHash digest{};
  };
  void pack();

  std::string ledger_id_;
  std::vector<TreeHash> peaks_;
  TreeEdge edge_;
  Seq from_ = 1;
  std::uint64_t records_ = 0, bytes_ = 0;
  Time first_time_, last_time_;
  std::string raw_, packed_;
  std::uint32_t in_block_ = 0;
  std::vector<Block> blocks_;
  struct Context;
  std::unique_ptr<Context> zstd_;
};

// One file, open for reading. Any thread; nothing changes after open().
class ArchiveFile {
 public:
  // Reads the header. Errc::not_found: no such file; Errc::corrupt: not an archive, cut off or damaged in its header;
  // Errc::io. Every message names the file.
  static Result<std::shared_ptr<const ArchiveFile>> open(const std::filesystem::path& path);
  // The same of bytes in memory; `name` is for messages.
  static Result<std::shared_ptr<const ArchiveFile>> of_bytes(std::string bytes, std::string name);
  ~ArchiveFile();

  const std::string& ledger_id() const { return ledger_id_; }
  Seq from() const { return from_; }
  Seq to() const { return to_; }
  Time first_time() const { return first_time_; }
  Time last_time() const { return last_time_; }
  const std::vector<TreeHash>& peaks() const { return peaks_; }
  const std::string& note() const { return note_; }
  const TreeHash& digest() const { return digest_; }
  std::uint64_t file_bytes() const { return file_bytes_; }
  std::uint64_t raw_bytes() const;

  // Some records in a row, unpacked.
  struct Block {
    Seq first = 0;
    std::string raw;
    std::vector<std::string_view> records;  // into `raw`
    Seq last() const { return first + records.size() - 1; }
    bool holds(Seq seq) const { return seq >= first && seq - first < records.size(); }
  };
  // The block that holds `seq`, which must be one of from()..to(). Errc::corrupt names the file and the records.
  Result<std::shared_ptr<const Block>> block_of(Seq seq) const;
  // What of from()..to() the block of `seq` holds, whether it can be read or not.
  std::pair<Seq, Seq> span_of(Seq seq) const;

 private:
  struct Extent {
    Seq first = 0;
    std::uint64_t offset = 0;
    std::uint32_t records = 0, stored = 0, raw = 0;
    TreeHash digest{};
  };
  ArchiveFile() = default;
  Result<void> parse(std::string_view header);
  Result<std::string> read_at(std::uint64_t offset, std::size_t size) const;
  const Extent& extent_of(Seq seq) const;
  Error damaged(const std::string& what) const;

  std::string name_;
  int fd_ = -1;        // or:
  std::string bytes_;  // of_bytes()
  std::uint64_t file_bytes_ = 0;
  std::string ledger_id_, note_;
  Seq from_ = 0, to_ = 0;
  Time first_time_, last_time_;
  std::vector<TreeHash> peaks_;
  std::vector<Extent> extents_;
  TreeHash digest_{};
};

// What a whole file says of itself, with nothing but the public key.
struct ArchiveReport {
  std::uint64_t records = 0;        // that could be read
  TreeHead before, after;           // the tree before its records, and with them
  std::string key_id;               // that signed it; empty: nobody's signature was looked at
  std::vector<std::string> damage;  // sentences, each with the records it is about; at most 20
  bool sound() const { return damage.empty(); }
};
// Reads everything: each record decodes and says its own seq, times do not go back, and the records lead from the edge
// to the root of the checkpoint; that is signed by `key`, if one is given.
ArchiveReport check_archive(const ArchiveFile& file, const NoteVerifier* key);

}  // namespace ledger
