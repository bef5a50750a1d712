// An agent's journal, whatever somebody pastes: every line is counted, what is kept is safe to print, and the whole of it
// is matched against a history that could have come from it without inventing a record.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>
#include <string_view>

#include "ledger/event_json.h"
#include "replay/agent_match.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

void require_printable(std::string_view text) { require(ledger::printable(text, text.size()) == text); }

// One refusal at the time of each line, and one sign of life.
ledger::replay::History history_of(const ledger::replay::AgentLog& log) {
  ledger::replay::History history;
  history.node = "web-1";
  for (const ledger::replay::AgentLine& line : log.lines) {
    if (!line.time || history.records.size() > 100) continue;
    ledger::Record record;
    record.seq = history.records.size() + 1;
    record.time = *line.time;
    record.node = "web-1";
    record.source = "10.0.0.5:4000";
    record.event = ledger::PasswordRejected{.fingerprint = {"77e0"}, .bound = {"a41c"}, .status = 403};
    if (record.seq % 3 == 0) record.event = ledger::TunnelOpened{"s"};
    history.records.push_back(std::move(record));
  }
  return history;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::istringstream in(std::string(reinterpret_cast<const char*>(data), size));
  const ledger::replay::AgentLog log = ledger::replay::read_agent_log(in);
  require(log.lines.size() + log.left_out + log.passed_over + log.unreadable == log.read);
  require(log.node.empty() || ledger::NodeName::parse(log.node).has_value());
  for (const auto& line : log.lines) require_printable(line.text), require_printable(line.endpoint);
  for (const auto& server : log.servers) require_printable(server);
  require_printable(log.version);
  const ledger::replay::History history = history_of(log);
  const ledger::replay::AgentMatch match = ledger::replay::match(log, history);
  std::size_t told = 0;
  for (const auto& run : match.runs) {
    told += run.lines;
    require_printable(run.verdict);
    for (const ledger::Record* record : run.records)
      require(record >= history.records.data() && record < history.records.data() + history.records.size());
  }
  require(told == log.lines.size());
  for (const char c : ledger::replay::to_text(match)) require(c == '\n' || (c >= 0x20 && c != 0x7F) || (c & 0x80) != 0);
  require(ledger::replay::to_json(match).contains("runs"));
  return 0;
}
