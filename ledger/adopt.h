// Moving in: takes the identity of a k3s or RKE2 server (certificate authorities, join passwords, listener names)
// over from its server directory, so that every token and certificate it has handed out stays valid.
//
// Taken, byte for byte: tls/client-ca.{crt,key}, tls/server-ca.{crt,key}, cred/passwd, cred/ipsec.psk; and, for a
// later use, tls/request-header-ca.{crt,key} and tls/service.key where they are. Checked: token, node-token and
// agent-token, which are then written as the server writes them. Made: tls/listener-names, the names of
// tls/dynamic-cert.json and tls/serving-kube-apiserver.crt, one a line; our own secrets in cred/ (credentials.h);
// the log, whose first record is epoch_started with cause `imported`. Not taken: cred/node-passwd.
//
// The source is only read, modes included. It may belong to a running server: it is read until two readings agree.
// Links are followed inside it only (k3s' own link of node-token to the absolute path of token counts as inside).
//
// The data directory must be fresh, or hold exactly what would be taken: then only names that the listener there
// has got since are added to tls/listener-names, which a server reads at its start. A crash at any point leaves a
// directory that either counts as fresh (the file `adoption-unfinished` is in it, with which no server starts:
// check_adoption()) or has been adopted. Nobody else can use it meanwhile: the log is held open.
//
// Threads: none of its own; one call at a time per data directory, which the log's lock ensures.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "ledger/issuer.h"

namespace ledger {

struct AdoptOptions {
  std::filesystem::path server_dir;  // .../k3s/server, .../rke2/server, or the directory above it
  std::filesystem::path data_dir;
  bool check = false;  // write nothing
  Time now;
};

enum class AdoptOutcome {
  refused,  // there are problems; nothing was written
  ready,    // no problem, and nothing written because only a check was asked for
  adopted,
  already,  // the data directory holds exactly this; nothing was written but `new_names`
};
std::string_view name_of(AdoptOutcome outcome);

struct AdoptReport {
  AdoptOutcome outcome = AdoptOutcome::refused;
  std::vector<std::string> problems;  // one sentence each: what, where, what to do
  std::vector<std::string> notes;     // what is good to know, and stops nothing
  std::filesystem::path server_dir;   // the one that was read, without links
  std::string program;                // "k3s", "rke2", or "" where nothing tells
  AuthorityReport client_ca, server_ca;
  std::string token_hash;  // CA hash of the token files
  bool separate_agent_token = false;
  bool has_node_passwd = false;    // cred/node-passwd is there, for `ledger import`
  std::vector<std::string> names;  // of the listener
  std::vector<std::string> new_names;  // already: those that tls/listener-names had not; added, unless only checked
  std::vector<std::string> files;  // below the data directory, that were or would be written
  Seq record = 0;                  // adopted: the epoch_started
};

// An error is a failure of the machine (a full disk, a data directory that another process holds); what is wrong
// with the source or the target is in the report.
Result<AdoptReport> adopt(const AdoptOptions& options);

// For whoever is about to open a data directory: Errc::invalid when an adoption into it was interrupted.
Result<void> check_adoption(const std::filesystem::path& data_dir);

// The names in tls/listener-names; none without the file. Errors name the line.
Result<std::vector<std::string>> adopted_listener_names(const std::filesystem::path& data_dir);

// Which CA hash the token files of a data directory are to have: issuer's ca_hash(), or raw_ca_hash() where `token`
// on disk has that one. A cluster of agents from before v1.26.2 keeps the tokens that they understand.
std::string token_hash_for(const std::filesystem::path& data_dir, const Issuer& issuer);

}  // namespace ledger
