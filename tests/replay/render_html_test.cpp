// The page as a strict parser sees it. How it looks was judged by eye, in a browser.
#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <set>

#include "replay/html.h"
#include "tests/replay/replay_support.h"
#include "tests/support/paths.h"
#include "tests/support/run_command.h"
#include "tests/support/xml.h"

namespace ledger::replay {
namespace {

namespace fs = std::filesystem;
using ::ledger::test::parse_xml;
using ::ledger::test::XmlDocument;
using ::ledger::test::XmlElement;
using ::testing::HasSubstr;
using ::testing::Not;

fs::path scenario_file(const std::string& name) {
  return fs::path(ledger::test::source_dir()) / "tests" / "scenarios" / (name + ".jsonl");
}
std::string page_of(const std::string& name, const std::string& node) {
  const Result<History> history = history_from_jsonl(scenario_file(name), node);
  if (!history) fatal(history.error().message);
  return to_html(explain(*history));
}

// What is wrong with the page as something that must load nothing, run nothing and lead nowhere; empty: nothing.
std::string fault_of(const XmlDocument& page) {
  static const std::set<std::string> kElements = {
      "html",   "head",       "meta", "title", "style", "body",  "header", "main",  "footer", "section",
      "figure", "figcaption", "div",  "p",     "span",  "bdi",   "strong", "h1",    "h2",     "ul",
      "ol",     "li",         "a",    "code",  "pre",   "table", "thead",  "tbody", "tr",     "th",
      "td",     "svg",        "g",    "defs",  "desc",  "path",  "line",   "rect",  "text",   "use"};
  if (!page.error.empty()) return page.error;
  std::set<std::string> ids;
  for (const XmlElement& element : page.elements)
    if (const auto id = element.attributes.find("id"); id != element.attributes.end())
      if (!ids.insert(id->second).second) return "the id " + id->second + " is there twice";
  for (const XmlElement& element : page.elements) {
    if (kElements.count(element.name) == 0) return "an element " + element.name;
    for (const auto& [name, value] : element.attributes) {
      if (name == "src" || name.starts_with("on") || name.find(':') != std::string::npos)
        return "attribute " + name;
      if (name == "href" && (!value.starts_with('#') || ids.count(value.substr(1)) == 0))
        return "it leads to " + value;
      if (name == "style" && value.find_first_not_of("-:abcdefghijklmnopqrstuvwxyz0123456789") != std::string::npos)
        return "style " + value;
    }
  }
  for (const XmlElement* style : page.named("style"))
    for (const char* word : {"url(", "@import", "http", "expression"})
      if (style->text.find(word) != std::string::npos) return std::string("style with ") + word;
  return "";
}

TEST(RenderHtml, TellsCauseEvidenceDoubtRemedyAndRecords) {
  const XmlDocument page = parse_xml(page_of("rebuilt-reimaged", "rpi-07"));
  ASSERT_EQ(fault_of(page), "");
  EXPECT_THAT(page.text, HasSubstr("REBUILT"));
  EXPECT_THAT(page.text, HasSubstr("medium confidence"));
  EXPECT_THAT(page.text, HasSubstr("The machine rpi-07 was rebuilt and lost its password file"));
  EXPECT_THAT(page.text, HasSubstr("State: refused, bound to #a41c since 1."));
  EXPECT_THAT(page.text, HasSubstr("#77e0 was never accepted before"));
  EXPECT_THAT(page.text, HasSubstr("next, EPHEMERAL: would need"));
  EXPECT_THAT(page.text, HasSubstr("cannot be told apart from a takeover"));
  EXPECT_THAT(page.text,
              HasSubstr("ledger node accept rpi-07 --fingerprint 77e0c1b5 --reason \"machine rebuilt\""));
  EXPECT_THAT(page.text, HasSubstr("the same, 40 times in 3m15s, every 5.0 s (record 6)"));
  EXPECT_THAT(page.text, HasSubstr("×41"));
  EXPECT_THAT(page.text, HasSubstr("101 days"));
  for (const int seq : {1, 2, 3, 4, 5, 6}) EXPECT_NE(page.with_id("r" + std::to_string(seq)), nullptr) << seq;
}

TEST(RenderHtml, ForbidsTheBrowserToLoadAnything) {
  const XmlDocument page = parse_xml(page_of("rebuilt-reimaged", "rpi-07"));
  bool found = false;
  for (const XmlElement* meta : page.named("meta"))
    if (meta->attributes.count("http-equiv") != 0) {
      EXPECT_EQ(meta->attributes.at("http-equiv"), "Content-Security-Policy");
      EXPECT_EQ(meta->attributes.at("content"), "default-src 'none'; style-src 'unsafe-inline'");
      found = true;
    }
  EXPECT_TRUE(found);
}

TEST(RenderHtml, TheDrawingHasWordsForThoseWhoCannotSeeIt) {
  const XmlDocument page = parse_xml(page_of("dupname-interleaved", "ubuntu"));
  const auto drawings = page.named("svg");
  ASSERT_FALSE(drawings.empty());
  EXPECT_EQ(drawings[0]->attributes.at("role"), "img");
  EXPECT_EQ(drawings[0]->attributes.at("aria-labelledby"), "t d");
  ASSERT_NE(page.with_id("t"), nullptr);
  ASSERT_NE(page.with_id("d"), nullptr);
  EXPECT_THAT(page.with_id("d")->text, HasSubstr("DUPNAME (high)"));
  EXPECT_THAT(page.with_id("d")->text, HasSubstr("password #77e0; from 10.0.0.5;"));
}

// Every scenario is a page that a strict parser reads, with every citation leading somewhere.
TEST(RenderHtml, EveryScenarioIsAPage) {
  std::size_t pages = 0;
  for (const auto& entry : fs::directory_iterator(scenario_file("x").parent_path())) {
    if (entry.path().extension() != ".jsonl") continue;
    fs::path expected = entry.path();
    expected.replace_extension(".expect.json");
    const auto expectation = boost::json::parse(ledger::test::file_bytes(expected));
    const std::string node(expectation.at("node").as_string());
    const Result<History> history = history_from_jsonl(entry.path(), node);
    ASSERT_TRUE(history) << entry.path();
    const Explanation explanation = explain(*history);
    const XmlDocument page = parse_xml(to_html(explanation));
    EXPECT_EQ(fault_of(page), "") << entry.path();
    for (const Fact& fact : explanation.evidence)
      EXPECT_NE(page.with_id("r" + std::to_string(fact.seq)), nullptr) << entry.path() << " " << fact.seq;
    ++pages;
  }
  EXPECT_GT(pages, 90U);
}

TEST(RenderHtml, AWindowIsDrawnAloneAndSaysWhatWasBefore) {
  const Result<History> history = history_from_jsonl(scenario_file("rebuilt-reimaged"), "rpi-07");
  ASSERT_TRUE(history);
  Explanation explanation = explain(*history);
  tell_since({.seq = 5, .time = {}}, explanation);
  const XmlDocument page = parse_xml(to_html(explanation));
  EXPECT_EQ(fault_of(page), "");
  EXPECT_THAT(page.text, HasSubstr("4 earlier records not told; registered then."));
  EXPECT_THAT(page.text, HasSubstr("(record 3)"));  // cited, but nothing to lead to
  EXPECT_EQ(page.with_id("r3"), nullptr);
  EXPECT_NE(page.with_id("r5"), nullptr);
}

TEST(RenderHtml, ALongHistoryIsBoundedAndSaysWhatItLeavesOut) {
  std::string lines;
  for (int i = 1; i <= 20'000; ++i) {
    const bool refused = i % 2 == 0;
    lines += R"({"seq":)" + std::to_string(i) + R"(,"time":")" +
             Time{1'700'000'000'000'000}.plus_seconds(5 * i).to_string() + R"(","kind":")" +
             (refused ? "password_rejected" : "password_verified") + R"(","node":"x","source":"10.0.)" +
             std::to_string(refused ? i / 250 % 250 : 1) + "." + std::to_string(refused ? i % 250 : 1) +
             R"(","fingerprint":")" + (refused ? "f" + std::to_string(i) : "a41c") + "\"}\n";
  }
  const std::string html = to_html(explain(test::history_of(lines, "x")));
  EXPECT_LT(html.size(), 250'000U);
  const XmlDocument page = parse_xml(html);
  EXPECT_EQ(fault_of(page), "");
  EXPECT_THAT(page.text, HasSubstr("more rows, left out here"));
  EXPECT_THAT(page.text, HasSubstr("marks in the middle are left out"));
  EXPECT_THAT(page.text, HasSubstr(" more marks"));
}

const std::string kEvil = "x\"'><script>alert(1)</script>\xE2\x80\xAEgnp\x1b[31m" + std::string(1, '\0') +
                          "]]>--&amp;<!--\xEF\xBF\xBF\xC0\x80 javascript:alert(1) url(http://evil)";

TEST(RenderHtml, WhatStrangersWroteIsInert) {
  std::vector<Record> records(5);
  for (std::size_t i = 0; i < records.size(); ++i) {
    Record& record = records[i];
    record.seq = i + 1;
    record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(i) * 86'400);
    record.node = record.source = record.note = record.server = kEvil;
    record.claimed = {kEvil, "<img src=http://evil onerror=alert(1)>"};
    record.generation = record.endpoint = kEvil;
  }
  records[0].event = PasswordStored{Fingerprint{"1" + kEvil}};
  records[1].event = PasswordRejected{.fingerprint = {"2" + kEvil}, .bound = {"1" + kEvil}, .status = 403};
  records[2].event = BindingReleased{.actor = kEvil, .by = kEvil, .fingerprint = {"1" + kEvil}};
  records[3].event = BindingHeld{kEvil};
  records[4].event = TokenRejected{.status = 401, .reason = kEvil, .token = kEvil};
  History history;
  history.node = kEvil;
  history.records = records;
  history.warnings = {kEvil};
  const std::string html = to_html(explain(history));
  const XmlDocument page = parse_xml(html);
  EXPECT_EQ(fault_of(page), "");
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("<img")));
  EXPECT_THAT(html, Not(HasSubstr("\xE2\x80\xAE")));
  EXPECT_THAT(page.text, HasSubstr("<script>alert(1)</script>?gnp?[31m?"));  // as letters
  EXPECT_TRUE(page.named("script").empty());
}

RC_GTEST_PROP(RenderHtmlProperty, AnyHistoryIsASafePage, ()) {
  History history;
  history.node = "x" + *rc::gen::arbitrary<std::string>();
  history.records = *test::related_history();
  for (Record& record : history.records) {
    if (record.node == "x") record.node = history.node;
    record.source += *rc::gen::arbitrary<std::string>();
    record.note = *rc::gen::arbitrary<std::string>();
    record.claimed.push_back(*rc::gen::arbitrary<std::string>());
    std::visit(
        [](auto& event) {
          each_field(event, [](const char*, auto& value) {
            if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string>)
              value += *rc::gen::arbitrary<std::string>();
            if constexpr (std::is_same_v<std::decay_t<decltype(value)>, Fingerprint>)
              value.text +=
                  *rc::gen::elementOf(std::vector<std::string>{"", "", "<", "\"'&", "\xEF\xBF\xBE", "\n"});
          });
        },
        record.event);
  }
  const std::string html = to_html(explain(history));
  RC_ASSERT(fault_of(parse_xml(html)) == "");
  RC_ASSERT(html == to_html(explain(history)));
}

// The page of one history, byte for byte: a change here is a change of what people see, and must be looked at in a
// browser. To accept it, delete the file and run this test with LEDGER_WRITE_GOLDEN=1.
TEST(RenderHtml, IsTheSameForEver) {
  const fs::path golden =
      fs::path(ledger::test::source_dir()) / "tests" / "replay" / "pages" / "rebuilt-reimaged.html";
  const std::string html = page_of("rebuilt-reimaged", "rpi-07");
  if (!fs::exists(golden) && std::getenv("LEDGER_WRITE_GOLDEN") != nullptr) {
    fs::create_directories(golden.parent_path());
    ledger::test::put_file(golden, html);
  }
  EXPECT_EQ(html, ledger::test::file_bytes(golden));
}

TEST(Html, EscapesEveryByteThatMeansSomething) {
  EXPECT_EQ(escaped("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  EXPECT_EQ(escaped("\xEF\xBF\xBE|\xEF\xBF\xBF|\x1b"), "?|?|?");
  EXPECT_EQ(isolated("<"), "<bdi dir=\"ltr\">&lt;</bdi>");
}

TEST(Html, NumbersHaveCommas) {
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(1000), "1,000");
  EXPECT_EQ(with_commas(100'000), "100,000");
  EXPECT_EQ(with_commas(1'234'567), "1,234,567");
  EXPECT_EQ(with_commas(-1000), "-1,000");
}

}  // namespace
}  // namespace ledger::replay
