// Faults on purpose, chosen by a seed: a real ledger on a file system that fails, tears, flips bits and forgets,
// with clients that remember what they were told. After each run the log is opened again, verified and compared
// with that.
//
//   LEDGER_FAULT_RUNS=1000 build-dev/tests/crash_tests --gtest_filter='*FaultRuns.*'    (tools/nightly)
//   LEDGER_FAULT_SEED=4711 ...                                                          one run again
//
// What a run does is a function of its seed, but for the order in which its threads come to the writer.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "ledger/checkpoint_keeper.h"
#include "ledger/decision.h"
#include "ledger/event_codec.h"
#include "ledger/ledger.h"
#include "replay/verify.h"
#include "tests/support/fault_fs.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"
#include "tests/support/verify_log.h"

namespace ledger {
namespace {

namespace fs = std::filesystem;
using test::Face;
using test::WritePoint;

constexpr std::array kPoints = {WritePoint::wal_append,    WritePoint::wal_sync,        WritePoint::table_append,
                                WritePoint::table_sync,    WritePoint::manifest_append, WritePoint::manifest_sync,
                                WritePoint::other_append,  WritePoint::other_sync,      WritePoint::rename,
                                WritePoint::directory_sync};
constexpr std::array kPointNames = {"wal append",      "wal sync",      "table append", "table sync",
                                    "manifest append", "manifest sync", "other append", "other sync",
                                    "rename",          "directory sync"};
constexpr std::array kFaceNames = {"absent", "torn", "present", "flipped"};
constexpr std::size_t kMemtableBytes = 64 << 10;  // RocksDB's smallest: tables are written in the middle of a run
constexpr int kClients = 4;
constexpr std::size_t kBlock = 32 << 10, kFrameHeader = 7, kFrameLengthAt = 4;
constexpr unsigned kFrameLengthAndTypeBits = 24;

unsigned number_from(const char* variable, unsigned otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

// How a life of the server ends.
enum class End { orderly, killed, power_cut };

// What became of a flipped bit. `silent` is the one that must not be.
enum class Flip { harmless, refused, found, silent };
constexpr std::array kFlipNames = {"harmless", "refused at open", "found by verify", "SILENT"};

// A reply that a client remembers: the record it stands for, as far as the client knows it.
struct Told {
  Seq seq = 0;
  Record asked;
  bool counted = false;  // the record stands for several outcomes
};

struct Tally {
  int runs = 0;
  std::map<std::string, int> faults;  // by point and face
  std::map<std::string, int> flips;   // by file and what became of it
  std::size_t acknowledged = 0, refused_503 = 0, opens_failed = 0, lost = 0;
};

class FaultRun {
 public:
  FaultRun(unsigned seed, Tally& tally) : seed_(seed), random_(seed), tally_(tally) {
    options_.log.dir = dir_ / "events";
    options_.log.env = disk_.env.get();
    options_.log.memtable_bytes = kMemtableBytes;
    options_.server_name = "srv";
    options_.min_free_bytes = 0;
  }

  // What was wrong; empty: nothing.
  std::vector<std::string> run() {
    fs::create_directories(dir_ / "cred");
    const int lives = 1 + static_cast<int>(below(3));
    const int faulty = static_cast<int>(below(static_cast<unsigned>(lives)));
    for (int life = 0; life < lives && problems_.empty() && !given_up_; ++life) live(life, life == faulty);
    if (problems_.empty() && !given_up_) check();
    if (problems_.empty() && !given_up_ && below(2) == 0) rot();
    ++tally_.runs;
    tally_.acknowledged += told_.size();
    return problems_;
  }

 private:
  unsigned below(unsigned n) { return std::uniform_int_distribution<unsigned>(0, n - 1)(random_); }
  void problem(const std::string& text) {
    const std::lock_guard lock(mutex_);
    problems_.push_back(text);
  }

  // ---- a life ----

  void arm() {
    auto point = below(kPoints.size());
    const auto face = below(6) == 0 ? Face::flipped : static_cast<Face>(below(3));
    if (face == Face::flipped)
      point = point % 4 * 2;  // one of the appends, which are every other point up to there
    constexpr std::array kSkips = {0, 0, 1, 2, 3, 5, 8, 13, 21, 34, 60, 100, 180};
    // The writes of tables and manifests are few, those of the write-ahead log many.
    const int skip = kSkips[below(point <= 1 ? static_cast<unsigned>(kSkips.size()) : 8)];
    armed_ = std::string(kPointNames[point]) + ", " + kFaceNames[static_cast<std::size_t>(face)];
    flipped_ = face == Face::flipped;
    const auto error = below(3) == 0 ? rocksdb::IOStatus::NoSpace("no space left because the test said so")
                                     : rocksdb::IOStatus::IOError("failed because the test said so");
    disk_.fs->fail(kPoints[point], face, skip, error, random_());
  }

  void live(int life, bool with_fault) {
    const auto end = static_cast<End>(below(3));
    if (with_fault) arm();
    const Result<void> opened = open();
    if (opened) {
      work(life, end == End::orderly ? SIZE_MAX : 1 + below(150));
      remember_view();
    } else {
      ++tally_.opens_failed;
      if (armed_.empty() || !disk_.fs->failed())
        problem("opening failed without a cause: " + opened.error().message);
    }
    close(opened ? end : End::killed);
    if (with_fault) {
      const bool met = disk_.fs->failed();
      if (met) ++tally_.faults[armed_];
      disk_.fs->disarm();
      if (met && flipped_) judge_flip("while writing: " + armed_.substr(0, armed_.find(',')));
      flipped_ = false;
      armed_.clear();
    }
  }

  Result<void> open() {
    Result<std::unique_ptr<Ledger>> opened = Ledger::open(options_);
    if (!opened) return opened.error();
    ledger_ = std::move(*opened);
    CheckpointKeeper::Options keeping;
    keeping.data_dir = dir_.path();
    keeping.log = [this](bool is_problem, const std::string&) { keeper_worried_ = keeper_worried_ || is_problem; };
    keeper_worried_ = false;
    auto keeper = CheckpointKeeper::open(std::move(keeping), *ledger_);
    if (!keeper) return keeper.error();
    keeper_ = std::move(*keeper);
    const Result<bool> went_back = keeper_->notice_past();
    if (!went_back) return went_back.error();
    noticed_ = *went_back || keeper_worried_;
    if (noticed_ && !flipped_) problem("a checkpoint is said to have seen what this log has not");
    return {};
  }

  // Clients work until they are done, the ledger fails, or `acknowledged` more replies were given and the end
  // comes.
  void work(int life, std::size_t replies) {
    const std::size_t end = replies == SIZE_MAX ? SIZE_MAX : told_.size() + replies;
    const bool signs = below(2) == 0;  // or the next checkpoint is not due for long
    std::vector<std::thread> clients;
    for (int c = 0; c < kClients; ++c)
      clients.emplace_back(
          [=, this, seed = random_()] { client(life, c, static_cast<unsigned>(seed), end, signs); });
    for (std::thread& thread : clients) thread.join();
  }

  void client(int life, int number, unsigned seed, std::size_t end, bool signs) {
    std::mt19937 random(seed);
    const auto pick = [&](unsigned n) { return std::uniform_int_distribution<unsigned>(0, n - 1)(random); };
    const int operations = 40 + static_cast<int>(pick(60));
    for (int i = 0; i < operations; ++i) {
      const std::string node = pick(3) == 0 ? "shared-" + std::to_string(pick(8))
                                            : "n-" + std::to_string(life) + "-" + std::to_string(number) + "-" +
                                                  std::to_string(pick(20));
      const std::string password(1, static_cast<char>('a' + (pick(4) == 0 ? pick(3) : 0)));
      const std::string id = std::to_string(life) + "." + std::to_string(number) + "." + std::to_string(i);
      bool alive = true;
      switch (pick(24)) {
        case 0:
          alive = tell(
              {operator_record(BindingReleased{.actor = "ops", .by = "operator", .fingerprint = {}}, node, id)});
          break;
        case 1:
          alive = tell({operator_record(
              BindingChanged{.actor = "ops", .by = "operator_accept", .from = {}, .to = {"f" + password}}, node,
              id)});
          break;
        case 2:
          if (signs) sign();
          break;
        default: alive = registers(node, password, id);
      }
      if (!alive) return;
      const std::lock_guard lock(mutex_);
      if (told_.size() < end) continue;
      disk_.fs->cut_power();  // the moment is here, whoever is in the middle of what
      return;
    }
  }

  static Record operator_record(Event event, const std::string& node, const std::string& id) {
    Record record;
    record.event = std::move(event);
    record.node = node;
    record.request_id = id;
    return record;
  }

  // As the server serves it: look, decide, append; look again when somebody else was first. False: 503.
  bool registers(const std::string& node, const std::string& password, const std::string& id) {
    for (;;) {
      const NodeState state = ledger_->find(node);
      const Evidence evidence{TokenResult::accepted, HeaderResult::complete, state, Fingerprint{"f" + password}};
      const Ruling ruling = decide(evidence);
      Record record;
      record.node = node;
      record.request_id = id;
      record.source = "10.0.0." + std::to_string(node.size() % 200) + ":41000";
      if (ruling == Ruling::admit_first) record.event = PasswordStored{evidence.presented};
      if (ruling == Ruling::admit_known) record.event = PasswordVerified{evidence.presented};
      if (!admitted(ruling))
        record.event = PasswordRejected{.fingerprint = evidence.presented, .bound = state.bound, .status = 403};
      std::vector<Record> records = {record};
      if (admitted(ruling)) {
        CertificateIssued issued;
        issued.purpose = "client-kubelet";
        issued.subject = "CN=system:node:" + node;
        issued.serial = id;
        record.event = std::move(issued);
        records.push_back(record);
      }
      const std::optional<bool> told = told_of(std::move(records), Proposal::Expect{node, state.version});
      if (told) return *told;
    }
  }

  bool tell(std::vector<Record> records) { return *told_of(std::move(records), std::nullopt); }

  // Appends, and keeps what the reply says. nullopt: decide again; false: 503, and then nothing is answered
  // otherwise.
  std::optional<bool> told_of(std::vector<Record> records, std::optional<Proposal::Expect> expect) {
    Proposal proposal;
    proposal.records = records;
    proposal.expect = std::move(expect);
    const Result<Committed> outcome = ledger_->append_and_wait(std::move(proposal));
    const std::lock_guard lock(mutex_);
    if (!outcome && outcome.error().code == Errc::conflict) return std::nullopt;
    if (!outcome) {
      ++tally_.refused_503;
      if (outcome.error().code != Errc::unavailable)
        problems_.push_back("refused otherwise than with 503: " + outcome.error().message);
      return false;
    }
    for (std::size_t i = 0; i < records.size(); ++i)
      told_.push_back({outcome->seqs[i], records[i], is_counted(records[i])});
    return true;
  }
  static bool is_counted(const Record& record) { return record.kind() == Kind::password_rejected; }

  void sign() {
    const std::lock_guard lock(sign_mutex_);
    if (keeper_->sign(true)) notes_.push_back(keeper_->latest());
  }

  // What is seen before the end must be what is found after it: nothing that is not durable was ever shown.
  void remember_view() {
    seen_.clear();
    seen_head_ = ledger_->log().head();
    for (const Told& told : told_) seen_.emplace(told.asked.node, ledger_->find(told.asked.node));
  }

  void close(End end) {
    if (end == End::orderly && ledger_ != nullptr) {
      if (keeper_->finish()) notes_.push_back(keeper_->latest());
      (void)ledger_->close();  // may fail: then this was no orderly end
    } else {
      disk_.fs->cut_power();
    }
    keeper_.reset();
    ledger_.reset();
    disk_.fs->restore_power(end != End::power_cut);
  }

  // ---- afterwards ----

  // What a client was told and the log does not say; empty: nothing.
  std::string missing(const EventLog& log) const {
    for (const Told& told : told_) {
      const Result<Record> stored = log.read(told.seq);
      const std::string what = "seq " + std::to_string(told.seq) + " (" + std::string(name_of(told.asked.kind())) +
                               " of " + told.asked.node + ")";
      if (!stored) return what + " was acknowledged and is lost: " + stored.error().message;
      Record expected = told.asked;
      expected.seq = stored->seq, expected.time = stored->time;  // the writer's own
      expected.server = stored->server, expected.epoch = stored->epoch;
      if (told.counted) {
        expected.request_id = stored->request_id;
        expected.count = stored->count, expected.first_time = stored->first_time;
      }
      if (encode(expected) != encode(*stored)) return what + " was acknowledged as something else";
    }
    return "";
  }

  // The records are a history that the rules allow: a name has one first binding, and nobody is told of another.
  void check_history(const EventLog& log) {
    NodeTable table;
    bool compared = seen_.empty();
    const auto compare_view = [&](Seq next) {
      if (compared || next <= seen_head_) return;
      compared = true;
      for (const auto& [node, state] : seen_) {
        const NodeState* folded = table.find(node);
        if (!((folded == nullptr ? NodeState{} : *folded) == state))
          problem("what was shown of " + node + " was not durable");
      }
    };
    for (const Record& record : test::all_records(log)) {
      compare_view(record.seq);
      const NodeState* found = record.node.empty() ? nullptr : table.find(record.node);
      const NodeState before = found == nullptr ? NodeState{} : *found;
      const std::string at = " (seq " + std::to_string(record.seq) + ")";
      if (as<PasswordStored>(record) != nullptr && before.is_bound())
        problem(record.node + " has a second first binding" + at);
      if (const auto* verified = as<PasswordVerified>(record);
          verified != nullptr && before.bound != verified->fingerprint)
        problem(record.node + " was admitted with a password that it is not bound to" + at);
      if (const auto* rejected = as<PasswordRejected>(record);
          rejected != nullptr && before.bound == rejected->fingerprint && record.count == 1)
        problem(record.node + " was refused with the password that it is bound to" + at);
      table.apply(record);
    }
    compare_view(UINT64_MAX);
  }

  Result<replay::VerifyReport> verified(bool with_notes) {
    replay::VerifyOptions with = replay::checkpoints_of(dir_.path());
    for (const std::string& note : notes_)
      if (const auto checkpoint = parse_checkpoint(note); with_notes && checkpoint)
        with.checkpoints.push_back({"a note kept elsewhere", *checkpoint});
    with.threads = 1;
    return replay::verify(ledger_->log(), {}, with);
  }

  void check() {
    if (const Result<void> opened = open(); !opened)
      return problem("does not open again: " + opened.error().message);
    if (const std::string lost = missing(ledger_->log()); !lost.empty()) ++tally_.lost, problem(lost);
    for (const std::string& broken : test::broken_promises(ledger_->log())) problem(broken);
    const auto report = verified(true);
    if (!report) problem("cannot be verified: " + report.error().message);
    if (report && !report->sound()) problem("verify: " + report->damage.front().text);
    check_history(ledger_->log());
    if (!registers("afterwards", "a", "after")) problem("the log is not usable afterwards");
    seen_.clear();
    close(End::orderly);
  }

  // ---- flipped bits ----

  // Opens, verifies, compares: was the flipped bit harmless, refused or found, and never none of these?
  void judge_flip(const std::string& where) {
    Flip became = Flip::harmless;
    std::string lost;
    if (!open()) {
      became = Flip::refused;
    } else {
      const auto report = verified(false);
      lost = missing(ledger_->log());
      const bool found = !report || !report->sound() || noticed_;
      became = found ? Flip::found : lost.empty() ? Flip::harmless : Flip::silent;
      if (became == Flip::harmless && !test::broken_promises(ledger_->log()).empty()) became = Flip::silent;
    }
    ++tally_.flips[where + ": " + kFlipNames[static_cast<std::size_t>(became)]];
    if (became == Flip::silent) problem("a flipped bit (" + where + ") passed for the truth: " + lost);
    close(End::killed);
    // The disk has changed what was written; from here on there is nothing to promise.
    given_up_ = became != Flip::harmless;
    flipped_ = false;
  }

  // Where the frames of a file in RocksDB's log format begin: blocks of 32 KiB; checksum, length, type, payload.
  static std::vector<std::size_t> frames_of(const std::string& bytes) {
    std::vector<std::size_t> frames;
    for (std::size_t at = 0; at + kFrameHeader <= bytes.size();) {
      if (kBlock - at % kBlock < kFrameHeader) {
        at += kBlock - at % kBlock;
        continue;
      }
      frames.push_back(at);
      at += kFrameHeader + static_cast<unsigned char>(bytes[at + 4]) +
            (std::size_t{static_cast<unsigned char>(bytes[at + 5])} << 8);
    }
    return frames;
  }

  // A file of the data directory, and what sort it is. Each sort has its turn, the write-ahead log the most.
  std::pair<std::string, fs::path> some_file() {
    std::map<std::string, std::vector<fs::path>> sorts;
    for (const auto& entry : fs::recursive_directory_iterator(dir_.path())) {
      if (!entry.is_regular_file() || entry.file_size() == 0) continue;
      const fs::path file = entry.path();
      const std::string name = file.filename().string();
      std::string sort = file.parent_path().filename().string() + "/" + name;
      if (file.parent_path() == options_.log.dir) sort = name.substr(0, name.find('-'));
      if (name.ends_with(".log")) sort = "write-ahead log";
      if (name.ends_with(".sst")) sort = "table";
      sorts[sort].push_back(file);
    }
    auto chosen = sorts.begin();
    std::advance(chosen, below(static_cast<unsigned>(sorts.size())));
    if (below(2) == 0 && sorts.contains("write-ahead log")) chosen = sorts.find("write-ahead log");
    std::vector<fs::path>& files = chosen->second;
    std::sort(files.begin(), files.end());
    return {chosen->first, files[below(static_cast<unsigned>(files.size()))]};
  }

  // A frame's length and type are the bits that decide where RocksDB believes its file to end: half of the time.
  std::size_t some_bit(const std::string& sort, const std::string& bytes) {
    const bool has_frames = sort == "write-ahead log" || sort == "MANIFEST";
    const std::vector<std::size_t> frames = has_frames ? frames_of(bytes) : std::vector<std::size_t>();
    if (frames.empty() || below(2) == 0) return random_() % (bytes.size() * 8);
    const std::size_t frame = frames[below(static_cast<unsigned>(frames.size()))];
    return (frame + kFrameLengthAt) * 8 + below(kFrameLengthAndTypeBits);
  }

  // One bit of one file goes bad while nobody looks; then the file is put back, and all is well.
  void rot() {
    if (below(2) == 0) {  // not only after an orderly end
      if (!open()) return problem("does not open before a bit is flipped");
      work(9, SIZE_MAX);
      seen_.clear();
      close(End::killed);
    }
    const auto [sort, file] = some_file();
    const test::TempDir before(test::memory_directory());
    fs::copy(dir_.path(), before / "all", fs::copy_options::recursive);
    std::string bytes = test::file_bytes(file);
    const std::size_t bit = some_bit(sort, bytes);
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    test::put_file(file, bytes);
    flipped_ = true;
    judge_flip("at rest: " + sort);
    if (!problems_.empty()) return problem("it was bit " + std::to_string(bit) + " of " + file.filename().string());
    given_up_ = false;
    fs::remove_all(dir_.path());
    fs::copy(before / "all", dir_.path(), fs::copy_options::recursive);
    check();
  }

  const unsigned seed_;
  std::mt19937 random_;
  Tally& tally_;
  test::TempDir dir_{test::memory_directory()};
  test::FaultEnv disk_;
  Ledger::Options options_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<CheckpointKeeper> keeper_;
  std::mutex sign_mutex_;
  std::vector<std::string> notes_;  // every checkpoint that was signed

  std::string armed_;      // the fault of this life, for people
  bool flipped_ = false;   // a bit was flipped, or will be
  bool given_up_ = false;  // a flipped bit was noticed: nothing more to promise
  bool noticed_ = false;   // the start said that something is wrong with the past
  std::atomic<bool> keeper_worried_{false};

  std::mutex mutex_;  // guards:
  std::vector<Told> told_;
  std::vector<std::string> problems_;

  std::map<std::string, NodeState> seen_;
  Seq seen_head_ = 0;
};

// In shares, which ctest runs beside each other.
class FaultRuns : public ::testing::TestWithParam<unsigned> {};
constexpr unsigned kShares = 4;

TEST_P(FaultRuns, NothingAcknowledgedIsLostAndNothingIsMadeUp) {
  Tally tally;
  const char* alone = std::getenv("LEDGER_FAULT_SEED");
  if (alone != nullptr && GetParam() != 0) GTEST_SKIP() << "LEDGER_FAULT_SEED is one run";
  const unsigned first = alone == nullptr ? 1 + GetParam() : number_from("LEDGER_FAULT_SEED", 1);
  const unsigned runs = alone == nullptr ? number_from("LEDGER_FAULT_RUNS", 100) / kShares : 1;
  int failed = 0;
  for (unsigned i = 0; i < runs && failed < 5; ++i) {
    const unsigned seed = first + i * kShares;
    const std::vector<std::string> problems = FaultRun(seed, tally).run();
    if (problems.empty()) continue;
    ++failed;
    ADD_FAILURE() << "run " << seed << ": " << problems.front() << " (" << problems.size() << " problems)"
                  << (problems.size() > 1 ? "; " + problems[1] : "") << "\nagain: LEDGER_FAULT_SEED=" << seed
                  << " crash_tests --gtest_filter='*FaultRuns.*'";
  }
  std::printf("%d runs: %zu replies acknowledged, %zu lost; %zu refused with 503; %zu opens failed\n", tally.runs,
              tally.acknowledged, tally.lost, tally.refused_503, tally.opens_failed);
  for (const auto& [what, count] : tally.faults) std::printf("  fault %-28s %d\n", what.c_str(), count);
  for (const auto& [what, count] : tally.flips) std::printf("  flip  %-46s %d\n", what.c_str(), count);
  EXPECT_EQ(tally.lost, 0U);
  if (alone == nullptr) {
    EXPECT_GT(tally.faults.size(), std::min(runs / 5, 30U)) << "too few faults were met to mean something";
    EXPECT_GT(tally.acknowledged, runs * 50) << "too little was acknowledged to mean something";
  }
}

INSTANTIATE_TEST_SUITE_P(Shares, FaultRuns, ::testing::Range(0U, kShares));

}  // namespace
}  // namespace ledger
