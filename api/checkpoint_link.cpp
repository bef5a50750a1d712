#include "api/checkpoint_link.h"

#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <memory>

#include "api/https_client.h"

namespace ledger::api {
namespace {

constexpr std::uint16_t kHttpsPort = 443;
constexpr std::size_t kMaxAnswer = 64 << 10;
constexpr int kNotFound = 404;

struct Link {
  std::shared_ptr<HttpsClient> client;
  std::string target;  // without a '/' at its end
};

Result<Link> open_link(const std::string& text, const std::string& ca_pem) {
  const auto url = boost::urls::parse_uri(text);
  if (!url || url->scheme() != "https" || url->host().empty() || url->has_userinfo() || url->has_fragment())
    return Error{Errc::invalid,
                 "'" + printable(text, 100) + "' is not an address like https://audit.example.org/ledger"};
  HttpsOptions options;
  options.connect_to = {std::string(url->host_address()), url->has_port() ? url->port_number() : kHttpsPort};
  options.body_limit = kMaxAnswer;
  if (!ca_pem.empty()) {
    options.trust = HttpsTrust::bundle;
    options.bundle_pem = ca_pem;
  }
  Result<HttpsClient> client = HttpsClient::open(std::move(options));
  if (!client) return client.error();
  std::string target(url->encoded_resource());
  while (target.ends_with('/')) target.pop_back();
  return Link{std::make_shared<HttpsClient>(std::move(*client)), std::move(target)};
}

Result<HttpsResponse> ask(const Link& link, const std::string& method, const std::string& target,
                          const std::string& body) {
  HttpsRequest request;
  request.method = method;
  request.target = target.empty() ? "/" : target;
  request.body = body;
  if (!body.empty()) request.headers.emplace_back("Content-Type", "text/plain; charset=utf-8");
  return link.client->send(request);
}

}  // namespace

Result<CheckpointPlace> https_place(const std::string& url, const std::string& ca_pem) {
  const Result<Link> link = open_link(url, ca_pem);
  if (!link) return link.error();
  const auto failed = [](const HttpsResponse& response) {
    return Error{Errc::io, "it answered " + printable(response.status_line(), 100)};
  };
  CheckpointPlace place;
  place.name = url;
  place.put = [link = *link, failed](const std::string& note) -> Result<void> {
    const Result<HttpsResponse> response = ask(link, "PUT", link.target, note);
    if (!response) return response.error();
    if (response->status / 100 != 2) return failed(*response);
    return {};
  };
  place.get = [link = *link, failed, url]() -> Result<std::string> {
    Result<HttpsResponse> response = ask(link, "GET", link.target, "");
    if (!response) return response.error();
    if (response->status == kNotFound) return Error{Errc::not_found, url + " has no checkpoint"};
    if (response->status / 100 != 2) return failed(*response);
    return std::move(response->body);
  };
  return place;
}

Result<CheckpointWitness> https_witness(const std::string& text, const std::string& ca_pem) {
  const std::size_t comma = text.find(',');
  if (comma == text.npos)
    return Error{Errc::invalid, "a witness is <public key>,<https URL>, not '" + printable(text, 100) + "'"};
  const Result<NoteVerifier> key = NoteVerifier::parse(std::string_view(text).substr(0, comma));
  if (!key) return Error{Errc::invalid, "the witness's key: " + key.error().message};
  if (!key->is_witness())
    return Error{Errc::invalid, "the key of " + key->name() + " is not a witness's (its type is not 4)"};
  const Result<Link> link = open_link(text.substr(comma + 1), ca_pem);
  if (!link) return link.error();
  return CheckpointWitness{*key, [link = *link](const std::string& body) -> Result<CheckpointWitness::Answer> {
                             Result<HttpsResponse> response =
                                 ask(link, "POST", link.target + "/add-checkpoint", body);
                             if (!response) return response.error();
                             return CheckpointWitness::Answer{response->status, std::move(response->body)};
                           }};
}

}  // namespace ledger::api
