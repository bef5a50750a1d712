#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <cstdlib>

#include "api/server.h"
#include "replay/history.h"
#include "tools/commands.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  ledger serve                                      everything below /var/lib/ledger, port 6443\n"
    "  ledger serve --data-dir ./data --listen 127.0.0.1 --https-port 16443\n"
    "  ledger serve --token-file /etc/ledger/token --tls-san ledger.example.org\n"
    "  ledger serve --program rke2                       agents of RKE2: supervisor on 9345, kube API on 6443\n"
    "  ledger serve --https-port 6443 --supervisor-port 9345    the same split for k3s: agents send kube API\n"
    "                                                    traffic to 6443 of this host, everything else to 9345\n"
    "  ledger serve --program rke2 --external-kube-api   beside the cluster's kube-apiserver, which has 6443 here\n"
    "  ledger serve --trusted-proxy 10.0.0.2 --trusted-proxy 10.0.0.3 --tls-san vip.example.org\n"
    "                                                    behind load balancers that send the PROXY protocol\n"
    "  ledger serve --upstream https://10.0.0.1:16443 --mode observe    in front of a k3s server: it decides, we\n"
    "                                                    write down who asked and what it answered; first\n"
    "                                                    `ledger adopt` (docs/ADOPTION.md)\n\n"
    "Agents join with the token in <data-dir>/node-token:\n"
    "  k3s agent --server https://<this machine>:6443 --token-file node-token\n"
    "  rke2 agent --server https://<this machine>:9345 --token-file node-token\n\n"
    "SIGTERM stops in order: requests under way finish, tunnels close, the log is closed. kill -9 loses nothing\n"
    "that was acknowledged.\n\n"
    "Exit status: 0 stopped in order, 1 the start failed or the log could not be written, 2 wrong usage.\n";

struct Arguments {
  api::ServerOptions server;
  std::string data_dir = kDefaultDataDir;
  std::string program{kK3s.name};
  std::uint16_t supervisor_port = 0;
  CLI::Option* supervisor_port_given = nullptr;
  std::string token, token_file, agent_token, agent_token_file;
  std::string watch_kubeconfig, retain_age, mode;
  std::string log_level = "info";
};

std::string join_lines(const api::Server& server, const Program& program, bool is_external) {
  const std::string token_file = (server.data_dir() / "node-token").string();
  std::string lines = fmt::format("ledger {} is ready on {} (data in {})\n", LEDGER_VERSION, server.url(),
                                  server.data_dir().string());
  if (server.https_port() != server.port())
    lines +=
        fmt::format("kube API paths:     port {}{}\n", server.https_port(), is_external ? ", not opened here" : "");
  lines += fmt::format("{:<20}{} agent --server {} --token-file {}\n", fmt::format("join {} {} agent:", &program == &kRke2 ? "an" : "a", program.name),
                       program.name, server.url(), token_file);
  return lines + fmt::format("or a played one:    ledger agent {}--server {} --token-file {} --node-name demo-1{}\n",
                             &program == &kRke2 ? "--rke2 " : "", server.url(), token_file,
                             &program == &kRke2 ? "" : " --generation G5");
}

int serve(Arguments& arguments) {
  spdlog::set_level(spdlog::level::from_str(arguments.log_level));
  api::ServerOptions& options = arguments.server;
  options.data_dir = arguments.data_dir;
  const Result<const Program*> program = find_program(arguments.program);
  if (!program) return fail(program.error());
  options.program = *program;
  if (arguments.supervisor_port_given->count() > 0) options.supervisor_port = arguments.supervisor_port;
  options.watch_nodes.path = arguments.watch_kubeconfig;
  if (!arguments.mode.empty()) options.mode = api::mode_named(arguments.mode);
  if (!arguments.retain_age.empty()) options.retain_age_s = replay::seconds_of_span(arguments.retain_age);
  Result<Secret> token = given_secret(arguments.token, arguments.token_file, "--token-file");
  if (!token) return fail(token.error());
  Result<Secret> agent_token =
      given_secret(arguments.agent_token, arguments.agent_token_file, "--agent-token-file");
  if (!agent_token) return fail(agent_token.error());
  options.token = std::move(*token);
  options.agent_token = std::move(*agent_token);
  const bool is_external = options.external_kube_api;
  const Result<std::unique_ptr<api::Server>> server = api::Server::start(std::move(options));
  if (!server) return fail(server.error());
  std::fputs(join_lines(**server, **program, is_external).c_str(), stdout);
  std::fflush(stdout);
  const Result<void> stopped = (*server)->run();
  if (stopped) return 0;
  // The log is in an unknown state: nothing of it is closed in order, the next start recovers it.
  std::_Exit(fail(stopped.error()));
}

}  // namespace

void add_serve(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("serve", "Run the registration server that k3s agents join");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  api::ServerOptions& server = arguments->server;
  api::ClusterOptions& cluster = server.cluster;

  command->add_option("--data-dir", arguments->data_dir, "Where everything is kept (created, mode 0700)")
      ->capture_default_str();
  command->add_option("--listen", server.listen, "IP address to listen on; :: takes IPv4 too")->capture_default_str();
  command->add_option("--program", arguments->program, "Whose agents join: k3s or rke2. One data directory, one program")
      ->check(CLI::IsMember({"k3s", "rke2"}))
      ->capture_default_str();
  command->add_option("--https-port", server.https_port, "Port to listen on; 0 takes a free one")
      ->capture_default_str();
  arguments->supervisor_port_given = command->add_option(
      "--supervisor-port", arguments->supervisor_port,
      "Port agents join at, where it is another one (default: --https-port; rke2: 9345). --https-port then has "
      "what agents ask of a kube-apiserver only");
  command->add_flag(
      "--external-kube-api", server.external_kube_api,
      "The cluster's kube-apiserver has --https-port of the advertised address: agents are told so, and\n"
      "only the supervisor's port is opened here");
  command->add_option("--advertise-address", server.advertise_address,
                      "IP address agents are told to use (default: this machine's first)");
  command->add_option("--trusted-proxy", server.trusted_proxies,
                      "Address or CIDR of load balancers whose PROXY header (v1, v2) is believed (repeatable)");
  command->add_option("--tls-san", server.tls_sans, "Further names or IPs for the server's certificate (repeatable)");

  auto* upstream = command->add_option_group("Upstream", "In front of a k3s server (docs/ADOPTION.md)");
  upstream->add_option("--upstream", server.upstreams,
                       "https address of a k3s server whose directory was adopted (repeatable: the first\n"
                       "that answers is used)");
  upstream->add_option("--mode", arguments->mode,
                       "observe: the upstream decides, we record; enforce: we decide, and forward what is\n"
                       "not registration (default: the last one, at first observe; see ledger mode)")
      ->check(CLI::IsMember({"observe", "enforce"}));
  upstream->add_option("--upstream-kube-port", server.upstream_kube_port,
                       "Port of the upstream's kube-apiserver, where it is another one (rke2: 6443)");

  auto* secrets = command->add_option_group("Tokens", "Generated at the first start when not given");
  secrets->add_option("--token", arguments->token, "Join secret; visible in `ps`, better:")->envname("LEDGER_TOKEN");
  secrets->add_option("--token-file", arguments->token_file, "File that holds it")->excludes("--token");
  secrets->add_option("--agent-token", arguments->agent_token, "Separate secret for agents")
      ->envname("LEDGER_AGENT_TOKEN");
  secrets->add_option("--agent-token-file", arguments->agent_token_file, "File that holds it")
      ->excludes("--agent-token");

  auto* network = command->add_option_group("Cluster", "What agents are told; defaults are k3s'");
  network->add_option("--cluster-cidr", cluster.cluster_cidr, "Pod addresses")->capture_default_str();
  network->add_option("--service-cidr", cluster.service_cidr, "Service addresses")->capture_default_str();
  network->add_option("--cluster-dns", cluster.cluster_dns, "DNS service address")->capture_default_str();
  network->add_option("--cluster-domain", cluster.cluster_domain, "DNS domain")->capture_default_str();
  network->add_option("--flannel-backend", cluster.flannel_backend,
                      "none turns flannel off (default: vxlan; rke2: none)");
  network->add_option("--service-node-port-range", cluster.service_node_port_range, "NodePort range")
      ->capture_default_str();

  auto* nodes = command->add_option_group("Nodes", "Node objects of the cluster, watched (ledger watch-nodes --help)");
  nodes->add_option("--watch-nodes-kubeconfig", arguments->watch_kubeconfig,
                    "Kubeconfig of the cluster: appearances and deletions of nodes become records");
  nodes->add_option("--watch-nodes-context", server.watch_nodes.context, "Context in it (default: current-context)");
  nodes->add_flag("--release-on-node-delete", server.release_on_node_delete,
                  "Release a node's name when its Node object is deleted (default: only record it)");

  auto* checkpoints = command->add_option_group(
      "Checkpoints", "The log's size and root, signed, in <data-dir>/checkpoints and further places");
  checkpoints->add_option("--checkpoint-to", server.checkpoint_to,
                          "File, or https address (PUT and GET), that gets a copy of every\n"
                          "checkpoint; best on another machine, for `ledger verify --against`\n"
                          "(repeatable)");
  checkpoints->add_option("--checkpoint-every-records", server.checkpoint_every_records,
                          "Sign at least after so many records")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  checkpoints->add_option("--checkpoint-every-seconds", server.checkpoint_every_seconds,
                          "Sign at least so long after a record")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  checkpoints->add_option("--witness", server.witnesses,
                          "<public key>,<https address> of a witness that cosigns\n"
                          "(c2sp.org/tlog-witness; repeatable)");
  checkpoints->add_option("--checkpoint-ca", server.checkpoint_ca,
                          "CA certificate of these https addresses (default: those the system\n"
                          "trusts)");

  auto* retention = command->add_option_group(
      "Retention", "Old records go into <data-dir>/archives (ledger archive --help); without these all stay");
  retention->add_option("--retain-age", arguments->retain_age, "Records older than this: 90d, 24h")
      ->check(CLI::Validator(
          [](const std::string& text) {
            return replay::seconds_of_span(text) ? std::string() : std::string("a span is like 90d, 24h or 30m");
          },
          ""));
  retention->add_option("--retain-size", server.retain_bytes,
                        "The oldest records when all take more than this on the disk: 10GiB")
      ->transform(CLI::AsSizeValue(false));

  auto* running = command->add_option_group("Running", "");
  running->add_option("--server-name", server.server_name, "Name of this server in records (default: host name)");
  running->add_option("--threads", server.threads, "Network threads; 0: one per core")->capture_default_str();
  running->add_option("--max-connections", server.max_connections, "Connections at once")->capture_default_str();
  running
      ->add_option("--min-free-bytes", server.min_free_bytes,
                   "Refuse to record (503) when the disk has less; 0: never")
      ->capture_default_str();
  running->add_flag("--keep-k3s-hash", server.keep_k3s_hash,
                    "Also keep k3s' own hash of every node password, so that a return to k3s is possible\n"
                    "(ledger state export --format secrets); 0.1 s of CPU per node, off the reply's way");
  running->add_option("--log-level", arguments->log_level, "Messages on standard error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = serve(*arguments); });
}

}  // namespace ledger::tools
