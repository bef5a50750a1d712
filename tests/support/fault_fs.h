// The real file system, made to fail where a test says, and able to lose power.
//
//   fs->fail(WritePoint::wal_sync, Face::present);  the next sync of the write-ahead log reports an error
//   fs->cut_power(); <destroy the log>; fs->restore_power();   only what was synced is left on the disk
//
// A failed write has three faces, because an error does not say what reached the disk: absent (nothing did), torn
// (half of it did), present (all of it did). A fourth reports no error at all: flipped (all of it did, one bit of it
// wrong). Power loss is the strict reading of POSIX: bytes survive when their file was synced, names (new files,
// renames) when their directory was; when only the process is killed, all that was written survives.
//
// A sync is only noted down, never passed on, and memory_directory() keeps the files off the disk: a test takes the
// same time however busy the disk is.
//
// Tests drive one log at a time; the file system itself is safe for RocksDB's threads.
#pragma once

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace ledger::test {

// Where files that need not survive the machine are made.
inline std::filesystem::path memory_directory() {
  const std::filesystem::path shared = "/dev/shm";
  return ::access(shared.c_str(), W_OK) == 0 ? shared : std::filesystem::temp_directory_path();
}

enum class WritePoint {
  wal_append,
  wal_sync,
  table_append,
  table_sync,
  manifest_append,
  manifest_sync,
  other_append,
  other_sync,
  rename,
  directory_sync,
};

enum class Face { absent, torn, present, flipped };

class FaultFs : public rocksdb::FileSystemWrapper {
 public:
  FaultFs() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  static const char* kClassName() { return "FaultFs"; }
  const char* Name() const override { return kClassName(); }

  // The (skip+1)th time from now that `point` is passed, it fails; once.
  // `bit`: for Face::flipped, which of those written, modulo their number.
  void fail(WritePoint point, Face face, int skip = 0,
            rocksdb::IOStatus error = rocksdb::IOStatus::IOError("failed because the test said so"),
            std::size_t bit = 0) {
    const std::lock_guard lock(mutex_);
    armed_ = Fault{point, face, skip, std::move(error), bit};
  }
  // Has the armed fault happened?
  bool failed() const {
    const std::lock_guard lock(mutex_);
    return !armed_;
  }
  void disarm() {
    const std::lock_guard lock(mutex_);
    armed_.reset();
  }
  int times_passed(WritePoint point) const {
    const std::lock_guard lock(mutex_);
    const auto found = passed_.find(point);
    return found == passed_.end() ? 0 : found->second;
  }

  // From here on every write fails and changes nothing.
  void cut_power() {
    const std::lock_guard lock(mutex_);
    power_ = false;
  }
  // Takes from the disk what was never synced. The log must have been destroyed. With `process_only` it was the process
  // that died, and the machine went on: what was written stays.
  void restore_power(bool process_only = false) {
    const std::lock_guard lock(mutex_);
    power_ = true;
    if (process_only) return;
    for (auto change = names_.rbegin(); change != names_.rend(); ++change) {
      std::error_code ignored;
      std::filesystem::remove(change->path, ignored);
      files_.erase(change->path);
      if (change->before) std::ofstream(change->path, std::ios::binary) << *change->before;
    }
    names_.clear();
    for (const auto& [path, file] : files_) {
      std::error_code gone;
      if (std::filesystem::exists(path, gone) && std::filesystem::file_size(path) > file.synced)
        std::filesystem::resize_file(path, file.synced);
    }
    files_.clear();
  }

  // Has a thread asked for room that is not the one which made this?
  bool others_asked_for_room() const {
    const std::lock_guard lock(mutex_);
    return others_asked_for_room_;
  }

  // What the disk says when asked how much room there is; nullopt: the truth.
  void set_free_bytes(std::optional<std::uint64_t> bytes) {
    const std::lock_guard lock(mutex_);
    free_bytes_ = bytes;
  }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* debug) override {
    if (!powered()) return no_power();
    const std::optional<std::string> before = bytes_of(path);
    rocksdb::IOStatus status = target_->NewWritableFile(path, options, result, debug);
    if (!status.ok()) return status;
    *result = std::make_unique<File>(std::move(*result), this, path);
    const std::lock_guard lock(mutex_);
    files_[path] = {};
    names_.push_back({path, before});
    return status;
  }

  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* result,
                                 rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus status = target_->NewDirectory(path, options, result, debug);
    if (status.ok()) *result = std::make_unique<Directory>(std::move(*result), this, path);
    return status;
  }

  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override {
    return pass(WritePoint::rename, [&](Face, std::size_t) {
      const std::optional<std::string> before = bytes_of(to);
      rocksdb::IOStatus status = target_->RenameFile(from, to, options, debug);
      if (!status.ok()) return status;
      const std::lock_guard lock(mutex_);
      if (const auto moved = files_.find(from); moved != files_.end()) {
        files_[to] = moved->second;
        files_.erase(moved);
      }
      names_.push_back({to, before});
      return status;
    });
  }

  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override {
    if (!powered()) return no_power();
    return target_->DeleteFile(path, options, debug);
  }

  rocksdb::IOStatus GetFreeSpace(const std::string& path, const rocksdb::IOOptions& options, std::uint64_t* bytes,
                                 rocksdb::IODebugContext* debug) override {
    {
      const std::lock_guard lock(mutex_);
      others_asked_for_room_ = others_asked_for_room_ || std::this_thread::get_id() != maker_;
      if (free_bytes_) {
        *bytes = *free_bytes_;
        return rocksdb::IOStatus::OK();
      }
    }
    return target_->GetFreeSpace(path, options, bytes, debug);
  }

 private:
  struct Fault {
    WritePoint point;
    Face face;
    int skip;
    rocksdb::IOStatus error;
    std::size_t bit;
  };
  struct FileState {
    std::uint64_t written = 0, synced = 0;
  };
  struct NameChange {  // not yet durable
    std::string path;
    std::optional<std::string> before;  // the file that had the name
  };

  static rocksdb::IOStatus no_power() { return rocksdb::IOStatus::IOError("no power"); }

  static std::optional<std::string> bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) return std::nullopt;
    return std::string(std::istreambuf_iterator<char>(in), {});
  }

  bool powered() const {
    const std::lock_guard lock(mutex_);
    return power_;
  }

  // Does `write`, or fails it. write(face, bit) is told what to do of it.
  template <class Write>
  rocksdb::IOStatus pass(WritePoint point, const Write& write) {
    std::optional<Fault> fault;
    {
      const std::lock_guard lock(mutex_);
      if (!power_) return no_power();
      ++passed_[point];
      if (armed_ && armed_->point == point && armed_->skip-- == 0) {
        fault = std::exchange(armed_, std::nullopt);
      }
    }
    if (!fault) return write(Face::present, 0);
    if (fault->face != Face::absent) {
      const rocksdb::IOStatus done = write(fault->face, fault->bit);
      if (!done.ok() || fault->face == Face::flipped) return done;
    }
    return fault->error;
  }

  class File : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    File(std::unique_ptr<rocksdb::FSWritableFile>&& target, FaultFs* fs, std::string path)
        : FSWritableFileOwnerWrapper(std::move(target)), fs_(fs), path_(std::move(path)) {
      const std::string name = std::filesystem::path(path_).filename().string();
      if (name.ends_with(".log")) {
        append_ = WritePoint::wal_append, sync_ = WritePoint::wal_sync;
      } else if (name.ends_with(".sst")) {
        append_ = WritePoint::table_append, sync_ = WritePoint::table_sync;
      } else if (name.starts_with("MANIFEST-")) {
        append_ = WritePoint::manifest_append, sync_ = WritePoint::manifest_sync;
      }
    }

    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override {
      return fs_->pass(append_, [&](Face face, std::size_t bit) {
        rocksdb::Slice part(data.data(), face == Face::torn ? data.size() / 2 : data.size());
        std::string changed;
        if (face == Face::flipped && data.size() > 0) {
          changed = data.ToString();
          bit %= changed.size() * 8;
          changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
          part = changed;
        }
        rocksdb::IOStatus status = target()->Append(part, options, debug);
        const std::lock_guard lock(fs_->mutex_);
        if (status.ok()) fs_->files_[path_].written += part.size();
        return status;
      });
    }
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             const rocksdb::DataVerificationInfo&, rocksdb::IODebugContext* debug) override {
      return Append(data, options, debug);
    }
    rocksdb::IOStatus Sync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override { return synced(); }
    rocksdb::IOStatus Fsync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override { return synced(); }

   private:
    rocksdb::IOStatus synced() {
      return fs_->pass(sync_, [&](Face face, std::size_t) {
        const std::lock_guard lock(fs_->mutex_);
        FileState& file = fs_->files_[path_];
        file.synced = face == Face::torn ? file.synced + (file.written - file.synced) / 2 : file.written;
        return rocksdb::IOStatus::OK();
      });
    }

    FaultFs* fs_;
    std::string path_;
    WritePoint append_ = WritePoint::other_append, sync_ = WritePoint::other_sync;
  };

  class Directory : public rocksdb::FSDirectoryWrapper {
   public:
    Directory(std::unique_ptr<rocksdb::FSDirectory>&& target, FaultFs* fs, std::string path)
        : FSDirectoryWrapper(std::move(target)), fs_(fs), path_(std::move(path)) {}
    rocksdb::IOStatus Fsync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override { return synced(); }
    rocksdb::IOStatus FsyncWithDirOptions(const rocksdb::IOOptions&, rocksdb::IODebugContext*,
                                          const rocksdb::DirFsyncOptions&) override {
      return synced();
    }

   private:
    rocksdb::IOStatus synced() {
      return fs_->pass(WritePoint::directory_sync, [&](Face, std::size_t) {
        const std::lock_guard lock(fs_->mutex_);
        std::erase_if(fs_->names_, [&](const NameChange& change) {
          return std::filesystem::path(change.path).parent_path() == std::filesystem::path(path_);
        });
        return rocksdb::IOStatus::OK();
      });
    }

    FaultFs* fs_;
    std::string path_;
  };

  mutable std::mutex mutex_;
  bool power_ = true;
  std::optional<Fault> armed_;
  std::map<WritePoint, int> passed_;
  std::map<std::string, FileState> files_;
  std::vector<NameChange> names_;
  std::optional<std::uint64_t> free_bytes_;
  const std::thread::id maker_ = std::this_thread::get_id();
  bool others_asked_for_room_ = false;
};

// A FaultFs as the environment that EventLog::Options wants. Outlives every log opened on it.
struct FaultEnv {
  std::shared_ptr<FaultFs> fs = std::make_shared<FaultFs>();
  std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(fs);
};

}  // namespace ledger::test
