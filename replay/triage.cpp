#include "replay/triage.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <set>

#include "replay/causes.h"
#include "replay/claims.h"
#include "replay/remedies.h"
#include "replay/rows.h"

namespace ledger::replay {

namespace json = boost::json;

namespace {

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

// Names that were turned away before their password was looked at (the projection does not know these refusals), and
// those that somebody set free or bound to another password.
Result<void> add_from_records(const EventLog& log, const TriageOptions& options, Candidates& out) {
  Seq from = 1;
  if (options.since) {
    const Result<Seq> before = last_seq_until(log, Time{options.since->micros - 1});
    if (!before) return before.error();
    from = *before + 1;
  }
  return log.scan(from, log.head(), [&](Seq, const Result<Record>& record) {
    if (!record || record->node.empty()) return true;
    const bool changed = as<BindingReleased>(*record) != nullptr || as<BindingChanged>(*record) != nullptr;
    if (changed || is_refusal(record->kind())) (is_bare_claim(*record) ? out.claimed : out.names).insert(record->node);
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

std::string what_happened(const Record& record) {
  const auto* epoch = as<EpochStarted>(record);
  if (epoch != nullptr && epoch->cause == "restored" && epoch->head_after > 0)
    return fmt::format("snapshot went back to seq {}", epoch->head_after);
  std::string what(epoch != nullptr ? "memory " + epoch->cause : std::string(name_of(record.kind())));
  std::replace(what.begin(), what.end(), '_', ' ');
  return fmt::format("{}, record {}", printable(what, 60), record.seq);
}

// The last thing that happened to the server among what the explanation cites.
Fact event_of(const Explanation& explanation) {
  Fact event;
  for (const Step& step : explanation.timeline.steps)
    if (is_server_wide(step.record->kind()) &&
        std::any_of(explanation.evidence.begin(), explanation.evidence.end(),
                    [&](const Fact& fact) { return fact.seq == step.record->seq; }))
      event = {step.record->seq, what_happened(*step.record)};
  return event;
}

Result<std::optional<TriageEntry>> examine(const EventLog& log, const std::string& name, const TriageOptions& options,
                                           const Candidates& candidates) {
  const Result<History> history = history_from_log(log, name);
  if (!history) return history.error();
  Explanation explanation = explain(*history);
  tell_since(Cut{.seq = {}, .time = options.since}, explanation);
  if (explanation.cause == Cause::kNone && !explanation.suspected) return std::optional<TriageEntry>();
  TriageEntry entry;
  entry.node = name;
  entry.state = explanation.state;
  entry.refused = explanation.refusal != nullptr;
  entry.cause = explanation.cause == Cause::kNone ? *explanation.suspected : explanation.cause;
  entry.confidence = explanation.cause == Cause::kNone ? Confidence::kLow : explanation.confidence;
  entry.summary = explanation.summary;
  entry.only_claimed = explanation.only_claimed;
  entry.event = event_of(explanation);
  if (const auto state = candidates.states.find(name); state != candidates.states.end())
    entry.refusals = state->second.rejections;
  if (entry.refused) entry.last = explanation.refusal->time;
  entry.takeover_possible = std::any_of(explanation.warnings.begin(), explanation.warnings.end(),
                                        [](const std::string& warning) { return warning == kTakeoverWarning; });
  return std::optional<TriageEntry>(std::move(entry));
}

// Entries side by side in the list that have a cause, and whether they are refused, in common.
struct Group {
  Cause cause = Cause::kUnknown;
  bool refused = false;
  std::size_t nodes = 0;
  Fact event;  // of all of them, or none
};

void sort_entries(Triage& triage) {
  std::map<std::pair<bool, Cause>, std::size_t> sizes;
  for (const TriageEntry& entry : triage.entries) ++sizes[{entry.refused, entry.cause}];
  std::sort(triage.entries.begin(), triage.entries.end(), [&](const TriageEntry& a, const TriageEntry& b) {
    if (a.refused != b.refused) return a.refused;
    const std::size_t size_a = sizes[{a.refused, a.cause}], size_b = sizes[{b.refused, b.cause}];
    if (size_a != size_b) return size_a > size_b;
    if (a.cause != b.cause) return a.cause < b.cause;
    return a.node < b.node;
  });
}

std::vector<Group> groups_of(const Triage& triage) {
  std::vector<Group> groups;
  for (const TriageEntry& entry : triage.entries) {
    if (groups.empty() || groups.back().cause != entry.cause || groups.back().refused != entry.refused)
      groups.push_back({.cause = entry.cause, .refused = entry.refused, .nodes = 0, .event = entry.event});
    ++groups.back().nodes;
    if (groups.back().event.seq != entry.event.seq) groups.back().event = {};
  }
  return groups;
}

std::vector<std::pair<Cause, std::size_t>> by_size(const Triage& triage) {
  std::vector<std::pair<Cause, std::size_t>> out(triage.counts.begin(), triage.counts.end());
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return out;
}

}  // namespace

Result<std::optional<Time>> parse_since(std::string_view text, Time now) {
  if (text == "ever") return std::optional<Time>();
  if (const auto seconds = seconds_of_span(text)) return std::optional<Time>(now.plus_seconds(-*seconds));
  const Result<Time> time = Time::parse(text);
  if (time) return std::optional<Time>(*time);
  return Error{Errc::invalid, "since '" + printable(text, 40) +
                                  "' is not a span like 30m, 24h or 7d, not a time (RFC 3339), and not `ever`"};
}

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
    ++done;
    if (progress) progress(done, names->size());
    Result<std::optional<TriageEntry>> entry = examine(log, name, options, candidates);
    if (!entry) return entry.error();
    if (!*entry) continue;
    ++out.counts[(*entry)->cause];
    out.refused += (*entry)->refused ? 1 : 0;
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
  out["refused"] = triage.refused;
  out["suspicious"] = triage.entries.size() - triage.refused;
  json::object counts;
  for (const auto& [cause, count] : by_size(triage)) counts[name_of(cause)] = count;
  out["counts"] = std::move(counts);
  json::array& groups = out["groups"].emplace_array();
  for (const Group& group : groups_of(triage))
    groups.push_back({{"cause", text(name_of(group.cause))},
                      {"refused", group.refused},
                      {"nodes", group.nodes},
                      {"event", group.event.seq == 0 ? json::value(nullptr)
                                                     : json::value({{"seq", group.event.seq},
                                                                    {"what", group.event.fact}})}});
  json::array nodes;
  for (const TriageEntry& entry : triage.entries) {
    json::object node;
    node["node"] = entry.node;
    node["state"] = entry.state;
    node["cause"] = text(name_of(entry.cause));
    node["confidence"] = text(name_of(entry.confidence));
    node["summary"] = entry.summary;
    node["refused"] = entry.refused;
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

namespace {

// "41 nodes refused: 38 RESTORED (snapshot went back to seq 8812), 2 DUPNAME, 1 TOKEN"; empty: none is.
std::string headline(const Triage& triage, bool refused) {
  const std::size_t nodes = refused ? triage.refused : triage.entries.size() - triage.refused;
  if (nodes == 0) return "";
  std::string parts;
  for (const Group& group : groups_of(triage)) {
    if (group.refused != refused) continue;
    parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", group.nodes, name_of(group.cause));
    if (group.event.seq != 0) parts += " (" + group.event.fact + ")";
  }
  return fmt::format("{} node{} {}: {}", nodes, nodes == 1 ? "" : "s", refused ? "refused" : "suspicious", parts);
}

}  // namespace

std::string to_text(const Triage& triage, const TextStyle& style, const std::string& options) {
  const auto paint = [&](const char* code, std::string text) {
    return style.color ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : text;
  };
  const std::string as_of = fmt::format("as of seq {}, {}", triage.as_of_seq,
                                        triage.as_of_time.known() ? clock_text(triage.as_of_time) : "time not known");
  std::string out;
  if (triage.entries.empty()) out = paint("32", "nothing is refused") + "   (" + as_of + ")\n";
  for (const bool refused : {true, false}) {
    const std::string head = headline(triage, refused);
    if (head.empty()) continue;
    for (const std::string& line : wrap_text(head, style.width)) out += paint("1", line) + "\n";
    for (const TriageEntry& entry : triage.entries) {
      if (entry.refused != refused) continue;
      const std::string times = entry.refusals > 0 ? fmt::format("{}x", entry.refusals) : "";
      out += fmt::format(" {:<10} {:<6}  {:<20} {:>7}  ledger replay --node {}{}{}\n", name_of(entry.cause),
                         name_of(entry.confidence), entry.last.known() ? clock_text(entry.last) : "-", times, shell_word(entry.node),
                         options, entry.only_claimed ? "  (name only claimed)" : "");
    }
  }
  if (!triage.entries.empty()) out += paint("2", as_of) + "\n";
  if (triage.left_out > 0) out += fmt::format(" ... and {} more names that were not looked at\n", triage.left_out);
  for (const std::string& warning : triage.warnings) out += " beware: " + warning + "\n";
  return out;
}

}  // namespace ledger::replay
