#include "replay/drawing.h"

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include "replay/causes.h"
#include "tests/replay/replay_support.h"
#include "tests/support/paths.h"

namespace ledger::replay {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class DrawingTest : public ::testing::Test {
 protected:
  const Drawing& of_scenario(const std::string& name, const std::string& node) {
    const Result<History> history =
        history_from_jsonl(ledger::test::source_dir() + "/tests/scenarios/" + name + ".jsonl", node);
    if (!history) fatal(history.error().message);
    return of(*history);
  }
  const Drawing& of_lines(const std::string& lines, const std::string& node) {
    return of(test::history_of(lines, node));
  }
  const Drawing& of(const History& history) {
    retold_ = std::make_unique<Retold>(explain(history));
    drawing_ = draw(*retold_);
    return drawing_;
  }

  std::vector<std::string> lane_names() const {
    std::vector<std::string> names;
    for (const Drawing::Lane& lane : drawing_.lanes) names.push_back(lane.label);
    return names;
  }
  // The numbers of outcomes of the marks on this lane, from the left; refusals negative.
  std::vector<std::int64_t> counts_on(const std::string& label) const {
    std::vector<std::int64_t> counts;
    for (const Drawing::Mark& mark : drawing_.marks)
      for (const std::size_t lane : mark.lanes)
        if (drawing_.lanes[lane].label == label)
          counts.push_back(mark.shape == Shape::kRefused ? -mark.count : mark.count);
    return counts;
  }
  const Drawing::Mark& only(Shape shape) const {
    const Drawing::Mark* found = nullptr;
    for (const Drawing::Mark& mark : drawing_.marks)
      if (mark.shape == shape) {
        EXPECT_EQ(found, nullptr);
        found = &mark;
      }
    if (found == nullptr) fatal("no such mark");
    return *found;
  }

  std::unique_ptr<Retold> retold_;
  Drawing drawing_;
};

std::string line(Seq seq, const std::string& time, const std::string& kind, const std::string& rest) {
  return R"({"seq":)" + std::to_string(seq) + R"(,"time":")" + time + R"(","kind":")" + kind + "\"" +
         (rest.empty() ? "" : "," + rest) + "}\n";
}
std::string at_second(int second) { return Time{1'700'000'000'000'000}.plus_seconds(second).to_string(); }

TEST_F(DrawingTest, ADuplicateAlternates) {
  of_scenario("dupname-interleaved", "ubuntu");
  EXPECT_THAT(lane_names(), ElementsAre("ubuntu", "#a41c", "#77e0", "10.0.0.5", "10.0.0.9"));
  EXPECT_THAT(counts_on("#a41c"), ElementsAre(1, 1, 2));  // bound, verified, and again between the refusals
  EXPECT_THAT(counts_on("#77e0"), ElementsAre(-3, -3));
  EXPECT_THAT(counts_on("10.0.0.9"), ElementsAre(-3, -3));
  ASSERT_THAT(drawing_.bindings, SizeIs(1));
  EXPECT_EQ(drawing_.lanes[drawing_.bindings[0].lane].label, "#a41c");
  EXPECT_TRUE(drawing_.bindings[0].goes_on);
}

TEST_F(DrawingTest, ARebuiltMachineBreaksOffAndComesBackFromTheSameAddress) {
  of_scenario("rebuilt-reimaged", "rpi-07");
  EXPECT_THAT(lane_names(), ElementsAre("rpi-07", "#a41c", "#77e0", "10.0.4.17"));
  EXPECT_THAT(counts_on("#77e0"), ElementsAre(-41));  // one record, and one that stands for 40
  EXPECT_THAT(counts_on("10.0.4.17"), ElementsAre(1, 1, -41));
  ASSERT_THAT(drawing_.silences, SizeIs(1));
  EXPECT_EQ(duration_text(drawing_.silences[0].seconds), "101 days");
  EXPECT_EQ(drawing_.silences[0].to, only(Shape::kRefused).from);
}

// The server holds what it held before it was restored: so says the refusal, and the band of the binding moves
// back.
TEST_F(DrawingTest, ARestoreMovesTheBindingBack) {
  of_scenario("restored-lost-write", "web-2");
  const Drawing::Mark& epoch = only(Shape::kEpoch);
  EXPECT_EQ(epoch.label, "restored");
  EXPECT_TRUE(epoch.guides);
  ASSERT_THAT(drawing_.bindings, SizeIs(3));
  EXPECT_EQ(drawing_.lanes[drawing_.bindings[1].lane].label, "#77e0");
  EXPECT_EQ(drawing_.bindings[1].to, epoch.from);
  EXPECT_EQ(drawing_.lanes[drawing_.bindings[2].lane].label, "#a41c");
  EXPECT_EQ(drawing_.bindings[2].from, epoch.from);
  EXPECT_EQ(only(Shape::kRestart).label, "start");
  EXPECT_EQ(only(Shape::kReleased).label, "released");
}

TEST_F(DrawingTest, TheEndOfATokenParts) {
  of_scenario("token-superseded-names-the-rotation", "web-5");
  EXPECT_EQ(only(Shape::kToken).label, "token rotated");
  EXPECT_TRUE(only(Shape::kToken).guides);
  EXPECT_LT(only(Shape::kToken).from, only(Shape::kTurnedAway).from);
}

TEST_F(DrawingTest, OtherNamesOfAPasswordHaveLanes) {
  of_scenario("cloned-two-names", "img-1");
  EXPECT_THAT(lane_names(), ElementsAre("img-1", "img-2", "#a41c", "10.0.0.2", "10.0.0.3"));
  EXPECT_THAT(counts_on("img-2"), ElementsAre(1, 1));
}

TEST_F(DrawingTest, MachinesBehindOneSourceHaveLanesOfTheirOwn) {
  of_scenario("dupname-one-nat-two-claims", "lab");
  std::size_t behind = 0;
  for (const Drawing::Lane& lane : drawing_.lanes) behind += lane.label.find(" via ") != std::string::npos;
  EXPECT_EQ(behind, 2U);
}

TEST_F(DrawingTest, AStormOfAHundredThousandIsOneMarkWithItsNumber) {
  of_lines(
      line(1, at_second(0), "password_stored", R"("node":"x","source":"10.0.0.1","fingerprint":"a41c")") +
          line(2, at_second(100), "password_rejected",
               R"("node":"x","source":"10.0.0.2","fingerprint":"77e0","status":403)") +
          line(3, at_second(90'000), "password_rejected",
               R"("node":"x","source":"10.0.0.2","fingerprint":"77e0","status":403,"count":100000,"first_time":")" +
                   at_second(105) + "\""),
      "x");
  EXPECT_EQ(only(Shape::kRefused).count, 100'001);
  EXPECT_LT(only(Shape::kRefused).from, only(Shape::kRefused).to);
  for (const Drawing::Silence& silence : drawing_.silences) EXPECT_LT(silence.seconds, 1000);  // a storm is none
}

TEST_F(DrawingTest, RefusalsWithAPauseBetweenThemAreTwoMarks) {
  std::string lines;
  const char* refused = R"("node":"x","source":"10.0.0.2","fingerprint":"77e0","status":403)";
  for (const int second : {0, 5, 10, 50'000, 50'005})
    lines += line(static_cast<Seq>(second) + 1, at_second(second), "password_rejected", refused);
  of_lines(lines, "x");
  EXPECT_THAT(counts_on("#77e0"), ElementsAre(-3, -2));
}

// An agent that restarts every other day for years is a bar; what is new at the end is not lost in it.
TEST_F(DrawingTest, YearsOfRoutineAreFewMarks) {
  std::string lines;
  Seq seq = 0;
  for (int day = 0; day < 1000; day += 2) {
    lines += line(++seq, at_second(day * 86'400), "server_started", R"("server":"s")");
    lines += line(++seq, at_second(day * 86'400 + 9), "password_verified",
                  R"("node":"x","source":"10.0.0.1","fingerprint":"a41c")");
  }
  lines += line(++seq, at_second(1000 * 86'400), "password_rejected",
                R"("node":"x","source":"10.0.0.1","fingerprint":"77e0","status":403)");
  of_lines(lines, "x");
  EXPECT_LE(drawing_.marks.size(), 4U);
  EXPECT_EQ(drawing_.left_out, 0U);
  EXPECT_EQ(only(Shape::kAccepted).count, 500);
  EXPECT_EQ(only(Shape::kRefused).from, 1);
}

TEST_F(DrawingTest, HundredsOfPasswordsShareALaneAndTheMiddleIsLeftOut) {
  std::string lines = line(1, at_second(0), "password_stored", R"("node":"x","fingerprint":"a41c")");
  for (int i = 0; i < 500; ++i) {
    const std::string number = std::to_string(1000 + i);
    lines += line(static_cast<Seq>(i) + 2, at_second(60 + 5 * i), "password_rejected",
                  R"("node":"x","source":"10.0.0.)" + std::to_string(i % 200) + R"(","fingerprint":")" + number +
                      R"(","status":403,"bound":"a41c")");
  }
  of_lines(lines, "x");
  EXPECT_THAT(drawing_.marks, SizeIs(kMostMarks));
  EXPECT_EQ(drawing_.left_out, 501 - kMostMarks);
  ASSERT_TRUE(drawing_.cut);
  EXPECT_LE(drawing_.lanes.size(), 1 + 2 * kMostLanes);
  const auto labels = lane_names();
  EXPECT_THAT(labels, ::testing::Contains("#a41c"));  // the holder's, however long ago
  EXPECT_THAT(labels, ::testing::Contains("#1499"));  // and the latest
  EXPECT_EQ(std::count_if(drawing_.lanes.begin(), drawing_.lanes.end(),
                          [](const Drawing::Lane& lane) { return lane.stands_for > 1; }),
            2);
}

TEST_F(DrawingTest, WithoutTimesOrderIsAllThereIs) {
  of_scenario("unknown-without-times", "n-1");
  EXPECT_THAT(drawing_.moments, IsEmpty());
  EXPECT_THAT(drawing_.silences, IsEmpty());
  for (std::size_t i = 1; i < drawing_.marks.size(); ++i)
    EXPECT_LT(drawing_.marks[i - 1].from, drawing_.marks[i].from);
}

TEST_F(DrawingTest, NothingIsAnEmptyPicture) {
  of_lines("", "x");
  EXPECT_THAT(drawing_.marks, IsEmpty());
  EXPECT_THAT(drawing_.lanes, IsEmpty());
}

// Whatever happened: bounded, within the frame, every mark on lanes that exist, and none of its outcomes lost.
RC_GTEST_PROP(DrawingProperty, IsBoundedAndComplete, ()) {
  History history;
  history.node = "x";
  history.records = *test::related_history();
  const Retold retold(explain(history));
  const Drawing drawing = draw(retold);
  RC_ASSERT(drawing.marks.size() <= kMostMarks);
  RC_ASSERT(drawing.lanes.size() <= 2 + 3 * kMostLanes);
  const auto within = [](double at) { return at >= 0 && at <= 1; };
  std::int64_t refused = 0;
  for (const Drawing::Mark& mark : drawing.marks) {
    RC_ASSERT(within(mark.from) && within(mark.to) && mark.from <= mark.to);
    RC_ASSERT(!mark.lanes.empty() && std::is_sorted(mark.lanes.begin(), mark.lanes.end()));
    for (const std::size_t lane : mark.lanes) RC_ASSERT(lane < drawing.lanes.size());
    RC_ASSERT(mark.count >= 1);
    if (mark.shape == Shape::kRefused) refused += mark.count;
  }
  for (const auto* spans : {&drawing.bindings, &drawing.tunnels})
    for (const Drawing::Span& span : *spans)
      RC_ASSERT(span.lane < drawing.lanes.size() && within(span.from) && within(span.to) && span.from <= span.to);
  for (std::size_t i = 1; i < drawing.moments.size(); ++i)
    RC_ASSERT(drawing.moments[i - 1].at < drawing.moments[i].at);
  std::int64_t expected = 0;
  for (const Step* step : steps_of(retold, Scope::wide))
    if (as<PasswordRejected>(*step->record) != nullptr) expected += step->record->count;
  RC_ASSERT(drawing.left_out != 0 || refused == expected);
}

}  // namespace
}  // namespace ledger::replay
