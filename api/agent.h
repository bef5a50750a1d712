// A played k3s agent: the exact requests of an unmodified agent of one generation, from the trust round to the
// tunnel, with the agent's own checks and the agent's own sentences. It runs no containers.
//
// For `ledger agent`, the demo, tests and load drivers. Hides the order of requests, which differs by
// generation, and the texts. It is as strict as the agent is: exactly 200, PEM that parses, keys that match,
// a config document with the right JSON types (docs/HTTP_API.md lists the sequences).
//
// What is played differently, and why: the agent's local load balancer is left out (we dial the server
// ourselves, but name and verify 127.0.0.1:6444 as an agent does, and print EOF where the balancer would hide
// why a server cannot be reached; AgentOutcome::cause has the truth); agents before v1.19.3 wait for ever, we
// wait 60 s; of the files only password, id, certificates, keys and CAs are written, no kubeconfigs; the kubelet
// is whatever listens on `kubelet_port`.
//
// Threads: run_agent() blocks; any number may run at once with different options.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/types.h"

namespace ledger::api {

// Generations of agents, by what they send: docs/HTTP_API.md, "Generations".
enum class Generation { G1 = 1, G2, G3, G4, G5, G6, G7 };
Result<Generation> parse_generation(std::string_view text);
std::string_view name_of(Generation generation);

// A line of the agent's log, logrus' text form: time="..." level=error msg="..." error="...".
struct AgentLine {
  enum class Level { info, warning, error };
  Time time;
  Level level = Level::info;
  std::string message;
  std::string field, value;  // one more key="value", or empty

  std::string to_string() const;
};

struct AgentOptions {
  std::string server;  // https://host[:port]; without a port 443, of RKE2's supervisor 9345
  Secret token;
  std::string node_name;
  Generation generation = Generation::G5;
  bool rke2 = false;  // an RKE2 agent: its paths, headers and names (there are none of G1)
  bool with_node_id = false;
  std::vector<std::string> node_ips;  // empty: our address as seen towards the server

  // Where the node password is kept; `id` lies beside it. Created at first use, as the agent does.
  std::filesystem::path password_file;
  // When not empty, this is the node password and no file is touched.
  Secret node_password;
  // Certificates, keys and CAs. Empty: `agent` beside the password file, or in memory when there is no such file.
  // From G6 on the kubelet's client certificate found here is presented.
  std::filesystem::path agent_directory;

  // How often a failed phase is tried; 0: for ever, like the agent.
  int attempts = 1;
  // Between two tries; 0: the agent's own 2 s, 5 s, and 5 to 10 s to join from G6 on.
  std::chrono::milliseconds pause{0};
  // Whether to open the tunnel, and for how long to hold it; 0: until it ends or `stop`.
  bool tunnel = false;
  std::chrono::milliseconds tunnel_for{0};
  std::chrono::milliseconds ping_every{5'000};
  std::uint16_t balancer_port = 6444;
  // Where the kubelet listens that the server reaches through the tunnel as port 10250.
  std::uint16_t kubelet_port = 10250;

  std::function<void(const AgentLine&)> log;  // called as lines appear
  const std::atomic<bool>* stop = nullptr;    // ends pauses and tunnels early
};

struct AgentRequest {
  std::string phase;  // trust, join, ready, endpoints, tunnel
  std::string method, path;
  int status = 0;  // 0: no answer; `error` says why
  std::string error;
  std::string request_id;  // Ledger-Request-Id
  std::string seq;         // Ledger-Seq
  std::chrono::microseconds took{0};
};

struct AgentOutcome {
  enum class Verdict {
    joined,   // certificates received (and the tunnel connected, when asked for)
    refused,  // the server said no: 4xx
    failed,   // anything else
  };
  Verdict verdict = Verdict::failed;
  std::string node;      // the name it joined under, with its id when it has one
  std::string sentence;  // what the agent last complained about
  std::string cause;     // of the last failed request, where the agent's sentence hides it
  std::vector<AgentRequest> requests;
  std::vector<AgentLine> lines;
  std::vector<std::string> tunnels;  // URLs that were connected
  std::uint64_t pongs = 0;
};

AgentOutcome run_agent(const AgentOptions& options);

}  // namespace ledger::api
