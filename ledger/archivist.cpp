#include "ledger/archivist.h"

#include <algorithm>
#include <set>

#include "ledger/credentials.h"
#include "ledger/event_codec.h"

namespace ledger {
namespace {

constexpr std::chrono::seconds kLookEvery{60};
constexpr std::size_t kMaxReason = 1000;
constexpr std::size_t kMaxArchiveFile = std::size_t{1} << 30;
constexpr std::uint64_t kLeastForSize = 1000;        // records that are worth a file
constexpr std::int64_t kPartialAfter_s = 24 * 3600;  // a file a day, where records come slowly
constexpr std::size_t kIndexPiece = 4096;            // entries removed in one write

std::string records_text(Seq from, Seq to) {
  return "records " + std::to_string(from) + " to " + std::to_string(to);
}

Seq seq_of(std::int64_t value) { return value > 0 ? static_cast<Seq>(value) : 0; }

}  // namespace

// ---- the fold --------------------------------------------------------------------------------------------

std::string LegalHold::covers() const {
  if (!node.empty()) return "node " + node;
  if (from != 0) return to == 0 ? "records from " + std::to_string(from) + " on" : records_text(from, to);
  return (since ? "from " + since->to_string() : "everything") + (until ? " until " + until->to_string() : " on");
}

void ArchiveTable::apply(const Record& record) {
  if (is_imported(record)) return;
  if (const auto* e = as<ArchiveSealed>(record)) {
    archives[seq_of(e->from)] = {.from = seq_of(e->from),
                                 .to = seq_of(e->to),
                                 .sha256 = e->sha256,
                                 .sealed = record.seq,
                                 .sealed_at = record.time,
                                 .removed = 0,
                                 .removed_by = {}};
  } else if (const auto* removed = as<ArchiveRemoved>(record)) {
    const auto found = archives.find(seq_of(removed->from));
    if (found != archives.end()) found->second.removed = record.seq, found->second.removed_by = removed->actor;
  } else if (const auto* placed = as<LegalHoldPlaced>(record)) {
    holds[placed->hold] = {.id = placed->hold,
                           .node = record.node,
                           .actor = placed->actor,
                           .reason = record.note,
                           .from = seq_of(placed->from),
                           .to = seq_of(placed->to),
                           .since = placed->since,
                           .until = placed->until,
                           .placed = record.seq,
                           .time = record.time};
  } else if (const auto* lifted = as<LegalHoldLifted>(record)) {
    holds.erase(lifted->hold);
  }
}

namespace {

// Folds the records after *folded. What cannot be read might be a hold.
Result<void> fold(const EventLog& log, ArchiveTable& table, Seq* folded) {
  Result<void> problem;
  const Seq head = log.head();
  const Result<void> read = log.scan(Index::server_wide, "", *folded + 1, head, [&](Seq seq, const Result<Record>& record) {
    if (record)
      table.apply(*record);
    else
      problem = Error{Errc::corrupt, "record " + std::to_string(seq) + " may be a legal hold and cannot be read (" +
                                         record.error().message + "); run `ledger verify`"};
    return problem.has_value();
  });
  if (!read) return read;
  if (!problem) return problem;
  *folded = head;
  return {};
}

}  // namespace

Result<ArchiveTable> ArchiveTable::read(const EventLog& log) {
  ArchiveTable table;
  Seq folded = 0;
  if (const Result<void> done = fold(log, table, &folded); !done) return done.error();
  return table;
}

Result<std::vector<std::string>> holds_on(const EventLog& log, const ArchiveTable& table, Seq from, Seq to,
                                          Time first_time, Time last_time) {
  std::vector<std::string> found;
  for (const auto& [id, hold] : table.holds) {
    bool covers = false;
    if (!hold.node.empty()) {
      const Result<std::vector<Seq>> seqs = log.find(Index::node, hold.node, from, to, 1);
      if (!seqs) return seqs.error();
      covers = !seqs->empty();
    } else if (hold.from != 0) {
      covers = hold.from <= to && (hold.to == 0 || hold.to >= from);
    } else {
      covers = (!hold.since || *hold.since <= last_time) && (!hold.until || *hold.until >= first_time);
    }
    if (covers) found.push_back(id);
  }
  return found;
}

std::string_view name_of(ArchiveStatus::Where where) {
  switch (where) {
    case ArchiveStatus::Where::sealed: return "sealed";
    case ArchiveStatus::Where::dropped: return "dropped";
    case ArchiveStatus::Where::removed: return "removed";
  }
  fatal("an archive that is nowhere");
}

Result<std::vector<ArchiveStatus>> list_archives(const EventLog& log, const ArchiveTable& table) {
  std::map<Seq, ArchivedRange> ranges;
  for (const ArchivedRange& range : log.archived()) ranges.emplace(range.from, range);
  std::vector<ArchiveStatus> list;
  for (const auto& [from, archive] : table.archives) {
    ArchiveStatus status;
    status.archive = archive;
    const auto range = ranges.find(from);
    if (range != ranges.end()) {
      status.where = range->second.is_removed() ? ArchiveStatus::Where::removed : ArchiveStatus::Where::dropped;
      status.first_time = range->second.first_time, status.last_time = range->second.last_time;
    }
    if (archive.removed != 0) status.where = ArchiveStatus::Where::removed;
    const auto file = range != ranges.end()
                          ? log.archives().file_of(range->second)
                          : ArchiveFile::open(log.archives().dir() / archive_name(archive.from, archive.to));
    status.is_here = file.has_value();
    if (file) {
      status.file_bytes = (*file)->file_bytes(), status.raw_bytes = (*file)->raw_bytes();
      status.first_time = (*file)->first_time(), status.last_time = (*file)->last_time();
    } else {
      status.problem = file.error().message;
    }
    Result<std::vector<std::string>> holds =
        holds_on(log, table, archive.from, archive.to, status.first_time, status.last_time);
    if (!holds) return holds.error();
    if (status.where != ArchiveStatus::Where::removed) status.holds = std::move(*holds);
    list.push_back(std::move(status));
  }
  return list;
}

// ---- steps -----------------------------------------------------------------------------------------------

Result<void> Archivist::step(std::string_view name) const {
  if (!options_.may || options_.may(name)) return {};
  return Error{Errc::unavailable, "stopped before: " + std::string(name)};
}

void Archivist::tell(bool is_problem, const std::string& line) const {
  if (options_.log) options_.log(is_problem, line);
}

Result<void> Archivist::catch_up() { return fold(ledger_.log(), table_, &folded_); }

Result<Seq> Archivist::append(Record record, const OperatorAction& action) {
  record.note = action.reason;
  record.request_id = action.request_id;
  record.source = action.source;
  record.via = action.via;
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  const Result<Committed> committed = ledger_.append_and_wait(std::move(proposal));
  if (!committed) return committed.error();
  if (const Result<void> folded = catch_up(); !folded) return folded.error();
  return committed->last();
}

// What crashes and lifted holds have left to do. A file that is not there keeps its records in the store.
Result<void> Archivist::finish() {
  if (const Result<void> folded = catch_up(); !folded) return folded;
  std::map<Seq, ArchivedRange> ranges;
  for (const ArchivedRange& range : ledger_.log().archived()) ranges.emplace(range.from, range);
  for (const auto& [from, archive] : table_.archives) {
    const auto range = ranges.find(from);
    if (range == ranges.end()) {
      const Result<bool> dropped = drop(archive, nullptr);
      if (!dropped && (dropped.error().code == Errc::not_found || dropped.error().code == Errc::corrupt))
        tell(true, records_text(archive.from, archive.to) + " stay in the store: " + dropped.error().message);
      else if (!dropped)
        return dropped.error();
    } else if (archive.removed != 0 && range->second.stage != ArchivedRange::Stage::removed) {
      if (const Result<void> removed = finish_removal(archive); !removed) return removed;
    }
  }
  return {};
}

// ---- sealing ---------------------------------------------------------------------------------------------

// How far the newest checkpoint goes that agrees with this log.
Result<Seq> Archivist::covered() const {
  const Result<NoteVerifier> key = read_checkpoint_key(checkpoint_public_file(options_.data_dir));
  if (!key && key.error().code != Errc::not_found) return key.error();
  const auto latest = key ? read_checkpoints(latest_checkpoint_file(options_.data_dir), *key)
                          : Result<std::vector<Checkpoint>>(std::vector<Checkpoint>());
  if (!latest) return latest.error();
  if (latest->empty())
    return Error{Errc::not_found, "nothing can be archived before the first checkpoint is signed: only what one covers "
                                  "is; a running server signs, and one that stops in order"};
  const TreeHead& head = latest->back().head;
  if (head.size > ledger_.log().head())
    return Error{Errc::corrupt, "the checkpoint in " + latest_checkpoint_file(options_.data_dir).string() +
                                    " saw more records than there are; run `ledger verify`"};
  const Result<TreeHash> root = root_at(head.size, ledger_.log().tree_nodes());
  if (!root) return root.error();
  if (*root != head.root)
    return Error{Errc::corrupt, "the checkpoint in " + latest_checkpoint_file(options_.data_dir).string() +
                                    " saw other records than there are; run `ledger verify`"};
  return head.size;
}

// False: there are too few for an archive yet.
Result<bool> Archivist::fill(ArchiveBuilder& builder, const Goal& goal, std::vector<Seq>& kept) const {
  Result<void> problem;
  const auto full = [&] {
    return builder.records() >= options_.max_records || builder.bytes() >= options_.max_bytes;
  };
  Seq expected = builder.from();
  const Result<void> read = ledger_.log().scan_bytes(builder.from(), goal.to, [&](Seq seq, std::string_view bytes) {
    const Result<Record> record = decode_record(bytes);
    if (!record || record->seq != seq || seq != expected++) {
      problem = Error{Errc::corrupt, "record " + std::to_string(std::min(seq, expected)) +
                                         " is missing or damaged, and nothing is archived over it; run `ledger verify`"};
      return false;
    }
    if (record->time >= goal.before) return false;
    problem = builder.add(bytes, record->time);
    if (stays_in_store(record->kind())) kept.push_back(seq);
    return problem.has_value() && !full();
  });
  if (!read) return read.error();
  if (!problem) return problem.error();
  if (builder.records() == 0) return false;
  return full() || builder.records() >= goal.min_records || builder.first_time() < goal.overdue;
}

// Files that begin here and have no record.
Result<void> Archivist::throw_away_from(Seq from) const {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(ledger_.log().archives().dir(), error)) {
    const auto named = parse_archive_name(entry.path().filename().string());
    if (!named || named->first != from) continue;
    const auto file = ArchiveFile::open(entry.path());
    if (file && (*file)->ledger_id() != ledger_.log().id())
      return Error{Errc::conflict, entry.path().string() + " is an archive of another log; move it away"};
    if (const Result<void> removed = remove_file(entry.path()); !removed) return removed;
  }
  return {};
}

// What is recorded as sealed has been read from the disk, with the key that everybody has.
Result<void> Archivist::write(const std::filesystem::path& path, const std::string& bytes,
                              const NoteVerifier& key) const {
  if (const Result<void> made = ensure_private_directory(path.parent_path()); !made) return made;
  if (const Result<void> step_done = step("write"); !step_done) return step_done;
  if (const Result<void> written = write_file(path, bytes, 0600); !written) return written;
  if (const Result<void> step_done = step("read back"); !step_done) return step_done;
  const auto file = ArchiveFile::open(path);
  if (!file) return file.error();
  const ArchiveReport report = check_archive(**file, &key);
  if (report.sound()) return {};
  (void)remove_file(path);
  return Error{Errc::io, "the archive " + path.string() + " cannot be read back as it was written: " +
                             report.damage.front() + "; check the disk"};
}

Result<std::optional<Archivist::Sealed>> Archivist::seal(const Goal& asked) {
  const EventLog& log = ledger_.log();
  const Result<Seq> covered_to = covered();
  if (!covered_to) return covered_to.error();
  Goal goal = asked;
  goal.to = std::min(goal.to, *covered_to);
  const Seq from = table_.sealed_to() + 1;
  if (from > goal.to) return std::optional<Sealed>();
  Result<TreeEdge> edge = TreeEdge::load(from - 1, log.tree_nodes());
  if (!edge) return edge.error();
  ArchiveBuilder builder(log.id(), std::move(*edge));
  std::vector<Seq> kept;
  const Result<bool> enough = fill(builder, goal, kept);
  if (!enough) return enough.error();
  if (!*enough) return std::optional<Sealed>();

  const Result<TreeHash> root = root_at(builder.to(), log.tree_nodes());
  if (!root) return root.error();
  if (*root != builder.head().root)
    return Error{Errc::corrupt, records_text(from, builder.to()) + " are not those that the tree was made of, and " +
                                    "nothing is archived over damage; run `ledger verify`"};
  const Result<NoteSigner> signer = read_checkpoint_signer(options_.data_dir);
  if (!signer) return signer.error();
  Checkpoint checkpoint{.origin = origin_of(log.id()), .head = builder.head(), .note = {}};
  if (signer->verifier().name() != checkpoint.origin)
    return Error{Errc::invalid, "the key in " + checkpoint_key_file(options_.data_dir).string() +
                                    " is that of another log; a server that starts makes a new one"};
  checkpoint.note.text = checkpoint_text(checkpoint.origin, checkpoint.head);
  checkpoint.note.signatures.push_back(signer->sign(checkpoint.note.text));

  if (const Result<void> cleared = throw_away_from(from); !cleared) return cleared.error();
  const std::string name = archive_name(from, builder.to());
  const ArchiveBuilder::Made made = builder.finish(checkpoint.note.str());
  if (const Result<void> written = write(log.archives().dir() / name, made.bytes, signer->verifier()); !written)
    return written.error();
  Sealed sealed{.from = from,
                .to = builder.to(),
                .file = name,
                .sha256 = sha256_hex(made.bytes),
                .raw_bytes = builder.bytes(),
                .file_bytes = made.bytes.size(),
                .record = 0,
                .holds = {}};
  if (const Result<void> step_done = step("record"); !step_done) return step_done.error();
  Record record;
  record.event = ArchiveSealed{.from = static_cast<std::int64_t>(sealed.from),
                               .to = static_cast<std::int64_t>(sealed.to),
                               .sha256 = sealed.sha256};
  const Result<Seq> recorded = append(std::move(record), {});
  if (!recorded) return recorded.error();
  sealed.record = *recorded;
  const Result<bool> dropped = drop(table_.archives.at(from), &sealed.holds, &kept);
  if (!dropped) return dropped.error();
  return std::optional<Sealed>(std::move(sealed));
}

// False: a hold is on it. The file is looked at first: what is dropped is there.
Result<bool> Archivist::drop(const ArchiveTable::Archive& archive, std::vector<std::string>* holds,
                             const std::vector<Seq>* known_kept) {
  const EventLog& log = ledger_.log();
  const std::filesystem::path path = log.archives().dir() / archive_name(archive.from, archive.to);
  const Result<std::string> bytes = read_file(path, kMaxArchiveFile);
  if (!bytes) return bytes.error();
  if (sha256_hex(*bytes) != archive.sha256)
    return Error{Errc::corrupt, "the archive " + path.string() + " is not the one that was sealed"};
  const auto file = ArchiveFile::of_bytes(*bytes, path.string());
  if (!file) return file.error();
  const Result<std::vector<std::string>> held =
      holds_on(log, table_, archive.from, archive.to, (*file)->first_time(), (*file)->last_time());
  if (!held) return held.error();
  if (holds != nullptr) *holds = *held;
  if (!held->empty()) return false;

  std::vector<Seq> kept;
  if (known_kept != nullptr) {
    kept = *known_kept;
  } else {
    const Result<void> read = log.scan(archive.from, archive.to, [&](Seq seq, const Result<Record>& record) {
      if (!record || stays_in_store(record->kind())) kept.push_back(seq);
      return true;
    });
    if (!read) return read.error();
  }
  const ArchivedRange range{.from = archive.from,
                            .to = archive.to,
                            .first_time = (*file)->first_time(),
                            .last_time = (*file)->last_time(),
                            .digest = (*file)->digest(),
                            .stage = ArchivedRange::Stage::dropped};
  if (const Result<void> step_done = step("drop"); !step_done) return step_done.error();
  if (const auto done = ledger_.with_log([&](EventLog& own) { return own.drop(range, kept); }); !done)
    return done.error();
  if (const Result<void> step_done = step("reclaim"); !step_done) return step_done.error();
  if (const Result<void> reclaimed = log.reclaim(archive.from, archive.to); !reclaimed) return reclaimed.error();
  return true;
}

Result<std::optional<Archivist::Sealed>> Archivist::seal_next(const Goal& goal) {
  const std::lock_guard lock(mutex_);
  if (const Result<void> finished = finish(); !finished) return finished.error();
  return seal(goal);
}

// ---- the policy ------------------------------------------------------------------------------------------

Result<Archivist::Goal> Archivist::goal_of(const Policy& policy, Time now) const {
  const EventLog& log = ledger_.log();
  const Seq from = table_.sealed_to() + 1;
  Goal by_size{.to = 0};
  if (policy.bytes) {
    std::uint64_t in_store = log.head();
    for (const ArchivedRange& range : log.archived()) in_store -= range.to - range.from + 1;
    const std::uint64_t bytes = log.stored_bytes();
    if (bytes > *policy.bytes && in_store > 0) {
      const std::uint64_t each = std::max<std::uint64_t>(1, bytes / in_store);
      by_size.to = from + (bytes - *policy.bytes) / each;
      by_size.min_records = std::min(options_.max_records, kLeastForSize);
    }
  }
  if (by_size.to != 0 || !policy.age_s) return by_size;
  Goal by_age;
  by_age.before = now.plus_seconds(-*policy.age_s);
  by_age.min_records = options_.max_records;
  by_age.overdue = by_age.before.plus_seconds(-std::min(kPartialAfter_s, *policy.age_s / 10));
  return by_age;
}

Result<std::optional<Archivist::Sealed>> Archivist::keep(const Policy& policy, Time now) {
  const std::lock_guard lock(mutex_);
  if (const Result<void> finished = finish(); !finished) return finished.error();
  if (!policy.is_set()) return std::optional<Sealed>();
  const Result<Goal> goal = goal_of(policy, now);
  if (!goal) return goal.error();
  return seal(*goal);
}

void Archivist::run(const Policy& policy) {
  bool failed = false;
  std::unique_lock lock(wake_mutex_);
  while (!stopping_) {
    lock.unlock();
    const Result<std::optional<Sealed>> done = keep(policy, Time::now());
    if (done && *done) {
      std::string held;
      for (const std::string& id : (*done)->holds) held += (held.empty() ? "" : ", ") + id;
      tell(false, records_text((*done)->from, (*done)->to) + " are sealed in " + (*done)->file +
                      (held.empty() ? "" : "; they stay in the store because of the legal hold " + held));
    }
    // Before the first checkpoint there is nothing to do.
    const bool problem = !done && done.error().code != Errc::not_found;
    if (problem && !failed) tell(true, "no archive can be made: " + done.error().message);
    failed = problem;
    lock.lock();
    if (!done || !*done) wake_.wait_for(lock, kLookEvery, [&] { return stopping_; });
  }
}

void Archivist::start(const Policy& policy) {
  thread_ = std::thread([this, policy] { run(policy); });
}

void Archivist::stop() {
  {
    const std::lock_guard lock(wake_mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

// ---- holds and removal -----------------------------------------------------------------------------------

namespace {

Result<void> check_action(const OperatorAction& action) {
  if (trim(action.reason).empty())
    return Error{Errc::invalid, "say why: --reason \"...\" becomes part of the log"};
  if (action.reason.size() > kMaxReason) return Error{Errc::invalid, "the reason is longer than 1000 bytes"};
  return {};
}

Result<void> check_hold(const Archivist::HoldRequest& request) {
  const bool seqs = request.from != 0 || request.to != 0, times = request.since || request.until;
  if (int{!request.node.empty()} + int{seqs} + int{times} != 1)
    return Error{Errc::invalid, "a hold is on a node, on a range of records or on a time: name one of them (two holds "
                                "hold both)"};
  if (!request.node.empty())
    if (const Result<NodeName> node = NodeName::parse(request.node); !node) return node.error();
  if ((request.to != 0 && request.to < request.from) ||
      (request.since && request.until && *request.until < *request.since))
    return Error{Errc::invalid, "the range of a hold ends before it begins"};
  return {};
}

}  // namespace

Result<Archivist::Done> Archivist::hold(const HoldRequest& request, const OperatorAction& action) {
  if (const Result<void> checked = check_action(action); !checked) return checked.error();
  if (const Result<void> checked = check_hold(request); !checked) return checked.error();
  const std::lock_guard lock(mutex_);
  Done done{.hold = random_hex(4)};
  Record record;
  record.node = to_lower(request.node);
  record.event = LegalHoldPlaced{.actor = action.actor,
                                 .hold = done.hold,
                                 .from = static_cast<std::int64_t>(request.to != 0 && request.from == 0 ? 1 : request.from),
                                 .to = static_cast<std::int64_t>(request.to),
                                 .since = request.since,
                                 .until = request.until};
  const Result<Seq> recorded = append(std::move(record), action);
  if (!recorded) return recorded.error();
  done.record = *recorded;
  return done;
}

Result<Archivist::Done> Archivist::lift(std::string_view id, const OperatorAction& action) {
  if (const Result<void> checked = check_action(action); !checked) return checked.error();
  const std::lock_guard lock(mutex_);
  if (const Result<void> folded = catch_up(); !folded) return folded.error();
  const auto hold = table_.holds.find(std::string(id));
  if (hold == table_.holds.end())
    return Error{Errc::not_found, "no legal hold " + printable(id, 40) + " stands; `ledger archive list` shows those that do"};
  Done done{.hold = hold->first};
  Record record;
  record.node = hold->second.node;
  record.event = LegalHoldLifted{.actor = action.actor, .hold = done.hold};
  const Result<Seq> recorded = append(std::move(record), action);
  if (!recorded) return recorded.error();
  done.record = *recorded;
  return done;
}

Result<Archivist::Done> Archivist::remove(Seq from, const OperatorAction& action) {
  if (const Result<void> checked = check_action(action); !checked) return checked.error();
  const std::lock_guard lock(mutex_);
  if (const Result<void> finished = finish(); !finished) return finished.error();
  const auto found = table_.archives.find(from);
  if (found == table_.archives.end())
    return Error{Errc::not_found, "no archive begins with record " + std::to_string(from) +
                                      "; `ledger archive list` shows them"};
  const ArchiveTable::Archive archive = found->second;
  const std::string name = archive_name(archive.from, archive.to);
  if (archive.removed != 0)
    return Error{Errc::conflict, name + " was removed already (record " + std::to_string(archive.removed) + ")"};
  const std::vector<ArchivedRange> ranges = ledger_.log().archived();
  const auto range = std::find_if(ranges.begin(), ranges.end(), [&](const auto& one) { return one.from == from; });
  const Time first = range != ranges.end() ? range->first_time : Time{};
  const Time last = range != ranges.end() ? range->last_time : Time{INT64_MAX};
  const Result<std::vector<std::string>> held = holds_on(ledger_.log(), table_, archive.from, archive.to, first, last);
  if (!held) return held.error();
  if (!held->empty()) {
    const LegalHold& hold = table_.holds.at(held->front());
    return Error{Errc::conflict, name + " is under the legal hold " + hold.id + " (" + hold.covers() + "; by " +
                                     printable(hold.actor, 100) + ": " + printable(hold.reason, 200) +
                                     "): nothing of it is removed until `ledger archive lift " + hold.id + "`"};
  }
  if (range == ranges.end())
    return Error{Errc::conflict, "the records of " + name + " are still in the store; `ledger archive seal` drops them"};
  Record record;
  record.event = ArchiveRemoved{.actor = action.actor,
                                .from = static_cast<std::int64_t>(archive.from),
                                .to = static_cast<std::int64_t>(archive.to),
                                .sha256 = archive.sha256};
  const Result<Seq> recorded = append(std::move(record), action);
  if (!recorded) return recorded.error();
  if (const Result<void> removed = finish_removal(table_.archives.at(from)); !removed) return removed.error();
  return Done{.hold = {}, .record = *recorded};
}

// From the first write on nobody reads the archive any more; with the last one it is forgotten.
Result<void> Archivist::finish_removal(const ArchiveTable::Archive& archive) {
  const EventLog& log = ledger_.log();
  const auto set = [&](ArchivedRange::Stage stage) {
    return ledger_.with_log([&, stage](EventLog& own) { return own.set_stage(archive.from, stage); });
  };
  if (const Result<void> step_done = step("mark removed"); !step_done) return step_done;
  if (const Result<void> marked = set(ArchivedRange::Stage::removing); !marked) return marked;
  std::set<Seq> kept;
  for (Seq seq = archive.from; seq <= archive.to; ++seq) {
    const Result<bool> stored = log.is_stored(seq);
    if (!stored) return stored.error();
    if (*stored) kept.insert(kept.end(), seq);
  }
  std::vector<EventLog::IndexEntry> piece;
  Result<void> written;
  const auto write_piece = [&] {
    if (piece.empty()) return true;
    written = step("remove index entries");
    if (written) written = ledger_.with_log([&](EventLog& own) { return own.remove_index_entries(piece); });
    piece.clear();
    return written.has_value();
  };
  const Result<void> walked = log.each_index_entry([&](Index index, std::string_view value, Seq seq) {
    if (seq < archive.from || seq > archive.to || kept.count(seq) != 0) return true;
    piece.push_back({index, std::string(value), seq});
    return piece.size() < kIndexPiece || write_piece();
  });
  if (!walked) return walked;
  if (!written || !write_piece()) return written;
  if (const Result<void> step_done = step("remove the file"); !step_done) return step_done;
  const std::filesystem::path path = log.archives().dir() / archive_name(archive.from, archive.to);
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored))
    if (const Result<void> removed = remove_file(path); !removed) return removed;
  if (const Result<void> step_done = step("forget"); !step_done) return step_done;
  return set(ArchivedRange::Stage::removed);
}

}  // namespace ledger
