#include "replay/causes.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tests/support/paths.h"

namespace ledger::replay {
namespace {

// The table that people read is the one that is asked: every rule, in the same order.
TEST(Causes, TheirTableIsTheOneInTheDocumentation) {
  std::ostringstream text;
  text << std::ifstream(std::string(ledger::test::source_dir()) + "/docs/FORENSICS.md").rdbuf();
  const std::string doc = text.str();
  std::size_t at = doc.find("| rule | it answers when");
  ASSERT_NE(at, std::string::npos);
  for (const Rule& rule : kRules) {
    const std::string name = rule.name;
    std::size_t next = std::string::npos;
    for (const std::string& cell : {"\n| " + name + " |", "\n| " + name + ", ", ", " + name + ", ", ", " + name + " |"})
      next = std::min(next, doc.find(cell, at));
    ASSERT_NE(next, std::string::npos) << "docs/FORENSICS.md lists no rule '" << name << "' after the ones before it";
    at = next;
    EXPECT_FALSE(std::string_view(rule.why_here).empty());
  }
}

TEST(Causes, EveryCauseSaysWhatItWouldNeed) {
  for (int i = 0; i <= static_cast<int>(Cause::kLostReply); ++i) {
    EXPECT_FALSE(would_need(static_cast<Cause>(i)).empty());
    EXPECT_FALSE(name_of(static_cast<Cause>(i)).empty());
  }
}

TEST(Causes, DurationsAreForPeople) {
  EXPECT_EQ(duration_text(41), "41 s");
  EXPECT_EQ(duration_text(-200), "3m20s");
  EXPECT_EQ(duration_text(7260), "2h01m");
  EXPECT_EQ(duration_text(101 * 86400.0), "101 days");
}

}  // namespace
}  // namespace ledger::replay
