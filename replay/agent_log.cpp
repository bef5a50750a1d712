#include "replay/agent_log.h"

#include <algorithm>
#include <charconv>

#include "ledger/journal.h"

namespace ledger::replay {
namespace {

constexpr std::size_t kMaxLines = 20'000;
constexpr std::size_t kMaxText = 400;
constexpr std::size_t kMaxServers = 8;

struct Pattern {
  std::string_view text;
  Saying saying;
  bool at_start;  // else: anywhere in it
};

// In this order; prefixes that only say when (below) are taken off first. G1 is v1.16 to v1.18, G4 begins with v1.20.4, G7
// with v1.32.1.
constexpr Pattern kPatterns[] = {
    {"Node password rejected, duplicate hostname", Saying::password_rejected, true},  // all, for any 403 (G4 on)
    {"Node authorization rejected, retrying without client certificate", Saying::without_certificate, true},  // v1.27.4 on
    {"with Body length 0", Saying::body_used_up, false},                       // G7: the retry after a 401
    {"token does not match the server ", Saying::ca_differs, true},            // G1
    {"token CA hash does not match", Saying::ca_differs, true},                // v1.19.3 on
    {"failed to get CA certs", Saying::ca_not_fetched, true},                  // all
    {"CA cert validation failed: ", Saying::ca_not_trusted, true},             // v1.19.3 on
    {"/cacerts is not trusted: ", Saying::ca_not_trusted, false},              // G1
    {"token is not a valid token format", Saying::token_unusable, true},       // G1
    {"token credentials are the wrong format", Saying::token_unusable, true},  // G1
    {"invalid token format", Saying::token_unusable, true},                    // v1.19.3 on
    {"invalid token CA hash length", Saying::token_unusable, true},
    {"token must not be empty", Saying::token_unusable, true},
    {"--token is required", Saying::token_unusable, true},
    {"json: cannot unmarshal", Saying::answer_unusable, false},
    {"incompatible down-level server detected", Saying::answer_unusable, false},  // v1.20.5 on
    {"tls: private key does not match public key", Saying::answer_unusable, false},
    {"tls: failed to find any PEM data", Saying::answer_unusable, false},
    {"Connected to proxy", Saying::tunnel_opened, true},               // remotedialer 0.5 on
    {"Remotedialer connected to proxy", Saying::tunnel_opened, true},  // v1.29.4 on
    {"Failed to connect to proxy", Saying::tunnel_refused, true},
    {"Remotedialer proxy error", Saying::tunnel_closed, true},
    {"Proxy done", Saying::tunnel_closed, true},
};

// Messages that the supervisor's answers carry since v1.29.4, in k3s' words and in ours (api/problem.cpp).
constexpr std::string_view kNotAuthorized[] = {"not authorized", "forbidden", "Unauthorized", "no credentials: "};

// How Go says that nothing came back.
constexpr std::string_view kNoAnswer[] = {"dial tcp ", ": EOF", "context deadline exceeded", "connection reset by peer",
                                          "Client.Timeout", "connection refused", "i/o timeout"};

// What stands before the sentence and only says in which phase.
void take_phase(std::string_view& text) {
  if (take_prefix(text, "Failed to validate connection to cluster at ")) {  // v1.32.4 on
    const auto end = text.find(": ");
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 2);
  }
  for (const std::string_view phase :
       {"Waiting to retrieve agent configuration; server is not ready: ",       // v1.21.4 on
        "Waiting to retrieve kube-proxy configuration; server is not ready: ",  // v1.21.4 on
        "Failed to retrieve agent config: ",                                    // v1.19.2 to v1.20
        "Failed to configure agent: ",                                          // v1.21.0 to v1.21.3
        "Failed to retrieve list of apiservers from server: ", "Failed to get apiserver addresses from supervisor: ",
        "failed to retrieve configuration from server: ", "token is not valid: "})
    take_prefix(text, phase);
}

// "/var/lib/rancher/k3s/agent/serving-kubelet.crt: text" (v1.30.2 on): the file that was to be fetched.
std::string take_file(std::string_view& text) {
  const auto end = text.find(".crt: ");
  if (!text.starts_with('/') || end == std::string_view::npos || text.substr(0, end).find(' ') != std::string_view::npos)
    return {};
  const std::string_view file = text.substr(text.substr(0, end).rfind('/') + 1, std::string_view::npos);
  std::string name(file.substr(0, file.find(':')));
  text.remove_prefix(end + 6);
  return name;
}

// "https://127.0.0.1:6444/v1-k3s/config: 503 Service Unavailable": path and status.
bool read_status(std::string_view text, AgentLine& line) {
  const auto start = text.find("https://");
  const auto path = start == std::string_view::npos ? start : text.find('/', start + 8);
  const auto colon = path == std::string_view::npos ? path : text.find(": ", path);
  if (colon == std::string_view::npos || text.size() < colon + 5) return false;
  const std::string_view digits = text.substr(colon + 2, 3);
  int status = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + 3, status);
  if (error != std::errc() || end != digits.data() + 3 || status < 400 || status > 599) return false;
  if (text.size() > colon + 5 && text[colon + 5] != ' ') return false;
  line.status = status;
  line.endpoint = printable(text.substr(path, colon - path), 200);
  return true;
}

// "... Response status: 403 - 403 Forbidden. ..." of a tunnel that was not opened (v1.24.3 on).
int tunnel_status(std::string_view text) {
  const auto status = between(text, "Response status: ", " - ");
  int code = 0;
  if (status) std::from_chars(status->data(), status->data() + status->size(), code);
  return code >= 100 && code <= 599 ? code : 0;
}

// ---- whose log it is -------------------------------------------------------------------------------------

struct Identity {
  int rank = 0;  // of what told the name
  void offer(AgentLog& log, int how_good, std::string_view name, const char* from) {
    if (how_good <= rank) return;
    const Result<NodeName> parsed = NodeName::parse(name);
    if (!parsed) return;
    rank = how_good, log.node = parsed->str(), log.node_from = from;
  }
};

// The word behind `key`, up to a blank or a quote.
std::string_view word_after(std::string_view text, std::string_view key) {
  const auto at = text.find(key);
  if (at == std::string_view::npos) return {};
  text.remove_prefix(at + key.size());
  if (text.starts_with('"')) text.remove_prefix(1);
  return text.substr(0, text.find_first_of("\" ,\\"));
}

void learn_name(const LogLine& line, Identity& identity, AgentLog& log) {
  identity.offer(log, 1, line.host, "the journal's host");
  const std::string_view message = line.message;
  identity.offer(log, 3, word_after(message, "--hostname-override="), "--hostname-override");
  if (message.find("egister") == std::string_view::npos) return;
  for (const std::string_view key : {"Attempting to register node ", "Successfully registered node "})
    identity.offer(log, 2, word_after(message, key), "the kubelet");
  if (message.find("register node\"") != std::string_view::npos || message.find("registered node\"") != std::string_view::npos)
    identity.offer(log, 2, word_after(message, "node="), "the kubelet");
}

// "Running load balancer 127.0.0.1:6444 -> [10.0.0.1:6443 10.0.0.2:6443]", with the balancer's name and a default later.
void learn_servers(std::string_view message, AgentLog& log) {
  if (!message.starts_with("Running load balancer ") && !message.starts_with("Updating load balancer ") &&
      !message.starts_with("Updated load balancer "))
    return;
  std::optional<std::string_view> list = between(message, "-> [", "]");
  while (list && !list->empty() && log.servers.size() < kMaxServers) {
    const auto blank = list->find_first_of(" ,");
    const std::string server = printable(list->substr(0, blank), 80);
    if (!server.empty() && std::find(log.servers.begin(), log.servers.end(), server) == log.servers.end())
      log.servers.push_back(server);
    *list = blank == std::string_view::npos ? std::string_view() : list->substr(blank + 1);
  }
}

}  // namespace

std::string_view name_of(Saying saying) {
  switch (saying) {
    case Saying::started: return "started";
    case Saying::password_rejected: return "password_rejected";
    case Saying::refused: return "refused";
    case Saying::not_authorized: return "not_authorized";
    case Saying::body_used_up: return "body_used_up";
    case Saying::without_certificate: return "without_certificate";
    case Saying::ca_not_fetched: return "ca_not_fetched";
    case Saying::ca_not_trusted: return "ca_not_trusted";
    case Saying::ca_differs: return "ca_differs";
    case Saying::token_unusable: return "token_unusable";
    case Saying::answer_unusable: return "answer_unusable";
    case Saying::no_answer: return "no_answer";
    case Saying::tunnel_opened: return "tunnel_opened";
    case Saying::tunnel_refused: return "tunnel_refused";
    case Saying::tunnel_closed: return "tunnel_closed";
  }
  fatal("a saying without a name");
}

std::optional<AgentLine> read_agent_message(std::string_view message, std::string_view error) {
  AgentLine line;
  line.text = printable(message, kMaxText);
  if (!error.empty()) line.text = printable(line.text + ": " + std::string(error), kMaxText);
  std::string_view text = message;
  if (take_prefix(text, "Starting k3s agent v") || take_prefix(text, "Starting rke2 agent v")) {
    line.saying = Saying::started;
    return line;
  }
  take_phase(text);
  const bool in_phase = text.size() < message.size();
  const std::string file = take_file(text);
  for (const Pattern& pattern : kPatterns) {
    const bool fits = pattern.at_start ? text.starts_with(pattern.text) : text.find(pattern.text) != std::string_view::npos;
    if (!fits) continue;
    line.saying = pattern.saying;
    if (line.saying == Saying::tunnel_refused) line.status = tunnel_status(text);
    if (line.saying == Saying::ca_not_fetched) read_status(text, line);
    return line;
  }
  // G1 to G3 print an error without a phase; but only of the supervisor's paths is it about joining.
  if (read_status(text, line) && (in_phase || line.endpoint.starts_with("/v1-") || line.endpoint == "/apis")) {
    line.saying = Saying::refused;
    return line;
  }
  line.status = 0, line.endpoint.clear();
  if (!in_phase && file.empty()) return std::nullopt;
  for (const std::string_view words : kNotAuthorized) {
    if (!text.starts_with(words)) continue;
    line.saying = Saying::not_authorized;
    return line;
  }
  if (text.find("x509: ") != std::string_view::npos) {
    line.saying = Saying::ca_not_trusted;
    return line;
  }
  for (const std::string_view words : kNoAnswer) {
    if (text.find(words) == std::string_view::npos) continue;
    line.saying = Saying::no_answer;
    return line;
  }
  if (text.starts_with("starting") || text.starts_with("Internal error occurred")) {
    line.saying = Saying::refused, line.status = text.starts_with("starting") ? 503 : 500;
    return line;
  }
  return std::nullopt;
}

AgentLog read_agent_log(std::istream& in) {
  AgentLog log;
  Identity identity;
  LineReader lines(in);
  for (std::string text; lines.next(text);) {
    if (trim(text).empty()) continue;
    ++log.read;
    const Result<LogLine> parsed = parse_log_line(text);
    if (!parsed || text.size() > LineReader::kMaxBytes) {
      ++log.unreadable;
      continue;
    }
    learn_name(*parsed, identity, log);
    learn_servers(parsed->message, log);
    std::optional<AgentLine> line = read_agent_message(parsed->message, parsed->error);
    if (!line) {
      ++log.passed_over;
      continue;
    }
    if (line->saying == Saying::started) log.version = printable("v" + std::string(word_after(parsed->message, " agent v")), 60);
    if (log.lines.size() == kMaxLines) {
      ++log.left_out;
      continue;
    }
    line->number = lines.number();
    line->time = parsed->time;
    log.without_time += line->time ? 0 : 1;
    log.lines.push_back(std::move(*line));
  }
  return log;
}

}  // namespace ledger::replay
