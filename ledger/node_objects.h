// The cluster's Node objects as the log has them: which exist, by name and uid. For whoever watches a
// kube-apiserver and reports what it saw; here it becomes records, each appearance and each deletion of a uid
// exactly once, however often and by however many watchers it is reported.
//
// Kept in memory: the objects that exist, and the last uids that went (kRemembered), so that a watcher that lags
// cannot bring one back. Made by folding node_object_created and node_object_deleted, whoever wrote them: the whole
// log at the first call (about a second per million records), what has been added since at every later one. Nothing
// of it is stored.
//
// Releasing a name on a deletion is the caller's wish, never the default. It is granted only where the deletion is
// recorded by the same call, no other Node object of that name exists, and the name is bound; the record of the
// deletion and the release are one batch. A name that is held stays held (node_table.h).
//
// Threads: any thread, one call at a time inside. Calls wait for the disk: never from the writer's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "ledger/ledger.h"

namespace ledger {

class NodeObjects {
 public:
  explicit NodeObjects(Ledger& ledger) : ledger_(ledger) {}

  struct Change {
    std::string node;  // metadata.name
    std::string uid;   // metadata.uid, not empty
    bool deleted = false;
    std::string note;  // for the record: how it was noticed
  };
  struct Report {
    std::string actor;
    bool release_on_delete = false;
    std::vector<Change> changes;  // in the order in which they happened
    std::string request_id, source;
  };
  struct Outcome {
    std::uint64_t created = 0, deleted = 0, released = 0, known = 0;
    Seq last = 0;  // of the last record; 0: there was nothing new
  };
  // Records what is new in the report. After an error a part of it may be recorded; to report all again is
  // harmless.
  Result<Outcome> record(const Report& report);

  // Name and uid of every object that exists, in name order. An empty uid: an import did not know it.
  Result<std::vector<std::pair<std::string, std::string>>> existing();

  static constexpr std::size_t kRemembered = 16'384;

 private:
  Result<void> catch_up();
  void forget();
  void fold(const Record& record);
  // Folded at once, written by flush(): one sync for many.
  void stage(Record record);
  Result<void> flush(Outcome& outcome);
  void stage_creation(const Report& report, const Change& change, Outcome& outcome);
  Result<void> record_deletion(const Report& report, const Change& change, bool release, Outcome& outcome);

  Ledger& ledger_;
  std::mutex mutex_;
  Seq folded_ = 0;
  std::map<std::string, std::string> live_;  // name -> uid
  std::set<std::string> gone_;               // the uids of gone_order_
  std::deque<std::string> gone_order_;
  std::vector<Record> staged_;
};

}  // namespace ledger
