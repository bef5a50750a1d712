// The story of a log and somebody who wants it to say something else, with the real program from end to end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "ledger/checkpoint.h"
#include "ledger/event_log.h"
#include "tests/support/overwrite_record.h"
#include "tests/support/server_process.h"

namespace ledger {
namespace {

namespace fs = std::filesystem;
using test::CommandResult;
using test::file_bytes;
using test::run_command;
using test::ServerProcess;
using ::testing::HasSubstr;

class TamperStory : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(elsewhere_.path() / "audit");
    serve_and_join("web-1");
    fs::copy(checkpoint_public_file(data_), key_);  // taken once, when the log began
  }

  // Serves, lets one agent's requests in, and stops in order.
  std::string serve_and_join(const std::string& node) {
    ServerProcess server(data_, {"--checkpoint-to", copy_.string()});
    EXPECT_TRUE(server.start()) << server.errors();
    auto client = server.client();
    api::HttpsRequest request;
    request.target = "/v1-k3s/client-kubelet.crt";
    request.headers = {{"K3s-Node-Name", node}, {"K3s-Node-Password", "0123456789abcdef0123456789abcdef"}};
    request.authorization = server.agent_authorization();
    const auto response = client.send(request);
    EXPECT_TRUE(response && response->status == 200);
    EXPECT_EQ(server.stop(), 0) << server.errors();
    return server.errors();
  }
  CommandResult ledger(const std::string& arguments) const {
    return run_command(test::ledger_binary() + " " + arguments);
  }
  CommandResult verify(const std::string& more = "") const {
    return ledger("verify --data-dir " + data_.string() + " " + more);
  }
  std::string against() const { return "--against " + copy_.string() + " --key " + key_.string(); }
  Seq head() const {
    const auto log = EventLog::follow({.dir = data_ / "events"});
    return log ? (*log)->head() : 0;
  }

  test::TempDir dir_, elsewhere_;
  const fs::path data_ = dir_ / "data";
  const fs::path copy_ = elsewhere_.path() / "audit" / "checkpoint";
  const fs::path key_ = elsewhere_.path() / "audit" / "checkpoint.pub";
};

TEST_F(TamperStory, NobodyDidAnythingAndItCanBeShown) {
  const CommandResult sound = verify(against());
  EXPECT_EQ(sound.status, 0) << sound.output;
  EXPECT_THAT(sound.output, HasSubstr("the largest covers records 1 to " + std::to_string(head())));
  EXPECT_THAT(sound.output, HasSubstr("sound"));
  const auto json = boost::json::parse(verify(against() + " --format json").output);
  EXPECT_TRUE(json.at("sound").as_bool());
  EXPECT_EQ(json.at("covered").to_number<Seq>(), head());

  // One record, for somebody who has the public key and nothing else.
  const fs::path proof = elsewhere_ / "3.tlog-proof";
  ASSERT_EQ(ledger("prove --data-dir " + data_.string() + " --seq 3 --output " + proof.string()).status, 0);
  const CommandResult holds = ledger("verify-proof " + proof.string() + " --key " + key_.string());
  EXPECT_EQ(holds.status, 0) << holds.output;
  EXPECT_THAT(holds.output, HasSubstr("holds: this is record 3 of the log ledger/"));
  EXPECT_THAT(holds.output, HasSubstr("\"seq\":3,"));
  const std::string vkey(trim(file_bytes(key_)));
  EXPECT_EQ(ledger("verify-proof " + proof.string() + " --key '" + vkey + "'").status, 0) << "the key as it is";
  const std::string checker = "python3 -B " + test::source_dir() + "/tests/support/check_proof.py '" + vkey + "' ";
  EXPECT_EQ(run_command(checker + proof.string()).output, "holds inclusion 3 " + std::to_string(head()) + "\n");

  // How the log grew, from a size that no checkpoint has.
  const fs::path growth = elsewhere_ / "growth.proof";
  const CommandResult made = ledger("prove --data-dir " + data_.string() + " --from-size 2 --to-size " +
                                    std::to_string(head()) + " > " + growth.string());
  ASSERT_EQ(made.status, 0) << made.output;
  EXPECT_EQ(ledger("verify-proof " + growth.string() + " --key " + key_.string()).status, 0);
  EXPECT_EQ(run_command(checker + growth.string()).output, "holds consistency 2 " + std::to_string(head()) + "\n");
}

TEST_F(TamperStory, ProofsThatCannotBeMadeOrDoNotHold) {
  EXPECT_THAT(ledger("prove --data-dir " + data_.string() + " --seq 999").output,
              HasSubstr("there is no record 999"));
  EXPECT_EQ(ledger("prove --data-dir " + data_.string()).status, 2);
  EXPECT_EQ(ledger("prove --data-dir " + data_.string() + " --seq 1 --from-size 1 --to-size 2").status, 2);
  EXPECT_EQ(ledger("prove --data-dir " + data_.string() + " --from-size 5 --to-size 2").status, 1);
  const std::string proof = ledger("prove --data-dir " + data_.string() + " --seq 1").output;
  std::string other = proof;
  other.replace(other.find("index 0"), 7, "index 1");
  test::put_file(elsewhere_ / "other", other);
  const CommandResult fails = ledger("verify-proof " + (elsewhere_ / "other").string() + " --key " + key_.string());
  EXPECT_EQ(fails.status, 1);
  EXPECT_THAT(fails.output, HasSubstr("the proof does not hold"));
  fs::remove(checkpoint_key_file(data_));
  const CommandResult unsigned_size = ledger("prove --data-dir " + data_.string() + " --from-size 2 --to-size 3");
  EXPECT_EQ(unsigned_size.status, 1);
  EXPECT_THAT(unsigned_size.output, HasSubstr("no checkpoint has the size 2, and none can be signed"));
}

TEST_F(TamperStory, ARecordThatWasChangedIsNamed) {
  std::string bytes;
  {
    const auto log = EventLog::follow({.dir = data_ / "events"});
    bytes = *(*log)->read_bytes(3);
  }
  bytes[20] = static_cast<char>(bytes[20] ^ 1);
  test::overwrite_record(data_ / "events", 3, bytes);
  const CommandResult found = verify();
  EXPECT_EQ(found.status, 1);
  EXPECT_THAT(found.output, HasSubstr("one bit of record 3 is flipped: bit 0 of byte 20"));
  EXPECT_THAT(found.output, HasSubstr("DAMAGED"));
}

// The whole machine is set back to a snapshot: everything in the data directory agrees, the copy elsewhere does
// not.
TEST_F(TamperStory, ARestoredSnapshotIsFoundByWhatHasLeftTheMachine) {
  fs::copy(data_, dir_ / "snapshot", fs::copy_options::recursive);
  const Seq before = head();
  serve_and_join("web-2");
  const Seq later = head();
  fs::remove_all(data_);
  fs::copy(dir_ / "snapshot", data_, fs::copy_options::recursive);

  EXPECT_EQ(verify().status, 0) << "the data directory alone knows nothing";
  const CommandResult found = verify(against());
  EXPECT_EQ(found.status, 1);
  EXPECT_THAT(found.output, HasSubstr("saw " + std::to_string(later) + " records, and there are " +
                                      std::to_string(before) + ": an older copy was restored"));
  EXPECT_THAT(found.output, HasSubstr("rolled_back: 1"));

  const std::string said = serve_and_join("web-3");
  EXPECT_THAT(
      said, HasSubstr("this log went back: it has " + std::to_string(before) + " records, and the checkpoint in " +
                      copy_.string() + " saw " + std::to_string(later)));
  EXPECT_THAT(said, HasSubstr("tokens revoked then are valid"));
  const CommandResult after = verify();
  EXPECT_EQ(after.status, 0) << after.output;
  EXPECT_THAT(after.output, HasSubstr("1 checkpoints saw records that this log has lost; the server knows"));
  const Checkpoint old = *parse_checkpoint(file_bytes(lost_checkpoints_file(data_)));
  const std::string kept = copy_.string() + ".kept-" + old.origin.substr(7) + "-" + std::to_string(later);
  EXPECT_EQ(verify("--against " + kept).status, 1) << "the auditor is told all the same";
}

TEST_F(TamperStory, AnotherLogUnderTheSameRoofIsNamed) {
  const Checkpoint old = *parse_checkpoint(file_bytes(copy_));
  fs::remove_all(data_);
  EXPECT_THAT(serve_and_join("web-1"), HasSubstr("cannot be compared with this log"));
  const CommandResult wrong_key = verify(against());
  EXPECT_EQ(wrong_key.status, 1);
  EXPECT_THAT(wrong_key.output, HasSubstr("and the key is that of " + old.origin));
  // The server has not written over what another log had left there.
  const std::string kept = copy_.string() + ".kept-" + old.origin.substr(old.origin.rfind('/') + 1) + "-" +
                           std::to_string(old.head.size);
  const CommandResult found = verify("--against " + kept + " --key " + key_.string());
  EXPECT_EQ(found.status, 1);
  EXPECT_THAT(found.output, HasSubstr("is of " + old.origin + ", this log is ledger/"));
  EXPECT_THAT(found.output, HasSubstr("other_log: 1"));
}

}  // namespace
}  // namespace ledger
