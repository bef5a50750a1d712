#include "ledger/hash_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "ledger/credentials.h"
#include "ledger/node_hash.h"

namespace ledger {
namespace {

// 2 million nodes; more is not this file.
constexpr std::size_t kMaxFile = std::size_t{512} << 20;

Error failed(const std::filesystem::path& file, const std::string& verb, int error) {
  return {Errc::io, "cannot " + verb + " '" + file.string() + "': " + std::generic_category().message(error) +
                        "; check the disk, and that the file belongs to the user that this program runs as"};
}

void append_line(std::string_view node, const Fingerprint& binding, const Secret& hash, std::string* out) {
  *out += node;
  *out += ' ';
  *out += binding.known() ? std::string_view(binding.text) : "-";
  *out += ' ';
  *out += hash.reveal();
  *out += '\n';
}

}  // namespace

HashStore::HashStore(HashStore&& other) noexcept
    : file_(std::move(other.file_)), kept_(std::move(other.kept_)), lines_(other.lines_) {}

HashStore::~HashStore() = default;

Result<HashStore> HashStore::open(const std::filesystem::path& data_dir) {
  HashStore store(data_dir / "cred" / "node-password-hashes");
  const Result<Secret> text = read_secret_file(store.file_, kMaxFile);
  if (!text && text.error().code == Errc::not_found) return store;
  if (!text) return text.error();
  if (const Result<void> loaded = store.load(text->reveal()); !loaded) return loaded.error();
  return store;
}

Result<void> HashStore::load(std::string_view text) {
  while (!text.empty()) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) break;  // torn off by a crash: it was never acknowledged
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    ++lines_;
    const auto first = line.find(' ');
    const auto second = first == std::string_view::npos ? first : line.find(' ', first + 1);
    const Result<NodeName> node = NodeName::parse(line.substr(0, first));
    if (second == std::string_view::npos || !node || !NodeHash::parse(line.substr(second + 1)))
      return Error{Errc::corrupt, "'" + file_.string() + "': line " + std::to_string(lines_) +
                                      " is not `<node> <fingerprint or -> <hash>`; restore the file from a backup, or "
                                      "remove the line (the node must then be imported again or accepted)"};
    const std::string_view binding = line.substr(first + 1, second - first - 1);
    kept_[node->str()] = {Fingerprint{binding == "-" ? std::string() : std::string(binding)},
                          Secret(line.substr(second + 1))};
  }
  return {};
}

// One write of whole lines at the end. A line that a crash tore off before is cut off first.
Result<void> HashStore::append(std::string_view lines) {
  const int fd = ::open(file_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return failed(file_, "open", errno);
  struct stat info {};
  off_t size = 0;
  bool good = ::fchmod(fd, 0600) == 0 && ::fstat(fd, &info) == 0;
  for (size = info.st_size; good && size > 0; --size) {
    char last = 0;
    good = ::pread(fd, &last, 1, size - 1) == 1;
    if (last == '\n') break;
  }
  good = good && (size == info.st_size || ::ftruncate(fd, size) == 0);
  while (good && !lines.empty()) {
    const ssize_t written = ::write(fd, lines.data(), lines.size());
    if (written < 0 && errno == EINTR) continue;
    good = written > 0;
    if (good) lines.remove_prefix(static_cast<std::size_t>(written));
  }
  good = good && ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  if (!good) return failed(file_, "write", error);
  return {};
}

Result<void> HashStore::put(std::span<const Entry> entries) {
  if (entries.empty()) return {};
  std::size_t size = 0;
  for (const Entry& entry : entries) size += entry.node.size() + 40 + entry.hash.reveal().size();
  WipedText lines(size);
  for (const Entry& entry : entries) append_line(entry.node, entry.binding, entry.hash, &lines.text);
  const std::lock_guard lock(mutex_);
  if (const Result<void> appended = append(lines.text); !appended) return appended;
  lines_ += entries.size();
  for (const Entry& entry : entries) kept_[entry.node] = {entry.binding, entry.hash.clone()};
  return {};
}

const HashStore::Kept* HashStore::valid(std::string_view node, const NodeState& state) const {
  const auto found = kept_.find(node);
  if (found == kept_.end() || !state.is_bound()) return nullptr;
  const bool same = found->second.binding.known() ? found->second.binding == state.bound : state.bound_by_hash;
  return same ? &found->second : nullptr;
}

Secret HashStore::find(std::string_view node, const NodeState& state) const {
  const std::lock_guard lock(mutex_);
  const Kept* kept = valid(node, state);
  return kept == nullptr ? Secret() : kept->hash.clone();
}

bool HashStore::has(std::string_view node, const NodeState& state) const {
  const std::lock_guard lock(mutex_);
  return valid(node, state) != nullptr;
}

bool HashStore::holds(std::string_view node, const Secret& hash) const {
  const std::lock_guard lock(mutex_);
  const auto found = kept_.find(node);
  return found != kept_.end() && found->second.hash.reveal() == hash.reveal();
}

Result<void> HashStore::belongs_to(std::string_view node, const Fingerprint& fingerprint) {
  Entry entry{std::string(node), fingerprint, {}};
  {
    const std::lock_guard lock(mutex_);
    const auto found = kept_.find(node);
    if (found == kept_.end() || found->second.binding.known()) return {};
    entry.hash = found->second.hash.clone();
  }
  return put({&entry, 1});
}

Result<void> HashStore::compact(const std::function<NodeState(std::string_view)>& state_of) {
  const std::lock_guard lock(mutex_);
  const std::size_t before = kept_.size();
  for (auto it = kept_.begin(); it != kept_.end();)
    it = valid(it->first, state_of(it->first)) == nullptr ? kept_.erase(it) : std::next(it);
  if (kept_.size() == before && lines_ == before) return {};
  std::size_t size = 0;
  for (const auto& [node, kept] : kept_) size += node.size() + 40 + kept.hash.reveal().size();
  WipedText text(size);
  for (const auto& [node, kept] : kept_) append_line(node, kept.binding, kept.hash, &text.text);
  if (const Result<void> written = write_file(file_, text.text, 0600); !written) return written;
  lines_ = kept_.size();
  return {};
}

std::size_t HashStore::size() const {
  const std::lock_guard lock(mutex_);
  return kept_.size();
}

}  // namespace ledger
