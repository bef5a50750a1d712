// `ledger stats` and `ledger compact`: what the log holds and takes, and making it take less.

#include <fmt/format.h>

#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <thread>

#include "api/operator_client.h"
#include "ledger/ledger.h"
#include "replay/log_stats.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;

constexpr const char* kStatsFooter =
    "Reads beside a running server and changes nothing. Reads every record and index entry; --quick\n"
    "reads a few records only, and leaves out what needs them all.\n\n"
    "What a record takes on the disk is the log's files divided by its records: indexes, tree and what\n"
    "has not been merged yet (ledger compact) included, compression too.\n\n"
    "Examples:\n"
    "  ledger stats\n"
    "  ledger stats --quick --format json        for monitoring\n\n"
    "Exit status: 0 done, 1 unreadable, 2 wrong usage.\n";

constexpr const char* kCompactFooter =
    "Merges the files of the log's store, so that states of nodes that were replaced take no room any\n"
    "more. No record is changed or removed. RocksDB merges by itself, too, when it sees need; this is\n"
    "for before a copy of the disk, or after a storm.\n\n"
    "A running server does it itself, at its operators' request, and goes on meanwhile; a stopped log is\n"
    "merged here. Needs room for the merged files beside the old ones.\n\n"
    "Examples:\n"
    "  ledger compact\n"
    "  ledger compact --data-dir ./data --format json\n\n"
    "Exit status: 0 done, 1 refused or failed, 2 wrong usage.\n";

constexpr std::chrono::milliseconds kAskEvery{200};

std::string grouped(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string size_text(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(units); ++unit) bytes /= 1024;
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}
std::string size_text(std::uint64_t bytes) { return size_text(static_cast<double>(bytes)); }

// ---- stats -----------------------------------------------------------------------------------------------

struct StatsArguments {
  std::string data_dir = kDefaultDataDir, format = "text";
  bool quick = false;
};

json::object to_json(const replay::LogStats::Growth& growth) {
  return {{"days", growth.days}, {"records_per_day", growth.records_per_day},
          {"disk_bytes_per_day", growth.disk_bytes_per_day}};
}

json::object to_json(const std::map<std::string, std::uint64_t>& counts) {
  json::object object;
  for (const auto& [name, count] : counts) object[name] = count;
  return object;
}

json::object to_json(const replay::LogStats& stats) {
  const auto time = [](Time at) { return at.known() ? json::value(at.to_string()) : json::value(nullptr); };
  json::object object{{"ledger", stats.ledger},
                      {"head", stats.head},
                      {"first", time(stats.first)},
                      {"last", time(stats.last)},
                      {"disk_bytes", stats.disk_bytes},
                      {"free_bytes", stats.free_bytes ? json::value(*stats.free_bytes) : json::value(nullptr)},
                      {"last_7_days", to_json(stats.week)},
                      {"last_30_days", to_json(stats.month)},
                      {"days_until_full",
                       stats.days_until_full ? json::value(*stats.days_until_full) : json::value(nullptr)}};
  if (stats.scanned) {
    json::object kinds;
    for (const auto& [name, kind] : stats.kinds)
      kinds[name] = {{"records", kind.records}, {"outcomes", kind.outcomes}, {"bytes", kind.bytes}};
    object["record_bytes"] = stats.record_bytes;
    object["unreadable"] = stats.unreadable;
    object["kinds"] = std::move(kinds);
    object["index_entries"] = to_json(stats.index_entries);
  }
  json::object families;
  for (const EventLog::FamilySize& family : stats.families)
    families[family.name] = {
        {"entries", family.entries}, {"bytes", family.bytes}, {"memory_bytes", family.memory_bytes}};
  object["families"] = std::move(families);
  object["nodes"] = to_json(stats.nodes);
  object["tokens"] = to_json(stats.tokens);
  object["checkpoints"] = stats.checkpoints;
  object["archives"] = {{"files", stats.archives}, {"bytes", stats.archive_bytes}};
  return object;
}

void print_kinds(const replay::LogStats& stats) {
  std::vector<std::pair<std::string, replay::LogStats::Kinds>> kinds(stats.kinds.begin(), stats.kinds.end());
  std::stable_sort(kinds.begin(), kinds.end(),
                   [](const auto& a, const auto& b) { return a.second.bytes > b.second.bytes; });
  fmt::print("{:<28} {:>14} {:>14} {:>12} {:>11}\n", "records by kind", "records", "outcomes", "bytes", "bytes each");
  for (const auto& [name, kind] : kinds)
    fmt::print("  {:<26} {:>14} {:>14} {:>12} {:>11}\n", name, grouped(kind.records), grouped(kind.outcomes),
               size_text(kind.bytes), kind.bytes / kind.records);
  if (stats.unreadable > 0)
    fmt::print("  {:<26} {:>14}   run `ledger verify`\n", "UNREADABLE", grouped(stats.unreadable));
  fmt::print("  {:<26} {:>14} {:>14} {:>12} {:>11}\n", "all", grouped(stats.head), "", size_text(stats.record_bytes),
             stats.head > 0 ? stats.record_bytes / stats.head : 0);
}

void print_growth(const replay::LogStats& stats) {
  const auto row = [](const char* name, const replay::LogStats::Growth& growth, double whole) {
    if (growth.days < 1.0 / 24) {
      fmt::print("  {:<26} not told: the log is younger than an hour\n", name);
      return;
    }
    const std::string days = growth.days < whole - 0.01 ? fmt::format("  (of {:.1f} days)", growth.days) : "";
    fmt::print("  {:<26} {:>14} {:>14}{}\n", name, grouped(static_cast<std::uint64_t>(growth.records_per_day + 0.5)),
               size_text(growth.disk_bytes_per_day), days);
  };
  fmt::print("{:<28} {:>14} {:>14}\n", "growth per day", "records", "on the disk");
  row("last 7 days", stats.week, 7);
  row("last 30 days", stats.month, 30);
  if (!stats.free_bytes) return;
  std::string when = "cannot be foretold";
  if (stats.days_until_full)
    when = *stats.days_until_full > 36500 ? "in more than 100 years"
           : *stats.days_until_full > 730 ? fmt::format("in {:.0f} years", *stats.days_until_full / 365)
                                          : fmt::format("in {:.0f} days", *stats.days_until_full);
  if (stats.days_until_full) when += ", at the rate of the last 7 days";
  fmt::print("  {:<26} {} ({} free)\n", "the disk is full", when, size_text(*stats.free_bytes));
}

std::string counts_text(const std::map<std::string, std::uint64_t>& counts) {
  std::string text;
  for (const auto& [name, count] : counts) text += (text.empty() ? "" : ", ") + grouped(count) + " " + name;
  return text.empty() ? "none" : text;
}

void print_store(const replay::LogStats& stats) {
  fmt::print("{:<28} {:>14} {:>14} {:>14}\n", "store", "entries", "on the disk", "in memory");
  for (const EventLog::FamilySize& family : stats.families)
    if (family.name != "default")
      fmt::print("  {:<26} {:>14} {:>14} {:>14}\n", family.name, "~" + grouped(family.entries),
                 size_text(family.bytes), size_text(family.memory_bytes));
  if (stats.scanned) fmt::print("  {:<26} {}\n", "index entries by", counts_text(stats.index_entries));
  fmt::print("  {:<26} {:>14} {:>14}\n", "all files", "", size_text(stats.disk_bytes));
}

void print_stats(const replay::LogStats& stats) {
  fmt::print("ledger {}: {} records, {} on the disk", stats.ledger, grouped(stats.head), size_text(stats.disk_bytes));
  if (stats.head > 0)
    fmt::print(" ({} bytes per record)\n  from {} to {}", stats.disk_bytes / stats.head, stats.first.to_string(),
               stats.last.to_string());
  fmt::print("\n");
  if (stats.scanned) print_kinds(stats);
  print_growth(stats);
  print_store(stats);
  std::uint64_t nodes = 0, tokens = 0;
  for (const auto& [name, count] : stats.nodes) nodes += count;
  for (const auto& [name, count] : stats.tokens) tokens += count;
  fmt::print("{:<12} {:>8}  {}\n", "nodes", grouped(nodes), nodes > 0 ? counts_text(stats.nodes) : "");
  fmt::print("{:<12} {:>8}  {}\n", "tokens", grouped(tokens), tokens > 0 ? counts_text(stats.tokens) : "");
  fmt::print("{:<12} {:>8}\n", "checkpoints", grouped(stats.checkpoints));
  fmt::print("{:<12} {:>8}  {}\n", "archives", grouped(stats.archives),
             stats.archives > 0 ? size_text(stats.archive_bytes) : "");
}

int run_stats(const StatsArguments& arguments) {
  const std::filesystem::path data_dir = arguments.data_dir;
  const auto log = EventLog::follow({.dir = data_dir / "events"});
  if (!log) return fail(log.error());
  const Result<replay::LogStats> stats = [&] {
    ProgressLine progress("counting");
    return replay::log_stats(**log, data_dir, Time::now(), arguments.quick, std::ref(progress));
  }();
  if (!stats) return fail(stats.error());
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(to_json(*stats)));
  else
    print_stats(*stats);
  return 0;
}

// ---- compact ---------------------------------------------------------------------------------------------

struct CompactArguments {
  std::string data_dir = kDefaultDataDir, format = "text";
};

struct Compacted {
  std::uint64_t before = 0, after = 0;
  bool by_server = false;
};

Result<Compacted> compact_here(Ledger& ledger) {
  Compacted done;
  std::atomic<bool> never{false};
  done.before = ledger.log().disk_bytes();
  if (const Result<void> merged = ledger.compact(never); !merged) return merged.error();
  done.after = ledger.log().disk_bytes();
  if (const Result<void> closed = ledger.close(); !closed) return closed.error();
  return done;
}

// {"running","before","after","error"}; asks until it is through.
Result<Compacted> compact_there(const CompactArguments& arguments) {
  Result<api::OperatorClient> client =
      api::OperatorClient::open({.url = {}, .data_dir = arguments.data_dir, .token_file = {}, .ca_file = {}});
  if (!client) return client.error();
  ProgressLine progress("the server merges the files of its log");
  Result<json::object> object = api::object_in(client->post("/ledger/v1/compact", "{}"));
  for (;;) {
    if (!object) return object.error();
    if (!object->contains("running") || !object->at("running").is_bool() ||
        !object->contains("before") || !object->contains("after"))
      return Error{Errc::io, "the server's answer cannot be read"};
    if (!object->at("running").get_bool()) {
      if (const json::value* failed = object->if_contains("error"); failed != nullptr && failed->is_string())
        return Error{Errc::unavailable, std::string(failed->get_string())};
      boost::system::error_code bad;
      return Compacted{object->at("before").to_number<std::uint64_t>(bad), object->at("after").to_number<std::uint64_t>(bad),
                       true};
    }
    progress(0, 0);
    std::this_thread::sleep_for(kAskEvery);
    object = api::object_in(client->get("/ledger/v1/compact"));
  }
}

int run_compact(const CompactArguments& arguments) {
  Ledger::Options options;
  options.log.dir = std::filesystem::path(arguments.data_dir) / "events";
  options.log.create = false;
  options.server_name = "command-line";
  Result<std::unique_ptr<Ledger>> ledger = Ledger::open(std::move(options));
  const bool served = !ledger && ledger.error().code == Errc::locked;
  if (!ledger && !served) return fail(ledger.error());
  const Result<Compacted> done = served ? compact_there(arguments) : compact_here(**ledger);
  if (!done) return fail(done.error());
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(json::object{
                           {"before", done->before}, {"after", done->after}, {"by_server", done->by_server}}));
  else
    fmt::print("merged the files of the log in {}{}: {} before, {} after\n", arguments.data_dir,
               done->by_server ? " (by the running server)" : "", size_text(done->before), size_text(done->after));
  return 0;
}

}  // namespace

void add_stats(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("stats", "What the log holds, how it grows, and what it takes on the disk");
  command->footer(kStatsFooter);
  auto arguments = std::make_shared<StatsArguments>();
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_flag("--quick", arguments->quick, "Do not read the records: no figures by kind");
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run_stats(*arguments); });
}

void add_compact(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("compact", "Merge the files of the log's store; a server goes on meanwhile");
  command->footer(kCompactFooter);
  auto arguments = std::make_shared<CompactArguments>();
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run_compact(*arguments); });
}

}  // namespace ledger::tools
