#include "api/destination.h"

#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>

#include "api/log_receiver.h"
#include "api/webhook.h"

namespace ledger::api {
namespace {

Error not_a_destination(const std::string& why) {
  return {Errc::invalid, "--send-to: " + why + "; it is tcp://host:601, tls://host:6514 or https://host/path"};
}

void fill(TlsOptions& link, const DestinationOptions& options, HostPort peer) {
  link.connect_to = std::move(peer);
  link.trust = options.ca_pem.empty() ? HttpsTrust::os_roots : HttpsTrust::bundle;
  link.bundle_pem = options.ca_pem;
  link.cert_pem = options.cert_pem;
  link.key_pem = options.key_pem.clone();
  link.interrupt = options.interrupt;
}

}  // namespace

Result<std::unique_ptr<Destination>> open_destination(DestinationOptions options) {
  const auto url = boost::urls::parse_uri(options.url);
  if (!url || url->host().empty()) return not_a_destination("that is no address");
  if (url->has_userinfo() || url->has_fragment()) return not_a_destination("a name, password or # has no place in it");
  const std::string scheme(url->scheme());
  const std::string host(url->host_address());
  std::uint16_t port = scheme == "tls" ? 6514 : scheme == "tcp" ? 601 : 443;
  if (url->has_port()) port = url->port_number();
  if (port == 0) return not_a_destination("the port is no number from 1 to 65535");
  if (options.format == replay::AuditFormat::csv)
    return Error{Errc::invalid, "--format csv goes to files; a consumer takes jsonl, cloudevents, ocsf, ecs, k8s-audit, "
                                "cef or syslog"};
  if (scheme == "https") {
    HttpsOptions https;
    fill(https, options, {host, port});
    https.timeout = options.timeout;
    https.body_limit = 64 << 10;
    std::string target(url->encoded_resource());
    if (target.empty() || target.front() != '/') target.insert(0, "/");
    return open_webhook(std::move(options), std::move(https), std::move(target));
  }
  if (scheme != "tcp" && scheme != "tls") return not_a_destination(scheme + ":// is not known");
  if (!url->encoded_path().empty() || url->has_query()) return not_a_destination("there is no path in it");
  if (!options.sign_keys.empty()) return Error{Errc::invalid, "--sign-key: only a webhook (https://) has signed bodies"};
  if (scheme == "tcp" && (!options.ca_pem.empty() || !options.cert_pem.empty()))
    return Error{Errc::invalid, "--send-to tcp:// has no TLS, so no CA and no certificate; write tls://"};
  TlsOptions link;
  fill(link, options, {host, port});
  return open_log_receiver(options, std::move(link), scheme == "tls");
}

}  // namespace ledger::api
