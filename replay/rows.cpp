#include "replay/rows.h"

#include <fmt/format.h>

#include <algorithm>

#include "ledger/disagreement.h"
#include "replay/causes.h"

namespace ledger::replay {

// "2024-06-11 07:02:40Z"
std::string clock_text(Time time) {
  if (!time.known()) return "";
  std::string text = Time{time.micros - time.micros % 1'000'000}.to_string();
  text[10] = ' ';
  return text;
}

namespace {

std::string quoted_note(const Record& record) {
  return record.note.empty() ? "" : fmt::format(" \"{}\"", printable(record.note, 60));
}

std::string by_actor(const std::string& actor) { return actor.empty() ? "" : " by " + printable(actor, 40); }

// "wrong_secret" as people write it.
std::string words(const std::string& reason) {
  std::string text = printable(reason, 40);
  std::replace(text.begin(), text.end(), '_', ' ');
  return text;
}

// "name released by ops (node deleted)"; that an operator did it goes without saying where one is named.
std::string done(const char* what, const std::string& actor, const std::string& by) {
  const bool said = by.empty() || (by == "operator" && !actor.empty());
  return what + by_actor(actor) + (said ? "" : " (" + words(by) + ")");
}

struct Words {
  const Facts& facts;
  const Record& record;
  Row& row;

  std::string name(const Fingerprint& fingerprint) const {
    return fingerprint.known() ? facts.short_name(fingerprint) : "";
  }
  void bad(std::string what) const { row.what = std::move(what), row.tone = Tone::bad; }
  std::string status(std::int64_t code) const { return code != 0 ? fmt::format("{} ", code) : ""; }

  void operator()(const PasswordStored& e) const {
    row.what = "password stored, name bound", row.password = name(e.fingerprint), row.tone = Tone::good;
  }
  void operator()(const PasswordVerified& e) const {
    row.what = "password verified", row.password = name(e.fingerprint);
  }
  void operator()(const PasswordRejected& e) const {
    bad(fmt::format("REFUSED {}password differs", status(e.status))), row.password = name(e.fingerprint);
  }
  void operator()(const RequestRejected& e) const {
    bad(fmt::format("REFUSED {}{}", status(e.status), words(e.reason)));
  }
  void operator()(const TokenRejected& e) const {
    bad(fmt::format("REFUSED {}token{}", status(e.status), e.reason.empty() ? "" : " " + words(e.reason)));
  }
  void operator()(const TlsFailed& e) const {
    row.what = fmt::format("TLS handshake failed: {}{}", printable(e.alert, 40),
                           e.trust_probe.value_or(false) ? " (expected probe)" : "");
  }
  void operator()(const BindingReleased& e) const {
    row.what = done("name released", e.actor, e.by) + quoted_note(record);
    row.password = name(e.fingerprint), row.tone = Tone::strong;
  }
  void operator()(const BindingChanged& e) const {
    row.what =
        (e.by == "operator_accept" ? "accepted" + by_actor(e.actor) : done("binding changed", e.actor, e.by)) +
        quoted_note(record);
    row.password = name(e.to), row.tone = Tone::strong;
  }
  void operator()(const BindingHeld& e) const {
    row.what = fmt::format("name held{}{}", by_actor(e.actor), quoted_note(record)), row.tone = Tone::strong;
  }
  void operator()(const BindingImported& e) const {
    row.what = fmt::format("binding imported{}", e.origin.empty() ? "" : " from " + printable(e.origin, 20));
    row.password = e.fingerprint.known() ? name(e.fingerprint) : "(hash)";
  }
  void operator()(const CertificateIssued& e) const {
    row.what = fmt::format("{} certificate {}", printable(e.purpose, 24), printable(e.serial, 12));
    row.tone = Tone::faint;
  }
  void operator()(const TunnelOpened&) const { row.what = "tunnel opened"; }
  void operator()(const TunnelClosed& e) const {
    row.what = fmt::format("tunnel closed{}", e.cause.empty() ? "" : ": " + printable(e.cause, 40));
  }
  void operator()(const NodeObjectCreated& e) const { row.what = "Node object created" + by_actor(e.actor); }
  void operator()(const NodeObjectDeleted& e) const {
    row.what = "Node object deleted" + by_actor(e.actor), row.tone = Tone::strong;
  }
  void operator()(const EpochStarted& e) const {
    row.what = fmt::format("the server's memory changed: {}", printable(e.cause, 30)), row.tone = Tone::strong;
  }
  void operator()(const ClockStepped& e) const {
    row.what = fmt::format("the clock was stepped by {:.1f} s", e.by_seconds);
  }
  void operator()(const ModeChanged& e) const {
    row.what = fmt::format("mode {}{}{}", printable(e.mode, 20), by_actor(e.actor), quoted_note(record));
    row.tone = Tone::strong;
  }
  void operator()(const UpstreamLost& e) const {
    row.what = fmt::format("upstream {} lost: {}", printable(record.upstream, 45), printable(e.cause, 40));
    row.tone = Tone::strong;
  }
  void operator()(const UpstreamFound& e) const {
    row.what = fmt::format("upstream {} answers{}", printable(record.upstream, 45),
                           e.seconds ? fmt::format(" after {:.0f} s", *e.seconds) : "");
  }
  template <Kind K>
  void operator()(const TokenChanged<K>& e) const {
    const std::string_view did = name_of(K).substr(std::string_view("token_").size());
    row.what = fmt::format("{} token {}{}{}", printable(e.token_class, 20), did,
                           K == Kind::token_expired ? "" : by_actor(e.actor), quoted_note(record));
    row.password = printable(e.token, 20);
  }
  void operator()(const auto& e) const {
    row.what = std::string(name_of(std::decay_t<decltype(e)>::kKind));
    std::replace(row.what.begin(), row.what.end(), '_', ' ');
  }
};

// Outcomes that differ in time alone are one row.
bool repeats(const Row& row, const Row& next) {
  return row.life == next.life && row.what == next.what && row.password == next.password &&
         row.place == next.place &&
         (is_refusal(next.record->kind()) || as<PasswordVerified>(*next.record) != nullptr);
}

}  // namespace

Row row_of(const Step& step, const Facts& facts) {
  const Record& record = *step.record;
  Row row;
  row.first = row.last = record.seq;
  row.life = step.life;
  row.time = first_time_of(record);
  row.from = row.time, row.to = record.time;
  row.record = &record;
  row.count = record.count;
  std::visit(Words{facts, record, row}, record.event);
  // Before the password is judged nothing ties who asks to the node but its word.
  if (row.tone == Tone::bad && as<PasswordRejected>(record) == nullptr && name_is(record) == NameIs::claimed)
    row.what += " (claimed)";
  if (is_upstreams(record) && disagreement_of(record) != Disagreement::none &&
      (is_refusal(record.kind()) || is_success(record)))
    row.what += fmt::format(" (upstream; we: {})", printable(record.would_have, 24));
  else if (is_upstreams(record) && is_refusal(record.kind()))
    row.what += " (upstream)";
  if (!step.own && !record.node.empty()) row.what = printable(record.node, 40) + ": " + row.what;
  if (!record.source.empty() && !is_server_wide(record.kind()))
    row.place = "from " + printable(host_of(record.source), 45);
  if (!record.claimed.empty() && record.claimed.front() != host_of(record.source))
    row.place += (row.place.empty() ? "claims " : " claims ") + printable(record.claimed.front(), 45);
  return row;
}

std::string in_one_line(const Row& row) {
  std::string text = row.what;
  for (const std::string& part : {row.password, row.place})
    if (!part.empty()) text += " " + part;
  return text;
}

Retold::Retold(const Explanation& told)
    : history(history_of(told)), timeline(fold(history)), facts(history, timeline), explanation(told) {
  explanation.timeline = timeline;
}

History Retold::history_of(const Explanation& told) {
  History history;
  history.node = told.node;
  history.records.reserve(told.timeline.steps.size());
  for (const Step& step : told.timeline.steps) history.records.push_back(*step.record);
  return history;
}

std::set<Seq> cited_by(const Explanation& explanation) {
  std::set<Seq> cited;
  for (const Fact& fact : explanation.evidence) cited.insert(fact.seq);
  return cited;
}

namespace {

// The last loss of an upstream before each of the node's requests that got no verdict, and its return after it.
std::set<Seq> outages_of(const Facts& facts) {
  std::set<Seq> seqs;
  Seq lost = 0;
  bool failed = false;
  for (const Step& step : facts.timeline.steps) {
    const Record& record = *step.record;
    if (as<UpstreamLost>(record) != nullptr) lost = record.seq;
    if (step.own && is_upstream_failure(record)) {
      failed = true;
      if (lost != 0) seqs.insert(lost);
    }
    if (failed && as<UpstreamFound>(record) != nullptr) failed = false, seqs.insert(record.seq);
  }
  return seqs;
}

}  // namespace

std::vector<const Step*> steps_of(const Retold& retold, Scope scope) {
  const std::set<Seq> cited = cited_by(retold.explanation);
  const Facts& facts = retold.facts;
  const std::set<Seq> outages = outages_of(facts);
  const Seq first_own = facts.own.empty() ? 0 : facts.own.front()->record->seq;
  std::vector<const Step*> steps;
  for (const Step& step : retold.timeline.steps) {
    const Record& record = *step.record;
    if (record.seq < retold.explanation.told_from) continue;
    const bool is_cited = cited.count(record.seq) != 0;
    const bool wide = scope == Scope::wide;
    const bool shakes = as<EpochStarted>(record) != nullptr || as<ClockStepped>(record) != nullptr ||
                        as<ModeChanged>(record) != nullptr || outages.contains(record.seq) ||
                        (wide && as<ServerStarted>(record) != nullptr);
    const bool nameless = record.node.empty() && is_refusal(record.kind());
    const bool shares_password =
        wide && !record.node.empty() && (is_success(record) || as<PasswordRejected>(record) != nullptr);
    // What belongs to every start says nothing, and would stand between refusals that are one run.
    const auto* handshake = as<TlsFailed>(record);
    const bool expected = handshake != nullptr && handshake->trust_probe.value_or(false);
    if (as<TokenAccepted>(record) != nullptr || (expected && !is_cited)) continue;
    if (!step.own && !is_cited && !((shakes || nameless || shares_password) && record.seq >= first_own)) continue;
    steps.push_back(&step);
  }
  return steps;
}

std::vector<Printed> rows_of(const Retold& retold, Scope scope) {
  std::vector<Printed> rows;
  for (const Step* step : steps_of(retold, scope)) {
    Row row = row_of(*step, retold.facts);
    if (!rows.empty() && repeats(rows.back().row, row)) {
      Printed& before = rows.back();
      if (before.more == 0) before.more_first = row.first, before.since = row.from;
      before.more += row.count;
      before.more_last = row.last;
      before.until = row.to;
      continue;
    }
    Printed printed;
    if (row.count > 1) {  // one record for many: the first of them, and the others below
      printed.more = row.count - 1;
      printed.more_first = printed.more_last = row.first;
      printed.since = row.from, printed.until = row.to;
    }
    printed.row = std::move(row);
    rows.push_back(std::move(printed));
  }
  return rows;
}

std::string told_before(const Retold& retold) {
  std::size_t hidden = 0;
  std::string_view state;
  for (const Step* step : retold.facts.own)
    if (step->record->seq < retold.explanation.told_from) state = step->after, ++hidden;
  if (hidden == 0) return "";
  return fmt::format("{} earlier record{} not told; {} then", hidden, hidden == 1 ? "" : "s", state);
}

std::optional<Fingerprint> bound_now(const Retold& retold) {
  const Explanation& e = retold.explanation;
  const Refusals& refusals = retold.facts.refusals;
  if (!refusals.attempts.empty() && refusals.last().bound.known()) return refusals.last().bound;
  return e.is_bound && e.bound.known() ? std::optional(e.bound) : std::nullopt;
}

std::string state_text(const Retold& retold) {
  const Explanation& e = retold.explanation;
  const Facts& facts = retold.facts;
  if (!e.is_bound) return e.state;
  std::string text =
      fmt::format("{}, bound to {}{}", e.state, e.bound.known() ? facts.short_name(e.bound) : "a k3s hash",
                  e.bound_since != 0 ? fmt::format(" since {}", e.bound_since) : "");
  if (const auto bound = bound_now(retold); bound && e.bound.known() && *bound != e.bound)
    text += fmt::format("; the last refusal was measured against {} ({})", facts.short_name(*bound),
                        facts.refusals.last().seq());
  return text;
}

std::string repetition(const Printed& printed) {
  std::string text = printed.more == 1 ? "the same, once more" : fmt::format("the same, {} times", printed.more);
  if (const auto span = seconds_from(printed.since, printed.until); span && *span >= 1 && printed.more > 1) {
    text += " in " + duration_text(*span);
    // Between the first and the last of them lie one fewer periods than outcomes; of two, it was said.
    const double period = *span / static_cast<double>(printed.more - 1);
    if (printed.more > 2)
      text += ", every " + (period < 120 ? fmt::format("{:.1f} s", period) : duration_text(period));
  }
  return text;
}

}  // namespace ledger::replay
