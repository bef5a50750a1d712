// The watcher between a kube-apiserver (tests/support/kube_api.h) and a real ledger: what is recorded, and what is
// not.
#include "api/node_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/kube_api.h"
#include "tests/support/paths.h"
#include "tests/support/running_server.h"
#include "tests/support/verify_log.h"

namespace ledger::api {
namespace {

using test::eventually;
using test::KubeApi;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using Fault = KubeApi::ListFault;

// A watcher in a thread of its own.
class Watcher {
 public:
  explicit Watcher(NodeWatchOptions options) {
    options.stop = &stop_;
    options.log = [this](bool, const std::string& line) {
      const std::lock_guard lock(mutex_);
      lines_ += line + "\n";
    };
    auto opened = NodeWatch::open(std::move(options));
    EXPECT_TRUE(opened) << opened.error().message;
    thread_ = std::thread([watch = std::move(*opened)]() mutable { watch.run(); });
  }
  ~Watcher() { stop(); }
  void stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  bool said(const std::string& text) {
    return eventually([&] {
      const std::lock_guard lock(mutex_);
      return lines_.find(text) != std::string::npos;
    });
  }

 private:
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::string lines_;
  std::thread thread_;
};

class NodeWatchTest : public testing::Test {
 protected:
  NodeWatchOptions options(bool release = false) const {
    NodeWatchOptions out;
    out.kube.path = kube_.kubeconfig("token: kube-token");
    out.ledger.data_dir = server_.data_dir();
    out.release_on_delete = release;
    out.shortest_pause = std::chrono::milliseconds(10);
    out.longest_pause = std::chrono::milliseconds(200);
    out.page = 2;
    return out;
  }
  Result<void> list_once(bool release = false) {
    auto watch = NodeWatch::open(options(release));
    return watch ? watch->list_once() : Result<void>(watch.error());
  }
  // "+web-1/uid-1", "-web-1/uid-1", "released web-1", in the order of the log.
  std::vector<std::string> story() const {
    std::vector<std::string> out;
    for (const Record& record : server_.records()) {
      if (const auto* created = as<NodeObjectCreated>(record))
        out.push_back("+" + record.node + "/" + created->uid);
      if (const auto* deleted = as<NodeObjectDeleted>(record))
        out.push_back("-" + record.node + "/" + deleted->uid);
      const auto* released = as<BindingReleased>(record);
      if (released != nullptr && released->by == "node_deleted") out.push_back("released " + record.node);
    }
    return out;
  }
  bool comes_to(const std::vector<std::string>& expected) {
    const bool came = eventually([&] { return story() == expected; });
    EXPECT_THAT(story(), testing::ElementsAreArray(expected));
    return came;
  }
  void TearDown() override {
    EXPECT_TRUE(server_.stop());
    EXPECT_EQ(test::broken_promises(*server_.log()), std::vector<std::string>());
  }

  KubeApi kube_;
  test::RunningServer server_;
};

TEST_F(NodeWatchTest, ListsInPagesThenWatches) {
  for (const char* n : {"1", "2", "3", "4", "5"}) kube_.create(std::string("web-") + n, std::string("uid-") + n);
  Watcher watcher(options());
  ASSERT_TRUE(comes_to({"+web-1/uid-1", "+web-2/uid-2", "+web-3/uid-3", "+web-4/uid-4", "+web-5/uid-5"}));
  EXPECT_EQ(kube_.lists(), 3);  // pages
  kube_.create("web-6", "uid-6");
  kube_.modify("web-6");
  kube_.remove("web-2");
  ASSERT_TRUE(comes_to({"+web-1/uid-1", "+web-2/uid-2", "+web-3/uid-3", "+web-4/uid-4", "+web-5/uid-5",
                        "+web-6/uid-6", "-web-2/uid-2"}));
  const Record record = server_.records_of<NodeObjectDeleted>().front();
  EXPECT_EQ(as<NodeObjectDeleted>(record)->actor, "watch-nodes");
  EXPECT_EQ(record.note, "");
}

TEST_F(NodeWatchTest, ExactlyOnceAcrossRestartsOfEverything) {
  kube_.create("web-1", "uid-1");
  kube_.create("web-2", "uid-2");
  {
    Watcher watcher(options());
    ASSERT_TRUE(comes_to({"+web-1/uid-1", "+web-2/uid-2"}));
  }
  server_.restart();
  kube_.remove("web-1");  // nobody watches
  kube_.create("web-3", "uid-3");
  {
    Watcher watcher(options());
    ASSERT_TRUE(comes_to({"+web-1/uid-1", "+web-2/uid-2", "-web-1/uid-1", "+web-3/uid-3"}));
  }
  EXPECT_THAT(server_.records_of<NodeObjectDeleted>().front().note, HasSubstr("while nobody watched"));
  server_.restart();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(list_once());
  EXPECT_EQ(story().size(), 4u);
}

TEST_F(NodeWatchTest, TwoWatchersRecordOnce) {
  kube_.create("web-1", "uid-1");
  Watcher one(options()), other(options());
  ASSERT_TRUE(one.said("watching") && other.said("watching"));
  ASSERT_TRUE(eventually([&] { return kube_.open_watches() == 2; }));
  kube_.create("web-2", "uid-2");
  kube_.remove("web-1");
  kube_.create("web-3", "uid-3");
  ASSERT_TRUE(comes_to({"+web-1/uid-1", "+web-2/uid-2", "-web-1/uid-1", "+web-3/uid-3"}));
}

TEST_F(NodeWatchTest, GoneLeadsToANewList) {
  kube_.create("web-1", "uid-1");
  Watcher watcher(options());
  ASSERT_TRUE(comes_to({"+web-1/uid-1"}));
  ASSERT_TRUE(eventually([&] { return kube_.open_watches() == 1; }));
  const int lists = kube_.lists();
  kube_.forget_history();  // an ERROR event
  ASSERT_TRUE(eventually([&] { return kube_.lists() > lists && kube_.open_watches() == 1; }));
  kube_.replace_all({{"web-2", "uid-2"}, {"web-1", "uid-1"}});  // its history is gone too: status 410
  kube_.cut_watches();
  ASSERT_TRUE(comes_to({"+web-1/uid-1", "+web-2/uid-2"}));
  ASSERT_TRUE(eventually([&] { return kube_.open_watches() == 1; }));
  kube_.remove("web-1");
  ASSERT_TRUE(comes_to({"+web-1/uid-1", "+web-2/uid-2", "-web-1/uid-1"}));
}

TEST_F(NodeWatchTest, ABrokenWatchGoesOnWhereItBroke) {
  kube_.create("web-1", "uid-1");
  Watcher watcher(options());
  ASSERT_TRUE(eventually([&] { return kube_.open_watches() == 1; }));
  const int lists = kube_.lists();
  std::vector<std::string> expected = {"+web-1/uid-1"};
  for (int i = 2; i < 6; ++i) {
    kube_.cut_watches();
    kube_.create("web-" + std::to_string(i), "uid-" + std::to_string(i));
    expected.push_back("+web-" + std::to_string(i) + "/uid-" + std::to_string(i));
    ASSERT_TRUE(comes_to(expected));
    ASSERT_TRUE(eventually([&] { return kube_.open_watches() == 1; }));
  }
  EXPECT_EQ(kube_.lists(), lists);
}

TEST_F(NodeWatchTest, ALedgerThatIsAwayMissesNothing) {
  kube_.create("web-1", "uid-1");
  Watcher watcher(options());
  ASSERT_TRUE(comes_to({"+web-1/uid-1"}));
  ASSERT_TRUE(eventually([&] { return kube_.open_watches() == 1; }));
  server_.stop();
  kube_.create("web-2", "uid-2");
  kube_.remove("web-1");
  ASSERT_TRUE(watcher.said("again"));
  server_.start();
  ASSERT_TRUE(eventually([&] { return story().size() == 3; }));
  EXPECT_THAT(story(), UnorderedElementsAre("+web-1/uid-1", "+web-2/uid-2", "-web-1/uid-1"));
}

// ---- Releases ----------------------------------------------------------------------------------------------

TEST_F(NodeWatchTest, ADeletionReleasesTheNameOnlyWhenTold) {
  ASSERT_EQ(server_.join("web-1", "one").status, 200);
  ASSERT_EQ(server_.join("web-2", "two").status, 200);
  kube_.create("web-1", "uid-1");
  kube_.create("web-2", "uid-2");
  {
    Watcher watcher(options());
    ASSERT_TRUE(comes_to({"+web-1/uid-1", "+web-2/uid-2"}));
    ASSERT_TRUE(eventually([&] { return kube_.open_watches() == 1; }));
    kube_.remove("web-1");
    ASSERT_TRUE(comes_to({"+web-1/uid-1", "+web-2/uid-2", "-web-1/uid-1"}));
  }
  kube_.cut_watches();  // it has not noticed yet that nobody listens to the first
  EXPECT_EQ(server_.join("web-1", "another").status, 403);
  Watcher watcher(options(true));
  ASSERT_TRUE(watcher.said("watching"));
  ASSERT_TRUE(eventually([&] { return kube_.open_watches() == 1; }));
  kube_.remove("web-2");
  ASSERT_TRUE(comes_to({"+web-1/uid-1", "+web-2/uid-2", "-web-1/uid-1", "-web-2/uid-2", "released web-2"}));
  EXPECT_EQ(server_.join("web-2", "another").status, 200);
  EXPECT_EQ(server_.join("web-1", "another").status, 403);
}

TEST_F(NodeWatchTest, ADeletionFoundLaterReleasesTooButNotWhatCameBack) {
  for (const char* node : {"web-1", "web-2", "web-3"}) {
    ASSERT_EQ(server_.join(node, "password").status, 200);
    kube_.create(node, std::string("uid-") + node);
  }
  ASSERT_TRUE(list_once(true));
  // web-1 is deleted; web-2 was deleted and has come back; web-3 stays.
  kube_.replace_all({{"web-2", "uid-new"}, {"web-3", "uid-web-3"}});
  ASSERT_TRUE(list_once(true));
  EXPECT_THAT(story(), ElementsAre("+web-1/uid-web-1", "+web-2/uid-web-2", "+web-3/uid-web-3", "-web-1/uid-web-1",
                                   "released web-1", "-web-2/uid-web-2", "+web-2/uid-new"));
  EXPECT_EQ(server_.join("web-2", "another").status, 403);
}

TEST_F(NodeWatchTest, AHeldNameStaysHeld) {
  ASSERT_EQ(server_.join("web-1", "one").status, 200);
  HttpsRequest hold = test::request_of("POST", "/ledger/v1/nodes/web-1/hold", server_.operator_bearer());
  hold.body = R"({"actor":"me","reason":"test"})";
  ASSERT_EQ(server_.send(hold).status, 200);
  kube_.create("web-1", "uid-1");
  kube_.create("web-2", "uid-2");
  ASSERT_TRUE(list_once(true));
  kube_.remove("web-1");
  ASSERT_TRUE(list_once(true));
  EXPECT_THAT(story(), ElementsAre("+web-1/uid-1", "+web-2/uid-2", "-web-1/uid-1", "released web-1"));
  EXPECT_EQ(server_.join("web-1", "one").status, 403);
}

// ---- What is not believed ----------------------------------------------------------------------------------

TEST_F(NodeWatchTest, AListThatFailsChangesNothing) {
  for (const char* n : {"1", "2", "3"}) {
    ASSERT_EQ(server_.join(std::string("web-") + n, "password").status, 200);
    kube_.create(std::string("web-") + n, std::string("uid-") + n);
  }
  ASSERT_TRUE(list_once(true));
  const std::vector<std::string> before = story();
  const std::vector<std::pair<Fault, std::string>> faults = {{Fault::status_500, "etcdserver: no leader"},
                                                             {Fault::gone_on_second_page, "continue parameter"},
                                                             {Fault::cut_short, "EOF"},
                                                             {Fault::not_json, "not JSON"},
                                                             {Fault::other_kind, "'PodList', not a list of nodes"},
                                                             {Fault::item_without_uid, "no name or uid"},
                                                             {Fault::empty, "no nodes at all, while 3 are known"}};
  for (const auto& [fault, words] : faults) {
    kube_.fail_lists(fault);
    const Result<void> listed = list_once(true);
    ASSERT_FALSE(listed) << words;
    EXPECT_THAT(listed.error().message, HasSubstr(words));
    EXPECT_EQ(story(), before) << words;
  }
  EXPECT_EQ(server_.join("web-1", "another").status, 403);
}

TEST_F(NodeWatchTest, AnotherClusterReleasesNobody) {
  ASSERT_EQ(server_.join("web-1", "password").status, 200);
  kube_.create("web-1", "uid-1");
  ASSERT_TRUE(list_once(true));
  kube_.replace_all({{"other-1", "uid-o"}});
  ASSERT_TRUE(list_once(true));
  EXPECT_THAT(story(), ElementsAre("+web-1/uid-1", "+other-1/uid-o", "-web-1/uid-1"));
  EXPECT_EQ(server_.join("web-1", "another").status, 403);
}

// ---- Who asks ----------------------------------------------------------------------------------------------

TEST_F(NodeWatchTest, ATokenFileIsReadAnew) {
  kube_.create("web-1", "uid-1");
  test::put_file(kube_.directory() / "token", "first\n");
  NodeWatchOptions watch = options();
  watch.kube.path = kube_.kubeconfig("tokenFile: token", "by-file");
  kube_.take_token("second");
  Watcher watcher(watch);
  ASSERT_TRUE(watcher.said("401 Word: Unauthorized"));
  test::put_file(kube_.directory() / "token", "second\n");
  ASSERT_TRUE(comes_to({"+web-1/uid-1"}));
}

TEST_F(NodeWatchTest, AClientCertificateIsAnIdentity) {
  kube_.create("web-1", "uid-1");
  kube_.take_token("nobody-has-this");
  const IssuedCertificate mine = kube_.client_certificate();
  test::put_file(kube_.directory() / "me.crt", mine.leaf_pem);
  test::put_file(kube_.directory() / "me.key", mine.key_pem.reveal());
  NodeWatchOptions by_file = options();
  by_file.kube.path = kube_.kubeconfig("client-certificate: me.crt, client-key: me.key", "by-certificate");
  auto watch = NodeWatch::open(by_file);
  ASSERT_TRUE(watch) << watch.error().message;
  EXPECT_TRUE(watch->list_once());
  NodeWatchOptions by_data = options();
  by_data.kube.path = kube_.kubeconfig("client-certificate-data: " + base64(mine.leaf_pem) +
                                           ", client-key-data: " + base64(std::string(mine.key_pem.reveal())),
                                       "by-data");
  watch = NodeWatch::open(by_data);
  ASSERT_TRUE(watch) << watch.error().message;
  EXPECT_TRUE(watch->list_once());
  EXPECT_EQ(kube_.refusals(), 0);
  EXPECT_THAT(story(), ElementsAre("+web-1/uid-1"));
}

// ---- The operators' API ------------------------------------------------------------------------------------

TEST_F(NodeWatchTest, ReportsAreChecked) {
  const auto post = [&](const std::string& body) {
    HttpsRequest request = test::request_of("POST", "/ledger/v1/node-objects", server_.operator_bearer());
    request.body = body;
    return server_.send(request).status;
  };
  for (const char* body :
       {"", "[]", R"({"changes":[]})", R"({"actor":"me"})", R"({"actor":"me","changes":[],"release":1})",
        R"({"actor":"me","changes":[{"node":"web_1","uid":"u","change":"created"}]})",
        R"({"actor":"me","changes":[{"node":"web-1","uid":"","change":"created"}]})",
        R"({"actor":"me","changes":[{"node":"web-1","uid":"u","change":"renamed"}]})"})
    EXPECT_EQ(post(body), 400) << body;
  EXPECT_EQ(post(R"({"actor":"me","changes":[]})"), 200);
  EXPECT_EQ(server_.get("/ledger/v1/node-objects").status, 401);
  EXPECT_EQ(server_.get("/ledger/v1/node-objects", server_.operator_bearer()).body, "[]\n");
  EXPECT_THAT(story(), IsEmpty());
}

// ---- Inside the server, and the command --------------------------------------------------------------------

TEST(NodeWatchInServe, TheServerWatchesByItself) {
  KubeApi kube;
  kube.create("web-1", "uid-1");
  test::RunningServer server([&](ServerOptions& options) {
    options.watch_nodes.path = kube.kubeconfig("token: kube-token");
    options.release_on_node_delete = true;
  });
  ASSERT_EQ(server.join("web-1", "password").status, 200);
  ASSERT_TRUE(eventually([&] { return server.records_of<NodeObjectCreated>().size() == 1; }));
  ASSERT_TRUE(eventually([&] { return kube.open_watches() == 1; }));
  kube.remove("web-1");
  ASSERT_TRUE(eventually([&] { return server.records_of<BindingReleased>().size() == 1; }));
  EXPECT_TRUE(server.stop());
  EXPECT_EQ(test::broken_promises(*server.log()), std::vector<std::string>());
}

TEST_F(NodeWatchTest, TheCommand) {
  kube_.create("web-1", "uid-1");
  const std::string command = std::string(test::ledger_binary()) + " watch-nodes --once --kubeconfig " +
                              kube_.kubeconfig("token: kube-token").string() + " --data-dir ";
  const auto done = test::run_command(command + server_.data_dir().string());
  EXPECT_EQ(done.status, 0) << done.output;
  EXPECT_THAT(done.output, HasSubstr("1 node objects appeared"));
  EXPECT_THAT(story(), ElementsAre("+web-1/uid-1"));
  test::TempDir nothing;
  const auto alone = test::run_command(command + nothing.path().string());
  EXPECT_EQ(alone.status, 1);
  EXPECT_THAT(alone.output, HasSubstr("ledger serve --watch-nodes-kubeconfig"));
}

}  // namespace
}  // namespace ledger::api
