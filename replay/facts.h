// What a history says, before anybody judges it: which attempts were refused and are not settled yet, who held
// the name meanwhile and from where, whether the holder was alive. causes.cpp asks; nothing else includes this.
//
// Facts point into the History and Timeline they were made from. Any thread.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/program.h"
#include "replay/claims.h"
#include "replay/timeline.h"

namespace ledger::replay {

// Addresses that something was seen from: observed (`source`, a balancer's or NAT's behind one) and claimed
// (`K3s-Node-Ip`, a machine's own word).
struct Place {
  std::set<std::string, std::less<>> sources, claimed;
  void add(const Record& record);
  std::string to_string() const;
};

enum class Where {
  unknown,      // cannot be compared
  same,         // they claim an address in common
  same_source,  // only the observed address agrees: one machine, or several behind one NAT
  different,
};

bool is_loopback(std::string_view host);

// One presentation of a node password (a record may stand for many).
struct Attempt {
  const Record* record = nullptr;
  const Step* step = nullptr;
  bool accepted = false;
  Fingerprint presented, bound;  // bound: as the refusal says
  Seq seq() const { return record->seq; }
  Time from() const { return first_time_of(*record); }
  Time to() const { return record->time; }
};

struct Tunnel {
  const Record* opened = nullptr;
  const Record* closed = nullptr;  // tunnel_closed, or the server_started that ended it; nullptr: open at the end
};

// Which kind of failure is the open one, by how far the request came.
enum class Family { none, handshake, token, request, password };

// Signs that the holder of the name lived while another password was refused.
struct Liveness {
  const Record* inside = nullptr;     // a success of the holder between two refusals
  bool inside_near = false;           // ...within kAliveWindow_s of one
  const Record* before = nullptr;     // a success within kAliveWindow_s before the first refusal
  const Record* after = nullptr;      // ...after the last one
  const Record* covering = nullptr;   // its tunnel was open for at least kAliveWindow_s of the refusals
  const Record* touching = nullptr;   // its tunnel was open when they began, and they are young
  const Record* call = nullptr;       // an authenticated request from the holder's own address meanwhile
  const Record* gone = nullptr;       // its tunnel closed, and nothing was heard since
  const Record* last_sign = nullptr;  // the last sign of life before the first refusal
  std::optional<double> silence_s;    // from there to the first refusal
  bool tunnel_tells_closing = false;  // this history records the end of tunnels
  bool seen() const { return inside != nullptr || covering != nullptr || call != nullptr; }
};

// The refused passwords that are not settled: not accepted, not released, not given up.
struct Refusals {
  std::vector<Attempt> attempts;       // all of them, in order
  std::vector<Fingerprint> passwords;  // distinct ones in order of appearance; unknown left out
  Fingerprint presented;               // by the last
  Fingerprint holder;                  // what the name is bound to
  Seq holder_since = 0;                // 0: the history does not show when
  std::int64_t count = 0;
  bool success_followed = false;  // the holder succeeded after the last refusal
  Place newcomer, holder_place;
  Where where = Where::unknown;  // the newcomer, seen from the holder
  Liveness alive;
  const Attempt& first() const { return attempts.front(); }
  const Attempt& last() const { return attempts.back(); }
};

class Facts {
 public:
  Facts(const History& history, const Timeline& timeline);

  const History& history;
  const Timeline& timeline;
  std::vector<const Step*> own;   // records of the node
  std::vector<Attempt> attempts;  // all of its passwords
  std::vector<Tunnel> tunnels;
  std::vector<const Record*> elsewhere;  // records of other names (or none) that name one of its passwords
  std::vector<const Record*> nameless;   // refusals without a name from its addresses
  std::vector<const Record*> server_wide;
  std::vector<const Record*> others_refused;  // refused passwords of other names: they follow a restore
  // What runs on the machine: as the last request says whose path was a program's own; else k3s.
  const Program* program = &kK3s;
  bool names_mixed = false;  // some source address served more than one machine: it identifies nobody
  // Imported records that stand behind something of our own which happened after them: history that tells nothing of
  // the present. In no other list here but `server_wide`.
  std::vector<const Record*> outdated;
  // The newest mode_changed; nullptr: nothing says that another server was ever in front or behind.
  const Record* mode = nullptr;
  // Refusals in the node's name that nobody proved, while the node itself was seen to be well: somebody else's.
  std::vector<const Record*> strangers;

  Family family = Family::none;
  std::vector<const Record*> failures;  // the open ones of that family, unless it is `password`
  bool only_probes = false;             // they are steps that are expected to fail, and nothing ever follows them
  Refusals refusals;                    // open ones; filled whenever there are any, whatever the family

  // "#77e0": the shortest prefix of at least 4 bytes that no other fingerprint of the history has.
  std::string short_name(const Fingerprint& fingerprint) const;
  std::string short_name(std::string_view fingerprint) const;

  Where compare(const Place& a, const Place& b) const;
  // One of its observed addresses was seen to serve several machines.
  bool is_shared(const Place& place) const;

  // Bindings and successes of this password under this name before `seq`.
  const Record* known_good_before(const Fingerprint& password, Seq seq) const;
  // A success with this password under another name; the latest one.
  const Record* known_elsewhere(const Fingerprint& password) const;
  // The node's tunnel was open when the record was made.
  bool tunnel_open_at(const Record& record) const;
  // Last own record of this kind of event with seq in (after, before).
  template <class... Events>
  const Record* last_between(Seq after, Seq before) const {
    const Record* found = nullptr;
    for (const Step* step : own)
      if (step->record->seq > after && step->record->seq < before &&
          ((as<Events>(*step->record) != nullptr) || ...))
        found = step->record;
    return found;
  }
  const Record* last_success_before(Seq seq) const;
  // What the judgement rests on is refused in a name that was only claimed: the last of `failures`, else nullptr.
  const Record* judged_claim() const;
  // Whose binding a refused machine meets when it asks again: an upstream's. As the mode says at the end, else as the
  // last refusal of its password.
  bool upstream_decides_now() const;
  // The server's memory is another one since (epoch_started, or server_started with another ledger id), in
  // (after, before); `cause` of epoch_started, or "datastore_changed".
  struct MemoryChange {
    const Record* record = nullptr;
    std::string_view cause;
  };
  // Of the server that decided on the refusals: what became of our own memory says nothing about that of an upstream.
  MemoryChange memory_change(Seq after, Seq before) const;
  // The server came up with another CA in (after, before).
  const Record* ca_change(Seq after, Seq before) const;
  // A hole where a record that matters to (after, end] may have been.
  const Hole* hole_since(Seq after) const;
  bool hole_between(Seq after, Seq before) const;

  Time end_time() const { return history.records.empty() ? Time{} : history.records.back().time; }

 private:
  void sort_records();
  void find_program();
  void find_tunnels();
  void find_mixed_sources();
  void find_neighbours();
  void find_refusals();
  bool still_tried(const std::vector<Attempt>& open, Seq success) const;
  void describe_refusals();
  void find_holder();
  void find_signs_of_life();
  void hear_requests();
  void hear_tunnels();
  struct OpenFailures;
  OpenFailures open_failures();
  bool is_somebody_elses(const Record& record) const;
  void find_outdated();
  bool is_outdated(const Record& record) const;
  bool stand_first(const std::vector<const Record*>& failures_of_sort, bool are_named) const;
  void find_family();

  std::set<std::string, std::less<>> mixed_sources_;
  std::vector<std::string_view> fingerprints_;  // sorted, distinct
  std::set<const Record*> outdated_;
};

// Seconds between two records when both times are known.
std::optional<double> seconds_from(Time from, Time to);

// Who decided, by a name that can be compared: the upstream, or the server that wrote the record; empty: not known.
const std::string& decided_by(const Record& record);
// An upstream gave no answer, or one that says nothing about the caller.
bool is_upstream_failure(const Record& record);
// An upstream admitted another password than the one that was bound: its memory was changed where nobody watched.
bool is_unseen_change(const Record& record);
bool is_success(const Record& record);  // password_stored, password_verified
Fingerprint accepted_password(const Record& record);  // of such a record; else not known
bool is_success_with(const Record& record, const Fingerprint& password);

}  // namespace ledger::replay
