#include "api/registration.h"

#include <boost/asio/ip/address.hpp>

#include "api/problem.h"

namespace ledger::api {
namespace {

constexpr const char* kNodeName = "k3s-node-name";
constexpr const char* kNodePassword = "k3s-node-password";
constexpr const char* kNodeIp = "k3s-node-ip";
constexpr std::size_t kMaxPassword = 1024;
constexpr std::size_t kMaxAddresses = 16;
constexpr int kMaxAttempts = 8;  // each lost race means that somebody else's registration went through

// What the request says about its node, taken apart once.
struct NodeHeaders {
  HeaderResult result = HeaderResult::complete;
  std::string detail;  // for the person, where the result needs one
  NodeName name;
  std::vector<std::string> addresses;  // claimed, canonical
  Secret password;

  void fail(HeaderResult why, std::string said = {}) {
    if (result != HeaderResult::complete) return;
    result = why;
    detail = std::move(said);
  }
};

void parse_addresses(std::string_view list, NodeHeaders& headers) {
  bool more = !list.empty();
  while (more) {
    const auto comma = list.find(',');
    const std::string text(trim(list.substr(0, comma)));
    more = comma != std::string_view::npos;
    if (more) list.remove_prefix(comma + 1);
    boost::system::error_code error;
    const auto address = boost::asio::ip::make_address(text, error);
    // A zone ("fe80::1%eth0") means nothing off its machine and has no place in a certificate.
    const bool has_zone = text.find('%') != std::string::npos;
    if (error || has_zone || headers.addresses.size() == kMaxAddresses)
      return headers.fail(HeaderResult::bad_request,
                          "K3s-Node-Ip is not a comma list of at most 16 IP addresses: '" + printable(text, 60) + "'");
    headers.addresses.push_back(address.to_string());
  }
}

NodeHeaders parse_headers(const Request& request, const Caller& caller) {
  NodeHeaders headers;
  for (const char* name : {kNodeName, kNodePassword, kNodeIp})
    if (request.header_count(name) > 1)
      headers.fail(HeaderResult::bad_request, "header " + std::string(name) + " is given more than once");
  const std::string_view name = trim(request.header(kNodeName));
  if (name.empty()) {
    headers.fail(HeaderResult::node_name_missing);
  } else if (Result<NodeName> parsed = NodeName::parse(name)) {
    headers.name = std::move(*parsed);
  } else {
    headers.fail(HeaderResult::node_name_invalid, parsed.error().message);
  }
  if (caller.role == Role::node && headers.name.str() != caller.node) headers.fail(HeaderResult::node_name_mismatch);
  parse_addresses(request.header(kNodeIp), headers);
  headers.password = Secret(trim(request.header(kNodePassword)));
  if (headers.password.empty()) headers.fail(HeaderResult::node_password_missing);
  if (headers.password.reveal().size() > kMaxPassword)
    headers.fail(HeaderResult::bad_request, "the node password is longer than 1024 bytes");
  return headers;
}

// docs/HTTP_API.md, "Generations": no version is sent, but some requests give it away.
std::string recognise_generation(const Request& request) {
  if (request.method == "POST") return "G7";
  if (!request.certificate.empty() && !request.header("authorization").empty()) return "G6";
  if (request.header(kNodeIp).empty() && !request.header(kNodeName).empty()) return "G1";
  return "";
}

void add_seq(Response& response, const Result<Committed>& outcome) {
  if (outcome) response.headers.emplace_back("Ledger-Seq", std::to_string(outcome->last()));
}

Response certificate_response(const IssuedCertificate& certificate) {
  Response response;
  response.body = certificate.leaf_pem + certificate.ca_pem;
  response.body += certificate.key_pem.reveal();
  return response;
}

CertificateIssued event_of(const IssuedCertificate& certificate, Purpose purpose) {
  return {.purpose = std::string(name_of(purpose)),
          .subject = certificate.subject,
          .serial = certificate.serial,
          .sha256 = certificate.sha256,
          .not_before = certificate.not_before,
          .not_after = certificate.not_after,
          .key = "generated",
          .public_key = certificate.public_key};
}

}  // namespace

Record record_of(const Request& request, const Caller& caller, Event event) {
  Record record;
  record.event = std::move(event);
  record.request_id = request.id;
  record.source = request.source;
  record.endpoint = request.path;
  record.auth = caller.auth;
  record.generation = recognise_generation(request);
  return record;
}

// ---- documents -------------------------------------------------------------------------------------------

void Registration::document(RequestPtr request, Reply reply, std::initializer_list<Role> allowed, Response document) {
  const Caller caller = identify(*request, allowed);
  if (caller.result != TokenResult::accepted) return refuse_token(request, reply, caller, "");
  Proposal proposal;
  proposal.records.push_back(record_of(*request, caller, TokenAccepted{}));
  record_then(std::move(reply), std::move(proposal), std::move(document));
}

void Registration::shared_certificate(RequestPtr request, Reply reply, Purpose purpose) {
  const Caller caller = identify(*request, {Role::agent, Role::node});
  if (caller.result != TokenResult::accepted) return refuse_token(request, reply, caller, "");
  const Result<IssuedCertificate> certificate = issuer_.issue(purpose, {}, {}, Time::now());
  if (!certificate) return reply(to_response(problem_of(Error{Errc::unavailable, certificate.error().message})));
  Proposal proposal;
  proposal.records.push_back(record_of(*request, caller, TokenAccepted{}));
  proposal.records.push_back(record_of(*request, caller, event_of(*certificate, purpose)));
  record_then(std::move(reply), std::move(proposal), certificate_response(*certificate));
}

// ---- one registration ------------------------------------------------------------------------------------

struct Registration::Attempt {
  RequestPtr request;
  Reply reply;
  Purpose purpose;
  Caller caller;
  NodeHeaders headers;
  Evidence evidence;
  int tries = 0;

  Record record(Event event) const {
    Record record = record_of(*request, caller, std::move(event));
    record.node = headers.name.str();
    record.claimed = headers.addresses;
    return record;
  }
};

void Registration::kubelet_certificate(RequestPtr request, Reply reply, Purpose purpose) {
  auto attempt = std::make_shared<Attempt>();
  attempt->request = std::move(request);
  attempt->reply = std::move(reply);
  attempt->purpose = purpose;
  attempt->caller = identify(*attempt->request, {Role::agent, Role::node});
  attempt->headers = parse_headers(*attempt->request, attempt->caller);
  attempt->evidence.token = attempt->caller.result;
  if (attempt->caller.result == TokenResult::accepted && attempt->headers.result == HeaderResult::complete)
    attempt->evidence.presented = credentials_.fingerprint_of_password(attempt->headers.password);
  register_node(std::move(attempt));
}

// Gather the evidence, decide, record, answer. A view that went stale before the record was written comes
// back here: the first registration of a name wins, the others decide again and find it bound.
void Registration::register_node(std::shared_ptr<Attempt> attempt) {
  Evidence& evidence = attempt->evidence;
  NodeHeaders& headers = attempt->headers;
  if (!headers.name.str().empty()) evidence.node = ledger_.find(headers.name.str());
  if (attempt->caller.role == Role::node && !evidence.node.is_bound())
    headers.fail(HeaderResult::node_unknown, "node " + headers.name.str() + " is not registered (any more)");
  evidence.headers = headers.result;
  const Ruling ruling = decide(evidence);
  if (admitted(ruling))
    admit(std::move(attempt), ruling);
  else
    refuse(std::move(attempt), ruling);
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
      issuer_.issue(attempt->purpose, name, attempt->headers.addresses, Time::now());
  if (!certificate)
    return attempt->reply(to_response(problem_of(Error{Errc::unavailable, certificate.error().message})));

  Proposal proposal;
  proposal.records.push_back(attempt->record(TokenAccepted{}));
  if (ruling == Ruling::admit_first)
    proposal.records.push_back(attempt->record(PasswordStored{attempt->evidence.presented}));
  else
    proposal.records.push_back(attempt->record(PasswordVerified{attempt->evidence.presented}));
  proposal.records.push_back(attempt->record(event_of(*certificate, attempt->purpose)));
  proposal.expect = Proposal::Expect{name.str(), attempt->evidence.node.version};

  propose(std::move(attempt), std::move(proposal), certificate_response(*certificate));
}

// Replies once the records are durable; a view that is stale by then is decided anew.
void Registration::propose(std::shared_ptr<Attempt> attempt, Proposal proposal, Response ready) {
  auto response = std::make_shared<Response>(std::move(ready));
  ledger_.append(std::move(proposal), [this, attempt, response](const Result<Committed>& outcome) {
    const bool stale = !outcome && outcome.error().code == Errc::conflict;
    if (stale && ++attempt->tries < kMaxAttempts) return register_node(attempt);
    if (stale)
      *response = to_response(problem_of(Error{Errc::overloaded, "this name is changing too fast; try again"}));
    else if (!outcome)
      *response = to_response(problem_of(outcome.error()));
    add_seq(*response, outcome);
    attempt->reply(std::move(*response));
  });
}

// ---- the tunnel ------------------------------------------------------------------------------------------

void Registration::connect(RequestPtr request, Reply reply) {
  const Caller caller = identify(*request, {Role::node});
  if (caller.result != TokenResult::accepted) return refuse_token(request, reply, caller, "");
  const bool registered = ledger_.find(caller.node).is_bound();
  Proposal proposal;
  const auto add = [&](Event event) {
    Record record = record_of(*request, caller, std::move(event));
    record.node = caller.node;
    proposal.records.push_back(std::move(record));
  };
  add(TokenAccepted{});
  Response response;
  if (!registered) {
    const Problem problem =
        problem_of(HeaderResult::node_unknown, "node " + caller.node + " is not registered (any more)");
    add(RequestRejected{.status = problem.status, .reason = std::string(reason_name(HeaderResult::node_unknown))});
    response = to_response(problem);
  } else if (!request->websocket) {
    const Problem problem =
        problem_of(HeaderResult::bad_request, "this is a websocket endpoint: GET with Upgrade: websocket, version 13");
    add(RequestRejected{.status = problem.status, .reason = std::string(reason_name(HeaderResult::bad_request))});
    response = to_response(problem);
  } else {
    response.status = 101;
    response.tunnel = tunnels_.open(record_of(*request, caller, TunnelClosed{}), caller.node);
    add(TunnelOpened{request->id});
  }
  record_then(std::move(reply), std::move(proposal), std::move(response));
}

// ---- common ends -----------------------------------------------------------------------------------------

void Registration::refuse_token(const RequestPtr& request, const Reply& reply, const Caller& caller,
                                const std::string& node) {
  const Problem problem = problem_of(caller.result);
  Record record = record_of(*request, caller,
                            TokenRejected{.status = problem.status,
                                          .reason = std::string(reason_name(caller.result)),
                                          .token = caller.old_token});
  record.node = node;
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  record_then(reply, std::move(proposal), to_response(problem));
}

void Registration::record_then(Reply reply, Proposal proposal, Response success) {
  auto response = std::make_shared<Response>(std::move(success));
  ledger_.append(std::move(proposal), [reply, response](const Result<Committed>& outcome) {
    if (!outcome) *response = to_response(problem_of(outcome.error()));
    add_seq(*response, outcome);
    reply(std::move(*response));
  });
}

}  // namespace ledger::api
