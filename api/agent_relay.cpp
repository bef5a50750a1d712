#include "api/agent_relay.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <system_error>
#include <vector>

namespace ledger::api {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kDataDeadline_ms = 15'000;
constexpr int kDial_ms = 5'000;
constexpr std::size_t kChunk = 32 << 10;
// remotedialer's: Pause above, Resume below.
constexpr std::size_t kPauseAbove = 2 << 20;
constexpr std::size_t kResumeBelow = 256 << 10;

// Go's text: the C library's with a small first letter.
std::string system_text(int error) {
  std::string text = std::generic_category().message(error);
  if (!text.empty()) text = to_lower(text.substr(0, 1)) + text.substr(1);
  return text;
}

// A connected, non-blocking socket, or -errno.
int connect_to(bool v6, std::uint16_t port) {
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6, six.sin6_port = htons(port), six.sin6_addr = in6addr_loopback;
  sockaddr_in four{};
  four.sin_family = AF_INET, four.sin_port = htons(port), four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = ::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  const int result = v6 ? ::connect(fd, reinterpret_cast<const sockaddr*>(&six), sizeof six)
                        : ::connect(fd, reinterpret_cast<const sockaddr*>(&four), sizeof four);
  int error = result == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd entry{fd, POLLOUT, 0};
    socklen_t size = sizeof error;
    if (::poll(&entry, 1, kDial_ms) != 1)
      error = ETIMEDOUT;
    else
      ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error == 0) return fd;
  ::close(fd);
  return -error;
}

}  // namespace

AgentRelay::AgentRelay(std::uint16_t kubelet_port, std::chrono::seconds sync_every)
    : kubelet_port_(kubelet_port),
      sync_every_(sync_every),
      next_sync_(Clock::now() + sync_every),
      next_id_(std::random_device()()) {}

AgentRelay::~AgentRelay() {
  for (auto& [number, connection] : connections_) ::close(connection.fd);
}

Result<void> AgentRelay::say(WebsocketClient& session, std::int64_t connection, std::int64_t type,
                             std::string payload) {
  return session.send(TunnelFrame{next_id_++, connection, type, kDataDeadline_ms, std::move(payload)}.encode());
}

Result<void> AgentRelay::take(WebsocketClient& session, std::string_view message) {
  const Result<TunnelFrame> frame = TunnelFrame::decode(message);
  if (!frame) return frame.error();
  const auto found = connections_.find(frame->connection);
  const bool known = found != connections_.end();
  switch (frame->type) {
    case TunnelFrame::kConnect: return dial(session, *frame);
    case TunnelFrame::kData: return data(session, *frame);
    case TunnelFrame::kError:
      if (known) return end(session, frame->connection, "");
      return {};
    case TunnelFrame::kPause:
    case TunnelFrame::kResume:
      if (known) found->second.paused_by_peer = frame->type == TunnelFrame::kPause;
      return {};
    default: return {};
  }
}

Result<void> AgentRelay::dial(WebsocketClient& session, const TunnelFrame& connect) {
  const std::string& target = connect.payload;
  const bool v6 = target.starts_with("tcp/[::1]:");
  const bool kubelet = target == "tcp/127.0.0.1:10250" || target == "tcp/[::1]:10250";
  if (!kubelet && target != "tcp/127.0.0.1:10010" && target != "tcp/[::1]:10010")
    return Error{Errc::invalid, "connect not allowed"};
  if (connections_.contains(connect.connection)) return {};
  const int fd = connect_to(v6, kubelet ? kubelet_port_ : std::uint16_t{10010});
  if (fd < 0)
    return say(session, connect.connection, TunnelFrame::kError,
               "dial tcp " + target.substr(4) + ": connect: " + system_text(-fd));
  connections_[connect.connection].fd = fd;
  return {};
}

Result<void> AgentRelay::data(WebsocketClient& session, const TunnelFrame& frame) {
  const auto found = connections_.find(frame.connection);
  if (found == connections_.end())
    return say(session, frame.connection, TunnelFrame::kError,
               "connection not found " + std::to_string(frame.connection));
  Connection& connection = found->second;
  connection.to_kubelet += frame.payload;
  if (const std::string over = write_some(connection); !over.empty()) return end(session, frame.connection, over);
  if (connection.to_kubelet.size() <= kPauseAbove || connection.paused_by_us) return {};
  connection.paused_by_us = true;
  return say(session, frame.connection, TunnelFrame::kPause);
}

Result<void> AgentRelay::end(WebsocketClient& session, std::int64_t number, const std::string& text) {
  ::close(connections_.at(number).fd);
  connections_.erase(number);
  if (text.empty()) return {};
  return say(session, number, TunnelFrame::kError, text);
}

std::string AgentRelay::write_some(Connection& connection) {
  std::string& bytes = connection.to_kubelet;
  while (!bytes.empty()) {
    const ssize_t sent = ::send(connection.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) bytes.erase(0, static_cast<std::size_t>(sent));
    if (sent >= 0 || errno == EINTR) continue;
    if (errno == EAGAIN) return "";
    return "write: " + system_text(errno);
  }
  return "";
}

std::string AgentRelay::read_some(Connection& connection, std::string* bytes) {
  bytes->resize(kChunk);
  const ssize_t got = ::recv(connection.fd, bytes->data(), bytes->size(), 0);
  bytes->resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  if (got == 0) return "EOF";
  if (got < 0 && errno != EAGAIN && errno != EINTR) return "read: " + system_text(errno);
  return "";
}

Result<void> AgentRelay::carry(WebsocketClient& session) {
  std::vector<std::int64_t> numbers;
  for (const auto& [number, connection] : connections_) numbers.push_back(number);
  for (const std::int64_t number : numbers) {
    Connection& connection = connections_.at(number);
    std::string over = write_some(connection);
    if (connection.paused_by_us && connection.to_kubelet.size() < kResumeBelow) {
      connection.paused_by_us = false;
      if (const auto said = say(session, number, TunnelFrame::kResume); !said) return said.error();
    }
    std::string bytes;
    if (over.empty() && !connection.paused_by_peer) over = read_some(connection, &bytes);
    if (!bytes.empty())
      if (const auto said = say(session, number, TunnelFrame::kData, std::move(bytes)); !said) return said.error();
    if (!over.empty())
      if (const auto ended = end(session, number, over); !ended) return ended.error();
  }
  if (sync_every_.count() == 0 || Clock::now() < next_sync_) return {};
  next_sync_ = Clock::now() + sync_every_;
  std::string live;
  for (const auto& [number, connection] : connections_)
    for (int shift = 0; shift < 64; shift += 8) live += static_cast<char>(static_cast<std::uint64_t>(number) >> shift);
  return say(session, 0, TunnelFrame::kSyncConnections, live);
}

}  // namespace ledger::api
