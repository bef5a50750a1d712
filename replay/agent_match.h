// An agent's journal beside the ledger: which record each of its lines stands for, how far the agent's clock is off, and
// what one of the two has and the other has not.
//
// A line and a record belong together when the sentence is one that such a record's reply makes an agent print, and the
// times agree after the clocks were compared. The offset of the agent's clock is the one under which most lines find
// a record, the smallest of several; it is refined by records that stand for one outcome. An answer without a record
// cannot be this server's: it records before it replies. Pure; any thread. Points into what it was made from.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <vector>

#include "replay/agent_log.h"
#include "replay/history.h"
#include "replay/render.h"

namespace ledger::replay {

// Lines in a row that say the same and have met the same fate.
struct AgentRun {
  const AgentLine* first = nullptr;
  const AgentLine* last = nullptr;
  std::size_t lines = 0;
  std::vector<const Record*> records;  // those that the lines stand for, in order; empty: none
  bool by_time_alone = false;          // the records name no node
  std::string verdict;                 // a sentence
};

struct AgentMatch {
  const AgentLog* log = nullptr;
  std::string node;
  std::optional<double> offset_s;  // to add to the agent's clock; nullopt: cannot be told
  std::size_t offset_lines = 0;    // how many lines it rests on
  std::vector<AgentRun> runs;
  std::size_t matched = 0, without_record = 0;  // of the lines that an answer stands behind
  std::vector<const Record*> unheard;           // the node's refusals in that time which no line tells of
};

// `nameless`: refusals that name no node, from any address (nameless_refusals); those of the address that fits best are
// taken where the node's own records do not do.
AgentMatch match(const AgentLog& log, const History& history, const std::vector<Record>& nameless = {});

// A refusal of the supervisor stands behind some line: worth looking for records without a name.
bool may_be_nameless(const AgentLog& log);
// Refusals without a node name in the time of the log's lines and an hour around it; the first 20,000 records of that
// time that are any.
Result<std::vector<Record>> nameless_refusals(const EventLog& events, const AgentLog& log);

boost::json::object to_json(const AgentMatch& match);
std::string to_text(const AgentMatch& match, const TextStyle& style = {});

}  // namespace ledger::replay
