// `ledger import`: another server's memory of node names becomes this ledger's.

#include <fmt/format.h>

#include <boost/json.hpp>
#include <filesystem>
#include <thread>

#include "api/operator_client.h"
#include "ledger/adopt.h"
#include "ledger/credentials.h"
#include "ledger/import_read.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;

constexpr const char* kFooter =
    "node-passwd  k3s v1.17 to v1.19: <server dir>/cred/node-passwd. Names are bound to the passwords' fingerprints;\n"
    "             the clear text is never kept. Proves: which password each name was bound to.\n"
    "secrets      k3s v1.20 and later, RKE2: the node-password Secrets. Names are bound by k3s' own hash, which is\n"
    "             kept in cred/node-password-hashes and verified at the node's next registration.\n"
    "nodes        Node objects: which names the cluster has, since when. Binds nothing.\n"
    "log          a server's log: refusals, tunnels, certificates, starts. History with its doubts; binds nothing.\n\n"
    "Works beside a running server of --data-dir, and on a stopped one. The first binding of a name wins: what is\n"
    "bound here to something else is left alone and reported. The same file again changes nothing.\n\n"
    "Examples:\n"
    "  ledger import node-passwd /var/lib/rancher/k3s/server/cred/node-passwd\n"
    "  kubectl get secrets -n kube-system -o json | ledger import secrets -\n"
    "  kubectl get nodes -o json | ledger import nodes -\n"
    "  journalctl -u k3s -o json | ledger import log -\n"
    "  ledger import log /var/log/k3s.log --format json\n\n"
    "Exit status: 0 everything was used or known already, 1 something was left out (the report says what and why)\n"
    "or the import failed, 2 wrong usage.\n";

constexpr std::size_t kShown = 20;      // lines of the report as text
constexpr std::size_t kListed = 1000;   // as JSON
constexpr std::size_t kPart = 48 << 10;  // bytes sent to a server at once

struct Arguments {
  std::string data_dir = kDefaultDataDir, format = "text", file, actor;
  bool overwrite = false;
};

struct Report {
  std::string sha256;
  std::int64_t used = 0, known = 0, left_out = 0;
  std::vector<LeftOut> listed;
  Seq seq = 0;

  void leave_out(LeftOut one) {
    ++left_out;
    if (listed.size() < kListed) listed.push_back(std::move(one));
  }
  void add(ImportOutcome outcome) {
    used += outcome.used;
    known += outcome.known;
    for (LeftOut& one : outcome.left_out) leave_out(std::move(one));
  }
};

// ---- into a running server -------------------------------------------------------------------------------

class ServerImport {
 public:
  ServerImport(api::OperatorClient client, ImportKind kind, const Arguments& arguments, Report& report)
      : client_(std::move(client)), kind_(kind), arguments_(arguments), report_(report) {}

  Result<void> add(const std::vector<ImportEntry>& entries) {
    for (const ImportEntry& entry : entries) {
      lines_ += to_json_line(entry);
      lines_ += '\n';
      if (lines_.size() < kPart) continue;
      if (const Result<void> sent = send(false); !sent) return sent;
    }
    return {};
  }
  Result<void> finish() { return send(true); }

 private:
  Result<void> send(bool last) {
    json::object header = {{"actor", arguments_.actor}, {"file", report_.sha256}, {"overwrite", arguments_.overwrite}};
    if (last) {
      header["finish"] = true;
      header["used"] = report_.used + report_.known;
      header["left_out"] = report_.left_out;
    }
    const std::string path = "/ledger/v1/import/" + std::string(name_of(kind_));
    const Result<json::object> answer =
        api::object_in(client_.post(path, json::serialize(header) + "\n" + lines_));
    lines_.clear();
    if (!answer) return answer.error();
    take(*answer);
    return {};
  }
  void take(const json::object& answer) {
    const auto number = [&](const json::object& object, const char* key) -> std::int64_t {
      const json::value* found = object.if_contains(key);
      return found != nullptr && found->is_int64() ? found->get_int64() : 0;
    };
    report_.used += number(answer, "used");
    report_.known += number(answer, "known");
    if (answer.contains("seq")) report_.seq = static_cast<Seq>(number(answer, "seq"));
    const json::value* left_out = answer.if_contains("left_out");
    if (left_out == nullptr || !left_out->is_array()) return;
    for (const json::value& value : left_out->get_array()) {
      if (!value.is_object()) continue;
      const auto text = [&](const char* key) -> std::string {
        const json::value* found = value.get_object().if_contains(key);
        return found != nullptr && found->is_string() ? printable(std::string_view(found->get_string()), 500) : "";
      };
      report_.leave_out({static_cast<std::size_t>(number(value.get_object(), "line")), text("node"), text("why")});
    }
  }

  api::OperatorClient client_;
  ImportKind kind_;
  const Arguments& arguments_;
  Report& report_;
  std::string lines_;
};

// ---- both ways -------------------------------------------------------------------------------------------

using Add = std::function<Result<void>(std::vector<ImportEntry>)>;

Result<void> read_all(ImportKind kind, ImportInput& input, const std::optional<Credentials>& credentials, const Add& add,
                      Report& report) {
  ProgressLine progress("importing " + std::string(name_of(kind)));
  ImportSink sink;
  sink.entries = add;
  sink.left_out = [&](LeftOut one) { report.leave_out(std::move(one)); };
  sink.progress = std::ref(progress);
  const Fingerprinter fingerprint = [&](const Secret& password) {
    return credentials->fingerprint_of_password(password);
  };
  return read_import(kind, input, fingerprint, sink);
}

Result<std::optional<Credentials>> credentials_for(ImportKind kind, const std::filesystem::path& dir, bool log_exists) {
  if (kind != ImportKind::node_passwd) return std::optional<Credentials>();
  Result<Credentials> opened =
      Credentials::open({.data_dir = dir, .token = {}, .agent_token = {}, .log_exists = log_exists});
  if (!opened) return opened.error();
  return std::optional<Credentials>(std::move(*opened));
}

Result<void> import_into_log(Ledger& ledger, ImportKind kind, ImportInput& input, const Arguments& arguments,
                             Report& report) {
  const std::filesystem::path dir = arguments.data_dir;
  const auto credentials = credentials_for(kind, dir, ledger.log().head() > 0);
  if (!credentials) return credentials.error();
  if (const Result<void> made = ensure_private_directory(dir / "cred"); !made) return made.error();
  Result<HashStore> hashes = HashStore::open(dir);
  if (!hashes) return hashes.error();
  Importer importer(ledger, *hashes,
                    {.kind = kind, .file = report.sha256, .actor = arguments.actor, .overwrite = arguments.overwrite});
  const Add add = [&](std::vector<ImportEntry> entries) -> Result<void> {
    Result<ImportOutcome> outcome = importer.add(entries);
    if (!outcome) return outcome.error();
    report.add(std::move(*outcome));
    return {};
  };
  if (const Result<void> read = read_all(kind, input, *credentials, add, report); !read) return read;
  const Result<Committed> finished = importer.finish(report.used + report.known, report.left_out);
  if (!finished) return finished.error();
  report.seq = finished->last();
  return ledger.close();
}

Result<void> import_into_server(ImportKind kind, ImportInput& input, const Arguments& arguments, Report& report) {
  const auto credentials = credentials_for(kind, arguments.data_dir, true);
  if (!credentials) return credentials.error();
  Result<api::OperatorClient> client =
      api::OperatorClient::open({.url = {}, .data_dir = arguments.data_dir, .token_file = {}, .ca_file = {}});
  if (!client) return client.error();
  ServerImport server(std::move(*client), kind, arguments, report);
  const Add add = [&](std::vector<ImportEntry> entries) { return server.add(entries); };
  if (const Result<void> read = read_all(kind, input, *credentials, add, report); !read) return read;
  return server.finish();
}

void print_json(ImportKind kind, const Arguments& arguments, const Report& report) {
  json::array items;
  for (const LeftOut& one : report.listed)
    items.push_back(json::object{{"line", one.line}, {"node", one.node}, {"why", one.why}});
  const json::object object = {{"what", name_of(kind)},     {"file", arguments.file},         {"sha256", report.sha256},
                               {"used", report.used},       {"known", report.known},          {"left_out", report.left_out},
                               {"seq", report.seq},         {"items", std::move(items)}};
  fmt::print("{}\n", json::serialize(object));
}

void print_text(ImportKind kind, const Report& report) {
  const bool items = kind == ImportKind::secrets || kind == ImportKind::nodes;
  fmt::print("{}: {} used, {} known already, {} left out (record {}, file {})\n", name_of(kind), report.used,
             report.known, report.left_out, report.seq, report.sha256.substr(0, 12));
  for (std::size_t i = 0; i < report.listed.size() && i < kShown; ++i) {
    const LeftOut& one = report.listed[i];
    fmt::print("  {} {}{}: {}\n", items ? "item" : "line", one.line, one.node.empty() ? "" : " (" + one.node + ")",
               one.why);
  }
  if (report.left_out > static_cast<std::int64_t>(kShown))
    fmt::print("  and {} more; --format json lists the first 1000\n",
               report.left_out - static_cast<std::int64_t>(kShown));
}

int run(ImportKind kind, Arguments& arguments) {
  // A log before there is a CA would look like a lost CA to the server's first start.
  std::error_code ignored;
  if (!std::filesystem::exists(std::filesystem::path(arguments.data_dir) / "tls" / "client-ca.crt", ignored))
    return fail({Errc::not_found, "there is no server in " + printable(arguments.data_dir, 200) +
                                      " yet; start `ledger serve` there once, then import (or name it with --data-dir)"});
  if (arguments.actor.empty()) arguments.actor = default_actor();
  arguments.actor = printable(arguments.actor, 200);
  Result<ImportInput> input = ImportInput::open(arguments.file);
  if (!input) return fail(input.error());
  Report report;
  report.sha256 = input->sha256();
  Ledger::Options options;
  options.log.dir = std::filesystem::path(arguments.data_dir) / "events";
  options.server_name = "command-line";
  const Result<std::unique_ptr<Ledger>> ledger = Ledger::open(std::move(options));
  const bool served = !ledger && ledger.error().code == Errc::locked;
  if (!ledger && !served) return fail(ledger.error());
  if (!served)  // with the log held, as `ledger serve` does
    if (const Result<void> whole = check_adoption(arguments.data_dir); !whole) return fail(whole.error());
  const Result<void> imported = served ? import_into_server(kind, *input, arguments, report)
                                       : import_into_log(**ledger, kind, *input, arguments, report);
  if (!imported) {
    if (report.used > 0)
      fmt::print(stderr, "ledger: {} entries were imported before; the same import again goes on from there\n",
                 report.used);
    return fail(imported.error());
  }
  if (arguments.format == "json")
    print_json(kind, arguments, report);
  else
    print_text(kind, report);
  return report.left_out == 0 ? 0 : 1;
}

}  // namespace

void add_import(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("import", "Take over what a k3s server knows about its nodes");
  command->footer(kFooter);
  command->require_subcommand(1);
  const auto add = [&](ImportKind kind, const char* help) {
    CLI::App* what = command->add_subcommand(std::string(name_of(kind)), help);
    what->footer(kFooter);
    auto arguments = std::make_shared<Arguments>();
    what->add_option("file", arguments->file, "File to read; - is standard input (at most 256 MiB)")->required();
    what->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
    if (kind == ImportKind::node_passwd || kind == ImportKind::secrets)
      what->add_flag("--overwrite", arguments->overwrite,
                     "Replace what a name is bound to here (binding_changed by import); never a held name");
    what->add_option("--actor", arguments->actor, "Who (default: you@this-host)");
    what->add_option("--format", arguments->format)->check(CLI::IsMember({"text", "json"}))->capture_default_str();
    what->callback([arguments, kind, &exit_code] { exit_code = run(kind, *arguments); });
  };
  add(ImportKind::node_passwd, "cred/node-passwd of k3s v1.17 to v1.19 (clear text becomes fingerprints)");
  add(ImportKind::secrets, "Node-password Secrets: kubectl get secrets -n kube-system -o json");
  add(ImportKind::nodes, "Node objects: kubectl get nodes -o json");
  add(ImportKind::log, "A server's log: journalctl -o json, or text");
}

}  // namespace ledger::tools
