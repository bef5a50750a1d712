// Who claims to be which node, before anybody believes it: over real TLS, down to what `ledger replay` says of it.
#include "api/caller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "replay/claims.h"
#include "replay/explain.h"
#include "replay/render.h"
#include "tests/support/client_certificate.h"
#include "tests/support/verify_log.h"

namespace ledger::api {
namespace {

namespace json = boost::json;
using test::CertificateWish;
using test::Identity;
using test::make_client_certificate;
using test::RunningServer;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

class Claims : public testing::Test {
 protected:
  CertificateWish ours(const std::string& node) const {
    return {.common_name = "system:node:" + node, .ca_dir = server_.data_dir() / "tls"};
  }
  CertificateWish foreign(const std::string& node) const { return {.common_name = "system:node:" + node, .ca_dir = {}}; }
  static CertificateWish expired(CertificateWish wish) {
    wish.from_s = -7200, wish.to_s = -3600;
    return wish;
  }
  static CertificateWish too_early(CertificateWish wish) {
    wish.from_s = 3600, wish.to_s = 7200;
    return wish;
  }

  // The record of a request that is refused with 401.
  Record refused(const CertificateWish& wish, const HttpsRequest& request) {
    const HttpsResponse response = server_.send(request, make_client_certificate(wish));
    EXPECT_EQ(response.status, 401) << response.body;
    const Record record = server_.record_of(response);
    EXPECT_NE(as<TokenRejected>(record), nullptr) << name_of(record.kind());
    return record;
  }
  HttpsRequest config() const { return test::request_of("GET", "/v1-k3s/config"); }

  replay::Explanation explained(const std::string& node) {
    history_ = *replay::history_from_log(*server_.log(), node);
    return replay::explain(history_);
  }

  RunningServer server_;
  replay::History history_;
};

TEST_F(Claims, ACertificateThatIsNotAcceptedStillNamesWhoClaimsToAsk) {
  const struct {
    CertificateWish wish;
    const char* fault;
    const char* reason;
  } cases[] = {{foreign("web-1"), "(unknown CA)", "unknown_principal"},
               {expired(ours("web-1")), "(expired)", "certificate_expired"},
               {too_early(ours("web-1")), "(not valid yet)", "certificate_not_yet_valid"},
               {expired(foreign("web-1")), "(unknown CA)", "unknown_principal"}};
  for (const auto& [wish, fault, reason] : cases)
    for (const char* path : {"/v1-k3s/config", "/v1-k3s/client-kube-proxy.crt", "/v1-k3s/connect", "/apis"}) {
      const Record record = refused(wish, test::request_of("GET", path));
      EXPECT_EQ(record.node, "web-1") << path << " " << fault;
      EXPECT_EQ(as<TokenRejected>(record)->reason, reason) << path;
      EXPECT_EQ(record.auth.method, "certificate");
      EXPECT_EQ(record.auth.principal, "(unknown)") << "what is claimed is nobody's identity";
      EXPECT_EQ(record.auth.serial, "");
      EXPECT_EQ(record.note, "its certificate is not accepted " + std::string(fault) + ", and names web-1");
      EXPECT_EQ(replay::name_is(record), replay::NameIs::claimed);
    }
  ASSERT_TRUE(server_.stop());
  EXPECT_EQ(test::broken_promises(*server_.log()), std::vector<std::string>());
}

TEST_F(Claims, TheHeaderIsTheClaimAndTheCertificatesOtherNameIsNoted) {
  HttpsRequest request = server_.kubelet_request("web-2", "pw");
  request.authorization = Secret();
  const Record both = refused(foreign("web-1"), request);
  EXPECT_EQ(both.node, "web-2");
  EXPECT_THAT(both.note, HasSubstr("names web-1"));
  const Record same = refused(foreign("web-2"), request);
  EXPECT_EQ(same.node, "web-2");
  EXPECT_THAT(same.note, HasSubstr("names web-2"));
  // Beside a token that is refused as well: the token's fault is the reason, the certificate's is kept.
  request.authorization = Secret(test::basic("node", "wrong"));
  const Record beside = refused(expired(ours("web-1")), request);
  EXPECT_EQ(as<TokenRejected>(beside)->reason, "wrong_secret");
  EXPECT_THAT(beside.note, AllOf(HasSubstr("(expired)"), HasSubstr("names web-1")));
  EXPECT_EQ(beside.auth.method, "basic");
  EXPECT_EQ(beside.node, "web-2");
}

// Subjects that are no node's, or that want to be taken for something else.
TEST_F(Claims, OnlyANodesNameIsKeptOfACertificate) {
  for (const char* name : {"system:masters", "admin", "system:node:", "system:node:Not A Name", "system:node:../../etc",
                           "system:node:web-1\n", "SYSTEM:NODE:web-1", "K10abc::node:secret-token"}) {
    const Record record = refused({.common_name = name, .ca_dir = {}}, config());
    EXPECT_EQ(record.node, "") << name;
    EXPECT_EQ(record.note, "its certificate is not accepted (unknown CA)") << name;
  }
  const Record upper = refused({.common_name = "system:node:WEB-1", .ca_dir = {}}, config());
  EXPECT_EQ(upper.node, "web-1") << "as every name";
  ASSERT_TRUE(server_.stop());
  for (const Record& record : server_.records()) {
    EXPECT_EQ(record.node.find("secret-token"), std::string::npos);
  }
}

TEST_F(Claims, AGoodTokenIsNotHarmedByABadCertificate) {
  const HttpsResponse joined =
      server_.send(server_.kubelet_request("web-1", "pw"), make_client_certificate(expired(ours("web-9"))));
  ASSERT_EQ(joined.status, 200) << joined.body;
  const auto stored = server_.records_of<PasswordStored>();
  ASSERT_EQ(stored.size(), 1u);
  EXPECT_EQ(stored.front().node, "web-1");
  EXPECT_EQ(stored.front().auth.method, "basic");
  EXPECT_FALSE(server_.log()->node("web-9")->has_value());
}

// Every refusal that an agent can meet before its password is judged, with the name that it came under.
TEST_F(Claims, EveryEarlyRefusalSaysWhoClaimedToAsk) {
  const auto record_of = [&](const HttpsRequest& request, int status) {
    const HttpsResponse response = server_.send(request);
    EXPECT_EQ(response.status, status) << response.body;
    return server_.record_of(response);
  };
  HttpsRequest request = server_.kubelet_request("web-1", "pw");
  request.authorization = Secret();
  EXPECT_EQ(record_of(request, 401).node, "web-1") << "no credentials";
  request.authorization = Secret(test::basic("node", "wrong"));
  EXPECT_EQ(record_of(request, 401).node, "web-1") << "a bad token";
  request.authorization = Secret("Basic ???");
  EXPECT_EQ(record_of(request, 401).node, "web-1") << "no token";
  for (const char* stem : {"client-kubelet", "serving-kubelet", "client-kube-proxy", "client-k3s-controller"}) {
    HttpsRequest bad_csr = server_.kubelet_request("web-1", "pw");
    bad_csr.method = "POST";
    bad_csr.target = "/v1-k3s/" + std::string(stem) + ".crt";
    bad_csr.body = "no request";
    const Record record = record_of(bad_csr, 400);
    EXPECT_EQ(record.node, "web-1") << stem;
    ASSERT_NE(as<RequestRejected>(record), nullptr);
    EXPECT_EQ(as<RequestRejected>(record)->reason, "bad_csr");
    EXPECT_EQ(replay::name_is(record), replay::NameIs::claimed);
    EXPECT_FALSE(replay::is_bare_claim(record)) << "the token was good";
  }
  EXPECT_FALSE(server_.log()->node("web-1")->has_value()) << "a claim makes no node";
}

// A stranger writes the name of a node that is well.
TEST_F(Claims, AHealthyNodeDoesNotLookRefused) {
  ASSERT_EQ(server_.join("web-1", "pw").status, 200);
  ASSERT_EQ(explained("web-1").cause, replay::Cause::kNone);
  refused(foreign("web-1"), config());
  HttpsRequest request = server_.kubelet_request("web-1", "pw");
  request.authorization = Secret();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(server_.send(request).status, 401);
  EXPECT_EQ((*server_.log()->node("web-1"))->rejections, 0u);
  const replay::Explanation explanation = explained("web-1");
  EXPECT_EQ(explanation.state, "registered");
  EXPECT_TRUE(explanation.only_claimed) << explanation.summary;
  EXPECT_THAT(explanation.warnings, Contains(HasSubstr("only claimed")));
  EXPECT_THAT(explanation.summary, HasSubstr("claims to be web-1"));
  const std::string text = replay::to_text(explanation);
  EXPECT_THAT(text, HasSubstr("REFUSED 401 token missing (claimed)"));
  const json::object told = replay::to_json(explanation);
  EXPECT_TRUE(told.at("only_claimed").as_bool());
  int claimed = 0, proven = 0;
  for (const json::value& moment : told.at("timeline").as_array()) {
    const json::object& row = moment.as_object();
    if (!row.contains("node_is")) continue;
    claimed += row.at("node_is") == "claimed" ? 1 : 0;
    proven += row.at("node_is") == "proven" ? 1 : 0;
    if (row.at("kind") == "token_rejected") {
      EXPECT_EQ(row.at("node_is"), "claimed");
    }
    if (row.at("kind") == "password_stored") {
      EXPECT_EQ(row.at("node_is"), "proven");
    }
  }
  EXPECT_GE(claimed, 2);
  EXPECT_GE(proven, 2) << "the binding and the certificate";
  // The node's next registration answers it.
  ASSERT_EQ(server_.join("web-1", "pw").status, 200);
  const replay::Explanation after = explained("web-1");
  EXPECT_EQ(after.cause, replay::Cause::kNone);
  EXPECT_FALSE(after.only_claimed);
}

// ---- towards an upstream -----------------------------------------------------------------------------------

std::string der_of_pem(const std::string& pem) {
  const std::shared_ptr<BIO> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free_all);
  const std::shared_ptr<X509> certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), X509_free);
  unsigned char* bytes = nullptr;
  const int length = i2d_X509(certificate.get(), &bytes);
  std::string der(reinterpret_cast<char*>(bytes), static_cast<std::size_t>(std::max(length, 0)));
  OPENSSL_free(bytes);
  return der;
}

TEST_F(Claims, OnlyACertificateThatIsAcceptedSpeaksForItsBearerUpstream) {
  const auto issuer = Issuer::open(server_.data_dir(), Time::now(), true);
  ASSERT_TRUE(issuer) << issuer.error().message;
  Request request;
  request.headers = {{"authorization", "Basic bm9kZTpwdw=="}};
  EXPECT_EQ(identity_for(request, *issuer, Plane::kubernetes).kind, UpstreamIdentity::Kind::anonymous);

  request.certificate = der_of_pem(make_client_certificate(ours("web-1")).cert_pem);
  const UpstreamIdentity supervisor = identity_for(request, *issuer, Plane::supervisor);
  EXPECT_EQ(supervisor.kind, UpstreamIdentity::Kind::certificate);
  EXPECT_EQ(supervisor.user, "system:node:web-1");
  EXPECT_EQ(supervisor.groups, std::vector<std::string>{"system:nodes"});
  EXPECT_EQ(identity_for(request, *issuer, Plane::kubernetes).kind, UpstreamIdentity::Kind::front_proxy);

  for (const CertificateWish& wish : {foreign("web-1"), expired(ours("web-1")), too_early(ours("web-1"))}) {
    request.certificate = der_of_pem(make_client_certificate(wish).cert_pem);
    for (const Plane plane : {Plane::supervisor, Plane::kubernetes}) {
      const UpstreamIdentity nobody = identity_for(request, *issuer, plane);
      EXPECT_EQ(nobody.kind, UpstreamIdentity::Kind::anonymous);
      EXPECT_EQ(nobody.user, "");
      EXPECT_TRUE(nobody.groups.empty());
    }
  }
}

}  // namespace
}  // namespace ledger::api
