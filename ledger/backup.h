// A backup of a data directory: made beside the running server and without it, incremental, verified; and the way back.
//
// A backup is a directory of the layout of a data directory, readable by every command that reads one. Its log is a copy
// of the same log (log_copy.h), so a backup is a prefix of the log by construction, the next one adds what is new, and
// its root is the root that the server's checkpoints sign. Beside it are the other files, and backup.json, which is
// written last (backup_files.h).
//
// What a crash leaves of a backup: a longer log, and files of which each is the old or the new one: it can be restored,
// and the next run goes on. Of a restore: a directory on which nothing but the same restore can start
// (event_log.h, CopyPurpose).
//
// The files of a server that goes on belong to one moment with the log: they are read before and after it, until both
// readings agree. Checkpoints are read before it, so that no checkpoint saw more than the copy has.
//
// Why a log and not the store's files: docs/decisions/0007-backups-are-logs.md. Threads: one call at a time per
// directory, which the log's lock ensures.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ledger/backup_files.h"
#include "ledger/checkpoint.h"
#include "ledger/log_copy.h"

namespace ledger {

struct BackupOptions {
  std::filesystem::path data_dir;
  std::filesystem::path to;  // a backup of the same log, or nothing yet, or an empty directory
  bool with_secrets = true;  // false: without passwords, tokens and private keys
  Time now;
  CopyProgress progress{};
};

struct BackupReport {
  std::string ledger;
  bool is_first = false;
  LogCopied copied;  // this time
  TreeHead head;
  Time last;                                // of the last record
  std::optional<std::uint64_t> checkpoint;  // size of the newest one, which agrees
  std::size_t files_written = 0, files_unchanged = 0;
  std::size_t archives = 0;                 // of all these files
  std::vector<std::string> left_out;        // secrets that were not to be copied; what cannot be
  std::vector<std::string> notes;
};

// Errc::conflict: the backup has records that the log has not (any more). Nothing is written then, and the backup is to
// be kept: it is evidence. Errc::corrupt: a record of the log is damaged; those before it are in the backup.
Result<BackupReport> backup(const BackupOptions& options);

// What a backup holds, and what is wrong with it.
struct BackupCheck {
  BackupManifest manifest;
  TreeHead head;  // of its log, which may be longer than the manifest says
  Time first, last;
  std::uint64_t nodes = 0;
  std::uint64_t checkpoints = 0;            // that agree
  std::optional<Checkpoint> newest_known;   // that saw most, those kept elsewhere included
  std::vector<Checkpoint> all, lost;        // of the backup; those kept elsewhere that saw more
  std::vector<std::string> problems;        // none: it can be restored
};

struct BackupCheckOptions {
  std::filesystem::path from;
  std::vector<std::filesystem::path> against{};  // files with checkpoints that were kept elsewhere
  bool read_all = true;  // read every record and file; false: what is quick
  CopyProgress progress{};
};
// An error: this is no backup, or cannot be read at all.
Result<BackupCheck> check_backup(const BackupCheckOptions& options);

struct RestoreOptions {
  BackupCheckOptions backup;
  std::filesystem::path data_dir;  // nothing yet, an empty directory, or the same restore interrupted
  std::optional<Seq> to_seq;       // only records up to this one
  Time now;
};

struct RestoreReport {
  BackupCheck backup;
  Seq restored = 0;      // the last record of the backup that was restored
  Seq record = 0;        // the epoch_started after it
  Seq head_before = 0;   // records that the log is known to have had
  Time last;             // of record `restored`
  std::vector<std::string> missing;  // files without which no server starts: the backup is without secrets
};
// Verifies first. Errors name what is wrong with the backup or in the way.
Result<RestoreReport> restore(const RestoreOptions& options);

}  // namespace ledger
