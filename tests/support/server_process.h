// The real `ledger serve` in a process of its own, to be stopped politely or killed; and requests to it.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "api/https_client.h"
#include "ledger/credentials.h"
#include "tests/support/paths.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"

namespace ledger::test {

class ServerProcess {
 public:
  // `binary`: the program, or a script that becomes it.
  explicit ServerProcess(std::filesystem::path data_dir, std::vector<std::string> options = {},
                         std::string binary = test::ledger_binary())
      : data_dir_(std::move(data_dir)), options_(std::move(options)), binary_(std::move(binary)) {}
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;
  ~ServerProcess() {
    if (pid_ > 0) kill_now();
  }

  // True when the server says that it is ready.
  bool start() {
    int out[2];
    if (::pipe(out) != 0) return false;
    std::vector<std::string> words = {binary_, "serve", "--data-dir", data_dir_.string(), "--listen",
                                      "127.0.0.1", "--https-port", std::to_string(port_)};
    words.insert(words.end(), options_.begin(), options_.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const std::string err = said_ / "stderr";
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(out[1], 1);
      const int fd = ::open(err.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      if (fd >= 0) ::dup2(fd, 2);
      ::close(out[0]);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(out[1]);
    // The port is kept over restarts, as an operator's would be; the first start chooses it.
    std::string said;
    char byte;
    while (said.find("\n") == std::string::npos && ::read(out[0], &byte, 1) == 1) said += byte;
    ::close(out[0]);
    const auto at = said.find("https://127.0.0.1:");
    if (said.find("ready") == std::string::npos || at == std::string::npos) return false;
    port_ = std::stoi(said.substr(at + 18));
    return true;
  }

  void kill_now() { end(SIGKILL); }
  // Exit status; 128 + n after signal n.
  int stop() { return end(SIGTERM); }
  // The same, of a server that ends by itself.
  int wait() { return end(0); }
  pid_t pid() const { return pid_; }

  int port() const { return port_; }
  std::string url() const { return "https://127.0.0.1:" + std::to_string(port_); }
  const std::filesystem::path& data_dir() const { return data_dir_; }
  std::string ca() const { return file_bytes(data_dir_ / "tls" / "server-ca.crt"); }
  std::string errors() const { return file_bytes(said_ / "stderr"); }
  // Value of the Authorization header agents send.
  Secret agent_authorization() const {
    const std::string token(trim(file_bytes(data_dir_ / "token")));
    return Secret("Basic " + base64("node:" + token.substr(token.rfind(':') + 1)));
  }

  api::HttpsClient client(bool keep_alive = false) const {
    api::HttpsOptions options;
    options.connect_to = {"127.0.0.1", static_cast<std::uint16_t>(port_)};
    options.trust = api::HttpsTrust::bundle;
    options.bundle_pem = ca();
    options.keep_alive = keep_alive;
    return std::move(*api::HttpsClient::open(std::move(options)));
  }

 private:
  int end(int signal) {
    if (pid_ <= 0) return -1;
    ::kill(pid_, signal);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    const int exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    // What a server that did not end well said (a sanitizer's report, for one), for whoever reads the test's output.
    if (exit_status != 0 && signal != SIGKILL) std::fprintf(stderr, "the server said:\n%s\n", errors().c_str());
    return exit_status;
  }

  std::filesystem::path data_dir_;
  std::vector<std::string> options_;
  std::string binary_;
  TempDir said_;  // not beside the data, whose disk may be full
  pid_t pid_ = -1;
  int port_ = 0;
};

// A request for one of the kubelet certificates, as an agent of G2 and later makes it.
inline api::HttpsRequest kubelet_request(const ServerProcess& server, const std::string& node,
                                         const std::string& password, bool serving = true) {
  api::HttpsRequest request;
  request.target = serving ? "/v1-k3s/serving-kubelet.crt" : "/v1-k3s/client-kubelet.crt";
  request.authorization = server.agent_authorization();
  request.headers = {{"K3s-Node-Name", node}, {"K3s-Node-Password", password}, {"K3s-Node-Ip", "10.0.0.7"}};
  return request;
}

}  // namespace ledger::test
