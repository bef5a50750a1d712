#include "ledger/adopt.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "ledger/credentials.h"
#include "ledger/ledger.h"

namespace ledger {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMaxNames = 256;  // strangers could add names to a k3s listener's certificate
constexpr int kReadings = 20;
constexpr std::chrono::milliseconds kBetweenReadings{25};
constexpr const char* kMarker = "adoption-unfinished";
constexpr const char* kNamesFile = "tls/listener-names";

// What is read of a server directory.
constexpr const char* kSourceFiles[] = {"tls/client-ca.crt",
                                        "tls/client-ca.key",
                                        "tls/server-ca.crt",
                                        "tls/server-ca.key",
                                        "tls/request-header-ca.crt",
                                        "tls/request-header-ca.key",
                                        "tls/service.key",
                                        "tls/dynamic-cert.json",
                                        "tls/serving-kube-apiserver.crt",
                                        "cred/passwd",
                                        "cred/ipsec.psk",
                                        "token",
                                        "node-token",
                                        "agent-token"};
// Of these, what goes over byte for byte. A data directory in use must have the first group exactly.
constexpr const char* kIdentity[] = {"tls/client-ca.crt", "tls/client-ca.key", "tls/server-ca.crt",
                                     "tls/server-ca.key", "cred/passwd",       "cred/ipsec.psk"};
constexpr const char* kForLater[] = {"tls/request-header-ca.crt", "tls/request-header-ca.key", "tls/service.key"};

std::string quoted(const fs::path& path) { return "'" + printable(path.string(), 400) + "'"; }

unsigned mode_for(std::string_view name) { return name.ends_with(".crt") || name == kNamesFile ? 0644 : 0600; }

std::string joined(const std::vector<std::string>& words, const char* between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

bool is_below(const fs::path& path, const fs::path& directory) {
  return std::mismatch(directory.begin(), directory.end(), path.begin(), path.end()).first == directory.end();
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// ---- The source ------------------------------------------------------------------------------------------

// Where a file of the server directory really is. Errc::not_found when there is none.
Result<fs::path> follow_inside(const fs::path& directory, const std::string& name) {
  const fs::path path = directory / name;
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (status.type() == fs::file_type::not_found) return Error{Errc::not_found, quoted(path) + " does not exist"};
  if (error) return Error{Errc::io, "cannot read " + quoted(path) + ": " + error.message()};
  const fs::path real = fs::canonical(path, error);
  if (!error && is_below(real, directory)) return real;
  // k3s links node-token to the absolute path of the live token; in a copy its own is meant.
  const bool is_link = status.type() == fs::file_type::symlink;
  std::error_code ignored;
  const fs::path target = is_link ? fs::read_symlink(path, ignored) : real;
  if (is_link && name.ends_with("-token") && target.is_absolute() && target.filename() == "token")
    return follow_inside(directory, "token");
  if (error && !is_link) return Error{Errc::io, "cannot read " + quoted(path) + ": " + error.message()};
  return Error{Errc::invalid, quoted(path) + " leads to " + quoted(target) + ", outside of the server directory" +
                                  " (or to nothing), and is not followed; put a copy of the file in its place"};
}

using Reading = std::map<std::string, Result<Secret>, std::less<>>;

Reading read_all(const fs::path& directory) {
  Reading reading;
  for (const char* name : kSourceFiles) {
    const Result<fs::path> path = follow_inside(directory, name);
    reading.emplace(name, path ? read_foreign_secret(*path) : Result<Secret>(path.error()));
  }
  return reading;
}

bool same(const Reading& a, const Reading& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& one, const auto& other) {
    const Result<Secret>&left = one.second, &right = other.second;
    if (!left || !right) return !left && !right && left.error().message == right.error().message;
    return left->reveal() == right->reveal();
  });
}

bool has_empty_file(const Reading& reading) {
  return std::any_of(reading.begin(), reading.end(),
                     [](const auto& one) { return one.second && one.second->empty(); });
}

// Files that belong together, from a server that may be running: it replaces some, and truncates others before it
// writes them in one go. So what counts is what two readings agree on, none of them of an empty file, unless
// it stays empty.
Result<Reading> read_settled(const fs::path& directory) {
  Reading before = read_all(directory);
  for (int left = kReadings; left > 0; --left) {
    std::this_thread::sleep_for(kBetweenReadings);
    Reading now = read_all(directory);
    if (same(before, now) && (left == 1 || !has_empty_file(now))) return now;
    before = std::move(now);
  }
  return Error{Errc::unavailable, "the files in " + quoted(directory) +
                                      " change all the time; run this again when the server there has settled"};
}

// The names that k3s' listener certificate has collected. Not read as JSON: the file holds the certificate's
// private key too, which is not to be spread over memory. Its keys are listener.cattle.io/cn-<name or digest>.
std::vector<std::string> names_in_dynamic_cert(std::string_view text) {
  std::vector<std::string> names;
  constexpr std::string_view kKey = "\"listener.cattle.io/cn-";
  for (std::size_t at = 0; (at = text.find(kKey, at)) != std::string_view::npos;) {
    at = text.find('"', at + kKey.size());
    const std::size_t colon = at == std::string_view::npos ? at : text.find_first_not_of(" \t\r\n", at + 1);
    if (colon == std::string_view::npos || text[colon] != ':') break;
    const std::size_t begin = text.find('"', colon);
    const std::size_t end = begin == std::string_view::npos ? begin : text.find('"', begin + 1);
    if (end == std::string_view::npos) break;
    names.emplace_back(text.substr(begin + 1, end - begin - 1));
    at = end;
  }
  return names;
}

// One server directory, judged. Fills the report's problems, and keeps the bytes to be written.
class Source {
 public:
  static Result<Source> read(const AdoptOptions& options, AdoptReport* report) {
    Source source;
    if (!source.find_directory(options.server_dir, report)) return source;
    if (!source.keeps_apart(options.data_dir, report)) return source;
    Result<Reading> reading = read_settled(report->server_dir);
    if (!reading) return reading.error();
    source.reading_ = std::move(*reading);
    source.judge_authority("client-ca", options.now, &report->client_ca, report);
    source.judge_authority("server-ca", options.now, &report->server_ca, report);
    source.judge_passwords(report);
    for (const char* name : {"token", "node-token", "agent-token"}) source.judge_token(name, report);
    source.judge_psk(report);
    source.note_the_rest(report);
    source.collect_names(report);
    source.tell_program(report);
    for (const auto& [name, bytes] : source.files_) report->files.push_back(name);
    return source;
  }

  // Name below the data directory -> bytes.
  const std::map<std::string, Secret>& files() const { return files_; }

 private:
  const Result<Secret>& file(std::string_view name) const { return reading_.find(name)->second; }
  bool has(std::string_view name) const { return file(name).has_value(); }
  void take(const char* name) { files_.emplace(name, file(name)->clone()); }

  // False: there is nothing to look into.
  static bool find_directory(const fs::path& given, AdoptReport* report) {
    std::error_code error;
    fs::path directory = fs::canonical(given, error);
    if (error || !fs::is_directory(directory, error)) {
      report->problems.push_back(
          "cannot read the server directory " + quoted(given) + ": " +
          (error ? error.message() : "not a directory") +
          "; it is /var/lib/rancher/k3s/server or /var/lib/rancher/rke2/server on a server, " + "and root's");
      return false;
    }
    const auto is_server = [](const fs::path& dir) { return is_there(dir / "tls") || is_there(dir / "cred"); };
    if (!is_server(directory) && is_server(directory / "server"))
      directory = fs::canonical(directory / "server", error);
    report->server_dir = directory;
    const std::string what = quoted(directory) + " is ";
    if (is_there(directory / "cred" / "fingerprint.key")) {
      report->problems.push_back(what + "the data directory of a ledger, not a k3s server's; " +
                                 "start it with `ledger serve --data-dir`");
    } else if (is_server(directory)) {
      return true;
    } else if (is_there(directory / "client-kubelet.crt") || is_there(directory / "kubelet.kubeconfig") ||
               is_there(directory / "agent" / "client-kubelet.crt")) {
      report->problems.push_back(what +
                                 "an agent's directory, which holds no CA keys; name the directory `server` " +
                                 "of a machine that runs k3s server or rke2-server");
    } else if (is_there(directory / "server-ca.key")) {
      report->problems.push_back(what + "the directory tls of a server; name the directory above it");
    } else {
      report->problems.push_back(what + "no k3s or RKE2 server directory: it has neither tls nor cred; it is " +
                                 "/var/lib/rancher/k3s/server or /var/lib/rancher/rke2/server on a server");
    }
    return false;
  }

  // The source is never written: not even by way of a data directory inside it.
  static bool keeps_apart(const fs::path& data_dir, AdoptReport* report) {
    std::error_code error;
    const fs::path real = fs::weakly_canonical(data_dir, error);
    if (error || !is_below(real, report->server_dir)) return true;
    report->problems.push_back("the data directory " + quoted(data_dir) +
                               " is inside of the server directory, which " +
                               "is not written; name another with --data-dir");
    return false;
  }

  void judge_authority(const std::string& stem, Time now, AuthorityReport* authority, AdoptReport* report) {
    const std::string certificate = "tls/" + stem + ".crt", key = "tls/" + stem + ".key";
    const fs::path path = report->server_dir / certificate;
    std::vector<std::string>& problems = report->problems;
    if (!has(certificate)) problems.push_back(missing(certificate, "every agent trusts the old CA only"));
    if (!has(key))
      problems.push_back(missing(key,
                                 "without it no certificate can be signed that agents trust; take the files "
                                 "from the server itself, as root"));
    if (!has(certificate)) return;
    *authority =
        inspect_authority(path, std::string(file(certificate)->reveal()), has(key) ? &*file(key) : nullptr, now);
    problems.insert(problems.end(), authority->faults.begin(), authority->faults.end());
    if (authority->certificates > 0 && now < authority->not_before)
      problems.push_back(quoted(path) + " is not valid before " + authority->not_before.to_string() +
                         "; correct this machine's clock (now " + now.to_string() + ")");
    take(certificate.c_str());
    if (has(key)) take(key.c_str());
  }

  std::string missing(const std::string& name, const char* why) const {
    return file(name).error().message + ": " + why;
  }

  void judge_passwords(AdoptReport* report) {
    const fs::path path = report->server_dir / "cred/passwd";
    if (!has("cred/passwd")) {
      report->problems.push_back(missing("cred/passwd", "it holds the passwords of the tokens"));
      return;
    }
    Result<JoinPasswords> passwords = read_join_passwords(*file("cred/passwd"), path);
    if (!passwords) {
      report->problems.push_back(passwords.error().message);
      return;
    }
    for (const char* user : {"node", "server"})
      if ((user == std::string_view("node") ? passwords->node : passwords->server).empty())
        report->problems.push_back(quoted(path) + " has no line for user `" + user +
                                   "`: a token would get a new password; restore the file as the server wrote it");
    take("cred/passwd");
    passwords_ = std::move(*passwords);
    report->separate_agent_token = passwords_->node.reveal() != passwords_->server.reveal();
  }

  void judge_token(const std::string& name, AdoptReport* report) const {
    const fs::path path = report->server_dir / name;
    if (!has(name)) {
      if (file(name).error().code != Errc::not_found) report->problems.push_back(file(name).error().message);
      return;
    }
    const Result<JoinToken> token = JoinToken::parse(trim(file(name)->reveal()));
    if (!token) {
      report->problems.push_back(quoted(path) + ": " + token.error().message);
      return;
    }
    const AuthorityReport& ca = report->server_ca;
    if (!token->ca_hash.empty() && ca.certificates > 0 && token->ca_hash != ca.ca_hash &&
        token->ca_hash != ca.raw_ca_hash)
      report->problems.push_back(
          quoted(path) + " has the CA hash " + token->ca_hash.substr(0, 12) + "..., but tls/server-ca.crt has " +
          ca.ca_hash.substr(0, 12) +
          "...: the CA was changed, and the hash in every token would no longer fit; take token " +
          "and tls/ from the same server at the same time");
    if (!passwords_ || fits(*token)) return;
    report->problems.push_back(
        quoted(path) + " has another password than cred/passwd has for its user; take both from " +
        "the same server at the same time, or restart the server, which writes the token anew");
  }

  bool fits(const JoinToken& token) const {
    const auto is = [&](const Secret& password) { return token.password.reveal() == password.reveal(); };
    return (token.user != "node" && is(passwords_->server)) || (token.user != "server" && is(passwords_->node));
  }

  void judge_psk(AdoptReport* report) {
    const Result<Secret>& psk = file("cred/ipsec.psk");
    if (psk) {
      const std::string_view digits = trim(psk->reveal());
      if (digits.size() < 64 || digits.size() % 2 != 0 ||
          digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos)
        report->problems.push_back(quoted(report->server_dir / "cred/ipsec.psk") +
                                   " does not hold the hex digits of a " + "key; restore it from a backup");
      else
        take("cred/ipsec.psk");
    } else if (psk.error().code == Errc::not_found) {
      report->notes.push_back(
          "there is no cred/ipsec.psk: agents get a new key (matters to flannel's ipsec backend only)");
    } else {
      report->problems.push_back(psk.error().message);
    }
  }

  void note_the_rest(AdoptReport* report) {
    std::vector<std::string> left_out;
    for (const char* name : kForLater) {
      if (has(name))
        take(name);
      else
        left_out.push_back(name);
    }
    if (!left_out.empty())
      report->notes.push_back("not there, and needed only in front of a running server (ledger serve --upstream): " +
                              joined(left_out, ", "));
    if (!has("token"))
      report->notes.push_back("there is no token file to compare with cred/passwd; it is made anew");
    report->has_node_passwd = is_there(report->server_dir / "cred" / "node-passwd");
    report->token_hash = report->server_ca.ca_hash;
    if (has("token"))
      if (const auto token = JoinToken::parse(trim(file("token")->reveal())); token && !token->ca_hash.empty())
        report->token_hash = token->ca_hash;
    if (report->server_ca.ca_hash != report->server_ca.raw_ca_hash)
      report->notes.push_back(
          "tls/server-ca.crt is a bundle, whose hash agents before v1.26.2 make of the file's bytes (" +
          report->server_ca.raw_ca_hash.substr(0, 12) + "...) and later ones of the root (" +
          report->server_ca.ca_hash.substr(0, 12) + "...); the token files keep the hash they have (" +
          report->token_hash.substr(0, 12) + "...)");
  }

  void collect_names(AdoptReport* report) {
    std::vector<std::string> found;
    if (has("tls/dynamic-cert.json")) found = names_in_dynamic_cert(file("tls/dynamic-cert.json")->reveal());
    if (has("tls/serving-kube-apiserver.crt"))
      for (std::string& name : names_in_certificate(file("tls/serving-kube-apiserver.crt")->reveal()))
        found.push_back(std::move(name));
    std::size_t unusable = 0;
    for (const std::string& name : found) {
      if (!is_listener_name(name))
        ++unusable;
      else if (std::find(report->names.begin(), report->names.end(), name) == report->names.end())
        report->names.push_back(name);
    }
    if (report->names.size() > kMaxNames) {
      unusable += report->names.size() - kMaxNames;
      report->names.resize(kMaxNames);
    }
    if (unusable > 0)
      report->notes.push_back(
          std::to_string(unusable) + " names of the listener's certificate are not taken: no DNS names or " +
          "addresses, or more than " + std::to_string(kMaxNames) + "; add what is needed with --tls-san");
    if (report->names.empty())
      report->notes.push_back(
          "no names of the listener were found; name with --tls-san what agents have in --server");
    else
      files_.emplace(kNamesFile, Secret(joined(report->names, "\n") + "\n"));
  }

  void tell_program(AdoptReport* report) const {
    const auto says = [&](const std::string& program) {
      if (report->server_ca.common_name.starts_with(program + "-")) return true;
      return has("cred/passwd") &&
             file("cred/passwd")->reveal().find(program + ":server") != std::string_view::npos;
    };
    report->program = says("rke2") ? "rke2" : says("k3s") ? "k3s" : "";
  }

  Reading reading_;
  std::map<std::string, Secret> files_;
  std::optional<JoinPasswords> passwords_;
};

// ---- The target ------------------------------------------------------------------------------------------

// What stands in a data directory, against what would be written there.
struct Target {
  std::vector<std::string> different, absent;  // of kIdentity
};

Result<Target> compare(const fs::path& data_dir, const std::map<std::string, Secret>& files) {
  Target target;
  for (const char* name : kIdentity) {
    const auto wanted = files.find(name);
    if (wanted == files.end()) continue;
    const Result<Secret> there = read_foreign_secret(data_dir / name);
    if (!there && there.error().code != Errc::not_found) return there.error();
    if (!there)
      target.absent.push_back(name);
    else if (there->reveal() != wanted->second.reveal())
      target.different.push_back(name);
  }
  return target;
}

// Says by report->outcome whether there is something to do; a directory that cannot be used is a problem.
Result<void> judge_target(const fs::path& data_dir, Seq head, const std::map<std::string, Secret>& files,
                          AdoptReport* report) {
  const Result<Target> target = compare(data_dir, files);
  if (!target) return target.error();
  const std::string what = "the data directory " + quoted(data_dir) + " ";
  const bool unfinished = is_there(data_dir / kMarker);
  if (!unfinished && !target->different.empty())
    report->problems.push_back(what + "is in use: other contents in " + joined(target->different, ", ") +
                               "; name a fresh one with --data-dir");
  else if (!unfinished && head > 0 && !target->absent.empty())
    report->problems.push_back(what + "has a log, but not " + joined(target->absent, ", ") +
                               "; name a fresh one with --data-dir");
  report->outcome = !report->problems.empty() ? AdoptOutcome::refused
                    : head > 0 && !unfinished ? AdoptOutcome::already
                                              : AdoptOutcome::ready;
  return {};
}

// The last seq of the log of a data directory that nobody holds for us; 0 without a log. One that cannot be read may be
// half made by an interrupted try: whoever opens it for writing repairs it or says what is wrong.
Seq head_of(const fs::path& data_dir) {
  if (!is_there(data_dir / "events" / "CURRENT")) return 0;
  const Result<std::unique_ptr<EventLog>> log = EventLog::follow({.dir = data_dir / "events"});
  return log ? (*log)->head() : 0;
}

std::string note_of(const AdoptReport& report) {
  const std::string program = report.program.empty() ? "k3s or RKE2" : report.program;
  return "adopted from the " + program + " server directory " + printable(report.server_dir.string(), 400) +
         "; server CA " + printable(report.server_ca.common_name, 100) + " SHA-256 " + report.server_ca.sha256 +
         ", client CA " + printable(report.client_ca.common_name, 100) + " SHA-256 " + report.client_ca.sha256;
}

Result<void> write_files(const fs::path& data_dir, const std::map<std::string, Secret>& files,
                         const std::string& token_hash) {
  for (const char* name : {"tls", "cred"})
    if (const auto made = ensure_private_directory(data_dir / name); !made) return made.error();
  for (const auto& [name, bytes] : files)
    if (const auto written = write_file(data_dir / name, bytes.reveal(), mode_for(name)); !written)
      return written.error();
  // Our own secrets, which a server that finds a log expects.
  const Result<Credentials> credentials =
      Credentials::open({.data_dir = data_dir, .token = {}, .agent_token = {}, .log_exists = false});
  if (!credentials) return credentials.error();
  return credentials->write_token_files(token_hash);
}

Result<Seq> record_adoption(Ledger& ledger, const AdoptReport& report) {
  Record record;
  record.event = EpochStarted{.cause = "imported", .head_before = 0, .head_after = 0};
  record.note = note_of(report);
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  const Result<Committed> committed = ledger.append_and_wait(std::move(proposal));
  if (!committed) return committed.error();
  return committed->last();
}

// The record of an interrupted try, when it was of exactly this.
Seq recorded_before(const Ledger& ledger, const AdoptReport& report) {
  const Seq head = ledger.log().head();
  if (head == 0) return 0;
  const Result<Record> last = ledger.log().read(head);
  return last && as<EpochStarted>(*last) != nullptr && last->note == note_of(report) ? head : 0;
}

// The order is the promise of the header: lock, marker, files, log, and the marker's end.
Result<void> move_in(const fs::path& data_dir, const Source& source, AdoptReport* report) {
  if (!is_there(data_dir))
    if (const auto made = ensure_private_directory(data_dir); !made) return made.error();
  Ledger::Options options;
  options.log.dir = data_dir / "events";
  options.server_name = "command-line";
  Result<std::unique_ptr<Ledger>> ledger = Ledger::open(std::move(options));
  if (!ledger) return ledger.error();
  // Somebody may have been here before we held the lock.
  if (const auto judged = judge_target(data_dir, (*ledger)->log().head(), source.files(), report); !judged)
    return judged.error();
  if (report->outcome != AdoptOutcome::ready) return {};
  const fs::path marker = data_dir / kMarker;
  const std::string text = "`ledger adopt` was interrupted here. Run it again.\n";
  if (const auto written = write_file(marker, text, 0600); !written) return written.error();
  if (const auto written = write_files(data_dir, source.files(), report->token_hash); !written)
    return written.error();
  report->record = recorded_before(**ledger, *report);
  if (report->record == 0) {
    const Result<Seq> recorded = record_adoption(**ledger, *report);
    if (!recorded) return recorded.error();
    report->record = *recorded;
  }
  if (const Result<void> closed = (*ledger)->close(); !closed) return closed.error();
  if (const auto removed = remove_file(marker); !removed) return removed.error();
  report->outcome = AdoptOutcome::adopted;
  return {};
}

// The listener of a living server goes on to collect names. What an operator wrote into the file stays.
Result<void> add_names(const AdoptOptions& options, AdoptReport* report) {
  Result<std::vector<std::string>> names = adopted_listener_names(options.data_dir);
  if (!names) return names.error();
  for (const std::string& name : report->names) {
    if (names->size() >= kMaxNames) break;
    if (std::find(names->begin(), names->end(), name) != names->end()) continue;
    names->push_back(name);
    report->new_names.push_back(name);
  }
  if (report->new_names.empty() || options.check) return {};
  return write_file(options.data_dir / kNamesFile, joined(*names, "\n") + "\n", mode_for(kNamesFile));
}

}  // namespace

std::string_view name_of(AdoptOutcome outcome) {
  switch (outcome) {
    case AdoptOutcome::refused: return "refused";
    case AdoptOutcome::ready: return "ready";
    case AdoptOutcome::adopted: return "adopted";
    case AdoptOutcome::already: return "already";
  }
  fatal("an AdoptOutcome without a name");
}

Result<AdoptReport> adopt(const AdoptOptions& options) {
  AdoptReport report;
  const Result<Source> source = Source::read(options, &report);
  if (!source) return source.error();
  if (const auto judged = judge_target(options.data_dir, head_of(options.data_dir), source->files(), &report); !judged)
    return judged.error();
  if (report.outcome == AdoptOutcome::ready && !options.check)
    if (const auto moved = move_in(options.data_dir, *source, &report); !moved) return moved.error();
  if (report.outcome == AdoptOutcome::already)
    if (const auto added = add_names(options, &report); !added) return added.error();
  return report;
}

Result<void> check_adoption(const fs::path& data_dir) {
  if (!is_there(data_dir / kMarker)) return {};
  return Error{Errc::invalid, "an adoption into " + quoted(data_dir) +
                                  " was interrupted; run `ledger adopt` again with the same directories"};
}

Result<std::vector<std::string>> adopted_listener_names(const fs::path& data_dir) {
  const fs::path path = data_dir / kNamesFile;
  std::vector<std::string> names;
  const Result<std::string> text = read_file(path);
  if (!text && text.error().code == Errc::not_found) return names;
  if (!text) return text.error();
  std::string_view rest = *text;
  for (int line = 1; !rest.empty(); ++line) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    std::string name(trim(rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (name.empty()) continue;
    if (!is_listener_name(name))
      return Error{Errc::invalid, quoted(path) + ": line " + std::to_string(line) +
                                      " is neither a DNS name nor an IP address; correct it or take it out"};
    names.push_back(std::move(name));
  }
  return names;
}

std::string token_hash_for(const fs::path& data_dir, const Issuer& issuer) {
  const Result<Secret> text = read_foreign_secret(data_dir / "token", 8192);
  if (!text) return issuer.ca_hash();
  const Result<JoinToken> token = JoinToken::parse(trim(text->reveal()));
  return token && token->ca_hash == issuer.raw_ca_hash() ? issuer.raw_ca_hash() : issuer.ca_hash();
}

}  // namespace ledger
