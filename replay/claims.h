// How far the name on a record is to be believed. Anybody who reaches the port can write any node's name into a
// request or into a certificate of his own making: such a name is a claim until something that only that node has is
// shown for it.
//
// Proven is the name of a record whose caller showed the password the name is bound to (or bound it by that), or the
// client certificate of this very node, signed by our CA and valid. Whoever showed the join token alone, or nothing,
// claims it. What operators, watchers and importers say about a node is neither: nobody asks in its name.
//
// Pure functions of one record. Any thread.
#pragma once

#include <string_view>

#include "ledger/event.h"

namespace ledger::replay {

enum class NameIs { nobodys, claimed, proven };
NameIs name_is(const Record& record);
std::string_view name_of(NameIs name);  // "claimed", "proven"; nobodys: empty

// A claim by somebody who showed no valid credential at all, as far as the record tells.
bool is_bare_claim(const Record& record);

}  // namespace ledger::replay
