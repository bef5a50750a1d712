// Takes over the memory of another server: what a k3s server's files say about node names becomes events here.
//
// A reader (import_read.h, import_log.h) makes entries of a file; the importer judges each against the ledger and
// writes what is new. The rules (docs/EVENTS.md, "Imports"):
//   - first wins: a name that is bound here to something else is left alone and reported, unless `overwrite`;
//     a name that an operator released or holds is never bound by an import (released: unless `overwrite`);
//   - the same entry again changes nothing and counts as known;
//   - clear-text passwords are fingerprints before they get here, hash texts go to the HashStore before the record
//     that binds the name is written; neither is ever in a message;
//   - what another server's log tells is history: it never changes the state of a name.
//
// An entry that cannot be used is no failure. A failure (disk, log) ends the import; what was written stays, and the
// same import again goes on from there.
//
// Threads: one object, one thread, never the writer's or a network thread: add() waits for the disk.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ledger/hash_store.h"
#include "ledger/ledger.h"

namespace ledger {

// Names are import_finished's `origin` and the commands' words.
enum class ImportKind { node_passwd, secrets, nodes, log };
std::string_view name_of(ImportKind kind);
std::optional<ImportKind> import_kind_from(std::string_view name);

// One thing that a file says. Which fields are filled depends on the kind.
struct ImportEntry {
  std::size_t line = 0;  // of a JSON document: the number of the item, from 1
  std::string node;
  Fingerprint fingerprint{};      // node-passwd: of the clear-text password
  Secret hash{};                  // secrets: the hash text
  std::string uid{};              // nodes
  std::optional<Time> created{};  // nodes
  std::optional<Record> record{};  // log; without seq and time
};

// How entries travel to a running server: one JSON object per line.
std::string to_json_line(const ImportEntry& entry);
Result<ImportEntry> import_entry_from_json(ImportKind kind, std::string_view line);

struct LeftOut {
  std::size_t line = 0;
  std::string node;  // empty: the line does not say
  std::string why;   // never with a secret in it
};

struct ImportOutcome {
  std::int64_t used = 0;   // became records
  std::int64_t known = 0;  // were known already
  std::vector<LeftOut> left_out;
};

class Importer {
 public:
  struct Options {
    ImportKind kind = ImportKind::node_passwd;
    std::string file;   // SHA-256 of the input, hex
    std::string actor;  // who imports
    bool overwrite = false;
    std::string request_id{}, source{};  // of the API request, if any
  };
  Importer(Ledger& ledger, HashStore& hashes, Options options);

  // Judges and writes. Everything that became a record is durable when it returns.
  Result<ImportOutcome> add(std::span<const ImportEntry> entries);
  // The record that ends an import.
  Result<Committed> finish(std::int64_t used, std::int64_t left_out);

  const Options& options() const { return options_; }

 private:
  // What is to become of one entry; `why` is set where it is left out.
  struct Judgement {
    enum { write, known, leave_out } what = leave_out;
    std::string why;
    Record record{};
    Seq version = 0;  // of the node, that this follows from
    bool keep_hash = false;
    bool only_hash = false;  // the binding stands, its hash was lost
  };
  Judgement judge(const ImportEntry& entry);
  Judgement judge_password(const ImportEntry& entry, const NodeState& state);
  Judgement judge_hash(const ImportEntry& entry, const NodeState& state);
  Judgement judge_node(const ImportEntry& entry, const NodeState& state);
  Result<void> add_round(std::span<const ImportEntry> entries, ImportOutcome& outcome,
                         std::vector<const ImportEntry*>& again);
  Result<void> add_history(std::span<const ImportEntry> entries, ImportOutcome& outcome);
  bool is_known_history(const Record& record);

  Ledger& ledger_;
  HashStore& hashes_;
  Options options_;
  std::optional<Seq> imported_before_;  // log: this very file was, by the import that this record ended
  std::unordered_map<std::string, std::unordered_set<std::string>> history_;  // index term -> what is there
};

}  // namespace ledger
