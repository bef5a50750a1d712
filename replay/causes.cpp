#include "replay/causes.h"

#include <fmt/format.h>

#include <cmath>

#include "replay/rules.h"

namespace ledger::replay {

std::string duration_text(double seconds) {
  const double s = std::fabs(seconds);
  if (s < 60) return fmt::format("{:.0f} s", s);
  const auto whole = static_cast<long long>(std::llround(std::min(s, 1e15)));
  if (whole < 3600)
    return whole % 60 == 0 ? fmt::format("{}m", whole / 60) : fmt::format("{}m{}s", whole / 60, whole % 60);
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
    case Cause::kEndpoint: return "a test from the machine itself: GET /cacerts of the server (curl -k)";
    case Cause::kSrvState: return "the server's own state at that moment (just started, store not ready)";
    case Cause::kOverload: return "many names asking at the same time";
    case Cause::kLostReply: return "accepted requests of this machine that it repeats instead of going on";
  }
  fatal("a cause without a would_need");
}

namespace {

constexpr Rule kOrder[] = {
    {"never seen", rules::never_seen, "without a record there is nothing else to ask"},
    {"SRVSTATE of an upstream", rules::upstream_not_able, "nobody decided: the server behind this one did not answer"},
    {"SRVSTATE, OVERLOAD", rules::server_not_able, "the server says itself that it could not decide"},
    {"RESTORED", rules::memory_replaced, "a memory that went back refuses what it accepted: explains all below"},
    {"SRVSTATE after start", rules::server_just_started, "the bound password refused: the server, not the node"},
    {"SRVSPLIT", rules::servers_disagree, "answers that depend on the server say nothing about the node"},
    {"SRVSPLIT (token)", rules::servers_disagree_on_token, "the same, one step earlier in a request"},
    {"CA", rules::foreign_certificate, "a certificate of another CA is no matter of tokens"},
    {"TOKEN of an upstream", rules::upstream_token_differs, "two servers, each with tokens of its own"},
    {"LOSTREPLY of a token", rules::answer_lost_with_its_token, "the same token was good a moment ago"},
    {"ENDPOINT", rules::credential_lost, "an agent always sends a credential: somebody else's request"},
    {"TOKEN", rules::token_refused, "judged before any header"},
    {"STALECERT", rules::released_certificate, "judged before the password"},
    {"CREDFILE", rules::no_password, "there is no password to judge"},
    {"other requests", rules::other_request_refused, "no password was judged"},
    {"CA, CLOCK, ENDPOINT", rules::handshake_failed, "no request arrived"},
    {"held", rules::held, "an operator's will needs no other cause"},
    {"ADMINEDIT", rules::binding_edited, "a record shows who took the name from a good password"},
    {"ADMINEDIT unrecorded", rules::binding_differs, "the lack of one shows that it was taken past the ledger"},
    {"ZOMBIE", rules::old_password_returned, "the record in the middle is decisive"},
    {"ZOMBIE ghost", rules::old_node_returned, "the same, seen from Kubernetes"},
    {"DUPNAME in turns", rules::several_refused, "several machines, whoever the holder is"},
    {"DUPNAME", rules::two_machines, "two machines heard at once; must come before all that suppose one machine"},
    {"DUPNAME of the server", rules::name_of_the_server, "who answers is alive"},
    {"DUPNAME by default", rules::default_name_twice, "a prior, not a sign: after all signs"},
    {"STALEBIND", rules::release_without_effect, "a release, and no effect"},
    {"EPHEMERAL", rules::password_of_one_start, "passwords counted in sequence"},
    {"NAMEDRIFT of the holder", rules::name_left_behind, "the holder is known, under another name"},
    {"NAMEDRIFT", rules::renamed_machine, "the password is known, under another name"},
    {"POOLREUSE", rules::name_handed_out_again, "another machine, nothing alive"},
    {"ORPHANBIND", rules::first_join_unfinished, "one machine, which never became a node"},
    {"RESTORED, machines anew", rules::machines_newer_than_memory, "a restore explains a new password better than chance"},
    {"EPHEMERAL at first", rules::lost_by_the_servers_node, "the server kept its store: its machine was not rebuilt"},
    {"REBUILT", rules::rebuilt, "one machine, nothing alive; rests on absence"},
    {"UNKNOWN own of an upstream", rules::upstream_refuses_its_own, "its memory changed where nobody watched"},
    {"UNKNOWN own", rules::own_password_undecided, "what is left of the mismatches, by what can still be said"},
    {"UNKNOWN restored", rules::after_restore_undecided, "likewise"},
    {"UNKNOWN elsewhere", rules::known_elsewhere_undecided, "likewise"},
    {"UNKNOWN bound before", rules::upstream_binding_unknown, "bound before anybody watched"},
    {"UNKNOWN mismatch", rules::mismatch_undecided, "likewise"},
    {"CLONED by name", rules::password_of_two_names, "nothing is refused, and yet"},
    {"CLONED by names", rules::password_of_many_names, "nothing is refused, and yet"},
    {"CLONED by place", rules::password_of_two_places, "nothing is refused, and yet"},
    {"LOSTREPLY", rules::reply_lost, "nothing is refused, and yet"},
    {"NAMEDRIFT, nobody refused", rules::goes_by_another_name, "nothing is refused, and yet"},
    {"ZOMBIE, nobody refused", rules::returned_unwanted, "nothing is refused, and yet"},
    {"NONE", rules::nothing_wrong, "nothing is refused"},
    {"UNKNOWN", rules::nothing_decides, "always answers"},
};

}  // namespace

const std::span<const Rule> kRules(kOrder);

namespace {

// What these say is in the refusal itself; every other cause is a story told by several records, and one that is
// missing may turn it.
bool is_told_by_one_record(Cause cause) {
  return cause == Cause::kToken || cause == Cause::kStaleCert || cause == Cause::kCredFile || cause == Cause::kSrvState;
}

// Records of the node are in an archive that is not here. The last word may be among them; and where it is not, what
// came before may tell another story.
void weigh_archives(const Facts& facts, Finding& finding) {
  const Hole* absent = nullptr;
  for (const Hole& hole : facts.history.holes)
    if (hole.own) absent = &hole;
  if (absent == nullptr) return;
  if (facts.own.empty() || facts.own.back()->record->seq < absent->seq) {
    finding.cause = Cause::kUnknown;
    finding.confidence = Confidence::kLow;
    finding.summary = "the evidence that is here does not decide: the latest records of " + facts.history.node +
                      " are in an archive that is not here (records " + std::to_string(absent->seq) + " to " +
                      std::to_string(absent->to) + ")";
    finding.alternatives.clear();
    finding.evidence.clear();
    finding.suspected.reset();
    finding.warnings.clear();  // they judge what is not the whole
    return;
  }
  if (finding.cause == Cause::kNone || is_told_by_one_record(finding.cause)) return;
  finding.confidence = finding.confidence == Confidence::kHigh ? Confidence::kMedium : Confidence::kLow;
}

void weigh_holes(const Facts& facts, Finding& finding) {
  if (finding.confidence != Confidence::kHigh || is_told_by_one_record(finding.cause) || facts.own.empty()) return;
  if (facts.hole_since(facts.own.front()->record->seq) == nullptr) return;
  finding.confidence = Confidence::kMedium;
  finding.warnings.push_back("records of this time cannot be read; one of them may tell another story");
}

}  // namespace

Finding judge(const Facts& facts) {
  for (const Rule& rule : kRules) {
    std::optional<Finding> finding = rule.find(facts);
    if (!finding) continue;
    weigh_holes(facts, *finding);
    weigh_archives(facts, *finding);
    rules::doubt_claims(*finding, facts);
    rules::speak_of_upstream(*finding, facts);
    return std::move(*finding);
  }
  fatal("no rule answered");
}

}  // namespace ledger::replay
