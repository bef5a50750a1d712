#include "ledger/disagreement.h"

#include <gtest/gtest.h>

namespace ledger {
namespace {

struct Row {
  const char* name;
  std::int64_t answered;
  const char* would_have;
  Disagreement is;
};

class Disagreements : public ::testing::TestWithParam<Row> {};

TEST_P(Disagreements, AreAboutTheVerdict) {
  const Row& row = GetParam();
  // Every record of a request says the same: the outcome is in the status, not in the kind.
  for (const Event& event : {Event(TokenAccepted{}), Event(PasswordVerified{}), Event(PasswordRejected{}),
                             Event(TokenRejected{}), Event(CertificateIssued{}), Event(RequestRejected{})}) {
    Record record;
    record.event = event;
    record.authority = kUpstreamAuthority;
    record.answered = row.answered;
    record.would_have = row.would_have;
    EXPECT_EQ(disagreement_of(record), row.is) << name_of(record.kind());
    record.authority.clear();
    EXPECT_EQ(disagreement_of(record), Disagreement::none) << "what we decided ourselves";
  }
}

constexpr auto kNone = Disagreement::none;
constexpr auto kTheyAdmit = Disagreement::upstream_admitted;
constexpr auto kTheyRefuse = Disagreement::upstream_refused;
INSTANTIATE_TEST_SUITE_P(
    Rows, Disagreements,
    ::testing::Values(Row{"both_admit", 200, "admit_known", kNone}, Row{"both_admit_a_new_name", 200, "admit_first", kNone},
                      Row{"both_serve", 200, "serve", kNone}, Row{"both_refuse_the_password", 403, "refuse_mismatch", kNone},
                      Row{"both_refuse_for_reasons_of_their_own", 401, "refuse_mismatch", kNone},
                      Row{"they_know_another_password", 403, "admit_known", kTheyRefuse},
                      Row{"they_know_a_name_that_we_do_not", 403, "admit_first", kTheyRefuse},
                      Row{"they_know_another_token", 401, "serve", kTheyRefuse},
                      Row{"they_want_another_request", 400, "admit_first", kTheyRefuse},
                      Row{"they_forgot", 200, "refuse_mismatch", kTheyAdmit},
                      Row{"they_know_no_hold", 200, "refuse_held", kTheyAdmit},
                      Row{"their_token", 200, "refuse_token", kTheyAdmit},
                      Row{"their_headers", 200, "refuse_headers", kTheyAdmit},
                      Row{"a_tunnel", 101, "refuse_token", kTheyAdmit},
                      Row{"could_not_be_compared", 200, "refuse_unverified", kTheyAdmit},
                      Row{"their_disk_is_full", 500, "admit_known", kNone}, Row{"they_are_busy", 429, "admit_known", kNone},
                      Row{"they_do_not_know_the_path", 404, "serve", kNone}, Row{"no_answer", 0, "admit_known", kNone},
                      Row{"not_judged", 403, "", kNone}, Row{"words_we_do_not_know", 403, "admit_all", kNone}),
    [](const auto& row) { return std::string(row.param.name); });

TEST(Disagreement, AnAnswerThatSaysNothingIsNoVerdict) {
  Record record;
  record.authority = kUpstreamAuthority;
  record.answered = 400;
  record.would_have = "admit_known";
  record.event = RequestRejected{.status = 400, .reason = std::string(kUpstreamError)};
  EXPECT_EQ(disagreement_of(record), Disagreement::none);
  record.event = RequestRejected{.status = 400, .reason = "bad_request"};
  EXPECT_EQ(disagreement_of(record), Disagreement::upstream_refused);
}

}  // namespace
}  // namespace ledger
