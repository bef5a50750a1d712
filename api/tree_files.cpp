#include "api/tree_files.h"

#include <charconv>
#include <optional>

#include "api/problem.h"

namespace ledger::api {
namespace {

constexpr std::string_view kCheckpoint = "/ledger/v1/checkpoint";
constexpr std::string_view kTile = "/ledger/v1/tile/";
constexpr std::string_view kEntries = "entries/";
constexpr unsigned kTileHeight = 8;
constexpr std::uint64_t kTileWidth = 1 << kTileHeight;
constexpr unsigned kMaxLevel = 7;  // above that a 64-bit tree has no tile
constexpr std::size_t kMaxEntry = 65535;

std::optional<std::uint64_t> number(std::string_view text, std::size_t max_digits) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty() || text.size() > max_digits)
    return std::nullopt;
  return value;
}

struct Tile {
  std::uint64_t index = 0;
  std::uint64_t width = kTileWidth;
};

// "x001/x234/067" and "x001/x234/067.p/13".
std::optional<Tile> parse_tile(std::string_view text) {
  Tile tile;
  if (const std::size_t dot = text.find(".p/"); dot != text.npos) {
    const std::string_view digits = text.substr(dot + 3);
    const auto width = number(digits, 3);
    if (!width || *width == 0 || *width >= kTileWidth || digits[0] == '0') return std::nullopt;
    tile.width = *width;
    text = text.substr(0, dot);
  }
  if (text.size() > 6 * 5) return std::nullopt;
  for (bool first = true;; first = false) {
    const std::size_t slash = text.find('/');
    std::string_view part = text.substr(0, slash);
    const bool last = slash == text.npos;
    if (part.starts_with('x') == last) return std::nullopt;
    if (!last) part.remove_prefix(1);
    const auto digits = number(part, 3);
    if (!digits || part.size() != 3 || (first && !last && *digits == 0)) return std::nullopt;
    tile.index = tile.index * 1000 + *digits;
    if (last) return tile;
    text = text.substr(slash + 1);
  }
}

Response file(const char* type, std::string body, const char* caching) {
  Response response;
  response.content_type = type;
  response.body = std::move(body);
  response.headers.emplace_back("Cache-Control", caching);
  return response;
}

Response immutable(std::string body) {
  return file("application/octet-stream", std::move(body), "max-age=604800, immutable");
}

Result<std::string> hashes(const EventLog& log, unsigned level, const Tile& tile) {
  std::string body;
  const std::uint64_t from = tile.index * kTileWidth;
  for (std::uint64_t i = 0; i < tile.width; ++i) {
    const Result<TreeHash> hash = log.tree_nodes()(level * kTileHeight, from + i);
    if (!hash) return hash.error();
    body += view_of(*hash);
  }
  return body;
}

Result<std::string> entries(const EventLog& log, const Tile& tile) {
  std::string body;
  Result<void> problem;
  const Seq from = tile.index * kTileWidth + 1;
  const Result<void> scanned = log.scan_bytes(from, from + tile.width - 1, [&](Seq seq, std::string_view record) {
    if (record.size() > kMaxEntry)
      problem =
          Error{Errc::unavailable, "record " + std::to_string(seq) + " is longer than the 65535 bytes that an " +
                                       "entry bundle can hold; `ledger export` has it"};
    body.push_back(static_cast<char>(record.size() >> 8 & 0xFF));
    body.push_back(static_cast<char>(record.size() & 0xFF));
    body += record;
    return problem.has_value();
  });
  if (!scanned) return scanned.error();
  if (!problem) return problem.error();
  return body;
}

}  // namespace

bool is_tree_file(std::string_view path) {
  return path == kCheckpoint || (path.starts_with(kTile) && !path.substr(kTile.size()).starts_with(kEntries));
}

Response tree_file(const EventLog& log, const std::string& latest, std::string_view path) {
  if (path == kCheckpoint)
    return latest.empty() ? to_response({404, "no checkpoint has been signed yet"})
                          : file("text/plain; charset=utf-8", latest, "no-cache");
  const Response none = to_response(not_found(std::string(path)));
  if (!path.starts_with(kTile)) return none;
  std::string_view rest = path.substr(kTile.size());
  const bool wants_entries = rest.starts_with(kEntries);
  unsigned level = 0;
  if (wants_entries) {
    rest.remove_prefix(kEntries.size());
  } else {
    const std::size_t slash = rest.find('/');
    const auto parsed = number(rest.substr(0, slash), 2);
    if (slash == rest.npos || !parsed || *parsed > kMaxLevel || (slash > 1 && rest[0] == '0')) return none;
    level = static_cast<unsigned>(*parsed);
    rest.remove_prefix(slash + 1);
  }
  const std::optional<Tile> tile = parse_tile(rest);
  // Complete nodes of this level that the tree has.
  const std::uint64_t there = log.head() >> (level * kTileHeight);
  if (!tile || tile->index > there / kTileWidth || tile->index * kTileWidth + tile->width > there) return none;
  const Result<std::string> body = wants_entries ? entries(log, *tile) : hashes(log, level, *tile);
  return body ? immutable(*body) : to_response(problem_of(body.error()));
}

}  // namespace ledger::api
