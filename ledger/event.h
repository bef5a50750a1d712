// The vocabulary of the log: one struct per kind of event, and the record that carries it.
//
// docs/EVENTS.md is the contract for people and other programs; this header is the same contract for the
// compiler, and both change in one commit. Kinds and fields are never renamed and tag numbers never change or
// come back: stored records are read for ever.
//
// Each struct lists its own fields once: `fields`, as in format version 1, `added_fields`, those that came with
// version 2, and `fields_since_3` (event_codec.h). The binary codec and the JSON form are both made from these lists,
// so they cannot disagree. No released list changes; what comes next is a further list with a further version. "Not
// known" is the empty string, 0, nullopt or an empty list: absent, never "false".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "ledger/types.h"

namespace ledger {

enum class Kind : std::uint16_t {
  server_started = 1,
  server_stopped = 2,
  epoch_started = 3,
  clock_stepped = 4,

  token_created = 10,
  token_rotated = 11,
  token_revoked = 12,
  token_expired = 13,
  token_accepted = 14,
  token_rejected = 15,

  password_stored = 20,
  password_verified = 21,
  password_rejected = 22,
  request_rejected = 23,
  binding_released = 24,
  binding_changed = 25,
  binding_held = 26,
  binding_imported = 27,

  certificate_issued = 30,

  tunnel_opened = 40,
  tunnel_closed = 41,
  node_object_created = 42,
  node_object_deleted = 43,
  tls_failed = 44,

  checkpoint_signed = 50,
  export_created = 51,
  archive_sealed = 52,
  import_finished = 53,
  legal_hold_placed = 54,
  legal_hold_lifted = 55,
  archive_removed = 56,
  mode_changed = 57,
  upstream_lost = 58,
  upstream_found = 59,
};

inline constexpr int kNewestFields = 3;  // the newest version that brought fields

// Calls f(name, value) for every field of a struct of this header that came with this version.
template <int kVersion, class T>
void each_field_of(T& self, auto&& f) {
  static_assert(kVersion >= 1 && kVersion <= kNewestFields);
  using Struct = std::remove_const_t<T>;
  if constexpr (kVersion == 1)
    Struct::fields(self, f);
  else if constexpr (kVersion == 2 && requires { Struct::added_fields(self, f); })
    Struct::added_fields(self, f);
  else if constexpr (kVersion == 3 && requires { Struct::fields_since_3(self, f); })
    Struct::fields_since_3(self, f);
}

// The same for every field, in the order of the lists.
template <class T>
void each_field(T& self, auto&& f) {
  each_field_of<1>(self, f);
  each_field_of<2>(self, f);
  each_field_of<3>(self, f);
}

// ---- the server ------------------------------------------------------------------------------------------

struct ServerStarted {
  static constexpr Kind kKind = Kind::server_started;
  std::string version;
  std::string client_ca, server_ca;  // SHA-256 of the certificates (hex)
  std::string ledger;                // id of this log
  std::optional<bool> clean;         // the previous stop was orderly
  static void fields(auto& self, auto&& f) {
    f("version", self.version), f("client_ca", self.client_ca), f("server_ca", self.server_ca);
    f("ledger", self.ledger), f("clean", self.clean);
  }
};

struct ServerStopped {
  static constexpr Kind kKind = Kind::server_stopped;
  std::string reason;
  static void fields(auto& self, auto&& f) { f("reason", self.reason); }
};

// The server's memory is not the one that served before.
struct EpochStarted {
  static constexpr Kind kKind = Kind::epoch_started;
  std::string cause;  // restored, ca_changed, datastore_changed, imported
  std::int64_t head_before = 0, head_after = 0;
  static void fields(auto& self, auto&& f) {
    f("cause", self.cause), f("head_before", self.head_before), f("head_after", self.head_after);
  }
};

struct ClockStepped {
  static constexpr Kind kKind = Kind::clock_stepped;
  double by_seconds = 0;  // negative: the clock went back
  static void fields(auto& self, auto&& f) { f("by_seconds", self.by_seconds); }
};

// ---- tokens ----------------------------------------------------------------------------------------------

template <Kind K>
struct TokenChanged {
  static constexpr Kind kKind = K;
  std::string token;        // id, never the secret
  std::string token_class;  // JSON name `class`: agent, server, bootstrap, operator
  std::optional<Time> expires;
  std::string actor;
  Fingerprint fingerprint{};       // of the secret, where the log is what it is checked against
  std::string role{};              // of an operator: read, operate
  std::string description{};       // why it exists, for people
  std::string replaces{};          // token_rotated: id of the one that is superseded; empty: all of its class
  std::optional<Time> grace_ends{};  // token_rotated: until then the one it replaces is still accepted
  std::string origin{};            // file: the one that k3s' files and cred/operator-token hold; else empty
  static void fields(auto& self, auto&& f) {
    f("token", self.token), f("class", self.token_class), f("expires", self.expires), f("actor", self.actor);
  }
  static void added_fields(auto& self, auto&& f) {
    f("fingerprint", self.fingerprint), f("role", self.role), f("description", self.description);
    f("replaces", self.replaces), f("grace_ends", self.grace_ends), f("origin", self.origin);
  }
};
using TokenCreated = TokenChanged<Kind::token_created>;
using TokenRotated = TokenChanged<Kind::token_rotated>;  // `token` is the new one
using TokenRevoked = TokenChanged<Kind::token_revoked>;
using TokenExpired = TokenChanged<Kind::token_expired>;

struct TokenAccepted {  // who and with what is in Record::auth
  static constexpr Kind kKind = Kind::token_accepted;
  std::string reason{};  // superseded: a replaced secret in its grace period; else empty
  static void fields(auto&, auto&&) {}
  static void added_fields(auto& self, auto&& f) { f("reason", self.reason); }
};

struct TokenRejected {
  static constexpr Kind kKind = Kind::token_rejected;
  std::int64_t status = 0;
  std::string reason;  // missing, malformed, unknown_principal, wrong_secret, expired, revoked, superseded, wrong_class,
                       // certificate_expired, certificate_not_yet_valid
  std::string token;   // id, where the presented secret is one that was valid before
  static void fields(auto& self, auto&& f) {
    f("status", self.status), f("reason", self.reason), f("token", self.token);
  }
};

// ---- node passwords --------------------------------------------------------------------------------------

struct PasswordStored {  // first use: the name is now bound to this password
  static constexpr Kind kKind = Kind::password_stored;
  Fingerprint fingerprint;
  std::string weakness{};       // low_entropy: a password that could be guessed; never a reason to refuse
  std::string also_bound_to{};  // another name that uses the same password (one of them)
  static void fields(auto& self, auto&& f) { f("fingerprint", self.fingerprint); }
  static void added_fields(auto& self, auto&& f) {
    f("weakness", self.weakness), f("also_bound_to", self.also_bound_to);
  }
};

struct PasswordVerified {
  static constexpr Kind kKind = Kind::password_verified;
  Fingerprint fingerprint;
  static void fields(auto& self, auto&& f) { f("fingerprint", self.fingerprint); }
};

struct PasswordRejected {
  static constexpr Kind kKind = Kind::password_rejected;
  Fingerprint fingerprint;  // presented
  Fingerprint bound;        // stored; not known when the name is held without a binding
  std::int64_t status = 0;
  static void fields(auto& self, auto&& f) {
    f("fingerprint", self.fingerprint), f("bound", self.bound), f("status", self.status);
  }
};

struct RequestRejected {
  static constexpr Kind kKind = Kind::request_rejected;
  std::int64_t status = 0;
  std::string reason;  // node_name_missing, node_name_invalid, node_password_missing, node_name_mismatch,
                       // node_unknown, store_unavailable, overloaded, bad_request, bad_csr;
                       // of an upstream: upstream_unavailable, upstream_error
  static void fields(auto& self, auto&& f) { f("status", self.status), f("reason", self.reason); }
};

struct BindingReleased {
  static constexpr Kind kKind = Kind::binding_released;
  std::string actor;
  std::string by;           // operator, node_deleted, sweep, k3s
  Fingerprint fingerprint;  // what was bound
  static void fields(auto& self, auto&& f) {
    f("actor", self.actor), f("by", self.by), f("fingerprint", self.fingerprint);
  }
};

struct BindingChanged {
  static constexpr Kind kKind = Kind::binding_changed;
  std::string actor;
  std::string by;  // operator_accept, operator_set, import, outside
  Fingerprint from, to;
  static void fields(auto& self, auto&& f) {
    f("actor", self.actor), f("by", self.by), f("from", self.from), f("to", self.to);
  }
};

struct BindingHeld {  // must not be bound again without an operator
  static constexpr Kind kKind = Kind::binding_held;
  std::string actor;
  static void fields(auto& self, auto&& f) { f("actor", self.actor); }
};

struct BindingImported {
  static constexpr Kind kKind = Kind::binding_imported;
  Fingerprint fingerprint;  // not known for a scrypt hash of k3s
  std::string origin;       // node-passwd, secret, log
  std::string file{};       // SHA-256 of the file it came from
  static void fields(auto& self, auto&& f) { f("fingerprint", self.fingerprint), f("origin", self.origin); }
  static void added_fields(auto& self, auto&& f) { f("file", self.file); }
};

// ---- certificates ----------------------------------------------------------------------------------------

struct CertificateIssued {
  static constexpr Kind kKind = Kind::certificate_issued;
  std::string purpose;  // serving-kubelet, client-kubelet, client-kube-proxy, client-{k3s,rke2}-controller
  std::string subject, serial, sha256;
  std::optional<Time> not_before, not_after;
  std::string key;         // csr (the agent's), generated (by us, for this certificate alone), shared (k3s)
  std::string public_key;  // SHA-256 of the SubjectPublicKeyInfo
  static void fields(auto& self, auto&& f) {
    f("purpose", self.purpose), f("subject", self.subject), f("serial", self.serial), f("sha256", self.sha256);
    f("not_before", self.not_before), f("not_after", self.not_after), f("key", self.key);
    f("public_key", self.public_key);
  }
};

// ---- liveness and cluster --------------------------------------------------------------------------------

struct TunnelOpened {
  static constexpr Kind kKind = Kind::tunnel_opened;
  std::string session;
  static void fields(auto& self, auto&& f) { f("session", self.session); }
};

struct TunnelClosed {
  static constexpr Kind kKind = Kind::tunnel_closed;
  std::string session, cause;
  std::optional<double> seconds;
  static void fields(auto& self, auto&& f) {
    f("session", self.session), f("cause", self.cause), f("seconds", self.seconds);
  }
};

template <Kind K>
struct NodeObjectChanged {
  static constexpr Kind kKind = K;
  std::string actor;
  std::string uid{};   // metadata.uid of the Node
  std::string file{};  // SHA-256 of the file it came from, where it was imported
  static void fields(auto& self, auto&& f) { f("actor", self.actor); }
  static void added_fields(auto& self, auto&& f) { f("uid", self.uid), f("file", self.file); }
};
using NodeObjectCreated = NodeObjectChanged<Kind::node_object_created>;
using NodeObjectDeleted = NodeObjectChanged<Kind::node_object_deleted>;

struct TlsFailed {
  static constexpr Kind kKind = Kind::tls_failed;
  std::string alert;                // TLS alert name or OpenSSL reason
  std::optional<bool> trust_probe;  // the expected first step of an agent's /cacerts round
  static void fields(auto& self, auto&& f) { f("alert", self.alert), f("trust_probe", self.trust_probe); }
};

// ---- the ledger about itself -----------------------------------------------------------------------------

struct CheckpointSigned {
  static constexpr Kind kKind = Kind::checkpoint_signed;
  std::int64_t size = 0;
  std::string root, key;
  static void fields(auto& self, auto&& f) { f("size", self.size), f("root", self.root), f("key", self.key); }
};

struct ExportCreated {
  static constexpr Kind kKind = Kind::export_created;
  std::string actor;
  std::int64_t from = 0, to = 0;
  std::string format, sha256;
  static void fields(auto& self, auto&& f) {
    f("actor", self.actor), f("from", self.from), f("to", self.to), f("format", self.format);
    f("sha256", self.sha256);
  }
};

struct ArchiveSealed {
  static constexpr Kind kKind = Kind::archive_sealed;
  std::int64_t from = 0, to = 0;
  std::string sha256;
  static void fields(auto& self, auto&& f) { f("from", self.from), f("to", self.to), f("sha256", self.sha256); }
};

// What was written in these records, or about Record::node, must stay where it is until the hold is lifted.
struct LegalHoldPlaced {
  static constexpr Kind kKind = Kind::legal_hold_placed;
  std::string actor;
  std::string hold;                  // id, 8 hex digits
  std::int64_t from = 0, to = 0;     // seqs; to 0: and all that follows; from 0: not a range of seqs
  std::optional<Time> since, until;  // of the records' times
  static void fields(auto& self, auto&& f) {
    f("actor", self.actor), f("hold", self.hold), f("from", self.from), f("to", self.to);
    f("since", self.since), f("until", self.until);
  }
};

struct LegalHoldLifted {
  static constexpr Kind kKind = Kind::legal_hold_lifted;
  std::string actor, hold;
  static void fields(auto& self, auto&& f) { f("actor", self.actor), f("hold", self.hold); }
};

// The archive and what the index said of its records are gone for good.
struct ArchiveRemoved {
  static constexpr Kind kKind = Kind::archive_removed;
  std::string actor;
  std::int64_t from = 0, to = 0;
  std::string sha256;  // as in archive_sealed
  static void fields(auto& self, auto&& f) {
    f("actor", self.actor), f("from", self.from), f("to", self.to), f("sha256", self.sha256);
  }
};

// One file of another server's memory was read to its end; what it proved stands in records before this one.
struct ImportFinished {
  static constexpr Kind kKind = Kind::import_finished;
  std::string actor;
  std::string origin;                      // node-passwd, secrets, nodes, log
  std::string file;                        // SHA-256
  std::int64_t used = 0, left_out = 0;     // entries that became records or were known already; that could not be used
  static void fields(auto& self, auto&& f) {
    f("actor", self.actor), f("origin", self.origin), f("file", self.file), f("used", self.used);
    f("left_out", self.left_out);
  }
};

// ---- in front of another server ----------------------------------------------------------------------------

// Who decides from here on. The newest one is the mode that the server is in (EventLog::newest).
struct ModeChanged {
  static constexpr Kind kKind = Kind::mode_changed;
  std::string mode, from;  // alone, observe, enforce; `from` empty: there was none before
  std::string upstreams;   // URLs, with commas between
  std::string actor;
  static void fields(auto& self, auto&& f) {
    f("mode", self.mode), f("from", self.from), f("upstreams", self.upstreams), f("actor", self.actor);
  }
};

// Record::upstream says which.
struct UpstreamLost {
  static constexpr Kind kKind = Kind::upstream_lost;
  std::string cause;
  static void fields(auto& self, auto&& f) { f("cause", self.cause); }
};
struct UpstreamFound {
  static constexpr Kind kKind = Kind::upstream_found;
  std::optional<double> seconds;  // how long it was lost
  static void fields(auto& self, auto&& f) { f("seconds", self.seconds); }
};

// The order of this list means nothing: what is stored is Kind's number.
using Event = std::variant<TokenAccepted, ServerStarted, ServerStopped, EpochStarted, ClockStepped, TokenCreated,
                           TokenRotated, TokenRevoked, TokenExpired, TokenRejected, PasswordStored, PasswordVerified,
                           PasswordRejected, RequestRejected, BindingReleased, BindingChanged, BindingHeld,
                           BindingImported, CertificateIssued, TunnelOpened, TunnelClosed, NodeObjectCreated,
                           NodeObjectDeleted, TlsFailed, CheckpointSigned, ExportCreated, ArchiveSealed, ImportFinished,
                           LegalHoldPlaced, LegalHoldLifted, ArchiveRemoved, ModeChanged, UpstreamLost, UpstreamFound>;

// Who asked, and how they proved it.
struct Auth {
  std::string method;     // basic, bearer, certificate, none; empty: not known
  std::string principal;  // user name or certificate CN; "(unknown)" for a name that is none of ours: people
                          // paste tokens into user names, and the log must not keep them
  std::string token;      // token id
  std::string serial;     // certificate serial (hex)
  bool operator==(const Auth&) const = default;
  static void fields(auto& self, auto&& f) {
    f("method", self.method), f("principal", self.principal), f("token", self.token), f("serial", self.serial);
  }
};

// One record = one event and its circumstances. `seq` and `time` are given by the log's writer alone.
struct Record {
  Seq seq = 0;
  Time time;
  Event event;
  std::string server;      // id of the server instance that decided
  std::int64_t epoch = 0;  // generation of the server's memory, from 1
  std::string request_id;
  std::string source;  // observed peer, "10.0.0.5", "10.0.0.5:41234" or "[fd00::1]:41234"
  std::string endpoint;
  Auth auth;
  std::string node;  // lower case; a claim where the kind is a refusal before authentication
  std::vector<std::string> claimed;
  std::string generation;  // G1..G7
  std::int64_t count = 1;  // stands for this many identical outcomes...
  std::optional<Time> first_time;  // ...from here to `time`
  std::string note;
  std::string via;  // the trusted proxy that conveyed `source`, "10.0.0.1:50022"; empty: none did
  std::string authority;  // upstream: another server decided, and we wrote it down; empty: we decided
  std::string upstream;   // which one it was, "10.0.0.1:6443"
  std::int64_t answered = 0;  // HTTP status it gave
  std::optional<std::int64_t> took_ms;  // until it was given; a record that counts several has none
  std::string would_have;  // what our own judgement was: a Ruling's name (decision.h), or `serve`

  Kind kind() const;

  static void fields(auto& self, auto&& f) {
    f("server", self.server), f("epoch", self.epoch), f("request_id", self.request_id);
    f("source", self.source), f("endpoint", self.endpoint), f("auth", self.auth), f("node", self.node);
    f("claimed", self.claimed), f("generation", self.generation), f("count", self.count);
    f("first_time", self.first_time), f("note", self.note);
  }
  static void added_fields(auto& self, auto&& f) { f("via", self.via); }
  static void fields_since_3(auto& self, auto&& f) {
    f("authority", self.authority), f("upstream", self.upstream), f("answered", self.answered);
    f("took_ms", self.took_ms), f("would_have", self.would_have);
  }
};

// "password_rejected" and back.
std::string_view name_of(Kind kind);
std::optional<Kind> kind_from_name(std::string_view name);
// An event of this kind with nothing filled in; nullopt for a number that is no kind of ours.
std::optional<Event> make_event(std::uint16_t tag);

// The event as T if that is what it is, else nullptr.
template <class T>
const T* as(const Record& record) {
  return std::get_if<T>(&record.event);
}

// Fingerprints that the record speaks of: presented, bound, from, to. Empty ones are left out.
std::vector<std::string_view> fingerprints_of(const Record& record);

// About the server as a whole, not about one request: starts, stops, epochs, clock, tokens' life cycle, imports,
// archives, legal holds, modes and upstreams.
bool is_server_wide(Kind kind);

// A running server folds these from the log: they stay in the store when the records around them go into an archive.
bool stays_in_store(Kind kind);

// A refusal or a failed handshake: what a storm is made of.
bool is_refusal(Kind kind);

// Decided by another server and read from its log (import.h): history, which changes no state here. `time` is when
// it was imported, `first_time` when it happened. Record::server of such a record begins with this.
inline constexpr std::string_view kImportedServer = "imported:";
inline bool is_imported(const Record& record) { return record.server.starts_with(kImportedServer); }

// Decided by a server behind this one, which forwarded the request and wrote down what became of it.
inline constexpr std::string_view kUpstreamAuthority = "upstream";
// request_rejected's `reason` where it gave no answer, or one that says nothing about the caller (5xx and others).
inline constexpr std::string_view kUpstreamUnavailable = "upstream_unavailable", kUpstreamError = "upstream_error";
inline bool is_upstreams(const Record& record) { return record.authority == kUpstreamAuthority; }

}  // namespace ledger
