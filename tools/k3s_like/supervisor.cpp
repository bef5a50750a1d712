// k3s' own paths: /cacerts, /ping and /v1-k3s/*. Status codes and bodies are those of the generation.
#include <openssl/sha.h>
#include <sys/stat.h>

#include <boost/json.hpp>
#include <ctime>
#include <optional>

#include "ledger/certificate_request.h"
#include "ledger/credentials.h"
#include "tools/k3s_like/server.h"

namespace ledger::k3s_like {
namespace {

namespace json = boost::json;

constexpr std::string_view kPrefix = "/v1-k3s/";
constexpr std::size_t kMaxCsr = 16 << 10;

std::string_view reason_of(int status) {
  switch (status) {
    case 400: return "BadRequest";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 503: return "ServiceUnavailable";
    default: return "InternalError";
  }
}

// An error of a handler: bare text until v1.27.2, then a Status, from v1.31.3 with Connection: close.
void fail(Visit& visit, int status, const std::string& message) {
  if (visit.server.generation() != Generation::g7)
    return visit.exchange.answer(status, {{"Content-Type", "text/plain; charset=utf-8"}}, message);
  const std::string text = status == 500 ? "Internal error occurred: " + message : message;
  visit.exchange.answer(status, {{"Connection", "close"}, {"Content-Type", "application/json"}},
                        status_body(status, reason_of(status), text));
}

// Of authentication and authorisation: empty bodies until v1.23.6.
void turn_away(Visit& visit, bool refused) {
  switch (visit.server.generation()) {
    case Generation::g3: return visit.exchange.answer(refused ? 500 : 401, {}, "");
    case Generation::g5:
      return visit.exchange.answer(refused ? 401 : 403, json_headers(),
                                   refused ? status_body(401, "Unauthorized", "not authorized")
                                           : status_body(403, "Forbidden", "forbidden"));
    case Generation::g7: return fail(visit, refused ? 401 : 403, refused ? "not authorized" : "forbidden");
  }
}

bool is_agent(const Server& server, const Caller& caller) {
  if (caller.is_in("k3s:agent")) return true;
  return server.generation() == Generation::g7 &&
         (caller.is_in("system:nodes") || caller.is_in("system:bootstrappers"));
}

void serve_file(Visit& visit, const char* name, const std::string& bytes) {
  struct stat about {};
  ::stat((visit.server.options().dir / "tls" / name).c_str(), &about);
  std::tm parts{};
  gmtime_r(&about.st_mtime, &parts);
  char text[64];
  const std::string modified(text, std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts));
  if (visit.exchange.request().header("if-modified-since") == modified)
    return visit.exchange.answer(304, {{"Last-Modified", modified}}, "");
  visit.exchange.answer(
      200, {{"Accept-Ranges", "bytes"}, {"Content-Type", "text/plain"}, {"Last-Modified", modified}}, bytes);
}

// The document that every generation of agents accepts.
std::string config_document(const Server& server) {
  const auto range = [](std::string_view address) { return json::object{{"IP", address}, {"Mask", "//8AAA=="}}; };
  std::string psk;
  if (const auto text = read_foreign_secret(server.options().dir / "cred/ipsec.psk")) psk = trim(text->reveal());
  const json::object document{{"ClusterDNS", "10.43.0.10"},
                              {"ClusterDNSs", json::array{"10.43.0.10"}},
                              {"ClusterDomain", "cluster.local"},
                              {"ClusterIPRange", range("10.42.0.0")},
                              {"ClusterIPRanges", json::array{range("10.42.0.0")}},
                              {"ServiceIPRange", range("10.43.0.0")},
                              {"ServiceIPRanges", json::array{range("10.43.0.0")}},
                              {"ServiceNodePortRange", {{"Base", 30000}, {"Size", 2768}}},
                              {"FlannelBackend", "vxlan"},
                              {"FlannelIPv6Masq", false},
                              {"FlannelExternalIP", false},
                              {"EgressSelectorMode", "agent"},
                              {"IPSECPSK", psk},
                              {"DisableCCM", false},
                              {"DisableNPC", false},
                              {"DisableKubeProxy", false},
                              {"EmbeddedRegistry", false},
                              {"SupervisorMetrics", false},
                              {"HTTPSPort", server.options().port},
                              {"SupervisorPort", server.options().port},
                              {"SystemDefaultRegistry", ""},
                              {"MinTLSVersion", ""},
                              {"CipherSuites", nullptr}};
  return json::serialize(document) + "\n";
}

// True: the node may have its certificates. Else it has been answered.
bool node_is_admitted(Visit& visit, const Caller& caller, const std::string& node, const std::string& password) {
  const int missing = visit.server.generation() == Generation::g3 ? 500 : 400;
  const bool newest = visit.server.generation() == Generation::g7;
  if (node.empty()) return fail(visit, missing, "node name not set"), false;
  if (password.empty()) return fail(visit, missing, "node password not set"), false;
  if (newest && caller.how == "x509" && caller.user.starts_with("system:node:")) {
    if (caller.user != "system:node:" + node)
      return fail(visit, 400, "header node name does not match auth node name"), false;
    const json::object control = visit.server.control();
    const auto* gone = control.if_contains("gone");
    if (gone != nullptr && gone->is_array())
      for (const json::value& name : gone->as_array())
        if (name == json::value(node))
          return fail(visit, 401, "unable to verify node identity: nodes \"" + node + "\" not found"), false;
  }
  switch (visit.server.ensure_node_password(node, password)) {
    case Server::Verdict::stored:
    case Server::Verdict::verified: return true;
    case Server::Verdict::failed: return fail(visit, 500, "unable to write node passwords"), false;
    case Server::Verdict::mismatch: break;
  }
  fail(visit, 403,
       newest ? "unable to verify password for node " + node + ": hash does not match"
              : "unable to verify hash for node '" + node + "': hash does not match");
  return false;
}

std::vector<std::string> addresses_of(const std::string& header) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < header.size();) {
    const std::size_t comma = std::min(header.find(',', at), header.size());
    if (comma > at) out.emplace_back(trim(std::string_view(header).substr(at, comma - at)));
    at = comma + 1;
  }
  return out;
}

void serve_certificate(Visit& visit, const Caller& caller, Purpose purpose) {
  const Request& request = visit.exchange.request();
  const bool kubelet = purpose == Purpose::serving_kubelet || purpose == Purpose::client_kubelet;
  NodeName name;
  if (kubelet) {
    const std::string node = to_lower(request.header("k3s-node-name"));
    if (!node_is_admitted(visit, caller, node, request.header("k3s-node-password"))) return;
    const auto parsed = NodeName::parse(node);
    if (!parsed) return fail(visit, 500, parsed.error().message);
    name = *parsed;
  }
  std::string csr;
  std::optional<PublicKey> key;
  if (!visit.exchange.read_body([&csr](std::string_view bytes) { csr.append(bytes.substr(0, kMaxCsr + 1)); }))
    return;
  if (request.method == "POST" && visit.server.generation() == Generation::g7 && !csr.empty()) {
    auto read = read_certificate_request(csr);
    if (!read) return fail(visit, 500, read.error().message);
    key = std::move(*read);
  }
  const auto issued = visit.server.issuer().issue(purpose, name, addresses_of(request.header("k3s-node-ip")),
                                                  Time::now(), key ? &*key : nullptr);
  if (!issued) return fail(visit, 500, issued.error().message);
  std::string body = issued->leaf_pem + issued->ca_pem;
  if (!key) body += issued->key_pem.reveal();
  visit.exchange.answer(200, {{"Content-Type", "text/plain; charset=utf-8"}}, body);
}

// ---- the tunnel ------------------------------------------------------------------------------------------

// Frames of a client: masked. Whole frames only; false: the end.
bool read_frame(Connection& connection, unsigned char* opcode, std::string* payload) {
  const auto read = [&connection](std::uint64_t size, std::string* out) {
    out->clear();
    while (out->size() < size) {
      const std::string some = connection.read_at_most(size - out->size());
      if (some.empty()) return false;
      *out += some;
    }
    return true;
  };
  std::string head, more, mask;
  if (!read(2, &head)) return false;
  *opcode = static_cast<unsigned char>(head[0]) & 0x0f;
  std::uint64_t size = static_cast<unsigned char>(head[1]) & 0x7f;
  if (size >= 126) {
    if (!read(size == 126 ? 2 : 8, &more)) return false;
    size = 0;
    for (const char c : more) size = size << 8 | static_cast<unsigned char>(c);
  }
  if ((static_cast<unsigned char>(head[1]) & 0x80) == 0 || size > (64U << 20) || !read(4, &mask)) return false;
  if (!read(size, payload)) return false;
  for (std::size_t i = 0; i < payload->size(); ++i) (*payload)[i] = static_cast<char>((*payload)[i] ^ mask[i % 4]);
  return true;
}

bool write_frame(Connection& connection, unsigned char opcode, std::string_view payload) {
  std::string frame(1, static_cast<char>(0x80 | opcode));
  if (payload.size() < 126) {
    frame += static_cast<char>(payload.size());
  } else {
    const int bytes = payload.size() < 65536 ? 2 : 8;
    frame += static_cast<char>(bytes == 2 ? 126 : 127);
    for (int i = bytes - 1; i >= 0; --i) frame += static_cast<char>(payload.size() >> (8 * i) & 0xff);
  }
  return connection.write(frame.append(payload));
}

void serve_tunnel(Visit& visit, const Caller& caller) {
  if (!caller.is_in("system:nodes")) return turn_away(visit, caller.refused);
  if (!same_name(visit.exchange.request().header("upgrade"), "websocket"))
    return fail(visit, 400, "websocket: the client is not using the websocket protocol");
  const json::object about{{"connection", visit.connection}, {"user", caller.user}};
  const auto log = [&](std::string_view event, const std::string& why) {
    json::object said = about;
    said["event"] = event;
    if (!why.empty()) said["why"] = why;
    visit.server.log(said);
  };
  Connection* connection = accept_websocket(visit);
  if (connection == nullptr) return;
  log("tunnel_opened", "");
  const std::string why = serve_frames(*connection, false);
  log("tunnel_closed", why);
}

}  // namespace

Connection* accept_websocket(Visit& visit) {
  const std::string key = visit.exchange.request().header("sec-websocket-key");
  if (key.empty()) return visit.exchange.answer(400, {}, "websocket: no key"), nullptr;
  const std::string text = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  unsigned char digest[SHA_DIGEST_LENGTH];
  SHA1(bytes_of(text), text.size(), digest);
  const std::string accept = base64({reinterpret_cast<const char*>(digest), sizeof digest});
  return &visit.exchange.switch_protocols(
      {{"Upgrade", "websocket"}, {"Connection", "Upgrade"}, {"Sec-WebSocket-Accept", accept}});
}

std::string serve_frames(Connection& connection, bool echo) {
  while (true) {
    unsigned char opcode = 0;
    std::string payload;
    if (!read_frame(connection, &opcode, &payload))
      return connection.ended_in_order() ? "end of stream" : "broken off";
    if (opcode == 8) return write_frame(connection, 8, payload), "closed by the agent";
    if (opcode == 9 && !write_frame(connection, 10, payload)) return "broken off";
    if (echo && opcode <= 2 && !write_frame(connection, opcode, payload)) return "broken off";
  }
}

bool serve_supervisor(Visit& visit) {
  Server& server = visit.server;
  const Request& request = visit.exchange.request();
  if (request.path == "/cacerts")
    return visit.exchange.answer(200, {{"Content-Type", "text/plain"}}, server.issuer().server_ca_pem()), true;
  if (request.path == "/ping") return visit.exchange.answer(200, {{"Content-Type", "text/plain"}}, "pong"), true;
  if (!request.path.starts_with(kPrefix)) return false;
  const std::string name = request.path.substr(kPrefix.size());
  const bool old = server.generation() == Generation::g3;
  if (old && (name == "readyz" || name == "apiservers")) return false;  // not yet: kube-apiserver's 404
  const Caller caller = server.supervisor_caller(request, visit.certificate);
  if (name == "connect") return serve_tunnel(visit, caller), true;
  if (name == "server-bootstrap") {
    if (!caller.is_in("k3s:server")) return turn_away(visit, caller.refused), true;
    return fail(visit, 400, "etcd disabled"), true;
  }
  if (name == "p2p") {
    if (caller.how != "x509") return fail(visit, 401, "Unauthorized"), true;
    return fail(visit, 503, "no peer addresses available"), true;
  }
  std::optional<Purpose> purpose;
  for (const Purpose one : {Purpose::serving_kubelet, Purpose::client_kubelet, Purpose::client_kube_proxy,
                            Purpose::client_program_controller})
    if (name == std::string(name_of(one)) + ".crt") purpose = one;
  if (!purpose && name != "config" && name != "client-ca.crt" && name != "server-ca.crt" && name != "readyz" &&
      name != "apiservers")
    return false;
  if (!is_agent(server, caller)) return turn_away(visit, caller.refused), true;
  if (purpose) return serve_certificate(visit, caller, *purpose), true;
  if (name == "config") visit.exchange.answer(200, json_headers(), config_document(server));
  if (name == "client-ca.crt") serve_file(visit, "client-ca.crt", server.issuer().client_ca_pem());
  if (name == "server-ca.crt") serve_file(visit, "server-ca.crt", server.issuer().server_ca_pem());
  if (name == "readyz") visit.exchange.answer(200, {{"Content-Type", "text/plain"}}, "ok");
  if (name == "apiservers")
    visit.exchange.answer(200, json_headers(), json::serialize(json::array{server.advertised()}) + "\n");
  return true;
}

}  // namespace ledger::k3s_like
