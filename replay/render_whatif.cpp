#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "replay/text.h"
#include "replay/whatif.h"

namespace ledger::replay {

namespace json = boost::json;

namespace {

// ---- JSON ------------------------------------------------------------------------------------------------

json::value text_or_null(std::string_view text) {
  return text.empty() ? json::value(nullptr) : json::value(json::string_view(text.data(), text.size()));
}

json::object moment_of(const RecordSource::Moment& moment) {
  return {{"seq", moment.seq}, {"time", text_or_null(moment.time.known() ? moment.time.to_string() : "")}};
}

json::object object_of(const Outcomes& outcomes) {
  return {{"count", outcomes.count}, {"seq", outcomes.first}, {"seq_last", outcomes.last}};
}

json::array array_of(const Rules& rules) {
  json::array array;
  if (rules.same_address) array.push_back("accept_same_address");
  if (rules.silence) array.push_back("release_after_silence");
  if (rules.token_grace) array.push_back("token_grace");
  return array;
}

json::object object_of(const Policy& policy) {
  const auto seconds = [](const std::optional<std::int64_t>& span) {
    return span ? json::value(*span) : json::value(nullptr);
  };
  return {{"accept_same_address", policy.accept_same_address},
          {"release_after_silence_s", seconds(policy.release_after_silence)},
          {"token_grace_s", seconds(policy.token_grace)}};
}

json::object object_of(const NodeJudgement& told) {
  json::array displacements, undecided;
  for (const Displacement& each : told.displacements)
    displacements.push_back(json::object{{"verdict", text_or_null(name_of(each.verdict))},
                                         {"because", each.because},
                                         {"fingerprint", text_or_null(each.newcomer.text)},
                                         {"instead_of", text_or_null(each.holder.text)},
                                         {"source", text_or_null(each.source)},
                                         {"rules", array_of(each.rules)},
                                         {"address_shared", each.address_shared},
                                         {"refusals", object_of(each.refusals)},
                                         {"times", each.times}});
  for (const auto& [missing, outcomes] : told.undecided) {
    json::object object = object_of(outcomes);
    object["missing"] = missing;
    undecided.push_back(std::move(object));
  }
  return {{"node", text_or_null(told.node)},
          {"displacements", std::move(displacements)},
          {"displacements_left_out", told.displacements_left_out},
          {"by_token", object_of(told.by_token)},
          {"locked_out", object_of(told.locked_out)},
          {"needless_accepts", object_of(told.needless)},
          {"undecided", std::move(undecided)}};
}

// ---- text ------------------------------------------------------------------------------------------------

constexpr std::size_t kNamesShown = 6;
constexpr std::size_t kWidestName = 30;
constexpr std::size_t kVerdictColumn = 10;

// "1 refusal (31)", "20 refusals (31..64)".
std::string cited(const Outcomes& outcomes, std::string_view noun) {
  const std::string where = outcomes.first == outcomes.last ? std::to_string(outcomes.first)
                                                            : fmt::format("{}..{}", outcomes.first, outcomes.last);
  return fmt::format("{} ({})", counted(outcomes.count, noun), where);
}

std::string_view words_of(const Displacement& each) {
  if (!each.rules.same_address) return "holder silent";
  return each.address_shared ? "same address, which other names have too" : "same address";
}

class WhatIfWriter {
 public:
  WhatIfWriter(const WhatIf& judgement, const TextStyle& style)
      : j_(judgement), width_(std::max<std::size_t>(style.width, 60)), painter_(style.color) {
    for (const NodeJudgement& node : j_.nodes) {
      name_column_ = std::max(name_column_, std::min(kWidestName, columns_of(name_of_node(node))));
      for (const Displacement& each : node.displacements) names_.add(each.newcomer), names_.add(each.holder);
    }
  }

  std::string write() {
    head();
    for (const Verdict verdict : {Verdict::takeover, Verdict::harmless}) displacements(verdict);
    for (const NodeJudgement& node : j_.nodes) rest(node);
    doubts();
    if (j_.refusals == 0) paragraph("nothing was refused between these records", 0);
    for (const std::string& warning : j_.warnings) paragraph("beware: " + warning, 0);
    return std::move(out_);
  }

 private:
  static std::string name_of_node(const NodeJudgement& node) {
    return node.node.empty() ? "(no name)" : printable(node.node, 253);
  }

  void line(std::string text) {
    while (!text.empty() && text.back() == ' ') text.pop_back();
    out_ += text + "\n";
  }

  void paragraph(std::string_view text, std::size_t indent, Tone tone = Tone::plain) {
    for (const std::string& part : wrap(text, width_ - indent))
      line(std::string(indent, ' ') + painter_.paint(tone, part));
  }

  std::string names_with(Verdict verdict) const {
    std::vector<std::string> names;
    for (const NodeJudgement& node : j_.nodes)
      if (std::any_of(node.displacements.begin(), node.displacements.end(),
                      [&](const Displacement& each) { return each.verdict == verdict; }))
        names.push_back(name_of_node(node));
    std::string text;
    for (std::size_t i = 0; i < std::min(names.size(), kNamesShown); ++i) text += (i == 0 ? "" : ", ") + names[i];
    if (names.size() > kNamesShown) text += fmt::format(" and {} more", names.size() - kNamesShown);
    return text;
  }

  void head() {
    const std::uint64_t takeovers = j_.count(Verdict::takeover), harmless = j_.count(Verdict::harmless),
                        undecided = j_.count(Verdict::undecided);
    std::string said = j_.policy.any() ? "Under " + to_string(j_.policy) : "Under the rule that ran";
    said += fmt::format(" {} of {} would have been admissions", j_.admitted, counted(j_.refusals, "refusal"));
    if (!j_.node.empty()) said += " for " + printable(j_.node, 253);
    if (takeovers > 0)
      said += fmt::format(", among them {} ({})", counted(takeovers, "takeover"), names_with(Verdict::takeover));
    paragraph(said, 0, takeovers > 0 ? Tone::bad : Tone::strong);
    facts(takeovers, harmless, undecided);
  }

  void facts(std::uint64_t takeovers, std::uint64_t harmless, std::uint64_t undecided) {
    std::string range = j_.from.seq == 0 ? "no records" : fmt::format("records {} to {}", j_.from.seq, j_.to.seq);
    if (j_.to.time.known()) range += fmt::format(", until {}", clock_text(j_.to.time));
    if (j_.end.seq > j_.to.seq) range += fmt::format("; hindsight until record {}", j_.end.seq);
    paragraph(range, 2, Tone::faint);
    if (takeovers + harmless + undecided > 0)
      paragraph(fmt::format("{} let in instead of the holder's: {}, {} harmless, {} undecided",
                            counted(takeovers + harmless + undecided, "password"), counted(takeovers, "takeover"),
                            harmless, undecided),
                2);
    const std::uint64_t stay = j_.stay_password + j_.stay_token + j_.stay_request;
    if (stay > 0)
      paragraph(fmt::format("{} would have stayed: {} of a password, {} of a token, {} of a request",
                            counted(stay, "refusal"), j_.stay_password, j_.stay_token, j_.stay_request),
                2);
    if (j_.undecided > 0) paragraph(counted(j_.undecided, "refusal") + " cannot be told", 2);
    if (j_.locked_out > 0)
      paragraph(fmt::format("{} of {} would have been refusals", j_.locked_out, counted(j_.admissions, "admission")), 2,
                Tone::bad);
    if (j_.admissions_undecided > 0)
      paragraph(fmt::format("{} of {} cannot be told", j_.admissions_undecided, counted(j_.admissions, "admission")),
                2);
  }

  // "db-1   TAKEOVER   text": the text in its own column.
  void row(const NodeJudgement& node, std::string_view what, std::string_view text, std::string_view because,
           Tone tone) {
    const std::string head = fmt::format(" {:<{}}  {:<{}}  ", name_of_node(node), name_column_, what, kVerdictColumn);
    const std::size_t indent = name_column_ + kVerdictColumn + 5;
    bool first = true;
    for (const std::string_view block : {text, because}) {
      if (block.empty()) continue;
      for (const std::string& part : wrap(block, width_ - indent)) {
        line((first ? painter_.paint(tone, head) : std::string(indent, ' ')) + part);
        first = false;
      }
    }
  }

  std::string text_of(const Displacement& each) const {
    std::string text = fmt::format("{} of {}", cited(each.refusals, "refusal"), names_.of(each.newcomer));
    if (!each.source.empty()) text += " from " + printable(each.source, 60);
    text += fmt::format(" let in, instead of {} ({})", each.holder.known() ? names_.of(each.holder) : "a k3s hash",
                        words_of(each));
    if (each.times > 1) text += fmt::format("; the name would have gone over {} times", each.times);
    return text;
  }

  void displacements(Verdict verdict) {
    const bool bad = verdict == Verdict::takeover;
    for (const NodeJudgement& node : j_.nodes)
      for (const Displacement& each : node.displacements)
        if (each.verdict == verdict)
          row(node, bad ? "TAKEOVER" : "harmless", text_of(each), "because " + each.because,
              bad ? Tone::bad : Tone::good);
  }

  void rest(const NodeJudgement& node) {
    if (node.by_token.count > 0)
      row(node, "token", cited(node.by_token, "refusal") + " of a token would have been accepted", "", Tone::plain);
    if (node.locked_out.count > 0)
      row(node, "LOCKED OUT", cited(node.locked_out, "admission") + " would have been refused", "", Tone::bad);
    if (node.needless.count > 0)
      row(node, "needless", cited(node.needless, "accept") + " by an operator would not have been needed", "",
          Tone::plain);
  }

  void doubts() {
    if (j_.count(Verdict::undecided) + j_.undecided + j_.admissions_undecided == 0) return;
    line("what the evidence cannot decide");
    for (const NodeJudgement& node : j_.nodes) {
      for (const Displacement& each : node.displacements)
        if (each.verdict == Verdict::undecided)
          row(node, "takeover?", text_of(each), each.because, Tone::strong);
      if (node.displacements_left_out > 0)
        row(node, "takeover?", fmt::format("{} more let in, each instead of another, and not followed",
                                           counted(node.displacements_left_out, "password")),
            "", Tone::strong);
      for (const auto& [missing, outcomes] : node.undecided)
        row(node, "outcome?", cited(outcomes, "outcome"), missing, Tone::strong);
    }
  }

  const WhatIf& j_;
  std::size_t width_, name_column_ = 0;
  Painter painter_;
  ShortNames names_;
  std::string out_;
};

}  // namespace

json::object to_json(const WhatIf& judgement) {
  json::array nodes;
  for (const NodeJudgement& node : judgement.nodes) nodes.push_back(object_of(node));
  return {{"rules", object_of(judgement.policy)},
          {"from", moment_of(judgement.from)},
          {"to", moment_of(judgement.to)},
          {"end", moment_of(judgement.end)},
          {"refusals", judgement.refusals},
          {"admitted", judgement.admitted},
          {"undecided", judgement.undecided},
          {"stay", json::object{{"password", judgement.stay_password},
                                {"token", judgement.stay_token},
                                {"request", judgement.stay_request}}},
          {"admissions", judgement.admissions},
          {"locked_out", judgement.locked_out},
          {"admissions_undecided", judgement.admissions_undecided},
          {"takeovers", judgement.count(Verdict::takeover)},
          {"harmless", judgement.count(Verdict::harmless)},
          {"takeovers_undecided", judgement.count(Verdict::undecided)},
          {"nodes", std::move(nodes)},
          {"warnings", json::array(judgement.warnings.begin(), judgement.warnings.end())}};
}

std::string to_text(const WhatIf& judgement, const TextStyle& style) { return WhatIfWriter(judgement, style).write(); }

}  // namespace ledger::replay
