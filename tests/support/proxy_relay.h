// A load balancer in the small: passes connections through to a port, and says first what it is told to (a PROXY
// header). Real sockets on both sides, a thread per connection.
#pragma once

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/local_listener.h"

namespace ledger::test {

// "PROXY TCP4 ..." or TCP6, by the look of `source`.
inline std::string proxy_v1(const std::string& source, unsigned port) {
  const bool v6 = source.find(':') != std::string::npos;
  return std::string("PROXY ") + (v6 ? "TCP6 " : "TCP4 ") + source + (v6 ? " fd00::1 " : " 10.0.0.1 ") +
         std::to_string(port) + " 6443\r\n";
}

// Version 2, with `more` (TLVs) after the addresses.
inline std::string proxy_v2(const std::string& source, unsigned port, const std::string& more = "") {
  const bool v6 = source.find(':') != std::string::npos;
  std::array<char, 16> address{};
  ::inet_pton(v6 ? AF_INET6 : AF_INET, source.c_str(), address.data());
  const std::size_t size = v6 ? 16 : 4;
  const std::size_t length = 2 * size + 4 + more.size();
  std::string out("\r\n\r\n\0\r\nQUIT\n", 12);
  out += '\x21';
  out += v6 ? '\x21' : '\x11';
  out += static_cast<char>(length >> 8);
  out += static_cast<char>(length & 0xFF);
  out.append(address.data(), size);
  out.append(size, '\x01');
  for (const unsigned number : {port, 6443U}) {
    out += static_cast<char>(number >> 8);
    out += static_cast<char>(number & 0xFF);
  }
  return out + more;
}

class ProxyRelay {
 public:
  // The header of the next connection; called from the connections' threads.
  using Header = std::function<std::string()>;

  // `from`: the address it connects from, all of 127.0.0.0/8 is this machine. `piece`: bytes of the header per send.
  ProxyRelay(std::uint16_t port, Header header, std::string from = "127.0.0.1", std::size_t piece = 4096)
      : target_(port), header_(std::move(header)), from_(std::move(from)), piece_(piece) {
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ProxyRelay(const ProxyRelay&) = delete;
  ProxyRelay& operator=(const ProxyRelay&) = delete;
  ~ProxyRelay() {
    stopping_ = true;
    listener_.shut_down();
    acceptor_.join();
    for (std::thread& thread : connections_) thread.join();
  }

  std::uint16_t port() const { return listener_.port(); }

 private:
  static sockaddr_in loopback(std::uint16_t port, const char* text = "127.0.0.1") {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    ::inet_pton(AF_INET, text, &address.sin_addr);
    return address;
  }

  void accept_all() {
    while (!stopping_) {
      const int client = listener_.accept();
      if (client >= 0) connections_.emplace_back([this, client] { carry(client); });
    }
  }

  void carry(int client) {
    const int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int yes = 1;
    ::setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    const sockaddr_in own = loopback(0, from_.c_str()), target = loopback(target_);
    if (::bind(server, reinterpret_cast<const sockaddr*>(&own), sizeof own) == 0 &&
        ::connect(server, reinterpret_cast<const sockaddr*>(&target), sizeof target) == 0) {
      const std::string header = header_();
      for (std::size_t at = 0; at < header.size(); at += piece_)
        pass(server, header.data() + at, std::min(piece_, header.size() - at));
      pump(client, server);
    }
    ::close(server);
    ::close(client);
  }

  static bool pass(int to, const char* bytes, std::size_t size) {
    while (size > 0) {
      const ssize_t sent = ::send(to, bytes, size, MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes += sent;
      size -= static_cast<std::size_t>(sent);
    }
    return true;
  }

  // Until one side has hung up; what it said before that still arrives.
  void pump(int client, int server) {
    const int ends[2] = {client, server};
    while (!stopping_) {
      pollfd ready[2] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
      if (::poll(ready, 2, 20) < 0) return;
      for (int side = 0; side < 2; ++side) {
        if (ready[side].revents == 0) continue;
        char chunk[16384];
        const ssize_t got = ::recv(ends[side], chunk, sizeof chunk, 0);
        if (got <= 0 || !pass(ends[1 - side], chunk, static_cast<std::size_t>(got))) return;
      }
    }
  }

  const std::uint16_t target_;
  const Header header_;
  const std::string from_;
  const std::size_t piece_;
  LocalListener listener_{512};
  std::atomic<bool> stopping_{false};
  std::thread acceptor_;
  std::vector<std::thread> connections_;  // the acceptor's until it has ended
};

}  // namespace ledger::test
