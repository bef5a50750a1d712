#include "replay/history.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iostream>
#include <map>
#include <set>

#include "ledger/event_json.h"
#include "ledger/journal.h"
#include "replay/hole_line.h"

namespace ledger::replay {
namespace {

// The bounds of the header's rule.
constexpr std::size_t kOwnFirst = 1000;
constexpr std::size_t kOwnLatest = 50'000;
constexpr std::size_t kFingerprints = 128;
constexpr std::size_t kPerFingerprint = 200;
constexpr std::size_t kServerWide = 10'000;
constexpr std::size_t kAddresses = 32;
constexpr std::size_t kPerAddress = 20'000;
constexpr std::size_t kNameless = 10'000;
constexpr std::size_t kHoles = 1000;
constexpr Seq kAfterRestore = 1000;
constexpr std::size_t kOthersAfterRestore = 16;

// Where a record stands: by seq, and where two claim one seq, by the line they came from.
using Key = std::pair<Seq, std::uint64_t>;

// The first or the latest `limit` of what is added, in whatever order it comes.
template <class T, bool kLatest>
class Bounded {
 public:
  explicit Bounded(std::size_t limit) : limit_(limit) {}
  void add(const Key& key, T value) {
    kept_.emplace(key, std::move(value));
    if (kept_.size() > limit_) kept_.erase(kLatest ? kept_.begin() : std::prev(kept_.end()));
  }
  std::map<Key, T>& kept() { return kept_; }

 private:
  std::size_t limit_;
  std::map<Key, T> kept_;
};
template <class T>
using Latest = Bounded<T, true>;
template <class T>
using First = Bounded<T, false>;

bool is_nameless_refusal(const Record& record) { return record.node.empty() && is_refusal(record.kind()); }

bool listed_under(const Record& record, std::string_view address) {
  const Kind kind = record.kind();  // as index_terms() lists addresses
  return kind != Kind::token_accepted && kind != Kind::certificate_issued && host_of(record.source) == address;
}

// The passwords and addresses by which other records bear on the node.
struct Ties {
  std::set<std::string, std::less<>> fingerprints, addresses;
};

Ties ties_of(const std::map<Key, Record>& own) {
  Ties ties;
  for (auto it = own.rbegin(); it != own.rend(); ++it) {
    const Record& record = it->second;
    for (const std::string_view fingerprint : fingerprints_of(record))
      if (ties.fingerprints.size() < kFingerprints) ties.fingerprints.emplace(fingerprint);
    const std::string_view host = host_of(record.source);
    if (!host.empty() && ties.addresses.size() < kAddresses) ties.addresses.emplace(host);
  }
  return ties;
}

// The first and the last record of the node from each address.
std::map<std::string, std::pair<Key, Key>, std::less<>> spans_of(const std::map<Key, Record>& own) {
  std::map<std::string, std::pair<Key, Key>, std::less<>> spans;
  for (const auto& [key, record] : own) {
    const std::string_view host = host_of(record.source);
    if (host.empty()) continue;
    const auto [span, added] = spans.try_emplace(std::string(host), key, key);
    if (!added) span->second.second = key;
  }
  return spans;
}

// Another machine's: it got in by a name and a password that are not this node's.
bool is_another_machines(const Record& record, std::string_view node, const Ties& ties) {
  if (record.node.empty() || record.node == node) return false;
  if (record.kind() != Kind::password_stored && record.kind() != Kind::password_verified) return false;
  const std::vector<std::string_view> used = fingerprints_of(record);
  return !used.empty() && ties.fingerprints.count(used.front()) == 0;
}

// The latest record after which the server's memory is another one; 0: there is none.
Seq last_restore(const std::map<Key, Record>& records) {
  Seq last = 0;
  for (const auto& [key, record] : records)
    if (const auto* epoch = as<EpochStarted>(record);
        epoch != nullptr && (epoch->cause == "restored" || epoch->cause == "datastore_changed"))
      last = key.first;
  return last;
}

// The first refused password of each other name that is shown to it.
class OthersRefused {
 public:
  void add(const Key& key, const Record& record, std::string_view node) {
    if (record.kind() != Kind::password_rejected || record.node.empty() || record.node == node) return;
    const auto known = first_.find(record.node);
    if (known == first_.end() && first_.size() < kAfterRestore) first_.emplace(record.node, std::pair(key, record));
    if (known != first_.end() && key < known->second.first) known->second = {key, record};
  }
  // The earliest of them.
  std::map<Key, Record> take() {
    std::map<Key, Record> out;
    for (auto& [name, refused] : first_) {
      out.insert(std::move(refused));
      if (out.size() > kOthersAfterRestore) out.erase(std::prev(out.end()));
    }
    return out;
  }

 private:
  std::map<std::string, std::pair<Key, Record>, std::less<>> first_;
};

void note_bound(History& history, bool own_dropped) {
  if (own_dropped)
    history.warnings.push_back(
        "the node has more records than are looked at; only its first 1,000 and its latest "
        "50,000 are considered");
}

void add_hole(History& history, Hole hole) {
  if (history.holes.size() < kHoles)
    history.holes.push_back(std::move(hole));
  else
    ++history.holes_left_out;
}

}  // namespace

Result<Cut> Cut::parse(std::string_view text) {
  Cut cut;
  Seq seq = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seq);
  if (error == std::errc() && end == text.data() + text.size()) {
    cut.seq = seq;
    return cut;
  }
  const Result<Time> time = Time::parse(text);
  if (!time)
    return Error{Errc::invalid, "'" + printable(text, 40) +
                                    "' is neither a record number nor an RFC 3339 time like "
                                    "2024-06-11T07:02:40Z"};
  cut.time = *time;
  return cut;
}

std::optional<std::int64_t> seconds_of_span(std::string_view text) {
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const std::int64_t seconds = unit == "m" ? 60 : unit == "h" ? 3600 : unit == "d" ? 86400 : 0;
  if (error != std::errc() || seconds == 0 || count <= 0 || count > 36'500) return std::nullopt;
  return count * seconds;
}

Result<Cut> Cut::parse(std::string_view text, Time now) {
  if (const auto seconds = seconds_of_span(text)) return Cut{.seq = {}, .time = now.plus_seconds(-*seconds)};
  Result<Cut> cut = parse(text);
  if (cut) return cut;
  return Error{Errc::invalid, "'" + printable(text, 40) +
                                  "' is no record number, no time (RFC 3339, like 2024-06-11T07:02:40Z) and no span "
                                  "like 30m, 24h or 7d"};
}

// ---- from a log ------------------------------------------------------------------------------------------

namespace {

std::optional<ArchivedRange> range_of(const EventLog& log, Seq seq) {
  for (const ArchivedRange& range : log.archived())
    if (range.holds(seq)) return range;
  return std::nullopt;
}

}  // namespace

Result<Seq> last_seq_until(const EventLog& log, Time at) {
  Seq low = 0, high = log.head();  // the answer is in [low, high]
  while (low < high) {
    const Seq middle = low + (high - low + 1) / 2;
    Seq probe = middle;
    Result<Record> record = log.read(probe);
    if (!record && record.error().code == Errc::archived) {
      const std::optional<ArchivedRange> range = range_of(log, probe);
      if (range && range->last_time <= at)
        low = std::max(middle, std::min(range->to, high));
      else
        high = std::max(low, (range ? range->from : middle) - 1);
      continue;
    }
    // A record that cannot be read tells no time: ask its next readable neighbour below `high`.
    while (!record && record.error().code != Errc::io && probe < high) record = log.read(++probe);
    if (!record && record.error().code == Errc::io) return record.error();
    if (record && record->time <= at)
      low = probe;
    else
      high = middle - 1;
  }
  return low;
}

namespace {

// Reads single records of a log into a history under construction.
class LogReader {
 public:
  LogReader(const EventLog& log, History& history) : log_(log), history_(history) {}

  // nullopt: a hole, and remembered as one. `own`: it is one of the node's.
  Result<std::optional<Record>> read(Seq seq, bool own = false) {
    Result<Record> record = log_.read(seq);
    if (record) return std::optional<Record>(std::move(*record));
    if (record.error().code == Errc::io) return record.error();
    const auto range = record.error().code == Errc::archived ? range_of(log_, seq) : std::nullopt;
    if (range)
      add_absent(*range, own, record.error().message);
    else if (holes_.insert(seq).second)
      add_hole(history_, {.seq = seq, .line = 0, .after = seq - 1, .reason = record.error().message});
    return std::optional<Record>();
  }

  // All that is asked of one archive is one hole.
  void add_absent(const ArchivedRange& range, bool own, const std::string& reason) {
    const auto known = std::find_if(history_.holes.begin(), history_.holes.end(),
                                    [&](const Hole& hole) { return hole.to == range.to && hole.seq == range.from; });
    if (known != history_.holes.end())
      known->own = known->own || own;
    else
      add_hole(history_, {.seq = range.from, .line = 0, .after = range.from - 1, .reason = reason, .to = range.to, .own = own});
  }

 private:
  const EventLog& log_;
  History& history_;
  std::set<Seq> holes_;
};

// What was removed is not even in the index: nobody knows whom it was about.
void note_removed(const EventLog& log, Seq until, History& history) {
  Seq from = 0, to = 0;
  const auto tell = [&] {
    if (from != 0)
      history.warnings.push_back("records " + std::to_string(from) + " to " + std::to_string(to) +
                                 " were removed with their archive (archive_removed): what they said of this node, " +
                                 "if anything, is not known");
  };
  for (const ArchivedRange& range : log.archived()) {
    if (!range.is_removed() || range.from > until) continue;
    if (range.from != to + 1) tell(), from = range.from;
    to = range.to;
    if (from == 0) from = range.from;
  }
  tell();
}

// The time that is asked for lies within an archive that is not here.
Result<void> note_absent_end(const EventLog& log, Time at, Seq until, LogReader& reader, const std::string& node) {
  for (const ArchivedRange& range : log.archived()) {
    if (range.is_removed() || at < range.first_time || at >= range.last_time || range.to <= until) continue;
    const auto file = log.archives().file_of(range);
    if (file || file.error().code != Errc::archived) continue;
    const Result<std::vector<Seq>> own = log.find(Index::node, node, range.from, range.to, 1);
    if (!own) return own.error();
    if (!own->empty()) reader.add_absent(range, true, file.error().message);
  }
  return {};
}

}  // namespace

Result<History> history_from_log(const EventLog& log, std::string_view node, const Cut& at) {
  History history;
  history.node = to_lower(node);
  Seq until = std::min(log.head(), at.seq.value_or(UINT64_MAX));
  if (at.time) {
    const Result<Seq> last = last_seq_until(log, *at.time);
    if (!last) return last.error();
    until = std::min(until, *last);
  }
  LogReader reader(log, history);
  note_removed(log, until, history);
  if (at.time)
    if (const auto noted = note_absent_end(log, *at.time, until, reader, history.node); !noted) return noted.error();
  std::map<Key, Record> chosen;
  const auto take = [&](Seq seq, auto&& wanted, bool is_nodes = false) -> Result<void> {
    Result<std::optional<Record>> record = reader.read(seq, is_nodes);
    if (!record) return record.error();
    if (*record && wanted(**record)) chosen.emplace(Key{seq, 0}, std::move(**record));
    return {};
  };
  const auto any = [](const Record&) { return true; };

  const Result<std::vector<Seq>> own = log.find(Index::node, history.node, 1, until);
  if (!own) return own.error();
  const std::size_t skip_to = own->size() > kOwnLatest ? own->size() - kOwnLatest : 0;
  for (std::size_t i = 0; i < own->size(); ++i) {
    if (i >= kOwnFirst && i < skip_to) continue;
    if (const Result<void> taken = take((*own)[i], any, true); !taken) return taken.error();
  }
  note_bound(history, skip_to > kOwnFirst);
  const Ties ties = ties_of(chosen);
  const auto spans = spans_of(chosen);
  const auto is_own = [&](Seq seq) { return std::binary_search(own->begin(), own->end(), seq); };

  for (const std::string& fingerprint : ties.fingerprints) {
    Result<std::vector<Seq>> seqs = log.find(Index::fingerprint, fingerprint, 1, until);
    if (!seqs) return seqs.error();
    std::erase_if(*seqs, is_own);
    for (std::size_t i = seqs->size() > kPerFingerprint ? seqs->size() - kPerFingerprint : 0; i < seqs->size(); ++i)
      if (const Result<void> taken = take((*seqs)[i], any); !taken) return taken.error();
  }

  const Result<std::vector<Seq>> server_wide = log.find(Index::server_wide, "", 1, until, kServerWide);
  if (!server_wide) return server_wide.error();
  for (const Seq seq : *server_wide)
    if (const Result<void> taken = take(seq, any); !taken) return taken.error();

  Latest<Record> nameless(kNameless);
  for (const std::string& address : ties.addresses) {
    const Result<std::vector<Seq>> seqs = log.find(Index::address, address, 1, until, kPerAddress);
    if (!seqs) return seqs.error();
    const auto& [first, last] = spans.find(address)->second;
    std::optional<Record> neighbour;
    for (const Seq seq : *seqs) {
      if (is_own(seq)) continue;
      Result<std::optional<Record>> record = reader.read(seq);
      if (!record) return record.error();
      if (!*record) continue;
      if (is_nameless_refusal(**record))
        nameless.add({seq, 0}, std::move(**record));
      else if (seq > first.first && seq < last.first && is_another_machines(**record, history.node, ties))
        neighbour = std::move(**record);
    }
    if (neighbour) chosen.emplace(Key{neighbour->seq, 0}, std::move(*neighbour));
  }

  OthersRefused others;
  if (const Seq restore = last_restore(chosen); restore != 0)
    for (Seq seq = restore + 1; seq <= std::min(until, restore + kAfterRestore); ++seq) {
      Result<std::optional<Record>> record = reader.read(seq);
      if (!record) return record.error();
      if (*record) others.add({seq, 0}, **record, history.node);
    }
  chosen.merge(nameless.kept());
  chosen.merge(others.take());

  for (auto& [key, record] : chosen) history.records.push_back(std::move(record));
  std::sort(history.holes.begin(), history.holes.end(), [](const Hole& a, const Hole& b) { return a.seq < b.seq; });
  return history;
}

// ---- from JSON Lines -------------------------------------------------------------------------------------

namespace {

// One walk over all lines; `visit` gets what can be read and is not cut off, `hole` what cannot.
template <class Visit, class OnHole>
Result<void> each_line(std::istream& in, const Cut& at, const Progress& progress, std::uint64_t total,
                       std::uint64_t done_before, Visit&& visit, OnHole&& hole) {
  in.clear();
  if (in.rdbuf()->pubseekpos(0) == std::streampos(std::streamoff(-1)))
    return Error{Errc::io, "the input cannot be read from its start again"};
  LineReader lines(in);
  std::string line;
  Seq last = 0;
  while (lines.next(line)) {
    if (progress && lines.number() % 4096 == 0) progress(done_before + lines.bytes(), total);
    if (trim(line).empty()) continue;
    if (std::optional<Hole> missing = hole_from_line(line)) {
      hole(std::move(*missing));
      continue;
    }
    Result<Record> record = record_from_json(line);
    if (!record) {
      hole(Hole{.seq = 0, .line = lines.number(), .after = last, .reason = record.error().message});
      continue;
    }
    last = record->seq;
    if (at.admits(*record)) visit(Key{record->seq, lines.number()}, std::move(*record));
  }
  return {};
}

// Drops repetitions of a record and settles what to believe about the order.
void put_in_order(std::map<Key, Record> chosen, History& history) {
  std::uint64_t repeated = 0;
  std::string contradiction;
  bool other_server = false, timed = true;
  for (auto& [key, record] : chosen) {
    // All that claim one seq stand side by side.
    bool same = false;
    for (auto it = history.records.rbegin(); it != history.records.rend() && it->seq == key.first && !same; ++it)
      same = to_json_line(*it) == to_json_line(record);
    if (same) {
      ++repeated;
      continue;
    }
    if (!history.records.empty() && history.records.back().seq == key.first) {
      if (contradiction.empty()) contradiction = std::to_string(key.first);
      other_server = other_server || history.records.back().server != record.server;
    }
    timed = timed && record.time.known();
    history.records.push_back(std::move(record));
  }
  if (repeated > 0)
    history.warnings.push_back(std::to_string(repeated) + " repeated record(s) in the input were dropped");
  if (contradiction.empty()) return;
  if (other_server && timed) {
    std::stable_sort(history.records.begin(), history.records.end(),
                     [](const Record& a, const Record& b) { return a.time < b.time; });
    Seq position = 0;
    for (Record& record : history.records) record.seq = ++position;
    history.warnings.push_back(
        "the input holds logs of several servers that number their records separately (seq " + contradiction +
        " is there twice): ordered by time and numbered anew");
  } else {
    history.warnings.push_back("seq " + contradiction +
                               " is there twice with different content: one of them is "
                               "wrong, and both were used");
  }
}

}  // namespace

Result<History> history_from_stream(std::istream& in, std::string_view node, const Cut& at,
                                    const Progress& progress) {
  History history;
  history.node = to_lower(node);
  in.clear();
  const std::streamoff size = in.rdbuf()->pubseekoff(0, std::ios::end);
  const std::uint64_t total = size > 0 ? 2 * static_cast<std::uint64_t>(size) : 0;

  First<Record> own_first(kOwnFirst);
  Latest<Record> own_latest(kOwnLatest), server_wide(kServerWide);
  Seq last_own = 0;
  std::uint64_t own_total = 0;
  bool out_of_order = false;
  const Result<void> first_pass = each_line(
      in, at, progress, total, 0,
      [&](const Key& key, Record record) {
        if (record.node == history.node) {
          out_of_order = out_of_order || key.first < last_own;
          last_own = key.first;
          ++own_total;
          if (is_server_wide(record.kind())) server_wide.add(key, record);
          own_first.add(key, record);
          own_latest.add(key, std::move(record));
        } else if (is_server_wide(record.kind())) {
          server_wide.add(key, std::move(record));
        }
      },
      [&](Hole hole) { add_hole(history, std::move(hole)); });
  if (!first_pass) return first_pass.error();

  std::map<Key, Record> chosen = std::move(own_latest.kept());
  note_bound(history, own_total > kOwnFirst + kOwnLatest);
  chosen.merge(own_first.kept());
  const Ties ties = ties_of(chosen);
  const auto spans = spans_of(chosen);
  const Seq restore = last_restore(server_wide.kept());
  OthersRefused others;

  // What is listed under an address holds a place there whether or not it is wanted.
  std::map<std::string, std::pair<Key, Record>, std::less<>> neighbours;
  std::map<std::string, Latest<Record>, std::less<>> by_fingerprint;
  std::map<std::string, Latest<std::optional<Record>>, std::less<>> by_address;
  for (const std::string& fingerprint : ties.fingerprints) by_fingerprint.emplace(fingerprint, kPerFingerprint);
  for (const std::string& address : ties.addresses) by_address.emplace(address, kPerAddress);
  if (!by_fingerprint.empty() || !by_address.empty()) {
    const Result<void> second_pass = each_line(
        in, at, progress, total, total / 2,
        [&](const Key& key, Record record) {
          const bool own = record.node == history.node;
          if (restore != 0 && key.first > restore && key.first <= restore + kAfterRestore)
            others.add(key, record, history.node);
          if (!own)
            for (const std::string_view fingerprint : fingerprints_of(record))
              if (const auto found = by_fingerprint.find(fingerprint); found != by_fingerprint.end())
                found->second.add(key, record);
          const auto found = by_address.find(host_of(record.source));
          if (found == by_address.end() || !listed_under(record, found->first)) return;
          const auto& [first, last] = spans.find(found->first)->second;
          if (first < key && key < last && is_another_machines(record, history.node, ties))
            if (const auto known = neighbours.find(found->first); known == neighbours.end() || known->second.first < key)
              neighbours.insert_or_assign(found->first, std::pair(key, record));
          const bool wanted = !own && is_nameless_refusal(record);
          found->second.add(key, wanted ? std::optional<Record>(std::move(record)) : std::nullopt);
        },
        [](const Hole&) {});  // the first pass saw them
    if (!second_pass) return second_pass.error();
  }
  for (auto& [fingerprint, records] : by_fingerprint) chosen.merge(records.kept());
  chosen.merge(server_wide.kept());
  Latest<Record> nameless(kNameless);
  for (auto& [address, records] : by_address) {
    for (auto& [key, record] : records.kept())
      if (record) nameless.add(key, std::move(*record));
    // Out of the latest 20,000: as if it had not been seen.
    const auto neighbour = neighbours.find(address);
    if (neighbour != neighbours.end() && records.kept().count(neighbour->second.first) != 0)
      chosen.insert(std::move(neighbour->second));
  }
  chosen.merge(nameless.kept());
  chosen.merge(others.take());

  if (out_of_order) history.warnings.push_back("the input was not in order of seq; it was sorted");
  put_in_order(std::move(chosen), history);
  return history;
}

namespace {

// Copies what can be read only once to a file that nobody else can see.
Result<std::ifstream> spool(std::istream& in) {
  std::error_code error;
  const std::filesystem::path directory = std::filesystem::temp_directory_path(error);
  std::string path = (directory / "ledger-input-XXXXXX").string();
  const int fd = mkstemp(path.data());
  const Error failed{
      Errc::io, "cannot copy the input to " + directory.string() + "; set TMPDIR to a directory with room for it"};
  if (fd < 0) return failed;
  close(fd);
  std::ofstream out(path, std::ios::binary);
  std::ifstream copy(path, std::ios::binary);
  unlink(path.c_str());
  if (in.peek() != std::char_traits<char>::eof()) out << in.rdbuf();
  out.close();
  if (!out || !copy) return failed;
  return copy;
}

}  // namespace

Result<std::ifstream> open_jsonl(const std::filesystem::path& path) {
  if (path == "-") return spool(std::cin);
  std::error_code error;
  if (std::filesystem::is_directory(path, error))
    return Error{Errc::invalid, printable(path.string(), 200) + " is a directory; name a JSON Lines file"};
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return Error{Errc::not_found, "cannot read " + printable(path.string(), 200) +
                                      "; check the name and the permissions of the file"};
  if (!std::filesystem::is_regular_file(path, error)) return spool(file);
  return file;
}

Result<History> history_from_jsonl(const std::filesystem::path& path, std::string_view node, const Cut& at,
                                   const Progress& progress) {
  Result<std::ifstream> file = open_jsonl(path);
  if (!file) return file.error();
  return history_from_stream(*file, node, at, progress);
}

}  // namespace ledger::replay
