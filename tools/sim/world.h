// A fleet in virtual time: machines with agents on one side, registration servers on the other, and the log that the
// servers write. Rulings are those of the real decide(), the projection is the real NodeTable, repeated outcomes are
// counted by the real StormCounter; only clocks, sockets and cryptography are played. Equal seeds give equal bytes.
//
// Cadences are those of the field (docs/FORENSICS.md): retries every 5 s, since v1.28.5 every 5 to 10 s; two
// certificate requests per start; a tunnel from then on; reboots take 30 s to some minutes.
//
// Threads: a World belongs to one thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "ledger/decision.h"
#include "ledger/event.h"
#include "ledger/node_table.h"
#include "ledger/storm.h"

namespace ledger::sim {

// Reproducible on every machine: the distributions of <random> are not.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t below(std::uint64_t limit) { return engine_() % limit; }
  double between(double low, double high) {
    return low + (high - low) * static_cast<double>(engine_() >> 11) / 9007199254740992.0;
  }
  bool chance(double probability) { return between(0, 1) < probability; }
  template <class T>
  const T& pick(const std::vector<T>& list) {
    return list[below(list.size())];
  }
  std::string hex(std::size_t digits);

 private:
  std::mt19937_64 engine_;
};

// What the servers of one cluster share, or what one of them keeps for itself (k3s before v1.20).
struct Store {
  NodeTable nodes;
  std::map<std::string, TokenResult> tokens;  // token id -> how it is judged; absent: wrong_secret
};

struct Server {
  std::string id;
  std::shared_ptr<Store> store;
  bool unavailable = false;  // cannot record: 503
  bool overloaded = false;   // 429
};

struct Machine {
  std::string node;          // the name its agent asks for
  std::string address;       // its own
  std::string seen_as;       // as the server sees it: its own, or a NAT's or a balancer's
  std::string password;      // fingerprint; empty: the file is empty
  std::string token = "t-agent";
  std::string generation = "G5";
  std::string certificate;   // serial of its kubelet's client certificate; empty: none
  Server* server = nullptr;
  bool sends_certificate_only = false;  // G6 and later, where the token is not accepted any more
  bool opens_tunnel = true;
  std::string tls_alert;     // not empty: no handshake succeeds

  // Managed by the World.
  bool running = false;
  bool registered = false;
  std::string tunnel;
  Time tunnel_since;
  std::uint64_t start_number = 0;
};

class World {
 public:
  World(std::uint64_t seed, Time start);

  Random random;
  std::vector<Record> log;

  Time now() const { return now_; }
  // Runs `action` at `seconds` from now; actions of one moment in the order in which they were given.
  void after(double seconds, std::function<void()> action);
  // Plays for so long.
  void run_for(double seconds);

  Server& add_server(std::shared_ptr<Store> store = {});
  Machine& add_machine(const std::string& node, const std::string& address);
  std::string new_password() { return "p" + random.hex(10); }

  // The agent starts: it asks until it is in, then opens its tunnel. Stops what ran before.
  void start(Machine& machine);
  // The process or the machine ends; its tunnel is closed after the silence limit when `abruptly`.
  void stop(Machine& machine, bool abruptly = false);
  void restart(Machine& machine, double pause_s);

  // Things that happen to the cluster, by whoever. Agents open their tunnels again some seconds after a start.
  void server_started(Server& server, bool clean = true, const std::string& ca = "ca-1");
  void server_stopped(Server& server);
  void epoch(Server& server, const std::string& cause);
  void release(Server& server, const std::string& node, const std::string& by, const std::string& actor);
  void accept(Server& server, const std::string& node, const std::string& fingerprint,
              const std::string& by = "operator_accept");
  void node_created(Server& server, const std::string& node);
  void node_deleted(Server& server, const std::string& node, const std::string& actor);
  void write(Server& server, Record record);  // any other record

  // Writes what is counted.
  void settle();

 private:
  struct Action {
    Time at;
    std::uint64_t order;
    std::function<void()> run;
    bool operator>(const Action& other) const { return at != other.at ? at > other.at : order > other.order; }
  };

  // One round of requests; true when the machine is in.
  bool ask(Machine& machine);
  enum class Answer { in, again };
  Answer certificate_request(Machine& machine, const char* purpose);
  bool authenticate(Machine& machine, Record& record, const char* endpoint);
  void try_until_in(Machine& machine, std::uint64_t start_number);
  void open_tunnel(Machine& machine, std::uint64_t start_number);
  void close_tunnel(Machine& machine, const std::string& cause);
  void reopen_tunnels(Server& server);
  Record request_record(Machine& machine, const char* endpoint);
  void append(Server& server, Record record);
  void put(Record record);
  void write_due();
  Instant instant() const;

  Time now_, start_;
  std::uint64_t order_ = 0;
  std::int64_t epoch_ = 1;
  std::priority_queue<Action, std::vector<Action>, std::greater<>> actions_;
  std::vector<std::unique_ptr<Server>> servers_;
  std::vector<std::unique_ptr<Machine>> machines_;
  StormCounter storm_;
};

}  // namespace ledger::sim
