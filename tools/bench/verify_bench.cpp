// verify_bench: how fast `ledger verify` proves a log, beside what hashing alone costs on the same machine.
//
//   verify_bench [RECORDS]     a log of RECORDS (500,000) registrations and refusals, verified with one thread and with
//                              one per core; `openssl speed sha256` at the size of its records in the same run
//
// Verifying reads every record from the store, decodes it, folds it, hashes it for the tree and once for each of its
// index entries, and walks indexes, tree and projection: about six hashes of records' size and some. Exit status: 0, 1
// when it is slower than the limit, 2 wrong usage.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "ledger/event_codec.h"
#include "ledger/event_log.h"
#include "ledger/node_table.h"
#include "replay/verify.h"

namespace ledger {
namespace {

constexpr double kLimit = 25;  // times as long as hashing every record once, on one thread, with SHA instructions

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Record at(Seq seq) {
  const Seq machine = seq / 7 % 20'000;
  Record record;
  record.seq = seq;
  record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(seq));
  record.node = fmt::format("edge-{:05}", machine);
  record.source = fmt::format("10.{}.{}.{}:4242", 1 + machine / 65'536, machine / 256 % 256, machine % 256);
  record.endpoint = "/v1-k3s/serving-kubelet.crt";
  record.request_id = fmt::format("{:016x}", seq / 3);
  record.server = "srv-1";
  record.epoch = 1;
  const Fingerprint password{fmt::format("{:032x}", machine)};
  if (seq % 7 == 0) record.event = PasswordRejected{{fmt::format("{:032x}", seq)}, password, 403};
  else if (seq / 7 < 20'000 && seq % 7 == 1) record.event = PasswordStored{password};
  else record.event = PasswordVerified{password};
  return record;
}

// Returns the size of the records' stored bytes together.
std::uint64_t make_log(const std::filesystem::path& dir, Seq total) {
  auto log = EventLog::open({.dir = dir.string()});
  if (!log) fatal(log.error().message);
  NodeTable table;
  std::vector<Record> batch;
  std::vector<EventLog::NodeEntry> nodes;
  std::uint64_t bytes = 0;
  for (Seq seq = 1; seq <= total; ++seq) {
    batch.push_back(at(seq));
    bytes += encode(batch.back()).size();
    if (const NodeState* state = table.apply(batch.back())) nodes.emplace_back(batch.back().node, *state);
    if (batch.size() < 2000 && seq != total) continue;
    if (const Result<void> appended = (*log)->append(batch, nodes); !appended) fatal(appended.error().message);
    batch.clear(), nodes.clear();
  }
  return bytes;
}

// Bytes per second, as `openssl speed` says on its last line in units of 1,000; 0: it cannot be run.
double openssl_speed(std::uint64_t size) {
  const std::string command = fmt::format("openssl speed -seconds 3 -bytes {} -evp sha256 2>/dev/null | tail -1", size);
  FILE* out = popen(command.c_str(), "r");
  if (out == nullptr) return 0;
  char line[256] = {};
  const bool read = std::fgets(line, sizeof line, out) != nullptr;
  pclose(out);
  double thousands = 0;
  char name[32] = {};
  return read && std::sscanf(line, "%31s %lfk", name, &thousands) == 2 ? thousands * 1000 : 0;
}

int run(Seq total) {
  const auto dir = std::filesystem::temp_directory_path() / fmt::format("verify-bench-{}", getpid());
  std::filesystem::remove_all(dir);
  const std::uint64_t bytes = make_log(dir, total);
  const std::uint64_t size = bytes / total;
  const double peer = openssl_speed(size);
  if (peer == 0) fatal("`openssl speed` cannot be run");
  fmt::print("{} records of {} bytes, {:.0f} MB\nopenssl speed sha256, one thread: {:.0f} MB/s, {:.2f} million records/s\n",
             total, size, static_cast<double>(bytes) / 1e6, peer / 1e6, peer / static_cast<double>(size) / 1e6);
  double alone = 0;
  const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  for (const unsigned threads : {1u, cores}) {
    auto log = EventLog::follow({.dir = dir.string()});
    if (!log) fatal(log.error().message);
    replay::VerifyOptions options;
    options.threads = threads;
    const auto start = std::chrono::steady_clock::now();
    const Result<replay::VerifyReport> report = replay::verify(**log, {}, options);
    const double seconds = seconds_since(start);
    if (!report || !report->sound()) fatal("the log is not sound");
    const double ratio = seconds / (static_cast<double>(bytes) / peer);
    if (threads == 1) alone = ratio;
    fmt::print("verify, {} thread{} for records: {:.2f} s, {:.2f} million records/s, {:.0f} MB/s: {:.1f} times as long as "
               "the peer{}\n",
               threads, threads == 1 ? "" : "s", seconds, static_cast<double>(total) / seconds / 1e6,
               static_cast<double>(bytes) / seconds / 1e6, ratio,
               threads == 1 ? fmt::format(" (limit {:.0f})", kLimit) : "");
  }
  std::filesystem::remove_all(dir);
  return alone <= kLimit ? 0 : 1;
}

}  // namespace
}  // namespace ledger

int main(int argc, char** argv) {
  const unsigned long long total = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 500'000;
  if (argc <= 2 && total > 0) return ledger::run(total);
  fmt::print(stderr, "usage: verify_bench [RECORDS]\n");
  return 2;
}
