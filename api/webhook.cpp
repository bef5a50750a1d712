#include "api/webhook.h"

#include <algorithm>
#include <charconv>

#include "api/http_date.h"
#include "ledger/credentials.h"
#include "ledger/node_hash.h"

namespace ledger::api {
namespace {

constexpr std::string_view kKeyPrefix = "whsec_";
constexpr std::size_t kMinKey = 24, kMaxKey = 64;
constexpr std::int64_t kLongestWish_s = 3600;

std::string hmac_base64(const Secret& key, std::string_view text) {
  const std::string hex = hmac_sha256_hex(key, text);
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    unsigned char byte = 0;
    std::from_chars(hex.data() + i, hex.data() + i + 2, byte, 16);
    bytes.push_back(static_cast<char>(byte));
  }
  return base64(bytes);
}

std::string_view without_end(std::string_view line) {
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

struct Wrapping {
  const char *content_type, *before, *between, *after;
};

Wrapping wrapping_of(replay::AuditFormat format) {
  using replay::AuditFormat;
  switch (format) {
    case AuditFormat::cloudevents: return {"application/cloudevents-batch+json", "[", ",", "]"};
    case AuditFormat::k8s_audit:
      return {"application/json", R"({"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[)", ",", "]}"};
    case AuditFormat::jsonl:
    case AuditFormat::ocsf:
    case AuditFormat::ecs: return {"application/x-ndjson", "", "\n", "\n"};
    case AuditFormat::csv:
    case AuditFormat::cef:
    case AuditFormat::syslog: break;
  }
  return {"text/plain; charset=utf-8", "", "\n", "\n"};
}

std::chrono::milliseconds retry_after(std::string_view text, Time now) {
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    const Result<Time> date = parse_http_date(text);
    seconds = date ? (date->micros - now.micros) / 1'000'000 : 0;
  }
  return std::chrono::seconds(std::clamp<std::int64_t>(seconds, 0, kLongestWish_s));
}

class Webhook : public Destination {
 public:
  Webhook(DestinationOptions options, HttpsClient client, std::string host, std::string target)
      : options_(std::move(options)), client_(std::move(client)), host_(std::move(host)), target_(std::move(target)) {}

  std::string name() const override { return "https://" + host_; }

  Attempt deliver(const Batch& batch) override {
    WebhookBody body = webhook_body(batch, options_.format);
    const std::string timestamp = std::to_string(Time::now().micros / 1'000'000);
    HttpsRequest request;
    request.method = "POST";
    request.target = target_;
    request.headers = {{"Content-Type", body.content_type}, {"webhook-id", body.id}, {"webhook-timestamp", timestamp}};
    if (!options_.sign_keys.empty())
      request.headers.emplace_back("webhook-signature",
                                   webhook_signature(options_.sign_keys, body.id, timestamp, body.bytes));
    request.body = std::move(body.bytes);
    const Result<HttpsResponse> response = client_.send(request);
    if (response) return judge_webhook_answer(*response, Time::now());
    const bool refused = response.error().code == Errc::invalid;
    return {refused ? Attempt::Outcome::refused : Attempt::Outcome::lost, printable(response.error().message, 300)};
  }

 private:
  const DestinationOptions options_;
  HttpsClient client_;
  const std::string host_, target_;
};

}  // namespace

Result<std::vector<Secret>> parse_sign_keys(const Secret& text) {
  std::vector<Secret> keys;
  std::string_view rest = text.reveal();
  while (!rest.empty()) {
    const auto end = rest.find('\n');
    std::string_view line = trim(rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (line.empty()) continue;
    const std::string where = "line " + std::to_string(keys.size() + 1) + " of the key file ";
    if (!line.starts_with(kKeyPrefix))
      return Error{Errc::invalid, where + "is no signing key: it begins with whsec_; make one with " +
                                      "`echo \"whsec_$(openssl rand -base64 32)\"`"};
    line.remove_prefix(kKeyPrefix.size());
    Result<Secret> key = decode_base64_text(line);
    if (!key || key->reveal().size() < kMinKey || key->reveal().size() > kMaxKey)
      return Error{Errc::invalid, where + "is no signing key: whsec_ and the base64 of 24 to 64 bytes"};
    keys.push_back(std::move(*key));
  }
  if (keys.empty()) return Error{Errc::invalid, "the key file is empty"};
  return keys;
}

std::string webhook_signature(const std::vector<Secret>& keys, std::string_view id, std::string_view timestamp,
                              std::string_view body) {
  std::string text;
  text.append(id).append(".").append(timestamp).append(".").append(body);
  std::string out;
  for (const Secret& key : keys) out += (out.empty() ? "v1," : " v1,") + hmac_base64(key, text);
  return out;
}

WebhookBody webhook_body(const Batch& batch, replay::AuditFormat format) {
  const Wrapping wrapping = wrapping_of(format);
  WebhookBody body{.id = {}, .content_type = wrapping.content_type, .bytes = wrapping.before};
  for (const replay::TailLine& line : batch.lines) {
    if (&line != &batch.lines.front()) body.bytes += wrapping.between;
    body.bytes += without_end(line.text);
  }
  body.bytes += wrapping.after;
  body.id = "ledger_" + batch.log + "_" + std::to_string(batch.lines.front().seq) + "_" +
            std::to_string(batch.lines.back().seq) + "_" + sha256_hex(body.bytes).substr(0, 12);
  return body;
}

Attempt judge_webhook_answer(const HttpsResponse& response, Time now) {
  const int status = response.status;
  if (status >= 200 && status < 300) return {};
  Attempt attempt{Attempt::Outcome::refused, "it answered " + printable(response.status_line(), 60)};
  attempt.wait = retry_after(response.header("Retry-After"), now);
  if (status == 408 || status == 425 || status == 429 || status >= 500) {
    attempt.outcome = Attempt::Outcome::lost;
  } else if (status == 413) {
    attempt.outcome = Attempt::Outcome::too_large;
  } else if (status >= 300 && status < 400) {
    attempt.why += ": give the address that it moved to";
  } else {
    attempt.why += ", which trying again does not mend: look at its own log, its address and the key";
  }
  return attempt;
}

Result<std::unique_ptr<Destination>> open_webhook(DestinationOptions options, HttpsOptions https, std::string target) {
  const std::string host = https.connect_to.to_string();
  Result<HttpsClient> client = HttpsClient::open(std::move(https));
  if (!client) return client.error();
  return std::unique_ptr<Destination>(new Webhook(std::move(options), std::move(*client), host, std::move(target)));
}

}  // namespace ledger::api
