// backup_bench: what a backup costs, beside what recording the same records cost on the same machine.
//
//   backup_bench [RECORDS]     a log of RECORDS (100,000) registrations and refusals: the first backup, the same again
//                              with nothing new, with 1,000 new records, and a restore; then the log is made ten times
//                              as long, and nothing new must still cost the same
//
// Limits: a backup takes at most 4 times as long as recording took (it reads, checks, decodes, writes and reads back),
// and nothing new to a log ten times as long at most 3 times as long. Exit status: 0, 1 past a limit, 2 wrong usage.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "ledger/backup.h"
#include "ledger/event_codec.h"

namespace ledger {
namespace {

constexpr double kBackupLimit = 4, kNothingNewLimit = 3;
constexpr Time kStart{1'700'000'000'000'000};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Record at(Seq seq) {
  const Seq machine = seq / 7 % 20'000;
  Record record;
  record.seq = seq;
  record.time = kStart.plus_seconds(static_cast<std::int64_t>(seq));
  record.node = fmt::format("edge-{:05}", machine);
  record.source = fmt::format("10.{}.{}.{}:4242", 1 + machine / 65'536, machine / 256 % 256, machine % 256);
  record.endpoint = "/v1-k3s/serving-kubelet.crt";
  record.request_id = fmt::format("{:016x}", seq / 3);
  record.server = "srv-1";
  record.epoch = 1;
  const Fingerprint password{fmt::format("{:032x}", machine)};
  if (seq % 7 == 0)
    record.event = PasswordRejected{{fmt::format("{:032x}", seq)}, password, 403};
  else if (seq / 7 < 20'000 && seq % 7 == 1)
    record.event = PasswordStored{password};
  else
    record.event = PasswordVerified{password};
  return record;
}

class Bench {
 public:
  explicit Bench(std::filesystem::path dir) : dir_(std::move(dir)) {}

  // Records up to `total`; seconds it took, without making the records up.
  double record(Seq total) {
    auto log = EventLog::open({.dir = dir_ / "data" / "events"});
    if (!log) fatal(log.error().message);
    std::vector<Record> batch;
    std::vector<EventLog::NodeEntry> nodes;
    double seconds = 0;
    for (Seq seq = (*log)->head() + 1; seq <= total; ++seq) {
      batch.push_back(at(seq));
      bytes_ += encode(batch.back()).size();
      if (const NodeState* state = table_.apply(batch.back())) nodes.emplace_back(batch.back().node, *state);
      if (batch.size() < 4096 && seq != total) continue;
      const auto start = std::chrono::steady_clock::now();
      if (const Result<void> appended = (*log)->append(batch, nodes); !appended) fatal(appended.error().message);
      seconds += seconds_since(start);
      batch.clear(), nodes.clear();
    }
    return seconds;
  }

  double back_up(Seq expected) {
    const auto start = std::chrono::steady_clock::now();
    const auto report = backup({.data_dir = dir_ / "data", .to = dir_ / "backup", .now = Time::now()});
    const double seconds = seconds_since(start);
    if (!report) fatal(report.error().message);
    if (report->copied.records != expected) fatal("the backup copied another number of records");
    return seconds;
  }

  double restore_it() {
    RestoreOptions options;
    options.backup.from = dir_ / "backup";
    options.data_dir = dir_ / "fresh";
    options.now = Time::now();
    const auto start = std::chrono::steady_clock::now();
    if (const auto report = restore(options); !report) fatal(report.error().message);
    return seconds_since(start);
  }

  int run(Seq total) {
    std::filesystem::create_directories(dir_ / "data");
    const double recorded = record(total);
    const double mb = static_cast<double>(bytes_) / 1e6;
    fmt::print("{} records, {:.0f} MB, recorded in {:.2f} s\n", total, mb, recorded);
    const double first = back_up(total);
    fmt::print("first backup: {:.2f} s, {:.0f} records/s, {:.1f} MB/s: {:.1f} times as long as recording (limit {:.0f})\n",
               first, static_cast<double>(total) / first, mb / first, first / recorded, kBackupLimit);
    const double nothing = std::min(back_up(0), back_up(0));
    record(total + 1000);
    const double some = back_up(1000);
    fmt::print("nothing new: {:.3f} s; 1,000 new records: {:.3f} s\n", nothing, some);
    const double restored = restore_it();
    fmt::print("restore: {:.2f} s, {:.0f} records/s: {:.1f} times as long as the backup\n", restored,
               static_cast<double>(total) / restored, restored / first);
    record(10 * total);
    back_up(9 * total - 1000);
    const double later = std::min(back_up(0), back_up(0));
    fmt::print("nothing new to {} records: {:.3f} s, {:.1f} times as long as to a tenth of them (limit {:.0f})\n",
               10 * total, later, later / nothing, kNothingNewLimit);
    return first <= kBackupLimit * recorded && later <= kNothingNewLimit * nothing ? 0 : 1;
  }

 private:
  std::filesystem::path dir_;
  NodeTable table_;
  std::uint64_t bytes_ = 0;
};

}  // namespace
}  // namespace ledger

int main(int argc, char** argv) {
  const unsigned long long total = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100'000;
  if (argc > 2 || total < 2000) {
    fmt::print(stderr, "usage: backup_bench [RECORDS]\n");
    return 2;
  }
  const auto dir = std::filesystem::temp_directory_path() / fmt::format("backup-bench-{}", getpid());
  const int status = ledger::Bench(dir).run(total);
  std::filesystem::remove_all(dir);
  return status;
}
