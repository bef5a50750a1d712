#include "ledger/issuer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "ledger/credentials.h"
#include "tests/support/csr.h"
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
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;

constexpr std::int64_t kDay = 86400;

// Certificates are checked by the openssl command too, whose clock is the machine's.
const Time kNow = {Time::now().micros / 1'000'000 * 1'000'000};
// When everything that the openssl command makes during this run is valid.
const Time kLater = kNow.plus_seconds(3600);

NodeName node(std::string_view name) { return *NodeName::parse(name); }

std::string shell_quoted(const fs::path& path) { return "'" + path.string() + "'"; }

// What `openssl` says; fails the test when it fails.
std::string openssl(const std::string& arguments) {
  const auto result = run_command("openssl " + arguments);
  EXPECT_EQ(result.status, 0) << "openssl " << arguments << "\n" << result.output;
  return result.output;
}

std::string to_der(const std::string& pem) {
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())),
                                                          &BIO_free_all);
  const std::unique_ptr<X509, decltype(&X509_free)> x509(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr),
                                                         &X509_free);
  EXPECT_NE(x509, nullptr);
  unsigned char* bytes = nullptr;
  const int length = i2d_X509(x509.get(), &bytes);
  std::string der(reinterpret_cast<char*>(bytes), static_cast<std::size_t>(length));
  OPENSSL_free(bytes);
  return der;
}

// Whom the certificate names; why it was refused, if it was.
std::string common_name(const Issuer& issuer, const std::string& der) {
  const auto identity = issuer.authenticate(der, kLater);
  return identity ? identity->common_name : identity.error().message;
}

class IssuerTest : public testing::Test {
 protected:
  Issuer open_issuer() {
    auto issuer = Issuer::open(dir_.path(), kNow, false);
    if (!issuer) ADD_FAILURE() << issuer.error().message;
    return std::move(issuer.value());
  }
  fs::path tls(const std::string& name) const { return dir_ / "tls" / name; }

  // Writes leaf.crt, leaf.key and gives the text of the leaf.
  std::string describe(const IssuedCertificate& issued) {
    put_file(dir_ / "leaf.crt", issued.leaf_pem);
    put_file(dir_ / "leaf.key", issued.key_pem.reveal());
    return openssl("x509 -noout -text -in " + shell_quoted(dir_ / "leaf.crt"));
  }
  std::string openssl_verify(const char* authority, const char* purpose) {
    return openssl("verify -x509_strict -purpose " + std::string(purpose) + " -CAfile " +
                   shell_quoted(tls(authority)) + " " + shell_quoted(dir_ / "leaf.crt"));
  }
  std::string in_dir(const std::string& command) {
    const auto result = run_command("cd " + shell_quoted(dir_.path()) + " && " + command);
    EXPECT_EQ(result.status, 0) << command << "\n" << result.output;
    return result.output;
  }
  // A certificate made by the openssl command: `extensions` is a config section, `days` its validity.
  std::string made_by_openssl(const std::string& subject, const std::string& extensions, const std::string& more) {
    put_file(dir_ / "ext.cnf", extensions);
    in_dir("openssl ecparam -name prime256v1 -genkey -noout -out x.key 2>&1");
    in_dir("openssl req -new -utf8 -key x.key -subj '" + subject + "' -out x.csr");
    in_dir("openssl x509 -req -in x.csr -extfile ext.cnf -out x.crt " + more);
    return to_der(file_bytes(dir_ / "x.crt"));
  }
  std::string by_client_ca(const std::string& subject,
                           const std::string& extensions = "extendedKeyUsage=clientAuth") {
    return made_by_openssl(subject, extensions,
                           "-days 30 -CA tls/client-ca.crt -CAkey tls/client-ca.key -set_serial 0x0f");
  }

  TempDir dir_;
};

// ---- authorities -----------------------------------------------------------------------------------------

TEST_F(IssuerTest, FirstStartMakesAuthoritiesAsK3sDoes) {
  const mode_t before = ::umask(0);
  const Issuer issuer = open_issuer();
  ::umask(before);
  EXPECT_EQ(mode_of(dir_ / "tls"), 0700);
  for (const std::string stem : {"client-ca", "server-ca"}) {
    EXPECT_EQ(mode_of(tls(stem + ".crt")), 0644);
    EXPECT_EQ(mode_of(tls(stem + ".key")), 0600);
    const std::string text = openssl("x509 -noout -text -in " + shell_quoted(tls(stem + ".crt")));
    const std::string name = "CN = k3s-" + stem + "@" + std::to_string(kNow.micros / 1'000'000);
    EXPECT_THAT(text, AllOf(HasSubstr("Version: 3"), HasSubstr("Serial Number: 0 (0x0)"),
                            HasSubstr("Issuer: " + name), HasSubstr("Subject: " + name),
                            HasSubstr("NIST CURVE: P-256"), HasSubstr("Signature Algorithm: ecdsa-with-SHA256")));
    EXPECT_THAT(text, HasSubstr("X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment, "
                                "Certificate Sign\n"));
    EXPECT_THAT(text, HasSubstr("X509v3 Basic Constraints: critical\n                CA:TRUE\n"));
    EXPECT_THAT(text, HasSubstr("X509v3 Subject Key Identifier: \n"));
    EXPECT_THAT(text, Not(HasSubstr("Authority Key Identifier")));
    openssl("verify -x509_strict -check_ss_sig -CAfile " + shell_quoted(tls(stem + ".crt")) + " " +
            shell_quoted(tls(stem + ".crt")));
    EXPECT_THAT(file_bytes(tls(stem + ".key")), StartsWith("-----BEGIN EC PRIVATE KEY-----\n"));
    EXPECT_THAT(openssl("ec -check -noout -in " + shell_quoted(tls(stem + ".key"))), HasSubstr("EC Key valid"));
    EXPECT_EQ(openssl("x509 -noout -pubkey -in " + shell_quoted(tls(stem + ".crt"))),
              openssl("pkey -pubout -in " + shell_quoted(tls(stem + ".key"))));
    const Time end = kNow.plus_seconds(3650 * kDay);
    EXPECT_EQ(openssl("x509 -noout -enddate -dateopt iso_8601 -in " + shell_quoted(tls(stem + ".crt"))),
              "notAfter=" + end.to_string().replace(10, 1, " ") + "\n");
  }
  EXPECT_EQ(issuer.server_ca_pem(), file_bytes(tls("server-ca.crt")));
  EXPECT_EQ(issuer.client_ca_pem(), file_bytes(tls("client-ca.crt")));
  EXPECT_NE(issuer.server_ca_pem(), issuer.client_ca_pem());
  EXPECT_EQ(issuer.ca_hash(),
            run_command("sha256sum < " + shell_quoted(tls("server-ca.crt"))).output.substr(0, 64));
  EXPECT_EQ(issuer.server_ca_sha256(), sha256_hex(to_der(issuer.server_ca_pem())));
  EXPECT_EQ(issuer.client_ca_sha256(), sha256_hex(to_der(issuer.client_ca_pem())));
}

TEST_F(IssuerTest, SecondStartChangesNoByte) {
  const std::string hash = open_issuer().ca_hash();
  std::vector<std::string> before;
  const std::vector<std::string> names = {"client-ca.crt", "client-ca.key", "server-ca.crt", "server-ca.key"};
  for (const auto& name : names) before.push_back(file_bytes(tls(name)));
  const auto again = Issuer::open(dir_.path(), kNow.plus_seconds(kDay), true);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->ca_hash(), hash);
  for (std::size_t i = 0; i < names.size(); ++i) EXPECT_EQ(file_bytes(tls(names[i])), before[i]) << names[i];
}

TEST_F(IssuerTest, WidenedKeysAreSetBack) {
  open_issuer();
  fs::permissions(tls("client-ca.key"), fs::perms(0644));
  fs::permissions(dir_ / "tls", fs::perms(0755));
  open_issuer();
  EXPECT_EQ(mode_of(tls("client-ca.key")), 0600);
  EXPECT_EQ(mode_of(dir_ / "tls"), 0700);
}

TEST_F(IssuerTest, AuthoritiesOfTheOperatorAreTakenAsTheyAre) {
  fs::create_directory(dir_ / "tls");
  const std::string extensions =
      " -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature";
  // An RSA key in PKCS#8, and an EC key with its EC PARAMETERS block in front; text around the PEM.
  in_dir(
      "openssl req -x509 -newkey rsa:2048 -nodes -keyout tls/client-ca.key -out tls/client-ca.crt -days 100 "
      "-subj /CN=corp-client" +
      extensions);
  in_dir(
      "openssl ecparam -name prime256v1 -genkey -out tls/server-ca.key && openssl req -x509 -key tls/server-ca.key "
      "-out plain.crt -days 100 -subj /CN=corp-server" +
      extensions);
  ASSERT_THAT(file_bytes(tls("client-ca.key")), HasSubstr("BEGIN PRIVATE KEY"));
  ASSERT_THAT(file_bytes(tls("server-ca.key")), HasSubstr("BEGIN EC PARAMETERS"));
  std::string text = "our server CA\n" + file_bytes(dir_ / "plain.crt");
  text.pop_back();
  put_file(tls("server-ca.crt"), text);

  const Issuer issuer = open_issuer();
  EXPECT_EQ(issuer.server_ca_pem(), text);
  EXPECT_EQ(issuer.ca_hash(), sha256_hex(text));
  const auto client = issuer.issue(Purpose::client_kubelet, node("web-1"), {}, kNow);
  ASSERT_TRUE(client) << client.error().message;
  EXPECT_THAT(describe(*client), HasSubstr("Signature Algorithm: sha256WithRSAEncryption"));
  openssl_verify("client-ca.crt", "sslclient");
  EXPECT_EQ(common_name(issuer, to_der(client->leaf_pem)), "system:node:web-1");
  // 100 days are less than a year: a leaf never outlives its CA.
  EXPECT_LT(seconds_between(kNow, client->not_after), 101 * 86400.0);

  const auto serving = issuer.issue(Purpose::serving_kubelet, node("web-1"), {}, kNow);
  ASSERT_TRUE(serving);
  EXPECT_EQ(serving->ca_pem, text + "\n") << "the next PEM block starts on its own line";
  describe(*serving);
  openssl_verify("server-ca.crt", "sslserver");
}

TEST_F(IssuerTest, BundleSignsWithItsFirstAndTrustsAll) {
  open_issuer();
  const std::string old_ca = file_bytes(tls("client-ca.crt"));
  const std::string old_client =
      to_der(open_issuer().issue(Purpose::client_kubelet, node("old"), {}, kNow)->leaf_pem);
  // An intermediate under a root; the root is not in the file.
  in_dir(
      "openssl req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.crt -days 100 -subj /CN=root "
      "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign");
  made_by_openssl("/CN=between", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n",
                  "-days 90 -CA root.crt -CAkey root.key -set_serial 77");
  put_file(tls("client-ca.key"), file_bytes(dir_ / "x.key"));
  put_file(tls("client-ca.crt"), file_bytes(dir_ / "x.crt") + old_ca);
  const Issuer issuer = open_issuer();
  EXPECT_EQ(issuer.client_ca_pem(), file_bytes(dir_ / "x.crt") + old_ca);
  const auto issued = issuer.issue(Purpose::client_kubelet, node("new"), {}, kNow);
  ASSERT_TRUE(issued);
  EXPECT_THAT(describe(*issued), HasSubstr("Issuer: CN = between"));
  EXPECT_EQ(issued->ca_pem, issuer.client_ca_pem());
  EXPECT_EQ(common_name(issuer, to_der(issued->leaf_pem)), "system:node:new");
  EXPECT_EQ(common_name(issuer, old_client), "system:node:old");
}

// ---- the CA hash -----------------------------------------------------------------------------------------

// server-ca.crt and its key out of CAs that `openssl` makes: R a root, S one more, I below R, J below I, N below R
// without authority key id, C below R for clients only, H below R by a SHA-1 signature.
class CaHash : public IssuerTest {
 protected:
  CaHash() {
    fs::create_directory(dir_ / "tls");
    for (const char* name : {"R", "S"}) make(name, "", "-signkey @.key");
    make("I", "authorityKeyIdentifier=keyid", "-CA R.crt -CAkey R.key");
    make("J", "authorityKeyIdentifier=keyid", "-CA I.crt -CAkey I.key");
    make("N", "authorityKeyIdentifier=none", "-CA R.crt -CAkey R.key");
    make("M", "authorityKeyIdentifier=keyid", "-CA N.crt -CAkey N.key");
    make("C", "authorityKeyIdentifier=keyid\nextendedKeyUsage=clientAuth", "-CA R.crt -CAkey R.key");
    make("H", "authorityKeyIdentifier=keyid", "-sha1 -CA R.crt -CAkey R.key");
  }
  void make(std::string name, const std::string& extensions, std::string how) {
    if (const auto at = how.find('@'); at != std::string::npos) how.replace(at, 1, name);
    put_file(dir_ / "ext", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"
                           "subjectKeyIdentifier=hash\n" + extensions + "\n");
    in_dir("openssl ecparam -name prime256v1 -genkey -noout -out " + name + ".key && openssl req -new -key " + name +
           ".key -subj /CN=" + name + " -out csr && openssl x509 -req -in csr -set_serial 7 -extfile ext -out " + name +
           ".crt " + how + " -days " + (name == "R" ? "50" : "100"));
  }
  // The issuer of a file of these certificates, in this order.
  Issuer of(const std::string& names, Time now = kLater) {
    std::string text;
    for (const char name : names) text += file_bytes(dir_ / (std::string(1, name) + ".crt"));
    put_file(tls("server-ca.crt"), text);
    put_file(tls("server-ca.key"), file_bytes(dir_ / (names.substr(0, 1) + ".key")));
    auto issuer = Issuer::open(dir_.path(), now, false);
    if (!issuer) ADD_FAILURE() << issuer.error().message;
    EXPECT_EQ(issuer->raw_ca_hash(), in_dir("sha256sum < tls/server-ca.crt").substr(0, 64));
    return std::move(issuer.value());
  }
  std::string der_hash(const std::string& name) {
    return in_dir("openssl x509 -in " + name + ".crt -outform DER | sha256sum").substr(0, 64);
  }
};

// Expectations are what Go's x509 makes of the same files under k3s' rule.
TEST_F(CaHash, OfABundleIsTheRootsOwn) {
  for (const char* names : {"IR", "JIR", "JRI", "RR", "JSIRM", "MNR"}) {
    const Issuer issuer = of(names);
    EXPECT_EQ(issuer.ca_hash(), der_hash(names == std::string("MNR") ? "N" : "R")) << names;
    EXPECT_NE(issuer.ca_hash(), issuer.raw_ca_hash()) << names;
  }
}

TEST_F(CaHash, WithoutAChainIsTheFilesBytes) {
  for (const char* names : {"R", "I", "JI", "JR", "RS", "RI", "CR", "HR"}) {
    const Issuer issuer = of(names);
    EXPECT_EQ(issuer.ca_hash(), issuer.raw_ca_hash()) << names;
  }
  const Issuer expired = of("IR", kNow.plus_seconds(60 * kDay));
  EXPECT_EQ(expired.ca_hash(), expired.raw_ca_hash()) << "the root is not valid any more, the signer is";
  EXPECT_EQ(ERR_peek_error(), 0u) << "OpenSSL's error queue must be left empty";
}

TEST_F(CaHash, InspectionSaysTheSame) {
  const Issuer issuer = of("JIR");
  const Secret key(file_bytes(tls("server-ca.key")));
  const AuthorityReport report = inspect_authority(tls("server-ca.crt"), issuer.server_ca_pem(), &key, kLater);
  EXPECT_THAT(report.faults, IsEmpty());
  EXPECT_EQ(report.ca_hash, issuer.ca_hash());
  EXPECT_EQ(report.raw_ca_hash, issuer.raw_ca_hash());
  EXPECT_EQ(report.sha256, issuer.server_ca_sha256());
  EXPECT_EQ(report.common_name + "|" + report.key, "J|EC P-256");
  EXPECT_EQ(report.certificates, 3u);
}

TEST_F(CaHash, InspectionReportsEveryFault) {
  of("R");
  const Secret key(file_bytes(dir_ / "S.key"));
  const AuthorityReport report =
      inspect_authority(tls("server-ca.crt"), file_bytes(dir_ / "R.crt"), &key, kNow.plus_seconds(60 * kDay));
  EXPECT_THAT(report.faults, ElementsAre(HasSubstr("server-ca.crt' expired"), HasSubstr("server-ca.key' is not the key")));
  EXPECT_THAT(inspect_authority(tls("server-ca.crt"), "", nullptr, kNow).faults,
              ElementsAre(HasSubstr("holds no PEM certificate")));
}

TEST_F(IssuerTest, NamesOfACertificate) {
  const Issuer issuer = open_issuer();
  const auto listener = issuer.issue_listener({"a.example", "10.1.2.3", "fd00::9"}, "", kNow);
  ASSERT_TRUE(listener);
  EXPECT_THAT(names_in_certificate(listener->leaf_pem + listener->ca_pem),
              ElementsAre("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "a.example",
                          "127.0.0.1", "::1", "10.1.2.3", "fd00::9"));
  EXPECT_THAT(names_in_certificate(issuer.server_ca_pem()), IsEmpty());
  EXPECT_THAT(names_in_certificate(""), IsEmpty());
  EXPECT_TRUE(is_listener_name("*.example.org"));
  EXPECT_FALSE(is_listener_name("no good"));
  EXPECT_EQ(ERR_peek_error(), 0u);
}

struct BrokenAuthority {
  const char* name;
  const char* command;  // run beside tls/, after a first start
  std::string file, why;
};

class RefusedAuthority : public IssuerTest, public testing::WithParamInterface<BrokenAuthority> {};

TEST_P(RefusedAuthority, IsNamedWithWhatToDo) {
  open_issuer();
  in_dir(GetParam().command);
  const std::string listing = in_dir("cksum tls/* 2>&1; true");
  const auto issuer = Issuer::open(dir_.path(), kNow, true);
  ASSERT_FALSE(issuer);
  EXPECT_THAT(issuer.error().message, AllOf(HasSubstr("'" + tls(GetParam().file).string() + "'"),
                                            HasSubstr(GetParam().why), Not(HasSubstr("\n"))));
  EXPECT_EQ(in_dir("cksum tls/* 2>&1; true"), listing) << "nothing may be created or changed";
  EXPECT_EQ(ERR_peek_error(), 0u) << "OpenSSL's error queue must be left empty";
}

constexpr const char* kRequest =
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout tls/client-ca.key "
    "-out tls/client-ca.crt ";
const std::string kLeafAsAuthority = std::string(kRequest) + "-days 9 -addext basicConstraints=critical,CA:FALSE";
const std::string kNoCertSign = std::string(kRequest) + "-days 9 -addext keyUsage=critical,digitalSignature";

INSTANTIATE_TEST_SUITE_P(
    Faults, RefusedAuthority,
    testing::Values(
        BrokenAuthority{"no_key", "rm tls/server-ca.key", "server-ca.key", "is missing, but"},
        BrokenAuthority{"no_certificate", "rm tls/client-ca.crt", "client-ca.crt", "restore both from a backup"},
        BrokenAuthority{"neither", "rm tls/client-ca.*", "client-ca.crt", "there is a log"},
        BrokenAuthority{"empty", ": > tls/client-ca.crt", "client-ca.crt", "holds no PEM certificate"},
        BrokenAuthority{"no_pem", "echo hello > tls/server-ca.crt", "server-ca.crt", "holds no PEM certificate"},
        BrokenAuthority{"cut_off", "head -c 300 tls/server-ca.crt > c && cp c tls/server-ca.crt", "server-ca.crt",
                        "cannot be read, number 1"},
        BrokenAuthority{"second_broken",
                        "printf -- '-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n' "
                        ">> tls/server-ca.crt",
                        "server-ca.crt", "cannot be read, number 2"},
        BrokenAuthority{"key_inside", "cat tls/client-ca.key >> tls/client-ca.crt", "client-ca.crt",
                        "holds a private key"},
        BrokenAuthority{"other_key", "cp tls/server-ca.key tls/client-ca.key", "client-ca.key",
                        "is not the key of '"},
        BrokenAuthority{"key_no_pem", "echo hello > tls/client-ca.key", "client-ca.key",
                        "holds no PEM private key"},
        BrokenAuthority{"key_encrypted",
                        "openssl ec -aes128 -passout pass:pw -in tls/client-ca.key -out k 2>&1 && cp k "
                        "tls/client-ca.key",
                        "client-ca.key", "is encrypted"},
        BrokenAuthority{"key_encrypted_pkcs8",
                        "openssl pkcs8 -topk8 -passout pass:pw -in tls/client-ca.key -out k && cp k "
                        "tls/client-ca.key",
                        "client-ca.key", "is encrypted"},
        BrokenAuthority{"key_ed25519", "openssl genpkey -algorithm ed25519 -out tls/client-ca.key", "client-ca.key",
                        "neither an EC nor an RSA key"},
        BrokenAuthority{"foreign_curve",
                        "openssl ecparam -name secp256k1 -genkey -noout -out tls/client-ca.key && openssl req -x509 "
                        "-new -key tls/client-ca.key -subj /CN=x -out tls/client-ca.crt",
                        "client-ca.key", "curve that agents cannot use"},
        BrokenAuthority{"short_rsa",
                        "openssl req -x509 -newkey rsa:1024 -nodes -subj /CN=x -keyout tls/client-ca.key -out "
                        "tls/client-ca.crt 2>&1",
                        "client-ca.key", "fewer than 2048 bits"},
        BrokenAuthority{"no_ca", kLeafAsAuthority.c_str(), "client-ca.crt", "is not a CA certificate, number 1"},
        BrokenAuthority{"no_cert_sign", kNoCertSign.c_str(), "client-ca.crt", "keyCertSign"},
        BrokenAuthority{"leaf_in_bundle",
                        "openssl req -x509 -newkey rsa:2048 -nodes -keyout k -subj /CN=x -addext "
                        "basicConstraints=CA:FALSE -out l.crt 2>&1 && cat l.crt >> tls/client-ca.crt",
                        "client-ca.crt", "is not a CA certificate, number 2"},
        BrokenAuthority{"directory", "rm tls/client-ca.crt && mkdir tls/client-ca.crt", "client-ca.crt",
                        "not a regular file"}),
    [](const auto& row) { return row.param.name; });

TEST_F(IssuerTest, ExpiredAuthorityIsRefusedAtStartAndWhileRunning) {
  const Issuer issuer = open_issuer();
  const Time end = kNow.plus_seconds(3650 * kDay);
  EXPECT_TRUE(Issuer::open(dir_.path(), end, true));
  const Time late = end.plus_seconds(1);
  const auto opened = Issuer::open(dir_.path(), late, true);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message,
              AllOf(HasSubstr(tls("client-ca.crt").string()), HasSubstr("expired at " + end.to_string()),
                    HasSubstr("clock"), HasSubstr(late.to_string())));
  EXPECT_THAT(issuer.issue(Purpose::client_kubelet, node("a"), {}, late).error().message, HasSubstr("expired at"));
  EXPECT_THAT(issuer.issue(Purpose::client_kubelet, node("a"), {}, kNow.plus_seconds(-366 * kDay)).error().message,
              HasSubstr("clock"));
}

// ---- leaves ----------------------------------------------------------------------------------------------

TEST_F(IssuerTest, ServingKubeletHasK3sForm) {
  const Issuer issuer = open_issuer();
  const auto issued = issuer.issue(Purpose::serving_kubelet, node("web-1"),
                                   {"10.0.0.5", "fd00::5", "127.0.0.1", "10.0.0.5", "::ffff:10.0.0.6", "FD00:0::5"},
                                   kNow.plus_seconds(10));
  ASSERT_TRUE(issued) << issued.error().message;
  const std::string text = describe(*issued);
  EXPECT_EQ(openssl_verify("server-ca.crt", "sslserver"), (dir_ / "leaf.crt").string() + ": OK\n");
  EXPECT_THAT(text,
              AllOf(HasSubstr("Subject: CN = web-1\n"), HasSubstr("NIST CURVE: P-256"),
                    HasSubstr("X509v3 Key Usage: critical\n                Digital Signature, Key "
                              "Encipherment\n"),
                    HasSubstr("TLS Web Server Authentication\n"), HasSubstr("X509v3 Authority Key Identifier"),
                    Not(HasSubstr("Basic Constraints")), Not(HasSubstr("Client Authentication"))));
  EXPECT_THAT(text, HasSubstr("                DNS:web-1, DNS:localhost, IP Address:127.0.0.1, IP "
                              "Address:0:0:0:0:0:0:0:1, IP Address:10.0.0.5, IP Address:FD00:0:0:0:0:0:0:5, IP "
                              "Address:10.0.0.6\n"));
  EXPECT_EQ(issued->subject, "CN=web-1");
  EXPECT_EQ(issued->not_before, kNow) << "the CA's, not the moment of signing";
  EXPECT_EQ(issued->not_after, kNow.plus_seconds(10 + 365 * kDay));
  EXPECT_EQ(openssl("x509 -noout -dates -dateopt iso_8601 -in " + shell_quoted(dir_ / "leaf.crt")),
            "notBefore=" + issued->not_before.to_string().replace(10, 1, " ") +
                "\nnotAfter=" + issued->not_after.to_string().replace(10, 1, " ") + "\n");
  // Serial, hashes and key are those of the certificate.
  std::string serial = openssl("x509 -noout -serial -in " + shell_quoted(dir_ / "leaf.crt"));
  EXPECT_EQ("serial=" + issued->serial + "\n", to_lower(serial));
  EXPECT_EQ(issued->sha256, sha256_hex(to_der(issued->leaf_pem)));
  EXPECT_EQ(issued->public_key, in_dir("openssl pkey -in leaf.key -pubout -outform DER | sha256sum").substr(0, 64));
  EXPECT_EQ(openssl("x509 -noout -pubkey -in " + shell_quoted(dir_ / "leaf.crt")),
            openssl("pkey -pubout -in " + shell_quoted(dir_ / "leaf.key")));
  // PEM as agents expect it: byte for byte what OpenSSL would have written.
  EXPECT_EQ(in_dir("openssl ec -in leaf.key 2>/dev/null"), issued->key_pem.reveal());
  EXPECT_THAT(openssl("ec -check -noout -in " + shell_quoted(dir_ / "leaf.key")), HasSubstr("EC Key valid"));
  EXPECT_EQ(in_dir("openssl x509 -in leaf.crt"), issued->leaf_pem);
  EXPECT_EQ(issued->ca_pem, issuer.server_ca_pem());
}

struct ClientLeaf {
  const char* name;
  Purpose purpose;
  const char *subject, *text;
};

class ClientLeafTest : public IssuerTest, public testing::WithParamInterface<ClientLeaf> {};

TEST_P(ClientLeafTest, HasK3sSubjectAndIsGoodForClientsOnly) {
  const Issuer issuer = open_issuer();
  const auto issued = issuer.issue(GetParam().purpose, node("web-1"), {"10.0.0.5"}, kNow);
  ASSERT_TRUE(issued) << issued.error().message;
  EXPECT_EQ(issued->subject, GetParam().subject);
  const std::string text = describe(*issued);
  EXPECT_THAT(text, AllOf(HasSubstr(std::string("Subject: ") + GetParam().text + "\n"),
                          HasSubstr("TLS Web Client Authentication\n"), Not(HasSubstr("Server Authentication")),
                          Not(HasSubstr("Alternative Name")), Not(HasSubstr("Basic Constraints"))));
  EXPECT_EQ("subject=" + issued->subject + "\n",
            openssl("x509 -noout -subject -nameopt RFC2253 -in " + shell_quoted(dir_ / "leaf.crt")));
  openssl_verify("client-ca.crt", "sslclient");
  EXPECT_NE(run_command("openssl verify -purpose sslserver -CAfile " + shell_quoted(tls("client-ca.crt")) + " " +
                        shell_quoted(dir_ / "leaf.crt"))
                .status,
            0);
  const auto identity = issuer.authenticate(to_der(issued->leaf_pem), kNow);
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ("CN=" + identity->common_name +
                (identity->organizations.empty() ? "" : ",O=" + identity->organizations.front()),
            issued->subject);
  EXPECT_EQ(identity->serial, issued->serial);
}

INSTANTIATE_TEST_SUITE_P(Purposes, ClientLeafTest,
                         testing::Values(ClientLeaf{"kubelet", Purpose::client_kubelet,
                                                    "CN=system:node:web-1,O=system:nodes",
                                                    "O = system:nodes, CN = system:node:web-1"},
                                         ClientLeaf{"kube_proxy", Purpose::client_kube_proxy,
                                                    "CN=system:kube-proxy", "CN = system:kube-proxy"},
                                         ClientLeaf{"controller", Purpose::client_program_controller,
                                                    "CN=system:k3s-controller", "CN = system:k3s-controller"}),
                         [](const auto& row) { return row.param.name; });

// ---- keys of the agents' own -----------------------------------------------------------------------------

TEST_F(IssuerTest, ABroughtKeyIsCertifiedAndNoneIsHandedOut) {
  const Issuer issuer = open_issuer();
  for (const char* kind : {test::kP256, test::kP384, test::kRsa2048, test::kEd25519}) {
    const auto key = read_certificate_request(test::fresh_csr(dir_.path(), kind));
    ASSERT_TRUE(key) << kind << ": " << key.error().message;
    for (const Purpose purpose : {Purpose::serving_kubelet, Purpose::client_kubelet, Purpose::client_kube_proxy,
                                  Purpose::client_program_controller}) {
      const auto issued = issuer.issue(purpose, node("web-1"), {}, kNow, &*key);
      ASSERT_TRUE(issued) << issued.error().message;
      EXPECT_TRUE(issued->key_pem.empty());
      EXPECT_EQ(issued->public_key, in_dir("openssl pkey -in own.key -pubout -outform DER | sha256sum").substr(0, 64));
      const std::string text = describe(*issued);
      EXPECT_EQ(openssl("x509 -noout -pubkey -in " + shell_quoted(dir_ / "leaf.crt")),
                in_dir("openssl pkey -in own.key -pubout"));
      EXPECT_THAT(text, HasSubstr("ecdsa-with-SHA256")) << "signed by the CA, whatever the key is";
      const bool serving = purpose == Purpose::serving_kubelet;
      openssl_verify(serving ? "server-ca.crt" : "client-ca.crt", serving ? "sslserver" : "sslclient");
    }
  }
}

// The subject and the extensions come from who asks: nothing that a request asks for gets in.
TEST_F(IssuerTest, NothingButTheKeyOfARequestIsTaken) {
  const Issuer issuer = open_issuer();
  put_file(dir_ / "csr.cnf",
           "[req]\ndistinguished_name=dn\nreq_extensions=ext\nprompt=no\n[dn]\nCN=system:node:other\nO=system:masters\n"
           "[ext]\nbasicConstraints=critical,CA:TRUE\nsubjectAltName=DNS:kubernetes\nextendedKeyUsage=serverAuth\n");
  const auto key = read_certificate_request(test::fresh_csr(dir_.path(), test::kP256, "-config csr.cnf"));
  ASSERT_TRUE(key) << key.error().message;
  const auto issued = issuer.issue(Purpose::client_kubelet, node("web-1"), {}, kNow, &*key);
  ASSERT_TRUE(issued) << issued.error().message;
  const std::string text = describe(*issued);
  for (const char* asked : {"other", "masters", "CA:TRUE", "kubernetes", "Server Authentication"})
    EXPECT_THAT(text, Not(HasSubstr(asked)));
  EXPECT_EQ(issued->subject, "CN=system:node:web-1,O=system:nodes");
}

TEST_F(IssuerTest, NamesOfRke2) {
  auto opened = Issuer::open(dir_.path(), kNow, false, kRke2);
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(&opened->program(), &kRke2);
  EXPECT_EQ(opened->made_by(), &kRke2);
  const std::string now = std::to_string(kNow.micros / 1'000'000);
  for (const char* stem : {"client-ca", "server-ca"})
    EXPECT_EQ(openssl("x509 -noout -subject -nameopt RFC2253 -in " + shell_quoted(tls(std::string(stem) + ".crt"))),
              "subject=CN=rke2-" + std::string(stem) + "@" + now + "\n");
  const auto controller = opened->issue(Purpose::client_program_controller, {}, {}, kNow);
  EXPECT_EQ(controller->subject, "CN=system:rke2-controller");
  EXPECT_EQ(opened->issue_listener({}, "", kNow)->subject, "CN=rke2,O=rke2");
  EXPECT_EQ(name_of(Purpose::client_program_controller, kRke2), "client-rke2-controller");
  EXPECT_EQ(opened->issue(Purpose::client_kubelet, node("a"), {}, kNow)->subject, "CN=system:node:a,O=system:nodes");
  // Opened for another program: the names are that one's, and who made the CAs can be seen.
  const auto other = Issuer::open(dir_.path(), kNow, true);
  EXPECT_EQ(other->made_by(), &kRke2);
  EXPECT_EQ(&other->program(), &kK3s);
  EXPECT_EQ(other->server_ca_pem(), opened->server_ca_pem());
}

TEST_F(IssuerTest, LongestNodeNamePassesThePlaceWhereOpenSslStopsAt64) {
  std::string name(253, 'n');
  for (std::size_t i = 60; i < name.size(); i += 61) name[i] = '.';
  const Issuer issuer = open_issuer();
  for (const Purpose purpose : {Purpose::serving_kubelet, Purpose::client_kubelet}) {
    const auto issued = issuer.issue(purpose, node(name), {}, kNow);
    ASSERT_TRUE(issued) << issued.error().message;
    EXPECT_THAT(describe(*issued), HasSubstr(name + "\n"));
    const bool serving = purpose == Purpose::serving_kubelet;
    openssl_verify(serving ? "server-ca.crt" : "client-ca.crt", serving ? "sslserver" : "sslclient");
    if (!serving) {
      EXPECT_EQ(common_name(issuer, to_der(issued->leaf_pem)), "system:node:" + name);
    }
  }
}

TEST_F(IssuerTest, BadNamesAndAddressesAreNamed) {
  const Issuer issuer = open_issuer();
  for (const std::string& address :
       {std::string(), std::string("10.0.0"), std::string("10.0.0.5/24"), std::string("fe80::1%eth0"),
        std::string("web-1"), std::string(" 10.0.0.5"), std::string("10.0.0.5\0x", 10), std::string("DNS:evil")}) {
    const auto issued = issuer.issue(Purpose::serving_kubelet, node("web-1"), {"10.0.0.4", address}, kNow);
    ASSERT_FALSE(issued) << address;
    EXPECT_EQ(issued.error().code, Errc::invalid);
    EXPECT_THAT(issued.error().message, HasSubstr("'" + printable(address, 64) + "'"));
  }
  EXPECT_FALSE(issuer.issue(Purpose::serving_kubelet, node("a"), std::vector<std::string>(65, "10.0.0.1"), kNow));
  EXPECT_TRUE(issuer.issue(Purpose::serving_kubelet, node("a"), std::vector<std::string>(64, "10.0.0.1"), kNow));
  EXPECT_FALSE(issuer.issue(Purpose::serving_kubelet, NodeName(), {}, kNow));
  EXPECT_FALSE(issuer.issue(Purpose::client_kubelet, NodeName(), {}, kNow));
  EXPECT_TRUE(issuer.issue(Purpose::client_kube_proxy, NodeName(), {}, kNow));
}

TEST_F(IssuerTest, ListenerServesUnderItsNames) {
  const Issuer issuer = open_issuer();
  const auto issued = issuer.issue_listener(
      {"k3s.example.org", "192.0.2.7", "Localhost", "*.example.org", "2001:db8::1"}, "cluster.local", kNow);
  ASSERT_TRUE(issued) << issued.error().message;
  EXPECT_EQ(issued->subject, "CN=k3s,O=k3s");
  EXPECT_THAT(
      describe(*issued),
      AllOf(HasSubstr("Subject: O = k3s, CN = k3s\n"), HasSubstr("TLS Web Server Authentication\n"),
            HasSubstr("DNS:localhost, DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc, "
                      "DNS:kubernetes.default.svc.cluster.local, DNS:k3s.example.org, DNS:*.example.org, IP "
                      "Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, IP Address:192.0.2.7, IP "
                      "Address:2001:DB8:0:0:0:0:0:1\n")));
  for (const char* option : {"-verify_ip 127.0.0.1", "-verify_ip ::1", "-verify_ip 192.0.2.7",
                             "-verify_hostname k3s.example.org", "-verify_hostname kubernetes"})
    openssl("verify -purpose sslserver " + std::string(option) + " -CAfile " + shell_quoted(tls("server-ca.crt")) +
            " " + shell_quoted(dir_ / "leaf.crt"));

  for (const std::string& name :
       {std::string(), std::string("a b"), std::string("a..b"), std::string("x\ny"), std::string("a."),
        std::string("a*b"), std::string(254, 'a'), std::string("a\0b", 3), std::string("https://a")}) {
    const auto refused = issuer.issue_listener({name}, "", kNow);
    ASSERT_FALSE(refused) << name;
    EXPECT_THAT(refused.error().message, HasSubstr("'" + printable(name, 80) + "'"));
  }
  EXPECT_THAT(issuer.issue_listener({}, "no good", kNow).error().message, HasSubstr("cluster domain 'no good'"));
}

TEST_F(IssuerTest, ThreadsIssueAndAuthenticateSideBySide) {
  const Issuer issuer = open_issuer();
  std::set<std::string> serials, keys, hashes;
  std::vector<std::string> failures;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      for (int round = 0; round < 40; ++round) {
        const NodeName name = node("n" + std::to_string(i) + "-" + std::to_string(round));
        const auto issued = issuer.issue(Purpose::client_kubelet, name, {}, kNow);
        const auto identity = issued ? issuer.authenticate(to_der(issued->leaf_pem), kNow) : issued.error();
        const std::lock_guard lock(mutex);
        if (!identity || identity->common_name != "system:node:" + name.str()) {
          failures.push_back(name.str());
        } else {
          serials.insert(issued->serial);
          keys.insert(issued->public_key);
          hashes.insert(issued->sha256);
        }
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(failures, IsEmpty());
  EXPECT_EQ(serials.size(), 320u);
  EXPECT_EQ(keys.size(), 320u);
  EXPECT_EQ(hashes.size(), 320u);
  for (const std::string& serial : serials) {
    EXPECT_THAT(serial, MatchesRegex("([0-9a-f][0-9a-f])+"));
    EXPECT_LE(serial.size(), 16u);
    EXPECT_TRUE(serial.size() < 16 || serial[0] <= '7') << serial << ": positive, 63 bits";
  }
}

// ---- authenticate ----------------------------------------------------------------------------------------

TEST_F(IssuerTest, AcceptsWhatTheClientAuthoritySigned) {
  const Issuer issuer = open_issuer();
  const auto identity = issuer.authenticate(by_client_ca("/O=system:nodes/O=more/CN=system:node:web-1"), kLater);
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->common_name, "system:node:web-1");
  EXPECT_THAT(identity->organizations, ElementsAre("system:nodes", "more"));
  EXPECT_EQ(identity->serial, "0f");
}

TEST_F(IssuerTest, RefusesOtherSignersTimesAndUsages) {
  const Issuer issuer = open_issuer();
  const auto reason = [&](const std::string& der, Time now) -> std::string {
    const auto identity = issuer.authenticate(der, now);
    if (identity) return "accepted";
    EXPECT_EQ(identity.error().code, Errc::invalid);
    EXPECT_EQ(ERR_peek_error(), 0u) << "OpenSSL's error queue must be left empty";
    return identity.error().message;
  };
  const auto client = issuer.issue(Purpose::client_kubelet, node("web-1"), {}, kNow);
  const auto serving = issuer.issue(Purpose::serving_kubelet, node("web-1"), {}, kNow);
  ASSERT_TRUE(client && serving);
  const std::string der = to_der(client->leaf_pem);
  ASSERT_EQ(reason(der, kNow), "accepted");
  EXPECT_THAT(reason(der, kNow.plus_seconds(366 * kDay)), HasSubstr("expired"));
  EXPECT_THAT(reason(der, kNow.plus_seconds(-1)), HasSubstr("not yet valid"));
  EXPECT_THAT(reason(to_der(serving->leaf_pem), kNow), HasSubstr("unable to get local issuer certificate"));
  EXPECT_THAT(reason(by_client_ca("/CN=a", "extendedKeyUsage=serverAuth"), kLater), HasSubstr("purpose"));
  EXPECT_THAT(reason(to_der(issuer.client_ca_pem()), kNow), HasSubstr("is a CA's"));

  // A CA of the same name with another key.
  in_dir(
      "openssl req -x509 -newkey rsa:2048 -nodes -keyout f.key -out f.crt -days 9 -subj \"/$(openssl x509 -noout "
      "-subject -nameopt RFC2253 -in tls/client-ca.crt | cut -d= -f2-)\" 2>&1");
  EXPECT_THAT(reason(made_by_openssl("/O=system:nodes/CN=system:node:web-1", "extendedKeyUsage=clientAuth",
                                     "-days 9 -CA f.crt -CAkey f.key -set_serial 1"),
                     kLater),
              HasSubstr("refused: "));

  std::string forged = der;
  forged[forged.find("web-1")] = 'x';
  EXPECT_THAT(reason(forged, kNow), HasSubstr("signature"));
}

TEST_F(IssuerTest, RefusesBytesThatAreNotOneCertificate) {
  const Issuer issuer = open_issuer();
  const std::string der = to_der(issuer.issue(Purpose::client_kubelet, node("web-1"), {}, kNow)->leaf_pem);
  EXPECT_THAT(issuer.authenticate("", kNow).error().message, HasSubstr("not readable"));
  EXPECT_THAT(issuer.authenticate("hello", kNow).error().message, HasSubstr("not readable"));
  EXPECT_THAT(issuer.authenticate(der + "x", kNow).error().message, HasSubstr("other bytes"));
  EXPECT_THAT(issuer.authenticate(der + der, kNow).error().message, HasSubstr("other bytes"));
  EXPECT_THAT(issuer.authenticate(std::string((16 << 10) + 1, '0'), kNow).error().message, HasSubstr("16 KiB"));
  for (std::size_t length = 0; length < der.size(); ++length)
    EXPECT_FALSE(issuer.authenticate(std::string_view(der).substr(0, length), kNow)) << length;
}

TEST_F(IssuerTest, RefusesSubjectsThatCouldBeMistaken) {
  const Issuer issuer = open_issuer();
  const auto refuses = [&](const std::string& subject, const char* why) {
    const auto identity = issuer.authenticate(by_client_ca(subject), kLater);
    ASSERT_FALSE(identity) << subject;
    EXPECT_THAT(identity.error().message, HasSubstr(why)) << subject;
  };
  refuses("/O=system:nodes", "exactly one CN");
  refuses("/CN=system:node:a/CN=system:node:b", "exactly one CN");
  refuses("/CN=a\nb", "unprintable");
  refuses("/O=x\x1By/CN=a", "unprintable");
}

// The command line cannot put a NUL into a subject, so this one is built with the library.
TEST_F(IssuerTest, RefusesNulInACommonName) {
  const Issuer issuer = open_issuer();
  const std::string pem = file_bytes(tls("client-ca.crt")) + file_bytes(tls("client-ca.key"));
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())),
                                                          &BIO_free_all);
  const std::unique_ptr<X509, decltype(&X509_free)> authority(
      PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), &X509_free);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
      PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
  ASSERT_TRUE(authority && key);
  for (const bool with_nul : {false, true}) {
    const std::string name("system:node:a\0evil", with_nul ? 18 : 13);
    const std::unique_ptr<X509, decltype(&X509_free)> x509(X509_new(), &X509_free);
    ASN1_INTEGER_set(X509_get_serialNumber(x509.get()), 5);
    X509_set_version(x509.get(), X509_VERSION_3);
    ASN1_TIME_set(X509_getm_notBefore(x509.get()), kLater.micros / 1'000'000 - 3600);
    ASN1_TIME_set(X509_getm_notAfter(x509.get()), kLater.micros / 1'000'000 + 3600);
    X509_set_issuer_name(x509.get(), X509_get_subject_name(authority.get()));
    X509_NAME_add_entry_by_NID(X509_get_subject_name(x509.get()), NID_commonName, V_ASN1_UTF8STRING,
                               reinterpret_cast<const unsigned char*>(name.data()), static_cast<int>(name.size()),
                               -1, 0);
    X509_set_pubkey(x509.get(), key.get());
    ASSERT_GT(X509_sign(x509.get(), key.get(), EVP_sha256()), 0);
    unsigned char* bytes = nullptr;
    const int length = i2d_X509(x509.get(), &bytes);
    const auto identity =
        issuer.authenticate({reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length)}, kLater);
    OPENSSL_free(bytes);
    ASSERT_EQ(identity.has_value(), !with_nul);
    if (with_nul) {
      EXPECT_THAT(identity.error().message, HasSubstr("unprintable"));
    }
  }
}

// ---- towards an upstream -----------------------------------------------------------------------------------

TEST_F(IssuerTest, AClientOfAnySubjectIsOurOwnForADay) {
  const Issuer issuer = open_issuer();
  const auto issued = issuer.issue_client("system:node:web-1", {"system:nodes", "more"}, kNow);
  ASSERT_TRUE(issued);
  const auto identity = issuer.authenticate(to_der(issued->leaf_pem), kNow);
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->common_name, "system:node:web-1");
  EXPECT_THAT(identity->organizations, ElementsAre("system:nodes", "more"));
  EXPECT_EQ(issued->not_after, kNow.plus_seconds(kDay));
  EXPECT_FALSE(issuer.authenticate(to_der(issued->leaf_pem), kNow.plus_seconds(kDay + 1)));
  EXPECT_FALSE(issued->key_pem.empty());
}

TEST_F(IssuerTest, TheFrontProxyIsOfTheRequestHeaderAuthority) {
  const auto without = open_issuer().issue_front_proxy(kNow);
  ASSERT_FALSE(without);
  EXPECT_EQ(without.error().code, Errc::not_found);
  EXPECT_THAT(without.error().message, HasSubstr("ledger adopt"));

  openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 10 -subj /CN=k3s-request-header-ca@1 -keyout " +
          shell_quoted(dir_.path() / "tls/request-header-ca.key") + " -out " +
          shell_quoted(dir_.path() / "tls/request-header-ca.crt") + " 2>/dev/null");
  const Issuer issuer = open_issuer();
  const auto issued = issuer.issue_front_proxy(kLater);
  ASSERT_TRUE(issued) << issued.error().message;
  EXPECT_EQ(issued->subject, "CN=system:auth-proxy");
  put_file(dir_.path() / "proxy.crt", issued->leaf_pem);
  EXPECT_THAT(openssl("verify -purpose sslclient -CAfile " + shell_quoted(dir_.path() / "tls/request-header-ca.crt") + " " +
                      shell_quoted(dir_.path() / "proxy.crt")),
              HasSubstr("OK"));
  // The client CA did not sign it: it is nobody to those who know only that.
  EXPECT_FALSE(issuer.authenticate(to_der(issued->leaf_pem), kLater));
}

TEST_F(IssuerTest, ARequestHeaderAuthorityThatCannotBeUsedStopsOnlyForwarding) {
  open_issuer();
  put_file(dir_.path() / "tls/request-header-ca.crt", "not PEM");
  const Issuer issuer = open_issuer();
  EXPECT_TRUE(issuer.issue(Purpose::client_kube_proxy, {}, {}, kNow));
  const auto refused = issuer.issue_front_proxy(kNow);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("request-header-ca"));
}

TEST(PurposeTest, NamesAreThoseOfTheLog) {
  EXPECT_EQ(name_of(Purpose::serving_kubelet), "serving-kubelet");
  EXPECT_EQ(name_of(Purpose::client_kubelet), "client-kubelet");
  EXPECT_EQ(name_of(Purpose::client_kube_proxy), "client-kube-proxy");
  EXPECT_EQ(name_of(Purpose::client_program_controller), "client-k3s-controller");
}

}  // namespace
}  // namespace ledger
