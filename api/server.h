// One registration server: credentials, certificate authorities, ledger, service and listener put together,
// started in an order that never answers before it can record, and stopped in the reverse order.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/agent_config.h"
#include "api/kubeconfig.h"
#include "api/mode.h"
#include "ledger/program.h"
#include "ledger/types.h"

namespace ledger::api {

struct ServerOptions {
  std::filesystem::path data_dir = "/var/lib/ledger";
  std::string listen = "::";
  const Program* program = &kK3s;     // whose agents are served
  std::uint16_t https_port = 6443;
  // Where agents are pointed at. Not given: the program's (RKE2 9345), or https_port. A port of its own (0: a free
  // one) opens a second listener: this one has the supervisor's and the operators' API, the other one what
  // agents ask of a kube-apiserver.
  std::optional<std::uint16_t> supervisor_port;
  // The cluster's kube-apiserver has https_port of the advertised address: agents are told so, nothing listens
  // there.
  bool external_kube_api = false;
  // k3s servers to stand in front of, as https URLs, in order of preference; none: the mode is alone.
  std::vector<std::string> upstreams;
  std::uint16_t upstream_kube_port = 0;  // of their kube-apiservers, where that is another one; 0: of the URL
  std::optional<Mode> mode;              // not given: the log's; where that has none, observe
  std::string advertise_address;      // empty: this machine's first address
  std::vector<std::string> tls_sans;  // further names and addresses of the listener's certificate
  std::string server_name;            // empty: the host name
  Secret token, agent_token;          // empty: those on disk, or fresh ones
  ClusterOptions cluster;
  unsigned threads = 0;  // network threads; 0: one per core
  std::size_t max_connections = 16384;
  std::vector<std::string> trusted_proxies;  // networks whose PROXY header is believed (proxy_protocol.h)
  std::uint64_t min_free_bytes = 64 << 20;
  bool keep_k3s_hash = false;  // make and keep k3s' hash of every password that is bound or verified
  // Checkpoints of the log (ledger/checkpoint_keeper.h): files and https addresses that get a copy, witnesses as
  // "<public key>,<https URL>", and the CA of both where it is not one that the operating system trusts.
  std::vector<std::string> checkpoint_to, witnesses;
  std::filesystem::path checkpoint_ca;
  std::uint64_t checkpoint_every_records = 1000, checkpoint_every_seconds = 300;
  // What stays in the store; older records go into archives (ledger/archivist.h). Not given: everything stays.
  std::optional<std::int64_t> retain_age_s;
  std::optional<std::uint64_t> retain_bytes;
  // A kube-apiserver whose Node objects are watched (node_watch.h); no path: none.
  KubeconfigOptions watch_nodes;
  bool release_on_node_delete = false;
};

class Server {
 public:
  // Everything is checked and bound, the start is recorded, and requests are being answered when this returns.
  // Errors are one line that says what to do. Creates the data directory (0700) when there is none.
  static Result<std::unique_ptr<Server>> start(ServerOptions options);
  ~Server();

  // Blocks until SIGTERM, SIGINT, stop() or a storage failure; then stops in order: no new connections,
  // requests under way finish (10 s at most), tunnels close and are recorded, the log is closed. An error: the
  // log could not be written, the process must exit with a status that is not 0.
  Result<void> run();
  // From any thread.
  void stop();

  // Of the supervisor's API, and of the kube-apiserver's; the same unless they are split.
  std::uint16_t port() const;
  std::uint16_t https_port() const;
  // "https://<advertised address>:<port()>", what an agent's --server takes.
  const std::string& url() const;
  std::filesystem::path data_dir() const;

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Where the server of a data directory can be reached, written by a running server (server.json, 0644).
Result<std::string> running_server_url(const std::filesystem::path& data_dir);

}  // namespace ledger::api
