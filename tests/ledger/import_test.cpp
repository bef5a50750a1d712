// Whole imports: a file's bytes in, the ledger's records out.
#include "ledger/import.h"

#include <gmock/gmock.h>

#include "ledger/credentials.h"
#include "ledger/event_json.h"
#include "ledger/import_read.h"
#include "ledger/node_hash.h"
#include "tests/support/ledger_fixture.h"

namespace ledger::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Fingerprint fingerprint_of(const Secret& password) { return {sha256_hex(password.reveal()).substr(0, 32)}; }
Fingerprint fingerprint_of(const char* password) { return fingerprint_of(Secret(password)); }

const std::string kKey(86, 'A');
std::string hash_text(const char* salt) { return "$1:" + std::string(salt) + ":15:8:1:" + kKey; }

std::string secret_json(const std::string& name, const std::string& hash, const std::string& more = "") {
  return R"({"kind":"Secret","metadata":{"name":")" + name + R"(","namespace":"kube-system")" + more +
         R"(},"data":{"hash":")" + base64(hash) + R"("}})";
}
std::string list_of(const std::string& items) { return R"({"kind":"List","items":[)" + items + "]}"; }

class ImportTest : public LedgerTest {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(dir_ / "cred");
    hashes_.emplace(std::move(*HashStore::open(dir_.path())));
    open();
  }
  Result<ImportOutcome> import(ImportKind kind, std::string_view text, bool overwrite = false) {
    ImportInput input = ImportInput::of_text(text);
    ImportOutcome total;
    Importer importer(*ledger_, *hashes_,
                      {.kind = kind, .file = input.sha256(), .actor = "ops", .overwrite = overwrite});
    ImportSink sink;
    sink.entries = [&](std::vector<ImportEntry> entries) -> Result<void> {
      // As they travel to a running server, too.
      for (ImportEntry& entry : entries) {
        Result<ImportEntry> again = import_entry_from_json(kind, to_json_line(entry));
        if (!again) return again.error();
        entry = std::move(*again);
      }
      Result<ImportOutcome> part = importer.add(entries);
      if (!part) return part.error();
      total.used += part->used, total.known += part->known;
      for (LeftOut& one : part->left_out) total.left_out.push_back(std::move(one));
      return {};
    };
    sink.left_out = [&](LeftOut one) { total.left_out.push_back(std::move(one)); };
    const auto fingerprint = [](const Secret& password) { return fingerprint_of(password); };
    if (const Result<void> read = read_import(kind, input, fingerprint, sink); !read) return read.error();
    const Result<Committed> finished =
        importer.finish(total.used + total.known, static_cast<std::int64_t>(total.left_out.size()));
    if (!finished) return finished.error();
    return total;
  }
  // "used known left_out"
  std::string counts(ImportKind kind, std::string_view text, bool overwrite = false) {
    last_ = import(kind, text, overwrite);
    if (!last_) return last_.error().message;
    return std::to_string(last_->used) + " " + std::to_string(last_->known) + " " +
           std::to_string(last_->left_out.size());
  }
  std::vector<std::string> reasons() const {
    std::vector<std::string> all;
    for (const LeftOut& one : last_->left_out)
      all.push_back(std::to_string(one.line) + " " + one.node + ": " + one.why);
    return all;
  }
  std::string error_of(ImportKind kind, std::string_view text) {
    const Result<ImportOutcome> outcome = import(kind, text);
    return outcome ? "no error" : outcome.error().message;
  }

  std::optional<HashStore> hashes_;
  Result<ImportOutcome> last_ = ImportOutcome{};
};

// ---- node-passwd -----------------------------------------------------------------------------------------

TEST_F(ImportTest, NodePasswdBindsNamesToFingerprints) {
  EXPECT_EQ(counts(ImportKind::node_passwd, "p1,web-1,web-1,\np2,WEB-2,web-2,\n"), "2 0 0");
  EXPECT_EQ(ledger_->find("web-1").bound, fingerprint_of("p1"));
  EXPECT_EQ(ledger_->find("web-2").bound, fingerprint_of("p2"));
  const Record record = records().front();
  EXPECT_EQ(as<BindingImported>(record)->origin, "node-passwd");
  EXPECT_EQ(as<BindingImported>(record)->file.size(), 64U);
  EXPECT_EQ(as<ImportFinished>(records().back())->used, 2);
  EXPECT_EQ(registers("web-1", fingerprint_of("p1").text), Ruling::admit_known);
  EXPECT_EQ(registers("web-2", fingerprint_of("p1").text), Ruling::refuse_mismatch);
}

TEST_F(ImportTest, TheSameFileAgainChangesNothing) {
  const char* file = "p1,web-1,web-1,\np1,web-1,web-1,\np2,web-2,web-2,\n";
  EXPECT_EQ(counts(ImportKind::node_passwd, file), "2 1 0");
  const Seq version = ledger_->find("web-1").version;
  EXPECT_EQ(counts(ImportKind::node_passwd, file), "0 3 0");
  EXPECT_EQ(ledger_->find("web-1").version, version);
}

TEST_F(ImportTest, FirstWinsUnlessToldOtherwise) {
  registers("web-1", fingerprint_of("mine").text);
  EXPECT_EQ(counts(ImportKind::node_passwd, "p1,web-1,web-1,\np2,web-2,web-2,\np3,web-2,web-2,\n"), "1 0 2");
  EXPECT_THAT(reasons(), ElementsAre(HasSubstr("1 web-1: bound here to another password since record 1"),
                                     HasSubstr("3 web-2: bound here to another password")));
  EXPECT_EQ(ledger_->find("web-1").bound, fingerprint_of("mine"));
  EXPECT_EQ(counts(ImportKind::node_passwd, "p1,web-1,web-1,\n", true), "1 0 0");
  EXPECT_EQ(ledger_->find("web-1").bound, fingerprint_of("p1"));
  const std::vector<Record> all = records();
  const auto* changed = as<BindingChanged>(all[all.size() - 2]);
  ASSERT_NE(changed, nullptr);
  EXPECT_EQ(changed->by, "import");
  EXPECT_EQ(changed->from, fingerprint_of("mine"));
}

TEST_F(ImportTest, AnOperatorsWordStandsAboveAnImport) {
  append_ok(BindingHeld{"ops"}, "held-1");
  registers("gone-1", "aa");
  append_ok(BindingReleased{.actor = "ops", .by = "operator", .fingerprint = {"aa"}}, "gone-1");
  const char* file = "p1,held-1,held-1,\np2,gone-1,gone-1,\n";
  EXPECT_EQ(counts(ImportKind::node_passwd, file), "0 0 2");
  EXPECT_THAT(reasons(), ElementsAre(HasSubstr("held by an operator"), HasSubstr("released here")));
  EXPECT_EQ(counts(ImportKind::node_passwd, file, true), "1 0 1");
  EXPECT_FALSE(ledger_->find("held-1").is_bound());
  EXPECT_EQ(ledger_->find("gone-1").bound, fingerprint_of("p2"));
}

TEST_F(ImportTest, BadLinesAreNamedAndNeverRepeated) {
  const std::string long_line(20000, 'x');
  EXPECT_EQ(counts(ImportKind::node_passwd, "topsecret\ntop\"secret,web-1,\n,web-2,web-2,\ntopsecret,not a name,x,\n" +
                                                long_line + "\n topsecret,web-3,web-3\n" +
                                                std::string(2000, 's') + ",web-4,web-4,\n\"topsecret\n ok,web-5,web-5,"
                                                "\nok,web-6,web-6,\n"),
            "1 0 9");
  for (const std::string& why : reasons()) EXPECT_EQ(why.find("secret"), std::string::npos) << why;
  EXPECT_THAT(reasons()[4], HasSubstr("5 : is longer than"));
  EXPECT_TRUE(ledger_->find("web-6").is_bound());
}

TEST_F(ImportTest, RecordsThatCrossThePartsOfAFile) {
  std::string file;
  for (int i = 0; i < 20000; ++i) {
    const std::string n = std::to_string(i);
    file += std::string(32 + static_cast<std::size_t>(i % 7), 'p') + n + ",node-" + n + ",node-" + n + ",\n";
  }
  EXPECT_EQ(counts(ImportKind::node_passwd, file), "20000 0 0");
  EXPECT_EQ(counts(ImportKind::node_passwd, file), "0 20000 0");
}

// ---- Secrets ---------------------------------------------------------------------------------------------

TEST_F(ImportTest, SecretsBindByHash) {
  const std::string file = list_of(secret_json("web-1.node-password.k3s", hash_text("00")) + "," +
                                   secret_json("web-2.node-password.rke2", hash_text("01")) + "," +
                                   secret_json("sh.helm.release.v1.traefik", "x"));
  EXPECT_EQ(counts(ImportKind::secrets, file), "2 0 0");
  EXPECT_TRUE(ledger_->find("web-1").bound_by_hash);
  EXPECT_EQ(hashes_->find("web-2", ledger_->find("web-2")).reveal(), hash_text("01"));
  EXPECT_EQ(counts(ImportKind::secrets, file), "0 2 0");
  for (const Record& record : records())
    EXPECT_EQ(to_json_line(record).find(kKey), std::string::npos);
}

TEST_F(ImportTest, SecretsNeverReplaceWhatIsBound) {
  registers("web-1", "aa");
  ASSERT_EQ(counts(ImportKind::secrets, secret_json("web-2.node-password.k3s", hash_text("00"))), "1 0 0");
  const std::string file = list_of(secret_json("web-1.node-password.k3s", hash_text("00")) + "," +
                                   secret_json("web-2.node-password.k3s", hash_text("01")));
  EXPECT_EQ(counts(ImportKind::secrets, file), "0 0 2");
  EXPECT_THAT(reasons(), ElementsAre(HasSubstr("1 web-1: bound here to a password"),
                                     HasSubstr("2 web-2: bound here by another hash")));
  EXPECT_EQ(hashes_->find("web-2", ledger_->find("web-2")).reveal(), hash_text("00"));
  EXPECT_EQ(counts(ImportKind::secrets, file, true), "2 0 0");
  EXPECT_EQ(hashes_->find("web-2", ledger_->find("web-2")).reveal(), hash_text("01"));
  EXPECT_TRUE(ledger_->find("web-1").bound_by_hash);
}

TEST_F(ImportTest, AVerifiedHashIsKnownWhenItIsImportedAgain) {
  const std::string file = secret_json("web-1.node-password.k3s", hash_text("00"));
  ASSERT_EQ(counts(ImportKind::secrets, file), "1 0 0");
  append_ok(PasswordVerified{{"aa"}}, "web-1");
  ASSERT_TRUE(hashes_->belongs_to("web-1", {"aa"}));
  EXPECT_EQ(counts(ImportKind::secrets, file), "0 1 0");
}

TEST_F(ImportTest, ALostHashIsBroughtBack) {
  const std::string file = secret_json("web-1.node-password.k3s", hash_text("00"));
  ASSERT_EQ(counts(ImportKind::secrets, file), "1 0 0");
  const Seq version = ledger_->find("web-1").version;
  std::filesystem::remove(dir_ / "cred" / "node-password-hashes");
  hashes_.emplace(std::move(*HashStore::open(dir_.path())));
  EXPECT_EQ(counts(ImportKind::secrets, file), "1 0 0");
  EXPECT_TRUE(hashes_->has("web-1", ledger_->find("web-1")));
  EXPECT_EQ(ledger_->find("web-1").version, version);
}

TEST_F(ImportTest, SecretsThatCannotBeUsed) {
  const std::string ok = hash_text("00");
  EXPECT_EQ(counts(ImportKind::secrets,
                   list_of("7," + secret_json("web-1.node-password.k3s", "$1:00:30:8:1:" + kKey) + "," +
                           secret_json("web-2.node-password.k3s", ok, R"(,"deletionTimestamp":"2024-01-01T00:00:00Z")") +
                           R"(,{"kind":"Secret","metadata":{"name":"web-3.node-password.k3s"},"data":{}},)" +
                           R"({"kind":"Secret","metadata":{"name":"web-4.node-password.k3s"},"data":{"hash":"!!"}},)" +
                           R"({"kind":"ConfigMap","metadata":{"name":"x"}},)" +
                           secret_json("web-5.node-password.k3s", ok))),
            "1 0 6");
  EXPECT_THAT(reasons()[1], HasSubstr("scrypt parameters"));
  EXPECT_THAT(reasons()[5], HasSubstr("6 : is a ConfigMap, not a Secret"));
}

TEST_F(ImportTest, DocumentsThatAreNone) {
  EXPECT_THAT(error_of(ImportKind::secrets, ""), HasSubstr("ends too early"));
  EXPECT_THAT(error_of(ImportKind::secrets, "{\"kind\":\n\"List\""), HasSubstr("ends too early (line 2"));
  EXPECT_THAT(error_of(ImportKind::secrets, "{\n\n]"), HasSubstr("not JSON (line 3"));
  EXPECT_THAT(error_of(ImportKind::secrets, "{} x"), HasSubstr("not JSON"));
  EXPECT_THAT(error_of(ImportKind::secrets, "[]"), HasSubstr("no Kubernetes object"));
  EXPECT_THAT(error_of(ImportKind::secrets, R"({"kind":"NodeList","items":[]})"), HasSubstr("a NodeList"));
  EXPECT_THAT(error_of(ImportKind::secrets, std::string(1000, '[')), HasSubstr("not JSON"));
  EXPECT_THAT(error_of(ImportKind::nodes, R"({"kind":"List","items":{}})"), HasSubstr("kubectl get nodes"));
}

// ---- Nodes -----------------------------------------------------------------------------------------------

TEST_F(ImportTest, NodesAreRecordedOncePerUid) {
  const auto node = [](const char* uid) {
    return R"({"kind":"NodeList","items":[{"metadata":{"name":"web-1","uid":")" + std::string(uid) +
           R"(","creationTimestamp":"2024-01-02T03:04:05Z"}}]})";
  };
  EXPECT_EQ(counts(ImportKind::nodes, node("u1")), "1 0 0");
  const Record record = records().front();
  EXPECT_EQ(as<NodeObjectCreated>(record)->uid, "u1");
  EXPECT_EQ(record.first_time, *Time::parse("2024-01-02T03:04:05Z"));
  EXPECT_THAT(record.note, HasSubstr("created 2024-01-02T03:04:05Z"));
  EXPECT_EQ(counts(ImportKind::nodes, node("u1")), "0 1 0");
  EXPECT_EQ(counts(ImportKind::nodes, node("u2")), "1 0 0");
  append_ok(NodeObjectDeleted{.actor = "watch", .uid = "u2"}, "web-1");
  EXPECT_EQ(counts(ImportKind::nodes, node("u2")), "0 0 1");
  EXPECT_EQ(counts(ImportKind::nodes, R"({"kind":"List","items":[{"kind":"Node","metadata":{"name":"a"}}]})"), "0 0 1");
}

// ---- logs ------------------------------------------------------------------------------------------------

TEST_F(ImportTest, ALogIsHistoryAndChangesNoState) {
  registers("web-1", "aa");
  const NodeState before = ledger_->find("web-1");
  const std::string log =
      "time=\"2024-01-02T10:00:00Z\" level=info msg=\"Starting k3s v1.20.0+k3s2 (2ea6b163)\"\n"
      "time=\"2024-01-02T10:00:01Z\" level=info msg=\"Handling backend connection request [web-1]\"\n"
      "time=\"2024-01-02T10:00:02Z\" level=error msg=\"unable to verify hash for node 'web-1': hash does not match\"\n"
      "time=\"2024-01-02T10:00:07Z\" level=error msg=\"unable to verify hash for node 'web-1': hash does not match\"\n"
      "time=\"2024-01-02T10:00:08Z\" level=info msg=\"Deleted orphaned node-password secret web-1.node-password.k3s "
      "created 2023\"\n"
      "time=\"2024-01-02T10:00:09Z\" level=info msg=\"Cluster is fine\"\n";
  EXPECT_EQ(counts(ImportKind::log, log), "4 0 0");
  EXPECT_EQ(ledger_->find("web-1"), before);
  const std::vector<Record> all = records();
  EXPECT_EQ(all[3].kind(), Kind::password_rejected);
  EXPECT_EQ(all[3].count, 2);
  EXPECT_TRUE(is_imported(all[3]));
  EXPECT_EQ(all[3].first_time, *Time::parse("2024-01-02T10:00:02Z"));
  EXPECT_THAT(all[3].note, HasSubstr("the last at 2024-01-02T10:00:07Z; which password was presented"));
  EXPECT_EQ(counts(ImportKind::log, log), "0 4 0");
  // Another file that tells the same and more.
  EXPECT_EQ(counts(ImportKind::log, log + "time=\"2024-01-02T11:00:00Z\" level=info msg=\"Handling backend connection "
                                          "request [web-1]\"\n"),
            "1 4 0");
  reopen();
  EXPECT_EQ(ledger_->find("web-1"), before);
  EXPECT_TRUE(ledger_->was_clean());  // the start in the log was another server's
}

TEST_F(ImportTest, LinesWithoutATimeAreKnownByTheirFile) {
  const char* log = "Handling backend connection request [web-1]\nHandling backend connection request [web-1]\n";
  EXPECT_EQ(counts(ImportKind::log, log), "2 0 0");
  EXPECT_EQ(counts(ImportKind::log, log), "0 2 0");
  EXPECT_THAT(records().front().note, HasSubstr("when it happened is not known"));
}

TEST_F(ImportTest, OnlyHistoryTravelsAsARecord) {
  ImportEntry entry;
  entry.line = 1;
  entry.record = record_of(TunnelOpened{}, "web-1");
  entry.record->server = "imported:m1";
  EXPECT_TRUE(import_entry_from_json(ImportKind::log, to_json_line(entry)));
  entry.record->server = "srv-1";
  EXPECT_FALSE(import_entry_from_json(ImportKind::log, to_json_line(entry)));
  entry.record->server = "imported:m1";
  entry.record->event = BindingChanged{.actor = "x", .by = "outside", .from = {}, .to = {"aa"}};
  EXPECT_FALSE(import_entry_from_json(ImportKind::log, to_json_line(entry)));
}

}  // namespace
}  // namespace ledger::test
