#include "replay/verify.h"

#include <algorithm>
#include <set>

namespace ledger::replay {

std::string_view name_of(Damage damage) {
  switch (damage) {
    case Damage::kGap: return "gap";
    case Damage::kUndecodable: return "undecodable";
    case Damage::kTimeWentBack: return "time_went_back";
    case Damage::kIndexMissing: return "index_missing";
    case Damage::kIndexToNothing: return "index_to_nothing";
    case Damage::kIndexSurplus: return "index_surplus";
    case Damage::kProjectionDiffers: return "projection_differs";
  }
  fatal("a damage without a name");
}

bool VerifyReport::sound() const {
  return std::all_of(std::begin(counts), std::end(counts), [](std::uint64_t count) { return count == 0; });
}

namespace {

constexpr std::uint64_t kShown = 20;

std::string index_name(Index index, std::string_view value) {
  const char* what = index == Index::node          ? "node"
                     : index == Index::fingerprint ? "fingerprint"
                     : index == Index::address     ? "address"
                     : index == Index::serial      ? "serial"
                     : index == Index::request     ? "request"
                     : index == Index::server_wide ? "server-wide"
                                                   : "unknown";
  return std::string(what) + " index" + (value.empty() ? "" : " under '" + printable(value, 80) + "'");
}

class Verifier {
 public:
  Verifier(const EventLog& log, const Progress& progress) : log_(log), progress_(progress) {
    report_.ledger = log.id();
    report_.head = log.head();
  }

  Result<VerifyReport> run() {
    if (const Result<void> records = check_records(); !records) return records.error();
    if (const Result<void> entries = check_index_entries(); !entries) return entries.error();
    if (const Result<void> nodes = check_projection(); !nodes) return nodes.error();
    return std::move(report_);
  }

 private:
  void found(Damage damage, Seq seq, std::string text) {
    if (report_.counts[static_cast<std::size_t>(damage)]++ < kShown)
      report_.damage.push_back({damage, seq, std::move(text)});
  }

  void tell(std::uint64_t done) {
    // Records and index entries are both walked; most records have about three entries.
    if (progress_ && done % 4096 == 0) progress_(done, report_.head * 4);
  }

  Result<void> check_records() {
    Seq expected = 1;
    Time before;
    Result<void> failed;
    const Result<void> scanned = log_.scan(1, report_.head, [&](Seq seq, const Result<Record>& record) {
      tell(++report_.records);
      if (seq != expected)
        found(Damage::kGap, expected,
              "records " + std::to_string(expected) + " to " + std::to_string(seq - 1) + " are missing");
      expected = seq + 1;
      if (!record) {
        unreadable_.insert(seq);
        found(Damage::kUndecodable, seq,
              "record " + std::to_string(seq) + " cannot be read: " + record.error().message);
        return true;
      }
      if (record->time < before)
        found(Damage::kTimeWentBack, seq,
              "record " + std::to_string(seq) + " is stamped " + record->time.to_string() +
                  ", earlier than the record before it");
      before = std::max(before, record->time);
      fresh_.apply(*record);
      failed = check_terms(*record);
      return failed.has_value();
    });
    if (!scanned) return scanned.error();
    if (!failed) return failed.error();
    if (expected <= report_.head)
      found(Damage::kGap, expected,
            "records " + std::to_string(expected) + " to " + std::to_string(report_.head) + " are missing");
    return {};
  }

  Result<void> check_terms(const Record& record) {
    std::set<std::pair<Index, std::string>> distinct;
    for (auto& term : index_terms(record)) distinct.insert(std::move(term));
    for (const auto& [index, value] : distinct) {
      const Result<bool> there = log_.has_index_entry(index, value, record.seq);
      if (!there) return there.error();
      if (*there)
        ++entries_seen_;
      else
        found(Damage::kIndexMissing, record.seq,
              "record " + std::to_string(record.seq) + " is not in the " + index_name(index, value));
    }
    return {};
  }

  // All that should be there is (or was reported); only when there are more entries than that is each looked at.
  Result<void> check_index_entries() {
    std::uint64_t unaccounted = 0;
    const Result<void> counted = log_.each_index_entry([&](Index, std::string_view, Seq seq) {
      tell(report_.records + ++report_.index_entries);
      unaccounted += unreadable_.count(seq) == 0;
      return true;
    });
    if (!counted) return counted.error();
    if (unaccounted == entries_seen_) return {};
    Result<void> failed;
    const Result<void> walked = log_.each_index_entry([&](Index index, std::string_view value, Seq seq) {
      if (unreadable_.count(seq) > 0) return true;
      const Result<Record> record = log_.read(seq);
      const std::string where = index_name(index, value);
      if (!record && record.error().code == Errc::io) {
        failed = record.error();
        return false;
      }
      if (!record) {
        found(Damage::kIndexToNothing, seq,
              "the " + where + " lists record " + std::to_string(seq) + ", which does not exist");
        return true;
      }
      const auto terms = index_terms(*record);
      if (std::none_of(terms.begin(), terms.end(),
                       [&](const auto& term) { return term.first == index && term.second == value; }))
        found(Damage::kIndexSurplus, seq,
              "the " + where + " lists record " + std::to_string(seq) + ", which does not say that");
      return true;
    });
    if (!walked) return walked.error();
    return failed;
  }

  Result<void> check_projection() {
    const auto differs = [&](std::string_view name, std::string_view why) {
      found(Damage::kProjectionDiffers, 0,
            "the stored state of node " + printable(name, 80) + " " + std::string(why));
    };
    std::size_t stored = 0;
    const Result<void> walked = log_.each_node([&](std::string_view name, const Result<NodeState>& state) {
      ++report_.nodes;
      const NodeState* fresh = fresh_.find(name);
      if (fresh != nullptr) ++stored;
      if (!state)
        differs(name, "cannot be read: " + state.error().message);
      else if (fresh == nullptr)
        differs(name, "is there, but no record speaks of that node");
      else if (!(*fresh == *state))
        differs(name, "is not what its records make of it");
      return true;
    });
    if (!walked) return walked.error();
    if (stored == fresh_.size()) return {};
    std::vector<std::string_view> missing;
    for (const auto& [name, state] : fresh_) {
      const Result<std::optional<NodeState>> there = log_.node(name);
      if (there && !*there) missing.push_back(name);
    }
    std::sort(missing.begin(), missing.end());
    for (const std::string_view name : missing) differs(name, "is missing");
    return {};
  }

  const EventLog& log_;
  const Progress& progress_;
  VerifyReport report_;
  NodeTable fresh_;
  std::set<Seq> unreadable_;
  std::uint64_t entries_seen_ = 0;
};

}  // namespace

Result<VerifyReport> verify(const EventLog& log, const Progress& progress) { return Verifier(log, progress).run(); }

}  // namespace ledger::replay
