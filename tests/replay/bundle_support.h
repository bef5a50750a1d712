// A log with a record of every kind, its signer, bundles of it, and the forger's tools.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "ledger/credentials.h"
#include "replay/bundle_check.h"
#include "replay/bundle_files.h"
#include "replay/bundle_write.h"
#include "tests/replay/replay_support.h"
#include "tests/support/paths.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger::replay::test {

namespace fs = std::filesystem;
using ledger::test::file_bytes;
using ledger::test::put_file;

// tests/golden/v3, one record of each kind there is, numbered from 1.
inline std::vector<Record> every_kind() {
  std::vector<fs::path> files;
  for (const auto& file : fs::directory_iterator(ledger::test::source_dir() + "/tests/golden/v3"))
    if (file.path().extension() == ".json") files.push_back(file.path());
  std::sort(files.begin(), files.end());
  std::vector<Record> records;
  for (const fs::path& file : files) {
    Result<Record> record = record_from_json(trim(file_bytes(file)));
    if (!record) continue;  // of a node's state
    record->seq = records.size() + 1;
    record->time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(records.size()));
    records.push_back(std::move(*record));
  }
  return records;
}

class BundleTest : public ::testing::Test {
 protected:
  BundleTest() : signer_(*NoteSigner::make(origin_of(memory_.log().id()))) { memory_.append(every_kind()); }

  const EventLog& log() const { return memory_.log(); }
  Seq head() const { return log().head(); }

  static Checkpoint sign(const NoteSigner& signer, const TreeHead& head) {
    Checkpoint checkpoint;
    checkpoint.origin = signer.verifier().name();
    checkpoint.head = head;
    checkpoint.note.text = checkpoint_text(checkpoint.origin, head);
    checkpoint.note.signatures.push_back(signer.sign(checkpoint.note.text));
    return checkpoint;
  }
  Checkpoint at(std::uint64_t size) const { return sign(signer_, {size, *root_at(size, log().tree_nodes())}); }

  BundleOptions options(Seq from, Seq to, std::uint64_t size = 0) const {
    BundleOptions options;
    options.what.range = {.from = {.seq = from, .time = {}}, .to = {.seq = to, .time = {}}};
    options.what.source = {.log = log().id(), .version = "0.1.0"};
    options.made_by = "alice@srv";
    options.checkpoint = at(size == 0 ? to : size);
    options.key = signer_.verifier().str();
    options.signer = &signer_;
    return options;
  }
  fs::path write(const BundleOptions& how, const std::string& name = "bundle") {
    const fs::path path = dir_ / name;
    const Result<WrittenBundle> written = write_bundle(log(), how, path);
    if (!written) ADD_FAILURE() << written.error().message;
    if (written) files_ = written->files;
    return path;
  }
  fs::path pack(const fs::path& bundle, bool compress = false) {
    const fs::path tar = bundle.string() + (compress ? ".tar.zst" : ".tar");
    const Result<void> packed = pack_bundle(bundle, files_, "evidence", Time{1'700'000'000'000'000}, tar, compress);
    if (!packed) ADD_FAILURE() << packed.error().message;
    return tar;
  }

  BundleReport check(const fs::path& bundle, BundleCheckOptions how) const {
    how.version = "0.1.0";
    const Result<BundleReport> report = check_bundle(bundle, how);
    if (report) return *report;
    BundleReport none;
    none.finding_count = 1;
    none.findings.push_back({"", "", report.error().message});
    return none;
  }
  BundleReport check(const fs::path& bundle) const { return check(bundle, {.key = signer_.verifier()}); }
  static std::string told(const BundleReport& report) {
    std::string text;
    for (const BundleFinding& found : report.findings)
      text += found.file + "|" + found.where + "|" + found.text + "\n";
    return text;
  }
  // What the checker that shares nothing with ours says.
  static std::string python(const fs::path& bundle, const std::string& key = "") {
    return ledger::test::run_command("python3 -B " + ledger::test::source_dir() +
                                     "/tests/support/check_bundle.py '" + bundle.string() + "' " +
                                     (key.empty() ? "" : "'" + key + "'"))
        .output;
  }
  fs::path copy(const fs::path& bundle, const std::string& name) const {
    fs::remove_all(dir_ / name);
    fs::copy(bundle, dir_ / name, fs::copy_options::recursive);
    return dir_ / name;
  }
  static void change(const fs::path& file, const std::string& from, const std::string& to) {
    std::string bytes = file_bytes(file);
    ASSERT_NE(bytes.find(from), std::string::npos) << file;
    put_file(file, bytes.replace(bytes.find(from), from.size(), to));
  }
  static void flip(const fs::path& file, std::size_t at) {
    std::string bytes = file_bytes(file);
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    put_file(file, bytes);
  }
  // What a forger does who knows the format: sums that fit, and the signature of whoever he has a key of.
  static void seal(const fs::path& bundle, const NoteSigner* signer,
                   const std::function<void(Manifest&)>& edit = {}) {
    Result<Manifest> manifest = parse_manifest(file_bytes(bundle / "manifest.json"));
    ASSERT_TRUE(manifest) << manifest.error().message;
    manifest->is_signed = signer != nullptr;
    if (edit) edit(*manifest);
    for (const std::string_view last : {std::string_view(), kBundleSums})
      for (BundleFile& file : manifest->files) {
        if ((file.name == kBundleSums) != (last == kBundleSums)) continue;
        if (file.name == kBundleSums) put_file(bundle / file.name, sums_text(*manifest));
        const std::string bytes = file_bytes(bundle / file.name);
        file.size = bytes.size();
        file.sha256 = sha256_hex(bytes);
      }
    const std::string text = manifest_text(*manifest);
    put_file(bundle / "manifest.json", text);
    fs::remove(bundle / "manifest.note");
    if (signer == nullptr) return;
    SignedNote note;
    note.text = manifest_note_text(*manifest, sha256_hex(text));
    note.signatures.push_back(signer->sign(note.text));
    put_file(bundle / "manifest.note", note.str());
  }

  MemoryLog memory_;
  NoteSigner signer_;
  ledger::test::TempDir dir_;
  std::vector<std::string> files_;
};

}  // namespace ledger::replay::test
