// Seeded tampering: random logs, one change to each, by two attackers. The first reaches the records and leaves the
// tree alone, or spoils one of the other families; the second rewrites everything that is not signed. Every change
// must be found and located; a log that nobody changed must be called sound.
//
//   LEDGER_TAMPERINGS=1000 replay_tests --gtest_filter='Tampering.*'     the size of a nightly run (default 54)
//   LEDGER_TAMPERING_SEED=7 ...                                          that one again
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <set>

#include "ledger/credentials.h"
#include "ledger/event_codec.h"
#include "replay/verify.h"
#include "tests/replay/replay_support.h"

namespace ledger::replay {
namespace {

using test::StoredFamily;
using test::stored_key;

enum class Way {
  // The tree knows better.
  flipped_bit,
  rewritten,
  removed,
  removed_and_renumbered,
  inserted_and_renumbered,
  swapped,
  swapped_bytes,
  tail_cut,
  // The records know better.
  index_entry_removed,
  index_entry_added,
  state_changed,
  tree_changed,
  // The checkpoints know better.
  all_rewritten,
  all_removed,
  all_inserted,
  all_swapped,
  all_rolled_back,
  all_replaced,
};
constexpr unsigned kWays = 18;
constexpr const char* kNames[kWays] = {"flipped bit", "rewritten", "removed", "removed, renumbered", "inserted, renumbered", "swapped", "swapped bytes", "tail cut", "index entry removed", "index entry added", "state changed", "tree changed", "all: rewritten", "all: removed", "all: inserted", "all: swapped", "all: rolled back", "all: replaced"};

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

class TamperedLog {
 public:
  explicit TamperedLog(std::uint64_t seed) : random_(seed) {
    // Mostly short; sometimes of several of the runs that are checked in parallel.
    const Seq count = below(10) == 0 ? 1100 + below(1500) : 12 + below(300);
    for (Seq seq = 1; seq <= count; ++seq) records_.push_back(record(seq));
    log_.append(records_);
    NoteSigner signer = std::move(*NoteSigner::make(origin_of(log_.log().id())));
    std::set<std::uint64_t> sizes = {count};
    for (std::uint64_t i = 0, more = below(6); i < more; ++i) sizes.insert(1 + below(count));
    for (const std::uint64_t size : sizes) {
      Checkpoint made{signer.verifier().name(), {size, *root_at(size, log_.log().tree_nodes())}, {}};
      made.note.text = checkpoint_text(made.origin, made.head);
      made.note.signatures.push_back(signer.sign(made.note.text));
      options_.checkpoints.push_back({"checkpoint-" + std::to_string(size), made});
    }
    options_.threads = static_cast<unsigned>(1 + below(3));
  }

  // Changes it in one place and returns that place: a seq.
  Seq tamper(Way way);
  VerifyReport report() {
    test::MemoryLog& log = rewritten_ ? other_ : log_;
    const auto follower = EventLog::follow({.dir = "/ledger", .env = log.env()});
    if (!follower) fatal(follower.error().message);
    Result<VerifyReport> made = verify(**follower, {}, options_);
    if (!made) fatal(made.error().message);
    return std::move(*made);
  }
  Seq size() const { return records_.size(); }
  // The records that the checkpoints leave open when `seq` is the first that differs.
  std::pair<Seq, Seq> between_checkpoints(Seq seq) const {
    Seq before = 0, after = size();
    for (const KnownCheckpoint& known : options_.checkpoints) {
      const Seq at = known.checkpoint.head.size;
      if (at < seq) before = std::max(before, at);
      else after = std::min(after, at);
    }
    return {before + 1, after};
  }

 private:
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  Seq any() { return 1 + below(size()); }

  Record record(Seq seq) {
    Record made;
    made.seq = seq;
    made.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(seq) * 7);
    made.node = "n" + std::to_string(below(9));
    made.source = "10.0.0." + std::to_string(below(250)) + ":4000";
    made.request_id = std::to_string(random_());
    const Fingerprint one{std::to_string(below(4))}, two{std::to_string(4 + below(4))};
    switch (below(5)) {
      case 0: made.event = PasswordStored{one}; break;
      case 1: made.event = PasswordVerified{one}; break;
      case 2: made.event = PasswordRejected{.fingerprint = two, .bound = one, .status = 403}; break;
      case 3: made.event = RequestRejected{.status = 400, .reason = "node_name_invalid"}; break;
      default: made.event = TunnelOpened{std::to_string(random_())}; break;
    }
    return made;
  }
  static Record as(Record record, Seq seq) {
    record.seq = seq;
    return record;
  }

  using Change = std::function<void(rocksdb::DB&, const std::vector<rocksdb::ColumnFamilyHandle*>&)>;
  void below_the_log(const Change& how) { log_.spoil(how, false); }
  void put(StoredFamily family, const std::string& key, const std::string& value) {
    below_the_log([&](rocksdb::DB& db, const auto& handles) {
      if (!db.Put({}, handles[family], key, value).ok()) fatal("cannot tamper");
    });
  }
  void remove(StoredFamily family, const std::string& key) {
    below_the_log([&](rocksdb::DB& db, const auto& handles) {
      if (!db.Delete({}, handles[family], key).ok()) fatal("cannot tamper");
    });
  }
  // The records from `at` on as `records` has them, the rest of the store as it was.
  void put_records(const std::vector<Record>& records, Seq at) {
    below_the_log([&](rocksdb::DB& db, const auto& handles) {
      rocksdb::WriteBatch batch;
      for (Seq seq = at; seq <= std::max<Seq>(records.size(), size()); ++seq)
        if (seq > records.size()) batch.Delete(handles[test::kEvents], stored_key(seq));
        else batch.Put(handles[test::kEvents], stored_key(seq), encode(as(records[seq - 1], seq)));
      if (!db.Write({}, &batch).ok()) fatal("cannot tamper");
    });
  }
  // A whole new store of these records; the log keeps its id.
  void rewrite(std::vector<Record> records, bool keep_id = true) {
    for (Seq seq = 1; seq <= records.size(); ++seq) {
      records[seq - 1].seq = seq;
      if (seq > 1) records[seq - 1].time = std::max(records[seq - 1].time, records[seq - 2].time);
    }
    const std::string id = log_.log().id();
    other_.append(records);
    if (keep_id)
      other_.spoil([&](rocksdb::DB& db, const auto& handles) {
        if (!db.Put({}, handles[test::kMeta], "id", id).ok()) fatal("cannot tamper");
      }, false);
    rewritten_ = true;
  }
  Seq tamper_records(Way way);
  Seq tamper_everything(Way way);

  std::mt19937_64 random_;
  std::vector<Record> records_;
  test::MemoryLog log_, other_;
  bool rewritten_ = false;
  VerifyOptions options_;
};

Seq TamperedLog::tamper(Way way) {
  if (way >= Way::all_rewritten) return tamper_everything(way);
  if (way < Way::index_entry_removed) return tamper_records(way);
  const Seq at = any();
  const auto [index, value] = index_terms(records_[at - 1]).front();
  const auto index_key = [&](const std::string& term) {
    return std::string(1, static_cast<char>(index)) + term + std::string(1, '\0') + stored_key(at);
  };
  if (way == Way::index_entry_removed) {
    remove(test::kIndex, index_key(value));
  } else if (way == Way::index_entry_added) {
    put(test::kIndex, index_key(value + "-too"), "");
  } else if (way == Way::state_changed) {
    NodeState held;
    held.held = true;
    put(test::kNodes, records_[at - 1].node, encode(held));
  } else {
    std::string hashes;
    below_the_log([&](rocksdb::DB& db, const auto& handles) {
      if (!db.Get({}, handles[test::kTree], stored_key(at), &hashes).ok()) fatal("no tree");
      hashes[below(hashes.size())] ^= static_cast<char>(1 << below(8));
      if (!db.Put({}, handles[test::kTree], stored_key(at), hashes).ok()) fatal("cannot tamper");
    });
  }
  return at;
}

Seq TamperedLog::tamper_records(Way way) {
  const Seq at = way == Way::tail_cut ? 2 + below(size() - 1) : 1 + below(size() - 1);
  std::vector<Record> changed = records_;
  const auto here = changed.begin() + static_cast<std::ptrdiff_t>(at - 1);
  switch (way) {
    case Way::flipped_bit: {
      std::string bytes = encode(records_[at - 1]);
      bytes[below(bytes.size())] ^= static_cast<char>(1 << below(8));
      put(test::kEvents, stored_key(at), bytes);
      return at;
    }
    case Way::rewritten: here->source = "10.9.9.9:1"; break;
    case Way::removed: remove(test::kEvents, stored_key(at)); return at;
    case Way::removed_and_renumbered: changed.erase(here); break;
    case Way::inserted_and_renumbered: changed.insert(here, record(at)); break;
    case Way::swapped: std::swap(*here, changed[at + below(size() - at)]); break;
    case Way::swapped_bytes: {
      const Seq other = at + 1 + below(size() - at);
      const std::string one = encode(records_[at - 1]), two = encode(records_[other - 1]);
      put(test::kEvents, stored_key(at), two);
      put(test::kEvents, stored_key(other), one);
      return at;
    }
    default: changed.resize(at - 1); break;
  }
  put_records(changed, at);
  return at;
}

Seq TamperedLog::tamper_everything(Way way) {
  const Seq at = 1 + below(size() - 1);
  std::vector<Record> changed = records_;
  const auto here = changed.begin() + static_cast<std::ptrdiff_t>(at - 1);
  switch (way) {
    case Way::all_rewritten: here->source = "10.9.9.9:1"; break;
    case Way::all_removed: changed.erase(here); break;
    case Way::all_inserted: changed.insert(here, record(at)); break;
    case Way::all_swapped: std::swap(*here, changed[at]); break;
    case Way::all_rolled_back: changed.resize(at); break;
    default: break;
  }
  rewrite(std::move(changed), way != Way::all_replaced);
  return way == Way::all_rolled_back ? at + 1 : at;
}

// What verify must say of it: one of these sorts, at `from`..`to`.
struct Expected {
  std::set<Damage> sorts;
  Seq from, to;
};

Expected expected(Way way, Seq at, const TamperedLog& log) {
  const auto [after, before] = log.between_checkpoints(at);
  switch (way) {
    case Way::flipped_bit: return {{Damage::kBitFlipped}, at, at};
    case Way::rewritten: return {{Damage::kRecordChanged}, at, at};
    case Way::removed: return {{Damage::kGap}, at, at};
    case Way::removed_and_renumbered: return {{Damage::kRecordRemoved}, at, at};
    case Way::inserted_and_renumbered: return {{Damage::kRecordInserted}, at, at};
    case Way::swapped:
    case Way::swapped_bytes: return {{Damage::kRecordMoved}, at, at};
    case Way::tail_cut: return {{Damage::kTailCut}, at, at};
    case Way::index_entry_removed: return {{Damage::kIndexMissing}, at, at};
    case Way::index_entry_added: return {{Damage::kIndexSurplus}, at, at};
    case Way::state_changed: return {{Damage::kProjectionDiffers}, 0, 0};
    // Its leaf: then the record differs; or a node above: then the tree contradicts itself.
    case Way::tree_changed: return {{Damage::kTreeDiffers, Damage::kRecordChanged, Damage::kBitFlipped}, at, at};
    case Way::all_rewritten:
    case Way::all_inserted:
    case Way::all_swapped: return {{Damage::kCheckpointDiffers}, after, before};
    // One less than the newest checkpoint saw, whichever it was.
    case Way::all_removed:
      if (before < log.size()) return {{Damage::kCheckpointDiffers}, after, before};
      return {{Damage::kRolledBack}, log.size(), log.size()};
    case Way::all_rolled_back: return {{Damage::kRolledBack}, at, at};
    case Way::all_replaced: return {{Damage::kOtherLog}, 0, 0};
  }
  fatal("a way without an expectation");
}

TEST(Tampering, IsFoundAndLocated) {
  const std::uint64_t runs = from_environment("LEDGER_TAMPERINGS", 3 * kWays);
  const std::uint64_t only = from_environment("LEDGER_TAMPERING_SEED", 0);
  std::map<Way, std::pair<unsigned, unsigned>> tried;  // and found where it was
  for (std::uint64_t seed = only != 0 ? only : 1; seed <= (only != 0 ? only : runs); ++seed) {
    SCOPED_TRACE("LEDGER_TAMPERING_SEED=" + std::to_string(seed));
    const Way way = static_cast<Way>(seed % kWays);
    TamperedLog log(seed);
    const Seq at = log.tamper(way);
    const Expected want = expected(way, at, log);
    const VerifyReport report = log.report();
    EXPECT_FALSE(report.sound());
    const bool located = std::any_of(report.damage.begin(), report.damage.end(), [&](const DamageFound& found) {
      return want.sorts.count(found.damage) > 0 && found.seq >= want.from && found.seq <= want.to;
    });
    EXPECT_TRUE(located) << kNames[static_cast<int>(way)] << " at " << at << " of " << log.size() << ": "
                         << (report.damage.empty() ? "nothing found" : report.damage[0].text);
    ++tried[way].first;
    tried[way].second += located;
  }
  if (runs <= 3 * kWays) return;
  for (const auto& [way, counts] : tried)
    std::printf("%-24s %4u tried, %4u found where it was\n", kNames[static_cast<int>(way)], counts.first, counts.second);
}

TEST(Tampering, IsNotSeenWhereThereIsNone) {
  const std::uint64_t runs = from_environment("LEDGER_TAMPERINGS", 20);
  for (std::uint64_t seed = 1; seed <= runs; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TamperedLog log(1'000'000 + seed);
    const VerifyReport report = log.report();
    EXPECT_TRUE(report.sound()) << report.damage[0].text;
    EXPECT_EQ(report.records, log.size());
    EXPECT_EQ(report.covered, log.size());
  }
}

}  // namespace
}  // namespace ledger::replay
