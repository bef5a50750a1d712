#include "api/agent_profile.h"

namespace ledger::api {

namespace {

using std::chrono::seconds;
using Level = AgentLine::Level;

// Each generation is its predecessor with what changed.
constexpr Profile first() {
  Profile p{.generation = Generation::G1, .name = "G1", .version = "v1.17.2"};
  p.asks_apis = true;
  p.timeout = seconds(60);  // it would wait for ever
  p.join_level = Level::error;
  return p;
}

constexpr Profile second() {
  Profile p = first();
  p.generation = Generation::G2, p.name = "G2", p.version = "v1.19.8";
  p.asks_apis = false;
  p.sends_ip = p.falls_back_to_url = p.quotes_urls = true;
  p.timeout = seconds(20);
  p.join_prefix = "Failed to retrieve agent config: ";
  return p;
}

constexpr Profile third() {
  Profile p = second();
  p.generation = Generation::G3, p.name = "G3", p.version = "v1.20.2";
  return p;
}

constexpr Profile fourth() {
  Profile p = third();
  p.generation = Generation::G4, p.name = "G4", p.version = "v1.22.8";
  p.sends_ip_list = p.asks_readyz = true;
  p.timeout = seconds(10);
  p.join_level = Level::info;
  p.join_prefix = "Waiting to retrieve agent configuration; server is not ready: ";
  p.config_prefix = "failed to retrieve configuration from server: ";
  return p;
}

constexpr Profile fifth() {
  Profile p = fourth();
  p.generation = Generation::G5, p.name = "G5", p.version = "v1.25.6";
  p.asks_apiservers = true;
  p.silence_limit = seconds(60);
  return p;
}

// Before v1.29.4: an error is URL and status, the tunnel's words are the old ones.
constexpr Profile sixth() {
  Profile p = fifth();
  p.generation = Generation::G6, p.name = "G6", p.version = "v1.28.15";
  p.presents_certificate = p.takes_any_2xx = p.jitters_join = true;
  return p;
}

constexpr Profile seventh() {
  Profile p = sixth();
  p.generation = Generation::G7, p.name = "G7", p.version = "v1.34.2";
  p.sends_csr = p.reads_status = p.names_file = p.names_server = p.words_of_v130 = true;
  p.tunnel_pause = seconds(3);
  p.sync_every = seconds(60);
  return p;
}

constexpr Profile kProfiles[] = {first(), second(), third(), fourth(), fifth(), sixth(), seventh()};

constexpr Program kK3s{"k3s", "K3s-", "+k3s1", 443};
constexpr Program kRke2{"rke2", "Rke2-", "+rke2r1", 9345};

}  // namespace

const Profile& profile_of(Generation generation) {
  for (const Profile& profile : kProfiles)
    if (profile.generation == generation) return profile;
  fatal("a Generation without a profile");
}

const Program& program_of(bool rke2) { return rke2 ? kRke2 : kK3s; }

Result<Generation> parse_generation(std::string_view text) {
  for (const Profile& profile : kProfiles)
    if (to_lower(text) == to_lower(profile.name)) return profile.generation;
  return Error{Errc::invalid, "'" + printable(text, 20) + "' is not a generation of agents; use one of G1 to G7"};
}

std::string_view name_of(Generation generation) { return profile_of(generation).name; }

}  // namespace ledger::api
