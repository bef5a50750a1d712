// What a record means to somebody who does not know this project: how it went, how grave it is, who did it, to
// what, and one sentence. The formats of audit_format.h are made from this. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ledger/event.h"

namespace ledger::replay {

// What is the same for every record of a kind. docs/EXPORTS.md has this table; a test compares them.
struct KindMeaning {
  Kind kind;
  std::string_view outcome;  // success, failure, unknown: ECS' closed list
  int severity;              // OCSF severity_id: 1 informational, 2 low, 3 medium, 4 high
  int ocsf_class;            // class_uid
  int ocsf_activity;         // activity_id of that class
  std::string_view ecs_category, ecs_type;
  std::string_view verb;     // Kubernetes audit
};
const KindMeaning& meaning_of(Kind kind);

// The rest.
struct Meaning {
  const KindMeaning* kind = nullptr;
  std::int64_t status = 0;  // HTTP; 0: none
  std::string reason;       // machine-readable: "wrong_secret", "password_differs", "restored"
  std::string actor;        // an operator, or whose credentials it were; empty: nobody
  std::string token;        // id of the token it is about
  std::string sentence;     // one line, for people
};
Meaning meaning_of(const Record& record);

}  // namespace ledger::replay
