// Manual pages out of the same definitions that --help prints, so that the two cannot disagree.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace ledger::tools {

// The page of `program` itself or of one of its commands, as man(7) roff, section 1. A footer is written so: a line
// that ends with ':' heads a section of the indented lines below it, which stay as they are; "Exit status: ..." is
// a section too; everything else is prose of the description.
std::string man_page(const CLI::App& program, const CLI::App* command);

}  // namespace ledger::tools
