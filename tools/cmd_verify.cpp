// `ledger verify`: does the log hold together? Reads everything, changes nothing.

#include <boost/json.hpp>

#include "ledger/credentials.h"
#include "replay/verify.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;

constexpr const char* kFooter =
    "Checks that every record is there once, can be read and is stamped no earlier than the one before;\n"
    "that the indexes list exactly what the records say; that the stored state of every node is what\n"
    "its records make of it; that every record is the one that the Merkle tree was made of; and that\n"
    "the tree is the one that every checkpoint of the server saw. Works beside a running server, and\n"
    "changes nothing.\n\n"
    "Who can write the data directory can rewrite all of that together. So keep checkpoints elsewhere\n"
    "(ledger serve --checkpoint-to), and the public key too (<data-dir>/cred/checkpoint.pub), and\n"
    "compare:\n\n"
    "  ledger verify --against /mnt/audit/checkpoint --key /mnt/audit/checkpoint.pub\n\n"
    "What is found is told apart: a flipped bit, a rewritten, removed, inserted or moved record, a tail\n"
    "that was cut off, an older copy that was restored (a checkpoint saw more), another log. Between\n"
    "two checkpoints it is located even when the tree was rewritten too.\n\n"
    "Examples:\n"
    "  ledger verify\n"
    "  ledger verify --data-dir /srv/ledger --format json\n\n"
    "Records in an archive that is not here cannot be checked; those are named.\n\n"
    "Exit status: 0 sound, 1 damaged or unreadable, 2 wrong usage, 3 sound as far as it could be\n"
    "checked: archives are not here that nobody removed (ledger archive list).\n";

struct Arguments {
  std::string data_dir = kDefaultDataDir;
  std::string format = "text";
  std::vector<std::string> against;
  std::string key, archives;
  unsigned threads = 0;
};

json::object to_json(const replay::VerifyReport& report) {
  json::object counts;
  for (std::size_t i = 0; i < replay::kDamages; ++i) {
    const auto sort = static_cast<replay::Damage>(i);
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
  json::array unchecked;
  for (const replay::Unchecked& range : report.unchecked)
    unchecked.push_back(
        json::object{{"from", range.from}, {"to", range.to}, {"removed", range.removed}, {"text", range.text}});
  return {{"ledger", report.ledger},
          {"sound", report.sound()},
          {"head", report.head},
          {"records", report.records},
          {"index_entries", report.index_entries},
          {"nodes", report.nodes},
          {"tree", report.has_tree
                       ? json::value{{"size", report.tree.size}, {"root", to_hex(view_of(report.tree.root))}}
                       : json::value(nullptr)},
          {"checkpoints", report.checkpoints},
          {"covered", report.covered},
          {"lost_checkpoints", report.lost},
          {"archives", report.archives},
          {"complete", report.complete()},
          {"unchecked", std::move(unchecked)},
          {"unchecked_nodes", report.unchecked_nodes},
          {"counts", std::move(counts)},
          {"damage", std::move(damage)}};
}

void print_text(const replay::VerifyReport& report) {
  const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf("ledger %s: %llu records, %llu index entries, %llu nodes\n", report.ledger.c_str(),
              number(report.records), number(report.index_entries), number(report.nodes));
  if (!report.has_tree)
    std::printf("tree: none yet; a server of this release makes it when it starts\n");
  else if (report.checkpoints == 0)
    std::printf("tree: %llu entries; no checkpoint to compare with\n", number(report.tree.size));
  else
    std::printf("tree: %llu entries; %llu checkpoints agree, the largest covers records 1 to %llu\n",
                number(report.tree.size), number(report.checkpoints), number(report.covered));
  if (report.lost > 0)
    std::printf("%llu checkpoints saw records that this log has lost; the server knows (epoch_started)\n",
                number(report.lost));
  if (report.archives > 0) std::printf("archives: %llu are what was sealed\n", number(report.archives));
  for (const replay::Unchecked& range : report.unchecked) std::printf("  not checked: %s\n", range.text.c_str());
  if (report.unchecked_nodes > 0)
    std::printf("  not checked: the stored state of %llu nodes, which follows from such records\n",
                number(report.unchecked_nodes));
  for (const replay::DamageFound& found : report.damage) std::printf("  %s\n", found.text.c_str());
  for (std::size_t i = 0; i < replay::kDamages; ++i)
    if (const auto sort = static_cast<replay::Damage>(i); report.count(sort) > 0)
      std::printf("  %.*s: %llu\n", static_cast<int>(replay::name_of(sort).size()), replay::name_of(sort).data(),
                  number(report.count(sort)));
  std::printf(report.sound() && !report.complete() ? "sound as far as it could be checked: archives are not here\n"
              : report.sound() ? "sound\n"
                             : "DAMAGED: keep a copy of the data directory as it is before anything else\n");
}

int run(const Arguments& arguments) {
  const std::filesystem::path data_dir = arguments.data_dir;
  // The checkpoints first: a server that goes on meanwhile must not sign what the log was opened too early for.
  replay::VerifyOptions options = replay::checkpoints_of(data_dir);
  options.threads = arguments.threads;
  std::optional<NoteVerifier> key;
  if (!arguments.key.empty()) {
    const Result<NoteVerifier> read = read_checkpoint_key(arguments.key);
    if (!read) return fail(read.error());
    key = *read;
  }
  for (const std::string& file : arguments.against)
    if (const auto added = replay::add_checkpoints(options, data_dir, file, key); !added)
      return fail(added.error());
  const auto log = EventLog::follow({.dir = data_dir / "events", .archives = arguments.archives});
  if (!log) return fail(log.error());
  Result<replay::VerifyReport> report = [&] {
    ProgressLine progress("verifying");
    return replay::verify(**log, std::ref(progress), options);
  }();
  if (!report) return fail(report.error());
  if (arguments.format == "json")
    std::printf("%s\n", json::serialize(to_json(*report)).c_str());
  else
    print_text(*report);
  return !report->sound() ? 1 : report->complete() ? 0 : 3;
}

}  // namespace

void add_verify(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("verify", "Check that the log holds together and that nobody changed it");
  command->footer(kFooter);
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_option("--archives", arguments->archives, kArchivesHelp);
  command->add_option("--against", arguments->against,
                      "File with a checkpoint that was kept elsewhere (repeatable)");
  command->add_option(
      "--key", arguments->key,
      "Public key that --against must be signed with (default: the\n"
                      "data directory's, which proves less)");
  command->add_option("--threads", arguments->threads, "Threads; 0: one per core")->capture_default_str();
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace ledger::tools
