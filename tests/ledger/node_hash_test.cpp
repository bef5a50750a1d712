#include "ledger/node_hash.h"

#include <gtest/gtest.h>

#include "ledger/credentials.h"
#include "tests/support/run_command.h"

namespace ledger {
namespace {

const Secret kPassword{"0123456789abcdef0123456789abcdef"};
constexpr std::string_view kKey =
    "HLE8J14CCCbzk09wlp3mpFzp+VYtwpOo9fvgeCuGWs9dv48cuQRRDacFx+hZcdkDMpQm4DrP59P/LQRom0NqgQ";
const std::string kText = "$1:0001020304050607:15:8:1:" + std::string(kKey);

TEST(NodeHash, TheVectorOfK3s) {
  const Result<NodeHash> hash = NodeHash::parse(kText);
  ASSERT_TRUE(hash) << hash.error().message;
  EXPECT_TRUE(*hash->matches(kPassword));
  EXPECT_FALSE(*hash->matches(Secret("0123456789abcdef0123456789abcdee")));
  EXPECT_EQ(make_node_hash(kPassword, std::string_view("\0\1\2\3\4\5\6\7", 8))->reveal(), kText);
}

TEST(NodeHash, AFreshOneIsItsPasswordsAlone) {
  const Secret one = std::move(*make_node_hash(kPassword)), other = std::move(*make_node_hash(kPassword));
  EXPECT_NE(one.reveal(), other.reveal());  // another salt
  EXPECT_TRUE(*NodeHash::parse(one.reveal())->matches(kPassword));
}

// Another implementation reads what we write.
TEST(NodeHash, PythonAgrees) {
  const Secret ours = std::move(*make_node_hash(kPassword));
  const test::CommandResult python = test::run_command(
      "python3 - '" + std::string(ours.reveal()) +
      "' <<'PY'\n"
      "import base64, hashlib, sys\n"
      "version, salt, n, r, p, key = sys.argv[1].split(':')\n"
      "made = hashlib.scrypt(b'0123456789abcdef0123456789abcdef', salt=bytes.fromhex(salt), n=1 << int(n), r=int(r),\n"
      "                      p=int(p), dklen=64, maxmem=64 << 20)\n"
      "print(version, base64.b64encode(made).decode().rstrip('=') == key)\n"
      "PY");
  EXPECT_EQ(python.output, "$1 True\n");
}

TEST(NodeHash, HostileTextsAreRefused) {
  const std::string key(kKey);
  const std::vector<std::string> hostile = {
           std::string(), std::string("$1"), "$2:0001020304050607:15:8:1:" + key, "1:0001020304050607:15:8:1:" + key,
           "$1::15:8:1:" + key, "$1:000:15:8:1:" + key, "$1:zz:15:8:1:" + key, "$1:00:17:8:1:" + key,
           "$1:00:15:32:1:" + key, "$1:00:15:8:3:" + key, "$1:00:99999999999:8:1:" + key, "$1:00:0:8:1:" + key,
           "$1:00:-1:8:1:" + key, "$1:00:015:8:1:" + key, "$1:00:15:8:0:" + key, "$1:00:15:8::" + key,
           "$1:00:15:8:1:" + key + "==", "$1:00:15:8:1:AAAA", "$1:00:15:8:1:", "$1:00:15:8:1:" + key.substr(1) + "!",
           "$1:00:15:8:1:" + key + ":x", "$1:00:15:8:1:" + std::string(2000, 'A'), kText + "\n"};
  for (const std::string& text : hostile) {
    const Result<NodeHash> hash = NodeHash::parse(text);
    EXPECT_FALSE(hash) << text;
    if (hash) continue;
    EXPECT_EQ(hash.error().message.find(key.substr(0, 20)), std::string::npos) << hash.error().message;
  }
  EXPECT_TRUE(NodeHash::parse("$1:00:16:8:1:" + key));  // twice the work is the limit
}

TEST(NodeHash, Base64WithAndWithoutPadding) {
  EXPECT_EQ(decode_base64_text("Zm9vYg==")->reveal(), "foob");
  EXPECT_EQ(decode_base64_text("Zm9vYg")->reveal(), "foob");
  for (const char* bad : {"Zm9vYg=", "Z", "Zm9v!g==", "Zm9vYh==", "Zm9v====", "=Zm9"}) EXPECT_FALSE(decode_base64_text(bad)) << bad;
}

TEST(Sha256, InPartsAsInOne) {
  Sha256 digest;
  digest.add("node-");
  digest.add("passwd");
  EXPECT_EQ(digest.hex(), sha256_hex("node-passwd"));
}

}  // namespace
}  // namespace ledger
