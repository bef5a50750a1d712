#include "replay/audit_format.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <charconv>

#include "ledger/event_json.h"
#include "replay/meaning.h"
#include "replay/timeline.h"

namespace ledger::replay {
namespace {

namespace json = boost::json;

constexpr std::string_view kProduct = "ledger";
constexpr std::pair<AuditFormat, std::string_view> kNames[] = {
    {AuditFormat::jsonl, "jsonl"},   {AuditFormat::csv, "csv"},
    {AuditFormat::cloudevents, "cloudevents"}, {AuditFormat::ocsf, "ocsf"},
    {AuditFormat::ecs, "ecs"},       {AuditFormat::k8s_audit, "k8s-audit"},
    {AuditFormat::cef, "cef"},       {AuditFormat::syslog, "syslog"},
};

// ---- what the formats share ------------------------------------------------------------------------------

struct Peer {
  std::string host;  // an address, or what stands there instead
  bool is_address = false;
  std::int64_t port = 0;  // 0: not known
};

Peer peer_of(std::string_view source) {
  Peer peer;
  peer.host = host_of(source);
  std::array<unsigned char, sizeof(in6_addr)> bytes{};
  peer.is_address = inet_pton(AF_INET, peer.host.c_str(), bytes.data()) == 1 ||
                    inet_pton(AF_INET6, peer.host.c_str(), bytes.data()) == 1;
  const auto colon = source.rfind(':');
  if (!peer.is_address || colon == std::string_view::npos || source.size() <= peer.host.size()) return peer;
  const std::string_view port = source.substr(colon + 1);
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error == std::errc() && end == port.data() + port.size() && number > 0 && number < 65536) peer.port = number;
  return peer;
}

std::string id_of(const Record& record, const AuditSource& source) {
  return (source.log.empty() ? std::string(kProduct) : source.log) + "/" + std::to_string(record.seq);
}
std::string padded(Seq seq) { return fmt::format("{:020}", seq); }  // compared as text in some formats
std::int64_t millis(Time time) { return time.micros / 1000; }

// Six digits of a second, always: Kubernetes' MicroTime.
std::string micro_time(Time time) {
  std::string text = Time{time.micros - time.micros % 1'000'000}.to_string();
  return text.substr(0, text.size() - 1) + fmt::format(".{:06}Z", time.micros % 1'000'000);
}

std::string number_or_nothing(std::int64_t number) { return number == 0 ? "" : std::to_string(number); }

void put(json::object& out, std::string_view key, std::string_view value) {
  if (!value.empty()) out[key] = value;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : " ") + part;
  return out;
}

std::string_view serial_of(const Record& record) {
  if (const auto* issued = as<CertificateIssued>(record)) return issued->serial;
  return record.auth.serial;
}

// Presented or bound, then what the name was bound to before: at most two.
struct Passwords {
  std::string_view presented, bound;
};
Passwords passwords_of(const Record& record) {
  if (const auto* e = as<PasswordRejected>(record)) return {e->fingerprint.text, e->bound.text};
  if (const auto* e = as<BindingChanged>(record)) return {e->to.text, e->from.text};
  if (const auto* e = as<BindingReleased>(record)) return {"", e->fingerprint.text};
  const auto all = fingerprints_of(record);
  return {all.empty() ? std::string_view() : all.front(), ""};
}

// ---- csv -------------------------------------------------------------------------------------------------

std::string csv_cell(std::string_view text) {
  std::string cell(text);
  if (!cell.empty() && std::string_view("=+-@\t\r").find(cell.front()) != std::string_view::npos) cell.insert(0, 1, '\'');
  if (cell.find_first_of("\",\r\n") == std::string::npos) return cell;
  std::string quoted = "\"";
  for (const char c : cell) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + "\"";
}

constexpr std::string_view kCsvHeader =
    "seq,time,first_time,count,kind,outcome,severity,status,reason,message,node,source,via,claimed,actor,auth_method,"
    "principal,token,certificate,fingerprint,bound,server,epoch,endpoint,generation,request_id,note,authority,upstream,"
    "answered,took_ms,would_have";

std::string csv_line(const Record& record) {
  const Meaning m = meaning_of(record);
  const Passwords passwords = passwords_of(record);
  const std::string cells[] = {std::to_string(record.seq),
                               record.time.to_string(),
                               record.first_time ? record.first_time->to_string() : "",
                               std::to_string(record.count),
                               std::string(name_of(record.kind())),
                               std::string(m.kind->outcome),
                               std::to_string(m.kind->severity),
                               number_or_nothing(m.status),
                               m.reason,
                               m.sentence,
                               record.node,
                               record.source,
                               record.via,
                               joined(record.claimed),
                               m.actor,
                               record.auth.method,
                               record.auth.principal,
                               m.token.empty() ? record.auth.token : m.token,
                               std::string(serial_of(record)),
                               std::string(passwords.presented),
                               std::string(passwords.bound),
                               record.server,
                               std::to_string(record.epoch),
                               record.endpoint,
                               record.generation,
                               record.request_id,
                               record.note,
                               record.authority,
                               record.upstream,
                               number_or_nothing(record.answered),
                               record.took_ms ? std::to_string(*record.took_ms) : "",
                               record.would_have};
  std::string line;
  for (const std::string& cell : cells) line += (line.empty() ? "" : ",") + csv_cell(cell);
  return line + "\r\n";
}

// ---- CloudEvents -----------------------------------------------------------------------------------------

json::object cloudevent(const Record& record, const AuditSource& source) {
  json::object out{{"specversion", "1.0"},
                   {"id", padded(record.seq)},
                   {"source", "/ledger/" + (source.log.empty() ? "unknown" : source.log)},
                   {"type", "ledger." + std::string(name_of(record.kind()))}};
  if (!record.node.empty()) out["subject"] = "node/" + record.node;
  if (record.time.known()) out["time"] = record.time.to_string();
  out["datacontenttype"] = "application/json";
  out["dataschema"] = "urn:ledger:record:2";
  out["sequence"] = padded(record.seq);
  put(out, "correlationid", record.request_id);
  out["data"] = to_json(record);
  return out;
}

// ---- OCSF ------------------------------------------------------------------------------------------------

constexpr std::string_view kOcsfVersion = "1.8.0";
constexpr int kApiActivity = 6003, kAuthentication = 3002, kEntityManagement = 3004;

json::object ocsf_endpoint(const Record& record) {
  const Peer peer = peer_of(record.source);
  json::object out;
  if (peer.is_address)
    out["ip"] = peer.host;
  else
    out["name"] = peer.host.empty() ? "unknown" : printable(peer.host, 200);
  if (peer.port != 0) out["port"] = peer.port;
  return out;
}

// OCSF, and many readers of it, take no empty names.
std::string named(std::string_view name) { return name.empty() ? "unknown" : std::string(name); }

std::string ocsf_user_name(const Record& record) {
  return named(record.node.empty() ? record.auth.principal : record.node);
}

json::object ocsf_entity(const Record& record, const Meaning& m) {
  if (const auto* issued = as<CertificateIssued>(record)) {
    json::object data{{"purpose", issued->purpose}};
    put(data, "sha256", issued->sha256), put(data, "public_key", issued->public_key), put(data, "node", record.node);
    if (issued->not_after) data["not_after"] = issued->not_after->to_string();
    return {{"type_id", 99}, {"type", "Certificate"}, {"name", named(issued->subject)}, {"uid", named(issued->serial)}, {"data", data}};
  }
  if (is_server_wide(record.kind())) return {{"type_id", 99}, {"type", "Token"}, {"name", named(m.token)}, {"uid", named(m.token)}};
  return {{"type_id", 1},
          {"type", "Device"},
          {"name", named(record.node)},
          {"uid", "node/" + named(record.node)},
          {"device", json::object{{"type_id", 1}, {"type", "Server"}, {"hostname", named(record.node)}}}};
}

void add_ocsf_class(json::object& out, const Record& record, const Meaning& m) {
  switch (m.kind->ocsf_class) {
    case kAuthentication:
      out["user"] = json::object{{"name", ocsf_user_name(record)}, {"type_id", record.node.empty() ? 0 : 3}};
      out["service"] = json::object{{"name", "k3s-supervisor"}};
      if (!record.source.empty()) out["src_endpoint"] = ocsf_endpoint(record);
      if (record.auth.method == "basic") out["auth_protocol_id"] = 11, out["auth_protocol"] = "Basic Authentication";
      out["logon_type_id"] = 3, out["logon_type"] = "Network", out["is_remote"] = true;
      break;
    case kEntityManagement:
      out["entity"] = ocsf_entity(record, m);
      if (!m.actor.empty()) out["actor"] = json::object{{"user", json::object{{"name", m.actor}}}};
      if (!record.source.empty()) out["src_endpoint"] = ocsf_endpoint(record);
      put(out, "comment", record.note);
      break;
    case kApiActivity:
      out["actor"] = json::object{{"user", json::object{{"name", ocsf_user_name(record)}}}};
      out["api"] = json::object{{"operation", record.endpoint.empty() ? name_of(record.kind()) : record.endpoint}};
      out["src_endpoint"] = ocsf_endpoint(record);
      break;
    default:  // 1008, event log activity
      out["log_name"] = "ledger.audit";
      if (!m.actor.empty()) out["actor"] = json::object{{"user", json::object{{"name", m.actor}}}};
  }
}

json::object ocsf(const Record& record, const AuditSource& source) {
  const Meaning m = meaning_of(record);
  const KindMeaning& kind = *m.kind;
  json::object product{{"name", kProduct}, {"vendor_name", kProduct}};
  put(product, "version", source.version);
  json::object metadata{{"version", kOcsfVersion},
                        {"product", std::move(product)},
                        {"uid", id_of(record, source)},
                        {"sequence", static_cast<std::int64_t>(record.seq)},
                        {"event_code", name_of(record.kind())},
                        {"log_name", "ledger.audit"}};
  put(metadata, "correlation_uid", record.request_id);
  const bool failed = kind.outcome == "failure", unknown = kind.outcome == "unknown";
  constexpr std::string_view kSeverities[] = {"Unknown", "Informational", "Low", "Medium", "High"};
  json::object out{{"metadata", std::move(metadata)},
                   {"time", millis(record.time)},
                   {"category_uid", kind.ocsf_class / 1000},
                   {"class_uid", kind.ocsf_class},
                   {"activity_id", kind.ocsf_activity},
                   {"type_uid", kind.ocsf_class * 100 + kind.ocsf_activity},
                   {"severity_id", kind.severity},
                   {"severity", kSeverities[kind.severity]},
                   {"status_id", unknown ? 0 : failed ? 2 : 1},
                   {"status", unknown ? "Unknown" : failed ? "Failure" : "Success"},
                   {"message", m.sentence}};
  if (kind.ocsf_activity == 99) out["activity_name"] = name_of(record.kind());
  if (m.status != 0) out["status_code"] = std::to_string(m.status);
  put(out, "status_detail", m.reason);
  if (record.count > 1) {
    out["count"] = record.count;
    out["start_time"] = millis(first_time_of(record));
    out["end_time"] = millis(record.time);
  }
  add_ocsf_class(out, record, m);
  out["unmapped"] = json::object{{"record", to_json(record)}};
  return out;
}

// ---- ECS -------------------------------------------------------------------------------------------------

json::object ecs(const Record& record, const AuditSource& source) {
  const Meaning m = meaning_of(record);
  json::object event{{"kind", "event"},
                     {"category", json::array{m.kind->ecs_category}},
                     {"type", json::array{m.kind->ecs_type}},
                     {"outcome", m.kind->outcome},
                     {"action", name_of(record.kind())},
                     {"id", id_of(record, source)},
                     {"sequence", static_cast<std::int64_t>(record.seq)},
                     {"severity", m.kind->severity},
                     {"provider", kProduct},
                     {"module", kProduct},
                     {"dataset", "ledger.audit"},
                     {"original", to_json_line(record)}};
  put(event, "reason", m.reason);
  if (record.count > 1) {
    event["start"] = first_time_of(record).to_string();
    event["end"] = record.time.to_string();
  }
  json::object out{{"@timestamp", record.time.to_string()}, {"ecs", json::object{{"version", "8.17.0"}}},
                   {"message", m.sentence}, {"event", std::move(event)}};
  json::object related;
  if (!record.node.empty()) {
    out["host"] = json::object{{"name", record.node}};
    related["hosts"] = json::array{record.node};
  }
  if (!m.actor.empty()) {
    out["user"] = json::object{{"name", m.actor}};
    related["user"] = json::array{m.actor};
  }
  const Peer peer = peer_of(record.source);
  if (!peer.host.empty()) {
    json::object from{{"address", peer.host}};
    if (peer.is_address) from["ip"] = peer.host, related["ip"] = json::array{peer.host};
    if (peer.port != 0) from["port"] = peer.port;
    out["source"] = std::move(from);
  }
  if (m.status != 0) out["http"] = json::object{{"response", json::object{{"status_code", m.status}}}};
  if (!record.endpoint.empty()) out["url"] = json::object{{"path", record.endpoint}};
  if (!serial_of(record).empty())
    out["tls"] = json::object{{"client", json::object{{"x509", json::object{{"serial_number", serial_of(record)}}}}}};
  if (!record.request_id.empty()) out["trace"] = json::object{{"id", record.request_id}};
  json::object service{{"name", kProduct}, {"type", kProduct}};
  put(service, "version", source.version);
  if (!record.server.empty()) service["node"] = json::object{{"name", record.server}};
  out["service"] = std::move(service);
  out["orchestrator"] = json::object{{"type", "kubernetes"}};
  if (!related.empty()) out["related"] = std::move(related);
  return out;
}

// ---- Kubernetes audit ------------------------------------------------------------------------------------

std::string_view status_reason(std::int64_t status) {
  switch (status) {
    case 400: return "BadRequest";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 429: return "TooManyRequests";
    case 503: return "ServiceUnavailable";
    default: return "";
  }
}

json::object k8s_audit(const Record& record, const AuditSource& source) {
  const Meaning m = meaning_of(record);
  const bool failed = m.kind->outcome == "failure";
  json::object status{{"metadata", json::object{}}, {"status", failed ? "Failure" : "Success"}};
  const std::int64_t code = m.status != 0 ? m.status : record.endpoint.empty() || failed ? 0 : 200;
  if (failed) {
    put(status, "message", m.sentence);
    put(status, "reason", status_reason(code));
  }
  if (code != 0) status["code"] = code;
  json::object annotations{{"ledger.dev/sequence", std::to_string(record.seq)},
                           {"ledger.dev/kind", name_of(record.kind())},
                           {"ledger.dev/message", m.sentence}};
  put(annotations, "ledger.dev/reason", m.reason);
  put(annotations, "ledger.dev/server", record.server);
  put(annotations, "ledger.dev/request-id", record.request_id);
  if (record.count > 1) annotations["ledger.dev/count"] = std::to_string(record.count);
  put(annotations, "ledger.dev/authority", record.authority);
  put(annotations, "ledger.dev/upstream", record.upstream);
  put(annotations, "ledger.dev/answered", number_or_nothing(record.answered));
  if (record.took_ms) annotations["ledger.dev/took-ms"] = std::to_string(*record.took_ms);
  put(annotations, "ledger.dev/would-have", record.would_have);
  json::object out{{"kind", "Event"},
                   {"apiVersion", "audit.k8s.io/v1"},
                   {"level", "Metadata"},
                   {"auditID", id_of(record, source)},
                   {"stage", "ResponseComplete"},
                   {"requestURI", record.endpoint.starts_with('/') ? record.endpoint : "/ledger/" + std::string(name_of(record.kind()))},
                   {"verb", m.kind->verb},
                   {"user", json::object{{"username", m.actor.empty() ? "system:anonymous" : m.actor}}}};
  if (const Peer peer = peer_of(record.source); peer.is_address) {
    json::array addresses{peer.host};
    if (const Peer proxy = peer_of(record.via); proxy.is_address) addresses.emplace_back(proxy.host);
    out["sourceIPs"] = std::move(addresses);
  }
  if (!record.node.empty())
    out["objectRef"] = json::object{{"resource", "nodes"}, {"name", record.node}, {"apiVersion", "v1"}};
  out["responseStatus"] = std::move(status);
  out["requestReceivedTimestamp"] = micro_time(first_time_of(record));
  out["stageTimestamp"] = micro_time(record.time);
  out["annotations"] = std::move(annotations);
  return out;
}

// ---- CEF -------------------------------------------------------------------------------------------------

std::string escaped(std::string_view text, std::string_view with_backslash) {
  std::string out;
  for (const char c : text) {
    if (with_backslash.find(c) != std::string_view::npos) out += '\\';
    if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else
      out += c;
  }
  return out;
}

std::string cef_line(const Record& record, const AuditSource& source) {
  const Meaning m = meaning_of(record);
  constexpr int kSeverities[] = {0, 1, 3, 6, 8};  // of 10
  std::string name(name_of(record.kind()));
  std::string line = fmt::format("CEF:0|{0}|{0}|{1}|{2}|{3}|{4}|", kProduct, escaped(source.version, "|\\"), name,
                                 escaped(m.sentence, "|\\"), kSeverities[m.kind->severity]);
  std::string extension;
  const auto add = [&](std::string_view key, std::string_view value) {
    if (!value.empty()) extension += fmt::format("{}{}={}", extension.empty() ? "" : " ", key, escaped(value, "=\\"));
  };
  const auto labelled = [&](std::string_view key, std::string_view label, std::string_view value) {
    if (value.empty()) return;
    add(key, value);
    add(std::string(key) + "Label", label);
  };
  const Peer peer = peer_of(record.source);
  add("rt", std::to_string(millis(record.time)));
  add("externalId", id_of(record, source));
  add("act", name);
  add("outcome", m.kind->outcome);
  add("reason", m.reason);
  if (peer.is_address) add(peer.host.find(':') == std::string::npos ? "src" : "c6a2", peer.host);
  if (peer.is_address && peer.host.find(':') != std::string::npos) add("c6a2Label", "Source IPv6 Address");
  if (peer.port != 0) add("spt", std::to_string(peer.port));
  add("dhost", record.node);
  add("suser", m.actor);
  add("request", record.endpoint);
  if (record.count > 1) {
    add("cnt", std::to_string(record.count));
    add("start", std::to_string(millis(first_time_of(record))));
    add("end", std::to_string(millis(record.time)));
  }
  add("cn1", std::to_string(record.seq)), add("cn1Label", "sequence");
  if (m.status != 0) add("cn2", std::to_string(m.status)), add("cn2Label", "httpStatus");
  labelled("cs1", "requestId", record.request_id);
  labelled("cs2", "passwordFingerprint", passwords_of(record).presented);
  labelled("cs3", "boundFingerprint", passwords_of(record).bound);
  labelled("cs4", "token", m.token);
  labelled("cs5", "server", record.server);
  labelled("cs6", "certificateSerial", serial_of(record));
  labelled("flexString1", "upstream", record.upstream);
  labelled("flexString2", "wouldHave", record.would_have);
  labelled("flexNumber1", "answered", number_or_nothing(record.answered));
  if (record.took_ms) labelled("cn3", "tookMs", std::to_string(*record.took_ms));
  add("msg", m.sentence);
  return line + extension + "\n";
}

// ---- syslog ----------------------------------------------------------------------------------------------

// A header field: printable ASCII without spaces, so long at most.
std::string syslog_word(std::string_view text, std::size_t longest) {
  std::string out;
  for (const char c : text.substr(0, longest)) out += c > 0x20 && c < 0x7F ? c : '_';
  return out.empty() ? "-" : out;
}

std::string syslog_line(const Record& record, const AuditSource& source) {
  const Meaning m = meaning_of(record);
  constexpr int kAudit = 13;
  constexpr int kSeverities[] = {6, 6, 5, 4, 3};
  std::string data;
  const auto add = [&](std::string_view key, std::string_view value) {
    if (!value.empty()) data += fmt::format(" {}=\"{}\"", key, escaped(value, "\"\\]"));
  };
  add("seq", std::to_string(record.seq));
  add("log", source.log);
  add("node", record.node);
  add("outcome", m.kind->outcome);
  if (m.status != 0) add("status", std::to_string(m.status));
  add("reason", m.reason);
  add("source", record.source);
  add("actor", m.actor);
  add("token", m.token);
  add("fingerprint", passwords_of(record).presented);
  add("bound", passwords_of(record).bound);
  add("requestId", record.request_id);
  add("authority", record.authority);
  add("upstream", record.upstream);
  add("answered", number_or_nothing(record.answered));
  if (record.took_ms) add("tookMs", std::to_string(*record.took_ms));
  add("wouldHave", record.would_have);
  if (record.count > 1) add("count", std::to_string(record.count));
  // RFC 5424 section 7.3.1: 1 to 2147483647, then from 1 again.
  const Seq sequence = record.seq == 0 ? 1 : (record.seq - 1) % 2147483647 + 1;
  return fmt::format("<{}>1 {} {} {} - {} [ledger@32473{}][meta sequenceId=\"{}\"] {}\n",
                     kAudit * 8 + kSeverities[m.kind->severity], record.time.known() ? record.time.to_string() : "-",
                     syslog_word(record.server, 255), kProduct, syslog_word(name_of(record.kind()), 32), data, sequence,
                     m.sentence);
}

std::string line_of(const json::object& object) { return json::serialize(object) + "\n"; }

}  // namespace

std::optional<AuditFormat> audit_format_from_name(std::string_view name) {
  for (const auto& [format, known] : kNames)
    if (known == name) return format;
  return std::nullopt;
}

std::string_view name_of(AuditFormat format) {
  for (const auto& [known, name] : kNames)
    if (known == format) return name;
  fatal("an audit format without a name");
}

std::vector<std::string> audit_format_names() {
  std::vector<std::string> names;
  for (const auto& [format, name] : kNames) names.emplace_back(name);
  return names;
}

std::string audit_header(AuditFormat format) {
  return format == AuditFormat::csv ? std::string(kCsvHeader) + "\r\n" : "";
}

std::string audit_line(AuditFormat format, const Record& record, const AuditSource& source) {
  switch (format) {
    case AuditFormat::jsonl: return to_json_line(record) + "\n";
    case AuditFormat::csv: return csv_line(record);
    case AuditFormat::cloudevents: return line_of(cloudevent(record, source));
    case AuditFormat::ocsf: return line_of(ocsf(record, source));
    case AuditFormat::ecs: return line_of(ecs(record, source));
    case AuditFormat::k8s_audit: return line_of(k8s_audit(record, source));
    case AuditFormat::cef: return cef_line(record, source);
    case AuditFormat::syslog: return syslog_line(record, source);
  }
  fatal("an audit format that is none");
}

}  // namespace ledger::replay
