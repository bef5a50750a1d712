#include "api/agent_checks.h"

#include <boost/json.hpp>

#include "api/tls_link.h"

namespace ledger::api {

namespace json = boost::json;

namespace {

Error sentence(std::string text) { return Error{Errc::invalid, std::move(text)}; }

// kubeadm's: six and sixteen of a-z and 0-9.
bool is_bootstrap_token(std::string_view text) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789";
  return text.size() == 23 && text[6] == '.' && text.substr(0, 6).find_first_not_of(kLetters) == text.npos &&
         text.substr(7).find_first_not_of(kLetters) == text.npos;
}

}  // namespace

// ---- Token -----------------------------------------------------------------------------------------------

Result<AgentToken> parse_agent_token(const Secret& text, Generation generation) {
  const bool first = generation == Generation::G1;
  const bool strict = generation >= Generation::G4;
  std::string_view rest = text.reveal();
  if (rest.empty()) return sentence(first ? "--token is required" : "token must not be empty");
  AgentToken token;
  const bool knows_bootstrap = generation >= Generation::G6;
  if (!rest.starts_with("K10")) {
    token.password = Secret(rest);
    token.bootstrap = knows_bootstrap && is_bootstrap_token(rest);
    return token;
  }
  rest.remove_prefix(3);
  const auto hash_end = rest.find("::");
  if (hash_end != std::string_view::npos) {
    token.ca_hash = rest.substr(0, hash_end);
    rest.remove_prefix(hash_end + 2);
  }
  if (strict && !token.ca_hash.empty() && token.ca_hash.size() != 64)
    return sentence("invalid token CA hash length");
  if (knows_bootstrap && is_bootstrap_token(rest)) {
    token.password = Secret(rest);
    token.bootstrap = true;
    return token;
  }
  const auto user_end = rest.find(':');
  const bool bad = user_end == std::string_view::npos || (strict && user_end + 1 == rest.size());
  if (bad) return sentence(first ? "token credentials are the wrong format" : "invalid token format");
  token.user = rest.substr(0, user_end);
  token.password = Secret(rest.substr(user_end + 1));
  return token;
}

// ---- Config document -------------------------------------------------------------------------------------

namespace {

enum class Shape { text, flag, number, address, network, port_range, networks, addresses, texts };

struct Key {
  const char* name;
  Shape shape;
  Generation since;
};

// The keys that agents read, and what Go's decoder must find there.
constexpr Key kKeys[] = {
    {"ClusterDNS", Shape::address, Generation::G1},
    {"ClusterDomain", Shape::text, Generation::G1},
    {"ClusterIPRange", Shape::network, Generation::G1},
    {"FlannelBackend", Shape::text, Generation::G1},
    {"IPSECPSK", Shape::text, Generation::G1},
    {"DisableCCM", Shape::flag, Generation::G1},
    {"DisableNPC", Shape::flag, Generation::G1},
    {"HTTPSPort", Shape::number, Generation::G1},
    {"SupervisorPort", Shape::number, Generation::G2},
    {"DisableKubeProxy", Shape::flag, Generation::G2},
    {"ServiceIPRange", Shape::network, Generation::G1},
    {"ServiceNodePortRange", Shape::port_range, Generation::G4},
    {"ClusterIPRanges", Shape::networks, Generation::G4},
    {"ServiceIPRanges", Shape::networks, Generation::G4},
    {"ClusterDNSs", Shape::addresses, Generation::G4},
    {"SystemDefaultRegistry", Shape::text, Generation::G4},
    {"FlannelIPv6Masq", Shape::flag, Generation::G4},
    {"EgressSelectorMode", Shape::text, Generation::G5},
    {"FlannelExternalIP", Shape::flag, Generation::G5},
    {"EmbeddedRegistry", Shape::flag, Generation::G7},
    {"SupervisorMetrics", Shape::flag, Generation::G7},
    {"MinTLSVersion", Shape::text, Generation::G7},
    {"CipherSuites", Shape::texts, Generation::G7},
};

bool is_network(const json::value& value) {
  const json::object* object = value.if_object();
  const json::value* ip = object != nullptr ? object->if_contains("IP") : nullptr;
  const json::value* mask = object != nullptr ? object->if_contains("Mask") : nullptr;
  return ip != nullptr && ip->is_string() && mask != nullptr && mask->is_string();
}

template <class Test>
bool every(const json::value& value, Test test) {
  const json::array* array = value.if_array();
  return array != nullptr && std::all_of(array->begin(), array->end(), test);
}

bool has_shape(const json::value& value, Shape shape) {
  const auto is_text = [](const json::value& item) { return item.is_string(); };
  if (value.is_null()) return true;
  switch (shape) {
    case Shape::text:
    case Shape::address: return value.is_string();
    case Shape::flag: return value.is_bool();
    case Shape::number: return value.is_int64();
    case Shape::network: return is_network(value);
    case Shape::networks: return every(value, is_network);
    case Shape::addresses:
    case Shape::texts: return every(value, is_text);
    case Shape::port_range: {
      const json::object* range = value.if_object();
      const json::value* base = range != nullptr ? range->if_contains("Base") : nullptr;
      const json::value* size = range != nullptr ? range->if_contains("Size") : nullptr;
      return base != nullptr && base->is_int64() && size != nullptr && size->is_int64();
    }
  }
  fatal("a Shape without a test");
}

const char* go_type(Shape shape) {
  switch (shape) {
    case Shape::text: return "string";
    case Shape::flag: return "bool";
    case Shape::number: return "int";
    case Shape::address: return "net.IP";
    case Shape::network: return "net.IPNet";
    case Shape::networks: return "[]*net.IPNet";
    case Shape::addresses: return "[]net.IP";
    case Shape::texts: return "[]string";
    case Shape::port_range: return "net.PortRange";
  }
  fatal("a Shape without a name");
}

const char* json_kind(const json::value& value) {
  switch (value.kind()) {
    case json::kind::string: return "string";
    case json::kind::bool_: return "bool";
    case json::kind::object: return "object";
    case json::kind::array: return "array";
    case json::kind::null: return "null";
    default: return "number";
  }
}

// A value of the document: null when it is absent.
const json::value& at(const json::object& document, const char* key) {
  static const json::value absent;
  const json::value* found = document.if_contains(key);
  return found != nullptr ? *found : absent;
}

bool is_v6(std::string_view address) { return address.find(':') != std::string_view::npos; }

struct Families {
  bool v4 = false, v6 = false;
  std::string text;  // as Go prints a list
  void add(std::string_view address) {
    (is_v6(address) ? v6 : v4) = true;
    text += (text.empty() ? "" : " ") + std::string(address);
  }
  bool operator==(const Families& other) const { return v4 == other.v4 && v6 == other.v6; }
};

// The addresses of a list of networks, or of the one network where there is no list.
Families families_of(const json::object& document, const char* plural, const char* singular) {
  Families out;
  const auto add = [&out](const json::value& network) {
    if (network.is_object()) out.add(std::string_view(network.at("IP").get_string()));
  };
  const json::value& list = at(document, plural);
  if (list.is_array())
    for (const json::value& network : list.get_array()) add(network);
  if (!list.is_array() || list.get_array().empty()) add(at(document, singular));
  return out;
}

Result<void> check_families(const json::object& document, const std::vector<std::string>& node_ips) {
  const Families cluster = families_of(document, "ClusterIPRanges", "ClusterIPRange");
  const Families service = families_of(document, "ServiceIPRanges", "ServiceIPRange");
  Families node;
  for (const std::string& ip : node_ips) node.add(ip);
  const auto must_share = [](const std::string& one, const std::string& other) {
    return sentence(one + " and " + other + ", must share the same IP version (IPv4, IPv6 or dual-stack)");
  };
  if (!(cluster == service))
    return must_share("cluster-cidr: [" + cluster.text + "]", "service-cidr: [" + service.text + "]");
  // A node may have more families than the cluster, never fewer.
  if (!node_ips.empty() && ((cluster.v4 && !node.v4) || (cluster.v6 && !node.v6)))
    return must_share("cluster-cidr: [" + cluster.text + "]", "node-ip: [" + node.text + "]");
  return {};
}

}  // namespace

Result<ClusterDocument> read_cluster_document(std::string_view text, Generation generation,
                                              const std::vector<std::string>& node_ips) {
  json::error_code error;
  const json::value value = json::parse(json::string_view(text.data(), text.size()), error);
  if (error) return sentence(text.empty() ? "unexpected end of JSON input" : "invalid character in JSON document");
  const json::object* document = value.if_object();
  if (document == nullptr)
    return sentence(std::string("json: cannot unmarshal ") + json_kind(value) +
                    " into Go value of type config.Control");
  for (const Key& key : kKeys)
    if (generation >= key.since && !has_shape(at(*document, key.name), key.shape))
      return sentence(std::string("json: cannot unmarshal ") + json_kind(at(*document, key.name)) +
                      " into Go struct field Control." + key.name + " of type " + go_type(key.shape));
  // Agents go on without these and fail later, far from the cause.
  for (const char* key : {"ClusterDNS", "ClusterDomain", "ClusterIPRange"})
    if (at(*document, key).is_null())
      return sentence(std::string("the config document has no ") + key + ": the agent would start and fail later");
  const bool policy_controller = at(*document, "DisableNPC") != json::value(true);
  if (generation >= Generation::G4 && policy_controller &&
      (at(*document, "ServiceIPRange").is_null() || at(*document, "ServiceNodePortRange").is_null()))
    return sentence(
        "incompatible down-level server detected; servers must be upgraded to at least v1.20.5+k3s1, or restarted "
        "with --disable-network-policy");
  if (generation >= Generation::G4)
    if (const auto ok = check_families(*document, node_ips); !ok) return ok.error();
  const auto number = [&](const char* key) {
    const json::value& found = at(*document, key);
    return found.is_int64() ? found.get_int64() : 0;
  };
  return ClusterDocument{number("HTTPSPort"), number("SupervisorPort"),
                         generation >= Generation::G7 && at(*document, "EmbeddedRegistry") == json::value(true)};
}

// ---- PEM -------------------------------------------------------------------------------------------------

PemParts split_pem(std::string_view body) {
  constexpr std::string_view kBegin = "-----BEGIN ", kEnd = "-----END ", kDashes = "-----";
  PemParts parts;
  std::string keys;
  keys.reserve(body.size());  // growing would leave copies of the key behind
  for (auto begin = body.find(kBegin); begin != std::string_view::npos; begin = body.find(kBegin)) {
    body.remove_prefix(begin);
    const auto type_end = body.find(kDashes, kBegin.size());
    const auto end = body.find(kEnd);
    if (type_end == std::string_view::npos || end == std::string_view::npos) break;
    const auto last = body.find(kDashes, end + kEnd.size());
    if (last == std::string_view::npos) break;
    const std::string_view type = body.substr(kBegin.size(), type_end - kBegin.size());
    const std::string_view block = body.substr(0, last + kDashes.size());
    std::string& into = type.find("PRIVATE KEY") != std::string_view::npos ? keys : parts.certificates;
    into.append(block).append("\n");
    body.remove_prefix(block.size());
  }
  parts.key = Secret(keys);
  explicit_bzero(keys.data(), keys.size());
  return parts;
}

// ---- Errors ----------------------------------------------------------------------------------------------

std::string status_message(std::string_view body) {
  json::error_code error;
  const json::value value = json::parse(json::string_view(body.data(), body.size()), error);
  if (error || !value.is_object() || at(value.get_object(), "kind") != json::value("Status")) return "";
  const json::value& message = at(value.get_object(), "message");
  return message.is_string() ? printable(std::string_view(message.get_string()), 1000) : "";
}

// ---- Addresses -------------------------------------------------------------------------------------------

namespace {

// The ports of one subset; the agent takes the first.
std::int64_t first_port(const json::object& subset) {
  const json::array* ports = at(subset, "ports").if_array();
  if (ports == nullptr || ports->empty() || !(*ports)[0].is_object()) return 443;
  const json::value& port = at((*ports)[0].get_object(), "port");
  return port.is_int64() ? port.get_int64() : 443;
}

}  // namespace

Result<std::vector<std::string>> read_endpoints(std::string_view text) {
  json::error_code error;
  const json::value value = json::parse(json::string_view(text.data(), text.size()), error);
  if (error || !value.is_object()) return sentence("the answer is not an Endpoints object");
  std::vector<std::string> out;
  const json::array* subsets = at(value.get_object(), "subsets").if_array();
  if (subsets == nullptr) return out;
  for (const json::value& item : *subsets) {
    const json::object* subset = item.if_object();
    const json::array* addresses = subset != nullptr ? at(*subset, "addresses").if_array() : nullptr;
    if (addresses == nullptr) continue;
    for (const json::value& address : *addresses) {
      const json::value* ip = address.is_object() ? address.get_object().if_contains("ip") : nullptr;
      if (ip == nullptr || !ip->is_string()) continue;
      out.push_back(
          HostPort{std::string(ip->get_string()), static_cast<std::uint16_t>(first_port(*subset))}.to_string());
    }
  }
  return out;
}

Result<std::vector<std::string>> read_apiservers(std::string_view text) {
  json::error_code error;
  const json::value value = json::parse(json::string_view(text.data(), text.size()), error);
  if (error) return sentence("invalid character in JSON document");
  std::vector<std::string> out;
  if (value.is_null()) return out;
  if (!has_shape(value, Shape::texts))
    return sentence(std::string("json: cannot unmarshal ") + json_kind(value) + " into Go value of type []string");
  for (const json::value& item : value.get_array()) out.emplace_back(item.get_string());
  return out;
}

}  // namespace ledger::api
