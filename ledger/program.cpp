#include "ledger/program.h"

#include <algorithm>
#include <array>

#include "ledger/types.h"

namespace ledger {
namespace {

constexpr std::array kPrograms = {&kK3s, &kRke2};

const Program* first_where(auto&& fits) {
  const auto found = std::find_if(kPrograms.begin(), kPrograms.end(), fits);
  return found == kPrograms.end() ? nullptr : *found;
}

}  // namespace

Result<const Program*> find_program(std::string_view name) {
  const Program* found = first_where([&](const Program* one) { return one->name == name; });
  if (found != nullptr) return found;
  return Error{Errc::invalid, "'" + printable(name, 40) + "' is no program whose agents can be served; use k3s or rke2"};
}

const Program* program_of_path(std::string_view path) {
  return first_where([&](const Program* one) { return path.starts_with(one->path_prefix); });
}

const Program* program_of_authority(std::string_view common_name) {
  return first_where([&](const Program* one) {
    return common_name.starts_with(one->name) && common_name.substr(one->name.size()).starts_with('-');
  });
}

}  // namespace ledger
