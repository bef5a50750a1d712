#include "ledger/import.h"

#include <boost/json.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "ledger/event_json.h"
#include "ledger/hex.h"
#include "ledger/node_hash.h"

namespace ledger {

namespace json = boost::json;

namespace {

// Proposals under way at once: the writer makes one synced batch of those that wait.
constexpr std::size_t kRound = 512;
constexpr int kMaxTries = 50;
constexpr std::size_t kNodeObjectsLookedAt = 2000;

struct NamedKind {
  ImportKind kind;
  std::string_view name;
};
constexpr NamedKind kKinds[] = {{ImportKind::node_passwd, "node-passwd"},
                                {ImportKind::secrets, "secrets"},
                                {ImportKind::nodes, "nodes"},
                                {ImportKind::log, "log"}};

// Appends many proposals and waits for all of them.
std::vector<Result<Committed>> append_all(Ledger& ledger, std::vector<Proposal> proposals) {
  struct Wait {
    std::mutex mutex;
    std::condition_variable all_done;
    std::size_t left = 0;
    std::vector<Result<Committed>> outcomes;
  };
  const auto wait = std::make_shared<Wait>();
  wait->left = proposals.size();
  wait->outcomes.resize(proposals.size(), Error{Errc::unavailable, "not recorded"});
  for (std::size_t i = 0; i < proposals.size(); ++i)
    ledger.append(std::move(proposals[i]), [wait, i](Result<Committed> outcome) {
      const std::lock_guard lock(wait->mutex);
      wait->outcomes[i] = std::move(outcome);
      if (--wait->left == 0) wait->all_done.notify_one();
    });
  std::unique_lock lock(wait->mutex);
  wait->all_done.wait(lock, [&] { return wait->left == 0; });
  return std::move(wait->outcomes);
}

std::string record_number(Seq seq) { return "record " + std::to_string(seq); }

// What two records of one event have in common, whenever and from whatever file they were imported.
std::string identity_of(Record record) {
  record.seq = 0;
  record.time = {};
  record.epoch = 0;
  record.count = 1;
  record.note.clear();
  record.request_id.clear();
  return to_json_line(record);
}

// What a record of another server's log is found by here, nullopt: by nothing.
std::optional<std::pair<Index, std::string>> term_of(const Record& record) {
  if (!record.node.empty()) return std::pair(Index::node, record.node);
  if (is_server_wide(record.kind())) return std::pair(Index::server_wide, std::string());
  if (!record.source.empty() && is_refusal(record.kind()))
    return std::pair(Index::address, std::string(host_of(record.source)));
  return std::nullopt;
}

// The kinds that a log may tell of: none of them hands out or takes anything here.
bool may_be_history(Kind kind) {
  switch (kind) {
    case Kind::server_started:
    case Kind::server_stopped:
    case Kind::token_rejected:
    case Kind::password_rejected:
    case Kind::password_verified:
    case Kind::request_rejected:
    case Kind::binding_released:
    case Kind::certificate_issued:
    case Kind::tunnel_opened:
    case Kind::tunnel_closed:
    case Kind::node_object_deleted:
    case Kind::tls_failed:
      return true;
    default:
      return false;
  }
}

}  // namespace

std::string_view name_of(ImportKind kind) {
  for (const NamedKind& named : kKinds)
    if (named.kind == kind) return named.name;
  fatal("an import kind without a name");
}

std::optional<ImportKind> import_kind_from(std::string_view name) {
  for (const NamedKind& named : kKinds)
    if (named.name == name) return named.kind;
  return std::nullopt;
}

// ---- entries as JSON -------------------------------------------------------------------------------------

std::string to_json_line(const ImportEntry& entry) {
  json::object object;
  object["line"] = entry.line;
  if (!entry.node.empty()) object["node"] = entry.node;
  if (entry.fingerprint.known()) object["fingerprint"] = entry.fingerprint.text;
  if (!entry.hash.empty()) object["hash"] = json::string_view(entry.hash.reveal().data(), entry.hash.reveal().size());
  if (!entry.uid.empty()) object["uid"] = entry.uid;
  if (entry.created) object["created"] = entry.created->to_string();
  if (entry.record) {
    Record record = *entry.record;
    record.seq = 1;  // a record without one cannot be read; ours is the writer's to give
    object["record"] = to_json(record);
  }
  return json::serialize(object);
}

Result<ImportEntry> import_entry_from_json(ImportKind kind, std::string_view line) {
  const Error bad{Errc::invalid, "an entry is not what `ledger import` sends: {\"line\",\"node\",...} as one JSON "
                                 "object per line"};
  json::error_code error;
  const json::value value = json::parse(json::string_view(line.data(), line.size()), error);
  if (error || !value.is_object()) return bad;
  const json::object& object = value.get_object();
  const auto text = [&](const char* key) -> std::string {
    const json::value* found = object.if_contains(key);
    return found != nullptr && found->is_string() ? std::string(found->get_string()) : std::string();
  };
  ImportEntry entry;
  if (const json::value* number = object.if_contains("line"); number != nullptr && number->is_int64())
    entry.line = static_cast<std::size_t>(std::max<std::int64_t>(0, number->get_int64()));
  if (kind == ImportKind::log) {
    const json::value* given = object.if_contains("record");
    if (given == nullptr || !given->is_object()) return bad;
    Result<Record> record = record_from_json(given->get_object());
    if (!record || !may_be_history(record->kind()) || !is_imported(*record)) return bad;
    record->seq = 0;
    record->time = {};
    entry.record = std::move(*record);
    return entry;
  }
  Result<NodeName> node = NodeName::parse(text("node"));
  if (!node) return bad;
  entry.node = node->str();
  entry.fingerprint.text = text("fingerprint");
  entry.hash = Secret(text("hash"));
  entry.uid = printable(text("uid"), 100);
  if (const std::string created = text("created"); !created.empty()) {
    const Result<Time> time = Time::parse(created);
    if (!time) return bad;
    entry.created = *time;
  }
  if (kind == ImportKind::node_passwd && !is_hex(entry.fingerprint.text, 32)) return bad;
  if (kind == ImportKind::secrets && !NodeHash::parse(entry.hash.reveal())) return bad;
  return entry;
}

// ---- judging ---------------------------------------------------------------------------------------------

Importer::Importer(Ledger& ledger, HashStore& hashes, Options options)
    : ledger_(ledger), hashes_(hashes), options_(std::move(options)) {
  if (options_.kind != ImportKind::log) return;
  // Lines without a time cannot be told apart from others like them, but a whole file can.
  (void)ledger_.log().scan(Index::server_wide, "", 1, UINT64_MAX, [&](Seq seq, const Result<Record>& record) {
    const auto* finished = record ? as<ImportFinished>(*record) : nullptr;
    if (finished != nullptr && finished->origin == "log" && finished->file == options_.file) imported_before_ = seq;
    return !imported_before_;
  });
}

Importer::Judgement Importer::judge(const ImportEntry& entry) {
  const NodeState state = ledger_.find(entry.node);
  Judgement judgement = options_.kind == ImportKind::node_passwd ? judge_password(entry, state)
                        : options_.kind == ImportKind::secrets   ? judge_hash(entry, state)
                                                                 : judge_node(entry, state);
  judgement.version = state.version;
  judgement.record.node = entry.node;
  judgement.record.request_id = options_.request_id;
  judgement.record.source = options_.source;
  return judgement;
}

namespace {

// Why an operator's word about a free or held name stands above an import; empty: it does not.
std::string operators_word(const NodeState& state, bool overwrite) {
  if (state.held) return "the name is held by an operator since " + record_number(state.version);
  if (state.released && !overwrite)
    return "the name was released here by " + record_number(state.version) + " (--overwrite binds it again)";
  return {};
}

}  // namespace

Importer::Judgement Importer::judge_password(const ImportEntry& entry, const NodeState& state) {
  Judgement judgement;
  if (state.bound.known() && state.bound == entry.fingerprint) {
    judgement.what = Judgement::known;
    return judgement;
  }
  judgement.why = operators_word(state, options_.overwrite);
  if (judgement.why.empty() && state.is_bound() && !options_.overwrite)
    judgement.why = state.bound.known()
                        ? "bound here to another password since " + record_number(state.since) +
                              " (first wins; --overwrite replaces it)"
                        : "bound here by an imported hash of k3s since " + record_number(state.since) +
                              ", which its next registration verifies (--overwrite replaces it)";
  if (!judgement.why.empty()) return judgement;
  judgement.what = Judgement::write;
  if (state.is_bound()) {
    judgement.record.event = BindingChanged{
        .actor = options_.actor, .by = "import", .from = state.bound, .to = entry.fingerprint};
    judgement.record.note = "imported from node-passwd " + options_.file.substr(0, 12) + " with --overwrite";
  } else {
    judgement.record.event =
        BindingImported{.fingerprint = entry.fingerprint, .origin = "node-passwd", .file = options_.file};
  }
  return judgement;
}

Importer::Judgement Importer::judge_hash(const ImportEntry& entry, const NodeState& state) {
  Judgement judgement;
  const bool kept = hashes_.has(entry.node, state);
  if (kept && hashes_.holds(entry.node, entry.hash)) {
    judgement.what = Judgement::known;
    return judgement;
  }
  judgement.keep_hash = true;
  if (state.bound_by_hash && !kept) {
    judgement.what = Judgement::write;
    judgement.only_hash = true;
    return judgement;
  }
  judgement.why = operators_word(state, options_.overwrite);
  if (judgement.why.empty() && state.is_bound() && !options_.overwrite)
    judgement.why = state.bound_by_hash ? "bound here by another hash since " + record_number(state.since) +
                                              " (first wins; --overwrite replaces it)"
                                        : "bound here to a password since " + record_number(state.since) +
                                              "; whether the hash is of the same one cannot be told (first wins; "
                                              "--overwrite replaces it)";
  if (!judgement.why.empty()) return judgement;
  judgement.what = Judgement::write;
  judgement.record.event = BindingImported{.fingerprint = {}, .origin = "secret", .file = options_.file};
  if (state.is_bound()) judgement.record.note = "replaces the binding of " + record_number(state.since);
  return judgement;
}

Importer::Judgement Importer::judge_node(const ImportEntry& entry, const NodeState&) {
  Judgement judgement;
  judgement.what = Judgement::write;
  std::string last_uid;
  Seq deleted = 0;
  const auto seqs = ledger_.log().find(Index::node, entry.node, 1, UINT64_MAX, kNodeObjectsLookedAt);
  if (seqs)
    for (auto seq = seqs->rbegin(); seq != seqs->rend(); ++seq) {
      const Result<Record> record = ledger_.log().read(*seq);
      const auto* created = record ? as<NodeObjectCreated>(*record) : nullptr;
      const auto* gone = record ? as<NodeObjectDeleted>(*record) : nullptr;
      if (created == nullptr && gone == nullptr) continue;
      if (is_imported(*record)) continue;
      last_uid = created != nullptr ? created->uid : gone->uid;
      deleted = gone != nullptr ? *seq : 0;
      break;
    }
  if (!last_uid.empty() && last_uid == entry.uid) {
    judgement.what = deleted == 0 ? Judgement::known : Judgement::leave_out;
    if (deleted != 0)
      judgement.why = "this Node object was deleted meanwhile (" + record_number(deleted) + "): the list is older";
    return judgement;
  }
  judgement.record.event = NodeObjectCreated{.actor = options_.actor, .uid = entry.uid, .file = options_.file};
  judgement.record.first_time = entry.created;
  judgement.record.note = entry.created ? "from a list of Nodes; created " + entry.created->to_string()
                                        : "from a list of Nodes; when it was created is not known";
  return judgement;
}

// ---- writing ---------------------------------------------------------------------------------------------

Result<ImportOutcome> Importer::add(std::span<const ImportEntry> entries) {
  ImportOutcome outcome;
  while (!entries.empty()) {
    // A name stands once in a round: what is said of it second is judged when the first is in the ledger.
    std::unordered_set<std::string_view> names;
    std::size_t size = 0;
    while (size < entries.size() && size < kRound &&
           (options_.kind == ImportKind::log || names.insert(entries[size].node).second))
      ++size;
    const std::span<const ImportEntry> round = entries.first(size);
    entries = entries.subspan(size);
    if (options_.kind == ImportKind::log) {
      if (const Result<void> added = add_history(round, outcome); !added) return added.error();
      continue;
    }
    std::vector<const ImportEntry*> again;
    if (const Result<void> added = add_round(round, outcome, again); !added) return added.error();
    // Somebody registered one of these names at this very moment, or the queue was full.
    for (int tries = 0; !again.empty(); ++tries) {
      if (tries == kMaxTries) return Error{Errc::overloaded, "the server is too busy for an import; try again later"};
      std::vector<const ImportEntry*> lost = std::move(again);
      again.clear();
      for (const ImportEntry* entry : lost)
        if (const Result<void> added = add_round({entry, 1}, outcome, again); !added) return added.error();
      if (!again.empty()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  return outcome;
}

// One round of distinct names: judged, the hashes kept, then all of their records at once.
Result<void> Importer::add_round(std::span<const ImportEntry> entries, ImportOutcome& outcome,
                                 std::vector<const ImportEntry*>& again) {
  std::vector<HashStore::Entry> hashes;
  std::vector<Proposal> proposals;
  std::vector<const ImportEntry*> proposed;
  for (const ImportEntry& entry : entries) {
    Judgement judgement = judge(entry);
    if (judgement.what == Judgement::known) {
      ++outcome.known;
    } else if (judgement.what == Judgement::leave_out) {
      outcome.left_out.push_back({entry.line, entry.node, std::move(judgement.why)});
    } else {
      if (judgement.keep_hash) hashes.push_back({entry.node, {}, entry.hash.clone()});
      if (judgement.only_hash) {
        ++outcome.used;
        continue;
      }
      Proposal proposal;
      proposal.records.push_back(std::move(judgement.record));
      proposal.expect = Proposal::Expect{entry.node, judgement.version};
      proposals.push_back(std::move(proposal));
      proposed.push_back(&entry);
    }
  }
  // A hash before the binding that needs it: after a crash between them there is a hash too many, not one missing.
  if (const Result<void> kept = hashes_.put(hashes); !kept) return kept.error();
  const std::vector<Result<Committed>> outcomes = append_all(ledger_, std::move(proposals));
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    if (outcomes[i])
      ++outcome.used;
    else if (outcomes[i].error().code == Errc::conflict || outcomes[i].error().code == Errc::overloaded)
      again.push_back(proposed[i]);
    else
      return outcomes[i].error();
  }
  return {};
}

Result<void> Importer::add_history(std::span<const ImportEntry> entries, ImportOutcome& outcome) {
  Proposal proposal;
  for (const ImportEntry& entry : entries) {
    if (!entry.record || !may_be_history(entry.record->kind()) || !is_imported(*entry.record))
      return Error{Errc::invalid, "line " + std::to_string(entry.line) + " is not a record of another server's log"};
    if (imported_before_ || is_known_history(*entry.record)) {
      ++outcome.known;
      continue;
    }
    Record record = *entry.record;
    record.request_id = options_.request_id;
    proposal.records.push_back(std::move(record));
  }
  const auto count = static_cast<std::int64_t>(proposal.records.size());
  if (count == 0) return {};
  const Result<Committed> committed = ledger_.append_and_wait(std::move(proposal));
  if (!committed) return committed.error();
  outcome.used += count;
  return {};
}

// Also remembers it. Without a time nothing is known again: only a whole file can be.
bool Importer::is_known_history(const Record& record) {
  const auto term = term_of(record);
  if (!term || !record.first_time) return false;
  const auto inserted =
      history_.try_emplace(std::string(1, static_cast<char>(term->first)) + term->second);
  // clang 14 cannot capture structured bindings.
  auto& known = inserted.first->second;
  if (inserted.second)
    (void)ledger_.log().scan(term->first, term->second, 1, UINT64_MAX, [&](Seq, const Result<Record>& there) {
      if (there && is_imported(*there)) known.insert(identity_of(*there));
      return true;
    });
  return !known.insert(identity_of(record)).second;
}

Result<Committed> Importer::finish(std::int64_t used, std::int64_t left_out) {
  Record record;
  record.event = ImportFinished{.actor = options_.actor,
                                .origin = std::string(name_of(options_.kind)),
                                .file = options_.file,
                                .used = used,
                                .left_out = left_out};
  record.request_id = options_.request_id;
  record.source = options_.source;
  Proposal proposal;
  proposal.records.push_back(std::move(record));
  return ledger_.append_and_wait(std::move(proposal));
}

}  // namespace ledger
