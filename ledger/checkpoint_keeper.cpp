#include "ledger/checkpoint_keeper.h"

#include <algorithm>
#include <charconv>
#include <system_error>

#include "ledger/credentials.h"

namespace ledger {
namespace {

constexpr std::chrono::seconds kLookEvery{1};
constexpr unsigned kPublicMode = 0644;
constexpr std::size_t kMaxNote = 64 << 10;
constexpr int kOk = 200;
constexpr int kConflict = 409;

std::string records_text(std::uint64_t from, std::uint64_t to) {
  return from == to ? "record " + std::to_string(from)
                    : "records " + std::to_string(from) + " to " + std::to_string(to);
}

bool same(const Checkpoint& a, const Checkpoint& b) { return a.origin == b.origin && a.head == b.head; }

bool contains(const std::vector<Checkpoint>& all, const Checkpoint& one) {
  return std::any_of(all.begin(), all.end(), [&](const Checkpoint& other) { return same(other, one); });
}

Result<void> rename_aside(const std::filesystem::path& file, const std::string& suffix) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return {};
  std::filesystem::rename(file, file.string() + suffix, error);
  if (error) return Error{Errc::io, "cannot rename " + file.string() + ": " + error.message()};
  return {};
}

// What this would replace and nobody else may have: a checkpoint of more records, or of another log.
Result<void> keep_better(const std::filesystem::path& file, const std::string& note) {
  const Result<std::string> there = read_file(file, kMaxNote);
  const Result<Checkpoint> old = there ? parse_checkpoint(*there) : Result<Checkpoint>(there.error());
  const Result<Checkpoint> fresh = parse_checkpoint(note);
  if (!old || !fresh || (old->origin == fresh->origin && old->head.size <= fresh->head.size)) return {};
  const std::string id = old->origin.substr(old->origin.rfind('/') + 1);
  return rename_aside(file, ".kept-" + printable(id, 40) + "-" + std::to_string(old->head.size));
}

}  // namespace

CheckpointPlace file_place(const std::filesystem::path& file) {
  return {file.string(),
          [file](const std::string& note) -> Result<void> {
            if (const Result<void> kept = keep_better(file, note); !kept) return kept;
            return write_file(file, note, kPublicMode);
          },
          [file] { return read_file(file, kMaxNote); }};
}

// ---- opening ---------------------------------------------------------------------------------------------

CheckpointKeeper::CheckpointKeeper(Options options, Ledger& ledger, NoteSigner signer)
    : options_(std::move(options)), ledger_(ledger), signer_(std::move(signer)) {
  place_failed_.resize(options_.places.size());
  witness_failed_.resize(options_.witnesses.size());
  witness_size_.resize(options_.witnesses.size());
}

CheckpointKeeper::~CheckpointKeeper() { stop(); }

void CheckpointKeeper::tell(bool is_problem, const std::string& line) const {
  if (options_.log) options_.log(is_problem, line);
}

Result<std::unique_ptr<CheckpointKeeper>> CheckpointKeeper::open(Options options, Ledger& ledger) {
  const std::string origin = origin_of(ledger.log().id());
  const std::filesystem::path dir = options.data_dir;
  std::error_code error;
  std::filesystem::create_directories(dir / "checkpoints", error);
  if (error) return Error{Errc::io, "cannot make " + (dir / "checkpoints").string() + ": " + error.message()};
  Result<NoteSigner> signer = read_checkpoint_signer(dir);
  const Result<NoteVerifier> written = read_checkpoint_key(checkpoint_public_file(dir));
  const bool fits = signer && signer->verifier().name() == origin;
  if (!signer && signer.error().code != Errc::not_found) return signer.error();
  if (fits && (!written || written->str() != signer->verifier().str())) {
    const std::string key = signer->verifier().str() + "\n";
    if (const auto again = write_file(checkpoint_public_file(dir), key, kPublicMode); !again) return again.error();
  }
  if (fits)
    return std::unique_ptr<CheckpointKeeper>(new CheckpointKeeper(std::move(options), ledger, *std::move(signer)));

  // No key yet, or the key of another log, or a key that was lost.
  std::optional<NoteVerifier> old;
  if (signer)
    old = signer->verifier();
  else if (written)
    old = *written;
  std::optional<Seen> replaced;
  if (old) {
    const Result<std::vector<Checkpoint>> past = read_checkpoints(latest_checkpoint_file(dir), *old);
    if (past && !past->empty()) replaced = Seen{latest_checkpoint_file(dir).string(), past->back()};
    const std::string suffix = "." + old->key_id();
    for (const auto& file : {checkpoint_public_file(dir), latest_checkpoint_file(dir), all_checkpoints_file(dir),
                             lost_checkpoints_file(dir)})
      if (const Result<void> renamed = rename_aside(file, suffix); !renamed) return renamed.error();
  }
  signer = make_checkpoint_signer(dir, origin);
  if (!signer) return signer.error();
  auto keeper =
      std::unique_ptr<CheckpointKeeper>(new CheckpointKeeper(std::move(options), ledger, *std::move(signer)));
  keeper->replaced_ = std::move(replaced);
  if (old)
    keeper->tell(true, "the checkpoint key " + old->key_id() + " is not there or is that of another log (" +
                           old->name() + "): a new one was made, " + checkpoint_public_file(dir).string() +
                           ", and what it signed was given the ending ." + old->key_id());
  return keeper;
}

// ---- the past --------------------------------------------------------------------------------------------

std::vector<CheckpointKeeper::Seen> CheckpointKeeper::look_everywhere() {
  std::vector<Seen> seen;
  const auto add = [&](const std::string& place, const Result<std::string>& text) {
    if (!text && text.error().code == Errc::not_found) return;
    const Result<Checkpoint> checkpoint =
        text ? open_checkpoint(*text, signer_->verifier()) : Result<Checkpoint>(text.error());
    if (checkpoint)
      seen.push_back({place, *checkpoint});
    else
      tell(true, "the checkpoint in " + place + " cannot be compared with this log: " + checkpoint.error().message);
  };
  const std::filesystem::path latest = latest_checkpoint_file(options_.data_dir);
  add(latest.string(), read_file(latest, kMaxNote));
  const std::filesystem::path all = all_checkpoints_file(options_.data_dir);
  if (const auto last = settle_last_checkpoint(all, signer_->verifier()))
    seen.push_back({all.string(), *last});
  else if (last.error().code != Errc::not_found)
    tell(true, last.error().message);
  for (const CheckpointPlace& place : options_.places) add(place.name, place.get());
  return seen;
}

Result<bool> CheckpointKeeper::agrees(const Checkpoint& checkpoint) const {
  if (checkpoint.head.size > ledger_.log().head()) return false;
  const Result<TreeHash> root = root_at(checkpoint.head.size, ledger_.log().tree_nodes());
  if (!root) return root.error();
  return *root == checkpoint.head.root;
}

Result<bool> CheckpointKeeper::notice_past() {
  const Seq head = ledger_.log().head();
  if (replaced_ && replaced_->checkpoint.origin != signer_->verifier().name()) {
    const std::string words = "this is another log: the checkpoint in " + replaced_->place + " is of " +
                              replaced_->checkpoint.origin + " with " +
                              std::to_string(replaced_->checkpoint.head.size) + " records, and here is " +
                              signer_->verifier().name() + " with " + std::to_string(head);
    if (const Result<void> recorded = record_loss(*replaced_, "datastore_changed", words); !recorded)
      return recorded.error();
    return true;
  }
  std::vector<Seen> everywhere = look_everywhere();
  if (replaced_) everywhere.push_back(*replaced_);
  const auto known = read_checkpoints(lost_checkpoints_file(options_.data_dir), signer_->verifier());
  std::optional<Seen> worst;
  for (const Seen& seen : everywhere) {
    if (known && contains(*known, seen.checkpoint)) continue;
    const Result<bool> fits = agrees(seen.checkpoint);
    if (!fits) return fits.error();
    const std::uint64_t size = seen.checkpoint.head.size;
    if (*fits && size >= covered_) {
      covered_ = signed_ = size;
      const std::lock_guard lock(mutex_);
      latest_ = seen.checkpoint.note.str();
    }
    if (!*fits && (!worst || size > worst->checkpoint.head.size)) worst = seen;
  }
  if (!worst) return false;
  const std::uint64_t saw = worst->checkpoint.head.size;
  const std::string what =
      saw > head ? "this log went back: it has " + std::to_string(head) + " records, and the checkpoint in " +
                       worst->place + " saw " + std::to_string(saw) + "; " + records_text(head + 1, saw) +
                       (saw == head + 1 ? " is" : " are") + " lost"
                 : "this log is not the one that the checkpoint in " + worst->place + " saw: among its first " +
                       std::to_string(saw) + " records are others than those that were signed";
  if (const Result<void> recorded = record_loss(*worst, "restored", what); !recorded) return recorded.error();
  std::vector<Checkpoint> gone;
  for (const Seen& seen : everywhere)
    if (const Result<bool> fits = agrees(seen.checkpoint); fits && !*fits && !contains(gone, seen.checkpoint))
      gone.push_back(seen.checkpoint);
  if (const Result<void> forgotten = forget(gone); !forgotten) return forgotten.error();
  return true;
}

Result<void> CheckpointKeeper::record_loss(const Seen& seen, const std::string& cause, const std::string& words) {
  Record record;
  record.event = EpochStarted{.cause = cause,
                              .head_before = static_cast<std::int64_t>(seen.checkpoint.head.size),
                              .head_after = static_cast<std::int64_t>(ledger_.log().head())};
  record.note = words;
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  const Result<Committed> committed = ledger_.append_and_wait(std::move(proposal));
  if (!committed) return committed.error();
  tell(true,
       words + ". What was stored, released, held or revoked in them is not known here: nodes that joined then " +
           "are refused or bound anew, names released then are taken, and tokens revoked then are valid. " +
           "Recorded as epoch_started (" + cause + "), seq " + std::to_string(committed->last()) +
           "; if nobody restored an older copy, somebody changed the log: see RUNBOOK, \"The log went back\"");
  return {};
}

// Checkpoints that this log cannot keep any more go to checkpoints/lost, for who compares later.
Result<void> CheckpointKeeper::forget(const std::vector<Checkpoint>& gone) {
  const std::filesystem::path& dir = options_.data_dir;
  std::vector<Checkpoint> kept;
  std::vector<Checkpoint> lost = gone;
  const auto all = read_checkpoints(all_checkpoints_file(dir), signer_->verifier());
  if (!all) return all.error();
  for (const Checkpoint& checkpoint : *all) {
    const Result<bool> fits = agrees(checkpoint);
    if (!fits) return fits.error();
    if (*fits)
      kept.push_back(checkpoint);
    else if (!contains(lost, checkpoint))
      lost.push_back(checkpoint);
  }
  std::sort(lost.begin(), lost.end(),
            [](const Checkpoint& a, const Checkpoint& b) { return a.head.size < b.head.size; });
  for (const Checkpoint& checkpoint : lost)
    if (const auto added = add_checkpoint(lost_checkpoints_file(dir), checkpoint); !added) return added;
  if (const auto written = write_checkpoints(all_checkpoints_file(dir), kept); !written) return written;
  const std::lock_guard lock(mutex_);
  covered_ = signed_ = kept.empty() ? 0 : kept.back().head.size;
  latest_ = kept.empty() ? std::string() : kept.back().note.str();
  if (latest_.empty()) return remove_file(latest_checkpoint_file(dir));
  return write_file(latest_checkpoint_file(dir), latest_, kPublicMode);
}

// ---- signing ---------------------------------------------------------------------------------------------

std::string CheckpointKeeper::latest() const {
  const std::lock_guard lock(mutex_);
  return latest_;
}

Result<void> CheckpointKeeper::sign(bool record) {
  const Result<TreeHead> head = ledger_.log().tree();
  if (!head) return head.error();
  if (head->size <= (record ? covered_ : signed_)) return {};
  Checkpoint checkpoint;
  checkpoint.origin = signer_->verifier().name();
  checkpoint.head = *head;
  checkpoint.note.text = checkpoint_text(checkpoint.origin, *head);
  checkpoint.note.signatures.push_back(signer_->sign(checkpoint.note.text));
  const std::filesystem::path& dir = options_.data_dir;
  if (const auto written = write_file(latest_checkpoint_file(dir), checkpoint.note.str(), kPublicMode); !written)
    return written;
  if (const auto added = add_checkpoint(all_checkpoints_file(dir), checkpoint); !added) return added;
  {
    const std::lock_guard lock(mutex_);
    latest_ = checkpoint.note.str();
  }
  covered_ = signed_ = head->size;
  uncovered_since_.reset();
  if (record) {
    Record signed_record;
    signed_record.event = CheckpointSigned{.size = static_cast<std::int64_t>(head->size),
                                           .root = to_hex(view_of(head->root)),
                                           .key = signer_->verifier().key_id()};
    Proposal proposal;
    proposal.records.push_back(std::move(signed_record));
    const Result<Committed> committed = ledger_.append_and_wait(std::move(proposal));
    if (!committed) return committed.error();
    if (committed->last() == covered_ + 1) covered_ = committed->last();
  }
  send(checkpoint);
  return {};
}

void CheckpointKeeper::send(const Checkpoint& signed_checkpoint) {
  Checkpoint checkpoint = signed_checkpoint;
  const std::vector<NoteSignature> cosignatures = cosign(checkpoint);
  if (!cosignatures.empty()) {
    checkpoint.note.signatures.insert(checkpoint.note.signatures.end(), cosignatures.begin(), cosignatures.end());
    const std::string note = checkpoint.note.str();
    const auto written = write_file(latest_checkpoint_file(options_.data_dir), note, kPublicMode);
    const auto added = add_checkpoint(all_checkpoints_file(options_.data_dir), checkpoint);
    if (!written || !added) tell(true, (!written ? written : added).error().message);
    const std::lock_guard lock(mutex_);
    latest_ = note;
  }
  for (std::size_t i = 0; i < options_.places.size(); ++i) {
    const CheckpointPlace& place = options_.places[i];
    const Result<void> put = place.put(checkpoint.note.str());
    if (!put && !place_failed_[i])
      tell(true, "no checkpoint can be sent to " + place.name + ": " + put.error().message +
                     "; tried again with every checkpoint");
    if (put && place_failed_[i]) tell(false, "checkpoints arrive at " + place.name + " again");
    place_failed_[i] = !put;
  }
}

// Asks each witness; tells it of what it saw last, and again with the size it answers when that was wrong.
std::vector<NoteSignature> CheckpointKeeper::cosign(const Checkpoint& checkpoint) {
  std::vector<NoteSignature> all;
  for (std::size_t i = 0; i < options_.witnesses.size(); ++i) {
    const CheckpointWitness& witness = options_.witnesses[i];
    std::uint64_t& seen = witness_size_[i];
    Result<CheckpointWitness::Answer> answer = Error{Errc::unavailable, "not asked"};
    for (int attempt = 0; attempt < 2; ++attempt) {
      const Result<TreeProof> proof = consistency_proof(seen, checkpoint.head.size, ledger_.log().tree_nodes());
      if (!proof) {
        answer =
            seen > checkpoint.head.size
                ? Error{Errc::conflict, "it has seen " + std::to_string(seen) + " records of this log, which has " +
                                            std::to_string(checkpoint.head.size) + ": was an older copy restored?"}
                : proof.error();
        break;
      }
      std::string body = "old " + std::to_string(seen) + "\n";
      for (const TreeHash& hash : *proof) body += base64(view_of(hash)) + "\n";
      answer = witness.add_checkpoint(body + "\n" + checkpoint.note.str());
      if (!answer || answer->status != kConflict) break;
      const std::string_view text = trim(answer->body);
      if (std::from_chars(text.data(), text.data() + text.size(), seen).ec != std::errc()) break;
    }
    std::optional<std::string> problem;
    if (!answer) {
      problem = answer.error().message;
    } else if (answer->status != kOk) {
      problem = "status " + std::to_string(answer->status) + ": " + printable(trim(answer->body), 200);
    } else {
      const Result<std::vector<NoteSignature>> given = parse_signatures(answer->body);
      const std::size_t before = all.size();
      if (given)
        for (const NoteSignature& signature : *given)
          if (witness.key.made(signature) && witness.key.verifies(checkpoint.note.text, signature))
            all.push_back(signature);
      if (all.size() == before)
        problem = "its answer holds no cosignature of the key " + witness.key.key_id();
      else
        seen = checkpoint.head.size;
    }
    if (problem && !witness_failed_[i])
      tell(true, "the witness " + witness.key.name() + " does not cosign: " + *problem);
    if (!problem && witness_failed_[i]) tell(false, "the witness " + witness.key.name() + " cosigns again");
    witness_failed_[i] = problem.has_value();
  }
  return all;
}

bool CheckpointKeeper::is_due() {
  const Seq head = ledger_.log().head();
  if (head <= covered_) {
    uncovered_since_.reset();
    return false;
  }
  const auto now = std::chrono::steady_clock::now();
  if (!uncovered_since_) uncovered_since_ = now;
  return head - covered_ >= options_.every_records ||
         now - *uncovered_since_ >= std::chrono::seconds(options_.every_seconds);
}

void CheckpointKeeper::run() {
  bool failed = false;
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kLookEvery, [&] { return stopping_; })) {
    lock.unlock();
    if (is_due()) {
      const Result<void> done = sign(true);
      if (!done && !failed) tell(true, "no checkpoint can be made: " + done.error().message);
      failed = !done;
    }
    lock.lock();
  }
}

void CheckpointKeeper::start() {
  thread_ = std::thread([this] { run(); });
}

void CheckpointKeeper::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<void> CheckpointKeeper::finish() {
  stop();
  return sign(false);
}

}  // namespace ledger
