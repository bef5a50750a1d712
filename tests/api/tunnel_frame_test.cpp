#include "api/tunnel_frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <limits>

namespace ledger::api {
namespace {

using testing::HasSubstr;

std::string bytes(std::initializer_list<int> values) {
  std::string out;
  for (const int value : values) out.push_back(static_cast<char>(value));
  return out;
}

// Byte strings that remotedialer itself puts on the wire.
struct Golden {
  std::string wire;
  TunnelFrame frame;
};

std::vector<Golden> goldens() {
  return {
      {bytes({0x02, 0x04, 0x04, 0xb0, 0xea, 0x01}) + "tcp/127.0.0.1:10250",
       {1, 2, TunnelFrame::kConnect, 15000, "tcp/127.0.0.1:10250"}},
      {bytes({0x02, 0x04, 0x02, 0x00}) + "hello", {1, 2, TunnelFrame::kData, 0, "hello"}},
      {bytes({0x0e, 0x04, 0x06, 0x45, 0x4f, 0x46}), {7, 2, TunnelFrame::kError, 0, "EOF"}},
      {bytes({0x02, 0x04, 0x08}) + "web-1/3", {1, 2, TunnelFrame::kAddClient, 0, "web-1/3"}},
      {bytes({0x02, 0x04, 0x0a}) + "web-1/3", {1, 2, TunnelFrame::kRemoveClient, 0, "web-1/3"}},
      {bytes({0x02, 0x04, 0x0c}), {1, 2, TunnelFrame::kPause, 0, ""}},
      {bytes({0x02, 0x04, 0x0e}), {1, 2, TunnelFrame::kResume, 0, ""}},
      {bytes({0x02, 0x00, 0x10, 2, 0, 0, 0, 0, 0, 0, 0}),
       {1, 0, TunnelFrame::kSyncConnections, 0, bytes({2, 0, 0, 0, 0, 0, 0, 0})}},
  };
}

TEST(TunnelFrame, EncodesTheBytesOfRemotedialer) {
  for (const Golden& golden : goldens()) EXPECT_EQ(golden.frame.encode(), golden.wire) << golden.frame.type;
}

TEST(TunnelFrame, DecodesTheBytesOfRemotedialer) {
  for (const Golden& golden : goldens()) {
    const auto frame = TunnelFrame::decode(golden.wire);
    ASSERT_TRUE(frame.has_value()) << frame.error().message;
    EXPECT_EQ(*frame, golden.frame);
  }
}

TEST(TunnelFrame, KeepsTypesItDoesNotKnowWithoutADeadline) {
  const auto frame = TunnelFrame::decode(bytes({0x02, 0x04, 0x12, 0x99, 0x01}));
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ(frame->type, 9);
  EXPECT_EQ(frame->payload, bytes({0x99, 0x01}));
}

TEST(TunnelFrame, SixtyFourBitsEndToEnd) {
  for (const std::int64_t value :
       {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max(), std::int64_t{-1}}) {
    const TunnelFrame frame{value, value, TunnelFrame::kData, value, "x"};
    const auto back = TunnelFrame::decode(frame.encode());
    ASSERT_TRUE(back.has_value()) << back.error().message;
    EXPECT_EQ(*back, frame);
  }
}

TEST(TunnelFrame, RefusesWhatGoNeverSends) {
  const auto message = [](const std::string& wire) {
    const auto frame = TunnelFrame::decode(wire);
    return frame ? "accepted" : frame.error().message;
  };
  EXPECT_THAT(message(""), HasSubstr("id is cut short"));
  EXPECT_THAT(message(bytes({0x02, 0x84})), HasSubstr("connection is cut short"));
  EXPECT_THAT(message(bytes({0x02, 0x04})), HasSubstr("type is cut short"));
  EXPECT_THAT(message(bytes({0x02, 0x04, 0x04})), HasSubstr("deadline is cut short"));
  EXPECT_THAT(message(bytes({0x82, 0x00, 0x04, 0x06})), HasSubstr("id is not in its shortest form"));
  EXPECT_THAT(message(std::string(9, '\x80') + "\x02"), HasSubstr("id does not fit in 64 bits"));
  EXPECT_THAT(message(std::string(10, '\x80') + bytes({0x01})), HasSubstr("id does not fit in 64 bits"));
}

TEST(TunnelFrame, EveryFrameSurvivesTheWire) {
  EXPECT_TRUE(
      rc::check([](std::int64_t id, std::int64_t connection, std::int64_t deadline, const std::string& payload) {
        TunnelFrame frame{id, connection, *rc::gen::inRange<std::int64_t>(-2, 12), 0, payload};
        if (frame.has_deadline()) frame.deadline_ms = deadline;
        const auto back = TunnelFrame::decode(frame.encode());
        RC_ASSERT(back.has_value());
        RC_ASSERT(*back == frame);
      }));
}

}  // namespace
}  // namespace ledger::api
