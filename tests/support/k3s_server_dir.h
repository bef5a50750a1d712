// Server directories as k3s and RKE2 lay them out, made by the openssl command line alone, so that nothing of what
// is tested is used to make them. The CA hashes of tokens are computed with openssl and sha256sum as well.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "tests/support/run_command.h"

namespace ledger::test {

class K3sServerDir {
 public:
  struct Options {
    std::string program = "k3s";
    std::string key = "EC P-256";  // or EC P-384, RSA 2048, RSA 4096
    bool bundle = false;           // server-ca and client-ca: intermediate (the signer), another one, root
    bool crlf = false;             // in the .crt files
    bool comments = false;         // text before, between and after the PEM blocks
    bool last_newline = true;
    std::string password = "2f0c8d5e7a9b4c61d3e2f1a0b9c8d7e6";
    std::string agent_password;  // empty: the same
    bool raw_hash = false;       // of a bundle, as servers before v1.26.2 wrote it
    bool absolute_link = false;  // node-token -> <directory>/token, as k3s links it
  };

  explicit K3sServerDir(std::filesystem::path path) : K3sServerDir(std::move(path), Options()) {}
  K3sServerDir(std::filesystem::path path, Options options) : path_(std::move(path)), options_(std::move(options)) {
    std::filesystem::create_directories(path_ / "tls");
    std::filesystem::create_directories(path_ / "cred");
    for (const char* stem : {"client-ca", "server-ca", "request-header-ca"}) make_authority(stem);
    run("openssl genrsa -out tls/service.key 2048 2>&1");
    make_leaf(
        "server-ca", "serving-kube-apiserver", "/CN=kube-apiserver",
        "subjectAltName=DNS:kubernetes,DNS:localhost,DNS:api.example.org,IP:10.43.0.1,IP:127.0.0.1,IP:10.9.8.7,"
        "IP:fd00::7");
    put_file(path_ / "tls/dynamic-cert.json", dynamic_cert());
    put_secret("cred/ipsec.psk", std::string(96, 'a') + "\n");
    write_passwd();
    write_tokens();
    run("chmod 0700 tls cred; chmod 0600 tls/*.key");
  }

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const Options& options() const { return options_; }
  const std::string& agent_password() const {
    return options_.agent_password.empty() ? options_.password : options_.agent_password;
  }

  // CA hashes by the two rules; equal for one certificate.
  std::string raw_hash() const { return run("sha256sum < tls/server-ca.crt").substr(0, 64); }
  std::string root_hash() const {
    if (!options_.bundle) return raw_hash();
    return run("openssl x509 -in " + root("server-ca") + " -outform DER | sha256sum").substr(0, 64);
  }
  std::string token_hash() const { return options_.raw_hash ? raw_hash() : root_hash(); }
  // The certificate that everything chains to, and nothing else: what a verifier is given.
  std::string root(const std::string& stem) const {
    return options_.bundle ? "made/" + stem + "-root.crt" : "tls/" + stem + ".crt";
  }

  // A client certificate as the server handed it out before: made/<name>.crt and .key.
  void make_client(const std::string& name, const std::string& subject) const {
    make_leaf("client-ca", name, subject, "extendedKeyUsage=clientAuth", "made/");
  }

  void write_passwd() const {
    const std::string groups = options_.program + ":";
    put_secret("cred/passwd", options_.password + ",server,server," + groups + "server\n" + agent_password() +
                                  ",node,node," + groups + "agent\n" + "0123,admin,admin,system:masters\n");
  }
  void write_tokens() const {
    put_secret("token", "K10" + token_hash() + "::server:" + options_.password + "\n");
    run(options_.absolute_link ? "ln -sfn \"$PWD/token\" node-token" : "ln -sfn token node-token");
    if (options_.agent_password.empty())
      run("ln -sfn token agent-token");
    else
      put_secret("agent-token", "K10" + token_hash() + "::node:" + agent_password() + "\n");
  }
  void put_secret(const std::string& name, const std::string& bytes) const {
    std::filesystem::remove(path_ / name);
    put_file(path_ / name, bytes);
    ::chmod((path_ / name).c_str(), 0600);
  }

  // In the directory; what it says. Fails the test when it fails.
  std::string run(const std::string& command) const {
    const CommandResult result = run_command("cd '" + path_.string() + "' && { " + command + "\n}");
    EXPECT_EQ(result.status, 0) << command << "\n" << result.output;
    return result.output;
  }
  // Names, modes, times of change and contents of everything: what "only read" leaves the same.
  std::string listing() const {
    return run("find . -printf '%p %M %T@ %C@ %l\\n' | sort; find . -type f | sort | xargs -d '\\n' sha256sum");
  }

 private:
  static constexpr const char* kAuthority =
      "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature,keyEncipherment,keyCertSign\n"
      "subjectKeyIdentifier=hash\n";

  // A key in the form k3s writes.
  void make_key(const std::string& file) const {
    if (options_.key.starts_with("RSA"))
      run("openssl genrsa -traditional -out " + file + " " + options_.key.substr(4) + " 2>&1");
    else
      run("openssl ecparam -name " + std::string(options_.key == "EC P-384" ? "secp384r1" : "prime256v1") +
          " -genkey -noout -out " + file);
  }
  void make_self_signed(const std::string& subject, const std::string& key, const std::string& certificate) const {
    put_file(path_ / "made/ext", kAuthority);
    run("openssl req -new -key " + key + " -subj '" + subject +
        "' -out made/csr && openssl x509 -req -in made/csr -signkey " + key +
        " -days 3650 -set_serial 0 -extfile made/ext -out " + certificate + " 2>&1");
  }
  void make_below(const std::string& subject, const std::string& stem, const std::string& parent) const {
    put_file(path_ / "made/ext", std::string(kAuthority) + "authorityKeyIdentifier=keyid\n");
    make_key(stem + ".key");
    run("openssl req -new -key " + stem + ".key -subj '" + subject +
        "' -out made/csr && openssl x509 -req -in made/csr -CA " + parent + ".crt -CAkey " + parent +
        ".key -days 3000 -set_serial 0x" + std::to_string(subject.size()) + "07 -extfile made/ext -out " + stem +
        ".crt 2>&1");
  }

  void make_authority(const std::string& stem) const {
    std::filesystem::create_directories(path_ / "made");
    const std::string name = "/CN=" + options_.program + "-" + stem, made = "made/" + stem;
    if (!options_.bundle || stem == "request-header-ca") {
      make_key("tls/" + stem + ".key");
      make_self_signed(name + "@1700000000", "tls/" + stem + ".key", made + ".crt");
      write_bundle(stem, {made + ".crt"});
      return;
    }
    make_key(made + "-root.key");
    make_self_signed(name + "-root", made + "-root.key", made + "-root.crt");
    make_below(name + "-intermediate", made + "-between", made + "-root");
    make_below(name + "@1700000000", made, made + "-between");
    run("cp " + made + ".key tls/" + stem + ".key");
    write_bundle(stem, {made + ".crt", made + "-between.crt", made + "-root.crt"});
  }

  void write_bundle(const std::string& stem, std::initializer_list<std::string> certificates) const {
    std::string text = options_.comments ? "# made for a test\n" : "";
    for (const std::string& certificate : certificates) {
      if (options_.comments) text += "Subject: " + certificate + "\n\n";
      text += file_bytes(path_ / certificate);
    }
    if (options_.comments) text += "# the end\n";
    if (!options_.last_newline) text.pop_back();
    if (options_.crlf)
      for (std::size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 2) text.insert(at, 1, '\r');
    put_file(path_ / ("tls/" + stem + ".crt"), text);
  }

  void make_leaf(const std::string& authority, const std::string& name, const std::string& subject,
                 const std::string& extensions, const std::string& folder = "tls/") const {
    put_file(path_ / "made/ext", extensions + "\n");
    const std::string leaf = folder + name;
    run("openssl ecparam -name prime256v1 -genkey -noout -out " + leaf + ".key && openssl req -new -key " + leaf +
        ".key -subj '" + subject + "' -out made/csr && openssl x509 -req -in made/csr -CA made/" + authority +
        ".crt -CAkey tls/" + authority + ".key -days 365 -set_serial 0x4711 -extfile made/ext -out " + leaf +
        ".crt 2>&1");
  }

  std::string dynamic_cert() const {
    return R"({"metadata":{"creationTimestamp":null,"annotations":{"listener.cattle.io/cn-10.0.0.5":"10.0.0.5",)"
           R"("listener.cattle.io/cn-kubernetes":"kubernetes","listener.cattle.io/cn-old.example.org":"old.example.org",)"
           R"("listener.cattle.io/cn-__1-f16284":"::1","listener.cattle.io/fingerprint":"SHA1=00FF"}},)"
           R"("data":{"tls.crt":"AAAA","tls.key":"c2VjcmV0"},"type":"kubernetes.io/tls"})"
           "\n";
  }

  std::filesystem::path path_;
  Options options_;
};

}  // namespace ledger::test
