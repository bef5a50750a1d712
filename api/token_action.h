// Creating, rotating and revoking tokens as JSON: what the operators' API reads and answers, and what `ledger token`
// does itself on a stopped log, so that both are one.
//
// Waits for the disk (ledger/token_life.h); one caller at a time.
#pragma once

#include <boost/json.hpp>
#include <string>
#include <string_view>

#include "ledger/token_life.h"

namespace ledger::api {

// `verb`: create, rotate or revoke. `which`: the token's id, for rotate a class as well; empty for create.
// Fields of `body`, those that the verb has no use for are an error:
//   all     actor (must not be empty), reason
//   create  class, ttl ("24h"; bootstrap: 24h, others never), description, role, secret
//   rotate  grace ("24h"; none: the old one ends at once), ttl, secret
//   revoke  force
// Answers {"id","class","seq","secret","join","expires","replaces","grace_ends","file","both"}, revoke
// {"id","classes","seq","file"}. The secret is in this answer and nowhere else.
Result<boost::json::object> token_action(Ledger& ledger, const Credentials& credentials, std::string_view verb,
                                         std::string_view which, const boost::json::object& body,
                                         const std::string& request_id, const std::string& source);

}  // namespace ledger::api
