#include "ledger/backup.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>

#include "ledger/adopt.h"
#include "ledger/credentials.h"

namespace ledger {

namespace fs = std::filesystem;

namespace {

constexpr int kReadings = 20;
constexpr std::chrono::milliseconds kBetweenReadings{25};
constexpr const char* kHashFile = "cred/node-password-hashes";  // grows with every registration (hash_store.h)

std::string quoted(const fs::path& path) { return "'" + printable(path.string(), 400) + "'"; }

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? printable(name, 100) : std::string();
}

bool is_below(const fs::path& path, const fs::path& directory) {
  return std::mismatch(directory.begin(), directory.end(), path.begin(), path.end()).first == directory.end();
}

// Neither in the other: a backup in its own source would grow without end, a restore into its source would change it.
Result<void> check_apart(const fs::path& from, const fs::path& to) {
  std::error_code error;
  const fs::path a = fs::weakly_canonical(from, error), b = fs::weakly_canonical(to, error);
  if (error) return Error{Errc::io, "cannot find " + quoted(to) + ": " + error.message()};
  if (!is_below(a, b) && !is_below(b, a)) return {};
  return Error{Errc::invalid, quoted(from) + " and " + quoted(to) + " are the same, or one is inside of the other: " +
                                  "name a directory elsewhere, best on another disk"};
}

// Nothing there yet, or a store that was interrupted while it was made.
bool is_unused(const fs::path& directory) {
  std::error_code error;
  if (fs::symlink_status(directory, error).type() == fs::file_type::not_found) return true;
  for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    const fs::path name = at->path().filename();
    std::error_code ignored;
    if (name != "lost+found" && (name != "events" || fs::exists(at->path() / "CURRENT", ignored))) return false;
  }
  return !error;
}

Result<void> make_directory(const fs::path& directory) {
  std::error_code error;
  if (fs::is_directory(directory, error)) return {};
  return ensure_private_directory(directory);
}

using Held = std::map<std::string, HeldFile>;

// ---- the source ------------------------------------------------------------------------------------------

// The small files of a data directory, as they were at one moment or a little later.
Result<Held> hold_all(const fs::path& data_dir, bool with_secrets, DataDirFiles* files) {
  Result<DataDirFiles> listed = list_data_dir_files(data_dir);
  if (!listed) return listed.error();
  *files = *std::move(listed);
  Held held;
  for (const std::string& name : files->names) {
    if (!is_small_name(name) || (!with_secrets && is_secret_name(name))) continue;
    Result<HeldFile> file = hold_file(data_dir, name);
    if (!file && file.error().code == Errc::not_found) continue;  // replaced or settled this moment
    if (!file) return file.error();
    held.emplace(name, *std::move(file));
  }
  return held;
}

bool may_differ(const std::string& name) { return name.starts_with("checkpoints/") || name == kHashFile; }

// Nothing that belongs together changed between the two readings.
bool agree(const Held& before, const Held& after) {
  const auto covered = [](const Held& a, const Held& b) {
    return std::all_of(a.begin(), a.end(), [&](const auto& entry) {
      if (may_differ(entry.first)) return true;
      const auto other = b.find(entry.first);
      return other != b.end() && same_file(entry.second, other->second);
    });
  };
  return covered(before, after) && covered(after, before);
}

// The newest checkpoint among held files; nullopt: none yet. An error names what cannot be trusted.
Result<std::optional<Checkpoint>> newest_checkpoint(const Held& held) {
  const auto key_file = held.find("cred/checkpoint.pub"), latest = held.find("checkpoints/latest");
  if (key_file == held.end() || latest == held.end()) return std::optional<Checkpoint>();
  const Result<NoteVerifier> key = NoteVerifier::parse(key_file->second.bytes.reveal());
  if (!key) return Error{Errc::corrupt, "cred/checkpoint.pub: " + key.error().message};
  Result<Checkpoint> checkpoint = open_checkpoint(latest->second.bytes.reveal(), *key);
  if (!checkpoint)
    return Error{Errc::corrupt, "checkpoints/latest: " + checkpoint.error().message + "; run `ledger verify`"};
  return std::optional<Checkpoint>(*std::move(checkpoint));
}

// ---- one backup ------------------------------------------------------------------------------------------

class Backup {
 public:
  explicit Backup(const BackupOptions& options) : options_(options) {}

  Result<BackupReport> run() {
    if (const Result<void> opened = open(); !opened) return opened.error();
    if (const Result<void> fits = check_past(); !fits) return fits.error();
    if (const Result<void> copied = copy_settled(); !copied) return copied.error();
    if (const Result<void> proven = prove(); !proven) return proven.error();
    if (const Result<void> files = put_files(); !files) return files.error();
    return std::move(report_);
  }

 private:
  Result<void> open() {
    if (const Result<void> apart = check_apart(options_.data_dir, options_.to); !apart) return apart;
    if (const Result<void> whole = check_adoption(options_.data_dir); !whole) return whole;
    auto source = EventLog::follow({.dir = options_.data_dir / "events"});
    if (!source) return source.error();
    source_ = *std::move(source);
    if (source_->copy_purpose() == CopyPurpose::restore)
      return Error{Errc::invalid, quoted(options_.data_dir) + " is half a restore, which was interrupted: finish it, " +
                                      "or back up the directory it comes from"};
    Result<BackupManifest> last = read_manifest(manifest_file(options_.to));
    if (!last && last.error().code != Errc::not_found) return last.error();
    report_.is_first = !last;
    if (last) last_ = *std::move(last);
    std::error_code ignored;
    const bool begun = fs::exists(options_.to / "events" / "CURRENT", ignored);
    if (!begun && !is_unused(options_.to))
      return Error{Errc::invalid, quoted(options_.to) + " is not empty, and no backup: name an empty directory, or one " +
                                      "that does not exist yet"};
    if (!options_.with_secrets && last && last_.secrets)
      return Error{Errc::invalid, "the backup in " + quoted(options_.to) + " holds secrets already; name another " +
                                      "directory for one without"};
    if (const Result<void> made = make_directory(options_.to); !made) return made;
    if (const Result<void> made = ensure_private_directory(options_.to / "events"); !made) return made;
    EventLog::Options copy;
    copy.dir = options_.to / "events";
    copy.copy_of = EventLog::Options::CopyOf{source_->id(), CopyPurpose::backup};
    auto log = EventLog::open(copy);
    if (!log && log.error().code == Errc::conflict)
      return Error{Errc::conflict, log.error().message + ": keep that backup, and name another directory for this log"};
    if (!log) return log.error();
    log_ = *std::move(log);
    report_.ledger = source_->id();
    before_ = log_->head();
    return {};
  }

  // What was backed up before must still be in the log.
  Result<void> check_past() {
    const Result<bool> grown = is_beginning_of(*log_, *source_);
    if (!grown) return grown.error();
    if (*grown) return {};
    const Seq backed = log_->head(), there = source_->head();
    return Error{Errc::conflict,
                 "the backup in " + quoted(options_.to) + " has records that the log in " + quoted(options_.data_dir) +
                     " has not: " +
                     (backed > there ? "it holds " + std::to_string(backed) + ", the log " + std::to_string(there)
                                     : "among the first " + std::to_string(backed) + " are others") +
                     ". The log went back (a snapshot or an older backup was restored), or somebody changed it. " +
                     "Nothing was written; keep this backup, it is the evidence (`ledger diff`, `ledger replay` read " +
                     "it), and back up to another directory"};
  }

  Result<void> copy_settled() {
    for (int left = kReadings; left > 0; --left) {
      DataDirFiles files;
      Result<Held> held = hold_all(options_.data_dir, options_.with_secrets, &files);
      if (!held) return held.error();
      if (const Result<void> caught_up = source_->catch_up(); !caught_up) return caught_up;
      if (const Result<void> fits = check_checkpoint(*held); !fits) return fits;
      if (const Result<void> copied = copy_log(); !copied) return copied;
      Result<Held> after = hold_all(options_.data_dir, options_.with_secrets, &files);
      if (!after) return after.error();
      if (agree(*held, *after)) {
        if (const auto newer = after->find(kHashFile); newer != after->end())
          held->insert_or_assign(kHashFile, std::move(newer->second));
        held_ = *std::move(held);
        files_ = std::move(files);
        return {};
      }
      std::this_thread::sleep_for(kBetweenReadings);
    }
    return Error{Errc::unavailable, "the files in " + quoted(options_.data_dir) +
                                        " change all the time; run this again when the server has settled"};
  }

  Result<void> copy_log() {
    const Result<LogCopied> copied = copy_records(*source_, *log_, source_->head(), options_.progress);
    report_.head.size = log_->head();
    report_.copied.records = log_->head() - before_;
    if (copied) {
      report_.copied.bytes += copied->bytes;
      return {};
    }
    if (copied.error().code == Errc::archived)
      return Error{Errc::archived, copied.error().message + ". A backup needs every record once: it must have been begun " +
                                       "before an archive was removed or moved away (put it back into archives/)"};
    if (copied.error().code != Errc::corrupt) return copied.error();
    (void)log_->flush();
    return Error{Errc::corrupt, copied.error().message + ". Nothing of it got into the backup, which holds the " +
                                    std::to_string(log_->head()) + " records before it: `ledger verify --data-dir " +
                                    options_.data_dir.string() + "` says more"};
  }

  // A checkpoint was signed over records that were durable: the log cannot have fewer, or others.
  Result<void> check_checkpoint(const Held& held) {
    Result<std::optional<Checkpoint>> newest = newest_checkpoint(held);
    if (!newest) return newest.error();
    report_.checkpoint.reset();
    checkpoint_ = *std::move(newest);
    if (!checkpoint_ || checkpoint_->origin != origin_of(source_->id())) {
      checkpoint_.reset();
      return {};
    }
    if (checkpoint_->head.size <= source_->head()) return {};
    return Error{Errc::conflict, "the newest checkpoint in " + quoted(options_.data_dir) + " saw " +
                                     std::to_string(checkpoint_->head.size) + " records, and the log has " +
                                     std::to_string(source_->head()) + ": it went back. Start the server, which " +
                                     "records what was lost, or see RUNBOOK, \"The log went back\""};
  }

  // What was copied is read back from the disk; its root is the source's, and the one that was signed.
  Result<void> prove() {
    if (const Result<void> flushed = log_->flush(); !flushed) return flushed;
    const Seq head = log_->head();
    {
      const auto stored = EventLog::follow({.dir = options_.to / "events"});
      if (!stored) return stored.error();
      const Result<TreeHead> read = read_back(**stored, before_ + 1, head, {});
      if (!read)
        return Error{read.error().code, "the backup in " + quoted(options_.to) + " does not read back as it was written: " +
                                            read.error().message + "; is the disk sound?"};
      report_.head = *read;
    }
    const Result<TreeHash> root = root_over(*source_, head);
    if (!root) return root.error();
    if (*root != report_.head.root)
      return Error{Errc::corrupt, "the tree of the log in " + quoted(options_.data_dir) +
                                      " is not that of its records; run `ledger verify`"};
    if (checkpoint_) {
      const Result<TreeHash> signed_root = root_over(*log_, checkpoint_->head.size);
      if (!signed_root) return signed_root.error();
      if (*signed_root != checkpoint_->head.root)
        return Error{Errc::corrupt, "the checkpoint of " + std::to_string(checkpoint_->head.size) + " records in " +
                                        quoted(options_.data_dir) + " saw other records than the log has; run " +
                                        "`ledger verify`"};
      report_.checkpoint = checkpoint_->head.size;
    }
    if (head == 0) return {};
    const Result<Record> last = log_->read(head);
    if (!last) return last.error();
    report_.last = last->time;
    return {};
  }

  Result<void> put_files() {
    BackupManifest next;
    next.ledger = report_.ledger;
    next.head = report_.head;
    next.time = options_.now;
    next.version = LEDGER_VERSION;
    next.host = host_name();
    next.source = options_.data_dir.string();
    next.secrets = options_.with_secrets;
    // The big ones first: they only come, so a list without them is still true.
    for (const std::string& name : files_.names) {
      if (is_small_name(name)) continue;
      bool changed = false;
      Result<BackupFile> file = copy_file(options_.data_dir, options_.to, name, last_.find(name), &changed);
      if (!file && file.error().code == Errc::not_found) continue;
      if (!file) return file.error();
      count(changed);
      if (name.starts_with("archives/")) ++report_.archives;
      next.files.push_back(*std::move(file));
    }
    // What was removed from the log for good after it was backed up is still here; a restored log is told to remove it by
    // its own record (archive_removed), and needs the file for that.
    for (const BackupFile& old : last_.files) {
      std::error_code ignored;
      if (!is_small_name(old.name) && !std::binary_search(files_.names.begin(), files_.names.end(), old.name) &&
          fs::exists(options_.to / old.name, ignored))
        next.files.push_back(old);
    }
    for (const auto& [name, held] : held_)
      next.files.push_back({.name = name,
                            .mode = held.mode,
                            .bytes = held.bytes.reveal().size(),
                            .sha256 = held.link.empty() ? sha256_hex(held.bytes.reveal()) : std::string(),
                            .link = held.link});
    std::sort(next.files.begin(), next.files.end(),
              [](const BackupFile& a, const BackupFile& b) { return a.name < b.name; });
    // While files are replaced, both lists are there, and each file is as one of them says.
    if (const auto written = write_manifest(next_manifest_file(options_.to), next); !written) return written;
    for (const auto& [name, held] : held_) {
      bool changed = false;
      const Result<BackupFile> file = put_file(options_.to, name, held, &changed);
      if (!file) return file.error();
      count(changed);
    }
    if (const auto written = write_manifest(manifest_file(options_.to), next); !written) return written;
    if (const auto removed = remove_file(next_manifest_file(options_.to)); !removed) return removed;
    // What the server has no more: the rest of a rotation, a key that was replaced. Archives stay.
    for (const BackupFile& old : last_.files)
      if (is_small_name(old.name) && next.find(old.name) == nullptr)
        if (const auto removed = remove_file(options_.to / old.name); !removed) return removed;
    for (const std::string& name : files_.names)
      if (!options_.with_secrets && is_secret_name(name)) report_.left_out.push_back(name);
    for (const std::string& what : files_.left_out) report_.notes.push_back("not copied: " + printable(what, 300));
    return {};
  }

  void count(bool changed) { ++(changed ? report_.files_written : report_.files_unchanged); }

  const BackupOptions& options_;
  BackupReport report_;
  std::unique_ptr<EventLog> source_, log_;
  Seq before_ = 0;  // records that the backup had
  BackupManifest last_;
  std::optional<Checkpoint> checkpoint_;
  Held held_;
  DataDirFiles files_;
};

}  // namespace

Result<BackupReport> backup(const BackupOptions& options) { return Backup(options).run(); }

// ---- looking into a backup -------------------------------------------------------------------------------

namespace {

// A backup, open for reading.
struct OpenBackup {
  std::unique_ptr<EventLog> log;
  BackupManifest manifest;
  std::optional<BackupManifest> next;  // of a run that was interrupted while it replaced files
};

Result<OpenBackup> open_backup(const fs::path& from) {
  OpenBackup backup;
  Result<BackupManifest> manifest = read_manifest(manifest_file(from));
  Result<BackupManifest> next = read_manifest(next_manifest_file(from));
  if (next) backup.next = *next;
  if (!manifest && manifest.error().code == Errc::not_found) {
    std::error_code ignored;
    const bool begun = fs::exists(from / "events" / "CURRENT", ignored);
    return Error{Errc::not_found, begun ? quoted(from) + " holds no finished backup (backup.json is missing): run " +
                                              "`ledger backup` again"
                                        : "there is no backup in " + quoted(from) + " (backup.json is missing)"};
  }
  if (!manifest) return manifest.error();
  backup.manifest = *std::move(manifest);
  auto log = EventLog::follow({.dir = from / "events"});
  if (!log) return log.error();
  backup.log = *std::move(log);
  if (backup.log->copy_purpose() != CopyPurpose::backup)
    return Error{Errc::invalid, "the log in " + quoted(from) + " is not that of a backup"};
  return backup;
}

// The file as one of the two lists has it.
Result<const BackupFile*> intact_file(const fs::path& from, const OpenBackup& backup, const BackupFile& file,
                                      std::string* problem) {
  const Result<bool> as_listed = is_intact(from, file, problem);
  if (!as_listed) return as_listed.error();
  if (*as_listed) return &file;
  const BackupFile* newer = backup.next ? backup.next->find(file.name) : nullptr;
  if (newer == nullptr) return nullptr;
  std::string ignored;
  const Result<bool> as_next = is_intact(from, *newer, &ignored);
  if (!as_next) return as_next.error();
  return *as_next ? newer : nullptr;
}

class Checker {
 public:
  Checker(const BackupCheckOptions& options, const OpenBackup& backup) : options_(options), backup_(backup) {}

  Result<BackupCheck> run() {
    const EventLog& log = *backup_.log;
    check_.manifest = backup_.manifest;
    check_.head.size = log.head();
    if (const Result<TreeHead> tree = log.tree())
      check_.head = *tree;
    else
      problem(tree.error().message);
    compare("backup.json", backup_.manifest.head);
    if (backup_.manifest.ledger != log.id())
      problem("backup.json is of ledger " + printable(backup_.manifest.ledger, 40) + ", the log of ledger " + log.id());
    if (options_.read_all)
      if (const Result<void> read = read_records(); !read) return read.error();
    if (const Result<void> read = read_files(); !read) return read.error();
    if (const Result<void> compared = compare_checkpoints(); !compared) return compared.error();
    const Result<Record> first = log.read(1), last = log.read(log.head());
    if (first) check_.first = first->time;
    if (last) check_.last = last->time;
    const Result<void> nodes = log.each_node([&](std::string_view, const Result<NodeState>&) {
      ++check_.nodes;
      return true;
    });
    if (!nodes) problem(nodes.error().message);
    return std::move(check_);
  }

 private:
  void problem(std::string text) { check_.problems.push_back(std::move(text)); }

  // Whether the log has these records; what says so is named.
  bool compare(const std::string& where, const TreeHead& head) {
    const Seq there = backup_.log->head();
    if (head.size > there) {
      problem(where + " saw " + std::to_string(head.size) + " records, and the backup's log has " +
              std::to_string(there));
      return false;
    }
    const Result<TreeHash> root = root_over(*backup_.log, head.size);
    if (root && *root == head.root) return true;
    problem(root ? where + " saw other records than the backup's log has among the first " + std::to_string(head.size)
                 : root.error().message);
    return false;
  }

  Result<void> read_records() {
    const Result<TreeHead> read = read_back(*backup_.log, 1, backup_.log->head(), options_.progress);
    if (!read && read.error().code != Errc::corrupt) return read.error();
    if (!read) problem(read.error().message);
    return {};
  }

  Result<void> read_files() {
    for (const BackupFile& file : backup_.manifest.files) {
      if (!options_.read_all && !is_small_name(file.name)) continue;
      std::string what;
      const Result<const BackupFile*> intact = intact_file(options_.from, backup_, file, &what);
      if (!intact) return intact.error();
      if (*intact == nullptr) problem(what);
    }
    return {};
  }

  Result<void> compare_checkpoints() {
    const Result<NoteVerifier> key = read_checkpoint_key(checkpoint_public_file(options_.from));
    if (!key && key.error().code == Errc::not_found && options_.against.empty()) return {};
    if (!key) return key.error();
    for (const auto& file : {all_checkpoints_file(options_.from), latest_checkpoint_file(options_.from)}) {
      const auto checkpoints = read_checkpoints(file, *key);
      if (!checkpoints) {
        problem(checkpoints.error().message);
        continue;
      }
      for (const Checkpoint& checkpoint : *checkpoints) {
        if (!compare("the checkpoint in " + quoted(file), checkpoint.head)) continue;
        ++check_.checkpoints;
        remember(checkpoint);
        if (file == all_checkpoints_file(options_.from)) check_.all.push_back(checkpoint);
      }
    }
    for (const fs::path& file : options_.against)
      if (const Result<void> compared = compare_kept(file, *key); !compared) return compared;
    return {};
  }

  // Kept elsewhere: it may have seen more than the backup, and that is what restoring loses.
  Result<void> compare_kept(const fs::path& file, const NoteVerifier& key) {
    const Result<std::string> text = read_file(file, 16 << 20);
    if (!text) return text.error();
    const Result<std::vector<Checkpoint>> kept = open_checkpoints(*text, key);
    if (!kept) return Error{Errc::invalid, quoted(file) + ": " + kept.error().message};
    for (const Checkpoint& checkpoint : *kept) {
      if (checkpoint.head.size > backup_.log->head())
        check_.lost.push_back(checkpoint);
      else if (compare("the checkpoint in " + quoted(file), checkpoint.head))
        ++check_.checkpoints;
      remember(checkpoint);
    }
    return {};
  }

  void remember(const Checkpoint& checkpoint) {
    if (!check_.newest_known || checkpoint.head.size > check_.newest_known->head.size)
      check_.newest_known = checkpoint;
  }

  const BackupCheckOptions& options_;
  const OpenBackup& backup_;
  BackupCheck check_;
};

// ---- the way back ----------------------------------------------------------------------------------------

class Restore {
 public:
  explicit Restore(const RestoreOptions& options) : options_(options) {}

  Result<RestoreReport> run() {
    if (const Result<void> checked = check(); !checked) return checked.error();
    if (const Result<void> begun = begin(); !begun) return begun.error();
    if (const Result<void> files = put_files(); !files) return files.error();
    const Result<LogCopied> copied = copy_records(*backup_.log, *log_, report_.restored, options_.backup.progress);
    if (!copied) return copied.error();
    if (const Result<void> settled = settle_checkpoints(); !settled) return settled.error();
    if (const Result<void> flushed = log_->flush(); !flushed) return flushed.error();
    if (const Result<void> ended = end(); !ended) return ended.error();
    return std::move(report_);
  }

 private:
  Result<void> check() {
    const fs::path& from = options_.backup.from;
    if (const Result<void> apart = check_apart(from, options_.data_dir); !apart) return apart;
    Result<OpenBackup> opened = open_backup(from);
    if (!opened) return opened.error();
    backup_ = *std::move(opened);
    if (const Result<void> fits = check_target(); !fits) return fits;
    Result<BackupCheck> checked = Checker(options_.backup, backup_).run();
    if (!checked) return checked.error();
    report_.backup = *std::move(checked);
    if (!report_.backup.problems.empty()) {
      const std::size_t more = report_.backup.problems.size() - 1;
      return Error{Errc::corrupt, "the backup in " + quoted(from) + " is damaged: " + report_.backup.problems.front() +
                                      (more > 0 ? ", and " + std::to_string(more) + " more" : "") +
                                      ". Nothing was restored; `ledger restore --check --from` lists everything. " +
                                      "Take another backup"};
    }
    const Seq head = report_.backup.head.size;
    report_.restored = options_.to_seq.value_or(head);
    if (report_.restored < 1 || report_.restored > head)
      return Error{Errc::invalid, "the backup holds records 1 to " + std::to_string(head) + ", there is no record " +
                                      std::to_string(report_.restored) + " to restore to"};
    report_.head_before = head;
    if (report_.backup.newest_known) report_.head_before = std::max(head, report_.backup.newest_known->head.size);
    return {};
  }

  // Whether something is in the way. Who else could write there is kept out by the log's lock.
  Result<void> check_target() const {
    const fs::path& dir = options_.data_dir;
    if (is_unused(dir)) return {};
    const auto there = EventLog::follow({.dir = dir / "events"});
    if (there && (*there)->copy_purpose() == CopyPurpose::restore) return {};
    std::error_code ignored;
    return Error{Errc::invalid, quoted(dir) + " is not empty" +
                                    (there && (*there)->copy_purpose() == CopyPurpose::backup ? ": it is a backup"
                                     : fs::exists(dir / "server.json", ignored)
                                         ? ": a server runs on it, or ended without stopping"
                                     : there ? ": it is a data directory"
                                             : "") +
                                    ". A restore overwrites nothing: name a directory that does not exist, then move " +
                                    "the old one away and the new one there"};
  }

  Result<void> begin() {
    if (const Result<void> made = ensure_private_directory(options_.data_dir); !made) return made;
    if (const Result<void> made = ensure_private_directory(options_.data_dir / "events"); !made) return made;
    EventLog::Options copy;
    copy.dir = options_.data_dir / "events";
    copy.copy_of = EventLog::Options::CopyOf{backup_.log->id(), CopyPurpose::restore};
    auto log = EventLog::open(copy);
    if (!log) return log.error();
    log_ = *std::move(log);
    const Result<bool> same = is_beginning_of(*log_, *backup_.log);
    if (!same) return same.error();
    if (*same && log_->head() <= report_.restored) return {};
    return Error{Errc::conflict, "in " + quoted(options_.data_dir) + " another restore was begun: of another backup, or " +
                                     "of more records; remove the directory and run this again"};
  }

  Result<void> put_files() {
    const fs::path& from = options_.backup.from;
    for (const BackupFile& listed : backup_.manifest.files) {
      std::string problem;
      const Result<const BackupFile*> file = intact_file(from, backup_, listed, &problem);
      if (!file) return file.error();
      if (*file == nullptr) return Error{Errc::corrupt, problem};
      bool changed = false;
      if (is_small_name(listed.name)) {
        const Result<HeldFile> held = hold_file(from, listed.name);
        if (!held) return held.error();
        if (const auto put = put_file(options_.data_dir, listed.name, *held, &changed); !put) return put.error();
      } else if (const auto copied = copy_file(from, options_.data_dir, listed.name, nullptr, &changed); !copied) {
        return copied.error();
      }
    }
    if (backup_.manifest.secrets) return {};
    for (const char* name : {"cred", "tls", "token"}) report_.missing.emplace_back(name);
    return {};
  }

  // Checkpoints that saw more than is restored: the server must not find them again as news (checkpoint_keeper.h).
  Result<void> settle_checkpoints() {
    std::vector<Checkpoint> kept, lost = report_.backup.lost;
    for (const Checkpoint& checkpoint : report_.backup.all)
      (checkpoint.head.size <= report_.restored ? kept : lost).push_back(checkpoint);
    if (lost.empty()) return {};
    const fs::path& dir = options_.data_dir;
    if (const auto made = ensure_private_directory(dir / "checkpoints"); !made) return made;
    const Result<NoteVerifier> key = read_checkpoint_key(checkpoint_public_file(dir));
    if (!key) return key.error();
    Result<std::vector<Checkpoint>> before = read_checkpoints(lost_checkpoints_file(options_.backup.from), *key);
    if (!before) return before.error();
    before->insert(before->end(), lost.begin(), lost.end());
    if (const auto written = write_checkpoints(lost_checkpoints_file(dir), *before); !written) return written;
    if (const auto written = write_checkpoints(all_checkpoints_file(dir), kept); !written) return written;
    if (kept.empty()) return remove_file(latest_checkpoint_file(dir));
    return write_file(latest_checkpoint_file(dir), kept.back().note.str(), 0644);
  }

  std::string note() const {
    const BackupManifest& manifest = report_.backup.manifest;
    std::string text = "restored from the backup in " + printable(options_.backup.from.string(), 300) + ", made " +
                       manifest.time.to_string() + " of " + printable(manifest.host, 100) + ":" +
                       printable(manifest.source, 300);
    if (report_.head_before > report_.restored)
      text += "; records " + std::to_string(report_.restored + 1) + " to " + std::to_string(report_.head_before) +
              " are lost";
    return text + "; what was recorded after " + report_.last.to_string() + " is not known here";
  }

  Result<void> end() {
    const Result<Record> last = log_->read(report_.restored);
    if (!last) return last.error();
    report_.last = last->time;
    report_.record = report_.restored + 1;
    Record record;
    record.seq = report_.record;
    record.time = std::max(last->time, options_.now);
    record.server = "command-line-" + log_->id().substr(0, 4);
    record.epoch = std::max<std::int64_t>(1, last->epoch) + 1;
    record.event = EpochStarted{.cause = "restored",
                                .head_before = static_cast<std::int64_t>(report_.head_before),
                                .head_after = static_cast<std::int64_t>(report_.restored)};
    record.note = note();
    return log_->end_copy(record);
  }

  const RestoreOptions& options_;
  OpenBackup backup_;
  RestoreReport report_;
  std::unique_ptr<EventLog> log_;
};

}  // namespace

Result<BackupCheck> check_backup(const BackupCheckOptions& options) {
  const Result<OpenBackup> backup = open_backup(options.from);
  if (!backup) return backup.error();
  return Checker(options, *backup).run();
}

Result<RestoreReport> restore(const RestoreOptions& options) { return Restore(options).run(); }

}  // namespace ledger
