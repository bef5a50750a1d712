#include "ledger/hash_store.h"

#include <gtest/gtest.h>

#include "ledger/node_hash.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger {
namespace {

const std::string kA = "$1:00:15:8:1:" + std::string(86, 'A'), kB = "$1:11:15:8:1:" + std::string(86, 'A');

NodeState by_hash() {
  NodeState state;
  state.bound_by_hash = true;
  return state;
}
NodeState bound(const char* fingerprint) {
  NodeState state;
  state.bound = {fingerprint};
  return state;
}

class HashStoreTest : public ::testing::Test {
 protected:
  HashStoreTest() { std::filesystem::create_directories(dir_ / "cred"); }
  HashStore open() {
    Result<HashStore> store = HashStore::open(dir_.path());
    if (!store) ADD_FAILURE() << store.error().message, ::abort();
    return std::move(*store);
  }
  static void put(HashStore& store, const char* node, const char* binding, const std::string& hash) {
    HashStore::Entry entry{node, Fingerprint{binding}, Secret(hash)};
    ASSERT_TRUE(store.put({&entry, 1}));
  }
  std::filesystem::path file() const { return dir_ / "cred" / "node-password-hashes"; }
  test::TempDir dir_;
};

TEST_F(HashStoreTest, AHashServesTheBindingItBelongsToAndNoOther) {
  HashStore store = open();
  put(store, "web-1", "", kA);
  EXPECT_EQ(store.find("web-1", by_hash()).reveal(), kA);
  EXPECT_TRUE(store.find("web-1", bound("aa")).empty());
  EXPECT_TRUE(store.find("web-1", {}).empty());  // released
  EXPECT_TRUE(store.find("web-2", by_hash()).empty());
  ASSERT_TRUE(store.belongs_to("web-1", {"aa"}));
  EXPECT_EQ(store.find("web-1", bound("aa")).reveal(), kA);
  EXPECT_TRUE(store.find("web-1", bound("bb")).empty());
  EXPECT_TRUE(store.find("web-1", by_hash()).empty());
  // What is somebody's is not given to another.
  ASSERT_TRUE(store.belongs_to("web-1", {"bb"}));
  EXPECT_FALSE(store.has("web-1", bound("bb")));
}

TEST_F(HashStoreTest, IsThereAfterARestart) {
  {
    HashStore store = open();
    put(store, "web-1", "", kA);
    put(store, "web-2", "", kA);
    put(store, "web-1", "aa", kB);
  }
  EXPECT_EQ(test::mode_of(file()), 0600);
  HashStore store = open();
  EXPECT_EQ(store.size(), 2U);
  EXPECT_EQ(store.find("web-1", bound("aa")).reveal(), kB);
  EXPECT_EQ(store.find("web-2", by_hash()).reveal(), kA);
}

TEST_F(HashStoreTest, WhatACrashToreOffIsDroppedAndWrittenOver) {
  test::put_file(file(), "web-1 - " + kA + "\nweb-2 - $1:00");
  HashStore store = open();
  EXPECT_EQ(store.size(), 1U);
  put(store, "web-3", "", kB);
  EXPECT_EQ(test::file_bytes(file()), "web-1 - " + kA + "\nweb-3 - " + kB + "\n");
}

TEST_F(HashStoreTest, ALineThatCannotBeReadIsNamed) {
  test::put_file(file(), "web-1 - " + kA + "\nweb-2 " + kA + "\n");
  const Result<HashStore> store = HashStore::open(dir_.path());
  ASSERT_FALSE(store);
  EXPECT_NE(store.error().message.find("line 2"), std::string::npos) << store.error().message;
  EXPECT_EQ(store.error().message.find(kA.substr(5, 20)), std::string::npos);
}

TEST_F(HashStoreTest, CompactingLeavesWhatIsInUse) {
  HashStore store = open();
  put(store, "web-1", "", kA);
  put(store, "web-1", "aa", kB);
  put(store, "gone", "", kA);
  ASSERT_TRUE(store.compact([](std::string_view node) { return node == "web-1" ? bound("aa") : NodeState{}; }));
  EXPECT_EQ(test::file_bytes(file()), "web-1 aa " + kB + "\n");
  EXPECT_EQ(test::mode_of(file()), 0600);
}

}  // namespace
}  // namespace ledger
