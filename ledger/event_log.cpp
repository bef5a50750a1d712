#include "ledger/event_log.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <system_error>

#include "ledger/credentials.h"
#include "ledger/event_codec.h"
#include "ledger/log_frames.h"

namespace ledger {
namespace {

constexpr int kStoreFormat = 2;

using rocksdb::Slice;
using rocksdb::Status;

// ---- keys ------------------------------------------------------------------------------------------------

constexpr std::size_t kSeqBytes = 8;

void put_seq(std::string& out, Seq seq) {
  for (int shift = 56; shift >= 0; shift -= 8) out.push_back(static_cast<char>((seq >> shift) & 0xFF));
}

Seq get_seq(const char* bytes) {
  Seq seq = 0;
  for (std::size_t i = 0; i < kSeqBytes; ++i) seq = seq << 8 | static_cast<unsigned char>(bytes[i]);
  return seq;
}

std::string event_key(Seq seq) {
  std::string key;
  put_seq(key, seq);
  return key;
}

// A value with a NUL would break the order of keys; the values we write cannot hold one, a question may.
std::string index_prefix(Index index, std::string_view value) {
  std::string key(1, static_cast<char>(index));
  key += value.substr(0, value.find('\0'));
  key.push_back('\0');
  return key;
}

std::string index_key(Index index, std::string_view value, Seq seq) {
  std::string key = index_prefix(index, value);
  put_seq(key, seq);
  return key;
}

// ---- options ---------------------------------------------------------------------------------------------

// RocksDB's own warnings, for people who look into trouble: in <dir>/LOG; those of the run before in LOG.old. Its
// own logger would end the process by an assertion (in Debian's build) when it cannot write two of them: on a full
// disk.
class Warnings : public rocksdb::Logger {
 public:
  // No file where there is no directory given.
  explicit Warnings(std::filesystem::path dir) : Logger(rocksdb::InfoLogLevel::WARN_LEVEL), dir_(std::move(dir)) {}
  ~Warnings() override {
    if (file_ != nullptr) std::fclose(file_);
  }

  using Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    if (dir_.empty()) return;
    char text[1024];
    std::vsnprintf(text, sizeof text, format, arguments);
    const std::lock_guard lock(mutex_);
    if (file_ == nullptr) open();
    if (file_ == nullptr || written_ > kMaxBytes) return;
    const int length =
        std::fprintf(file_, "%s %s\n", Time::now().to_string().c_str(), printable(text, 1000).c_str());
    std::fflush(file_);  // what could not be written is not worth a word
    written_ += length > 0 ? length : 0;
  }

 private:
  static constexpr std::int64_t kMaxBytes = 1 << 20;

  void open() {
    std::error_code ignored;
    std::filesystem::rename(dir_ / "LOG", dir_ / "LOG.old", ignored);
    file_ = std::fopen((dir_ / "LOG").c_str(), "ae");
  }

  const std::filesystem::path dir_;
  std::mutex mutex_;
  std::FILE* file_ = nullptr;
  std::int64_t written_ = 0;
};

// After a full disk RocksDB would go on by itself, in a thread of its own. What is on disk is not known any more;
// the owner opens the log anew.
class NoRecovery : public rocksdb::EventListener {
 public:
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, Status, bool* recover) override { *recover = false; }
};

// `log_dir`: where RocksDB's warnings go; empty: nowhere.
rocksdb::DBOptions db_options(const EventLog::Options& options, const std::filesystem::path& log_dir) {
  rocksdb::DBOptions db;
  db.env = options.env != nullptr ? options.env : rocksdb::Env::Default();
  db.create_if_missing = options.create;
  db.create_missing_column_families = true;  // the tree, in a log from before there was one
  db.paranoid_checks = true;  // any damage met on open or compaction is an error, not a guess
  // Drops a torn batch at the very end (never acknowledged), refuses damage anywhere before it.
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  db.track_and_verify_wals_in_manifest = true;  // a closed write-ahead log that was deleted is damage; check_files()
  db.recycle_log_file_num = 0;                  // old bytes must not be mistaken for new ones
  db.manual_wal_flush = false;                  // every write reaches the file before it is synced
  db.max_total_wal_size = 128 << 20;            // bounds the work of the next open
  db.max_open_files = 512;                      // leaves file descriptors to the agents
  db.max_background_jobs = 2;
  db.info_log = std::make_shared<Warnings>(log_dir);
  db.keep_log_file_num = 2;
  db.stats_dump_period_sec = 0;  // no timers of its own
  db.stats_persist_period_sec = 0;
  db.listeners.push_back(std::make_shared<NoRecovery>());
  db.max_bgerror_resume_count = 0;
  return db;
}

rocksdb::ColumnFamilyOptions family_options(std::size_t write_buffer_bytes) {
  rocksdb::ColumnFamilyOptions family;
  family.write_buffer_size = write_buffer_bytes;
  family.compression = rocksdb::kLZ4Compression;  // records repeat themselves; LZ4 costs less than the disk saved
  rocksdb::BlockBasedTableOptions table;
  table.block_size = 16 << 10;  // history is read in runs
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return family;
}

rocksdb::ColumnFamilyOptions tree_options() {
  rocksdb::ColumnFamilyOptions family = family_options(8 << 20);
  family.compression = rocksdb::kNoCompression;  // hashes cannot be made smaller
  return family;
}

enum Family { kMeta, kEvents, kIndex, kNodes, kTree, kFamilies };

std::vector<rocksdb::ColumnFamilyDescriptor> families() {
  return {{rocksdb::kDefaultColumnFamilyName, family_options(1 << 20)},
          {"events", family_options(32 << 20)},
          {"index", family_options(16 << 20)},
          {"nodes", family_options(16 << 20)},
          {"tree", tree_options()}};
}

// In `default`.
constexpr const char* kFormat = "format";
constexpr const char* kId = "id";
constexpr const char* kProgram = "program";   // version of the newest program that owned the store
constexpr const char* kTreeIsWhole = "tree";  // from the moment the tree is known to be whole
constexpr const char* kUpgrade = "upgrade";   // "<format it had> <records it had>"
constexpr const char* kCopy = "copy";         // "backup" or "restore"
constexpr std::uint64_t kTreeBuildBatch = 4096;

std::string_view name_of(CopyPurpose purpose) {
  return purpose == CopyPurpose::backup ? "backup" : purpose == CopyPurpose::restore ? "restore" : "";
}

CopyPurpose purpose_from(std::string_view name) {
  return name == "backup" ? CopyPurpose::backup : name == "restore" ? CopyPurpose::restore : CopyPurpose::none;
}

// In `default`, one for each range that was dropped: the prefix and `from`; big-endian `to`, the times of the first and
// of the last record, the stage, the digest.
constexpr std::string_view kArchivedPrefix = "archived/";
constexpr std::size_t kArchivedBytes = 3 * kSeqBytes + 1 + sizeof(TreeHash);

std::string archived_key(Seq from) {
  std::string key(kArchivedPrefix);
  put_seq(key, from);
  return key;
}

std::string archived_value(const ArchivedRange& range) {
  std::string value;
  put_seq(value, range.to);
  put_seq(value, static_cast<std::uint64_t>(range.first_time.micros));
  put_seq(value, static_cast<std::uint64_t>(range.last_time.micros));
  value.push_back(static_cast<char>(range.stage));
  value += view_of(range.digest);
  return value;
}

std::optional<ArchivedRange> parse_archived(const Slice& key, const Slice& value) {
  if (key.size() != kArchivedPrefix.size() + kSeqBytes || value.size() != kArchivedBytes) return std::nullopt;
  ArchivedRange range;
  range.from = get_seq(key.data() + kArchivedPrefix.size());
  range.to = get_seq(value.data());
  range.first_time.micros = static_cast<std::int64_t>(get_seq(value.data() + kSeqBytes));
  range.last_time.micros = static_cast<std::int64_t>(get_seq(value.data() + 2 * kSeqBytes));
  range.stage = static_cast<ArchivedRange::Stage>(value[3 * kSeqBytes]);
  range.digest = *tree_hash_from({value.data() + 3 * kSeqBytes + 1, sizeof(TreeHash)});
  const bool known = range.stage == ArchivedRange::Stage::dropped || range.stage == ArchivedRange::Stage::removing ||
                     range.stage == ArchivedRange::Stage::removed;
  if (range.from == 0 || range.to < range.from || !known) return std::nullopt;
  return range;
}

// ---- errors ----------------------------------------------------------------------------------------------

Error error_of(const Status& status, const std::filesystem::path& dir) {
  const std::string text = status.ToString();
  const auto has = [&](std::string_view part) { return text.find(part) != std::string::npos; };
  if (has("lock file") || has("LOCK: Resource temporarily unavailable") || has("lock hold by current process"))
    return {Errc::locked, "another ledger process uses " + dir.string() +
                              "; stop it first, or use --data-dir to name another directory"};
  if (has("Read-only file system"))
    return {Errc::io, "the file system of " + dir.string() + " is read-only (" + text +
                          "); an error of the disk does that: see dmesg, mount it writable and start again"};
  if (has("Too many open files"))
    return {Errc::io, "no file can be opened for " + dir.string() + " (" + text +
                          "); raise the limit of open files (LimitNOFILE=, ulimit -n) and start again"};
  if (has("Permission denied"))
    return {Errc::io, "cannot open " + dir.string() + " (" + text + "); run as its owner or name another --data-dir"};
  if (status.IsNoSpace() || has("No space left"))
    return {Errc::io, "no space left for " + dir.string() + " (" + text + "); free space and start again"};
  if (status.IsCorruption())
    return {Errc::corrupt, "the log in " + dir.string() + " is damaged (" + text +
                               "); do not write to it: keep a copy, then restore a backup"};
  if (status.IsInvalidArgument() && has("does not exist"))
    return {Errc::not_found, "there is no log in " + dir.string()};
  return {Errc::io, "the log in " + dir.string() + ": " + text};
}

// What is wrong with a file in RocksDB's log format and RocksDB would not say (log_frames.h). A file that cannot be read
// is RocksDB's to complain of: it may have been deleted meanwhile.
std::optional<std::string> changed_frame(rocksdb::Env& env, const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  if (!name.ends_with(".log") && !name.starts_with("MANIFEST-")) return std::nullopt;
  std::unique_ptr<rocksdb::SequentialFile> file;
  if (!env.NewSequentialFile(path.string(), &file, {}).ok()) return std::nullopt;
  LogFrames frames;
  std::string block(LogFrames::kBlock, '\0');
  Slice got;
  do {
    if (!file->Read(block.size(), &got, block.data()).ok()) return std::nullopt;
    frames.check({got.data(), got.size()});
  } while (got.size() == block.size() && !frames.damage());
  return frames.damage();
}

Result<void> check_frames(const EventLog::Options& options) {
  std::vector<std::string> files;
  rocksdb::Env* env = options.env != nullptr ? options.env : rocksdb::Env::Default();
  if (!env->GetChildren(options.dir.string(), &files).ok()) return {};  // none yet, or open() says what is wrong
  for (const std::string& file : files)
    if (const auto damage = changed_frame(*env, options.dir / file))
      return Error{Errc::corrupt, "the log in " + options.dir.string() + " is damaged (" + file + " " + *damage +
                                      "); do not write to it: keep a copy, then restore a backup"};
  return {};
}

Error newer_format(const std::filesystem::path& dir, const std::string& format, const std::string& program) {
  return {Errc::invalid,
          "the log in " + dir.string() + " has store format " + printable(format, 20) +
              (program.empty() ? "" : ", written by ledger " + printable(program, 40)) + "; this is ledger " +
              LEDGER_VERSION + ", which reads formats up to " + std::to_string(kStoreFormat) +
              ": use the release that wrote it, or a newer one"};
}

// A store of a later format may have column families that we do not know, and then RocksDB speaks first.
Error why_not_opened(const Status& status, const EventLog::Options& options) {
  if (status.ToString().find("olumn families not opened") == std::string::npos) return error_of(status, options.dir);
  rocksdb::DBOptions db_opts = db_options(options, "");
  db_opts.create_if_missing = false;
  db_opts.create_missing_column_families = false;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* opened = nullptr;
  const std::vector<rocksdb::ColumnFamilyDescriptor> wanted(1, families().front());
  const Status readable =
      rocksdb::DB::OpenForReadOnly(db_opts, options.dir.string(), wanted, &handles, &opened);
  const std::unique_ptr<rocksdb::DB> db(opened);
  std::string format, program;
  if (readable.ok()) {
    (void)db->Get({}, handles[kMeta], kProgram, &program);
    if (!db->Get({}, handles[kMeta], kFormat, &format).ok()) format.clear();
  }
  for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
  return format.empty() ? error_of(status, options.dir) : newer_format(options.dir, format, program);
}

// RocksDB's manifest does not know the write-ahead log in use: without that file the log would open without its
// newest records, and nobody would be told. A store that was ever open has one, and a table.
Result<void> check_files(const EventLog::Options& options) {
  std::vector<std::string> files;
  rocksdb::Env* env = options.env != nullptr ? options.env : rocksdb::Env::Default();
  if (!env->GetChildren(options.dir.string(), &files).ok()) return {};  // none yet, or open() says what is wrong
  const auto any = [&](std::string_view suffix) {
    return std::any_of(files.begin(), files.end(), [&](const std::string& file) { return file.ends_with(suffix); });
  };
  if (any(".sst") && !any(".log"))
    return Error{Errc::corrupt, "the log in " + options.dir.string() +
                                    " has lost its write-ahead log (<number>.log), and with it the newest records: " +
                                    "put the file back, or restore a backup"};
  return check_frames(options);
}

}  // namespace

// ---- state -----------------------------------------------------------------------------------------------

struct EventLog::State {
  std::filesystem::path dir;
  std::unique_ptr<rocksdb::DB> db;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;  // freed before db
  std::filesystem::path secondary_dir;                // follower only: scratch space, removed at the end
  std::string id;
  int format = kStoreFormat;  // as it was found
  CopyPurpose copy = CopyPurpose::none;
  std::atomic<Seq> head{0};
  bool owner = false;
  std::unique_ptr<ArchiveShelf> shelf;
  mutable std::mutex edge_mutex;
  TreeEdge edge;  // owner only: of the tree over the records up to head; guarded by edge_mutex

  ~State() {
    for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
    db.reset();
    std::error_code ignored;  // a scratch directory left behind harms nobody
    if (!secondary_dir.empty()) std::filesystem::remove_all(secondary_dir, ignored);
  }

  Result<void> checked(const Status& status) const {
    if (status.ok()) return {};
    return error_of(status, dir);
  }

  std::unique_ptr<rocksdb::Iterator> iterate(Family family) const {
    rocksdb::ReadOptions options;
    options.readahead_size = 256 << 10;
    return std::unique_ptr<rocksdb::Iterator>(db->NewIterator(options, handles[family]));
  }

  // The values of from..to of a family whose keys are seqs.
  Result<void> walk(Family family, Seq from, Seq to, const VisitBytes& visit) const {
    const auto it = iterate(family);
    for (it->Seek(event_key(from)); it->Valid(); it->Next()) {
      if (it->key().size() != kSeqBytes)
        return Error{Errc::corrupt, "the log in " + dir.string() + " holds a key that is not a seq"};
      const Seq seq = get_seq(it->key().data());
      if (seq > to || !visit(seq, {it->value().data(), it->value().size()})) break;
    }
    return checked(it->status());
  }

  Result<Seq> last_key(Family family) const {
    const auto it = iterate(family);
    it->SeekToLast();
    if (!it->status().ok()) return error_of(it->status(), dir);
    return it->Valid() && it->key().size() == kSeqBytes ? get_seq(it->key().data()) : Seq{0};
  }

  Result<void> find_head() {
    const Result<Seq> last = last_key(kEvents);
    if (!last) return last.error();
    head = *last;
    return {};
  }

  bool has_tree() const { return handles.size() > kTree; }

  // Node (level, index) is completed by its last entry, and stored there.
  Result<TreeHash> node(unsigned level, std::uint64_t index) const {
    const auto missing = [&](const char* what) {
      return Error{Errc::corrupt, "the tree of the log in " + dir.string() + what + " node " + std::to_string(level) +
                                      "/" + std::to_string(index) + "; run `ledger verify`"};
    };
    if (!has_tree() || level > 63 || index >= UINT64_MAX >> level) return missing(" has no");
    std::string hashes;
    const Status status = db->Get({}, handles[kTree], event_key((index + 1) << level), &hashes);
    if (status.IsNotFound()) return missing(" has no");
    if (!status.ok()) return error_of(status, dir);
    const std::size_t at = level * sizeof(TreeHash);
    if (hashes.size() < at + sizeof(TreeHash)) return missing(" is damaged at");
    return tree_hash_from(std::string_view(hashes).substr(at, sizeof(TreeHash)));
  }

  ReadNode nodes() const {
    return [this](unsigned level, std::uint64_t index) { return node(level, index); };
  }

  Result<void> load_tree(const Options& options) {
    std::string ignored;
    const Status whole = db->Get({}, handles[kMeta], kTreeIsWhole, &ignored);
    if (!whole.ok() && !whole.IsNotFound()) return error_of(whole, dir);
    const Result<Seq> size = last_key(kTree);
    if (!size) return size.error();
    if (whole.ok() ? *size != head : *size > head)
      return Error{Errc::corrupt, "the log in " + dir.string() + " has " + std::to_string(head) +
                                      " records and a tree over " + std::to_string(*size) +
                                      ": records or parts of the tree were removed; keep a copy, run `ledger " +
                                      "verify`, then restore a backup"};
    Result<TreeEdge> loaded = TreeEdge::load(*size, nodes());
    if (!loaded) return loaded.error();
    edge = std::move(*loaded);
    if (!whole.ok())
      if (const Result<void> built = build_tree(options); !built) return built;
    return whole.ok() && format == kStoreFormat ? Result<void>() : note_format();
  }

  // The store is whole in the present format from here on.
  Result<void> note_format() {
    rocksdb::WriteBatch batch;
    batch.Put(handles[kMeta], kTreeIsWhole, "1");
    if (format != kStoreFormat) {
      batch.Put(handles[kMeta], kUpgrade, std::to_string(format) + " " + std::to_string(head));
      batch.Put(handles[kMeta], kFormat, std::to_string(kStoreFormat));
    }
    rocksdb::WriteOptions write;
    write.sync = true;
    return checked(db->Write(write, &batch));
  }

  // For a log from before there was a tree. What an interrupted one has done is kept.
  Result<void> build_tree(const Options& options) {
    const Seq total = head;
    rocksdb::WriteBatch batch;
    const auto it = iterate(kEvents);
    for (it->Seek(event_key(edge.size() + 1)); it->Valid(); it->Next()) {
      if (it->key().size() != kSeqBytes || get_seq(it->key().data()) != edge.size() + 1)
        return Error{Errc::corrupt, "the log in " + dir.string() + " has no record " +
                                        std::to_string(edge.size() + 1) + "; keep a copy, run `ledger verify`, then " +
                                        "restore a backup"};
      put_entry({it->value().data(), it->value().size()}, edge, batch);
      if (edge.size() % kTreeBuildBatch != 0) continue;
      if (const Status status = db->Write({}, &batch); !status.ok()) return error_of(status, dir);
      batch.Clear();
      if (options.on_tree_progress) options.on_tree_progress(edge.size(), total);
    }
    if (!it->status().ok()) return error_of(it->status(), dir);
    if (const Status status = db->Write({}, &batch); !status.ok()) return error_of(status, dir);
    if (options.on_tree_progress && total > 0) options.on_tree_progress(total, total);
    return {};
  }

  // The next entry of the tree, and the nodes it completes.
  void put_entry(std::string_view record, TreeEdge& tree, rocksdb::WriteBatch& batch) const {
    std::vector<TreeHash> completed;
    tree.append(leaf_hash(record), &completed);
    const Slice hashes(completed.front().data(), completed.size() * sizeof(TreeHash));
    batch.Put(handles[kTree], event_key(tree.size()), hashes);
  }

  std::string meta(const char* key) const {
    std::string value;
    return db->Get({}, handles[kMeta], key, &value).ok() ? value : std::string();
  }

  Result<void> make_identity(const Options& options) {
    rocksdb::WriteBatch batch;
    batch.Put(handles[kMeta], kFormat, std::to_string(kStoreFormat));
    batch.Put(handles[kMeta], kId, options.copy_of ? options.copy_of->id : random_hex(8));
    batch.Put(handles[kMeta], kProgram, LEDGER_VERSION);
    batch.Put(handles[kMeta], kTreeIsWhole, "1");
    if (options.copy_of) batch.Put(handles[kMeta], kCopy, Slice(name_of(options.copy_of->purpose)));
    rocksdb::WriteOptions write;
    write.sync = true;
    if (const Status status = db->Write(write, &batch); !status.ok()) return error_of(status, dir);
    // From here on the store has a table, and check_files() can tell it from one that is being made.
    return checked(db->Flush({}, handles[kMeta]));
  }

  // Checks the store's format; a new store gets its id.
  Result<void> find_identity(const Options& options, bool may_create) {
    std::string text;
    Status status = db->Get({}, handles[kMeta], kFormat, &text);
    if (status.IsNotFound() && may_create) {
      if (const Result<void> made = make_identity(options); !made) return made;
      status = db->Get({}, handles[kMeta], kFormat, &text);
    }
    if (!status.ok()) return error_of(status, dir);
    format = 0;
    const auto [end, bad] = std::from_chars(text.data(), text.data() + text.size(), format);
    if (bad != std::errc() || end != text.data() + text.size() || format < 1)
      return Error{Errc::corrupt, "the log in " + dir.string() + " has the store format '" + printable(text, 20) +
                                      "', which is none; keep a copy, then restore a backup"};
    if (format > kStoreFormat) return newer_format(dir, text, meta(kProgram));
    copy = purpose_from(meta(kCopy));
    return checked(db->Get({}, handles[kMeta], kId, &id));
  }

  // Whoever opens for appending must know what this log is.
  Result<void> check_copy(const Options& options) {
    const CopyPurpose wanted = options.copy_of ? options.copy_of->purpose : CopyPurpose::none;
    const std::string what = "the log in " + dir.string() + " is ";
    if (wanted != CopyPurpose::none && copy == CopyPurpose::none)
      return Error{Errc::invalid, what + "a server's, and no unfinished copy: nothing is copied into it"};
    if (copy != wanted && copy == CopyPurpose::backup)
      return Error{Errc::invalid, what + "a backup, which only `ledger backup` writes to; `ledger restore` makes a " +
                                      "data directory of it"};
    if (copy != wanted)
      return Error{Errc::invalid, what + "half a restore, which was interrupted; run `ledger restore` again with " +
                                      "the same directories, or remove it"};
    if (options.copy_of && options.copy_of->id != id)
      return Error{Errc::conflict, what + "a copy of ledger " + id + ", not of ledger " + options.copy_of->id};
    return {};
  }

  // What a release says that refuses this store because it is newer.
  Result<void> note_program() {
    if (meta(kProgram) == LEDGER_VERSION) return {};
    return checked(db->Put({}, handles[kMeta], kProgram, LEDGER_VERSION));
  }

  // ---- archives ----

  Result<void> open_shelf(const Options& options) {
    shelf = std::make_unique<ArchiveShelf>(
        options.archives.empty() ? archive_directory(options.dir.parent_path()) : options.archives, id);
    return load_archived();
  }

  // What was dropped, from the store.
  Result<void> load_archived() {
    std::vector<ArchivedRange> ranges;
    const auto it = iterate(kMeta);
    const Slice prefix(kArchivedPrefix.data(), kArchivedPrefix.size());
    for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next()) {
      const std::optional<ArchivedRange> range = parse_archived(it->key(), it->value());
      if (!range)
        return Error{Errc::corrupt, "the log in " + dir.string() + " does not say rightly what was archived; keep a " +
                                        "copy, then restore a backup"};
      ranges.push_back(*range);
    }
    if (!it->status().ok()) return error_of(it->status(), dir);
    shelf->put(std::move(ranges));
    return {};
  }

  // The records from..to in order, wherever they are.
  using VisitEach = std::function<bool(Seq, const Result<std::string_view>&)>;
  Result<void> walk_events(Seq from, Seq to, const VisitEach& visit) const {
    const auto it = iterate(kEvents);  // before the shelf is asked: what it does not see any more, the shelf has
    it->Seek(event_key(from));
    for (Seq next = from;; it->Next()) {
      if (it->Valid() && it->key().size() != kSeqBytes)
        return Error{Errc::corrupt, "the log in " + dir.string() + " holds a key that is not a seq"};
      const Seq stored = it->Valid() ? get_seq(it->key().data()) : UINT64_MAX;
      if (!it->Valid() && !it->status().ok()) return error_of(it->status(), dir);
      const Seq gap_end = std::min(stored - 1, to);
      if (next <= gap_end && !shelf->scan(next, gap_end, visit)) return {};
      if (!it->Valid() || stored > to) return {};
      if (!visit(stored, std::string_view(it->value().data(), it->value().size())) || stored == to) return {};
      next = stored + 1;
    }
  }

  Result<void> write_synced(rocksdb::WriteBatch& batch) const {
    rocksdb::WriteOptions write;
    write.sync = true;
    return checked(db->Write(write, &batch));
  }
};

EventLog::EventLog(std::unique_ptr<State> state) : state_(std::move(state)) {}
EventLog::~EventLog() = default;

namespace {

// Opening writes a little, and RocksDB 7.8 as Debian builds it ends the process by an assertion when that fails.
constexpr std::uintmax_t kRoomToOpen = 1 << 20;

bool has_room_to_open(const std::filesystem::path& dir) {
  std::error_code unknown;
  std::filesystem::path place = dir;
  while (!place.empty() && !std::filesystem::exists(place, unknown) && place != place.parent_path())
    place = place.parent_path();
  const auto space = std::filesystem::space(place.empty() ? "." : place, unknown);
  return unknown || space.available >= kRoomToOpen;
}

}  // namespace

Result<std::unique_ptr<EventLog>> EventLog::open(const Options& options) {
  if (options.env == nullptr && !has_room_to_open(options.dir))
    return Error{Errc::io, "no space left for the log in " + options.dir.string() + "; free space and start again"};
  auto state = std::make_unique<State>();
  state->dir = options.dir;
  if (const Result<void> wal = check_files(options); !wal) return wal.error();
  rocksdb::DB* db = nullptr;
  std::vector<rocksdb::ColumnFamilyDescriptor> wanted = families();
  if (options.memtable_bytes != 0)
    for (auto& family : wanted) family.options.write_buffer_size = options.memtable_bytes;
  const Status status = rocksdb::DB::Open(db_options(options, options.env == nullptr ? options.dir : ""),
                                          options.dir.string(), wanted, &state->handles, &db);
  state->db.reset(db);
  if (!status.ok()) return why_not_opened(status, options);
  if (const Result<void> identity = state->find_identity(options, options.create); !identity)
    return identity.error();
  if (const Result<void> copy = state->check_copy(options); !copy) return copy.error();
  if (const Result<void> head = state->find_head(); !head) return head.error();
  if (const Result<void> archived = state->open_shelf(options); !archived) return archived.error();
  state->owner = true;
  if (const Result<void> tree = state->load_tree(options); !tree) return tree.error();
  if (const Result<void> noted = state->note_program(); !noted) return noted.error();
  return std::unique_ptr<EventLog>(new EventLog(std::move(state)));
}

Result<std::unique_ptr<EventLog>> EventLog::follow(const Options& options) {
  auto state = std::make_unique<State>();
  state->dir = options.dir;
  std::error_code missing;
  if (options.env == nullptr && !std::filesystem::exists(options.dir / "CURRENT", missing))
    return Error{Errc::not_found, "there is no log in " + options.dir.string() +
                                      "; name the server's --data-dir" +
                                      (missing ? " (" + missing.message() + ")" : "")};
  if (const Result<void> frames = check_frames(options); !frames) return frames.error();
  // RocksDB calls opening read-only beside a writer undefined; a secondary is made for it. It wants a directory
  // of its own for its info log.
  std::error_code no_temp;
  const std::filesystem::path temp = std::filesystem::temp_directory_path(no_temp);
  std::string scratch = (temp / "ledger-follow-XXXXXX").string();
  if (no_temp || mkdtemp(scratch.data()) == nullptr)
    return Error{Errc::io, "cannot make a temporary directory" + (no_temp ? "" : " in " + temp.string()) +
                               "; set TMPDIR to one that can be written"};
  state->secondary_dir = scratch;
  rocksdb::DBOptions db_opts = db_options(options, "");
  db_opts.create_if_missing = false;
  db_opts.create_missing_column_families = false;
  db_opts.max_open_files = -1;  // keeps files readable that the owner deletes meanwhile
  std::vector<rocksdb::ColumnFamilyDescriptor> wanted = families();
  std::vector<std::string> there;  // where that cannot be read, opening says why
  if (rocksdb::DB::ListColumnFamilies(db_opts, options.dir.string(), &there).ok() &&
      std::find(there.begin(), there.end(), wanted[kTree].name) == there.end())
    wanted.pop_back();  // its owner has not made the tree yet
  rocksdb::DB* db = nullptr;
  const Status status =
      rocksdb::DB::OpenAsSecondary(db_opts, options.dir.string(), scratch, wanted, &state->handles, &db);
  state->db.reset(db);
  if (!status.ok()) return error_of(status, options.dir);
  auto log = std::unique_ptr<EventLog>(new EventLog(std::move(state)));
  if (const Result<void> caught_up = log->catch_up(); !caught_up) return caught_up.error();
  if (const Result<void> identity = log->state_->find_identity(options, false); !identity) return identity.error();
  if (const Result<void> archived = log->state_->open_shelf(options); !archived) return archived.error();
  return log;
}

Result<void> EventLog::catch_up() {
  if (const Status status = state_->db->TryCatchUpWithPrimary(); !status.ok()) return error_of(status, state_->dir);
  if (state_->shelf != nullptr)
    if (const Result<void> archived = state_->load_archived(); !archived) return archived;
  return state_->find_head();
}

// ---- writing ---------------------------------------------------------------------------------------------

std::vector<std::pair<Index, std::string>> index_terms(const Record& record) {
  std::vector<std::pair<Index, std::string>> terms;
  const Kind kind = record.kind();
  if (is_server_wide(kind)) terms.emplace_back(Index::server_wide, "");
  if (!record.node.empty()) terms.emplace_back(Index::node, record.node);
  for (const std::string_view fingerprint : fingerprints_of(record)) {
    const std::pair<Index, std::string> term(Index::fingerprint, fingerprint);
    if (terms.empty() || terms.back() != term) terms.push_back(term);
  }
  if (!record.source.empty() && kind != Kind::token_accepted && kind != Kind::certificate_issued)
    terms.emplace_back(Index::address, host_of(record.source));
  if (const auto* issued = as<CertificateIssued>(record); issued != nullptr && !issued->serial.empty())
    terms.emplace_back(Index::serial, issued->serial);
  if (!record.request_id.empty()) terms.emplace_back(Index::request, record.request_id);
  return terms;
}

// Records on their way into the log: one batch.
struct EventLog::Appending {
  explicit Appending(const State& log, std::size_t bytes) : state(log), batch(bytes), edge(log.edge), seq(log.head) {}

  void put(const Record& record, std::string_view bytes) {
    if (record.seq != ++seq) fatal("the writer numbered records with a gap");
    batch.Put(state.handles[kEvents], event_key(record.seq), Slice(bytes.data(), bytes.size()));
    state.put_entry(bytes, edge, batch);
    for (const auto& [index, value] : index_terms(record))
      batch.Put(state.handles[kIndex], index_key(index, value, record.seq), Slice());
  }
  void put(std::span<const NodeEntry> nodes) {
    for (const auto& [name, node] : nodes) batch.Put(state.handles[kNodes], name, encode(node));
  }

  const State& state;
  rocksdb::WriteBatch batch;
  TreeEdge edge;  // only the owner's thread changes the log's
  Seq seq;
};

Result<void> EventLog::write(Appending& appending) {
  rocksdb::WriteOptions options;
  options.sync = true;
  if (const Status status = state_->db->Write(options, &appending.batch); !status.ok())
    return error_of(status, state_->dir);
  const std::lock_guard lock(state_->edge_mutex);
  state_->edge = std::move(appending.edge);
  state_->head = appending.seq;
  return {};
}

Result<void> EventLog::append(std::span<const Record> records, std::span<const NodeEntry> nodes) {
  Appending appending(*state_, records.size() * 1024);
  for (const Record& record : records) appending.put(record, encode(record));
  appending.put(nodes);
  return write(appending);
}

Result<void> EventLog::append_copies(std::span<const Copied> records, std::span<const NodeEntry> nodes) {
  if (state_->copy == CopyPurpose::none) fatal("records were copied into a log that is no copy");
  Appending appending(*state_, records.size() * 1024);
  for (const Copied& copied : records) appending.put(copied.record, copied.bytes);
  appending.put(nodes);
  return write(appending);
}

Result<void> EventLog::end_copy(const Record& last) {
  Appending appending(*state_, 4096);
  appending.put(last, encode(last));
  appending.batch.Delete(state_->handles[kMeta], kCopy);
  const Result<void> written = write(appending);
  if (written) state_->copy = CopyPurpose::none;
  return written;
}

CopyPurpose EventLog::copy_purpose() const { return state_->copy; }

// ---- upkeep ----------------------------------------------------------------------------------------------

Result<void> EventLog::flush() { return state_->checked(state_->db->Flush({}, state_->handles)); }

Result<void> EventLog::compact(std::atomic<bool>* stop, std::uint64_t spare_bytes) {
  std::uint64_t largest = 0;
  for (const FamilySize& size : sizes()) largest = std::max(largest, size.bytes + size.memory_bytes);
  // A disk that fills up meanwhile would end the server: RocksDB lets nothing be written after that.
  if (const auto free = free_bytes(); free && *free < largest + spare_bytes)
    return Error{Errc::unavailable, "merging the files of " + state_->dir.string() + " may need " +
                                        std::to_string((largest + spare_bytes) >> 20) + " MiB, and " +
                                        std::to_string(*free >> 20) + " MiB are free: make room first"};
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = false;  // the store's own compactions go on
  options.allow_write_stall = false;            // waits rather than make writers wait
  options.canceled = stop;
  for (rocksdb::ColumnFamilyHandle* family : state_->handles) {
    const Status status = state_->db->CompactRange(options, family, nullptr, nullptr);
    if (status.IsIncomplete()) return Error{Errc::unavailable, "stopped before all files were merged"};
    if (!status.ok()) return error_of(status, state_->dir);
  }
  return {};
}

std::vector<EventLog::FamilySize> EventLog::sizes() const {
  std::vector<FamilySize> all;
  for (rocksdb::ColumnFamilyHandle* family : state_->handles) {
    const auto number = [&](const std::string& property) {
      std::uint64_t value = 0;
      return state_->db->GetIntProperty(family, property, &value) ? value : 0;
    };
    all.push_back({.name = family->GetName(),
                   .entries = number(rocksdb::DB::Properties::kEstimateNumKeys),
                   .bytes = number(rocksdb::DB::Properties::kLiveSstFilesSize),
                   .memory_bytes = number(rocksdb::DB::Properties::kCurSizeAllMemTables)});
  }
  return all;
}

std::uint64_t EventLog::disk_bytes() const {
  std::uint64_t total = 0;
  for (const FamilySize& size : sizes()) total += size.bytes;
  rocksdb::VectorLogPtr logs;
  if (state_->db->GetSortedWalFiles(logs).ok())
    for (const auto& log : logs) total += log->SizeFileBytes();
  return total;
}

std::optional<EventLog::Upgrade> EventLog::upgrade() const {
  const std::string text = state_->meta(kUpgrade);
  Upgrade upgrade;
  const char* const end = text.data() + text.size();
  const auto [space, bad] = std::from_chars(text.data(), end, upgrade.from);
  if (bad != std::errc() || space == end || *space != ' ') return std::nullopt;
  if (std::from_chars(space + 1, end, upgrade.head).ec != std::errc()) return std::nullopt;
  return upgrade;
}

// The shelf knows first: whoever does not find a record in the store any more finds it there.
Result<void> EventLog::drop(const ArchivedRange& range, std::span<const Seq> kept) {
  if (range.to >= state_->head) fatal("the newest record must stay in the store");
  std::vector<ArchivedRange> ranges = state_->shelf->ranges();
  ranges.push_back(range);
  state_->shelf->put(std::move(ranges));
  rocksdb::WriteBatch batch;
  batch.Put(state_->handles[kMeta], archived_key(range.from), archived_value(range));
  Seq from = range.from;
  for (const Seq seq : kept) {
    if (seq > from) batch.DeleteRange(state_->handles[kEvents], event_key(from), event_key(seq));
    from = seq + 1;
  }
  if (from <= range.to) batch.DeleteRange(state_->handles[kEvents], event_key(from), event_key(range.to + 1));
  return state_->write_synced(batch);
}

Result<void> EventLog::set_stage(Seq from, ArchivedRange::Stage stage) {
  std::vector<ArchivedRange> ranges = state_->shelf->ranges();
  const auto range = std::find_if(ranges.begin(), ranges.end(), [&](const auto& one) { return one.from == from; });
  if (range == ranges.end()) fatal("an archive that is none was removed");
  range->stage = stage;
  rocksdb::WriteBatch batch;
  batch.Put(state_->handles[kMeta], archived_key(from), archived_value(*range));
  if (const Result<void> written = state_->write_synced(batch); !written) return written;
  state_->shelf->put(std::move(ranges));
  return {};
}

Result<void> EventLog::remove_index_entries(std::span<const IndexEntry> entries) {
  rocksdb::WriteBatch batch;
  for (const IndexEntry& entry : entries)
    batch.Delete(state_->handles[kIndex], index_key(entry.index, entry.value, entry.seq));
  return state_->write_synced(batch);
}

Result<void> EventLog::reclaim(Seq from, Seq to) const {
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = false;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  const std::string begin = event_key(from), end = event_key(to);
  const Slice first(begin), last(end);
  return state_->checked(state_->db->CompactRange(options, state_->handles[kEvents], &first, &last));
}

std::vector<ArchivedRange> EventLog::archived() const { return state_->shelf->ranges(); }
const ArchiveShelf& EventLog::archives() const { return *state_->shelf; }

Result<bool> EventLog::is_stored(Seq seq) const {
  rocksdb::PinnableSlice ignored;
  const Status status = state_->db->Get({}, state_->handles[kEvents], event_key(seq), &ignored);
  if (status.ok()) return true;
  if (status.IsNotFound()) return false;
  return error_of(status, state_->dir);
}

std::uint64_t EventLog::stored_bytes() const {
  std::uint64_t bytes = 0;
  const std::string begin = event_key(0), end = event_key(UINT64_MAX);
  const rocksdb::Range all(begin, end);
  rocksdb::SizeApproximationOptions options;
  options.include_memtables = true;
  options.include_files = true;
  if (!state_->db->GetApproximateSizes(options, state_->handles[kEvents], &all, 1, &bytes).ok()) return 0;
  return bytes;
}

std::optional<std::uint64_t> EventLog::free_bytes() const {
  std::uint64_t free = 0;
  if (!state_->db->GetEnv()->GetFreeSpace(state_->dir.string(), &free).ok()) return std::nullopt;
  return free;
}

// ---- reading ---------------------------------------------------------------------------------------------

namespace {

// The record under `seq`, checked against its key.
Result<Record> decode_at(Seq seq, std::string_view bytes) {
  Result<Record> record = decode_record(bytes);
  if (record && record->seq != seq)
    return Error{Errc::corrupt, "stored under seq " + std::to_string(seq) + " but says it is seq " +
                                    std::to_string(record->seq)};
  return record;
}

// Takes an index key apart; false when it is not one.
bool parse_index_key(const Slice& key, Index* index, std::string_view* value, Seq* seq) {
  if (key.size() < 2 + kSeqBytes || key[key.size() - kSeqBytes - 1] != '\0') return false;
  *index = static_cast<Index>(key[0]);
  *value = {key.data() + 1, key.size() - 2 - kSeqBytes};
  *seq = get_seq(key.data() + key.size() - kSeqBytes);
  return true;
}

}  // namespace

Seq EventLog::head() const { return state_->head; }
const std::string& EventLog::id() const { return state_->id; }

Result<std::string> EventLog::read_bytes(Seq seq) const {
  std::string bytes;
  const Status status = state_->db->Get({}, state_->handles[kEvents], event_key(seq), &bytes);
  if (status.IsNotFound()) {
    Result<std::string> archived = state_->shelf->read(seq);
    if (archived || archived.error().code != Errc::not_found) return archived;
  }
  if (status.IsNotFound())
    return Error{Errc::not_found, "there is no record " + std::to_string(seq) + "; the last is " +
                                      std::to_string(head())};
  if (!status.ok()) return error_of(status, state_->dir);
  return bytes;
}

Result<Record> EventLog::read(Seq seq) const {
  const Result<std::string> bytes = read_bytes(seq);
  if (!bytes) return bytes.error();
  return decode_at(seq, *bytes);
}

Result<void> EventLog::scan(Seq from, Seq to, const Visit& visit) const {
  return state_->walk_events(from, to, [&](Seq seq, const Result<std::string_view>& bytes) {
    return visit(seq, bytes ? decode_at(seq, *bytes) : Result<Record>(bytes.error()));
  });
}

Result<void> EventLog::scan_bytes(Seq from, Seq to, const VisitBytes& visit) const {
  std::optional<Error> failed;
  const Result<void> walked = state_->walk_events(from, to, [&](Seq seq, const Result<std::string_view>& bytes) {
    if (!bytes) failed = bytes.error();
    return bytes && visit(seq, *bytes);
  });
  return failed ? Result<void>(*failed) : walked;
}

Result<void> EventLog::scan_tree(Seq from, Seq to, const VisitBytes& visit) const {
  if (!state_->has_tree()) return {};
  return state_->walk(kTree, from, to, visit);
}

Result<TreeHead> EventLog::tree() const {
  if (state_->owner) {
    TreeEdge edge;
    {
      const std::lock_guard lock(state_->edge_mutex);
      edge = state_->edge;
    }
    return edge.head();
  }
  if (tree_size() != head())
    return Error{tree_size() == 0 ? Errc::not_found : Errc::corrupt,
                 "the tree of the log in " + state_->dir.string() + " has " + std::to_string(tree_size()) +
                     " entries, the log " + std::to_string(head()) + " records; " +
                     (tree_size() == 0 ? "it is made when a server of this release starts" : "run `ledger verify`")};
  const Result<TreeEdge> edge = TreeEdge::load(head(), state_->nodes());
  if (!edge) return edge.error();
  return edge->head();
}

std::uint64_t EventLog::tree_size() const {
  if (!state_->has_tree()) return 0;
  const Result<Seq> last = state_->last_key(kTree);
  return last ? *last : 0;
}

ReadNode EventLog::tree_nodes() const { return state_->nodes(); }

Result<std::vector<Seq>> EventLog::find(Index index, std::string_view value, Seq from, Seq to,
                                        std::size_t latest) const {
  std::vector<Seq> found;
  const std::string prefix = index_prefix(index, value);
  const auto it = state_->iterate(kIndex);
  // Newest first, so that a bound on the answer is a bound on the work.
  for (it->SeekForPrev(index_key(index, value, to)); it->Valid() && found.size() < latest; it->Prev()) {
    if (!it->key().starts_with(prefix) || it->key().size() != prefix.size() + kSeqBytes) break;
    const Seq seq = get_seq(it->key().data() + prefix.size());
    if (seq < from) break;
    found.push_back(seq);
  }
  if (!it->status().ok()) return error_of(it->status(), state_->dir);
  return std::vector<Seq>(found.rbegin(), found.rend());
}

Result<void> EventLog::scan(Index index, std::string_view value, Seq from, Seq to, const Visit& visit) const {
  const std::string prefix = index_prefix(index, value);
  const auto it = state_->iterate(kIndex);
  for (it->Seek(index_key(index, value, from)); it->Valid(); it->Next()) {
    if (!it->key().starts_with(prefix) || it->key().size() != prefix.size() + kSeqBytes) break;
    const Seq seq = get_seq(it->key().data() + prefix.size());
    if (seq > to) break;
    const Result<Record> record = read(seq);
    if (!record && record.error().code == Errc::io) return record.error();
    if (!visit(seq, record)) break;
  }
  return state_->checked(it->status());
}

Result<std::optional<Record>> EventLog::newest(Kind kind) const {
  if (!is_server_wide(kind))
    return Error{Errc::invalid, std::string(ledger::name_of(kind)) + " is no record about the server as a whole"};
  const std::string prefix = index_prefix(Index::server_wide, "");
  const auto it = state_->iterate(kIndex);
  for (it->SeekForPrev(index_key(Index::server_wide, "", UINT64_MAX)); it->Valid(); it->Prev()) {
    if (!it->key().starts_with(prefix) || it->key().size() != prefix.size() + kSeqBytes) break;
    const Seq seq = get_seq(it->key().data() + prefix.size());
    Result<Record> record = read(seq);
    if (!record) return Error{record.error().code, "record " + std::to_string(seq) + ": " + record.error().message};
    if (record->kind() == kind) return std::optional<Record>(std::move(*record));
  }
  if (!it->status().ok()) return error_of(it->status(), state_->dir);
  return std::optional<Record>();
}

Result<void> EventLog::each_node(
    const std::function<bool(std::string_view, const Result<NodeState>&)>& visit) const {
  const auto it = state_->iterate(kNodes);
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const Result<NodeState> node = decode_node_state({it->value().data(), it->value().size()});
    if (!visit({it->key().data(), it->key().size()}, node)) break;
  }
  return state_->checked(it->status());
}

Result<std::optional<NodeState>> EventLog::node(std::string_view name) const {
  std::string bytes;
  const Status status = state_->db->Get({}, state_->handles[kNodes], Slice(name.data(), name.size()), &bytes);
  if (status.IsNotFound()) return std::optional<NodeState>();
  if (!status.ok()) return error_of(status, state_->dir);
  Result<NodeState> node = decode_node_state(bytes);
  if (!node) return node.error();
  return std::optional<NodeState>(std::move(*node));
}

Result<void> EventLog::each_index_entry(
    const std::function<bool(Index, std::string_view value, Seq)>& visit) const {
  const auto it = state_->iterate(kIndex);
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    Index index{};
    std::string_view value;
    Seq seq = 0;
    if (!parse_index_key(it->key(), &index, &value, &seq))
      return Error{Errc::corrupt, "the index in " + state_->dir.string() + " holds a key that is none of ours"};
    if (!visit(index, value, seq)) break;
  }
  return state_->checked(it->status());
}

Result<bool> EventLog::has_index_entry(Index index, std::string_view value, Seq seq) const {
  std::string ignored;
  const Status status = state_->db->Get({}, state_->handles[kIndex], index_key(index, value, seq), &ignored);
  if (status.ok()) return true;
  if (status.IsNotFound()) return false;
  return error_of(status, state_->dir);
}

}  // namespace ledger
