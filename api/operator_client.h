// The operators' API from the other side: how a command talks to the server that owns a data directory, or to
// one elsewhere. Blocks; one object, one thread.
#pragma once

#include <boost/json/object.hpp>
#include <filesystem>
#include <string>

#include "api/https_client.h"
#include "ledger/types.h"

namespace ledger::api {

class OperatorClient {
 public:
  struct Options {
    std::string url;                         // empty: the running server of data_dir
    std::filesystem::path data_dir;          // where the next two are looked for
    std::filesystem::path token_file;        // empty: <data_dir>/cred/operator-token
    std::filesystem::path ca_file;           // empty: <data_dir>/tls/server-ca.crt
  };
  // Errors name the file that is missing and what to do.
  static Result<OperatorClient> open(const Options& options);

  // The body of a 2xx answer; anything else is an Error with the server's own message.
  Result<std::string> get(const std::string& path);
  Result<std::string> post(const std::string& path, const std::string& json);

 private:
  explicit OperatorClient(HttpsClient client, Secret authorization)
      : client_(std::move(client)), authorization_(std::move(authorization)) {}
  Result<std::string> send(HttpsRequest request);

  HttpsClient client_;
  Secret authorization_;
};

// What get() or post() had, which must be a JSON object.
Result<boost::json::object> object_in(const Result<std::string>& answer);
// Of an action: the record that it became.
Result<Seq> seq_in(const Result<std::string>& answer);

}  // namespace ledger::api
