#include "replay/meaning.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace ledger::replay {
namespace {

constexpr KindMeaning kKinds[] = {
    {Kind::server_started, "success", 1, 1008, 6, "configuration", "info", "start"},
    {Kind::server_stopped, "success", 1, 1008, 7, "configuration", "info", "stop"},
    {Kind::epoch_started, "unknown", 4, 1008, 99, "configuration", "change", "update"},
    {Kind::clock_stepped, "unknown", 2, 1008, 99, "configuration", "info", "update"},
    {Kind::token_created, "success", 2, 3004, 1, "iam", "creation", "create"},
    {Kind::token_rotated, "success", 2, 3004, 3, "iam", "change", "update"},
    {Kind::token_revoked, "success", 2, 3004, 4, "iam", "deletion", "delete"},
    {Kind::token_expired, "success", 1, 3004, 4, "iam", "deletion", "delete"},
    {Kind::token_accepted, "success", 1, 3002, 1, "authentication", "start", "get"},
    {Kind::token_rejected, "failure", 3, 3002, 1, "authentication", "start", "get"},
    {Kind::password_stored, "success", 1, 3004, 6, "iam", "creation", "create"},
    {Kind::password_verified, "success", 1, 3002, 1, "authentication", "start", "get"},
    {Kind::password_rejected, "failure", 3, 3002, 1, "authentication", "start", "get"},
    {Kind::request_rejected, "failure", 2, 6003, 99, "api", "denied", "get"},
    {Kind::binding_released, "success", 2, 3004, 7, "iam", "deletion", "delete"},
    {Kind::binding_changed, "success", 3, 3004, 3, "iam", "change", "update"},
    {Kind::binding_held, "success", 2, 3004, 12, "iam", "change", "update"},
    {Kind::binding_imported, "success", 2, 3004, 6, "iam", "creation", "create"},
    {Kind::certificate_issued, "success", 1, 3004, 1, "iam", "creation", "create"},
    {Kind::tunnel_opened, "success", 1, 3002, 1, "session", "start", "connect"},
    {Kind::tunnel_closed, "success", 1, 3002, 2, "session", "end", "connect"},
    {Kind::node_object_created, "success", 1, 3004, 1, "iam", "creation", "create"},
    {Kind::node_object_deleted, "success", 2, 3004, 4, "iam", "deletion", "delete"},
    {Kind::tls_failed, "failure", 2, 6003, 99, "api", "denied", "connect"},
    {Kind::checkpoint_signed, "success", 1, 1008, 99, "configuration", "info", "update"},
    {Kind::export_created, "success", 2, 1008, 3, "configuration", "access", "get"},
    {Kind::archive_sealed, "success", 2, 1008, 4, "configuration", "change", "update"},
    {Kind::import_finished, "success", 2, 1008, 99, "configuration", "change", "create"},
    {Kind::legal_hold_placed, "success", 2, 1008, 3, "configuration", "change", "update"},
    {Kind::legal_hold_lifted, "success", 2, 1008, 3, "configuration", "change", "update"},
    {Kind::archive_removed, "success", 3, 1008, 4, "configuration", "deletion", "delete"},
    {Kind::mode_changed, "success", 3, 1008, 99, "configuration", "change", "update"},
    {Kind::upstream_lost, "failure", 3, 1008, 99, "configuration", "info", "update"},
    {Kind::upstream_found, "success", 1, 1008, 99, "configuration", "info", "update"},
};

std::string safe(std::string_view text) { return printable(text, 200); }
std::string by(std::string_view actor) { return actor.empty() ? "" : " by " + safe(actor); }

struct Words {
  const Record& record;
  Meaning& m;

  std::string node() const { return record.node.empty() ? "a machine without a name" : "node " + safe(record.node); }
  std::string from() const { return record.source.empty() ? "" : " from " + safe(host_of(record.source)); }
  void say(std::string sentence) const { m.sentence = std::move(sentence); }
  void by_actor(const std::string& actor) const { m.actor = actor; }

  void operator()(const ServerStarted& e) const { say("server started, version " + safe(e.version)); }
  void operator()(const ServerStopped& e) const {
    m.reason = e.reason;
    say("server stopped: " + safe(e.reason));
  }
  void operator()(const EpochStarted& e) const {
    m.reason = e.cause;
    say(fmt::format("the server's memory changed ({}): head was {}, is {}", safe(e.cause), e.head_before, e.head_after));
  }
  void operator()(const ClockStepped& e) const { say(fmt::format("the clock was stepped by {:.3f} s", e.by_seconds)); }
  template <Kind K>
  void operator()(const TokenChanged<K>& e) const {
    by_actor(e.actor);
    m.token = e.token;
    say(fmt::format("{} token {} {}{}", safe(e.token_class), safe(e.token),
                    name_of(K).substr(std::string_view("token_").size()), by(e.actor)));
  }
  void operator()(const TokenAccepted& e) const {
    m.reason = e.reason;
    m.token = record.auth.token;
    say("credentials of " + (record.node.empty() ? safe(record.auth.principal) : node()) + " accepted" + from());
  }
  void operator()(const TokenRejected& e) const {
    m.status = e.status, m.reason = e.reason, m.token = e.token;
    say(fmt::format("credentials refused{}: {}{}", from(), safe(e.reason),
                    record.node.empty() ? "" : "; it claims to be " + node()));
  }
  void operator()(const PasswordStored&) const { say(node() + " registered, its name is bound to its password"); }
  void operator()(const PasswordVerified&) const { say(node() + " presented the password it is bound to" + from()); }
  void operator()(const PasswordRejected& e) const {
    // An upstream does not know our holds; what it has as bound is not always known.
    const bool differs = e.bound.known() || is_upstreams(record);
    m.status = e.status, m.reason = differs ? "password_differs" : "name_held";
    say(node() + " refused" + from() +
        (differs ? ": its password is not the one the name is bound to" : ": the name is held"));
  }
  void operator()(const RequestRejected& e) const {
    m.status = e.status, m.reason = e.reason;
    say("request of " + node() + " refused" + from() + ": " + safe(e.reason));
  }
  void operator()(const BindingReleased& e) const {
    by_actor(e.actor), m.reason = e.by;
    say(node() + " released" + by(e.actor.empty() ? e.by : e.actor));
  }
  void operator()(const BindingChanged& e) const {
    by_actor(e.actor), m.reason = e.by;
    say(node() + " bound to another password" + by(e.actor.empty() ? e.by : e.actor));
  }
  void operator()(const BindingHeld& e) const {
    by_actor(e.actor);
    say(node() + " held" + by(e.actor));
  }
  void operator()(const BindingImported& e) const {
    m.reason = e.origin;
    say("binding of " + node() + " imported from " + safe(e.origin));
  }
  void operator()(const CertificateIssued& e) const {
    say(fmt::format("{} certificate {} issued to {}", safe(e.purpose), safe(e.serial),
                    record.node.empty() ? safe(e.subject) : node()));
  }
  void operator()(const TunnelOpened&) const { say("tunnel of " + node() + " opened" + from()); }
  void operator()(const TunnelClosed& e) const {
    m.reason = e.cause;
    say("tunnel of " + node() + " closed: " + safe(e.cause));
  }
  void operator()(const NodeObjectCreated& e) const { by_actor(e.actor), say("Node object of " + node() + " created"); }
  void operator()(const NodeObjectDeleted& e) const { by_actor(e.actor), say("Node object of " + node() + " deleted"); }
  void operator()(const TlsFailed& e) const {
    m.reason = e.alert;
    say(fmt::format("TLS handshake failed{}: {}{}", from(), safe(e.alert),
                    e.trust_probe.value_or(false) ? " (expected: an agent's first look at the CA)" : ""));
  }
  void operator()(const CheckpointSigned& e) const { say(fmt::format("checkpoint of {} records signed", e.size)); }
  void operator()(const ExportCreated& e) const {
    by_actor(e.actor);
    say(fmt::format("records {} to {} exported{}", e.from, e.to, by(e.actor)));
  }
  void operator()(const ArchiveSealed& e) const { say(fmt::format("records {} to {} archived", e.from, e.to)); }
  void operator()(const LegalHoldPlaced& e) const {
    by_actor(e.actor);
    say(fmt::format("legal hold {} placed{}{}", safe(e.hold), record.node.empty() ? "" : " on " + node(), by(e.actor)));
  }
  void operator()(const LegalHoldLifted& e) const {
    by_actor(e.actor);
    say("legal hold " + safe(e.hold) + " lifted" + by(e.actor));
  }
  void operator()(const ArchiveRemoved& e) const {
    by_actor(e.actor);
    say(fmt::format("the archive of records {} to {} removed{}", e.from, e.to, by(e.actor)));
  }
  void operator()(const ModeChanged& e) const {
    by_actor(e.actor), m.reason = e.mode;
    say(fmt::format("mode changed{} to {}{}", e.from.empty() ? "" : " from " + safe(e.from), safe(e.mode), by(e.actor)));
  }
  void operator()(const UpstreamLost& e) const {
    m.reason = e.cause;
    say(fmt::format("upstream {} lost: {}", safe(record.upstream), safe(e.cause)));
  }
  void operator()(const UpstreamFound& e) const {
    say(fmt::format("upstream {} answers{}", safe(record.upstream),
                    e.seconds ? fmt::format(" after {:.1f} s", *e.seconds) : ""));
  }
  void operator()(const ImportFinished& e) const {
    by_actor(e.actor), m.reason = e.origin;
    say(fmt::format("import of {} finished{}: {} used, {} left out", safe(e.origin), by(e.actor), e.used, e.left_out));
  }
};

}  // namespace

const KindMeaning& meaning_of(Kind kind) {
  const auto* found = std::find_if(std::begin(kKinds), std::end(kKinds), [&](const KindMeaning& one) { return one.kind == kind; });
  if (found == std::end(kKinds)) fatal("a kind without a meaning");
  return *found;
}

Meaning meaning_of(const Record& record) {
  Meaning meaning;
  meaning.kind = &meaning_of(record.kind());
  std::visit(Words{record, meaning}, record.event);
  if (meaning.actor.empty()) meaning.actor = record.auth.principal;
  if (is_upstreams(record)) meaning.sentence += ", as upstream " + safe(record.upstream) + " decided";
  if (record.count > 1) meaning.sentence += fmt::format(" ({} times)", record.count);
  return meaning;
}

}  // namespace ledger::replay
