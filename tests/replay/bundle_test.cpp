#include "replay/bundle.h"

#include <gmock/gmock.h>

#include "tests/replay/bundle_support.h"

namespace ledger::replay {
namespace {

class ManifestTest : public test::BundleTest {};
using ::testing::HasSubstr;
using test::file_bytes;
namespace fs = std::filesystem;

TEST_F(ManifestTest, ComesBackAsItWas) {
  BundleOptions how = options(2, 9, head());
  how.previous = at(3);
  const fs::path bundle = write(how);
  const std::string text = file_bytes(bundle / "manifest.json");
  const Result<Manifest> manifest = parse_manifest(text);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest_text(*manifest), text);
  EXPECT_EQ(manifest->ledger, log().id());
  EXPECT_EQ(manifest->made_by, "alice@srv");
  EXPECT_EQ(manifest->from, 2U);
  EXPECT_EQ(manifest->to, 9U);
  EXPECT_EQ(manifest->records, 8U);
  EXPECT_EQ(manifest->kinds.size(), 8U);
  EXPECT_EQ(manifest->checkpoint, at(head()).head);
  EXPECT_EQ(*manifest->previous, at(3).head);
  EXPECT_TRUE(manifest->complete() && manifest->proves() && manifest->is_signed);
  EXPECT_EQ(manifest->files.size(), 8U);
}

// It has one form, so a changed byte is either seen here or in its signature.
TEST_F(ManifestTest, WhatWeWouldNotWriteIsRefused) {
  const std::string text = file_bytes(write(options(1, 4)) / "manifest.json");
  const auto refused = [&](const std::string& from, const std::string& to, const std::string& why) {
    std::string changed = text;
    ASSERT_NE(changed.find(from), std::string::npos) << from;
    changed.replace(changed.find(from), from.size(), to);
    const Result<Manifest> manifest = parse_manifest(changed);
    ASSERT_FALSE(manifest) << from << " -> " << to;
    EXPECT_THAT(manifest.error().message, HasSubstr(why)) << from << " -> " << to;
  };
  refused("{\n", "{\n\n", "is not written as");
  refused("\"ledger\": ", "\"ledger\":  ", "is not written as");
  refused("ledger/bundle@v1", "ledger/bundle@v2", "its format is ledger/bundle@v2");
  refused("\"from\": 1", "\"from\": 0", "its range is none");
  refused("\"from\": 1", "\"from\": 9", "its range is none");
  refused("\"from\": 1", "\"from\": -1", "has no from");
  refused("\"to\": 4", "\"to\": 5", "does not cover");
  refused("\"records\": 4", "\"records\": 3", "its range has 4 records, it says 3");
  refused("\"signed\": true", "\"signed\": 1", "has no signed");
  refused("\"redacted\": []", "\"redacted\": [\"all\"]", "has no redacted");
  refused("\"redacted\": []", "\"redacted\": [\"names\"]", "is redacted and lists stored records");
  refused("\"name\":\"README.txt\"", "\"name\":\"../passwd\"", "has no files");
  refused("\"name\":\"README.txt\"", "\"name\":\"manifest.json\"", "has no files");
  refused("\"name\":\"records.proof\"", "\"name\":\"records.ocsf\"", "does not list records.proof");
  refused("\"name\":\"checkpoint\"", "\"name\":\"consistency.proof\"", "has no files");  // out of order
  refused("\"previous\": null", "\"previous\": {\"size\":1,\"root\":\"00\"}", "has no previous");
  refused("{\"name\":\"records.jsonl\"", "{\"name\":\"records.cef\",\"size\":1,\"sha256\":\"" + std::string(64, '0') +
                                            "\"},{\"name\":\"records.csv\",\"size\":1,\"sha256\":\"" + std::string(64, '0') +
                                            "\"},{\"name\":\"records.jsonl\"",
          "more than one further format");
  refused("}\n", "", "is no JSON");
  EXPECT_FALSE(parse_manifest(std::string(kMaxSmallFile + 1, ' ')));
  EXPECT_FALSE(parse_manifest(std::string(100'000, '[')));
  EXPECT_FALSE(parse_manifest(""));
}

TEST(BundleFrames, ComeBackAsTheyWere) {
  const std::string bytes = frame_of(0x0102030405060708, std::string(300, 'x'));
  ASSERT_EQ(bytes.size(), RecordFrame::kSize + 300);
  EXPECT_EQ(bytes.substr(0, 12), std::string("\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x01\x2c", 12));
  EXPECT_EQ(parse_frame(bytes).seq, 0x0102030405060708U);
  EXPECT_EQ(parse_frame(bytes).length, 300U);
}

TEST_F(ManifestTest, TheReadmeTellsWhatIsProvedAndWhatNot) {
  BundleOptions how = options(1, 4);
  EXPECT_THAT(file_bytes(write(how, "whole") / "README.txt"), HasSubstr("No record of the range is missing"));
  how.filter = "what bears on node web-1";
  how.what.kinds = {test::every_kind().front().kind()};
  const std::string chosen = file_bytes(write(how, "chosen") / "README.txt");
  EXPECT_THAT(chosen, HasSubstr("does NOT prove that these are all"));
  EXPECT_THAT(chosen, HasSubstr("what bears on node web-1"));
  for (const char* file : {"SHA256SUMS", "manifest.note", "checkpoint.pub", "records.bin", "consistency.proof"})
    EXPECT_THAT(chosen, HasSubstr(file));
}

}  // namespace
}  // namespace ledger::replay
