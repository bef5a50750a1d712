// What of a data directory is beside the log, and how it gets into a backup and out of it: whole, with its mode, and
// with a sum. And backup.json, which lists it.
//
//   {"format":1,"ledger":"<id>","head":N,"root":"<hex>","time":"...","version":"0.1.0","host":"...","source":"/var/lib/
//   ledger","secrets":true,"files":[{"name":"cred/passwd","mode":"0600","bytes":N,"sha256":"..."},
//   {"name":"node-token","link":"token"}]}
//
// Not copied: events/ (log_copy.h), server.json, files under way (*.tmp). Links: a directory of the data directory that
// is a link is entered; a link to a name beside it stays a link; the file another link leads to is copied.
//
// Any thread.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/merkle.h"
#include "ledger/types.h"

namespace ledger {

struct BackupFile {
  std::string name;  // below the data directory, with '/'
  unsigned mode = 0;
  std::uint64_t bytes = 0;
  std::string sha256;
  std::string link;  // not empty: a link to this name beside it, and the rest above means nothing
  bool operator==(const BackupFile&) const = default;
};

// backup.json.
struct BackupManifest {
  std::string ledger;
  TreeHead head;
  Time time;
  std::string version, host, source;
  bool secrets = true;
  std::vector<BackupFile> files;  // by name

  const BackupFile* find(std::string_view name) const;
};

std::filesystem::path manifest_file(const std::filesystem::path& backup);
// While files are being replaced: the list as it will be.
std::filesystem::path next_manifest_file(const std::filesystem::path& backup);
// Errc::not_found without one; Errc::invalid for one of a later format, with its number; Errc::corrupt else. Every name
// in it stays below the directory.
Result<BackupManifest> read_manifest(const std::filesystem::path& file);
Result<void> write_manifest(const std::filesystem::path& file, const BackupManifest& manifest);

// Passwords, tokens and private keys: all of cred/ but the public key, tls/ but certificates and names, the token files.
bool is_secret_name(std::string_view name);
// Small, and changed by a running server: cred/, tls/, checkpoints/ and what is not in a directory. The others are
// written once (archives/).
bool is_small_name(std::string_view name);

struct DataDirFiles {
  std::vector<std::string> names;  // sorted
  std::vector<std::string> left_out;  // for people: what cannot be copied, and why
};
Result<DataDirFiles> list_data_dir_files(const std::filesystem::path& data_dir);

// A small file as it was at one moment.
struct HeldFile {
  Secret bytes;
  unsigned mode = 0;
  std::string link;
};
Result<HeldFile> hold_file(const std::filesystem::path& data_dir, const std::string& name);
bool same_file(const HeldFile& a, const HeldFile& b);

// Puts it there: *changed says whether anything was written. Makes the directories it needs (0700).
Result<BackupFile> put_file(const std::filesystem::path& directory, const std::string& name, const HeldFile& file,
                            bool* changed);
// Copies a file of any size; `known`: what the last backup says of it, which is believed when nothing about the file has
// changed since (size, time, and the copy is there).
Result<BackupFile> copy_file(const std::filesystem::path& from, const std::filesystem::path& to,
                             const std::string& name, const BackupFile* known, bool* changed);

// Whether what lies under `file.name` is what `file` says; *problem is a sentence about the first difference.
Result<bool> is_intact(const std::filesystem::path& directory, const BackupFile& file, std::string* problem);

}  // namespace ledger
