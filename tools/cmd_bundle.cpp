// `ledger export --bundle` and `ledger verify-bundle`: a part of the log for somebody who trusts nobody here.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "api/operator_client.h"
#include "ledger/credentials.h"
#include "ledger/file_descriptor.h"
#include "ledger/ledger.h"
#include "ledger/node_hash.h"
#include "ledger/operator.h"
#include "replay/bundle_check.h"
#include "replay/bundle_files.h"
#include "replay/bundle_write.h"
#include "tools/bundle_command.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr unsigned kPublicMode = 0644;
constexpr const char* kBundleFormat = "bundle";

std::string shown(const fs::path& path) { return printable(path.string(), 300); }

Error cannot(const char* what, const fs::path& path) {
  return {Errc::io, std::string("cannot ") + what + " " + shown(path) + ": " + std::strerror(errno)};
}

// The checkpoint of the last bundle: where the next one's proof of growth begins.
fs::path exported_checkpoint_file(const fs::path& data_dir) { return data_dir / "checkpoints" / "exported"; }

// ---- the record of an export -----------------------------------------------------------------------------

Result<Seq> record_on_server(const fs::path& data_dir, const ExportCreated& exported, const std::string& note) {
  Result<api::OperatorClient> client =
      api::OperatorClient::open({.url = {}, .data_dir = data_dir, .token_file = {}, .ca_file = {}});
  if (!client) return client.error();
  const json::object body{{"actor", exported.actor},   {"reason", note},
                          {"from", exported.from},     {"to", exported.to},
                          {"format", exported.format}, {"sha256", exported.sha256}};
  return api::seq_in(client->post("/ledger/v1/exports", json::serialize(body)));
}

Result<Seq> record_on_log(Ledger& ledger, const ExportCreated& exported, const std::string& note) {
  const Result<Committed> done = record_export(
      ledger, exported, {.actor = exported.actor, .reason = note, .force = false, .request_id = {}, .source = {}});
  if (!done) return done.error();
  if (const Result<void> closed = ledger.close(); !closed) return closed.error();
  return done->last();
}

Result<std::string> sha256_of_file(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  Sha256 sha256;
  std::vector<char> block(1 << 16);
  while (in.read(block.data(), static_cast<std::streamsize>(block.size())) || in.gcount() > 0)
    sha256.add({block.data(), static_cast<std::size_t>(in.gcount())});
  if (in.bad() || !in.eof()) return cannot("read", file);
  return sha256.hex();
}

// ---- what a bundle rests on ------------------------------------------------------------------------------

// The checkpoints of a data directory, and the key where it can be read.
class Notary {
 public:
  // Before the log is looked at: a server's checkpoints are then never newer than what is read of it.
  static Result<Notary> open(const fs::path& data_dir) {
    Result<NoteVerifier> key = read_checkpoint_key(checkpoint_public_file(data_dir));
    if (!key)
      return Error{key.error().code, "there is no checkpoint key (" + key.error().message +
                                         "): a server of this release makes one when it starts"};
    Notary notary(std::move(*key));
    for (const auto& file : {all_checkpoints_file(data_dir), latest_checkpoint_file(data_dir)}) {
      const Result<std::vector<Checkpoint>> some = read_checkpoints(file, notary.key_);
      if (!some) return some.error();
      notary.checkpoints_.insert(notary.checkpoints_.end(), some->begin(), some->end());
    }
    Result<NoteSigner> signer = read_checkpoint_signer(data_dir);
    if (signer && signer->verifier().str() == notary.key_.str()) notary.signer_.emplace(std::move(*signer));
    notary.data_dir_ = data_dir;
    return notary;
  }

  const NoteVerifier& key() const { return key_; }
  const NoteSigner* signer() const { return signer_ ? &*signer_ : nullptr; }

  // The last record that a checkpoint can cover: any when we can sign.
  Result<Seq> last(const EventLog& log) const {
    if (signer_) return log.head();
    Seq last = 0;
    for (const Checkpoint& checkpoint : checkpoints_)
      if (checkpoint.head.size <= log.head()) last = std::max(last, checkpoint.head.size);
    if (last == 0)
      return Error{Errc::not_found, "no checkpoint has been signed yet, and " +
                                        shown(checkpoint_key_file(data_dir_)) +
                                        " cannot be read to sign one; run this as the owner of the data directory"};
    return last;
  }

  // The smallest stored one that covers the record; else one that is signed now.
  Result<Checkpoint> covering(const EventLog& log, Seq seq) const {
    const Checkpoint* best = nullptr;
    for (const Checkpoint& checkpoint : checkpoints_)
      if (checkpoint.head.size >= seq && checkpoint.head.size <= log.head() &&
          (best == nullptr || checkpoint.head.size <= best->head.size))
        best = &checkpoint;
    if (best != nullptr) return *best;
    if (!signer_)
      return Error{Errc::not_found, "no checkpoint covers record " + std::to_string(seq) + " yet, and " +
                                        shown(checkpoint_key_file(data_dir_)) +
                                        " cannot be read to sign one; wait some minutes, or end earlier (--to)"};
    const Result<TreeHash> root = root_at(seq, log.tree_nodes());
    if (!root) return root.error();
    Checkpoint checkpoint;
    checkpoint.origin = key_.name();
    checkpoint.head = {seq, *root};
    checkpoint.note.text = checkpoint_text(checkpoint.origin, checkpoint.head);
    checkpoint.note.signatures.push_back(signer_->sign(checkpoint.note.text));
    return checkpoint;
  }

 private:
  explicit Notary(NoteVerifier key) : key_(std::move(key)) {}
  fs::path data_dir_;
  NoteVerifier key_;
  std::optional<NoteSigner> signer_;
  std::vector<Checkpoint> checkpoints_;
};

// Whether this log is the one that the checkpoint saw, or has grown out of it.
Result<void> fits(const EventLog& log, const Checkpoint& earlier, const NoteVerifier& key) {
  if (const Result<Checkpoint> opened = open_checkpoint(earlier.note.str(), key); !opened) return opened.error();
  if (earlier.head.size > log.head())
    return Error{Errc::conflict, "it saw " + std::to_string(earlier.head.size) + " records, and the log has " +
                                     std::to_string(log.head())};
  const Result<TreeHash> root = root_at(earlier.head.size, log.tree_nodes());
  if (!root) return root.error();
  if (*root != earlier.head.root)
    return Error{Errc::conflict, "it saw other records than the log has; run `ledger verify`"};
  return {};
}

// The checkpoint that the bundle's proof of growth begins with: of --since-bundle, else of the last bundle.
Result<std::optional<Checkpoint>> earlier_of(const EventLog& log, const BundleRequest& request,
                                             const Notary& notary, const TreeHead& head,
                                             std::optional<Seq>& continues_behind) {
  const std::string& since = request.arguments.since;
  if (!since.empty()) {
    Result<replay::EarlierBundle> earlier = replay::read_earlier(since);
    if (!earlier) return Error{earlier.error().code, "--since-bundle: " + earlier.error().message};
    if (const Result<void> checked = fits(log, earlier->checkpoint, notary.key()); !checked)
      return Error{checked.error().code, "--since-bundle " + shown(since) + ": " + checked.error().message};
    continues_behind = earlier->to;
    return std::optional(std::move(earlier->checkpoint));
  }
  const Result<std::string> text = read_file(exported_checkpoint_file(request.data_dir));
  if (!text) return std::optional<Checkpoint>();
  Result<Checkpoint> checkpoint = parse_checkpoint(*text);
  const Result<void> checked = checkpoint ? fits(log, *checkpoint, notary.key()) : checkpoint.error();
  if (checked && checkpoint->head.size <= head.size) return std::optional(std::move(*checkpoint));
  if (!checked)
    std::fprintf(stderr, "ledger: the last bundle's checkpoint (%s) is left out: %s\n",
                 shown(exported_checkpoint_file(request.data_dir)).c_str(), checked.error().message.c_str());
  return std::optional<Checkpoint>();
}

// ---- making one ------------------------------------------------------------------------------------------

// What is under way, under names that no bundle has; gone when it was not completed.
class Workplace {
 public:
  explicit Workplace(const fs::path& path)
      : directory_(path.string() + ".part"), tar_(path.string() + ".part.tar") {}
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;
  ~Workplace() {
    std::error_code ignored;
    if (!ours_) return;
    fs::remove_all(directory_, ignored);
    fs::remove(tar_, ignored);
  }
  Result<void> take(const fs::path& path) {
    std::error_code error;
    if (fs::exists(fs::symlink_status(path, error)))
      return Error{Errc::conflict, shown(path) + " is there already; name another path"};
    for (const fs::path& part : {directory_, tar_})
      if (fs::exists(fs::symlink_status(part, error)))
        return Error{Errc::conflict,
                     shown(part) + " is there: another export is under way, or one was cut off; remove it then"};
    ours_ = true;
    return {};
  }
  const fs::path& directory() const { return directory_; }
  const fs::path& tar() const { return tar_; }

 private:
  fs::path directory_, tar_;
  bool ours_ = false;
};

Result<void> sync_directory(const fs::path& directory) {
  const fs::path path = directory.empty() ? fs::path(".") : directory;
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.ok() || ::fsync(fd.get()) != 0) return cannot("sync", path);
  return {};
}

class Making {
 public:
  Making(const EventLog& log, const BundleRequest& request)
      : log_(log), request_(request), path_(without_slash(request.arguments.path)), place_(path_) {}

  Result<Seq> run() {
    if (const Result<void> free = place_.take(path_); !free) return free.error();
    Result<Notary> notary = Notary::open(request_.data_dir);
    if (!notary) return notary.error();
    notary_.emplace(std::move(*notary));
    if (const Result<void> written = write(); !written) return written.error();
    if (const Result<void> checked = check(); !checked) return checked.error();
    const Result<Seq> recorded = record();
    if (!recorded) return recorded.error();
    if (const Result<void> confirmed = confirm(); !confirmed) return confirmed.error();
    if (const Result<void> named = publish(); !named) return named.error();
    return *recorded;
  }

  const replay::Manifest& manifest() const { return bundle_.manifest; }
  bool is_signed() const { return notary_ && notary_->signer() != nullptr; }

 private:
  static fs::path without_slash(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    return path;
  }
  bool is_tar() const { return replay::is_tar_name(path_.string()); }
  const fs::path& made() const { return is_tar() ? place_.tar() : place_.directory(); }

  Result<void> write() {
    replay::BundleOptions options;
    options.what = request_.what;
    const Result<Seq> last = notary_->last(log_);
    if (!last) return last.error();
    std::optional<Checkpoint> earlier;
    std::optional<Seq> behind;
    if (const Result<void> begun = begin(options, *last, earlier, behind); !begun) return begun;
    const bool hides_names = std::count(request_.redacted.begin(), request_.redacted.end(), "names") > 0;
    if (!request_.redacted.empty() && !is_signed())
      return Error{Errc::unavailable, "a redacted bundle is worth nothing without a signature, and " +
                                          shown(checkpoint_key_file(request_.data_dir)) + " cannot be read"};
    options.node = request_.node;
    options.filter = filter_in_words(request_, hides_names);
    options.redacted = request_.redacted;
    if (!hides_names) options.made_by = request_.arguments.actor;
    options.key = notary_->key().str();
    options.signer = notary_->signer();
    options.previous = std::move(earlier);
    ProgressLine progress("exporting");
    Result<replay::WrittenBundle> written =
        replay::write_bundle(log_, options, place_.directory(), std::ref(progress));
    if (!written) return written.error();
    bundle_ = std::move(*written);
    checkpoint_ = options.checkpoint;
    if (!is_tar()) return {};
    const std::string top = fmt::format("ledger-{}-{}-{}", log_.id(), manifest().from, manifest().to);
    return replay::pack_bundle(place_.directory(), bundle_.files, top, manifest().last_time, place_.tar(),
                               path_.extension() == ".zst");
  }

  // Range, checkpoint and what came before.
  Result<void> begin(replay::BundleOptions& options, Seq last, std::optional<Checkpoint>& earlier,
                     std::optional<Seq>& behind) {
    replay::ExportRange& range = options.what.range;
    const bool has_begin = range.from.seq || range.from.time;
    if (!range.to.seq && !range.to.time) range.to.seq = last;
    if (!has_begin && !request_.arguments.since.empty()) {
      const Result<std::optional<Checkpoint>> known =
          earlier_of(log_, request_, *notary_, {UINT64_MAX, {}}, behind);
      if (!known) return known.error();
      if (behind) range.from.seq = *behind + 1;
    }
    const Result<replay::Seqs> seqs = replay::seqs_of(log_, range);
    if (!seqs) return seqs.error();
    if (seqs->from > seqs->to)
      return Error{Errc::not_found, behind ? "there is no record behind " + std::to_string(*behind) +
                                                 ", where the bundle of "
                                                 "--since-bundle ends"
                                           : "no record is in that range"};
    range = {.from = {.seq = seqs->from, .time = {}}, .to = {.seq = seqs->to, .time = {}}};
    // Not older than what the proof of growth begins with.
    Result<Checkpoint> checkpoint = notary_->covering(log_, seqs->to);
    if (!checkpoint) return checkpoint.error();
    Result<std::optional<Checkpoint>> known = earlier_of(log_, request_, *notary_, checkpoint->head, behind);
    if (!known) return known.error();
    earlier = std::move(*known);
    if (earlier && earlier->head.size > checkpoint->head.size) {
      checkpoint = notary_->covering(log_, earlier->head.size);
      if (!checkpoint) return checkpoint.error();
    }
    options.checkpoint = std::move(*checkpoint);
    return {};
  }

  // With the eyes of who gets it: nothing is handed out that does not hold.
  Result<void> check() {
    ProgressLine progress("checking");
    const Result<replay::BundleReport> report = replay::check_bundle(
        made(), {.key = notary_->key(), .earlier = {}, .version = LEDGER_VERSION}, std::ref(progress));
    if (!report) return report.error();
    if (report->holds()) return {};
    const replay::BundleFinding& first = report->findings.front();
    return Error{Errc::corrupt, "what was written does not hold (" + first.file + " " + first.where + ": " +
                                    first.text +
                                    "), so nothing is handed out; `ledger verify` says whether the log is damaged"};
  }

  Result<Seq> record() {
    const ExportCreated exported{.actor = request_.arguments.actor,
                                 .from = static_cast<std::int64_t>(manifest().from),
                                 .to = static_cast<std::int64_t>(manifest().to),
                                 .format = kBundleFormat,
                                 .sha256 = bundle_.sha256};
    std::string note = filter_in_words(request_, false);
    for (const std::string& what : request_.redacted) note += (note.empty() ? "" : "; ") + what + " redacted";
    const Result<Seq> recorded = record_export_of(request_.data_dir, exported, note);
    if (!recorded)
      return Error{recorded.error().code,
                   "the export could not be recorded, so nothing is handed out: " + recorded.error().message};
    return recorded;
  }

  // What we read may not have been on the disk then; the record that follows it is. Only now is it sure that the
  // checkpoint is one of this log for good.
  Result<void> confirm() {
    const auto now = EventLog::follow({.dir = request_.data_dir / "events"});
    if (!now) return now.error();
    return fits(**now, checkpoint_, notary_->key());
  }

  Result<void> publish() {
    if (::rename(made().c_str(), path_.c_str()) != 0) return cannot("rename", made());
    if (const Result<void> synced = sync_directory(path_.parent_path()); !synced) return synced;
    std::error_code ignored;  // write_file() tells
    fs::create_directory(exported_checkpoint_file(request_.data_dir).parent_path(), ignored);
    const Result<void> kept =
        write_file(exported_checkpoint_file(request_.data_dir), checkpoint_.note.str(), kPublicMode);
    if (!kept)
      std::fprintf(
          stderr,
          "ledger: the next bundle will not prove growth from this one by itself (use --since-bundle): %s\n",
          kept.error().message.c_str());
    return {};
  }

  const EventLog& log_;
  const BundleRequest& request_;
  fs::path path_;
  Workplace place_;
  std::optional<Notary> notary_;
  replay::WrittenBundle bundle_;
  Checkpoint checkpoint_;
};

}  // namespace

std::string filter_in_words(const BundleRequest& request, bool names_redacted) {
  std::string words;
  const auto say = [&words](const std::string& text) { words += (words.empty() ? "" : "; ") + text; };
  const std::string node = names_redacted ? "one node" : "node " + printable(request.node, 253);
  if (!request.node.empty()) say("what bears on " + node);
  if (!request.cause.empty()) say("records of nodes whose explanation was " + printable(request.cause, 40));
  if (!request.what.kinds.empty()) {
    std::string kinds;
    for (const Kind kind : request.what.kinds) kinds += (kinds.empty() ? "" : ", ") + std::string(name_of(kind));
    say("records of kind " + kinds);
  }
  return words;
}

Result<Seq> record_export_of(const fs::path& data_dir, const ExportCreated& exported, const std::string& note) {
  Ledger::Options options;
  options.log.dir = data_dir / "events";
  options.log.create = false;
  options.server_name = "command-line";
  Result<std::unique_ptr<Ledger>> ledger = Ledger::open(std::move(options));
  if (!ledger && ledger.error().code == Errc::locked) return record_on_server(data_dir, exported, note);
  if (!ledger) return ledger.error();
  return record_on_log(**ledger, exported, note);
}

int record_file(const fs::path& data_dir, const replay::ExportReport& report, std::string_view format,
                const std::string& file, const std::string& note, const std::string& actor) {
  if (report.records == 0) return 0;
  const Result<std::string> sha256 = sha256_of_file(file);
  if (!sha256) return fail(sha256.error());
  const ExportCreated exported{.actor = actor.empty() ? default_actor() : actor,
                               .from = static_cast<std::int64_t>(report.first),
                               .to = static_cast<std::int64_t>(report.last),
                               .format = std::string(format),
                               .sha256 = *sha256};
  const Result<Seq> recorded = record_export_of(data_dir, exported, note);
  if (!recorded)
    return fail({recorded.error().code, shown(file) + " is complete, but that it was made could not be recorded: " +
                                            recorded.error().message});
  std::fprintf(stderr, "ledger: recorded as record %llu\n", static_cast<unsigned long long>(*recorded));
  return 0;
}

int make_bundle(const EventLog& log, const BundleRequest& request) {
  Making making(log, request);
  const Result<Seq> recorded = making.run();
  if (!recorded) return fail(recorded.error());
  const replay::Manifest& manifest = making.manifest();
  std::fprintf(stderr,
               "ledger: %llu records, %llu to %llu, in %s; recorded as record %llu\n"
               "ledger: whoever gets it needs the public key by another way: %s\n",
               static_cast<unsigned long long>(manifest.records), static_cast<unsigned long long>(manifest.from),
               static_cast<unsigned long long>(manifest.to), printable(request.arguments.path, 200).c_str(),
               static_cast<unsigned long long>(*recorded), shown(checkpoint_public_file(request.data_dir)).c_str());
  if (!making.is_signed())
    std::fprintf(stderr, "ledger: the manifest is not signed, because %s cannot be read\n",
                 shown(checkpoint_key_file(request.data_dir)).c_str());
  return 0;
}

void add_bundle_options(CLI::App& command, BundleArguments& arguments) {
  const CLI::Validator is_name_of_one(
      [](const std::string& path) -> std::string {
        for (const char* other : {".gz", ".tgz", ".zip", ".zst", ".xz", ".bz2", ".7z"})
          if (path.ends_with(other) && !replay::is_tar_name(path))
            return "a bundle is a directory, or a tar whose name ends in .tar or .tar.zst";
        return "";
      },
      "");
  auto* bundle = command
                     .add_option("--bundle", arguments.path,
                                 "Write evidence for an auditor: a directory, or a tar (.tar, .tar.zst)")
                     ->check(is_name_of_one);
  for (const char* other : {"--input", "--output", "--zstd", "--cursor", "--follow", "--send-to"})
    bundle->excludes(command.get_option(other));
  command
      .add_option("--since-bundle", arguments.since,
                  "The last bundle, or its checkpoint: go on behind it, and prove that the log grew out of it")
      ->needs(bundle);
  auto* record = command.add_flag("--record", arguments.record, "Record a plain export, too; needs --output")
                     ->needs(command.get_option("--output"))
                     ->excludes(bundle);
  for (const char* other : {"--input", "--cursor", "--follow"}) record->excludes(command.get_option(other));
  command.add_option("--actor", arguments.actor, "Who exports, for the record (default: you@this-host)");
}

// ---- verify-bundle ---------------------------------------------------------------------------------------

namespace {

constexpr const char* kFooter =
    "Needs the bundle and nothing else: no log, no server, no network. Checks every sum and signature,\n"
    "that every record can be read and is the line of records.jsonl, that the records are those of the\n"
    "log that the checkpoint signed, that none of the range is missing, and how the log grew.\n\n"
    "Without --key the key inside the bundle is used, which shows only that its parts fit together:\n"
    "whoever makes a bundle up signs it with a key of his own. Get the log's key (one line,\n"
    "cred/checkpoint.pub of the server) by another way, once, and keep it.\n\n"
    "Examples:\n"
    "  ledger verify-bundle june.tar.zst --key checkpoint.pub\n"
    "  ledger verify-bundle july.tar.zst --key checkpoint.pub --previous june.tar.zst\n"
    "  ledger verify-bundle july --key 'ledger/0123456789abcdef+1f2e3d4c+Ab...=' --format json\n\n"
    "Exit status: 0 it holds, 1 it does not or cannot be read, 2 wrong usage.\n";

struct CheckArguments {
  std::string bundle, key, previous, format = "text";
};

json::object to_json(const TreeHead& head) { return {{"size", head.size}, {"root", to_hex(view_of(head.root))}}; }

json::object to_json(const replay::Manifest& manifest) {
  return {{"ledger", manifest.ledger},
          {"made_by", manifest.made_by},
          {"program", manifest.program},
          {"from", manifest.from},
          {"to", manifest.to},
          {"records", manifest.records},
          {"complete", manifest.complete()},
          {"filter", manifest.filter},
          {"checkpoint", to_json(manifest.checkpoint)},
          {"previous", manifest.previous ? json::value(to_json(*manifest.previous)) : json::value(nullptr)}};
}

void print_json(const replay::BundleReport& report) {
  json::array findings, warnings;
  for (const replay::BundleFinding& found : report.findings)
    findings.push_back(json::object{{"file", found.file}, {"where", found.where}, {"text", found.text}});
  for (const std::string& warning : report.warnings) warnings.push_back(json::value(warning));
  const json::object out{
      {"holds", report.holds()},
      {"key", report.key_id.empty() ? json::value(nullptr) : json::value(report.key_id)},
      {"key_trusted", report.is_key_trusted},
      {"records", report.records},
      {"proved", report.is_proved},
      {"grown", report.has_grown},
      {"bundle", report.manifest ? json::value(to_json(*report.manifest)) : json::value(nullptr)},
      {"findings", std::move(findings)},
      {"finding_count", report.finding_count},
      {"warnings", std::move(warnings)}};
  fmt::print("{}\n", json::serialize(out));
}

std::string sentence_of(const replay::BundleFinding& found) {
  std::string text = found.file;
  if (!found.where.empty()) text += (text.empty() ? "" : ", ") + found.where;
  return (text.empty() ? "the bundle" : text) + ": " + found.text;
}

void print_wrapped(std::string_view label, const std::string& text) {
  const std::vector<std::string> lines = replay::wrap_text(text, 100 - label.size());
  for (std::size_t i = 0; i < lines.size(); ++i)
    fmt::print("{}{}\n", i == 0 ? std::string(label) : std::string(label.size(), ' '), lines[i]);
}

void print_manifest(const replay::BundleReport& report) {
  const replay::Manifest& manifest = *report.manifest;
  fmt::print("log         {}\n", printable(origin_of(manifest.ledger), 60));
  fmt::print("range       records {} to {}, {} to {}\n", manifest.from, manifest.to,
             manifest.first_time.to_string(), manifest.last_time.to_string());
  if (manifest.complete())
    fmt::print("records     {}, all of the range\n", report.records);
  else
    fmt::print("records     {}, only {}\n            that these are all of their sort cannot be proved\n",
               report.records, printable(manifest.filter, 300));
  if (!report.key_id.empty())
    fmt::print("key         {}, {}\n", report.key_id,
               report.is_key_trusted ? "the one you trust" : "the one inside the bundle");
  fmt::print("checkpoint  of {} records\n", manifest.checkpoint.size);
  if (manifest.proves())
    fmt::print("proof       {}\n", report.is_proved
                                       ? "each record is in the log that the checkpoint signed"
                                       : "NOT shown: that the records are those of the checkpoint's log");
  if (manifest.previous)
    fmt::print("growth      {}\n",
               report.has_grown
                   ? fmt::format("nothing of the first {} records was changed since an earlier checkpoint",
                                 manifest.previous->size)
                   : "NOT shown: that the log grew out of an earlier one");
}

int check(const CheckArguments& arguments) {
  replay::BundleCheckOptions options;
  options.version = LEDGER_VERSION;
  if (!arguments.key.empty()) {
    const Result<NoteVerifier> given = NoteVerifier::parse(arguments.key);
    const Result<NoteVerifier> key = given ? given : read_checkpoint_key(arguments.key);
    if (!key) return fail({key.error().code, "--key: " + key.error().message});
    options.key = *key;
  }
  if (!arguments.previous.empty()) {
    Result<replay::EarlierBundle> earlier = replay::read_earlier(arguments.previous);
    if (!earlier) return fail({earlier.error().code, "--previous: " + earlier.error().message});
    options.earlier = std::move(*earlier);
  }
  ProgressLine progress("checking");
  const Result<replay::BundleReport> report = replay::check_bundle(arguments.bundle, options, std::ref(progress));
  if (!report) return fail(report.error());
  if (arguments.format == "json") {
    print_json(*report);
    return report->holds() ? 0 : 1;
  }
  if (report->manifest) print_manifest(*report);
  for (const std::string& warning : report->warnings) print_wrapped("beware: ", warning);
  for (const replay::BundleFinding& found : report->findings) print_wrapped("wrong: ", sentence_of(found));
  if (report->finding_count > report->findings.size())
    fmt::print("... and {} more\n", report->finding_count - report->findings.size());
  fmt::print("{}\n", report->holds() ? "holds" : "does not hold");
  return report->holds() ? 0 : 1;
}

}  // namespace

void add_verify_bundle(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("verify-bundle", "Check a bundle of `ledger export --bundle`, with no log at hand");
  command->footer(kFooter);
  auto arguments = std::make_shared<CheckArguments>();
  command->add_option("bundle", arguments->bundle, "A directory or a tar")->required();
  command->add_option("--key", arguments->key,
                      "The log's public key, known from elsewhere: a file, or its one line");
  command->add_option("--previous", arguments->previous, "The bundle (or checkpoint) you have from before");
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = check(*arguments); });
}

}  // namespace ledger::tools
