// The operators' questions over HTTPS: the same bytes as the commands give beside the same server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "tests/support/paths.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

using testing::HasSubstr;

class Questions : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(server_.join("web-1", "old").status, 200);
    ASSERT_EQ(server_.join("web-2", "two").status, 200);
    refused_ = server_.join("web-1", "new");
    ASSERT_EQ(refused_.status, 403);
    for (int i = 0; i < 3; ++i) ASSERT_EQ(server_.join("web-1", "new").status, 403);
    ASSERT_EQ(server_.get("/v1-k3s/config", test::basic("node", "wrong")).status, 401);
  }
  HttpsResponse ask(const std::string& path) { return server_.get("/ledger/v1/" + path, server_.operator_bearer()); }
  std::string command(const std::string& arguments) const {
    const test::CommandResult result = test::run_command(test::ledger_binary() + " " + arguments + " --data-dir " +
                                                         server_.data_dir().string() + " --format json");
    EXPECT_EQ(result.status, 0) << result.output;
    return result.output;
  }
  test::RunningServer server_;
  HttpsResponse refused_;
};

TEST_F(Questions, AnExplanationIsThatOfTheCommandByteForByte) {
  const HttpsResponse now = ask("nodes/web-1/explanation");
  ASSERT_EQ(now.status, 200) << now.body;
  EXPECT_EQ(now.header("Content-Type"), "application/json");
  EXPECT_THAT(now.body, HasSubstr(R"("state":"refused")"));
  EXPECT_EQ(now.body, command("replay --node web-1"));
  const std::string seq(refused_.header("Ledger-Seq"));
  const std::string before = std::to_string(std::stoull(seq) - 1);
  for (const auto& [query, options] :
       {std::pair<std::string, std::string>{"at=" + before, "--at " + before},
        {"until=" + before, "--until " + before},
        {"since=" + seq, "--since " + seq},
        {"since=2000-01-01T00:00:00Z&at=" + seq, "--since 2000-01-01T00:00:00Z --at " + seq}}) {
    const HttpsResponse answer = ask("nodes/web-1/explanation?" + query);
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(answer.body, command("replay --node web-1 " + options)) << query;
  }
  EXPECT_THAT(ask("nodes/web-1/explanation?at=" + before).body, HasSubstr(R"("cause":"NONE")"));
  EXPECT_EQ(ask("nodes/nobody/explanation").body, command("replay --node nobody")) << "UNKNOWN is an answer";
}

TEST_F(Questions, TriageIsThatOfTheCommandByteForByte) {
  for (const std::string since : {"ever", "24h", "2000-01-01T00:00:00Z"}) {
    const HttpsResponse answer = ask("triage?since=" + since);
    ASSERT_EQ(answer.status, 200) << answer.body;
    EXPECT_THAT(answer.body, HasSubstr(R"("refused":1)"));
    EXPECT_EQ(answer.body, command("triage --since " + since));
  }
  EXPECT_EQ(ask("triage").body, command("triage"));
  EXPECT_EQ(ask("triage?disagreements=true&since=ever").body, command("triage --disagreements --since ever"));
}

TEST_F(Questions, TheHeadersOfAReplyLeadToItsRecords) {
  const std::string seq(refused_.header("Ledger-Seq")), id(refused_.header("Ledger-Request-Id"));
  const HttpsResponse by_seq = ask("records?seq=" + seq);
  ASSERT_EQ(by_seq.status, 200) << by_seq.body;
  EXPECT_THAT(by_seq.body, HasSubstr(R"("kind":"password_rejected")"));
  EXPECT_THAT(by_seq.body, HasSubstr(R"("nodes":["web-1"])"));
  EXPECT_EQ(ask("records?request_id=" + id).body, by_seq.body);
  // The command, beside the server and through it.
  const std::string beside = command("replay --seq " + seq);
  EXPECT_THAT(beside, HasSubstr(R"("asked":{"records":[)"));
  EXPECT_EQ(command("replay --request-id " + id), beside);
  const std::string url = "https://127.0.0.1:" + std::to_string(server_.port());
  EXPECT_EQ(command("replay --seq " + seq + " --server " + url), beside);
}

TEST_F(Questions, WrongQuestionsAreToldWhy) {
  for (const std::string path :
       {"nodes/web-1/explanation?at=yesterday", "nodes/web-1/explanation?at=1&at=2", "nodes/web-1/explanation?to=1",
        "nodes/web-1/explanation?at=1&until=2", "nodes/web-1/explanation?since=", "triage?since=yesterday",
        "triage?limit=7", "triage?disagreements=yes", "records", "records?seq=1&request_id=a", "records?seq=x"}) {
    const HttpsResponse answer = ask(path);
    EXPECT_EQ(answer.status, 400) << path << " " << answer.body;
    EXPECT_THAT(answer.body, HasSubstr(R"("message":")")) << path;
  }
  EXPECT_EQ(ask("records?seq=99999").status, 404);
  EXPECT_EQ(ask("records?request_id=nonsense").status, 404);
  HttpsRequest post = test::request_of("POST", "/ledger/v1/triage", server_.operator_bearer());
  EXPECT_EQ(server_.send(post).status, 405);
  EXPECT_EQ(server_.get("/ledger/v1/triage", server_.agent()).status, 401) << "operators only";
  EXPECT_EQ(server_.get("/ledger/v1/nodes/web-1/explanation").status, 401);
}

}  // namespace
}  // namespace ledger::api
