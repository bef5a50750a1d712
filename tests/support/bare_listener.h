// A Listener alone, with the test as its service and limits as short as the test wants.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <mutex>
#include <thread>
#include <vector>

#include "api/listener.h"
#include "ledger/issuer.h"
#include "tests/support/raw_link.h"
#include "tests/support/temp_dir.h"

namespace ledger::test {

// A tunnel that remembers how it ended. Answers what `on_message` is told to.
class RememberingTunnel : public api::TunnelSession {
 public:
  void attach(api::TunnelSend how) override {
    const std::lock_guard lock(mutex);
    send = std::move(how);
  }
  Result<void> on_message(std::string_view bytes) override {
    ++messages;
    if (bytes == "bad") return Error{Errc::invalid, "not a frame"};
    return {};
  }
  void on_close(std::string_view why) override {
    const std::lock_guard lock(mutex);
    ++closed;
    cause = why;
  }
  std::string cause_now() {
    const std::lock_guard lock(mutex);
    return cause;
  }
  bool say(std::string message) {
    const std::lock_guard lock(mutex);
    return send && send(std::move(message));
  }
  std::atomic<int> messages{0}, closed{0};
  std::mutex mutex;
  std::string cause;
  api::TunnelSend send;
};

class BareListener {
 public:
  using Serve = std::function<void(std::shared_ptr<const api::Request>, api::Reply)>;

  explicit BareListener(api::Listener::Limits limits = {}, Serve serve = {}, api::TrustedProxies proxies = {},
                        const std::string& address = "127.0.0.1")
      : issuer_(*Issuer::open(dir_.path(), Time::now(), false)), serve_(std::move(serve)) {
    api::Listener::Callbacks callbacks;
    callbacks.on_request = [this](std::shared_ptr<const api::Request> request, api::Reply reply) {
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(request);
      }
      if (serve_) return serve_(std::move(request), std::move(reply));
      api::Response response;
      response.body = request->method + " " + request->path + "|" + request->body;
      reply(std::move(response));
    };
    callbacks.on_tls_failed = [this](const api::Peer& peer, const std::string& alert) {
      const std::lock_guard lock(mutex_);
      tls_failures_.emplace_back(peer.source, alert);
    };
    callbacks.on_bad_request = [this](const api::Peer&, int status, const std::string&) {
      const std::lock_guard lock(mutex_);
      bad_requests_.push_back(status);
    };
    listener_ = std::move(*api::Listener::open(io_, address, 0, limits, std::move(callbacks), std::move(proxies)));
    port_ = listener_->port();
    renew();
    listener_->start();
    for (int i = 0; i < 2; ++i) threads_.emplace_back([this] { io_.run(); });
  }
  ~BareListener() {
    listener_->stop();
    work_.reset();
    io_.stop();
    for (std::thread& thread : threads_) thread.join();
  }

  // A fresh certificate, as after a renewal; its serial.
  std::string renew() {
    const auto issued = issuer_.issue_listener({}, "", Time::now());
    EXPECT_TRUE(listener_->set_certificate(issued->leaf_pem + issued->ca_pem, issued->key_pem));
    return issued->serial;
  }

  api::HttpsOptions https_options() const {
    api::HttpsOptions options;
    options.connect_to = {"127.0.0.1", port_};
    options.trust = api::HttpsTrust::bundle;
    options.bundle_pem = issuer_.server_ca_pem();
    options.timeout = std::chrono::seconds(30);
    return options;
  }
  api::HttpsClient client(bool keep_alive = false) const {
    api::HttpsOptions options = https_options();
    options.keep_alive = keep_alive;
    return std::move(*api::HttpsClient::open(std::move(options)));
  }
  bool serves() const {
    auto https = client();
    api::HttpsRequest request;
    request.target = "/alive";
    const auto response = https.send(request);
    return response && response->status == 200;
  }

  api::Listener& listener() { return *listener_; }
  std::uint16_t port() const { return port_; }
  std::vector<std::shared_ptr<const api::Request>> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  std::vector<std::pair<std::string, std::string>> tls_failures() const {
    const std::lock_guard lock(mutex_);
    return tls_failures_;
  }
  std::vector<int> bad_requests() const {
    const std::lock_guard lock(mutex_);
    return bad_requests_;
  }

 private:
  TempDir dir_;
  Issuer issuer_;
  Serve serve_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const api::Request>> requests_;
  std::vector<std::pair<std::string, std::string>> tls_failures_;
  std::vector<int> bad_requests_;
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{io_.get_executor()};
  std::unique_ptr<api::Listener> listener_;
  std::uint16_t port_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace ledger::test
