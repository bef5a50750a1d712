#include "api/kubeconfig.h"

#include <string.h>
#include <yaml-cpp/yaml.h>

#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>

#include "ledger/credentials.h"
#include "ledger/node_hash.h"

namespace ledger::api {

namespace fs = std::filesystem;

namespace {

class Reader {
 public:
  explicit Reader(const KubeconfigOptions& options) : options_(options) {}
  Result<KubeAccess> read();

 private:
  Error wrong(const std::string& what) const {
    return {Errc::invalid, "kubeconfig " + options_.path.string() + ": " + what};
  }
  // The text of a scalar; empty where there is none.
  static std::string text(const YAML::Node& map, const char* key) {
    const YAML::Node found = map.IsMap() ? map[key] : YAML::Node();
    return found && found.IsScalar() ? found.Scalar() : std::string();
  }
  // The `inner` map of the entry called `name` of a list; undefined where there is none.
  static YAML::Node named(const YAML::Node& root, const char* list, const std::string& name, const char* inner);
  Error missing(const std::string& name, const char* list) const {
    return wrong("there is no '" + printable(name, 100) + "' in its " + list);
  }
  // `<key>-data` in base64, or the file `<key>` names; empty where neither is there.
  Result<Secret> material(const YAML::Node& map, const std::string& key) const;
  Result<void> read_cluster(const YAML::Node& cluster, KubeAccess& access) const;
  Result<void> read_user(const YAML::Node& user, KubeAccess& access) const;
  Result<KubeAccess> read_tree(const YAML::Node& root) const;

  const KubeconfigOptions& options_;
};

YAML::Node Reader::named(const YAML::Node& root, const char* list, const std::string& name, const char* inner) {
  const YAML::Node entries = root[list];
  for (std::size_t i = 0; entries && entries.IsSequence() && i < entries.size(); ++i) {
    const YAML::Node entry = entries[i];
    if (text(entry, "name") == name && entry[inner] && entry[inner].IsMap()) return entry[inner];
  }
  return YAML::Node(YAML::NodeType::Undefined);
}

Result<Secret> Reader::material(const YAML::Node& map, const std::string& key) const {
  std::string inline_text = text(map, (key + "-data").c_str());
  if (!inline_text.empty()) {
    // Line ends within are passed over, as Go's YAML reader does.
    const std::size_t length = inline_text.size();
    std::erase_if(inline_text, [](char c) { return c == '\n' || c == '\r' || c == ' '; });
    Result<Secret> decoded = decode_base64_text(inline_text);
    inline_text.resize(length);
    explicit_bzero(inline_text.data(), length);
    if (!decoded) return wrong(key + "-data is not base64");
    return decoded;
  }
  const std::string file = text(map, key.c_str());
  if (file.empty()) return Secret();
  const fs::path path = fs::path(file).is_absolute() ? fs::path(file) : options_.path.parent_path() / file;
  Result<std::string> bytes = read_file(path);
  if (!bytes) return wrong(key + ": " + bytes.error().message);
  Secret secret(*bytes);
  explicit_bzero(bytes->data(), bytes->size());
  return secret;
}

Result<void> Reader::read_cluster(const YAML::Node& cluster, KubeAccess& access) const {
  const std::string server = text(cluster, "server");
  const auto url = boost::urls::parse_uri(server);
  if (!url || url->scheme() != "https" || url->host().empty())
    return wrong("its server '" + printable(server, 100) + "' is not an https:// URL");
  access.https.connect_to = {std::string(url->host_address()),
                             url->has_port() ? url->port_number() : std::uint16_t{443}};
  if (const std::string name = text(cluster, "tls-server-name"); !name.empty())
    access.https.authority = {name, access.https.connect_to.port};
  access.prefix = std::string(url->encoded_path());
  while (access.prefix.ends_with('/')) access.prefix.pop_back();
  if (!text(cluster, "proxy-url").empty())
    return wrong("proxy-url is not supported; use a server that is reachable");
  const std::string insecure = text(cluster, "insecure-skip-tls-verify");
  if (insecure == "true" || insecure == "True") {
    if (!options_.allow_insecure)
      return wrong(
          "insecure-skip-tls-verify: anybody on the way could say that nodes were deleted; put the cluster's "
          "certificate-authority-data there, or insist with --allow-insecure-apiserver");
    access.https.trust = HttpsTrust::anyone;
    return {};
  }
  const Result<Secret> authority = material(cluster, "certificate-authority");
  if (!authority) return authority.error();
  access.https.trust = authority->empty() ? HttpsTrust::os_roots : HttpsTrust::bundle;
  access.https.bundle_pem = authority->reveal();
  return {};
}

Result<void> Reader::read_user(const YAML::Node& user, KubeAccess& access) const {
  for (const char* plugin : {"exec", "auth-provider"})
    if (user[plugin])
      return wrong(
          "its user gets credentials from a plugin (" + std::string(plugin) +
          "), which is not run here; give a user with a token, a tokenFile or a client certificate, such as a "
          "service account that may list and watch nodes");
  if (!text(user, "username").empty())
    return wrong("its user has a user name and password, which no kube-apiserver takes any more");
  const Result<Secret> certificate = material(user, "client-certificate");
  if (!certificate) return certificate.error();
  Result<Secret> key = material(user, "client-key");
  if (!key) return key.error();
  if (certificate->empty() != key->empty()) return wrong("client-certificate and client-key go together");
  access.https.cert_pem = certificate->reveal();
  access.https.key_pem = std::move(*key);
  // kubectl prefers the file.
  const std::string file = text(user, "tokenFile");
  if (!file.empty())
    access.token_file = fs::path(file).is_absolute() ? fs::path(file) : options_.path.parent_path() / file;
  else
    access.token = Secret(trim(text(user, "token")));
  if (access.https.cert_pem.empty() && access.token.empty() && access.token_file.empty())
    return wrong("its user has no token, tokenFile or client-certificate");
  return {};
}

Result<KubeAccess> Reader::read_tree(const YAML::Node& root) const {
  if (!root.IsMap()) return wrong("it is not a kubeconfig");
  const std::string chosen = options_.context.empty() ? text(root, "current-context") : options_.context;
  if (chosen.empty()) return wrong("it has no current-context; name one with --context");
  const YAML::Node context = named(root, "contexts", chosen, "context");
  if (!context) return missing(chosen, "contexts");
  const std::string cluster_name = text(context, "cluster"), user_name = text(context, "user");
  const YAML::Node cluster = named(root, "clusters", cluster_name, "cluster");
  if (!cluster) return missing(cluster_name, "clusters");
  const YAML::Node user = named(root, "users", user_name, "user");
  if (!user) return missing(user_name, "users");
  KubeAccess access;
  if (const Result<void> done = read_cluster(cluster, access); !done) return done.error();
  if (const Result<void> done = read_user(user, access); !done) return done.error();
  return access;
}

Result<KubeAccess> Reader::read() {
  Result<std::string> bytes = read_file(options_.path);
  if (!bytes) return wrong(bytes.error().message);
  try {
    Result<KubeAccess> access = read_tree(YAML::Load(*bytes));
    explicit_bzero(bytes->data(), bytes->size());
    return access;
  } catch (const YAML::Exception& error) {
    explicit_bzero(bytes->data(), bytes->size());
    // Its own text may quote the file.
    return wrong("it is not YAML that can be read, near line " + std::to_string(error.mark.line + 1));
  }
}

}  // namespace

Result<KubeAccess> read_kubeconfig(const KubeconfigOptions& options) {
  Result<KubeAccess> access = Reader(options).read();
  if (!access) return access;
  // Whatever the files hold is looked at now, not at the first connection.
  if (const Result<TlsContext> context = TlsContext::make(access->https); !context)
    return Error{Errc::invalid, "kubeconfig " + options.path.string() + ": " + context.error().message};
  return access;
}

Result<Secret> KubeAccess::authorization() const {
  std::string value = "Bearer ";
  if (!token_file.empty()) {
    Result<std::string> text = read_file(token_file, 64 << 10);
    if (!text) return Error{text.error().code, "tokenFile: " + text.error().message};
    value.reserve(value.size() + text->size());
    value += trim(*text);
    explicit_bzero(text->data(), text->size());
  } else if (token.empty()) {
    return Secret();
  } else {
    value.reserve(value.size() + token.reveal().size());
    value += token.reveal();
  }
  Secret secret(value);
  explicit_bzero(value.data(), value.size());
  return secret;
}

}  // namespace ledger::api
