#include "ledger/import_log.h"

#include <algorithm>
#include <charconv>

#include "ledger/journal.h"

namespace ledger {

namespace {

constexpr std::int64_t kWindow_us = 120'000'000;

// ---- messages --------------------------------------------------------------------------------------------

LogFinding found(Event event, std::string node = {}, std::string doubt = {}) {
  LogFinding finding;
  finding.record.emplace();
  finding.record->event = std::move(event);
  finding.record->node = std::move(node);
  finding.doubt = std::move(doubt);
  return finding;
}

LogFinding not_used(std::string why) {
  LogFinding finding;
  finding.left_out = std::move(why);
  return finding;
}

// For a line that names its node: the finding, or why there is none.
LogFinding about_node(std::string_view name, Event event, std::string doubt = {}) {
  const Result<NodeName> node = NodeName::parse(trim(name));
  if (!node) return not_used("names a node that can be none: '" + printable(name, 60) + "'");
  return found(std::move(event), node->str(), std::move(doubt));
}

constexpr const char* kPasswordDoubt = "which password was presented, and which was bound, the log does not say";

Event rejected(std::int64_t status, const char* reason) { return RequestRejected{.status = status, .reason = reason}; }

// protocol: what the two kubelet endpoints say when they refuse. `status` 0: the line does not tell it.
LogFinding read_refusal(std::string_view text, std::int64_t status) {
  const Event mismatch = PasswordRejected{.fingerprint = {}, .bound = {}, .status = 403};
  if (const auto node = between(text, "Node password validation failed for '", "', using passwd file"))
    return about_node(*node, mismatch, kPasswordDoubt);
  if (take_prefix(text, "unable to verify hash for node '")) {
    const auto end = text.find("': ");
    if (end == std::string_view::npos) return {};
    const std::string_view why = text.substr(end + 3);
    if (why.starts_with("hash does not match")) return about_node(text.substr(0, end), mismatch, kPasswordDoubt);
    return about_node(text.substr(0, end), rejected(403, "store_unavailable"), printable(why, 200));
  }
  if (take_prefix(text, "unable to verify password for node ")) {
    const auto end = text.find(": ");
    if (end == std::string_view::npos) return {};
    const std::string_view why = text.substr(end + 2);
    if (why.starts_with("hash does not match")) return about_node(text.substr(0, end), mismatch, kPasswordDoubt);
    return about_node(text.substr(0, end), rejected(403, "store_unavailable"),
                      "k3s answered 403, and it was no mismatch: " + printable(why, 200));
  }
  if (take_prefix(text, "unable to locate hash data for node secret '")) {
    for (const std::string_view suffix : {".node-password.k3s'", ".node-password.rke2'"})
      if (const auto end = text.find(suffix); end != std::string_view::npos)
        return about_node(text.substr(0, end), rejected(403, "store_unavailable"),
                          "k3s answered 403, and it was no mismatch: its Secret held no hash");
    return not_used("names a Secret that is no node's");
  }
  if (text.starts_with("node name not set")) return found(rejected(status, "node_name_missing"));
  if (text.starts_with("node password not set"))
    return found(rejected(status, "node_password_missing"), {}, "which node asked, the log does not say");
  if (text.starts_with("header node name does not match auth node name"))
    return found(rejected(400, "node_name_mismatch"), {}, "which node asked, the log does not say");
  if (take_prefix(text, "unable to verify node identity: nodes \""))
    return about_node(text.substr(0, text.find('"')), rejected(401, "node_unknown"));
  return {};
}

// "10.0.0.5:41234: text": the peer, and the text in `rest`.
std::string take_peer(std::string_view& rest) {
  const auto end = rest.find(": ");
  if (end == std::string_view::npos || end > 60) return {};
  const std::string_view peer = rest.substr(0, end);
  if (peer.find_first_not_of("0123456789abcdefABCDEF.:[]%") != std::string_view::npos) return {};
  rest.remove_prefix(end + 2);
  return std::string(peer);
}

// "Sending HTTP 403 response to 10.0.0.5:41234: unable to ...", with "HTTP/1.1" in the newest releases.
LogFinding read_response(std::string_view message) {
  const auto code = between(message, " ", " response to ");
  std::int64_t status = 0;
  if (!code || code->size() < 3) return {};
  const std::string_view digits = code->substr(code->size() - 3);
  std::from_chars(digits.data(), digits.data() + digits.size(), status);
  std::string_view rest = message.substr(message.find(" response to ") + 13);
  std::string peer = take_peer(rest);
  LogFinding finding = read_refusal(rest, status);
  if (finding.record) finding.record->source = std::move(peer);
  return finding;
}

// protocol 10.4: "invalid username/password combination", "x509: certificate signed by unknown authority", ...
LogFinding read_authentication(std::string_view rest, std::string peer) {
  TokenRejected event{.status = 401, .reason = {}, .token = {}};
  if (rest.find("invalid username/password") != std::string_view::npos) event.reason = "wrong_secret";
  if (rest.find("signed by unknown authority") != std::string_view::npos) event.reason = "unknown_principal";
  if (rest.find("has expired") != std::string_view::npos) event.reason = "expired";
  LogFinding finding = found(std::move(event), {}, "k3s said: " + printable(rest, 160));
  finding.record->source = std::move(peer);
  return finding;
}

// Go prints "2020-02-04 00:00:00 +0000 UTC".
std::optional<Time> go_time(std::string_view text) {
  constexpr std::string_view kUtc = " +0000 UTC";
  const auto zone = text.find(kUtc);
  if (zone == std::string_view::npos || zone < 19) return std::nullopt;
  std::string iso(text.substr(0, zone));
  iso[10] = 'T';
  const Result<Time> time = Time::parse(iso + "Z");
  return time ? std::optional<Time>(*time) : std::nullopt;
}

// Names that the server CA signs for and that are no node's.
bool is_servers_own(std::string_view name) {
  for (const std::string_view own : {"k3s", "rke2", "kube-apiserver", "kube-scheduler", "kube-controller-manager",
                                     "cloud-controller-manager", "kubernetes"})
    if (name == own) return true;
  return name.starts_with("etcd") || name.starts_with("system:") || name.starts_with("k3s-") ||
         name.starts_with("rke2-") || name.find('@') != std::string_view::npos;
}

// "certificate CN=system:node:web-1,O=system:nodes signed by CN=k3s-client-ca@1580774400: notBefore=... notAfter=..."
LogFinding read_certificate(std::string_view message) {
  const auto subject = between(message, "certificate ", " signed by ");
  const auto signer = between(message, " signed by CN=", ": notBefore=");
  if (!subject || !signer || !subject->starts_with("CN=")) return {};
  const std::string_view name = subject->substr(3, subject->find(',') == std::string_view::npos
                                                       ? std::string_view::npos
                                                       : subject->find(',') - 3);
  CertificateIssued event;
  event.subject = printable(*subject, 300);
  if (const auto text = between(message, "notBefore=", " notAfter=")) event.not_before = go_time(*text);
  if (const auto end = message.find(" notAfter="); end != std::string_view::npos)
    event.not_after = go_time(message.substr(end + 10));
  constexpr const char* kDoubt = "its serial and its key are not known";
  if (name.starts_with("system:node:") && subject->find("O=system:nodes") != std::string_view::npos) {
    event.purpose = "client-kubelet";
    return about_node(name.substr(12), std::move(event), kDoubt);
  }
  if (signer->find("server-ca") == std::string_view::npos || is_servers_own(name) ||
      subject->find(',') != std::string_view::npos || !NodeName::parse(name))
    return {};
  event.purpose = "serving-kubelet";
  return about_node(name, std::move(event), kDoubt);
}

LogFinding read_tls(std::string_view message, std::size_t at) {
  std::string_view rest = message.substr(at + std::string_view("http: TLS handshake error from ").size());
  std::string peer = take_peer(rest);
  const auto alert = rest.find("tls: ");
  if (peer.empty() || alert == std::string_view::npos) return {};
  std::string name = printable(trim(rest.substr(alert + 5)), 60);
  std::replace(name.begin(), name.end(), ' ', '_');
  LogFinding finding = found(TlsFailed{.alert = std::move(name), .trust_probe = {}});
  finding.record->source = std::move(peer);
  return finding;
}

LogFinding read_start(std::string_view message) {
  const auto version = between(message, "Starting ", " (");
  if (!version) return {};
  std::string_view text = *version;
  for (const std::string_view program : {"k3s ", "rke2 "})
    if (take_prefix(text, program) && take_prefix(text, "v"))
      return found(ServerStarted{.version = "v" + printable(text, 60), .client_ca = {}, .server_ca = {}, .ledger = {},
                                 .clean = {}});
  return {};  // an agent's start
}

LogFinding read_sweep(std::string_view name) {
  for (const std::string_view suffix : {".node-password.k3s", ".node-password.rke2"})
    if (const auto end = name.find(suffix); end != std::string_view::npos)
      return about_node(name.substr(0, end), BindingReleased{.actor = {}, .by = "sweep", .fingerprint = {}});
  return not_used("names a Secret that is no node's");
}

}  // namespace

LogFinding read_message(std::string_view message, std::string_view unit) {
  std::string_view rest = message;
  if (unit == "systemd")
    return message.starts_with("Stopped ") && (message.find("Lightweight Kubernetes") != std::string_view::npos ||
                                               message.find("Rancher Kubernetes Engine") != std::string_view::npos)
               ? found(ServerStopped{"stopped by systemd"})
               : LogFinding{};
  if (take_prefix(rest, "Handling backend connection request ["))
    return about_node(rest.substr(0, rest.find(']')), TunnelOpened{});
  if (take_prefix(rest, "Password verified locally for node "))
    return about_node(rest, PasswordVerified{},
                      "verified against the server's own file; which password it was the log does not say");
  if (take_prefix(rest, "Password verification deferred for node "))
    return not_used("k3s admitted " + printable(rest, 60) + " without checking its password: no record says that");
  if (take_prefix(rest, "Deleted orphaned node-password secret ")) return read_sweep(rest.substr(0, rest.find(' ')));
  if (take_prefix(rest, "certificate CN=")) return read_certificate(message);
  if (take_prefix(rest, "Starting ")) return read_start(message);
  if (message.starts_with("Sending HTTP")) return read_response(message);
  if (take_prefix(rest, "Failed to authenticate request from ")) {
    std::string peer = take_peer(rest);
    return read_authentication(rest, std::move(peer));
  }
  if (take_prefix(rest, "failed to authenticate request: ")) return read_authentication(rest, {});
  if (const auto at = message.find("http: TLS handshake error from "); at != std::string_view::npos)
    return read_tls(message, at);
  return read_refusal(message, 0);
}

// ---- history ---------------------------------------------------------------------------------------------

std::string LogHistory::add(std::size_t number, std::string_view line) {
  if (trim(line).empty()) return {};
  Result<LogLine> parsed = parse_log_line(line);
  if (!parsed) return parsed.error().message;
  LogFinding finding = read_message(parsed->message, parsed->unit);
  if (!finding.left_out.empty()) return finding.left_out;
  if (!finding.record) return {};
  Record& record = *finding.record;
  record.server = std::string(kImportedServer) + (parsed->host.empty() ? "k3s" : parsed->host);
  record.first_time = parsed->time;
  auto& open = open_[record.node];
  if (!is_refusal(record.kind())) {
    if (!record.node.empty()) open.clear();  // what is counted of the node stands before it
  } else if (parsed->time) {
    std::string identity = record.server + " " + std::string(name_of(record.kind())) + " " +
                           std::string(host_of(record.source)) + " " + finding.doubt + " " +
                           std::to_string(parsed->time->micros / kWindow_us);
    if (const auto* rejected = as<RequestRejected>(record)) identity += rejected->reason;
    if (const auto* failed = as<TlsFailed>(record)) identity += failed->alert;
    const auto [counted, fresh] = open.emplace(std::move(identity), held_.size());
    if (!fresh) {
      Held& there = held_[counted->second];
      ++there.entry.record->count;
      there.last = parsed->time;
      return {};
    }
  }
  Held held;
  held.entry.line = number;
  held.entry.node = record.node;
  held.entry.record = std::move(record);
  held.doubt = std::move(finding.doubt);
  held_.push_back(std::move(held));
  return {};
}

std::vector<ImportEntry> LogHistory::take() {
  std::vector<ImportEntry> entries;
  for (Held& held : held_) {
    Record& record = *held.entry.record;
    record.note = "from line " + std::to_string(held.entry.line) + " of a server's log (" + file_ + "); ";
    record.note += record.first_time ? "happened " + record.first_time->to_string() : "when it happened is not known";
    if (held.last) record.note += ", the last at " + held.last->to_string();
    if (!held.doubt.empty()) record.note += "; " + held.doubt;
    entries.push_back(std::move(held.entry));
  }
  held_.clear();
  open_.clear();
  return entries;
}

}  // namespace ledger
