// What a registration costs, and that it costs the same with 100 times the nodes.
//
//   registration_bench [--seconds S] [--rounds R] [--small N] [--large N]
//
// Two real servers, one with few nodes stored and one with many, are loaded in turns by the same clients: known
// nodes asking for their serving certificate (token check, password check, certificate, three records, one
// sync). Printed per connection style: requests per second, server CPU per request (from /proc), the ratio of
// the large store to the small one (limit 1.2), and for comparison what k3s computes per password check
// (scrypt N=2^15 r=8 p=1) on this machine in the same run.

#include <fmt/format.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <random>
#include <thread>

#include "ledger/ledger.h"
#include "tests/support/server_process.h"
#include "tests/support/temp_dir.h"

namespace ledger {
namespace {

using Clock = std::chrono::steady_clock;

struct Settings {
  double seconds = 2;
  int rounds = 5;
  int small = 1000, large = 100'000;
  int clients = 8;
};

std::string node_name(int i) { return "node-" + std::to_string(i); }
std::string node_password(int i) { return "password-of-" + std::to_string(i); }

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// utime + stime of a process, in seconds.
double cpu_seconds(pid_t pid) {
  const std::string stat = test::file_bytes("/proc/" + std::to_string(pid) + "/stat");
  std::istringstream fields(stat.substr(stat.rfind(')') + 2));
  std::string skipped;
  double user = 0, system = 0;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  fields >> user >> system;
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// Fills a fresh data directory with bound nodes through the ledger itself.
void store_nodes(const std::filesystem::path& data_dir, int count) {
  {
    test::ServerProcess once(data_dir);  // makes keys and tokens
    if (!once.start()) fatal("cannot start: " + once.errors());
    once.stop();
  }
  const auto credentials = Credentials::open({.data_dir = data_dir, .token = {}, .agent_token = {}, .log_exists = true});
  Ledger::Options options;
  options.log.dir = data_dir / "events";
  options.server_name = "bench";
  auto ledger = Ledger::open(std::move(options));
  if (!credentials || !ledger) fatal("cannot fill the store");
  for (int i = 0; i < count;) {
    Proposal proposal;
    for (int n = 0; n < 1000 && i < count; ++n, ++i) {
      Record record;
      record.event = PasswordStored{credentials->fingerprint_of_password(Secret(node_password(i)))};
      record.node = node_name(i);
      record.source = "10.0.0.1";
      proposal.records.push_back(std::move(record));
    }
    if (!(*ledger)->append_and_wait(std::move(proposal))) fatal("cannot store nodes");
  }
}

struct Measured {
  double per_second = 0, cpu_ms = 0;
};

// Clients as fast as they can for `seconds`. `first_new` >= 0: nodes nobody has seen, numbered from there.
Measured load(const test::ServerProcess& server, const Settings& settings, int stored, bool keep_alive,
              std::atomic<int>* first_new) {
  std::atomic<int> done{0};
  std::atomic<bool> over{false};
  const double cpu_before = cpu_seconds(server.pid());
  const auto start = Clock::now();
  std::vector<std::thread> clients;
  for (int c = 0; c < settings.clients; ++c)
    clients.emplace_back([&, c] {
      std::mt19937 random(static_cast<unsigned>(c));
      auto https = server.client(keep_alive);
      while (!over) {
        const int node = first_new != nullptr ? (*first_new)++ : static_cast<int>(random() % static_cast<unsigned>(stored));
        const auto response = https.send(test::kubelet_request(server, node_name(node), node_password(node)));
        if (!response || response->status != 200)
          fatal("a request failed: " + (response ? response->body : response.error().message));
        ++done;
      }
    });
  std::this_thread::sleep_for(std::chrono::duration<double>(settings.seconds));
  over = true;
  for (std::thread& client : clients) client.join();
  const double elapsed = seconds_since(start);
  return {done / elapsed, (cpu_seconds(server.pid()) - cpu_before) * 1000 / done};
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double scrypt_ms() {
  unsigned char key[64];
  const unsigned char salt[] = "0001020304050607";
  const auto start = Clock::now();
  constexpr int kTimes = 5;
  for (int i = 0; i < kTimes; ++i)
    EVP_PBE_scrypt("0123456789abcdef0123456789abcdef", 32, salt, sizeof salt - 1, 1 << 15, 8, 1, 64ULL << 20, key,
                   sizeof key);
  return seconds_since(start) * 1000 / kTimes;
}

struct Series {
  std::vector<double> per_second, cpu_ms;
  void add(const Measured& m) {
    per_second.push_back(m.per_second);
    cpu_ms.push_back(m.cpu_ms);
  }
};

int run(const Settings& settings) {
  test::TempDir dir;
  test::ServerProcess small(dir / "small"), large(dir / "large");
  store_nodes(small.data_dir(), settings.small);
  store_nodes(large.data_dir(), settings.large);
  if (!small.start() || !large.start()) fatal("cannot start a server");
  const double scrypt = scrypt_ms();
  fmt::print("{} clients, {} rounds of {} s each; k3s' scrypt per password check here: {:.1f} ms\n\n", settings.clients,
             settings.rounds, settings.seconds, scrypt);
  fmt::print("{:<28} {:>12} {:>14} {:>14} {:>10}\n", "", "stored", "requests/s", "server CPU ms", "scrypt/CPU");
  bool within = true;
  for (const bool keep_alive : {false, true}) {
    Series few, many;
    for (int round = 0; round < settings.rounds; ++round) {
      few.add(load(small, settings, settings.small, keep_alive, nullptr));
      many.add(load(large, settings, settings.large, keep_alive, nullptr));
    }
    const char* style = keep_alive ? "known node, keep-alive" : "known node, fresh TLS";
    for (const auto& [series, stored] : {std::pair(&few, settings.small), std::pair(&many, settings.large)})
      fmt::print("{:<28} {:>12} {:>14.0f} {:>14.3f} {:>10.0f}\n", style, stored, median(series->per_second),
                 median(series->cpu_ms), scrypt / median(series->cpu_ms));
    const double cpu_ratio = median(many.cpu_ms) / median(few.cpu_ms);
    const double rate_ratio = median(few.per_second) / median(many.per_second);
    fmt::print("{:<28} CPU ratio {:.3f}, rate ratio {:.3f} (limit 1.2)\n\n", "", cpu_ratio, rate_ratio);
    within = within && cpu_ratio <= 1.2 && rate_ratio <= 1.2;
  }
  std::atomic<int> fresh{10'000'000};
  const Measured joining = load(large, settings, settings.large, false, &fresh);
  fmt::print("{:<28} {:>12} {:>14.0f} {:>14.3f}\n", "new node, fresh TLS", settings.large, joining.per_second,
             joining.cpu_ms);
  fmt::print("\n{}\n", within ? "within the limit" : "OVER THE LIMIT");
  return within ? 0 : 1;
}

}  // namespace
}  // namespace ledger

int main(int argc, char** argv) {
  ledger::Settings settings;
  for (int i = 1; i + 1 < argc; i += 2) {
    const double value = std::atof(argv[i + 1]);
    if (std::strcmp(argv[i], "--seconds") == 0) settings.seconds = value;
    if (std::strcmp(argv[i], "--rounds") == 0) settings.rounds = static_cast<int>(value);
    if (std::strcmp(argv[i], "--small") == 0) settings.small = static_cast<int>(value);
    if (std::strcmp(argv[i], "--large") == 0) settings.large = static_cast<int>(value);
  }
  return ledger::run(settings);
}
