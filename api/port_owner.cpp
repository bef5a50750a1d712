#include "api/port_owner.h"

#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "ledger/types.h"

namespace ledger::api {
namespace {

namespace fs = std::filesystem;

// proc(5): addresses are printed as 32-bit numbers of the machine's own byte order.
bool is_loopback_or_any(std::string_view address) {
  return address.find_first_not_of('0') == std::string_view::npos || address == "0100007F" ||
         address == "0000000000000000FFFF00000100007F";
}

// The inode of the socket that listens, or empty.
std::string listening_socket(const char* table, std::uint16_t port) {
  char suffix[8];
  std::snprintf(suffix, sizeof suffix, ":%04X", port);
  std::ifstream in(table);
  std::string line;
  std::getline(in, line);  // headings
  while (std::getline(in, line)) {
    std::istringstream words(line);
    std::string number, local, remote, state, queues, timer, retries, uid, timeout, inode;
    words >> number >> local >> remote >> state >> queues >> timer >> retries >> uid >> timeout >> inode;
    constexpr std::string_view kListen = "0A";
    if (state == kListen && local.ends_with(suffix) &&
        is_loopback_or_any(std::string_view(local).substr(0, local.size() - 5)))
      return inode;
  }
  return "";
}

bool holds(const fs::path& process, const std::string& link) {
  std::error_code error;
  for (fs::directory_iterator next(process / "fd", error), end; !error && next != end; next.increment(error)) {
    std::error_code unreadable;
    if (fs::read_symlink(next->path(), unreadable) == link) return true;
  }
  return false;
}

}  // namespace

std::optional<PortOwner> find_port_owner(std::uint16_t port) {
  std::string inode = listening_socket("/proc/net/tcp", port);
  if (inode.empty()) inode = listening_socket("/proc/net/tcp6", port);
  if (inode.empty()) return std::nullopt;
  const std::string link = "socket:[" + inode + "]";
  PortOwner owner;
  std::error_code error;
  for (fs::directory_iterator next("/proc", error), end; !error && next != end; next.increment(error)) {
    const std::string name = next->path().filename().string();
    int pid = 0;
    const auto [rest, problem] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (problem != std::errc() || rest != name.data() + name.size() || !holds(next->path(), link)) continue;
    owner.pid = pid;
    std::ifstream comm(next->path() / "comm");
    std::string command;
    std::getline(comm, command);
    owner.command = printable(command, 60);
    break;
  }
  return owner;
}

}  // namespace ledger::api
