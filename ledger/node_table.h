// The projection: what the log says about every node name now. Made by folding records in order, and by
// nothing else; dropping it and folding the log again gives the same bytes (`ledger verify` proves it).
//
// Threads: NodeTable is not locked; its owner (Ledger, or a replay) says who may touch it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "ledger/event.h"

namespace ledger {

// The last time something happened to a name, and where from.
struct Moment {
  Seq seq = 0;
  Time time;
  std::string source;       // observed peer
  Fingerprint fingerprint;  // presented password
  bool operator==(const Moment&) const = default;
  static void fields(auto& self, auto&& f) {
    f("seq", self.seq), f("time", self.time), f("source", self.source), f("fingerprint", self.fingerprint);
  }
};

struct NodeState {
  Fingerprint bound;           // what the name is bound to; not known: not bound (see `bound_by_hash`)
  bool bound_by_hash = false;  // bound to a k3s scrypt hash whose fingerprint is not known yet
  bool held = false;           // must not be bound again without an operator
  bool released = false;       // was bound, was released, nobody has bound it since
  Seq since = 0;               // the record that made the binding what it is
  // Seq of the last record that changed anything above. A decision made on this view holds only while the
  // version stays the same (the writer checks it). 0: the name has never been seen.
  Seq version = 0;
  Moment registered;  // last password_stored or password_verified
  Moment rejected;    // last password_rejected
  std::uint64_t rejections = 0;  // since the last registration

  bool is_bound() const { return bound.known() || bound_by_hash; }
  bool operator==(const NodeState&) const = default;
  static void fields(auto& self, auto&& f) {
    f("bound", self.bound), f("bound_by_hash", self.bound_by_hash), f("held", self.held);
    f("released", self.released), f("since", self.since), f("version", self.version);
    f("registered", self.registered), f("rejected", self.rejected), f("rejections", self.rejections);
  }
};

// `state` of docs/EVENTS.md: registered, refused, released, held, unknown. "refused" is a bound name whose
// last attempt was rejected.
std::string_view state_name(const NodeState& state);

// One step of the fold: what `record` makes of `state`. What an upstream decided counts like our own word, so that the
// table is what the upstream's memory is known to be; but for a hold, of which it knows nothing. Returns false when the record says nothing about a
// node's state (then nothing changed). The one rule book for the server and for every replay.
bool apply(const Record& record, NodeState& state);

class NodeTable {
 public:
  // nullptr: the name has never been seen.
  const NodeState* find(std::string_view node) const;
  // Folds one record in. Returns the state it changed, or nullptr.
  const NodeState* apply(const Record& record);
  void put(std::string node, NodeState state) { nodes_.insert_or_assign(std::move(node), std::move(state)); }
  std::size_t size() const { return nodes_.size(); }
  auto begin() const { return nodes_.begin(); }
  auto end() const { return nodes_.end(); }

 private:
  struct TextHash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::unordered_map<std::string, NodeState, TextHash, std::equal_to<>> nodes_;
};

}  // namespace ledger
