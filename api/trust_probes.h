// Tells an agent's expected first handshake failure from a real one.
//
// An agent that does not trust the cluster CA yet asks for /cacerts three times: the first connection, checked
// against the machine's own roots, it breaks off with a TLS alert; the second it makes without checking
// (docs/HTTP_API.md, "Trust bootstrap"). So a failure of that sort is held back for up to 3 s and recorded with
// trust_probe saying whether a /cacerts from the same host followed.
//
// Any thread. Memory is bounded: past the bound failures are recorded at once, as not explained.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "api/http.h"
#include "ledger/ledger.h"

namespace ledger::api {

class TrustProbes {
 public:
  explicit TrustProbes(Ledger& ledger) : ledger_(ledger) {}

  void handshake_failed(const Peer& peer, const std::string& alert);
  // A /cacerts from this peer: explains the oldest failure of its host.
  void cacerts_asked(const std::string& source);
  // Records what has waited 3 s; with `all`, everything. Call about once a second, and before the ledger closes.
  void settle(bool all);

 private:
  struct Failure {
    Peer peer;
    std::string alert;
    Time time;
  };
  void record(const Failure& failure, bool trust_probe);

  Ledger& ledger_;
  std::mutex mutex_;
  std::multimap<std::string, Failure, std::less<>> waiting_;  // by host; guarded by mutex_
};

}  // namespace ledger::api
