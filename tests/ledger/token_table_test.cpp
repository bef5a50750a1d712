#include "ledger/token_table.h"

#include <gtest/gtest.h>

#include <map>

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

// ---- who comes in with what ------------------------------------------------------------------------------

const Time kNow = *Time::parse("2024-06-11T12:00:00Z");
const Fingerprint kSecret{"00112233445566778899aabbccddeeff"};

TokenCreated token_of(std::string token_class, std::optional<Time> expires = {}) {
  return {.token = "t1", .token_class = std::move(token_class), .expires = expires, .actor = "ops", .fingerprint = kSecret};
}

// What became of a token, and what its secret is worth at kNow to whom it is for.
struct Fate {
  const char* name;
  TokenResult result;
  bool superseded;
  void (*happen)(TokenTable& table, const std::string& token_class);
};

template <class Event>
void fold(TokenTable& table, Event event) {
  static Seq seq = 0;
  Record record = record_of(std::move(event));
  record.seq = ++seq;
  table.apply(record);
}

TokenRotated rotation(const std::string& token_class, std::optional<Time> grace_ends) {
  return {.token = "t2", .token_class = token_class, .expires = {}, .actor = "ops",
          .fingerprint = {"ff"}, .replaces = "t1", .grace_ends = grace_ends};
}

const Fate kFates[] = {
    {"valid", TokenResult::accepted, false, [](auto& table, auto& c) { fold(table, token_of(c)); }},
    {"not_expired_yet", TokenResult::accepted, false,
     [](auto& table, auto& c) { fold(table, token_of(c, kNow.plus_seconds(1))); }},
    {"expired_this_moment", TokenResult::expired, false, [](auto& table, auto& c) { fold(table, token_of(c, kNow)); }},
    {"expired_and_noted", TokenResult::expired, false,
     [](auto& table, auto& c) {
       fold(table, token_of(c, kNow.plus_seconds(-9)));
       fold(table, TokenExpired{.token = "t1", .token_class = c, .expires = {}, .actor = ""});
     }},
    {"revoked", TokenResult::revoked, false,
     [](auto& table, auto& c) {
       fold(table, token_of(c));
       fold(table, TokenRevoked{.token = "t1", .token_class = c, .expires = {}, .actor = ""});
     }},
    {"replaced_at_once", TokenResult::superseded, false,
     [](auto& table, auto& c) {
       fold(table, token_of(c));
       fold(table, rotation(c, std::nullopt));
     }},
    {"in_grace", TokenResult::accepted, true,
     [](auto& table, auto& c) {
       fold(table, token_of(c));
       fold(table, rotation(c, kNow.plus_seconds(1)));
     }},
    {"grace_is_over", TokenResult::superseded, false,
     [](auto& table, auto& c) {
       fold(table, token_of(c));
       fold(table, rotation(c, kNow));
     }},
    {"expired_in_grace", TokenResult::expired, false,
     [](auto& table, auto& c) {
       fold(table, token_of(c, kNow.plus_seconds(-1)));
       fold(table, rotation(c, kNow.plus_seconds(60)));
     }},
    {"revoked_in_grace", TokenResult::revoked, false,
     [](auto& table, auto& c) {
       fold(table, token_of(c));
       fold(table, rotation(c, kNow.plus_seconds(60)));
       fold(table, TokenRevoked{.token = "t1", .token_class = c, .expires = {}, .actor = ""});
     }},
    {"revoked_then_created_again", TokenResult::revoked, false,
     [](auto& table, auto& c) {
       fold(table, token_of(c));
       fold(table, TokenRevoked{.token = "t1", .token_class = c, .expires = {}, .actor = ""});
       fold(table, token_of(c));
     }},
};

struct Door {
  const char* token_class;
  TokenUser user;
  bool opens;               // for a token of this class that is good
  bool agents_have_theirs;  // the files hold a token for agents alone
};

const Door kDoors[] = {
    {"agent", TokenUser::node, true, false},      {"agent", TokenUser::server, false, false},
    {"agent", TokenUser::bootstrap, false, false}, {"agent", TokenUser::operators, false, false},
    {"agent", TokenUser::node, true, true},       {"server", TokenUser::node, true, false},
    {"server", TokenUser::node, false, true},     {"server", TokenUser::server, true, false},
    {"server", TokenUser::server, true, true},    {"server", TokenUser::bootstrap, false, false},
    {"server", TokenUser::operators, false, false}, {"bootstrap", TokenUser::node, false, false},
    {"bootstrap", TokenUser::server, false, false}, {"bootstrap", TokenUser::bootstrap, true, false},
    {"bootstrap", TokenUser::operators, false, false}, {"operator", TokenUser::node, false, false},
    {"operator", TokenUser::server, false, false}, {"operator", TokenUser::bootstrap, false, false},
    {"operator", TokenUser::operators, true, false},
};

TEST(TokenTable, EverySecretAtEveryDoor) {
  for (const Fate& fate : kFates)
    for (const Door& door : kDoors) {
      SCOPED_TRACE(std::string(fate.name) + " " + door.token_class + " at door " +
                   std::to_string(static_cast<int>(door.user)) + (door.agents_have_theirs ? ", agents have theirs" : ""));
      TokenTable table;
      fold(table, TokenCreated{.token = "f1", .token_class = "server", .expires = {}, .actor = "",
                               .fingerprint = {"f1"}, .origin = "file"});
      if (door.agents_have_theirs)
        fold(table, TokenCreated{.token = "f2", .token_class = "agent", .expires = {}, .actor = "",
                                 .fingerprint = {"f2"}, .origin = "file"});
      fate.happen(table, door.token_class);
      const TokenCheck check = table.check(door.user, "t1", kSecret, kNow);
      const bool good = fate.result == TokenResult::accepted;
      EXPECT_EQ(check.result, good && !door.opens ? TokenResult::wrong_secret : fate.result);
      EXPECT_EQ(check.token, "t1") << "recognised, whatever it is worth";
      EXPECT_EQ(check.superseded, good && door.opens && fate.superseded);
      // The id alone is public.
      EXPECT_EQ(table.check(door.user, "t1", {"00112233445566778899aabbccddeefe"}, kNow).result,
                TokenResult::wrong_secret);
      EXPECT_EQ(table.check(door.user, "t1", {}, kNow).result, TokenResult::wrong_secret);
    }
}

// What the writer asks before it writes token_accepted: the same rule.
TEST(TokenTable, WhatWasAcceptedIsStillAcceptedOrNot) {
  const std::map<TokenUser, Auth> said = {
      {TokenUser::node, {.method = "basic", .principal = "node", .token = "t1", .serial = {}}},
      {TokenUser::server, {.method = "basic", .principal = "server", .token = "t1", .serial = {}}},
      {TokenUser::bootstrap, {.method = "bearer", .principal = "system:bootstrap:t1", .token = "t1", .serial = {}}},
      {TokenUser::operators, {.method = "bearer", .principal = "", .token = "t1", .serial = {}}}};
  for (const Fate& fate : kFates)
    for (const Door& door : kDoors) {
      if (!door.opens || door.agents_have_theirs) continue;
      TokenTable table;
      fate.happen(table, door.token_class);
      EXPECT_EQ(table.still_accepts(said.at(door.user), kNow), fate.result == TokenResult::accepted)
          << fate.name << " " << door.token_class;
    }
  TokenTable none;
  EXPECT_TRUE(none.still_accepts({}, kNow)) << "a certificate";
}

// In logs of before fingerprints an id is all there is: it names a token and admits nobody.
TEST(TokenTable, AnIdWithoutAFingerprintAdmitsNobody) {
  TokenTable table;
  fold(table, TokenCreated{"t1", "agent", {}, ""});
  const TokenCheck check = table.check(TokenUser::node, "t1", kSecret, kNow);
  EXPECT_EQ(check.result, TokenResult::wrong_secret);
  EXPECT_EQ(check.token, "t1");
  fold(table, TokenCreated{.token = "t1", .token_class = "agent", .expires = {}, .actor = "", .fingerprint = kSecret,
                           .origin = "file"});
  EXPECT_EQ(table.check(TokenUser::node, "t1", kSecret, kNow).result, TokenResult::accepted);
}

TEST(TokenTable, StatusNames) {
  EXPECT_EQ(name_of(Status::valid), "valid");
  EXPECT_EQ(name_of(Status::superseded), "superseded");
  EXPECT_EQ(name_of(Status::revoked), "revoked");
  EXPECT_EQ(name_of(Status::expired), "expired");
}

}  // namespace
}  // namespace ledger
