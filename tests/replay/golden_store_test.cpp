// Stores as releases wrote them (tests/golden/README.md, "Stores"): they open, hold together, explain what they explained,
// and go on, for ever.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "ledger/ledger.h"
#include "replay/explain.h"
#include "replay/verify.h"
#include "tests/support/ledger_fixture.h"
#include "tests/support/paths.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger::replay {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

fs::path stores() { return fs::path(ledger::test::source_dir()) / "tests" / "golden" / "stores"; }

std::vector<std::string> store_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(stores())) {
    std::string name = entry.path().filename().string();
    if (name.ends_with(".tar.gz")) names.push_back(name.substr(0, name.size() - 7));
  }
  std::sort(names.begin(), names.end());
  return names;
}

class GoldenStore : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const auto unpacked = ledger::test::run_command("tar -xzf " + (stores() / (GetParam() + ".tar.gz")).string() +
                                                    " -C " + dir_.path().string());
    ASSERT_EQ(unpacked.status, 0) << unpacked.output;
  }
  std::unique_ptr<EventLog> follow() const {
    auto log = EventLog::follow({.dir = dir_ / "events"});
    EXPECT_TRUE(log) << log.error().message;
    return log ? *std::move(log) : nullptr;
  }
  std::unique_ptr<Ledger> own() const {
    Ledger::Options options;
    options.log.dir = dir_ / "events";
    options.server_name = "srv";
    options.min_free_bytes = 0;
    auto ledger = Ledger::open(std::move(options));
    EXPECT_TRUE(ledger) << ledger.error().message;
    return ledger ? *std::move(ledger) : nullptr;
  }
  // The same in every store: web-1 joined, was rebuilt and refused; web-2 joined; web-3 is held.
  void check_contents(const EventLog& log) const {
    EXPECT_GE(log.head(), 30U);
    const auto history = history_from_log(log, "web-1", {});
    ASSERT_TRUE(history) << history.error().message;
    const Explanation explanation = explain(*history);
    EXPECT_EQ(name_of(explanation.cause), "REBUILT");
    EXPECT_EQ(state_name(**log.node("web-1")), "refused");
    EXPECT_EQ(state_name(**log.node("web-2")), "registered");
    EXPECT_EQ(state_name(**log.node("web-3")), "held");
    const auto report = verify(log, {}, checkpoints_of(dir_.path()));
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(report->sound()) << report->damage.front().text;
  }

  ledger::test::TempDir dir_{ledger::test::memory_directory()};
};

TEST_P(GoldenStore, IsReadAsItIs) {
  const auto log = follow();
  ASSERT_NE(log, nullptr);
  check_contents(*log);
}

TEST_P(GoldenStore, IsOwnedAndGoesOn) {
  const auto ledger = own();
  ASSERT_NE(ledger, nullptr);
  const bool is_old = GetParam().starts_with("format-1");
  EXPECT_EQ(ledger->log().upgrade().has_value(), is_old);
  EXPECT_EQ(!ledger->upgrade_note().empty(), is_old) << ledger->upgrade_note();
  if (is_old) {
    EXPECT_THAT(ledger->upgrade_note(), HasSubstr("it had format 1 and "));
  }
  check_contents(ledger->log());
  EXPECT_EQ(ledger::test::register_node(*ledger, "web-9", "aa").ruling, Ruling::admit_first);
  EXPECT_EQ(ledger::test::register_node(*ledger, "web-9", "aa").ruling, Ruling::admit_known);
  check_contents(ledger->log());
  EXPECT_EQ(ledger::test::register_node(*ledger, "web-1", "ff").ruling, Ruling::refuse_mismatch);
  EXPECT_THAT(ledger::test::broken_promises(ledger->log()), IsEmpty());
  ASSERT_TRUE(ledger->close());
}

TEST_P(GoldenStore, SaysOnceThatItWasUpgraded) {
  {
    const auto ledger = own();
    ASSERT_NE(ledger, nullptr);
    Record started;
    started.event = ServerStarted{.version = "0.0.9", .client_ca = {}, .server_ca = {}, .ledger = {}, .clean = true};
    ASSERT_TRUE(ledger->append_and_wait(ledger::test::proposal_of({started})));
  }
  const auto ledger = own();
  ASSERT_NE(ledger, nullptr);
  EXPECT_EQ(ledger->upgrade_note(), "ledger 0.0.9 served this log before");
}

INSTANTIATE_TEST_SUITE_P(All, GoldenStore, ::testing::ValuesIn(store_names()), [](const auto& store) {
  std::string name = store.param;
  std::replace_if(name.begin(), name.end(), [](char c) { return c == '-' || c == '.'; }, '_');
  return name;
});

TEST(GoldenStores, NoneIsMissing) {
  const auto names = store_names();
  for (const char* name : {"format-1", "format-1-with-tree", "format-2"})
    EXPECT_TRUE(std::count(names.begin(), names.end(), name)) << name;
}

}  // namespace
}  // namespace ledger::replay
