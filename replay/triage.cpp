#include "replay/triage.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <set>

#include "replay/causes.h"
#include "replay/claims.h"

namespace ledger::replay {

namespace json = boost::json;

namespace {

constexpr std::size_t kNameWidth = 28;

struct Candidates {
  std::set<std::string> names;
  std::set<std::string> claimed;  // by refused strangers; some are in `names` as well
  std::map<std::string, NodeState, std::less<>> states;
};

bool in_time(const Time& last, const TriageOptions& options) { return !options.since || last >= *options.since; }

// Open refusals, and names that share a password.
Result<void> add_from_projection(const EventLog& log, const TriageOptions& options, Candidates& out, Triage& triage) {
  std::map<Fingerprint, std::vector<std::string>> holders;
  const Result<void> read = log.each_node([&](std::string_view name, const Result<NodeState>& state) {
    if (!state) {
      triage.warnings.push_back(fmt::format("the state of {} cannot be read: {}", printable(name, 80),
                                            state.error().message));
      return true;
    }
    const bool refused = state->rejections > 0 && in_time(state->rejected.time, options);
    if (refused) out.names.emplace(name);
    if (state->bound.known()) holders[state->bound].emplace_back(name);
    if (refused) out.states.emplace(name, *state);
    return true;
  });
  if (!read) return read.error();
  for (const auto& [fingerprint, names] : holders)
    if (names.size() > 1) out.names.insert(names.begin(), names.end());
  return {};
}

// Names that were turned away before their password was looked at: the projection does not know these refusals.
Result<void> add_from_records(const EventLog& log, const TriageOptions& options, Candidates& out) {
  Seq from = 1;
  if (options.since) {
    const Result<Seq> before = last_seq_until(log, Time{options.since->micros - 1});
    if (!before) return before.error();
    from = *before + 1;
  }
  return log.scan(from, log.head(), [&](Seq, const Result<Record>& record) {
    if (!record || record->node.empty() || !is_refusal(record->kind())) return true;
    (is_bare_claim(*record) ? out.claimed : out.names).insert(record->node);
    return true;
  });
}

// In the order in which they are worth looking at.
Result<std::vector<std::string>> in_order(const EventLog& log, const Candidates& candidates) {
  std::vector<std::string> order(candidates.names.begin(), candidates.names.end()), unheard_of;
  for (const std::string& name : candidates.claimed) {
    if (candidates.names.contains(name)) continue;
    const auto state = log.node(name);
    if (!state) return state.error();
    (*state ? order : unheard_of).push_back(name);
  }
  order.insert(order.end(), unheard_of.begin(), unheard_of.end());
  return order;
}

Result<std::optional<TriageEntry>> examine(const EventLog& log, const std::string& name, const Candidates& candidates) {
  const Result<History> history = history_from_log(log, name);
  if (!history) return history.error();
  const Explanation explanation = explain(*history);
  if (explanation.cause == Cause::kNone) return std::optional<TriageEntry>();
  TriageEntry entry;
  entry.node = name;
  entry.state = explanation.state;
  entry.cause = explanation.cause;
  entry.confidence = explanation.confidence;
  entry.summary = explanation.summary;
  entry.only_claimed = explanation.only_claimed;
  if (const auto state = candidates.states.find(name); state != candidates.states.end())
    entry.refusals = state->second.rejections;
  for (const Step& step : explanation.timeline.steps)
    if (step.own && is_refusal(step.record->kind())) entry.last = step.record->time;
  entry.takeover_possible = std::any_of(explanation.warnings.begin(), explanation.warnings.end(),
                                        [](const std::string& warning) { return warning == kTakeoverWarning; });
  return std::optional<TriageEntry>(std::move(entry));
}

void sort_entries(Triage& triage) {
  std::sort(triage.entries.begin(), triage.entries.end(), [&](const TriageEntry& a, const TriageEntry& b) {
    const std::size_t size_a = triage.counts[a.cause], size_b = triage.counts[b.cause];
    if (size_a != size_b) return size_a > size_b;
    if (a.cause != b.cause) return a.cause < b.cause;
    return a.node < b.node;
  });
}

std::vector<std::pair<Cause, std::size_t>> by_size(const Triage& triage) {
  std::vector<std::pair<Cause, std::size_t>> out(triage.counts.begin(), triage.counts.end());
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return out;
}

}  // namespace

Result<Triage> triage(const EventLog& log, const TriageOptions& options, const Progress& progress) {
  Triage out;
  out.as_of_seq = log.head();
  if (out.as_of_seq > 0)
    if (const Result<Record> last = log.read(out.as_of_seq)) out.as_of_time = last->time;
  Candidates candidates;
  if (const auto added = add_from_projection(log, options, candidates, out); !added) return added.error();
  if (const auto added = add_from_records(log, options, candidates); !added) return added.error();
  const Result<std::vector<std::string>> names = in_order(log, candidates);
  if (!names) return names.error();
  std::uint64_t done = 0;
  for (const std::string& name : *names) {
    if (done == options.limit) {
      out.left_out = names->size() - done;
      break;
    }
    if (progress) progress(++done, names->size());
    else ++done;
    Result<std::optional<TriageEntry>> entry = examine(log, name, candidates);
    if (!entry) return entry.error();
    if (!*entry) continue;
    ++out.counts[(*entry)->cause];
    out.entries.push_back(std::move(**entry));
  }
  sort_entries(out);
  return out;
}

json::object to_json(const Triage& triage) {
  const auto text = [](std::string_view value) { return json::string(value.data(), value.size()); };
  json::object out;
  json::object as_of;
  as_of["seq"] = triage.as_of_seq;
  as_of["time"] = triage.as_of_time.known() ? json::value(triage.as_of_time.to_string()) : json::value(nullptr);
  out["as_of"] = std::move(as_of);
  json::object counts;
  for (const auto& [cause, count] : by_size(triage)) counts[name_of(cause)] = count;
  out["counts"] = std::move(counts);
  json::array nodes;
  for (const TriageEntry& entry : triage.entries) {
    json::object node;
    node["node"] = entry.node;
    node["state"] = entry.state;
    node["cause"] = text(name_of(entry.cause));
    node["confidence"] = text(name_of(entry.confidence));
    node["summary"] = entry.summary;
    node["refusals"] = entry.refusals;
    node["last"] = entry.last.known() ? json::value(entry.last.to_string()) : json::value(nullptr);
    node["takeover_possible"] = entry.takeover_possible;
    node["only_claimed"] = entry.only_claimed;
    nodes.push_back(std::move(node));
  }
  out["nodes"] = std::move(nodes);
  out["left_out"] = triage.left_out;
  out["warnings"] = json::array(triage.warnings.begin(), triage.warnings.end());
  return out;
}

std::string to_text(const Triage& triage, const TextStyle& style) {
  const auto paint = [&](const char* code, std::string text) {
    return style.color ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : text;
  };
  std::string out;
  if (triage.entries.empty()) {
    out = paint("32", "nothing is refused");
  } else {
    std::string parts;
    for (const auto& [cause, count] : by_size(triage))
      parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", count, name_of(cause));
    const std::size_t all = triage.entries.size();
    out = paint("1", fmt::format("{} node{} to look at: {}", all, all == 1 ? "" : "s", parts));
  }
  out += fmt::format("   (as of seq {}, {})\n", triage.as_of_seq,
                     triage.as_of_time.known() ? triage.as_of_time.to_string() : "time not known");
  for (const TriageEntry& entry : triage.entries) {
    const std::string name = printable(entry.node, 253);
    std::string last = entry.last.known() ? Time{entry.last.micros / 1'000'000 * 1'000'000}.to_string() : "-";
    out += fmt::format(" {:<10} {:<6} {:<{}} {:<20}  ledger replay --node {}{}\n", name_of(entry.cause),
                       name_of(entry.confidence), name, kNameWidth, last, name,
                       entry.only_claimed ? "  (name only claimed)" : "");
  }
  if (triage.left_out > 0) out += fmt::format(" ... and {} more names that were not looked at\n", triage.left_out);
  for (const std::string& warning : triage.warnings) out += " beware: " + warning + "\n";
  return out;
}

}  // namespace ledger::replay
