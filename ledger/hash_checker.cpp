#include "ledger/hash_checker.h"

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "ledger/node_hash.h"

namespace ledger {
namespace {

constexpr std::size_t kMaxPerNode = 2;
constexpr std::size_t kMaxSharing = 16;  // callers of one check

// What is compared with what: a password with the binding that this version of the node has.
struct Key {
  std::string node;
  Seq version = 0;
  std::string presented;
  auto operator<=>(const Key&) const = default;
};

struct Check {
  Secret hash, password;
  std::vector<HashChecker::Done> done;
};

struct Keep {
  std::string node;
  Fingerprint fingerprint;
  Secret password;  // empty: only note whose hash it is
};

}  // namespace

struct HashChecker::State {
  Options options;
  mutable std::mutex mutex;
  std::condition_variable work;
  bool stopping = false;
  std::map<Key, Check> checks;  // waiting or running
  std::deque<Key> waiting;
  std::deque<Keep> keeping;
  std::set<Key> refused;
  std::deque<Key> refused_order;  // oldest first
  Stats stats;
  std::vector<std::thread> threads;

  std::optional<Answer> enter(Key key, Secret& hash, const Secret& password, Done& done);
  void run(HashStore& store);
  void run_check(std::unique_lock<std::mutex>& lock);
  void run_keep(std::unique_lock<std::mutex>& lock, HashStore& store);
  void remember_refused(const Key& key);
  std::size_t of_node(const std::string& node) const;
};

HashChecker::HashChecker(HashStore& store, Options options) : store_(store), state_(std::make_unique<State>()) {
  state_->options = options;
  for (unsigned i = 0; i < options.threads; ++i)
    state_->threads.emplace_back([this] { state_->run(store_); });
}

HashChecker::~HashChecker() { stop(); }

void HashChecker::stop() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->work.notify_all();
  for (std::thread& thread : state_->threads)
    if (thread.joinable()) thread.join();
  const std::lock_guard lock(state_->mutex);
  state_->checks.clear();
  state_->waiting.clear();
  // Whose hash it is cannot be found out again: that much is written down.
  for (const Keep& keep : state_->keeping)
    if (keep.password.empty()) (void)store_.belongs_to(keep.node, keep.fingerprint);
  state_->keeping.clear();
}

HashChecker::Stats HashChecker::stats() const {
  const std::lock_guard lock(state_->mutex);
  return state_->stats;
}

std::size_t HashChecker::State::of_node(const std::string& node) const {
  std::size_t count = 0;
  for (auto it = checks.lower_bound(Key{node, 0, {}}); it != checks.end() && it->first.node == node; ++it) ++count;
  return count;
}

void HashChecker::check(const std::string& node, const NodeState& state, const Fingerprint& presented,
                        const Secret& password, Done done) {
  Secret hash = store_.find(node, state);
  if (hash.empty()) return done(Answer::no_hash);
  if (const std::optional<Answer> known = state_->enter({node, state.version, presented.text}, hash, password, done))
    return done(*known);
  state_->work.notify_one();
}

// What can be said at once; nullopt: the check is queued, and has taken `done`.
std::optional<HashChecker::Answer> HashChecker::State::enter(Key key, Secret& hash, const Secret& password,
                                                             Done& done) {
  const std::lock_guard lock(mutex);
  if (refused.count(key) != 0) return Answer::mismatch;
  const auto running = checks.find(key);
  const bool shared = running != checks.end();
  const bool full = shared ? running->second.done.size() >= kMaxSharing
                           : waiting.size() >= options.max_waiting || of_node(key.node) >= kMaxPerNode;
  if (full || stopping) {
    ++stats.busy;
    return Answer::busy;
  }
  if (shared) {
    running->second.done.push_back(std::move(done));
    return std::nullopt;
  }
  Check& check = checks[key];
  check.hash = std::move(hash);
  check.password = password.clone();
  check.done.push_back(std::move(done));
  waiting.push_back(std::move(key));
  return std::nullopt;
}

void HashChecker::verified(const std::string& node, const Fingerprint& fingerprint, const Secret& password,
                           bool by_hash) {
  if (!by_hash && !state_->options.keep) return;
  NodeState bound;
  bound.bound = fingerprint;
  if (store_.has(node, bound)) return;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->stopping || state_->keeping.size() >= state_->options.max_keeping) {
      ++state_->stats.not_kept;
      return;
    }
    state_->keeping.push_back({node, fingerprint, by_hash ? Secret() : password.clone()});
  }
  state_->work.notify_one();
}

// Agents that wait come first; what is to be kept has time.
void HashChecker::State::run(HashStore& store) {
  std::unique_lock lock(mutex);
  for (;;) {
    work.wait(lock, [this] { return stopping || !waiting.empty() || !keeping.empty(); });
    if (stopping) return;
    if (!waiting.empty())
      run_check(lock);
    else
      run_keep(lock, store);
  }
}

void HashChecker::State::run_check(std::unique_lock<std::mutex>& lock) {
  const Key key = std::move(waiting.front());
  waiting.pop_front();
  Check& check = checks.at(key);  // stays where it is: only this thread takes it out
  ++stats.scrypts;
  lock.unlock();
  Answer answer = Answer::no_hash;
  if (const Result<NodeHash> hash = NodeHash::parse(check.hash.reveal())) {
    const Result<bool> same = hash->matches(check.password);
    answer = !same ? Answer::unavailable : *same ? Answer::match : Answer::mismatch;
  }
  lock.lock();
  const std::vector<Done> done = std::move(check.done);
  checks.erase(key);
  if (answer == Answer::mismatch) remember_refused(key);
  if (stopping) return;
  lock.unlock();
  for (const Done& tell : done) tell(answer);
  lock.lock();
}

void HashChecker::State::run_keep(std::unique_lock<std::mutex>& lock, HashStore& store) {
  const Keep keep = std::move(keeping.front());
  keeping.pop_front();
  const bool make = !keep.password.empty();
  if (make) ++stats.scrypts;
  lock.unlock();
  Result<void> kept;
  if (make) {
    Result<Secret> hash = make_node_hash(keep.password);
    HashStore::Entry entry{keep.node, keep.fingerprint, hash ? std::move(*hash) : Secret()};
    kept = hash ? store.put({&entry, 1}) : Result<void>(hash.error());
  } else {
    kept = store.belongs_to(keep.node, keep.fingerprint);
  }
  lock.lock();
  ++(kept ? stats.kept : stats.not_kept);
}

void HashChecker::State::remember_refused(const Key& key) {
  if (!refused.insert(key).second) return;
  refused_order.push_back(key);
  if (refused_order.size() <= options.max_refused) return;
  refused.erase(refused_order.front());
  refused_order.pop_front();
}

}  // namespace ledger
