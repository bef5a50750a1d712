// Proofs as files that can be checked with nothing but the log's public key.
//
//   inclusion    C2SP tlog-proof; the record's stored bytes are its `extra` line
//     c2sp.org/tlog-proof@v1
//     extra <record, base64>
//     index <seq - 1>
//     <hash, base64>          from the leaf's sibling up
//
//     <checkpoint>
//
//   consistency  the first checkpoint's log is the beginning of the second's
//     ledger/consistency-proof@v1
//     <hash, base64>
//
//     <older checkpoint><newer checkpoint>
//
// Values; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "ledger/checkpoint.h"
#include "ledger/event.h"

namespace ledger {

std::string inclusion_file(std::string_view record, std::uint64_t index, const TreeProof& proof,
                           const Checkpoint& checkpoint);
std::string consistency_file(const TreeProof& proof, const Checkpoint& older, const Checkpoint& newer);

struct Proven {
  Checkpoint checkpoint;            // the newer one
  std::optional<Checkpoint> older;  // of a consistency proof
  Seq seq = 0;                      // of an inclusion proof, with the record
  std::optional<Record> record;     // none when it is of a kind or format that this program does not know
};

// What the file proves to who trusts `key`. Errc::invalid when it is no proof, or proves nothing; then why.
Result<Proven> check_proof(std::string_view file, const NoteVerifier& key);

}  // namespace ledger
