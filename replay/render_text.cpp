#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "replay/causes.h"
#include "replay/facts.h"
#include "replay/render.h"

namespace ledger::replay {
namespace {

constexpr std::size_t kFirstRows = 12;  // of a long timeline
constexpr std::size_t kLatestRows = 48;
constexpr std::size_t kSectionIndent = 13;  // below "   because   "

enum class Tone { plain, good, bad, faint, strong };

class Painter {
 public:
  explicit Painter(bool color) : color_(color) {}
  std::string paint(Tone tone, const std::string& text) const {
    if (!color_ || tone == Tone::plain) return text;
    const char* code = tone == Tone::good ? "32" : tone == Tone::bad ? "31" : tone == Tone::faint ? "2" : "1";
    return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
  }

 private:
  bool color_;
};

// "2024-06-11 07:02:40Z"
std::string clock_text(Time time) {
  if (!time.known()) return "";
  std::string text = Time{time.micros - time.micros % 1'000'000}.to_string();
  text[10] = ' ';
  return text;
}

std::size_t columns_of(std::string_view text) {  // code points; good enough for names and addresses
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

// Breaks at blanks; what has none is left whole.
std::vector<std::string> wrap(std::string_view text, std::size_t width) {
  std::vector<std::string> lines(1);
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    std::string& line = lines.back();
    if (!line.empty() && columns_of(line) + 1 + columns_of(word) > width)
      lines.emplace_back(word);
    else
      line += (line.empty() ? "" : " ") + std::string(word);
    begin = end + 1;
  }
  return lines;
}

// ---- one row of the timeline -----------------------------------------------------------------------------

struct Row {
  Seq first = 0, last = 0;  // of the records in it
  std::uint32_t life = 0;
  Time time;
  std::string what, detail;
  Tone tone = Tone::plain;
  const Record* record = nullptr;
  // For folding: how many outcomes, and since when.
  std::int64_t count = 1;
  Time from, to;
};

std::string quoted_note(const Record& record) {
  return record.note.empty() ? "" : fmt::format(" \"{}\"", printable(record.note, 60));
}

std::string by_actor(const std::string& actor) { return actor.empty() ? "" : " by " + printable(actor, 40); }

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
    row.what = "password stored, name bound", row.detail = name(e.fingerprint), row.tone = Tone::good;
  }
  void operator()(const PasswordVerified& e) const {
    row.what = "password verified", row.detail = name(e.fingerprint);
  }
  void operator()(const PasswordRejected& e) const {
    bad(fmt::format("REFUSED {}password differs", status(e.status))), row.detail = name(e.fingerprint);
  }
  void operator()(const RequestRejected& e) const {
    bad(fmt::format("REFUSED {}{}", status(e.status), printable(e.reason, 40)));
  }
  void operator()(const TokenRejected& e) const {
    bad(fmt::format("REFUSED {}token {}", status(e.status), printable(e.reason, 40)));
  }
  void operator()(const TlsFailed& e) const {
    row.what = fmt::format("TLS handshake failed: {}{}", printable(e.alert, 40),
                           e.trust_probe.value_or(false) ? " (expected probe)" : "");
  }
  void operator()(const BindingReleased& e) const {
    row.what = fmt::format("name released{}{}{}", e.by.empty() ? "" : " (" + printable(e.by, 20) + ")",
                           by_actor(e.actor), quoted_note(record));
    row.detail = name(e.fingerprint), row.tone = Tone::strong;
  }
  void operator()(const BindingChanged& e) const {
    row.what = fmt::format("{}{}{}",
                           e.by == "operator_accept" ? "accepted" : "binding changed (" + printable(e.by, 20) + ")",
                           by_actor(e.actor), quoted_note(record));
    row.detail = name(e.to), row.tone = Tone::strong;
  }
  void operator()(const BindingHeld& e) const {
    row.what = fmt::format("name held{}{}", by_actor(e.actor), quoted_note(record)), row.tone = Tone::strong;
  }
  void operator()(const BindingImported& e) const {
    row.what = fmt::format("binding imported{}", e.origin.empty() ? "" : " from " + printable(e.origin, 20));
    row.detail = e.fingerprint.known() ? name(e.fingerprint) : "(hash)";
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
  template <Kind K>
  void operator()(const TokenChanged<K>& e) const {
    const std::string_view did = name_of(K).substr(std::string_view("token_").size());
    row.what = fmt::format("{} token {}{}{}", printable(e.token_class, 20), did,
                           K == Kind::token_expired ? "" : by_actor(e.actor), quoted_note(record));
    row.detail = printable(e.token, 20);
  }
  void operator()(const auto& e) const {
    row.what = std::string(name_of(std::decay_t<decltype(e)>::kKind));
    std::replace(row.what.begin(), row.what.end(), '_', ' ');
  }
};

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
  if (!step.own && !record.node.empty()) row.what = printable(record.node, 40) + ": " + row.what;
  if (!record.source.empty() && !is_server_wide(record.kind()))
    row.detail += fmt::format("{}from {}", row.detail.empty() ? "" : "  ", printable(host_of(record.source), 45));
  if (!record.claimed.empty() && record.claimed.front() != host_of(record.source))
    row.detail += " claims " + printable(record.claimed.front(), 45);
  return row;
}

// Outcomes that differ in time alone are one row.
bool repeats(const Row& row, const Row& next) {
  return row.life == next.life && row.what == next.what && row.detail == next.detail &&
         (is_refusal(next.record->kind()) || as<PasswordVerified>(*next.record) != nullptr);
}

struct Printed {
  Row row;                // the first
  std::int64_t more = 0;  // and how many like it
  Seq more_first = 0, more_last = 0;
  Time since, until;  // of those
};

// The steps that a person wants to see: the node's own, what the judgement cites, and what shook the server.
std::vector<Printed> rows_of(const Explanation& explanation, const Facts& facts) {
  std::set<Seq> cited;
  for (const Fact& fact : explanation.evidence) cited.insert(fact.seq);
  const Seq first_own = facts.own.empty() ? 0 : facts.own.front()->record->seq;
  std::vector<Printed> rows;
  for (const Step& step : explanation.timeline.steps) {
    const Record& record = *step.record;
    const bool shakes = as<EpochStarted>(record) != nullptr || as<ClockStepped>(record) != nullptr;
    const bool nameless = record.node.empty() && is_refusal(record.kind());
    // What belongs to every start says nothing, and would stand between refusals that are one run.
    const auto* handshake = as<TlsFailed>(record);
    const bool expected = handshake != nullptr && handshake->trust_probe.value_or(false);
    if (as<TokenAccepted>(record) != nullptr || (expected && cited.count(record.seq) == 0)) continue;
    if (!step.own && cited.count(record.seq) == 0 && !((shakes || nameless) && record.seq >= first_own)) continue;
    Row row = row_of(step, facts);
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

std::string repetition(const Printed& printed) {
  std::string text = printed.more == 1 ? "the same, once more" : fmt::format("the same, {} times", printed.more);
  if (const auto span = seconds_from(printed.since, printed.until); span && *span >= 1 && printed.more > 1) {
    text += " in " + duration_text(*span);
    // Between the first and the last of them lie one fewer periods than outcomes.
    text += fmt::format(", every {:.1f} s", *span / static_cast<double>(printed.more - 1));
  }
  return text;
}

class TextWriter {
 public:
  TextWriter(const Explanation& explanation, const TextStyle& style)
      : e_(explanation), width_(std::max<std::size_t>(style.width, 60)), painter_(style.color) {}

  std::string write(const Facts& facts) {
    head();
    timeline(facts);
    section("state", state_text(facts));
    section("cause", fmt::format("{} ({}): {}", name_of(e_.cause), name_of(e_.confidence), e_.summary),
            e_.cause == Cause::kNone ? Tone::good : Tone::strong);
    bool first = true;
    for (const Fact& fact : e_.evidence) {
      section(first ? "because" : "", fmt::format("{} ({})", fact.fact, fact.seq));
      first = false;
    }
    doubts();
    remedies();
    if (!e_.agent_prints.empty()) section("agent log", e_.agent_prints, Tone::faint);
    return std::move(out_);
  }

 private:
  void line(std::string text) {
    while (!text.empty() && text.back() == ' ') text.pop_back();
    out_ += text + "\n";
  }

  void head() {
    const auto& steps = e_.timeline.steps;
    std::string left = "node " + printable(e_.node, 80);
    Seq first = 0, last = 0;
    for (const Step& step : steps)
      if (step.own) {
        if (first == 0) first = step.record->seq;
        last = step.record->seq;
      }
    if (first != 0) left += fmt::format("   seq {}..{}", first, last);
    if (e_.timeline.lives != 0)
      left += fmt::format("   {} {}", e_.timeline.lives, e_.timeline.lives == 1 ? "life" : "lives");
    const std::string right =
        e_.as_of_seq == 0
            ? "no records"
            : "as of " + (e_.as_of_time.known() ? clock_text(e_.as_of_time) : fmt::format("seq {}", e_.as_of_seq));
    const std::size_t used = columns_of(left) + columns_of(right);
    line(painter_.paint(Tone::strong, left) + std::string(used < width_ ? width_ - used : 3, ' ') + right);
  }

  void timeline(const Facts& facts) {
    const std::vector<Printed> rows = rows_of(e_, facts);
    std::uint32_t life = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows.size() > kFirstRows + kLatestRows && i == kFirstRows) {
        i = rows.size() - kLatestRows;
        line(fmt::format("         ... {} rows left out; --format json has all",
                         rows.size() - kFirstRows - kLatestRows));
      }
      const Row& row = rows[i].row;
      std::string margin(8, ' ');
      if (row.life != life && row.life != 0) margin = fmt::format(" life {:<2}", row.life).substr(0, 9);
      // Before the password is judged nothing ties the asker to the node but its word.
      const bool claimed = as<PasswordRejected>(*row.record) == nullptr && name_is(*row.record) == NameIs::claimed;
      if (row.tone == Tone::bad) margin = claimed ? " claimed" : " ------ ";
      life = row.life != 0 ? row.life : life;
      margin.resize(8, ' ');
      const std::string when =
          as<CertificateIssued>(*row.record) != nullptr ? std::string(20, ' ') : clock_text(row.time);
      std::string text = fmt::format("{} {:<7} {:<20}  ", margin, row.first, when);
      const std::size_t room = width_ > columns_of(text) ? width_ - columns_of(text) : 20;
      std::string what = row.what;
      if (!row.detail.empty() && columns_of(what) < 34) what += std::string(34 - columns_of(what), ' ');
      if (!row.detail.empty()) what += "  " + row.detail;
      const std::vector<std::string> parts =
          columns_of(what) > room ? wrap(what, room) : std::vector<std::string>{what};
      const std::string indent(columns_of(text), ' ');
      for (std::size_t part = 0; part < parts.size(); ++part)
        line((part == 0 ? text : indent) + painter_.paint(row.tone, parts[part]));
      if (rows[i].more > 0) {
        const std::string range = rows[i].more_first == rows[i].more_last
                                      ? fmt::format("{}", rows[i].more_first)
                                      : fmt::format("{}..{}", rows[i].more_first, rows[i].more_last);
        line(fmt::format("         {:<28}  {}", range, repetition(rows[i])));
      }
    }
  }

  std::string state_text(const Facts& facts) const {
    if (!e_.is_bound) return e_.state;
    return fmt::format("{}, bound to {}{}", e_.state, e_.bound.known() ? facts.short_name(e_.bound) : "a k3s hash",
                       e_.bound_since != 0 ? fmt::format(" since {}", e_.bound_since) : "");
  }

  // `hang`: columns that lines after the first are moved in.
  void section(std::string_view title, std::string_view text, Tone tone = Tone::plain, std::size_t hang = 0) {
    const std::vector<std::string> lines = wrap(text, width_ - kSectionIndent - hang);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      std::string head = "   " + std::string(i == 0 ? title : "");
      head.resize(kSectionIndent + (i == 0 ? 0 : hang), ' ');
      line(painter_.paint(Tone::faint, head) + painter_.paint(tone, lines[i]));
    }
  }

  void doubts() {
    bool first = true;
    std::vector<std::string> doubts;
    const bool takeover = std::find(e_.warnings.begin(), e_.warnings.end(), kTakeoverWarning) != e_.warnings.end();
    if (takeover)
      doubts.push_back("somebody else using the join token under this name: " + std::string(kTakeoverWarning));
    for (const Alternative& other : e_.alternatives)
      doubts.push_back(fmt::format("{}: would need {}", name_of(other.cause), other.would_need));
    if (!doubts.empty()) line("   not ruled out");
    for (const std::string& doubt : doubts) section("", doubt, Tone::plain, 2);
    for (const std::string& warning : e_.warnings) {
      if (warning == kTakeoverWarning) continue;
      section(first ? "beware" : "", warning);
      first = false;
    }
  }

  void remedies() {
    bool first = true;
    for (const Remedy& remedy : e_.remedies) {
      std::string text = (remedy.rank.empty() ? "- " : remedy.rank) + "  " + remedy.action;
      if (remedy.harm != "none" && !remedy.harm.empty()) text += fmt::format(" (harm: {})", remedy.harm);
      section(first ? "remedies" : "", text, Tone::plain, 4);
      if (!remedy.command.empty())
        line(std::string(kSectionIndent + 4, ' ') + painter_.paint(Tone::strong, remedy.command));
      first = false;
    }
  }

  const Explanation& e_;
  std::size_t width_;
  Painter painter_;
  std::string out_;
};

}  // namespace

std::string to_text(const Explanation& explanation, const TextStyle& style) {
  // The prefixes of fingerprints depend on all of them, so the facts are asked again.
  History history;
  history.node = explanation.node;
  for (const Step& step : explanation.timeline.steps) history.records.push_back(*step.record);
  const Timeline timeline = fold(history);
  const Facts facts(history, timeline);
  Explanation copy = explanation;
  copy.timeline = timeline;
  return TextWriter(copy, style).write(facts);
}

}  // namespace ledger::replay
