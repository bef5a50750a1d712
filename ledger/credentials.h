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
// A rotation of a secret that files hold is staged: first `<file>.next-<token id>` with the new content, then the
// record that makes the new one valid, then the rename. The log decides: a start settles what a crash has left by
// asking whether that record is there (settle_staged).
//
// Threads: Credentials is constant after open(); every member may be called from any thread. What it says about the
// secrets in the files is as they were then.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

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
  // What a token's secret is known by. `id` is safe to log and to say, equal secrets have equal ids; it is the
  // beginning of the fingerprint, an HMAC like that of a node password under a domain of its own.
  struct Known {
    std::string id;           // 12 hex digits
    Fingerprint fingerprint;  // 32
  };
  // One HMAC.
  Known known_by(const Secret& token_secret) const;

  // The secrets that the files held when they were opened. server() and agent() are equal when there is no agent
  // token of its own.
  const Known& server() const;
  const Known& agent() const;
  const Known& operator_token() const;

  const std::filesystem::path& data_dir() const { return data_dir_; }

  // Writes token, node-token and agent-token; `ca_hash` is SHA-256 of the bytes of /cacerts, or empty.
  Result<void> write_token_files(std::string_view ca_hash) const;

 private:
  struct Macs;  // the keyed HMAC states and the MACs of the secrets in force
  Credentials() = default;

  std::filesystem::path data_dir_;
  std::shared_ptr<const Macs> macs_;
  Secret server_password_, node_password_;
};

// The value of `Authorization: Bearer <text>`. Errc::not_found: the header is empty; Errc::invalid: another scheme,
// nothing after it, more than 16 KiB.
Result<Secret> parse_bearer(std::string_view header_value);

// [a-z0-9]{6}.[a-z0-9]{16}, kubeadm's form: a public id and a secret.
bool is_bootstrap_token(std::string_view text);
Secret random_bootstrap_token();

// Why this cannot be the password of a line of cred/passwd ("has a control character in a password"), or nullptr.
const char* password_fault(std::string_view password);

// ---- rotation of the secrets that files hold -------------------------------------------------------------

// Step one: writes the file that holds the token of this class (agent, server, operator) as it will be, beside the
// one in force. With class `server` the agents' password changes too while both are one.
Result<void> stage_file_token(const std::filesystem::path& data_dir, std::string_view token_class,
                              const Secret& secret, const std::string& token_id);
// Step three, after the record is durable, and at every start: a staged file takes its place when `happened` says
// that the rotation to its token id is in the log, else it is removed.
Result<void> settle_staged(const std::filesystem::path& data_dir,
                           const std::function<bool(const std::string& token_id)>& happened);

// `bytes` random bytes as lower-case hex. A random generator that fails is fatal.
std::string random_hex(std::size_t bytes);
Secret random_secret(std::size_t bytes);

// For texts of HMACs: the time does not say where they differ.
bool equal_in_constant_time(std::string_view a, std::string_view b);

std::string sha256_hex(std::string_view bytes);
std::string hmac_sha256_hex(const Secret& key, std::string_view bytes);

// Standard alphabet, padded (RFC 4648 section 4).
std::string base64(std::string_view bytes);

// Appends what base64 letters without padding stand for; *left_over are the bits that make no byte, 0 in canonical
// text. False: a letter of another alphabet.
bool append_base64_bytes(std::string_view letters, std::string* out, unsigned* left_over);

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
