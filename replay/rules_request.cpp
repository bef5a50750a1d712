#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "replay/names.h"
#include "replay/rules.h"
#include "replay/thresholds.h"

namespace ledger::replay::rules {

// ---- conditions of the server ----------------------------------------------------------------------------

Found never_seen(const Facts& facts) {
  if (!facts.own.empty()) return std::nullopt;
  Finding finding;
  finding.summary = who(facts) + " never reached this ledger by name: there is no record of it";
  finding.alternatives = {
      maybe(Cause::kEndpoint),
      maybe(Cause::kCa, "failed handshakes (tls_failed) from the machine's address"),
      maybe(Cause::kClock),
      maybe(Cause::kToken, "refused tokens (token_rejected) from the machine's address: they carry no name"),
  };
  finding.warnings.push_back(
      "nothing is known of this name; check its spelling and that this is the log of the "
      "server it talks to");
  return finding;
}

Found server_not_able(const Facts& facts) {
  if (facts.family != Family::request) return std::nullopt;
  const Record& last = *facts.failures.back();
  const auto* rejected = as<RequestRejected>(last);
  if (rejected == nullptr) return std::nullopt;
  Finding finding;
  if (rejected->reason == "store_unavailable") {
    finding.cause = Cause::kSrvState;
    finding.confidence = Confidence::kHigh;
    finding.summary = fmt::format(
        "the server could not decide: its store was not available ({}); nothing is wrong "
        "with {}",
        on_record(last), who(facts));
    cite(finding, last, "refused because the store was unavailable");
    finding.alternatives = {maybe(Cause::kOverload)};
    return finding;
  }
  if (rejected->reason == "overloaded") {
    finding.cause = Cause::kOverload;
    finding.confidence = Confidence::kMedium;
    finding.summary = fmt::format(
        "the server had more requests than it could take ({}); the agent tries again by "
        "itself",
        on_record(last));
    cite(finding, last, "refused because the server was overloaded");
    finding.alternatives = {maybe(Cause::kSrvState), maybe(Cause::kLostReply)};
    return finding;
  }
  if (rejected->status < 500 || rejected->reason == "node_password_missing") return std::nullopt;
  // A 5xx is the server's own word that it failed. Which part of it, the record does not say.
  finding.summary = fmt::format("the server answered {} ({}): it failed on its own side, and no password was judged",
                                rejected->status, on_record(last));
  cite(finding, last, fmt::format("refused with status {}{}", rejected->status, from_where(last)));
  finding.alternatives = {maybe(Cause::kOverload)};
  if (is_loopback(host_of(last.source))) {
    // The server's own node alone: what the two of them share is the password file.
    finding.cause = Cause::kCredFile;
    finding.summary += "; it is the server's own node, whose password file the server may not find or read";
    finding.warnings.push_back("missing: what the server's own log says about this answer");
    finding.alternatives.push_back(maybe(Cause::kSrvState));
    return finding;
  }
  finding.cause = Cause::kSrvState;
  finding.confidence = Confidence::kMedium;
  finding.alternatives.push_back(maybe(Cause::kCredFile));
  return finding;
}

// Seconds after its start the server refuses the very password that is bound: what it compares with is not complete.
Found server_just_started(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* good = former_use(facts);
  if (good == nullptr || r.passwords.size() != 1 || r.last().step->bound_before != r.presented) return std::nullopt;
  if (r.last().bound.known() && r.last().bound != r.presented) return std::nullopt;
  const Record& last = *r.last().record;
  const bool upstreams = is_upstreams(last);  // when it started nobody knows; since when it answers again, we do
  const Record* started = nullptr;
  for (const Record* record : facts.server_wide) {
    const std::string& here = upstreams ? record->upstream : record->server;
    const bool same_server = here.empty() || decided_by(last).empty() || here == decided_by(last);
    const bool start = upstreams ? as<UpstreamFound>(*record) != nullptr : as<ServerStarted>(*record) != nullptr;
    if (start && same_server && record->seq > good->seq && record->seq < r.first().seq()) started = record;
  }
  const auto up = started != nullptr ? seconds_from(started->time, r.last().to()) : std::nullopt;
  if (!up || *up > kServerWarmup_s) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kSrvState;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format(
      "{} is the one that {} is bound to; {} refuses it since it {} ({}, {} before the last refusal): its "
      "store or cache was not complete yet",
      named(facts, r.presented), who(facts), upstreams ? upstream_of(last) : "the server",
      upstreams ? "answers again" : "started", on_record(*started), duration_text(*up));
  cite(finding, *good, named(facts, r.presented) + " was good here");
  cite(finding, *started, upstreams ? "it had been lost, and answers again" : "the server started");
  cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kAdminEdit), maybe(Cause::kRestored), maybe(Cause::kSrvSplit)};
  return finding;
}

namespace {

// Adjacent answers to one password that contradict each other with nothing in between that explains it.
struct Contradictions {
  int pairs = 0;
  const Record* accepted = nullptr;
  const Record* refused = nullptr;
  bool by_server = true;  // each server always said the same
};

Contradictions contradictions(const Facts& facts, const Fingerprint& password) {
  Contradictions found;
  std::set<std::string> yes, no;
  const Record* previous = nullptr;
  bool previous_accepted = false;
  for (const Step* step : facts.own) {
    const Record& record = *step->record;
    const auto* rejected = as<PasswordRejected>(record);
    const bool accepted = is_success_with(record, password);
    const bool change = as<BindingChanged>(record) != nullptr || as<BindingReleased>(record) != nullptr ||
                        as<NodeObjectDeleted>(record) != nullptr || as<BindingImported>(record) != nullptr ||
                        (as<PasswordStored>(record) != nullptr && !accepted);
    if (change) {
      previous = nullptr;
      yes.clear(), no.clear();
      found = {};
      continue;
    }
    if (!accepted && (rejected == nullptr || rejected->fingerprint != password)) continue;
    if (decided_by(record).empty() || is_imported(record)) continue;
    (accepted ? yes : no).insert(decided_by(record));
    if (previous != nullptr && previous_accepted != accepted && decided_by(*previous) != decided_by(record)) {
      ++found.pairs;
      found.accepted = accepted ? &record : previous;
      found.refused = accepted ? previous : &record;
    }
    previous = &record;
    previous_accepted = accepted;
  }
  for (const std::string& server : yes) found.by_server = found.by_server && no.count(server) == 0;
  return found;
}

}  // namespace

Found servers_disagree(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Contradictions found = contradictions(facts, facts.refusals.presented);
  if (found.pairs == 0 || !found.by_server) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kSrvSplit;
  finding.confidence = found.pairs >= 2 ? Confidence::kHigh : Confidence::kMedium;
  finding.summary = fmt::format(
      "the servers disagree: {} accepts {} and {} refuses it, with no change of the binding "
      "in between",
      printable(decided_by(*found.accepted), 60), named(facts, facts.refusals.presented),
      printable(decided_by(*found.refused), 60));
  cite(finding, *found.accepted, "accepted by " + printable(decided_by(*found.accepted), 60));
  cite(finding, *found.refused, "refused by " + printable(decided_by(*found.refused), 60));
  if (found.pairs == 1)
    finding.alternatives.push_back(maybe(Cause::kStaleBind,
                                         "the other server catching up by itself: a lag after a "
                                         "change, not a disagreement"));
  finding.alternatives.push_back(maybe(Cause::kSrvState));
  return finding;
}

// The same token was good at one server and bad at another.
Found servers_disagree_on_token(const Facts& facts) {
  if (facts.family != Family::token) return std::nullopt;
  const Record& refused = *facts.failures.back();
  const auto* rejected = as<TokenRejected>(refused);
  const std::string token =
      !refused.auth.token.empty() || rejected == nullptr ? refused.auth.token : rejected->token;
  if (token.empty() || decided_by(refused).empty()) return std::nullopt;
  const Record* changed = nullptr;
  for (const Record* record : facts.server_wide)
    if (as<TokenRotated>(*record) != nullptr || as<TokenRevoked>(*record) != nullptr ||
        as<TokenExpired>(*record) != nullptr || as<EpochStarted>(*record) != nullptr)
      changed = record;
  const Record* accepted = nullptr;
  for (const Step* step : facts.own) {
    const Record& record = *step->record;
    if ((as<TokenAccepted>(record) != nullptr || is_success(record)) && record.auth.token == token &&
        !decided_by(record).empty() && decided_by(record) != decided_by(refused) &&
        (changed == nullptr || record.seq > changed->seq))
      accepted = &record;
  }
  if (accepted == nullptr) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kSrvSplit;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format("the servers disagree about the join token: {} accepts it, {} refuses it",
                                printable(decided_by(*accepted), 60), printable(decided_by(refused), 60));
  cite(finding, *accepted, "this token accepted by " + printable(decided_by(*accepted), 60));
  cite(finding, refused, "the same token refused by " + printable(decided_by(refused), 60));
  finding.alternatives = {maybe(Cause::kToken, "a rotation that one of the servers has not heard of")};
  return finding;
}

// The server's memory went back to before this password, or is another one.
Found memory_replaced(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* good = former_use(facts);
  if (good == nullptr) return std::nullopt;
  const Facts::MemoryChange change = facts.memory_change(good->seq, r.last().seq());
  if (change.record == nullptr) return std::nullopt;
  if (facts.last_between<BindingChanged, BindingReleased, PasswordStored>(good->seq, change.record->seq) != nullptr)
    return std::nullopt;  // it had lost the name before the restore
  Finding finding;
  finding.cause = Cause::kRestored;
  finding.confidence = r.presented == r.holder || !r.holder.known() ? Confidence::kMedium : Confidence::kHigh;
  finding.summary = fmt::format(
      "the server lost what it knew: {} was good until {}, then the datastore was {} ({}), "
      "and it is refused since",
      named(facts, r.presented), on_record(*good), change.cause == "restored" ? "restored" : "replaced",
      on_record(*change.record));
  cite(finding, *good, named(facts, r.presented) + " was the node's own");
  cite(finding, *change.record, "the server's memory is another one since");
  cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kAdminEdit), maybe(Cause::kSrvSplit)};
  return finding;
}

// ---- before the password is read -------------------------------------------------------------------------

namespace {

std::string token_reason_text(std::string_view reason) {
  if (reason == "missing") return "it presents no join token at all";
  if (reason == "malformed") return "what it presents cannot be read as a credential";
  if (reason == "unknown_principal") return "it authenticates as somebody this server does not know";
  if (reason == "wrong_secret") return "its join token is not and never was one of this server";
  if (reason == "expired") return "its join token has expired";
  if (reason == "revoked") return "its join token was revoked";
  if (reason == "superseded") return "it still uses a join token that was replaced by a rotation";
  if (reason == "certificate_expired") return "its client certificate has expired, and it presents no join token";
  if (reason == "certificate_not_yet_valid") return "its client certificate is not valid yet by this server's clock";
  if (reason == "wrong_class") return "its token is valid but of the wrong class for an agent";
  return "its join token is refused; the record does not say why";
}

// The record that ended this token. A rotation of before format version 2 does not say what it replaced: all of its
// class.
const Record* end_of_token(const Facts& facts, std::string_view token, Seq before) {
  const Record* found = nullptr;
  std::string_view token_class;
  const auto is_end = [&](const auto* event) { return event != nullptr && event->token == token; };
  for (const Record* record : facts.server_wide) {
    if (record->seq >= before || token.empty()) break;
    const auto* rotated = as<TokenRotated>(*record);
    if (const auto* created = as<TokenCreated>(*record); created != nullptr && created->token == token) {
      token_class = created->token_class;
      found = nullptr;
    } else if (rotated != nullptr && rotated->token == token) {
      token_class = rotated->token_class;
      found = nullptr;
    } else if (rotated != nullptr && (rotated->replaces.empty() ? rotated->token_class == token_class
                                                                : rotated->replaces == token)) {
      found = record;
    } else if (is_end(as<TokenRevoked>(*record)) || is_end(as<TokenExpired>(*record))) {
      found = record;
    }
  }
  return found;
}

// "agent token 3f9a1c4b2d5e revoked by ops@srv: leaked in a build log"
std::string end_text(const Record& end, const std::string& token) {
  const auto words = [&](const auto& event, std::string_view what) {
    return fmt::format("{}token {} {}{}{}", event.token_class.empty() ? "" : printable(event.token_class, 20) + " ",
                       printable(token, 40), what, event.actor.empty() ? "" : " by " + printable(event.actor, 60),
                       end.note.empty() ? "" : ": " + printable(end.note, 100));
  };
  if (const auto* revoked = as<TokenRevoked>(end)) return words(*revoked, "revoked");
  if (const auto* rotated = as<TokenRotated>(end)) {
    std::string grace;
    if (rotated->grace_ends) grace = ", good until " + rotated->grace_ends->to_string();
    return words(*rotated, "replaced by " + printable(rotated->token, 40) + grace + ",");
  }
  const auto* expired = as<TokenExpired>(end);
  return words(TokenExpired{.token = token, .token_class = expired->token_class, .expires = {}, .actor = {}},
               expired->expires ? "expired at " + expired->expires->to_string() : "expired");
}

// The life of tokens changed since the node last succeeded.
const Record* token_change_since(const Facts& facts, Seq after) {
  const Record* found = nullptr;
  for (const Record* record : facts.server_wide)
    if (record->seq > after && record->seq < facts.failures.back()->seq &&
        (as<TokenRotated>(*record) != nullptr || as<TokenRevoked>(*record) != nullptr ||
         as<TokenExpired>(*record) != nullptr))
      found = record;
  return found;
}

Confidence token_confidence(const Facts& facts, const Record& last, std::string_view reason, bool change) {
  const bool exact = reason == "expired" || reason == "revoked" || reason == "superseded" ||
                     reason == "wrong_class" || reason == "wrong_secret";
  if (reason == "missing") return Confidence::kLow;  // agents always send one
  Confidence confidence = exact || change ? Confidence::kHigh : Confidence::kMedium;
  if (!last.node.empty()) return confidence;
  // Tied to the node by its address alone. Its own earlier token makes up for that.
  const auto* rejected = as<TokenRejected>(last);
  for (const Step* step : facts.own) {
    const std::string& used = step->record->auth.token;
    if (!used.empty() && (used == last.auth.token || used == rejected->token)) return confidence;
  }
  return facts.names_mixed ? Confidence::kLow : lower(confidence);
}

}  // namespace

Found token_refused(const Facts& facts) {
  if (facts.family != Family::token) return std::nullopt;
  const Record& last = *facts.failures.back();
  const auto* rejected = as<TokenRejected>(last);
  const Record* success = facts.last_success_before(last.seq);
  const Seq since = success != nullptr ? success->seq : 0;
  std::int64_t count = 0;
  for (const Record* record : facts.failures) count += record->count;

  Finding finding;
  finding.cause = Cause::kToken;
  const Record* end = end_of_token(facts, rejected->token, last.seq);
  const Record* change = end != nullptr ? end : token_change_since(facts, since);
  finding.confidence = token_confidence(facts, last, rejected->reason, change != nullptr);
  finding.summary = fmt::format("{} does not get as far as its password: {} (refused {}, {})",
                                last.node.empty() ? who(facts) : "whoever claims to be " + who(facts),
                                token_reason_text(rejected->reason), times(count), on_record(last));
  const Record& first = *facts.failures.front();
  cite(finding, first, fmt::format("token refused{}: {}", from_where(first), token_reason_text(rejected->reason)));
  if (facts.tunnel_open_at(last)) {
    finding.confidence = lower(finding.confidence);
    finding.warnings.push_back(
        "the node itself is connected meanwhile (its tunnel is open): the refused requests may be another "
        "machine's");
  }
  if (facts.failures.size() > 1) cite(finding, last, "refused last");
  if (end != nullptr)
    cite(finding, *end, end_text(*end, rejected->token));
  else if (change != nullptr)
    cite(finding, *change, fmt::format("{} since the last success", name_of(change->kind())));
  if (success != nullptr) cite(finding, *success, "last success" + from_where(*success));
  if (last.node.empty())
    finding.warnings.push_back(
        "the refused requests carry no node name; they are tied to it by their address only");
  if (rejected->reason == "missing" || rejected->reason == "malformed")
    finding.alternatives.push_back(
        maybe(Cause::kEndpoint, "a proxy or a TLS-terminating balancer in between that drops the credential"));
  if (!facts.refusals.attempts.empty())
    finding.warnings.push_back(
        fmt::format("apart from this, its password was refused before (record {}): once the "
                    "token is right, that may come back",
                    facts.refusals.last().seq()));
  if (const auto memory = facts.memory_change(since, last.seq); memory.record != nullptr && change == nullptr) {
    // The token may be right and the server's memory wrong.
    cite(finding, *memory.record, "the server's memory is another one since");
    finding.alternatives.push_back(
        maybe(Cause::kRestored, "the token to be one that was valid before the restore"));
    finding.confidence = lower(finding.confidence);
  }
  finding.alternatives.push_back(maybe(Cause::kSrvSplit, "the same token accepted by another server"));
  if (rejected->reason.empty() || rejected->reason == "wrong_secret" || rejected->reason == "unknown_principal")
    finding.alternatives.push_back(
        maybe(Cause::kEndpoint, "the machine meant to join another cluster than this one"));
  return finding;
}

namespace {

// Our CA's own, by its signature, and only its time is wrong: the token would do.
Found untimely_certificate(const Facts& facts, const Record& last, std::string_view reason) {
  const bool expired = reason == "certificate_expired";
  if (!expired && reason != "certificate_not_yet_valid") return std::nullopt;
  Finding finding;
  const std::string fault = expired ? "has expired" : "is not valid yet by this server's clock";
  cite(finding, last, "its client certificate " + fault);
  finding.summary = fmt::format("whoever claims to be {} shows a client certificate that {}, and no token ({})", who(facts),
                                fault, on_record(last));
  finding.alternatives = {maybe(Cause::kClock, "the server's own clock, compared with the time"),
                          maybe(Cause::kToken, "the same request without the certificate")};
  if (expired)
    finding.cause = Cause::kStaleCert, finding.confidence = Confidence::kMedium;
  else
    finding.alternatives.push_back(maybe(Cause::kStaleCert));
  return finding;
}

}  // namespace

// A token that got the machine in a moment ago is refused to it: it was good for one use, and the answer to that one
// never arrived.
Found answer_lost_with_its_token(const Facts& facts) {
  if (facts.family != Family::token) return std::nullopt;
  const Record& first = *facts.failures.front();
  const auto* rejected = as<TokenRejected>(first);
  const std::string token = rejected == nullptr || rejected->token.empty() ? first.auth.token : rejected->token;
  const Record* success = facts.last_success_before(first.seq);
  if (token.empty() || success == nullptr || success->auth.token != token) return std::nullopt;
  const auto gap = seconds_from(success->time, first.time);
  if (!gap || *gap > kSameRetries_s || host_of(success->source) != host_of(first.source)) return std::nullopt;
  if (facts.last_between<TunnelOpened>(success->seq, UINT64_MAX) != nullptr) return std::nullopt;
  for (const Record* record : facts.server_wide)  // somebody took the token away meanwhile
    if (record->seq > success->seq && record->seq < first.seq &&
        (as<TokenRotated>(*record) != nullptr || as<TokenRevoked>(*record) != nullptr))
      return std::nullopt;
  Finding finding;
  finding.cause = Cause::kLostReply;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format(
      "{} was admitted ({}) and {} later the same token is refused to it: the answer did not arrive, and the token was "
      "good for one use",
      who(facts), on_record(*success), duration_text(*gap));
  cite(finding, *success, "admitted with this token" + from_where(*success));
  cite(finding, first, "the same token refused" + from_where(first));
  finding.alternatives = {maybe(Cause::kToken, "the token to have ended by itself just then"), maybe(Cause::kSrvSplit)};
  return finding;
}

// Requests without any credential from an address that is a balancer's or a proxy's: an agent always sends one.
Found credential_lost(const Facts& facts) {
  if (facts.family != Family::token) return std::nullopt;
  const Record& last = *facts.failures.back();
  const auto* rejected = as<TokenRejected>(last);
  if (rejected == nullptr || rejected->reason != "missing") return std::nullopt;
  Place here, before;
  here.add(last);
  const Record* success = facts.last_success_before(last.seq);
  if (success != nullptr) before.add(*success);
  const bool conveyed = !last.via.empty() || facts.is_shared(here);
  const bool elsewhere = last.node == facts.history.node && success != nullptr && !here.sources.empty() &&
                         facts.compare(here, before) == Where::different && last.claimed.empty();
  if (!conveyed && !elsewhere) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kEndpoint;
  finding.confidence = Confidence::kLow;
  finding.summary = fmt::format(
      "requests for {} arrive without any credential{}, which no agent sends: something between it and this server "
      "drops the credential, ends the TLS connection, or asks in its place",
      who(facts), from_where(last));
  cite(finding, last, "a request without a credential" + from_where(last));
  if (success != nullptr) cite(finding, *success, "last success" + from_where(*success));
  finding.warnings.push_back("missing: " + std::string(would_need(Cause::kEndpoint)));
  finding.alternatives = {maybe(Cause::kToken, "the same request, sent from the machine itself, refused as well")};
  return finding;
}

// A client certificate that our CA did not sign: of another cluster, or of this one before its CA changed.
Found foreign_certificate(const Facts& facts) {
  if (facts.family != Family::token) return std::nullopt;
  const Record& last = *facts.failures.back();
  const auto* rejected = as<TokenRejected>(last);
  if (rejected == nullptr || last.auth.method != "certificate") return std::nullopt;
  if (Found untimely = untimely_certificate(facts, last, rejected->reason)) return untimely;
  if (rejected->reason != "unknown_principal") return std::nullopt;
  const Record* success = facts.last_success_before(last.seq);
  const Record* change = facts.ca_change(success != nullptr ? success->seq : 0, last.seq);
  Finding finding;
  cite(finding, last, "its client certificate is not signed by this server's CA");
  if (change != nullptr) {
    finding.cause = Cause::kCa;
    finding.confidence = success != nullptr ? Confidence::kHigh : Confidence::kMedium;
    finding.summary = fmt::format("the server's CA changed ({}) and {} still shows a certificate of the old one",
                                  on_record(*change), who(facts));
    cite(finding, *change, "the server came up with another CA");
    finding.alternatives = {maybe(Cause::kStaleCert)};
    return finding;
  }
  finding.summary = who(facts) +
                    " shows a client certificate that this server's CA did not sign; whether of another "
                    "cluster or of an earlier CA, the records do not say";
  finding.alternatives = {maybe(Cause::kCa, "the CA that signed the certificate, and whether it was this server's"),
                          maybe(Cause::kStaleCert),
                          maybe(Cause::kToken, "the same request without the certificate"),
                          maybe(Cause::kEndpoint, "the machine meant to join another cluster than this one")};
  return finding;
}

Found released_certificate(const Facts& facts) {
  if (facts.family != Family::request) return std::nullopt;
  const Record& last = *facts.failures.back();
  if (as<RequestRejected>(last)->reason != "node_unknown") return std::nullopt;
  Finding finding;
  finding.cause = Cause::kStaleCert;
  finding.confidence = Confidence::kHigh;
  finding.summary = fmt::format(
      "{} shows the client certificate of a node that was released, and no request with its token followed ({}); "
      "agents before v1.27.4 never send one, later ones do after each such refusal",
      who(facts), on_record(last));
  cite(finding, last, "refused because its certificate names a node that is not registered (any more)");
  if (const Record* release = facts.last_between<BindingReleased, NodeObjectDeleted>(0, last.seq))
    cite(finding, *release,
         as<BindingReleased>(*release) != nullptr ? "the name was released" : "the Node was deleted");
  else
    finding.confidence = Confidence::kMedium;
  finding.alternatives = {maybe(Cause::kToken, "the same request with the token alone refused as well")};
  return finding;
}

Found no_password(const Facts& facts) {
  if (facts.family != Family::request) return std::nullopt;
  const Record& last = *facts.failures.back();
  if (as<RequestRejected>(last)->reason != "node_password_missing") return std::nullopt;
  const Record* success = facts.last_success_before(last.seq);
  std::int64_t count = 0;
  for (const Record* record : facts.failures) count += record->count;
  Place here, before;
  here.add(last);
  if (success != nullptr) before.add(*success);
  const Where where = facts.compare(here, before);
  Finding finding;
  finding.cause = Cause::kCredFile;
  const bool same_machine = where == Where::same || where == Where::same_source;
  finding.confidence = same_machine && count >= 2 ? Confidence::kHigh : Confidence::kMedium;
  if (last.node.empty()) finding.confidence = Confidence::kLow;
  finding.summary = fmt::format(
      "{} sends no node password: /etc/rancher/node/password is empty or cannot be read "
      "there (refused {}, {})",
      who(facts), times(count), on_record(last));
  cite(finding, last, "the request named the node but carried no password" + from_where(last));
  if (success != nullptr) cite(finding, *success, "with a password it succeeded" + from_where(*success));
  finding.alternatives = {maybe(Cause::kEndpoint, "a proxy in between that drops headers")};
  return finding;
}

Found other_request_refused(const Facts& facts) {
  if (facts.family != Family::request) return std::nullopt;
  const Record& last = *facts.failures.back();
  const std::string& reason = as<RequestRejected>(last)->reason;
  Finding finding;
  cite(finding, last,
       "refused: " + (reason.empty() ? std::string("the record does not say why") : printable(reason, 60)));
  if (reason == "node_name_mismatch") {
    finding.cause = Cause::kNameDrift;
    finding.confidence = Confidence::kLow;
    finding.summary = fmt::format(
        "a machine whose certificate names another node ({}) asks as {}: its name changed, or "
        "its files were copied from that node",
        printable(last.auth.principal, 80), who(facts));
    finding.alternatives = {maybe(Cause::kCloned, "the node that the certificate names, alive elsewhere")};
    return finding;
  }
  if (reason == "bad_csr") {
    // Made by the agent from its own key file, and sent as a body: one of the two is broken.
    finding.summary = fmt::format(
        "what {} posts to be signed is not a certificate request that can be signed ({}){}; no password was looked at",
        who(facts), on_record(last), last.note.empty() ? "" : ": " + printable(last.note, 160));
    finding.alternatives = {maybe(Cause::kEndpoint, "a proxy in between that changes or cuts the body of requests"),
                            maybe(Cause::kCredFile, "the agent's key files, next to its certificates, to be damaged")};
    finding.warnings.push_back(
        "missing: the request as the agent made it, and its key files (client-kubelet.key, serving-kubelet.key)");
    return finding;
  }
  finding.summary = fmt::format("the request itself is refused ({}); no password was looked at",
                                reason.empty() ? "reason not recorded" : printable(reason, 60));
  finding.alternatives = {maybe(Cause::kEndpoint, "a proxy in between that changes requests"),
                          maybe(Cause::kCredFile)};
  return finding;
}

namespace {

bool speaks_of(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::any_of(words.begin(), words.end(), [&](std::string_view word) { return text.find(word) != text.npos; });
}

// The server's clock was stepped by more than a minute, between these records.
const Record* clock_step(const Facts& facts, Seq after, Seq before) {
  const Record* found = nullptr;
  for (const Record* record : facts.server_wide) {
    const auto* stepped = as<ClockStepped>(*record);
    if (stepped != nullptr && std::abs(stepped->by_seconds) > 60 && record->seq > after && record->seq < before)
      found = record;
  }
  return found;
}

// Most agents send bad_certificate whatever is wrong, which decides nothing. The others say what they did not like;
// it is their word about our certificate, so `low`.
void decide_by_alert(Finding& finding, const std::string& alert) {
  if (speaks_of(alert, {"expired", "not yet valid"})) {
    std::swap(finding.alternatives[0], finding.alternatives[1]);
    finding.cause = Cause::kClock;
    finding.summary += ": the machine holds the server's certificate for out of date";
    finding.alternatives[1] = maybe(Cause::kCa, "the server's own certificate to have expired: then every agent fails");
  } else if (speaks_of(alert, {"unknown ca", "unknown_ca", "unknown authority", "self signed", "self-signed"})) {
    finding.cause = Cause::kCa;
    finding.summary += ": the machine does not know the CA of the server that it reaches";
  } else if (speaks_of(alert, {"http request", "wrong version number"})) {
    std::swap(finding.alternatives[0], finding.alternatives[2]);
    finding.cause = Cause::kEndpoint;
    finding.summary += ": what arrives is not TLS; a proxy, or a wrong port in between";
  } else {
    return;
  }
  finding.alternatives.erase(finding.alternatives.begin());
  finding.warnings.push_back("missing: " + std::string(would_need(finding.cause)));
}

}  // namespace

Found handshake_failed(const Facts& facts) {
  if (facts.family != Family::handshake) return std::nullopt;
  const Record& last = *facts.failures.back();
  const Record* success = facts.last_success_before(last.seq);
  std::int64_t count = 0;
  for (const Record* record : facts.failures) count += record->count;
  const std::string alert = printable(as<TlsFailed>(last)->alert, 80);
  Finding finding;
  cite(finding, last,
       fmt::format("TLS handshake failed {}{}: {}", times(count), from_where(last),
                   alert.empty() ? "alert not recorded" : alert));
  if (last.node.empty())
    finding.warnings.push_back("failed handshakes carry no name: they are tied to the node by an address that it used");
  if (success != nullptr) cite(finding, *success, "last success" + from_where(*success));
  const Record* change = facts.ca_change(success != nullptr ? success->seq : 0, last.seq);
  if (change != nullptr && success != nullptr) {
    finding.cause = Cause::kCa;
    finding.confidence = Confidence::kMedium;
    finding.summary = fmt::format(
        "the server's CA changed ({}), and from the address of {} come handshakes that fail "
        "since",
        on_record(*change), who(facts));
    cite(finding, *change, "the server came up with another CA");
    finding.alternatives = {maybe(Cause::kClock), maybe(Cause::kEndpoint)};
    return finding;
  }
  finding.alternatives = {maybe(Cause::kCa), maybe(Cause::kClock), maybe(Cause::kEndpoint)};
  if (const Record* stepped = clock_step(facts, success != nullptr ? success->seq : 0, last.seq)) {
    finding.cause = Cause::kClock;
    finding.confidence = Confidence::kMedium;
    finding.summary = fmt::format(
        "the server's clock was stepped by {} ({}), and handshakes from the address of {} fail since: its certificates "
        "seem not to be valid now",
        duration_text(as<ClockStepped>(*stepped)->by_seconds), on_record(*stepped), who(facts));
    cite(finding, *stepped, "the server's clock was stepped");
    finding.alternatives = {maybe(Cause::kCa), maybe(Cause::kEndpoint)};
    return finding;
  }
  if (facts.only_probes) {
    finding.summary = fmt::format(
        "the agent at the address of {} asks for this server's CA again and again ({}) and goes no further: the CA hash "
        "in its token may be another's; a proxy, or a token of another cluster, would look the same",
        who(facts), times(count));
    finding.alternatives.insert(finding.alternatives.begin() + 1,
                                maybe(Cause::kToken, "the agent's own log: it says which CA hash its token expects"));
    return finding;
  }
  finding.summary = fmt::format("no request of {} arrives; from its address come TLS handshakes that fail ({})",
                                who(facts), alert.empty() ? "alert not recorded" : alert);
  decide_by_alert(finding, to_lower(alert));
  return finding;
}

}  // namespace ledger::replay::rules
