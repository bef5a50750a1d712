#include "replay/causes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "replay/names.h"
#include "replay/thresholds.h"

namespace ledger::replay {

std::string duration_text(double seconds) {
  const double s = std::fabs(seconds);
  if (s < 60) return fmt::format("{:.0f} s", s);
  const auto whole = static_cast<long long>(std::llround(std::min(s, 1e15)));
  if (whole < 3600) return whole % 60 == 0 ? fmt::format("{}m", whole / 60) : fmt::format("{}m{}s", whole / 60, whole % 60);
  if (whole < 2 * 86400) return fmt::format("{}h{:02}m", whole / 3600, whole % 3600 / 60);
  return fmt::format("{} days", whole / 86400);
}

std::string_view would_need(Cause cause) {
  switch (cause) {
    case Cause::kNone: return "the attempt after this one to succeed";
    case Cause::kUnknown: return "more records";
    case Cause::kRebuilt:
      return "the holder known to be gone, and the same machine asking again (its address, or whoever rebuilt it)";
    case Cause::kStaleBind: return "a release of the name or a deleted Node before the refusals";
    case Cause::kZombie: return "a success with the old password after a release of the name";
    case Cause::kOrphanBind: return "proof that the first join got no further: no tunnel and no Node object ever";
    case Cause::kPoolReuse:
      return "another machine that owns the name now: the autoscaler's or address pool's own record, or a second "
             "name of the same pattern with the same story";
    case Cause::kEphemeral: return "yet another new password from the same address after the next restart";
    case Cause::kDupName: return "the holder heard from (a success, or its tunnel open) while the refusals ran";
    case Cause::kCloned: return "the same password in use from two places at the same time";
    case Cause::kNameDrift: return "the password in use before under another name that is silent since";
    case Cause::kRestored:
      return "a restored or replaced datastore (epoch_started) shortly before, and other names refused at once";
    case Cause::kSrvSplit: return "the server that gave each answer, and one that accepts what another refuses";
    case Cause::kAdminEdit: return "a change of the stored password that no registration or release explains";
    case Cause::kCredFile: return "a request that named the node but carried no password";
    case Cause::kToken: return "a refused token (token_rejected) by this name or from its address";
    case Cause::kStaleCert: return "a request refused because its client certificate names a released node";
    case Cause::kCa: return "failed handshakes from the machine's address after the server's CA changed";
    case Cause::kClock: return "the machine's clock, compared with the server's";
    case Cause::kEndpoint: return "a test from the machine itself: curl -k https://SERVER:6443/cacerts";
    case Cause::kSrvState: return "the server's own state at that moment (just started, store not ready)";
    case Cause::kOverload: return "many names asking at the same time";
    case Cause::kLostReply: return "accepted requests of this machine that it repeats instead of going on";
  }
  fatal("a cause without a would_need");
}

namespace {

// ---- words ----------------------------------------------------------------------------------------------

Alternative maybe(Cause cause) { return {cause, std::string(would_need(cause))}; }
Alternative maybe(Cause cause, std::string needs) { return {cause, std::move(needs)}; }

std::string who(const Facts& facts) { return printable(facts.history.node, 80); }
std::string on_record(const Record& record) { return fmt::format("record {}", record.seq); }
std::string named(const Facts& facts, const Fingerprint& fingerprint) {
  return fingerprint.known() ? "password " + facts.short_name(fingerprint) : "a password whose fingerprint is not recorded";
}
std::string from_where(const Record& record) {
  return record.source.empty() ? "" : " from " + printable(host_of(record.source), 60);
}
std::string times(std::int64_t count) { return count == 1 ? "once" : fmt::format("{} times", count); }

// "refused 41 times since record 8991"
std::string refused_text(const Facts& facts) {
  const Refusals& r = facts.refusals;
  return fmt::format("{} was refused {} (records {} to {})", named(facts, r.presented), times(r.count), r.first().seq(),
                     r.last().seq());
}

void cite(Finding& finding, Seq seq, std::string fact) { finding.evidence.push_back({seq, std::move(fact)}); }
void cite(Finding& finding, const Record& record, std::string fact) { cite(finding, record.seq, std::move(fact)); }

void cite_refusals(Finding& finding, const Facts& facts) {
  const Refusals& r = facts.refusals;
  std::string fact = fmt::format("{} refused {}", named(facts, r.presented), times(r.count));
  fact += r.newcomer.sources.empty() && r.newcomer.claimed.empty() ? "" : " from " + r.newcomer.to_string();
  cite(finding, *r.last().record, std::move(fact));
}

bool new_to_the_ledger(const Facts& facts) {
  const Refusals& r = facts.refusals;
  return r.presented.known() && facts.known_good_before(r.presented, UINT64_MAX) == nullptr &&
         facts.known_elsewhere(r.presented) == nullptr && r.presented != r.holder;
}

void cite_new_password(Finding& finding, const Facts& facts) {
  if (!new_to_the_ledger(facts)) return;
  for (const Attempt& attempt : facts.refusals.attempts) {
    if (attempt.presented != facts.refusals.presented) continue;
    cite(finding, *attempt.record, facts.short_name(attempt.presented) + " was never accepted before");
    return;
  }
}

// The request carried a client certificate of this very node: the same machine, or one that has its key.
bool shows_continuity(const Facts& facts) {
  const auto& auth = facts.refusals.last().record->auth;
  return auth.method == "certificate" && auth.principal == "system:node:" + facts.history.node;
}

// Explanations that only somebody else's records could decide.
void cite_holder(Finding& finding, const Facts& facts) {
  const Refusals& r = facts.refusals;
  const Record* success = r.alive.last_sign;
  if (success == nullptr) return;
  std::string fact = is_success(*success) ? "last success of the holder" : "last sign of the holder";
  fact += from_where(*success);
  if (r.alive.silence_s) fact += fmt::format(", {} before the first refusal", duration_text(*r.alive.silence_s));
  cite(finding, *success, std::move(fact));
}

Confidence lower(Confidence confidence) {
  return confidence == Confidence::kHigh ? Confidence::kMedium : Confidence::kLow;
}

std::string where_text(Where where) {
  switch (where) {
    case Where::same: return "the same address as the holder";
    case Where::same_source: return "the same observed address as the holder";
    case Where::different: return "another address than the holder's";
    case Where::unknown: return "addresses that cannot be compared";
  }
  return "";
}

bool is_mismatch(const Facts& facts) { return facts.family == Family::password; }

// The refused password is one that this name was bound to or used before.
const Record* former_use(const Facts& facts) {
  const Refusals& r = facts.refusals;
  return facts.known_good_before(r.presented, r.last().seq());
}

// ---- conditions of the server ----------------------------------------------------------------------------

std::optional<Finding> never_seen(const Facts& facts) {
  if (!facts.own.empty()) return std::nullopt;
  Finding finding;
  finding.summary = who(facts) + " never reached this ledger by name: there is no record of it";
  finding.alternatives = {
      maybe(Cause::kEndpoint),
      maybe(Cause::kCa, "failed handshakes (tls_failed) from the machine's address"),
      maybe(Cause::kClock),
      maybe(Cause::kToken, "refused tokens (token_rejected) from the machine's address: they carry no name"),
  };
  finding.warnings.push_back("nothing is known of this name; check its spelling and that this is the log of the "
                             "server it talks to");
  return finding;
}

std::optional<Finding> server_not_able(const Facts& facts) {
  if (facts.family != Family::request) return std::nullopt;
  const Record& last = *facts.failures.back();
  const auto* rejected = as<RequestRejected>(last);
  if (rejected == nullptr) return std::nullopt;
  Finding finding;
  if (rejected->reason == "store_unavailable") {
    finding.cause = Cause::kSrvState;
    finding.confidence = Confidence::kHigh;
    finding.summary = fmt::format("the server could not decide: its store was not available ({}); nothing is wrong "
                                  "with {}", on_record(last), who(facts));
    cite(finding, last, "refused because the store was unavailable");
    finding.alternatives = {maybe(Cause::kOverload)};
    return finding;
  }
  if (rejected->reason == "overloaded") {
    finding.cause = Cause::kOverload;
    finding.confidence = Confidence::kMedium;
    finding.summary = fmt::format("the server had more requests than it could take ({}); the agent tries again by "
                                  "itself", on_record(last));
    cite(finding, last, "refused because the server was overloaded");
    finding.alternatives = {maybe(Cause::kSrvState), maybe(Cause::kLostReply)};
    return finding;
  }
  return std::nullopt;
}

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
    if (record.server.empty()) continue;
    (accepted ? yes : no).insert(record.server);
    if (previous != nullptr && previous_accepted != accepted && previous->server != record.server) {
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

std::optional<Finding> servers_disagree(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Contradictions found = contradictions(facts, facts.refusals.presented);
  if (found.pairs == 0 || !found.by_server) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kSrvSplit;
  finding.confidence = found.pairs >= 2 ? Confidence::kHigh : Confidence::kMedium;
  finding.summary = fmt::format("the servers disagree: {} accepts {} and {} refuses it, with no change of the binding "
                                "in between", printable(found.accepted->server, 60),
                                named(facts, facts.refusals.presented), printable(found.refused->server, 60));
  cite(finding, *found.accepted, "accepted by " + printable(found.accepted->server, 60));
  cite(finding, *found.refused, "refused by " + printable(found.refused->server, 60));
  if (found.pairs == 1)
    finding.alternatives.push_back(maybe(Cause::kStaleBind, "the other server catching up by itself: a lag after a "
                                                            "change, not a disagreement"));
  finding.alternatives.push_back(maybe(Cause::kSrvState));
  return finding;
}

// The same token was good at one server and bad at another.
std::optional<Finding> servers_disagree_on_token(const Facts& facts) {
  if (facts.family != Family::token) return std::nullopt;
  const Record& refused = *facts.failures.back();
  const auto* rejected = as<TokenRejected>(refused);
  const std::string token = !refused.auth.token.empty() || rejected == nullptr ? refused.auth.token : rejected->token;
  if (token.empty() || refused.server.empty()) return std::nullopt;
  const Record* changed = nullptr;
  for (const Record* record : facts.server_wide)
    if (as<TokenRotated>(*record) != nullptr || as<TokenRevoked>(*record) != nullptr ||
        as<TokenExpired>(*record) != nullptr || as<EpochStarted>(*record) != nullptr)
      changed = record;
  const Record* accepted = nullptr;
  for (const Step* step : facts.own) {
    const Record& record = *step->record;
    if ((as<TokenAccepted>(record) != nullptr || is_success(record)) && record.auth.token == token &&
        !record.server.empty() && record.server != refused.server && (changed == nullptr || record.seq > changed->seq))
      accepted = &record;
  }
  if (accepted == nullptr) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kSrvSplit;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format("the servers disagree about the join token: {} accepts it, {} refuses it",
                                printable(accepted->server, 60), printable(refused.server, 60));
  cite(finding, *accepted, "this token accepted by " + printable(accepted->server, 60));
  cite(finding, refused, "the same token refused by " + printable(refused.server, 60));
  finding.alternatives = {maybe(Cause::kToken, "a rotation that one of the servers has not heard of")};
  return finding;
}

// The server's memory went back to before this password, or is another one.
std::optional<Finding> memory_replaced(const Facts& facts) {
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
  finding.summary = fmt::format("the server lost what it knew: {} was good until {}, then the datastore was {} ({}), "
                                "and it is refused since", named(facts, r.presented), on_record(*good),
                                change.cause == "restored" ? "restored" : "replaced", on_record(*change.record));
  cite(finding, *good, named(facts, r.presented) + " was the node's own");
  cite(finding, *change.record, "the server's memory is another one since");
  cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kAdminEdit), maybe(Cause::kSrvSplit)};
  return finding;
}

// ---- before the password is read -------------------------------------------------------------------------

std::string token_reason_text(std::string_view reason) {
  if (reason == "missing") return "it presents no join token at all";
  if (reason == "malformed") return "what it presents cannot be read as a credential";
  if (reason == "unknown_principal") return "it authenticates as somebody this server does not know";
  if (reason == "wrong_secret") return "its join token is not and never was one of this server";
  if (reason == "expired") return "its join token has expired";
  if (reason == "revoked") return "its join token was revoked";
  if (reason == "superseded") return "it still uses a join token that was replaced by a rotation";
  if (reason == "wrong_class") return "its token is valid but of the wrong class for an agent";
  return "its join token is refused; the record does not say why";
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

std::optional<Finding> foreign_certificate(const Facts& facts);

std::optional<Finding> token_refused(const Facts& facts) {
  if (facts.family != Family::token) return std::nullopt;
  if (std::optional<Finding> foreign = foreign_certificate(facts)) return foreign;
  const Record& last = *facts.failures.back();
  const auto* rejected = as<TokenRejected>(last);
  const Record* success = facts.last_success_before(last.seq);
  const Seq since = success != nullptr ? success->seq : 0;
  std::int64_t count = 0;
  for (const Record* record : facts.failures) count += record->count;

  Finding finding;
  finding.cause = Cause::kToken;
  const Record* change = token_change_since(facts, since);
  finding.confidence = token_confidence(facts, last, rejected->reason, change != nullptr);
  finding.summary = fmt::format("{} does not get as far as its password: {} (refused {}, {})", who(facts),
                                token_reason_text(rejected->reason), times(count), on_record(last));
  cite(finding, *facts.failures.front(), fmt::format("token refused{}: {}", from_where(*facts.failures.front()),
                                                     token_reason_text(rejected->reason)));
  if (facts.failures.size() > 1) cite(finding, last, "refused last");
  if (change != nullptr) cite(finding, *change, fmt::format("{} since the last success", name_of(change->kind())));
  if (success != nullptr) cite(finding, *success, "last success" + from_where(*success));
  if (last.node.empty())
    finding.warnings.push_back("the refused requests carry no node name; they are tied to it by their address only");
  if (rejected->reason == "missing" || rejected->reason == "malformed")
    finding.alternatives.push_back(
        maybe(Cause::kEndpoint, "a proxy or a TLS-terminating balancer in between that drops the credential"));
  if (!facts.refusals.attempts.empty())
    finding.warnings.push_back(fmt::format("apart from this, its password was refused before (record {}): once the "
                                           "token is right, that may come back", facts.refusals.last().seq()));
  if (const auto memory = facts.memory_change(since, last.seq); memory.record != nullptr && change == nullptr) {
    // The token may be right and the server's memory wrong.
    cite(finding, *memory.record, "the server's memory is another one since");
    finding.alternatives.push_back(maybe(Cause::kRestored, "the token to be one that was valid before the restore"));
    finding.confidence = lower(finding.confidence);
  }
  finding.alternatives.push_back(maybe(Cause::kSrvSplit, "the same token accepted by another server"));
  if (rejected->reason.empty() || rejected->reason == "wrong_secret" || rejected->reason == "unknown_principal")
    finding.alternatives.push_back(maybe(Cause::kEndpoint, "the machine meant to join another cluster than this one"));
  return finding;
}

// A client certificate that our CA did not sign: of another cluster, or of this one before its CA changed.
std::optional<Finding> foreign_certificate(const Facts& facts) {
  const Record& last = *facts.failures.back();
  const auto* rejected = as<TokenRejected>(last);
  if (rejected == nullptr || last.auth.method != "certificate" || rejected->reason != "unknown_principal")
    return std::nullopt;
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
  finding.summary = who(facts) + " shows a client certificate that this server's CA did not sign; whether of another "
                                 "cluster or of an earlier CA, the records do not say";
  finding.alternatives = {maybe(Cause::kCa, "the CA that signed the certificate, and whether it was this server's"),
                          maybe(Cause::kStaleCert), maybe(Cause::kToken, "the same request without the certificate"),
                          maybe(Cause::kEndpoint, "the machine meant to join another cluster than this one")};
  return finding;
}

std::optional<Finding> released_certificate(const Facts& facts) {
  if (facts.family != Family::request) return std::nullopt;
  const Record& last = *facts.failures.back();
  if (as<RequestRejected>(last)->reason != "node_unknown") return std::nullopt;
  Finding finding;
  finding.cause = Cause::kStaleCert;
  finding.confidence = Confidence::kHigh;
  finding.summary = fmt::format("{} shows the client certificate of a node that was released; the agent does not fall "
                                "back to its token ({})", who(facts), on_record(last));
  cite(finding, last, "refused because its certificate names a node that is not registered (any more)");
  if (const Record* release = facts.last_between<BindingReleased, NodeObjectDeleted>(0, last.seq))
    cite(finding, *release, as<BindingReleased>(*release) != nullptr ? "the name was released" : "the Node was deleted");
  else
    finding.confidence = Confidence::kMedium;
  finding.alternatives = {maybe(Cause::kToken, "the same request with the token alone refused as well")};
  return finding;
}

std::optional<Finding> no_password(const Facts& facts) {
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
  finding.summary = fmt::format("{} sends no node password: /etc/rancher/node/password is empty or cannot be read "
                                "there (refused {}, {})", who(facts), times(count), on_record(last));
  cite(finding, last, "the request named the node but carried no password" + from_where(last));
  if (success != nullptr) cite(finding, *success, "with a password it succeeded" + from_where(*success));
  finding.alternatives = {maybe(Cause::kEndpoint, "a proxy in between that drops headers")};
  return finding;
}

std::optional<Finding> other_request_refused(const Facts& facts) {
  if (facts.family != Family::request) return std::nullopt;
  const Record& last = *facts.failures.back();
  const std::string& reason = as<RequestRejected>(last)->reason;
  Finding finding;
  cite(finding, last, "refused: " + (reason.empty() ? std::string("the record does not say why") : printable(reason, 60)));
  if (reason == "node_name_mismatch") {
    finding.cause = Cause::kNameDrift;
    finding.confidence = Confidence::kLow;
    finding.summary = fmt::format("a machine whose certificate names another node ({}) asks as {}: its name changed, or "
                                  "its files were copied from that node", printable(last.auth.principal, 80), who(facts));
    finding.alternatives = {maybe(Cause::kCloned, "the node that the certificate names, alive elsewhere")};
    return finding;
  }
  finding.summary = fmt::format("the request itself is refused ({}); no password was looked at",
                                reason.empty() ? "reason not recorded" : printable(reason, 60));
  finding.alternatives = {maybe(Cause::kEndpoint, "a proxy in between that changes requests"),
                          maybe(Cause::kCredFile)};
  return finding;
}

std::optional<Finding> handshake_failed(const Facts& facts) {
  if (facts.family != Family::handshake) return std::nullopt;
  const Record& last = *facts.failures.back();
  const Record* success = facts.last_success_before(last.seq);
  std::int64_t count = 0;
  for (const Record* record : facts.failures) count += record->count;
  const std::string alert = printable(as<TlsFailed>(last)->alert, 80);
  Finding finding;
  cite(finding, last, fmt::format("TLS handshake failed {}{}: {}", times(count), from_where(last),
                                  alert.empty() ? "alert not recorded" : alert));
  if (success != nullptr) cite(finding, *success, "last success" + from_where(*success));
  const Record* change = facts.ca_change(success != nullptr ? success->seq : 0, last.seq);
  if (change != nullptr && success != nullptr) {
    finding.cause = Cause::kCa;
    finding.confidence = Confidence::kMedium;
    finding.summary = fmt::format("the server's CA changed ({}), and from the address of {} come handshakes that fail "
                                  "since", on_record(*change), who(facts));
    cite(finding, *change, "the server came up with another CA");
    finding.alternatives = {maybe(Cause::kClock), maybe(Cause::kEndpoint)};
    return finding;
  }
  finding.summary = fmt::format("no request of {} arrives; from its address come TLS handshakes that fail ({})",
                                who(facts), alert.empty() ? "alert not recorded" : alert);
  finding.alternatives = {maybe(Cause::kCa), maybe(Cause::kClock), maybe(Cause::kEndpoint)};
  if (alert.find("expired") != std::string::npos || alert.find("not yet valid") != std::string::npos)
    std::swap(finding.alternatives[0], finding.alternatives[1]);
  return finding;
}

// ---- mismatches ------------------------------------------------------------------------------------------

// No cause of a failure: an operator's will. Which is why it is UNKNOWN with a plain sentence.
std::optional<Finding> held(const Facts& facts) {
  if (!is_mismatch(facts) || !facts.refusals.last().step->held_before) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* hold = facts.last_between<BindingHeld>(0, r.last().seq());
  Finding finding;
  finding.summary = fmt::format("refused because an operator holds the name ({}): it is free, but nobody may have it "
                                "without the operator's word", hold != nullptr ? on_record(*hold) : "see the timeline");
  if (hold != nullptr) cite(finding, *hold, "held by " + printable(as<BindingHeld>(*hold)->actor, 80));
  cite_refusals(finding, facts);
  if (const Record* former = former_use(facts); former != nullptr) {
    cite(finding, *former, named(facts, r.presented) + " was the name's own before the hold");
    finding.alternatives.push_back(maybe(Cause::kZombie, "the machine that asks to be the one that was to go"));
  } else {
    finding.alternatives.push_back(maybe(Cause::kRebuilt));
    finding.alternatives.push_back(maybe(Cause::kDupName));
    finding.takeover_possible = true;
  }
  return finding;
}

// The binding was taken from this password by a change, or differs from it without one.
std::optional<Finding> binding_edited(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* good = former_use(facts);
  if (good == nullptr) return std::nullopt;
  const Record* change = facts.last_between<BindingChanged>(0, r.last().seq());
  if (change != nullptr) {
    const auto& event = *as<BindingChanged>(*change);
    const bool took_it = event.from == r.presented || (!event.from.known() && good->seq <= change->seq);
    const bool rebound = facts.last_between<PasswordStored, BindingImported, BindingReleased>(
                             change->seq, r.last().seq()) != nullptr;
    if (took_it && event.to != r.presented && !rebound) {
      const bool accepted = event.by == "operator_accept";
      // Accepted, and the accepted machine lives: then two machines share the name, and that is the cause.
      if (event.by != "outside" && (r.alive.seen() || r.alive.before != nullptr || r.alive.after != nullptr))
        return std::nullopt;
      Finding finding;
      finding.cause = Cause::kAdminEdit;
      finding.confidence = accepted ? Confidence::kMedium : Confidence::kHigh;
      finding.summary = fmt::format("the stored password of {} was changed by {} ({}), and the one that was good until "
                                    "then is refused", who(facts),
                                    event.by == "outside" ? "somebody outside the protocol" : printable(event.by, 40),
                                    on_record(*change));
      cite(finding, *change, fmt::format("binding changed from {} to {}{}", named(facts, r.presented),
                                         named(facts, event.to),
                                         event.actor.empty() ? "" : " by " + printable(event.actor, 80)));
      if (good->seq != change->seq) cite(finding, *good, named(facts, r.presented) + " was the node's own until then");
      cite_refusals(finding, facts);
      if (const Record* other = facts.known_elsewhere(event.to))
        cite(finding, *other, "the value now stored is the password of " + printable(other->node, 80));
      finding.alternatives = {maybe(Cause::kDupName), maybe(Cause::kRestored)};
      return finding;
    }
  }
  // No record changed it, and yet the refusal names another binding.
  const Fingerprint& met = r.last().step->bound_before;
  if (met != r.presented || !r.last().bound.known() || r.last().bound == r.presented) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kAdminEdit;
  finding.confidence = facts.hole_since(good->seq) != nullptr ? Confidence::kLow : Confidence::kMedium;
  finding.summary = fmt::format("the stored password of {} is no longer the one it registered with, and no record says "
                                "who changed it", who(facts));
  cite(finding, *good, named(facts, r.presented) + " was the node's own");
  cite(finding, *r.last().record, fmt::format("refused: now bound to {}", named(facts, r.last().bound)));
  if (const Record* other = facts.known_elsewhere(r.last().bound))
    cite(finding, *other, "the value now stored is the password of " + printable(other->node, 80));
  finding.alternatives = {maybe(Cause::kRestored), maybe(Cause::kSrvSplit)};
  return finding;
}

// A release that this life of the name has seen before its last refusal; nullptr: none.
const Record* release_before(const Facts& facts, Seq seq) {
  return facts.last_between<BindingReleased, NodeObjectDeleted>(0, seq);
}

std::optional<Finding> old_password_returned(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  if (r.presented == r.holder) return std::nullopt;
  const Record* release = release_before(facts, r.last().seq());
  if (release == nullptr) return std::nullopt;
  const Record* back = nullptr;   // the first success of the old password after it
  const Record* again = nullptr;  // the last
  for (const Step* step : facts.own) {
    const Record& record = *step->record;
    if (record.seq <= release->seq || record.seq >= r.last().seq()) continue;
    if (!is_success_with(record, r.holder)) continue;
    if (back == nullptr) back = &record;
    again = &record;
  }
  const bool used_before = facts.known_good_before(r.holder, release->seq + 1) != nullptr;
  const Record* ghost = facts.last_between<NodeObjectCreated>(release->seq, r.first().seq());
  Finding finding;
  finding.cause = Cause::kZombie;
  if (back != nullptr && used_before && r.holder.known()) {
    const Record& last_sign =
        r.alive.last_sign != nullptr && r.alive.last_sign->seq > again->seq ? *r.alive.last_sign : *again;
    const std::optional<double> life = seconds_from(back->time, last_sign.time);
    if (life && *life > kZombieLifeAtMost_s) return std::nullopt;  // it was meant to stay
    finding.confidence = life && *life <= kZombieLife_s ? Confidence::kHigh : Confidence::kMedium;
    const auto delay = seconds_from(release->time, back->time);
    finding.summary = fmt::format("the old machine took the name back after its release: {} was released ({}), {} came "
                                  "back with its old password{}, and the newcomer is refused since", who(facts),
                                  on_record(*release), on_record(*back), delay ? " " + duration_text(*delay) + " later" : "");
    cite(finding, *back, fmt::format("success with the old {}{} after the release", named(facts, r.holder), from_where(*back)));
  } else if (back == nullptr && ghost != nullptr && as<NodeObjectDeleted>(*release) != nullptr) {
    finding.confidence = Confidence::kMedium;
    finding.summary = fmt::format("the Node of {} came back after it was deleted ({}): the old agent was still running "
                                  "and keeps the name", who(facts), on_record(*ghost));
    cite(finding, *ghost, "a Node object appeared again after the deletion");
  } else {
    return std::nullopt;
  }
  cite(finding, *release, as<BindingReleased>(*release) != nullptr ? "the name was released" : "the Node was deleted");
  cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kStaleBind, "no success with the old password after the release"),
                          maybe(Cause::kDupName)};
  finding.takeover_possible = true;
  return finding;
}

// Two refused passwords that take turns belong to two machines.
const Attempt* takes_turns(const Facts& facts) {
  std::set<Fingerprint> left;
  const Attempt* previous = nullptr;
  for (const Attempt& attempt : facts.refusals.attempts) {
    if (!attempt.presented.known()) continue;
    if (previous != nullptr && previous->presented != attempt.presented) {
      left.insert(previous->presented);
      const auto gap = seconds_from(previous->to(), attempt.from());
      if (gap && *gap < 0) return &attempt;  // they overlap
      if (left.count(attempt.presented) > 0) return &attempt;
    }
    previous = &attempt;
  }
  return nullptr;
}

// What shows the holder alive, best first, and how much it weighs where the addresses differ.
struct Sign {
  const Record* record = nullptr;
  std::string fact;
  Confidence confidence = Confidence::kMedium;
  bool positive = false;  // an answer to this holder, not an open connection
};

std::optional<Sign> best_sign(const Facts& facts) {
  const Refusals& r = facts.refusals;
  const Liveness& alive = r.alive;
  if (alive.inside != nullptr)
    return Sign{alive.inside, "the holder succeeded while the refusals ran",
                alive.inside_near || r.where == Where::different ? Confidence::kHigh : Confidence::kMedium,
                alive.inside_near || r.where == Where::different};
  if (alive.before != nullptr && alive.after != nullptr)
    return Sign{alive.after, "the holder succeeded just before and just after the refusals", Confidence::kHigh, true};
  if (alive.covering != nullptr) {
    const auto age = seconds_from(alive.covering->time, r.first().from());
    // A server's own log records the end of tunnels; a hand-written history may leave it out.
    const bool own_log = !alive.covering->server.empty() || alive.tunnel_tells_closing;
    const bool fresh = own_log || (age && *age <= kLongSilence_s);
    return Sign{alive.covering, "the holder's tunnel was open while the refusals ran",
                fresh ? Confidence::kHigh : Confidence::kMedium, false};
  }
  if (alive.call != nullptr)
    return Sign{alive.call, "an authenticated request came from the holder's address while the refusals ran",
                Confidence::kMedium, false};
  if (alive.after != nullptr)
    return Sign{alive.after, "the holder succeeded just after the refusals", Confidence::kMedium, true};
  if (alive.gone != nullptr) return std::nullopt;
  if (alive.before != nullptr)
    return Sign{alive.before, "the holder succeeded just before the refusals", Confidence::kMedium, false};
  if (alive.touching != nullptr)
    return Sign{alive.touching, "the holder's tunnel was open when the refusals began", Confidence::kMedium, false};
  return std::nullopt;
}

bool only_loopback(const Place& place) {
  return !place.sources.empty() && std::all_of(place.sources.begin(), place.sources.end(),
                                               [](const std::string& source) { return is_loopback(source); });
}

Finding duplicate(const Facts& facts, Confidence confidence) {
  const Refusals& r = facts.refusals;
  Finding finding;
  finding.cause = Cause::kDupName;
  finding.confidence = confidence;
  finding.summary = fmt::format("two machines use the name {}: one holds it{}, another{} is refused", who(facts),
                                r.where == Where::different ? " at " + r.holder_place.to_string() : "",
                                r.where == Where::different ? " at " + r.newcomer.to_string() : "");
  cite_refusals(finding, facts);
  if (const Record* other = facts.known_elsewhere(r.presented))
    cite(finding, *other, fmt::format("the refused password is that of {}", printable(other->node, 80)));
  if (const Record* former = former_use(facts))
    cite(finding, *former, "the refused password held this name before");
  if (is_default_hostname(facts.history.node))
    cite(finding, *r.first().record, who(facts) + " is a distribution's default host name");
  finding.takeover_possible = !shows_continuity(facts) && former_use(facts) == nullptr;
  return finding;
}

std::optional<Finding> two_machines(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  if (r.presented.known() && r.presented == r.holder) return std::nullopt;
  if (const Attempt* turn = takes_turns(facts)) {
    Finding finding = duplicate(facts, Confidence::kMedium);
    Place other;
    for (const Attempt& attempt : r.attempts)
      if (attempt.presented != turn->presented) other.add(*attempt.record);
    Place this_one;
    for (const Attempt& attempt : r.attempts)
      if (attempt.presented == turn->presented) this_one.add(*attempt.record);
    const Where apart = facts.compare(this_one, other);
    if (apart == Where::same) return std::nullopt;  // one address, passwords that come back: not decided here
    if (apart == Where::different) finding.confidence = Confidence::kHigh;
    finding.summary = fmt::format("several machines use the name {}: refused passwords take turns", who(facts));
    cite(finding, *turn->record, fmt::format("{} comes back after another was refused: two machines keep asking",
                                             named(facts, turn->presented)));
    finding.alternatives = {maybe(Cause::kEphemeral, "passwords that follow each other and never come back")};
    return finding;
  }
  const std::optional<Sign> sign = best_sign(facts);
  const bool apart = r.where == Where::different;
  if (sign && apart) {
    Finding finding = duplicate(facts, sign->confidence);
    cite(finding, *sign->record, sign->fact + from_where(*sign->record));
    finding.alternatives = {maybe(Cause::kRebuilt, "the holder silent while the refusals ran"),
                            maybe(Cause::kZombie)};
    return finding;
  }
  // Behind one NAT, or with nothing to compare: only an answer given to the holder meanwhile can tell.
  if (sign && sign->positive && r.where != Where::same) {
    Finding finding = duplicate(facts, Confidence::kMedium);
    cite(finding, *sign->record, sign->fact + from_where(*sign->record));
    finding.alternatives = {maybe(Cause::kEphemeral, "one machine with two password files (A/B system slots)")};
    return finding;
  }
  if (sign && r.where == Where::unknown && sign->record == r.alive.covering) {
    Finding finding = duplicate(facts, Confidence::kMedium);
    cite(finding, *sign->record, sign->fact);
    finding.alternatives = {maybe(Cause::kRebuilt, "the holder silent while the refusals ran")};
    return finding;
  }
  if (apart && only_loopback(r.holder_place) && !only_loopback(r.newcomer)) {
    Finding finding = duplicate(facts, Confidence::kMedium);
    finding.summary = fmt::format("{} is the server's own node (it registers by loopback), and another machine at {} "
                                  "asks for the same name", who(facts), r.newcomer.to_string());
    if (r.alive.last_sign != nullptr) cite(finding, *r.alive.last_sign, "the holder is the server's own node");
    finding.alternatives = {maybe(Cause::kRebuilt)};
    return finding;
  }
  if (apart && is_default_hostname(facts.history.node) && r.alive.gone == nullptr && r.holder_since != 0 &&
      release_before(facts, r.last().seq()) == nullptr) {
    Finding finding = duplicate(facts, Confidence::kLow);
    cite_holder(finding, facts);
    finding.warnings.push_back("missing: the holder heard from while the refusals ran; that its name is a default one "
                               "is all that speaks for two machines");
    finding.alternatives = {maybe(Cause::kRebuilt, "the holder known to be gone"), maybe(Cause::kPoolReuse)};
    return finding;
  }
  return std::nullopt;
}

std::optional<Finding> release_without_effect(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  if (r.presented.known() && (r.presented == r.holder)) return std::nullopt;
  const Record* release = release_before(facts, r.last().seq());
  if (release == nullptr) return std::nullopt;
  if (facts.last_between<PasswordStored, PasswordVerified, BindingChanged, BindingImported>(release->seq, r.last().seq()) !=
      nullptr)
    return std::nullopt;
  const Attempt* still = nullptr;  // the first refusal after it
  for (const Attempt& attempt : r.attempts)
    if (attempt.seq() > release->seq && still == nullptr) still = &attempt;
  if (still == nullptr || former_use(facts) != nullptr) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kStaleBind;
  finding.confidence = facts.hole_since(release->seq) != nullptr ? Confidence::kMedium : Confidence::kHigh;
  const bool deleted = as<NodeObjectDeleted>(*release) != nullptr;
  const auto lag = seconds_from(release->time, r.last().to());
  finding.summary = fmt::format("{} ({}), but the old binding is still enforced{}", deleted ? "the Node was deleted" : "the name was released",
                                on_record(*release), lag ? " " + duration_text(*lag) + " later" : "");
  cite(finding, *release, deleted ? "the Node was deleted" : "the name was released");
  cite(finding, *still->record, fmt::format("{} refused after that", named(facts, still->presented)));
  if (r.last().seq() != still->seq()) cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kZombie), maybe(Cause::kSrvSplit)};
  finding.takeover_possible = !shows_continuity(facts);
  return finding;
}

// ---- passwords in sequence -------------------------------------------------------------------------------

// Uninterrupted use of one password.
struct Use {
  Fingerprint password;
  Place place;
  const Attempt* first = nullptr;
  const Attempt* last = nullptr;
  bool accepted = false;
  bool survived_restart = false;  // accepted again at a later start
};

std::vector<Use> uses_of(const Facts& facts) {
  std::vector<Use> uses;
  for (const Attempt& attempt : facts.attempts) {
    if (!attempt.presented.known()) continue;
    if (uses.empty() || uses.back().password != attempt.presented) {
      Use use;
      use.password = attempt.presented;
      use.first = &attempt;
      uses.push_back(std::move(use));
    }
    Use& use = uses.back();
    if (attempt.accepted && use.accepted) {
      const auto gap = seconds_from(use.last->to(), attempt.from());
      use.survived_restart = use.survived_restart || (gap && *gap > kAliveWindow_s);
    }
    use.accepted = use.accepted || attempt.accepted;
    use.last = &attempt;
    use.place.add(*attempt.record);
  }
  return uses;
}

// The run of passwords that ends with the last one, each new, each of one start, none ever back.
std::vector<Use> changing_passwords(const Facts& facts) {
  const std::vector<Use> uses = uses_of(facts);
  std::vector<Use> run;
  if (uses.empty()) return run;
  const auto comes_back = [&](const Fingerprint& password) {
    return std::count_if(uses.begin(), uses.end(), [&](const Use& use) { return use.password == password; }) > 1;
  };
  // The password that the name began with is not a change, even where it is put back again and again.
  Fingerprint original = facts.refusals.holder;
  for (const Use& use : uses) {
    if (!use.accepted) continue;
    original = use.password;
    break;
  }
  for (auto use = uses.rbegin(); use != uses.rend(); ++use) {
    if (use->password == original) continue;
    if (comes_back(use->password)) break;
    if (!run.empty()) {
      if (use->survived_restart) break;  // that one was kept well: what follows is a story of its own
      if (facts.compare(use->place, run.back().place) == Where::different) break;
      const auto pace = seconds_from(use->first->from(), run.back().first->from());
      if (use->accepted && pace && *pace > kRestartsWithin_s) break;
      const auto gap = seconds_from(use->last->to(), run.back().first->from());
      if (gap && *gap < 0) break;
    }
    run.push_back(*use);
  }
  std::reverse(run.begin(), run.end());
  return run;
}

std::optional<Finding> password_of_one_start(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const std::vector<Use> run = changing_passwords(facts);
  if (run.size() < 2 || run.back().password != r.presented || former_use(facts) != nullptr) return std::nullopt;
  // Another machine would have to be ruled out first.
  const bool moved = r.where == Where::different && facts.compare(run.front().place, r.holder_place) == Where::different;
  if (moved && r.alive.gone == nullptr) return std::nullopt;
  bool same_place = !moved;
  for (std::size_t i = 1; i < run.size(); ++i) {
    const Where where = facts.compare(run[i - 1].place, run[i].place);
    same_place = same_place && (where == Where::same || where == Where::same_source);
  }
  Finding finding;
  finding.cause = Cause::kEphemeral;
  const auto pace = seconds_from(run[run.size() - 2].last->to(), run.back().first->from());
  finding.confidence = same_place && (run.size() > 2 || !pace || *pace <= kRestartsWithin_s) ? Confidence::kHigh : Confidence::kMedium;
  finding.summary = fmt::format("the password of {} does not survive a restart: {} new passwords one after the other, "
                                "none of which ever came back", who(facts), run.size());
  const std::size_t shown = std::min<std::size_t>(run.size(), 6);
  for (std::size_t i = run.size() - shown; i < run.size(); ++i)
    cite(finding, *run[i].first->record,
         fmt::format("new {} {}{}", named(facts, run[i].password), run[i].accepted ? "accepted" : "refused",
                     from_where(*run[i].first->record)));
  cite_holder(finding, facts);
  finding.alternatives = {
      maybe(Cause::kRebuilt, "somebody who reinstalled the machine each time"),
      maybe(Cause::kDupName, "passwords that take turns instead of following each other"),
  };
  finding.takeover_possible = !shows_continuity(facts);
  return finding;
}

// ---- a new password, once --------------------------------------------------------------------------------

std::optional<Finding> renamed_machine(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const Record* other = facts.known_elsewhere(r.presented);
  const Record* moved_on = facts.known_elsewhere(r.holder);
  if (moved_on != nullptr && r.alive.last_sign != nullptr && moved_on->seq > r.alive.last_sign->seq &&
      new_to_the_ledger(facts)) {
    Finding finding;
    finding.cause = Cause::kNameDrift;
    finding.confidence = Confidence::kMedium;
    finding.summary = fmt::format("the machine that held {} calls itself {} now ({}); the name it left is still bound to "
                                  "it, and another password asks for it", who(facts), printable(moved_on->node, 80),
                                  on_record(*moved_on));
    cite(finding, *moved_on, fmt::format("the holder's {} is in use as {}", named(facts, r.holder), printable(moved_on->node, 80)));
    cite_holder(finding, facts);
    cite_refusals(finding, facts);
    finding.alternatives = {maybe(Cause::kCloned), maybe(Cause::kDupName), maybe(Cause::kRebuilt)};
    finding.takeover_possible = true;
    return finding;
  }
  if (other == nullptr || former_use(facts) != nullptr) return std::nullopt;
  Place place;
  place.add(*other);
  const Where where = facts.compare(place, r.newcomer);
  const bool silent_since = other->seq < r.first().seq();
  if (!silent_since || (where != Where::same && where != Where::same_source)) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kNameDrift;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format("the machine known as {} now asks as {}, a name that belongs to another password",
                                printable(other->node, 80), who(facts));
  cite(finding, *other, fmt::format("{} is the password of {}{}", named(facts, r.presented),
                                    printable(other->node, 80), from_where(*other)));
  cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kCloned), maybe(Cause::kDupName)};
  return finding;
}

// Whether a new password at another address is a pool's or the same machine's with a new lease cannot be seen
// from one name. Only a name that pools give out, and a long silence, make it worth saying; and then at low.
std::optional<Finding> name_handed_out_again(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  if (!new_to_the_ledger(facts) || r.where != Where::different || r.holder_since == 0) return std::nullopt;
  if (!is_pool_name(facts.history.node) || shows_continuity(facts) || r.passwords.size() != 1) return std::nullopt;
  const double enough = r.alive.gone != nullptr ? kPoolSilence_s : kLongSilence_s;
  if (!r.alive.silence_s || *r.alive.silence_s < enough) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kPoolReuse;
  finding.confidence = Confidence::kLow;
  finding.summary = fmt::format("{} looks like a name that a pool gave to another machine: a new password from {} after "
                                "{} of silence", who(facts), r.newcomer.to_string(), duration_text(*r.alive.silence_s));
  cite_new_password(finding, facts);
  cite_holder(finding, facts);
  cite_refusals(finding, facts);
  finding.alternatives = {maybe(Cause::kRebuilt, "the same machine with another address"), maybe(Cause::kDupName)};
  finding.warnings.push_back("missing: " + std::string(would_need(Cause::kPoolReuse)));
  finding.takeover_possible = true;
  return finding;
}

// REBUILT rests on absence, so it asks for all of: one new password, nothing released, a holder that is known
// and silent, a place that is the holder's. Where the place differs it needs a holder that was seen to go.
std::optional<Finding> rebuilt(const Facts& facts) {
  if (!is_mismatch(facts) || !new_to_the_ledger(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  const bool certified = shows_continuity(facts);
  if (r.passwords.size() != 1 || r.holder_since == 0 || r.alive.last_sign == nullptr) return std::nullopt;
  if (r.alive.seen() || r.alive.after != nullptr || r.alive.touching != nullptr) return std::nullopt;
  if (facts.memory_change(r.alive.last_sign->seq, r.last().seq()).record != nullptr) return std::nullopt;
  if (facts.last_between<BindingChanged>(r.alive.last_sign->seq, r.last().seq()) != nullptr) return std::nullopt;
  const bool here = r.where == Where::same || r.where == Where::same_source || certified;
  const bool seen_to_go = r.alive.gone != nullptr;
  const bool took_long = r.alive.silence_s && *r.alive.silence_s >= kRebuildTakes_s;
  const bool silent_long = r.alive.silence_s && *r.alive.silence_s >= kLongSilence_s;
  if (here && !took_long && !seen_to_go && r.where != Where::same && !certified) return std::nullopt;
  if (here && !certified && silent_long && is_address_name(facts.history.node)) return std::nullopt;  // name = address
  // Another address: a pool, a new lease or a stranger. A numbered name is as likely handed on as kept.
  if (!here && !(seen_to_go && took_long && !is_pool_name(facts.history.node) && !is_numbered(facts.history.node)))
    return std::nullopt;

  Finding finding;
  finding.cause = Cause::kRebuilt;
  const bool quick = !took_long;
  finding.confidence = here && !quick && r.count >= 2 ? Confidence::kMedium : Confidence::kLow;
  if (facts.hole_since(r.alive.last_sign->seq) != nullptr) finding.confidence = Confidence::kLow;
  finding.summary = fmt::format("the machine {} was rebuilt{} and lost its password file: a new password from {}",
                                who(facts), quick ? " or restarted from a fixed image" : "", where_text(r.where));
  cite_new_password(finding, facts);
  cite_holder(finding, facts);
  if (r.alive.gone != nullptr) cite(finding, *r.alive.gone, "the holder's tunnel closed, and nothing was heard since");
  if (r.where != Where::unknown) cite(finding, *r.last().record, where_text(r.where));
  if (certified) cite(finding, *r.last().record, "it shows this node's own client certificate");
  cite(finding, *r.first().record, "no release of the name since it was bound");
  finding.alternatives = {maybe(Cause::kEphemeral), maybe(Cause::kDupName)};
  if (!here || is_pool_name(facts.history.node)) finding.alternatives.push_back(maybe(Cause::kPoolReuse));
  if (facts.tunnels.empty() && facts.last_between<CertificateIssued>(0, r.first().seq()) != nullptr)
    finding.alternatives.push_back(maybe(Cause::kOrphanBind));
  finding.takeover_possible = !certified;
  return finding;
}

void add_missing(Finding& finding, const Facts& facts) {
  const Refusals& r = facts.refusals;
  if (r.holder_since == 0)
    finding.warnings.push_back("missing: when, from where and to what the name was bound; the history begins after that");
  if (r.newcomer.sources.empty() && r.newcomer.claimed.empty())
    finding.warnings.push_back("missing: the address that the refused requests came from");
  if (!r.presented.known())
    finding.warnings.push_back("missing: the fingerprint of the refused password; without it nobody can tell whether "
                               "it is new, old or another node's");
  if (facts.tunnels.empty() && r.holder_since != 0)
    finding.warnings.push_back("missing: whether the holder is alive; agents show their password only when they start, "
                               "and no tunnel of this node is recorded");
}

// What remains possible for a mismatch that nothing above decides.
std::optional<Finding> mismatch_undecided(const Facts& facts) {
  if (!is_mismatch(facts)) return std::nullopt;
  const Refusals& r = facts.refusals;
  Finding finding;
  cite_refusals(finding, facts);
  cite_new_password(finding, facts);
  cite_holder(finding, facts);
  const Record* former = former_use(facts);
  const auto memory = facts.memory_change(r.alive.last_sign != nullptr ? r.alive.last_sign->seq : 0, r.last().seq());
  if (former != nullptr || (r.presented.known() && r.presented == r.holder)) {
    const Record* release = former != nullptr ? facts.last_between<BindingReleased>(former->seq, r.last().seq()) : nullptr;
    finding.summary = fmt::format("{}, although it was this name's own before; ", refused_text(facts));
    if (release != nullptr)
      finding.summary += fmt::format("the name was released ({}) and went to another password, and whether the machine "
                                     "that asks is the old one or the new one with its old file is not decided",
                                     on_record(*release));
    else
      finding.summary += "what took it away is not in the records";
    if (release != nullptr) cite(finding, *release, "the name was released");
    if (former != nullptr) cite(finding, *former, named(facts, r.presented) + " was good here");
    finding.alternatives = {maybe(Cause::kSrvSplit), maybe(Cause::kAdminEdit), maybe(Cause::kRestored),
                            maybe(Cause::kSrvState)};
    if (r.presented != r.holder)
      finding.alternatives.push_back(maybe(Cause::kRebuilt, "the machine restored from a copy that is older than its "
                                                            "present password"));
    if (r.presented != r.holder) finding.alternatives.push_back(maybe(Cause::kDupName));
    for (const Record* record : facts.server_wide)
      if (const auto up = seconds_from(record->time, r.last().to());
          as<ServerStarted>(*record) != nullptr && up && *up >= 0 && *up <= kServerWarmup_s && record->seq < r.last().seq())
        cite(finding, *record, fmt::format("the server had started {} before", duration_text(*up)));
    add_missing(finding, facts);
    return finding;
  }
  finding.takeover_possible = !shows_continuity(facts);
  if (memory.record != nullptr) {
    finding.summary = fmt::format("{}: the datastore was replaced before that ({}), and the records cannot tell whether "
                                  "the password is new or the server forgot it", refused_text(facts), on_record(*memory.record));
    cite(finding, *memory.record, "the server's memory is another one since");
    finding.alternatives = {maybe(Cause::kRestored, "other names refused at the same time"), maybe(Cause::kRebuilt)};
    add_missing(finding, facts);
    return finding;
  }
  if (const Record* other = facts.known_elsewhere(r.presented)) {
    finding.summary = fmt::format("{}: it is the password of {}, and whether that machine was renamed or copied is not "
                                  "decided", refused_text(facts), printable(other->node, 80));
    cite(finding, *other, "the password of " + printable(other->node, 80) + from_where(*other));
    finding.alternatives = {maybe(Cause::kNameDrift), maybe(Cause::kCloned), maybe(Cause::kDupName)};
    add_missing(finding, facts);
    return finding;
  }
  if (const Fingerprint& met = r.last().step->bound_before; met.known() && r.holder.known() && met != r.holder) {
    cite(finding, *r.last().record, fmt::format("bound to {} here, where the records before say {}",
                                                named(facts, r.holder), named(facts, met)));
    finding.alternatives.push_back(maybe(Cause::kAdminEdit));
  }
  if (const Record* edit = facts.last_between<BindingChanged>(r.alive.last_sign != nullptr ? r.alive.last_sign->seq : 0, r.last().seq())) {
    cite(finding, *edit, "the binding was changed before that, and nobody has used it since");
    finding.alternatives.push_back(maybe(Cause::kAdminEdit, "the refused password to be the right one for this machine"));
  }
  const bool conflict = r.alive.seen() && (r.where == Where::same || r.where == Where::same_source);
  finding.summary = refused_text(facts) + ": ";
  if (conflict)
    finding.summary += "the holder seems alive at the very address that asks with another password; a connection that "
                       "died unnoticed, or two machines behind one address";
  else if (r.holder_since == 0)
    finding.summary += "the history does not show who held the name before";
  else if (r.where == Where::different)
    finding.summary += "a new password from another address; a rebuilt or replaced machine and a second machine look "
                       "the same here";
  else
    finding.summary += "the evidence does not decide between a rebuilt machine and another one";
  finding.alternatives.push_back(maybe(Cause::kDupName));
  finding.alternatives.push_back(maybe(Cause::kRebuilt));
  finding.alternatives.push_back(maybe(Cause::kPoolReuse));
  finding.alternatives.push_back(maybe(Cause::kEphemeral));
  // What was watched from start to end can be ruled out; a deleted Node before the history cannot.
  if (r.holder_since == 0) finding.alternatives.push_back(maybe(Cause::kStaleBind));
  add_missing(finding, facts);
  return finding;
}

// ---- nothing is refused ----------------------------------------------------------------------------------

// The same password, accepted at two places at once or under two names at once.
std::optional<Finding> shared_password(const Facts& facts) {
  if (facts.family != Family::none || facts.attempts.empty() || !facts.attempts.back().accepted) return std::nullopt;
  const Fingerprint& password = facts.attempts.back().presented;
  if (!password.known()) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kCloned;
  const Record* here_first = nullptr;
  const Record* here_last = nullptr;
  Place here;
  std::vector<std::pair<Place, const Record*>> hops;
  for (const Attempt& attempt : facts.attempts) {
    if (!attempt.accepted || attempt.presented != password) continue;
    if (here_first == nullptr) here_first = attempt.record;
    here_last = attempt.record;
    here.add(*attempt.record);
    Place place;
    place.add(*attempt.record);
    if (hops.empty() || facts.compare(hops.back().first, place) == Where::different)
      hops.emplace_back(std::move(place), attempt.record);
  }
  // Another name used it between two uses here: both machines live.
  for (const Record* record : facts.elsewhere) {
    if (record->node.empty() || !is_success_with(*record, password)) continue;
    if (record->seq < here_first->seq || record->seq > here_last->seq) continue;
    Place there;
    there.add(*record);
    const Where where = facts.compare(here, there);
    if (where == Where::same) continue;  // one machine that changes its name back and forth
    finding.confidence = where == Where::different ? Confidence::kHigh : Confidence::kMedium;
    finding.summary = fmt::format("{} and {} are two machines with one password: one was copied from the other, or both "
                                  "from one image", who(facts), printable(record->node, 80));
    cite(finding, *record, fmt::format("{} accepted for {}{}", named(facts, password), printable(record->node, 80), from_where(*record)));
    cite(finding, *here_last, fmt::format("the same password accepted for {} after that", who(facts)));
    finding.alternatives = {maybe(Cause::kNameDrift, "the other name silent since")};
    return finding;
  }
  // There and back again, quicker than a machine moves: A, B, A within the window, or time after time.
  int quick = 0;
  for (std::size_t i = 2; i < hops.size(); ++i) {
    const auto round = seconds_from(hops[i - 2].second->time, hops[i].second->time);
    const bool back = facts.compare(hops[i - 2].first, hops[i].first) == Where::same ||
                      facts.compare(hops[i - 2].first, hops[i].first) == Where::same_source;
    if (back && round && *round <= 5 * kAliveWindow_s) ++quick;
  }
  if (quick == 0 && hops.size() < 5) return std::nullopt;
  const bool claimed = std::all_of(hops.begin(), hops.end(), [](const auto& hop) { return !hop.first.claimed.empty(); });
  finding.confidence = claimed ? Confidence::kMedium : Confidence::kLow;
  finding.summary = fmt::format("two machines share the name {} and its password: it is accepted by turns from {} and "
                                "from {}", who(facts), hops[0].first.to_string(), hops[1].first.to_string());
  cite(finding, *hops[hops.size() - 2].second, "accepted from " + hops[hops.size() - 2].first.to_string());
  cite(finding, *hops.back().second, "accepted from " + hops.back().first.to_string());
  finding.alternatives = {maybe(Cause::kNone, "one machine with several addresses, or that moves between networks")};
  return finding;
}

// The server signs again and again what the agent never gets.
std::optional<Finding> reply_lost(const Facts& facts) {
  if (facts.family != Family::none) return std::nullopt;
  std::vector<const Record*> repeated;
  for (const Step* step : facts.own) {
    const auto* issued = as<CertificateIssued>(*step->record);
    if (issued != nullptr && issued->purpose == "serving-kubelet") repeated.push_back(step->record);
    if ((issued != nullptr && issued->purpose == "client-kubelet") || as<TunnelOpened>(*step->record) != nullptr)
      repeated.clear();
  }
  if (repeated.size() < 3) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kLostReply;
  finding.confidence = Confidence::kMedium;
  finding.summary = fmt::format("{} is admitted, but does not seem to get the replies: it asked {} times for its first "
                                "certificate and never for the second", who(facts), repeated.size());
  cite(finding, *repeated.front(), "serving certificate issued");
  cite(finding, *repeated.back(), "issued once more, with nothing after it");
  finding.alternatives = {maybe(Cause::kOverload), maybe(Cause::kEndpoint)};
  return finding;
}

// A token or a request that was refused, and what came after it.
void tell_past_of_requests(Finding& finding, const Facts& facts) {
  const Record* last = facts.last_between<TokenRejected, RequestRejected>(0, UINT64_MAX);
  if (last == nullptr) return;
  for (const Attempt& attempt : facts.attempts) {
    if (!attempt.accepted || attempt.seq() < last->seq) continue;
    finding.summary += fmt::format("; it was refused until record {} ({}), resolved at record {}", last->seq,
                                   name_of(last->kind()), attempt.seq());
    cite(finding, *last, "refused last");
    cite(finding, *attempt.record, "succeeded after that");
    return;
  }
}

// How the last refusal was settled, if there was one.
void tell_past(Finding& finding, const Facts& facts) {
  const Attempt* last = nullptr;
  for (const Attempt& attempt : facts.attempts)
    if (!attempt.accepted) last = &attempt;
  if (last == nullptr) return tell_past_of_requests(finding, facts);
  const Record* settled = nullptr;
  for (const Step* step : facts.own) {
    const Record& record = *step->record;
    const bool settles = is_success(record) || as<BindingChanged>(record) != nullptr ||
                         as<BindingReleased>(record) != nullptr || as<BindingImported>(record) != nullptr;
    if (record.seq > last->seq() && settles && settled == nullptr) settled = &record;
  }
  if (settled == nullptr) return;
  std::string how = "the name was bound anew";
  if (is_success_with(*settled, last->presented)) {
    how = named(facts, last->presented) + " was accepted";
    const Record* release = release_before(facts, settled->seq);
    const auto lag = release != nullptr && release->seq < last->seq() ? seconds_from(release->time, settled->time)
                                                                      : std::nullopt;
    if (lag) how += fmt::format(" {} after the release of record {} (release lag)", duration_text(*lag), release->seq);
  } else if (const Record* renamed = facts.known_elsewhere(last->presented); is_success(*settled) && renamed != nullptr) {
    how = fmt::format("the refused machine registered as {} (record {})", printable(renamed->node, 80), renamed->seq);
  } else if (is_success(*settled)) {
    Place there, here;
    there.add(*last->record), here.add(*settled);
    how = facts.compare(there, here) == Where::different ? "the holder went on, and the other machine stopped asking"
                                                         : "the bound password was presented again";
  } else if (const auto* changed = as<BindingChanged>(*settled)) {
    how = fmt::format("{} was bound by {}{}", named(facts, changed->to), printable(changed->by, 40),
                      changed->actor.empty() ? "" : " (" + printable(changed->actor, 80) + ")");
  } else if (const auto* released = as<BindingReleased>(*settled)) {
    how = fmt::format("the name was released{}", released->actor.empty() ? "" : " by " + printable(released->actor, 80));
  }
  finding.summary += fmt::format("; it was refused until record {}, resolved at record {}: {}", last->seq(), settled->seq, how);
  cite(finding, *last->record, "refused last");
  cite(finding, *settled, how);
}

void warn_of_what_is_coming(Finding& finding, const Facts& facts) {
  const std::vector<Use> run = changing_passwords(facts);
  if (run.size() >= 2 && !run.back().survived_restart)
    finding.warnings.push_back(fmt::format("its last {} passwords followed each other and none came back: the next "
                                           "restart may be refused again (EPHEMERAL)", run.size()));
  if (facts.attempts.empty() || !facts.attempts.back().accepted) return;
  const Attempt& last = facts.attempts.back();
  if (const Record* other = facts.known_elsewhere(last.presented))
    finding.warnings.push_back(fmt::format("its password is in use under the name {} as well (record {}): a renamed or a "
                                           "copied machine", printable(other->node, 80), other->seq));
  const Record* release = release_before(facts, last.seq());
  if (release != nullptr && facts.known_good_before(last.presented, release->seq) != nullptr &&
      facts.last_between<BindingChanged>(release->seq, last.seq()) == nullptr)
    finding.warnings.push_back(fmt::format("the name was released at record {} and the same password took it back at "
                                           "record {}: if that machine was meant to go, it is still running (ZOMBIE)",
                                           release->seq, last.seq()));
}

std::optional<Finding> nothing_wrong(const Facts& facts) {
  if (facts.family != Family::none) return std::nullopt;
  const NodeState& state = facts.timeline.state;
  const bool ever_bound = state.is_bound() || state.released || state.held;
  const bool admitted = !facts.attempts.empty() || !facts.tunnels.empty() ||
                        facts.last_between<CertificateIssued>(0, UINT64_MAX) != nullptr;
  if (!ever_bound && !admitted) return std::nullopt;
  Finding finding;
  finding.cause = Cause::kNone;
  finding.confidence = Confidence::kHigh;
  const Step& last = *facts.own.back();
  if (!facts.attempts.empty() && facts.attempts.back().accepted && state.is_bound()) {
    const Attempt& success = facts.attempts.back();
    finding.summary = fmt::format("nothing is wrong: {} is registered and its last attempt succeeded ({})", who(facts),
                                  on_record(*success.record));
    cite(finding, *success.record, named(facts, success.presented) + " accepted" + from_where(*success.record));
  } else if (state.held) {
    finding.confidence = Confidence::kMedium;
    finding.summary = fmt::format("nothing is refused: an operator holds the name {}, and nobody has asked since", who(facts));
    cite(finding, *last.record, "last record of this name");
  } else if (state.released) {
    finding.confidence = Confidence::kMedium;
    finding.summary = fmt::format("nothing is refused: the name {} is free, the next password presented is bound", who(facts));
    cite(finding, *last.record, "last record of this name");
  } else {
    finding.confidence = Confidence::kMedium;
    finding.summary = fmt::format("nothing is refused: {} is bound, and nobody has asked since", who(facts));
    cite(finding, *last.record, "last record of this name");
  }
  tell_past(finding, facts);
  warn_of_what_is_coming(finding, facts);
  return finding;
}

std::optional<Finding> nothing_decides(const Facts& facts) {
  Finding finding;
  finding.summary = fmt::format("{} is mentioned, but there is no attempt of it to judge", who(facts));
  if (!facts.own.empty()) cite(finding, *facts.own.back()->record, "last record of this name");
  finding.alternatives = {maybe(Cause::kEndpoint), maybe(Cause::kToken), maybe(Cause::kCa), maybe(Cause::kClock)};
  return finding;
}

constexpr Rule kOrder[] = {
    {"never seen", never_seen, "without a record there is nothing else to ask"},
    {"SRVSTATE, OVERLOAD", server_not_able, "the server says itself that it could not decide"},
    {"RESTORED", memory_replaced, "a memory that went back refuses what it accepted: explains all below"},
    {"SRVSPLIT", servers_disagree, "answers that depend on the server say nothing about the node"},
    {"SRVSPLIT (token)", servers_disagree_on_token, "the same, one step earlier in a request"},
    {"TOKEN, CA", token_refused, "judged before any header"},
    {"STALECERT", released_certificate, "judged before the password"},
    {"CREDFILE", no_password, "there is no password to judge"},
    {"other requests", other_request_refused, "no password was judged"},
    {"CA, CLOCK, ENDPOINT", handshake_failed, "no request arrived"},
    {"held", held, "an operator's will needs no other cause"},
    {"ADMINEDIT", binding_edited, "a record (or its lack) shows who took the name from a good password"},
    {"ZOMBIE", old_password_returned, "the record in the middle is decisive"},
    {"DUPNAME", two_machines, "two machines heard at once; must come before all that suppose one machine"},
    {"STALEBIND", release_without_effect, "a release, and no effect"},
    {"EPHEMERAL", password_of_one_start, "passwords counted in sequence"},
    {"NAMEDRIFT", renamed_machine, "the password is known, under another name"},
    {"POOLREUSE", name_handed_out_again, "another machine, nothing alive"},
    {"REBUILT", rebuilt, "one machine, nothing alive; rests on absence"},
    {"UNKNOWN mismatch", mismatch_undecided, "what is left of the mismatches"},
    {"CLONED", shared_password, "nothing is refused, and yet"},
    {"LOSTREPLY", reply_lost, "nothing is refused, and yet"},
    {"NONE", nothing_wrong, "nothing is refused"},
    {"UNKNOWN", nothing_decides, "always answers"},
};

}  // namespace

const std::span<const Rule> kRules(kOrder);

Finding judge(const Facts& facts) {
  for (const Rule& rule : kRules)
    if (std::optional<Finding> finding = rule.find(facts)) return std::move(*finding);
  fatal("no rule answered");
}

}  // namespace ledger::replay
