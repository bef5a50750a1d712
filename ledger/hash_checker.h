// Verifies and makes k3s' scrypt hashes on threads of its own: one takes 0.1 s and 32 MiB, so neither the network
// nor the writer may do it, and never more than `threads` at once.
//
// A name that was bound by an imported hash is verified once: the first match tells the fingerprint, and from then
// on the log knows the binding. What does not match is remembered for the binding it was compared with, so that a
// stuck agent costs one scrypt and not one each try. Callers that ask the same at the same time share one check.
// Every queue has a bound; two checks at most wait for one name, so that one name cannot keep the others out.
//
// Threads: every call from any thread, none blocks but stop(). Callbacks run on a thread of this pool, or at once
// on the caller's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "ledger/hash_store.h"

namespace ledger {

class HashChecker {
 public:
  struct Options {
    unsigned threads = 2;
    std::size_t max_waiting = 64;   // checks: about three seconds of work
    std::size_t max_keeping = 4096;  // passwords waiting to be hashed for keep()
    std::size_t max_refused = 4096;  // remembered mismatches
    bool keep = false;              // --keep-k3s-hash
  };
  enum class Answer {
    match,
    mismatch,
    no_hash,      // the name is bound by a hash, and none is kept that belongs to it
    busy,         // too many are waiting; ask again in a second
    unavailable,  // scrypt itself failed: no memory
  };
  using Done = std::function<void(Answer)>;

  HashChecker(HashStore& store, Options options);
  ~HashChecker();  // stop()

  // Is this the password of the hash that the node is bound by? `state` is the node's, `bound_by_hash`.
  // Done is called exactly once, unless stop() comes first.
  void check(const std::string& node, const NodeState& state, const Fingerprint& presented, const Secret& password,
             Done done);

  // The node is bound to this password now, and the log says so. `by_hash`: because it matched the kept hash,
  // which from now on belongs to the fingerprint. Else, with Options::keep, a hash is made where there is none.
  // Returns at once; what does not fit into the queue is left for the next time.
  void verified(const std::string& node, const Fingerprint& fingerprint, const Secret& password, bool by_hash);

  HashStore& store() { return store_; }

  // Drops what waits, lets what runs come to its end without telling anybody.
  void stop();

  struct Stats {
    std::uint64_t scrypts = 0, busy = 0, kept = 0, not_kept = 0;
  };
  Stats stats() const;

 private:
  struct State;
  HashStore& store_;
  std::unique_ptr<State> state_;
};

}  // namespace ledger
