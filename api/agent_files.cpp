#include "api/agent_files.h"

#include <string.h>
#include <sys/stat.h>

#include "ledger/credentials.h"

namespace ledger::api {

namespace fs = std::filesystem;

namespace {

// 0755 whatever the umask, as the agent makes /etc/rancher/node.
Result<void> make_directories(const fs::path& directory) {
  std::error_code error;
  if (directory.empty() || fs::exists(directory, error)) return {};
  if (const Result<void> parent = make_directories(directory.parent_path()); !parent) return parent.error();
  if (::mkdir(directory.c_str(), 0755) != 0 || ::chmod(directory.c_str(), 0755) != 0)
    return Error{Errc::io, "failed to create " + directory.string()};
  return {};
}

}  // namespace

Result<Secret> ensure_random_file(const fs::path& path, std::size_t random_size, unsigned mode) {
  Result<std::string> text = read_file(path, 4096);
  if (text) {
    Secret found(trim(*text));
    explicit_bzero(text->data(), text->size());
    return found;
  }
  if (text.error().code != Errc::not_found) return text.error();
  if (const Result<void> made = make_directories(path.parent_path()); !made) return made.error();
  const Secret fresh(random_hex(random_size));
  if (const Result<void> written = write_file(path, std::string(fresh.reveal()) + "\n", mode); !written)
    return written.error();
  return fresh.clone();
}

Result<void> AgentFiles::put(const std::string& name, std::string_view bytes) {
  if (directory_.empty()) {
    kept_.insert_or_assign(name, Secret(bytes));
    return {};
  }
  if (const Result<void> made = make_directories(directory_.parent_path()); !made) return made.error();
  if (const Result<void> made = ensure_private_directory(directory_); !made) return made.error();
  return write_file(directory_ / name, bytes, 0600);
}

Result<Secret> AgentFiles::get(const std::string& name) const {
  if (!directory_.empty()) return read_secret_file(directory_ / name);
  const auto found = kept_.find(name);
  if (found == kept_.end()) return Error{Errc::not_found, name + " is not there"};
  return found->second.clone();
}

}  // namespace ledger::api
