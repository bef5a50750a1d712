// Whatever stands in a file that somebody hands to `ledger replay --input`: every line is a record or a hole, a
// record survives being written again, and the whole of it is explained in text that is safe for a terminal.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <sstream>
#include <string>
#include <string_view>

#include "ledger/event_json.h"
#include "replay/explain.h"
#include "replay/render.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

bool has_control(std::string_view text) {
  for (const char c : text)
    if (c != '\n' && (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)) return true;
  return false;
}

void fuzz_line(std::string_view line) {
  const auto record = ledger::record_from_json(line);
  if (!record) {
    require(record.error().code == ledger::Errc::invalid && !has_control(record.error().message));
    return;
  }
  require(record->seq >= 1 && record->count >= 1);
  const std::string written = ledger::to_json_line(*record);
  require(written.find('\n') == std::string::npos);
  const auto again = ledger::record_from_json(written);
  require(again.has_value() && ledger::to_json_line(*again) == written);
}

void fuzz_replay(const std::string& lines, const std::string& node) {
  std::istringstream stream(lines);
  const auto history = ledger::replay::history_from_stream(stream, node);
  require(history.has_value());
  const ledger::replay::Explanation explanation = ledger::replay::explain(*history);
  std::set<ledger::Seq> seqs;
  for (const ledger::Record& record : history->records) seqs.insert(record.seq);
  for (const ledger::replay::Fact& fact : explanation.evidence) require(seqs.count(fact.seq) == 1);
  require(!has_control(ledger::replay::to_text(explanation)));
  for (const ledger::replay::Remedy& remedy : explanation.remedies)
    require(!has_control(remedy.command) && remedy.command.find('\n') == std::string::npos);
  require(ledger::replay::to_json(explanation).contains("cause"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  std::istringstream lines(text);
  std::string node = "web-1";
  for (std::string line; std::getline(lines, line);) {
    fuzz_line(line);
    if (const auto record = ledger::record_from_json(line); record && !record->node.empty()) node = record->node;
  }
  fuzz_replay(text, node);
  return 0;
}
