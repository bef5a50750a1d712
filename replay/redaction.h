// Takes the names or the addresses out of records that leave the house. Each becomes a pseudonym, the same wherever it
// stands in one export, so that what happened can still be followed; with the same key also in the next one.
//
//   names       nodes, servers, operators: "node-3f9a1c4b2d5e01a7"; also in certificate subjects and principals
//   addresses   2001:db8:... (RFC 3849: an address that is nobody's); ports stay
//
// Notes, descriptions and causes are free text in which a name may stand: they are left out with either.
// An HMAC, not a hash: names are few, and a hash of a guess could be compared.
#pragma once

#include <string>

#include "ledger/event.h"

namespace ledger::replay {

class Redaction {
 public:
  Redaction(Secret key, bool names, bool addresses) : key_(std::move(key)), names_(names), addresses_(addresses) {}
  void apply(Record& record) const;

 private:
  struct Fields;
  std::string name(std::string_view prefix, const std::string& text) const;
  std::string address(const std::string& source) const;

  Secret key_;
  bool names_, addresses_;
};

}  // namespace ledger::replay
