#include "replay/agent_match.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "replay/causes.h"
#include "replay/rows.h"
#include "replay/timeline.h"

namespace ledger::replay {

namespace json = boost::json;

namespace {

// A line follows the reply it is about; replies that were counted lie anywhere in their record's span.
constexpr std::int64_t kEarly_us = 1'000'000;
constexpr std::int64_t kLate_us = 3'000'000;
// Once the clocks are compared: agents give up on a reply after 10 s (20 s before v1.20.4).
constexpr std::int64_t kSlack_us = 10'000'000;
// A clock that is further off than this is believed only on the word of kManyLines.
constexpr std::int64_t kNearOffset_us = 600'000'000;
constexpr std::size_t kManyLines = 3;
constexpr std::size_t kSamples = 300;      // lines asked about one offset
constexpr std::size_t kAnchorLines = 40;   // beginnings of runs, and records, whose distances are tried
constexpr std::size_t kAnchorRecords = 500;
constexpr std::int64_t kAround_us = 3'600'000'000;
constexpr std::int64_t kCounted_us = 125'000'000;  // longest interval of the storm counter, and a little
constexpr std::size_t kMaxNameless = 20'000;
constexpr std::size_t kMaxScanned = 500'000;
// Bounds against journals and histories that somebody made up.
constexpr std::size_t kMaxSorts = 200;       // of lines
constexpr std::size_t kMaxOverlapping = 64;  // records at one moment
constexpr std::size_t kMaxHosts = 8;         // whose clocks are compared

// ---- sentences and records -------------------------------------------------------------------------------

// An answer stands behind the line, so whoever gave it knows of it.
bool is_answer(Saying saying) {
  return saying == Saying::password_rejected || saying == Saying::refused || saying == Saying::not_authorized ||
         saying == Saying::body_used_up || saying == Saying::without_certificate || saying == Saying::tunnel_opened;
}

bool has_status(const Record& record, std::int64_t status) {
  if (const auto* e = as<PasswordRejected>(record)) return status == 403 || e->status == status;
  if (const auto* e = as<TokenRejected>(record)) {
    // k3s v1.17 to v1.20 answered 500 to a wrong password, later ones 403 to none at all.
    if (is_imported(record)) return status == 401 || status == 403 || status == 500;
    return e->status == status || (e->status == 0 && status == 401);
  }
  if (const auto* e = as<RequestRejected>(record)) return e->status == status || e->status == 0;
  return false;
}

bool may_stand_for(const AgentLine& line, const Record& record) {
  switch (line.saying) {
    case Saying::password_rejected: return has_status(record, 403);
    case Saying::refused:
      if (!line.endpoint.empty() && !record.endpoint.empty() && line.endpoint != record.endpoint) return false;
      return has_status(record, line.status);
    case Saying::not_authorized: return has_status(record, 401) || as<TokenRejected>(record) != nullptr;
    case Saying::body_used_up:
    case Saying::without_certificate: return has_status(record, 401) && as<PasswordRejected>(record) == nullptr;
    case Saying::ca_not_trusted: {
      const auto* failed = as<TlsFailed>(record);
      return failed != nullptr && !failed->trust_probe.value_or(false);
    }
    case Saying::tunnel_opened: return as<TunnelOpened>(record) != nullptr;
    case Saying::tunnel_closed: return as<TunnelClosed>(record) != nullptr;
    case Saying::tunnel_refused: return is_refusal(record.kind()) && record.endpoint.ends_with("/connect");
    case Saying::no_answer: return as<PasswordStored>(record) != nullptr || as<PasswordVerified>(record) != nullptr;
    default: return false;
  }
}

// ---- clocks ----------------------------------------------------------------------------------------------

struct Span {
  std::int64_t from, to;
  const Record* record;
};

// The spans of the records that a sort of line may stand for, in order.
class Spans {
 public:
  Spans(const AgentLog& log, const std::vector<const Record*>& records) {
    for (const AgentLine& line : log.lines) {
      if (by_sort_.size() == kMaxSorts || by_sort_.count(sort_of(line)) != 0) continue;
      std::vector<Span>& spans = by_sort_[sort_of(line)];
      for (const Record* record : records)
        if (record->time.known() && may_stand_for(line, *record))
          spans.push_back({happened_from(*record), happened_to(*record), record});
      std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.from < b.from; });
      std::int64_t& longest = longest_[sort_of(line)];
      for (const Span& span : spans) longest = std::max(longest, span.to - span.from);
    }
  }

  // The span nearest to the moment, if one is within [-late, early] of it.
  const Span* near(const AgentLine& line, std::int64_t moment, std::int64_t early, std::int64_t late) const {
    const std::vector<Span>& spans = of(line);
    if (spans.empty()) return nullptr;
    const std::int64_t longest = longest_.at(sort_of(line));
    const Span* best = nullptr;
    std::int64_t best_distance = 0;
    auto at = std::upper_bound(spans.begin(), spans.end(), moment + early,
                               [](std::int64_t time, const Span& span) { return time < span.from; });
    for (std::size_t seen = 0; at != spans.begin() && seen < kMaxOverlapping; ++seen) {
      --at;
      if (at->from + longest + late < moment) break;
      if (at->to + late < moment) continue;
      const std::int64_t distance = moment < at->from ? at->from - moment : std::max<std::int64_t>(0, moment - at->to);
      if (best == nullptr || distance < best_distance) best = &*at, best_distance = distance;
      if (best_distance == 0) break;
    }
    return best;
  }
  const std::vector<Span>& of(const AgentLine& line) const {
    static const std::vector<Span> none;
    const auto found = by_sort_.find(sort_of(line));
    return found == by_sort_.end() ? none : found->second;
  }

 private:
  using Sort = std::tuple<Saying, int, std::string>;
  static Sort sort_of(const AgentLine& line) { return {line.saying, line.status, line.endpoint}; }
  // Of a record that another server decided, `time` is when it was imported.
  static std::int64_t happened_from(const Record& record) { return first_time_of(record).micros; }
  static std::int64_t happened_to(const Record& record) {
    return is_imported(record) ? first_time_of(record).micros : record.time.micros;
  }

  std::map<Sort, std::vector<Span>> by_sort_;
  std::map<Sort, std::int64_t> longest_;
};

struct Offset {
  std::int64_t micros = 0;
  std::size_t lines = 0;
};

std::vector<const AgentLine*> sampled(const AgentLog& log) {
  std::vector<const AgentLine*> timed, out;
  for (const AgentLine& line : log.lines)
    if (line.time && is_answer(line.saying)) timed.push_back(&line);
  const std::size_t step = std::max<std::size_t>(1, timed.size() / kSamples);
  for (std::size_t i = 0; i < timed.size(); i += step) out.push_back(timed[i]);
  return out;
}

std::size_t agreeing(const std::vector<const AgentLine*>& lines, const Spans& spans, std::int64_t offset) {
  std::size_t count = 0;
  for (const AgentLine* line : lines)
    count += spans.near(*line, line->time->micros + offset, kEarly_us, kLate_us) != nullptr ? 1 : 0;
  return count;
}

// Distances between the beginnings of runs and records: one of them is the offset.
std::set<std::int64_t> candidates(const AgentLog& log, const Spans& spans) {
  std::set<std::int64_t> out;
  const AgentLine* before = nullptr;
  std::size_t anchors = 0;
  for (const AgentLine& line : log.lines) {
    const bool begins = before == nullptr || before->text != line.text;
    before = &line;
    if (!begins || !line.time || !is_answer(line.saying) || ++anchors > kAnchorLines) continue;
    const std::vector<Span>& all = spans.of(line);
    const std::size_t step = std::max<std::size_t>(1, all.size() / kAnchorRecords);
    for (std::size_t i = 0; i < all.size(); i += step)
      out.insert((all[i].from - line.time->micros) / 500'000 * 500'000);  // to half a second
  }
  return out;
}

Offset best_offset(const AgentLog& log, const Spans& spans) {
  const std::vector<const AgentLine*> lines = sampled(log);
  Offset best{.micros = 0, .lines = agreeing(lines, spans, 0)};
  for (const std::int64_t offset : candidates(log, spans)) {
    const std::size_t count = agreeing(lines, spans, offset);
    const bool nearer = std::abs(offset) < std::abs(best.micros);
    if (count < best.lines || (count == best.lines && !nearer)) continue;
    if (std::abs(offset) > kNearOffset_us && count < kManyLines) continue;
    best = {.micros = offset, .lines = count};
  }
  // Records of one outcome tell the moment itself: the middle of what they say.
  std::vector<std::int64_t> exact;
  for (const AgentLine* line : lines) {
    const Span* span = spans.near(*line, line->time->micros + best.micros, kEarly_us, kLate_us);
    if (span != nullptr && span->from == span->to) exact.push_back(span->from - line->time->micros);
  }
  if (exact.empty()) return best;
  std::sort(exact.begin(), exact.end());
  best.micros = exact[exact.size() / 2];
  return best;
}

// ---- lines and records -----------------------------------------------------------------------------------

std::string where_text(const Record& record) {
  return record.source.empty() ? "" : " from " + printable(host_of(record.source), 45);
}

std::string seqs_text(const std::vector<const Record*>& records) {
  const Seq first = records.front()->seq, last = records.back()->seq;
  return first == last ? fmt::format("record {}", first) : fmt::format("records {}..{}", first, last);
}

class Matcher {
 public:
  Matcher(const AgentLog& log, const History& history, const std::vector<Record>& nameless)
      : log_(log), history_(history), own_(own_records(history)) {
    out_.log = &log;
    out_.node = history.node;
    pick_nameless(nameless);
  }

  AgentMatch run() {
    std::vector<const Record*> records = own_;
    records.insert(records.end(), nameless_.begin(), nameless_.end());
    const Spans spans(log_, records);
    const Offset offset = best_offset(log_, spans);
    out_.offset_lines = offset.lines;
    if (offset.lines > 0) out_.offset_s = static_cast<double>(offset.micros) / 1e6;
    offset_ = offset.micros;
    for (const AgentLine& line : log_.lines) place(line, spans);
    for (AgentRun& run : out_.runs) run.verdict = verdict(run);
    find_unheard();
    return std::move(out_);
  }

 private:
  static std::vector<const Record*> own_records(const History& history) {
    std::vector<const Record*> own;
    for (const Record& record : history.records)
      if (record.node == history.node || (record.node.empty() && is_refusal(record.kind()))) own.push_back(&record);
    return own;
  }

  // Of records that name nobody, those of the address that explains most lines which the node's own do not.
  void pick_nameless(const std::vector<Record>& nameless) {
    if (nameless.empty()) return;
    const std::vector<const AgentLine*> lines = sampled(log_);
    const Offset own = best_offset(log_, Spans(log_, own_));
    std::map<std::string, std::vector<const Record*>, std::less<>> by_host;
    for (const Record& record : nameless) by_host[std::string(host_of(record.source))].push_back(&record);
    // By the clock as it seems to be; only the best are worth asking about another one.
    std::vector<std::pair<std::size_t, const std::vector<const Record*>*>> ranked;
    for (const auto& [host, records] : by_host)
      ranked.emplace_back(agreeing(lines, Spans(log_, records), own.micros) * kMaxNameless + records.size(), &records);
    std::sort(ranked.rbegin(), ranked.rend());
    if (ranked.size() > kMaxHosts) ranked.resize(kMaxHosts);
    std::size_t best = own.lines;
    for (const auto& [rank, records] : ranked) {
      std::vector<const Record*> with = own_;
      with.insert(with.end(), records->begin(), records->end());
      const Spans spans(log_, with);
      const std::size_t explained = agreeing(lines, spans, best_offset(log_, spans).micros);
      if (explained <= best) continue;
      best = explained;
      nameless_ = *records;
    }
  }

  void place(const AgentLine& line, const Spans& spans) {
    const Span* span =
        line.time ? spans.near(line, line.time->micros + offset_, kSlack_us, kSlack_us) : nullptr;
    const Record* record = span != nullptr ? span->record : nullptr;
    if (record != nullptr) used_.insert(record);
    if (is_answer(line.saying)) ++(record != nullptr ? out_.matched : out_.without_record);
    AgentRun* run = out_.runs.empty() ? nullptr : &out_.runs.back();
    const bool goes_on = run != nullptr && run->first->text == line.text && run->first->saying == line.saying &&
                         run->records.empty() == (record == nullptr) &&
                         run->first->time.has_value() == line.time.has_value();
    if (!goes_on) {
      out_.runs.push_back({.first = &line, .last = &line, .lines = 0, .records = {}, .by_time_alone = false, .verdict = {}});
      run = &out_.runs.back();
    }
    run->last = &line;
    ++run->lines;
    if (record == nullptr) return;
    if (run->records.empty() || run->records.back() != record) run->records.push_back(record);
    run->by_time_alone = run->by_time_alone || record->node.empty();
  }

  std::string verdict(const AgentRun& run) const {
    if (!run.records.empty()) return found(run);
    if (is_answer(run.first->saying) || run.first->saying == Saying::tunnel_refused) return missing(run);
    switch (run.first->saying) {
      case Saying::started: return "a start; the ledger sees what it asks";
      case Saying::ca_not_fetched: return "no record: it did not get as far as asking for anything";
      case Saying::ca_not_trusted: return "no record that could be told from other handshakes";
      case Saying::ca_differs: return "no record: the agent gave up by itself, its token is of another cluster";
      case Saying::token_unusable: return "no record: the agent gave up by itself and asked nothing";
      case Saying::answer_unusable: return "no refusal: the server answered, and the agent could not use it";
      case Saying::no_answer: return "no record: nobody answered, or the reply was lost on its way";
      default: return "no record";
    }
  }

  std::string found(const AgentRun& run) const {
    const Record& record = *run.records.front();
    std::string text = seqs_text(run.records) + ": " + std::string(name_of(record.kind()));
    if (const auto* e = as<TokenRejected>(record); e != nullptr && !e->reason.empty()) text += " " + printable(e->reason, 40);
    if (const auto* e = as<RequestRejected>(record); e != nullptr) text += " " + printable(e->reason, 40);
    if (const auto* e = as<PasswordRejected>(record); e != nullptr && e->fingerprint.known())
      text += " #" + printable(std::string_view(e->fingerprint.text).substr(0, 8), 8);
    text += where_text(record);
    if (run.by_time_alone) text += " (names no node: by time and address alone)";
    if (run.first->saying == Saying::no_answer) text += ": it was let in, and the reply was lost";
    return text;
  }

  std::string missing(const AgentRun& run) const {
    if (!run.first->time) return "no record: the line has no time to look for";
    const auto& records = history_.records;
    const std::int64_t moment = run.first->time->micros + offset_;
    if (!records.empty() && records.back().time.known() && moment > records.back().time.micros + kAround_us)
      return "no record: it is later than anything this ledger has about the node";
    const Record* latest = nullptr;
    for (const Record* record : own_)
      if (may_stand_for(*run.first, *record) && record->time.micros <= moment) latest = record;
    if (latest != nullptr && moment - latest->time.micros <= kCounted_us)
      return fmt::format("no record yet: it repeats record {}, and what repeats is counted for up to 2 minutes before it "
                         "is written", latest->seq);
    return "no record: this ledger records before it answers; did it reach another server?";
  }

  // What the ledger refused under this name while the log was written, and the log does not show.
  void find_unheard() {
    std::optional<std::int64_t> from, to;
    for (const AgentLine& line : log_.lines) {
      if (!line.time) continue;
      from = std::min(from.value_or(line.time->micros), line.time->micros);
      to = std::max(to.value_or(line.time->micros), line.time->micros);
    }
    if (!from) return;
    for (const Record* record : own_)
      if (record->node == history_.node && is_refusal(record->kind()) && !is_imported(*record) &&
          used_.count(record) == 0 && first_time_of(*record).micros >= *from + offset_ &&
          record->time.micros <= *to + offset_)
        out_.unheard.push_back(record);
  }

  const AgentLog& log_;
  const History& history_;
  std::vector<const Record*> own_, nameless_;
  std::set<const Record*> used_;
  std::int64_t offset_ = 0;
  AgentMatch out_;
};

}  // namespace

AgentMatch match(const AgentLog& log, const History& history, const std::vector<Record>& nameless) {
  return Matcher(log, history, nameless).run();
}

bool may_be_nameless(const AgentLog& log) {
  return std::any_of(log.lines.begin(), log.lines.end(), [](const AgentLine& line) {
    return line.time && is_answer(line.saying) && line.saying != Saying::password_rejected &&
           line.saying != Saying::tunnel_opened;
  });
}

Result<std::vector<Record>> nameless_refusals(const EventLog& events, const AgentLog& log) {
  std::vector<Record> out;
  std::optional<Time> from, to;
  for (const AgentLine& line : log.lines) {
    if (!line.time) continue;
    from = std::min(from.value_or(*line.time), *line.time);
    to = std::max(to.value_or(*line.time), *line.time);
  }
  if (!from) return out;
  const Result<Seq> before = last_seq_until(events, Time{from->micros - kAround_us});
  if (!before) return before.error();
  const Result<Seq> last = last_seq_until(events, Time{to->micros + kAround_us});
  if (!last) return last.error();
  std::size_t scanned = 0;
  const Result<void> read = events.scan(*before + 1, *last, [&](Seq, const Result<Record>& record) {
    if (record && record->node.empty() && is_refusal(record->kind()) && as<TlsFailed>(*record) == nullptr)
      out.push_back(*record);
    return out.size() < kMaxNameless && ++scanned < kMaxScanned;
  });
  if (!read) return read.error();
  return out;
}

// ---- telling ---------------------------------------------------------------------------------------------

namespace {

std::string count_text(std::uint64_t count, const char* what) {
  return fmt::format("{} line{} {}", count, count == 1 ? "" : "s", what);
}

std::string clock_verdict(const AgentMatch& match) {
  if (!match.offset_s)
    return "how far the agent's clock is off cannot be told: no line with a time belongs to a record";
  const double off = *match.offset_s;
  const std::string basis = fmt::format(" (from {} line{})", match.offset_lines, match.offset_lines == 1 ? "" : "s");
  if (std::abs(off) < 2) return "the agent's clock agrees with the ledger's" + basis;
  return fmt::format("the agent's clock is {} {} the ledger's{}", duration_text(std::abs(off)),
                     off > 0 ? "behind" : "ahead of", basis);
}

std::string unheard_text(const AgentMatch& match) {
  std::set<std::string> hosts, heard;
  for (const AgentRun& run : match.runs)
    for (const Record* record : run.records) heard.insert(std::string(host_of(record->source)));
  for (const Record* record : match.unheard) hosts.insert(std::string(host_of(record->source)));
  std::string others;
  for (const std::string& host : hosts)
    if (!host.empty() && heard.count(host) == 0) others += (others.empty() ? "" : ", ") + printable(host, 45);
  std::string text = fmt::format("{} of this name in that time {} no line here", seqs_text(match.unheard),
                                 match.unheard.size() == 1 ? "has" : "have");
  if (others.empty() || heard.empty()) return text + ": the log is not whole, or another machine uses the name";
  return text + ", and came from " + others + ": another machine uses the name";
}

std::string hour_text(const std::optional<Time>& time) { return time ? clock_text(*time) : "(no time)"; }

json::value time_json(const std::optional<Time>& time) {
  return time ? json::value(time->to_string()) : json::value(nullptr);
}

}  // namespace

json::object to_json(const AgentMatch& match) {
  const AgentLog& log = *match.log;
  json::object out;
  out["lines"] = log.read;
  out["about_joining"] = log.lines.size() + log.left_out;
  out["passed_over"] = log.passed_over;
  out["unreadable"] = log.unreadable;
  out["without_time"] = log.without_time;
  out["left_out"] = log.left_out;
  out["node"] = log.node.empty() ? json::value(nullptr) : json::value(log.node);
  out["node_from"] = log.node_from.empty() ? json::value(nullptr) : json::value(log.node_from);
  out["version"] = log.version.empty() ? json::value(nullptr) : json::value(log.version);
  out["servers"] = json::array(log.servers.begin(), log.servers.end());
  out["clock_offset_seconds"] = match.offset_s ? json::value(*match.offset_s) : json::value(nullptr);
  out["clock_lines"] = match.offset_lines;
  out["matched"] = match.matched;
  out["without_record"] = match.without_record;
  json::array& runs = out["runs"].emplace_array();
  for (const AgentRun& run : match.runs) {
    json::array records;
    for (const Record* record : run.records) records.push_back(record->seq);
    const std::string_view says = name_of(run.first->saying);
    runs.push_back({{"first_line", run.first->number},
                    {"last_line", run.last->number},
                    {"lines", run.lines},
                    {"from", time_json(run.first->time)},
                    {"to", time_json(run.last->time)},
                    {"says", json::string(says.data(), says.size())},
                    {"text", run.first->text},
                    {"records", std::move(records)},
                    {"verdict", run.verdict}});
  }
  json::array& unheard = out["unheard"].emplace_array();
  for (const Record* record : match.unheard) unheard.push_back(record->seq);
  return out;
}

std::string to_text(const AgentMatch& match, const TextStyle& style) {
  constexpr std::size_t kRuns = 40;
  const AgentLog& log = *match.log;
  const std::size_t width = std::max<std::size_t>(style.width, 60);
  std::string out;
  const auto say = [&](const std::string& text, std::size_t indent) {
    for (const std::string& line : wrap_text(text, width - indent)) out += std::string(indent, ' ') + line + "\n";
  };
  std::string head = "agent log   " + count_text(log.lines.size() + log.left_out, "about joining") +
                     fmt::format(", {} about other things", log.passed_over);
  if (log.unreadable > 0) head += fmt::format(", {} that cannot be read", log.unreadable);
  if (log.without_time > 0) head += fmt::format(", {} without a time", log.without_time);
  if (log.left_out > 0) head += fmt::format("; the last {} were left out", log.left_out);
  say(head, 0);
  std::string who = "node " + match.node;
  if (!log.node.empty() && log.node != match.node) who += " (the log says " + log.node + ", by " + log.node_from + ")";
  else if (!log.node.empty()) who += " (by " + log.node_from + ")";
  if (!log.version.empty()) who += ", " + log.version;
  for (std::size_t i = 0; i < log.servers.size(); ++i) who += (i == 0 ? ", asks " : " ") + log.servers[i];
  say(who, 3);
  say(clock_verdict(match), 3);
  for (std::size_t i = 0; i < match.runs.size(); ++i) {
    if (match.runs.size() > kRuns && i == kRuns / 2) {
      i = match.runs.size() - kRuns / 2;
      say(fmt::format("... {} more; --format json has all", match.runs.size() - kRuns), 3);
    }
    const AgentRun& run = match.runs[i];
    const std::string lines = run.lines == 1 ? fmt::format("line {}", run.first->number)
                                             : fmt::format("lines {}..{} ({})", run.first->number, run.last->number, run.lines);
    say(fmt::format("{}  {}", lines, hour_text(run.first->time)) +
            (run.lines > 1 && run.last->time ? " to " + hour_text(run.last->time) : ""),
        3);
    say(run.first->text, 6);
    say("-> " + run.verdict, 6);
  }
  const bool nameless = std::any_of(match.runs.begin(), match.runs.end(), [](const AgentRun& run) { return run.by_time_alone; });
  if (nameless)
    say("what names no node is not in the account below: it was refused before its name was asked for", 3);
  if (!match.unheard.empty()) say("beware: " + unheard_text(match), 3);
  return out + "\n";
}

}  // namespace ledger::replay
