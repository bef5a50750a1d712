// What the tests of replay/ share: logs in memory, histories from text, random histories of one name.
#pragma once

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>

#include <boost/json.hpp>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "ledger/event_json.h"
#include "ledger/event_log.h"
#include "replay/explain.h"
#include "replay/render.h"

namespace ledger::replay::test {

// Where EventLog keeps what (ledger/event_log.h), for tests that reach below it.
enum StoredFamily { kMeta, kEvents, kIndex, kNodes, kTree };
inline std::string stored_key(Seq seq) {
  std::string key;
  for (int shift = 56; shift >= 0; shift -= 8) key.push_back(static_cast<char>((seq >> shift) & 0xFF));
  return key;
}

// A real log on a file system in memory.
class MemoryLog {
 public:
  MemoryLog() : env_(rocksdb::NewMemEnv(rocksdb::Env::Default())) {
    Result<std::unique_ptr<EventLog>> opened = EventLog::open({.dir = "/ledger", .env = env_.get()});
    if (!opened) fatal(opened.error().message);
    log_ = std::move(*opened);
  }

  // Appends the records as they are; their seqs must continue the log.
  void append(const std::vector<Record>& records) {
    std::vector<EventLog::NodeEntry> nodes;
    for (const Record& record : records)
      if (const NodeState* state = table_.apply(record)) nodes.emplace_back(record.node, *state);
    const Result<void> appended = log_->append(records, nodes);
    if (!appended) fatal(appended.error().message);
  }
  const EventLog& log() const { return *log_; }
  rocksdb::Env* env() { return env_.get(); }
  // Changes what is stored behind the log's back; `handles` by StoredFamily. Not opened
  // again where `reopen` is false, because it could not be: then only EventLog::follow() can look at it.
  void spoil(const std::function<void(rocksdb::DB&, const std::vector<rocksdb::ColumnFamilyHandle*>&)>& how,
             bool reopen = true) {
    log_.reset();
    rocksdb::Options options;
    options.env = env_.get();
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const char* name : {"default", "events", "index", "nodes", "tree"})
      families.emplace_back(name, rocksdb::ColumnFamilyOptions());
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    if (!rocksdb::DB::Open(options, "/ledger", families, &handles, &db).ok()) fatal("the log cannot be opened");
    how(*db, handles);
    for (auto* handle : handles) db->DestroyColumnFamilyHandle(handle);
    delete db;
    if (!reopen) return;
    Result<std::unique_ptr<EventLog>> opened = EventLog::open({.dir = "/ledger", .env = env_.get()});
    if (!opened) fatal(opened.error().message);
    log_ = std::move(*opened);
  }

 private:
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<EventLog> log_;
  NodeTable table_;
};

inline History history_of(const std::string& lines, const std::string& node, const Cut& at = {}) {
  std::istringstream stream(lines);
  Result<History> history = history_from_stream(stream, node, at);
  if (!history) fatal(history.error().message);
  return std::move(*history);
}

inline std::string lines_of(const std::vector<Record>& records) {
  std::string lines;
  for (const Record& record : records) lines += to_json_line(record) + "\n";
  return lines;
}

inline std::string json_of(const History& history) { return boost::json::serialize(to_json(explain(history))); }

inline std::vector<Seq> seqs_of(const History& history) {
  std::vector<Seq> seqs;
  for (const Record& record : history.records) seqs.push_back(record.seq);
  return seqs;
}

// Any event that may bear on the name `x`, with few passwords, addresses and servers, so that they meet.
inline rc::Gen<Record> related_record() {
  return rc::gen::exec([] {
    const auto one_of = [](std::vector<std::string> list) { return *rc::gen::elementOf(std::move(list)); };
    const auto fingerprint = [&] { return Fingerprint{one_of({"a41c", "77e0", "b3f4", "d00d", ""})}; };
    Record record;
    record.node = one_of({"x", "x", "x", "x", "y", ""});
    record.source = one_of({"10.0.0.1:4000", "10.0.0.2:5000", "[fd00::1]:9", "127.0.0.1:1", ""});
    if (*rc::gen::inRange(0, 2) == 0) record.claimed = {one_of({"10.0.0.1", "10.0.0.2", "10.9.9.9"})};
    record.server = one_of({"", "srv-1", "srv-2"});
    const auto token_reason = [&] {
      return one_of({"", "missing", "superseded", "wrong_secret", "unknown_principal"});
    };
    if (*rc::gen::inRange(0, 4) == 0) {
      record.authority = kUpstreamAuthority, record.upstream = one_of({"10.0.9.1:6443", "10.0.9.2:6443", ""});
      record.answered = *rc::gen::elementOf(std::vector<std::int64_t>{0, 200, 401, 403, 500});
      record.would_have = one_of({"admit_first", "admit_known", "refuse_mismatch", "serve", ""});
    }
    switch (*rc::gen::inRange(0, 25)) {
      case 0: record.event = PasswordStored{fingerprint()}; break;
      case 1:
      case 2: record.event = PasswordVerified{fingerprint()}; break;
      case 3:
      case 4:
      case 5:
        record.event = PasswordRejected{.fingerprint = fingerprint(), .bound = fingerprint(), .status = 403};
        record.count = *rc::gen::inRange<std::int64_t>(1, 50);
        break;
      case 6: record.event = BindingReleased{.actor = "ops", .by = "operator", .fingerprint = fingerprint()}; break;
      case 7:
        record.event = BindingChanged{.actor = "ops",
                                      .by = one_of({"operator_accept", "outside"}),
                                      .from = fingerprint(),
                                      .to = fingerprint()};
        break;
      case 8: record.event = BindingHeld{"ops"}; break;
      case 9: record.event = BindingImported{.fingerprint = fingerprint(), .origin = "secret"}; break;
      case 10:
      case 11: record.event = TunnelOpened{one_of({"s1", "s2"})}; break;
      case 12: record.event = TunnelClosed{.session = one_of({"s1", "s2"}), .cause = "gone", .seconds = {}}; break;
      case 13:
        record.event = TokenRejected{.status = 401, .reason = token_reason(), .token = one_of({"", "t1"})};
        record.auth.method = one_of({"basic", "certificate"});
        break;
      case 14:
        record.event = RequestRejected{
            .status = 400, .reason = one_of({"node_password_missing", "node_unknown", "overloaded", "bad_csr", "upstream_error",
                                          "upstream_unavailable"})};
        break;
      case 15: record.event = NodeObjectDeleted{"kubectl"}; break;
      case 16: record.event = NodeObjectCreated{"kubelet"}; break;
      case 17: record.event = TlsFailed{.alert = "bad certificate", .trust_probe = {}}; break;
      case 18: {
        CertificateIssued issued;
        issued.purpose = one_of({"serving-kubelet", "client-kubelet"});
        record.event = std::move(issued);
        break;
      }
      case 19: {
        EpochStarted epoch;
        epoch.cause = one_of({"restored", "ca_changed", "imported"});
        record.event = std::move(epoch);
        break;
      }
      case 20:
        record.event = ServerStarted{
            .version = "1", .client_ca = one_of({"c1", "c2"}), .server_ca = {}, .ledger = {}, .clean = {}};
        break;
      case 21:
        record.event = ModeChanged{
            .mode = one_of({"observe", "enforce", "alone", ""}), .from = {}, .upstreams = {}, .actor = {}};
        break;
      case 22: record.event = UpstreamLost{"connection refused"}; break;
      case 23: record.event = UpstreamFound{.seconds = 40}; break;
      default: record.event = TokenAccepted{}; break;
    }
    return record;
  });
}

// Seqs 1, 2, 3, ...; times go on by anything from nothing to months.
inline rc::Gen<std::vector<Record>> related_history() {
  return rc::gen::exec([] {
    std::vector<Record> records = *rc::gen::container<std::vector<Record>>(related_record());
    Time now{1'700'000'000'000'000};
    Seq seq = 0;
    for (Record& record : records) {
      record.seq = ++seq;
      now = now.plus_seconds(
          *rc::gen::elementOf(std::vector<std::int64_t>{0, 1, 5, 5, 30, 600, 7200, 86400, 8'000'000}));
      record.time = now;
      if (record.count > 1 && *rc::gen::inRange(0, 2) == 0)
        record.first_time = now.plus_seconds(-*rc::gen::inRange(0, 200));
    }
    return records;
  });
}

}  // namespace ledger::replay::test
