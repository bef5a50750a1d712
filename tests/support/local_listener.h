// A TCP socket that listens on 127.0.0.1, on a port the system chose: where tests' own servers begin.
#pragma once

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

namespace ledger::test {

class LocalListener {
 public:
  // `backlog`: connections that wait to be accepted. Without a socket no test makes sense: aborts.
  explicit LocalListener(int backlog = 16) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(fd_, any, size) != 0 || ::listen(fd_, backlog) != 0 || ::getsockname(fd_, any, &size) != 0)
      ::abort();
    port_ = ntohs(address.sin_port);
  }
  LocalListener(const LocalListener&) = delete;
  LocalListener& operator=(const LocalListener&) = delete;
  ~LocalListener() { close(); }

  std::uint16_t port() const { return port_; }
  // A connection, which is the caller's to close; -1 after shut_down().
  int accept() const { return ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC); }
  // From any thread: who waits in accept() is woken, and nobody is accepted any more.
  void shut_down() const { ::shutdown(fd_, SHUT_RDWR); }
  // When no thread is in accept(): from now on connections are refused.
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
  std::uint16_t port_ = 0;
};

}  // namespace ledger::test
