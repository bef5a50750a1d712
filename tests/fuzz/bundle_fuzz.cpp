// Bundles come from people whom their readers do not trust: no crash, bounded memory, and nothing that was not signed
// holds. The input is a manifest, a frame, or a whole tar.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "replay/bundle_check.h"
#include "replay/bundle_files.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

// Of a key that nobody here has.
const ledger::NoteVerifier& key() {
  static const auto kKey =
      ledger::NoteVerifier::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
  return *kKey;
}

void check_as_tar(std::string_view bytes) {
  const int fd = ::memfd_create("bundle", MFD_CLOEXEC);
  require(fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const auto report = ledger::replay::check_bundle(path, {.key = key(), .earlier = {}, .version = "0.1.0"});
  require(!report || !report->holds());
  (void)ledger::replay::check_bundle(path, {.key = {}, .earlier = {}, .version = "0.1.0"});
  (void)ledger::replay::read_earlier(path);
  ::close(fd);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto manifest = ledger::replay::parse_manifest(text)) {
    require(ledger::replay::manifest_text(*manifest) == text);
    (void)ledger::replay::readme_text(*manifest);
    (void)ledger::replay::sums_text(*manifest);
  }
  if (size >= ledger::replay::RecordFrame::kSize) {
    const auto frame = ledger::replay::parse_frame(text);
    const std::string again = ledger::replay::frame_of(frame.seq, std::string(frame.length % 100, 'x'));
    require(ledger::replay::parse_frame(again).seq == frame.seq);
  }
  check_as_tar(text);
  return 0;
}
