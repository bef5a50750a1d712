// A real server inside the test: real TLS, real RocksDB, sanitizers on both sides. Stopped in order at the end.
#pragma once

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "api/agent_checks.h"
#include "api/https_client.h"
#include "api/server.h"
#include "ledger/credentials.h"
#include "ledger/event_log.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger::test {

// What an agent keeps of a certificate response.
struct Identity {
  std::string cert_pem, key_pem;
};

inline std::string basic(const std::string& user, const std::string& password) {
  return "Basic " + base64(user + ":" + password);
}

inline api::HttpsRequest request_of(std::string method, std::string target, const std::string& authorization = "") {
  api::HttpsRequest request;
  request.method = std::move(method);
  request.target = std::move(target);
  request.authorization = Secret(authorization);
  return request;
}

class RunningServer {
 public:
  using Adjust = std::function<void(api::ServerOptions&)>;

  explicit RunningServer(Adjust adjust = {}) : adjust_(std::move(adjust)) { start(); }
  RunningServer(const RunningServer&) = delete;
  RunningServer& operator=(const RunningServer&) = delete;
  ~RunningServer() { stop(); }

  void start() {
    spdlog::set_level(spdlog::level::err);
    api::ServerOptions options;
    options.data_dir = data_dir();
    options.listen = "127.0.0.1";
    options.https_port = port_;
    options.server_name = "srv";
    options.threads = 2;
    options.min_free_bytes = 0;
    if (adjust_) adjust_(options);
    Result<std::unique_ptr<api::Server>> started = api::Server::start(std::move(options));
    if (!started) {
      ADD_FAILURE() << started.error().message;
      ::abort();
    }
    server_ = std::move(*started);
    port_ = server_->port();
    thread_ = std::thread([this] { stopped_ = server_->run(); });
  }

  // Orderly; what run() returned. A second call changes nothing.
  const Result<void>& stop() {
    if (thread_.joinable()) {
      server_->stop();
      thread_.join();
      server_.reset();
    }
    return stopped_;
  }
  void restart() {
    stop();
    start();
  }

  std::filesystem::path data_dir() const { return dir_ / "data"; }
  std::uint16_t port() const { return port_; }
  std::string ca() const { return file_bytes(data_dir() / "tls" / "server-ca.crt"); }
  // The join token's password, which is the agents' and the servers' unless the options say otherwise.
  std::string token() const {
    const std::string text(trim(file_bytes(data_dir() / "agent-token")));
    return text.substr(text.rfind(':') + 1);
  }
  std::string agent() const { return basic("node", token()); }
  std::string operator_bearer() const {
    return "Bearer " + std::string(trim(file_bytes(data_dir() / "cred" / "operator-token")));
  }

  api::HttpsOptions https_options(const Identity& identity = {}) const {
    api::HttpsOptions options;
    options.connect_to = {"127.0.0.1", port_};
    options.trust = api::HttpsTrust::bundle;
    options.bundle_pem = ca();
    options.cert_pem = identity.cert_pem;
    options.key_pem = Secret(identity.key_pem);
    options.timeout = std::chrono::seconds(60);
    return options;
  }
  api::HttpsClient client(const Identity& identity = {}, bool keep_alive = false) const {
    api::HttpsOptions options = https_options(identity);
    options.keep_alive = keep_alive;
    return std::move(*api::HttpsClient::open(std::move(options)));
  }

  // One request on a connection of its own. Status 0: no answer.
  api::HttpsResponse send(const api::HttpsRequest& request, const Identity& identity = {}) const {
    auto https = client(identity);
    Result<api::HttpsResponse> response = https.send(request);
    if (response) return std::move(*response);
    api::HttpsResponse none;
    none.body = response.error().message;
    return none;
  }
  api::HttpsResponse get(const std::string& target, const std::string& authorization = "",
                         const Identity& identity = {}) const {
    return send(request_of("GET", target, authorization), identity);
  }

  api::HttpsRequest kubelet_request(const std::string& node, const std::string& password, bool serving = false) const {
    api::HttpsRequest request = request_of(
        "GET", serving ? "/v1-k3s/serving-kubelet.crt" : "/v1-k3s/client-kubelet.crt", agent());
    request.headers = {{"K3s-Node-Name", node}, {"K3s-Node-Password", password}, {"K3s-Node-Ip", "10.0.0.7"}};
    return request;
  }
  api::HttpsResponse join(const std::string& node, const std::string& password) const {
    return send(kubelet_request(node, password));
  }
  // Joins and keeps the kubelet's client certificate.
  Identity identity_of(const std::string& node, const std::string& password) const {
    const api::HttpsResponse response = join(node, password);
    EXPECT_EQ(response.status, 200) << response.body;
    api::PemParts parts = api::split_pem(response.body);
    return {parts.certificates, std::string(parts.key.reveal())};
  }

  // The log as it is on disk now.
  std::unique_ptr<EventLog> log() const {
    auto followed = EventLog::follow({.dir = data_dir() / "events"});
    if (!followed) {
      ADD_FAILURE() << followed.error().message;
      ::abort();
    }
    return std::move(*followed);
  }
  std::vector<Record> records() const {
    std::vector<Record> all;
    const auto events = log();
    const auto read = events->scan(1, UINT64_MAX, [&](Seq, const Result<Record>& record) {
      EXPECT_TRUE(record);
      if (record) all.push_back(*record);
      return true;
    });
    EXPECT_TRUE(read);
    return all;
  }
  template <class T>
  std::vector<Record> records_of() const {
    std::vector<Record> all = records();
    std::erase_if(all, [](const Record& record) { return as<T>(record) == nullptr; });
    return all;
  }
  // The record that a reply names; must exist.
  Record record_of(const api::HttpsResponse& response) const {
    const std::string seq(response.header("Ledger-Seq"));
    EXPECT_FALSE(seq.empty()) << "no Ledger-Seq with " << response.status << " " << response.body;
    if (seq.empty()) return {};
    const Result<Record> record = log()->read(std::stoull(seq));
    EXPECT_TRUE(record) << record.error().message;
    return record ? *record : Record{};
  }

 private:
  TempDir dir_;
  Adjust adjust_;
  std::uint16_t port_ = 0;
  std::unique_ptr<api::Server> server_;
  std::thread thread_;
  Result<void> stopped_;
};

// Looks every 10 ms until `ready`; false when it never became so. For what happens on its own time in the server.
inline bool eventually(const std::function<bool()>& ready, std::chrono::seconds at_most = std::chrono::seconds(30)) {
  const auto until = std::chrono::steady_clock::now() + at_most;
  while (!ready()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

}  // namespace ledger::test
