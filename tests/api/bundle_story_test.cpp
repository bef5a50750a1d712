// Evidence for an auditor, with the real program from end to end: beside a running server, on a stopped one, handed
// over, checked, tampered with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <set>

#include "ledger/checkpoint.h"
#include "ledger/event_log.h"
#include "tests/support/server_process.h"

namespace ledger {
namespace {

namespace fs = std::filesystem;
using test::CommandResult;
using test::file_bytes;
using test::run_command;
using test::ServerProcess;
using ::testing::HasSubstr;
using ::testing::Not;

class BundleStory : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(server_.start()) << server_.errors(); }

  void join(const std::string& node) {
    auto client = server_.client();
    const auto response = client.send(test::kubelet_request(server_, node, "0123456789abcdef0123456789abcdef", false));
    ASSERT_TRUE(response && response->status == 200);
  }
  CommandResult ledger(const std::string& arguments) const {
    return run_command("cd " + out_.path().string() + " && " + test::ledger_binary() + " " + arguments);
  }
  CommandResult exported(const std::string& arguments) const {
    return ledger("export --data-dir " + server_.data_dir().string() + " --actor alice@audit " + arguments);
  }
  CommandResult verified(const std::string& arguments) const {
    return ledger("verify-bundle --key " + key_.string() + " " + arguments);
  }
  std::string python(const std::string& bundle) const {
    return run_command("python3 -B " + test::source_dir() + "/tests/support/check_bundle.py " +
                       (out_.path() / bundle).string() + " '" + std::string(trim(file_bytes(key_))) + "'")
        .output;
  }
  std::vector<Record> exports() const {
    std::vector<Record> found;
    const auto log = EventLog::follow({.dir = server_.data_dir() / "events"});
    EXPECT_TRUE((*log)->scan(1, UINT64_MAX, [&](Seq, const Result<Record>& record) {
      if (record && as<ExportCreated>(*record) != nullptr) found.push_back(*record);
      return true;
    }));
    return found;
  }
  std::set<std::string> handed_out() const {
    std::set<std::string> names;
    for (const auto& file : fs::directory_iterator(out_.path())) names.insert(file.path().filename());
    return names;
  }

  test::TempDir dir_, out_;
  ServerProcess server_{dir_ / "data"};
  const fs::path key_ = dir_ / "data" / "cred" / "checkpoint.pub";
};

TEST_F(BundleStory, FromARunningServerToAnAuditorAndAgainAMonthLater) {
  join("web-1");
  const CommandResult made = exported("--bundle june.tar.zst --format ocsf");
  ASSERT_EQ(made.status, 0) << made.output;
  EXPECT_THAT(made.output, HasSubstr("recorded as record"));
  const std::vector<Record> recorded = exports();
  ASSERT_EQ(recorded.size(), 1U) << "recorded exactly once";
  const ExportCreated& event = *as<ExportCreated>(recorded[0]);
  EXPECT_EQ(event.actor, "alice@audit");
  EXPECT_EQ(event.format, "bundle");
  EXPECT_EQ(event.from, 1);
  EXPECT_EQ(event.to, static_cast<std::int64_t>(recorded[0].seq) - 1);
  EXPECT_EQ(recorded[0].source.substr(0, 10), "127.0.0.1:") << "the server wrote it down";

  const CommandResult june = verified("june.tar.zst");
  EXPECT_EQ(june.status, 0) << june.output;
  EXPECT_THAT(june.output, HasSubstr("all of the range"));
  EXPECT_THAT(june.output, HasSubstr("the one you trust"));
  EXPECT_THAT(june.output, HasSubstr("\nholds\n"));
  ASSERT_EQ(run_command("cd " + out_.path().string() + " && zstd -dq june.tar.zst").status, 0);
  EXPECT_THAT(python("june.tar"), HasSubstr("holds records 1 "));
  // An auditor's own tools.
  ASSERT_EQ(run_command("cd " + out_.path().string() + " && tar xf june.tar && mv ledger-* unpacked").status, 0);
  EXPECT_EQ(run_command("cd " + (out_ / "unpacked").string() + " && sha256sum --check --quiet SHA256SUMS").status, 0);
  EXPECT_EQ(sha256_hex(file_bytes(out_ / "unpacked" / "manifest.json")), event.sha256);
  EXPECT_EQ(verified("unpacked").status, 0);

  join("web-2");
  EXPECT_EQ(server_.stop(), 0);
  const CommandResult july = exported("--bundle july --since-bundle june.tar.zst");
  ASSERT_EQ(july.status, 0) << july.output;
  ASSERT_EQ(exports().size(), 2U);
  EXPECT_EQ(as<ExportCreated>(exports()[1])->from, event.to + 1) << "goes on where June ended";
  EXPECT_EQ(exports()[1].source, "") << "no server was there";
  const CommandResult checked = verified("july --previous june.tar.zst --format json");
  EXPECT_EQ(checked.status, 0) << checked.output;
  const boost::json::value json = boost::json::parse(checked.output);
  for (const char* promise : {"holds", "proved", "grown", "key_trusted"}) EXPECT_TRUE(json.at(promise).as_bool()) << promise;
  EXPECT_EQ(json.at("bundle").at("previous").at("size").to_number<std::int64_t>(), event.to);
  EXPECT_EQ(json.at("warnings").as_array().size(), 0U);
  EXPECT_THAT(python("july"), HasSubstr("holds"));
  // The growth since the last bundle is shown without being asked for.
  ASSERT_EQ(exported("--bundle august").status, 0);
  EXPECT_EQ(verified("august --previous july").status, 0);
  EXPECT_EQ(ledger("verify --data-dir " + server_.data_dir().string()).status, 0);
}

TEST_F(BundleStory, ChosenAndRedacted) {
  join("web-1");
  join("web-2");
  ASSERT_EQ(exported("--bundle one --node web-1").status, 0);
  const CommandResult one = verified("one");
  EXPECT_EQ(one.status, 0) << one.output;
  EXPECT_THAT(one.output, HasSubstr("only what bears on node web-1"));
  EXPECT_THAT(one.output, HasSubstr("cannot be proved"));
  EXPECT_EQ(exports().back().note, "what bears on node web-1");
  EXPECT_THAT(python("one"), HasSubstr("holds"));
  ASSERT_EQ(exported("--bundle two.tar --kind certificate_issued,token_accepted --redact names,addresses").status, 0);
  const CommandResult two = verified("two.tar");
  EXPECT_EQ(two.status, 0) << two.output;
  EXPECT_THAT(two.output, HasSubstr("replaced by pseudonyms"));
  EXPECT_THAT(file_bytes(out_ / "two.tar"), Not(HasSubstr("web-1")));
  EXPECT_THAT(file_bytes(out_ / "two.tar"), Not(HasSubstr("alice@audit")));
  EXPECT_THAT(exports().back().note, HasSubstr("names redacted; addresses redacted"));
}

TEST_F(BundleStory, WhatIsTamperedWithIsToldAndTheStatusSaysSo) {
  join("web-1");
  ASSERT_EQ(exported("--bundle made").status, 0);
  std::string lines = file_bytes(out_ / "made" / "records.jsonl");
  lines.replace(lines.find("web-1"), 5, "web-9");
  test::put_file(out_ / "made" / "records.jsonl", lines);
  const CommandResult changed = verified("made");
  EXPECT_EQ(changed.status, 1);
  EXPECT_THAT(changed.output, HasSubstr("wrong: records.jsonl: is not the file that the manifest lists"));
  EXPECT_THAT(changed.output, HasSubstr("as it is stored: field node"));
  EXPECT_THAT(changed.output, HasSubstr("does not hold\n"));
  EXPECT_FALSE(boost::json::parse(verified("made --format json").output).at("holds").as_bool());
  EXPECT_EQ(verified("nothing").status, 1);
  EXPECT_EQ(ledger("verify-bundle").status, 2);
  EXPECT_EQ(ledger("verify-bundle made --key /dev/null").status, 1);
  EXPECT_EQ(ledger("verify-bundle made --previous nothing").status, 1);
}

TEST_F(BundleStory, WhatCannotBeRecordedIsNotHandedOut) {
  join("web-1");
  // Whoever exports may read the log, and the server does not take his word.
  test::put_file(server_.data_dir() / "cred" / "operator-token", std::string(64, '0') + "\n");
  for (const char* name : {"made", "made.tar", "made.tar.zst"}) {
    const CommandResult refused = exported(std::string("--bundle ") + name);
    EXPECT_EQ(refused.status, 1);
    EXPECT_THAT(refused.output, HasSubstr("the export could not be recorded, so nothing is handed out"));
  }
  EXPECT_EQ(handed_out(), std::set<std::string>());
  EXPECT_EQ(exports().size(), 0U);
}

TEST_F(BundleStory, WithoutTheKeyOnlyWhatACheckpointCovers) {
  join("web-1");
  EXPECT_EQ(server_.stop(), 0);  // signs what is there
  fs::rename(server_.data_dir() / "cred" / "checkpoint.key", dir_ / "key");
  const CommandResult made = exported("--bundle made");
  EXPECT_EQ(made.status, 0) << made.output;
  EXPECT_THAT(made.output, HasSubstr("the manifest is not signed"));
  const CommandResult checked = verified("made");
  EXPECT_EQ(checked.status, 0) << checked.output;
  EXPECT_THAT(checked.output, HasSubstr("each record is in the log that the checkpoint signed"));
  EXPECT_THAT(checked.output, HasSubstr("the manifest is not signed"));
  EXPECT_THAT(python("made"), HasSubstr("holds"));
  EXPECT_THAT(exported("--bundle later --from " + std::to_string(exports()[0].seq)).output, HasSubstr("no record is in that range"));
  EXPECT_THAT(exported("--bundle later --to " + std::to_string(exports()[0].seq)).output, HasSubstr("no checkpoint covers"));
  EXPECT_THAT(exported("--bundle hidden --redact names").output, HasSubstr("worth nothing without a signature"));
}

TEST_F(BundleStory, PathsThatAreTakenAndOptionsThatDoNotGoTogether) {
  fs::create_directory(out_ / "there");
  EXPECT_THAT(exported("--bundle there").output, HasSubstr("there is there already"));
  fs::create_directory(out_ / "cut.part");
  EXPECT_THAT(exported("--bundle cut").output, HasSubstr("cut.part is there: another export is under way"));
  EXPECT_TRUE(fs::exists(out_ / "cut.part")) << "what is not ours stays";
  EXPECT_EQ(exported("--bundle a --from 999").status, 1);
  EXPECT_EQ(exported("--bundle /nowhere/a").status, 1);
  for (const char* other : {"--output x", "--zstd", "--cursor x", "--input x", "--record"})
    EXPECT_EQ(exported(std::string("--bundle a ") + other).status, 2) << other;
  EXPECT_EQ(exported("--since-bundle a").status, 2);
  EXPECT_EQ(exported("--bundle a.tar.gz").status, 2);
  EXPECT_EQ(exports().size(), 0U);
  EXPECT_EQ(handed_out(), (std::set<std::string>{"there", "cut.part"}));
}

// Plain exports write nothing down unless they are told to: one a minute would be about itself for ever.
TEST_F(BundleStory, APlainExportIsRecordedWhereThatIsAskedFor) {
  ASSERT_EQ(exported("--output plain.csv --format csv").status, 0);
  EXPECT_EQ(exports().size(), 0U);
  ASSERT_EQ(exported("--output kept.csv --format csv --record").status, 0);
  ASSERT_EQ(exports().size(), 1U);
  const ExportCreated event = *as<ExportCreated>(exports()[0]);
  EXPECT_EQ(event.format, "csv");
  EXPECT_EQ(event.from, 1);
  EXPECT_EQ(event.sha256, sha256_hex(file_bytes(out_ / "kept.csv")));
  EXPECT_EQ(exported("--record").status, 2) << "standard output has no sum";
  EXPECT_EQ(exported("--record --cursor c --output x").status, 2);
}

}  // namespace
}  // namespace ledger
