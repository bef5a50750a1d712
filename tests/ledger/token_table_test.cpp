#include "ledger/token_table.h"

#include <gtest/gtest.h>

#include "tests/support/ledger_fixture.h"

namespace ledger {
namespace {

using Status = TokenState::Status;
using test::record_of;

class TokenTableTest : public ::testing::Test {
 protected:
  void apply(Event event) {
    Record record = record_of(std::move(event));
    record.seq = ++seq_;
    table_.apply(record);
  }
  Status status(std::string_view id) const {
    const TokenState* found = table_.find(class_of(id), id);
    if (found == nullptr) {
      ADD_FAILURE() << id << " is not in the table";
      return Status::expired;
    }
    return found->status;
  }
  // In these tests ids of servers' tokens begin with an s.
  static std::string_view class_of(std::string_view id) { return id.starts_with('s') ? "server" : "agent"; }
  Seq seq_ = 0;
  TokenTable table_;
};

TEST_F(TokenTableTest, AnUnseenTokenIsNotThere) {
  EXPECT_EQ(table_.find(class_of("a1"), "a1"), nullptr);
  EXPECT_EQ(table_.find(class_of(""), ""), nullptr);
}

TEST_F(TokenTableTest, CreatedIsValid) {
  apply(TokenCreated{"a1", "agent", Time{5}, "ops"});
  const TokenState* token = table_.find(class_of("a1"), "a1");
  ASSERT_NE(token, nullptr);
  EXPECT_EQ(token->id, "a1");
  EXPECT_EQ(token->token_class, "agent");
  EXPECT_EQ(token->status, Status::valid);
  EXPECT_EQ(token->expires, Time{5});
  EXPECT_EQ(token->created.seq, 1U);
  EXPECT_EQ(token->ended.seq, 0U);
}

TEST_F(TokenTableTest, ARotationSupersedesTheValidOnesOfItsClass) {
  apply(TokenCreated{"a1", "agent", {}, ""});
  apply(TokenCreated{"s1", "server", {}, ""});
  apply(TokenCreated{"a0", "agent", {}, ""});
  apply(TokenRevoked{"a0", "agent", {}, ""});
  apply(TokenRotated{"a2", "agent", {}, ""});
  EXPECT_EQ(status("a1"), Status::superseded);
  EXPECT_EQ(table_.find(class_of("a1"), "a1")->ended.seq, 5U);
  EXPECT_EQ(status("a2"), Status::valid);
  EXPECT_EQ(status("s1"), Status::valid);
  EXPECT_EQ(status("a0"), Status::revoked) << "what ended before the rotation keeps its end";
  EXPECT_EQ(table_.find(class_of("a0"), "a0")->ended.seq, 4U);
}

TEST_F(TokenTableTest, RotatingBackMakesAnOldTokenValidAgain) {
  apply(TokenCreated{"a1", "agent", {}, ""});
  apply(TokenRotated{"a2", "agent", {}, ""});
  apply(TokenRotated{"a1", "agent", {}, ""});
  EXPECT_EQ(status("a1"), Status::valid);
  EXPECT_EQ(table_.find(class_of("a1"), "a1")->ended.seq, 0U);
  EXPECT_EQ(status("a2"), Status::superseded);
}

TEST_F(TokenTableTest, RotatingToItselfStaysValid) {
  apply(TokenCreated{"a1", "agent", {}, ""});
  apply(TokenRotated{"a1", "agent", {}, ""});
  EXPECT_EQ(status("a1"), Status::valid);
}

TEST_F(TokenTableTest, RevokedAndExpired) {
  apply(TokenCreated{"a1", "agent", {}, ""});
  apply(TokenCreated{"a2", "agent", {}, ""});
  apply(TokenRevoked{"a1", "agent", {}, "ops"});
  apply(TokenExpired{"a2", "agent", {}, ""});
  EXPECT_EQ(status("a1"), Status::revoked);
  EXPECT_EQ(status("a2"), Status::expired);
  EXPECT_EQ(table_.find(class_of("a2"), "a2")->ended.seq, 4U);
}

TEST_F(TokenTableTest, AnEndWithoutABeginningIsPassedOver) {
  apply(TokenRevoked{"a1", "agent", {}, ""});
  apply(TokenExpired{"a1", "agent", {}, ""});
  EXPECT_EQ(table_.find(class_of("a1"), "a1"), nullptr);
}

TEST_F(TokenTableTest, OtherRecordsChangeNothing) {
  apply(TokenCreated{"a1", "agent", {}, ""});
  apply(TokenAccepted{});
  apply(TokenRejected{.status = 401, .reason = "revoked", .token = "a1"});
  apply(ServerStarted{});
  EXPECT_EQ(status("a1"), Status::valid);
  EXPECT_EQ(table_.all().size(), 1U);
}

TEST(TokenTable, StatusNames) {
  EXPECT_EQ(name_of(Status::valid), "valid");
  EXPECT_EQ(name_of(Status::superseded), "superseded");
  EXPECT_EQ(name_of(Status::revoked), "revoked");
  EXPECT_EQ(name_of(Status::expired), "expired");
}

}  // namespace
}  // namespace ledger
