// Checkpoints: the log's size and root in a signed note (C2SP tlog-checkpoint), and where they are kept.
//
//   ledger/<id of the log>          origin, which is also the key's name
//   <size, decimal>
//   <root, base64>
//
//   — ledger/<id> <signature>
//
//   cred/checkpoint.key   0600  private key (note.h)      cred/checkpoint.pub  0644  public key, what verifiers
//   need checkpoints/latest    0644  the newest checkpoint checkpoints/all       0644  every one, oldest first, one
//   after the other checkpoints/lost      0644  those that saw records which this log has no more
//   (checkpoint_keeper.h)
//
// Any thread; one writer per data directory.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/merkle.h"
#include "ledger/note.h"

namespace ledger {

struct Checkpoint {
  std::string origin;
  TreeHead head;
  SignedNote note;
};

std::string origin_of(std::string_view log_id);  // "ledger/" and the id
std::string checkpoint_text(std::string_view origin, const TreeHead& head);

// What the note says; nobody's signature is looked at. Errc::invalid when it is no checkpoint.
Result<Checkpoint> parse_checkpoint(std::string_view note);
// The same, and signed by `key`, whose name is the origin.
Result<Checkpoint> open_checkpoint(std::string_view note, const NoteVerifier& key);
// Several, one after the other.
Result<std::vector<Checkpoint>> open_checkpoints(std::string_view notes, const NoteVerifier& key);

std::filesystem::path checkpoint_key_file(const std::filesystem::path& data_dir);
std::filesystem::path checkpoint_public_file(const std::filesystem::path& data_dir);
std::filesystem::path latest_checkpoint_file(const std::filesystem::path& data_dir);
std::filesystem::path all_checkpoints_file(const std::filesystem::path& data_dir);
std::filesystem::path lost_checkpoints_file(const std::filesystem::path& data_dir);

// Errc::not_found when no server has made one yet.
Result<NoteVerifier> read_checkpoint_key(const std::filesystem::path& public_file);
Result<NoteSigner> read_checkpoint_signer(const std::filesystem::path& data_dir);
// Makes and writes a key pair named `origin`.
Result<NoteSigner> make_checkpoint_signer(const std::filesystem::path& data_dir, std::string_view origin);

// The checkpoints of a file, signed by `key`; none when there is no file.
Result<std::vector<Checkpoint>> read_checkpoints(const std::filesystem::path& file, const NoteVerifier& key);
// The last of a file, without a look at those before it. What follows the last whole one, the trace of a crash in
// add_checkpoint(), is cut off for good. Errc::not_found when there is none.
Result<Checkpoint> settle_last_checkpoint(const std::filesystem::path& file, const NoteVerifier& key);
// Adds one to a file of several, for good when this returns.
Result<void> add_checkpoint(const std::filesystem::path& file, const Checkpoint& checkpoint);
Result<void> write_checkpoints(const std::filesystem::path& file, const std::vector<Checkpoint>& checkpoints);

}  // namespace ledger
