#include "replay/figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "replay/causes.h"
#include "replay/html.h"

namespace ledger::replay {

const std::string_view kFigureStyle = R"(
figure{margin:18px 0 0}
.drawing{display:grid;grid-template-columns:max-content minmax(0,1fr);border:1px solid var(--line);border-radius:4px}
.names{padding:26px 0 40px;border-right:1px solid var(--line);background:var(--card);font-size:13px}
.names div{height:32px;line-height:32px;padding:0 12px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;
max-width:300px}
.names .sort{color:var(--faint)}.names .tag{color:var(--faint);font-size:11px}
.roll{overflow-x:auto;overflow-y:hidden;direction:rtl}
svg.time{display:block;width:100%;direction:ltr}
svg text{fill:var(--faint);font:11px system-ui,sans-serif}
.row{stroke:var(--line);stroke-width:1}.sep{stroke:var(--faint);stroke-width:1}
.good{stroke:var(--good)}.bad{stroke:var(--bad)}.name{stroke:var(--name)}.server{stroke:var(--server)}
path{fill:var(--paper);stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
path.bad{stroke-width:2.4;fill:none}
.solid.good{fill:var(--good)}.solid.name{fill:var(--name)}.solid.server{fill:var(--server)}
.run{stroke-width:12;stroke-linecap:round}.run.good{stroke:var(--band)}.run.bad{stroke:var(--storm)}
.run.server,.run.name{stroke:var(--line)}
.bind{fill:var(--band)}.tunnel{stroke:var(--good);stroke-width:2.5;stroke-dasharray:5 3}
.tie{stroke:var(--line)}.guide{stroke-width:1.2;stroke-dasharray:3 4}
svg .many{stroke:none;font-weight:600}.many.good{fill:var(--good)}.many.bad{fill:var(--bad)}
.many.server{fill:var(--server)}svg .quiet{font-style:italic}.gap{stroke:var(--faint);stroke-width:1}.cut{fill:var(--card);stroke:var(--line)}
.legend{display:flex;flex-wrap:wrap;gap:2px 18px;margin:8px 0 0;padding:0;list-style:none;font-size:13px;
color:var(--faint)}svg.sign{width:18px;height:18px;vertical-align:-4px;margin-right:5px;overflow:visible}
figcaption{margin-top:6px;font-size:13px;color:var(--faint)}
)";

namespace {

// Pixels, as in the style above.
constexpr int kLane = 32;
constexpr int kTop = 26;     // lengths of silences
constexpr int kAxis = 40;    // clock times
constexpr int kColumn = 13;  // of a narrow screen; the picture rolls where that is too much
// Of the picture alone on a telephone, on paper and on a desk; words are shown where they fit (kFigureStyle).
constexpr double kNarrow = 270, kMiddle = 520, kWide = 800;
constexpr double kLetter = 6.4;

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
      {"token", "server", "token made or withdrawn", "M-8,0A4,4 0 1 1 0,0A4,4 0 1 1 -8,0ZM0,0H8M7,0V5M4,0V4"},
      {"other", "server", "something else", "M-4,-4H4V4H-4Z"},
  };
  return kLooks[static_cast<std::size_t>(shape)];
}

class Figure {
 public:
  Figure(const Retold& retold, const Drawing& drawing, const std::set<Seq>& anchors, const std::set<Shape>& signs)
      : retold_(retold), e_(retold.explanation), drawing_(drawing), anchors_(anchors), signs_(signs) {}

  std::string write() {
    out_ += "<figure>\n<div class=\"drawing\">\n<div class=\"names\">\n";
    for (const Drawing::Lane& lane : drawing_.lanes) lane_name(lane);
    out_ += "</div>\n<div class=\"roll\">\n";
    put("<svg class=\"time\" role=\"img\" aria-labelledby=\"t d\" height=\"{}\" style=\"--columns:{}\">\n",
        bottom() + kAxis, drawing_.columns);
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
    numbers();
    out_ += "</svg>\n</div>\n</div>\n";
    legend();
    out_ += "</figure>\n";
    return std::move(out_);
  }

 private:
  template <class... Args>
  void put(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  int y_of(std::size_t lane) const { return kTop + static_cast<int>(lane) * kLane + kLane / 2; }
  int bottom() const { return kTop + static_cast<int>(drawing_.lanes.size()) * kLane; }
  bool rolls() const { return static_cast<double>(drawing_.columns) * kColumn > kNarrow; }
  // The classes that hide words where there is no room for them; nullopt: nowhere is.
  template <class Fits>
  std::optional<std::string> where_it_fits(Fits fits) const {
    const double narrow = std::max(kNarrow, static_cast<double>(drawing_.columns) * kColumn);
    std::string hidden;
    if (!fits(narrow, 0)) hidden += " n0";
    if (!fits(kMiddle, 1)) hidden += " m0";
    if (!fits(kWide, 2)) hidden += " w0";
    return hidden.size() == 9 ? std::nullopt : std::optional(hidden);
  }
  // A share of the width, with room for a mark at both ends.
  static double percent(double at) { return 3 + 94 * at; }
  static std::string x(double at) { return fmt::format("{:.2f}%", percent(at)); }

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
      const std::optional<Fingerprint> bound = bound_now(retold_);
      if (bound && lane.label == facts.short_name(*bound))
        tag = "bound now";
      else if (refusals.presented.known() && lane.label == facts.short_name(refusals.presented))
        tag = "refused";
    }
    put("<div title=\"{}{}\"><span class=\"sort n0\">{}</span>{}", sort_text(lane.sort), escaped(label),
        sort_text(lane.sort), isolated(label));
    if (!tag.empty()) put(" <span class=\"tag n0\">{}</span>", tag);
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
    std::set<Shape> used = signs_;
    for (const Drawing::Mark& mark : drawing_.marks) used.insert(mark.shape);
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
      const double room = 0.94 * (silence.to - silence.from), need = static_cast<double>(text.size()) * kLetter + 8;
      const double middle = (silence.from + silence.to) / 2;
      const std::optional<std::string> hidden = where_it_fits([&](double width, std::size_t) {
        const bool at_cut = drawing_.cut && std::abs(*drawing_.cut - middle) * width < 60 + need / 2;
        return room * width >= need && !at_cut;
      });
      if (!hidden || ++said > 24) continue;
      put("<g class=\"silence{}\"><line class=\"gap\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>", *hidden,
          x(silence.from), x(silence.to), fmt::arg("y", kTop - 5));
      for (const double end : {silence.from, silence.to})
        put("<line class=\"gap\" x1=\"{0}\" x2=\"{0}\" y1=\"{1}\" y2=\"{2}\"/>", x(end), kTop - 9, kTop - 1);
      put("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></g>\n", x(middle), kTop - 9, text);
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
    std::array<std::vector<double>, 3> taken;  // by screen
    for (const std::size_t i : order) {
      const double at = moments[i].at;
      const std::optional<std::string> hidden = where_it_fits([&](double width, std::size_t screen) {
        std::vector<double>& others = taken[screen];
        const bool fits = std::all_of(others.begin(), others.end(), [&](double other) {
          return std::abs(other - at) * width * 0.94 > 13 * kLetter;
        });
        if (fits) others.push_back(at);
        return fits;
      });
      if (hidden) tick(moments[i], *hidden);
    }
  }

  void tick(const Drawing::Moment& moment, const std::string& hidden) {
    const std::string clock = clock_text(moment.time);
    const char* anchor = moment.at < 0.07 ? "start" : moment.at > 0.93 ? "end" : "middle";
    put("<g class=\"tick{}\"><line class=\"gap\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>", hidden, bottom(),
        bottom() + 5, fmt::arg("x", x(moment.at)));
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
        put("<line class=\"guide {}\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>\n", tone_of(mark.shape), kTop,
            bottom(), fmt::arg("x", x(mark.from)));
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
      const bool many_starts = mark.shape == Shape::kRestart && mark.count > 1;
      if (!mark.label.empty() && !many_starts) name(mark);
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

  // The greatest first: it is the one that must not be missing.
  void numbers() {
    std::vector<const Drawing::Mark*> marks;
    for (const Drawing::Mark& mark : drawing_.marks)
      if (mark.count > 1) marks.push_back(&mark);
    std::stable_sort(marks.begin(), marks.end(), [](const auto* a, const auto* b) { return a->count > b->count; });
    for (const Drawing::Mark* mark : marks) number(*mark);
  }

  // Above the first of its lanes, where no other number is.
  void number(const Drawing::Mark& mark) {
    const std::string text = "×" + with_commas(mark.count);
    const double at = (mark.from + mark.to) / 2, need = static_cast<double>(text.size()) * kLetter;
    const char* anchor = at < 0.03 ? "start" : at > 0.97 ? "end" : "middle";
    const std::optional<std::string> hidden = where_it_fits([&](double width, std::size_t screen) {
      const double left = at * width - (anchor[0] == 's' ? 0 : anchor[0] == 'e' ? need : need / 2);
      auto& others = numbers_[screen][mark.lanes.front()];
      const bool fits = std::all_of(others.begin(), others.end(), [&](const auto& other) {
        return left + need < other.first || left > other.second;
      });
      if (fits) others.emplace_back(left, left + need);
      return fits;
    });
    if (!hidden) return;
    const std::string where = at < 0.03 ? "2" : at > 0.97 ? "99.7%" : x(at);
    put("<text class=\"many {}{}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>", tone_of(mark.shape), *hidden,
        where, y_of(mark.lanes.front()) - 8, anchor, text);
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
      const std::optional<std::string> hidden =
          where_it_fits([&](double width, std::size_t) { return room * width >= need * (to_the_right ? 1 : 2); });
      if (!hidden) continue;
      put("<text class=\"what{}\" x=\"{}\" dx=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>", *hidden,
          x(to_the_right ? std::max(mark.from, mark.to) : mark.from), to_the_right ? 11 : -11, y_of(lane) + 4,
          to_the_right ? "start" : "end", escaped(mark.label));
      return;
    }
  }

  void legend() {
    out_ += "<ul class=\"legend\" aria-label=\"Signs\">\n";
    for (const Shape shape : shapes_used()) put("<li>{}{}</li>\n", sign_of(shape), look_of(shape).meaning);
    if (!drawing_.bindings.empty())
      out_ +=
          "<li><svg class=\"sign\" viewBox=\"-9 -9 18 18\" aria-hidden=\"true\"><rect class=\"bind\" x=\"-9\" "
          "y=\"-6\" "
          "width=\"18\" "
          "height=\"12\"/></svg>the name is bound to it</li>\n";
    if (!drawing_.tunnels.empty())
      out_ +=
          "<li><svg class=\"sign\" viewBox=\"-9 -9 18 18\" aria-hidden=\"true\"><line class=\"tunnel\" x1=\"-9\" "
          "x2=\"9\" "
          "y1=\"0\" "
          "y2=\"0\"/></svg>tunnel open</li>\n";
    out_ += "</ul>\n";
    out_ +=
        "<figcaption>Time runs from left to right; long silences are drawn short, with their length above. What "
        "repeats without a pause is one bar with its number (×). Each mark leads to its record below.";
    if (rolls()) out_ += "<span class=\"m0 w0\"> The beginning is further left: move the drawing.</span>";
    if (drawing_.left_out != 0)
      put(" {} marks in the middle are left out.", with_commas(static_cast<std::int64_t>(drawing_.left_out)));
    out_ += "</figcaption>\n";
  }

  const Retold& retold_;
  const Explanation& e_;
  const Drawing& drawing_;
  const std::set<Seq>& anchors_;
  const std::set<Shape>& signs_;
  // By screen and lane: what is taken by numbers, in pixels.
  std::array<std::map<std::size_t, std::vector<std::pair<double, double>>>, 3> numbers_;
  std::string out_;
};

}  // namespace

std::string figure_of(const Retold& retold, const Drawing& drawing, const std::set<Seq>& anchors,
                      const std::set<Shape>& signs) {
  return Figure(retold, drawing, anchors, signs).write();
}

std::string sign_of(Shape shape) {
  return fmt::format("<svg class=\"sign\" viewBox=\"-9 -9 18 18\" aria-hidden=\"true\"><use href=\"#m-{}\"/></svg>",
                     look_of(shape).id);
}

}  // namespace ledger::replay
