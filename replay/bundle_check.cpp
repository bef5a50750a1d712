#include "replay/bundle_check.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "ledger/credentials.h"
#include "ledger/event_codec.h"
#include "ledger/event_json.h"
#include "ledger/node_hash.h"
#include "ledger/proof_file.h"
#include "replay/audit_format.h"
#include "replay/bundle_files.h"

namespace ledger::replay {
namespace {

constexpr std::size_t kFindings = 100;
constexpr std::size_t kMaxLine = 64 << 20;
constexpr std::size_t kMaxHashLine = 100;

std::string at_record(Seq seq) { return "record " + std::to_string(seq); }
std::string at_line(std::uint64_t line) { return "line " + std::to_string(line); }

class Findings {
 public:
  explicit Findings(BundleReport& report) : report_(report) {}
  void add(std::string_view file, std::string where, std::string text) {
    if (report_.finding_count++ < kFindings)
      report_.findings.push_back({std::string(file), std::move(where), std::move(text)});
  }

 private:
  BundleReport& report_;
};

// ---- the records, the lines and the proof side by side ---------------------------------------------------

// records.jsonl beside the records that its lines should be. A line that is missing or too many is told once, and
// what follows is compared again.
class Lines {
 public:
  static Result<Lines> open(const std::filesystem::path& bundle) {
    Result<BundleStream> stream = BundleStream::open(bundle, kBundleLines);
    if (!stream) return stream.error();
    return Lines(std::move(*stream));
  }

  // `record` nullptr: it cannot be read, so its line is passed over.
  void compare(Seq seq, const Record* record, Findings& findings) {
    while (const std::string* line = peek(findings)) {
      const std::optional<Seq> said = seq_of(*line);
      if (record != nullptr && *line == to_json_line(*record) + "\n") return take();
      if (said && *said > seq) {
        if (record != nullptr) findings.add(kBundleLines, at_line(number_), at_record(seq) + " is missing before it");
        return;
      }
      if (!said || *said == seq) {
        if (record != nullptr) findings.add(kBundleLines, at_line(number_), fault_of(*line, *record));
        return take();
      }
      findings.add(kBundleLines, at_line(number_), at_record(*said) + " stands where it does not belong");
      take();
    }
    if (record != nullptr && !ended_) {
      findings.add(kBundleLines, "", "ends before " + at_record(seq));
      ended_ = true;
    }
  }

  void finish(Findings& findings) {
    if (peek(findings) != nullptr) findings.add(kBundleLines, at_line(number_), "there should be no more lines");
  }

  const std::string* peek(Findings& findings) {
    if (!line_ && !broken_) {
      Result<std::optional<std::string>> next = stream_.line(kMaxLine);
      ++number_;
      if (!next) findings.add(kBundleLines, at_line(number_), next.error().message);
      broken_ = !next;
      if (next) line_ = std::move(*next);
    }
    return line_ ? &*line_ : nullptr;
  }
  void take() { line_.reset(); }
  std::uint64_t number() const { return number_; }
  bool is_broken() const { return broken_; }

 private:
  explicit Lines(BundleStream stream) : stream_(std::move(stream)) {}

  static std::optional<Seq> seq_of(std::string_view line) {
    constexpr std::string_view kBegin = "{\"seq\":";
    Seq seq = 0;
    if (!line.starts_with(kBegin)) return std::nullopt;
    const auto [end, error] = std::from_chars(line.data() + kBegin.size(), line.data() + line.size(), seq);
    return error == std::errc() ? std::optional(seq) : std::nullopt;
  }

  // Which field differs, where that can be told.
  static std::string fault_of(const std::string& line, const Record& record) {
    const std::string begin = "is not " + at_record(record.seq) + " as it is stored";
    const Result<Record> said = record_from_json(line);
    if (!said) return begin + ": " + printable(said.error().message, 200);
    const boost::json::object theirs = to_json(*said), stored = to_json(record);
    for (const auto& [key, value] : stored) {
      const boost::json::value* other = theirs.if_contains(key);
      if (other == nullptr || *other != value) return begin + ": field " + std::string(key);
    }
    for (const auto& [key, value] : theirs)
      if (!stored.contains(key)) return begin + ": field " + std::string(key);
    return begin + ", although it says the same";
  }

  BundleStream stream_;
  std::optional<std::string> line_;
  std::uint64_t number_ = 0;
  bool broken_ = false, ended_ = false;
};

// records.<format> beside the same records: its bytes must be what we would write. Told once, then no more.
class Rows {
 public:
  static Result<Rows> open(const std::filesystem::path& bundle, AuditFormat format, const AuditSource& source) {
    Result<BundleStream> stream = BundleStream::open(bundle, extra_file_of(name_of(format)));
    if (!stream) return stream.error();
    return Rows(std::move(*stream), format, source);
  }
  void begin(Findings& findings) { expect(audit_header(format_), "the heading", findings); }
  void compare(const Record& record, Findings& findings) {
    expect(audit_line(format_, record, source_), at_record(record.seq), findings);
  }
  void finish(Findings& findings) {
    if (stopped_) return;
    const Result<std::string> more = stream_.bytes(1);
    if (!more || !more->empty()) findings.add(extra_file_of(name_of(format_)), "", "goes on after the last record");
  }
  void stop() { stopped_ = true; }

 private:
  Rows(BundleStream stream, AuditFormat format, AuditSource source)
      : stream_(std::move(stream)), format_(format), source_(std::move(source)) {}
  void expect(const std::string& row, const std::string& where, Findings& findings) {
    if (stopped_ || row.empty()) return;
    const Result<std::string> found = stream_.bytes(row.size());
    if (found && *found == row) return;
    stopped_ = true;
    findings.add(extra_file_of(name_of(format_)), where,
                 found ? "is not what the stored record says; what follows was not compared" : found.error().message);
  }

  BundleStream stream_;
  AuditFormat format_;
  AuditSource source_;
  bool stopped_ = false;
};

// What the records turned out to be, to compare with the manifest.
struct Counted {
  std::uint64_t records = 0;
  std::map<std::string, std::uint64_t> kinds;
  Time first, last;
  void add(const Record& record) {
    ++kinds[std::string(name_of(record.kind()))];
    if (records++ == 0) first = record.time;
    last = record.time;
  }
};

void compare_counts(const Manifest& manifest, const Counted& counted, std::string_view file, Findings& findings) {
  if (counted.records != manifest.records)
    findings.add(kBundleManifest, "", "says " + std::to_string(manifest.records) + " records; " + std::string(file) + " has " +
                                          std::to_string(counted.records));
  std::set<std::string> names;
  for (const auto& [kind, count] : manifest.kinds) names.insert(kind);
  for (const auto& [kind, count] : counted.kinds) names.insert(kind);
  const auto of = [](const auto& kinds, const std::string& kind) {
    const auto found = kinds.find(kind);
    return found == kinds.end() ? std::uint64_t{0} : found->second;
  };
  for (const std::string& kind : names)
    if (of(manifest.kinds, kind) != of(counted.kinds, kind))
      findings.add(kBundleManifest, "", "says " + std::to_string(of(manifest.kinds, kind)) + " records of kind " +
                                            printable(kind, 40) + "; there are " + std::to_string(of(counted.kinds, kind)));
  if (counted.records > 0 && (counted.first != manifest.first_time || counted.last != manifest.last_time))
    findings.add(kBundleManifest, "", "says other times than the first and the last record have");
}

// Walks records.bin from its first record to its last, and asks for the rest of the tree in between.
class StoredRecords {
 public:
  StoredRecords(const std::filesystem::path& bundle, const Manifest& manifest, const BundleCheckOptions& options,
                BundleReport& report, const Progress& progress)
      : bundle_(bundle), manifest_(manifest), options_(options), report_(report), findings_(report), progress_(progress) {}

  Result<void> check() {
    if (const Result<void> opened = open(); !opened) return opened;
    advance();
    const auto any = [this](std::uint64_t begin, std::uint64_t end) {
      return next_ && next_->seq > begin && next_->seq <= end;
    };
    const Result<TreeHash> root =
        root_of_subset(manifest_.checkpoint.size, any, [this] { return take_leaf(); }, [this] { return take_hash(); });
    while (next_) (void)take_leaf();
    const bool used_up = root && !broken_ && proof_ended();
    report_.is_proved = used_up && *root == manifest_.checkpoint.root;
    if (!root)
      findings_.add(kBundleProof, proof_lines_ == 0 ? "" : at_line(proof_lines_), root.error().message);
    else if (used_up && !report_.is_proved)
      findings_.add(kBundleRecords, "",
                    "these records are not those of the tree that the checkpoint has signed: at least one of them was "
                    "changed, or " + std::string(kBundleProof) + " was");
    lines_->finish(findings_);
    if (rows_) rows_->finish(findings_);
    if (!broken_) compare_counts(manifest_, counted_, kBundleRecords, findings_);
    report_.records = counted_.records;
    return {};
  }

 private:
  struct Stored {
    Seq seq = 0;
    std::string bytes;
  };

  Result<void> open() {
    Result<BundleStream> stored = BundleStream::open(bundle_, kBundleRecords);
    if (!stored) return stored.error();
    stored_.emplace(std::move(*stored));
    Result<BundleStream> proof = BundleStream::open(bundle_, kBundleProof);
    if (!proof) return proof.error();
    proof_.emplace(std::move(*proof));
    Result<Lines> lines = Lines::open(bundle_);
    if (!lines) return lines.error();
    lines_.emplace(std::move(*lines));
    if (const Result<void> rows = open_rows(); !rows) return rows;
    const Result<std::string> magic = stored_->bytes(kRecordsMagic.size());
    if (!magic || *magic != kRecordsMagic) stop("byte 0", "does not begin as stored records do");
    offset_ = kRecordsMagic.size();
    const std::string begin = std::string(kProofMagic) + "size " + std::to_string(manifest_.checkpoint.size) + "\n";
    const Result<std::string> found = proof_->bytes(begin.size());
    if (!found || *found != begin)
      findings_.add(kBundleProof, at_line(1), "does not begin as a proof for the checkpoint's tree does");
    proof_lines_ = 2;
    return {};
  }

  Result<void> open_rows() {
    for (const std::string& name : audit_format_names()) {
      if (name == "jsonl" || manifest_.find(extra_file_of(name)) == nullptr) continue;
      if (manifest_.program != "ledger " + options_.version) {
        report_.warnings.push_back(extra_file_of(name) + " was written by " + printable(manifest_.program, 60) +
                                   ", not by this version: its sum is right, its rows were not compared");
        return {};
      }
      Result<Rows> rows =
          Rows::open(bundle_, *audit_format_from_name(name), {.log = manifest_.ledger, .version = options_.version});
      if (!rows) return rows.error();
      rows_.emplace(std::move(*rows));
      rows_->begin(findings_);
    }
    return {};
  }

  void stop(const std::string& where, const std::string& text) {
    findings_.add(kBundleRecords, where, text + "; what follows was not looked at");
    next_.reset();
    broken_ = true;
    if (rows_) rows_->stop();
  }

  // The next record of records.bin into next_.
  void advance() {
    if (broken_) return;
    const std::string where = "byte " + std::to_string(offset_);
    const Seq last = next_ ? next_->seq : manifest_.from - 1;
    next_.reset();
    const Result<std::string> head = stored_->bytes(RecordFrame::kSize);
    if (!head) return stop(where, head.error().message);
    if (head->empty()) {
      if (manifest_.complete() && last != manifest_.to)
        stop("", "ends behind record " + std::to_string(last) + ", and the range ends with " +
                     std::to_string(manifest_.to));
      return;
    }
    if (head->size() < RecordFrame::kSize) return stop(where, "ends in the middle of a record");
    const RecordFrame frame = parse_frame(*head);
    if (frame.length > kMaxRecordBytes) return stop(where, "says that a record has " + std::to_string(frame.length) + " bytes");
    if (frame.seq <= last || frame.seq > manifest_.to)
      return stop(where, at_record(frame.seq) + " is out of order, or out of the range");
    if (manifest_.complete() && frame.seq != last + 1)
      return stop(where, at_record(last + 1) + " is missing; the next is " + std::to_string(frame.seq));
    Result<std::string> bytes = stored_->bytes(frame.length);
    if (!bytes) return stop(where, bytes.error().message);
    if (bytes->size() < frame.length) return stop(where, at_record(frame.seq) + " is cut off");
    offset_ += RecordFrame::kSize + frame.length;
    next_ = Stored{frame.seq, std::move(*bytes)};
  }

  Result<TreeHash> take_leaf() {
    const Stored stored = *next_;
    const TreeHash hash = leaf_hash(stored.bytes);
    const Result<Record> record = decode_record(stored.bytes);
    const bool is_record = record && record->seq == stored.seq;
    if (!record)
      findings_.add(kBundleRecords, at_record(stored.seq), "cannot be read: " + printable(record.error().message, 200));
    else if (!is_record)
      findings_.add(kBundleRecords, at_record(stored.seq), "says that it is record " + std::to_string(record->seq));
    lines_->compare(stored.seq, is_record ? &*record : nullptr, findings_);
    if (is_record && rows_) rows_->compare(*record, findings_);
    if (!is_record && rows_) rows_->stop();
    if (is_record) counted_.add(*record);
    if (progress_ && counted_.records % 4096 == 0) progress_(counted_.records, manifest_.records);
    advance();
    return hash;
  }

  Result<TreeHash> take_hash() {
    // What cannot be read further is told already, and leads to no root.
    if (broken_) return TreeHash{};
    const Result<std::optional<std::string>> line = proof_->line(kMaxHashLine);
    ++proof_lines_;
    if (!line) return line.error();
    if (!*line) return Error{Errc::invalid, "the proof ends too early"};
    const Result<Secret> bytes = decode_base64_text(trim(**line));
    const Result<TreeHash> hash = tree_hash_from(bytes ? bytes->reveal() : std::string_view());
    if (!hash || **line != base64(view_of(*hash)) + "\n") return Error{Errc::invalid, "this is no line of a hash"};
    return hash;
  }

  bool proof_ended() {
    const Result<std::string> more = proof_->bytes(1);
    if (more && more->empty()) return true;
    findings_.add(kBundleProof, at_line(proof_lines_ + 1), "there should be no more lines");
    return false;
  }

  const std::filesystem::path& bundle_;
  const Manifest& manifest_;
  const BundleCheckOptions& options_;
  BundleReport& report_;
  Findings findings_;
  const Progress& progress_;
  std::optional<BundleStream> stored_, proof_;
  std::optional<Lines> lines_;
  std::optional<Rows> rows_;
  std::optional<Stored> next_;
  std::uint64_t offset_ = 0, proof_lines_ = 0;
  bool broken_ = false;
  Counted counted_;
};

// ---- the whole -------------------------------------------------------------------------------------------

class Check {
 public:
  Check(const std::filesystem::path& bundle, const BundleCheckOptions& options, const Progress& progress)
      : bundle_(bundle), options_(options), progress_(progress) {}

  Result<BundleReport> run() {
    if (const Result<void> looked = look(); !looked) return looked.error();
    if (!report_.manifest) return std::move(report_);
    check_files();
    if (choose_key()) {
      check_signatures();
      check_growth();
      check_earlier();
    }
    if (const Result<void> checked = check_records(); !checked)
      findings_.add("", "", "cannot be read to its end: " + checked.error().message);
    return std::move(report_);
  }

 private:
  struct Seen {
    std::uint64_t size = 0;
    std::string sha256, bytes;  // bytes of small files only
  };

  // One pass over all files.
  Result<void> look() {
    Result<std::unique_ptr<BundleReader>> reader = open_bundle(bundle_);
    if (!reader) return reader.error();
    for (;;) {
      const Result<std::optional<BundleEntry>> entry = (*reader)->next();
      if (!entry) {
        if (seen_.empty() && report_.finding_count == 0) return entry.error();
        findings_.add("", "", entry.error().message);
        break;
      }
      if (!*entry) break;
      if (const Result<void> looked = look_at(**entry, **reader); !looked) {
        findings_.add((*entry)->name, "", looked.error().message);
        break;
      }
    }
    if (!seen_.contains(kBundleManifest)) findings_.add(kBundleManifest, "", "is missing; without it this is no bundle");
    return {};
  }

  Result<void> look_at(const BundleEntry& entry, BundleReader& reader) {
    const std::optional<bool> large = is_large_bundle_file(entry.name);
    std::string problem = entry.problem;
    if (problem.empty() && !large) problem = "is no file of a bundle";
    if (problem.empty() && !*large && entry.size > kMaxSmallFile) problem = "is longer than 1 MiB";
    if (problem.empty() && *large) problem = fault_of_large(entry);
    if (!problem.empty()) {
      findings_.add(entry.name, "", problem);
      return {};
    }
    Seen seen;
    Sha256 sha256;
    for (;;) {
      const Result<std::string_view> block = reader.read();
      if (!block) return block.error();
      if (block->empty()) break;
      seen.size += block->size();
      if (seen.size > entry.size) return Error{Errc::corrupt, "is longer than it says"};
      sha256.add(*block);
      if (!*large) seen.bytes.append(*block);
    }
    seen.sha256 = sha256.hex();
    if (entry.name == kBundleManifest) read_manifest(seen.bytes);
    seen_.emplace(entry.name, std::move(seen));
    return {};
  }

  // Such a file is read only when the manifest vouches for its size.
  std::string fault_of_large(const BundleEntry& entry) const {
    if (!report_.manifest)
      return report_.finding_count > 0 ? "was not looked at"
                                       : "stands before manifest.json in the tar; unpack it, and check the directory";
    const BundleFile* file = report_.manifest->find(entry.name);
    if (file == nullptr) return "is not in the manifest";
    // A file of nearly the right size is looked at, to say where it differs.
    if (entry.size / 2 > file->size + kMaxSmallFile)
      return "has " + std::to_string(entry.size) + " bytes; the manifest says " + std::to_string(file->size);
    return "";
  }

  void read_manifest(const std::string& text) {
    Result<Manifest> manifest = parse_manifest(text);
    if (manifest)
      report_.manifest = std::move(*manifest);
    else
      findings_.add(kBundleManifest, "", "cannot be used: " + manifest.error().message);
  }

  const std::string* bytes_of(std::string_view name) const {
    const auto found = seen_.find(name);
    return found == seen_.end() ? nullptr : &found->second.bytes;
  }

  void check_files() {
    const Manifest& manifest = *report_.manifest;
    const auto told = [&](std::string_view name) {
      return std::any_of(report_.findings.begin(), report_.findings.end(),
                         [&](const BundleFinding& finding) { return finding.file == name; });
    };
    for (const BundleFile& file : manifest.files) {
      const auto found = seen_.find(file.name);
      if (found == seen_.end() && !told(file.name)) findings_.add(file.name, "", "is missing");
      if (found == seen_.end()) continue;
      if (found->second.size != file.size)
        findings_.add(file.name, "", "has " + std::to_string(found->second.size) + " bytes; the manifest says " +
                                         std::to_string(file.size));
      else if (found->second.sha256 != file.sha256)
        findings_.add(file.name, "", "is not the file that the manifest lists: its SHA-256 is " + found->second.sha256);
    }
    for (const auto& [name, seen] : seen_)
      if (name != kBundleManifest && name != kBundleManifestNote && manifest.find(name) == nullptr)
        findings_.add(name, "", "is not in the manifest");
    if (const std::string* sums = bytes_of(kBundleSums); sums != nullptr && *sums != sums_text(manifest))
      findings_.add(kBundleSums, "", "lists other sums than the manifest");
  }

  // False: there is none, so no signature can be looked at.
  bool choose_key() {
    const std::string* inside = bytes_of(kBundleKey);
    const Result<NoteVerifier> own =
        inside != nullptr ? NoteVerifier::parse(*inside) : Result<NoteVerifier>(Error{Errc::not_found, ""});
    if (inside != nullptr && !own) findings_.add(kBundleKey, "", "is no public key: " + own.error().message);
    if (options_.key && own && own->str() != options_.key->str())
      findings_.add(kBundleKey, "", "is key " + own->key_id() + " of " + printable(own->name(), 100) +
                                        ", not the key that you trust (" + options_.key->key_id() + " of " +
                                        options_.key->name() + ")");
    report_.is_key_trusted = options_.key.has_value();
    if (options_.key)
      key_ = options_.key;
    else if (own)
      key_ = *own;
    if (!key_) return false;
    report_.key_id = key_->key_id();
    if (key_->name() != origin_of(report_.manifest->ledger))
      findings_.add(kBundleManifest, "", "is about the log " + printable(report_.manifest->ledger, 40) +
                                             ", the key is that of " + printable(key_->name(), 100));
    if (!report_.is_key_trusted)
      report_.warnings.push_back("the key is the one inside the bundle: this shows that the parts fit together, not whose "
                                 "they are; give the key that you know from elsewhere with --key");
    return true;
  }

  void check_signatures() {
    const Manifest& manifest = *report_.manifest;
    if (const std::string* text = bytes_of(kBundleCheckpoint)) {
      const Result<Checkpoint> checkpoint = open_checkpoint(*text, *key_);
      if (!checkpoint)
        findings_.add(kBundleCheckpoint, "", checkpoint.error().message);
      else if (checkpoint->head != manifest.checkpoint)
        findings_.add(kBundleCheckpoint, "", "is one of " + std::to_string(checkpoint->head.size) +
                                                 " records; the manifest says another, of " +
                                                 std::to_string(manifest.checkpoint.size));
      else
        has_checkpoint_ = true;
    }
    const std::string* note = bytes_of(kBundleManifestNote);
    if (!manifest.is_signed) {
      if (note != nullptr) findings_.add(kBundleManifestNote, "", "is there although the manifest says that it is not signed");
      report_.warnings.push_back("the manifest is not signed: who chose these records and wrote the rest is not known; "
                                 "the records themselves are proved by the checkpoint");
      return;
    }
    if (note == nullptr) return findings_.add(kBundleManifestNote, "", "is missing, and the manifest says that it is signed");
    const Result<SignedNote> parsed = parse_note(*note);
    const Result<void> checked = parsed ? check_note(*parsed, *key_) : parsed.error();
    if (!checked)
      findings_.add(kBundleManifestNote, "", checked.error().message);
    else if (parsed->text != manifest_note_text(manifest, seen_.at(std::string(kBundleManifest)).sha256))
      findings_.add(kBundleManifest, "", "is not the one that was signed (manifest.note has another SHA-256)");
  }

  void check_growth() {
    const Manifest& manifest = *report_.manifest;
    const std::string* text = bytes_of(kBundleConsistency);
    if (text == nullptr || !manifest.previous) return;
    const Result<Proven> proven = check_proof(*text, *key_);
    if (!proven)
      findings_.add(kBundleConsistency, "", proven.error().message);
    else if (!proven->older || proven->checkpoint.head != manifest.checkpoint)
      findings_.add(kBundleConsistency, "", "is about another checkpoint than the bundle's");
    else if (proven->older->head != *manifest.previous)
      findings_.add(kBundleConsistency, "", "begins with another checkpoint than the manifest says");
    else
      report_.has_grown = true;
  }

  // What the auditor has from before.
  void check_earlier() {
    if (!options_.earlier) return;
    const Manifest& manifest = *report_.manifest;
    const EarlierBundle& earlier = *options_.earlier;
    const std::string name = "--previous " + printable(earlier.where, 200);
    if (const Result<Checkpoint> opened = open_checkpoint(earlier.checkpoint.note.str(), *key_); !opened)
      return findings_.add("", name, opened.error().message);
    const TreeHead& head = earlier.checkpoint.head;
    const bool same = head == manifest.checkpoint;
    if (!same && (!report_.has_grown || *manifest.previous != head))
      return findings_.add(kBundleConsistency, "", grown_fault(name, head));
    if (!manifest.complete() || !earlier.to) return;
    if (manifest.from > *earlier.to + 1)
      report_.warnings.push_back("records " + std::to_string(*earlier.to + 1) + " to " + std::to_string(manifest.from - 1) +
                                 " are in neither bundle");
  }

  std::string grown_fault(const std::string& name, const TreeHead& head) const {
    const Manifest& manifest = *report_.manifest;
    const std::string theirs = name + " (" + std::to_string(head.size) + " records)";
    if (!report_.has_grown)
      return "does not show that the log of " + theirs + " is the beginning of this one: there is no sound proof of growth";
    if (manifest.previous->size == head.size)
      return "begins with a log of the same size as " + theirs + " but with other records: the log was rewritten";
    return "begins with the log of " + std::to_string(manifest.previous->size) + " records, not with that of " + theirs +
           "; ask for a bundle made with --since-bundle of the one that you have";
  }

  Result<void> check_records() {
    const Manifest& manifest = *report_.manifest;
    if (!seen_.contains(kBundleLines)) return {};
    if (!manifest.proves()) return check_redacted();
    if (!seen_.contains(kBundleRecords) || !seen_.contains(kBundleProof)) return {};
    StoredRecords records(bundle_, manifest, options_, report_, progress_);
    const Result<void> checked = records.check();
    report_.is_proved = report_.is_proved && has_checkpoint_;
    return checked;
  }

  // Nothing to compare the lines with: they must be records of the range, in order, as many as the manifest says.
  Result<void> check_redacted() {
    const Manifest& manifest = *report_.manifest;
    report_.warnings.push_back("names or addresses are replaced by pseudonyms, so the records cannot be proved: that they are "
                               "the log's is the word of who signed the manifest");
    Result<Lines> lines = Lines::open(bundle_);
    if (!lines) return lines.error();
    Counted counted;
    Seq last = manifest.from - 1;
    while (const std::string* line = lines->peek(findings_)) {
      const Result<Record> record = record_from_json(*line);
      const std::string where = at_line(lines->number());
      if (!record)
        findings_.add(kBundleLines, where, printable(record.error().message, 200));
      else if (record->seq <= last || record->seq > manifest.to || (manifest.complete() && record->seq != last + 1))
        findings_.add(kBundleLines, where, at_record(record->seq) + " is out of order, or one before it is missing");
      if (record) counted.add(*record), last = std::max(last, record->seq);
      lines->take();
    }
    if (!lines->is_broken()) compare_counts(manifest, counted, kBundleLines, findings_);
    report_.records = counted.records;
    return {};
  }

  const std::filesystem::path& bundle_;
  const BundleCheckOptions& options_;
  const Progress& progress_;
  BundleReport report_;
  Findings findings_{report_};
  std::map<std::string, Seen, std::less<>> seen_;
  std::optional<NoteVerifier> key_;
  bool has_checkpoint_ = false;
};

}  // namespace

Result<EarlierBundle> read_earlier(const std::filesystem::path& path) {
  const auto named = [&](const Error& error) {
    return Error{error.code, printable(path.string(), 200) + ": " + error.message};
  };
  EarlierBundle earlier;
  earlier.where = path.string();
  // A checkpoint is a short text; a bundle is neither short nor one.
  if (!std::filesystem::is_directory(path)) {
    const Result<std::string> text = read_file(path, kMaxSmallFile);
    if (!text && text.error().code == Errc::not_found) return named(text.error());
    Result<Checkpoint> checkpoint = text ? parse_checkpoint(*text) : text.error();
    if (checkpoint) {
      earlier.checkpoint = std::move(*checkpoint);
      return earlier;
    }
  }
  const Result<std::string> text = read_bundle_file(path, kBundleCheckpoint, kMaxSmallFile);
  if (!text) return named(text.error());
  Result<Checkpoint> checkpoint = parse_checkpoint(*text);
  if (!checkpoint) return named(checkpoint.error());
  earlier.checkpoint = std::move(*checkpoint);
  const Result<std::string> manifest = read_bundle_file(path, kBundleManifest, kMaxSmallFile);
  const Result<Manifest> parsed = manifest ? parse_manifest(*manifest) : manifest.error();
  if (parsed && parsed->complete()) earlier.to = parsed->to;
  return earlier;
}

Result<BundleReport> check_bundle(const std::filesystem::path& bundle, const BundleCheckOptions& options,
                                  const Progress& progress) {
  return Check(bundle, options, progress).run();
}

}  // namespace ledger::replay
