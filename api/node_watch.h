// Watches the Node objects of a real kube-apiserver and reports each that comes or goes to a ledger, through its
// operators' API (POST /ledger/v1/node-objects; exactly once per uid is that side's promise,
// ledger/node_objects.h).
//
// List, then watch from there: every page of the list is read before anything follows from it; a list that fails,
// is cut short or cannot be read changes nothing. What the ledger believes to exist and a whole list lacks was
// deleted while nobody watched. Two lists are not believed that far: an empty one (nothing follows), and one that
// has none of the known objects (another cluster? the deletions are recorded, no name is released). 410 Gone leads
// to a new list, a broken connection to a new watch from where it broke off, both with growing pauses (1 s to 30
// s).
//
// Only names, uids and versions are asked for (PartialObjectMetadata), and read where a server sends whole Nodes.
//
// Threads: run() blocks until `stop`; one thread per object.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "api/kube_nodes.h"
#include "api/kubeconfig.h"
#include "api/operator_client.h"

namespace ledger::api {

struct NodeWatchOptions {
  KubeconfigOptions kube;
  OperatorClient::Options ledger;
  bool release_on_delete = false;
  std::string actor = "watch-nodes";
  std::chrono::milliseconds shortest_pause{1'000}, longest_pause{30'000};
  // kube-apiservers send a bookmark about every minute and end a watch after watch_s.
  std::chrono::milliseconds silence{180'000};
  int watch_s = 300;
  int page = 500;
  std::function<void(bool is_problem, const std::string& line)> log;
  const std::atomic<bool>* stop = nullptr;
};

class NodeWatch {
 public:
  // Fails when the kubeconfig cannot be used.
  static Result<NodeWatch> open(NodeWatchOptions options);

  // Lists and watches until `stop`. Nothing ends it but that: what fails is said and tried again.
  void run();
  // Lists once, reports what follows, and returns.
  Result<void> list_once();

 private:
  struct List {
    std::vector<KubeNode> objects;
    std::string version;
  };

  explicit NodeWatch(NodeWatchOptions options) : options_(std::move(options)) {}
  Result<HttpsClient> connect(HttpsRequest& request);
  Result<List> list();
  // What the ledger believes to exist.
  Result<std::vector<KubeNode>> known();
  Result<void> reconcile(const std::vector<KubeNode>& known, const List& list);
  Result<void> report(const std::string& changes, bool release);
  // Until the watch ends; an error leaves version_ where it was, or empty where a new list is needed.
  Result<void> watch();
  Result<void> take_event(std::string_view line);
  bool stopped() const { return options_.stop != nullptr && options_.stop->load(); }
  void say(bool is_problem, const std::string& line) const {
    if (options_.log) options_.log(is_problem, line);
  }

  NodeWatchOptions options_;
  std::string version_;         // resourceVersion to watch from; empty: list first
  std::set<std::string> seen_;  // uids the ledger was told of since the last list
};

}  // namespace ledger::api
