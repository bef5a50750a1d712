#include "replay/bundle_write.h"

#include <gmock/gmock.h>

#include "ledger/proof_file.h"
#include "replay/redaction.h"
#include "tests/replay/bundle_support.h"

namespace ledger::replay {
namespace {

using test::file_bytes;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

class BundleWrite : public test::BundleTest {
 protected:
  void expect_holds(const fs::path& bundle, const std::string& range) {
    const BundleReport report = check(bundle);
    EXPECT_TRUE(report.holds()) << told(report);
    EXPECT_TRUE(report.is_proved && report.is_key_trusted);
    EXPECT_EQ(python(bundle, signer_.verifier().str()), "holds records " + range + "\n");
  }
};

TEST_F(BundleWrite, TheWholeLogHoldsForUsAndForACheckerThatSharesNothing) {
  const fs::path bundle = write(options(1, head()));
  const std::string all = std::to_string(head());
  expect_holds(bundle, "1 " + all + " of " + all);
  EXPECT_EQ(check(bundle).records, head());
  EXPECT_EQ(check(bundle).manifest->kinds.size(), head()) << "one of every kind";
  const auto sums = ledger::test::run_command("cd '" + bundle.string() + "' && sha256sum --check --quiet SHA256SUMS");
  EXPECT_EQ(sums.status, 0) << sums.output;
  EXPECT_THAT(file_bytes(bundle / "manifest.note"), HasSubstr(sha256_hex(file_bytes(bundle / "manifest.json"))));
}

TEST_F(BundleWrite, EveryRangeOfEverySizeHolds) {
  int number = 0;
  for (std::uint64_t size : {1U, 2U, 7U, 8U, 13U})
    for (Seq from = 1; from <= size; from += 2)
      for (Seq to = from; to <= size; to += 3) {
        const fs::path bundle = write(options(from, to, size), std::to_string(++number));
        const BundleReport report = check(bundle);
        EXPECT_TRUE(report.holds() && report.is_proved) << from << ".." << to << " of " << size << "\n" << told(report);
      }
}

TEST_F(BundleWrite, EveryFormatIsThereBesidesTheLines) {
  for (const std::string& format : audit_format_names()) {
    BundleOptions how = options(1, head());
    how.what.format = *audit_format_from_name(format);
    const fs::path bundle = write(how, format);
    const std::string all = std::to_string(head());
    expect_holds(bundle, "1 " + all + " of " + all);
    std::string rows = audit_header(how.what.format);
    for (const Record& record : test::every_kind()) rows += audit_line(how.what.format, record, how.what.source);
    EXPECT_EQ(file_bytes(bundle / extra_file_of(format)), rows);
  }
}

TEST_F(BundleWrite, ChosenRecordsAreProvedOneByOne) {
  BundleOptions how = options(2, head() - 1, head());
  how.filter = "records of two kinds";
  how.what.kinds = {Kind::password_rejected, Kind::token_revoked};
  const fs::path bundle = write(how, "kinds");
  expect_holds(bundle, "2 " + std::to_string(head() - 1) + " of " + std::to_string(head()));
  EXPECT_FALSE(check(bundle).manifest->complete());
  EXPECT_EQ(check(bundle).records, 2U);
  BundleOptions node = options(1, head());
  node.filter = "what bears on a node";
  node.node = test::every_kind().front().node;
  EXPECT_TRUE(check(write(node, "node")).holds());
}

TEST_F(BundleWrite, WhatIsRedactedIsVouchedForAndNotProved) {
  BundleOptions how = options(1, head());
  const auto redaction = std::make_shared<Redaction>(Secret("0123456789abcdef"), true, true);
  how.what.change = [redaction](Record& record) { redaction->apply(record); };
  how.redacted = {"names", "addresses"};
  how.made_by.clear();
  how.what.format = AuditFormat::csv;
  const fs::path bundle = write(how);
  const BundleReport report = check(bundle);
  EXPECT_TRUE(report.holds()) << told(report);
  EXPECT_FALSE(report.is_proved);
  EXPECT_THAT(report.warnings.front(), HasSubstr("pseudonyms"));
  EXPECT_FALSE(fs::exists(bundle / "records.bin"));
  EXPECT_FALSE(fs::exists(bundle / "records.proof"));
  EXPECT_THAT(python(bundle), HasSubstr("holds"));
  for (const auto& file : fs::directory_iterator(bundle)) {
    EXPECT_EQ(file_bytes(file.path()).find("web-1.example.org"), std::string::npos) << file.path();
    EXPECT_EQ(file_bytes(file.path()).find("10.0.4.17"), std::string::npos) << file.path();
    EXPECT_EQ(file_bytes(file.path()).find("ops@example.org"), std::string::npos) << file.path();
  }
}

TEST_F(BundleWrite, GrowthIsProvedFromEveryEarlierSize) {
  for (std::uint64_t size = 1; size <= head(); size += 3) {
    BundleOptions how = options(1, head());
    how.previous = at(size);
    const fs::path bundle = write(how, std::to_string(size));
    const BundleReport report = check(bundle);
    EXPECT_TRUE(report.holds() && report.has_grown) << size << "\n" << told(report);
    EXPECT_THAT(python(bundle), HasSubstr("holds"));
  }
}

TEST_F(BundleWrite, TheSameRecordsGiveTheSameBytes) {
  const fs::path one = write(options(1, 9), "one");
  const fs::path first = pack(one), first_packed = pack(one, true);
  const std::string tar = file_bytes(first), packed = file_bytes(first_packed);
  const fs::path two = write(options(1, 9), "two");
  EXPECT_EQ(file_bytes(pack(two)), tar);
  EXPECT_EQ(file_bytes(pack(two, true)), packed);
  EXPECT_LT(packed.size(), tar.size());
}

TEST_F(BundleWrite, ATarHoldsAsADirectoryDoes) {
  for (const bool compress : {false, true}) {
    const fs::path tar = pack(write(options(3, 9, head()), compress ? "a" : "b"), compress);
    const BundleReport report = check(tar);
    EXPECT_TRUE(report.holds() && report.is_proved) << told(report);
    EXPECT_EQ(report.records, 7U);
    if (compress) continue;  // Python's tarfile cannot read it
    EXPECT_THAT(python(tar, signer_.verifier().str()), HasSubstr("holds records 3 9 of"));
  }
}

TEST_F(BundleWrite, WhatCannotBeHandedOut) {
  BundleOptions none = options(1, 3);
  none.what.range.from.seq = head() + 1;
  none.what.range.to.seq = head() + 5;
  EXPECT_EQ(write_bundle(log(), none, dir_ / "none").error().code, Errc::not_found);
  BundleOptions short_of = options(1, 3);
  short_of.what.range.to.seq = 4;
  EXPECT_THAT(write_bundle(log(), short_of, dir_ / "short").error().message, HasSubstr("does not cover record 4"));
  BundleOptions chosen = options(1, 3);
  chosen.filter = "x";
  chosen.what.nodes = {"nobody"};
  EXPECT_EQ(write_bundle(log(), chosen, dir_ / "chosen").error().code, Errc::not_found);
  fs::create_directory(dir_ / "there");
  EXPECT_EQ(write_bundle(log(), options(1, 3), dir_ / "there").error().code, Errc::io);
}

TEST_F(BundleWrite, ALogWithADamagedRecordHandsOutNothing) {
  const BundleOptions how = options(1, 9);
  std::string key(8, '\0');
  key[7] = 5;
  memory_.spoil([&](rocksdb::DB& db, const auto& handles) { ASSERT_TRUE(db.Put({}, handles[1], key, "spoilt").ok()); });
  const Result<WrittenBundle> written = write_bundle(log(), how, dir_ / "damaged");
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, Errc::corrupt);
  EXPECT_THAT(written.error().message, HasSubstr("record 5 cannot be read"));
}

}  // namespace
}  // namespace ledger::replay
