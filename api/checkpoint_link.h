// Checkpoints over HTTPS: to an address that keeps them, and to witnesses that cosign them. Blocking, 10 s at most
// a request; one request at a time for each.
#pragma once

#include <string>

#include "ledger/checkpoint_keeper.h"

namespace ledger::api {

// PUT stores the note there, GET brings it back: what WebDAV servers, object stores behind a gateway and a few
// lines of anybody's do. `ca_pem` empty: what the operating system trusts.
Result<CheckpointPlace> https_place(const std::string& url, const std::string& ca_pem);

// "<public key>,<https URL>": the witness's key, and what its add-checkpoint is below (C2SP tlog-witness).
Result<CheckpointWitness> https_witness(const std::string& text, const std::string& ca_pem);

}  // namespace ledger::api
