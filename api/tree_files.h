// The log as an ordinary transparency log: the files of C2SP tlog-tiles below /ledger/v1/.
//
//   checkpoint                          the newest checkpoint                                      open to everyone
//   tile/<level>/<number>[.p/<width>]   256 hashes of the tree, or the first `width` of them       open to everyone
//   tile/entries/<number>[.p/<width>]   the same number of records as stored, each after its length (2 bytes, big
//                                       endian)                                                    operators only
//
// Hashes tell nothing of the records they are of. Any thread; reads the log, so it may wait for the disk.
#pragma once

#include <string>
#include <string_view>

#include "api/http.h"
#include "ledger/event_log.h"

namespace ledger::api {

// Whether `path` (of a whole URL) is one of the open ones.
bool is_tree_file(std::string_view path);

// Answers a GET for any of the three. `latest`: the newest checkpoint; empty: none yet.
Response tree_file(const EventLog& log, const std::string& latest, std::string_view path);

}  // namespace ledger::api
