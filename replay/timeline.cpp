#include "replay/timeline.h"

namespace ledger::replay {
namespace {

// Counts the lives of one name.
class Lives {
 public:
  std::uint32_t at(const Record& record) {
    if (const auto* stored = as<PasswordStored>(record)) bind(stored->fingerprint);
    if (const auto* changed = as<BindingChanged>(record)) bind(changed->to);
    if (const auto* imported = as<BindingImported>(record)) bind(imported->fingerprint);
    // In an extract, a password that is verified and is not the bound one tells of a binding we did not see.
    if (const auto* verified = as<PasswordVerified>(record)) verify(verified->fingerprint);
    if (as<BindingReleased>(record) != nullptr) alive_ = false;
    return count_;
  }

 private:
  void bind(const Fingerprint& to) {
    const bool goes_on = alive_ && to == password_;
    if (!goes_on) ++count_;
    alive_ = true;
    password_ = to;
  }
  void verify(const Fingerprint& presented) {
    if (alive_ && (!presented.known() || !password_.known())) {
      if (presented.known()) password_ = presented;  // an imported hash shows its fingerprint
    } else {
      bind(presented);
    }
  }

  std::uint32_t count_ = 0;
  bool alive_ = false;
  Fingerprint password_;
};

}  // namespace

Timeline fold(const History& history) {
  Timeline timeline;
  timeline.steps.reserve(history.records.size());
  Lives lives;
  for (const Record& record : history.records) {
    Step step;
    step.record = &record;
    step.own = record.node == history.node;
    step.before = step.after = state_name(timeline.state);
    step.bound_before = timeline.state.bound;
    step.held_before = timeline.state.held && !timeline.state.is_bound();
    if (step.own) {
      apply(record, timeline.state);
      step.after = state_name(timeline.state);
      timeline.lives = lives.at(record);
    }
    step.life = timeline.lives;
    timeline.steps.push_back(std::move(step));
  }
  return timeline;
}

}  // namespace ledger::replay
