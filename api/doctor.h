// `ledger doctor`: the steps of a joining agent, one by one, on the machine that cannot join. The first that fails
// is named in one sentence, with what to do about it.
//
// It looks and asks; it changes nothing, here or on the server. The server's log gets what every document costs (a
// token_accepted or token_rejected per request) and nothing else: in particular no failed handshakes, because
// certificates are judged here, not by trying. A k3s server cannot be asked about a node password without binding
// it; a ledger can (docs/HTTP_API.md, check-node). The token is sent to no server that its CA hash does not fit.
//
// Hides: how a step is carried out, deadlines, the order, which steps make no sense after a failure. No text of a
// Diagnosis holds the token or the node password.
//
// Threads: examine() blocks, at most a few deadlines; any number may run at once.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "api/agent.h"
#include "ledger/types.h"

namespace ledger::api {

struct DoctorOptions {
  std::string server;  // as the agent is given it: https://host[:port]
  Secret token;
  std::string node_name;
  std::filesystem::path password_file = "/etc/rancher/node/password";
  std::filesystem::path agent_dir;       // empty: k3s' or RKE2's
  std::vector<std::string> node_ips;     // empty: our address towards the server
  std::optional<Generation> generation;  // not given: what every generation would say
  bool rke2 = false;
  bool really_register = false;        // ask a k3s server for the certificate as the agent would: binds the name
  std::uint16_t balancer_port = 6444;  // of the agent's own load balancer
  std::chrono::milliseconds deadline{5'000};  // of each step
};

struct Remedy {
  std::string action;
  std::string command;  // to paste; empty where there is none
};

struct DoctorStep {
  enum class Outcome { ok, warning, failure, skipped };
  std::string name;   // stable, for programs: "tcp"
  std::string title;  // for people: "TCP connection"
  Outcome outcome = Outcome::skipped;
  std::string detail;  // a sentence without its full stop
  std::vector<Remedy> remedies;
};
std::string_view name_of(DoctorStep::Outcome outcome);

struct Diagnosis {
  std::vector<DoctorStep> steps;
  // nullptr: nothing fails.
  const DoctorStep* first_failure() const;
};

// `on_step` is called with each step as it ends.
Diagnosis examine(const DoctorOptions& options, const std::function<void(const DoctorStep&)>& on_step = {});

}  // namespace ledger::api
