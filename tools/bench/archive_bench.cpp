// archive_bench: what archiving costs and saves, beside the same log unarchived on the same machine.
//
//   archive_bench [RECORDS]     a log of RECORDS (300,000) registrations and refusals of 5,000 machines: sealed, then read
//                               as a whole and node by node, each from the store and from archives
//
// Exit status: 0, 1 when reading from archives is slower than the limit, 2 wrong usage.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "ledger/archivist.h"
#include "ledger/checkpoint_keeper.h"
#include "ledger/credentials.h"
#include "replay/history.h"

namespace ledger {
namespace {

constexpr double kLimit = 4;  // times as long to read the whole log
constexpr Seq kMachines = 5000;
constexpr int kAsked = 100;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// As a fleet makes them: random ids and addresses that do not pack, and all that repeats.
Record at(Seq seq) {
  const Seq machine = seq * 2'654'435'761 % kMachines;
  Record record;
  record.seq = seq;
  record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(seq));
  record.node = fmt::format("edge-{:05}", machine);
  record.source = fmt::format("10.{}.{}.{}:{}", 1 + machine / 65'536, machine / 256 % 256, machine % 256, 32'768 + seq * 7919 % 28'000);
  record.endpoint = seq % 2 == 0 ? "/v1-k3s/serving-kubelet.crt" : "/v1-k3s/client-kubelet.crt";
  record.request_id = to_hex(view_of(sha256_of(std::to_string(seq)))).substr(0, 16);
  record.server = "srv-1-0123";
  record.epoch = 1;
  record.auth = {.method = "basic", .principal = "node", .token = "0a1b2c3d4e5f", .serial = {}};
  record.generation = "G6";
  const Fingerprint password{to_hex(view_of(sha256_of(record.node))).substr(0, 32)};
  if (seq % 50 == 0)
    record.event = PasswordRejected{{to_hex(view_of(sha256_of(record.request_id))).substr(0, 32)}, password, 403};
  else
    record.event = PasswordVerified{password};
  return record;
}

void must(const Result<void>& done) {
  if (!done) fatal(done.error().message);
}
template <class T>
T must(Result<T> done) {
  if (!done) fatal(done.error().message);
  return std::move(*done);
}

void make_log(const std::filesystem::path& dir, Seq total) {
  const auto log = must(EventLog::open({.dir = dir / "events"}));
  NodeTable table;
  std::vector<Record> batch;
  std::vector<EventLog::NodeEntry> nodes;
  for (Seq seq = 1; seq <= total; ++seq) {
    batch.push_back(at(seq));
    if (const NodeState* state = table.apply(batch.back())) nodes.emplace_back(batch.back().node, *state);
    if (batch.size() < 2000 && seq != total) continue;
    must(log->append(batch, nodes));
    batch.clear(), nodes.clear();
  }
  must(log->reclaim(1, total));
}

std::uint64_t bytes_below(const std::filesystem::path& dir) {
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(dir))
    if (entry.is_regular_file()) bytes += entry.file_size();
  return bytes;
}

struct Reading {
  double whole = 0, one_node = 0;  // seconds
};

Reading read_all(const std::filesystem::path& dir, Seq total) {
  const auto log = must(EventLog::follow({.dir = dir / "events"}));
  Reading reading;
  auto start = std::chrono::steady_clock::now();
  Seq seen = 0;
  must(log->scan(1, total, [&](Seq, const Result<Record>& record) {
    seen += record ? 1 : 0;
    return true;
  }));
  if (seen != total) fatal("records are missing");
  reading.whole = seconds_since(start);
  start = std::chrono::steady_clock::now();
  for (int i = 0; i < kAsked; ++i)
    if (must(replay::history_from_log(*log, fmt::format("edge-{:05}", i * 37))).records.empty()) fatal("a node is missing");
  reading.one_node = seconds_since(start) / kAsked;
  return reading;
}

int run(Seq total) {
  const auto dir = std::filesystem::temp_directory_path() / fmt::format("archive-bench-{}", getpid());
  std::filesystem::remove_all(dir);
  make_log(dir, total);
  const auto each = [total](std::uint64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(total); };
  const Reading store = read_all(dir, total);
  double sealing = 0;
  std::uint64_t raw = 0, before = 0, after = 0;
  {
    Ledger::Options options;
    options.log.dir = dir / "events";
    options.server_name = "bench";
    const auto ledger = must(Ledger::open(std::move(options)));
    const auto keeper = must(CheckpointKeeper::open({.data_dir = dir}, *ledger));
    must(keeper->sign(false));
    before = bytes_below(dir / "events");
    Archivist archivist({.data_dir = dir}, *ledger);
    const auto start = std::chrono::steady_clock::now();
    while (const auto sealed = must(archivist.seal_next({}))) raw += sealed->raw_bytes;
    sealing = seconds_since(start);
    must(ledger->close());
  }
  { const auto reopened = must(EventLog::open({.dir = dir / "events"})); }  // what is in memory goes to tables
  after = bytes_below(dir / "events");
  const std::uint64_t archived = bytes_below(dir / "archives");
  const Reading archives = read_all(dir, total);
  fmt::print("{} records of {:.0f} bytes\n", total, each(raw));
  fmt::print("store before: {:.0f} bytes a record; after: {:.0f} (index, tree); archive: {:.0f}\n", each(before), each(after), each(archived));
  fmt::print("sealed, read back, dropped and reclaimed: {:.0f} records/s\n", static_cast<double>(total) / sealing);
  fmt::print("the whole log read: store {:.2f} s, archives {:.2f} s: {:.1f} times as long (limit {:.0f})\n", store.whole,
             archives.whole, archives.whole / store.whole, kLimit);
  fmt::print("history of one node ({} records): store {:.1f} ms, archives {:.1f} ms: {:.1f} times as long\n", total / kMachines,
             store.one_node * 1e3, archives.one_node * 1e3, archives.one_node / store.one_node);
  std::filesystem::remove_all(dir);
  return archives.whole / store.whole <= kLimit ? 0 : 1;
}

}  // namespace
}  // namespace ledger

int main(int argc, char** argv) {
  const unsigned long long total = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 300'000;
  if (argc <= 2 && total > 0) return ledger::run(total);
  fmt::print(stderr, "usage: archive_bench [RECORDS]\n");
  return 2;
}
