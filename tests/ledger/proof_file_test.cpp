#include "ledger/proof_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ledger/credentials.h"
#include "ledger/event_codec.h"
#include "tests/support/paths.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A log of records in memory, its tree, and somebody who signs.
class ProofFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (Seq seq = 1; seq <= 21; ++seq) {
      Record record;
      record.seq = seq;
      record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(seq));
      record.node = "web-" + std::to_string(seq);
      record.event = PasswordStored{{"aa"}};
      records_.push_back(encode(record));
      std::vector<TreeHash> completed;
      std::uint64_t index = edge_.size();
      edge_.append(leaf_hash(records_.back()), &completed);
      for (std::size_t level = 0; level < completed.size(); ++level, index >>= 1)
        nodes_[level].resize(index + 1), nodes_[level][index] = completed[level];
      heads_.push_back(edge_.head());
    }
  }
  ReadNode read() {
    return [this](unsigned level, std::uint64_t index) { return Result<TreeHash>(nodes_[level].at(index)); };
  }
  Checkpoint at(std::uint64_t size) {
    Checkpoint checkpoint{signer_.verifier().name(), heads_[size], {}};
    checkpoint.note.text = checkpoint_text(checkpoint.origin, checkpoint.head);
    checkpoint.note.signatures.push_back(signer_.sign(checkpoint.note.text));
    return checkpoint;
  }
  std::string inclusion(Seq seq, std::uint64_t size) {
    return inclusion_file(records_[seq - 1], seq - 1, *inclusion_proof(seq - 1, size, read()), at(size));
  }
  std::string consistency(std::uint64_t from, std::uint64_t to) {
    return consistency_file(*consistency_proof(from, to, read()), at(from), at(to));
  }

  std::vector<std::string> records_;
  std::vector<TreeHead> heads_ = {TreeEdge().head()};
  TreeEdge edge_;
  std::vector<TreeHash> nodes_[8];
  NoteSigner signer_ = std::move(*NoteSigner::make("ledger/0123456789abcdef"));
};

TEST_F(ProofFileTest, EveryRecordOfEveryLog) {
  for (std::uint64_t size = 1; size <= 21; ++size)
    for (Seq seq = 1; seq <= size; ++seq) {
      const auto proven = check_proof(inclusion(seq, size), signer_.verifier());
      ASSERT_TRUE(proven.has_value()) << proven.error().message;
      EXPECT_EQ(proven->seq, seq);
      EXPECT_EQ(proven->checkpoint.head.size, size);
      EXPECT_EQ(proven->record->node, "web-" + std::to_string(seq));
    }
}

TEST_F(ProofFileTest, EveryGrowth) {
  for (std::uint64_t to = 1; to <= 21; ++to)
    for (std::uint64_t from = 1; from <= to; ++from) {
      const auto proven = check_proof(consistency(from, to), signer_.verifier());
      ASSERT_TRUE(proven.has_value()) << proven.error().message;
      EXPECT_EQ(proven->older->head.size, from);
      EXPECT_EQ(proven->checkpoint.head.size, to);
    }
}

// Any byte changed: it holds no more. (Only base64's last digit has bits that mean nothing, and those are refused.)
TEST_F(ProofFileTest, NoByteCanBeChanged) {
  for (const std::string& file : {inclusion(7, 13), consistency(5, 13)})
    for (std::size_t at = 0; at < file.size(); ++at)
      for (const int mask : {1, 2, 16}) {
        std::string changed = file;
        changed[at] = static_cast<char>(changed[at] ^ mask);
        EXPECT_FALSE(check_proof(changed, signer_.verifier()).has_value()) << at << ' ' << mask << '\n' << changed;
      }
}

TEST_F(ProofFileTest, NothingCanBeLeftOut) {
  for (const std::string& file : {inclusion(7, 13), consistency(5, 13)})
    for (std::size_t size = 0; size < file.size(); ++size)
      EXPECT_FALSE(check_proof(file.substr(0, size), signer_.verifier()).has_value()) << size;
}

TEST_F(ProofFileTest, AnotherKeyProvesNothing) {
  const NoteSigner other = std::move(*NoteSigner::make(signer_.verifier().name()));
  EXPECT_THAT(check_proof(inclusion(7, 13), other.verifier()).error().message, HasSubstr("is not signed by"));
  const NoteSigner other_log = std::move(*NoteSigner::make("ledger/ffffffffffffffff"));
  EXPECT_THAT(check_proof(inclusion(7, 13), other_log.verifier()).error().message, HasSubstr("is of the log"));
  EXPECT_THAT(check_proof("hello\n", other.verifier()).error().message, HasSubstr("not a proof"));
}

// A checker in another language that shares nothing with this one says the same of every proof, and of spoilt ones.
TEST_F(ProofFileTest, AnIndependentCheckerAgrees) {
  test::TempDir dir;
  std::string files, expected;
  int number = 0;
  const auto add = [&](const std::string& text, const std::string& line) {
    const auto file = dir / (std::to_string(number++) + ".proof");
    test::put_file(file, text);
    files += " " + file.string();
    expected += line + "\n";
    EXPECT_EQ(check_proof(text, signer_.verifier()).has_value(), line.starts_with("holds"));
  };
  for (std::uint64_t size = 1; size <= 21; size += size < 9 ? 1 : 4)
    for (Seq seq = 1; seq <= size; ++seq) {
      add(inclusion(seq, size), "holds inclusion " + std::to_string(seq) + " " + std::to_string(size));
      add(consistency(seq, size), "holds consistency " + std::to_string(seq) + " " + std::to_string(size));
    }
  const auto checked = test::run_command("python3 -B " + test::source_dir() + "/tests/support/check_proof.py '" +
                                         signer_.verifier().str() + "'" + files);
  EXPECT_EQ(checked.output, expected);
  EXPECT_EQ(checked.status, 0);

  std::string spoilt = inclusion(7, 13);
  spoilt.replace(spoilt.find("index 6"), 7, "index 7");
  std::string cut = consistency(5, 13);
  cut.erase(cut.find('\n') + 1, 45);
  const std::string wrong_key = inclusion_file(records_[0], 0, {}, [&] {
    Checkpoint other = at(1);
    other.note.signatures[0].bytes[40] = static_cast<char>(other.note.signatures[0].bytes[40] ^ 1);
    return other;
  }());
  files.clear();
  for (const std::string& text : {spoilt, cut, wrong_key}) add(text, "fails");
  const auto refused = test::run_command("python3 -B " + test::source_dir() + "/tests/support/check_proof.py '" +
                                         signer_.verifier().str() + "'" + files);
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.output, Not(HasSubstr("holds")));
}

}  // namespace
}  // namespace ledger
