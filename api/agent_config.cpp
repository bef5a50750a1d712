#include "api/agent_config.h"

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <boost/json.hpp>
#include <charconv>

#include "ledger/credentials.h"

namespace ledger::api {
namespace {

namespace json = boost::json;
using boost::asio::ip::address;

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> parts;
  bool more = !list.empty();
  while (more) {
    const auto comma = list.find(',');
    parts.emplace_back(trim(list.substr(0, comma)));
    more = comma != std::string_view::npos;
    if (more) list.remove_prefix(comma + 1);
  }
  return parts;
}

Error bad_option(std::string_view option, const std::string& value, std::string_view wanted) {
  return {Errc::invalid, "--" + std::string(option) + " " + printable(value, 80) + ": " + std::string(wanted)};
}

struct Network {
  address base;
  json::object document;  // Go's net.IPNet: {"IP":"10.42.0.0","Mask":"//8AAA=="}
};

// Go's ParseCIDR: the network's address, without the bits of a host in it.
address masked(const address& base, std::string_view mask) {
  const auto mask_bytes = [&](auto bytes) {
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<unsigned char>(bytes[i] & static_cast<unsigned char>(mask[i]));
    return bytes;
  };
  if (base.is_v4()) return boost::asio::ip::address_v4(mask_bytes(base.to_v4().to_bytes()));
  return boost::asio::ip::address_v6(mask_bytes(base.to_v6().to_bytes()));
}

Result<Network> parse_network(std::string_view option, const std::string& text) {
  const auto bad = [&] { return bad_option(option, text, "is not a network like 10.42.0.0/16"); };
  const auto slash = text.find('/');
  if (slash == std::string::npos) return bad();
  boost::system::error_code error;
  const address base = boost::asio::ip::make_address(text.substr(0, slash), error);
  if (error) return bad();
  const std::size_t width = base.is_v4() ? 32 : 128;
  std::size_t bits = 0;
  const char* end = text.data() + text.size();
  const auto read = std::from_chars(text.data() + slash + 1, end, bits);
  if (read.ec != std::errc() || read.ptr != end || bits > width) return bad();
  std::string mask(width / 8, '\0');
  for (std::size_t i = 0; i < bits; ++i) mask[i / 8] = static_cast<char>(mask[i / 8] | (0x80 >> (i % 8)));
  Network network{masked(base, mask), {}};
  network.document["IP"] = network.base.to_string();
  network.document["Mask"] = base64(mask);
  return network;
}

Result<std::vector<Network>> parse_networks(std::string_view option, const std::string& text) {
  std::vector<Network> networks;
  for (const std::string& part : split(text)) {
    Result<Network> network = parse_network(option, part);
    if (!network) return network.error();
    networks.push_back(std::move(*network));
  }
  if (networks.empty()) return bad_option(option, text, "is empty");
  return networks;
}

bool same_families(const std::vector<Network>& a, const std::vector<Network>& b) {
  const auto same = [](const Network& one, const Network& other) { return one.base.is_v4() == other.base.is_v4(); };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same);
}

struct PortRange {
  int base = 0, size = 0;
};

Result<PortRange> parse_port_range(const std::string& text) {
  int from = 0, to = 0;
  const char* end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, from);
  if (first.ec == std::errc() && first.ptr != end && *first.ptr == '-') {
    const auto second = std::from_chars(first.ptr + 1, end, to);
    if (second.ec == std::errc() && second.ptr == end && from > 0 && to >= from && to < 65536)
      return PortRange{from, to - from + 1};
  }
  return bad_option("service-node-port-range", text, "is not a range like 30000-32767");
}

json::array documents(const std::vector<Network>& networks) {
  json::array all;
  for (const Network& network : networks) all.push_back(network.document);
  return all;
}

std::string host_and_port(const std::string& advertise, std::uint16_t port) {
  const bool v6 = advertise.find(':') != std::string::npos;
  return (v6 ? "[" + advertise + "]" : advertise) + ":" + std::to_string(port);
}

json::object endpoints_object(const std::string& advertise, std::uint16_t port) {
  json::object object;
  object["kind"] = "Endpoints";
  object["apiVersion"] = "v1";
  object["metadata"] = {{"name", "kubernetes"}, {"namespace", "default"}, {"resourceVersion", "1"}};
  const json::object subset = {
      {"addresses", json::array{json::object{{"ip", advertise}}}},
      {"ports", json::array{json::object{{"name", "https"}, {"port", port}, {"protocol", "TCP"}}}}};
  object["subsets"] = json::array{subset};
  return object;
}

}  // namespace

// Keys and types are protocol: names are Go field names, agents from Kubernetes 1.23 on decode them
// case-sensitively, and keys whose type changed between releases must not appear at all.
Result<AgentConfig> AgentConfig::make(const ClusterOptions& options, const std::string& advertise,
                                      Ports ports, const std::string& ipsec_psk, const Program& program) {
  const Result<std::vector<Network>> cluster = parse_networks("cluster-cidr", options.cluster_cidr);
  if (!cluster) return cluster.error();
  const Result<std::vector<Network>> service = parse_networks("service-cidr", options.service_cidr);
  if (!service) return service.error();
  if (!same_families(*cluster, *service))
    return Error{Errc::invalid, "--cluster-cidr " + options.cluster_cidr + " and --service-cidr " +
                                    options.service_cidr +
                                    " must share the same IP version (IPv4, IPv6 or dual-stack)"};
  const Result<PortRange> node_ports = parse_port_range(options.service_node_port_range);
  if (!node_ports) return node_ports.error();
  json::array dns;
  for (const std::string& part : split(options.cluster_dns)) {
    boost::system::error_code error;
    boost::asio::ip::make_address(part, error);
    if (error) return bad_option("cluster-dns", part, "is not an IP address");
    dns.emplace_back(part);
  }
  if (dns.empty()) return bad_option("cluster-dns", options.cluster_dns, "is empty");

  json::object config;
  config["ClusterDNS"] = dns.front();
  config["ClusterDNSs"] = dns;
  config["ClusterDomain"] = options.cluster_domain;
  config["ClusterIPRange"] = cluster->front().document;
  config["ClusterIPRanges"] = documents(*cluster);
  config["ServiceIPRange"] = service->front().document;
  config["ServiceIPRanges"] = documents(*service);
  config["ServiceNodePortRange"] = {{"Base", node_ports->base}, {"Size", node_ports->size}};
  config["FlannelBackend"] =
      options.flannel_backend.empty() ? std::string(program.flannel_backend) : options.flannel_backend;
  config["FlannelIPv6Masq"] = false;
  config["FlannelExternalIP"] = false;
  config["EgressSelectorMode"] = "agent";
  config["IPSECPSK"] = ipsec_psk;
  config["DisableCCM"] = false;
  config["DisableNPC"] = program.disable_network_policy;
  config["DisableKubeProxy"] = false;
  config["EmbeddedRegistry"] = false;
  config["SupervisorMetrics"] = false;
  config["HTTPSPort"] = ports.https;
  config["SupervisorPort"] = ports.supervisor;
  config["SystemDefaultRegistry"] = "";
  config["MinTLSVersion"] = "";
  config["CipherSuites"] = nullptr;

  AgentConfig made;
  made.document_ = json::serialize(config) + "\n";
  // Agents put the supervisor's port in the place of this one where the two differ.
  made.apiservers_ = json::serialize(json::array{host_and_port(advertise, ports.https)}) + "\n";
  made.api_groups_ =
      json::serialize(json::object{{"kind", "APIGroupList"}, {"apiVersion", "v1"}, {"groups", json::array()}}) +
      "\n";
  made.endpoints_ = json::serialize(endpoints_object(advertise, ports.https));
  return made;
}

std::string AgentConfig::endpoints_list() const {
  return R"({"kind":"EndpointsList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[)" + endpoints_ +
         "]}";
}

std::string AgentConfig::endpoints_watch_event() const {
  return R"({"type":"ADDED","object":)" + endpoints_ + "}\n";
}

}  // namespace ledger::api
