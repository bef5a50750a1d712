#include "replay/text.h"

#include <fmt/format.h>

#include <algorithm>

namespace ledger::replay {

std::string Painter::paint(Tone tone, const std::string& text) const {
  if (!color_ || tone == Tone::plain) return text;
  const char* code = tone == Tone::good ? "32" : tone == Tone::bad ? "31" : tone == Tone::faint ? "2" : "1";
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::vector<std::string> wrap(std::string_view text, std::size_t width) {
  std::vector<std::string> lines(1);
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    std::string& line = lines.back();
    if (!line.empty() && columns_of(line) + 1 + columns_of(word) > width)
      lines.emplace_back(word);
    else
      line += (line.empty() ? "" : " ") + std::string(word);
    begin = end + 1;
  }
  return lines;
}

std::string counted(std::uint64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string short_name(std::string_view fingerprint, std::string_view previous, std::string_view next) {
  constexpr std::size_t kShortest = 4, kLongest = 40;
  std::size_t length = kShortest;
  for (const std::string_view other : {previous, next}) {
    const auto [end, _] = std::mismatch(fingerprint.begin(), fingerprint.end(), other.begin(), other.end());
    length = std::max(length, static_cast<std::size_t>(end - fingerprint.begin()) + 1);
  }
  return "#" + printable(fingerprint.substr(0, std::min(length, kLongest)), kLongest);
}

std::string ShortNames::of(const Fingerprint& fingerprint) const {
  if (!fingerprint.known()) return "";
  const auto next = all_.upper_bound(fingerprint.text);
  auto previous = all_.lower_bound(fingerprint.text);
  return short_name(fingerprint.text, previous == all_.begin() ? "" : *std::prev(previous),
                    next == all_.end() ? "" : *next);
}

}  // namespace ledger::replay
