// The PROXY header as a pure function, then behind a balancer on real sockets, then what the log says of it.
#include "api/proxy_protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <set>

#include "api/agent.h"
#include "tests/support/bare_listener.h"
#include "tests/support/proxy_relay.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

using namespace std::chrono_literals;
using Kind = ProxyHeader::Kind;
using test::BareListener;
using test::eventually;
using test::proxy_v1;
using test::proxy_v2;
using test::ProxyRelay;
using test::RawTcp;
using test::RawTls;
using test::RunningServer;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;
using testing::StartsWith;

const std::string kSignature("\r\n\r\n\0\r\nQUIT\n", 12);

// Version 2 with any fixed part and payload.
std::string binary(int version_command, int family, const std::string& payload, std::optional<std::size_t> length = {}) {
  const std::size_t size = length.value_or(payload.size());
  std::string out = kSignature;
  out += static_cast<char>(version_command);
  out += static_cast<char>(family);
  out += static_cast<char>(size >> 8);
  out += static_cast<char>(size & 0xFF);
  return out + payload;
}

// ---- the header ------------------------------------------------------------------------------------------

struct Row {
  const char* what;
  std::string bytes;
  Kind kind;
  std::string source = "";
};

const std::string kV4Payload("\x0a\x00\x00\x05\x0a\x00\x00\x01\xa1\x02\x19\x2b", 12);
const std::string kV6Payload = std::string("\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05", 16) + std::string(16, '\1') +
                               std::string("\xa1\x02\x19\x2b", 4);

const std::vector<Row>& rows() {
  static const std::vector<Row> all = {
      {"v1 IPv4", "PROXY TCP4 10.0.0.5 10.0.0.1 41218 6443\r\n", Kind::present, "10.0.0.5:41218"},
      {"v1 IPv6", "PROXY TCP6 fd00::5 fd00::1 41218 6443\r\n", Kind::present, "[fd00::5]:41218"},
      {"v1 IPv6, another spelling", "PROXY TCP6 FD00:0:0:0:0:0:0:5 ::1 0 65535\r\n", Kind::present, "[fd00::5]:0"},
      {"v1 IPv4 in IPv6", "PROXY TCP6 ::ffff:10.0.0.5 ::1 1 2\r\n", Kind::present, "10.0.0.5:1"},
      {"v1 the longest addresses",
       "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
       Kind::present, "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
      {"v1 unknown", "PROXY UNKNOWN\r\n", Kind::present},
      {"v1 unknown with addresses", "PROXY UNKNOWN ffff:ffff fe:: 1 2\r\n", Kind::present},
      {"v1 IPv4 as TCP6", "PROXY TCP6 10.0.0.5 10.0.0.1 1 2\r\n", Kind::malformed},
      {"v1 IPv6 as TCP4", "PROXY TCP4 fd00::5 fd00::1 1 2\r\n", Kind::malformed},
      {"v1 UDP", "PROXY UDP4 10.0.0.5 10.0.0.1 1 2\r\n", Kind::malformed},
      {"v1 lower case", "PROXY tcp4 10.0.0.5 10.0.0.1 1 2\r\n", Kind::malformed},
      {"v1 nothing", "PROXY \r\n", Kind::malformed},
      {"v1 no destination", "PROXY TCP4 10.0.0.5\r\n", Kind::malformed},
      {"v1 no port", "PROXY TCP4 10.0.0.5 10.0.0.1 41218\r\n", Kind::malformed},
      {"v1 a port too many", "PROXY TCP4 10.0.0.5 10.0.0.1 1 2 3\r\n", Kind::malformed},
      {"v1 two blanks", "PROXY TCP4  10.0.0.5 10.0.0.1 1 2\r\n", Kind::malformed},
      {"v1 a blank at the end", "PROXY TCP4 10.0.0.5 10.0.0.1 1 2 \r\n", Kind::malformed},
      {"v1 a tab", "PROXY TCP4\t10.0.0.5 10.0.0.1 1 2\r\n", Kind::malformed},
      {"v1 leading zeros", "PROXY TCP4 010.0.0.5 10.0.0.1 1 2\r\n", Kind::malformed},
      {"v1 an octet too large", "PROXY TCP4 10.0.0.256 10.0.0.1 1 2\r\n", Kind::malformed},
      {"v1 three octets", "PROXY TCP4 10.0.5 10.0.0.1 1 2\r\n", Kind::malformed},
      {"v1 a name", "PROXY TCP4 localhost 10.0.0.1 1 2\r\n", Kind::malformed},
      {"v1 a zone", "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Kind::malformed},
      {"v1 a bad destination", "PROXY TCP4 10.0.0.5 10.0.0 1 2\r\n", Kind::malformed},
      {"v1 port too large", "PROXY TCP4 10.0.0.5 10.0.0.1 65536 2\r\n", Kind::malformed},
      {"v1 port far too large", "PROXY TCP4 10.0.0.5 10.0.0.1 1 99999999999999999999\r\n", Kind::malformed},
      {"v1 port with sign", "PROXY TCP4 10.0.0.5 10.0.0.1 +1 2\r\n", Kind::malformed},
      {"v1 port below zero", "PROXY TCP4 10.0.0.5 10.0.0.1 -1 2\r\n", Kind::malformed},
      {"v1 port with zeros", "PROXY TCP4 10.0.0.5 10.0.0.1 01 2\r\n", Kind::malformed},
      {"v1 port empty", "PROXY TCP4 10.0.0.5 10.0.0.1  2\r\n", Kind::malformed},
      {"v1 a NUL", std::string("PROXY TCP4 10.0.0.5\0 10.0.0.1 1 2\r\n", 35), Kind::malformed},
      {"v1 LF alone, no end yet", "PROXY TCP4 10.0.0.5 10.0.0.1 1 2\n", Kind::incomplete},
      {"v1 107 bytes", "PROXY UNKNOWN" + std::string(92, 'x') + "\r\n", Kind::malformed},
      {"v1 unknown, 107 bytes", "PROXY UNKNOWN " + std::string(91, 'x') + "\r\n", Kind::present},
      {"v1 unknown, 108 bytes", "PROXY UNKNOWN " + std::string(92, 'x') + "\r\n", Kind::malformed},
      {"v1 never ends", "PROXY " + std::string(5000, 'x'), Kind::malformed},
      {"v2 IPv4", binary(0x21, 0x11, kV4Payload), Kind::present, "10.0.0.5:41218"},
      {"v2 IPv6", binary(0x21, 0x21, kV6Payload), Kind::present, "[fd00::5]:41218"},
      {"v2 IPv4 with TLVs", binary(0x21, 0x11, kV4Payload + std::string("\x04\x00\x02xx", 5)), Kind::present,
       "10.0.0.5:41218"},
      {"v2 TLVs that are none", binary(0x21, 0x11, kV4Payload + "\xff\xff\xff"), Kind::present, "10.0.0.5:41218"},
      {"v2 as long as may be", binary(0x21, 0x11, kV4Payload + std::string(500, 'x')), Kind::present,
       "10.0.0.5:41218"},
      {"v2 one byte longer", binary(0x21, 0x11, kV4Payload + std::string(501, 'x')), Kind::malformed},
      {"v2 says 64 KiB", binary(0x21, 0x11, kV4Payload, 65535), Kind::malformed},
      {"v2 IPv4 cut off", binary(0x21, 0x11, kV4Payload.substr(1)), Kind::malformed},
      {"v2 IPv6 cut off", binary(0x21, 0x21, kV6Payload.substr(1)), Kind::malformed},
      {"v2 IPv4 without addresses", binary(0x21, 0x11, ""), Kind::malformed},
      {"v2 LOCAL", binary(0x20, 0x00, ""), Kind::present},
      {"v2 LOCAL with addresses", binary(0x20, 0x11, kV4Payload), Kind::present},
      {"v2 LOCAL with anything", binary(0x20, 0xF7, "abc"), Kind::present},
      {"v2 unspecified", binary(0x21, 0x00, ""), Kind::present},
      {"v2 UNIX socket", binary(0x21, 0x31, std::string(216, 'p')), Kind::present},
      {"v2 datagram", binary(0x21, 0x12, kV4Payload), Kind::present},
      {"v2 unknown family", binary(0x21, 0x41, kV4Payload), Kind::malformed},
      {"v2 unknown transport", binary(0x21, 0x13, kV4Payload), Kind::malformed},
      {"v2 unknown command", binary(0x22, 0x11, kV4Payload), Kind::malformed},
      {"v2 version 1", binary(0x11, 0x11, kV4Payload), Kind::malformed},
      {"v2 version 3", binary(0x31, 0x11, kV4Payload), Kind::malformed},
      {"TLS", "\x16\x03\x01\x02", Kind::absent},
      {"HTTP", "GET / HTTP/1.1\r\n\r\n", Kind::absent},
      {"almost v1", "PROXX", Kind::absent},
      {"v1 in lower case", "proxy TCP4 10.0.0.5 10.0.0.1 1 2\r\n", Kind::absent},
      {"POST", "POST /", Kind::absent},
      {"blank lines", "\r\n\r\nGET /", Kind::absent},
      {"a NUL", std::string(1, '\0'), Kind::absent},
  };
  return all;
}

TEST(ProxyProtocol, TruthTable) {
  for (const Row& row : rows()) {
    SCOPED_TRACE(row.what);
    const ProxyHeader header = parse_proxy_header(row.bytes);
    EXPECT_EQ(header.kind, row.kind) << header.problem;
    EXPECT_EQ(header.source, row.source);
    EXPECT_EQ(header.size, row.kind == Kind::present ? row.bytes.size() : 0U);
    EXPECT_EQ(std::string(header.problem).empty(), row.kind != Kind::malformed);
  }
}

// Cut at any byte it waits for more; a verdict, once given, is the one of the whole.
TEST(ProxyProtocol, EveryPrefixWaitsOrKnows) {
  for (const Row& row : rows()) {
    SCOPED_TRACE(row.what);
    bool decided = false;
    for (std::size_t size = 0; size < row.bytes.size(); ++size) {
      const ProxyHeader header = parse_proxy_header(std::string_view(row.bytes).substr(0, size));
      SCOPED_TRACE(size);
      EXPECT_NE(header.kind, Kind::present) << "not before its last byte";
      if (row.kind == Kind::present || row.kind == Kind::incomplete) {
        EXPECT_EQ(header.kind, Kind::incomplete);
      }
      if (header.kind != Kind::incomplete) {
        EXPECT_EQ(header.kind, row.kind);
      }
      EXPECT_FALSE(decided && header.kind == Kind::incomplete) << "knew it before";
      decided = decided || header.kind != Kind::incomplete;
    }
  }
}

// What follows a header is not looked at.
RC_GTEST_PROP(ProxyProtocol, NeverReadsPastItsHeader, (const std::string& more)) {
  for (const Row& row : rows()) {
    if (row.kind != Kind::present) continue;
    const ProxyHeader header = parse_proxy_header(row.bytes + more);
    RC_ASSERT(header.kind == Kind::present);
    RC_ASSERT(header.size == row.bytes.size());
    RC_ASSERT(header.source == row.source);
  }
}

RC_GTEST_PROP(ProxyProtocol, IsDecidedWithinItsBound, (std::string bytes, int beginning)) {
  if (beginning % 3 == 1) bytes = "PROXY " + bytes;
  if (beginning % 3 == 2) bytes = kSignature + bytes;
  bytes.resize(kMaxProxyHeader, 'x');
  const ProxyHeader header = parse_proxy_header(bytes);
  RC_ASSERT(header.kind != Kind::incomplete);
  RC_ASSERT(header.size <= kMaxProxyHeader);
  RC_ASSERT(header.source.find_first_not_of("0123456789abcdef.:[]") == std::string::npos);
}

// ---- whose word is taken ---------------------------------------------------------------------------------

TrustedProxies trusting(const std::vector<std::string>& networks) {
  const Result<TrustedProxies> trusted = TrustedProxies::parse(networks);
  EXPECT_TRUE(trusted) << trusted.error().message;
  return trusted ? *trusted : TrustedProxies();
}

TEST(TrustedProxiesTest, Networks) {
  const TrustedProxies trusted = trusting({"10.1.0.0/16", "192.0.2.7", "fd00:1::/32", "2001:db8::7", "198.51.100.0/31"});
  for (const char* host : {"10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3", "192.0.2.7", "fd00:1:ffff::", "2001:db8::7",
                           "2001:DB8:0::7", "198.51.100.1"})
    EXPECT_TRUE(trusted.trusts(host)) << host;
  for (const char* host : {"10.2.0.0", "10.0.255.255", "192.0.2.8", "fd00:2::", "2001:db8::8", "198.51.100.2", "::a01:203",
                           "", "x", "10.1", "10.1.0.0:1", "[fd00:1::1]", "10.1.2.3 ", "fd00:1::1%lo"})
    EXPECT_FALSE(trusted.trusts(host)) << host;
  EXPECT_FALSE(trusted.trusts_everybody());
  EXPECT_TRUE(TrustedProxies().empty());
  EXPECT_FALSE(TrustedProxies().trusts("127.0.0.1"));
}

TEST(TrustedProxiesTest, Everybody) {
  EXPECT_TRUE(trusting({"10.0.0.0/8", "0.0.0.0/0"}).trusts_everybody());
  EXPECT_TRUE(trusting({"0.0.0.0/0"}).trusts("203.0.113.1"));
  EXPECT_FALSE(trusting({"0.0.0.0/0"}).trusts("fd00::1"));
  EXPECT_TRUE(trusting({"::/0"}).trusts_everybody());
  EXPECT_FALSE(trusting({"::/0"}).trusts("203.0.113.1")) << "IPv4 is IPv4, however it is carried";
  EXPECT_TRUE(trusting({"::ffff:10.0.0.0/104"}).trusts("10.9.9.9"));
}

TEST(TrustedProxiesTest, ErrorsSayWhatToWrite) {
  const auto error = [](const std::string& text) {
    const Result<TrustedProxies> parsed = TrustedProxies::parse({"10.0.0.0/8", text});
    return parsed ? std::string("accepted") : parsed.error().message;
  };
  for (const char* text : {"", "lb.example.org", "10.0.0.0/8/8", "10.0.0.0/", "10.0.0.0/33", "fd00::/129", "10.0.0.0/-1",
                           "10.0.0.0/08", "10.0.0.0/8 ", "/8", "10.0.0.1-10.0.0.9", "fe80::1%eth0"})
    EXPECT_THAT(error(text), StartsWith("--trusted-proxy ")) << text;
  EXPECT_EQ(error("10.0.0.5/8"),
            "--trusted-proxy 10.0.0.5/8 is an address inside a network; write 10.0.0.0/8 for the network, or 10.0.0.5 for "
            "the one machine");
  EXPECT_THAT(error("fd00::1/8"), HasSubstr("write fd00::/8 for the network, or fd00::1"));
}

TEST(ForwardedFor, TheRightmostThatIsNoProxy) {
  const TrustedProxies trusted = trusting({"10.0.0.0/8", "fd00::/8"});
  const auto source = [&](const char* peer, const char* header) { return forwarded_source(peer, header, trusted); };
  EXPECT_EQ(source("10.0.0.2:5000", "203.0.113.9"), "203.0.113.9");
  EXPECT_EQ(source("[fd00::2]:5000", "2001:db8::9"), "2001:db8::9");
  EXPECT_EQ(source("10.0.0.2:5000", "198.51.100.1, 203.0.113.9"), "203.0.113.9") << "the left one is the caller's word";
  EXPECT_EQ(source("10.0.0.2:5000", "203.0.113.9, 10.0.0.7 ,10.0.0.8"), "203.0.113.9");
  EXPECT_EQ(source("10.0.0.2:5000", "10.1.1.1, 10.0.0.7"), "10.1.1.1") << "the operator is inside";
  EXPECT_EQ(source("10.0.0.2:5000", "203.0.113.9:4711"), "203.0.113.9");
  EXPECT_EQ(source("10.0.0.2:5000", "[2001:db8::9]:4711"), "2001:db8::9");
  EXPECT_EQ(source("10.0.0.2:5000", ""), "10.0.0.2:5000");
  EXPECT_EQ(source("10.0.0.2:5000", "unknown"), "10.0.0.2:5000");
  EXPECT_EQ(source("10.0.0.2:5000", "203.0.113.9, ,10.0.0.7"), "10.0.0.7") << "nothing left of what cannot be read";
  EXPECT_EQ(source("203.0.113.1:5000", "198.51.100.1"), "203.0.113.1:5000") << "an untrusted peer's word";
  EXPECT_EQ(source("garbage", "198.51.100.1"), "garbage");
  EXPECT_EQ(forwarded_source("10.0.0.2:5000", "203.0.113.9", {}), "10.0.0.2:5000");
}

// ---- behind a balancer -----------------------------------------------------------------------------------

constexpr const char* kBalancer = "127.0.0.2";  // all of 127.0.0.0/8 is this machine

Listener::Limits short_limits() {
  Listener::Limits limits;
  limits.handshake = 500ms;
  return limits;
}

// One request through the relay; the request as the listener saw it.
std::shared_ptr<const Request> ask_through(BareListener& server, const ProxyRelay& relay) {
  HttpsOptions options = server.https_options();
  options.connect_to.port = relay.port();
  auto https = *HttpsClient::open(std::move(options));
  HttpsRequest request;
  request.target = "/who";
  const auto response = https.send(request);
  EXPECT_TRUE(response) << response.error().message;
  const auto requests = server.requests();
  return response && !requests.empty() ? requests.back() : nullptr;
}

TEST(ProxiedListener, TheConveyedAddressIsTheSource) {
  BareListener server({}, {}, trusting({kBalancer}));
  const std::vector<std::pair<std::string, std::string>> headers = {
      {proxy_v1("203.0.113.7", 4711), "203.0.113.7:4711"},
      {proxy_v1("2001:db8::7", 4711), "[2001:db8::7]:4711"},
      {proxy_v2("203.0.113.8", 4712), "203.0.113.8:4712"},
      {proxy_v2("2001:db8::8", 4712, std::string("\x04\x00\x08xxxxxxxx", 11)), "[2001:db8::8]:4712"},
      {proxy_v2("203.0.113.9", 1, std::string(500, 't')), "203.0.113.9:1"},
  };
  for (const auto& [header, source] : headers)
    for (const std::size_t piece : {1U, 7U, 4096U}) {
      const ProxyRelay relay(server.port(), [&header = header] { return header; }, kBalancer, piece);
      const auto request = ask_through(server, relay);
      ASSERT_NE(request, nullptr) << source;
      EXPECT_EQ(request->source, source);
      EXPECT_THAT(request->via, StartsWith("127.0.0.2:"));
    }
  EXPECT_THAT(server.tls_failures(), IsEmpty());
}

TEST(ProxiedListener, ABalancerNeedNotSayAnything) {
  BareListener server({}, {}, trusting({kBalancer}));
  for (const std::string& header : {std::string(), std::string("PROXY UNKNOWN\r\n"), binary(0x20, 0, ""),
                                    binary(0x21, 0x31, std::string(216, 'p'))}) {
    const ProxyRelay relay(server.port(), [&] { return header; }, kBalancer);
    const auto request = ask_through(server, relay);
    ASSERT_NE(request, nullptr);
    EXPECT_THAT(request->source, StartsWith("127.0.0.2:"));
    EXPECT_EQ(request->via, "");
  }
}

// A stranger's header is no TLS, and nothing it says is believed.
TEST(ProxiedListener, AStrangersHeaderIsAFailedHandshake) {
  BareListener server({}, {}, trusting({kBalancer}));
  for (const std::string& header : {proxy_v1("203.0.113.7", 4711), proxy_v2("203.0.113.7", 4711)}) {
    const std::size_t before = server.tls_failures().size();
    RawTcp stranger(server.port());
    ASSERT_TRUE(stranger.say(header + std::string(64, '\x16')));
    bool closed = false;
    stranger.hear_all(&closed);
    EXPECT_TRUE(closed);
    ASSERT_TRUE(eventually([&] { return server.tls_failures().size() > before; }));
    EXPECT_EQ(server.tls_failures().back().first, stranger.local());
    EXPECT_THAT(server.tls_failures().back().second, Not(HasSubstr("PROXY")));
  }
  EXPECT_THAT(server.requests(), IsEmpty());
  RawTls honest(server.https_options());
  EXPECT_TRUE(honest.opened()) << "without one it is served as ever";
}

TEST(ProxiedListener, NobodyIsTrustedUnlessNamed) {
  BareListener server;
  const ProxyRelay relay(server.port(), [] { return proxy_v1("203.0.113.7", 1); }, kBalancer);
  HttpsOptions options = server.https_options();
  options.connect_to.port = relay.port();
  EXPECT_FALSE(RawTls(options).opened());
  ASSERT_TRUE(eventually([&] { return !server.tls_failures().empty(); }));
  EXPECT_THAT(server.tls_failures().front().first, StartsWith("127.0.0.2:"));
}

TEST(ProxiedListener, MalformedHeadersAreNamed) {
  BareListener server({}, {}, trusting({"127.0.0.1"}));
  for (const Row& row : rows()) {
    if (row.kind != Kind::malformed) continue;
    SCOPED_TRACE(row.what);
    const std::size_t before = server.tls_failures().size();
    RawTcp link(server.port());
    ASSERT_TRUE(link.say(row.bytes));
    bool closed = false;
    EXPECT_EQ(link.hear_all(&closed), "") << "not a word";
    EXPECT_TRUE(closed);
    ASSERT_TRUE(eventually([&] { return server.tls_failures().size() > before; }));
    EXPECT_EQ(server.tls_failures().back().first, link.local());
    EXPECT_EQ(server.tls_failures().back().second,
              std::string("malformed PROXY header: ") + parse_proxy_header(row.bytes).problem);
  }
  EXPECT_TRUE(server.serves());
}

// However steadily it drips: header and handshake share one deadline.
TEST(ProxiedListener, ASlowHeaderIsCutOff) {
  BareListener server(short_limits(), {}, trusting({"127.0.0.1"}));
  RawTcp slow(server.port());
  const std::string header = proxy_v1("203.0.113.7", 4711);
  const auto began = std::chrono::steady_clock::now();
  std::thread dripping([&] {
    for (std::size_t i = 0; i + 2 < header.size() && slow.say(header.substr(i, 1)); ++i)
      std::this_thread::sleep_for(50ms);  // 41 bytes: 2 s
  });
  bool closed = false;
  slow.hear_all(&closed);
  EXPECT_TRUE(closed);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 1500ms);
  dripping.join();
  ASSERT_TRUE(eventually([&] { return !server.tls_failures().empty(); }));
  EXPECT_THAT(server.tls_failures(),
              ElementsAre(Pair(slow.local(), "malformed PROXY header: it was not complete in time")));
}

// A header, and then no handshake: the failure is the conveyed client's.
TEST(ProxiedListener, WhatFollowsAHeaderHasTheSameDeadline) {
  BareListener server(short_limits(), {}, trusting({"127.0.0.1"}));
  RawTcp silent(server.port()), garbled(server.port()), gone(server.port());
  ASSERT_TRUE(silent.say(proxy_v1("203.0.113.7", 1)));
  ASSERT_TRUE(garbled.say(proxy_v1("203.0.113.8", 2) + "GET / HTTP/1.1\r\n\r\n"));
  ASSERT_TRUE(gone.say("PROXY TCP4 203.0"));
  const std::string gone_local = gone.local();
  gone.hang_up();
  bool closed = false;
  silent.hear_all(&closed);
  EXPECT_TRUE(closed);
  garbled.hear_all(&closed);
  EXPECT_TRUE(closed);
  ASSERT_TRUE(eventually([&] { return server.tls_failures().size() == 2; }));
  EXPECT_THAT(server.tls_failures(),
              testing::UnorderedElementsAre(
                  Pair("203.0.113.8:2", "http_request"),
                  Pair(gone_local, "malformed PROXY header: the connection ended within it")))
      << "who says nothing after its header checks the port, as balancers do";
  EXPECT_TRUE(eventually([&] { return server.listener().connections() == 0; }));
}

TEST(ProxiedListener, IPv6) {
  const int probe = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  const bool has_v6 = probe >= 0 && ::bind(probe, reinterpret_cast<sockaddr*>(&loopback), sizeof loopback) == 0;
  if (probe >= 0) ::close(probe);
  if (!has_v6) GTEST_SKIP() << "this machine has no IPv6 loopback";
  // On ::, where IPv4 peers arrive as ::ffff:127.0.0.2.
  BareListener server({}, {}, trusting({kBalancer, "::1"}), "::");
  const ProxyRelay relay(server.port(), [] { return proxy_v2("2001:db8::7", 4711); }, kBalancer);
  const auto request = ask_through(server, relay);
  ASSERT_NE(request, nullptr);
  EXPECT_EQ(request->source, "[2001:db8::7]:4711");
  EXPECT_THAT(request->via, StartsWith("127.0.0.2:"));
  const int direct = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  loopback.sin6_port = htons(server.port());
  ASSERT_EQ(::connect(direct, reinterpret_cast<sockaddr*>(&loopback), sizeof loopback), 0);
  const std::string bad = "PROXY nonsense\r\n";
  ASSERT_EQ(::send(direct, bad.data(), bad.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bad.size()));
  ASSERT_TRUE(eventually([&] { return !server.tls_failures().empty(); }));
  EXPECT_THAT(server.tls_failures().front().first, StartsWith("[::1]:"));
  ::close(direct);
}

TEST(ProxiedListener, ManyConnectionsKeepTheirSources) {
  constexpr int kThreads = 8, kEach = 25;
  BareListener server({}, {}, trusting({kBalancer}));
  std::atomic<unsigned> next{1};
  const ProxyRelay relay(
      server.port(),
      [&] {
        const unsigned number = next++;
        return number % 2 == 0 ? proxy_v1("203.0.113.7", number) : proxy_v2("2001:db8::7", number);
      },
      kBalancer, 5);
  std::atomic<int> answered{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i)
    threads.emplace_back([&] {
      for (int j = 0; j < kEach; ++j) {
        HttpsOptions options = server.https_options();
        options.connect_to.port = relay.port();
        auto https = *HttpsClient::open(std::move(options));
        HttpsRequest request;
        request.target = "/many";
        if (https.send(request)) ++answered;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, kThreads * kEach);
  std::set<std::string> sources;
  for (const auto& request : server.requests()) sources.insert(request->source);
  EXPECT_EQ(sources.size(), static_cast<std::size_t>(kThreads * kEach)) << "each the port its header conveyed";
}

// ---- what the log says -----------------------------------------------------------------------------------

// A whole agent through a balancer: every record of its requests has both addresses.
TEST(ProxiedServer, AnAgentsRecordsHaveBothAddresses) {
  RunningServer server([](ServerOptions& options) { options.trusted_proxies = {kBalancer}; });
  std::atomic<unsigned> port{4000};
  const ProxyRelay relay(server.port(), [&] { return proxy_v2("203.0.113.7", port++); }, kBalancer);
  test::TempDir state;
  AgentOptions agent;
  agent.server = "https://127.0.0.1:" + std::to_string(relay.port());
  agent.token = Secret(trim(test::file_bytes(server.data_dir() / "node-token")));
  agent.node_name = "web-1";
  agent.password_file = state / "password";
  agent.balancer_port = 0;
  const AgentOutcome outcome = run_agent(agent);
  ASSERT_EQ(outcome.verdict, AgentOutcome::Verdict::joined) << outcome.sentence << outcome.cause;
  ASSERT_TRUE(server.stop());
  int requests = 0, probes = 0;
  for (const Record& record : server.records()) {
    if (is_server_wide(record.kind())) continue;
    ++requests;
    EXPECT_EQ(host_of(record.source), "203.0.113.7") << name_of(record.kind());
    EXPECT_EQ(host_of(record.via), "127.0.0.2") << name_of(record.kind());
    const auto* failed = as<TlsFailed>(record);
    // The expected first step is told apart by the conveyed address, like everything else.
    if (failed != nullptr) probes += static_cast<int>(failed->trust_probe.value_or(false) ? record.count : 0);
  }
  EXPECT_GT(requests, 10);
  EXPECT_GT(probes, 0);
  const auto log = server.log();
  EXPECT_THAT(*log->find(Index::address, "203.0.113.7"), Not(IsEmpty()));
  EXPECT_THAT(*log->find(Index::address, "127.0.0.2"), IsEmpty());
  EXPECT_EQ(host_of((*log->node("web-1"))->registered.source), "203.0.113.7");
}

// Outcomes are counted by the conveyed address: one window for a client, whatever its ports; one each for two.
TEST(ProxiedServer, StormsAreCountedByTheConveyedAddress) {
  RunningServer server([](ServerOptions& options) { options.trusted_proxies = {kBalancer}; });
  std::atomic<unsigned> number{0};
  const ProxyRelay relay(
      server.port(),
      [&] {
        const unsigned n = number++;
        return proxy_v1(n % 2 == 0 ? "203.0.113.7" : "203.0.113.8", 4000 + n);
      },
      kBalancer);
  for (int i = 0; i < 20; ++i) {
    HttpsOptions options = server.https_options();
    options.connect_to.port = relay.port();
    auto https = *HttpsClient::open(std::move(options));
    const auto response = https.send(test::request_of("GET", "/v1-k3s/config", test::basic("node", "wrong")));
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_EQ(response->status, 401);
  }
  ASSERT_TRUE(server.stop());
  std::map<std::string, std::int64_t> outcomes;
  for (const Record& record : server.records_of<TokenRejected>())
    outcomes[std::string(host_of(record.source))] += record.count;
  EXPECT_THAT(outcomes, ElementsAre(Pair("203.0.113.7", 10), Pair("203.0.113.8", 10)));
  EXPECT_EQ(server.records_of<TokenRejected>().size(), 4U) << "a first and a count for each";
}

TEST(ProxiedServer, MalformedHeadersAreRecordedAsTheProxys) {
  RunningServer server([](ServerOptions& options) { options.trusted_proxies = {"127.0.0.1"}; });
  RawTcp broken(server.port());
  ASSERT_TRUE(broken.say("PROXY TCP4 203.0.113.7 oops 1 2\r\n"));
  bool closed = false;
  broken.hear_all(&closed);
  EXPECT_TRUE(closed);
  ASSERT_TRUE(eventually([&] { return !server.records_of<TlsFailed>().empty(); }));
  const Record record = server.records_of<TlsFailed>().front();
  EXPECT_EQ(as<TlsFailed>(record)->alert, "malformed PROXY header: an address cannot be read");
  EXPECT_EQ(record.source, broken.local());
  EXPECT_EQ(record.via, "");
}

TEST(ProxiedServer, ForwardedForCountsOnTheOperatorsApiOnly) {
  RunningServer server([](ServerOptions& options) { options.trusted_proxies = {"127.0.0.1"}; });
  ASSERT_EQ(server.join("web-1", "right").status, 200);
  HttpsRequest hold = test::request_of("POST", "/ledger/v1/nodes/web-1/hold", server.operator_bearer());
  hold.body = R"({"actor":"t","reason":"who is it"})";
  hold.headers = {{"X-Forwarded-For", "198.51.100.1"}, {"X-Forwarded-For", "203.0.113.9"}};
  const Record held = server.record_of(server.send(hold));
  EXPECT_EQ(held.source, "203.0.113.9");
  EXPECT_THAT(held.via, StartsWith("127.0.0.1:"));
  hold.authorization = Secret("Bearer wrong");
  EXPECT_EQ(server.record_of(server.send(hold)).source, "203.0.113.9");
  // On the agents' paths anybody could write it.
  HttpsRequest join = server.kubelet_request("web-2", "pw");
  join.headers.emplace_back("X-Forwarded-For", "203.0.113.9");
  const Record joined = server.record_of(server.send(join));
  EXPECT_EQ(host_of(joined.source), "127.0.0.1");
  EXPECT_EQ(joined.via, "");
}

TEST(ProxiedServer, ForwardedForOfAStrangerCountsNowhere) {
  RunningServer server([](ServerOptions& options) { options.trusted_proxies = {kBalancer}; });
  HttpsRequest request = test::request_of("GET", "/ledger/v1/nodes", "Bearer wrong");
  request.headers = {{"X-Forwarded-For", "203.0.113.9"}};
  const Record refused = server.record_of(server.send(request));
  EXPECT_EQ(host_of(refused.source), "127.0.0.1");
  EXPECT_EQ(refused.via, "");
}

TEST(ProxiedServer, AWrongNetworkStopsTheStart) {
  test::TempDir dir;
  ServerOptions options;
  options.data_dir = dir / "data";
  options.trusted_proxies = {"10.0.0.5/8"};
  const auto started = Server::start(std::move(options));
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, StartsWith("--trusted-proxy 10.0.0.5/8 "));
  EXPECT_FALSE(std::filesystem::exists(dir / "data")) << "before anything is made";
}

}  // namespace
}  // namespace ledger::api
