// What an operator may do about the binding of a name, each one event with an actor and a reason. The same
// rules behind the operators' HTTPS API and behind the command line on a stopped log.
//
// Every call waits for the disk; never call from the writer's thread or from a network thread.
#pragma once

#include <string>
#include <string_view>

#include "ledger/ledger.h"

namespace ledger {

struct OperatorAction {
  std::string actor;   // who: "root@srv-1"
  std::string reason;  // why, for the history; must not be empty
  bool force = false;  // do it although the holder of the name seems to be alive
  std::string request_id, source;  // of the API request, if any
  std::string via{};               // as Record::via
};

// Binds the name to one password that was rejected for it. `fingerprint` is the whole fingerprint or a prefix
// of at least 4 digits that only one rejected fingerprint of this node has. Refused without `force` when the
// holder was verified after that password was first rejected: then two machines use the name.
Result<Committed> accept_fingerprint(Ledger& ledger, const NodeName& node, std::string_view fingerprint,
                                     const OperatorAction& action);

// Frees the name: the next password that is presented is bound. Also ends a hold.
Result<Committed> release_binding(Ledger& ledger, const NodeName& node, const OperatorAction& action);

// A free name must not be bound without an operator; a bound one stays with its holder.
Result<Committed> hold_name(Ledger& ledger, const NodeName& node, const OperatorAction& action);

// Records that a part of the log left the house; `exported.actor` is action.actor. The reason may be empty.
// Errc::invalid for a range that the log has not, or what is no SHA-256.
Result<Committed> record_export(Ledger& ledger, ExportCreated exported, const OperatorAction& action);

}  // namespace ledger
