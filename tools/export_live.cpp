#include "tools/export_live.h"

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "api/delivery.h"
#include "api/webhook.h"
#include "ledger/credentials.h"
#include "tools/commands.h"
#include "tools/export_file.h"
#include "tools/followed_log.h"
#include "tools/stop_signal.h"

namespace ledger::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kEvery{250};
constexpr int kGiveUp = 5;  // attempts in a row, unless following
constexpr replay::TailLimits kIntoFile{.records = 4096, .bytes = 1 << 20, .looked_at = 8192};

// A file: what is written is on the disk before it counts as taken.
class IntoFile : public api::Destination {
 public:
  IntoFile(ExportFile& file, std::string path, std::uint64_t& length)
      : file_(file), path_(std::move(path)), length_(length) {}
  std::string name() const override { return path_; }
  api::Attempt deliver(const api::Batch& batch) override {
    bool written = true;
    for (const replay::TailLine& line : batch.lines) written = written && file_.write(line.text);
    const Result<std::uint64_t> length = file_.finish();
    if (!length) return {api::Attempt::Outcome::ended, length.error().message};
    if (!written)
      return {api::Attempt::Outcome::ended,
              "cannot write " + printable(path_, 200) + "; check the room on the disk it is on"};
    length_ = *length;
    return {};
  }

 private:
  ExportFile& file_;
  const std::string path_;
  std::uint64_t& length_;
};

class IntoStdout : public api::Destination {
 public:
  explicit IntoStdout(const StopSignal& stop) : stop_(stop) {}
  std::string name() const override { return "standard output"; }
  api::Attempt deliver(const api::Batch& batch) override {
    std::string text;
    for (const replay::TailLine& line : batch.lines) text += line.text;
    if (stop_.write_stdout(text)) return {};
    const int reason = errno;
    closed_ = stop_.asked() || reason == EPIPE;
    return {api::Attempt::Outcome::ended,
            "the export could not be written to standard output: " + std::generic_category().message(reason)};
  }
  // Ended because nobody reads, or nobody wants, any more.
  bool closed() const { return closed_; }

 private:
  const StopSignal& stop_;
  bool closed_ = false;
};

Result<void> read_files(LiveExport& live, const StopSignal& stop) {
  const auto wrong = [](const char* option, const Error& error) {
    return Error{error.code == Errc::not_found ? Errc::invalid : error.code, std::string(option) + ": " + error.message};
  };
  const auto text = [&](const char* option, const std::string& path, std::string& into) -> Result<void> {
    if (path.empty()) return {};
    Result<std::string> read = read_file(path);
    if (!read) return wrong(option, read.error());
    into = std::move(*read);
    return {};
  };
  if (const Result<void> ca = text("--send-ca", live.ca_file, live.destination.ca_pem); !ca) return ca;
  if (const Result<void> cert = text("--send-cert", live.cert_file, live.destination.cert_pem); !cert) return cert;
  if (!live.key_file.empty()) {
    Result<Secret> key = read_foreign_secret(live.key_file);
    if (!key) return wrong("--send-key", key.error());
    live.destination.key_pem = std::move(*key);
  }
  if (!live.sign_key_file.empty()) {
    const Result<Secret> file = read_foreign_secret(live.sign_key_file, 4096);
    if (!file) return wrong("--sign-key", file.error());
    Result<std::vector<Secret>> keys = api::parse_sign_keys(*file);
    if (!keys) return wrong("--sign-key", keys.error());
    live.destination.sign_keys = std::move(*keys);
  }
  live.destination.interrupt = &stop.asked();
  return {};
}

// The record before the first one that is asked for.
Result<Seq> before_first(const EventLog& log, const replay::Cut& from) {
  if (from.seq) return *from.seq == 0 ? 0 : *from.seq - 1;
  if (!from.time) return Seq{0};
  return replay::last_seq_until(log, Time{from.time->micros - 1});
}

Result<Seq> last_wanted(const EventLog& log, const replay::Cut& to) {
  if (to.time) return replay::last_seq_until(log, *to.time);
  return to.seq.value_or(UINT64_MAX);
}

// One run: the log, where it goes, and what is remembered.
class Run {
 public:
  Run(LiveExport live, FollowedLog log) : live_(std::move(live)), log_(std::move(log)) {}
  Result<void> prepare(const StopSignal& stop);
  int go(const StopSignal& stop);

 private:
  Result<void> open_file();
  Result<void> pass_on(api::Delivery& delivery, const StopSignal& stop);
  int report(const api::Delivery& delivery, const Result<void>& passed, const StopSignal& stop) const;

  LiveExport live_;
  FollowedLog log_;
  ExportCursor cursor_;
  std::optional<ExportFile> file_;
  std::unique_ptr<api::Destination> destination_;
  IntoStdout* stdout_ = nullptr;  // where it is the destination
  api::DeliveryOptions options_;
};

Result<void> Run::prepare(const StopSignal& stop) {
  live_.records.source.log = log_.log().id();
  cursor_ = {.log = log_.log().id(), .format = live_.format};
  if (live_.cursor.empty()) {
    const Result<Seq> before = before_first(log_.log(), live_.records.range.from);
    if (!before) return before.error();
    cursor_.seq = *before;
  } else {
    Result<ExportCursor> resumed = ExportCursor::resume(live_.cursor, log_.log(), live_.format);
    if (!resumed) return resumed.error();
    cursor_ = std::move(*resumed);
  }
  const Result<Seq> last = last_wanted(log_.log(), live_.records.range.to);
  if (!last) return last.error();
  if (!live_.destination.url.empty()) {
    Result<std::unique_ptr<api::Destination>> opened = api::open_destination(std::move(live_.destination));
    if (!opened) return opened.error();
    destination_ = std::move(*opened);
  } else if (const Result<void> opened = open_file(); !opened) {
    return opened;
  } else if (file_->is_stdout()) {
    auto out = std::make_unique<IntoStdout>(stop);
    stdout_ = out.get();
    destination_ = std::move(out);
  }
  options_.from = {.taken = cursor_.seq, .sending = cursor_.sending};
  options_.records = live_.records;
  if (file_) options_.batch = kIntoFile;
  options_.batch.until = *last;
  options_.resend = live_.resend;
  options_.longest_pause = std::chrono::seconds(live_.longest_pause_s);
  return {};
}

Result<void> Run::open_file() {
  Result<ExportFile> opened = ExportFile::append(live_.output, cursor_.bytes, live_.zstd);
  if (!opened) return opened.error();
  file_.emplace(std::move(*opened));
  const std::string header = cursor_.bytes == 0 ? replay::audit_header(live_.records.format) : "";
  if (file_->is_stdout()) {
    if (!header.empty() && cursor_.seq == 0) std::fputs(header.c_str(), stdout), std::fflush(stdout);
    return {};
  }
  if (!header.empty() && !file_->write(header)) return Error{Errc::io, "cannot write " + printable(live_.output, 200)};
  destination_ = std::make_unique<IntoFile>(*file_, live_.output, cursor_.bytes);
  return {};
}

int Run::go(const StopSignal& stop) {
  options_.tell = [&stop](const std::string& line) {
    if (!stop.asked()) std::fprintf(stderr, "ledger: %s\n", line.c_str());
  };
  if (!live_.cursor.empty())
    options_.keep = [this](const api::DeliveryMark& mark) -> Result<void> {
      if (file_ && mark.taken == cursor_.seq) return {};  // an output is cut back to its last batch, not told the next
      cursor_.seq = mark.taken;
      cursor_.sending = file_ ? 0 : mark.sending;
      return cursor_.write(live_.cursor);
    };
  api::Delivery delivery(*destination_, options_);
  if (live_.follow)
    std::fprintf(stderr, "ledger: following the log after record %llu, to %s; stop with Ctrl-C\n",
                 static_cast<unsigned long long>(cursor_.seq), printable(destination_->name(), 200).c_str());
  Result<void> passed = pass_on(delivery, stop);
  if (stdout_ != nullptr && stdout_->closed()) passed = {};
  const Result<void> finished = delivery.finish();
  if (passed && !finished) passed = finished;
  return report(delivery, passed, stop);
}

Result<void> Run::pass_on(api::Delivery& delivery, const StopSignal& stop) {
  Seq synced = 0;
  int unsettled = 0;
  Clock::time_point looked{};
  for (bool wanted = true; wanted && !stop.asked();) {
    if (live_.follow && Clock::now() - looked >= kEvery) {
      if (const Result<void> caught_up = log_.catch_up(); !caught_up) return caught_up;
      looked = Clock::now();
    }
    if (log_.log().head() > synced) {
      if (const Result<void> done = log_.sync(); !done) return done;
      synced = log_.log().head();
    }
    Result<api::Delivery::Step> step = delivery.step(log_.log());
    if (!step) return step.error();
    const bool until_reached = delivery.mark().taken >= options_.batch.until;
    if (!live_.follow && (step->idle || until_reached)) {
      step = delivery.settle(log_.log());
      if (!step) return step.error();
      if (step->idle) return {};
      ++unsettled;
    }
    if (!live_.follow && std::max(delivery.failures(), unsettled) >= kGiveUp)
      return Error{Errc::unavailable, destination_->name() + " did not take the records after " +
                                          std::to_string(delivery.mark().taken) + " in " + std::to_string(kGiveUp) +
                                          " attempts; run it again, or let it go on with --follow"};
    if (step->wait.count() > 0) wanted = stop.wait(step->wait);
    if (step->idle) wanted = stop.wait(kEvery, stdout_ != nullptr);
  }
  return {};
}

int Run::report(const api::Delivery& delivery, const Result<void>& passed, const StopSignal& stop) const {
  if (!passed) return fail(passed.error());
  if (stdout_ == nullptr)
    std::fprintf(stderr, "ledger: %s%llu records delivered to %s, up to record %llu\n", stop.asked() ? "stopped; " : "",
                 static_cast<unsigned long long>(delivery.delivered()), printable(destination_->name(), 200).c_str(),
                 static_cast<unsigned long long>(delivery.mark().taken));
  if (delivery.holes() == 0) return 0;
  return fail({Errc::corrupt, std::to_string(delivery.holes()) + " record(s) could not be read; `ledger verify` says what is " +
                                  "damaged"});
}

}  // namespace

int export_live(LiveExport live) {
  const StopSignal stop;
  const auto status_of = [](const Error& error) { return error.code == Errc::invalid ? 2 : 1; };
  if (const Result<void> read = read_files(live, stop); !read) return fail(read.error()), status_of(read.error());
  Result<FollowedLog> log = FollowedLog::open(live.data_dir);
  if (!log) return fail(log.error());
  Run run(std::move(live), std::move(*log));
  if (const Result<void> ready = run.prepare(stop); !ready) return fail(ready.error()), status_of(ready.error());
  return run.go(stop);
}

}  // namespace ledger::tools
