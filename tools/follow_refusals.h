// `ledger replay --follow`: prints what replay/follow.h tells, until a signal or until nobody reads any more.
#pragma once

#include <string>

namespace ledger::tools {

struct FollowArguments {
  std::string data_dir, node, since, format;
};

// Exit status: 0 stopped by SIGINT or SIGTERM, or standard output was closed; 1 the log cannot be read; 2 wrong usage.
int follow_refusals(const FollowArguments& arguments);

}  // namespace ledger::tools
