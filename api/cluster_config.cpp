#include "api/cluster_config.h"

#include <boost/json.hpp>

#include "ledger/credentials.h"

namespace ledger::api {

namespace json = boost::json;

namespace {

constexpr std::size_t kMaxDocument = 1 << 20;

}  // namespace

// Key order stays the upstream's: tools tell a server's release by it.
Result<std::string> ClusterConfig::with_our_ports(std::string_view body) const {
  json::error_code error;
  json::value value = json::parse(json::string_view(body.data(), body.size()), error);
  json::object* const config = error ? nullptr : value.if_object();
  if (config == nullptr || !config->contains("ClusterDNS") || !config->contains("ClusterIPRange"))
    return Error{Errc::invalid, "the upstream's config document is not what k3s' servers write"};
  config->insert_or_assign("HTTPSPort", ours_.https);
  config->insert_or_assign("SupervisorPort", ours_.supervisor);
  return json::serialize(value) + "\n";
}

Result<std::unique_ptr<ClusterConfig>> ClusterConfig::open(const std::filesystem::path& data_dir, Ports ours) {
  std::unique_ptr<ClusterConfig> config(new ClusterConfig(data_dir / "cluster-config.json", ours));
  const Result<Secret> kept = read_secret_file(config->file_, kMaxDocument);
  if (!kept && kept.error().code != Errc::not_found) return kept.error();
  if (!kept) return config;
  Result<std::string> document = config->with_our_ports(kept->reveal());
  if (!document)
    return Error{Errc::corrupt, config->file_.string() + " is not what a server writes; remove it, it is learned anew"};
  config->document_ = std::make_shared<const std::string>(std::move(*document));
  return config;
}

std::shared_ptr<const std::string> ClusterConfig::document() const {
  const std::lock_guard lock(mutex_);
  return document_;
}

Result<bool> ClusterConfig::learn(std::string_view body) {
  Result<std::string> document = with_our_ports(body);
  if (!document) return document.error();
  const std::shared_ptr<const std::string> before = this->document();
  if (before != nullptr && *before == *document) return false;
  if (const Result<void> kept = write_file(file_, *document, 0600); !kept) return kept.error();
  const std::lock_guard lock(mutex_);
  document_ = std::make_shared<const std::string>(std::move(*document));
  return true;
}

}  // namespace ledger::api
