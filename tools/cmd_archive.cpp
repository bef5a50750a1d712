// `ledger archive`: old records sealed into files, legal holds, and what must be forgotten.

#include <fmt/format.h>

#include <boost/json.hpp>
#include <filesystem>

#include "api/operator_client.h"
#include "ledger/archivist.h"
#include "replay/archive_summary.h"
#include "tools/commands.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;

constexpr const char* kFooter =
    "Examples:\n"
    "  ledger archive seal --before 2026-01-01           old records go into files, and out of the store\n"
    "  ledger archive list                               the files, where they are, and the holds\n"
    "  ledger archive verify /mnt/cold/*.archive --key checkpoint.pub\n"
    "                                                    each proves itself; needs no log\n"
    "  ledger archive hold --node web-1 --reason \"case 12\"\n"
    "  ledger archive hold --since 2026-01-01 --until 2026-02-01 --reason \"case 13\"\n"
    "  ledger archive lift 3fa9c1d2 --reason \"case 12 closed\"\n"
    "  ledger archive remove 000000000001-000000100000.archive --reason \"kept for 5 years\"\n\n"
    "`ledger serve --retain-age 90d --retain-size 10GiB` seals by itself. Files may be moved; where they are\n"
    "not, nobody can read their records, and every answer says so. These commands talk to the running server\n"
    "of --data-dir over HTTPS with <data-dir>/cred/operator-token, or open the log when no server runs.\n\n"
    "Exit status: 0 done, 1 refused or failed, or `verify` found damage; 2 wrong usage.\n";

constexpr const char* kHoldFooter =
    "A hold is on a node, on a range of records or on a time. While it stands, no archive with a record that it\n"
    "covers is removed, and no such range is dropped from the store: of a node, every archive in which a record\n"
    "names it. It does not stop sealing: such records are then in the file and in the store. Placing and lifting\n"
    "are records of the log, with who and why.\n\n"
    "Exit status: 0 done, 1 refused or failed, 2 wrong usage.\n";

constexpr const char* kRemoveFooter =
    "Forgets: the file and what the index says of its records go, for good. The record of it (archive_removed)\n"
    "stays, and so do the tree's hashes: proofs of other records hold, and `ledger verify` checks the rest. What\n"
    "the server itself needs (tokens, starts, Node objects) stays in the store. Refused under a legal hold.\n"
    "Copies elsewhere are yours to remove.\n\n"
    "Exit status: 0 done, 1 refused or failed, 2 wrong usage.\n";

struct Arguments {
  std::string data_dir = kDefaultDataDir, format = "text", archives, actor, reason;
  std::string before, since, until, node, hold, file, key;
  Seq to_seq = 0, from_seq = 0;
  std::vector<std::string> files;
};

// A date, a time, or a span back from now.
Result<Time> parse_moment(const char* option, const std::string& text) {
  const bool is_date = text.size() == 10 && text.find('T') == std::string::npos;
  if (const auto seconds = replay::seconds_of_span(text)) return Time::now().plus_seconds(-*seconds);
  const Result<Time> time = Time::parse(is_date ? text + "T00:00:00Z" : text);
  if (time) return time;
  return Error{Errc::invalid, std::string(option) + " '" + printable(text, 40) +
                                  "' is no date (2026-01-01), no time (RFC 3339) and no span like 30m, 24h or 90d"};
}

std::string size_text(std::uint64_t bytes) {
  if (bytes < 10'000) return fmt::format("{} B", bytes);
  if (bytes < 10'000'000) return fmt::format("{:.1f} kB", static_cast<double>(bytes) / 1e3);
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

// ---- against a running server, or the log itself ---------------------------------------------------------

// Does the work on a log that no server has, or sends `path` and `body` to the one that has it.
template <class Local>
Result<json::object> act(const Arguments& arguments, const std::string& path, const json::object& body,
                         const Local& local) {
  Ledger::Options options;
  options.log.dir = std::filesystem::path(arguments.data_dir) / "events";
  options.log.create = false;
  options.server_name = "command-line";
  Result<std::unique_ptr<Ledger>> ledger = Ledger::open(std::move(options));
  if (ledger) {
    const auto tell = [](bool, const std::string& line) { std::fprintf(stderr, "ledger: %s\n", line.c_str()); };
    Archivist archivist({.data_dir = arguments.data_dir, .log = tell}, **ledger);
    Result<json::object> done = local(archivist);
    if (const Result<void> closed = (*ledger)->close(); !closed) return closed.error();
    return done;
  }
  if (ledger.error().code != Errc::locked) return ledger.error();
  Result<api::OperatorClient> client =
      api::OperatorClient::open({.url = {}, .data_dir = arguments.data_dir, .token_file = {}, .ca_file = {}});
  if (!client) return client.error();
  return api::object_in(client->post("/ledger/v1/" + path, json::serialize(body)));
}

OperatorAction action_of(const Arguments& arguments) {
  return {.actor = arguments.actor, .reason = arguments.reason, .request_id = {}, .source = {}};
}

Result<json::object> object_of(const Result<Archivist::Done>& done) {
  if (!done) return done.error();
  json::object out{{"seq", done->record}};
  if (!done->hold.empty()) out["hold"] = done->hold;
  return out;
}

std::uint64_t number_at(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_number() ? value->to_number<std::uint64_t>() : 0;
}

std::string text_at(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? printable(std::string_view(value->get_string()), 1000) : "";
}

std::string joined(const json::object& object, const char* key) {
  std::string out;
  const json::value* list = object.if_contains(key);
  if (list != nullptr && list->is_array())
    for (const json::value& one : list->get_array())
      if (one.is_string()) out += (out.empty() ? "" : " ") + std::string(one.get_string());
  return out;
}

// ---- seal ------------------------------------------------------------------------------------------------

Result<json::array> seal_all(const Arguments& arguments, const Archivist::Goal& goal) {
  json::array all;
  json::object body{{"actor", arguments.actor}};
  if (goal.to != UINT64_MAX) body["to"] = goal.to;
  if (!arguments.before.empty()) body["before"] = goal.before.to_string();
  for (;;) {
    const Result<json::object> done =
        act(arguments, "archives/seal", body, [&](Archivist& archivist) -> Result<json::object> {
          const auto sealed = archivist.seal_next(goal);
          if (!sealed) return sealed.error();
          return json::object{{"sealed", *sealed ? json::value(replay::to_json(**sealed)) : json::value(nullptr)}};
        });
    if (!done) return done.error();
    const json::value* sealed = done->if_contains("sealed");
    if (sealed == nullptr || !sealed->is_object()) return all;
    all.push_back(*sealed);
    if (arguments.format == "json") continue;
    const json::object& one = sealed->get_object();
    const std::string held = joined(one, "holds");
    fmt::print("{}: {} records, {} in {} (record {}){}\n", text_at(one, "file"),
               number_at(one, "to") - number_at(one, "from") + 1, size_text(number_at(one, "unpacked")),
               size_text(number_at(one, "bytes")), number_at(one, "seq"),
               held.empty() ? "" : "; they stay in the store: legal hold " + held);
    std::fflush(stdout);
  }
}

int seal(Arguments& arguments) {
  if (arguments.before.empty() && arguments.to_seq == 0)
    return fail({Errc::invalid, "say how far: --before TIME or --to-seq N"}), 2;
  Archivist::Goal goal;
  if (arguments.to_seq != 0) goal.to = arguments.to_seq;
  if (!arguments.before.empty()) {
    const Result<Time> before = parse_moment("--before", arguments.before);
    if (!before) return fail(before.error()), 2;
    goal.before = *before;
  }
  const Result<json::array> sealed = seal_all(arguments, goal);
  if (!sealed) return fail(sealed.error());
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(*sealed));
  else if (sealed->empty())
    fmt::print("nothing to seal: no such records that a checkpoint covers and that are not archived yet\n");
  return 0;
}

// ---- list ------------------------------------------------------------------------------------------------

void print_archive(const json::object& one) {
  const bool here = one.at("here").as_bool();
  const std::string held = joined(one, "holds");
  fmt::print("{:<36} {:<8} {:<20} {:<20} {:>9}{}\n", text_at(one, "file"), text_at(one, "state"),
             text_at(one, "first_time").substr(0, 19), text_at(one, "last_time").substr(0, 19),
             here ? size_text(number_at(one, "bytes")) : "-", held.empty() ? "" : "  held " + held);
  if (!here && text_at(one, "state") != "removed") fmt::print("  {}\n", text_at(one, "problem"));
}

int list(const Arguments& arguments) {
  const auto log = EventLog::follow(
      {.dir = std::filesystem::path(arguments.data_dir) / "events", .archives = arguments.archives});
  if (!log) return fail(log.error());
  const Result<json::object> listed = replay::list_archives(**log);
  if (!listed) return fail(listed.error());
  if (arguments.format == "json") {
    fmt::print("{}\n", json::serialize(*listed));
    return 0;
  }
  const json::array& archives = listed->at("archives").get_array();
  if (archives.empty()) fmt::print("nothing is archived\n");
  if (!archives.empty()) fmt::print("{:<36} {:<8} {:<20} {:<20} {:>9}\n", "ARCHIVE", "STATE", "FROM", "TO", "SIZE");
  for (const json::value& one : archives) print_archive(one.get_object());
  for (const json::value& value : listed->at("holds").get_array()) {
    const json::object& hold = value.get_object();
    fmt::print("legal hold {}: {}; by {}: {} (record {})\n", text_at(hold, "id"), text_at(hold, "covers"),
               text_at(hold, "actor"), text_at(hold, "reason"), number_at(hold.at("placed").get_object(), "seq"));
  }
  fmt::print("the records in the store take about {}\n", size_text(number_at(*listed, "stored_bytes")));
  return 0;
}

// ---- verify ----------------------------------------------------------------------------------------------

json::object verify_one(const std::string& path, const NoteVerifier* key, std::optional<TreeHead>* before) {
  json::object out{{"file", path}};
  json::array damage;
  const auto file = ArchiveFile::open(path);
  if (!file) {
    damage.emplace_back(file.error().message);
    before->reset();
  } else {
    const ArchiveReport report = check_archive(**file, key);
    for (const std::string& text : report.damage) damage.emplace_back(text);
    out["ledger"] = (*file)->ledger_id();
    out["from"] = (*file)->from(), out["to"] = (*file)->to();
    out["first_time"] = (*file)->first_time().to_string(), out["last_time"] = (*file)->last_time().to_string();
    out["records"] = report.records;
    out["signed_by"] = report.key_id.empty() ? json::value(nullptr) : json::value(report.key_id);
    // What one ends with is what the next begins with.
    if (*before && (*before)->size == report.before.size && !(**before == report.before))
      damage.emplace_back(path + " does not continue the archive before it");
    *before = report.sound() ? std::optional<TreeHead>(report.after) : std::nullopt;
  }
  out["sound"] = damage.empty();
  out["damage"] = std::move(damage);
  return out;
}

void print_verified(const json::object& one) {
  const bool sound = one.at("sound").get_bool();
  fmt::print("{}: {}", text_at(one, "file"), sound ? "sound" : "DAMAGED");
  if (one.contains("from"))
    fmt::print(", records {} to {} of {}{}", number_at(one, "from"), number_at(one, "to"), text_at(one, "ledger"),
               text_at(one, "signed_by").empty() ? "; its signature was not looked at (--key)"
                                                 : ", signed by " + text_at(one, "signed_by"));
  fmt::print("\n");
  for (const json::value& sentence : one.at("damage").get_array())
    fmt::print("  {}\n", printable(std::string_view(sentence.get_string()), 1000));
}

int verify(const Arguments& arguments) {
  std::optional<NoteVerifier> key;
  if (!arguments.key.empty()) {
    const Result<NoteVerifier> read = read_checkpoint_key(arguments.key);
    if (!read) return fail(read.error());
    key = *read;
  }
  bool sound = true;
  json::array all;
  std::optional<TreeHead> before;
  std::vector<std::string> files = arguments.files;
  std::sort(files.begin(), files.end(), [](const std::string& a, const std::string& b) {
    return std::filesystem::path(a).filename() < std::filesystem::path(b).filename();
  });
  for (const std::string& file : files) {
    json::object one = verify_one(file, key ? &*key : nullptr, &before);
    sound = sound && one.at("sound").get_bool();
    if (arguments.format != "json") print_verified(one);
    all.push_back(std::move(one));
  }
  if (arguments.format == "json") fmt::print("{}\n", json::serialize(all));
  return sound ? 0 : 1;
}

// ---- hold, lift, remove ----------------------------------------------------------------------------------

int print_done(const Arguments& arguments, const Result<json::object>& done, const std::string& what) {
  if (!done) return fail(done.error());
  if (arguments.format == "json")
    fmt::print("{}\n", json::serialize(*done));
  else
    fmt::print("{}: record {}\n", what, number_at(*done, "seq"));
  return 0;
}

int hold(const Arguments& arguments) {
  Archivist::HoldRequest request{
      .node = arguments.node, .from = arguments.from_seq, .to = arguments.to_seq, .since = {}, .until = {}};
  json::object body{{"actor", arguments.actor}, {"reason", arguments.reason}};
  for (const auto& [option, text, time] : {std::tuple("--since", &arguments.since, &request.since),
                                           std::tuple("--until", &arguments.until, &request.until)}) {
    if (text->empty()) continue;
    const Result<Time> parsed = parse_moment(option, *text);
    if (!parsed) return fail(parsed.error()), 2;
    *time = *parsed;
    body[option + 2] = parsed->to_string();
  }
  if (!request.node.empty()) body["node"] = request.node;
  if (request.from != 0) body["from"] = request.from;
  if (request.to != 0) body["to"] = request.to;
  const Result<json::object> done = act(arguments, "holds", body, [&](Archivist& archivist) {
    return object_of(archivist.hold(request, action_of(arguments)));
  });
  return print_done(arguments, done, done ? "legal hold " + text_at(*done, "hold") + " placed" : "");
}

int lift(const Arguments& arguments) {
  const json::object body{{"actor", arguments.actor}, {"reason", arguments.reason}};
  if (arguments.hold.find_first_not_of("0123456789abcdef") != std::string::npos)
    return fail({Errc::invalid,
                 "'" + printable(arguments.hold, 40) + "' is no id of a hold; `ledger archive list` shows them"}),
           2;
  const Result<json::object> done =
      act(arguments, "holds/" + arguments.hold + "/lift", body,
          [&](Archivist& archivist) { return object_of(archivist.lift(arguments.hold, action_of(arguments))); });
  return print_done(arguments, done, "legal hold " + arguments.hold + " lifted");
}

int remove(const Arguments& arguments) {
  const std::string name = std::filesystem::path(arguments.file).filename().string();
  const auto range = parse_archive_name(name);
  if (!range)
    return fail({Errc::invalid,
                 "'" + printable(name, 100) + "' is not the name of an archive; `ledger archive list` shows them"}),
           2;
  const json::object body{{"actor", arguments.actor}, {"reason", arguments.reason}, {"from", range->first}};
  const Result<json::object> done = act(arguments, "archives/remove", body, [&](Archivist& archivist) {
    return object_of(archivist.remove(range->first, action_of(arguments)));
  });
  return print_done(arguments, done, "removed " + name);
}

// ---- options ---------------------------------------------------------------------------------------------

using Run = int (*)(Arguments&);

CLI::App* add(CLI::App& parent, const char* name, const char* help, const std::shared_ptr<Arguments>& arguments,
              int& exit_code, Run run) {
  CLI::App* command = parent.add_subcommand(name, help);
  command->add_option("--format", arguments->format)->check(CLI::IsMember({"text", "json"}))->capture_default_str();
  command->callback([arguments, run, &exit_code] {
    if (arguments->actor.empty()) arguments->actor = default_actor();
    exit_code = run(*arguments);
  });
  return command;
}

void add_data_dir(CLI::App* command, Arguments& arguments) {
  command->add_option("--data-dir", arguments.data_dir, "The server's data directory")->capture_default_str();
}

void add_actor(CLI::App* command, Arguments& arguments, bool with_reason = true) {
  add_data_dir(command, arguments);
  if (with_reason) command->add_option("--reason", arguments.reason, "Why; becomes part of the log")->required();
  command->add_option("--actor", arguments.actor, "Who (default: you@this-host)");
}

}  // namespace

void add_archive(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("archive", "Seal old records into files; legal holds; removal");
  command->footer(kFooter);
  command->require_subcommand(1);
  auto arguments = std::make_shared<Arguments>();
  CLI::App* one =
      add(*command, "seal", "Seal old records into files and drop them from the store", arguments, exit_code, seal);
  one->add_option("--before", arguments->before, "Those stamped before this date, time, or span back from now");
  one->add_option("--to-seq", arguments->to_seq, "Those up to this record");
  add_actor(one, *arguments, false);
  one = add(*command, "list", "The archives, where they are, and the legal holds", arguments, exit_code,
            [](Arguments& a) { return list(a); });
  add_data_dir(one, *arguments);
  one->add_option("--archives", arguments->archives, kArchivesHelp);
  one = add(*command, "verify", "Check archive files; needs no log", arguments, exit_code,
            [](Arguments& a) { return verify(a); });
  one->add_option("files", arguments->files, "Archive files")->required();
  one->add_option("--key", arguments->key, "Public key of the log (cred/checkpoint.pub)");
  one = add(*command, "hold", "Let nothing of a node, a range or a time be dropped or removed", arguments,
            exit_code, [](Arguments& a) { return hold(a); });
  one->footer(kHoldFooter);
  one->add_option("--node", arguments->node, "What was recorded of this node");
  one->add_option("--from-seq", arguments->from_seq, "From this record on");
  one->add_option("--to-seq", arguments->to_seq, "Up to this record");
  one->add_option("--since", arguments->since, "What was written from this date, time or span back from now on");
  one->add_option("--until", arguments->until, "And until this one");
  add_actor(one, *arguments);
  one = add(*command, "lift", "End a legal hold", arguments, exit_code, [](Arguments& a) { return lift(a); });
  one->add_option("hold", arguments->hold, "Its id (ledger archive list)")->required();
  add_actor(one, *arguments);
  one = add(*command, "remove", "Forget an archive: the file, and what the index says of its records", arguments,
            exit_code, [](Arguments& a) { return remove(a); });
  one->footer(kRemoveFooter);
  one->add_option("file", arguments->file, "The archive, by its name")->required();
  add_actor(one, *arguments);
}

}  // namespace ledger::tools
