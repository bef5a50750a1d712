#include "api/reachability.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <future>
#include <memory>
#include <thread>

namespace ledger::api {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

Result<std::vector<std::string>> look_up(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int problem = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  if (problem == EAI_NONAME || problem == EAI_NODATA) return Error{Errc::not_found, "no such host"};
  if (problem != 0) return Error{Errc::unavailable, gai_strerror(problem)};
  std::vector<std::string> addresses;
  for (const addrinfo* next = found; next != nullptr; next = next->ai_next) {
    char text[NI_MAXHOST] = "";
    if (getnameinfo(next->ai_addr, next->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0) continue;
    if (std::find(addresses.begin(), addresses.end(), text) == addresses.end()) addresses.emplace_back(text);
  }
  return addresses;
}

// Starts to connect; `*error` is EINPROGRESS where that goes on. -1: no socket at all.
int begin_connect(const std::string& address, std::uint16_t port, int* error) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST;
  addrinfo* found = nullptr;
  *error = EINVAL;
  if (getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return -1;
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  const int fd = ::socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const bool connected = fd >= 0 && ::connect(fd, found->ai_addr, found->ai_addrlen) == 0;
  *error = connected ? 0 : errno;
  return fd;
}

}  // namespace

Result<std::vector<std::string>> resolve(const std::string& host, milliseconds deadline) {
  // getaddrinfo() knows no deadline: a thread of its own waits for it, and is left behind when it takes too long.
  auto promise = std::make_shared<std::promise<Result<std::vector<std::string>>>>();
  auto answer = promise->get_future();
  std::thread([promise, host] { promise->set_value(look_up(host)); }).detach();
  if (answer.wait_for(deadline) != std::future_status::ready)
    return Error{Errc::unavailable, "the resolver did not answer"};
  return answer.get();
}

std::vector<ConnectAttempt> try_connect(const std::vector<std::string>& addresses, std::uint16_t port,
                                        milliseconds deadline) {
  const auto until = Clock::now() + deadline;
  std::vector<ConnectAttempt> attempts;
  std::vector<pollfd> waiting;  // by attempt; fd -1 where it is settled, which poll() passes over
  for (const std::string& address : addresses) {
    ConnectAttempt attempt{address, 0};
    int fd = begin_connect(address, port, &attempt.error);
    if (fd >= 0 && attempt.error != EINPROGRESS) {
      ::close(fd);
      fd = -1;
    }
    waiting.push_back({fd, POLLOUT, 0});
    attempts.push_back(std::move(attempt));
  }
  const auto open = [&] {
    return std::any_of(waiting.begin(), waiting.end(), [](auto& entry) { return entry.fd >= 0; });
  };
  while (open()) {
    const auto left = std::chrono::ceil<milliseconds>(until - Clock::now()).count();
    const int ready = left > 0 ? ::poll(waiting.data(), waiting.size(), static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      if (waiting[i].fd < 0 || (ready > 0 && waiting[i].revents == 0)) continue;
      socklen_t size = sizeof attempts[i].error;
      if (ready > 0)
        ::getsockopt(waiting[i].fd, SOL_SOCKET, SO_ERROR, &attempts[i].error, &size);
      else
        attempts[i].error = ETIMEDOUT;
      ::close(waiting[i].fd);
      waiting[i].fd = -1;
    }
  }
  return attempts;
}

}  // namespace ledger::api
