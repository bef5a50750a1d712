#include "api/server.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/json.hpp>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "api/checkpoint_link.h"
#include "api/cluster_config.h"
#include "api/listener.h"
#include "api/node_watch.h"
#include "api/service.h"
#include "api/upstream.h"
#include "ledger/adopt.h"
#include "ledger/archivist.h"
#include "ledger/checkpoint_keeper.h"
#include "ledger/credentials.h"
#include "ledger/hash_checker.h"
#include "ledger/issuer.h"
#include "ledger/ledger.h"
#include "ledger/token_life.h"

namespace ledger::api {

namespace asio = boost::asio;

namespace {

constexpr std::chrono::seconds kStopGrace{10};
constexpr std::chrono::hours kRenewalCheck{6};
constexpr std::int64_t kRenewBefore_s = 90 * 86400;  // as k3s' dynamiclistener
constexpr std::chrono::seconds kLearnEvery{30}, kLearnFirst{2};  // the cluster's config document
constexpr std::size_t kMostNames = 256;  // of the listener's certificate
constexpr std::uint16_t kKubeApiPort = 6443;
constexpr rlim_t kSpareDescriptors = 640;            // RocksDB's files and a few more

// Addresses of this machine that others may reach it by, loopback and link-local left out.
std::vector<std::string> own_addresses() {
  std::vector<std::string> found;
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return found;
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_UP) == 0) continue;
    asio::ip::address address;
    if (one->ifa_addr->sa_family == AF_INET) {
      const auto* v4 = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
      address = asio::ip::address_v4(ntohl(v4->sin_addr.s_addr));
    } else if (one->ifa_addr->sa_family == AF_INET6) {
      const auto* v6 = reinterpret_cast<const sockaddr_in6*>(one->ifa_addr);
      asio::ip::address_v6::bytes_type bytes;
      std::copy(std::begin(v6->sin6_addr.s6_addr), std::end(v6->sin6_addr.s6_addr), bytes.begin());
      address = asio::ip::address_v6(bytes);
    } else {
      continue;
    }
    if (!address.is_loopback() && !(address.is_v6() && address.to_v6().is_link_local()))
      found.push_back(address.to_string());
  }
  freeifaddrs(all);
  std::stable_sort(found.begin(), found.end(), [](const std::string& a, const std::string& b) {
    return (a.find(':') == std::string::npos) > (b.find(':') == std::string::npos);  // IPv4 first
  });
  return found;
}

std::string host_name() {
  char name[256] = {};
  if (gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "server";
  return printable(to_lower(name), 100);
}

Result<void> make_data_dir(const std::filesystem::path& dir) {
  std::error_code error;
  const bool existed = std::filesystem::exists(dir, error);
  std::filesystem::create_directories(dir, error);
  if (!error && !existed) std::filesystem::permissions(dir, std::filesystem::perms::owner_all, error);
  if (!error && access(dir.c_str(), R_OK | W_OK | X_OK) != 0) error = std::error_code(errno, std::generic_category());
  if (error)
    return Error{Errc::io, "cannot use the data directory " + dir.string() + ": " + error.message() +
                               "; run as its owner (root), or name another with --data-dir"};
  // Keys and tokens in it are 0600, but who may write the directory can put others in their place.
  struct stat info {};
  constexpr mode_t kWritableByOthers = S_IWGRP | S_IWOTH;
  if (stat(dir.c_str(), &info) == 0 && ((info.st_mode & kWritableByOthers) != 0 || info.st_uid != geteuid()))
    spdlog::warn("the data directory {} can be written by others than the user of this server, who could put keys and "
                 "records of theirs there: chown it, and chmod 0700",
                 dir.string());
  return {};
}

// Each connection is a descriptor. Takes what the hard limit gives and returns how many connections fit.
std::size_t raise_descriptor_limit(std::size_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  const rlim_t needed = wanted + kSpareDescriptors;
  if (limit.rlim_cur < needed) {
    limit.rlim_cur = std::min<rlim_t>(needed, limit.rlim_max);
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= needed) return wanted;
  const std::size_t fits = limit.rlim_cur > kSpareDescriptors + 64 ? limit.rlim_cur - kSpareDescriptors : 64;
  spdlog::warn("the limit of open files ({}) allows {} connections; raise it (LimitNOFILE=) for more",
               limit.rlim_cur, fits);
  return fits;
}

// k3s' cred/ipsec.psk: agents of every release want one, hex of 32 bytes or more.
Result<std::string> ipsec_psk(const std::filesystem::path& data_dir) {
  const std::filesystem::path path = data_dir / "cred" / "ipsec.psk";
  const Result<std::string> read = read_file(path, 1024);
  if (read) {
    const std::string_view psk = trim(*read);
    if (psk.size() >= 64 && psk.size() % 2 == 0 && psk.find_first_not_of("0123456789abcdefABCDEF") == psk.npos)
      return std::string(psk);
    return Error{Errc::invalid, path.string() + " does not hold the hex digits of a key; restore it from a backup, or " +
                                    "remove it to have a new one made"};
  }
  if (read.error().code != Errc::not_found) return read.error();
  const std::string fresh = random_hex(48);
  if (const Result<void> written = write_file(path, fresh + "\n", 0600); !written) return written.error();
  return fresh;
}

std::string url_of(const std::string& address, std::uint16_t port) {
  const bool v6 = address.find(':') != std::string::npos;
  return "https://" + (v6 ? "[" + address + "]" : address) + ":" + std::to_string(port);
}

std::filesystem::path server_file(const std::filesystem::path& data_dir) { return data_dir / "server.json"; }

}  // namespace

struct Server::State {
  ServerOptions options;
  std::string url;        // as agents are told
  std::string local_url;  // as commands on this machine reach us
  std::mutex names_mutex;
  std::vector<std::string> listener_names;  // guarded by names_mutex after the start
  TrustedProxies proxies;

  std::optional<Credentials> credentials;
  std::optional<Issuer> issuer;
  std::unique_ptr<Ledger> ledger;
  std::unique_ptr<CheckpointKeeper> checkpoints;
  std::unique_ptr<Archivist> archivist;
  std::optional<HashStore> hash_store;
  std::unique_ptr<HashChecker> hashes;
  std::optional<AgentConfig> config;
  std::unique_ptr<Service> service;

  asio::io_context io;
  std::unique_ptr<Upstreams> upstreams;
  std::unique_ptr<ClusterConfig> cluster;  // with upstreams
  std::vector<std::unique_ptr<Listener>> listeners;  // of the supervisor; and, when split, of the kube API
  std::vector<std::thread> threads;
  std::optional<asio::signal_set> signals;
  std::optional<asio::steady_timer> second, renewal, learning;
  TokenSweep sweep;

  std::mutex mutex;
  std::condition_variable stop_asked;
  std::string stop_reason;             // guarded by mutex; not empty: stop
  std::optional<Error> failure;        // guarded by mutex
  std::atomic<bool> stop_watching{false};
  std::thread node_watcher;
  Time certificate_ends;               // of the listener; guarded by names_mutex after the start

  void ask_stop(const std::string& reason) {
    {
      const std::lock_guard lock(mutex);
      if (stop_reason.empty()) stop_reason = reason;
    }
    stop_asked.notify_all();
  }

  Result<void> open_ledger();
  Result<void> open_checkpoints();
  Result<void> open_hashes();
  Result<void> describe_cluster();
  Result<void> open_upstreams();
  Result<Mode> settle_mode();
  void note_upstream(const UpstreamChange& change);
  void take_names(const std::vector<std::string>& names);
  Result<void> note_start();
  Result<void> renew_certificate();
  Result<void> listen();
  Result<void> listen(std::uint16_t port, const Listener::Limits& limits, Door door);
  Ports ports() const {
    const std::uint16_t own = listeners.back()->port();
    return {options.external_kube_api ? options.https_port : own, listeners.front()->port()};
  }
  std::size_t connections() const;
  void serve();
  void every_second();
  void learn_cluster();
  bool ends_soon() {
    const std::lock_guard lock(names_mutex);
    return Time::now().plus_seconds(kRenewBefore_s) > certificate_ends;
  }
  void watch_certificate();
  Result<void> watch_nodes();
  void drain();
};

// ---- start -----------------------------------------------------------------------------------------------

Result<void> Server::State::open_ledger() {
  Ledger::Options ledger_options;
  ledger_options.log.dir = options.data_dir / "events";
  ledger_options.log.on_tree_progress = [](std::uint64_t done, std::uint64_t total) {
    if (done == total || done % (1 << 18) == 0)
      spdlog::info("making the Merkle tree of this log, once: {} of {} records", done, total);
  };
  ledger_options.server_name = options.server_name.empty() ? host_name() : options.server_name;
  ledger_options.min_free_bytes = options.min_free_bytes;
  ledger_options.on_failure = [this](const Error& error) {
    {
      const std::lock_guard lock(mutex);
      failure = error;
    }
    ask_stop("storage failure");
  };
  Result<std::unique_ptr<Ledger>> opened = Ledger::open(std::move(ledger_options));
  if (!opened) return opened.error();
  ledger = std::move(*opened);
  return {};
}

// Says what a checkpoint saw that this log has not, before anything is done with this log.
Result<void> Server::State::open_checkpoints() {
  CheckpointKeeper::Options keeping;
  keeping.data_dir = options.data_dir;
  keeping.every_records = options.checkpoint_every_records;
  keeping.every_seconds = options.checkpoint_every_seconds;
  keeping.log = [](bool is_problem, const std::string& line) {
    spdlog::log(is_problem ? spdlog::level::warn : spdlog::level::info, "{}", line);
  };
  std::string ca;
  if (!options.checkpoint_ca.empty()) {
    Result<std::string> read = read_file(options.checkpoint_ca);
    if (!read) return read.error();
    ca = std::move(*read);
  }
  for (const std::string& to : options.checkpoint_to) {
    Result<CheckpointPlace> place =
        to.find("://") == to.npos ? Result<CheckpointPlace>(file_place(to)) : https_place(to, ca);
    if (!place) return Error{place.error().code, "--checkpoint-to: " + place.error().message};
    keeping.places.push_back(std::move(*place));
  }
  for (const std::string& text : options.witnesses) {
    Result<CheckpointWitness> witness = https_witness(text, ca);
    if (!witness) return Error{witness.error().code, "--witness: " + witness.error().message};
    keeping.witnesses.push_back(std::move(*witness));
  }
  Result<std::unique_ptr<CheckpointKeeper>> opened = CheckpointKeeper::open(std::move(keeping), *ledger);
  if (!opened) return opened.error();
  checkpoints = std::move(*opened);
  const Result<bool> noticed = checkpoints->notice_past();
  if (!noticed) return noticed.error();
  return {};
}

// Hashes of k3s that belong to bindings of the past are good for nothing but to be attacked: they go.
Result<void> Server::State::open_hashes() {
  Result<HashStore> opened = HashStore::open(options.data_dir);
  if (!opened) return opened.error();
  hash_store.emplace(std::move(*opened));
  const Result<void> compacted = hash_store->compact([this](std::string_view node) { return ledger->find(node); });
  if (!compacted) return compacted.error();
  HashChecker::Options checks;
  checks.keep = options.keep_k3s_hash;
  hashes = std::make_unique<HashChecker>(*hash_store, checks);
  return {};
}

Result<void> Server::State::describe_cluster() {
  std::vector<std::string> addresses = own_addresses();
  boost::system::error_code error;
  const bool everywhere = asio::ip::make_address(options.listen, error).is_unspecified();
  if (options.advertise_address.empty()) {
    options.advertise_address = addresses.empty() ? "127.0.0.1" : addresses.front();
    if (!everywhere) options.advertise_address = options.listen;
  }
  asio::ip::make_address(options.advertise_address, error);
  if (error)
    return Error{Errc::invalid,
                 "--advertise-address " + printable(options.advertise_address, 60) + " is not an IP address"};
  const Result<std::string> psk = ipsec_psk(options.data_dir);
  if (!psk) return psk.error();
  Result<AgentConfig> made =
      AgentConfig::make(options.cluster, options.advertise_address, ports(), *psk, *options.program);
  if (!made) return made.error();
  config = std::move(*made);
  url = url_of(options.advertise_address, ports().supervisor);
  local_url = url_of(everywhere ? "127.0.0.1" : options.listen, ports().supervisor);
  listener_names = std::move(addresses);
  listener_names.push_back(options.advertise_address);
  listener_names.push_back(host_name());
  listener_names.insert(listener_names.end(), options.tls_sans.begin(), options.tls_sans.end());
  const Result<std::vector<std::string>> adopted = adopted_listener_names(options.data_dir);
  if (!adopted) return adopted.error();
  listener_names.insert(listener_names.end(), adopted->begin(), adopted->end());
  return {};
}

// ---- in front of others ----------------------------------------------------------------------------------

Result<void> Server::State::open_upstreams() {
  if (options.upstreams.empty()) {
    if (options.mode.value_or(Mode::alone) == Mode::alone) return {};
    return Error{Errc::invalid, "--mode " + std::string(name_of(*options.mode)) +
                                    " needs a server to stand in front of: --upstream https://HOST:6443"};
  }
  if (options.mode == Mode::alone) return Error{Errc::invalid, "--mode alone and --upstream exclude each other"};
  // Without it no kube-apiserver would believe whom we forward for.
  if (!options.external_kube_api)
    if (const auto proven = issuer->issue_front_proxy(Time::now()); !proven) return proven.error();
  Upstreams::Options upstream_options;
  upstream_options.urls = options.upstreams;
  const bool apart = options.upstream_kube_port == 0 && options.program->supervisor_port != 0;
  upstream_options.kubernetes_port = apart ? kKubeApiPort : options.upstream_kube_port;
  upstream_options.on_names = [this](const std::vector<std::string>& names) { take_names(names); };
  upstream_options.on_change = [this](const UpstreamChange& change) { note_upstream(change); };
  Result<std::unique_ptr<Upstreams>> opened = Upstreams::open(io, std::move(upstream_options), *issuer);
  if (!opened) return opened.error();
  upstreams = std::move(*opened);
  return {};
}

void Server::State::note_upstream(const UpstreamChange& change) {
  Record record;
  record.upstream = change.upstream;
  if (change.answers) {
    record.event = UpstreamFound{.seconds = static_cast<double>(change.lasted.count())};
    spdlog::info("the upstream {} answers again", change.upstream);
  } else {
    record.event = UpstreamLost{.cause = printable(change.cause, 300)};
    spdlog::warn("{}", change.cause);
  }
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  ledger->append(std::move(proposal), [](const Result<Committed>&) {});
}

// What agents call the upstream they call us, once we have its place: its names become ours, without a restart.
void Server::State::take_names(const std::vector<std::string>& names) {
  {
    const std::lock_guard lock(names_mutex);
    const std::size_t before = listener_names.size();
    for (const std::string& name : names)
      if (is_listener_name(name) && listener_names.size() < kMostNames &&
          std::find(listener_names.begin(), listener_names.end(), name) == listener_names.end())
        listener_names.push_back(name);
    if (listener_names.size() == before) return;
    spdlog::info("names of the upstream that the listener's certificate gets: {}", listener_names.size() - before);
  }
  if (const Result<void> renewed = renew_certificate(); !renewed)
    spdlog::error("cannot renew the listener's certificate: {}", renewed.error().message);
}

// The mode of this start; a change of it, or of the upstreams, is recorded.
Result<Mode> Server::State::settle_mode() {
  const Result<std::optional<Record>> newest = ledger->log().newest(Kind::mode_changed);
  if (!newest) return newest.error();
  const ModeChanged* const last = *newest ? as<ModeChanged>(**newest) : nullptr;
  const std::optional<Mode> before = last != nullptr ? mode_named(last->mode) : std::nullopt;
  Mode mode = Mode::alone;
  std::string urls;
  if (upstreams != nullptr) {
    mode = options.mode.value_or(before == Mode::enforce ? Mode::enforce : Mode::observe);
    for (const UpstreamStatus& one : upstreams->status()) urls += (urls.empty() ? "" : ",") + one.url;
    if (before && *before != Mode::alone && *before != mode)
      spdlog::warn("the mode was {}; --mode makes it {}", name_of(*before), name_of(mode));
  }
  if (mode == before.value_or(Mode::alone) && urls == (last != nullptr ? last->upstreams : "")) return mode;
  Record record;
  record.event = ModeChanged{.mode = std::string(name_of(mode)),
                             .from = before ? std::string(name_of(*before)) : "",
                             .upstreams = urls,
                             .actor = "ledger serve"};
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  const Result<Committed> done = ledger->append_and_wait(std::move(proposal));
  if (!done) return done.error();
  return mode;
}

Result<void> Server::State::note_start() {
  Record record;
  record.event = ServerStarted{.version = LEDGER_VERSION,
                               .client_ca = issuer->client_ca_sha256(),
                               .server_ca = issuer->server_ca_sha256(),
                               .ledger = ledger->log().id(),
                               .clean = ledger->was_clean()};
  record.note = ledger->upgrade_note();
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  const Result<Committed> committed = ledger->append_and_wait(std::move(proposal));
  if (!committed) return committed.error();
  const Result<std::vector<std::string>> warnings = note_file_tokens(*ledger, *credentials, "ledger serve");
  if (!warnings) return warnings.error();
  for (const std::string& warning : *warnings) spdlog::warn("{}", warning);
  return {};
}

Result<void> Server::State::renew_certificate() {
  const std::lock_guard lock(names_mutex);
  const Result<IssuedCertificate> issued =
      issuer->issue_listener(listener_names, options.cluster.cluster_domain, Time::now());
  if (!issued) return issued.error();
  certificate_ends = issued->not_after;
  for (const auto& listener : listeners)
    if (const auto set = listener->set_certificate(issued->leaf_pem + issued->ca_pem, issued->key_pem); !set)
      return set.error();
  return {};
}

namespace {

// What the operator of a server whose port is taken can do.
const char* option_for(Door door) {
  switch (door) {
    case Door::everything:
      return " with --https-port; beside the cluster's kube-apiserver: --supervisor-port and --external-kube-api";
    case Door::supervisor: return " with --supervisor-port";
    case Door::kubernetes:
      return " with --https-port; if it is the cluster's kube-apiserver, leave the port to it with "
             "--external-kube-api";
  }
  fatal("a door without a port");
}

}  // namespace

Result<void> Server::State::listen() {
  const std::uint16_t usual = options.program->supervisor_port;
  const std::uint16_t supervisor = options.supervisor_port.value_or(usual != 0 ? usual : options.https_port);
  // Two free ports are two.
  const bool split = supervisor != options.https_port || options.supervisor_port == std::uint16_t{0};
  if (options.external_kube_api && (!split || options.https_port == 0))
    return Error{Errc::invalid,
                 "--external-kube-api: the kube-apiserver has --https-port, which must be given then, and "
                 "agents need another port to join at; name it with --supervisor-port (RKE2's is 9345)"};
  const std::size_t count = split && !options.external_kube_api ? 2 : 1;
  Listener::Limits limits;
  limits.max_connections = raise_descriptor_limit(options.max_connections * count) / count;
  if (!split) return listen(options.https_port, limits, Door::everything);
  if (const auto opened = listen(supervisor, limits, Door::supervisor); !opened) return opened;
  if (options.external_kube_api) return {};
  return listen(options.https_port, limits, Door::kubernetes);
}

Result<void> Server::State::listen(std::uint16_t port, const Listener::Limits& limits, Door door) {
  Listener::Callbacks callbacks;
  callbacks.on_request = [this, door](RequestPtr request, Reply reply) {
    service->handle(std::move(request), std::move(reply), door);
  };
  if (upstreams != nullptr) {
    callbacks.upstreams = upstreams.get();
    callbacks.on_head = [this, door](const RequestPtr& head) { return service->route(head, door); };
  }
  callbacks.on_tls_failed = [this](const Peer& peer, const std::string& alert) { service->tls_failed(peer, alert); };
  callbacks.on_bad_request = [this](const Peer& peer, int status, const std::string& request_id) {
    service->bad_request(peer, status, request_id);
  };
  Result<std::unique_ptr<Listener>> opened =
      Listener::open(io, options.listen, port, limits, std::move(callbacks), proxies);
  if (!opened && opened.error().code == Errc::conflict)
    return Error{Errc::conflict, opened.error().message + option_for(door)};
  if (!opened) return opened.error();
  listeners.push_back(std::move(*opened));
  return {};
}

std::size_t Server::State::connections() const {
  std::size_t all = 0;
  for (const auto& listener : listeners) all += listener->connections();
  return all;
}

void Server::State::serve() {
  signals.emplace(io, SIGTERM, SIGINT);
  signals->async_wait([this](const boost::system::error_code& error, int) {
    if (!error) ask_stop("signal");
  });
  second.emplace(io);
  renewal.emplace(io);
  every_second();
  watch_certificate();
  if (upstreams != nullptr) {
    upstreams->start();
    learning.emplace(io);
    learn_cluster();
  }
  for (const auto& listener : listeners) listener->start();
  const unsigned count = options.threads != 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
  for (unsigned i = 0; i < count; ++i) threads.emplace_back([this] { io.run(); });
}

void Server::State::every_second() {
  second->expires_after(std::chrono::seconds(1));
  second->async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    service->tick(false);
    sweep.run(*ledger, Time::now());
    every_second();
  });
}

// What the upstream tells agents, asked for as an agent would.
void Server::State::learn_cluster() {
  const Result<Secret> file = read_secret_file(options.data_dir / "agent-token");
  Result<JoinToken> token = Error{Errc::not_found, ""};
  if (file) token = JoinToken::parse(trim(file->reveal()));
  const std::string path = std::string(options.program->path_prefix) + "config";
  auto again = [this] {
    learning->expires_after(cluster->document() != nullptr ? kLearnEvery : kLearnFirst);
    learning->async_wait([this](const boost::system::error_code& cancelled) {
      if (!cancelled) learn_cluster();
    });
  };
  if (!token) {
    spdlog::warn("cannot ask the upstream for its config document: {}", file ? token.error().message : file.error().message);
    return again();
  }
  auto request = std::make_shared<Request>();
  request->method = "GET";
  request->path = path;
  request->headers = {{"host", "127.0.0.1"},
                      {"authorization", "Basic " + base64("node:" + std::string(token->password.reveal()))}};
  upstreams->exchange(std::move(request), {}, [this, again](const Result<UpstreamAnswer>& answer) {
    Result<bool> learned = false;
    if (answer && answer->status == 200) learned = cluster->learn(answer->body);
    if (!learned) spdlog::warn("the upstream's config document: {}", learned.error().message);
    if (learned && *learned) spdlog::info("agents are told what the upstream's config document says");
    again();
  });
}

// A server that runs for a year must not end up with an expired certificate.
void Server::State::watch_certificate() {
  renewal->expires_after(kRenewalCheck);
  renewal->async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    if (ends_soon())
      if (const Result<void> renewed = renew_certificate(); !renewed)
        spdlog::error("cannot renew the listener's certificate: {}", renewed.error().message);
    watch_certificate();
  });
}

// In a thread of its own, and through our own operators' API, as a watcher on another machine would.
Result<void> Server::State::watch_nodes() {
  if (options.watch_nodes.path.empty()) return {};
  NodeWatchOptions watch;
  watch.kube = options.watch_nodes;
  watch.ledger.data_dir = options.data_dir;
  watch.release_on_delete = options.release_on_node_delete;
  watch.stop = &stop_watching;
  watch.log = [](bool is_problem, const std::string& line) {
    spdlog::log(is_problem ? spdlog::level::warn : spdlog::level::info, "watch-nodes: {}", line);
  };
  Result<NodeWatch> opened = NodeWatch::open(std::move(watch));
  if (!opened) return opened.error();
  node_watcher = std::thread([watcher = std::move(*opened)]() mutable { watcher.run(); });
  return {};
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Server>> Server::start(ServerOptions options) {
  auto state = std::make_unique<State>();
  state->options = std::move(options);
  Result<TrustedProxies> proxies = TrustedProxies::parse(state->options.trusted_proxies);
  if (!proxies) return proxies.error();
  if (proxies->trusts_everybody())
    spdlog::warn("--trusted-proxy names everybody: whoever connects may claim any source address");
  state->proxies = std::move(*proxies);
  const std::filesystem::path& dir = state->options.data_dir;
  if (const Result<void> made = make_data_dir(dir); !made) return made.error();
  // The log first: it is the lock that keeps a second server out of the directory.
  if (const Result<void> opened = state->open_ledger(); !opened) return opened.error();
  if (const Result<void> whole = check_adoption(dir); !whole) return whole.error();
  const bool log_exists = state->ledger->log().head() > 0;
  if (const Result<void> settled = settle_rotations(*state->ledger, dir); !settled) return settled.error();
  Result<Credentials> credentials = Credentials::open({.data_dir = dir,
                                                       .token = state->options.token.clone(),
                                                       .agent_token = state->options.agent_token.clone(),
                                                       .log_exists = log_exists,
                                                       .program = state->options.program});
  if (!credentials) return credentials.error();
  state->credentials = std::move(*credentials);
  Result<Issuer> issuer = Issuer::open(dir, Time::now(), log_exists, *state->options.program);
  if (!issuer) return issuer.error();
  state->issuer.emplace(std::move(*issuer));
  if (const Program* made_by = state->issuer->made_by(); made_by != nullptr && made_by != state->options.program)
    spdlog::warn("the CAs in {} were made for {}, but this server serves agents of {}: is --program right?",
                 (dir / "tls").string(), made_by->name, state->options.program->name);
  if (const Result<void> opened = state->open_upstreams(); !opened) return opened.error();
  if (const Result<void> listening = state->listen(); !listening) return listening.error();
  if (const Result<void> described = state->describe_cluster(); !described) return described.error();
  if (const Result<void> renewed = state->renew_certificate(); !renewed) return renewed.error();
  const std::string token_hash = token_hash_for(dir, *state->issuer);
  if (const Result<void> written = state->credentials->write_token_files(token_hash); !written)
    return written.error();
  if (const Result<void> opened = state->open_checkpoints(); !opened) return opened.error();
  if (const Result<void> noted = state->note_start(); !noted) return noted.error();
  const Result<Mode> mode = state->settle_mode();
  if (!mode) return mode.error();
  if (const Result<void> opened = state->open_hashes(); !opened) return opened.error();
  const boost::json::object description = {{"url", state->local_url}, {"pid", static_cast<std::int64_t>(getpid())}};
  if (const Result<void> written = write_file(server_file(dir), boost::json::serialize(description) + "\n", 0644);
      !written)
    return written.error();
  state->service =
      std::make_unique<Service>(*state->ledger, *state->credentials, *state->issuer, *state->config,
                                state->hashes.get(), state->proxies);
  if (state->upstreams != nullptr) {
    Result<std::unique_ptr<ClusterConfig>> cluster = ClusterConfig::open(dir, state->ports());
    if (!cluster) return cluster.error();
    state->cluster = std::move(*cluster);
    state->service->stand_in_front(*state->upstreams, *state->cluster, *mode);
  }
  state->service->serve_checkpoints([keeper = state->checkpoints.get()] { return keeper->latest(); });
  state->archivist = std::make_unique<Archivist>(
      Archivist::Options{.data_dir = dir,
                         .log = [](bool is_problem, const std::string& line) {
                           spdlog::log(is_problem ? spdlog::level::warn : spdlog::level::info, "{}", line);
                         }},
      *state->ledger);
  state->service->keep_archives(state->archivist.get());
  state->checkpoints->start();
  state->archivist->start({.age_s = state->options.retain_age_s, .bytes = state->options.retain_bytes});
  state->serve();
  auto server = std::unique_ptr<Server>(new Server(std::move(state)));
  if (const Result<void> watching = server->state_->watch_nodes(); !watching) return watching.error();
  return server;
}

// ---- stop ------------------------------------------------------------------------------------------------

// Requests under way finish, idle connections and tunnels close; then no network thread runs any more.
void Server::State::drain() {
  stop_watching = true;
  if (node_watcher.joinable()) node_watcher.join();
  if (threads.empty()) return;
  for (const auto& listener : listeners) listener->stop();
  const auto deadline = std::chrono::steady_clock::now() + kStopGrace;
  while (connections() > 0 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  if (const std::size_t left = connections(); left > 0)
    spdlog::warn("{} connections did not finish in {} s and are cut off", left, kStopGrace.count());
  if (upstreams != nullptr) upstreams->stop();
  io.stop();
  for (std::thread& thread : threads) thread.join();
  threads.clear();
  hashes->stop();
}

Result<void> Server::run() {
  std::string reason;
  {
    std::unique_lock lock(state_->mutex);
    state_->stop_asked.wait(lock, [&] { return !state_->stop_reason.empty(); });
    reason = state_->stop_reason;
  }
  spdlog::info("stopping: {}", reason);
  state_->drain();
  state_->service->tick(true);
  state_->service.reset();
  std::error_code ignored;
  std::filesystem::remove(server_file(state_->options.data_dir), ignored);
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->failure) return *state_->failure;
  }
  if (const Result<void> flushed = state_->ledger->flush_counts(); !flushed) return flushed.error();
  state_->archivist->stop();
  state_->checkpoints->stop();
  Record record;
  record.event = ServerStopped{.reason = reason};
  Proposal proposal;
  proposal.use_reserve = true;
  proposal.records.push_back(std::move(record));
  const Result<Committed> stopped = state_->ledger->append_and_wait(std::move(proposal));
  if (!stopped) return stopped.error();
  if (const Result<void> covered = state_->checkpoints->finish(); !covered)
    spdlog::warn("the last records have no checkpoint: {}", covered.error().message);
  return state_->ledger->close();
}

// Callbacks of the ledger post to the io_context and requests use the service: they go before what they use.
Server::~Server() {
  if (state_ == nullptr) return;
  state_->drain();
  state_->service.reset();
  state_->archivist.reset();
  state_->checkpoints.reset();
  state_->ledger.reset();
}

void Server::stop() { state_->ask_stop("asked to stop"); }
std::uint16_t Server::port() const { return state_->ports().supervisor; }
std::uint16_t Server::https_port() const { return state_->ports().https; }
const std::string& Server::url() const { return state_->url; }
std::filesystem::path Server::data_dir() const { return state_->options.data_dir; }

Result<std::string> running_server_url(const std::filesystem::path& data_dir) {
  const Result<std::string> text = read_file(server_file(data_dir), 4096);
  if (!text) return text.error();
  boost::json::error_code error;
  const boost::json::value value = boost::json::parse(*text, error);
  const boost::json::value* url = !error && value.is_object() ? value.get_object().if_contains("url") : nullptr;
  if (url == nullptr || !url->is_string())
    return Error{Errc::corrupt, server_file(data_dir).string() + " is not what a server writes; restart the server"};
  return std::string(url->get_string());
}

}  // namespace ledger::api
