#include "replay/meaning.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/generators.h"
#include "tests/support/paths.h"
#include "tests/support/run_command.h"

namespace ledger::replay {
namespace {

using ::testing::HasSubstr;

TEST(Meaning, IsWhatTheDocumentSays) {
  const std::string document = test::file_bytes(test::source_dir() + "/docs/EXPORTS.md");
  for (const Kind kind : test::all_kinds()) {
    const KindMeaning& m = meaning_of(kind);
    EXPECT_THAT(document, HasSubstr(fmt::format("| `{}` | {} | {} | {}/{} | {}/{} | {} |\n", name_of(kind), m.outcome,
                                                m.severity, m.ocsf_class, m.ocsf_activity, m.ecs_category, m.ecs_type,
                                                m.verb)));
  }
}

TEST(Meaning, EveryKindHasASentence) {
  for (const Kind kind : test::all_kinds()) {
    Record record;
    record.event = *make_event(static_cast<std::uint16_t>(kind));
    const Meaning empty = meaning_of(record);
    EXPECT_FALSE(empty.sentence.empty()) << name_of(kind);
    record.count = 41;
    EXPECT_THAT(meaning_of(record).sentence, HasSubstr("(41 times)")) << name_of(kind);
  }
}

TEST(Meaning, SaysWhatDecided) {
  Record record;
  record.node = "web-1";
  record.event = PasswordRejected{.fingerprint = {"bb"}, .bound = {"aa"}, .status = 403};
  EXPECT_EQ(meaning_of(record).reason, "password_differs");
  EXPECT_EQ(meaning_of(record).status, 403);
  record.event = PasswordRejected{.fingerprint = {"bb"}, .bound = {}, .status = 403};
  EXPECT_EQ(meaning_of(record).reason, "name_held");
  record.authority = kUpstreamAuthority, record.upstream = "10.0.0.1:6443";
  EXPECT_EQ(meaning_of(record).reason, "password_differs") << "it knows no hold of ours";
  EXPECT_THAT(meaning_of(record).sentence, HasSubstr(", as upstream 10.0.0.1:6443 decided"));
}

}  // namespace
}  // namespace ledger::replay
