// Retention: old records are sealed into archive files, then dropped from the store; legal holds stop that, and
// removing an archive forgets. Why it is done in this order: docs/decisions/0006-archives.md.
//
//   1. the file is written, synced, and read back to its end                     archive_file.h
//   2. archive_sealed is recorded: from here on the file counts
//   3. the records are dropped from the store, in one write                      EventLog::drop
// A file without a record (the trace of a crash) is thrown away; a record without the drop goes on dropping. What is
// sealed is covered by a checkpoint, and the file has one of its own.
//
// A hold covers records: those from..to, those of a time, or those of a node (listed under its name in the index).
// While it stands no range with a record that it covers is dropped, and no such archive is removed. Sealing goes on: the
// records are then in both places.
//
// Removing: archive_removed is recorded first, then the index entries of its records go, then the file. The record, the
// tree hashes, and the records that stays_in_store() stay.
//
// Everything that is folded here comes from records of the log. Threads: any; one thing at a time. Every call may take
// seconds and waits for the disk; the writer is busy for one short write of each.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "ledger/archive_shelf.h"
#include "ledger/ledger.h"
#include "ledger/operator.h"

namespace ledger {

struct LegalHold {
  std::string id, node, actor, reason;
  Seq from = 0, to = 0;  // to 0: no end; from 0: not a range of seqs
  std::optional<Time> since, until;
  Seq placed = 0;  // the record
  Time time;
  // "node web-1", "records 1 to 9", "2024-01-01T00:00:00Z to ..."
  std::string covers() const;
};

// What the records say of archives and holds.
struct ArchiveTable {
  struct Archive {
    Seq from = 0, to = 0;
    std::string sha256;
    Seq sealed = 0;  // the record
    Time sealed_at;
    Seq removed = 0;  // the record; 0: it is not
    std::string removed_by;
  };
  std::map<Seq, Archive> archives;         // by `from`
  std::map<std::string, LegalHold> holds;  // those that stand, by id

  void apply(const Record& record);
  static Result<ArchiveTable> read(const EventLog& log);
  Seq sealed_to() const { return archives.empty() ? 0 : archives.rbegin()->second.to; }
};

// The holds that cover a record of from..to, by id.
Result<std::vector<std::string>> holds_on(const EventLog& log, const ArchiveTable& table, Seq from, Seq to,
                                          Time first_time, Time last_time);

// One archive for people and programs.
struct ArchiveStatus {
  ArchiveTable::Archive archive;
  // sealed: its records are in the store too; dropped; removed.
  enum class Where { sealed, dropped, removed } where = Where::sealed;
  bool is_here = false;  // the file can be opened
  std::string problem;   // why it cannot
  Time first_time, last_time;
  std::uint64_t file_bytes = 0, raw_bytes = 0;
  std::vector<std::string> holds;
};
std::string_view name_of(ArchiveStatus::Where where);
Result<std::vector<ArchiveStatus>> list_archives(const EventLog& log, const ArchiveTable& table);

class Archivist {
 public:
  struct Options {
    std::filesystem::path data_dir;
    std::uint64_t max_records = 100'000;  // of one archive
    std::uint64_t max_bytes = 64 << 20;   // unpacked
    std::function<void(bool is_problem, const std::string& line)> log{};  // any thread
    // Called before each step; false ends the call there as a crash would. For tests.
    std::function<bool(std::string_view step)> may{};
  };
  // The ledger must outlive it.
  Archivist(Options options, Ledger& ledger) : options_(std::move(options)), ledger_(ledger) {}
  ~Archivist() { stop(); }

  struct Goal {
    Seq to = UINT64_MAX;               // no record after this
    Time before{INT64_MAX};            // only records stamped earlier
    std::uint64_t min_records = 1;     // fewer are left, unless max_bytes are full
    // Fewer than min_records are sealed all the same when the first of them is older than this.
    Time overdue{};
  };
  struct Sealed {
    Seq from = 0, to = 0;
    std::string file, sha256;
    std::uint64_t raw_bytes = 0, file_bytes = 0;
    Seq record = 0;                  // archive_sealed
    std::vector<std::string> holds;  // not dropped because of these
  };
  // Goes on with what a crash has left, then seals and drops the next archive; nullopt: nothing (more) to seal.
  // Errc::not_found when there is no checkpoint yet, Errc::corrupt at a record that is damaged: nothing is sealed
  // over it.
  Result<std::optional<Sealed>> seal_next(const Goal& goal);

  // Keep so much in the store.
  struct Policy {
    std::optional<std::int64_t> age_s{};
    std::optional<std::uint64_t> bytes{};
    bool is_set() const { return age_s || bytes; }
  };
  // One archive at most; nullopt: the policy is met, as far as whole archives go.
  Result<std::optional<Sealed>> keep(const Policy& policy, Time now);
  // Looks at the policy every minute, in a thread of its own.
  void start(const Policy& policy);
  void stop();

  // Exactly one of node, seqs and times. Errc::invalid says what is missing.
  struct HoldRequest {
    std::string node{};
    Seq from = 0, to = 0;
    std::optional<Time> since{}, until{};
  };
  struct Done {
    std::string hold;
    Seq record = 0;
  };
  Result<Done> hold(const HoldRequest& request, const OperatorAction& action);
  // What it stopped is dropped with the next seal_next() or keep().
  Result<Done> lift(std::string_view id, const OperatorAction& action);
  // Forgets the archive that begins with record `from`. Errc::conflict under a hold.
  Result<Done> remove(Seq from, const OperatorAction& action);

 private:
  struct Stopped;  // by Options::may
  Result<void> step(std::string_view name) const;
  Result<void> catch_up();
  Result<void> finish();
  Result<Seq> covered() const;
  Result<std::optional<Sealed>> seal(const Goal& goal);
  Result<Goal> goal_of(const Policy& policy, Time now) const;
  Result<bool> fill(class ArchiveBuilder& builder, const Goal& goal, std::vector<Seq>& kept) const;
  Result<void> write(const std::filesystem::path& file, const std::string& bytes, const class NoteVerifier& key) const;
  Result<void> throw_away_from(Seq from) const;
  Result<bool> drop(const ArchiveTable::Archive& archive, std::vector<std::string>* holds,
                    const std::vector<Seq>* kept = nullptr);
  Result<void> finish_removal(const ArchiveTable::Archive& archive);
  Result<Seq> append(Record record, const OperatorAction& action);
  void tell(bool is_problem, const std::string& line) const;
  void run(const Policy& policy);

  const Options options_;
  Ledger& ledger_;
  std::mutex mutex_;  // one thing at a time
  ArchiveTable table_;
  Seq folded_ = 0;

  std::mutex wake_mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by wake_mutex_
  std::thread thread_;
};

}  // namespace ledger
