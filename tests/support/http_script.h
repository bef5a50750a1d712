// Runs a plain-text HTTP script (tests/api/*.http.txt) against a running server.
//
//   # why this case is there
//   GET /path
//   Header: value             {name} is replaced: agent, server, operator (Authorization values), agent_id, port,
//                             <kept>.serial, and what the test gives
//   @certificate: web-1       presents the certificate kept under this name
//
//   body (optional)
//   => 200
//   Header: value             exactly; `*`: any; `-`: absent
//   body is TEXT (a line end at its end does not count) | body has TEXT | body lacks TEXT | body json {...}
//   record {...}              the record that Ledger-Seq names has these fields
//   @keep: web-1              keeps certificate and key of the answer
//
// Every reply must carry a Ledger-Request-Id, and every body must be free of the token.
#pragma once

#include <algorithm>
#include <boost/json.hpp>
#include <cctype>
#include <fstream>
#include <sstream>

#include "ledger/event_json.h"
#include "tests/support/running_server.h"

namespace ledger::test {

class HttpScript {
 public:
  HttpScript(RunningServer& server, std::map<std::string, std::string> variables = {})
      : server_(server), variables_(std::move(variables)) {
    variables_["token"] = server.token();
    variables_["agent"] = server.agent();
    variables_["server"] = basic("server", server.token());
    variables_["operator"] = server.operator_bearer();
    variables_["port"] = std::to_string(server.port());
    for (const Record& record : server.records_of<TokenCreated>())
      if (as<TokenCreated>(record)->token_class == "server") variables_["agent_id"] = as<TokenCreated>(record)->token;
  }

  // Cases run; failures are reported to gtest with the line.
  int run(const std::filesystem::path& file) {
    std::ifstream in(file);
    EXPECT_TRUE(in.good()) << file;
    std::string line, why;
    int number = 0, cases = 0;
    Case current;
    const auto finish = [&] {
      if (current.line != 0) {
        play(file.filename().string(), current);
        ++cases;
      }
      current = {};
    };
    while (std::getline(in, line)) {
      ++number;
      if (line.starts_with("#")) {
        if (current.answered) finish();
        why = line;
      } else if (line.starts_with("=> ")) {
        current.answered = true;
        current.status = std::stoi(line.substr(3));
      } else if (current.answered && !is_request_line(line)) {
        if (!line.empty()) current.expected.push_back(line);
      } else if (current.answered || current.line == 0) {
        if (current.answered) finish();
        if (line.empty()) continue;
        current.line = number;
        current.why = why;
        const auto space = line.find(' ');
        current.method = line.substr(0, space);
        current.target = filled(line.substr(space + 1));
      } else if (line.empty()) {
        current.in_body = true;
      } else if (current.in_body) {
        current.body += filled(line);
      } else {
        current.headers.push_back(split_header(filled(line)));
      }
    }
    finish();
    return cases;
  }

 private:
  using Header = std::pair<std::string, std::string>;
  struct Case {
    int line = 0, status = 0;
    bool answered = false, in_body = false;
    std::string why, method, target, body;
    std::vector<Header> headers;
    std::vector<std::string> expected;
  };

  // "GET /path", "OPTIONS *", "CONNECT host:port" after an answer: the next request.
  static bool is_request_line(const std::string& line) {
    const std::string word = line.substr(0, line.find(' '));
    const bool letters = std::all_of(word.begin(), word.end(), [](unsigned char c) { return std::isalpha(c) != 0; });
    return !word.empty() && word.size() < line.size() && letters && word != "body" && word != "record";
  }

  static Header split_header(const std::string& line) {
    const auto colon = line.find(':');
    const auto value = std::min(line.size(), colon + (line.substr(colon, 2) == ": " ? 2 : 1));
    return {line.substr(0, colon), line.substr(value)};
  }
  std::string filled(std::string text) const {
    for (const auto& [name, value] : variables_) {
      const std::string mark = "{" + name + "}";
      for (auto at = text.find(mark); at != std::string::npos; at = text.find(mark, at + value.size()))
        text.replace(at, mark.size(), value);
    }
    return text;
  }

  void play(const std::string& file, const Case& one) {
    SCOPED_TRACE(file + ":" + std::to_string(one.line) + " " + one.why);
    api::HttpsRequest request = request_of(one.method, one.target);
    request.body = one.body;
    Identity identity;
    for (const auto& [name, value] : one.headers) {
      if (name == "@certificate")
        identity = kept_.at(value);
      else
        request.headers.emplace_back(name, value);
    }
    const api::HttpsResponse response = server_.send(request, identity);
    ASSERT_EQ(response.status, one.status) << response.body;
    EXPECT_EQ(response.header("Ledger-Request-Id").size(), 16U);
    EXPECT_EQ(response.body.find(server_.token()), std::string::npos) << "the token is in a body";
    for (const std::string& line : one.expected) expect(response, filled(line));
  }

  void expect(const api::HttpsResponse& response, const std::string& line) {
    const auto after = [&](std::string_view start) { return line.substr(start.size()); };
    if (line == "body is") {
      EXPECT_EQ(response.body, "");
    } else if (line.starts_with("body is ")) {
      EXPECT_EQ(response.body.substr(0, response.body.size() - response.body.ends_with('\n')), after("body is "));
    } else if (line.starts_with("body has ")) {
      EXPECT_NE(response.body.find(after("body has ")), std::string::npos) << line << "\n" << response.body;
    } else if (line.starts_with("body lacks ")) {
      EXPECT_EQ(response.body.find(after("body lacks ")), std::string::npos) << line << "\n" << response.body;
    } else if (line.starts_with("body json ")) {
      expect_fields(response.body, after("body json "));
    } else if (line.starts_with("record ")) {
      const Record record = server_.record_of(response);
      expect_fields(to_json_line(record), after("record "));
      // A refusal may stand for several requests; what changes anything is a record of its own.
      const bool counted = record.kind() == Kind::token_accepted || is_refusal(record.kind());
      EXPECT_TRUE(counted || record.request_id == response.header("Ledger-Request-Id")) << to_json_line(record);
    } else if (line.starts_with("@keep:")) {
      api::PemParts parts = api::split_pem(response.body);
      const std::string name(trim(after("@keep:")));
      kept_[name] = {parts.certificates, std::string(parts.key.reveal())};
      const Record record = server_.record_of(response);
      if (const auto* issued = as<CertificateIssued>(record)) variables_[name + ".serial"] = issued->serial;
    } else {
      const auto [name, value] = split_header(line);
      const std::string_view actual = response.header(name);
      if (value == "*") {
        EXPECT_FALSE(actual.empty()) << name << " is missing";
      } else {
        EXPECT_EQ(actual, value == "-" ? "" : value) << name;
      }
    }
  }

  // Every field of `expected` is in `actual`, with the same value.
  static void expect_fields(const std::string& actual, const std::string& expected) {
    boost::json::error_code error;
    const boost::json::value value = boost::json::parse(actual, error);
    ASSERT_TRUE(!error && value.is_object()) << actual;
    const boost::json::value fields = boost::json::parse(expected);
    for (const auto& [key, wanted] : fields.as_object()) {
      const boost::json::value* found = value.get_object().if_contains(key);
      ASSERT_NE(found, nullptr) << key << " is missing in " << actual;
      EXPECT_EQ(*found, wanted) << key << " in " << actual;
    }
  }

  RunningServer& server_;
  std::map<std::string, std::string> variables_;
  std::map<std::string, Identity> kept_;
};

}  // namespace ledger::test
