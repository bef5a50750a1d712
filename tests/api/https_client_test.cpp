// The client against a TLS server on plain OpenSSL: what Go's client is known to do on the wire, and its words.
#include "api/https_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <unistd.h>

#include <functional>
#include <semaphore>
#include <thread>

#include "api/websocket_client.h"
#include "ledger/credentials.h"
#include "ledger/issuer.h"
#include "tests/support/local_listener.h"
#include "tests/support/temp_dir.h"

namespace ledger::api {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::StartsWith;

std::string read_until(SSL* ssl, const std::string& end) {
  std::string out;
  char byte = 0;
  while (!out.ends_with(end) && SSL_read(ssl, &byte, 1) == 1) out.push_back(byte);
  return out;
}

void write_all(SSL* ssl, const std::string& text) { SSL_write(ssl, text.data(), static_cast<int>(text.size())); }

// One thread, one connection at a time: handshake, then `script`, then an orderly end.
class TlsServer {
 public:
  using Script = std::function<void(SSL*)>;

  TlsServer(const IssuedCertificate& certificate, Script script) : script_(std::move(script)) {
    ::signal(SIGPIPE, SIG_IGN);  // this server writes to clients that have left
    context_ = SSL_CTX_new(TLS_server_method());
    load(certificate);
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, [](int, X509_STORE_CTX*) { return 1; });
    thread_ = std::thread([this] { serve(); });
  }

  ~TlsServer() {
    stop();
    SSL_CTX_free(context_);
  }

  // Waits for the connection in progress to end; what was noted is complete then.
  void stop() {
    if (!thread_.joinable()) return;
    listener_.shut_down();
    thread_.join();
  }

  std::uint16_t port() const { return listener_.port(); }
  const std::vector<int>& alerts() const { return alerts_; }
  int connections() const { return connections_; }

 private:
  void load(const IssuedCertificate& certificate) {
    BIO* bio = BIO_new_mem_buf(certificate.leaf_pem.data(), static_cast<int>(certificate.leaf_pem.size()));
    X509* leaf = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
    BIO_free(bio);
    const std::string_view key_text = certificate.key_pem.reveal();
    bio = BIO_new_mem_buf(key_text.data(), static_cast<int>(key_text.size()));
    EVP_PKEY* key = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
    BIO_free(bio);
    SSL_CTX_use_certificate(context_, leaf);
    SSL_CTX_use_PrivateKey(context_, key);
    X509_free(leaf);
    EVP_PKEY_free(key);
  }

  void serve() {
    for (;;) {
      const int fd = listener_.accept();
      if (fd < 0) return;
      ++connections_;
      SSL* ssl = SSL_new(context_);
      SSL_set_fd(ssl, fd);
      ERR_clear_error();
      if (SSL_accept(ssl) == 1) {
        script_(ssl);
        SSL_shutdown(ssl);
      }
      if (const int reason = ERR_GET_REASON(ERR_peek_error()); reason > SSL_AD_REASON_OFFSET)
        alerts_.push_back(reason - SSL_AD_REASON_OFFSET);
      SSL_free(ssl);
      ::close(fd);
    }
  }

  Script script_;
  SSL_CTX* context_ = nullptr;
  test::LocalListener listener_;
  int connections_ = 0;
  std::vector<int> alerts_;
  std::thread thread_;
};

// Answers every request of a connection with its own head, until the client leaves.
void echo(SSL* ssl) {
  for (;;) {
    const std::string head = read_until(ssl, "\r\n\r\n");
    if (head.empty()) return;
    write_all(ssl, "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(head.size()) +
                       "\r\nLedger-Seq: 7\r\n\r\n" + head);
    if (head.find("Connection: close") != std::string::npos) return;
  }
}

class HttpsClientTest : public testing::Test {
 protected:
  HttpsClientTest()
      : issuer_(*Issuer::open(directory_.path(), Time::now(), false)),
        certificate_(*issuer_.issue_listener({"server.example"}, "cluster.local", Time::now())) {}

  HttpsOptions to(const TlsServer& server, HttpsTrust trust = HttpsTrust::bundle) const {
    HttpsOptions options;
    options.connect_to = {"127.0.0.1", server.port()};
    options.trust = trust;
    options.bundle_pem = issuer_.server_ca_pem();
    return options;
  }

  static std::string error_of(HttpsOptions options) {
    auto client = HttpsClient::open(std::move(options));
    if (!client) return "open: " + client.error().message;
    const auto response = client->send({.target = "/cacerts"});
    return response ? "status " + response->status_line() : response.error().message;
  }

  test::TempDir directory_;
  Issuer issuer_;
  IssuedCertificate certificate_;
};

TEST_F(HttpsClientTest, SendsWhatItIsToldAndReadsTheAnswer) {
  TlsServer server(certificate_, echo);
  auto client = HttpsClient::open(to(server));
  ASSERT_TRUE(client.has_value());
  HttpsRequest request{.target = "/v1-k3s/config", .headers = {{"K3s-Node-Name", "web-1"}}};
  request.authorization = Secret("Basic bm9kZTpwdw==");
  const auto response = client->send(request);
  ASSERT_TRUE(response.has_value()) << response.error().message;
  EXPECT_EQ(response->status_line(), "200 OK");
  EXPECT_EQ(response->header("ledger-seq"), "7");
  EXPECT_THAT(response->body, StartsWith("GET /v1-k3s/config HTTP/1.1\r\nHost: 127.0.0.1:"));
  EXPECT_THAT(response->body, HasSubstr("\r\nK3s-Node-Name: web-1\r\n"));
  EXPECT_THAT(response->body, HasSubstr("\r\nConnection: close\r\n"));
  EXPECT_THAT(response->body, HasSubstr("\r\nAuthorization: Basic bm9kZTpwdw==\r\n"));
  EXPECT_THAT(client->local_address(), MatchesRegex("127\\.0\\.0\\.1:[0-9]+"));
}

TEST_F(HttpsClientTest, RefusesAStrangersCertificateWithAlert42) {
  TlsServer server(certificate_, echo);
  EXPECT_EQ(error_of(to(server, HttpsTrust::os_roots)), "x509: certificate signed by unknown authority");
  server.stop();
  EXPECT_THAT(server.alerts(), ElementsAre(SSL_AD_BAD_CERTIFICATE));
}

TEST_F(HttpsClientTest, TrustingAnyoneAsksNoQuestions) {
  TlsServer server(certificate_, echo);
  HttpsOptions options = to(server, HttpsTrust::anyone);
  options.authority = {"nobody.example", 443};
  EXPECT_EQ(error_of(std::move(options)), "status 200 OK");
}

TEST_F(HttpsClientTest, ChecksTheNameInTheUrlNotTheAddressDialled) {
  TlsServer server(certificate_, echo);
  HttpsOptions options = to(server);
  options.authority = {"server.example", 6443};
  EXPECT_EQ(error_of(std::move(options)), "status 200 OK");
  options = to(server);
  options.authority = {"10.9.9.9", 6443};
  EXPECT_THAT(error_of(std::move(options)),
              MatchesRegex("x509: certificate is valid for .*127\\.0\\.0\\.1.*, not 10\\.9\\.9\\.9"));
  options = to(server);
  options.authority = {"other.example", 6443};
  EXPECT_THAT(error_of(std::move(options)),
              MatchesRegex("x509: certificate is valid for .*server\\.example.*, not other\\.example"));
  server.stop();
  EXPECT_THAT(server.alerts(), ElementsAre(SSL_AD_BAD_CERTIFICATE, SSL_AD_BAD_CERTIFICATE));
}

TEST_F(HttpsClientTest, AnExpiredCertificateIsNamedBeforeAnythingElse) {
  const Time long_ago = Time::now().plus_seconds(-5LL * 365 * 86400);
  test::TempDir old_directory;
  const Issuer old = *Issuer::open(old_directory.path(), long_ago, false);
  const IssuedCertificate expired = *old.issue_listener({}, "cluster.local", long_ago);
  TlsServer server(expired, echo);
  HttpsOptions options = to(server);
  options.bundle_pem = old.server_ca_pem();
  EXPECT_THAT(error_of(std::move(options)),
              MatchesRegex("x509: certificate has expired or is not yet valid: current time .*Z is after .*Z"));
  server.stop();
  EXPECT_THAT(server.alerts(), ElementsAre(SSL_AD_BAD_CERTIFICATE));
}

TEST_F(HttpsClientTest, AnEmptyBundleIsRefusedBeforeAConnection) {
  TlsServer server(certificate_, echo);
  HttpsOptions options = to(server);
  options.bundle_pem = "not a certificate";
  EXPECT_THAT(error_of(std::move(options)), StartsWith("open: x509: certificate signed by unknown authority"));
  server.stop();
  EXPECT_EQ(server.connections(), 0);
}

TEST_F(HttpsClientTest, PresentsItsCertificate) {
  const NodeName node = *NodeName::parse("web-1");
  IssuedCertificate kubelet = *issuer_.issue(Purpose::client_kubelet, node, {}, Time::now());
  std::string subject;
  TlsServer server(certificate_, [&subject](SSL* ssl) {
    if (X509* peer = SSL_get1_peer_certificate(ssl)) {
      char line[256];
      subject = X509_NAME_oneline(X509_get_subject_name(peer), line, sizeof line);
      X509_free(peer);
    }
    echo(ssl);
  });
  HttpsOptions options = to(server);
  options.cert_pem = kubelet.leaf_pem + kubelet.ca_pem;
  options.key_pem = kubelet.key_pem.clone();
  EXPECT_EQ(error_of(std::move(options)), "status 200 OK");
  server.stop();
  EXPECT_EQ(subject, "/O=system:nodes/CN=system:node:web-1");
}

TEST_F(HttpsClientTest, OneConnectionPerRequestUnlessKept) {
  for (const bool keep : {false, true}) {
    TlsServer server(certificate_, echo);
    HttpsOptions options = to(server);
    options.keep_alive = keep;
    {
      auto client = HttpsClient::open(std::move(options));
      for (int i = 0; i < 3; ++i) EXPECT_TRUE(client->send({.target = "/"}).has_value());
    }
    server.stop();
    EXPECT_EQ(server.connections(), keep ? 1 : 3);
  }
}

TEST_F(HttpsClientTest, AKeptConnectionThatTheServerClosedIsReplaced) {
  TlsServer server(certificate_, [](SSL* ssl) {
    read_until(ssl, "\r\n\r\n");
    write_all(ssl, "HTTP/1.1 204 No Content\r\n\r\n");
  });
  HttpsOptions options = to(server);
  options.keep_alive = true;
  auto client = HttpsClient::open(std::move(options));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(client->send({.target = "/"})->status, 204);
}

TEST_F(HttpsClientTest, SaysWhatGoSays) {
  const auto error_with = [this](TlsServer::Script script) {
    TlsServer server(certificate_, std::move(script));
    HttpsOptions options = to(server);
    options.body_limit = 64;
    return error_of(std::move(options));
  };
  const auto answer = [](const std::string& text) {
    return [text](SSL* ssl) {
      read_until(ssl, "\r\n\r\n");
      write_all(ssl, text);
    };
  };
  EXPECT_EQ(error_with([](SSL* ssl) { read_until(ssl, "\r\n\r\n"); }), "EOF");
  EXPECT_EQ(error_with(answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")), "unexpected EOF");
  EXPECT_EQ(error_with(answer("HTTP/1.1 200 OK\r\n\r\nuntil the end")), "status 200 OK");
  EXPECT_EQ(error_with(answer("HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n")),
            "http: response body is larger than this client takes");
  EXPECT_THAT(error_with(answer("SSH-2.0-OpenSSH\r\n\r\n")), StartsWith("malformed HTTP response"));
}

TEST_F(HttpsClientTest, NothingListens) {
  std::uint16_t port = 0;
  { port = TlsServer(certificate_, echo).port(); }
  HttpsOptions options;
  options.connect_to = {"127.0.0.1", port};
  auto client = HttpsClient::open(std::move(options));
  const auto response = client->send({.target = "/"});
  ASSERT_FALSE(response.has_value());
  EXPECT_EQ(response.error().code, Errc::unavailable);
  EXPECT_EQ(response.error().message,
            "dial tcp 127.0.0.1:" + std::to_string(port) + ": connect: connection refused");
}

TEST_F(HttpsClientTest, AServerThatNeverAnswersCostsTheTimeoutAndNoMore) {
  TlsServer server(certificate_, [](SSL* ssl) { read_until(ssl, "never sent"); });
  HttpsOptions options = to(server);
  options.timeout = 50ms;
  EXPECT_EQ(error_of(std::move(options)),
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
}

// ---- answers without an end -------------------------------------------------------------------------------

constexpr const char* kChunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

class StreamTest : public HttpsClientTest {
 protected:
  // What a stream brings: the pieces, an end or an error. `enough`: when to stop taking pieces.
  struct Heard {
    std::string body;
    int empty_pieces = 0;
    Result<HttpsResponse> end = Error{Errc::io, "never ended"};
  };
  Heard stream(const TlsServer& server, std::chrono::milliseconds silence = 60s,
               const std::function<bool(const Heard&)>& enough = {}) {
    HttpsOptions options = to(server);
    options.timeout = timeout_;
    auto client = HttpsClient::open(std::move(options));
    Heard heard;
    heard.end = client->stream({.target = "/watch"}, silence, [&](std::string_view piece) {
      heard.body += piece;
      heard.empty_pieces += piece.empty() ? 1 : 0;
      if (on_piece_) on_piece_(piece);
      return !enough || !enough(heard);
    });
    return heard;
  }
  static void answer(SSL* ssl, const std::string& text) {
    read_until(ssl, "\r\n\r\n");
    write_all(ssl, text);
  }

  std::chrono::milliseconds timeout_ = 30s;
  std::function<void(std::string_view)> on_piece_;
};

TEST_F(StreamTest, EachPieceIsThereBeforeTheNextIsSent) {
  std::binary_semaphore taken{0};
  on_piece_ = [&](std::string_view piece) {
    if (!piece.empty()) taken.release();
  };
  const TlsServer server(certificate_, [&](SSL* ssl) {
    answer(ssl, kChunked);
    for (const char* piece : {"3\r\none\r\n", "3\r\ntwo\r\n", "5\r\nthree\r\n"}) {
      write_all(ssl, piece);
      taken.acquire();
    }
    write_all(ssl, "0\r\n\r\n");
  });
  const Heard heard = stream(server);
  EXPECT_TRUE(heard.end) << heard.end.error().message;
  EXPECT_EQ(heard.body, "onetwothree");
  EXPECT_EQ(heard.end->status, 200);
  EXPECT_EQ(heard.end->body, "") << "it is not kept";
}

TEST_F(StreamTest, EndsWithItsLengthOrWithTheConnection) {
  for (const char* head : {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 200 OK\r\n\r\nhello"}) {
    const TlsServer server(certificate_, [&](SSL* ssl) { answer(ssl, head); });
    const Heard heard = stream(server);
    EXPECT_TRUE(heard.end) << head << heard.end.error().message;
    EXPECT_EQ(heard.body, "hello") << head;
  }
}

TEST_F(StreamTest, WhoHasHadEnoughEndsItWithoutAnError) {
  const TlsServer server(certificate_, [](SSL* ssl) {
    answer(ssl, kChunked + std::string("3\r\none\r\n"));
    read_until(ssl, "never");  // until the client leaves
  });
  Heard heard = stream(server, 60s, [](const Heard& so_far) { return so_far.body == "one"; });
  EXPECT_TRUE(heard.end) << heard.end.error().message;
  // Also while nothing arrives: that is how a watcher is stopped.
  heard = stream(server, 60s, [](const Heard& so_far) { return so_far.empty_pieces == 2; });
  EXPECT_TRUE(heard.end) << heard.end.error().message;
  EXPECT_EQ(heard.body, "one");
}

TEST_F(StreamTest, SilenceIsAnErrorAndSoIsAnEndInTheMiddle) {
  {
    const TlsServer mute(certificate_, [](SSL* ssl) {
      answer(ssl, kChunked + std::string("3\r\none\r\n"));
      read_until(ssl, "never");
    });
    const Heard heard = stream(mute, 500ms);
    EXPECT_FALSE(heard.end);
    EXPECT_EQ(heard.body, "one");
    EXPECT_GE(heard.empty_pieces, 1);
  }
  for (const char* rest : {"", "5\r\nhe", "zz\r\n"}) {
    const TlsServer server(certificate_,
                           [&](SSL* ssl) { answer(ssl, kChunked + std::string("3\r\none\r\n") + rest); });
    const Heard heard = stream(server);
    EXPECT_FALSE(heard.end) << rest;
    EXPECT_TRUE(std::string_view("onehe").starts_with(heard.body)) << heard.body;
  }
}

TEST_F(StreamTest, ARefusalIsReadWhole) {
  const TlsServer server(certificate_, [](SSL* ssl) {
    answer(ssl, "HTTP/1.1 410 Gone\r\nContent-Length: 7\r\n\r\ntoo");
    write_all(ssl, " old");
  });
  const Heard heard = stream(server);
  ASSERT_TRUE(heard.end) << heard.end.error().message;
  EXPECT_EQ(heard.end->status_line() + ": " + heard.end->body, "410 Gone: too old");
  EXPECT_EQ(heard.body, "");
}

TEST_F(StreamTest, HeadersMustComeWithinTheTimeout) {
  timeout_ = 300ms;
  const TlsServer server(certificate_, [](SSL* ssl) { read_until(ssl, "never"); });
  EXPECT_FALSE(stream(server).end);
  // Past them, only silence counts.
  const TlsServer slow(certificate_, [](SSL* ssl) {
    answer(ssl, kChunked);
    read_until(ssl, "never");
  });
  EXPECT_TRUE(stream(slow, 60s, [](const Heard& so_far) { return so_far.empty_pieces == 3; }).end);
}

TEST_F(HttpsClientTest, HeadersCannotSmuggleLines) {
  TlsServer server(certificate_, echo);
  auto client = HttpsClient::open(to(server));
  const auto response = client->send({.target = "/", .headers = {{"K3s-Node-Name", "a\r\nX: y"}}});
  ASSERT_FALSE(response.has_value());
  EXPECT_THAT(response.error().message, HasSubstr("line end"));
}

TEST_F(HttpsClientTest, KeyPairsAreCheckedAsGoChecksThem) {
  const NodeName node = *NodeName::parse("web-1");
  const IssuedCertificate one = *issuer_.issue(Purpose::client_kubelet, node, {}, Time::now());
  const IssuedCertificate two = *issuer_.issue(Purpose::client_kubelet, node, {}, Time::now());
  const auto error = [](const std::string& cert, const Secret& key) {
    const auto checked = check_key_pair(cert, key);
    return checked ? "" : checked.error().message;
  };
  EXPECT_EQ(error(one.leaf_pem + one.ca_pem, one.key_pem), "");
  EXPECT_EQ(error(one.leaf_pem, two.key_pem), "tls: private key does not match public key");
  EXPECT_EQ(error(one.leaf_pem, Secret("")), "tls: failed to find any PEM data in key input");
  EXPECT_EQ(error("", one.key_pem), "tls: failed to find any PEM data in certificate input");
  EXPECT_EQ(error("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", one.key_pem),
            "tls: failed to parse certificate");
}

TEST(HostPort, TakesWhatPeopleWrite) {
  const auto parsed = [](std::string_view text) {
    const auto out = HostPort::parse(text, 443);
    return out ? out->to_string() : "refused";
  };
  EXPECT_EQ(parsed("10.0.0.1:6443"), "10.0.0.1:6443");
  EXPECT_EQ(parsed("server"), "server:443");
  EXPECT_EQ(parsed("[fd00::1]:6443"), "[fd00::1]:6443");
  EXPECT_EQ(parsed("[fd00::1]"), "[fd00::1]:443");
  for (const char* bad :
       {"", ":6443", "fd00::1", "[fd00::1", "server:", "server:0", "server:65536", "server:6443x"})
    EXPECT_EQ(parsed(bad), "refused") << bad;
}

// ---- websocket -------------------------------------------------------------------------------------------

std::string header_value(const std::string& head, const std::string& name) {
  const auto at = head.find(name + ": ");
  if (at == std::string::npos) return "";
  const auto begin = at + name.size() + 2;
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

// Reads the upgrade and accepts it.
void accept_upgrade(SSL* ssl) {
  const std::string head = read_until(ssl, "\r\n\r\n");
  const std::string key = header_value(head, "Sec-WebSocket-Key");
  write_all(ssl,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Accept: " +
                base64(sha1(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) + "\r\n\r\n");
}

// One masked client frame of less than 126 bytes: its first byte and the payload; empty at the end.
std::pair<int, std::string> read_frame(SSL* ssl) {
  const auto take = [ssl](std::size_t size) {
    std::string out(size, '\0');
    for (char& c : out)
      if (SSL_read(ssl, &c, 1) != 1) return std::string();
    return out;
  };
  const std::string head = take(2);
  if (head.empty()) return {-1, ""};
  const auto size = static_cast<std::size_t>(head[1] & 0x7F);
  const std::string mask = take(4);
  std::string payload = size == 0 ? "" : take(size);
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<char>(payload[i] ^ mask[i % 4]);
  return {static_cast<unsigned char>(head[0]), payload};
}

class WebsocketClientTest : public HttpsClientTest {
 protected:
  WebsocketClient::Options tunnel(const TlsServer& server) const {
    WebsocketClient::Options options;
    options.https = to(server);
    options.target = "/v1-k3s/connect";
    return options;
  }
};

TEST_F(WebsocketClientTest, CarriesMessagesBothWays) {
  std::string got;
  TlsServer server(certificate_, [&got](SSL* ssl) {
    accept_upgrade(ssl);
    write_all(ssl, "\x82\x05hello");
    // Two fragments with a ping between them.
    write_all(ssl, "\x02\x03one");
    write_all(ssl, "\x89\x02hi");
    write_all(ssl, "\x80\x03two");
    for (int i = 0; i < 2; ++i) {
      const auto [kind, payload] = read_frame(ssl);
      got += (kind == 0x8A ? "pong:" : kind == 0x82 ? "binary:" : "other:") + payload + " ";
    }
    write_all(ssl, std::string("\x88\x05\x03\xe8") + "bye");
    read_frame(ssl);
  });
  auto client = WebsocketClient::connect(tunnel(server), nullptr);
  ASSERT_TRUE(client.has_value()) << client.error().message;
  EXPECT_EQ(**client->receive(10s), "hello");
  EXPECT_EQ(**client->receive(10s), "onetwo");
  EXPECT_TRUE(client->send("over").has_value());
  const auto end = client->receive(10s);
  ASSERT_FALSE(end.has_value());
  EXPECT_EQ(end.error().message, "websocket: close 1000 (normal): bye");
  server.stop();
  EXPECT_EQ(got, "pong:hi binary:over ");
}

TEST_F(WebsocketClientTest, PingsWhileItWaits) {
  TlsServer server(certificate_, [](SSL* ssl) {
    accept_upgrade(ssl);
    for (int i = 0; i < 3; ++i)
      if (read_frame(ssl).first == 0x89) write_all(ssl, std::string("\x8a\x00", 2));
    write_all(ssl,
              "\x82\x04"
              "done");
    int kind = 0;
    while (kind >= 0 && kind != 0x88) kind = read_frame(ssl).first;
    write_all(ssl, "\x88\x02\x03\xe8");
  });
  WebsocketClient::Options options = tunnel(server);
  options.ping_every = 5ms;
  auto client = WebsocketClient::connect(std::move(options), nullptr);
  ASSERT_TRUE(client.has_value()) << client.error().message;
  EXPECT_EQ(**client->receive(10s), "done");
  EXPECT_EQ(client->pongs(), 3U);
  client->close();
}

TEST_F(WebsocketClientTest, AWaitEndsWithoutAMessage) {
  TlsServer server(certificate_, [](SSL* ssl) {
    accept_upgrade(ssl);
    while (read_frame(ssl).first >= 0) {
    }
  });
  auto client = WebsocketClient::connect(tunnel(server), nullptr);
  ASSERT_TRUE(client.has_value()) << client.error().message;
  const auto nothing = client->receive(5ms);
  ASSERT_TRUE(nothing.has_value()) << nothing.error().message;
  EXPECT_FALSE(nothing->has_value());
}

TEST_F(WebsocketClientTest, ClosingIsOneFrameEach) {
  std::vector<int> kinds;
  TlsServer server(certificate_, [&kinds](SSL* ssl) {
    accept_upgrade(ssl);
    kinds.push_back(read_frame(ssl).first);
    write_all(ssl, "\x88\x02\x03\xe8");
    SSL_shutdown(ssl);
    kinds.push_back(read_frame(ssl).first);
  });
  auto client = WebsocketClient::connect(tunnel(server), nullptr);
  ASSERT_TRUE(client.has_value()) << client.error().message;
  client->close();
  server.stop();
  EXPECT_THAT(kinds, ElementsAre(0x88, -1));
}

TEST_F(WebsocketClientTest, SilenceEndsTheSession) {
  TlsServer server(certificate_, [](SSL* ssl) {
    accept_upgrade(ssl);
    while (read_frame(ssl).first >= 0) {
    }
  });
  WebsocketClient::Options options = tunnel(server);
  options.silence_limit = 20ms;
  auto client = WebsocketClient::connect(std::move(options), nullptr);
  ASSERT_TRUE(client.has_value()) << client.error().message;
  const auto end = client->receive(10s);
  ASSERT_FALSE(end.has_value());
  EXPECT_THAT(end.error().message, HasSubstr("i/o timeout"));
}

TEST_F(WebsocketClientTest, EndsAsGorillaEnds) {
  const auto end_after = [this](const std::string& bytes) {
    TlsServer server(certificate_, [&bytes](SSL* ssl) {
      accept_upgrade(ssl);
      write_all(ssl, bytes);
    });
    auto client = WebsocketClient::connect(tunnel(server), nullptr);
    if (!client) return "connect: " + client.error().message;
    const auto end = client->receive(10s);
    return end ? "a message" : end.error().message;
  };
  EXPECT_EQ(end_after("\x81\x04text"), "wrong websocket message type");
  EXPECT_EQ(end_after("\x82\x84maskdata"), "websocket: bad MASK");
  EXPECT_EQ(end_after("\xc2\x01x"), "websocket: unexpected reserved bits");
  EXPECT_EQ(end_after("\x80\x01x"), "websocket: fragments out of order");
  EXPECT_EQ(end_after("\x09\x01x"), "websocket: invalid control frame");
  EXPECT_EQ(end_after("\x82\x7f\x7f" + std::string(7, '\xff')), "websocket: read limit exceeded");
  EXPECT_EQ(end_after("\x82\x09half"), "websocket: close 1006 (abnormal closure): unexpected EOF");
}

TEST_F(WebsocketClientTest, ARefusedUpgradeKeepsTheAnswer) {
  TlsServer server(certificate_, [](SSL* ssl) {
    read_until(ssl, "\r\n\r\n");
    write_all(ssl, "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nforbidden");
  });
  HttpsResponse answer;
  const auto client = WebsocketClient::connect(tunnel(server), &answer);
  ASSERT_FALSE(client.has_value());
  EXPECT_EQ(client.error().message, "websocket: bad handshake");
  EXPECT_EQ(answer.status_line(), "403 Forbidden");
  EXPECT_EQ(answer.body, "forbidden");
}

TEST_F(WebsocketClientTest, AWrongAcceptKeyIsNoHandshake) {
  TlsServer server(certificate_, [](SSL* ssl) {
    read_until(ssl, "\r\n\r\n");
    write_all(ssl,
              "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              "Sec-WebSocket-Accept: AAAA\r\n\r\n");
  });
  EXPECT_EQ(WebsocketClient::connect(tunnel(server), nullptr).error().message, "websocket: bad handshake");
}

}  // namespace
}  // namespace ledger::api
