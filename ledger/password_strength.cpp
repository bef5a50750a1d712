#include "ledger/password_strength.h"

#include <algorithm>
#include <array>

namespace ledger {
namespace {

constexpr std::size_t kMinBytes = 16;
constexpr std::ptrdiff_t kMinDistinct = 6;

bool repeats_a_piece(std::string_view text) {
  for (std::size_t piece = 1; piece <= text.size() / 2; ++piece)
    if (text.substr(piece) == text.substr(0, text.size() - piece)) return true;
  return false;
}

}  // namespace

bool is_low_entropy(const Secret& password) {
  const std::string_view text = password.reveal();
  if (text.size() < kMinBytes) return true;
  std::array<std::size_t, 256> counts{};
  for (const char c : text) ++counts[static_cast<unsigned char>(c)];
  const auto distinct = std::count_if(counts.begin(), counts.end(), [](std::size_t count) { return count > 0; });
  return distinct < kMinDistinct || *std::max_element(counts.begin(), counts.end()) > text.size() / 2 ||
         repeats_a_piece(text);
}

}  // namespace ledger
