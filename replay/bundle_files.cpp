#include "replay/bundle_files.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "ledger/file_descriptor.h"

namespace ledger::replay {
namespace {

constexpr std::size_t kBlock = 1 << 16;
constexpr std::size_t kMaxEntries = 1000;
constexpr std::size_t kMaxName = 100;

Error cannot(const char* what, const std::filesystem::path& path) {
  return {errno == ENOENT ? Errc::not_found : Errc::io,
          std::string("cannot ") + what + " " + printable(path.string(), 300) + ": " + std::strerror(errno)};
}

// ---- a directory -----------------------------------------------------------------------------------------

class DirectoryReader final : public BundleReader {
 public:
  DirectoryReader(std::filesystem::path path, FileDescriptor directory, std::vector<std::string> names)
      : path_(std::move(path)), directory_(std::move(directory)), names_(std::move(names)) {}

  // No link is followed, and nothing but a plain file is opened: a pipe would never answer.
  Result<std::optional<BundleEntry>> next() override {
    if (at_ == names_.size()) return std::optional<BundleEntry>();
    const std::string& name = names_[at_++];
    BundleEntry entry{.name = printable(name, kMaxName), .size = 0};
    struct stat info {};
    file_ = FileDescriptor(-1);
    if (::fstatat(directory_.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
      return cannot("read", path_ / name);
    if (!S_ISREG(info.st_mode)) {
      entry.problem = S_ISLNK(info.st_mode)   ? "is a symbolic link"
                      : S_ISDIR(info.st_mode) ? "is a directory"
                                              : "is no plain file";
      return std::optional(std::move(entry));
    }
    file_ = FileDescriptor(::openat(directory_.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (file_.get() < 0 || ::fstat(file_.get(), &info) != 0) return cannot("read", path_ / name);
    entry.size = static_cast<std::uint64_t>(info.st_size);
    return std::optional(std::move(entry));
  }

  Result<std::string_view> read() override {
    buffer_.resize(kBlock);
    const ssize_t got = ::read(file_.get(), buffer_.data(), buffer_.size());
    if (got < 0) return cannot("read", path_ / names_[at_ - 1]);
    return std::string_view(buffer_.data(), static_cast<std::size_t>(got));
  }

 private:
  std::filesystem::path path_;
  FileDescriptor directory_, file_{-1};
  std::vector<std::string> names_;
  std::size_t at_ = 0;
  std::vector<char> buffer_;
};

Result<std::unique_ptr<BundleReader>> open_directory(const std::filesystem::path& path) {
  FileDescriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) return cannot("read", path);
  DIR* listing = ::fdopendir(::fcntl(directory.get(), F_DUPFD_CLOEXEC, 0));
  if (listing == nullptr) return cannot("read", path);
  std::vector<std::string> names;
  while (const dirent* found = ::readdir(listing)) {
    const std::string name = found->d_name;
    if (name != "." && name != ".." && names.size() <= kMaxEntries) names.push_back(name);
  }
  ::closedir(listing);
  if (names.size() > kMaxEntries)
    return Error{Errc::invalid, printable(path.string(), 300) + " is no bundle: it has more than 1,000 files"};
  std::sort(names.begin(), names.end());
  return std::unique_ptr<BundleReader>(
      std::make_unique<DirectoryReader>(path, std::move(directory), std::move(names)));
}

// ---- a tar -----------------------------------------------------------------------------------------------

struct FreeArchive {
  void operator()(archive* reader) const { archive_read_free(reader); }
};
struct FreeWriter {
  void operator()(archive* writer) const { archive_write_free(writer); }
};
struct FreeEntry {
  void operator()(archive_entry* entry) const { archive_entry_free(entry); }
};

std::string reason_of(archive* handle) {
  const char* text = archive_error_string(handle);
  return printable(text == nullptr ? "unknown reason" : text, 200);
}

class TarReader final : public BundleReader {
 public:
  TarReader(std::filesystem::path path, std::unique_ptr<archive, FreeArchive> reader)
      : path_(std::move(path)), reader_(std::move(reader)) {}

  Result<std::optional<BundleEntry>> next() override {
    archive_entry* found = nullptr;
    for (;;) {
      if (++entries_ > kMaxEntries) return damaged("it has more than 1,000 entries");
      const int status = archive_read_next_header(reader_.get(), &found);
      if (status == ARCHIVE_EOF) return std::optional<BundleEntry>();
      if (status != ARCHIVE_OK) return damaged(reason_of(reader_.get()));
      if (archive_entry_filetype(found) != AE_IFDIR) break;
    }
    const char* path = archive_entry_pathname(found);
    BundleEntry entry = judge(path == nullptr ? "" : path, found);
    offset_ = 0;
    return std::optional(std::move(entry));
  }

  Result<std::string_view> read() override {
    const void* bytes = nullptr;
    std::size_t size = 0;
    la_int64_t offset = 0;
    while (size == 0) {
      const int status = archive_read_data_block(reader_.get(), &bytes, &size, &offset);
      if (status == ARCHIVE_EOF) return std::string_view();
      if (status != ARCHIVE_OK) return damaged(reason_of(reader_.get()));
    }
    if (offset != offset_) return damaged("it has a file with holes");
    offset_ += static_cast<la_int64_t>(size);
    return std::string_view(static_cast<const char*>(bytes), size);
  }

 private:
  Error damaged(const std::string& why) const {
    return {Errc::corrupt, printable(path_.string(), 300) + " cannot be read to its end: " + why};
  }

  // "ledger-01234567-1-200/manifest.json": at most one directory, the same for all.
  BundleEntry judge(std::string path, archive_entry* found) {
    BundleEntry entry{.name = printable(path, kMaxName), .size = 0};
    if (path.starts_with("./")) path.erase(0, 2);
    const auto slash = path.find('/');
    const std::string top = slash == path.npos ? "" : path.substr(0, slash);
    const std::string name = slash == path.npos ? path : path.substr(slash + 1);
    if (archive_entry_filetype(found) != AE_IFREG || archive_entry_hardlink(found) != nullptr)
      entry.problem = "is a link or no plain file";
    else if (name.empty() || name.find('/') != name.npos || name == ".." || top == ".." || path[0] == '/')
      entry.problem = "has a path that leads elsewhere";
    else if (top_ && *top_ != top)
      entry.problem = "stands in another directory than the files before it";
    else if (!archive_entry_size_is_set(found) || archive_entry_sparse_count(found) > 0)
      entry.problem = "has no size, or holes";
    if (!entry.problem.empty()) return entry;
    top_ = top;
    entry.name = printable(name, kMaxName);
    entry.size = static_cast<std::uint64_t>(std::max<la_int64_t>(archive_entry_size(found), 0));
    if (!seen_.insert(name).second) entry.problem = "is there twice";
    return entry;
  }

  std::filesystem::path path_;
  std::unique_ptr<archive, FreeArchive> reader_;
  std::optional<std::string> top_;
  std::set<std::string> seen_;
  std::size_t entries_ = 0;
  la_int64_t offset_ = 0;
};

Result<std::unique_ptr<BundleReader>> open_tar(const std::filesystem::path& path) {
  std::unique_ptr<archive, FreeArchive> reader(archive_read_new());
  if (reader == nullptr) fatal("libarchive has no memory");
  // These two and nothing else of the many forms that libarchive reads.
  if (archive_read_support_format_tar(reader.get()) != ARCHIVE_OK ||
      archive_read_support_filter_zstd(reader.get()) != ARCHIVE_OK)
    fatal("this libarchive reads no tar with zstd");
  if (archive_read_open_filename(reader.get(), path.c_str(), kBlock) != ARCHIVE_OK)
    return Error{Errc::invalid, printable(path.string(), 300) +
                                    " is no bundle, neither a directory nor a tar: " + reason_of(reader.get())};
  return std::unique_ptr<BundleReader>(std::make_unique<TarReader>(path, std::move(reader)));
}

// ---- writing ---------------------------------------------------------------------------------------------

Result<void> put_file(archive* writer, const std::filesystem::path& file, const std::string& name, Time modified) {
  FileDescriptor in(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat info {};
  if (in.get() < 0 || ::fstat(in.get(), &info) != 0) return cannot("read", file);
  const std::unique_ptr<archive_entry, FreeEntry> entry(archive_entry_new());
  archive_entry_set_pathname(entry.get(), name.c_str());
  archive_entry_set_filetype(entry.get(), AE_IFREG);
  archive_entry_set_perm(entry.get(), 0644);
  archive_entry_set_size(entry.get(), info.st_size);
  archive_entry_set_mtime(entry.get(), modified.micros / 1'000'000, 0);
  const auto failed = [&] { return Error{Errc::io, "the tar cannot be written: " + reason_of(writer)}; };
  if (archive_write_header(writer, entry.get()) != ARCHIVE_OK) return failed();
  std::vector<char> buffer(kBlock);
  for (;;) {
    const ssize_t got = ::read(in.get(), buffer.data(), buffer.size());
    if (got < 0) return cannot("read", file);
    if (got == 0) return {};
    if (archive_write_data(writer, buffer.data(), static_cast<std::size_t>(got)) != got) return failed();
  }
}

}  // namespace

Result<std::unique_ptr<BundleReader>> open_bundle(const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return cannot("read", path);
  if (S_ISDIR(info.st_mode)) return open_directory(path);
  if (S_ISREG(info.st_mode)) return open_tar(path);
  return Error{Errc::invalid, printable(path.string(), 300) + " is neither a directory nor a tar"};
}

Result<BundleStream> BundleStream::open(const std::filesystem::path& bundle, std::string_view name) {
  Result<std::unique_ptr<BundleReader>> reader = open_bundle(bundle);
  if (!reader) return reader.error();
  for (;;) {
    const Result<std::optional<BundleEntry>> entry = (*reader)->next();
    if (!entry) return entry.error();
    if (!*entry) return Error{Errc::not_found, "there is no " + std::string(name)};
    if ((*entry)->problem.empty() && (*entry)->name == name) return BundleStream(std::move(*reader));
  }
}

Result<bool> BundleStream::fill() {
  if (!rest_.empty()) return true;
  const Result<std::string_view> got = reader_->read();
  if (!got) return got.error();
  rest_ = *got;
  return !rest_.empty();
}

Result<std::optional<std::string>> BundleStream::line(std::size_t max_bytes) {
  std::string line;
  for (;;) {
    const Result<bool> more = fill();
    if (!more) return more.error();
    if (!*more) return line.empty() ? std::optional<std::string>() : std::optional(std::move(line));
    const auto end = rest_.find('\n');
    const std::size_t take = end == rest_.npos ? rest_.size() : end + 1;
    if (line.size() + take > max_bytes)
      return Error{Errc::corrupt, "a line is longer than " + std::to_string(max_bytes) + " bytes"};
    line.append(rest_.substr(0, take));
    rest_.remove_prefix(take);
    if (end != rest_.npos && line.back() == '\n') return std::optional(std::move(line));
  }
}

Result<std::string> BundleStream::bytes(std::size_t count) {
  std::string bytes;
  while (bytes.size() < count) {
    const Result<bool> more = fill();
    if (!more) return more.error();
    if (!*more) break;
    const std::size_t take = std::min(count - bytes.size(), rest_.size());
    bytes.append(rest_.substr(0, take));
    rest_.remove_prefix(take);
  }
  return bytes;
}

Result<std::string> read_bundle_file(const std::filesystem::path& bundle, std::string_view name,
                                     std::size_t max_bytes) {
  Result<BundleStream> stream = BundleStream::open(bundle, name);
  if (!stream) return stream.error();
  Result<std::string> bytes = stream->bytes(max_bytes + 1);
  if (bytes && bytes->size() > max_bytes)
    return Error{Errc::invalid, std::string(name) + " is longer than " + std::to_string(max_bytes) + " bytes"};
  return bytes;
}

bool is_tar_name(std::string_view path) { return path.ends_with(".tar") || path.ends_with(".tar.zst"); }

Result<void> pack_bundle(const std::filesystem::path& directory, const std::vector<std::string>& names,
                         const std::string& top, Time modified, const std::filesystem::path& tar, bool compress) {
  FileDescriptor out(::open(tar.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (out.get() < 0) return cannot("write", tar);
  const std::unique_ptr<archive, FreeWriter> writer(archive_write_new());
  if (writer == nullptr) fatal("libarchive has no memory");
  if (archive_write_set_format_pax_restricted(writer.get()) != ARCHIVE_OK ||
      (compress && archive_write_add_filter_zstd(writer.get()) != ARCHIVE_OK))
    fatal("this libarchive writes no tar with zstd");
  const auto failed = [&] {
    return Error{Errc::io, "cannot write " + printable(tar.string(), 300) + ": " + reason_of(writer.get())};
  };
  if (archive_write_open_fd(writer.get(), out.get()) != ARCHIVE_OK) return failed();
  for (const std::string& name : names)
    if (const Result<void> put = put_file(writer.get(), directory / name, top + "/" + name, modified); !put)
      return put;
  if (archive_write_close(writer.get()) != ARCHIVE_OK) return failed();
  if (::fsync(out.get()) != 0) return cannot("sync", tar);
  return {};
}

}  // namespace ledger::replay
