// Whatever a stranger, an agent or an operator sends, once it is HTTP: from raw header values through parsing and
// the decision to the answer. Never a crash; one answer and only one; on the kubelet endpoints 403 for a recorded
// password and nothing else; errors are Status objects; no secret of ours in a body.
//
// Input: a request as text. First line `METHOD path?query`, then `name: value` lines, an empty line, the body.
// \x01, \x02, \x03 in a value stand for the agents', the servers' and the operators' Authorization;
// `@certificate: 1` presents a kubelet's certificate, `@certificate: <anything else>` those bytes;
// `@websocket: 1` is an upgrade, whose messages are the body's lines.
#include <rocksdb/env.h>

#include <boost/json.hpp>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <optional>

#include "api/service.h"
#include "ledger/event_log.h"
#include "ledger/token_life.h"
#include "tests/support/temp_dir.h"

namespace ledger {
namespace {

void require(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

constexpr const char* kToken = "Token_Of_The_Fuzzer";  // no part of a node name: names are kept and told

// A service on a ledger in memory; made anew now and then, or the memory fills up.
struct World {
  World() {
    Ledger::Options options;
    options.log = {.dir = "/events", .env = env.get()};
    options.server_name = "fuzz";
    options.min_free_bytes = 0;
    auto opened = Ledger::open(std::move(options));
    require(opened.has_value(), "the ledger opens");
    store = std::move(*opened);
    require(note_file_tokens(*store, *credentials(), "fuzz").has_value(), "the tokens are known");
    service = std::make_unique<api::Service>(*store, *credentials(), *issuer(), *config());
  }

  static const Credentials* credentials() {
    static const Credentials made =
        *Credentials::open({.data_dir = dir().path(), .token = Secret(kToken), .agent_token = {}, .log_exists = false});
    return &made;
  }
  static const Issuer* issuer() {
    static const Issuer made = *Issuer::open(dir().path(), Time::now(), false);
    return &made;
  }
  static const api::AgentConfig* config() {
    static const api::AgentConfig made = *api::AgentConfig::make({}, "10.0.0.1", 6443, std::string(96, 'a'));
    return &made;
  }
  static const test::TempDir& dir() {
    static const test::TempDir made;
    return made;
  }
  static const std::string& operator_token() {
    static const std::string text(trim(*read_file(dir() / "cred" / "operator-token")));
    return text;
  }
  // Of node web-1, as an agent has it: DER from the PEM of a certificate.
  static const std::string& kubelet_der() {
    static const std::string der = [] {
      const auto issued = issuer()->issue(Purpose::client_kubelet, *NodeName::parse("web-1"), {}, Time::now());
      std::string out;
      unsigned bits = 0;
      int held = 0;
      bool inside = false;
      for (std::size_t at = 0; at < issued->leaf_pem.size();) {
        const auto end = issued->leaf_pem.find('\n', at);
        const std::string line = issued->leaf_pem.substr(at, end - at);
        at = end + 1;
        if (line.starts_with("-----")) {
          inside = !inside;
          continue;
        }
        for (const char c : line) {
          const int value = c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
          if (value < 0) continue;
          bits = bits << 6 | static_cast<unsigned>(value);
          held += 6;
          if (held >= 8) out += static_cast<char>(bits >> (held -= 8) & 0xFF);
        }
      }
      return out;
    }();
    return der;
  }

  std::unique_ptr<rocksdb::Env> env{rocksdb::NewMemEnv(rocksdb::Env::Default())};
  std::unique_ptr<Ledger> store;
  std::unique_ptr<api::Service> service;
};

// The answers to one request; outlives it, for a second answer may come late.
struct Answers {
  std::mutex mutex;
  std::condition_variable came;
  int count = 0;
  api::Response first;

  void add(api::Response response) {
    const std::lock_guard lock(mutex);
    require(++count == 1, "one answer only");
    first = std::move(response);
    came.notify_all();
  }
  api::Response wait() {
    std::unique_lock lock(mutex);
    require(came.wait_for(lock, std::chrono::seconds(30), [&] { return count > 0; }), "an answer");
    return first;
  }
};

void replace_all(std::string& text, char mark, const std::string& with) {
  for (auto at = text.find(mark); at != std::string::npos; at = text.find(mark, at + with.size())) text.replace(at, 1, with);
}

std::shared_ptr<api::Request> request_from(std::string_view text) {
  auto request = std::make_shared<api::Request>();
  request->id = "0123456789abcdef";
  request->source = "10.0.0.5:41234";
  const auto take_line = [&] {
    const auto end = text.find('\n');
    const std::string line(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    return line;
  };
  const std::string first = take_line();
  const auto space = first.find(' ');
  request->method = first.substr(0, space);
  const std::string target = space == std::string::npos ? "" : first.substr(space + 1);
  request->path = target.substr(0, target.find('?'));
  if (target.find('?') != std::string::npos) request->query = target.substr(target.find('?') + 1);
  for (std::string line = take_line(); !line.empty(); line = take_line()) {
    const auto colon = line.find(':');
    const std::string name = to_lower(line.substr(0, colon));
    std::string value(colon == std::string::npos ? "" : trim(std::string_view(line).substr(colon + 1)));
    replace_all(value, '\x01', "Basic " + base64(std::string("node:") + kToken));
    replace_all(value, '\x02', "Basic " + base64(std::string("server:") + kToken));
    replace_all(value, '\x03', "Bearer " + World::operator_token());
    if (name == "@certificate")
      request->certificate = value == "1" ? World::kubelet_der() : value;
    else if (name == "@websocket")
      request->websocket = true;
    else
      request->headers.emplace_back(name, std::move(value));
  }
  request->body = text;
  return request;
}

// What the caller has said itself may come back to it.
bool said_by_caller(const api::Request& request, std::string_view secret) {
  if ((request.path + request.query + request.body).find(secret) != std::string::npos) return true;
  for (const auto& [name, value] : request.headers)
    if (name != "authorization" && value.find(secret) != std::string::npos) return true;
  return false;
}

void check(const World& world, const api::Request& request, const api::Response& response) {
  int ids = 0;
  Seq seq = 0;
  for (const auto& [name, value] : response.headers) {
    if (name == "Ledger-Request-Id") ids += value == request.id ? 1 : 100;
    if (name == "Ledger-Seq") seq = std::strtoull(value.c_str(), nullptr, 10);
  }
  require(ids == 1, "Ledger-Request-Id, once");
  constexpr int kKnown[] = {101, 200, 400, 401, 403, 404, 405, 409, 429};
  require(std::find(std::begin(kKnown), std::end(kKnown), response.status) != std::end(kKnown), "a status we know");
  const bool kubelet = request.path == "/v1-k3s/serving-kubelet.crt" || request.path == "/v1-k3s/client-kubelet.crt";
  if (response.status == 403) {
    require(kubelet, "403 on the kubelet endpoints only");
    const Result<Record> record = world.store->log().read(seq);
    require(record && as<PasswordRejected>(*record) != nullptr, "403 is a rejected password");
  }
  if (response.status >= 400) {
    boost::json::error_code error;
    const auto status = boost::json::parse(response.body, error);
    require(!error && status.is_object() && status.as_object().at("code") == response.status, "a Status object");
    for (const char c : response.body) require(static_cast<unsigned char>(c) >= 0x20 || c == '\n', "no control characters");
  }
  require((response.tunnel != nullptr) == (response.status == 101), "a tunnel with a 101, and only then");
  for (const std::string_view secret : {std::string_view(kToken), std::string_view(World::operator_token())})
    require(response.body.find(secret) == std::string::npos || said_by_caller(request, secret), "no secret in a body");
  if (response.status == 200 && kubelet) {
    const Result<Record> record = world.store->log().read(seq);
    require(record && as<CertificateIssued>(*record) != nullptr, "200 is an issued certificate");
  }
}

void play_tunnel(const api::Request& request, api::TunnelSession& tunnel) {
  std::string_view messages = request.body;
  while (!messages.empty()) {
    const auto end = messages.find('\n');
    if (!tunnel.on_message(messages.substr(0, end))) break;
    messages = end == std::string_view::npos ? std::string_view() : messages.substr(end + 1);
  }
  tunnel.on_close("the fuzzer's end");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // Never let go at the end: RocksDB's own statics are gone by the time ours are destroyed.
  static auto& world = *new std::unique_ptr<World>;
  static int uses = 0;
  if (world == nullptr || ++uses % 2000 == 0) {
    world.reset();
    world = std::make_unique<World>();
  }
  const auto request = request_from({reinterpret_cast<const char*>(data), size});
  const auto answers = std::make_shared<Answers>();
  world->service->handle(request, [answers](api::Response response) { answers->add(std::move(response)); });
  const api::Response response = answers->wait();
  check(*world, *request, response);
  if (response.tunnel != nullptr) play_tunnel(*request, *response.tunnel);
  return 0;
}

}  // namespace ledger
