#include <unistd.h>

#include <boost/json.hpp>
#include <cstdio>

#include "api/doctor.h"
#include "tools/commands.h"
#include "tools/step_lines.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;
using Outcome = api::DoctorStep::Outcome;

constexpr const char* kFooter =
    "Run it as root on the machine that cannot join. It walks the agent's own steps (name lookup, TCP, TLS, "
    "clock,\n"
    "cluster CA, token, config document, node name, password file, binding, local port, old certificates), names\n"
    "the first that fails in one sentence, and says what to do. It changes nothing, here or on the server.\n\n"
    "Examples:\n"
    "  sudo ledger doctor --server https://10.0.0.1:6443 --token-file node-token\n"
    "  sudo ledger doctor --server https://10.0.0.1:9345 --token-file node-token --rke2\n"
    "  ... --node-name web-1           where the agent's name is not the host name\n"
    "  ... --generation G5             judge as an agent of one generation would (ledger agent --help)\n"
    "  ... --format json               for programs\n\n"
    "Whether the node password is the one the name is bound to, only a ledger says without binding it; a k3s\n"
    "server is asked with --really-register, which is a registration and may bind the name to this machine.\n"
    "Exit status: 0 nothing fails, 1 something fails, 2 wrong usage.\n";

struct Arguments {
  api::DoctorOptions doctor;
  std::string token, token_file;
  std::string generation;
  std::string password_file, agent_dir;
  std::string format = "text";
  double deadline_s = 5;
};

std::string host_name() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return name;
}

void print_end(const api::Diagnosis& diagnosis) {
  if (const api::DoctorStep* first = diagnosis.first_failure()) {
    std::printf("\n");
    print_wrapped("first failing step: " + first->title + ": " + first->detail, 0);
    if (!first->remedies.empty()) std::printf("what to do:\n");
    return print_remedies(*first);
  }
  bool warned = false;
  for (const api::DoctorStep& step : diagnosis.steps) {
    if (step.outcome != Outcome::warning || step.remedies.empty()) continue;
    std::printf("\nabout the %s:\n", step.title.c_str());
    print_remedies(step);
    warned = true;
  }
  std::printf("\nnothing fails%s\n", warned ? ", but see the warnings above" : ": an agent can join from here");
}

// ---- JSON --------------------------------------------------------------------------------------------------

void print_json(const api::Diagnosis& diagnosis, const api::DoctorOptions& options) {
  json::array steps;
  for (const api::DoctorStep& step : diagnosis.steps) {
    json::object entry{{"step", step.name}, {"result", to_lower(name_of(step.outcome))}, {"detail", step.detail}};
    if (!step.remedies.empty()) entry["remedies"] = json_of(step.remedies);
    steps.push_back(std::move(entry));
  }
  const api::DoctorStep* first = diagnosis.first_failure();
  json::object out{{"server", printable(options.server, 200)},
                   {"node", to_lower(options.node_name)},
                   {"fine", first == nullptr}};
  if (first != nullptr) {
    out["first_failing_step"] = first->name;
    out["sentence"] = first->title + ": " + first->detail;
  }
  out["steps"] = std::move(steps);
  std::printf("%s\n", json::serialize(out).c_str());
}

int run(Arguments& arguments) {
  api::DoctorOptions& options = arguments.doctor;
  Result<Secret> token = given_secret(arguments.token, arguments.token_file, "--token-file");
  if (!token) return fail(token.error());
  options.token = std::move(*token);
  if (!arguments.generation.empty()) {
    const Result<api::Generation> generation = api::parse_generation(arguments.generation);
    if (!generation) {
      fail(generation.error());
      return 2;
    }
    options.generation = *generation;
  }
  options.password_file = arguments.password_file;
  options.agent_dir = arguments.agent_dir;
  options.deadline = std::chrono::milliseconds(static_cast<std::int64_t>(arguments.deadline_s * 1000));

  const bool text = arguments.format == "text";
  if (text)
    std::printf("can %s join %s?\n", printable(options.node_name, 253).c_str(),
                printable(options.server, 200).c_str());
  const api::Diagnosis diagnosis =
      api::examine(options, text ? print_step : std::function<void(const api::DoctorStep&)>());
  if (text)
    print_end(diagnosis);
  else
    print_json(diagnosis, options);
  return diagnosis.first_failure() == nullptr ? 0 : 1;
}

}  // namespace

void add_doctor(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("doctor", "On a machine that cannot join: which step fails, and what to do");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  api::DoctorOptions& doctor = arguments->doctor;
  doctor.node_name = host_name();
  arguments->password_file = doctor.password_file.string();
  command->add_option("--server", doctor.server, "Server to join, https://host:port")->required();
  auto* token = command->add_option("--token", arguments->token, "Join token; visible in `ps`, better:");
  auto* token_file = command->add_option("--token-file", arguments->token_file, "File that holds it");
  token->envname("LEDGER_TOKEN")->excludes(token_file);
  command->add_option("--node-name", doctor.node_name, "The agent's node name (default: host name)");
  command->add_option("--node-ip", doctor.node_ips, "Its address (repeatable; default: ours towards the server)")
      ->allow_extra_args(false);
  command->add_option("--password-file", arguments->password_file, "Its node password")->capture_default_str();
  command->add_option("--agent-dir", arguments->agent_dir,
                      "Its files (default: /var/lib/rancher/k3s/agent, or rke2's)");
  command->add_option("--lb-server-port", doctor.balancer_port, "Port of the agent's load balancer")
      ->capture_default_str();
  command->add_option("--generation", arguments->generation,
                      "Judge as an agent of this generation: G1 to G7");
  command->add_flag("--rke2", doctor.rke2, "An RKE2 agent: its paths, headers and files");
  command->add_flag("--really-register", doctor.really_register,
                    "Ask a k3s server for a certificate as the agent would: may bind the name");
  command->add_option("--deadline", arguments->deadline_s, "Seconds that each step may take")
      ->check(CLI::Range(0.1, 60.0))
      ->capture_default_str();
  command->add_option("--format", arguments->format, "Form of the result on standard output")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
