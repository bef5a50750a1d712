// Where the tree and the program under test are. One file knows, so that no other is compiled with a path.
#pragma once

#include <string>

namespace ledger::test {

const std::string& source_dir();     // the root of the tree
const std::string& ledger_binary();  // the `ledger` program of this build

}  // namespace ledger::test
