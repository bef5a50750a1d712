// What an upstream's answers mean. A row of the table is the documentation of a case; the random histories say that the
// projection is the upstream's memory, as far as its answers tell. The way through sockets: tests/upstream.
#include "api/observation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>

#include "ledger/event_codec.h"
#include "tests/support/ledger_fixture.h"

namespace ledger::api {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kServing = "/v1-k3s/serving-kubelet.crt";
constexpr const char* kProxy = "/v1-k3s/client-kube-proxy.crt";
constexpr const char* kConfig = "/v1-k3s/config";
constexpr const char* kMismatch = R"({"kind":"Status","message":"unable to verify password for node web-1: hash does not match"})";
constexpr const char* kForbidden = R"({"kind":"Status","message":"forbidden","reason":"Forbidden","code":403})";

// "password_rejected 403 bb->": what matters of a record.
std::string in_words(const Record& record) {
  std::string words(name_of(record.kind()));
  const auto more = [&](const std::string& word) { words += " " + word; };
  if (const auto* event = as<TokenRejected>(record)) more(std::to_string(event->status)), more(event->reason);
  if (const auto* event = as<RequestRejected>(record)) more(std::to_string(event->status)), more(event->reason);
  if (const auto* event = as<PasswordStored>(record)) more(event->fingerprint.text);
  if (const auto* event = as<PasswordVerified>(record)) more(event->fingerprint.text);
  if (const auto* event = as<PasswordRejected>(record))
    more(event->fingerprint.text), more("not " + (event->bound.known() ? event->bound.text : "known"));
  if (const auto* event = as<BindingChanged>(record)) more(event->by), more(event->from.text + ">" + event->to.text);
  if (const auto* event = as<CertificateIssued>(record)) more(event->purpose), more(event->key);
  return words;
}

Caller caller_of(TokenResult result) {
  Caller caller;
  caller.result = result;
  caller.auth.method = "basic";
  caller.role = result == TokenResult::accepted ? Role::agent : Role::none;
  return caller;
}

Question ask(const char* path, TokenResult token, HeaderResult headers = HeaderResult::complete) {
  Question question;
  question.endpoint = endpoint_asked(path, kK3s);
  question.caller = caller_of(token);
  question.headers = headers;
  question.would_have = "serve";
  if (question.endpoint.asked != Asked::kubelet_certificate) return question;
  question.node = headers == HeaderResult::node_name_missing ? "" : "web-1";
  if (headers != HeaderResult::node_password_missing && !question.node.empty()) question.presented = {"aa"};
  return question;
}

NodeState bound_to(const char* fingerprint) {
  NodeState state;
  state.bound = {fingerprint};
  state.since = state.version = 1;
  return state;
}
NodeState bound_by_hash() {
  NodeState state;
  state.bound_by_hash = true;
  state.since = state.version = 1;
  return state;
}

Result<UpstreamAnswer> answer(int status, std::string body = {}) {
  UpstreamAnswer said;
  said.upstream = "10.0.0.1:6443";
  said.status = status;
  said.body = std::move(body);
  said.took = std::chrono::milliseconds(7);
  return said;
}

class Observed : public test::LedgerTest {
 protected:
  Observed() : issuer_(*Issuer::open(dir_.path(), Time::now(), false)) {}

  std::string certificate(Purpose purpose, bool with_key) const {
    const auto issued = issuer_.issue(purpose, *NodeName::parse("web-1"), {}, Time::now());
    return issued->leaf_pem + issued->ca_pem + (with_key ? std::string(issued->key_pem.reveal()) : "");
  }
  static std::vector<Record> records_for(const char* path, const Question& question, const Result<UpstreamAnswer>& said,
                                         const NodeState& state = {}) {
    Request request;
    request.method = "GET";
    request.path = path;
    return records_of(request, question, verdict_of(question.endpoint, kK3s, said), state, kK3s);
  }
  static std::vector<std::string> told(const char* path, const Question& question, const Result<UpstreamAnswer>& said,
                                       const NodeState& state = {}) {
    std::vector<std::string> words;
    for (const Record& record : records_for(path, question, said, state)) words.push_back(in_words(record));
    return words;
  }

  Issuer issuer_;
};

TEST_F(Observed, WhatAnAnswerToAKubeletCertificateMeans) {
  const std::string pem = certificate(Purpose::serving_kubelet, true), signed_csr = certificate(Purpose::serving_kubelet, false);
  using T = TokenResult;
  using H = HeaderResult;
  const std::string ok = "token_accepted", issued = "certificate_issued serving-kubelet shared";
  const std::vector<std::string> refused_400 = {ok, "request_rejected 400 node_password_missing"};
  const struct {
    const char* what;
    T token;
    H headers;
    int status;
    std::string body;
    NodeState state;
    std::vector<std::string> records;
  } rows[] = {
      {"the first", T::accepted, H::complete, 200, pem, {}, {ok, "password_stored aa", issued}},
      {"its own key", T::accepted, H::complete, 200, signed_csr, bound_to("aa"),
       {ok, "password_verified aa", "certificate_issued serving-kubelet csr"}},
      {"known", T::accepted, H::complete, 200, pem, bound_to("aa"), {ok, "password_verified aa", issued}},
      {"known by a hash", T::accepted, H::complete, 200, pem, bound_by_hash(), {ok, "password_verified aa", issued}},
      {"changed unseen", T::accepted, H::complete, 200, pem, bound_to("bb"),
       {"binding_changed outside bb>aa", ok, "password_verified aa", issued}},
      {"a token that we do not know", T::wrong_secret, H::complete, 200, pem, {}, {ok, "password_stored aa", issued}},
      {"an address that is none", T::accepted, H::bad_request, 200, pem, {}, {ok, "password_stored aa", issued}},
      {"no password, and yet", T::accepted, H::node_password_missing, 200, pem, bound_to("bb"), {ok, issued}},
      {"no certificate in it", T::accepted, H::complete, 200, "hello", {}, {ok, "password_stored aa"}},
      {"mismatch", T::accepted, H::complete, 403, kMismatch, bound_to("bb"), {ok, "password_rejected aa not bb"}},
      {"mismatch of an unseen name", T::accepted, H::complete, 403, kMismatch, {}, {ok, "password_rejected aa not known"}},
      {"mismatch of the bound one", T::accepted, H::complete, 403, kMismatch, bound_to("aa"), {ok, "password_rejected aa not known"}},
      {"k3s v1.17", T::accepted, H::complete, 403, "Node password validation failed for 'web-1'", bound_to("bb"),
       {ok, "password_rejected aa not bb"}},
      {"no credentials, from v1.24", T::missing, H::complete, 403, kForbidden, {}, {"token_rejected 403 missing"}},
      {"no credentials, v1.20.4", T::missing, H::complete, 403, "", {}, {"token_rejected 403 missing"}},
      {"a role that we would take", T::accepted, H::complete, 403, kForbidden, {}, {"token_rejected 403 "}},
      {"403 without words", T::accepted, H::complete, 403, "", bound_to("bb"), {ok, "password_rejected aa not bb"}},
      {"wrong token", T::wrong_secret, H::complete, 401, "", {}, {"token_rejected 401 wrong_secret"}},
      {"a token that we would take", T::accepted, H::complete, 401, "", {}, {"token_rejected 401 "}},
      {"no Node object", T::accepted, H::complete, 401, R"({"message":"unable to verify node identity: nodes \"web-1\" not found"})",
       bound_to("aa"), {ok, "request_rejected 401 node_unknown"}},
      {"no name", T::accepted, H::node_name_missing, 400, "", {}, {ok, "request_rejected 400 node_name_missing"}},
      {"no password", T::accepted, H::node_password_missing, 400, "", {}, refused_400},
      {"400 to what we would take", T::accepted, H::complete, 400, "", {}, {ok, "request_rejected 400 bad_request"}},
      {"400 to a stranger", T::missing, H::complete, 400, "", {}, {"request_rejected 400 bad_request"}},
      {"not ready", T::accepted, H::complete, 503, "starting", {}, {"request_rejected 503 upstream_error"}},
      {"too busy", T::accepted, H::complete, 429, "", bound_to("bb"), {"request_rejected 429 upstream_error"}},
      {"elsewhere", T::accepted, H::complete, 302, "", {}, {"request_rejected 302 upstream_error"}},
  };
  for (const auto& row : rows)
    EXPECT_EQ(told(kServing, ask(kServing, row.token, row.headers), answer(row.status, row.body), row.state), row.records) << row.what;
}

TEST_F(Observed, WhatAnAnswerToOthersMeans) {
  const std::string pem = certificate(Purpose::client_kube_proxy, true);
  const Question good = ask(kConfig, TokenResult::accepted), bad = ask(kConfig, TokenResult::revoked);
  EXPECT_THAT(told(kConfig, good, answer(200, "{}")), ElementsAre("token_accepted"));
  EXPECT_THAT(told(kConfig, bad, answer(401)), ElementsAre("token_rejected 401 revoked"));
  EXPECT_THAT(told(kConfig, bad, answer(403, kForbidden)), ElementsAre("token_rejected 403 revoked"));
  EXPECT_THAT(told(kConfig, good, answer(404)), ElementsAre("request_rejected 404 upstream_error"));
  EXPECT_THAT(told(kProxy, ask(kProxy, TokenResult::accepted), answer(200, pem)),
              ElementsAre("token_accepted", "certificate_issued client-kube-proxy shared"));
  EXPECT_THAT(told(kProxy, ask(kProxy, TokenResult::accepted), answer(403, kMismatch)), ElementsAre("token_rejected 403 "));
  for (const char* path : {"/cacerts", "/ping"}) {
    EXPECT_THAT(told(path, ask(path, TokenResult::missing), answer(200, "pong")), ElementsAre());
    EXPECT_THAT(told(path, ask(path, TokenResult::missing), Error{Errc::unavailable, "down"}), ElementsAre());
  }
}

TEST_F(Observed, EveryRecordSaysWhoDecidedAndHowLongItTook) {
  Question question = ask(kServing, TokenResult::superseded);
  question.caller.old_token = "0a1b2c3d4e5f";
  question.claimed = {"10.0.0.5"};
  question.would_have = "refuse_token";
  question.generation = "G4";
  const auto records = records_for(kServing, question, answer(200, certificate(Purpose::serving_kubelet, true)), bound_to("bb"));
  ASSERT_EQ(records.size(), 4u);
  for (const Record& record : records) {
    EXPECT_EQ(record.authority, "upstream");
    EXPECT_EQ(record.upstream, "10.0.0.1:6443");
    EXPECT_EQ(record.answered, 200);
    EXPECT_EQ(record.took_ms, 7);
    EXPECT_EQ(record.would_have, "refuse_token");
    EXPECT_EQ(record.node, "web-1");
    EXPECT_EQ(record.claimed, std::vector<std::string>{"10.0.0.5"});
    EXPECT_EQ(record.generation, "G4");
    EXPECT_EQ(record.endpoint, kServing);
  }
  EXPECT_EQ(records[1].note, "here its credentials would be refused: superseded (token 0a1b2c3d4e5f)");
}

TEST_F(Observed, NoAnswerIsARecordToo) {
  const Error down{Errc::unavailable, "10.0.0.1:6443: connection\nrefused"};
  const auto records = records_for(kServing, ask(kServing, TokenResult::accepted), down, bound_to("bb"));
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(in_words(records[0]), "request_rejected 0 upstream_unavailable");
  EXPECT_EQ(records[0].node, "web-1");
  EXPECT_EQ(records[0].answered, 0);
  EXPECT_EQ(records[0].note, "10.0.0.1:6443: connection?refused");
}

TEST_F(Observed, TheCertificateInAnAnswerIsReadAndItsKeyIsNot) {
  const auto issued = issuer_.issue(Purpose::client_kubelet, *NodeName::parse("web-1"), {}, Time::now());
  ASSERT_TRUE(issued);
  const std::string body = issued->leaf_pem + issued->ca_pem + std::string(issued->key_pem.reveal());
  const char* const path = "/v1-k3s/client-kubelet.crt";
  const auto records = records_for(path, ask(path, TokenResult::accepted), answer(200, body));
  ASSERT_EQ(records.size(), 3u);
  const auto* read = as<CertificateIssued>(records[2]);
  ASSERT_NE(read, nullptr);
  EXPECT_EQ(read->purpose, "client-kubelet");
  EXPECT_EQ(read->subject, issued->subject);
  EXPECT_EQ(read->serial, issued->serial);
  EXPECT_EQ(read->sha256, issued->sha256);
  EXPECT_EQ(read->public_key, issued->public_key);
  EXPECT_EQ(read->not_before, issued->not_before);
  EXPECT_EQ(read->not_after, issued->not_after);
  for (const Record& record : records) EXPECT_EQ(encode(record).find("PRIVATE"), std::string::npos);
}

TEST_F(Observed, ReadingACertificateSaysWhyItCannot) {
  for (const char* text : {"", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}) {
    const auto read = read_issued(text);
    ASSERT_FALSE(read) << text;
    EXPECT_THAT(read.error().message, HasSubstr("no certificate"));
  }
}

// Equal refusals are one storm however long each took.
TEST_F(Observed, RefusalsThatRepeatAreCounted) {
  open();
  for (int i = 0; i < 50; ++i) {
    auto said = answer(403, kMismatch);
    said->took = std::chrono::milliseconds(i);
    ASSERT_TRUE(ledger_->append_and_wait(test::proposal_of(
        records_for(kServing, ask(kServing, TokenResult::accepted), said, ledger_->find("web-1")))));
  }
  EXPECT_EQ(ledger_->log().head(), 2u);
  ASSERT_TRUE(ledger_->flush_counts());
  EXPECT_EQ(test::outcomes(ledger_->log(), Kind::password_rejected), 50);
}

// ---- random histories ------------------------------------------------------------------------------------------

// k3s' store of node passwords, as its protocol tells: the first wins until somebody deletes the entry.
class Store {
 public:
  int ask(const std::string& node, const std::string& password) {
    return passwords_.emplace(node, password).first->second == password ? 200 : 403;
  }
  void forget(const std::string& node) { passwords_.erase(node); }
  std::string of(const std::string& node) const {
    const auto found = passwords_.find(node);
    return found == passwords_.end() ? "" : found->second;
  }

 private:
  std::map<std::string, std::string> passwords_;
};

// Requests overlap: the store decides in one order, and their answers arrive here in another. Between the rounds names
// are set free where nobody watches, passwords are imported as hashes, and operators hold names.
TEST_F(Observed, TheProjectionIsTheUpstreamsMemory) {
  const char* const wanted = std::getenv("LEDGER_OBSERVED_ROUNDS");
  const int rounds = wanted != nullptr ? std::atoi(wanted) : 400;
  open();
  std::mt19937 random(20261123);
  const auto pick = [&](int below) { return static_cast<int>(random() % static_cast<unsigned>(below)); };
  const std::string pem = certificate(Purpose::serving_kubelet, true);
  Store store;
  int changed = 0, refused = 0, stored = 0;
  for (int round = 0; round < rounds; ++round) {
    for (int node = 0; node < 6; ++node) {
      const std::string name = "web-" + std::to_string(node);
      if (pick(6) == 0) store.forget(name);
      if (pick(40) == 0) append_ok(BindingHeld{"op"}, name);
      if (pick(40) == 0 && !ledger_->find(name).is_bound() && store.of(name).empty()) {
        store.ask(name, "p0");
        append_ok(BindingImported{.fingerprint = {}, .origin = "secret"}, name);
      }
    }
    struct Flight {
      std::string node, password;
      int status;
    };
    std::vector<Flight> flights;
    for (int i = pick(8) + 1; i > 0; --i) {
      Flight flight{"web-" + std::to_string(pick(6)), "p" + std::to_string(pick(3)), 0};
      flight.status = store.ask(flight.node, flight.password);
      flights.push_back(std::move(flight));
    }
    std::shuffle(flights.begin(), flights.end(), random);
    for (const Flight& flight : flights) {
      Question question = ask(kServing, TokenResult::accepted);
      question.node = flight.node;
      question.presented = {flight.password};
      const NodeState state = ledger_->find(flight.node);
      Proposal proposal = test::proposal_of(records_for(
          kServing, question, flight.status == 200 ? answer(200, pem) : answer(403, kMismatch), state));
      for (const Record& record : proposal.records)
        changed += record.kind() == Kind::binding_changed, refused += record.kind() == Kind::password_rejected,
            stored += record.kind() == Kind::password_stored;
      proposal.expect = Proposal::Expect{flight.node, state.version};
      ASSERT_TRUE(ledger_->append_and_wait(std::move(proposal)));
      const bool was_held = state.held;
      EXPECT_EQ(ledger_->find(flight.node).held, was_held) << "a hold is ours to end";
    }
    // Who was admitted told us what the store holds; who was only refused did not.
    for (const Flight& flight : flights) {
      if (flight.status != 200) continue;
      ASSERT_EQ(ledger_->find(flight.node).bound.text, store.of(flight.node)) << "round " << round << ", " << flight.node;
    }
  }
  EXPECT_GT(changed, rounds / 10);
  EXPECT_GT(refused, rounds / 10);
  EXPECT_GT(stored, 3);
}

}  // namespace
}  // namespace ledger::api
