// export_bench: what an export costs in each format, and a bundle, over a log with a record of every kind.
//
//   export_bench formats [RECORDS]     records per second of processor time of each format (200,000), the ratio to reading
//                                      and decoding the records alone and to jsonl; a bundle, and its check, likewise
//   export_bench log DIR [RECORDS]     makes such a log below DIR, as a data directory with a checkpoint key, for
//                                      tools/bench/export_check
//
// Records are tests/golden/v2, renumbered, over and over. Exit status: 0, 1 when something failed, 2 wrong usage.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <functional>
#include <vector>

#include "ledger/credentials.h"
#include "ledger/event_codec.h"
#include "ledger/event_json.h"
#include "ledger/event_log.h"
#include "ledger/node_table.h"
#include "replay/bundle_check.h"
#include "replay/bundle_write.h"

namespace ledger {
namespace {

namespace fs = std::filesystem;

// Of the processor, not of the wall: one thread works, and neighbours must not be measured.
double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

template <class T>
T must_have(Result<T> result) {
  if (!result) fatal(result.error().message);
  return std::move(*result);
}

std::vector<Record> every_kind() {
  std::vector<fs::path> files;
  for (const auto& file : fs::directory_iterator(fs::path(LEDGER_SOURCE_DIR) / "tests" / "golden" / "v2"))
    if (file.path().extension() == ".json") files.push_back(file.path());
  std::sort(files.begin(), files.end());
  std::vector<Record> records;
  for (const fs::path& file : files) {
    Result<Record> record = record_from_json(trim(must_have(read_file(file))));
    if (record) records.push_back(std::move(*record));
  }
  return records;
}

std::unique_ptr<EventLog> make_log(const fs::path& dir, Seq count) {
  fs::create_directories(dir);
  auto log = must_have(EventLog::open({.dir = dir / "events"}));
  const std::vector<Record> kinds = every_kind();
  NodeTable table;
  std::vector<Record> batch;
  std::vector<EventLog::NodeEntry> nodes;
  for (Seq seq = 1; seq <= count; ++seq) {
    Record record = kinds[seq % kinds.size()];
    record.seq = seq;
    record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(seq));
    if (record.first_time) record.first_time = record.time.plus_seconds(-60);
    record.node = fmt::format("node-{}", seq % 5000);
    if (const NodeState* state = table.apply(record)) nodes.emplace_back(record.node, *state);
    batch.push_back(std::move(record));
    if (batch.size() < 2000 && seq != count) continue;
    if (const Result<void> appended = log->append(batch, nodes); !appended) fatal(appended.error().message);
    batch.clear(), nodes.clear();
  }
  return log;
}

// The median of three, in seconds.
double timed(const std::function<void()>& work) {
  std::vector<double> rounds;
  for (int i = 0; i < 3; ++i) {
    const double start = processor_seconds();
    work();
    rounds.push_back(processor_seconds() - start);
  }
  std::sort(rounds.begin(), rounds.end());
  return rounds[1];
}

struct Measured {
  double seconds = 0;
  std::uint64_t bytes = 0;
};

Measured measure(const EventLog& log, replay::AuditFormat format) {
  Measured measured;
  measured.seconds = timed([&] {
    replay::ExportOptions options;
    options.format = format;
    options.source = {.log = log.id(), .version = LEDGER_VERSION};
    measured.bytes = 0;
    const auto report = must_have(replay::export_log(log, options, [&](std::string_view line) {
      measured.bytes += line.size();
      return true;
    }));
    if (report.records != log.head() || report.hole_count != 0) fatal("not every record was exported");
  });
  return measured;
}

void tell(const std::string& what, const EventLog& log, const Measured& measured, double alone, double jsonl) {
  const auto records = static_cast<double>(log.head());
  fmt::print("{:<14} {:>10.0f} records/s {:>7.0f} bytes a record   {:>6.2f} x reading alone {:>6.2f} x jsonl\n", what,
             records / measured.seconds, static_cast<double>(measured.bytes) / records, measured.seconds / alone,
             measured.seconds / jsonl);
}

void bundle(const EventLog& log, const fs::path& dir, double alone, double jsonl) {
  const NoteSigner signer = must_have(NoteSigner::make(origin_of(log.id())));
  replay::BundleOptions options;
  options.what.source = {.log = log.id(), .version = LEDGER_VERSION};
  options.checkpoint.head = {log.head(), must_have(root_at(log.head(), log.tree_nodes()))};
  options.checkpoint.note.text = checkpoint_text(signer.verifier().name(), options.checkpoint.head);
  options.checkpoint.note.signatures.push_back(signer.sign(options.checkpoint.note.text));
  options.key = signer.verifier().str();
  options.signer = &signer;
  const fs::path path = dir / "bundle";
  Measured written, checked;
  written.seconds = timed([&] {
    fs::remove_all(path);
    written.bytes = 0;
    for (const auto& file : must_have(replay::write_bundle(log, options, path)).manifest.files) written.bytes += file.size;
  });
  checked.bytes = written.bytes;
  checked.seconds = timed([&] {
    const auto report = must_have(replay::check_bundle(path, {.key = signer.verifier(), .earlier = {}, .version = LEDGER_VERSION}));
    if (!report.holds() || !report.is_proved || report.records != log.head()) fatal("the bundle does not hold");
  });
  tell("bundle", log, written, alone, jsonl);
  tell("verify-bundle", log, checked, alone, jsonl);
}

int formats(Seq count) {
  const fs::path dir = fs::temp_directory_path() / fmt::format("export-bench-{}", getpid());
  {
    const auto log = make_log(dir, count);
    fmt::print("{} records, {} kinds\n", count, every_kind().size());
    Measured alone;
    alone.seconds = timed([&] {
      alone.bytes = 0;
      const Result<void> read = log->scan_bytes(1, log->head(), [&](Seq, std::string_view bytes) {
        alone.bytes += bytes.size();
        return decode_record(bytes).has_value();
      });
      if (!read) fatal(read.error().message);
    });
    const double jsonl = measure(*log, replay::AuditFormat::jsonl).seconds;
    tell("reading alone", *log, alone, alone.seconds, jsonl);
    for (const std::string& name : replay::audit_format_names())
      tell(name, *log, measure(*log, *replay::audit_format_from_name(name)), alone.seconds, jsonl);
    bundle(*log, dir, alone.seconds, jsonl);
  }
  fs::remove_all(dir);
  return 0;
}

int log_in(const fs::path& dir, Seq count) {
  const auto log = make_log(dir, count);
  (void)must_have(make_checkpoint_signer(dir, origin_of(log->id())));
  return 0;
}

Seq number(const char* text) { return std::max<Seq>(1, std::strtoull(text, nullptr, 10)); }

}  // namespace
}  // namespace ledger

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "formats") return ledger::formats(argc > 2 ? ledger::number(argv[2]) : 200'000);
  if (mode == "log" && argc > 2) return ledger::log_in(argv[2], argc > 3 ? ledger::number(argv[3]) : 28'000);
  fmt::print(stderr, "usage: export_bench formats [RECORDS] | log DIR [RECORDS]\n");
  return 2;
}
