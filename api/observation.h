// Registration with a server behind this one that decides (mode observe): a request goes there, what its answer means is
// written down in the words of our own decisions, marked with `authority`, and the answer leaves as it came. And the
// tunnel, which is passed on in both modes.
//
// What is recorded follows from the answer alone (verdict_of) and from what the log has as the name's binding when the
// record is written (records_of): the log learns which password the upstream has bound from the passwords that it
// admits. What we would have said is judged before the upstream is asked and stands beside it (Record::would_have).
// docs/EVENTS.md, "What an upstream decided".
//
// No answer is handed over before its record is durable; what cannot be recorded is 503. Where the upstream gives no
// answer, the connection is reset, as it would be without us, and a record says so.
//
// Order. Answers are recorded as they arrive here. Where two requests for one name overlap, that can be another order
// than the upstream's. With a store where the first wins this shows in nothing but the order of records: one of two
// passwords is admitted, the other refused, whichever comes first here. Only where a name is set free between the two
// can both be admitted; then the one recorded last counts until the name's next registration, which sets it right.
//
// Threads: every call from any thread; none blocks. What the constructor is given must outlive every reply.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/caller.h"
#include "api/generations.h"
#include "api/http.h"
#include "api/node_headers.h"
#include "api/registration.h"
#include "api/trust_probes.h"
#include "api/tunnel.h"
#include "api/upstream.h"

namespace ledger::api {

// ---- what an answer means: pure --------------------------------------------------------------------------------

// What a path gives to an agent.
enum class Asked {
  nothing,              // /cacerts, /ping: for everybody, never recorded
  document,
  shared_certificate,   // client-kube-proxy.crt, client-<program>-controller.crt
  kubelet_certificate,  // serving-kubelet.crt, client-kubelet.crt
};
struct Endpoint {
  Asked asked = Asked::document;
  Purpose purpose = Purpose::serving_kubelet;  // of a certificate
};
Endpoint endpoint_asked(std::string_view path, const Program& program);

// Who asks for what, as we read it, and what we would have said to it.
struct Question {
  Endpoint endpoint;
  Caller caller;
  std::string node;           // of the node headers, where it can be a node's name; else whom the caller claims to be
  std::vector<std::string> claimed;  // addresses
  Fingerprint presented;      // where a node password came with a name
  HeaderResult headers = HeaderResult::complete;
  std::string would_have;     // empty: cannot be told without a comparison that costs too much
  std::string generation;
};

// What the upstream did. Made from an answer whose body need not be kept.
struct Verdict {
  enum class Kind {
    admitted,
    token_refused,     // who asks
    password_refused,  // 403 that speaks of the node password
    request_refused,   // what is asked
    no_verdict,        // nothing about the caller: not ready, broken, too busy
    no_answer,
  };
  Kind kind = Kind::no_answer;
  int status = 0;
  bool wordless = false;  // it has a body of no bytes
  std::string upstream;
  std::optional<std::int64_t> took_ms;
  std::string reason;  // of request_rejected, where the answer says it; else our own judgement of the headers does
  std::optional<CertificateIssued> certificate;  // that the answer brings
  std::string note;
};
// Errors of `answer` are what Upstreams::exchange() ends with.
Verdict verdict_of(const Endpoint& endpoint, const Program& program, const Result<UpstreamAnswer>& answer);

// The records of a request, in order, when the name is as `state` says. The first binding's weakness is not filled in.
std::vector<Record> records_of(const Request& request, const Question& question, const Verdict& verdict,
                               const NodeState& state, const Program& program);

// ---- the way of a request --------------------------------------------------------------------------------------

class Observation {
 public:
  Observation(Ledger& ledger, const Credentials& credentials, const Issuer& issuer, Upstreams& upstreams,
              Tunnels& tunnels, Generations& generations, TrustProbes& probes)
      : ledger_(ledger),
        credentials_(credentials),
        issuer_(issuer),
        upstreams_(upstreams),
        tunnels_(tunnels),
        generations_(generations),
        probes_(probes) {}

  // A registration request, read whole.
  void observe(RequestPtr request, Reply reply);

  // The tunnel: how it is passed on. With `we_decide` only for a node that is registered here; nullptr: Registration is
  // to refuse it. tunnel_opened is durable before the 101 goes on; tunnel_closed follows at its end.
  std::shared_ptr<Passage> tunnel(const RequestPtr& head, bool we_decide);

 private:
  struct Exchange;
  struct Tunnel;
  Caller identify(const Request& request, const Endpoint& endpoint) const;
  Question question_of(const Request& request, NodeHeaders& headers) const;
  std::string would_have(const Request& request, const Caller& caller, const Endpoint& endpoint) const;
  void record(std::shared_ptr<Exchange> exchange);
  void recorded(Exchange& exchange, const Result<Committed>& outcome);
  Record tunnel_record(const Tunnel& tunnel, Event event) const;
  std::vector<Record> tunnel_records(const Tunnel& tunnel, const Verdict& verdict) const;
  void open_tunnel(const std::shared_ptr<Tunnel>& tunnel, const Passage::Head& head, Passage::GoOn go_on);

  Ledger& ledger_;
  const Credentials& credentials_;
  const Issuer& issuer_;
  Upstreams& upstreams_;
  Tunnels& tunnels_;
  Generations& generations_;
  TrustProbes& probes_;
};

}  // namespace ledger::api
