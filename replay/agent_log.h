// Reads the journal of a k3s (or RKE2) agent of any generation: which of its lines tell of joining, and what they say.
//
// Lines in any form that ledger/journal.h takes apart. An agent knows little: one sentence for every 403, a status for most
// other refusals, and the words of a TLS library; what a sentence stands for in the ledger is agent_match.h's. Most
// lines of an agent are about other things and are passed over. What an agent prints by generation: the comments at the
// table in agent_log.cpp.
//
// Memory: the first 20,000 lines that say something. Text is safe to print. Any thread.
#pragma once

#include <cstdint>
#include <istream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/types.h"

namespace ledger::replay {

enum class Saying : std::uint8_t {
  started,              // the program's version
  password_rejected,    // the one sentence for every 403 on the kubelet endpoints
  refused,              // an HTTP status on some path
  not_authorized,       // 401 or 403 in the server's words
  body_used_up,         // what is left of a 401 in the newest agents
  without_certificate,  // 401 with its client certificate; it tries again without
  ca_not_fetched,       // /cacerts could not be had
  ca_not_trusted,       // the listener's certificate does not fit that CA
  ca_differs,           // the token is of another cluster
  token_unusable,       // the token is none; nothing was asked
  answer_unusable,      // the server answered, and the agent could not use it
  no_answer,            // it asked and heard nothing: nobody there, or the reply was lost
  tunnel_opened,
  tunnel_refused,
  tunnel_closed,
};
std::string_view name_of(Saying saying);  // "password_rejected"

struct AgentLine {
  std::uint64_t number = 0;  // in the file, from 1
  std::optional<Time> time;  // by the agent's clock
  Saying saying = Saying::started;
  int status = 0;        // of `refused`; 0: not known
  std::string endpoint;  // "/v1-k3s/serving-kubelet.crt"; empty: the line names none
  std::string text;      // what it says, at most 400 bytes
};

struct AgentLog {
  std::vector<AgentLine> lines;
  std::uint64_t read = 0;         // lines that are not empty
  std::uint64_t passed_over = 0;  // about other things
  std::uint64_t unreadable = 0;   // look like JSON and are none, or are longer than 1 MiB
  std::uint64_t without_time = 0; // of `lines`
  std::uint64_t left_out = 0;     // past the limit
  std::string node;       // the node's name as far as the log tells; empty: it does not
  std::string node_from;  // by what: "--hostname-override", "the kubelet", "the journal's host"
  std::string version;    // "v1.28.4+k3s1"
  std::vector<std::string> servers;  // "10.0.0.1:6443", as the agent's load balancer has them; at most 8
};

// Reads to the end. Never fails: what cannot be used is counted.
AgentLog read_agent_log(std::istream& in);

// What a message says about joining; nullopt: it is about something else. `error` is logrus' field of that name.
std::optional<AgentLine> read_agent_message(std::string_view message, std::string_view error = {});

}  // namespace ledger::replay
