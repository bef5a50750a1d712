// Owners and small helpers for libcrypto, for the files that make and read certificates.
// Any thread.
#pragma once

#include <openssl/asn1.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <string_view>

#include "ledger/result.h"

namespace ledger {

template <auto Function>
struct FreeWith {
  template <class T>
  void operator()(T* object) const {
    Function(object);
  }
};

// OpenSSL keeps a queue of errors per thread, and libssl asks it whether a connection has failed: what we cause
// here must not stay in it.
struct ErrorScope {
  ErrorScope() { ERR_set_mark(); }
  ErrorScope(const ErrorScope&) = delete;
  ErrorScope& operator=(const ErrorScope&) = delete;
  ~ErrorScope() { ERR_pop_to_mark(); }
};

inline std::string openssl_reason() {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  return reason != nullptr ? reason : "unknown reason";
}

// For calls that fail only when memory or the random generator does.
inline void must(bool ok, const char* what) {
  if (!ok) fatal(std::string(what) + ": " + openssl_reason());
}

inline const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

// The DER of any object that has an i2d function.
template <auto Encode, class T>
std::string der_of(const T* object) {
  unsigned char* bytes = nullptr;
  const int length = Encode(object, &bytes);
  must(length > 0, "DER encoding");
  std::string der(reinterpret_cast<char*>(bytes), static_cast<std::size_t>(length));
  OPENSSL_free(bytes);
  return der;
}

}  // namespace ledger
