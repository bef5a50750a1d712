// What differs between generations of agents: which requests they send, how long they wait, and the prefixes of
// their sentences. One row each, for the release whose texts are used. Pure; any thread.
//
// Sources: the sequences of docs/HTTP_API.md, "Generations", and the agents' own logs.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "api/agent.h"

namespace ledger::api {

struct Profile {
  Generation generation;
  const char* name;
  const char* version;  // without "+k3s1"

  // Requests.
  bool asks_apis = false;  // checks its token with GET /apis
  bool sends_ip = false;   // K3s-Node-Ip
  bool sends_ip_list = false;
  bool asks_readyz = false;
  bool asks_apiservers = false;
  bool presents_certificate = false;  // its kubelet's, once it has one; and takes bootstrap tokens
  bool sends_csr = false;             // keeps its keys to itself
  bool takes_any_2xx = false;
  bool falls_back_to_url = false;  // tunnel to the configured server when no endpoint is known

  // Times.
  std::chrono::seconds timeout{60};
  std::chrono::seconds silence_limit{10};  // of the tunnel
  std::chrono::seconds tunnel_pause{5};
  bool jitters_join = false;           // 5..10 s between two tries to join
  std::chrono::seconds sync_every{0};  // SyncConnections; 0: does not know it

  // Words.
  bool quotes_urls = false;    // Go 1.14 and later: Get "https://...": EOF
  bool reads_status = false;   // the `message` of a Status body takes the place of URL and status
  bool names_file = false;     // says which file it was fetching
  bool names_server = false;   // "Failed to validate connection to cluster at ..."
  bool words_of_v130 = false;  // of the tunnel
  AgentLine::Level join_level = AgentLine::Level::info;
  const char* join_prefix = "";
  const char* config_prefix = "";
};

const Profile& profile_of(Generation generation);

// k3s, and RKE2, which is the same code under another name.
struct Program {
  const char* name;           // in paths, file names and the version
  const char* header_prefix;  // of the node headers
  const char* build;          // "+k3s1"
  std::uint16_t default_port;

  std::string path(std::string_view rest) const { return "/v1-" + std::string(name) + std::string(rest); }
  std::string header(std::string_view rest) const { return header_prefix + std::string(rest); }
};

const Program& program_of(bool rke2);

}  // namespace ledger::api
