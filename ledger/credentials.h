// Everything that touches a secret: fingerprints of node passwords, tokens and their files, random bytes.
//
// Files (k3s' layout and modes where k3s has one), all below the data directory:
//   cred/fingerprint.key  0600  64 hex digits + LF; the HMAC key. Lost key = every binding unreadable, so a
//                               missing key beside an existing log is an error, never silently replaced
//   cred/passwd           0600  k3s' CSV: password,user,uid,groups  (users `node` and `server`; lines of other
//                               users are kept as they are and grant nothing, lines whose password stays too)
//   cred/operator-token   0600  64 hex digits + LF; Bearer secret of the operators' API
//   token                 0600  K10<ca hash>::server:<password> + LF
//   node-token                  symlink to token
//   agent-token           0600  K10<ca hash>::node:<password> + LF when the agent token differs, else symlink
//                               to token
// Every file is written to `<file>.tmp`, synced, renamed; the directory is synced. cred/ has mode 0700. Modes that
// a restore has widened are set back when the file is read.
//
// Which password is in force: an option, else cred/passwd, else a fresh one (16 random bytes in hex).
//   `server`  --token, else its line, else fresh
//   `node`    --agent-token; else its line, where that differs from the `server` line as it was: an agent token of
//             its own, once given, stays until another is given; else the password of `server`. So --token alone
//             moves both while both are one, and never touches a separate agent token. (k3s forgets a separate
//             agent token when its option is dropped; giving --agent-token the value of --token does that here.)
//
// Threads: Credentials is constant after open(); every member may be called from any thread.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "ledger/decision.h"
#include "ledger/program.h"
#include "ledger/types.h"

namespace ledger {

// A token as people paste it (k3s pkg/clientaccess):
//   K10<64 hex>::<user>:<password> | K10::<user>:<password> | <password>
struct JoinToken {
  std::string ca_hash;  // empty: no CA pinning
  std::string user;     // empty where the text names none
  Secret password;

  // The hash must be 0 or 64 lower-case hex digits and the password not empty (k3s v1.20.4 and later).
  // At most 4096 bytes, no control characters (so trim what comes from a file). Errors never repeat the text.
  static Result<JoinToken> parse(std::string_view text);
};

// What `Authorization: Basic ...` says (RFC 7617). Errc::invalid when it is not readable: another scheme, base64
// with a wrong letter or without its padding, no colon, control characters, more than 16 KiB.
struct BasicCredential {
  std::string user;
  Secret password;
  static Result<BasicCredential> parse(std::string_view header_value);
};

class Credentials {
 public:
  struct Options {
    std::filesystem::path data_dir;
    // Text of --token / --agent-token in any form JoinToken reads; empty: what is on disk, or a fresh one.
    Secret token;
    Secret agent_token;
    // The log already holds records: then a missing fingerprint key is an error.
    bool log_exists = false;
    // Whose group names stand in cred/passwd.
    const Program* program = &kK3s;
  };

  // Creates what is missing. Errors name the file and what to do.
  static Result<Credentials> open(const Options& options);

  // HMAC-SHA-256 under the fingerprint key, cut to 128 bits, 32 lower-case hex digits. About 0.5 us.
  Fingerprint fingerprint_of_password(const Secret& node_password) const;
  // Id of a token secret, 12 hex digits of an HMAC: safe to log, equal secrets have equal ids.
  std::string token_id(const Secret& secret) const;

  struct Verdict {
    TokenResult result = TokenResult::missing;
    std::string token_id;  // of the presented secret; empty where there was none
  };
  // Checks a user's password against cred/passwd in constant time. Never says wrong_class or superseded:
  // classes belong to the caller, history to the token table.
  Verdict check(const BasicCredential& credential) const;
  // Checks `Authorization: Bearer <operator token>`: accepted, missing (no value), malformed or wrong_secret.
  Verdict check_operator(std::string_view header_value) const;

  // Ids of the secrets now in force. Equal when there is no agent token of its own.
  std::string server_token_id() const;
  std::string agent_token_id() const;
  std::string operator_token_id() const;

  // Writes token, node-token and agent-token; `ca_hash` is SHA-256 of the bytes of /cacerts, or empty.
  Result<void> write_token_files(std::string_view ca_hash) const;

 private:
  struct Macs;  // the keyed HMAC states and the MACs of the secrets in force
  Credentials() = default;

  std::filesystem::path data_dir_;
  std::shared_ptr<const Macs> macs_;
  Secret server_password_, node_password_;
};

// `bytes` random bytes as lower-case hex. A random generator that fails is fatal.
std::string random_hex(std::size_t bytes);

std::string sha256_hex(std::string_view bytes);

// Standard alphabet, padded (RFC 4648 section 4).
std::string base64(std::string_view bytes);

// Lower-case hex digits.
std::string to_hex(std::string_view bytes);

// Reads a whole small regular file (at most `max_bytes`). Errc::not_found when it does not exist, Errc::io else.
Result<std::string> read_file(const std::filesystem::path& path, std::size_t max_bytes = 1 << 20);

// The same for a secret: leaves no copy in memory, and a mode that lets others in is set back to 0600.
Result<Secret> read_secret_file(const std::filesystem::path& path, std::size_t max_bytes = 1 << 20);

// The same for a secret of another program: its mode is left alone.
Result<Secret> read_foreign_secret(const std::filesystem::path& path, std::size_t max_bytes = 1 << 20);

// What the bytes of a cred/passwd say; empty where a user has no line. Errors name `path` and the line.
struct JoinPasswords {
  Secret server, node;
};
Result<JoinPasswords> read_join_passwords(const Secret& bytes, const std::filesystem::path& path);

// Writes through `<path>.tmp`, fsync, rename, fsync of the directory: after a crash the file is old or new.
// `mode` is exact whatever the umask, and no link in the directory can send the bytes elsewhere.
// One writer per path at a time.
Result<void> write_file(const std::filesystem::path& path, std::string_view bytes, unsigned mode);

// Removes a file, for good when this returns. None there is no error.
Result<void> remove_file(const std::filesystem::path& path);

// A directory that only its owner may enter: made, with its parents, or given mode 0700 back.
Result<void> ensure_private_directory(const std::filesystem::path& path);

}  // namespace ledger
