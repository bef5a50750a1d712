#include "replay/verify.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "ledger/archivist.h"
#include "ledger/credentials.h"
#include "ledger/event_codec.h"

namespace ledger::replay {

std::string_view name_of(Damage damage) {
  switch (damage) {
    case Damage::kGap: return "gap";
    case Damage::kUndecodable: return "undecodable";
    case Damage::kTimeWentBack: return "time_went_back";
    case Damage::kIndexMissing: return "index_missing";
    case Damage::kIndexToNothing: return "index_to_nothing";
    case Damage::kIndexSurplus: return "index_surplus";
    case Damage::kProjectionDiffers: return "projection_differs";
    case Damage::kBitFlipped: return "bit_flipped";
    case Damage::kRecordChanged: return "record_changed";
    case Damage::kRecordMoved: return "record_moved";
    case Damage::kRecordInserted: return "record_inserted";
    case Damage::kRecordRemoved: return "record_removed";
    case Damage::kTreeDiffers: return "tree_differs";
    case Damage::kTailCut: return "tail_cut";
    case Damage::kRolledBack: return "rolled_back";
    case Damage::kCheckpointDiffers: return "checkpoint_differs";
    case Damage::kOtherLog: return "other_log";
    case Damage::kCheckpointBad: return "checkpoint_bad";
    case Damage::kArchiveDamaged: return "archive_damaged";
  }
  fatal("a damage without a name");
}

bool VerifyReport::sound() const {
  return std::all_of(std::begin(counts), std::end(counts), [](std::uint64_t count) { return count == 0; });
}

bool VerifyReport::complete() const {
  return std::all_of(unchecked.begin(), unchecked.end(), [](const Unchecked& range) { return range.removed; });
}

namespace {

constexpr std::uint64_t kShown = 20;
constexpr std::size_t kMaxArchiveFile = std::size_t{1} << 30;
constexpr unsigned kChunkLevel = 10;  // records are checked in complete subtrees of this height
constexpr Seq kChunk = Seq{1} << kChunkLevel;
constexpr std::size_t kChangedKept = 1000;  // changed records that are looked at closely
constexpr std::size_t kMovedCompared = 64;  // of these, how many are compared each with each
constexpr std::size_t kBitsTried = 4096;    // bytes of a record in which a flipped bit is looked for

std::string index_name(Index index, std::string_view value) {
  const char* what = index == Index::node          ? "node"
                     : index == Index::fingerprint ? "fingerprint"
                     : index == Index::address     ? "address"
                     : index == Index::serial      ? "serial"
                     : index == Index::request     ? "request"
                     : index == Index::server_wide ? "server-wide"
                                                   : "unknown";
  return std::string(what) + " index" + (value.empty() ? "" : " under '" + printable(value, 80) + "'");
}

// The sum of a set that does not depend on the order: equal sets have equal sums, and who does not know the key
// cannot make two sets that have the same.
class SetSum {
 public:
  explicit SetSum(std::string key) : key_(std::move(key)) {}
  void add(Index index, std::string_view value, Seq seq) {
    std::string entry = key_;
    entry.push_back(static_cast<char>(index));
    entry.append(value).append(1, '\0').append(std::to_string(seq));
    merge(leaf_hash(entry), 1);
  }
  void add(const SetSum& other) { merge(other.sum_, other.count_); }
  bool operator==(const SetSum& other) const { return sum_ == other.sum_ && count_ == other.count_; }

 private:
  void merge(const TreeHash& hash, std::uint64_t count) {
    for (std::size_t i = 0; i < sum_.size(); ++i) sum_[i] = static_cast<char>(sum_[i] ^ hash[i]);
    count_ += count;
  }
  std::string key_;
  TreeHash sum_{};
  std::uint64_t count_ = 0;
};

// A record that is not the one that the tree was made of.
struct Changed {
  Seq seq = 0;
  std::string bytes;
  TreeHash leaf{};  // the tree's
};

// What one worker found in one run of seqs.
struct Chunk {
  explicit Chunk(const std::string& key) : terms(key) {}
  std::vector<std::pair<Seq, Result<Record>>> records;  // those that are there, in order
  SetSum terms;
  std::vector<Changed> changed;
  std::uint64_t beyond = 0;  // records that the tree does not reach
  std::vector<DamageFound> damage;
  std::optional<TreeHash> root;  // of a whole chunk, by the tree's own leaves
  std::vector<TreeHash> last;    // what the tree holds for the chunk's last seq
  std::optional<Error> failed;
};

Result<Record> decode_at(Seq seq, std::string_view bytes) {
  Result<Record> record = decode_record(bytes);
  if (record && record->seq != seq)
    return Error{Errc::corrupt,
                 "stored under seq " + std::to_string(seq) + " but says it is seq " + std::to_string(record->seq)};
  return record;
}

std::set<std::pair<Index, std::string>> distinct_terms(const Record& record) {
  std::set<std::pair<Index, std::string>> distinct;
  for (auto& term : index_terms(record)) distinct.insert(std::move(term));
  return distinct;
}

std::vector<TreeHash> hashes_of(std::string_view bytes) {
  std::vector<TreeHash> hashes;
  for (; bytes.size() >= sizeof(TreeHash); bytes.remove_prefix(sizeof(TreeHash)))
    hashes.push_back(*tree_hash_from(bytes.substr(0, sizeof(TreeHash))));
  return hashes;
}

// The ranges whose records cannot be had: in order.
class Absent {
 public:
  void add(const ArchivedRange& range) { ranges_.push_back(range); }
  bool holds(Seq seq) const {
    const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), seq,
                                        [](Seq value, const ArchivedRange& range) { return value < range.from; });
    return after != ranges_.begin() && std::prev(after)->holds(seq);
  }
  const std::vector<ArchivedRange>& ranges() const { return ranges_; }

 private:
  std::vector<ArchivedRange> ranges_;
};

// Reads one run of seqs and looks at everything that concerns it alone.
class ChunkReader {
 public:
  ChunkReader(const EventLog& log, const Absent& absent, const std::string& key, Seq from, Seq to)
      : log_(log), absent_(absent), chunk_(key), from_(from), to_(to) {}

  Chunk read(bool with_tree) {
    if (const Result<void> records = read_records(); !records)
      chunk_.failed = records.error();
    else if (with_tree)
      read_tree();
    return std::move(chunk_);
  }

 private:
  Result<void> read_records() {
    const Result<void> scanned = log_.scan_bytes(from_, to_, [&](Seq seq, std::string_view bytes) {
      bytes_.emplace_hint(bytes_.end(), seq, bytes);
      return true;
    });
    if (!scanned && scanned.error().code != Errc::corrupt && scanned.error().code != Errc::archived)
      return scanned.error();
    // Where a block of the store or of an archive is damaged, asking for each record tells which are in it.
    if (!scanned) {
      bytes_.clear();
      for (Seq seq = from_; seq <= to_; ++seq) {
        Result<std::string> bytes = log_.read_bytes(seq);
        if (bytes)
          bytes_.emplace(seq, std::move(*bytes));
        else if (bytes.error().code == Errc::corrupt || bytes.error().code == Errc::archived)
          unreadable_.emplace(seq, bytes.error());
        else if (bytes.error().code != Errc::not_found)
          return bytes.error();
      }
    }
    for (const auto& [seq, error] : unreadable_) chunk_.records.emplace_back(seq, error);
    for (const auto& [seq, bytes] : bytes_) {
      chunk_.records.emplace_back(seq, decode_at(seq, bytes));
      if (const Result<Record>& record = chunk_.records.back().second; record && !absent_.holds(seq))
        for (const auto& [index, value] : distinct_terms(*record)) chunk_.terms.add(index, value, seq);
    }
    std::sort(chunk_.records.begin(), chunk_.records.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    return {};
  }

  // The records against the tree's leaves, and the tree's nodes against its own leaves.
  void read_tree() {
    std::map<Seq, std::vector<TreeHash>> stored;
    const Result<void> scanned = log_.scan_tree(from_, to_, [&](Seq seq, std::string_view bytes) {
      stored.emplace_hint(stored.end(), seq, hashes_of(bytes));
      return true;
    });
    if (!scanned) tree_damage(from_, "cannot be read: " + scanned.error().message);
    for (const auto& [seq, bytes] : bytes_) {
      const auto node = stored.find(seq);
      if (node == stored.end() || node->second.empty())
        ++chunk_.beyond;
      else if (leaf_hash(bytes) != node->second.front())
        chunk_.changed.push_back({seq, bytes, node->second.front()});
    }
    TreeEdge edge;
    Seq expected = from_;
    std::vector<TreeHash> completed;
    for (const auto& [seq, hashes] : stored) {
      if (seq != expected++ || hashes.empty()) return tree_damage(seq, "lacks what should be before it");
      completed.clear();
      edge.append(hashes.front(), &completed);
      const std::size_t known = std::min(completed.size(), hashes.size());
      if (hashes.size() < completed.size() ||
          !std::equal(completed.begin(), completed.begin() + static_cast<std::ptrdiff_t>(known), hashes.begin()))
        return tree_damage(seq, "contradicts itself");
      chunk_.last = hashes;
    }
    if (edge.size() == kChunk) chunk_.root = edge.root();
  }

  void tree_damage(Seq seq, const std::string& what) {
    chunk_.damage.push_back({Damage::kTreeDiffers, seq, "the tree at entry " + std::to_string(seq) + " " + what});
  }

  const EventLog& log_;
  const Absent& absent_;
  Chunk chunk_;
  Seq from_, to_;
  std::map<Seq, std::string> bytes_;
  std::map<Seq, Error> unreadable_;
};

// The chunks of 1..head in order, made by several threads that never are far ahead.
class ChunkStream {
 public:
  ChunkStream(const EventLog& log, const Absent& absent, const std::string& key, Seq head, bool with_tree,
              unsigned threads)
      : log_(log),
        absent_(absent),
        key_(key),
        head_(head),
        with_tree_(with_tree),
        chunks_((head + kChunk - 1) / kChunk),
        window_(4 * threads) {
    for (unsigned i = 0; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }
  ChunkStream(const ChunkStream&) = delete;
  ChunkStream& operator=(const ChunkStream&) = delete;
  ~ChunkStream() {
    {
      const std::lock_guard lock(mutex_);
      taken_ = next_ = chunks_;  // whoever waits ends
    }
    changed_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  std::optional<Chunk> take() {
    std::unique_lock lock(mutex_);
    if (taken_ == chunks_) return std::nullopt;
    changed_.wait(lock, [&] { return done_.count(taken_) > 0; });
    auto node = done_.extract(taken_++);
    lock.unlock();
    changed_.notify_all();
    return std::move(node.mapped());
  }

 private:
  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return next_ >= chunks_ || next_ < taken_ + window_; });
      if (next_ >= chunks_) return;
      const Seq number = next_++;
      lock.unlock();
      const Seq from = number * kChunk + 1;
      Chunk chunk = ChunkReader(log_, absent_, key_, from, std::min(head_, from + kChunk - 1)).read(with_tree_);
      lock.lock();
      done_.emplace(number, std::move(chunk));
      lock.unlock();
      changed_.notify_all();
    }
  }

  const EventLog& log_;
  const Absent& absent_;
  const std::string key_;
  const Seq head_;
  const bool with_tree_;
  const Seq chunks_, window_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Seq next_ = 0, taken_ = 0;
  std::map<Seq, Chunk> done_;
  std::vector<std::thread> workers_;
};

class Verifier {
 public:
  Verifier(const EventLog& log, const Progress& progress, const VerifyOptions& options)
      : log_(log), progress_(progress), options_(options), key_(random_hex(16)), expected_terms_(key_) {
    report_.ledger = log.id();
    report_.head = log.head();
    report_.has_tree = log.tree_size() > 0 || report_.head == 0;
    report_.lost = options.lost;
  }

  Result<VerifyReport> run() {
    const unsigned threads =
        options_.threads != 0 ? options_.threads : std::max(1u, std::thread::hardware_concurrency());
    if (const Result<void> archives = check_archives(); !archives) return archives.error();
    SetSum listed(key_);
    Result<void> walked;
    std::thread index([&] { walked = sum_index(listed); });
    const Result<void> records = check_records(threads);
    index.join();
    report_.index_entries = index_entries_;
    if (!records) return records.error();
    if (!walked) return walked.error();
    if (!unreadable_.empty() || !(listed == expected_terms_))
      if (const Result<void> entries = check_index_entries(); !entries) return entries.error();
    if (const Result<void> nodes = check_projection(); !nodes) return nodes.error();
    explain_changes();
    check_tree_end();
    if (const Result<void> checkpoints = check_checkpoints(); !checkpoints) return checkpoints.error();
    return std::move(report_);
  }

 private:
  void found(Damage damage, Seq seq, std::string text) {
    if (report_.counts[static_cast<std::size_t>(damage)]++ < kShown)
      report_.damage.push_back({damage, seq, std::move(text)});
  }

  Result<void> sum_index(SetSum& listed) {
    return log_.each_index_entry([&](Index index, std::string_view value, Seq seq) {
      if (!absent_.holds(seq)) listed.add(index, value, seq);
      ++index_entries_;
      return true;
    });
  }

  // ---- archives ------------------------------------------------------------------------------------------

  // Which are here, and whether their files are those that were recorded. What is in them is seen with the records.
  Result<void> check_archives() {
    Result<ArchiveTable> table = ArchiveTable::read(log_);
    if (!table && table.error().code == Errc::io) return table.error();
    if (!table) table = ArchiveTable{};  // the record that cannot be read is found below
    const std::vector<ArchivedRange> ranges = log_.archived();
    for (const ArchivedRange& range : ranges) {
      const auto file = log_.archives().file_of(range);
      if (!file && file.error().code != Errc::archived)
        found(Damage::kArchiveDamaged, range.from, file.error().message);
      if (!file) {
        absent_.add(range);
        report_.unchecked.push_back({range.from, range.to, range.is_removed(), file.error().message});
      }
    }
    for (const auto& [from, archive] : table->archives) check_file(archive);
    return {};
  }

  void check_file(const ArchiveTable::Archive& archive) {
    if (archive.removed != 0 || absent_.holds(archive.from)) return;
    const std::filesystem::path path = log_.archives().dir() / archive_name(archive.from, archive.to);
    const Result<std::string> bytes = read_file(path, kMaxArchiveFile);
    if (!bytes && bytes.error().code == Errc::not_found) return;  // its records are in the store
    if (bytes && sha256_hex(*bytes) == archive.sha256) {
      ++report_.archives;
      return;
    }
    std::string what = bytes ? "is not the one that record " + std::to_string(archive.sealed) + " (archive_sealed) names"
                             : bytes.error().message;
    const auto file = bytes ? ArchiveFile::of_bytes(*bytes, path.string())
                            : Result<std::shared_ptr<const ArchiveFile>>(bytes.error());
    const std::vector<std::string> damage = file ? check_archive(**file, nullptr).damage
                                                 : std::vector<std::string>{file.error().message};
    found(Damage::kArchiveDamaged, archive.from,
          "the archive " + path.string() + " " + what + (damage.empty() ? "" : ": " + damage.front()));
  }

  // Records and index entries are both walked; most records have about three entries.
  void tell() {
    if (progress_) progress_(report_.records + index_entries_, report_.head * 4);
  }

  Result<void> check_records(unsigned threads) {
    ChunkStream chunks(log_, absent_, key_, report_.head, report_.has_tree, threads);
    while (std::optional<Chunk> chunk = chunks.take()) {
      if (chunk->failed) return *chunk->failed;
      for (const auto& [seq, record] : chunk->records) check_record(seq, record);
      expected_terms_.add(chunk->terms);
      for (DamageFound& damage : chunk->damage) found(damage.damage, damage.seq, std::move(damage.text));
      beyond_ += chunk->beyond;
      for (Changed& changed : chunk->changed) {
        if (changed_.size() < kChangedKept)
          changed_.push_back(std::move(changed));
        else if (more_changed_++ == 0)
          more_changed_from_ = changed.seq;
      }
      check_upper_tree(*chunk);
      tell();
    }
    if (next_ <= report_.head)
      found(Damage::kGap, next_,
            "records " + std::to_string(next_) + " to " + std::to_string(report_.head) + " are missing");
    return {};
  }

  void check_record(Seq seq, const Result<Record>& record) {
    const bool is_absent = !record && record.error().code == Errc::archived && absent_.holds(seq);
    if (!is_absent) ++report_.records;
    if (seq != next_)
      found(Damage::kGap, next_,
            "records " + std::to_string(next_) + " to " + std::to_string(seq - 1) + " are missing");
    next_ = seq + 1;
    if (is_absent) return;
    if (!record) {
      unreadable_.insert(seq);
      found(Damage::kUndecodable, seq,
            "record " + std::to_string(seq) + " cannot be read: " + record.error().message);
      return;
    }
    if (record->time < before_)
      found(Damage::kTimeWentBack, seq,
            "record " + std::to_string(seq) + " is stamped " + record->time.to_string() +
                ", earlier than the record before it");
    before_ = std::max(before_, record->time);
    fresh_.apply(*record);
    if (const auto* checkpoint = as<CheckpointSigned>(*record); checkpoint != nullptr && !is_imported(*record))
      recorded_.emplace_back(seq, *checkpoint);
  }

  // The nodes above whole chunks.
  void check_upper_tree(const Chunk& chunk) {
    if (!upper_whole_ || !chunk.root) {
      upper_whole_ = false;
      return;
    }
    std::vector<TreeHash> completed;
    upper_.append(*chunk.root, &completed, kChunkLevel);
    if (chunk.last.size() != completed.size() + kChunkLevel ||
        !std::equal(completed.begin(), completed.end(), chunk.last.begin() + kChunkLevel)) {
      upper_whole_ = false;
      found(Damage::kTreeDiffers, upper_.size(),
            "the tree at entry " + std::to_string(upper_.size()) + " contradicts itself");
    }
  }

  // ---- what was done to records that the tree does not know ----------------------------------------------

  static std::string changed_text(Seq seq) {
    return "record " + std::to_string(seq) + " was rewritten: it is not the one that the tree was made of";
  }

  // The seq under which the tree knows this record, if it was only moved: as it is, or with its number changed.
  std::optional<Seq> former_seq(const Changed& changed, const std::map<std::string_view, Seq>& leaves) const {
    if (const auto moved = leaves.find(view_of(leaf_hash(changed.bytes))); moved != leaves.end())
      return moved->second;
    Result<Record> record = decode_record(changed.bytes);
    if (!record) return std::nullopt;
    std::vector<Seq> candidates = {changed.seq + 1, changed.seq - 1};
    if (changed_.size() <= kMovedCompared)
      for (const Changed& other : changed_) candidates.push_back(other.seq);
    for (const Seq seq : candidates) {
      if (seq == 0 || seq == changed.seq || seq > log_.tree_size()) continue;
      const Result<TreeHash> leaf = log_.tree_nodes()(0, seq - 1);
      record->seq = seq;
      if (leaf && leaf_hash(encode(*record)) == *leaf) return seq;
    }
    return std::nullopt;
  }

  static std::optional<std::size_t> flipped_bit(const Changed& changed) {
    std::string bytes = changed.bytes;
    if (bytes.size() > kBitsTried) return std::nullopt;
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      char& byte = bytes[bit / 8];
      const char was = byte;
      byte = static_cast<char>(byte ^ (1 << bit % 8));
      if (leaf_hash(bytes) == changed.leaf) return bit;
      byte = was;
    }
    return std::nullopt;
  }

  void explain_changes() {
    std::map<std::string_view, Seq> leaves;
    for (const Changed& changed : changed_) leaves.emplace(view_of(changed.leaf), changed.seq);
    std::map<Seq, Seq> former;
    for (const Changed& changed : changed_)
      if (const std::optional<Seq> seq = former_seq(changed, leaves)) former[changed.seq] = *seq;
    std::size_t bits_looked_for = 0;
    Seq in_run = 0;  // the record after the last of a run that was numbered anew
    for (const Changed& changed : changed_) {
      const Seq seq = changed.seq;
      const std::string name = "record " + std::to_string(seq);
      const auto was = former.find(seq);
      const auto next = former.find(seq + 1);
      if (was == former.end()) {
        if (next != former.end() && next->second == seq) {
          found(Damage::kRecordInserted, seq,
                name + " was inserted: those after it are the tree's records one number lower");
          in_run = seq + 1;
        } else if (const auto bit = bits_looked_for++ < kShown ? flipped_bit(changed) : std::nullopt) {
          found(Damage::kBitFlipped, seq,
                "one bit of " + name + " is flipped: bit " + std::to_string(*bit % 8) + " of byte " +
                    std::to_string(*bit / 8));
        } else {
          found(Damage::kRecordChanged, seq, changed_text(seq));
        }
      } else if (was->second == seq + 1 && !(next != former.end() && next->second == seq)) {
        if (in_run != seq)
          found(Damage::kRecordRemoved, seq, name + " was removed: those after it were numbered one lower");
        in_run = seq + 1;
      } else if (was->second == seq - 1 && in_run == seq) {
        in_run = seq + 1;
      } else {
        found(
            Damage::kRecordMoved, seq,
            name + " is the tree's record " + std::to_string(was->second) + ": records were put in another order");
      }
    }
    // What was numbered anew goes on to the end, where the log is one longer or shorter than the tree.
    if (more_changed_ > 0 && in_run == more_changed_from_)
      in_run = report_.head;
    else if (more_changed_ > 0)
      found(Damage::kRecordChanged, more_changed_from_,
            std::to_string(more_changed_) + " more records from " + std::to_string(more_changed_from_) +
                " on are not those that the tree was made of");
    if (in_run == report_.head && beyond_ == 1) beyond_ = 0;
    removed_end_ = report_.count(Damage::kRecordRemoved) == 1 && log_.tree_size() == report_.head + 1;
  }

  // ---- the ends ------------------------------------------------------------------------------------------

  void check_tree_end() {
    if (!report_.has_tree) return;
    const std::uint64_t size = log_.tree_size();
    if (size > report_.head && !removed_end_)
      found(Damage::kTailCut, report_.head + 1,
            "the tail was cut off: the tree has " + std::to_string(size) + " entries, the last record is " +
                std::to_string(report_.head));
    if (beyond_ > 0)
      found(Damage::kTreeDiffers, size + 1,
            "the tree lacks " + std::to_string(beyond_) + " of the records; it has " + std::to_string(size) +
                " entries");
    if (const Result<TreeHead> tree = log_.tree()) report_.tree = *tree;
  }

  Result<void> check_checkpoints() {
    for (const DamageFound& damage : options_.found) found(damage.damage, damage.seq, damage.text);
    struct Claim {
      std::string where;
      std::uint64_t size;
      std::string root;  // hex
    };
    std::vector<Claim> claims;
    for (const KnownCheckpoint& known : options_.checkpoints) {
      const Checkpoint& checkpoint = known.checkpoint;
      if (checkpoint.origin != origin_of(report_.ledger))
        found(Damage::kOtherLog, 0,
              "the checkpoint in " + known.where + " is of " + printable(checkpoint.origin, 100) +
                  ", this log is " + origin_of(report_.ledger) + ": the log was replaced, or this is another one");
      else
        claims.push_back(
            {"the checkpoint in " + known.where, checkpoint.head.size, to_hex(view_of(checkpoint.head.root))});
    }
    for (const auto& [seq, recorded] : recorded_)
      claims.push_back({"record " + std::to_string(seq) + " (checkpoint_signed)",
                        static_cast<std::uint64_t>(std::max<std::int64_t>(0, recorded.size)), recorded.root});
    if (!report_.has_tree && !claims.empty())
      found(Damage::kTreeDiffers, 1, "the log has no tree, although checkpoints of it were signed");
    std::stable_sort(claims.begin(), claims.end(), [](const Claim& a, const Claim& b) { return a.size < b.size; });
    std::uint64_t agreed = 0;
    for (const Claim& claim : claims) {
      if (claim.size > report_.head) {
        past_the_end(claim.where, claim.size, agreed);
        continue;
      }
      const Result<TreeHash> root = root_at(claim.size, log_.tree_nodes());
      if (root && to_hex(view_of(*root)) == claim.root) {
        ++report_.checkpoints;
        agreed = report_.covered = claim.size;
        continue;
      }
      const std::string between = agreed + 1 < claim.size ? "records " + std::to_string(agreed + 1) + " to " +
                                                                std::to_string(claim.size) + " are"
                                                          : "record " + std::to_string(claim.size) + " is";
      found(Damage::kCheckpointDiffers, agreed + 1,
            claim.where + " saw another log: " + between + " not what was signed" +
                (agreed > 0 ? ", those before are" : ", and no older checkpoint agrees"));
    }
    return {};
  }

  // A checkpoint saw more records than there are; `agreed` are vouched for by an older one.
  void past_the_end(const std::string& where, std::uint64_t size, std::uint64_t agreed) {
    const std::string saw =
        where + " saw " + std::to_string(size) + " records, and there are " + std::to_string(report_.head) + ": ";
    const bool traces = report_.count(Damage::kTailCut) > 0 || report_.count(Damage::kIndexToNothing) > 0 ||
                        report_.count(Damage::kProjectionDiffers) > 0;
    if (traces)
      found(Damage::kTailCut, report_.head + 1, saw + "the tail was cut off, and left traces");
    else
      found(Damage::kRolledBack, report_.head + 1,
            saw + "an older copy was restored, or records after " + std::to_string(agreed) +
                " were taken out of everything; what is left holds together");
  }

  // Every record's entries, and every entry's record: only when the sums say that something is wrong.
  Result<void> check_index_entries() {
    Result<void> failed;
    const Result<void> scanned = log_.scan(1, report_.head, [&](Seq, const Result<Record>& record) {
      if (record) failed = check_terms(*record);
      return failed.has_value();
    });
    if (!failed) return failed;
    if (!scanned && scanned.error().code != Errc::corrupt) return scanned.error();
    return check_entries();
  }

  Result<void> check_terms(const Record& record) {
    for (const auto& [index, value] : distinct_terms(record)) {
      const Result<bool> there = log_.has_index_entry(index, value, record.seq);
      if (!there) return there.error();
      if (!*there)
        found(Damage::kIndexMissing, record.seq,
              "record " + std::to_string(record.seq) + " is not in the " + index_name(index, value));
    }
    return {};
  }

  Result<void> check_entries() {
    Result<void> failed;
    const Result<void> walked = log_.each_index_entry([&](Index index, std::string_view value, Seq seq) {
      if (unreadable_.count(seq) > 0 || absent_.holds(seq)) return true;
      const Result<Record> record = log_.read(seq);
      const std::string where = index_name(index, value);
      if (!record && record.error().code == Errc::io) {
        failed = record.error();
        return false;
      }
      if (!record) {
        found(Damage::kIndexToNothing, seq,
              "the " + where + " lists record " + std::to_string(seq) + ", which does not exist");
        return true;
      }
      const auto terms = index_terms(*record);
      if (std::none_of(terms.begin(), terms.end(),
                       [&](const auto& term) { return term.first == index && term.second == value; }))
        found(Damage::kIndexSurplus, seq,
              "the " + where + " lists record " + std::to_string(seq) + ", which does not say that");
      return true;
    });
    if (!walked) return walked.error();
    return failed;
  }

  // What was removed is not in the index; nobody knows whom it was about.
  bool may_follow_from_absent(std::string_view name) const {
    return std::any_of(absent_.ranges().begin(), absent_.ranges().end(), [&](const ArchivedRange& range) {
      if (range.is_removed()) return true;
      const Result<std::vector<Seq>> seqs = log_.find(Index::node, name, range.from, range.to, 1);
      return !seqs || !seqs->empty();
    });
  }

  Result<void> check_projection() {
    const auto differs = [&](std::string_view name, std::string_view why) {
      found(Damage::kProjectionDiffers, 0,
            "the stored state of node " + printable(name, 80) + " " + std::string(why));
    };
    std::size_t stored = 0;
    const Result<void> walked = log_.each_node([&](std::string_view name, const Result<NodeState>& state) {
      ++report_.nodes;
      const NodeState* fresh = fresh_.find(name);
      if (fresh != nullptr) ++stored;
      if (!state)
        differs(name, "cannot be read: " + state.error().message);
      else if (may_follow_from_absent(name))
        ++report_.unchecked_nodes;
      else if (fresh == nullptr)
        differs(name, "is there, but no record speaks of that node");
      else if (!(*fresh == *state))
        differs(name, "is not what its records make of it");
      return true;
    });
    if (!walked) return walked.error();
    if (stored == fresh_.size()) return {};
    std::vector<std::string_view> missing;
    for (const auto& [name, state] : fresh_) {
      const Result<std::optional<NodeState>> there = log_.node(name);
      if (there && !*there) missing.push_back(name);
    }
    std::sort(missing.begin(), missing.end());
    for (const std::string_view name : missing) differs(name, "is missing");
    return {};
  }

  const EventLog& log_;
  const Progress& progress_;
  const VerifyOptions& options_;
  const std::string key_;  // of SetSum, of this run
  VerifyReport report_;
  NodeTable fresh_;
  std::set<Seq> unreadable_;
  Absent absent_;
  SetSum expected_terms_;
  std::atomic<std::uint64_t> index_entries_{0};
  Seq next_ = 1;
  Time before_;
  std::vector<Changed> changed_;
  std::uint64_t beyond_ = 0;  // records that the tree does not reach
  std::uint64_t more_changed_ = 0;
  Seq more_changed_from_ = 0;
  bool removed_end_ = false;
  TreeEdge upper_;
  bool upper_whole_ = true;
  std::vector<std::pair<Seq, CheckpointSigned>> recorded_;
};

}  // namespace

Result<VerifyReport> verify(const EventLog& log, const Progress& progress, const VerifyOptions& options) {
  return Verifier(log, progress, options).run();
}

VerifyOptions checkpoints_of(const std::filesystem::path& data_dir) {
  VerifyOptions options;
  const auto bad = [&](std::string text) { options.found.push_back({Damage::kCheckpointBad, 0, std::move(text)}); };
  const Result<NoteVerifier> key = read_checkpoint_key(checkpoint_public_file(data_dir));
  if (!key) {
    std::error_code ignored;
    if (key.error().code != Errc::not_found || std::filesystem::exists(latest_checkpoint_file(data_dir), ignored))
      bad(key.error().message);
    return options;
  }
  for (const auto& file : {all_checkpoints_file(data_dir), latest_checkpoint_file(data_dir)}) {
    Result<std::vector<Checkpoint>> checkpoints = read_checkpoints(file, *key);
    if (!checkpoints) {
      bad(checkpoints.error().message);
      continue;
    }
    for (Checkpoint& checkpoint : *checkpoints)
      options.checkpoints.push_back({file.string(), std::move(checkpoint)});
  }
  if (const auto lost = read_checkpoints(lost_checkpoints_file(data_dir), *key)) options.lost = lost->size();
  return options;
}

Result<void> add_checkpoints(VerifyOptions& options, const std::filesystem::path& data_dir,
                             const std::filesystem::path& file, const std::optional<NoteVerifier>& key) {
  const Result<std::string> text = read_file(file, 16 << 20);
  if (!text) return text.error();
  const Result<NoteVerifier> used =
      key ? Result<NoteVerifier>(*key) : read_checkpoint_key(checkpoint_public_file(data_dir));
  if (!used) return used.error();
  if (const Result<Checkpoint> first = parse_checkpoint(*text); first && first->origin != used->name()) {
    options.found.push_back({Damage::kOtherLog, 0,
                             "the checkpoint in " + file.string() + " is of " + printable(first->origin, 100) +
                                 ", and the key is that of " + used->name() +
                                 ": the log was replaced, or one of the two is of another log"});
    return {};
  }
  Result<std::vector<Checkpoint>> checkpoints = open_checkpoints(*text, *used);
  if (!checkpoints) return Error{Errc::invalid, file.string() + ": " + checkpoints.error().message};
  if (checkpoints->empty()) return Error{Errc::invalid, file.string() + " holds no checkpoint"};
  for (Checkpoint& checkpoint : *checkpoints) options.checkpoints.push_back({file.string(), std::move(checkpoint)});
  return {};
}

}  // namespace ledger::replay
