#include "replay/drawing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <tuple>

#include "replay/thresholds.h"

namespace ledger::replay {

Shape shape_of(Kind kind) {
  switch (kind) {
    case Kind::password_stored:
    case Kind::binding_imported: return Shape::kBound;
    case Kind::password_verified: return Shape::kAccepted;
    case Kind::certificate_issued:
    case Kind::tunnel_opened:
    case Kind::tunnel_closed: return Shape::kCertificate;
    case Kind::password_rejected: return Shape::kRefused;
    case Kind::token_rejected:
    case Kind::request_rejected: return Shape::kTurnedAway;
    case Kind::tls_failed: return Shape::kHandshake;
    case Kind::binding_changed: return Shape::kChanged;
    case Kind::binding_released: return Shape::kReleased;
    case Kind::binding_held: return Shape::kHeld;
    case Kind::node_object_created: return Shape::kNodeCreated;
    case Kind::node_object_deleted: return Shape::kNodeDeleted;
    case Kind::server_started:
    case Kind::server_stopped: return Shape::kRestart;
    case Kind::epoch_started: return Shape::kEpoch;
    case Kind::clock_stepped: return Shape::kClock;
    case Kind::token_created:
    case Kind::token_rotated:
    case Kind::token_revoked:
    case Kind::token_expired: return Shape::kToken;
    default: return Shape::kOther;
  }
}

namespace {

using Sort = Drawing::Sort;
using LaneKey = std::pair<Sort, std::string>;

constexpr std::size_t kFirstMarks = 14;  // of too many
constexpr double kSilence_s = 60;        // shorter ones go without saying
constexpr double kCutWidth = 7;          // where the narrowest gap is 3
constexpr std::size_t kWidened = 4;      // silences...
constexpr double kWidenedTo = 0.11;      // ...of the width there was before
constexpr double kThinnest = 0.002;      // nobody sees less, and there may be thousands

// What one record adds to the picture.
struct Sight {
  const Step* step = nullptr;
  Shape shape = Shape::kOther;
  std::vector<LaneKey> lanes;
  std::string same_as;  // sights with equal ones may be one mark; empty: never
  Time from, to;        // made to go on: never before an earlier one's, where that can be
};

struct Run {
  std::vector<std::size_t> sights;  // indices, never empty
  Shape shape = Shape::kOther;
  std::int64_t count = 0;
  Time from, to;
  double left = 0, right = 0;
};

bool is_quiet(Shape shape) {
  return shape == Shape::kAccepted || shape == Shape::kCertificate || shape == Shape::kRestart;
}
bool is_refused(Shape shape) {
  return shape == Shape::kRefused || shape == Shape::kTurnedAway || shape == Shape::kHandshake;
}
// A new time begins with it.
bool is_turn(Shape shape) {
  return shape == Shape::kChanged || shape == Shape::kReleased || shape == Shape::kHeld ||
         shape == Shape::kNodeDeleted || shape == Shape::kEpoch || shape == Shape::kToken;
}

std::string label_of(const Record& record) {
  switch (shape_of(record.kind())) {
    case Shape::kBound: return as<PasswordStored>(record) != nullptr ? "bound" : "imported";
    case Shape::kChanged: {
      const auto& changed = *as<BindingChanged>(record);
      return changed.by == "operator_accept" ? "accepted" : "changed";
    }
    case Shape::kReleased: return "released";
    case Shape::kHeld: return "held";
    case Shape::kNodeCreated: return "Node created";
    case Shape::kNodeDeleted: return "Node deleted";
    case Shape::kRestart: return as<ServerStopped>(record) != nullptr ? "stop" : "start";
    case Shape::kEpoch: {
      std::string cause = printable(as<EpochStarted>(record)->cause, 24);
      std::replace(cause.begin(), cause.end(), '_', ' ');
      return cause;
    }
    case Shape::kClock: return "clock";
    case Shape::kToken: {
      std::string label(name_of(record.kind()));
      std::replace(label.begin(), label.end(), '_', ' ');
      return label;
    }
    default: return "";
  }
}

class Artist {
 public:
  explicit Artist(const Retold& retold) : retold_(retold), facts_(retold.facts) {}

  Drawing draw() {
    look();
    fold_runs();
    cut();
    place();
    choose_lanes();
    add_marks();
    add_bindings();
    add_tunnels();
    return std::move(drawing_);
  }

 private:
  // ---- what there is to see

  void look() {
    Time latest;
    for (const Step* step : steps_of(retold_, Scope::wide)) {
      const Record& record = *step->record;
      Sight sight{.step = step, .shape = shape_of(record.kind()), .lanes = {}, .same_as = {}, .from = {}, .to = {}};
      sight.from = first_time_of(record);
      // An imported record was made long after what it tells of.
      sight.to = is_imported(record) ? sight.from : record.time;
      if (!sight.to.known()) sight.from = sight.to = latest;
      if (!sight.from.known() || sight.from > sight.to) sight.from = sight.to;
      latest = std::max(latest, sight.to);
      sight.lanes = lanes_of(*step);
      if (is_quiet(sight.shape) || is_refused(sight.shape)) sight.same_as = likeness(sight);
      index_of_[&record] = sights_.size();
      sights_.push_back(std::move(sight));
    }
  }

  // Signs of life of one machine are alike whatever they are; refusals only when they say the same.
  std::string likeness(const Sight& sight) const {
    if (sight.shape == Shape::kRestart) return "start";
    std::string text = "alive";
    if (is_refused(sight.shape)) text = row_of(*sight.step, facts_).what;
    for (const LaneKey& lane : sight.lanes) text += '\n' + lane.second;
    return text;
  }

  std::vector<LaneKey> lanes_of(const Step& step) {
    const Record& record = *step.record;
    const Shape shape = shape_of(record.kind());
    if (is_server_wide(record.kind()) || shape == Shape::kOther) return {{Sort::kServer, ""}};
    std::vector<LaneKey> lanes;
    const bool about_name = !is_quiet(shape) && !is_refused(shape);
    if (!step.own && !record.node.empty())
      lanes.emplace_back(Sort::kOtherNode, record.node);
    else if (about_name)
      lanes.emplace_back(Sort::kNode, "");
    if (const std::optional<std::string> password = password_of(step))
      lanes.emplace_back(Sort::kPassword, *password);
    const std::string address = address_of(record);
    if (!address.empty() && (shape == Shape::kBound || !about_name)) lanes.emplace_back(Sort::kAddress, address);
    if (lanes.empty()) lanes.emplace_back(Sort::kNode, "");
    return lanes;
  }

  static std::optional<std::string> password_of(const Step& step) {
    const Record& record = *step.record;
    if (const auto* e = as<PasswordStored>(record)) return e->fingerprint.text;
    if (const auto* e = as<PasswordVerified>(record)) return e->fingerprint.text;
    if (const auto* e = as<PasswordRejected>(record)) return e->fingerprint.text;
    if (const auto* e = as<BindingImported>(record)) return e->fingerprint.text;
    if (const auto* e = as<BindingChanged>(record)) return e->to.text;
    const bool of_holder = as<BindingReleased>(record) != nullptr || shape_of(record.kind()) == Shape::kCertificate;
    if (of_holder && step.own && step.bound_before.known()) return step.bound_before.text;
    return std::nullopt;
  }

  // "10.0.0.5"; where the machine claims another one than is observed, both: several may stand behind one source.
  std::string address_of(const Record& record) {
    Place place;
    place.add(record);
    const std::string source = place.sources.empty() ? "" : *place.sources.begin();
    std::string claimed = place.claimed.empty() ? "" : *place.claimed.begin();
    if (place.claimed.count(source) != 0) claimed = source;
    const std::string whose = source + "\n" + record.node;
    if (claimed.empty() && shape_of(record.kind()) == Shape::kCertificate) claimed = claimed_by_[whose];
    if (!claimed.empty()) claimed_by_[whose] = claimed;
    if (source.empty() || claimed.empty() || source == claimed) return source.empty() ? claimed : source;
    return claimed + " via " + source;
  }

  // ---- marks

  void fold_runs() {
    constexpr double kDay_s = 86400;
    for (const double most_quiet_s : {kDay_s, 30 * kDay_s, std::numeric_limits<double>::infinity()}) {
      runs_.clear();
      std::map<std::string, std::size_t> open;  // by likeness
      for (std::size_t i = 0; i < sights_.size(); ++i) add(i, most_quiet_s, open);
      if (runs_.size() <= kMostMarks) return;
    }
  }

  void add(std::size_t i, double most_quiet_s, std::map<std::string, std::size_t>& open) {
    const Sight& sight = sights_[i];
    const bool quiet = is_quiet(sight.shape);
    if (sight.shape != Shape::kRestart)
      std::erase_if(open, [&](const auto& entry) {
        return entry.first != sight.same_as && !(quiet && runs_[entry.second].shape == Shape::kRestart);
      });
    const auto found = sight.same_as.empty() ? open.end() : open.find(sight.same_as);
    const std::int64_t count = std::max<std::int64_t>(sight.step->record->count, 1);
    if (found != open.end()) {
      Run& run = runs_[found->second];
      const double pause = seconds_between(run.to, sight.from);
      if (pause <= (quiet ? most_quiet_s : kGaveUp_s)) {
        // A certificate that follows a success is the same sign.
        const bool accepted = sight.shape == Shape::kAccepted;
        if (accepted && run.shape == Shape::kCertificate) run.count = 0, run.shape = Shape::kAccepted;
        if (sight.shape == run.shape) run.count += count;
        run.sights.push_back(i);
        run.to = std::max(run.to, sight.to);
        return;
      }
    }
    if (!sight.same_as.empty()) open[sight.same_as] = runs_.size();
    runs_.push_back({.sights = {i}, .shape = sight.shape, .count = count, .from = sight.from, .to = sight.to});
  }

  void cut() {
    if (runs_.size() <= kMostMarks) return;
    const std::size_t latest = runs_.size() - (kMostMarks - kFirstMarks);
    drawing_.left_out = latest - kFirstMarks;
    first_after_cut_ = kFirstMarks;
    runs_.erase(runs_.begin() + static_cast<std::ptrdiff_t>(kFirstMarks),
                runs_.begin() + static_cast<std::ptrdiff_t>(latest));
  }

  // ---- where they stand

  struct End {
    Time time;
    std::size_t order;  // of the record
    std::size_t run;
    bool is_left;
    double gap = 0;  // before it, in the unit of kCutWidth
    double at = 0;
  };

  // Left and right ends of all runs, in the order of time; what comes after the cut after what came before it.
  void place() {
    for (std::size_t i = 0; i < runs_.size(); ++i) {
      const Run& run = runs_[i];
      ends_.push_back({.time = run.from, .order = run.sights.front(), .run = i, .is_left = true});
      if (run.count > 1 || seconds_between(run.from, run.to) >= kSilence_s)
        ends_.push_back({.time = run.to, .order = run.sights.back(), .run = i, .is_left = false});
    }
    std::stable_sort(ends_.begin(), ends_.end(), [&](const End& a, const End& b) {
      return std::make_tuple(is_late(a), a.time, a.order) < std::make_tuple(is_late(b), b.time, b.order);
    });
    measure();
    add_silences();
    widen_silences();
    for (const End& end : ends_) {
      Run& run = runs_[end.run];
      run.right = end.at;
      if (end.is_left) run.left = end.at;
      if (end.time.known()) drawing_.moments.push_back({end.at, end.time});
    }
    drawing_.columns = ends_.size();
    for (std::size_t i = 0; i < runs_.size(); ++i)
      for (const std::size_t sight : runs_[i].sights) run_of_[sight] = i;
  }

  bool is_late(const End& end) const { return drawing_.left_out != 0 && end.run >= first_after_cut_; }
  bool across_cut(std::size_t i) const { return is_late(ends_[i]) && !is_late(ends_[i - 1]); }

  void measure() {
    for (std::size_t i = 1; i < ends_.size(); ++i) {
      const bool known = ends_[i - 1].time.known() && ends_[i].time > ends_[i - 1].time;
      const double seconds = known ? seconds_between(ends_[i - 1].time, ends_[i].time) : 0;
      ends_[i].gap = across_cut(i) ? kCutWidth : 3 + 0.6 * std::log10(1 + seconds);
    }
    scale();
  }

  void scale() {
    double width = 0;
    for (std::size_t i = 1; i < ends_.size(); ++i) {
      if (across_cut(i)) drawing_.cut = width + ends_[i].gap / 2;
      ends_[i].at = width += ends_[i].gap;
    }
    for (End& end : ends_) end.at = width > 0 ? end.at / width : 0.5;
    if (drawing_.cut) drawing_.cut = *drawing_.cut / width;
  }

  // The gap before this end lies within a run of outcomes that goes on through it.
  bool is_busy(std::size_t i) const {
    std::set<std::size_t> begun;
    for (std::size_t k = 0; k < i; ++k) {
      const Run& run = runs_[ends_[k].run];
      const bool counts = run.shape != Shape::kRestart && (run.count > 2 || run.sights.size() > 2);
      if (ends_[k].is_left && counts) begun.insert(ends_[k].run);
      if (!ends_[k].is_left) begun.erase(ends_[k].run);
    }
    return std::any_of(begun.begin(), begun.end(), [&](std::size_t run) {
      return std::any_of(ends_.begin() + static_cast<std::ptrdiff_t>(i), ends_.end(),
                         [&](const End& end) { return end.run == run && !end.is_left; });
    });
  }

  void add_silences() {
    for (std::size_t i = 1; i < ends_.size(); ++i) {
      if (!ends_[i - 1].time.known() || across_cut(i) || is_busy(i)) continue;
      const double seconds = seconds_between(ends_[i - 1].time, ends_[i].time);
      if (seconds >= kSilence_s) silent_ends_.emplace_back(seconds, i);
    }
    std::stable_sort(silent_ends_.begin(), silent_ends_.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
  }

  // The longest ones get room for their length in words.
  void widen_silences() {
    double width = 0;
    for (const End& end : ends_) width += end.gap;
    for (std::size_t i = 0; i < silent_ends_.size() && i < kWidened; ++i) {
      double& gap = ends_[silent_ends_[i].second].gap;
      gap = std::max(gap, width * kWidenedTo);
    }
    scale();
    for (const auto& [seconds, i] : silent_ends_)
      drawing_.silences.push_back({ends_[i - 1].at, ends_[i].at, seconds});
  }

  // Between the marks around it.
  double position_of(Time time) const {
    const auto& moments = drawing_.moments;
    if (moments.empty()) return 0.5;
    const auto next = std::find_if(moments.begin(), moments.end(),
                                   [&](const Drawing::Moment& moment) { return moment.time >= time; });
    if (next == moments.end()) return moments.back().at;
    if (next == moments.begin() || next->time == time) return next->at;
    const auto before = std::prev(next);
    const double whole = seconds_between(before->time, next->time);
    return before->at + (next->at - before->at) * seconds_between(before->time, time) / whole;
  }
  double position_of(const Record& record) const {
    if (record.seq < retold_.explanation.told_from) return 0;
    const auto sight = index_of_.find(&record);
    return sight != index_of_.end() ? position_of(sight->second) : position_of(record.time);
  }
  double position_of(std::size_t sight) const {
    const auto found = run_of_.find(sight);
    if (found == run_of_.end()) return position_of(sights_[sight].from);
    const Run& run = runs_[found->second];
    if (run.sights.front() == sight) return run.left;
    if (run.sights.back() == sight) return run.right;
    return std::clamp(position_of(sights_[sight].to), run.left, run.right);
  }

  // ---- lanes

  bool matters(const LaneKey& lane) const {
    const Explanation& e = retold_.explanation;
    return lane.first == Sort::kPassword && !lane.second.empty() &&
           (lane.second == e.bound.text || lane.second == facts_.refusals.presented.text ||
            lane.second == facts_.refusals.holder.text);
  }

  std::string name_of_lane(const LaneKey& key) const {
    switch (key.first) {
      case Sort::kServer: return "server";
      case Sort::kNode: return printable(retold_.explanation.node, 64);
      case Sort::kPassword: return key.second.empty() ? "" : facts_.short_name(key.second);
      case Sort::kOtherNode:
      case Sort::kAddress: return printable(key.second, 64);
    }
    return "";
  }

  void choose_lanes() {
    struct Seen {
      std::size_t first, last;
    };
    std::map<LaneKey, Seen> seen;
    for (const Run& run : runs_)
      for (const std::size_t i : run.sights)
        for (const LaneKey& lane : sights_[i].lanes) {
          const auto [at, is_new] = seen.try_emplace(lane, Seen{i, i});
          at->second.last = std::max(at->second.last, i);
          at->second.first = std::min(at->second.first, i);
        }
    for (const Sort sort : {Sort::kServer, Sort::kNode, Sort::kOtherNode, Sort::kPassword, Sort::kAddress}) {
      std::vector<LaneKey> keys;
      for (const auto& [key, when] : seen)
        if (key.first == sort) keys.push_back(key);
      // The ones that the judgement is about, then those that were seen last...
      std::stable_sort(keys.begin(), keys.end(), [&](const LaneKey& a, const LaneKey& b) {
        return std::make_pair(matters(a), seen.at(a).last) > std::make_pair(matters(b), seen.at(b).last);
      });
      const std::size_t own = keys.size() <= kMostLanes ? keys.size() : kMostLanes - 1;
      // ...by first appearance.
      std::sort(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(own),
                [&](const LaneKey& a, const LaneKey& b) { return seen.at(a).first < seen.at(b).first; });
      for (std::size_t i = 0; i < keys.size(); ++i) {
        if (i < own) drawing_.lanes.push_back({.sort = sort, .label = name_of_lane(keys[i]), .stands_for = 1});
        if (i == own) drawing_.lanes.push_back({.sort = sort, .label = "", .stands_for = keys.size() - own});
        lane_of_[keys[i]] = drawing_.lanes.size() - 1;
      }
    }
  }

  std::optional<std::size_t> lane(const LaneKey& key) const {
    const auto found = lane_of_.find(key);
    return found == lane_of_.end() ? std::nullopt : std::optional(found->second);
  }

  // ---- what stands on them

  void add_marks() {
    for (const Run& run : runs_) {
      const Sight& first = sights_[run.sights.front()];
      const Record& record = *first.step->record;
      Drawing::Mark mark;
      mark.shape = run.shape;
      for (const LaneKey& key : first.lanes) mark.lanes.push_back(*lane(key));
      std::sort(mark.lanes.begin(), mark.lanes.end());
      mark.from = run.left, mark.to = run.right;
      mark.first = record.seq, mark.last = sights_[run.sights.back()].step->record->seq;
      mark.count = run.count;
      mark.since = run.from, mark.until = run.to;
      const auto typical = std::find_if(run.sights.begin(), run.sights.end(),
                                        [&](std::size_t i) { return sights_[i].shape == run.shape; });
      mark.words = in_one_line(row_of(*sights_[*typical].step, facts_));
      mark.label = label_of(record);
      mark.guides = is_turn(run.shape) && (first.step->own || record.node.empty());
      drawing_.marks.push_back(std::move(mark));
    }
  }

  // The fold once more, for which password the name was bound to, and from when to when. What a refusal was
  // measured against is believed before the fold: a server that was restored holds what it held before.
  void add_bindings() {
    NodeState state;
    std::optional<std::string> bound;  // password
    double since = 0;
    bool first = true;
    const auto end_at = [&](double at, bool goes_on) {
      const auto on = bound ? lane({Sort::kPassword, *bound}) : std::nullopt;
      if (on && (at > since + kThinnest || goes_on)) drawing_.bindings.push_back({*on, since, at, goes_on});
    };
    std::optional<double> epoch;  // since the last record of the node
    for (const Step& step : retold_.timeline.steps) {
      const Record& record = *step.record;
      if (as<EpochStarted>(record) != nullptr) epoch = position_of(record);
      if (!step.own) continue;
      apply(record, state);
      std::optional<std::string> now = state.is_bound() ? std::optional(state.bound.text) : std::nullopt;
      const auto* rejected = as<PasswordRejected>(record);
      const bool otherwise = rejected != nullptr && rejected->bound.known() && rejected->bound != state.bound;
      if (otherwise) now = rejected->bound.text;
      if (now != bound) {
        // Where a history begins in the middle, its first word on the binding is about what was before.
        const bool told_late = rejected != nullptr || as<PasswordVerified>(record) != nullptr;
        const double at = first && told_late ? 0 : otherwise && epoch ? *epoch : position_of(record);
        end_at(at, false);
        since = at, bound = std::move(now), first = false;
      }
      epoch.reset();
    }
    end_at(1, true);
  }

  void add_tunnels() {
    for (const Tunnel& tunnel : facts_.tunnels) {
      const auto opened = index_of_.find(tunnel.opened);
      if (opened == index_of_.end()) continue;
      std::optional<std::size_t> on;
      for (const LaneKey& key : sights_[opened->second].lanes)
        if (key.first == Sort::kAddress) on = lane(key);
      if (!on) continue;
      const double from = position_of(opened->second);
      const double to = tunnel.closed != nullptr ? position_of(*tunnel.closed) : 1;
      // Tunnels that follow each other at once, or lie over each other, are one line.
      const auto joined = std::find_if(drawing_.tunnels.begin(), drawing_.tunnels.end(), [&](const auto& other) {
        return other.lane == *on && from <= other.to + kThinnest && to >= other.from;
      });
      if (joined != drawing_.tunnels.end()) {
        joined->to = std::max(joined->to, to);
        joined->goes_on = joined->goes_on || tunnel.closed == nullptr;
      } else {
        drawing_.tunnels.push_back({*on, from, to, tunnel.closed == nullptr});
      }
    }
  }

  const Retold& retold_;
  const Facts& facts_;
  std::vector<Sight> sights_;
  std::map<const Record*, std::size_t> index_of_;
  std::map<std::string, std::string> claimed_by_;
  std::vector<Run> runs_;
  std::size_t first_after_cut_ = 0;
  std::vector<End> ends_;
  std::vector<std::pair<double, std::size_t>> silent_ends_;  // seconds before which end, from the longest
  std::map<std::size_t, std::size_t> run_of_;                // by sight
  std::map<LaneKey, std::size_t> lane_of_;
  Drawing drawing_;
};

}  // namespace

Drawing draw(const Retold& retold) { return Artist(retold).draw(); }

}  // namespace ledger::replay
