// Registration requests in front of an upstream: passed on. Nothing of them is recorded yet.
#pragma once
#include "api/generations.h"
#include "api/registration.h"
#include "api/trust_probes.h"
#include "api/upstream.h"
namespace ledger::api {
class Observation {
 public:
  Observation(Ledger&, const Credentials&, const Issuer& issuer, Upstreams& upstreams, Generations&, TrustProbes&) : issuer_(issuer), upstreams_(upstreams) {}
  void observe(RequestPtr request, Reply reply) {
    upstreams_.exchange(request, identity_for(*request, issuer_, Plane::supervisor), [reply](Result<UpstreamAnswer> answer) {
      Response r;
      if (!answer) { r.drop = true; } else { r.raw = answer->raw; r.keep_alive = answer->keep_alive; }
      reply(r);
    });
  }
  std::shared_ptr<Passage> tunnel(const RequestPtr& head, bool) { auto p = std::make_shared<Passage>(); p->plane = Plane::supervisor; p->as = identity_for(*head, issuer_, Plane::supervisor); return p; }
 private:
  const Issuer& issuer_;
  Upstreams& upstreams_;
};
}
