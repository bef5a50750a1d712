// Where records go as they come, to be tried once at a time: a log receiver over TCP or TLS, or a webhook. Who
// calls decides what is sent and when it is tried again (delivery.h).
//
//   tcp://host:port, tls://host:port   `syslog` in octet-counted frames (RFC 6587, RFC 5425), every other format as
//                                      lines. There are no answers: "taken" says that the other machine's kernel
//                                      has acknowledged every byte, not that the program there has read them
//   https://host/path                  a POST for each batch, webhook.h
//
// A server's certificate is verified, name included, against what the operating system trusts or a given CA.
// One object, one thread; deliver() blocks for as long as the consumer makes progress.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "replay/tail.h"

namespace ledger::api {

struct Batch {
  std::string log;                      // its id
  std::vector<replay::TailLine> lines;  // never empty
};

struct Attempt {
  enum class Outcome {
    taken,
    lost,       // the consumer cannot be reached, went away or is too busy
    refused,    // it will not have this as it is; a person must look
    too_large,  // it may have less at once
    ended,      // trying again is pointless
  };
  Outcome outcome = Outcome::taken;
  std::string why{};                  // unless taken; safe to print
  std::chrono::milliseconds wait{0};  // not again before; the consumer's own wish
};

// How a consumer went while nothing was being sent. In order: it had read all that it was sent, for a socket that
// is closed with unread bytes is reset, and had some time to store it.
struct Departure {
  std::string why{};  // empty: as far as we know it is there
  bool in_order = false;
};

class Destination {
 public:
  virtual ~Destination() = default;
  // For people; without what may be secret in a URL's path.
  virtual std::string name() const = 0;
  virtual Attempt deliver(const Batch& batch) = 0;
  // For when nothing is sent.
  virtual Departure gone() { return {}; }
  // After the last batch: ends in order, and waits until the consumer has read everything or is lost.
  virtual Attempt settle() { return {}; }
  // What was taken has been read, and is not lost with the consumer's connection.
  virtual bool acknowledges() const { return true; }
};

struct DestinationOptions {
  std::string url;
  replay::AuditFormat format = replay::AuditFormat::jsonl;
  std::string ca_pem;    // empty: what the operating system trusts
  std::string cert_pem;  // client certificate; empty: none
  Secret key_pem;
  std::vector<Secret> sign_keys;                 // of a webhook, as webhook.h parses them
  std::chrono::seconds timeout{30};              // for a connection, an answer, or any progress
  const std::atomic<bool>* interrupt = nullptr;  // true: whatever waits ends soon
};

// Connects to nothing yet. Errc::invalid: the URL or what goes with it.
Result<std::unique_ptr<Destination>> open_destination(DestinationOptions options);

}  // namespace ledger::api
