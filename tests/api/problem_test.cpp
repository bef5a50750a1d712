// The one map from reasons to status codes. A row is the documentation of a code.
#include "api/problem.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace ledger::api {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;

TEST(Problem, EveryTokenRefusalIs401) {
  for (int number = 1; number <= 8; ++number) {
    const Problem problem = problem_of(static_cast<TokenResult>(number));
    EXPECT_EQ(problem.status, 401) << number;
    EXPECT_FALSE(problem.message.empty());
  }
}

TEST(Problem, HeadersAre400AndAReleasedNode401) {
  for (int number = 1; number <= 7; ++number) {
    const auto result = static_cast<HeaderResult>(number);
    const Problem problem = problem_of(result, "the detail");
    EXPECT_EQ(problem.status, result == HeaderResult::node_unknown ? 401 : 400) << reason_name(result);
    EXPECT_FALSE(problem.message.empty()) << reason_name(result);
  }
  // Texts that operators search for, as k3s words them.
  EXPECT_EQ(problem_of(HeaderResult::node_name_missing, "").message, "node name not set");
  EXPECT_THAT(problem_of(HeaderResult::node_password_missing, "").message, HasSubstr("node password not set"));
  EXPECT_EQ(problem_of(HeaderResult::node_name_mismatch, "").message,
            "header node name does not match auth node name");
  EXPECT_THAT(problem_of(HeaderResult::node_unknown, "why").message, HasSubstr("unable to verify node identity: why"));
}

TEST(Problem, Only403IsAPassword) {
  NodeState state;
  state.since = 17;
  const Problem mismatch = problem_of(Ruling::refuse_mismatch, "web-1", state);
  EXPECT_EQ(mismatch.status, 403);
  EXPECT_THAT(mismatch.message, HasSubstr("unable to verify password for node web-1: hash does not match"));
  EXPECT_THAT(mismatch.message, HasSubstr("record 17"));
  EXPECT_THAT(mismatch.message, HasSubstr("ledger replay --node web-1"));
  EXPECT_EQ(problem_of(Ruling::refuse_held, "web-1", state).status, 403);
}

TEST(Problem, WhatWeCannotDoIsNever403) {
  const auto status = [](Errc code) { return problem_of(Error{code, "why"}).status; };
  EXPECT_EQ(status(Errc::invalid), 400);
  EXPECT_EQ(status(Errc::not_found), 404);
  EXPECT_EQ(status(Errc::conflict), 409);
  EXPECT_EQ(status(Errc::overloaded), 429);
  for (const Errc ours : {Errc::locked, Errc::io, Errc::corrupt, Errc::unavailable}) EXPECT_EQ(status(ours), 503);
  EXPECT_GT(problem_of(Error{Errc::overloaded, ""}).retry_after_s, 0);
  EXPECT_GT(problem_of(Error{Errc::unavailable, ""}).retry_after_s, 0);
}

TEST(Problem, BodyIsAKubernetesStatus) {
  const Response response = to_response(Problem{503, "the \"disk\" is full\n", 5});
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.content_type, "application/json");
  EXPECT_EQ(json::parse(response.body),
            json::parse(R"({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
                            "message":"the \"disk\" is full\n","reason":"ServiceUnavailable","code":503})"));
  EXPECT_TRUE(response.body.ends_with("}\n"));
  ASSERT_EQ(response.headers.size(), 1U);
  EXPECT_EQ(response.headers[0], (std::pair<std::string, std::string>("Retry-After", "5")));
  EXPECT_TRUE(to_response(Problem{400, "x"}).headers.empty());

  const std::pair<int, const char*> kReasons[] = {{400, "BadRequest"},      {401, "Unauthorized"},
                                                  {403, "Forbidden"},       {404, "NotFound"},
                                                  {405, "MethodNotAllowed"}, {409, "Conflict"},
                                                  {413, "RequestEntityTooLarge"}, {429, "TooManyRequests"}};
  for (const auto& [code, reason] : kReasons)
    EXPECT_THAT(to_response(Problem{code, ""}).body, HasSubstr(reason)) << code;
}

// A path is the caller's invention: it comes back without what could lie on a terminal.
TEST(Problem, EchoedPathsAreHarmless) {
  EXPECT_THAT(not_found("/x\x1b[2J\n").message, Not(HasSubstr("\x1b")));
  EXPECT_LT(not_found(std::string(100'000, 'a')).message.size(), 400U);
}

}  // namespace
}  // namespace ledger::api
