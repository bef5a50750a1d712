// k3s' own form of a stored node password (k3s pkg/authenticator/hash):
//   $1:<salt, hex>:<log2 N>:<r>:<p>:<derived key, standard base64 without padding>
// by scrypt (RFC 7914); k3s writes an 8 byte salt, 15:8:1 and a 64 byte key. Its Secrets hold it in `data.hash`.
//
// A hash text can be attacked without the server, so it is no event and is never printed: hash_store.h keeps it.
// One check takes about 0.1 s and 32 MiB: never on a network thread or the writer's (hash_checker.h).
// Any thread.
#pragma once

#include <string>
#include <string_view>

#include "ledger/types.h"

namespace ledger {

class NodeHash {
 public:
  // Strict; the parameters of a text may cost at most twice the memory and the time of k3s' own, so that a
  // hostile one cannot bring the server down. Errors never repeat the text.
  static Result<NodeHash> parse(std::string_view text);

  // Compares in constant time. Errc::unavailable when there is no memory for it.
  Result<bool> matches(const Secret& password) const;

 private:
  Secret salt_, key_;  // bytes
  unsigned log_n_ = 0, r_ = 0, p_ = 0;
};

// The text k3s would store for this password, with a fresh salt.
Result<Secret> make_node_hash(const Secret& password);

// The same with a given salt (bytes), for tests.
Result<Secret> make_node_hash(const Secret& password, std::string_view salt);

// Standard base64, with its padding or (RFC 4648 3.2) without. Errc::invalid for everything else, bits left over
// included.
Result<Secret> decode_base64_text(std::string_view text);

// SHA-256 of what comes in parts.
class Sha256 {
 public:
  Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  ~Sha256();
  void add(std::string_view bytes);
  std::string hex();  // once, last

 private:
  void* context_;
};

}  // namespace ledger
