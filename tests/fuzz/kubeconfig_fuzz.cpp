// Whatever stands in a kubeconfig: access or an error that can be printed, no exception, and nothing that would
// split a request's first line.
//
// Input: the file's text. Run it with an empty standard input: the text may name any file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>

#include "api/kubeconfig.h"
#include "ledger/credentials.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

bool is_printable(const std::string& text) { return ledger::printable(text, text.size()) == text; }

std::filesystem::path own_file() {
  static const std::filesystem::path path = [] {
    std::string pattern = (std::filesystem::temp_directory_path() / "kubeconfig-fuzz-XXXXXX").string();
    require(::mkdtemp(pattern.data()) != nullptr);
    return std::filesystem::path(pattern) / "config";
  }();
  return path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  require(ledger::write_file(own_file(), text, 0600).has_value());
  for (const bool insecure : {false, true}) {
    const auto access = ledger::api::read_kubeconfig({own_file(), "", insecure});
    if (!access) {
      require(is_printable(access.error().message));
      continue;
    }
    require(insecure || access->https.trust != ledger::api::HttpsTrust::anyone);
    require(is_printable(access->prefix) && access->prefix.find(' ') == std::string::npos);
    require(access->https.cert_pem.empty() == access->https.key_pem.empty());
  }
  return 0;
}
