// Signs checkpoints while the ledger is written, keeps them, and sends copies to further places; and looks, at the
// start, whether this log is still the one that the newest checkpoint saw.
//
// A checkpoint is due when `every_records` records are not covered by one, or some have not been for
// `every_seconds`. What is signed is durable already. It is written to checkpoints/ first, then recorded
// (checkpoint_signed), then sent to the places; a place that cannot be written is told of once, and tried again
// with the next checkpoint. The record of a checkpoint does not make another one due: a log that rests is at rest.
//
// Why a place is worth having: whoever can write the data directory can rewrite log, tree, key and checkpoints
// together. A copy that has left the machine still shows it, and so does a machine that was set back to a snapshot.
//
// Threads: open(), notice_past(), start(), stop() and finish() from the owner's; latest() from any. Its own thread
// signs.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "ledger/checkpoint.h"
#include "ledger/ledger.h"

namespace ledger {

// Somewhere else. Both may block for seconds; from one thread at a time.
struct CheckpointPlace {
  std::string name;  // for people: a path, an address
  std::function<Result<void>(const std::string& note)> put;
  std::function<Result<std::string>()> get;  // Errc::not_found: nothing there yet
};
// A file, replaced whole. A checkpoint in it that saw more records, or another log, is first renamed to
// <file>.kept-<id of its log>-<size>.
CheckpointPlace file_place(const std::filesystem::path& file);

// Somebody who signs what he has seen of us (C2SP tlog-witness).
struct CheckpointWitness {
  NoteVerifier key;
  // Sends the body of add-checkpoint; the answer's status and body.
  struct Answer {
    int status = 0;
    std::string body;
  };
  std::function<Result<Answer>(const std::string& body)> add_checkpoint;
};

class CheckpointKeeper {
 public:
  struct Options {
    std::filesystem::path data_dir;
    std::uint64_t every_records = 1000;
    std::uint64_t every_seconds = 300;
    std::vector<CheckpointPlace> places{};
    std::vector<CheckpointWitness> witnesses{};
    std::function<void(bool is_problem, const std::string& line)> log{};  // any thread
  };

  // Reads or makes the key. The ledger must outlive the keeper.
  static Result<std::unique_ptr<CheckpointKeeper>> open(Options options, Ledger& ledger);
  ~CheckpointKeeper();

  // What a checkpoint saw that this log has not: recorded (epoch_started), told to `log`, and its note put into
  // checkpoints/lost. True when there was something. Before start().
  Result<bool> notice_past();

  void start();
  // Nothing is signed any more.
  void stop();
  // Stops, and signs what is there; that last one is not recorded, so that the log ends with what it covers.
  Result<void> finish();

  // The newest checkpoint with the cosignatures it has; empty: none yet.
  std::string latest() const;
  // Signs now, for tests and for finish().
  Result<void> sign(bool record);

 private:
  CheckpointKeeper(Options options, Ledger& ledger, NoteSigner signer);
  struct Seen {
    std::string place;
    Checkpoint checkpoint;
  };
  std::vector<Seen> look_everywhere();
  Result<bool> agrees(const Checkpoint& checkpoint) const;
  Result<void> record_loss(const Seen& seen, const std::string& cause, const std::string& words);
  Result<void> forget(const std::vector<Checkpoint>& gone);
  void send(const Checkpoint& checkpoint);
  std::vector<NoteSignature> cosign(const Checkpoint& checkpoint);
  void tell(bool is_problem, const std::string& line) const;
  void run();
  bool is_due();

  Options options_;
  Ledger& ledger_;
  std::optional<NoteSigner> signer_;
  std::optional<Seen> replaced_;  // the newest checkpoint of another log that was here

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by mutex_
  std::string latest_;     // guarded by mutex_
  std::thread thread_;

  // Of the thread that signs.
  std::uint64_t signed_ = 0;  // size of the newest checkpoint
  Seq covered_ = 0;           // that, and the record of it
  std::optional<std::chrono::steady_clock::time_point> uncovered_since_;
  std::vector<bool> place_failed_, witness_failed_;
  std::vector<std::uint64_t> witness_size_;
};

}  // namespace ledger
