// Histories as a server writes them: whatever is asked, the real decide() rules and the record follows.
#pragma once

#include <rapidcheck.h>

#include <string>
#include <vector>

#include "ledger/decision.h"
#include "ledger/node_table.h"

namespace ledger::replay::test {

// A server's log, one call per thing that happens. Times go on by what wait() says.
class RuledLog {
 public:
  explicit RuledLog(Time start = Time{1'700'000'000'000'000}) : now_(start) {}

  std::vector<Record> records;

  void wait(std::int64_t seconds) { now_ = now_.plus_seconds(seconds); }
  Time now() const { return now_; }
  Seq seq() const { return records.size(); }  // of the last record

  // A machine asks for `node`; `count` outcomes in `within` seconds up to now are one record where it is refused.
  Ruling ask(const std::string& node, const std::string& password, const std::string& host, std::int64_t count = 1,
             std::int64_t within = 0) {
    const NodeState* known = table_.find(node);
    Evidence evidence{TokenResult::accepted, HeaderResult::complete, known == nullptr ? NodeState{} : *known,
                      Fingerprint{password}};
    // The hash of k3s in these histories is that of the password "h".
    if (evidence.node.is_bound() && !evidence.node.bound.known()) evidence.hash_match = password == "h";
    const Ruling ruling = decide(evidence);
    Record record = of(node, host);
    if (ruling == Ruling::admit_first) {
      record.event = PasswordStored{Fingerprint{password}};
    } else if (ruling == Ruling::admit_known) {
      record.event = PasswordVerified{Fingerprint{password}};
    } else {
      record.event =
          PasswordRejected{.fingerprint = Fingerprint{password}, .bound = evidence.node.bound, .status = 403};
      record.count = count;
      if (count > 1) record.first_time = now_.plus_seconds(-within);
    }
    put(std::move(record));
    return ruling;
  }
  void tunnel_opened(const std::string& node, const std::string& session, const std::string& host = "10.0.0.1") {
    Record record = of(node, host);
    record.event = TunnelOpened{session};
    put(std::move(record));
  }
  void tunnel_closed(const std::string& node, const std::string& session, const std::string& host = "10.0.0.1") {
    Record record = of(node, host);
    record.event = TunnelClosed{.session = session, .cause = "gone", .seconds = {}};
    put(std::move(record));
  }
  void accept(const std::string& node, const std::string& password) {
    const NodeState* known = table_.find(node);
    const Fingerprint from = known == nullptr ? Fingerprint{} : known->bound;
    event(BindingChanged{.actor = "alice@srv", .by = "operator_accept", .from = from, .to = Fingerprint{password}},
          node);
  }
  void release(const std::string& node, const std::string& by = "operator") {
    event(BindingReleased{.actor = "alice@srv", .by = by, .fingerprint = {}}, node);
  }
  void hold(const std::string& node) { event(BindingHeld{"alice@srv"}, node); }
  void import_hash(const std::string& node) { event(BindingImported{.fingerprint = {}, .origin = "secret"}, node); }
  void reject_token(const std::string& token, const std::string& reason, const std::string& endpoint,
                    const std::string& node = {}) {
    Record record = of(node, "10.0.0.9");
    record.endpoint = endpoint;
    record.event = TokenRejected{.status = 401, .reason = reason, .token = token};
    put(std::move(record));
  }
  // Any other record.
  void event(Event what, const std::string& node = {}) {
    Record record;
    record.node = node;
    record.event = std::move(what);
    put(std::move(record));
  }

 private:
  static Record of(const std::string& node, const std::string& host) {
    Record record;
    record.node = node;
    record.source = host + ":40000";
    record.server = "srv-1";
    return record;
  }
  void put(Record record) {
    record.seq = records.size() + 1;
    record.time = now_;
    table_.apply(record);
    records.push_back(std::move(record));
  }

  Time now_;
  NodeTable table_;
};

// Whatever may happen to a few names with few passwords and addresses, so that they meet.
inline rc::Gen<std::vector<Record>> ruled_history() {
  return rc::gen::exec([] {
    const auto one_of = [](std::vector<std::string> list) { return *rc::gen::elementOf(std::move(list)); };
    RuledLog log;
    const auto node = [&] { return one_of({"x", "x", "y", "z"}); };
    const auto host = [&] { return one_of({"10.0.0.1", "10.0.0.1", "10.0.0.2"}); };
    const auto token = [&] { return one_of({"t1", "t2"}); };
    const int steps = *rc::gen::inRange(0, 40);
    for (int i = 0; i < steps; ++i) {
      log.wait(*rc::gen::elementOf(std::vector<std::int64_t>{0, 1, 5, 30, 600, 7200, 86400, 3'000'000}));
      switch (*rc::gen::inRange(0, 14)) {
        case 0: log.tunnel_opened(node(), one_of({"s1", "s2"})); break;
        case 1: log.tunnel_closed(node(), one_of({"s1", "s2"})); break;
        case 2: log.accept(node(), one_of({"a", "b", "c"})); break;
        case 3: log.release(node(), one_of({"operator", "node_deleted"})); break;
        case 4: log.hold(node()); break;
        case 5: log.import_hash(node()); break;
        case 6:
          log.event(TokenCreated{.token = token(), .token_class = "agent", .expires = {}, .actor = "alice@srv"});
          break;
        case 7:
          log.event(TokenRotated{.token = token(), .token_class = "agent", .expires = {}, .actor = "alice@srv"});
          break;
        case 8:
          log.event(TokenRevoked{.token = token(), .token_class = "agent", .expires = {}, .actor = "alice@srv"});
          break;
        case 9:
          log.reject_token(token(), one_of({"superseded", "revoked", "wrong_secret"}),
                           one_of({"/v1-k3s/config", "/v1-k3s/serving-kubelet.crt", ""}), one_of({"x", "y", ""}));
          break;
        default:
          log.ask(node(), one_of({"a", "b", "c", "h"}), host(), *rc::gen::inRange<std::int64_t>(1, 9),
                  *rc::gen::inRange<std::int64_t>(0, 100));
      }
    }
    return log.records;
  });
}

}  // namespace ledger::replay::test
