#include "ledger/storm.h"

#include <algorithm>

#include "ledger/event_codec.h"

namespace ledger {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::seconds kFirstInterval{30};
constexpr std::chrono::seconds kLastInterval{120};

// The caller showed neither a valid token nor a valid certificate.
bool is_unproven(const Record& record) {
  const Kind kind = record.kind();
  return kind == Kind::token_rejected || kind == Kind::tls_failed ||
         (kind == Kind::request_rejected && record.auth.token.empty() && record.auth.serial.empty());
}

// Ends a span of the log: every count that belongs before it must stand before it.
bool ends_all(Kind kind) {
  switch (kind) {
    case Kind::server_stopped:
    case Kind::epoch_started:
    case Kind::token_rotated:  // what was accepted with a token stands before its end
    case Kind::token_revoked:
    case Kind::token_expired: return true;
    default: return false;
  }
}

// Changes or confirms a binding.
bool ends_nodes(Kind kind) {
  switch (kind) {
    case Kind::password_stored:
    case Kind::password_verified:
    case Kind::binding_released:
    case Kind::binding_changed:
    case Kind::binding_held:
    case Kind::binding_imported: return true;
    default: return false;
  }
}

// What is left of an outcome when two of them are compared.
void normalise(Record& record) {
  record.seq = 0;
  record.time = {};
  record.count = 1;
  record.first_time.reset();
  record.request_id.clear();
  record.took_ms.reset();
  record.source = host_of(record.source);
  record.via = host_of(record.via);
}

// Leaves nothing that the caller can choose freely, or a flood would get past the limit by varying it.
void make_anonymous(Record& record) {
  record.source.clear();
  record.via.clear();
  record.endpoint.clear();
  record.auth = {.method = record.auth.method, .principal = {}, .token = {}, .serial = {}};
  record.node.clear();
  record.claimed.clear();
  record.generation.clear();
  if (auto* rejected = std::get_if<TokenRejected>(&record.event)) rejected->token.clear();
  record.note = "over the limit of different refusals: counted without source";
}

}  // namespace

bool StormCounter::countable(Kind kind) { return kind == Kind::token_accepted || is_refusal(kind); }

Seq StormCounter::offer(Record& record, Instant now) {
  offered_ = windows_.end();
  Record same = record;
  normalise(same);
  std::string key = encode(same);
  auto found = by_key_.find(key);
  bool anonymous = false;
  if (found == by_key_.end() && is_unproven(record) && !within_budget(now)) {
    anonymous = true;
    make_anonymous(record);
    make_anonymous(same);
    key = encode(same);
    found = by_key_.find(key);
  }
  if (found == by_key_.end()) {
    // The few anonymous windows are what stops a flood: they open even when the others are many.
    if (anonymous || windows_.size() < limits_.max_windows) offered_ = open_window(std::move(key), same, now);
    return 0;
  }
  Window& window = *found->second;
  const Time happened = record.time.known() ? record.time : now.stamp;
  const bool first = window.pending == 0;
  window.pending += record.count;
  if (first) {
    window.first = record.first_time.value_or(happened);
    if (is_refusal(window.record.kind()) && !window.record.node.empty())
      counting_.emplace(window.record.node, &window);
  }
  window.last = happened;
  return window.stands_for;
}

void StormCounter::written(Seq seq) {
  if (offered_ != windows_.end()) offered_->stands_for = seq;
  offered_ = windows_.end();
}

std::vector<Record> StormCounter::due(Instant now) {
  std::vector<Record> counts;
  while (!by_due_.empty() && by_due_.begin()->first <= now.steady) {
    Window* window = by_due_.begin()->second;
    if (window->pending == 0) {
      close_window(by_key_.find(window->key)->second);
      continue;
    }
    counts.push_back(take_count(*window));
    by_due_.erase(by_due_.begin());
    window->interval = std::min(window->interval * 2, kLastInterval);
    window->due = now.steady + window->interval;
    by_due_.emplace(window->due, window);
  }
  return counts;
}

std::vector<Record> StormCounter::ended_by(const Record& record) {
  if (ends_all(record.kind())) return settle_all();
  if (ends_nodes(record.kind())) return settle(record.node);
  return {};
}

std::vector<Record> StormCounter::refusals_so_far(const Record& record) {
  std::vector<Record> counts;
  const std::string_view node = record.node;
  if (node.empty() || !is_refusal(record.kind())) return counts;
  for (auto it = counting_.lower_bound({node, nullptr}); it != counting_.end() && it->first == node;)
    counts.push_back(take_count(*(it++)->second));
  std::sort(counts.begin(), counts.end(), [](const Record& a, const Record& b) { return a.time < b.time; });
  return counts;
}

std::vector<Record> StormCounter::settle(std::string_view node) {
  std::vector<Record> counts;
  const auto [begin, end] = by_node_.equal_range(node);
  std::vector<Windows::iterator> closing;
  for (auto it = begin; it != end; ++it) closing.push_back(it->second);
  for (const Windows::iterator window : closing) {
    if (window->pending > 0) counts.push_back(take_count(*window));
    close_window(window);
  }
  return counts;
}

std::vector<Record> StormCounter::settle_all() {
  std::vector<Record> counts;
  for (Window& window : windows_)
    if (window.pending > 0) counts.push_back(take_count(window));
  offered_ = windows_.end();
  counting_.clear();
  by_key_.clear();
  by_node_.clear();
  by_due_.clear();
  windows_.clear();
  return counts;
}

std::optional<steady_clock::time_point> StormCounter::next_due() const {
  if (by_due_.empty()) return std::nullopt;
  return by_due_.begin()->first;
}

StormCounter::Windows::iterator StormCounter::open_window(std::string key, const Record& record, Instant now) {
  const auto window = windows_.emplace(windows_.begin());
  window->key = std::move(key);
  window->record = record;
  window->interval = kFirstInterval;
  window->due = now.steady + kFirstInterval;
  by_key_.emplace(window->key, window);
  if (!window->record.node.empty()) by_node_.emplace(window->record.node, window);
  by_due_.emplace(window->due, &*window);
  return window;
}

void StormCounter::close_window(Windows::iterator window) {
  by_due_.erase({window->due, &*window});
  const auto [begin, end] = by_node_.equal_range(window->record.node);
  for (auto it = begin; it != end; ++it) {
    if (it->second != window) continue;
    by_node_.erase(it);
    break;
  }
  counting_.erase({window->record.node, &*window});
  by_key_.erase(window->key);
  if (offered_ == window) offered_ = windows_.end();
  windows_.erase(window);
}

bool StormCounter::within_budget(Instant now) {
  if (refilled_) {
    const std::chrono::duration<double> elapsed = now.steady - *refilled_;
    budget_ = std::min(limits_.burst, budget_ + elapsed.count() * limits_.per_second);
  }
  refilled_ = now.steady;
  if (budget_ < 1) return false;
  budget_ -= 1;
  return true;
}

Record StormCounter::take_count(Window& window) {
  Record count = window.record;
  count.count = window.pending;
  count.first_time = window.first;
  count.time = window.last;
  window.pending = 0;
  counting_.erase({window.record.node, &window});
  return count;
}

}  // namespace ledger
