#include "ledger/ledger.h"

#include <atomic>
#include <condition_variable>
#include <cmath>
#include <deque>
#include <future>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "ledger/storm.h"
#include "ledger/unrecorded.h"

namespace ledger {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kBatchLimit = 2048;       // proposals in one batch: bounds latency and memory
constexpr double kClockJump_s = 5.0;            // docs/EVENTS.md, clock_stepped
constexpr double kClockBack_s = 0.5;            // less is what NTP does all day

Error disk_full(const std::filesystem::path& dir, std::uint64_t free_bytes) {
  return {Errc::unavailable, "the disk of " + dir.string() + " is nearly full (" +
                                 std::to_string(free_bytes >> 20) + " MiB left): nothing can be recorded until " +
                                 "there is room"};
}

// The Ledger::State whose writer this thread is.
thread_local const void* writer_of = nullptr;

}  // namespace

struct Ledger::State {
  struct Item {
    Proposal proposal;
    Done done;
    bool flush = false;  // write every open count
    Work work{};         // instead of a proposal
  };

  // Constant after open.
  Options options;
  std::unique_ptr<EventLog> log;
  std::string server_id;
  bool clean = true;

  // Guarded by queue_mutex: what clients hand to the writer.
  std::mutex queue_mutex;
  std::condition_variable queue_ready;
  std::deque<Item> queue;
  bool stopping = false;
  std::optional<Error> failed;

  // Guarded by table_mutex: written by the writer after the sync, read by everyone.
  mutable std::shared_mutex table_mutex;
  NodeTable nodes;
  TokenTable tokens;
  std::atomic<std::int64_t> epoch{1};

  std::atomic<std::uint64_t> batches{0}, records{0}, counted{0}, conflicts{0}, overloaded{0};
  // Refusals that could not be recorded when they happened; the writer turns them into counted records.
  Unrecorded unrecorded_overloaded{429, "overloaded"}, unrecorded_unavailable{503, "store_unavailable"};

  // Owned by the writer thread.
  std::deque<Item> from_callbacks;  // go before everything that waits
  TokenTable staged_tokens;  // `tokens`, and what the batch so far does to them
  StormCounter storm;
  Instant now;      // of the current batch; the stamp never goes back
  Time last_stamp;  // of the last record
  Time last_wall;   // for noticing that the wall clock was set
  steady_clock::time_point space_asked;
  std::optional<Error> no_space;

  std::thread writer;

  // ---- one batch: owned by the writer thread, empty between batches ----
  std::vector<Record> batch;
  std::unordered_map<std::string, NodeState> staged;
  struct Completion {
    Done done;
    Result<Committed> outcome;
  };
  std::vector<Completion> completions;

  void run();
  bool wait_for_work(std::unique_lock<std::mutex>& lock);
  Result<void> run_item(bool flush, Work work);  // queues one and waits for it
  void process(std::deque<Item> items);
  void note_time();
  void propose(Item& item);
  std::optional<Error> stale(const Proposal& proposal) const;
  Seq add(Record record);
  void add_counts(std::vector<Record> counts);
  void add_unrecorded(Unrecorded& refusals);
  const NodeState* staged_node(const std::string& name) const;
  bool commit();
  void complete(bool durable);
  void fail(const Error& error);
  bool disk_has_room();
};

// ---- the writer ------------------------------------------------------------------------------------------

void Ledger::State::run() {
  writer_of = this;
  std::unique_lock lock(queue_mutex);
  // After a failure nothing may be written any more: not even the counts that come due.
  while (!failed && wait_for_work(lock)) {
    std::deque<Item> items = std::exchange(from_callbacks, {});
    while (!queue.empty() && items.size() < kBatchLimit) {
      items.push_back(std::move(queue.front()));
      queue.pop_front();
    }
    lock.unlock();
    process(std::move(items));
    lock.lock();
  }
}

// Returns false when the writer is to end: told to stop and nothing is waiting.
bool Ledger::State::wait_for_work(std::unique_lock<std::mutex>& lock) {
  const auto has_work = [&] { return !queue.empty() || !from_callbacks.empty(); };
  const auto awake = [&] { return stopping || has_work(); };
  if (const auto due = storm.next_due())
    queue_ready.wait_until(lock, *due, awake);
  else
    queue_ready.wait(lock, awake);
  return !stopping || has_work();
}

// Take all, check, number, encode, one sync, apply, complete. While the sync runs, the next batch gathers.
void Ledger::State::process(std::deque<Item> items) {
  note_time();
  add_counts(storm.due(now));
  const bool room = disk_has_room();
  if (room) {
    add_unrecorded(unrecorded_overloaded);
    add_unrecorded(unrecorded_unavailable);
  }
  std::vector<Item> works;
  for (Item& item : items) {
    if (item.work) {
      works.push_back(std::move(item));
    } else if (room || item.flush || item.proposal.use_reserve) {
      propose(item);
    } else {
      unrecorded_unavailable.count(item.proposal.records, now.stamp);
      completions.push_back({std::move(item.done), *no_space});
    }
  }
  complete(commit());
  batch.clear();
  staged.clear();
  for (Item& item : works) {
    const Result<void> done = failed ? Result<void>(*failed) : item.work(*log);
    if (!done && !failed) fail(done.error());
    completions.push_back({std::move(item.done), Committed{}});
    complete(done.has_value());
  }
}

void Ledger::State::complete(bool durable) {
  for (Completion& completion : completions) {
    if (!durable) completion.outcome = *failed;
    const Done done = std::move(completion.done);  // let go when called: it may hold on to a connection
    done(std::move(completion.outcome));
  }
  completions.clear();
}

// Stamps never go back; a wall clock that did, or that jumped, is an event.
void Ledger::State::note_time() {
  const Time wall = options.clock();
  const auto steady = steady_clock::now();
  const double passed_s = std::chrono::duration<double>(steady - now.steady).count();
  const double wall_s = seconds_between(last_wall, wall);
  const bool stepped = std::abs(wall_s - passed_s) > kClockJump_s || wall_s < -kClockBack_s;
  now = {std::max(last_stamp, wall), steady};
  last_wall = wall;
  if (!stepped) return;
  Record record;
  record.event = ClockStepped{.by_seconds = std::round((wall_s - passed_s) * 1000) / 1000};
  add(std::move(record));
}

void Ledger::State::propose(Item& item) {
  if (item.flush) add_counts(storm.settle_all());
  Proposal& proposal = item.proposal;
  if (std::optional<Error> conflict = stale(proposal)) {
    ++conflicts;
    completions.push_back({std::move(item.done), std::move(*conflict)});
    return;
  }
  Committed committed;
  for (Record& record : proposal.records) {
    record.time = {};  // the writer's to fill
    add_counts(storm.ended_by(record));
    if (!StormCounter::countable(record.kind()) || is_imported(record)) {
      committed.seqs.push_back(add(std::move(record)));
    } else if (const Seq counted_under = storm.offer(record, now); counted_under != 0) {
      ++counted;
      committed.seqs.push_back(counted_under);
    } else {
      add_counts(storm.refusals_so_far(record));
      committed.seqs.push_back(add(std::move(record)));
      storm.written(committed.seqs.back());
    }
  }
  completions.push_back({std::move(item.done), std::move(committed)});
}

// What the proposal follows from is no longer so.
std::optional<Error> Ledger::State::stale(const Proposal& proposal) const {
  if (proposal.expect) {
    const NodeState* node = staged_node(proposal.expect->node);
    if ((node == nullptr ? 0 : node->version) != proposal.expect->version)
      return Error{Errc::conflict, "the node changed meanwhile"};
  }
  for (const Record& record : proposal.records)
    if (record.kind() == Kind::token_accepted && !staged_tokens.still_accepts(record.auth, last_wall))
      return Error{Errc::conflict, "the token has ended meanwhile"};
  return std::nullopt;
}

// Numbers and stamps one record and folds it into the staged states.
Seq Ledger::State::add(Record record) {
  record.seq = log->head() + batch.size() + 1;
  // A count carries the time of its last outcome; everything else happens now.
  record.time = std::max(last_stamp, record.time.known() ? record.time : now.stamp);
  last_stamp = record.time;
  if (record.kind() == Kind::epoch_started) ++epoch;
  if (record.server.empty()) record.server = server_id;
  if (record.epoch == 0) record.epoch = epoch;
  if (!record.node.empty()) {
    const NodeState* before = staged_node(record.node);
    NodeState after = before == nullptr ? NodeState{} : *before;
    if (ledger::apply(record, after)) staged.insert_or_assign(record.node, std::move(after));
  }
  if (is_server_wide(record.kind())) staged_tokens.apply(record);
  batch.push_back(std::move(record));
  return batch.back().seq;
}

void Ledger::State::add_counts(std::vector<Record> counts) {
  for (Record& count : counts) add(std::move(count));
}

// Refusals that were answered while nothing could be recorded: counted then, recorded now, as a storm where they go on.
void Ledger::State::add_unrecorded(Unrecorded& refusals) {
  for (Record& record : refusals.take()) {
    if (storm.offer(record, now) != 0) continue;
    add_counts(storm.refusals_so_far(record));
    storm.written(add(std::move(record)));
  }
}

// The node as it will be when the batch so far is durable. Only this thread writes `nodes`, so it may read
// them without the lock.
const NodeState* Ledger::State::staged_node(const std::string& name) const {
  const auto found = staged.find(name);
  return found != staged.end() ? &found->second : nodes.find(name);
}

// One synced write; then the projections. False: the ledger has failed.
bool Ledger::State::commit() {
  if (batch.empty()) return true;
  const std::vector<EventLog::NodeEntry> entries(staged.begin(), staged.end());
  if (const Result<void> appended = log->append(batch, entries); !appended) {
    fail(appended.error());
    return false;
  }
  ++batches;
  records += batch.size();
  const std::unique_lock lock(table_mutex);
  for (auto& [name, state] : staged) nodes.put(name, std::move(state));
  for (const Record& record : batch)
    if (is_server_wide(record.kind())) tokens.apply(record);
  return true;
}

// The state of the log is unknown now: refuse everything, tell the owner, who must end the process.
void Ledger::State::fail(const Error& error) {
  std::deque<Item> refused;
  {
    const std::lock_guard lock(queue_mutex);
    failed = Error{Errc::unavailable, "cannot record: " + error.message};
    refused.swap(queue);
  }
  for (Item& item : refused) completions.push_back({std::move(item.done), *failed});
  if (options.on_failure) options.on_failure(*failed);
}

// Asks the file system at most once a second: refusing early keeps RocksDB from failing for good.
bool Ledger::State::disk_has_room() {
  if (options.min_free_bytes == 0) return true;
  if (now.steady - space_asked < std::chrono::seconds(1)) return !no_space;
  space_asked = now.steady;
  const std::optional<std::uint64_t> free = log->free_bytes();
  no_space.reset();
  if (free && *free < options.min_free_bytes) no_space = disk_full(options.log.dir, *free);
  return !no_space;
}

// ---- the calls -------------------------------------------------------------------------------------------

Ledger::Ledger(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Ledger>> Ledger::open(Options options) {
  auto state = std::make_unique<State>();
  Result<std::unique_ptr<EventLog>> log = EventLog::open(options.log);
  if (!log) return log.error();
  state->log = std::move(*log);
  state->server_id = options.server_name + "-" + state->log->id().substr(0, 4);
  state->options = std::move(options);

  // The stored projection is written in the same batch as the records, so it is always that of the head.
  Result<void> problem;
  Result<void> read = state->log->each_node([&](std::string_view name, const Result<NodeState>& node) {
    if (!node)
      problem = Error{Errc::corrupt, "the stored state of node " + printable(name, 80) + " does not decode (" +
                                         node.error().message + "); run `ledger verify`"};
    else
      state->nodes.put(std::string(name), *node);
    return problem.has_value();
  });
  if (!read) return read.error();
  if (!problem) return problem.error();
  // A record that cannot be read might be the revocation of a token: to pass over it would let somebody in.
  read = state->log->scan(Index::server_wide, "", 1, UINT64_MAX, [&](Seq seq, const Result<Record>& record) {
    if (!record) {
      problem = Error{Errc::corrupt, "record " + std::to_string(seq) + " of the log in " +
                                         state->options.log.dir.string() +
                                         " is about tokens or the server and cannot be read (" +
                                         record.error().message + "): nobody knows which tokens are valid; run " +
                                         "`ledger verify`, then restore a backup"};
      return false;
    }
    if (is_imported(*record)) return true;
    state->tokens.apply(*record);
    if (record->kind() == Kind::server_started) state->clean = false;
    if (record->kind() == Kind::server_stopped) state->clean = true;
    return true;
  });
  if (!read) return read.error();
  if (!problem) return problem.error();
  state->staged_tokens = state->tokens;
  if (state->log->head() > 0) {
    const Result<Record> last = state->log->read(state->log->head());
    if (!last)
      return Error{last.error().code, "the last record (" + std::to_string(state->log->head()) + ") of the log in " +
                                          state->options.log.dir.string() + " cannot be read: " +
                                          last.error().message};
    state->last_stamp = last->time;
    state->epoch = std::max<std::int64_t>(1, last->epoch);
  }
  // A clock behind the log's last stamp is noticed by the first batch.
  state->last_wall = std::max(state->last_stamp, state->options.clock());
  state->now = {state->last_wall, steady_clock::now()};
  state->writer = std::thread([raw = state.get()] { raw->run(); });
  return std::unique_ptr<Ledger>(new Ledger(std::move(state)));
}

namespace {

// Waits for a Done on this thread.
class Waiter {
 public:
  Ledger::Done done() {
    return [promise = promise_](Result<Committed> outcome) { promise->set_value(std::move(outcome)); };
  }
  Result<Committed> wait() { return promise_->get_future().get(); }

 private:
  std::shared_ptr<std::promise<Result<Committed>>> promise_ = std::make_shared<std::promise<Result<Committed>>>();
};

}  // namespace

Result<void> Ledger::close() {
  if (!state_->writer.joinable()) return {};
  Waiter waiter;
  {
    // The last item and the end of the queue in one step, or what slips in between would be counted and lost.
    const std::lock_guard lock(state_->queue_mutex);
    state_->stopping = true;
    if (state_->failed)
      waiter.done()(*state_->failed);
    else
      state_->queue.push_back({{}, waiter.done(), true});
  }
  state_->queue_ready.notify_one();
  state_->writer.join();
  const Result<Committed> flushed = waiter.wait();
  if (!flushed) return flushed.error();
  return {};
}

Ledger::~Ledger() {
  if (state_ != nullptr) (void)close();
}

void Ledger::append(Proposal proposal, Done done) {
  std::optional<Error> refused;
  {
    const std::lock_guard lock(state_->queue_mutex);
    if (state_->failed) {
      refused = state_->failed;
    } else if (state_->stopping) {
      refused = Error{Errc::unavailable, "the server is stopping"};
    } else if (writer_of == state_.get()) {
      state_->from_callbacks.push_back({std::move(proposal), std::move(done)});
    } else if (state_->queue.size() >= state_->options.queue_limit && !proposal.use_reserve) {
      refused = Error{Errc::overloaded, "too many registrations at once; try again in a second"};
      ++state_->overloaded;
      state_->unrecorded_overloaded.count(proposal.records, state_->options.clock());
    } else {
      state_->queue.push_back({std::move(proposal), std::move(done)});
    }
  }
  if (refused)
    done(*refused);
  else
    state_->queue_ready.notify_one();
}

Result<Committed> Ledger::append_and_wait(Proposal proposal) {
  Waiter waiter;
  append(std::move(proposal), waiter.done());
  return waiter.wait();
}

Result<void> Ledger::State::run_item(bool flush, Work work) {
  Waiter waiter;
  {
    const std::lock_guard lock(queue_mutex);
    if (failed) return *failed;
    if (stopping) return Error{Errc::unavailable, "the server is stopping"};
    queue.push_back({{}, waiter.done(), flush, std::move(work)});
  }
  queue_ready.notify_one();
  const Result<Committed> done = waiter.wait();
  if (!done) return done.error();
  return {};
}

Result<void> Ledger::flush_counts() { return state_->run_item(true, {}); }
Result<void> Ledger::with_log(Work work) { return state_->run_item(false, std::move(work)); }

NodeState Ledger::find(std::string_view node) const {
  const std::shared_lock lock(state_->table_mutex);
  const NodeState* found = state_->nodes.find(node);
  return found == nullptr ? NodeState{} : *found;
}

TokenCheck Ledger::check_token(TokenUser user, std::string_view token_id, const Fingerprint& presented,
                               Time now) const {
  const std::shared_lock lock(state_->table_mutex);
  return state_->tokens.check(user, token_id, presented, now);
}

std::optional<TokenState> Ledger::find_token(std::string_view token_class, std::string_view token_id) const {
  const std::shared_lock lock(state_->table_mutex);
  const TokenState* found = state_->tokens.find(token_class, token_id);
  if (found == nullptr) return std::nullopt;
  return *found;
}

std::vector<TokenState> Ledger::tokens() const {
  const std::shared_lock lock(state_->table_mutex);
  return state_->tokens.all();
}

std::vector<TokenState> Ledger::overdue_tokens(Time now) const {
  const std::shared_lock lock(state_->table_mutex);
  return state_->tokens.overdue(now);
}

std::string Ledger::file_token(std::string_view token_class) const {
  const std::shared_lock lock(state_->table_mutex);
  return state_->tokens.file_token(token_class);
}

const EventLog& Ledger::log() const { return *state_->log; }
std::int64_t Ledger::epoch() const { return state_->epoch; }
const std::string& Ledger::server_id() const { return state_->server_id; }
bool Ledger::was_clean() const { return state_->clean; }

Ledger::Stats Ledger::stats() const {
  return {state_->batches, state_->records, state_->counted, state_->conflicts, state_->overloaded};
}

}  // namespace ledger
