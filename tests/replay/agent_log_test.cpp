// What agents of every generation print, and what is made of it.
#include "replay/agent_log.h"

#include <gtest/gtest.h>

#include <sstream>

namespace ledger::replay {
namespace {

constexpr const char* kRejected =
    "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server "
    "node-passwd entry, try enabling a unique node name with the --with-node-id flag";
constexpr const char* kWaiting = "Waiting to retrieve agent configuration; server is not ready: ";

// "saying status endpoint", "-" for a line about something else.
std::string read(const std::string& message, const std::string& error = "") {
  const std::optional<AgentLine> line = read_agent_message(message, error);
  if (!line) return "-";
  std::string out(name_of(line->saying));
  if (line->status != 0) out += " " + std::to_string(line->status);
  if (!line->endpoint.empty()) out += " " + line->endpoint;
  return out;
}

TEST(AgentLog, TheOneSentenceOfEveryGeneration) {
  EXPECT_EQ(read(kRejected), "password_rejected");                                               // G1, v1.19.1
  EXPECT_EQ(read(std::string("Failed to retrieve agent config: ") + kRejected), "password_rejected");  // v1.19.2 to v1.20
  EXPECT_EQ(read(std::string("Failed to configure agent: ") + kRejected), "password_rejected");  // v1.21.0 to v1.21.3
  EXPECT_EQ(read(kWaiting + std::string(kRejected)), "password_rejected");                       // v1.21.4 on
  EXPECT_EQ(read(kWaiting + std::string("/var/lib/rancher/k3s/agent/serving-kubelet.crt: ") + kRejected),
            "password_rejected");  // v1.30.2 on
}

TEST(AgentLog, StatusesOfEveryGeneration) {
  EXPECT_EQ(read("https://127.0.0.1:6444/v1-k3s/serving-kubelet.crt: 500 Internal Server Error"),
            "refused 500 /v1-k3s/serving-kubelet.crt");  // G1
  EXPECT_EQ(read(kWaiting + std::string("https://127.0.0.1:6444/v1-k3s/serving-kubelet.crt: 400 Bad Request")),
            "refused 400 /v1-k3s/serving-kubelet.crt");
  EXPECT_EQ(read(kWaiting + std::string("failed to retrieve configuration from server: "
                                        "https://127.0.0.1:6444/v1-k3s/config: 503 Service Unavailable")),
            "refused 503 /v1-k3s/config");
  EXPECT_EQ(read(kWaiting + std::string("/var/lib/rancher/rke2/agent/client-kubelet.crt: "
                                        "https://127.0.0.1:6444/v1-rke2/client-kubelet.crt: 429 Too Many Requests")),
            "refused 429 /v1-rke2/client-kubelet.crt");
  EXPECT_EQ(read("token is not valid: https://127.0.0.1:6444/apis: 401 Unauthorized"), "refused 401 /apis");
  EXPECT_EQ(read("Failed to validate connection to cluster at https://10.0.0.1:6443: token is not valid: "
                 "https://127.0.0.1:6444/apis: 401 Unauthorized"),
            "refused 401 /apis");
  EXPECT_EQ(read(kWaiting + std::string("failed to retrieve configuration from server: not authorized")),
            "not_authorized");
  EXPECT_EQ(read(kWaiting + std::string("failed to retrieve configuration from server: not authorized: invalid "
                                        "username/password combination")),
            "not_authorized");
  EXPECT_EQ(read(kWaiting + std::string("failed to retrieve configuration from server: forbidden")), "not_authorized");
  EXPECT_EQ(read(kWaiting + std::string("failed to retrieve configuration from server: starting")), "refused 503");
  EXPECT_EQ(read("Node authorization rejected, retrying without client certificate authentication"),
            "without_certificate");
  EXPECT_EQ(read(kWaiting + std::string("Post \"https://127.0.0.1:6444/v1-k3s/serving-kubelet.crt\": http: "
                                        "ContentLength=189 with Body length 0")),
            "body_used_up");
}

TEST(AgentLog, WhatComesBeforeAnyPassword) {
  EXPECT_EQ(read("failed to get CA certs at https://127.0.0.1:37211/cacerts: Get https://127.0.0.1:37211/cacerts: EOF"),
            "ca_not_fetched");
  EXPECT_EQ(read("Failed to validate connection to cluster at https://10.0.0.1:6443: failed to get CA certs: "
                 "https://127.0.0.1:6444/cacerts: 503 Service Unavailable"),
            "ca_not_fetched 503 /cacerts");
  EXPECT_EQ(read("server https://127.0.0.1:37211/cacerts is not trusted: x509: certificate has expired"),
            "ca_not_trusted");
  EXPECT_EQ(read("CA cert validation failed: Get https://127.0.0.1:6444/cacerts: x509: certificate signed by unknown "
                 "authority"),
            "ca_not_trusted");
  EXPECT_EQ(read("token does not match the server ab12 != cd34"), "ca_differs");
  EXPECT_EQ(read("token CA hash does not match the Cluster CA certificate hash: ab12 != cd34"), "ca_differs");
  EXPECT_EQ(read("invalid token CA hash length"), "token_unusable");
  EXPECT_EQ(read(kWaiting + std::string("failed to retrieve configuration from server: Get "
                                        "\"https://127.0.0.1:6444/v1-k3s/config\": dial tcp 127.0.0.1:6444: connect: "
                                        "connection refused")),
            "no_answer");
  EXPECT_EQ(read(kWaiting + std::string("json: cannot unmarshal string into Go struct field")), "answer_unusable");
}

TEST(AgentLog, TheTunnel) {
  EXPECT_EQ(read("Remotedialer connected to proxy"), "tunnel_opened");
  EXPECT_EQ(read("Connected to proxy"), "tunnel_opened");
  EXPECT_EQ(read("Failed to connect to proxy", "websocket: bad handshake"), "tunnel_refused");
  EXPECT_EQ(read("Failed to connect to proxy. Response status: 401 - 401 Unauthorized. Response body: x"),
            "tunnel_refused 401");
  EXPECT_EQ(read("Remotedialer proxy error; reconecting...", "websocket: close 1006"), "tunnel_closed");
  EXPECT_EQ(read_agent_message("Failed to connect to proxy", "websocket: bad handshake")->text,
            "Failed to connect to proxy: websocket: bad handshake");
}

TEST(AgentLog, OtherThingsArePassedOver) {
  EXPECT_EQ(read("Module overlay was already loaded"), "-");
  EXPECT_EQ(read("Connecting to proxy"), "-");
  EXPECT_EQ(read("Failed to pull image https://registry/v2/x: 401 Unauthorized"), "-")
      << "a status of somebody else's path";
  EXPECT_EQ(read("forbidden"), "-");
  EXPECT_EQ(read(kWaiting + std::string("failed to find host-local: not found")), "-");
  EXPECT_EQ(read(""), "-");
  EXPECT_EQ(read("https://"), "-");
  EXPECT_EQ(read("https://a/v1-k3s/config: 50"), "-");
}

AgentLog log_of(const std::string& text) {
  std::istringstream in(text);
  return read_agent_log(in);
}

TEST(AgentLog, WholeJournalsAreReadAndCounted) {
  const AgentLog log = log_of(
      "Jun 11 07:02:38 Worker-7 k3s[812]: time=\"2024-06-11T07:02:38Z\" level=info msg=\"Starting k3s agent "
      "v1.28.4+k3s1 (cb4a5eb)\"\n"
      "Jun 11 07:02:39 Worker-7 k3s[812]: time=\"2024-06-11T07:02:39Z\" level=info msg=\"Running load balancer "
      "k3s-agent-load-balancer 127.0.0.1:6444 -> [10.0.0.1:6443 10.0.0.2:6443] [default: 10.0.0.1:6443]\"\n"
      "\n"
      "Jun 11 07:02:40 Worker-7 k3s[812]: time=\"2024-06-11T07:02:40Z\" level=info msg=\"" +
      std::string(kWaiting) + kRejected + "\"\n" +
      "{\"MESSAGE\":broken\n"
      "Jun 11 07:02:41 Worker-7 kernel: eth0 up\n" +
      kRejected + "\n");
  EXPECT_EQ(log.read, 6U);
  EXPECT_EQ(log.unreadable, 1U);
  EXPECT_EQ(log.passed_over, 2U);
  EXPECT_EQ(log.without_time, 1U);
  EXPECT_EQ(log.node, "worker-7");
  EXPECT_EQ(log.node_from, "the journal's host");
  EXPECT_EQ(log.version, "v1.28.4+k3s1");
  EXPECT_EQ(log.servers, (std::vector<std::string>{"10.0.0.1:6443", "10.0.0.2:6443"}));
  ASSERT_EQ(log.lines.size(), 3U);
  EXPECT_EQ(log.lines[1].number, 4U) << "empty lines are numbered, too";
  EXPECT_EQ(log.lines[1].time->to_string(), "2024-06-11T07:02:40Z");
}

TEST(AgentLog, TheKubeletKnowsItsNameBetterThanTheHost) {
  const std::string host = "2024-06-11T07:02:38+0000 ip-10-0-0-7 k3s[8]: ";
  EXPECT_EQ(log_of(host + "level=info msg=\"Running kubelet --address=0.0.0.0 --hostname-override=web-1 --v=2\"\n" + host +
                   "msg=\"x\"\n")
                .node,
            "web-1");
  EXPECT_EQ(log_of(host + "I0611 07:02:38.1 1 kubelet_node_status.go:70] Attempting to register node web-2\n").node,
            "web-2");
  EXPECT_EQ(log_of(host + "I0611 07:02:38.1 1 kubelet_node_status.go:70] \"Successfully registered node\" node=\"web-3\"\n")
                .node,
            "web-3");
  EXPECT_EQ(log_of("msg=\"hello\"\n").node, "");
}

TEST(AgentLog, ItsMemoryIsBoundedAndSoIsItsText) {
  std::string text;
  for (int i = 0; i < 20'010; ++i) text += "msg=\"" + std::string(kRejected) + "\"\n";
  text += std::string(3 << 20, 'x') + "\n";
  text += "failed to get CA certs: \x1b[31m" + std::string(5000, 'y') + "\n";
  const AgentLog log = log_of(text);
  EXPECT_EQ(log.lines.size(), 20'000U);
  EXPECT_EQ(log.left_out, 11U);
  EXPECT_EQ(log.unreadable, 1U);
  EXPECT_LE(read_agent_message("failed to get CA certs: " + std::string(5000, 'y'))->text.size(), 400U);
}

}  // namespace
}  // namespace ledger::replay
