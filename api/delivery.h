// Brings the records of a log to a destination: in order, none skipped, again and again until they are taken.
//
// After a loss everything that may not have been read is sent again: the batch under way, and where a destination cannot
// acknowledge (destination.h) also the last `resend` records that went over the lost connection. So a record comes
// twice only after a loss, and never out of order within one connection.
//
// The mark is what survives: `taken`, behind which everything is still to be sent, and `sending`, the end of the batch
// that was begun. A process that goes on from it makes that batch again as it was, with the same id.
//
// Knows no clock and no thread: step() makes one attempt and says how long to wait. One thread.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>

#include "api/destination.h"

namespace ledger::api {

struct DeliveryMark {
  Seq taken = 0;    // up to here nothing is owed any more
  Seq sending = 0;  // last record of the batch that was begun; 0: none was
};

struct DeliveryOptions {
  DeliveryMark from{};
  replay::ExportOptions records{};
  replay::TailLimits batch{};
  std::size_t resend = 1000;
  std::chrono::milliseconds first_pause{500}, longest_pause{60'000};
  std::function<Result<void>(const DeliveryMark&)> keep{};  // durable when it returns; may be missing
  std::function<void(const std::string&)> tell{};           // a line for people
  std::function<double()> jitter{};                         // 0..1; missing: a random one
};

class Delivery {
 public:
  Delivery(Destination& destination, DeliveryOptions options);

  struct Step {
    bool idle = false;                  // everything that the log has is taken
    std::chrono::milliseconds wait{0};  // before the next step
  };
  // Errors are final: the log cannot be read, the mark not kept, or the destination has ended.
  Result<Step> step(const EventLog& log);
  // For who ends when everything is taken: idle when that is certain, else there are steps to make again.
  Result<Step> settle(const EventLog& log);
  // Keeps the mark as it is now; call before the end.
  Result<void> finish();

  const DeliveryMark& mark() const { return mark_; }
  int failures() const { return failures_; }      // attempts in a row
  std::uint64_t delivered() const { return delivered_; }  // records, doubles too
  std::uint64_t holes() const { return holes_; }

 private:
  Result<Step> look(const EventLog& log);
  Result<Step> send(const EventLog& log);
  Result<Step> take(const EventLog& log);
  Result<Step> fail(const EventLog& log, const Attempt& attempt);
  Result<void> keep();
  std::chrono::milliseconds pause(const Attempt& attempt);
  void tell(const std::string& line) const;

  Destination& destination_;
  const DeliveryOptions options_;
  DeliveryMark mark_, kept_;
  replay::TailPiece piece_;     // what is being sent; no lines: nothing is
  std::size_t at_once_;         // records in a batch now
  std::deque<Seq> unsure_;      // taken over this connection, perhaps not read
  int failures_ = 0;
  std::string told_;            // why the consumer was said to be lost last; empty: it is there
  std::uint64_t delivered_ = 0, holes_ = 0;
};

}  // namespace ledger::api
