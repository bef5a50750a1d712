#include "api/node_headers.h"

#include <boost/asio/ip/address.hpp>

#include "api/generations.h"
#include "ledger/password_strength.h"

namespace ledger::api {
namespace {

constexpr std::size_t kMaxPassword = 1024;
constexpr std::size_t kMaxAddresses = 16;

void parse_addresses(std::string_view header, std::string_view list, NodeHeaders& headers) {
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
      return headers.fail(HeaderResult::bad_request, "header " + std::string(header) +
                                                         " is not a comma list of at most 16 IP addresses: '" +
                                                         printable(text, 60) + "'");
    headers.addresses.push_back(address.to_string());
  }
}

}  // namespace

std::optional<Purpose> purpose_of(std::string_view endpoint, const Program& program) {
  constexpr std::string_view kSuffix = ".crt";
  if (!endpoint.ends_with(kSuffix)) return std::nullopt;
  endpoint.remove_suffix(kSuffix.size());
  for (const Purpose purpose : {Purpose::serving_kubelet, Purpose::client_kubelet, Purpose::client_kube_proxy,
                                Purpose::client_program_controller})
    if (endpoint == name_of(purpose, program)) return purpose;
  return std::nullopt;
}

void NodeHeaders::fail(HeaderResult why, std::string said) {
  if (result != HeaderResult::complete) return;
  result = why;
  detail = std::move(said);
}

NodeHeaders parse_headers(const Request& request, const Caller& caller, const Program& program) {
  NodeHeaders headers;
  for (const std::string_view name :
       {program.node_name_header, program.node_password_header, program.node_ip_header})
    if (request.header_count(name) > 1)
      headers.fail(HeaderResult::bad_request, "header " + std::string(name) + " is given more than once");
  const std::string_view name = trim(request.header(program.node_name_header));
  if (name.empty()) {
    headers.fail(HeaderResult::node_name_missing);
  } else if (Result<NodeName> parsed = NodeName::parse(name)) {
    headers.name = std::move(*parsed);
  } else {
    headers.fail(HeaderResult::node_name_invalid, parsed.error().message);
  }
  if (caller.role == Role::node && headers.name.str() != caller.node)
    headers.fail(HeaderResult::node_name_mismatch, "the header says '" + headers.name.str() +
                                                       "', the client certificate is of '" +
                                                       printable(caller.node, 253) + "'");
  parse_addresses(program.node_ip_header, request.header(program.node_ip_header), headers);
  headers.password = Secret(trim(request.header(program.node_password_header)));
  if (headers.password.empty()) headers.fail(HeaderResult::node_password_missing);
  if (headers.password.reveal().size() > kMaxPassword)
    headers.fail(HeaderResult::bad_request, "the node password is longer than 1024 bytes");
  return headers;
}

std::string claimed_in_header(const Request& request, const Program& program) {
  const Result<NodeName> name = NodeName::parse(trim(request.header(program.node_name_header)));
  return name ? name->str() : std::string();
}

std::string refusal_reason(const Caller& caller) {
  if (caller.result == TokenResult::unknown_principal && caller.auth.method == "certificate") {
    if (caller.certificate_fault == "expired") return "certificate_expired";
    if (caller.certificate_fault == "not valid yet") return "certificate_not_yet_valid";
  }
  return std::string(reason_name(caller.result));
}

BroughtKey::BroughtKey(const Request& request) {
  if (request.method != "POST") return;
  Result<PublicKey> read = read_certificate_request(request.body);
  if (read)
    key = std::move(*read);
  else
    fault = read.error().message;
}

Record record_of(const Request& request, const Caller& caller, Event event) {
  Record record;
  record.event = std::move(event);
  record.request_id = request.id;
  record.source = request.source;
  record.via = request.via;
  record.endpoint = request.path;
  record.auth = caller.auth;
  record.generation = Generations::of_request(request);
  if (auto* accepted = std::get_if<TokenAccepted>(&record.event); accepted != nullptr && caller.superseded)
    accepted->reason = reason_name(TokenResult::superseded);
  return record;
}

Record refused_token(const Request& request, const Caller& caller, int status, const std::string& node,
                     const Program& program) {
  Record record =
      record_of(request, caller,
                TokenRejected{.status = status, .reason = refusal_reason(caller), .token = caller.old_token});
  // Nobody vouches for it: a claim, on whatever path it came.
  record.node = node.empty() ? claimed_in_header(request, program) : node;
  if (record.node.empty()) record.node = caller.claimed_node;
  if (!caller.certificate_fault.empty()) {
    record.note = "its certificate is not accepted (" + caller.certificate_fault + ")";
    if (!caller.claimed_node.empty()) record.note += ", and names " + caller.claimed_node;
  }
  return record;
}

PasswordStored first_binding(const Ledger& ledger, const NodeHeaders& headers, const Fingerprint& presented) {
  constexpr std::size_t kLookedAt = 16;  // of the names that used it last
  PasswordStored stored{presented};
  if (is_low_entropy(headers.password)) stored.weakness = "low_entropy";
  const EventLog& log = ledger.log();
  const auto uses = log.find(Index::fingerprint, stored.fingerprint.text, 1, UINT64_MAX, kLookedAt);
  if (!uses) return stored;
  for (const Seq seq : *uses) {
    const Result<Record> use = log.read(seq);
    if (!use || use->node.empty() || use->node == headers.name.str()) continue;
    if (ledger.find(use->node).bound == stored.fingerprint) stored.also_bound_to = use->node;
  }
  return stored;
}

CertificateIssued issued_event(const IssuedCertificate& certificate, Purpose purpose, const Program& program) {
  return {.purpose = std::string(name_of(purpose, program)),
          .subject = certificate.subject,
          .serial = certificate.serial,
          .sha256 = certificate.sha256,
          .not_before = certificate.not_before,
          .not_after = certificate.not_after,
          .key = certificate.key_pem.empty() ? "csr" : "generated",
          .public_key = certificate.public_key};
}

}  // namespace ledger::api
