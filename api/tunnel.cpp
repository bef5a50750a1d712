#include "api/tunnel.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <unordered_map>

#include "api/tunnel_frame.h"

namespace ledger::api {
namespace {

using std::chrono::steady_clock;

constexpr std::string_view kKubelet = "tcp/127.0.0.1:10250";
constexpr std::size_t kMaxSessionsOfNode = 64;
constexpr std::size_t kMaxConnectionsOfSession = 8;
constexpr std::size_t kMaxHeld = 256 << 10;
constexpr std::size_t kMaxDataFrame = 16 << 10;
constexpr std::int64_t kFirstConnection = 2;  // remotedialer's
constexpr std::int64_t kDialDeadline_ms = 15'000;

}  // namespace

// Sessions are owned by their websockets; here they are only listed.
struct Tunnels::Table {
  struct Entry {
    OpenTunnel info;
    std::weak_ptr<AgentTunnel> session;
  };
  mutable std::mutex mutex;
  std::unordered_map<std::string, std::deque<Entry>> of_node;  // newest first
};

namespace {

// What is known of one connection; guarded by its session's mutex.
struct Pipe {
  std::string arrived;
  bool paused = false;   // the agent wants us to wait
  TunnelConnection::End end = TunnelConnection::End::none;
  std::string why;
};

}  // namespace

class AgentTunnel : public TunnelSession, public std::enable_shared_from_this<AgentTunnel> {
 public:
  AgentTunnel(Ledger& ledger, std::shared_ptr<Tunnels::Table> table, Record closed)
      : ledger_(ledger), table_(std::move(table)), closed_(std::move(closed)), node_(closed_.node) {}

  void attach(TunnelSend send) override;
  Result<void> on_message(std::string_view bytes) override;
  void on_close(std::string_view cause) override;

  // 0: the tunnel takes no more.
  std::int64_t dial(std::string_view target);
  TunnelConnection::Chunk read(std::int64_t connection, TunnelConnection::TimePoint deadline);
  TunnelConnection::End write(std::int64_t connection, std::string_view bytes, TunnelConnection::TimePoint deadline);
  void hang_up(std::int64_t connection);

 private:
  void take(const TunnelFrame& frame);
  bool say(std::int64_t connection, std::int64_t type, std::int64_t deadline_ms, std::string payload);

  Ledger& ledger_;
  const std::shared_ptr<Tunnels::Table> table_;
  Record closed_;  // moved from by on_close
  const std::string node_;
  const steady_clock::time_point opened_ = steady_clock::now();

  std::mutex mutex_;
  std::condition_variable changed_;
  TunnelSend send_;  // empty: the websocket is not up, or not any more
  std::map<std::int64_t, Pipe> pipes_;
  std::int64_t next_connection_ = kFirstConnection;
  std::int64_t next_id_ = static_cast<std::int64_t>(std::random_device()() | 1);  // informational
};

void AgentTunnel::attach(TunnelSend send) {
  {
    const std::lock_guard lock(mutex_);
    send_ = std::move(send);
  }
  const std::lock_guard lock(table_->mutex);
  auto& sessions = table_->of_node[node_];
  sessions.push_front({{closed_.request_id, closed_.source, Time::now(), closed_.upstream}, weak_from_this()});
  if (sessions.size() > kMaxSessionsOfNode) sessions.pop_back();
}

// Only messages of connections that we made are of interest: the agent's pings are the socket's business, and
// SyncConnections, sent once a minute, could only tell us of a connection's end later than its Error does.
Result<void> AgentTunnel::on_message(std::string_view bytes) {
  const Result<TunnelFrame> frame = TunnelFrame::decode(bytes);
  if (!frame) return frame.error();
  take(*frame);
  return {};
}

void AgentTunnel::take(const TunnelFrame& frame) {
  const std::lock_guard lock(mutex_);
  const auto found = pipes_.find(frame.connection);
  if (found == pipes_.end()) return;
  Pipe& pipe = found->second;
  if (pipe.end != TunnelConnection::End::none) return;
  switch (frame.type) {
    case TunnelFrame::kData:
      if (frame.payload.empty()) return;
      if (pipe.arrived.size() + frame.payload.size() > kMaxHeld) {
        pipe.end = TunnelConnection::End::too_much;
        pipe.arrived = {};
      } else {
        pipe.arrived += frame.payload;
      }
      break;
    case TunnelFrame::kError:
      pipe.end = TunnelConnection::End::by_agent;
      pipe.why = printable(frame.payload, 200);
      break;
    case TunnelFrame::kPause: pipe.paused = true; break;
    case TunnelFrame::kResume: pipe.paused = false; break;
    default: return;
  }
  changed_.notify_all();
}

void AgentTunnel::on_close(std::string_view cause) {
  {
    const std::lock_guard lock(table_->mutex);
    if (const auto found = table_->of_node.find(node_); found != table_->of_node.end()) {
      std::erase_if(found->second, [&](const auto& entry) { return entry.info.session == closed_.request_id; });
      if (found->second.empty()) table_->of_node.erase(found);
    }
  }
  {
    const std::lock_guard lock(mutex_);
    send_ = {};
    for (auto& [connection, pipe] : pipes_) {
      if (pipe.end != TunnelConnection::End::none) continue;
      pipe.end = TunnelConnection::End::tunnel;
      pipe.why = printable(cause, 200);
    }
    changed_.notify_all();
  }
  const std::chrono::duration<double> open = steady_clock::now() - opened_;
  closed_.event = TunnelClosed{.session = closed_.request_id,
                               .cause = printable(cause, 200),
                               .seconds = static_cast<double>(static_cast<std::int64_t>(open.count() * 1000)) / 1000};
  Proposal proposal;
  proposal.records.push_back(std::move(closed_));
  ledger_.append(std::move(proposal), [](const Result<Committed>&) {});
}

// Under mutex_.
bool AgentTunnel::say(std::int64_t connection, std::int64_t type, std::int64_t deadline_ms, std::string payload) {
  if (!send_) return false;
  return send_(TunnelFrame{next_id_++, connection, type, deadline_ms, std::move(payload)}.encode());
}

std::int64_t AgentTunnel::dial(std::string_view target) {
  const std::lock_guard lock(mutex_);
  if (pipes_.size() >= kMaxConnectionsOfSession) return 0;
  const std::int64_t connection = next_connection_++;
  if (!say(connection, TunnelFrame::kConnect, kDialDeadline_ms, std::string(target))) return 0;
  pipes_.emplace(connection, Pipe{});
  return connection;
}

TunnelConnection::Chunk AgentTunnel::read(std::int64_t connection, TunnelConnection::TimePoint deadline) {
  std::unique_lock lock(mutex_);
  Pipe& pipe = pipes_.at(connection);
  const auto ready = [&] { return !pipe.arrived.empty() || pipe.end != TunnelConnection::End::none; };
  if (!changed_.wait_until(lock, deadline, ready)) return {{}, TunnelConnection::End::timed_out, {}};
  if (pipe.arrived.empty()) return {{}, pipe.end, pipe.why};
  return {std::exchange(pipe.arrived, {}), TunnelConnection::End::none, {}};
}

TunnelConnection::End AgentTunnel::write(std::int64_t connection, std::string_view bytes,
                                         TunnelConnection::TimePoint deadline) {
  std::unique_lock lock(mutex_);
  Pipe& pipe = pipes_.at(connection);
  while (!bytes.empty()) {
    const auto ready = [&] { return !pipe.paused || pipe.end != TunnelConnection::End::none; };
    if (!changed_.wait_until(lock, deadline, ready)) return TunnelConnection::End::timed_out;
    if (pipe.end != TunnelConnection::End::none) return pipe.end;
    const std::string_view part = bytes.substr(0, kMaxDataFrame);
    if (!say(connection, TunnelFrame::kData, kDialDeadline_ms, std::string(part)))
      return TunnelConnection::End::timed_out;  // the agent has taken nothing for a long time
    bytes.remove_prefix(part.size());
  }
  return TunnelConnection::End::none;
}

void AgentTunnel::hang_up(std::int64_t connection) {
  const std::lock_guard lock(mutex_);
  const auto found = pipes_.find(connection);
  if (found->second.end != TunnelConnection::End::by_agent) say(connection, TunnelFrame::kError, 0, "EOF");
  pipes_.erase(found);
}

// ---- what others see -------------------------------------------------------------------------------------

TunnelConnection::TunnelConnection(std::shared_ptr<AgentTunnel> session, std::int64_t number)
    : session_(std::move(session)), number_(number) {}
TunnelConnection::~TunnelConnection() { session_->hang_up(number_); }
TunnelConnection::Chunk TunnelConnection::read(TimePoint deadline) { return session_->read(number_, deadline); }
TunnelConnection::End TunnelConnection::write(std::string_view bytes, TimePoint deadline) {
  return session_->write(number_, bytes, deadline);
}

Tunnels::Tunnels(Ledger& ledger) : ledger_(ledger), table_(std::make_shared<Table>()) {}

std::shared_ptr<TunnelSession> Tunnels::open(Record closed, const std::string& node) {
  closed.node = node;
  return std::make_shared<AgentTunnel>(ledger_, table_, std::move(closed));
}

std::vector<OpenTunnel> Tunnels::of(const std::string& node) const {
  std::vector<OpenTunnel> out;
  const std::lock_guard lock(table_->mutex);
  const auto found = table_->of_node.find(node);
  if (found == table_->of_node.end()) return out;
  for (const Table::Entry& entry : found->second) out.push_back(entry.info);
  return out;
}

std::unique_ptr<TunnelConnection> Tunnels::dial_kubelet(const std::string& node, std::optional<OpenTunnel>* through) {
  std::shared_ptr<AgentTunnel> session;
  {
    const std::lock_guard lock(table_->mutex);
    const auto found = table_->of_node.find(node);
    if (found == table_->of_node.end()) return nullptr;
    session = found->second.front().session.lock();
    *through = found->second.front().info;
  }
  if (session == nullptr) return nullptr;
  const std::int64_t connection = session->dial(kKubelet);
  if (connection == 0) return nullptr;
  return std::unique_ptr<TunnelConnection>(new TunnelConnection(std::move(session), connection));
}

}  // namespace ledger::api
