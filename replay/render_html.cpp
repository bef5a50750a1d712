#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "replay/causes.h"
#include "replay/drawing.h"
#include "replay/render.h"
#include "replay/rows.h"

namespace ledger::replay {
namespace {

constexpr std::size_t kFirstRows = 40;  // of a long table
constexpr std::size_t kLatestRows = 260;

// Pixels. Positions along the time axis are percentages, so that the picture fits a phone and a wide screen alike
// while its letters keep their size.
constexpr int kLane = 32;
constexpr int kTop = 26;   // lengths of silences
constexpr int kAxis = 40;  // clock times
constexpr int kColumn = 12;
constexpr double kWide = 800, kNarrow = 270;  // of the picture alone, to judge which words fit
constexpr double kLetter = 6.4;

// For text and for attribute values in double quotes. Nothing a stranger wrote can end an element or a quote,
// turn the direction of the line, or be a character that XML does not know.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : printable(text, 16'384)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  for (const std::string_view none : {"\xEF\xBF\xBE", "\xEF\xBF\xBF"})  // U+FFFE, U+FFFF
    for (std::size_t at; (at = out.find(none)) != std::string::npos;) out.replace(at, none.size(), "?");
  return out;
}

// Words whose direction, whatever it is, stays their own.
std::string own_line(std::string_view text) { return "<bdi>" + escaped(text) + "</bdi>"; }

std::string with_commas(std::int64_t number) {
  std::string text = std::to_string(number);
  for (std::size_t at = text.size(); at > 3; at -= 3)
    if (text[at - 4] != '-') text.insert(at - 3, ",");
  return text;
}

struct Look {
  const char* id;
  const char* style;  // of its colour
  const char* meaning;
  const char* path;  // around 0,0
};
const Look& look_of(Shape shape) {
  static constexpr Look kLooks[] = {
      {"bound", "good solid", "name bound to a password", "M-6,-6H6V6H-6Z"},
      {"accepted", "good solid", "password accepted", "M-5,0A5,5 0 1 1 5,0A5,5 0 1 1 -5,0Z"},
      {"certificate", "good", "certificate or tunnel", "M0,-6V6"},
      {"refused", "bad", "password refused", "M-5,-5L5,5M-5,5L5,-5"},
      {"turned", "bad", "refused for another reason", "M-6,0A6,6 0 1 1 6,0A6,6 0 1 1 -6,0ZM-4,4L4,-4"},
      {"handshake", "bad", "TLS handshake failed", "M-6,-5H6L0,6Z"},
      {"changed", "name solid", "bound to another password", "M0,-7L7,0L0,7L-7,0Z"},
      {"released", "name", "name released", "M0,-7L7,0L0,7L-7,0Z"},
      {"held", "name", "name held", "M-6,-1H6V7H-6ZM-4,-1V-3A4,4 0 0 1 4,-3V-1"},
      {"created", "name", "Node object created", "M-6,-6H6V6H-6ZM-3,0H3M0,-3V3"},
      {"deleted", "name", "Node object deleted", "M-6,-6H6V6H-6ZM-3,0H3"},
      {"restart", "server", "server started", "M0,-6L6,5H-6Z"},
      {"epoch", "server solid", "the server's memory changed", "M0,-8L2,-2L8,0L2,2L0,8L-2,2L-8,0L-2,-2Z"},
      {"clock", "server", "clock stepped", "M-5,-6H5L-5,6H5Z"},
      {"other", "server", "something else", "M-4,-4H4V4H-4Z"},
  };
  return kLooks[static_cast<std::size_t>(shape)];
}

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
.story::first-letter{text-transform:uppercase}
figure{margin:18px 0 0}
.drawing{display:grid;grid-template-columns:max-content minmax(0,1fr);border:1px solid var(--line);border-radius:4px}
.names{padding:26px 0 40px;border-right:1px solid var(--line);background:var(--card);font-size:13px}
.names div{height:32px;line-height:32px;padding:0 12px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;
max-width:300px}
.names .sort{color:var(--faint)}.names .tag{color:var(--faint);font-size:11px}
.roll{overflow-x:auto;overflow-y:hidden}
svg.time{display:block;width:100%;overflow:visible}
svg text{fill:var(--faint);font:11px system-ui,sans-serif}
.row{stroke:var(--line);stroke-width:1}.odd{fill:var(--card);opacity:.6}.sep{stroke:var(--faint);stroke-width:1}
.good{stroke:var(--good)}.bad{stroke:var(--bad)}.name{stroke:var(--name)}.server{stroke:var(--server)}
path{fill:var(--paper);stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
path.bad{stroke-width:2.4}path.bad:not(.hollow){fill:none}
.solid.good{fill:var(--good)}.solid.name{fill:var(--name)}.solid.server{fill:var(--server)}
.run{stroke-width:12;stroke-linecap:round}.run.good{stroke:var(--band)}.run.bad{stroke:var(--storm)}
.run.server,.run.name{stroke:var(--line)}
.bind{fill:var(--band)}.tunnel{stroke:var(--good);stroke-width:2.5;stroke-dasharray:5 3}
.tie{stroke:var(--line);stroke-width:1.5}.guide{stroke-width:1.2;stroke-dasharray:3 4}
svg .many{fill:var(--ink);font-weight:600}svg .bad.many{fill:var(--bad);stroke:none}
svg .quiet{font-style:italic}.gap{stroke:var(--faint);stroke-width:1}.cut{fill:var(--card);stroke:var(--line)}
.legend{display:flex;flex-wrap:wrap;gap:2px 18px;margin:8px 0 0;padding:0;list-style:none;font-size:13px;
color:var(--faint)}.legend li,td .what{white-space:normal}.legend svg,td svg{width:18px;height:18px;
vertical-align:-4px;margin-right:5px;overflow:visible}
figcaption{margin-top:6px;font-size:13px;color:var(--faint)}
ul.facts,ol.acts{margin:0;padding-left:22px}.facts li,.acts li{margin:3px 0}.acts li{margin:10px 0}
.cite{color:var(--faint);font-size:13px;white-space:nowrap}
pre{margin:6px 0 0;padding:9px 12px;background:var(--card);border:1px solid var(--line);border-radius:4px;
white-space:pre-wrap;-webkit-user-select:all;user-select:all}
.harm{color:var(--faint)}.beware{margin-top:6px}
table{border-collapse:collapse;width:100%;font-size:14px}
th{text-align:left;color:var(--faint);font-weight:600;border-bottom:1px solid var(--faint)}
th,td{padding:4px 14px 4px 0;vertical-align:top}td{border-bottom:1px solid var(--line)}
td.seq,td.when{white-space:nowrap;font-variant-numeric:tabular-nums}
td .again{color:var(--faint);display:block;padding-left:23px}
tr.life td{border-top:2px solid var(--faint)}tr:target td,:target{background:var(--hit)}
tr.bad .what{color:var(--bad);font-weight:600}tr.strong .what{font-weight:600}tr.faint .what{color:var(--faint)}
tr.cited .seq{font-weight:700}
footer{margin-top:28px;color:var(--faint);font-size:13px}
@media (max-width:720px){body{padding:12px 12px 32px}h1{font-size:20px}.w{display:none}.names div{padding:0 6px;
max-width:104px}.verdict .story{font-size:16px}
table,tbody,tr,td{display:block;border:0}thead{display:none}tr{padding:6px 0;border-bottom:1px solid var(--line)}
td{padding:0 0 1px;border:0}td.seq,td.when{display:inline;margin-right:10px;color:var(--faint)}tr.life td{border:0}
tr.life{border-top:2px solid var(--faint)}}
@media print{:root{color-scheme:light;--paper:#fff;--card:#fff;--ink:#000;--faint:#444;--line:#bbb;--good:#12795a;
--bad:#c2300f;--name:#6f3bb8;--server:#8a5a00;--band:#12795a33;--storm:#c2300f38;--hit:#fff}body{max-width:none;padding:0;
font-size:11pt}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}.roll{overflow:visible}svg.time{min-width:0!important}
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
    put("<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n", title, kStyle);
    put("<header>\n<h1>Node {}</h1>\n<p>{}</p>\n</header>\n<main>\n", own_line(e_.node), extent());
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
    return text +
           (e_.as_of_time.known() ? ", as of " + clock_text(e_.as_of_time)
                                  : fmt::format(", as of record {}", e_.as_of_seq)) +
           ".";
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
    put("<p class=\"story\">{}.</p>\n", own_line(e_.summary));
    std::string state = "State: " + escaped(e_.state);
    if (e_.is_bound)
      state += ", bound to " +
               (e_.bound.known() ? own_line(retold_.facts.short_name(e_.bound)) : std::string("a k3s hash"));
    if (e_.is_bound && e_.bound_since != 0)
      state += " since " + link(e_.bound_since, fmt::format("record {}", e_.bound_since));
    put("<p class=\"state\">{}.</p>\n</section>\n", state);
  }

  void evidence() {
    if (e_.evidence.empty()) return;
    out_ += "<section>\n<h2>What speaks for it</h2>\n<ul class=\"facts\">\n";
    for (const Fact& fact : e_.evidence)
      put("<li>{} <span class=\"cite\">({})</span></li>\n", own_line(fact.fact),
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
          own_line(other.would_need));
      runner_up = false;
    }
    if (takeover)
      put("<li>somebody else using the join token under this name: {}</li>\n", escaped(kTakeoverWarning));
    for (const std::string& warning : e_.warnings)
      if (warning != kTakeoverWarning)
        put("<li class=\"beware\"><strong>Beware</strong>: {}</li>\n", own_line(warning));
    out_ += "</ul>\n</section>\n";
  }

  void remedies() {
    if (!e_.remedies.empty()) {
      out_ += "<section>\n<h2>What to do, safest first</h2>\n<ol class=\"acts\">\n";
      for (const Remedy& remedy : e_.remedies) {
        put("<li>{}", own_line(remedy.action));
        if (!remedy.rank.empty()) put(" <span class=\"cite\">({})</span>", escaped(remedy.rank));
        if (!remedy.harm.empty() && remedy.harm != "none")
          put(" <span class=\"harm\">Harm: {}.</span>", own_line(remedy.harm));
        if (!remedy.command.empty()) put("\n<pre><code>{}</code></pre>", escaped(remedy.command));
        out_ += "</li>\n";
      }
      out_ += "</ol>\n</section>\n";
    }
    if (!e_.agent_prints.empty())
      put("<section>\n<h2>What the agent's own log shows</h2>\n<p class=\"mono\">{}</p>\n</section>\n",
          own_line(e_.agent_prints));
  }

  // ---- the picture

  int y_of(std::size_t lane) const { return kTop + static_cast<int>(lane) * kLane + kLane / 2; }
  int bottom() const { return kTop + static_cast<int>(drawing_.lanes.size()) * kLane; }
  // A share of the width, with room for a mark at both ends.
  static double percent(double at) { return 2.5 + 95 * at; }
  static std::string x(double at) { return fmt::format("{:.2f}%", percent(at)); }

  void picture() {
    if (drawing_.marks.empty()) return;
    out_ += "<figure>\n<div class=\"drawing\">\n<div class=\"names\">\n";
    for (const Drawing::Lane& lane : drawing_.lanes) lane_name(lane);
    out_ += "</div>\n<div class=\"roll\">\n";
    put("<svg class=\"time\" role=\"img\" aria-labelledby=\"t d\" height=\"{}\" style=\"min-width:{}px\">\n",
        bottom() + kAxis, static_cast<int>(drawing_.columns) * kColumn);
    put("<title id=\"t\">Timeline of {}</title>\n<desc id=\"d\">{}</desc>\n", escaped(e_.node),
        escaped(description()));
    shapes();
    background();
    silences();
    axis();
    spans();
    guides_and_ties();
    runs();
    marks();
    out_ += "</svg>\n</div>\n</div>\n";
    legend();
    out_ += "</figure>\n";
  }

  static const char* sort_text(Drawing::Sort sort) {
    switch (sort) {
      case Drawing::Sort::kServer: return "";
      case Drawing::Sort::kNode: return "name ";
      case Drawing::Sort::kOtherNode: return "other name ";
      case Drawing::Sort::kPassword: return "password ";
      case Drawing::Sort::kAddress: return "from ";
    }
    return "";
  }

  void lane_name(const Drawing::Lane& lane) {
    std::string label = lane.label;
    if (label.empty()) label = lane.stands_for > 1 ? fmt::format("and {} more", lane.stands_for) : "not recorded";
    std::string tag;
    const Facts& facts = retold_.facts;
    if (lane.sort == Drawing::Sort::kPassword && !lane.label.empty()) {
      const Refusals& refusals = facts.refusals;
      if (e_.bound.known() && lane.label == facts.short_name(e_.bound))
        tag = "bound now";
      else if (refusals.presented.known() && lane.label == facts.short_name(refusals.presented))
        tag = "refused";
    }
    put("<div title=\"{}{}\"><span class=\"sort w\">{}</span>{}", sort_text(lane.sort), escaped(label),
        sort_text(lane.sort), own_line(label));
    if (!tag.empty()) put(" <span class=\"tag w\">{}</span>", tag);
    out_ += "</div>\n";
  }

  std::string description() const {
    std::string text =
        fmt::format("{} ({}): {}. Time runs from left to right. Lanes from the top:", name_of(e_.cause),
                    name_of(e_.confidence), e_.summary);
    for (const Drawing::Lane& lane : drawing_.lanes)
      text += fmt::format(" {}{};", sort_text(lane.sort),
                          !lane.label.empty()   ? lane.label
                          : lane.stands_for > 1 ? fmt::format("and {} more", lane.stands_for)
                                                : "not recorded");
    return text + " the table of records below says the same in words.";
  }

  std::set<Shape> shapes_used() const {
    std::set<Shape> used;
    for (const Drawing::Mark& mark : drawing_.marks) used.insert(mark.shape);
    for (const std::size_t i : shown_rows_) used.insert(shape_of(rows_[i].row.record->kind()));
    return used;
  }

  void shapes() {
    out_ += "<defs>\n";
    for (const Shape shape : shapes_used()) {
      const Look& look = look_of(shape);
      put("<path id=\"m-{}\" class=\"{}\" d=\"{}\"/>\n", look.id, look.style, look.path);
    }
    out_ += "</defs>\n";
  }

  void background() {
    for (std::size_t i = 0; i < drawing_.lanes.size(); ++i) {
      const bool new_sort = i > 0 && drawing_.lanes[i].sort != drawing_.lanes[i - 1].sort;
      if (new_sort) put("<line class=\"sep\" x1=\"0\" x2=\"100%\" y1=\"{0}\" y2=\"{0}\"/>\n", y_of(i) - kLane / 2);
      put("<line class=\"row\" x1=\"0\" x2=\"100%\" y1=\"{0}\" y2=\"{0}\"/>\n", y_of(i));
    }
    put("<line class=\"sep\" x1=\"0\" x2=\"100%\" y1=\"{0}\" y2=\"{0}\"/>\n", bottom());
  }

  void silences() {
    std::size_t said = 0;
    for (const Drawing::Silence& silence : drawing_.silences) {
      const std::string text = duration_text(silence.seconds);
      const double room = 0.95 * (silence.to - silence.from), need = static_cast<double>(text.size()) * kLetter + 8;
      if (room * kWide < need || ++said > 24) continue;
      const bool narrow = room * kNarrow >= need;
      const char* hidden = narrow ? "" : " w";
      put("<g class=\"silence{}\"><line class=\"gap\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>", hidden,
          x(silence.from), x(silence.to), fmt::arg("y", kTop - 5));
      for (const double end : {silence.from, silence.to})
        put("<line class=\"gap\" x1=\"{0}\" x2=\"{0}\" y1=\"{1}\" y2=\"{2}\"/>", x(end), kTop - 9, kTop - 1);
      put("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></g>\n", x((silence.from + silence.to) / 2),
          kTop - 9, text);
    }
    if (!drawing_.cut) return;
    put("<rect class=\"cut\" x=\"{:.2f}%\" y=\"{}\" width=\"1.6%\" height=\"{}\"/>\n", percent(*drawing_.cut) - 0.8,
        kTop, bottom() - kTop);
    put("<text class=\"quiet\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{} more marks</text>\n", x(*drawing_.cut),
        kTop - 9, with_commas(static_cast<std::int64_t>(drawing_.left_out)));
  }

  // Times below the marks that have room for one: the ends first, then whatever broke the longest silences.
  void axis() {
    const auto& moments = drawing_.moments;
    if (moments.empty()) return;
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < moments.size(); ++i) order.push_back(i);
    const auto weight = [&](std::size_t i) {
      if (i == 0 || i + 1 == moments.size()) return 1e18 - static_cast<double>(i);
      return seconds_between(moments[i - 1].time, moments[i].time);
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return weight(a) > weight(b); });
    std::vector<double> wide, narrow;
    const auto fits = [](const std::vector<double>& taken, double at, double width) {
      return std::all_of(taken.begin(), taken.end(),
                         [&](double other) { return std::abs(other - at) * width * 0.95 > 13 * kLetter; });
    };
    for (const std::size_t i : order) {
      const double at = moments[i].at;
      if (!fits(wide, at, kWide)) continue;
      wide.push_back(at);
      const bool fits_narrow = fits(narrow, at, std::max(kNarrow, static_cast<double>(drawing_.columns) * kColumn));
      if (fits_narrow) narrow.push_back(at);
      tick(moments[i], fits_narrow ? "" : " class=\"w\"");
    }
  }

  void tick(const Drawing::Moment& moment, const char* attributes) {
    const std::string clock = clock_text(moment.time);
    const char* anchor = moment.at < 0.07 ? "start" : moment.at > 0.93 ? "end" : "middle";
    put("<g{}><line class=\"gap\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>", attributes, bottom(), bottom() + 5,
        fmt::arg("x", x(moment.at)));
    const std::string at = anchor[0] == 'm' ? x(moment.at) : anchor[0] == 's' ? "4" : "99.5%";
    put("<text x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>", at, bottom() + 18, anchor, clock.substr(0, 10));
    put("<text x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text></g>\n", at, bottom() + 32, anchor, clock.substr(11));
  }

  void spans() {
    for (const Drawing::Span& span : drawing_.bindings) {
      const double from = span.from <= 0 ? percent(0) - 1.2 : percent(span.from);
      const double to = span.goes_on ? 100 : percent(span.to);
      put("<rect class=\"bind\" x=\"{:.2f}%\" y=\"{}\" width=\"{:.2f}%\" height=\"{}\"/>\n", from,
          y_of(span.lane) - 11, std::max(to - from, 0.1), 22);
    }
    for (const Drawing::Span& span : drawing_.tunnels)
      put("<line class=\"tunnel\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>\n", x(span.from),
          span.goes_on ? "100%" : x(span.to), fmt::arg("y", y_of(span.lane) + 10));
  }

  void guides_and_ties() {
    for (const Drawing::Mark& mark : drawing_.marks) {
      if (mark.lanes.size() > 1)
        put("<line class=\"tie\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>\n", y_of(mark.lanes.front()),
            y_of(mark.lanes.back()), fmt::arg("x", x(mark.from)));
      if (mark.guides)
        put("<line class=\"guide {}\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>\n",
            mark.shape == Shape::kEpoch ? "server" : "name", kTop, bottom(), fmt::arg("x", x(mark.from)));
    }
  }

  static std::string_view tone_of(Shape shape) {
    const std::string_view style = look_of(shape).style;
    return style.substr(0, style.find(' '));
  }

  void runs() {
    for (const Drawing::Mark& mark : drawing_.marks)
      for (const std::size_t lane : mark.lanes)
        if (mark.to > mark.from)
          put("<line class=\"run {}\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>\n", tone_of(mark.shape),
              x(mark.from), x(mark.to), fmt::arg("y", y_of(lane)));
  }

  void marks() {
    for (const Drawing::Mark& mark : drawing_.marks) {
      const bool linked = anchors_.count(mark.first) != 0;
      out_ += linked ? fmt::format("<a href=\"#r{}\" tabindex=\"-1\">", mark.first) : "<g>";
      put("<title>{}</title>", escaped(tooltip(mark)));
      for (const std::size_t lane : mark.lanes)
        for (const double at : {mark.from, mark.to}) {
          put("<use href=\"#m-{}\" x=\"{}\" y=\"{}\"/>", look_of(mark.shape).id, x(at), y_of(lane));
          if (mark.to <= mark.from) break;
        }
      if (mark.count > 1) number(mark);
      if (!mark.label.empty()) name(mark);
      out_ += linked ? "</a>\n" : "</g>\n";
    }
  }

  std::string tooltip(const Drawing::Mark& mark) const {
    std::string text = mark.first == mark.last ? fmt::format("record {}", mark.first)
                                               : fmt::format("records {} to {}", mark.first, mark.last);
    if (mark.since.known()) text += ", " + clock_text(mark.since);
    if (mark.until > mark.since && mark.since.known()) text += " to " + clock_text(mark.until);
    text += ": " + mark.words;
    if (mark.count > 1) text += fmt::format(", {} times", with_commas(mark.count));
    return text;
  }

  // Above the first of its lanes that is not the name's.
  void number(const Drawing::Mark& mark) {
    const double at = (mark.from + mark.to) / 2;
    const char* anchor = at < 0.03 ? "start" : at > 0.97 ? "end" : "middle";
    const std::string where = at < 0.03 ? "2" : at > 0.97 ? "99.7%" : x(at);
    put("<text class=\"many {}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\">×{}</text>", tone_of(mark.shape), where,
        y_of(mark.lanes.front()) - 8, anchor, with_commas(mark.count));
  }

  // Beside the mark, on the side that has room before the next one of the lane.
  void name(const Drawing::Mark& mark) {
    const std::size_t lane = mark.lanes.front();
    double left = -0.03, right = 1.03;  // free until there
    for (const Drawing::Mark& other : drawing_.marks) {
      if (&other == &mark || std::find(other.lanes.begin(), other.lanes.end(), lane) == other.lanes.end()) continue;
      if (other.from > mark.from) right = std::min(right, other.from);
      if (other.to <= mark.from) left = std::max(left, other.to);
    }
    const double need = static_cast<double>(mark.label.size()) * kLetter + 22;
    for (const bool to_the_right : {true, false}) {
      const double room = to_the_right ? right - std::max(mark.from, mark.to) : mark.from - left;
      // What stands on the left of the next mark would lie on what stands on the right of this one.
      if (room * kWide < need * (to_the_right ? 1 : 2)) continue;
      const bool narrow = room * kNarrow >= need * (to_the_right ? 1 : 2);
      put("<text class=\"{}\" x=\"{}\" dx=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>", narrow ? "what" : "what w",
          x(to_the_right ? std::max(mark.from, mark.to) : mark.from), to_the_right ? 11 : -11, y_of(lane) + 4,
          to_the_right ? "start" : "end", escaped(mark.label));
      return;
    }
  }

  void legend() {
    out_ += "<ul class=\"legend\" aria-label=\"Signs\">\n";
    for (const Shape shape : shapes_used())
      put("<li><svg viewBox=\"-9 -9 18 18\" aria-hidden=\"true\"><use href=\"#m-{}\"/></svg>{}</li>\n",
          look_of(shape).id, look_of(shape).meaning);
    if (!drawing_.bindings.empty())
      out_ +=
          "<li><svg viewBox=\"-9 -9 18 18\" aria-hidden=\"true\"><rect class=\"bind\" x=\"-9\" y=\"-6\" "
          "width=\"18\" "
          "height=\"12\"/></svg>the name is bound to it</li>\n";
    if (!drawing_.tunnels.empty())
      out_ +=
          "<li><svg viewBox=\"-9 -9 18 18\" aria-hidden=\"true\"><line class=\"tunnel\" x1=\"-9\" x2=\"9\" "
          "y1=\"0\" "
          "y2=\"0\"/></svg>tunnel open</li>\n";
    out_ += "</ul>\n";
    out_ +=
        "<figcaption>Time runs from left to right; long silences are drawn short, with their length above. What "
        "repeats without a pause is one bar with its number (×). Each mark leads to its record below.";
    if (drawing_.left_out != 0)
      put(" {} marks in the middle are left out.", with_commas(static_cast<std::int64_t>(drawing_.left_out)));
    out_ += "</figcaption>\n";
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
        "<th>Password and place</th></tr></thead>\n<tbody>\n";
    std::uint32_t life = 0;
    std::size_t next = 0;
    for (const std::size_t i : shown_rows_) {
      if (i != next)
        put("<tr><td colspan=\"4\">… and {} more rows, left out here</td></tr>\n",
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
    put("<td><svg viewBox=\"-9 -9 18 18\" aria-hidden=\"true\"><use href=\"#m-{}\"/></svg><span "
        "class=\"what\">{}</span>",
        look_of(shape_of(row.record->kind())).id, own_line(row.what));
    if (new_life) put(" <span class=\"cite\">life {} begins</span>", row.life);
    if (printed.more > 0) again(printed);
    put("</td><td>{}</td></tr>\n", own_line(row.detail));
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
