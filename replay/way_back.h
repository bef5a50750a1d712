// What k3s has to be told before a ledger in front of it goes away: which names it does not know as we do.
//
// k3s' own memory is followed through the log: what it decided (authority upstream), what was imported from it, and
// that it forgets a password with its Node (k3s v1.20 and later). What we decided ourselves it never heard of. Not
// in the log, so not known here: what somebody did to its Secrets with kubectl.
//
// Reads the projection, and the whole history of those nodes only whose binding is of our making. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ledger/event_log.h"
#include "ledger/hash_store.h"

namespace ledger::replay {

enum class BackVerdict {
  known,      // k3s has the same binding: nothing to do
  first_use,  // k3s has none: it binds what the machine shows first, and admits it
  conflict,   // k3s has another binding, or one whose password never was seen: it would refuse the machine
  released,   // released here, but k3s still has a binding: it would refuse any other machine
  unreadable  // its records are in an archive that is not here, or damaged
};
std::string_view name_of(BackVerdict verdict);

struct BackNode {
  std::string node;
  BackVerdict verdict = BackVerdict::known;
  bool has_hash = false;  // k3s' hash of the password bound here is kept: it can be given back as a Secret
  bool held = false;      // k3s knows no holds
  Fingerprint bound;      // here
  Seq since = 0;          // the record that made it so
  Fingerprint k3s_bound;  // there; not known where it never was seen
  Seq k3s_since = 0;      // the record that tells
};

// A stretch of the log in which we decided.
struct OwnSpan {
  Seq from = 0, to = 0;  // the mode_changed that began and ended it; to 0: it goes on
  Time began, ended;
};

struct WayBack {
  std::string mode;            // now, by the log; empty: it never stood in front of another server
  std::vector<OwnSpan> spans;  // in `enforce`, or `alone` again
  std::uint64_t known = 0;
  std::vector<BackNode> nodes;  // all others, and those that are held, in name order

  std::uint64_t count(BackVerdict verdict) const;
};

Result<WayBack> find_way_back(const EventLog& log, const HashStore& hashes);

// `flavour`: k3s or rke2, the end of a Secret's name.
std::string render_text(const WayBack& way, const std::string& flavour);
std::string render_json(const WayBack& way, const std::string& flavour);

}  // namespace ledger::replay
