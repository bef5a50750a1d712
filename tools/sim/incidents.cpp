#include "tools/sim/incidents.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "ledger/event_json.h"
#include "tools/sim/world.h"

namespace ledger::sim {
namespace {

using replay::Cause;

constexpr double kMinute = 60, kHour = 3600, kDay = 86400;

const std::set<std::string> kNeverFirst = {"S6", "S7"};
// While the rightful holder lives, and where the binding is not what is wrong.
const std::set<std::string> kBindingMustStay = {"S3", "S4", "S5", "S6", "S7"};

// A cluster that has run for a while, and the room for one story in it.
struct Stage {
  explicit Stage(std::uint64_t seed)
      : world(seed, Time{1'700'000'000'000'000 + static_cast<std::int64_t>(seed % 1'000'000) * 60'000'000}),
        random(world.random),
        server(world.add_server()),
        doors{&server} {
    world.server_started(server);
    behind_nat = random.chance(0.1);
    if (random.chance(0.25)) {
      doors.push_back(&world.add_server(server.store));
      world.server_started(*doors.back());
    }
    if (random.chance(0.05)) {
      Record stepped;
      stepped.event = ClockStepped{random.between(-300, 300)};
      world.write(server, std::move(stepped));
    }
    watches_nodes = random.chance(0.3);
    const std::uint64_t bystanders = random.below(6);
    for (std::uint64_t i = 0; i < bystanders; ++i) {
      Machine& other = world.add_machine(fmt::format("other-{}", i), fmt::format("10.0.9.{}", 10 + i));
      other.generation = generation();
      world.after(random.between(0, kHour), [this, &other] { join(other); });
      if (random.chance(0.5))
        world.after(random.between(kHour, 3 * kDay), [this, &other] { world.restart(other, 40); });
    }
  }

  std::string generation() { return "G" + std::to_string(1 + random.below(7)); }

  std::string host_name() {
    static const std::vector<std::string> kNames = {"web-1",     "db-main", "rpi-07",     "edge-fra-2", "builder",
                                                    "worker-12", "nas",     "gw.example", "node-a",     "k3s-agent-3"};
    return random.pick(kNames);
  }
  std::string address() { return fmt::format("10.0.{}.{}", 1 + random.below(5), 2 + random.below(250)); }

  Machine& machine(const std::string& node) {
    Machine& out = world.add_machine(node, address());
    out.generation = generation();
    if (behind_nat) out.seen_as = "198.51.100.7";
    out.server = &door();
    return out;
  }

  void move(Machine& machine) {
    machine.address = address();
    if (!behind_nat) machine.seen_as = machine.address;
  }

  // For stories in which one server is not like the others.
  void keep_to_first(Machine& machine) {
    if (machine.server == &server) return;
    world.stop(machine);
    machine.server = &server;
    world.start(machine);
    world.run_for(random.between(kMinute, kHour));
  }

  // Servers of one cluster share what they know; an agent keeps to one of them until it starts anew.
  Server& door() { return *random.pick(doors); }

  void join(Machine& machine) {
    world.start(machine);
    if (watches_nodes && machine.opens_tunnel)
      world.after(random.between(20, 60), [this, &machine] {
        if (machine.registered) world.node_created(*machine.server, machine.node);
      });
  }

  // A machine that joined and lived, with ordinary reboots.
  Machine& settled(const std::string& node) {
    Machine& out = machine(node);
    world.run_for(random.between(kMinute, kHour));
    join(out);
    world.run_for(random.between(10 * kMinute, 20 * kDay));
    const std::uint64_t reboots = random.below(3);
    for (std::uint64_t i = 0; i < reboots; ++i) {
      world.stop(out);
      out.server = &door();
      world.restart(out, random.between(30, 240));
      world.run_for(random.between(kHour, 10 * kDay));
    }
    return out;
  }

  void rebuild(Machine& machine, double takes_s) {
    world.stop(machine, random.chance(0.5));
    world.run_for(takes_s);
    machine.password = world.new_password();
    machine.certificate.clear();
    world.start(machine);
  }

  // Somebody looks only after a while, and not before there is something to see.
  void wait() { world.run_for(random.between(2 * kMinute, 2 * kHour)); }

  Incident finish(const std::string& story, const std::string& node, Cause truth,
                  std::set<std::string> harmful_first = kNeverFirst) {
    Incident out;
    out.story = story;
    out.node = node;
    out.truth = truth;
    out.harmful_first = std::move(harmful_first);
    out.log = world.log;
    return out;
  }

  World world;
  Random& random;
  Server& server;
  std::vector<Server*> doors;
  bool watches_nodes = false;
  bool behind_nat = false;
};

// ---- one machine -----------------------------------------------------------------------------------------

Incident rebuilt(Stage& s) {
  Machine& m = s.settled(s.host_name());
  const bool moved = s.random.chance(0.15);
  if (moved) s.move(m);
  s.rebuild(m, s.random.between(3 * kMinute, 5 * kHour));
  s.wait();
  Incident out = s.finish(moved ? "rebuilt, with a new lease" : "rebuilt", m.node, Cause::kRebuilt);
  // Another address and nothing else: another machine looks the same.
  out.undecided_is_right = moved;
  return out;
}

Incident ephemeral(Stage& s) {
  Machine& m = s.settled(s.host_name());
  const std::uint64_t boots = 2 + s.random.below(3);
  const int how = static_cast<int>(s.random.below(3));
  for (std::uint64_t i = 0; i < boots; ++i) {
    s.rebuild(m, s.random.between(30, 10 * kMinute));
    s.world.run_for(s.random.between(5 * kMinute, 5 * kHour));
    if (i + 1 == boots) break;
    if (how == 0) s.world.accept(s.server, m.node, m.password);
    if (how == 1) s.world.release(s.server, m.node, "operator", "root@srv");
    if (how != 2) s.world.run_for(s.random.between(kHour, 6 * kDay));
  }
  const char* const kHow[] = {"accepted each time", "released each time", "never let in"};
  return s.finish(fmt::format("{} new passwords, {}", boots, kHow[how]), m.node, Cause::kEphemeral);
}

Incident credential_file(Stage& s) {
  Machine& m = s.settled(s.host_name());
  m.password.clear();
  s.world.restart(m, s.random.between(10, 60));
  s.wait();
  return s.finish("password file emptied", m.node, Cause::kCredFile, kBindingMustStay);
}

// ---- releases --------------------------------------------------------------------------------------------

Incident stale_binding(Stage& s) {
  Machine& m = s.settled(s.host_name());
  s.world.stop(m);
  s.world.run_for(s.random.between(kMinute, 2 * kHour));
  s.world.node_deleted(s.server, m.node, "kubectl");
  s.world.run_for(s.random.between(2 * kMinute, kDay));
  m.password = s.world.new_password();
  if (s.random.chance(0.3)) s.move(m);
  s.world.start(m);
  s.wait();
  return s.finish("node deleted, binding kept", m.node, Cause::kStaleBind);
}

Incident zombie(Stage& s) {
  Machine& m = s.settled(s.host_name());
  const bool by_operator = s.random.chance(0.5);
  if (by_operator) {
    s.world.release(s.server, m.node, "operator", "root@srv");
  } else {
    s.world.node_deleted(s.server, m.node, "autoscaler");
    s.world.release(s.server, m.node, "node_deleted", "watch-nodes");
  }
  s.world.restart(m, s.random.between(3, 60));
  s.world.run_for(s.random.between(2 * kMinute, 40 * kMinute));
  if (!by_operator && s.random.chance(0.3))
    return s.finish("node deleted while it ran; nobody else wants the name", m.node, Cause::kZombie);
  s.world.stop(m, true);
  s.world.run_for(s.random.between(5 * kMinute, kDay));
  m.password = s.world.new_password();
  if (s.random.chance(0.5)) s.move(m);
  s.world.start(m);
  s.wait();
  return s.finish(by_operator ? "released while it ran" : "node deleted while it ran", m.node, Cause::kZombie);
}

Incident orphan(Stage& s) {
  s.watches_nodes = true;
  // The others show what a join looks like here: a tunnel and a Node.
  for (int i = 0; i < 2; ++i) {
    Machine& good = s.machine(fmt::format("good-{}", i));
    s.join(good);
    s.world.run_for(10 * kMinute);
  }
  Machine& m = s.machine(s.host_name());
  m.opens_tunnel = false;
  s.world.start(m);
  s.world.run_for(s.random.between(15 * kMinute, 5 * kHour));
  s.world.stop(m);
  s.rebuild(m, s.random.between(20 * kMinute, 2 * kDay));
  s.wait();
  return s.finish("first join never became a node", m.node, Cause::kOrphanBind);
}

Incident pool_reuse(Stage& s) {
  const std::string pool = s.random.pick(std::vector<std::string>{"pool-a-", "workers-fsn1-", "asg-blue-", "spot-"});
  std::string last;
  const std::uint64_t names = 1 + s.random.below(3);
  std::vector<std::string> reused;
  for (std::uint64_t i = 0; i < names; ++i) {
    Machine& m = s.settled(fmt::format("{}{}", pool, 3 + 2 * i));
    s.world.stop(m, true);
    reused.push_back(m.node);
  }
  s.world.run_for(s.random.between(2 * kDay, 20 * kDay));
  for (const std::string& name : reused) {
    Machine& fresh = s.machine(name);
    s.world.start(fresh);
    s.world.run_for(s.random.between(kMinute, 3 * kHour));
  }
  Incident out = s.finish(fmt::format("{} names of a pool given to new machines", names), reused.back(),
                          Cause::kPoolReuse);
  out.undecided_is_right = true;  // a rebuilt machine with a new lease looks the same
  return out;
}

// ---- several machines ------------------------------------------------------------------------------------

Incident duplicate_name(Stage& s) {
  static const std::vector<std::string> kDefaults = {"raspberrypi", "ubuntu", "localhost.localdomain", "web-1",
                                                     "debian", "node-1"};
  Machine& holder = s.settled(s.random.pick(kDefaults));
  Machine& other = s.machine(holder.node);
  const bool behind_nat = s.random.chance(0.2) && holder.generation != "G1" && other.generation != "G1";
  if (behind_nat) other.seen_as = holder.seen_as;
  if (!holder.registered || holder.tunnel.empty()) s.world.run_for(5 * kMinute);
  s.world.start(other);
  s.world.run_for(s.random.between(4 * kMinute, kHour));
  if (s.random.chance(0.5)) {
    s.world.restart(holder, s.random.between(10, 60));
    s.world.run_for(s.random.between(2 * kMinute, 30 * kMinute));
  }
  Incident out = s.finish(behind_nat ? "two machines behind one address" : "two machines, one name", holder.node,
                          Cause::kDupName, kBindingMustStay);
  // One address, and nothing claimed: only answers that interleave tell two machines from one.
  out.undecided_is_right = s.behind_nat && (holder.generation == "G1" || other.generation == "G1");
  return out;
}

Incident cloned(Stage& s) {
  Machine& first = s.settled(s.host_name());
  const bool two_names = s.random.chance(0.6);
  Machine& copy = s.machine(two_names ? first.node + "-copy" : first.node);
  copy.password = first.password;
  s.join(copy);
  s.world.run_for(s.random.between(5 * kMinute, kHour));
  if (two_names) {
    s.world.restart(first, 30);
    s.world.run_for(s.random.between(5 * kMinute, 2 * kHour));
  } else {
    for (int i = 0; i < 3; ++i) {
      s.world.restart(first, s.random.between(10, 30));
      s.world.run_for(s.random.between(kMinute, 3 * kMinute));
      s.world.restart(copy, s.random.between(10, 30));
      s.world.run_for(s.random.between(kMinute, 3 * kMinute));
    }
  }
  return s.finish(two_names ? "one password, two names" : "one password and name, two places", first.node,
                  Cause::kCloned, kBindingMustStay);
}

Incident name_drift(Stage& s) {
  Machine& m = s.settled(s.host_name());
  const std::string old_name = m.node;
  s.world.stop(m);
  s.world.run_for(s.random.between(kMinute, kHour));
  m.node = old_name + "-new";
  s.join(m);
  s.world.run_for(s.random.between(kHour, 10 * kDay));
  if (s.random.chance(0.4)) {
    Incident out = s.finish("renamed; nobody asks for its old name", s.random.chance(0.5) ? old_name : m.node,
                            Cause::kNameDrift, kBindingMustStay);
    return out;
  }
  Machine& next = s.machine(old_name);
  s.world.start(next);
  s.wait();
  return s.finish("renamed; its old name is asked for", old_name, Cause::kNameDrift);
}

// ---- servers and operators -------------------------------------------------------------------------------

Incident restored(Stage& s) {
  Machine& m = s.settled(s.host_name());
  Machine& second = s.machine("second-1");
  s.join(second);
  s.world.run_for(kHour);
  const NodeTable snapshot = s.server.store->nodes;
  if (s.random.chance(0.4)) {
    s.world.run_for(s.random.between(kHour, 5 * kDay));
    for (Machine* lost : {&m, &second}) s.world.stop(*lost, true);
    s.world.server_stopped(s.server);
    s.world.run_for(s.random.between(20 * kMinute, 5 * kHour));
    s.world.epoch(s.server, "restored");
    s.world.server_started(s.server);
    for (Machine* each : {&m, &second}) {
      s.world.run_for(s.random.between(kMinute, 20 * kMinute));
      s.rebuild(*each, s.random.between(kMinute, 10 * kMinute));
    }
    s.wait();
    Incident out = s.finish("restored, with machines made anew", m.node, Cause::kRestored);
    out.also_right = {Cause::kRebuilt};  // which they were as well
    return out;
  }
  for (Machine* changed : {&m, &second}) {
    s.rebuild(*changed, s.random.between(5 * kMinute, kHour));
    s.world.run_for(s.random.between(kMinute, 10 * kMinute));
    s.world.accept(s.server, changed->node, changed->password);
    s.world.run_for(s.random.between(kHour, 5 * kDay));
  }
  s.world.server_stopped(s.server);
  s.world.run_for(s.random.between(5 * kMinute, 3 * kHour));
  s.server.store->nodes = snapshot;
  s.world.epoch(s.server, s.random.chance(0.7) ? "restored" : "datastore_changed");
  s.world.server_started(s.server);
  for (Machine* each : {&m, &second}) s.world.restart(*each, s.random.between(5, 300));
  s.world.run_for(s.random.between(6 * kMinute, 3 * kHour));
  return s.finish("snapshot from before the present passwords", m.node, Cause::kRestored);
}

Incident servers_split(Stage& s) {
  Machine& m = s.settled(s.host_name());
  s.keep_to_first(m);
  Server& other = s.world.add_server();
  s.world.server_started(other);
  // The other server knows the machine by an older password.
  Record imported;
  imported.node = m.node;
  imported.event = PasswordStored{{s.world.new_password()}};
  other.store->nodes.apply(imported);
  for (int i = 0; i < 3; ++i) {
    s.world.stop(m);
    m.server = &other;
    s.world.restart(m, s.random.between(5, 60));
    s.world.run_for(s.random.between(kMinute, 10 * kMinute));
    if (i == 2) break;
    s.keep_to_first(m);
    s.world.restart(m, s.random.between(5, 60));
    s.world.run_for(s.random.between(kMinute, 10 * kMinute));
  }
  return s.finish("two servers, two stores", m.node, Cause::kSrvSplit, kBindingMustStay);
}

Incident admin_edit(Stage& s) {
  Machine& m = s.settled(s.host_name());
  const bool recorded = s.random.chance(0.7);
  const std::string wrong = s.world.new_password();
  if (recorded) {
    s.world.accept(s.server, m.node, wrong, s.random.chance(0.5) ? "outside" : "operator_set");
  } else {
    Record unseen;
    unseen.node = m.node;
    unseen.event = BindingChanged{"", "outside", {}, {wrong}};
    s.server.store->nodes.apply(unseen);
  }
  s.world.run_for(s.random.between(kMinute, 3 * kDay));
  s.world.restart(m, s.random.between(10, 100));
  s.wait();
  return s.finish(recorded ? "binding changed by hand" : "binding changed past the ledger", m.node, Cause::kAdminEdit);
}

Incident token(Stage& s) {
  Machine& m = s.settled(s.host_name());
  const int how = static_cast<int>(s.random.below(4));
  Record change;
  auto& tokens = s.server.store->tokens;
  const char* const kHow[] = {"rotated", "expired", "revoked", "never right"};
  if (how == 3) {
    m.token = "t-other-cluster";
  } else {
    tokens["t-agent"] = how == 0   ? TokenResult::superseded
                        : how == 1 ? TokenResult::expired
                                   : TokenResult::revoked;
    if (how == 0) change.event = TokenRotated{"t-next", "agent", {}, "root@srv"};
    if (how == 1) change.event = TokenExpired{"t-agent", "agent", s.world.now(), "ledger serve"};
    if (how == 2) change.event = TokenRevoked{"t-agent", "agent", {}, "root@srv"};
    s.world.write(s.server, std::move(change));
  }
  s.world.run_for(s.random.between(kMinute, 3 * kDay));
  s.world.restart(m, s.random.between(10, 100));
  s.wait();
  return s.finish(std::string("token ") + kHow[how], m.node, Cause::kToken, kBindingMustStay);
}

Incident stale_certificate(Stage& s) {
  Machine& m = s.settled(s.host_name());
  m.generation = "G6";
  s.world.stop(m);
  s.world.run_for(s.random.between(kMinute, kHour));
  s.world.release(s.server, m.node, s.random.chance(0.5) ? "operator" : "node_deleted", "root@srv");
  s.world.run_for(s.random.between(kMinute, kDay));
  m.sends_certificate_only = true;
  s.world.start(m);
  s.wait();
  return s.finish("certificate of a released node", m.node, Cause::kStaleCert, kBindingMustStay);
}

Incident ca_changed(Stage& s) {
  Machine& m = s.settled(s.host_name());
  s.world.server_stopped(s.server);
  s.world.run_for(s.random.between(kMinute, kHour));
  s.world.epoch(s.server, "ca_changed");
  s.world.server_started(s.server, true, "ca-2");
  m.tls_alert = s.random.chance(0.5) ? "unknown_ca" : "bad_certificate";
  s.world.restart(m, s.random.between(1, 100));
  s.wait();
  return s.finish("server came up with another CA", m.node, Cause::kCa, kBindingMustStay);
}

Incident clock(Stage& s) {
  Machine& m = s.settled(s.host_name());
  m.tls_alert = s.random.chance(0.5) ? "certificate_expired" : "bad_certificate";
  s.world.restart(m, s.random.between(10, 100));
  s.wait();
  Incident out = s.finish("the machine's clock is wrong", m.node, Cause::kClock, kBindingMustStay);
  out.undecided_is_right = true;  // an alert does not say whose clock
  return out;
}

Incident endpoint(Stage& s) {
  Machine& m = s.settled(s.host_name());
  s.world.stop(m);
  s.world.run_for(s.random.between(10, kHour));
  const bool drops_credentials = s.random.chance(0.5);
  const std::string middle = drops_credentials ? "10.0.0.254" : m.seen_as;
  const std::uint64_t requests = 4 + s.random.below(40);
  for (std::uint64_t i = 0; i < requests; ++i) {
    s.world.run_for(s.random.between(5, 10));
    Record refused;
    refused.source = middle + ":" + std::to_string(40000 + i);
    refused.auth.method = "none";
    if (drops_credentials) {
      refused.node = m.node;
      refused.endpoint = "/v1-k3s/serving-kubelet.crt";
      refused.event = TokenRejected{401, "missing", ""};
    } else {
      refused.event = TlsFailed{"http request", false};
    }
    s.world.write(s.server, std::move(refused));
  }
  Incident out = s.finish(drops_credentials ? "a proxy drops the credential" : "something ends TLS in between", m.node,
                          Cause::kEndpoint, kBindingMustStay);
  out.undecided_is_right = true;  // absence, and what others send
  return out;
}

Incident server_state(Stage& s) {
  Machine& m = s.settled(s.host_name());
  s.keep_to_first(m);
  if (s.random.chance(0.3)) {
    // k3s whose cache is not complete: it refuses what it accepted, until it is.
    s.world.stop(m);
    s.world.server_started(s.server, true);
    const std::uint64_t refusals = 1 + s.random.below(6);
    for (std::uint64_t i = 0; i < refusals; ++i) {
      s.world.run_for(s.random.between(5, 10));
      Record refused;
      refused.node = m.node;
      refused.source = m.seen_as + ":40000";
      refused.event = PasswordRejected{{m.password}, {}, 403};
      s.world.write(s.server, std::move(refused));
    }
    return s.finish("cache not complete after a start", m.node, Cause::kSrvState, kBindingMustStay);
  }
  s.world.server_started(s.server, false);
  s.server.unavailable = true;
  s.world.restart(m, s.random.between(1, 60));
  s.world.run_for(s.random.between(2 * kMinute, 20 * kMinute));
  return s.finish("store not available", m.node, Cause::kSrvState, kBindingMustStay);
}

Incident overload(Stage& s) {
  Machine& m = s.settled(s.host_name());
  s.keep_to_first(m);
  s.server.overloaded = true;
  for (int i = 0; i < 20; ++i) {
    Machine& other = s.machine(fmt::format("crowd-{}", i));
    other.server = &s.server;
    s.world.after(s.random.between(0, 20), [&s, &other] { s.world.start(other); });
  }
  s.world.restart(m, 5);
  // Asked while it is being turned away.
  const auto turned_away = [&] {
    return !m.registered && std::any_of(s.world.log.begin(), s.world.log.end(), [&](const Record& record) {
      return record.node == m.node && as<RequestRejected>(record) != nullptr;
    });
  };
  while (!turned_away()) {
    if (m.registered) s.world.restart(m, 5);
    s.world.run_for(6);
  }
  return s.finish("a crowd at once", m.node, Cause::kOverload, kBindingMustStay);
}

Incident lost_reply(Stage& s) {
  Machine& m = s.settled(s.host_name());
  s.world.stop(m);
  m.opens_tunnel = false;
  const std::uint64_t rounds = 4 + s.random.below(20);
  for (std::uint64_t i = 0; i < rounds; ++i) {
    s.world.start(m);
    s.world.run_for(s.random.between(14, 26));
  }
  return s.finish("the answers do not arrive", m.node, Cause::kLostReply, kBindingMustStay);
}

Incident nothing_wrong(Stage& s) {
  Machine& m = s.settled(s.host_name());
  const int how = static_cast<int>(s.random.below(7));
  if (how == 4) {
    m.tls_alert = s.random.chance(0.5) ? "certificate_expired" : "bad_certificate";
    s.world.restart(m, s.random.between(10, 100));
    s.world.run_for(s.random.between(kMinute, 20 * kMinute));
    m.tls_alert.clear();
    s.world.run_for(s.random.between(kMinute, kDay));
  } else if (how == 5) {
    s.world.stop(m);
    s.move(m);
    s.world.run_for(s.random.between(30, kHour));
    s.world.start(m);
    s.world.run_for(s.random.between(kMinute, kDay));
  } else if (how == 6) {
    m.generation = "G6";
    s.world.release(s.server, m.node, "operator", "root@srv");
    s.world.stop(m);
    s.world.run_for(s.random.between(kMinute, kHour));
    m.password = s.world.new_password();
    Record stale;
    stale.node = m.node;
    stale.source = m.seen_as + ":41000";
    stale.auth = {.method = "certificate", .principal = "system:node:" + m.node, .token = {}, .serial = m.certificate};
    stale.event = RequestRejected{401, "node_unknown"};
    s.world.write(s.server, std::move(stale));
    s.world.start(m);
    s.world.run_for(s.random.between(kMinute, kDay));
  } else if (how == 1) {
    s.rebuild(m, s.random.between(5 * kMinute, kHour));
    s.world.run_for(s.random.between(kMinute, kHour));
    s.world.accept(s.server, m.node, m.password);
    s.world.run_for(s.random.between(kMinute, kDay));
  } else if (how == 2) {
    const std::string old = m.password;
    s.rebuild(m, s.random.between(5 * kMinute, kHour));
    s.world.run_for(s.random.between(kMinute, kHour));
    m.password = old;
    s.world.restart(m, 20);
    s.world.run_for(s.random.between(5 * kMinute, kDay));
  } else if (how == 3) {
    s.world.release(s.server, m.node, "operator", "root@srv");
    s.rebuild(m, s.random.between(5 * kMinute, kHour));
    s.world.run_for(s.random.between(5 * kMinute, kDay));
  }
  const char* const kHow[] = {"healthy",           "rebuilt and accepted",
                              "password put back", "released and rebuilt",
                              "clock set right",   "a new lease",
                              "stale certificate, then its token"};
  return s.finish(kHow[how], m.node, Cause::kNone, {});
}

struct Play {
  Cause cause;
  Incident (*play)(Stage&);
};
constexpr std::array kPlays = {
    Play{Cause::kNone, nothing_wrong},       Play{Cause::kRebuilt, rebuilt},
    Play{Cause::kStaleBind, stale_binding},  Play{Cause::kZombie, zombie},
    Play{Cause::kOrphanBind, orphan},        Play{Cause::kPoolReuse, pool_reuse},
    Play{Cause::kEphemeral, ephemeral},      Play{Cause::kDupName, duplicate_name},
    Play{Cause::kCloned, cloned},            Play{Cause::kNameDrift, name_drift},
    Play{Cause::kRestored, restored},        Play{Cause::kSrvSplit, servers_split},
    Play{Cause::kAdminEdit, admin_edit},     Play{Cause::kCredFile, credential_file},
    Play{Cause::kToken, token},              Play{Cause::kStaleCert, stale_certificate},
    Play{Cause::kCa, ca_changed},            Play{Cause::kClock, clock},
    Play{Cause::kEndpoint, endpoint},        Play{Cause::kSrvState, server_state},    Play{Cause::kOverload, overload},
    Play{Cause::kLostReply, lost_reply},
};

}  // namespace

std::span<const Cause> played_causes() {
  static const auto causes = [] {
    std::array<Cause, kPlays.size()> out{};
    for (std::size_t i = 0; i < kPlays.size(); ++i) out[i] = kPlays[i].cause;
    return out;
  }();
  return causes;
}

Incident play(Cause cause, std::uint64_t seed) {
  for (const Play& each : kPlays) {
    if (each.cause != cause) continue;
    Stage stage(seed * 64 + static_cast<std::uint64_t>(cause));
    return each.play(stage);
  }
  fatal("a cause that is not played");
}

std::string_view name_of(Loss loss) {
  switch (loss) {
    case Loss::none: return "none";
    case Loss::most_fields: return "most fields";
    case Loss::tunnels: return "tunnels";
    case Loss::addresses: return "addresses";
    case Loss::beginning: return "beginning";
    case Loss::records: return "records";
  }
  fatal("a Loss without a name");
}

namespace {

Record with_few_fields(const Record& record) {
  Record out;
  out.seq = record.seq, out.time = record.time, out.event = record.event, out.node = record.node;
  out.source = host_of(record.source);
  out.count = record.count, out.first_time = record.first_time;
  if (auto* rejected = std::get_if<PasswordRejected>(&out.event)) rejected->bound = {};
  return out;
}

bool is_lost_with_tunnels(const Record& record) {
  return as<TunnelOpened>(record) != nullptr || as<TunnelClosed>(record) != nullptr ||
         as<CertificateIssued>(record) != nullptr || as<ServerStarted>(record) != nullptr;
}

}  // namespace

namespace {

// Nobody is refused in what is left: then that is the answer, whatever happened before.
void allow_none_where_nothing_is_left(Incident& incident) {
  std::set<std::string, std::less<>> places;
  for (const Record& record : incident.log)
    if (record.node == incident.node) places.emplace(host_of(record.source));
  const bool refused = std::any_of(incident.log.begin(), incident.log.end(), [&](const Record& record) {
    const auto* tls = as<TlsFailed>(record);
    if (tls != nullptr && tls->trust_probe.value_or(false)) return false;
    const bool its_own = record.node.empty() ? places.count(host_of(record.source)) != 0 : record.node == incident.node;
    return its_own && is_refusal(record.kind()) && incident.torn.count(record.seq) == 0;
  });
  if (!refused) incident.also_right.insert(Cause::kNone);
}

}  // namespace

std::string Incident::lines() const {
  std::string out;
  for (const Record& record : log) {
    std::string line = to_json_line(record);
    if (torn.count(record.seq) != 0) line.resize(line.size() / 2);
    out += line + "\n";
  }
  return out;
}

void lose(Incident& incident, Loss loss, std::uint64_t seed) {
  if (loss == Loss::none) return;
  incident.undecided_is_right = true;
  // Copies are seen by their addresses alone, and nothing is refused.
  if (incident.truth == Cause::kCloned) incident.also_right = {Cause::kNone};
  // That the first join was not finished is seen by tunnels and certificates; that the machine was rebuilt is true.
  if (incident.truth == Cause::kOrphanBind) incident.also_right = {Cause::kRebuilt};
  std::vector<Record>& log = incident.log;
  switch (loss) {
    case Loss::none: break;
    case Loss::most_fields:
      for (Record& record : log) record = with_few_fields(record);
      break;
    case Loss::tunnels: std::erase_if(log, is_lost_with_tunnels); break;
    case Loss::addresses:
      for (Record& record : log) {
        if (!record.source.empty()) record.source = "10.9.9.9";
        record.claimed.clear();
      }
      break;
    case Loss::beginning: {
      Random random(seed);
      const auto cut = static_cast<std::ptrdiff_t>(random.below(std::max<std::size_t>(log.size() / 2, 1)));
      log.erase(log.begin(), log.begin() + cut);
      break;
    }
    case Loss::records: {
      Random random(seed);
      for (const Record& record : log)
        if (random.chance(0.1)) incident.torn.insert(record.seq);
      break;
    }
  }
  allow_none_where_nothing_is_left(incident);
}

}  // namespace ledger::sim
