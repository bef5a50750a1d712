#include "api/operator_client.h"

#include <boost/json.hpp>
#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>

#include "api/server.h"
#include "ledger/credentials.h"

namespace ledger::api {
namespace {

constexpr std::uint16_t kDefaultPort = 6443;
// A node's whole history comes in one body.
constexpr std::size_t kMaxBody = 256 << 20;

Result<HostPort> parse_url(const std::string& text) {
  const auto url = boost::urls::parse_uri(text);
  if (!url || url->scheme() != "https" || url->host().empty())
    return Error{Errc::invalid, "'" + printable(text, 100) + "' is not a server's address like https://10.0.0.1:6443"};
  const auto address = std::string(url->host_address());
  return HostPort{address, url->has_port() ? url->port_number() : kDefaultPort};
}

Result<std::string> read_credential(const std::filesystem::path& path, const std::string& what) {
  Result<std::string> text = read_file(path);
  if (text) return text;
  return Error{text.error().code, "cannot read " + what + " " + path.string() + " (" + text.error().message +
                                      "); run on the server as its owner, or name a copy of the file"};
}

// What the server said in its Status body, else the status line.
std::string message_of(const HttpsResponse& response) {
  boost::json::error_code error;
  const boost::json::value body = boost::json::parse(response.body, error);
  if (!error && body.is_object())
    if (const auto* message = body.get_object().if_contains("message"); message != nullptr && message->is_string())
      return printable(std::string_view(message->get_string()), 2000);
  return "the server answered " + response.status_line();
}

Errc code_of(int status) {
  if (status == 404) return Errc::not_found;
  if (status == 409) return Errc::conflict;
  if (status == 400) return Errc::invalid;
  return Errc::unavailable;
}

}  // namespace

Result<OperatorClient> OperatorClient::open(const Options& options) {
  std::string url = options.url;
  if (url.empty()) {
    const Result<std::string> running = running_server_url(options.data_dir);
    if (!running)
      return Error{running.error().code, "no server of " + options.data_dir.string() + " says where it is (" +
                                             running.error().message + ")"};
    url = *running;
  }
  const Result<HostPort> server = parse_url(url);
  if (!server) return server.error();
  const auto token_file = options.token_file.empty() ? options.data_dir / "cred" / "operator-token" : options.token_file;
  const auto ca_file = options.ca_file.empty() ? options.data_dir / "tls" / "server-ca.crt" : options.ca_file;
  const Result<std::string> token = read_credential(token_file, "the operator token");
  if (!token) return token.error();
  const Result<std::string> ca = read_credential(ca_file, "the cluster's CA");
  if (!ca) return ca.error();
  HttpsOptions https;
  https.connect_to = *server;
  https.trust = HttpsTrust::bundle;
  https.bundle_pem = *ca;
  https.timeout = std::chrono::seconds(60);
  https.body_limit = kMaxBody;
  Result<HttpsClient> client = HttpsClient::open(std::move(https));
  if (!client) return client.error();
  return OperatorClient(std::move(*client), Secret("Bearer " + std::string(trim(*token))));
}

Result<std::string> OperatorClient::get(const std::string& path) {
  HttpsRequest request;
  request.target = path;
  return send(std::move(request));
}

Result<std::string> OperatorClient::post(const std::string& path, const std::string& json) {
  HttpsRequest request;
  request.method = "POST";
  request.target = path;
  request.headers.emplace_back("Content-Type", "application/json");
  request.body = json;
  return send(std::move(request));
}

Result<std::string> OperatorClient::send(HttpsRequest request) {
  request.authorization = authorization_.clone();
  Result<HttpsResponse> response = client_.send(request);
  if (!response) return Error{response.error().code, "cannot reach the server: " + response.error().message};
  if (response->status / 100 != 2) return Error{code_of(response->status), message_of(*response)};
  return std::move(response->body);
}

Result<boost::json::object> object_in(const Result<std::string>& answer) {
  if (!answer) return answer.error();
  boost::json::error_code error;
  const boost::json::value value = boost::json::parse(*answer, error);
  if (error || !value.is_object()) return Error{Errc::io, "the server's answer cannot be read"};
  return value.get_object();
}

Result<Seq> seq_in(const Result<std::string>& answer) {
  const Result<boost::json::object> object = object_in(answer);
  if (!object) return object.error();
  const boost::json::value* seq = object->if_contains("seq");
  if (seq == nullptr || !seq->is_int64()) return Error{Errc::io, "the server's answer cannot be read"};
  return static_cast<Seq>(seq->get_int64());
}

}  // namespace ledger::api
