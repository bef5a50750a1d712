// Another server's memory over the wire: the endpoint that takes it, and the registrations of machines whose names it
// bound by k3s' own hashes. Real scrypt, real TLS.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/json.hpp>
#include <thread>

#include "ledger/event_json.h"
#include "ledger/import.h"
#include "ledger/node_hash.h"
#include "tests/support/paths.h"
#include "tests/support/running_server.h"
#include "tests/support/verify_log.h"

namespace ledger::api {
namespace {

namespace json = boost::json;
using test::RunningServer;
using testing::HasSubstr;

const std::string kFile(64, 'a');

class ImportApi : public testing::Test {
 protected:
  static json::object header(bool finish = false) {
    json::object out = {{"actor", "ops@srv"}, {"file", kFile}};
    if (finish) out["finish"] = true;
    return out;
  }
  HttpsResponse post(const std::string& what, const std::string& body, const std::string& authorization) const {
    HttpsRequest request = test::request_of("POST", "/ledger/v1/import/" + what, authorization);
    request.body = body;
    return server_.send(request);
  }
  HttpsResponse post(const std::string& what, const std::string& body) const {
    return post(what, body, server_.operator_bearer());
  }
  // The answer to a part that must be taken; `lines`: entries.
  json::object import(ImportKind kind, const std::string& lines, const json::object& head = header()) const {
    const HttpsResponse response = post(std::string(name_of(kind)), json::serialize(head) + "\n" + lines);
    EXPECT_EQ(response.status, 200) << response.body;
    json::error_code error;
    const json::value value = json::parse(response.body, error);
    return !error && value.is_object() ? value.get_object() : json::object();
  }
  static std::string bound(std::size_t line, const std::string& node, char digit) {
    ImportEntry entry;
    entry.line = line;
    entry.node = node;
    entry.fingerprint.text = std::string(32, digit);
    return to_json_line(entry) + "\n";
  }
  void bind_by_hash(const std::string& node, const std::string& password) const {
    ImportEntry entry;
    entry.line = 1;
    entry.node = node;
    entry.hash = std::move(*make_node_hash(Secret(password)));
    EXPECT_EQ(counts(import(ImportKind::secrets, to_json_line(entry), header(true))), "1 0 0");
  }
  // "used known left_out"
  static std::string counts(const json::object& answer) {
    if (!answer.contains("left_out")) return json::serialize(answer);
    return std::to_string(answer.at("used").as_int64()) + " " + std::to_string(answer.at("known").as_int64()) + " " +
           std::to_string(answer.at("left_out").as_array().size());
  }
  NodeState node(const std::string& name) const {
    const auto state = server_.log()->node(name);
    return state && *state ? **state : NodeState();
  }
  void stop_and_verify() {
    ASSERT_TRUE(server_.stop());
    EXPECT_EQ(test::broken_promises(*server_.log()), std::vector<std::string>());
  }

  RunningServer server_;
  test::TempDir state_;
};

// ---- who may ---------------------------------------------------------------------------------------------

TEST_F(ImportApi, IsForOperatorsWhoMayChangeThings) {
  const std::string body = json::serialize(header()) + "\n" + bound(1, "web-1", 'a');
  EXPECT_EQ(post("node-passwd", body, "").status, 401);
  EXPECT_EQ(post("node-passwd", body, server_.agent()).status, 401);
  EXPECT_EQ(post("node-passwd", body, "Bearer " + std::string(64, '0')).status, 401);
  HttpsRequest create = test::request_of("POST", "/ledger/v1/tokens", server_.operator_bearer());
  create.body = R"({"class":"operator","role":"read","actor":"ops","reason":"a test"})";
  const HttpsResponse made = server_.send(create);
  ASSERT_EQ(made.status, 200) << made.body;
  const std::string reader = "Bearer " + std::string(json::parse(made.body).at("secret").as_string());
  const HttpsResponse refused = post("node-passwd", body, reader);
  EXPECT_EQ(refused.status, 403) << refused.body;
  EXPECT_THAT(refused.body, HasSubstr("may only look"));
  EXPECT_FALSE(node("web-1").is_bound());
  EXPECT_TRUE(server_.records_of<BindingImported>().empty());
  EXPECT_EQ(post("node-passwd", body).status, 200);
  EXPECT_TRUE(node("web-1").is_bound());
}

// ---- what is taken ---------------------------------------------------------------------------------------

TEST_F(ImportApi, TakesPartsReportsLinesAndIsIdempotent) {
  ASSERT_EQ(server_.join("web-9", "its own").status, 200);
  const json::object part =
      import(ImportKind::node_passwd, bound(1, "web-1", 'a') + bound(2, "web-9", 'b') + bound(3, "web-1", 'a'));
  EXPECT_EQ(counts(part), "1 1 1");
  EXPECT_FALSE(part.contains("seq")) << "the import goes on";
  const json::object& left_out = part.at("left_out").as_array().at(0).as_object();
  EXPECT_EQ(left_out.at("line"), 2);
  EXPECT_EQ(left_out.at("node"), "web-9");
  EXPECT_THAT(std::string(left_out.at("why").as_string()), HasSubstr("first wins"));

  json::object last = header(true);
  last["used"] = 2, last["left_out"] = 1;
  const json::object end = import(ImportKind::node_passwd, bound(4, "web-2", 'c'), last);
  ASSERT_EQ(counts(end), "1 0 0");
  const Result<Record> finished = server_.log()->read(end.at("seq").to_number<Seq>());
  ASSERT_TRUE(finished);
  ASSERT_NE(as<ImportFinished>(*finished), nullptr);
  EXPECT_EQ(as<ImportFinished>(*finished)->used, 3);
  EXPECT_EQ(as<ImportFinished>(*finished)->left_out, 1);
  EXPECT_EQ(as<ImportFinished>(*finished)->file, kFile);
  EXPECT_EQ(as<ImportFinished>(*finished)->actor, "ops@srv");

  const Seq version = node("web-1").version;
  EXPECT_EQ(counts(import(ImportKind::node_passwd, bound(1, "web-1", 'a') + bound(4, "web-2", 'c'))), "0 2 0");
  EXPECT_EQ(node("web-1").version, version) << "the same again changes nothing";
  EXPECT_EQ(server_.records_of<BindingImported>().size(), 2u);
  json::object overwrite = header();
  overwrite["overwrite"] = true;
  EXPECT_EQ(counts(import(ImportKind::node_passwd, bound(2, "web-9", 'b'), overwrite)), "1 0 0");
  EXPECT_EQ(node("web-9").bound.text, std::string(32, 'b'));
  EXPECT_EQ(server_.join("web-9", "its own").status, 403) << "the name is another machine's now";
  stop_and_verify();
}

// Whatever is wrong is named, and nothing of such a body is used.
TEST_F(ImportApi, SaysWhatIsWrongWithABody) {
  const std::string head = json::serialize(header()) + "\n", good = bound(1, "web-1", 'a');
  const auto refused = [&](const std::string& what, const std::string& body, const char* why, int status = 400) {
    const HttpsResponse response = post(what, body);
    EXPECT_EQ(response.status, status) << body << "\n" << response.body;
    EXPECT_THAT(response.body, HasSubstr(why)) << body;
    EXPECT_EQ(response.body.find("s3cret"), std::string::npos) << "an error repeats no secret";
  };
  const auto with = [&](const std::string& field) { return "{" + field + R"("file":")" + kFile + "\"}\n" + good; };
  refused("node-passwd", "", "first line must be a JSON object");
  refused("node-passwd", "s3cret,web-1,web-1,\n", "first line must be a JSON object");
  refused("node-passwd", "[]\n" + good, "first line must be a JSON object");
  refused("node-passwd", "{}\n" + good, "must say actor, and file");
  refused("node-passwd", R"({"actor":"ops","file":"abc"})" + ("\n" + good), "SHA-256");
  refused("node-passwd", R"({"actor":"ops","file":")" + std::string(64, 'X') + "\"}\n" + good, "SHA-256");
  refused("node-passwd", with(R"("actor":7,)"), "field 'actor' of the first line");
  refused("node-passwd", with(R"("actor":"ops","overwrite":"yes",)"), "field 'overwrite'");
  refused("node-passwd", with(R"("actor":"ops","used":-1,)"), "field 'used'");
  refused("node-passwd", with(R"("actor":"ops","force":true,)"), "field 'force'");
  refused("node-passwd", head + good + "{\n", "line 3 of the body");
  refused("node-passwd", head + good + "\n" + R"({"line":2,"node":"not a name","fingerprint":"00"})", "line 4 of the body");
  refused("node-passwd", head + R"({"line":1,"node":"web-1","fingerprint":"s3cret"})", "line 2 of the body");
  refused("node-passwd", head + R"({"line":1,"node":"web-1","password":"s3cret"})", "line 2 of the body");
  refused("secrets", head + R"({"line":1,"node":"web-1","hash":"$1:s3cret"})", "line 2 of the body");
  refused("nodes", head + R"({"line":1,"node":"web-1","uid":"u1","created":"yesterday"})", "line 2 of the body");
  refused("log", head + R"({"line":1,"record":{"seq":1,"kind":"password_stored","node":"x","server":"imported:m1"}})",
          "line 2 of the body");
  refused("log", head + R"({"line":1,"record":{"seq":1,"kind":"password_rejected","node":"x","server":"srv"}})",
          "line 2 of the body");
  refused("passwords", head + good, "no such path", 404);
  EXPECT_EQ(server_.get("/ledger/v1/import/node-passwd", server_.operator_bearer()).status, 405);
  refused("node-passwd", head + std::string(70000, ' '), "", 413);
  EXPECT_FALSE(node("web-1").is_bound());
  EXPECT_TRUE(server_.records_of<BindingImported>().empty());
  EXPECT_TRUE(server_.records_of<ImportFinished>().empty());
}

// ---- the command beside a running server -----------------------------------------------------------------

class ImportCommand : public ImportApi {
 protected:
  // `ledger import`; its exit status. Its report is in report_, where there is one, and its words in said_.
  int command(const std::string& what, const std::string& text) {
    const auto file = state_ / "input";
    test::put_file(file, text);
    const auto result = test::run_command(test::ledger_binary() + " import " + what + " " + file.string() +
                                          " --format json --actor ops --data-dir " + server_.data_dir().string());
    said_ = result.output;
    json::error_code error;
    const json::value value = json::parse(result.output, error);
    report_ = !error && value.is_object() ? value.get_object() : json::object();
    return result.status;
  }
  // "used known left_out"
  std::string reported() const {
    if (!report_.contains("left_out")) return said_;
    return std::to_string(report_.at("used").as_int64()) + " " + std::to_string(report_.at("known").as_int64()) + " " +
           std::to_string(report_.at("left_out").as_int64());
  }
  // "2: why"
  std::string first_left_out() const {
    if (!report_.contains("items") || report_.at("items").as_array().empty()) return "nothing";
    const json::object& item = report_.at("items").as_array().front().as_object();
    return std::to_string(item.at("line").as_int64()) + ": " + std::string(item.at("why").as_string());
  }

  json::object report_;
  std::string said_;
};

TEST_F(ImportCommand, PasswordsInTheClearBecomeBindings) {
  const std::string passwd = "pw-of-web-1,web-1,web-1,\nno node here\npw-of-web-2,WEB-2,web-2,\n";
  EXPECT_EQ(command("node-passwd", passwd), 1) << "a line was left out";
  EXPECT_EQ(reported(), "2 0 1");
  EXPECT_THAT(first_left_out(), HasSubstr("2: has fewer than 3 columns"));
  EXPECT_EQ(server_.join("web-1", "pw-of-web-1").status, 200) << "the password of the old server";
  EXPECT_EQ(server_.join("web-2", "pw-of-web-1").status, 403);
  command("node-passwd", passwd);
  EXPECT_EQ(reported(), "0 2 1");
  stop_and_verify();
  for (const Record& record : server_.records()) EXPECT_EQ(to_json_line(record).find("pw-of-web"), std::string::npos);
}

TEST_F(ImportCommand, SecretsBindByTheirHash) {
  const Result<Secret> hash = make_node_hash(Secret("pw-of-web-3"));
  ASSERT_TRUE(hash);
  const std::string document =
      R"({"kind":"List","items":[{"kind":"Secret","metadata":{"name":"web-3.node-password.k3s","namespace":"kube-system"},)"
      R"("data":{"hash":")" +
      base64(std::string(hash->reveal())) + R"("}}]})";
  EXPECT_EQ(command("secrets", document), 0) << said_;
  EXPECT_EQ(reported(), "1 0 0");
  EXPECT_EQ(server_.join("web-3", "pw-of-web-4").status, 403);
  EXPECT_EQ(server_.join("web-3", "pw-of-web-3").status, 200);
  // Whose hash it is, is written down after the answer.
  EXPECT_TRUE(test::eventually([&] { return command("secrets", document) == 0 && reported() == "0 1 0"; })) << said_;
  EXPECT_EQ(command("secrets", "not json"), 1);
  EXPECT_THAT(said_, HasSubstr("not JSON (line 1"));
  EXPECT_THAT(said_, HasSubstr("kubectl get secrets"));
  stop_and_verify();
  const std::string of_hash(hash->reveal().substr(30, 30));
  for (const Record& record : server_.records()) EXPECT_EQ(to_json_line(record).find(of_hash), std::string::npos);
}

TEST_F(ImportCommand, NodesAndLogsChangeNoBinding) {
  ASSERT_EQ(server_.join("web-1", "pw").status, 200);
  EXPECT_EQ(command("nodes", R"({"kind":"NodeList","items":[{"metadata":{"name":"web-1","uid":"u-1"}},)"
                             R"({"metadata":{"name":"web-2"}}]})"),
            1);
  EXPECT_EQ(reported(), "1 0 1");
  EXPECT_THAT(first_left_out(), HasSubstr("2: has no metadata.uid"));
  const std::string log =
      "time=\"2024-01-02T10:00:02Z\" level=error msg=\"unable to verify hash for node 'web-1': hash does not match\"\n"
      "{\"MESSAGE\": broken\n";
  EXPECT_EQ(command("log", log), 1);
  EXPECT_EQ(reported(), "1 0 1");
  EXPECT_THAT(first_left_out(), HasSubstr("2: "));
  EXPECT_EQ(node("web-1").rejections, 0u);
  EXPECT_EQ(server_.join("web-1", "pw").status, 200);
  EXPECT_FALSE(node("web-2").is_bound());
  EXPECT_THAT(test::run_command(test::ledger_binary() + " replay --node web-1 --data-dir " + server_.data_dir().string())
                  .output,
              HasSubstr("nothing is wrong")) << "an old refusal of another server is history";
  stop_and_verify();
}

// ---- registrations by hash -------------------------------------------------------------------------------

TEST_F(ImportApi, TheRightPasswordIsAdmittedAndThenBoundByItsFingerprint) {
  bind_by_hash("web-1", "right");
  EXPECT_TRUE(node("web-1").bound_by_hash);
  HttpsRequest question = server_.kubelet_request("web-1", "right");
  question.target = "/ledger/v1/check-node";
  EXPECT_THAT(server_.send(question).body, HasSubstr("hashed"));

  const HttpsResponse wrong = server_.join("web-1", "wrong");
  EXPECT_EQ(wrong.status, 403) << wrong.body;
  const Record refused = server_.record_of(wrong);
  ASSERT_NE(as<PasswordRejected>(refused), nullptr);
  EXPECT_FALSE(as<PasswordRejected>(refused)->bound.known()) << "nobody knows it before it was shown once";
  EXPECT_TRUE(node("web-1").bound_by_hash);

  const HttpsResponse right = server_.join("web-1", "right");
  EXPECT_EQ(right.status, 200) << right.body;
  const auto verified = server_.records_of<PasswordVerified>();
  ASSERT_EQ(verified.size(), 1u);
  EXPECT_EQ(node("web-1").bound, as<PasswordVerified>(verified.front())->fingerprint);
  EXPECT_FALSE(node("web-1").bound_by_hash);
  EXPECT_TRUE(server_.records_of<PasswordStored>().empty()) << "it was bound before";

  EXPECT_EQ(server_.join("web-1", "wrong").status, 403);
  ASSERT_TRUE(server_.stop());
  std::filesystem::remove(server_.data_dir() / "cred" / "node-password-hashes");
  server_.start();
  EXPECT_EQ(server_.join("web-1", "right").status, 200) << "the hash is not needed any more";
  EXPECT_EQ(server_.join("web-1", "wrong").status, 403);
  stop_and_verify();
}

// Two checks may wait for one name; who comes with a third password is told to come again, and never 403.
TEST_F(ImportApi, TooManyPasswordsOfOneNameAre429) {
  bind_by_hash("web-1", "right");
  std::atomic<int> busy{0}, refused{0}, other{0};
  std::atomic<Seq> seq{0};
  for (int round = 0; round < 20 && busy == 0; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 12; ++i)
      threads.emplace_back([&, i] {
        const HttpsResponse response =
            server_.join("web-1", "wrong-" + std::to_string(round) + "-" + std::to_string(i));
        ++(response.status == 429 ? busy : response.status == 403 ? refused : other);
        if (response.status != 429) return;
        EXPECT_EQ(response.header("Retry-After"), "1");
        seq = std::stoull("0" + std::string(response.header("Ledger-Seq")));
      });
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_GT(busy, 0);
  EXPECT_GT(refused, 0);
  EXPECT_EQ(other, 0);
  const Result<Record> record = server_.log()->read(seq);
  ASSERT_TRUE(record) << "recorded before it was answered";
  ASSERT_NE(as<RequestRejected>(*record), nullptr);
  EXPECT_EQ(as<RequestRejected>(*record)->reason, "overloaded");
  EXPECT_EQ(as<RequestRejected>(*record)->status, 429);
  EXPECT_EQ(record->node, "web-1");
  EXPECT_EQ(server_.join("web-1", "right").status, 200) << "the node itself gets in";
  stop_and_verify();
  const auto log = server_.log();
  EXPECT_EQ(test::outcomes(*log, Kind::request_rejected), busy);
  EXPECT_EQ(test::outcomes(*log, Kind::password_rejected), refused);
}

TEST_F(ImportApi, AHashThatIsLostIs503AndSaysSo) {
  bind_by_hash("web-1", "right");
  ASSERT_TRUE(server_.stop());
  std::filesystem::remove(server_.data_dir() / "cred" / "node-password-hashes");
  server_.start();
  const HttpsResponse response = server_.join("web-1", "right");
  EXPECT_EQ(response.status, 503);
  EXPECT_FALSE(response.header("Retry-After").empty());
  EXPECT_THAT(response.body, HasSubstr("import the Secrets again"));
  const Record record = server_.record_of(response);
  ASSERT_NE(as<RequestRejected>(record), nullptr);
  EXPECT_EQ(as<RequestRejected>(record)->reason, "store_unavailable");
  EXPECT_EQ(record.node, "web-1");
  EXPECT_TRUE(node("web-1").bound_by_hash) << "nothing was bound to whoever asked";
  bind_by_hash("web-1", "right");  // as the answer says
  EXPECT_EQ(server_.join("web-1", "right").status, 200);
  stop_and_verify();
}

}  // namespace
}  // namespace ledger::api
