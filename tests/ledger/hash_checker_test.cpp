#include "ledger/hash_checker.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "ledger/node_hash.h"
#include "tests/support/temp_dir.h"

namespace ledger {
namespace {

using Answer = HashChecker::Answer;

class HashCheckerTest : public ::testing::Test {
 protected:
  HashCheckerTest() : store_(make_store()) {
    state_.bound_by_hash = true;
    state_.version = 7;
    HashStore::Entry entry{"web-1", {}, std::move(*make_node_hash(right_))};
    if (!store_.put({&entry, 1})) ::abort();
  }
  HashStore make_store() {
    std::filesystem::create_directories(dir_ / "cred");
    return std::move(*HashStore::open(dir_.path()));
  }
  static std::future<Answer> ask(HashChecker& checker, const NodeState& state, const char* fingerprint,
                                 const Secret& password, const char* node = "web-1") {
    auto promise = std::make_shared<std::promise<Answer>>();
    checker.check(node, state, {fingerprint}, password, [promise](Answer answer) { promise->set_value(answer); });
    return promise->get_future();
  }

  test::TempDir dir_;
  HashStore store_;
  NodeState state_;
  Secret right_{"0123456789abcdef0123456789abcdef"}, wrong_{"ffff"};
};

TEST_F(HashCheckerTest, MatchAndMismatchAndNoHash) {
  HashChecker checker(store_, {});
  EXPECT_EQ(ask(checker, state_, "aa", right_).get(), Answer::match);
  EXPECT_EQ(ask(checker, state_, "bb", wrong_).get(), Answer::mismatch);
  EXPECT_EQ(ask(checker, state_, "aa", right_, "web-2").get(), Answer::no_hash);
}

TEST_F(HashCheckerTest, TheSameWrongPasswordCostsOneScrypt) {
  HashChecker checker(store_, {});
  for (int i = 0; i < 100; ++i) EXPECT_EQ(ask(checker, state_, "bb", wrong_).get(), Answer::mismatch);
  EXPECT_EQ(checker.stats().scrypts, 1U);
  state_.version = 8;  // another binding: what was refused then says nothing now
  EXPECT_EQ(ask(checker, state_, "bb", wrong_).get(), Answer::mismatch);
  EXPECT_EQ(checker.stats().scrypts, 2U);
}

TEST_F(HashCheckerTest, ThoseWhoAskTheSameShareACheckAndOthersOfTheNameWait) {
  HashChecker checker(store_, {.threads = 1});
  std::vector<std::future<Answer>> same;
  for (int i = 0; i < 8; ++i) same.push_back(ask(checker, state_, "aa", right_));
  auto other = ask(checker, state_, "bb", wrong_);
  // A third password of one name is one too many, whatever room there is.
  EXPECT_EQ(ask(checker, state_, "cc", wrong_).get(), Answer::busy);
  for (auto& answer : same) EXPECT_EQ(answer.get(), Answer::match);
  EXPECT_EQ(other.get(), Answer::mismatch);
  EXPECT_EQ(checker.stats().busy, 1U);
}

TEST_F(HashCheckerTest, AFullQueueIsBusy) {
  HashChecker checker(store_, {.threads = 0, .max_waiting = 1});
  auto waiting = ask(checker, state_, "aa", right_);
  EXPECT_EQ(ask(checker, state_, "bb", wrong_).get(), Answer::busy);
  checker.stop();  // the one that waits is never told
  EXPECT_EQ(ask(checker, state_, "dd", wrong_).get(), Answer::busy);
}

TEST_F(HashCheckerTest, AMatchTellsWhoseHashItIs) {
  NodeState bound;
  bound.bound = {"aa"};
  {
    HashChecker checker(store_, {});
    checker.verified("web-1", {"aa"}, right_, true);
    checker.stop();
  }
  EXPECT_TRUE(store_.has("web-1", bound));
}

TEST_F(HashCheckerTest, KeepsAHashOfWhatIsBoundAndNotOtherwise) {
  NodeState bound;
  bound.bound = {"ee"};
  {
    HashChecker checker(store_, {});
    checker.verified("new-1", {"ee"}, right_, false);
    checker.stop();
  }
  EXPECT_FALSE(store_.has("new-1", bound));
  HashChecker checker(store_, {.keep = true});
  checker.verified("new-1", {"ee"}, right_, false);
  while (checker.stats().kept == 0) std::this_thread::yield();
  EXPECT_TRUE(*NodeHash::parse(store_.find("new-1", bound).reveal())->matches(right_));
  // A hash that the name was bound by before says nothing about this binding: a fresh one is made.
  checker.verified("web-1", {"ee"}, wrong_, false);
  while (checker.stats().kept == 1) std::this_thread::yield();
  EXPECT_TRUE(*NodeHash::parse(store_.find("web-1", bound).reveal())->matches(wrong_));
}

}  // namespace
}  // namespace ledger
