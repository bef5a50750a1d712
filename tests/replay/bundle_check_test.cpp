#include "replay/bundle_check.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "ledger/event_codec.h"
#include "tests/replay/bundle_support.h"

namespace ledger::replay {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using test::file_bytes;
using test::put_file;
namespace fs = std::filesystem;

class BundleCheck : public test::BundleTest {
 protected:
  void SetUp() override {
    BundleOptions how = options(3, 20, head());
    how.what.format = AuditFormat::csv;
    how.previous = at(7);
    bundle_ = write(how);
  }
  // Found, and said to be in this file; by the other checker too.
  void expect_found(const fs::path& bundle, const std::string& file, const std::string& text = "") {
    const BundleReport report = check(bundle);
    EXPECT_FALSE(report.holds()) << file;
    EXPECT_THAT(told(report), HasSubstr(file + "|"));
    EXPECT_THAT(told(report), HasSubstr(text));
    EXPECT_THAT(python(bundle, signer_.verifier().str()), HasSubstr("fails")) << file;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& file : fs::directory_iterator(bundle_)) names.push_back(file.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  // Of a file of text.
  static std::vector<std::string> lines_of(const fs::path& file) {
    std::vector<std::string> lines;
    std::istringstream in(file_bytes(file));
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }
  static void put_lines(const fs::path& file, const std::vector<std::string>& lines) {
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    put_file(file, text);
  }

  fs::path bundle_;
};

TEST_F(BundleCheck, HoldsUntouched) {
  const BundleReport report = check(bundle_);
  EXPECT_TRUE(report.holds()) << told(report);
  EXPECT_EQ(report.warnings, std::vector<std::string>());
  EXPECT_EQ(names().size(), 11U);
}

TEST_F(BundleCheck, AFlippedByteInAnyFileIsFoundThere) {
  for (const std::string& name : names()) {
    const std::size_t size = file_bytes(bundle_ / name).size();
    for (const std::size_t at : {std::size_t{0}, size / 3, size / 2, size - 1}) {
      const fs::path bundle = copy(bundle_, "flipped");
      flip(bundle / name, at);
      const BundleReport report = check(bundle);
      EXPECT_FALSE(report.holds()) << name << " at " << at;
      // The manifest's own bytes are told by their form or by their signature; that of another file by its sum.
      EXPECT_THAT(told(report), HasSubstr(name + "|")) << name << " at " << at;
    }
    const fs::path bundle = copy(bundle_, "flipped");
    flip(bundle / name, size / 2);
    EXPECT_THAT(python(bundle, signer_.verifier().str()), HasSubstr("fails")) << name;
  }
}

TEST_F(BundleCheck, AFileThatIsGoneCutOffLongerOrAnothersIsFound) {
  BundleOptions how = options(2, 20, head());
  how.what.format = AuditFormat::csv;
  how.previous = at(6);
  const fs::path other = write(how, "other");
  for (const std::string& name : names()) {
    fs::path bundle = copy(bundle_, "gone");
    fs::remove(bundle / name);
    expect_found(bundle, name, "is missing");
    bundle = copy(bundle_, "cut");
    fs::resize_file(bundle / name, fs::file_size(bundle / name) - 1);
    expect_found(bundle, name);
    bundle = copy(bundle_, "longer");
    put_file(bundle / name, file_bytes(bundle / name) + "\n");
    expect_found(bundle, name);
    if (file_bytes(other / name) == file_bytes(bundle_ / name)) continue;
    bundle = copy(bundle_, "others");
    put_file(bundle / name, file_bytes(other / name));
    EXPECT_FALSE(check(bundle).holds()) << name;
  }
}

TEST_F(BundleCheck, WhatWasDoneToALineIsToldByItsNumber) {
  const auto lines = lines_of(bundle_ / "records.jsonl");
  auto changed = lines;
  changed.erase(changed.begin() + 4);
  fs::path bundle = copy(bundle_, "removed");
  put_lines(bundle / "records.jsonl", changed);
  expect_found(bundle, "records.jsonl", "records.jsonl|line 5|record 7 is missing before it\n");
  EXPECT_THAT(told(check(bundle)), Not(HasSubstr("line 6")));

  changed = lines;
  std::swap(changed[4], changed[5]);
  bundle = copy(bundle_, "swapped");
  put_lines(bundle / "records.jsonl", changed);
  expect_found(bundle, "records.jsonl", "records.jsonl|line 5|record 7 is missing before it\n");
  EXPECT_THAT(told(check(bundle)), HasSubstr("records.jsonl|line 6|record 7 stands where it does not belong\n"));

  changed = lines;
  changed.insert(changed.begin() + 4, lines[3]);
  bundle = copy(bundle_, "twice");
  put_lines(bundle / "records.jsonl", changed);
  expect_found(bundle, "records.jsonl", "records.jsonl|line 5|record 6 stands where it does not belong\n");

  bundle = copy(bundle_, "changed");
  change(bundle / "records.jsonl", lines[6],
         std::string(lines[6]).replace(lines[6].find("10.0.4.17"), 9, "10.0.4.18"));
  expect_found(bundle, "records.jsonl", "records.jsonl|line 7|is not record 9 as it is stored: field claimed\n");

  changed = lines;
  changed.pop_back();
  bundle = copy(bundle_, "short");
  put_lines(bundle / "records.jsonl", changed);
  expect_found(bundle, "records.jsonl", "ends before record 20");

  changed = lines;
  changed.push_back(lines.back());
  bundle = copy(bundle_, "long");
  put_lines(bundle / "records.jsonl", changed);
  expect_found(bundle, "records.jsonl", "records.jsonl|line 19|there should be no more lines");
}

TEST_F(BundleCheck, ARowThatSaysOtherThingsIsTold) {
  const fs::path bundle = copy(bundle_, "row");
  auto rows = lines_of(bundle / "records.csv");
  rows[4] += "x";
  put_lines(bundle / "records.csv", rows);
  seal(bundle, &signer_);
  EXPECT_THAT(told(check(bundle)), HasSubstr("records.csv|record 6|is not what the stored record says"));
}

// He has made the sums fit and taken the signature away: the tree gives him away.
TEST_F(BundleCheck, ARecordThatWasRewrittenEverywhereIsStillFound) {
  const fs::path bundle = copy(bundle_, "rewritten");
  std::string stored(kRecordsMagic), lines, rows = audit_header(AuditFormat::csv);
  for (Record record : test::every_kind()) {
    if (record.seq < 3 || record.seq > 20) continue;
    if (record.seq == 9) record.source = "[fd00::18]:41234";
    stored += frame_of(record.seq, encode(record));
    lines += to_json_line(record) + "\n";
    rows += audit_line(AuditFormat::csv, record, {log().id(), "0.1.0"});
  }
  put_file(bundle / "records.bin", stored);
  put_file(bundle / "records.jsonl", lines);
  put_file(bundle / "records.csv", rows);
  expect_found(bundle, "records.bin", "is not the file that the manifest lists");
  seal(bundle, nullptr);
  expect_found(bundle, "records.bin", "not those of the tree that the checkpoint has signed");
  EXPECT_EQ(check(bundle).finding_count, 1U) << told(check(bundle));
}

TEST_F(BundleCheck, StoredRecordsThatAreSpoiltAreTold) {
  const auto spoilt = [&](const std::function<void(std::string&)>& how) {
    const fs::path bundle = copy(bundle_, "spoilt");
    std::string bytes = file_bytes(bundle / "records.bin");
    how(bytes);
    put_file(bundle / "records.bin", bytes);
    seal(bundle, nullptr);
    EXPECT_THAT(python(bundle), HasSubstr("fails"));
    return told(check(bundle));
  };
  const std::string records = file_bytes(bundle_ / "records.bin");
  const std::size_t first = kRecordsMagic.size(), length = parse_frame(records.substr(first)).length;
  const std::size_t second = first + RecordFrame::kSize + length;
  EXPECT_THAT(spoilt([&](std::string& bytes) { bytes[first + 8] = '\x7f'; }), HasSubstr("says that a record has 2130"));
  EXPECT_THAT(spoilt([&](std::string& bytes) { bytes[second + 7] = 9; }),
              HasSubstr("records.bin|byte " + std::to_string(second) + "|record 4 is missing; the next is 9"));
  EXPECT_THAT(spoilt([&](std::string& bytes) { bytes[second + 7] = 3; }), HasSubstr("record 3 is out of order"));
  EXPECT_THAT(spoilt([&](std::string& bytes) { bytes.resize(second + 5); }), HasSubstr("ends in the middle of a record"));
  EXPECT_THAT(spoilt([&](std::string& bytes) { bytes.resize(second + 20); }), HasSubstr("record 4 is cut off"));
  EXPECT_THAT(spoilt([&](std::string& bytes) { bytes.resize(second); }), HasSubstr("ends behind record 3"));
  EXPECT_THAT(spoilt([&](std::string& bytes) { bytes[first + RecordFrame::kSize] = 99; }),
              HasSubstr("records.bin|record 3|cannot be read"));
  EXPECT_THAT(spoilt([&](std::string& bytes) { bytes[0] = 'L'; }), HasSubstr("does not begin as stored records do"));
  EXPECT_THAT(spoilt([&](std::string& bytes) { bytes += frame_of(21, "x"); }), HasSubstr("record 21 is out of order"));
}

TEST_F(BundleCheck, AProofThatIsSpoiltIsTold) {
  const auto spoilt = [&](const std::function<void(std::vector<std::string>&)>& how) {
    const fs::path bundle = copy(bundle_, "spoilt");
    auto lines = lines_of(bundle / "records.proof");
    how(lines);
    put_lines(bundle / "records.proof", lines);
    seal(bundle, nullptr);
    return told(check(bundle));
  };
  EXPECT_THAT(spoilt([](auto& lines) { lines.pop_back(); }), HasSubstr("the proof ends too early"));
  EXPECT_THAT(spoilt([](auto& lines) { lines.push_back(lines.back()); }), HasSubstr("there should be no more lines"));
  EXPECT_THAT(spoilt([](auto& lines) { std::swap(lines[2], lines[3]); }), HasSubstr("not those of the tree"));
  EXPECT_THAT(spoilt([](auto& lines) { lines[2] = "x"; }), HasSubstr("records.proof|line 3|this is no line of a hash"));
  EXPECT_THAT(spoilt([](auto& lines) { lines[1] = "size 4"; }), HasSubstr("does not begin as a proof"));
}

TEST_F(BundleCheck, CountsThatTheManifestMakesUpAreTold) {
  const auto edited = [&](const std::function<void(Manifest&)>& how) {
    const fs::path bundle = copy(bundle_, "edited");
    seal(bundle, &signer_, how);
    EXPECT_THAT(python(bundle), HasSubstr("fails"));
    return told(check(bundle));
  };
  EXPECT_THAT(edited([](Manifest& m) { m.kinds.begin()->second = 7; }), HasSubstr("manifest.json||says 7 records of kind"));
  EXPECT_THAT(edited([](Manifest& m) { m.kinds["nothing"] = 1; }), HasSubstr("says 1 records of kind nothing; there are 0"));
  EXPECT_THAT(edited([](Manifest& m) { m.filter = "some", m.records = 17; }), HasSubstr("says 17 records; records.bin has 18"));
  EXPECT_THAT(edited([](Manifest& m) { m.from = 2, m.records = 19; }), HasSubstr("record 2 is missing; the next is 3"));
  EXPECT_THAT(edited([](Manifest& m) { m.ledger = "0123456789abcdef"; }), HasSubstr("is about the log 0123456789abcdef"));
  EXPECT_THAT(edited([&](Manifest& m) { m.checkpoint = at(21).head; }), HasSubstr("checkpoint||is one of"));
  EXPECT_THAT(edited([&](Manifest& m) { m.previous = at(6).head; }), HasSubstr("consistency.proof||begins with another"));
  const fs::path bundle = copy(bundle_, "times");
  seal(bundle, &signer_, [](Manifest& m) { m.last_time = m.last_time.plus_seconds(1); });
  EXPECT_THAT(told(check(bundle)), HasSubstr("says other times"));
}

TEST_F(BundleCheck, WhoSignedItMatters) {
  // All of it made up, with a key of his own: nothing but the right key shows it.
  const NoteSigner forger = *NoteSigner::make(origin_of(log().id()));
  BundleOptions how = options(3, 20, head());
  how.checkpoint = sign(forger, at(head()).head);
  how.key = forger.verifier().str();
  how.signer = &forger;
  const fs::path bundle = write(how, "forged");
  const BundleReport alone = check(bundle, {});
  EXPECT_TRUE(alone.holds());
  EXPECT_FALSE(alone.is_key_trusted);
  EXPECT_THAT(alone.warnings.front(), HasSubstr("the key is the one inside the bundle"));
  expect_found(bundle, "checkpoint.pub", "not the key that you trust");
  EXPECT_THAT(told(check(bundle)), HasSubstr("checkpoint|"));
  EXPECT_THAT(told(check(bundle)), HasSubstr("manifest.note|"));
  // His manifest over our records.
  const fs::path resigned = copy(bundle_, "resigned");
  seal(resigned, &forger);
  expect_found(resigned, "manifest.note");
  // Nobody's.
  const fs::path unsigned_one = copy(bundle_, "unsigned");
  seal(unsigned_one, nullptr);
  EXPECT_TRUE(check(unsigned_one).holds()) << told(check(unsigned_one));
  EXPECT_THAT(check(unsigned_one).warnings.front(), HasSubstr("not signed"));
  put_file(unsigned_one / "manifest.note", file_bytes(bundle_ / "manifest.note"));
  expect_found(unsigned_one, "manifest.note", "although the manifest says that it is not signed");
}

TEST_F(BundleCheck, ComparedWithWhatTheAuditorHas) {
  const auto with = [&](const EarlierBundle& earlier) {
    return check(bundle_, {.key = signer_.verifier(), .earlier = earlier});
  };
  put_file(dir_ / "seven", at(7).note.str());
  const Result<EarlierBundle> seven = read_earlier(dir_ / "seven");
  ASSERT_TRUE(seven) << seven.error().message;
  EXPECT_TRUE(with(*seven).holds()) << told(with(*seven));
  // The same bundle again, and one that ends where this begins.
  EXPECT_TRUE(with(*read_earlier(bundle_)).holds());
  const Result<EarlierBundle> before = read_earlier(pack(write(options(1, 2, 7), "before")));
  ASSERT_TRUE(before) << before.error().message;
  EXPECT_EQ(*before->to, 2U);
  EXPECT_TRUE(with(*before).holds() && with(*before).warnings.empty());
  EXPECT_THAT(with(*read_earlier(write(options(1, 1, 7), "gap"))).warnings.back(), HasSubstr("records 2 to 2 are in neither"));
  // Another size, other records, another's signature.
  EXPECT_THAT(told(with({"eight", at(8), {}})), HasSubstr("begins with the log of 7 records, not with that of --previous eight"));
  EXPECT_THAT(told(with({"seven", sign(signer_, {7, leaf_hash("x")}), {}})), HasSubstr("the log was rewritten"));
  const NoteSigner forger = *NoteSigner::make(origin_of(log().id()));
  EXPECT_THAT(told(with({"forged", sign(forger, at(7).head), {}})), HasSubstr("|--previous forged|"));
  EXPECT_EQ(read_earlier(dir_ / "nothing").error().code, Errc::not_found);
  put_file(dir_ / "junk", "junk");
  EXPECT_FALSE(read_earlier(dir_ / "junk"));
  const fs::path ungrown = write(options(1, 20, head()), "ungrown");
  EXPECT_THAT(told(check(ungrown, {.key = signer_.verifier(), .earlier = *seven})), HasSubstr("there is no sound proof of growth"));
}

// ---- hostile containers ----------------------------------------------------------------------------------

TEST_F(BundleCheck, ADirectoryWithOtherThingsInIt) {
  const auto with = [&](const char* file, const std::function<void(const fs::path&)>& put) {
    const fs::path bundle = copy(bundle_, "odd");
    put(bundle);
    const BundleReport report = check(bundle);
    EXPECT_FALSE(report.holds());
    EXPECT_THAT(told(report), HasSubstr(std::string(file) + "|"));
    return told(report);
  };
  EXPECT_THAT(with("records.bin", [](const fs::path& bundle) {
                fs::rename(bundle / "records.bin", bundle.parent_path() / "elsewhere");
                fs::create_symlink(bundle.parent_path() / "elsewhere", bundle / "records.bin");
              }),
              HasSubstr("is a symbolic link"));
  EXPECT_THAT(with("README.txt", [](const fs::path& bundle) {
                fs::remove(bundle / "README.txt");
                ASSERT_EQ(::mkfifo((bundle / "README.txt").c_str(), 0600), 0);
              }),
              HasSubstr("is no plain file"));
  EXPECT_THAT(with("more", [](const fs::path& bundle) { fs::create_directory(bundle / "more"); }), HasSubstr("is a directory"));
  EXPECT_THAT(with("run.sh", [](const fs::path& bundle) { put_file(bundle / "run.sh", "rm -rf /"); }),
              HasSubstr("is no file of a bundle"));
  EXPECT_THAT(with("records.ocsf", [](const fs::path& bundle) { put_file(bundle / "records.ocsf", "{}"); }),
              HasSubstr("is not in the manifest"));
  EXPECT_THAT(with("README.txt", [](const fs::path& bundle) { fs::resize_file(bundle / "README.txt", std::uintmax_t{1} << 40); }),
              HasSubstr("is longer than 1 MiB"));
  EXPECT_THAT(with("records.bin", [](const fs::path& bundle) { fs::resize_file(bundle / "records.bin", std::uintmax_t{1} << 40); }),
              HasSubstr("has 1099511627776 bytes; the manifest says"));
  EXPECT_FALSE(check_bundle(dir_ / "nothing", {}));
  EXPECT_FALSE(check_bundle("/dev/null", {}));
  fs::create_directory(dir_ / "empty");
  EXPECT_THAT(told(check(dir_ / "empty")), HasSubstr("manifest.json||is missing"));
}

// Tars as Python writes them, from a file of names and a script that may do anything to them.
TEST_F(BundleCheck, HostileTars) {
  const auto tar = [&](const std::string& script) {
    const std::string program =
        "import tarfile, io, os\n"
        "b = '" + bundle_.string() + "'\n"
        "order = ['README.txt', 'SHA256SUMS', 'checkpoint', 'checkpoint.pub', 'consistency.proof', 'manifest.json', "
        "'manifest.note', 'records.bin', 'records.csv', 'records.jsonl', 'records.proof']\n"
        "t = tarfile.open('" + (dir_ / "hostile.tar").string() + "', 'w')\n"
        "def put(name, as_name=None): t.add(os.path.join(b, name), as_name or name)\n"
        "def fake(name, kind, link=''):\n"
        "    i = tarfile.TarInfo(name); i.type = kind; i.linkname = link; t.addfile(i)\n"
        "def all(but=()): [put(n) for n in order if n not in but]\n" + script + "\nt.close()\n";
    put_file(dir_ / "make.py", program);
    const auto made = ledger::test::run_command("python3 -B " + (dir_ / "make.py").string());
    EXPECT_EQ(made.status, 0) << made.output;
    return told(check(dir_ / "hostile.tar"));
  };
  EXPECT_EQ(tar("all()"), "") << "a tar of somebody else's is as good";
  EXPECT_EQ(tar("t.add(b, 'x', recursive=False); [put(n, './' + n) for n in order]"), "");
  EXPECT_THAT(tar("all(['records.bin']); fake('records.bin', tarfile.SYMTYPE, '/etc/passwd')"),
              HasSubstr("records.bin||is a link or no plain file"));
  EXPECT_THAT(tar("all(['records.bin']); fake('records.bin', tarfile.LNKTYPE, 'README.txt')"), HasSubstr("records.bin||is a link"));
  EXPECT_THAT(tar("all(['README.txt']); fake('README.txt', tarfile.CHRTYPE)"), HasSubstr("README.txt||is a link or no plain"));
  EXPECT_THAT(tar("all(); put('README.txt', '../README.txt')"), HasSubstr("has a path that leads elsewhere"));
  EXPECT_THAT(tar("all(); put('README.txt', 'a/b/README.txt')"), HasSubstr("has a path that leads elsewhere"));
  EXPECT_THAT(tar("all(); put('README.txt', 'other/README.txt')"), HasSubstr("stands in another directory"));
  EXPECT_THAT(tar("all(); put('records.jsonl')"), HasSubstr("records.jsonl||is there twice"));
  EXPECT_THAT(tar("put('records.bin'); all(['records.bin'])"), HasSubstr("records.bin||stands before manifest.json"));
  // A terabyte that is not there: nothing is read of it, nothing made for it.
  EXPECT_THAT(tar("all(['records.bin']); i = tarfile.TarInfo('records.bin'); i.size = 1 << 40; t.fileobj.write(i.tobuf())"),
              HasSubstr("has 1099511627776 bytes"));
  EXPECT_THAT(tar("i = tarfile.TarInfo('README.txt'); i.size = 1 << 40; t.fileobj.write(i.tobuf())"),
              HasSubstr("is longer than 1 MiB"));
  EXPECT_THAT(tar("[fake('d%d' % i, tarfile.DIRTYPE) for i in range(2000)]"), HasSubstr("more than 1,000 entries"));
  EXPECT_THAT(tar("put('README.txt')"), HasSubstr("manifest.json||is missing"));
}

TEST_F(BundleCheck, ATarThatIsSpoiltIsNoCrash) {
  files_ = {"README.txt", "SHA256SUMS",    "checkpoint",    "checkpoint.pub", "consistency.proof", "manifest.json",
            "manifest.note", "records.bin", "records.csv", "records.jsonl",  "records.proof"};
  for (const bool compress : {false, true}) {
    const fs::path tar = pack(bundle_, compress);
    EXPECT_TRUE(check(tar).holds()) << told(check(tar));
    const std::string bytes = file_bytes(tar);
    const fs::path spoilt = dir_ / "spoilt";
    for (std::size_t i = 1; i < 12; ++i) {
      put_file(spoilt, bytes.substr(0, bytes.size() * i / 16));
      EXPECT_FALSE(check(spoilt).holds()) << "cut off at " << i << "/16";
    }
    for (std::size_t at = 300; at < bytes.size(); at += bytes.size() / 40) {
      std::string flipped = bytes;
      flipped[at] = static_cast<char>(flipped[at] ^ 0x20);
      put_file(spoilt, flipped);
      // Padding and the container's own fields say nothing; what the files say is what they said.
      const BundleReport report = check(spoilt);
      EXPECT_TRUE(!report.holds() || report.records == 18U) << at;
    }
  }
  put_file(dir_ / "junk", std::string(10'000, 'x'));
  EXPECT_FALSE(check(dir_ / "junk").holds());
}

}  // namespace
}  // namespace ledger::replay
