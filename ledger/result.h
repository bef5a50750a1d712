// How our code says "no": a failure is a value, never an exception.
//
//   Result<T>  the operation could not be carried out (disk, file, input); the caller must look.
//   Decision   (decision.h) a refusal is not a failure: it is an ordinary outcome with a record.
//   fatal()    the world is broken (a bug, memory that lies): say so and end the process.
//
// An Error's message is for a person: what was wrong, where, and what to do. It never holds a secret.
#pragma once

#include <boost/system/result.hpp>
#include <string>
#include <string_view>

namespace ledger {

enum class Errc {
  invalid,      // the input is wrong; trying again will not help
  not_found,    // the thing asked for does not exist
  conflict,     // somebody else was first; look again and decide again
  locked,       // another process owns the data directory
  io,           // the operating system refused a read or a write
  corrupt,      // bytes on disk are not what we wrote
  archived,     // the record is in an archive that is not here, or was removed with it
  unavailable,  // the log cannot record now (fail closed: HTTP 503)
  overloaded,   // a queue is full (HTTP 429)
};

struct Error {
  Errc code = Errc::invalid;
  std::string message;
};

template <class T>
using Result = boost::system::result<T, Error>;

// Prints `what` to standard error and aborts. For states that no input can cause.
[[noreturn]] void fatal(std::string_view what);

// Called by Result::value() when there is none: asking for it unchecked is a bug of the caller.
[[noreturn]] void throw_exception_from_error(const Error& error, const boost::source_location&);

}  // namespace ledger
