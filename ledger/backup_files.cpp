#include "ledger/backup_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <system_error>

#include "ledger/credentials.h"
#include "ledger/file_descriptor.h"
#include "ledger/hex.h"
#include "ledger/node_hash.h"

namespace ledger {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

constexpr int kManifestFormat = 1;
constexpr std::size_t kMaxManifest = 64 << 20;
constexpr std::size_t kMaxHeld = std::size_t{1} << 30;  // checkpoints/all may be long
constexpr std::size_t kCopyBlock = 64 << 10;
constexpr const char* kNames = "tls/listener-names";

std::string quoted(const fs::path& path) { return "'" + printable(path.string(), 400) + "'"; }

Error io_error(const char* what, const fs::path& path, int error) {
  return {Errc::io,
          std::string("cannot ") + what + " " + quoted(path) + ": " + std::generic_category().message(error)};
}

// ---- names -----------------------------------------------------------------------------------------------

// Stays below the directory it is joined to, and is none of the names that are not files beside the log.
bool is_safe_name(std::string_view name) {
  if (name.empty() || name.front() == '/' || name.size() > 4096 || name.find('\0') != name.npos) return false;
  if (name == "events" || name.starts_with("events/") || name.starts_with("backup.json")) return false;
  for (const fs::path& part : fs::path(name))
    if (part.empty() || part == "." || part == "..") return false;
  return true;
}

bool is_plain_name(std::string_view name) {
  return !name.empty() && name.find('/') == name.npos && name != "." && name != ".." && name.size() < 256;
}

bool is_passed_over(const std::string& top) {
  return top == "events" || top == "server.json" || top == "lost+found" || top.starts_with("backup.json");
}

// ---- reading and writing ---------------------------------------------------------------------------------

// Calls use(bytes) for all of a file; false: writing what was read failed, errno says why.
template <class Use>
Result<bool> each_block(int fd, const fs::path& path, const Use& use) {
  WipedText buffer(kCopyBlock);  // it may be a key
  buffer.text.resize(kCopyBlock);
  for (;;) {
    const ssize_t got = ::read(fd, buffer.text.data(), kCopyBlock);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error("read", path, errno);
    if (got == 0) return true;
    if (!use(std::string_view(buffer.text).substr(0, static_cast<std::size_t>(got)))) return false;
  }
}

// The directories of `name` below `directory`; a link in their place would lead elsewhere.
Result<void> make_directories(const fs::path& directory, const std::string& name) {
  fs::path at = directory;
  for (const fs::path& part : fs::path(name).parent_path()) {
    at /= part;
    std::error_code error;
    if (fs::is_symlink(fs::symlink_status(at, error)))
      return Error{Errc::invalid, quoted(at) + " is a link; nothing is written through it: put a directory there"};
    if (const Result<void> made = ensure_private_directory(at); !made) return made;
  }
  return {};
}

// A regular file that no link in the last place leads to.
int open_plain(const fs::path& path) { return ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK); }

Result<void> rename_into_place(const fs::path& temporary, const fs::path& path) {
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return io_error("replace", path, error);
  }
  const FileDescriptor directory(::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.ok() || ::fsync(directory.get()) != 0) return io_error("sync", path.parent_path(), errno);
  return {};
}

Result<BackupFile> put_link(const fs::path& path, const std::string& name, const std::string& target, bool* changed) {
  BackupFile entry{.name = name, .mode = 0, .bytes = 0, .sha256 = {}, .link = target};
  std::error_code error;
  if (fs::is_symlink(fs::symlink_status(path, error)) && fs::read_symlink(path, error) == target && !error)
    return entry;
  const fs::path temporary = path.string() + ".tmp";
  ::unlink(temporary.c_str());
  if (::symlink(target.c_str(), temporary.c_str()) != 0) return io_error("write", temporary, errno);
  *changed = true;
  if (const Result<void> renamed = rename_into_place(temporary, path); !renamed) return renamed.error();
  return entry;
}

// ---- backup.json -----------------------------------------------------------------------------------------

json::value to_json(const BackupFile& file) {
  if (!file.link.empty()) return {{"name", file.name}, {"link", file.link}};
  char mode[8];
  std::snprintf(mode, sizeof mode, "0%03o", file.mode & 0777);
  return {{"name", file.name}, {"mode", mode}, {"bytes", file.bytes}, {"sha256", file.sha256}};
}

std::string text_of(const json::object& object, const char* key) {
  const json::value* found = object.if_contains(key);
  return found != nullptr && found->is_string() ? std::string(found->get_string()) : std::string();
}

std::uint64_t number_of(const json::object& object, const char* key) {
  const json::value* found = object.if_contains(key);
  boost::system::error_code error;
  const auto number = found != nullptr && found->is_number() ? found->to_number<std::uint64_t>(error) : 0;
  return error ? 0 : number;
}

// nullopt: not what we write.
std::optional<BackupFile> file_from(const json::value& value) {
  const json::object* object = value.if_object();
  if (object == nullptr) return std::nullopt;
  BackupFile file{.name = text_of(*object, "name"),
                  .mode = 0,
                  .bytes = number_of(*object, "bytes"),
                  .sha256 = text_of(*object, "sha256"),
                  .link = text_of(*object, "link")};
  const std::string mode = text_of(*object, "mode");
  if (!is_safe_name(file.name)) return std::nullopt;
  if (object->contains("link")) return is_plain_name(file.link) ? std::optional(file) : std::nullopt;
  if (mode.size() != 4 || mode.find_first_not_of("01234567") != mode.npos || !is_hex(file.sha256, 64))
    return std::nullopt;
  file.mode = static_cast<unsigned>(std::stoul(mode, nullptr, 8));
  return file;
}

}  // namespace

const BackupFile* BackupManifest::find(std::string_view name) const {
  const auto found = std::lower_bound(files.begin(), files.end(), name,
                                      [](const BackupFile& file, std::string_view key) { return file.name < key; });
  return found != files.end() && found->name == name ? &*found : nullptr;
}

fs::path manifest_file(const fs::path& backup) { return backup / "backup.json"; }
fs::path next_manifest_file(const fs::path& backup) { return backup / "backup.json.next"; }

Result<BackupManifest> read_manifest(const fs::path& file) {
  const Result<std::string> text = read_file(file, kMaxManifest);
  if (!text) return text.error();
  const auto bad = [&] {
    return Error{Errc::corrupt, quoted(file) + " is not what `ledger backup` writes; run the backup again"};
  };
  json::error_code error;
  const json::value value = json::parse(*text, error);
  const json::object* object = error ? nullptr : value.if_object();
  if (object == nullptr) return bad();
  const std::uint64_t format = number_of(*object, "format");
  if (format > kManifestFormat)
    return Error{Errc::invalid, quoted(file) + " has backup format " + std::to_string(format) + ", written by ledger " +
                                    printable(text_of(*object, "version"), 40) + "; this is ledger " + LEDGER_VERSION +
                                    ", which reads formats up to " + std::to_string(kManifestFormat) +
                                    ": use the release that wrote it, or a newer one"};
  const std::string root = text_of(*object, "root");
  const Result<Time> time = Time::parse(text_of(*object, "time"));
  const json::value* files = object->if_contains("files");
  const json::value* secrets = object->if_contains("secrets");
  if (format < 1 || !is_hex(root, 64) || !time || files == nullptr || !files->is_array() || secrets == nullptr ||
      !secrets->is_bool())
    return bad();
  BackupManifest manifest;
  manifest.ledger = text_of(*object, "ledger");
  manifest.head = {number_of(*object, "head"), *tree_hash_from(from_hex(root))};
  manifest.time = *time;
  manifest.version = text_of(*object, "version");
  manifest.host = text_of(*object, "host");
  manifest.source = text_of(*object, "source");
  manifest.secrets = secrets->get_bool();
  for (const json::value& item : files->get_array()) {
    std::optional<BackupFile> entry = file_from(item);
    if (!entry) return bad();
    manifest.files.push_back(*std::move(entry));
  }
  std::sort(manifest.files.begin(), manifest.files.end(),
            [](const BackupFile& a, const BackupFile& b) { return a.name < b.name; });
  return manifest;
}

Result<void> write_manifest(const fs::path& file, const BackupManifest& manifest) {
  json::array files;
  for (const BackupFile& entry : manifest.files) files.push_back(to_json(entry));
  const json::object object{{"format", kManifestFormat},
                            {"ledger", manifest.ledger},
                            {"head", manifest.head.size},
                            {"root", to_hex(view_of(manifest.head.root))},
                            {"time", manifest.time.to_string()},
                            {"version", manifest.version},
                            {"host", manifest.host},
                            {"source", manifest.source},
                            {"secrets", manifest.secrets},
                            {"files", std::move(files)}};
  return write_file(file, json::serialize(object) + "\n", 0600);
}

bool is_secret_name(std::string_view name) {
  if (name.starts_with("cred/")) return !name.starts_with("cred/checkpoint.pub");
  if (name.starts_with("tls/")) return !name.ends_with(".crt") && name != kNames;
  return name.find('/') == name.npos && name.find("token") != name.npos;
}

bool is_small_name(std::string_view name) {
  return name.find('/') == name.npos || name.starts_with("cred/") || name.starts_with("tls/") ||
         name.starts_with("checkpoints/");
}

Result<DataDirFiles> list_data_dir_files(const fs::path& data_dir) {
  DataDirFiles found;
  std::error_code error;
  const auto take = [&](const fs::path& path, const std::string& name) {
    std::error_code unreadable;
    const fs::file_status status = fs::status(path, unreadable);  // of what a link leads to
    if (name.ends_with(".tmp") || !is_safe_name(name)) return;
    if (fs::is_regular_file(status))
      found.names.push_back(name);
    else if (status.type() == fs::file_type::not_found && fs::is_symlink(fs::symlink_status(path, unreadable)))
      found.left_out.push_back(name + ": a link to nothing");
    else if (fs::is_directory(status) && fs::is_symlink(fs::symlink_status(path, unreadable)))
      found.left_out.push_back(name + ": a link to a directory");
    else if (!fs::is_directory(status) && status.type() != fs::file_type::not_found)
      found.left_out.push_back(name + ": no file");
  };
  for (fs::directory_iterator top(data_dir, error), end; !error && top != end; top.increment(error)) {
    const std::string name = top->path().filename().string();
    if (is_passed_over(name)) continue;
    std::error_code ignored;
    if (!fs::is_directory(fs::status(top->path(), ignored))) {
      take(top->path(), name);
      continue;
    }
    fs::recursive_directory_iterator below(top->path(), error), last;
    for (; !error && below != last; below.increment(error))
      take(below->path(), name + "/" + below->path().lexically_relative(top->path()).generic_string());
  }
  if (error) return Error{Errc::io, "cannot read the directory " + quoted(data_dir) + ": " + error.message()};
  std::sort(found.names.begin(), found.names.end());
  std::sort(found.left_out.begin(), found.left_out.end());
  return found;
}

Result<HeldFile> hold_file(const fs::path& data_dir, const std::string& name) {
  const fs::path path = data_dir / name;
  HeldFile held;
  std::error_code error;
  if (fs::is_symlink(fs::symlink_status(path, error))) {
    const fs::path target = fs::read_symlink(path, error);
    if (!error && is_plain_name(target.string())) {
      held.link = target.string();
      return held;
    }
  }
  struct stat info;
  if (::stat(path.c_str(), &info) != 0)
    return Error{errno == ENOENT ? Errc::not_found : Errc::io, io_error("read", path, errno).message};
  held.mode = info.st_mode & 0777;
  Result<Secret> bytes = read_foreign_secret(path, kMaxHeld);
  if (!bytes) return bytes.error();
  held.bytes = *std::move(bytes);
  return held;
}

bool same_file(const HeldFile& a, const HeldFile& b) {
  return a.link == b.link && a.mode == b.mode && a.bytes.reveal() == b.bytes.reveal();
}

Result<BackupFile> put_file(const fs::path& directory, const std::string& name, const HeldFile& file, bool* changed) {
  const fs::path path = directory / name;
  if (const Result<void> made = make_directories(directory, name); !made) return made.error();
  if (!file.link.empty()) return put_link(path, name, file.link, changed);
  const BackupFile entry{.name = name,
                         .mode = file.mode,
                         .bytes = file.bytes.reveal().size(),
                         .sha256 = sha256_hex(file.bytes.reveal()),
                         .link = {}};
  std::string ignored;
  const Result<bool> there = is_intact(directory, entry, &ignored);
  if (there && *there) return entry;
  *changed = true;
  if (const Result<void> written = write_file(path, file.bytes.reveal(), file.mode); !written) return written.error();
  return entry;
}

Result<BackupFile> copy_file(const fs::path& from, const fs::path& to, const std::string& name,
                             const BackupFile* known, bool* changed) {
  const fs::path source = from / name, path = to / name;
  const FileDescriptor in(::open(source.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info;
  if (!in.ok() || ::fstat(in.get(), &info) != 0)
    return Error{errno == ENOENT ? Errc::not_found : Errc::io, io_error("read", source, errno).message};
  if (!S_ISREG(info.st_mode)) return Error{Errc::invalid, quoted(source) + " is no file"};
  struct stat there;
  const bool is_there = ::lstat(path.c_str(), &there) == 0 && S_ISREG(there.st_mode);
  if (known != nullptr && is_there && known->bytes == static_cast<std::uint64_t>(info.st_size) &&
      there.st_size == info.st_size && there.st_mtim.tv_sec == info.st_mtim.tv_sec &&
      there.st_mtim.tv_nsec == info.st_mtim.tv_nsec)
    return *known;
  if (const Result<void> made = make_directories(to, name); !made) return made.error();
  const fs::path temporary = path.string() + ".tmp";
  ::unlink(temporary.c_str());
  const FileDescriptor out(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!out.ok()) return io_error("write", temporary, errno);
  Sha256 digest;
  std::uint64_t bytes = 0;
  const Result<bool> copied = each_block(in.get(), source, [&](std::string_view block) {
    digest.add(block);
    bytes += block.size();
    return write_all(out.get(), block);
  });
  const timespec times[2] = {info.st_atim, info.st_mtim};
  const bool written = copied && *copied && ::fchmod(out.get(), info.st_mode & 0777) == 0 &&
                       ::futimens(out.get(), times) == 0 && ::fsync(out.get()) == 0;
  if (!written) {
    const Error failed = copied ? io_error("write", temporary, errno) : copied.error();
    ::unlink(temporary.c_str());
    return failed;
  }
  *changed = true;
  if (const Result<void> renamed = rename_into_place(temporary, path); !renamed) return renamed.error();
  return BackupFile{.name = name, .mode = info.st_mode & 0777, .bytes = bytes, .sha256 = digest.hex(), .link = {}};
}

Result<bool> is_intact(const fs::path& directory, const BackupFile& file, std::string* problem) {
  fs::path at = directory;
  std::error_code error;
  for (const fs::path& part : fs::path(file.name).parent_path())
    if (fs::is_symlink(fs::symlink_status(at /= part, error))) {
      *problem = quoted(at) + " is a link, which is not followed";
      return false;
    }
  const fs::path path = directory / file.name;
  if (!file.link.empty()) {
    if (fs::is_symlink(fs::symlink_status(path, error)) && fs::read_symlink(path, error) == file.link && !error)
      return true;
    *problem = quoted(path) + " is not the link to " + printable(file.link, 100) + " that it was";
    return false;
  }
  const FileDescriptor in(open_plain(path));
  struct stat info;
  if (!in.ok() && (errno == ENOENT || errno == ELOOP || errno == ENOTDIR)) {
    *problem = quoted(path) + (errno == ELOOP ? " is a link, which is not followed" : " is missing");
    return false;
  }
  if (!in.ok() || ::fstat(in.get(), &info) != 0) return io_error("read", path, errno);
  *problem = quoted(path) + " is not what was backed up: ";
  if (!S_ISREG(info.st_mode)) {
    *problem += "no file";
    return false;
  }
  Sha256 digest;
  std::uint64_t bytes = 0;
  const Result<bool> read = each_block(in.get(), path, [&](std::string_view block) {
    digest.add(block);
    bytes += block.size();
    return true;
  });
  if (!read) return read.error();
  if (bytes != file.bytes)
    *problem += "it has " + std::to_string(bytes) + " bytes, and had " + std::to_string(file.bytes);
  else if (digest.hex() != file.sha256)
    *problem += "its bytes are others";
  else if ((info.st_mode & 0777) != file.mode)
    *problem += "its mode is another";
  else
    return true;
  return false;
}

}  // namespace ledger
