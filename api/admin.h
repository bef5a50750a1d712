// The operators' API, /ledger/v1/...: nodes, their history and explanation, the three remedies, and tokens. Needs an
// operator token (Bearer); one with the role `read` may only look. docs/HTTP_API.md lists it.
//
// Threads: handle() from any thread, never blocks: the work runs on one thread of its own, because it reads
// histories and waits for the disk; a short queue before it answers 429 when it is full.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "api/registration.h"
#include "ledger/credentials.h"
#include "ledger/ledger.h"

namespace ledger::api {

class Admin {
 public:
  Admin(Ledger& ledger, const Credentials& credentials);
  ~Admin();  // finishes what is queued

  void handle(RequestPtr request, Reply reply);

 private:
  void refuse(const Request& request, const OperatorCaller& caller, Reply reply);
  Response answer(const Request& request);
  Response tokens(const Request& request, const std::vector<std::string_view>& path);
  Response node_action(const Request& request, const NodeName& node, std::string_view action);

  Ledger& ledger_;
  const Credentials& credentials_;
  class Lane;
  std::unique_ptr<Lane> lane_;
};

}  // namespace ledger::api
