#include "tests/support/paths.h"

namespace ledger::test {

const std::string& source_dir() {
  static const std::string path = LEDGER_SOURCE_DIR;
  return path;
}

const std::string& ledger_binary() {
  static const std::string path = LEDGER_BINARY;
  return path;
}

}  // namespace ledger::test
