#include <csignal>
#include <cstdio>

#include "api/node_watch.h"
#include "tools/commands.h"

namespace ledger::tools {
namespace {

constexpr const char* kFooter =
    "Lists and watches the Node objects of a kube-apiserver and reports each that comes or goes to a ledger, "
    "which\n"
    "records it once (node_object_created, node_object_deleted). A running server is needed: the one of "
    "--data-dir,\n"
    "or --server with copies of its operator token and CA. `ledger serve --watch-nodes-kubeconfig` does the same\n"
    "inside the server; two watchers do no harm.\n\n"
    "Examples:\n"
    "  ledger watch-nodes --kubeconfig watcher.kubeconfig\n"
    "  ledger watch-nodes --kubeconfig /etc/rancher/k3s/k3s.yaml --context default --release-on-node-delete\n"
    "  ledger watch-nodes --kubeconfig c --server https://10.0.0.1:6443 --operator-token-file t --ca-file ca.crt\n"
    "  ledger watch-nodes --kubeconfig c --once          list once, report what changed, exit\n\n"
    "The identity in the kubeconfig needs `list` and `watch` on nodes, nothing else. Deletions that happened "
    "while\n"
    "nobody watched are found by comparing the next whole list with the log; a list that fails, is cut short or "
    "is\n"
    "empty changes nothing.\n"
    "--release-on-node-delete: with the deletion the name is released, the next password presented is bound to "
    "it,\n"
    "unless a new Node of that name exists. A name that is held stays held.\n"
    "Exit status: 0 stopped by a signal, or --once done; 1 failed; 2 wrong usage.\n";

struct Arguments {
  api::NodeWatchOptions watch;
  std::string kubeconfig, data_dir = kDefaultDataDir, token_file, ca_file;
  bool once = false;
};

std::atomic<bool> interrupted{false};

int run(Arguments& arguments) {
  api::NodeWatchOptions& options = arguments.watch;
  options.kube.path = arguments.kubeconfig;
  options.ledger.data_dir = arguments.data_dir;
  options.ledger.token_file = arguments.token_file;
  options.ledger.ca_file = arguments.ca_file;
  options.stop = &interrupted;
  options.log = [](bool, const std::string& line) { std::fprintf(stderr, "ledger: %s\n", line.c_str()); };
  for (const int signal_number : {SIGINT, SIGTERM}) std::signal(signal_number, [](int) { interrupted = true; });
  Result<api::NodeWatch> watch = api::NodeWatch::open(options);
  if (!watch) return fail(watch.error());
  // A ledger that cannot be reached at the start is a mistake in the arguments, later it is a pause.
  if (const Result<api::OperatorClient> ledger = api::OperatorClient::open(options.ledger); !ledger)
    return fail(Error{ledger.error().code, ledger.error().message +
                                               "; start the server, and let it watch by itself with ledger serve "
                                               "--watch-nodes-kubeconfig"});
  if (arguments.once) {
    const Result<void> done = watch->list_once();
    return done ? 0 : fail(done.error());
  }
  watch->run();
  return 0;
}

}  // namespace

void add_watch_nodes(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("watch-nodes", "Record when Node objects of a cluster come and go");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  api::NodeWatchOptions& watch = arguments->watch;
  command->add_option("--kubeconfig", arguments->kubeconfig, "How to reach the kube-apiserver")->required();
  command->add_option("--context", watch.kube.context, "Context in it (default: current-context)");
  command->add_flag("--allow-insecure-apiserver", watch.kube.allow_insecure,
                    "Take a kubeconfig with insecure-skip-tls-verify");
  command->add_flag("--release-on-node-delete", watch.release_on_delete,
                    "Release a node's name when its Node object is deleted (default: only record it)");
  command->add_flag("--once", arguments->once, "List once, report what changed, exit");
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--server", watch.ledger.url, "Its URL (default: the running server of --data-dir)");
  command->add_option("--operator-token-file", arguments->token_file,
                      "Its operator token (default: <data-dir>/cred/operator-token)");
  command->add_option("--ca-file", arguments->ca_file, "Its CA (default: <data-dir>/tls/server-ca.crt)");
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
