// A k3s-like server for tests and demonstrations of `ledger serve --upstream`. Not k3s: no cluster, no datastore.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "tools/k3s_like/server.h"
#include "tools/k3s_like/server_dir.h"

namespace ledger::k3s_like {
namespace {

int report(const Result<void>& done) {
  if (done) return 0;
  fmt::print(stderr, "k3s-like: {}\n", done.error().message);
  return 1;
}

void add_init(CLI::App& app, int* status) {
  struct Asked {
    DirOptions options;
    std::string token, agent_token;
  };
  const auto asked = std::make_shared<Asked>();
  CLI::App* command = app.add_subcommand("init", "Make a server directory in k3s' layout");
  command->add_option("--dir", asked->options.dir, "Directory, .../k3s/server")->required();
  command->add_option("--token", asked->token, "Password of the token (default: a fresh one)");
  command->add_option("--agent-token", asked->agent_token, "Another password for agents");
  command->add_option("--san", asked->options.names, "More names and addresses of the listener");
  command->callback([asked, status] {
    asked->options.token = Secret(asked->token);
    asked->options.agent_token = Secret(asked->agent_token);
    *status = report(make_server_dir(asked->options));
  });
}

void add_issue(CLI::App& app, int* status) {
  struct Asked {
    LeafOptions options;
    std::string out;
  };
  const auto asked = std::make_shared<Asked>();
  CLI::App* command = app.add_subcommand("issue", "Make a client certificate: <out>.crt, <out>.key");
  command->add_option("--dir", asked->options.dir, "Server directory")->required();
  command
      ->add_option("--ca", asked->options.authority, "client-ca, request-header-ca, server-ca; stranger: of nobody")
      ->capture_default_str();
  command->add_option("--cn", asked->options.common_name, "Common name")->required();
  command->add_option("--org", asked->options.organizations, "Organizations");
  command->add_option("--from", asked->options.valid_from, "Valid from, seconds from now")->capture_default_str();
  command->add_option("--for", asked->options.valid_for, "Seconds valid")->capture_default_str();
  command->add_option("--out", asked->out, "Stem of the files")->required();
  command->callback([asked, status] { *status = report(issue_client(asked->options, asked->out)); });
}

void add_serve(CLI::App& app, int* status) {
  struct Asked {
    ServerOptions options;
    std::string generation = "G7";
    unsigned delay_ms = 0;
  };
  const auto asked = std::make_shared<Asked>();
  CLI::App* command = app.add_subcommand("serve", "Serve it; says `ready PORT`");
  command->add_option("--dir", asked->options.dir, "Server directory")->required();
  command->add_option("--listen", asked->options.listen, "Address")->capture_default_str();
  command->add_option("--port", asked->options.port, "Port; 0: a free one")->capture_default_str();
  command->add_option("--advertise", asked->options.advertise,
                      "host:port that agents are told (default: where it listens)");
  command->add_option("--generation", asked->generation, "Of the server")
      ->check(CLI::IsMember({"G3", "G5", "G7"}))
      ->capture_default_str();
  command->add_option("--delay-ms", asked->delay_ms, "Before every answer")->capture_default_str();
  command->add_option("--log", asked->options.log, "File for one JSON object per request (appended)");
  command->callback([asked, status] {
    asked->options.generation = asked->generation == "G3"   ? Generation::g3
                                : asked->generation == "G5" ? Generation::g5
                                                            : Generation::g7;
    asked->options.delay = std::chrono::milliseconds(asked->delay_ms);
    const auto server = Server::open(asked->options);
    *status = server ? report((*server)->run()) : report(server.error());
  });
}

}  // namespace
}  // namespace ledger::k3s_like

int main(int argc, char** argv) {
  CLI::App app("A k3s-like server for tests: supervisor, kube-like API, k3s' own files");
  app.require_subcommand(1);
  int status = 0;
  ledger::k3s_like::add_init(app, &status);
  ledger::k3s_like::add_issue(app, &status);
  ledger::k3s_like::add_serve(app, &status);
  CLI11_PARSE(app, argc, argv);
  return status;
}
