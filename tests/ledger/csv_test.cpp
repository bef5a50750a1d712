#include "ledger/csv.h"

#include <gtest/gtest.h>

namespace ledger {
namespace {

// "1:a|b" per record: line and columns; an error as "!line why".
std::vector<std::string> records_of(std::string_view text, std::size_t max_record = SIZE_MAX) {
  std::vector<std::string> out;
  CsvReader reader(text, max_record);
  for (;;) {
    CsvRecord record;
    const Result<bool> more = reader.read(&record);
    if (more && !*more) return out;
    if (!more) {
      out.push_back("!" + std::to_string(record.line) + " " + more.error().message);
      reader.skip_line();
      continue;
    }
    std::string line = std::to_string(record.line) + ":";
    for (std::size_t i = 0; i < record.columns.size(); ++i)
      line += (i == 0 ? "" : "|") + std::string(record.columns[i].reveal());
    out.push_back(line);
  }
}

using Records = std::vector<std::string>;

// What Go's encoding/csv makes of the same bytes.
TEST(Csv, ReadsAsGoDoes) {
  EXPECT_EQ(records_of(""), Records());
  EXPECT_EQ(records_of("a,b,c,\n"), (Records{"1:a|b|c|"}));
  EXPECT_EQ(records_of("a,b"), (Records{"1:a|b"}));
  EXPECT_EQ(records_of("\n\r\na\r\n\nb\n"), (Records{"3:a", "5:b"}));
  EXPECT_EQ(records_of("\"a\"\"b\",\"c,d\"\n"), (Records{"1:a\"b|c,d"}));
  EXPECT_EQ(records_of("\"two\r\nlines\",x\ny\n"), (Records{"1:two\nlines|x", "3:y"}));
  EXPECT_EQ(records_of("a,b\r"), (Records{"1:a|b"}));
  EXPECT_EQ(records_of("a\rb\n"), (Records{"1:a\rb"}));
  EXPECT_EQ(records_of(" a, b\n"), (Records{"1: a| b"}));
}

TEST(Csv, SaysWhatIsWrongAndGoesOnWithTheNextLine) {
  EXPECT_EQ(records_of("a\"b,c\nd\n"),
            (Records{"!1 has a quote inside a field that does not start with one", "2:d"}));
  EXPECT_EQ(records_of("x\n\"a\"b\nd\n"),
            (Records{"1:x", "!2 has something between a closing quote and the next comma", "3:d"}));
  EXPECT_EQ(records_of("\"a\nb\n"), (Records{"!1 has a quote that is never closed", "2:b"}));
  const Records bounded = records_of(std::string(50, 'a') + "\nb\n", 20);
  ASSERT_EQ(bounded.size(), 2U);
  EXPECT_TRUE(bounded[0].starts_with("!1 is longer than 20 bytes")) << bounded[0];
  EXPECT_EQ(bounded[1], "2:b");
}

TEST(Csv, TheNextPartGoesOnWhereTheOneBeforeStood) {
  CsvReader first("a\nb\n");
  CsvRecord record;
  ASSERT_TRUE(*first.read(&record));
  CsvReader second(std::string_view("a\nb\n").substr(first.consumed()), SIZE_MAX, first.line());
  ASSERT_TRUE(*second.read(&record));
  EXPECT_EQ(record.line, 2U);
  EXPECT_EQ(record.columns[0].reveal(), "b");
}

}  // namespace
}  // namespace ledger
