// `ledger backup` and `ledger restore`.

#include <fmt/format.h>

#include <boost/json.hpp>
#include <chrono>
#include <cstdio>

#include "ledger/backup.h"
#include "ledger/credentials.h"
#include "replay/text.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;

constexpr const char* kBackupFooter =
    "Copies the log record by record, beside the running server and without it: nothing pauses. The next\n"
    "run into the same directory adds what is new, whatever the size of the log. Then the files beside\n"
    "the log: CAs and tokens (tls/, cred/, token files), checkpoints, archives.\n\n"
    "Every record is compared with the log's Merkle tree before it is written, what was written is read\n"
    "back, and its root is compared with the newest signed checkpoint: damage in the log does not get\n"
    "into the backup. A backup that has records which the log has no more is never written to: it is\n"
    "the evidence that the log went back.\n\n"
    "A first backup needs every record: it cannot be begun once an archive was removed for good. One\n"
    "that was begun before goes on, and keeps what was removed.\n\n"
    "A backup is a directory that every reading command takes as --data-dir: ledger verify (reads all of\n"
    "it), replay, diff, export. `ledger serve` does not start on it: ledger restore makes a data\n"
    "directory of it.\n\n"
    "Who has cred/ and tls/ can be this server, and can test guessed passwords against the log. Keep a\n"
    "backup as safe as the server; or one --without-secrets, and cred/, tls/ and the token files apart.\n\n"
    "Examples:\n"
    "  ledger backup --to /mnt/backup/ledger                every hour, by a timer\n"
    "  ledger backup --to /mnt/shared/ledger --without-secrets\n"
    "  ledger verify --data-dir /mnt/backup/ledger --against /mnt/audit/checkpoint\n\n"
    "Exit status: 0 done; 1 refused, damaged or failed (the backup that was there is whole and can be\n"
    "restored; run it again); 2 wrong usage.\n";

constexpr const char* kRestoreFooter =
    "Makes a data directory of a backup. Nothing is overwritten: --data-dir must not exist, or be empty.\n"
    "The backup is verified first: every record, every file, every checkpoint, and with --against the\n"
    "checkpoint that was kept elsewhere (ledger serve --checkpoint-to), which also tells how many records\n"
    "are lost. The log then goes on with epoch_started (restored), which names the backup.\n\n"
    "An interrupted restore leaves a directory on which no server starts: run it again.\n\n"
    "Examples:\n"
    "  ledger restore --from /mnt/backup/ledger --list               what it holds\n"
    "  ledger restore --from /mnt/backup/ledger --check              and whether all of it is sound\n"
    "  ledger restore --from /mnt/backup/ledger --data-dir /var/lib/ledger.new \\\n"
    "      --against /mnt/audit/checkpoint\n"
    "  ledger restore --from /mnt/backup/ledger --data-dir ./then --to-seq 1200    as it was at a record\n\n"
    "The old server must not run any more: two servers with one log part ways.\n\n"
    "Exit status: 0 done, or sound (--check, --list); 1 refused, damaged or failed; 2 wrong usage.\n";

constexpr std::size_t kColumns = 100;
constexpr std::size_t kLabel = 15;

// A label and text, in lines of at most kColumns.
void print_row(const std::string& label, const std::string& text) {
  std::string head = fmt::format("  {:<{}}", label, kLabel - 2);
  for (const std::string& line : replay::wrap(text, kColumns - kLabel)) {
    fmt::print("{}{}\n", head, line);
    head = std::string(kLabel, ' ');
  }
}

// "12,345".
std::string grouped(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string records_of(std::uint64_t number) { return grouped(number) + (number == 1 ? " record" : " records"); }

std::string listed(const std::vector<std::string>& words) {
  return printable(fmt::format("{}", fmt::join(words, ", ")), 4000);
}

std::string time_text(Time time) { return time.known() ? time.to_string() : "-"; }

// ---- backup ----------------------------------------------------------------------------------------------

struct BackupArguments {
  std::string data_dir = kDefaultDataDir, to, format = "text";
  bool without_secrets = false;
};

json::object to_json(const BackupReport& report, const BackupArguments& arguments, double seconds) {
  return {{"ledger", report.ledger},
          {"data_dir", printable(arguments.data_dir, 4096)},
          {"to", printable(arguments.to, 4096)},
          {"first", report.is_first},
          {"new_records", report.copied.records},
          {"new_bytes", report.copied.bytes},
          {"head", report.head.size},
          {"root", to_hex(view_of(report.head.root))},
          {"last", report.last.known() ? json::value(report.last.to_string()) : json::value(nullptr)},
          {"checkpoint", report.checkpoint ? json::value(*report.checkpoint) : json::value(nullptr)},
          {"files_written", report.files_written},
          {"files_unchanged", report.files_unchanged},
          {"archives", report.archives},
          {"without", json::value_from(report.left_out)},
          {"notes", json::value_from(report.notes)},
          {"seconds", seconds}};
}

void print_backup(const BackupReport& report, const BackupArguments& arguments, double seconds) {
  fmt::print("backed up ledger {} from {}\n", report.ledger, printable(arguments.data_dir, 400));
  print_row("to", printable(arguments.to, 400));
  print_row("records", fmt::format("{} new, {} in all, up to {}", grouped(report.copied.records),
                                   grouped(report.head.size), time_text(report.last)));
  print_row("verified",
            fmt::format("{}; {}",
                        report.copied.records > 0 ? "what is new was read back" : "nothing new to read back",
                        report.checkpoint ? fmt::format("the root is that of the checkpoint of {}",
                                                        records_of(*report.checkpoint))
                                          : "no checkpoint of this server to compare with yet"));
  print_row("files", fmt::format("{} written, {} as they were{}", report.files_written, report.files_unchanged,
                                 report.archives > 0 ? fmt::format("; {} of archives", report.archives) : ""));
  const double mib = static_cast<double>(report.copied.bytes) / (1 << 20);
  print_row("took", seconds > 0.5 && report.copied.records > 0
                        ? fmt::format("{:.1f} s, {:.0f} records/s, {:.1f} MiB/s", seconds,
                                      static_cast<double>(report.copied.records) / seconds, mib / seconds)
                        : fmt::format("{:.2f} s", seconds));
  if (!report.left_out.empty()) {
    print_row("without", listed(report.left_out));
    print_row("", "Of this backup alone no server can be restored: without cred/fingerprint.key no stored password can "
                  "be recognised, and without the CA keys in tls/ every agent must be joined anew. Keep these "
                  "files elsewhere, and put them into the restored directory.");
  }
  for (const std::string& note : report.notes) print_row("note", note);
}

int run_backup(const BackupArguments& arguments) {
  const auto begin = std::chrono::steady_clock::now();
  const Result<BackupReport> report = [&] {
    ProgressLine progress("copying the log");
    return backup({.data_dir = arguments.data_dir,
                   .to = arguments.to,
                   .with_secrets = !arguments.without_secrets,
                   .now = Time::now(),
                   .progress = std::ref(progress)});
  }();
  if (!report) return fail(report.error());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(to_json(*report, arguments, seconds)));
  else
    print_backup(*report, arguments, seconds);
  return 0;
}

// ---- restore ---------------------------------------------------------------------------------------------

struct RestoreArguments {
  std::string from, data_dir, format = "text";
  std::vector<std::string> against;
  Seq to_seq = 0;
  bool list = false, check = false;
};

json::object to_json(const BackupCheck& check) {
  json::array files;
  for (const BackupFile& file : check.manifest.files) files.emplace_back(file.name);
  return {{"ledger", check.manifest.ledger},
          {"made", check.manifest.time.to_string()},
          {"version", check.manifest.version},
          {"host", check.manifest.host},
          {"source", check.manifest.source},
          {"secrets", check.manifest.secrets},
          {"head", check.head.size},
          {"root", to_hex(view_of(check.head.root))},
          {"first", check.first.known() ? json::value(check.first.to_string()) : json::value(nullptr)},
          {"last", check.last.known() ? json::value(check.last.to_string()) : json::value(nullptr)},
          {"nodes", check.nodes},
          {"checkpoints", check.checkpoints},
          {"seen_elsewhere", check.newest_known ? json::value(check.newest_known->head.size) : json::value(nullptr)},
          {"files", std::move(files)},
          {"problems", json::value_from(check.problems)}};
}

void print_contents(const BackupCheck& check, const RestoreArguments& arguments) {
  fmt::print("backup of ledger {} in {}\n", printable(check.manifest.ledger, 40), printable(arguments.from, 400));
  print_row("made", fmt::format("{} by ledger {} of {}:{}", check.manifest.time.to_string(),
                                printable(check.manifest.version, 40), printable(check.manifest.host, 100),
                                printable(check.manifest.source, 300)));
  print_row("records", check.head.size == 0 ? "none"
                                            : fmt::format("{}, from {} to {}", grouped(check.head.size),
                                                          time_text(check.first), time_text(check.last)));
  print_row("nodes", grouped(check.nodes));
  print_row("files", fmt::format("{}{}", check.manifest.files.size(),
                                 check.manifest.secrets ? "" : ", without secrets (no passwords, tokens or CA keys)"));
  print_row("checkpoints", check.checkpoints == 0 ? "none to compare with"
                                                  : fmt::format("{} agree", grouped(check.checkpoints)));
  if (check.newest_known && check.newest_known->head.size > check.head.size)
    print_row("lacks", fmt::format("records {} to {}, which a checkpoint that was kept elsewhere saw",
                                   check.head.size + 1, check.newest_known->head.size));
}

BackupCheckOptions check_options(const RestoreArguments& arguments, ProgressLine& progress) {
  BackupCheckOptions options;
  options.from = arguments.from;
  options.against.assign(arguments.against.begin(), arguments.against.end());
  options.read_all = !arguments.list;
  options.progress = std::ref(progress);
  return options;
}

int run_check(const RestoreArguments& arguments) {
  const Result<BackupCheck> check = [&] {
    ProgressLine progress("reading the backup");
    return check_backup(check_options(arguments, progress));
  }();
  if (!check) return fail(check.error());
  if (arguments.format == "json") {
    fmt::print("{}\n", json::serialize(to_json(*check)));
  } else {
    print_contents(*check, arguments);
    for (const std::string& problem : check->problems) print_row("PROBLEM", problem);
    if (arguments.check) fmt::print("{}\n", check->problems.empty() ? "sound" : "DAMAGED: take another backup");
  }
  return check->problems.empty() ? 0 : 1;
}

// What to expect of the nodes: the log says nothing of what came after the backup.
void print_expectations(const RestoreReport& report) {
  const std::string since = time_text(report.last);
  print_row("expect", "Nodes that registered first after " + since +
                          " are unknown here: they register anew by themselves.");
  print_row("", "Nodes whose password changed after that (rebuilt and accepted, or released and bound anew) "
                "are refused with 403, for the older password is the bound one: `ledger triage` lists them, `ledger "
                "replay --node X` says RESTORED, `ledger node accept` lets them in.");
  print_row("", "Names held, and tokens created, rotated or revoked after that are as they were before: hold and revoke "
                "them again (`ledger token list`).");
  print_row("", "Certificates that were issued stay valid.");
}

void print_restored(const RestoreReport& report, const RestoreArguments& arguments) {
  fmt::print("restored ledger {} to {}\n", report.backup.manifest.ledger, printable(arguments.data_dir, 400));
  print_row("from", fmt::format("{}, made {}", printable(arguments.from, 400), report.backup.manifest.time.to_string()));
  print_row("records", fmt::format("{}, up to {}", grouped(report.restored), time_text(report.last)));
  print_row("lost", report.head_before > report.restored
                        ? fmt::format("records {} to {}", report.restored + 1, report.head_before)
                        : "what was recorded after that; no checkpoint that saw more was given (--against)");
  print_row("record", fmt::format("{} epoch_started (restored)", report.record));
  if (!report.missing.empty())
    print_row("MISSING", "the backup is without secrets: before a server starts here, put back cred/ and tls/ whole, and "
                         "token, node-token and agent-token");
  print_expectations(report);
  fmt::print("next: make sure that the old server does not run any more, then\n  ledger serve --data-dir {}\n",
             printable(arguments.data_dir, 400));
}

json::object to_json(const RestoreReport& report, const RestoreArguments& arguments) {
  json::object object{{"ledger", report.backup.manifest.ledger},
                      {"from", printable(arguments.from, 4096)},
                      {"data_dir", printable(arguments.data_dir, 4096)},
                      {"restored", report.restored},
                      {"head_before", report.head_before},
                      {"record", report.record},
                      {"last", report.last.to_string()},
                      {"missing", json::value_from(report.missing)}};
  object["backup"] = to_json(report.backup);
  return object;
}

int run_restore(const RestoreArguments& arguments) {
  if (arguments.list || arguments.check) return run_check(arguments);
  if (arguments.data_dir.empty()) {
    fail({Errc::invalid, "where to? Name a new directory with --data-dir, or look only, with --list or --check"});
    return 2;
  }
  const Result<RestoreReport> report = [&] {
    ProgressLine progress("restoring");
    RestoreOptions options;
    options.backup = check_options(arguments, progress);
    options.data_dir = arguments.data_dir;
    if (arguments.to_seq > 0) options.to_seq = arguments.to_seq;
    options.now = Time::now();
    return restore(options);
  }();
  if (!report) return fail(report.error());
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(to_json(*report, arguments)));
  else
    print_restored(*report, arguments);
  return 0;
}

}  // namespace

void add_backup(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("backup", "Copy the log and the files beside it, beside a running server");
  command->footer(kBackupFooter);
  auto arguments = std::make_shared<BackupArguments>();
  command->add_option("--to", arguments->to, "Directory of the backup; the next run adds what is new")->required();
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  command->add_flag("--without-secrets", arguments->without_secrets, "Leave out cred/, private keys and tokens");
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run_backup(*arguments); });
}

void add_restore(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("restore", "Make a data directory of a backup, or look into one");
  command->footer(kRestoreFooter);
  auto arguments = std::make_shared<RestoreArguments>();
  command->add_option("--from", arguments->from, "Directory of the backup")->required();
  command->add_option("--data-dir", arguments->data_dir, "Where to: a new directory (created, mode 0700)");
  auto* list = command->add_flag("--list", arguments->list, "Only say what the backup holds");
  command->add_flag("--check", arguments->check, "Only read all of it and say what is wrong")->excludes(list);
  command->add_option("--to-seq", arguments->to_seq, "Only the records up to this one")->check(CLI::PositiveNumber);
  command->add_option("--against", arguments->against,
                      "File with a checkpoint that was kept elsewhere (repeatable)");
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = run_restore(*arguments); });
}

}  // namespace ledger::tools
