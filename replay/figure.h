// A drawing (drawing.h) as SVG inside of a page, with the names of its lanes beside it and the meaning of its signs
// below. Positions along the time axis are percentages, so that it fits a phone and a wide screen alike while its
// letters keep their size; on a narrow screen it rolls, and shows its end first. Refers to nothing outside of
// the page. Any thread.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "replay/drawing.h"

namespace ledger::replay {

// `anchors`: records whose row in the page has the id "r<seq>"; marks lead there. `signs`: what else of the page
// shows with sign_of().
std::string figure_of(const Retold& retold, const Drawing& drawing, const std::set<Seq>& anchors,
                      const std::set<Shape>& signs);

// The sign of a shape within a line of text.
std::string sign_of(Shape shape);

// CSS of both. Uses the colours --paper, --card, --ink, --faint, --line, --good, --bad, --name, --server, --band and
// --storm; needs rules that hide class `n0` on telephones, `m0` on paper and small screens, `w0` on large ones.
extern const std::string_view kFigureStyle;

}  // namespace ledger::replay
