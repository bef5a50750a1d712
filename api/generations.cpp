#include "api/generations.h"

namespace ledger::api {
namespace {

// "config" of "/v1-k3s/config", whatever the program.
std::string_view name_in(std::string_view path) {
  if (!path.starts_with("/v1-")) return {};
  const auto slash = path.find('/', 1);
  return slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
}

bool is_certificate(std::string_view name) { return name.ends_with(".crt") && !name.ends_with("-ca.crt"); }
bool is_kubelet_certificate(std::string_view name) { return name.ends_with("-kubelet.crt"); }

bool has_node_header(const Request& request, std::string_view name) {
  for (const auto& [key, value] : request.headers)
    if (key.ends_with(name) && (key == "k3s" + std::string(name) || key == "rke2" + std::string(name)))
      return !trim(value).empty();
  return false;
}

bool has_scheme(const Request& request, std::string_view scheme) {
  return to_lower(request.header("authorization").substr(0, scheme.size() + 1)) == std::string(scheme) + " ";
}

}  // namespace

std::string Generations::of_request(const Request& request) {
  const std::string_view name = name_in(request.path);
  if (is_certificate(name)) {
    if (request.method == "POST") return "G7";
    const bool both = !request.certificate.empty() && !request.header("authorization").empty();
    if (both || has_scheme(request, "bearer")) return "G6";
    const bool named = is_kubelet_certificate(name) && has_node_header(request, "-node-name");
    if (named && !has_node_header(request, "-node-ip")) return "G1";
  }
  if (request.path == "/apis" && has_scheme(request, "basic")) return "G1";
  return "";
}

std::string Generations::of_registration(const Request& request, const std::string& node,
                                         const Fingerprint& password) {
  std::string shown = of_request(request);
  const std::lock_guard lock(mutex_);
  Machine* machine = machines_.find(node);
  if (machine == nullptr || machine->password != password) return shown;
  conclude(*machine);
  machine->direct = !shown.empty();
  if (machine->direct) machine->learned.clear();
  // Without a header of its own an old certificate tells nothing: only k3s' own order of requests is known.
  const bool silent = request.method == "GET" && request.certificate.empty();
  return machine->direct || !silent ? shown : machine->learned;
}

void Generations::conclude(Machine& machine) {
  const Host* host = hosts_.find(machine.host);
  const bool alone = host != nullptr && !host->shared;
  if (!machine.direct && alone) {
    if (machine.asked_apiservers)
      machine.learned = "G5";  // a later one would show the certificate that it has had since
    else if (machine.opened_tunnel)
      machine.learned = machine.asked_readyz ? "G4" : "";
  }
  machine.asked_readyz = machine.asked_apiservers = machine.opened_tunnel = false;
}

void Generations::admitted(const Request& request, const std::string& node, const Fingerprint& password) {
  const std::string source_host(host_of(request.source));
  const std::lock_guard lock(mutex_);
  Machine& machine = machines_.find_or_add(node);
  if (machine.password != password) {
    machine = Machine{};
    machine.password = password;
    machine.direct = !of_request(request).empty();
  }
  machine.host = source_host;
  Host& host = hosts_.find_or_add(source_host);
  host.shared = host.shared || (!host.node.empty() && host.node != node);
  host.node = node;
}

void Generations::served(const Request& request, const std::string& node) {
  const std::string_view name = name_in(request.path);
  if (name != "readyz" && name != "apiservers") return;
  const std::lock_guard lock(mutex_);
  std::string whose = node;
  if (whose.empty()) {
    // A certificate beside the token: the sender shows itself when it registers.
    const Host* host = request.certificate.empty() ? hosts_.find(std::string(host_of(request.source))) : nullptr;
    if (host == nullptr || host->shared) return;
    whose = host->node;
  }
  Machine* machine = machines_.find(whose);
  if (machine == nullptr) return;
  (name == "readyz" ? machine->asked_readyz : machine->asked_apiservers) = true;
}

void Generations::tunnel_opened(const Request& request, const std::string& node) {
  const std::lock_guard lock(mutex_);
  Machine* machine = machines_.find(node);
  // From elsewhere: then what it asked for before may have come from elsewhere, too.
  if (machine != nullptr && machine->host == host_of(request.source)) machine->opened_tunnel = true;
}

}  // namespace ledger::api
