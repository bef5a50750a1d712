#include "ledger/adopt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cctype>
#include <thread>

#include "ledger/credentials.h"
#include "ledger/event_log.h"
#include "tests/support/k3s_server_dir.h"
#include "tests/support/temp_dir.h"

namespace ledger {
namespace {

namespace fs = std::filesystem;
using test::file_bytes;
using test::K3sServerDir;
using test::mode_of;
using test::put_file;
using test::run_command;
using test::TempDir;
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

// After everything that the openssl command makes during this run, before its ends.
Time soon() { return Time::now().plus_seconds(60); }

// One directory per kind for all tests: keys take their time. Tests that change something copy it.
const K3sServerDir& pristine() {
  static const TempDir dir;
  static const K3sServerDir made(dir / "server");
  return made;
}

class AdoptTest : public testing::Test {
 protected:
  AdoptTest() {
    const auto copied = run_command("cp -a '" + pristine().path().string() + "' '" + server_.string() + "'");
    EXPECT_EQ(copied.status, 0) << copied.output;
  }
  AdoptReport adopt_now(const fs::path& source, const fs::path& data_dir, bool check = false) {
    const Result<AdoptReport> report =
        adopt({.server_dir = source, .data_dir = data_dir, .check = check, .now = soon()});
    if (!report) ADD_FAILURE() << report.error().message;
    return report ? *report : AdoptReport{};
  }
  AdoptReport adopt_now() { return adopt_now(server_, data_dir_); }
  void run(const std::string& command) const {
    const auto result = run_command("cd '" + server_.string() + "' && { " + command + "\n}");
    ASSERT_EQ(result.status, 0) << command << "\n" << result.output;
  }
  std::vector<Record> records() const {
    std::vector<Record> all;
    const auto log = EventLog::follow({.dir = data_dir_ / "events"});
    EXPECT_TRUE(log) << log.error().message;
    if (!log) return all;
    EXPECT_TRUE((*log)->scan(1, UINT64_MAX, [&](Seq, const Result<Record>& record) {
      all.push_back(*record);
      return true;
    }));
    return all;
  }

  TempDir dir_;
  const fs::path server_ = dir_ / "server", data_dir_ = dir_ / "data";
};

// ---- what is taken ---------------------------------------------------------------------------------------

TEST_F(AdoptTest, TakesIdentityByteForByteAndOnlyReads) {
  const std::string before = pristine().listing();
  const AdoptReport report = adopt_now(pristine().path(), data_dir_);
  EXPECT_EQ(report.outcome, AdoptOutcome::adopted);
  EXPECT_THAT(report.problems, IsEmpty());
  EXPECT_EQ(pristine().listing(), before);
  for (const std::string name : {"tls/client-ca.crt", "tls/client-ca.key", "tls/server-ca.crt", "tls/server-ca.key",
                                 "tls/request-header-ca.crt", "tls/request-header-ca.key", "tls/service.key",
                                 "cred/passwd", "cred/ipsec.psk", "token", "node-token", "agent-token"}) {
    EXPECT_EQ(file_bytes(data_dir_ / name), file_bytes(pristine() / name)) << name;
    EXPECT_EQ(mode_of(data_dir_ / name), name.ends_with(".crt") ? 0644 : 0600) << name;
  }
  for (const char* name : {"", "tls", "cred"}) EXPECT_EQ(mode_of(data_dir_ / name), 0700) << name;
  EXPECT_FALSE(fs::exists(data_dir_ / "adoption-unfinished"));
  EXPECT_EQ(report.program, "k3s");
  EXPECT_EQ(report.server_ca.key, "EC P-256");
  EXPECT_EQ(report.token_hash, pristine().raw_hash());
}

TEST_F(AdoptTest, FirstRecordSaysWhereTheMemoryComesFrom) {
  const AdoptReport report = adopt_now();
  const std::vector<Record> all = records();
  ASSERT_THAT(all, SizeIs(1));
  EXPECT_EQ(report.record, 1u);
  ASSERT_NE(as<EpochStarted>(all[0]), nullptr);
  EXPECT_EQ(as<EpochStarted>(all[0])->cause, "imported");
  const std::string digest = run_command("openssl x509 -noout -fingerprint -sha256 -in '" +
                                         (server_ / "tls/server-ca.crt").string() + "' | tr -d : | tr A-F a-f")
                                 .output;
  EXPECT_THAT(all[0].note, AllOf(HasSubstr("the k3s server directory " + server_.string()),
                                 HasSubstr("k3s-server-ca@1700000000"), HasSubstr("k3s-client-ca@1700000000"),
                                 HasSubstr(report.server_ca.sha256), HasSubstr(report.client_ca.sha256)));
  EXPECT_THAT(digest, HasSubstr(report.server_ca.sha256));
}

TEST_F(AdoptTest, ListenerNamesComeFromBothCertificates) {
  adopt_now();
  const auto names = adopted_listener_names(data_dir_);
  ASSERT_TRUE(names);
  EXPECT_THAT(*names, ElementsAre("10.0.0.5", "kubernetes", "old.example.org", "::1", "localhost",
                                  "api.example.org", "10.43.0.1", "127.0.0.1", "10.9.8.7", "fd00::7"));
  EXPECT_THAT(file_bytes(data_dir_ / "tls/listener-names"), Not(HasSubstr("c2VjcmV0")));
}

TEST_F(AdoptTest, NamesThatNoCertificateCanHaveAreLeftOut) {
  std::string annotations;
  for (int i = 0; i < 300; ++i)
    annotations +=
        R"("listener.cattle.io/cn-n)" + std::to_string(i) + R"(": "n)" + std::to_string(i) + R"(.example",)";
  put_file(server_ / "tls/dynamic-cert.json",
           R"({"listener.cattle.io/cn-x":"bad name","listener.cattle.io/cn-y":"","listener.cattle.io/cn-cut)");
  AdoptReport report = adopt_now(server_, data_dir_, true);
  EXPECT_THAT(report.notes, Contains(HasSubstr("2 names")));
  EXPECT_THAT(report.names, Not(Contains("bad name")));
  put_file(server_ / "tls/dynamic-cert.json", "{" + annotations + "}");
  report = adopt_now(server_, data_dir_, true);
  EXPECT_THAT(report.names, SizeIs(256));
  EXPECT_THAT(report.notes, Contains(HasSubstr("more than 256")));
  run("rm tls/dynamic-cert.json tls/serving-kube-apiserver.crt");
  report = adopt_now();
  EXPECT_THAT(report.notes, Contains(HasSubstr("--tls-san")));
  EXPECT_EQ(report.outcome, AdoptOutcome::adopted);
  EXPECT_THAT(*adopted_listener_names(data_dir_), IsEmpty());
}

TEST(AdoptedListenerNames, BadLineIsNamed) {
  const TempDir dir;
  fs::create_directory(dir / "tls");
  put_file(dir / "tls/listener-names", "one.example\r\n\n 10.0.0.1 \nno good\n");
  const auto names = adopted_listener_names(dir.path());
  ASSERT_FALSE(names);
  EXPECT_THAT(names.error().message, AllOf(HasSubstr("listener-names"), HasSubstr("line 4")));
  put_file(dir / "tls/listener-names", "one.example\r\n\n 10.0.0.1 ");
  EXPECT_THAT(*adopted_listener_names(dir.path()), ElementsAre("one.example", "10.0.0.1"));
}

TEST_F(AdoptTest, TheDirectoryAboveWillDo) {
  EXPECT_EQ(adopt_now(dir_.path(), data_dir_).outcome, AdoptOutcome::adopted);
}

TEST_F(AdoptTest, CheckWritesNothing) {
  const AdoptReport report = adopt_now(server_, data_dir_, true);
  EXPECT_EQ(report.outcome, AdoptOutcome::ready);
  EXPECT_FALSE(fs::exists(data_dir_));
  EXPECT_THAT(report.files, Contains("tls/server-ca.key"));
}

// The link that k3s makes names the live directory; what is meant in a copy is the copy.
TEST_F(AdoptTest, AbsoluteLinkOfACopyMeansTheCopy) {
  run("ln -sfn /nowhere/k3s/server/token node-token");
  put_file(dir_ / "token", "K10::server:of-another-server\n");
  run("ln -sfn '" + (dir_ / "token").string() + "' agent-token");
  EXPECT_EQ(adopt_now().outcome, AdoptOutcome::adopted);
}

TEST_F(AdoptTest, WhatIsNotNeededMayBeMissing) {
  run("rm tls/request-header-ca.* tls/service.key token node-token agent-token cred/ipsec.psk");
  const AdoptReport report = adopt_now();
  EXPECT_EQ(report.outcome, AdoptOutcome::adopted);
  EXPECT_THAT(report.notes, AllOf(Contains(HasSubstr("tls/service.key")), Contains(HasSubstr("ipsec.psk")),
                                  Contains(HasSubstr("no token file"))));
  EXPECT_EQ(file_bytes(data_dir_ / "token"), file_bytes(pristine() / "token")) << "made anew, the same";
}

TEST_F(AdoptTest, Rke2IsTold) {
  run("sed -i 's/k3s:/rke2:/' cred/passwd");
  EXPECT_EQ(adopt_now().program, "rke2");
  EXPECT_EQ(file_bytes(data_dir_ / "cred/passwd"), file_bytes(server_ / "cred/passwd"));
}

// ---- what is refused -------------------------------------------------------------------------------------

struct Broken {
  const char* name;
  std::string command;  // in the server directory
  std::string where, why;
};

class RefusedServerDir : public AdoptTest, public testing::WithParamInterface<Broken> {};

TEST_P(RefusedServerDir, IsReportedAndNothingWritten) {
  run(GetParam().command);
  for (const bool check : {true, false}) {
    const AdoptReport report = adopt_now(server_, data_dir_, check);
    EXPECT_EQ(report.outcome, AdoptOutcome::refused);
    ASSERT_THAT(report.problems, SizeIs(1));
    EXPECT_THAT(report.problems[0],
                AllOf(HasSubstr(GetParam().where), HasSubstr(GetParam().why), Not(HasSubstr("\n")),
                      Not(HasSubstr(pristine().options().password)), Not(HasSubstr("hunter2"))));
    EXPECT_FALSE(fs::exists(data_dir_));
  }
}

std::string authority(const std::string& key_command, const std::string& more = "") {
  return key_command +
         " && openssl req -new -x509 -key tls/client-ca.key -subj /CN=x -days 99 -out tls/client-ca.crt " + more;
}

INSTANTIATE_TEST_SUITE_P(
    Faults, RefusedServerDir,
    testing::Values(
        Broken{"no_key", "rm tls/server-ca.key", "/tls/server-ca.key' does not exist", "as root"},
        Broken{"no_certificate", "rm tls/client-ca.crt", "/tls/client-ca.crt' does not exist", "old CA"},
        Broken{"other_key", "cp tls/client-ca.key tls/server-ca.key", "/tls/server-ca.key'", "is not the key of"},
        Broken{
            "encrypted_key",
            "openssl ec -aes128 -passout pass:hunter2 -in tls/client-ca.key -out k 2>&1 && mv k tls/client-ca.key",
            "/tls/client-ca.key'", "encrypted"},
        Broken{"ed25519", authority("openssl genpkey -algorithm ed25519 -out tls/client-ca.key"),
               "/tls/client-ca.key'", "neither an EC nor an RSA key"},
        Broken{"foreign_curve", authority("openssl ecparam -name secp256k1 -genkey -noout -out tls/client-ca.key"),
               "/tls/client-ca.key'", "curve"},
        Broken{"short_rsa", authority("openssl genrsa -out tls/client-ca.key 1024 2>&1"), "/tls/client-ca.key'",
               "2048"},
        Broken{"no_ca",
               authority("openssl genrsa -out tls/client-ca.key 2048 2>&1", "-addext basicConstraints=CA:FALSE"),
               "/tls/client-ca.crt'", "not a CA"},
        Broken{"no_passwd", "rm cred/passwd", "/cred/passwd' does not exist", "passwords of the tokens"},
        Broken{"unreadable_passwd", "echo hunter2,node > cred/passwd", "/cred/passwd'", "line 1"},
        Broken{"passwd_is_a_directory", "rm cred/passwd && mkdir cred/passwd", "/cred/passwd'",
               "not a regular file"},
        Broken{"no_node_line", "sed -i /node,node/d cred/passwd", "/cred/passwd'", "no line for user `node`"},
        Broken{"no_server_line", "sed -i /server,server/d cred/passwd && rm token node-token agent-token",
               "/cred/passwd'", "no line for user `server`"},
        Broken{"agent_token_of_another_password",
               "rm agent-token && sed 's/server:.*/node:hunter2/' token > agent-token", "/agent-token'",
               "another password"},
        Broken{"agent_token_of_another_ca", "rm agent-token && sed 's/K10..../K10abcd/' token > agent-token",
               "/agent-token'", "CA hash"},
        Broken{"node_token_garbage", "rm node-token && echo K10hunter2 > node-token", "/node-token'", "'::'"},
        Broken{"psk", "echo hunter2 > cred/ipsec.psk", "/cred/ipsec.psk'", "hex"},
        Broken{"link_outside", "mv tls/server-ca.key .. && ln -s ../../server-ca.key tls/server-ca.key",
               "/tls/server-ca.key'", "outside"},
        Broken{"link_to_nothing", "rm cred/passwd && ln -s nothing cred/passwd", "/cred/passwd'", "nothing"}),
    [](const auto& row) { return row.param.name; });

TEST_F(AdoptTest, EveryProblemIsReportedAtOnce) {
  run("rm tls/client-ca.key && cp tls/request-header-ca.key tls/server-ca.key && sed -i /node,node/d cred/passwd "
      "&& "
      "sed -i 's/K10..../K10abcd/; s/server:.*/server:hunter2/' token && echo x > cred/ipsec.psk");
  fs::create_directories(data_dir_ / "tls");
  put_file(data_dir_ / "tls/server-ca.crt", "another");
  const AdoptReport report = adopt_now();
  EXPECT_EQ(report.outcome, AdoptOutcome::refused);
  EXPECT_THAT(
      report.problems,
      AllOf(Contains(HasSubstr("/tls/client-ca.key' does not exist")), Contains(HasSubstr("not the key of")),
            Contains(HasSubstr("no line for user `node`")), Contains(HasSubstr("/token' has the CA hash abcd")),
            Contains(HasSubstr("/token' has another password")), Contains(HasSubstr("ipsec.psk")),
            Contains(HasSubstr("is in use: other contents in tls/server-ca.crt"))));
  EXPECT_THAT(report.problems, Each(Not(HasSubstr("hunter2"))));
  EXPECT_EQ(file_bytes(data_dir_ / "tls/server-ca.crt"), "another");
  EXPECT_FALSE(fs::exists(data_dir_ / "cred"));
}

TEST_F(AdoptTest, AuthoritiesAreValidNow) {
  for (const auto& [now, why] : {std::pair{soon().plus_seconds(11LL * 365 * 86400), "expired at"},
                                 std::pair{soon().plus_seconds(-86400), "is not valid before"}}) {
    const auto report = adopt({.server_dir = server_, .data_dir = data_dir_, .check = false, .now = now});
    ASSERT_TRUE(report);
    EXPECT_THAT(report->problems,
                ElementsAre(AllOf(HasSubstr("client-ca.crt"), HasSubstr(why), HasSubstr("clock")),
                            AllOf(HasSubstr("server-ca.crt"), HasSubstr(why), HasSubstr("clock"))));
  }
}

TEST_F(AdoptTest, OtherDirectoriesAreToldForWhatTheyAre) {
  const auto why = [&](const fs::path& source, const fs::path& target) {
    const AdoptReport report = adopt_now(source, target);
    EXPECT_EQ(report.outcome, AdoptOutcome::refused);
    return report.problems.size() == 1 ? report.problems[0] : "not one problem";
  };
  EXPECT_THAT(why(dir_ / "nothing", data_dir_), HasSubstr("No such file"));
  EXPECT_THAT(why(server_ / "token", data_dir_), HasSubstr("not a directory"));
  EXPECT_THAT(why(dir_ / "server/made", data_dir_), HasSubstr("neither tls nor cred"));
  EXPECT_THAT(why(server_ / "tls", data_dir_), HasSubstr("name the directory above"));
  EXPECT_THAT(why(server_, server_ / "data"), HasSubstr("inside of the server directory"));
  fs::create_directories(dir_ / "k3s/agent");
  put_file(dir_ / "k3s/agent/client-kubelet.crt", "x");
  put_file(dir_ / "k3s/agent/client-ca.crt", "x");
  EXPECT_THAT(why(dir_ / "k3s/agent", data_dir_), HasSubstr("an agent's directory"));
  EXPECT_THAT(why(dir_ / "k3s", data_dir_), HasSubstr("an agent's directory"));
  adopt_now();
  EXPECT_THAT(why(data_dir_, dir_ / "other"), HasSubstr("the data directory of a ledger"));
}

// ---- again and again -------------------------------------------------------------------------------------

TEST_F(AdoptTest, SecondTimeThereIsNothingToDo) {
  adopt_now();
  const std::string key = file_bytes(data_dir_ / "cred/fingerprint.key");
  for (const bool check : {true, false})
    EXPECT_EQ(adopt_now(server_, data_dir_, check).outcome, AdoptOutcome::already);
  EXPECT_THAT(records(), SizeIs(1));
  EXPECT_EQ(file_bytes(data_dir_ / "cred/fingerprint.key"), key);
  EXPECT_THAT(adopt_now().new_names, IsEmpty());
  run("sed -i 's/^[0-9a-f]*,node/other,node/' cred/passwd && rm agent-token");
  const AdoptReport changed = adopt_now();
  EXPECT_THAT(changed.problems,
              ElementsAre(AllOf(HasSubstr("is in use"), HasSubstr("cred/passwd"), Not(HasSubstr("server-ca")))));
}

// The listener of a living server goes on to collect names, which agents meanwhile use.
TEST_F(AdoptTest, NamesThatCameSinceAreAdded) {
  adopt_now();
  const fs::path file = data_dir_ / "tls/listener-names";
  put_file(file, file_bytes(file) + "vip.example.org\n");  // an operator's
  const std::string before = file_bytes(file);
  run("sed -i s/old.example.org/new.example.org/g tls/dynamic-cert.json");
  AdoptReport report = adopt_now(server_, data_dir_, true);
  EXPECT_EQ(report.outcome, AdoptOutcome::already);
  EXPECT_THAT(report.new_names, ElementsAre("new.example.org"));
  EXPECT_EQ(file_bytes(file), before) << "only looked";
  const auto holder = EventLog::open({.dir = data_dir_ / "events"});
  ASSERT_TRUE(holder) << "a running server";
  report = adopt_now();
  EXPECT_THAT(report.new_names, ElementsAre("new.example.org"));
  EXPECT_EQ(file_bytes(file), before + "new.example.org\n");
  EXPECT_THAT(adopt_now().new_names, IsEmpty());

  // Strangers can add names to a listener's certificate: there is an end to what is taken.
  std::string annotations;
  for (int i = 0; i < 250; ++i)
    annotations +=
        R"("listener.cattle.io/cn-n)" + std::to_string(i) + R"(": "n)" + std::to_string(i) + R"(.example",)";
  put_file(server_ / "tls/dynamic-cert.json", "{" + annotations + "}");
  adopt_now();
  EXPECT_THAT(*adopted_listener_names(data_dir_), SizeIs(256));
  put_file(file, "no good\n");
  const auto refused = adopt({.server_dir = server_, .data_dir = data_dir_, .check = false, .now = soon()});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("line 1"));
}

TEST_F(AdoptTest, LogWithoutIdentityIsNoFreshDirectory) {
  adopt_now();
  fs::remove_all(data_dir_ / "tls");
  const AdoptReport report = adopt_now();
  EXPECT_THAT(report.problems, ElementsAre(HasSubstr("has a log, but not tls/client-ca.crt")));
}

TEST_F(AdoptTest, DirectoryInUseIsLeftAlone) {
  adopt_now();
  const auto holder = EventLog::open({.dir = data_dir_ / "events"});
  ASSERT_TRUE(holder);
  EXPECT_EQ(adopt_now().outcome, AdoptOutcome::already) << "what is there needs no lock";
  fs::create_directory(dir_ / "second");
  const auto second = EventLog::open({.dir = dir_ / "second/events"});
  ASSERT_TRUE(second);
  const auto refused = adopt({.server_dir = server_, .data_dir = dir_ / "second", .check = false, .now = soon()});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::locked);
  EXPECT_FALSE(fs::exists(dir_ / "second/tls"));
}

// Writing fails at each file in turn, as a crash would end it there: what is left says so, and is made good.
class InterruptedAdoption : public AdoptTest, public testing::WithParamInterface<const char*> {};

TEST_P(InterruptedAdoption, IsNoticedAndRepeated) {
  // Nothing can be written by way of a temporary file that is a directory.
  const fs::path obstacle = data_dir_ / (std::string(GetParam()) + ".tmp");
  fs::create_directories(obstacle);
  const auto stopped = adopt({.server_dir = server_, .data_dir = data_dir_, .check = false, .now = soon()});
  ASSERT_FALSE(stopped);
  EXPECT_THAT(stopped.error().message, HasSubstr(obstacle.string()));
  const auto start = check_adoption(data_dir_);
  if (std::string_view(GetParam()) == "adoption-unfinished") {
    EXPECT_TRUE(start) << "nothing was written yet";
    EXPECT_FALSE(fs::exists(data_dir_ / "tls"));
  } else {
    ASSERT_FALSE(start);
    EXPECT_THAT(start.error().message, HasSubstr("run `ledger adopt` again"));
  }
  fs::remove(obstacle);
  put_file(obstacle, "left by a crash");
  EXPECT_EQ(adopt_now().outcome, AdoptOutcome::adopted);
  EXPECT_TRUE(check_adoption(data_dir_));
  EXPECT_FALSE(fs::exists(obstacle));
  EXPECT_THAT(records(), SizeIs(1));
  EXPECT_EQ(file_bytes(data_dir_ / "cred/passwd"), file_bytes(server_ / "cred/passwd"));
  EXPECT_EQ(adopt_now().outcome, AdoptOutcome::already);
}

INSTANTIATE_TEST_SUITE_P(Files, InterruptedAdoption,
                         testing::Values("adoption-unfinished", "cred/ipsec.psk", "cred/passwd",
                                         "tls/client-ca.crt", "tls/client-ca.key", "tls/server-ca.crt",
                                         "tls/server-ca.key", "tls/listener-names", "cred/fingerprint.key",
                                         "cred/operator-token", "token", "node-token", "agent-token"),
                         [](const auto& row) {
                           std::string name = row.param;
                           for (char& c : name)
                             if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
                           return name;
                         });

TEST_F(AdoptTest, InterruptedAfterTheRecordItIsNotRepeated) {
  adopt_now();
  put_file(data_dir_ / "adoption-unfinished", "");
  ASSERT_FALSE(check_adoption(data_dir_));
  const AdoptReport report = adopt_now();
  EXPECT_EQ(report.outcome, AdoptOutcome::adopted);
  EXPECT_EQ(report.record, 1u);
  EXPECT_THAT(records(), SizeIs(1));
}

TEST_F(AdoptTest, InterruptedAdoptionOfAnotherServerIsReplaced) {
  const K3sServerDir other(dir_ / "other");
  adopt_now(other.path(), data_dir_);
  put_file(data_dir_ / "adoption-unfinished", "");
  EXPECT_EQ(adopt_now().outcome, AdoptOutcome::adopted);
  EXPECT_EQ(file_bytes(data_dir_ / "tls/server-ca.crt"), file_bytes(server_ / "tls/server-ca.crt"));
  const std::vector<Record> all = records();
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_THAT(all[1].note, HasSubstr(server_.string()));
}

// ---- a server that lives ---------------------------------------------------------------------------------

TEST_F(AdoptTest, FilesBeingRewrittenAreReadWhole) {
  const std::string token = file_bytes(server_ / "token"), passwd = file_bytes(server_ / "cred/passwd");
  std::atomic<bool> stop{false};
  std::atomic<int> rounds{0};
  std::thread k3s([&] {
    for (; !stop; ++rounds) {
      put_file(server_ / "token", token);  // truncated, then written
      put_file(server_ / "cred/passwd.tmp", passwd);
      fs::rename(server_ / "cred/passwd.tmp", server_ / "cred/passwd");
      // Far more often than any server does it, and not so often that nothing ever stands still on a busy machine.
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
  for (int i = 0; i < 10; ++i) EXPECT_THAT(adopt_now(server_, data_dir_, true).problems, IsEmpty());
  EXPECT_EQ(adopt_now().outcome, AdoptOutcome::adopted);
  stop = true;
  k3s.join();
  EXPECT_GT(rounds, 1);
  EXPECT_EQ(file_bytes(data_dir_ / "cred/passwd"), passwd);
  EXPECT_EQ(file_bytes(data_dir_ / "token"), token);
}

TEST_F(AdoptTest, FileThatStaysEmptyIsAProblem) {
  run(": > token");
  EXPECT_THAT(adopt_now().problems, ElementsAre(HasSubstr("/token': token is empty"), HasSubstr("/node-token'"),
                                                HasSubstr("/agent-token'")));
}

// ---- the hash in the token files -------------------------------------------------------------------------

TEST(TokenHashFor, KeepsTheRawHashWhereTheTokenHasIt) {
  const TempDir dir;
  K3sServerDir::Options options;
  options.bundle = true;
  const K3sServerDir server(dir / "server", options);
  const auto issuer = Issuer::open(server.path(), soon(), true);
  ASSERT_TRUE(issuer) << issuer.error().message;
  const std::string raw = server.raw_hash(), root = server.root_hash();
  ASSERT_NE(raw, root);
  EXPECT_EQ(token_hash_for(server.path(), *issuer), root);
  for (const auto& [text, expected] : {std::pair{"K10" + raw + "::server:x\n", raw},
                                       {"K10" + root + "::server:x", root},
                                       {"K10::server:x", root},
                                       {"K10" + std::string(64, '0') + "::server:x", root},
                                       {"", root}}) {
    server.put_secret("token", text);
    EXPECT_EQ(token_hash_for(server.path(), *issuer), expected) << text;
  }
  fs::remove(server / "token");
  EXPECT_EQ(token_hash_for(server.path(), *issuer), root);
}

}  // namespace
}  // namespace ledger
