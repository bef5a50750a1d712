// A webhook after the Standard Webhooks specification: the destination of https:// (destination.h).
//
// Each batch is one POST. webhook-id is made of the records in it, so it is the same for the same batch however often and
// by whichever process it is sent: a receiver drops doubles by it. webhook-timestamp is when this attempt was made;
// webhook-signature has, for every key, "v1," and the base64 of HMAC-SHA256 over "<id>.<timestamp>.<body>".
//
// 2xx: taken. 408, 425, 429, 5xx and what keeps an answer from arriving: lost, with Retry-After as the wish. 413: too
// large. Everything else: refused; redirects are not followed, signed bodies go where they were sent.
#pragma once

#include "api/destination.h"
#include "api/https_client.h"

namespace ledger::api {

// A key a line, "whsec_" and base64 of 24 to 64 bytes; several while keys are being changed. Errors never repeat the text.
Result<std::vector<Secret>> parse_sign_keys(const Secret& text);

std::string webhook_signature(const std::vector<Secret>& keys, std::string_view id, std::string_view timestamp,
                              std::string_view body);

// What a batch looks like in a body: lines, or the format's own batch (CloudEvents, Kubernetes audit EventList).
struct WebhookBody {
  std::string id, content_type, bytes;
};
WebhookBody webhook_body(const Batch& batch, replay::AuditFormat format);

// What an answer means for the batch; `now` for a Retry-After that is a date.
Attempt judge_webhook_answer(const HttpsResponse& response, Time now);

// `target`: path and query of the URL.
Result<std::unique_ptr<Destination>> open_webhook(DestinationOptions options, HttpsOptions https, std::string target);

}  // namespace ledger::api
