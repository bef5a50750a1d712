// Where an export goes: standard output or a file, compressed or not, whole or continued.
//
// A whole file is written under another name until it is complete, so that half an export never looks like one. A
// continued one has a cursor beside it that says which record was the last and how long the file was then; what a
// crash has left behind that is cut off, so every record is in the file exactly once.
//
// One thread.
#pragma once

#include <zstd.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/event_log.h"

namespace ledger::tools {

// The cursor file: {"log","format","seq","bytes"}, one line; "sending" while a batch is under way.
struct ExportCursor {
  std::string log, format;
  Seq seq = 0;              // the last record that was looked at
  std::uint64_t bytes = 0;  // length of the output then; 0 for standard output
  Seq sending = 0;          // last record of the batch that was begun and is not known to be taken; 0: none

  // Errc::not_found: there is none yet.
  static Result<ExportCursor> read(const std::string& path);
  // Where the last export of this log in this format ended; a fresh one where there was none. Errc::conflict: the file
  // is of another log, of another format, or behind the end of this log.
  static Result<ExportCursor> resume(const std::string& path, const EventLog& log, const std::string& format);
  Result<void> write(const std::string& path) const;
};

class ExportFile {
 public:
  // Empty or "-": standard output.
  static Result<ExportFile> create(const std::string& path, bool compress);
  // Goes on behind the first `bytes` bytes of the file; 0 begins it.
  static Result<ExportFile> append(const std::string& path, std::uint64_t bytes, bool compress);
  ExportFile(ExportFile&& other) noexcept = default;
  ExportFile& operator=(ExportFile&& other) = delete;
  // Not finished: a whole file is removed.
  ~ExportFile();

  bool is_stdout() const { return path_.empty(); }
  // False: it could not be written.
  bool write(std::string_view bytes);
  // On the disk when this returns. Answers the length of the file. One that append() gave may be written on: what
  // comes then is another frame where it is compressed.
  Result<std::uint64_t> finish();

 private:
  struct Closing {
    void operator()(std::FILE* file) const {
      if (file != stdout) std::fclose(file);
    }
  };
  struct Freeing {
    void operator()(ZSTD_CStream* stream) const { ZSTD_freeCStream(stream); }
  };
  ExportFile(std::string path, std::string partial, std::FILE* file, bool compress);
  bool compress(std::string_view bytes, ZSTD_EndDirective directive);

  std::string path_, partial_;  // partial_ empty: written in place
  std::unique_ptr<std::FILE, Closing> file_;
  std::unique_ptr<ZSTD_CStream, Freeing> zstd_;
  std::vector<char> buffer_;
  bool finished_ = false;
};

}  // namespace ledger::tools
