#include "tools/export_file.h"

#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "ledger/credentials.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;

Error cannot(const char* what, const std::string& path) {
  return {Errc::io, std::string("cannot ") + what + " " + printable(path, 200) + ": " + std::strerror(errno)};
}

}  // namespace

Result<ExportCursor> ExportCursor::read(const std::string& path) {
  const Result<std::string> text = read_file(path, 4096);
  if (!text) return Error{text.error().code, "the cursor " + printable(path, 200) + ": " + text.error().message};
  json::error_code error;
  const json::value value = json::parse(*text, error);
  ExportCursor cursor;
  const json::object* object = error ? nullptr : value.if_object();
  const auto number = [&](const char* key, std::uint64_t* out) {
    const json::value* found = object == nullptr ? nullptr : object->if_contains(key);
    if (found == nullptr || !found->is_int64() || found->get_int64() < 0) return false;
    *out = static_cast<std::uint64_t>(found->get_int64());
    return true;
  };
  const auto string = [&](const char* key, std::string* out) {
    const json::value* found = object == nullptr ? nullptr : object->if_contains(key);
    if (found == nullptr || !found->is_string()) return false;
    *out = std::string(found->get_string());
    return true;
  };
  if (!number("seq", &cursor.seq) || !number("bytes", &cursor.bytes) || !string("log", &cursor.log) ||
      !string("format", &cursor.format))
    return Error{Errc::invalid, printable(path, 200) + " is no cursor of an export; name another file, or remove it to "
                                                       "begin anew"};
  number("sending", &cursor.sending);
  return cursor;
}

Result<ExportCursor> ExportCursor::resume(const std::string& path, const EventLog& log, const std::string& format) {
  Result<ExportCursor> cursor = read(path);
  if (!cursor && cursor.error().code != Errc::not_found) return cursor;
  if (!cursor) return ExportCursor{.log = log.id(), .format = format};
  const auto conflict = [&](const std::string& what) {
    return Error{Errc::conflict, "the cursor " + printable(path, 200) + " is " + what};
  };
  if (cursor->log != log.id())
    return conflict("of another log (" + printable(cursor->log, 40) + "); this one is " + log.id());
  if (cursor->format != format) return conflict("of an export as " + printable(cursor->format, 40));
  if (cursor->seq > log.head())
    return conflict("at record " + std::to_string(cursor->seq) + ", and the log ends at " + std::to_string(log.head()) +
                    ": is this a restored copy?");
  return cursor;
}

Result<void> ExportCursor::write(const std::string& path) const {
  json::object object{{"log", log}, {"format", format}, {"seq", seq}, {"bytes", bytes}};
  if (sending != 0) object["sending"] = sending;
  const Result<void> written = write_file(path, json::serialize(object) + "\n", 0644);
  if (!written) return Error{written.error().code, "the cursor " + printable(path, 200) + ": " + written.error().message};
  return {};
}

ExportFile::ExportFile(std::string path, std::string partial, std::FILE* file, bool compress)
    : path_(std::move(path)), partial_(std::move(partial)), file_(file) {
  if (!compress) return;
  zstd_.reset(ZSTD_createCStream());
  if (zstd_ == nullptr) fatal("zstd has no memory");
  ZSTD_CCtx_setParameter(zstd_.get(), ZSTD_c_checksumFlag, 1);
  buffer_.resize(ZSTD_CStreamOutSize());
}

Result<ExportFile> ExportFile::create(const std::string& path, bool compress) {
  if (path.empty() || path == "-") return ExportFile("", "", stdout, compress);
  const std::string partial = path + ".part";
  std::FILE* file = std::fopen(partial.c_str(), "wbe");
  if (file == nullptr) return cannot("write", partial);
  return ExportFile(path, partial, file, compress);
}

Result<ExportFile> ExportFile::append(const std::string& path, std::uint64_t bytes, bool compress) {
  if (path.empty() || path == "-") return ExportFile("", "", stdout, compress);
  std::error_code error;
  const std::uint64_t size = std::filesystem::exists(path, error) ? std::filesystem::file_size(path, error) : 0;
  if (error || size < bytes)
    return Error{Errc::corrupt, printable(path, 200) + " is shorter (" + std::to_string(size) + " bytes) than its cursor " +
                                    "says (" + std::to_string(bytes) + "): it was changed meanwhile. Remove file and " +
                                    "cursor to begin anew"};
  std::FILE* file = std::fopen(path.c_str(), "abe");
  if (file == nullptr) return cannot("write", path);
  ExportFile out(path, "", file, compress);
  if (::ftruncate(fileno(file), static_cast<off_t>(bytes)) != 0) return cannot("shorten", path);
  return out;
}

ExportFile::~ExportFile() {
  if (!partial_.empty() && !finished_ && file_ != nullptr) std::remove(partial_.c_str());
}

bool ExportFile::compress(std::string_view bytes, ZSTD_EndDirective directive) {
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  for (std::size_t left = 1; left != 0;) {
    ZSTD_outBuffer out{buffer_.data(), buffer_.size(), 0};
    left = ZSTD_compressStream2(zstd_.get(), &out, &in, directive);
    if (ZSTD_isError(left) != 0) return false;
    if (std::fwrite(buffer_.data(), 1, out.pos, file_.get()) != out.pos) return false;
    if (directive == ZSTD_e_continue && in.pos == in.size) break;
  }
  return true;
}

bool ExportFile::write(std::string_view bytes) {
  if (zstd_ != nullptr) return compress(bytes, ZSTD_e_continue);
  return std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) == bytes.size();
}

Result<std::uint64_t> ExportFile::finish() {
  const std::string& where = partial_.empty() ? path_ : partial_;
  if ((zstd_ != nullptr && !compress({}, ZSTD_e_end)) || std::fflush(file_.get()) != 0)
    return is_stdout() ? Error{Errc::io, std::string("the export could not be written to standard output: ") + std::strerror(errno)}
                       : cannot("write", where);
  if (is_stdout()) return std::uint64_t{0};
  if (::fsync(fileno(file_.get())) != 0) return cannot("sync", where);
  const off_t size = ::lseek(fileno(file_.get()), 0, SEEK_END);
  if (size < 0) return cannot("measure", where);
  if (!partial_.empty() && std::rename(partial_.c_str(), path_.c_str()) != 0) return cannot("rename", partial_);
  finished_ = true;
  return static_cast<std::uint64_t>(size);
}

}  // namespace ledger::tools
