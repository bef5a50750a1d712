// What an agent keeps, on disk and in memory.
#include "api/agent_files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger::api {
namespace {

unsigned mode_of(const std::filesystem::path& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  return status.st_mode & 0777;
}

TEST(AgentFiles, KeepsFilesThatOnlyTheOwnerReads) {
  const test::TempDir dir;
  const auto where = dir.path() / "k3s" / "agent";
  AgentFiles files(where);
  EXPECT_EQ(files.get("client-kubelet.key").error().code, Errc::not_found);
  ASSERT_TRUE(files.put("client-kubelet.key", "one"));
  ASSERT_TRUE(files.put("client-kubelet.key", "two"));
  EXPECT_EQ(files.get("client-kubelet.key")->reveal(), "two");
  EXPECT_EQ(mode_of(where / "client-kubelet.key"), 0600U);
  EXPECT_EQ(mode_of(where), 0700U);
  EXPECT_EQ(mode_of(where.parent_path()), 0755U);
  EXPECT_EQ(AgentFiles(where).get("client-kubelet.key")->reveal(), "two") << "another start finds it";
  EXPECT_EQ(files.path_of("x.crt"), (where / "x.crt").string());
}

TEST(AgentFiles, WithoutADirectoryInMemory) {
  AgentFiles files{std::filesystem::path()};
  EXPECT_EQ(files.get("a").error().code, Errc::not_found);
  ASSERT_TRUE(files.put("a", "one"));
  ASSERT_TRUE(files.put("a", "two"));
  EXPECT_EQ(files.get("a")->reveal(), "two");
}

TEST(AgentFiles, SaysWhenItCannotKeepThem) {
  const test::TempDir dir;
  test::put_file(dir.path() / "file", "");
  AgentFiles files(dir.path() / "file" / "agent");
  EXPECT_FALSE(files.put("a", "one"));
}

TEST(RandomFile, IsMadeOnceAndNotMended) {
  const test::TempDir dir;
  const auto path = dir.path() / "node" / "password";
  const auto made = ensure_random_file(path, 16, 0600);
  ASSERT_TRUE(made);
  EXPECT_EQ(made->reveal().size(), 32U);
  EXPECT_EQ(ensure_random_file(path, 16, 0600)->reveal(), made->reveal());
  EXPECT_EQ(mode_of(path), 0600U);
  test::put_file(path, "");
  EXPECT_EQ(ensure_random_file(path, 16, 0600)->reveal(), "");
}

}  // namespace
}  // namespace ledger::api
