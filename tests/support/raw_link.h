// Connections that say exactly the bytes they are told, for everything a well-behaved client refuses to send.
#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "api/https_client.h"
#include "api/tls_link.h"
#include "tests/support/local_listener.h"

namespace ledger::test {

// TCP without TLS.
class RawTcp {
 public:
  explicit RawTcp(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  RawTcp(const RawTcp&) = delete;
  RawTcp& operator=(const RawTcp&) = delete;
  ~RawTcp() { hang_up(); }

  bool connected() const { return connected_; }
  int fd() const { return fd_; }
  bool say(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  // Everything until the server closes; `*closed` false: it did not within `at_most`.
  std::string hear_all(bool* closed, std::chrono::milliseconds at_most = std::chrono::seconds(30)) {
    std::string heard;
    *closed = false;
    const auto until = std::chrono::steady_clock::now() + at_most;
    for (;;) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
      pollfd wait{fd_, POLLIN, 0};
      if (left.count() <= 0 || ::poll(&wait, 1, static_cast<int>(left.count())) <= 0) return heard;
      char chunk[4096];
      const ssize_t got = ::recv(fd_, chunk, sizeof chunk, 0);
      if (got <= 0) {
        *closed = true;
        return heard;
      }
      heard.append(chunk, static_cast<std::size_t>(got));
    }
  }
  // Our own "127.0.0.1:port", as the server sees us.
  std::string local() const {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    return "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  void hang_up() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  // A reset instead of an orderly end.
  void break_off() {
    const linger now{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    hang_up();
  }

 private:
  int fd_;
  bool connected_ = false;
};

// One connection handed through to `port`, until it is cut: then both ends see a reset, without a word of TLS.
class TcpBridge {
 public:
  explicit TcpBridge(std::uint16_t port) {
    thread_ = std::thread([this, port] { carry(port); });
  }
  ~TcpBridge() { cut(); }

  std::uint16_t port() const { return listener_.port(); }
  void cut() {
    cut_ = true;
    listener_.shut_down();
    if (thread_.joinable()) thread_.join();
    listener_.close();
  }

 private:
  void carry(std::uint16_t port) {
    const int client = listener_.accept();
    RawTcp server(port);
    while (client >= 0 && !cut_) {
      pollfd ready[2] = {{client, POLLIN, 0}, {server.fd(), POLLIN, 0}};
      if (::poll(ready, 2, 10) < 0) break;
      for (int side = 0; side < 2; ++side) {
        if (ready[side].revents == 0) continue;
        char chunk[4096];
        const ssize_t got = ::recv(ready[side].fd, chunk, sizeof chunk, 0);
        if (got <= 0) cut_ = true;
        if (got > 0) ::send(ready[1 - side].fd, chunk, static_cast<std::size_t>(got), MSG_NOSIGNAL);
      }
    }
    server.break_off();
    const linger now{1, 0};
    ::setsockopt(client, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    ::close(client);
  }

  LocalListener listener_{1};
  std::atomic<bool> cut_{false};
  std::thread thread_;
};

// TLS, and whatever bytes inside it.
class RawTls {
 public:
  explicit RawTls(const api::HttpsOptions& options, std::chrono::seconds at_most = std::chrono::seconds(30))
      : context_(*api::TlsContext::make(options)) {
    link_.set_deadline(std::chrono::steady_clock::now() + at_most);
    opened_ = link_.open(options, context_);
  }

  const Result<void>& opened() const { return opened_; }
  bool say(std::string_view bytes) { return link_.write(bytes); }
  // Until the server closes, or the deadline: then closed() is false.
  std::string hear_all() {
    while (hear_some()) {
    }
    return std::exchange(heard_, {});
  }
  // Until `end` was heard; everything so far.
  std::string hear_until(std::string_view end) {
    while (heard_.find(end) == std::string::npos && hear_some()) {
    }
    return std::exchange(heard_, {});
  }
  // One response with a Content-Length.
  std::string hear_response() {
    std::size_t end = 0;
    while ((end = heard_.find("\r\n\r\n")) == std::string::npos)
      if (!hear_some()) return std::exchange(heard_, {});
    end += 4;
    const std::string head = to_lower(heard_.substr(0, end));
    const auto at = head.find("content-length: ");
    const std::size_t size = end + (at == std::string::npos ? 0 : std::stoul(head.substr(at + 16)));
    while (heard_.size() < size)
      if (!hear_some()) break;
    std::string response = heard_.substr(0, size);
    heard_.erase(0, size);
    return response;
  }
  bool closed() const { return closed_; }
  std::string local() const { return link_.local(); }
  void hang_up() { link_.hang_up(); }

 private:
  bool hear_some() {
    char chunk[4096];
    const std::size_t got = link_.read(chunk, sizeof chunk);
    heard_.append(chunk, got);
    if (got == 0) closed_ = !link_.timed_out();
    return got > 0;
  }

  api::TlsContext context_;
  api::TlsLink link_;
  Result<void> opened_;
  std::string heard_;
  bool closed_ = false;
};

inline int status_of(std::string_view response) {
  if (!response.starts_with("HTTP/1.")) return 0;
  const auto space = response.find(' ');
  return space == std::string_view::npos ? 0 : std::atoi(std::string(response.substr(space + 1, 3)).c_str());
}

}  // namespace ledger::test
