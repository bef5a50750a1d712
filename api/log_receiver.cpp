#include "api/log_receiver.h"

#include <optional>

namespace ledger::api {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kAtOnce = 8 << 10;  // bytes that must go within one timeout
constexpr std::chrono::milliseconds kLook{5};
constexpr std::chrono::seconds kFarewell{5};  // for the receiver's own end, after ours
// What a receiver has read it may still lose when it is killed; who leaves this long after the last record has not.
constexpr std::chrono::seconds kDigested{10};

class LogReceiver : public Destination {
 public:
  LogReceiver(const DestinationOptions& options, TlsOptions link, std::optional<TlsContext> context)
      : counted_(options.format == replay::AuditFormat::syslog),
        timeout_(options.timeout),
        options_(std::move(link)),
        context_(std::move(context)) {}
  ~LogReceiver() override {
    if (link_) link_->hang_up();
  }

  std::string name() const override { return (context_ ? "tls://" : "tcp://") + options_.connect_to.to_string(); }
  bool acknowledges() const override { return false; }

  Attempt deliver(const Batch& batch) override {
    if (!link_)
      if (Attempt connected = connect(); connected.outcome != Attempt::Outcome::taken) return connected;
    std::string out;
    for (const replay::TailLine& line : batch.lines) {
      out += counted_ ? octet_counted(line.text) : line.text;
      if (out.size() < kAtOnce && &line != &batch.lines.back()) continue;
      link_->set_deadline(Clock::now() + timeout_);
      if (!link_->write(out)) return lose();
      written_ = Clock::now();
      out.clear();
    }
    return wait_until_acknowledged();
  }

  Departure gone() override {
    if (!link_ || !heard_the_end(std::chrono::milliseconds(0))) return {};
    const bool in_order = link_->ended() && Clock::now() - written_ >= kDigested;
    return {lose().why, in_order};
  }

  // Who answers our end with its own, and not with a reset or an alert (which is how TLS 1.3 refuses a client's
  // certificate), has read up to it.
  Attempt settle() override {
    if (!link_) return {};
    link_->end_writing();
    const bool heard = heard_the_end(kFarewell);
    if (heard && !link_->ended()) return lose();
    link_->hang_up();
    link_.reset();
    return {};
  }

 private:
  Attempt connect() {
    link_.emplace();
    link_->set_deadline(Clock::now() + timeout_);
    const Result<void> opened = context_ ? link_->open(options_, *context_) : link_->open_plain(options_);
    if (opened) return {};
    link_.reset();
    // A certificate that does not fit mends itself as little as a wrong name does.
    const bool refused = opened.error().code == Errc::invalid;
    return {refused ? Attempt::Outcome::refused : Attempt::Outcome::lost, printable(opened.error().message, 300)};
  }

  // The reason is the link's.
  Attempt lose() {
    Attempt lost{Attempt::Outcome::lost, printable(link_->error().message, 300)};
    if (link_->ended()) lost.why = "it closed the connection";
    if (link_->timed_out()) lost.why = "it has taken nothing for " + std::to_string(timeout_.count()) + " s";
    link_->hang_up();
    link_.reset();
    return lost;
  }

  // Receivers say nothing; what can be read is their leaving, or an alert.
  bool heard_the_end(std::chrono::milliseconds wait) {
    char ignored[512];
    link_->set_deadline(Clock::now() + wait);
    while (link_->read(ignored, sizeof ignored) > 0) {
    }
    return !link_->timed_out();
  }

  Attempt wait_until_acknowledged() {
    std::size_t left = link_->unacknowledged();
    for (auto progress = Clock::now(); left > 0 || heard_the_end(std::chrono::milliseconds(0));) {
      if (left == 0 || heard_the_end(kLook)) return lose();
      const std::size_t now_left = link_->unacknowledged();
      if (now_left != left) progress = Clock::now();
      left = now_left;
      const bool interrupted = options_.interrupt != nullptr && *options_.interrupt;
      if (Clock::now() - progress > timeout_ || interrupted) return lose();
    }
    return {};
  }

  const bool counted_;
  const std::chrono::seconds timeout_;
  const TlsOptions options_;
  const std::optional<TlsContext> context_;  // none: plain TCP
  std::optional<TlsLink> link_;
  Clock::time_point written_;  // the last time
};

}  // namespace

std::string octet_counted(std::string_view line) {
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  return std::to_string(line.size()) + " " + std::string(line);
}

Result<std::unique_ptr<Destination>> open_log_receiver(const DestinationOptions& options, TlsOptions link,
                                                       bool tls) {
  std::optional<TlsContext> context;
  if (tls) {
    const Result<TlsContext> made = TlsContext::make(link);
    if (!made) return made.error();
    context = *made;
  }
  return std::unique_ptr<Destination>(new LogReceiver(options, std::move(link), std::move(context)));
}

}  // namespace ledger::api
