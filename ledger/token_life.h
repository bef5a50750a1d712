// What an operator may do to tokens: create, rotate, revoke, each one event with an actor. The same rules behind
// the operators' HTTPS API and behind the command line on a stopped log. And what the server does by itself:
// announce the tokens of its files, note that one has expired.
//
// A secret leaves this module once, in MadeToken; what stays is its fingerprint in the log. The exception are the
// tokens of the server's own files (k3s' cred/passwd with token, node-token, agent-token; cred/operator-token):
// one per class, rotated in place.
//
// Rotating a token of the files has three steps: the new file is staged beside the old one (synced, 0600), the
// record is made durable, the staged file takes the old one's place. A crash before the record leaves a staged file
// that the next start removes: nothing has happened. A crash after it leaves one that the next start puts in its
// place: the log decides, and the secret is not lost though nobody was told it (`ledger token show` prints it).
// At no moment does a file show a secret that the log does not admit.
//
// Every call but TokenSweep waits for the disk; never from the writer's thread or from a network thread. One caller
// at a time for create, rotate and revoke.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/credentials.h"
#include "ledger/ledger.h"

namespace ledger {

struct TokenAction {
  std::string actor;               // who: "root@srv-1"
  std::string reason;              // why; may be empty
  std::string request_id, source;  // of the API request, if any
};

// Seconds; nullopt: for ever.
using Lifetime = std::optional<std::int64_t>;
// "90s", "30m", "24h", "7d" or "never"; 1 second to 10 years.
Result<Lifetime> parse_lifetime(std::string_view text);

struct NewToken {
  std::string token_class;  // agent, server, bootstrap, operator
  Lifetime lifetime;
  std::string description;
  std::string role;  // of an operator: read or operate
  Secret secret;     // empty: a random one. A bootstrap token's is <id>.<secret>
};

// A secret that was just made, to be shown once.
struct MadeToken {
  std::string id, token_class;
  Seq seq = 0;
  std::optional<Time> expires;
  std::string replaces;  // rotated: id of the old one
  std::optional<Time> grace_ends;
  bool in_files = false;  // the server's files hold it
  bool for_both = false;  // agents and servers share it
  Secret secret;
  Secret join;  // ready for --token-file: K10<hash>::node:<secret>; an operator's is the secret itself
};

// Errc::conflict: the secret is or was a token already.
Result<MadeToken> create_token(Ledger& ledger, const Credentials& credentials, const NewToken& wanted,
                               const TokenAction& action);

struct Rotation {
  // A token's id, or its first digits (4 or more) where only one token has them; or a class (agent, server,
  // operator): the token of the server's files. While agents and servers share one, either class means that one.
  std::string which;
  std::int64_t grace_s = 0;  // the old one is accepted, and recorded as superseded, for so long
  Lifetime lifetime;         // of the new one; nullopt: as long as the old one's
  Secret secret;             // empty: a random one
};
// The new one has the class, role and description of the old one.
Result<MadeToken> rotate_token(Ledger& ledger, const Credentials& credentials, const Rotation& rotation,
                               const TokenAction& action);

// Ends a token for good, in its grace period too: when this returns nothing is accepted with its secret any more.
// `which` as for rotate_token, but an id and no class. The last operator token that may change something is not
// revoked without `force`.
struct Revoked {
  std::string id;
  std::vector<std::string> classes;  // more than one where the secret was a token of several
  Seq seq = 0;
  bool in_files = false;  // the files still hold it; it admits nobody
};
Result<Revoked> revoke_token(Ledger& ledger, std::string_view which, bool force, const TokenAction& action);

// ---- the server's own ------------------------------------------------------------------------------------

// Finishes or undoes a rotation that a crash interrupted. Before Credentials::open.
Result<void> settle_rotations(const Ledger& ledger, const std::filesystem::path& data_dir);

// The tokens of the files that the log does not know yet become events; a class that had another one is rotated,
// at once. Returns what an operator should read: a file that holds a revoked token.
Result<std::vector<std::string>> note_file_tokens(Ledger& ledger, const Credentials& credentials,
                                                  const std::string& actor);

// Notes each token that has expired with one token_expired, once, also over restarts. From one thread.
class TokenSweep {
 public:
  // Never blocks. Nothing is done while the last sweep is on its way to the disk.
  void run(Ledger& ledger, Time now);

 private:
  std::shared_ptr<std::atomic<bool>> under_way_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace ledger
