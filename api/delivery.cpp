#include "api/delivery.h"

#include <algorithm>
#include <random>

namespace ledger::api {
namespace {

constexpr Seq kKeepEvery = 10'000;      // records that a filter left out
constexpr int kTellAgain = 20;          // attempts
constexpr std::uint64_t kHolesTold = 1000;

double random_jitter() {
  thread_local std::minstd_rand engine{std::random_device{}()};
  return std::uniform_real_distribution<double>(0.0, 1.0)(engine);
}

std::string records_text(Seq count) { return std::to_string(count) + (count == 1 ? " record" : " records"); }

}  // namespace

Delivery::Delivery(Destination& destination, DeliveryOptions options)
    : destination_(destination),
      options_(std::move(options)),
      mark_(options_.from),
      kept_(options_.from),
      at_once_(options_.batch.records) {}

void Delivery::tell(const std::string& line) const {
  if (options_.tell) options_.tell(line);
}

Result<void> Delivery::keep() {
  if (kept_.taken == mark_.taken && kept_.sending == mark_.sending) return {};
  if (options_.keep)
    if (const Result<void> kept = options_.keep(mark_); !kept) return kept;
  kept_ = mark_;
  return {};
}

Result<void> Delivery::finish() { return keep(); }

Result<Delivery::Step> Delivery::step(const EventLog& log) {
  if (!piece_.lines.empty()) return send(log);
  const Departure gone = destination_.gone();
  if (!gone.why.empty() && !gone.in_order) return fail(log, {Attempt::Outcome::lost, gone.why});
  if (gone.in_order) {
    unsure_.clear();
    tell(destination_.name() + ": " + gone.why + "; the next record opens another");
  }
  return look(log);
}

Result<Delivery::Step> Delivery::settle(const EventLog& log) {
  const Attempt attempt = destination_.settle();
  if (attempt.outcome != Attempt::Outcome::taken) return fail(log, attempt);
  unsure_.clear();
  return Step{.idle = true};
}

Result<Delivery::Step> Delivery::look(const EventLog& log) {
  replay::TailLimits limits = options_.batch;
  limits.records = at_once_;
  if (mark_.sending > mark_.taken) {
    limits.until = mark_.sending;
    limits.records = options_.batch.records;  // as it was when it was begun, or less
  }
  Result<replay::TailPiece> piece = replay::read_tail(log, mark_.taken, options_.records, limits);
  if (!piece) return piece.error();
  for (const replay::Hole& hole : piece->holes)
    if (++holes_ <= kHolesTold)
      tell("record " + std::to_string(hole.seq) + " cannot be sent: " + printable(hole.reason, 300));
  if (!piece->lines.empty()) {
    piece_ = std::move(*piece);
    mark_.sending = piece_.seen;
    return send(log);
  }
  mark_.taken = piece->seen;
  mark_.sending = 0;
  if (mark_.taken >= kept_.taken + kKeepEvery)
    if (const Result<void> kept = keep(); !kept) return kept.error();
  return Step{.idle = log.head() <= mark_.taken};
}

Result<Delivery::Step> Delivery::send(const EventLog& log) {
  // Which records make the batch is on the disk before it leaves: after a crash it is the same again.
  if (destination_.acknowledges())
    if (const Result<void> kept = keep(); !kept) return kept.error();
  const Attempt attempt = destination_.deliver({log.id(), piece_.lines});
  switch (attempt.outcome) {
    case Attempt::Outcome::taken: return take(log);
    case Attempt::Outcome::ended: return Error{Errc::io, attempt.why};
    case Attempt::Outcome::too_large:
      if (piece_.lines.size() == 1) break;
      at_once_ = piece_.lines.size() / 2;
      piece_ = {};
      mark_.sending = 0;
      return Step{};
    case Attempt::Outcome::lost:
    case Attempt::Outcome::refused: break;
  }
  return fail(log, attempt);
}

Result<Delivery::Step> Delivery::take(const EventLog& log) {
  delivered_ += piece_.lines.size();
  if (!destination_.acknowledges())
    for (const replay::TailLine& line : piece_.lines) unsure_.push_back(line.seq);
  while (unsure_.size() > options_.resend) unsure_.pop_front();
  mark_ = {.taken = piece_.seen, .sending = 0};
  piece_ = {};
  at_once_ = std::min(at_once_ * 2, options_.batch.records);
  failures_ = 0;
  if (!std::exchange(told_, "").empty()) {
    const Seq behind = log.head() > mark_.taken ? log.head() - mark_.taken : 0;
    tell(destination_.name() + " is back, " + (behind == 0 ? "nothing" : records_text(behind)) + " to catch up with");
  }
  if (const Result<void> kept = keep(); !kept) return kept.error();
  return Step{};
}

Result<Delivery::Step> Delivery::fail(const EventLog& log, const Attempt& attempt) {
  ++failures_;
  if (!destination_.acknowledges()) {
    // What is read again makes smaller batches, so that something gets through to one that leaves soon.
    if (!unsure_.empty()) mark_.taken = std::min(mark_.taken, unsure_.front() - 1);
    unsure_.clear();
    at_once_ = std::max<std::size_t>(at_once_ / 2, 1);
    mark_.sending = 0;
    piece_ = {};
    if (const Result<void> kept = keep(); !kept) return kept.error();
  }
  const std::chrono::milliseconds wait = pause(attempt);
  if (told_ != attempt.why || failures_ % kTellAgain == 0) {
    const Seq behind = log.head() > mark_.taken ? log.head() - mark_.taken : 0;
    const char* what = attempt.outcome == Attempt::Outcome::lost ? " is lost: " : " does not take the records: ";
    tell(destination_.name() + what + attempt.why + "; " + records_text(behind) + " behind, nothing is skipped, next try in " +
         std::to_string((wait.count() + 999) / 1000) + " s");
    told_ = attempt.why;
  }
  return Step{.wait = wait};
}

// Exponential, with full jitter above the first half; what a person must mend is tried at the slowest pace.
std::chrono::milliseconds Delivery::pause(const Attempt& attempt) {
  const double jitter = options_.jitter ? options_.jitter() : random_jitter();
  auto wait = options_.first_pause;
  for (int i = 1; i < failures_ && wait < options_.longest_pause; ++i) wait *= 2;
  if (attempt.outcome != Attempt::Outcome::lost) wait = options_.longest_pause;
  wait = std::min(wait, options_.longest_pause);
  const auto half = wait / 2;
  const auto spread = static_cast<std::int64_t>(static_cast<double>((wait - half).count()) * jitter);
  return std::max(half + std::chrono::milliseconds(spread), attempt.wait);
}

}  // namespace ledger::api
