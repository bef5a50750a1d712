#include "api/registration.h"

#include <boost/json.hpp>
#include <optional>

#include "api/problem.h"

namespace ledger::api {
namespace {

constexpr int kMaxAttempts = 8;  // each lost race means that somebody else's registration went through

std::string not_registered(const std::string& node) { return "node " + node + " is not registered (any more)"; }

void add_seq(Response& response, const Result<Committed>& outcome) {
  if (outcome) response.headers.emplace_back("Ledger-Seq", std::to_string(outcome->last()));
}

Response certificate_response(const IssuedCertificate& certificate) {
  Response response;
  response.body = certificate.leaf_pem + certificate.ca_pem;
  response.body += certificate.key_pem.reveal();
  return response;
}

// Why a password could not be compared with the hash its name is bound by.
Error unverified(const std::optional<HashChecker::Answer>& answer, const std::string& node) {
  if (answer == HashChecker::Answer::busy)
    return {Errc::overloaded, "too many imported passwords are being verified; try again in a second"};
  if (answer == HashChecker::Answer::unavailable)
    return {Errc::unavailable, "there is no memory to verify an imported password; try again"};
  return {Errc::unavailable, "node " + node + " is bound by an imported hash of k3s which is not kept here (any more): "
                             "import the Secrets again, or release the name (ledger import --help)"};
}

}  // namespace

// ---- documents -------------------------------------------------------------------------------------------

void Registration::document(RequestPtr request, Reply reply, std::initializer_list<Role> allowed, Response document) {
  const Caller caller = identify(*request, allowed);
  if (caller.result != TokenResult::accepted) return refuse_token(request, reply, caller, "");
  if (is_stale(caller)) return refuse_request(request, reply, caller, HeaderResult::node_unknown);
  generations_.served(*request, caller.node);
  Proposal proposal;
  proposal.records.push_back(record_of(*request, caller, TokenAccepted{}));
  record_then(std::move(reply), std::move(proposal), std::move(document), std::move(request));
}

void Registration::shared_certificate(RequestPtr request, Reply reply, Purpose purpose) {
  const Caller caller = identify(*request, {Role::agent, Role::node});
  if (caller.result != TokenResult::accepted) return refuse_token(request, reply, caller, "");
  if (is_stale(caller)) return refuse_request(request, reply, caller, HeaderResult::node_unknown);
  const BroughtKey brought(*request);
  if (!brought.fault.empty()) return refuse_request(request, reply, caller, HeaderResult::bad_csr, brought.fault);
  const Result<IssuedCertificate> certificate = issuer_.issue(purpose, {}, {}, Time::now(), brought.get());
  if (!certificate) return reply(to_response(problem_of(Error{Errc::unavailable, certificate.error().message})));
  Proposal proposal;
  proposal.records.push_back(record_of(*request, caller, TokenAccepted{}));
  proposal.records.push_back(record_of(*request, caller, issued_event(*certificate, purpose, issuer_.program())));
  record_then(std::move(reply), std::move(proposal), certificate_response(*certificate), std::move(request));
}

// ---- one registration ------------------------------------------------------------------------------------

struct Registration::Attempt {
  RequestPtr request;
  Reply reply;
  Purpose purpose;
  Caller caller;
  NodeHeaders headers;
  std::optional<BroughtKey> brought;
  Evidence evidence;
  std::string generation;
  int tries = 0;
  bool admitted = false;  // by the last ruling
  // What came of comparing the password with the hash that this version of the node is bound by.
  std::optional<HashChecker::Answer> hash_answer{};
  Seq hash_version = 0;

  bool needs_hash() const {
    return evidence.token == TokenResult::accepted && evidence.headers == HeaderResult::complete &&
           evidence.node.bound_by_hash;
  }
  bool matched_hash() const { return needs_hash() && hash_answer == HashChecker::Answer::match; }

  Record record(Event event) const {
    Record record = record_of(*request, caller, std::move(event));
    record.node = headers.name.str();
    record.claimed = headers.addresses;
    record.generation = generation;
    return record;
  }
};

void Registration::kubelet_certificate(RequestPtr request, Reply reply, Purpose purpose) {
  auto attempt = std::make_shared<Attempt>();
  attempt->request = std::move(request);
  attempt->reply = std::move(reply);
  attempt->purpose = purpose;
  register_node(std::move(attempt));
}

// Who asks, and for which node. The token is judged anew at every try: it may have ended since the last.
void Registration::gather(Attempt& attempt) {
  const Request& request = *attempt.request;
  attempt.caller = identify(request, {Role::agent, Role::node});
  attempt.headers = parse_headers(request, attempt.caller, issuer_.program());
  attempt.evidence.token = attempt.caller.result;
  attempt.generation = Generations::of_request(request);
  if (attempt.caller.result != TokenResult::accepted || attempt.headers.result != HeaderResult::complete) return;
  attempt.evidence.presented = credentials_.fingerprint_of_password(attempt.headers.password);
  attempt.generation =
      generations_.of_registration(request, attempt.headers.name.str(), attempt.evidence.presented);
  if (!attempt.brought) attempt.brought.emplace(request);
}

// Gather the evidence, decide, record, answer. A view that went stale before the record was written comes
// back here: the first registration of a name wins, the others decide again and find it bound.
void Registration::register_node(std::shared_ptr<Attempt> attempt) {
  gather(*attempt);
  Evidence& evidence = attempt->evidence;
  NodeHeaders& headers = attempt->headers;
  if (!headers.name.str().empty()) evidence.node = ledger_.find(headers.name.str());
  if (attempt->caller.role == Role::node && !evidence.node.is_bound())
    headers.fail(HeaderResult::node_unknown, not_registered(headers.name.str()));
  if (attempt->brought && !attempt->brought->fault.empty())
    headers.fail(HeaderResult::bad_csr, attempt->brought->fault);
  evidence.headers = headers.result;
  evidence.hash_match.reset();
  attempt->admitted = false;
  if (attempt->needs_hash()) {
    if (hashes_ != nullptr && (!attempt->hash_answer || attempt->hash_version != evidence.node.version))
      return check_hash(std::move(attempt));
    if (attempt->hash_answer == HashChecker::Answer::match) evidence.hash_match = true;
    if (attempt->hash_answer == HashChecker::Answer::mismatch) evidence.hash_match = false;
  }
  const Ruling ruling = decide(evidence);
  if (admitted(ruling))
    admit(std::move(attempt), ruling);
  else
    refuse(std::move(attempt), ruling);
}

// scrypt takes a tenth of a second: on threads of its own. The way goes on in register_node, which looks again.
void Registration::check_hash(std::shared_ptr<Attempt> attempt) {
  const Attempt& asked = *attempt;
  const auto answered = [this, attempt](HashChecker::Answer answer) {
    attempt->hash_answer = answer;
    attempt->hash_version = attempt->evidence.node.version;
    register_node(attempt);
  };
  hashes_->check(asked.headers.name.str(), asked.evidence.node, asked.evidence.presented, asked.headers.password,
                 answered);
}

void Registration::refuse(std::shared_ptr<Attempt> attempt, Ruling ruling) {
  if (ruling == Ruling::refuse_token)
    return refuse_token(attempt->request, attempt->reply, attempt->caller, attempt->headers.name.str());
  Proposal proposal;
  proposal.records.push_back(attempt->record(TokenAccepted{}));
  Problem problem;
  if (ruling == Ruling::refuse_headers) {
    problem = problem_of(attempt->evidence.headers, attempt->headers.detail);
    const std::string reason(reason_name(attempt->evidence.headers));
    proposal.records.push_back(attempt->record(RequestRejected{.status = problem.status, .reason = reason}));
  } else if (ruling == Ruling::refuse_unverified) {
    problem = problem_of(unverified(attempt->hash_answer, attempt->headers.name.str()));
    const char* reason = problem.status == 429 ? "overloaded" : "store_unavailable";
    Record record = attempt->record(RequestRejected{.status = problem.status, .reason = reason});
    record.note = "the name is bound by a hash of k3s that the password could not be compared with";
    proposal.records.push_back(std::move(record));
  } else {
    problem = problem_of(ruling, attempt->headers.name.str(), attempt->evidence.node);
    proposal.records.push_back(attempt->record(PasswordRejected{.fingerprint = attempt->evidence.presented,
                                                                .bound = attempt->evidence.node.bound,
                                                                .status = problem.status}));
    // A refusal too must follow from the state it stands behind, or replay would judge it otherwise.
    proposal.expect = Proposal::Expect{attempt->headers.name.str(), attempt->evidence.node.version};
  }
  propose(std::move(attempt), std::move(proposal), to_response(problem));
}

// The certificate is signed before the record is written and leaves after it: one sync instead of two, and a
// certificate whose record failed is thrown away unseen (docs/decisions/0003-sign-then-record.md).
void Registration::admit(std::shared_ptr<Attempt> attempt, Ruling ruling) {
  const NodeName& name = attempt->headers.name;
  const Result<IssuedCertificate> certificate =
      issuer_.issue(attempt->purpose, name, attempt->headers.addresses, Time::now(), attempt->brought->get());
  if (!certificate)
    return attempt->reply(to_response(problem_of(Error{Errc::unavailable, certificate.error().message})));

  generations_.admitted(*attempt->request, name.str(), attempt->evidence.presented);
  Proposal proposal;
  proposal.records.push_back(attempt->record(TokenAccepted{}));
  if (ruling == Ruling::admit_first)
    proposal.records.push_back(attempt->record(first_binding(ledger_, attempt->headers, attempt->evidence.presented)));
  else
    proposal.records.push_back(attempt->record(PasswordVerified{attempt->evidence.presented}));
  proposal.records.push_back(attempt->record(issued_event(*certificate, attempt->purpose, issuer_.program())));
  proposal.expect = Proposal::Expect{name.str(), attempt->evidence.node.version};

  attempt->admitted = true;
  propose(std::move(attempt), std::move(proposal), certificate_response(*certificate));
}

// Replies once the records are durable; a view that is stale by then is decided anew.
void Registration::propose(std::shared_ptr<Attempt> attempt, Proposal proposal, Response ready) {
  auto response = std::make_shared<Response>(std::move(ready));
  ledger_.append(std::move(proposal), [this, attempt, response](const Result<Committed>& outcome) {
    const bool stale = !outcome && outcome.error().code == Errc::conflict;
    if (stale && ++attempt->tries < kMaxAttempts) return register_node(attempt);
    if (stale) return give_up(*attempt);
    if (!outcome) *response = to_response(problem_of(outcome.error()));
    add_seq(*response, outcome);
    attempt->reply(std::move(*response));
    if (outcome && attempt->admitted && hashes_ != nullptr)
      hashes_->verified(attempt->headers.name.str(), attempt->evidence.presented, attempt->headers.password,
                        attempt->matched_hash());
  });
}

void Registration::give_up(const Attempt& attempt) {
  const Problem problem = problem_of(Error{Errc::overloaded, "this name is changing too fast; try again"});
  Record record = attempt.record(RequestRejected{.status = problem.status, .reason = "overloaded"});
  record.note = "the name changed at every try";
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  record_then(attempt.reply, std::move(proposal), to_response(problem));
}

// ---- a question ------------------------------------------------------------------------------------------

namespace {

// The verdict of check-node. It says no more than an attempt to register would.
std::string_view verdict_of(Ruling ruling, const NodeState& state) {
  if (ruling == Ruling::admit_first) return "free";
  if (ruling == Ruling::admit_known) return "bound";
  if (ruling == Ruling::refuse_held) return "held";
  return state.bound_by_hash ? "hashed" : "mismatch";
}

}  // namespace

// Its only record is the token's, as for any document. The record's note has the verdict, so that somebody who
// tries passwords here is seen in the node's history as one who registers is.
void Registration::check_node(RequestPtr request, Reply reply) {
  if (request->method != "GET") return reply(to_response(method_not_allowed("GET")));
  const Caller caller = identify(*request, {Role::agent, Role::node});
  const NodeHeaders headers = parse_headers(*request, caller, issuer_.program());
  if (caller.result != TokenResult::accepted) return refuse_token(request, reply, caller, headers.name.str());
  Record record = record_of(*request, caller, TokenAccepted{});
  record.node = headers.name.str();
  record.generation.clear();  // it is no agent that asks
  Response response;
  if (headers.result != HeaderResult::complete) {
    response = to_response(problem_of(headers.result, headers.detail));
  } else {
    const NodeState state = ledger_.find(headers.name.str());
    const Ruling ruling = decide(
        {TokenResult::accepted, HeaderResult::complete, state, credentials_.fingerprint_of_password(headers.password)});
    const std::string verdict(verdict_of(ruling, state));
    record.note = "asked without registering: " + verdict;
    response.content_type = "application/json";
    response.body = boost::json::serialize(boost::json::object{
                        {"node", headers.name.str()}, {"verdict", verdict}, {"since", state.since}}) +
                    "\n";
  }
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  record_then(std::move(reply), std::move(proposal), std::move(response), std::move(request));
}

// ---- the tunnel ------------------------------------------------------------------------------------------

void Registration::connect(RequestPtr request, Reply reply) {
  const Caller caller = identify(*request, {Role::node});
  if (caller.result != TokenResult::accepted) return refuse_token(request, reply, caller, "");
  if (is_stale(caller)) return refuse_request(request, reply, caller, HeaderResult::node_unknown);
  if (!request->websocket)
    return refuse_request(request, reply, caller, HeaderResult::bad_request,
                          "this is a websocket endpoint: GET with Upgrade: websocket, version 13");
  Proposal proposal;
  generations_.tunnel_opened(*request, caller.node);
  for (Event event : {Event(TokenAccepted{}), Event(TunnelOpened{request->id})}) {
    proposal.records.push_back(record_of(*request, caller, std::move(event)));
    proposal.records.back().node = caller.node;
  }
  Response response;
  response.status = 101;
  response.tunnel = tunnels_.open(record_of(*request, caller, TunnelClosed{}), caller.node);
  record_then(std::move(reply), std::move(proposal), std::move(response), std::move(request));
}

// ---- common ends -----------------------------------------------------------------------------------------

void Registration::refuse_token(const RequestPtr& request, const Reply& reply, const Caller& caller,
                                const std::string& node) {
  const Problem problem = problem_of(caller.result);
  Proposal proposal;
  proposal.records.push_back(refused_token(*request, caller, problem.status, node, issuer_.program()));
  record_then(reply, std::move(proposal), to_response(problem));
}

// A certificate outlives what it was issued for: alone it speaks for its node only while the name is bound. The
// agent then asks again without it, with its token.
bool Registration::is_stale(const Caller& caller) const {
  return caller.role == Role::node && !ledger_.find(caller.node).is_bound();
}

void Registration::refuse_request(const RequestPtr& request, const Reply& reply, const Caller& caller,
                                  HeaderResult why, const std::string& detail) {
  const Problem problem =
      problem_of(why, why == HeaderResult::node_unknown ? not_registered(caller.node) : detail);
  const RequestRejected rejected{.status = problem.status, .reason = std::string(reason_name(why))};
  Proposal proposal;
  for (Event event : {Event(TokenAccepted{}), Event(rejected)}) {
    proposal.records.push_back(record_of(*request, caller, std::move(event)));
    proposal.records.back().node =
        caller.node.empty() ? claimed_in_header(*request, issuer_.program()) : caller.node;
  }
  record_then(reply, std::move(proposal), to_response(problem), request);
}

void Registration::record_then(Reply reply, Proposal proposal, Response success, RequestPtr request) {
  auto response = std::make_shared<Response>(std::move(success));
  ledger_.append(std::move(proposal), [this, reply, response, request](const Result<Committed>& outcome) {
    if (!outcome && outcome.error().code == Errc::conflict) return token_ended(request, reply);
    if (!outcome) *response = to_response(problem_of(outcome.error()));
    add_seq(*response, outcome);
    reply(std::move(*response));
  });
}

// The token was good when the request came and had ended when its record was to be written.
void Registration::token_ended(const RequestPtr& request, const Reply& reply) {
  if (request != nullptr) {
    const Caller caller = identify(*request, {Role::agent, Role::server, Role::node, Role::controller});
    if (caller.result != TokenResult::accepted) return refuse_token(request, reply, caller, "");
  }
  reply(to_response(problem_of(Error{Errc::unavailable, "the tokens changed meanwhile; try again"})));
}

}  // namespace ledger::api
