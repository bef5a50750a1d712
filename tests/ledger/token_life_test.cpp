// Tokens over restarts, crashes and older logs. What holds while many join: tests/api/token_race_test.cpp.
#include "ledger/token_life.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/ledger_fixture.h"
#include "tests/support/overwrite_record.h"
#include "tests/support/run_command.h"

namespace ledger {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using test::file_bytes;

class TokenLife : public test::LedgerTest {
 protected:
  TokenLife() {
    options_.log.env = nullptr;  // the secrets are on a real disk, too
    options_.clock = &Time::now;
  }

  // As the server starts, as far as tokens are concerned.
  std::vector<std::string> start(const char* token = "", const char* agent_token = "") {
    ledger_.reset();
    open();
    EXPECT_TRUE(settle_rotations(*ledger_, data_dir()));
    Result<Credentials> opened = Credentials::open({.data_dir = data_dir(),
                                                    .token = Secret(token),
                                                    .agent_token = Secret(agent_token),
                                                    .log_exists = ledger_->log().head() > 0});
    EXPECT_TRUE(opened) << opened.error().message;
    credentials_.emplace(std::move(*opened));
    EXPECT_TRUE(credentials_->write_token_files(std::string(64, 'c')));
    const auto warnings = note_file_tokens(*ledger_, *credentials_, "ledger serve");
    EXPECT_TRUE(warnings) << warnings.error().message;
    return warnings ? *warnings : std::vector<std::string>();
  }
  fs::path data_dir() const { return dir_.path(); }

  TokenCheck check(TokenUser user, const Secret& secret) const {
    const Credentials::Known known = credentials_->known_by(secret);
    return ledger_->check_token(user, known.id, known.fingerprint, Time::now());
  }
  // What `ledger token show` would print after the colon.
  Secret shown() const {
    const std::string text(trim(file_bytes(data_dir() / "token")));
    return Secret(text.substr(text.rfind(':') + 1));
  }
  std::vector<std::string> staged() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(data_dir() / "cred"))
      if (entry.path().string().find(".next-") != std::string::npos) names.push_back(entry.path().string());
    return names;
  }

  std::optional<Credentials> credentials_;
  const TokenAction ops_{.actor = "ops@srv", .reason = "a test", .request_id = {}, .source = {}};
};

TEST_F(TokenLife, ACrashBeforeTheRecordUndoesTheRotation) {
  start();
  const Secret before = shown();
  const std::string passwd = file_bytes(data_dir() / "cred" / "passwd");
  const Secret wanted = random_secret(16);
  ASSERT_TRUE(stage_file_token(data_dir(), "agent", wanted, credentials_->known_by(wanted).id));
  ASSERT_EQ(staged().size(), 1U);
  start();
  EXPECT_THAT(staged(), IsEmpty());
  EXPECT_EQ(file_bytes(data_dir() / "cred" / "passwd"), passwd);
  EXPECT_EQ(check(TokenUser::node, before).result, TokenResult::accepted);
  EXPECT_EQ(check(TokenUser::node, wanted).result, TokenResult::wrong_secret);
}

TEST_F(TokenLife, ACrashAfterTheRecordFinishesTheRotation) {
  for (const std::string which : {"agent", "operator"}) {
    SCOPED_TRACE(which);
    const fs::path file = data_dir() / "cred" / (which == "operator" ? "operator-token" : "passwd");
    const TokenUser user = which == "operator" ? TokenUser::operators : TokenUser::node;
    start();
    const std::string before = file_bytes(file);
    const auto made = rotate_token(*ledger_, *credentials_, {.which = which, .grace_s = 0, .lifetime = {}, .secret = {}}, ops_);
    ASSERT_TRUE(made) << made.error().message;
    // As a crash between the second step and the third leaves it.
    fs::rename(file, file.string() + ".next-" + made->id);
    ASSERT_TRUE(write_file(file, before, 0600));
    EXPECT_THAT(start(), IsEmpty());
    EXPECT_THAT(staged(), IsEmpty());
    EXPECT_EQ(check(user, made->secret).result, TokenResult::accepted);
    if (which == "agent") {
      EXPECT_EQ(shown().reveal(), made->secret.reveal());
    }
    EXPECT_THAT(file_bytes(file), HasSubstr(std::string(made->secret.reveal())));
  }
}

TEST_F(TokenLife, RotatingSaysWhatItReplacedAndForHowLong) {
  start();
  const Secret before = shown();
  const auto made = rotate_token(*ledger_, *credentials_, {.which = "agent", .grace_s = 60, .lifetime = {}, .secret = {}}, ops_);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_TRUE(made->for_both);
  const TokenCheck old = check(TokenUser::node, before);
  EXPECT_EQ(old.result, TokenResult::accepted);
  EXPECT_TRUE(old.superseded);
  EXPECT_EQ(old.token, made->replaces);
  ASSERT_TRUE(made->grace_ends);
  const Credentials::Known known = credentials_->known_by(before);
  EXPECT_EQ(ledger_->check_token(TokenUser::node, known.id, known.fingerprint, *made->grace_ends).result,
            TokenResult::superseded);
}

// Version 1 logs knew tokens by their ids. The files prove the secret at the next start.
TEST_F(TokenLife, AnOlderLogLearnsTheFingerprintsAtItsStart) {
  start();
  const std::string id = credentials_->server().id;
  close();
  fs::remove_all(options_.log.dir);
  open();
  append_ok(TokenCreated{id, "server", {}, "ledger serve"});
  const Seq head = ledger_->log().head();
  EXPECT_EQ(check(TokenUser::node, shown()).result, TokenResult::wrong_secret) << "an id proves nothing";
  start();
  EXPECT_EQ(check(TokenUser::node, shown()).result, TokenResult::accepted);
  const std::optional<TokenState> state = ledger_->find_token("server", id);
  ASSERT_TRUE(state);
  EXPECT_EQ(state->created.seq, 1U) << "as old as it was";
  const Seq after = ledger_->log().head();
  EXPECT_GT(after, head);
  start();
  EXPECT_EQ(ledger_->log().head(), after) << "once";
}

TEST_F(TokenLife, ARevokedTokenComesBackByNoFile) {
  start();
  const Secret old = shown();
  ASSERT_TRUE(rotate_token(*ledger_, *credentials_, {.which = "agent", .grace_s = 60, .lifetime = {}, .secret = {}}, ops_));
  const auto revoked = revoke_token(*ledger_, credentials_->known_by(old).id, false, ops_);
  ASSERT_TRUE(revoked) << revoked.error().message;
  EXPECT_EQ(check(TokenUser::node, old).result, TokenResult::revoked);
  // The option of a unit file, or a backup of cred/.
  const std::vector<std::string> warnings = start(std::string(old.reveal()).c_str());
  ASSERT_FALSE(warnings.empty());
  EXPECT_THAT(warnings.front(), HasSubstr("was revoked by ops@srv"));
  EXPECT_EQ(check(TokenUser::node, old).result, TokenResult::revoked);
}

TEST_F(TokenLife, TheLastOperatorIsNotRevokedByAccident) {
  start();
  const auto reader = create_token(*ledger_, *credentials_, {.token_class = "operator", .lifetime = {}, .description = {}, .role = "read", .secret = {}}, ops_);
  ASSERT_TRUE(reader) << reader.error().message;
  const std::string id = credentials_->operator_token().id;
  const auto refused = revoke_token(*ledger_, id, false, ops_);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("rotate operator"));
  EXPECT_TRUE(revoke_token(*ledger_, reader->id, false, ops_));
  EXPECT_TRUE(revoke_token(*ledger_, id, true, ops_));
}

// A record that cannot be read might be a revocation.
TEST_F(TokenLife, ALogWhoseTokensCannotBeReadIsNotOpened) {
  start();
  const Seq last = ledger_->log().head();
  close();
  test::overwrite_record(options_.log.dir, last, "garbage");
  const auto opened = Ledger::open(options_);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::corrupt);
  EXPECT_THAT(opened.error().message, HasSubstr("record " + std::to_string(last)));
}

TEST_F(TokenLife, WhatCannotBeMadeIsRefusedWithTheReason) {
  start();
  const auto refused = [&](NewToken wanted) {
    const auto made = create_token(*ledger_, *credentials_, wanted, ops_);
    return made ? "made" : made.error().message;
  };
  const auto of = [](const char* token_class, const char* role = "", const char* secret = "") {
    return NewToken{.token_class = token_class, .lifetime = {}, .description = {}, .role = role, .secret = Secret(secret)};
  };
  EXPECT_THAT(refused(of("admin")), HasSubstr("is no class"));
  EXPECT_THAT(refused(of("operator")), HasSubstr("needs a role"));
  EXPECT_THAT(refused(of("agent", "read")), HasSubstr("only operator tokens"));
  EXPECT_THAT(refused(of("agent", "", "short")), HasSubstr("shorter than 8"));
  EXPECT_THAT(refused(of("bootstrap", "", "no-bootstrap-token")), HasSubstr("<id>.<secret>"));
  EXPECT_THAT(refused(of("agent", "", std::string(shown().reveal()).c_str())), HasSubstr("is or was a token already"));
  const auto lifetime = [](const char* text) { return parse_lifetime(text).has_value(); };
  for (const char* good : {"1s", "30m", "24h", "7d", "never", "3650d"}) EXPECT_TRUE(lifetime(good)) << good;
  for (const char* bad : {"", "0s", "-1h", "5", "1w", "3651d", "99999999999999999999s", "1h1"})
    EXPECT_FALSE(lifetime(bad)) << bad;
}

}  // namespace
}  // namespace ledger
