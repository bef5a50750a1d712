// `ledger verify`: does the log hold together? Reads everything, changes nothing.

#include <boost/json.hpp>

#include "replay/verify.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;

constexpr const char* kFooter =
    "Checks that every record is there once, can be read and is stamped no earlier than the one before; that the\n"
    "indexes list exactly what the records say; and that the stored state of every node is what its records make\n"
    "of it. Works beside a running server. It proves consistency, not that nobody rewrote the whole log.\n\n"
    "Examples:\n"
    "  ledger verify\n"
    "  ledger verify --data-dir /srv/ledger --format json\n\n"
    "Exit status: 0 sound, 1 damaged or unreadable, 2 wrong usage.\n";

constexpr replay::Damage kSorts[] = {replay::Damage::kGap,
                                     replay::Damage::kUndecodable,
                                     replay::Damage::kTimeWentBack,
                                     replay::Damage::kIndexMissing,
                                     replay::Damage::kIndexToNothing,
                                     replay::Damage::kIndexSurplus,
                                     replay::Damage::kProjectionDiffers};

json::object to_json(const replay::VerifyReport& report) {
  json::object counts;
  for (const replay::Damage sort : kSorts) {
    const std::string_view name = replay::name_of(sort);
    counts[json::string_view(name.data(), name.size())] = report.count(sort);
  }
  json::array damage;
  for (const replay::DamageFound& found : report.damage) {
    const std::string_view name = replay::name_of(found.damage);
    damage.push_back(json::object{{"damage", json::string_view(name.data(), name.size())},
                                  {"seq", found.seq != 0 ? json::value(found.seq) : json::value(nullptr)},
                                  {"text", found.text}});
  }
  return {{"ledger", report.ledger},
          {"sound", report.sound()},
          {"head", report.head},
          {"records", report.records},
          {"index_entries", report.index_entries},
          {"nodes", report.nodes},
          {"counts", std::move(counts)},
          {"damage", std::move(damage)}};
}

void print_text(const replay::VerifyReport& report) {
  std::printf("ledger %s: %llu records, %llu index entries, %llu nodes\n", report.ledger.c_str(),
              static_cast<unsigned long long>(report.records),
              static_cast<unsigned long long>(report.index_entries), static_cast<unsigned long long>(report.nodes));
  for (const replay::DamageFound& found : report.damage) std::printf("  %s\n", found.text.c_str());
  for (const replay::Damage sort : kSorts)
    if (report.count(sort) > 0)
      std::printf("  %.*s: %llu\n", static_cast<int>(replay::name_of(sort).size()), replay::name_of(sort).data(),
                  static_cast<unsigned long long>(report.count(sort)));
  std::printf(report.sound() ? "sound\n"
                             : "DAMAGED: keep a copy of the data directory as it is before anything else\n");
}

int run(const std::string& data_dir, const std::string& format) {
  const auto log = EventLog::follow({.dir = std::filesystem::path(data_dir) / "events"});
  if (!log) return fail(log.error());
  Result<replay::VerifyReport> report = [&] {
    ProgressLine progress("verifying");
    return replay::verify(**log, std::ref(progress));
  }();
  if (!report) return fail(report.error());
  if (format == "json")
    std::printf("%s\n", json::serialize(to_json(*report)).c_str());
  else
    print_text(*report);
  return report->sound() ? 0 : 1;
}

}  // namespace

void add_verify(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("verify", "Check that the log holds together");
  command->footer(kFooter);
  auto data_dir = std::make_shared<std::string>(kDefaultDataDir);
  auto format = std::make_shared<std::string>("text");
  command->add_option("--data-dir", *data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--format", *format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([data_dir, format, &exit_code] { exit_code = run(*data_dir, *format); });
}

}  // namespace ledger::tools
