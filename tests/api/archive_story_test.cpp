// Retention of a real server: sealed while agents join, by hand and by policy; started with every archive gone; held and
// forgotten, over HTTPS and on the stopped log.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/json.hpp>
#include <thread>

#include "replay/verify.h"
#include "tests/support/paths.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using test::eventually;
using test::run_command;
using test::RunningServer;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class ArchiveStory : public testing::Test {
 protected:
  static void often(ServerOptions& options) {
    options.checkpoint_every_records = 10;
    options.checkpoint_every_seconds = 1;
  }
  // Output and status of `ledger archive ...` on the server's data directory.
  auto archive(const std::string& words, bool with_data_dir = true) {
    return run_command("timeout 60 " + test::ledger_binary() + " archive " + words +
                       (with_data_dir ? " --data-dir " + server_.data_dir().string() : "") + " 2>&1");
  }
  std::string covered() const {
    const std::string note = test::file_bytes(server_.data_dir() / "checkpoints" / "latest");
    const auto line = note.find('\n');
    return line == note.npos ? "0" : note.substr(line + 1, note.find('\n', line + 1) - line - 1);
  }
  void wait_for_checkpoint(Seq of) {
    ASSERT_TRUE(eventually([&] { return std::stoull(covered()) >= of; }));
  }
  json::object ask(const std::string& path, int status = 200) {
    const HttpsResponse response = server_.get("/ledger/v1/" + path, server_.operator_bearer());
    EXPECT_EQ(response.status, status) << response.body;
    json::error_code error;
    const json::value value = json::parse(response.body, error);
    return value.is_object() ? value.get_object() : json::object();
  }
  int post(const std::string& path, const json::object& body, const std::string& bearer = "") {
    HttpsRequest request = test::request_of("POST", "/ledger/v1/" + path, bearer.empty() ? server_.operator_bearer() : bearer);
    request.body = json::serialize(body);
    return server_.send(request).status;
  }
  void expect_sound(bool complete = true) {
    const auto report = replay::verify(*server_.log(), {}, replay::checkpoints_of(server_.data_dir()));
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(report->sound()) << report->damage.front().text;
    EXPECT_EQ(report->complete(), complete);
  }

  RunningServer server_{&often};
};

TEST_F(ArchiveStory, SealedWhileAgentsJoinAndServedWithoutTheFiles) {
  for (int i = 0; i < 5; ++i) ASSERT_EQ(server_.join("web-" + std::to_string(i), "pw").status, 200);
  ASSERT_EQ(server_.join("web-1", "other").status, 403);
  const Seq refused = server_.log()->head();
  wait_for_checkpoint(refused);
  std::atomic<bool> stop{false};
  std::atomic<int> joined{0}, failed{0};
  std::thread agents([&] {
    for (int i = 0; !stop; ++i) (server_.join("busy-" + std::to_string(i % 7), "pw").status == 200 ? joined : failed)++;
  });
  const auto sealed = archive("seal --to-seq " + std::to_string(refused));
  EXPECT_EQ(sealed.status, 0) << sealed.output;
  EXPECT_THAT(sealed.output, HasSubstr("000000000001-"));
  ASSERT_TRUE(eventually([&] { return joined > 5; }));
  stop = true;
  agents.join();
  EXPECT_EQ(failed, 0);
  EXPECT_THAT(archive("seal --to-seq " + std::to_string(refused)).output, HasSubstr("nothing to seal"));
  expect_sound();

  const std::string file = (server_.data_dir() / "archives" / archive_name(1, refused)).string();
  const auto verified =
      archive("verify " + file + " --key " + (server_.data_dir() / "cred" / "checkpoint.pub").string(), false);
  EXPECT_EQ(verified.status, 0) << verified.output;
  EXPECT_THAT(verified.output, AllOf(HasSubstr("sound, records 1 to"), HasSubstr("signed by")));
  const json::object why = ask("nodes/web-1/explanation");
  EXPECT_NE(why.at("cause"), "UNKNOWN");

  // Gone: the server starts, serves, and says what it does not know.
  server_.stop();
  fs::rename(server_.data_dir() / "archives", server_.data_dir() / "cold");
  server_.start();
  EXPECT_EQ(server_.join("web-1", "pw").status, 200);
  EXPECT_EQ(server_.join("web-1", "other").status, 403);
  EXPECT_EQ(server_.join("new", "pw").status, 200);
  const auto explained = run_command(test::ledger_binary() + " replay --node web-4 --data-dir " + server_.data_dir().string());
  EXPECT_THAT(explained.output, HasSubstr("which is not in"));
  EXPECT_THAT(run_command(test::ledger_binary() + " replay --node web-4 --data-dir " + server_.data_dir().string() +
                          " --archives " + (server_.data_dir() / "cold").string()).output,
              Not(HasSubstr("which is not in")));
  ask("records?seq=" + std::to_string(refused), 410);
  const auto incomplete = run_command(test::ledger_binary() + " verify --data-dir " + server_.data_dir().string());
  EXPECT_EQ(incomplete.status, 3) << incomplete.output;
  EXPECT_THAT(incomplete.output, HasSubstr("sound as far as it could be checked"));
  EXPECT_THAT(archive("list").output, AllOf(HasSubstr("dropped"), HasSubstr("which is not in")));
  fs::rename(server_.data_dir() / "cold", server_.data_dir() / "archives");
  expect_sound();
}

TEST_F(ArchiveStory, HoldsAndForgettingAreRecordedAndKept) {
  ASSERT_EQ(server_.join("web-1", "pw").status, 200);
  const Seq end = server_.log()->head();
  wait_for_checkpoint(end);
  const auto held = archive("hold --node web-1 --reason 'case 12' --actor alice --format json");
  ASSERT_EQ(held.status, 0) << held.output;
  const std::string id(json::parse(held.output).at("hold").as_string());
  ASSERT_EQ(archive("seal --to-seq " + std::to_string(end)).status, 0);
  const std::string name = archive_name(1, end);
  EXPECT_THAT(archive("list").output, AllOf(HasSubstr("sealed"), HasSubstr("held " + id), HasSubstr("case 12")));
  const auto refused = archive("remove " + name + " --reason 'kept for 5 years'");
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.output, HasSubstr("under the legal hold " + id + " (node web-1; by alice: case 12)"));

  // On the stopped log it is the same.
  server_.stop();
  EXPECT_EQ(archive("remove " + name + " --reason x").status, 1);
  const auto lifted = archive("lift " + id + " --reason closed");
  EXPECT_EQ(lifted.status, 0) << lifted.output;
  EXPECT_EQ(archive("seal --to-seq " + std::to_string(end)).status, 0) << "drops what the hold stopped";
  EXPECT_EQ(archive("remove " + name + " --reason 'kept for 5 years'").status, 0);
  EXPECT_FALSE(fs::exists(server_.data_dir() / "archives" / name));
  server_.start();
  EXPECT_EQ(server_.join("web-1", "pw").status, 200) << "the name is bound as it was";
  expect_sound();
  const auto removed = server_.log()->find(Index::server_wide, "");
  bool recorded = false;
  for (const Seq seq : *removed)
    if (const auto record = server_.log()->read(seq); as<ArchiveRemoved>(*record) != nullptr)
      recorded = record->note == "kept for 5 years";
  EXPECT_TRUE(recorded);
}

TEST_F(ArchiveStory, TheOperatorsApi) {
  ASSERT_EQ(server_.join("web-1", "pw").status, 200);
  wait_for_checkpoint(3);
  EXPECT_TRUE(ask("archives").at("archives").as_array().empty());
  EXPECT_EQ(post("archives/seal", {{"actor", "ops"}, {"to", 3}}), 200);
  const json::object listed = ask("archives");
  EXPECT_EQ(listed.at("archives").as_array().at(0).at("state"), "dropped");
  EXPECT_EQ(post("archives/seal", {{"actor", "ops"}, {"to", "x"}}), 400);
  EXPECT_EQ(post("archives/seal", {{"to", 3}}), 400);
  EXPECT_EQ(post("archives/nonsense", {{"actor", "ops"}}), 404);
  EXPECT_EQ(post("archives", {{"actor", "ops"}}), 405);
  EXPECT_EQ(post("holds", {{"actor", "ops"}, {"reason", "r"}}), 400);
  EXPECT_EQ(post("holds", {{"actor", "ops"}, {"reason", "r"}, {"from", 1}, {"to", 2}}), 200);
  EXPECT_EQ(post("archives/remove", {{"actor", "ops"}, {"reason", "r"}, {"from", 1}}), 409);
  EXPECT_EQ(post("holds/00000000/lift", {{"actor", "ops"}, {"reason", "r"}}), 404);
  EXPECT_EQ(post("archives/seal", {{"actor", "ops"}}, "Bearer nonsense"), 401);
  // One that may only look may look.
  const auto made = run_command(test::ledger_binary() + " token create --class operator --role read --reason r --format json --data-dir " +
                                server_.data_dir().string());
  ASSERT_EQ(made.status, 0) << made.output;
  const std::string reader = "Bearer " + std::string(json::parse(made.output).at("secret").as_string());
  EXPECT_EQ(server_.get("/ledger/v1/archives", reader).status, 200);
  EXPECT_EQ(post("archives/seal", {{"actor", "ops"}}, reader), 403);
  EXPECT_EQ(post("holds", {{"actor", "ops"}, {"reason", "r"}, {"from", 1}}, reader), 403);
}

TEST(ArchivePolicy, TheServerSealsByItself) {
  std::optional<std::int64_t> age;
  RunningServer server([&](ServerOptions& options) { options.retain_age_s = age; });
  for (int i = 0; i < 5; ++i) ASSERT_EQ(server.join("n-" + std::to_string(i), "pw").status, 200);
  const Seq end = server.log()->head();
  server.stop();  // and signs what is there
  age = 0;
  server.start();
  ASSERT_TRUE(eventually([&] { return !server.log()->archived().empty(); }));
  EXPECT_GE(server.log()->archived().front().to, end);
  EXPECT_EQ(server.join("n-1", "pw").status, 200);
  EXPECT_EQ(server.join("n-1", "other").status, 403);
  const std::string serve = test::ledger_binary() + " serve --data-dir /nonexistent ";
  EXPECT_EQ(run_command(serve + "--retain-age soon 2>&1").status, 2);
  EXPECT_EQ(run_command(serve + "--retain-size plenty 2>&1").status, 2);
}

}  // namespace
}  // namespace ledger::api
