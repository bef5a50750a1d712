// What changed between two moments of a history, and by whom: the projection of the nodes and that of the tokens,
// compared, with the records that made the difference. What `ledger diff` prints.
//
// A state is the real fold's (ledger/node_table.h, ledger/token_table.h) up to and including a record. Reads the
// records between the two moments once to learn which names changed and these names' histories once more: memory
// grows with the number of nodes and tokens that changed and not with the records. Any thread.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/node_table.h"
#include "ledger/token_table.h"
#include "replay/record_source.h"
#include "replay/render.h"

namespace ledger::replay {

// One thing that happened to a node or a token. What repeats is one step: equal outcomes in a row from one host.
struct ChangeStep {
  Seq first = 0, last = 0;  // records
  Time from, to;            // when it first and last happened
  Kind kind = Kind::password_stored;
  std::string who;          // an operator; else the host that the request came from; empty: not known
  bool by_operator = false;  // `who` is a person or a program that acted on the binding or the token
  std::string by;           // how: operator, operator_accept, node_deleted, import, ...
  Fingerprint fingerprint;  // presented, or what the name was bound to by it
  std::string note;
  std::uint64_t count = 1;  // outcomes
};

// What the difference of two states comes to. `none`: a step or two, and everything is as it was.
enum class NetEffect : std::uint8_t {
  none,
  bound,              // was not, is
  rebound,            // to another password than before
  bound_anew,         // to the same password as before, by another record
  fingerprint_known,  // bound by a hash of k3s: its password was seen
  released,
  held,
  hold_ended,
  refused,     // refusals are open that were not, or more of them
  admitted,    // refusals were open, a registration ended them
  registered,  // the bound password was presented; nothing else of this list
};
std::string_view name_of(NetEffect effect);  // "fingerprint_known"
// `made_by`: kind of the record that made the binding of `after`.
std::vector<NetEffect> net_effects(const NodeState& before, const NodeState& after, Kind made_by);

struct NodeChange {
  std::string node;
  NodeState before, after;
  std::vector<NetEffect> net;
  std::uint64_t refusals = 0, registrations = 0;  // between the two moments, counts of storms included
  std::vector<ChangeStep> steps;                  // the first 20 and the latest 20
  std::uint64_t steps_left_out = 0;
  bool is_routine = true;  // nothing but registrations with the bound password
};

struct TokenChange {
  std::string token, token_class;
  std::string before, after;  // valid, superseded, revoked, expired; empty: none is known
  std::optional<Time> expires;
  std::optional<Time> grace_ends;  // superseded, and still accepted until then
  std::vector<ChangeStep> steps;  // by record; none: time alone made it expire
};

struct Diff {
  RecordSource::Moment from, to;
  std::vector<NodeChange> nodes;    // by name
  std::vector<TokenChange> tokens;  // by class, then id
  std::vector<std::string> warnings;
};

// What the records after `from`, up to `to`, changed. Errc::invalid when `from` is the later one.
Result<Diff> diff(RecordSource& source, const Cut& from, const Cut& to, const Progress& progress = {});

// {"from":{"seq","time"},"to":{...},"nodes":[{"node","net":["rebound"],"before":{...},"after":{...},"refusals",
// "registrations","steps":[{"seq","seq_last","time","kind","who","by","fingerprint","note","count"}],
// "steps_left_out"}],"tokens":[...],"warnings"}; states as in `ledger node list --format json`.
boost::json::object to_json(const Diff& diff);
// Nodes that only registered again are counted, unless `all`.
std::string to_text(const Diff& diff, const TextStyle& style = {}, bool all = false);

}  // namespace ledger::replay
