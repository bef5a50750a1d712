// The rules of causes.h, and the words they share. Each answers with what it found, or with nothing; the comment
// above each says what it rests on. Included by causes.cpp and rules_*.cpp only. Any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "replay/causes.h"

namespace ledger::replay::rules {

using Found = std::optional<Finding>;

// rules_request.cpp: what fails before the password is judged
Found never_seen(const Facts& facts);
Found server_not_able(const Facts& facts);
Found memory_replaced(const Facts& facts);
Found server_just_started(const Facts& facts);
Found servers_disagree(const Facts& facts);
Found servers_disagree_on_token(const Facts& facts);
Found foreign_certificate(const Facts& facts);
Found answer_lost_with_its_token(const Facts& facts);
Found credential_lost(const Facts& facts);
Found token_refused(const Facts& facts);
Found released_certificate(const Facts& facts);
Found no_password(const Facts& facts);
Found other_request_refused(const Facts& facts);
Found handshake_failed(const Facts& facts);

// rules_upstream.cpp: what a server behind this one decided, or did not
Found upstream_not_able(const Facts& facts);
Found upstream_token_differs(const Facts& facts);
Found upstream_refuses_its_own(const Facts& facts);
Found upstream_binding_unknown(const Facts& facts);
// Who decided, what of him cannot be seen from here, and what we would have said.
void speak_of_upstream(Finding& finding, const Facts& facts);

// rules_mismatch.cpp: refused passwords, decided by what happened to the binding or by who was alive
Found held(const Facts& facts);
Found binding_edited(const Facts& facts);
Found binding_differs(const Facts& facts);
Found old_password_returned(const Facts& facts);
Found old_node_returned(const Facts& facts);
Found several_refused(const Facts& facts);
Found two_machines(const Facts& facts);
Found name_of_the_server(const Facts& facts);
Found default_name_twice(const Facts& facts);
Found release_without_effect(const Facts& facts);

// rules_password.cpp: refused passwords, decided by the passwords themselves; and what is left undecided
Found password_of_one_start(const Facts& facts);
Found name_left_behind(const Facts& facts);
Found renamed_machine(const Facts& facts);
Found name_handed_out_again(const Facts& facts);
Found first_join_unfinished(const Facts& facts);
Found machines_newer_than_memory(const Facts& facts);
Found lost_by_the_servers_node(const Facts& facts);
Found rebuilt(const Facts& facts);
Found own_password_undecided(const Facts& facts);
Found after_restore_undecided(const Facts& facts);
Found known_elsewhere_undecided(const Facts& facts);
Found mismatch_undecided(const Facts& facts);

// rules_settled.cpp: nothing is refused now
Found password_of_two_names(const Facts& facts);
Found password_of_many_names(const Facts& facts);
Found password_of_two_places(const Facts& facts);
Found reply_lost(const Facts& facts);
Found goes_by_another_name(const Facts& facts);
Found returned_unwanted(const Facts& facts);
Found nothing_wrong(const Facts& facts);
Found nothing_decides(const Facts& facts);

// ---- shared words -----------------------------------------------------------------------------------------

Alternative maybe(Cause cause);
Alternative maybe(Cause cause, std::string needs);

std::string who(const Facts& facts);
std::string upstream_of(const Record& record);  // "the upstream 10.0.0.1:6443"
std::string on_record(const Record& record);                            // "record 8991"
std::string named(const Facts& facts, const Fingerprint& fingerprint);  // "password #77e0"
std::string from_where(const Record& record);                           // " from 10.0.0.5", or nothing
std::string times(std::int64_t count);                                  // "once", "3 times"
std::string refused_text(const Facts& facts);  // "password #77e0 was refused 41 times (records 8991 to 9031)"
std::string where_text(Where where);
std::string release_text(const Record& release);  // "the name was released"
bool only_loopback(const Place& place);

void cite(Finding& finding, const Record& record, std::string fact);
void cite_refusals(Finding& finding, const Facts& facts);
void cite_new_password(Finding& finding, const Facts& facts);  // nothing where it is not new
void cite_holder(Finding& finding, const Facts& facts);        // its last sign of life, where there is one

Confidence lower(Confidence confidence);
// What is only claimed is said to be, whatever rule answered: anybody can write the name of a node.
void doubt_claims(Finding& finding, const Facts& facts);

// An open refusal of a password, and nothing that stands before it.
bool is_mismatch(const Facts& facts);
// The refused password was never accepted, here or under another name.
bool new_to_the_ledger(const Facts& facts);
// The request carried a client certificate of this very node: the same machine, or one that has its key.
bool shows_continuity(const Facts& facts);
// The refused password is one that this name was bound to or used before: the last record that says so.
const Record* former_use(const Facts& facts);
// The last release of the name, or deletion of its Node, before `seq`; nullptr: none.
const Record* release_before(const Facts& facts, Seq seq);

// Uninterrupted use of one password.
struct Use {
  Fingerprint password;
  Place place;
  const Attempt* first = nullptr;
  const Attempt* last = nullptr;
  bool accepted = false;
  bool survived_restart = false;  // accepted again at a later start
};
// The run of passwords that ends with the last one used: each new, each of one start, none ever back.
std::vector<Use> changing_passwords(const Facts& facts);

}  // namespace ledger::replay::rules
