// The files of a bundle (bundle.h): a directory, or a tar that is compressed or not. Nothing is ever unpacked: a tar is
// read as it stands, so what its names say cannot reach a disk. Hides libarchive.
//
// Hostile input: plain files with plain names only; a directory's links and a tar's links, devices, paths and second
// files of one name are told as problems of their entries. Memory: one block, whatever sizes the input claims.
//
// One thread per object.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/types.h"

namespace ledger::replay {

struct BundleEntry {
  std::string name;
  std::uint64_t size = 0;
  std::string problem{};  // why it is no file of a bundle, in a sentence without a subject; empty: it is one
};

// One pass over the files: a directory's by name, a tar's as they stand.
class BundleReader {
 public:
  virtual ~BundleReader() = default;
  // The next file; nullopt behind the last. Errc::corrupt when the tar cannot be read further.
  virtual Result<std::optional<BundleEntry>> next() = 0;
  // Bytes of the file that next() told of; empty at its end. Valid until the next call.
  virtual Result<std::string_view> read() = 0;
};
// Errc::not_found: there is nothing; Errc::invalid: neither a directory nor a tar.
Result<std::unique_ptr<BundleReader>> open_bundle(const std::filesystem::path& path);

// One file, from its beginning. Errc::not_found when the bundle has none of that name.
class BundleStream {
 public:
  static Result<BundleStream> open(const std::filesystem::path& bundle, std::string_view name);
  // Up to and with the next newline; what stands behind the last one is the last line. nullopt: the end.
  // Errc::corrupt for a line longer than `max_bytes`.
  Result<std::optional<std::string>> line(std::size_t max_bytes);
  // So many bytes; fewer only at the end.
  Result<std::string> bytes(std::size_t count);

 private:
  explicit BundleStream(std::unique_ptr<BundleReader> reader) : reader_(std::move(reader)) {}
  Result<bool> fill();  // false: the end
  std::unique_ptr<BundleReader> reader_;
  std::string_view rest_;
};
// A small file whole. Errc::invalid when it is longer than `max_bytes`.
Result<std::string> read_bundle_file(const std::filesystem::path& bundle, std::string_view name, std::size_t max_bytes);

// Whether a bundle of this name is a tar: it ends in .tar or .tar.zst.
bool is_tar_name(std::string_view path);
// Writes files of a directory into a tar, below one directory `top`, in this order. The same files and time give the
// same bytes. On the disk when this returns. An existing file is replaced.
Result<void> pack_bundle(const std::filesystem::path& directory, const std::vector<std::string>& names,
                         const std::string& top, Time modified, const std::filesystem::path& tar, bool compress);

}  // namespace ledger::replay
