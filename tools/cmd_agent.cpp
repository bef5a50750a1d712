#include <boost/json.hpp>
#include <csignal>
#include <cstdio>
#include <filesystem>

#include "api/agent.h"
#include "tools/commands.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;
using Verdict = api::AgentOutcome::Verdict;

constexpr const char* kFooter =
    "Examples:\n"
    "  ledger agent --server https://10.0.0.1:6443 --token-file node-token --node-name web-1\n"
    "                                   joins as a k3s v1.25 agent would (generation G5), then exits\n"
    "  ... --generation G1              the requests of a k3s v1.17 agent\n"
    "  ... --generation G7              sends CSRs and keeps its keys; a second start presents its certificate\n"
    "  ... --generation G6 --rke2       an RKE2 agent: https://10.0.0.1:9345\n"
    "  ... --tunnel                     holds the tunnel until interrupted; --tunnel 30 for 30 seconds\n"
    "  ... --retry                      tries again every 5 s, as agents do, until it is in\n"
    "  ... --with-node-id               joins as web-1-<8 hex digits>: a name nobody else has\n"
    "  rm -r ledger-agent/web-1         what rebuilding the machine does: the next join gets 403\n\n"
    "Generations: G1 k3s v1.17, G2 v1.19, G3 v1.20.0-2, G4 v1.20.4-v1.23.5, G5 v1.23.6-v1.26.1, G6 v1.26.2-v1.32.0,\n"
    "G7 v1.32.1 and later. With --tunnel the server can ask for the kubelet (ledger node probe): what listens on\n"
    "--kubelet-port plays it. Certificates and keys lie in <state-dir>/agent, as in\n"
    "/var/lib/rancher/{k3s,rke2}/agent. The agent's own log lines go to standard error.\n\n"
    "Exit status: 0 joined, 1 refused or failed, 2 wrong usage.\n";

struct Arguments {
  api::AgentOptions agent;
  std::string token, token_file;
  std::string generation = "G5";
  std::string password_file, state_dir;
  std::string format = "text";
  double tunnel_seconds = 0;
  bool retry = false;
};

std::atomic<bool> interrupted{false};

// The request that decided: the last one, with the server's record of it where it named one.
std::string where_it_ended(const api::AgentOutcome& outcome) {
  const api::AgentRequest& last = outcome.requests.back();
  std::string out = last.method + " " + last.path;
  out += last.status != 0 ? " " + std::to_string(last.status) : " (" + last.error + ")";
  if (!last.seq.empty()) out += ", record " + printable(last.seq, 20);
  if (!last.request_id.empty()) out += ", request " + printable(last.request_id, 40);
  return out;
}

void print_text(const api::AgentOutcome& outcome, const std::string& generation) {
  const char* node = outcome.node.c_str();
  if (outcome.verdict == Verdict::joined) {
    std::printf("%s joined as a %s agent: %zu requests", node, generation.c_str(), outcome.requests.size());
    if (!outcome.tunnels.empty())
      std::printf(", tunnel %s, %llu pongs", outcome.tunnels.back().c_str(),
                  static_cast<unsigned long long>(outcome.pongs));
    std::printf("\n");
    return;
  }
  std::printf("%s %s: %s\n", node, outcome.verdict == Verdict::refused ? "was refused" : "failed to join",
              outcome.sentence.c_str());
  if (outcome.requests.empty() || outcome.requests.back().status == 200) return;
  std::printf("  at %s\n", where_it_ended(outcome).c_str());
  // Only these two requests name the node: its history is where the server's reasons are.
  if (outcome.verdict == Verdict::refused && outcome.requests.back().path.ends_with("kubelet.crt"))
    std::printf("  why, on the server: ledger replay --node %s\n", node);
}

void print_json(const api::AgentOutcome& outcome, const std::string& generation) {
  json::array requests;
  for (const api::AgentRequest& request : outcome.requests) {
    json::object entry{{"phase", request.phase}, {"method", request.method}, {"path", request.path}};
    if (request.status != 0) entry["status"] = request.status;
    if (!request.error.empty()) entry["error"] = request.error;
    if (!request.request_id.empty()) entry["request_id"] = request.request_id;
    if (!request.seq.empty()) entry["seq"] = request.seq;
    entry["micros"] = request.took.count();
    requests.push_back(std::move(entry));
  }
  const char* verdict = outcome.verdict == Verdict::joined    ? "joined"
                        : outcome.verdict == Verdict::refused ? "refused"
                                                              : "failed";
  json::object out{{"node", outcome.node}, {"generation", generation}, {"verdict", verdict}};
  if (!outcome.sentence.empty()) out["sentence"] = outcome.sentence;
  if (!outcome.cause.empty()) out["cause"] = outcome.cause;
  if (!outcome.tunnels.empty()) {
    out["tunnels"] = json::array(outcome.tunnels.begin(), outcome.tunnels.end());
    out["pongs"] = outcome.pongs;
  }
  out["requests"] = std::move(requests);
  std::printf("%s\n", json::serialize(out).c_str());
}

int run(Arguments& arguments) {
  api::AgentOptions& options = arguments.agent;
  Result<Secret> token = given_secret(arguments.token, arguments.token_file, "--token-file");
  if (!token) return fail(token.error());
  options.token = std::move(*token);
  const Result<api::Generation> generation = api::parse_generation(arguments.generation);
  if (!generation) {
    fail(generation.error());
    return 2;
  }
  options.generation = *generation;
  std::filesystem::path state = arguments.state_dir;
  if (state.empty()) state = std::filesystem::path("ledger-agent") / options.node_name;
  options.password_file = arguments.password_file;
  if (options.password_file.empty()) options.password_file = state / "password";
  options.agent_directory = state / "agent";
  options.attempts = arguments.retry ? 0 : 1;
  options.tunnel_for = std::chrono::milliseconds(static_cast<std::int64_t>(arguments.tunnel_seconds * 1000));
  options.log = [](const api::AgentLine& line) { std::fprintf(stderr, "%s\n", line.to_string().c_str()); };
  options.stop = &interrupted;
  for (const int signal_number : {SIGINT, SIGTERM}) std::signal(signal_number, [](int) { interrupted = true; });

  const api::AgentOutcome outcome = api::run_agent(options);
  if (arguments.format == "json")
    print_json(outcome, arguments.generation);
  else
    print_text(outcome, arguments.generation);
  return outcome.verdict == Verdict::joined ? 0 : 1;
}

}  // namespace

void add_agent(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("agent", "Play a k3s or RKE2 agent: join a server as one, without containers");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  api::AgentOptions& agent = arguments->agent;
  command->add_option("--server", agent.server, "Server to join, https://host:port")->required();
  auto* token = command->add_option("--token", arguments->token, "Join token; visible in `ps`, better:");
  auto* token_file = command->add_option("--token-file", arguments->token_file, "File that holds it");
  token->envname("LEDGER_TOKEN")->excludes(token_file);
  command->add_option("--node-name", agent.node_name, "Name to join under (lower-cased)")->required();
  command->add_option("--generation", arguments->generation, "Which agent to play: G1 to G7")
      ->capture_default_str();
  command->add_flag("--rke2", agent.rke2, "Play an RKE2 agent of that generation");
  command->add_flag("--with-node-id", agent.with_node_id, "Append a random id, kept beside the password file");
  command
      ->add_option("--node-ip", agent.node_ips,
                   "Address of the node (repeatable; default: ours towards the server)")
      ->allow_extra_args(false);
  command->add_option("--password-file", arguments->password_file, "Node password (default: <state-dir>/password)");
  command->add_option("--state-dir", arguments->state_dir,
                      "Files of this node (default: ledger-agent/<node-name>)");
  command
      ->add_option("--tunnel", arguments->tunnel_seconds,
                   "Open the tunnel and hold it so many seconds; without a number until interrupted")
      ->expected(0, 1)
      ->default_str("0");
  command
      ->add_option("--kubelet-port", agent.kubelet_port,
                   "Where the kubelet listens that the server reaches through the tunnel")
      ->capture_default_str();
  command->add_flag("--retry", arguments->retry, "Try again as agents do, until it is in");
  command->add_option("--format", arguments->format, "Form of the result on standard output")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([command, arguments, &exit_code] {
    arguments->agent.tunnel = command->count("--tunnel") > 0;
    exit_code = run(*arguments);
  });
}

}  // namespace ledger::tools
