#include "tools/history_source.h"

#include <filesystem>
#include <sstream>

#include "api/operator_client.h"
#include "replay/agent_match.h"
#include "tools/commands.h"
#include "tools/progress_line.h"

namespace ledger::tools {

Result<HistorySource> HistorySource::open(const Options& options) {
  HistorySource source;
  source.options_ = options;
  if (!options.input.empty()) {
    Result<std::ifstream> file = replay::open_jsonl(options.input);
    if (!file) return file.error();
    source.file_ = std::move(*file);
  } else if (options.server.empty()) {
    auto log = EventLog::follow(
        {.dir = std::filesystem::path(options.data_dir) / "events", .archives = options.archives});
    if (!log) return log.error();
    source.log_ = std::move(*log);
  }
  return source;
}

Result<replay::LookedUp> HistorySource::look_up(const replay::Lookup& asked) {
  if (log_ != nullptr) return replay::look_up(*log_, asked);
  if (!options_.input.empty()) return replay::look_up(file_, asked);
  const std::string query = asked.seq ? "seq=" + std::to_string(*asked.seq) : "request_id=" + asked.request_id;
  auto client = api::OperatorClient::open(
      {.url = options_.server, .data_dir = options_.data_dir, .token_file = {}, .ca_file = {}});
  if (!client) return client.error();
  const Result<std::string> answer = client->get("/ledger/v1/records?" + query);
  if (!answer) return answer.error();
  return replay::looked_up_from_json(*answer);
}

Result<replay::History> HistorySource::history(const std::string& node, const replay::Cut& at) {
  if (log_ != nullptr) return replay::history_from_log(*log_, node, at);
  if (!options_.input.empty()) {
    ProgressLine progress("reading " + printable(options_.input, 60));
    return replay::history_from_stream(file_, node, at, std::ref(progress));
  }
  const Result<NodeName> name = NodeName::parse(node);
  if (!name) return name.error();
  const Result<std::string> lines = fetch_node_history(options_.server, options_.data_dir, name->str());
  if (!lines) return lines.error();
  std::istringstream stream(*lines);
  return replay::history_from_stream(stream, name->str(), at);
}

Result<std::vector<Record>> HistorySource::nameless(const replay::AgentLog& log) const {
  if (log_ == nullptr || !replay::may_be_nameless(log)) return std::vector<Record>();
  return replay::nameless_refusals(*log_, log);
}

std::vector<std::string> HistorySource::names_like(const std::string& name) const {
  std::vector<std::string> names;
  if (log_ == nullptr) return names;
  const Result<void> read = log_->each_node([&](std::string_view known, const Result<NodeState>&) {
    if (known.starts_with(name + "-")) names.emplace_back(known);
    return names.size() < 5 && known.substr(0, name.size()) <= name;
  });
  if (!read) names.clear();
  return names;
}

}  // namespace ledger::tools
