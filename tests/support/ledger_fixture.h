// A ledger in a directory of its own, driven by verbs: web-1 registers, an operator releases it, the server stops.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ledger/decision.h"
#include "ledger/ledger.h"
#include "tests/support/fault_fs.h"
#include "tests/support/temp_dir.h"
#include "tests/support/verify_log.h"

namespace ledger::test {

// A wall clock that stands still until it is told.
class FakeClock {
 public:
  explicit FakeClock(const char* start = "2024-06-11T07:00:00Z") : now_(*Time::parse(start)) {}
  Time now() const {
    const std::lock_guard lock(mutex_);
    return now_;
  }
  void advance(std::int64_t seconds) {
    const std::lock_guard lock(mutex_);
    now_ = now_.plus_seconds(seconds);
  }

 private:
  mutable std::mutex mutex_;
  Time now_;
};

// The records of one request.
inline Proposal proposal_of(std::vector<Record> records) {
  Proposal proposal;
  proposal.records = std::move(records);
  return proposal;
}

inline Record record_of(Event event, std::string node = "") {
  Record record;
  record.event = std::move(event);
  record.node = std::move(node);
  return record;
}

// One request as the server serves it: look, decide, append; look again when somebody else was first.
struct Registered {
  Ruling ruling = Ruling::refuse_token;
  Result<Committed> outcome = Error{Errc::invalid, "never tried"};
};

inline Registered register_node(Ledger& ledger, const std::string& node, const std::string& fingerprint,
                                const std::string& source = "10.0.0.5:41000") {
  Registered result;
  do {
    Evidence evidence{TokenResult::accepted, HeaderResult::complete, ledger.find(node), Fingerprint{fingerprint}};
    result.ruling = decide(evidence);
    Record record = record_of(PasswordStored{evidence.presented}, node);
    if (result.ruling == Ruling::admit_known) record.event = PasswordVerified{evidence.presented};
    if (!admitted(result.ruling))
      record.event =
          PasswordRejected{.fingerprint = evidence.presented, .bound = evidence.node.bound, .status = 403};
    record.source = source;
    record.request_id = "r";
    Proposal proposal = proposal_of({std::move(record)});
    proposal.expect = Proposal::Expect{node, evidence.node.version};
    result.outcome = ledger.append_and_wait(std::move(proposal));
  } while (!result.outcome && result.outcome.error().code == Errc::conflict);
  return result;
}

class LedgerTest : public ::testing::Test {
 protected:
  LedgerTest() {
    options_.log.dir = dir_.path() / "events";
    options_.log.env = disk_.env.get();
    options_.server_name = "srv";
    options_.min_free_bytes = 0;
    options_.clock = [this] { return clock_.now(); };
  }

  // Every ledger test ends with this, unless it has damaged its log itself.
  void TearDown() override {
    if (ledger_ == nullptr || !verify_at_end_) return;
    EXPECT_TRUE(ledger_->close().has_value());
    EXPECT_EQ(broken_promises(ledger_->log()), std::vector<std::string>());
  }

  void open() {
    ASSERT_EQ(ledger_, nullptr);
    Result<std::unique_ptr<Ledger>> opened = Ledger::open(options_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    ledger_ = std::move(*opened);
  }
  // Stops in order and looks at what is left.
  void close() {
    EXPECT_TRUE(ledger_->close().has_value());
    EXPECT_EQ(broken_promises(ledger_->log()), std::vector<std::string>());
    ledger_.reset();
  }
  void reopen() {
    close();
    open();
  }

  Result<Committed> append(Event event, const std::string& node = "") {
    return ledger_->append_and_wait(proposal_of({record_of(std::move(event), node)}));
  }
  Seq append_ok(Event event, const std::string& node = "") {
    const Result<Committed> outcome = append(std::move(event), node);
    if (!outcome) {
      ADD_FAILURE() << outcome.error().message;
      return 0;
    }
    return outcome->last();
  }
  Ruling registers(const std::string& node, const std::string& fingerprint) {
    const Registered registered = register_node(*ledger_, node, fingerprint);
    EXPECT_TRUE(registered.outcome.has_value());
    return registered.ruling;
  }
  std::vector<Record> records() const { return all_records(ledger_->log()); }
  std::vector<std::string> kinds() const {
    std::vector<std::string> names;
    for (const Record& record : records()) names.emplace_back(name_of(record.kind()));
    return names;
  }

  TempDir dir_{memory_directory()};
  FaultEnv disk_;
  FakeClock clock_;
  Ledger::Options options_;
  bool verify_at_end_ = true;
  std::unique_ptr<Ledger> ledger_;
};

}  // namespace ledger::test
