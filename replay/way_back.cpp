#include "replay/way_back.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "replay/remedies.h"

namespace ledger::replay {

namespace json = boost::json;

namespace {

// What k3s remembers of one name, as far as the log tells.
struct Memory {
  bool bound = false;
  Fingerprint password;  // not known: bound, to what was never seen
  Seq since = 0;

  void bind(const Fingerprint& fingerprint, Seq seq) { *this = {true, fingerprint, seq}; }
  void forget(Seq seq) { *this = {false, {}, seq}; }
};

void follow_upstream(const Record& record, Memory& memory) {
  if (const auto* stored = as<PasswordStored>(record)) return memory.bind(stored->fingerprint, record.seq);
  if (const auto* verified = as<PasswordVerified>(record)) return memory.bind(verified->fingerprint, record.seq);
  if (const auto* changed = as<BindingChanged>(record)) return memory.bind(changed->to, record.seq);
  const auto* rejected = as<PasswordRejected>(record);
  if (rejected == nullptr) return;
  // It has one, and not this one. What we believed it to have may be it.
  if (!memory.bound || memory.password == rejected->fingerprint)
    memory.bind(rejected->bound == rejected->fingerprint ? Fingerprint() : rejected->bound, record.seq);
}

// One step. `before` is our own state ahead of the record.
void follow(const Record& record, const NodeState& before, Memory& memory) {
  if (is_imported(record)) return;
  if (is_upstreams(record)) return follow_upstream(record, memory);
  if (const auto* imported = as<BindingImported>(record)) {
    if (imported->origin != "log") memory.bind(imported->fingerprint, record.seq);
  } else if (as<NodeObjectDeleted>(record) != nullptr) {
    memory.forget(record.seq);
  } else if (const auto* released = as<BindingReleased>(record)) {
    if (released->by == "node_deleted" || released->by == "sweep" || released->by == "k3s")
      memory.forget(record.seq);
  } else if (const auto* verified = as<PasswordVerified>(record)) {
    // Compared with k3s' own hash: now we know what that is of.
    if (before.bound_by_hash && memory.bound && !memory.password.known()) memory.password = verified->fingerprint;
  }
}

BackVerdict judge(const NodeState& state, const Memory& memory) {
  if (!state.is_bound()) return state.released && memory.bound ? BackVerdict::released : BackVerdict::known;
  if (!memory.bound) return BackVerdict::first_use;
  const bool same = state.bound_by_hash ? !memory.password.known() : memory.password == state.bound;
  return same ? BackVerdict::known : BackVerdict::conflict;
}

// The whole history of one name.
Result<Memory> memory_of(const EventLog& log, const std::string& node) {
  Memory memory;
  NodeState state;
  std::optional<Error> unreadable;
  const Result<void> read = log.scan(Index::node, node, 1, UINT64_MAX, [&](Seq, const Result<Record>& record) {
    if (!record) {
      unreadable = record.error();
      return false;
    }
    if (record->node != node) return true;  // it is only named there
    follow(*record, state, memory);
    apply(*record, state);
    return true;
  });
  if (!read) return read.error();
  if (unreadable) return *unreadable;
  return memory;
}

// Whether the record that made the binding says by itself that k3s has it too.
bool is_k3s_own(const EventLog& log, const NodeState& state) {
  if (!state.is_bound() || state.since == 0) return false;
  // It refused this very password since: somebody has changed what it has.
  if (state.bound.known() && state.rejected.fingerprint == state.bound) return false;
  const Result<Record> record = log.read(state.since);
  if (!record) return false;
  if (const auto* imported = as<BindingImported>(*record))
    return imported->origin != "log" && state.version == state.since;
  return is_upstreams(*record) && state.version == state.since;
}

Result<void> read_modes(const EventLog& log, WayBack* way) {
  return log.scan(Index::server_wide, "", 1, UINT64_MAX, [way](Seq seq, const Result<Record>& record) {
    const auto* changed = record ? as<ModeChanged>(*record) : nullptr;
    if (changed == nullptr) return true;
    const bool going_on = !way->spans.empty() && way->spans.back().to == 0;
    const bool ours = changed->mode != "observe";
    if (ours && !going_on) way->spans.push_back({seq, 0, record->time, {}});
    if (!ours && going_on) {
      way->spans.back().to = seq;
      way->spans.back().ended = record->time;
    }
    way->mode = changed->mode;
    return true;
  });
}

}  // namespace

std::string_view name_of(BackVerdict verdict) {
  switch (verdict) {
    case BackVerdict::known: return "known";
    case BackVerdict::first_use: return "first_use";
    case BackVerdict::conflict: return "conflict";
    case BackVerdict::released: return "released";
    case BackVerdict::unreadable: return "unreadable";
  }
  fatal("a BackVerdict without a name");
}

std::uint64_t WayBack::count(BackVerdict verdict) const {
  if (verdict == BackVerdict::known) return known;
  return static_cast<std::uint64_t>(std::count_if(
      nodes.begin(), nodes.end(), [verdict](const BackNode& node) { return node.verdict == verdict; }));
}

Result<WayBack> find_way_back(const EventLog& log, const HashStore& hashes) {
  WayBack way;
  if (const Result<void> read = read_modes(log, &way); !read) return read.error();
  const auto look_at = [&](std::string_view name, const Result<NodeState>& state) {
    BackNode node;
    node.node = name;
    if (!state) {
      node.verdict = BackVerdict::unreadable;
    } else if (!is_k3s_own(log, *state)) {
      const Result<Memory> memory = memory_of(log, node.node);
      node.verdict = memory ? judge(*state, *memory) : BackVerdict::unreadable;
      if (memory && memory->bound) node.k3s_bound = memory->password, node.k3s_since = memory->since;
    }
    if (state) {
      node.has_hash = hashes.has(name, *state), node.held = state->held;
      node.bound = state->bound, node.since = state->since;
    }
    if (node.verdict == BackVerdict::known) ++way.known;
    if (node.verdict != BackVerdict::known || node.held) way.nodes.push_back(std::move(node));
    return true;
  };
  if (const Result<void> read = log.each_node(look_at); !read) return read.error();
  return way;
}

// ---- Words -------------------------------------------------------------------------------------------------

namespace {

std::string secret_name(const BackNode& node, const std::string& flavour) {
  return shell_word(node.node + ".node-password." + flavour);
}

std::string deletion(const BackNode& node, const std::string& flavour) {
  return "kubectl -n kube-system delete secret " + secret_name(node, flavour);
}

bool must_go(const BackNode& node) {
  return node.verdict == BackVerdict::conflict || node.verdict == BackVerdict::released;
}

std::string brief(const Fingerprint& fingerprint) {
  return fingerprint.known() ? "#" + fingerprint.text.substr(0, 8) : "a password never seen here";
}

std::string describe(const BackNode& node) {
  std::string text = fmt::format("  {}", printable(node.node, 253));
  if (node.verdict == BackVerdict::conflict)
    text += fmt::format("   here {} since record {}, there {} (record {})", brief(node.bound), node.since,
                        brief(node.k3s_bound), node.k3s_since);
  if (node.verdict == BackVerdict::released)
    text += fmt::format("   released in record {}, there {} (record {})", node.since, brief(node.k3s_bound),
                        node.k3s_since);
  if (node.verdict == BackVerdict::first_use)
    text += fmt::format("   {} since record {}{}", brief(node.bound), node.since,
                        node.has_hash ? "" : ", no hash kept");
  return text + "\n";
}

template <class Wanted>
std::string list(const WayBack& way, const char* heading, Wanted wanted) {
  std::string text;
  for (const BackNode& node : way.nodes)
    if (wanted(node)) text += describe(node);
  return text.empty() ? text : std::string(heading) + "\n" + text;
}

std::string describe_spans(const WayBack& way) {
  if (way.mode.empty())
    return "This ledger never stood in front of a k3s server: every binding since its adoption is its own.\n";
  std::string text;
  for (const OwnSpan& span : way.spans)
    text += span.to == 0 ? fmt::format("It decides since record {}, {}.\n", span.from, span.began.to_string())
                         : fmt::format("It decided from record {}, {}, to record {}, {}.\n", span.from,
                                       span.began.to_string(), span.to, span.ended.to_string());
  if (way.spans.empty()) text = "It never decided: k3s knows every node itself.\n";
  if (!way.spans.empty() && way.spans.back().to == 0)
    text +=
        "It still does: names that are bound from now on are not in this list. Look again after\n"
        "`ledger mode observe`.\n";
  return text;
}

std::string commands(const WayBack& way, const std::string& flavour) {
  std::string text;
  for (const BackNode& node : way.nodes)
    if (must_go(node)) text += "  " + deletion(node, flavour) + "\n";
  if (!text.empty())
    text = "delete these, where k3s keeps passwords in Secrets (v1.20 and later):\n" + text +
           "v1.17 to v1.19: take the lines of these names out of <server directory>/cred/node-passwd instead\n";
  const bool gives = std::any_of(way.nodes.begin(), way.nodes.end(), [](const BackNode& node) {
    return node.has_hash && (node.verdict == BackVerdict::conflict || node.verdict == BackVerdict::first_use);
  });
  if (gives)
    text += fmt::format(
        "then give k3s the bindings whose hash is kept (optional: it keeps the names from others until\n"
        "their machines come):\n"
        "  ledger state export --format secrets --only-missing --flavour {} --output back.json\n"
        "  kubectl apply -f back.json && rm back.json\n",
        flavour);
  return text;
}

}  // namespace

std::string render_text(const WayBack& way, const std::string& flavour) {
  const auto is = [](BackVerdict verdict) {
    return [verdict](const BackNode& node) { return node.verdict == verdict; };
  };
  std::string text = describe_spans(way);
  text += fmt::format("{} node(s): k3s has the same binding, or needs none.\n", way.known);
  text += list(way, "\nk3s would REFUSE these machines: it has another password for the name",
               is(BackVerdict::conflict));
  text += list(way, "\nreleased here, but not there: k3s would refuse a machine with a new password",
               is(BackVerdict::released));
  text += list(way,
               "\nnot known to k3s: it binds what the machine shows first, and admits it\n"
               "(unless it has a Secret of that name from before the log begins)",
               is(BackVerdict::first_use));
  text += list(way, "\nheld here; k3s knows no holds and will admit whoever has, or first shows, the password",
               [](const BackNode& node) { return node.held; });
  text += list(way, "\nnot judged: records of these nodes cannot be read (archives: --archives)",
               is(BackVerdict::unreadable));
  const std::string todo = commands(way, flavour);
  if (!todo.empty()) text += "\nwhat to do before k3s decides again\n" + todo;
  if (todo.empty() && way.count(BackVerdict::unreadable) == 0)
    text += "\nnothing has to be done before k3s decides again\n";
  return text;
}

std::string render_json(const WayBack& way, const std::string& flavour) {
  json::array spans;
  for (const OwnSpan& span : way.spans) {
    json::object entry{{"from_seq", span.from}, {"from", span.began.to_string()}};
    if (span.to != 0) entry["to_seq"] = span.to, entry["to"] = span.ended.to_string();
    spans.push_back(std::move(entry));
  }
  json::array nodes;
  for (const BackNode& node : way.nodes) {
    const std::string_view verdict = name_of(node.verdict);
    json::object entry{{"node", node.node},
                       {"verdict", json::string_view(verdict.data(), verdict.size())},
                       {"k3s_hash", node.has_hash},
                       {"held", node.held}};
    if (node.since != 0) entry["since_seq"] = node.since;
    if (node.bound.known()) entry["bound"] = node.bound.text;
    if (node.k3s_since != 0) entry["k3s_since_seq"] = node.k3s_since;
    if (node.k3s_bound.known()) entry["k3s_bound"] = node.k3s_bound.text;
    if (must_go(node)) entry["command"] = deletion(node, flavour);
    nodes.push_back(std::move(entry));
  }
  return json::serialize(json::object{{"mode", way.mode.empty() ? json::value(nullptr) : json::value(way.mode)},
                                      {"decided", std::move(spans)},
                                      {"known", way.known},
                                      {"nodes", std::move(nodes)}}) +
         "\n";
}

}  // namespace ledger::replay
