// The agents' side of the API: who may have what, and the record of it. One registration, told top to bottom,
// is register_node() in registration.cpp.
//
// No reply leaves before its records are durable. What cannot be recorded is answered 503, never 403 and
// never with a certificate. On the two kubelet endpoints 403 means a node password that does not fit, and
// nothing else does: agents print one fixed sentence for every 403 there.
//
// Threads: every call from any thread; none blocks; replies come from the writer's thread or the caller's own.
#pragma once

#include <functional>
#include <memory>

#include "api/caller.h"
#include "api/generations.h"
#include "api/http.h"
#include "api/node_headers.h"
#include "api/tunnel.h"
#include "ledger/credentials.h"
#include "ledger/hash_checker.h"
#include "ledger/issuer.h"
#include "ledger/ledger.h"

namespace ledger::api {

using RequestPtr = std::shared_ptr<const Request>;

class Registration {
 public:
  // `hashes`: for names that are bound by a hash of k3s; without it they are answered 503.
  Registration(Ledger& ledger, const Credentials& credentials, const Issuer& issuer, Tunnels& tunnels,
               Generations& generations, HashChecker* hashes = nullptr)
      : ledger_(ledger),
        credentials_(credentials),
        issuer_(issuer),
        tunnels_(tunnels),
        hashes_(hashes),
        generations_(generations) {}

  // A document for anyone with one of these roles: config, CA files, readyz, apiservers, endpoints.
  void document(RequestPtr request, Reply reply, std::initializer_list<Role> allowed, Response document);
  // serving-kubelet.crt and client-kubelet.crt: the node password is checked, first use binds the name.
  void kubelet_certificate(RequestPtr request, Reply reply, Purpose purpose);
  // client-kube-proxy.crt and client-<program>-controller.crt: no node is named.
  void shared_certificate(RequestPtr request, Reply reply, Purpose purpose);
  // Answers what a registration with these node headers would meet now, and changes nothing (`ledger doctor`).
  void check_node(RequestPtr request, Reply reply);
  // The websocket tunnel; a kubelet's client certificate only.
  void connect(RequestPtr request, Reply reply);

 private:
  struct Attempt;
  void gather(Attempt& attempt);
  void register_node(std::shared_ptr<Attempt> attempt);
  void check_hash(std::shared_ptr<Attempt> attempt);
  void refuse(std::shared_ptr<Attempt> attempt, Ruling ruling);
  void admit(std::shared_ptr<Attempt> attempt, Ruling ruling);
  void propose(std::shared_ptr<Attempt> attempt, Proposal proposal, Response ready);
  void give_up(const Attempt& attempt);
  void refuse_token(const RequestPtr& request, const Reply& reply, const Caller& caller, const std::string& node);
  bool is_stale(const Caller& caller) const;
  // For a caller who is known, about a request that is not as it must be.
  void refuse_request(const RequestPtr& request, const Reply& reply, const Caller& caller, HeaderResult why,
                      const std::string& detail = {});
  // Appends; replies with `success` once durable, with 503 or 429 when that cannot be.
  // With `request`, a token that ended before the record was written is refused as such.
  void record_then(Reply reply, Proposal proposal, Response success, RequestPtr request = nullptr);
  void token_ended(const RequestPtr& request, const Reply& reply);
  Caller identify(const Request& request, std::initializer_list<Role> allowed) const {
    return api::identify(request, credentials_, issuer_, ledger_, allowed);
  }

  Ledger& ledger_;
  const Credentials& credentials_;
  const Issuer& issuer_;
  Tunnels& tunnels_;
  HashChecker* hashes_;
  Generations& generations_;
};

}  // namespace ledger::api
