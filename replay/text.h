// What the texts of replay/ for people have in common. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/event.h"
#include "replay/rows.h"

namespace ledger::replay {

class Painter {
 public:
  explicit Painter(bool color) : color_(color) {}
  std::string paint(Tone tone, const std::string& text) const;

 private:
  bool color_;
};

// Code points; good enough for names and addresses.
std::size_t columns_of(std::string_view text);

// Breaks at blanks; what has none is left whole.
std::vector<std::string> wrap(std::string_view text, std::size_t width);

// "1 refusal", "3 refusals".
std::string counted(std::uint64_t count, std::string_view noun);

// A fingerprint as people read it: "#77e0", the shortest prefix of at least 4 bytes that neither neighbour has; the
// neighbours are the next ones of a sorted set of all that are shown, empty where there is none.
std::string short_name(std::string_view fingerprint, std::string_view previous, std::string_view next);

// Such names for the fingerprints of one text.
class ShortNames {
 public:
  void add(const Fingerprint& fingerprint) {
    if (fingerprint.known()) all_.insert(fingerprint.text);
  }
  // Whether or not it was added; empty for one that is not known.
  std::string of(const Fingerprint& fingerprint) const;

 private:
  std::set<std::string, std::less<>> all_;
};

}  // namespace ledger::replay
