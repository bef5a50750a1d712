// Kubeconfigs as people have them, and what is said about those that cannot be used.
#include "api/kubeconfig.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ledger/credentials.h"
#include "ledger/issuer.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger::api {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class KubeconfigTest : public testing::Test {
 protected:
  KubeconfigTest() : issuer_(*Issuer::open(dir_ / "ca", Time::now(), false)) {
    test::put_file(dir_ / "ca.crt", issuer_.server_ca_pem());
  }
  Result<KubeAccess> read(const std::string& text, const std::string& context = "", bool insecure = false) {
    test::put_file(dir_ / "config", text);
    return read_kubeconfig({dir_ / "config", context, insecure});
  }
  Result<KubeAccess> read_with(const std::string& cluster, const std::string& user) {
    return read(
        "current-context: a\ncontexts:\n- {name: a, context: {cluster: c, user: u}}\nclusters:\n- {name: c, "
        "cluster: {" +
        cluster + "}}\nusers:\n- {name: u, user: {" + user + "}}\n");
  }
  std::string error_of(const Result<KubeAccess>& access) { return access ? "none" : access.error().message; }

  test::TempDir dir_;
  Issuer issuer_;
};

TEST_F(KubeconfigTest, TokensAndAuthorities) {
  const auto access =
      read_with("server: 'https://10.0.0.1:6443/k8s/c1/', certificate-authority: ca.crt", "token: word");
  ASSERT_TRUE(access) << access.error().message;
  EXPECT_EQ(access->https.connect_to.to_string(), "10.0.0.1:6443");
  EXPECT_EQ(access->prefix, "/k8s/c1");
  EXPECT_EQ(access->https.trust, HttpsTrust::bundle);
  EXPECT_EQ(access->https.bundle_pem, issuer_.server_ca_pem());
  EXPECT_EQ(access->authorization()->reveal(), "Bearer word");

  const auto inlined =
      read_with("server: 'https://[fd00::1]', tls-server-name: kube, certificate-authority-data: " +
                    base64(issuer_.server_ca_pem()),
                "tokenFile: " + (dir_ / "token").string());
  ASSERT_TRUE(inlined) << inlined.error().message;
  EXPECT_EQ(inlined->https.connect_to.to_string(), "[fd00::1]:443");
  EXPECT_EQ(inlined->https.url_host().host, "kube");
  EXPECT_EQ(inlined->https.bundle_pem, issuer_.server_ca_pem());
  EXPECT_FALSE(inlined->authorization()) << "the file is not there yet";
  test::put_file(dir_ / "token", " word2\n");
  EXPECT_EQ(inlined->authorization()->reveal(), "Bearer word2");
  EXPECT_EQ(read_with("server: 'https://a'", "token: word")->https.trust, HttpsTrust::os_roots);
}

TEST_F(KubeconfigTest, TheContextChooses) {
  const std::string text =
      "current-context: a\ncontexts:\n- {name: a, context: {cluster: c, user: u}}\n- {name: b, context: {cluster: "
      "d, "
      "user: u}}\nclusters:\n- {name: c, cluster: {server: 'https://c'}}\n- {name: d, cluster: {server: "
      "'https://d'}}\n"
      "users:\n- {name: u, user: {token: t}}\n";
  EXPECT_EQ(read(text)->https.connect_to.host, "c");
  EXPECT_EQ(read(text, "b")->https.connect_to.host, "d");
  EXPECT_THAT(error_of(read(text, "x")), HasSubstr("there is no 'x' in its contexts"));
}

TEST_F(KubeconfigTest, WhatCannotBeUsedIsNamed) {
  const std::string cluster = "server: 'https://10.0.0.1:6443', certificate-authority: ca.crt";
  EXPECT_THAT(error_of(read_kubeconfig({dir_ / "absent", "", false})), HasSubstr("absent"));
  EXPECT_THAT(error_of(read("a: [1, 2\nb: }")), HasSubstr("not YAML that can be read, near line"));
  EXPECT_THAT(error_of(read("word")), HasSubstr("not a kubeconfig"));
  EXPECT_THAT(error_of(read("")), HasSubstr("not a kubeconfig"));
  EXPECT_THAT(error_of(read("kind: Config")), HasSubstr("no current-context"));
  EXPECT_THAT(error_of(read("current-context: a\ncontexts: 7")), HasSubstr("no 'a' in its contexts"));
  EXPECT_THAT(error_of(read("current-context: a\ncontexts: [7, x]")), HasSubstr("kubeconfig"));
  EXPECT_THAT(error_of(read_with("server: 'http://10.0.0.1'", "token: t")), HasSubstr("not an https:// URL"));
  EXPECT_THAT(error_of(read_with(cluster, "exec: {command: aws}")),
              AllOf(HasSubstr("exec"), HasSubstr("not run here")));
  EXPECT_THAT(error_of(read_with(cluster, "auth-provider: {name: gcp}")), HasSubstr("auth-provider"));
  EXPECT_THAT(error_of(read_with(cluster, "username: a, password: secret-word")),
              AllOf(HasSubstr("user name and password"), Not(HasSubstr("secret-word"))));
  EXPECT_THAT(error_of(read_with(cluster, "x: 1")), HasSubstr("no token, tokenFile or client-certificate"));
  EXPECT_THAT(error_of(read_with(cluster, "client-certificate: ca.crt")), HasSubstr("go together"));
  EXPECT_THAT(error_of(read_with("server: 'https://a', certificate-authority: gone.crt", "token: t")),
              HasSubstr("gone.crt"));
  EXPECT_THAT(error_of(read_with("server: 'https://a', certificate-authority-data: '!!!'", "token: t")),
              HasSubstr("not base64"));
  EXPECT_THAT(error_of(read_with("server: 'https://a', certificate-authority-data: 'YWJj'", "token: t")),
              HasSubstr("holds no certificate"));
  EXPECT_THAT(error_of(read_with(cluster, "client-certificate: ca.crt, client-key-data: YWJj")),
              HasSubstr("failed to find any PEM data in key input"));
  EXPECT_THAT(error_of(read_with(cluster + ", proxy-url: 'http://p'", "token: t")), HasSubstr("proxy-url"));
}

TEST_F(KubeconfigTest, InsecureOnlyWhenAllowed) {
  const std::string text =
      "current-context: a\ncontexts:\n- {name: a, context: {cluster: c, user: u}}\nclusters:\n- {name: c, cluster: "
      "{server: 'https://c', insecure-skip-tls-verify: true}}\nusers:\n- {name: u, user: {token: t}}\n";
  EXPECT_THAT(error_of(read(text)), HasSubstr("--allow-insecure-apiserver"));
  EXPECT_EQ(read(text, "", true)->https.trust, HttpsTrust::anyone);
}

}  // namespace
}  // namespace ledger::api
