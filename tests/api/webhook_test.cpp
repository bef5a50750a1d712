#include "api/webhook.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace ledger::api {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;
using Outcome = Attempt::Outcome;

std::vector<Secret> keys_of(const std::string& text) {
  auto keys = parse_sign_keys(Secret(text));
  EXPECT_TRUE(keys) << keys.error().message;
  return keys ? std::move(*keys) : std::vector<Secret>();
}

// The example that libraries of the specification are tested with.
TEST(Webhook, SignsAsTheSpecificationDoes) {
  const auto keys = keys_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
  EXPECT_EQ(webhook_signature(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", R"({"test": 2432232314})"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

TEST(Webhook, WhileKeysChangeBothSign) {
  const std::string first = "whsec_" + std::string(32, 'A'), second = "whsec_" + std::string(32, 'B');
  const std::string both = webhook_signature(keys_of(first + "\n\n " + second + "\r\n"), "id", "1", "body");
  EXPECT_EQ(both, webhook_signature(keys_of(first), "id", "1", "body") + " " +
                      webhook_signature(keys_of(second), "id", "1", "body"));
}

TEST(Webhook, KeysThatAreNoneAreRefusedAndNotRepeated) {
  for (const std::string text : {"", "\n", "sesame-open", "whsec_", "whsec_sesame", "whsec_sesame*sesame*sesame*sesame*sesame*",
                                 "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}) {
    const auto keys = parse_sign_keys(Secret(text));
    ASSERT_FALSE(keys) << text;
    EXPECT_EQ(keys.error().code, Errc::invalid);
    EXPECT_THAT(keys.error().message, Not(HasSubstr("sesame")));
  }
  EXPECT_FALSE(parse_sign_keys(Secret("whsec_" + std::string(88, 'A')))) << "66 bytes";
  EXPECT_TRUE(parse_sign_keys(Secret("whsec_" + std::string(84, 'A')))) << "63 bytes";
}

Batch batch_of(const std::vector<std::string>& lines) {
  Batch batch{.log = "00ff", .lines = {}};
  for (const std::string& line : lines)
    batch.lines.push_back({.seq = batch.lines.size() + 7, .kind = Kind::password_verified, .text = line});
  return batch;
}

TEST(Webhook, BodiesAreTheFormatsOwn) {
  using replay::AuditFormat;
  const Batch batch = batch_of({"{\"a\":1}\n", "{\"b\":2}\n"});
  EXPECT_EQ(webhook_body(batch, AuditFormat::jsonl).bytes, "{\"a\":1}\n{\"b\":2}\n");
  EXPECT_EQ(webhook_body(batch, AuditFormat::cloudevents).bytes, R"([{"a":1},{"b":2}])");
  EXPECT_EQ(webhook_body(batch, AuditFormat::cloudevents).content_type, "application/cloudevents-batch+json");
  const auto list = boost::json::parse(webhook_body(batch, AuditFormat::k8s_audit).bytes);
  EXPECT_EQ(list.at("kind"), "EventList");
  EXPECT_EQ(list.at("items").as_array().size(), 2u);
}

TEST(Webhook, TheIdIsOfTheRecordsAndTheirForm) {
  using replay::AuditFormat;
  const Batch batch = batch_of({"{\"a\":1}\n", "{\"b\":2}\n"});
  const std::string id = webhook_body(batch, AuditFormat::jsonl).id;
  EXPECT_THAT(id, testing::StartsWith("ledger_00ff_7_8_"));
  EXPECT_EQ(id, webhook_body(batch, AuditFormat::jsonl).id);
  EXPECT_NE(id, webhook_body(batch, AuditFormat::cloudevents).id);
  EXPECT_NE(id, webhook_body(batch_of({"{\"a\":1}\n", "{\"b\":3}\n"}), AuditFormat::jsonl).id);
}

HttpsResponse answer(int status, const std::string& retry_after = "") {
  HttpsResponse response;
  response.status = status;
  if (!retry_after.empty()) response.headers = {{"retry-after", retry_after}};
  return response;
}

TEST(Webhook, WhatAnAnswerMeans) {
  const Time now = *Time::parse("2026-11-23T09:22:00Z");
  for (const int status : {200, 201, 202, 204, 299})
    EXPECT_EQ(judge_webhook_answer(answer(status), now).outcome, Outcome::taken) << status;
  for (const int status : {408, 425, 429, 500, 502, 503, 504, 599})
    EXPECT_EQ(judge_webhook_answer(answer(status), now).outcome, Outcome::lost) << status;
  for (const int status : {301, 307, 400, 401, 403, 404, 410, 422})
    EXPECT_EQ(judge_webhook_answer(answer(status), now).outcome, Outcome::refused) << status;
  EXPECT_EQ(judge_webhook_answer(answer(413), now).outcome, Outcome::too_large);
}

TEST(Webhook, RetryAfterIsSecondsOrADateAndBounded) {
  const Time now = *Time::parse("2026-11-23T09:22:00Z");
  const auto wait = [&](const std::string& text) { return judge_webhook_answer(answer(503, text), now).wait; };
  EXPECT_EQ(wait(""), 0s);
  EXPECT_EQ(wait("17"), 17s);
  EXPECT_EQ(wait("Mon, 23 Nov 2026 09:22:30 GMT"), 30s);
  EXPECT_EQ(wait("Mon, 23 Nov 2026 09:00:00 GMT"), 0s) << "over already";
  EXPECT_EQ(wait("99999999"), 3600s);
  EXPECT_EQ(wait("99999999999999999999999"), 0s);
  EXPECT_EQ(wait("-5"), 0s);
  EXPECT_EQ(wait("soon"), 0s);
}

}  // namespace
}  // namespace ledger::api
