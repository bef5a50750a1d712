// What a kube-apiserver says about Node objects, taken apart: a page of a list, a line of a watch. Only name, uid
// and version are read, from whole Nodes and from PartialObjectMetadata.
//
// The texts come over the network and may be anything; errors are printable. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ledger/result.h"

namespace ledger::api {

struct KubeNode {
  std::string name, uid;  // neither is empty
};

struct KubeNodePage {
  std::vector<KubeNode> nodes;
  std::string version;  // resourceVersion of the list; not empty
  std::string next;     // the token of the next page; empty: this was the last
};
Result<KubeNodePage> read_node_page(std::string_view body);

struct KubeNodeEvent {
  enum class Type {
    exists,    // ADDED or MODIFIED
    deleted,   //
    bookmark,  // only `version`
    ended,     // only `message`: the server ends the watch (410 as a rule)
  };
  Type type = Type::bookmark;
  KubeNode node;
  std::string version;  // to watch on from; not empty
  std::string message;
};
Result<KubeNodeEvent> read_node_event(std::string_view line);

}  // namespace ledger::api
