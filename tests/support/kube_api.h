// As much of a kube-apiserver as a watcher of nodes meets: TLS, who may ask, lists in pages, watches with
// bookmarks, 410 Gone; and everything that goes wrong with it, on demand.
#pragma once

#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <boost/json.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ledger/credentials.h"
#include "ledger/issuer.h"
#include "tests/support/local_listener.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger::test {

class KubeApi {
 public:
  enum class ListFault {
    none,
    status_500,
    gone_on_second_page,
    cut_short,
    not_json,
    other_kind,
    item_without_uid,
    empty
  };

  KubeApi() : issuer_(*Issuer::open(dir_ / "ca", Time::now(), false)) {
    ::signal(SIGPIPE, SIG_IGN);
    context_ = SSL_CTX_new(TLS_server_method());
    const auto certificate = issuer_.issue_listener({}, "", Time::now());
    put_file(dir_ / "server.pem", certificate->leaf_pem + std::string(certificate->key_pem.reveal()));
    put_file(dir_ / "client-ca.pem", issuer_.client_ca_pem());
    const std::string pem = dir_ / "server.pem";
    EXPECT_EQ(SSL_CTX_use_certificate_file(context_, pem.c_str(), SSL_FILETYPE_PEM), 1);
    EXPECT_EQ(SSL_CTX_use_PrivateKey_file(context_, pem.c_str(), SSL_FILETYPE_PEM), 1);
    EXPECT_EQ(SSL_CTX_load_verify_locations(context_, (dir_ / "client-ca.pem").c_str(), nullptr), 1);
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER,
                       nullptr);  // asked for, not required; a bad one ends the handshake
    acceptor_ = std::thread([this] { accept_all(); });
  }
  KubeApi(const KubeApi&) = delete;
  KubeApi& operator=(const KubeApi&) = delete;
  ~KubeApi() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    listener_.shut_down();
    acceptor_.join();
    for (std::thread& connection : connections_) connection.join();
    SSL_CTX_free(context_);
  }

  // ---- the cluster ---------------------------------------------------------------------------------------
  void create(const std::string& name, const std::string& uid) { happen("ADDED", name, uid); }
  void modify(const std::string& name) { happen("MODIFIED", name, uid_of(name)); }
  void remove(const std::string& name) { happen("DELETED", name, uid_of(name)); }
  // Without an event: what a watcher that was away never hears of.
  void replace_all(std::map<std::string, std::string> nodes) {
    const std::lock_guard lock(mutex_);
    nodes_ = std::move(nodes);
    ++version_;
    oldest_ = version_;
    events_.clear();
  }

  // ---- what goes wrong -----------------------------------------------------------------------------------
  void fail_lists(ListFault fault) {
    const std::lock_guard lock(mutex_);
    fault_ = fault;
  }
  // Versions before now are too old to watch from, and watches that are open are told so.
  void forget_history() {
    {
      const std::lock_guard lock(mutex_);
      oldest_ = ++version_;
      ++expiries_;
    }
    changed_.notify_all();
  }
  // Watches end in the middle of an event, without a word.
  void cut_watches() {
    {
      const std::lock_guard lock(mutex_);
      ++cuts_;
    }
    changed_.notify_all();
  }
  void take_token(const std::string& token) {
    const std::lock_guard lock(mutex_);
    token_ = token;
  }

  // ---- what was asked ------------------------------------------------------------------------------------
  int lists() const { return lists_; }
  int watches() const { return watches_; }
  int open_watches() const { return open_watches_; }
  int refusals() const { return refusals_; }

  // ---- kubeconfigs ---------------------------------------------------------------------------------------
  std::string url() const { return "https://127.0.0.1:" + std::to_string(listener_.port()); }
  std::string ca() const { return issuer_.server_ca_pem(); }
  IssuedCertificate client_certificate() const {
    return std::move(*issuer_.issue(Purpose::client_program_controller, {}, {}, Time::now()));
  }
  // A file for `user`, the YAML of a user's fields, e.g. "token: kube-token".
  std::filesystem::path kubeconfig(const std::string& user, const std::string& name = "kubeconfig") const {
    put_file(dir_ / name,
             "apiVersion: v1\nkind: Config\ncurrent-context: here\ncontexts:\n- name: here\n  context: "
             "{cluster: mine, user: me}\nclusters:\n- name: mine\n  cluster:\n    server: " +
                 url() + "\n    certificate-authority-data: " + base64(ca()) + "\nusers:\n- name: me\n  user: {" +
                 user + "}\n");
    return dir_ / name;
  }
  std::filesystem::path directory() const { return dir_.path(); }

 private:
  struct Change {
    int version;
    std::string type, name, uid;
  };

  std::string uid_of(const std::string& name) {
    const std::lock_guard lock(mutex_);
    return nodes_.at(name);
  }
  void happen(const std::string& type, const std::string& name, const std::string& uid) {
    {
      const std::lock_guard lock(mutex_);
      if (type == "DELETED")
        nodes_.erase(name);
      else
        nodes_[name] = uid;
      events_.push_back({++version_, type, name, uid});
    }
    changed_.notify_all();
  }

  void accept_all() {
    for (;;) {
      const int fd = listener_.accept();
      if (fd < 0) return;
      connections_.emplace_back([this, fd] { serve(fd); });
    }
  }

  static void say(SSL* ssl, const std::string& text) { SSL_write(ssl, text.data(), static_cast<int>(text.size())); }
  static void answer(SSL* ssl, int status, const std::string& body) {
    say(ssl, "HTTP/1.1 " + std::to_string(status) +
                 " Word\r\nContent-Type: application/json\r\nConnection: close\r\n" +
                 "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  }
  static std::string failure(int status, const std::string& message) {
    return boost::json::serialize(
        boost::json::value{{"kind", "Status"}, {"status", "Failure"}, {"message", message}, {"code", status}});
  }
  static std::string parameter(const std::string& target, const std::string& name) {
    const auto at = target.find(name + "=");
    if (at == std::string::npos) return "";
    const auto begin = at + name.size() + 1;
    return target.substr(begin, target.find('&', begin) - begin);
  }
  static boost::json::object object(const std::string& name, const std::string& uid, int version) {
    return {{"kind", "PartialObjectMetadata"},
            {"metadata", {{"name", name}, {"uid", uid}, {"resourceVersion", std::to_string(version)}}}};
  }

  void serve(int fd) {
    SSL* ssl = SSL_new(context_);
    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1) {
      std::string head;
      char byte;
      while (!head.ends_with("\r\n\r\n") && SSL_read(ssl, &byte, 1) == 1) head += byte;
      handle(ssl, head);
      SSL_shutdown(ssl);
    }
    SSL_free(ssl);
    ::close(fd);
  }

  void handle(SSL* ssl, const std::string& head) {
    const auto begin = head.find(' ') + 1;
    const std::string target = head.substr(begin, head.find(' ', begin) - begin);
    X509* certificate = SSL_get1_peer_certificate(ssl);
    const bool certified = certificate != nullptr && SSL_get_verify_result(ssl) == X509_V_OK;
    X509_free(certificate);
    bool tokened;
    {
      const std::lock_guard lock(mutex_);
      tokened = head.find("Authorization: Bearer " + token_ + "\r\n") != std::string::npos;
    }
    if (!certified && !tokened) {
      ++refusals_;
      return answer(ssl, 401, failure(401, "Unauthorized"));
    }
    if (!target.starts_with("/api/v1/nodes?")) return answer(ssl, 404, failure(404, "not found"));
    if (parameter(target, "watch") == "1")
      return watch(ssl, std::atoi(parameter(target, "resourceVersion").c_str()));
    list(ssl, target);
  }

  // The continue token is the name to begin after, and the version of the first page.
  void list(SSL* ssl, const std::string& target) {
    const std::lock_guard lock(mutex_);
    const std::string after = parameter(target, "continue");
    const std::size_t limit = std::stoul(parameter(target, "limit"));
    ++lists_;
    if (fault_ == ListFault::status_500) return answer(ssl, 500, failure(500, "etcdserver: no leader"));
    if (fault_ == ListFault::gone_on_second_page && !after.empty())
      return answer(ssl, 410, failure(410, "The provided continue parameter is too old"));
    boost::json::array items;
    std::string next;
    for (auto it = after.empty() ? nodes_.begin() : nodes_.upper_bound(after); it != nodes_.end(); ++it) {
      if (items.size() == limit) {
        next = std::string(items.back().at("metadata").at("name").as_string());
        break;
      }
      items.push_back(object(it->first, it->second, version_));
    }
    if (fault_ == ListFault::empty) items.clear(), next.clear();
    if (fault_ == ListFault::item_without_uid) items.back().at("metadata").as_object().erase("uid");
    const std::string body = boost::json::serialize(
        boost::json::value{{"kind", fault_ == ListFault::other_kind ? "PodList" : "PartialObjectMetadataList"},
                           {"metadata", {{"resourceVersion", std::to_string(version_)}, {"continue", next}}},
                           {"items", items}});
    if (fault_ == ListFault::cut_short) {
      say(ssl, "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
                   body.substr(0, body.size() / 2));
      return;
    }
    answer(ssl, 200, fault_ == ListFault::not_json ? "<html>" : body);
  }

  static void chunk(SSL* ssl, const std::string& text) {
    char size[32];
    std::snprintf(size, sizeof size, "%zx\r\n", text.size());
    say(ssl, size + text + "\r\n");
  }

  void watch(SSL* ssl, int from) {
    std::unique_lock lock(mutex_);
    ++watches_;
    if (from < oldest_) return answer(ssl, 410, failure(410, "too old resource version"));
    const int cuts = cuts_, expiries = expiries_;
    say(ssl, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    ++open_watches_;
    while (!stopping_ && cuts_ == cuts && expiries_ == expiries) {
      for (const Change& change : events_) {
        if (change.version <= from) continue;
        const std::string line =
            boost::json::serialize(boost::json::value{
                {"type", change.type}, {"object", object(change.name, change.uid, change.version)}}) +
            "\n";
        // An event may come in pieces.
        chunk(ssl, line.substr(0, 10));
        chunk(ssl, line.substr(10));
        from = change.version;
      }
      if (version_ > from) {
        from = version_;
        chunk(ssl, R"({"type":"BOOKMARK","object":{"kind":"Node","metadata":{"resourceVersion":")" +
                       std::to_string(from) + "\"}}}\n");
      }
      changed_.wait(lock, [&] { return stopping_ || version_ > from || cuts_ != cuts || expiries_ != expiries; });
    }
    if (expiries_ != expiries) {
      chunk(ssl, R"({"type":"ERROR","object":)" + failure(410, "too old resource version") + "}\n");
      say(ssl, "0\r\n\r\n");
    } else if (cuts_ != cuts) {
      say(ssl, "40\r\n{\"type\":\"DEL");
    }
    --open_watches_;
  }

  TempDir dir_;
  Issuer issuer_;
  SSL_CTX* context_ = nullptr;
  LocalListener listener_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> nodes_;
  std::vector<Change> events_;
  int version_ = 100, oldest_ = 0, cuts_ = 0, expiries_ = 0;
  bool stopping_ = false;
  ListFault fault_ = ListFault::none;
  std::string token_ = "kube-token";
  std::atomic<int> lists_{0}, watches_{0}, open_watches_{0}, refusals_{0};
  std::thread acceptor_;
  std::vector<std::thread> connections_;
};

}  // namespace ledger::test
