// The archives that stand for records which are in the store no more: finds the file of a record, opens it when it is
// first asked for, and keeps a few files open and a few blocks unpacked.
//
// What is read is what was sealed: a file must have the digest (archive_file.h) that the store remembers, and the
// digest covers every block. A file that is not there is asked for again with every read, so that putting it back is
// enough.
//
// Threads: reading from any; put() from one at a time.
#pragma once

#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ledger/archive_file.h"

namespace ledger {

// Records that were dropped from the store: all but those whose kind stays there (event.h, stays_in_store).
struct ArchivedRange {
  enum class Stage : char {
    dropped = 'd',   // they are in the archive
    removing = 'r',  // the archive is being removed, for good: nobody reads it any more
    removed = 'R',   // it is removed, and so are the index entries of its records
  };
  Seq from = 0, to = 0;
  Time first_time, last_time;  // of the first and of the last record
  TreeHash digest{};           // of the archive
  Stage stage = Stage::dropped;
  bool is_removed() const { return stage != Stage::dropped; }
  bool holds(Seq seq) const { return seq >= from && seq <= to; }
  bool operator==(const ArchivedRange&) const = default;
};

class ArchiveShelf {
 public:
  // `dir`: where the files are looked for.
  ArchiveShelf(std::filesystem::path dir, std::string ledger_id)
      : dir_(std::move(dir)), ledger_id_(std::move(ledger_id)) {}

  // Takes the place of what was known; in any order.
  void put(std::vector<ArchivedRange> ranges);
  std::vector<ArchivedRange> ranges() const;  // in order
  const std::filesystem::path& dir() const { return dir_; }

  // Errc::not_found: no range has it. Errc::archived: its archive is not here, or was removed. Errc::corrupt: the file
  // there is damaged, or another one.
  Result<std::string> read(Seq seq) const;
  // Those of from..to that a range has, in order, each as its bytes or as read() would say; false: visit() did.
  using Visit = std::function<bool(Seq, const Result<std::string_view>&)>;
  bool scan(Seq from, Seq to, const Visit& visit) const;
  // Whether the file of this range can be had: what read() would say of all of its records.
  Result<std::shared_ptr<const ArchiveFile>> file_of(const ArchivedRange& range) const;

 private:
  using FilePtr = std::shared_ptr<const ArchiveFile>;
  using BlockPtr = std::shared_ptr<const ArchiveFile::Block>;
  Result<BlockPtr> block_of(const ArchivedRange& range, Seq seq) const;
  std::vector<ArchivedRange> overlapping(Seq from, Seq to) const;

  const std::filesystem::path dir_;
  const std::string ledger_id_;
  mutable std::mutex mutex_;
  std::map<Seq, ArchivedRange> ranges_;          // by `from`; guarded by mutex_, and so are the next two
  mutable std::list<FilePtr> open_;              // the latest first
  mutable std::list<BlockPtr> blocks_;           // the same
};

}  // namespace ledger
