// The lines of k3s servers, by generation, and what they prove.
#include "ledger/import_log.h"

#include <gtest/gtest.h>

#include "ledger/journal.h"

namespace ledger {
namespace {

// "kind node source reason-or-such", "-" for a line that is passed over, "!why" for one that is left out.
std::string read(std::string_view line) {
  const Result<LogLine> parsed = parse_log_line(line);
  if (!parsed) return "!" + parsed.error().message;
  const LogFinding finding = read_message(parsed->message, parsed->unit);
  if (!finding.left_out.empty()) return "!" + finding.left_out;
  if (!finding.record) return "-";
  const Record& record = *finding.record;
  std::string out = std::string(name_of(record.kind()));
  if (!record.node.empty()) out += " " + record.node;
  if (!record.source.empty()) out += " " + record.source;
  if (const auto* e = as<RequestRejected>(record)) out += " " + std::to_string(e->status) + " " + e->reason;
  if (const auto* e = as<PasswordRejected>(record)) out += " " + std::to_string(e->status);
  if (const auto* e = as<TokenRejected>(record)) out += " " + e->reason;
  if (const auto* e = as<CertificateIssued>(record)) out += " " + e->purpose + " until " + e->not_after->to_string();
  if (const auto* e = as<ServerStarted>(record)) out += " " + e->version;
  if (const auto* e = as<TlsFailed>(record)) out += " " + e->alert;
  return out;
}

std::string logrus(std::string_view message) {
  return "time=\"2024-01-02T10:00:00.318797817Z\" level=error msg=\"" + std::string(message) + "\"";
}

TEST(ImportLog, MismatchesOfEveryGeneration) {
  EXPECT_EQ(read(logrus("Node password validation failed for 'web-1', using passwd file "
                        "'/var/lib/rancher/k3s/server/cred/node-passwd'")),
            "password_rejected web-1 403");
  EXPECT_EQ(read(logrus("unable to verify hash for node 'web-1': hash does not match")), "password_rejected web-1 403");
  EXPECT_EQ(read(logrus("Sending HTTP 403 response to 10.0.0.5:41234: unable to verify password for node web-1: hash "
                        "does not match")),
            "password_rejected web-1 10.0.0.5:41234 403");
  EXPECT_EQ(read(logrus("Sending HTTP/1.1 403 response to [fd00::1]:443: unable to verify password for node web-1: hash "
                        "does not match")),
            "password_rejected web-1 [fd00::1]:443 403");
}

TEST(ImportLog, RefusalsThatAreNoMismatch) {
  EXPECT_EQ(read(logrus("unable to locate hash data for node secret 'web-1.node-password.k3s'")),
            "request_rejected web-1 403 store_unavailable");
  EXPECT_EQ(read(logrus("Sending HTTP 403 response to 10.0.0.5:1: unable to verify password for node web-1: password hash "
                        "not found in node secret")),
            "request_rejected web-1 10.0.0.5:1 403 store_unavailable");
  EXPECT_EQ(read(logrus("Sending HTTP 400 response to 10.0.0.5:1: node name not set")),
            "request_rejected 10.0.0.5:1 400 node_name_missing");
  EXPECT_EQ(read(logrus("node password not set")), "request_rejected 0 node_password_missing");
  EXPECT_EQ(read(logrus("Sending HTTP 401 response to 10.0.0.5:1: unable to verify node identity: nodes \\\"web-1\\\" not "
                        "found")),
            "request_rejected web-1 10.0.0.5:1 401 node_unknown");
  EXPECT_EQ(read(logrus("Failed to authenticate request from 10.0.0.5:1: invalid username/password combination")),
            "token_rejected 10.0.0.5:1 wrong_secret");
  EXPECT_EQ(read(logrus("failed to authenticate request: x509: certificate signed by unknown authority")),
            "token_rejected unknown_principal");
}

TEST(ImportLog, SignsOfLife) {
  EXPECT_EQ(read(logrus("Handling backend connection request [web-1]")), "tunnel_opened web-1");
  EXPECT_EQ(read(logrus("Starting k3s v1.17.2+k3s1 (cdab19b0)")), "server_started v1.17.2+k3s1");
  EXPECT_EQ(read(logrus("Starting rke2 v1.27.1+rke2r1 (abc)")), "server_started v1.27.1+rke2r1");
  EXPECT_EQ(read(logrus("Starting k3s agent v1.17.2+k3s1 (cdab19b0)")), "-");
  EXPECT_EQ(read(logrus("certificate CN=system:node:web-1,O=system:nodes signed by CN=k3s-client-ca@1580774400: "
                        "notBefore=2020-02-04 00:00:00 +0000 UTC notAfter=2021-02-03 10:00:00 +0000 UTC")),
            "certificate_issued web-1 client-kubelet until 2021-02-03T10:00:00Z");
  EXPECT_EQ(read(logrus("certificate CN=web-1 signed by CN=k3s-server-ca@1580774400: notBefore=2020-02-04 00:00:00 +0000 "
                        "UTC notAfter=2021-02-03 10:00:00 +0000 UTC")),
            "certificate_issued web-1 serving-kubelet until 2021-02-03T10:00:00Z");
  EXPECT_EQ(read(logrus("certificate CN=k3s,O=k3s signed by CN=k3s-server-ca@1580774400: notBefore=2020-02-04 00:00:00 "
                        "+0000 UTC notAfter=2021-02-03 10:00:00 +0000 UTC")),
            "-");
  EXPECT_EQ(read(logrus("Cluster-Http-Server 2024/01/02 10:00:00 http: TLS handshake error from 10.0.0.5:1: remote error: "
                        "tls: bad certificate")),
            "tls_failed 10.0.0.5:1 bad_certificate");
  EXPECT_EQ(read(logrus("Password verification deferred for node web-1")).substr(0, 1), "!");
  EXPECT_EQ(read(logrus("Handling backend connection request [no name]")).substr(0, 1), "!");
}

TEST(ImportLog, TheSameMessageInEveryWrapping) {
  const std::string text = logrus("Handling backend connection request [web-1]");
  const std::string escaped = "time=\\\"2024-01-02T10:00:00Z\\\" level=info msg=\\\"Handling backend connection request "
                              "[web-1]\\\"";
  for (const std::string& line :
       {text, "Jan 02 10:00:00 master-1 k3s[812]: " + text, "2024-01-02T10:00:00+0000 master-1 k3s[812]: " + text,
        std::string("INFO[2024-01-02T10:00:00Z] Handling backend connection request [web-1]"),
        std::string("\x1b[36mINFO\x1b[0m[0012] Handling backend connection request [web-1]"),
        std::string("Handling backend connection request [web-1]\r"),
        "{\"MESSAGE\":\"" + escaped + "\",\"_HOSTNAME\":\"master-1\",\"__REALTIME_TIMESTAMP\":\"1704189600000000\"}",
        "{\"log\":\"" + escaped + "\\n\",\"stream\":\"stderr\",\"time\":\"2024-01-02T10:00:00.1Z\"}"})
    EXPECT_EQ(read(line), "tunnel_opened web-1") << line;
}

// What a crash, a full disk or an editor makes of a journal: the line is named, and the next one is read.
TEST(ImportLog, BrokenJournalLinesAreLeftOutAndSaySo) {
  const std::string good = R"({"MESSAGE":"Handling backend connection request [web-1]","SYSLOG_IDENTIFIER":"k3s"})";
  ASSERT_EQ(read(good), "tunnel_opened web-1");
  for (std::size_t length = 1; length < good.size(); ++length)
    EXPECT_EQ(read(good.substr(0, length)).substr(0, 38), "!begins like JSON and cannot be read (") << length;
  EXPECT_EQ(read(good + good).substr(0, 38), "!begins like JSON and cannot be read (");
  EXPECT_EQ(read("{'MESSAGE':'x'}").substr(0, 38), "!begins like JSON and cannot be read (");
  // Fields of the wrong type, or none: a line that says nothing.
  for (const char* line : {R"({"MESSAGE":null})", R"({"MESSAGE":7})", R"({"MESSAGE":{"a":1}})", R"({"MESSAGE":[]})",
                           R"({"MESSAGE":["x",3.5,null]})", R"({"MESSAGE":[-1,99999999999]})", "{}", R"({"log":[1]})",
                           R"({"MESSAGE":"x","__REALTIME_TIMESTAMP":-5})",
                           R"({"MESSAGE":"x","__REALTIME_TIMESTAMP":"99999999999999999999"})"}) {
    EXPECT_EQ(read(line), "-") << line;
    EXPECT_EQ(parse_log_line(line)->time, std::nullopt) << line;
  }
  EXPECT_EQ(read(std::string(5000, '{')).substr(0, 1), "!") << "depth is bounded";
  LogHistory history("0123456789abcdef");
  EXPECT_NE(history.add(7, good.substr(0, 40)), "");
  EXPECT_EQ(history.add(8, good), "");
  EXPECT_EQ(history.take().size(), 1u);
}

TEST(ImportLog, ASystemdStopIsAStop) {
  EXPECT_EQ(read(R"({"MESSAGE":"Stopped Lightweight Kubernetes.","SYSLOG_IDENTIFIER":"systemd"})"), "server_stopped");
  EXPECT_EQ(read(R"({"MESSAGE":"Starting Lightweight Kubernetes...","SYSLOG_IDENTIFIER":"systemd"})"), "-");
}

TEST(ImportLog, AStormIsCountedInWindowsAndEndsWithASignOfLife) {
  LogHistory history("0123456789abcdef");
  const auto add = [&](const char* time, const char* message) {
    static std::size_t number = 0;
    return history.add(++number, "time=\"2024-01-02T10:" + std::string(time) + "Z\" msg=\"" + message + "\"");
  };
  const char* refused = "unable to verify hash for node 'web-1': hash does not match";
  for (const char* time : {"00:00", "00:05", "01:59"}) EXPECT_EQ(add(time, refused), "");
  add("02:00", refused);
  add("02:01", "Handling backend connection request [web-1]");
  add("02:02", refused);
  std::vector<std::int64_t> counts;
  for (const ImportEntry& entry : history.take()) counts.push_back(entry.record->count);
  EXPECT_EQ(counts, (std::vector<std::int64_t>{3, 1, 1, 1}));
}

}  // namespace
}  // namespace ledger
