// The wrappings that journals put around a line.
#include "ledger/journal.h"

#include <gtest/gtest.h>

#include <sstream>

namespace ledger {
namespace {

TEST(Journal, TheTimeAndTheHostAreThoseOfTheLine) {
  LogLine line = *parse_log_line(R"({"MESSAGE":"x","_HOSTNAME":"m1","__REALTIME_TIMESTAMP":"1704189600000000"})");
  EXPECT_EQ(line.host, "m1");
  EXPECT_EQ(line.time, *Time::parse("2024-01-02T10:00:00Z"));
  line = *parse_log_line(R"({"MESSAGE":[72,105,27],"SYSLOG_IDENTIFIER":"k3s"})");
  EXPECT_EQ(line.message, "Hi");
  EXPECT_EQ(parse_log_line("Jan 02 10:00:00 master-1 k3s[812]: time=\"2024-01-02T11:00:00+01:00\" msg=x")->time,
            *Time::parse("2024-01-02T10:00:00Z"));
  EXPECT_EQ(parse_log_line("INFO[0012] hello")->time, std::nullopt);
  EXPECT_FALSE(parse_log_line("{\"MESSAGE\":"));
}

TEST(Journal, EveryFormOfJournalctlTellsTimeWhereItCan) {
  const auto time_of = [](const char* prefix) {
    const Result<LogLine> line = parse_log_line(std::string(prefix) + " web-1 k3s[812]: hello");
    EXPECT_TRUE(line);
    EXPECT_EQ(line->host, "web-1") << prefix;
    EXPECT_EQ(line->unit, "k3s") << prefix;
    EXPECT_EQ(line->message, "hello") << prefix;
    return line->time ? line->time->to_string() : "";
  };
  EXPECT_EQ(time_of("2024-01-02T10:00:00+0000"), "2024-01-02T10:00:00Z");
  EXPECT_EQ(time_of("2024-01-02T10:00:00+01:00"), "2024-01-02T09:00:00Z");
  EXPECT_EQ(time_of("2024-01-02T10:00:00-0530"), "2024-01-02T15:30:00Z");
  EXPECT_EQ(time_of("1704189600.250000"), "2024-01-02T10:00:00.250000Z");
  EXPECT_EQ(time_of("Jan 02 10:00:00"), "") << "no year, no zone";
  EXPECT_EQ(time_of("1704189600.25000x"), "");
  EXPECT_EQ(time_of("99999999999999999999.250000"), "");
}

TEST(Journal, TheErrorOfALogrusLineIsItsOwnField) {
  const LogLine line = *parse_log_line(
      R"(time="2024-01-02T10:00:00Z" level=error msg="Failed to connect to proxy" error="websocket: bad handshake")");
  EXPECT_EQ(line.message, "Failed to connect to proxy");
  EXPECT_EQ(line.error, "websocket: bad handshake");
  EXPECT_EQ(parse_log_line(R"(level=info msg="an error=x inside")")->error, "") << "it is in the message";
}

TEST(Journal, ALineThatIsTooLongIsCutAndCounted) {
  std::istringstream in("\xEF\xBB\xBF" "a\n" + std::string(2 * LineReader::kMaxBytes, 'x') + "\n\nlast");
  LineReader lines(in);
  std::string line;
  ASSERT_TRUE(lines.next(line));
  EXPECT_EQ(line, "a");
  ASSERT_TRUE(lines.next(line));
  EXPECT_EQ(line.size(), LineReader::kMaxBytes + 1);
  ASSERT_TRUE(lines.next(line));
  EXPECT_EQ(line, "");
  ASSERT_TRUE(lines.next(line));
  EXPECT_EQ(line, "last");
  EXPECT_FALSE(lines.next(line));
  EXPECT_EQ(lines.number(), 5U) << "the end counts as one";
}

}  // namespace
}  // namespace ledger
