#include <fmt/format.h>

#include <algorithm>

#include "replay/causes.h"
#include "replay/render.h"
#include "replay/rows.h"
#include "replay/text.h"

namespace ledger::replay {
namespace {

constexpr std::size_t kFirstRows = 12;  // of a long timeline
constexpr std::size_t kLatestRows = 48;
constexpr std::size_t kSectionIndent = 13;  // below "   because   "
constexpr std::size_t kPasswordColumn = 36, kPlaceColumn = 43,
                      kNarrowestPlace = 18;  // within a row, after its time

// What happened, with which password, and where: each in its column, further right where the one before is long.
std::vector<std::string> columns(const Row& row, std::size_t room) {
  std::string text = row.what;
  const auto go_to = [&](std::size_t column) {
    const std::size_t used = columns_of(text);
    text.append(used + 2 > column ? 2 : column - used, ' ');
  };
  if (!row.password.empty()) go_to(kPasswordColumn), text += row.password;
  if (row.place.empty()) return wrap(text, room);
  go_to(kPlaceColumn);
  const std::size_t begin = columns_of(text);
  if (begin + columns_of(row.place) <= room) return {text + row.place};
  if (begin + kNarrowestPlace > room) return wrap(text + row.place, room);
  std::vector<std::string> lines = wrap(row.place, room - begin);
  lines.front() = text + lines.front();
  for (std::size_t i = 1; i < lines.size(); ++i) lines[i].insert(0, begin, ' ');
  return lines;
}

class TextWriter {
 public:
  TextWriter(const Retold& retold, const TextStyle& style)
      : retold_(retold),
        e_(retold.explanation),
        width_(std::max<std::size_t>(style.width, 60)),
        painter_(style.color) {}

  std::string write() {
    head();
    timeline();
    section("state", state_text(retold_));
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

  void timeline() {
    const std::vector<Printed> rows = rows_of(retold_, Scope::brief);
    std::uint32_t life = 0;
    if (const std::string before = told_before(retold_); !before.empty())
      line(painter_.paint(Tone::faint, "         " + before));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows.size() > kFirstRows + kLatestRows && i == kFirstRows) {
        i = rows.size() - kLatestRows;
        line(fmt::format("         ... {} rows left out; --format json has all",
                         rows.size() - kFirstRows - kLatestRows));
      }
      const Row& row = rows[i].row;
      std::string margin(8, ' ');
      if (row.life != life && row.life != 0) margin = fmt::format(" life {:<2}", row.life).substr(0, 9);
      if (row.tone == Tone::bad) margin = " ------ ";
      life = row.life != 0 ? row.life : life;
      margin.resize(8, ' ');
      const std::string when =
          as<CertificateIssued>(*row.record) != nullptr ? std::string(20, ' ') : clock_text(row.time);
      std::string text = fmt::format("{} {:<7} {:<20}  ", margin, row.first, when);
      const std::vector<std::string> parts =
          columns(row, width_ > columns_of(text) ? width_ - columns_of(text) : 20);
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

  const Retold& retold_;
  const Explanation& e_;
  std::size_t width_;
  Painter painter_;
  std::string out_;
};

}  // namespace

std::string to_text(const Explanation& explanation, const TextStyle& style) {
  const Retold retold(explanation);
  return TextWriter(retold, style).write();
}

std::vector<std::string> wrap_text(std::string_view text, std::size_t width) { return wrap(text, width); }

}  // namespace ledger::replay
