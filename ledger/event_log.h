// The append-only log on RocksDB.
//
// Promise: append() returns success only when the records, their index entries and the node states they lead
// to are on disk together (one synced WriteBatch); readers see all of a batch or nothing.
//
// What a crash may leave: the whole of a batch or none of it. A torn batch at the very end of the write-ahead
// log is dropped on open (it was never acknowledged). A batch whose append() *failed* may be there or not, and
// nobody can tell until the log is opened again: after a failed append the owner must stop (Ledger does). Damage
// anywhere before the end makes open() refuse: for an audit log silence is worse than an outage.
//
// Layout (column families): `events` big-endian seq -> record bytes (event_codec.h); `index` prefix + value +
// NUL + big-endian seq -> nothing; `nodes` name -> node state bytes, the stored projection; `tree` big-endian seq ->
// the hashes of the subtrees that the record completes, smallest first; default: format version, ledger id, the ranges
// that were dropped, and what else is about the store as a whole. One family for all indexes keeps one memtable and one
// compaction; why: docs/decisions/0002-one-index-family.md.
//
// Store formats: 1 had no tree, 2 is the present one. A log of any older format opens: its owner makes of it one of the
// present format, readers read it as it is. One of a newer format is refused, by owner and reader. (The records have
// versions of their own, event_codec.h.)
//
// A log may be a copy under way: the destination of a backup, or of a restore that is not through. It takes records only
// from who opens it as that copy; nobody else opens it for appending, so no server can start on it.
//
// The tree (merkle.h) is over the record bytes as they are stored. Appending costs two hashes and one small write per
// record on average and reads nothing: the right edge is in memory. A log from before there was a tree gets it when
// its owner opens it. A tree that does not end where the records end makes open() refuse, as other damage does.
//
// Old records may have been dropped into archives (archive_file.h; docs/decisions/0006-archives.md): what reads gets
// them from there, and Errc::archived where the file is not there. Index entries, tree and projection stay here, and so
// do the records whose kind stays_in_store().
//
// RocksDB is seen by event_log.cpp only. Threads: one owner appends and drops; reading is safe from any thread.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ledger/archive_shelf.h"
#include "ledger/event.h"
#include "ledger/merkle.h"
#include "ledger/node_table.h"

namespace rocksdb {
class Env;
}

namespace ledger {

// What a record can be found by. Address and fingerprint values are as in the record; an address is the host
// part of `source`, and token_accepted and certificate_issued are not listed by address (a healthy fleet would
// drown the refusals; the password_verified of the same request is listed). server_wide has one empty value.
enum class Index : char { node = 'n', fingerprint = 'f', address = 'a', serial = 's', request = 'r', server_wide = 'w' };

// The index entries of a record, in a fixed order.
std::vector<std::pair<Index, std::string>> index_terms(const Record& record);

// What a log that takes copied records is for; none: it is nobody's copy.
enum class CopyPurpose { none, backup, restore };

class EventLog {
 public:
  struct Options {
    std::filesystem::path dir;     // <data-dir>/events
    rocksdb::Env* env = nullptr;   // tests: memory or failing file systems; nullptr: the real one
    bool create = true;            // owner only: make a new log when there is none
    std::filesystem::path archives{};  // where archives are looked for; empty: <data-dir>/archives
    std::size_t memtable_bytes = 0;  // tests: tables are written as often as this says; 0: as is good for a server
    // Called now and then while open() makes the tree of an older log, and at its end.
    std::function<void(std::uint64_t done, std::uint64_t total)> on_tree_progress{};
    // Owner only: make, or go on with, a copy of the log with this id. Errc::conflict when the log that is there is of
    // another id; Errc::invalid when it is no such copy.
    struct CopyOf {
      std::string id;
      CopyPurpose purpose = CopyPurpose::none;
    };
    std::optional<CopyOf> copy_of{};
  };

  // Opens for appending. One process at a time: Errc::locked when another has it. The directory's files are
  // made with the process's umask (the tool sets 077).
  static Result<std::unique_ptr<EventLog>> open(const Options& options);

  // Opens beside a running owner, or alone, for reading only; sees what was written at this moment, and later
  // records after catch_up(). The last batch it sees may still be on its way to the disk. Never writes into `dir`.
  static Result<std::unique_ptr<EventLog>> follow(const Options& options);
  Result<void> catch_up();

  ~EventLog();

  using NodeEntry = std::pair<std::string, NodeState>;
  // Appends records whose seq continue head() without a gap, and puts the node states they lead to.
  Result<void> append(std::span<const Record> records, std::span<const NodeEntry> nodes);

  // For a copy: appends records of the log it is a copy of, with their bytes as they are stored there.
  // Durable when this returns.
  struct Copied {
    Record record;
    std::string bytes;
  };
  Result<void> append_copies(std::span<const Copied> records, std::span<const NodeEntry> nodes);
  // Appends `last`, a record that says nothing about a node, and is a copy no more, both or neither.
  Result<void> end_copy(const Record& last);
  CopyPurpose copy_purpose() const;

  // Writes what is in memory to tables, so that the next opening has nothing to recover.
  Result<void> flush();
  // Merges the store's files, so that what was replaced takes no room any more. Appending and reading go on meanwhile.
  // From any thread, by one at a time; ends early, Errc::unavailable, when `*stop` becomes true. Needs free space for
  // the merged files beside the old ones: Errc::unavailable when there is less than `spare_bytes` besides.
  Result<void> compact(std::atomic<bool>* stop, std::uint64_t spare_bytes);

  // What the store takes, by column family. Nothing is read for it.
  struct FamilySize {
    std::string name;
    std::uint64_t entries = 0;        // an estimate
    std::uint64_t bytes = 0;          // of tables on the disk
    std::uint64_t memory_bytes = 0;   // not in tables yet
  };
  std::vector<FamilySize> sizes() const;
  // Of the files that the store consists of now; files that it is about to remove are not counted.
  std::uint64_t disk_bytes() const;

  // The format that this log had before its owner made it one of the present format, and how many records it had then.
  struct Upgrade {
    int from = 0;
    Seq head = 0;
  };
  std::optional<Upgrade> upgrade() const;
  // The records of the range, which are in its archive, go from the store, but for those in `kept` (ascending): for good
  // and in one step. Cheap; the room is had back by reclaim().
  Result<void> drop(const ArchivedRange& range, std::span<const Seq> kept);
  // The archive of a dropped range is being removed, or has been.
  Result<void> set_stage(Seq from, ArchivedRange::Stage stage);
  struct IndexEntry {
    Index index;
    std::string value;
    Seq seq;
  };
  Result<void> remove_index_entries(std::span<const IndexEntry> entries);
  // Has RocksDB write the files anew that hold what was dropped. Any thread; takes its time.
  Result<void> reclaim(Seq from, Seq to) const;

  // What was dropped, in order, and where it is looked for.
  std::vector<ArchivedRange> archived() const;
  const ArchiveShelf& archives() const;
  // Whether the store itself has the record.
  Result<bool> is_stored(Seq seq) const;
  // About how many bytes the records of the store take on the disk.
  std::uint64_t stored_bytes() const;

  // Bytes left on the disk of the log; nullopt when its file system cannot say.
  std::optional<std::uint64_t> free_bytes() const;

  // Seq of the last record; 0 when empty.
  Seq head() const;
  // Stable for the life of the log, 16 hex digits.
  const std::string& id() const;

  // Errc::not_found, Errc::archived when its archive is not here, or Errc::corrupt when the bytes do not decode.
  Result<Record> read(Seq seq) const;

  // The stored bytes of a record: the tree's entry seq - 1.
  Result<std::string> read_bytes(Seq seq) const;

  // The tree over the records that were durable when this was last told: by append(), or by opening and catch_up().
  // Errors only beside or after damage, and Errc::not_found when the log is an older one and its owner has not made
  // the tree yet.
  Result<TreeHead> tree() const;
  // How many entries the stored tree has; head(), unless the log is damaged or has no tree yet.
  std::uint64_t tree_size() const;
  // Reads complete nodes; for as long as this object lives.
  ReadNode tree_nodes() const;

  // Calls visit for every record from..to (inclusive) in order, a record that does not decode or whose archive is not
  // here as its Error; stops when visit returns false. Errc::io or Errc::corrupt when the store itself cannot be read further.
  using Visit = std::function<bool(Seq, const Result<Record>&)>;
  Result<void> scan(Seq from, Seq to, const Visit& visit) const;
  // The same, as stored: bytes that may not be a record, and what `tree` holds under a seq. Ends with the first Error.
  using VisitBytes = std::function<bool(Seq, std::string_view bytes)>;
  Result<void> scan_bytes(Seq from, Seq to, const VisitBytes& visit) const;
  Result<void> scan_tree(Seq from, Seq to, const VisitBytes& visit) const;

  // Seqs listed under `value`, ascending. With `latest`, only that many of the newest ones up to `to`.
  Result<std::vector<Seq>> find(Index index, std::string_view value, Seq from = 1, Seq to = UINT64_MAX,
                                std::size_t latest = SIZE_MAX) const;
  // Like scan, over the records that find() lists.
  Result<void> scan(Index index, std::string_view value, Seq from, Seq to, const Visit& visit) const;

  // The newest record of a server-wide kind; nullopt: there is none. Looks at server-wide records only, newest first,
  // which are in the store whatever was archived. Errc::invalid for another kind, Errc::corrupt where one that would
  // have to be looked at cannot be read: what is older is not the newest then.
  Result<std::optional<Record>> newest(Kind kind) const;

  // The stored projection: all of it in name order, or one name (nullopt: never seen).
  Result<void> each_node(const std::function<bool(std::string_view, const Result<NodeState>&)>& visit) const;
  Result<std::optional<NodeState>> node(std::string_view name) const;

  // For verify: every index entry, and whether one is there.
  Result<void> each_index_entry(const std::function<bool(Index, std::string_view value, Seq)>& visit) const;
  Result<bool> has_index_entry(Index index, std::string_view value, Seq seq) const;

 private:
  struct State;
  struct Appending;
  explicit EventLog(std::unique_ptr<State> state);
  Result<void> write(Appending& appending);
  std::unique_ptr<State> state_;
};

}  // namespace ledger
