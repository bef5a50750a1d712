#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "replay/causes.h"
#include "replay/drawing.h"
#include "replay/figure.h"
#include "replay/html.h"
#include "replay/render.h"
#include "replay/rows.h"

namespace ledger::replay {
namespace {

constexpr std::size_t kFirstRows = 30;  // of a long table
constexpr std::size_t kLatestRows = 170;

// Light and dark, wide and narrow, screen and paper. Marks differ by shape; colour only helps.
constexpr std::string_view kStyle = R"(
:root{color-scheme:light dark;--paper:#fff;--card:#f6f7f9;--ink:#1b1f24;--faint:#59636e;--line:#d5dae0;
--good:#12795a;--bad:#c2300f;--name:#6f3bb8;--server:#8a5a00;--band:#12795a33;--storm:#c2300f38;--hit:#fff3bf}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1d2127;--ink:#e6e9ed;--faint:#9aa4af;
--line:#363d46;--good:#3ecf9c;--bad:#ff7a59;--name:#c39bff;--server:#f0b849;--band:#3ecf9c38;--storm:#ff7a5940;
--hit:#4a4215}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:20px 24px 48px;max-width:1180px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:24px;line-height:1.25;margin:0}h2{font-size:17px;margin:28px 0 8px}
a{color:inherit}code,pre,.mono{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:13px}
header p{margin:2px 0 0;color:var(--faint)}
.verdict{margin:14px 0 0;padding:12px 16px;background:var(--card);border-left:6px solid var(--bad);border-radius:4px}
.verdict.fine{border-color:var(--good)}.verdict.open{border-color:var(--server)}
.verdict p{margin:0}.cause{font-size:21px;font-weight:700}.sure{margin-left:8px;color:var(--faint);font-weight:400;
font-size:15px;white-space:nowrap}.verdict .story{font-size:17px}.verdict .state{color:var(--faint);margin-top:4px}
ul.facts,ol.acts{margin:0;padding-left:22px}.facts li,.acts li{margin:3px 0}.acts li{margin:10px 0}
.cite{color:var(--faint);font-size:13px;white-space:nowrap}
pre{margin:6px 0 0;padding:9px 12px;background:var(--card);border:1px solid var(--line);border-radius:4px;
white-space:pre-wrap;-webkit-user-select:all;user-select:all}
.harm{color:var(--faint)}.beware{margin-top:6px}
table{border-collapse:collapse;width:100%;font-size:14px}
th{text-align:left;white-space:nowrap;color:var(--faint);font-weight:600;border-bottom:1px solid var(--faint)}
th,td{padding:4px 14px 4px 0;vertical-align:top}td{border-bottom:1px solid var(--line)}
td.seq,td.when{white-space:nowrap;font-variant-numeric:tabular-nums}
td .again{color:var(--faint);display:block;padding-left:23px}
tr.life td{border-top:2px solid var(--faint)}tr:target td,:target{background:var(--hit)}
tr.bad .what{color:var(--bad);font-weight:600}tr.strong .what{font-weight:600}tr.faint .what{color:var(--faint)}
tr.cited .seq{font-weight:700}
footer{margin-top:28px;color:var(--faint);font-size:13px}
)";

// Narrow screens and paper; comes last, because it overrules.
constexpr std::string_view kPaperStyle =
    R"(
@media screen and (min-width:1040.01px){.w0{display:none}}
@media print,(min-width:720.01px) and (max-width:1040px){.m0{display:none}}
@media screen and (max-width:720px){body{padding:12px 12px 32px}h1{font-size:20px}.n0{display:none}
svg.time{min-width:calc(var(--columns)*13px)}.names div{padding:0 6px;max-width:104px}.verdict .story{font-size:16px}
table,tbody,tr,td{display:block;border:0}thead{display:none}tr{padding:6px 0;border-bottom:1px solid var(--line)}
td{padding:0 0 1px;border:0}td.seq,td.when{display:inline;margin-right:10px;color:var(--faint)}td:nth-child(n+4){display:inline;margin-right:10px}tr.life td{border:0}
tr.life{border-top:2px solid var(--faint)}}
@media print{:root{color-scheme:light;--paper:#fff;--card:#fff;--ink:#000;--faint:#444;--line:#bbb;--good:#12795a;
--bad:#c2300f;--name:#6f3bb8;--server:#8a5a00;--band:#12795a33;--storm:#c2300f38;--hit:#fff}body{max-width:none;padding:0;
font-size:11pt}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}.roll{overflow:visible}svg.time{min-width:0}
tr,li,figure,.verdict,pre{break-inside:avoid}h2{break-after:avoid}thead{display:table-header-group}}
)";

class Page {
 public:
  explicit Page(const Retold& retold)
      : retold_(retold),
        e_(retold.explanation),
        drawing_(draw(retold)),
        rows_(rows_of(retold, Scope::wide)),
        cited_(cited_by(e_)) {
    choose_rows();
  }

  std::string write() {
    begin();
    verdict();
    picture();
    evidence();
    doubts();
    remedies();
    table();
    end();
    return std::move(out_);
  }

 private:
  template <class... Args>
  void put(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  // ---- frame

  void begin() {
    const std::string title = escaped(fmt::format("{}: {}", e_.node, name_of(e_.cause)));
    out_ +=
        "<!DOCTYPE html>\n<html lang=\"en\" dir=\"ltr\">\n<head>\n<meta charset=\"utf-8\" />\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\" "
        "/>\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n"
        "<meta name=\"referrer\" content=\"no-referrer\" />\n";
    put("<title>{}</title>\n<style>{}{}{}</style>\n</head>\n<body>\n", title, kStyle, kFigureStyle, kPaperStyle);
    put("<header>\n<h1>Node {}</h1>\n<p>{}</p>\n</header>\n<main>\n", isolated(e_.node), extent());
  }

  void end() {
    out_ +=
        "</main>\n<footer>Made from the records of the ledger and from nothing else. Times are UTC. "
        "<code>ledger replay --format json</code> gives the same answer to programs, with every record.</footer>\n"
        "</body>\n</html>\n";
  }

  std::string extent() const {
    Seq first = 0, last = 0;
    for (const Step* step : retold_.facts.own) {
      if (first == 0) first = step->record->seq;
      last = step->record->seq;
    }
    if (e_.as_of_seq == 0) return "No records.";
    std::string text = first == 0 ? "No records of its own" : fmt::format("Records {} to {}", first, last);
    if (e_.timeline.lives != 0)
      text += fmt::format(", {} {}", e_.timeline.lives, e_.timeline.lives == 1 ? "life" : "lives");
    text += e_.as_of_time.known() ? ", as of " + clock_text(e_.as_of_time)
                                  : fmt::format(", as of record {}", e_.as_of_seq);
    const std::string before = told_before(retold_);
    return text + "." + (before.empty() ? "" : " " + before + ".");
  }

  // "record 12", leading to its row where it has one.
  std::string link(Seq seq, std::string_view text) const {
    if (anchors_.count(seq) == 0) return escaped(text);
    return fmt::format("<a href=\"#r{}\">{}</a>", seq, escaped(text));
  }

  // ---- what happened

  void verdict() {
    const char* mood = e_.cause == Cause::kNone ? " fine" : e_.cause == Cause::kUnknown ? " open" : "";
    const char* bars = e_.confidence == Confidence::kHigh     ? "●●●"
                       : e_.confidence == Confidence::kMedium ? "●●○"
                                                              : "●○○";
    put("<section class=\"verdict{}\" aria-label=\"Cause\">\n", mood);
    put("<p class=\"cause\">{} <span class=\"sure\"><span aria-hidden=\"true\">{}</span> {} "
        "confidence</span></p>\n",
        name_of(e_.cause), bars, name_of(e_.confidence));
    put("<p class=\"story\">{}.</p>\n", isolated(sentence(e_.summary)));
    put("<p class=\"state\">State: {}.</p>\n</section>\n", isolated(state_text(retold_)));
  }

  // Begins with a capital, unless it begins with a name.
  std::string sentence(std::string text) const {
    const bool is_word =
        !text.empty() && text[0] >= 'a' && text[0] <= 'z' && !text.starts_with(printable(e_.node, 80));
    if (is_word) text[0] = static_cast<char>(text[0] - 'a' + 'A');
    return text;
  }

  void evidence() {
    if (e_.evidence.empty()) return;
    out_ += "<section>\n<h2>What speaks for it</h2>\n<ul class=\"facts\">\n";
    for (const Fact& fact : e_.evidence)
      put("<li>{} <span class=\"cite\">({})</span></li>\n", isolated(fact.fact),
          link(fact.seq, fmt::format("record {}", fact.seq)));
    out_ += "</ul>\n</section>\n";
  }

  void doubts() {
    const bool takeover = std::find(e_.warnings.begin(), e_.warnings.end(), kTakeoverWarning) != e_.warnings.end();
    if (!takeover && e_.alternatives.empty() && e_.warnings.empty()) return;
    out_ += "<section>\n<h2>Not ruled out</h2>\n<ul class=\"facts\">\n";
    bool runner_up = true;
    for (const Alternative& other : e_.alternatives) {
      put("<li>{}<strong>{}</strong>: would need {}</li>\n", runner_up ? "next, " : "", name_of(other.cause),
          isolated(other.would_need));
      runner_up = false;
    }
    if (takeover)
      put("<li>somebody else using the join token under this name: {}</li>\n", escaped(kTakeoverWarning));
    for (const std::string& warning : e_.warnings)
      if (warning != kTakeoverWarning)
        put("<li class=\"beware\"><strong>Beware</strong>: {}</li>\n", isolated(warning));
    out_ += "</ul>\n</section>\n";
  }

  void remedies() {
    if (!e_.remedies.empty()) {
      out_ += "<section>\n<h2>What to do, safest first</h2>\n<ol class=\"acts\">\n";
      for (const Remedy& remedy : e_.remedies) {
        put("<li>{}", isolated(remedy.action));
        if (!remedy.rank.empty()) put(" <span class=\"cite\">({})</span>", escaped(remedy.rank));
        if (!remedy.harm.empty() && remedy.harm != "none")
          put(" <span class=\"harm\">Harm: {}.</span>", isolated(remedy.harm));
        if (!remedy.command.empty()) put("\n<pre><code>{}</code></pre>", escaped(remedy.command));
        out_ += "</li>\n";
      }
      out_ += "</ol>\n</section>\n";
    }
    if (!e_.agent_prints.empty())
      put("<section>\n<h2>What the agent's own log shows</h2>\n<p class=\"mono\">{}</p>\n</section>\n",
          isolated(e_.agent_prints));
  }

  void picture() {
    if (drawing_.marks.empty()) return;
    std::set<Shape> signs;
    for (const std::size_t i : shown_rows_) signs.insert(shape_of(rows_[i].row.record->kind()));
    out_ += figure_of(retold_, drawing_, anchors_, signs);
  }

  // ---- the table

  bool has_citation(const Printed& printed) const {
    const auto next = cited_.lower_bound(printed.row.first);
    return next != cited_.end() && *next <= std::max(printed.row.last, printed.more_last);
  }

  void choose_rows() {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const bool in_the_middle =
          rows_.size() > kFirstRows + kLatestRows && i >= kFirstRows && i + kLatestRows < rows_.size();
      if (in_the_middle && !has_citation(rows_[i])) continue;
      shown_rows_.push_back(i);
      anchors_.insert(rows_[i].row.first);
      if (rows_[i].more == 0) continue;
      for (const Seq seq : cited_)
        if (seq >= rows_[i].more_first && seq <= rows_[i].more_last) anchors_.insert(seq);
    }
    for (const Drawing::Mark& mark : drawing_.marks)  // a mark may begin within a row
      for (const std::size_t i : shown_rows_)
        if (rows_[i].more > 0 && mark.first >= rows_[i].more_first && mark.first <= rows_[i].more_last)
          anchors_.insert(mark.first);
  }

  void table() {
    if (rows_.empty()) return;
    out_ +=
        "<section>\n<h2>Records</h2>\n<table>\n<thead><tr><th>Record</th><th>Time (UTC)</th><th>What happened</th>"
        "<th>Password</th><th>Where</th></tr></thead>\n<tbody>\n";
    std::uint32_t life = 0;
    std::size_t next = 0;
    for (const std::size_t i : shown_rows_) {
      if (i != next)
        put("<tr><td colspan=\"5\">… and {} more rows, left out here</td></tr>\n",
            with_commas(static_cast<std::int64_t>(i - next)));
      next = i + 1;
      record(rows_[i], rows_[i].row.life != life && rows_[i].row.life != 0);
      if (rows_[i].row.life != 0) life = rows_[i].row.life;
    }
    out_ += "</tbody>\n</table>\n</section>\n";
  }

  static const char* name_of(Tone tone) {
    switch (tone) {
      case Tone::bad: return "bad";
      case Tone::strong: return "strong";
      case Tone::faint: return "faint";
      default: return "";
    }
  }
  static std::string_view name_of(Cause cause) { return replay::name_of(cause); }
  static std::string_view name_of(Confidence confidence) { return replay::name_of(confidence); }

  void record(const Printed& printed, bool new_life) {
    const Row& row = printed.row;
    put("<tr id=\"r{}\" class=\"{}{}{}\">", row.first, name_of(row.tone), new_life ? " life" : "",
        has_citation(printed) ? " cited" : "");
    put("<td class=\"seq\">{}</td><td class=\"when\">{}</td>", row.first, clock_text(row.time));
    put("<td>{}<span class=\"what\">{}</span>", sign_of(shape_of(row.record->kind())), isolated(row.what));
    if (new_life) put(" <span class=\"cite\">life {} begins</span>", row.life);
    if (printed.more > 0) again(printed);
    put("</td><td>{}</td><td>{}</td></tr>\n", isolated(row.password), isolated(row.place));
  }

  void again(const Printed& printed) {
    out_ += "<span class=\"again\">";
    for (auto seq = anchors_.lower_bound(printed.more_first); seq != anchors_.end() && *seq <= printed.more_last;
         ++seq)
      if (*seq != printed.row.first) put("<span id=\"r{}\"></span>", *seq);
    put("{} (", repetition(printed));
    if (printed.more_first == printed.more_last)
      put("record {})", printed.more_first);
    else
      put("records {} to {})", printed.more_first, printed.more_last);
    out_ += "</span>";
  }

  const Retold& retold_;
  const Explanation& e_;
  const Drawing drawing_;
  const std::vector<Printed> rows_;
  const std::set<Seq> cited_;
  std::vector<std::size_t> shown_rows_;  // indices into rows_
  std::set<Seq> anchors_;                // records that can be led to
  std::string out_;
};

}  // namespace

std::string to_html(const Explanation& explanation) {
  const Retold retold(explanation);
  return Page(retold).write();
}

}  // namespace ledger::replay
