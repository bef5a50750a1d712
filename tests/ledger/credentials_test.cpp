#include "ledger/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <map>
#include <set>
#include <thread>

#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger {
namespace {

namespace fs = std::filesystem;
using test::file_bytes;
using test::mode_of;
using test::put_file;
using test::run_command;
using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

const std::string kHash(64, 'a');

std::string encoded(const std::string& text) {
  std::string out(4 * ((text.size() + 2) / 3) + 1, '\0');
  const int length =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  out.resize(static_cast<std::size_t>(length));
  return out;
}

Result<Credentials> open_in(const fs::path& dir, std::string_view token = "", std::string_view agent_token = "",
                            bool log_exists = false) {
  Credentials::Options options;
  options.data_dir = dir;
  options.token = Secret(token);
  options.agent_token = Secret(agent_token);
  options.log_exists = log_exists;
  return Credentials::open(options);
}

// Whether the files hold this password for the user.
bool holds(const Credentials& credentials, std::string_view user, std::string_view password) {
  const Credentials::Known& held = user == "node" ? credentials.agent() : credentials.server();
  return credentials.known_by(Secret(password)).fingerprint == held.fingerprint;
}

// ---- JoinToken -------------------------------------------------------------------------------------------

struct TokenCase {
  const char* name;
  std::string text, ca_hash, user, password;
};

class GoodToken : public testing::TestWithParam<TokenCase> {};

TEST_P(GoodToken, IsTakenApart) {
  const auto token = JoinToken::parse(GetParam().text);
  ASSERT_TRUE(token) << token.error().message;
  EXPECT_EQ(token->ca_hash, GetParam().ca_hash);
  EXPECT_EQ(token->user, GetParam().user);
  EXPECT_EQ(token->password.reveal(), GetParam().password);
}

INSTANTIATE_TEST_SUITE_P(Forms, GoodToken,
                         testing::Values(TokenCase{"full", "K10" + kHash + "::server:pw", kHash, "server", "pw"},
                                         TokenCase{"no_hash", "K10::node:pw", "", "node", "pw"},
                                         TokenCase{"no_user", "K10:::pw", "", "", "pw"},
                                         TokenCase{"colons_in_password", "K10::node:a:b::c", "", "node", "a:b::c"},
                                         TokenCase{"bare", "secret", "", "", "secret"},
                                         TokenCase{"bare_with_colons", "node:pw::x", "", "", "node:pw::x"},
                                         TokenCase{"bare_lower_k10", "k10::node:pw", "", "", "k10::node:pw"},
                                         TokenCase{"bare_with_blanks", " a b ", "", "", " a b "},
                                         TokenCase{"bootstrap_is_just_a_password", "abcdef.0123456789abcdef", "",
                                                   "", "abcdef.0123456789abcdef"},
                                         TokenCase{"utf8", "K10::node:p\xC3\xA4ss", "", "node", "p\xC3\xA4ss"},
                                         TokenCase{"longest", std::string(4096, 'x'), "", "",
                                                   std::string(4096, 'x')}),
                         [](const auto& row) { return row.param.name; });

struct BadToken {
  const char* name;
  std::string text, why;
};

class RefusedToken : public testing::TestWithParam<BadToken> {};

TEST_P(RefusedToken, IsRefusedWithTheReasonAndNotRepeated) {
  const auto token = JoinToken::parse(GetParam().text);
  ASSERT_FALSE(token);
  EXPECT_EQ(token.error().code, Errc::invalid);
  EXPECT_THAT(token.error().message,
              AllOf(HasSubstr(GetParam().why), HasSubstr("K10<ca hash>::<user>:<password>")));
  EXPECT_THAT(token.error().message, Not(HasSubstr("hunter2")));
}

INSTANTIATE_TEST_SUITE_P(
    Forms, RefusedToken,
    testing::Values(BadToken{"empty", "", "is empty"}, BadToken{"prefix_only", "K10", "no '::'"},
                    BadToken{"no_separator", "K10hunter2", "no '::'"},
                    BadToken{"short_hash", "K10" + std::string(63, 'a') + "::node:hunter2", "CA hash"},
                    BadToken{"long_hash", "K10" + std::string(65, 'a') + "::node:hunter2", "CA hash"},
                    BadToken{"upper_hash", "K10" + std::string(64, 'A') + "::node:hunter2", "CA hash"},
                    BadToken{"no_hex_hash", "K10" + std::string(64, 'g') + "::node:hunter2", "CA hash"},
                    BadToken{"bootstrap", "K10" + kHash + "::abcdef.0123456789hunter2", "no <user>:<password>"},
                    BadToken{"empty_password", "K10::node:", "empty password"},
                    BadToken{"line_end", "hunter2\n", "control character"},
                    BadToken{"nul", std::string("hunter2\0x", 9), "control character"},
                    BadToken{"delete", "hunter2\x7F", "control character"},
                    BadToken{"tab", "K10::node:hunter2\t", "control character"},
                    BadToken{"too_long", "hunter2" + std::string(4090, 'x'), "longer than 4096"}),
    [](const auto& row) { return row.param.name; });

// ---- BasicCredential -------------------------------------------------------------------------------------

TEST(BasicCredentialTest, ReadsWhatRfc7617Allows) {
  const auto plain = BasicCredential::parse("Basic " + encoded("node:pw"));
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->user, "node");
  EXPECT_EQ(plain->password.reveal(), "pw");

  EXPECT_TRUE(BasicCredential::parse("bASIC  " + encoded("node:pw") + " ")) << "scheme is case-insensitive";
  EXPECT_EQ(BasicCredential::parse("Basic " + encoded("u:a:b"))->password.reveal(), "a:b");
  EXPECT_EQ(BasicCredential::parse("Basic " + encoded(":pw"))->user, "");
  EXPECT_TRUE(BasicCredential::parse("Basic " + encoded("node:"))->password.empty());
  // RFC 4648 section 10, by hand: all bytes of the alphabet's two last letters.
  EXPECT_EQ(BasicCredential::parse("Basic Oj8/Pz8+Pj4+")->password.reveal(),
            "????"
            ">>>>");
}

TEST(BasicCredentialTest, RefusesWhatItCannotRead) {
  for (const std::string& value :
       {std::string(), std::string("Basic"), std::string("Basic "), "Basic" + encoded("node:pw"),
        "Bearer " + encoded("node:pw"), "Basic " + encoded("no colon"), std::string("Basic bm9kZTpwdw="),
        std::string("Basic bm9kZTpwdw"), std::string("Basic bm9kZTpwd==="), std::string("Basic bm9k ZTpwdw=="),
        std::string("Basic bm9kZTpw=w=="), std::string("Basic bm9k-TpwdzA_"), std::string("Basic ===="),
        "Basic " + encoded("node:a\nb"), "Basic " + encoded(std::string("node:a\0b", 8)),
        "Basic " + encoded("no\tde:pw"), "Basic " + encoded("node:" + std::string(13 << 10, 'x'))}) {
    const auto parsed = BasicCredential::parse(value);
    ASSERT_FALSE(parsed) << value.substr(0, 60);
    EXPECT_EQ(parsed.error().code, Errc::invalid);
    EXPECT_THAT(parsed.error().message, HasSubstr("Authorization header"));
  }
}

RC_GTEST_PROP(BasicCredentialTest, GivesBackWhatWasEncoded, ()) {
  const auto no_control =
      rc::gen::suchThat<char>([](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7F; });
  auto user = *rc::gen::container<std::string>(no_control);
  std::replace(user.begin(), user.end(), ':', '.');
  const auto password = *rc::gen::container<std::string>(no_control);
  const auto parsed = BasicCredential::parse("Basic " + encoded(user + ":" + password));
  RC_ASSERT(parsed.has_value());
  RC_ASSERT(parsed->user == user);
  RC_ASSERT(parsed->password.reveal() == password);
}

// ---- first start -----------------------------------------------------------------------------------------

TEST(CredentialsTest, FirstStartMakesFilesWithK3sModes) {
  const TempDir dir;
  const mode_t before = ::umask(0);
  const auto credentials = open_in(dir / "data");
  ASSERT_TRUE(credentials) << credentials.error().message;
  ASSERT_TRUE(credentials->write_token_files(kHash));
  ::umask(before);
  const fs::path data = dir / "data";
  EXPECT_EQ(mode_of(data), 0700);
  EXPECT_EQ(mode_of(data / "cred"), 0700);
  for (const char* file : {"cred/fingerprint.key", "cred/passwd", "cred/operator-token", "token"})
    EXPECT_EQ(mode_of(data / file), 0600) << file;
  EXPECT_THAT(file_bytes(data / "cred/fingerprint.key"), MatchesRegex("[0-9a-f]{64}\n"));
  EXPECT_THAT(file_bytes(data / "cred/operator-token"), MatchesRegex("[0-9a-f]{64}\n"));
  const std::string passwd = file_bytes(data / "cred/passwd");
  EXPECT_THAT(passwd, MatchesRegex("[0-9a-f]{32},node,node,k3s:agent\n[0-9a-f]{32},server,server,k3s:server\n"));
  const std::string password = passwd.substr(0, 32);
  EXPECT_EQ(file_bytes(data / "token"), "K10" + kHash + "::server:" + password + "\n");
  EXPECT_EQ(fs::read_symlink(data / "node-token"), "token");
  EXPECT_EQ(fs::read_symlink(data / "agent-token"), "token");
  for (const auto& entry : fs::recursive_directory_iterator(data)) EXPECT_NE(entry.path().extension(), ".tmp");

  EXPECT_TRUE(holds(*credentials, "node", password));
  EXPECT_TRUE(holds(*credentials, "server", password));
}

TEST(CredentialsTest, ModesAreExactUnderATightUmaskToo) {
  const TempDir dir;
  const mode_t before = ::umask(0777);
  const auto written = write_file(dir / "public", "x", 0644);
  ::umask(before);
  ASSERT_TRUE(written) << written.error().message;
  EXPECT_EQ(mode_of(dir / "public"), 0644);
}

TEST(CredentialsTest, TwoFirstStartsShareNothing) {
  const TempDir a, b;
  const auto first = open_in(a.path()), second = open_in(b.path());
  ASSERT_TRUE(first && second);
  for (const char* file : {"cred/fingerprint.key", "cred/passwd", "cred/operator-token"})
    EXPECT_NE(file_bytes(a / file), file_bytes(b / file)) << file;
  EXPECT_NE(first->fingerprint_of_password(Secret("pw")).text, second->fingerprint_of_password(Secret("pw")).text);
}

TEST(CredentialsTest, SecondStartChangesNoByte) {
  const TempDir dir;
  const auto first = open_in(dir.path());
  ASSERT_TRUE(first);
  std::map<std::string, std::string> before;
  for (const auto& entry : fs::directory_iterator(dir / "cred")) before[entry.path()] = file_bytes(entry.path());
  const auto second = open_in(dir.path(), "", "", true);
  ASSERT_TRUE(second) << second.error().message;
  for (const auto& [path, bytes] : before) EXPECT_EQ(file_bytes(path), bytes) << path;
  EXPECT_EQ(first->fingerprint_of_password(Secret("pw")), second->fingerprint_of_password(Secret("pw")));
  EXPECT_EQ(first->server().id, second->server().id);
  EXPECT_EQ(first->operator_token().id, second->operator_token().id);
}

TEST(CredentialsTest, WidenedModesAreSetBack) {
  const TempDir dir;
  ASSERT_TRUE(open_in(dir.path()));
  for (const char* file : {"cred/fingerprint.key", "cred/passwd", "cred/operator-token"})
    fs::permissions(dir / file, fs::perms(0644));
  fs::permissions(dir / "cred", fs::perms(0755));
  ASSERT_TRUE(open_in(dir.path()));
  for (const char* file : {"cred/fingerprint.key", "cred/passwd", "cred/operator-token"})
    EXPECT_EQ(mode_of(dir / file), 0600) << file;
  EXPECT_EQ(mode_of(dir / "cred"), 0700);
}

// ---- which password is in force --------------------------------------------------------------------------

struct Precedence {
  const char* name;
  const char* passwd;  // nullptr: no file
  const char* token;
  const char* agent_token;
  const char* server;  // expected; nullptr: a fresh one
  const char* node;    // expected; nullptr: the same as server
};

class PasswordInForce : public testing::TestWithParam<Precedence> {};

TEST_P(PasswordInForce, FollowsTheRuleOfTheHeader) {
  const Precedence& row = GetParam();
  const TempDir dir;
  fs::create_directory(dir / "cred");
  if (row.passwd != nullptr) put_file(dir / "cred/passwd", row.passwd);
  const auto credentials = open_in(dir.path(), row.token, row.agent_token);
  ASSERT_TRUE(credentials) << credentials.error().message;
  if (row.server != nullptr) {
    EXPECT_TRUE(holds(*credentials, "server", row.server));
  }
  if (row.node != nullptr) {
    EXPECT_TRUE(holds(*credentials, "node", row.node));
  } else {
    EXPECT_EQ(credentials->agent().id, credentials->server().id);
  }
  // What is in force is what the file says, so a start without options changes nothing.
  const auto again = open_in(dir.path());
  ASSERT_TRUE(again);
  EXPECT_EQ(again->server().id, credentials->server().id);
  EXPECT_EQ(again->agent().id, credentials->agent().id);
}

constexpr const char* kSame = "old,node,node,k3s:agent\nold,server,server,k3s:server\n";
constexpr const char* kSeparate = "mine,node,node,k3s:agent\nold,server,server,k3s:server\n";

INSTANTIATE_TEST_SUITE_P(
    Rows, PasswordInForce,
    testing::Values(Precedence{"fresh", nullptr, "", "", nullptr, nullptr},
                    Precedence{"fresh_with_token", nullptr, "new", "", "new", nullptr},
                    Precedence{"fresh_with_full_token", nullptr, "K10::server:new", "", "new", nullptr},
                    Precedence{"fresh_with_any_user", nullptr, "K10::node:new", "", "new", nullptr},
                    Precedence{"fresh_with_both", nullptr, "new", "K10::node:agent", "new", "agent"},
                    Precedence{"fresh_with_agent_only", nullptr, "", "agent", nullptr, "agent"},
                    Precedence{"file_alone", kSame, "", "", "old", nullptr},
                    Precedence{"token_moves_both", kSame, "new", "", "new", nullptr},
                    Precedence{"agent_token_moves_node_only", kSame, "", "agent", "old", "agent"},
                    Precedence{"separate_alone", kSeparate, "", "", "old", "mine"},
                    Precedence{"token_leaves_a_separate_agent_token", kSeparate, "new", "", "new", "mine"},
                    Precedence{"agent_token_replaces_a_separate_one", kSeparate, "", "agent", "old", "agent"},
                    Precedence{"same_value_makes_one_again", kSeparate, "new", "new", "new", nullptr},
                    Precedence{"only_server_line", "old,server,server,k3s:server\n", "", "", "old", nullptr},
                    Precedence{"only_node_line", "mine,node,node,k3s:agent\n", "", "", nullptr, "mine"},
                    Precedence{"quoted",
                               "\"a,\"\"b\",node,node,k3s:agent\r\n\" x\",server,server,\"k3s:server,g2\"\r\n", "",
                               "", " x", "a,\"b"},
                    Precedence{"empty_file", "", "new", "", "new", nullptr}),
    [](const auto& row) { return row.param.name; });

TEST(CredentialsTest, PasswdIsWrittenWithGoQuotingAndKeepsOtherLines) {
  const TempDir dir;
  fs::create_directory(dir / "cred");
  put_file(dir / "cred/passwd",
           "adm,admin,admin,system:masters\nold,server,uid7,other\n\n\"q,\"\"1\",\"x y\",u,\"a,b\"\nlast,z,z");
  ASSERT_TRUE(open_in(dir.path(), "with,comma", " lead\"quote"));
  EXPECT_EQ(
      file_bytes(dir / "cred/passwd"),
      "adm,admin,admin,system:masters\n\"with,comma\",server,server,k3s:server\n\"q,\"\"1\",\"x y\",u,\"a,b\"\n"
      "last,z,z\n\" lead\"\"quote\",node,node,k3s:agent\n");
  EXPECT_EQ(mode_of(dir / "cred/passwd"), 0600);
}

TEST(CredentialsTest, LinesWhosePasswordStaysAreKeptByteForByte) {
  const TempDir dir;
  fs::create_directory(dir / "cred");
  const std::string rke2 = "\"one\",server,server,\"rke2:server,more\"\r\ntwo,node,node,rke2:agent";
  put_file(dir / "cred/passwd", rke2);
  ASSERT_TRUE(open_in(dir.path()));
  EXPECT_EQ(file_bytes(dir / "cred/passwd"), rke2);
  ASSERT_TRUE(open_in(dir.path(), "one", "three"));
  EXPECT_EQ(file_bytes(dir / "cred/passwd"),
            "\"one\",server,server,\"rke2:server,more\"\r\nthree,node,node,k3s:agent\n");
}

TEST(CredentialsTest, JoinPasswordsOfAFile) {
  const auto read = read_join_passwords(Secret("a,x,x,y\n\"b,\",node,node,\n"), "f");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->node.reveal(), "b,");
  EXPECT_TRUE(read->server.empty());
  EXPECT_THAT(read_join_passwords(Secret("hunter2,node"), "f").error().message,
              AllOf(HasSubstr("'f': line 1"), Not(HasSubstr("hunter2"))));
}

TEST(FilesTest, ForeignSecretKeepsItsMode) {
  const TempDir dir;
  put_file(dir / "f", "text");
  fs::permissions(dir / "f", fs::perms(0644));
  EXPECT_EQ(read_foreign_secret(dir / "f")->reveal(), "text");
  EXPECT_EQ(mode_of(dir / "f"), 0644);
  EXPECT_EQ(read_secret_file(dir / "f")->reveal(), "text");
  EXPECT_EQ(mode_of(dir / "f"), 0600);
  EXPECT_TRUE(remove_file(dir / "f"));
  EXPECT_TRUE(remove_file(dir / "f")) << "none is no error";
  EXPECT_FALSE(fs::exists(dir / "f"));
  EXPECT_FALSE(remove_file(dir.path()));
}

RC_GTEST_PROP(CredentialsTest, PasswdGivesBackWhatWasWritten, ()) {
  const auto letters = rc::gen::nonEmpty(rc::gen::container<std::string>(rc::gen::weightedOneOf<char>(
      {{3, rc::gen::elementOf(std::string(",\" \\.:;#'"))},
       {1, rc::gen::suchThat<char>([](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7F; })}})));
  const std::string server = *letters, node = *letters;
  const TempDir dir;
  const auto first = open_in(dir.path(), "K10::server:" + server, "K10::node:" + node);
  RC_ASSERT(first.has_value());
  const auto second = open_in(dir.path());
  RC_ASSERT(second.has_value());
  RC_ASSERT(holds(*second, "server", server));
  RC_ASSERT(holds(*second, "node", node));
}

struct BrokenPasswd {
  const char* name;
  std::string bytes, line, why;
};

class RefusedPasswd : public testing::TestWithParam<BrokenPasswd> {};

TEST_P(RefusedPasswd, NamesFileAndLineAndKeepsTheSecret) {
  const TempDir dir;
  fs::create_directory(dir / "cred");
  put_file(dir / "cred/passwd", GetParam().bytes);
  const auto credentials = open_in(dir.path(), "token");
  ASSERT_FALSE(credentials);
  EXPECT_THAT(credentials.error().message,
              AllOf(HasSubstr((dir / "cred/passwd").string()), HasSubstr(GetParam().line + " "),
                    HasSubstr(GetParam().why), Not(HasSubstr("hunter2"))));
  EXPECT_EQ(file_bytes(dir / "cred/passwd"), GetParam().bytes) << "a file we cannot read must not be changed";
}

INSTANTIATE_TEST_SUITE_P(
    Faults, RefusedPasswd,
    testing::Values(
        BrokenPasswd{"two_columns", "a,b,c\nhunter2,node\n", "line 2", "fewer than 3 columns"},
        BrokenPasswd{"one_column", "hunter2", "line 1", "fewer than 3 columns"},
        BrokenPasswd{"open_quote", "a,b,c\n\n\"hunter2,node,node\nx,y,z\n", "line 3", "never closed"},
        BrokenPasswd{"quote_inside", "hunter2\"x,node,node\n", "line 1", "quote inside"},
        BrokenPasswd{"text_after_quote", "\"hunter2\"x,node,node\n", "line 1", "closing quote"},
        BrokenPasswd{"after_a_long_record", "\"a\nb\",x,x\nhunter2,node\n", "line 3", "fewer than 3 columns"},
        BrokenPasswd{"twice", "hunter2,node,node,k3s:agent\nx,node,node,k3s:agent\n", "line 2", "second line"},
        BrokenPasswd{"empty_password", ",server,server,k3s:server\n", "line 1", "empty password"},
        BrokenPasswd{"control", "\"hunter2\nx\",node,node\n", "line 1", "control character"},
        BrokenPasswd{"too_long", std::string(4097, 'x') + ",node,node\n", "line 1", "longer than 4096"}),
    [](const auto& row) { return row.param.name; });

TEST(CredentialsTest, BadOptionsAreNamedAndNothingIsWritten) {
  const TempDir dir;
  const auto token = open_in(dir / "data", "hunter2\n");
  ASSERT_FALSE(token);
  EXPECT_THAT(token.error().message,
              AllOf(HasSubstr("--token: "), HasSubstr("control"), Not(HasSubstr("hunter2"))));
  const auto agent = open_in(dir / "data", "ok", std::string(5000, 'x'));
  ASSERT_FALSE(agent);
  EXPECT_THAT(agent.error().message, AllOf(HasSubstr("--agent-token: "), HasSubstr("4096")));
  EXPECT_FALSE(fs::exists(dir / "data"));
}

// ---- the fingerprint key ---------------------------------------------------------------------------------

TEST(CredentialsTest, MissingKeyBesideALogIsAnErrorThatSaysWhatToDo) {
  const TempDir dir;
  ASSERT_TRUE(open_in(dir.path()));
  fs::remove(dir / "cred/fingerprint.key");
  const auto credentials = open_in(dir.path(), "", "", true);
  ASSERT_FALSE(credentials);
  EXPECT_EQ(credentials.error().code, Errc::not_found);
  EXPECT_THAT(credentials.error().message,
              AllOf(HasSubstr((dir / "cred/fingerprint.key").string()), HasSubstr("is missing"),
                    HasSubstr("restore cred/ from a backup"), HasSubstr("accepted anew")));
  EXPECT_FALSE(fs::exists(dir / "cred/fingerprint.key"));

  // The way out that the message offers.
  const auto made =
      run_command("umask 077; openssl rand -hex 32 > '" + (dir / "cred/fingerprint.key").string() + "'");
  ASSERT_EQ(made.status, 0) << made.output;
  EXPECT_TRUE(open_in(dir.path(), "", "", true));
}

TEST(CredentialsTest, BrokenKeyAndOperatorTokenAreRefusedUnchanged) {
  for (const char* name : {"cred/fingerprint.key", "cred/operator-token"}) {
    for (const std::string& bytes :
         {std::string(), std::string("hunter2\n"), std::string(63, 'a') + "\n", std::string(65, 'a') + "\n",
          std::string(64, 'A') + "\n", std::string(64, 'g') + "\n", std::string(32, '\0')}) {
      const TempDir dir;
      ASSERT_TRUE(open_in(dir.path()));
      put_file(dir / name, bytes);
      const auto credentials = open_in(dir.path());
      ASSERT_FALSE(credentials) << name;
      EXPECT_THAT(credentials.error().message, AllOf(HasSubstr((dir / name).string()), HasSubstr("64"),
                                                     HasSubstr("backup"), Not(HasSubstr("hunter2"))));
      EXPECT_EQ(file_bytes(dir / name), bytes);
    }
  }
}

TEST(CredentialsTest, UnreadablePlacesAreNamed) {
  const TempDir dir;
  fs::create_directories(dir / "cred/passwd");
  const auto directory = open_in(dir.path());
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().code, Errc::io);
  EXPECT_THAT(directory.error().message, HasSubstr((dir / "cred/passwd").string()));

  put_file(dir / "file", "");
  const auto under_a_file = open_in(dir / "file");
  ASSERT_FALSE(under_a_file);
  EXPECT_THAT(under_a_file.error().message,
              AllOf(HasSubstr((dir / "file").string()), HasSubstr("Not a directory")));
}

TEST(CredentialsTest, FingerprintIsTheHmacOfDomainAndPassword) {
  const TempDir dir;
  fs::create_directory(dir / "cred");
  put_file(dir / "cred/fingerprint.key", std::string(64, '0') + "\n");
  const auto credentials = open_in(dir.path(), "tok");
  ASSERT_TRUE(credentials);
  // Stored in logs for ever, hence computed by somebody else here.
  const auto reference = [](const std::string& input, const char* cut) {
    return run_command("printf '" + input + "' | openssl dgst -sha256 -mac HMAC -macopt hexkey:" +
                       std::string(64, '0') + " | sed 's/.*= //' | cut -c1-" + cut + " | tr -d '\\n'")
        .output;
  };
  EXPECT_EQ(credentials->fingerprint_of_password(Secret("0123456789abcdef0123456789abcdef")).text,
            reference("ledger node password v1\\0000123456789abcdef0123456789abcdef", "32"));
  EXPECT_EQ(credentials->known_by(Secret("tok")).id, reference("ledger token v1\\000tok", "12"));
  EXPECT_EQ(credentials->server().id, credentials->known_by(Secret("tok")).id);
  EXPECT_EQ(credentials->agent().id, credentials->server().id);
  EXPECT_THAT(credentials->operator_token().id, MatchesRegex("[0-9a-f]{12}"));
  // The same secret as a password and as a token does not look the same.
  EXPECT_THAT(credentials->fingerprint_of_password(Secret("tok")).text,
              Not(testing::StartsWith(credentials->known_by(Secret("tok")).id)));
}

// ---- checks ----------------------------------------------------------------------------------------------

TEST(CredentialsTest, EachClassHasItsOwnPassword) {
  const TempDir dir;
  const auto opened = open_in(dir.path(), "for-servers", "for-agents");
  ASSERT_TRUE(opened);
  EXPECT_TRUE(holds(*opened, "server", "for-servers"));
  EXPECT_TRUE(holds(*opened, "node", "for-agents"));
  EXPECT_FALSE(holds(*opened, "node", "for-servers"));
  EXPECT_FALSE(holds(*opened, "node", "for-agentS"));
  EXPECT_FALSE(holds(*opened, "node", "for-agents "));
  EXPECT_FALSE(holds(*opened, "node", ""));
}

TEST(CredentialsTest, ABearerIsTakenApart) {
  EXPECT_EQ(parse_bearer("Bearer abc")->reveal(), "abc");
  EXPECT_EQ(parse_bearer("bearer  abc ")->reveal(), "abc");
  EXPECT_EQ(parse_bearer("").error().code, Errc::not_found);
  for (const char* bad : {"Bearer", "Bearer ", "abc", "Basic abc"})
    EXPECT_EQ(parse_bearer(bad).error().code, Errc::invalid) << bad;
}

TEST(CredentialsTest, BootstrapTokensHaveKubeadmsForm) {
  EXPECT_TRUE(is_bootstrap_token("abcdef.0123456789abcdef"));
  for (const char* bad : {"", "abcdef", "abcdef.0123456789abcde", "abcdeF.0123456789abcdef", "abcdef-0123456789abcdef"})
    EXPECT_FALSE(is_bootstrap_token(bad)) << bad;
  EXPECT_TRUE(is_bootstrap_token(random_bootstrap_token().reveal()));
}

TEST(CredentialsTest, ChecksFromManyThreadsAgree) {
  const TempDir dir;
  const auto opened = open_in(dir.path(), "tok");
  ASSERT_TRUE(opened);
  const std::string id = opened->server().id,
                    fingerprint = opened->fingerprint_of_password(Secret("pw")).text;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] {
      for (int round = 0; round < 500; ++round) {
        if (opened->known_by(Secret("tok")).id != id) ++wrong;
        if (opened->fingerprint_of_password(Secret("pw")).text != fingerprint) ++wrong;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

// ---- token files -----------------------------------------------------------------------------------------

TEST(CredentialsTest, TokenFilesFollowTheTokens) {
  const TempDir dir;
  {
    const auto credentials = open_in(dir.path(), "srv", "agt");
    ASSERT_TRUE(credentials);
    ASSERT_TRUE(credentials->write_token_files(kHash));
    EXPECT_EQ(file_bytes(dir / "token"), "K10" + kHash + "::server:srv\n");
    EXPECT_EQ(file_bytes(dir / "node-token"), "K10" + kHash + "::server:srv\n");
    EXPECT_FALSE(fs::is_symlink(dir / "agent-token"));
    EXPECT_EQ(file_bytes(dir / "agent-token"), "K10" + kHash + "::node:agt\n");
    EXPECT_EQ(mode_of(dir / "agent-token"), 0600);
  }
  const auto credentials = open_in(dir.path(), "srv", "srv");
  ASSERT_TRUE(credentials);
  ASSERT_TRUE(credentials->write_token_files(""));
  EXPECT_EQ(fs::read_symlink(dir / "agent-token"), "token");
  EXPECT_EQ(file_bytes(dir / "agent-token"), "K10::server:srv\n");
  const auto bad = credentials->write_token_files("abc");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, Errc::invalid);
  EXPECT_EQ(file_bytes(dir / "token"), "K10::server:srv\n");
}

TEST(CredentialsTest, PlantedLinksRedirectNothing) {
  const TempDir dir, elsewhere;
  const auto credentials = open_in(dir.path(), "srv", "agt");
  ASSERT_TRUE(credentials);
  put_file(elsewhere / "victim", "untouched");
  for (const char* name : {"token", "token.tmp", "node-token.tmp", "agent-token", "agent-token.tmp"})
    fs::create_symlink(elsewhere / "victim", dir / name);
  const auto written = credentials->write_token_files(kHash);
  ASSERT_TRUE(written) << written.error().message;
  EXPECT_EQ(file_bytes(elsewhere / "victim"), "untouched");
  EXPECT_FALSE(fs::is_symlink(dir / "token"));
  EXPECT_EQ(file_bytes(dir / "token"), "K10" + kHash + "::server:srv\n");
  EXPECT_FALSE(fs::is_symlink(dir / "agent-token"));
  for (const auto& entry : fs::directory_iterator(dir.path())) EXPECT_NE(entry.path().extension(), ".tmp");

  fs::create_symlink(elsewhere / "new", dir / "fresh.tmp");
  ASSERT_TRUE(write_file(dir / "fresh", "bytes", 0600));
  EXPECT_FALSE(fs::exists(elsewhere / "new"));
  EXPECT_EQ(file_bytes(dir / "fresh"), "bytes");
}

// ---- files -----------------------------------------------------------------------------------------------

TEST(FilesTest, WriteReplacesWholeFilesAndSaysWhatFailed) {
  const TempDir dir;
  ASSERT_TRUE(write_file(dir / "f", "a long first text", 0600));
  ASSERT_TRUE(write_file(dir / "f", "short", 0644));
  EXPECT_EQ(file_bytes(dir / "f"), "short");
  EXPECT_EQ(mode_of(dir / "f"), 0644);

  const auto nowhere = write_file(dir / "no/such/f", "x", 0600);
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(nowhere.error().code, Errc::io);
  EXPECT_THAT(nowhere.error().message, AllOf(HasSubstr((dir / "no/such/f").string()), HasSubstr("No such file")));

  fs::create_directory(dir / "d");
  const auto directory = write_file(dir / "d", "x", 0600);
  ASSERT_FALSE(directory);
  EXPECT_THAT(directory.error().message, AllOf(HasSubstr("Is a directory"), HasSubstr("move away")));
  EXPECT_FALSE(fs::exists(dir / "d.tmp"));
}

TEST(FilesTest, FullDiskLeavesTheOldFile) {
  const TempDir dir;
  ASSERT_TRUE(write_file(dir / "f", "old", 0600));
  // A child with a file size limit: the write fails there as it would on a full disk.
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    struct rlimit none {
      0, 0
    };
    ::setrlimit(RLIMIT_FSIZE, &none);
    const auto written = write_file(dir / "f", "new", 0600);
    ::_exit(!written && written.error().code == Errc::io ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(file_bytes(dir / "f"), "old");
  EXPECT_FALSE(fs::exists(dir / "f.tmp"));
}

TEST(FilesTest, ReadHasALimitAndTakesRegularFilesOnly) {
  const TempDir dir;
  put_file(dir / "f", "12345");
  EXPECT_EQ(*read_file(dir / "f", 5), "12345");
  EXPECT_EQ(read_file(dir / "f", 4).error().code, Errc::io);
  EXPECT_EQ(read_file(dir / "none").error().code, Errc::not_found);
  EXPECT_EQ(read_file(dir.path()).error().code, Errc::io);
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_THAT(read_file(dir / "fifo").error().message, HasSubstr("not a regular file"));

  fs::permissions(dir / "f", fs::perms(0644));
  EXPECT_EQ(read_secret_file(dir / "f")->reveal(), "12345");
  EXPECT_EQ(mode_of(dir / "f"), 0600);
}

TEST(BytesTest, Base64IsThatOfOpenSsl) {
  std::string all;
  for (int i = 0; i < 256; ++i) {
    EXPECT_EQ(base64(all), encoded(all));
    all += static_cast<char>(i);
  }
}

TEST(BytesTest, HexAndHashes) {
  EXPECT_EQ(to_hex(std::string("\0\x0F\xA0\xFF", 4)), "000fa0ff");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    const std::string text = random_hex(16);
    EXPECT_THAT(text, MatchesRegex("[0-9a-f]{32}"));
    seen.insert(text);
  }
  EXPECT_EQ(seen.size(), 100u);
}

}  // namespace
}  // namespace ledger
