// How to reach a kube-apiserver and with which identity, read from a kubeconfig file as kubectl reads one:
// clusters, users, contexts; certificates inline (base64) or as files, whose paths are relative to the kubeconfig;
// a token inline or as a file. Not taken: exec and auth-provider plugins, user name and password, proxies: the
// error says so.
//
// Hides YAML and yaml-cpp. Errors name the file, what is wrong in it, and never a secret. Pure but for reading
// files; any thread.
#pragma once

#include <filesystem>
#include <string>

#include "api/https_client.h"
#include "ledger/types.h"

namespace ledger::api {

struct KubeconfigOptions {
  std::filesystem::path path;
  std::string context;  // empty: current-context
  // Takes a kubeconfig with insecure-skip-tls-verify: then anybody on the way can say that nodes were deleted.
  bool allow_insecure = false;
};

struct KubeAccess {
  HttpsOptions https;                // address, trust and client certificate
  std::string prefix;                // path of the server's URL: "" or "/k8s/clusters/c-1"
  Secret token;                      // empty: none, or in token_file
  std::filesystem::path token_file;  // read anew for every connection: kubelets rotate it

  // Value of the Authorization header; empty where the client certificate is the identity.
  Result<Secret> authorization() const;
};

Result<KubeAccess> read_kubeconfig(const KubeconfigOptions& options);

}  // namespace ledger::api
