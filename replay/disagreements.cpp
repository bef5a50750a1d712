#include "replay/disagreements.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <map>
#include <tuple>

#include "ledger/decision.h"
#include "replay/remedies.h"
#include "replay/rows.h"

namespace ledger::replay {

namespace json = boost::json;

namespace {

constexpr Seq kTellEvery = 8192;

// What a record is the verdict on. A request has one such record, so that requests are what is counted: a kubelet
// certificate is about the password, whatever else is recorded with it. Empty: none.
std::string_view subject_of(const Record& record) {
  const bool kubelet = record.endpoint.ends_with("-kubelet.crt"), tunnel = record.endpoint.ends_with("/connect");
  switch (record.kind()) {
    case Kind::password_stored:
    case Kind::password_verified:
    case Kind::password_rejected: return "password";
    case Kind::tunnel_opened: return "tunnel";
    case Kind::token_accepted: return kubelet || tunnel || record.answered >= 300 ? "" : "document";
    case Kind::token_rejected:
    case Kind::request_rejected: return kubelet ? "password" : tunnel ? "tunnel" : "document";
    default: return "";
  }
}

bool we_judged(const Record& record) {
  return record.would_have == kWouldServe || ruling_from_name(record.would_have).has_value();
}

// Whatever it was, one of our two words would have been the other.
bool upstream_judged(Record record) {
  for (const std::string_view word : {kWouldServe, name_of(Ruling::refuse_token)}) {
    record.would_have = word;
    if (disagreement_of(record) != Disagreement::none) return true;
  }
  return false;
}

class Collector {
 public:
  Collector(const DisagreementOptions& options, Disagreements& out) : options_(options), out_(out) {}

  void add(const Record& record) {
    const std::string_view about = subject_of(record);
    if (!is_upstreams(record) || about.empty()) return;
    const auto count = static_cast<std::uint64_t>(std::max<std::int64_t>(1, record.count));
    const Disagreement which = disagreement_of(record);
    if (which == Disagreement::none && (!we_judged(record) || !upstream_judged(record))) {
      (we_judged(record) ? out_.no_verdict : out_.not_judged) += count;
      return;
    }
    out_.requests += count;
    if (which == Disagreement::none) return agree(record, about);
    out_.differ += count;
    DisagreementEntry* entry = entry_of(record, about, which);
    if (entry == nullptr) {
      out_.left_out += count;
      return;
    }
    entry->requests += count;
    entry->upstream = record.upstream;
    entry->last = record.seq, entry->last_time = record.time;
    entry->request_id = count == 1 ? record.request_id : "";
    entry->agree_since = 0;
  }

  void finish() {
    for (auto& [subject, entries] : entries_)
      for (auto& [words, entry] : entries) out_.entries.push_back(std::move(entry));
    std::sort(out_.entries.begin(), out_.entries.end(), [](const DisagreementEntry& a, const DisagreementEntry& b) {
      return std::tuple(a.agree_since != 0, b.last) < std::tuple(b.agree_since != 0, a.last);
    });
  }

 private:
  using Subject = std::pair<std::string, std::string>;            // node, about
  using Words = std::tuple<Disagreement, std::int64_t, std::string>;  // both sides'

  void agree(const Record& record, std::string_view about) {
    const auto found = entries_.find({record.node, std::string(about)});
    if (found == entries_.end()) return;
    for (auto& [words, entry] : found->second)
      if (entry.agree_since == 0) entry.agree_since = record.seq;
  }

  // nullptr: there are too many.
  DisagreementEntry* entry_of(const Record& record, std::string_view about, Disagreement which) {
    const Subject subject{record.node, std::string(about)};
    const Words words{which, record.answered, record.would_have};
    const auto known = entries_.find(subject);
    if (known != entries_.end())
      if (const auto entry = known->second.find(words); entry != known->second.end()) return &entry->second;
    if (size_ >= options_.limit) return nullptr;
    ++size_;
    DisagreementEntry& entry = entries_[subject][words];
    entry.node = record.node, entry.about = about, entry.which = which;
    entry.answered = record.answered, entry.would_have = record.would_have;
    entry.first = record.seq, entry.first_time = record.first_time.value_or(record.time);
    return &entry;
  }

  const DisagreementOptions& options_;
  Disagreements& out_;
  std::map<Subject, std::map<Words, DisagreementEntry>> entries_;
  std::size_t size_ = 0;
};

std::string_view did(Disagreement which) { return which == Disagreement::upstream_admitted ? "admitted" : "refused"; }

json::value text_of(Time time) { return time.known() ? json::value(time.to_string()) : json::value(nullptr); }

}  // namespace

Result<Disagreements> disagreements(const EventLog& log, const DisagreementOptions& options, const Progress& progress) {
  Disagreements out;
  out.as_of_seq = log.head();
  if (out.as_of_seq > 0)
    if (const Result<Record> last = log.read(out.as_of_seq)) out.as_of_time = last->time;
  Seq from = 1;
  if (options.since) {
    const Result<Seq> before = last_seq_until(log, Time{options.since->micros - 1});
    if (!before) return before.error();
    from = *before + 1;
  }
  Collector collector(options, out);
  const Result<void> scanned = log.scan(from, out.as_of_seq, [&](Seq seq, const Result<Record>& record) {
    if (progress && seq % kTellEvery == 0) progress(seq - from, out.as_of_seq - from + 1);
    if (record) collector.add(*record);
    return true;
  });
  if (!scanned) return scanned.error();
  collector.finish();
  return out;
}

json::object to_json(const Disagreements& found) {
  json::object out;
  out["as_of"] = json::object{{"seq", found.as_of_seq}, {"time", text_of(found.as_of_time)}};
  out["requests"] = found.requests;
  out["differ"] = found.differ;
  out["no_verdict"] = found.no_verdict;
  out["not_judged"] = found.not_judged;
  json::array& entries = out["entries"].emplace_array();
  for (const DisagreementEntry& entry : found.entries) {
    json::object one;
    one["node"] = entry.node.empty() ? json::value(nullptr) : json::value(entry.node);
    one["about"] = entry.about;
    one["upstream_did"] = json::string(did(entry.which));
    one["answered"] = entry.answered;
    one["would_have"] = entry.would_have;
    one["upstream"] = entry.upstream;
    one["requests"] = entry.requests;
    one["first"] = json::object{{"seq", entry.first}, {"time", text_of(entry.first_time)}};
    one["last"] = json::object{
        {"seq", entry.last},
        {"time", text_of(entry.last_time)},
        {"request_id", entry.request_id.empty() ? json::value(nullptr) : json::value(entry.request_id)}};
    one["agree_since"] = entry.agree_since == 0 ? json::value(nullptr) : json::value(entry.agree_since);
    entries.push_back(std::move(one));
  }
  out["left_out"] = found.left_out;
  return out;
}

std::string to_text(const Disagreements& found, const TextStyle& style, const std::string& options) {
  const auto paint = [&](const char* code, std::string text) {
    return style.color ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : text;
  };
  const std::string as_of = fmt::format("as of seq {}, {}", found.as_of_seq,
                                        found.as_of_time.known() ? clock_text(found.as_of_time) : "time not known");
  std::string out;
  if (found.requests == 0)
    return "no request was decided by an upstream in that time; nothing to compare   (" + as_of + ")\n";
  if (found.differ == 0)
    out += paint("32", fmt::format("the ledger and the upstream agree on all of {} requests", found.requests)) + "\n";
  else
    out += paint("1", fmt::format("the ledger and the upstream differ on {} of {} requests", found.differ, found.requests)) +
           "\n";
  for (const DisagreementEntry& entry : found.entries) {
    out += fmt::format(" {:<24} {:<9} upstream {} ({}), we {}   {}x{}\n",
                       entry.node.empty() ? "(no name)" : printable(entry.node, 80), entry.about, did(entry.which),
                       entry.answered, printable(entry.would_have, 20), entry.requests,
                       entry.agree_since != 0 ? fmt::format("   agree since {}", entry.agree_since) : "");
    out += fmt::format("   {:<20}  ledger replay {}{}\n", entry.last_time.known() ? clock_text(entry.last_time) : "-",
                       entry.node.empty() ? fmt::format("--seq {}", entry.last) : "--node " + shell_word(entry.node),
                       options);
  }
  if (found.left_out > 0) out += fmt::format(" ... and {} more requests, in names that are not listed\n", found.left_out);
  if (found.no_verdict > 0)
    out += fmt::format(" {} requests more got no verdict of the upstream (no answer, or 5xx)\n", found.no_verdict);
  if (found.not_judged > 0)
    out += fmt::format(" {} requests more were not judged here (the name is bound by a hash)\n", found.not_judged);
  return out + paint("2", as_of) + "\n";
}

}  // namespace ledger::replay
