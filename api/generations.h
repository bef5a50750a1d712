// Which generation of k3s an agent is. It never says: it is told from what it asks for and how. The rule and its
// limits are docs/HTTP_API.md, "Generations"; only what is certain is said, "" stands for the rest.
//
// G1, G6 and G7 show themselves in the request for a certificate. G4 and G5 do not: they differ in what they ask
// for after it. So the last life of a machine is remembered (from one registration to the next), and tells at the
// next one. A machine is a node name with its password: a stranger who claims the name learns and spoils nothing.
//
// Requests after the registration carry no name; they are taken for those of the one node that registered from that
// address. Where several did, nothing is concluded from them.
//
// Memory: bounded (what was not heard of for the longest goes first), and lost at a restart. Threads: any.
#pragma once

#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "api/http.h"
#include "ledger/types.h"

namespace ledger::api {

class Generations {
 public:
  explicit Generations(std::size_t capacity = 65536) : machines_(capacity), hosts_(capacity) {}

  // What a request alone shows.
  static std::string of_request(const Request& request);

  // What a request for a kubelet certificate and its machine's last life show. The answer is the same for all such
  // requests of one life: storms compare it.
  std::string of_registration(const Request& request, const std::string& node, const Fingerprint& password);
  // That registration was admitted: from here on the machine is remembered.
  void admitted(const Request& request, const std::string& node, const Fingerprint& password);
  // A request for a document was admitted. `node`: of the caller's certificate, where that is who it is.
  void served(const Request& request, const std::string& node);
  // The node's tunnel is open: it has asked for all that it asks for before.
  void tunnel_opened(const Request& request, const std::string& node);

 private:
  struct Machine {
    Fingerprint password;
    std::string host;     // of its registration
    std::string learned;  // of lives before this one
    bool direct = false;  // this life's registration showed it by itself
    bool asked_readyz = false, asked_apiservers = false, opened_tunnel = false;
  };
  struct Host {
    std::string node;
    bool shared = false;  // by several nodes
  };

  // The `capacity` entries that were used last.
  template <class T>
  class Recent {
   public:
    explicit Recent(std::size_t capacity) : capacity_(capacity) {}
    T* find(const std::string& key) {
      const auto found = by_key_.find(key);
      if (found == by_key_.end()) return nullptr;
      entries_.splice(entries_.begin(), entries_, found->second);
      return &found->second->second;
    }
    T& find_or_add(const std::string& key) {
      if (T* found = find(key)) return *found;
      entries_.emplace_front(key, T{});
      by_key_.emplace(entries_.front().first, entries_.begin());
      if (entries_.size() > capacity_) {
        by_key_.erase(entries_.back().first);
        entries_.pop_back();
      }
      return entries_.front().second;
    }

   private:
    using Entries = std::list<std::pair<const std::string, T>>;
    std::size_t capacity_;
    Entries entries_;  // the last used first
    std::unordered_map<std::string_view, typename Entries::iterator> by_key_;  // views into the entries
  };

  // A life is over: what it showed.
  void conclude(Machine& machine);

  std::mutex mutex_;  // guards what follows
  Recent<Machine> machines_;  // by node name
  Recent<Host> hosts_;        // by address
};

}  // namespace ledger::api
