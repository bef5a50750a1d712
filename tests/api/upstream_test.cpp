#include "api/upstream.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>

#include "tests/support/temp_dir.h"

namespace ledger::api {
namespace {

TEST(FrontProxyHeaders, EverySpellingIsOne) {
  for (const char* name : {"x-remote-user", "X-Remote-User", "X_Remote_User", "x-remote_group", "X-REMOTE-EXTRA-scopes",
                           "x-remote-uid", "X-Remote-anything"})
    EXPECT_TRUE(is_front_proxy_header(name)) << name;
  for (const char* name : {"x-remote", "remote-user", "xx-remote-user", "x-forwarded-for", "authorization", ""})
    EXPECT_FALSE(is_front_proxy_header(name)) << name;
}

Request asking(std::vector<std::pair<std::string, std::string>> headers) {
  Request request;
  request.method = "GET";
  request.path = "/api";
  request.query = "a=b";
  request.source = "[fd00::1]:41234";
  request.headers = std::move(headers);
  return request;
}

TEST(UpstreamHead, CarriesWhatIsTheClientsAndNothingElse) {
  const Request request = asking({{"host", "k3s"},
                                  {"connection", "keep-alive, X-Mine"},
                                  {"x-mine", "between us"},
                                  {"x-remote-user", "admin"},
                                  {"x_remote_group", "system:masters"},
                                  {"te", "trailers"},
                                  {"transfer-encoding", "chunked"},
                                  {"accept", "*/*"}});
  EXPECT_EQ(upstream_head(request, {}, "", false), "GET /api?a=b HTTP/1.1\r\nhost: k3s\r\naccept: */*\r\n\r\n");
}

TEST(UpstreamHead, SaysAsWhomToAKubeApiserver) {
  const UpstreamIdentity as{UpstreamIdentity::Kind::front_proxy, "system:node:web-1", {"system:nodes", "more"}};
  Request request = asking({{"host", "k3s"}, {"x-forwarded-for", "10.9.9.9"}, {"connection", "x-remote-user"}});
  request.version = 10;
  EXPECT_EQ(upstream_head(request, as, "connection: close\r\n", true),
            "GET /api?a=b HTTP/1.0\r\nhost: k3s\r\nx-forwarded-for: 10.9.9.9, fd00::1\r\nx-remote-user: system:node:web-1\r\n"
            "x-remote-group: system:nodes\r\nx-remote-group: more\r\nconnection: close\r\n\r\n");
}

TEST(Upstreams, AUrlIsAnHttpsAddressAndNothingElse) {
  const test::TempDir dir;
  const Result<Issuer> issuer = Issuer::open(dir.path(), Time::now(), false);
  ASSERT_TRUE(issuer);
  boost::asio::io_context io;
  const auto open = [&](const std::string& url) {
    Upstreams::Options options;
    options.urls = {url};
    return Upstreams::open(io, std::move(options), *issuer);
  };
  for (const char* url : {"https://10.0.0.1:6443", "https://k3s", "https://[fd00::1]:6443/", "https://k3s.example.org"})
    EXPECT_TRUE(open(url)) << url;
  for (const char* url : {"", "10.0.0.1:6443", "http://10.0.0.1:6443", "https://", "https://u:p@k3s", "https://k3s/path",
                          "https://k3s?x", "https://k3s:0", "https://k3s:99999", "https://k3s#x"}) {
    const auto opened = open(url);
    ASSERT_FALSE(opened) << url;
    EXPECT_EQ(opened.error().code, Errc::invalid);
  }
  const auto opened = open("https://[fd00::1]:6443/");
  ASSERT_EQ((*opened)->status().size(), 1u);
  EXPECT_EQ((*opened)->status()[0].url, "https://[fd00::1]:6443");
}

}  // namespace
}  // namespace ledger::api
