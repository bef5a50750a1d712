// The deep module: log, projections and a single writer with group commit behind a handful of calls.
//
// append() gives the writer a proposal; its callback runs when the records are durable, and there is no other
// way to learn a seq: to be told is to be safe. While one sync runs the next batch gathers, so there is no timer
// and no tuning: one client gets the latency of one fsync, many share it.
//
// Storms: outcomes that are equal but for time, request id and peer port are counted in memory after the first
// (docs/EVENTS.md, "Storms"). The first is on disk before its reply; the count follows when its window closes,
// always before a change to the same node, before server_stopped, epoch_started and the end of a token, and at an
// orderly stop.
//
// Tokens: a token_accepted whose token has ended by the records before it is refused with Errc::conflict, with all
// of its proposal. So from the moment a revocation is durable nothing is accepted with what it revoked, however
// long ago the caller was judged.
//
// Failure: the first failed write makes the ledger refuse everything from then on (Errc::unavailable) and
// calls Options::on_failure once; the process must end and recover by opening again (event_log.h says why).
// A disk that is nearly full is not a failure: appends are refused with Errc::unavailable until there is room.
//
// Fairness: what a callback appends goes before everything that waits. So who decides anew after Errc::conflict on a
// state that others keep changing loses again only to those who decided anew with him, not to newcomers.
//
// Threads: append(), find(), log().head(), ... from any thread; open() and close() from the owner's. Callbacks run on
// the writer's thread: they must be short and must not call back into the ledger except append().
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ledger/event_log.h"
#include "ledger/token_table.h"

namespace ledger {

// Records that stand or fall together. seq and time are the writer's to fill; server and epoch too, unless given.
struct Proposal {
  std::vector<Record> records;
  // Set when the records follow from a view of a node: they are refused with Errc::conflict if the node's
  // version is no longer this one.
  struct Expect {
    std::string node;
    Seq version = 0;
  };
  std::optional<Expect> expect;
  // May use the last free bytes of a disk that is nearly full: the server's own stop.
  bool use_reserve = false;
};

// Where the proposal's records stand: one seq each; for a counted outcome, the record that stands for it.
struct Committed {
  std::vector<Seq> seqs;
  Seq last() const { return seqs.empty() ? 0 : seqs.back(); }
};

class Ledger {
 public:
  using Done = std::function<void(Result<Committed>)>;

  struct Options {
    EventLog::Options log;
    std::string server_name;                          // Record::server is this + "-" + 4 digits of the log's id
    std::function<void(const Error&)> on_failure;     // called once, on the writer's thread
    std::function<Time()> clock = &Time::now;         // wall clock, for tests
    std::size_t queue_limit = 8192;                   // proposals waiting; more are Errc::overloaded
    std::uint64_t min_free_bytes = 64 << 20;          // below this the disk counts as full; 0: never ask
  };

  // Opens the log, loads the projections, starts the writer.
  static Result<std::unique_ptr<Ledger>> open(Options options);
  // Orderly: writes what is counted, drains the queue, closes. Same as the destructor, but says what failed.
  Result<void> close();
  ~Ledger();

  // Never blocks. `done` is called exactly once: on the writer's thread, or at once on this one when the
  // proposal cannot even be queued.
  void append(Proposal proposal, Done done);
  // Blocks until durable; for commands and tests.
  Result<Committed> append_and_wait(Proposal proposal);
  // Runs `work` on the writer's thread between two batches: for what changes the store besides records. It must be
  // short; an error of its is a failed write. Blocks until it ran.
  using Work = std::function<Result<void>(EventLog&)>;
  Result<void> with_log(Work work);
  // Writes every open count as a record now; returns when they are durable.
  Result<void> flush_counts();

  // The node as the log has it: durable facts only. An unseen name is a default NodeState.
  NodeState find(std::string_view node) const;
  // Judges a presented secret (token_table.h). One lookup.
  TokenCheck check_token(TokenUser user, std::string_view token_id, const Fingerprint& presented, Time now) const;
  std::optional<TokenState> find_token(std::string_view token_class, std::string_view token_id) const;
  // Of every class and status, by age.
  std::vector<TokenState> tokens() const;
  std::vector<TokenState> overdue_tokens(Time now) const;
  // Id of the token of this class that the server's files hold; empty: none.
  std::string file_token(std::string_view token_class) const;

  const EventLog& log() const;
  std::int64_t epoch() const;
  const std::string& server_id() const;
  // The last server of this log stopped in order, or there was none.
  bool was_clean() const;

  struct Stats {
    std::uint64_t batches = 0, records = 0, counted = 0, conflicts = 0, overloaded = 0;
  };
  Stats stats() const;

 private:
  struct State;
  explicit Ledger(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ledger
