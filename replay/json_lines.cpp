#include "replay/json_lines.h"

#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "ledger/types.h"

namespace ledger::replay {
namespace {

constexpr std::size_t kMaxLineBytes = 1 << 20;

// Copies what can be read only once to a file that nobody else can see.
Result<std::ifstream> spool(std::istream& in) {
  std::error_code error;
  const std::filesystem::path directory = std::filesystem::temp_directory_path(error);
  std::string path = (directory / "ledger-input-XXXXXX").string();
  const int fd = mkstemp(path.data());
  const Error failed{
      Errc::io, "cannot copy the input to " + directory.string() + "; set TMPDIR to a directory with room for it"};
  if (fd < 0) return failed;
  close(fd);
  std::ofstream out(path, std::ios::binary);
  std::ifstream copy(path, std::ios::binary);
  unlink(path.c_str());
  if (in.peek() != std::char_traits<char>::eof()) out << in.rdbuf();
  out.close();
  if (!out || !copy) return failed;
  return copy;
}

}  // namespace

bool LineReader::next(std::string& line) {
  line.clear();
  bool any = false;
  for (int c = in_.sbumpc(); c != std::char_traits<char>::eof(); c = in_.sbumpc()) {
    any = true;
    ++bytes_;
    if (c == '\n') break;
    if (line.size() <= kMaxLineBytes) line.push_back(static_cast<char>(c));
  }
  if (++number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);  // a byte order mark
  return any;
}

Result<void> rewind(std::istream& in) {
  in.clear();
  if (in.rdbuf()->pubseekpos(0) == std::streampos(std::streamoff(-1)))
    return Error{Errc::io, "the input cannot be read from its start again"};
  return {};
}

Result<std::ifstream> open_lines(const std::filesystem::path& path) {
  if (path == "-") return spool(std::cin);
  std::error_code error;
  if (std::filesystem::is_directory(path, error))
    return Error{Errc::invalid, printable(path.string(), 200) + " is a directory; name a JSON Lines file"};
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return Error{Errc::not_found, "cannot read " + printable(path.string(), 200) +
                                      "; check the name and the permissions of the file"};
  if (!std::filesystem::is_regular_file(path, error)) return spool(file);
  return file;
}

}  // namespace ledger::replay
