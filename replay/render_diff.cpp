#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "replay/diff.h"
#include "replay/node_summary.h"
#include "replay/text.h"

namespace ledger::replay {

namespace json = boost::json;

namespace {

// ---- JSON ------------------------------------------------------------------------------------------------

json::value text_or_null(std::string_view text) {
  return text.empty() ? json::value(nullptr) : json::value(json::string_view(text.data(), text.size()));
}

json::value time_or_null(Time time) { return time.known() ? json::value(time.to_string()) : json::value(nullptr); }

json::object moment_of(const RecordSource::Moment& moment) {
  return {{"seq", moment.seq}, {"time", time_or_null(moment.time)}};
}

json::object state_of(const std::string& node, const NodeState& state) {
  json::object object = summary_of(node, state);
  object.erase("node");
  return object;
}

json::array steps_of(const std::vector<ChangeStep>& steps) {
  json::array array;
  for (const ChangeStep& step : steps)
    array.push_back(json::object{{"seq", step.first},
                                 {"seq_last", step.last},
                                 {"time", time_or_null(step.from)},
                                 {"time_last", time_or_null(step.to)},
                                 {"kind", text_or_null(name_of(step.kind))},
                                 {"who", text_or_null(step.who)},
                                 {"by", text_or_null(step.by)},
                                 {"fingerprint", text_or_null(step.fingerprint.text)},
                                 {"note", text_or_null(step.note)},
                                 {"count", step.count}});
  return array;
}

json::object object_of(const NodeChange& change) {
  json::array net;
  for (const NetEffect effect : change.net) net.push_back(text_or_null(name_of(effect)));
  return {{"node", change.node},
          {"net", std::move(net)},
          {"before", state_of(change.node, change.before)},
          {"after", state_of(change.node, change.after)},
          {"refusals", change.refusals},
          {"registrations", change.registrations},
          {"steps", steps_of(change.steps)},
          {"steps_left_out", change.steps_left_out}};
}

json::object object_of(const TokenChange& change) {
  return {{"token", change.token},
          {"class", text_or_null(change.token_class)},
          {"before", text_or_null(change.before)},
          {"after", text_or_null(change.after)},
          {"expires", time_or_null(change.expires.value_or(Time{}))},
          {"grace_ends", time_or_null(change.grace_ends.value_or(Time{}))},
          {"steps", steps_of(change.steps)}};
}

// ---- text ------------------------------------------------------------------------------------------------

constexpr std::size_t kSeqColumn = 14;   // "  420..455     "
constexpr std::size_t kTimeColumn = 22;  // "2024-06-11 07:02:40Z  "

std::string_view words_of(NetEffect effect) {
  switch (effect) {
    case NetEffect::none: return "as it was";
    case NetEffect::bound: return "bound";
    case NetEffect::rebound: return "bound to another password";
    case NetEffect::bound_anew: return "bound anew to the same password";
    case NetEffect::fingerprint_known: return "its imported password was seen";
    case NetEffect::released: return "released";
    case NetEffect::held: return "held";
    case NetEffect::hold_ended: return "no longer held";
    case NetEffect::refused: return "refused";
    case NetEffect::admitted: return "refused before, admitted now";
    case NetEffect::registered: return "registered again";
  }
  fatal("a net effect without words");
}

std::string_view words_of(Kind kind, const ChangeStep& step) {
  switch (kind) {
    case Kind::password_stored: return "bound";
    case Kind::password_verified: return "registered";
    case Kind::password_rejected: return "REFUSED";
    case Kind::binding_released: return "released";
    case Kind::binding_changed: return step.by == "operator_accept" ? "accepted" : "binding changed";
    case Kind::binding_held: return "held";
    case Kind::binding_imported: return "binding imported";
    case Kind::token_created: return "created";
    case Kind::token_rotated: return "rotated";
    case Kind::token_revoked: return "revoked";
    case Kind::token_expired: return "expired";
    default: return name_of(kind);
  }
}

std::string_view bare(std::string_view by) {  // what goes without saying
  return by == "operator" || by == "operator_accept" || by == "import" ? std::string_view() : by;
}

std::string moment_text(const RecordSource::Moment& moment) {
  if (moment.seq == 0) return "the beginning";
  return fmt::format("record {}{}", moment.seq,
                     moment.time.known() ? fmt::format(" ({})", clock_text(moment.time)) : "");
}

class DiffWriter {
 public:
  DiffWriter(const Diff& diff, const TextStyle& style)
      : diff_(diff), width_(std::max<std::size_t>(style.width, 60)), painter_(style.color) {
    for (const NodeChange& change : diff.nodes) {
      names_.add(change.before.bound), names_.add(change.after.bound);
      for (const ChangeStep& step : change.steps) names_.add(step.fingerprint);
    }
  }

  std::string write(bool all) {
    const auto routine = static_cast<std::uint64_t>(
        std::count_if(diff_.nodes.begin(), diff_.nodes.end(), [](const NodeChange& c) { return c.is_routine; }));
    head(routine);
    for (const NodeChange& change : diff_.nodes)
      if (all || !change.is_routine) node(change);
    for (const TokenChange& change : diff_.tokens) token(change);
    if (routine > 0 && !all)
      line(fmt::format("\n{} registered again with the bound password and {} not listed: --all",
                       counted(routine, "node"), routine == 1 ? "is" : "are"));
    for (const std::string& warning : diff_.warnings) paragraph("beware: " + warning, 0);
    return std::move(out_);
  }

 private:
  void line(std::string text) {
    while (!text.empty() && text.back() == ' ') text.pop_back();
    out_ += text + "\n";
  }

  void paragraph(std::string_view text, std::size_t indent) {
    for (const std::string& part : wrap(text, width_ - indent)) line(std::string(indent, ' ') + part);
  }

  void head(std::uint64_t routine) {
    line(fmt::format("after {} until {}", moment_text(diff_.from), moment_text(diff_.to)));
    const std::size_t changed = diff_.nodes.size() - routine;
    std::string said = changed == 0 ? "no node changed" : counted(changed, "node") + " changed";
    said += diff_.tokens.empty() ? ", no token changed" : ", " + counted(diff_.tokens.size(), "token") + " changed";
    line(painter_.paint(changed + diff_.tokens.size() == 0 ? Tone::good : Tone::strong, said));
  }

  std::string state_text(const NodeState& state) const {
    std::string text = state.is_bound() ? fmt::format("bound to {}", state.bound.known() ? names_.of(state.bound)
                                                                                         : "a k3s hash")
                       : state.released ? "released"
                                        : "not bound";
    if (state.since != 0) text += fmt::format(" since {}", state.since);
    if (state.held) text += ", held";
    if (state.rejections > 0) text += fmt::format(", {} open", counted(state.rejections, "refusal"));
    return text;
  }

  void node(const NodeChange& change) {
    std::string net;
    for (const NetEffect effect : change.net) net += (net.empty() ? "" : ", ") + std::string(words_of(effect));
    const bool bad = std::find(change.net.begin(), change.net.end(), NetEffect::refused) != change.net.end();
    line("");
    line(painter_.paint(Tone::strong, "node " + printable(change.node, 253)) + "   " +
         painter_.paint(bad ? Tone::bad : Tone::plain, net));
    line(fmt::format("  {:<{}}{}", "was", kSeqColumn - 2, state_text(change.before)));
    line(fmt::format("  {:<{}}{}", "is", kSeqColumn - 2, state_text(change.after)));
    // What was left out lies between the first and the latest steps.
    const std::size_t gap = change.steps_left_out > 0 ? change.steps.size() / 2 : change.steps.size();
    for (std::size_t i = 0; i < change.steps.size(); ++i) {
      if (i == gap) line(fmt::format("  ... {} left out", counted(change.steps_left_out, "step")));
      step(change.steps[i]);
    }
  }

  void token(const TokenChange& change) {
    std::string net = change.before.empty()         ? change.after
                      : change.before == change.after ? change.after + ", as it was"
                                                      : change.before + ", now " + change.after;
    if (change.steps.empty() && change.expires)
      net += ": its time ended at " + clock_text(*change.expires);
    if (change.grace_ends) net += ", accepted until " + clock_text(*change.grace_ends);
    line("");
    line(painter_.paint(Tone::strong, fmt::format("token {} ({})", printable(change.token, 80),
                                                  printable(change.token_class, 20))) + "   " + net);
    for (const ChangeStep& each : change.steps) step(each);
  }

  void step(const ChangeStep& step) {
    std::string seq = step.first == step.last ? fmt::format("  {}", step.first)
                                              : fmt::format("  {}..{}", step.first, step.last);
    std::string head = fmt::format("{:<{}}{:<{}}", seq + " ", kSeqColumn, clock_text(step.from), kTimeColumn);
    std::string what(words_of(step.kind, step));
    if (step.fingerprint.known()) what += " " + names_.of(step.fingerprint);
    if (!bare(step.by).empty()) what += fmt::format(" ({})", printable(step.by, 20));
    if (step.count > 1 || step.first != step.last) what += fmt::format(", {} until {}", counted(step.count, "time"),
                                                                       clock_text(step.to));
    if (!step.who.empty()) what += (step.by_operator ? " by " : " from ") + printable(step.who, 60);
    if (!step.note.empty()) what += fmt::format(" \"{}\"", printable(step.note, 80));
    const std::size_t indent = columns_of(head);
    const std::vector<std::string> parts = wrap(what, width_ - indent);
    const Tone tone = step.kind == Kind::password_rejected ? Tone::bad : Tone::plain;
    for (std::size_t i = 0; i < parts.size(); ++i)
      line((i == 0 ? head : std::string(indent, ' ')) + painter_.paint(tone, parts[i]));
  }

  const Diff& diff_;
  std::size_t width_;
  Painter painter_;
  ShortNames names_;
  std::string out_;
};

}  // namespace

json::object to_json(const Diff& diff) {
  json::array nodes, tokens;
  for (const NodeChange& change : diff.nodes) nodes.push_back(object_of(change));
  for (const TokenChange& change : diff.tokens) tokens.push_back(object_of(change));
  return {{"from", moment_of(diff.from)},
          {"to", moment_of(diff.to)},
          {"nodes", std::move(nodes)},
          {"tokens", std::move(tokens)},
          {"warnings", json::array(diff.warnings.begin(), diff.warnings.end())}};
}

std::string to_text(const Diff& diff, const TextStyle& style, bool all) { return DiffWriter(diff, style).write(all); }

}  // namespace ledger::replay
