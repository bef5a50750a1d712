#include "replay/bundle_write.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "ledger/credentials.h"
#include "ledger/event_codec.h"
#include "ledger/node_hash.h"
#include "ledger/proof_file.h"
#include "replay/bundle_files.h"

namespace ledger::replay {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kFileMode = 0644;  // within a directory whose mode says who may read

Error cannot(const char* what, const fs::path& path) {
  return {Errc::io, std::string("cannot ") + what + " " + printable(path.string(), 300) + ": " + std::strerror(errno)};
}

// A file and its SHA-256.
class SummedFile {
 public:
  static Result<std::unique_ptr<SummedFile>> create(const fs::path& directory, std::string_view name) {
    auto file = std::make_unique<SummedFile>();
    file->path_ = directory / name;
    file->summed_.name = std::string(name);
    file->file_.reset(std::fopen(file->path_.c_str(), "wbxe"));
    if (file->file_ == nullptr || ::fchmod(fileno(file->file_.get()), kFileMode) != 0)
      return cannot("write", file->path_);
    return file;
  }

  bool write(std::string_view bytes) {
    sha256_.add(bytes);
    summed_.size += bytes.size();
    return std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) == bytes.size();
  }

  // On the disk when this returns.
  Result<BundleFile> finish() {
    if (std::fflush(file_.get()) != 0 || ::fsync(fileno(file_.get())) != 0) return cannot("write", path_);
    file_.reset();
    summed_.sha256 = sha256_.hex();
    return summed_;
  }

 private:
  struct Closing {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  fs::path path_;
  std::unique_ptr<std::FILE, Closing> file_;
  Sha256 sha256_;
  BundleFile summed_;
};

class Writer {
 public:
  Writer(const EventLog& log, const BundleOptions& options, const fs::path& directory)
      : log_(log), options_(options), directory_(directory) {}

  Result<WrittenBundle> write(const Progress& progress) {
    if (::mkdir(directory_.c_str(), 0700) != 0) return cannot("make", directory_);
    if (const Result<void> described = describe(); !described) return described.error();
    if (const Result<void> written = write_records(progress); !written) return written.error();
    if (const Result<void> proved = write_proof(); !proved) return proved.error();
    if (const Result<void> papers = write_papers(); !papers) return papers.error();
    if (const Result<void> closed = write_manifest(); !closed) return closed.error();
    const int fd = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool synced = fd >= 0 && ::fsync(fd) == 0;
    if (fd >= 0) ::close(fd);
    if (!synced) return cannot("sync", directory_);
    return std::move(out_);
  }

 private:
  Manifest& manifest() { return out_.manifest; }

  Result<void> describe() {
    const Result<Seqs> seqs = seqs_of(log_, options_.what.range);
    if (!seqs) return seqs.error();
    if (seqs->from > seqs->to) return Error{Errc::not_found, "no record is in that range"};
    if (options_.checkpoint.head.size < seqs->to)
      return Error{Errc::invalid, "the checkpoint does not cover record " + std::to_string(seqs->to)};
    manifest().ledger = log_.id();
    manifest().made_by = printable(options_.made_by, 200);
    manifest().program = "ledger " + options_.what.source.version;
    manifest().from = seqs->from;
    manifest().to = seqs->to;
    manifest().filter = options_.filter;
    manifest().redacted = options_.redacted;
    manifest().checkpoint = options_.checkpoint.head;
    if (options_.previous) manifest().previous = options_.previous->head;
    manifest().is_signed = options_.signer != nullptr;
    return {};
  }

  // What is done to each record on its way into records.jsonl.
  void see(Record& record) {
    if (stored_ != nullptr) {
      // A record has one stored form, so this is what the log holds; the proof would not hold for anything else.
      const std::string bytes = encode(record);
      written_ = written_ && stored_->write(frame_of(record.seq, bytes));
      if (!manifest().complete()) chosen_.push_back(record.seq);
    }
    if (options_.what.change) options_.what.change(record);
    if (extra_ != nullptr)
      written_ = written_ && extra_->write(audit_line(options_.what.format, record, options_.what.source));
    ++manifest().kinds[std::string(name_of(record.kind()))];
    if (manifest().records++ == 0) manifest().first_time = record.time;
    manifest().last_time = record.time;
  }

  Result<void> open(std::unique_ptr<SummedFile>& file, std::string_view name, std::string_view begin) {
    Result<std::unique_ptr<SummedFile>> made = SummedFile::create(directory_, name);
    if (!made) return made.error();
    file = std::move(*made);
    if (!file->write(begin)) return cannot("write", directory_ / name);
    return {};
  }

  Result<void> add(std::unique_ptr<SummedFile>& file) {
    if (file == nullptr) return {};
    Result<BundleFile> summed = file->finish();
    file.reset();
    if (!summed) return summed.error();
    manifest().files.push_back(std::move(*summed));
    return {};
  }

  Result<void> write_records(const Progress& progress) {
    std::unique_ptr<SummedFile> lines;
    if (const Result<void> opened = open(lines, kBundleLines, ""); !opened) return opened;
    if (manifest().proves())
      if (const Result<void> opened = open(stored_, kBundleRecords, kRecordsMagic); !opened) return opened;
    const AuditFormat format = options_.what.format;
    if (format != AuditFormat::jsonl)
      if (const Result<void> opened = open(extra_, extra_file_of(name_of(format)), audit_header(format)); !opened)
        return opened;
    ExportOptions what = options_.what;
    what.format = AuditFormat::jsonl;
    what.change = [this](Record& record) { see(record); };
    const auto sink = [&](std::string_view line) { return lines->write(line) && written_; };
    const Result<ExportReport> report = options_.node.empty()
                                            ? export_log(log_, what, sink, progress)
                                            : export_node(log_, options_.node, what, sink);
    if (!report) return report.error();
    if (report->hole_count > 0)
      return Error{Errc::corrupt, "record " + std::to_string(report->holes.empty() ? 0 : report->holes.front().seq) +
                                      " cannot be read, so nothing is handed out; `ledger verify` says what is damaged"};
    if (report->records == 0)
      return Error{Errc::not_found, "no record of the range is one of those that were asked for"};
    for (auto* file : {&lines, &stored_, &extra_})
      if (const Result<void> added = add(*file); !added) return added;
    return {};
  }

  bool has_any(std::uint64_t begin, std::uint64_t end) const {
    if (manifest_of().complete()) return begin < manifest_of().to && end >= manifest_of().from;
    const auto first = std::upper_bound(chosen_.begin(), chosen_.end(), begin);  // seq > begin: entry >= begin
    return first != chosen_.end() && *first <= end;
  }
  const Manifest& manifest_of() const { return out_.manifest; }

  Result<void> write_proof() {
    if (!manifest().proves()) return {};
    const std::uint64_t size = options_.checkpoint.head.size;
    std::unique_ptr<SummedFile> proof;
    const std::string begin = std::string(kProofMagic) + "size " + std::to_string(size) + "\n";
    if (const Result<void> opened = open(proof, kBundleProof, begin); !opened) return opened;
    const Result<void> proved = subset_proof(
        size, [this](std::uint64_t first, std::uint64_t end) { return has_any(first, end); }, log_.tree_nodes(),
        [&](const TreeHash& hash) { return proof->write(base64(view_of(hash)) + "\n"); });
    if (!proved) return proved;
    return add(proof);
  }

  Result<void> put(std::string_view name, std::string_view bytes) {
    std::unique_ptr<SummedFile> file;
    if (const Result<void> opened = open(file, name, bytes); !opened) return opened;
    return add(file);
  }

  // What does not grow with the records.
  Result<void> write_papers() {
    if (options_.previous) {
      const Checkpoint& older = *options_.previous;
      const Result<TreeProof> proof =
          consistency_proof(older.head.size, options_.checkpoint.head.size, log_.tree_nodes());
      if (!proof) return proof.error();
      const std::string text = consistency_file(*proof, older, options_.checkpoint);
      if (const Result<void> done = put(kBundleConsistency, text); !done) return done;
    }
    if (const Result<void> done = put(kBundleCheckpoint, options_.checkpoint.note.str()); !done) return done;
    if (const Result<void> done = put(kBundleKey, options_.key + "\n"); !done) return done;
    if (const Result<void> done = put(kBundleReadme, readme_text(manifest())); !done) return done;
    sort_files();
    if (const Result<void> done = put(kBundleSums, sums_text(manifest())); !done) return done;
    sort_files();
    return {};
  }

  void sort_files() {
    std::sort(manifest().files.begin(), manifest().files.end(),
              [](const BundleFile& a, const BundleFile& b) { return a.name < b.name; });
  }

  // Last: what has no manifest is no bundle.
  Result<void> write_manifest() {
    for (const bool large : {false, true})
      for (const BundleFile& file : manifest().files)
        if (*is_large_bundle_file(file.name) == large) out_.files.push_back(file.name);
    const auto records = std::find_if(out_.files.begin(), out_.files.end(),
                                      [](const std::string& name) { return *is_large_bundle_file(name); });
    const std::string text = manifest_text(manifest());
    out_.sha256 = sha256_hex(text);
    std::vector<std::string> papers{std::string(kBundleManifest)};
    if (options_.signer != nullptr) {
      SignedNote note;
      note.text = manifest_note_text(manifest(), out_.sha256);
      note.signatures.push_back(options_.signer->sign(note.text));
      if (const Result<void> done = put(kBundleManifestNote, note.str()); !done) return done;
      manifest().files.pop_back();
      papers.emplace_back(kBundleManifestNote);
    }
    if (const Result<void> done = put(kBundleManifest, text); !done) return done;
    manifest().files.pop_back();
    out_.files.insert(records, papers.begin(), papers.end());
    return {};
  }

  const EventLog& log_;
  const BundleOptions& options_;
  const fs::path& directory_;
  WrittenBundle out_;
  std::unique_ptr<SummedFile> stored_, extra_;
  std::vector<Seq> chosen_;
  bool written_ = true;
};

}  // namespace

Result<WrittenBundle> write_bundle(const EventLog& log, const BundleOptions& options, const fs::path& directory,
                                   const Progress& progress) {
  return Writer(log, options, directory).write(progress);
}

}  // namespace ledger::replay
