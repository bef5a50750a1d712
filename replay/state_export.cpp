#include "replay/state_export.h"

#include <boost/json.hpp>

#include "ledger/credentials.h"
#include "replay/node_summary.h"

namespace ledger::replay {

namespace json = boost::json;

namespace {

json::object secret_of(std::string_view node, const Secret& hash, const std::string& flavour) {
  const std::string name = std::string(node) + ".node-password." + flavour;
  return {{"apiVersion", "v1"},
          {"kind", "Secret"},
          {"metadata", {{"name", name}, {"namespace", "kube-system"}}},
          {"type", "Opaque"},
          {"immutable", true},
          {"data", {{"hash", base64(hash.reveal())}}}};
}

const Error kNotWritten{Errc::io, "the export could not be written"};

}  // namespace

Result<StateReport> export_state(const EventLog& log, const HashStore& hashes, StateFormat format,
                                 const std::string& flavour, const LineSink& sink,
                                 const std::function<bool(std::string_view node)>& wanted) {
  StateReport report;
  bool good = true;
  if (format == StateFormat::secrets) good = sink("{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[\n");
  if (format == StateFormat::json)
    good = sink("{\"ledger\":\"" + log.id() + "\",\"head\":" + std::to_string(log.head()) + ",\"nodes\":[\n");
  const auto item = [&](const json::object& object) {
    good = good && (report.written == 0 || sink(",\n")) && sink(json::serialize(object));
    ++report.written;
  };
  const Result<void> read = log.each_node([&](std::string_view node, const Result<NodeState>& state) {
    if (wanted && !wanted(node)) return true;
    if (!state) {
      report.left_out.emplace_back(node);
      return true;
    }
    if (format == StateFormat::json) {
      json::object summary = summary_of(node, *state);
      summary["k3s_hash"] = hashes.has(node, *state);
      item(summary);
    } else if (state->is_bound()) {
      const Secret hash = format == StateFormat::secrets ? hashes.find(node, *state) : Secret();
      if (hash.empty())
        report.left_out.emplace_back(node);
      else
        item(secret_of(node, hash, flavour));
    }
    return good;
  });
  if (!read) return read.error();
  if (format != StateFormat::node_passwd) good = good && sink("\n]}\n");
  if (!good) return kNotWritten;
  return report;
}

}  // namespace ledger::replay
