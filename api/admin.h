// The operators' API, /ledger/v1/...: nodes, their history and explanation, the three remedies, and tokens. Needs an
// operator token (Bearer); one with the role `read` may only look. docs/HTTP_API.md lists it.
//
// Threads: handle() from any thread, never blocks: the work runs on one thread of its own, because it reads
// histories and waits for the disk; a short queue before it answers 429 when it is full. Probes, which wait for
// agents, and streams of events run beside it.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "api/compaction.h"
#include "api/event_stream.h"
#include "api/kubelet_probe.h"
#include "api/registration.h"
#include "api/tunnel.h"
#include "ledger/credentials.h"
#include "ledger/import.h"
#include "ledger/ledger.h"
#include "ledger/node_objects.h"

namespace ledger {
class Archivist;
}

namespace ledger::api {

class ClusterConfig;
class ModeSwitch;
class Upstreams;

class Admin {
 public:
  Admin(Ledger& ledger, const Credentials& credentials, Tunnels& tunnels, const Issuer& issuer,
        HashChecker* hashes = nullptr);
  ~Admin();  // finishes what is queued

  // Who seals and drops; without one both are 503. Before the first request.
  void keep_archives(Archivist* archivist) { archivist_ = archivist; }

  // Of a server in front of an upstream. Before the first request.
  void stand_in_front(ModeSwitch* modes, Upstreams* upstreams, const ClusterConfig* cluster) {
    modes_ = modes;
    upstreams_ = upstreams;
    cluster_ = cluster;
  }

  void handle(RequestPtr request, Reply reply);

 private:
  void refuse(const Request& request, const OperatorCaller& caller, Reply reply);
  Response answer(const Request& request);
  Response tokens(const Request& request, const std::vector<std::string_view>& path);
  Response list_objects();
  Response record_objects(const Request& request);
  void probe(const NodeName& node, Reply reply);
  boost::json::object alive(const NodeName& node) const;
  Response node_action(const Request& request, const NodeName& node, std::string_view action);
  Response explain_node(const Request& request, const NodeName& node) const;  // admin_explain.cpp, and the next two
  Response triage_nodes(const Request& request) const;
  Response look_up_record(const Request& request) const;
  Response import_entries(const Request& request, std::string_view what);  // admin_import.cpp
  Response archives(const Request& request, const std::vector<std::string_view>& path);  // admin_archive.cpp
  Response record_export(const Request& request);                          // admin_export.cpp
  Response describe_mode();                                                // admin_mode.cpp
  Response change_mode(const Request& request);

  Ledger& ledger_;
  const Credentials& credentials_;
  Tunnels& tunnels_;
  KubeletProbe probe_;
  HashChecker* hashes_;
  Archivist* archivist_ = nullptr;
  ModeSwitch* modes_ = nullptr;
  Upstreams* upstreams_ = nullptr;
  const ClusterConfig* cluster_ = nullptr;
  NodeObjects objects_;
  Compaction compaction_;  // the lane's
  EventStreams events_;
  class Lane;
  std::unique_ptr<Importer> importer_;  // of the import under way; the lane's
  std::unique_ptr<Lane> lane_;
};

}  // namespace ledger::api
