// explain_bench: what an explanation costs when a log grows by records that have nothing to do with the node.
//
//   explain_bench ratio [RECORDS]      one node's story in a log of its own and in one with RECORDS others (1,000,000)
//                                      around it: equal answers, and the ratio of the times
//   explain_bench flood GIGABYTES      such a log as JSON Lines on standard output, the story spread over it
//   explain_bench read NODE            explains NODE from standard input; time, and the most memory it ever had
//
// `flood 10 | read web-1` is 10 GB through one pipe. Exit status: 0, 1 when the ratio is above its limit or the answers
// differ, 2 wrong usage.
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "ledger/event_json.h"
#include "ledger/event_log.h"
#include "ledger/node_table.h"
#include "replay/explain.h"
#include "replay/render.h"

namespace ledger {
namespace {

// Once with a cold cache and a log 50,000 times as long: the index is deeper, and that is all.
constexpr double kLimit = 5;
constexpr const char* kNode = "web-1";

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The twenty records of a machine that was rebuilt.
Record of_story(Seq step) {
  Record record;
  record.node = kNode;
  record.source = "10.0.0.5:40000";
  if (step == 0) record.event = PasswordStored{{"a41c09d2a41c09d2"}};
  else if (step < 8) record.event = PasswordVerified{{"a41c09d2a41c09d2"}};
  else record.event = PasswordRejected{{"77e0c1b577e0c1b5"}, {"a41c09d2a41c09d2"}, 403};
  return record;
}
constexpr Seq kStory = 20;

// Registrations and refusals of 50,000 other machines.
Record of_others(Seq number) {
  const Seq machine = number % 50'000;
  Record record;
  record.node = fmt::format("other-{}", machine);
  record.source = fmt::format("10.{}.{}.{}:4242", 1 + machine / 65'536, machine / 256 % 256, machine % 256);
  record.endpoint = "/v1-k3s/serving-kubelet.crt";
  record.request_id = fmt::format("{:016x}", number);
  record.server = "srv-1";
  record.epoch = 1;
  const Fingerprint password{fmt::format("{:032x}", machine)};
  if (number < 50'000) record.event = PasswordStored{password};
  else if (number % 3 == 0) record.event = PasswordRejected{{fmt::format("{:032x}", number)}, password, 403};
  else record.event = PasswordVerified{password};
  return record;
}

// The story's record at this place of a log of `total`, if there is one; its time goes on by what stands between.
bool is_storys(Seq seq, Seq total, Seq& step) {
  const Seq every = std::max<Seq>(total / kStory, 1);
  if (seq % every != 0 || seq / every == 0 || seq / every > kStory) return false;
  step = seq / every - 1;
  return true;
}

Record at(Seq seq, Seq total) {
  Seq step = 0;
  Record record = is_storys(seq, total, step) ? of_story(step) : of_others(seq);
  // The story takes the same twenty days however many records stand between.
  const double share = static_cast<double>(seq) / static_cast<double>(total);
  record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(share * 20 * 86400));
  record.seq = seq;
  return record;
}

struct Timed {
  std::string answer;
  double seconds = 0;  // the median of many
};

Timed explained(const std::filesystem::path& dir, Seq total) {
  std::filesystem::remove_all(dir);
  auto log = EventLog::open({.dir = dir.string()});
  if (!log) fatal(log.error().message);
  NodeTable table;
  std::vector<Record> batch;
  std::vector<EventLog::NodeEntry> nodes;
  for (Seq seq = 1; seq <= total; ++seq) {
    batch.push_back(at(seq, total));
    if (const NodeState* state = table.apply(batch.back())) nodes.emplace_back(batch.back().node, *state);
    if (batch.size() < 2000 && seq != total) continue;
    if (const Result<void> appended = (*log)->append(batch, nodes); !appended) fatal(appended.error().message);
    batch.clear(), nodes.clear();
  }
  Timed timed;
  std::vector<double> rounds;
  for (int i = 0; i < 101; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const Result<replay::History> history = replay::history_from_log(**log, kNode);
    if (!history) fatal(history.error().message);
    const replay::Explanation explanation = replay::explain(*history);
    rounds.push_back(seconds_since(start));
    timed.answer = fmt::format("{} {}, {} records, {} facts", replay::name_of(explanation.cause),
                               replay::name_of(explanation.confidence), history->records.size(),
                               explanation.evidence.size());
  }
  std::nth_element(rounds.begin(), rounds.begin() + 50, rounds.end());
  timed.seconds = rounds[50];
  std::filesystem::remove_all(dir);
  return timed;
}

int ratio(Seq others) {
  const auto dir = std::filesystem::temp_directory_path() / fmt::format("explain-bench-{}", getpid());
  const Timed alone = explained(dir, kStory);
  const Timed among = explained(dir, kStory + others);
  const double times = among.seconds / alone.seconds;
  fmt::print("alone: {}\namong {} others: {}\n", alone.answer, others, among.answer);
  fmt::print("explaining takes {:.2f} times as long in a log {} times as long (limit {:.0f})\n", times,
             (kStory + others) / kStory, kLimit);
  return alone.answer == among.answer && times <= kLimit ? 0 : 1;
}

int flood(std::uint64_t gigabytes) {
  constexpr std::uint64_t kLine = 290;  // about
  const Seq total = gigabytes * 1'000'000'000 / kLine;
  std::uint64_t written = 0;
  for (Seq seq = 1; seq <= total; ++seq) {
    const std::string line = to_json_line(at(seq, total)) + "\n";
    if (std::fwrite(line.data(), 1, line.size(), stdout) != line.size()) return 1;
    written += line.size();
  }
  fmt::print(stderr, "{} lines, {:.2f} GB\n", total, static_cast<double>(written) / 1e9);
  return 0;
}

int read(const std::string& node) {
  const auto start = std::chrono::steady_clock::now();
  const Result<replay::History> history = replay::history_from_jsonl("-", node);
  if (!history) fatal(history.error().message);
  const replay::Explanation explanation = replay::explain(*history);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  fmt::print("{} {}, {} records considered, {} holes\n", replay::name_of(explanation.cause),
             replay::name_of(explanation.confidence), history->records.size(),
             history->holes.size() + history->holes_left_out);
  fmt::print("{:.0f} s, at most {:.1f} MiB of memory\n", seconds_since(start), static_cast<double>(usage.ru_maxrss) / 1024);
  return 0;
}

}  // namespace
}  // namespace ledger

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  const std::string argument = argc > 2 ? argv[2] : "";
  if (mode == "ratio") return ledger::ratio(argument.empty() ? 1'000'000 : std::strtoull(argument.c_str(), nullptr, 10));
  if (mode == "flood" && !argument.empty()) return ledger::flood(std::strtoull(argument.c_str(), nullptr, 10));
  if (mode == "read" && !argument.empty()) return ledger::read(argument);
  fmt::print(stderr, "usage: explain_bench ratio [RECORDS] | flood GIGABYTES | read NODE\n");
  return 2;
}
