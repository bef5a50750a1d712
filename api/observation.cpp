#include "api/observation.h"

#include <strings.h>

#include <chrono>

#include "api/problem.h"

namespace ledger::api {
namespace {

// Each lost race means that another record of the name was written; who tries again goes before newcomers.
constexpr int kMaxTries = 64;

constexpr std::size_t kMaxCause = 200;

using Kind = Verdict::Kind;

void wipe(std::string& text) {
  explicit_bzero(text.data(), text.capacity());
  text.clear();
}

bool is_success(int status) { return status >= 200 && status < 300; }

// How k3s says that the identity may not have this, on whatever path. A node password that does not fit is always told
// in other words.
bool says_forbidden(std::string_view body) {
  return trim(body) == "forbidden" || body.find("\"message\":\"forbidden\"") != std::string_view::npos;
}

// 401 to a node that shows its certificate and has no Node object (any more).
bool says_node_unknown(std::string_view body) {
  return body.find("unable to verify node identity") != std::string_view::npos;
}

// The certificate in a 2xx. A key in k3s' answers is the one that it gives to everybody; where there is none, the key is
// that of the agent's request.
std::optional<CertificateIssued> certificate_in(std::string_view body, Purpose purpose, const Program& program) {
  const Result<IssuedCertificate> read = read_issued(body);
  if (!read) return std::nullopt;
  CertificateIssued issued = issued_event(*read, purpose, program);
  issued.key = body.find("PRIVATE KEY-----") == std::string_view::npos ? "csr" : "shared";
  return issued;
}

Kind kind_of(const Endpoint& endpoint, const UpstreamAnswer& answer) {
  const int status = answer.status;
  if (is_success(status)) return Kind::admitted;
  if (status == 400) return Kind::request_refused;
  if (status == 401) return says_node_unknown(answer.body) ? Kind::request_refused : Kind::token_refused;
  if (status != 403) return Kind::no_verdict;
  const bool of_password = endpoint.asked == Asked::kubelet_certificate && !says_forbidden(answer.body);
  return of_password ? Kind::password_refused : Kind::token_refused;
}

bool is_tunnel(std::string_view path) { return path.ends_with("/connect"); }

}  // namespace

// ---- what an answer means --------------------------------------------------------------------------------------

Endpoint endpoint_asked(std::string_view path, const Program& program) {
  if (path == "/cacerts" || path == "/ping") return {.asked = Asked::nothing};
  if (!path.starts_with(program.path_prefix)) return {};
  path.remove_prefix(program.path_prefix.size());
  const std::optional<Purpose> purpose = purpose_of(path, program);
  if (!purpose) return {};
  const bool of_kubelet = *purpose == Purpose::serving_kubelet || *purpose == Purpose::client_kubelet;
  return {of_kubelet ? Asked::kubelet_certificate : Asked::shared_certificate, *purpose};
}

Verdict verdict_of(const Endpoint& endpoint, const Program& program, const Result<UpstreamAnswer>& answer) {
  Verdict verdict;
  if (!answer) {
    verdict.reason = kUpstreamUnavailable;
    verdict.note = printable(answer.error().message, kMaxCause);
    return verdict;
  }
  verdict.kind = kind_of(endpoint, *answer);
  verdict.status = answer->status;
  verdict.wordless = answer->body.empty();
  verdict.upstream = answer->upstream;
  verdict.took_ms = answer->took.count();
  if (verdict.kind == Kind::no_verdict) verdict.reason = kUpstreamError;
  if (verdict.kind == Kind::request_refused && answer->status == 401)
    verdict.reason = reason_name(HeaderResult::node_unknown);
  if (answer->status == 500 && verdict.wordless)
    verdict.note = "k3s before v1.20.4 answers credentials that are not accepted so";
  const bool gives_certificate = endpoint.asked == Asked::kubelet_certificate || endpoint.asked == Asked::shared_certificate;
  if (verdict.kind != Kind::admitted || !gives_certificate) return verdict;
  verdict.certificate = certificate_in(answer->body, endpoint.purpose, program);
  if (!verdict.certificate) verdict.note = "there is no certificate in the answer that can be read";
  return verdict;
}

namespace {

// Makes the records of one request.
struct Scribe {
  const Request& request;
  const Question& question;
  const Verdict& verdict;
  const Program& program;
  std::vector<Record> records{};

  bool of_kubelet() const { return question.endpoint.asked == Asked::kubelet_certificate; }
  bool token_is_good() const { return question.caller.result == TokenResult::accepted; }

  void add(Record record) {
    record.authority = kUpstreamAuthority;
    record.upstream = verdict.upstream;
    record.answered = verdict.status;
    record.took_ms = verdict.took_ms;
    record.would_have = question.would_have;
    record.claimed = question.claimed;
    if (!question.generation.empty()) record.generation = question.generation;
    records.push_back(std::move(record));
  }
  void add(Event event, std::string node) {
    Record record = record_of(request, question.caller, std::move(event));
    record.node = std::move(node);
    if (is_refusal(record.kind())) record.note = verdict.note;
    add(std::move(record));
  }
  // Whom a refusal is about, where no node headers are asked for.
  std::string claimed() const {
    if (!question.node.empty()) return question.node;
    if (!question.caller.node.empty()) return question.caller.node;
    const std::string name = claimed_in_header(request, program);
    return name.empty() ? question.caller.claimed_node : name;
  }

  void token_accepted() {
    Record record = record_of(request, question.caller, TokenAccepted{});
    if (of_kubelet()) record.node = question.node;
    record.note = verdict.kind == Kind::admitted ? verdict.note : "";
    if (!token_is_good()) {
      if (!record.note.empty()) record.note += "; ";
      record.note += "here its credentials would be refused: " + refusal_reason(question.caller);
      if (!question.caller.old_token.empty()) record.note += " (token " + question.caller.old_token + ")";
    }
    add(std::move(record));
  }
  void token_refused() {
    Record record = refused_token(request, question.caller, verdict.status, question.node, program);
    if (token_is_good()) std::get<TokenRejected>(record.event).reason.clear();
    add(std::move(record));
  }
  void request_refused() {
    std::string reason = verdict.reason;
    if (reason.empty()) {
      const bool ours = question.headers != HeaderResult::complete;
      reason = reason_name(ours ? question.headers : HeaderResult::bad_request);
    }
    add(RequestRejected{.status = verdict.status, .reason = std::move(reason)}, claimed());
  }
  void password_refused(const NodeState& state) {
    if (question.node.empty() || !question.presented.known()) return request_refused();
    // Bound to the very password that it refuses: it knows another, which nobody here does.
    const Fingerprint bound = state.bound == question.presented ? Fingerprint{} : state.bound;
    add(PasswordRejected{.fingerprint = question.presented, .bound = bound, .status = verdict.status}, question.node);
  }
  void password_admitted(const NodeState& state) {
    if (!state.is_bound()) return add(PasswordStored{question.presented}, question.node);
    add(PasswordVerified{question.presented}, question.node);
  }
  void admitted(const NodeState& state) {
    const bool binds = of_kubelet() && !question.node.empty() && question.presented.known();
    if (binds && state.bound.known() && state.bound != question.presented)
      add(BindingChanged{.actor = {}, .by = "outside", .from = state.bound, .to = question.presented}, question.node);
    token_accepted();
    if (binds) password_admitted(state);
    if (verdict.certificate) add(*verdict.certificate, of_kubelet() ? question.node : "");
  }
};

}  // namespace

std::vector<Record> records_of(const Request& request, const Question& question, const Verdict& verdict,
                               const NodeState& state, const Program& program) {
  if (question.endpoint.asked == Asked::nothing) return {};
  Scribe scribe{request, question, verdict, program};
  switch (verdict.kind) {
    case Kind::admitted: scribe.admitted(state); break;
    case Kind::token_refused: scribe.token_refused(); break;
    case Kind::password_refused:
      // k3s v1.20.4 to v1.23.5 says nothing at all to credentials that are missing or another role's.
      if (verdict.wordless && !scribe.token_is_good()) {
        scribe.token_refused();
        break;
      }
      scribe.token_accepted();  // k3s looks at the password of those it knows only
      scribe.password_refused(state);
      break;
    case Kind::request_refused:
      if (scribe.token_is_good()) scribe.token_accepted();
      scribe.request_refused();
      break;
    case Kind::no_verdict:
    case Kind::no_answer: scribe.request_refused(); break;
  }
  return std::move(scribe.records);
}

// ---- our own judgement -----------------------------------------------------------------------------------------

Caller Observation::identify(const Request& request, const Endpoint& endpoint) const {
  const auto who = [&](std::initializer_list<Role> allowed) {
    return api::identify(request, credentials_, issuer_, ledger_, allowed);
  };
  if (request.path == "/apis") return who({Role::agent, Role::server, Role::node, Role::controller});
  if (endpoint.asked == Asked::document && request.path.ends_with("/p2p"))
    return who({Role::agent, Role::node, Role::controller});
  if (endpoint.asked == Asked::document && is_tunnel(request.path)) return who({Role::node});
  return who({Role::agent, Role::node});
}

// Of a document, a shared certificate or the tunnel, as Registration would.
std::string Observation::would_have(const Request& request, const Caller& caller, const Endpoint& endpoint) const {
  if (caller.result != TokenResult::accepted) return std::string(name_of(Ruling::refuse_token));
  const bool stale = caller.role == Role::node && !ledger_.find(caller.node).is_bound();
  const bool bad_key = endpoint.asked == Asked::shared_certificate && !BroughtKey(request).fault.empty();
  return stale || bad_key ? std::string(name_of(Ruling::refuse_headers)) : std::string(kWouldServe);
}

Question Observation::question_of(const Request& request, NodeHeaders& headers) const {
  Question question;
  question.endpoint = endpoint_asked(request.path, issuer_.program());
  if (question.endpoint.asked == Asked::nothing) return question;
  question.caller = identify(request, question.endpoint);
  if (question.endpoint.asked != Asked::kubelet_certificate) {
    question.would_have = would_have(request, question.caller, question.endpoint);
    return question;
  }
  headers = parse_headers(request, question.caller, issuer_.program());
  question.node = headers.name.str();
  question.claimed = headers.addresses;
  NodeState state;
  if (!question.node.empty()) state = ledger_.find(question.node);
  if (!question.node.empty() && !headers.password.empty()) {
    question.presented = credentials_.fingerprint_of_password(headers.password);
    question.generation = generations_.of_registration(request, question.node, question.presented);
  }
  if (question.caller.role == Role::node && !state.is_bound()) headers.fail(HeaderResult::node_unknown);
  if (!BroughtKey(request).fault.empty()) headers.fail(HeaderResult::bad_csr);
  question.headers = headers.result;
  const Ruling ruling = decide({question.caller.result, headers.result, state, question.presented});
  // To compare with a hash costs a tenth of a second of one core; the upstream does it anyway.
  if (ruling != Ruling::refuse_unverified) question.would_have = name_of(ruling);
  return question;
}

// ---- one request -----------------------------------------------------------------------------------------------

struct Observation::Exchange {
  RequestPtr request;
  Reply reply;
  NodeHeaders headers;
  Question question;
  Verdict verdict;
  Response ready;  // once the records are durable
  int tries = 0;

  ~Exchange() { wipe(ready.raw); }
};

void Observation::observe(RequestPtr request, Reply reply) {
  auto exchange = std::make_shared<Exchange>();
  exchange->request = std::move(request);
  exchange->reply = std::move(reply);
  if (exchange->request->path == "/cacerts") probes_.cacerts_asked(exchange->request->source);
  exchange->question = question_of(*exchange->request, exchange->headers);
  UpstreamIdentity as = identity_for(*exchange->request, issuer_, Plane::supervisor);
  upstreams_.exchange(exchange->request, std::move(as), [this, exchange](Result<UpstreamAnswer> answer) {
    exchange->verdict = verdict_of(exchange->question.endpoint, issuer_.program(), answer);
    if (answer) {
      exchange->ready.keep_alive = answer->keep_alive;
      exchange->ready.raw = std::move(answer->raw);
      wipe(answer->body);  // may hold a private key, as `raw` does
    } else {
      exchange->ready.drop = true;
    }
    record(exchange);
  });
}

// A view that is stale when it is written is looked at anew: the upstream's verdict stays, but whether its password is
// the name's first depends on what was recorded meanwhile.
void Observation::record(std::shared_ptr<Exchange> exchange) {
  const Question& question = exchange->question;
  const NodeState state = question.node.empty() ? NodeState{} : ledger_.find(question.node);
  Proposal proposal;
  proposal.records = records_of(*exchange->request, question, exchange->verdict, state, issuer_.program());
  if (proposal.records.empty()) return exchange->reply(std::move(exchange->ready));
  for (Record& record : proposal.records)
    if (auto* const stored = std::get_if<PasswordStored>(&record.event))
      *stored = first_binding(ledger_, exchange->headers, question.presented);
  if (!question.node.empty()) proposal.expect = Proposal::Expect{question.node, state.version};
  ledger_.append(std::move(proposal), [this, exchange](const Result<Committed>& outcome) {
    const bool stale = !outcome && outcome.error().code == Errc::conflict;
    if (!stale || ++exchange->tries == kMaxTries) return recorded(*exchange, outcome);
    // Or the token has ended meanwhile; the upstream has accepted it all the same.
    exchange->question.caller = identify(*exchange->request, exchange->question.endpoint);
    record(exchange);
  });
}

void Observation::recorded(Exchange& exchange, const Result<Committed>& outcome) {
  const Question& question = exchange.question;
  if (!outcome) {
    Error error = outcome.error();
    if (error.code == Errc::conflict) error = {Errc::unavailable, "this name is changing too fast to be recorded; try again"};
    return exchange.reply(to_response(problem_of(error)));
  }
  if (exchange.verdict.kind == Kind::admitted) {
    if (question.endpoint.asked == Asked::kubelet_certificate && question.presented.known())
      generations_.admitted(*exchange.request, question.node, question.presented);
    else if (question.endpoint.asked == Asked::document)
      generations_.served(*exchange.request, question.caller.node);
  }
  exchange.reply(std::move(exchange.ready));
}

// ---- the tunnel ------------------------------------------------------------------------------------------------

struct Observation::Tunnel {
  RequestPtr request;
  Question question;
  bool we_decided = false;
  std::string upstream;
  int answered = 0;
  std::shared_ptr<TunnelSession> session;  // while it is open: one that we only carry
};

std::shared_ptr<Passage> Observation::tunnel(const RequestPtr& head, bool we_decide) {
  auto tunnel = std::make_shared<Tunnel>();
  tunnel->request = head;
  tunnel->we_decided = we_decide;
  Question& question = tunnel->question;
  question.caller = identify(*head, question.endpoint);
  question.would_have = would_have(*head, question.caller, question.endpoint);
  if (we_decide && (question.would_have != kWouldServe || !head->websocket)) return nullptr;
  auto passage = std::make_shared<Passage>();
  passage->plane = Plane::supervisor;
  passage->as = identity_for(*head, issuer_, Plane::supervisor);
  passage->drop_on_failure = !we_decide;
  passage->on_answer = [this, tunnel](const Passage::Head& answer, Passage::GoOn go_on) {
    open_tunnel(tunnel, answer, std::move(go_on));
  };
  passage->on_end = [tunnel](std::string_view cause) { tunnel->session->on_close(printable(cause, kMaxCause)); };
  return passage;
}

namespace {

Verdict tunnel_verdict(const Passage::Head& head, const Program& program) {
  UpstreamAnswer answer;
  answer.upstream = head.upstream;
  answer.took = head.took;
  // A 2xx is no tunnel, and not what any agent expects.
  answer.status = head.status == 101 ? 200 : is_success(head.status) ? 502 : head.status;
  if (head.status == 0) return verdict_of({}, program, Error{Errc::unavailable, "it gave no answer"});
  Verdict verdict = verdict_of({}, program, answer);
  verdict.status = head.status;
  return verdict;
}

}  // namespace

Record Observation::tunnel_record(const Tunnel& tunnel, Event event) const {
  Record record = record_of(*tunnel.request, tunnel.question.caller, std::move(event));
  record.node = tunnel.question.caller.node;
  record.upstream = tunnel.upstream;
  record.answered = tunnel.answered;
  if (tunnel.we_decided) return record;
  record.authority = kUpstreamAuthority;
  record.would_have = tunnel.question.would_have;
  return record;
}

// What we decided for, and the upstream against, is nothing that the caller did.
std::vector<Record> Observation::tunnel_records(const Tunnel& tunnel, const Verdict& verdict) const {
  std::vector<Record> records;
  if (!tunnel.we_decided && verdict.kind != Kind::admitted)
    return records_of(*tunnel.request, tunnel.question, verdict, {}, issuer_.program());
  records.push_back(tunnel_record(tunnel, TokenAccepted{}));
  if (verdict.kind == Kind::admitted) {
    records.push_back(tunnel_record(tunnel, TunnelOpened{tunnel.request->id}));
  } else {
    const std::string_view reason = verdict.kind == Kind::no_answer ? kUpstreamUnavailable : kUpstreamError;
    records.push_back(tunnel_record(tunnel, RequestRejected{.status = verdict.status, .reason = std::string(reason)}));
  }
  for (Record& record : records) record.took_ms = verdict.took_ms;
  return records;
}

void Observation::open_tunnel(const std::shared_ptr<Tunnel>& tunnel, const Passage::Head& head, Passage::GoOn go_on) {
  const Verdict verdict = tunnel_verdict(head, issuer_.program());
  tunnel->upstream = head.upstream;
  tunnel->answered = head.status;
  Proposal proposal;
  proposal.records = tunnel_records(*tunnel, verdict);
  const bool opens = verdict.kind == Kind::admitted;
  ledger_.append(std::move(proposal), [this, tunnel, opens, go_on = std::move(go_on)](const Result<Committed>& outcome) {
    if (!outcome) {
      Error error = outcome.error();
      if (error.code == Errc::conflict) error = {Errc::unavailable, "the tokens changed meanwhile; try again"};
      return go_on(to_response(problem_of(error)));
    }
    if (opens) {
      const std::string& node = tunnel->question.caller.node;
      generations_.tunnel_opened(*tunnel->request, node);
      tunnel->session = tunnels_.open(tunnel_record(*tunnel, TunnelClosed{}), node);
      tunnel->session->attach([](const std::string&) { return false; });
    }
    go_on(std::nullopt);
  });
}

}  // namespace ledger::api
