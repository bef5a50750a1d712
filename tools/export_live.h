// `ledger export --follow` and `--send-to`: records as they come, to standard output, a file, or a consumer on the network
// (api/delivery.h). In a process of its own beside the server: whatever the consumer does, registration does not notice.
#pragma once

#include <string>

#include "api/destination.h"
#include "replay/export.h"

namespace ledger::tools {

struct LiveExport {
  std::string data_dir, format, output, cursor;  // output empty: standard output; cursor empty: none
  bool zstd = false;
  bool follow = false;             // else it ends when everything is delivered that there is now
  replay::ExportOptions records;   // the range too
  // url empty: the output. What has no default is read from these files.
  api::DestinationOptions destination;
  std::string ca_file, cert_file, key_file, sign_key_file;
  std::size_t resend = 1000;
  int longest_pause_s = 60;
};

// Exit status: 0 stopped by SIGINT or SIGTERM, all delivered, or standard output was closed; 1 failed, or some records
// could not be read; 2 wrong usage.
int export_live(LiveExport live);

}  // namespace ledger::tools
