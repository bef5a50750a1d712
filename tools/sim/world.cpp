#include "tools/sim/world.h"

#include <algorithm>

#include "ledger/event_json.h"

namespace ledger::sim {
namespace {

constexpr double kRetry_s = 5;
constexpr double kTunnelSilence_s = 75;

// The counter keeps its windows in no order of its own; what falls due at one moment is written in this one.
std::vector<Record> in_order(std::vector<Record> counts) {
  std::vector<std::pair<std::string, std::size_t>> keys;
  for (std::size_t i = 0; i < counts.size(); ++i) keys.emplace_back(to_json_line(counts[i]), i);
  std::sort(keys.begin(), keys.end());
  std::vector<Record> sorted;
  for (const auto& [key, i] : keys) sorted.push_back(std::move(counts[i]));
  return sorted;
}

}  // namespace

std::string Random::hex(std::size_t digits) {
  std::string out;
  while (out.size() < digits) out += "0123456789abcdef"[below(16)];
  return out;
}

World::World(std::uint64_t seed, Time start) : random(seed), now_(start), start_(start) {}

Instant World::instant() const {
  return {now_, std::chrono::steady_clock::time_point(std::chrono::microseconds(now_.micros - start_.micros))};
}

// ---- time ------------------------------------------------------------------------------------------------

void World::after(double seconds, std::function<void()> action) {
  actions_.push({Time{now_.micros + static_cast<std::int64_t>(seconds * 1e6)}, ++order_, std::move(action)});
}

void World::run_for(double seconds) {
  const Time until{now_.micros + static_cast<std::int64_t>(seconds * 1e6)};
  while (!actions_.empty() && actions_.top().at <= until) {
    const Action next = actions_.top();
    actions_.pop();
    now_ = next.at;
    write_due();
    next.run();
  }
  now_ = until;
  write_due();
}

void World::write_due() {
  for (Record& count : in_order(storm_.due(instant()))) put(std::move(count));
}

void World::settle() {
  for (Record& count : in_order(storm_.settle_all())) put(std::move(count));
}

// ---- the log ---------------------------------------------------------------------------------------------

void World::put(Record record) {
  record.seq = log.size() + 1;
  if (!record.time.known()) record.time = now_;
  // A count is written later than what it counts; the log's times never go back.
  if (!log.empty()) record.time = std::max(record.time, log.back().time);
  log.push_back(std::move(record));
}

void World::append(Server& server, Record record) {
  record.server = server.id;
  record.epoch = epoch_;
  record.time = now_;
  for (Record& count : in_order(storm_.ended_by(record))) put(std::move(count));
  const bool countable = StormCounter::countable(record.kind());
  if (countable && storm_.offer(record, instant()) != 0) return;
  for (Record& count : in_order(storm_.refusals_so_far(record))) put(std::move(count));
  put(std::move(record));
  if (countable) storm_.written(log.back().seq);
  server.store->nodes.apply(log.back());
}

void World::write(Server& server, Record record) { append(server, std::move(record)); }

// ---- servers ---------------------------------------------------------------------------------------------

Server& World::add_server(std::shared_ptr<Store> store) {
  servers_.push_back(std::make_unique<Server>());
  Server& server = *servers_.back();
  server.id = "srv-" + std::to_string(servers_.size()) + "-" + random.hex(4);
  server.store = store != nullptr ? std::move(store) : std::make_shared<Store>();
  server.store->tokens["t-agent"] = TokenResult::accepted;
  return server;
}

void World::server_started(Server& server, bool clean, const std::string& ca) {
  Record record;
  record.event = ServerStarted{.version = "0.1.0", .client_ca = ca, .server_ca = ca, .ledger = "sim", .clean = clean};
  append(server, std::move(record));
  reopen_tunnels(server);
}

// No connection outlives the server's process, and nobody is left to record its end.
void World::reopen_tunnels(Server& server) {
  for (const auto& each : machines_) {
    Machine& machine = *each;
    if (machine.server != &server || machine.tunnel.empty()) continue;
    machine.tunnel.clear();
    after(random.between(2, 15), [this, &machine, number = machine.start_number] {
      if (machine.tls_alert.empty() && machine.tunnel.empty()) open_tunnel(machine, number);
    });
  }
}

void World::server_stopped(Server& server) {
  Record record;
  record.event = ServerStopped{"signal"};
  append(server, std::move(record));
}

void World::epoch(Server& server, const std::string& cause) {
  ++epoch_;
  Record record;
  record.event = EpochStarted{.cause = cause, .head_before = static_cast<std::int64_t>(log.size()), .head_after = 0};
  append(server, std::move(record));
}

void World::release(Server& server, const std::string& node, const std::string& by, const std::string& actor) {
  const NodeState* state = server.store->nodes.find(node);
  Record record;
  record.node = node;
  record.event = BindingReleased{actor, by, state != nullptr ? state->bound : Fingerprint{}};
  append(server, std::move(record));
}

void World::accept(Server& server, const std::string& node, const std::string& fingerprint, const std::string& by) {
  const NodeState* state = server.store->nodes.find(node);
  Record record;
  record.node = node;
  record.event =
      BindingChanged{"root@srv", by, state != nullptr ? state->bound : Fingerprint{}, Fingerprint{fingerprint}};
  append(server, std::move(record));
}

void World::node_created(Server& server, const std::string& node) {
  Record record;
  record.node = node;
  record.event = NodeObjectCreated{"watch-nodes"};
  append(server, std::move(record));
}

void World::node_deleted(Server& server, const std::string& node, const std::string& actor) {
  Record record;
  record.node = node;
  record.event = NodeObjectDeleted{actor};
  append(server, std::move(record));
}

// ---- machines --------------------------------------------------------------------------------------------

Machine& World::add_machine(const std::string& node, const std::string& address) {
  machines_.push_back(std::make_unique<Machine>());
  Machine& machine = *machines_.back();
  machine.node = node;
  machine.address = machine.seen_as = address;
  machine.password = new_password();
  machine.server = servers_.front().get();
  return machine;
}

void World::start(Machine& machine) {
  if (machine.running) stop(machine);
  machine.running = true;
  machine.registered = false;
  try_until_in(machine, ++machine.start_number);
}

void World::stop(Machine& machine, bool abruptly) {
  machine.running = false;
  ++machine.start_number;
  if (machine.tunnel.empty()) return;
  if (!abruptly) return close_tunnel(machine, "closed by the agent");
  const std::string session = machine.tunnel;
  after(kTunnelSilence_s, [this, &machine, session] {
    if (machine.tunnel == session) close_tunnel(machine, "silent for 75 s");
  });
}

void World::restart(Machine& machine, double pause_s) {
  stop(machine);
  after(pause_s, [this, &machine] { start(machine); });
}

void World::try_until_in(Machine& machine, std::uint64_t start_number) {
  if (machine.start_number != start_number) return;
  if (ask(machine)) {
    machine.registered = true;
    if (machine.opens_tunnel)
      after(random.between(3, 20), [this, &machine, start_number] { open_tunnel(machine, start_number); });
    return;
  }
  const bool jitter = machine.generation == "G6" || machine.generation == "G7";
  after(jitter ? random.between(kRetry_s, 2 * kRetry_s) : kRetry_s,
        [this, &machine, start_number] { try_until_in(machine, start_number); });
}

Record World::request_record(Machine& machine, const char* endpoint) {
  Record record;
  record.request_id = random.hex(16);
  record.source = machine.seen_as + ":" + std::to_string(32768 + random.below(28000));
  record.endpoint = endpoint;
  record.generation = machine.generation == "G1" ? "G1" : machine.generation == "G7" ? "G7" : "";
  return record;
}

// False: refused, and recorded.
bool World::authenticate(Machine& machine, Record& record, const char* endpoint) {
  Server& server = *machine.server;
  const auto token = server.store->tokens.find(machine.token);
  const TokenResult result = token != server.store->tokens.end() ? token->second : TokenResult::wrong_secret;
  record.auth = {.method = "basic", .principal = "node", .token = {}, .serial = {}};
  const bool known_once = result == TokenResult::expired || result == TokenResult::revoked ||
                          result == TokenResult::superseded;
  if (result == TokenResult::accepted) {
    record.auth.token = machine.token;
    return true;
  }
  Record refused = record;
  refused.endpoint = endpoint;
  refused.event = TokenRejected{401, std::string(reason_name(result)), known_once ? machine.token : ""};
  append(server, std::move(refused));
  return false;
}

bool World::ask(Machine& machine) {
  Server& server = *machine.server;
  Record probe = request_record(machine, "");
  probe.generation.clear();
  if (!machine.tls_alert.empty()) {
    probe.event = TlsFailed{machine.tls_alert, false};
    append(server, std::move(probe));
    return false;
  }
  probe.event = TlsFailed{"bad_certificate", true};
  append(server, std::move(probe));
  for (const char* endpoint : {"/v1-k3s/config", "/v1-k3s/client-ca.crt", "/v1-k3s/server-ca.crt"}) {
    Record document = request_record(machine, endpoint);
    if (!authenticate(machine, document, endpoint)) return false;
    document.event = TokenAccepted{};
    append(server, std::move(document));
  }
  return certificate_request(machine, "serving-kubelet") == Answer::in &&
         certificate_request(machine, "client-kubelet") == Answer::in;
}

World::Answer World::certificate_request(Machine& machine, const char* purpose) {
  Server& server = *machine.server;
  const bool serving = std::string_view(purpose) == "serving-kubelet";
  Record base = request_record(machine, serving ? "/v1-k3s/serving-kubelet.crt" : "/v1-k3s/client-kubelet.crt");
  base.node = machine.node;
  if (machine.generation != "G1") base.claimed = {machine.address};
  const auto refuse = [&](Event event) {
    Record record = base;
    record.event = std::move(event);
    append(server, std::move(record));
    return Answer::again;
  };
  if (server.unavailable) return refuse(RequestRejected{503, "store_unavailable"});
  if (server.overloaded && random.chance(0.7)) return refuse(RequestRejected{429, "overloaded"});
  const NodeState* known = server.store->nodes.find(machine.node);
  const NodeState state = known != nullptr ? *known : NodeState{};
  if (machine.sends_certificate_only) {
    base.auth = {.method = "certificate",
                 .principal = "system:node:" + machine.node,
                 .token = {},
                 .serial = machine.certificate};
    if (!state.is_bound()) return refuse(RequestRejected{401, "node_unknown"});
  } else if (!authenticate(machine, base, base.endpoint.c_str())) {
    return Answer::again;
  }
  Evidence evidence{.token = TokenResult::accepted,
                    .headers = machine.password.empty() ? HeaderResult::node_password_missing : HeaderResult::complete,
                    .node = state,
                    .presented = {machine.password}};
  const Ruling ruling = decide(evidence);
  if (ruling == Ruling::refuse_headers) return refuse(RequestRejected{400, "node_password_missing"});
  {
    Record accepted = base;
    accepted.event = TokenAccepted{};
    append(server, std::move(accepted));
  }
  if (ruling == Ruling::refuse_mismatch || ruling == Ruling::refuse_held)
    return refuse(PasswordRejected{{machine.password}, state.bound, 403});
  Record password = base;
  if (ruling == Ruling::admit_first)
    password.event = PasswordStored{{machine.password}};
  else
    password.event = PasswordVerified{{machine.password}};
  append(server, std::move(password));
  Record certificate = base;
  const std::string serial = random.hex(16);
  certificate.event = CertificateIssued{.purpose = purpose,
                                        .subject = serving ? "CN=" + machine.node : "CN=system:node:" + machine.node,
                                        .serial = serial,
                                        .sha256 = random.hex(64),
                                        .not_before = start_,
                                        .not_after = now_.plus_seconds(365 * 86400),
                                        .key = "generated",
                                        .public_key = random.hex(64)};
  append(server, std::move(certificate));
  if (!serving) machine.certificate = serial;
  return Answer::in;
}

// ---- tunnels ---------------------------------------------------------------------------------------------

void World::open_tunnel(Machine& machine, std::uint64_t start_number) {
  if (machine.start_number != start_number || !machine.running) return;
  Record record = request_record(machine, "/v1-k3s/connect");
  record.node = machine.node;
  record.auth = {.method = "certificate",
                 .principal = "system:node:" + machine.node,
                 .token = {},
                 .serial = machine.certificate};
  machine.tunnel = record.request_id;
  machine.tunnel_since = now_;
  record.event = TunnelOpened{record.request_id};
  append(*machine.server, std::move(record));
}

void World::close_tunnel(Machine& machine, const std::string& cause) {
  Record record = request_record(machine, "/v1-k3s/connect");
  record.request_id = machine.tunnel;
  record.node = machine.node;
  record.event = TunnelClosed{machine.tunnel, cause, seconds_between(machine.tunnel_since, now_)};
  machine.tunnel.clear();
  append(*machine.server, std::move(record));
}

}  // namespace ledger::sim
