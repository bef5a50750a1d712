// Whatever a stranger sends as a token, an Authorization header or a node name: no crash, and what is accepted
// keeps the promises of the headers.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ledger/credentials.h"
#include "ledger/types.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

bool has_control(std::string_view text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return true;
  return false;
}

void fuzz_token(std::string_view text) {
  const auto token = ledger::JoinToken::parse(text);
  if (!token) {
    require(token.error().code == ledger::Errc::invalid && !has_control(token.error().message));
    return;
  }
  const std::string password(token->password.reveal());
  require(!password.empty() && text.size() <= 4096 && !has_control(text) && text.ends_with(password));
  require(token->ca_hash.empty() || token->ca_hash.size() == 64);
  require(token->user.find(':') == std::string::npos);
  // The full form of a token means the same token.
  const auto again = ledger::JoinToken::parse("K10" + token->ca_hash + "::" + token->user + ":" + password);
  if (!again) {
    require(text.size() > 4096 - 6);  // a bare password that fits only without K10:::
    return;
  }
  require(again->ca_hash == token->ca_hash && again->user == token->user && again->password.reveal() == password);
}

std::string base64(std::string_view text) {
  constexpr char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += 3) {
    const auto byte = [&](std::size_t at) {
      return at < text.size() ? static_cast<unsigned>(static_cast<unsigned char>(text[at])) : 0U;
    };
    const unsigned bits = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
    out += kLetters[bits >> 18 & 63];
    out += kLetters[bits >> 12 & 63];
    out += i + 1 < text.size() ? kLetters[bits >> 6 & 63] : '=';
    out += i + 2 < text.size() ? kLetters[bits & 63] : '=';
  }
  return out;
}

void fuzz_credential(std::string_view text) {
  for (const std::string& value : {std::string(text), "Basic " + std::string(text), "Basic " + base64(text)}) {
    const auto credential = ledger::BasicCredential::parse(value);
    if (!credential) {
      require(credential.error().code == ledger::Errc::invalid && !has_control(credential.error().message));
      continue;
    }
    const std::string pair = credential->user + ":" + std::string(credential->password.reveal());
    require(!has_control(pair) && credential->user.find(':') == std::string::npos);
    const auto again = ledger::BasicCredential::parse("Basic " + base64(pair));
    require(again && again->user == credential->user && again->password.reveal() == credential->password.reveal());
  }
}

void fuzz_name(std::string_view text) {
  const auto name = ledger::NodeName::parse(text);
  if (name) {
    require(!name->str().empty() && name->str().size() <= 253 && name->str() == ledger::to_lower(text));
    const auto again = ledger::NodeName::parse(name->str());
    require(again && *again == *name);
    require(ledger::printable(name->str(), 253) == name->str());
  } else {
    require(!has_control(name.error().message) && name.error().message.size() < 512);
  }
}

void fuzz_printable(std::string_view text) {
  for (const std::size_t limit : {std::size_t{0}, std::size_t{1}, std::size_t{40}, text.size()}) {
    const std::string out = ledger::printable(text, limit);
    require(out.size() <= limit && !has_control(out));
    require(ledger::printable(out, out.size()) == out);  // only what is printable is left
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  fuzz_token(text);
  fuzz_credential(text);
  fuzz_name(text);
  fuzz_printable(text);
  return 0;
}
