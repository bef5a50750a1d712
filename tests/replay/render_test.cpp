#include "replay/render.h"

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "replay/causes.h"
#include "tests/replay/replay_support.h"
#include "tests/support/paths.h"

namespace ledger::replay {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

History scenario(const std::string& name, const std::string& node) {
  const Result<History> history =
      history_from_jsonl(ledger::test::source_dir() + "/tests/scenarios/" + name + ".jsonl", node);
  if (!history) fatal(history.error().message);
  return *history;
}

// The beginning of the text, exactly as a person sees it.
TEST(RenderText, ReadsLikeAStory) {
  const History history = scenario("rebuilt-reimaged", "rpi-07");
  const std::string text = to_text(explain(history));
  EXPECT_THAT(
      text,
      ::testing::StartsWith(
          R"(node rpi-07   seq 1..6   1 life                                           as of 2024-06-11 10:18:36Z
 life 1  1       2024-03-02 10:15:08Z  password stored, name bound         #a41c  from 10.0.4.17
         2                             serving-kubelet certificate 5f2a11         from 10.0.4.17
         3       2024-03-02 10:15:10Z  password verified                   #a41c  from 10.0.4.17
         4                             client-kubelet certificate 5f2a12          from 10.0.4.17
 ------  5       2024-06-11 10:15:16Z  REFUSED 403 password differs        #77e0  from 10.0.4.17
         6                             the same, 40 times in 3m15s, every 5.0 s
   state     refused, bound to #a41c since 1
   cause     REBUILT (medium): the machine rpi-07 was rebuilt and lost its password file: a new
             password from the same address as the holder
   because   #77e0 was never accepted before (5)
)")) << text;
  EXPECT_THAT(
      text,
      HasSubstr(
          "\n                 ledger node accept rpi-07 --fingerprint 77e0c1b5 --reason \"machine rebuilt\"\n"));
}

// Who decided, what we would have said, and what became of the upstream where it bears on a refusal.
TEST(RenderText, TellsWhoDecided) {
  const std::string forgot = to_text(explain(scenario("observed-upstream-forgot", "web-2")));
  EXPECT_THAT(forgot, HasSubstr("password verified                   #a41c")) << "what is as it should be needs no author";
  EXPECT_THAT(forgot, HasSubstr("REFUSED 403 password differs (upstream; we: admit_known)"));
  EXPECT_THAT(forgot, Not(HasSubstr("10.0.0.1:6443 lost"))) << "every request had its verdict";
  const std::string down = to_text(explain(scenario("observed-upstream-down", "web-2")));
  EXPECT_THAT(down, HasSubstr("upstream 10.0.0.1:6443 lost: connection refused"));
  EXPECT_THAT(down, HasSubstr("REFUSED upstream unavailable"));
  const std::string modes = to_text(explain(scenario("mode-there-and-back", "web-2")));
  EXPECT_THAT(modes, HasSubstr("mode enforce by root@srv-1"));
  EXPECT_THAT(modes, HasSubstr("mode observe by root@srv-1"));
  EXPECT_THAT(modes, HasSubstr("REFUSED 403 password differs (upstream)"));
  EXPECT_THAT(modes, HasSubstr("REFUSED 403 password differs        #77e0")) << "ours in between";
  EXPECT_THAT(to_text(explain(scenario("enforced-without-its-upstream", "web-2"))), Not(HasSubstr("(upstream")));
}

TEST(RenderText, FitsItsWidth) {
  for (const std::size_t width : {80, 100, 140}) {
    const History history = scenario("dupname-three-localhosts", "localhost");
    std::istringstream text(to_text(explain(history), {.width = width, .color = false}));
    for (std::string line; std::getline(text, line);)
      if (line.find("sudo") == std::string::npos && line.find("ledger node") == std::string::npos) {
        EXPECT_LE(line.size(), width) << line;
      }
  }
}

// Commands alone may be longer: they are to be pasted.
TEST(RenderText, EveryScenarioFitsAHundredColumns) {
  namespace fs = std::filesystem;
  std::size_t read = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(ledger::test::source_dir()) / "tests" / "scenarios")) {
    if (entry.path().extension() != ".jsonl") continue;
    std::ifstream expected(fs::path(entry.path()).replace_extension(".expect.json"));
    const std::string expectation((std::istreambuf_iterator<char>(expected)), {});
    const std::string node(boost::json::parse(expectation).at("node").as_string());
    const History history = scenario(entry.path().stem().string(), node);
    const Explanation explanation = explain(history);
    std::set<std::string> commands;
    for (const Remedy& remedy : explanation.remedies) commands.insert(std::string(17, ' ') + remedy.command);
    std::istringstream text(to_text(explanation));
    for (std::string line; std::getline(text, line);)
      if (commands.count(line) == 0) {
        EXPECT_LE(line.size(), 100U) << entry.path() << "\n" << line;
      }
    ++read;
  }
  EXPECT_GT(read, 90U);
}

TEST(RenderText, PasswordAndPlaceHaveColumns) {
  const std::string text = to_text(explain(scenario("dupname-one-nat-two-claims", "lab")));
  EXPECT_THAT(text, HasSubstr(R"(
         2       2024-03-02 10:15:09Z  password verified                   #a41c  from 203.0.113.7
                                                                                  claims 10.0.0.5
         3       2024-03-02 10:15:10Z  tunnel opened                              from 203.0.113.7
 ------  4       2024-03-02 11:15:15Z  REFUSED 403 password differs        #77e0  from 203.0.113.7
                                                                                  claims 10.0.0.6
         5..33                         the same, 29 times in 2m20s, every 5.0 s
)")) << text;
}

TEST(RenderText, PeriodsAreForPeople) {
  EXPECT_THAT(to_text(explain(scenario("rebuilt-minimal-fields", "web-1"))),
              HasSubstr("4..6                          the same, 3 times in 10 s, every 5.0 s\n"));
  EXPECT_THAT(to_text(explain(scenario("ephemeral-after-ab-upgrade", "kiosk"))),
              HasSubstr("3..6                          the same, 4 times in 10 days, every 3 days\n"));
  EXPECT_THAT(to_text(explain(scenario("dupname-interleaved", "ubuntu"))), HasSubstr("the same, 2 times in 5 s\n"));
}

TEST(RenderText, ReasonsAreWords) {
  EXPECT_THAT(to_text(explain(scenario("token-nameless-by-address", "web-8"))),
              HasSubstr("REFUSED 401 token wrong secret"));
  EXPECT_THAT(to_text(explain(scenario("stalecert-after-documented-remedy", "dev-worker-1"))),
              HasSubstr("name released by kubectl (node deleted)"));
  EXPECT_THAT(to_text(explain(scenario("adminedit-operator-set", "db"))),
              HasSubstr("binding changed by ops (operator set)  #ffff"));
}

TEST(RenderText, TheStateSaysWhatTheLastRefusalWasMeasuredAgainst) {
  EXPECT_THAT(
      to_text(explain(scenario("restored-lost-write", "web-2"))),
      HasSubstr("state     refused, bound to #77e0 since 4; the last refusal was measured against #a41c (10)\n"));
  EXPECT_THAT(to_text(explain(scenario("rebuilt-reimaged", "rpi-07"))), Not(HasSubstr("measured")));
}

TEST(RenderText, ColoursOnlyWhenAsked) {
  const History history = scenario("rebuilt-reimaged", "rpi-07");
  const Explanation explanation = explain(history);
  EXPECT_THAT(to_text(explanation), Not(HasSubstr("\x1b")));
  EXPECT_THAT(to_text(explanation, {.width = 100, .color = true}), HasSubstr("\x1b[31mREFUSED"));
}

TEST(RenderText, FingerprintsAreShortenedToWhatTellsThemApart) {
  const std::string lines =
      R"({"seq":1,"time":"2024-01-01T00:00:00Z","kind":"password_stored","node":"x","fingerprint":"abcdef11"})"
      "\n"
      R"({"seq":2,"time":"2024-01-02T00:00:00Z","kind":"password_rejected","node":"x","fingerprint":"abcdee11"})"
      "\n";
  const History history = test::history_of(lines, "x");
  const std::string text = to_text(explain(history));
  EXPECT_THAT(text, HasSubstr("#abcdef "));
  EXPECT_THAT(text, HasSubstr("#abcdee"));
  EXPECT_THAT(text, Not(HasSubstr("#abcdee1")));
}

TEST(RenderText, ALongTimelineIsCutInTheMiddle) {
  std::string lines;
  for (int i = 1; i <= 400; ++i)
    lines += R"({"seq":)" + std::to_string(i) + R"(,"kind":")" + (i % 2 == 0 ? "tunnel_opened" : "tunnel_closed") +
             R"(","node":"x"})"
             "\n";
  const History history = test::history_of(lines, "x");
  const std::string text = to_text(explain(history));
  EXPECT_THAT(text, HasSubstr("340 rows left out"));
  EXPECT_LT(std::count(text.begin(), text.end(), '\n'), 120);
}

TEST(RenderJson, HasTheKeysOfTheContractAndTheRecordsAsTheyAre) {
  const History history = scenario("rebuilt-reimaged", "rpi-07");
  const boost::json::object json = to_json(explain(history));
  EXPECT_EQ(json.at("as_of").at("seq"), 6);
  EXPECT_EQ(json.at("bound").at("fingerprint"), "a41c09d2");
  EXPECT_EQ(json.at("bound").at("since_seq"), 1);
  EXPECT_EQ(json.at("cause"), "REBUILT");
  EXPECT_EQ(json.at("remedies").at(0).at("rank"), "S1");
  const boost::json::object& last = json.at("timeline").as_array().back().as_object();
  EXPECT_EQ(last.at("state_before"), "refused");
  EXPECT_EQ(last.at("state_after"), "refused");
  EXPECT_EQ(last.at("count"), 40);
}

TEST(RenderJson, WhatIsNotKnownIsNull) {
  const History history = scenario("unknown-never-seen", "nobody");
  const boost::json::object json = to_json(explain(history));
  EXPECT_TRUE(json.at("bound").is_null());
  EXPECT_TRUE(json.at("remedies").at(0).at("rank").is_null());
}

// Whatever a stranger wrote, the text holds no control characters.
RC_GTEST_PROP(RenderProperty, TextIsSafeForATerminal, ()) {
  std::vector<Record> records = *test::related_history();
  for (Record& record : records) {
    record.source += *rc::gen::arbitrary<std::string>();
    record.note = *rc::gen::arbitrary<std::string>();
    record.server = *rc::gen::arbitrary<std::string>();
    record.claimed.push_back(*rc::gen::arbitrary<std::string>());
    std::visit(
        [](auto& event) {
          each_field(event, [](const char*, auto& value) {
            if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string>)
              value += *rc::gen::arbitrary<std::string>();
            if constexpr (std::is_same_v<std::decay_t<decltype(value)>, Fingerprint>)
              value.text += *rc::gen::arbitrary<std::string>();
          });
        },
        record.event);
  }
  History history;
  history.node = "x";
  history.records = records;
  const Explanation explanation = explain(history);
  const std::string text = to_text(explanation);
  for (const char c : text) RC_ASSERT(c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7F));
  for (const Remedy& remedy : explanation.remedies)
    for (const char c : remedy.command) RC_ASSERT(static_cast<unsigned char>(c) >= 0x20);
}

TEST(DurationText, IsForPeople) {
  EXPECT_EQ(duration_text(5), "5 s");
  EXPECT_EQ(duration_text(200), "3m20s");
  EXPECT_EQ(duration_text(1500), "25m");
  EXPECT_EQ(duration_text(3600 * 3 + 120), "3h02m");
  EXPECT_EQ(duration_text(101 * 86400.0), "101 days");
}

}  // namespace
}  // namespace ledger::replay
