// README.txt of a bundle: for somebody who was handed the files and nothing else.

#include <fmt/format.h>

#include "replay/bundle.h"

namespace ledger::replay {
namespace {

constexpr const char* kWhat =
    "EVIDENCE FROM A REGISTRATION LOG\n"
    "================================\n\n"
    "What this is\n"
    "------------\n"
    "Machines join a Kubernetes (k3s) cluster through a service called `ledger`. It writes down every\n"
    "decision before it answers: who asked, from which address, with which credential, and whether the\n"
    "machine was let in or refused, and why. The records are numbered 1, 2, 3, ... and only ever added\n"
    "to. These files are a part of that log, made so that you can check them without trusting whoever\n"
    "handed them to you, without our server and without network.\n\n";

constexpr const char* kTrust =
    "What you need from elsewhere\n"
    "----------------------------\n"
    "One line of text: the log's public key. It is in checkpoint.pub too, but a forger would have put\n"
    "his own key there. Get it once from the operator of the cluster by another way (on paper, by\n"
    "telephone, from an earlier audit), keep it, and compare. Without it, what is checked shows only\n"
    "that these files fit together.\n\n";

constexpr const char* kHow =
    "How to check\n"
    "------------\n"
    "With our program (one file, no installation, no server, no network):\n\n"
    "  ledger verify-bundle PATH --key checkpoint.pub-from-elsewhere\n"
    "  ledger verify-bundle PATH --key ... --previous LAST-BUNDLE     compared with the one you have\n\n"
    "Without our program:\n\n"
    "  sha256sum --check SHA256SUMS        no file has changed since the list was made\n"
    "  sha256sum manifest.json             compare with the third line of manifest.note, which is signed\n\n"
    "tests/support/check_bundle.py in our sources does the whole of it in Python, with the standard\n"
    "library only. You may also write your own: the signed notes are https://c2sp.org/signed-note and\n"
    "https://c2sp.org/tlog-checkpoint (Ed25519), the hash tree is that of RFC 9162, section 2.1, and\n"
    "the form of records.bin and records.proof is told below.\n\n";

constexpr const char* kFiles =
    "The files\n"
    "---------\n"
    "README.txt         this text\n"
    "SHA256SUMS         SHA-256 of every file of data\n"
    "manifest.json      what is here: range, counts, and size and SHA-256 of every file\n"
    "manifest.note      the operator's signature over the SHA-256 of manifest.json\n"
    "checkpoint         three lines and a signature: the log's name, how many records it had, and the\n"
    "                   root of the hash tree over all of them\n"
    "checkpoint.pub     the public key; see above\n"
    "records.jsonl      the records, one JSON object per line\n"
    "records.bin        the same records as the log stores them: after one line of text, for each its\n"
    "                   number (8 bytes, big-endian), its length (4 bytes) and its bytes. The tree is\n"
    "                   made of these bytes\n"
    "records.proof      that records.bin is part of the tree: after two lines of text, hashes. Go down\n"
    "                   from the root; a subtree that holds none of the records is the next hash, a\n"
    "                   single record is SHA-256 of a zero byte and its bytes, everything else is\n"
    "                   SHA-256 of a byte 1, the left half and the right half\n"
    "consistency.proof  that the log of an earlier checkpoint is the beginning of this one\n"
    "records.<format>   the records once more, in a format for other programs\n"
    "Not every bundle has all of them; manifest.json lists those that belong here.\n\n";

std::string holds(const Manifest& manifest) {
  std::string text = "What it holds\n-------------\n";
  text += fmt::format("Log       ledger/{}\nRange     records {} to {}\nRecords   {}\nTimes     {} to {}\n", manifest.ledger,
                      manifest.from, manifest.to, manifest.records,
                      manifest.first_time.known() ? manifest.first_time.to_string() : "unknown",
                      manifest.last_time.known() ? manifest.last_time.to_string() : "unknown");
  if (manifest.complete())
    text += "Left out  nothing: every record of the range is here\n";
  else
    text += fmt::format("Left out  all records of the range but these: {}\n", manifest.filter);
  return text + "\n";
}

std::string proves(const Manifest& manifest) {
  std::string text = "What it proves, and what it does not\n------------------------------------\n";
  if (!manifest.proves())
    return text +
           "- Names or addresses were replaced by pseudonyms, the same for the same value. So the records cannot be\n"
           "  compared with the log's stored bytes. That they say what the log says is the word of the operator,\n"
           "  who signed it (manifest.note); nothing here proves it. Ask for a bundle that is not redacted where\n"
           "  that is not enough.\n\n";
  text +=
      "- Each of these records stands in the log under its number, byte for byte, as the log was when the\n"
      "  operator signed `checkpoint`. Not one of them can be changed afterwards.\n";
  text += manifest.complete()
              ? "- No record of the range is missing, and none was put in later.\n"
              : "- It does NOT prove that these are all the records of their sort: the range has others, and which\n"
                "  ones are here was chosen. Ask for the whole range where that matters.\n";
  text += manifest.previous
              ? fmt::format("- The log of {} records that an earlier checkpoint saw is the beginning of this log: what was\n"
                            "  handed out then has not been changed or taken out since (consistency.proof).\n",
                            manifest.previous->size)
              : "- It does not say how the log looked earlier: no earlier checkpoint was given when it was made.\n";
  return text +
         "- It cannot show that what was written down is true, nor that the operator has not kept a second log\n"
         "  under the same key for other readers. Compare `checkpoint` with others who watch the log, and with\n"
         "  the copies that the operator sends elsewhere, to find that.\n"
         "- Times are those of the server's clock; the order is that of the numbers.\n"
         "- No secrets are in it. Passwords and tokens appear as keyed fingerprints: equal ones are equal.\n\n";
}

}  // namespace

std::string readme_text(const Manifest& manifest) {
  return kWhat + holds(manifest) + proves(manifest) + kTrust + kHow + kFiles;
}

}  // namespace ledger::replay
